"""What holds for every scheme, by its row in SCHEMES: who may see what, what may not matter, what is conserved."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import MIXED, world_of

from partway.bound.lower_bound import lower_bound
from partway.controllers import base
from partway.controllers.base import (
    DeviceController,
    DeviceView,
    ServerController,
    ServerView,
    no_broadcast,
    server_action,
    uniform,
)
from partway.controllers.baselines import Constant, Even, Local, Random, Steady
from partway.controllers.parametric import Algorithm1
from partway.experiments.comparison import compare
from partway.experiments.statistics import discounted
from partway.pytree import cast_floats, record
from partway.rng import controller_keys, per_device, stable_hash
from partway.scenario.loading import load
from partway.schemes import SCHEMES
from partway.simulation.rollout import Options, Run, evaluate, play_seed
from partway.simulation.rollout import run as play_run
from partway.simulation.step import Carry, ControllerPair, first_state, start
from partway.system.equations import feasible_action, transition
from partway.system.exogenous import arrivals, gains
from partway.system.placement import sample_placement
from partway.system.signalling import broadcast
from partway.system.types import Broadcast, Device, DeviceAction, Exogenous, Server, ServerAction, State
from partway.system.world import World, build

Replay = Callable[..., Any]
DEVICE_TRACES = ("q", "started", "offload", "power", "cost")

MOVED_BY = {
    "printed": {"q", "gain", "memory"},
    "exact": {"q", "gain", "memory"},
    "qlearning": {"q", "gain", "arrivals", "memory", "queues", "backlog"},
    "qlearning-log": {"q", "gain", "arrivals", "memory", "queues"},
    "binary": {"q", "gain", "arrivals", "memory"},
    "even": {"q", "rate"},
    "random": {"q"},
    "local": {"q", "backlog"},
    "full": {"q", "backlog"},
    "myopic": {"q", "gain", "backlog"},
    "drift": {"q", "backlog"},
    "neurosurgeon": {"q", "backlog", "rate"},
    "neurosurgeon-energy": {"q", "backlog"},
    "dads": {"q", "backlog", "rate"},
    "ans": {"q", "memory", "backlog"},
    "coedge": {"q", "backlog"},
    "iao": {"q", "backlog", "rate", "share"},
    "decoupled": {"q", "gain", "memory", "backlog"},
    "priced": {"q", "memory", "backlog", "price"},
    "oracle": {"q", "memory", "backlog"},
    "constant": {"q", "backlog"},
}
"""What changes some action of a scheme when it is changed; a new scheme says here what it looks at."""


@pytest.fixture(scope="module", params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def finished(scheme: str, played: Callable[[str], Run]) -> Run:
    return played(scheme)


# One block further, from a state that somebody has tampered with


def devices_of(tree: Any, here: np.ndarray, other: Callable[[jax.Array], jax.Array]) -> Any:
    """Every leaf, whose last axis is the device, with `other` of it where not `here`."""
    return jax.tree.map(lambda leaf: jnp.where(here, leaf, other(leaf).astype(leaf.dtype)), tree)


def changed(leaf: jax.Array, size: float = 1.0) -> jax.Array:
    return leaf if leaf.dtype == bool else size * (leaf * 1.25 + 0.5)


def but_for(kept: int | None, run: Run, *names: str, size: float = 1.0) -> Carry:
    """The loop of a run in which what is named is another for all devices but one, or for all."""
    here, state = np.arange(4) == (-1 if kept is None else kept), run.loop.state
    new: dict[str, jax.Array] = {}
    if "q" in names:
        new["q"] = devices_of(state.q, here, lambda q: size * (q + 3.0))
    if "gain" in names:
        new["gain"] = devices_of(state.gain, here, lambda h: h[..., ::-1] * 3.0 * max(size, 1e-3))
    if "arrivals" in names:
        new["arrivals"] = devices_of(state.arrivals, here, lambda came: 1.0 - came)
    if "backlog" in names:
        new |= {"backlog": size * (state.backlog + 20.0), "arrived": size * (state.arrived + 7.0)}
    told = replace(
        state.broadcast_queue,
        **{
            f.name: size * (getattr(state.broadcast_queue, f.name) * 1.5 + 1.0)
            for f in fields(Broadcast)
            if f.name in names
        },
    )
    memory = run.loop.device_state
    if "memory" in names:
        memory = devices_of(memory, here, lambda leaf: changed(leaf, size))
    served_by = jax.tree.map(changed, run.loop.server_state) if "server memory" in names else run.loop.server_state
    return Carry(replace(state, **new, broadcast_queue=told), memory, served_by)


def same(
    one: Any, other: Any, blocks: int | None = None, device: int | None = None, names: Any = DEVICE_TRACES
) -> bool:
    at = (slice(None), slice(None, blocks), slice(None) if device is None else device)
    return all(np.array_equal(getattr(one, name)[at], getattr(other, name)[at]) for name in names)


def undeclared(scheme: str) -> list[str]:
    return [f.name for f in fields(Broadcast) if f.name not in SCHEMES[scheme].device.uses_broadcast]


def how_long(scheme: str) -> int | None:
    """Blocks until what others do can be heard: as many as the broadcast is late, or never."""
    return 2 if SCHEMES[scheme].device.uses_broadcast else None


def test_a_device_does_not_see_other_devices(scheme: str, finished: Run, replay: Replay, mixed_world: World):
    """Their queues, channels, arrivals, memories and constants are others: it plays on as before, block by block."""
    untouched = replay(scheme, finished, finished.loop)[2]
    for k in (0, 3):
        tampered = but_for(k, finished, "q", "gain", "arrivals", "memory")
        here = np.arange(4) == k
        devices = jax.tree.map(
            lambda x, here=here: np.where(here, x, x if x.dtype == bool else x * 0.75), mixed_world.devices
        )
        after = replay(scheme, finished, tampered, world=replace(mixed_world, devices=devices))[2]
        assert same(untouched, after, how_long(scheme), k)
        assert not same(untouched, after, how_long(scheme), 1)


def test_a_device_does_not_see_the_server(scheme: str, finished: Run, replay: Replay):
    """Nor its queue, nor its memory, nor words that are not declared: `uses_broadcast` is what signalling counts."""
    untouched = replay(scheme, finished, finished.loop)[2]
    inside = replay(scheme, finished, but_for(None, finished, "backlog", "server memory"))[2]
    assert same(untouched, inside, how_long(scheme))
    words = replay(scheme, finished, but_for(None, finished, *undeclared(scheme)))[2]
    assert same(untouched, words)


def test_to_use_a_word_without_declaring_it_is_an_error(mixed_world: World):
    """Whatever is done with it, in any fleet: of a large one, devices that hear nothing play ahead of the server."""

    class Deaf(DeviceController):
        use: ClassVar[Callable[[Any], Any]] = staticmethod(lambda price: 0.5 * price)

        def act(self, memory: Any, device: Any, view: Any, key: Any) -> DeviceAction:
            return DeviceAction(whole=view.q * 0.0, offload=view.q * 0.0 + self.use(view.broadcast.price))

    class Hearing(Deaf):
        uses_broadcast = ("price",)

    def play(controller: type[Deaf]) -> Run:
        return play_run(mixed_world, ControllerPair(record(controller)(), SCHEMES["priced"].server), "own", [0], 10)

    uses: list[Callable[[Any], Any]] = [
        Deaf.use,
        lambda price: price == 0,
        lambda price: price > 1,
        lambda price: price < 1,
        lambda price: price or 0.0,
        lambda price: 0.5 if price else 0.0,
        float,
        lambda price: jnp.where(True, price, 0.0),
        lambda price: jnp.ones(()) * price,
        lambda price: np.float32(1) * price,
        jnp.sqrt,
        np.sqrt,
    ]
    for use in uses:
        with pytest.raises(TypeError, match=r"`heard.price` is used and not declared: name 'price' in .* `hears`"):
            play(type("Deafer", (Deaf,), {"use": staticmethod(use)}))
    assert np.any(play(Hearing).sums.sent > 0)  # it has heard a price
    with pytest.raises(TypeError, match=r"Misspelt.hears names \['prize'\]: the server says \['price'"):
        type("Misspelt", (Hearing,), {"uses_broadcast": ("prize",)})


def test_what_is_heard_can_be_remembered(mixed_world: World):
    """It sends when the price is higher than the one it heard in the block before: sometimes."""

    @record
    class Remembering(DeviceController):
        uses_broadcast = ("price",)

        def init(self, device: Any, view: Any, key: Any) -> Any:
            return view.broadcast

        def act(self, memory: Any, device: Any, view: Any, key: Any) -> DeviceAction:
            return DeviceAction(whole=view.q * 0.0, offload=jnp.where(view.broadcast.price > memory.price, 1.0, 0.0))

        def learn(self, memory: Any, device: Any, view: Any, action: Any, cost: Any, next_view: Any) -> Any:
            return view.broadcast

    sent = play_run(mixed_world, ControllerPair(Remembering(), SCHEMES["priced"].server), "own", [0], 20).sums.sent[0]
    assert 0 < np.count_nonzero(sent) < 20


def test_the_server_does_not_see_the_devices(scheme: str, finished: Run, replay: Replay):
    """Not their channels, arrivals and memories, and their queues only where `sees_queues` is declared and counted."""
    unseen = {"gain", "arrivals", "memory", "price", "rate", "backlog", "share"}
    if not SCHEMES[scheme].server.sees_queues:
        unseen.add("q")
    state = finished.loop.state
    short = replace(
        finished, loop=replace(finished.loop, state=replace(state, backlog=jnp.full_like(state.backlog, 0.5)))
    )
    for run in (finished, short):  # a long queue can hide what is seen: the server is at its limit
        untouched = replay(scheme, run, run.loop)[2]
        after = replay(scheme, run, but_for(None, run, *unseen))[2]
        assert np.array_equal(untouched.service_per_slot[:, 0], after.service_per_slot[:, 0])


def test_nobody_sees_probabilities_or_the_future(scheme: str, finished: Run, replay: Replay, mixed_world: World):
    """With other probabilities and other draws from this block on, this block's actions are the same."""
    untouched = replay(scheme, finished, finished.loop)[2]
    world = replace(mixed_world, arrival_threshold=mixed_world.arrival_threshold // 3)
    after = replay(scheme, finished, finished.loop, world=world, seeds=(8, 9))[2]
    assert same(untouched, after, blocks=1, names=(*DEVICE_TRACES, "service_per_slot"))
    assert not same(untouched, after, names=("arrivals",))


def test_what_is_seen_does_change_what_is_done(scheme: str, finished: Run, replay: Replay):
    """So that the tests above can fail: what a scheme looks at, made nothing or (much) more, changes an action now, or
    after a few blocks more, or where the server was heard to be fast."""
    runs = [finished, replace(finished, loop=but_for(None, finished, "rate", size=10.0))]
    for _ in range(3):
        runs.append(replace(finished, loop=replay(scheme, finished, runs[-1].loop)[0]))
    untouched = [replay(scheme, finished, run.loop)[2] for run in runs]

    def moves(what: str) -> bool:
        looked_at = ("service_per_slot",) if what in ("queues", "backlog") else ("started", "offload")
        field, sizes = "q" if what == "queues" else what, (0.0, 1.0, 1e3)
        return any(
            not same(before, replay(scheme, finished, but_for(None, run, field, size=size))[2], 1, names=looked_at)
            for run, before in zip(runs, untouched, strict=True)
            for size in sizes
        )

    assert {what for what in MOVED_BY[scheme] if not moves(what)} == set()


# One device by itself


def test_a_device_acts_alone_as_in_the_fleet(scheme: str, finished: Run, replay: Replay, mixed_world: World):
    """`act` for one device, without batch axes, is what the fleet did: it could run on the device."""
    traces = replay(scheme, finished, finished.loop)[2]
    seed, world = 1, cast_floats(mixed_world, "float32")
    key = controller_keys(jnp.uint32(seed), jnp.uint32(stable_hash(scheme)))[2]
    own = per_device(jax.random.split(jax.random.fold_in(key, jnp.uint32(100)))[0], 4)
    controller, state = jax.tree.map(lambda leaf: leaf[seed], (finished.pair.device, finished.loop.state))
    known = {name: getattr(controller, name) for name in ("mu", "certificate") if hasattr(controller, name)}
    controller = replace(SCHEMES[scheme].device, **known)
    init_fleet = jax.tree.map(lambda leaf: leaf[seed], finished.loop.device_state)
    words = broadcast(state.broadcast_queue, state.broadcast_queue)

    @jax.jit
    def decide(device: Device, memory: Any, view: DeviceView, key: jax.Array) -> DeviceAction:
        return feasible_action(device, view.q, view.gain, controller.act(memory, device, view, key))

    for k in (0, 1, 2, 3):
        device, memory = jax.tree.map(lambda leaf, k=k: leaf[..., k], (world.devices, init_fleet))
        told = replace(words, share=words.share[k])
        view = DeviceView(state.q[k], state.gain[k], state.arrivals[:, k], told)
        action = decide(device, memory, view, own[k])
        assert float(state.q[k] - action.whole) == traces.started[seed, 0, k]
        assert float(action.offload) == pytest.approx(float(traces.offload[seed, 0, k]), rel=1e-5)


def test_a_fleet_of_one_plays_like_the_first_of_four(
    played: Callable[[str], Run], play: Callable[..., Run], mixed_world: World
):
    """`random` hears nobody, so that neither the others nor another server make a difference to the first device."""
    first = jax.tree.map(lambda leaf: leaf[..., :1], mixed_world.devices)
    one = World(first, mixed_world.server, mixed_world.arrival_threshold[:1])
    alone, fleet = play(ControllerPair(Random(), Steady()), one, name="random").traces, played("random").traces
    for name in ("arrivals", "q", "gain", "started", "offload"):
        assert np.array_equal(getattr(alone, name)[..., 0], getattr(fleet, name)[..., 0])


# T15: the power commanded and the power spent


def test_off_command_counts_who_spent_another_power(played: Callable[[str], Run], replay: Any, mixed_world: World):
    """One block, channels at their mean, commands in units of half a task's power.

    Device 0 has a task and is told 1: sends half of it, as commanded. Device 1 has none: spends nothing. Device 2 is
    told 1.1: the power of AlexNet's next smaller cut is another. Device 3 is told 5000: a whole task takes less.
    """
    run = played("exact")
    state = run.loop.state
    q = jnp.broadcast_to(jnp.array([1.0, 0.0, 1.0, 1.0], jnp.float32), state.q.shape)
    gain = jnp.broadcast_to(jnp.asarray(mixed_world.devices.mean_gain, jnp.float32), state.gain.shape)
    power = jnp.broadcast_to(jnp.array([1.0, 1.0, 1.1, 5e3], jnp.float32), run.loop.device_state.action.shape)
    memory = replace(run.loop.device_state, action=power)
    _, sums, traces = replay("exact", run, replace(run.loop, state=replace(state, q=q, gain=gain), device_state=memory))
    assert traces.offload[:, 0, 0] == pytest.approx(0.5, rel=1e-5)
    assert (traces.power[:, 0, 1] == 0.0).all()
    assert (traces.offload[:, 0, 3] == 1.0).all()
    assert (sums.power_mismatch[:, 0] == 0.75).all()


def test_off_command_is_undefined_where_no_power_is_commanded(played: Callable[[str], Run]):
    assert np.isnan(played("random").sums.power_mismatch).all()


# What results do not depend on


def test_neither_the_split_into_calls_nor_the_number_of_seeds_matters(
    played: Callable[[str], Run], play: Callable[..., Run], mixed_world: World
):
    """Two calls of 50 blocks for seeds 0 and 1, one call of 100 for seed 1 alone: learning and drawing go on."""
    both, alone = played("random"), play("random", mixed_world, seeds=(1,), call=100)
    for name in ("q", "started", "offload", "arrivals", "gain"):
        assert np.array_equal(getattr(alone.traces, name)[0], getattr(both.traces, name)[1])
    assert np.allclose(alone.traces.service_per_slot[0], both.traces.service_per_slot[1], rtol=1e-4)
    assert np.allclose(alone.sums.cost()[0], both.sums.cost()[1], rtol=1e-4)


@pytest.mark.parametrize(("device", "server"), [("qlearning", "priced"), ("exact", "printed")])
def test_the_number_of_cores_does_not_matter(
    device: str, server: str, play: Callable[..., Run], mixed_world: World, monkeypatch: pytest.MonkeyPatch
):
    """Two calls of two seeds on one thread and on two, each with a seed of its own: all that a run leaves."""
    pair, found = ControllerPair(SCHEMES[device].device, SCHEMES[server].server), list[Any]()
    for cores in ("1", "2"):
        monkeypatch.setenv("NPROC", cores)
        run = play(pair, mixed_world, name=device, precision="float64")
        found.append((run.sums, run.traces, run.loop))
    one, two = (jax.tree.leaves(each) for each in found)
    assert len(one) > 30
    assert all(np.allclose(a, b, rtol=1e-12, atol=1e-11, equal_nan=True) for a, b in zip(one, two, strict=True))


@pytest.fixture(scope="module")
def chance(mixed_world: World) -> tuple[np.ndarray, np.ndarray]:
    """What the world draws for seeds 0 and 1 in 100 blocks, with nobody in it: arrivals, and gains from block 0 on."""

    @jax.jit
    def drawn(world: World, seeds: jax.Array, blocks: jax.Array) -> tuple[jax.Array, jax.Array]:
        def block(seed: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            return arrivals(world, seed, t), gains(world, seed, t)

        return jax.vmap(jax.vmap(block, in_axes=(None, 0)), in_axes=(0, None))(seeds, blocks)

    both = drawn(
        cast_floats(mixed_world, "float32"), jnp.arange(2, dtype=jnp.uint32), jnp.arange(100, dtype=jnp.uint32)
    )
    return np.asarray(both[0]), np.asarray(both[1])


def test_every_scheme_meets_the_same_world(finished: Run, chance: tuple[np.ndarray, np.ndarray]):
    """(10), (18): arrivals and gains are what the world draws for seed, block and device, whatever anybody does."""
    assert np.array_equal(finished.traces.arrivals, chance[0])
    assert np.allclose(finished.traces.gain, chance[1], rtol=1e-6)


def test_a_run_is_the_same_twice(played: Callable[[str], Run], play: Callable[..., Run], mixed_world: World):
    again, first = play("random", mixed_world), played("random")
    for field in fields(first.sums):
        assert np.array_equal(getattr(again.sums, field.name), getattr(first.sums, field.name), equal_nan=True)


@pytest.mark.usefixtures("small_calls")
def test_a_trained_policy_is_played_as_it_is(played: Callable[[str], Run], mixed_world: World):
    """From empty queues, with new draws, and without learning: the server's rates are those learned, in every block."""
    trained = played("exact")
    run = evaluate(mixed_world, trained, "exact", (5, 6), 50, traces=True)
    assert (run.traces.q[:, 0] == 0).all()
    assert not np.array_equal(run.traces.arrivals, trained.traces.arrivals[:, :50])
    learned = trained.loop.server_state.learned.action * mixed_world.server.slot_capacity
    assert np.allclose(run.traces.service_per_slot, np.asarray(learned)[:, None], rtol=1e-5)
    for after, before in ((run.loop.device_state, trained.loop.device_state), (run.pair, trained.pair)):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), after, before))
    with pytest.raises(ValueError, match="2 policies were trained"):
        evaluate(mixed_world, trained, "exact", (5,), 50)


