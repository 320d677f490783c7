"""Random words that depend on (seed, block, device) only.

Every scheme meets the same world, whatever it does ((10), (18)), and the first 20 devices of a fleet of 50 meet what a
fleet of 20 meets. They are drawn by `partway.threefry` because `jax.random` runs Threefry as a loop on a CPU, one key
after another: of a block of 20 devices that was half the time.
"""

import zlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.threefry import Words, folded, rounds

threefry = jax.jit(rounds)
"""`rounds` of JAX's arrays, traced once for each shape."""


def stream(seed: int | jax.Array, part: int = 0) -> Words:
    """The key of one part of what a seed draws."""
    return threefry((jnp.uint32(0), jnp.asarray(seed, jnp.uint32)), (jnp.uint32(0), jnp.uint32(part)))


def normals(key: Words, first: int | jax.Array, count: int) -> jax.Array:
    """(count,) of the float32 numbers that `jax.random.normal` makes of a key, from number `first` on, below 2^32.

    On a CPU `jax.random` has four times the memory of what it draws; this can draw piece by piece.
    """
    number = jnp.asarray(first, jnp.uint32) + jnp.arange(count, dtype=jnp.uint32)
    x, y = threefry(key, (jnp.zeros_like(number), number))
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    uniform = ((x ^ y) >> 9).astype(jnp.float32) * np.float32(2.0**-23)
    inside = jnp.maximum(lowest, uniform * (np.float32(1) - lowest) + lowest)
    return np.float32(np.sqrt(2)) * jax.scipy.special.erfinv(inside)


def words(key: Words, block: int | jax.Array, count: int) -> Words:
    """Two independent words (..., count) each of block (...); the first ones do not depend on `count`."""
    device = jnp.arange(count, dtype=jnp.uint32)
    return threefry(key, (jnp.asarray(block, jnp.uint32)[..., None], device))


def stable_hash(name: str) -> int:
    """A number for a scheme's name that is the same in every process."""
    return zlib.crc32(name.encode())


ACTS = 2
"""Which of `controller_keys` is that of the actions."""


def controller_keys(seed: jax.Array, name_hash: jax.Array) -> jax.Array:
    """(3,) keys of a scheme's own randomness: what is agreed, memories, actions."""
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), name_hash)
    return jax.random.split(key, 3)


def both_parties(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The devices' and the server's key."""
    devices, server = jax.random.split(key)
    return devices, server


def block_keys(key: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The devices' and the server's key of a block, from the key of the actions in the whole run."""
    return both_parties(jax.random.fold_in(key, block))


def per_device(key: jax.Array, devices: int) -> jax.Array:
    """(K,) keys, the first ones the same for any K."""
    return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(devices))


def of_device(key: jax.Array, number: jax.Array) -> jax.Array:
    """The key of one device, the one that `per_device` has for it."""
    return jax.random.fold_in(key, number)


def controller_keys_on_host(seeds: np.ndarray, stream: str, which: int | slice = slice(None)) -> jax.Array:
    """(seeds, 3) `controller_keys` of seeds (seeds,) uint32 and a label, or one of the three (seeds,).

    By NumPy, which has nothing to compile.
    """
    own = folded((np.zeros_like(seeds), seeds), stable_hash(stream))
    words = np.stack([np.stack(folded(own, i), axis=-1) for i in range(3)], axis=1)
    chosen: Any = words[:, which]
    return jax.random.wrap_key_data(chosen, impl="threefry2x32")
