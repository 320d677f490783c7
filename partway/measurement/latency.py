"""How long every task takes, from its arrival to its result: afterwards, on the host, in float64, from a run's traces.

    device block t   [t n tau, (t + 1) n tau)                     it runs L = j - offload tasks' work at a constant rate
    radio slot       [(t + 1) n tau, ((t + 1) n + 1) tau)         what is cut in device block t is sent
    server block t   [(t n + n + 1) tau, (t n + 2 n + 1) tau)     (6); it serves what was sent before device block t

A task of slot i of block t arrives at the slot's end and can be started from block t + 1 on. Devices and server are
FIFO. The i-th of the j tasks of a block is done i/L of the block after its start; the last one, where offload > 0, is
done when the server has done its work. What was sent in one block the server does in the order of device index,
rotated by the block number so that no device is always first. All is observed until the last server block ends,
((T + 1) n + 1) tau, at the devices too, although they stop at T n tau.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = 1e-3
"""Work [mean tasks] that may be missing when something counts as done: `service_per_slot` carry the run's rounding."""
PERCENTILES = (50, 95, 99)


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
    """

    device: np.ndarray
    block: np.ndarray
    arrived: np.ndarray
    finished: np.ndarray
    cut: np.ndarray


@dataclass(frozen=True)
class Latency:
    """Time from arrival to result [s] of the tasks that arrive after a warm-up; every field has the shape (seeds,).

    mean           with what an unfinished task has waited so far in place of its latency: a lower bound
    p50, p95, p99  the least time within which that share of the tasks is done; NaN where so many never are
    unfinished     share of the tasks that the run's end cut off

    All are NaN for a seed in which no task arrives.
    """

    mean: np.ndarray
    p50: np.ndarray
    p95: np.ndarray
    p99: np.ndarray
    unfinished: np.ndarray


def latency(traces: Traced, server_work: ArrayLike, slot_s: float, warmup: int = 0) -> Latency:
    """Latency of the tasks that arrive from block `warmup` on; arguments as in `finish_times`."""
    blocks, slots = np.shape(traces.service_per_slot)[1:]
    end = ((blocks + 1) * slots + 1) * slot_s
    seeds = [_summary(tasks, warmup, end) for tasks in finish_times(traces, server_work, slot_s)]
    return Latency(*np.transpose(seeds))


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
        _tasks(arrivals[s], whole[s], offload[s], _server_finish(work[s], service_per_slot[s], left[s], slot_s), slot_s)
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


def _server_finish(work: np.ndarray, service_per_slot: np.ndarray, left: np.ndarray, slot_s: float) -> np.ndarray:
    """(T, K) when the server finishes what device k sent in block t [s], inf if never; work (T, K), rates, left (T, n).

    A task is done at the end of a slot if less than TOLERANCE, and less than half of it, is missing then.
    """
    ends, inflow, slots = _ends(work), work.sum(axis=-1), service_per_slot.shape[-1]
    done = ((np.cumsum(inflow) - inflow)[:, None] - left).ravel()
    done = np.maximum.accumulate(done)  # it would fall by a rounding error where a block begins
    block, device = np.nonzero(work)
    end, own = ends[block, device], work[block, device]
    slot = np.searchsorted(done, end - np.minimum(TOLERANCE, own / 2))
    slot = np.maximum(slot, (block + 1) * slots)  # not before it is there, however small it is
    block, device, end, slot = (each[slot < len(done)] for each in (block, device, end, slot))
    rate = service_per_slot.ravel()[slot]
    part = np.clip((end - done[slot - 1]) / np.where(rate > 0, rate, 1.0), 0.0, 1.0)
    finished = np.full(work.shape, np.inf)
    finished[block, device] = (slots + 1 + slot + part) * slot_s
    return finished


def _ends(work: np.ndarray) -> np.ndarray:
    """(T, K) where in all the work ever sent each device's part ends; in block t device t mod K comes first."""
    blocks, devices = work.shape
    order = (np.arange(blocks)[:, None] + np.arange(devices)) % devices
    in_order = np.cumsum(np.take_along_axis(work, order, axis=1)).reshape(work.shape)
    ends = np.empty_like(work)
    np.put_along_axis(ends, order, in_order, axis=1)
    return ends


def _device_finish(
    started: np.ndarray, offload: np.ndarray, at_server: np.ndarray, block_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """When each task started is finished [s] and whether it was cut, device by device in FIFO order; all (T, K)."""
    j, share, blocks = started.T.ravel(), offload.T.ravel(), len(started)
    after = np.cumsum(j)
    place = np.repeat(np.arange(len(j)), j)
    i = np.arange(1, len(place) + 1) - (after - j)[place]
    local = np.where(j > share, j - share, 1.0)  # L; where it is 0 the one task started is cut
    finished = (place % blocks + i / local[place]) * block_s
    cut = np.zeros(len(place), bool)
    cut[after[share > 0] - 1] = True
    finished[cut] = at_server.T.ravel()[share > 0]
    return finished, cut


def _tasks(
    arrivals: np.ndarray, started: np.ndarray, offload: np.ndarray, at_server: np.ndarray, slot_s: float
) -> Tasks:
    """One seed: arrivals (T, n, K), the others (T, K). The first tasks of a device are the ones that were started."""
    slots = arrivals.shape[1]
    device, block, slot = np.nonzero(np.ascontiguousarray(arrivals.transpose(2, 0, 1)))
    rank = np.arange(len(device)) - np.searchsorted(device, np.arange(arrivals.shape[-1]))[device]
    up = rank < started.sum(axis=0)[device]
    finished, cut = np.full(len(device), np.inf), np.zeros(len(device), bool)
    finished[up], cut[up] = _device_finish(started, offload, at_server, slots * slot_s)
    return Tasks(device, block, (block * slots + slot + 1) * slot_s, finished, cut)


def _summary(tasks: Tasks, warmup: int, end: float) -> list[float]:
    """The fields of `Latency` for one seed."""
    late = tasks.block >= warmup
    arrived, finished = tasks.arrived[late], tasks.finished[late]
    count = len(arrived)
    if not count:
        return [np.nan] * 5
    ranks = [-(-percent * count // 100) - 1 for percent in PERCENTILES]
    waits = np.partition(finished - arrived, ranks)[ranks]
    percentiles = np.where(np.isinf(waits), np.nan, waits)
    mean = np.mean(np.minimum(finished, end) - arrived)
    return [float(mean), *map(float, percentiles), float(np.mean(np.isinf(finished)))]
