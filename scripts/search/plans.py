"""How much every stage does: sizes with which it takes at most an hour on two cores."""

from collections.abc import Callable, Mapping

from partway.paper.search.space import programs
from search.evolution import Evolution
from search.stages import LONG, Halving, Rung

ALL = ("6", "7", "8", "9")
FIGURE_7 = ("7a", "7b", "7c", "7d")
EVERY = ("6a", "6b", "6c", *FIGURE_7)
"""Claims on Figures 6 and 7, whose weakest comparison `evolve` makes strong: all, all but 7c, Figure 7 alone."""
PACE = {"parametric-printed": 1, "parametric": 2, "qlearning": 4, "qlearning-designed": 4}
"""Divides the number of settings of a candidate, so that each stage takes at most an hour."""
SCREEN_PACE = 2
"""The most by which those of the first stage are divided, so that it tries 5,000 settings and more."""
SCREENED, SEEN_LONGER, MOST = 10_752, 2688, 336


def screen(candidate: str) -> Halving:
    """Settings spread over the space, on Figures 6 and 7."""
    pace, kinds = min(PACE[candidate], SCREEN_PACE), len(programs(candidate))
    return Halving(
        ("6", "7"),
        (
            Rung(SCREENED // pace // kinds * kinds, 2),
            Rung(SEEN_LONGER // pace, 8),
            Rung(MOST // pace, 24),
        ),
    )


def evolve(candidate: str) -> Evolution:
    """CMA-ES on Figures 6 and 7."""
    aims = EVERY, tuple(one for one in EVERY if one != "7c"), FIGURE_7
    starts, generations = (2, 28) if PACE[candidate] == 1 else (1, 56 // PACE[candidate])
    return Evolution(("6", "7"), aims, starts, 32, generations, 8, (Rung(96 // PACE[candidate], 24),))


def extend(candidate: str) -> Halving:
    """The best of both so far on Figures 6 to 9: few points and short sums, then those of `make reproduce`."""
    pace = PACE[candidate]
    return Halving(ALL, (Rung(1152 // pace, 2), Rung(288 // pace, 8), Rung(64 // pace, 16), Rung(12 // pace, 24, LONG)))


def evolve_all(candidate: str) -> Evolution:
    """CMA-ES on Figures 6 to 9, for as many claims as possible."""
    starts, generations = (2, 40) if PACE[candidate] == 1 else (1, 80 // PACE[candidate])
    return Evolution(ALL, ((),), starts, 24, generations, 4, (Rung(24, 16), Rung(6 // PACE[candidate], 24, LONG)))


PLANS: Mapping[str, Callable[[str], Halving | Evolution]] = {
    "screen": screen,
    "evolve": evolve,
    "extend": extend,
    "evolve-all": evolve_all,
}
"""The stages that try settings."""
