"""Latency, energy and cost: a point for each stable scheme whose latency is known."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.summary import Summary
from partway.figures.style import (
    COST_COLUMNS,
    LINE,
    Drawn,
    after_warmup,
    colour,
    highest_shown,
    label_points,
    log_axis,
    marked,
    new_figure,
    say_instead,
    short_number,
    shown_name,
    wide,
)


def draw(dataset: xr.Dataset, summaries: Sequence[Summary]) -> Drawn:
    """The points, or words if there is none."""
    numbers = [
        (one, one.latency_s["mean"], one.device_j, one.server_j, one.device_j + one.server_j, one.cost.mean)
        for one in summaries
    ]
    shown = [(one, *values) for one, *values in numbers if one.status == "ok" and np.isfinite(values).all()]
    figure = new_figure(dataset, max(4.5, 1.5 + LINE * len(shown)))
    axes = figure.subplots()
    axes.set(xlabel="mean latency per task [s]", ylabel="energy per task, device and server [J]")
    if shown:
        about = f"{after_warmup(dataset)}; lower left is better; area and number: cost per block"
        axes.set_title(marked(about, [one for one, *_ in shown]))
        _bubbles(axes, [one for one, *_ in shown], np.array([values for _, *values in shown])[:, [0, 3, 4]])
    else:
        say_instead(axes, "no stable scheme whose latency is known")
    units = ("latency [s]", "device energy [J/task]", "server energy [J/task]", "energy [J/task]", COST_COLUMNS[0])
    return figure, [("scheme", *units), *((one.name, *values) for one, *values in shown)]


def _bubbles(axes: Axes, schemes: Sequence[Summary], points: np.ndarray) -> None:
    """(schemes, 3) latency, energy and cost; an area stops growing where the bars of the cost are cut."""
    x, y, cost = points.T
    tints, end = [colour(one.name) for one in schemes], highest_shown(cost)
    axes.scatter(x, y, s=300 * np.minimum(cost, end) / end, c=tints, alpha=0.85, edgecolor="white", zorder=3)
    axes.margins(0.1)
    if wide(x):
        log_axis(axes, "x", x.min() / 1.5, x.max() * 1.5)
    if wide(y):
        log_axis(axes, "y", y.min() / 1.5, y.max() * 1.5)
    texts = [f"{shown_name(one)}  {short_number(each)}" for one, each in zip(schemes, cost, strict=True)]
    label_points(axes, list(zip(texts, x, y, tints, strict=True)))
