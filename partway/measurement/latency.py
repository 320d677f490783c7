"""How long every task takes, from its arrival to its result: afterwards, on the host, in float64, from a run's traces.

    device block t   [t n tau, (t + 1) n tau)                     it runs L = j - offload tasks' work at a constant rate
    radio slot       [(t + 1) n tau, ((t + 1) n + 1) tau)         what is cut in device block t is sent
    server block t   [(t n + n + 1) tau, (t n + 2 n + 1) tau)     (6); it serves what was sent before device block t

A task of slot i of block t arrives at the slot's end and can be started from block t + 1 on. Devices and server are
FIFO. The i-th of the j tasks of a block is done i/L of the block after its start; the last one, where offload > 0, is
done when the server has done its work. What was sent in one block the server does in the order of device index,
rotated by the block number so that no device is always first. All is observed until the last server block ends,
((T + 1) n + 1) tau, at the devices too, although they stop at T n tau.

The latency of a task is the sum of five delays: it waits at the device (a task that is sent whole until the block
ends), the device computes, the radio sends, it waits at the server (at least until the server's next block), and the
server computes. The last three are 0 for a task that is not cut.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = 1e-3
"""Work [mean tasks] that may be missing when something counts as done: `service_per_slot` carry the run's rounding."""
PERCENTILES = (50, 95, 99)
ROUNDING = 1e-6
"""Share of its work that the server must have done of a task when it has begun with it."""
DELAYS = ("device_wait", "device", "radio", "server_wait", "server")
"""The delays that a latency is the sum of, in their order."""
DELAY_NAMES = {
    "device_wait": "waits at the device",
    "device": "device computes",
    "radio": "radio sends",
    "server_wait": "waits at the server",
    "server": "server computes",
}
"""Words for DELAYS."""


class Traced(Protocol):
    """What is read of `partway.measurement.metrics.DeviceTraces`; the axes (seed, block) come first."""

    @property
    def arrivals(self) -> ArrayLike:
        """(S, T, n, K) 1 where a task arrived in that slot."""
        ...

    @property
    def started(self) -> ArrayLike:
        """(S, T, K) j, tasks started."""
        ...

    @property
    def offload(self) -> ArrayLike:
        """(S, T, K) share of the last of them that is sent."""
        ...

    @property
    def service_per_slot(self) -> ArrayLike:
        """(S, T, n) work that the server is commanded to do [mean tasks]."""
        ...


@dataclass(frozen=True)
class Tasks:
    """Tasks of one seed, device by device in the order of arrival; all arrays have the shape (tasks,).

    device, block       where and in which block it arrived
    arrived, finished   [s] from the start of the run; finished is inf where the run ended first
    cut                 whether it is finished by the server
    moments             (4, tasks) [s] when the device begins and ends, the radio ends, and the server begins; inf where
                        the run ended first, `finished` where nothing is left to do. A live run has one more, the
                        server's end (`partway.live.accounts`)
    """

    device: np.ndarray
    block: np.ndarray
    arrived: np.ndarray
    finished: np.ndarray
    cut: np.ndarray
    moments: np.ndarray


@dataclass(frozen=True)
class Latency:
    """Time from arrival to result [s] of the tasks that arrive after a warm-up; every field has the shape (seeds,).

    mean           with what an unfinished task has waited so far in place of its latency: a lower bound
    p50, p95, p99  the least time within which that share of the tasks is done; NaN where so many never are
    unfinished     share of the tasks that the run's end cut off
    delays         (seeds, 5) means of DELAYS over all tasks, 0 where a task has none; they add up to `mean`. One more
                   column for each further moment of the tasks
    by_device      (seeds, K) `mean` of each device's tasks, NaN for a device that gets none

    All are NaN for a seed in which no task arrives.
    """

    mean: np.ndarray
    p50: np.ndarray
    p95: np.ndarray
    p99: np.ndarray
    unfinished: np.ndarray
    delays: np.ndarray
    by_device: np.ndarray


def latency(traces: Traced, server_work: ArrayLike, slot_s: float, warmup: int = 0) -> Latency:
    """Latency of the tasks that arrive from block `warmup` on; arguments as in `finish_times`."""
    blocks, slots = np.shape(traces.service_per_slot)[1:]
    tasks = finish_times(traces, server_work, slot_s, warmup)
    return latency_of(tasks, end_of_run(blocks, slots, slot_s), np.shape(traces.arrivals)[-1])


def end_of_run(blocks: int, slots: int, slot_s: float) -> float:
    """When the last of the server's blocks ends [s]: until then a run is observed."""
    return ((blocks + 1) * slots + 1) * slot_s


