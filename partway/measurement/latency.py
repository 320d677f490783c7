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

from collections.abc import Iterator
from dataclasses import dataclass
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
    """Every task of one seed, device by device in the order of arrival; all arrays have the shape (tasks,).

    device, block       where and in which block it arrived
    arrived, finished   [s] from the start of the run; finished is inf where the run ended first
    cut                 whether it is finished by the server
    moments             (4, tasks) [s] when the device begins and ends, the radio ends, and the server begins; inf where
                        the run ended first, `finished` where nothing is left to do
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
    delays         (seeds, 5) means of DELAYS over all tasks, 0 where a task has none; they add up to `mean`
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
    end = ((blocks + 1) * slots + 1) * slot_s
    devices = np.shape(traces.arrivals)[-1]
    both = [
        (_summary(tasks, warmup, end), _means_by_device(tasks, warmup, end, devices))
        for tasks in finish_times(traces, server_work, slot_s)
    ]
    seeds, by_device = (np.array(each) for each in zip(*both, strict=True))
    return Latency(*seeds[:, : -len(DELAYS)].T, delays=seeds[:, -len(DELAYS) :], by_device=by_device)


def finish_times(traces: Traced, server_work: ArrayLike, slot_s: float) -> Iterator[Tasks]:
    """All tasks, one seed after the other.

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
    return (
        _tasks(arrivals[s], whole[s], offload[s], _server_times(work[s], service_per_slot[s], left[s], slot_s), slot_s)
        for s in range(len(service_per_slot))
    )


def server_left(service_per_slot: np.ndarray, inflow: np.ndarray) -> np.ndarray:
    """(6) with its slots: (S, T, n) work that is left at the end of each; service_per_slot (S, T, n), inflow (S, T).

    A remainder within TOLERANCE, and below what the block has done so far, is rounding and counts as done. Otherwise a
    server that empties its queue in every block would carry along, and add up, what float32 has rounded away.
    """
    done = np.cumsum(service_per_slot, axis=-1).transpose(1, 0, 2)
    slack, left, backlog = np.minimum(done, TOLERANCE), np.empty_like(done), np.zeros(len(service_per_slot))
    for t, sent in enumerate(inflow.T):
        remains = backlog[:, None] - done[t]
        left[t] = np.where(remains <= slack[t], 0.0, remains)
        backlog = left[t, :, -1] + sent
    return left.transpose(1, 0, 2)


def _check(arrived: np.ndarray, started: np.ndarray, offload: np.ndarray) -> None:
    """Raise ValueError unless whole, waiting tasks are started and fractions of them are sent; all (S, T, K)."""
    if not (np.isfinite(started) & (started == np.floor(started))).all():
        raise ValueError("latency needs whole tasks: `started` has fractions (queue = 'as_printed' keeps remainders)")
    if not ((started >= 0) & (np.cumsum(started, axis=1) <= np.cumsum(arrived, axis=1) - arrived)).all():
        raise ValueError("the traces contradict each other: more tasks are started than wait")
    if not ((offload >= 0) & (offload <= np.minimum(started, 1.0))).all():
        raise ValueError("the traces contradict each other: `offload` is not a fraction of a task that is started")


def _server_times(work: np.ndarray, service_per_slot: np.ndarray, left: np.ndarray, slot_s: float) -> np.ndarray:
    """(2, T, K) when the server begins and finishes what device k sent in block t [s], inf if never.

    work (T, K), rates, left (T, n). A task is done at the end of a slot if less than TOLERANCE, and less than half of
    it, is missing then.
    """
    ends, inflow, slots = _ends(work), work.sum(axis=-1), service_per_slot.shape[-1]
    done = ((np.cumsum(inflow) - inflow)[:, None] - left).ravel()
    done = np.maximum.accumulate(done)  # it would fall by a rounding error where a block begins
    block, device = np.nonzero(work)
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


def _started_tasks(
    started: np.ndarray, offload: np.ndarray, at_server: np.ndarray, slots: int, slot_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """(5, tasks) `moments` and `finished` of each task that is started, and whether it was cut.

    Device by device in FIFO order; started, offload (T, K), at_server (2, T, K) from `_server_times`.
    """
    j, share, blocks, block_s = started.T.ravel(), offload.T.ravel(), len(started), slots * slot_s
    after = np.cumsum(j)
    place = np.repeat(np.arange(len(j)), j)
    i = np.arange(1, len(place) + 1) - (after - j)[place]
    local = np.where(j > share, j - share, 1.0)  # L; where it is 0 the one task started is cut
    begun, done = (place % blocks + np.stack([i - 1, i]) / local[place]) * block_s
    times = np.stack([begun, done, done, done, done])
    last, sends = after[share > 0] - 1, np.flatnonzero(share > 0)
    block_end = (sends % blocks + 1) * block_s
    times[0, last] = np.where(j[sends] > share[sends], begun[last], block_end)
    times[1, last], times[2, last] = block_end, block_end + slot_s
    times[3:, last] = at_server.transpose(0, 2, 1).reshape(2, -1)[:, sends]
    cut = np.zeros(len(place), bool)
    cut[last] = True
    return times, cut


def _tasks(
    arrivals: np.ndarray, started: np.ndarray, offload: np.ndarray, at_server: np.ndarray, slot_s: float
) -> Tasks:
    """One seed: arrivals (T, n, K), at_server (2, T, K), the others (T, K).

    The first tasks of a device are the ones that were started.
    """
    slots = arrivals.shape[1]
    device, block, slot = np.nonzero(np.ascontiguousarray(arrivals.transpose(2, 0, 1)))
    rank = np.arange(len(device)) - np.searchsorted(device, np.arange(arrivals.shape[-1]))[device]
    up = rank < started.sum(axis=0)[device]
    times, cut = np.full((5, len(device)), np.inf), np.zeros(len(device), bool)
    times[:, up], cut[up] = _started_tasks(started, offload, at_server, slots, slot_s)
    return Tasks(device, block, (block * slots + slot + 1) * slot_s, times[-1], cut, times[:-1])


def _summary(tasks: Tasks, warmup: int, end: float) -> list[float]:
    """The fields of `Latency` for one seed, the delays last."""
    late = tasks.block >= warmup
    arrived, finished = tasks.arrived[late], tasks.finished[late]
    count = len(arrived)
    if not count:
        return [np.nan] * (5 + len(DELAYS))
    ranks = [-(-percent * count // 100) - 1 for percent in PERCENTILES]
    waits = np.partition(finished - arrived, ranks)[ranks]
    percentiles = np.where(np.isinf(waits), np.nan, waits)
    mean = np.mean(np.minimum(finished, end) - arrived)
    ends = [np.mean(np.minimum(moments, end)) for moments in (arrived, *tasks.moments[:, late], finished)]
    delays = np.diff(ends)
    return [float(mean), *map(float, percentiles), float(np.mean(np.isinf(finished))), *delays.tolist()]


def _means_by_device(tasks: Tasks, warmup: int, end: float, devices: int) -> np.ndarray:
    """(K,) `Latency.mean` of each device for one seed."""
    late = tasks.block >= warmup
    device, waits = tasks.device[late], np.minimum(tasks.finished[late], end) - tasks.arrived[late]
    count = np.bincount(device, minlength=devices)
    return np.bincount(device, weights=waits, minlength=devices) / np.where(count > 0, count, np.nan)
