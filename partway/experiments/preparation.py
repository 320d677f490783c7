"""The constant policy at its best: a small search on seeds that no comparison uses."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.baselines import Constant, Steady
from partway.pytree import cast_floats
from partway.rng import controller_keys, stable_hash
from partway.simulation.rollout import Options, play_seed
from partway.simulation.step import ControllerPair, start
from partway.system.world import World

HELD_OUT_SEEDS = (4_000_000_001, 4_000_000_002)
TUNING_BLOCKS = 300
SHARES = np.linspace(0.0, 1.0, 9)
SPEEDS = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0])
MOST_COUNTS = 6


def tune_constant(pair: ControllerPair, world: World) -> ControllerPair:
    """The pair with the share, tasks per block and (for `Steady`) server speed of least average cost.

    Three rounds on a grid: share x tasks at a server of full speed, then speeds, then shares between the neighbours.
    The cost is the mean over the second half of TUNING_BLOCKS blocks and HELD_OUT_SEEDS.
    """
    device, server = pair.device, pair.server
    if not isinstance(device, Constant):
        raise TypeError(f"expected Constant, found {type(device).__name__}")
    fastest = float(np.floor(np.max(world.devices.capacity))) + 1.0
    counts = np.unique(np.round(np.linspace(1.0, fastest, MOST_COUNTS)))
    best = _best(pair, world, np.array(np.meshgrid(SHARES, counts, [1.0])).reshape(3, -1))
    if isinstance(server, Steady):
        best = _best(pair, world, np.stack([np.full(len(SPEEDS), best[0]), np.full(len(SPEEDS), best[1]), SPEEDS]))
    step = (SHARES[1] - SHARES[0]) / 4
    nearby = np.clip(best[0] + step * np.arange(-3, 4), 0.0, 1.0)
    best = _best(pair, world, np.stack([nearby, np.full(len(nearby), best[1]), np.full(len(nearby), best[2])]))
    return _constant(pair, *(float(value) for value in best))


def _constant(
    pair: ControllerPair, share: jax.Array | float, tasks: jax.Array | float, speed: jax.Array | float
) -> ControllerPair:
    server = replace(pair.server, speed=speed) if isinstance(pair.server, Steady) else pair.server
    return ControllerPair(replace(pair.device, share=share, tasks=tasks), server)


def _best(pair: ControllerPair, world: World, candidates: np.ndarray) -> np.ndarray:
    """The column (share, tasks, speed) of least cost; ties: the first. Padded so that all rounds share one program."""
    most = len(SHARES) * MOST_COUNTS
    padded = np.concatenate([candidates, np.repeat(candidates[:, -1:], most - candidates.shape[1], axis=1)], axis=1)
    costs = _costs(cast_floats(world, "float32"), pair, jnp.asarray(padded, jnp.float32))
    return candidates[:, int(np.argmin(np.asarray(costs)[: candidates.shape[1]]))]


@jax.jit
def _costs(world: World, pair: ControllerPair, candidates: jax.Array) -> jax.Array:
    """(candidates,) mean cost per block."""

    def of_seed(candidate: jax.Array, seed: jax.Array) -> jax.Array:
        keys = controller_keys(seed, jnp.uint32(stable_hash("constant")))
        agreed, loop = start(world, _constant(pair, *candidate), seed, keys)
        _, (sums, _) = play_seed(world, agreed, loop, seed, keys[2], jnp.uint32(0), Options(TUNING_BLOCKS))
        return jnp.mean(sums.cost()[TUNING_BLOCKS // 2 :])

    seeds = jnp.asarray(HELD_OUT_SEEDS, jnp.uint32)
    over_seeds = jax.vmap(of_seed, in_axes=(None, 0))
    return jnp.mean(jax.vmap(over_seeds, in_axes=(1, None))(candidates, seeds), axis=1)
