"""Figures of a comparison, a run, a sweep and the paper: PNG, SVG, and CSV with the numbers drawn.

FIGURES is the table of the figures that are drawn from a dataset of `compare` or `run`: what was run, then the name of
the file, then the function that draws it. A new figure is one module with a function of type `Draw`, which builds its
figure with `style.new_figure`, and one row here; it is then written by `write_comparison` or `write_run`. No other
file has to change. `sweep`, `theorem1`, `paper`, `proposition1`, `cut_map` and `profile` draw other data.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import xarray as xr

from partway.experiments.summary import Summary, summarise
from partway.figures import cost_components, devices, gap, over_time, tradeoff
from partway.figures.style import FigureData, figure_style, save

Kind = Literal["comparison", "run"]
Draw = Callable[[xr.Dataset, Sequence[Summary]], FigureData | None]
"""From a dataset and the summaries of its schemes to a figure, or to None if the dataset has nothing for it."""

FIGURES: Mapping[Kind, Mapping[str, Draw]] = {
    "comparison": {
        "gap": gap.draw,
        "cost-over-time": over_time.draw_schemes,
        "cost-components": cost_components.draw,
        "tradeoff": tradeoff.draw,
    },
    "run": {
        "cost-over-time": over_time.draw_components,
        "devices": devices.draw,
    },
}


def figure_names(kind: Kind) -> tuple[str, ...]:
    """The names that `write_figure` takes; `devices` is written only if devices were traced."""
    return tuple(FIGURES[kind])


def write_figure(
    name: str,
    dataset: xr.Dataset,
    folder: Path,
    kind: Kind = "comparison",
    summaries: Sequence[Summary] | None = None,
) -> None:
    """Write NAME.png, NAME.svg and NAME.csv.

    Figures do not depend on each other, so several processes can draw them side by side; threads cannot, because
    Matplotlib's settings are global. `summaries` saves the time to compute them. Raises KeyError for an unknown name.
    """
    draw = FIGURES[kind][name]
    summaries = summarise(dataset, reference=None) if summaries is None else summaries
    with figure_style():
        figure = draw(dataset, summaries)
        if figure:
            save(folder, name, figure)


def write_comparison(dataset: xr.Dataset, folder: Path, summaries: Sequence[Summary] | None = None) -> None:
    """Write all figures of a comparison of any number of schemes."""
    _write_all("comparison", dataset, folder, summaries)


def write_run(dataset: xr.Dataset, folder: Path, summaries: Sequence[Summary] | None = None) -> None:
    """Write all figures of a run of one scheme."""
    _write_all("run", dataset, folder, summaries)


def _write_all(kind: Kind, dataset: xr.Dataset, folder: Path, summaries: Sequence[Summary] | None) -> None:
    summaries = summarise(dataset, reference=None) if summaries is None else summaries
    for name in figure_names(kind):
        write_figure(name, dataset, folder, kind, summaries)
