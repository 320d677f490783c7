"""Both learners as a plain Python loop, one device after the other; what is a vector is a small NumPy vector."""

import math

import numpy as np

from benchmarks.fleet import Array, Features, Fleet
from partway.controllers.parametric import MAX_POWER, Algorithm1
from partway.controllers.postdecision import Priced
from partway.system.types import ROUNDING


class PrintedLoop:
    """Algorithm 1 of one run, device by device."""

    def __init__(self, fleet: Fleet, features: Features, own: Algorithm1):
        m = features.mu.shape[1]
        self.fleet, self.own, self.mu = fleet, own, features.mu[0]
        start = 2.0 * own.start_value / (m * (1.0 - fleet.discount))
        self.theta = [np.full(m, start, fleet.dtype) for _ in range(fleet.devices)]
        self.power, self.quiet = [float(own.start_power)] * fleet.devices, [0] * fleet.devices
        self.half = [float(fleet.snr_gap) / h * math.expm1(0.5 * float(fleet.reach)) for h in fleet.mean_gain.tolist()]
        self.usual = float(fleet.queue_weight + fleet.energy_weight * fleet.energy_coef)

    def act(self, q: Array, gain: Array, price: Array) -> tuple[Array, Array]:
        del price
        chosen = [self._act(k, *seen) for k, seen in enumerate(zip(q[0].tolist(), gain[0].tolist(), strict=True))]
        started, offload = zip(*chosen, strict=True)
        return np.array([started], q.dtype), np.array([offload], q.dtype)

    def _act(self, k: int, q: float, gain: float) -> tuple[float, float]:
        fleet = self.fleet
        carried = math.log1p(gain * self.power[k] * self.half[k] / float(fleet.snr_gap)) / float(fleet.reach)
        offload = min(carried, 1.0) if q >= 1 else 0.0
        return q - max(math.ceil(q - offload - float(fleet.capacity) - ROUNDING), 0.0), offload

    def learn(self, before: tuple[Array, ...], after: tuple[Array, ...], local: Array, t: int) -> None:
        alpha = self.own.step * (1.0 + t) ** -self.own.decay
        for k in range(self.fleet.devices):
            if self.quiet[k] < self.own.patience:
                self._improve(k, self._inputs(k, before), self._inputs(k, after), float(local[0, k]), alpha)

    def _inputs(self, k: int, seen: tuple[Array, ...]) -> Array:
        q, gain, arrivals = seen
        first = [q[0, k], gain[0, k] / self.fleet.mean_gain[k], self.power[k]]
        return np.concatenate([np.array(first, q.dtype), arrivals[0, :, k]])

    def _improve(self, k: int, before: Array, after: Array, local: float, alpha: float) -> None:
        fleet, theta, mu = self.fleet, self.theta[k], self.mu
        now, then = 1.0 / (1.0 + np.exp(-(mu @ before))), 1.0 / (1.0 + np.exp(-(mu @ after)))
        joules = float(fleet.energy_coef) * local**3 + float(fleet.slot_s) * self.power[k] * self.half[k]
        paid = (float(fleet.queue_weight) * before[0] + float(fleet.energy_weight) * joules) / self.usual
        moved = fleet.discount * then - now
        error = paid + theta @ moved
        bend = theta @ (mu[:, 2] * (fleet.discount * then * (1.0 - then) - now * (1.0 - now)))
        dearer = float(fleet.energy_weight) * float(fleet.slot_s) * self.half[k] / self.usual
        changed = theta - alpha * error * moved
        change = np.linalg.norm(changed - theta) / np.linalg.norm(theta)
        self.quiet[k] = self.quiet[k] + 1 if change <= self.own.tolerance else 0
        self.theta[k] = changed
        self.power[k] = min(max(self.power[k] - alpha * float(error * (dearer - bend)), 0.0), MAX_POWER)


class PricedLoop:
    """Post-decision learning of one run, device by device."""

    def __init__(self, fleet: Fleet, own: Priced):
        left = np.arange(own.states, dtype=fleet.dtype)
        run = np.minimum(left, fleet.capacity)
        beyond = 3.0 * fleet.energy_coef * fleet.capacity**2 * (left - run)
        value = fleet.queue_weight * left + fleet.energy_weight * (fleet.energy_coef * run**3 + beyond)
        self.fleet, self.own, self.tasks = fleet, own, np.arange(fleet.max_tasks_per_block + 1, dtype=fleet.dtype)
        self.value = [value.copy() for _ in range(fleet.devices)]
        self.target: list[Array] = [value] * fleet.devices
        self.arrive = [(np.arange(fleet.slots + 1) == 0).astype(fleet.dtype) for _ in range(fleet.devices)]
        self.radio = fleet.energy_weight * fleet.slot_s * fleet.snr_gap * np.expm1(fleet.reach * fleet.share)
        local = self.tasks[1:, None] - fleet.share
        running = fleet.energy_weight * fleet.energy_coef * local**3
        self.running = np.where(local <= fleet.capacity + ROUNDING, running, np.inf)
        self.waiting = fleet.queue_weight * left
        self.ahead = np.arange(1, fleet.slots + 1)
        self.slack = 1.0 + 16.0 * np.finfo(fleet.dtype).eps

    def act(self, q: Array, gain: Array, price: Array) -> tuple[Array, Array]:
        cost = float(price[0])
        chosen = [self._act(k, *seen, cost) for k, seen in enumerate(zip(q[0].tolist(), gain[0].tolist(), strict=True))]
        started, offload = zip(*chosen, strict=True)
        return np.array([started], q.dtype), np.array([offload], q.dtype)

    def _act(self, k: int, q: float, gain: float, price: float) -> tuple[float, float]:
        total = self.running + (self.radio / gain + price * self.fleet.share)
        cost, left = [0.0, *total.min(axis=1).tolist()], self._left(k)
        self.target[k] = self._backup(cost, left)
        last, slope = self.own.states - 1, self.value[k][-1] - self.value[k][-2]
        future = []
        for j in range(int(min(q, self.fleet.max_tasks_per_block)) + 1):
            stay = int(q) - j
            future.append(cost[j] + float(left[stay] if stay <= last else left[last] + (stay - last) * slope))
        least = min(future) * self.slack
        best = next(j for j, total_cost in enumerate(future) if total_cost <= least)
        if best == 0:
            return 0.0, 0.0
        row = total[best - 1]
        return best, float(self.fleet.share[np.argmax(row <= row.min() * self.slack)])

    def _left(self, k: int) -> Array:
        """(Q,) U(m) = E V(m + A)."""
        value = self.value[k]
        longer = np.concatenate([value, value[-1] + (value[-1] - value[-2]) * self.ahead])
        return np.correlate(longer, self.arrive[k], mode="valid")

    def _backup(self, cost: list[float], left: Array) -> Array:
        """(Q,) w3 W q + min_j c(j) + U(q - j)."""
        best = left.copy()
        for j in range(1, self.fleet.max_tasks_per_block + 1):
            np.minimum(best[j:], left[:-j] + cost[j], out=best[j:])
        return best + self.waiting

    def learn(self, before: tuple[Array, ...], after: tuple[Array, ...], local: Array, t: int) -> None:
        del before, local
        step, came = max((1.0 + t) ** -self.own.decay, self.own.min_step), after[2][0].sum(axis=0)
        for k in range(self.fleet.devices):
            value, arrive = self.value[k], self.arrive[k]
            value += step * (self.target[k] - value)
            value -= value[0]
            arrive *= t / (1.0 + t)
            arrive[int(came[k])] += 1.0 / (1.0 + t)
