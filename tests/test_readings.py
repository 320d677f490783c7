"""Literal readings of the paper, each an option: what it changes, by hand, and that it changes nothing when it is off.

`test_reference` compares whole runs with all of them with plain loops.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Play, arrivals, world_of

from partway.controllers.base import (
    ControllerPair,
    DeviceController,
    DeviceView,
    ServerView,
    arrivals_between,
)
from partway.controllers.baselines import Steady
from partway.controllers.features import device_features, full_power
from partway.controllers.parametric import MAX_POWER, Algorithm1, LearnerState
from partway.controllers.qlearning import Binary
from partway.controllers.section_vi import BinaryParametric, EvenParametric, Fixed
from partway.errors import InputError
from partway.experiments.comparison import compare
from partway.experiments.preparation import bound_of
from partway.experiments.report import as_json
from partway.measurement.gap import discounted
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.schemes import SCHEMES, pair_for
from partway.simulation.rollout import Run
from partway.simulation.step import initial_state
from partway.system.placement import Placement
from partway.system.types import Broadcast, Device, DeviceAction, State
from partway.system.world import World, build, emptied

CURRENT = {"arrivals_seen": "current"}
GAIN = 3e3
"""Of the devices worked by hand: a whole task takes 1.5 / 3e3 x 1023 = 0.5115 W, half a task 0.0155 W."""


def by_hand(**overrides: Any) -> World:
    """Four of the paper's devices at the gain GAIN."""
    return build(load("paper", {"devices": 4, **overrides}), Placement(np.full(4, 100.0), np.full(4, GAIN)))


def first_device(world: World) -> Device:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[..., 0]), world.devices)


def view_of(q: float, gain: float, rate: float = 0.0) -> DeviceView:
    said = Broadcast(*jnp.array([0.0, rate, 0.0]), share=jnp.asarray(0.25))
    return DeviceView(jnp.asarray(q), jnp.asarray(gain), jnp.zeros(5), said)


def state_of(world: World, seed: int = 0) -> State:
    """The state in which a run begins."""
    return initial_state(cast_floats(world, "float32"), jnp.uint32(seed))


# T6: arrivals of the block are seen before acting


