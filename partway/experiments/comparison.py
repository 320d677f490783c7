"""Every scheme in the same world: from a scenario to one labelled dataset."""

import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from partway.bound.lower_bound import Bound, NoBound, lower_bound
from partway.errors import InputError
from partway.experiments.statistics import count_unstable
from partway.experiments.summary import COST_COMPONENTS, LATENCY, UNITS
from partway.measurement.latency import latency
from partway.measurement.metrics import BlockMetrics
from partway.provenance import version
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, check_hyperparameters, find_scheme, pair_for
from partway.simulation.rollout import Run, run
from partway.system.placement import Placement, sample_placement
from partway.system.world import World, build

TRACED_LIMIT = 5_000_000
"""Device-blocks up to which latency is computed task by task."""

MOST_BOUNDED = 10_000
"""Devices above which a comparison goes without its bound, which solves a program for each (about 10 ms)."""

NOTHING = 1e-9
"""A bound of less than this, where a task waiting for a block at every device costs 1, is 0 but for rounding."""

TRACED = {"q": "tasks", "gain": "1/W", "started": "tasks", "offload": "share", "power": "W", "cost": "cost per block"}
"""Units of what is kept of traced devices."""

OnProgress = Callable[[str, int], None]
"""Called with a scheme's name and the blocks it has just finished."""
Player = Callable[["Plan", str, World, OnProgress, bool], Run]
"""Runs one scheme of a plan; arguments as in `play`."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be run, checked: nothing in it can fail for a reason the user could have been told."""

    scenario: Scenario
    name: str
    schemes: tuple[str, ...]
    server: str | None
    blocks: int
    seeds: tuple[int, ...]
    warmup: int
    precision: str


def make_plan(
    scenario: str | Path | Mapping[str, Any] | Scenario = "paper",
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: Sequence[str] | None = None,
    server: str | None = None,
    blocks: int = 2000,
    seeds: int | Sequence[int] = 8,
    warmup: int | None = None,
    precision: str = "float32",
) -> Plan:
    """Check a comparison before anything runs. Arguments as in `compare`; raises InputError."""
    loaded = scenario if isinstance(scenario, Scenario) else load(scenario, overrides)
    chosen = tuple(dict.fromkeys(SCHEMES if schemes is None else schemes))
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    half = blocks // 2 if warmup is None else warmup
    for flag, value, low, high in (("blocks", blocks, 2, 10_000_000), ("warmup", half, 0, blocks - 1)):
        if not low <= value <= high:
            raise InputError(f"--{flag} {value}: allowed is a whole number from {low} to {high}")
    if not numbers or min(numbers) < 0 or max(numbers) >= 2**32 or len(set(numbers)) < len(numbers):
        raise InputError(
            f"--seeds {seeds}: allowed is a count from 1, or different whole numbers from 0 to {2**32 - 1}"
        )
    if precision not in ("float32", "float64"):
        raise InputError(f"--precision {precision}: allowed is float32 or float64")
    if not chosen:
        raise InputError("--schemes: name at least one")
    check_hyperparameters(loaded)
    for name in chosen:
        pair_for(name, loaded, server)
    name = str(scenario) if isinstance(scenario, str | Path) else "scenario"
    return Plan(loaded, Path(name).stem, chosen, server, blocks, numbers, half, precision)


def compare(
    scenario: str | Path | Mapping[str, Any] | Scenario = "paper",
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: Sequence[str] | None = None,
    server: str | None = None,
    blocks: int = 2000,
    seeds: int | Sequence[int] = 8,
    warmup: int | None = None,
    precision: str = "float32",
    on_progress: OnProgress = lambda name, blocks: None,
) -> xr.Dataset:
    """Run schemes on a scenario over seeds with common random numbers.

    scenario   a preset's name, a TOML file, a mapping or a Scenario; overrides: by dotted name
    schemes    names from SCHEMES or `module:ATTRIBUTE`; all of SCHEMES if not given
    server     another scheme's server controller for all of them
    warmup     blocks left out of the means; half of them if not given
    tick       called as blocks are done

    All cores play the seeds; a fleet of thousands with one seed only where JAX_NUM_CPU_DEVICES was set to their number
    before JAX started.

    Returns a dataset with the dimensions scheme, seed, block, part, device, statistic; see `partway.results.summarise`.
    """
    return execute(
        make_plan(
            scenario,
            overrides=overrides,
            schemes=schemes,
            server=server,
            blocks=blocks,
            seeds=seeds,
            warmup=warmup,
            precision=precision,
        ),
        on_progress,
    )


