"""The device for which a cut is planned, in a scenario whose tasks are all that network, at a load it can sustain."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.dnn.cuts import table_rows
from partway.dnn.profile import Profile
from partway.errors import InputError
from partway.planner.statement import with_tables
from partway.program_cache import kept_jit
from partway.scenario.schema import Scenario
from partway.system import kinds
from partway.system.equations import local_energy, radio_energy
from partway.system.load import load_of
from partway.system.placement import Placement
from partway.system.processes import Law
from partway.system.stage_cost import best_cuts
from partway.system.types import Device
from partway.system.world import World, build, emptied

MAX_UTILISATION, TARGET_UTILISATION = 0.95, 0.8
"""Arriving work, as a share of the capacity, above which the arrivals are scaled down, and the share after scaling."""
LOAD_STEP = 0.9
"""Factor on the arrivals while the whole system is above TARGET_UTILISATION."""
FADING_POINTS = 200
"""Equally likely values of the fading over which the throughput is averaged."""


@dataclass(frozen=True)
class DeviceContext:
    """One device of a scenario.

    scenario       with the arrivals that the system can sustain
    placement      of all devices
    cuts           (cuts,) number in `profile` of each cut of the device's task, in ascending order of the share
    index          number of the device
    device         its constants, float64
    arrival_scale  factor by which the arrival probabilities were scaled down; 1 if they were not
    cpu_min_hz     least CPU rate [Hz] while the CPU computes, of which (2) knows nothing; it only adds to the energy
    idle_w         power that the device draws all the time [W], of which the cost (8) knows nothing either
    """

    scenario: Scenario
    world: World
    placement: Placement
    profile: Profile
    cuts: np.ndarray
    index: int
    device: Device
    arrival_scale: float
    cpu_min_hz: float = 0.0
    idle_w: float = 0.0

    @property
    def cpu_max_hz(self) -> float:
        """f_max [Hz] of the device."""
        return self.scenario.device_classes()[self.index].cpu_max_hz

    def fading_quantile(self, probability: Any) -> np.ndarray:
        """x, the gain divided by its mean, that is not exceeded with this probability."""
        return law_of(self.world).quantile(probability)

    @property
    def block_s(self) -> float:
        """n tau [s]."""
        return self.scenario.slots_per_block * self.scenario.slot_s

    @property
    def fixed_noise(self) -> bool:
        """Whether the noise power is the same at every bandwidth: the scenario gives a total, not a density."""
        return self.scenario.radio.noise_dbw is not None

    @property
    def arrivals_per_block(self) -> float:
        """Mean number of tasks that arrive at the device in a block."""
        return self.scenario.device_classes()[self.index].arrival_prob * self.scenario.slots_per_block

    def full_speed_s(self, local: Any) -> Any:
        """[s] the CPU takes for so many tasks at f_max, any shape."""
        return np.asarray(local) / self.device.capacity * self.block_s

    def cpu_hz(self, local: Any) -> Any:
        """CPU rate [Hz] that runs so many tasks in a block, at equal rates in all slots; at least the least rate."""
        rate = self.full_speed_s(local) / self.block_s * self.cpu_max_hz
        return np.where(rate > 0, np.maximum(rate, self.cpu_min_hz), 0.0)

    def block_j(self, local: Any, power: Any) -> Any:
        """[J] energy of the device in blocks in which it runs `local` tasks and sends at `power` [W], any shape.

        (2) and (5), and the idle power. Where the least CPU rate is above that of (2), the CPU computes in a part of
        the block only, with the energy of the square of the rate.
        """
        cpu_hz, equal_hz = self.cpu_hz(local), self.full_speed_s(local) / self.block_s * self.cpu_max_hz
        faster = np.where(cpu_hz > equal_hz, cpu_hz / np.where(equal_hz > 0, equal_hz, 1.0), 1.0)
        cpu_j, radio_j = local_energy(self.device, local) * faster**2, radio_energy(self.device, power)
        return cpu_j + radio_j + self.idle_w * self.block_s

    def rows(self, offload: np.ndarray | float) -> np.ndarray:
        """Row of the device's cut table whose share is `offload`, for any shape; `cuts[row]` is its number."""
        share = np.asarray(self.device.task.share)[: len(self.cuts)]  # without padding
        return np.argmin(np.abs(np.asarray(offload)[..., None] - share), axis=-1)


