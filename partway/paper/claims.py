"""The paper's claims as data: their text in its words, how each is tested, windows, points, and the expected result.

Claims 6a to 9d are those of section VI on Figures 6 to 9. Each is a list of orderings; in each, one quantity must be
smaller than another in the mean of logarithms over replicates (`partway.paper.statistics`). PROPOSED stands for each of
CANDIDATES in turn. Fixed before the first test: windows, orderings and the points of the full run are those of the
commit that added this file, which precedes the first table in docs/paper.md; K = 30 in claim 9c was added later, to
agree with the paper. Claims on other sections have no orderings: Proposition 1 (`partway.paper.proposition1`), section
IV-B (`partway.paper.remark1`), and what each party may know (`partway.paper.information`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

PROPOSED = "proposed"
CANDIDATES = ("parametric-printed", "parametric", "qlearning", "qlearning-designed", "decoupled", "priced")
"""Schemes that are tested as "the proposed scheme"."""
BASELINES = ("binary", "even", "random")
READINGS = ("conserving", "as_printed")
"""Interpretations of the queue recursion (1), as the scenario's field `queue` names them."""
PHASES = ("from_start", "after_training")
"""Figures 8 and 9: the discounted sum from empty queues before any learning, and from the end of training."""

TOLERANCE, QUIET = 1e-3, 10
"""Figure 6: the relative change must stay below TOLERANCE for QUIET blocks in a row, as in the stopping rule."""
ITERATIONS = {"1": 500.0, "2": 200.0}
"""Number of iterations that section VI gives for Algorithms 1 and 2."""
AROUND = 2.0
""""Around 500" means from 500 / AROUND to 500 * AROUND."""
EARLY, LATE = (20, 120), (1800, 2000)
"""Figure 7, blocks [first, end): after the initially empty queues have filled, and the end of the figure."""
BEFORE, AFTER = (20, 450), (550, 2000)
"""Figure 7, claim 7c: before and after block 500, without the blocks close to it."""
TRAINING, HORIZON = 2000, 250
"""Figures 8 and 9: blocks of training, and blocks in a discounted sum (0.95^250 is 3e-6).

The horizon of (9a) is infinite. The paper does not say from which initial state its sums start: hence PHASES."""
CROSSING = 30
"""Figure 9, claim 9c: "small values of K (e.g., K <= 30)"; from K = CROSSING + 1 on, K is large."""


@dataclass(frozen=True)
class Term:
    """One number for each replicate.

    quantity  "iterations" (until Algorithm `at` has converged, Figure 6), "cost" (mean cost of a block in the window
              `at`, Figure 7) or "sum" (discounted sum cost at the point `at` of the axis, Figures 8 and 9)
    scheme    one of BASELINES, or PROPOSED
    """

    quantity: str
    scheme: str
    at: str | float | tuple[int, int]


@dataclass(frozen=True)
class Ordering:
    """`smaller` < `greater`, each a term or a constant."""

    smaller: Term | float
    greater: Term | float

    def sentence(self) -> str:
        """The ordering in words."""
        return f"{_words(self.smaller)} < {_words(self.greater)}"


@dataclass(frozen=True)
class Claim:
    """A claim, how it is tested, and the orderings that must all hold.

    figure  its number; "" for claims on other sections
    text    the claim in the paper's words, those in quotation marks literally; up to a colon, if it has one, its title
    test    what we measure, which the paper does not say
    """

    id: str
    figure: str
    text: str
    test: str
    orderings: tuple[Ordering, ...] = ()


@dataclass(frozen=True)
class Points:
    """Arrival probabilities b of Figure 8, numbers of devices K of Figure 9, replicates of P1 and R2."""

    arrival_probs: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    fleets: tuple[int, ...] = (5, 10, 20, 30, 40, 50, 60)
    replicates: int = 64


QUICK_POINTS = Points((0.1, 0.5, 0.9), (5, 60), 8)


def claims(points: Points) -> tuple[Claim, ...]:
    """All claims: those of section VI in their order, then those of other sections."""
    return (*_figure_6(), *_figure_7(), *_figure_8(points.arrival_probs), *_figure_9(points.fleets), *_OTHERS)


