"""The package against the plain loops of `reference`: every scheme, every component of the cost (8), every block."""

from collections.abc import Callable
from functools import cache, partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_designed
import reference_paper
import reference_planners
import reference_rules
from conftest import exogenous, scheduled

from partway.controllers.base import (
    ControllerPair,
    DeviceController,
    DeviceView,
    ServerController,
    ServerView,
    server_action,
    uniform,
)
from partway.controllers.qlearning import POWERS, SHARES, SPEEDS, QLearningDevice
from partway.pytree import cast_floats
from partway.rng import controller_keys, per_device, stable_hash
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, pair_for, stream_of
from partway.simulation.rollout import Run, rollout
from partway.simulation.step import Carry, initial_state
from partway.system.exogenous import gains
from partway.system.placement import sample_placement
from partway.system.types import Device, DeviceAction, Server, ServerAction
from partway.system.world import World, build

BLOCKS = 60
SEEDS = (6, 14)
"""Seeds whose features distinguish large powers; with others two powers can have one value, and rounding chooses."""
RECORDED = 7
"""The seed of the runs that are replayed in both precisions: one without choices that differ by rounding only."""
EXACT = {"rtol": 1e-9, "atol": 1e-12}
"""Numbers are of order one; an emptied queue may keep a rounding error."""

SLOW = {
    "arrival_prob": 0.1,
    "cpu_max_hz": 18e9,
    "task": {"kind": "proportional", "cycles": 1.2e10, "bits_per_cycle": 5e-5},
}
LARGE = {"arrival_prob": 0.5, "capacitance": 5e-29, "energy_weight": 4e-3, "bandwidth_hz": 3e6}
LAYERS = {
    "arrival_prob": 0.3,
    "cpu_max_hz": 2e9,
    "capacitance": 5e-26,
    "macs_per_cycle": 0.5,
    "bandwidth_hz": 2e6,
    "queue_weight": 2e-10,
    "task": {"kind": "layers", "profile": "squeezenet", "tensor_dtype": "uint8", "input_bits": 9e5},
}
FLEET = {
    "group": [{"count": 1, **SLOW}, {"count": 2, **LARGE}, {"count": 2, **LAYERS}],
    "server": {"macs_per_cycle": 0.6, "cpu_max_hz": 3e11},
}
UNEVEN = {"device.cpu_max_hz": 77e9, "device.capacitance": 0.93e-28}
"""With the round numbers of the preset, running a task costs as much as its waiting, and cuts can be equally fast."""
WORLDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": ({}, UNEVEN),
    "mixed": (FLEET, {}),
    "paper, 0.2 W": ({}, {**UNEVEN, "device.tx_power_max_w": 0.2}),
    "mixed, 0.2 W": (FLEET, {"device.tx_power_max_w": 0.2}),
}
"""Groups, and overrides; all worlds have five devices and tables of equally many cuts."""

KNOWN = [name for name in SCHEMES if name != "oracle"]
"""Schemes of the reference. `oracle` uses the tables of the lower bound, which have tests of their own."""

FAMILIES = ["parametric", "qlearning", "random", "drift", "ans", "priced"]
"""One scheme of each family of controllers. What the others add is compared in the slow tests."""

FRACTIONAL = [name for name in KNOWN if SCHEMES[name].fractional]
"""Schemes that work with the fractional queue of (1) as printed."""

PAPER, EVERY = ("paper", "paper, 0.2 W"), tuple(WORLDS)
MIXED = tuple(name for name in WORLDS if name not in PAPER)
CASES = [
    *(pytest.param(name, "conserving", 2, MIXED, marks=() if name in FAMILIES else pytest.mark.slow) for name in KNOWN),
    ("priced", "conserving", 1, MIXED),  # of those that use the broadcast and learn
    ("even", "as_printed", 0, PAPER),
    pytest.param("ans", "conserving", 0, MIXED, marks=pytest.mark.slow),
    *(pytest.param(name, "conserving", 2, PAPER, marks=pytest.mark.slow) for name in KNOWN),
    *(pytest.param(name, "conserving", 1, EVERY, marks=pytest.mark.slow) for name in ("even", "priced")),
    *(
        pytest.param(name, "as_printed", delay, PAPER, marks=pytest.mark.slow)
        for name in FRACTIONAL
        for delay in (0, 1)
    ),
]
"""(scheme, queue, delay, worlds). Most of the time goes into compiling: once for PAPER and once for MIXED."""


