"""The two servers in NumPy, for S runs at once: what all rivals share. A server is little work beside its devices."""

from typing import Any

import numpy as np

from benchmarks.fleet import Array, Features, Fleet
from partway.controllers.parametric import Algorithm2
from partway.controllers.price import SERVER_DISCOUNT, UNHURRIED, PostDecisionServer


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), in place."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1.0
    return np.reciprocal(x, out=x)


class PrintedServer:
    """Algorithm 2 with the printed gradients. rates (S, n) as shares of f_max; nu . q is carried to the next block."""

    def __init__(self, fleet: Fleet, features: Features, own: Algorithm2):
        runs, m, _ = features.nu.shape
        at, n, dtype = 1 + fleet.devices, fleet.slots, fleet.dtype
        self.fleet, self.own, self.root = fleet, own, dtype(np.sqrt(fleet.devices))
        self.nu_y, self.nu_q, self.nu_f = features.nu[:, :, 0], features.nu[:, :, 1:at], features.nu[:, :, at:]
        self.theta = np.full((runs, m), 2.0 * own.start_value / (m * (1.0 - fleet.discount)), dtype)
        self.rates, self.quiet = np.full((runs, n), own.start_rate, dtype), np.zeros(runs)
        slot = dtype(fleet.devices / n)
        energy = fleet.server_energy_weight * fleet.server_coef * n * slot**3
        self.usual = fleet.server_queue_weight * fleet.devices + energy
        self.seen: Array | None = None

    def act(self, y: Array) -> tuple[Array, Array]:
        """(rates (S, n) [mean tasks], price (S,)) of this block."""
        return self.rates * self.fleet.server_capacity, np.zeros_like(y)

    def learn(self, y: Array, q: Array, next_y: Array, next_q: Array, inflow: Array, t: int) -> None:
        del inflow
        before = self._see(y, q) if self.seen is None else self.seen
        self.seen = self._see(next_y, next_q)
        by_rates = (self.nu_f @ self.rates[:, :, None])[:, :, 0]
        now, after = sigmoid(before + by_rates), sigmoid(self.seen + by_rates)
        self._improve(y, now, after, t)

    def _see(self, y: Array, q: Array) -> Array:
        """(S, M) the features' inputs but for the rates."""
        return self.nu_y * (y / self.fleet.devices)[:, None] + (self.nu_q @ (q / self.root)[:, :, None])[:, :, 0]

    def _improve(self, y: Array, now: Array, after: Array, t: int) -> None:
        fleet, own = self.fleet, self.own
        commanded, unit = self.rates * fleet.server_capacity, fleet.server_energy_weight * fleet.server_coef
        paid = fleet.server_queue_weight * y + unit * np.sum(commanded * commanded * commanded, axis=1)
        moved = fleet.discount * after - now
        error = paid / self.usual + np.sum(self.theta * moved, axis=1)
        bend = self.theta * (fleet.discount * after * (1.0 - after) - now * (1.0 - now))
        dearer = 3.0 * unit * commanded * commanded * fleet.server_capacity / self.usual
        by_rates = error[:, None] * (dearer - (bend[:, None, :] @ self.nu_f)[:, 0])
        alpha = own.step * (1.0 + t) ** -own.decay
        step = np.where(self.quiet >= own.patience, 0.0, alpha).astype(fleet.dtype)[:, None]
        theta = self.theta - step * error[:, None] * moved
        change = np.linalg.norm(theta - self.theta, axis=1) / np.linalg.norm(self.theta, axis=1)
        self.quiet = np.where(step[:, 0] == 0, self.quiet, np.where(change <= own.tolerance, self.quiet + 1, 0))
        self.theta, self.rates = theta, np.clip(self.rates - step * by_rates, 0.0, 1.0)


class PricedServer:
    """The server that learns u(x) on a grid, and broadcasts a price."""

    def __init__(self, fleet: Fleet, runs: int, own: PostDecisionServer):
        self.fleet, self.own, dtype = fleet, own, fleet.dtype
        even = np.arange(own.grid_points, dtype=dtype) / dtype(own.grid_points - 1)
        self.grid = dtype(own.grid_max * fleet.devices) * even * even
        self.coef = fleet.server_energy_weight * fleet.server_coef / dtype(fleet.slots**2)
        first = (self.grid + dtype(fleet.devices)) / dtype(UNHURRIED)
        slope = fleet.server_queue_weight + 3.0 * self.coef * first**2
        self.slope, self.usual = np.tile(slope, (runs, 1)), np.zeros(runs, dtype)
        self.t = 0

    def act(self, y: Array) -> tuple[Array, Array]:
        fleet, own = self.fleet, self.own
        self.worth = fleet.dtype(SERVER_DISCOUNT) * self.slope
        most = fleet.server_capacity * fleet.slots
        self.best = np.minimum(np.sqrt(self.worth / (3.0 * self.coef)), most)
        served = np.minimum(y, interpolate(y[:, None], self.grid + self.best, self.best)[:, 0])
        now = interpolate((y - served)[:, None], self.grid[None], self.worth)[:, 0]
        self.usual = self.usual + _step(self.t, 0.7, own.mean_price_step) * (now - self.usual)
        price = self.usual + own.price_gain / (1.0 + fleet.broadcast_delay_blocks / 2.0) * (now - self.usual)
        return np.repeat(served[:, None] / fleet.slots, fleet.slots, axis=1).astype(fleet.dtype), price

    def learn(self, y: Array, q: Array, next_y: Array, next_q: Array, inflow: Array, t: int) -> None:
        del y, q, next_y, next_q
        at, work = self.grid + inflow[:, None], self.grid + self.best
        left = np.where(at < work[:, :1], 3.0 * self.coef * at * at, interpolate(at, work, self.worth))
        target = self.fleet.server_queue_weight + left
        self.slope = self.slope + _step(t, self.own.decay, self.own.min_step) * (target - self.slope)
        self.t = t + 1


def interpolate(at: Array, points: Array, values: Array) -> Array:
    """Piecewise linear through (points, values) (S, P), constant beyond, at (S, m): one sum of ramps for all runs."""
    length = points[:, 1:] - points[:, :-1]
    steep = (values[:, 1:] - values[:, :-1]) / length
    ramps = np.clip(at[:, :, None] - points[:, None, :-1], 0.0, length[:, None])
    return values[:, :1] + (ramps @ steep[:, :, None])[:, :, 0]


def _step(t: int, decay: float, least: float) -> Any:
    return max((t + 1.0) ** -decay, least)
