"""Runs: a scan over blocks, a `vmap` over seeds, one compiled call after another.

Results do not depend on how blocks are split into calls, nor on which seeds run together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.draws import Drawn, brought, drawn
from partway.simulate import (
    Loop,
    Pair,
    Sums,
    Traces,
    controller_keys,
    first_state,
    play_block,
    stable_hash,
    start,
    summed,
    traced,
)
from partway.world import World, precise

BLOCKS_PER_CALL = 500
"""Blocks in one compiled call, so that progress can be shown and Ctrl-C is heard."""
MOST_DRAWN = 2**22
"""Device-blocks of draws that are kept at a time (8 bytes each)."""
BLOCKS_PER_TILE = 50
"""Blocks that are drawn at a time, where MOST_DRAWN allows it."""


@dataclass(frozen=True)
class Options:
    """What a compiled call is specialised to. Chance draws `tile` blocks at a time; results do not depend on it."""

    blocks: int
    tile: int = 1
    learning: bool = True
    traces: bool = False


def play_seed(
    world: World, pair: Pair, loop: Loop, seed: jax.Array, key: jax.Array, first: jax.Array, options: Options
):
    """`options.blocks` blocks of one seed -> loop, Sums (blocks,), Traces (blocks,) or None."""

    def block_of(before: Loop, at: tuple[jax.Array, Drawn]):
        block, kept = at
        after, played = play_block(world, pair, before, brought(world, kept), key, block, options.learning)
        return after, (summed(world, pair, after, played), traced(played) if options.traces else None)

    def tile_of(before: Loop, blocks: jax.Array):
        return jax.lax.scan(block_of, before, (blocks, jax.vmap(partial(drawn, world, seed))(blocks)))

    tiles = (first + jnp.arange(options.blocks)).reshape(-1, options.tile)
    after, parts = jax.lax.scan(tile_of, loop, tiles)
    return after, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)


@partial(jax.jit, static_argnames="options")
def _play_seeds(
    world: World, pair: Pair, loop: Loop, seeds: jax.Array, keys: jax.Array, first: jax.Array, options: Options
):
    play = partial(play_seed, options=options)
    return jax.vmap(play, in_axes=(None, 0, 0, 0, 0, None))(world, pair, loop, seeds, keys, first)


@jax.jit
def _start_seeds(world: World, pair: Pair, seeds: jax.Array, keys: jax.Array):
    return jax.vmap(start, in_axes=(None, None, 0, 0))(world, pair, seeds, keys)


@dataclass(frozen=True)
class Run:
    """What a run leaves: sums (and traces where asked for) as NumPy with axes (seed, block), and the trained pair.

    `pair` and `loop` have the seed axis first; `evaluate` plays them as they are.
    """

    sums: Sums
    traces: Traces | None
    pair: Pair
    loop: Loop


def run(
    world: World,
    pair: Pair,
    name: str,
    seeds: Sequence[int],
    blocks: int,
    *,
    precision: str = "float32",
    traces: bool = False,
    tick: Callable[[int], None] = lambda blocks: None,
) -> Run:
    """Play `blocks` blocks of every seed, learning on the way.

    name  of the scheme: the controllers' own randomness hangs on it, the world's does not
    tick  called with the number of blocks after each compiled call
    """
    agreed, loop = begin(world, pair, name, seeds, precision)
    return go_on(world, agreed, loop, name, seeds, blocks, 0, precision=precision, traces=traces, tick=tick)


def begin(world: World, pair: Pair, name: str, seeds: Sequence[int], precision: str) -> tuple[Pair, Loop]:
    """The pair after what is agreed beforehand, and the loop before block 0, both with the seed axis first."""
    with jax.enable_x64(precision == "float64"):
        numbers, keys = jnp.asarray(seeds, jnp.uint32), _keys(name, seeds)
        return _start_seeds(precise(world, precision), precise(pair, precision), numbers, keys)


def go_on(
    world: World,
    pair: Pair,
    loop: Loop,
    name: str,
    seeds: Sequence[int],
    blocks: int,
    first: int,
    *,
    precision: str = "float32",
    traces: bool = False,
    tick: Callable[[int], None] = lambda blocks: None,
) -> Run:
    """Play, learning, `blocks` more blocks from block `first` on: what `begin` or an earlier run has left."""
    with jax.enable_x64(precision == "float64"):
        concrete, numbers, keys = precise(world, precision), jnp.asarray(seeds, jnp.uint32), _keys(name, seeds)
        return _play_calls(concrete, pair, loop, numbers, keys[:, 2], blocks, first, True, traces, tick)


def evaluate(world: World, trained: Run, name: str, seeds: Sequence[int], blocks: int, *, traces: bool = False) -> Run:
    """Play the policies that a run has left, without learning: the output step of Algorithms 1 and 2.

    The first of `seeds` meets the policy trained on the run's first seed, and so on; queues start empty.
    """
    first = jax.tree.leaves(trained.loop.state.q)[0]
    if len(seeds) != len(first):
        raise ValueError(f"{len(first)} policies were trained, one a seed; {len(seeds)} seeds were given")
    with jax.enable_x64(first.dtype == jnp.float64):
        concrete, numbers, keys = precise(world, str(first.dtype)), jnp.asarray(seeds, jnp.uint32), _keys(name, seeds)
        states = jax.vmap(first_state, in_axes=(None, 0))(concrete, numbers)
        loop = Loop(states, trained.loop.device_memory, trained.loop.server_memory)
        return _play_calls(
            concrete, trained.pair, loop, numbers, keys[:, 2], blocks, 0, False, traces, lambda blocks: None
        )


def _keys(name: str, seeds: Sequence[int]) -> jax.Array:
    """(seeds, 3) keys of `controller_keys`."""
    numbers = jnp.asarray(seeds, jnp.uint32)
    return jax.vmap(controller_keys)(numbers, jnp.full(numbers.shape, stable_hash(name), jnp.uint32))


def _play_calls(
    world: World,
    pair: Pair,
    loop: Loop,
    seeds: jax.Array,
    keys: jax.Array,
    blocks: int,
    first: int,
    learning: bool,
    traces: bool,
    tick: Callable[[int], None],
) -> Run:
    """Blocks first .. first + blocks - 1, one compiled call after the other."""
    length = _call_length(blocks)
    tile = _divisor(length, min(BLOCKS_PER_TILE, MOST_DRAWN // world.devices.mean_gain.shape[-1] // len(seeds)))
    options, parts = Options(length, tile, learning, traces), []
    for done in range(0, blocks, options.blocks):
        loop, part = _play_seeds(world, pair, loop, seeds, keys, jnp.uint32(first + done), options)
        parts.append(jax.tree.map(np.asarray, part))
        tick(options.blocks)
    sums, traced_blocks = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *parts)
    return Run(sums, traced_blocks, pair, loop)


def _call_length(blocks: int) -> int:
    """The largest divisor of `blocks` up to BLOCKS_PER_CALL, so that one program serves all; all if that is small."""
    length = _divisor(blocks, BLOCKS_PER_CALL)
    return length if 10 * length >= min(blocks, BLOCKS_PER_CALL) else blocks


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` up to `most`, at least 1."""
    return max(d for d in range(1, max(most, 1) + 1) if number % d == 0)


