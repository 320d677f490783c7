"""What a recommendation brings: the device that is asked about, measured in a simulation beside both extremes.

All devices of the scenario play the same policy; the numbers are those of the one device, after half of the blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from partway.bound import Bound
from partway.comparison import Tick
from partway.cut import Site
from partway.latency import finish_times
from partway.results import growing
from partway.runs import Run, run
from partway.schemes import consult_bound, pair_for
from partway.simulate import Traces


@dataclass(frozen=True)
class Measured:
    """One policy at the device; NaN where it is unstable.

    unstable           where work piles up: "" nowhere, "at the device", "at the server"
    latency_s, p95_s   from arrival to result [s]
    device_j           energy of CPU and radio per task [J]
    server_j           energy of the server per task of the fleet [J]
    cost               of the device per block: waiting, energy, and the price for what it sends
    sent               share of the work taken up that is sent
    """

    name: str
    unstable: str
    latency_s: float
    p95_s: float
    device_j: float
    server_j: float
    cost: float
    sent: float


def play_here(place: Site, scheme: str, seeds: Sequence[int], blocks: int, found: Bound | None, tick: Tick) -> Run:
    """A scheme in the site's world, with traces; `oracle` is given the bound's tables."""
    pair, world = pair_for(scheme, place.scenario), place.world
    if scheme == "oracle" and found is not None:
        pair = consult_bound(pair, replace(world, certificate=found.certificate))

    def done(more: int) -> None:
        tick(scheme, more)

    tick(scheme, 0)
    return run(world, pair, scheme, seeds, blocks, traces=True, tick=done)


def measured(place: Site, name: str, played: Run, price: float) -> Measured:
    """The numbers of a run, at a price of what is sent [cost per mean task]."""
    traces, k, own = played.traces, place.device, place.own
    assert traces is not None
    where = _piling_up(played, traces, k)
    if where:
        return Measured(name, where, *[np.nan] * 6)
    half = traces.q.shape[1] // 2
    taken, rest, power, cost = (
        np.asarray(getattr(traces, field), np.float64)[:, half:, k] for field in ("taken", "rest", "power", "cost")
    )
    tasks = max(float(np.sum(np.asarray(traces.arrivals)[:, half:, :, k])), 1.0)
    joules = own.energy_coef * (taken - rest) ** 3 + own.slot_s * power
    everyone = max(float(np.sum(np.asarray(played.sums.arrived)[:, half:])), 1.0)
    mean, late = _latency(place, traces, half)
    return Measured(
        name,
        "",
        mean,
        late,
        device_j=float(np.sum(joules)) / tasks,
        server_j=float(np.sum(np.asarray(played.sums.server_energy_j, np.float64)[:, half:])) / everyone,
        cost=float(np.mean(cost + price * rest * own.server_work)),
        sent=float(np.sum(rest)) / max(float(np.sum(taken)), 1.0),
    )


def _piling_up(played: Run, traces: Traces, device: int) -> str:
    """Where work grows without end in most seeds."""
    queue = np.asarray(traces.q, np.float64)[..., device]
    backlog, sums = np.asarray(played.sums.backlog, np.float64), played.sums
    arriving = float(np.mean(np.asarray(traces.arrivals).sum(axis=2)[..., device]))
    for where, work, new in (
        ("at the device", queue, arriving),
        ("at the server", backlog, float(np.mean(sums.arrived_work))),
    ):
        if 2 * growing(work, new)[0] > len(work):
            return where
    return ""


def _latency(place: Site, traces: Traces, warmup: int) -> tuple[float, float]:
    """(mean, p95) [s] of the device's tasks; what is unfinished at the end counts as it is then, and as latest."""
    blocks, slots = np.shape(traces.rates)[1:]
    end, spent, late = ((blocks + 1) * slots + 1) * place.scenario.slot_s, list[np.ndarray](), list[np.ndarray]()
    for tasks in finish_times(traces, np.asarray(place.world.devices.server_work), place.scenario.slot_s):
        own = (tasks.device == place.device) & (tasks.block >= warmup)
        spent.append(np.minimum(tasks.finished, end)[own] - tasks.arrived[own])
        late.append(tasks.finished[own] - tasks.arrived[own])
    if not sum(map(len, spent)):
        return np.nan, np.nan
    slow = float(np.quantile(np.concatenate(late), 0.95, method="inverted_cdf"))
    return float(np.mean(np.concatenate(spent))), slow if np.isfinite(slow) else np.nan
