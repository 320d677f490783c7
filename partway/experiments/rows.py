"""From a run of a scheme to its row of the dataset: costs, latency, the blocks of chosen devices, and how it ended."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from partway.experiments.by_device import by_device
from partway.experiments.failures import FAILED, cause
from partway.experiments.numbers import LATENCY
from partway.experiments.plan import Plan, Setting, applicable, is_traced
from partway.experiments.status import status_of, with_note
from partway.experiments.variables import TRACED
from partway.measurement.gap import COST_COMPONENTS
from partway.measurement.latency import DELAYS, Latency, latency
from partway.measurement.metrics import BlockMetrics, DeviceTraces
from partway.schemes import find_scheme
from partway.simulation.rollout import Run
from partway.system.kinds import mean_radio_cost_is_infinite
from partway.system.world import World


def row_of(
    plan: Plan, name: str, setting: Setting, run: Run | None, error: BaseException | None, trace: Sequence[int]
) -> xr.Dataset:
    """One scheme's row of the dataset, from its run or the error that has ended it."""
    scheme = find_scheme(name)
    late = latency_of(run.metrics, run.traces, setting.world, plan) if run and is_traced(plan) else None
    variables = _series(run, plan) | _latency(late, len(plan.seeds)) | traces_of(run, trace, setting.world, plan)
    if run is None:
        status, reason, growth = "not_applicable", applicable(plan, name, setting), np.nan
        if error is not None:
            status, reason = FAILED, cause(error)
    else:
        status, reason, growth = status_of(run.metrics, run.pair, plan.scenario)
    sums, counted = None if run is None or status != "ok" else run.by_device, plan.blocks - plan.warmup
    variables |= by_device(sums, late, plan.scenario, setting.world.devices, len(plan.seeds), counted)
    labels = {
        "status": status,
        "reason": with_note(reason, None if run is None else run.clipped, plan),
        "growth_per_block": growth,
        "heavy_tail": scheme.channel_blind and mean_radio_cost_is_infinite(plan.scenario),
        "signals_up": scheme.signalling()["up"],
        "signals_down": scheme.signalling()["down"],
    }
    return xr.Dataset(variables | {key: ((), value) for key, value in labels.items()}).assign_coords(scheme=name)


def _series(run: Run | None, plan: Plan) -> dict[str, Any]:
    shape = (len(plan.seeds), plan.blocks)
    empty = np.full(shape, np.nan, np.float32)
    names = [field.name for field in dataclasses.fields(BlockMetrics)]
    values = {name: empty if run is None else np.asarray(getattr(run.metrics, name)) for name in names}
    cost = np.stack([values.pop(component) for component in COST_COMPONENTS], axis=-1)
    series: dict[str, Any] = {name: (("seed", "block"), value) for name, value in values.items()}
    return series | {"cost": (("seed", "block", "component"), cost)}


def latency_of(metrics: BlockMetrics, traces: DeviceTraces | None, world: World, plan: Plan) -> Latency | None:
    """The latency of a run; None if it is not known when its first tasks arrived, or its numbers are not finite."""
    if traces is None or np.any(metrics.total_work[:, 0]) or not np.isfinite(metrics.cost()).all():
        return None
    return latency(traces, np.asarray(world.devices.server_work), plan.scenario.slot_s, plan.warmup)


def _latency(late: Latency | None, seeds: int) -> dict[str, Any]:
    dims = {"latency_s": ("seed", "statistic"), "delay_s": ("seed", "delay"), "unfinished": ("seed",)}
    sizes = {"seed": seeds, "statistic": len(LATENCY), "delay": len(DELAYS)}
    nothing = {name: np.full([sizes[dim] for dim in own], np.nan) for name, own in dims.items()}
    values = nothing if late is None else latency_arrays(late)
    return {name: (own, values[name]) for name, own in dims.items()}


def latency_arrays(late: Latency) -> dict[str, np.ndarray]:
    """(seeds, LATENCY) and (seeds, DELAYS) [s], and the share of unfinished tasks (seeds,), by their names in files."""
    seconds = np.stack([getattr(late, name) for name in LATENCY], axis=-1)
    return {"latency_s": seconds, "delay_s": late.delays, "unfinished": late.unfinished}


def traces_of(run: Run | None, devices: Sequence[int], world: World, plan: Plan) -> dict[str, Any]:
    """What chosen devices saw, did, spent and paid in every block."""
    if run is None or run.traces is None or not devices:
        return {}
    at, traces = list(devices), run.traces
    values = {name: np.asarray(getattr(traces, name))[..., at] for name in TRACED}
    values["arrivals"] = np.asarray(traces.arrivals).sum(axis=2)[..., at]
    classes = plan.scenario.device_classes()
    energy_coef, capacity = (np.asarray(each)[at] for each in (world.devices.energy_coef, world.devices.capacity))
    tasks = np.asarray(values["started"] - values["offload"], np.float64)
    values["cpu_hz"] = tasks / capacity * [classes[device].cpu_max_hz for device in at]  # all block long, W L / (n tau)
    values["cpu_energy_j"] = energy_coef * tasks**3  # (2)
    values["radio_energy_j"] = plan.scenario.slot_s * np.asarray(values["power"], np.float64)  # (5)
    series = {f"device_{name}": (("seed", "block", "traced"), value) for name, value in values.items()}
    return series | {"traced": ("traced", at)}
