"""How far every scheme is above the lower bound, sorted, and which decisions cause its gap."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from partway.experiments.summary import Gap, Summary
from partway.figures.bars import legend_handles, name_rows, row_lines, stacked_bars
from partway.figures.colours import scheme_colour
from partway.figures.common import (
    FigureData,
    display_name,
    mark_linear_part,
    new_figure,
    run_title,
    short_number,
    show_message,
    unstable_note,
)
from partway.figures.layout import bottom_legend, line_height
from partway.figures.style import display_label

LOSSES = {
    "devices": ("device decisions", "#8cb8e6"),
    "waiting": ("work left waiting at the server", "#0f2f57"),
    "service": ("service rate of the server", "#a8480a"),
}
"""The terms of a gap, by their names in `Gap`: what causes the loss, and its colour."""
LINEAR_UP_TO = 1.0
"""The axis is linear up to here [%], so that it has a zero."""
BELOW_BOUND = (
    "The bound holds for the expected cost of every policy: in a finite run a mean cost or an interval can lie below "
    "it by chance."
)


def draw(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """Left a point and its interval for each scheme that has a gap, right the shares of what causes it."""
    known = [(one, one.gap) for one in summaries if one.gap is not None and np.isfinite(one.gap.whole.mean)]
    known.sort(key=lambda pair: -pair[1].whole.mean)
    gaps = [gap for _, gap in known]
    below = any(gap.whole.low < 0 for gap in gaps)
    above = any(gap.whole.high > _end(gaps) for gap in gaps)
    marks = ", ◂ the interval extends below zero" * below + ", ▸ beyond the axis" * above
    subtitle = f"left: gap to the lower bound{marks}; right: its causes"
    notes = _notes(dataset, summaries) if known else ()
    rows = 1.5 * line_height() * (1 + max(len(known), 4))
    figure = new_figure(run_title(dataset), subtitle, notes, rows)
    points, shares = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    points.set_xlabel("gap [% of the bound]")
    shares.set(xlabel="share [%]", xlim=(0, 100))
    if known:
        _points(points, known)
        _shares(shares, gaps)
        handles = legend_handles(dict(LOSSES.values()))
        bottom_legend(figure, handles, 3, handlelength=1)
    else:
        reasons = "; ".join(dict.fromkeys(one.no_gap for one in summaries if one.no_gap)) or "there is none"
        show_message(points, f"no scheme has a gap: {reasons}")
    head = ("scheme", "gap [%]", "95 % low [%]", "95 % high [%]", *(f"{name} [%]" for name in LOSSES))
    rows = [100 * np.array([gap.whole.mean, gap.whole.low, gap.whole.high, *_losses(gap)]) for gap in gaps]
    return figure, [head, *((one.name, *row.tolist()) for (one, _), row in zip(known, rows, strict=True))]


def _notes(dataset: xr.Dataset, summaries: Sequence[Summary]) -> list[str]:
    average = dataset.attrs["objective"] == "average"
    cost = f"mean cost per block (after block {dataset.attrs['warmup']})" if average else "discounted sum of costs"
    reasons = dict.fromkeys(one.no_gap for one in summaries if one.no_gap)
    names = {why: [display_label(one.name) for one in summaries if one.no_gap == why] for why in reasons}
    without = [f"{', '.join(own)} ({why})" for why, own in names.items()]
    return [
        f"Gap: how far the {cost} is above the bound, with its 95 % confidence interval over seeds.",
        f"The axis is linear up to {LINEAR_UP_TO:g} % and logarithmic above.",
        BELOW_BOUND,
        unstable_note([one for one in summaries if one.gap is not None]),
        f"No gap: {'; '.join(without)}." * bool(without),
    ]


def _points(axes: Axes, known: Sequence[tuple[Summary, Gap]]) -> None:
    rows, schemes = np.arange(len(known)), [one for one, _ in known]
    mean, low, high = (100 * np.array([getattr(gap.whole, of) for _, gap in known]) for of in ("mean", "low", "high"))
    colours = [scheme_colour(one.name) for one in schemes]
    axes.hlines(rows, np.maximum(low, 0.0), high, colors=colours, linewidth=2.5, alpha=0.5)
    axes.scatter(mean, rows, c=colours, s=28, zorder=3)
    axes.axvline(0.0, color="0.2", linewidth=1.2)
    axes.set_xscale("symlog", linthresh=LINEAR_UP_TO)
    mark_linear_part(axes, "x", LINEAR_UP_TO)
    end = _end([gap for _, gap in known])
    axes.set_xlim(-0.15, end)
    axes.xaxis.set_major_formatter(short_number)
    name_rows(axes, [display_name(one) for one in schemes])
    row_lines(axes, len(rows))
    axes.set_ylim(-0.7, len(rows) + 0.3)
    below = rows[low < 0]
    if len(below):
        axes.scatter(np.zeros_like(below), below, marker="<", c="0.35", s=16, clip_on=False, zorder=3)
    above = rows[high > end]
    if len(above):
        axes.scatter(np.full(len(above), end), above, marker=">", c="0.35", s=16, clip_on=False, zorder=3)
    beside = axes.transData + ScaledTranslation(5 / 72, 4 / 72, axes.figure.dpi_scale_trans)  # [inch]
    for row, value in enumerate(mean.tolist()):
        text = f"{value:.2g}" if value < 100 else f"{value:,.0f}"
        axes.text(value, row, text, transform=beside, fontsize=7.5, color="0.35")


def _end(gaps: Sequence[Gap]) -> float:
    """The end of the axis [%], which leaves room for the numbers beside the points."""
    return max(2.0, *(300.0 * gap.whole.mean for gap in gaps))


def _shares(axes: Axes, gaps: Sequence[Gap]) -> None:
    """A stacked bar for each gap."""
    losses = np.array([_losses(gap) for gap in gaps])
    ends = np.cumsum(100 * losses / np.maximum(losses.sum(axis=1, keepdims=True), 1e-30), axis=1)
    stacked_bars(axes, ends, [colour for _, colour in LOSSES.values()], height=0.6)


def _losses(gap: Gap) -> tuple[float, ...]:
    return tuple(float(getattr(gap, name)) for name in LOSSES)
