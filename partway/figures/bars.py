"""Rows of a panel, one for each scheme: their names and stacked bars, in few artists that are fast to draw."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from partway.figures.style import as_text


def stacked_bars(axes: Axes, ends: np.ndarray, colours: list[str], height: float) -> PolyCollection:
    """A bar in each row from 0 on, at y = 0, 1, ...

    ends  (rows, segments) the right end of each segment, ascending along a row
    """
    starts = np.concatenate([np.zeros((len(ends), 1)), ends[:, :-1]], axis=1)
    rows = np.broadcast_to(np.arange(len(ends))[:, None], ends.shape)
    low, high = rows - height / 2, rows + height / 2
    corners = np.stack([starts, low, ends, low, ends, high, starts, high], axis=-1).reshape(-1, 4, 2)
    bars = PolyCollection(list(corners), facecolors=colours * len(ends), linewidths=0)
    axes.add_collection(bars, autolim=False)
    return bars


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names left of the rows y = 0, 1, ... Ticks would do the same at five artists each."""
    axes.set_yticks([])
    for row, name in enumerate(names):
        text = axes.text(-0.01, row, as_text(name), transform=axes.get_yaxis_transform(), color="0.2")
        text.set(ha="right", va="center_baseline")


def row_lines(axes: Axes, count: int) -> None:
    """A grid line through each row."""
    transform, grid = axes.get_yaxis_transform(), rcParams["grid.color"]
    axes.hlines(np.arange(count), 0, 1, colors=grid, linewidth=0.8, zorder=0.5, transform=transform)


def legend_handles(colours: Mapping[str, str]) -> list[Patch]:
    """What `legend` takes, from labels and their colours."""
    return [Patch(color=colour, label=label) for label, colour in colours.items()]