def latency_of(seeds: Iterable[Tasks], end: float, devices: int) -> Latency:
    """Latency of the tasks of each seed, of so many devices, observed until `end` [s]."""
    each_seed = [_summary(tasks, end, devices) for tasks in seeds]
    rows, by_device = (np.array(each) for each in zip(*each_seed, strict=True))
    fixed = 2 + len(PERCENTILES)
    return Latency(*rows[:, :fixed].T, delays=rows[:, fixed:], by_device=by_device)


def finish_times(traces: Traced, server_work: ArrayLike, slot_s: float, warmup: int = 0) -> Iterator[Tasks]:
    """All tasks that arrive from block `warmup` on, one seed after the other.

    server_work   (K,) work of a whole task at the server [mean tasks]
    slot_s        tau, length of a slot [s]

    Raises ValueError where tasks are not whole (`queue = "as_printed"`) or the traces contradict each other.
    """
    arrivals, offload = np.asarray(traces.arrivals), np.asarray(traces.offload, np.float64)
    started, service_per_slot = np.asarray(traces.started, np.float64), np.asarray(traces.service_per_slot, np.float64)
    _check(arrivals.sum(axis=2, dtype=np.float64), started, offload)
    work = offload * np.asarray(server_work, np.float64)
    left = server_left(service_per_slot, work.sum(axis=-1))
    whole = started.astype(np.int64)
    own = zip(work, service_per_slot, left, strict=True)
    at_server = (_server_times(*each, slot_s, warmup) for each in own)
    return (_tasks(*each, slot_s, warmup) for each in zip(arrivals, whole, offload, at_server, strict=True))


def server_left(service_per_slot: np.ndarray, inflow: np.ndarray) -> np.ndarray:
    """(6) with its slots: (S, T, n) work that is left at the end of each; service_per_slot (S, T, n), inflow (S, T).

    A remainder within TOLERANCE, and below what the block has done so far, is rounding and counts as done. Otherwise a
    server that empties its queue in every block would carry along, and add up, what float32 has rounded away.
    """
    done = np.cumsum(service_per_slot, axis=-1)
    slack, backlog = np.minimum(done, TOLERANCE), np.empty_like(inflow)
    for s, sent in enumerate(inflow):
        blocks = zip(done[s, :, -1].tolist(), slack[s, :, -1].tolist(), sent.tolist(), strict=True)
        backlog[s] = list(accumulate(blocks, _backlog_after, initial=0.0))[:-1]  # plain numbers: it is a long loop
    remains = backlog[..., None] - done
    return np.where(remains <= slack, 0.0, remains)


def _backlog_after(backlog: float, block: tuple[float, float, float]) -> float:
    """The server's backlog after a block in which so much is done, but for so much rounding, and so much arrives."""
    done, slack, sent = block
    remains = backlog - done
    return (0.0 if remains <= slack else remains) + sent


def _check(arrived: np.ndarray, started: np.ndarray, offload: np.ndarray) -> None:
    """Raise ValueError unless whole, waiting tasks are started and fractions of them are sent; all (S, T, K)."""
    if not (np.isfinite(started) & (started == np.floor(started))).all():
        raise ValueError("latency needs whole tasks: `started` has fractions (queue = 'as_printed' keeps remainders)")
    if not ((started >= 0) & (np.cumsum(started, axis=1) <= np.cumsum(arrived, axis=1) - arrived)).all():
        raise ValueError("the traces contradict each other: more tasks are started than wait")
    if not ((offload >= 0) & (offload <= np.minimum(started, 1.0))).all():
        raise ValueError("the traces contradict each other: `offload` is not a fraction of a task that is started")


def _server_times(
    work: np.ndarray, service_per_slot: np.ndarray, left: np.ndarray, slot_s: float, warmup: int
) -> np.ndarray:
    """(2, T, K) when the server begins and finishes what device k sent in block t [s].

    It is inf if never, and before block `warmup`. work (T, K), rates, left (T, n). A task is done at the end of a slot
    if less than TOLERANCE, and less than half of it, is missing then.
    """
    ends, inflow, slots = _ends(work), work.sum(axis=-1), service_per_slot.shape[-1]
    done = ((np.cumsum(inflow) - inflow)[:, None] - left).ravel()
    done = np.maximum.accumulate(done)  # it would fall by a rounding error where a block begins
    block, device = np.nonzero(work[warmup:])
    block += warmup
    end, own = ends[block, device], work[block, device]
    first = np.searchsorted(done, end - (1 - ROUNDING) * own, side="right")
    last = np.searchsorted(done, end - np.minimum(TOLERANCE, own / 2))
    times, rates = np.full((2, *work.shape), np.inf), service_per_slot.ravel()
    for moment, slot, until in zip(times, (first, last), (end - own, end), strict=True):
        slot = np.maximum(slot, (block + 1) * slots)  # not before it is there, however small it is
        known = slot < len(done)
        at, rate = slot[known], rates[slot[known]]
        part = np.clip((until[known] - done[at - 1]) / np.where(rate > 0, rate, 1.0), 0.0, 1.0)
        moment[block[known], device[known]] = (slots + 1 + at + part) * slot_s
    return np.minimum(times, times[1])


