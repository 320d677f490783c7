"""Worker processes: an executor like any other, which survives killed workers and leaves none behind."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
import sweep_toys

from partway.errors import InputError
from partway.workers import CALLBACK_LOGGER, ONE_THREAD, Workers, process_count, processes, threads


@pytest.fixture
def workers() -> Iterator[Workers]:
    with processes(1) as made:
        yield made


@pytest.fixture(scope="module")
def mortal() -> Iterator[Workers]:
    """One worker for tests that kill it."""
    with processes(1) as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[Workers]:
    """Two workers for tests that leave them alive."""
    with processes(2) as made:
        yield made


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has, whose parent has not waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def within(seconds: float, holds: object) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:  # pyright: ignore[reportCallIssue]
        time.sleep(0.02)
    return bool(holds())  # pyright: ignore[reportCallIssue]


def test_calls_are_answered_in_order_of_submission(shared: Workers):
    assert list(shared.map(pow, range(20), range(20))) == [i**i for i in range(20)]


def test_exceptions_come_back(shared: Workers):
    with pytest.raises(ValueError, match="invalid literal"):
        shared.submit(int, "x").result()
    assert shared.submit(pow, 2, 3).result() == 8


def test_what_a_call_prints_is_not_on_standard_output_and_leaving_the_block_waits(capfd: pytest.CaptureFixture[str]):
    with Workers(1) as workers:
        futures = [workers.submit(sweep_toys.print_and_return, i) for i in range(5)]
    assert [future.result(0) for future in futures] == list(range(5))
    assert capfd.readouterr().out == ""


def test_a_worker_prints_no_traceback_of_an_error_that_is_reported_in_one_line(shared: Workers):
    assert logging.getLogger(CALLBACK_LOGGER).isEnabledFor(logging.ERROR)
    assert not shared.submit(logging.getLogger(CALLBACK_LOGGER).isEnabledFor, logging.ERROR).result()


def test_calls_after_a_killed_worker_are_computed(mortal: Workers):
    first = mortal.submit(time.sleep, 60)
    assert within(20, mortal.pids)
    os.kill(mortal.pids()[0], signal.SIGKILL)
    assert isinstance(first.exception(), BrokenExecutor)
    assert mortal.submit(pow, 2, 5).result() == 32


def test_calls_after_a_worker_that_exited_are_computed(mortal: Workers):
    for _ in range(2):
        with pytest.raises(BrokenExecutor):
            mortal.submit(sweep_toys.exit_at_once).result()
    assert mortal.submit(pow, 2, 5).result() == 32


@pytest.mark.slow
def test_shutting_down_at_once_ends_what_runs_and_what_waits():
    workers = Workers(1)
    futures = [workers.submit(time.sleep, 60) for _ in range(2)]
    assert within(20, workers.pids)
    before = workers.pids()
    workers.shutdown(cancel_futures=True)
    assert all(future.cancelled() or future.exception() is not None for future in futures)
    assert len(before) == 1
    assert within(20, lambda: all(map(gone, before)))


def test_shutting_down_at_once_after_a_waiting_call_was_cancelled():
    """As a sweep does that is interrupted."""
    with processes(1) as workers:
        running, waiting = workers.submit(time.sleep, 60), [workers.submit(time.sleep, 60) for _ in range(4)]
        assert within(20, workers.pids)
        assert running.running()
        cancelled = [future.cancel() for future in waiting]
        before = workers.pids()
    assert any(cancelled)
    assert len(before) == 1
    assert within(20, lambda: all(map(gone, before)))
    with pytest.raises(RuntimeError):
        workers.submit(pow, 1, 1)


def test_a_worker_that_starts_too_late_does_not_stay():
    """Its parent has shut down between starting it and its first line."""
    workers = Workers(1)
    future = workers.submit(time.sleep, 60)
    assert workers.pids() == []  # a process needs longer than this to start
    workers.shutdown(cancel_futures=True)
    assert future.exception() is not None


def test_workers_that_still_import_are_ended_too():
    """They would hold the standard streams of a command that was interrupted open, for seconds."""
    made = Workers(2)
    made.submit(pow, 2, 3)
    started = made._processes()
    made.shutdown(cancel_futures=True)
    assert started
    assert {process.exitcode for process in started} == {-signal.SIGTERM}


def test_processes_of_others_are_left_alone(workers: Workers):
    """A number that is registered but is not our child's may be another program's by now."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        Path(workers._register, str(other.pid)).touch()
        assert workers.submit(pow, 2, 3).result() == 8
        assert other.pid not in workers.pids()
        workers.shutdown(cancel_futures=True)
        assert other.poll() is None
        other.kill()


def test_no_worker_outlives_a_killed_parent():
    program = (
        "import time; from partway.workers import Workers; w = Workers(2)\n"
        "futures = [w.submit(time.sleep, 60) for _ in range(2)]\n"
        "while len(w.pids()) < 2: time.sleep(0.05)\n"
        "print(*w.pids(), w._register, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        *words, register = parent.stdout.readline().split()
        pids = list(map(int, words))
        assert len(pids) == 2
        parent.kill()
    assert within(20, lambda: all(map(gone, pids)))
    assert within(20, lambda: not Path(register).exists())


def test_workers_compute_on_one_thread(shared: Workers):
    assert {name: shared.submit(os.getenv, name).result() for name in ONE_THREAD} == ONE_THREAD


def test_a_worker_ignores_ctrl_c(shared: Workers):
    pid = shared.submit(sweep_toys.pid).result()
    os.kill(pid, signal.SIGINT)
    assert shared.submit(pow, 3, 2).result() == 9
    assert pid in shared.pids()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ctrl_c_and_sighup_do_not_reach_a_worker_that_still_imports():
    """In a process that has started none before: Python's resource tracker once let Ctrl-C through again."""
    program = (
        "import time; from pathlib import Path; from partway.workers import Workers; w = Workers(2)\n"
        "futures = [w.submit(time.sleep, 0.0) for _ in range(2)]\n"
        "files = [Path(f'/proc/{process.pid}/status') for process in w._processes()]\n"
        "print(*(int(file.read_text().split('SigBlk:')[1].split()[0], 16) for file in files)); w.shutdown()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    masks = [int(word) for word in done.stdout.split()]
    blocked = sum(1 << number - 1 for number in (signal.SIGINT, signal.SIGHUP))
    assert len(masks) == 2, done.stderr
    assert all(mask & blocked == blocked for mask in masks)


@pytest.mark.parametrize("asked", [0, -1, 1025])
def test_an_impossible_number_of_processes_is_refused(asked: int):
    with pytest.raises(InputError, match=f"--jobs must be between 1 and 1024, got {asked}"):
        process_count(asked)


def test_as_many_processes_as_asked_for_or_as_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NPROC", "3")
    assert (process_count(None), process_count(7)) == (3, 7)


def test_an_interrupt_does_not_wait_for_a_thread_that_never_ends():
    blocked, begun, ended = threading.Event(), threading.Event(), list[str]()

    def wait():
        begun.set()
        blocked.wait()
        ended.append("first")

    def interrupted():
        with threads(1) as pool:
            pool.submit(wait)
            pool.submit(ended.append, "second")
            begun.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert begun.is_set()
    assert ended == []
    blocked.set()


def test_without_an_exception_threads_are_waited_for():
    ended = list[int]()
    with threads(2) as pool:
        for i in range(4):
            pool.submit(lambda i=i: (time.sleep(0.01), ended.append(i)))
    assert sorted(ended) == [0, 1, 2, 3]
