"""What a plan achieves: simulated, and for a single task in closed form, beside running or offloading everything.

In the simulation all devices follow the same policy; the results are those of the one device after half of the blocks.
In closed form ONE task arrives at the start of a block, all queues are empty and the channel gain is at its mean. In
the timeline of `partway.measurement.latency`

    latency = n tau  [+ tau + n tau + m n tau  if something is sent]

that is the block of the device, however little it runs; the radio slot; the rest of the server's current block; and the
m blocks in which the server finishes the task, 1 unless f_max is too low for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from partway.bound.lower_bound import Bound
from partway.dnn.cuts import sent_bits
from partway.experiments.comparison import OnProgress
from partway.experiments.preparation import prepare
from partway.experiments.statistics import count_unstable
from partway.formatting import number
from partway.measurement.latency import finish_times
from partway.measurement.metrics import DeviceTraces
from partway.planner.context import DeviceContext
from partway.planner.plan import PlanRule, plan_table
from partway.pytree import cast_floats
from partway.schemes import find_scheme, pair_for, stream_of
from partway.simulation.rollout import Run, rollout
from partway.system.equations import affordable_bits, feasible_action, local_work, power_for, server_energy
from partway.system.types import Device, DeviceAction, Server

PERCENTILE = 0.95


@dataclass(frozen=True)
class PolicyOutcome:
    """The results of one policy at the device; NaN if it is unstable.

    unstable            the party whose queue grows without bound, "device" or "server"; "" if neither does
    mean_latency_s      from arrival to result [s]
    p95_latency_s       95th percentile [s]
    device_j_per_task   energy of CPU and radio [J]
    server_j_per_task   energy of the server per task of the whole fleet [J]
    cost_per_block      of the device: waiting, energy and the price of the work it offloads
    offloaded_share     of the tasks that it starts
    """

    name: str
    unstable: str
    mean_latency_s: float = np.nan
    p95_latency_s: float = np.nan
    device_j_per_task: float = np.nan
    server_j_per_task: float = np.nan
    cost_per_block: float = np.nan
    offloaded_share: float = np.nan


def run_scheme(
    target: DeviceContext,
    scheme: str,
    seeds: Sequence[int],
    blocks: int,
    bound: Bound | None,
    on_progress: OnProgress,
) -> Run:
    """A run of the scheme in the world of the device, with traces; `oracle` gets the tables of the bound."""
    certificate = None if bound is None else bound.certificate
    row, pair = find_scheme(scheme), pair_for(scheme, target.scenario)
    pair = prepare(row, pair, target.world, certificate, chosen=scheme in target.scenario.schemes)

    def add_blocks(count: int) -> None:
        on_progress(scheme, count)

    add_blocks(0)
    return rollout(target.world, pair, stream_of(scheme), seeds, blocks, traces=True, on_progress=add_blocks)


def policy_outcome(target: DeviceContext, name: str, simulated: Run, price: float) -> PolicyOutcome:
    """The results of a run; `price` is the cost of a mean task sent to the server."""
    traces, metrics, device = simulated.traces, simulated.metrics, target.device
    assert traces is not None
    unstable = _unstable_party(target, simulated, traces)
    if unstable:
        return PolicyOutcome(name, unstable)
    warmup = traces.q.shape[1] // 2
    started, offload, power, cost = (
        np.asarray(getattr(traces, field), np.float64)[:, warmup:, target.index]
        for field in ("started", "offload", "power", "cost")
    )
    device_j = target.block_j(started - offload, power)
    tasks = float(np.sum(np.asarray(traces.arrivals)[:, warmup:, :, target.index]))
    fleet_tasks = float(np.sum(np.asarray(metrics.arrived)[:, warmup:]))
    server_j = np.asarray(metrics.server_energy_j, np.float64)[:, warmup:]
    mean_latency_s, p95_latency_s = _latency(target, traces, warmup)
    return PolicyOutcome(
        name,
        "",
        mean_latency_s,
        p95_latency_s,
        device_j_per_task=float(np.sum(device_j)) / max(tasks, 1.0),
        server_j_per_task=float(np.sum(server_j)) / max(fleet_tasks, 1.0),
        cost_per_block=float(np.mean(cost + price * offload * device.server_work)),
        offloaded_share=float(np.sum(offload)) / max(float(np.sum(started)), 1.0),
    )


def _unstable_party(target: DeviceContext, simulated: Run, traces: DeviceTraces) -> str:
    """The party whose queue grows without bound in most seeds."""
    metrics, index = simulated.metrics, target.index
    queue, backlog = np.asarray(traces.q, np.float64)[..., index], np.asarray(metrics.backlog, np.float64)
    arriving = float(np.mean(np.asarray(traces.arrivals).sum(axis=2)[..., index]))
    if 2 * count_unstable(queue, arriving)[0] > len(queue):
        return "device"
    if 2 * count_unstable(backlog, float(np.mean(metrics.arrived_work)))[0] > len(backlog):
        return "server"
    return ""


def _latency(target: DeviceContext, traces: DeviceTraces, warmup: int) -> tuple[float, float]:
    """(mean, 95th percentile) [s] of the device's tasks.

    In the mean an unfinished task counts with the time until the end of the run, in the percentile as infinitely late.
    """
    (blocks, slots), slot_s = np.shape(traces.service_per_slot)[1:], target.scenario.slot_s
    end = ((blocks + 1) * slots + 1) * slot_s
    arrived, finished = list[np.ndarray](), list[np.ndarray]()
    for tasks in finish_times(traces, np.asarray(target.world.devices.server_work), slot_s):
        counted = (tasks.device == target.index) & (tasks.block >= warmup)
        arrived.append(tasks.arrived[counted])
        finished.append(tasks.finished[counted])
    arrival, finish = np.concatenate(arrived), np.concatenate(finished)
    if not len(arrival):
        return np.nan, np.nan
    percentile = float(np.quantile(finish - arrival, PERCENTILE, method="inverted_cdf"))
    mean = float(np.mean(np.minimum(finish, end) - arrival))
    return mean, percentile if np.isfinite(percentile) else np.nan


@dataclass(frozen=True)
class SingleTask:
    """One task in an empty system; times and energies are NaN if the choice is not possible.

    reason     why it is not possible, "" if it is
    offload    fraction of the task that is offloaded
    bits       to send [bit]                        cpu_hz    CPU rate of the device [Hz]
    device_s   until the device has finished [s]    radio_s   radio slot [s]
    wait_s     until the server starts [s]          server_s  until the server has finished [s]
    device_j   energy of CPU and radio [J]          server_j  energy of the server [J]
    """

    name: str
    reason: str
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
        """From the start of the block to the result [s]."""
        return self.device_s + self.radio_s + self.wait_s + self.server_s


def single_tasks(target: DeviceContext, rule: PlanRule) -> list[SingleTask]:
    """The choice of the rule for a single task, running it locally, and offloading all of it."""
    plan, name = plan_table(target, rule, np.ones(1), np.ones(1)), "recommended"
    if plan.started[0, 0]:
        chosen = single_task(name, target, float(plan.offload[0, 0]))
    else:
        chosen = SingleTask(name, "the plan waits for a better channel or more tasks", np.nan, np.nan, np.nan)
    return [chosen, single_task("all local", target, 0.0), single_task("all remote", target, 1.0)]


def single_task(name: str, target: DeviceContext, offload: float) -> SingleTask:
    """A task of which the fraction `offload` is sent; the device runs the other part at one rate through the block."""
    with jax.enable_x64(True):
        device, server = cast_floats((target.device, target.world.server), "float64")
        action = DeviceAction(started=jnp.float64(1.0), offload=jnp.float64(offload))
        bits, reason = float(sent_bits(device.task, action.offload)), _infeasible(target, device, action)
        power = np.asarray(power_for(device, device.mean_gain, action.offload))
        slot_s, block_s = float(device.slot_s), float(device.slot_s * device.slots)
        server_s, server_j = _serve(server, offload * float(device.server_work), block_s)
    local = local_work(action)
    cpu_hz = float(target.cpu_hz(local))
    if reason:
        return SingleTask(name, reason, offload, bits, cpu_hz)
    radio_s, wait_s = (slot_s, block_s) if offload > 0 else (0.0, 0.0)
    device_j = float(target.block_j(np.asarray(local), power))
    return SingleTask(name, "", offload, bits, cpu_hz, block_s, radio_s, wait_s, server_s, device_j, server_j)


def _infeasible(target: DeviceContext, device: Device, action: DeviceAction) -> str:
    """Why the action is infeasible for one task at the mean channel gain; "" if it is feasible."""
    feasible = feasible_action(device, jnp.float64(1.0), device.mean_gain, action)
    if float(feasible.offload) != float(action.offload):
        capacity = affordable_bits(device, device.mean_gain, device.tx_power_max_w)
        kbit = [number(float(bits) / 1e3) for bits in (sent_bits(device.task, action.offload), capacity)]
        return f"the radio is too slow: {kbit[0]} kbit to send, the radio slot carries {kbit[1]} kbit"
    if float(feasible.started) < 1:
        needed_s, block_s = target.full_speed_s(local_work(action)), float(device.slot_s * device.slots)
        return f"the CPU is too slow: {number(needed_s)} s at f_max, a block has {number(block_s)} s"
    return ""


def _serve(server: Server, work: float, block_s: float) -> tuple[float, float]:
    """(time [s], energy [J]) of a server that does `work` [mean tasks], as much as possible in each block."""
    block_capacity = float(server.slot_capacity) * server.slots
    full, rest = divmod(work, block_capacity)

    def energy_j(served: float) -> float:
        """Of a block with so much work, at equal rates in all slots."""
        return float(server_energy(server, jnp.full(server.slots, served / server.slots)))

    return (full + (rest > 0)) * block_s, full * energy_j(block_capacity) + energy_j(rest)
