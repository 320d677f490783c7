"""Every scheme in the same world: from a scenario to one labelled dataset."""

import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr

from partway.arguments import flag, function, seed_values, whole_number
from partway.bound.certificate import Certificate
from partway.bound.lower_bound import Bound, silent
from partway.bound.report import assumptions
from partway.controllers.base import ControllerPair, DeviceController
from partway.controllers.diagnosis import check_pair, classes_from_outside, comes_from_outside, explained
from partway.errors import InputError, out_of_memory, shorten, shown
from partway.experiments.failures import FAILED, INVALID, cause
from partway.experiments.preparation import bound_of, prepare
from partway.experiments.statistics import count_unstable
from partway.experiments.summary import LATENCY, with_gap_reasons
from partway.experiments.variables import TRACED, describe
from partway.measurement.gap import COST_COMPONENTS
from partway.measurement.latency import DELAYS, Latency, latency
from partway.measurement.metrics import BlockMetrics, DeviceTraces
from partway.provenance import versions
from partway.scenario.loading import load
from partway.scenario.overrides import override_pairs
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, check_hyperparameters, check_running, find_scheme, name_of, pair_for, stream_of
from partway.simulation.rollout import Run, rollout, trace_blocks
from partway.simulation.sharding import CHUNK
from partway.system.placement import Placement, sample_placement
from partway.system.world import World, build
from partway.workers import cores

TRACED_LIMIT = 5_000_000
"""Device-blocks up to which latency is computed task by task."""

OnProgress = Callable[[str, int], None]
"""Called with a scheme's name and the blocks it has just finished."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be run, checked: nothing in it can fail for a reason that could have been reported before.

    name  of the scenario            warmup  blocks left out of the means            bound  whether it is computed
    """

    scenario: Scenario
    name: str
    schemes: tuple[str, ...]
    server: str | None
    blocks: int
    seeds: tuple[int, ...]
    warmup: int
    precision: str
    bound: bool = True


def make_plan(
    scenario: str | Path | Mapping[str, Any] | Scenario = "paper",
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: str | Sequence[str | type[DeviceController]] | None = None,
    server: str | None = None,
    blocks: int = 2000,
    seeds: int | Sequence[int] = 8,
    warmup: int | None = None,
    precision: str = "float32",
    bound: bool = True,
) -> Plan:
    """Check a comparison before anything runs. Arguments as in `compare`; raises InputError."""
    changes = override_pairs(overrides)
    loaded = scenario if isinstance(scenario, Scenario) and not changes else load(scenario, changes)
    chosen, serving = scheme_names(schemes), None if server is None else name_of(server, "--server")
    numbers, length = seed_values(seeds), whole_number("--blocks", blocks, 2, 10_000_000)
    half = length // 2 if warmup is None else whole_number("--warmup", warmup, 0, length - 1)
    if precision not in ("float32", "float64"):
        raise InputError(f"--precision must be float32 or float64, got {shown(precision)}")
    check_hyperparameters(loaded, named_schemes(chosen, serving))
    check_running(changes, chosen)
    check_controllers(loaded, chosen, serving, precision)
    name = os.path.basename(scenario) if isinstance(scenario, str | os.PathLike) else "scenario"
    return Plan(loaded, Path(name).stem, chosen, serving, length, numbers, half, precision, flag("bound", bound))


def scheme_names(schemes: Any) -> tuple[str, ...]:
    """The names of `schemes` as `compare` takes them, each once; those of SCHEMES that run by default for None."""
    if schemes is None:
        return tuple(name for name, scheme in SCHEMES.items() if scheme.by_default)
    several = isinstance(schemes, Iterable) and not isinstance(schemes, str)
    given = list(cast(Iterable[Any], schemes)) if several else [schemes]
    if not given:
        raise InputError("--schemes must name at least one scheme")
    return tuple(dict.fromkeys(name_of(one, "--schemes") for one in given))


def named_schemes(schemes: Sequence[str], server: str | None) -> set[str]:
    """Schemes that a user has named: to run them, or for their server."""
    return {*schemes, *([server] if server else [])}


def check_controllers(scenario: Scenario, schemes: Sequence[str], server: str | None, precision: str) -> None:
    """Raise InputError for a hyperparameter that no controller has, and a controller from outside that cannot work."""
    pairs = {name: pair_for(name, scenario, server) for name in schemes}
    outside = {name: pair for name, pair in pairs.items() if comes_from_outside(pair)}
    if outside:
        world = build(scenario, sample_placement(scenario))
        for name, pair in outside.items():
            check_pair(name, pair, world, precision)
            explained(name, pair, trace_blocks, world, pair, precision)