# Laws of a run


def test_a_run_has_a_finite_cost_in_every_block_of_every_seed(finished: Run):
    assert finished.sums.cost().shape == (2, 100)
    assert np.isfinite(finished.sums.cost()).all()
    assert (finished.sums.cost() >= 0).all()


def test_the_parts_of_13_sum_to_8(finished: Run):
    of_server = finished.sums.server_queue + finished.sums.server_energy
    assert np.allclose(finished.sums.cost(), of_server + finished.traces.cost.sum(axis=-1), rtol=1e-5)


def test_work_is_conserved(finished: Run, mixed_world: World):
    """Tasks arrived = finished by the device + sent + waiting, at each; work sent = served + waiting, at the server."""
    traces, last = finished.traces, finished.loop.state
    arrived, started, offload = (
        np.asarray(x, np.float64) for x in (traces.arrivals.sum(axis=2), traces.started, traces.offload)
    )
    local = (started - offload).sum(axis=1)
    assert np.allclose(arrived.sum(axis=1), local + offload.sum(axis=1) + last.q, rtol=0, atol=1e-4)
    sent = (offload @ np.asarray(mixed_world.devices.server_work, np.float64)).sum(axis=1)
    assert np.allclose(sent, finished.sums.served.sum(axis=1) + last.backlog, rtol=1e-4, atol=1e-4)
    assert np.array_equal(traces.q, np.round(traces.q))


