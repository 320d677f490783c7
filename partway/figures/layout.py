"""Positions on a figure: margins that fit the text around the panels, and labels in a column at the right."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from partway.figures.style import as_text

PAD = 0.09
"""Space around text [inch]."""
LABEL_X = 1.04
"""Left end of the labels beside a panel, as a share of the panel's width."""


class PanelFigure(Figure):
    """A figure whose panels get the height that they are to have: `fit_margins` makes it as high as all needs.

    panels_inch  height of the panels together, without the space between them
    caption      what the figure shows, in sentences
    columns      of a page that it takes
    """

    def __init__(self, width_inch: float, panels_inch: float, caption: str, columns: int = 1):
        super().__init__(figsize=(width_inch, panels_inch + 1.0))
        self.panels_inch, self.caption, self.columns = panels_inch, caption, columns


def line_height() -> float:
    """Height of a line of text [inch]."""
    return 1.28 * rcParams["font.size"] / 72


class PointLabel(NamedTuple):
    """A label and the point it names, in data coordinates."""

    text: str
    x: float
    y: float
    colour: str


def fit_margins(figure: PanelFigure) -> None:
    """Give the figure the height that its panels, title, labels, legend and notes need, and put each in its place.

    Text of the figure with va = "top" is its titles, with va = "bottom" its notes; its legends stand above the notes.
    One pass over the text. Matplotlib's constrained layout takes two slower ones, and overlaps notes and legend.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    left, right, top, bottom = _overhangs(panels, renderer)
    labels = [_label_offsets(axes) for axes in panels]
    header = [text for text in figure.texts if text.get_verticalalignment() == "top"]
    footer: list[Artist] = [text for text in figure.texts if text.get_verticalalignment() == "bottom"]
    footer += figure.legends
    above, below = (PAD + sum(_height(each, renderer) + PAD for each in stack) for stack in (header, footer))
    gaps = _gap(bottom[:-1] + top[1:])
    inside = figure.panels_inch + gaps * (len(top) - 1)
    width, height = figure.get_figwidth(), below + bottom[-1] + inside + top[0] + above
    figure.set_size_inches(width, height)
    _stack(footer, height, renderer)
    _stack(header[::-1], height, renderer, height - above + PAD)
    x0, x1, y0 = PAD + left[0], width - PAD - right[-1], below + bottom[-1]
    figure.subplots_adjust(
        left=x0 / width,
        right=x1 / width,
        bottom=y0 / height,
        top=(y0 + inside) / height,
        wspace=_relative(x1 - x0, _gap(right[:-1] + left[1:]), len(left)),
        hspace=_relative(inside, gaps, len(top)),
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


def _height(artist: Artist, renderer: RendererBase) -> float:
    figure = artist.get_figure(root=True)
    assert figure is not None
    return artist.get_window_extent(renderer).height / figure.dpi


def _stack(artists: Sequence[Artist], height: float, renderer: RendererBase, used: float = PAD) -> None:
    """Put texts and legends one above the other, from `used` inches above the lower edge on."""
    for artist in artists:
        top = used + _height(artist, renderer)
        if isinstance(artist, Legend):
            figure = artist.get_figure(root=True)
            assert figure is not None
            artist.set_bbox_to_anchor((PAD / figure.get_figwidth(), used / height), figure.transFigure)
        elif isinstance(artist, Text):
            artist.set_y((top if artist.get_verticalalignment() == "top" else used) / height)
        used = top + PAD


def bottom_legend(figure: Figure, handles: Sequence[Any], columns: int, **how: Any) -> None:
    """A legend below the panels, in so many columns or as many as fit."""
    renderer, free = FigureCanvasAgg(figure).get_renderer(), figure.get_figwidth() - 2 * PAD
    for most in range(columns, 0, -1):
        rows = -(-len(handles) // most)
        count = -(-len(handles) // max(rows, 1)) or 1  # the fewest columns of so many rows: as full as can be
        legend = figure.legend(handles=list(handles), loc="lower left", ncols=count, borderaxespad=0, **how)
        if most == 1 or legend.get_window_extent(renderer).width / figure.dpi <= free:
            return
        legend.remove()


def _gap(overhangs: np.ndarray) -> float:
    """The space between panels, so that the widest text between two of them fits [inch]."""
    return float(overhangs.max() + PAD) if len(overhangs) else 0.0


def _relative(space: float, gap: float, count: int) -> float:
    """The space between two of so many panels as a share of one of them."""
    return gap / ((space - (count - 1) * gap) / count)


def label_points(axes: Axes, labels: Sequence[PointLabel], height: float) -> None:
    """Labels in a column at the right of a panel, none over another, each with a line to its point.

    The limits of the axes must be final. `height` is that of the panel [inch], or less.
    """
    ordered = sorted(labels, key=lambda label: label.y)
    axes.autoscale_view()  # Matplotlib would find the limits only when it draws
    points = (axes.transScale + axes.transLimits).transform([(label.x, label.y) for label in ordered])
    label_y = _spread(points[:, 1], line_height() / height)
    for label, y in zip(ordered, label_y.tolist(), strict=True):
        axes.text(LABEL_X + 0.01, y, as_text(label.text), transform=axes.transAxes, va="center")
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
