"""The exact dynamic program of one device that pays a price for what it sends, in float64.

    (T U)(m) = E_A E_h [ w3 W (m + A) + min_j ( c(j; h, lambda) + gamma U(m + A - j) ) ]

U(m) is the value of m tasks that remain after the decision (gamma = 1: relative, for the average cost), A the arrivals
of a block, c the cost of starting j tasks at the best cut (`partway.system.stage_cost`). Solved by policy iteration;
the approximation of the expectation over the fading lowers it. For any U, min_m (T U - U)(m) is a certificate
(docs/bound.md, section 3).
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.bound.certificate import Tables
from partway.program_cache import kept_jit
from partway.pytree import host_array, record
from partway.system.equations import affordable_bits
from partway.system.processes import Law
from partway.system.stage_cost import Choices, exact_choices
from partway.system.types import ROUNDING, Device

MAX_ROUNDS = 60
"""Improvements of a policy at most; usually fewer than ten are needed."""


@record
class Fading:
    """Points over which an expectation over the gain h = (mean gain) x is taken; the same for all devices.

    loss (points,) 1/x     limit (points,) the x that decides which cuts are affordable     weight (points,)
    """

    loss: jax.Array
    limit: jax.Array
    weight: jax.Array


def fading_below(law: Law, bins: int, merge: bool) -> Fading:
    """An expectation from below, over `bins` + 1 intervals of x: by chords (docs/bound.md, section 5).

    For a fixed cut the cost is linear in v = 1/x, so the minimum over a fixed set of cuts is concave in v and above its
    chords. An interval allows the cuts that are affordable at its better end, so both its ends are points of their own;
    with `merge` they are not, for a device that can always afford all cuts. The worst channels, where E[1/x] is
    infinite, are held at their better end.
    """
    x, p, m = _intervals(law, bins)
    v = np.append(1.0 / x, 0.0)
    worse = (m - p * v[1:]) / (v[:-1] - v[1:])
    better = np.append(law.probability_below(x[0]), p - worse)
    if merge:
        return _fading(v, np.full_like(v, np.inf), better + np.append(worse, 0.0))
    limit = np.append(x, np.inf)
    return _fading(np.append(v, v[:-1]), np.append(limit, limit[1:]), np.append(better, worse))


def fading_above(law: Law, bins: int) -> Fading:
    """The same from above: a device that knows only the interval, and uses the cuts that are affordable throughout."""
    x, p, m = _intervals(law, bins)
    loss = np.append(1.0 / x[0], m / p)  # nothing is affordable in the first interval
    return _fading(loss, np.append(0.0, x), np.append(law.probability_below(x[0]), p))


def _fading(loss: np.ndarray, limit: np.ndarray, weight: np.ndarray) -> Fading:
    return Fading(host_array(loss), host_array(limit), host_array(weight))


def _intervals(law: Law, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes x (bins,), and of the interval above each its probability p and m = E[1/x; interval]; the last one is open.

    Half the nodes are even in log x, because costs bend most where channels are bad, half in probability. Their range,
    1e-4 to 30, is chosen for Exp(1); another law may need another one for the bound to be as tight.
    """
    count = bins // 2
    x = np.append(np.geomspace(1e-4, 30.0, bins - count), law.quantile((np.arange(count) + 0.5) / count))
    x = np.unique(x)
    x = x[law.interval_probabilities(x) > 0]  # an interval in which no gain lies belongs to the one below
    return x, law.interval_probabilities(x), law.interval_losses(x)


@record
class Solved:
    """One device's program at a price.

    part              its part of the bound
    inflow            mean work that its best policy sends per block [mean tasks]
    tail_probability  of the table's last state under that policy
    many              probability of a block in which it starts more than max_tasks_per_block tasks
    """

    tables: Tables
    part: jax.Array
    inflow: jax.Array
    tail_probability: jax.Array
    many: jax.Array


