"""A scenario made concrete: the constants of every party, in the units of the code."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from partway.dnn.cuts import MAX_EFFICIENCY, Task, layer_cuts, proportional_cuts
from partway.dnn.profile import read_profile
from partway.errors import InputError
from partway.pytree import host_array, record
from partway.scenario.schema import DeviceClass, Scenario
from partway.system.kinds import channel_of, host_value, mean_gains, traffic_of
from partway.system.placement import Placement
from partway.system.processes import Channel, Traffic, station_of, with_arrays
from partway.system.types import ROUNDING, Device, Server

MAX_PLANNED = 64
"""Tasks a block up to which plans are made: all that can arrive in one, which has at most 64 slots."""


@record
class World:
    """The fleet, the server, and the probabilities that no controller knows.

    It has these forms, on its way from a scenario into a compiled program. They are one type because the functions of
    a device read the same fields of each; each form is made in one place and saves what is named with it:

    - built     float64 NumPy arrays on the host, as `build` makes them; device axis K last. Bound and plans are exact
    - squeezed  the same with a last axis of 1 where all devices share a value (`simulation.sharding.squeeze_shared`):
                a fleet of a million does not hold a million equal tables of cuts
    - stacked   squeezed, with an axis of runs in front of leaves that differ (`simulation.shares.stack`): cases of a
                sweep share a compiled program, and what they have in common is in memory once
    - in JAX    of one run, JAX arrays rounded once to the precision of the run; each axis is K or 1 as in squeezed

    arrival_threshold (K,) uint32: a task arrives in a slot when a random word is below it
    initial_tasks     (K,), or (1,) for all, tasks that wait at the devices when the run begins
    initial_backlog   work that then waits at the server [mean tasks]
    channel, traffic  the processes by which gains and arrivals are drawn (`partway.system.processes`)
    """

    devices: Device
    server: Server
    arrival_threshold: jax.Array
    initial_tasks: jax.Array
    initial_backlog: jax.Array
    channel: Channel
    traffic: Traffic


@dataclass(frozen=True)
class _Work:
    """One device class's task: cycles at the device and at the server, its cuts, and whether the paper's law holds."""

    device_cycles: float
    server_cycles: float
    share: np.ndarray
    bits: np.ndarray
    proportional: bool


def _work(scenario: Scenario, device: DeviceClass) -> _Work:
    task = device.task
    if task.kind == "proportional":
        cuts = proportional_cuts(task.cycles * task.bits_per_cycle)
        return _Work(task.cycles, task.cycles, *cuts, True)
    try:
        profile = read_profile(task.profile)
    except InputError as error:
        raise InputError(f"device.task.profile: {error}") from None
    cuts = layer_cuts(profile, task.tensor_dtype, task.input_bits, task.cuts)
    server = scenario.server.macs_per_cycle
    return _Work(profile.macs / device.macs_per_cycle, profile.macs / server, *cuts, False)


def build(scenario: Scenario, placement: Placement) -> World:
    """The scenario's parties in the units of `partway.system.types`, float64 NumPy arrays with the device axis last."""
    classes = scenario.device_classes()
    kinds = list(dict.fromkeys(classes))
    work_of = {kind: _work(scenario, kind) for kind in kinds}
    mean_task = float(np.mean([work_of[kind].server_cycles for kind in classes]))
    rows = np.array([kinds.index(kind) for kind in classes])
    width = max(len(work_of[kind].share) for kind in kinds)
    per_kind = [_device(scenario, kind, work_of[kind], mean_task, width) for kind in kinds]
    devices = jax.tree.map(partial(_spread, rows), *per_kind)
    fastest = int(min(float(np.max(devices.capacity)) + ROUNDING, MAX_PLANNED - 1)) + 1
    task = replace(devices.task, laws=_laws([work.proportional for work in work_of.values()]))
    devices = replace(devices, mean_gain=host_array(placement.mean_gain_per_w), task=task, max_tasks_per_block=fastest)
    probability = np.array([kind.arrival_prob for kind in classes])
    threshold = host_array(np.minimum(np.round(probability * 2.0**32), 2.0**32 - 1).astype(np.uint32))
    stations = station_of(devices, threshold)
    channel = host_value("radio.fading", channel_of(scenario), "prepared", stations)
    traffic = host_value("traffic", traffic_of(scenario), "prepared", stations)
    devices = replace(devices, mean_gain=host_array(mean_gains(channel, stations)))
    waiting = host_array(_spread(rows, *(host_array(kind.initial_queue_tasks) for kind in kinds)))
    backlog, serving = host_array(scenario.server.initial_queue_tasks), _server(scenario, mean_task)
    return World(devices, serving, threshold, waiting, backlog, with_arrays(channel), with_arrays(traffic))


