"""How a run is laid out on the machine: which seeds share a compiled call, how many calls run side by side.

Nothing here changes a result but for rounding.
"""

from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from partway.simulation.fleet import mesh_for
from partway.workers import cores

BLOCKS_PER_CALL = 500
"""Blocks in one compiled call, so that progress can be shown and Ctrl-C is heard."""


MOST_PLAYED = 20_000_000
"""Device-blocks in one compiled call on a CPU, for the same reason: some seconds."""


FEW = 2_000_000
"""Device-blocks that are played in less time than it takes to compile a second program."""


BLOCKS_PER_TILE = 50
"""Blocks of a tile: drawn at a time, and if the devices of a large fleet hear nothing, played ahead of the server."""


MOST_DRAWN = 2**22
"""Device-blocks of a tile, which may make it shorter: 8 bytes each, and some 30 more where devices play ahead."""


LANES = 1280
"""Devices of all seeds together that a call on a CPU plays at most, if not of one seed: more leave the cache."""


@dataclass(frozen=True)
class Layout:
    """How a run is played: its seeds in equal `shares`, `threads` of which play side by side, or each on a `mesh`.

    calls  blocks of each compiled call, and of each of its tiles
    """

    shares: int
    threads: int
    mesh: Mesh | None
    calls: list[tuple[int, int]]


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
    return Layout(shares, threads, mesh, calls_of(blocks, fleet * together, threads))


def seeds_together(seeds: int, fleet: int) -> int:
    """How many seeds a compiled call plays: equally many in each, all of them where there is a GPU."""
    if jax.default_backend() != "cpu":
        return seeds
    for_each_core, most = seeds // divisor(seeds, cores()), max(LANES // fleet, 1)
    together = divisor(for_each_core, most)
    return together if 2 * together >= min(for_each_core, most) else for_each_core


def calls_of(blocks: int, lanes: int, threads: int = 1) -> list[tuple[int, int]]:
    """Blocks of each compiled call and of each of its tiles, for so many devices of all its seeds.

    Equally many in each call, so that one program serves all. Where that would make calls or tiles short, the last call
    is shorter; but FEW device-blocks are played in equal calls, or one, whatever their tiles.
    """
    played = MOST_PLAYED // lanes if jax.default_backend() == "cpu" else BLOCKS_PER_CALL
    most = max(min(blocks, BLOCKS_PER_CALL, played), 1)
    in_tile = min(max(MOST_DRAWN // (lanes * threads), 1), BLOCKS_PER_TILE, most)
    few = blocks <= 10 * BLOCKS_PER_CALL and blocks * lanes <= FEW
    length = divisor(blocks, most)
    if 10 * length >= most and (few or 2 * divisor(length, in_tile) >= in_tile):
        calls = [length] * (blocks // length)
    elif few:
        calls = [blocks]
    else:
        length = most // in_tile * in_tile
        calls = [*[length] * (blocks // length), *[blocks % length] * (blocks % length > 0)]
    return [(call, divisor(call, in_tile)) for call in calls]


def divisor(number: int, most: int) -> int:
    """The largest divisor of `number` up to `most`, at least 1."""
    return max(d for d in range(1, max(most, 1) + 1) if number % d == 0)
