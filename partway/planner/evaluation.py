"""What a recommendation brings at the device that is asked about, beside both extremes.

In a simulation all devices of the scenario play the same policy; the numbers are those of the one device, after half of
the blocks. In closed form ONE task comes as a block begins, nothing waits anywhere, and the channel is at its mean; in
the timeline of `partway.latency`

    latency = n tau  [+ tau + n tau + m n tau  where something is sent]

the device's block, however little it runs in it; the radio slot; the server's block that is under way by then; the m
blocks in which the server does what was sent, 1 unless f_max is too low for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.bound.lower_bound import Bound
from partway.dnn.cuts import sent_bits
from partway.experiments.comparison import OnProgress
from partway.experiments.statistics import count_unstable
from partway.formatting import number
from partway.measurement.latency import finish_times
from partway.measurement.metrics import DeviceTraces
from partway.planner.plan import DeviceContext, PlanRule, advise
from partway.pytree import cast_floats
from partway.schemes import consult_bound, pair_for
from partway.simulation.rollout import Run, run
from partway.system.equations import affordable_bits, device_energy, feasible_action, server_energy
from partway.system.types import Device, DeviceAction, Server


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


def play_here(
    target: DeviceContext, scheme: str, seeds: Sequence[int], blocks: int, found: Bound | None, on_progress: OnProgress
) -> Run:
    """A scheme in the site's world, with traces; `oracle` is given the bound's tables."""
    pair, world = pair_for(scheme, target.scenario), target.world
    if scheme == "oracle" and found is not None:
        pair = consult_bound(pair, replace(world, certificate=found.certificate))

    def done(more: int) -> None:
        on_progress(scheme, more)

    on_progress(scheme, 0)
    return run(world, pair, scheme, seeds, blocks, traces=True, on_progress=done)


def measured(target: DeviceContext, name: str, played: Run, price: float) -> Measured:
    """The numbers of a run, at a price of what is sent [cost per mean task]."""
    traces, k, own = played.traces, target.device, target.own
    assert traces is not None
    where = _piling_up(played, traces, k)
    if where:
        return Measured(name, where, *[np.nan] * 6)
    half = traces.q.shape[1] // 2
    started, offload, power, cost = (
        np.asarray(getattr(traces, field), np.float64)[:, half:, k] for field in ("started", "offload", "power", "cost")
    )
    tasks = max(float(np.sum(np.asarray(traces.arrivals)[:, half:, :, k])), 1.0)
    joules = own.energy_coef * (started - offload) ** 3 + own.slot_s * power
    everyone = max(float(np.sum(np.asarray(played.sums.arrived)[:, half:])), 1.0)
    mean, late = _latency(target, traces, half)
    return Measured(
        name,
        "",
        mean,
        late,
        device_j=float(np.sum(joules)) / tasks,
        server_j=float(np.sum(np.asarray(played.sums.server_energy_j, np.float64)[:, half:])) / everyone,
        cost=float(np.mean(cost + price * offload * own.server_work)),
        sent=float(np.sum(offload)) / max(float(np.sum(started)), 1.0),
    )


def _piling_up(played: Run, traces: DeviceTraces, device: int) -> str:
    """Where work grows without end in most seeds."""
    queue = np.asarray(traces.q, np.float64)[..., device]
    backlog, sums = np.asarray(played.sums.backlog, np.float64), played.sums
    arriving = float(np.mean(np.asarray(traces.arrivals).sum(axis=2)[..., device]))
    for where, work, new in (
        ("at the device", queue, arriving),
        ("at the server", backlog, float(np.mean(sums.arrived_work))),
    ):
        if 2 * count_unstable(work, new)[0] > len(work):
            return where
    return ""


def _latency(target: DeviceContext, traces: DeviceTraces, warmup: int) -> tuple[float, float]:
    """(mean, p95) [s] of the device's tasks; what is unfinished at the end counts as it is then, and as latest."""
    blocks, slots = np.shape(traces.service_per_slot)[1:]
    end, spent, late = ((blocks + 1) * slots + 1) * target.scenario.slot_s, list[np.ndarray](), list[np.ndarray]()
    for tasks in finish_times(traces, np.asarray(target.world.devices.server_work), target.scenario.slot_s):
        own = (tasks.device == target.device) & (tasks.block >= warmup)
        spent.append(np.minimum(tasks.finished, end)[own] - tasks.arrived[own])
        late.append(tasks.finished[own] - tasks.arrived[own])
    if not sum(map(len, spent)):
        return np.nan, np.nan
    slow = float(np.quantile(np.concatenate(late), 0.95, method="inverted_cdf"))
    return float(np.mean(np.concatenate(spent))), slow if np.isfinite(slow) else np.nan