@pytest.fixture(scope="module")
def bounded_worlds() -> list[tuple[World, float]]:
    """Two worlds of four unequal devices, two of them with real networks, drawn at random; their discounted bounds."""
    drawn, found = np.random.default_rng(0), list[tuple[World, float]]()
    for _ in range(2):
        changed: dict[str, Any] = {
            "placement_seed": int(drawn.integers(1000)),
            "weights.server_queue": 10.0 ** drawn.uniform(-11, -9),
            "weights.server_energy": 10.0 ** drawn.uniform(-6, -2),
            "weights.device_queue": 10.0 ** drawn.uniform(-10.5, -9.5),
            "server.cpu_max_hz": 10.0 ** drawn.uniform(10.5, 12.5),
        }
        world = world_of(load(MIXED, changed))
        bounded = world_of(load(MIXED, changed | {"objective": "discounted", "discount": 0.8}))
        found.append((world, lower_bound(bounded, bins=64).value))
    return found


def test_no_scheme_costs_less_than_the_discounted_bound(
    scheme: str,
    play: Callable[..., Run],
    pair_of: Callable[[str], ControllerPair],
    bounded_worlds: list[tuple[World, float]],
):
    """Sixteen runs from empty queues, whose later blocks count for nothing at gamma = 0.8."""
    for world, least in bounded_worlds:
        runs = [play(pair_of(scheme), world, name=scheme, seeds=(seed, seed + 1)) for seed in range(0, 16, 2)]
        sums = np.concatenate([discounted(one.sums.cost().astype(np.float64), 0.8) for one in runs])
        assert sums.mean() > least - 5 * sums.std(ddof=1) / np.sqrt(16)


