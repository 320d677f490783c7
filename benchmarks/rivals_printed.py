"""`parametric-printed` in NumPy, vectorised over devices and, with S > 1, batched over all runs.

Written for speed as NumPy allows it: features by BLAS, work in place, tiles of (runs, devices) that stay in the cache.
"""

import numpy as np

from benchmarks.fleet import Array, Features, Fleet
from benchmarks.rivals_server import sigmoid
from partway.controllers.parametric import MAX_POWER, Algorithm1
from partway.system.equations import LN2
from partway.system.types import ROUNDING

TILE = 4096
"""Devices of all runs that are worked on at once: 30 features of them are 0.5 MB in float32. Found by trying."""


def tiles(runs: int, devices: int) -> list[tuple[slice, slice]]:
    """(runs, devices) cut into pieces of at most TILE."""
    wide = min(devices, TILE)
    high = max(1, TILE // wide)
    return [
        (slice(s, min(s + high, runs)), slice(k, min(k + wide, devices)))
        for s in range(0, runs, high)
        for k in range(0, devices, wide)
    ]


class PrintedDevices:
    """Algorithm 1 with the printed gradients. power (S, K) in units of `half`, theta (S, M, K)."""

    def __init__(self, fleet: Fleet, features: Features, own: Algorithm1):
        runs, m, _ = features.mu.shape
        shape, dtype = (runs, fleet.devices), fleet.dtype
        self.fleet, self.own, self.mu = fleet, own, features.mu
        self.theta = np.full((runs, m, fleet.devices), 2.0 * own.start_value / (m * (1.0 - fleet.discount)), dtype)
        self.power, self.quiet = np.full(shape, own.start_power, dtype), np.zeros(shape, dtype)
        self.half = fleet.snr_gap / fleet.mean_gain * np.expm1(fleet.reach * dtype(0.5))
        self.usual = fleet.queue_weight + fleet.energy_weight * fleet.energy_coef
        self.tiles = tiles(runs, fleet.devices)

    def act(self, q: Array, gain: Array, price: Array) -> tuple[Array, Array]:
        """(started, offload) (S, K): the share that the power sends, and as many tasks as f_max allows."""
        del price
        fleet = self.fleet
        efficiency = np.log1p(gain * (self.power * self.half) / fleet.snr_gap) / fleet.dtype(LN2)
        offload = np.minimum(efficiency * fleet.dtype(LN2) / fleet.reach, 1.0)
        offload[q < 1] = 0.0
        whole = np.maximum(np.ceil(q - offload - fleet.capacity - fleet.dtype(ROUNDING)), 0.0)
        return q - whole, offload

    def learn(self, before: tuple[Array, ...], after: tuple[Array, ...], local: Array, t: int) -> None:
        """`before`, `after`: queues (S, K), gains (S, K), arrivals (S, n, K) of the two blocks; `local` work (S, K)."""
        alpha = self.own.step * (1.0 + t) ** -self.own.decay
        for runs, part in self.tiles:
            now, then = (tuple(x[runs, ..., part] for x in seen) for seen in (before, after))
            self._improve(runs, part, now, then, local[runs, part], alpha)

    def _improve(
        self, runs: slice, part: slice, now: tuple[Array, ...], then: tuple[Array, ...], local: Array, alpha: float
    ) -> None:
        fleet, own, mu = self.fleet, self.own, self.mu[runs]
        power, theta, quiet = self.power[runs, part], self.theta[runs, :, part], self.quiet[runs, part]
        half, discount = self.half[part], fleet.discount
        phi, moved = (sigmoid(mu @ self._inputs(seen, power, part)) for seen in (now, then))  # phi(s, a), phi(s', a)

        joules = fleet.energy_coef * local * local * local + fleet.slot_s * power * half
        paid = (fleet.queue_weight * now[0] + fleet.energy_weight * joules) / self.usual
        bend = moved * moved
        bend *= -discount
        moved *= discount
        bend += moved  # gamma phi' (1 - phi')
        moved -= phi  # gamma phi' - phi
        phi -= 1.0
        phi *= phi + 1.0  # -phi (1 - phi)
        bend += phi
        bend *= theta
        error = paid + np.einsum("smk,smk->sk", theta, moved)
        dearer = fleet.energy_weight * fleet.slot_s * half / self.usual
        by_power = error * (dearer - (mu[:, None, :, 2] @ bend)[:, 0])

        stopped = quiet >= own.patience
        alphas = np.where(stopped, 0.0, alpha).astype(fleet.dtype)
        scale, length = np.abs(alphas * error), np.einsum("smk,smk->sk", moved, moved)
        change = scale * np.sqrt(length / np.einsum("smk,smk->sk", theta, theta))
        quiet[...] = np.where(stopped, quiet, np.where(change <= own.tolerance, quiet + 1, 0))
        moved *= (alphas * error)[:, None]
        theta -= moved
        power -= alphas * by_power
        np.clip(power, 0.0, MAX_POWER, out=power)

    def _inputs(self, seen: tuple[Array, ...], power: Array, part: slice) -> Array:
        """(S, 3 + n, K) q, h by its mean, p, arrivals."""
        q, gain, arrivals = seen
        rows = np.empty((q.shape[0], 3 + self.fleet.slots, q.shape[1]), self.fleet.dtype)
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3:] = q, gain / self.fleet.mean_gain[part], power, arrivals
        return rows
