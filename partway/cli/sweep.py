"""`partway sweep`: flags, progress, the table and the files of a sweep."""

import argparse
import contextlib
import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from partway import files as store
from partway.cli.commands import INTERRUPTED, seeds_of
from partway.cli.terminal import Screen, terminal
from partway.errors import InputError
from partway.experiments.sweep.dask import dask_executor
from partway.experiments.sweep.dataset import axis_names, cost_of, gap_of, grid
from partway.experiments.sweep.plan import SweepPlan, sweep_plan
from partway.experiments.sweep.run import OnProgress, Progress, check_processes, execute
from partway.experiments.sweep.store import Store, opened, refusals
from partway.formatting import number, percent, plain

EXAMPLES = """examples:
  partway sweep --over device.arrival_prob=0.1:0.9:9 --schemes priced constant --out results/load
  partway sweep --scenario ocr --over devices=4,20 device.bandwidth_hz=1e5:1e7:5:log --out ocr
  partway sweep --over schemes.priced.answer=0.1,0.2,0.4 --schemes priced --out results/answer
  partway sweep --over queue=conserving,as_printed --out queue --dask tcp://scheduler:8786
A sweep that was stopped, or killed, goes on when it is started again with the same words."""
MOST_ROWS = 60
"""Points of the grid that the terminal shows; files hold all."""
MOST_REASONS = 10
LINE_S = 30.0
"""How often progress is said where there is no terminal, such as in a batch job."""
OUT = "required: the folder of state and results; the same command goes on there where it stopped"
OVERWRITE = "delete the sweep that is in --out, its cases and results (leave it out to go on); replace --json FILE"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What `partway sweep` takes beside the scenario, schemes, blocks and seeds that `compare` takes too."""
    add = parser.add_argument
    add(
        "--over",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=SPEC",
        help="required: an axis, START:STOP:COUNT, START:STOP:COUNT:log, A,B,C or a TOML array",
    )
    add("--jobs", type=int, metavar="N", help="worker processes (default: as many as cores; with a GPU take 1)")
    add("--dask", metavar="ADDRESS", help="send the work to this Dask scheduler instead")


def sweep(options: argparse.Namespace) -> None:
    """Schemes at every point of a grid."""
    if options.out is None:
        raise InputError("--out: name a folder for the sweep's state and results; a stopped sweep goes on there")
    if options.dask and options.jobs:
        raise InputError("--jobs: is for processes on this machine; leave it out with --dask")
    plan, errors = _plan(options), terminal(errors=True)
    check_processes(plan, options.jobs, None)
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(dask_executor(options.dask)) if options.dask else None
        kept = stack.enter_context(opened(options.out, plan.description(), options.overwrite))
        file = stack.enter_context(_json_file(options))
        dataset = _compute(plan, kept, options.jobs, executor, errors)
        text = json.dumps(as_json(dataset), indent=1, allow_nan=False) + "\n"
        with refusals(kept.given):
            _write(dataset, text, kept.folder)
        if file:
            file.write_text(text, "utf-8")
    if options.json == "-":
        print(text, end="")
    else:
        terminal().print(table(dataset))
    errors.print(f"Figures, data and JSON are in {options.out}", soft_wrap=True)


def _plan(options: argparse.Namespace) -> SweepPlan:
    if not options.over:
        raise InputError("--over: name an axis, such as device.arrival_prob=0.1:0.9:9; one point is `partway compare`")
    return sweep_plan(
        "paper" if options.scenario is None else options.scenario,
        options.over,
        overrides=options.set,
        schemes=options.schemes,
        server=options.server,
        blocks=options.blocks,
        seeds=seeds_of(options, 8),
        warmup=options.warmup,
        precision=options.precision or "float32",
    )


def _json_file(options: argparse.Namespace) -> contextlib.AbstractContextManager[Path | None]:
    if options.json in (None, "-"):
        return contextlib.nullcontext()
    if Path(os.path.realpath(options.json)).is_relative_to(os.path.realpath(options.out)):
        raise InputError(f"--json {options.json}: is in --out, which has a results.json anyway; choose another place")
    return store.new_file(Path(options.json), options.overwrite, "--json")


def _compute(plan: SweepPlan, kept: Store, jobs: int | None, executor: Any, errors: Console) -> xr.Dataset:
    """The dataset; on Ctrl-C a word on how to go on."""
    state = Progress(0, sum(map(len, plan.groups)), 0)
    try:
        with _progress(errors) as show:

            def on_progress(progress: Progress) -> None:
                nonlocal state
                state = progress
                show(progress)

            return execute(plan, kept, jobs, executor, on_progress)
    except KeyboardInterrupt:
        where = f"{state.done} of {state.cases} cases are kept in {kept.folder}"
        raise KeyboardInterrupt(f"interrupted; {where}, the same command goes on") from None


@contextlib.contextmanager
def _progress(console: Console) -> Generator[OnProgress]:
    """Says how far the sweep is, on a terminal and elsewhere, and hears Ctrl-C."""
    with _bar(console) if console.is_terminal else contextlib.nullcontext(_lines(console)) as show:

        def on_progress(progress: Progress) -> None:
            if INTERRUPTED.is_set():
                raise KeyboardInterrupt
            show(progress)

        yield on_progress


def _lines(console: Console) -> OnProgress:
    """A line every LINE_S seconds, and the last one."""
    begun = said = time.monotonic()
    first: Progress | None = None  # what an earlier attempt has left says nothing of speed

    def on_progress(progress: Progress) -> None:
        nonlocal first, said
        first, now = first or progress, time.monotonic()
        if progress.done == progress.cases or now - said >= LINE_S:
            said = now
            console.print(_line(progress, progress.done - first.done, now - begun), soft_wrap=True)

    return on_progress


def _line(progress: Progress, new: int, seconds: float) -> str:
    """How far a sweep is that has computed `new` cases in so many seconds."""
    said = f"sweep: {progress.done} of {progress.cases} cases"
    if progress.done == progress.cases:
        return f"{said}, {new} of them now, in {_span(seconds)}"
    said += f", {progress.flying} groups in flight"
    return f"{said}, about {_span(seconds * (progress.cases - progress.done) / new)} left" if new else said


def _span(seconds: float) -> str:
    """A time in the unit that one would say it in."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def _bar(console: Console) -> Generator[OnProgress]:
    """A bar for the cases, with the groups in flight and the time left."""
    columns = (
        TextColumn("sweep"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cases, {task.fields[flying]} groups in flight"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task: Any = None

        def on_progress(progress: Progress) -> None:
            nonlocal task
            if task is None:  # what an earlier attempt has left says nothing of speed
                task = bar.add_task("", total=progress.cases, completed=progress.done, flying=progress.flying)
            bar.update(task, completed=progress.done, flying=progress.flying)

        yield on_progress


def _write(dataset: xr.Dataset, text: str, folder: Path) -> None:
    """What stands beside the dataset."""
    from partway.figures import sweep as figure  # matplotlib takes half a second

    store.write_whole(folder / "results.json", text.encode())
    store.write_whole(folder / "scenario.toml", str(dataset.attrs["scenario"]).encode())
    with (folder / "table.txt").open("w", encoding="utf-8") as file:
        Screen(file=file, width=100).print(table(dataset, most=len(grid(dataset))))
    figure.write(dataset, folder)


def as_json(dataset: xr.Dataset) -> dict[str, Any]:
    """The sweep as JSON types: null for what does not exist, never NaN."""
    document = {
        "schema_version": 1,
        "over": json.loads(dataset.attrs["over"]),
        "seeds": dataset["seed"].values.tolist(),
        "blocks": int(dataset.attrs["blocks"]),
        "warmup": int(dataset.attrs["warmup"]),
        "cases": [_case(dataset, at, str(name)) for at in grid(dataset) for name in dataset["scheme"].values],
    }
    return plain(document)


def _case(dataset: xr.Dataset, at: dict[str, int], scheme: str) -> dict[str, Any]:
    here = dataset.isel(at).sel(scheme=scheme)
    estimates = {"cost_per_block": cost_of(dataset, at, scheme), "gap": gap_of(dataset, at, scheme)}
    parts = here["cost"].mean("seed", skipna=False)
    names = [str(name) for name in here.data_vars if here[name].ndim == 0 and not str(name).startswith("bound_l")]
    return {
        "point": {here[name].attrs["field"]: here[name].item() for name in axis_names(dataset)},
        "scheme": scheme,
        **{name: {"mean": one.mean, "ci95": [one.low, one.high]} for name, one in estimates.items()},
        "parts": dict(zip(map(str, parts["part"].values), parts.values.tolist(), strict=True)),
        **{name: here[name].item() for name in names},
    }


def table(dataset: xr.Dataset, most: int = MOST_ROWS) -> Group:
    """A row for each point, a column for each scheme: cost per block, below it the gap where there is one."""
    from partway.figures.style import short_number  # matplotlib takes half a second

    schemes, points = [str(name) for name in dataset["scheme"].values], grid(dataset)
    known = bool(np.isfinite(dataset["gap"]).any())
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in axis_names(dataset):
        made.add_column(name, no_wrap=True)
    for name in schemes:
        made.add_column(name, justify="right")
    for at in points[:most]:
        values = [dataset[name].values[i] for name, i in at.items()]
        labels = [str(value) if isinstance(value, str) else short_number(float(value)) for value in values]
        made.add_row(*labels, *(_cell(dataset, at, name, known) for name in schemes))
    notes = ["cost per block after warm-up, ± 95 % over seeds" + "; below it the gap to the lower bound" * known]
    if len(points) > most:
        notes.append(f"{len(points) - most} more points are in the files")
    return Group(made, *(Text(line, style="dim") for line in notes), *_reasons(dataset))


def _cell(dataset: xr.Dataset, at: dict[str, int], scheme: str, gaps: bool) -> str:
    """Cost and gap, or the status."""
    status = str(dataset["status"].isel(at).sel(scheme=scheme).values)
    if status != "ok":
        return status.replace("_", " ")
    cost, gap = cost_of(dataset, at, scheme), gap_of(dataset, at, scheme)
    half = (cost.high - cost.low) / 2
    text = number(cost.mean, 4) + (f" ± {number(half, 2)}" if np.isfinite(half) else "")
    return f"{text}\n{percent(gap)} %" if gaps and np.isfinite(gap.mean) else text


def _reasons(dataset: xr.Dataset) -> list[Text]:
    """Why cases have no numbers, each reason once, with how many it concerns."""
    said = dict[tuple[str, str], int]()
    for status, reason in zip(dataset["status"].values.ravel(), dataset["reason"].values.ravel(), strict=True):
        if status != "ok":
            said[str(status), str(reason)] = said.get((str(status), str(reason)), 0) + 1
    lines = [
        f"{count} x {status.replace('_', ' ')}: {why.removeprefix(f'{status}: ')}"
        for (status, why), count in said.items()
    ]
    return [Text(line) for line in lines[:MOST_REASONS]]
