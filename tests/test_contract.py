"""What holds for every scheme, by its row in SCHEMES: who may see what, what may not matter, what is conserved."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import CALL, MIXED, Play, Replay, arrivals, frozen, world_of

from partway.bound.lower_bound import lower_bound
from partway.controllers.base import (
    BROADCAST_FIELDS,
    ControllerPair,
    DeviceController,
    DeviceView,
    Received,
    ServerController,
    ServerView,
    server_action,
    uniform,
)
from partway.controllers.baselines import Even, Local, Random, Steady
from partway.controllers.block import act_device
from partway.measurement.gap import discounted
from partway.pytree import cast_floats
from partway.rng import controller_keys, per_device, stable_hash
from partway.scenario.loading import load
from partway.schemes import SCHEMES, stream_of
from partway.simulation.rollout import Options, Run, run_blocks
from partway.simulation.step import Carry, init, initial_state, next_state
from partway.system.exogenous import PackedExogenous, gains
from partway.system.signalling import delivered, no_broadcast
from partway.system.types import Broadcast, Device, DeviceAction, Server, ServerAction
from partway.system.world import World

DEVICE_TRACES = ("q", "started", "offload", "power", "cost")

LOOKS_AT = {
    "parametric-printed": {"q", "gain", "device state"},
    "parametric": {"q", "gain", "device state"},
    "qlearning": {"q", "gain", "arrivals", "device state", "queues", "server queue"},
    "qlearning-log": {"q", "gain", "arrivals", "device state", "queues"},
    "qlearning-designed": {"q", "gain", "device state", "server queue"},
    "binary": {"q", "gain", "arrivals", "device state"},
    "even": {"q", "service_rate"},
    "random": {"q"},
    "local": {"q", "server queue"},
    "full": {"q", "server queue"},
    "myopic": {"q", "gain", "server queue"},
    "drift": {"q", "server queue", "backlog"},
    "neurosurgeon": {"q", "server queue", "service_rate", "backlog"},
    "neurosurgeon-energy": {"q", "server queue"},
    "dads": {"q", "server queue", "service_rate"},
    "ans": {"q", "device state", "server queue", "backlog"},
    "coedge": {"q", "server queue", "backlog"},
    "iao": {"q", "server queue", "service_rate", "share"},
    "decoupled": {"q", "gain", "device state", "server queue"},
    "priced": {"q", "device state", "server queue", "price"},
    "oracle": {"q", "device state", "server queue"},
    "constant": {"q", "server queue"},
    "binary-parametric": {"q", "gain", "device state"},
    "even-parametric": {"q", "gain", "device state", "service_rate"},
    "random-fixed": {"q"},
}
"""What changes some action of a scheme when it is changed; a new scheme says here what it looks at."""


FAMILIES = (
    "parametric", "even-parametric", "qlearning", "even", "random", "drift", "ans", "iao", "priced", "oracle",
)  # fmt: skip
"""One scheme for each kind of controller: the others follow the contract in the slow tests."""
ALL = [pytest.param(name, marks=() if name in FAMILIES else pytest.mark.slow) for name in SCHEMES]


@pytest.fixture(scope="module", params=ALL)
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def finished(scheme: str, played: Callable[[str], Run]) -> Run:
    return played(scheme)


# CALL more blocks, from a carry that somebody has tampered with


def other_devices(tree: Any, here: np.ndarray, other: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Every leaf, whose last axis is the device, with `other` of it where not `here`."""
    return jax.tree.map(
        lambda leaf: np.where(here, leaf, np.asarray(other(np.asarray(leaf)), np.asarray(leaf).dtype)), tree
    )


def changed(leaf: Any, size: float = 1.0) -> np.ndarray:
    old = np.asarray(leaf)
    return old if old.dtype == bool else np.asarray(size * (old * 1.25 + 0.5), old.dtype)


