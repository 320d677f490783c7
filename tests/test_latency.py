"""Latency per task: by hand, by Little's law, against a slow loop, and on a real run."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Play
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Random, Steady
from partway.measurement.latency import DELAYS, TOLERANCE, Tasks, finish_times, latency
from partway.system.world import World

TAU = 0.1


@dataclass
class Slow:
    """One task in the plain loop; `missing` of its `work` the server still has to do.

    moments  when the device begins and ends, the radio ends, and the server begins
    """

    device: int
    arrived: float
    finished: float = math.inf
    cut: bool = False
    work: float = 0.0
    missing: float = 0.0
    moments: tuple[float, float, float, float] = (math.inf,) * 4


def serve_slot(waiting: list[Slow], service: float, commanded: float, begin: float, slot_s: float) -> list[Slow]:
    """One slot of the server: what waits afterwards. `commanded`: work commanded in the block up to this slot's end."""
    budget = service
    for task in waiting:
        done = min(task.missing, budget)
        if done > 0.0 and task.moments[3] == math.inf:
            task.moments = (*task.moments[:3], begin + (service - budget) / service * slot_s)
        task.missing, budget = task.missing - done, budget - done
        if task.missing == 0.0 and task.finished == math.inf:
            task.finished = begin + (service - budget) / service * slot_s
    before, empty = 0.0, sum(task.missing for task in waiting) <= min(TOLERANCE, commanded)
    for task in waiting:
        before += task.missing
        if task.finished == math.inf and (empty or before <= min(TOLERANCE, task.work / 2)):
            task.finished = begin + slot_s
    return [] if empty else [task for task in waiting if task.missing > 0.0]


def slow_finish_times(traces: Any, server_work: np.ndarray, slot_s: float, seed: int) -> list[Slow]:
    """The same as `finish_times` of one seed, task by task as time goes by; in the order of device and arrival."""
    blocks, slots, devices = traces.arrivals.shape[1:]
    queues: list[list[Slow]] = [[] for _ in range(devices)]
    every: list[Slow] = []
    at_server: list[Slow] = []
    for t in range(blocks):
        sent: dict[int, Slow] = {}
        for k in range(devices):
            j, offload = int(traces.started[seed, t, k]), float(traces.offload[seed, t, k])
            started, queues[k] = queues[k][:j], queues[k][j:]
            for i, task in enumerate(started, start=1):
                local, block_end = j - offload, (t + 1) * slots * slot_s
                begun = (t + (i - 1) / local) * slots * slot_s if local > 0 else block_end
                if i == j and offload > 0:
                    task.cut, task.work, sent[k] = True, offload * float(server_work[k]), task
                    task.missing = task.work
                    task.moments = (begun, block_end, block_end + slot_s, math.inf)
                else:
                    task.finished = (t + i / (j - offload)) * slots * slot_s
                    task.moments = (begun, *[task.finished] * 3)
            for i in range(slots):
                if traces.arrivals[seed, t, i, k]:
                    queues[k].append(Slow(k, (t * slots + i + 1) * slot_s))
                    every.append(queues[k][-1])
        commanded = 0.0
        for i in range(slots):
            service = float(traces.service_per_slot[seed, t, i])
            commanded += service
            begin = (t * slots + slots + 1 + i) * slot_s
            at_server = serve_slot(at_server, service, commanded, begin, slot_s)
        at_server += [sent[k] for k in ((t + step) % devices for step in range(devices)) if k in sent]
    return sorted(every, key=lambda task: (task.device, task.arrived))


def population(tasks: list[Slow], end: float) -> float:
    """Integral from 0 to `end` of the number of tasks in the system, by walking through the events."""
    events = sorted([(task.arrived, 1) for task in tasks] + [(task.finished, -1) for task in tasks])
    area, now, inside = 0.0, 0.0, 0
    for time, change in events:
        area += inside * (min(time, end) - now)
        now, inside = min(time, end), inside + change
    return area


def traces_of(arrivals: Any, started: Any, offload: Any, service_per_slot: Any) -> Any:
    """Traces of one seed: arrivals (T, n, K), started and offload (T, K), service_per_slot (T, n)."""
    one = {"arrivals": arrivals, "started": started, "offload": offload, "service_per_slot": service_per_slot}
    return SimpleNamespace(**{name: np.asarray(value, np.float32)[None] for name, value in one.items()})