@record
class Program:
    """What defines a device's program.

    arrive    (n + 1,) probabilities of 0..n arrivals in a block
    discount  gamma, 1 for the average cost
    limited   whether CPUs may be able to run more tasks in a block than max_tasks_per_block, up to which choices are
              computed. What more tasks would cost is then bounded from below (docs/bound.md, section 3)
    """

    device: Device
    arrive: jax.Array
    fading: Fading
    discount: jax.Array
    limited: bool = False


def _runs_more(device: Device) -> jax.Array:
    """Whether the CPU can run more tasks in a block than max_tasks_per_block, with the last one cut."""
    return device.capacity + ROUNDING >= device.max_tasks_per_block


def _least_increase(device: Device) -> jax.Array:
    """3 w4 xi W^3 / (n tau)^2 (M - 1)^2, M = max_tasks_per_block: every task started beyond M costs at least that."""
    return 3.0 * device.energy_weight * device.energy_coef * (device.max_tasks_per_block - 1.0) ** 2


@record
class Many:
    """Starting more than M tasks, from below: for every q its cost beyond c(M), with the future, and the tasks left."""

    cost: jax.Array
    left: jax.Array


def _many(device: Device, future: jax.Array) -> Many:
    """min over r <= q - M - 1 of (q - r - M) times the least increase + future(r), r tasks being left.

    The cost is infinite for q <= M, and for a CPU that cannot run so many. `future` (q,) is gamma U.
    """
    limit, increase = device.max_tasks_per_block, _least_increase(device)
    q = jnp.arange(len(future))
    tilted = future - increase * q
    least = jax.lax.cummin(tilted)
    where = jax.lax.cummax(jnp.where(tilted <= least, q, 0))
    most_left = jnp.maximum(q - limit - 1, 0)
    cost = jnp.where((q > limit) & _runs_more(device), increase * (q - limit) + least[most_left], jnp.inf)
    return Many(cost, where[most_left])


def _extended(value: jax.Array, slope: jax.Array, length: int) -> jax.Array:
    """U on 0..length-1: the table, then its linear continuation."""
    beyond = jnp.arange(1, length - value.shape[0] + 1, dtype=value.dtype)
    return jnp.concatenate([value, value[-1] + slope * beyond])


def _point_choices(program: Program, price: jax.Array) -> Choices:
    """c(j) at every point of the fading, (points, max_tasks_per_block + 1)."""
    device, fading = program.device, program.fading

    def at(loss: jax.Array, limit: jax.Array) -> Choices:
        bits = affordable_bits(device, jnp.maximum(limit, 1e-30) * device.mean_gain, device.tx_power_max_w)
        return exact_choices(device, loss / device.mean_gain, jnp.where(limit > 0, bits, 0.0), price)

    return jax.vmap(at)(fading.loss, fading.limit)


@record
class Greedy:
    """The best choice at every queue length and fading point for some U.

    best     (q,) its value, mean over the fading
    chosen   (q, choices) probability of each choice: 0..max_tasks_per_block tasks, and more where CPUs can run more
    left     (q, choices) tasks that remain after it
    sent     (q,) mean fraction of a task that is offloaded
    """

    best: jax.Array
    chosen: jax.Array
    left: jax.Array
    sent: jax.Array