def _ends(work: np.ndarray) -> np.ndarray:
    """(T, K) where in all the work ever sent each device's part ends; in block t device t mod K comes first."""
    blocks, devices = work.shape
    order = (np.arange(blocks)[:, None] + np.arange(devices)) % devices
    in_order = np.cumsum(np.take_along_axis(work, order, axis=1)).reshape(work.shape)
    ends = np.empty_like(work)
    np.put_along_axis(ends, order, in_order, axis=1)
    return ends


def _tasks(
    arrivals: np.ndarray, started: np.ndarray, offload: np.ndarray, at_server: np.ndarray, slot_s: float, warmup: int
) -> Tasks:
    """One seed: arrivals (T, n, K), at_server (2, T, K) from `_server_times`, the others (T, K).

    A device starts its tasks in the order of arrival. Those that it never starts are in one more block, at time inf.
    """
    blocks, slots, devices = arrivals.shape
    slot = np.flatnonzero(np.ascontiguousarray(arrivals.transpose(2, 0, 1)))
    device = slot // (blocks * slots)
    slot -= device * (blocks * slots)
    late = np.flatnonzero(slot >= warmup * slots)

    waiting = np.bincount(device, minlength=devices) - started.sum(axis=0)
    j = np.vstack([started, waiting]).T.ravel()
    share = np.pad(offload.T, ((0, 0), (0, 1))).ravel()
    local = np.where(j > share, j - share, 1.0)  # L; where it is 0 the one task started is cut
    begins = np.tile(np.append(np.arange(blocks), np.inf), devices)

    place = np.repeat(np.arange(len(j)), j)[late]  # the block of its device in which each task is started
    before = late - (np.cumsum(j) - j)[place]  # tasks that are started before it in that block
    block_s, own, begin = slots * slot_s, local[place], begins[place]
    times = np.empty((5, len(late)))
    times[0], times[1:] = (begin + before / own) * block_s, (begin + (before + 1) / own) * block_s

    cut = before == np.where(share > 0, j - 1, -1)[place]
    last = np.flatnonzero(cut)
    sends = place[last]
    block_end = (begins[sends] + 1) * block_s
    times[0, last] = np.where(j[sends] > share[sends], times[0, last], block_end)
    times[1, last], times[2, last] = block_end, block_end + slot_s
    times[3:, last] = np.pad(at_server.transpose(0, 2, 1), ((0, 0), (0, 0), (0, 1))).reshape(2, -1)[:, sends]
    slot = slot[late]
    return Tasks(device[late], slot // slots, (slot + 1) * slot_s, times[-1], cut, times[:-1])


def _summary(tasks: Tasks, end: float, devices: int) -> tuple[list[float], np.ndarray]:
    """The fields of `Latency` for one seed, the delays last, and (K,) `by_device`."""
    arrived, finished, count = tasks.arrived, tasks.finished, len(tasks.arrived)
    if not count:
        return [np.nan] * (3 + len(PERCENTILES) + len(tasks.moments)), np.full(devices, np.nan)
    ranks = [-(-percent * count // 100) - 1 for percent in PERCENTILES]
    waits = np.partition(finished - arrived, ranks)[ranks]
    percentiles = np.where(np.isinf(waits), np.nan, waits)
    so_far = np.minimum(finished, end) - arrived
    ends = [np.mean(np.minimum(moments, end)) for moments in (arrived, *tasks.moments, finished)]
    each = np.bincount(tasks.device, minlength=devices)
    by_device = np.bincount(tasks.device, weights=so_far, minlength=devices) / np.where(each > 0, each, np.nan)
    unfinished, delays = float(np.mean(np.isinf(finished))), np.diff(ends)
    return [float(np.mean(so_far)), *map(float, percentiles), unfinished, *delays.tolist()], by_device
