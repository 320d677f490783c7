"""How good a setting is: of every claim its weakest comparison, standardised, and about how many claims hold.

    z = sqrt(n) mean / s,   n = the replicates of `make reproduce`

of a comparison's logarithms of ratios (`partway.paper.claims`): the t that n replicates would have, if these are
typical. s is the standard deviation of the replicates, moderated as in limma (Smyth 2004): with a few replicates some
of thousands of settings would otherwise have far too small a one. A claim is as strong as its weakest comparison; it is
likely to hold where that is above `needed()`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special

from partway.paper.claims import Claim, Points, Term, claims
from partway.paper.figure_runs import FULL
from partway.paper.statistics import ALPHA
from partway.paper.verdicts import phases

PRIOR_SPREAD, PRIOR_WEIGHT = 0.03, 2.0
"""The standard deviation that counts like so many degrees of freedom of the replicates' own."""
FARTHEST = 1e3
"""A comparison is nowhere stronger or weaker than this; one without a number is the weakest."""


@dataclass(frozen=True)
class Value:
    """A term, with the figure that it is of, and the phase."""

    term: Term
    figure: str
    phase: str


def tested(points: Points, figures: Sequence[str]) -> list[tuple[Claim, str]]:
    """(claim, phase) of every verdict on these figures."""
    own = [claim for claim in claims(points) if claim.figure in figures]
    return [(claim, phase) for claim in own for phase in phases(claim)]


def values(points: Points, figures: Sequence[str]) -> list[Value]:
    """Everything that must be measured for the claims on these figures."""
    found = [
        Value(side, claim.figure, phase)
        for claim, phase in tested(points, figures)
        for one in claim.orderings
        for side in (one.smaller, one.greater)
        if isinstance(side, Term)
    ]
    return list(dict.fromkeys(found))


def strengths(measured: np.ndarray, points: Points, figures: Sequence[str]) -> dict[str, np.ndarray]:
    """(settings,) z of the weakest comparison of every claim, by "claim phase".

    measured  (settings, replicates, values) of `values(points, figures)`
    """
    known = {one: number for number, one in enumerate(values(points, figures))}
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(measured.astype(np.float64))

    def side(of: Term | float, figure: str, phase: str) -> np.ndarray:
        if isinstance(of, Term):
            return logs[..., known[Value(of, figure, phase)]]
        return np.full(logs.shape[:-1], np.log(of))

    weakest: dict[str, np.ndarray] = {}
    for claim, phase in tested(points, figures):
        sides = [
            (side(one.smaller, claim.figure, phase), side(one.greater, claim.figure, phase)) for one in claim.orderings
        ]
        with np.errstate(invalid="ignore"):
            each = [standardised(greater - smaller) for smaller, greater in sides]
        weakest[f"{claim.id} {phase}".strip()] = np.min(each, axis=0)
    return weakest


def standardised(differences: np.ndarray) -> np.ndarray:
    """(settings,) z of (settings, replicates) differences that should be above 0."""
    own = differences.shape[-1] - 1
    with np.errstate(invalid="ignore"):
        mean, squares = differences.mean(axis=-1), own * differences.var(axis=-1, ddof=1)
        spread = np.sqrt((PRIOR_WEIGHT * PRIOR_SPREAD**2 + squares) / (PRIOR_WEIGHT + own))
        z = np.sqrt(len(FULL.seeds)) * mean / spread
    return np.clip(np.where(np.isfinite(z), z, -np.inf), -FARTHEST, FARTHEST)


@cache
def needed() -> float:
    """The t at which a comparison is decided by Holm's method if it is the first of its family to be rejected."""
    family = sum(len(claim.orderings) * len(phases(claim)) for claim in claims(FULL.points))
    return float(special.stdtrit(len(FULL.seeds) - 1, 1.0 - ALPHA / (2 * family)))


def score(weakest: dict[str, np.ndarray], wanted: Sequence[str] = ()) -> np.ndarray:
    """(settings,) about how many claims hold: the sum over claims of expit(4 (u - 1)) + tanh(u / 10) / 10.

    u is z / needed. A claim counts half at u = 1 and hardly at 0: a setting in which all schemes cost the same is no
    better than one in which claims fail. The second term says in which direction a claim lies that is far from holding.

    wanted  the weakest comparison of these claims together instead, in units of what is needed
    """
    if wanted:
        return np.min([weakest[name] for name in wanted], axis=0) / needed()
    units = [z / needed() for z in weakest.values()]
    return np.sum([special.expit(4.0 * (u - 1.0)) + np.tanh(u / 10.0) / 10.0 for u in units], axis=0)


def likely(weakest: dict[str, np.ndarray]) -> np.ndarray:
    """(settings,) how many claims are likely to hold."""
    return np.sum([z >= needed() for z in weakest.values()], axis=0)
