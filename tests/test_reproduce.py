"""The runs behind the figures, what is kept of them, Proposition 1, Remark 1, and what is reported."""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway.cli import main as cli
from partway.cli.commands import seeds_of
from partway.cli.reproduce import prepared, reproduce_paper
from partway.errors import InputError
from partway.experiments.statistics import discounted
from partway.paper import figure_runs as reproduction
from partway.paper import jobs as kept
from partway.paper import proposition1, remark1
from partway.paper.claims import CANDIDATES, Points
from partway.paper.figure_runs import Part, Sizes, lanes, parts, play
from partway.paper.jobs import part_name, read, run_parts, write
from partway.paper.proposition1 import DISCOUNTS, PARTIES, PropositionPart, unbiased_square
from partway.paper.remark1 import central
from partway.paper.report import MARKS, insert
from partway.paper.verdicts import shrinking
from partway.scenario.loading import load
from partway.schemes import pair_for
from partway.simulation.rollout import run
from partway.system.placement import sample_placement
from partway.system.world import build

TINY = Sizes((3, 4), Points((0.1, 0.5), (2, 3)), training=20, horizon=10, blocks=2000)


def small(**changed: Any) -> Part:
    given = {"figure": "8", "scheme": "printed", "reading": "conserving", "devices": 3, "arrival_probs": (0.2, 0.6)}
    return Part(**{**given, "seeds": (3, 4), "blocks": 30, "training": 20, **changed})


def test_a_lane_is_the_run_of_its_seed_placement_and_arrival_probability():
    part, scheme = small(), "printed"
    cost = sum(lanes(part)[name] for name in reproduction.COST_COMPONENTS)
    lane = 0
    for prob in part.arrival_probs:
        for seed in part.seeds:
            scenario = load("paper", {"devices": 3, "device.arrival_prob": prob, "placement_seed": seed})
            alone = run(build(scenario, sample_placement(scenario)), pair_for(scheme, scenario), scheme, [seed], 30)
            np.testing.assert_allclose(cost[lane], alone.sums.cost()[0], rtol=2e-4)
            lane += 1
    assert len(cost) == lane


def test_the_two_sums_of_a_part():
    part = small(arrival_probs=(0.2,))
    cost = sum(lanes(part)[name].astype(float) for name in reproduction.COST_COMPONENTS)
    found = play(part)
    np.testing.assert_allclose(found["from_start"], [discounted(cost[:, :10], 0.95)], rtol=1e-5)
    np.testing.assert_allclose(found["after_training"], [discounted(cost[:, 20:], 0.95)], rtol=1e-5)
    for phase in ("from_start", "after_training"):
        np.testing.assert_allclose(found[f"{phase}_parts"].sum(axis=-1), found[phase], rtol=1e-9)


def test_who_plays_where():
    found = parts(TINY)
    printed = {part.scheme for part in found if part.reading == "as_printed"}
    assert printed == {"printed", "exact", "qlearning", "binary", "even", "random"}
    assert {part.devices for part in found if part.figure == "9"} == {2, 3}
    assert {part.scheme for part in found if part.figure == "6"} == set(CANDIDATES)


def test_the_command_of_a_part_is_its_scenario():
    part = small(figure="6", blocks=2000)
    words = part.command().split()
    assert "schemes.printed.stop=false" in words
    assert load("paper", words[words.index("--set") + 1 :]) == part.scenario()
    asked = cli._parser().parse_args(words[1:])
    assert seeds_of(asked, 8) == [part.seeds[0]]
    assert (asked.schemes, asked.blocks) == (["printed"], 2000)


