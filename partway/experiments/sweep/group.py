"""What a worker computes: from the plans of a group of cases to the numbers of each case, in JSON types.

The numbers are those of `partway.experiments.summary`, so that a sweep of one point gives the numbers of a comparison.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from partway.bound.lower_bound import Bound
from partway.controllers.base import ControllerPair
from partway.errors import InputError, out_of_memory
from partway.experiments.by_device import VALUES, by_device
from partway.experiments.comparison import bound_numbers
from partway.experiments.failures import FAILED, INVALID, cause
from partway.experiments.numbers import Numbers, gap_reason, no_gap_of, numbers_of
from partway.experiments.plan import Plan, Setting, applicable, is_traced, setting_of
from partway.experiments.preparation import prepared_pair
from partway.experiments.rows import latency_arrays, latency_of
from partway.experiments.status import status_of, with_note
from partway.experiments.variables import MEANS
from partway.measurement.by_device import DeviceSums
from partway.measurement.gap import Horizon
from partway.measurement.metrics import BlockMetrics, DeviceTraces
from partway.schemes import stream_of
from partway.simulation.rollout import rollout

Outcome = dict[str, Any]
"""The result of a case: `status`, `reason`, and its numbers if it ran."""
BY_CLASS = tuple(f"{name}_by_class" for name in VALUES)
"""Numbers (seeds, classes) of a case that is `ok`, in a fleet of which single devices are kept."""


@dataclass(frozen=True)
class _Ready:
    """A case ready to run: its plan, its world with the lower bound, and its controllers as they start."""

    plan: Plan
    setting: Setting
    pair: ControllerPair


def run_group(plans: Sequence[Plan]) -> list[Outcome]:
    """Run plans of one scheme each, as many at once as share a compiled program; returns the outcome of each.

    Which cases run together follows from the plans alone. An exception in one case, such as in a user's policy, is the
    outcome of that case. Raises MemoryError where memory runs out: without the case that ran out of it, the others
    would run in another program.
    """
    outcomes: list[Outcome | None] = [None] * len(plans)
    ready = dict[int, _Ready]()
    for at, plan in enumerate(plans):
        made = _guarded(lambda plan=plan: _prepared(plan))
        if isinstance(made, _Ready):
            ready[at] = made
        else:
            outcomes[at] = made
    for same in _alike(ready):
        results = _guarded(lambda same=same: _run_together([ready[at] for at in same]))
        for i, at in enumerate(same):
            outcomes[at] = results[i] if isinstance(results, list) else dict(results)
    return [outcome for outcome in outcomes if outcome is not None]


def failed(reason: str, status: str = FAILED) -> Outcome:
    """A case without numbers. If it is FAILED, its reason may be temporary: the next start tries it again."""
    return {"status": status, "reason": str(InputError(reason)), "gap_reason": no_gap_of(status)}


def _guarded(work: Callable[[], Any]) -> Any:
    """What `work` returns, or the outcome that its exception stands for; lack of memory is not an outcome."""
    try:
        return work()
    except InputError as error:
        return failed(str(error), INVALID)
    except (Exception, SystemExit) as error:  # a user's policy can fail in any way
        if out_of_memory(error):
            raise MemoryError(str(error)) from None
        return failed(cause(error))


def _prepared(plan: Plan) -> _Ready | Outcome:
    """The world with its bound, and the controllers, tuned for a scheme that has to be."""
    (name,) = plan.schemes
    setting = setting_of(plan.scenario, plan.bound)
    why = applicable(plan, name, setting)
    if why is not None:
        outcome = failed(why, "not_applicable") | _bound_numbers(setting.bound)
        return outcome | {"gap_reason": outcome["bound_reason"] or outcome["gap_reason"]}
    pair = prepared_pair(name, plan.scenario, setting.world, setting.certificate, plan.server)
    return _Ready(plan, setting, pair)


def _alike(ready: dict[int, _Ready]) -> list[list[int]]:
    """Cases whose worlds, certificates and controllers agree in shapes and static fields."""
    alike = dict[Any, list[int]]()
    for at, one in ready.items():
        tree = (one.setting.world, one.setting.certificate, one.pair)
        shapes = tuple((np.shape(leaf), np.asarray(leaf).dtype.kind) for leaf in jax.tree.leaves(tree))
        alike.setdefault((jax.tree.structure(tree), shapes), []).append(at)
    return list(alike.values())


def _run_together(together: Sequence[_Ready]) -> list[Outcome]:
    """Cases in one compiled program; a single case in the program that `partway.compare` uses."""
    plan, count = together[0].plan, len(together)
    (name,), seeds = plan.schemes, plan.seeds
    lanes = together if count == 1 else [one for one in together for _ in seeds]
    run = rollout(
        [lane.setting.world for lane in lanes],
        [lane.pair for lane in lanes],
        stream_of(name),
        seeds * count,
        plan.blocks,
        certificates=[lane.setting.certificate for lane in lanes],
        precision=plan.precision,
        traces=is_traced(plan),
        warmup=plan.warmup,
    )
    every = (run.metrics, run.traces, run.clipped, run.by_device)
    own = [jax.tree.map(lambda leaf, i=i: leaf[i * len(seeds) : (i + 1) * len(seeds)], every) for i in range(count)]
    return [_numbers(one, *each) for one, each in zip(together, own, strict=True)]


def _numbers(
    case: _Ready,
    metrics: BlockMetrics,
    traces: DeviceTraces | None,
    clipped: np.ndarray | None,
    sums: DeviceSums | None,
) -> Outcome:
    """The status of a case, and its numbers by seed or, if they exist for all seeds together only, one."""
    plan, bound = case.plan, case.setting.bound
    scenario = plan.scenario
    status, reason, growth = status_of(metrics, case.pair, scenario)
    about = (None, bound) if isinstance(bound, str) else (bound.value, "")
    horizon = Horizon.of(scenario, plan.warmup, *about)

    def series(field: str) -> np.ndarray:
        return np.asarray(getattr(metrics, field))

    numbers = numbers_of(series, horizon)
    outcome: Outcome = {
        "status": status,
        "reason": with_note(reason, clipped, plan),
        "growth_per_block": growth if status == "unstable" else np.nan,
        "discounted_from_start": numbers.discounted_from_start,
        "discounted_after_warmup": numbers.discounted_after_warmup,
        "gap_reason": gap_reason(status, horizon, series),
    }
    if status in ("ok", "unstable"):
        outcome["throughput"] = numbers.throughput
    if status == "ok":
        late = latency_of(metrics, traces, case.setting.world, plan)
        outcome |= _means(numbers, has_gap=not outcome["gap_reason"]) | ({} if late is None else latency_arrays(late))
        devices, blocks = case.setting.world.devices, plan.blocks - plan.warmup
        found = by_device(sums, late, scenario, devices, len(plan.seeds), blocks)
        outcome |= {name: found[name][1] for name in BY_CLASS if name in found}
    return _plain(outcome | _bound_numbers(bound))


def _means(numbers: Numbers, has_gap: bool) -> Outcome:
    """The numbers of a case that is stable."""
    block = numbers.settling_block
    return {
        "cost": numbers.cost,
        "cost_with_warmup": numbers.cost_with_warmup,
        "settling_block": np.nan if block is None else float(block),
        "energy_j_per_task": numbers.energy_j,
        "device_energy_j_per_task": numbers.device_j,
        "server_energy_j_per_task": numbers.server_j,
        "wasted_energy_j_per_task": numbers.wasted_j,
        "offloaded_share": numbers.offloaded,
        **{name: getattr(numbers, name) for name in MEANS},
        **({"gap": numbers.gap} if has_gap else {}),
    }


def _bound_numbers(bound: Bound | str) -> Outcome:
    return {name: value if isinstance(value, str) else float(value) for name, value in bound_numbers(bound).items()}


def _plain(outcome: Outcome) -> Outcome:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in outcome.items()}
