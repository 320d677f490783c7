"""Statistics of a run over seeds: estimates with intervals, instability, settling."""

from dataclasses import dataclass

import numpy as np
from scipy import special

BATCHES = 10
"""Pieces that half a run is averaged into before a slope is fitted: neighbouring blocks are not independent."""


SETTLED_WITHIN = 0.05
"""Relative distance from its end within which a running mean counts as settled."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval (NaN with one seed)."""

    mean: float
    low: float
    high: float


def estimate(per_seed: np.ndarray) -> Estimate:
    """Mean of (seeds,) and its 95 % Student interval; NaN if a seed has no finite number."""
    if not np.isfinite(per_seed).all():
        return Estimate(np.nan, np.nan, np.nan)
    mean, count = float(np.mean(per_seed)), len(per_seed)
    if count < 2:
        return Estimate(mean, np.nan, np.nan)
    half = float(special.stdtrit(count - 1, 0.975) * np.std(per_seed, ddof=1) / np.sqrt(count))
    return Estimate(mean, mean - half, mean + half)


def count_unstable(total_work: np.ndarray, arriving: float) -> tuple[int, float]:
    """In how many seeds the waiting work (seeds, blocks) grows without end, and its mean growth per block."""
    unstable, slopes = unstable_seeds(total_work, arriving)
    return int(np.sum(unstable)), float(np.mean(slopes))


def unstable_seeds(total_work: np.ndarray, arriving: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether the waiting work (seeds, blocks) of each seed grows without end, and its growth per block, (seeds,) each.

    A seed is unstable when the slope over the last half is above 1 % of the arriving work with 99 % confidence: a
    regression on the means of batches. SciPy's `linregress` finds the same and takes half a second to import.
    """
    half = total_work[:, total_work.shape[1] // 2 :]
    count = min(BATCHES, half.shape[1])
    if count < 3:
        return np.zeros(len(half), bool), np.zeros(len(half))
    pieces = np.array([np.mean(piece, axis=1) for piece in np.array_split(half, count, axis=1)])
    times = (np.arange(count) - (count - 1) / 2) * half.shape[1] / count
    risen = pieces - pieces[0]  # exactly 0 where nothing moves
    slopes = times @ risen / (times @ times)
    left = risen - risen.mean(axis=0) - np.outer(times, slopes)
    errors = np.sqrt(np.sum(left**2, axis=0) / (count - 2) / (times @ times))
    return slopes - special.stdtrit(count - 2, 0.99) * errors > 0.01 * arriving, slopes


def settling_block(cost: np.ndarray) -> int | None:
    """First block from which the running mean of the cost, averaged over seeds, stays within 5 % of its end."""
    mean = cost.mean(axis=0)
    running = np.cumsum(mean) / np.arange(1, len(mean) + 1)
    away = np.flatnonzero(np.abs(running - running[-1]) > SETTLED_WITHIN * abs(running[-1]))
    block = int(away[-1]) + 1 if len(away) else 0
    return block if block <= len(mean) // 2 else None
