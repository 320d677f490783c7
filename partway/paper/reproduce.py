"""Section VI of the paper, reproduced: all runs, all verdicts."""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partway.paper import proposition1, remark1
from partway.paper import verdicts as judge
from partway.paper.claims import PHASES, READINGS, Claim, claims
from partway.paper.figure_runs import Part, Sizes, parts
from partway.paper.jobs import SECONDS, run_parts
from partway.paper.verdicts import Verdict

HEADLINE = (READINGS[0], PHASES[1])
"""What a table with one verdict for each claim shows: the conserving queue, and in Figures 8 and 9 after training."""


@dataclass(frozen=True)
class Findings:
    """A reproduction: what was asked, every part's arrays, and the verdicts.

    seconds  all parts took, added up, whenever they were run        wall, jobs  seconds and processes of this call
    """

    sizes: Sizes
    preset: str
    runs: Mapping[Any, Mapping[str, np.ndarray]]
    claims: tuple[Claim, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    wall: float
    jobs: int
    command: str

    def of(self, claim: str, candidate: str, reading: str, phase: str = "") -> Verdict:
        """One verdict; raises StopIteration where there is none."""
        wanted = (claim, candidate, reading, phase)
        return next(one for one in self.verdicts if (one.claim, one.candidate, one.reading, one.phase) == wanted)

    def figure_runs(self) -> dict[Part, Mapping[str, np.ndarray]]:
        """The runs of Figures 6 to 9."""
        return {part: arrays for part, arrays in self.runs.items() if isinstance(part, Part)}


def all_parts(sizes: Sizes, preset: str) -> list[Any]:
    """All that is computed."""
    return [*parts(sizes, preset), *proposition1.parts(sizes, preset), *remark1.parts(preset)]


def reproduce(
    sizes: Sizes,
    preset: str = "paper",
    folder: Path | None = None,
    jobs: int = 1,
    on_progress: Callable[[Any], None] = lambda part: None,
) -> Findings:
    """Run what is not yet kept in `folder`, and judge.

    jobs  processes        tick  called with each part as it is there
    """
    began = time.monotonic()
    runs = run_parts(all_parts(sizes, preset), folder, jobs, on_progress)
    stated = claims(sizes.points)
    figures = {part: arrays for part, arrays in runs.items() if isinstance(part, Part)}
    verdicts = (*judge.judge(stated, figures), *proposition1.judge(runs), *remark1.judge(runs))
    seconds = float(sum(arrays[SECONDS] for arrays in runs.values()))
    wall, command = time.monotonic() - began, shlex.join(["partway", *sys.argv[1:]])
    return Findings(sizes, preset, runs, stated, verdicts, seconds, wall, jobs, command)


def phase_shown(claim: Claim) -> str:
    """The phase of a claim that a table with one verdict for each claim shows."""
    return HEADLINE[1] if HEADLINE[1] in judge.phases(claim) else ""