@partial(jax.jit, static_argnames="options")
def _play_worlds(
    worlds: World, pairs: Pair, loops: Loop, seeds: jax.Array, keys: jax.Array, first: jax.Array, options: Options
):
    over_seeds = jax.vmap(partial(play_seed, options=options), in_axes=(None, 0, 0, 0, 0, None))
    return jax.vmap(over_seeds, in_axes=(0, 0, 0, None, None, None))(worlds, pairs, loops, seeds, keys, first)


@jax.jit
def _start_worlds(worlds: World, pairs: Pair, seeds: jax.Array, keys: jax.Array):
    over_seeds = jax.vmap(start, in_axes=(None, None, 0, 0))
    return jax.vmap(over_seeds, in_axes=(0, 0, None, None))(worlds, pairs, seeds, keys)


def run_worlds(
    worlds: Sequence[World],
    pairs: Sequence[Pair],
    name: str,
    seeds: Sequence[int],
    blocks: int,
    *,
    precision: str = "float32",
) -> list[Sums]:
    """`run` in several worlds at once, each with its own pair of one scheme, in one compiled program -> Sums of each.

    The worlds, and the pairs, must agree in all shapes and static fields. XLA may order a sum in another way than it
    does in `run`: in float32 last digits differ.
    """
    with jax.enable_x64(precision == "float64"):
        stacked: tuple[World, Pair] = jax.tree.map(
            lambda *leaves: np.stack([_typed(leaf, precision) for leaf in leaves]), *zip(worlds, pairs, strict=True)
        )
        concrete, numbers, keys = precise(stacked[0], precision), jnp.asarray(seeds, jnp.uint32), _keys(name, seeds)
        agreed, loops = _start_worlds(concrete, precise(stacked[1], precision), numbers, keys)
        lanes = concrete.devices.mean_gain.size * len(seeds)
        length = _call_length(blocks)
        options, parts = Options(length, _divisor(length, min(BLOCKS_PER_TILE, MOST_DRAWN // lanes))), list[Sums]()
        for done in range(0, blocks, options.blocks):
            loops, (part, _) = _play_worlds(concrete, agreed, loops, numbers, keys[:, 2], jnp.uint32(done), options)
            parts.append(jax.tree.map(np.asarray, part))
        sums: Sums = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=2), *parts)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], sums) for i in range(len(worlds))]


def _typed(leaf: Any, precision: str) -> Any:
    """A leaf as an array, a hyperparameter in the precision of the run."""
    return np.asarray(leaf, precision if isinstance(leaf, float) else None)
