"""What a sweep consists of: cases, each with a hash of all that decides its numbers, and groups that share a program.

A case is one point of the grid with one scheme, over all seeds. Cases whose worlds agree in shapes and static fields
form a group, which is played as one. Groups follow from the plan alone, never from what is already there, so that a
sweep that goes on makes the same numbers, bit for bit, as one that was never stopped.
"""

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from partway import provenance
from partway.dnn.profile import read_profile
from partway.errors import InputError, shown
from partway.experiments.comparison import Plan, make_plan
from partway.experiments.sweep.axes import Axis, axes_of, points
from partway.scenario.loading import load, parse_override
from partway.scenario.schema import LayersTask, Scenario
from partway.schemes import find_scheme, hyperparameters, pair_for
from partway.system.placement import Placement
from partway.system.world import build

MOST_WORLDS = 16
"""Worlds in a group: enough to share a program's overhead, few enough for progress and balance."""
MOST_DEVICE_BLOCKS = 20_000_000
"""Device-blocks of a group of several worlds; what is larger alone is a group of its own."""


@dataclass(frozen=True)
class Case:
    """One point of the grid with one scheme: `plan` has that scheme only; `key` is the hash of its content."""

    key: str
    plan: Plan


@dataclass(frozen=True)
class GridCell:
    """Where a case stands in the grid: its key, or why there is none."""

    point: int
    scheme: str
    key: str | None
    why: str = ""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, checked.

    base    the comparison that the axes start from      points  what is overridden at each, the last axis fastest
    cells   every point with every scheme, in order      groups  every case once, in groups that are played as one
    """

    base: Plan
    axes: tuple[Axis, ...]
    points: tuple[dict[str, Any], ...]
    cells: tuple[GridCell, ...]
    groups: tuple[tuple[Case, ...], ...]

    def description(self) -> dict[str, Any]:
        """All that makes this sweep what it is, as JSON types."""
        return {
            "scenario": self.base.scenario.to_toml(),
            "axes": [[axis.field, list(axis.values)] for axis in self.axes],
            "schemes": list(self.base.schemes),
            "server": self.base.server,
            "blocks": self.base.blocks,
            "seeds": list(self.base.seeds),
            "warmup": self.base.warmup,
            "precision": self.base.precision,
            "versions": versions(),
            "cases": hashlib.sha256(canonical([cell.key for cell in self.cells]).encode()).hexdigest(),
        }


def sweep_plan(
    scenario: str | Path | Mapping[str, Any],
    over: Mapping[str, Any] | Sequence[str],
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: Sequence[str] | None = None,
    **how: Any,
) -> SweepPlan:
    """Check a sweep before anything runs; `how` is what `partway.comparison.plan` takes.

    A point that is no valid scenario is a cell without a case. Raises InputError where no point is one, and for all
    that `make_plan` refuses.
    """
    base = make_plan(scenario, overrides=overrides, schemes=schemes, **how)
    axes = axes_of(over)
    _check_schemes(axes, base.schemes)
    at = points(axes)
    # in a comparison --set comes last; here the axes do
    fixed = dict(overrides) if isinstance(overrides, Mapping) else dict(map(parse_override, overrides))
    cells, cases = list[GridCell](), dict[str, Case]()
    for number, point in enumerate(at):
        for name, found in _cases(scenario, {**fixed, **point}, base, how).items():
            if isinstance(found, str):
                cells.append(GridCell(number, name, None, found))
            else:
                cells.append(GridCell(number, name, found.key))
                cases.setdefault(found.key, found)
    if not cases:
        raise InputError(cells[0].why)
    return SweepPlan(base, axes, tuple(at), tuple(cells), _groups(list(cases.values())))


def _check_schemes(axes: Sequence[Axis], schemes: Sequence[str]) -> None:
    """Refuse an axis over a hyperparameter of a scheme that does not play: all its points would be the same."""
    for axis in axes:
        first, *rest = axis.field.split(".")
        if first == "schemes" and rest and rest[0] not in schemes:
            raise InputError(f"--over {shown(axis.field)}: {shown(rest[0])} is not among --schemes; add it there")


def canonical(value: Any) -> str:
    """JSON with one spelling for one content: sorted names, no spaces, floats as Python repeats them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=np.generic.item)


