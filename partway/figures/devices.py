"""Single devices: what the traced ones saw and did in the first seed's last blocks, one column for each."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from partway.experiments.summary import Summary
from partway.figures.style import COMPONENT_COLOURS, WIDTH, Drawn, Row, count_blocks, log_axis, new_figure, say_instead

LAST_BLOCKS, MOST_DEVICES = 100, 4
"""What is drawn of traced devices; the dataset has the rest."""
TRACED_COLUMNS = {
    "q": "waiting [tasks]",
    "arrivals": "arriving [tasks]",
    "started": "taken up [tasks]",
    "offload": "sent [share of one task]",
    "gain": "channel gain [1/W]",
    "power": "transmit power [W]",
}


def draw(dataset: xr.Dataset, _: Sequence[Summary]) -> Drawn | None:
    """Queue, tasks, channel and power of each, if any device was traced."""
    if "traced" not in dataset.dims:
        return None
    own = dataset.isel(scheme=0, seed=0, traced=slice(MOST_DEVICES), block=slice(-LAST_BLOCKS, None))
    own = own.assign_coords(block=np.arange(dataset.sizes["block"])[-LAST_BLOCKS:])
    numbers, count = own["traced"].to_numpy().tolist(), own.sizes["block"]
    about = f"; {own['scheme'].item()}, seed {own['seed'].item()}, last {count} blocks"
    figure = new_figure(dataset, 6.5, max(WIDTH, 1 + 3.5 * len(numbers)), about)
    grid = figure.subplots(4, len(numbers), sharex=True, sharey="row", squeeze=False)
    for column, number in zip(grid.T, numbers, strict=True):
        _device(list(column), own.sel(traced=number))
        column[0].set_title(f"device {number}", color="0", fontweight="bold")
    _finish(list(grid[:, 0]), own)
    rows = [(number, *row) for number in numbers for row in _device_rows(own.sel(traced=number))]
    return figure, [("device", "block", *TRACED_COLUMNS.values()), *rows]


def _device_rows(own: xr.Dataset) -> list[Row]:
    series = [own["block"], *(own[f"device_{name}"] for name in TRACED_COLUMNS)]
    return list(zip(*(one.to_numpy().tolist() for one in series), strict=True))


def _device(panels: Sequence[Axes], own: xr.Dataset) -> None:
    """Queue, tasks, channel and power of one device, each over the blocks."""
    block, given = own["block"].to_numpy(), {name: own[f"device_{name}"].to_numpy() for name in TRACED_COLUMNS}
    series = {name: np.where(np.isfinite(values), values, np.nan) for name, values in given.items()}
    queue, tasks, channel, power = panels
    arriving = np.where(series["arrivals"] > 0, series["arrivals"], np.nan)
    kept, nothing = series["started"] - series["offload"], np.zeros(len(block))
    _steps(queue, block, nothing, series["q"], "#aac8ea", "waiting at the start")
    queue.plot(block, arriving, ".", color="0.2", markersize=3, label="arriving")
    _steps(tasks, block, nothing, kept, COMPONENT_COLOURS["device_energy"], "run on the device")
    _steps(tasks, block, kept, series["started"], COMPONENT_COLOURS["server_queue"], "sent")
    channel.plot(block, series["gain"], color="#1a9c7b", linewidth=1.1)
    spent = np.where(series["power"] > 0, series["power"], np.nan)
    power.plot(block, spent, ".-", color="#832db6", markersize=3, linewidth=0.8)
    power.set_xlabel("block")
    count_blocks(power)


def _steps(axes: Axes, block: np.ndarray, low: np.ndarray, high: np.ndarray, tint: str, label: str) -> None:
    axes.fill_between(block, low, high, step="mid", linewidth=0, color=tint, label=label)


def _finish(panels: Sequence[Axes], own: xr.Dataset) -> None:
    """Names, scales and legends of the first column; the others share its axes."""
    names = ("queue [tasks]", "taken up [tasks]", "channel gain [1/W]", "transmit power [W]")
    for axes, name in zip(panels, names, strict=True):
        axes.set_ylabel(name)
    for axes in panels[:2]:
        axes.set_ylim(0, 1.35 * max(axes.get_ylim()[1], 1.0))
        axes.legend(loc="upper left", ncols=2, borderaxespad=0)
    for axes, name in zip(panels[2:], ("gain", "power"), strict=True):
        values = own[f"device_{name}"].to_numpy()
        positive = values[np.isfinite(values) & (values > 0)]
        if len(positive):
            log_axis(axes, "y", positive.min() / 1.5, positive.max() * 1.5)
        else:
            say_instead(axes, "nothing is sent")
