"""Running means, and means with their 95 % intervals over seeds, for all points of a curve at once."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import special


def mean_and_interval(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis, lower and upper end of its 95 % Student interval, stacked: (3, ...) from (seeds, ...).

    The same numbers as `partway.experiments.statistics.estimate`: NaN where a seed has no finite value, and no interval
    with one seed.
    """
    values = np.where(np.isfinite(values).all(axis=0), values, np.nan).astype(np.float64)
    mean, count = values.mean(axis=0), len(values)
    if count < 2:
        return np.stack([mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)])
    half = special.stdtrit(count - 1, 0.975) * values.std(axis=0, ddof=1) / np.sqrt(count)
    return np.stack([mean, mean - half, mean + half])


def running_mean(values: np.ndarray, window: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the `window` blocks up to every `step`-th block, the last block included.

    Returns (points,) the last block of each window, and (..., points) from (..., blocks). Each window is summed by
    itself: with differences of one cumulative sum, a single huge cost would spoil all blocks after it.
    """
    ends, windows = _windows(values, window, step)
    return ends, windows.mean(axis=-1, dtype=np.float64)


def largest_by_seed(values: np.ndarray, window: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What dominates each window of `running_mean`, (points,) each, from (seeds, blocks) of which none is negative.

    Returns the largest value of any seed, the largest of the other seeds (0 if there is one seed), and the share that
    the largest value has of the sum of all (0 if all are 0).
    """
    windows = _windows(values, window, step)[1]
    by_seed = np.sort(windows.max(axis=-1).astype(np.float64), axis=0)
    total = windows.sum(axis=(0, -1), dtype=np.float64)
    second = by_seed[-2] if len(by_seed) > 1 else np.zeros_like(total)
    return by_seed[-1], second, by_seed[-1] / np.where(total > 0, total, 1.0)


def _windows(values: np.ndarray, window: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """(points,) last blocks, and (..., points, window) of (..., blocks)."""
    ends = np.arange(values.shape[-1] - 1, window - 2, -step)[::-1]
    return ends, sliding_window_view(values, window, axis=-1)[..., ends[0] + 1 - window :: step, :]
