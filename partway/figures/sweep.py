"""A sweep: what a block costs, and how far that is above the lower bound, along the first axis of the grid."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from partway.experiments.statistics import Estimate
from partway.experiments.sweep.dataset import axis_names, cost_of, gap_of, grid
from partway.figures.style import (
    COST_COLUMNS,
    LINE,
    STYLE,
    WIDTH,
    Drawn,
    colour,
    log_axis,
    save,
    short_name,
    short_number,
    wide,
)

MOST_PANELS = 12
MOST_COLUMNS = 3
LINEAR_TO = 1.0
"""Per cent up to which the gap's axis is linear, so that it has a zero."""
GAP_COLUMNS = ("gap [%]", "95 % low [%]", "95 % high [%]")


@dataclass(frozen=True)
class _Measure:
    """What is drawn: where it comes from, its factor and its words."""

    of: Callable[[xr.Dataset, Mapping[str, int], str], Estimate]
    factor: float
    label: str
    columns: tuple[str, str, str]
    symlog: bool = False


MEASURES: Mapping[str, _Measure] = {
    "cost": _Measure(cost_of, 1.0, "cost per block", COST_COLUMNS),
    "gap": _Measure(gap_of, 100.0, "gap to the lower bound [%]", GAP_COLUMNS, symlog=True),
}
"""The figures by the names of their files."""


def write(dataset: xr.Dataset, folder: Path) -> None:
    """Write the figures of MEASURES, and the numbers in them; a gap only where there is one."""
    with style.context(["default", STYLE]):
        for name in MEASURES:
            if name == "cost" or np.isfinite(dataset["gap"]).any():
                save(folder, name, draw(dataset, name))


def draw(dataset: xr.Dataset, name: str) -> Drawn:
    """A panel for each value of the other axes, a line and its 95 % band for each scheme; CSV rows of all points."""
    measure, axes = MEASURES[name], axis_names(dataset)
    rows = _rows(dataset, measure)
    facets = list(itertools.product(*(range(dataset.sizes[axis]) for axis in axes[1:])))
    shown = facets[:MOST_PANELS]
    last = dataset.sizes[axes[-1]] if len(axes) > 2 else len(shown)
    columns = last if last <= MOST_COLUMNS else min(len(shown), MOST_COLUMNS)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(WIDTH, 1.3 + 2.7 * lines + LINE * (len(dataset["scheme"]) // 4)))
    figure.suptitle(_title(dataset, len(facets)), x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for panel, facet in zip(panels, shown, strict=False):
        _panel(panel, dataset, measure, dict(zip(axes[1:], facet, strict=True)))
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    for panel in panels[max(len(shown) - columns, 0) : len(shown)]:
        panel.xaxis.set_tick_params(labelbottom=True)
    _scale(panels[0], measure, [row[-3] for row in rows[1:]])
    figure.supylabel(measure.label, fontsize=9)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
    return figure, rows


def _scale(axes: Axes, measure: _Measure, values: Sequence[str | float]) -> None:
    """The scale of the vertical axis, which all panels share: logarithmic where the means are far apart."""
    means = np.array([value for value in values if isinstance(value, float) and np.isfinite(value)])
    if measure.symlog and len(means):
        axes.set_yscale("symlog", linthresh=LINEAR_TO)
        axes.set_ylim(0, 2 * max(means.max(), LINEAR_TO))
        axes.yaxis.set_major_formatter(short_number)
    elif wide(means):
        log_axis(axes, "y", means.min() / 1.5, means.max() * 1.5)
    else:
        axes.set_ylim(bottom=0)


def _title(dataset: xr.Dataset, facets: int) -> str:
    name = str(dataset.attrs["scenario_name"]).replace("$", r"\$")  # a file's name, not mathematics
    counts = f"{dataset.attrs['blocks']} blocks, {dataset.sizes['seed']} seeds, after block {dataset.attrs['warmup']}"
    more = f"; the first {MOST_PANELS} of {facets} panels, all are in the CSV file" * (facets > MOST_PANELS)
    return f"{name}: {counts}{more}"


def _panel(axes: Axes, dataset: xr.Dataset, measure: _Measure, at: Mapping[str, int]) -> None:
    names = axis_names(dataset)
    x, words = _positions(dataset, names)
    for scheme in map(str, dataset["scheme"].values):
        points = [{**at, names[0]: i} for i in range(len(x))] if names else [dict[str, int]()]
        found = [measure.of(dataset, point, scheme) for point in points]
        mean, low, high = (
            measure.factor * np.array([getattr(one, which) for one in found]) for which in ("mean", "low", "high")
        )
        axes.plot(x, mean, color=colour(scheme), marker="o", markersize=3, label=short_name(scheme))
        axes.fill_between(x, low, high, color=colour(scheme), alpha=0.2, linewidth=0)
    if at:
        axes.set_title(", ".join(f"{name} = {_label(dataset[name].values[i])}" for name, i in at.items()))
    if words:
        axes.set_xticks(x, words, rotation=30, ha="right")
    elif wide(x):
        log_axis(axes, "x", x.min() / 1.1, x.max() * 1.1)
    if names:
        axes.set_xlabel(_axis_label(dataset, names[0]))


def _positions(dataset: xr.Dataset, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Where the points of the first axis stand, and what is written there if they are words."""
    if not names:
        return np.zeros(1), ["the scenario"]
    values = dataset[names[0]].values
    if values.dtype.kind in "if":
        return values.astype(float), []
    return np.arange(len(values), dtype=float), [short_name(str(value)) for value in values]


def _axis_label(dataset: xr.Dataset, name: str) -> str:
    unit = dataset[name].attrs["units"]
    return name.replace("_", " ") + (f" [{unit}]" if unit not in ("1", name) else "")


def _label(value: Any) -> str:
    return short_name(str(value)) if isinstance(value, str) else short_number(float(value))


def _rows(dataset: xr.Dataset, measure: _Measure) -> list[Sequence[str | float]]:
    """Every point with every scheme."""
    names = axis_names(dataset)
    rows: list[Sequence[str | float]] = [(*names, "scheme", "status", "bound", *measure.columns)]
    for at in grid(dataset):
        here = dataset.isel(at)
        values = [here[name].item() for name in names]
        for scheme in map(str, dataset["scheme"].values):
            found = measure.of(dataset, at, scheme)
            numbers = [measure.factor * value for value in (found.mean, found.low, found.high)]
            status = str(here["status"].sel(scheme=scheme).values)
            rows.append((*values, scheme, status, float(here["bound"]), *numbers))
    return rows