class Case(NamedTuple):
    """A scenario with its world and the mean gains."""

    scenario: Scenario
    mean_gain: np.ndarray
    world: World


@cache
def case_of(where: str, queue: str, delay: int, objective: str = "average", *options: tuple[str, Any]) -> Case:
    """One of WORLDS; `options` are (field, value) of its scenario."""
    groups, overrides = WORLDS[where]
    rules = {"queue": queue, "broadcast_delay_blocks": delay, "objective": objective}
    scenario = load({**groups, "devices": 5, **rules}, {**overrides, **dict(options)})
    placement = sample_placement(scenario)
    return Case(scenario, placement.mean_gain_per_w, build(scenario, placement))


# The random numbers of a run, in the form of the reference.


@jax.jit
def world_samples(world: World, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Arrivals (blocks + 1, n, K) and gains (blocks + 2, K)."""
    sampled = jax.vmap(partial(exogenous, world, seed))(jnp.arange(BLOCKS + 1, dtype=jnp.uint32))
    return sampled.arrivals, jnp.concatenate([gains(world, seed, 0)[None], sampled.gain])


@jax.jit
def action_keys(seed: jax.Array, stream_hash: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys with which devices (blocks, K) and server (blocks,) act."""
    key = controller_keys(seed, stream_hash)[2]
    of_block = jax.vmap(lambda t: jax.random.split(jax.random.fold_in(key, t)))(jnp.arange(BLOCKS, dtype=jnp.uint32))
    return jax.vmap(lambda own: per_device(own, 5))(of_block[:, 0]), of_block[:, 1]


@partial(jax.jit, static_argnames="choices")
def explored(explore: float, keys: jax.Array, choices: int) -> tuple[jax.Array, jax.Array]:
    """(whether, which): a learner explores if it chooses the same, be the first or the last choice the best."""
    learner, rising = QLearningDevice(explore=explore), jnp.arange(float(choices))
    first, last = (jax.vmap(partial(learner.choose, values))(keys) for values in (rising, -rising))
    return first == last, first


def faded(pair: ControllerPair, row: int, device_keys: jax.Array, server_keys: jax.Array) -> dict[str, jax.Array]:
    """The same of learners that explore less and less: u < explore (1 + t)^-decay, and which by a second number."""
    rate = pair.device.explore[row] * (1.0 + jnp.arange(BLOCKS)) ** -pair.device.decay[row]
    draws = partial(uniform, shape=(2,), dtype=jnp.float64)
    device, server = jax.vmap(draws)(device_keys).reshape(BLOCKS, 5, 2), jax.vmap(draws)(server_keys)
    return {
        "device_explores": device[..., 0] < rate[:, None],
        "device_index": jnp.floor(device[..., 1] * len(reference_designed.SHARES)).astype(int),
        "server_explores": server[:, 0] < rate,
        "server_index": jnp.floor(server[:, 1] * len(reference_designed.FRACTIONS)).astype(int),
    }


def samples_of(name: str, run: Run, world: World, row: int) -> reference.Samples:
    """The random numbers of seed number `row` of a run; they do not depend on queue and delay of `world`."""
    pair = run.pair
    with jax.enable_x64(True):
        seed = jnp.uint32(SEEDS[row])
        arrivals, gain = world_samples(cast_floats(world, "float64"), seed)
        device_keys, server_keys = action_keys(seed, jnp.uint32(stable_hash(stream_of(name))))
        flat, own = device_keys.reshape(-1), dict[str, Any]()
        if name.startswith("random"):
            own["uniform"] = jax.vmap(partial(uniform, shape=(), dtype=jnp.float64))(flat).reshape(BLOCKS, 5)
        if name == "qlearning-designed":
            own |= faded(pair, row, flat, server_keys)
        elif hasattr(pair.device, "explore"):
            whether, which = explored(pair.device.explore[row], flat, len(SHARES if name == "binary" else POWERS))
            own |= {"device_explores": whether.reshape(BLOCKS, 5), "device_index": which.reshape(BLOCKS, 5)}
        if hasattr(pair.server, "explore") and name != "qlearning-designed":
            own["server_explores"], own["server_index"] = explored(pair.server.explore[row], server_keys, len(SPEEDS))
    mu, nu = getattr(pair.device, "mu", None), getattr(run.carry.server_state, "nu", None)
    each = getattr(run.carry.device_state, "mu", None)
    if mu is not None:
        own["mu"] = mu[row]
    if each is not None:
        own["mu"] = np.moveaxis(np.asarray(each[row]), -1, 0)
    if nu is not None:
        own["nu"] = np.concatenate([nu.own[row, :, None], nu.queues[row], nu.service_per_slot[row]], axis=-1)
    return reference.Samples(np.asarray(arrivals), np.asarray(gain), **{key: np.asarray(own[key]) for key in own})


# The schemes of the reference.

Makers = tuple[Callable[[reference.DeviceNumbers], Any], Callable[[reference.ServerNumbers], Any]]


def makers(name: str, samples: reference.Samples) -> Makers:
    """The reference's device and server for a scheme."""
    gradient = "printed" if name == "parametric-printed" else "exact"
    descent = partial(reference_paper.Algorithm2, nu=samples.nu, gradient=gradient)
    learned = {"mu": samples.mu, "gradient": gradient}
    q_device = partial(reference_paper.QLearningDevice, mu=samples.mu)
    q_server = partial(reference_paper.QLearningServer, nu=samples.nu)
    planner = reference_planners.PostDecisionServer
    return {
        "parametric-printed": (partial(reference_paper.Algorithm1, **learned), descent),
        "parametric": (partial(reference_paper.Algorithm1, **learned), descent),
        "binary-parametric": (partial(reference_paper.BinaryParametric, **learned), descent),
        "even-parametric": (partial(reference_paper.EvenParametric, **learned), descent),
        "qlearning": (q_device, q_server),
        "qlearning-log": (partial(q_device, log_scaled=True), partial(q_server, log_scaled=True)),
        "qlearning-designed": (reference_designed.DesignedDevice, reference_designed.DesignedServer),
        "binary": (partial(reference_paper.Binary, mu=samples.mu), descent),
        "even": (reference_paper.Even, descent),
        "random": (reference_paper.Random, descent),
        "random-fixed": (reference_paper.Random, partial(reference_paper.Fixed, speed=0.3)),
        "local": (reference_paper.Local, planner),
        "full": (reference_paper.Full, planner),
        "myopic": (reference_planners.Myopic, planner),
        "drift": (reference_planners.Drift, planner),
        "neurosurgeon": (reference_rules.Neurosurgeon, planner),
        "neurosurgeon-energy": (reference_rules.NeurosurgeonEnergy, planner),
        "dads": (reference_rules.Dads, planner),
        "ans": (reference_rules.Ans, planner),
        "coedge": (reference_rules.CoEdge, planner),
        "iao": (reference_rules.Iao, reference_rules.IaoServer),
        "decoupled": (reference_planners.PostDecision, planner),
        "priced": (reference_planners.Priced, planner),
        "constant": (
            partial(reference_paper.Constant, tasks=2.0, share=0.5),
            partial(reference_paper.Steady, speed=0.5),
        ),
    }[name]


def components_of(history: reference.History) -> dict[str, np.ndarray]:
    """The four components of (8), block by block."""
    return {
        "server_queue": np.array(history.server_queue),
        "server_energy": np.array(history.server_energy),
        "device_queue": np.sum(history.device_queue, axis=1),
        "device_energy": np.sum(history.device_local, axis=1) + np.sum(history.device_radio, axis=1),
    }


def test_jax_tells_all_schemes_apart() -> None:
    """Compiled programs are looked up by this comparison: of two equal structures one may run in place of the other."""
    structures = {
        name: jax.tree.structure(ControllerPair(scheme.device, scheme.server)) for name, scheme in SCHEMES.items()
    }
    same = [(one, other) for one, other in combinations(SCHEMES, 2) if structures[one] == structures[other]]
    assert same == []


@pytest.mark.parametrize(("name", "queue", "delay", "worlds"), CASES)
def test_the_package_agrees_with_the_reference(name: str, queue: str, delay: int, worlds: tuple[str, ...]) -> None:
    for where in worlds:
        compare(name, where, case_of(where, queue, delay))


def test_learners_of_a_discounted_sum_agree_with_the_reference() -> None:
    """`priced`: both of its learners have another gamma, and the values of its devices are not relative."""
    compare("priced", "mixed", case_of("mixed", "conserving", 2, objective="discounted"))


LITERAL = {
    "arrivals_seen": "current",
    "device.initial_queue_tasks": 3.0,
    "server.initial_queue_tasks": 4.5,
}
"""The printed state and any initial state."""
AS_PRINTED = {
    "device_step": 0.02,
    "device_decay": 0.7,
    "device_start_value": 0.5,
    "server_step": 0.005,
    "server_decay": 0.9,
    "server_start_value": 2.0,
    "feature_weights": "per_device",
    "limit_power": False,
    "patience": 1,
}
"""Of Algorithms 1 and 2: steps and starting values of each party, mu_k of each device, no end of p, no patience."""


@pytest.mark.parametrize("name", [pytest.param("parametric-printed", marks=pytest.mark.slow), "parametric"])
def test_literal_readings_agree_with_the_reference(name: str) -> None:
    """All of them at once; the printed queue too, where its reading is the device's own next queue."""
    queue = "as_printed" if name == "parametric" else "conserving"
    options = [*LITERAL.items(), *((f"schemes.{name}.{field}", value) for field, value in AS_PRINTED.items())]

    def literal(name: str, samples: reference.Samples) -> Makers:
        rates = reference_paper.Rates
        gradient = "printed" if name == "parametric-printed" else "exact"
        device, server = rates(0.02, 0.7, 0.5, patience=1), rates(0.005, 0.9, 2.0, patience=1)
        return (
            partial(reference_paper.Algorithm1, mu=samples.mu, gradient=gradient, rates=device, top=np.inf),
            partial(reference_paper.Algorithm2, nu=samples.nu, gradient=gradient, rates=server),
        )

    compare(name, "paper", case_of("paper", queue, 2, "average", *options), literal)


@pytest.mark.parametrize("name", ["binary", "priced"])
def test_the_printed_state_of_other_learners_agrees_with_the_reference(name: str) -> None:
    """Arrivals seen before acting and queues at the start; Q-learning with the weights of each device."""
    options = [*LITERAL.items()] + ([("schemes.binary.feature_weights", "per_device")] * (name == "binary"))
    compare(name, "mixed", case_of("mixed", "conserving", 2, "average", *options))


def compare(name: str, where: str, case: Case, makers: Callable[[str, reference.Samples], Makers] = makers) -> None:
    """One scheme in one world, by the package and by the reference: actions and cost components of every block."""
    sampled_in = case_of(where, "conserving", 2).world
    with scheduled():
        pair = pair_for(name, case.scenario)
        run = rollout(case.world, pair, stream_of(name), SEEDS, BLOCKS, precision="float64", traces=True)
    for row in range(len(SEEDS)):
        samples = samples_of(name, run, sampled_in, row)
        expected = reference.simulate(case.scenario, case.mean_gain, samples, *makers(name, samples), BLOCKS)
        check(run, row, expected, f"{name}, {where}, seed {SEEDS[row]}")


def check(run: Run, row: int, expected: reference.History, where: str) -> None:
    """Every block's actions and cost components agree."""
    traces, metrics = run.traces, run.metrics
    assert traces is not None
    device_cost = np.array(expected.device_queue) + np.array(expected.device_local) + np.array(expected.device_radio)
    pairs = {
        "q": (traces.q, expected.q),
        "started": (traces.started, expected.started),
        "offload": (traces.offload, expected.offload),
        "service_per_slot": (traces.service_per_slot, expected.service_per_slot),
        "device cost": (traces.cost, device_cost),
        "backlog": (metrics.backlog, expected.backlog),
        **{name: (getattr(metrics, name), value) for name, value in components_of(expected).items()},
    }
    for what, (ours, theirs) in pairs.items():
        np.testing.assert_allclose(ours[row], theirs, **EXACT, err_msg=f"{where}: {what}")


# float32 against float64, the actions being the same.


class RecordedDevice(DeviceController):
    """Asks for recorded actions. State: block, started (blocks,), offload (blocks,)."""

    def act(self, state: Any, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        block, started, offload = state
        return DeviceAction(started[block], offload[block])

    def learn(
        self,
        state: Any,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> Any:
        block, started, offload = state
        return block + 1, started, offload


class RecordedServer(ServerController):
    """Commands recorded service. State: block, service (blocks, n)."""

    def act(self, state: Any, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        block, service = state
        return server_action(view, service[block])

    def learn(
        self,
        state: Any,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> Any:
        block, service = state
        return block + 1, service


first_state = jax.jit(initial_state)


def replayed(case: Case, history: reference.History, precision: str) -> Run:
    """The recorded actions once more, in this precision."""
    with jax.enable_x64(precision == "float64"):
        state = first_state(cast_floats(case.world, precision), jnp.uint32(RECORDED))
        recorded = (history.started, history.offload, history.service_per_slot)
        started, offload, service = (np.asarray(rows, precision) for rows in recorded)
        at_first = np.zeros(started.shape[-1], np.int32)
        carry = Carry(state, (at_first, started, offload), (np.zeros((), np.int32), service))
        carry = jax.tree.map(lambda leaf: np.asarray(leaf)[None], carry)
    pair = ControllerPair(RecordedDevice(), RecordedServer())
    with scheduled():
        return rollout(case.world, pair, "recorded", (RECORDED,), BLOCKS, carry=carry, precision=precision, traces=True)


def recorded(name: str, case: Case) -> reference.History:
    """What a scheme of the reference does, with features and exploration of NumPy."""
    with jax.enable_x64(True):
        world = cast_floats(case.world, "float64")
        arrivals, gain = jax.tree.map(np.asarray, world_samples(world, jnp.uint32(RECORDED)))
    rng, servers = np.random.default_rng(0), 2 if name.startswith("qlearning") else 1 + case.scenario.slots_per_block
    choices = {"binary": len(SHARES), "qlearning-designed": len(reference_designed.SHARES)}.get(name, len(POWERS))
    samples = reference.Samples(
        arrivals,
        gain,
        mu=rng.normal(size=(reference_paper.FEATURES, 3 + case.scenario.slots_per_block)),
        nu=rng.normal(size=(reference_paper.FEATURES, servers + case.scenario.devices)),
        uniform=rng.random((BLOCKS, case.scenario.devices)),
        device_explores=rng.random((BLOCKS, case.scenario.devices)) < 0.3,
        device_index=rng.integers(choices, size=(BLOCKS, case.scenario.devices)),
        server_explores=rng.random(BLOCKS) < 0.3,
        server_index=rng.integers(len(SPEEDS), size=BLOCKS),
    )
    return reference.simulate(case.scenario, case.mean_gain, samples, *makers(name, samples), BLOCKS)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("mixed, 0.2 W", FAMILIES),
        *(pytest.param(where, KNOWN, marks=pytest.mark.slow) for where in WORLDS),
    ],
)
def test_float32_agrees_with_float64_when_the_actions_are_the_same(where: str, names: list[str]) -> None:
    case = case_of(where, "conserving", 2)
    for name in names:
        history = recorded(name, case)
        single, double = replayed(case, history, "float32"), replayed(case, history, "float64")
        assert single.traces is not None
        assert double.traces is not None
        assert single.metrics.cost().dtype == np.float32
        expected = sum(components_of(history).values())
        np.testing.assert_allclose(double.metrics.cost()[0], expected, **EXACT, err_msg=name)
        np.testing.assert_array_equal(single.traces.started, double.traces.started, err_msg=name)
        np.testing.assert_allclose(single.metrics.cost(), double.metrics.cost(), rtol=1e-5, atol=0.0, err_msg=name)