def test_the_discounted_bound_says_something(play: Callable[..., Run], bounded_worlds: list[tuple[World, float]]):
    """In each of those worlds the better of two simple schemes costs less than three times the bound."""
    for world, least in bounded_worlds:
        costs = [
            discounted(play(name, world, name=name).sums.cost().astype(np.float64), 0.8).mean()
            for name in ("priced", "local")
        ]
        assert min(costs) < 3 * least


def test_no_device_does_what_it_cannot(finished: Run, mixed_world: World):
    traces, devices = finished.traces, mixed_world.devices
    assert (traces.started - traces.offload <= devices.capacity + 1.01e-4).all()
    assert (traces.power <= devices.tx_power_max_w * (1 + 1e-4)).all()
    assert (traces.offload <= np.minimum(traces.started, 1.0)).all()
    assert (traces.started <= traces.q).all()


def test_signalling_counts_what_is_declared(scheme: str):
    row = SCHEMES[scheme]
    assert set(row.device.uses_broadcast) <= {f.name for f in fields(Broadcast)}
    assert row.signalling() == {"up": int(row.server.sees_queues), "down": len(row.device.uses_broadcast)}


# Random keys


def traced(pair: ControllerPair, world: World) -> None:
    """Check a run's beginning and two blocks for keys used twice; it is enough to trace it."""

    def both(pair: ControllerPair, seed: jax.Array, keys: jax.Array):
        agreed, loop = start(world, pair, seed, keys)
        return play_seed(world, agreed, loop, seed, keys[2], jnp.uint32(0), Options(2))

    with jax.debug_key_reuse(True):
        jax.jit(both).trace(pair, jnp.uint32(1), controller_keys(jnp.uint32(1), jnp.uint32(3)))


