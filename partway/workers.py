"""Threads and worker processes.

The processes are joblib's, as an executor that survives the death of a worker.

A process starts as a fresh interpreter, never by fork, which XLA's threads do not survive, and computes on one thread,
so that as many processes as cores share the machine without disturbing each other.
"""

import contextlib
import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax

from partway.arguments import as_whole
from partway.errors import InputError, shown
from partway.files import claimed, delete_unlocked

P = ParamSpec("P")
T = TypeVar("T")
ONE_THREAD = dict.fromkeys(
    ("NPROC", "JAX_NUM_CPU_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""Environment of a worker. NPROC is the number of threads that XLA uses on a CPU; XLA_FLAGS gained nothing more."""
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""No worker takes a GPU's whole memory."""
JAX_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_disable_most_optimizations",
)
"""Settings that a worker takes from its parent, so that programs are compiled in the same way and cached."""
CACHE_WARNING = "Error (reading|writing) persistent compilation cache entry"
"""What JAX says, to begin with, of a program that another process is writing or for which there is no room."""
CALLBACK_LOGGER = "jax._src.callback"
"""Logs the traceback of an error in a Python function that a compiled program called, and then raises the error."""
TRACKER_WARNING = "resource_tracker"
"""What loky's process that removes what dead ones have left says when it does, to begin with."""
REGISTER = "partway-workers-"
OWNER = "PARTWAY_WORKERS"
"""Environment variable of a worker: the register of the pool that it belongs to."""
MAX_PROCESSES = 1024
WATCH_S = 0.5
"""How long a worker may outlive a parent that was killed."""


@contextlib.contextmanager
def threads(count: int) -> Generator[Executor]:
    """`count` threads, which are waited for unless an exception leaves the context.

    Then what has not begun is cancelled, and what runs is left alone: a compilation can take minutes, and a thread that
    waits for a lock of the import system, which an interrupt can leave locked, never ends.
    """
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


class Workers(Executor):
    """`count` processes. When one dies, all calls submitted so far fail with BrokenExecutor; later ones are computed.

    `fn` must be importable, or picklable by cloudpickle.
    """

    def __init__(self, count: int):
        # slow to import, and few commands need it. joblib has no public name for its copy of loky; the package `loky`
        # would be one more dependency
        from joblib.externals.loky.backend import resource_tracker

        self.count, self._closed = count, False
        self._held = contextlib.ExitStack()
        try:
            self._register = self._held.enter_context(_new_register())
            with _shielded(), _silent_tracker():
                resource_tracker.ensure_running()
                # Python's own, which loky needs too: when it starts it lets Ctrl-C through again, in `submit` as well
                multiprocessing.resource_tracker.ensure_running()
            self._pool = self._new_pool()
        except BaseException:
            self._held.close()
            raise

    def _new_pool(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        arguments = (os.getpid(), tuple(sys.path), str(self._register))
        variables = environment() | {OWNER: str(self._register)}
        return ProcessPoolExecutor(self.count, initializer=_start, initargs=arguments, env=variables)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` in one of the processes. Raises RuntimeError after `shutdown`."""
        if self._closed:
            raise RuntimeError("cannot submit after shutdown")
        with _shielded():
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                self._pool.shutdown()
                self._pool = self._new_pool()
                return self._pool.submit(fn, *args, **kwargs)

    def pids(self) -> list[int]:
        """Process IDs of the workers that have started and are alive."""
        registered = {path.name for path in self._register.glob("*")}
        return [process.pid for process in self._processes() if str(process.pid) in registered]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop when all calls are done; with `cancel_futures` at once, running calls included.

        The workers are then terminated as if they had died. `shutdown(kill_workers=True)` of loky does the same, but it
        fails in its thread, and leaves workers behind, where a call that still waits was cancelled.
        """
        self._closed = True
        if cancel_futures:
            alive = self._processes()
            self._held.close()  # a worker that starts now does not find itself there, and exits
            for process in alive:
                process.terminate()
        self._pool.shutdown(wait)
        self._held.close()

    def _processes(self) -> list[Any]:
        """Our children that are alive, also those that still import; others of this process may be somebody else's.

        loky's processes keep the environment that they were started with in `env`, which is not documented: those that
        have not registered yet are known by nothing else. If a version of loky has no such field, none is found.
        """
        children: list[Any] = multiprocessing.active_children()
        return [child for child in children if getattr(child, "env", {}).get(OWNER) == str(self._register)]


@contextlib.contextmanager
def _new_register() -> Generator[Path]:
    """A folder in which workers register. Those that killed processes have left are deleted: nobody has locked them."""
    made = Path(tempfile.mkdtemp(prefix="partway-"))
    register = made.with_name(made.name.replace("partway-", REGISTER))
    try:
        with claimed(made):
            made.rename(register)  # locked before it has a name that others look for
            for left in register.parent.glob(f"{REGISTER}*"):
                delete_unlocked(left)
            yield register
    finally:
        for folder in (made, register):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _shielded() -> Generator[None]:
    """No process that starts inside sees Ctrl-C or SIGHUP, which a terminal sends to all: the parent decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _silent_tracker() -> Generator[None]:
    """A process of Python that starts inside does not say that it removes what a dead parent has left."""
    option = f"ignore:{TRACKER_WARNING}"
    sys.warnoptions.append(option)
    try:
        yield
    finally:
        sys.warnoptions.remove(option)


@contextlib.contextmanager
def processes(count: int) -> Generator[Workers]:
    """Workers that are stopped when the block ends, however it ends."""
    made = Workers(count)
    try:
        with warnings.catch_warnings():
            # loky replaces a process whose memory has grown a lot, as compiled programs pile up in it, and warns
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            yield made
    finally:
        made.shutdown(cancel_futures=True)


def process_count(asked: int | None) -> int:
    """The number of processes asked for, or of cores. Raises InputError unless it is from 1 to MAX_PROCESSES."""
    count = cores() if asked is None else as_whole(asked)
    if count is None or not (asked is None or 1 <= count <= MAX_PROCESSES):
        raise InputError(f"--jobs must be between 1 and {MAX_PROCESSES}, got {shown(asked)}")
    return count


def environment() -> dict[str, str]:
    """Environment variables that a worker has beside ours: our JAX settings, and one thread."""
    values: Mapping[str, Any] = jax.config.values
    settings = {name.upper(): str(values[name]) for name in JAX_SETTINGS if values.get(name) is not None}
    return SHARED_GPU | ONE_THREAD | settings


def silence_jax() -> None:
    """Let this process print no warnings about the compilation cache, and of an error only what Partway says of it."""
    warnings.filterwarnings("ignore", CACHE_WARNING, UserWarning)
    logging.getLogger(CALLBACK_LOGGER).setLevel(logging.CRITICAL)


def cores() -> int:
    """Cores that this process may use: NPROC, which XLA reads too, or those it may run on."""
    given = os.environ.get("NPROC", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(parent: int, path: tuple[str, ...], register: str) -> None:
    """In a worker: register, import what the parent can, print to standard error, ignore Ctrl-C, watch the parent."""
    entry = Path(register, str(os.getpid()))
    try:
        entry.touch()
    except FileNotFoundError:  # the parent has shut down in the meantime
        os._exit(1)
    sys.path[:] = path
    silence_jax()
    os.dup2(2, 1)  # the parent's standard output may be read as JSON
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C stops
    threading.Thread(target=_end_with, args=(parent, entry), daemon=True).start()


def _end_with(parent: int, entry: Path) -> None:
    """End this process when its parent has died, and leave nothing in the register."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    with contextlib.suppress(OSError):
        entry.unlink()
        entry.parent.rmdir()  # succeeds for the last one
    os._exit(1)
