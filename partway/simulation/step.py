"""One block of the system: views, actions, transition, costs, learning; one `vmap` over devices.

    State --views--> K x DeviceView, ServerView --act--> actions --(1)-(8)--> State', Costs --learn--> memories

Everything is for ONE seed and, but for `play_ahead`, for ONE block; `partway.runs` scans over blocks and puts the seed
axis first.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from partway.controllers.base import (
    ControllerState,
    DeviceController,
    DeviceView,
    ServerController,
    ServerView,
    no_broadcast,
)
from partway.pytree import record
from partway.rng import per_device
from partway.simulation.fleet import DeviceOutcome, Fleet, Tile, broadcast_shared, play_devices, play_tile
from partway.system.equations import block_costs, server_energy, transition
from partway.system.exogenous import PackedExogenous, gains, unpack
from partway.system.signalling import broadcast, enqueue
from partway.system.types import Broadcast, Costs, ServerAction, State
from partway.system.world import World


@record
class ControllerPair:
    """A device controller and a server controller that play together."""

    device: DeviceController
    server: ServerController


@record
class Carry:
    """What goes from block to block. Device memories have the device axis last."""

    state: State
    device_state: ControllerState
    server_state: ControllerState


def first_state(world: World, seed: jax.Array) -> State:
    """Empty queues, nothing said yet."""
    mean = world.devices.mean_gain
    zero, told = jnp.zeros((), mean.dtype), no_broadcast(mean.shape[-1], mean.dtype)
    return State(
        q=jnp.zeros_like(mean),
        gain=gains(world, seed, 0),
        arrivals=jnp.zeros((world.devices.slots, mean.shape[-1]), mean.dtype),
        backlog=zero,
        arrived=zero,
        broadcast_queue=jax.tree.map(
            lambda leaf: jnp.zeros((world.server.broadcast_delay_blocks, *leaf.shape), leaf.dtype), told
        ),
    )


def device_views(state: State, now: Broadcast) -> DeviceView:
    """What every device sees; what all hear is repeated for each."""
    words, devices = broadcast(state.broadcast_queue, now), state.q.shape[-1]
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices,)), words)
    return DeviceView(state.q, state.gain, state.arrivals, each)


def next_broadcast(state: State, commanded: ServerAction) -> Broadcast:
    """What devices have heard, each, when the block of this state ends."""
    after = replace(state, broadcast_queue=enqueue(state.broadcast_queue, commanded.broadcast))
    return device_views(after, commanded.broadcast).broadcast


def server_view(state: State) -> ServerView:
    """What the server sees."""
    return ServerView(state.backlog, state.arrived, state.q)


def start(world: World, pair: ControllerPair, seed: jax.Array, keys: jax.Array) -> tuple[ControllerPair, Carry]:
    """The pair after what is agreed beforehand, and the loop before block 0."""
    state = first_state(world, seed)
    devices = broadcast_shared(world.devices, state.q.shape[-1])
    controller = pair.device.setup(keys[0], devices)
    key_devices, key_server = jax.random.split(keys[1])
    views = device_views(state, no_broadcast(state.q.shape[-1], state.q.dtype))
    views = replace(views, broadcast=controller.listen(views.broadcast))
    own = per_device(key_devices, state.q.shape[-1])
    device_state = controller.init_fleet(devices, views, own)
    server_state = pair.server.init(world.server, server_view(state), key_server)
    return ControllerPair(controller, pair.server), Carry(state, device_state, server_state)


@record
class Transition:
    """One block as it happened, for the reports: its number, the state before, what was done, spent and paid."""

    block: jax.Array
    before: State
    did: DeviceOutcome
    service_per_slot: jax.Array
    server_j: jax.Array
    costs: Costs
    after: State


def play_ahead(
    world: World,
    pair: ControllerPair,
    loop: Carry,
    kept: PackedExogenous,
    key: jax.Array,
    blocks: jax.Array,
    learning: bool,
) -> tuple[ControllerState, DeviceOutcome]:
    """What devices that hear nothing do in `blocks` (T,), and their memories then: before the server plays them."""
    count = loop.state.q.shape[-1]
    keys = jax.vmap(lambda block: per_device(_block_keys(key, block)[0], count))(blocks)
    seen = device_views(loop.state, no_broadcast(count, loop.state.q.dtype))
    return play_tile(pair.device, learning, loop.device_state, Tile(world.devices, seen, kept, keys))


def play_block(
    world: World,
    pair: ControllerPair,
    loop: Carry,
    kept: PackedExogenous,
    key: jax.Array,
    block: jax.Array,
    learning: bool,
    did: DeviceOutcome | None = None,
) -> tuple[Carry, Transition]:
    """One block: see, act, move on, pay, learn. A frozen policy is one with `learning` off.

    did  of the devices, if `play_ahead` has played them
    """
    server, state, draws = world.server, loop.state, unpack(world.devices.slots, kept)
    devices = broadcast_shared(world.devices, state.q.shape[-1])
    key_devices, key_server = _block_keys(key, block)

    seen_by_server = server_view(state)
    asked = pair.server.act(loop.server_state, server, seen_by_server, key_server)
    commanded = replace(asked, service_per_slot=jnp.clip(asked.service_per_slot, 0.0, server.slot_capacity))
    device_state = loop.device_state
    if did is None:
        seen, keys = device_views(state, commanded.broadcast), per_device(key_devices, state.q.shape[-1])
        fleet = Fleet(world.devices, seen, next_broadcast(state, commanded), draws, keys)
        device_state, did = play_devices(pair.device, learning, device_state, fleet)

    after = transition(devices, state, did.actions, commanded, draws)
    server_j = server_energy(server, commanded.service_per_slot)
    costs = block_costs(devices, server, state, did.joules, server_j)
    played = Transition(block, state, did, commanded.service_per_slot, server_j, costs, after)
    if not learning:
        return Carry(after, device_state, loop.server_state), played

    server_cost = costs.server_queue + costs.server_energy
    server_state = pair.server.learn(
        loop.server_state, server, seen_by_server, commanded, server_cost, server_view(after)
    )
    return Carry(after, device_state, server_state), played


def _block_keys(key: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The devices' and the server's key of a block."""
    key_devices, key_server = jax.random.split(jax.random.fold_in(key, block))
    return key_devices, key_server