def test_alpha_is_what_the_ratio_of_figure_6_is_freed_from():
    """(1 + t)^-0.6 of `printed`; the table of `decoupled` is never moved by less than a hundredth."""

    def steps(scheme: str, blocks: int, preset: str = "paper") -> np.ndarray:
        return shrinking(small(figure="6", scheme=scheme, blocks=blocks, preset=preset))

    np.testing.assert_allclose(steps("printed", 4), [1, 2**-0.6, 3**-0.6, 4**-0.6])
    assert steps("decoupled", 10_000)[-1] == 0.01 > steps("printed", 10_000)[-1]
    decay = load("paper-fitted-printed").schemes["printed"]["decay"]
    np.testing.assert_allclose(steps("printed", 4, "paper-fitted-printed"), np.arange(1, 5) ** -decay)


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is there is not computed again, and is the same; a file cut short is as none."""
    made = [small(arrival_probs=(0.2,), seeds=(seed,)) for seed in (1, 2)]
    first = run_parts(made[:1], tmp_path, 1)
    played: list[Part] = []
    monkeypatch.setattr(Part, "play", lambda part: played.append(part) or {"x": np.zeros(1)})
    again = run_parts(made, tmp_path, 1)
    assert played == made[1:]
    assert all(np.array_equal(again[made[0]][name], values) for name, values in first[made[0]].items())
    path = tmp_path / part_name(made[0])
    path.write_bytes(path.read_bytes()[:-20])
    run_parts(made, tmp_path, 1)
    assert played == [*made[1:], made[0]]


def test_a_part_is_found_again_only_if_nothing_it_depends_on_has_changed():
    names = {part_name(part, code) for part in (small(), small(blocks=40), small(preset="ocr")) for code in "ab"}
    assert len(names) == 6
    assert part_name(small(), "a") == part_name(small(), "a")


def test_what_is_written_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a.npz", {"x": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path / "a.npz") is None


def test_the_square_of_a_mean_without_bias():
    """By hand: of 1, 2, 6 the products of different ones are 2, 6, 12, whose mean is 20/3; the square of 3 is 9."""
    assert float(unbiased_square(jnp.array([1.0, 2.0, 6.0]))) == pytest.approx(20 / 3)
    samples = np.random.default_rng(0).normal(0.5, 3.0, (4, 200_000)).astype(np.float32)
    assert float(jnp.mean(unbiased_square(jnp.asarray(samples)))) == pytest.approx(0.25, abs=0.05)


def test_both_sides_where_everything_is_known():
    """No task ever comes: nothing costs anything at a device, so its true Q is 0 and the left side is Q squared.

    Q starts at `start_value` / (1 - gamma) times 2/M sum of features; delta is (gamma - 1) Q while the features stay.
    """
    part = PropositionPart("exact", "conserving", (5,), checkpoints=(1,), future_blocks=12)
    scenario = load("paper", {"devices": 4, "device.arrival_prob": 0.0, "schemes.exact.stop": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PropositionPart, "scenario", lambda part, placement_seed=None: scenario)
        patch.setattr(proposition1, "FUTURES", 2)
        found = part.play()
    left, error = found["device_left"][:, 0, 0], found["device_error"][:, 0, 0]
    gamma = np.array(DISCOUNTS)
    about = (1.0 / (1.0 - gamma)) ** 2  # Q is about 1 / (1 - gamma): a feature is 1/2 on average
    assert np.all((left > 0.1 * about) & (left < 10 * about))
    assert np.all(np.diff(left) > 0)
    assert error[0] < 0.5 * left[0]  # delta = Q (gamma - 1) + change of the features with the gain
    for one in proposition1.bounds(found):
        np.testing.assert_allclose(one.certain("device"), one.right("device") / (1 - one.discount))


def test_a_ratio_of_sides_by_hand():
    found = proposition1.log_ratio(np.array([1.0, 4.0, -1.0, 1.0]), np.array([2.0, 2.0, 2.0, 1e9]))
    np.testing.assert_allclose(np.exp(found), [2.0, 0.5, 1000.0, 1e9])


def test_proposition_1_fails_where_the_left_side_is_larger():
    part = PropositionPart("exact", "conserving", tuple(range(20)), checkpoints=(10,))
    noise = np.exp(np.random.default_rng(0).normal(0, 0.1, (len(DISCOUNTS), 1, 20)))
    arrays = {f"{party}_{kind}": 1.0 * noise for party in PARTIES for kind in ("left", "error", "residual")}
    verdicts = {one.candidate: one.verdict for one in proposition1.judge({part: arrays}) if one.reading == "conserving"}
    assert verdicts["exact"] == "holds"  # 1 < 1 / (1 - gamma) everywhere
    arrays["device_left"] = 50.0 * noise  # above 10 and 20, below 100 and 1000
    (found,) = [one for one in proposition1.judge({part: arrays}) if one.verdict == "fails"]
    assert "(37) at gamma = 0.9" in found.why
    assert sum(one.sign < 0 for one in found.decisions) == 2


def test_the_central_problem_by_hand():
    """One device: 8 x 3 of its states, 9 of the server, 6 x 16 actions; each more multiplies by 8 x 3 x 6 and more."""
    assert central(1) == 8 * 3 * 9 * 6 * 16
    assert central(2) / central(1) == pytest.approx(8 * 3 * 6 * 17 / 9)


def test_a_device_computes_the_same_in_any_fleet():
    few, many = (remark1.operations("printed", devices) for devices in (2, 40))
    assert few[0] == many[0] > 0
    assert few[1] < many[1] < 20 * few[1]  # the server reads every queue


def options(**given: Any) -> argparse.Namespace:
    usual = {"quick": True, "scenario": None, "out": None, "json": None, "table": None, "jobs": 1, "overwrite": False}
    return argparse.Namespace(**{**usual, **given})


def test_the_command_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With made-up arrays in place of runs: the report, its JSON, the table in a document; nothing is replaced."""
    random = np.random.default_rng(0)

    def made(part: Any) -> dict[str, np.ndarray]:
        if part.figure == "R1":
            return {"device": np.full(4, 5e3), "server": np.full(4, 1e4)}
        if part.figure == "P1":
            shape = (len(DISCOUNTS), len(part.checkpoints), len(part.seeds))
            return {
                f"{p}_{kind}": random.lognormal(0, 1, shape) for p in PARTIES for kind in ("left", "error", "residual")
            }
        shape = (len(part.arrival_probs), len(part.seeds), part.blocks)
        series = {
            name: random.lognormal(0, 1, shape) for name in ("cost", "device_relative_change", "server_relative_change")
        }
        sums = {name: random.lognormal(0, 1, shape[:2]) for name in ("from_start", "after_training")}
        parts = ("parts", "from_start_components", "after_training_components")
        return series | sums | {name: np.ones((*shape[:2], 4)) for name in parts}

    monkeypatch.setattr("partway.reproduce_command.QUICK", TINY)
    for kind in (Part, PropositionPart, remark1.RemarkPart):
        monkeypatch.setattr(kind, "play", made)
    document = tmp_path / "page.md"
    document.write_text(f"before\n{MARKS[0]}\nwas here\n{MARKS[1]}\nafter\n")
    reproduce_paper(options(out=tmp_path / "out", json="-", table=document))
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    claim = {one["id"]: one for one in report["claims"]}["8b"]
    assert set(claim["schemes"]) == set(CANDIDATES)
    assert claim["schemes"]["printed"]["verdict"] in ("holds", "fails", "undecided")
    assert len(claim["schemes"]["printed"]["cases"]) == 4
    assert {one["verdict"] for one in claim["schemes"]["priced"]["cases"][2:]} == {"not applicable"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "http" not in page.split("<body>")[1].replace("http://www.w3.org", "")
    assert page.count("data:image/svg+xml") == 9
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{MARKS[1]}\nafter\n")
    assert "was here" not in text
    assert "| 8b |" in text
    with pytest.raises(InputError, match="holds a report already; add --overwrite"):
        reproduce_paper(options(out=tmp_path / "out"))


def test_a_folder_of_others_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other things"):
        prepared(tmp_path, True)
    with pytest.raises(InputError, match="is not a folder"):
        prepared(tmp_path / "mine.txt", True)


def test_a_document_without_marks_is_left_alone(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(InputError, match="must hold each of these lines once"):
        insert(page, None)  # type: ignore[arg-type]
    assert page.read_text() == "nothing"


@pytest.mark.slow
def test_processes_give_what_one_gives(tmp_path: Path):
    made = [remark1.RemarkPart("printed", (2,)), remark1.RemarkPart("exact", (2,))]
    alone, together = run_parts(made, None, 1), run_parts(made, tmp_path, 2)
    assert all(np.array_equal(alone[part]["device"], together[part]["device"]) for part in made)
    assert jax.tree.structure(alone[made[0]]) == jax.tree.structure(together[made[0]])
