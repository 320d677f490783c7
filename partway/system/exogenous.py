"""What is random in a world, block by block: arrivals and channel gains, the same for every scheme."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.pytree import record
from partway.rng import stream, words
from partway.system.fading import fading_from_uniform
from partway.system.types import Exogenous
from partway.system.world import World

SLOTS_PER_WORD = 8
"""Slots that share a random word: 32 bits hold eight Bernoullis to a part in 2^24 or better."""


@record
class PackedExogenous:
    """`Exogenous` as it is stored, of one block or of many (...).

    arrival_bits  (..., words, K) uint32: one bit a slot, SLOTS_PER_WORD slots a word       gain  (..., K) [1/W]
    next_arrival_bits  the same of the next block, where devices see them before they act; otherwise None
    """

    arrival_bits: jax.Array
    gain: jax.Array
    next_arrival_bits: jax.Array | None = None


def gains(world: World, seed: int | jax.Array, block: int | jax.Array) -> jax.Array:
    """(..., K) h of blocks (...): mean gain times fading, drawn in the block before.

    The fading comes from 23 bits, so that float32 and float64 hold the same uniform number in (0, 1) exactly.
    """
    mean = world.devices.mean_gain
    word, _ = words(stream(seed), jnp.asarray(block, jnp.uint32) - 1, mean.shape[-1])
    uniform = ((word >> 9).astype(mean.dtype) + 0.5) * 2.0**-23
    return mean * fading_from_uniform(uniform)


def arrivals(world: World, seed: int | jax.Array, block: int | jax.Array) -> jax.Array:
    """(n, K) 0 or 1: a task arrives with probability b in every slot, independently."""
    return exogenous(world, seed, block).arrivals


def sample(world: World, seed: int | jax.Array, block: int | jax.Array) -> PackedExogenous:
    """The arrivals of block t, or of each of many blocks (...), and what is drawn in it of block t + 1."""
    after = jnp.asarray(block, jnp.uint32) + 1
    packed = PackedExogenous(_arrival_bits(world, seed, block), gains(world, seed, after))
    if world.devices.arrivals_seen == "past":
        return packed
    return replace(packed, next_arrival_bits=_arrival_bits(world, seed, after))


def unpack(slots: int, packed: PackedExogenous) -> Exogenous:
    """What is random in one block of `slots` slots."""
    slot = jnp.arange(slots, dtype=jnp.uint32)

    def unpacked(words: jax.Array) -> jax.Array:
        bits = words[slot // SLOTS_PER_WORD] >> (slot % SLOTS_PER_WORD)[:, None]
        return (bits & 1).astype(packed.gain.dtype)

    arrived, ahead = unpacked(packed.arrival_bits), packed.next_arrival_bits
    return Exogenous(arrived, packed.gain, arrived if ahead is None else unpacked(ahead))


def unpack_arrivals(slots: int, arrival_bits: np.ndarray) -> np.ndarray:
    """(..., n, K) 0 or 1 from (..., words, K), on the host."""
    slot = np.arange(slots, dtype=np.uint32)
    bits = arrival_bits[..., slot // SLOTS_PER_WORD, :] >> (slot % SLOTS_PER_WORD)[:, None]
    return (bits & 1).astype(np.uint8)


def exogenous(world: World, seed: int | jax.Array, block: int | jax.Array) -> Exogenous:
    """The arrivals of block t, and the gain of block t + 1."""
    return unpack(world.devices.slots, sample(world, seed, block))


def _arrival_bits(world: World, seed: int | jax.Array, block: int | jax.Array) -> jax.Array:
    """(..., words, K) the arrivals of eight slots in a word.

    One random word decides them: it is a point in an interval that each slot splits at b and keeps one side of, in
    whole numbers, so that float32, float64, CPU and GPU draw the same. b = 1 fails once in 2^31 slots.
    """
    slots, threshold, packed = world.devices.slots, world.arrival_threshold, list[jax.Array]()
    for first in range(0, slots, SLOTS_PER_WORD):
        _, point = words(stream(seed, first // SLOTS_PER_WORD), block, threshold.shape[-1])
        width, bits = jnp.full_like(point, 2**32 - 1), jnp.zeros_like(point)
        for slot in range(min(SLOTS_PER_WORD, slots - first)):
            split = _product_high(width, threshold)
            arrives = point < split
            point, width = jnp.where(arrives, point, point - split), jnp.where(arrives, split, width - split)
            bits = bits | arrives.astype(jnp.uint32) << slot
        packed.append(bits)
    return jnp.stack(packed, axis=-2)


@jax.jit
def _product_high(a: jax.Array, b: jax.Array) -> jax.Array:
    """The upper 32 bits of the 64-bit product of two uint32."""
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = a_high * b_low + ((a_low * b_low) >> 16)
    carry = a_low * b_high + (middle & 0xFFFF)
    return a_high * b_high + (middle >> 16) + (carry >> 16)
