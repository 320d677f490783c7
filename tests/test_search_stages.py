"""The stages of the search: successive halving, CMA-ES, the judge, and what is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from search import data, judge, page, plans, sensitivity, stages
from search.data import Tried
from search.evolution import Evolution, Strategy, evolve, reflected, starts, value_of
from search.stages import FIRST_SEED, SHORT, Halving, Rung, Runner

from partway.paper import figure_runs
from partway.paper.claims import LATE, PROPOSED, Term
from partway.paper.figure_runs import FULL, QUICK, Sizes
from partway.paper.search import score
from partway.paper.search.jobs import Point, SearchJob, configured
from partway.paper.search.space import (
    CANDIDATES,
    OWN,
    OWN_STEPS,
    STOPPING_RULE,
    Setting,
    overrides,
    program_of,
    programs,
    setting_at,
    space,
    spread,
)
from partway.paper.statistics import FAILS, HOLDS
from partway.paper.verdicts import Verdict
from partway.scenario.loading import load
from partway.schemes import pair_for

PRINTED = "parametric-printed"
COMPARED = (PROPOSED, "binary", "even", "random")


def test_no_verdict_uses_a_seed_of_the_search():
    halvings = [plan(PRINTED) for plan in (plans.screen, plans.extend)]
    evolutions = [plan(PRINTED) for plan in (plans.evolve, plans.evolve_all)]
    rungs = [one.rungs for one in (*halvings, *evolutions)]
    halved = {seed for own in rungs for i, _ in enumerate(own) for seed in stages.seeds_of(own, i)}
    evolved = {seed for one in evolutions for number in range(one.generations) for seed in one.seeds(number)}
    steps = set(range(judge.FIRST_SEED, judge.FIRST_SEED + judge.REPLICATES))
    assert halved == set(range(FIRST_SEED, FIRST_SEED + 24))
    assert evolved == set(range(6000, 6000 + 8 * 28))
    assert not halved & evolved
    assert not (halved | evolved | steps) & {*FULL.seeds, *QUICK.seeds}


# Successive halving


@dataclass(frozen=True)
class Made(Runner):
    """Measures nothing: the fewer iterations Algorithm 1 needs, the better the setting, which is its discount.

    asked  (settings, seeds) of every call
    """

    asked: list[Any] = field(default_factory=list)

    def measure(self, settings: Sequence[Setting], sizes: Sizes, seeds: Sequence[int]) -> np.ndarray:
        self.asked.append((len(settings), tuple(seeds)))
        columns = {"1": [1000 * dict(one)["discount"] for one in settings], "2": [200.0] * len(settings)}
        known = score.values(sizes.points, ("6",))
        made = np.stack([columns[str(one.term.at)] for one in known], axis=-1)
        return np.repeat(made[:, None], len(seeds), axis=1)


def test_halving_keeps_the_best_and_adds_replicates():
    runner = Made("test", PRINTED, figures=("6",))
    settings = spread(PRINTED, 24)
    tried = stages.halve(runner, settings, (Rung(24, 2), Rung(6, 4), Rung(2, 7)))
    assert [one.setting for one in tried] == settings
    assert runner.asked == [(24, (5000, 5001)), (6, (5002, 5003)), (2, (5004, 5005, 5006))]
    assert sorted(one.replicates for one in tried) == [2] * 18 + [4] * 4 + [7] * 2
    scores = {reached: [one.score() for one in tried if one.replicates == reached] for reached in (2, 4, 7)}
    assert max(scores[2]) <= min(scores[4] + scores[7]) + 0.05
    assert stages.best(tried).replicates == 7


def test_a_rung_of_other_sizes_measures_all_its_replicates():
    rungs = (Rung(8, 4), Rung(4, 8), Rung(2, 8, replace(SHORT, training=2000)))
    assert [list(stages.seeds_of(rungs, i)) for i in range(3)] == [
        [*range(5000, 5004)],
        [*range(5004, 5008)],
        [*range(5000, 5008)],
    ]


def test_the_work_of_a_stage_is_that_of_its_jobs():
    stage = Halving(("6", "7"), (Rung(300, 2), Rung(30, 8)))
    settings = spread(PRINTED, 300)
    sizes = [replace(SHORT, seeds=tuple(stages.seeds_of(stage.rungs, i))) for i in range(2)]
    made = [
        *stages.jobs_of("test", PRINTED, stage.figures, settings, sizes[0]),
        *stages.jobs_of("test", PRINTED, stage.figures, settings[:30], sizes[1]),
    ]
    assert sum(job.device_blocks() for job in made) == stages.work(PRINTED, stage)
    assert [len(job.settings) for job in made[:5]] == [64] * 4 + [44]


def test_every_stage_has_fewer_settings_where_a_block_takes_longer():
    for candidate in CANDIDATES:
        pace, screened, extended = plans.PACE[candidate], plans.screen(candidate).rungs, plans.extend(candidate).rungs
        assert [one.settings * min(pace, 2) for one in screened] == [10_752, 2688, 336]
        assert screened[0].settings >= 5000
        assert screened[0].settings % len(programs(candidate)) == 0
        assert [one.settings * pace for one in extended] == [1152, 288, 64, 12]


# CMA-ES


SMALL = Evolution(("6",), (("6a", "6c"),), starts=1, population=12, generations=14, replicates=2, rungs=(Rung(4, 6),))


def tried_at(share: float, replicates: int, weakest: dict[str, float]) -> Tried:
    return Tried(setting_at(PRINTED, dict.fromkeys(space(PRINTED), share)), replicates, weakest)


def test_a_point_beyond_an_end_is_reflected():
    np.testing.assert_allclose(reflected(np.array([0.3, -0.1, 1.2, 2.0, -1.3])), [0.3, 0.1, 0.8, 0.0, 0.7])


def test_the_value_of_a_setting_by_hand():
    one = tried_at(0.5, 24, {"7a": score.needed(), "7b": -0.5 * score.needed()})
    assert value_of(one, ("7a", "7b")) == pytest.approx(-0.5)
    assert value_of(one, ("7a",)) == pytest.approx(1.0)
    assert value_of(one, ()) == pytest.approx(0.5 + 1 / (1 + np.exp(6)) + np.tanh(0.1) / 10 - np.tanh(0.05) / 10)


def test_strategies_start_from_the_best_of_different_programs():
    """Shares 0.1 and 0.2 have one program, 0.9 another; the best of all has too few replicates."""
    known = [tried_at(0.1, 24, {"7a": 3.0}), tried_at(0.2, 24, {"7a": 2.0}), tried_at(0.9, 24, {"7a": 1.0})]
    known += [tried_at(0.3, 8, {"7a": 9.0})]
    assert starts(PRINTED, known, ("7a",), 1) == [known[0].setting]
    assert starts(PRINTED, known, ("7a",), 2) == [known[0].setting, known[2].setting]
    assert starts(PRINTED, known, ("7a",), 3) == [one.setting for one in (known[0], known[2], known[1])]


def test_evolution_finds_the_aim_and_keeps_the_program():
    """500 iterations of Algorithm 1 are a discount of 0.5, the least; the start has 0.95."""
    start = tried_at(0.589, 24, {"6a": -1.0, "6b": 1.0, "6c": 1.0})
    assert dict(start.setting)["discount"] > 0.9
    runner = Made("test", PRINTED, figures=("6",))
    tried = evolve(runner, [start], SMALL)
    assert runner.asked[:2] == [(12, (6000, 6001)), (12, (6002, 6003))]
    assert runner.asked[14:] == [(4, tuple(range(5000, 5006)))]
    assert {program_of(PRINTED, one.setting) for one in tried} == {program_of(PRINTED, start.setting)}
    found = stages.best(tried)
    assert found.replicates == 6
    assert dict(found.setting)["discount"] < 0.65
    assert [one.setting for one in evolve(Made("test", PRINTED, figures=("6",)), [start], SMALL)] == [
        one.setting for one in tried
    ]


def test_the_work_of_an_evolution_is_that_of_its_jobs():
    blank = SearchJob("", PRINTED, ((),), replace(SHORT, seeds=(1,)), ("6",))
    assert SMALL.work(PRINTED) == blank.device_blocks() * (12 * 14 * 2 + 4 * 6)


def test_a_strategy_begins_where_it_starts():
    start = tried_at(0.5, 24, {}).setting
    assert Strategy(PRINTED, start, (), 6, 0).finalists(1) == [start]


# The judge


def settings_by_cost(costs: dict[str, dict[int, float]]) -> np.ndarray:
    """(settings, 2 replicates, values) of `tried_steps`: every baseline costs 100, and less at some of them."""
    known = score.values(SHORT.points, ("7",))
    measured = np.full((1 + judge.STEPS**2, 2, len(known)), 100.0)
    for name, own in costs.items():
        column = known.index(score.Value(Term("cost", name, LATE), "7", ""))
        for number, cost in own.items():
            measured[number, :, column] = cost
    return measured


def test_the_best_steps_of_a_baseline_by_hand():
    """Binary costs 80 at the tenth pair of steps instead of 100, random 50 at its last rate; even is at its best."""
    setting = spread(PRINTED, 6)[0]
    binary, even, random = judge.rivals(
        PRINTED, setting, settings_by_cost({"binary": {10: 80.0}, "random": {49: 50.0}})
    )
    grid = judge.grid()
    assert (grid[0], grid[-1]) == (1e-4, 1.0)
    assert binary.found == figure_runs.baseline(
        "binary", PRINTED, "literal", load("paper", overrides(PRINTED, setting))
    )
    best = {**dict(binary.found[1]), "device_step": grid[9 // 7], "server_step": grid[9 % 7]}
    assert dict(binary.best[1]) == best
    assert binary.excess == pytest.approx(0.25)
    assert (even.best, even.excess) == (even.found, 0.0)
    assert dict(random.best[1])["start_rate"] == 1.0
    assert random.excess == pytest.approx(1.0)


def test_what_the_grid_of_steps_runs_is_what_a_baseline_plays():
    """The pair that wins is played with the steps of the setting that has won."""
    setting = spread(PRINTED, 6)[0]
    tried = judge.tried_steps(setting)
    assert len(tried) == 50
    assert tried[0] == (setting, {"binary": {}, "even": {}, "random": {}})
    for number in (1, 10, 49):
        rivals = judge.rivals(PRINTED, setting, settings_by_cost({name: {number: 1.0} for name in COMPARED[1:]}))
        scenario = load("paper", overrides(PRINTED, tried[number][0]))
        for rival in rivals:
            ran = pair_for(*configured(PRINTED, Point("7", rival.name, 20, 0.4, 10), scenario))
            plain = load("paper", overrides(PRINTED, setting))
            scheme, own = rival.best
            again = pair_for(scheme, plain.model_copy(update={"schemes": {**plain.schemes, scheme: dict(own)}}))
            assert again == ran, rival.name


def test_claims_that_hold_only_against_a_worse_baseline_are_marked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    def verdicts(*words: str) -> tuple[Verdict, ...]:
        return tuple(
            Verdict(f"7{name}", PRINTED, "conserving", "", word) for name, word in zip("abc", words, strict=True)
        )

    rival = judge.Rival("even", ("even-parametric", ()), ("even-parametric", (("device_step", 0.1),)), 0.25)
    found = judge.Judged(PRINTED, (rival,), verdicts(HOLDS, HOLDS, FAILS), verdicts(HOLDS, FAILS, HOLDS))
    assert found.marked() == [False, True, False]
    assert judge.sentence(found).startswith("2 of 3 claims hold, 1 of them only against")
    monkeypatch.setattr(judge, "DATA", tmp_path)
    judge.write(found)
    rows = (tmp_path / f"{PRINTED}-verdicts.csv").read_text().splitlines()
    assert [row.split(",")[-1] for row in rows] == ["only against worse", "", "yes", ""]
    assert "even,even-parametric,,device_step = 0.1,25" in (tmp_path / f"{PRINTED}-baselines.csv").read_text()


def test_a_preset_is_the_setting_that_was_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judge, "PRESETS", tmp_path)
    for candidate in CANDIDATES:
        setting = spread(candidate, len(programs(candidate)))[-1]
        path = judge.write_preset(candidate, Tried(setting, 24, {"6a": 0.0}))
        assert load(path) == load("paper", overrides(candidate, setting))


def test_the_runs_of_the_judge_are_those_of_the_reproduction_and_of_the_other_baselines():
    rival = judge.Rival("even", ("even-parametric", ()), ("even-parametric", (("device_step", 0.1),)), 0.25)
    made = judge._runs("parametric", "conserving", "paper", (rival,))
    usual = [
        job for job in figure_runs.jobs(FULL, "paper", ("parametric",), ("literal",)) if job.reading == "conserving"
    ]
    assert [job for job in made if job.settings != rival.best[1]] == usual
    others = {(job.figure, job.devices) for job in made if job.settings == rival.best[1]}
    assert others == {("7", 20), ("8", 50), *(("9", devices) for devices in FULL.points.fleets)}


# The page


def test_which_claims_were_together_by_hand():
    """Each is likely in some setting; of the pairs only 7a and 7b are likely in the same one."""
    sure, not_sure = score.needed() + 0.1, score.needed() - 0.1
    known = [tried_at(0.5, 24, {"7a": sure, "7b": sure, "7c": not_sure})]
    known += [tried_at(0.5, 24, {"7a": not_sure, "7b": not_sure, "7c": sure})]
    expected = [[True, True, False], [True, True, False], [False, False, True]]
    assert page.together(known, ("7a", "7b", "7c")).tolist() == expected


def test_what_a_setting_assumes_by_hand():
    """The preset itself is everything times 1; gamma = 0.5 is a horizon of two blocks."""
    setting = {name: data.preset_value(name) for name in space(PRINTED)} | {"discount": 0.5}
    assert page.world_words(setting | {"weights.device_energy": 3 * setting["weights.device_energy"]}) == (
        "1/(1 - gamma) = 2 blocks (`paper`: 20), w1 x 1, w2 x 1, w4 x 3, zeta x 1, f_max of devices x 1, f_max of the "
        "server x 1, noise -174 dBm/Hz, (1) conserving; learning stops: tenth block"
    )


def test_the_paper_page_says_what_the_search_has_found():
    """Its section is the one that `make search STAGE=page` writes."""
    page_text = (data.ROOT / "docs" / "paper.md").read_text("utf-8")
    assert page.judged() != []
    assert f"\n{page.text(page.judged(), page.varied())}\n" in page_text


def test_a_judged_preset_is_the_best_setting():
    for candidate in page.judged():
        best = stages.best(page.seen(candidate))
        assert load(str(judge.preset_of(candidate))) == load("paper", overrides(candidate, best.setting))


def test_what_the_paper_page_concludes_from_the_verdicts():
    """docs/paper.md: five claims hold with baselines at their best steps, and 7b, 8b and 9b in no phase."""
    rows = page.rows(f"{PRINTED}-verdicts.csv")
    named = [(row["claim"], row["phase"]) for row in rows if row["with best steps"] == HOLDS]
    assert named == [("6a", ""), ("6b", ""), ("6c", ""), ("8a", "from_start"), ("9a", "from_start")]
    assert {row["verdict"] for row in rows if row["claim"] in ("7b", "8b", "9b")} == {FAILS}
    early = [one for stage in ("screen", "evolve") for one in data.read(PRINTED, stage) if one.replicates == 24]
    wanted = ("6a", "6b", "6c", "7a", "7b", "7d")
    found = [one for one in early if all(one.weakest[name] >= score.needed() for name in wanted)]
    assert (len(found), len(early)) == (2, 432)
    assert {dict(one.setting)["queue"] for one in found} == {"as_printed"}
    assert {dict(one.setting)["radio.noise_dbm_per_hz"] for one in found} == {-204.0}
    chosen = stages.best(page.seen(PRINTED))
    assert chosen.likely() == 11
    explained = " ".join((data.ROOT / "docs" / "explanation" / "claims.md").read_text("utf-8").split())
    for candidate in page.judged():
        held = sum(row["verdict"] == HOLDS for row in page.rows(f"{candidate}-verdicts.csv"))
        assert f"{held} of 21 hold together in the best of {page.settings_of(candidate):,} settings" in explained
    scenario = load("paper", overrides(PRINTED, chosen.setting))
    assert 1 / (1 - scenario.discount) == pytest.approx(3, abs=0.2)
    load_hz = 20 * load("paper").device.task.cycles * 0.4 / scenario.slot_s
    assert scenario.server.cpu_max_hz / load_hz == pytest.approx(0.5, abs=0.02)


def test_what_the_paper_page_concludes_with_the_derivative():
    """Sixteen hold, eleven with best steps; 7b, 8b, 9b only as `even` has others; the server hardly learns."""
    rows = page.rows("parametric-verdicts.csv")
    assert sum(row["verdict"] == HOLDS for row in rows) == 16
    assert sum(row["with best steps"] == HOLDS for row in rows) == 11
    assert {row["claim"] for row in rows if row["only against worse"]} == {"7b", "8b", "9b"}
    assert {row["verdict"] for row in rows if row["claim"] in ("7b", "8b", "9b")} == {HOLDS}
    assert {row["verdict"] for row in rows if row["claim"] == "9c"} == {FAILS}
    excess = {row["baseline"]: float(row["cost above these [%]"]) for row in page.rows("parametric-baselines.csv")}
    assert round(excess["even"]) == 24
    assert max(excess["binary"], excess["random"]) < 1
    found, paper = load("paper-fitted-parametric").device.task, load("paper").device.task
    assert found.cycles * found.bits_per_cycle / 8e3 == pytest.approx(2.2, abs=0.05)
    assert paper.cycles * paper.bits_per_cycle / 8e3 == pytest.approx(125)
    weights = [load(name).weights for name in ("paper-fitted-parametric", "paper")]
    ratios = [one.device_energy / one.server_energy for one in weights]
    assert ratios[0] / ratios[1] == pytest.approx(2500, rel=0.02)
    intervals = {row["claim"]: row["interval"] for row in rows if not row["phase"]}
    assert intervals["6b"] == "[1.0e-02, 1.0e-02]"  # 1 of 100 iterations


def test_what_the_paper_page_concludes_with_q_learning():
    """Ten hold, five with best steps: 6a, 6c and three of 8a and 9a; the last CMA-ES was not run."""
    rows = page.rows("qlearning-verdicts.csv")
    assert sum(row["verdict"] == HOLDS for row in rows) == 10
    named = [(row["claim"], row["phase"]) for row in rows if row["with best steps"] == HOLDS]
    grow = [("8a", "from_start"), ("8a", "after_training"), ("9a", "from_start")]
    assert named == [("6a", ""), ("6c", ""), *grow]
    assert page.done("qlearning") == ["screen", "evolve", "extend"]


def test_no_proposed_scheme_beats_baselines_with_their_best_steps():
    """docs/paper.md: 7b, 8b and 9b hold for none of the three."""
    for candidate in page.judged():
        rows = [row for row in page.rows(f"{candidate}-verdicts.csv") if row["claim"] in ("7b", "8b", "9b")]
        assert len(rows) == 5
        assert HOLDS not in {row["with best steps"] for row in rows}


def test_where_binary_beats_even_in_few_devices_only():
    """docs/paper.md: 9c was likely in both phases in one and in five settings, on few replicates, with nine in all."""
    for candidate, count, replicates in ((PRINTED, 1, {2}), ("parametric", 5, {4, 8})):
        known = [one for stage in page.ALL_FIGURES for one in data.read(candidate, stage)]
        names = "9c from_start", "9c after_training"
        both = [one for one in known if min(one.weakest[name] for name in names) >= score.needed()]
        assert len(both) == count
        assert {one.replicates for one in both} == replicates
        assert max(one.likely() for one in both) == 9


# One parameter at a time


def test_what_the_preset_paper_has_of_a_parameter():
    """Of a scheme it is the default; one of a party alone is that of both where the party has none."""
    assert data.preset_value("discount") == load("paper").discount
    assert data.preset_value(f"schemes.{PRINTED}.device_step") == 0.01
    assert data.preset_value(f"schemes.{PRINTED}.start_rate") == 0.3
    assert data.preset_value(STOPPING_RULE) == "tenth block"
    assert data.preset_value(OWN_STEPS) is False


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_one_parameter_at_a_time_differs_from_the_preset_in_one(candidate: str):
    """All values of the preset together are the preset: its candidate, baselines and world."""
    preset = {name: data.preset_value(name) for name in space(candidate)}
    plain, whole = load("paper"), load("paper", overrides(candidate, tuple(preset.items())))
    assert whole.model_copy(update={"schemes": {}}) == plain.model_copy(update={"schemes": {}})
    for name in COMPARED:
        own = [pair_for(*configured(candidate, Point("7", name, 20, 0.4, 10), one)) for one in (plain, whole)]
        assert own[0] == own[1], name
    for name, value, setting in sensitivity.varied(candidate):
        changed = {one: new for one, new in setting if new != preset[one]}
        if name in OWN:
            assert changed.pop(OWN_STEPS) is True
        assert changed == ({} if value == preset[name] else {name: value})


def test_sensitivity_is_kept_and_drawn(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    """A dot where a claim is likely to hold, in the panel of its parameter."""
    monkeypatch.setattr(data, "DATA", tmp_path)
    monkeypatch.setattr(sensitivity, "DATA", tmp_path)
    sure = score.needed() + 0.01
    rows = [("discount", "0.5", "7a", sure), ("discount", "0.99", "7a", 1.0), ("queue", "as_printed", "7a", -50.0)]
    rows = [(name, value, f"{claim} from_start", z) for name, value, claim, z in rows]
    sensitivity.write(PRINTED, rows)
    again = sensitivity.read(PRINTED)
    assert [row[:3] for row in again] == [row[:3] for row in rows]
    panels = sensitivity.draw(again).axes
    dots = {axes.get_title(): [text.get_position() for text in axes.texts] for axes in panels if axes.get_title()}
    assert dots == {"discount": [(0, 0)], "queue": []}
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["7a empty"]
    assert [tick.get_text() for tick in panels[1].get_xticklabels()] == ["as_printed"]


# Data


def test_settings_are_kept_as_they_were_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "DATA", tmp_path)
    tried = [
        Tried(one, 2 + 2 * number, {"6a": -0.1234 * number, "7a": 12.5})
        for number, one in enumerate(spread("qlearning", 12))
    ]
    path = data.write("qlearning", "screen", tried)
    before = path.read_bytes()
    again = data.read("qlearning", "screen")
    assert [one.setting for one in again] == [one.setting for one in tried]
    assert [one.replicates for one in again] == [one.replicates for one in tried]
    assert again[3].weakest == {"6a": -0.37, "7a": 12.5}
    assert data.write("qlearning", "screen", again).read_bytes() != b""
    data.write("qlearning", "screen", tried)
    assert path.read_bytes() == before
