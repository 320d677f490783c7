"""Q-learning with designed features: numbers by hand, least squares against its closed form, and what it achieves.

Whole runs are compared with plain loops in `test_reference.py`.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from partway.controllers import designed
from partway.controllers.base import ControllerPair, ServerView
from partway.controllers.designed import DesignedDevice, DesignedServer, LearnedState, Staircase, features
from partway.experiments.comparison import compare
from partway.experiments.summary import summarise
from partway.scenario.loading import load
from partway.simulation.rollout import rollout
from partway.system.placement import sample_placement
from partway.system.world import build

EVERY = [designed.SENT, designed.RADIO, designed.UNSENT, designed.BUSY, designed.SERVED, designed.LEFT, designed.NEXT]


def test_both_parties_have_the_papers_thirty_features():
    assert designed.MU.shape == (30, 3 + 1)
    assert designed.NU.shape == (30, 3 + 1)


@pytest.mark.usefixtures("float64")
def test_a_staircase_by_hand():
    """Steps from 0 to 2 and from 2 to 3 along x - 2 y: slopes 3/2 and 3, the middles at 1 and 2.5."""
    weights = Staircase.of((1, -2), (0, 2, 3)).weights()
    assert weights.tolist() == [[1.5, -3.0, -1.5], [3.0, -6.0, -7.5]]
    phi = features(weights, (jnp.asarray(5.0), jnp.asarray(1.5)))  # x - 2 y = 2
    assert np.asarray(phi) == pytest.approx(expit([1.5, -1.5]), rel=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("staircase", EVERY)
def test_the_parameters_of_a_staircase_are_the_rises_of_the_function(staircase: Staircase):
    """They telescope: what lies above 0 is counted once, and nothing below."""
    theta = np.asarray(staircase.following(lambda x: 2.0 * x + x**2, jnp.zeros(())))
    assert theta.shape == staircase.width.shape
    end = staircase.upper[-1]
    assert theta.sum() == pytest.approx(2.0 * end + end**2, rel=1e-12)


@pytest.mark.usefixtures("float64")
def test_equal_steps_add_up_to_a_line():
    """Between 2 and 9 tasks, where all steps are one wide: its slope is 1 within 5 %."""
    z = jnp.linspace(2.0, 9.0, 71)
    steps = designed.UNSENT
    phi = features(steps.weights(), (z, jnp.zeros(71), jnp.zeros(71)))
    staircase = np.asarray(steps.following(lambda x: x, jnp.zeros(())) @ phi)
    assert np.diff(staircase) == pytest.approx(np.diff(z), rel=0.05)


def state_of(theta: list[float], spread: list[float], block: float = 0.0) -> LearnedState:
    return LearnedState(jnp.array(theta), jnp.diag(jnp.array(spread)), jnp.asarray(block), jnp.asarray(jnp.inf))


@pytest.mark.usefixtures("float64")
def test_a_step_by_hand():
    """phi = (1/2, 1/2), theta = (1, 2): e = 3 + 0.5 x 1 - 1.5 = 2, P phi = (0, 1/2), g = (0, 1/2) / (1 + 1/4).

    theta_0 += 2 x 2 / (1 + 3) / (1 - 0.5) = 2, theta_1 += 2 x 0.4; P_11 = 1 - 0.4 x 0.5.
    """
    after, phi = jnp.array([4.0, 1.0, 6.0]), jnp.array([0.5, 0.5])
    state = state_of([1.0, 2.0], [0.0, 1.0], block=3.0)
    learned = DesignedServer().update(state, phi, jnp.asarray(3.0), after, jnp.asarray(0.5))
    assert np.asarray(learned.theta) == pytest.approx([3.0, 2.8], rel=1e-12)
    assert np.asarray(learned.spread).tolist() == [[0.0, 0.0], [0.0, pytest.approx(0.8, rel=1e-12)]]
    assert float(learned.block) == 4.0
    assert float(learned.relative_change) == pytest.approx(np.hypot(2.0, 0.8) / np.hypot(1.0, 2.0), rel=1e-12)


@pytest.mark.usefixtures("float64")
def test_without_a_future_the_steps_are_ridge_regression():
    """theta = theta_0 + (sum phi phi^T + P_0^-1)^-1 sum phi (y - theta_0 . phi), for P_0 = prior diag(width^2)."""
    rng, widths, first = np.random.default_rng(0), np.array([1.0, 0.5, 2.0]), np.array([1.0, -2.0, 0.5])
    rule = DesignedServer(prior=3.0)
    state = rule.first_state(jnp.array([0.0, *first]), np.array([0.0, *widths]))
    rows, costs = rng.random((40, 3)), rng.normal(size=40)
    for row, cost in zip(rows, costs, strict=True):
        phi = jnp.array([0.0, *row])  # the constant feature, which has steps of its own, is switched off
        state = rule.update(state, phi, jnp.asarray(cost), jnp.zeros(2), jnp.asarray(0.0))
    normal = rows.T @ rows + np.diag(1.0 / (3.0 * widths**2))
    expected = first + np.linalg.solve(normal, rows.T @ (costs - rows @ first))
    assert np.asarray(state.theta[1:]) == pytest.approx(expected, rel=1e-9)
    assert np.asarray(state.spread[1:, 1:]) == pytest.approx(np.linalg.inv(normal), rel=1e-9)


def test_the_least_value_is_chosen_whatever_its_sign():
    keys = jax.random.split(jax.random.key(0), 2)
    values = jnp.array([[3.0, -1.0], [-2.0, -1.5], [1.0, -3.0]])  # (choices, devices)
    state = LearnedState(jnp.zeros((30, 2)), jnp.zeros((30, 30, 2)), jnp.zeros(2), jnp.zeros(2))
    assert DesignedDevice(explore=0.0).choose(state, values, keys).tolist() == [1, 2]


def test_exploration_fades():
    """explore (1 + t)^-decay = 0.4 x 8^-1 at t = 7; of 6000 choices 5 % are one of four at random: five sigma."""
    rule, state = DesignedServer(explore=0.4, decay=1.0), state_of([0.0], [0.0], block=7.0)
    values = jnp.array([2.0, 1.0, 3.0, 4.0])
    keys = jax.random.split(jax.random.key(1), 6000)
    share = np.bincount(jax.vmap(lambda key: rule.choose(state, values, key))(keys), minlength=4) / 6000
    expected = np.array([0.0125, 0.9625, 0.0125, 0.0125])
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 6000)).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_server_serves_a_quarter_of_its_queue_whatever_it_has_learned(seed: int):
    """So its queue is at most four times what arrives in a block, while f_max is no limit."""
    world = build(load("paper", {"devices": 4}), sample_placement(load("paper", {"devices": 4})))
    server = jax.tree.map(jnp.asarray, world.server)
    view = ServerView(jnp.asarray(7.0), jnp.asarray(2.0), jnp.array([1.0, 0.0, 3.0, 2.0]))
    rule = DesignedServer()
    state = rule.init(server, view, jax.random.key(0))
    theta = jnp.asarray(np.random.default_rng(seed).normal(size=30), jnp.float32)
    action = rule.act(replace(state, theta=theta), server, view, jax.random.key(seed))
    assert 7.0 / 4 * 0.999 < float(action.service_per_slot.sum()) < 7.0 * 1.001
    assert np.ptp(np.asarray(action.service_per_slot)) == 0.0


@pytest.mark.slow
def test_it_is_stable_and_nearer_to_the_bound_than_its_start():
    """`prior = 0` plays the start, with which a device runs at once all that it does not send."""
    scenario = load("paper", {"devices": 4})
    late = {}
    for prior in (0.0, 1.0):
        changes = {"schemes.qlearning-designed.prior": prior}
        dataset = compare(
            scenario.model_dump(), overrides=changes, schemes=["qlearning-designed"], blocks=1600, seeds=3
        )
        (late[prior],) = summarise(dataset, None)
    assert late[1.0].reason is None
    assert late[1.0].gap.whole.high < 0.05 < late[0.0].gap.whole.low


@pytest.mark.slow
def test_p_stays_a_variance_in_single_precision():
    """In float32 rounding could make P negative somewhere, and a step would then go the wrong way."""
    scenario = load("paper", {"devices": 2})
    world = build(scenario, sample_placement(scenario))
    run = rollout(world, ControllerPair(DesignedDevice(), DesignedServer()), "long", [0], 20_000)
    device, server = run.carry.device_state.learned.spread[0], run.carry.server_state.spread[0]
    for spread in (*np.moveaxis(np.asarray(device, np.float64), -1, 0), np.asarray(server, np.float64)):
        assert np.linalg.eigvalsh((spread + spread.T) / 2).min() > -1e-4
