"""Cost over time: the running mean of every scheme's cost, or of every component of one scheme's cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.summary import Summary
from partway.figures.colours import COMPONENT_COLOURS, mark_line, scheme_colour, scheme_marker
from partway.figures.common import (
    COMPONENT_DIMENSION,
    COST_COLUMNS,
    FigureData,
    Row,
    axis_label,
    block_axis,
    cost_note,
    display_name,
    log_axis,
    new_figure,
    run_title,
    show_message,
    spans_decade,
    unstable_note,
)
from partway.figures.intervals import largest_by_seed, mean_and_interval, running_mean
from partway.figures.layout import PointLabel, label_points, line_height
from partway.figures.style import panel_height
from partway.measurement.gap import COMPONENT_NAMES, COST_COMPONENTS

MAX_BANDS = 10
"""With more schemes than this no intervals are drawn: they would hide the lines."""
POINTS = 400
"""Points of a curve, about."""
WINDOWS = 40
"""A running mean is taken over one of so many parts of the run."""
AXIS_RANGE = 1e3
"""The cost axis stays within this factor of the median cost, whatever a heavy tail does."""
COMPONENT_MARKERS = ("o", "s", "^", "D")
FADE_SHARE, FADE_FACTOR = 0.25, 5.0
"""One block of one seed is marked where it is more than this share of the sum that a mean is taken of, and more than so
many times the median block and each block of other seeds."""
FADE_MARK, ABOVE, BELOW = "◇", "▲", "▼"


@dataclass(frozen=True)
class Curve:
    """A running mean, (points,) each.

    stable   drawn as a solid line, and the axis fits it
    fade     where one block of one seed raises the mean, as where a scheme transmits in a deep fade
    """

    key: str
    label: str
    colour: str
    marker: str
    stable: bool
    block: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    fade: np.ndarray


class Scale(NamedTuple):
    """The cost axis."""

    low: float
    high: float
    logarithmic: bool

    def above(self, values: np.ndarray) -> np.ndarray:
        """Where values are beyond the upper end."""
        return values > self.high

    def below(self, values: np.ndarray) -> np.ndarray:
        """Where values are beyond the lower end, 0 on a logarithmic axis included."""
        return values < self.low


def draw_schemes(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """One line for each scheme."""
    cost = dataset["cost"].transpose("scheme", "seed", "block", COMPONENT_DIMENSION).to_numpy().sum(axis=-1)
    curves = [
        _curve(
            one.name,
            display_name(one),
            scheme_colour(one.name),
            scheme_marker(one.name),
            own,
            one.status == "ok" and not one.partly_unstable,
        )
        for one, own in zip(summaries, cost, strict=True)
    ]
    return _draw(dataset, curves, f"cost over time: {_running(dataset)}", unstable_note(summaries), "scheme")


def draw_components(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """One line for each component of the only scheme's cost, and one for their sum."""
    cost = dataset["cost"].isel(scheme=0).transpose(COMPONENT_DIMENSION, "seed", "block").to_numpy()
    curves = [
        _curve(name, COMPONENT_NAMES[name], COMPONENT_COLOURS[name], marker, own)
        for name, marker, own in zip(COST_COMPONENTS, COMPONENT_MARKERS, cost, strict=True)
    ]
    curves += [_curve("total", "total", "#222222", "X", cost.sum(axis=0))]
    subtitle = f"cost of {display_name(summaries[0])} over time: {_running(dataset)}"
    return _draw(dataset, curves, subtitle, unstable_note(summaries), "component")


