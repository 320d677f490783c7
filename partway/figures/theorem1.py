"""Theorem 1, measured: gaps against fleet size and the weight of the server energy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from partway.figures.style import STYLE, WIDTH, Drawn, colour, save, short_number
from partway.paper.theorem1 import CONSTANT, VARIANTS, Point, label

AXES = {"devices": "devices", "weights.server_energy": "weight of the server's energy w2 [1/J]"}
DASHES = {"average": "-", "discounted": "--"}
LINEAR_TO = 1.0
"""Per cent up to which the gap's axis is linear, so that it has a zero."""


def write(points: Sequence[Point], about: str, folder: Path) -> None:
    """Write theorem1.png, .svg and .csv."""
    with style.context(["default", STYLE]):
        save(folder, "theorem1", draw(points, about))


def draw(points: Sequence[Point], about: str) -> Drawn:
    """A panel for each axis, a line for each scheme and discount; a cross where a scheme is unstable."""
    figure = Figure(figsize=(WIDTH, 4.2))
    figure.suptitle(about, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    panels = figure.subplots(1, len(AXES), sharey=True)
    highest = max((100 * point.gap.mean for point in points if np.isfinite(point.gap.mean)), default=1.0)
    for axes, axis in zip(panels, AXES, strict=True):
        _panel(axes, axis, [point for point in points if point.axis == axis], max(highest, 2.0))
    panels[0].set_ylabel("gap to the lower bound [% of it]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    head = (
        "axis",
        "value",
        "scheme",
        "discount",
        "status",
        "bound",
        "cost",
        "gap [%]",
        "95 % low [%]",
        "95 % high [%]",
    )
    return figure, [head, *map(_row, points)]


def _row(point: Point) -> tuple[str | float, ...]:
    shares = (100 * share for share in (point.gap.mean, point.gap.low, point.gap.high))
    about = (point.axis, point.value, point.scheme, VARIANTS[point.criterion], point.status)
    return (*about, point.bound, point.cost.mean, *shares)


def _panel(axes: Axes, axis: str, points: Sequence[Point], highest: float) -> None:
    axes.set_yscale("symlog", linthresh=LINEAR_TO)
    axes.set_ylim(0, 5 * highest)
    axes.set(xlabel=AXES[axis], xscale="log")
    axes.yaxis.set_major_formatter(short_number)
    values = sorted({point.value for point in points})
    axes.set_xticks(values, [short_number(value) for value in values], rotation=45, ha="right")
    axes.minorticks_off()
    for kind in dict.fromkeys(point.kind for point in points):
        own = [point for point in points if point.kind == kind]
        x, y = np.array([[point.value, 100 * point.gap.mean] for point in own]).T
        dashes = ":" if kind[0] == CONSTANT else DASHES[kind[1]]
        axes.plot(x, y, dashes, color=colour(kind[0]), marker="o", markersize=3.5, label=label(kind))
        lost = [point.value for point in own if point.status != "ok"]
        axes.plot(lost, [4 * highest] * len(lost), "x", color=colour(kind[0]), markersize=7)
    if any(point.status != "ok" for point in points):
        axes.set_title("✕ unstable")
