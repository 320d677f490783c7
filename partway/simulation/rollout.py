"""Rollouts: `step` scanned over blocks, `vmap`ped over runs, one compiled call after another, spread over the cores.

A run is one seed of one pair of controllers in one world. Runs that are computed together may differ in anything but
shapes: seeds of one scheme, cases of a sweep, candidates of a search. A call leaves transitions, which the shared
program of `partway.measurement.metrics` turns into numbers before the next call begins.

Results do not depend on how blocks are divided into calls, nor on which runs are computed together, but for rounding: a
last digit can decide which action Q-learning takes. Equal bits need equally many cores (`NPROC`).
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from partway.bound.certificate import Certificate
from partway.controllers.base import ControllerPair
from partway.controllers.block import DeviceOutcome, Transition
from partway.errors import InputError, shorten
from partway.measurement.by_device import MAX_DEVICES, DeviceSums, summed, sums_of
from partway.measurement.metrics import BlockMetrics, DeviceTraces, device_traces, measure
from partway.program_cache import RUNS_ONCE, kept_jit
from partway.pytree import cast_floats, floats_as_arrays
from partway.rng import ACTS, controller_keys_on_host
from partway.simulation.fleet import runs_ahead
from partway.simulation.schedule import schedule
from partway.simulation.sharding import LARGE, release_freed_memory, shared_once, squeeze_shared
from partway.simulation.shares import Batch, Share, Stacked, axes_of, divide, joined, only, stack
from partway.simulation.step import Carry, init, run_devices_ahead, step
from partway.system.exogenous import PackedExogenous, draw
from partway.system.kinds import host_value
from partway.system.world import World
from partway.workers import threads as thread_pool

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What a compiled call is specialised to. Results do not depend on `tile`."""

    blocks: int
    tile: int = 1
    learning: bool = True


@dataclass(frozen=True)
class Run:
    """What a rollout leaves: metrics, and traces if asked for, as NumPy with axes (run, block); trained controllers.

    `by_device` are sums over the blocks after the warm-up, if that was given.

    `pair` and `carry` have the axis of the runs in front; `rollout(carry=...)` continues from them. `clipped` (run,
    block) counts devices, and the server, that asked for an action out of range; None: all controllers are Partway's.
    """

    metrics: BlockMetrics
    traces: DeviceTraces | None
    pair: ControllerPair
    carry: Carry
    clipped: np.ndarray | None = None
    by_device: DeviceSums | None = None


def rollout(
    worlds: World | Sequence[World],
    pairs: ControllerPair | Sequence[ControllerPair],
    stream: str,
    seeds: Sequence[int],
    blocks: int,
    *,
    certificates: Certificate | Sequence[Certificate | None] | None = None,
    carry: Carry | None = None,
    first_block: int = 0,
    learning: bool = True,
    precision: str = "float32",
    traces: bool = False,
    warmup: int | None = None,
    threads: int | None = None,
    on_progress: Callable[[int], None] = lambda blocks: None,
) -> Run:
    """Run `blocks` blocks of every seed, learning on the way.

    worlds, pairs, certificates  one for all runs, or one for each; all must agree in shapes and static fields
    stream       label of the controllers' own randomness; that of the worlds depends on the seed alone
    carry        continue from here at `first_block`, with pairs that `init` has set up (axis of runs in front)
    learning     False: the policies are frozen
    precision    "float32" or "float64"
    warmup       blocks of this rollout after which each device's sums begin; None: there are none
    threads      at most that many calls side by side; None: as many as there are cores
    on_progress  called with a number of blocks after each compiled call

    Raises ValueError if worlds, pairs or certificates do not agree in shapes, a seed is not a whole number, or `carry`
    has another number of runs; InputError if a channel or traffic ends before that many blocks.
    """
    for each in _several(worlds):
        check_length(each, first_block + blocks)
    runs = {len(leaf) for leaf in jax.tree.leaves(carry)}
    if runs - {len(seeds)}:
        raise ValueError(f"the carry must have {len(seeds)} runs, one per seed, got {max(runs)}")
    with jax.enable_x64(precision == "float64"):
        batch = _batch(worlds, certificates, stream, seeds, precision)
        if carry is None:
            pair, begin = _init_runs(batch, pairs, precision)
        else:
            pair, begin = _one(pairs), jax.tree.map(lambda leaf: leaf.copy(), carry)  # which is used up
        return _run_calls(batch, pair, begin, blocks, first_block, learning, traces, threads, on_progress, warmup)


def check_length(world: World, blocks: int) -> None:
    """Raise InputError if the channel or the traffic of a world, such as a trace, ends before that many blocks."""
    for process, field in ((world.channel, "radio.fading"), (world.traffic, "traffic")):
        end = host_value(field, process, "longest_run")
        if end is not None and end < blocks:
            raise InputError(
                f"{field}: it ends after {end} blocks, and the run needs {blocks}; run at most {end} blocks, or set "
                f"{field}.loop = true"
            )


