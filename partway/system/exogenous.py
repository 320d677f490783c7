"""What is random in a world, block by block: arrivals and channel gains, the same for every scheme.

The processes of the world draw it (`partway.system.processes`). What they remember goes from block to block in
`Memory`, a part of the system's state; those of the paper remember nothing.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.pytree import record
from partway.system.processes import SLOTS_PER_WORD, Station, packed_slots, station_of
from partway.system.types import Exogenous, Memory, State
from partway.system.world import World


@record
class PackedExogenous:
    """`Exogenous` as it is stored, of one block or of many (...).

    arrival_bits  (..., words, K) uint32: one bit a slot, SLOTS_PER_WORD slots a word       gain  (..., K) [1/W]
    next_arrival_bits  the same of the next block, where devices see them before they act; otherwise None
    """

    arrival_bits: jax.Array
    gain: jax.Array
    next_arrival_bits: jax.Array | None = None


def begin(world: World, seed: int | jax.Array, block: int | jax.Array = 0) -> tuple[Memory, jax.Array, jax.Array]:
    """What the processes remember at the start of a run whose first block is `block`, its gain (K,), and arrivals.

    arrivals  (n, K) that devices see in it: none, or those of the block if they see them before they act (T6)
    """
    stations, number = _stations(world), jnp.asarray(block, jnp.uint32)[None]
    seed = jnp.asarray(seed, jnp.uint32)
    channel, gain = world.channel.draw(world.channel.begin(seed, stations), seed, number, stations)
    memory, seen = Memory(channel, world.traffic.begin(seed, stations)), jnp.zeros((stations.slots, len(gain[0])))
    if world.devices.arrivals_seen == "current":
        traffic, bits = world.traffic.draw(memory.traffic, seed, number, stations)
        memory, seen = replace(memory, traffic=traffic), unpacked(stations.slots, bits[0], gain.dtype)
    return memory, gain[0], seen.astype(gain.dtype)


def draw(
    world: World, seed: int | jax.Array, memory: Memory, arrivals: jax.Array, blocks: jax.Array
) -> tuple[Memory, PackedExogenous]:
    """What the processes remember after consecutive blocks (T,), the arrivals of each, and the gain of the next.

    memory, arrivals  of the state before them
    """
    stations, after = _stations(world), jnp.asarray(blocks, jnp.uint32) + 1
    seed = jnp.asarray(seed, jnp.uint32)
    channel, gain = world.channel.draw(memory.channel, seed, after, stations)
    if world.devices.arrivals_seen == "past":
        traffic, bits = world.traffic.draw(memory.traffic, seed, blocks, stations)
        return Memory(channel, traffic), PackedExogenous(bits, gain)
    traffic, ahead = world.traffic.draw(memory.traffic, seed, after, stations)
    bits = jnp.concatenate([packed_slots(arrivals)[None], ahead[:-1]])
    return Memory(channel, traffic), PackedExogenous(bits, gain, ahead)


def draw_block(world: World, seed: jax.Array, state: State, block: jax.Array) -> tuple[State, PackedExogenous]:
    """`draw` of a single block: the state with what the processes remember, and what is random in the block."""
    memory, drawn = draw(world, seed, state.memory, state.arrivals, jnp.asarray(block, jnp.uint32)[None])
    return replace(state, memory=memory), jax.tree.map(lambda leaf: leaf[0], drawn)


def gains(world: World, seed: int | jax.Array, block: int | jax.Array) -> jax.Array:
    """(..., K) h of any blocks (...) on a channel without a memory, from the seed alone."""
    return world.channel.draw((), jnp.asarray(seed, jnp.uint32), jnp.asarray(block, jnp.uint32), _stations(world))[1]


def sample(world: World, seed: int | jax.Array, block: int | jax.Array) -> PackedExogenous:
    """The arrivals of any block t, or of each of many blocks (...), and what is drawn in it of block t + 1.

    For processes without a memory; `draw` does it for all.
    """
    stations, block = _stations(world), jnp.asarray(block, jnp.uint32)
    seed, after = jnp.asarray(seed, jnp.uint32), block + 1
    packed = PackedExogenous(world.traffic.draw((), seed, block, stations)[1], gains(world, seed, after))
    if world.devices.arrivals_seen == "past":
        return packed
    return replace(packed, next_arrival_bits=world.traffic.draw((), seed, after, stations)[1])


def unpack(slots: int, packed: PackedExogenous) -> Exogenous:
    """What is random in one block of `slots` slots."""
    dtype = packed.gain.dtype
    arrived, ahead = unpacked(slots, packed.arrival_bits, dtype), packed.next_arrival_bits
    return Exogenous(arrived, packed.gain, arrived if ahead is None else unpacked(slots, ahead, dtype))


def unpacked(slots: int, words: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """(n, K) 0 or 1 from (words, K)."""
    slot = jnp.arange(slots, dtype=jnp.uint32)
    bits = words[slot // SLOTS_PER_WORD] >> (slot % SLOTS_PER_WORD)[:, None]
    return (bits & 1).astype(dtype)


def unpack_arrivals(slots: int, arrival_bits: np.ndarray) -> np.ndarray:
    """(..., n, K) 0 or 1 from (..., words, K), on the host."""
    slot = np.arange(slots, dtype=np.uint32)
    bits = arrival_bits[..., slot // SLOTS_PER_WORD, :] >> (slot % SLOTS_PER_WORD)[:, None]
    return (bits & 1).astype(np.uint8)


def _stations(world: World) -> Station:
    """Of all devices, every leaf (K,)."""
    count = world.devices.mean_gain.shape[-1]
    few = station_of(world.devices, world.arrival_threshold)
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count,)), few)
