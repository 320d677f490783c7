"""The joint optimum of tiny systems: the yardstick itself, the bound below it, policies above it, Theorem 1."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from joint import (
    Grid,
    Joint,
    alone,
    finite_bound,
    first_guess,
    joint,
    learned,
    no_server,
    optimum,
    play,
    points_of,
    steady,
    sweep,
    tiny,
)
from scipy.optimize import fminbound

from partway.bound import lower_bound as bounds
from partway.bound.lower_bound import Bound
from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Steady
from partway.controllers.postdecision import Oracle, PostDecision, Priced
from partway.controllers.price import PostDecisionServer
from partway.measurement.metrics import BlockMetrics
from partway.system.world import World

GAINS = points_of(3)
ENERGY_COSTS = (0.1, 0.5, 2.5, 10.0)
"""w2 E(K tasks) / K, from cheap to expensive server energy; a task that a device runs costs 1."""


def grid(devices: int, steps: int = 8, tasks: int = 6) -> Grid:
    return Grid(GAINS, tasks, 2.0 * devices + 1.0, steps)


@cache
def known(devices: int, energy_cost: float, **overrides: float) -> tuple[World, Joint, Bound]:
    world = tiny(devices, energy_cost, **overrides)
    return world, joint(world, grid(devices)), finite_bound(world, GAINS)


@cache
def best(devices: int, energy_cost: float) -> float:
    return optimum(known(devices, energy_cost)[1])


# The yardstick


def test_a_sweep_is_the_minimum_over_all_joint_actions():
    """(12) as printed, state by state and action by action, for two devices that differ."""
    world = tiny(2, 0.5)
    devices = replace(world.devices, mean_gain=np.array([0.05, 0.2]), energy_weight=np.array([2.5e-3, 1e-3]))
    system = joint(replace(world, devices=devices), Grid(points_of(2), 4, 2.0, 2))
    value = first_guess(system) + np.random.default_rng(0).uniform(0.0, 3.0, first_guess(system).shape)
    found, (one, two) = sweep(system, value, 0.9), system.parties
    last, halves = len(system.wait) - 1, system.half
    assert found.shape == (3, 3, 5)

    def cheapest(q: tuple[int, int], h: tuple[int, int], y: int) -> float:
        least = np.inf
        for a, b, f in itertools.product(range(len(one.sent)), range(len(two.sent)), range(len(system.effort[0]))):
            cost = one.cost[q[0], h[0], a] + two.cost[q[1], h[1], b] + system.effort[y, f]
            after = y - f + (one.sent[a] + two.sent[b]) * halves
            if np.isfinite(cost) and after <= last:
                least = min(least, cost + 0.9 * value[one.remaining[q[0], a], two.remaining[q[1], b], after])
        return least

    for m, n, y in ((0, 0, 0), (2, 1, 3), (1, 2, 4), (2, 2, 1)):
        expected = y / 2  # w1 z, in steps of half a task
        for arrived in itertools.product(range(3), range(3)):  # two slots with b = 0.4
            probability = np.prod([(0.36, 0.48, 0.16)[count] for count in arrived])
            q = (m + arrived[0], n + arrived[1])
            mean = np.mean([cheapest(q, h, y) for h in itertools.product(range(2), range(2))])
            expected += probability * (sum(q) + mean)
        assert found[m, n, y] == pytest.approx(expected, rel=1e-8)


def test_choices_by_hand():
    """Of two tasks one is run, half the other sent: 1.5^3 + 2.5e-3 x 0.25 x 1.5 / (0.05 x) x (2^2 - 1), x = ln 6."""
    system = known(1, 0.5)[1]
    (device,) = system.parties
    number = {(4 - int(device.remaining[4, a]), int(device.sent[a])): a for a in range(len(device.sent))}
    assert device.cost[2, 0, number[2, 1]] == pytest.approx(3.375 + 0.05625 / np.log(6), rel=1e-8)
    assert device.cost[2, 0, number[0, 0]] == 0.0
    assert np.isinf(device.cost[0, 0, 1:]).all()  # nothing can be started where nothing waits
    assert system.effort[8, 8] == pytest.approx(0.5, rel=1e-9)
    assert np.isinf(system.effort[8, 9])
    assert np.sum(np.isfinite(system.effort[-1])) == 17  # F is two tasks


def test_the_end_of_the_tables_and_the_steps_of_service_do_not_matter():
    for tables in (grid(1, tasks=9), replace(grid(1), work=6.0), grid(1, steps=32)):
        assert optimum(joint(known(1, 2.5)[0], tables)) == pytest.approx(best(1, 2.5), rel=1e-3)
    assert optimum(joint(known(1, 2.5)[0], grid(1, steps=2))) > 1.005 * best(1, 2.5)  # this coarse it does


def mean_cost(metrics: BlockMetrics) -> tuple[float, float]:
    """Mean over the last three quarters, and five standard errors of it over seeds."""
    late = metrics.cost()[:, metrics.backlog.shape[1] // 4 :].mean(axis=1)
    return float(late.mean()), 5.0 * float(late.std(ddof=1)) / len(late) ** 0.5


def test_it_is_the_world_that_partway_simulates():
    """Selfish devices and a server that does 3/4 of a task a block: evaluated here, simulated there."""
    world = known(1, 2.5)[0]
    system = joint(world, replace(grid(1), work=10.0))
    certificate = finite_bound(world, GAINS, price=0.0).certificate
    pair = ControllerPair(Oracle(certificate=certificate), Steady(speed=0.375))
    played, error = mean_cost(play(world, pair, GAINS, range(400), 1000))
    assert error < 0.01 * played
    assert played == pytest.approx(optimum(steady(alone(system, 0.0), 6)), abs=error)
    for price, steps in ((0.0, 8), (2.0, 6)):  # a faster server and a price on cuts make another world
        assert abs(played - optimum(steady(alone(system, price), steps))) > 2 * error


# The bound


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("energy_cost", ENERGY_COSTS)
def test_the_bound_is_below_the_optimum(devices: int, energy_cost: float):
    """And not far: 15 % or less at one device, 9 % at two."""
    floor = known(devices, energy_cost)[2].value
    assert floor <= best(devices, energy_cost) * (1 + 1e-6)
    assert floor > best(devices, energy_cost) / (1.15, 1.09)[devices - 1]


@pytest.mark.parametrize("energy_cost", ENERGY_COSTS)
def test_the_slack_falls_with_the_number_of_devices(energy_cost: float):
    """0.9, 4.4, 11, 15 % at one device; 0.4, 1.6, 4.4, 8.7 % at two."""
    one, two = (best(k, energy_cost) / known(k, energy_cost)[2].value - 1 for k in (1, 2))
    assert 0.004 < two < 0.65 * one


@pytest.mark.parametrize("discount", [0.8, 0.95])
def test_the_discounted_bound_is_below_the_discounted_optimum(discount: float):
    _, system, found = known(1, 2.5, objective="discounted", discount=discount)
    least = optimum(system, discount)
    assert found.objective == "discounted"
    assert found.value <= least * (1 + 1e-6)
    assert found.value > 0.85 * least


def test_the_bound_is_the_largest_of_its_formula():
    """The devices' part by value iteration, the server's and the maximum over lambda by search, all apart from it."""
    _, system, found = known(1, 2.5)

    def where_least(function: Callable[[float], float], most: float) -> float:
        return np.asarray(fminbound(function, 0.0, most, xtol=1e-9)).item()

    def dual(price: float) -> float:
        def server(f: float) -> float:
            return (1 - price) * f + 2.5 * f**3

        return optimum(no_server(system, price), tolerance=1e-10) + server(where_least(server, 2.0))

    largest = dual(where_least(lambda price: -dual(price), 5.0))
    assert largest == pytest.approx(found.value, rel=1e-5)
    assert found.value <= largest * (1 + 1e-6)
    assert dual(float(found.certificate.price)) == pytest.approx(found.value, rel=1e-8)


def test_beyond_its_cap_the_discounted_formula_is_no_bound(monkeypatch: pytest.MonkeyPatch):
    """lambda <= w1 gamma / (1 - gamma) = 1 at gamma = 0.5: where server energy is very expensive the formula is largest
    beyond it.

    There it says 1.52, which a policy undercuts by 5 %.
    """
    world, system, found = known(1, 100.0, objective="discounted", discount=0.5)
    least = optimum(system, 0.5)
    assert float(found.certificate.price) == pytest.approx(1.0, rel=1e-12)
    assert 0.98 * least < found.value <= least
    monkeypatch.setattr(bounds, "price_cap", lambda *_: np.inf)
    assert finite_bound(world, GAINS, price=1.75).value > 1.05 * least


# Theorem 1, and policies


@pytest.mark.parametrize("devices", [1, 2])
def test_theorem_1_is_false(devices: int):
    """Trap T4: devices that each do their best, and then the best server there is for them, which sees everything.

    0.6, 7.7 and 41 % above the optimum at one device.
    """
    losses = [
        optimum(alone(known(devices, energy_cost)[1], 0.0)) / best(devices, energy_cost) - 1
        for energy_cost in (0.5, 2.5, 10.0)
    ]
    assert losses[0] > 0.005
    assert losses[1] > 0.07
    assert losses[2] > 0.35


@pytest.mark.parametrize(("discount", "loss"), [(0.9, 0.29), (0.95, 0.35), (0.99, 0.38)])
def test_theorem_1_is_false_for_the_discounted_sum(discount: float, loss: float):
    """As the theorem states it: the sum of (9a), from empty queues, for one device and expensive server energy."""
    system = known(1, 10.0)[1]
    least = optimum(system, discount)
    assert optimum(alone(system, 0.0, discount), discount) / least - 1 == pytest.approx(loss, abs=0.006)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("energy_cost", [0.5, 2.5, 10.0])
def test_one_price_regains_most_of_it(devices: int, energy_cost: float):
    """The same devices at the bound's price: never below the optimum, at most 3 % above it, and better than at 0."""
    _, system, found = known(devices, energy_cost)
    priced = optimum(alone(system, float(found.certificate.price)))
    assert best(devices, energy_cost) * (1 - 1e-6) <= priced < 1.03 * best(devices, energy_cost)
    assert priced < optimum(alone(system, 0.0))


