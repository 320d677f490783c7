"""Results of single devices and of classes of devices: what a comparison or a sweep holds of them, and their table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from partway.experiments.statistics import estimate
from partway.experiments.tidy import write_csv
from partway.formatting import number, plain, with_interval
from partway.measurement.by_device import MAX_DEVICES, DeviceSums
from partway.measurement.latency import Latency
from partway.scenario.schema import Scenario
from partway.system.types import Device
from partway.text_tables import Grid

By = Literal["class", "device"]
VALUES = {
    "cost": ("cost of a device, its own terms of (8)", "per block"),
    "latency_s": ("mean latency of a device's tasks, from arrival to result", "s"),
    "energy_j_per_task": ("energy of a device per task that arrives", "J"),
    "offloaded_share": ("work sent, as a share of the work of the tasks started", "1"),
    "tasks": ("tasks that arrive at a device", "tasks per block"),
}
"""What is known of every device and, as a mean, of every class: long name and unit, as `NAME_by_device`."""
SUMMED = ("energy_j", "arrived", "started", "sent")
COLUMNS = ("latency, mean [s]", "device energy [J/task]", "offloaded share [1]", "tasks [per block]")
"""Titles in CSV files, as in summary.csv, of VALUES after the cost."""
CLASS_COLUMNS = (
    *("class", "devices", "cost [per block]", "cost, 95 % low [per block]", "cost, 95 % high [per block]"),
    *COLUMNS,
)
"""Titles in CSV files of what `class_row` returns."""
TITLES = ("cost\nper block", "latency\nmean s", "energy\nJ/task", "sent", "tasks\nper block")
NOTE = "Cost: a device's own terms of (8), without the server's; of a class the mean over its devices."
MAX_ROWS = 60
"""Devices of a scheme in the table on the terminal; files hold all of them."""


def by_device(
    sums: DeviceSums | None, late: Latency | None, scenario: Scenario, devices: Device, seeds: int, blocks: int
) -> dict[str, Any]:
    """The variables `NAME_by_device` (seed, device) and `NAME_by_class` (seed, class) of a run, NaN without one.

    blocks  that the sums are over

    Nothing for fleets of more than MAX_DEVICES.
    """
    if scenario.devices > MAX_DEVICES:
        return {}
    nothing = np.full((seeds, scenario.devices), np.nan)
    given = DeviceSums(*[nothing] * 5) if sums is None else sums
    paid = np.asarray(devices.queue_weight) * given.waiting + np.asarray(devices.energy_weight) * given.energy_j
    waited = nothing if late is None else np.where(given.arrived > 0, late.by_device * given.arrived, 0.0)
    classes = np.array(scenario.groups_of_devices())
    members = [np.flatnonzero(classes == i) for i in range(max(len(scenario.group), 1))]
    parts = {"paid": paid, "waited": waited} | {name: getattr(given, name) for name in SUMMED}
    by_class = {name: np.stack([part[:, own].sum(axis=1) for own in members], axis=-1) for name, part in parts.items()}
    sizes = {"device": np.ones(scenario.devices), "class": np.array([len(own) or np.nan for own in members])}
    found: dict[str, Any] = {}
    for dim, each in (("device", parts), ("class", by_class)):
        for name, value in _ratios(each, sizes[dim] * blocks).items():
            found[f"{name}_by_{dim}"] = (("seed", dim), value)
    return found


def with_classes(dataset: xr.Dataset, scenario: Scenario) -> xr.Dataset:
    """The dataset with the names of classes, and of each device's class, if it has results of devices."""
    if "cost_by_class" not in dataset:
        return dataset
    names = scenario.class_names()
    of_device = [names[i] for i in scenario.groups_of_devices()]
    return dataset.assign(device_class=("device", of_device)).assign_coords({"class": names})


def class_sizes(scenario: Scenario) -> dict[str, int]:
    """The devices of every class, by its name."""
    names = scenario.class_names()
    return dict(zip(names, np.bincount(scenario.groups_of_devices(), minlength=len(names)).tolist(), strict=True))


