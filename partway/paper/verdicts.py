"""From the runs behind the figures to a verdict for every claim, candidate, reading of (1) and phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from partway.experiments.summary import COST_COMPONENTS
from partway.paper.claims import CANDIDATES, LATE, PHASES, PROPOSED, QUIET, READINGS, TOLERANCE, Claim, Ordering, Term
from partway.paper.figure_runs import Part, plays, settled
from partway.paper.statistics import NOT_APPLICABLE, Decision, decide, deciding, verdict
from partway.schemes import hyperparameters

Runs = Mapping[Part, Mapping[str, np.ndarray]]
WORDS = dict(zip(COST_COMPONENTS, ("server waiting", "server energy", "device waiting", "device energy"), strict=True))


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim.

    candidate, reading, phase  what plays the proposed scheme, how (1) is read, and where Figures 8 and 9 start
    labels, decisions  its comparisons        deciding  index of the one that decides, None where there is none
    unit     "ratio": decisions are logarithms of greater / smaller; else the unit of a difference
    why      a sentence from what was measured
    counted  the range of what was counted, not estimated, where that decides
    """

    claim: str
    candidate: str
    reading: str
    phase: str
    verdict: str
    labels: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    deciding: int | None = None
    unit: str = "ratio"
    why: str = ""
    counted: tuple[float, float] | None = None

    def interval(self) -> tuple[float, float] | None:
        """Of the comparison that decides: greater / smaller, above 1 where the claim holds; or of the difference."""
        if self.deciding is None:
            return self.counted
        one = self.decisions[self.deciding]
        return (bounded_exp(one.low), bounded_exp(one.high)) if self.unit == "ratio" else (one.low, one.high)


def bounded_exp(value: float) -> float:
    """exp(value), for an interval that may be as wide as can be."""
    return float(np.exp(np.clip(value, -700.0, 700.0)))


def judge(claims: Sequence[Claim], runs: Runs) -> list[Verdict]:
    """Verdicts of all claims that are orderings; each (candidate, reading) is one family of comparisons."""
    return [one for reading in READINGS for name in CANDIDATES for one in column(claims, runs, name, reading)]


def phases(claim: Claim) -> tuple[str, ...]:
    """Where a claim is looked at: Figures 8 and 9 from empty queues and after training."""
    return PHASES if claim.figure in ("8", "9") else ("",)


def column(claims: Sequence[Claim], runs: Runs, candidate: str, reading: str) -> list[Verdict]:
    """Verdicts of all claims that are orderings, of one candidate under one reading: one family of comparisons."""
    cells = [(claim, phase) for claim in claims if claim.orderings for phase in phases(claim)]
    if not plays(candidate, reading):
        return [Verdict(claim.id, candidate, reading, phase, NOT_APPLICABLE) for claim, phase in cells]
    found = {cell: [_difference(one, runs, cell, candidate, reading) for one in cell[0].orderings] for cell in cells}
    decisions = iter(decide([difference for cell in cells for difference in found[cell]]))
    verdicts: list[Verdict] = []
    for cell in cells:
        own = tuple(next(decisions) for _ in found[cell])
        verdicts.append(_judged(cell, candidate, reading, own, runs))
    return verdicts


def _judged(
    cell: tuple[Claim, str], candidate: str, reading: str, decisions: tuple[Decision, ...], runs: Runs
) -> Verdict:
    claim, phase = cell
    at, labels = deciding(decisions), tuple(one.sentence() for one in claim.orderings)
    why = _why(claim.orderings[at], decisions[at], runs, cell, candidate, reading)
    return Verdict(claim.id, candidate, reading, phase, verdict(decisions), labels, decisions, at, "ratio", why)


def _difference(ordering: Ordering, runs: Runs, cell: tuple[Claim, str], candidate: str, reading: str) -> np.ndarray:
    """(replicates,) log greater - log smaller."""
    with np.errstate(divide="ignore", invalid="ignore"):
        greater, smaller = (
            np.log(value(term, runs, cell, candidate, reading)) for term in (ordering.greater, ordering.smaller)
        )
        return np.asarray(greater - smaller)


