"""One block of the whole system, for ONE seed.

    State --views--> K x DeviceView, ServerView --act--> actions --(1)-(8)--> State', costs --learn--> controller states

`step` says what the system does and measures nothing; it returns a `Transition`, from which `partway.measurement`
computes the rest. `partway.simulation.rollout` scans it over blocks.
"""

import jax
import jax.numpy as jnp

from partway.controllers.base import ControllerPair, ControllerState, DeviceController, DeviceView, ServerView
from partway.controllers.block import (
    DeviceOutcome,
    ServerOutcome,
    Transition,
    act_server,
    learn_server,
    received,
)
from partway.pytree import record
from partway.rng import block_keys, both_parties, per_device
from partway.simulation.fleet import Fleet, FleetAhead, run_ahead, run_fleet
from partway.simulation.sharding import broadcast_shared
from partway.system.equations import inflow, next_device_queue, next_server_queue
from partway.system.exogenous import PackedExogenous, begin, unpack
from partway.system.signalling import delivered, enqueue, no_broadcast
from partway.system.types import Broadcast, DeviceAction, ServerAction, State
from partway.system.world import World


@record
class Carry:
    """What goes from block to block: the system's state, and the controllers' states, the devices' axis last."""

    state: State
    device_state: ControllerState
    server_state: ControllerState


def step(
    world: World,
    pair: ControllerPair,
    carry: Carry,
    exogenous: PackedExogenous,
    key: jax.Array,
    block: jax.Array,
    learning: bool,
    ahead: DeviceOutcome | None = None,
) -> tuple[Carry, Transition]:
    """One block: see, act, move on, spend, learn.

    key    of the controllers' actions in the whole run       learning  False: the policies are frozen
    ahead  what the devices do in this block, if `run_devices_ahead` has computed it
    """
    server, state = world.server, carry.state
    key_devices, key_server = block_keys(key, block)
    view = server_view(state)
    service, out_of_range = act_server(pair.server, carry.server_state, server, view, key_server)
    if ahead is None:
        inputs = Fleet(
            world.devices,
            device_views(pair.device, state, service.broadcast),
            exogenous,
            next_broadcast(pair.device, state, service.broadcast),
            per_device(key_devices, state.q.shape[-1]),
        )
        device_state, outcome = run_fleet(pair.device, carry.device_state, inputs, learning)
    else:
        device_state, outcome = carry.device_state, ahead
    after = next_state(world, state, DeviceAction(outcome.started, outcome.offload), service, exogenous)
    server_state = carry.server_state
    if learning:
        server_state = learn_server(pair.server, server_state, server, view, service, server_view(after))
    change = jnp.asarray(pair.server.relative_change(server_state), state.q.dtype)
    is_read = "price" in pair.device.uses_broadcast
    price = service.broadcast.price if is_read else jnp.full_like(state.backlog, jnp.nan)
    did = ServerOutcome(state.backlog, service.service_per_slot, price, change, out_of_range)
    return Carry(after, device_state, server_state), Transition(
        block, exogenous.arrival_bits, outcome, did, after.last_inflow
    )


def next_state(
    world: World, state: State, actions: DeviceAction, service: ServerAction, exogenous: PackedExogenous
) -> State:
    """(1) and (6): the state of the next block, for feasible actions (K,).

    `exogenous` does not depend on the actions ((10), (18)). What is sent in block t is in the server's queue, and paid
    for, from its block t + 1 on. `state.memory` comes from `partway.system.exogenous:draw`.

    A device computes (1) for itself, too, by the same function, to learn from it (`controllers.block:finish_device`).
    Its outcome does not carry the queue here, because outcomes are kept for every block of a compiled call.
    """
    devices = broadcast_shared(world.devices, state.q.shape[-1])
    random, sent = unpack(devices.slots, exogenous), inflow(devices, actions)
    return State(
        q=next_device_queue(devices, state.q, actions, random.arrivals),
        gain=random.gain,
        arrivals=random.seen,
        backlog=next_server_queue(state.backlog, service.service_per_slot, sent),
        last_inflow=sent,
        broadcast_queue=enqueue(state.broadcast_queue, service.broadcast),
        memory=state.memory,
    )


def run_devices_ahead(
    world: World,
    pair: ControllerPair,
    carry: Carry,
    exogenous: PackedExogenous,
    key: jax.Array,
    blocks: jax.Array,
    learning: bool,
) -> tuple[ControllerState, DeviceOutcome]:
    """The devices' states after `blocks` (T,), and what they do in them (T, K): for devices that use no broadcast."""
    count = carry.state.q.shape[-1]
    keys = jax.vmap(lambda block: per_device(block_keys(key, block)[0], count))(blocks)
    views = device_views(pair.device, carry.state, no_broadcast(count, carry.state.q.dtype))
    return run_ahead(pair.device, carry.device_state, FleetAhead(world.devices, views, exogenous, keys), learning)


def init(world: World, pair: ControllerPair, seed: jax.Array, keys: jax.Array) -> tuple[ControllerPair, Carry]:
    """The pair after what the devices agree on, and the carry before block 0; `keys` (3,): `rng.controller_keys`."""
    state, count = initial_state(world, seed), world.devices.mean_gain.shape[-1]
    devices = broadcast_shared(world.devices, count)
    controller = pair.device.setup(keys[0], devices)
    key_devices, key_server = both_parties(keys[1])
    views = device_views(controller, state, no_broadcast(count, state.q.dtype))
    device_state = controller.init_fleet(devices, views, per_device(key_devices, count))
    server_state = pair.server.init(world.server, server_view(state), key_server)
    return ControllerPair(controller, pair.server), Carry(state, device_state, server_state)


def initial_state(world: World, seed: jax.Array) -> State:
    """The scenario's queues, which are empty unless it says otherwise; no broadcast on its way."""
    mean, delay = world.devices.mean_gain, world.server.broadcast_delay_blocks
    nothing = no_broadcast(mean.shape[-1], mean.dtype)
    memory, gain, seen = begin(world, seed)
    return State(
        q=jnp.broadcast_to(world.initial_tasks, mean.shape).astype(mean.dtype),
        gain=gain,
        arrivals=seen,
        backlog=jnp.asarray(world.initial_backlog, mean.dtype),
        last_inflow=jnp.zeros((), mean.dtype),
        broadcast_queue=jax.tree.map(lambda leaf: jnp.zeros((delay, *leaf.shape), leaf.dtype), nothing),
        memory=memory,
    )


def device_views(controller: DeviceController, state: State, now: Broadcast) -> DeviceView:
    """What every device sees, (K,) each; `now` is what the server broadcasts in this block."""
    devices, delay_line = state.q.shape[-1], received(controller, state.broadcast_queue)
    arrived = delivered(delay_line, received(controller, now))
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices,)), arrived)
    return DeviceView(state.q, state.gain, state.arrivals, each)


def next_broadcast(controller: DeviceController, state: State, now: Broadcast) -> Broadcast:
    """The last broadcast that every device has received when the block ends, (K,) each."""
    delay_line = enqueue(received(controller, state.broadcast_queue), received(controller, now))
    arrived = delivered(delay_line, received(controller, now))
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, state.q.shape), arrived)


def server_view(state: State) -> ServerView:
    """What the server sees."""
    return ServerView(state.backlog, state.last_inflow, state.q)
