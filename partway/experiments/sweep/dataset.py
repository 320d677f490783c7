"""The results of a sweep as one labelled dataset: a dimension for each axis, then scheme, seed, component or class."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from partway.bound.report import ASSUMES_BY_OBJECTIVE, assumptions
from partway.experiments.by_device import class_sizes
from partway.experiments.failures import INVALID
from partway.experiments.numbers import LATENCY
from partway.experiments.statistics import Estimate, estimate
from partway.experiments.sweep.axes import dimensions
from partway.experiments.sweep.group import BY_CLASS, Outcome, failed
from partway.experiments.sweep.plan import SweepPlan, computed_by
from partway.experiments.variables import MEANS, OF_SWEEP
from partway.measurement.gap import COST_COMPONENTS, LOSSES
from partway.measurement.latency import DELAYS
from partway.schemes import find_scheme
from partway.system.kinds import mean_radio_cost_is_infinite

BY_SEED = ("cost_with_warmup", "discounted_from_start", "discounted_after_warmup", "throughput", "unfinished")
INNER: Mapping[str, tuple[str, Sequence[str]]] = {
    "cost": ("component", COST_COMPONENTS),
    "gap": ("loss", LOSSES),
    "latency_s": ("statistic", LATENCY),
    "delay_s": ("delay", DELAYS),
    "energy_j_per_task": ("party", ("devices", "server")),
}
"""Variables that have a dimension of their own beside the seeds: its name and its labels."""
BY_CASE = (
    *("device_energy_j_per_task", "server_energy_j_per_task", "wasted_energy_j_per_task", "offloaded_share"),
    *MEANS,
    *("settling_block", "growth_per_block"),
)
BY_POINT = ("bound", "bound_price", "bound_slack")
WORDS = ("status", "reason", "gap_reason")


def assemble(plan: SweepPlan, outcome_of: Callable[[str], Outcome | None]) -> xr.Dataset:
    """The dataset of a sweep from the outcome of every case, by its key.

    Means of a case that is not `ok`, and numbers that do not exist, are NaN. The classes are those of all points.
    Nothing in it depends on when, where or in how many attempts it was computed.
    """
    outcomes = [
        failed(cell.why, INVALID) if cell.key is None else outcome_of(cell.key) or failed("not computed")
        for cell in plan.cells
    ]
    sizes, names = [len(axis.values) for axis in plan.axes], dimensions(plan.axes, OF_SWEEP)
    shape, dims = [*sizes, len(plan.base.schemes)], [*names, "scheme"]
    seeds = len(plan.base.seeds)

    def numbers(name: str, *inner: int) -> np.ndarray:
        nothing = np.full(inner, np.nan)
        values = [np.asarray(outcome.get(name, nothing), np.float64) for outcome in outcomes]
        return np.stack(values).reshape(*shape, *inner)

    def words(name: str) -> np.ndarray:
        return np.array([outcome.get(name, "") for outcome in outcomes], object).reshape(shape)

    variables: dict[str, Any] = {
        name: ([*dims, "seed", dim], numbers(name, seeds, len(labels))) for name, (dim, labels) in INNER.items()
    }
    variables |= {name: ([*dims, "seed"], numbers(name, seeds)) for name in BY_SEED}
    variables |= {name: (dims, numbers(name)) for name in BY_CASE}
    variables |= {name: (names, _of_points(numbers(name))) for name in BY_POINT}
    variables |= {name: (dims, words(name)) for name in WORDS}
    variables["bound_reason"] = (names, _bound_reasons(words("bound_reason"), variables["bound"][1]))
    classes_at, classes = _class_sizes(plan)
    for name in BY_CLASS:
        aligned = [
            _aligned(outcome.get(name), own, classes, seeds) for outcome, own in zip(outcomes, classes_at, strict=True)
        ]
        variables[name] = ([*dims, "seed", "class"], np.stack(aligned).reshape(*shape, seeds, len(classes)))
    counts = np.array([[own.get(label, 0) for label in classes] for own in classes_at]).reshape(*shape, len(classes))
    variables["devices_by_class"] = ([*names, "class"], counts.max(axis=len(sizes)))
    variables["class"] = ("class", classes)
    variables["case"] = (dims, np.array([cell.key or "" for cell in plan.cells], object).reshape(shape))
    return _described(xr.Dataset(variables), plan)


def _class_sizes(plan: SweepPlan) -> tuple[list[dict[str, int]], list[str]]:
    """The devices of every class at each cell, empty for one without a case, and the names of all classes."""
    known: dict[str | None, dict[str, int]] = {
        case.key: class_sizes(case.plan.scenario) for group in plan.groups for case in group
    }
    found = [known.get(cell.key, {}) for cell in plan.cells]
    return found, list(dict.fromkeys(name for own in found for name in own))


def _aligned(values: Any, own: Mapping[str, int], classes: Sequence[str], seeds: int) -> np.ndarray:
    """(seeds, classes) from the values (seeds, own classes) of a case; NaN for the others, and all without values."""
    aligned = np.full((seeds, len(classes)), np.nan)
    if values is not None:
        aligned[:, [classes.index(name) for name in own]] = values
    return aligned


def cost_of(dataset: xr.Dataset, at: Mapping[str, int], scheme: str) -> Estimate:
    """Cost per block after warm-up at the point with these positions: mean over seeds and its 95 % interval."""
    return estimate(np.asarray(dataset["cost"].isel(at).sel(scheme=scheme).sum("component", skipna=False)))


def gap_of(dataset: xr.Dataset, at: Mapping[str, int], scheme: str) -> Estimate:
    """Gap to the lower bound at the point with these positions, as a share of the bound."""
    return estimate(np.asarray(dataset["gap"].isel(at).sel(scheme=scheme).sum("loss", skipna=False)))


def grid(dataset: xr.Dataset) -> list[dict[str, int]]:
    """The positions of every point of the grid, the last axis fastest."""
    names = axis_names(dataset)
    sizes = [dataset.sizes[name] for name in names]
    return [dict(zip(names, map(int, at), strict=True)) for at in np.ndindex(*sizes)]


def axis_names(dataset: xr.Dataset) -> list[str]:
    """The dimensions that are axes of the sweep."""
    return [str(name) for name in dataset["status"].dims if name != "scheme"]


def _of_points(values: np.ndarray) -> np.ndarray:
    """(axes) from (axes, schemes): the first number that a scheme of a point has; all that have one agree."""
    known = np.argmax(np.isfinite(values), axis=-1)
    return np.take_along_axis(values, known[..., None], axis=-1)[..., 0]


def _bound_reasons(reasons: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(axes) why a point has no bound, from (axes, schemes): a case that could not run does not know of it."""
    return np.where(np.isfinite(bounds), "", np.where(reasons.max(axis=-1) == "", "no case ran", reasons.max(axis=-1)))


