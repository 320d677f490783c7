"""What a sweep consists of: cases, each with a hash of everything that decides its numbers, and groups of cases.

A case is one point of the grid with one scheme, over all seeds. Cases whose worlds agree in shapes and static fields
form a group, which runs in one compiled program. Groups follow from the plan alone, never from what is already
computed, so that a resumed sweep computes the same numbers, bit for bit, as an uninterrupted one.
"""

import hashlib
import inspect
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from partway.dnn.profile import read_profile
from partway.errors import InputError, shown
from partway.experiments.plan import (
    TRACED_LIMIT,
    Plan,
    check_controllers,
    check_world,
    is_traced,
    make_plan,
    named_schemes,
)
from partway.experiments.store import content_hash
from partway.experiments.sweep.axes import Axis, parse_axes, points
from partway.provenance import made_by
from partway.scenario.loading import load
from partway.scenario.overrides import override_pairs
from partway.scenario.schema import LayersTask, Scenario
from partway.schemes import check_hyperparameters, check_running, find_scheme, hyperparameters, pair_for, refuse_agents
from partway.system.kinds import channel_of, traffic_of
from partway.system.placement import Placement, sample_placement
from partway.system.world import World, build

MAX_WORLDS = 16
"""Worlds in a group: enough to share a program's overhead, few enough for progress and balance."""
MAX_DEVICE_BLOCKS = 20_000_000
"""Device-blocks in a group of several worlds without latency; a larger world forms a group by itself."""


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
            "versions": computed_by(),
            "content of policies and profiles": content_hash([cell.key for cell in self.cells]),
        }


def sweep_plan(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    axes: Mapping[str, Any] | Sequence[str],
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: Any = None,
    **options: Any,
) -> SweepPlan:
    """Check a sweep before anything runs; `options` are those of `partway.experiments.plan.make_plan`.

    A point that is not a valid scenario becomes a cell without a case. Raises InputError where no point is valid, for
    an axis that changes nothing, and for everything that `make_plan` and `parse_axes` refuse.
    """
    fixed, parsed = override_pairs(overrides), parse_axes(axes)
    base = make_plan(scenario, overrides=fixed, schemes=schemes, **options)
    refuse_agents(base.schemes, "sweep")
    check_running({axis.field: axis.values[0] for axis in parsed}, base.schemes, "--axis")
    _check_effect(scenario, fixed, parsed)
    at, named = points(parsed), named_schemes(base.schemes, base.server)
    cells, cases, shapes = list[GridCell](), dict[str, Case](), dict[str, Any]()
    for number, point in enumerate(at):
        here = _scenario_at(scenario, {**fixed, **point}, named)  # in a comparison --set comes last; here the axes do
        for name in base.schemes:
            case = here if isinstance(here, str) else _case(replace(base, scenario=here, schemes=(name,)), shapes)
            if isinstance(case, str):
                cells.append(GridCell(number, name, None, case))
            else:
                cells.append(GridCell(number, name, case.key))
                cases.setdefault(case.key, case)
    if not cases:
        raise InputError(cells[0].why)
    return SweepPlan(base, parsed, tuple(at), tuple(cells), _groups(list(cases.values()), shapes))


def _check_effect(
    scenario: str | Path | Mapping[str, Any] | Scenario, fixed: Mapping[str, Any], axes: Sequence[Axis]
) -> None:
    """Refuse an axis that changes no world, such as macs_per_cycle where no task is a network: all points are equal."""
    for axis in axes:
        if len(axis.values) < 2 or axis.field.startswith("schemes."):
            continue
        corners = points([replace(other, values=_extremes(other.values)) for other in axes if other is not axis])
        if not any(_matters(scenario, {**fixed, **corner}, axis) for corner in corners):
            raise InputError(f"--axis {shown(axis.field)}: changes nothing in this scenario; choose another field")