def test_no_random_key_is_used_twice(scheme: str, pair_of: Callable[[str], ControllerPair], mixed_world: World):
    traced(cast_floats(pair_of(scheme), "float32"), cast_floats(mixed_world, "float32"))


def test_a_run_of_two_calls_passes_the_check_too(mixed_world: World, play: Callable[..., Run]):
    with jax.debug_key_reuse(True):
        play(ControllerPair(Random(), Steady()), mixed_world, blocks=4, call=2)


@record
class Careless(DeviceController):
    """Uses its key twice."""

    def act(self, memory: Any, device: Any, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(uniform(key, (), view.q.dtype), uniform(key, (), view.q.dtype))


@record
class CarelessServer(ServerController):
    """Uses its key twice."""

    def act(self, memory: Any, server: Any, view: Any, key: jax.Array) -> ServerAction:
        return server_action(view, uniform(key, (5,), view.backlog.dtype) + uniform(key, (5,), view.backlog.dtype))


@pytest.mark.parametrize(
    "pair", [ControllerPair(Careless(), Steady()), ControllerPair(Local(), CarelessServer())], ids=["device", "server"]
)
def test_a_key_used_twice_is_found(pair: ControllerPair, mixed_world: World):
    with pytest.raises(jax.errors.KeyReuseError):
        traced(pair, cast_floats(mixed_world, "float32"))


# Controllers are values


def both_controllers(scheme: str) -> list[Any]:
    return [SCHEMES[scheme].device, SCHEMES[scheme].server]


def test_controllers_hash_compare_print_and_are_frozen(scheme: str):
    for one in both_controllers(scheme):
        twin = replace(one)
        assert one == twin
        assert hash(one) == hash(twin)
        settings = [f.name for f in fields(one) if isinstance(getattr(one, f.name), float)]
        for name in settings:
            other = replace(one, **{name: getattr(one, name) + 0.125})
            assert one != other
            assert f"{name}={getattr(other, name)}" in repr(other)
        with pytest.raises((FrozenInstanceError, TypeError)):
            one.anything = 1.0


def floats_of(controller: Any) -> list[float]:
    """Its hyperparameters that are floats, and those of a controller in it."""
    values = [getattr(controller, f.name) for f in fields(controller)]
    inner = [value for value in values if isinstance(value, ServerController)]
    return [value for value in values if isinstance(value, float)] + [x for one in inner for x in floats_of(one)]


def test_hyperparameters_are_leaves_and_switches_are_not(scheme: str):
    """Floats can be traced, differentiated and vmapped; whole numbers, switches and words are part of the program."""
    for one in both_controllers(scheme):
        assert sorted(jax.tree.leaves(one)) == sorted(floats_of(one))


def test_hyperparameters_vmap(mixed_world: World):
    """A learner at three steps at once learns what each would have learned by itself."""
    devices = cast_floats(mixed_world, "float32").devices
    device = jax.tree.map(lambda leaf: leaf[..., 0], devices)
    rule = Algorithm1().setup(jax.random.key(0), devices)
    words = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else leaf[0], no_broadcast(1, jnp.float32))
    view = DeviceView(jnp.float32(2.0), device.mean_gain, jnp.zeros(5, jnp.float32), words)
    memory = rule.init(device, view, jax.random.key(1))
    action = DeviceAction(jnp.float32(0.0), jnp.float32(0.5), jnp.float32(0.1))

    def theta(step: jax.Array) -> jax.Array:
        return replace(rule, step=step).learn(memory, device, view, action, jnp.float32(1.0), view).theta

    steps = jnp.array([0.0, 0.01, 0.1], jnp.float32)
    at_once, alone = jax.jit(jax.vmap(theta))(steps), jax.jit(theta)
    assert np.allclose(at_once, np.stack([alone(step) for step in steps]), rtol=1e-5)
    assert len({tuple(row) for row in np.asarray(at_once)}) == 3


