"""The package against the plain loops of `reference`: every scheme, every cost part of (8), every block."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_planners
import reference_rules

from partway.controllers.base import DeviceController, ServerController, server_action, uniform
from partway.controllers.qlearning import POWERS, RATES, SHARES, QLearningDevice
from partway.measurement.metrics import BlockMetrics, DeviceTraces
from partway.pytree import cast_floats, record
from partway.rng import controller_keys, per_device, stable_hash
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, pair_for
from partway.simulation.rollout import Options, Run, play_seed, run
from partway.simulation.step import Carry, ControllerPair, first_state
from partway.system.exogenous import exogenous, gains
from partway.system.placement import sample_placement
from partway.system.types import DeviceAction
from partway.system.world import World, build

BLOCKS = 60
SEEDS = (6, 14)
"""With features that tell large powers apart: elsewhere two can have one value, and rounding chooses."""
RECORDED = 7
"""The seed of what is played again in the other precision: one without choices that only rounding tells apart."""
EXACT = {"rtol": 1e-9, "atol": 1e-12}
"""Numbers are of order one; an emptied queue may keep what rounding leaves of it."""

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
"""The preset's numbers are so round that running a task costs what its waiting does, and all cuts can be as fast."""
WORLDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": ({}, UNEVEN),
    "mixed": (FLEET, {}),
    "paper, 0.2 W": ({}, {**UNEVEN, "device.tx_power_max_w": 0.2}),
    "mixed, 0.2 W": (FLEET, {"device.tx_power_max_w": 0.2}),
}
"""Groups, and overrides; all have as many devices and cuts."""

KNOWN = [name for name in SCHEMES if name != "oracle"]
"""Schemes of the reference. `oracle` looks its actions up in the bound's tables, which have tests of their own."""

FRACTIONAL = [name for name in KNOWN if SCHEMES[name].fractional]
"""Schemes that bear the fractional queue of (1) as printed."""

PAPER, EVERY = ("paper", "paper, 0.2 W"), tuple(WORLDS)
MIXED = tuple(name for name in WORLDS if name not in PAPER)
CASES = [
    *((name, "conserving", 2, MIXED) for name in KNOWN),
    *((name, "conserving", 2, PAPER) for name in ("printed", "exact", "priced")),
    ("priced", "conserving", 1, MIXED),  # of those that hear the server and learn
    ("ans", "conserving", 0, MIXED),
    *((name, "as_printed", 0, PAPER) for name in ("exact", "even")),
    *(pytest.param(name, "conserving", 2, PAPER, marks=pytest.mark.slow) for name in KNOWN),
    *(pytest.param(name, "conserving", 1, EVERY, marks=pytest.mark.slow) for name in ("even", "priced")),
    *(pytest.param(name, "as_printed", lag, PAPER, marks=pytest.mark.slow) for name in FRACTIONAL for lag in (0, 1)),
]
"""(scheme, queue, lag, worlds): a scheme is compiled once for PAPER and once for MIXED, which is most of the time."""


class Place(NamedTuple):
    """A scenario with its world and the mean gains."""

    scenario: Scenario
    mean_gain: np.ndarray
    world: World


def place_of(name: str, queue: str, lag: int, objective: str = "average") -> Place:
    """One of WORLDS."""
    groups, overrides = WORLDS[name]
    rules = {"queue": queue, "broadcast_delay_blocks": lag, "objective": objective}
    scenario = load({**groups, "devices": 5, **rules}, overrides)
    placement = sample_placement(scenario)
    return Place(scenario, placement.mean_gain_per_w, build(scenario, placement))


# What is drawn, as the reference wants it.


