"""The map of where to cut: queue by channel gain, the cut as colour, and the rate of the CPU beside it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from partway.errors import shorten
from partway.figures.style import STYLE, Drawn, Row, log_axis, save
from partway.planner.plan import QUANTILES, PlanTable, advise, quantile
from partway.planner.report import Answer

LONGEST_QUEUE = 12
FADINGS = np.geomspace(0.02, 6.0, 97)
"""x of the middles of the map's columns: 97 % of all blocks lie between the first and the last."""
WAIT = "#ffffff"
COLUMNS = ("waiting [tasks]", "gain / mean", "gain [1/W]", "taken up [tasks]", "cut", "after", "sent [share of a task]")


def write(answer: Answer, folder: Path) -> None:
    """cut-map.png, .svg and .csv."""
    with style.context(["default", STYLE]):
        save(folder, "cut-map", draw(answer))


def draw(answer: Answer) -> Drawn:
    """Both panels, and the numbers in them."""
    target = answer.target
    found = advise(target, answer.rule, np.arange(1, LONGEST_QUEUE + 1), FADINGS)
    figure = Figure(figsize=(9.5, 6.2))
    name = target.profile.name.replace("$", r"\$")
    title = f"{name}: where to cut, at a device with mean gain {float(target.own.mean_gain):.3g} / W"
    figure.suptitle(title, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _cuts(upper, found, answer)
    mesh = lower.pcolormesh(FADINGS, found.queues, found.cpu_hz / 1e9, cmap="YlOrBr", vmin=0.0, rasterized=True)
    figure.colorbar(mesh, cax=lower.inset_axes((1.02, 0.0, 0.025, 1.0)), label="GHz")
    for axes, head in (
        (upper, "cut of the last task taken up; the number: tasks taken up"),
        (lower, "rate of the CPU"),
    ):
        _dress(axes, head)
    lower.set_xlabel("channel gain as a multiple of its mean; dotted: 5, 20, 50, 80, 95 % of the blocks are worse")
    return figure, _rows(found, answer)


def _cuts(axes: Axes, found: PlanTable, answer: Answer) -> None:
    """Cuts as colours, in the order of what is sent; white where nothing is taken up."""
    kind = np.where(found.started > 0, found.cut, -1)
    offload = {int(c): float(r) for c, r in zip(kind.flat, found.offload.flat, strict=True) if c >= 0}
    order = sorted(offload, key=lambda cut: offload[cut])
    tints = [WAIT, *colormaps["viridis"](np.linspace(0.08, 0.95, len(order)))]
    place_of = {-1: 0} | {cut: i + 1 for i, cut in enumerate(order)}
    shown = np.vectorize(place_of.__getitem__)(kind)
    axes.pcolormesh(
        FADINGS, found.queues, shown, cmap=ListedColormap(tints), vmin=-0.5, vmax=len(tints) - 0.5, rasterized=True
    )
    names = [_name(answer, cut, offload[cut]) for cut in order]
    handles = [Patch(color=tint, label=name) for tint, name in zip(tints[1:], names, strict=True)]
    if (kind < 0).any():
        handles.append(Patch(facecolor=WAIT, edgecolor="0.6", label="wait"))
    axes.legend(handles=handles[::-1], loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=8, borderaxespad=0)
    _write_taken(axes, found, shown)


def _write_taken(axes: Axes, found: PlanTable, shown: np.ndarray) -> None:
    """How many tasks are taken up, once in every stretch of a row where nothing changes."""
    for i, queue in enumerate(found.queues):
        both = np.stack([found.started[i], shown[i]])
        ends = [0, *(np.flatnonzero(np.any(np.diff(both, axis=1) != 0, axis=0)) + 1), len(FADINGS)]
        for start, end in pairwise(ends):
            if end - start < 4 or not found.started[i, start]:
                continue
            tint = "0.1" if shown[i, start] > 0.6 * shown.max() else "1"
            middle = float(np.sqrt(FADINGS[start] * FADINGS[end - 1]))
            text = str(int(found.started[i, start]))
            axes.text(middle, queue, text, ha="center", va="center", fontsize=7, color=tint)


def _name(answer: Answer, cut: int, offload: float) -> str:
    if offload == 0:
        return "run it all here"
    if offload == 1:
        return "send the input"
    return f"{cut}: {shorten(answer.target.profile.cuts[cut].after, 24)} ({offload:.2f} left)".replace("$", r"\$")


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_ylabel("tasks waiting")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False)
    log_axis(axes, "x", FADINGS[0] / 1.03, FADINGS[-1] * 1.03)
    for x in quantile(QUANTILES):
        axes.axvline(x, color="0.4", linewidth=0.7, linestyle=":")


def _rows(found: PlanTable, answer: Answer) -> list[Row]:
    gain, cuts = float(answer.target.own.mean_gain), answer.target.profile.cuts
    rows: list[Row] = [(*COLUMNS, "sent [bit]", "cpu [Hz]")]
    for i, queue in enumerate(found.queues.tolist()):
        for j, x in enumerate(FADINGS.tolist()):
            cut = int(found.cut[i, j])
            last = (found.offload[i, j], found.bits[i, j], found.cpu_hz[i, j])
            rows.append((queue, x, x * gain, int(found.started[i, j]), cut, cuts[cut].after, *map(float, last)))
    return rows