class FirstSlot(DeviceController):
    """Starts all tasks, and offloads one if a task arrives in the first slot that it sees."""

    def act(self, state: Any, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(view.q, view.arrivals[0])


@pytest.fixture(scope="module")
def seeing(play: Play, four: Callable[..., World]) -> Callable[[str], Run]:
    """50 blocks of a device that looks at its arrivals, in a world where it always has a task: b = 0.9."""

    def run(which: str) -> Run:
        world = four({"arrivals_seen": which, "device.arrival_prob": 0.9, "device.cpu_max_hz": 160e9})
        return play(ControllerPair(FirstSlot(), Steady()), world, blocks=50)

    return run


@pytest.mark.parametrize(("which", "delay"), [("past", 1), ("current", 0)])
def test_a_device_sees_arrivals_of_its_block_or_of_the_one_before(which: str, delay: int, seeing: Callable[[str], Run]):
    """What it offloads in block t is what arrives in the first slot of block t, or of t - 1; from block 1 on."""
    traces = seeing(which).traces
    assert traces is not None
    busy = traces.started[:, 1:] >= 1
    seen = traces.arrivals[:, 1 - delay : 50 - delay, 0]
    assert busy.mean() > 0.99
    assert np.array_equal(traces.offload[:, 1:][busy], seen[busy])
    assert 0.05 < 1 - seen.mean() < 0.2


def test_what_arrives_does_not_depend_on_who_sees_it(seeing: Callable[[str], Run]):
    """And (1) adds the arrivals of block t to the queue after block t in both readings: all tasks were started."""
    runs = [seeing(which).traces for which in ("past", "current")]
    assert np.array_equal(runs[0].arrivals, runs[1].arrivals)
    for traces in runs:
        left = traces.q[:, :-1] - traces.started[:, :-1]
        assert np.array_equal(traces.q[:, 1:], left + traces.arrivals[:, :-1].sum(axis=2))


def test_the_first_state_holds_the_first_arrivals(four: Callable[..., World]):
    first = arrivals(cast_floats(four(CURRENT), "float32"), 3, 0)
    assert np.array_equal(state_of(four(CURRENT), 3).arrivals, first)
    assert first.any()
    assert not state_of(four({}), 3).arrivals.any()


@pytest.mark.usefixtures("float64")
def test_a_learner_adds_the_arrivals_of_the_right_block():
    seen = [1.0, 0, 0, 0, 1], [0.0, 1, 1, 1, 0]
    now, later = (replace(view_of(2.0, GAIN), arrivals=jnp.array(bits)) for bits in seen)
    assert np.array_equal(arrivals_between(first_device(by_hand()), now, later), later.arrivals)
    assert np.array_equal(arrivals_between(first_device(by_hand(**CURRENT)), now, later), now.arrivals)


def test_the_gap_is_null_where_arrivals_are_seen():
    """In the dataset and in JSON, with the reason; `oracle`, which needs the bound, is not applicable."""
    dataset = compare({"devices": 2}, overrides=CURRENT, schemes=["local", "oracle"], blocks=10, seeds=1)
    why = "no bound where devices see a block's arrivals before they act: it needs independent arrivals"
    assert dataset.attrs["bound_reason"] == why
    assert np.isnan(dataset.attrs["bound"])
    document = as_json(dataset)
    assert document["lower_bound"]["reason"] == why
    local, oracle = document["schemes"]
    assert (local["gap"]["mean"], local["gap"]["reason"]) == (None, why)
    assert oracle["status"] == "not_applicable"
    assert bound_of(by_hand()).value > 0  # type: ignore[union-attr]  # without the option there is one


# (9a): any initial state

STARTS = {"device.initial_queue_tasks": 3.0, "server.initial_queue_tasks": 4.5}


def test_a_run_begins_with_the_scenarios_queues(play: Play):
    """Three tasks at each of four devices, 4.5 at the server: block 0 costs 4.5 + 4 x 3 for waiting (w1 W = w3 W = 1).

    `Fixed` at 0.3 f_max serves 5 x 0.3 x 20 = 30 > 4.5 of it: the server then holds what the devices have sent.
    """
    world = by_hand(**STARTS)
    run = play(ControllerPair(SCHEMES["local"].device, Fixed()), world, blocks=50)
    traces, metrics = run.traces, run.metrics
    assert traces is not None
    assert (traces.q[:, 0] == 3.0).all()
    assert metrics.backlog[:, :2].tolist() == [[4.5, 0.0]] * 2
    assert metrics.server_queue[:, 0] == pytest.approx(4.5, rel=1e-6)
    assert metrics.device_queue[:, 0] == pytest.approx(12.0, rel=1e-6)
    assert np.array_equal(traces.q[:, 1], 3.0 - traces.started[:, 0] + traces.arrivals[:, 0].sum(axis=1))


def test_the_classes_of_a_fleet_begin_with_their_own_queues(mixed_world: World):
    groups = [{"count": 1, "initial_queue_tasks": 2.0}, {"count": 1}]
    state = state_of(world_of(load({"devices": 2, "group": groups})))
    assert np.asarray(state.q).tolist() == [2.0, 0.0]
    empty = state_of(mixed_world)
    assert not np.asarray(empty.q).any()
    assert float(empty.backlog) == 0.0


@pytest.mark.parametrize("start", STARTS)
def test_the_discounted_bound_is_null_from_other_queues(start: str):
    """The one on the average cost is not: what waits at first does not matter in the end."""
    filled = {start: STARTS[start]}
    why = bound_of(by_hand(objective="discounted", **filled))
    assert why == "no bound on the discounted sum from queues that are not empty: it is proven for empty ones"
    average, empty = bound_of(by_hand(**filled)), bound_of(by_hand())
    assert not isinstance(average, str)
    assert not isinstance(empty, str)
    assert average.value == empty.value


def test_the_average_gap_from_other_queues_is_that_of_a_long_run(play: Play):
    """The advantage identity: mean cost less mean loss tends to the bound, from full queues as from empty ones."""
    world = by_hand(**STARTS)
    bound = bound_of(world)
    assert not isinstance(bound, str)
    run = play(ControllerPair(SCHEMES["local"].device, Steady()), world, blocks=2000, certificates=bound.certificate)
    losses = [getattr(run.metrics, f"loss_{name}") for name in ("devices", "waiting", "service")]
    without = np.asarray(run.metrics.cost(), np.float64) - np.sum(losses, axis=0, dtype=np.float64)
    assert without[:, 500:].mean() == pytest.approx(bound.value, rel=0.03)


def test_whole_tasks_wait_at_first_unless_the_queue_keeps_fractions():
    with pytest.raises(InputError, match=r"device\.initial_queue_tasks must be a whole number .* got 0\.5"):
        load("paper", {"device.initial_queue_tasks": 0.5})
    printed = load("paper", {"device.initial_queue_tasks": 0.5, "queue": "as_printed"})
    assert np.asarray(world_of(printed).initial_tasks)[0] == 0.5


def test_a_world_can_be_emptied():
    """As `partway cut` does: of tasks that wait at first it could not tell how late they are."""
    state = state_of(emptied(by_hand(**STARTS)))
    assert np.asarray(state.q).tolist() == [0.0] * 4
    assert float(state.backlog) == 0.0


# (36a), (36b): each party's own steps and starting values


def test_one_party_alone_can_be_set():
    given = {"step": 0.5, "server_step": 0.25, "device_decay": 0.9, "server_start_value": 3.0}
    pair = pair_for("parametric", load("paper", {f"schemes.parametric.{name}": v for name, v in given.items()}))
    device, server = pair.device, pair.server
    assert (device.step, device.decay, device.start_value) == (0.5, 0.9, 1.0)
    assert (server.step, server.decay, server.start_value) == (0.25, 0.6, 3.0)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("parametric", "server_decay=11", r"schemes\.parametric\.server_decay must be a number from 0 to 10, got 11"),
        ("parametric", "server_start_power=1", r"unknown field 'schemes\.parametric\.server_start_power'"),
        ("even", "device_step=1", r"unknown field 'schemes\.even\.device_step'"),
    ],
)
def test_a_party_has_only_its_own_settings(name: str, given: str, expected: str):
    with pytest.raises(InputError, match=expected):
        pair_for(name, load("paper", [f"schemes.{name}.{given}"]))


