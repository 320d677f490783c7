"""What each scheme pays for: weighted energy against weighted waiting, with lines of equal cost."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import LogLocator, MaxNLocator

from partway.experiments.summary import Summary
from partway.figures.colours import scheme_colour, scheme_marker
from partway.figures.common import (
    COST_COLUMNS,
    FigureData,
    averaged_over,
    cost_note,
    display_name,
    log_axis,
    new_figure,
    run_title,
    short_number,
    show_message,
    spans_decade,
    unstable_note,
)
from partway.figures.layout import PointLabel, label_points, line_height
from partway.figures.style import panel_height

WAITING, ENERGY = ("server_queue", "device_queue"), ("server_energy", "device_energy")
"""The components of (8) on either axis."""
COLUMNS = (
    *("waiting [cost per block]", "energy [cost per block]", COST_COLUMNS[0]),
    *("latency [s]", "device energy [J/task]", "server energy [J/task]"),
)
MAX_LINES = 8
"""Lines of equal cost, about."""
POINTS = 200
"""Points of a line of equal cost."""
EDGE = 0.03
"""Share of the panel within which a line's label would leave it."""
LABEL: Mapping[str, Any] = {"fontsize": 7, "color": "0.45", "zorder": 0.6}


def draw(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """A point for each stable scheme, or a message if there is none."""
    shown = [one for one in summaries if one.status == "ok"]
    subtitle = f"waiting against energy, {averaged_over(dataset)}; grey lines: equal cost, the lower left the cheaper"
    height = max(panel_height(3.5), line_height() * len(shown))
    notes = (cost_note(dataset), "Number beside a name: cost per block, the sum of both.", unstable_note(shown))
    figure = new_figure(run_title(dataset), subtitle, notes, height)
    axes = figure.subplots()
    axes.set(xlabel="weighted waiting [cost per block]", ylabel="weighted energy [cost per block]")
    if shown:
        label_points(axes, _points(axes, shown), height)
    else:
        show_message(axes, "no stable scheme")
    return figure, [("scheme", *COLUMNS), *((one.name, *_values(one)) for one in shown)]


def _values(one: Summary) -> tuple[float, ...]:
    """The values of COLUMNS."""
    waiting, energy = (sum(one.cost_components[name] for name in names) for names in (WAITING, ENERGY))
    return (waiting, energy, one.cost.mean, one.latency_s["mean"], one.device_j, one.server_j)


def _points(axes: Axes, schemes: Sequence[Summary]) -> list[PointLabel]:
    """The points on axes that fit them, and lines of equal cost behind."""
    x, y, cost = np.array([_values(one)[:3] for one in schemes]).T
    colours = [scheme_colour(one.name) for one in schemes]
    markers = [scheme_marker(one.name) for one in schemes]
    for marker in dict.fromkeys(markers):
        own = [i for i, each in enumerate(markers) if each == marker]
        points = [colours[i] for i in own]
        axes.scatter(x[own], y[own], s=55, c=points, marker=marker, alpha=0.9, edgecolor="white", zorder=3)
    logarithmic = min(x.min(), y.min()) > 0 and (spans_decade(x) or spans_decade(y))
    sides: tuple[tuple[Literal["x", "y"], np.ndarray], ...] = (("x", x), ("y", y))
    for which, values in sides:
        if logarithmic:
            log_axis(axes, which, values.min() / 1.5, values.max() * 1.5)
        else:
            spread = np.ptp(values) or abs(values.max()) or 1.0
            axes.set(**{f"{which}lim": (max(0.0, values.min() - 0.15 * spread), values.max() + 0.15 * spread)})
    axes.grid(False)
    _equal_cost(axes)
    texts = [f"{display_name(one)}  {short_number(each)}" for one, each in zip(schemes, cost, strict=True)]
    return [PointLabel(*label) for label in zip(texts, x.tolist(), y.tolist(), colours, strict=True)]


def _equal_cost(axes: Axes) -> None:
    """Lines x + y = cost at round costs across the panel, with their costs at the left or upper side."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    low, high = left + bottom, right + top
    locator = LogLocator(subs=(1, 1.5, 2, 3, 5, 7)) if high > 5 * low > 0 else MaxNLocator(MAX_LINES)
    costs = [float(cost) for cost in locator.tick_values(low, high) if low < cost < high]
    space = np.geomspace if axes.get_xscale() == "log" else np.linspace
    lines = [np.stack([x := space(left, min(right, cost - bottom), POINTS), cost - x], axis=1) for cost in costs]
    axes.add_collection(LineCollection(lines, colors="0.8", linewidths=0.8, zorder=0.5), autolim=False)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    ends = [(left, cost - left) if cost - left < top else (cost - top, top) for cost in costs]
    places = (axes.transScale + axes.transLimits).transform(ends) if ends else ()
    for cost, (x, y) in zip(costs, places, strict=True):
        if y < EDGE or x > 1 - EDGE:
            continue  # the label would leave the panel
        ha, va = ("left", "center") if x < EDGE else ("center", "top")
        axes.text(x, y, short_number(cost), transform=axes.transAxes, ha=ha, va=va, bbox=box, **LABEL)
