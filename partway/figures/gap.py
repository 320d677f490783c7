"""How far every scheme is above the lower bound, and who loses it: schemes sorted by their gap, the bound at zero."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.summary import Gap, Summary
from partway.figures.style import LINE, Drawn, colour, marked, new_figure, say_instead, short_number, shown_name

LOSERS = {"devices": "#8cb8e6", "waiting": "#1b4f8a", "service": "#a8480a"}
"""Whose loss it is: the devices' choices, work left waiting at the server, the server's rate."""
LINEAR_TO = 1.0
"""Per cent up to which the axis is linear, so that it has a zero."""


def draw(dataset: xr.Dataset, summaries: Sequence[Summary]) -> Drawn:
    """A point and its interval for each scheme that has a gap, and the shares of those who lose it."""
    known = [(one, one.gap) for one in summaries if one.gap is not None and np.isfinite(one.gap.whole.mean)]
    known.sort(key=lambda pair: -pair[1].whole.mean)
    figure = new_figure(dataset, 1.5 + 1.5 * LINE * max(len(known), 4))
    points, shares = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    points.set(xlabel="gap to the lower bound [% of it]")
    shares.set(xlabel="who loses it [%]", xlim=(0, 100))
    if known:
        _points(points, known)
        _shares(shares, [gap for _, gap in known])
    else:
        say_instead(points, "no scheme has a gap: " + (dataset.attrs.get("bound_reason") or "none is stable"))
    without = [one.name for one in summaries if one.gap is None]
    if known and without:
        points.set_xlabel(f"gap to the lower bound [% of it]; none: {', '.join(without)} (no average cost)")
    head = ("scheme", "gap [%]", "95 % low [%]", "95 % high [%]", *(f"{name} [%]" for name in LOSERS))
    rows = [[100 * x for x in (gap.whole.mean, gap.whole.low, gap.whole.high, *_parts(gap))] for _, gap in known]
    return figure, [head, *((one.name, *row) for (one, _), row in zip(known, rows, strict=True))]


def _points(axes: Axes, known: Sequence[tuple[Summary, Gap]]) -> None:
    places, schemes = np.arange(len(known)), [one for one, _ in known]
    middle, low, high = (100 * np.array([getattr(gap.whole, of) for _, gap in known]) for of in ("mean", "low", "high"))
    tints = [colour(one.name) for one in schemes]
    axes.hlines(places, np.maximum(low, 0.0), high, colors=tints, linewidth=2.5, alpha=0.5)
    axes.scatter(np.zeros_like(places)[low < 0], places[low < 0], marker="<", c="0.35", s=16, clip_on=False, zorder=3)
    axes.scatter(middle, places, c=tints, s=28, zorder=3)
    axes.axvline(0.0, color="0.2", linewidth=1.2)
    axes.set_xscale("symlog", linthresh=LINEAR_TO)
    axes.set_xlim(-0.15, max(3.0 * float(np.max(middle)), 2.0))
    axes.xaxis.set_major_formatter(short_number)
    axes.set_yticks(places, [shown_name(one) for one in schemes])
    wide = "; ◂ the interval goes below it" if (low < 0).any() else ""
    axes.set_title(marked(f"the line at zero is the bound{wide}; linear up to 1 %", schemes))
    for place, value in zip(places, middle, strict=True):
        text = f"{value:.2g}" if value < 100 else f"{value:.0f}"
        axes.annotate(text, (value, place), (5, 4), textcoords="offset points", fontsize=7.5, color="0.35")


def _shares(axes: Axes, gaps: Sequence[Gap]) -> None:
    parts = np.array([_parts(gap) for gap in gaps])
    parts = 100 * parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-30)
    left = np.zeros(len(gaps))
    for part, (name, tint) in zip(parts.T, LOSERS.items(), strict=True):
        axes.barh(np.arange(len(gaps)), part, left=left, color=tint, height=0.6, label=name)
        left += part
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=7.5, handlelength=1, columnspacing=0.8)


def _parts(gap: Gap) -> tuple[float, float, float]:
    return gap.devices, gap.waiting, gap.service
