"""Single devices: state and action of the traced ones in the last blocks of the first seed, a column for each."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from partway.experiments.summary import Summary
from partway.figures.colours import COMPONENT_COLOURS
from partway.figures.common import (
    WIDTH,
    FigureData,
    Row,
    axis_label,
    block_axis,
    log_axis,
    new_figure,
    run_title,
    show_message,
)
from partway.figures.style import display_label, panel_height

LAST_BLOCKS, MAX_DEVICES = 100, 4
"""What is drawn of traced devices; the dataset has the rest."""
TRACED = ("q", "arrivals", "started", "offload", "gain", "power", "cpu_hz", "cpu_energy_j", "radio_energy_j")
"""The traced variables, `device_NAME` in a dataset, that are drawn or written to the CSV file."""
PANELS = ("q", "started", "cpu_hz", "gain", "power", "cpu_energy_j")
"""The variables that name the vertical axes."""
NOTES = (
    "Queue: tasks at the start of the block; tasks that arrive during the block join it at the end of the block.",
    "Started: tasks taken from the queue, in order; a fraction of the last one may be offloaded to the server.",
    "Channel gain: power gain of the channel divided by the noise power. Energy: of the block, the radio's in the slot "
    "after it.",
)


def draw(dataset: xr.Dataset, _: Sequence[Summary]) -> FigureData | None:
    """What each traced device saw, did and spent, or None if no device was traced."""
    if "traced" not in dataset.dims:
        return None
    own = dataset.isel(scheme=0, seed=0, traced=slice(MAX_DEVICES), block=slice(-LAST_BLOCKS, None))
    own = own.assign_coords(block=np.arange(dataset.sizes["block"])[-LAST_BLOCKS:])
    numbers, count = own["traced"].to_numpy().tolist(), own.sizes["block"]
    subtitle = f"scheme {display_label(own['scheme'].item())}, seed {own['seed'].item()}, last {count} blocks"
    wide = min(len(numbers), 2)
    height, width = panel_height(1.4 * len(PANELS)), max(WIDTH, 1 + 3.5 * len(numbers))
    figure = new_figure(run_title(dataset), subtitle, NOTES, height, width, columns=wide)
    grid = figure.subplots(len(PANELS), len(numbers), sharex=True, sharey="row", squeeze=False)
    for column, number in zip(grid.T, numbers, strict=True):
        _device(list(column), own.sel(traced=number))
        column[0].set_title(f"device {number}", color="0", fontweight="bold")
    _finish(list(grid[:, 0]), own)
    rows = [(number, *row) for number in numbers for row in _rows(own.sel(traced=number))]
    return figure, [("device", "block", *(axis_label(own, f"device_{name}") for name in TRACED)), *rows]


def _rows(own: xr.Dataset) -> list[Row]:
    columns = [own["block"], *(own[f"device_{name}"] for name in TRACED)]
    return list(zip(*(column.to_numpy().tolist() for column in columns), strict=True))


def _device(panels: Sequence[Axes], own: xr.Dataset) -> None:
    """Queue, tasks, CPU rate, channel, power and energy of one device, each over the blocks."""
    block, values = own["block"].to_numpy(), {name: own[f"device_{name}"].to_numpy() for name in TRACED}
    series = {name: np.where(np.isfinite(each), each, np.nan) for name, each in values.items()}
    queue, tasks, cpu, channel, power, energy = panels
    arrivals = np.where(series["arrivals"] > 0, series["arrivals"], np.nan)
    local, zero = series["started"] - series["offload"], np.zeros(len(block))
    _steps(queue, block, zero, series["q"], "#aac8ea", "in the queue")
    queue.plot(block, arrivals, ".", color="0.2", markersize=3, label="arrivals")
    _steps(tasks, block, zero, local, COMPONENT_COLOURS["device_energy"], "computed on the device")
    _steps(tasks, block, local, series["started"], COMPONENT_COLOURS["server_queue"], "offloaded")
    _steps(cpu, block, zero, series["cpu_hz"], COMPONENT_COLOURS["device_energy"], "CPU")
    channel.plot(block, series["gain"], color="#1a9c7b", linewidth=1.1)
    transmitting = np.where(series["power"] > 0, series["power"], np.nan)
    power.plot(block, transmitting, ".-", color="#832db6", markersize=3, linewidth=0.8)
    both = series["cpu_energy_j"] + series["radio_energy_j"]
    _steps(energy, block, zero, series["cpu_energy_j"], COMPONENT_COLOURS["device_energy"], "CPU")
    _steps(energy, block, series["cpu_energy_j"], both, COMPONENT_COLOURS["server_queue"], "radio")
    block_axis(energy)


def _steps(axes: Axes, block: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, label: str) -> None:
    axes.fill_between(block, low, high, step="mid", linewidth=0, color=colour, label=label)


def _finish(panels: Sequence[Axes], own: xr.Dataset) -> None:
    """Labels, scales and legends of the first column; the others share its axes."""
    for axes, name in zip(panels, PANELS, strict=True):
        axes.set_ylabel(axis_label(own, f"device_{name}"))
    panels[5].set_ylabel(f"energy [{own['device_cpu_energy_j'].attrs['units']}]")  # of both CPU and radio
    panels[2].yaxis.set_major_formatter(EngFormatter(sep=""))
    panels[2].set_ylim(bottom=0)
    for axes in (panels[2], panels[5]):
        axes.yaxis.set_major_locator(MaxNLocator(4))  # an automatic number of ticks changes with the layout
    for axes in (*panels[:2], panels[5]):
        axes.set_ylim(0, 1.35 * (axes.get_ylim()[1] if axes is panels[5] else max(axes.get_ylim()[1], 1.0)))
        legend = axes.legend(loc="upper left", ncols=2, borderaxespad=0, handlelength=1, columnspacing=1)
        legend.set_in_layout(False)  # it is inside the panel
    for axes, name in zip(panels[3:5], ("gain", "power"), strict=True):
        values = own[f"device_{name}"].to_numpy()
        positive = values[np.isfinite(values) & (values > 0)]
        if len(positive):
            log_axis(axes, "y", positive.min() / 1.5, positive.max() * 1.5)
        else:
            show_message(axes, "nothing is transmitted")
