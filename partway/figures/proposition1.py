"""Proposition 1: both sides of (37) and (38) along the run, and against the discount."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from partway.figures.colours import scheme_colour, scheme_marker
from partway.figures.common import FigureData, Row, block_axis, new_figure
from partway.figures.intervals import mean_and_interval
from partway.figures.layout import bottom_legend
from partway.figures.style import as_text, display_label, panel_height
from partway.paper.claims import READINGS
from partway.paper.proposition1 import DISCOUNTS, PARTIES, WINDOW, Sides, divisor, schemes, sides, smallest

WIDTH, PANEL_HEIGHT = 10.0, 2.9
COLOURS = ("#fdc38d", "#f08a00", "#bd1f01", "#5c0d3f")
"""Of DISCOUNTS, darker towards 1."""
COLUMNS = ("reading", "scheme", "side of", "gamma", "blocks from", "left", "95 % low", "95 % high", "median")
MORE = ("left by parameters alone", "left with the printed gradient", "right", "right 95 % low", "right 95 % high")
NOTES = (
    f"Left side: squared norm of the gradient of the squared TD error, mean over replicates in {WINDOW} blocks; bands: "
    "95 % confidence intervals. Dashed: right side.",
    "On the right: the least of the last half of the run against the divisor of the right side. Dotted: the part of "
    "the left side by theta or eta alone, whose ratio to the right side depends on no unit of cost, power or rate.",
)


def draw(runs: Mapping[Any, Mapping[str, np.ndarray]]) -> FigureData:
    """A row for each party; a panel for each scheme along the run, and one against the discount.

    The rows of data are those of both readings of (1), the picture that of the first.
    """
    own = {(job.reading, job.scheme): sides(arrays) for job, arrays in runs.items() if job.figure == "P1"}
    count = len(next(iter(own.values()))[0].error)
    subtitle = f"K = 4 devices, queue that conserves work, {count} replicates"
    title, height = "Proposition 1: both sides of (37) and (38)", panel_height(2 * PANEL_HEIGHT, 2)
    figure = new_figure(title, subtitle, NOTES, height, WIDTH, columns=2)
    panels = figure.subplots(len(PARTIES), 1 + len(schemes()), squeeze=False)
    for row, (party, number) in zip(panels, PARTIES.items(), strict=True):
        for axes, scheme in zip(row, schemes(), strict=False):
            measured = [one for one in own[READINGS[0], scheme] if one.party == party]
            _along_the_run(axes, measured)
            axes.set(title=as_text(f"{number}, {party}: {display_label(scheme)}"), ylabel="squared norm")
            _against_the_discount(row[-1], scheme, measured)
        row[-1].set(xscale="linear", yscale="log", title=f"{number}, {party}", xlabel="E_1(ln 1/gamma)")
    handles = [handle for axes in (panels[0, 0], panels[0, -1]) for handle in axes.get_legend_handles_labels()[0]]
    bottom_legend(figure, handles, 4)
    return figure, [(*COLUMNS, *MORE), *(row for key, measured in own.items() for row in _rows(key, measured))]


def _along_the_run(axes: Axes, measured: Sequence[Sides]) -> None:
    for one, colour in zip(measured, COLOURS, strict=True):
        mean, low, high = mean_and_interval(one.left)
        x = (np.arange(len(mean)) + 0.5) * WINDOW
        axes.plot(x, mean, color=colour, linewidth=1.3, label=f"gamma = {one.discount:g}")
        axes.fill_between(x, np.maximum(low, 1e-3 * mean), high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(float(np.mean(one.right)), color=colour, linewidth=1.0, linestyle="--")
    axes.set(yscale="log")
    block_axis(axes)


def _against_the_discount(axes: Axes, scheme: str, measured: Sequence[Sides]) -> None:
    x, colour, name = [divisor(one.discount) for one in measured], scheme_colour(scheme), as_text(display_label(scheme))
    mean, low, high = np.stack([mean_and_interval(smallest(one.left)) for one in measured], axis=-1)
    bars = np.stack([np.minimum(mean - low, 0.9 * mean), high - mean])
    axes.errorbar(x, mean, bars, color=colour, marker=scheme_marker(scheme), markersize=3.5, label=f"{name}: left")
    alone = [np.mean(smallest(one.parameters)) for one in measured]
    axes.plot(x, alone, ":", color=colour, label=f"{name}: left, parameters alone")
    axes.plot(x, [np.mean(one.right) for one in measured], "--", color=colour, label=f"{name}: right")
    axes.set_xticks(x, [f"{value:.2f}\n{gamma:g}" for value, gamma in zip(x, DISCOUNTS, strict=True)])


def _rows(key: tuple[str, str], measured: Sequence[Sides]) -> list[Row]:
    return [
        (*key, PARTIES[one.party], one.discount, WINDOW * i, *(float(f"{value:.6g}") for value in values))
        for one in measured
        for i, values in enumerate(_numbers(one))
    ]


def _numbers(one: Sides) -> np.ndarray:
    """(windows, numbers) of the columns after the first five."""
    left, right = mean_and_interval(one.left), mean_and_interval(one.right)
    windows = one.left.shape[1]
    curves = (*left, np.median(one.left, axis=0), one.parameters.mean(axis=0), one.printed.mean(axis=0))
    return np.stack([*curves, *(np.full(windows, value) for value in right)], axis=-1)
