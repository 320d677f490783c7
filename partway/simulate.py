"""One block of the system: views, actions, transition, costs, learning; one `vmap` over devices.

    State --views--> K x DeviceView, ServerView --act--> actions --(1)-(8)--> State', Costs --learn--> memories

Everything is for ONE seed and, but for `play_ahead`, for ONE block; `partway.runs` scans over blocks and puts the seed
axis first.
"""

import zlib
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from partway.certificate import Losses, devices_loss, rate_loss, waiting_loss
from partway.controllers.base import DeviceController, DeviceView, Memory, ServerController, ServerView, silence
from partway.draws import Drawn, brought, gains
from partway.fleet import Did, Fleet, Tile, expand, play_devices, play_tile
from partway.model import (
    Broadcast,
    Costs,
    DeviceAction,
    Server,
    ServerAction,
    State,
    block_costs,
    heard,
    local_work,
    push,
    server_energy,
    transition,
)
from partway.records import record
from partway.world import World


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


@record
class Sums:
    """One block of the whole system; after a run every field has the axes (seed, block).

    server_queue, server_energy, device_queue, device_energy   the four parts of (8), cost
    device_energy_j, server_energy_j, wasted_energy_j          [J]; wasted: commanded while there was no work
    waiting, arrived, taken                tasks at the devices: at the start, new ones, taken up
    backlog, sent, served                  work at the server [mean tasks]: at the start, new, done
    offered, arrived_work                  work the tasks taken up, and the new ones, would be there [mean tasks]
    total_work                             all that waits anywhere [mean tasks]
    cpu_use, radio_use, server_use         share of f_max used, of radio slots used, of the server's f_max used
    device_change, server_change           relative change of what was learned (mean over devices), NaN if nothing is
    off_command                            share of devices that spent another power than the one commanded (T15)
    loss_devices, loss_waiting, loss_rate  cost above the lower bound (`partway.certificate.Losses`), NaN without one
    """

    server_queue: jax.Array
    server_energy: jax.Array
    device_queue: jax.Array
    device_energy: jax.Array
    device_energy_j: jax.Array
    server_energy_j: jax.Array
    wasted_energy_j: jax.Array
    waiting: jax.Array
    arrived: jax.Array
    taken: jax.Array
    backlog: jax.Array
    sent: jax.Array
    served: jax.Array
    offered: jax.Array
    arrived_work: jax.Array
    total_work: jax.Array
    cpu_use: jax.Array
    radio_use: jax.Array
    server_use: jax.Array
    device_change: jax.Array
    server_change: jax.Array
    off_command: jax.Array
    loss_devices: jax.Array
    loss_waiting: jax.Array
    loss_rate: jax.Array

    def cost(self) -> jax.Array:
        """(8), the sum of its four parts."""
        return self.server_queue + self.server_energy + self.device_queue + self.device_energy


@record
class Traces:
    """One block device by device; after a run the axes (seed, block) come first.

    arrivals (n, K) 0 or 1; q, gain, taken, rest, power, cost (K,); rates (n,)
    """

    arrivals: jax.Array
    q: jax.Array
    gain: jax.Array
    taken: jax.Array
    rest: jax.Array
    power: jax.Array
    cost: jax.Array
    rates: jax.Array


def stable_hash(name: str) -> int:
    """A number for a scheme's name that is the same in every process."""
    return zlib.crc32(name.encode())


def controller_keys(seed: jax.Array, name_hash: jax.Array) -> jax.Array:
    """(3,) keys of a scheme's own randomness: what is agreed, memories, actions."""
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), name_hash)
    return jax.random.split(key, 3)


def per_device(key: jax.Array, devices: int) -> jax.Array:
    """(K,) keys, the first ones the same for any K."""
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(devices))


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


def served_work(y: jax.Array, rates: jax.Array) -> jax.Array:
    """(n,) work done in each slot when `rates` are commanded and y waits."""
    before = jnp.cumsum(rates) - rates
    return jnp.clip(y - before, 0.0, rates)


def wasted_energy(server: Server, y: jax.Array, rates: jax.Array) -> jax.Array:
    """The part of (7) that was spent while no work was left [J]."""
    idle = jnp.where(rates > 0, 1.0 - served_work(y, rates) / jnp.where(rates > 0, rates, 1.0), 0.0)
    return server.energy_coef * jnp.sum(rates**3 * idle)


def summed(world: World, pair: Pair, loop: Loop, played: Played) -> Sums:
    """The block's totals; `loop` is the one after it."""
    server, state, costs, actions = world.server, played.before, played.costs, played.did.actions
    devices = expand(world.devices, state.q.shape[-1])
    taken, served = state.q - actions.whole, jnp.sum(served_work(state.y, played.rates))
    lost = _losses(replace(world, devices=devices), played, served)
    return Sums(
        server_queue=costs.server_queue,
        server_energy=costs.server_energy,
        device_queue=jnp.sum(costs.device_queue),
        device_energy=jnp.sum(costs.device_energy),
        device_energy_j=jnp.sum(played.did.joules),
        server_energy_j=played.server_j,
        wasted_energy_j=wasted_energy(server, state.y, played.rates),
        waiting=jnp.sum(state.q),
        arrived=jnp.sum(played.after.arrivals),
        taken=jnp.sum(taken),
        backlog=state.y,
        sent=played.after.arrived,
        served=served,
        offered=jnp.sum(taken * devices.server_work),
        arrived_work=jnp.sum(played.after.arrivals * devices.server_work),
        total_work=jnp.sum(state.q * devices.server_work) + state.y,
        cpu_use=jnp.mean(local_work(state.q, actions) / devices.capacity),
        radio_use=jnp.mean(jnp.where(actions.rest > 0, 1.0, 0.0)),
        server_use=served / (server.slot_capacity * server.slots),
        device_change=jnp.mean(played.did.change),
        server_change=pair.server.change(loop.server_memory),
        off_command=_off_command(actions, played.did.power),
        loss_devices=lost.devices,
        loss_waiting=lost.waiting,
        loss_rate=lost.rate,
    )


def _losses(world: World, played: Played, served: jax.Array) -> Losses:
    """The block's cost above the lower bound, where the world has one."""
    if world.certificate is None:
        nothing = jnp.full((), jnp.nan)
        return Losses(nothing, nothing, nothing)
    state = played.before
    return Losses(
        devices=devices_loss(world.certificate, world.devices, state.q, state.gain, played.did.actions),
        waiting=waiting_loss(world.certificate, world.server, state.y, served),
        rate=rate_loss(world.certificate, world.server, served, played.rates, played.block),
    )


def _off_command(actions: DeviceAction, spent: jax.Array) -> jax.Array:
    """Share of devices that spent another power than the one they commanded; NaN where none is commanded (T15)."""
    if actions.power is None:
        return jnp.full((), jnp.nan)
    return jnp.mean(jnp.where(jnp.abs(spent - actions.power) > 1e-3 * actions.power, 1.0, 0.0))


def traced(played: Played) -> Traces:
    """The block device by device."""
    state, costs = played.before, played.costs
    return Traces(
        arrivals=played.after.arrivals,
        q=state.q,
        gain=state.gain,
        taken=state.q - played.did.actions.whole,
        rest=played.did.actions.rest,
        power=played.did.power,
        cost=costs.device_queue + costs.device_energy,
        rates=played.rates,
    )
