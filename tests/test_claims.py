"""Verdicts against numbers worked by hand, SciPy and simulation; claims as the paper words them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from partway.paper import verdicts as module
from partway.paper.claims import BASELINES, PROPOSED, Ordering, Points, Term, claims
from partway.paper.figure_runs import FigureJob, converged
from partway.paper.information import decentralised, without_statistics
from partway.paper.report import interval_words
from partway.paper.statistics import (
    ENOUGH,
    FAILS,
    HOLDS,
    TOO_FEW,
    UNDECIDED,
    Decision,
    decide,
    deciding,
    holm_levels,
    p_value,
    verdict,
)
from partway.paper.verdicts import Case, Verdict, has_baselines, judge, phases, value
from partway.schemes import SCHEMES

ANY = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_holm_by_hand():
    """Four p values at 5 %: 0.010 <= 0.0125, 0.013 <= 0.0167, 0.030 > 0.025, where it stops."""
    p = [0.030, 0.010, 0.040, 0.013]
    levels = holm_levels(p)
    assert levels == pytest.approx([0.025, 0.0125, 0.025, 0.05 / 3])
    assert [a <= b for a, b in zip(p, levels, strict=True)] == [False, True, False, True]


@given(ANY)
def test_holm_rejects_what_bonferroni_rejects_and_nothing_above_the_level(p: list[float]):
    levels = holm_levels(p)
    rejected = {i for i, level in enumerate(levels) if p[i] <= level}
    assert {i for i in range(len(p)) if p[i] <= 0.05 / len(p)} <= rejected <= {i for i in range(len(p)) if p[i] <= 0.05}
    assert all(p[i] <= p[j] for i in rejected for j in set(range(len(p))) - rejected)


def test_p_is_scipys():
    sample = np.random.default_rng(0).normal(0.3, 1.0, 24)
    assert p_value(sample) == pytest.approx(stats.ttest_1samp(sample, 0.0).pvalue)


def test_an_interval_by_hand():
    """1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.3027; so 2 -+ 2.4841, which holds 0."""
    (one,) = decide([np.array([1.0, 2.0, 3.0])])
    assert (one.mean, one.low, one.high) == pytest.approx((2.0, -0.4841, 4.4841), abs=1e-4)
    assert (one.sign, one.p) == (0, pytest.approx(0.0742, abs=1e-4))


@given(st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=1, max_size=5))
def test_an_interval_excludes_0_exactly_where_holm_rejects(family: list[list[float]]):
    for one in decide([np.array(values) for values in family]):
        if one.low < one.high and min(abs(one.low), abs(one.high)) > 1e-9:
            assert (one.low > 0 or one.high < 0) == (one.sign != 0)


def test_wrong_signs_are_as_rare_as_the_level_says():
    """Six comparisons of 20 replicates, half of them with no effect: at most 5 % of families decide one of those."""
    random, wrong = np.random.default_rng(1), 0
    for _ in range(400):
        family = [random.normal(mean, 1.0, 20) for mean in (0.0, 0.0, 0.0, 2.0, 2.0, 2.0)]
        wrong += any(one.sign != 0 for one in decide(family)[:3])
    assert wrong <= stats.binom.ppf(0.999, 400, 0.05)


@pytest.mark.parametrize(
    ("signs", "expected"), [((1, 1), HOLDS), ((1, 0), UNDECIDED), ((1, -1), FAILS), ((0, -1), FAILS), ((0,), UNDECIDED)]
)
def test_verdicts(signs: tuple[int, ...], expected: str):
    assert verdict([Decision(1.0, 0.5, 1.5, 0.01, 0.05, sign) for sign in signs]) == expected


def test_a_missing_number_decides_nothing():
    (one,) = decide([np.array([1.0, np.nan, 1.0])])
    assert (one.sign, one.p) == (0, 1.0)
    assert verdict([one]) == UNDECIDED


def test_equal_differences_are_decided_and_equal_values_are_not():
    certain, nothing = decide([np.full(5, 0.2), np.zeros(5)])
    assert (certain.sign, nothing.sign) == (1, 0)


def test_the_comparison_that_decides():
    fine, open_, worse, worst = (
        Decision(mean, mean - 1, mean + 1, 0.0, 0.05, sign)
        for mean, sign in ((3.0, 1), (0.5, 0), (-2.0, -1), (-4.0, -1))
    )
    assert deciding([fine, worse, open_, worst]) == 3
    assert deciding([fine, open_]) == 1


def test_every_claim_of_the_paper_is_there_once():
    """21 verdicts on Figures 6 to 9, of which those on 8 and 9 are on two phases; others are not counted among them."""
    tested = claims(Points())
    figures = {"6": "abc", "7": "abcd", "8": "abc", "9": "abcd"}
    on_figures = [f"{number}{letter}" for number, letters in figures.items() for letter in letters]
    assert [claim.id for claim in tested] == [*on_figures, "P1", "R2", "R1", "D1", "D2"]
    assert sum(len(phases(claim)) for claim in tested if claim.figure) == 21
    assert [bool(claim.orderings) for claim in tested] == [bool(claim.figure) for claim in tested]


QUOTED = {
    "6a": "requires around 500 iterations to converge",
    "6b": "around 200 iterations",
    "7a": "decreases with the increasing of the time block index",
    "7b": "a significant performance gain compared to the three baseline schemes",
    "7c": "when the time block index is small (e.g., smaller than 500)",
    "7d": "performs inferiorly to the other schemes",
    "8a": "increases as the task probability increases",
    "8b": "observed to outperform the three baseline schemes",
    "8c": "but it performs inferiorly to",
    "9a": "observed to increase as K increases",
    "9b": "observed to outperform the three baseline schemes",
    "9c": "with small values of K (e.g., K <= 30)",
    "9d": "performs inferiorly to the other schemes",
    "R1": "have been significantly reduced",
    "D1": "completely decentralized",
    "D2": "no prior knowledge",
}
"""Words of the paper that a claim is worded with."""


def test_claims_are_worded_as_the_paper_words_them():
    """What is measured (1e-3, the end, every point) stands in `test` alone."""
    texts = {claim.id: claim.text for claim in claims(Points())}
    assert {name: f'"{words}"' in texts[name] for name, words in QUOTED.items()} == dict.fromkeys(QUOTED, True)
    ours = re.compile(r"1e-3|relative change|at the end|lowest|worst|every|at each")
    assert {name: words for name, words in texts.items() if ours.search(words)} == {}


def test_claims_are_tested_as_the_paper_states_them():
    """8c in full, and the side of 30 devices on which 9c expects binary: "e.g., K <= 30"."""
    orderings = {claim.id: claim.orderings for claim in claims(Points((0.4,), (5, 30, 60)))}
    even, binary, random = (Term("sum", name, 0.4) for name in ("even", "binary", "random"))
    assert orderings["8c"] == (Ordering(even, binary), Ordering(binary, random))
    sides = [(Term("sum", "binary", k), Term("sum", "even", k)) for k in (5, 30)]
    sides += [(Term("sum", "even", 60), Term("sum", "binary", 60))]
    assert orderings["9c"] == tuple(Ordering(*side) for side in sides)
    assert [one.smaller for one in orderings["9b"]] == [
        Term("sum", PROPOSED, k) for k in (5, 30, 60) for _ in BASELINES
    ]


def test_the_block_where_learning_has_converged():
    """Below from iteration 3 on for two blocks; above again; below for three: that is the first time for three."""
    change = np.array([[9, 9, 1, 1, 9, 1, 1, 1, 9], [9] * 9, [1] * 9], float)
    assert converged(change, 1.0, 3).tolist() == [6, 9, 1]
    assert converged(change, 1.0, 2).tolist() == [3, 9, 1]


def made_up(proposed: float) -> dict[FigureJob, dict[str, np.ndarray]]:
    """Figure 8 at one point with 20 replicates: even costs 10, binary 20, random 30, all times a common factor.

    Of the baselines that learn otherwise, even costs 7.
    """
    common = np.exp(np.random.default_rng(2).normal(0, 1, 20))
    noise = np.random.default_rng(3).normal(0, 0.01, (7, 20))
    costs = {"parametric": proposed, "even-parametric": 10.0, "binary-parametric": 20.0, "random-fixed": 30.0}
    costs |= {"even": 7.0, "binary": 20.0, "random": 30.0}

    def arrays(i: int, cost: float) -> dict[str, np.ndarray]:
        own = (cost * common * np.exp(noise[i]))[None]
        each = np.full((1, 20, 4), cost / 4)
        return {
            "from_start": own,
            "after_training": own,
            "from_start_components": each,
            "after_training_components": each,
        }

    seeds = tuple(range(20))
    return {
        FigureJob("8", name, "conserving", 50, (0.4,), seeds, 10, 5): arrays(i, c)
        for i, (name, c) in enumerate(costs.items())
    }


def test_verdicts_from_runs_that_are_paired(monkeypatch: pytest.MonkeyPatch):
    """The common factor changes every cost tenfold and no ratio: pairing decides in spite of it."""
    monkeypatch.setattr(module, "CANDIDATES", ("parametric",))
    monkeypatch.setattr(module, "READINGS", ("conserving",))
    asked = [claim for claim in claims(Points((0.4,), (5,))) if claim.id in ("8b", "8c")]
    judged = [judge(asked, made_up(cost)) for cost in (9.0, 11.0)]
    low, high = ({(one.claim, one.phase): one for one in all_ if one.baselines == "literal"} for all_ in judged)
    assert [one.verdict for one in low.values()] == [HOLDS] * 4
    assert high["8b", "from_start"].verdict == FAILS
    interval = high["8b", "from_start"].interval()
    assert interval is not None
    assert interval[0] < 10.0 / 11.0 < interval[1] < 1
    assert "parametric" in high["8b", "from_start"].why
    assert phases(asked[0]) == ("from_start", "after_training")


def test_verdicts_are_on_literal_baselines_and_on_the_others(monkeypatch: pytest.MonkeyPatch):
    """At a cost of 9 the scheme is below even as section VI words it, 10, and above the other even, 7.

    Claims 6a to 6c are on no baseline.
    """
    monkeypatch.setattr(module, "CANDIDATES", ("parametric",))
    monkeypatch.setattr(module, "READINGS", ("conserving",))
    asked = [claim for claim in claims(Points((0.4,), (5,))) if claim.id == "8b"]
    found = {(one.baselines, one.phase): one.verdict for one in judge(asked, made_up(9.0))}
    phase = "after_training"
    assert (found["literal", phase], found["q-learned", phase]) == (HOLDS, FAILS)
    on_baselines = {claim.id for claim in claims(Points()) if has_baselines(claim)}
    assert on_baselines == {"7a", "7b", "7c", "7d", "8a", "8b", "8c", "9a", "9b", "9c", "9d"}


def test_a_number_stands_for_itself():
    (claim, *_) = claims(Points())
    assert value(500.0, {}, Case(claim, "parametric", "conserving", "")).tolist() == [500.0]


def test_few_replicates_give_no_verdict():
    """Not even where every comparison is decided; what is counted or declared needs no replicates."""
    sure, against = Decision(1.0, 0.5, 1.5, 1e-9, 0.05, 1), Decision(-1.0, -1.5, -0.5, 1e-9, 0.05, -1)
    estimated = Verdict("7a", "parametric", "conserving", "", FAILS, ("a", "b", "c"), (sure, against, sure), 1)
    assert estimated.quotable(ENOUGH) == estimated
    few = estimated.quotable(ENOUGH - 1)
    assert few == replace(estimated, verdict=TOO_FEW)
    assert few.supporting() == 2
    counted = Verdict("R1", "parametric", "conserving", "", HOLDS, counted=(2.0, 3.0))
    assert counted.quotable(2) == counted


def test_who_decides_from_what():
    """The paper's scheme receives nothing, `priced` a price; only `oracle` and `constant` are prepared before a run."""
    assert decentralised("parametric-printed") == (True, "Devices receive nothing.")
    assert decentralised("priced") == (False, "Devices use price of the server's broadcast.")
    assert {name for name in SCHEMES if not without_statistics(name)[0]} == {"oracle", "constant"}
    assert "devices' queues" in without_statistics("parametric")[1]


@pytest.mark.parametrize(
    ("ends", "words"),
    [((0.972, 1.003), "[0.97, 1.00]"), ((0.99728, 0.99828), "[0.997, 0.998]"), ((0.01, 0.01), "[1.0e-02, 1.0e-02]")],
)
def test_an_interval_has_as_many_digits_as_its_ends_need(ends: tuple[float, float], words: str):
    assert interval_words(Verdict("7b", "priced", "conserving", "", HOLDS, counted=ends)) == words
