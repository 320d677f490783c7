"""Cost components: a bar for each scheme, cheapest first; very long bars are cut."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.summary import Summary
from partway.figures.bars import legend_handles, name_rows, stacked_bars
from partway.figures.colours import COMPONENT_COLOURS
from partway.figures.common import (
    COST_COLUMNS,
    FigureData,
    Row,
    averaged_over,
    axis_label,
    cost_note,
    display_name,
    highest_shown,
    new_figure,
    run_title,
    short_number,
    unstable_note,
)
from partway.figures.layout import bottom_legend
from partway.figures.style import display_label, panel_height
from partway.measurement.gap import COMPONENT_NAMES, COST_COMPONENTS


def draw(dataset: xr.Dataset, summaries: Sequence[Summary]) -> FigureData:
    """A bar for each scheme that has a mean cost, the reason for each that has none."""
    ordered = sorted(summaries, key=lambda one: (one.status != "ok", one.cost.mean))
    stable = [one for one in ordered if one.status == "ok"]
    costs = np.array([one.cost.mean for one in stable])
    end = highest_shown(costs)
    interval = ", ± 95 % confidence interval over seeds" * (dataset.sizes["seed"] > 1)
    subtitle = f"cost by component, {averaged_over(dataset)}{interval}" + "; ► bar cut" * bool((costs > end).any())
    notes = (cost_note(dataset), unstable_note(summaries))
    figure = new_figure(run_title(dataset), subtitle, notes, panel_height(0.3 * max(len(ordered), 3)))
    axes = figure.subplots()
    axes.set(xlim=(0, 1.25 * end), ylim=(len(ordered) - 0.4, -0.6), xlabel=axis_label(dataset, "cost"))
    names = [display_name(one) if one.status == "ok" else display_label(one.name) for one in ordered]
    name_rows(axes, names)
    components = np.array([list(one.cost_components.values()) for one in stable]).reshape(
        len(stable), len(COST_COMPONENTS)
    )
    edges = np.minimum(np.cumsum(components, axis=1), end)
    stacked_bars(axes, edges, [COMPONENT_COLOURS[name] for name in COST_COMPONENTS], height=0.7)
    for row, one in enumerate(ordered):
        _text(axes, row, one, end)
    handles = legend_handles({COMPONENT_NAMES[name]: COMPONENT_COLOURS[name] for name in COST_COMPONENTS})
    bottom_legend(figure, handles, len(COST_COMPONENTS), handlelength=1)
    return figure, [("scheme", "status", "component", *COST_COLUMNS), *(row for one in ordered for row in _rows(one))]


def _text(axes: Axes, row: int, one: Summary, end: float) -> None:
    """The mean beside the scheme's bar, or why there is no bar."""
    if one.status == "ok":
        half = (one.cost.high - one.cost.low) / 2
        interval = f" ± {half:.2g}" if half < 10 else f" ± {half:,.0f}" if half >= 10 else ""
        text = "► " * (one.cost.mean > end) + short_number(one.cost.mean) + interval
        axes.text(min(one.cost.mean, end) + 0.01 * end, row, text, va="center")
        if one.cost.mean > end:  # a break through the bar
            axes.text(0.97 * end, row, "//", va="center", ha="center", color="white", fontweight="bold", fontsize=12)
        return
    growth = f" (+{short_number(one.growth_per_block)} tasks per block)" if one.growth_per_block is not None else ""
    reason, status = (one.reason or "").partition("; ")[0], one.status.replace("_", " ")
    text = reason if reason.startswith(status) else f"{status}: {reason}"
    axes.text(0.01 * end, row, text + growth, va="center", color="0.4", style="italic")


def _rows(one: Summary) -> list[Row]:
    if one.status != "ok":
        return [(one.name, one.status, "total", np.nan, np.nan, np.nan)]
    components: list[Row] = [
        (one.name, one.status, name, cost, np.nan, np.nan) for name, cost in one.cost_components.items()
    ]
    return [*components, (one.name, one.status, "total", one.cost.mean, one.cost.low, one.cost.high)]
