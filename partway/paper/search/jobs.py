"""Jobs of the search: what the claims compare, measured for a few settings on a few replicates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from partway.measurement.gap import discounted
from partway.paper.claims import ITERATIONS, PHASES, PROPOSED, QUIET, TOLERANCE, Term
from partway.paper.figure_runs import DEVICES, KINDS, STOPPING, Sizes, baseline, converged
from partway.paper.search import program
from partway.paper.search.program import Lane
from partway.paper.search.score import Value, values
from partway.paper.search.space import Setting, overrides
from partway.pytree import host_array
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import pair_for, stream_of
from partway.system.placement import sample_placement
from partway.system.world import World, build

MEASURED = "measured"
"""Name of the array (settings, replicates, values) of `partway.paper.search.score.values`."""


@dataclass(frozen=True)
class Point:
    """Runs of a figure: those of a scheme, PROPOSED or one of BASELINES, with so many devices."""

    figure: str
    scheme: str
    devices: int
    arrival_prob: float
    blocks: int

    @property
    def at(self) -> float:
        """Where it is on the axis of Figures 8 and 9."""
        return self.arrival_prob if self.figure == "8" else self.devices


@dataclass(frozen=True)
class SearchJob:
    """Some settings of a candidate, on the replicates `sizes.seeds`, for the claims on `figures`."""

    stage: str
    candidate: str
    settings: tuple[Setting, ...]
    sizes: Sizes
    figures: tuple[str, ...]

    def label(self) -> str:
        """File name stem."""
        return f"{self.stage}-{self.candidate}"

    def scenario(self) -> Scenario:
        """What the settings change."""
        return load("paper")

    def device_blocks(self) -> int:
        """Its size: devices x blocks x runs."""
        own = points(self.sizes, self.figures, self.scenario().device.arrival_prob)
        return len(self.settings) * len(self.sizes.seeds) * sum(point.devices * point.blocks for point in own)

    def run(self) -> dict[str, np.ndarray]:
        """Measure."""
        scenarios = [load("paper", overrides(self.candidate, one)) for one in self.settings]
        found, shape = dict[Value, np.ndarray](), (len(self.settings), len(self.sizes.seeds))
        for point in points(self.sizes, self.figures, scenarios[0].device.arrival_prob):
            found |= self._measured(point, scenarios)
        known = values(self.sizes.points, self.figures)
        return {MEASURED: np.stack([found[one].reshape(shape) for one in known], axis=-1)}

    def _measured(self, point: Point, scenarios: Sequence[Scenario]) -> dict[Value, np.ndarray]:
        """(lanes,) of everything that these runs are for; the lanes are settings times replicates."""
        seeds, lanes = self.sizes.seeds, list[Lane]()
        for scenario in scenarios:
            scheme, own = configured(self.candidate, point, scenario)
            lanes += [
                Lane(world, pair_for(scheme, own), seed) for seed, world in zip(seeds, worlds(own, seeds), strict=True)
            ]
        stream = stream_of(configured(self.candidate, point, scenarios[0])[0])
        if point.figure == "6":
            changes = program.changes(lanes, stream, point.blocks)
            parties = dict(zip(ITERATIONS, (changes.devices, changes.server), strict=True))
            return {
                Value(Term("iterations", point.scheme, algorithm), "6", ""): converged(
                    np.asarray(change), TOLERANCE, QUIET
                )
                for algorithm, change in parties.items()
            }
        cost = program.costs(lanes, stream, point.blocks).astype(np.float64)
        if point.figure == "7":
            return dict(_means(point, self.sizes, cost))
        return dict(_sums(point, self.sizes, cost, [one.discount for one in scenarios]))


def _means(point: Point, sizes: Sizes, cost: np.ndarray) -> Iterator[tuple[Value, np.ndarray]]:
    """The mean costs of a block in the windows of Figure 7, of (lanes, blocks)."""
    for one in values(sizes.points, ("7",)):
        if one.term.scheme == point.scheme and isinstance(one.term.at, tuple):
            yield one, cost[:, slice(*one.term.at)].mean(axis=-1)


def _sums(
    point: Point, sizes: Sizes, cost: np.ndarray, discounts: Sequence[float]
) -> Iterator[tuple[Value, np.ndarray]]:
    """The discounted sums of Figures 8 and 9, of (lanes, blocks); a discount for each setting."""
    windows = slice(None, sizes.horizon), slice(sizes.training, None)
    by_setting = np.split(cost, len(discounts))
    for phase, window in zip(PHASES, windows, strict=True):
        own = [discounted(each[:, window], discount) for each, discount in zip(by_setting, discounts, strict=True)]
        yield Value(Term("sum", point.scheme, point.at), point.figure, phase), np.concatenate(own)


def points(sizes: Sizes, figures: Sequence[str], arrival_prob: float) -> list[Point]:
    """All runs of the figures; b is `arrival_prob` but in Figure 8."""
    made, sums = list[Point](), sizes.training + sizes.horizon
    for figure in figures:
        if figure == "8":
            where = [(DEVICES["8"], prob, sums) for prob in sizes.points.arrival_probs]
        elif figure == "9":
            where = [(devices, arrival_prob, sums) for devices in sizes.points.fleets]
        else:
            where = [(DEVICES[figure], arrival_prob, sizes.blocks)]
        schemes = dict.fromkeys(one.term.scheme for one in values(sizes.points, (figure,)))
        made += [Point(figure, scheme, *each) for scheme in schemes for each in where]
    return made


def configured(candidate: str, point: Point, scenario: Scenario) -> tuple[str, Scenario]:
    """The row of SCHEMES that runs at a point, and a setting's scenario with what it sets there."""
    scheme, shared = candidate, ()
    if point.scheme != PROPOSED:
        scheme, shared = baseline(point.scheme, candidate, KINDS[0], scenario)
    own = {**scenario.schemes.get(scheme, {}), **dict(shared)}
    if point.figure == "6" and scheme in STOPPING:
        own["stop"] = False
    device = scenario.device.model_copy(update={"arrival_prob": point.arrival_prob})
    changed = {"devices": point.devices, "device": device, "schemes": {**scenario.schemes, scheme: own}}
    return scheme, scenario.model_copy(update=changed)


def worlds(scenario: Scenario, seeds: Sequence[int]) -> list[World]:
    """The world of every replicate, which has its own placement."""
    made = program.without_plans(build(scenario, sample_placement(scenario)))
    gains = [sample_placement(scenario.model_copy(update={"placement_seed": seed})).mean_gain_per_w for seed in seeds]
    return [replace(made, devices=replace(made.devices, mean_gain=host_array(gain))) for gain in gains]
