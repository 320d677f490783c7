"""A scenario made concrete: who stands where, what every party's constants are, and what chance brings."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from partway.certificate import Certificate
from partway.chance import folded, rounds
from partway.errors import InputError
from partway.model import ROUNDING, Device, Server
from partway.records import constant, record
from partway.sections import DeviceClass, Radio, Scenario
from partway.task import MAX_EFFICIENCY, Task, layer_cuts, proportional_cuts, read_profile

T = TypeVar("T")
MOST_PLANNED = 64
"""Tasks a block up to which plans are made; a device that could run more is planned for as if it could not."""


@record
class World:
    """The fleet, the server, and the probabilities nobody in it knows.

    arrival_threshold (K,) uint32: a task arrives in a slot when a random word is below it
    certificate  with which a run measures how far it is from the lower bound (`partway.bound`); no controller sees it
    """

    devices: Device
    server: Server
    arrival_threshold: jax.Array
    certificate: Certificate | None = None


@dataclass(frozen=True)
class Placement:
    """Where the devices are: `distance_m` (K,), and `mean_gain_per_w` (K,), gain over noise with shadowing [1/W]."""

    distance_m: np.ndarray
    mean_gain_per_w: np.ndarray


def gain_from_db(loss_db: np.ndarray, noise_dbw: float) -> np.ndarray:
    """Gain over noise [1/W]. The only place where dB becomes a ratio."""
    return 10.0 ** (-(loss_db + noise_dbw) / 10.0)


def place(scenario: Scenario) -> Placement:
    """Devices evenly over the ring between `min_distance_m` and `cell_radius_m`, with log-normal shadowing."""
    radio = scenario.radio
    zero, device = np.zeros(1, np.uint32), np.arange(scenario.devices, dtype=np.uint32)
    key = folded((zero, zero + np.uint32(scenario.placement_seed)), 0)
    uniform = [_uniform(np.bitwise_xor(*rounds(folded(key, i), (zero, device)))) for i in range(2)]
    near, far = radio.min_distance_m**2, radio.cell_radius_m**2
    distance = np.sqrt(near + uniform[0] * (far - near))
    fixed = [device.distance_m for device in scenario.device_classes()]
    distance = np.array([d if f is None else f for d, f in zip(distance, fixed, strict=True)])
    loss_db = pathloss_db(radio, distance) + radio.shadowing_db * ndtri(uniform[1])
    return Placement(distance, gain_from_db(loss_db, radio.noise_dbw))


def pathloss_db(radio: Radio, distance_m: np.ndarray) -> np.ndarray:
    """Section VI: 30.6 + 37.6 log10(d) [dB] in the preset `paper`."""
    return radio.pathloss_db_at_1m + radio.pathloss_slope_db * np.log10(distance_m)


def _uniform(random_words: np.ndarray) -> np.ndarray:
    return (random_words.astype(np.float64) + 0.5) / 2.0**32


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
    cuts = layer_cuts(profile, task.coding, task.input_bits)
    server = scenario.server.macs_per_cycle
    return _Work(profile.macs / device.macs_per_cycle, profile.macs / server, *cuts, False)


def build(scenario: Scenario, placement: Placement) -> World:
    """The scenario's parties in the units of `partway.model`, float64 NumPy arrays with the device axis last."""
    classes = scenario.device_classes()
    kinds = list(dict.fromkeys(classes))
    work_of = {kind: _work(scenario, kind) for kind in kinds}
    mean_task = float(np.mean([work_of[kind].server_cycles for kind in classes]))
    rows = np.array([kinds.index(kind) for kind in classes])
    width = max(len(work_of[kind].share) for kind in kinds)
    per_kind = [_device(scenario, kind, work_of[kind], mean_task, width) for kind in kinds]
    devices = jax.tree.map(partial(_spread, rows), *per_kind)
    fastest = int(min(float(np.max(devices.capacity)) + ROUNDING, MOST_PLANNED - 1)) + 1
    task = replace(devices.task, laws=_laws([work.proportional for work in work_of.values()]))
    devices = replace(devices, mean_gain=constant(placement.mean_gain_per_w), task=task, most=fastest)
    probability = np.array([kind.arrival_prob for kind in classes])
    threshold = np.minimum(np.round(probability * 2.0**32), 2.0**32 - 1).astype(np.uint32)
    return World(devices, _server(scenario, mean_task), constant(threshold))


def _spread(rows: np.ndarray, *leaves: np.ndarray) -> np.ndarray:
    """Of every device, along a new last axis, the leaf of its kind; of equal devices no copies are made."""
    stacked = np.stack(leaves, axis=-1)
    return np.broadcast_to(stacked, (*stacked.shape[:-1], len(rows))) if len(leaves) == 1 else stacked[..., rows]


