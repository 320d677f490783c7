"""A sweep: cost, gap, latency, energy and throughput along the first axis, a panel for each other value or class."""

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from partway.experiments import by_device
from partway.experiments.sweep.dataset import axis_names
from partway.figures.colours import scheme_colour, scheme_dashes, scheme_marker
from partway.figures.common import (
    COMPONENT_DIMENSION,
    COST_NOTE,
    FigureData,
    axis_label,
    log_axis,
    mark_linear_part,
    new_figure,
    short_number,
    spans_decade,
    write_figures,
)
from partway.figures.gap import BELOW_BOUND, LINEAR_UP_TO
from partway.figures.intervals import mean_and_interval
from partway.figures.layout import bottom_legend
from partway.figures.style import Look, as_text, display_label, panel_height, user_label

MAX_PANELS = 12
MAX_COLUMNS = 3
PANEL_HEIGHT = 2.3
"""Height of a row of panels [inch]."""
MAX_TICKS = 8
"""On a logarithmic axis with so many points or fewer, the ticks are at the points."""


class _Measure(NamedTuple):
    """What is drawn: a variable, and which labels of its own dimension (None: their sum), in the unit times `factor`.

    label     of the axis and of the column in the CSV file; "" for the words and the unit of the dataset
    title     what the figure shows
    """

    variable: str
    dimension: str
    only: str | None
    title: str
    notes: tuple[str, ...]
    factor: float = 1.0
    label: str = ""
    symlog: bool = False


BAND = "after warm-up, mean over seeds with its 95 % confidence band"
WORK = "Throughput: work that devices and server do, in units of the fleet's mean task; of unstable schemes, too."
MEASURES: Mapping[str, _Measure] = {
    "cost": _Measure(
        *("cost", COMPONENT_DIMENSION, None, "cost per block"),
        notes=(COST_NOTE,),
    ),
    "gap": _Measure(
        *("gap", "loss", None, "gap to the lower bound"),
        notes=(f"The axis is linear up to {LINEAR_UP_TO:g} % and logarithmic above.", BELOW_BOUND),
        factor=100.0,
        label="gap [% of the bound]",
        symlog=True,
    ),
    "latency": _Measure(
        *("latency_s", "statistic", "mean", "mean latency of a task"),
        notes=("Latency: from a task's arrival to its result.",),
    ),
    "latency-p95": _Measure(
        *("latency_s", "statistic", "p95", "latency within which 95 % of the tasks are done"),
        notes=(
            "Latency: from a task's arrival to its result. No point where a seed ends with 5 % of them unfinished.",
        ),
    ),
    "device-energy": _Measure(
        *("energy_j_per_task", "party", "devices", "energy of the devices per task"),
        notes=("Energy of the devices' processors and radios, divided by the tasks that arrive.",),
    ),
    "server-energy": _Measure(
        *("energy_j_per_task", "party", "server", "energy of the server per task"),
        notes=("Energy of the server, divided by the tasks that arrive.",),
    ),
    "throughput": _Measure(*("throughput", "", None, "throughput"), notes=(WORK,)),
    "cost-by-class": _Measure(
        *("cost_by_class", "", None, "cost of a device of each class"),
        notes=(by_device.NOTE,),
    ),
    "latency-by-class": _Measure(
        *("latency_s_by_class", "", None, "mean latency of a task of each class"),
        notes=("Latency: from a task's arrival to its result.",),
    ),
}
"""The figures by the names of their files."""


def figure_names(dataset: xr.Dataset) -> list[str]:
    """The figures for which a sweep has numbers, those by class if there are several; and always that of the cost."""
    return [name for name, one in MEASURES.items() if name == "cost" or _is_known(dataset, one)]


def _is_known(dataset: xr.Dataset, measure: _Measure) -> bool:
    if measure.variable not in dataset or dataset[measure.variable].sizes.get("class") == 1:
        return False
    return bool(np.isfinite(_by_seed(dataset, measure)).any())


