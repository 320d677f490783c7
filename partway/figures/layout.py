"""Positions on a figure: margins that fit the text around the panels, and labels in a column at the right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

LINE_HEIGHT = 0.16
"""Height of a line of text [inch]."""
PAD = 0.09
"""Space around text [inch]."""
LABEL_X = 1.04
"""Left end of the labels beside a panel, as a share of the panel's width."""


class PointLabel(NamedTuple):
    """A label and the point it names, in data coordinates."""

    text: str
    x: float
    y: float
    colour: str


def fit_margins(figure: Figure) -> None:
    """Give the panels the space that title, labels, legend and notes leave.

    Text of the figure with va = "top" is its titles, with va = "bottom" its notes; its legends stand above the notes.
    One pass over the text. Matplotlib's constrained layout takes two slower ones, and overlaps notes and legend.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    (width, height), panels = figure.get_size_inches(), [axes for axes in figure.axes if axes.get_visible()]
    left, right, top, bottom = _overhangs(panels, renderer)
    x0, x1 = PAD + left[0], width - PAD - right[-1]
    y0, y1 = _stack_footer(figure, renderer) + bottom[-1], height - _stack_header(figure, renderer) - top[0]
    labels = [_label_offsets(axes) for axes in panels]
    figure.subplots_adjust(
        left=x0 / width,
        right=x1 / width,
        bottom=y0 / height,
        top=y1 / height,
        wspace=_relative_gap(x1 - x0, right[:-1] + left[1:]),
        hspace=_relative_gap(y1 - y0, bottom[:-1] + top[1:]),
    )
    for axes, (x, y) in zip(panels, labels, strict=True):  # automatic positions would be found again for each file
        axes.xaxis.set_label_coords(0.5, y / axes.bbox.height)
        axes.yaxis.set_label_coords(x / axes.bbox.width, 0.5)


def _overhangs(panels: Sequence[Axes], renderer: RendererBase) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How far text reaches beyond the panels [inch]: left and right by column, above and below by row."""
    grid = panels[0].get_gridspec()
    assert grid is not None
    left, right, top, bottom = (np.zeros(count) for count in (grid.ncols, grid.ncols, grid.nrows, grid.nrows))
    for axes in panels:
        outer, inner, spec = axes.get_tightbbox(renderer, for_layout_only=True), axes.bbox, axes.get_subplotspec()
        assert outer is not None
        assert spec is not None
        dpi, row, column = axes.figure.dpi, spec.rowspan.start, spec.colspan.start
        left[column] = max(left[column], (inner.x0 - outer.x0) / dpi)
        right[column] = max(right[column], (outer.x1 - inner.x1) / dpi)
        top[row] = max(top[row], (outer.y1 - inner.y1) / dpi)
        bottom[row] = max(bottom[row], (inner.y0 - outer.y0) / dpi)
    return left, right, top, bottom


def _label_offsets(axes: Axes) -> tuple[float, float]:
    """Position of the axis labels from the lower left corner [pixel]: x of the vertical, y of the horizontal one's."""
    return axes.yaxis.label.get_position()[0] - axes.bbox.x0, axes.xaxis.label.get_position()[1] - axes.bbox.y0


def _stack_header(figure: Figure, renderer: RendererBase) -> float:
    """Put the titles at the top of the figure, one below the other; returns their height [inch]."""
    used = PAD
    for title in (text for text in figure.texts if text.get_verticalalignment() == "top"):
        title.set_y(1 - used / figure.get_figheight())
        used += title.get_window_extent(renderer).height / figure.dpi + PAD
    return used


def _stack_footer(figure: Figure, renderer: RendererBase) -> float:
    """Put the notes at the bottom of the figure and its legends above them; returns their height [inch]."""
    used, height = PAD, figure.get_figheight()
    for notes in (text for text in figure.texts if text.get_verticalalignment() == "bottom"):
        notes.set_y(used / height)
        used += notes.get_window_extent(renderer).height / figure.dpi + PAD
    for legend in figure.legends:
        legend.set_bbox_to_anchor((PAD / figure.get_figwidth(), used / height), figure.transFigure)
        used += legend.get_window_extent(renderer).height / figure.dpi + PAD
    return used


def _relative_gap(space: float, overhangs: np.ndarray) -> float:
    """The space between two panels as a share of a panel, so that the widest text between two of them fits."""
    gap, count = (overhangs.max() + PAD, len(overhangs) + 1) if len(overhangs) else (0.0, 1)
    return gap / ((space - (count - 1) * gap) / count)


def label_points(axes: Axes, labels: Sequence[PointLabel], height: float) -> None:
    """Labels in a column at the right of a panel, none over another, each with a line to its point.

    The limits of the axes must be final. `height` is that of the panel [inch], or less.
    """
    ordered = sorted(labels, key=lambda label: label.y)
    axes.autoscale_view()  # Matplotlib would find the limits only when it draws
    points = (axes.transScale + axes.transLimits).transform([(label.x, label.y) for label in ordered])
    label_y = _spread(points[:, 1], LINE_HEIGHT / height)
    for label, y in zip(ordered, label_y.tolist(), strict=True):
        axes.text(LABEL_X + 0.01, y, label.text, transform=axes.transAxes, va="center")
    ends = np.column_stack([np.full(len(ordered), LABEL_X), label_y])
    segments, colours = np.stack([points, ends], axis=1), [label.colour for label in ordered]
    axes.add_collection(
        LineCollection(list(segments), colors=colours, linewidths=0.8, transform=axes.transAxes, clip_on=False),
        autolim=False,
    )


def _spread(wanted: np.ndarray, step: float) -> np.ndarray:
    """Positions from 0 to 1, at least `step` apart, close to the wanted ones, which must be sorted."""
    steps = np.arange(len(wanted)) * step
    up = np.maximum.accumulate(wanted - steps)
    down = np.minimum.accumulate((wanted - steps)[::-1])[::-1]
    return np.clip((up + down) / 2 + steps, steps, 1 - steps[::-1])