def _figure_6() -> tuple[Claim, ...]:
    first, second = (Term("iterations", PROPOSED, algorithm) for algorithm in ITERATIONS)
    convergence = (
        "first block from which the relative change of the parameters (that of the stopping rule, a mean over devices) "
        f"is at most {TOLERANCE:g} for {QUIET} blocks in a row"
    )
    around = "from a half to twice that number"
    return (
        Claim(
            "6a",
            "6",
            'Algorithm 1 "requires around 500 iterations to converge" (K = 4)',
            f"Learning without a stopping rule: the {convergence} is {around}.",
            _around(first, ITERATIONS["1"]),
        ),
        Claim(
            "6b",
            "6",
            'Algorithm 2 requires "around 200 iterations" (K = 4)',
            f"The same at the server: that block is {around}.",
            _around(second, ITERATIONS["2"]),
        ),
        Claim(
            "6c",
            "6",
            "Algorithm 1 needs more iterations than Algorithm 2 (K = 4)",
            "The block of 6a is later than the block of 6b.",
            (Ordering(second, first),),
        ),
    )


def _around(term: Term, count: float) -> tuple[Ordering, ...]:
    return (Ordering(count / AROUND, term), Ordering(term, count * AROUND))


def _figure_7() -> tuple[Claim, ...]:
    late = {name: Term("cost", name, LATE) for name in (PROPOSED, *BASELINES)}
    falls = tuple(Ordering(late[name], Term("cost", name, EARLY)) for name in (PROPOSED, "binary", "even"))
    crossing = (
        Ordering(Term("cost", "binary", BEFORE), Term("cost", "even", BEFORE)),
        Ordering(Term("cost", "even", AFTER), Term("cost", "binary", AFTER)),
    )
    worst = tuple(Ordering(late[name], late["random"]) for name in (PROPOSED, "binary", "even"))
    at_end = f"Mean cost of blocks {_blocks(LATE)}"
    return (
        Claim(
            "7a",
            "7",
            'The cost of proposed, binary and even "decreases with the increasing of the time block index" (K = 20)',
            f"{at_end} below that of blocks {_blocks(EARLY)}, for each of the three.",
            falls,
        ),
        Claim(
            "7b",
            "7",
            'The proposed scheme has "a significant performance gain compared to the three baseline schemes" (K = 20)',
            f"{at_end}, where learning has ended, below that of binary, even and random; by how much is not tested.",
            tuple(Ordering(late[PROPOSED], late[name]) for name in BASELINES),
        ),
        Claim(
            "7c",
            "7",
            'Binary outperforms even "when the time block index is small (e.g., smaller than 500)", and not when it '
            "is larger (K = 20)",
            f"Mean cost of blocks {_blocks(BEFORE)}: binary below even; of blocks {_blocks(AFTER)}: above.",
            crossing,
        ),
        Claim(
            "7d",
            "7",
            'Random "performs inferiorly to the other schemes" (K = 20)',
            f"{at_end} above that of proposed, binary and even.",
            worst,
        ),
    )


def _figure_8(points: Sequence[float]) -> tuple[Claim, ...]:
    where = f"b = {', '.join(f'{point:g}' for point in points)}"
    chain = (("even", "binary"), ("binary", "random"))
    return (
        Claim(
            "8a",
            "8",
            'All four sums grow: each "increases as the task probability increases" (K = 50)',
            f"Larger at each point than at the one before, for proposed, binary, even and random; {where}.{_START}",
            _rising(points),
        ),
        Claim(
            "8b",
            "8",
            'The proposed scheme is "observed to outperform the three baseline schemes" (K = 50)',
            f"Discounted sum cost below that of binary, even and random at every point; {where}.",
            _lowest(points),
        ),
        Claim(
            "8c",
            "8",
            'Binary is "observed to outperform" random, "but it performs inferiorly to" even (K = 50)',
            f"Discounted sum cost of even below that of binary, and of binary below that of random, at every point; "
            f"{where}.",
            tuple(_below(low, high, point) for point in points for low, high in chain),
        ),
    )


