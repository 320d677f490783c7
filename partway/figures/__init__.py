"""Figures of a comparison and of a run: a new one is a new file here and a row in COMPARISON or RUN."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import xarray as xr
from matplotlib import style

from partway.experiments.summary import Summary, summarise
from partway.figures import cost_components as cost_parts
from partway.figures import devices, gap, over_time, tradeoff
from partway.figures.style import STYLE, Drawn, save

Draw = Callable[[xr.Dataset, Sequence[Summary]], Drawn | None]
"""From a dataset and its schemes' summaries to a figure, or to None if the dataset has nothing for it."""

COMPARISON: Mapping[str, Draw] = {
    "gap": gap.draw,
    "cost-over-time": over_time.draw_schemes,
    "cost-parts": cost_parts.draw,
    "tradeoff": tradeoff.draw,
}
"""The figures of any number of schemes, by the names of their files."""
RUN: Mapping[str, Draw] = {
    "cost-over-time": over_time.draw_parts,
    "devices": devices.draw,
}
"""The figures of a dataset's only scheme."""


def write_comparison(dataset: xr.Dataset, folder: Path) -> None:
    """Write all figures of COMPARISON."""
    _write(COMPARISON, dataset, folder)


def write_run(dataset: xr.Dataset, folder: Path) -> None:
    """Write the figures of RUN; `devices` only if any were traced."""
    _write(RUN, dataset, folder)


def _write(figures: Mapping[str, Draw], dataset: xr.Dataset, folder: Path) -> None:
    summaries = summarise(dataset, reference=None)
    with style.context(["default", STYLE]):
        for name, draw in figures.items():
            drawn = draw(dataset, summaries)
            if drawn:
                save(folder, name, drawn)
