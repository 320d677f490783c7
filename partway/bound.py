"""A proven lower bound on the cost of every policy, and how far a policy is above it: mathematics in docs/bound.md.

The server's queue recursion, weighed with a multiplier lambda >= 0, splits the system: each device pays lambda for a
unit of work sent, the server gets it for a unit served. What each does best on its own adds up to a bound:

    average     J >= sum_k g_k(lambda) + min_f [(w1 - lambda) f + w2 E(f)]
    discounted  J >= sum_k V_k(0; lambda) + gamma^2 / (1 - gamma) min_f [(w1 - lambda / gamma) f + w2 E(f)],
                lambda <= w1 gamma / (1 - gamma)

g_k and V_k come from the exact dynamic program of one device over its post-decision queue m, in float64, every
numerical step erring downward:

    (T U)(m) = E_A E_h [ w3 W (m + A) + min_j ( c(j; h, lambda) + gamma U(m + A - j) ) ]

For any U, min_m (T U - U)(m) is a certificate. Legend as in `partway.model`; A arrivals of a block, S states of a
table.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special, stats

from partway.certificate import Certificate, Tables
from partway.choices import Choices, exact_choices
from partway.model import ROUNDING, Device, Server, affordable_bits
from partway.records import record
from partway.world import MOST_PLANNED, World

STATES = 32
"""States of a device's table at first; doubled while the best policy reaches its end."""
MOST_STATES = 512
BINS = 256
"""Intervals of the fading that an expectation is taken over."""
REACHED = 1e-7
"""Probability of a table's last state above which the table is too short."""
ROUNDS = 60
"""Most improvements of a policy; a handful is usual."""
MOST_PRICE = 1e6
"""Multiple of w1 at which devices that still send too much are taken to have no choice."""


class NoBound(Exception):
    """Why a world has no bound."""


@record
class Fading:
    """Points that an expectation over the gain h = mean x, x ~ Exp(1), is taken over; per device.

    loss (points,) 1/x     limit (points,) the x that says which cuts are affordable     weight (points,)
    """

    loss: jax.Array
    limit: jax.Array
    weight: jax.Array


def chords(bins: int, merge: bool) -> Fading:
    """An expectation from below, over `bins` + 1 intervals: chords of a function that is concave in y = 1/x.

    For one fixed cut the cost is linear in y, so the minimum over the cuts that are affordable all over an interval is
    concave there; an interval takes the cuts affordable at its better end, and both its ends are points of their own,
    but for `merge`, where all cuts are always affordable. The worst channels, where E[1/x] is infinite, are held at
    their better end.
    """
    x, p, m = _intervals(bins)
    y = np.append(1.0 / x, 0.0)
    worse = (m - p * y[1:]) / (y[:-1] - y[1:])
    better = np.append(-np.expm1(-x[0]), p - worse)
    if merge:
        return Fading(y, np.full_like(y, np.inf), better + np.append(worse, 0.0))
    limit = np.append(x, np.inf)
    return Fading(np.append(y, y[:-1]), np.append(limit, limit[1:]), np.append(better, worse))


def plans(bins: int) -> Fading:
    """The same from above: a device that chooses by the interval alone, among the cuts affordable all over it."""
    x, p, m = _intervals(bins)
    loss = np.append(1.0 / x[0], m / p)  # nothing is affordable in the first interval
    return Fading(loss, np.append(0.0, x), np.append(-np.expm1(-x[0]), p))