def tampered(kept: int | None, run: Run, *names: str, size: float = 1.0) -> Carry:
    """The carry of a run with what is named changed: for all devices but `kept`, or for all.

    names  "q", "gain", "arrivals", "device state", "server queue", "server state", fields of the broadcast
    """
    here, state, carry = np.arange(4) == (-1 if kept is None else kept), run.carry.state, run.carry
    new: dict[str, Any] = {}
    if "q" in names:
        new["q"] = other_devices(state.q, here, lambda q: size * (q + 3.0))
    if "gain" in names:
        new["gain"] = other_devices(state.gain, here, lambda h: h[..., ::-1] * 3.0 * max(size, 1e-3))
    if "arrivals" in names:
        new["arrivals"] = other_devices(state.arrivals, here, lambda arrived: 1.0 - arrived)
    if "server queue" in names:
        new |= {"backlog": changed(state.backlog + 15.6, size), "last_inflow": changed(state.last_inflow + 5.2, size)}
    said = {name: changed(getattr(state.broadcast_queue, name), size) for name in BROADCAST_FIELDS if name in names}
    device_state, server_state = carry.device_state, carry.server_state
    if "device state" in names:
        device_state = other_devices(device_state, here, lambda leaf: changed(leaf, size))
    if "server state" in names:
        server_state = jax.tree.map(changed, server_state)
    state = replace(state, **new, broadcast_queue=replace(state.broadcast_queue, **said))
    return Carry(state, device_state, server_state)


def same(
    one: Any, other: Any, blocks: int | None = None, device: int | None = None, names: Any = DEVICE_TRACES
) -> bool:
    at = (slice(None), slice(None, blocks), slice(None) if device is None else device)
    return all(np.array_equal(getattr(one, name)[at], getattr(other, name)[at]) for name in names)


def undeclared(scheme: str) -> list[str]:
    return [name for name in BROADCAST_FIELDS if name not in SCHEMES[scheme].device.uses_broadcast]


def unaffected_blocks(scheme: str) -> int | None:
    """Blocks in which what others do cannot reach a device: the broadcast's delay, or all."""
    return 2 if SCHEMES[scheme].device.uses_broadcast else None


def test_a_device_does_not_see_other_devices(scheme: str, finished: Run, replay: Replay, mixed_world: World):
    """Their queues, channels, arrivals, states and constants are changed: its own blocks are the same, bit for bit."""
    untouched = replay(scheme, finished, finished.carry)[2]
    for k in (0, 3):
        carry = tampered(k, finished, "q", "gain", "arrivals", "device state")
        here = np.arange(4) == k
        devices = jax.tree.map(
            lambda x, here=here: np.where(here, x, x if x.dtype == bool else x * 0.75), mixed_world.devices
        )
        after = replay(scheme, finished, carry, world=replace(mixed_world, devices=devices))[2]
        assert same(untouched, after, unaffected_blocks(scheme), k)
        assert not same(untouched, after, unaffected_blocks(scheme), 1)


def test_a_device_does_not_see_the_server(scheme: str, finished: Run, replay: Replay):
    """Nor its queue, nor its state, nor undeclared fields of the broadcast: `uses_broadcast` is what is counted."""
    untouched = replay(scheme, finished, finished.carry)[2]
    inside = replay(scheme, finished, tampered(None, finished, "server queue", "server state"))[2]
    assert same(untouched, inside, unaffected_blocks(scheme))
    said = replay(scheme, finished, tampered(None, finished, *undeclared(scheme)))[2]
    assert same(untouched, said)


def test_the_server_does_not_see_the_devices(scheme: str, finished: Run, replay: Replay):
    """Not their channels, arrivals and states, and their queues only where `sees_queues` is declared and counted."""
    unseen = {"gain", "arrivals", "device state", *BROADCAST_FIELDS}
    if not SCHEMES[scheme].server.sees_queues:
        unseen.add("q")
    state = finished.carry.state
    short = replace(state, backlog=np.full_like(state.backlog, 0.5))  # at a long queue it may be at its limit anyway
    for run in (finished, replace(finished, carry=replace(finished.carry, state=short))):
        untouched = replay(scheme, run, run.carry)[2]
        after = replay(scheme, run, tampered(None, run, *unseen))[2]
        assert np.array_equal(untouched.service_per_slot[:, 0], after.service_per_slot[:, 0])