@pytest.mark.parametrize(
    ("devices", "energy_cost"),
    [
        pytest.param(*case, marks=() if case == (2, 2.5) else pytest.mark.slow)
        for case in itertools.product((1, 2), ENERGY_COSTS)
    ],
)
def test_priced_is_between_the_optimum_and_a_twentieth_more(devices: int, energy_cost: float):
    """Bound <= optimum <= `priced`, from cheap to expensive server energy."""
    (world, _, found), least = known(devices, energy_cost), best(devices, energy_cost)
    priced, error = learned(world, found, GAINS, ControllerPair(Priced(), PostDecisionServer()))
    assert error < 0.025 * priced
    assert found.value < least * (1 - 2e-3) <= priced + error
    assert priced - error < 1.05 * least


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_decoupled_loses_what_exact_selfish_devices_lose_or_more(devices: int):
    """41 % with one device and expensive server energy: not even the best server compensates for selfish devices."""
    (world, system, found), least = known(devices, 10.0), best(devices, 10.0)
    decoupled, error = learned(world, found, GAINS, ControllerPair(PostDecision(), PostDecisionServer()))
    assert error < 0.025 * decoupled
    assert decoupled + error >= optimum(alone(system, 0.0)) * (1 - 2e-3)
    assert decoupled - error > 1.3 * least
