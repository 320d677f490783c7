"""The server's queue of tasks, and the clock that runs ahead."""

import asyncio

import numpy as np
import pytest

from partway.live.clock import now, run_on_fake_clock, sleep_until
from partway.live.messages import BlockRecord
from partway.live.pacing import late
from partway.live.tasks import ANSWERED, LOCAL, TaskLog, Timing
from partway.live.work import Job, WorkQueue


def job(device: int, work: float, block: int = 0, task: int = 0) -> Job:
    return Job(device, task, block, work, 0.0)


def test_work_is_done_in_order_at_the_commanded_rate():
    """By hand: slots of 2 s that do 1, 0 and 2 units; 0.5 is done after 1 s, 1.5 more in the middle of the third."""
    queue, first, second = WorkQueue(4, 2.0), job(0, 0.5), job(1, 1.5)
    queue.add([second, first])
    queue.serve(np.array([1.0, 0.0, 2.0]), 10.0)
    assert (first.begun, first.done) == (10.0, 11.0)
    assert (second.begun, second.done) == (11.0, 15.0)
    assert len(queue) == 0


def test_a_task_may_take_several_blocks():
    queue, only = WorkQueue(1, 1.0), job(0, 2.5)
    queue.add([only])
    assert queue.serve(np.array([1.0, 1.0]), 0.0) == [only]
    assert (only.begun, only.done, only.left) == (0.0, None, 0.5)
    queue.serve(np.array([0.0, 1.0]), 2.0)
    assert only.done == 3.5


def test_no_device_is_always_first():
    queue, tasks = WorkQueue(3, 1.0), [job(device, 0.1, block) for block in range(3) for device in range(3)]
    for block in range(3):
        queue.add(task for task in tasks if task.block == block)
    done = sorted((task for task in queue.serve(np.array([9.0]), 0.0) if task.done), key=lambda task: task.done or 0)
    assert [(task.block, task.device) for task in done] == [
        *((0, 0), (0, 1), (0, 2)),
        *((1, 1), (1, 2), (1, 0)),
        *((2, 2), (2, 0), (2, 1)),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_work_is_conserved(seed: int):
    """What is done is what was commanded while there was work, and every job takes what it is."""
    rng = np.random.default_rng(seed)
    queue, jobs, done = WorkQueue(5, 0.1), list[Job](), 0.0
    backlog = 0.0
    for block in range(30):
        new = [job(k, float(rng.uniform(0.01, 1)), block, block) for k in range(5) if rng.random() < 0.5]
        jobs += new
        queue.add(new)
        backlog += sum(one.work for one in new)
        service = rng.uniform(0, 1, 4)
        queue.serve(service, block * 0.4)
        served = 0.0
        for capacity in service:
            now_done = min(backlog, float(capacity))
            backlog, served = backlog - now_done, served + now_done
        done += served
        left = sum(one.left for one in jobs if one.done is None)
        assert left == pytest.approx(backlog, abs=5e-3)
    finished = [one for one in jobs if one.done is not None]
    assert sum(one.work for one in finished) <= done + 5e-3
    assert all(one.begun is not None and one.done is not None and one.begun <= one.done for one in finished)


def test_what_rounding_leaves_is_done():
    queue, only = WorkQueue(1, 1.0), job(0, 1.0)
    queue.add([only])
    queue.serve(np.array([0.5, 0.5 - 1e-9]), 0.0)
    assert only.done == pytest.approx(2.0, abs=1e-6)
    assert len(queue) == 0


def test_a_task_below_the_tolerance_is_not_done_before_it_is_served():
    queue, only = WorkQueue(1, 1.0), job(0, 1e-6)
    queue.add([only])
    assert queue.serve(np.array([0.0]), 0.0) == []
    assert only.done is None


def test_the_fake_clock_skips_what_nobody_waits_for():
    async def main() -> list[tuple[str, float]]:
        said = list[tuple[str, float]]()

        async def at(name: str, moment: float) -> None:
            await sleep_until(moment)
            said.append((name, now()))

        await asyncio.gather(at("late", 3e6), at("early", 0.25), at("past", -1.0))
        return said

    said = run_on_fake_clock(main())
    assert [name for name, _ in said] == ["past", "early", "late"]
    np.testing.assert_allclose([moment for _, moment in said], [0.0, 0.25, 3e6], atol=1e-6)


def test_the_fake_clock_says_that_everybody_waits():
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="waits for another one"):
        run_on_fake_clock(main())


def test_how_late_the_parts_of_tasks_are():
    """By hand, in blocks of 2 s. Block 3 starts three tasks and leaves half of the last: 0.8 s each, 0.4 s; slot 0.5 s.

    Block 4 sends the input of one, which takes no time of the CPU: its part begins and ends with the block.
    """

    def record(started: float, offload: float) -> BlockRecord:
        return BlockRecord(9.0, 1.0, started, offload, np.nan, 0.0, 0.0, np.nan, 0)

    tasks = [
        TaskLog(0, 3, 2, 5.0, 10.0, 10.25, 10.5, 11.0, 0.0, 0.0, 1.0, ANSWERED),
        TaskLog(0, 0, 1, 4.0, 6.01, 6.8, answered=6.8, outcome=LOCAL),
        TaskLog(0, 1, 1, 4.0, 6.8, 7.62, answered=7.62, outcome=LOCAL),
        TaskLog(0, 2, 2, 4.5, 7.6, 8.0, 8.53, 9.0, 0.0, 0.0, 0.5, ANSWERED),
        TaskLog(0, 4, 2, 6.0),  # has not been started
    ]
    found = late({4: record(1.0, 1.0), 3: record(3.0, 0.5)}, tasks, Timing(0.0, 0.5, 4))
    np.testing.assert_allclose(found, [0.01, 0.0, 0.0, 0.02, 0.0, 0.0, 0.03, 0.0, 0.25, 0.0], atol=1e-12)