def _described(dataset: xr.Dataset, plan: SweepPlan) -> xr.Dataset:
    """The dataset with coordinates, units, the scenario that the axes start from, and versions."""
    base, schemes = plan.base, plan.base.schemes
    labels: dict[str, Any] = {dim: list(labels) for dim, labels in INNER.values()}
    infinite = mean_radio_cost_is_infinite(base.scenario)
    dataset = dataset.assign_coords(labels | {"scheme": list(schemes), "seed": list(base.seeds)}).assign(
        heavy_tail=("scheme", [find_scheme(name).channel_blind and infinite for name in schemes]),
        signals_up=("scheme", [find_scheme(name).signalling()["up"] for name in schemes]),
        signals_down=("scheme", [find_scheme(name).signalling()["down"] for name in schemes]),
    )
    for name, axis in zip(dimensions(plan.axes, OF_SWEEP), plan.axes, strict=True):
        dataset = dataset.assign_coords({name: axis.labels()})
        dataset[name].attrs = {"units": axis.unit(), "field": axis.field, "long_name": axis.words(name)}
    for name, (words, unit) in OF_SWEEP.items():
        dataset[name].attrs |= {"long_name": words, "units": unit}
    return dataset.assign_attrs(
        scenario_name=base.name,
        scenario=base.scenario.to_toml(),
        bound_assumes=json.dumps({objective: assumptions(objective) for objective in ASSUMES_BY_OBJECTIVE}),
        axes=json.dumps([[axis.field, axis.values] for axis in plan.axes]),
        blocks=base.blocks,
        warmup=base.warmup,
        precision=base.precision,
        server=base.server or "",
        **computed_by(),
    )