def emptied(world: World) -> World:
    """The world in which no work waits when a run begins."""
    nothing = host_array(np.zeros(1)), host_array(0.0)
    return replace(world, initial_tasks=nothing[0], initial_backlog=nothing[1])


def _spread(rows: np.ndarray, *leaves: Any) -> Any:
    """Of every device, along a new last axis, the leaf of its kind; of equal devices no copies are made."""
    stacked = np.stack(leaves, axis=-1)
    return np.broadcast_to(stacked, (*stacked.shape[:-1], len(rows))) if len(leaves) == 1 else stacked[..., rows]


def _device(scenario: Scenario, kind: DeviceClass, work: _Work, mean_task: float, width: int) -> Device:
    weights, block_s, cycles = scenario.weights, scenario.slots_per_block * scenario.slot_s, work.device_cycles
    queue_weight = weights.device_queue if kind.queue_weight is None else kind.queue_weight
    energy_weight = weights.device_energy if kind.energy_weight is None else kind.energy_weight
    numbers = {
        "capacity": block_s * kind.cpu_max_hz / cycles,
        "energy_coef": kind.capacitance * cycles**3 / block_s**2,
        "queue_weight": queue_weight * cycles,
        "energy_weight": energy_weight,
        "server_work": work.server_cycles / mean_task,
        "mean_gain": 1.0,  # replaced by the placement's
        "snr_gap": scenario.radio.snr_gap,
        "bandwidth_hz": kind.bandwidth_hz,
        "slot_s": scenario.slot_s,
        "tx_power_max_w": kind.tx_power_max_w,
        "discount": scenario.discount,
        "fleet_size": float(scenario.devices),
    }
    arrays = {name: host_array(value) for name, value in numbers.items()}
    task = _task(work, width, scenario.slot_s * kind.bandwidth_hz)
    return Device(
        **arrays,
        task=task,
        slots=scenario.slots_per_block,
        max_tasks_per_block=0,
        queue=scenario.queue,
        objective=scenario.objective,
        arrivals_seen=scenario.arrivals_seen,
    )


def _task(work: _Work, width: int, bits_per_efficiency: float) -> Task:
    padding = (0, width - len(work.share))
    return Task(
        share=host_array(np.pad(work.share, padding, constant_values=1.0)),
        bits=host_array(np.pad(work.bits, padding, constant_values=work.bits[-1])),
        feasible=host_array(np.pad(work.bits <= MAX_EFFICIENCY * bits_per_efficiency, padding, constant_values=False)),
        proportional=host_array(work.proportional),
        bits_per_task=host_array(work.bits[-1]),
    )


def _laws(proportional: list[bool]) -> str:
    """Which laws a fleet's tasks follow, so that what no device needs is not computed."""
    return ("line" if all(proportional) else "both") if any(proportional) else "table"


def _server(scenario: Scenario, mean_task: float) -> Server:
    server, weights, slot_s = scenario.server, scenario.weights, scenario.slot_s
    numbers = {
        "slot_capacity": slot_s * server.cpu_max_hz / mean_task,
        "energy_coef": server.capacitance * mean_task**3 / slot_s**2,
        "queue_weight": weights.server_queue * mean_task,
        "energy_weight": weights.server_energy,
        "discount": scenario.discount,
    }
    arrays = {name: host_array(value) for name, value in numbers.items()}
    return Server(
        **arrays,
        slots=scenario.slots_per_block,
        broadcast_delay_blocks=scenario.broadcast_delay_blocks,
        objective=scenario.objective,
    )