def test_nobody_sees_probabilities_or_the_future(scheme: str, finished: Run, replay: Replay, mixed_world: World):
    """With other probabilities and other random numbers from this block on, this block's actions are the same."""
    untouched = replay(scheme, finished, finished.carry)[2]
    world = replace(mixed_world, arrival_threshold=mixed_world.arrival_threshold // 3)
    after = replay(scheme, finished, finished.carry, world=world, seeds=(8, 9))[2]
    assert same(untouched, after, blocks=1, names=(*DEVICE_TRACES, "service_per_slot"))
    assert not same(untouched, after, names=("arrivals",))


def test_what_a_scheme_looks_at_changes_its_actions(scheme: str, finished: Run, replay: Replay):
    """So that the tests above can fail: set to zero, or made (much) larger, it changes an action in this block.

    Tried at the end of the run, at a few blocks later, and after a broadcast of a fast server.
    """
    looked_at, runs = set(LOOKS_AT[scheme]), [finished]
    runs.append(replace(finished, carry=tampered(None, finished, "service_rate", size=10.0)))
    for run in (*runs, *later(scheme, finished, replay, 3)):
        untouched = replay(scheme, finished, run.carry)[2]
        for what in sorted(looked_at):
            party = ("service_per_slot",) if what in ("queues", "server queue") else ("started", "offload")
            field = "q" if what == "queues" else what
            for size in (0.0, 1.0, 1e3):
                after = replay(scheme, finished, tampered(None, run, field, size=size))[2]
                if not same(untouched, after, 1, names=party):
                    looked_at.discard(what)
                    break
    assert looked_at == set()


def later(scheme: str, run: Run, replay: Replay, calls: int) -> Any:
    """The run some calls later, one after another."""
    for _ in range(calls):
        run = replace(run, carry=replay(scheme, run, run.carry)[0])
        yield run


# One device by itself


def test_a_device_acts_alone_as_in_the_fleet(scheme: str, finished: Run, replay: Replay, mixed_world: World):
    """`act` for one device, without batch axes, is what the fleet did: it could run on the device."""
    traces = replay(scheme, finished, finished.carry)[2]
    seed, world = 1, cast_floats(mixed_world, "float32")
    key = controller_keys(jnp.uint32(seed), jnp.uint32(stable_hash(stream_of(scheme))))[2]
    own = per_device(jax.random.split(jax.random.fold_in(key, jnp.uint32(100)))[0], 4)
    trained, carry = jax.tree.map(lambda leaf: leaf[seed], (finished.pair.device, finished.carry))
    known = {name: getattr(trained, name) for name in ("mu", "certificate") if hasattr(trained, name)}
    controller, state = replace(SCHEMES[scheme].device, **known), carry.state
    arrived = Received.of(delivered(state.broadcast_queue, state.broadcast_queue), controller.uses_broadcast)

    @jax.jit
    def decide(device: Device, own_state: Any, view: DeviceView, key: jax.Array) -> DeviceAction:
        return act_device(controller, own_state, device, view, key)[0]

    for k in (0, 1, 2, 3):
        device, own_state = jax.tree.map(lambda leaf, k=k: leaf[..., k], (world.devices, carry.device_state))
        broadcast = replace_share(arrived, k)
        view = DeviceView(state.q[k], state.gain[k], state.arrivals[:, k], broadcast)
        action = decide(device, own_state, view, own[k])
        assert float(action.started) == traces.started[seed, 0, k]
        assert float(action.offload) == pytest.approx(float(traces.offload[seed, 0, k]), rel=1e-5)


def replace_share(received: Any, k: int) -> Any:
    """A received broadcast with device k's own share."""
    return jax.tree.map(lambda leaf: leaf[k] if np.ndim(leaf) else leaf, received)


@pytest.mark.parametrize("scheme", ["random"])
def test_a_fleet_of_one_acts_like_the_first_of_four(scheme: str, finished: Run, play: Play, mixed_world: World):
    """`random` uses no broadcast, so that neither the others nor another server change what the first device does."""
    first = jax.tree.map(lambda leaf: leaf[..., :1], mixed_world.devices)
    threshold, waiting = mixed_world.arrival_threshold[:1], mixed_world.initial_tasks[:1]
    one = replace(mixed_world, devices=first, arrival_threshold=threshold, initial_tasks=waiting)
    alone = play(ControllerPair(SCHEMES[scheme].device, Steady()), one, stream=scheme).traces
    fleet = finished.traces
    for name in ("arrivals", "q", "gain", "started", "offload"):
        assert np.array_equal(getattr(alone, name)[..., 0], getattr(fleet, name)[..., 0])


# T15: the power commanded and the power spent


@pytest.mark.parametrize("scheme", ["parametric"])
def test_power_mismatch_counts_who_spent_another_power(scheme: str, finished: Run, replay: Replay, mixed_world: World):
    """One block, channels at their mean, commands in units of half a task's power.

    Device 0 has a task and commands 1: it sends half of it, at that power. Device 1 has none: it spends nothing.
    Device 2 commands 1.1: the power of AlexNet's next smaller cut is another. Device 3 commands 5000: a whole task
    takes less.
    """
    run = finished
    state, learned = run.carry.state, run.carry.device_state
    q = np.broadcast_to(np.array([1.0, 0.0, 1.0, 1.0], np.float32), state.q.shape)
    gain = np.broadcast_to(np.asarray(mixed_world.devices.mean_gain, np.float32), state.gain.shape)
    power = np.broadcast_to(np.array([1.0, 1.0, 1.1, 5e3], np.float32), learned.action.shape)
    carry = replace(run.carry, state=replace(state, q=q, gain=gain), device_state=replace(learned, action=power))
    _, metrics, traces = replay(scheme, run, carry)
    assert traces.offload[:, 0, 0] == pytest.approx(0.5, rel=1e-5)
    assert (traces.power[:, 0, 1] == 0.0).all()
    assert (traces.offload[:, 0, 3] == 1.0).all()
    assert (metrics.power_mismatch[:, 0] == 0.75).all()


@pytest.mark.parametrize("scheme", ["random"])
def test_power_mismatch_is_undefined_where_no_power_is_commanded(scheme: str, finished: Run):
    assert np.isnan(finished.metrics.power_mismatch).all()


# What results do not depend on


@pytest.mark.parametrize("scheme", ["random"])
def test_neither_the_division_into_calls_nor_the_number_of_seeds_matters(
    scheme: str, finished: Run, play: Play, mixed_world: World
):
    """Two calls of 50 blocks for seeds 0 and 1, one call of 100 for seed 1 alone, learning on the way."""
    both, alone = finished, play(scheme, mixed_world, seeds=(1,), call=100)
    for name in ("q", "started", "offload", "arrivals", "gain"):
        assert np.array_equal(getattr(alone.traces, name)[0], getattr(both.traces, name)[1])
    assert np.allclose(alone.traces.service_per_slot[0], both.traces.service_per_slot[1], rtol=1e-4)
    assert np.allclose(alone.metrics.cost()[0], both.metrics.cost()[1], rtol=1e-4)


@pytest.fixture(scope="module")
def world_alone(mixed_world: World) -> tuple[np.ndarray, np.ndarray]:
    """What is random for seeds 0 and 1 in 100 blocks, whatever anybody does: arrivals, and gains from block 0 on."""

    @jax.jit
    def sampled(world: World, seeds: jax.Array, blocks: jax.Array) -> tuple[jax.Array, jax.Array]:
        def block(seed: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            return arrivals(world, seed, t), gains(world, seed, t)

        return jax.vmap(jax.vmap(block, in_axes=(None, 0)), in_axes=(0, None))(seeds, blocks)

    seeds, blocks = np.arange(2, dtype=np.uint32), np.arange(100, dtype=np.uint32)
    both = sampled(cast_floats(mixed_world, "float32"), seeds, blocks)
    return np.asarray(both[0]), np.asarray(both[1])


def test_every_scheme_meets_the_same_world(finished: Run, world_alone: tuple[np.ndarray, np.ndarray]):
    """(10), (18): arrivals and gains are what the world draws for seed, block and device, whatever anybody does."""
    assert np.array_equal(finished.traces.arrivals, world_alone[0])
    assert np.allclose(finished.traces.gain, world_alone[1], rtol=1e-6)


@pytest.mark.parametrize("scheme", ["random"])
def test_a_run_is_the_same_twice(scheme: str, finished: Run, play: Play, mixed_world: World):
    again = play(scheme, mixed_world)
    for name, values in vars(finished.metrics).items():
        assert np.array_equal(getattr(again.metrics, name), values, equal_nan=True)


@pytest.mark.usefixtures("small_calls")
@pytest.mark.parametrize("scheme", ["parametric"])
def test_a_trained_policy_is_evaluated_as_it_is(scheme: str, finished: Run, mixed_world: World):
    """From empty queues, with new draws, and without learning: the server's rates are those learned, in every block."""
    trained = finished
    run = frozen(mixed_world, trained, stream_of(scheme), (5, 6), CALL, traces=True)
    assert (run.traces.q[:, 0] == 0).all()
    assert not np.array_equal(run.traces.arrivals, trained.traces.arrivals[:, :CALL])
    learned = trained.carry.server_state.learned.action * mixed_world.server.slot_capacity
    assert np.allclose(run.traces.service_per_slot, np.asarray(learned)[:, None], rtol=1e-5)
    for after, before in ((run.carry.device_state, trained.carry.device_state), (run.pair, trained.pair)):
        for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
            assert np.array_equal(one, other)
    with pytest.raises(ValueError, match="must have 1 runs, one per seed, got 2"):
        frozen(mixed_world, trained, stream_of(scheme), (5,), CALL)


# Laws of a run


def test_a_run_has_a_finite_cost_in_every_block_of_every_seed(finished: Run):
    cost = finished.metrics.cost()
    assert cost.shape == (2, 100)
    assert np.isfinite(cost).all()
    assert (cost >= 0).all()


def test_the_device_terms_of_13_and_the_servers_sum_to_8(finished: Run):
    of_server = finished.metrics.server_queue + finished.metrics.server_energy
    assert np.allclose(finished.metrics.cost(), of_server + finished.traces.cost.sum(axis=-1), rtol=1e-5)


def test_work_is_conserved(finished: Run, mixed_world: World):
    """Tasks arrived = finished by the device + sent + waiting, at each; work sent = served + waiting, at the server."""
    traces, last = finished.traces, finished.carry.state
    arrived, started, offload = (
        np.asarray(x, np.float64) for x in (traces.arrivals.sum(axis=2), traces.started, traces.offload)
    )
    local = (started - offload).sum(axis=1)
    assert np.allclose(arrived.sum(axis=1), local + offload.sum(axis=1) + last.q, rtol=0, atol=1e-4)
    sent = (offload @ np.asarray(mixed_world.devices.server_work, np.float64)).sum(axis=1)
    assert np.allclose(sent, finished.metrics.served.sum(axis=1) + last.backlog, rtol=1e-4, atol=1e-4)
    assert np.array_equal(traces.q, np.round(traces.q))


def test_no_device_does_what_it_cannot(finished: Run, mixed_world: World):
    traces, devices = finished.traces, mixed_world.devices
    assert (traces.started - traces.offload <= devices.capacity + 1.01e-4).all()
    assert (traces.power <= devices.tx_power_max_w * (1 + 1e-4)).all()
    assert (traces.offload <= np.minimum(traces.started, 1.0)).all()
    assert (traces.started <= traces.q).all()


@pytest.fixture(scope="module")
def bounded_worlds() -> list[tuple[World, float]]:
    """Two worlds of four unequal devices, two of them with real networks, drawn at random; their discounted bounds."""
    rng, found = np.random.default_rng(3), list[tuple[World, float]]()
    for _ in range(2):
        overrides: dict[str, Any] = {
            "placement_seed": int(rng.integers(1000)),
            "weights.server_queue": 10.0 ** rng.uniform(-11, -9),
            "weights.server_energy": 10.0 ** rng.uniform(-6, -2),
            "group.0.queue_weight": (queue_weight := 10.0 ** rng.uniform(-10.5, -9.5)),
            "group.2.queue_weight": queue_weight,
            "group.3.queue_weight": queue_weight,
            "server.cpu_max_hz": 10.0 ** rng.uniform(10.5, 12.5),
        }
        world = world_of(load(MIXED, overrides))
        bounded = world_of(load(MIXED, overrides | {"objective": "discounted", "discount": 0.8}))
        found.append((world, lower_bound(bounded, bins=64).value))
    return found


def discounted_costs(run: Run) -> np.ndarray:
    """(seeds,) discounted sums at gamma = 0.8 of the first CALL blocks; what follows is positive and weighs 1e-5."""
    return discounted(run.metrics.cost().astype(np.float64), 0.8)


@pytest.mark.parametrize("scheme", ALL)
def test_no_scheme_costs_less_than_the_discounted_bound(
    scheme: str, play: Play, pair_of: Callable[[str], ControllerPair], bounded_worlds: list[tuple[World, float]]
):
    """Sixteen runs from empty queues."""
    for world, least in bounded_worlds:
        runs = [
            play(pair_of(scheme), world, CALL, stream=stream_of(scheme), seeds=(seed, seed + 1))
            for seed in range(0, 16, 2)
        ]
        costs = np.concatenate([discounted_costs(run) for run in runs])
        assert costs.mean() > least - 5 * costs.std(ddof=1) / np.sqrt(16)


@pytest.mark.parametrize("scheme", ["priced"])
def test_the_discounted_bound_is_not_trivial(scheme: str, play: Play, bounded_worlds: list[tuple[World, float]]):
    """In each of those worlds a scheme costs less than twice the bound."""
    for world, least in bounded_worlds:
        assert discounted_costs(play(scheme, world)).mean() < 2 * least


def test_signalling_counts_what_is_declared(scheme: str):
    row = SCHEMES[scheme]
    assert set(row.device.uses_broadcast) <= set(BROADCAST_FIELDS)
    assert row.signalling() == {"up": int(row.server.sees_queues), "down": len(row.device.uses_broadcast)}


# What is traced: random keys, and types


def traced(pair: ControllerPair, world: World) -> Any:
    """Shapes and types of two blocks from the start, after a check that no key is used twice."""

    def both(pair: ControllerPair, seed: jax.Array, keys: jax.Array):
        ready, carry = init(world, pair, seed, keys)
        return carry, run_blocks(world, ready, carry, seed, keys[2], jnp.uint32(0), Options(2))

    with jax.debug_key_reuse(True):
        return jax.jit(both).trace(pair, jnp.uint32(1), controller_keys(jnp.uint32(1), jnp.uint32(3))).out_info


def test_no_random_key_is_used_twice_and_all_schemes_share_the_measuring_program(
    scheme: str, pair_of: Callable[[str], ControllerPair], mixed_world: World
):
    """A weakly typed number would be a type of its own: another program after the first call, or to measure it."""
    before, (after, transitions) = traced(cast_floats(pair_of(scheme), "float32"), cast_floats(mixed_world, "float32"))
    assert [leaf.dtype for leaf in jax.tree.leaves(before)] == [leaf.dtype for leaf in jax.tree.leaves(after)]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((before, after, transitions)))
    of_devices = jax.tree.leaves((transitions.devices, transitions.server, transitions.inflow))
    assert {leaf.dtype for leaf in of_devices} == {jnp.dtype("float32")}


def test_a_run_of_two_calls_passes_the_check_of_keys_too(mixed_world: World, play: Play):
    with jax.debug_key_reuse(True):
        play(ControllerPair(Random(), Steady()), mixed_world, blocks=4, call=2)


class Careless(DeviceController):
    """Uses its key twice."""

    def act(self, state: Any, device: Any, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(uniform(key, (), view.q.dtype), uniform(key, (), view.q.dtype))


class CarelessServer(ServerController):
    """Uses its key twice."""

    def act(self, state: Any, server: Any, view: Any, key: jax.Array) -> ServerAction:
        return server_action(view, uniform(key, (5,), view.backlog.dtype) + uniform(key, (5,), view.backlog.dtype))


@pytest.mark.parametrize(
    "pair", [ControllerPair(Careless(), Steady()), ControllerPair(Local(), CarelessServer())], ids=["device", "server"]
)
def test_a_key_used_twice_is_found(pair: ControllerPair, mixed_world: World):
    with pytest.raises(jax.errors.KeyReuseError):
        traced(pair, cast_floats(mixed_world, "float32"))


# The broadcast


@pytest.mark.parametrize("delay", [0, 1, 2, 3])
def test_a_broadcast_arrives_after_its_delay(delay: int):
    """The server broadcasts 10, 11, 12, ...; before the first one arrives devices read zero."""
    world = cast_floats(world_of(load({"devices": 2, "broadcast_delay_blocks": delay})), "float32")
    state = initial_state(world, jnp.uint32(0))
    nothing = PackedExogenous(np.zeros((1, 2), np.uint32), state.gain)
    idle = DeviceAction(jnp.zeros(2), jnp.zeros(2))
    sent = [10.0 + t for t in range(6)]
    prices, shares = [], []
    for price in sent:
        one = jnp.float32(price)
        now = Broadcast(price=one, service_rate=one, backlog=one, share=jnp.array([price, -price], jnp.float32))
        arrived = delivered(state.broadcast_queue, now)
        prices.append(float(arrived.price))
        shares.append(np.asarray(arrived.share).tolist())
        state = next_state(world, state, idle, ServerAction(jnp.zeros(5), now), nothing)
    assert prices == ([0.0] * delay + sent)[:6]
    assert shares == [[price, -price] for price in prices]


def test_before_the_first_broadcast_all_fields_are_zero():
    nothing = no_broadcast(3, jnp.dtype("float32"))
    assert [np.shape(leaf) for leaf in jax.tree.leaves(nothing)] == [(), (), (), (3,)]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))


