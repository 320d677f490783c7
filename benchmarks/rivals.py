"""The rivals put together: one loop over blocks, the devices of `rivals_printed`, `rivals_priced` or `rivals_loop`.

loop     a plain Python loop over devices, one run after the other
per_run  NumPy vectorised over devices, one run after the other
batched  NumPy over all devices of all runs at once
"""

from typing import Any

import numpy as np

from benchmarks.fleet import Array, Chance, Features, Fleet
from benchmarks.rivals_loop import PricedLoop, PrintedLoop
from benchmarks.rivals_priced import PricedDevices
from benchmarks.rivals_printed import PrintedDevices
from benchmarks.rivals_server import PricedServer, PrintedServer
from partway.controllers.base import ControllerPair

RIVALS = ("loop", "per_run", "batched")
ONE_BY_ONE = ("loop", "per_run")
"""Those that play one run after the other, so that one run is measured and stands for all."""
LOOP_DEVICES = 50
"""Largest fleet of which the plain loop is measured; its time is proportional to device-blocks."""


class Rival:
    """S runs, block after block: (1)-(8) around a device learner and a server."""

    def __init__(self, fleet: Fleet, devices: Any, server: Any, chance: Chance):
        self.fleet, self.devices, self.server, self.chance = fleet, devices, server, chance
        self.gain = chance.first()
        self.q = np.zeros_like(self.gain)
        runs = len(self.q)
        self.arrivals = np.zeros((runs, fleet.slots, fleet.devices), fleet.dtype)
        self.backlog, self.t = np.zeros(runs, fleet.dtype), 0
        self.broadcast_queue = [np.zeros(runs, fleet.dtype)] * fleet.broadcast_delay_blocks

    def play(self, blocks: int) -> Array:
        """(4, S, blocks) server_queue, server_energy, device_queue, device_energy: the parts of (8)."""
        return np.stack([self.block() for _ in range(blocks)], axis=-1)

    def block(self) -> Array:
        """One block, learning; (4, S) the parts of its cost."""
        q, gain, y = self.q, self.gain, self.backlog
        rates, price = self.server.act(y)
        started, offload = self.devices.act(q, gain, self.broadcast_queue[0])
        local = started - offload
        cost = self._cost(local, offload, rates)
        arrivals, next_gain = self.chance.block(self.t)
        next_q = q - started + np.sum(arrivals, axis=1)
        inflow = np.sum(offload, axis=1)
        next_y = np.maximum(y - np.sum(rates, axis=1), 0.0) + inflow
        self.broadcast_queue = [*self.broadcast_queue[1:], price]
        seen, then = (q, gain, self.arrivals), (next_q, next_gain, arrivals)
        with np.errstate(over="ignore"):  # e^-x of a saturated sigmoid
            self.devices.learn(seen, then, local, self.t)
            self.server.learn(y, q, next_y, next_q, inflow, self.t)
        self.q, self.gain, self.arrivals, self.backlog, self.t = next_q, next_gain, arrivals, next_y, self.t + 1
        return cost

    def _cost(self, local: Array, offload: Array, rates: Array) -> Array:
        fleet = self.fleet
        power = fleet.snr_gap / self.gain * np.expm1(fleet.reach * offload)
        joules = fleet.energy_coef * local * local * local + fleet.slot_s * power
        return np.stack(
            [
                fleet.server_queue_weight * self.backlog,
                fleet.server_energy_weight * fleet.server_coef * np.sum(rates * rates * rates, axis=1),
                fleet.queue_weight * np.sum(self.q, axis=1),
                fleet.energy_weight * np.sum(joules, axis=1),
            ]
        )


def rival_of(
    kind: str, pair: ControllerPair, fleet: Fleet, chance: Chance, features: Features | None, runs: int
) -> Rival:
    """A rival that plays `runs` runs at once; "loop" plays one. `features` of `parametric-printed` only."""
    device: Any = pair.device
    server: Any = pair.server
    if features is not None:
        devices = PrintedLoop(fleet, features, device) if kind == "loop" else PrintedDevices(fleet, features, device)
        return Rival(fleet, devices, PrintedServer(fleet, features, server), chance)
    devices = PricedLoop(fleet, device) if kind == "loop" else PricedDevices(fleet, runs, device)
    return Rival(fleet, devices, PricedServer(fleet, runs, server), chance)
