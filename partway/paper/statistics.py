"""The statistics of verdicts: from paired replicates to holds, fails or undecided.

A claim is a set of comparisons that must all have the same sign. A comparison is one number for each replicate, whose
mean must be above 0: for costs the logarithm of a ratio, so that a scheme with a heavy tail has a variance at all. A
replicate has its own seed and placement, and every scheme runs in it: replicates are independent, schemes are paired,
and an interval also covers placements that were not drawn.

All comparisons of Figures 6 to 9 in one column of the table (one candidate under one reading of (1)) form a family,
and so do those of Proposition 1 in that column. Each family is corrected by Holm's method: the probability that any of
its comparisons is decided with the wrong sign is at most ALPHA. Student's t is an approximation, and a poor one for a
few replicates of costs whose distribution has two modes: below ENOUGH replicates there is no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

HOLDS, FAILS, UNDECIDED, NOT_APPLICABLE = "holds", "fails", "undecided", "not applicable"
TOO_FEW = "too few replicates"
ENOUGH = 20
"""Least number of replicates of a verdict."""
ALPHA = 0.05
"""Familywise error rate."""


@dataclass(frozen=True)
class Decision:
    """One comparison: its mean over replicates, its interval at confidence 1 - level, and its sign.

    p     of the two-sided test that the mean is 0
    sign  1 where the mean is significantly above 0, -1 where it is significantly below, otherwise 0

    The interval excludes 0 if and only if Holm's method rejects a mean of 0. NaN: there is no such number.
    """

    mean: float
    low: float
    high: float
    p: float
    level: float
    sign: int


def p_value(difference: np.ndarray) -> float:
    """Two-sided p of Student's t test that the mean of (replicates,) is 0; 1 where a number is missing."""
    if len(difference) < 2 or not np.isfinite(difference).all():
        return 1.0
    mean, error = _moments(difference)
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * special.stdtr(len(difference) - 1, -abs(mean) / error))


def holm_levels(p: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """The level at which each comparison of a family is tested by Holm's method.

    The smallest p is compared with alpha / m, the next with alpha / (m - 1), ...; after the first that is not rejected
    all others keep its level. So p <= level if and only if Holm's method rejects.
    """
    levels, stopped = [alpha] * len(p), None
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        levels[index] = alpha / (len(p) - rank) if stopped is None else stopped
        if stopped is None and p[index] > levels[index]:
            stopped = levels[index]
    return levels


def decide(family: Sequence[np.ndarray], alpha: float = ALPHA) -> list[Decision]:
    """Decisions on a family of comparisons, (replicates,) each, corrected together."""
    p = [p_value(difference) for difference in family]
    return [_decision(*one) for one in zip(family, p, holm_levels(p, alpha), strict=True)]


def verdict(decisions: Sequence[Decision]) -> str:
    """FAILS where any comparison is significantly against the claim, HOLDS where all are significantly for it."""
    if not decisions:
        return NOT_APPLICABLE
    if any(one.sign < 0 for one in decisions):
        return FAILS
    return HOLDS if all(one.sign > 0 for one in decisions) else UNDECIDED


def deciding(decisions: Sequence[Decision]) -> int:
    """Index of the comparison that decides a verdict: the one most against the claim, or least for it.

    Ordered by sign, then by the distance of the mean from 0 in units of the interval's width.
    """

    def distance(index: int) -> tuple[int, float]:
        one = decisions[index]
        width = one.high - one.low
        return one.sign, one.mean / width if width > 0 else np.inf if np.isfinite(one.mean) else -np.inf

    return min(range(len(decisions)), key=distance)


def _decision(difference: np.ndarray, p: float, level: float) -> Decision:
    if len(difference) < 2 or not np.isfinite(difference).all():
        return Decision(np.nan, np.nan, np.nan, p, level, 0)
    mean, error = _moments(difference)
    half = float(special.stdtrit(len(difference) - 1, 1.0 - level / 2.0)) * error
    sign = int(np.sign(mean)) if p <= level else 0
    return Decision(mean, mean - half, mean + half, p, level, sign)


def _moments(difference: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, which is 0 where it is within rounding of the mean."""
    mean, error = float(np.mean(difference)), float(np.std(difference, ddof=1) / np.sqrt(len(difference)))
    return mean, 0.0 if error <= 1e-15 * abs(mean) else error
