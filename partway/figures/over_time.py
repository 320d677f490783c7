"""Cost over time: the running mean of every scheme's cost, or of every component of one scheme's cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.summary import COST_COMPONENTS, Summary
from partway.figures.intervals import mean_and_interval, running_mean
from partway.figures.layout import LINE_HEIGHT, PointLabel, label_points
from partway.figures.style import (
    COMPONENT_COLOURS,
    COMPONENT_DIMENSION,
    COMPONENT_NAMES,
    COST_COLUMNS,
    FigureData,
    Row,
    block_axis,
    cost_note,
    display_name,
    log_axis,
    new_figure,
    run_title,
    scheme_colour,
    show_message,
    spans_decade,
    unstable_note,
)

MAX_BANDS = 10
"""With more schemes than this no intervals are drawn: they would hide the lines."""
POINTS = 400
"""Points of a curve, about."""
WINDOWS = 40
"""A running mean is taken over one of so many parts of the run."""
AXIS_RANGE = 1e3
"""The cost axis stays within this factor of the median cost, whatever a heavy tail does."""


@dataclass(frozen=True)
class Curve:
    """A running mean, (points,) each. `stable`: drawn as a solid line, and the axis fits it."""

    key: str
    label: str
    colour: str
    stable: bool
    block: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def draw_schemes(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """One line for each scheme."""
    cost = dataset["cost"].transpose("scheme", "seed", "block", COMPONENT_DIMENSION).to_numpy().sum(axis=-1)
    curves = [
        _curve(one.name, display_name(one), scheme_colour(one.name), own, one.status == "ok" and not one.reason)
        for one, own in zip(summaries, cost, strict=True)
    ]
    return _draw(dataset, curves, _running(dataset), unstable_note(summaries), "scheme")


def draw_components(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """One line for each component of the only scheme's cost, and one for their sum."""
    cost = dataset["cost"].isel(scheme=0).transpose(COMPONENT_DIMENSION, "seed", "block").to_numpy()
    curves = [
        _curve(name, COMPONENT_NAMES[name], COMPONENT_COLOURS[name], own)
        for name, own in zip(COST_COMPONENTS, cost, strict=True)
    ]
    curves += [_curve("total", "total", "#222222", cost.sum(axis=0))]
    subtitle = f"{display_name(summaries[0])}: {_running(dataset)}"
    return _draw(dataset, curves, subtitle, unstable_note(summaries), "component")


def _window(blocks: int) -> int:
    return max(1, blocks // WINDOWS)


def _running(dataset: xr.Dataset) -> str:
    """What the lines are."""
    window = _window(dataset.sizes["block"])
    text = f"running mean over {window} blocks" if window > 1 else "cost of every block"
    bands = dataset.sizes["seed"] > 1 and dataset.sizes["scheme"] <= MAX_BANDS
    return text + ", with its 95 % confidence band over seeds" * bands


def _curve(key: str, label: str, colour: str, cost: np.ndarray, stable: bool = True) -> Curve:
    """The curve of a cost, (seeds, blocks)."""
    blocks = cost.shape[1]
    block, means = running_mean(cost, _window(blocks), max(1, blocks // POINTS))
    return Curve(key, label, colour, stable, block, *mean_and_interval(means))


def _draw(dataset: xr.Dataset, curves: Sequence[Curve], subtitle: str, note: str, kind: str) -> FigureData:
    shown = [curve for curve in curves if np.isfinite(curve.mean).any()]
    hidden = [curve.label for curve in curves if curve not in shown and kind == "scheme"]
    dashed = "Dashed: unstable; ▲ and ▼: the line ends beyond the axis." * (not all(curve.stable for curve in shown))
    notes = [cost_note(dataset), note, dashed, f"Not drawn: {'; '.join(hidden)}." * bool(hidden)]
    height = max(3.5, LINE_HEIGHT * len(curves))
    figure = new_figure(run_title(dataset), subtitle, notes, height)
    axes = figure.subplots()
    axes.set_ylabel("cost per block")
    block_axis(axes, dataset.attrs["block_s"])
    if shown:
        _limit(axes, [curve for curve in shown if curve.stable] or shown)
        _shade_warmup(axes, dataset)
        label_points(axes, [_line(axes, curve, len(curves) <= MAX_BANDS) for curve in shown], height)
    else:
        show_message(axes, "no scheme has a finite cost")
    return figure, [(kind, "block", *COST_COLUMNS), *(row for curve in shown for row in _rows(curve))]


def _rows(curve: Curve) -> list[Row]:
    columns = [values.tolist() for values in (curve.block, curve.mean, curve.low, curve.high)]
    return [(curve.key, *row) for row in zip(*columns, strict=True)]


def _limit(axes: Axes, curves: Sequence[Curve]) -> None:
    """Scale and limits of the cost axis; what is further than AXIS_RANGE from the median may leave it."""
    values = np.concatenate([curve.mean[np.isfinite(curve.mean)] for curve in curves])
    median = np.median(values[values > 0]) if (values > 0).any() else 0.0
    values = values[values <= AXIS_RANGE * median]
    positive = values[values > median / AXIS_RANGE]
    if spans_decade(positive):
        log_axis(axes, "y", positive.min() / 1.3, positive.max() * 1.5)
    else:
        spread = np.ptp(values) or abs(values.max()) or 1.0
        axes.set_ylim(values.min() - 0.1 * spread, values.max() + 0.2 * spread)


def _shade_warmup(axes: Axes, dataset: xr.Dataset) -> None:
    axes.set_xlim(0, dataset.sizes["block"] - 1)
    if dataset.attrs["warmup"]:
        axes.axvspan(0, dataset.attrs["warmup"], color="0.95", zorder=0)
        box = {"facecolor": "0.95", "edgecolor": "none", "pad": 1}
        axes.text(0.015, 0.98, "warm-up", transform=axes.transAxes, va="top", color="0.4", bbox=box)


def _line(axes: Axes, curve: Curve, bands: bool) -> PointLabel:
    """Draw a curve; returns the label of its end, with an arrow if that is beyond the axis."""
    width, dashes = (1.4, "-") if curve.stable else (0.9, "--")
    axes.plot(curve.block, curve.mean, color=curve.colour, linewidth=width, linestyle=dashes)
    if curve.stable and bands:
        axes.fill_between(curve.block, curve.low, curve.high, color=curve.colour, alpha=0.12, linewidth=0)
    (low, high), last = axes.get_ylim(), np.flatnonzero(np.isfinite(curve.mean))[-1]
    end = float(curve.mean[last])
    arrow = " ▲" if end > high else " ▼" if end < low else ""
    return PointLabel(curve.label + arrow, float(curve.block[last]), float(np.clip(end, low, high)), curve.colour)
