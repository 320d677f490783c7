"""Runs: a scan over blocks, a `vmap` over seeds, one compiled call after another, seeds spread over the cores.

Results do not depend on how blocks are split into calls, nor on which seeds run together, but for rounding: a last
digit can decide which action Q-learning takes. Equal bits need as many cores (`NPROC`).
"""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.measurement.metrics import BlockMetrics, DeviceTraces, summed, traced
from partway.pytree import cast_floats, host_array
from partway.rng import folded, stable_hash
from partway.simulation.fleet import DeviceOutcome, plays_ahead, reshard, shard, squeeze_shared
from partway.simulation.schedule import calls_of, layout_of
from partway.simulation.step import Carry, ControllerPair, first_state, play_ahead, play_block, start
from partway.system.exogenous import PackedExogenous, sample
from partway.system.world import World

ACTS = 2
"""Which of `controller_keys` is that of the actions."""


@dataclass(frozen=True)
class Options:
    """What a compiled call is specialised to. Results do not depend on `tile`, see `layout.BLOCKS_PER_TILE`."""

    blocks: int
    tile: int = 1
    learning: bool = True
    traces: bool = False


def play_seed(
    world: World, pair: ControllerPair, loop: Carry, seed: jax.Array, key: jax.Array, first: jax.Array, options: Options
):
    """`options.blocks` blocks of one seed -> loop, Sums (blocks,), Traces (blocks,) or None."""

    def block_of(before: Carry, at: tuple[jax.Array, PackedExogenous, DeviceOutcome | None]):
        block, kept, did = at
        after, played = play_block(world, pair, before, kept, key, block, options.learning, did)
        return after, (summed(world, pair, after, played), traced(played) if options.traces else None)

    def tile_of(before: Carry, blocks: jax.Array):
        kept, did = sample(world, seed, blocks), None
        if options.tile > 1 and plays_ahead(pair.device, before.state.q.shape[-1]):
            memory, did = play_ahead(world, pair, before, kept, key, blocks, options.learning)
            before = replace(before, device_state=memory)
        return jax.lax.scan(block_of, before, (blocks, kept, did))

    tiles = (first + jnp.arange(options.blocks)).reshape(-1, options.tile)
    after, parts = jax.lax.scan(tile_of, loop, tiles)
    return after, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)


@partial(jax.jit, static_argnames="options", donate_argnames="loop")
def _play_seeds(
    world: World,
    pair: ControllerPair,
    loop: Carry,
    seeds: jax.Array,
    keys: jax.Array,
    first: jax.Array,
    options: Options,
):
    play = partial(play_seed, options=options)
    if len(seeds) == 1:  # without an axis of one seed, over which XLA's sums take ten times as long on a CPU
        pair, loop, seeds, keys = jax.tree.map(lambda leaf: leaf[0], (pair, loop, seeds, keys))
        return jax.tree.map(lambda leaf: leaf[None], play(world, pair, loop, seeds, keys, first))
    return jax.vmap(play, in_axes=(None, 0, 0, 0, 0, None))(world, pair, loop, seeds, keys, first)


@jax.jit
def _start_seeds(world: World, pair: ControllerPair, seeds: jax.Array, keys: jax.Array):
    return jax.vmap(start, in_axes=(None, None, 0, 0))(world, pair, seeds, keys)


@dataclass(frozen=True)
class Run:
    """What a run leaves: sums (and traces where asked for) as NumPy with axes (seed, block), and the trained pair.

    `pair` and `loop` have the seed axis first; `evaluate` plays them as they are.
    """

    sums: BlockMetrics
    traces: DeviceTraces | None
    pair: ControllerPair
    loop: Carry


def run(
    world: World,
    pair: ControllerPair,
    name: str,
    seeds: Sequence[int],
    blocks: int,
    *,
    precision: str = "float32",
    traces: bool = False,
    on_progress: Callable[[int], None] = lambda blocks: None,
) -> Run:
    """Play `blocks` blocks of every seed, learning on the way.

    name  of the scheme: the controllers' own randomness hangs on it, the world's does not
    tick  called with the number of blocks after each compiled call
    """
    agreed, loop = begin(world, pair, name, seeds, precision)
    with jax.enable_x64(precision == "float64"):
        numbers, keys = _numbers(seeds), _keys(name, seeds, ACTS)
        return _play_calls(world, agreed, loop, numbers, keys, blocks, 0, True, traces, on_progress)