def execute(
    plan: Plan,
    on_progress: OnProgress = lambda name, blocks: None,
    trace: Sequence[int] = (),
    player: Player | None = None,
) -> xr.Dataset:
    """Run a plan.

    trace   devices whose blocks are kept one by one (dimension traced)
    player  runs a scheme in place of `play`, such as one that continues an earlier run
    """
    placement = sample_placement(plan.scenario)
    world, found = with_bound(build(plan.scenario, placement))
    rows = [_scheme(plan, name, world, on_progress, trace, player or play) for name in plan.schemes]
    dataset = xr.concat(rows, dim="scheme").assign_coords(
        seed=list(plan.seeds), part=list(COST_COMPONENTS), statistic=list(LATENCY)
    )
    return _described(dataset, plan, placement).assign_attrs(bound_attributes(found))


def with_bound(world: World) -> tuple[World, Bound | str]:
    """The world with its certificate, and its lower bound, or why it has none."""
    if world.devices.mean_gain.shape[-1] > MOST_BOUNDED:
        return world, f"more than {MOST_BOUNDED:,} devices: `partway bound` gives the bound in minutes to hours"
    try:
        found = lower_bound(world)
    except NoBound as why:
        return world, str(why)
    if found.value <= NOTHING * float(np.sum(world.devices.queue_weight)):
        return world, "the bound is 0: no task ever comes, or tasks cost nothing"
    return dataclasses.replace(world, certificate=found.certificate), found


def bound_attributes(found: Bound | str) -> dict[str, Any]:
    """A dataset's attributes about the bound: value, price [cost per mean task], looseness, or the reason for none."""
    if isinstance(found, str):
        return {"bound": np.nan, "bound_price": np.nan, "bound_slack": np.nan, "bound_reason": found}
    price = float(found.certificate.price)
    return {"bound": found.value, "bound_price": price, "bound_slack": found.slack, "bound_reason": ""}


def applicable(plan: Plan, name: str, world: World) -> str | None:
    """Why a scheme cannot play in this scenario, or None."""
    if plan.scenario.queue == "as_printed" and not find_scheme(name).fractional:
        return "it counts whole tasks, and the queue as printed keeps fractions of them"
    if name == "oracle" and world.certificate is None:
        return "there is no lower bound in this world"
    return None


def play(
    plan: Plan, name: str, world: World, on_progress: OnProgress = lambda name, blocks: None, traces: bool = False
) -> Run:
    """One scheme of a plan, prepared (a tuned constant, unless the scenario sets it) and run."""
    scheme, pair = find_scheme(name), pair_for(name, plan.scenario, plan.server)
    on_progress(name, 0)
    if scheme.prepare is not None and name not in plan.scenario.schemes:
        pair = scheme.prepare(pair, world)

    def done(blocks: int) -> None:
        on_progress(name, blocks)

    return run(world, pair, name, plan.seeds, plan.blocks, precision=plan.precision, traces=traces, on_progress=done)


def _scheme(
    plan: Plan, name: str, world: World, on_progress: OnProgress, trace: Sequence[int], player: Player
) -> xr.Dataset:
    """One scheme's row of the dataset."""
    scheme = find_scheme(name)
    why = applicable(plan, name, world)
    whole_tasks = plan.scenario.queue == "conserving"
    traced = whole_tasks and plan.scenario.devices * len(plan.seeds) * plan.blocks <= TRACED_LIMIT
    played = None if why else player(plan, name, world, on_progress, traced or bool(trace))
    if played is None:
        on_progress(name, plan.blocks)
    variables = _series(played, plan) | _latency(played if traced else None, world, plan) | _traces(played, trace)
    status, reason, growth = ("not_applicable", why, np.nan) if played is None else status_of(played.sums)
    unlimited = any(np.isinf(kind.tx_power_max_w) for kind in plan.scenario.device_classes())
    labels = {
        "status": status,
        "reason": reason or "",
        "growth": growth,
        "heavy_tail": scheme.channel_blind and unlimited,
        "signals_up": scheme.signalling()["up"],
        "signals_down": scheme.signalling()["down"],
    }
    return xr.Dataset(variables | {key: ((), value) for key, value in labels.items()}).assign_coords(scheme=name)


