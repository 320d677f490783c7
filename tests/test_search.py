"""The search: its space, its programs against the simulator, and its score."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from partway.paper.claims import PROPOSED, Points, claims
from partway.paper.figure_runs import FigureJob, Sizes
from partway.paper.search import jobs, score
from partway.paper.search.jobs import MEASURED, Point, SearchJob, configured, points
from partway.paper.search.program import lanes_per_call
from partway.paper.search.space import (
    CANDIDATES,
    OWN,
    OWN_STEPS,
    STOPPING_RULE,
    WORLD,
    Range,
    Setting,
    overrides,
    program_of,
    programs,
    setting_at,
    space,
    spread,
)
from partway.paper.verdicts import Case, value
from partway.scenario.loading import load
from partway.schemes import pair_for

PRINTED = "parametric-printed"
COMPARED = (PROPOSED, "binary", "even", "random")


# Space


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_both_ends_of_every_range_are_scenarios(candidate: str):
    for share in (0.0, 1.0):
        scenario = load("paper", overrides(candidate, setting_at(candidate, dict.fromkeys(space(candidate), share))))
        for name in COMPARED:
            scheme, own = configured(candidate, Point("7", name, 20, 0.4, 10), scenario)
            pair_for(scheme, own)


def test_the_preset_paper_is_in_the_space():
    scenario = load("paper").model_dump()
    for name, one in WORLD.items():
        field: Any = scenario
        for word in name.split("."):
            field = field[word]
        assert field in one.choices if one.choices else one.low <= field <= one.high


def test_ranges_by_hand():
    assert Range(1.0, 100.0, "").grid(3) == [1, 10, 100]
    assert Range(0.0, 1.0, "", "linear").grid(3) == [0, 0.5, 1]
    assert Range(0.5, 0.99, "", "horizon").grid(2) == [0.5, 0.99]
    assert Range(0.9, 0.999, "", "horizon").at(0.5) == 0.99
    assert [WORLD["queue"].at(share) for share in (0.0, 0.49, 0.5, 1.0)] == ["conserving"] * 2 + ["as_printed"] * 2


def test_where_a_value_is_in_its_range():
    for name, one in space(PRINTED).items():
        assert one.at(one.where(one.at(0.3))) == one.at(0.3), name


def test_settings_are_spread_evenly_over_programs_and_ranges():
    settings = spread(PRINTED, 48)
    kinds = [program_of(PRINTED, one) for one in settings]
    assert len(set(kinds)) == len(programs(PRINTED)) == 6
    assert kinds == sorted(kinds, key=kinds.index)
    assert {kinds.count(kind) for kind in kinds} == {8}
    assert len(set(settings)) == 48
    for name, one in space(PRINTED).items():
        if not one.program:
            shares = [one.where(dict(setting)[name]) for setting in settings]
            assert 0.35 < np.mean(shares) < 0.65, name
    with pytest.raises(ValueError, match="a multiple of 6, the number of programs, got 10"):
        spread(PRINTED, 10)


def test_baselines_share_the_candidates_steps_or_have_their_own():
    shares = dict.fromkeys(space(PRINTED), 0.25)
    for own in (False, True):
        setting = tuple({**dict(setting_at(PRINTED, shares)), OWN_STEPS: own}.items())
        fields = overrides(PRINTED, setting)
        assert (set(OWN) <= set(fields)) == own
        assert not {OWN_STEPS, STOPPING_RULE} & set(fields)
        scheme, scenario = configured(PRINTED, Point("7", "binary", 20, 0.4, 10), load("paper", fields))
        pair = pair_for(scheme, scenario)
        at = "schemes.binary-parametric.device_step" if own else f"schemes.{PRINTED}.device_step"
        assert pair.device.step == fields[at]
        assert (pair.device.gradient, pair.device.patience, pair.device.feature_scale) == (
            "printed",
            1,
            fields[f"schemes.{PRINTED}.device_feature_scale"],
        )
        assert pair.server.start_rate == fields[f"schemes.{PRINTED}.start_rate"]


def test_figure_6_is_without_a_stopping_rule():
    scenario = load("paper", overrides(PRINTED, spread(PRINTED, 6)[0]))
    assert pair_for(*configured(PRINTED, Point("7", PROPOSED, 20, 0.4, 10), scenario)).device.stop
    assert not pair_for(*configured(PRINTED, Point("6", PROPOSED, 4, 0.4, 10), scenario)).device.stop


# Runs


def near_the_preset(candidate: str, **changed: Any) -> Setting:
    """A setting in which nothing is extreme."""
    shares = dict.fromkeys(space(candidate), 0.5)
    shares |= {f"schemes.{candidate}.{name}": 0.4 for name in ("device_step", "server_step")}
    return tuple({**dict(setting_at(candidate, shares)), **changed}.items())


@pytest.fixture(scope="module")
def tiny() -> Sizes:
    """K = 4 in Figure 7 as well, so that few programs are compiled."""
    return Sizes((3, 4), Points((0.2, 0.6), (4,)), training=20, horizon=10, blocks=40)


@pytest.fixture(scope="module")
def two_settings() -> tuple[Setting, Setting]:
    """They differ in world, noise, steps and stopping rule: two programs."""
    second = {"discount": 0.7, "radio.noise_dbm_per_hz": -204.0, STOPPING_RULE: "never", OWN_STEPS: True}
    return near_the_preset(PRINTED, queue="conserving"), near_the_preset(PRINTED, queue="conserving", **second)


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["6", "7", "9"])
def test_a_job_measures_what_the_runs_of_the_figures_do(
    figure: str, tiny: Sizes, two_settings: tuple[Setting, Setting], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    """Against `FigureJob`: another program, all metrics, the scenario from a file."""
    monkeypatch.setitem(jobs.DEVICES, "7", 4)
    windows = {"EARLY": (2, 12), "LATE": (30, 40), "BEFORE": (2, 20), "AFTER": (20, 40)}
    for name, window in windows.items():
        monkeypatch.setattr(f"partway.paper.claims.{name}", window)
    measured = SearchJob("test", PRINTED, two_settings, tiny, (figure,)).run()[MEASURED]
    blocks = tiny.blocks if figure in ("6", "7") else tiny.training + tiny.horizon
    training = 0 if figure in ("6", "7") else tiny.training
    for number, setting in enumerate(two_settings):
        path = tmp_path / f"{figure}-{number}.toml"
        scenario = load("paper", overrides(PRINTED, setting))
        path.write_text(scenario.to_toml())
        runs = {}
        for name in COMPARED if figure != "6" else COMPARED[:1]:
            scheme, own = configured(PRINTED, Point("7", name, 4, 0.4, blocks), scenario)
            settings = tuple(sorted(own.schemes[scheme].items())) if name != PROPOSED else ()
            job = FigureJob(figure, scheme, "conserving", 4, (0.4,), tiny.seeds, blocks, training, str(path), settings)
            runs[job] = job.run()
        claim = next(one for one in claims(tiny.points) if one.figure == figure)
        rivals = {name: (job.scheme, job.settings) for name, job in zip(COMPARED, runs, strict=False)}
        for column, one in enumerate(score.values(tiny.points, (figure,))):
            case = Case(claim, PRINTED, "conserving", one.phase, baselines=rivals)
            np.testing.assert_allclose(measured[number, :, column], value(one.term, runs, case), rtol=2e-3)


def test_as_many_runs_in_a_call_as_fit_the_cache():
    assert [lanes_per_call(devices) for devices in (4, 20, 50, 5000)] == [64, 64, 25, 1]


def test_the_points_of_the_figures():
    sizes = Sizes((0,), Points((0.1, 0.9), (5, 60)), training=500, horizon=120, blocks=2000)
    assert points(sizes, ("6",), 0.4) == [Point("6", PROPOSED, 4, 0.4, 2000)]
    assert {(one.scheme, one.devices, one.blocks) for one in points(sizes, ("7",), 0.4)} == {
        (name, 20, 2000) for name in COMPARED
    }
    eighth, ninth = (points(sizes, (figure,), 0.4) for figure in ("8", "9"))
    assert {(one.devices, one.at, one.blocks) for one in eighth} == {(50, 0.1, 620), (50, 0.9, 620)}
    assert {(one.devices, one.at, one.arrival_prob) for one in ninth} == {(5, 5, 0.4), (60, 60, 0.4)}
    job = SearchJob("test", PRINTED, ((), ()), sizes, ("6", "7"))
    assert job.device_blocks() == 2 * (4 * 2000 + 4 * 20 * 2000)


# Score


def test_a_standardised_comparison_by_hand():
    """Two replicates, 0.1 and 0.3: mean 0.2, squares 0.02, moderated variance (2 x 0.0009 + 0.02) / 3."""
    z = score.standardised(np.array([[0.1, 0.3], [0.2, 0.2], [np.nan, 0.1], [np.inf, np.inf]]))
    np.testing.assert_allclose(z[0], np.sqrt(24) * 0.2 / np.sqrt((0.0018 + 0.02) / 3))
    np.testing.assert_allclose(z[1], np.sqrt(24) * 0.2 / np.sqrt(0.0018 / 3))
    assert list(z[2:]) == [-score.FARTHEST] * 2


def test_what_a_comparison_needs_is_the_first_level_of_holm():
    """The family of a column on Figures 6 to 9 has 316 comparisons: 16, 77 in each phase of Figure 8, 73 of 9."""
    assert score.needed() == pytest.approx(stats.t.isf(0.05 / 316 / 2, 23))


def test_the_weakest_comparison_of_a_claim_by_hand():
    """Figure 6: 400 iterations against 250 and 1000, 190 against 100 and 400, and 190 against 400."""
    points = Points()
    known = score.values(points, ("6",))
    measured = np.zeros((1, 3, len(known)))
    for column, one in enumerate(known):
        measured[..., column] = {"1": 400.0, "2": 190.0}[str(one.term.at)]
    weakest = score.strengths(measured, points, ("6",))
    spread = np.sqrt(2 * 0.03**2 / 4)
    expected = {"6a": np.log(400 / 250), "6b": np.log(190 / 100), "6c": np.log(400 / 190)}
    for name, difference in expected.items():
        np.testing.assert_allclose(weakest[name], np.sqrt(24) * difference / spread)
    assert score.likely(weakest) == [3]


def test_a_score_by_hand():
    weakest = {"7a": np.array([score.needed()]), "7b": np.array([-score.FARTHEST])}
    np.testing.assert_allclose(score.score(weakest), 0.5 + np.tanh(0.1) / 10 - 0.1, atol=1e-9)
    np.testing.assert_allclose(score.score(weakest, ("7a",)), 1.0)


def test_one_claim_that_holds_is_worth_more_than_five_ties():
    """With a sum of tanh, CMA-ES went to a setting in which all schemes do the same and eleven claims were ties."""
    names = ("7a", "7b", "7c", "7d", "8a", "8b")
    tied = dict.fromkeys(names, np.zeros(1))
    one = dict.fromkeys(names, np.array([-30.0])) | {"7a": np.array([2 * score.needed()])}
    assert score.score(one) > score.score(tied)