@jax.jit
def world_draws(world: World, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Arrivals (blocks, n, K) and gains (blocks + 1, K)."""
    drawn = jax.vmap(partial(exogenous, world, seed))(jnp.arange(BLOCKS, dtype=jnp.uint32))
    return drawn.arrivals, jnp.concatenate([gains(world, seed, 0)[None], drawn.gain])


@jax.jit
def action_keys(seed: jax.Array, name_hash: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys with which devices (blocks, K) and server (blocks,) act."""
    key = controller_keys(seed, name_hash)[2]
    of_block = jax.vmap(lambda t: jax.random.split(jax.random.fold_in(key, t)))(jnp.arange(BLOCKS, dtype=jnp.uint32))
    return jax.vmap(lambda own: per_device(own, 5))(of_block[:, 0]), of_block[:, 1]


@partial(jax.jit, static_argnames="choices")
def explored(explore: float, keys: jax.Array, choices: int) -> tuple[jax.Array, jax.Array]:
    """(whether, which): a learner that chooses the same when the first or the last choice is best explores."""
    learner, rising = QLearningDevice(explore=explore), jnp.arange(float(choices))
    first, last = (jax.vmap(partial(learner.choose, values))(keys) for values in (rising, -rising))
    return first == last, first


def chance_of(name: str, pair: ControllerPair, world: World, played: Run, row: int) -> reference.Chance:
    """What chance brings to seed number `row` of a run; it does not depend on queue and lag of `world`."""
    with jax.enable_x64(True):
        seed = jnp.uint32(SEEDS[row])
        arrivals, gain = world_draws(cast_floats(world, "float64"), seed)
        device_keys, server_keys = action_keys(seed, jnp.uint32(stable_hash(name)))
        flat, own = device_keys.reshape(-1), {}
        if name == "random":
            own = {"uniform": jax.vmap(partial(uniform, shape=(), dtype=jnp.float64))(flat).reshape(BLOCKS, 5)}
        if hasattr(pair.device, "explore"):
            whether, which = explored(pair.device.explore, flat, len(SHARES if name == "binary" else POWERS))
            own = {"device_explores": whether.reshape(BLOCKS, 5), "device_index": which.reshape(BLOCKS, 5)}
        if hasattr(pair.server, "explore"):
            own["server_explores"], own["server_index"] = explored(pair.server.explore, server_keys, len(RATES))
    mu, nu = getattr(played.pair.device, "mu", None), getattr(played.loop.server_state, "nu", None)
    own |= {} if mu is None else {"mu": mu[row]}
    own |= (
        {}
        if nu is None
        else {"nu": np.concatenate([nu.own[row, :, None], nu.queues[row], nu.service_per_slot[row]], axis=-1)}
    )
    return reference.Chance(np.asarray(arrivals), np.asarray(gain), **{key: np.asarray(own[key]) for key in own})


# The schemes of the reference.

Makers = tuple[Callable[[reference.DeviceNumbers], Any], Callable[[reference.ServerNumbers], Any]]


def makers(name: str, chance: reference.Chance) -> Makers:
    """The reference's device and server for a scheme."""
    descent = partial(reference.Algorithm2, nu=chance.nu, gradient="printed" if name == "printed" else "exact")
    q_device = partial(reference.QLearningDevice, mu=chance.mu)
    q_server = partial(reference.QLearningServer, nu=chance.nu)
    planner = reference_planners.PostDecisionServer
    return {
        "printed": (partial(reference.Algorithm1, mu=chance.mu, gradient="printed"), descent),
        "exact": (partial(reference.Algorithm1, mu=chance.mu, gradient="exact"), descent),
        "qlearning": (q_device, q_server),
        "qlearning-log": (partial(q_device, log_scaled=True), partial(q_server, log_scaled=True)),
        "binary": (partial(reference.Binary, mu=chance.mu), descent),
        "even": (reference.Even, descent),
        "random": (reference.Random, descent),
        "local": (reference.Local, planner),
        "full": (reference.Full, planner),
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
        "constant": (partial(reference.Constant, tasks=2.0, share=0.5), partial(reference.Steady, speed=0.5)),
    }[name]


def parts_of(history: reference.History) -> dict[str, np.ndarray]:
    """The four parts of (8), block by block."""
    return {
        "server_queue": np.array(history.server_queue),
        "server_energy": np.array(history.server_energy),
        "device_queue": np.sum(history.device_queue, axis=1),
        "device_energy": np.sum(history.device_local, axis=1) + np.sum(history.device_radio, axis=1),
    }


def test_jax_tells_all_schemes_apart() -> None:
    """Compiled programs are found by this comparison: of two that are equal one may be played in place of the other."""
    structures = {
        name: jax.tree.structure(ControllerPair(scheme.device, scheme.server)) for name, scheme in SCHEMES.items()
    }
    same = [(one, other) for one, other in combinations(SCHEMES, 2) if structures[one] == structures[other]]
    assert same == []


@pytest.mark.parametrize(("name", "queue", "broadcast_delay_blocks", "worlds"), CASES)
def test_the_package_agrees_with_the_reference(name: str, queue: str, lag: int, worlds: tuple[str, ...]) -> None:
    for where in worlds:
        play_both(name, where, place_of(where, queue, lag))


def test_learners_of_a_discounted_sum_agree_with_the_reference() -> None:
    """`priced`, of whose learners both have another gamma and the devices no relative values then."""
    play_both("priced", "mixed", place_of("mixed", "conserving", 2, objective="discounted"))


def play_both(name: str, where: str, site: Place) -> None:
    """One scheme in one world, by the package and by the reference."""
    pair, drawn_in = pair_for(name, site.scenario), place_of(where, "conserving", 2).world
    played = run(site.world, pair, name, SEEDS, BLOCKS, precision="float64", traces=True)
    for row in range(len(SEEDS)):
        chance = chance_of(name, pair, drawn_in, played, row)
        expected = reference.play(site.scenario, site.mean_gain, chance, *makers(name, chance), BLOCKS)
        check(played, row, expected, f"{name}, {where}, seed {SEEDS[row]}")


def check(played: Run, row: int, expected: reference.History, where: str) -> None:
    """Every block's actions and cost parts agree."""
    traces, sums = played.traces, played.sums
    assert traces is not None
    q, whole = np.array(expected.q), np.array(expected.whole)
    device_cost = np.array(expected.device_queue) + np.array(expected.device_local) + np.array(expected.device_radio)
    pairs = {
        "q": (traces.q, q),
        "started": (traces.started, q - whole),
        "offload": (traces.offload, expected.offload),
        "service_per_slot": (traces.service_per_slot, expected.service_per_slot),
        "device cost": (traces.cost, device_cost),
        "backlog": (sums.backlog, expected.backlog),
        **{part: (getattr(sums, part), value) for part, value in parts_of(expected).items()},
    }
    for what, (ours, theirs) in pairs.items():
        np.testing.assert_allclose(ours[row], theirs, **EXACT, err_msg=f"{where}: {what}")


# float32 against float64, the actions being the same.


@record
class ReplayedDevice(DeviceController):
    """Asks for what was recorded. Memory: block, whole (blocks,), rest (blocks,)."""

    def act(self, memory: Any, device: Any, view: Any, key: jax.Array) -> DeviceAction:
        block, whole, offload = memory
        return DeviceAction(whole[block], offload[block])

    def learn(self, memory: Any, device: Any, view: Any, action: Any, cost: jax.Array, next_view: Any) -> Any:
        block, whole, offload = memory
        return block + 1, whole, offload


@record
class ReplayedServer(ServerController):
    """Commands what was recorded. Memory: block, rates (blocks, n)."""

    def act(self, memory: Any, server: Any, view: Any, key: jax.Array) -> Any:
        block, rates = memory
        return server_action(view, rates[block])

    def learn(self, memory: Any, server: Any, view: Any, action: Any, cost: jax.Array, next_view: Any) -> Any:
        block, rates = memory
        return block + 1, rates


@jax.jit
def replay(
    world: World, seed: jax.Array, whole: jax.Array, offload: jax.Array, rates: jax.Array
) -> tuple[BlockMetrics, DeviceTraces]:
    """All blocks of one seed with these actions, in the precision of `world`."""
    at_first = jnp.zeros(whole.shape[-1:], int)
    loop = Carry(first_state(world, seed), (at_first, whole, offload), (jnp.zeros((), int), rates))
    pair, key = ControllerPair(ReplayedDevice(), ReplayedServer()), jax.random.key(0)
    return play_seed(world, pair, loop, seed, key, jnp.uint32(0), Options(BLOCKS, traces=True))[1]


def replayed(site: Place, history: reference.History, precision: str) -> tuple[BlockMetrics, DeviceTraces]:
    """The recorded actions once more."""
    with jax.enable_x64(precision == "float64"):
        actions = [
            jnp.asarray(field, precision) for field in (history.whole, history.offload, history.service_per_slot)
        ]
        return jax.tree.map(np.asarray, replay(cast_floats(site.world, precision), jnp.uint32(RECORDED), *actions))


def recorded(name: str, site: Place) -> reference.History:
    """What a scheme of the reference does, with features and exploration of NumPy."""
    with jax.enable_x64(True):
        arrivals, gain = jax.tree.map(np.asarray, world_draws(cast_floats(site.world, "float64"), jnp.uint32(RECORDED)))
    random, servers = np.random.default_rng(0), 2 if name.startswith("qlearning") else 1 + site.scenario.slots
    choices = len(SHARES) if name == "binary" else len(POWERS)
    chance = reference.Chance(
        arrivals,
        gain,
        mu=random.normal(size=(reference.FEATURES, 3 + site.scenario.slots)),
        nu=random.normal(size=(reference.FEATURES, servers + site.scenario.devices)),
        uniform=random.random((BLOCKS, site.scenario.devices)),
        device_explores=random.random((BLOCKS, site.scenario.devices)) < 0.3,
        device_index=random.integers(choices, size=(BLOCKS, site.scenario.devices)),
        server_explores=random.random(BLOCKS) < 0.3,
        server_index=random.integers(len(RATES), size=BLOCKS),
    )
    return reference.play(site.scenario, site.mean_gain, chance, *makers(name, chance), BLOCKS)


@pytest.mark.parametrize("where", WORLDS)
def test_float32_agrees_with_float64_when_the_actions_are_the_same(where: str) -> None:
    site = place_of(where, "conserving", 2)
    for name in KNOWN:
        history = recorded(name, site)
        single, double = replayed(site, history, "float32"), replayed(site, history, "float64")
        assert single[0].cost().dtype == np.float32
        np.testing.assert_allclose(double[0].cost(), sum(parts_of(history).values()), **EXACT, err_msg=name)
        np.testing.assert_array_equal(single[1].started, double[1].started, err_msg=name)
        np.testing.assert_allclose(single[0].cost(), double[0].cost(), rtol=1e-5, atol=0.0, err_msg=name)
