"""The plan of `partway cut` as two maps over queue length and channel gain: the cut, and the CPU rate."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from partway.errors import shorten
from partway.figures.colours import text_colour
from partway.figures.common import FigureData, Row, log_axis, new_figure
from partway.figures.style import as_text, panel_height
from partway.planner.context import DeviceContext
from partway.planner.plan import FADING_QUANTILES, PlanTable, plan_table
from partway.planner.under_load_report import CutResult

MAX_QUEUE = 12
FADING = np.geomspace(0.02, 6.0, 97)
"""x at the centres of the columns; in 97 % of the blocks it is between the first and the last."""
MIN_COLUMNS = 4
"""Columns below which an area is too narrow for its number of tasks."""
SUBTITLE = (
    "above: colour, the cut of the last task that is started, and number of tasks that are started; below: CPU rate"
)
WAIT_COLOUR = "#ffffff"
OUTLINE = withStroke(linewidth=2.0, foreground="white", alpha=0.6)
COLUMNS = (
    *("queue [tasks]", "gain / mean", "gain [1/W]", "started [tasks]", "cut", "after"),
    *("offloaded [fraction of a task]", "sent [bit]", "CPU rate [Hz]"),
)


def draw(result: CutResult) -> FigureData:
    """Both panels, and the numbers in them."""
    target = result.target
    plan = plan_table(target, result.rule, np.arange(1, MAX_QUEUE + 1), FADING)
    gain = float(target.device.mean_gain)
    title = f"{target.profile.name}: plan of device {target.index}, mean channel gain {gain:.3g} / W"
    figure = new_figure(title, SUBTITLE, (), panel_height(4.2, 2), 9.5, columns=2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw_cuts(upper, plan, target)
    mesh = lower.pcolormesh(FADING, plan.queues, plan.cpu_hz / 1e9, cmap="YlOrBr", vmin=0.0, rasterized=True)
    figure.colorbar(mesh, cax=lower.inset_axes((1.02, 0.0, 0.025, 1.0)), label="CPU rate [GHz]")
    _dress(upper)
    _dress(lower)
    lower.set_xlabel("channel gain / mean (percentages: share of the blocks with a lower gain)")
    _mark_quantiles(target, upper, lower)
    return figure, _rows(plan, target)


def _draw_cuts(axes: Axes, plan: PlanTable, target: DeviceContext) -> None:
    """Cuts as colours in the order of the offloaded share, white where no task is started."""
    cuts = np.where(plan.started > 0, plan.cut, -1)
    offload = {int(cut): float(share) for cut, share in zip(cuts.flat, plan.offload.flat, strict=True) if cut >= 0}
    order = sorted(offload, key=lambda cut: offload[cut])
    colours = [WAIT_COLOUR, *colormaps["viridis"](np.linspace(0.08, 0.95, len(order)))]
    colour_of = {-1: 0} | {cut: i for i, cut in enumerate(order, 1)}
    indices, limits = np.vectorize(colour_of.__getitem__)(cuts), (-0.5, len(colours) - 0.5)
    axes.pcolormesh(FADING, plan.queues, indices, cmap=ListedColormap(colours), clim=limits, rasterized=True)
    names = [_cut_name(target, cut, offload[cut]) for cut in order]
    handles = [Patch(color=colour, label=name) for colour, name in zip(colours[1:], names, strict=True)]
    if (cuts < 0).any():
        handles.append(Patch(facecolor=WAIT_COLOUR, edgecolor="0.6", label="wait"))
    axes.legend(handles=handles[::-1], loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=8, borderaxespad=0)
    _write_started(axes, plan, indices, [text_colour(colour) for colour in colours])


def _write_started(axes: Axes, plan: PlanTable, indices: np.ndarray, colours: Sequence[str]) -> None:
    """The number of tasks started, once in every wide enough stretch of a row in which nothing changes."""
    for i, queue in enumerate(plan.queues):
        changes = np.any(np.diff(np.stack([plan.started[i], indices[i]]), axis=1) != 0, axis=0)
        for start, end in pairwise([0, *(np.flatnonzero(changes) + 1), len(FADING)]):
            if end - start < MIN_COLUMNS or not plan.started[i, start]:
                continue
            style: dict[str, Any] = {"fontsize": 7, "color": colours[indices[i, start]], "zorder": 3}
            centre = float(np.sqrt(FADING[start] * FADING[end - 1]))
            axes.text(centre, queue, f"{plan.started[i, start]:.0f}", ha="center", va="center", **style)


def _cut_name(target: DeviceContext, cut: int, offload: float) -> str:
    if offload == 0:
        return "all local"
    if cut == 0:
        return "send the input"
    name = shorten(target.profile.cuts[cut].after, 24)
    return as_text(f"cut {cut} after {name},\n{100 * offload:.0f} % offloaded")


def _dress(axes: Axes) -> None:
    axes.set_ylabel("tasks waiting")
    axes.set_yticks([1, *range(2, MAX_QUEUE + 1, 2)])
    axes.grid(False)
    log_axis(axes, "x", FADING[0] / 1.03, FADING[-1] * 1.03)


def _mark_quantiles(target: DeviceContext, *panels: Axes) -> None:
    """A dotted line at every quantile of the fading, with its percentage above the panel."""
    for axes in panels:
        for quantile, x in zip(FADING_QUANTILES, target.fading_quantile(FADING_QUANTILES), strict=True):
            axes.axvline(x, color="0.1", linewidth=0.9, linestyle=":", path_effects=[OUTLINE])
            at_top = axes.get_xaxis_transform()
            axes.text(x, 1.02, f"{100 * quantile:.0f} %", transform=at_top, ha="center", fontsize=8, color="0.2")


def _rows(plan: PlanTable, target: DeviceContext) -> list[Row]:
    """The numbers of the figure, one row per queue length and channel gain."""
    mean_gain, rows = float(target.device.mean_gain), list[Row]([COLUMNS])
    for i, queue in enumerate(plan.queues.tolist()):
        for j, x in enumerate(FADING.tolist()):
            started, cut = int(plan.started[i, j]), int(plan.cut[i, j])
            numbers = map(float, (plan.offload[i, j], plan.bits[i, j], plan.cpu_hz[i, j]))
            rows.append((queue, x, x * mean_gain, started, cut, target.profile.cuts[cut].after, *numbers))
    return rows