# (23): feature weights of each device, mu_(k,i)


def learner_state(action: float, theta: np.ndarray) -> LearnerState:
    zero = jnp.asarray(0.0)
    return LearnerState(jnp.asarray(theta), jnp.asarray(action), zero, zero + jnp.inf, zero)


@pytest.mark.parametrize(
    "name", ["parametric", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qlearning", "binary"))]
)
def test_every_device_has_its_own_feature_weights(name: str, play: Play, mixed_world: World):
    """Standard normals (M, 3 + n) for each of the four, all different, that a run leaves as they are; none shared."""
    pair = ControllerPair(replace(SCHEMES[name].device, feature_weights="per_device"), Steady())
    run = play(pair, mixed_world, blocks=50)
    mu = np.asarray(run.carry.device_state.mu)
    assert mu.shape == (2, 30, 8, 4)
    assert len({mu[seed, ..., k].tobytes() for seed in range(2) for k in range(4)}) == 8
    assert abs(mu.mean()) < 5 / np.sqrt(mu.size)
    assert mu.var() == pytest.approx(1.0, abs=5 * np.sqrt(2 / mu.size))
    assert run.pair.device.mu is None


@pytest.mark.usefixtures("float64")
def test_features_of_a_fleet_with_its_own_weights_are_those_of_each_device():
    rng, devices = np.random.default_rng(3), jax.tree.map(jnp.asarray, by_hand().devices)
    mu, bits = rng.normal(size=(6, 8, 4)), rng.integers(2, size=(5, 4)).astype(float)
    q, gain, power = jnp.arange(4.0), GAIN * jnp.array([0.5, 1.0, 2.0, 3.0]), jnp.array([0.1, 0.2, 0.3, 0.4])
    fleet = DeviceView(q, gain, jnp.asarray(bits), view_of(0.0, GAIN).broadcast)
    found = np.asarray(device_features(jnp.asarray(mu), devices, fleet)(power, q))
    for k in range(4):
        inputs = np.r_[float(q[k]), float(gain[k]) / GAIN, float(power[k]), bits[:, k]]
        assert found[:, k] == pytest.approx(1 / (1 + np.exp(-mu[..., k] @ inputs)), rel=1e-12)


# (28a): no upper end of p; the printed stopping rule


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("limited", "expected"), [(True, MAX_POWER), (False, 2e4)])
def test_the_power_has_an_upper_end_or_none(limited: bool, expected: float):
    """delta = -p + c has the derivative -1 by p: at p = 9e3, step 1 and c = 9e3 + 5.5e3 it grows by 2 delta = 1.1e4.

    In [0, 1e4] only to its end; downwards both readings end at 0.
    """
    rule = Algorithm1(step=1.0, decay=0.0, stop=False, limit_power=limited)

    def terms(c: float) -> Callable[[jax.Array, jax.Array], Any]:
        return lambda p, theta: (c - p, 0.0 * jnp.sum(theta), 0.0 * p)

    limit = MAX_POWER if rule.limit_power else None
    state = learner_state(9e3, np.ones(30))
    assert float(rule.update(state, terms(9e3 + 5.5e3), jnp.asarray(0.95), limit).action) == expected
    assert float(rule.update(state, terms(-1e5), jnp.asarray(0.95), limit).action) == 0.0


def test_without_an_upper_end_a_device_learns_beyond_it(play: Play, four: Callable[..., World]):
    """A step of 10 at decay 0 throws the p of some devices far above the limit, where nothing keeps it below."""
    highest = {}
    for limited in (True, False):
        rule = Algorithm1(gradient="printed", step=10.0, decay=0.0, stop=False, limit_power=limited)
        run = play(ControllerPair(rule, Steady()), four({}), blocks=50)
        highest[limited] = float(np.max(run.carry.device_state.action))
    assert highest[True] == MAX_POWER
    assert highest[False] > 2 * MAX_POWER


