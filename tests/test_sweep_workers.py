"""Worker processes: an executor like any other, but for what happens when a worker is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, wait
from pathlib import Path

import pytest
import sweep_toys

from partway.sweep_workers import ONE_THREAD, WorkerDied, Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(2)
    yield made
    made.shutdown(cancel_futures=True)


def gone(pid: int) -> bool:
    """Whether a process has ended, or is only not yet fetched by a parent that is not ours."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def within(seconds: float, holds: object) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:  # pyright: ignore[reportCallIssue]
        time.sleep(0.02)
    return bool(holds())  # pyright: ignore[reportCallIssue]


def test_calls_are_answered_in_order_of_submission(workers: Workers):
    assert list(workers.map(pow, range(20), range(20))) == [i**i for i in range(20)]


def test_large_messages_arrive_whole(workers: Workers):
    text = "x" * 3_000_000
    assert workers.submit(str.upper, text).result() == text.upper()


def test_exceptions_come_back(workers: Workers):
    with pytest.raises(ValueError, match="invalid literal"):
        workers.submit(int, "x").result()
    with pytest.raises(RuntimeError, match="Unsendable: 1 and 2"):
        workers.submit(sweep_toys.raise_unsendable).result()
    assert workers.submit(pow, 2, 3).result() == 8


def test_what_a_call_prints_is_not_taken_for_its_answer(workers: Workers, capfd: pytest.CaptureFixture[str]):
    assert [workers.submit(sweep_toys.chatter, i).result() for i in range(3)] == [0, 1, 2]
    assert capfd.readouterr().out == ""


def test_a_killed_worker_costs_its_call_and_nothing_else(workers: Workers):
    first, second = workers.submit(time.sleep, 60), workers.submit(time.sleep, 0.8)
    assert within(20, lambda: len(workers.pids()) == 2 and first.running() and second.running())
    os.kill(workers.pids()[0], signal.SIGKILL)
    broken = next(iter(wait([first, second], return_when="FIRST_EXCEPTION").done))
    other = second if broken is first else first
    assert isinstance(broken.exception(), WorkerDied)
    assert isinstance(broken.exception(), BrokenExecutor)
    assert not other.done() or other.exception() is None
    assert workers.submit(pow, 2, 5).result() == 32


def test_a_worker_that_leaves_by_itself_is_replaced(workers: Workers):
    for _ in range(2):
        with pytest.raises(WorkerDied, match="ended with 3"):
            workers.submit(sweep_toys.exit_at_once).result()
    assert workers.submit(pow, 2, 5).result() == 32


def test_an_idle_worker_that_was_killed_is_replaced(workers: Workers):
    before = workers.submit(sweep_toys.pid).result()
    os.kill(before, signal.SIGKILL)
    assert within(20, lambda: before not in workers.pids())
    assert list(workers.map(pow, [2, 2, 2], [1, 2, 3])) == [2, 4, 8]


def test_shutting_down_at_once_ends_what_runs_and_cancels_what_waits():
    workers = Workers(1)
    running = workers.submit(time.sleep, 60)
    waiting = workers.submit(time.sleep, 60)
    assert within(20, lambda: bool(workers.pids()))
    pids = workers.pids()
    workers.shutdown(cancel_futures=True)
    assert waiting.cancelled()
    assert running.cancelled() or isinstance(running.exception(), WorkerDied)
    assert all(map(gone, pids))
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.submit(pow, 1, 1)


def test_leaving_the_block_waits_for_what_was_submitted():
    with Workers(1) as workers:
        futures = [workers.submit(pow, 2, i) for i in range(5)]
    assert [future.result() for future in futures] == [1, 2, 4, 8, 16]
    assert workers.pids() == []


def test_no_worker_outlives_a_killed_parent():
    program = "import time; from partway.sweep_workers import Workers; import os; w = Workers(2); "
    program += "a = w.submit(os.getpid).result(); w.submit(time.sleep, 60); w.submit(time.sleep, 60); time.sleep(1); "
    program += "print(*w.pids(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(pids) == 2
        parent.kill()
    assert within(20, lambda: all(map(gone, pids)))


def test_workers_compute_on_one_thread(workers: Workers):
    assert {name: workers.submit(os.getenv, name).result() for name in ONE_THREAD} == ONE_THREAD


def test_ctrl_c_in_the_terminal_is_the_parents_affair(workers: Workers):
    pid = workers.submit(sweep_toys.pid).result()
    os.kill(pid, signal.SIGINT)
    assert workers.submit(pow, 3, 2).result() == 9
    assert pid in workers.pids()
