"""What a plan achieves: simulated, and for a single task in closed form, beside running or offloading everything.

In the simulation all devices follow the same policy; the results are those of the one device after half of the blocks.
In closed form ONE task arrives at the start of a block, all queues are empty and the channel gain is at its mean. In
the timeline of `partway.measurement.latency`

    latency = n tau  [+ tau + n tau + m n tau  if something is sent]

that is the block of the device, however little it runs; the radio slot; the rest of the server's current block; and the
m blocks in which the server finishes the task, 1 unless f_max is too low for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from partway.bound.lower_bound import Bound
from partway.dnn.cuts import sent_bits
from partway.experiments.numbers import numbers_of
from partway.experiments.preparation import prepared_pair
from partway.experiments.statistics import count_unstable
from partway.formatting import number
from partway.measurement.gap import Horizon, default_warmup
from partway.measurement.latency import Tasks, end_of_run, finish_times, latency_of
from partway.measurement.metrics import DeviceTraces
from partway.planner.context import DeviceContext
from partway.planner.plan import PlanRule, plan_table
from partway.program_cache import kept_jit
from partway.pytree import cast_floats, host_array, record
from partway.schemes import stream_of
from partway.simulation.rollout import Run, rollout
from partway.system.equations import affordable_bits, feasible_action, local_work, power_for, server_energy
from partway.system.types import Device, DeviceAction, Server

if TYPE_CHECKING:
    from partway.experiments.comparison import OnProgress  # which imports xarray


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
    on_progress: "OnProgress",
) -> Run:
    """A run of the scheme in the world of the device, with traces; `oracle` gets the tables of the bound."""
    certificate = None if bound is None else bound.certificate
    pair = prepared_pair(scheme, target.scenario, target.world, certificate)

    def add_blocks(count: int) -> None:
        on_progress(scheme, count)

    add_blocks(0)
    return rollout(target.world, pair, stream_of(scheme), seeds, blocks, traces=True, on_progress=add_blocks)


def policy_outcome(target: DeviceContext, name: str, simulated: Run, price: float) -> PolicyOutcome:
    """The results of a run; `price` is the cost of a mean task sent to the server.

    Those of the device are of all seeds together, with what only a plan knows: a least CPU rate, idle power, the price.
    """
    traces, device = simulated.traces, target.device
    assert traces is not None
    unstable = _unstable_party(target, simulated, traces)
    if unstable:
        return PolicyOutcome(name, unstable)
    warmup = default_warmup(traces.q.shape[1])
    started, offload, power, cost = (
        np.asarray(getattr(traces, field), np.float64)[:, warmup:, target.index]
        for field in ("started", "offload", "power", "cost")
    )
    device_j = target.block_j(started - offload, power)
    tasks = float(np.sum(np.asarray(traces.arrivals)[:, warmup:, :, target.index]))
    mean_latency_s, p95_latency_s = _latency(target, traces, warmup)
    fleet = numbers_of(partial(getattr, simulated.metrics), Horizon.of(target.scenario, warmup, None, "not compared"))
    return PolicyOutcome(
        name,
        "",
        mean_latency_s,
        p95_latency_s,
        device_j_per_task=float(np.sum(device_j)) / max(tasks, 1.0),
        server_j_per_task=fleet.server_j,
        cost_per_block=float(np.mean(cost + price * offload * device.server_work)),
        offloaded_share=float(np.sum(offload)) / max(float(np.sum(started)), 1.0),
    )


def _unstable_party(target: DeviceContext, simulated: Run, traces: DeviceTraces) -> str:
    """The party whose queue grows without bound in most seeds.

    Of this device and of the server: that another device is overloaded, which ends a comparison, leaves a plan valid.
    """
    metrics, index = simulated.metrics, target.index
    queue, backlog = np.asarray(traces.q, np.float64)[..., index], np.asarray(metrics.backlog, np.float64)
    arriving = float(np.mean(np.asarray(traces.arrivals).sum(axis=2)[..., index]))
    if 2 * count_unstable(queue, arriving)[0] > len(queue):
        return "device"
    if 2 * count_unstable(backlog, float(np.mean(metrics.arrived_work)))[0] > len(backlog):
        return "server"
    return ""


def _latency(target: DeviceContext, traces: DeviceTraces, warmup: int) -> tuple[float, float]:
    """(mean, 95th percentile) [s] of the device's tasks, as in `Latency`."""
    (blocks, slots), slot_s = np.shape(traces.service_per_slot)[1:], target.scenario.slot_s
    seeds = finish_times(traces, np.asarray(target.world.devices.server_work), slot_s, warmup)
    own = _together([_tasks_of(tasks, target.index) for tasks in seeds])
    late = latency_of([own], end_of_run(blocks, slots, slot_s), target.scenario.devices)
    return float(late.mean[0]), float(late.p95[0])


