"""Whether all implementations compute the same components of the cost, block by block, from Partway's random numbers.

In a world whose server is expensive: with a cheap one all work is served at once, and nothing depends on its learning.
"""

import numpy as np

from benchmarks.fleet import Array, agreed_features, fleet_of, recorded
from benchmarks.rivals import rival_of
from benchmarks.worlds import EXPENSIVE, pair_of, world_of
from partway.measurement.gap import COST_COMPONENTS
from partway.schemes import stream_of
from partway.simulation.rollout import Run, rollout

ALLOWED = {"float32": 1e-5, "float64": 1e-9}
"""Largest relative difference of the cost of a block."""


def differences(
    scheme: str, devices: int, runs: int, blocks: int, precision: str, kinds: list[str]
) -> dict[str, float]:
    """By rival the largest relative difference of a block's cost, or of a part of it, from Partway's.

    The plain loop computes in Python's own floats, so it is compared in float64 only. A part counts as a tenth of
    the cost at least: near 0 a relative difference says nothing.
    """
    world, pair, seeds = world_of(devices, EXPENSIVE), pair_of(scheme), list(range(runs))
    ours = components_of(rollout(world, pair, stream_of(scheme), seeds, blocks, precision=precision))
    features = agreed_features(world, pair, scheme, seeds, precision) if scheme == "parametric-printed" else None
    fleet, chance, found = fleet_of(world, precision), recorded(world, seeds, blocks, precision), dict[str, float]()
    for kind in kinds:
        size = runs if kind == "batched" else 1
        groups = [slice(first, first + size) for first in range(0, runs, size)]
        theirs = [
            rival_of(kind, pair, fleet, chance.of(group), features and features.of(group), size).play(blocks)
            for group in groups
        ]
        found[kind] = farthest(np.concatenate(theirs, axis=1), ours)
    return found


def components_of(run: Run) -> Array:
    """(4, S, blocks) the components of (8)."""
    return np.stack([getattr(run.metrics, component) for component in COST_COMPONENTS])


def farthest(theirs: Array, ours: Array) -> float:
    """The largest relative difference of a cost or of a part of it that is at least a tenth of the cost."""
    whole, theirs, ours = np.sum(ours, axis=0, dtype=np.float64), theirs.astype(np.float64), ours.astype(np.float64)
    scale = np.maximum(np.abs(ours), 0.1 * whole)
    of_whole = np.abs(np.sum(theirs, axis=0) - whole) / np.where(whole > 0, whole, 1.0)
    of_parts = np.abs(theirs - ours) / np.where(scale > 0, scale, 1.0)
    return float(max(of_whole.max(), of_parts.max()))