def begin(
    world: World, pair: ControllerPair, name: str, seeds: Sequence[int], precision: str
) -> tuple[ControllerPair, Carry]:
    """The pair after what is agreed beforehand, and the loop before block 0, both with the seed axis first."""
    with jax.enable_x64(precision == "float64"):
        numbers, keys = _numbers(seeds), _keys(name, seeds)
        return _start_seeds(_concrete(world, precision), cast_floats(pair, precision), numbers, keys)


def go_on(
    world: World,
    pair: ControllerPair,
    loop: Carry,
    name: str,
    seeds: Sequence[int],
    blocks: int,
    first: int,
    *,
    precision: str = "float32",
    traces: bool = False,
    on_progress: Callable[[int], None] = lambda blocks: None,
) -> Run:
    """Play, learning, `blocks` more blocks from block `first` on: what `begin` or an earlier run has left."""
    with jax.enable_x64(precision == "float64"):
        numbers, keys, own = _numbers(seeds), _keys(name, seeds, ACTS), _copied(loop)
        return _play_calls(world, pair, own, numbers, keys, blocks, first, True, traces, on_progress)


def evaluate(world: World, trained: Run, name: str, seeds: Sequence[int], blocks: int, *, traces: bool = False) -> Run:
    """Play the policies that a run has left, without learning: the output step of Algorithms 1 and 2.

    The first of `seeds` meets the policy trained on the run's first seed, and so on; queues start empty.
    """
    first = jax.tree.leaves(trained.loop.state.q)[0]
    if len(seeds) != len(first):
        raise ValueError(f"{len(first)} policies were trained, one a seed; {len(seeds)} seeds were given")
    with jax.enable_x64(first.dtype == jnp.float64):
        concrete, numbers = _concrete(world, str(first.dtype)), _numbers(seeds)
        states = jax.vmap(first_state, in_axes=(None, 0))(concrete, numbers)
        init_fleet = _copied((trained.loop.device_state, trained.loop.server_state))
        loop = Carry(states, *init_fleet)
        keys = _keys(name, seeds, ACTS)
        return _play_calls(world, trained.pair, loop, numbers, keys, blocks, 0, False, traces, lambda blocks: None)


def _copied(tree: Any) -> Any:
    """A copy that may be used up. NumPy's arrays stay such: JAX would compile a program for each."""
    return jax.tree.map(lambda leaf: leaf.copy(), tree)


def _concrete(world: World, precision: str, shard: Callable[[Any], jax.Array] = jnp.asarray) -> World:
    """The world as the compiled calls take it."""
    return cast_floats(replace(world, devices=squeeze_shared(world.devices)), precision, shard)


def _numbers(seeds: Sequence[int]) -> jax.Array:
    return host_array(np.asarray(seeds, np.uint32))


def _keys(name: str, seeds: Sequence[int], which: int | slice = slice(None)) -> jax.Array:
    """(seeds, 3) keys of `controller_keys`, or one of the three (seeds,); by NumPy, which has nothing to compile."""
    numbers = _numbers(seeds)
    own = folded((np.zeros_like(numbers), numbers), stable_hash(name))
    words = np.stack([np.stack(folded(own, i), axis=-1) for i in range(3)], axis=1)
    return jax.random.wrap_key_data(host_array(words[:, which]), impl="threefry2x32")


