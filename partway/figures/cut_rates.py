"""Latency and energy of one task at every useful cut against the rate of the link, with the crossovers marked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patheffects import withStroke

from partway.errors import shorten
from partway.figures.common import FigureData, Row, log_axis, new_figure, short_number, show_message
from partway.figures.layout import PointLabel, label_points
from partway.figures.style import panel_height
from partway.planner.answer import OneTask
from partway.planner.one_task import at_rate, costs
from partway.planner.one_task_report import name_of
from partway.units import quantity

POINTS = 121
MARGIN = 8.0
"""How far the axis reaches beyond the rates that matter, as a factor."""
MBIT = 1e6
LOCAL, REMOTE, DEADLINE = "#5a5a5a", "#1f6fc4", "#bd1f01"
OUTLINE = withStroke(linewidth=2.5, foreground="white")
ROOM = 4.0
"""How far the vertical axis reaches below the least value, as a factor: for the labels of crossovers."""
LABEL_SHARE = 0.13
"""Width of the label of a crossover, as a share of the panel."""
PANEL = 2.3
"""Height of a panel [inch]."""
COLUMNS = ("rate [bit/s]", "cut", "after", "latency [s]", "energy of the device [J]")
Crossovers = Sequence[tuple[float, int]]


def draw(answer: OneTask) -> FigureData:
    """Two panels over the rate: the latency and the energy of the device; and the numbers in them."""
    rates, cuts = _rates(answer), _cuts(answer)
    each = [costs(at_rate(answer.question, rate)) for rate in rates.tolist()]
    latency_s, device_j = (np.array([getattr(one, name)[cuts] for one in each]) for name in ("latency_s", "device_j"))
    link = answer.question.link
    subtitle = f"one task, nothing else running, round trip {quantity(link.rtt_s, 's')}; at {_rate(link.bit_per_s)} now"
    title = f"{answer.profile.name}: latency and energy by the rate of the link"
    figure = new_figure(title, subtitle, (_note(answer),), panel_height(2 * PANEL, 2), columns=2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _panel(upper, answer, cuts, rates, 1e3 * latency_s, answer.fastest_by_rate)
    _panel(lower, answer, cuts, rates, 1e3 * device_j, answer.thriftiest_by_rate)
    upper.set_ylabel("latency [ms]")
    lower.set_ylabel("energy of the device [mJ]")
    lower.set_xlabel("rate of the link [Mbit/s]")
    if (deadline_s := answer.question.deadline_s) is not None:
        _draw_deadline(upper, deadline_s)
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


def _draw_deadline(axes: Axes, deadline_s: float) -> None:
    """A dashed line with its name at the right."""
    axes.axhline(1e3 * deadline_s, color=DEADLINE, linewidth=1.0, linestyle="--")
    style: dict[str, Any] = {"fontsize": 8, "color": DEADLINE, "ha": "right", "va": "bottom", "path_effects": [OUTLINE]}
    words = f"deadline {quantity(deadline_s, 's')}"
    where = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(words, (0.995, 1e3 * deadline_s), (0, 2), **where, **style)


def _panel(
    axes: Axes, answer: OneTask, cuts: np.ndarray, rates: np.ndarray, values: np.ndarray, best: Crossovers
) -> None:
    """A line for every cut, the best one thick, and a dot with the rate at every crossover."""
    colours, mbit = _colours(answer, cuts), rates / MBIT
    positive = values[values > 0]
    if not len(positive):
        show_message(axes, "every cut costs nothing")
        return
    values = np.maximum(values, positive.min() / ROOM)  # what costs nothing is at the lower edge
    for j, cut in enumerate(cuts.tolist()):
        axes.plot(mbit, values[:, j], color=colours[cut], linewidth=1.0)
    dots = list[tuple[float, float]]()
    ends = [*(rate for rate, _ in best[1:]), np.inf]
    for (start, cut), end in zip(best, ends, strict=True):
        inside = np.unique(np.clip(np.append(rates, (start, end)), max(start, rates[0]), min(end, rates[-1])))
        line = np.exp(np.interp(np.log(inside), np.log(rates), np.log(values[:, cuts.tolist().index(cut)])))
        axes.plot(inside / MBIT, line, color=colours[cut], linewidth=2.8, solid_capstyle="butt")
        dots += [(start / MBIT, float(line[0]))] * (start > 0)
    axes.axvline(answer.question.link.bit_per_s / MBIT, color="0.3", linewidth=0.9, linestyle=":", zorder=6)
    log_axis(axes, "x", float(mbit[0]), float(mbit[-1]))
    log_axis(axes, "y", float(positive.min()) / ROOM, float(positive.max()) * 1.3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(short_number)
    _mark(axes, dots, float(mbit[-1] / mbit[0]))
    names = [_label(answer, cut) for cut in cuts.tolist()]
    last, hues = values[-1].tolist(), [colours[cut] for cut in cuts.tolist()]
    points = [PointLabel(name, float(mbit[-1]), y, hue) for name, y, hue in zip(names, last, hues, strict=True)]
    label_points(axes, points, panel_height(PANEL, 2))


def _mark(axes: Axes, dots: Sequence[tuple[float, float]], span: float) -> None:
    """Dots at crossovers (rate [Mbit/s], value) with their rates, one lower than the last where they are close."""
    level, before = 0, 0.0
    for rate, value in dots:
        level = level + 1 if before and rate < before * span**LABEL_SHARE else 0
        axes.plot(rate, value, "o", color="0.1", markersize=4.5, zorder=4)
        style: dict[str, Any] = {"fontsize": 8, "ha": "right", "path_effects": [OUTLINE], "zorder": 5}
        where = (-3, -11 - 10 * level)
        leader: dict[str, Any] = (
            {"arrowprops": {"arrowstyle": "-", "color": "0.1", "linewidth": 0.6, "shrinkB": 0}} if level else {}
        )
        axes.annotate(_rate(rate * MBIT), (rate, value), where, textcoords="offset points", **style, **leader)
        before = rate


def _colours(answer: OneTask, cuts: np.ndarray) -> dict[int, str]:
    """The colour of each cut, from dark to light in the order of the network; the extremes have their own."""
    shades = colormaps["viridis"](np.linspace(0.15, 0.9, len(cuts)))
    by_cut = {cut: to_hex(shade) for cut, shade in zip(cuts.tolist(), shades, strict=True)}
    return by_cut | {0: REMOTE, len(answer.profile.cuts) - 1: LOCAL}


def _label(answer: OneTask, cut: int) -> str:
    name = name_of(answer, answer.row(cut))
    return f"{name}, {shorten(answer.profile.cuts[cut].after, 18)}" if name.startswith("cut") else name


def _note(answer: OneTask) -> str:
    marked = "Thick: the fastest cut, and the one with the least energy. Dots: the rates at which they change."
    return f"{marked} Dotted: the rate of the link now. The CPU runs at full speed."


def _rate(bit_per_s: float) -> str:
    """A rate in Mbit/s, in which the axis is."""
    return f"{short_number(bit_per_s / MBIT)} Mbit/s"
