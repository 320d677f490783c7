"""The devices' part of a block: each acts, moves on, pays and learns for itself; a large fleet part by part.

A fleet is cut twice. On a mesh (`mesh_for`) each core, or each GPU, plays a share of it; and of its share a core plays
PART devices at a time, so that what it computes of them stays in the cache.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, get_abstract_mesh

from partway.controllers.base import DeviceController, DeviceView, Memory
from partway.model import (
    Broadcast,
    Device,
    DeviceAction,
    Draws,
    admit,
    device_energy,
    fleetwise,
    next_device_queue,
    power_for,
)
from partway.records import record

T = TypeVar("T")
PART = 1024
"""Devices that a core plays at a time; results do not depend on it."""
GPU_PART = 2**20
"""Devices that a GPU plays at a time: as many as it can, but for the memory of what is computed of them."""
AXIS = "devices"
"""The axis of the mesh."""


@record
class Fleet:
    """What a block is played with by the devices; `heard_next` is the last they have heard when it ends."""

    devices: Device
    seen: DeviceView
    heard_next: Broadcast
    draws: Draws
    keys: jax.Array


@record
class Did:
    """What the devices did in a block, the power they sent with [W] and the energy they spent [J]."""

    actions: DeviceAction
    power: jax.Array
    joules: jax.Array


def play_devices(controller: DeviceController, learning: bool, memory: Memory, fleet: Fleet) -> tuple[Memory, Did]:
    """One block of all devices: their memories after it, and what they did; on the mesh that is set, if one is."""

    def play(controller: DeviceController, memory: Memory, fleet: Fleet) -> tuple[Memory, Did]:
        most = PART if jax.default_backend() == "cpu" else GPU_PART
        return in_parts(partial(play_each, controller, learning), memory, fleet, most)

    if AXIS not in get_abstract_mesh().axis_names:
        return play(controller, memory, fleet)
    whole, own = PartitionSpec(), jax.tree.map(_last_axis, (memory, fleet))
    shared = jax.shard_map(play, in_specs=(whole, *own), out_specs=(own[0], PartitionSpec(AXIS)), check_vma=False)
    return shared(controller, memory, fleet)


def mesh_for(devices: int) -> Mesh | None:
    """As many JAX devices as can have equal shares, of at least PART, of so large a fleet; None for only one."""
    local = jax.local_devices()
    count = max((n for n in range(1, len(local) + 1) if devices % n == 0 and devices // n >= PART), default=1)
    return jax.make_mesh((count,), (AXIS,), (AxisType.Auto,), devices=local[:count]) if count > 1 else None


def put(mesh: Mesh, devices: int, leaf: Any) -> jax.Array:
    """An array on the mesh, cut up along its last axis where that is as long as the fleet is large."""
    spec = _last_axis(leaf) if np.shape(leaf)[-1:] == (devices,) else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh, spec))


def move(mesh: Mesh, devices: int, leaf: Any) -> jax.Array:
    """`put` of an array that is used up: JAX has it in two places no longer than it takes."""
    if not isinstance(leaf, jax.Array):
        return put(mesh, devices, leaf)
    moved = jax.block_until_ready(jnp.copy(put(mesh, devices, leaf)))  # a copy, or both may be one buffer
    leaf.delete()
    return moved


def _last_axis(leaf: jax.Array) -> PartitionSpec:
    return PartitionSpec(*[None] * (leaf.ndim - 1), AXIS)


def play_each(controller: DeviceController, learning: bool, memory: Memory, fleet: Fleet) -> tuple[Memory, Did]:
    """The devices' part of a block: they act, move on, pay and learn, each for itself."""
    devices, seen, draws = fleet.devices, fleet.seen, fleet.draws
    each = _as_it_is if controller.takes_fleets else fleetwise
    asked = each(controller.act)(memory, devices, seen, fleet.keys)
    actions = fleetwise(admit)(devices, seen.q, seen.gain, asked)
    power = fleetwise(power_for)(devices, seen.gain, actions.rest)
    joules = fleetwise(device_energy)(devices, seen.q, seen.gain, actions)
    if not learning:
        return memory, Did(actions, power, joules)
    cost = devices.queue_weight * seen.q + devices.energy_weight * joules
    next_q = fleetwise(next_device_queue)(devices, actions, draws.arrivals)
    next_seen = DeviceView(next_q, draws.gain, draws.arrivals, fleet.heard_next)
    return each(controller.learn)(memory, devices, seen, actions, cost, next_seen), Did(actions, power, joules)


def in_parts(
    play: Callable[[Memory, Fleet], tuple[Memory, Did]], memory: Memory, fleet: Fleet, most: int
) -> tuple[Memory, Did]:
    """`play` of a whole fleet, at most `most` devices at a time: what it computes of them then stays in the cache.

    The last part may overlap the one before, which changes nothing: all start from the memory before the block. A part
    is cut out one turn ahead because XLA would cut it out again in every loop that reads it.
    """
    count = fleet.seen.q.shape[-1]
    if count <= most:
        return play(memory, fleet)
    parts = -(-count // most)
    size = -(-count // parts)

    def part_from(first: int | jax.Array) -> tuple[Memory, Fleet]:
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size, axis=-1), (memory, fleet))

    def turn(part: jax.Array, carried: Any) -> Any:
        mine, done = carried
        played = jax.tree.map(
            lambda all_, new: jax.lax.dynamic_update_slice_in_dim(all_, new, part * size, axis=-1), done, play(*mine)
        )
        return part_from((part + 1) * size), played

    _, did = jax.eval_shape(play, memory, fleet)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), did)
    return jax.lax.fori_loop(0, parts, turn, (part_from(0), (memory, empty)))[1]


def _as_it_is(function: Callable[..., T]) -> Callable[..., T]:
    return function
