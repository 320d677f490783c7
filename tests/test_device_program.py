"""One device's exact program: two queues worked by hand, value iteration in NumPy, expectations from below and above.

The device by hand: Gamma 1 and a mean gain of 0.02, so that a quarter, half and all of a task take 1, 15, 63 W over the
gain, for 0.1 s: with w4 = 0.01 that costs 0.05, 0.75, 3.15 by x. A task run alone in a block costs 0.01 x 100 J = 1.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from partway.bound.device_program import Fading, Program, Solved, fading_above, fading_below, solve
from partway.dnn.cuts import Task
from partway.pytree import cast_floats
from partway.system.fading import Rayleigh
from partway.system.types import Device

SHARE, BITS = np.array([0.0, 0.25, 0.5, 1.0]), np.array([0.0, 1e5, 4e5, 6e5])
RADIO = np.array([0.0, 0.05, 0.75, 3.15])
"""w4 tau Gamma (2^(D / (tau B)) - 1) / mean gain: cost of a cut at 1/x = 1."""
NEEDED = np.array([0.0, 1.0, 15.0, 63.0]) / 0.02
"""Power of a cut at x = 1 [W]."""
STATES = 64


def device_of(slots: int = 3, feasible: bool = True, max_tasks: int = 2, **changes: float) -> Device:
    cuts: Any = Task(SHARE, BITS, np.array([True] + [feasible] * 3), np.array(False), np.array(6e5))  # pyright: ignore
    numbers = {
        "capacity": 1.6,
        "energy_coef": 100.0,
        "queue_weight": 0.8,
        "energy_weight": 0.01,
        "server_work": 1.5,
        "mean_gain": 0.02,
        "snr_gap": 1.0,
        "bandwidth_hz": 1e6,
        "slot_s": 0.1,
        "tx_power_max_w": np.inf,
        "discount": 0.95,
        "fleet_size": 1.0,
    }
    arrays: dict[str, Any] = {name: np.asarray(value, float) for name, value in (numbers | changes).items()}
    return Device(
        **arrays, task=cuts, slots=slots, max_tasks_per_block=max_tasks, queue="conserving", objective="average"
    )


def arrivals(slots: int, probability: float) -> np.ndarray:
    return stats.binom.pmf(np.arange(slots + 1), slots, probability)


def below(bins: int, merge: bool = True) -> Fading:
    """`fading_below` in float64."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, fading_below(Rayleigh(), bins, merge))


