"""`priced` in NumPy, vectorised over devices and, with S > 1, batched over all runs.

Written for speed as NumPy allows it: what does not depend on the block is made once, what acting finds of c and U
serves learning, and devices of all runs are one axis of N = S K lanes, in tiles that stay in the cache.
"""

import numpy as np

from benchmarks.fleet import Array, Fleet
from partway.controllers.postdecision import Priced
from partway.system.types import ROUNDING

TILE = 4096
"""Lanes that are worked on at once. Found by trying."""


class PricedDevices:
    """Post-decision learning at a price, for the average cost. value V (Q, N), arrive (n + 1, N)."""

    def __init__(self, fleet: Fleet, runs: int, own: Priced):
        dtype, left = fleet.dtype, np.arange(own.states, dtype=fleet.dtype)
        run = np.minimum(left, fleet.capacity)
        beyond = 3.0 * fleet.energy_coef * fleet.capacity**2 * (left - run)
        value = fleet.queue_weight * left + fleet.energy_weight * (fleet.energy_coef * run * run * run + beyond)
        lanes = runs * fleet.devices
        self.fleet, self.own = fleet, own
        self.tiles = [slice(at, min(at + TILE, lanes)) for at in range(0, lanes, TILE)]
        self.value = np.repeat(value.astype(dtype)[:, None], lanes, axis=1)
        self.arrive = np.zeros((fleet.slots + 1, lanes), dtype)
        self.arrive[0] = 1.0
        self.radio = fleet.energy_weight * fleet.slot_s * fleet.snr_gap * np.expm1(fleet.reach * fleet.share)
        local = np.arange(fleet.max_tasks_per_block + 1, dtype=dtype)[:, None] - fleet.share
        running = fleet.energy_weight * fleet.energy_coef * local * local * local
        self.running = np.where(local <= fleet.capacity + dtype(ROUNDING), running, np.inf).astype(dtype)
        self.target = np.empty_like(self.value)

    def act(self, q: Array, gain: Array, price: Array) -> tuple[Array, Array]:
        """(started, offload) (S, K) of least cost; the target of V is found on the way."""
        started, offload, prices = np.empty(q.size, q.dtype), np.empty(q.size, q.dtype), np.repeat(price, q.shape[1])
        for part in self.tiles:
            sending = self.radio[:, None] / gain.reshape(-1)[part]
            sending += self.fleet.share[:, None] * prices[part]
            cost, left = self._choices(sending), self._left(part)
            started[part] = self._planned(q.reshape(-1)[part], cost, left, self.value[-2:, part])
            offload[part] = self._cut(started[part], sending)
            self.target[:, part] = self._backup(cost, left)
        return started.reshape(q.shape), offload.reshape(q.shape)

    def learn(self, before: tuple[Array, ...], after: tuple[Array, ...], local: Array, t: int) -> None:
        """V += a_t (target - V), then V(0) is subtracted; `after`: queues, gains, arrivals (S, n, K) that follow."""
        del before, local
        step = self.fleet.dtype(max((1.0 + t) ** -self.own.decay, self.own.min_step))
        counts = np.arange(self.fleet.slots + 1, dtype=self.fleet.dtype)[:, None]
        came = np.sum(after[2], axis=1).reshape(-1)
        for part in self.tiles:
            value, target, arrive = (x[:, part] for x in (self.value, self.target, self.arrive))
            target -= value
            target *= step
            value += target
            value -= value[0].copy()
            arrive += ((came[part] == counts) - arrive) / self.fleet.dtype(1.0 + t)

    def _choices(self, sending: Array) -> Array:
        """(most + 1, N) the least cost of taking up j tasks, from what sending costs at each cut (C, N)."""
        buffer = np.empty_like(sending)
        cost = np.zeros((self.fleet.max_tasks_per_block + 1, sending.shape[1]), sending.dtype)
        for j in range(1, self.fleet.max_tasks_per_block + 1):
            low = int(np.argmax(np.isfinite(self.running[j])))  # the cuts from there on are within f_max
            np.add(sending[low:], self.running[j, low:, None], out=buffer[low:])
            np.min(buffer[low:], axis=0, out=cost[j])
        return cost

    def _left(self, part: slice) -> Array:
        """(Q, N) U(m) = E V(m + A); beyond its table V continues with its last slope."""
        value, arrive, n = self.value[:, part], self.arrive[:, part], self.fleet.slots
        ahead = np.arange(1, n + 1, dtype=value.dtype)[:, None]
        longer = np.concatenate([value, value[-1] + (value[-1] - value[-2]) * ahead])
        left, buffer = arrive[0] * value, np.empty_like(value)
        for a in range(1, n + 1):
            left += np.multiply(arrive[a], longer[a : a + len(value)], out=buffer)
        return left

    def _planned(self, q: Array, cost: Array, left: Array, ends: Array) -> Array:
        """(N,) the number of tasks to take up; `ends` (2, N) the last two of V."""
        last = self.own.states - 1
        started = np.arange(self.fleet.max_tasks_per_block + 1, dtype=q.dtype)[:, None]
        stay = q - started
        future = np.take_along_axis(left, np.clip(stay, 0, last).astype(np.intp), axis=0)
        if q.max() > last:
            future += np.maximum(stay - last, 0.0) * (ends[1] - ends[0])
        future += cost
        return _where_least(np.where(stay >= 0, future, np.inf), started)

    def _cut(self, started: Array, sending: Array) -> Array:
        """(N,) the share sent of the last of `started` tasks; `sending` is used up."""
        fleet, share = self.fleet, self.fleet.share[:, None]
        local = started - share
        sending += fleet.energy_weight * fleet.energy_coef * local * local * local
        if np.any(started > fleet.capacity):
            sending[local > fleet.capacity + fleet.dtype(ROUNDING)] = np.inf
        return np.where(started > 0, _where_least(sending, share), 0.0)

    def _backup(self, cost: Array, left: Array) -> Array:
        """(Q, N) w3 W q + min_j c(j) + U(q - j)."""
        best, buffer, states = left.copy(), np.empty_like(left), len(left)
        for j in range(1, self.fleet.max_tasks_per_block + 1):
            np.minimum(best[j:], np.add(left[: states - j], cost[j], out=buffer[j:]), out=best[j:])
        best += (self.fleet.queue_weight * np.arange(states, dtype=left.dtype))[:, None]
        return best


def _where_least(total: Array, of: Array) -> Array:
    """The smallest `of` at the least of the first axis, what differs by rounding alone being equal."""
    least = np.min(total, axis=0)
    least *= total.dtype.type(1.0 + 16.0 * np.finfo(total.dtype).eps)
    return np.min(np.where(total <= least, of, total.dtype.type(np.inf)), axis=0)