def write(dataset: xr.Dataset, folder: Path, look: Look | None = None) -> None:
    """Write the figures of MEASURES and the numbers in them."""
    draws = {name: partial(draw, dataset, name) for name in figure_names(dataset)}
    write_figures(folder, draws, look, dataset["scheme"].values.tolist())


def draw(dataset: xr.Dataset, name: str) -> FigureData:
    """A panel for each value of the other axes, a line and its 95 % band for each scheme; CSV rows of all points."""
    measure = MEASURES[name]
    axes, estimates = _axes(dataset, measure), _estimates(dataset, measure)
    facets = list(itertools.product(*(range(dataset.sizes[axis]) for axis in axes[1:])))
    shown = facets[:MAX_PANELS]
    last = dataset.sizes[axes[-1]] if len(axes) > 2 else len(shown)
    most = 2 if len(shown) == 4 else MAX_COLUMNS  # no places left empty
    columns = last if last <= MAX_COLUMNS else min(len(shown), most)
    lines = -(-len(shown) // columns)
    more = f"The first {MAX_PANELS} of {len(facets)} panels; all are in the CSV file." * (len(facets) > MAX_PANELS)
    subtitle = f"{measure.title} {BAND}"
    missing = "No point: the scheme is unstable or cannot run there; results.csv says why."
    missing *= bool(not np.isfinite(estimates[0]).all() and (dataset["status"] != "ok").any())
    absent = "No line where a class has no devices." * bool(
        "class" in axes and (dataset["devices_by_class"] == 0).any()
    )
    notes, wide = (*measure.notes, more, missing, absent), min(columns, 2)
    figure = new_figure(_title(dataset), subtitle, notes, panel_height(PANEL_HEIGHT * lines, wide), columns=wide)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for panel, facet in zip(panels, shown, strict=False):
        _panel(panel, dataset, estimates[:, :, *facet], axes, facet)
    for panel in panels[::columns]:
        panel.set_ylabel(measure.label or axis_label(dataset, measure.variable))
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    lowest = max(len(shown) - columns, 0)
    for i, panel in enumerate(panels[: len(shown)]):
        panel.xaxis.set_tick_params(labelbottom=i >= lowest)
        panel.xaxis.label.set_visible(i >= lowest)
    _scale(panels[0], measure, estimates[0])
    for panel in panels[: len(shown)] if measure.symlog else ():
        mark_linear_part(panel, "y", LINEAR_UP_TO)
    bottom_legend(figure, panels[0].get_legend_handles_labels()[0], 4)
    return figure, _rows(dataset, measure, estimates)


def _axes(dataset: xr.Dataset, measure: _Measure) -> list[str]:
    """The dimensions of points and panels: the axes of the sweep, then the classes if the measure has them."""
    return [*axis_names(dataset), *(["class"] if "class" in dataset[measure.variable].dims else [])]


def _estimates(dataset: xr.Dataset, measure: _Measure) -> np.ndarray:
    """(3, axes..., scheme): mean over seeds, low and high end of its 95 % interval, at every point of the grid."""
    return measure.factor * mean_and_interval(_by_seed(dataset, measure))


def _by_seed(dataset: xr.Dataset, measure: _Measure) -> np.ndarray:
    """(seed, axes..., scheme) of a measure."""
    values = dataset[measure.variable]
    if measure.only:
        values = values.sel({measure.dimension: measure.only})
    elif measure.dimension:
        values = values.sum(measure.dimension, skipna=False)
    return values.transpose("seed", *_axes(dataset, measure), "scheme").to_numpy()


def _scale(axes: Axes, measure: _Measure, means: np.ndarray) -> None:
    """The scale of the vertical axis, which all panels share: logarithmic where the means are far apart."""
    means = means[np.isfinite(means)]
    if measure.symlog and len(means):
        axes.set_yscale("symlog", linthresh=LINEAR_UP_TO)
        axes.set_ylim(0, 2 * max(means.max(), LINEAR_UP_TO))
        axes.yaxis.set_major_formatter(short_number)
    elif spans_decade(means):
        log_axis(axes, "y", means.min() / 1.5, means.max() * 1.5)
    else:
        axes.set_ylim(bottom=0)


def _title(dataset: xr.Dataset) -> str:
    blocks, warmup = dataset.attrs["blocks"], dataset.attrs["warmup"]
    fleet = "" if "devices" in dataset.dims else f"{tomllib.loads(dataset.attrs['scenario'])['devices']} devices, "
    runs = f"{blocks} blocks, {warmup} of them warm-up, {dataset.sizes['seed']} seeds"
    return f"{dataset.attrs['scenario_name']}: {fleet}{runs}"


def _panel(axes: Axes, dataset: xr.Dataset, estimates: np.ndarray, names: Sequence[str], facet: Sequence[int]) -> None:
    """The lines of one panel, (3, points, scheme), or (3, scheme) if the sweep has no axis.

    names  `_axes`: of the points, then of the panel, whose positions are `facet`
    """
    x, words = _positions(dataset, names)
    estimates = estimates.reshape(3, len(x), -1)
    for i, scheme in enumerate(map(str, dataset["scheme"].values)):
        mean, low, high = estimates[..., i]
        colour, marker, dashes = scheme_colour(scheme), scheme_marker(scheme), scheme_dashes(scheme)
        how: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 3}
        axes.plot(x, mean, **how, label=as_text(display_label(scheme)))
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if facet:
        fixed = (_fixed(dataset, name, i) for name, i in zip(names[1:], facet, strict=True))
        axes.set_title(as_text(", ".join(fixed)))
    if words:
        axes.set_xticks(x, words, rotation=30, ha="right")
    elif spans_decade(x):
        log_axis(axes, "x", x.min() / 1.1, x.max() * 1.1)
        if len(x) <= MAX_TICKS:
            axes.set_xticks(x, [short_number(value) for value in x], rotation=30, ha="right")
            axes.xaxis.set_minor_locator(NullLocator())
    elif names and dataset[names[0]].dtype.kind == "i":  # no half devices
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    if names:
        axes.set_xlabel(_label_of(dataset, names[0]) or axis_label(dataset, names[0]))


