"""One stage of the search for one candidate: resumable, with the time left; its settings are kept as data.

The stages, in their order, each at most an hour on two cores. The numbers are those for `parametric-printed`; other
candidates have half as many settings, and the learners of Q half as many again after the first stage:

  screen      settings spread over the space on Figures 6 and 7: 10,752 with 2 replicates, the best quarter with 8, an
              eighth of these with 24
  evolve      CMA-ES from the best of these, on the weakest comparison of the claims on Figures 6 and 7
  extend      the best of both so far on Figures 6 to 9, halved from few points and replicates to all
  evolve-all  CMA-ES from the best of these, for as many claims as possible
  judge       the best setting of all becomes a preset; every claim is judged on other seeds and placements, with the
              baselines as they are there and with their own best steps
  sensitivity one parameter at a time from the preset `paper`: on which values each claim is likely to hold
  page        the section of docs/paper.md between the marks of `make search`, of all candidates that have been judged

make search CANDIDATE=parametric-printed STAGE=screen
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

import jax
from rich.console import Console

from partway.cli.terminal import terminal, weighing
from partway.experiments import store as stores
from partway.experiments.store import ARRAYS, Kind
from partway.paper.jobs import Job, jobs_code_hash
from partway.paper.search.jobs import SearchJob
from partway.paper.search.score import needed
from partway.paper.search.space import CANDIDATES, Setting, spread
from partway.provenance import versions
from partway.workers import process_count, processes
from search import data, judge, page, sensitivity, stages
from search.evolution import Evolution, evolve
from search.plans import PLANS
from search.stages import Runner

SURE = 8
"""A setting on so many replicates goes before those on fewer, which were left behind for good reasons."""
FOLDER = data.ROOT / "results" / "search"
SEARCH: Kind[Any] = Kind("search", "jobs", ARRAYS)
STAGES = ("screen", "evolve", "extend", "evolve-all", "judge", "sensitivity", "page")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="search", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidate", choices=CANDIDATES, required=True, help="the proposed scheme")
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--jobs", type=int, help="worker processes (default: one per core)")
    parser.add_argument("--overwrite", action="store_true", help="forget what another version of the code has computed")
    return parser.parse_args()


def main() -> None:
    """Run a stage and write what it has found."""
    given = options()
    if given.stage == "page":
        page.write()
        return
    folder = FOLDER / f"{given.candidate}-{given.stage}"
    jax.config.update("jax_compilation_cache_dir", str(FOLDER / "programs"))  # shared by the worker processes
    console, start = terminal(errors=True), time.monotonic()
    blank = SearchJob(given.stage, given.candidate, (), stages.SHORT, ())
    request = {"stage": given.stage, "versions": versions(), "code": jobs_code_hash([blank])}
    count = process_count(given.jobs)
    with (
        stores.opened(folder, SEARCH, request, given.overwrite) as store,
        processes(count) if count > 1 else contextlib.nullcontext() as workers,
    ):
        runner = Runner(given.stage, given.candidate, store, workers)
        words = WORK.get(given.stage, searched)(runner, console)
    console.print(f"{words}, after {(time.monotonic() - start) / 60:.0f} minutes")


def searched(runner: Runner, console: Console) -> str:
    """Run a stage that tries settings, and write them; returns what was found."""
    candidate, stage = runner.candidate, runner.stage
    plan = PLANS[stage](candidate)
    total = plan.work(candidate) if isinstance(plan, Evolution) else stages.work(candidate, plan)
    with progress(total, console) as on_progress:
        own = replace(runner, figures=plan.figures, on_progress=on_progress)
        if isinstance(plan, Evolution):
            tried = evolve(own, data.read(candidate, "screen" if stage == "evolve" else "extend"), plan)
        else:
            first = plan.rungs[0].settings
            settings = spread(candidate, first) if stage == "screen" else best_of(candidate, first)
            tried = stages.halve(own, settings, plan.rungs)
    path, found = data.write(candidate, stage, tried), stages.best(tried)
    held = ", ".join(name for name, z in found.weakest.items() if z >= needed()) or "none"
    return f"{len(tried)} settings in {path}; likely to hold in the best, whose score is {found.score():.2f}: {held}"


def best_of(candidate: str, count: int) -> list[Setting]:
    """The best settings on Figures 6 and 7, half of them of either stage, those seen on most replicates first.

    CMA-ES has settings that are all alike; which of the others can have the claims on Figures 8 and 9 is not known yet.
    """
    found = dict[Setting, None]()
    for number, stage in enumerate(("evolve", "screen"), 1):
        known = data.read(candidate, stage)
        ranked = sorted(known, key=lambda one: (one.replicates >= SURE, one.score()), reverse=True)
        new = [one.setting for one in ranked if one.setting not in found]
        found |= dict.fromkeys(new[: count * number // 2 - len(found)])
    return list(found)


def judged(runner: Runner, console: Console) -> str:
    """Freeze and judge the best setting; returns what was found."""
    candidate = runner.candidate
    chosen = stages.best(page.seen(candidate))
    judge.write_preset(candidate, chosen)
    with progress(judge.work(candidate), console) as on_progress:
        found = judge.judge(replace(runner, on_progress=on_progress), chosen.setting)
    judge.write(found)
    return judge.sentence(found)


def varied(runner: Runner, console: Console) -> str:
    """Measure one parameter at a time, and write what was found."""
    plan = sensitivity.plan(runner.candidate)
    with progress(stages.work(runner.candidate, plan), console) as on_progress:
        rows = sensitivity.measure(replace(runner, figures=plan.figures, on_progress=on_progress))
    return f"{plan.rungs[0].settings} values in {sensitivity.write(runner.candidate, rows)}"


WORK: Mapping[str, Callable[[Runner, Console], str]] = {"judge": judged, "sensitivity": varied}
"""Stages that do something else than to try settings for the best one."""


@contextlib.contextmanager
def progress(total: float, console: Console) -> Generator[Callable[[Job, bool], None]]:
    """How far a stage is. What it gives is called with each job, and whether it was computed."""
    with weighing(total, console) as advance:
        yield lambda job, computed: advance(job.label(), job.device_blocks(), computed)


if __name__ == "__main__":
    main()