def only(traces: Any, server_work: Any = (1.0,), slot_s: float = 1.0) -> Tasks:
    """The tasks of the only seed."""
    (tasks,) = finish_times(traces, server_work, slot_s)
    return tasks


def end_of(traces: Any, slot_s: float) -> float:
    blocks, slots = traces.service_per_slot.shape[1:]
    return ((blocks + 1) * slots + 1) * slot_s


def startable(arrivals: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`wanted` (S, T, K), but never more than wait."""
    started, waiting = np.zeros_like(wanted), np.zeros_like(wanted[:, 0])
    for t in range(wanted.shape[1]):
        started[:, t] = np.minimum(wanted[:, t], waiting)
        waiting = waiting - started[:, t] + arrivals[:, t].sum(axis=1).astype(wanted.dtype)
    return started


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Any, np.ndarray]:
    """(traces, server_work); all work in binary fractions down to 1/1024, so that float64 adds it up exactly."""
    seeds, blocks, slots, devices = (draw(st.integers(1, top)) for top in (2, 8, 4, 3))
    arrivals = draw(arrays(np.int64, (seeds, blocks, slots, devices), elements=st.integers(0, 1), fill=st.just(1)))
    wanted = draw(arrays(np.int64, (seeds, blocks, devices), elements=st.integers(0, 3), fill=st.just(1)))
    started = startable(arrivals, wanted)
    offload = draw(arrays(np.int64, started.shape, elements=st.integers(0, 64))) / 64 * (started > 0)
    service = draw(arrays(np.int64, (seeds, blocks, slots), elements=st.integers(0, 80))) / 64
    server_work = draw(arrays(np.int64, (devices,), elements=st.integers(1, 32))) / 16
    return SimpleNamespace(arrivals=arrivals, started=started, offload=offload, service_per_slot=service), server_work


def random_world(rng: np.random.Generator, seeds: int, blocks: int, slots: int, devices: int) -> tuple[Any, np.ndarray]:
    """(traces, server_work) with numbers of every kind and a server that is busy most of the time."""
    arrivals = (rng.random((seeds, blocks, slots, devices)) < 0.5).astype(np.float32)
    started = startable(arrivals, rng.integers(0, slots + 1, (seeds, blocks, devices)))
    sends = (rng.random(started.shape) < 0.8) & (started > 0)
    offload = np.where(sends, rng.random(started.shape), 0.0).astype(np.float32)
    server_work = rng.uniform(0.2, 1.8, devices)
    mean = (offload * server_work).sum(axis=-1).mean() / slots
    service = (rng.random((seeds, blocks, slots)) * 2.2 * mean).astype(np.float32)
    return SimpleNamespace(arrivals=arrivals, started=started, offload=offload, service_per_slot=service), server_work


def assert_same(tasks: Tasks, slow: list[Slow]) -> None:
    assert tasks.device.tolist() == [task.device for task in slow]
    assert tasks.cut.tolist() == [task.cut for task in slow]
    np.testing.assert_allclose(tasks.arrived, [task.arrived for task in slow], rtol=1e-9)
    np.testing.assert_allclose(tasks.finished, [task.finished for task in slow], rtol=1e-9)
    moments = np.array([task.moments for task in slow]).reshape(-1, 4).T
    np.testing.assert_allclose(tasks.moments[:3], moments[:3], rtol=1e-9)
    # what is lost in rounding is served within one slot, whenever it is said to begin
    found, begun = (np.minimum(each, tasks.finished) for each in (tasks.moments[3], moments[3]))
    clear = np.array([task.work > 2 * TOLERANCE or not task.cut for task in slow], bool)
    np.testing.assert_allclose(found[clear], begun[clear], rtol=1e-9, atol=1e-3 * TAU)


# ---- by hand; slots of one second, two in a block unless said otherwise ----


def test_local_tasks_share_the_block():
    """Arrived at 1 and 2, started together: half of the block [2, 4) each."""
    tasks = only(traces_of([[[1], [1]], [[0], [0]]], [[0], [2]], [[0], [0]], [[0, 0], [0, 0]]))
    assert tasks.arrived.tolist() == [1, 2]
    assert tasks.finished.tolist() == [3, 4]
    assert tasks.block.tolist() == [0, 0]
    assert not tasks.cut.any()


def test_cut_task_waits_for_the_next_server_block():
    """Sent in block 1: server block 1, [5, 7), is too early. In [7, 9) 1/4 is done by 8, the rest at rate 1."""
    arrivals = [[[0], [1]], [[0], [0]], [[0], [0]]]
    tasks = only(traces_of(arrivals, [[0], [1], [0]], [[0], [0.5], [0]], [[9, 9], [9, 9], [0.25, 1]]))
    assert tasks.arrived.tolist() == [2]
    assert tasks.finished.tolist() == [8.25]
    assert tasks.cut.all()


def test_local_task_before_a_cut_one():
    """j = 2, offload = 1/2: the first takes 1 / 1.5 of the block [2, 4); the server needs half a slot for 1/2."""
    arrivals = [[[1], [1]], [[0], [0]], [[0], [0]]]
    tasks = only(traces_of(arrivals, [[0], [2], [0]], [[0], [0.5], [0]], [[0, 0], [0, 0], [1, 1]]))
    assert tasks.finished == pytest.approx([2 + 2 / 1.5, 7.5])


def test_whole_task_sent_leaves_the_block_to_the_other():
    """j = 2, offload = 1: L is one task, done at the block's end; the server needs 2 mean tasks for the other."""
    arrivals = [[[1], [1]], [[0], [0]], [[0], [0]]]
    tasks = only(traces_of(arrivals, [[0], [2], [0]], [[0], [1], [0]], [[0, 0], [0, 0], [1.5, 1]]), [2.0])
    assert tasks.finished.tolist() == [4, 8.5]


def test_busy_server():
    """Whole tasks sent in blocks 1 and 2. Server blocks 2 and 3, [7, 11), do 1/4 per slot, block 4 all at once."""
    arrivals = [[[1], [0]], [[1], [0]], *[[[0], [0]]] * 3]
    service = [[0, 0], [0, 0], [0.25, 0.25], [0.25, 0.25], [4, 0]]
    tasks = only(traces_of(arrivals, [[0], [1], [1], [0], [0]], [[0], [1], [1], [0], [0]], service))
    assert tasks.finished.tolist() == [11, 11.25]


@pytest.mark.parametrize(("block", "finished"), [(1, [9, 8]), (2, [10, 11])])
def test_who_is_first_rotates(block: int, finished: list[float]):
    """Both send a whole task in the same block; device t mod 2 is served first."""
    arrivals, started = np.zeros((4, 2, 2)), np.zeros((4, 2))
    arrivals[0, 0], started[block] = 1, 1
    assert only(traces_of(arrivals, started, started, np.ones((4, 2))), [1, 1]).finished.tolist() == finished


def test_rotation_of_three():
    """Block 1: devices 1, 2, 0."""
    arrivals, started = np.zeros((3, 3, 3)), np.zeros((3, 3))
    arrivals[0, 0], started[1] = 1, 1
    assert only(traces_of(arrivals, started, started, np.ones((3, 3))), [1, 1, 1]).finished.tolist() == [13, 11, 12]


def test_statistics():
    """Twenty devices in a block of 20 slots, done at 40: latencies 39, 38, ..., 20; the 10th, 19th, 20th of them."""
    arrivals, started = np.stack([np.eye(20), np.zeros((20, 20))]), np.stack([np.zeros(20), np.ones(20)])
    found = latency(traces_of(arrivals, started, 0 * started, np.zeros((2, 20))), np.ones(20), 1.0)
    assert found.delays.tolist() == [[9.5, 20, 0, 0, 0]]  # the block begins at 20
    assert found.by_device.tolist() == [list(range(39, 19, -1))]
    del vars(found)["delays"], vars(found)["by_device"]
    assert vars(found) == {"mean": [29.5], "p50": [29], "p95": [38], "p99": [39], "unfinished": [0]}


def delays_of(traces: Any, server_work: Any = (1.0,)) -> dict[str, float]:
    """The delays of the only seed, by name."""
    return dict(zip(DELAYS, latency(traces, server_work, 1.0).delays[0].tolist(), strict=True))


def test_delays_of_a_cut_task_by_hand():
    """Arrived at 2, started in [2, 4) with 1/2 offloaded, sent in [4, 5), served in [7, 9): 1/4 by 8, the rest by 8.25.

    A single task is computed during all of its block, whatever its share.
    """
    arrivals = [[[0], [1]], [[0], [0]], [[0], [0]]]
    found = delays_of(traces_of(arrivals, [[0], [1], [0]], [[0], [0.5], [0]], [[9, 9], [9, 9], [0.25, 1]]))
    assert found == {"device_wait": 0, "device": 2, "radio": 1, "server_wait": 2, "server": 1.25}


def test_a_task_that_is_sent_whole_waits_for_the_radio():
    """Nothing of it is computed at the device, where it waits from 2 until the block ends at 4."""
    arrivals = [[[0], [1]], [[0], [0]], [[0], [0]]]
    found = delays_of(traces_of(arrivals, [[0], [1], [0]], [[0], [1], [0]], [[9, 9], [9, 9], [1, 1]]))
    assert found == {"device_wait": 2, "device": 0, "radio": 1, "server_wait": 2, "server": 1}


def test_delays_behind_others_by_hand():
    """Both devices send whole tasks in [2, 4); served at rate 1/2 from 7 on, device 1 first: [7, 9) and [9, 11)."""
    arrivals, started = np.zeros((4, 2, 2)), np.zeros((4, 2))
    arrivals[0, 1], started[1] = 1, 1
    found = delays_of(traces_of(arrivals, started, started, np.full((4, 2), 0.5)), [1, 1])
    assert found == {"device_wait": 2, "device": 0, "radio": 1, "server_wait": (2 + 4) / 2, "server": 2}


def test_what_the_end_of_the_run_cuts_off_counts_where_it_is_then():
    """Sent in the last block, [2, 4), of a run that is watched until 7: at 5 the server has it and never begins."""
    found = delays_of(traces_of([[[0], [1]], [[0], [0]]], [[0], [1]], [[0], [1]], np.ones((2, 2))))
    assert found == {"device_wait": 2, "device": 0, "radio": 1, "server_wait": 2, "server": 0}


@given(worlds())
def test_delays_are_none_negative_and_add_up_to_the_latency(world: tuple[Any, np.ndarray]):
    found = latency(*world, TAU)
    some = np.isfinite(found.mean)
    np.testing.assert_allclose(found.delays.sum(axis=1), found.mean, rtol=1e-9)
    assert (found.delays[some] >= -1e-9).all()


def test_unfinished():
    """The same, device 0's task never started: since 1 it has waited until 61, when server block 1 ends."""
    arrivals, started = np.stack([np.eye(20), np.zeros((20, 20))]), np.stack([np.zeros(20), np.ones(20)])
    started[1, 0] = 0
    traces = traces_of(arrivals, started, 0 * started, np.zeros((2, 20)))
    found = latency(traces, np.ones(20), 1.0)
    assert found.mean == pytest.approx([(sum(range(20, 39)) + 60) / 20])
    assert (found.p50, found.p95, found.unfinished) == ([29], [38], [0.05])
    assert np.isnan(found.p99)
    assert only(traces, np.ones(20)).finished[0] == np.inf


def test_only_arrivals_after_the_warmup_count():
    arrivals = [[[1], [0]], [[0], [1]], [[0], [0]]]
    traces = traces_of(arrivals, [[0], [1], [1]], [[0], [0], [0]], np.zeros((3, 2)))
    means = [latency(traces, [1.0], 1.0, warmup).mean.item() for warmup in range(3)]
    assert means == pytest.approx([2.5, 2.0, np.nan], nan_ok=True)
    assert np.isnan(latency(traces, [1.0], 1.0, 2).unfinished)


@pytest.mark.parametrize(
    ("started", "offload", "message"),
    [
        ([0, 1.5], [0, 0], "whole tasks"),
        ([0, np.nan], [0, 0], "whole tasks"),
        ([1, 0], [0, 0], "more tasks are started than wait"),
        ([0, 3], [0, 0], "more tasks are started than wait"),
        ([0, -1], [0, 0], "more tasks are started than wait"),
        ([0, 0], [0, 0.5], "fraction of a task"),
        ([0, 2], [0, 1.5], "fraction of a task"),
        ([0, 2], [0, -0.5], "fraction of a task"),
        ([0, 2], [0, np.nan], "fraction of a task"),
    ],
)
def test_nonsense_is_refused(started: list[float], offload: list[float], message: str):
    traces = traces_of([[[1], [1]]] * 2, np.transpose([started]), np.transpose([offload]), np.ones((2, 2)))
    with pytest.raises(ValueError, match=message):
        latency(traces, [1.0], 1.0)


# ---- rounding of the service ----


def steady_flow(blocks: int, short: float) -> Any:
    """One task arrives and one is sent whole in every block; the server does it, but for a share `short`."""
    arrivals, started = np.tile([[[1.0], [0.0]]], (blocks, 1, 1)), np.ones((blocks, 1))
    started[0] = 0
    return traces_of(arrivals, started, started, np.full((blocks, 2), 0.5 * (1 - short)))


def test_rounding_does_not_add_up():
    """A part in a million is missing in each of 3000 blocks, in all thrice the tolerance; latency stays 8."""
    found = latency(steady_flow(3000, 1e-6), [1.0], 1.0)
    exact = latency(steady_flow(3000, 0.0), [1.0], 1.0)
    assert exact.p99 == pytest.approx([8.0])
    for name in ("p50", "p95", "p99"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-5)
    assert found.unfinished == exact.unfinished


def test_more_than_rounding_is_work():
    """Two per cent missing: the first task is done with the next block's first slot."""
    first = only(steady_flow(5, 0.02)).finished[0]
    assert first == pytest.approx(9 + 0.02 / 0.49)


def test_work_below_the_tolerance_is_not_done_for_nothing():
    """A cut of 1/2048 and a server that stands still in block 2: done in block 3, in 1/2048 of a slot."""
    arrivals = [[[1], [0]], *[[[0], [0]]] * 3]
    service = [[1, 1], [1, 1], [0, 0], [1, 1]]
    tasks = only(traces_of(arrivals, [[0], [1], [0], [0]], [[0], [2**-11], [0], [0]], service))
    assert tasks.finished.tolist() == [9 + 2**-11]


def test_work_lost_in_rounding_waits_for_its_block():
    """1 + 1e-30 is 1 in float64; sent in block 3, it is still not done before server block 4, from 11 on."""
    arrivals = [[[1], [1]], *[[[0], [0]]] * 4]
    tasks = only(traces_of(arrivals, [[0], [1], [0], [1], [0]], [[0], [1], [0], [1e-30], [0]], np.ones((5, 2))))
    assert tasks.finished.tolist() == [8, 11]


# ---- laws and the slow loop ----


@settings(deadline=None)
@given(worlds())
def test_agrees_with_the_slow_loop(world: tuple[Any, np.ndarray]):
    traces, server_work = world
    for seed, tasks in enumerate(finish_times(traces, server_work, TAU)):
        assert_same(tasks, slow_finish_times(traces, server_work, TAU, seed))


@pytest.mark.parametrize("number", range(4))
def test_agrees_with_the_slow_loop_on_longer_runs(number: int):
    traces, server_work = random_world(np.random.default_rng(number), seeds=2, blocks=150, slots=5, devices=4)
    for seed, tasks in enumerate(finish_times(traces, server_work, TAU)):
        assert_same(tasks, slow_finish_times(traces, server_work, TAU, seed))
        assert 0.2 < tasks.cut[np.isfinite(tasks.finished)].mean() < 0.8


@settings(deadline=None)
@given(worlds())
def test_littles_law(world: tuple[Any, np.ndarray]):
    """Time integral of the number of tasks in the system = sum of the times that tasks spend in it."""
    traces, server_work = world
    found, tasks = latency(traces, server_work, TAU), list(finish_times(traces, server_work, TAU))
    for seed, mean in enumerate(found.mean):
        area = population(slow_finish_times(traces, server_work, TAU, seed), end_of(traces, TAU))
        spent = mean * len(tasks[seed].arrived) if len(tasks[seed].arrived) else 0.0
        assert spent == pytest.approx(area, rel=1e-9, abs=1e-9)


@given(worlds())
def test_every_task_is_there_in_order(world: tuple[Any, np.ndarray]):
    """As many as arrived; on a device local tasks finish in the order of arrival; so do those that it cuts."""
    traces, server_work = world
    for seed, tasks in enumerate(finish_times(traces, server_work, TAU)):
        counts = np.bincount(tasks.device, minlength=len(server_work))
        assert counts.tolist() == traces.arrivals[seed].sum((0, 1)).tolist()
        assert tasks.cut.sum() == (traces.offload[seed] > 0).sum()
        for k in range(len(server_work)):
            local, cut = (tasks.finished[(tasks.device == k) & (tasks.cut == which)] for which in (False, True))
            finite = local[np.isfinite(local)]
            assert (np.diff(tasks.arrived[tasks.device == k]) > 0).all()
            assert (np.diff(finite) > 0).all()
            assert np.isfinite(local[: len(finite)]).all()
            assert (cut[:-1] <= cut[1:]).all()


@given(worlds())
def test_no_task_is_faster_than_physics(world: tuple[Any, np.ndarray]):
    """Local: a share of the next block. Cut: that block, the radio slot, a server block of waiting, the work itself."""
    traces, server_work = world
    slots = traces.service_per_slot.shape[-1]
    for seed, tasks in enumerate(finish_times(traces, server_work, TAU)):
        joined = (tasks.block + 1) * slots
        assert (tasks.arrived <= joined * TAU + 1e-9).all()
        work = (traces.offload[seed] * server_work).T[traces.offload[seed].T > 0]
        service = np.maximum(work - TOLERANCE, 0.0) / max(traces.service_per_slot[seed].max(), 1e-9)
        cut, local = tasks.cut, ~tasks.cut
        share = slots / max(traces.started[seed].max(), 1)
        assert (tasks.finished[local] >= (joined[local] + share) * TAU - 1e-9).all()
        assert (tasks.finished[cut] >= (joined[cut] + 2 * slots + 1 + service) * TAU - 1e-9).all()


@given(worlds())
def test_everything_happens_before_the_end(world: tuple[Any, np.ndarray]):
    traces, server_work = world
    for tasks in finish_times(traces, server_work, TAU):
        assert (tasks.finished[np.isfinite(tasks.finished)] <= end_of(traces, TAU) + 1e-9).all()


@given(worlds(), st.sampled_from([0.001, 7.0]))
def test_latency_scales_with_the_slot(world: tuple[Any, np.ndarray], factor: float):
    traces, server_work = world
    once, more = (latency(traces, server_work, slot_s) for slot_s in (1.0, factor))
    for name in ("mean", "p50", "p95", "p99"):
        np.testing.assert_allclose(getattr(more, name), factor * getattr(once, name), rtol=1e-9)
    np.testing.assert_array_equal(more.unfinished, once.unfinished)


@given(worlds())
def test_seeds_do_not_meet(world: tuple[Any, np.ndarray]):
    """Each seed alone has the same latency as among others."""
    traces, server_work = world
    found = latency(traces, server_work, TAU)
    for seed in range(len(traces.service_per_slot)):
        alone = SimpleNamespace(**{name: value[seed : seed + 1] for name, value in vars(traces).items()})
        for name, value in vars(latency(alone, server_work, TAU)).items():
            np.testing.assert_array_equal(value, getattr(found, name)[seed : seed + 1])


def test_a_real_run(play: Play, four: Callable[..., World]):
    """float32 service of a server that often empties its queue, with the paper's devices."""
    world = four({})
    traces = play(ControllerPair(Random(), Steady(0.2)), world, blocks=200, stream="random").traces
    assert traces is not None
    server_work = np.asarray(world.devices.server_work)
    for seed, tasks in enumerate(finish_times(traces, server_work, TAU)):
        assert_same(tasks, slow_finish_times(traces, server_work, TAU, seed))
    found = latency(traces, server_work, TAU, 10)
    assert (found.p50 < found.p95).all()
    assert (found.unfinished < 0.2).all()
