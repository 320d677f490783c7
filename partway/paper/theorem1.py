"""Theorem 1, measured: the cost of separate decisions of devices and server, by fleet size and server energy weight.

Theorem 1 says that devices and server solve the joint problem by each solving its own. Its proof holds the server's
queue and rates fixed while devices decide, but their decisions are what arrives there (trap T4). `decoupled` is the
scheme that the theorem calls optimal; `priced` adds one price. Both run at the same discount, beside the tuned
`constant` and a lower bound for every policy. The average cost is measured, whatever the scenario's objective is.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import xarray as xr

from partway.experiments.failures import FAILED, INVALID
from partway.experiments.statistics import Estimate
from partway.experiments.sweep.dataset import axis_names, cost_of, gap_of, grid
from partway.experiments.sweep.run import Progress, sweep
from partway.scenario.loading import load

FLEETS = (4, 10, 20, 50, 100, 200)
WEIGHTS = (2.5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2)
"""w2 [1/J], from the preset's to a server whose energy dominates the cost."""
SCHEMES = ("decoupled", "priced")
VARIANTS = {"average": "gamma = 1", "discounted": "the scenario's gamma"}
"""Criteria of the learners, in words."""
CONSTANT = "constant"
"""Does not learn, so that it has no criterion."""


@dataclass(frozen=True)
class Point:
    """One scheme in one world.

    axis, value  what was varied, "devices" or "weights.server_energy", and its value
    criterion    of the learners: "average" or "discounted"
    status       ok, unstable, failed or invalid; of the last two `no_gap` has the reason
    bound        on the average cost of a block; NaN where there is none, for the reason in `no_gap`
    cost         of a block after warm-up
    gap          above the bound, as a share of it; NaN where there is none
    """

    axis: str
    value: float
    scheme: str
    criterion: str
    status: str
    bound: float
    cost: Estimate
    gap: Estimate
    no_gap: str | None

    @property
    def kind(self) -> tuple[str, str]:
        """(scheme, criterion): a line of the figure, a column of the table."""
        return self.scheme, self.criterion


def label(kind: tuple[str, str]) -> str:
    """A kind in words."""
    scheme, criterion = kind
    return f"{scheme}, tuned" if scheme == CONSTANT else f"{scheme}, {VARIANTS[criterion]}"


def measure(
    scenario: str = "paper",
    overrides: Sequence[str] = (),
    *,
    fleets: Sequence[int] = FLEETS,
    weights: Sequence[float] = WEIGHTS,
    blocks: int = 4000,
    seeds: int | Sequence[int] = 8,
    executor: Executor | None = None,
    on_progress: Callable[[int], None] = lambda cases: None,
) -> list[Point]:
    """`decoupled` and `priced`, learning by either criterion, in every world of the two axes.

    executor     as in `sweep`: as many processes as cores if not given
    on_progress  called with the number of cases that have just finished
    """
    points, base = list[Point](), load(scenario, overrides)
    axes = {name: values for name, values in (("devices", fleets), ("weights.server_energy", weights)) if values}
    for criterion in VARIANTS:
        fixed = [*(f"schemes.{scheme}.criterion={criterion}" for scheme in SCHEMES), "objective=average"]
        for axis, values in axes.items():
            dataset = sweep(
                base,
                {axis: values},
                overrides=fixed,
                schemes=_schemes(criterion),
                blocks=blocks,
                seeds=seeds,
                executor=executor,
                on_progress=_increments(on_progress),
            )
            points += _points(dataset, axis, criterion)
    return points


def cases(fleets: Sequence[int] = FLEETS, weights: Sequence[float] = WEIGHTS) -> int:
    """The sum of what `measure` passes to its `on_progress`."""
    return sum(len(_schemes(criterion)) for criterion in VARIANTS) * (len(fleets) + len(weights))


def _schemes(criterion: str) -> tuple[str, ...]:
    """The schemes that run under a criterion: the constant once."""
    return (*SCHEMES, CONSTANT) if criterion == "average" else SCHEMES


def _increments(on_progress: Callable[[int], None]) -> Callable[[Progress], None]:
    """A sweep's progress as the number of cases since the last call."""
    before = 0

    def report(progress: Progress) -> None:
        nonlocal before
        on_progress(progress.done - before)
        before = progress.done

    return report


def _points(dataset: xr.Dataset, axis: str, criterion: str) -> list[Point]:
    (name,) = axis_names(dataset)
    points: list[Point] = []
    for at in grid(dataset):
        here = dataset.isel(at)
        for scheme in map(str, dataset["scheme"].values):
            status, no_gap = (str(here[name].sel(scheme=scheme).values) for name in ("status", "gap_reason"))
            if status in (FAILED, INVALID):
                no_gap = str(here["reason"].sel(scheme=scheme).values)
            value, bound = float(here[name]), float(here["bound"])
            estimates = cost_of(dataset, at, scheme), gap_of(dataset, at, scheme)
            points.append(Point(axis, value, scheme, criterion, status, bound, *estimates, no_gap or None))
    return points