def value(term: Term | float, runs: Runs, cell: tuple[Claim, str], candidate: str, reading: str) -> np.ndarray:
    """(replicates,) what a term stands for; of length 1 for a number."""
    if not isinstance(term, Term):
        return np.array([term])
    claim, phase = cell
    part, point = _found(term, runs, claim.figure, candidate, reading)
    arrays = runs[part]
    if term.quantity == "iterations":
        change = arrays["device_relative_change" if term.at == "1" else "server_relative_change"][point]
        return settled(change, TOLERANCE, QUIET)
    if isinstance(term.at, tuple):
        return arrays["cost"][point][:, slice(*term.at)].mean(axis=-1, dtype=np.float64)
    return arrays[phase][point]


def _found(term: Term, runs: Runs, figure: str, candidate: str, reading: str) -> tuple[Part, int]:
    """The part a term is read from, and the index of its arrival probability."""
    scheme = candidate if term.scheme == PROPOSED else term.scheme
    for part in runs:
        if (part.figure, part.scheme, part.reading) != (figure, scheme, reading):
            continue
        if figure == "8":
            return part, part.arrival_probs.index(cast(float, term.at))
        if figure != "9" or part.devices == term.at:
            return part, 0
    raise KeyError(f"no run of {scheme} for {term}")


def _why(
    ordering: Ordering, decision: Decision, runs: Runs, cell: tuple[Claim, str], candidate: str, reading: str
) -> str:
    """The comparison that decides, in numbers, and which part of the cost makes the difference."""
    if not np.isfinite(decision.mean):
        return f"No number for: {ordering.sentence()}."
    terms = (ordering.smaller, ordering.greater)
    values = [_typical(value(term, runs, cell, candidate, reading)) for term in terms]
    names = [_named(one, candidate) for one in ordering.sentence().split(" < ")]
    text = " against ".join(
        f"{name} = {number:.4g}" if " " in name else name for name, number in zip(names, values, strict=True)
    )
    learning = [term for term in terms if isinstance(term, Term) and term.quantity == "iterations"]
    if len(learning) == 1:
        text += f"; {_with_the_first_step(learning[0].at, runs, candidate, reading)}"
    both = [term for term in terms if isinstance(term, Term)]
    if len(both) == 2 and both[0].at == both[1].at and (cell[1] or both[0].at == LATE):
        text += f"; {_largest_part(both, runs, cell, candidate, reading)}"
    return text[0].upper() + text[1:] + "."


def shrinking(part: Part) -> np.ndarray:
    """(blocks,) alpha_t / alpha_0 of the steps of a part's scheme, as its scenario has them."""
    given = {**hyperparameters(part.scheme), **part.scenario().schemes.get(part.scheme, {})}
    return np.maximum((1.0 + np.arange(part.blocks)) ** -float(given["decay"]), given.get("min_step", 0.0))


def _with_the_first_step(algorithm: object, runs: Runs, candidate: str, reading: str) -> str:
    """How large the relative change is at the end, and would be had the step not shrunk (median of replicates)."""
    part, point = _found(Term("iterations", PROPOSED, str(algorithm)), runs, "6", candidate, reading)
    arrays = runs[part]
    change = arrays["device_relative_change" if algorithm == "1" else "server_relative_change"][point]
    end = slice(-(LATE[1] - LATE[0]), None)
    last = float(np.median(change[:, end]))
    unshrunk = float(np.median((change / shrinking(part))[:, end]))
    return f"at the end the relative change is {last:.2g}, with the first step instead of the shrunk one {unshrunk:.2g}"


def _named(text: str, candidate: str) -> str:
    return text.replace(PROPOSED, candidate)


def _typical(values: np.ndarray) -> float:
    """The geometric mean, whose ratios are what is compared."""
    return float(np.exp(np.mean(np.log(values))))


def _largest_part(terms: Sequence[Term], runs: Runs, cell: tuple[Claim, str], candidate: str, reading: str) -> str:
    """Which part of (8) makes most of the difference of two schemes, by the medians of replicates.

    Of the cost of the last blocks in Figure 7, of the discounted sum in Figures 8 and 9.
    """
    medians: list[np.ndarray] = []
    for term in terms:
        part, point = _found(term, runs, cell[0].figure, candidate, reading)
        medians.append(np.median(runs[part][f"{cell[1]}_parts" if cell[1] else "parts"][point], axis=0))
    apart = medians[1] - medians[0]
    largest = int(np.argmax(apart * np.sign(apart.sum())))
    return (
        f"the largest part of it is {WORDS[COST_COMPONENTS[largest]]} ({medians[0][largest]:.4g} against "
        f"{medians[1][largest]:.4g}, medians)"
    )
