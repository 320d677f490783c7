"""The stages of the search: how many settings, on which figures, with how many replicates."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from partway.experiments.store import Store
from partway.paper.claims import Points
from partway.paper.figure_runs import FULL, Sizes
from partway.paper.jobs import Arrays, J, Job, missing, run_jobs
from partway.paper.search.jobs import MEASURED, SearchJob
from partway.paper.search.score import strengths
from partway.paper.search.space import Setting, program_of
from search.data import Tried

FIRST_SEED = 5000
"""Of seeds and placements of the search; verdicts use others (`partway.paper.figure_runs.FULL`)."""
LANES_PER_JOB = 128
"""Settings times new replicates of a job: half a minute."""
FEW_POINTS = Points((0.1, 0.5, 0.9), (5, 30, 60))
SHORT = Sizes((), FEW_POINTS, training=500, horizon=120)
"""Few points of Figures 8 and 9, shorter sums; Figures 6 and 7 as they are."""
LONG = replace(FULL, seeds=())


@dataclass(frozen=True)
class Rung:
    """A rung of successive halving: the best `settings` of the rung before, on so many replicates in all."""

    settings: int
    replicates: int
    sizes: Sizes = SHORT


@dataclass(frozen=True)
class Halving:
    """A stage of rungs, on these figures."""

    figures: tuple[str, ...]
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class Runner:
    """Runs jobs of a stage: where they are kept, and which processes compute them; without any this one does.

    on_progress  called with each job when it is there, and whether it was computed rather than found
    """

    stage: str
    candidate: str
    store: Store[Arrays] | None = None
    workers: Executor | None = None
    figures: tuple[str, ...] = ()
    on_progress: Callable[[Job, bool], None] = lambda job, computed: None

    def measure(self, settings: Sequence[Setting], sizes: Sizes, seeds: Sequence[int]) -> np.ndarray:
        """(settings, replicates, values) of the settings on the replicates `seeds`."""
        jobs = jobs_of(self.stage, self.candidate, self.figures, settings, replace(sizes, seeds=tuple(seeds)))
        runs = self.arrays(jobs)
        return np.concatenate([runs[job][MEASURED] for job in jobs])

    def arrays(self, jobs: Sequence[J]) -> dict[J, Arrays]:
        """The arrays of jobs of any kind."""
        computed = set(missing(jobs, self.store))
        return run_jobs(jobs, self.store, 1, lambda job: self.on_progress(job, job in computed), self.workers)


def jobs_of(
    stage: str, candidate: str, figures: tuple[str, ...], settings: Sequence[Setting], sizes: Sizes
) -> list[SearchJob]:
    """The jobs that measure these settings, in their order."""
    size = max(LANES_PER_JOB // len(sizes.seeds), 1)
    pieces = [tuple(settings[first : first + size]) for first in range(0, len(settings), size)]
    return [SearchJob(stage, candidate, piece, sizes, figures) for piece in pieces]


def seeds_of(rungs: Sequence[Rung], number: int) -> range:
    """The replicates that a rung adds: all of them where it has other sizes than the rung before."""
    before = rungs[number - 1].replicates if number and rungs[number - 1].sizes == rungs[number].sizes else 0
    return range(FIRST_SEED + before, FIRST_SEED + rungs[number].replicates)


def work(candidate: str, stage: Halving) -> float:
    """Device-blocks of a stage."""
    blank = SearchJob("", candidate, ((),), SHORT, stage.figures)
    return sum(
        float(replace(blank, sizes=replace(rung.sizes, seeds=tuple(seeds_of(stage.rungs, i)))).device_blocks())
        * rung.settings
        for i, rung in enumerate(stage.rungs)
    )


def halve(runner: Runner, settings: Sequence[Setting], rungs: Sequence[Rung]) -> list[Tried]:
    """Every setting with what it reached on the last rung that it was on."""
    tried, alive = dict[Setting, Tried](), list(settings)
    measured = dict[Setting, np.ndarray]()
    for number, rung in enumerate(rungs):
        if number:
            alive = sorted(alive, key=lambda one: tried[one].score(), reverse=True)[: rung.settings]
        alive.sort(key=lambda one: str(program_of(runner.candidate, one)))  # those of one program together
        seeds = seeds_of(rungs, number)
        new = runner.measure(alive, rung.sizes, seeds)
        if len(seeds) < rung.replicates:
            new = np.concatenate([np.stack([measured[one] for one in alive]), new], axis=1)
        measured = dict(zip(alive, new, strict=True))
        tried |= outcomes(alive, new, rung.sizes, runner.figures)
    return [tried[one] for one in settings]


def outcomes(
    settings: Sequence[Setting], measured: np.ndarray, sizes: Sizes, figures: Sequence[str]
) -> dict[Setting, Tried]:
    """The settings with their weakest comparisons."""
    weakest = strengths(measured, sizes.points, figures)
    return {
        one: Tried(one, measured.shape[1], {name: float(z[at]) for name, z in weakest.items()})
        for at, one in enumerate(settings)
    }


def best(tried: Sequence[Tried]) -> Tried:
    """The setting in which most claims are likely to hold, the score deciding between equals, on most replicates."""
    most = max(one.replicates for one in tried)
    return max((one for one in tried if one.replicates == most), key=lambda one: (one.likely(), one.score()))