def _play_calls(
    world: World,
    pair: ControllerPair,
    loop: Carry,
    seeds: jax.Array,
    keys: jax.Array,
    blocks: int,
    first: int,
    learning: bool,
    traces: bool,
    on_progress: Callable[[int], None],
) -> Run:
    """Blocks first .. first + blocks - 1, one compiled call after the other, the seeds in shares, side by side.

    `loop` is used up: a call writes what it leaves over what it was given. What is in memory twice: all, between calls,
    if there are several shares; inside a call, what the devices of a fleet that is played in parts remember.
    """
    double, fleet = loop.state.q.dtype == jnp.float64, world.devices.mean_gain.shape[-1]
    layout, parts = layout_of(len(seeds), fleet, blocks), []
    mesh = layout.mesh
    world = _concrete(world, "float64" if double else "float32", partial(shard, mesh, fleet) if mesh else jnp.asarray)
    shares, loops = _shares((pair, seeds, keys), layout.shares), _shares(loop, layout.shares)
    if mesh:
        loops = [jax.tree.map(partial(reshard, mesh, fleet), each) for each in loops]

    def play(share: tuple[Any, Carry], first: int, options: Options) -> tuple[Carry, Any]:
        (own, numbers, own_keys), before = share
        # each thread has its own precision and mesh
        with jax.enable_x64(double), jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
            after, part = _play_seeds(world, own, before, numbers, own_keys, np.uint32(first), options)
            return after, jax.tree.map(np.asarray, part)

    with ThreadPoolExecutor(layout.threads) as pool:
        for call, tile in layout.calls:
            each, options = map if layout.threads == 1 else pool.map, Options(call, tile, learning, traces)
            played = list(each(partial(play, first=first, options=options), zip(shares, loops, strict=True)))
            loops = [after for after, _ in played]
            parts.append(jax.tree.map(lambda *pieces: np.concatenate(pieces), *(part for _, part in played)))
            first += call
            on_progress(call)
    sums, traced_blocks = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *parts)
    return Run(sums, traced_blocks, pair, _together(loops))


def _shares(tree: Any, count: int) -> list[Any]:
    """A tree cut into equal pieces along the first axis of every leaf; by NumPy, which has nothing to compile."""
    if count == 1:
        return [tree]
    pieces = jax.tree.map(
        lambda leaf: jnp.split(leaf, count) if _is_key(leaf) else np.split(np.asarray(leaf), count), tree
    )
    return list(jax.tree.transpose(jax.tree.structure(tree), jax.tree.structure([0] * count), pieces))


def _together(trees: Sequence[Any]) -> Any:
    """The tree that `_shares` has cut."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: (jnp if _is_key(leaves[0]) else np).concatenate(leaves), *trees)


def _is_key(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


@partial(jax.jit, static_argnames="options")
def _play_worlds(
    worlds: World,
    pairs: ControllerPair,
    loops: Carry,
    seeds: jax.Array,
    keys: jax.Array,
    first: jax.Array,
    options: Options,
):
    over_seeds = jax.vmap(partial(play_seed, options=options), in_axes=(None, 0, 0, 0, 0, None))
    return jax.vmap(over_seeds, in_axes=(0, 0, 0, None, None, None))(worlds, pairs, loops, seeds, keys, first)


@jax.jit
def _start_worlds(worlds: World, pairs: ControllerPair, seeds: jax.Array, keys: jax.Array):
    over_seeds = jax.vmap(start, in_axes=(None, None, 0, 0))
    return jax.vmap(over_seeds, in_axes=(0, 0, None, None))(worlds, pairs, seeds, keys)


def run_worlds(
    worlds: Sequence[World],
    pairs: Sequence[ControllerPair],
    name: str,
    seeds: Sequence[int],
    blocks: int,
    *,
    precision: str = "float32",
) -> list[BlockMetrics]:
    """`run` in several worlds at once, each with its own pair of one scheme, in one compiled program -> Sums of each.

    The worlds, and the pairs, must agree in all shapes and static fields. XLA may order a sum in another way than it
    does in `run`: in float32 last digits differ.
    """
    with jax.enable_x64(precision == "float64"):
        stacked: tuple[World, ControllerPair] = jax.tree.map(
            lambda *leaves: np.stack([_typed(leaf, precision) for leaf in leaves]), *zip(worlds, pairs, strict=True)
        )
        concrete, numbers, keys = cast_floats(stacked[0], precision), _numbers(seeds), _keys(name, seeds)
        agreed, loops = _start_worlds(concrete, cast_floats(stacked[1], precision), numbers, keys)
        first, parts = 0, list[BlockMetrics]()
        for call, tile in calls_of(blocks, concrete.devices.mean_gain.size * len(seeds)):
            at, options = np.uint32(first), Options(call, tile)
            loops, (part, _) = _play_worlds(concrete, agreed, loops, numbers, keys[:, ACTS], at, options)
            parts.append(jax.tree.map(np.asarray, part))
            first += call
        sums: BlockMetrics = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=2), *parts)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], sums) for i in range(len(worlds))]


def _typed(leaf: Any, precision: str) -> Any:
    """A leaf as an array, a hyperparameter in the precision of the run."""
    return np.asarray(leaf, precision if isinstance(leaf, float) else None)
