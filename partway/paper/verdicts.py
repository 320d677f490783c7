"""From the runs behind the figures to a verdict for every claim, candidate, reading of (1) and phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from partway.measurement.gap import COMPONENT_NAMES, COST_COMPONENTS
from partway.paper.claims import (
    BASELINES,
    CANDIDATES,
    LATE,
    PHASES,
    PROPOSED,
    QUIET,
    READINGS,
    TOLERANCE,
    Claim,
    Ordering,
    Term,
)
from partway.paper.figure_runs import KINDS, LEAST_SQUARES, Configured, FigureJob, baseline, converged, supports
from partway.paper.statistics import ENOUGH, NOT_APPLICABLE, TOO_FEW, Decision, decide, deciding, verdict
from partway.scenario.loading import load
from partway.schemes import hyperparameters

Runs = Mapping[FigureJob, Mapping[str, np.ndarray]]
CHANGES = {"1": "device_relative_change", "2": "server_relative_change"}
"""The series of the relative change of Algorithms 1 and 2."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim.

    candidate, reading, phase  which scheme is "the proposed scheme", how (1) is read, where Figures 8 and 9 start
    labels, decisions  its comparisons        deciding  index of the one that decides, None where there is none
    unit     "ratio": decisions are logarithms of greater / smaller; otherwise the unit of a difference
    why      a sentence from the measured values
    counted  the range of the counted values, where these decide instead of estimates

    baselines  which of KINDS the candidate is compared with

    With neither decisions nor counts it follows from what a scheme declares.
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
    baselines: str = KINDS[0]

    def interval(self) -> tuple[float, float] | None:
        """Of the comparison that decides: greater / smaller, above 1 where the claim holds; or of the difference."""
        if self.deciding is None:
            return self.counted
        one = self.decisions[self.deciding]
        return (bounded_exp(one.low), bounded_exp(one.high)) if self.unit == "ratio" else (one.low, one.high)

    def supporting(self) -> int:
        """How many of its comparisons point the claim's way in the mean of the replicates."""
        return sum(one.mean > 0 for one in self.decisions)

    def quotable(self, replicates: int) -> "Verdict":
        """The same, without a verdict where it is estimated from fewer than ENOUGH replicates."""
        few = self.decisions and replicates < ENOUGH
        return replace(self, verdict=TOO_FEW) if few else self


@dataclass(frozen=True)
class Case:
    """What a verdict is on.

    kind, baselines  one of KINDS, and what each of BASELINES then is
    """

    claim: Claim
    candidate: str
    reading: str
    phase: str
    kind: str = KINDS[0]
    baselines: Mapping[str, Configured] = field(default_factory=dict)


def bounded_exp(value: float) -> float:
    """exp(value), finite for an interval of any width."""
    return float(np.exp(np.clip(value, -700.0, 700.0)))


def judge(claims: Sequence[Claim], runs: Runs) -> list[Verdict]:
    """Verdicts on all claims that are orderings; each (candidate, reading, kind of baselines) is one family."""
    return [
        one
        for kind in KINDS
        for reading in READINGS
        for name in CANDIDATES
        for one in column(claims, runs, name, reading, kind)
    ]


def phases(claim: Claim) -> tuple[str, ...]:
    """The phases in which a claim is tested: PHASES for Figures 8 and 9."""
    return PHASES if claim.figure in ("8", "9") else ("",)


def has_baselines(claim: Claim) -> bool:
    """Whether a claim is on one of BASELINES, too: then there is a verdict for each of KINDS."""
    terms = [side for one in claim.orderings for side in (one.smaller, one.greater) if isinstance(side, Term)]
    return any(term.scheme in BASELINES for term in terms)


def column(
    claims: Sequence[Claim],
    runs: Runs,
    candidate: str,
    reading: str,
    kind: str = KINDS[0],
    baselines: Mapping[str, Configured] | None = None,
) -> list[Verdict]:
    """Verdicts on all claims that are orderings, for one candidate under one reading: one family of comparisons.

    With baselines of another kind than the first, verdicts on the claims that are on baselines.

    baselines  what each of BASELINES is; if not given, `partway.paper.figure_runs.baseline`
    """
    judged = [claim for claim in claims if claim.orderings and (kind == KINDS[0] or has_baselines(claim))]
    if baselines is None:
        scenario = load(next(iter(runs)).preset)
        baselines = {name: baseline(name, candidate, kind, scenario) for name in BASELINES}
    cases = [Case(claim, candidate, reading, phase, kind, baselines) for claim in judged for phase in phases(claim)]
    if not supports(candidate, reading):
        return [
            Verdict(case.claim.id, candidate, reading, case.phase, NOT_APPLICABLE, baselines=kind) for case in cases
        ]
    decisions = iter(decide([_difference(one, runs, case) for case in cases for one in case.claim.orderings]))
    return [_verdict(case, tuple(next(decisions) for _ in case.claim.orderings), runs) for case in cases]


def _verdict(case: Case, decisions: tuple[Decision, ...], runs: Runs) -> Verdict:
    orderings, at = case.claim.orderings, deciding(decisions)
    labels = tuple(one.sentence() for one in orderings)
    why = _why(orderings[at], decisions[at], runs, case)
    about = (case.claim.id, case.candidate, case.reading, case.phase)
    return Verdict(*about, verdict(decisions), labels, decisions, at, "ratio", why, baselines=case.kind)