def test_policies_vmap(mixed_world: World):
    """Two constant policies in one program: of three tasks one is taken up and none sent; two, and a quarter of one."""
    world = cast_floats(mixed_world, "float32")
    device = jax.tree.map(lambda leaf: leaf[..., 0], world.devices)
    words = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else leaf[0], no_broadcast(1, jnp.float32))
    view = DeviceView(jnp.float32(3.0), device.mean_gain, jnp.zeros(5, jnp.float32), words)
    policies = Constant(share=jnp.array([0.0, 0.25]), tasks=jnp.array([1.0, 2.0]))
    actions = jax.vmap(lambda policy: policy.act((), device, view, jax.random.key(0)))(policies)
    assert actions.offload.tolist() == [0.0, 0.25]
    assert actions.whole.tolist() == [2.0, 1.0]


# The broadcast


@pytest.mark.parametrize("broadcast_delay_blocks", [0, 1, 2, 3])
def test_devices_hear_what_was_said_lag_blocks_ago(lag: int):
    """The server says 10, 11, 12, ...; before it has spoken devices hear zero."""
    scenario = load({"devices": 2, "broadcast_delay_blocks": lag})
    world = cast_floats(build(scenario, sample_placement(scenario)), "float32")
    state: State = first_state(world, jnp.uint32(0))
    quiet = Exogenous(jnp.zeros((5, 2), jnp.float32), state.gain)
    idle = DeviceAction(jnp.zeros(2), jnp.zeros(2))
    said = [10.0 + t for t in range(6)]
    prices, shares = [], []
    for price in said:
        word = jnp.float32(price)
        now = Broadcast(price=word, service_rate=word, backlog=word, share=jnp.array([price, -price], jnp.float32))
        words = broadcast(state.broadcast_queue, now)
        prices.append(float(words.price))
        shares.append(np.asarray(words.share).tolist())
        state = transition(world.devices, state, idle, ServerAction(jnp.zeros(5), now), quiet)
    assert prices == ([0.0] * lag + said)[:6]
    assert shares == [[price, -price] for price in prices]


