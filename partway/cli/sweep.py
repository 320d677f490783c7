"""`partway sweep`: schemes at every point of a grid."""

import argparse
import contextlib
import json
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn

from partway.cli import flags
from partway.cli.flags import whole_number
from partway.cli.terminal import LINE_S, progress_bar, terminal, working

if TYPE_CHECKING:
    import xarray as xr

    from partway.experiments.sweep.plan import SweepPlan
    from partway.experiments.sweep.report import By
    from partway.experiments.sweep.run import OnProgress, Progress
    from partway.figures import Look

DESCRIPTION = (
    "Compare schemes at every point of a grid of scenario fields, in parallel. If interrupted or killed, run the same "
    "command again to resume."
)
EXAMPLES = {
    "Nine arrival probabilities": "partway sweep --axis device.arrival_prob=0.1:0.9:9 --out results/load",
    "Two axes, one logarithmic": "partway sweep --axis devices=4,20 device.bandwidth_hz=1e5:1e7:5:log --out b",
    "A hyperparameter": "partway sweep --axis schemes.priced.decay=0.5,0.7 --schemes priced --out d",
    "What each class of devices pays": "partway sweep --scenario camera --axis devices=8,16 --by class --out c",
    "Also figures for a paper, with names of your choice": (
        "partway sweep --axis devices=4,20 --out b --style paper --label priced=Ours"
    ),
    "On a Dask cluster": "partway sweep --axis devices=4,20 --out fleets --dask tcp://scheduler:8786",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway sweep`."""
    grid = parser.add_argument_group("grid")
    grid.add_argument(
        "--axis",
        nargs="+",
        action="extend",
        required=True,
        metavar="FIELD=SPEC",
        help="a field to vary, as in --set; SPEC is START:STOP:COUNT, START:STOP:COUNT:log, A,B,C or a TOML array",
    )
    flags.add_scenario(parser)
    flags.add_simulation(parser)
    flags.add_by(parser, devices=False)
    workers = parser.add_argument_group("workers").add_mutually_exclusive_group()
    workers.add_argument(
        "--jobs", type=whole_number, metavar="N", help="worker processes (default: one per core; use 1 with a GPU)"
    )
    workers.add_argument("--dask", metavar="ADDRESS", help="send the work to this Dask scheduler instead")
    flags.add_output(
        parser,
        out="folder of the sweep's state and results",
        required=True,
        overwrite="delete the sweep in --out and start again, instead of resuming it; replace the file of --json",
    )
    flags.add_figures(parser)


def run(options: argparse.Namespace) -> None:
    """Compute what is missing, print all and write it."""
    from partway.cli import output
    from partway.experiments.sweep import report
    from partway.experiments.sweep.dask import dask_executor
    from partway.experiments.sweep.run import Progress, compute, opened

    errors = terminal(errors=True)
    with working("planning", errors):
        plan = _plan(options)
    look = flags.look(options, (*plan.base.schemes, *(axis.field for axis in plan.axes)))
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(dask_executor(options.dask)) if options.dask else None
        store = stack.enter_context(opened(plan, options.out, options.overwrite))
        places = stack.enter_context(output.destinations(options, folder=False))
        done, cases = 0, sum(map(len, plan.groups))
        stack.enter_context(output.resumable(lambda: f"{done} of {cases} cases are saved in {store.folder}"))
        with showing_progress(errors) as show:

            def on_progress(progress: Progress) -> None:
                nonlocal done
                done = progress.done
                show(progress)

            dataset = compute(plan, store, options.jobs, executor, on_progress)
        text = output.json_text(report.as_json(dataset))

        def write() -> None:
            with store.results() as folder:
                _write(dataset, text, folder, look, options.by)

        steps = [*places.steps(lambda: text, lambda folder: None), write]
        output.finish(options, lambda: text, partial(report.show, dataset, by=options.by), steps)
    output.say_where(options)
    report.check_complete(dataset)


def _plan(options: argparse.Namespace) -> "SweepPlan":
    from partway.experiments.sweep.plan import sweep_plan
    from partway.experiments.sweep.run import check_processes

    plan = sweep_plan(
        options.scenario,
        options.axis,
        overrides=options.set,
        schemes=options.schemes,
        server=options.server,
        blocks=options.blocks,
        seeds=flags.seeds_of(options, 8),
        warmup=options.warmup,
        precision=options.precision or "float32",
    )
    check_processes(plan, options.jobs, None)
    return plan


def showing_progress(console: Console) -> "contextlib.AbstractContextManager[OnProgress]":
    """How far the sweep is: a bar on a terminal, a line every LINE_S seconds elsewhere."""
    return _bar(console) if console.is_terminal else contextlib.nullcontext(_lines(console))


def _lines(console: Console) -> "OnProgress":
    start = printed = time.monotonic()
    first: Progress | None = None  # cases of an earlier attempt say nothing of the speed

    def on_progress(progress: "Progress") -> None:
        nonlocal first, printed
        first, now = first or progress, time.monotonic()
        if progress.done == progress.cases or now - printed >= LINE_S:
            printed = now
            console.print(progress_line(progress, progress.done - first.done, now - start), soft_wrap=True)

    return on_progress


def progress_line(progress: "Progress", new: int, seconds: float) -> str:
    """How far a sweep is that has computed `new` cases in so many seconds."""
    line = f"sweep: {progress.done} of {progress.cases} cases done"
    if progress.done == progress.cases:
        return f"{line}, {new} of them now, in {duration(seconds)}"
    line += f", {progress.in_flight} groups running"
    return f"{line}, about {duration(seconds * (progress.cases - progress.done) / new)} left" if new else line


def duration(seconds: float) -> str:
    """Seconds in a unit of about their size."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def _bar(console: Console) -> "Generator[OnProgress]":
    running = TextColumn("cases, {task.fields[running]} groups running")
    with progress_bar(console, BarColumn(), MofNCompleteColumn(), running, TimeRemainingColumn()) as bar:
        task: TaskID | None = None

        def on_progress(progress: "Progress") -> None:
            nonlocal task
            if task is None:  # only now, so that cases of an earlier attempt say nothing of the speed
                task = bar.add_task("", total=progress.cases, completed=progress.done, running=progress.in_flight)
            bar.update(task, completed=progress.done, running=progress.in_flight)

        yield on_progress


def _write(dataset: "xr.Dataset", text: str, folder: Path, look: "Look | None", by: "By | None") -> None:
    """Write dataset, JSON, CSV, scenario, table and figures. by: as in `report.show`."""
    from partway.cli import output
    from partway.experiments.sweep import report
    from partway.experiments.tidy import write_csv
    from partway.figures import sweep as figure
    from partway.netcdf import save_dataset

    save_dataset(dataset, folder)
    (folder / "results.json").write_text(text, "utf-8")
    document = json.loads(text)
    write_csv(folder / "results.csv", report.csv_rows(document))
    write_csv(folder / "summary.csv", report.summary_rows(document, dataset))
    write_csv(folder / "by-class.csv", report.class_rows(document, dataset))
    (folder / "scenario.toml").write_text(str(dataset.attrs["scenario"]), "utf-8")
    output.save_table(folder, partial(report.show, dataset, by=by, max_rows=None))
    figure.write(dataset, folder, look)