def _ratios(sums: dict[str, np.ndarray], blocks: np.ndarray) -> dict[str, np.ndarray]:
    """VALUES from sums (seeds, any); NaN where nothing arrives, nothing is started, or there is no device."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "cost": sums["paid"] / blocks,
            "latency_s": sums["waited"] / sums["arrived"],
            "energy_j_per_task": np.where(sums["arrived"] > 0, sums["energy_j"] / sums["arrived"], np.nan),
            "offloaded_share": sums["sent"] / sums["started"],
            "tasks": sums["arrived"] / blocks,
        }


def table(dataset: xr.Dataset, by: By, max_rows: int = MAX_ROWS) -> Group:
    """A row for each scheme and class, or device; a note where there is nothing."""
    if f"cost_by_{by}" not in dataset:
        return Group(Text(f"--by {by}: {nothing_kept()}", style="dim"))
    grid = Grid(f"By {by}, means after warm-up", keys=2)
    grid.add_column("scheme", name=True)
    grid.add_column(by, name=by == "class")
    if by == "class":
        grid.add_column("devices", "right")
    for title in TITLES:
        grid.add_column(title, "right")
    labels, counts = _labels(dataset, by)
    shown = labels[:max_rows]
    for scheme in _schemes(dataset):
        own = dataset.sel(scheme=scheme)
        for i, label in enumerate(shown):
            count = [str(counts[i])] if by == "class" else []
            grid.add_row(scheme, label, *count, *cells(own, by, i))
    more = f" {len(labels) - len(shown)} devices of each scheme are not shown; the files hold all." * (shown != labels)
    return Group(grid, Text(f"{NOTE}{more}", style="dim"))


def nothing_kept() -> str:
    """Why a fleet has no results by class."""
    return f"nothing is kept of single devices of more than {MAX_DEVICES:,}"


def cells(own: xr.Dataset, by: By, i: int) -> list[str]:
    """The cells under TITLES of the i-th class or device of a scheme."""
    cost, *others = (own[f"{name}_by_{by}"].values[:, i] for name in VALUES)
    late, energy, sent, tasks = map(_mean, others)
    share = f"{sent:.0%}" if np.isfinite(sent) else "-"
    return [with_interval(estimate(cost), 4), number(late, 3), number(energy, 3), share, number(tasks, 3)]


def as_json(dataset: xr.Dataset, scheme: str) -> list[dict[str, Any]] | None:
    """The classes of a scheme, None where nothing is kept of single devices."""
    if "cost_by_class" not in dataset:
        return None
    return plain(classes(dataset.sel(scheme=scheme), _labels(dataset, "class")[1]))


def classes(own: xr.Dataset, counts: Sequence[int]) -> list[dict[str, Any]]:
    """The classes of a scheme in JSON types, but NaN for numbers that do not exist. counts: devices of each class."""
    found = list[dict[str, Any]]()
    for i, label in enumerate(map(str, own["class"].values)):
        cost = estimate(own["cost_by_class"].values[:, i])
        others = {name: _mean(own[f"{name}_by_class"].values[:, i]) for name in VALUES if name != "cost"}
        paid = {"mean": cost.mean, "ci95": [cost.low, cost.high]}
        found.append({"class": label, "devices": counts[i], "cost_per_block": paid} | others)
    return found


def class_row(one: Mapping[str, Any]) -> list[Any]:
    """The cells under CLASS_COLUMNS of one of `classes`."""
    cost = one["cost_per_block"]
    return [
        one["class"],
        one["devices"],
        cost["mean"],
        *cost["ci95"],
        *(one[name] for name in VALUES if name != "cost"),
    ]


def write(dataset: xr.Dataset, folder: Path) -> None:
    """Write by-class.csv and by-device.csv, a row for each scheme and class or device, with units in the header.

    Classes have the 95 % intervals of their cost over seeds; thousands of devices have not.
    """
    if "cost_by_class" not in dataset:
        return
    scenario, of_device = dataset.attrs["scenario_name"], dataset["device_class"].values
    counts = _labels(dataset, "class")[1]
    by_class: list[Sequence[Any]] = [("scenario", "scheme", *CLASS_COLUMNS)]
    devices: list[Sequence[Any]] = [("scenario", "scheme", "device", "class", "cost [per block]", *COLUMNS)]
    for scheme in _schemes(dataset):
        own = dataset.sel(scheme=scheme)
        by_class += [(scenario, scheme, *class_row(one)) for one in classes(own, counts)]
        values = [own[f"{name}_by_device"].values for name in VALUES]
        for i, name in enumerate(of_device):
            devices.append((scenario, scheme, str(i), name, *(_mean(value[:, i]) for value in values)))
    write_csv(folder / "by-class.csv", by_class)
    write_csv(folder / "by-device.csv", devices)


def _labels(dataset: xr.Dataset, by: By) -> tuple[list[str], list[int]]:
    """The names of classes, or the numbers of devices, and how many devices each has."""
    if by == "device":
        return [str(i) for i in range(dataset.sizes["device"])], [1] * dataset.sizes["device"]
    names, of_device = [str(name) for name in dataset["class"].values], dataset["device_class"].values.tolist()
    return names, [of_device.count(name) for name in names]


def _schemes(dataset: xr.Dataset) -> list[str]:
    return [str(name) for name in dataset["scheme"].values]


def _mean(by_seed: np.ndarray) -> float:
    """The mean over the seeds that have a number."""
    known = by_seed[np.isfinite(by_seed)]
    return float(known.mean()) if len(known) else np.nan
