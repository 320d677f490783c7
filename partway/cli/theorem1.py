"""`partway theorem1`: measure it, draw it, print it."""

import argparse
import contextlib
from collections.abc import Sequence

from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from partway import files as store
from partway.cli.terminal import terminal
from partway.formatting import percent
from partway.paper.theorem1 import Point, cases, label, measure
from partway.scenario.loading import load


def theorem1(options: argparse.Namespace) -> None:
    """Gaps of `decoupled` and `priced` against fleet size and server energy weight."""
    scenario = options.scenario or "paper"
    load(scenario, options.set)
    errors = terminal(errors=True)
    target = store.new_folder(options.out, options.overwrite) if options.out else contextlib.nullcontext()
    columns = (TextColumn("worlds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with target as folder:
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
            task = bar.add_task("", total=cases())
            points = measure(
                scenario,
                options.set,
                blocks=options.blocks,
                seeds=options.seeds,
                on_progress=lambda done: bar.update(task, advance=done),
            )
        if folder:
            about = f"Theorem 1 in {scenario}: {options.blocks} blocks, {options.seeds} seeds"
            from partway.figures import theorem1 as figure  # matplotlib takes half a second

            figure.write(points, about, folder)
    terminal().print(table(points))
    if options.out:
        errors.print(f"Figure and data are in {options.out}")


def table(points: Sequence[Point]) -> Group:
    """A row for each world, a column for each scheme and discount: gap to the bound in per cent."""
    kinds = list(dict.fromkeys(point.kind for point in points))
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("world", no_wrap=True)
    grid.add_column("bound", justify="right")
    for kind in kinds:
        grid.add_column(label(kind).replace(", ", "\n"), justify="right", no_wrap=True)
    for axis, value in dict.fromkeys((point.axis, point.value) for point in points):
        own = {point.kind: point for point in points if (point.axis, point.value) == (axis, value)}
        grid.add_row(f"{axis}={value:g}", f"{own[kinds[0]].bound:.4g}", *(shown(own[kind]) for kind in kinds))
    words = "gap to the lower bound in per cent of it, on the average cost after warm-up; gamma: of the learners"
    reasons = dict.fromkeys(point.no_gap for point in points if point.no_gap and point.status == "ok")
    return Group(grid, Text("\n".join([words, *reasons]), style="dim"))


def shown(point: Point) -> str:
    """A cell: the gap, or why there is none."""
    return point.status if point.status != "ok" else "no bound" if point.no_gap else percent(point.gap)