def _device(scenario: Scenario, kind: DeviceClass, work: _Work, mean_task: float, width: int) -> Device:
    weights, block_s, cycles = scenario.weights, scenario.slots * scenario.slot_s, work.device_cycles
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
    arrays = {name: constant(value) for name, value in numbers.items()}
    task = _task(work, width, scenario.slot_s * kind.bandwidth_hz)
    slots, queue, objective = scenario.slots, scenario.queue, scenario.objective
    return Device(**arrays, task=task, slots=slots, most=0, queue=queue, objective=objective)


def _task(work: _Work, width: int, bits_per_efficiency: float) -> Task:
    padding = (0, width - len(work.share))
    return Task(
        share=constant(np.pad(work.share, padding, constant_values=1.0)),
        bits=constant(np.pad(work.bits, padding, constant_values=work.bits[-1])),
        feasible=constant(np.pad(work.bits <= MAX_EFFICIENCY * bits_per_efficiency, padding, constant_values=False)),
        proportional=constant(work.proportional),
        bits_per_task=constant(work.bits[-1]),
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
    arrays = {name: constant(value) for name, value in numbers.items()}
    return Server(**arrays, slots=scenario.slots, lag=scenario.broadcast_lag, objective=scenario.objective)


def precise(tree: T, precision: str, put: Callable[[Any], jax.Array] = jnp.asarray) -> T:
    """A world, or anything else, with its arrays of floating numbers as JAX arrays of "float32" or "float64".

    `put` makes JAX's of NumPy's.
    """

    def convert(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf  # a hyperparameter
        kind = precision if np.issubdtype(leaf.dtype, np.floating) else leaf.dtype
        return put(leaf.astype(kind))  # NumPy's arrays are rounded by NumPy: nothing is compiled

    return jax.tree.map(convert, tree)


@dataclass(frozen=True)
class Load:
    """How much work arrives and how much can be done, per block.

    tasks     that arrive in the fleet
    alone     arriving tasks as a share of what a device can finish without help, at the busiest one; no task is kept
              half done, so 1.7 tasks of CPU finish one
    server    whole tasks of all devices as a share of what the server can do
    together  arriving work as a share of all capacity, counting of a device's no more than it has work for
    stuck     devices that can neither finish a task in a block nor, with the channel at its mean, send enough of one
    """

    tasks: float
    alone: float
    server: float
    together: float
    stuck: int

    def sentence(self) -> str:
        """The load in words, for the terminal."""
        text = (
            f"{self.tasks:.4g} tasks arrive per block: {self.alone:.0%} of what the busiest device can finish alone, "
            f"{self.server:.0%} of what the server can, {self.together:.0%} of all capacity"
        )
        if self.together >= 1:
            text += ". MORE WORK ARRIVES THAN CAN BE DONE: every policy is unstable"
        if self.stuck:
            text += f". {self.stuck} device(s) can do nothing: too slow for a task in a block, no affordable cut"
        return text


def load_of(scenario: Scenario, world: World) -> Load:
    """What the load is before anything runs; no policy is assumed."""
    devices, server = world.devices, world.server
    arriving = np.array([kind.arrival_prob for kind in scenario.device_classes()]) * scenario.slots
    finished = np.floor(np.asarray(devices.capacity) + ROUNDING)
    work, at_server = arriving * devices.server_work, float(server.slot_capacity) * scenario.slots
    own = np.minimum(devices.capacity, arriving) * devices.server_work
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = np.where(arriving > 0, arriving / finished, 0.0)
    return Load(
        tasks=float(arriving.sum()),
        alone=float(alone.max()),
        server=float(work.sum() / at_server),
        together=float(work.sum() / (own.sum() + at_server)),
        stuck=int(np.sum(_stuck(devices))),
    )


def _stuck(devices: Device) -> np.ndarray:
    """(K,) devices that cannot finish any task even when the channel is at its mean."""
    task = devices.task
    carried = np.log2(1 + devices.mean_gain * devices.tx_power_max_w / devices.snr_gap)
    bits = devices.slot_s * devices.bandwidth_hz * np.minimum(carried, MAX_EFFICIENCY)
    at_cut = np.max(np.where(task.feasible & (task.bits <= bits), task.share, 0.0), axis=0)
    largest = np.where(task.proportional, np.minimum(1.0, bits / task.bits_per_task), at_cut)
    return np.asarray(largest + devices.capacity < 1)