@pytest.mark.parametrize("patience", [1, 10])
def test_patience_1_stops_at_the_first_quiet_block(patience: int, play: Play):
    """As printed: of a device alone, the relative change is above eps until it is not, and nothing changes any more.

    With a patience of 10 learning goes on after that block.
    """
    pair = ControllerPair(Algorithm1(gradient="printed", patience=patience, tolerance=5e-4), Steady())
    run = play(pair, world_of(load("paper", {"devices": 1})), blocks=50)
    for seed, change in enumerate(np.asarray(run.metrics.device_relative_change)):
        first = int(np.argmax(change <= np.float32(5e-4)))
        assert 0 < first < 40
        assert (change[first:] == change[first]).all() == (patience == 1)
        assert (int(run.carry.device_state.block[seed, 0]) == first + 1) == (patience == 1)


# Section VI: binary and even by Algorithms 1 and 2, and a server of `random` that learns nothing


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("gain", "offload"), [(1.01, 1.0), (0.99, 0.0), (3.0, 1.0)])
def test_binary_sends_a_whole_task_where_its_power_carries_one(gain: float, offload: float):
    """p = 1 unit is 0.5115 W, a whole task at the mean gain; of two tasks that wait both are started."""
    device, rule = first_device(by_hand()), BinaryParametric()
    assert float(full_power(device)) == pytest.approx(0.5115, rel=1e-12)
    action = rule.act(learner_state(1.0, np.ones(30)), device, view_of(2.0, gain * GAIN), jax.random.key(0))
    assert (float(action.offload), float(action.started)) == (offload, 2.0)
    assert float(action.power) == pytest.approx(0.5115, rel=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("rate", "offload"), [(1.2, 0.3), (2.8, 0.5), (40.0, 0.5)])
def test_even_sends_what_its_power_carries_up_to_its_part_of_the_rate(rate: float, offload: float):
    """p = 1 unit carries half a task at the mean gain; a quarter of the rate is 0.3, 0.7 and 10 tasks."""
    device, rule = first_device(by_hand()), EvenParametric()
    action = rule.act(learner_state(1.0, np.ones(30)), device, view_of(2.0, GAIN, rate), jax.random.key(0))
    assert float(action.offload) == pytest.approx(offload, rel=1e-9)


def test_a_run_of_binary_sends_all_or_nothing(played: Callable[[str], Run]):
    for name in ("binary", "binary-parametric"):
        traces = played(name).traces
        assert traces is not None
        assert set(np.unique(traces.offload)) == {0.0, 1.0}


@pytest.mark.parametrize("name", ["binary-parametric", "even-parametric"])
def test_baselines_of_section_vi_learn_by_both_algorithms(name: str, played: Callable[[str], Run]):
    """theta and p of the devices, eta and f of the server have moved from where they started."""
    run = played(name)
    device, server = run.carry.device_state, run.carry.server_state.learned
    for learned, start in ((device, 1.0), (server, 0.3)):
        assert (np.asarray(learned.block) > 0).all()
        assert not np.array_equal(np.unique(learned.theta), np.unique(learned.theta)[:1])
        assert (np.asarray(learned.action) != np.float32(start)).any()
    assert isinstance(SCHEMES["binary"].device, Binary)  # the Q-learned one stays beside it


@pytest.mark.usefixtures("float64")
def test_the_fixed_server_does_the_same_whether_work_waits_or_not():
    """0.3 of a slot at f_max, 20 tasks: 6 in each."""
    server = jax.tree.map(jnp.asarray, by_hand().server)
    for backlog in (0.0, 100.0):
        view = ServerView(jnp.asarray(backlog), jnp.asarray(0.0), jnp.zeros(4))
        action = Fixed().act((), server, view, jax.random.key(0))
        assert np.asarray(action.service_per_slot) == pytest.approx(np.full(5, 6.0), rel=1e-12)


def test_the_discounted_sum_begins_with_the_initial_queues(play: Play):
    """gamma = 0.5 and b = 0: three tasks wait at each device and are run at once, 4.5 at the server are served at once.

    Block 0 costs 12 + 4.5 for waiting, 4 x 2.5e-3 x 400 x 3^3 = 108 for running, and the server 2.5e-5 x 1000 x 5 x 6^3
    = 27. After that only the server's idle rate costs, 27 a block, which is 27 in all.
    """
    world = by_hand(discount=0.5, **STARTS, **{"device.arrival_prob": 0.0})
    run = play(ControllerPair(SCHEMES["local"].device, Fixed()), world, blocks=50)
    total = discounted(np.asarray(run.metrics.cost(), np.float64), 0.5)
    assert total == pytest.approx(12.0 + 108.0 + 4.5 + 27.0 + 27.0, rel=1e-5)
