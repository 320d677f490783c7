"""What is computed before a run: the tuned constant policy, and the lower bound that `oracle` consults."""

from dataclasses import replace

import numpy as np

from partway.bound.certificate import Certificate
from partway.bound.lower_bound import Bound, NoBound, OnProgress, lower_bound, silent
from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Constant, Steady
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for
from partway.simulation.rollout import rollout
from partway.system.world import World

MAX_BOUNDED = 10_000
"""Devices above which a comparison goes without its bound, which solves a program for each (about 10 ms)."""
NOTHING = 1e-9
"""A bound of less than this, where a task waiting for a block at every device costs 1, is 0 but for rounding."""
HELD_OUT_SEEDS = (4_000_000_001, 4_000_000_002)
TUNING_BLOCKS = 300
OFFLOADS = np.linspace(0.0, 1.0, 9)
SPEEDS = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0])
MAX_COUNTS = 6


def bound_of(world: World, on_progress: OnProgress = silent) -> Bound | str:
    """The lower bound of a world, or why it has none. `on_progress`: as in `lower_bound`."""
    if world.devices.mean_gain.shape[-1] > MAX_BOUNDED:
        return f"more than {MAX_BOUNDED:,} devices: `partway bound` computes the bound in minutes to hours"
    try:
        bound = lower_bound(world, on_progress=on_progress)
    except NoBound as why:
        return str(why)
    if bound.value <= NOTHING * float(np.sum(world.devices.queue_weight)):
        return "the bound is 0: no task ever arrives, or tasks cost nothing"
    return bound


def prepared_pair(
    name: str, scenario: Scenario, world: World, certificate: Certificate | None, server: str | None = None
) -> ControllerPair:
    """The controllers of a scheme as they start: with what is computed before a run, unless the scenario sets them.

    certificate  of the lower bound in this world, if it has one      server  the scheme whose server it gets; its own
    """
    pair, preparation = pair_for(name, scenario, server), find_scheme(name).preparation
    if name in scenario.schemes or preparation is None:
        return pair
    if preparation == "use_bound":
        return use_bound(pair, certificate)
    return tune_constant(pair, world)


def use_bound(pair: ControllerPair, certificate: Certificate | None) -> ControllerPair:
    """The pair whose devices know the bound's multiplier and tables."""
    return replace(pair, device=replace(pair.device, certificate=certificate))


def tune_constant(pair: ControllerPair, world: World) -> ControllerPair:
    """The pair with the offloaded fraction, started tasks and (for `Steady`) server speed of least average cost.

    Three rounds on a grid: fraction x tasks at a server of full speed, then speeds, then fractions between neighbours.
    The cost is the mean over the second half of TUNING_BLOCKS blocks and HELD_OUT_SEEDS.
    """
    device, server = pair.device, pair.server
    if not isinstance(device, Constant):
        raise TypeError(f"expected Constant, got {type(device).__name__}")
    fastest = float(np.floor(np.max(world.devices.capacity))) + 1.0
    counts = np.unique(np.round(np.linspace(1.0, fastest, MAX_COUNTS)))
    best = _best(pair, world, np.array(np.meshgrid(OFFLOADS, counts, [1.0])).reshape(3, -1))
    if isinstance(server, Steady):
        best = _best(pair, world, np.stack([np.full(len(SPEEDS), best[0]), np.full(len(SPEEDS), best[1]), SPEEDS]))
    step = (OFFLOADS[1] - OFFLOADS[0]) / 4
    nearby = np.clip(best[0] + step * np.arange(-3, 4), 0.0, 1.0)
    best = _best(pair, world, np.stack([nearby, np.full(len(nearby), best[1]), np.full(len(nearby), best[2])]))
    return _constant(pair, *(float(value) for value in best))


def _constant(pair: ControllerPair, offload: float, started: float, speed: float) -> ControllerPair:
    server = replace(pair.server, speed=speed) if isinstance(pair.server, Steady) else pair.server
    return ControllerPair(replace(pair.device, offload=offload, started=started), server)


def _best(pair: ControllerPair, world: World, candidates: np.ndarray) -> np.ndarray:
    """The column (offload, started, speed) of least cost; ties: the first. Padded: all rounds share one program."""
    limit, count = len(OFFLOADS) * MAX_COUNTS, candidates.shape[1]
    padded = np.concatenate([candidates, np.repeat(candidates[:, -1:], limit - count, axis=1)], axis=1)
    pairs = [_constant(pair, *map(float, column)) for column in padded.T for _ in HELD_OUT_SEEDS]
    # the label matters only to a server that draws numbers of its own (`--server`): the same for all candidates
    metrics = rollout(world, pairs, "constant", HELD_OUT_SEEDS * limit, TUNING_BLOCKS).metrics
    costs = np.asarray(metrics.cost())[:, TUNING_BLOCKS // 2 :].mean(axis=1).reshape(limit, -1).mean(axis=1)
    return candidates[:, int(np.argmin(costs[:count]))]
