"""One block of the system: views, actions, transition, costs, learning; one `vmap` over devices.

    State --views--> K x DeviceView, ServerView --act--> actions --(1)-(8)--> State', Costs --learn--> memories

Everything is for ONE seed and, but for `play_ahead`, for ONE block; `partway.runs` scans over blocks and puts the seed
axis first.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from partway.controllers.base import DeviceController, DeviceView, Memory, ServerController, ServerView, silence
from partway.pytree import record
from partway.rng import per_device
from partway.simulation.fleet import Did, Fleet, Tile, expand, play_devices, play_tile
from partway.system.equations import block_costs, server_energy, transition
from partway.system.exogenous import Drawn, brought, gains
from partway.system.signalling import heard, push
from partway.system.types import Broadcast, Costs, ServerAction, State
from partway.system.world import World


@record
class Pair:
    """A device controller and a server controller that play together."""

    device: DeviceController
    server: ServerController


@record
class Loop:
    """What goes from block to block. Device memories have the device axis last."""

    state: State
    device_memory: Memory
    server_memory: Memory


def first_state(world: World, seed: jax.Array) -> State:
    """Empty queues, nothing said yet."""
    mean = world.devices.mean_gain
    zero, told = jnp.zeros((), mean.dtype), silence(mean.shape[-1], mean.dtype)
    return State(
        q=jnp.zeros_like(mean),
        gain=gains(world, seed, 0),
        arrivals=jnp.zeros((world.devices.slots, mean.shape[-1]), mean.dtype),
        y=zero,
        arrived=zero,
        told=jax.tree.map(lambda leaf: jnp.zeros((world.server.lag, *leaf.shape), leaf.dtype), told),
    )


def device_views(state: State, now: Broadcast) -> DeviceView:
    """What every device sees; what all hear is repeated for each."""
    words, devices = heard(state.told, now), state.q.shape[-1]
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices,)), words)
    return DeviceView(state.q, state.gain, state.arrivals, each)


def heard_next(state: State, commanded: ServerAction) -> Broadcast:
    """What devices have heard, each, when the block of this state ends."""
    after = replace(state, told=push(state.told, commanded.broadcast))
    return device_views(after, commanded.broadcast).heard


def server_view(state: State) -> ServerView:
    """What the server sees."""
    return ServerView(state.y, state.arrived, state.q)


def start(world: World, pair: Pair, seed: jax.Array, keys: jax.Array) -> tuple[Pair, Loop]:
    """The pair after what is agreed beforehand, and the loop before block 0."""
    state = first_state(world, seed)
    devices = expand(world.devices, state.q.shape[-1])
    controller = pair.device.setup(keys[0], devices)
    key_devices, key_server = jax.random.split(keys[1])
    views = device_views(state, silence(state.q.shape[-1], state.q.dtype))
    views = replace(views, heard=controller.listen(views.heard))
    own = per_device(key_devices, state.q.shape[-1])
    device_memory = controller.memories(devices, views, own)
    server_memory = pair.server.init(world.server, server_view(state), key_server)
    return Pair(controller, pair.server), Loop(state, device_memory, server_memory)


@record
class Played:
    """One block as it happened, for the reports: its number, the state before, what was done, spent and paid."""

    block: jax.Array
    before: State
    did: Did
    rates: jax.Array
    server_j: jax.Array
    costs: Costs
    after: State


def play_ahead(
    world: World, pair: Pair, loop: Loop, kept: Drawn, key: jax.Array, blocks: jax.Array, learning: bool
) -> tuple[Memory, Did]:
    """What devices that hear nothing do in `blocks` (T,), and their memories then: before the server plays them."""
    count = loop.state.q.shape[-1]
    keys = jax.vmap(lambda block: per_device(_block_keys(key, block)[0], count))(blocks)
    seen = device_views(loop.state, silence(count, loop.state.q.dtype))
    return play_tile(pair.device, learning, loop.device_memory, Tile(world.devices, seen, kept, keys))


def play_block(
    world: World,
    pair: Pair,
    loop: Loop,
    kept: Drawn,
    key: jax.Array,
    block: jax.Array,
    learning: bool,
    did: Did | None = None,
) -> tuple[Loop, Played]:
    """One block: see, act, move on, pay, learn. A frozen policy is one with `learning` off.

    did  of the devices, if `play_ahead` has played them
    """
    server, state, draws = world.server, loop.state, brought(world.devices.slots, kept)
    devices = expand(world.devices, state.q.shape[-1])
    key_devices, key_server = _block_keys(key, block)

    seen_by_server = server_view(state)
    asked = pair.server.act(loop.server_memory, server, seen_by_server, key_server)
    commanded = replace(asked, rates=jnp.clip(asked.rates, 0.0, server.slot_capacity))
    device_memory = loop.device_memory
    if did is None:
        seen, keys = device_views(state, commanded.broadcast), per_device(key_devices, state.q.shape[-1])
        fleet = Fleet(world.devices, seen, heard_next(state, commanded), draws, keys)
        device_memory, did = play_devices(pair.device, learning, device_memory, fleet)

    after = transition(devices, state, did.actions, commanded, draws)
    server_j = server_energy(server, commanded.rates)
    costs = block_costs(devices, server, state, did.joules, server_j)
    played = Played(block, state, did, commanded.rates, server_j, costs, after)
    if not learning:
        return Loop(after, device_memory, loop.server_memory), played

    server_cost = costs.server_queue + costs.server_energy
    server_memory = pair.server.learn(
        loop.server_memory, server, seen_by_server, commanded, server_cost, server_view(after)
    )
    return Loop(after, device_memory, server_memory), played


def _block_keys(key: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The devices' and the server's key of a block."""
    key_devices, key_server = jax.random.split(jax.random.fold_in(key, block))
    return key_devices, key_server