def _window(blocks: int) -> int:
    return max(1, blocks // WINDOWS)


def _running(dataset: xr.Dataset) -> str:
    """What the lines are."""
    window = _window(dataset.sizes["block"])
    text = f"running mean over {window} blocks" if window > 1 else "cost of every block"
    bands = dataset.sizes["seed"] > 1 and dataset.sizes["scheme"] <= MAX_BANDS
    return text + ", with its 95 % confidence band over seeds" * bands


def _curve(key: str, label: str, colour: str, marker: str, cost: np.ndarray, stable: bool = True) -> Curve:
    """The curve of a cost, (seeds, blocks)."""
    window, step = _window(cost.shape[1]), max(1, cost.shape[1] // POINTS)
    block, means = running_mean(cost, window, step)
    mean, low, high = mean_and_interval(means)
    return Curve(key, label, colour, marker, stable, block, mean, low, high, _fades(cost, window, step))


def _fades(cost: np.ndarray, window: int, step: int) -> np.ndarray:
    """(points,) where one block of one seed stands out by FADE_SHARE and FADE_FACTOR."""
    finite = np.where(np.isfinite(cost), cost, 0.0)
    largest, second, share = largest_by_seed(finite, window, step)
    return (share > FADE_SHARE) & (largest > FADE_FACTOR * np.maximum(second, np.median(finite)))


def _draw(dataset: xr.Dataset, curves: Sequence[Curve], subtitle: str, note: str, kind: str) -> FigureData:
    shown = [curve for curve in curves if np.isfinite(curve.mean).any()]
    hidden = [curve.label for curve in curves if curve not in shown and kind == "scheme"]
    scale = _scale([curve for curve in shown if curve.stable] or shown)
    notes = [cost_note(dataset), note, *_notes(shown, scale), f"Not drawn: {'; '.join(hidden)}." * bool(hidden)]
    height = max(panel_height(3.5), line_height() * len(curves))
    figure = new_figure(run_title(dataset), subtitle, notes, height)
    axes = figure.subplots()
    axes.set_ylabel(axis_label(dataset, "cost"))
    block_axis(axes, dataset.attrs["block_s"])
    if shown:
        if scale.logarithmic:
            log_axis(axes, "y", scale.low, scale.high)
        axes.set_ylim(scale.low, scale.high)
        _shade_warmup(axes, dataset)
        label_points(axes, [_line(axes, curve, len(curves) <= MAX_BANDS) for curve in shown], height)
        for curve in shown:
            _mark(axes, curve, scale)
    else:
        show_message(axes, "no scheme has a finite cost")
    return figure, [(kind, "block", *COST_COLUMNS), *(row for curve in shown for row in _rows(curve))]


def _notes(curves: Sequence[Curve], scale: Scale) -> list[str]:
    """What dashes and marks mean, where there are any."""
    beyond = any(scale.above(curve.mean).any() or scale.below(curve.mean).any() for curve in curves)
    return [
        "Dashed: unstable, at least in some seeds." * (not all(curve.stable for curve in curves)),
        f"{ABOVE} {BELOW} The line leaves the axis." * beyond,
        f"{FADE_MARK} One block of one seed is more than a quarter of all cost in the mean, as where a scheme "
        "transmits in a deep fade." * any(curve.fade.any() for curve in curves),
    ]


def _rows(curve: Curve) -> list[Row]:
    columns = [values.tolist() for values in (curve.block, curve.mean, curve.low, curve.high)]
    return [(curve.key, *row) for row in zip(*columns, strict=True)]


def _scale(curves: Sequence[Curve]) -> Scale:
    """The cost axis that fits the curves but for what is further than AXIS_RANGE from their median."""
    values = np.concatenate([[], *(curve.mean[np.isfinite(curve.mean)] for curve in curves)])
    if not len(values):
        return Scale(0.0, 1.0, False)
    median = np.median(values[values > 0]) if (values > 0).any() else 0.0
    values = values[values <= AXIS_RANGE * median]
    positive = values[values > median / AXIS_RANGE]
    if spans_decade(positive):
        return Scale(positive.min() / 1.3, positive.max() * 1.5, True)
    spread = np.ptp(values) or abs(values.max()) or 1.0
    return Scale(values.min() - 0.1 * spread, values.max() + 0.2 * spread, False)


def _shade_warmup(axes: Axes, dataset: xr.Dataset) -> None:
    axes.set_xlim(0, dataset.sizes["block"] - 1)
    if dataset.attrs["warmup"]:
        axes.axvspan(0, dataset.attrs["warmup"], color="0.95", zorder=0)
        box = {"facecolor": "0.95", "edgecolor": "none", "pad": 1}
        axes.text(0.015, 0.98, "warm-up", transform=axes.transAxes, va="top", color="0.4", bbox=box)


def _line(axes: Axes, curve: Curve, bands: bool) -> PointLabel:
    """Draw a curve; returns the label of its end, with an arrow if that is beyond the axis."""
    width, dashes = (1.4, "-") if curve.stable else (0.9, "--")
    line = axes.plot(curve.block, curve.mean, color=curve.colour, linewidth=width, linestyle=dashes)
    mark_line(line[0], curve.marker)
    if curve.stable and bands:
        axes.fill_between(curve.block, curve.low, curve.high, color=curve.colour, alpha=0.12, linewidth=0)
    (low, high), last = axes.get_ylim(), np.flatnonzero(np.isfinite(curve.mean))[-1]
    end = float(curve.mean[last])
    arrow = f" {ABOVE}" if end > high else f" {BELOW}" if end < low else ""
    return PointLabel(curve.label + arrow, float(curve.block[last]), float(np.clip(end, low, high)), curve.colour)


def _mark(axes: Axes, curve: Curve, scale: Scale) -> None:
    """Marks where a curve leaves the axis, and the peaks that one block of one seed makes."""
    above, below = scale.above(curve.mean), scale.below(curve.mean)
    style: dict[str, Any] = {"linestyle": "", "color": curve.colour, "markersize": 6, "zorder": 4, "clip_on": False}
    for beyond, y, marker in ((above, scale.high, "^"), (below, scale.low, "v")):
        leaves = [start for start, _ in _stretches(beyond, len(curve.block) // 40)]
        if leaves:
            axes.plot(curve.block[leaves], np.full(len(leaves), y), marker, **style)
    stretches = _stretches(curve.fade, 0)
    peaks = [start + int(np.argmax(curve.mean[start:end])) for start, end in stretches]
    if peaks:
        style |= {"markeredgecolor": curve.colour, "markerfacecolor": "white", "markersize": 5}
        axes.plot(curve.block[peaks], np.minimum(curve.mean[peaks], scale.high), "D", **style)


def _stretches(where: np.ndarray, least: int) -> list[tuple[int, int]]:
    """(start, end) of every stretch of points; two that are at most `least` points apart are one."""
    edges = np.flatnonzero(np.diff(where.astype(int), prepend=0, append=0)).tolist()
    joined = list[tuple[int, int]]()
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        near = bool(joined) and start - joined[-1][1] <= least
        joined = [*joined[:-1], (joined[-1][0], end)] if near else [*joined, (start, end)]
    return joined
