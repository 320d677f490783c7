"""A group of cases played, wherever a worker is: from plans to the numbers of each case, as JSON types.

The formulas are those of `partway.results.summarise`, seed by seed where that can be: a sweep of one point says what a
comparison says. Latency, which needs every task of every device, is left to comparisons.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from partway.bound.lower_bound import Bound
from partway.errors import InputError, shorten
from partway.experiments.comparison import Plan, applicable, bound_attributes, status_of, with_bound
from partway.experiments.statistics import discounted, settling_block
from partway.experiments.summary import COST_COMPONENTS
from partway.measurement.metrics import BlockMetrics
from partway.schemes import find_scheme, pair_for
from partway.simulation.rollout import run, run_worlds
from partway.simulation.step import ControllerPair
from partway.system.placement import sample_placement
from partway.system.world import World, build

Outcome = dict[str, Any]
"""What became of a case: `status`, `reason`, and where it was played its numbers."""
LOSSES = ("devices", "waiting", "service")
FAILED = "failed"
"""The status of a case that was not played to its end, for a reason that may pass; the next start tries it again."""


@dataclass(frozen=True)
class _Ready:
    """A case before it is played. `why`: it cannot be played, for a reason of its status."""

    plan: Plan
    world: World
    found: Bound | str
    pair: ControllerPair


def play_group(plans: Sequence[Plan]) -> list[Outcome]:
    """Play plans of one scheme each, as many at once as share a compiled program -> what became of each.

    Which cases are played together follows from the plans alone. An exception of one case, such as in a policy from
    outside, is that case's outcome. Raises MemoryError where memory runs out: without the case that it ran out for,
    the others would be played in another program.
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
        played = _guarded(lambda same=same: _played([ready[at] for at in same]))
        for i, at in enumerate(same):
            outcomes[at] = played[i] if isinstance(played, list) else dict(played)
    return [outcome for outcome in outcomes if outcome is not None]


def failed(reason: str, status: str = FAILED) -> Outcome:
    """A case without numbers."""
    return {"status": status, "reason": shorten(" ".join(reason.split()), 300)}


def _guarded(work: Callable[[], Any]) -> Any:
    """What `work` returns, or the outcome that its exception is; want of memory is nobody's outcome."""
    try:
        return work()
    except InputError as error:
        return failed(str(error), "invalid")
    except MemoryError:
        raise
    except Exception as error:  # a policy from outside can fail in any way
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            raise MemoryError(str(error)) from None  # as XLA says it
        return failed(f"{type(error).__name__}: {error}")


def _prepared(plan: Plan) -> _Ready | Outcome:
    """The world with its bound, and the pair, tuned where that is its way."""
    (name,) = plan.schemes
    scheme = find_scheme(name)
    world, found = with_bound(build(plan.scenario, sample_placement(plan.scenario)))
    why = applicable(plan, name, world)
    if why is not None:
        return failed(why, "not_applicable") | _bound_numbers(found)
    pair = pair_for(name, plan.scenario, plan.server)
    if scheme.prepare is not None and name not in plan.scenario.schemes:
        pair = scheme.prepare(pair, world)
    return _Ready(plan, world, found, pair)


def _alike(ready: dict[int, _Ready]) -> list[list[int]]:
    """Cases whose worlds, with their certificates, and pairs agree in shapes and static fields."""
    alike = dict[Any, list[int]]()
    for at, one in ready.items():
        tree = (one.world, one.pair)
        shapes = tuple((np.shape(leaf), np.asarray(leaf).dtype.kind) for leaf in jax.tree.leaves(tree))
        alike.setdefault((jax.tree.structure(tree), shapes), []).append(at)
    return list(alike.values())


def _played(together: Sequence[_Ready]) -> list[Outcome]:
    """Cases in one compiled program; a case that is alone in the one that `partway.compare` uses."""
    plan = together[0].plan
    (name,), seeds, blocks = plan.schemes, plan.seeds, plan.blocks
    if len(together) == 1:
        played = [run(together[0].world, together[0].pair, name, seeds, blocks, precision=plan.precision).sums]
    else:
        worlds, pairs = [one.world for one in together], [one.pair for one in together]
        played = run_worlds(worlds, pairs, name, seeds, blocks, precision=plan.precision)
    return [_numbers(one, sums) for one, sums in zip(together, played, strict=True)]


def _numbers(case: _Ready, sums: BlockMetrics) -> Outcome:
    """What a case says: status, means after warm-up by seed, and what is only known of all seeds together."""
    plan, warmup = case.plan, case.plan.warmup
    status, reason, growth = status_of(sums)
    cost = np.asarray(sums.cost(), np.float64)
    outcome: Outcome = {
        "status": status,
        "reason": reason or "",
        "growth_per_block": growth if status == "unstable" else np.nan,
        "discounted_from_start": discounted(cost, plan.scenario.discount),
        "discounted_after_warmup": discounted(cost[:, warmup:], plan.scenario.discount),
    }
    if status == "ok":
        parts = [_late(sums, part, warmup).mean(axis=1) for part in COST_COMPONENTS]
        block = settling_block(cost)
        outcome |= {
            "cost": np.stack(parts, axis=-1),
            "cost_with_warmup": cost.mean(axis=1),
            "converged_after_blocks": np.nan if block is None else float(block),
            **_shares(sums, warmup),
            **_gaps(case, sums),
        }
    return _plain(outcome | _bound_numbers(case.found))


def _late(sums: BlockMetrics, field: str, warmup: int) -> np.ndarray:
    """(seeds, blocks) of a field after warm-up."""
    return np.asarray(getattr(sums, field), np.float64)[:, warmup:]


def _shares(sums: BlockMetrics, warmup: int) -> dict[str, float]:
    """Energy per task that arrives [J], work sent as a share of that taken up, and what is in use."""

    def total(field: str) -> float:
        return float(_late(sums, field, warmup).sum())

    tasks, started_work = total("arrived"), total("started_work")
    energies = ("device_energy_j", "server_energy_j", "wasted_energy_j")
    used = ("cpu_utilisation", "radio_utilisation", "server_utilisation", "power_mismatch")
    return {
        **{f"{name}_per_task": total(name) / tasks if tasks else np.nan for name in energies},
        "offloaded_share": total("sent") / started_work if started_work else np.nan,
        **{name: float(_late(sums, name, warmup).mean()) for name in used},
    }


def _gaps(case: _Ready, sums: BlockMetrics) -> dict[str, np.ndarray]:
    """(seeds, 3) of what is lost where, as a share of the bound, as in `partway.results.gap`."""
    plan, found = case.plan, case.found
    if isinstance(found, str):
        return {}
    if plan.scenario.objective == "average":
        lost = [_late(sums, f"loss_{part}", plan.warmup).mean(axis=1) for part in LOSSES]
    else:
        lost = [discounted(_late(sums, f"loss_{part}", 0), plan.scenario.discount) for part in LOSSES]
    return {"gap": np.stack(lost, axis=-1) / found.value}


def _bound_numbers(found: Bound | str) -> Outcome:
    return {name: value if isinstance(value, str) else float(value) for name, value in bound_attributes(found).items()}


def _plain(outcome: Outcome) -> Outcome:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in outcome.items()}
