"""`partway reproduce`: section VI of the paper, its figures and a verdict on each of its claims."""

import argparse
import contextlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from partway.cli import flags
from partway.cli.flags import whole_number
from partway.cli.terminal import terminal, weighing
from partway.errors import InputError, shown

if TYPE_CHECKING:
    from partway.experiments.store import Store
    from partway.figures import Look
    from partway.paper.figure_runs import Sizes
    from partway.paper.jobs import Arrays
    from partway.paper.reproduce import Findings

DESCRIPTION = (
    "Run the simulations of section VI of the paper, draw its figures, and test each of its claims. If interrupted, "
    "run the same command with --out again to resume."
)
EXAMPLES = {
    "A first look with fewer replicates": "partway reproduce --quick",
    "Everything, with a report in HTML": "partway reproduce --out results/reproduction",
    "Other values of unpublished parameters": "partway reproduce --scenario mine.toml --out mine",
    "Verdicts for another program": "partway reproduce --json - | jq '.claims[].schemes.priced.verdict'",
}
COMPILATION = 300_000
"""Device-blocks that take as long as compiling a job's program, to estimate the time left."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway reproduce`."""
    group = parser.add_argument_group("simulation")
    group.add_argument("--quick", action="store_true", help="fewer replicates and points, too few for verdicts")
    group.add_argument(
        "--scenario",
        default="paper",
        metavar="NAME|FILE",
        help="use this scenario, whose tasks must be of kind 'proportional' (default: paper)",
    )
    group.add_argument("--jobs", type=whole_number, metavar="N", help="worker processes (default: one per core)")
    flags.add_output(
        parser,
        out="folder of the report, figures, data and finished jobs",
        overwrite="replace an existing report, but keep finished jobs",
    )
    flags.add_figures(parser)
    group = parser.add_argument_group("document")
    group.add_argument(
        "--table", type=Path, metavar="FILE.md", help="write the table of claims between the two marks in this file"
    )


def run(options: argparse.Namespace) -> None:
    """Run Figures 6 to 9, Proposition 1 and the counts of R1, judge the claims, print and write."""
    from partway.cli import output
    from partway.paper.figure_runs import FULL, QUICK
    from partway.paper.figure_runs import jobs as jobs_of_figures
    from partway.paper.report import as_json, insert, marked, show
    from partway.workers import process_count

    sizes, jobs, errors = QUICK if options.quick else FULL, process_count(options.jobs), terminal(errors=True)
    _check_tasks(options.scenario)
    look = flags.look(options, list(dict.fromkeys(job.name for job in jobs_of_figures(sizes, options.scenario))))
    if options.table:
        marked(options.table)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(_opened(options, sizes)) if options.out else None
        places = stack.enter_context(output.destinations(options, folder=False))
        if store:
            stack.enter_context(output.resumable(lambda: f"finished jobs are saved in {store.folder}"))
        findings = _findings(sizes, options.scenario, store, jobs, errors)
        text = output.json_text(as_json(findings))
        steps = places.steps(lambda: text, lambda folder: None)
        if store:
            steps.append(lambda: _write_report(findings, text, store, look))
        if options.table:
            steps.append(lambda: insert(options.table, findings))
        output.finish(options, lambda: text, lambda console: console.print(show(findings)), steps)
    if options.out:
        errors.print(f"The report is {options.out / 'report.html'}")
    elif not (options.json or options.table):
        errors.print("Nothing was saved; use --out DIR to save the report and figures.", style="dim")


def _write_report(findings: "Findings", text: str, store: "Store[Arrays]", look: "Look | None") -> None:
    with store.results() as folder:
        write(findings, text, folder, look)


def _check_tasks(scenario: str) -> None:
    """Raise InputError unless all tasks follow the paper's law."""
    from partway.scenario.loading import load

    if {one.task.kind for one in load(scenario).device_classes()} != {"proportional"}:
        raise InputError(
            f"--scenario {shown(scenario, 100)} must have tasks of kind 'proportional', as section VI does"
        )


def _opened(options: argparse.Namespace, sizes: "Sizes") -> "contextlib.AbstractContextManager[Store[Arrays]]":
    """The folder of --out, new or that of an interrupted run with the same sizes and scenario."""
    from partway.paper.reproduce import opened

    return opened(options.out, sizes, options.scenario, options.overwrite)


def _findings(
    sizes: "Sizes", scenario: str, store: "Store[Arrays] | None", processes: int, errors: Console
) -> "Findings":
    from partway.paper.jobs import missing
    from partway.paper.reproduce import all_jobs, reproduce

    with progress(missing(all_jobs(sizes, scenario), store), errors) as on_progress:
        return reproduce(sizes, scenario, store, processes, on_progress)


def write(findings: "Findings", text: str, folder: Path, look: "Look | None" = None) -> None:
    """Write figures, claims.csv, verdicts.md, report.json and report.html, into a folder."""
    from partway.figures import paper as figures
    from partway.paper.html import page
    from partway.paper.report import everything, write_comparisons

    names = figures.write(findings, folder, look)
    write_comparisons(findings, folder / "claims.csv")
    (folder / "verdicts.md").write_text(everything(findings), "utf-8")
    (folder / "report.json").write_text(text, "utf-8")
    (folder / "report.html").write_text(page(findings, [folder / f"{name}.svg" for name in names]), "utf-8")


@contextlib.contextmanager
def progress(jobs: Sequence[Any], console: Console) -> Generator[Callable[[Any], None]]:
    """How far the jobs are that are still to run, by their size."""
    weights = {job: job.device_blocks() + COMPILATION for job in jobs}
    with weighing(sum(weights.values()), console) as advance:

        def on_progress(job: Any) -> None:
            if job in weights:
                advance(job.label(), weights[job], True)

        yield on_progress
