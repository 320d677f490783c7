"""Figures of a comparison, a run, a sweep and the paper: PNG, SVG, and CSV with the numbers drawn; PDF for papers.

FIGURES is the table of the figures that are drawn from a dataset of `compare` or `run`: what was run, then the name of
the file, then the function that draws it. A new figure is one module with a function of type `Draw`, which builds its
figure with `common.new_figure`, and one row here; it is then written by `write_comparison` or `write_run`. No other
file has to change. `sweep`, `theorem1`, `paper`, `proposition1`, `cut_map` and `profile` draw other data. Colours are
in `colours`, the styles "screen" and "paper" in `style`, and what all figures share in `common`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from partway.arguments import path
from partway.errors import InputError
from partway.experiments.summary import Summary, summarise
from partway.experiments.sweep.dataset import axis_names
from partway.figures import cost_components, devices, gap, over_time, sweep, tradeoff
from partway.figures.common import FigureData, write_figures
from partway.figures.style import Look, StyleName

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


def draw(
    dataset: xr.Dataset, folder: str | Path, style: StyleName = "screen", labels: Mapping[str, str] | None = None
) -> None:
    """Draw the figures of a dataset of `compare` or `sweep`, or of a `results.nc` file, into a folder.

    style   "screen": PNG, SVG and CSV; "paper": also PDF without titles, as wide as one column of a page (3.5 inch) or
            two (7.16 inch), and captions.tex
    labels  what figures show instead of the names of schemes, and of axes of a sweep by their fields; `$...$` is
            mathematics

    Raises InputError for anything else than such a dataset, an unknown style, and a label that cannot be drawn or whose
    name is not in the figures.
    """
    given: Any = dataset
    if not isinstance(given, xr.Dataset) or "scheme" not in given.dims:
        raise InputError(f"draw takes a dataset of partway.compare or sweep, got {type(given).__name__}")
    folder = path("folder", folder)
    look, names = Look(style, labels or {}), dataset["scheme"].values.tolist()
    if "axes" in dataset.attrs:
        look.check([*names, *(dataset[name].attrs["field"] for name in axis_names(dataset))])
        sweep.write(dataset, folder, look)
        return
    look.check(names)
    kind: Kind = "run" if "traced" in dataset.dims else "comparison"
    _write(kind, dataset, folder, None, look)


def write_comparison(
    dataset: xr.Dataset, folder: Path, summaries: Sequence[Summary] | None = None, look: Look | None = None
) -> None:
    """Write all figures of a comparison of any number of schemes."""
    _write("comparison", dataset, folder, summaries, look)


def write_run(
    dataset: xr.Dataset, folder: Path, summaries: Sequence[Summary] | None = None, look: Look | None = None
) -> None:
    """Write all figures of a run of one scheme."""
    _write("run", dataset, folder, summaries, look)


def _write(
    kind: Kind,
    dataset: xr.Dataset,
    folder: Path,
    summaries: Sequence[Summary] | None,
    look: Look | None,
) -> None:
    summaries = summarise(dataset, reference=None) if summaries is None else summaries
    draws = {name: partial(figure, dataset, summaries) for name, figure in FIGURES[kind].items()}
    write_figures(folder, draws, look, dataset["scheme"].values.tolist())
