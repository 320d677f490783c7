"""How a run is laid out on the machine: which seeds share a compiled call, how many calls run side by side.

Nothing here changes a result but for rounding.
"""

import os
from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from partway.fleet import mesh_for

BLOCKS_PER_CALL = 500
"""Blocks in one compiled call, so that progress can be shown and Ctrl-C is heard."""
MOST_PLAYED = 20_000_000
"""Device-blocks in one compiled call on a CPU, for the same reason: some seconds."""
MOST_DRAWN = 2**22
"""Device-blocks of draws that are kept at a time: 8 bytes each, and some 30 more where devices play ahead."""
BLOCKS_PER_TILE = 50
"""Blocks that are drawn at a time, where MOST_DRAWN allows it."""
LANES = 1280
"""Devices of all seeds together that a call on a CPU plays at most, if not of one seed: more leave the cache."""


@dataclass(frozen=True)
class Layout:
    """How a run is played: its seeds in equal `shares`, `threads` of which play side by side, or each on a `mesh`.

    call, tile  blocks of a compiled call, and of those that are drawn at a time
    """

    shares: int
    threads: int
    mesh: Mesh | None
    call: int
    tile: int


def layout_of(seeds: int, fleet: int, blocks: int) -> Layout:
    """The fastest layout known.

    XLA starts the small kernels of a block one after the other, so that one call hardly uses a second core: there are
    as many threads as cores. Where more JAX devices than shares can have a part of a large fleet, they do instead.
    """
    together = seeds_together(seeds, fleet)
    shares, mesh = seeds // together, mesh_for(fleet)
    if mesh and mesh.size <= min(shares, cores()):
        mesh = None
    threads = 1 if mesh else min(shares, cores())
    call = call_length(blocks, fleet * together)
    return Layout(shares, threads, mesh, call, tile_length(call, fleet * together * threads))


def seeds_together(seeds: int, fleet: int) -> int:
    """How many seeds a compiled call plays: equally many in each, all of them where there is a GPU."""
    if jax.default_backend() != "cpu":
        return seeds
    for_each_core, most = seeds // divisor(seeds, cores()), max(LANES // fleet, 1)
    together = divisor(for_each_core, most)
    return together if 2 * together >= min(for_each_core, most) else for_each_core


def cores() -> int:
    """Cores that this process may use: NPROC, which XLA reads too, or those it may run on."""
    told = os.environ.get("NPROC", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def call_length(blocks: int, lanes: int) -> int:
    """The largest divisor of `blocks` that is not too long for a call, so that one program serves all.

    All of them if that divisor is small.
    """
    played = MOST_PLAYED // lanes if jax.default_backend() == "cpu" else BLOCKS_PER_CALL
    most = max(min(blocks, BLOCKS_PER_CALL, played), 1)
    length = divisor(blocks, most)
    return length if 10 * length >= most else blocks


def tile_length(blocks: int, lanes: int) -> int:
    """The largest divisor of `blocks` of which the draws of so many devices may be kept at a time."""
    return divisor(blocks, min(BLOCKS_PER_TILE, MOST_DRAWN // lanes))


def divisor(number: int, most: int) -> int:
    """The largest divisor of `number` up to `most`, at least 1."""
    return max(d for d in range(1, max(most, 1) + 1) if number % d == 0)
