"""Where a fleet lives: shared by JAX devices on a mesh, computed in chunks that fit the cache, shared values kept once.

In a fleet of one class most constants are the same for all devices. They have a last axis of 1 on their way to the
compiled program (`squeeze_shared`, `broadcast_shared`): the 33 cuts of a task alone are more than all else that a
device reads.
"""

import contextlib
import ctypes
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, get_abstract_mesh

from partway.system.types import Device

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
CHUNK = 1024
"""Devices that a core computes at a time; results do not depend on it."""
GPU_CHUNK = 2**20
"""Devices that a GPU computes at a time: as many as its memory allows."""
LARGE = 2**19
"""Devices of a fleet for which memory that was freed is released before the first compiled calls of a run."""
AXIS = "devices"
"""The axis of the mesh."""


def chunk_size() -> int:
    """Devices that a JAX device computes at a time."""
    return CHUNK if jax.default_backend() == "cpu" else GPU_CHUNK


def mesh_for(devices: int) -> Mesh | None:
    """As many JAX devices as can have equal shares of a large fleet, each of a chunk or more; None for only one."""
    local = jax.local_devices()
    count = max((n for n in range(1, len(local) + 1) if devices % n == 0 and devices // n >= chunk_size()), default=1)
    return jax.make_mesh((count,), (AXIS,), (AxisType.Auto,), devices=local[:count]) if count > 1 else None


def is_chunked(devices: int) -> bool:
    """Whether a JAX device's share of the fleet is computed in several chunks, on the mesh that is set."""
    return devices // dict(get_abstract_mesh().shape).get(AXIS, 1) > chunk_size()


def shard(mesh: Mesh, devices: int, leaf: Any) -> jax.Array:
    """An array on the mesh, divided along its last axis if that is the fleet's."""
    spec = last_axis(leaf) if np.shape(leaf)[-1:] == (devices,) else PartitionSpec()
    return jax.device_put(leaf, NamedSharding(mesh, spec))


def reshard(mesh: Mesh, devices: int, leaf: Any) -> jax.Array:
    """`shard` of an array that is not needed any more: it is in memory twice no longer than necessary."""
    if not isinstance(leaf, jax.Array):
        return shard(mesh, devices, leaf)
    moved = jax.block_until_ready(jnp.copy(shard(mesh, devices, leaf)))  # a copy, or both may be one buffer
    leaf.delete()
    return moved


def last_axis(leaf: jax.Array) -> PartitionSpec:
    """How a leaf of a fleet is divided: along its last axis, unless that is shared."""
    return PartitionSpec(*[None] * (leaf.ndim - 1), AXIS) if leaf.shape[-1] > 1 else PartitionSpec()


def squeeze_shared(devices: Device) -> Device:
    """Devices on the host with what all of them share once: (..., 1) where NumPy repeats it, see `system.world.build`.

    All but `mean_gain`, which says how many there are.
    """

    return replace(jax.tree.map(shared_once, devices), mean_gain=devices.mean_gain)


def shared_once(leaf: Any) -> Any:
    """An array of the fleet, (..., 1) where all devices share its values and NumPy repeats them."""
    return leaf[..., :1] if isinstance(leaf, np.ndarray) and leaf.ndim and leaf.strides[-1] == 0 else leaf


def broadcast_shared(devices: Device, count: int) -> Device:
    """The inverse of `squeeze_shared`: every leaf (..., K), K = `count`. In a compiled program nothing is copied."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*leaf.shape[:-1], count)), devices)


def on_mesh(function: Callable[[S, T], tuple[S, R]], out: PartitionSpec, states: S, fleet: T) -> tuple[S, R]:
    """`function` of a fleet, each JAX device of the mesh that is set computing its share in chunks.

    states  of the fleet, device axis last, which the function replaces       out  how its other results are divided
    """

    def own(states: S, fleet: T) -> tuple[S, R]:
        return in_chunks(function, states, fleet, chunk_size())

    if AXIS not in get_abstract_mesh().axis_names:
        return own(states, fleet)
    specs = jax.tree.map(last_axis, (states, fleet))
    return jax.shard_map(own, in_specs=specs, out_specs=(specs[0], out), check_vma=False)(states, fleet)


def in_chunks(function: Callable[[S, T], tuple[S, R]], states: S, fleet: T, limit: int) -> tuple[S, R]:
    """`function` of a fleet, at most `limit` devices at a time: what is computed of them then stays in the cache.

    The last chunk may overlap the one before, which changes nothing: all start from the same states. A chunk is cut
    out one turn ahead because XLA would cut it out again in every loop that reads it.
    """
    count = max(leaf.shape[-1] for leaf in jax.tree.leaves(fleet))
    if count <= limit:
        return function(states, fleet)
    chunks = -(-count // limit)
    size = -(-count // chunks)

    def chunk_from(first: int | jax.Array) -> tuple[S, T]:
        return jax.tree.map(partial(_cut, first, size), (states, fleet))

    def turn(chunk: jax.Array, carried: Any) -> Any:
        mine, done = carried
        computed = jax.tree.map(
            lambda whole, new: jax.lax.dynamic_update_slice_in_dim(whole, new, chunk * size, axis=-1),
            done,
            function(*mine),
        )
        return chunk_from((chunk + 1) * size), computed

    _, results = jax.eval_shape(function, states, fleet)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), results)
    return jax.lax.fori_loop(0, chunks, turn, (chunk_from(0), (states, empty)))[1]


def _cut(first: int | jax.Array, size: int, leaf: jax.Array) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(leaf, first, size, axis=-1) if leaf.shape[-1] > 1 else leaf


def release_freed_memory() -> None:
    """Give memory that was freed back to the system: glibc keeps most of what XLA has used to compile a program."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
