"""The devices' part of a block: each acts, moves on, pays and learns for itself; a large fleet part by part.

A fleet is cut twice. On a mesh (`mesh_for`) each core, or each GPU, plays a share of it; and of its share a core plays
PART devices at a time, so that what it computes of them stays in the cache. If they hear nothing, a part plays several
blocks before the next part begins (`play_tile`).

What is the same for all devices, as most is in a fleet of one class, is kept once on its way there, with a last axis of
1 (`squeeze_shared`, `broadcast_shared`): the 33 cuts of a task are three numbers each, more than all else that a device reads.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, get_abstract_mesh

from partway.controllers.base import ControllerState, DeviceController, DeviceView
from partway.pytree import fleetwise, record
from partway.system.equations import device_energy, feasible_action, next_device_queue, power_for
from partway.system.exogenous import PackedExogenous, unpack
from partway.system.types import Broadcast, Device, DeviceAction, Exogenous

T = TypeVar("T")
CHUNK = 1024
"""Devices that a core plays at a time; results do not depend on it."""
GPU_CHUNK = 2**20
"""Devices that a GPU plays at a time: as many as it can, but for the memory of what is computed of them."""
AXIS = "devices"
"""The axis of the mesh."""


@record
class Fleet:
    """What a block is played with by the devices; `next_broadcast` is the last they have heard when it ends."""

    devices: Device
    seen: DeviceView
    next_broadcast: Broadcast
    draws: Exogenous
    keys: jax.Array


@record
class Tile:
    """What T blocks are played with by devices that hear nothing: `seen` at first, `kept` and `keys` (T, ...)."""

    devices: Device
    seen: DeviceView
    kept: PackedExogenous
    keys: jax.Array


AnyFleet = TypeVar("AnyFleet", Fleet, Tile)


@record
class DeviceOutcome:
    """What the devices did in a block (K,), or in several (T, K).

    power, joules  they sent with [W], spent [J]        change  of what they have learned (`DeviceController.change`)
    """

    actions: DeviceAction
    power: jax.Array
    joules: jax.Array
    relative_change: jax.Array


def play_devices(
    controller: DeviceController, learning: bool, memory: ControllerState, fleet: Fleet
) -> tuple[ControllerState, DeviceOutcome]:
    """One block of all devices: their memories after it, and what they did; on the mesh that is set, if one is."""
    return _on_mesh(play_each, PartitionSpec(AXIS), controller, learning, memory, fleet)


def play_tile(
    controller: DeviceController, learning: bool, memory: ControllerState, tile: Tile
) -> tuple[ControllerState, DeviceOutcome]:
    """The same for T blocks and devices that hear nothing."""
    return _on_mesh(_play_each_for, PartitionSpec(None, AXIS), controller, learning, memory, tile)


def plays_ahead(controller: DeviceController, devices: int) -> bool:
    """Whether several blocks a part are worth it: all of a smaller fleet, or share of it, is in the cache anyway."""
    shares = dict(get_abstract_mesh().shape).get(AXIS, 1)
    return not controller.uses_broadcast and devices // shares > _most()


def _most() -> int:
    """Devices that a JAX device plays at a time."""
    return CHUNK if jax.default_backend() == "cpu" else GPU_CHUNK


def _on_mesh(
    play: Callable[[DeviceController, bool, ControllerState, AnyFleet], tuple[ControllerState, DeviceOutcome]],
    cut_did: PartitionSpec,
    controller: DeviceController,
    learning: bool,
    memory: ControllerState,
    fleet: AnyFleet,
) -> tuple[ControllerState, DeviceOutcome]:
    def play_own(
        controller: DeviceController, memory: ControllerState, fleet: AnyFleet
    ) -> tuple[ControllerState, DeviceOutcome]:
        return in_chunks(partial(play, controller, learning), memory, fleet, _most())

    if AXIS not in get_abstract_mesh().axis_names:
        return play_own(controller, memory, fleet)
    whole, own = PartitionSpec(), jax.tree.map(_last_axis, (memory, fleet))
    shared = jax.shard_map(play_own, in_specs=(whole, *own), out_specs=(own[0], cut_did), check_vma=False)
    return shared(controller, memory, fleet)


def squeeze_shared(devices: Device) -> Device:
    """Devices on the host with what is the same for all of them once: (..., 1) where NumPy repeats it, see `build`.

    All but `mean_gain`, which says how many there are.
    """

    def once(leaf: Any) -> Any:
        return leaf[..., :1] if isinstance(leaf, np.ndarray) and leaf.ndim and leaf.strides[-1] == 0 else leaf

    return replace(jax.tree.map(once, devices), mean_gain=devices.mean_gain)


def broadcast_shared(devices: Device, count: int) -> Device:
    """The devices that `squeeze_shared` was given, K = `count`: every leaf (..., K). In a program nothing is copied."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*leaf.shape[:-1], count)), devices)