def init_runs(
    world: World, pair: ControllerPair, stream: str, seeds: Sequence[int], precision: str
) -> tuple[ControllerPair, Carry]:
    """The pair after what the devices agree on, and the carry before block 0, both with the axis of runs in front."""
    with jax.enable_x64(precision == "float64"):
        return _init_runs(_batch(world, None, stream, seeds, precision), pair, precision)


def trace_blocks(world: World, pair: ControllerPair, precision: str) -> None:
    """Trace the first two blocks of a run; nothing is compiled. Raises what the controllers raise."""

    def blocks(world: World, pair: ControllerPair, seed: jax.Array, init_key: jax.Array, key: jax.Array) -> Any:
        own, carry = init(world, pair, seed, init_key)
        return run_blocks(world, own, carry, seed, key, jnp.uint32(0), Options(2, 2))

    with jax.enable_x64(precision == "float64"):
        batch = _batch(world, None, "trace", [0], precision)
        concrete, own = cast_floats(batch.world, precision), floats_as_arrays(pair, precision)
        jax.eval_shape(blocks, concrete, own, batch.seeds[0], batch.init_keys[0], batch.action_keys[0])


# What is computed together


def _batch(
    worlds: World | Sequence[World],
    certificates: Certificate | Sequence[Certificate | None] | None,
    stream: str,
    seeds: Sequence[int],
    precision: str,
) -> Batch:
    if np.asarray(seeds).dtype.kind not in "iu":
        raise ValueError(f"seeds must be whole numbers, got {shorten(str(seeds))}")
    numbers = np.asarray(seeds, np.uint32)
    world, stacked = stack([squeezed(each) for each in _several(worlds)])
    certificate, certificate_stacked = stack(_several(certificates))
    return Batch(
        world,
        cast_floats(certificate, precision),
        stacked,
        certificate_stacked,
        numbers,
        controller_keys_on_host(numbers, stream),
        controller_keys_on_host(numbers, stream, ACTS),
    )


def _several(one_or_more: Any) -> Sequence[Any]:
    return one_or_more if isinstance(one_or_more, Sequence) else [one_or_more]


def _one(pairs: Any) -> ControllerPair:
    if isinstance(pairs, Sequence):
        raise ValueError("a rollout that continues takes the pair of the rollout before it")
    return pairs


def squeezed(world: World) -> World:
    """The world with what all devices share once."""
    waiting = shared_once(world.initial_tasks)
    return replace(world, devices=squeeze_shared(world.devices), initial_tasks=waiting)


def _init_runs(batch: Batch, pairs: ControllerPair | Sequence[ControllerPair], precision: str) -> tuple[Any, Carry]:
    several = [floats_as_arrays(each, precision) for each in _several(pairs)]
    pair, stacked = stack(several, every=len(several) > 1)
    world = cast_floats(batch.world, precision)
    return _init_compiled(world, pair, batch.seeds, batch.init_keys, stacked=(batch.stacked, stacked))


# Compiled calls


@kept_jit(static_argnames=["stacked"], compiler_options=RUNS_ONCE)
def _init_compiled(
    world: World, pair: ControllerPair, seeds: jax.Array, keys: jax.Array, stacked: tuple[Stacked, Stacked]
) -> tuple[ControllerPair, Carry]:
    axes = (axes_of(world, stacked[0]), axes_of(pair, stacked[1]), 0, 0)
    return jax.vmap(init, in_axes=axes)(world, pair, seeds, keys)


@kept_jit(static_argnames=["options", "stacked"], donate_argnames=["carry"])
def _rollout_compiled(
    world: World,
    pair: ControllerPair,
    carry: Carry,
    seeds: jax.Array,
    keys: jax.Array,
    first: jax.Array,
    options: Options,
    stacked: Stacked,
) -> tuple[Carry, Transition]:
    """`options.blocks` blocks of each run -> carry, transitions (runs, blocks, ...)."""
    run = partial(run_blocks, options=options)
    if len(seeds) == 1:  # without an axis of one run, over which XLA's sums take ten times as long on a CPU
        own, before, seed, key = jax.tree.map(lambda leaf: leaf[0], (pair, carry, seeds, keys))
        return jax.tree.map(lambda leaf: leaf[None], run(only(world, stacked), own, before, seed, key, first))
    axes = (axes_of(world, stacked), 0, 0, 0, 0, None)
    return jax.vmap(run, in_axes=axes)(world, pair, carry, seeds, keys, first)


