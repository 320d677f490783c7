"""`partway theorem1`: measure it, draw it, print it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from partway.cli import flags
from partway.cli.flags import whole_number
from partway.cli.terminal import counting, terminal
from partway.text_tables import Grid

if TYPE_CHECKING:
    from partway.paper.theorem1 import Point

DESCRIPTION = (
    "Theorem 1 of the paper claims that nothing is lost when each device and the server solve their own problems "
    "separately. Measure the gap to the lower bound of a scheme that does so (decoupled), and of the same scheme with "
    "a price that couples them (priced), for several fleet sizes and weights of server energy."
)
EXAMPLES = {
    "Save the figure and its data": "partway theorem1 --out results/theorem1",
    "A real DNN, fewer blocks and seeds": "partway theorem1 --scenario ocr --blocks 1000 --seeds 4",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway theorem1`."""
    flags.add_scenario(parser)
    group = parser.add_argument_group("simulation")
    group.add_argument("--blocks", type=whole_number, default=4000, metavar="N", help="blocks to run (default: 4000)")
    group.add_argument("--seeds", type=whole_number, default=8, metavar="N", help="number of seeds (default: 8)")
    flags.add_output(parser, json=False)
    flags.add_figures(parser)


def run(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    from partway.cli import output
    from partway.experiments.failures import check_complete
    from partway.paper.theorem1 import CONSTANT, SCHEMES, cases, measure
    from partway.scenario.loading import load
    from partway.schemes import check_running

    load(options.scenario, options.set)  # refuse what is wrong before a folder is made
    check_running(options.set, (*SCHEMES, CONSTANT))
    errors, look = terminal(errors=True), flags.look(options, (*SCHEMES, CONSTANT))
    with output.destinations(options) as places:
        with counting(cases(), "comparisons", errors) as on_progress:
            points = measure(
                options.scenario,
                options.set,
                blocks=options.blocks,
                seeds=options.seeds,
                on_progress=lambda done: on_progress("", done),
            )

        def draw(folder: Path) -> None:
            from partway.figures import theorem1 as figure  # Matplotlib takes half a second to import

            title = f"Theorem 1 in {options.scenario}: {options.blocks} blocks, {options.seeds} seeds"
            figure.write(points, title, folder, look)

        steps = places.steps(str, draw)
        output.finish(options, str, lambda console: console.print(table(points)), steps)
    output.say_where(options)
    check_complete(((point.status, point.no_gap or "") for point in points), "cases")


def table(points: "Sequence[Point]") -> Group:
    """A row for each scenario, a column for each scheme and discount: gap to the bound in per cent."""
    from partway.paper.theorem1 import label

    kinds = list(dict.fromkeys(point.kind for point in points))
    grid = Grid()
    grid.add_column("scenario with")
    for title in ("bound", *(label(kind).replace(", ", "\n") for kind in kinds)):
        grid.add_column(title, "right")
    for axis, value in dict.fromkeys((point.axis, point.value) for point in points):
        own = {point.kind: point for point in points if (point.axis, point.value) == (axis, value)}
        grid.add_row(f"{axis}={value:g}", f"{own[kinds[0]].bound:.4g}", *(shown(own[kind]) for kind in kinds))
    legend = "gap to the lower bound, in per cent, of the average cost after warm-up; gamma: discount of the learners"
    reasons = dict.fromkeys(point.no_gap for point in points if point.no_gap and point.status == "ok")
    return Group(grid, Text("\n".join([legend, *reasons]), style="dim"))


def shown(point: "Point") -> str:
    """A cell: the gap, or why there is none."""
    from partway.formatting import percent

    return point.status if point.status != "ok" else "no gap" if point.no_gap else percent(point.gap)