def _extremes(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first and the last of numbers; all of other values, such as tasks, each of which may make a difference."""
    return (values[0], values[-1]) if all(isinstance(value, int | float) for value in values) else values


def _matters(scenario: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any], axis: Axis) -> bool:
    """Whether the values of an axis make different worlds, or some make none."""
    worlds = (_world_at(scenario, {**overrides, axis.field: value}) for value in axis.values)
    first = next(worlds)
    return first is None or not all(_same(first, other) for other in worlds)


def _world_at(
    scenario: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any]
) -> tuple[World, Placement] | None:
    """The world at a point, None where there is none."""
    try:
        here = load(scenario, overrides)
        placement = sample_placement(here)
        return build(here, placement), placement
    except InputError:
        return None


def _same(one: tuple[World, Placement], other: tuple[World, Placement] | None) -> bool:
    if other is None or jax.tree.structure(one[0]) != jax.tree.structure(other[0]):
        return False
    pairs = zip(jax.tree.leaves(one[0]), jax.tree.leaves(other[0]), strict=True)
    return np.array_equal(one[1].distance_m, other[1].distance_m) and all(np.array_equal(a, b) for a, b in pairs)


def key_of(plan: Plan) -> str:
    """Hash of everything that decides the numbers of a plan with one scheme, versions and code included."""
    return content_hash(_content(plan))


@cache
def computed_by() -> dict[str, str]:
    """Versions of what computes a case, and the hash of the code that its numbers come from."""
    return made_by("partway.experiments.sweep.group")


def _scenario_at(
    scenario: str | Path | Mapping[str, Any] | Scenario, overrides: Mapping[str, Any], named: Collection[str]
) -> Scenario | str:
    """The scenario at one point, or why it is invalid. `named`: see `check_hyperparameters`."""
    try:
        here = load(scenario, overrides)
        check_hyperparameters(here, named)
        return here
    except InputError as error:
        return str(error)


def _case(plan: Plan, shapes: dict[str, Any]) -> Case | str:
    """The case of a plan with one scheme, or why it is invalid. `shapes`: by key, the `_shape` of those found valid.

    A policy from outside is traced once for every shape.
    """
    try:
        case = Case(key_of(plan), plan)
        if case.key not in shapes:
            shape = _shape(case)
            if shape not in shapes.values():
                check_controllers(plan.scenario, plan.schemes, plan.server, plan.precision)
            check_world(plan.scenario, plan.blocks, plan.precision)
            shapes[case.key] = shape
        return case
    except InputError as error:
        return str(error)


def _content(plan: Plan) -> dict[str, Any]:
    (name,) = plan.schemes
    scenario = plan.scenario.model_dump(mode="python")
    for device in (scenario["device"], *(group["device"] for group in scenario["group"])):
        device["task"].pop("profile", None)  # its content counts, not where it is
    files = [table.pop("file") for table in (scenario["radio"]["fading"], scenario["traffic"]) if "file" in table]
    given = scenario.pop("schemes").get(name, {})
    controllers = [name] if plan.server is None else [name, plan.server]
    return {
        "scenario": scenario,
        "scheme": name,
        "server": plan.server,
        "given": given,
        "defaults": [hyperparameters(each) for each in controllers],
        "policies": [_policy_source(each) for each in controllers],
        "processes": [_source_of(type(one)) for one in (channel_of(plan.scenario), traffic_of(plan.scenario))],
        "files": [_file(path) for path in files],
        "profiles": [_profile(task.profile) for task in _tasks(plan.scenario) if isinstance(task, LayersTask)],
        "blocks": plan.blocks,
        "seeds": plan.seeds,
        "warmup": plan.warmup,
        "precision": plan.precision,
        "versions": computed_by(),
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
    """Source of a user's policy and of its base classes; "" for a scheme of Partway, which `computed_by` covers."""
    scheme = find_scheme(name)
    return _source_of(type(scheme.device), type(scheme.server))


@cache
def _source_of(*kinds: type) -> str:
    """Source of classes from outside and of their base classes."""
    every = [each for kind in kinds for each in kind.__mro__]
    own = [kind for kind in every if kind.__module__.partition(".")[0] not in ("partway", "builtins", "typing")]
    return "".join(dict.fromkeys(map(_source, own)))


@cache
def _file(path: str) -> str:
    """Hash of the content of a trace."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"radio.fading.file {shown(path, 100)} cannot be read ({error.strerror})") from None


def _source(kind: type) -> str:
    """The file of a class; its name where it was typed in."""
    try:
        return Path(inspect.getfile(kind)).read_text("utf-8")
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def _groups(cases: Sequence[Case], shapes: Mapping[str, Any]) -> tuple[tuple[Case, ...], ...]:
    """Cases of one scheme and one shape together, in the order of their first, split evenly where they are too many."""
    alike = dict[Any, list[Case]]()
    for case in cases:
        alike.setdefault(shapes[case.key], []).append(case)
    groups = list[tuple[Case, ...]]()
    for same in alike.values():
        # what latency is computed from takes memory
        most = TRACED_LIMIT if is_traced(same[0].plan) else MAX_DEVICE_BLOCKS
        limit = max(1, min(MAX_WORLDS, most // _device_blocks(same[0].plan)))
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
