"""What a comparison computes: its plan, checked before anything runs, and the world in which it is computed."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from partway.arguments import PRECISIONS, choice, flag, seed_values, whole_number
from partway.bound.certificate import Certificate
from partway.bound.lower_bound import Bound, silent
from partway.controllers.base import DeviceController
from partway.controllers.diagnosis import check_pair, check_processes, comes_from_outside, explained
from partway.errors import InputError
from partway.experiments.agents import check_agent
from partway.experiments.preparation import bound_of
from partway.measurement.gap import default_warmup
from partway.scenario.loading import load
from partway.scenario.overrides import override_pairs
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, check_hyperparameters, check_running, find_scheme, name_of, pair_for
from partway.simulation.rollout import check_length, trace_blocks
from partway.system.kinds import is_paper
from partway.system.placement import Placement, sample_placement
from partway.system.world import World, build

TRACED_LIMIT = 5_000_000
"""Device-blocks up to which latency is computed task by task."""


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
    half = default_warmup(length) if warmup is None else whole_number("--warmup", warmup, 0, length - 1)
    choice("--precision", precision, PRECISIONS)
    check_hyperparameters(loaded, named_schemes(chosen, serving))
    check_running(changes, chosen)
    check_controllers(loaded, chosen, serving, precision)
    check_world(loaded, length, precision)
    name = os.path.basename(scenario) if isinstance(scenario, str | os.PathLike) else "scenario"
    return Plan(loaded, Path(name).stem, chosen, serving, length, numbers, half, precision, flag("bound", bound))


def scheme_names(schemes: Any) -> tuple[str, ...]:
    """The names of `schemes` as `compare` takes them, each once; those of SCHEMES that run by default for None."""
    if schemes is None:
        return tuple(name for name, scheme in SCHEMES.items() if scheme.by_default)
    try:
        given = [schemes] if isinstance(schemes, str) else list(schemes)
    except TypeError:  # one scheme, or what has a method to iterate and cannot
        given = [schemes]
    if not given:
        raise InputError("--schemes must name at least one scheme")
    return tuple(dict.fromkeys(name_of(one, "--schemes") for one in given))


def named_schemes(schemes: Sequence[str], server: str | None) -> set[str]:
    """Schemes that a user has named: to run them, or for their server."""
    return {*schemes, *([server] if server else [])}


def check_controllers(scenario: Scenario, schemes: Sequence[str], server: str | None, precision: str) -> None:
    """Raise InputError for a hyperparameter that no controller has, and a controller from outside that cannot work."""
    pairs = {name: pair_for(name, scenario, server) for name in schemes}
    for name, pair in pairs.items():
        agent = find_scheme(name).agent
        if agent is not None:
            check_agent(name, agent, pair, scenario, precision)
    outside = {name: pair for name, pair in pairs.items() if comes_from_outside(pair)}
    if outside:
        world = build(scenario, sample_placement(scenario))
        for name, pair in outside.items():
            check_pair(name, pair, world, precision)
            explained(name, pair, trace_blocks, world, pair, precision)


def check_world(scenario: Scenario, blocks: int, precision: str) -> None:
    """Raise InputError for a channel or traffic that is not there, cannot work, or ends before that many blocks."""
    if is_paper(scenario):
        return
    world = build(scenario, sample_placement(scenario))
    check_length(world, blocks)
    check_processes(world, precision)


def is_traced(plan: Plan) -> bool:
    """Whether latency is computed, which needs every device in every block."""
    whole_tasks = plan.scenario.queue == "conserving"
    return whole_tasks and plan.scenario.devices * len(plan.seeds) * plan.blocks <= TRACED_LIMIT


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


def setting_of(scenario: Scenario, bound: bool = True, on_bound: Callable[[str], None] = silent) -> Setting:
    """The world of a scenario, with its lower bound unless `bound` is False. `on_bound`: the bound's `on_progress`."""
    placement = sample_placement(scenario)
    world = build(scenario, placement)
    return Setting(placement, world, bound_of(world, on_bound) if bound else "the bound was not asked for")


def applicable(plan: Plan, name: str, setting: Setting) -> str | None:
    """Why a scheme cannot run in this scenario, or None."""
    scheme = find_scheme(name)
    if plan.scenario.queue == "as_printed" and not scheme.fractional:
        return "it counts whole tasks, and the queue as printed keeps fractions of them"
    if scheme.preparation == "use_bound" and setting.certificate is None:
        return "there is no lower bound in this world"
    return None