def compare(
    scenario: str | Path | Mapping[str, Any] | Scenario = "paper",
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: str | Sequence[str | type[DeviceController]] | None = None,
    server: str | None = None,
    blocks: int = 2000,
    seeds: int | Sequence[int] = 8,
    warmup: int | None = None,
    precision: str = "float32",
    bound: bool = True,
    on_progress: OnProgress = lambda name, blocks: None,
) -> xr.Dataset:
    """Run schemes on a scenario over seeds with common random numbers.

    scenario     a preset's name, a TOML file, a mapping or a Scenario; overrides: by dotted name
    schemes      names from SCHEMES or `module:ATTRIBUTE`, or classes of device controllers; if not given, those of
                 SCHEMES that run by default
    server       another scheme's server controller for all of them
    seeds        how many, or which
    warmup       blocks left out of the means; half of them if not given
    precision    "float32" or "float64"
    bound        False: no lower bound and no gap, which saves seconds
    on_progress  called with a scheme's name and the blocks it has just finished

    All cores are used; by one seed of a fleet of thousands only if JAX_NUM_CPU_DEVICES was set to their number before
    JAX started.

    Returns a dataset with the dimensions scheme, seed, block, component, device, statistic; `partway.summarise` reads
    it. A scheme that fails beside others has the status "failed" and a `reason`. Raises InputError for what cannot be
    run.
    """
    function("on_progress", on_progress)
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
            bound=bound,
        ),
        on_progress,
    )


@dataclasses.dataclass(frozen=True)
class Setting:
    """The world of a plan, where its devices are, and its lower bound, or why it has none."""

    placement: Placement
    world: World
    bound: Bound | str

    @property
    def certificate(self) -> Certificate | None:
        """With which a run measures how far it is from the bound."""
        return None if isinstance(self.bound, str) else self.bound.certificate


SchemeRunner = Callable[["Plan", str, Setting, Callable[[int], None], bool, int | None], Run]
"""Runs one scheme of a plan; arguments as in `run_scheme`."""


def setting_of(scenario: Scenario, bound: bool = True, on_bound: Callable[[str], None] = silent) -> Setting:
    """The world of a scenario, with its lower bound unless `bound` is False. `on_bound`: the bound's `on_progress`."""
    placement = sample_placement(scenario)
    world = build(scenario, placement)
    return Setting(placement, world, bound_of(world, on_bound) if bound else "the bound was not asked for")


def execute(
    plan: Plan,
    on_progress: OnProgress = lambda name, blocks: None,
    trace: Sequence[int] = (),
    runner: SchemeRunner | None = None,
    on_bound: Callable[[str], None] = silent,
) -> xr.Dataset:
    """Run a plan.

    trace     devices whose blocks are kept one by one (dimension traced)
    runner    runs a scheme in place of `run_scheme`, such as one that continues an earlier run
    on_bound  called with what is computed next of the lower bound, in words

    A scheme that an error ends is FAILED, the others are kept. Raises the first error if all end so: as an InputError
    unless it is a fault of Partway.
    """
    setting = setting_of(plan.scenario, plan.bound, on_bound)
    rows, errors = _rows(plan, setting, on_progress, trace, runner or run_scheme)
    if len(errors) == len(plan.schemes):
        raise _raised(plan, errors)
    dataset = xr.concat(rows, dim="scheme").assign_coords(
        seed=list(plan.seeds), component=list(COST_COMPONENTS), statistic=list(LATENCY), delay=list(DELAYS)
    )
    labelled = _labelled(dataset, plan, setting.placement).assign_attrs(bound_attributes(setting.bound, plan.scenario))
    return describe(with_gap_reasons(labelled))


def _raised(plan: Plan, errors: Mapping[str, BaseException]) -> BaseException:
    """What is raised where every scheme has ended with one of these errors."""
    name, error = next((name, errors[name]) for name in plan.schemes)
    theirs = comes_from_outside(pair_for(name, plan.scenario, plan.server)) or out_of_memory(error)
    if isinstance(error, InputError) or not theirs:
        return error
    raised = InputError(f"scheme '{shorten(name)}' failed: {cause(error)}")
    raised.__cause__ = error
    return raised


