"""The search for unpublished parameters: its space, its score, and the presets that it wrote."""

import tomllib

import fit_paper
import pytest
from fit_paper import CANDIDATES, FIRST_SEED, PRESETS, SIZES, WORLD, Range, score, space

from partway.paper.figure_runs import FULL, QUICK
from partway.paper.statistics import FAILS, HOLDS, Decision
from partway.paper.verdicts import Verdict
from partway.scenario.loading import load
from partway.schemes import pair_for


def decisions(*means: float) -> tuple[Decision, ...]:
    return tuple(Decision(mean, mean - 1, mean + 1, 0.5, 0.05, 0) for mean in means)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_both_ends_of_every_range_are_scenarios_and_the_preset_paper_is_between(candidate: str):
    for name, one in space(candidate).items():
        for value in (one.low, one.high):
            pair_for(candidate, load("paper", {name: value}))
    preset = load("paper").model_dump()
    for name, one in WORLD.items():
        assert one.low <= fit_paper._field(preset, name) <= one.high
        assert set(one.choices) <= set(one.grid(6))


def test_a_grid_by_hand():
    assert Range(1.0, 100.0, "").grid(3) == [1, 10, 100]
    assert Range(0.0, 1.0, "", log=False).grid(3) == [0, 0.5, 1]


def test_the_score_by_hand():
    """A claim that all comparisons support is 1, one of two a quarter, and a phase counts half."""
    verdicts = [
        Verdict("6a", "parametric", "conserving", "", HOLDS, decisions=decisions(1.0, 2.0)),
        Verdict("7a", "parametric", "conserving", "", FAILS, decisions=decisions(1.0, -2.0)),
        Verdict("8a", "parametric", "conserving", "from_start", FAILS, decisions=decisions(-1.0)),
        Verdict("8a", "parametric", "conserving", "after_training", HOLDS, decisions=decisions(1.0)),
    ]
    assert score(verdicts) == 1 + 0.25 + 0 + 0.5


def test_no_verdict_uses_a_seed_of_the_search():
    assert not set(SIZES.seeds) & {*FULL.seeds, *QUICK.seeds}
    assert min(SIZES.seeds) == FIRST_SEED


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_a_fitted_preset_changes_what_was_searched_and_nothing_else(candidate: str):
    changed = tomllib.loads((PRESETS / f"paper-fitted-{candidate}.toml").read_text())
    names = {".".join(path) for path in leaves(changed)}
    assert names <= set(space(candidate))
    for name in names:
        one, value = space(candidate)[name], fit_paper._field(changed, name)
        assert one.low * 0.999 <= value <= one.high * 1.001
    pair_for(candidate, load(f"paper-fitted-{candidate}"))


def leaves(table: dict, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths = []
    for name, value in table.items():
        paths += leaves(value, (*above, name)) if isinstance(value, dict) else [(*above, name)]
    return paths
