"""A sweep's results as one labelled dataset: a dimension for each axis, then scheme, seed, part."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from partway.experiments.statistics import Estimate, estimate
from partway.experiments.summary import COST_COMPONENTS, UNITS
from partway.experiments.sweep.axes import dimensions
from partway.experiments.sweep.group import LOSSES, Outcome, failed
from partway.experiments.sweep.plan import SweepPlan, versions
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme

BY_SEED = {
    "cost_with_warmup": "cost per block, warm-up included",
    "discounted_from_start": "sum of gamma^t cost from empty queues",
    "discounted_after_warmup": "sum of gamma^t cost from the end of warm-up",
}
BY_CASE = {
    "device_energy_j_per_task": "J",
    "server_energy_j_per_task": "J",
    "wasted_energy_j_per_task": "J",
    "offloaded_share": "share of the work taken up",
    "cpu_utilisation": "share",
    "radio_utilisation": "share",
    "server_utilisation": "share",
    "power_mismatch": "share",
    "converged_after_blocks": "blocks",
    "growth_per_block": "mean tasks per block",
}
BY_POINT = {"bound": "cost per block, or discounted sum", "bound_price": "cost per mean task", "bound_slack": "cost"}
WORDS = ("status", "reason")


def assemble(plan: SweepPlan, outcome_of: Callable[[str], Outcome | None]) -> xr.Dataset:
    """The dataset of a sweep from the outcome of every case.

    Averages of a case that is not `ok`, and what does not exist, are NaN. Nothing in it depends on when, where or in
    how many attempts it was computed.
    """
    outcomes = [
        failed(cell.why, "invalid") if cell.key is None else outcome_of(cell.key) or failed("not computed")
        for cell in plan.cells
    ]
    axes, names = [len(axis.values) for axis in plan.axes], dimensions(plan.axes)
    shape, dims = [*axes, len(plan.base.schemes)], [*names, "scheme"]
    seeds = len(plan.base.seeds)

    def numbers(name: str, *inner: int) -> np.ndarray:
        nothing = np.full(inner, np.nan)
        values = [np.asarray(outcome.get(name, nothing), np.float64) for outcome in outcomes]
        return np.stack(values).reshape(*shape, *inner)

    variables: dict[str, Any] = {"cost": ([*dims, "seed", "part"], numbers("cost", seeds, len(COST_COMPONENTS)))}
    variables["gap"] = ([*dims, "seed", "loss"], numbers("gap", seeds, len(LOSSES)))
    variables |= {name: ([*dims, "seed"], numbers(name, seeds)) for name in BY_SEED}
    variables |= {name: (dims, numbers(name)) for name in BY_CASE}
    variables |= {name: (names, _of_points(numbers(name))) for name in BY_POINT}
    variables |= {name: (dims, _words(outcomes, name, shape)) for name in WORDS}
    variables["bound_reason"] = (names, _words(outcomes, "bound_reason", shape).max(axis=-1))
    variables["case"] = (dims, np.array([cell.key or "" for cell in plan.cells], object).reshape(shape))
    return _described(xr.Dataset(variables), plan)


def cost_of(dataset: xr.Dataset, at: Mapping[str, int], scheme: str) -> Estimate:
    """Cost per block after warm-up at the point of these positions: mean over seeds and its 95 % interval."""
    return estimate(np.asarray(dataset["cost"].isel(at).sel(scheme=scheme).sum("part", skipna=False)))


def gap_of(dataset: xr.Dataset, at: Mapping[str, int], scheme: str) -> Estimate:
    """Gap to the lower bound there, as a share of it."""
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
    """What all schemes of a point agree on, from one that knows it."""
    known = np.argmax(np.isfinite(values), axis=-1)
    return np.take_along_axis(values, known[..., None], axis=-1)[..., 0]


def _words(outcomes: list[Outcome], name: str, shape: list[int]) -> np.ndarray:
    return np.array([outcome.get(name, "") for outcome in outcomes], object).reshape(shape)


def _described(dataset: xr.Dataset, plan: SweepPlan) -> xr.Dataset:
    """The dataset with coordinates, units, the scenario that the axes start from, and versions."""
    base, schemes = plan.base, plan.base.schemes
    dataset = dataset.assign_coords(
        scheme=list(schemes), seed=list(base.seeds), part=list(COST_COMPONENTS), loss=list(LOSSES)
    ).assign(
        heavy_tail=("scheme", [find_scheme(name).channel_blind and _unlimited(base.scenario) for name in schemes]),
        signals_up=("scheme", [find_scheme(name).signalling()["up"] for name in schemes]),
        signals_down=("scheme", [find_scheme(name).signalling()["down"] for name in schemes]),
    )
    for name, axis in zip(dimensions(plan.axes), plan.axes, strict=True):
        dataset = dataset.assign_coords({name: axis.labels()})
        dataset[name].attrs = {"units": axis.unit(), "field": axis.field}
    for name, unit in (BY_SEED | BY_CASE | BY_POINT | {"cost": UNITS["cost"], "gap": "share of the bound"}).items():
        dataset[name].attrs["units"] = unit
    return dataset.assign_attrs(
        scenario_name=base.name,
        scenario=base.scenario.to_toml(),
        over=json.dumps([[axis.field, axis.values] for axis in plan.axes]),
        blocks=base.blocks,
        warmup=base.warmup,
        precision=base.precision,
        server=base.server or "",
        **versions(),
    )


def _unlimited(scenario: Scenario) -> bool:
    """Whether nothing limits the power of some device, at the point that the axes start from."""
    return any(np.isinf(kind.tx_power_max_w) for kind in scenario.device_classes())