class Faster(ServerController):
    """Works 0.05 tasks more in every block."""

    def init(self, server: Server, view: ServerView, key: jax.Array) -> jax.Array:
        return jnp.ones_like(view.backlog)

    def act(self, state: jax.Array, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        return server_action(view, jnp.full((server.slots,), 0.01 * state))

    def learn(self, state: jax.Array, *happened: Any) -> jax.Array:
        return state + 1.0


class Excessive(ServerController):
    """Asks for twice what the server can do, and then for less than nothing."""

    def act(self, state: Any, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        return server_action(view, 2.0 * server.slot_capacity * jnp.array([1.0, 1.0, -1.0, 0.1, 0.0]))


def test_a_servers_service_is_limited_to_what_it_can_do(four: Callable[..., World], play: Play):
    """The lower bound holds for such rates only, and a negative rate would give work back."""
    world = four({})
    rates = np.asarray(play(ControllerPair(Local(), Excessive()), world, CALL).traces.service_per_slot)
    np.testing.assert_allclose(rates[0, 0], float(world.server.slot_capacity) * np.array([1, 1, 0, 0.2, 0]), rtol=1e-6)


def test_without_a_delay_the_broadcast_is_that_of_this_block(four: Callable[..., World], play: Play):
    """`even` sends the rate received over K: the one that the server has just chosen, from the first block on."""
    world = four({"broadcast_delay_blocks": 0, "device.arrival_prob": 0.9})
    traces = play(ControllerPair(Even(), Faster()), world, blocks=CALL).traces
    rate = np.broadcast_to(np.asarray(traces.service_per_slot).sum(axis=-1, keepdims=True), traces.offload.shape)
    busy = traces.started > 0
    assert np.allclose(traces.offload[busy], rate[busy] / 4, rtol=1e-5)
    assert len(np.unique(rate)) == CALL


@pytest.mark.parametrize("scheme", ["even"])
def test_even_receives_the_rate_two_blocks_late(scheme: str, finished: Run, mixed_world: World):
    """T10: every device sends the server's rate of two blocks ago divided by K, at most a task; at first nothing."""
    run = finished
    rate = np.asarray(run.traces.service_per_slot).sum(axis=-1)
    broadcast = np.concatenate([np.zeros((2, 2)), rate[:, :-2]], axis=1)
    for k in (0, 1):  # under the paper's law any share can be sent
        amount = np.minimum(broadcast / 4 / mixed_world.devices.server_work[k], 1.0)
        busy = run.traces.started[..., k] > 0
        assert busy[:, 2:].sum() > 50
        assert np.allclose(run.traces.offload[..., k][busy], amount[busy], rtol=1e-5)
    assert (run.traces.offload[:, :2] == 0).all()
    assert (run.traces.offload[:, 2:20] > 0).any()


@pytest.mark.parametrize("scheme", ["random"])
def test_another_stream_has_other_random_numbers_in_the_same_world(
    scheme: str, finished: Run, play: Play, mixed_world: World
):
    """Controllers' randomness hangs on the scheme's stream, the world's on the seed alone."""
    renamed, first = play(scheme, mixed_world, stream="another"), finished
    assert np.array_equal(renamed.traces.arrivals, first.traces.arrivals)
    assert np.array_equal(renamed.traces.gain, first.traces.gain)
    assert (renamed.traces.offload != first.traces.offload).mean() > 0.2
