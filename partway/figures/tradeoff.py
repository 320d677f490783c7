"""Latency, energy and cost: a circle for each stable scheme whose latency is known."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.summary import Summary
from partway.figures.layout import LINE_HEIGHT, PointLabel, label_points
from partway.figures.style import (
    COST_COLUMNS,
    FigureData,
    averaged_over,
    cost_note,
    display_name,
    highest_shown,
    log_axis,
    new_figure,
    run_title,
    scheme_colour,
    short_number,
    show_message,
    spans_decade,
    unstable_note,
)

COLUMNS = ("latency [s]", "device energy [J/task]", "server energy [J/task]", "energy [J/task]", COST_COLUMNS[0])


def draw(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """The circles, or a message if there is none."""
    values = {
        one.name: (one.latency_s["mean"], one.device_j, one.server_j, one.device_j + one.server_j, one.cost.mean)
        for one in summaries
    }
    shown = [one for one in summaries if one.status == "ok" and np.isfinite(values[one.name]).all()]
    subtitle = f"{averaged_over(dataset)}; lower left is better; circle area and number: cost per block"
    height = max(3.5, LINE_HEIGHT * len(shown))
    figure = new_figure(run_title(dataset), subtitle, (cost_note(dataset), unstable_note(shown)), height)
    axes = figure.subplots()
    axes.set(xlabel="mean latency per task [s]", ylabel="energy per task, device and server [J]")
    if shown:
        labels = _circles(axes, shown, np.array([values[one.name] for one in shown])[:, [0, 3, 4]])
        label_points(axes, labels, height)
    else:
        show_message(axes, "no stable scheme whose latency is known")
    return figure, [("scheme", *COLUMNS), *((one.name, *values[one.name]) for one in shown)]


def _circles(axes: Axes, schemes: Sequence[Summary], points: np.ndarray) -> list[PointLabel]:
    """(schemes, 3) latency, energy and cost; areas stop growing where `highest_shown` cuts bars of costs."""
    x, y, cost = points.T
    colours, end = [scheme_colour(one.name) for one in schemes], highest_shown(cost)
    axes.scatter(x, y, s=300 * np.minimum(cost, end) / end, c=colours, alpha=0.85, edgecolor="white", zorder=3)
    axes.margins(0.1)
    if spans_decade(x):
        log_axis(axes, "x", x.min() / 1.5, x.max() * 1.5)
    if spans_decade(y):
        log_axis(axes, "y", y.min() / 1.5, y.max() * 1.5)
    texts = [f"{display_name(one)}  {short_number(each)}" for one, each in zip(schemes, cost, strict=True)]
    return [PointLabel(*label) for label in zip(texts, x.tolist(), y.tolist(), colours, strict=True)]