def above(bins: int) -> Fading:
    """`fading_above` in float64."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, fading_above(Rayleigh(), bins))


_solve = jax.jit(solve)


def solved(
    device: Device,
    arrive: np.ndarray,
    fading: Fading,
    discount: float,
    price: float,
    states: int = STATES,
    limited: bool = False,
) -> Solved:
    with jax.enable_x64(True):
        made: Any = Program(device, arrive, fading, np.asarray(discount), limited)  # pyright: ignore
        program = cast_floats(made, "float64")
        guess = program.device.queue_weight * jnp.arange(states) ** 2.0
        return jax.tree.map(np.asarray, _solve(program, jnp.float64(price), guess))


def points(loss: list[float], limit: list[float], weight: list[float]) -> Fading:
    return Fading(np.array(loss), np.array(limit), np.array(weight))  # pyright: ignore


# By hand

ALWAYS = points([1.0, 0.2], [np.inf, np.inf], [0.5, 0.5])


def test_a_device_that_runs_a_task_a_block_by_hand():
    """At most one task arrives per block (b = 0.4), one is run (cost 1), none can be sent; waiting a block costs 0.8.

    Waiting saves nothing, so g = b (w + 1). From m remaining tasks a block costs w (m + b) + 1 and one task is done:
    (1 - b) (U(m) - U(m - 1)) = w m + (1 - b), U(m) = m + w m (m + 1) / (2 (1 - b)).
    """
    found = solved(device_of(slots=1, feasible=False, capacity=1.0), arrivals(1, 0.4), ALWAYS, 1.0, 3.0)
    m = np.arange(STATES)
    assert found.part == pytest.approx(0.4 * 1.8, rel=1e-10)
    np.testing.assert_allclose(found.tables.value, m + 0.8 * m * (m + 1) / 1.2, rtol=1e-9)
    assert found.inflow == 0.0
    assert found.tail_probability == pytest.approx(0.0, abs=1e-12)


def test_the_same_device_discounted_by_hand():
    """From empty queues block 0 costs nothing and every later block b (w + 1): gamma / (1 - gamma) of it."""
    found = solved(device_of(slots=1, feasible=False, capacity=1.0), arrivals(1, 0.4), ALWAYS, 0.9, 3.0)
    assert found.part == pytest.approx(9.0 * 0.4 * 1.8, rel=1e-10)
    assert found.tables.value[0] == pytest.approx(10.0 * 0.4 * 1.8, rel=1e-10)


@pytest.mark.parametrize(("arrival_prob", "good"), [(0.2, 0.5), (0.4, 0.6)])
def test_a_device_that_waits_for_a_good_channel_by_hand(arrival_prob: float, good: float):
    """It can run nothing and send a task, at the price 2 x 1.5, when the channel is good; otherwise it has to wait.

    E[q'^2] = E[q^2] for q' = q - D + A gives the mean queue b (1 - b) / (p - b).
    """
    fading = points([0.0, 1.0], [np.inf, 0.0], [good, 1.0 - good])
    found = solved(device_of(slots=1, capacity=0.01, queue_weight=0.8), arrivals(1, arrival_prob), fading, 1.0, 2.0)
    assert found.part == pytest.approx(
        0.8 * arrival_prob * (1 - arrival_prob) / (good - arrival_prob) + arrival_prob * 3.0, rel=1e-9
    )
    assert found.inflow == pytest.approx(arrival_prob * 1.5, rel=1e-9)


def test_near_critical_load_the_program_is_solved_to_the_end():
    """Of 0.6 tasks that can be sent per block 0.59 arrive: the slope beyond the table is almost that of a longer one.

    In the table every residual of the Bellman equation is then the same; repeating the slope left differences.
    """
    fading = points([0.0, 1.0], [np.inf, 0.0], [0.6, 0.4])
    found = solved(device_of(slots=1, capacity=0.01, queue_weight=0.8), arrivals(1, 0.59), fading, 1.0, 2.0)
    assert found.tables.slope > 1000.0
    np.testing.assert_allclose(found.tables.surplus[:STATES], 0.0, atol=1e-9 * found.tables.value[-1])


# Value iteration

FAR = 100
"""Tasks at which the slow reference rejects new ones: beyond any queue length that matters."""


def costs_by_hand(device: Device, fading: Fading, price: float, most: int = 2) -> np.ndarray:
    """(j, point) what starting j = 0 .. most tasks costs."""
    cost = np.zeros((most + 1, len(fading.loss)))
    for i, (loss, limit) in enumerate(zip(fading.loss, fading.limit, strict=True)):
        for j in range(1, most + 1):
            totals = [
                0.01 * float(device.energy_coef) * (j - share) ** 3 + radio * loss + price * 1.5 * share
                for share, radio, needed in zip(SHARE, RADIO, NEEDED, strict=True)
                if j - share <= device.capacity and (share == 0 or needed <= device.tx_power_max_w * limit)
            ]
            cost[j, i] = min(totals, default=np.inf)
    return cost


def value_iteration(device: Device, arrive: np.ndarray, fading: Fading, discount: float, price: float):
    """(g, U), or (0, U) where discount < 1, U(m) for m = 0 .. FAR."""
    cost, weight, value, gain = costs_by_hand(device, fading, price), np.asarray(fading.weight), np.zeros(FAR + 1), 0.0
    for _ in range(5000):
        queue = np.empty(FAR + 1)
        for q in range(FAR + 1):
            totals = [cost[j] + discount * value[q - j] for j in range(min(q, 2) + 1)]
            queue[q] = device.queue_weight * q + np.min(totals, axis=0) @ weight
        after = sum(p * queue[np.minimum(np.arange(FAR + 1) + a, FAR)] for a, p in enumerate(arrive))
        gain = after[0] if discount == 1 else 0.0
        change, value = np.abs(after - gain - value)[:20].max(), after - gain
        if change < 1e-11:
            return gain, value
    raise AssertionError("value iteration has not settled")


CASES = [
    # price, discount, power limit [W], bins of the fading
    (0.0, 1.0, np.inf, 16),
    (1.3, 1.0, np.inf, 16),
    (0.6, 1.0, 1200.0, 8),
    (0.0, 0.9, np.inf, 16),
    (0.9, 0.9, 1200.0, 8),
]


@pytest.mark.parametrize(("price", "discount", "limit_w", "bins"), CASES)
def test_policy_iteration_agrees_with_value_iteration(price: float, discount: float, limit_w: float, bins: int):
    device, arrive = device_of(tx_power_max_w=limit_w), arrivals(3, 0.25)
    fading = below(bins, bool(np.isinf(limit_w)))
    found = solved(device, arrive, fading, discount, price)
    gain, value = value_iteration(device, arrive, fading, discount, price)
    assert found.tail_probability < 1e-12
    assert found.part == pytest.approx(gain if discount == 1 else discount * value[0], rel=1e-8)
    np.testing.assert_allclose(found.tables.value[:20], value[:20], rtol=1e-7, atol=1e-7)
    assert found.tables.certificate == pytest.approx(gain, abs=1e-8)
    assert found.tables.surplus.min() == 0.0


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_the_inflow_is_how_the_part_grows_with_the_price(discount: float):
    """Policies are finitely many, so the part is piecewise linear in the price."""
    device, arrive, fading = device_of(), arrivals(3, 0.25), below(16, True)
    low, mid, high = (solved(device, arrive, fading, discount, price) for price in (0.5, 0.5 + 1e-5, 0.5 + 2e-5))
    assert mid.inflow > 0.01
    slope = (high.part - low.part) / 2e-5 / discount * (1.0 if discount == 1 else 1.0 - discount)
    assert mid.inflow == pytest.approx(slope, rel=1e-4)


def test_a_longer_table_changes_nothing_where_its_end_is_not_reached():
    device, arrive, fading = device_of(), arrivals(3, 0.25), below(16, True)
    short, long = (solved(device, arrive, fading, 1.0, 0.7, states) for states in (32, STATES))
    assert short.part == pytest.approx(float(long.part), rel=1e-10)
    np.testing.assert_allclose(short.tables.value[:16], long.tables.value[:16], rtol=1e-8, atol=1e-9)


def test_an_overloaded_device_reaches_the_end_of_its_table_and_its_part_errs_downward():
    """2.7 tasks arrive per block, at most two leave: the longer the table, the more the queue costs."""
    parts = [solved(device_of(), arrivals(3, 0.9), below(16, True), 1.0, 0.7, states) for states in (32, STATES)]
    assert all(found.tail_probability > 0.1 for found in parts)
    assert 0.8 * 2.7 < parts[0].part < parts[1].part


@settings(max_examples=30)
@given(
    price=st.floats(0, 5),
    arrival_prob=st.floats(0.01, 0.3),
    discount=st.sampled_from([1.0, 0.9, 0.5]),
    capacity=st.floats(1.05, 2.0),
    waiting=st.floats(0.01, 10),
    gain=st.floats(-3, 1).map(lambda exponent: 10.0**exponent),
)
@example(price=1.0, arrival_prob=0.25, discount=1.0, capacity=2.0, waiting=0.0625, gain=1.0)
@example(price=1.0, arrival_prob=0.25, discount=0.9, capacity=2.0, waiting=0.25, gain=1.0)
def test_values_rise_and_are_convex(
    price: float, arrival_prob: float, discount: float, capacity: float, waiting: float, gain: float
):
    """Convex where policy iteration has settled, T U - U being constant; where no task is worth serving it may not."""
    device = device_of(capacity=capacity, queue_weight=waiting, mean_gain=gain)
    found = solved(device, arrivals(3, arrival_prob), below(16, True), discount, price)
    rises = np.diff(found.tables.value)
    assert (rises > 0).all()
    assume(found.tables.surplus[:STATES].max() < 1e-9 * rises.max())
    assert (np.diff(rises) >= -1e-9 * rises[1:].max()).all()
    assert found.tables.slope == pytest.approx(rises[-1], rel=1e-9)


def test_the_surplus_continues_linearly_beyond_its_table():
    """In a world whose table is too short: a longer one that continues with the same slope has the same surplus."""
    device, arrive, fading = device_of(), arrivals(3, 0.25), below(16, True)
    found = solved(device, arrive, fading, 1.0, 0.7)
    tables, cost, weight = found.tables, costs_by_hand(device, fading, 0.7), np.asarray(fading.weight)

    def value(m: int) -> float:
        return tables.value[m] if m < STATES else tables.value[-1] + tables.slope * (m - STATES + 1)

    def residual(m: int) -> float:
        """(T U - U)(m)"""
        total = 0.0
        for a, probability in enumerate(arrive):
            q = m + a
            best = np.min([cost[j] + value(q - j) for j in range(min(q, 2) + 1)], axis=0)
            total += probability * (0.8 * q + best @ weight)
        return total - value(m)

    for m in (0, 1, 7, STATES - 1, STATES, STATES + 1):
        assert residual(m) == pytest.approx(tables.certificate + tables.surplus[m], rel=1e-8)
    beyond = tables.surplus[-1] + tables.slope_of_surplus * 10
    assert len(tables.surplus) == STATES + 2
    assert residual(STATES + 11) == pytest.approx(tables.certificate + beyond, rel=1e-8)


# A CPU that can run more tasks than choices are computed for

FEW, ALL = 4, 10
"""Tasks up to which choices are computed, and those that the CPU can start."""


def both(joules: float, arrive: np.ndarray, discount: float, price: float) -> tuple[Device, Solved, Solved]:
    """The device with few choices, its program, and the exact one, with all choices."""
    few, all_ = (device_of(slots=3, max_tasks=most, capacity=9.0, energy_coef=joules) for most in (FEW, ALL))
    fading = below(8)
    return (
        few,
        solved(few, arrive, fading, discount, price, 32, limited=True),
        solved(all_, arrive, fading, discount, price, 32),
    )


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("joules", [1e-6, 0.1, 100.0])
def test_few_choices_are_enough_if_few_tasks_arrive(joules: float, discount: float):
    """At most three arrive. Energy that costs next to nothing, little, and as much as waiting."""
    _, few, exact = both(joules, arrivals(3, 0.4), discount, 0.7)
    assert few.many < 1e-6
    assert few.part == pytest.approx(float(exact.part), rel=1e-6)
    assert few.inflow == pytest.approx(float(exact.inflow), rel=1e-4)


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("joules", [1e-6, 0.1, 3.0, 100.0])
@pytest.mark.parametrize("price", [0.0, 2.0])
def test_few_choices_are_a_bound_from_below_for_more(joules: float, price: float, discount: float):
    """Eight tasks arrive in four blocks of ten. What few choices claim is below what the device with all pays."""
    arrive = np.append(0.6, np.append(np.zeros(7), 0.4))
    few_device, few, exact = both(joules, arrive, discount, price)
    assert few.part <= exact.part * (1 + 1e-9)
    assert few.many > 0.01 or joules == 100.0
    if joules in (0.1, 3.0):
        assert few.part < exact.part * (1 - 1e-3)
    tables, weight = few.tables, np.asarray(below(8).weight)
    cost = costs_by_hand(few_device, below(8), price, ALL)
    value = np.append(tables.value, tables.value[-1] + tables.slope * np.arange(1, 100))
    for m in range(90):
        least = np.zeros(len(weight))
        for a, probability in enumerate(arrive):
            choices = [cost[j] + discount * value[m + a - j] for j in range(min(m + a, ALL) + 1)]
            least += probability * (0.8 * (m + a) + np.min(choices, axis=0))
        residual = least @ weight - value[m]
        assert residual >= tables.certificate - 1e-9 * value[m], m


# Expectations over the fading


@pytest.mark.parametrize("bins", [8, 64, 256])
@pytest.mark.parametrize("merge", [True, False])
def test_the_expectation_from_below_keeps_probability_and_the_mean_radio_loss(bins: int, merge: bool):
    """E[1/x] over x > x_1 is E1(x_1); the worst channels are held at 1 / x_1."""
    fading = below(bins, merge)
    first = 1.0 / fading.loss.max()
    assert (fading.weight >= 0).all()
    assert fading.weight.sum() == pytest.approx(1.0, rel=1e-12)
    wanted = special.exp1(first) - np.expm1(-first) / first
    assert fading.weight @ fading.loss == pytest.approx(wanted, rel=1e-5)


def test_the_expectation_from_above_keeps_probability_and_the_mean_radio_loss():
    fading = above(64)
    assert fading.weight.sum() == pytest.approx(1.0, rel=1e-6)
    assert fading.weight[1:] @ fading.loss[1:] == pytest.approx(special.exp1(fading.limit[1]), rel=1e-5)


Lines = list[tuple[float, float, float]]
"""(cost, radio cost at 1/x = 1, least x at which the radio can do it); the first one sends nothing."""


def over(fading: Fading, lines: Lines) -> float:
    """The expectation of the least cost, as the program takes it."""
    loss, limit, weight = (np.asarray(leaf) for leaf in (fading.loss, fading.limit, fading.weight))
    costs = [
        np.where((limit >= least) & ((slope == 0) | (limit > 0)), a + slope * loss, np.inf) for a, slope, least in lines
    ]
    return float(np.min(costs, axis=0) @ weight)


def exactly(lines: Lines) -> float:
    """The integral, between the points where another line becomes the least or affordable."""

    def least_cost(x: float) -> float:
        return min(a + slope / x for a, slope, least in lines if x >= least) * np.exp(-x)

    meet = [(s - r) / (a - b) for a, r, _ in lines for b, s, _ in lines if a != b and (s - r) / (a - b) > 0]
    ends = np.unique(np.clip([0.0, 40.0, 1e-4, 1e-2, 1.0, *meet, *(least for *_, least in lines)], 0.0, 40.0))
    pieces = itertools.pairwise(ends)
    return sum(
        integrate.quad(least_cost, low, high, epsabs=1e-12, epsrel=1e-10)[0] for low, high in pieces if high > low
    )


@st.composite
def lines_of(draw: st.DrawFn, limited: bool) -> Lines:
    """One line that sends nothing, and up to four that save something; a limit on power rises with the bits."""
    count = draw(st.integers(1, 4))
    slopes = np.sort([10.0 ** draw(st.floats(-4, 1)) for _ in range(count)])
    saved = [draw(st.floats(0.01, 1)) for _ in range(count)]
    least = slopes * 10.0 ** draw(st.floats(-2, 1)) if limited else np.zeros(count)
    return [(1.0, 0.0, 0.0), *((1.0 - s, float(r), float(x)) for s, r, x in zip(saved, slopes, least, strict=True))]


@settings(max_examples=40)
@given(lines_of(limited=False))
def test_the_expectation_is_between_below_and_above(lines: Lines):
    wanted = exactly(lines)
    low = [over(below(bins, True), lines) for bins in (16, 64, 256)]
    high = [over(above(bins), lines) for bins in (16, 64, 256)]
    assert max(low) <= wanted + 1e-9
    assert min(high) >= wanted - 1e-9
    assert high[0] - low[0] >= high[2] - low[2] - 1e-12
    assert wanted - low[2] < 1e-3 * wanted


@settings(max_examples=40)
@given(lines_of(limited=True))
def test_the_expectation_is_between_below_and_above_where_power_is_limited(lines: Lines):
    """A cut that all of an interval but its better end cannot afford counts as affordable below, and not above."""
    wanted = exactly(lines)
    low = [over(below(bins, False), lines) for bins in (16, 64, 256)]
    high = [over(above(bins), lines) for bins in (16, 64, 256)]
    assert max(low) <= wanted + 1e-9
    assert min(high) >= wanted - 1e-9
    assert high[2] - low[2] <= max(high[0] - low[0], 1e-3)  # a limit may fall within a fine interval by chance
    assert wanted - low[2] < 0.05


def test_merged_points_are_the_same_expectation():
    """Where all cuts can always be afforded, both forms hold the same nodes."""
    lines: Lines = [(1.0, 0.0, 0.0), (0.4, 0.05, 0.0), (0.1, 0.5, 0.0)]
    assert over(below(64, True), lines) == pytest.approx(over(below(64, False), lines), rel=1e-12)


def test_a_programs_part_is_between_below_and_above_and_closer_with_more_bins():
    """Average cost, with a limit on power."""
    device, arrive = device_of(tx_power_max_w=1200.0), arrivals(3, 0.25)
    low = [float(solved(device, arrive, below(bins, False), 1.0, 0.6).part) for bins in (8, 64)]
    high = [float(solved(device, arrive, above(bins), 1.0, 0.6).part) for bins in (8, 64)]
    assert max(low) < min(high)
    assert high[1] - low[1] < 0.3 * (high[0] - low[0])
