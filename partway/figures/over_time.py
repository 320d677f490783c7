"""Cost over time: the running mean of every scheme, or of every part of one scheme's cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.statistics import Estimate, estimate
from partway.experiments.summary import COST_COMPONENTS, Summary
from partway.figures.style import (
    COMPONENT_COLOURS,
    COMPONENT_NAMES,
    COST_COLUMNS,
    LINE,
    Drawn,
    Row,
    colour,
    count_blocks,
    label_points,
    log_axis,
    marked,
    new_figure,
    say_instead,
    short_number,
    shown_name,
    wide,
)

MOST_BANDS = 10
"""Schemes up to which intervals are drawn: more of them hide the lines."""
POINTS = 400
"""Points of a curve, about."""
REACH = 1e3
"""Factor from the median cost within which the axis of costs stays, whatever a heavy tail does."""


@dataclass(frozen=True)
class Curve:
    """A running mean, (points,) each. `steady`: drawn in full, and the axis follows it."""

    key: str
    label: str
    colour: str
    steady: bool
    block: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def draw_schemes(dataset: xr.Dataset, summaries: Sequence[Summary]) -> Drawn:
    """One line for each scheme."""
    cost, curves = dataset["cost"].sum("part", skipna=False), list[Curve]()
    for one in summaries:
        per_seed, steady = cost.sel(scheme=one.name).to_numpy(), one.status == "ok" and not one.reason
        curves.append(_curve(one.name, shown_name(one), colour(one.name), per_seed, steady))
    return _draw(dataset, curves, marked(_running(dataset), summaries), "scheme")


def draw_parts(dataset: xr.Dataset, summaries: Sequence[Summary]) -> Drawn:
    """One line for each part of the only scheme's cost, and one for their sum."""
    cost = dataset["cost"].isel(scheme=0)
    curves = [
        _curve(part, COMPONENT_NAMES[part], COMPONENT_COLOURS[part], cost.sel(part=part).to_numpy())
        for part in COST_COMPONENTS
    ]
    curves += [_curve("sum", "sum of the parts", "#222222", cost.sum("part", skipna=False).to_numpy())]
    return _draw(dataset, curves, marked(f"{shown_name(summaries[0])}: {_running(dataset)}", summaries), "part")


def _window(blocks: int) -> int:
    return max(1, blocks // 40)


def _running(dataset: xr.Dataset) -> str:
    window = _window(dataset.sizes["block"])
    text = f"running mean over {window} blocks" if window > 1 else "every block"
    bands = dataset.sizes["seed"] > 1 and dataset.sizes["scheme"] <= MOST_BANDS
    return text + ", with its 95 % band over seeds" * bands


def _curve(key: str, label: str, tint: str, cost: np.ndarray, steady: bool = True) -> Curve:
    """The running mean of (seeds, blocks), with its 95 % interval over seeds, at the last block of each window."""
    blocks, window = cost.shape[1], _window(cost.shape[1])
    ends = np.arange(blocks - 1, window - 2, -max(1, blocks // POINTS))[::-1]
    means = [cost[:, end + 1 - window : end + 1].mean(axis=1, dtype=np.float64) for end in ends]
    found = [estimate(mean) if np.isfinite(mean).all() else Estimate(np.nan, np.nan, np.nan) for mean in means]
    mean, low, high = np.array([(one.mean, one.low, one.high) for one in found]).T
    return Curve(key, label, tint, steady, ends, mean, low, high)


def _draw(dataset: xr.Dataset, curves: Sequence[Curve], about: str, kind: str) -> Drawn:
    figure = new_figure(dataset, max(4.5, 1.5 + LINE * len(curves)))
    axes, shown = figure.subplots(), [curve for curve in curves if np.isfinite(curve.mean).any()]
    hidden = [curve.label for curve in curves if curve not in shown and kind == "scheme"]
    axes.set_title(about + f"\nnot drawn: {'; '.join(hidden)}" * bool(hidden))
    axes.set(xlabel=f"block ({short_number(dataset.attrs['block_s'])} s each)", ylabel="cost per block")
    if shown:
        _limit(axes, [curve for curve in shown if curve.steady] or shown)
        _shade_warmup(axes, dataset)
        label_points(axes, [_line(axes, curve, len(curves) <= MOST_BANDS) for curve in shown])
    else:
        say_instead(axes, "nothing that could be drawn")
    return figure, [(kind, "block", *COST_COLUMNS), *(row for curve in shown for row in _rows(curve))]


def _rows(curve: Curve) -> list[Row]:
    columns = [values.tolist() for values in (curve.block, curve.mean, curve.low, curve.high)]
    return [(curve.key, *row) for row in zip(*columns, strict=True)]


def _limit(axes: Axes, curves: Sequence[Curve]) -> None:
    """Scale and limits of the cost axis; what is further than REACH from the median may leave it."""
    values = np.concatenate([curve.mean[np.isfinite(curve.mean)] for curve in curves])
    middle = np.median(values[values > 0]) if (values > 0).any() else 0.0
    values = values[values <= REACH * middle]
    positive = values[values > middle / REACH]
    if wide(positive):
        log_axis(axes, "y", positive.min() / 1.3, positive.max() * 1.5)
    else:
        spread = np.ptp(values) or abs(values.max()) or 1.0
        axes.set_ylim(values.min() - 0.1 * spread, values.max() + 0.2 * spread)


def _shade_warmup(axes: Axes, dataset: xr.Dataset) -> None:
    axes.set_xlim(0, dataset.sizes["block"] - 1)
    count_blocks(axes)
    if dataset.attrs["warmup"]:
        axes.axvspan(0, dataset.attrs["warmup"], color="0.95", zorder=0)
        behind = {"facecolor": "0.95", "edgecolor": "none", "pad": 1}
        axes.text(0.015, 0.98, "warm-up", transform=axes.transAxes, va="top", color="0.4", bbox=behind)


def _line(axes: Axes, curve: Curve, bands: bool) -> tuple[str, float, float, str]:
    """Draw a curve; returns the label of its end, with an arrow if that is beyond the axis."""
    width, dashes = (1.4, "-") if curve.steady else (0.9, "--")
    axes.plot(curve.block, curve.mean, color=curve.colour, linewidth=width, linestyle=dashes)
    if curve.steady and bands:
        axes.fill_between(curve.block, curve.low, curve.high, color=curve.colour, alpha=0.15, linewidth=0)
    (low, high), last = axes.get_ylim(), np.flatnonzero(np.isfinite(curve.mean))[-1]
    end = float(curve.mean[last])
    arrow = " ▲" if end > high else " ▼" if end < low else ""
    return curve.label + arrow, float(curve.block[last]), float(np.clip(end, low, high)), curve.colour