def _difference(ordering: Ordering, runs: Runs, case: Case) -> np.ndarray:
    """(replicates,) log greater - log smaller."""
    with np.errstate(divide="ignore", invalid="ignore"):
        greater, smaller = (np.log(value(term, runs, case)) for term in (ordering.greater, ordering.smaller))
        return np.asarray(greater - smaller)


def value(term: Term | float, runs: Runs, case: Case) -> np.ndarray:
    """(replicates,) the value of a term; (1,) of a constant."""
    if not isinstance(term, Term):
        return np.array([term])
    job, point = _job_of(term, runs, case)
    arrays = runs[job]
    if term.quantity == "iterations":
        return converged(arrays[CHANGES[str(term.at)]][point], TOLERANCE, QUIET)
    if isinstance(term.at, tuple):
        return arrays["cost"][point][:, slice(*term.at)].mean(axis=-1, dtype=np.float64)
    return arrays[case.phase][point]


def _job_of(term: Term, runs: Runs, case: Case) -> tuple[FigureJob, int]:
    """The job whose arrays hold a term, and the index of its arrival probability."""
    figure, configured = case.claim.figure, (case.candidate, ())
    if term.scheme != PROPOSED:
        configured = case.baselines[term.scheme]
    for job in runs:
        if (job.figure, (job.scheme, job.settings), job.reading) != (figure, configured, case.reading):
            continue
        if figure == "8":
            return job, job.arrival_probs.index(cast(float, term.at))
        if figure != "9" or job.devices == term.at:
            return job, 0
    raise KeyError(f"no run of {configured} for {term}")


def _why(ordering: Ordering, decision: Decision, runs: Runs, case: Case) -> str:
    """The comparison that decides, in numbers, and which component of the cost makes the difference."""
    if not np.isfinite(decision.mean):
        return f"No number for: {ordering.sentence()}."
    sides = (ordering.smaller, ordering.greater)
    means = [_geometric_mean(value(side, runs, case)) for side in sides]
    names = ordering.sentence().replace(PROPOSED, case.candidate).split(" < ")
    text = " against ".join(
        f"{name} = {mean:.4g}" if " " in name else name for name, mean in zip(names, means, strict=True)
    )
    terms = [side for side in sides if isinstance(side, Term)]
    learning = [term for term in terms if term.quantity == "iterations"]
    if len(learning) == 1:
        text += f"; {_at_the_end(learning[0], runs, case)}"
    if len(terms) == 2 and terms[0].at == terms[1].at and (case.phase or terms[0].at == LATE):
        text += f"; {_largest_component(terms, runs, case)}"
    return text[0].upper() + text[1:] + "."


def step_ratio(job: FigureJob, party: str = "device") -> np.ndarray:
    """(blocks,) alpha_t / alpha_0 of the learning steps of a job's scheme, of its "device" or its "server".

    1 for LEAST_SQUARES.
    """
    if job.scheme in LEAST_SQUARES:
        return np.ones(job.blocks)
    given = {**hyperparameters(job.scheme), **job.scenario().schemes.get(job.scheme, {})}
    decay = float(given.get(f"{party}_decay", given["decay"]))
    return np.maximum((1.0 + np.arange(job.blocks)) ** -decay, given.get("min_step", 0.0))


def _at_the_end(term: Term, runs: Runs, case: Case) -> str:
    """The relative change at the end of the run, and what it would be with the initial step (medians of replicates).

    Of LEAST_SQUARES, which have no step size, the former alone.
    """
    job, point = _job_of(term, runs, case)
    name = CHANGES[str(term.at)]
    change, party = runs[job][name][point], name.partition("_")[0]
    end = slice(-(LATE[1] - LATE[0]), None)
    last, unshrunk = (float(np.median(each[:, end])) for each in (change, change / step_ratio(job, party)))
    words = f"at the end the relative change is {last:.2g}"
    if job.scheme in LEAST_SQUARES:
        return f"{words} (least squares have no step size)"
    return f"{words}, with the initial step it would be {unshrunk:.2g}"


def _geometric_mean(values: np.ndarray) -> float:
    """The mean whose ratios are compared."""
    return float(np.exp(np.mean(np.log(values))))


def _largest_component(terms: Sequence[Term], runs: Runs, case: Case) -> str:
    """Which component of (8) makes most of the difference between two schemes, by medians of replicates.

    Of the cost of the last blocks in Figure 7, of the discounted sum in Figures 8 and 9.
    """
    name = f"{case.phase}_components" if case.phase else "components"
    at = [_job_of(term, runs, case) for term in terms]
    medians = [np.median(runs[job][name][point], axis=0) for job, point in at]
    difference = medians[1] - medians[0]
    largest = int(np.argmax(difference * np.sign(difference.sum())))
    return (
        f"the largest component of the difference is {COMPONENT_NAMES[COST_COMPONENTS[largest]]} "
        f"({medians[0][largest]:.4g} against {medians[1][largest]:.4g}, medians)"
    )