def _label_of(dataset: xr.Dataset, name: str) -> str | None:
    """The user's label of an axis, if there is one."""
    return user_label(dataset[name].attrs.get("field", ""))


def _positions(dataset: xr.Dataset, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Positions of the first axis's values, and their tick labels if they are not numbers."""
    if not names:
        return np.zeros(1), ["the scenario"]
    values = dataset[names[0]].values
    if values.dtype.kind in "if":
        return values.astype(float), []
    return np.arange(len(values), dtype=float), [as_text(display_label(str(value))) for value in values]


def _fixed(dataset: xr.Dataset, name: str, at: int) -> str:
    """The value of an axis that a panel is for."""
    value = dataset[name].values[at]
    number = display_label(value) if isinstance(value, str) else short_number(float(value))
    return f"{_label_of(dataset, name) or name} = {number}"


def _rows(dataset: xr.Dataset, measure: _Measure, estimates: np.ndarray) -> list[Sequence[str | float]]:
    """Every point of the grid with every class, if there are any in the figure, and scheme."""
    names, axes = _axes(dataset, measure), axis_names(dataset)
    schemes, labels = dataset["scheme"].values.tolist(), {name: dataset[name].values.tolist() for name in names}
    status = dataset["status"].transpose(*axes, "scheme").to_numpy()
    bound = dataset["bound"].transpose(*axes).to_numpy()
    what = measure.label or axis_label(dataset, measure.variable)
    low, high = (f"95 % {end} {what[what.find('[') :]}" for end in ("low", "high"))
    rows: list[Sequence[str | float]] = [(*names, "scheme", "status", "bound", what, low, high)]
    for at in np.ndindex(*estimates.shape[1:-1]):
        point, values = at[: len(axes)], [labels[name][i] for name, i in zip(names, at, strict=True)]
        rows += [
            (*values, scheme, str(status[*point, i]), float(bound[point]), *estimates[:, *at, i].tolist())
            for i, scheme in enumerate(schemes)
        ]
    return rows