def key_of(plan: Plan) -> str:
    """SHA-256 of all that decides the numbers of a plan with one scheme, versions and code included."""
    return hashlib.sha256(canonical(_content(plan)).encode()).hexdigest()[:32]


@cache
def versions() -> dict[str, str]:
    """Versions of what computes, and a hash of the source that a case's numbers come from."""
    return {**provenance.versions(), "code": provenance.code_hash("partway.experiments.sweep.group")}


def _cases(
    scenario: str | Path | Mapping[str, Any], overrides: Mapping[str, Any], base: Plan, how: Mapping[str, Any]
) -> dict[str, Case | str]:
    """The case of every scheme at one point, or why it is invalid."""
    try:
        here = load(scenario, overrides)
    except InputError as error:
        return dict.fromkeys(base.schemes, str(error))
    found = dict[str, Case | str]()
    for name in base.schemes:
        try:
            plan = make_plan(here, schemes=[name], **how)
            found[name] = Case(key_of(plan), plan)
        except InputError as error:
            found[name] = str(error)
    return found


def _content(plan: Plan) -> dict[str, Any]:
    (name,) = plan.schemes
    scenario = plan.scenario.model_dump(mode="python")
    given = scenario.pop("schemes").get(name, {})
    controllers = [name] if plan.server is None else [name, plan.server]
    return {
        "scenario": scenario,
        "scheme": name,
        "server": plan.server,
        "given": given,
        "defaults": [hyperparameters(each) for each in controllers],
        "outside": [_outside(each) for each in controllers],
        "profiles": [_profile(task.profile) for task in _tasks(plan.scenario) if isinstance(task, LayersTask)],
        "blocks": plan.blocks,
        "seeds": plan.seeds,
        "warmup": plan.warmup,
        "precision": plan.precision,
        "versions": versions(),
    }


def _tasks(scenario: Scenario) -> list[Any]:
    return [kind.task for kind in ([group.device for group in scenario.group] or [scenario.device])]


@cache
def _profile(name: str) -> str:
    """What a profile says, whatever file it stands in."""
    try:
        return hashlib.sha256(repr(read_profile(name)).encode()).hexdigest()
    except InputError as error:
        raise InputError(f"device.task.profile: {error}") from None


@cache
def _outside(name: str) -> str:
    """The sources of a policy from outside, those of its base classes too; nothing for what ships."""
    scheme = find_scheme(name)
    kinds = [*type(scheme.device).__mro__, *type(scheme.server).__mro__]
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in ("partway", "builtins")]
    return "".join(dict.fromkeys(map(_source, own)))


def _source(kind: type) -> str:
    """The file of a class, or the class alone where it was typed in."""
    try:
        return Path(inspect.getfile(kind)).read_text("utf-8")
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def _groups(cases: Sequence[Case]) -> tuple[tuple[Case, ...], ...]:
    """Cases of one scheme and one shape together, in the order of their first, split where they become too many."""
    alike = dict[Any, list[Case]]()
    for case in cases:
        alike.setdefault(_shape(case), []).append(case)
    groups = list[tuple[Case, ...]]()
    for same in alike.values():
        most = max(1, min(MOST_WORLDS, MOST_DEVICE_BLOCKS // _device_blocks(same[0].plan)))
        even = math.ceil(len(same) / math.ceil(len(same) / most))
        groups += [tuple(same[i : i + even]) for i in range(0, len(same), even)]
    return tuple(groups)


def _shape(case: Case) -> Any:
    """What a compiled program is specialised to; the case itself where it would be alone anyway."""
    plan = case.plan
    (name,) = plan.schemes
    if 2 * _device_blocks(plan) > MOST_DEVICE_BLOCKS:
        return case.key
    nowhere = np.ones(plan.scenario.devices)
    try:
        tree = (build(plan.scenario, Placement(nowhere, nowhere)), pair_for(name, plan.scenario, plan.server))
    except InputError:
        return case.key
    return name, jax.tree.structure(tree), tuple(np.shape(leaf) for leaf in jax.tree.leaves(tree))


def _device_blocks(plan: Plan) -> int:
    return plan.scenario.devices * len(plan.seeds) * plan.blocks
