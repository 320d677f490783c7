"""One stage of the search for one candidate: resumable, with the time left; its settings are kept as data.

The stages, each at most an hour on two cores:

  screen   10,752 settings spread over the space (5,376 for Q-learning), on Figures 6 and 7 with 2 replicates; the best
           quarter with 8, an eighth of these with 24

make search CANDIDATE=parametric-printed STAGE=screen
"""

import argparse
import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from partway.cli.terminal import LINE_S, progress_bar, terminal
from partway.experiments import store as stores
from partway.experiments.store import ARRAYS, Kind
from partway.paper.figure_runs import STOPPING
from partway.paper.jobs import jobs_code_hash
from partway.paper.search.jobs import SearchJob
from partway.paper.search.score import needed
from partway.paper.search.space import CANDIDATES, spread
from partway.provenance import versions
from partway.workers import process_count
from search import data, stages
from search.stages import Halving, Runner

FOLDER = data.ROOT / "results" / "search"
SEARCH: Kind[Any] = Kind("search", "jobs", ARRAYS)
STAGES = ("screen",)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="search", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidate", choices=CANDIDATES, required=True, help="the proposed scheme")
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--jobs", type=int, help="worker processes (default: one per core)")
    parser.add_argument("--overwrite", action="store_true", help="forget what another version of the code has computed")
    return parser.parse_args()


def main() -> None:
    """Run a stage and write its settings."""
    given = options()
    folder = FOLDER / f"{given.candidate}-{given.stage}"
    jax.config.update("jax_compilation_cache_dir", str(FOLDER / "programs"))  # shared by the worker processes
    console = terminal(errors=True)
    blank = SearchJob(given.stage, given.candidate, (), stages.SHORT, ())
    request = {"stage": given.stage, "versions": versions(), "code": jobs_code_hash([blank])}
    start = time.monotonic()
    with stores.opened(folder, SEARCH, request, given.overwrite) as store:
        stage = stages.SCREEN if given.candidate in STOPPING else stages.SLOW
        tried = screen(given.candidate, stage, store, process_count(given.jobs), console)
    path = data.write(given.candidate, given.stage, tried)
    found = stages.best(tried)
    minutes = (time.monotonic() - start) / 60
    console.print(f"{len(tried)} settings in {minutes:.0f} minutes, written to {path}")
    held = [name for name, z in found.weakest.items() if z >= needed()]
    console.print(f"best: score {found.score():.2f}, likely to hold: {', '.join(held) or 'none'}")


def screen(
    candidate: str, stage: Halving, store: Any, processes: int, console: Console, seed: int = 0
) -> list[data.Tried]:
    """All settings of the first rung, halved."""
    settings = spread(candidate, stage.rungs[0].settings, seed)
    with progress(stages.work(candidate, stage), console) as on_progress:
        runner = Runner("screen", candidate, stage.figures, store, processes, on_progress)
        return stages.halve(runner, settings, stage.rungs)


@contextlib.contextmanager
def progress(total: float, console: Console) -> Generator[Callable[[SearchJob, bool], None]]:
    """A bar with the time left; where there is no terminal, a line every LINE_S seconds.

    What it gives is called with each job, and whether it was computed: the time left follows from these.
    """
    start = printed = time.monotonic()
    done = found = 0.0
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with progress_bar(console, *columns) as bar:
        task = bar.add_task("", total=total)

        def advance(job: SearchJob, computed: bool) -> None:
            nonlocal done, found, printed
            now, size = time.monotonic(), job.device_blocks()
            done, found = done + size, found + (0 if computed else size)
            words = f"{done / total:.0%} done"
            if done > found:
                left = (now - start) * (total - done) / (done - found)
                words += f", {left / 60:.0f} minutes left"
            bar.update(task, description=words, completed=done)
            if not console.is_terminal and now - printed >= LINE_S:
                printed = now
                console.print(words, soft_wrap=True)

        yield advance


if __name__ == "__main__":
    main()
