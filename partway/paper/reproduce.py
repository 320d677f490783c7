"""Section VI of the paper, reproduced, and the claims of other sections: all runs, all verdicts."""

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partway.experiments import store as stores
from partway.experiments.store import Store
from partway.paper import figure_runs, information, proposition1, remark1, verdicts
from partway.paper.claims import PHASES, READINGS, Claim, claims
from partway.paper.figure_runs import KINDS, FigureJob, Sizes
from partway.paper.jobs import REPRODUCTION, SECONDS, Arrays, Job, job_key, modules, run_jobs
from partway.paper.verdicts import Verdict
from partway.provenance import made_by
from partway.scenario.loading import load

HEADLINE = (READINGS[0], PHASES[1])
"""(reading, phase) of a table with one verdict for each claim: the conserving queue, Figures 8 and 9 after training."""


@dataclass(frozen=True)
class Findings:
    """A reproduction: its sizes and preset, the arrays of every job, and the verdicts.

    seconds    that all jobs took together, whenever they ran [s]
    wall       duration of this call [s], with so many `processes`
    """

    sizes: Sizes
    preset: str
    runs: Mapping[Any, Mapping[str, np.ndarray]]
    claims: tuple[Claim, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    wall: float
    processes: int
    command: str

    def of(self, claim: str, candidate: str, reading: str, phase: str = "", baselines: str = KINDS[0]) -> Verdict:
        """One verdict; of a claim that is on no baselines, its only one. Raises StopIteration where there is none."""
        wanted = (claim, candidate, reading, phase)
        found = [one for one in self.verdicts if (one.claim, one.candidate, one.reading, one.phase) == wanted]
        return next(one for kind in (baselines, KINDS[0]) for one in found if one.baselines == kind)

    def figure_runs(self) -> dict[FigureJob, Mapping[str, np.ndarray]]:
        """The runs of Figures 6 to 9."""
        return {job: arrays for job, arrays in self.runs.items() if isinstance(job, FigureJob)}


def all_jobs(sizes: Sizes, preset: str) -> list[Any]:
    """Everything that is computed."""
    return [*figure_runs.jobs(sizes, preset), *proposition1.jobs(sizes, preset), *remark1.jobs(preset)]


def opened(out: Path, sizes: Sizes, preset: str, overwrite: bool) -> contextlib.AbstractContextManager[Store[Arrays]]:
    """The store of a reproduction in the folder `out`; see `partway.experiments.store.opened`.

    With `overwrite` the report of an earlier one is deleted, and of its jobs those that this one does not need.
    """
    jobs = all_jobs(sizes, preset)
    keep = [job_key(job) for job in jobs] if overwrite else []
    return stores.opened(out, REPRODUCTION, _request(sizes, preset, jobs), overwrite, keep)


def _request(sizes: Sizes, preset: str, jobs: list[Job]) -> dict[str, Any]:
    """What makes a reproduction what it is, in JSON types."""
    return {"scenario": load(preset).to_toml(), "sizes": asdict(sizes), "versions": made_by(*modules(jobs))}


def reproduce(
    sizes: Sizes,
    preset: str = "paper",
    store: Store[Arrays] | None = None,
    processes: int = 1,
    on_progress: Callable[[Any], None] = lambda job: None,
) -> Findings:
    """Run the jobs that `store` does not have, and judge the claims.

    on_progress  called with each job when its arrays are available
    """
    start = time.monotonic()
    runs = run_jobs(all_jobs(sizes, preset), store, processes, on_progress)
    tested = claims(sizes.points)
    figures = {job: arrays for job, arrays in runs.items() if isinstance(job, FigureJob)}
    judged = (*verdicts.judge(tested, figures), *proposition1.judge(runs), *remark1.judge(runs), *information.judge())
    judged = tuple(one.quotable(_replicates(sizes, one.claim)) for one in judged)
    seconds = float(sum(arrays[SECONDS] for arrays in runs.values()))
    wall, command = time.monotonic() - start, shlex.join(["partway", *sys.argv[1:]])
    return Findings(sizes, preset, runs, tested, judged, seconds, wall, processes, command)


def _replicates(sizes: Sizes, claim: str) -> int:
    """Of the comparisons of a claim: Proposition 1 and Remark 2 have their own."""
    return sizes.points.replicates if claim in ("P1", "R2") else len(sizes.seeds)


def phase_shown(claim: Claim) -> str:
    """The phase of a claim in a table with one verdict for each claim."""
    return HEADLINE[1] if HEADLINE[1] in verdicts.phases(claim) else ""
