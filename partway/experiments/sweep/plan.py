"""What a sweep consists of: cases, each with a hash of everything that decides its numbers, and groups of cases.

A case is one point of the grid with one scheme, over all seeds. Cases whose worlds agree in shapes and static fields
form a group, which runs in one compiled program. Groups follow from the plan alone, never from what is already
computed, so that a resumed sweep computes the same numbers, bit for bit, as an uninterrupted one.
"""

import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from partway.dnn.profile import read_profile
from partway.errors import InputError, shown
from partway.experiments.comparison import Plan, make_plan
from partway.experiments.store import content_hash
from partway.experiments.sweep.axes import Axis, parse_axes, points
from partway.provenance import made_by
from partway.scenario.loading import load, parse_override
from partway.scenario.schema import LayersTask, Scenario
from partway.schemes import find_scheme, hyperparameters, pair_for
from partway.system.placement import Placement
from partway.system.world import build

MAX_WORLDS = 16
"""Worlds in a group: enough to share a program's overhead, few enough for progress and balance."""
MAX_DEVICE_BLOCKS = 20_000_000
"""Device-blocks in a group of several worlds; a larger world forms a group by itself."""


@dataclass(frozen=True)
class Case:
    """One point of the grid with one scheme: `plan` has that scheme only; `key` is the hash of its content."""

    key: str
    plan: Plan


@dataclass(frozen=True)
class GridCell:
    """A scheme at a point of the grid: the key of its case, or the reason why there is none."""

    point: int
    scheme: str
    key: str | None
    why: str = ""


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, checked.

    base     the comparison that the axes start from       points   overrides at each point, the last axis fastest
    cells    every point with every scheme, in order       groups   every case once, in groups that run together
    """

    base: Plan
    axes: tuple[Axis, ...]
    points: tuple[dict[str, Any], ...]
    cells: tuple[GridCell, ...]
    groups: tuple[tuple[Case, ...], ...]

    def request(self) -> dict[str, Any]:
        """All that makes this sweep what it is, in JSON types."""
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
            "content of policies and profiles": content_hash([cell.key for cell in self.cells]),
        }


def sweep_plan(
    scenario: str | Path | Mapping[str, Any],
    axes: Mapping[str, Any] | Sequence[str],
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: Sequence[str] | None = None,
    **options: Any,
) -> SweepPlan:
    """Check a sweep before anything runs; `options` are those of `partway.experiments.comparison.make_plan`.

    A point that is not a valid scenario becomes a cell without a case. Raises InputError where no point is valid, and
    for everything that `make_plan` and `parse_axes` refuse.
    """
    base = make_plan(scenario, overrides=overrides, schemes=schemes, **options)
    parsed = parse_axes(axes)
    _check_schemes(parsed, base.schemes)
    at = points(parsed)
    # in a comparison --set comes last; here the axes do
    fixed = dict(overrides) if isinstance(overrides, Mapping) else dict(map(parse_override, overrides))
    cells, cases = list[GridCell](), dict[str, Case]()
    for number, point in enumerate(at):
        for name, case in _cases(scenario, {**fixed, **point}, base, options).items():
            if isinstance(case, str):
                cells.append(GridCell(number, name, None, case))
            else:
                cells.append(GridCell(number, name, case.key))
                cases.setdefault(case.key, case)
    if not cases:
        raise InputError(cells[0].why)
    return SweepPlan(base, parsed, tuple(at), tuple(cells), _groups(list(cases.values())))


def _check_schemes(axes: Sequence[Axis], schemes: Sequence[str]) -> None:
    """Refuse an axis over a hyperparameter of a scheme that does not run: all its points would be the same."""
    for axis in axes:
        first, *rest = axis.field.split(".")
        if first == "schemes" and rest and rest[0] not in schemes:
            raise InputError(f"--axis {shown(axis.field)}: {shown(rest[0])} is not among --schemes; add it there")


def key_of(plan: Plan) -> str:
    """Hash of everything that decides the numbers of a plan with one scheme, versions and code included."""
    return content_hash(_content(plan))


@cache
def versions() -> dict[str, str]:
    """Versions of what computes a case, and the hash of the code that its numbers come from."""
    return made_by("partway.experiments.sweep.group")


def _cases(
    scenario: str | Path | Mapping[str, Any], overrides: Mapping[str, Any], base: Plan, options: Mapping[str, Any]
) -> dict[str, Case | str]:
    """The case of every scheme at one point, or why it is invalid."""
    try:
        here = load(scenario, overrides)
    except InputError as error:
        return dict.fromkeys(base.schemes, str(error))
    cases = dict[str, Case | str]()
    for name in base.schemes:
        try:
            plan = make_plan(here, schemes=[name], **options)
            cases[name] = Case(key_of(plan), plan)
        except InputError as error:
            cases[name] = str(error)
    return cases


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
        "policies": [_policy_source(each) for each in controllers],
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
    """Hash of a profile's content, whatever file it is in."""
    try:
        return hashlib.sha256(repr(read_profile(name)).encode()).hexdigest()
    except InputError as error:
        raise InputError(f"device.task.profile: {error}") from None


@cache
def _policy_source(name: str) -> str:
    """Source of a user's policy and of its base classes; "" for a scheme of Partway, which `versions` covers."""
    scheme = find_scheme(name)
    kinds = [*type(scheme.device).__mro__, *type(scheme.server).__mro__]
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in ("partway", "builtins")]
    return "".join(dict.fromkeys(map(_source, own)))


def _source(kind: type) -> str:
    """The file of a class; its name where it was typed in."""
    try:
        return Path(inspect.getfile(kind)).read_text("utf-8")
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def _groups(cases: Sequence[Case]) -> tuple[tuple[Case, ...], ...]:
    """Cases of one scheme and one shape together, in the order of their first, split evenly where they are too many."""
    alike = dict[Any, list[Case]]()
    for case in cases:
        alike.setdefault(_shape(case), []).append(case)
    groups = list[tuple[Case, ...]]()
    for same in alike.values():
        limit = max(1, min(MAX_WORLDS, MAX_DEVICE_BLOCKS // _device_blocks(same[0].plan)))
        size = math.ceil(len(same) / math.ceil(len(same) / limit))
        groups += [tuple(same[i : i + size]) for i in range(0, len(same), size)]
    return tuple(groups)


def _shape(case: Case) -> Any:
    """What a compiled program is specialised to; the case's key where it forms a group by itself anyway."""
    plan = case.plan
    (name,) = plan.schemes
    if 2 * _device_blocks(plan) > MAX_DEVICE_BLOCKS:
        return case.key
    anywhere = np.ones(plan.scenario.devices)
    try:
        tree = (build(plan.scenario, Placement(anywhere, anywhere)), pair_for(name, plan.scenario, plan.server))
    except InputError:
        return case.key
    return name, jax.tree.structure(tree), tuple(np.shape(leaf) for leaf in jax.tree.leaves(tree))


def _device_blocks(plan: Plan) -> int:
    return plan.scenario.devices * len(plan.seeds) * plan.blocks