def context_at(
    scenario: Scenario,
    profile: Profile,
    placement: Placement,
    index: int,
    cpu_min_hz: float = 0.0,
    idle_w: float = 0.0,
) -> DeviceContext:
    """A device of a fleet that is placed; other arguments as in `DeviceContext`.

    scenario  all tasks are `profile`. Arrivals that the system cannot sustain are scaled down: every plan is unstable
              under them

    Raises InputError if a device can finish no task.
    """
    sustainable, world, arrival_scale = _sustainable(scenario, placement)
    device = jax.tree.map(lambda leaf: np.asarray(leaf)[..., index], world.devices)
    task = scenario.device_classes()[index].task
    assert task.kind == "layers"
    cuts = table_rows(profile, task.tensor_dtype, task.input_bits, task.cuts)
    world = emptied(world)  # the latency of tasks that wait at first is not known
    found = (sustainable, world, placement, profile, cuts, index, device, arrival_scale)
    return DeviceContext(*found, cpu_min_hz, idle_w)


def _sustainable(scenario: Scenario, placement: Placement) -> tuple[Scenario, World, float]:
    """The scenario with arrivals that devices and server can sustain, its world, and the factor on its arrivals."""
    world = build(scenario, placement)
    throughput = max_throughput(world)
    arriving = np.array([kind.arrival_prob for kind in scenario.device_classes()]) * scenario.slots_per_block
    _check_throughput(throughput, arriving)
    utilisation = float(np.max(arriving / np.maximum(throughput, 1e-30)))
    if utilisation <= MAX_UTILISATION and load_of(scenario, world).system_utilisation <= MAX_UTILISATION:
        return scenario, world, 1.0
    scale = min(1.0, TARGET_UTILISATION / utilisation)
    while load_of(scaled := _scale_arrivals(scenario, scale), world).system_utilisation > TARGET_UTILISATION:
        scale *= LOAD_STEP
    return scaled, build(scaled, placement), scale


def _check_throughput(throughput: np.ndarray, arriving: np.ndarray) -> None:
    infeasible = np.flatnonzero((throughput == 0) & (arriving > 0))
    if len(infeasible):
        raise InputError(
            f"device {infeasible[0]} can finish no task: its CPU is too slow for one in a block, and its radio carries "
            "no cut; raise device.cpu_max_hz, device.macs_per_cycle or device.bandwidth_hz by --set"
        )


def _scale_arrivals(scenario: Scenario, scale: float) -> Scenario:
    """The scenario with all arrival probabilities multiplied by `scale`."""
    return with_tables(scenario, lambda table: table.update(arrival_prob=table["arrival_prob"] * scale))


def law_of(world: World) -> Law:
    """The law of the fading. Raises InputError where it is not known: no plan can then be made."""
    law = kinds.law_of(world.channel)
    if law is None:
        raise InputError(
            "radio.fading: a plan under load needs a fading whose law is known, which this channel does not have; plan "
            "with radio.fading.kind = 'rayleigh', or a single task with --one-task"
        )
    return law


def max_throughput(world: World) -> np.ndarray:
    """(K,) the most tasks that each device can start and finish in a block, averaged over the fading."""
    points = law_of(world).quantile((np.arange(FADING_POINTS) + 0.5) / FADING_POINTS)
    with jax.enable_x64(True):
        by_device: Device = jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf), -1, 0), world.devices)
        return np.asarray(_throughput(by_device, points))


@kept_jit()
def _throughput(devices: Device, points: jax.Array) -> jax.Array:
    """(K,) mean over values of the fading (points,); the device axis of `devices` is first."""

    def startable(device: Device, x: jax.Array) -> jax.Array:
        possible = jnp.isfinite(best_cuts(device, device.mean_gain * x, 0.0).cost)
        return jnp.max(jnp.where(possible, jnp.arange(device.max_tasks_per_block + 1.0), 0.0))

    over_fading = jax.vmap(startable, in_axes=(None, 0))
    return jax.vmap(lambda device: jnp.mean(over_fading(device, points)))(devices)
