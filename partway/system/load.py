"""How much work arrives in a scenario, and how much can be done, before anything runs."""

from dataclasses import dataclass

import numpy as np

from partway.dnn.cuts import MAX_EFFICIENCY
from partway.scenario.schema import Scenario
from partway.system.kinds import relative_rates
from partway.system.processes import Law, station_of
from partway.system.types import ROUNDING, Device
from partway.system.world import World

UNSTABLE = "every policy is unstable"
INTERVALS = 64
"""Of the fading, equally probable, over which a mean is taken."""


@dataclass(frozen=True)
class Load:
    """How much work arrives and how much can be done, per block.

    tasks                that arrive in the fleet
    device_utilisation   rho of the busiest device without offloading: arriving tasks / tasks that it can finish in a
                         block; no task is kept half done, so that a CPU for 1.7 tasks finishes one
    server_utilisation   rho of the server if every task were offloaded whole
    system_utilisation   arriving work / capacity of all, where a device's capacity is what its cuts can use, up to its
                         arriving work
    infeasible_devices   devices that can neither finish a task in a block nor, at the mean channel gain, offload enough
    overloaded_devices   other devices that get more tasks than they can start, even if the server were infinitely fast
    """

    tasks: float
    device_utilisation: float
    server_utilisation: float
    system_utilisation: float
    infeasible_devices: int
    overloaded_devices: int

    def sentence(self) -> str:
        """The load in words, for the terminal."""
        alone = f"{self.device_utilisation:.0%} of what" if np.isfinite(self.device_utilisation) else "more than"
        text = (
            f"{self.tasks:.4g} tasks arrive per block: {alone} the busiest device can finish alone, "
            f"{self.server_utilisation:.0%} of what the server can, {self.system_utilisation:.0%} of all capacity"
        )
        if self.system_utilisation >= 1:
            text += f". MORE WORK ARRIVES THAN CAN BE DONE: {UNSTABLE}"
        elif self.overloaded_devices:
            text += f". {self.overloaded_devices} device(s) get more tasks than they can start: {UNSTABLE}"
        if self.infeasible_devices:
            text += f". {self.infeasible_devices} device(s) can do nothing: too slow for a task, no feasible cut"
        return text


def load_of(scenario: Scenario, world: World) -> Load:
    """The load of a scenario before anything runs; no policy is assumed."""
    devices, server = world.devices, world.server
    arriving = np.array([kind.arrival_prob for kind in scenario.device_classes()]) * scenario.slots_per_block
    arriving = arriving * relative_rates(world.traffic, station_of(devices, world.arrival_threshold))
    finished = np.floor(np.asarray(devices.capacity) + ROUNDING)
    work, at_server = arriving * devices.server_work, float(server.slot_capacity) * scenario.slots_per_block
    own = np.minimum(_usable_capacity(devices), arriving) * devices.server_work
    infeasible = _infeasible(devices)
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = np.where(arriving > 0, arriving / finished, 0.0)
    return Load(
        tasks=float(arriving.sum()),
        device_utilisation=float(alone.max()),
        server_utilisation=float(work.sum() / at_server),
        system_utilisation=float(work.sum() / (own.sum() + at_server)),
        infeasible_devices=int(np.sum(infeasible)),
        overloaded_devices=int(np.sum((arriving > _most_started_at_best(devices)) & ~infeasible)),
    )


def _usable_capacity(devices: Device) -> np.ndarray:
    """(K,) the most tasks' work that a device's CPU can do in a block: whole tasks, the last one up to some cut."""
    task, capacity = devices.task, np.asarray(devices.capacity)
    of_cuts = np.where(task.feasible, np.floor(capacity + task.share + ROUNDING) - task.share, 0.0)
    up_to_whole = np.ceil(capacity - ROUNDING) - capacity
    of_law = np.where(up_to_whole <= _largest_share(devices, np.inf), capacity, np.floor(capacity))
    return np.where(task.proportional, of_law, np.clip(np.max(of_cuts, axis=0), 0.0, capacity))


def most_started(devices: Device, law: Law) -> np.ndarray:
    """(K,) tasks that a device can start per block, the mean over the fading, from above: by intervals of the gain, as
    if it were at the better end of each."""
    best = [*law.quantile(np.arange(1, INTERVALS) / INTERVALS), np.inf]
    snr = np.asarray(devices.mean_gain * devices.tx_power_max_w / devices.snr_gap)
    shares = (_largest_share(devices, np.log2(1 + x * snr)) for x in best)
    return np.mean([np.floor(np.asarray(devices.capacity) + share + ROUNDING) for share in shares], axis=0)


def _most_started_at_best(devices: Device) -> np.ndarray:
    """(K,) the most tasks that a device can start in a block on the best of channels."""
    return np.floor(np.asarray(devices.capacity) + _largest_share(devices, np.inf) + ROUNDING)


def _infeasible(devices: Device) -> np.ndarray:
    """(K,) devices that cannot finish any task even when the channel is at its mean."""
    carried = np.log2(1 + devices.mean_gain * devices.tx_power_max_w / devices.snr_gap)
    return np.asarray(_largest_share(devices, carried) + devices.capacity < 1)


def _largest_share(devices: Device, efficiency: np.ndarray | float) -> np.ndarray:
    """(K,) the largest fraction of a task that can be sent at a spectral efficiency [bit/s/Hz]."""
    task = devices.task
    bits = devices.slot_s * devices.bandwidth_hz * np.minimum(efficiency, MAX_EFFICIENCY)
    of_cuts = np.max(np.where(task.feasible & (task.bits <= bits), task.share, 0.0), axis=0)
    return np.where(task.proportional, np.minimum(1.0, bits / task.bits_per_task), of_cuts)
