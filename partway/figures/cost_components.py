"""Parts of the cost: a bar for each scheme, cheapest first, cut where it would dwarf the others."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from partway.experiments.summary import COST_COMPONENTS, Summary
from partway.figures.style import (
    COMPONENT_COLOURS,
    COMPONENT_NAMES,
    COST_COLUMNS,
    Drawn,
    Row,
    after_warmup,
    highest_shown,
    marked,
    new_figure,
    short_name,
    short_number,
    shown_name,
)


def draw(dataset: xr.Dataset, summaries: Sequence[Summary]) -> Drawn:
    """A bar for each scheme that has a mean, words for the others."""
    ordered = sorted(summaries, key=lambda one: (one.status != "ok", one.cost.mean))
    costs = np.array([one.cost.mean for one in ordered if one.status == "ok"])
    figure = new_figure(dataset, 1.5 + 0.3 * len(ordered))
    axes, end = figure.subplots(), highest_shown(costs)
    interval = " with their 95 % intervals over seeds" * (dataset.sizes["seed"] > 1)
    axes.set_title(marked(after_warmup(dataset) + interval + "; ► bar cut" * bool((costs > end).any()), ordered))
    axes.set(xlim=(0, 1.25 * end), ylim=(len(ordered) - 0.4, -0.6), xlabel="cost per block")
    axes.set_yticks(
        range(len(ordered)), [shown_name(one) if one.status == "ok" else short_name(one.name) for one in ordered]
    )
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    rows = [row for place, one in enumerate(ordered) for row in _bar(axes, place, one, end)]
    handles = [Patch(color=COMPONENT_COLOURS[part], label=COMPONENT_NAMES[part]) for part in COST_COMPONENTS]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(COST_COMPONENTS))
    return figure, [("scheme", "status", "part", *COST_COLUMNS), *rows]


def _bar(axes: Axes, place: int, one: Summary, end: float) -> list[Row]:
    """One scheme's bar up to `end`, its sum beside it; returns its numbers."""
    if one.status != "ok":
        growth = f" (+{short_number(one.growth)} tasks per block)" if one.growth is not None else ""
        reason, status = one.reason or "", one.status.replace("_", " ")
        words = reason if reason.startswith(status) else f"{status}: {reason}"
        axes.text(0.01 * end, place, words + growth, va="center", color="0.4", style="italic")
        return [(one.name, one.status, "sum", np.nan, np.nan, np.nan)]
    edges = np.minimum(np.cumsum([0.0, *one.parts.values()]), end)
    axes.barh(
        [place] * len(COST_COMPONENTS),
        np.diff(edges),
        left=edges[:-1],
        height=0.7,
        color=list(COMPONENT_COLOURS.values()),
    )
    half = (one.cost.high - one.cost.low) / 2
    text = short_number(one.cost.mean) + (f" ± {half:.2g}" if half < 10 else f" ± {half:,.0f}" if half >= 10 else "")
    axes.text(edges[-1] + 0.01 * end, place, "► " * (one.cost.mean > end) + text, va="center")
    parts = [(one.name, one.status, part, cost, np.nan, np.nan) for part, cost in one.parts.items()]
    return [*parts, (one.name, one.status, "sum", one.cost.mean, one.cost.low, one.cost.high)]
