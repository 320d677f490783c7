"""Theorem 1, measured: what leaving devices and server alone costs, by number of devices and server energy weight.

Theorem 1 says that each device and the server, solving their own problems, solve the whole. It holds the server's queue
fixed while devices choose, but their choices are what arrives there (trap T4). `decoupled` is what it promises to be
optimal; `priced` is the same plus one price; both at the same discount, beside the tuned `constant` and a lower bound
for every policy. The average cost is measured, whatever the scenario's objective is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from partway.experiments.comparison import compare
from partway.experiments.statistics import Estimate
from partway.experiments.summary import Summary, summarise

FLEETS = (4, 10, 20, 50, 100, 200)
WEIGHTS = (2.5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2)
"""w2 [1/J], from the preset's up to a server whose energy decides everything."""
SCHEMES = ("decoupled", "priced")
VARIANTS = {"average": "gamma = 1", "discounted": "the scenario's gamma"}
CONSTANT = "constant"
"""Learns nothing, so its aim says nothing."""


@dataclass(frozen=True)
class Point:
    """One scheme in one world.

    axis, value  what was varied and to what: "devices" or "weights.server_energy"
    aim          discount of the learners: "average" or "discounted"
    status       ok or unstable                gap  above the bound, as a share of it (NaN where there is none)
    bound        on the average cost of a block; NaN where there is none, for the reason in `no_gap`
    cost         of a block after warm-up
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
        """What a line of the figure and a column of the table are for."""
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
    on_progress: Callable[[int], None] = lambda cases: None,
) -> list[Point]:
    """`decoupled` and `priced`, learning at gamma = 1 and at the scenario's, in every world of the two axes."""
    worlds = [("devices", value) for value in fleets] + [("weights.server_energy", value) for value in weights]
    points: list[Point] = []
    for axis, value in worlds:
        for criterion in VARIANTS:
            changed = [*overrides, f"{axis}={value}", *(f"schemes.{scheme}.aim={criterion}" for scheme in SCHEMES)]
            changed.append("objective=average")
            schemes = (*SCHEMES, CONSTANT) if criterion == "average" else SCHEMES
            dataset = compare(scenario, overrides=changed, schemes=schemes, blocks=blocks, seeds=seeds)
            points += [
                _point(axis, float(value), criterion, one, float(dataset.attrs.get("bound", np.nan)))
                for one in summarise(dataset, reference=None)
            ]
            on_progress(1)
    return points


def cases(fleets: Sequence[int] = FLEETS, weights: Sequence[float] = WEIGHTS) -> int:
    """How often `measure` calls its `on_progress`."""
    return len(VARIANTS) * (len(fleets) + len(weights))


def _point(axis: str, value: float, criterion: str, one: Summary, bound: float) -> Point:
    gap = one.gap.whole if one.gap else Estimate(np.nan, np.nan, np.nan)
    return Point(axis, value, one.name, criterion, one.status, bound, one.cost, gap, one.no_gap)
