"""Many runs in one compiled program, of which only what a figure needs is kept: the cost of every block, or the change.

The lanes of a program are settings and replicates; they may differ in every number of the world and of the controllers.
There is no lower bound, no latency and no other metric: what a run costs here is its blocks, some hundred nanoseconds
for each device. Not by `partway.simulation.rollout`, which keeps the transitions of all blocks of a call to measure
them: here a number a block is kept, and a whole run is one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerPair
from partway.controllers.block import Transition
from partway.pytree import cast_floats, floats_as_arrays, record
from partway.rng import ACTS, controller_keys_on_host
from partway.simulation.rollout import squeezed
from partway.simulation.schedule import BLOCKS_PER_TILE, DEVICES_PER_CALL, divisor
from partway.simulation.shares import stack
from partway.simulation.step import Carry, init, step
from partway.system.equations import device_cost, server_cost, server_energy
from partway.system.exogenous import PackedExogenous, sample
from partway.system.world import World

MOST_LANES = 64
"""Lanes of a call, however few devices they have."""


@dataclass(frozen=True)
class Lane:
    """One run: its world, without anything that only other schemes read, its controllers, and its seed."""

    world: World
    pair: ControllerPair
    seed: int


@record
class Changes:
    """Relative change of what was learned, by the devices (mean) and by the server."""

    devices: jax.Array
    server: jax.Array


def costs(lanes: Sequence[Lane], stream: str, blocks: int) -> np.ndarray:
    """(lanes, blocks) cost of every block."""
    return _in_calls(lanes, stream, blocks, changes=False)


def changes(lanes: Sequence[Lane], stream: str, blocks: int) -> Changes:
    """(lanes, blocks) relative changes."""
    return _in_calls(lanes, stream, blocks, changes=True)


def without_plans(world: World) -> World:
    """The world without plans: their length is static and would need a program of its own, and no lane plans."""
    return replace(world, devices=replace(world.devices, max_tasks_per_block=0))


def lanes_per_call(devices: int) -> int:
    """Runs of a fleet that are computed together; the last call is filled up, so that one program serves all."""
    return max(min(MOST_LANES, DEVICES_PER_CALL // devices), 1)


def _in_calls(lanes: Sequence[Lane], stream: str, blocks: int, changes: bool) -> Any:
    """What all lanes leave, those of one program together."""
    found: dict[Any, list[int]] = {}
    for number, lane in enumerate(lanes):
        found.setdefault(jax.tree.structure((lane.world, lane.pair)), []).append(number)
    order, parts, size = list[int](), list[Any](), lanes_per_call(lanes[0].world.devices.mean_gain.shape[-1])
    for numbers in found.values():
        for first in range(0, len(numbers), size):
            some = numbers[first : first + size]
            filled = some + some[-1:] * (size - len(some))
            order += some
            done = _call([lanes[number] for number in filled], stream, blocks, changes)
            parts.append(jax.tree.map(itemgetter(slice(len(some))), done))
    at = np.argsort(order)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[at], *parts)


def _call(lanes: Sequence[Lane], stream: str, blocks: int, changes: bool) -> Any:
    """NumPy arrays of the lanes of one call."""
    world, _ = stack([squeezed(lane.world) for lane in lanes], every=True)
    pair, _ = stack([floats_as_arrays(lane.pair, "float32") for lane in lanes], every=True)
    seeds = np.array([lane.seed for lane in lanes], np.uint32)
    keys = controller_keys_on_host(seeds, stream), controller_keys_on_host(seeds, stream, ACTS)
    done = _run_all(cast_floats(world, "float32"), pair, seeds, *keys, blocks=blocks, changes=changes)
    return jax.tree.map(np.asarray, done)


@partial(jax.jit, static_argnames=("blocks", "changes"))
def _run_all(
    world: World,
    pair: ControllerPair,
    seeds: jax.Array,
    init_keys: jax.Array,
    action_keys: jax.Array,
    blocks: int,
    changes: bool,
) -> Any:
    return jax.vmap(partial(_run, blocks=blocks, changes=changes))(world, pair, seeds, init_keys, action_keys)


def _run(
    world: World,
    pair: ControllerPair,
    seed: jax.Array,
    init_key: jax.Array,
    key: jax.Array,
    blocks: int,
    changes: bool,
) -> Any:
    """One run -> (blocks,) of the cost, or of the changes."""
    own, begin = init(world, pair, seed, init_key)

    def block_of(before: Carry, at: tuple[jax.Array, PackedExogenous]) -> tuple[Carry, Any]:
        block, exogenous = at
        after, done = step(world, own, before, exogenous, key, block, True)
        if not changes:
            return after, cost_of(world, done)
        return after, Changes(jnp.mean(done.devices.relative_change), done.server.relative_change)

    def tile_of(before: Carry, numbers: jax.Array) -> tuple[Carry, Any]:
        return jax.lax.scan(block_of, before, (numbers, sample(world, seed, numbers)))

    tiles = jnp.arange(blocks, dtype=jnp.uint32).reshape(-1, divisor(blocks, BLOCKS_PER_TILE))
    _, series = jax.lax.scan(tile_of, begin, tiles)
    return jax.tree.map(lambda leaf: leaf.reshape(-1), series)


def cost_of(world: World, done: Transition) -> jax.Array:
    """(8) of a block, for all devices and the server."""
    did, server = done.devices, world.server
    own = device_cost(world.devices, did.q, did.energy_j)
    joules = server_energy(server, done.server.service_per_slot)
    return jnp.sum(own) + server_cost(server, done.server.backlog, joules)
