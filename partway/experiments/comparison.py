"""Every scheme in the same world: from a scenario to one labelled dataset."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from partway.arguments import function
from partway.bound.lower_bound import Bound, silent
from partway.bound.report import assumptions
from partway.controllers.base import DeviceController
from partway.controllers.diagnosis import comes_from_outside
from partway.errors import InputError, out_of_memory, shorten
from partway.experiments.agents import rollout_agent
from partway.experiments.by_device import with_classes
from partway.experiments.failures import cause
from partway.experiments.numbers import LATENCY
from partway.experiments.plan import Plan, Setting, applicable, is_traced, make_plan, setting_of
from partway.experiments.preparation import prepared_pair
from partway.experiments.rows import row_of
from partway.experiments.summary import with_gap_reasons
from partway.experiments.variables import describe
from partway.measurement.gap import COST_COMPONENTS
from partway.measurement.latency import DELAYS
from partway.provenance import versions
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for, stream_of
from partway.simulation.rollout import Run, rollout
from partway.simulation.sharding import CHUNK
from partway.system.kinds import channel_of, ships, traffic_of
from partway.system.placement import Placement
from partway.workers import cores, threads

OnProgress = Callable[[str, int], None]
"""Called with a scheme's name and the blocks it has just finished."""


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
    blocks       how many, warm-up included
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


SchemeRunner = Callable[[Plan, str, Setting, Callable[[int], None], bool, int | None], Run]
"""Runs one scheme of a plan; arguments as in `run_scheme`."""


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
    theirs = _runs_code_from_outside(plan, name) or out_of_memory(error)
    if isinstance(error, InputError) or not theirs:
        return error
    raised = InputError(f"scheme '{shorten(name)}' failed: {cause(error)}")
    raised.__cause__ = error
    return raised


def _runs_code_from_outside(plan: Plan, name: str) -> bool:
    """Whether an agent, a controller, the channel or the traffic of a scheme's run does not ship with Partway."""
    if find_scheme(name).agent is not None or comes_from_outside(pair_for(name, plan.scenario, plan.server)):
        return True
    return not (ships(channel_of(plan.scenario)) and ships(traffic_of(plan.scenario)))


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
            raise KeyboardInterrupt  # the result of this scheme is not needed any more
        try:
            on_progress(name, blocks)
        except Exception as error:
            of_caller.append(error)
            raise

    def row(name: str) -> xr.Dataset:
        try:
            run = _run(plan, name, setting, partial(progress, name), bool(trace), runner, 1 if count > 1 else None)
            return row_of(plan, name, setting, run, None, trace)  # in here: XLA may report an error late
        except (Exception, SystemExit) as error:  # a user's policy can fail in any way
            if error in of_caller:
                raise
            errors[name] = error
            return row_of(plan, name, setting, None, error, trace)

    if count == 1:
        return [row(name) for name in plan.schemes], errors
    with threads(count) as pool:
        try:
            prepared_first = sorted(plan.schemes, key=lambda name: find_scheme(name).preparation is None)
            futures = {name: pool.submit(row, name) for name in prepared_first}
            return [futures[name].result() for name in plan.schemes], errors
        except BaseException:
            stop.set()
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


def run_scheme(
    plan: Plan,
    name: str,
    setting: Setting,
    on_progress: Callable[[int], None] = lambda blocks: None,
    traces: bool = False,
    threads: int | None = None,
) -> Run:
    """One scheme of a plan, prepared (a tuned constant, unless the scenario sets it) and run.

    threads  at most that many compiled calls side by side; None: as many as there are cores
    """
    pair = prepared_pair(name, plan.scenario, setting.world, setting.certificate, plan.server)
    agent = find_scheme(name).agent
    if agent is not None:
        return rollout_agent(
            agent,
            setting.world,
            pair,
            stream_of(name),
            plan.seeds,
            plan.blocks,
            certificate=setting.certificate,
            precision=plan.precision,
            traces=traces,
            warmup=plan.warmup,
            on_progress=on_progress,
        )
    return rollout(
        setting.world,
        pair,
        stream_of(name),
        plan.seeds,
        plan.blocks,
        certificates=setting.certificate,
        precision=plan.precision,
        traces=traces,
        warmup=plan.warmup,
        threads=threads,
        on_progress=on_progress,
    )


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


def _labelled(dataset: xr.Dataset, plan: Plan, placement: Placement) -> xr.Dataset:
    """The dataset with placement, scenario and versions."""
    dataset = dataset.assign(
        distance_m=("device", placement.distance_m), mean_gain_per_w=("device", placement.mean_gain_per_w)
    )
    return with_classes(dataset, plan.scenario).assign_attrs(
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