def run_blocks(
    world: World,
    pair: ControllerPair,
    carry: Carry,
    seed: jax.Array,
    key: jax.Array,
    first: jax.Array,
    options: Options,
) -> tuple[Carry, Transition]:
    """`options.blocks` blocks of one run, tile by tile -> carry, transitions (blocks, ...)."""

    def block_of(
        before: Carry, at: tuple[jax.Array, PackedExogenous, DeviceOutcome | None]
    ) -> tuple[Carry, Transition]:
        block, exogenous, ahead = at
        after, done = step(world, pair, before, exogenous, key, block, options.learning, ahead)
        given: Any = None  # what the scan was given need not be copied to what it leaves
        return after, replace(done, arrival_bits=given, devices=given if ahead is not None else done.devices)

    def tile_of(before: Carry, blocks: jax.Array) -> tuple[Carry, Transition]:
        memory, exogenous = draw(world, seed, before.state.memory, before.state.arrivals, blocks)
        before, ahead = replace(before, state=replace(before.state, memory=memory)), None
        if options.tile > 1 and runs_ahead(pair.device, before.state.q.shape[-1]):
            states, ahead = run_devices_ahead(world, pair, before, exogenous, key, blocks, options.learning)
            before = replace(before, device_state=states)
        after, transitions = jax.lax.scan(block_of, before, (blocks, exogenous, ahead))
        if ahead is None:
            return after, replace(transitions, arrival_bits=exogenous.arrival_bits)
        return after, replace(transitions, arrival_bits=exogenous.arrival_bits, devices=ahead)

    tiles = (first + jnp.arange(options.blocks, dtype=first.dtype)).reshape(-1, options.tile)
    if len(tiles) == 1:
        return tile_of(carry, tiles[0])
    after, transitions = jax.lax.scan(tile_of, carry, tiles)
    return after, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), transitions)


def _run_calls(
    batch: Batch,
    pair: ControllerPair,
    carry: Carry,
    blocks: int,
    first: int,
    learning: bool,
    traces: bool,
    threads: int | None,
    on_progress: Callable[[int], None],
    warmup: int | None = None,
) -> Run:
    """Blocks first .. first + blocks - 1, one compiled call after another, the runs in shares, side by side.

    `carry` is used up: a call writes what it leaves over what it was given.
    """
    plan = schedule(len(batch.seeds), batch.fleet, blocks, threads, ahead=not pair.device.uses_broadcast)
    shares = divide(batch, pair, carry, plan.shares, plan.mesh)
    sums_from = None if warmup is None or batch.fleet > MAX_DEVICES else first + warmup
    parts = list[Any]()
    with thread_pool(plan.threads) as pool:
        for length, tile in plan.calls:
            each, options = map if plan.threads == 1 else pool.map, Options(length, tile, learning)
            skipped = None if sums_from is None else max(sums_from - first, 0)
            how = {"options": options, "mesh": plan.mesh, "traces": traces, "skipped": skipped}
            if batch.fleet >= LARGE and len(parts) < 2:  # before and after the programs are compiled
                release_freed_memory()
            done = list(each(partial(_call, first=first, **how), shares))
            shares = [share for share, _ in done]
            parts.append(jax.tree.map(lambda *runs: np.concatenate(runs), *(part for _, part in done)))
            first += length
            on_progress(length)
    metrics, traced, clipped, sums = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *parts)
    by_device = None if sums is None else summed(sums)
    return Run(metrics, traced, pair, joined([share.carry for share in shares]), clipped, by_device)


def _call(
    share: Share, first: int, options: Options, mesh: Mesh | None, traces: bool, skipped: int | None
) -> tuple[Share, tuple[BlockMetrics, DeviceTraces | None, np.ndarray | None, DeviceSums | None]]:
    """One compiled call -> the share after it, and what was measured: metrics, traces, `Run.clipped`, and sums.

    skipped  first blocks that the devices' sums leave out; None: there are no sums
    """
    double = share.carry.state.q.dtype == jnp.float64
    # each thread has its own precision and mesh
    with jax.enable_x64(double), jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        after, transitions = _rollout_compiled(
            share.world,
            share.pair,
            share.carry,
            share.seeds,
            share.action_keys,
            np.uint32(first),
            options=options,
            stacked=share.stacked,
        )
        clipped, transitions = without_clipped(transitions)
        metrics = jax.tree.map(np.asarray, measure(share.parties, transitions, stacked=share.parties_stacked))
        traced = _traced(share, transitions) if traces else None
        sums = None if skipped is None else sums_of(transitions, skipped)
        return replace(share, carry=after), (metrics, traced, clipped, sums)


def without_clipped(transitions: Transition) -> tuple[np.ndarray | None, Transition]:
    """`Run.clipped` of transitions, and the transitions without it: all schemes share one program that measures."""
    devices, server = transitions.devices, transitions.server
    found: list[Any] = [np.sum(np.asarray(devices.out_of_range), axis=-1)] if devices.out_of_range is not None else []
    found += [np.asarray(server.out_of_range, int)] if server.out_of_range is not None else []
    nothing: Any = None
    devices, server = (replace(party, out_of_range=nothing) for party in (devices, server))
    return np.sum(found, axis=0) if found else None, replace(transitions, devices=devices, server=server)


def _traced(share: Share, transitions: Transition) -> DeviceTraces:
    """Traces of a share's runs, on the host."""
    return device_traces(jax.tree.map(np.asarray, share.parties.devices), transitions)
