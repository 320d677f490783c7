"""How controllers learn: finite differences, targets by hand, the stopping rule, worlds with a known optimum."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Play
from scipy.special import expit, logit

from partway.controllers.base import ControllerPair, DeviceView, ServerView, server_action
from partway.controllers.baselines import Constant, Steady
from partway.controllers.features import ServerWeights, device_features, half_power, server_features
from partway.controllers.parametric import Algorithm1, Algorithm2, Algorithm2State, LearnerState, step_size
from partway.controllers.qlearning import POWERS, SPEEDS, QLearningDevice, QLearningServer, QServerState, QState
from partway.experiments import preparation
from partway.experiments.preparation import HELD_OUT_SEEDS, TUNING_BLOCKS, tune_constant
from partway.scenario.loading import load
from partway.schemes import SCHEMES
from partway.simulation.rollout import rollout
from partway.system.placement import Placement
from partway.system.signalling import no_broadcast
from partway.system.types import Device, DeviceAction
from partway.system.world import World, build

GAIN = 3e3
"""Mean gain of the devices worked by hand: a whole task takes 0.5115 W, half a task 1.5 / 3e3 x 31 = 0.0155 W."""
HALF = 0.0155


def paper_world(queue: str = "conserving") -> World:
    return build(load("paper", {"devices": 4, "queue": queue}), Placement(np.full(4, 100.0), np.full(4, GAIN)))


def first_device(world: World) -> Device:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[..., 0]), world.devices)


def view_of(q: float, gain: float, arrivals: list[float]) -> DeviceView:
    nothing = jax.tree.map(lambda leaf: leaf.reshape(()), no_broadcast(1, float))
    return DeviceView(jnp.asarray(q, float), jnp.asarray(gain, float), jnp.asarray(arrivals, float), nothing)


def learner_state(action: Any, theta: np.ndarray) -> LearnerState:
    zero = jnp.asarray(0.0, float)
    return LearnerState(jnp.asarray(theta, float), jnp.asarray(action, float), zero, zero + jnp.inf, zero)


# T2, T14, T15: the gradient of Algorithm 1. All of (24) is written out here, in NumPy, for the preset's device.


class Block(NamedTuple):
    """A block of one device, and the next: q, h and arrivals of both, tasks started, p in units of HALF."""

    q: float
    started: float
    power: float
    gain: float
    next_gain: float
    arrivals: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0, 0.0)
    next_arrivals: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0, 1.0)


BLOCKS = {
    "all started": Block(3.0, 3.0, 1.3, 0.7 * GAIN, 1.4 * GAIN),
    "one left": Block(3.0, 2.0, 0.4, 2.0 * GAIN, 0.2 * GAIN),
    "idle": Block(0.0, 0.0, 1.0, GAIN, GAIN, arrivals=(0.0,) * 5),
    "more than a task": Block(2.0, 2.0, 60.0, 1.5 * GAIN, GAIN),
}
MU = np.random.default_rng(0).normal(size=(30, 8)) * np.r_[0.5, 0.5, 0.1, np.ones(5)]
THETA = np.random.default_rng(1).normal(size=30)
GAMMA = 0.95


def device_delta(block: Block, power: float, theta: np.ndarray, queue: str, printed: bool = False) -> float:
    """(24): r + gamma theta . phi(s', p) - theta . phi(s, p), in units of 1 + 2.5e-3 x 400 = 2, a task run locally."""
    spent = HALF * power
    bits = 1e5 * np.log2(1 + block.gain * spent / 1.5)
    offload = min(1.0, bits / 1e6) if block.started > 0 else 0.0
    charged = spent if printed else 1.5 / block.gain * (2.0 ** (10 * offload) - 1)
    joule = 400.0 * (block.started - offload) ** 3 + 0.1 * charged
    next_q = block.q - block.started + sum(block.next_arrivals) + (offload if queue == "as_printed" else 0.0)
    now = np.r_[block.q, block.gain / GAIN, power, block.arrivals]
    after = np.r_[next_q, block.next_gain / GAIN, power, block.next_arrivals]
    return (block.q + 2.5e-3 * joule) / 2.0 + GAMMA * theta @ expit(MU @ after) - theta @ expit(MU @ now)


def device_step(block: Block, gradient: str, queue: str, theta: np.ndarray = THETA) -> tuple[float, np.ndarray]:
    """(d/dp, d/dtheta) of Algorithm 1: its change of p and theta divided by its step of 1e-3."""
    device = first_device(paper_world(queue))
    bits = 1e5 * np.log2(1 + block.gain * HALF * block.power / 1.5)
    offload = min(1.0, bits / 1e6) if block.started > 0 else 0.0
    next_q = block.q - block.started + sum(block.next_arrivals) + (offload if queue == "as_printed" else 0.0)
    view = view_of(block.q, block.gain, list(block.arrivals))
    after = view_of(next_q, block.next_gain, list(block.next_arrivals))
    action = DeviceAction(jnp.asarray(block.started), jnp.asarray(offload), jnp.asarray(HALF * block.power))
    rule = Algorithm1(gradient=gradient, step=1e-3, decay=1.0, stop=False, mu=jnp.asarray(MU))
    before = learner_state(block.power, theta)
    learned = jax.jit(Algorithm1.learn)(rule, before, device, view, action, jnp.asarray(0.0), after)
    return float(before.action - learned.action) / 1e-3, np.asarray(before.theta - learned.theta) / 1e-3


def central(function: Callable[[Any], float], at: Any, step: float = 1e-5) -> np.ndarray:
    """Derivatives by every entry of `at`, by central differences."""
    at = np.asarray(at, float)
    around = (step * np.eye(at.size)).reshape(at.size, *at.shape)
    return np.array([(function(at + e) - function(at - e)) / (2 * step) for e in around])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("queue", ["conserving", "as_printed"])
@pytest.mark.parametrize("which", BLOCKS)
def test_exact_at_a_device_is_the_derivative_of_the_squared_error(which: str, queue: str):
    """Through offload(p), L(p) and, where the printed queue keeps the fraction, q_(t+1)(p); `started` is constant."""
    block = BLOCKS[which]
    by_power, by_theta = device_step(block, "exact", queue)
    wanted = central(lambda p: device_delta(block, float(p), THETA, queue) ** 2, block.power)
    assert by_power == pytest.approx(wanted[0], rel=1e-5, abs=1e-8)
    assert by_theta == pytest.approx(
        central(lambda t: device_delta(block, block.power, t, queue) ** 2, THETA), rel=1e-5, abs=1e-8
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("which", BLOCKS)
def test_printed_at_a_device_is_26_and_27_term_by_term(which: str):
    """delta (w4 tau - sum_m theta_m mu_m,p [gamma phi'(1 - phi') - phi (1 - phi)]) and delta (gamma phi' - phi).

    r holds the commanded power: w4 tau HALF / 2 = 2.5e-3 x 0.1 x 0.0155 / 2 by its unit.
    """
    block = BLOCKS[which]
    by_power, by_theta = device_step(block, "printed", "conserving")
    error = device_delta(block, block.power, THETA, "conserving", printed=True)
    next_q = block.q - block.started + sum(block.next_arrivals)
    now = expit(MU @ np.r_[block.q, block.gain / GAIN, block.power, block.arrivals])
    after = expit(MU @ np.r_[next_q, block.next_gain / GAIN, block.power, block.next_arrivals])
    total = sum(THETA[m] * MU[m, 2] * (GAMMA * after[m] * (1 - after[m]) - now[m] * (1 - now[m])) for m in range(30))
    assert by_power == pytest.approx(error * (2.5e-3 * 0.1 * HALF / 2 - total), rel=1e-9)
    assert by_theta == pytest.approx(error * (GAMMA * after - now), rel=1e-9)


@pytest.mark.usefixtures("float64")
def test_printed_at_a_device_is_wrong_twice():
    """Trap T2. Where r hardly depends on p (idle), it is -1/2 of the derivative by p and 1/2 of that by theta."""
    block = BLOCKS["idle"]
    by_power, by_theta = device_step(block, "printed", "conserving")
    true_power, true_theta = device_step(block, "exact", "conserving")
    assert by_power == pytest.approx(-true_power / 2, rel=1e-2)
    assert by_theta == pytest.approx(true_theta / 2, rel=1e-2)


# The same for Algorithm 2, whose next queue depends on the speeds.

NU = np.random.default_rng(2).normal(size=(30, 10)) * 0.5
SERVER_BLOCKS = {
    "work is left": (70.0, (0.3, 0.1, 0.2, 0.25, 0.15)),
    "all is served": (4.0, (0.3, 0.1, 0.2, 0.25, 0.15)),
    "no work waits": (0.0, (0.5, 0.5, 0.5, 0.5, 0.5)),
}
QUEUES, NEXT_QUEUES, INFLOW = np.array([1.0, 0.0, 3.0, 2.0]), np.array([2.0, 1.0, 0.0, 2.0]), 2.5


def server_delta(y: float, speeds: np.ndarray, theta: np.ndarray, next_y: float | None = None) -> float:
    """The TD error of Algorithm 2. A slot at f_max does 20 tasks, 1000 J x tasks^3; four devices.

    Unit: four tasks wait and are served in five slots, 4 + 2.5e-5 x 1000 x 5 x 0.8^3 = 4.064.
    """
    joule = 1000.0 * ((20 * speeds) ** 3).sum()
    after_y = max(y - 20 * speeds.sum(), 0.0) + INFLOW if next_y is None else next_y
    now, after = np.r_[y / 4, QUEUES / 2, speeds], np.r_[after_y / 4, NEXT_QUEUES / 2, speeds]
    return (y + 2.5e-5 * joule) / 4.064 + GAMMA * theta @ expit(NU @ after) - theta @ expit(NU @ now)


def server_step(y: float, speeds: np.ndarray, gradient: str) -> tuple[np.ndarray, np.ndarray]:
    server = jax.tree.map(jnp.asarray, paper_world().server)
    next_y = max(y - 20 * speeds.sum(), 0.0) + INFLOW
    view, after = (
        ServerView(jnp.asarray(waiting, float), jnp.asarray(INFLOW, float), jnp.asarray(queues))
        for waiting, queues in ((y, QUEUES), (next_y, NEXT_QUEUES))
    )
    rule = Algorithm2(gradient=gradient, step=1e-4, decay=1.0, stop=False)
    before = Algorithm2State(learner_state(speeds, THETA), ServerWeights.from_columns(jnp.asarray(NU), 4))
    action = server_action(view, jnp.asarray(20 * speeds))
    learned = jax.jit(Algorithm2.learn)(rule, before, server, view, action, jnp.asarray(0.0), after).learned
    moved = (before.learned.action - learned.action, before.learned.theta - learned.theta)
    return np.asarray(moved[0]) / 1e-4, np.asarray(moved[1]) / 1e-4


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("which", SERVER_BLOCKS)
def test_exact_at_the_server_is_the_derivative_of_the_squared_error(which: str):
    y, speeds = SERVER_BLOCKS[which][0], np.array(SERVER_BLOCKS[which][1])
    by_speeds, by_theta = server_step(y, speeds, "exact")
    assert by_speeds == pytest.approx(
        central(lambda f: server_delta(y, f, THETA) ** 2, speeds, 1e-6), rel=1e-4, abs=1e-6
    )
    assert by_theta == pytest.approx(central(lambda t: server_delta(y, speeds, t) ** 2, THETA), rel=1e-5, abs=1e-7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("which", SERVER_BLOCKS)
def test_printed_at_the_server_is_33_and_34_term_by_term(which: str):
    """delta (3 w2 tau xi f^2 - sum [...]), the next queue constant; in units: 3 x 2.5e-5 x 1000 x 20^3 f^2 / 4.064."""
    y, speeds = SERVER_BLOCKS[which][0], np.array(SERVER_BLOCKS[which][1])
    by_speeds, by_theta = server_step(y, speeds, "printed")
    next_y = max(y - 20 * speeds.sum(), 0.0) + INFLOW
    error = server_delta(y, speeds, THETA, next_y)
    now = expit(NU @ np.r_[y / 4, QUEUES / 2, speeds])
    after = expit(NU @ np.r_[next_y / 4, NEXT_QUEUES / 2, speeds])
    slope = GAMMA * after * (1 - after) - now * (1 - now)
    sums = np.array([sum(THETA[m] * NU[m, 5 + i] * slope[m] for m in range(30)) for i in range(5)])
    assert by_speeds == pytest.approx(error * (3 * 2.5e-5 * 1000 * 20**3 * speeds**2 / 4.064 - sums), rel=1e-8)
    assert by_theta == pytest.approx(error * (GAMMA * after - now), rel=1e-8)


@pytest.mark.usefixtures("float64")
def test_only_exact_knows_that_serving_empties_the_queue():
    """Trap T2: where work is left, the derivative has a term through q_ser,(t+1), which (33) lacks."""
    for which, through_queue in (("work is left", True), ("all is served", False)):
        y, speeds = SERVER_BLOCKS[which][0], np.array(SERVER_BLOCKS[which][1])
        next_y = max(y - 20 * speeds.sum(), 0.0) + INFLOW
        held = central(lambda f, y=y, next_y=next_y: server_delta(y, f, THETA, next_y) ** 2, speeds, 1e-6)
        true = server_step(y, speeds, "exact")[0]
        assert (np.abs(true - held) > 1e-2 * np.abs(held)).any() == through_queue


# T3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("gradient", ["exact", "printed"])
@pytest.mark.parametrize("power", [0.0, 0.1, 1.0, 7.0])
def test_without_a_minimum_any_action_can_be_the_end_of_learning(power: float, gradient: str):
    """Trap T3: at theta = -r v / |v|^2, v = gamma phi' - phi, delta is zero, and neither theta nor p changes."""
    block = BLOCKS["all started"]._replace(power=power)
    r = device_delta(block, power, np.zeros(30), "conserving", printed=gradient == "printed")
    next_q = block.q - block.started + sum(block.next_arrivals)
    now = expit(MU @ np.r_[block.q, block.gain / GAIN, power, block.arrivals])
    after = expit(MU @ np.r_[next_q, block.next_gain / GAIN, power, block.next_arrivals])
    along = GAMMA * after - now
    by_power, by_theta = device_step(block, gradient, "conserving", theta=-r * along / (along @ along))
    assert r > 1.0
    assert abs(by_power) < 1e-9
    assert np.abs(by_theta).max() < 1e-9
    assert np.abs(device_step(block, gradient, "conserving")[1]).max() > 1e-3  # with another theta it does learn


@pytest.mark.usefixtures("float64")
def test_qlearning_aims_at_the_cheapest_next_action():
    """theta = (1, 2), phi = (0.5, 0.25), r = 3, next values 4, 1, 6: 3 + 0.9 x 1 - 1 = 2.9, times 0.1 x (0.5, 0.25)."""
    rule = QLearningDevice(step=0.1, decay=1.0)
    state = QState(jnp.array([1.0, 2.0]), jnp.asarray(0.0), jnp.asarray(jnp.inf))
    learned = rule.update(state, jnp.array([0.5, 0.25]), jnp.asarray(3.0), jnp.array([4.0, 1.0, 6.0]), jnp.asarray(0.9))
    step_over_theta = 0.29 * np.sqrt(0.3125) / np.sqrt(5.0)
    assert np.asarray(learned.theta) == pytest.approx([1.145, 2.0725], rel=1e-12)
    assert float(learned.relative_change) == pytest.approx(step_over_theta, rel=1e-12)
    assert float(learned.block) == 1.0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("log_scaled", [False, True])
def test_qlearning_at_a_device_against_a_loop(log_scaled: bool):
    """The greedy action and one step of learning, every Q(s, a) on its own; 17 levels of p in units of HALF."""
    theta, device = np.random.default_rng(4).normal(size=30), first_device(paper_world())
    rule = QLearningDevice(explore=0.0, log_scaled=log_scaled, mu=jnp.asarray(MU))
    state = replace(rule.initial_state(jnp.float64), theta=jnp.asarray(theta))
    view, after = view_of(3.0, 0.7 * GAIN, [1.0, 0, 0, 1, 0]), view_of(2.0, 1.4 * GAIN, [0, 1.0, 0, 0, 1])

    def inputs(seen: DeviceView, power: float) -> np.ndarray:
        h = float(seen.gain) / GAIN
        scaled = [np.log(h), np.log1p(power)] if log_scaled else [h, power]
        return np.r_[float(seen.q), scaled, np.asarray(seen.arrivals)]

    def value(seen: DeviceView, power: float) -> float:
        return float(theta @ expit(MU @ inputs(seen, power)))

    best = min(POWERS, key=lambda power: value(view, power))
    action = rule.act(state, device, view, jax.random.key(0))
    assert float(action.power) == pytest.approx(best * HALF, rel=1e-9)
    learned = rule.learn(state, device, view, action, jnp.asarray(3.0), after)
    error = 3.0 / 2.0 + GAMMA * min(value(after, power) for power in POWERS) - value(view, best)
    assert np.asarray(learned.theta) == pytest.approx(theta + 0.1 * error * expit(MU @ inputs(view, best)), rel=1e-9)


@pytest.mark.usefixtures("float64")
def test_qlearning_at_the_server_against_a_loop():
    theta, server = np.random.default_rng(5).normal(size=30), jax.tree.map(jnp.asarray, paper_world().server)
    rule, nu = QLearningServer(explore=0.0), NU[:, :6]
    learner = replace(rule.initial_state(jnp.float64), theta=jnp.asarray(theta))
    state = QServerState(learner, ServerWeights.from_columns(jnp.asarray(nu), 4))
    view, after = (
        ServerView(jnp.asarray(y), jnp.asarray(INFLOW), jnp.asarray(q)) for y, q in ((9.0, QUEUES), (3.5, NEXT_QUEUES))
    )

    def value(y: float, queues: np.ndarray, speed: float) -> float:
        return float(theta @ expit(nu @ np.r_[y / 4, queues / 2, speed]))

    best = min(SPEEDS, key=lambda speed: value(9.0, QUEUES, speed))
    action = rule.act(state, server, view, jax.random.key(0))
    assert np.asarray(action.service_per_slot) == pytest.approx(np.full(5, 20 * best), rel=1e-12)
    learned = rule.learn(state, server, view, action, jnp.asarray(2.0), after).learned
    error = 2.0 / 4.064 + GAMMA * min(value(3.5, NEXT_QUEUES, speed) for speed in SPEEDS) - value(9.0, QUEUES, best)
    expected = theta + 0.1 * error * expit(nu @ np.r_[2.25, QUEUES / 2, best])
    assert np.asarray(learned.theta) == pytest.approx(expected, rel=1e-9)


def test_exploration_takes_every_action():
    """Of 6000 choices a fifth is random, one of five: 0.8 + 0.04 are the best, 0.04 each of the others; five sigma."""
    values, rule = jnp.array([3.0, 1.0, 2.0, 5.0, 4.0]), QLearningDevice(explore=0.2)
    chosen = jax.vmap(lambda key: rule.choose(values, key))(jax.random.split(jax.random.key(1), 6000))
    share = np.bincount(np.asarray(chosen), minlength=5) / 6000
    expected = np.array([0.04, 0.84, 0.04, 0.04, 0.04])
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 6000)).all()


# T11: inputs and actions of order one


@pytest.mark.usefixtures("float64")
def test_the_unit_of_power_sends_half_a_task_at_mean_gain():
    assert float(half_power(first_device(paper_world()))) == pytest.approx(HALF, rel=1e-12)


def device_inputs(device: Device, view: DeviceView, power: float, log_scaled: bool = False) -> np.ndarray:
    """(3 + n,) the argument of each feature's sigmoid when every mu_m selects one input."""
    features = device_features(jnp.eye(3 + len(view.arrivals)), device, view, log_scaled)
    return logit(np.asarray(features(jnp.asarray(power), view.q)))


def server_inputs(view: ServerView, speeds: Sequence[float], log_scaled: bool = False) -> np.ndarray:
    """(1 + K + n,) the same at the server."""
    each = ServerWeights.from_columns(jnp.eye(1 + len(view.queues) + len(speeds)), len(view.queues))
    features = server_features(each, view, log_scaled)
    return logit(np.asarray(features(jnp.asarray(speeds), view.backlog)))


@pytest.mark.usefixtures("float64")
def test_inputs_by_hand():
    """q in tasks, h by its mean, p by HALF; at the server y by K, queues by its root, speeds by f_max."""
    device = first_device(paper_world())
    view = view_of(3.0, 6e3, [1.0, 0, 0, 1, 0])
    plain, logs = (device_inputs(device, view, 0.5, log_scaled) for log_scaled in (False, True))
    assert plain == pytest.approx([3.0, 2.0, 0.5, 1, 0, 0, 1, 0], rel=1e-12, abs=1e-12)
    assert logs == pytest.approx([3.0, np.log(2.0), np.log(1.5), 1, 0, 0, 1, 0], rel=1e-12, abs=1e-12)
    seen = ServerView(jnp.asarray(8.0), jnp.asarray(0.0), jnp.array([1.0, 0.0, 3.0, 2.0]))
    plain, logs = (server_inputs(seen, [0.25], log_scaled) for log_scaled in (False, True))
    assert plain == pytest.approx([2.0, 0.5, 0.0, 1.5, 1.0, 0.25], rel=1e-12, abs=1e-12)
    assert logs == pytest.approx([np.log(3.0), 0.5, 0.0, 1.5, 1.0, 0.25], rel=1e-12, abs=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("devices", [4, 400])
def test_features_do_not_saturate_in_a_large_fleet(devices: int):
    """Two tasks wait everywhere: nu . s has the variance 2^2 + 2^2 + 5 x 0.3^2 = 8.45 for any K (not scaled: 4 K).

    Of N(0, 8.45) the share beyond 4.6, where the sigmoid's slope is below 1 %, is 0.114.
    """
    view = ServerView(jnp.asarray(2.0 * devices), jnp.asarray(0.0), jnp.full(devices, 2.0))
    nu = np.random.default_rng(6).normal(size=(20000, 1 + devices + 5))
    features = server_features(ServerWeights.from_columns(jnp.asarray(nu), devices), view)
    before_sigmoid = logit(np.asarray(features(jnp.full(5, 0.3), view.backlog)))
    assert before_sigmoid.var() == pytest.approx(8.45, rel=0.05)
    assert (np.abs(before_sigmoid) > 4.6).mean() == pytest.approx(0.114, abs=0.015)


@pytest.mark.usefixtures("float64")
def test_a_learner_sees_the_same_numbers_in_any_unit():
    """A thousand times the gain, a hundredth of cycles and f_max, ten times bandwidth and bits change no input."""
    scaled = load(
        "paper",
        {
            "devices": 4,
            "device.bandwidth_hz": 1e7,
            "device.cpu_max_hz": 80e7,
            "device.task.cycles": 1e8,
            "device.task.bits_per_cycle": 1e-1,
        },
    )
    far = first_device(build(scaled, Placement(np.full(4, 100.0), np.full(4, 1e3 * GAIN))))
    near = first_device(paper_world())
    assert float(half_power(far)) == pytest.approx(HALF / 1e3, rel=1e-12)
    assert float(far.capacity) == pytest.approx(float(near.capacity), rel=1e-12)
    here, there = (view_of(3.0, factor * 0.7 * GAIN, [0.0] * 5) for factor in (1.0, 1e3))
    one, other = (device_inputs(d, v, 1.3) for d, v in ((near, here), (far, there)))
    assert one == pytest.approx(other, rel=1e-12, abs=1e-12)


# T16: the stopping rule


@pytest.mark.usefixtures("float64")
def test_learning_stops_after_patience_quiet_blocks_in_a_row():
    """A quiet block has delta = 0, a loud one 1 + p - sum theta. Three in a row are needed; two are not enough."""
    rule = Algorithm1(patience=3, features=4)

    def after(state: LearnerState, loud: float, rule: Algorithm1 = rule) -> LearnerState:
        def terms(power: jax.Array, theta: jax.Array):
            return loud * (1.0 + power), loud * jnp.sum(theta), 0.0 * power

        return rule.update(state, terms, jnp.asarray(0.95), 10.0)

    state = learner_state(1.0, np.ones(4))
    for loud, quiet in ((0.0, 1), (0.0, 2), (1.0, 0), (0.0, 1), (0.0, 2), (0.0, 3)):
        assert not rule.stopped(state)
        state = after(state, loud)
        assert int(state.quiet) == quiet
    assert rule.stopped(state)
    frozen, unstopped = after(state, 1.0), after(state, 1.0, replace(rule, stop=False))
    assert jax.tree.all(jax.tree.map(lambda new, old: bool(jnp.all(new == old)), frozen, state))
    assert float(unstopped.block) == float(state.block) + 1
    assert float(unstopped.action) != float(state.action)
    assert (np.asarray(unstopped.theta) != np.asarray(state.theta)).all()


@pytest.mark.usefixtures("float64")
def test_the_first_values_are_not_zero():
    """theta_0 = 0 would make every relative change infinite. Q starts at a cost of 1 in every block, 1 / 0.05 = 20.

    30 features of 1/2 on average: theta_m = 2 x 20 / 30.
    """
    device, view = first_device(paper_world()), view_of(0.0, GAIN, [0.0] * 5)
    state = Algorithm1().init(device, view, jax.random.key(0))
    assert np.asarray(state.theta) == pytest.approx(np.full(30, 4 / 3), rel=1e-12)
    assert float(state.relative_change) == np.inf
    assert not Algorithm1().stopped(state)


@pytest.mark.usefixtures("float64")
def test_step_sizes_meet_36():
    """Decay d: sum alpha grows as t^(1 - d) / (1 - d), or log t at d = 1; sum alpha^2 <= 1 + 1 / (2 d - 1)."""
    t = np.arange(10**6, dtype=float)
    for decay in (0.51, 0.6, 0.8, 1.0):
        alpha = np.asarray(step_size(1.0, decay, t))
        grown = np.log(1e6) if decay == 1.0 else (1e6 ** (1 - decay) - 1) / (1 - decay)
        assert alpha.sum() >= grown
        assert (alpha**2).sum() <= 1 + 1 / (2 * decay - 1)
    assert (np.asarray(step_size(1.0, 0.5, t)) ** 2).sum() > np.log(1e6)  # at 1/2 the squares no longer converge
    assert np.asarray(step_size(1.0, 1.1, t)).sum() < 1 + 1 / 0.1  # above 1 the steps sum to something finite
    by_hand = [0.3, 0.3 / 8.0]  # 32^0.6 = 8
    assert step_size(0.3, 0.6, np.array([0.0, 31.0])).tolist() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_default_steps_of_a_scheme_meet_36(name: str):
    for controller in (SCHEMES[name].device, SCHEMES[name].server):
        assert 0.5 < getattr(controller, "decay", 1.0) <= 1.0
        assert getattr(controller, "step", 1.0) > 0.0


# Worlds with a known optimum: 0.5 tasks arrive per block, a task run locally takes 400 J


def probe(gain: float, **overrides: Any) -> World:
    world = load("paper", {"devices": 4, "device.arrival_prob": 0.1, **overrides})
    return build(world, Placement(np.full(4, 100.0), np.full(4, gain)))


RADIO_FREE = {"weights.device_energy": 2.5e-2}
"""Running a task costs 10; at a gain of 1e9, sending it 2.5e-2 x 0.1 s x 1.5 / 1e9 x 1023 W = 4e-9."""
RADIO_EXPENSIVE = {"weights.device_energy": 2.5e-3}
"""Running a task costs 1; at a gain of 0.01, sending it more than 2.5e-3 x 0.1 s x 1.5 / 0.01 x 1023 W = 38."""


@pytest.mark.parametrize("name", ["binary", "qlearning-log"])
def test_qlearning_finds_the_better_of_sending_and_not_sending(name: str, play: Play):
    """In 5 % of the blocks the action is random, and in at most half of those it is the worse one."""
    pair = ControllerPair(SCHEMES[name].device, Steady())
    for gain, weights, low, high in ((1e9, RADIO_FREE, 0.9, 1.0), (1e-2, RADIO_EXPENSIVE, 0.0, 0.1)):
        run = play(pair, probe(gain, discount=0.5, **weights), blocks=1500, stream=name)
        assert run.traces is not None
        busy = run.traces.started[:, 1000:] > 0
        assert busy.sum() > 1000
        assert low < run.traces.offload[:, 1000:][busy].mean() < high


def test_designed_qlearning_finds_a_good_share_where_radio_is_expensive(play: Play):
    """One task costs 0.0375 (2^(10 o) - 1) to send and (1 - o)^3 to run: 0.72, 0.59, 0.71 at an eighth, two, three."""
    pair = ControllerPair(SCHEMES["qlearning-designed"].device, Steady())
    run = play(pair, probe(1e-2, discount=0.5, **RADIO_EXPENSIVE), blocks=1500, stream="designed")
    assert run.traces is not None
    busy = run.traces.started[:, 1000:] > 0
    assert 1 / 8 < run.traces.offload[:, 1000:][busy].mean() < 3 / 8


@pytest.fixture(scope="module")
def constant() -> ControllerPair:
    return ControllerPair(Constant(), Steady())


def test_the_tuner_finds_the_share_where_radio_is_free(constant: ControllerPair):
    """One task a block, the fraction r offloaded: 10 (1 - r)^3 for the local part, r for a block at the server.

    The sum is least where 30 (1 - r)^2 = 1, r = 0.817; on the grid of 1/32 it is 26/32.
    """
    tuned = tune_constant(constant, probe(1e9, **RADIO_FREE, **{"weights.server_energy": 0.0}))
    assert (tuned.device.offload, tuned.device.started) == (26 / 32, 1.0)


def test_the_tuner_sends_nothing_where_radio_is_expensive(constant: ControllerPair):
    """A sixteenth, its smallest fraction, saves 0.18 of a run; at a gain of 1e-4 it costs more than 2.0 to send."""
    tuned = tune_constant(constant, probe(1e-4, **RADIO_EXPENSIVE))
    assert tuned.device.offload == 0.0


def test_the_tuner_finds_the_best_of_its_grid(constant: ControllerPair):
    """In a world whose best values lie inside the grid, none of their neighbours costs less in a run of its own."""
    world = probe(1e9, **{"weights.device_energy": 2.5e-2, "weights.server_energy": 2.5e-3})
    tuned = tune_constant(constant, world)

    def costs_of(candidates: list[tuple[float, float, float]]) -> dict[tuple[float, float, float], float]:
        """Mean cost over the second half of the blocks and the held-out seeds, of all candidates in one rollout."""
        pairs = [
            ControllerPair(Constant(offload=offload, started=started), Steady(speed=speed))
            for offload, started, speed in candidates
            for _ in HELD_OUT_SEEDS
        ]
        run = rollout(world, pairs, "constant", HELD_OUT_SEEDS * len(candidates), TUNING_BLOCKS)
        late = np.asarray(run.metrics.cost(), np.float64)[:, TUNING_BLOCKS // 2 :].mean(axis=1)
        return dict(zip(candidates, late.reshape(len(candidates), -1).mean(axis=1).tolist(), strict=True))

    best_of = tuned.device
    offload, started, speed = (float(value) for value in (best_of.offload, best_of.started, tuned.server.speed))
    speeds, step = preparation.SPEEDS, (preparation.OFFLOADS[1] - preparation.OFFLOADS[0]) / 4
    assert 0.0 < offload < 1.0
    assert speeds[0] < speed < speeds[-1]
    others = [(offload + step, started, speed), (offload - step, started, speed), (offload, started + 1, speed)]
    others += [(offload, started, float(other)) for other in speeds if other != speed]
    costs = costs_of([(offload, started, speed), *others])
    best = costs.pop((offload, started, speed))
    assert {other: value for other, value in costs.items() if value < best * (1 - 1e-6)} == {}
    assert max(costs.values()) > 1.01 * best
