"""Worker processes: joblib's, as an executor that goes on when one of them dies.

A process starts as a fresh interpreter, never by fork, which XLA's threads do not survive, and computes on one thread:
as many as there are cores share the machine without disturbing each other.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, ParamSpec, TypeVar

import jax

from partway.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
ONE_THREAD = dict.fromkeys(
    ("NPROC", "JAX_NUM_CPU_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""NPROC is how many threads XLA takes on a CPU; flags in XLA_FLAGS brought nothing more."""
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""No worker takes a GPU's whole memory."""
JAX_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_disable_most_optimizations",
)
"""What a worker takes over from its parent: programs that are compiled in the same way, and remembered."""
MOST_JOBS = 1024
LOOK_S = 0.5
"""How long a worker may outlive a parent that was killed."""


class Workers(Executor):
    """So many processes. When one dies, all that was submitted fails with BrokenExecutor; what comes next is computed.

    `fn` must be importable, or picklable by cloudpickle.
    """

    def __init__(self, count: int):
        self.count, self._pool, self._closed = count, _pool(count), False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` in one of them."""
        if self._closed:
            raise RuntimeError("cannot submit after shutdown")
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self._pool.shutdown()
            self._pool = _pool(self.count)
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop: with `cancel_futures` at once, what is being computed included."""
        self._closed = True
        if cancel_futures:
            # as if they had died: loky's own kill_workers fails in its thread where calls still wait
            for process in list(self._pool._processes.values()):
                process.terminate()
        self._pool.shutdown(wait)


@contextlib.contextmanager
def processes(count: int) -> Generator[Workers]:
    """Workers that are gone when the block ends, however it does."""
    made = Workers(count)
    try:
        with warnings.catch_warnings():
            # a process that has grown a lot, as programs pile up in it, is replaced, and loky says so
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            yield made
    finally:
        made.shutdown(cancel_futures=True)


def jobs_of(asked: int | None) -> int:
    """How many processes: what was asked for, or as many as there are cores. Raises InputError for what is none."""
    if asked is not None and not 1 <= asked <= MOST_JOBS:
        raise InputError(f"--jobs {asked}: allowed is a whole number from 1 to {MOST_JOBS}")
    return asked or cores()


def _pool(count: int) -> Any:
    from joblib.externals.loky import ProcessPoolExecutor  # which no other command has to wait for

    return ProcessPoolExecutor(count, initializer=_begin, initargs=(os.getpid(), tuple(sys.path)), env=environment())


def environment() -> dict[str, str]:
    """What a worker's environment has beside ours: our JAX settings, and one thread."""
    values: Mapping[str, Any] = jax.config.values
    found = {name.upper(): str(values[name]) for name in JAX_SETTINGS if values.get(name) is not None}
    return SHARED_GPU | ONE_THREAD | found


def _begin(parent: int, path: tuple[str, ...]) -> None:
    """In a worker: find its parent's modules, print to standard error, leave Ctrl-C to it, end however it ends."""
    sys.path[:] = path
    os.dup2(2, 1)  # standard output may be somebody's JSON
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def cores() -> int:
    """Cores that this process may use: NPROC, which XLA reads too, or those it may run on."""
    told = os.environ.get("NPROC", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