def _intervals(bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes x (bins,), and p = P, m = E[1/x] of the intervals above each, the last one open.

    Half the nodes are even in log x, where channels are bad and costs bend, half in probability.
    """
    count = bins // 2
    x = np.append(np.geomspace(1e-4, 30.0, bins - count), -np.log1p(-(np.arange(count) + 0.5) / count))
    x = np.unique(x)
    p = np.append(-np.diff(np.exp(-x)), np.exp(-x[-1]))
    m = np.append(-np.diff(special.exp1(x)), special.exp1(x[-1]))
    return x, p, m


@record
class Solved:
    """One device's program at a price: `tables`, `part` of the bound, mean `inflow` of its best policy, how often
    the last state was `reached`."""

    tables: Tables
    part: jax.Array
    inflow: jax.Array
    reached: jax.Array


@record
class Program:
    """What a device's program is made of: the device, `arrive` (n + 1,) probabilities of 0..n tasks, fading, gamma."""

    device: Device
    arrive: jax.Array
    fading: Fading
    discount: jax.Array


def _extended(value: jax.Array, slope: jax.Array, length: int) -> jax.Array:
    """U on 0..length-1, the table first, then its linear continuation."""
    beyond = jnp.arange(1, length - value.shape[0] + 1, dtype=value.dtype)
    return jnp.concatenate([value, value[-1] + slope * beyond])


def _point_choices(program: Program, price: jax.Array) -> Choices:
    """c(j) at every point of the fading, (points, most + 1)."""
    device, fading = program.device, program.fading

    def at(loss: jax.Array, limit: jax.Array) -> Choices:
        bits = affordable_bits(device, jnp.maximum(limit, 1e-30) * device.mean_gain, device.tx_power_max_w)
        return exact_choices(device, loss / device.mean_gain, jnp.where(limit > 0, bits, 0.0), price)

    return jax.vmap(at)(fading.loss, fading.limit)


@record
class Greedy:
    """The best choice at every queue and fading point for some U: the mean over the fading of the `best` value (q,),
    `taken` (q, most + 1) the probability of taking up j tasks, `sent` (q,) mean share."""

    best: jax.Array
    taken: jax.Array
    sent: jax.Array


def _greedy(program: Program, choices: Choices, future: jax.Array) -> Greedy:
    """`future` (q,): gamma U of every number of tasks left."""
    queues, weight = future.shape[0], program.fading.weight
    points = weight.shape[0]
    numbers = jnp.arange(choices.cost.shape[1], dtype=jnp.int32)
    padded = jnp.concatenate([jnp.full(len(numbers) - 1, jnp.inf), future])

    count = jnp.minimum(program.device.capacity + ROUNDING, len(numbers) - 2).astype(jnp.int32) + 2

    def better(j: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        best, chosen = found
        left = jax.lax.dynamic_slice(padded, (len(numbers) - 1 - j,), (queues,))
        value = left[:, None] + choices.cost[:, j]
        return jnp.minimum(best, value), jnp.where(value < best, j, chosen)

    start = jnp.full((queues, points), jnp.inf), jnp.zeros((queues, points), jnp.int32)
    best, chosen = jax.lax.fori_loop(0, count, better, start)

    def shares(j: jax.Array, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        mine = jnp.where(chosen == j, weight, 0.0)
        return found[0].at[:, j].set(jnp.sum(mine, axis=1)), found[1] + mine @ choices.rest[:, j]

    empty = jnp.zeros((queues, len(numbers))), jnp.zeros(queues)
    taken, sent = jax.lax.fori_loop(0, count, shares, empty)
    return Greedy(best @ weight, taken, sent)


def _over_arrivals(arrive: jax.Array, function: jax.Array) -> jax.Array:
    """E function(m + A) for every m whose m + n is still in the table."""
    return jnp.convolve(function, arrive[::-1], mode="valid")


def _evaluated(program: Program, greedy: Greedy, future: jax.Array, slope: jax.Array, states: int) -> jax.Array:
    """(states + 1, 3): the last row is the gain (average cost only), above it the values of a policy kept for ever,
    for cost, inflow, and visits of the last state. What lies beyond the table is worth its end and `slope` a task."""
    arrive, discount = program.arrive, program.discount
    m = jnp.arange(states)[:, None, None]
    a = jnp.arange(arrive.shape[0])[:, None]
    j = jnp.arange(greedy.taken.shape[1])
    chance = arrive[:, None] * greedy.taken[m[..., 0] + a[:, 0]]
    left = jnp.maximum(m + a - j, 0)
    moves = jnp.zeros((states, states)).at[m, jnp.minimum(left, states - 1)].add(chance)
    queue = program.device.queue_weight * jnp.arange(len(future))
    kept = jnp.sum(greedy.taken * jnp.where(left_of(len(future), j) >= 0, future[left_of(len(future), j)], 0.0), axis=1)
    paid = _over_arrivals(arrive, queue + greedy.best - kept)[:states]
    paid = paid + discount * slope * jnp.sum(chance * jnp.maximum(left - states + 1, 0), axis=(1, 2))
    sent = program.device.server_work * _over_arrivals(arrive, greedy.sent)[:states]
    last = jnp.zeros(states).at[-1].set(1.0)
    gains = jnp.stack([paid, sent, last], axis=1)
    return _stationary(moves, gains, discount)


def left_of(queues: int, j: jax.Array) -> jax.Array:
    return jnp.arange(queues)[:, None] - j


def _stationary(moves: jax.Array, gains: jax.Array, discount: jax.Array) -> jax.Array:
    """Values (states,) and, last, the gain of each column: relative to state 0 where gamma is 1."""
    states = moves.shape[0]
    bare = jnp.eye(states) - discount * moves
    relative = jnp.where(discount < 1, bare, bare.at[:, 0].set(1.0))
    found = jnp.linalg.solve(relative, gains)
    gain = jnp.where(discount < 1, 0.0, found[0])
    return jnp.concatenate([jnp.where(discount < 1, found, found.at[0].set(0.0)), gain[None]])


def solve(program: Program, price: jax.Array, guess: jax.Array) -> Solved:
    """The exact program of one device by policy iteration from the value table `guess` (states,)."""
    states, most, slots = guess.shape[0], program.device.most, program.arrive.shape[0] - 1
    choices, discount = _point_choices(program, price), program.discount
    steepest = program.device.queue_weight / jnp.where(discount < 1, 1.0 - discount, 1e-9)

    def slope_of(value: jax.Array) -> jax.Array:
        return jnp.clip(value[-1] - value[-2], 0.0, steepest)

    def improve(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        value, _, _, rounds = carry
        slope = slope_of(value)
        future = discount * _extended(value, slope, states + slots)
        found = _evaluated(program, _greedy(program, choices, future), future, slope, states)
        change = jnp.max(jnp.abs(found[:-1, 0] - value)) / jnp.max(jnp.abs(found[:-1, 0]))
        return found[:-1, 0], found[jnp.where(discount < 1, 0, -1), 1:], change, rounds + 1

    def unsettled(carry: tuple[jax.Array, ...]) -> jax.Array:
        return (carry[2] > 1e-11) & (carry[3] < ROUNDS)

    first = (guess, jnp.zeros(2), jnp.array(jnp.inf), 0)
    value, (inflow, reached), _, _ = jax.lax.while_loop(unsettled, improve, first)
    slope = slope_of(value)
    future = discount * _extended(value, slope, states + most + slots)
    queue = program.device.queue_weight * jnp.arange(len(future))
    after = _over_arrivals(program.arrive, queue + _greedy(program, choices, future).best)
    residual = after - _extended(value, slope, states + most)
    certificate = jnp.min(residual)
    part = jnp.where(
        discount < 1, discount * (value[0] + certificate / (1.0 - jnp.minimum(discount, 1 - 1e-9))), certificate
    )
    return Solved(
        Tables(value, slope, residual - certificate, residual[-1] - residual[-2], certificate), part, inflow, reached
    )


@jax.jit
def solve_fleet(programs: Program, price: jax.Array, guess: jax.Array) -> Solved:
    """`solve` for every device, one after the other, for as many rounds as it needs; the device axis comes first."""
    return jax.lax.map(lambda one: solve(one[0], price, one[1]), (programs, guess))


@dataclass(frozen=True)
class Bound:
    """The bound of a world.

    certificate  float64, device axis last
    objective    "average" or "discounted"
    loose        an exact expectation over the fading would add at most so much
    reached      the largest probability of the last state of a device's table; beyond it values go on linearly
    parts        (K,) of the devices           inflow  (K,) work each sends at this price [mean tasks per block]
    """

    certificate: Certificate
    objective: str
    loose: float
    reached: float
    parts: np.ndarray
    inflow: np.ndarray

    @property
    def value(self) -> float:
        """The bound itself."""
        return float(self.certificate.bound)


def lower_bound(world: World, bins: int = BINS, price: float | None = None) -> Bound:
    """The bound with the multiplier that makes it largest, or with `price` [cost per mean task sent].

    Raises NoBound where there is none.
    """
    if world.devices.queue != "conserving":
        raise NoBound("no bound for the queue as printed: it keeps fractions of tasks")
    if float(np.max(world.devices.capacity)) >= MOST_PLANNED:
        raise NoBound(f"no bound where a device can run {MOST_PLANNED} tasks or more in a block")
    with jax.enable_x64(True):
        dual = _Dual(world, chords(bins, bool(np.isinf(world.devices.tx_power_max_w).all())))
        multiplier = dual.best_price() if price is None else price
        solved = dual.at(multiplier)
        above = _Dual(world, plans(bins), states=dual.states).at(multiplier)
        idle, _ = _server_part(world.server, dual.discount, multiplier)
        parts = np.asarray(solved.part)
        value = float(parts.sum()) + dual.server_weight * idle
        tables = jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf), 0, -1), solved.tables)
        certificate = Certificate(
            *(np.float64(x) for x in (multiplier,)), tables, *map(np.float64, (idle, value, dual.discount))
        )
        loose = float(np.sum(np.asarray(above.part) - parts))
        return Bound(
            certificate, world.devices.objective, loose, float(np.max(solved.reached)), parts, np.asarray(solved.inflow)
        )


class _Dual:
    """The bound as a function of the multiplier. Remembers the last tables, from which the next are found sooner."""

    def __init__(self, world: World, fading: Fading, states: int = STATES):
        device, count = world.devices, world.devices.mean_gain.shape[-1]
        self.server, self.states = world.server, states
        self.discount = 1.0 if device.objective == "average" else float(np.max(device.discount))
        self.server_weight = 1.0 if self.discount == 1 else self.discount**2 / (1.0 - self.discount)
        chance = np.asarray(world.arrival_threshold) / 2.0**32
        arrive = stats.binom.pmf(np.arange(device.slots + 1), device.slots, chance[:, None])
        own: Device = jax.tree.map(lambda leaf: jnp.moveaxis(jnp.asarray(leaf), -1, 0), device)
        points: Fading = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (count, len(leaf))), fading)
        self.programs = Program(own, jnp.asarray(arrive), points, jnp.full(count, self.discount))
        self.value = self._first_guess()

    def _first_guess(self) -> jax.Array:
        return self.programs.device.queue_weight[:, None] * jnp.arange(self.states) ** 2.0

    def at(self, price: float) -> Solved:
        """The devices' programs, with tables long enough (up to MOST_STATES)."""
        solved = solve_fleet(self.programs, jnp.float64(price), self.value)
        while float(jnp.max(solved.reached)) > REACHED and self.states < MOST_STATES:
            self.states *= 2
            solved = solve_fleet(self.programs, jnp.float64(price), self._first_guess())
        self.value = solved.tables.value
        return solved

    def slope(self, price: float) -> float:
        """Derivative of the bound by the multiplier, but for a positive factor: work sent minus work served."""
        sent = float(jnp.sum(self.at(price).inflow)) * (1.0 if self.discount == 1 else 1.0 - self.discount)
        return sent - _server_part(self.server, self.discount, price)[1]

    def best_price(self) -> float:
        """The multiplier in [0, cap] where the bound is largest; it is concave."""
        discount = self.discount
        cap = np.inf if discount == 1 else float(self.server.queue_weight) * discount / (1.0 - discount)
        free = self.slope(0.0)
        if free <= 0:
            return 0.0
        high = min(cap, discount * _marginal(self.server, free))
        while self.slope(high) > 0:
            if high >= cap:
                return cap
            if high > MOST_PRICE * float(self.server.queue_weight):
                raise NoBound("more work arrives than can be done: every policy is unstable")
            high = min(cap, 4.0 * high)
        return float(optimize.brentq(self.slope, 0.0, high, rtol=1e-5, xtol=1e-9 * high))


def _energy_coef(server: Server) -> float:
    """w2 xi_ser / (n tau)^2 in work units: E(f) = coef f^3 at equal rates over the slots."""
    return float(server.energy_weight * server.energy_coef) / server.slots**2


def _marginal(server: Server, f: float) -> float:
    """w1 + w2 E'(f): what a unit of work costs that is served in the block after it came, at f a block."""
    return float(server.queue_weight) + 3.0 * _energy_coef(server) * f**2


def _server_part(server: Server, discount: float, price: float) -> tuple[float, float]:
    """min over f in [0, F] of (w1 - lambda / gamma) f + w2 E(f), and its f."""
    gain, coef = price / discount - float(server.queue_weight), _energy_coef(server)
    f = min(float(np.sqrt(max(gain, 0.0) / (3.0 * coef))), float(server.slot_capacity) * server.slots)
    return coef * f**3 - gain * f, f