def _figure_9(points: Sequence[int]) -> tuple[Claim, ...]:
    where = f"K = {', '.join(map(str, points))}"
    sides = (("binary", "even", point) for point in points if point <= CROSSING)
    other = (("even", "binary", point) for point in points if point > CROSSING)
    return (
        Claim(
            "9a",
            "9",
            'All four sums grow: each is "observed to increase as K increases"',
            f"Larger at each point than at the one before, for proposed, binary, even and random; {where}.{_START}",
            _rising(points),
        ),
        Claim(
            "9b",
            "9",
            'The proposed scheme is "observed to outperform the three baseline schemes"',
            f"Discounted sum cost below that of binary, even and random at every point; {where}.",
            _lowest(points),
        ),
        Claim(
            "9c",
            "9",
            'Binary outperforms even "with small values of K (e.g., K <= 30)", and not "when K becomes larger"',
            f"Binary below even at every point up to K = {CROSSING}, above it at every later one; {where}.",
            tuple(_below(*side) for side in (*sides, *other)),
        ),
        Claim(
            "9d",
            "9",
            'Random "performs inferiorly to the other schemes"',
            f"Discounted sum cost above that of proposed, binary and even at every point; {where}.",
            tuple(_below(name, "random", point) for point in points for name in (PROPOSED, "binary", "even")),
        ),
    )


def _rising(points: Sequence[float]) -> tuple[Ordering, ...]:
    pairs = list(pairwise(points))
    schemes = (PROPOSED, *BASELINES)
    return tuple(Ordering(Term("sum", name, low), Term("sum", name, high)) for name in schemes for low, high in pairs)


def _lowest(points: Sequence[float]) -> tuple[Ordering, ...]:
    return tuple(_below(PROPOSED, name, point) for point in points for name in BASELINES)


def _below(low: str, high: str, point: float) -> Ordering:
    return Ordering(Term("sum", low, point), Term("sum", high, point))


_START = (
    " After training, a sum starts from the queues that the scheme has led to by then, and learning continues: a "
    "scheme that has overloaded the server starts with its backlog."
)
_OTHERS = (
    Claim(
        "P1",
        "",
        "Proposition 1: Algorithms 1 and 2 converge to the neighbourhood of a stationary point, in the sense of (37), "
        "(38)",
        "Both sides with steps that satisfy (36), K = 4, for gamma = 0.9, 0.95, 0.99, 0.999. Left: the squared norm of "
        "the gradient of the squared TD error, the least mean of 50 blocks in the last half of the run. Right: the "
        "squared TD error of block 2 over E_1(ln 1/gamma). Left below right (`partway.paper.proposition1`).",
    ),
    Claim(
        "R2",
        "",
        "Remark 2: as gamma approaches 1, the left sides of (37) and (38) approach 0",
        "The left side of P1, from the same first parameters at every gamma: smaller at each of 0.95, 0.99, 0.999 than "
        "at the one before, for devices and for the server.",
    ),
    Claim(
        "R1",
        "",
        'Less computation and signalling than (12), section IV-B: both "have been significantly reduced"',
        "Both are counted, not timed, for K = 1, 2, 20 and 60: operations per block and party, numbers sent per block "
        "and device; less of both at every K from 2 (`partway.paper.remark1`).",
    ),
    Claim(
        "D1",
        "",
        'Decentralised, abstract and section I: "completely decentralized", power and partition follow from the '
        "device's own channel and queue only",
        "The device policy reads no field of the broadcast (`uses_broadcast` is empty). tests/test_contract.py changes "
        "everything else in the system and finds the same actions.",
    ),
    Claim(
        "D2",
        "",
        'No statistics, abstract and section I: "no prior knowledge" of the distribution of arrivals or of channel '
        "statistics is needed for the server",
        "Nothing is computed from the statistics before a run. tests/test_contract.py changes the probabilities and "
        "finds the same actions in the block that follows. Devices know their mean gain (T11); the claim is on the "
        "server.",
    ),
)


def _blocks(window: tuple[int, int]) -> str:
    return f"{window[0]} to {window[1] - 1}"


def _words(term: Term | float) -> str:
    if not isinstance(term, Term):
        return f"{term:g}"
    if term.quantity == "iterations":
        return f"iterations of Algorithm {term.at}"
    if isinstance(term.at, tuple):
        return f"cost of {term.scheme} in blocks {_blocks(term.at)}"
    return f"sum of {term.scheme} at {term.at:g}" if isinstance(term.at, int | float) else f"{term.quantity} {term.at}"