def _rows(
    plan: Plan, setting: Setting, on_progress: OnProgress, trace: Sequence[int], runner: SchemeRunner
) -> tuple[list[xr.Dataset], dict[str, BaseException]]:
    """The row of every scheme, in order, and the errors that have ended some.

    Small fleets run as many schemes at a time as there are cores: while one is traced or compiled another one runs. A
    scheme's numbers do not depend on what runs beside it.
    """
    count = min(cores(), len(plan.schemes)) if plan.scenario.devices <= CHUNK else 1
    stop, errors, of_caller = threading.Event(), dict[str, BaseException](), list[Exception]()

    def progress(name: str, blocks: int) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # nobody waits for this scheme any more
        try:
            on_progress(name, blocks)
        except Exception as error:
            of_caller.append(error)
            raise

    def row(name: str) -> xr.Dataset:
        try:
            run = _run(plan, name, setting, partial(progress, name), bool(trace), runner, 1 if count > 1 else None)
            return _row(plan, name, setting, run, None, trace)  # in here: XLA may report an error late
        except (Exception, SystemExit) as error:  # a user's policy can fail in any way
            if error in of_caller:
                raise
            errors[name] = error
            return _row(plan, name, setting, None, error, trace)

    if count == 1:
        return [row(name) for name in plan.schemes], errors
    with ThreadPoolExecutor(count) as pool:
        try:
            prepared_first = sorted(plan.schemes, key=lambda name: find_scheme(name).preparation is None)
            futures = {name: pool.submit(row, name) for name in prepared_first}
            return [futures[name].result() for name in plan.schemes], errors
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def bound_attributes(bound: Bound | str, scenario: Scenario) -> dict[str, Any]:
    """A dataset's attributes about the bound: those of `bound_numbers`, and what its proof assumes."""
    assumes = "" if isinstance(bound, str) else "; ".join(assumptions(scenario.objective))
    return {**bound_numbers(bound), "bound_assumes": assumes}


def bound_numbers(bound: Bound | str) -> dict[str, Any]:
    """The bound's value, price [cost per mean task] and slack, or the reason for none."""
    if isinstance(bound, str):
        return {"bound": np.nan, "bound_price": np.nan, "bound_slack": np.nan, "bound_reason": bound}
    price = float(bound.certificate.price)
    return {"bound": bound.value, "bound_price": price, "bound_slack": bound.slack, "bound_reason": ""}


def applicable(plan: Plan, name: str, setting: Setting) -> str | None:
    """Why a scheme cannot run in this scenario, or None."""
    scheme = find_scheme(name)
    if plan.scenario.queue == "as_printed" and not scheme.fractional:
        return "it counts whole tasks, and the queue as printed keeps fractions of them"
    if scheme.preparation == "use_bound" and setting.certificate is None:
        return "there is no lower bound in this world"
    return None


def run_scheme(
    plan: Plan,
    name: str,
    setting: Setting,
    on_progress: Callable[[int], None] = lambda blocks: None,
    traces: bool = False,
    threads: int | None = None,
) -> Run:
    """One scheme of a plan, prepared (a tuned constant, unless the scenario sets it) and run.

    threads  at most so many compiled calls side by side; None: as many as there are cores
    """
    pair = prepared_pair(plan, name, setting)
    return rollout(
        setting.world,
        pair,
        stream_of(name),
        plan.seeds,
        plan.blocks,
        certificates=setting.certificate,
        precision=plan.precision,
        traces=traces,
        threads=threads,
        on_progress=on_progress,
    )


def prepared_pair(plan: Plan, name: str, setting: Setting) -> ControllerPair:
    """The controllers of a scheme as they start."""
    pair, chosen = pair_for(name, plan.scenario, plan.server), name in plan.scenario.schemes
    return prepare(find_scheme(name), pair, setting.world, setting.certificate, chosen)


def _run(
    plan: Plan,
    name: str,
    setting: Setting,
    on_progress: Callable[[int], None],
    traces: bool,
    runner: SchemeRunner,
    threads: int | None,
) -> Run | None:
    """One scheme's run, None if it is not applicable."""
    on_progress(0)
    if applicable(plan, name, setting) is None:
        return runner(plan, name, setting, on_progress, traces or is_traced(plan), threads)
    on_progress(plan.blocks)
    return None


