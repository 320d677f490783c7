"""How a rollout is spread over the machine: which runs share a compiled call, and how many calls run side by side.

Nothing here changes a result but for rounding.
"""

from dataclasses import dataclass

import jax
from jax.sharding import Mesh

from partway.simulation.sharding import mesh_for
from partway.workers import cores

BLOCKS_PER_CALL = 500
"""Blocks in one compiled call, so that progress can be shown and Ctrl-C takes effect between calls."""
MAX_PER_CALL = 2**22
"""Device-blocks in the compiled calls that run at a time: each leaves some 40 bytes to be measured."""
FEW = 2_000_000
"""Device-blocks that are computed in less time than it takes to compile a second program."""
BLOCKS_PER_TILE = 50
"""Blocks whose random numbers are drawn at a time and, where devices of a large fleet use no broadcast, run ahead."""
DEVICES_PER_CALL = 1280
"""Devices of all runs of a call on a CPU: more of them leave the cache."""


@dataclass(frozen=True)
class Schedule:
    """How a rollout is computed: its runs in equal `shares`, `threads` of them side by side, or each on a `mesh`.

    calls  (blocks of a compiled call, blocks of each of its tiles), one after another
    """

    shares: int
    threads: int
    mesh: Mesh | None
    calls: list[tuple[int, int]]


def schedule(runs: int, devices: int, blocks: int, threads: int | None = None, ahead: bool = True) -> Schedule:
    """The fastest schedule known for this number of runs of a fleet; `threads`: at most that many, all cores if None.

    ahead  whether devices may run several blocks ahead of the server; if not, long calls of a large fleet only take
           memory

    XLA starts the small kernels of a block one after another, so that one call hardly uses a second core: there are as
    many threads as cores. Where more JAX devices than shares can have a chunk of a large fleet, they do instead.
    """
    together = runs_per_call(runs, devices)
    shares, mesh = runs // together, mesh_for(devices)
    if mesh and mesh.size <= min(shares, cores()):
        mesh = None
    side_by_side = 1 if mesh else min(shares, cores())
    calls = divide_blocks(blocks, devices * together * side_by_side, ahead)
    return Schedule(shares, side_by_side if threads is None else min(side_by_side, threads), mesh, calls)


def runs_per_call(runs: int, devices: int) -> int:
    """How many runs a compiled call computes: equally many in each, all of them where there is a GPU."""
    if jax.default_backend() != "cpu":
        return runs
    per_core, limit = runs // divisor(runs, cores()), max(DEVICES_PER_CALL // devices, 1)
    together = divisor(per_core, limit)
    return together if 2 * together >= min(per_core, limit) else per_core


def divide_blocks(blocks: int, devices: int, ahead: bool = True) -> list[tuple[int, int]]:
    """Blocks of each compiled call and of each of its tiles; `devices`: devices of all calls that run at a time.

    Equally many in each call, so that one program serves all. Where that would make calls or tiles short, the last call
    is shorter; but FEW device-blocks are computed in equal calls, or one, whatever their tiles. Devices that do not run
    `ahead` get half as many blocks, but two where they would get two: XLA rounds a call of one block differently.
    """
    most = MAX_PER_CALL // devices
    if not ahead:
        most = min(most, max(most // 2, 2))
    limit = max(min(blocks, BLOCKS_PER_CALL, most), 1)
    in_tile = min(BLOCKS_PER_TILE, limit)
    few = blocks <= 10 * BLOCKS_PER_CALL and blocks * devices <= FEW
    length = divisor(blocks, limit)
    long = ahead or length > 1 or limit == 1
    if 10 * length >= limit and (few or (long and 2 * divisor(length, in_tile) >= in_tile)):
        calls = [length] * (blocks // length)
    elif few:
        calls = [blocks]
    else:
        length = limit // in_tile * in_tile
        calls = [*[length] * (blocks // length), *[blocks % length] * (blocks % length > 0)]
    return [(call, divisor(call, in_tile)) for call in calls]


def divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`, at least 1."""
    return max(d for d in range(1, max(limit, 1) + 1) if number % d == 0)