@dataclass(frozen=True)
class Alone:
    """One task alone in the system; latency and energy are NaN where the choice is impossible.

    why        why it is impossible, "" where it is not
    rest       share of the task that is sent     bits      to send [bit]      cpu_hz  rate of the device's CPU [Hz]
    latency_s  from the start of the block to the result [s], the sum of
    device_s   until the device is done           radio_s   radio slot
    wait_s     until the server begins            server_s  until it is done
    device_j   energy of CPU and radio [J]        server_j  energy of the server [J]
    """

    name: str
    why: str
    offload: float
    bits: float
    cpu_hz: float
    device_s: float = np.nan
    radio_s: float = np.nan
    wait_s: float = np.nan
    server_s: float = np.nan
    device_j: float = np.nan
    server_j: float = np.nan

    @property
    def latency_s(self) -> float:
        """The sum of its four parts [s]."""
        return self.device_s + self.radio_s + self.wait_s + self.server_s


def lone_tasks(target: DeviceContext, rule: PlanRule) -> list[Alone]:
    """The rule's choice for one task, and both extremes."""
    parties = target.own, target.world.server, target.cpu_max_hz
    local = alone("all local", *parties, 0.0)
    return [_recommended(target, rule), local, at_full_speed(local, target.own), alone("all remote", *parties, 1.0)]


def _recommended(target: DeviceContext, rule: PlanRule) -> Alone:
    found, name = advise(target, rule, np.ones(1), np.ones(1)), "recommended"
    if not found.started[0, 0]:
        return Alone(name, "the plan waits for a better moment", np.nan, np.nan, np.nan)
    return alone(name, target.own, target.world.server, target.cpu_max_hz, float(found.offload[0, 0]))


def alone(name: str, own: Device, serving: Server, cpu_max_hz: float, offload: float) -> Alone:
    """One task of which `offload` is sent and the device runs the other part at one rate through the block."""
    with jax.enable_x64(True):
        device, server = cast_floats((own, serving), "float64")
        asked = DeviceAction(whole=jnp.float64(0.0), offload=jnp.float64(offload))
        bits, why = float(sent_bits(device.task, asked.offload)), _impossible(device, asked)
        joules = float(device_energy(device, jnp.float64(1.0), device.mean_gain, asked))
        slot_s, block_s = float(device.slot_s), float(device.slot_s * device.slots)
        server_s, server_j = _served(server, offload * float(device.server_work), block_s)
    hertz = (1.0 - offload) / float(own.capacity) * cpu_max_hz
    if why:
        return Alone(name, why, offload, bits, hertz)
    radio_s, wait_s = (slot_s, block_s) if offload > 0 else (0.0, 0.0)
    return Alone(name, "", offload, bits, hertz, block_s, radio_s, wait_s, server_s, joules, server_j)


def _impossible(device: Device, asked: DeviceAction) -> str:
    """Why one task, with the channel at its mean, cannot be dealt with like that in a block; "" where it can."""
    admitted = feasible_action(device, jnp.float64(1.0), device.mean_gain, asked)
    if float(admitted.offload) != float(asked.offload):
        carried = affordable_bits(device, device.mean_gain, device.tx_power_max_w)
        kbit = [number(float(bits) / 1e3) for bits in (sent_bits(device.task, asked.offload), carried)]
        return f"radio too slow: {kbit[0]} kbit to send, its slot carries {kbit[1]}"
    if float(admitted.whole) > 0:
        block_s = float(device.slot_s * device.slots)
        needed_s = float((1.0 - asked.offload) / device.capacity) * block_s
        return f"CPU too slow: {number(needed_s)} s at f_max, a block has {number(block_s)}"
    return ""


def at_full_speed(local: Alone, own: Device) -> Alone:
    """All of it run at f_max: done before the block ends, W / f_max, with xi W f_max^2 [J]. No policy here does so."""
    capacity, name = float(own.capacity), "all local, f_max"
    return replace(
        local,
        name=name,
        cpu_hz=local.cpu_hz * capacity,
        device_s=local.device_s / capacity,
        device_j=local.device_j * capacity**2,
    )


def _served(server: Server, work: float, block_s: float) -> tuple[float, float]:
    """([s], [J]) of a server that does `work` [mean tasks] block by block, in each as much as it can, at one rate."""
    most = float(server.slot_capacity) * server.slots
    blocks = int(np.ceil(work / most))
    each = [min(most, work - block * most) for block in range(blocks)]
    rates = jnp.array(each)[:, None] / server.slots * jnp.ones(server.slots)
    return blocks * block_s, float(server_energy(server, rates))