def _row(
    plan: Plan, name: str, setting: Setting, run: Run | None, error: BaseException | None, trace: Sequence[int]
) -> xr.Dataset:
    """One scheme's row of the dataset, from its run or the error that has ended it."""
    scheme = find_scheme(name)
    late = latency_of(run.metrics, run.traces, setting.world, plan) if run and is_traced(plan) else None
    variables = _series(run, plan) | _latency(late, len(plan.seeds)) | _traces(run, trace, setting.world, plan)
    if run is None:
        status, reason, growth = "not_applicable", applicable(plan, name, setting), np.nan
        if error is not None:
            status, reason = FAILED, cause(error)
    else:
        status, reason, growth = status_of(run.metrics, run.pair)
    unlimited = any(np.isinf(kind.tx_power_max_w) for kind in plan.scenario.device_classes())
    labels = {
        "status": status,
        "reason": with_note(reason, None if run is None else run.clipped, plan),
        "growth": growth,
        "heavy_tail": scheme.channel_blind and unlimited,
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


def is_traced(plan: Plan) -> bool:
    """Whether latency is computed, which needs every device in every block."""
    whole_tasks = plan.scenario.queue == "conserving"
    return whole_tasks and plan.scenario.devices * len(plan.seeds) * plan.blocks <= TRACED_LIMIT


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


def _traces(run: Run | None, devices: Sequence[int], world: World, plan: Plan) -> dict[str, Any]:
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


def status_of(metrics: BlockMetrics, pair: ControllerPair) -> tuple[str, str | None, float]:
    """(status, reason, growth of the waiting work per block); `pair`: of the run, whose classes a reason may name."""
    if not np.isfinite(metrics.cost()).all():
        return INVALID, _why_invalid(metrics, pair), np.nan
    arriving = float(np.mean(np.asarray(metrics.arrived_work)))
    work = np.asarray(metrics.total_work, np.float64)
    unstable, growth = count_unstable(work, arriving)
    if 2 * unstable <= len(work):
        return "ok", f"unstable in {unstable} of {len(work)} seeds" if unstable else None, growth
    where = "at the server" if _slope(metrics.backlog) > _slope(metrics.waiting) else "at the devices"
    return "unstable", f"unstable: work piles up {where}", growth


def with_note(reason: str | None, clipped: np.ndarray | None, plan: Plan) -> str:
    """The reason for a status, with a note where controllers asked for actions out of range (`Run.clipped`)."""
    count = 0 if clipped is None else int(np.sum(clipped))
    if clipped is None or not count:
        return reason or ""
    share = count / (clipped.size * plan.scenario.devices)
    note = (
        f"{count:,} actions out of range were clipped ({share:.2g} per device and block): offload is from 0 to 1, "
        "started from 0 to the tasks that wait, service from 0 to f_max"
    )
    return f"{reason}; {note}" if reason else note


def _why_invalid(metrics: BlockMetrics, pair: ControllerPair) -> str:
    """What became infinite or undefined first, when, and in which classes from outside to look."""
    block = int(np.argmax(~np.isfinite(np.asarray(metrics.cost())).all(axis=0)))
    actions = np.isnan(np.asarray(metrics.started) + np.asarray(metrics.sent))[:, : block + 1].any(axis=0)
    acts = " and ".join(f"{name}.act" for name in classes_from_outside(pair))
    look = f"; look for 0/0, log and sqrt in {acts}" if acts else ""
    if actions.any():
        return f"the policy's action is NaN in block {int(np.argmax(actions))}{look}"
    return f"a cost became infinite or undefined in block {block}{look}"


def _slope(series: Any) -> float:
    mean = np.asarray(series, np.float64).mean(axis=0)
    return float(mean[-1] - mean[len(mean) // 2])


def _labelled(dataset: xr.Dataset, plan: Plan, placement: Placement) -> xr.Dataset:
    """The dataset with placement, scenario and versions."""
    dataset = dataset.assign(
        distance_m=("device", placement.distance_m), mean_gain_per_w=("device", placement.mean_gain_per_w)
    )
    return dataset.assign_attrs(
        scenario_name=plan.name,
        scenario=plan.scenario.to_toml(),
        warmup=plan.warmup,
        discount=plan.scenario.discount,
        objective=plan.scenario.objective,
        block_s=plan.scenario.slots_per_block * plan.scenario.slot_s,
        server=plan.server or "",
        precision=plan.precision,
        **versions(),
    )
