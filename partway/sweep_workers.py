"""Worker processes of a sweep: an Executor that outlives its workers.

Every worker has pipes of its own, so that one that is killed, even in the middle of an answer, costs the call it was
at and nothing else: no lock is shared, no other worker is taken down, and the next call finds a new one.
`concurrent.futures.ProcessPoolExecutor` and loky share one queue for all answers: one death ends the whole pool there,
and their workers live on when the parent is killed. Here a worker leaves as soon as its input ends.

A worker starts as a fresh interpreter, never by fork, which XLA's threads do not survive, and computes on one thread:
as many workers as cores share the machine without disturbing each other.
"""

import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import IO, Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Job = tuple[Future[Any], bytes]
HEADER = struct.Struct(">Q")
ONE_THREAD = {"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""NPROC is how many threads XLA takes on a CPU; flags in XLA_FLAGS brought nothing more."""
JAX_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_disable_most_optimizations",
)
"""What a worker takes over from its parent: programs that are compiled in the same way, and remembered."""
SHARED_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""No worker takes a GPU's whole memory."""


class WorkerDied(BrokenExecutor):
    """The process that computed this is gone; the executor itself goes on."""


class Workers(Executor):
    """So many processes, each started when it is first needed and anew when it has died."""

    def __init__(self, count: int, environment: Mapping[str, str] | None = None):
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._environment = worker_environment() | dict(environment or {})
        self._processes: dict[threading.Thread, subprocess.Popen[bytes]] = {}
        self._closed, self._killed = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn`, which must be importable, in a worker; its future fails with WorkerDied where that is killed."""
        if self._closed.is_set():
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        self._jobs.put((future, pickle.dumps((fn, args, kwargs))))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop: with `cancel_futures` at once, what is being computed included."""
        self._closed.set()
        if cancel_futures:
            self._drop_waiting()
            self._killed.set()
            with self._starting:
                for process in list(self._processes.values()):
                    process.kill()
        for _ in self._threads:
            self._jobs.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def pids(self) -> list[int]:
        """The processes that live now."""
        return [process.pid for process in list(self._processes.values()) if process.poll() is None]

    def _drop_waiting(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job[0].cancel()

    def _work(self) -> None:
        """One thread, one process at a time, one call after another."""
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                done, value = pickle.loads(self._ask(call))
            except OSError as error:  # also a start that fails
                self._end()
                future.set_exception(WorkerDied(str(error) or "the worker is gone"))
            except Exception as error:  # an answer that cannot be read here
                future.set_exception(error)
            else:
                future.set_result(value) if done else future.set_exception(value)
        self._end()

    def _ask(self, call: bytes) -> bytes:
        process = self._process()
        to, back = process.stdin, process.stdout
        if to is None or back is None:
            raise BrokenPipeError("the worker process has no pipes")
        send(to, call)
        answer = receive(back)
        if answer is None:
            raise BrokenPipeError(f"the worker process {process.pid} ended with {process.wait()}")
        return answer

    def _process(self) -> subprocess.Popen[bytes]:
        """This thread's process, alive when last seen."""
        own = self._processes.get(threading.current_thread())
        if own is not None and own.poll() is None:
            return own
        self._end()
        with self._starting:
            if self._killed.is_set():
                raise BrokenPipeError("the executor is shut down")
            command = [sys.executable, "-P", "-m", "partway.sweep_worker"]
            made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment)
            self._processes[threading.current_thread()] = made
        return made

    def _end(self) -> None:
        """Let this thread's process go: it leaves when its input ends."""
        process = self._processes.pop(threading.current_thread(), None)
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def worker_environment() -> dict[str, str]:
    """The surroundings of a worker: ours, our way of finding modules, our JAX settings, and one thread."""
    import jax  # slow: where only the worker's half of this module is needed, it is not

    values: dict[str, Any] = dict(jax.config.values)
    found = {name.upper(): str(values[name]) for name in JAX_SETTINGS if values.get(name) is not None}
    paths = os.pathsep.join(path for path in sys.path if path)
    return SHARED_GPU | dict(os.environ) | ONE_THREAD | found | {"PYTHONPATH": paths}


def send(pipe: IO[bytes], message: bytes) -> None:
    """Write a message with its length before it."""
    pipe.write(HEADER.pack(len(message)))
    pipe.write(message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """The next message; None where the other side is gone, also in the middle of it."""
    head = pipe.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    (length,) = HEADER.unpack(head)
    message = pipe.read(length)
    return message if len(message) == length else None


def serve() -> None:
    """What a worker does: answer calls from standard input until it ends, and leave at once when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the parent decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a policy prints is no answer
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    while True:
        send(answers, _answer(calls.get()))


def _listen(calls: "queue.SimpleQueue[bytes]") -> None:
    while (call := receive(sys.stdin.buffer)) is not None:
        calls.put(call)
    os._exit(0)  # nobody waits for what is being computed


def _answer(call: bytes) -> bytes:
    try:
        function, positional, named = pickle.loads(call)
        return pickle.dumps((True, function(*positional, **named)))
    except Exception as error:
        return _exception(error)


def _exception(error: Exception) -> bytes:
    """(False, the exception), or what it says where it cannot be sent."""
    try:
        sent = pickle.dumps((False, error))
        pickle.loads(sent)
        return sent
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