def mesh_for(devices: int) -> Mesh | None:
    """As many JAX devices as can have equal shares, of a part at least, of so large a fleet; None for only one."""
    local = jax.local_devices()
    count = max((n for n in range(1, len(local) + 1) if devices % n == 0 and devices // n >= _most()), default=1)
    return jax.make_mesh((count,), (AXIS,), (AxisType.Auto,), devices=local[:count]) if count > 1 else None


def shard(mesh: Mesh, devices: int, leaf: Any) -> jax.Array:
    """An array on the mesh, cut up along its last axis where that is as long as the fleet is large."""
    spec = _last_axis(leaf) if np.shape(leaf)[-1:] == (devices,) else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh, spec))


def reshard(mesh: Mesh, devices: int, leaf: Any) -> jax.Array:
    """`shard` of an array that is used up: JAX has it in two places no longer than it takes."""
    if not isinstance(leaf, jax.Array):
        return shard(mesh, devices, leaf)
    moved = jax.block_until_ready(jnp.copy(shard(mesh, devices, leaf)))  # a copy, or both may be one buffer
    leaf.delete()
    return moved


def _last_axis(leaf: jax.Array) -> PartitionSpec:
    return PartitionSpec(*[None] * (leaf.ndim - 1), AXIS) if leaf.shape[-1] > 1 else PartitionSpec()


def play_each(
    controller: DeviceController, learning: bool, memory: ControllerState, fleet: Fleet
) -> tuple[ControllerState, DeviceOutcome]:
    """The devices' part of a block: they act, move on, pay and learn, each for itself."""
    seen, draws = replace(fleet.seen, broadcast=controller.listen(fleet.seen.broadcast)), fleet.draws
    devices = broadcast_shared(fleet.devices, seen.q.shape[-1])
    relative_change = jax.vmap(controller.relative_change, -1, axis_size=seen.q.shape[-1])
    each = _as_it_is if controller.batched else fleetwise
    asked = each(controller.act)(memory, devices, seen, fleet.keys)
    actions = fleetwise(feasible_action)(devices, seen.q, seen.gain, asked)
    power = fleetwise(power_for)(devices, seen.gain, actions.offload)
    joules = fleetwise(device_energy)(devices, seen.q, seen.gain, actions)
    if not learning:
        return memory, DeviceOutcome(actions, power, joules, relative_change(memory))
    cost = devices.queue_weight * seen.q + devices.energy_weight * joules
    next_q = fleetwise(next_device_queue)(devices, actions, draws.arrivals)
    next_seen = DeviceView(next_q, draws.gain, draws.arrivals, controller.listen(fleet.next_broadcast))
    learned = each(controller.learn)(memory, devices, seen, actions, cost, next_seen)
    return learned, DeviceOutcome(actions, power, joules, relative_change(learned))


def _play_each_for(
    controller: DeviceController, learning: bool, memory: ControllerState, tile: Tile
) -> tuple[ControllerState, DeviceOutcome]:
    """`play_each` for T blocks; what the devices see of the next one follows from what they did."""
    devices, nothing = broadcast_shared(tile.devices, tile.seen.q.shape[-1]), tile.seen.broadcast

    def block(
        before: tuple[ControllerState, DeviceView], at: tuple[PackedExogenous, jax.Array]
    ) -> tuple[tuple[ControllerState, DeviceView], DeviceOutcome]:
        (memory, seen), (kept, keys) = before, at
        draws = unpack(devices.slots, kept)
        memory, did = play_each(controller, learning, memory, Fleet(devices, seen, nothing, draws, keys))
        next_q = fleetwise(next_device_queue)(devices, did.actions, draws.arrivals)
        return (memory, DeviceView(next_q, draws.gain, draws.arrivals, nothing)), did

    (memory, _), did = jax.lax.scan(block, (memory, tile.seen), (tile.kept, tile.keys))
    return memory, did


def in_chunks(
    play: Callable[[ControllerState, AnyFleet], tuple[ControllerState, DeviceOutcome]],
    memory: ControllerState,
    fleet: AnyFleet,
    most: int,
) -> tuple[ControllerState, DeviceOutcome]:
    """`play` of a whole fleet, at most `most` devices at a time: what it computes of them then stays in the cache.

    The last part may overlap the one before, which changes nothing: all start from the same memory. A part
    is cut out one turn ahead because XLA would cut it out again in every loop that reads it.
    """
    count = fleet.seen.q.shape[-1]
    if count <= most:
        return play(memory, fleet)
    parts = -(-count // most)
    size = -(-count // parts)

    def part_from(first: int | jax.Array) -> tuple[ControllerState, AnyFleet]:
        return jax.tree.map(partial(_cut, first, size), (memory, fleet))

    def turn(part: jax.Array, carried: Any) -> Any:
        mine, done = carried
        played = jax.tree.map(
            lambda all_, new: jax.lax.dynamic_update_slice_in_dim(all_, new, part * size, axis=-1), done, play(*mine)
        )
        return part_from((part + 1) * size), played

    _, did = jax.eval_shape(play, memory, fleet)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), did)
    return jax.lax.fori_loop(0, parts, turn, (part_from(0), (memory, empty)))[1]


def _cut(first: int | jax.Array, size: int, leaf: jax.Array) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(leaf, first, size, axis=-1) if leaf.shape[-1] > 1 else leaf


def _as_it_is(function: Callable[..., T]) -> Callable[..., T]:
    return function