@record
class Faster(ServerController):
    """Works 0.05 tasks more in every block."""

    def init(self, server: Server, view: ServerView, key: jax.Array) -> jax.Array:
        return jnp.ones_like(view.backlog)

    def act(self, memory: jax.Array, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        return server_action(view, jnp.full((server.slots,), 0.01 * memory))

    def learn(self, memory: jax.Array, *happened: Any) -> jax.Array:
        return memory + 1.0


@record
class Excessive(ServerController):
    """Asks for twice what the server can do, and then for less than nothing."""

    def act(self, memory: Any, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        return server_action(view, 2.0 * server.slot_capacity * jnp.array([1.0, 1.0, -1.0, 0.1, 0.0]))


def test_the_world_keeps_a_servers_rates_within_what_it_can_do(four: Callable[..., World], play: Callable[..., Run]):
    """The lower bound holds for such rates only, and a negative rate would give work back."""
    world = four({})
    rates = np.asarray(play(ControllerPair(Local(), Excessive()), world, blocks=3).traces.service_per_slot)
    np.testing.assert_allclose(rates[0, 0], float(world.server.slot_capacity) * np.array([1, 1, 0, 0.2, 0]), rtol=1e-6)


def test_without_a_lag_they_hear_what_is_said_in_this_block(four: Callable[..., World], play: Callable[..., Run]):
    """`even` sends the rate heard over K: the one that the server has just chosen, from the first block on."""
    traces = play(
        ControllerPair(Even(), Faster()), four({"broadcast_delay_blocks": 0, "device.arrival_prob": 0.9}), blocks=50
    ).traces
    told = np.broadcast_to(np.asarray(traces.service_per_slot).sum(axis=-1, keepdims=True), traces.offload.shape)
    busy = traces.started > 0
    assert np.allclose(traces.offload[busy], told[busy] / 4, rtol=1e-5)
    assert len(np.unique(told)) == 50


def test_even_hears_the_rate_two_blocks_late(played: Callable[[str], Run], mixed_world: World):
    """T10: every device sends the server's rate of two blocks ago divided by K, at most a task; at first nothing."""
    run = played("even")
    told = np.asarray(run.traces.service_per_slot).sum(axis=-1)
    broadcast = np.concatenate([np.zeros((2, 2)), told[:, :-2]], axis=1)
    for k in (0, 1):  # under the paper's law any share can be sent
        amount = np.minimum(broadcast / 4 / mixed_world.devices.server_work[k], 1.0)
        busy = run.traces.started[..., k] > 0
        assert busy[:, 2:].sum() > 50
        assert np.allclose(run.traces.offload[..., k][busy], amount[busy], rtol=1e-5)
    assert (run.traces.offload[:, :2] == 0).all()
    assert (run.traces.offload[:, 2:20] > 0).any()


# A new policy in ten lines


def example() -> str:
    """The example in the docstring of `partway.controllers.base`."""
    text = textwrap.dedent(inspect.getdoc(base).split("`act`:\n")[1])
    return text.strip("\n") + "\n"


@pytest.mark.usefixtures("small_calls")
def test_a_new_policy_in_ten_lines_runs_through_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The documented example, word for word: it sends half a task whenever one waits, and runs the rest at once."""
    source = example()
    assert len([line for line in source.splitlines() if line.strip()]) <= 10
    assert ast.parse(source).body[0].name == "Half"
    (tmp_path / "mine.py").write_text(
        "from partway import DeviceAction, DeviceController, drain, record\n\n\n" + source
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    half = compare(
        "paper", overrides={"devices": 4}, schemes=["mine:Half"], blocks=100, seeds=2, server="constant"
    ).sel(scheme="mine:Half")
    assert half.status == "ok"
    assert np.allclose(half.sent, 0.5 * 4 * half.radio_utilisation, rtol=1e-6)  # each of the four that sends
    assert float(half.radio_utilisation.mean()) > 0.8  # two tasks arrive per block


def test_random_is_another_for_another_name_and_the_world_is_not(
    played: Callable[[str], Run], play: Callable[..., Run], mixed_world: World
):
    """Controllers' randomness hangs on the scheme's name, the world's on the seed alone."""
    assert SCHEMES["random"].device == Random()
    renamed, first = play("random", mixed_world, name="by another name"), played("random")
    assert np.array_equal(renamed.traces.arrivals, first.traces.arrivals)
    assert np.array_equal(renamed.traces.gain, first.traces.gain)
    assert (renamed.traces.offload != first.traces.offload).mean() > 0.2
