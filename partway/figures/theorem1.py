"""Theorem 1, measured: gap to the lower bound against number of devices and weight of the server energy."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from partway.figures.colours import scheme_colour, scheme_marker
from partway.figures.common import FigureData, mark_linear_part, new_figure, short_number, write_figures
from partway.figures.gap import LINEAR_UP_TO
from partway.figures.layout import bottom_legend
from partway.figures.style import Look, as_text, display_label, panel_height
from partway.paper.theorem1 import CONSTANT, VARIANTS, Point, label

AXES = {"devices": "number of devices K", "weights.server_energy": "weight of the server energy w2 [1/J]"}
DASHES = {"average": "-", "discounted": "--"}
COLUMNS = ("axis", "value", "scheme", "discount", "status", "bound", "cost", "gap [%]", "95 % low [%]", "95 % high [%]")
NOTES = (
    "Gap: how far the mean cost per block after warm-up is above a lower bound for every policy; linear up to "
    f"{LINEAR_UP_TO:g} %, logarithmic above.",
    "decoupled: every device and the server solve their own problems, as in Theorem 1; priced: the same with one price "
    "for the server's work.",
    "gamma: discount factor of the learners. ✕ at the top: unstable, no mean cost.",
)


def write(points: Sequence[Point], title: str, folder: Path, look: Look | None = None) -> None:
    """Write theorem1.png, .svg and .csv."""
    write_figures(folder, {"theorem1": partial(draw, points, title)}, look)


def draw(points: Sequence[Point], title: str) -> FigureData:
    """A panel for each axis, a line for each scheme and discount; a cross where a scheme is unstable."""
    subtitle = "gap to the lower bound, one parameter of the scenario changed"
    figure = new_figure(title, subtitle, NOTES, panel_height(3.0, 2), columns=2)
    panels = figure.subplots(1, len(AXES), sharey=True)
    highest = max((100 * point.gap.mean for point in points if np.isfinite(point.gap.mean)), default=1.0)
    for axes, axis in zip(panels, AXES, strict=True):
        _panel(axes, axis, [point for point in points if point.axis == axis], max(highest, 2.0))
    panels[0].set_ylabel("gap [% of the bound]")
    bottom_legend(figure, panels[0].get_legend_handles_labels()[0], 3)
    return figure, [COLUMNS, *map(_row, points)]


def _label(kind: tuple[str, str]) -> str:
    return as_text(f"{display_label(kind[0])}{label(kind).removeprefix(kind[0])}")


def _row(point: Point) -> tuple[str | float, ...]:
    percent = (100 * share for share in (point.gap.mean, point.gap.low, point.gap.high))
    case = (point.axis, point.value, point.scheme, VARIANTS[point.criterion], point.status)
    return (*case, point.bound, point.cost.mean, *percent)


def _panel(axes: Axes, axis: str, points: Sequence[Point], highest: float) -> None:
    axes.set_yscale("symlog", linthresh=LINEAR_UP_TO)
    mark_linear_part(axes, "y", LINEAR_UP_TO)
    axes.set_ylim(0, 5 * highest)
    axes.set(xlabel=AXES[axis], xscale="log")
    axes.yaxis.set_major_formatter(short_number)
    values = sorted({point.value for point in points})
    axes.set_xticks(values, [short_number(value) for value in values], rotation=45, ha="right")
    axes.minorticks_off()
    for kind in dict.fromkeys(point.kind for point in points):
        own = [point for point in points if point.kind == kind]
        x, y = np.array([[point.value, 100 * point.gap.mean] for point in own]).T
        dashes, colour = ":" if kind[0] == CONSTANT else DASHES[kind[1]], scheme_colour(kind[0])
        axes.plot(x, y, dashes, color=colour, marker=scheme_marker(kind[0]), markersize=3.5, label=_label(kind))
        unstable = [point.value for point in own if point.status != "ok"]
        axes.plot(unstable, [4 * highest] * len(unstable), "x", color=colour, markersize=7)
