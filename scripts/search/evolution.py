"""CMA-ES from the best settings that are known: several strategies side by side, so that all cores have work.

A strategy has one aim and stays among the settings of one compiled program. It works on the shares of the ranges; a
share beyond an end is reflected there. Every generation has replicates of its own, the same for all its settings: what
is good on a few replicates by chance is not so in the next generation. The last rungs measure the best of all again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from cmaes import CMA

from partway.paper.figure_runs import Sizes
from partway.paper.search.jobs import SearchJob
from partway.paper.search.score import needed
from partway.paper.search.space import Setting, program_of, setting_at, space
from search.data import Tried
from search.stages import SHORT, Halving, Rung, Runner, halve, outcomes, work

FIRST_SEED = 6000
"""Of the seeds and placements of the generations."""
SIGMA, EDGE = 0.15, 0.02
"""Standard deviation at first, in shares of the ranges, and how far from their ends the mean then is."""
Aim = tuple[str, ...]
"""Claims whose weakest comparison is to be as strong as possible; of none the sum over all claims (`Tried.score`)."""


@dataclass(frozen=True)
class Evolution:
    """A stage of CMA-ES.

    figures, aims  what is measured, and for what          starts        strategies for each aim
    population, generations, replicates                    sizes         of the runs in a generation
    rungs          of the halving at the end; the first has how many settings, equally many of each strategy
    """

    figures: tuple[str, ...]
    aims: tuple[Aim, ...]
    starts: int
    population: int
    generations: int
    replicates: int
    rungs: tuple[Rung, ...]
    sizes: Sizes = SHORT

    def seeds(self, generation: int) -> tuple[int, ...]:
        """The replicates of a generation."""
        first = FIRST_SEED + generation * self.replicates
        return tuple(range(first, first + self.replicates))

    def work(self, candidate: str) -> float:
        """Device-blocks of the stage."""
        blank = SearchJob("", candidate, ((),), replace(self.sizes, seeds=self.seeds(0)), self.figures)
        settings = len(self.aims) * self.starts * self.population * self.generations
        return settings * blank.device_blocks() + work(candidate, Halving(self.figures, self.rungs))


@dataclass
class Strategy:
    """CMA-ES for an aim from a setting, whose program is kept.

    found  value of everything that it has asked for, larger is better
    """

    candidate: str
    start: Setting
    aim: Aim
    population: int
    seed: int
    found: dict[Setting, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known, given = space(self.candidate), dict(self.start)
        self._free = [name for name, one in known.items() if not one.program]
        self._fixed = {name: one.where(given[name]) for name, one in known.items() if one.program}
        mean = np.clip([known[name].where(given[name]) for name in self._free], EDGE, 1.0 - EDGE)
        self._cma = CMA(mean, SIGMA, seed=self.seed, population_size=self.population)
        self._asked = list[np.ndarray]()

    def ask(self) -> list[Setting]:
        """The next generation."""
        self._asked = [self._cma.ask() for _ in range(self.population)]
        return [self._setting(point) for point in self._asked]

    def tell(self, tried: Sequence[Tried]) -> None:
        """What the generation has reached, in its order."""
        values = [value_of(one, self.aim) for one in tried]
        self._cma.tell([(point, -value) for point, value in zip(self._asked, values, strict=True)])
        self.found |= {one.setting: value for one, value in zip(tried, values, strict=True)}

    def finalists(self, count: int) -> list[Setting]:
        """Where its mean has come to, and the best of all that it has asked for."""
        ranked = sorted(self.found, key=self.found.__getitem__, reverse=True)
        return list(dict.fromkeys([self._setting(self._cma.mean), *ranked]))[:count]

    def _setting(self, point: np.ndarray) -> Setting:
        shares = dict(zip(self._free, reflected(point).tolist(), strict=True))
        return setting_at(self.candidate, self._fixed | shares)


def reflected(point: np.ndarray) -> np.ndarray:
    """The point in [0, 1] that a point outside is reflected to at the ends."""
    return 1.0 - np.abs(1.0 - np.mod(point, 2.0))


def value_of(one: Tried, aim: Aim) -> float:
    """How well a setting serves an aim."""
    return min(one.weakest[name] for name in aim) / needed() if aim else one.score()


def starts(candidate: str, known: Sequence[Tried], aim: Aim, count: int) -> list[Setting]:
    """The best `count` settings for an aim on most replicates, of different programs as far as there are any."""
    most = max(one.replicates for one in known)
    ranked = sorted((one for one in known if one.replicates == most), key=lambda one: value_of(one, aim), reverse=True)
    first = {program_of(candidate, one.setting): one.setting for one in reversed(ranked)}
    others = [one.setting for one in ranked if one.setting not in first.values()]
    order = {one.setting: place for place, one in enumerate(ranked)}
    return [*sorted(first.values(), key=order.__getitem__), *others][:count]


def evolve(runner: Runner, known: Sequence[Tried], plan: Evolution) -> list[Tried]:
    """Every setting that was asked for, and what the finalists have reached on the last rung that they were on."""
    places = [(aim, start) for aim in plan.aims for start in starts(runner.candidate, known, aim, plan.starts)]
    strategies = [
        Strategy(runner.candidate, start, aim, plan.population, seed) for seed, (aim, start) in enumerate(places)
    ]
    tried = dict[Setting, Tried]()
    for generation in range(plan.generations):
        asked = [one.ask() for one in strategies]
        settings = [setting for each in asked for setting in each]
        measured = runner.measure(settings, plan.sizes, plan.seeds(generation))
        reached = outcomes(settings, measured, plan.sizes, runner.figures)
        for one, own in zip(strategies, asked, strict=True):
            one.tell([reached[setting] for setting in own])
        tried |= reached
    each = plan.rungs[0].settings // len(strategies)
    finalists = list(dict.fromkeys(setting for one in strategies for setting in one.finalists(each)))
    return list((tried | {one.setting: one for one in halve(runner, finalists, plan.rungs)}).values())
