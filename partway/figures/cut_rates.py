"""Latency and energy of one task at every useful cut against the rate of the link, with the crossovers marked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from partway.errors import shorten
from partway.figures.layout import PointLabel, label_points
from partway.figures.style import FigureData, Row, as_text, figure_style, log_axis, new_figure, save, short_number
from partway.planner.answer import OneTask
from partway.planner.one_task import at_rate, costs
from partway.planner.one_task_report import name_of
from partway.units import quantity

POINTS = 121
MARGIN = 8.0
"""How far the axis reaches beyond the rates that matter, as a factor."""
MBIT = 1e6
LOCAL, REMOTE = "#5a5a5a", "#1f6fc4"
PANEL = 2.3
"""Height of a panel [inch]."""
COLUMNS = ("rate [bit/s]", "cut", "after", "latency [s]", "energy of the device [J]")
Crossovers = Sequence[tuple[float, int]]


def write(answer: OneTask, folder: Path) -> None:
    """Write cut-rates.png, .svg and .csv."""
    with figure_style():
        save(folder, "cut-rates", draw(answer))


def draw(answer: OneTask) -> FigureData:
    """Two panels over the rate: the latency and the energy of the device; and the numbers in them."""
    rates, cuts = _rates(answer), _cuts(answer)
    each = [costs(at_rate(answer.question, rate)) for rate in rates.tolist()]
    latency_s, device_j = (np.array([getattr(one, name)[cuts] for one in each]) for name in ("latency_s", "device_j"))
    link = answer.question.link
    subtitle = f"one task, nothing else running, round trip {quantity(link.rtt_s, 's')}; at {_rate(link.bit_per_s)} now"
    title = f"{answer.profile.name}: latency and energy by the rate of the link"
    figure = new_figure(title, subtitle, (_note(answer),), 2 * PANEL)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _panel(upper, answer, cuts, rates, 1e3 * latency_s, answer.fastest_by_rate)
    _panel(lower, answer, cuts, rates, 1e3 * device_j, answer.thriftiest_by_rate)
    upper.set_ylabel("latency [ms]")
    lower.set_ylabel("energy of the device [mJ]")
    lower.set_xlabel("rate of the link [Mbit/s]")
    if (deadline_s := answer.question.deadline_s) is not None:
        upper.axhline(1e3 * deadline_s, color="#bd1f01", linewidth=1.0, linestyle="--")
        where = {"transform": upper.get_yaxis_transform(), "ha": "left", "va": "bottom", "fontsize": 8}
        upper.text(0.005, 1e3 * deadline_s, "deadline", color="#bd1f01", **where)
    rows = list[Row]([COLUMNS])
    for i, rate in enumerate(rates.tolist()):
        for j, cut in enumerate(cuts.tolist()):
            after = answer.profile.cuts[cut].after
            rows.append((rate, cut, after, float(latency_s[i, j]), float(device_j[i, j])))
    return figure, rows


def _cuts(answer: OneTask) -> np.ndarray:
    """The cuts of the first answer and those that are best at some rate, in the order of the network."""
    best = [cut for _, cut in (*answer.fastest_by_rate, *answer.thriftiest_by_rate)]
    return np.unique([*(row.cut for row in answer.cuts), *best])


def _rates(answer: OneTask) -> np.ndarray:
    """(POINTS,) rates [bit/s] around that of the link and all crossovers."""
    marked = [answer.question.link.bit_per_s]
    marked += [rate for rate, _ in (*answer.fastest_by_rate[1:], *answer.thriftiest_by_rate[1:])]
    return np.geomspace(min(marked) / MARGIN, max(marked) * MARGIN, POINTS)


def _panel(
    axes: Axes, answer: OneTask, cuts: np.ndarray, rates: np.ndarray, values: np.ndarray, best: Crossovers
) -> None:
    """A line for every cut, the best one thick, and a dot with the rate at every crossover."""
    colours = dict(zip(cuts.tolist(), colormaps["viridis"](np.linspace(0.15, 0.9, len(cuts))), strict=True))
    colours |= {0: REMOTE, len(answer.profile.cuts) - 1: LOCAL}
    mbit = rates / MBIT
    for j, cut in enumerate(cuts.tolist()):
        axes.plot(mbit, values[:, j], color=colours[cut], linewidth=1.0)
    ends = [rate for rate, _ in best[1:]] + [np.inf]
    for (start, cut), end in zip(best, ends, strict=True):
        inside = np.unique(np.clip(np.append(rates, (start, end)), max(start, rates[0]), min(end, rates[-1])))
        line = np.exp(np.interp(np.log(inside), np.log(rates), np.log(values[:, cuts.tolist().index(cut)])))
        axes.plot(inside / MBIT, line, color=colours[cut], linewidth=2.8, solid_capstyle="butt")
        if start:
            axes.plot(start / MBIT, line[0], "o", color="0.1", markersize=4.5, zorder=4)
            axes.annotate(
                f"{_rate(start)} ",
                (start / MBIT, line[0]),
                (-3, -11),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
    axes.axvline(answer.question.link.bit_per_s / MBIT, color="0.3", linewidth=0.9, linestyle=":")
    log_axis(axes, "x", float(mbit[0]), float(mbit[-1]))
    axes.xaxis.set_major_formatter(short_number)
    positive = values[values > 0]
    log_axis(axes, "y", float(positive.min()) / 1.8, float(positive.max()) * 1.3)
    axes.yaxis.set_major_formatter(short_number)
    last = float(mbit[-1])
    label_points(
        axes,
        [
            PointLabel(_label(answer, cut), last, float(values[-1, j]), to_hex(colours[cut]))
            for j, cut in enumerate(cuts.tolist())
        ],
        PANEL,
    )


def _label(answer: OneTask, cut: int) -> str:
    name = name_of(answer, answer.row(cut))
    return as_text(f"{name}, {shorten(answer.profile.cuts[cut].after, 18)}" if name.startswith("cut") else name)


def _note(answer: OneTask) -> str:
    marked = "Thick: the fastest cut, and the one with the least energy. Dots: the rates at which they change."
    return f"{marked} Dotted: the rate of the link now. The CPU runs at full speed."


def _rate(bit_per_s: float) -> str:
    """A rate in Mbit/s, in which the axis is."""
    return f"{short_number(bit_per_s / MBIT)} Mbit/s"