def _series(played: Run | None, plan: Plan) -> dict[str, Any]:
    shape = (len(plan.seeds), plan.blocks)
    empty = np.full(shape, np.nan, np.float32)
    names = [field.name for field in dataclasses.fields(BlockMetrics)]
    values = {name: empty if played is None else np.asarray(getattr(played.sums, name)) for name in names}
    cost = np.stack([values.pop(part) for part in COST_COMPONENTS], axis=-1)
    series: dict[str, Any] = {name: (("seed", "block"), value) for name, value in values.items()}
    return series | {"cost": (("seed", "block", "part"), cost)}


def _latency(played: Run | None, world: World, plan: Plan) -> dict[str, Any]:
    seeds = len(plan.seeds)
    seconds, unfinished = np.full((seeds, len(LATENCY)), np.nan), np.full(seeds, np.nan)
    begun = played is not None and np.any(played.sums.total_work[:, 0])  # when those tasks came is not known
    if played is not None and played.traces is not None and not begun and np.isfinite(played.sums.cost()).all():
        found = latency(played.traces, np.asarray(world.devices.server_work), plan.scenario.slot_s, plan.warmup)
        seconds, unfinished = np.stack([getattr(found, name) for name in LATENCY], axis=-1), found.unfinished
    return {"latency_s": (("seed", "statistic"), seconds), "unfinished": (("seed",), unfinished)}


def _traces(played: Run | None, devices: Sequence[int]) -> dict[str, Any]:
    """What chosen devices saw, did and paid in every block."""
    if played is None or played.traces is None or not devices:
        return {}
    at, traces = list(devices), played.traces
    series: dict[str, Any] = {
        f"device_{name}": (("seed", "block", "traced"), np.asarray(getattr(traces, name))[..., at]) for name in TRACED
    }
    new = np.asarray(traces.arrivals).sum(axis=2)[..., at]
    return series | {"device_arrivals": (("seed", "block", "traced"), new), "traced": ("traced", at)}


def status_of(sums: BlockMetrics) -> tuple[str, str | None, float]:
    """(status, reason, growth of the waiting work per block)."""
    if not np.isfinite(sums.cost()).all():
        return "invalid", "a cost became infinite or undefined", np.nan
    arriving = float(np.mean(np.asarray(sums.arrived_work)))
    work = np.asarray(sums.total_work, np.float64)
    unstable, growth = count_unstable(work, arriving)
    if 2 * unstable <= len(work):
        return "ok", f"unstable in {unstable} of {len(work)} seeds" if unstable else None, growth
    where = "at the server" if _slope(sums.backlog) > _slope(sums.waiting) else "at the devices"
    return "unstable", f"unstable: work piles up {where}", growth


def _slope(series: Any) -> float:
    mean = np.asarray(series, np.float64).mean(axis=0)
    return float(mean[-1] - mean[len(mean) // 2])


def _described(dataset: xr.Dataset, plan: Plan, placement: Placement) -> xr.Dataset:
    """The dataset with placement, units, scenario and versions."""
    dataset = dataset.assign(
        distance_m=("device", placement.distance_m), mean_gain_per_w=("device", placement.mean_gain_per_w)
    )
    for name, unit in (UNITS | {f"device_{name}": unit for name, unit in TRACED.items()}).items():
        if name not in dataset:
            continue
        dataset[name].attrs["units"] = unit
    dataset.attrs = {
        "scenario_name": plan.name,
        "scenario": plan.scenario.to_toml(),
        "warmup": plan.warmup,
        "discount": plan.scenario.discount,
        "objective": plan.scenario.objective,
        "block_s": plan.scenario.slots * plan.scenario.slot_s,
        "server": plan.server or "",
        "precision": plan.precision,
        "partway": version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return dataset