def _greedy(program: Program, choices: Choices, future: jax.Array) -> Greedy:
    """The best choices; `future` (q,) is gamma U of every number of remaining tasks."""
    queues, weight = future.shape[0], program.fading.weight
    points = weight.shape[0]
    numbers = jnp.arange(choices.cost.shape[1], dtype=jnp.int32)
    padded = jnp.concatenate([jnp.full(len(numbers) - 1, jnp.inf), future])

    count = jnp.minimum(program.device.capacity + ROUNDING, len(numbers) - 2).astype(jnp.int32) + 2

    def better(j: jax.Array, before: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        best, chosen = before
        future_of_rest = jax.lax.dynamic_slice(padded, (len(numbers) - 1 - j,), (queues,))
        value = future_of_rest[:, None] + choices.cost[:, j]
        return jnp.minimum(best, value), jnp.where(value < best, j, chosen)

    start = jnp.full((queues, points), jnp.inf), jnp.zeros((queues, points), jnp.int32)
    best, chosen = jax.lax.fori_loop(0, count, better, start)
    left = jnp.maximum(jnp.arange(queues)[:, None] - numbers, 0)
    many = _many(program.device, future) if program.limited else None
    if many is not None:
        value = many.cost[:, None] + choices.cost[:, -1]
        best, chosen = jnp.minimum(best, value), jnp.where(value < best, len(numbers), chosen)

    def shares(j: jax.Array, before: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        started, sent = before
        mine = jnp.where(chosen == j, weight, 0.0)
        return started.at[:, j].set(jnp.sum(mine, axis=1)), sent + mine @ choices.offload[:, j]

    empty = jnp.zeros((queues, len(numbers))), jnp.zeros(queues)
    started, sent = jax.lax.fori_loop(0, count, shares, empty)
    if many is not None:
        mine = jnp.where(chosen == len(numbers), weight, 0.0)
        started = jnp.concatenate([started, jnp.sum(mine, axis=1)[:, None]], axis=1)
        left = jnp.concatenate([left, many.left[:, None]], axis=1)
        sent = sent + mine @ choices.offload[:, -1]
    return Greedy(best @ weight, started, left, sent)


def _over_arrivals(arrive: jax.Array, function: jax.Array) -> jax.Array:
    """(m,) E function(m + A), for every m with m + n in the table of `function`."""
    return jnp.convolve(function, arrive[::-1], mode="valid")


def _evaluated(program: Program, greedy: Greedy, future: jax.Array, steepest: jax.Array, states: int) -> jax.Array:
    """(states + 1, 3 or 4) the values of a fixed policy: of cost, inflow, visits of the last state, many tasks started.

    The last row is the mean per block (average cost only). States beyond the table have the value of its last one, and
    for each task more its last increase, which is from 0 to `steepest`.
    """
    arrive, discount = program.arrive, program.discount
    m = jnp.arange(states)[:, None]
    q = m + jnp.arange(arrive.shape[0])
    probability, left = arrive[:, None] * greedy.chosen[q], greedy.left[q]
    transitions = jnp.zeros((states, states)).at[m[..., None], jnp.minimum(left, states - 1)].add(probability)
    queue = jnp.arange(len(future))
    future_of_rest = jnp.sum(greedy.chosen * future[greedy.left], axis=1)
    paid = _over_arrivals(arrive, program.device.queue_weight * queue + greedy.best - future_of_rest)[:states]
    beyond = discount * jnp.sum(probability * jnp.maximum(left - states + 1, 0), axis=(1, 2))
    sent = program.device.server_work * _over_arrivals(arrive, greedy.sent)[:states]
    last = jnp.zeros(states).at[-1].set(1.0)
    many = [_over_arrivals(arrive, greedy.chosen[:, -1])[:states]] if program.limited else []
    values = _values(transitions, jnp.stack([paid, sent, last, *many, beyond], axis=1), discount)
    return (
        values[:, :-1].at[:, 0].add(_last_increase(values[:states, 0], values[:states, -1], steepest) * values[:, -1])
    )


def _last_increase(cost: jax.Array, beyond: jax.Array, steepest: jax.Array) -> jax.Array:
    """The slope s that the value `cost` + s `beyond` has at the end of its table: s = rise + ratio s, up to `steepest`.

    Near critical load the ratio is almost 1: repeating s <- rise + ratio s, a step for each policy, takes hundreds.
    """
    rise, ratio = cost[-1] - cost[-2], beyond[-1] - beyond[-2]
    slope = jnp.where(ratio < 1.0, rise / jnp.where(ratio < 1.0, 1.0 - ratio, 1.0), jnp.inf)
    return jnp.clip(slope, 0.0, steepest)


def _values(transitions: jax.Array, per_block: jax.Array, discount: jax.Array) -> jax.Array:
    """(states + 1, ...) values of each column of `per_block`, relative to state 0 where gamma is 1, then its mean."""
    states = transitions.shape[0]
    bare = jnp.eye(states) - discount * transitions
    relative = jnp.where(discount < 1, bare, bare.at[:, 0].set(1.0))
    values = jnp.linalg.solve(relative, per_block)
    mean = jnp.where(discount < 1, 0.0, values[0])
    return jnp.concatenate([jnp.where(discount < 1, values, values.at[0].set(0.0)), mean[None]])


def _steep_enough(choices: Choices, guess: jax.Array) -> jax.Array:
    """The guess, tilted until its best policy starts a task at least on the best channel.

    Without arrivals a policy that never starts one has no finite values.
    """
    least = jnp.min(choices.cost[:, 1])
    missing = 1.01 * jnp.where(jnp.isfinite(least), least, 0.0) - (guess[1] - guess[0])
    return guess + jnp.maximum(missing, 0.0) * jnp.arange(guess.shape[0])


def solve(program: Program, price: jax.Array, guess: jax.Array) -> Solved:
    """The exact program of one device by policy iteration from the value table `guess` (states,)."""
    states, max_tasks, slots = guess.shape[0], program.device.max_tasks_per_block, program.arrive.shape[0] - 1
    choices, discount = _point_choices(program, price), program.discount
    steepest = program.device.queue_weight / jnp.where(discount < 1, 1.0 - discount, 1e-9)
    if program.limited:
        limit = program.device.queue_weight + _least_increase(program.device)
        steepest = jnp.where(_runs_more(program.device), jnp.minimum(steepest, limit), steepest)

    def slope_of(value: jax.Array) -> jax.Array:
        return jnp.clip(value[-1] - value[-2], 0.0, steepest)

    def improve(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        value, _, _, rounds = carry
        future = discount * _extended(value, slope_of(value), states + slots)
        values = _evaluated(program, _greedy(program, choices, future), future, steepest, states)
        change = jnp.max(jnp.abs(values[:-1, 0] - value)) / jnp.max(jnp.abs(values[:-1, 0]))
        return values[:-1, 0], values[jnp.where(discount < 1, 0, -1), 1:], change, rounds + 1

    def unsettled(carry: tuple[jax.Array, ...]) -> jax.Array:
        return (carry[2] > 1e-11) & (carry[3] < MAX_ROUNDS)

    first = (_steep_enough(choices, guess), jnp.zeros(3 if program.limited else 2), jnp.array(jnp.inf), jnp.array(0))
    value, means, _, _ = jax.lax.while_loop(unsettled, improve, first)
    slope = slope_of(value)
    future = discount * _extended(value, slope, states + max_tasks + slots)
    queue = program.device.queue_weight * jnp.arange(len(future))
    after = _over_arrivals(program.arrive, queue + _greedy(program, choices, future).best)
    residual = after - _extended(value, slope, states + max_tasks)
    inflow, tail_probability, *many = means * jnp.where(discount < 1, 1.0 - discount, 1.0)
    certificate = jnp.min(residual)
    part = jnp.where(
        discount < 1, discount * (value[0] + certificate / (1.0 - jnp.minimum(discount, 1 - 1e-9))), certificate
    )
    tables = Tables(value, slope, residual - certificate, residual[-1] - residual[-2], certificate)
    if program.limited:
        cost = _many(program.device, future).cost
        rise = jnp.where(_runs_more(program.device), cost[-1] - cost[-2], 0.0)
        tables = replace(tables, many=cost, slope_of_many=rise)
    return Solved(tables, part, inflow, tail_probability, many[0] if many else jnp.zeros(()))


@kept_jit()
def solve_fleet(programs: Program, price: jax.Array, guess: jax.Array) -> Solved:
    """`solve` for every device, one after another, each with as many rounds as it needs; the device axis is first."""
    return jax.lax.map(lambda one: solve(one[0], price, one[1]), (programs, guess))