def _tasks_of(tasks: Tasks, device: int) -> Tasks:
    """Those of one device."""
    mine = tasks.device == device
    return Tasks(**{field.name: getattr(tasks, field.name)[..., mine] for field in fields(Tasks)})


def _together(seeds: Sequence[Tasks]) -> Tasks:
    """The tasks of all seeds as if they were one."""
    each = {field.name: [getattr(tasks, field.name) for tasks in seeds] for field in fields(Tasks)}
    return Tasks(**{name: np.concatenate(values, axis=-1) for name, values in each.items()})


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
    local, remote, chosen = of_one_task(
        target, ("all local", "all remote", name), (0.0, 1.0, float(plan.offload[0, 0]))
    )
    if not plan.started[0, 0]:
        chosen = SingleTask(name, "the plan waits for a better channel or more tasks", np.nan, np.nan, np.nan)
    return [chosen, local, remote]


def of_one_task(target: DeviceContext, names: Sequence[str], offloads: Sequence[float]) -> list[SingleTask]:
    """A task of which the fraction is sent; the device runs the other part at one rate through the block."""
    with jax.enable_x64(True):
        parties = cast_floats((target.device, target.world.server), "float64", host_array)
        found = jax.tree.map(np.asarray, _closed_form(*parties, np.asarray(offloads, np.float64)))
    each = [jax.tree.map(lambda leaf: float(leaf[i]), found) for i in range(len(names))]  # noqa: B023  used at once
    return [_single_task(target, *about) for about in zip(names, offloads, each, strict=True)]


@record
class _ClosedForm:
    """What equations (1)-(7) say of tasks that are offloaded in part, (choices,) each.

    bits      to send [bit]                      max_bits     that the radio slot carries [bit]
    offload   of the feasible action             started      of the feasible action
    power     transmit power [W]                 local        work at the device [tasks]
    blocks    in which the server works          server_j     its energy [J]
    """

    bits: jax.Array
    max_bits: jax.Array
    offload: jax.Array
    started: jax.Array
    power: jax.Array
    local: jax.Array
    blocks: jax.Array
    server_j: jax.Array


@kept_jit()
def _closed_form(device: Device, server: Server, offloads: jax.Array) -> _ClosedForm:
    def of_one(offload: jax.Array) -> _ClosedForm:
        action = DeviceAction(started=jnp.ones_like(offload), offload=offload)
        feasible = feasible_action(device, action.started, device.mean_gain, action)
        limit = affordable_bits(device, device.mean_gain, device.tx_power_max_w)
        # the server does as much as possible in each block, at equal rates in all slots
        work, capacity = offload * device.server_work, server.slot_capacity * server.slots
        full = jnp.floor(work / capacity)
        rest = jnp.maximum(work - full * capacity, 0.0)
        full_j, rest_j = (
            server_energy(server, jnp.full(server.slots, done / server.slots)) for done in (capacity, rest)
        )
        return _ClosedForm(
            sent_bits(device.task, offload),
            limit,
            feasible.offload,
            feasible.started,
            power_for(device, device.mean_gain, offload),
            local_work(action),
            full + (rest > 0),
            full * full_j + rest_j,
        )

    return jax.vmap(of_one)(offloads)


def _single_task(target: DeviceContext, name: str, offload: float, found: _ClosedForm) -> SingleTask:
    reason, cpu_hz = _infeasible(target, offload, found), float(target.cpu_hz(found.local))
    if reason:
        return SingleTask(name, reason, offload, float(found.bits), cpu_hz)
    radio_s, wait_s = (target.scenario.slot_s, target.block_s) if offload > 0 else (0.0, 0.0)
    times = target.block_s, radio_s, wait_s, float(found.blocks) * target.block_s
    device_j = float(target.block_j(found.local, found.power))
    return SingleTask(name, "", offload, float(found.bits), cpu_hz, *times, device_j, float(found.server_j))


def _infeasible(target: DeviceContext, offload: float, found: _ClosedForm) -> str:
    """Why the action is infeasible for one task at the mean channel gain; "" if it is feasible."""
    if float(found.offload) != offload:
        kbit = [number(float(bits) / 1e3) for bits in (found.bits, found.max_bits)]
        return f"the radio is too slow: {kbit[0]} kbit to send, the radio slot carries {kbit[1]} kbit"
    if float(found.started) < 1:
        needed_s = float(target.full_speed_s(found.local))
        return f"the CPU is too slow: {number(needed_s)} s at f_max, a block has {number(target.block_s)} s"
    return ""
