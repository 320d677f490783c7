"""TODO system.load."""

from dataclasses import dataclass

import numpy as np

from partway.dnn.cuts import MAX_EFFICIENCY
from partway.scenario.schema import Scenario
from partway.system.types import ROUNDING, Device
from partway.system.world import World


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
    arriving = np.array([kind.arrival_prob for kind in scenario.device_classes()]) * scenario.slots_per_block
    finished = np.floor(np.asarray(devices.capacity) + ROUNDING)
    work, at_server = arriving * devices.server_work, float(server.slot_capacity) * scenario.slots_per_block
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
