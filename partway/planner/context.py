"""The device for which a cut is planned, in a scenario whose tasks are all that network, at a load it can sustain."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.dnn.cuts import table_rows
from partway.dnn.profile import Profile
from partway.errors import InputError, compact
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.system.fading import fading_quantile
from partway.system.load import load_of
from partway.system.path_loss import gain_from_db, noise_dbw, pathloss_db
from partway.system.placement import Placement, sample_placement
from partway.system.stage_cost import best_cuts
from partway.system.types import Device
from partway.system.world import World, build, emptied

MAX_UTILISATION, TARGET_UTILISATION = 0.95, 0.8
"""Arriving work, as a share of the capacity, above which the arrivals are scaled down, and the share after scaling."""
LOAD_STEP = 0.9
"""Factor on the arrivals while the whole system is above TARGET_UTILISATION."""
FADING_POINTS = 200
"""Equally likely values of the fading over which the throughput is averaged."""
DISTANCES_M = (1e-3, 1e9)
"""Smallest and largest distance, as in the scenario."""


@dataclass(frozen=True)
class DeviceContext:
    """One device of a scenario.

    scenario       with the arrivals that the system can sustain
    placement      of all devices
    cuts           (cuts,) number in `profile` of each cut of the device's task, in ascending order of the share
    index          number of the device
    device         its constants, float64
    arrival_scale  factor by which the arrival probabilities were scaled down; 1 if they were not
    """

    scenario: Scenario
    world: World
    placement: Placement
    profile: Profile
    cuts: np.ndarray
    index: int
    device: Device
    arrival_scale: float

    @property
    def cpu_max_hz(self) -> float:
        """f_max [Hz] of the device."""
        return self.scenario.device_classes()[self.index].cpu_max_hz

    @property
    def fixed_noise(self) -> bool:
        """Whether the noise power is the same at every bandwidth: the scenario gives a total, not a density."""
        return self.scenario.radio.noise_dbw is not None

    @property
    def arrivals_per_block(self) -> float:
        """Mean number of tasks that arrive at the device in a block."""
        return self.scenario.device_classes()[self.index].arrival_prob * self.scenario.slots_per_block

    def rows(self, offload: np.ndarray | float) -> np.ndarray:
        """Row of the device's cut table whose share is `offload`, for any shape; `cuts[row]` is its number."""
        share = np.asarray(self.device.task.share)[: len(self.cuts)]  # without padding
        return np.argmin(np.abs(np.asarray(offload)[..., None] - share), axis=-1)


def with_task(scenario: Scenario, task: dict[str, Any]) -> Scenario:
    """The scenario with this task for the devices of all classes; raises InputError if the task is invalid."""
    raw = scenario.model_dump(mode="python", exclude_none=True)
    for table in (raw["device"], *(group["device"] for group in raw["group"])):
        table["task"] = task
    return load(raw)


def device_context(
    scenario: Scenario, profile: Profile, index: int | None = None, distance_m: float | None = None
) -> DeviceContext:
    """The device with that number, by default the one with the median channel gain.

    scenario    all tasks are `profile`. Arrivals that the system cannot sustain are scaled down: every plan is unstable
                under them
    distance_m  [m] moves the device there, without shadowing

    Raises InputError for an index or a distance out of range, and if a device can finish no task.
    """
    if index is not None and not 0 <= index < scenario.devices:
        raise InputError(f"--device must be between 0 and {scenario.devices - 1}, got {index}")
    placement = sample_placement(scenario)
    if index is None:
        index = int(np.argsort(placement.mean_gain_per_w)[scenario.devices // 2])
    if distance_m is not None:
        placement = _moved(scenario, placement, index, distance_m)
    sustainable, arrival_scale = _sustainable(scenario, placement)
    world = emptied(build(sustainable, placement))  # the latency of tasks that wait at first is not known
    device = jax.tree.map(lambda leaf: np.asarray(leaf)[..., index], world.devices)
    task = scenario.device_classes()[index].task
    assert task.kind == "layers"
    cuts = table_rows(profile, task.tensor_dtype, task.input_bits, task.cuts)
    return DeviceContext(sustainable, world, placement, profile, cuts, index, device, arrival_scale)


def _moved(scenario: Scenario, placement: Placement, index: int, distance_m: float) -> Placement:
    low, high = DISTANCES_M
    if not low <= distance_m <= high:
        limits = f"{compact(low)} and {compact(high)}"
        raise InputError(f"--distance-m must be between {limits}, got {compact(distance_m)}")
    distances, gains = placement.distance_m.copy(), placement.mean_gain_per_w.copy()
    loss_db = pathloss_db(scenario.radio, np.array(distance_m))
    noise = noise_dbw(scenario.radio, np.array(scenario.device_classes()[index].bandwidth_hz))
    distances[index], gains[index] = distance_m, gain_from_db(loss_db, noise)
    return Placement(distances, gains)


def _sustainable(scenario: Scenario, placement: Placement) -> tuple[Scenario, float]:
    """The scenario with arrivals that devices and server can sustain, and the factor on its arrivals."""
    world = build(scenario, placement)
    throughput = max_throughput(world.devices)
    arriving = np.array([kind.arrival_prob for kind in scenario.device_classes()]) * scenario.slots_per_block
    _check_throughput(throughput, arriving)
    utilisation = float(np.max(arriving / np.maximum(throughput, 1e-30)))
    if utilisation <= MAX_UTILISATION and load_of(scenario, world).system_utilisation <= MAX_UTILISATION:
        return scenario, 1.0
    scale = min(1.0, TARGET_UTILISATION / utilisation)
    while load_of(scaled := _scale_arrivals(scenario, scale), world).system_utilisation > TARGET_UTILISATION:
        scale *= LOAD_STEP
    return scaled, scale


def _check_throughput(throughput: np.ndarray, arriving: np.ndarray) -> None:
    infeasible = np.flatnonzero((throughput == 0) & (arriving > 0))
    if len(infeasible):
        raise InputError(
            f"device {infeasible[0]} can finish no task: its CPU is too slow for one in a block, and its radio carries "
            "no cut; raise device.cpu_max_hz, device.macs_per_cycle or device.bandwidth_hz by --set"
        )


def _scale_arrivals(scenario: Scenario, scale: float) -> Scenario:
    """The scenario with all arrival probabilities multiplied by `scale`."""
    raw = scenario.model_dump(mode="python", exclude_none=True)
    for table in (raw["device"], *(group["device"] for group in raw["group"])):
        table["arrival_prob"] *= scale
    return load(raw)


def max_throughput(devices: Device) -> np.ndarray:
    """(K,) the most tasks that each device can start and finish in a block, averaged over the fading."""
    with jax.enable_x64(True):
        by_device: Device = jax.tree.map(lambda leaf: jnp.asarray(np.moveaxis(np.asarray(leaf), -1, 0)), devices)
        points = jnp.asarray(fading_quantile((np.arange(FADING_POINTS) + 0.5) / FADING_POINTS))
        return np.asarray(_throughput(by_device, points))


@jax.jit
def _throughput(devices: Device, points: jax.Array) -> jax.Array:
    """(K,) mean over values of the fading (points,); the device axis of `devices` is first."""

    def startable(device: Device, x: jax.Array) -> jax.Array:
        possible = jnp.isfinite(best_cuts(device, device.mean_gain * x, 0.0).cost)
        return jnp.max(jnp.where(possible, jnp.arange(device.max_tasks_per_block + 1.0), 0.0))

    over_fading = jax.vmap(startable, in_axes=(None, 0))
    return jax.vmap(lambda device: jnp.mean(over_fading(device, points)))(devices)
