"""The runs behind the figures, the folder that keeps them, Remark 1, and the report."""

import errno
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from partway.cli import main as cli
from partway.errors import InputError
from partway.figures import paper as figures
from partway.measurement.gap import discounted
from partway.paper import figure_runs, html, remark1
from partway.paper import jobs as module
from partway.paper.claims import CANDIDATES, PHASES, Points
from partway.paper.figure_runs import COST_COMPONENTS, FigureJob, Sizes, baseline, lanes, run_job
from partway.paper.jobs import SECONDS, Arrays, job_key, jobs_code_hash, run_jobs
from partway.paper.proposition1 import DISCOUNTS, PARTIES, PARTS, PropositionJob
from partway.paper.remark1 import RemarkJob, central
from partway.paper.report import MARKS, everything, insert, markdown
from partway.paper.reproduce import Findings, all_jobs, opened, reproduce
from partway.paper.verdicts import step_ratio
from partway.provenance import import_closure
from partway.scenario.loading import load
from partway.schemes import pair_for, stream_of
from partway.simulation.rollout import rollout
from partway.system.placement import sample_placement
from partway.system.world import build

TINY = Sizes((3, 4), Points((0.1, 0.5), (2, 3)), training=20, horizon=10, blocks=2000)
PRINTED, PARAMETRIC = "parametric-printed", "parametric"


def small(**changed: Any) -> FigureJob:
    given = {"figure": "8", "scheme": PRINTED, "reading": "conserving", "devices": 3, "arrival_probs": (0.2, 0.6)}
    return FigureJob(**{**given, "seeds": (3, 4), "blocks": 30, "training": 20, **changed})


# Runs


@pytest.fixture(scope="module")
def series() -> dict[str, np.ndarray]:
    """The lanes of `small()`."""
    return lanes(small())


def test_a_lane_is_the_run_of_its_seed_placement_and_arrival_probability(series: dict[str, np.ndarray]):
    job, cost = small(), sum(series[name] for name in COST_COMPONENTS)
    for lane, (prob, seed) in {0: (0.2, 3), 3: (0.6, 4)}.items():
        scenario = load("paper", {"devices": 3, "device.arrival_prob": prob, "placement_seed": seed})
        pair, world = pair_for(PRINTED, scenario), build(scenario, sample_placement(scenario))
        alone = rollout(world, pair, stream_of(PRINTED), [seed], job.blocks)
        np.testing.assert_allclose(cost[lane], alone.metrics.cost()[0], rtol=2e-4)
    assert len(cost) == len(job.arrival_probs) * len(job.seeds)


def test_the_two_sums_of_a_job(series: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(figure_runs, "lanes", lambda job: series)
    cost = sum(series[name].astype(float) for name in COST_COMPONENTS).reshape(2, 2, 30)
    arrays = run_job(small())
    for at in range(2):
        np.testing.assert_allclose(arrays["from_start"][at], discounted(cost[at, :, :10], 0.95), rtol=1e-5)
        np.testing.assert_allclose(arrays["after_training"][at], discounted(cost[at, :, 20:], 0.95), rtol=1e-5)
    for phase in ("from_start", "after_training"):
        np.testing.assert_allclose(arrays[f"{phase}_components"].sum(axis=-1), arrays[phase], rtol=1e-9)


def test_which_schemes_run_where():
    jobs = figure_runs.jobs(TINY)
    printed = {job.scheme for job in jobs if job.reading == "as_printed"}
    literal = {"binary-parametric", "even-parametric", "random-fixed"}
    assert printed == {PRINTED, PARAMETRIC, "qlearning", "binary", "even", "random", *literal}
    assert {job.devices for job in jobs if job.figure == "9"} == {2, 3}
    assert {job.scheme for job in jobs if job.figure == "6"} == set(CANDIDATES)


def test_a_candidates_baselines_have_its_gradient_and_steps():
    """Of a fitted preset: what the search set for the candidate; of these `random-fixed` has its first rate."""
    scenario = load(f"paper-fitted-{PRINTED}")
    fitted = {"gradient": "printed", **scenario.schemes[PRINTED]}
    assert {"device_step", "server_step", "start_rate", "patience"} < set(fitted)
    for name in ("binary", "even"):
        assert baseline(name, PRINTED, "literal", scenario) == (f"{name}-parametric", tuple(sorted(fitted.items())))
    assert baseline("random", PRINTED, "literal", scenario) == ("random-fixed", (("start_rate", fitted["start_rate"]),))
    for candidate in CANDIDATES:
        assert baseline("binary", candidate, "q-learned", scenario) == ("binary", ())
        printed = (("gradient", "printed"),) if candidate == PRINTED else ()
        assert baseline("binary", candidate, "literal", load("paper")) == ("binary-parametric", printed)
    own = load(f"paper-fitted-{PRINTED}", {"schemes.binary-parametric.device_step": 0.5})
    assert "device_step" not in dict(baseline("binary", PRINTED, "literal", own)[1])


def test_a_baselines_run_has_its_candidates_gradient():
    job = small(scheme="binary-parametric", settings=(("gradient", "printed"), ("step", 0.5)))
    pair = pair_for(job.scheme, job.scenario())
    assert [(one.gradient, one.step) for one in (pair.device, pair.server)] == [("printed", 0.5)] * 2
    assert "schemes.binary-parametric.gradient=printed" in job.command()
    played = {(one.scheme, one.settings) for one in figure_runs.jobs(TINY, candidates=(PRINTED,), kinds=("literal",))}
    assert played == {
        (PRINTED, ()),
        ("binary-parametric", (("gradient", "printed"),)),
        ("even-parametric", (("gradient", "printed"),)),
        ("random-fixed", ()),
    }


def test_the_command_of_a_job_has_its_scenario():
    job = small(figure="6", blocks=2000)
    words = job.command().split()
    assert words[:4] == ["partway", "run", "--scenario", "paper"]
    assert f"schemes.{PRINTED}.stop=false" in words
    assert load("paper", words[words.index("--set") + 1 :]) == job.scenario()
    given = {flag: words[words.index(flag) + 1] for flag in ("--schemes", "--blocks", "--seed")}
    assert given == {"--schemes": PRINTED, "--blocks": "2000", "--seed": "3"}


def test_the_step_ratio_is_what_the_second_row_of_figure_6_divides_by():
    """(1 + t)^-0.6 of the paper's algorithms; the table of `decoupled` never moves by less than a hundredth.

    Least squares have no step size; the decay of `qlearning-designed` is that of exploration.
    """

    def ratio(scheme: str, blocks: int, preset: str = "paper") -> np.ndarray:
        return step_ratio(small(figure="6", scheme=scheme, blocks=blocks, preset=preset))

    np.testing.assert_allclose(ratio(PRINTED, 4), [1, 2**-0.6, 3**-0.6, 4**-0.6])
    assert ratio("decoupled", 10_000)[-1] == 0.01 > ratio(PRINTED, 10_000)[-1]
    np.testing.assert_array_equal(ratio("qlearning-designed", 4), np.ones(4))
    decay = load(f"paper-fitted-{PRINTED}").schemes[PRINTED]["device_decay"]
    np.testing.assert_allclose(ratio(PRINTED, 4, f"paper-fitted-{PRINTED}"), np.arange(1, 5) ** -decay)


# Jobs in a folder


def made_up(job: Any) -> Arrays:
    """Random arrays of the shapes of a job's, the same for the same job."""
    random = np.random.default_rng(abs(hash(repr(job))) % 2**32)
    if job.figure == "R1":
        return {"device": np.full(4, 5e3), "server": np.full(4, 1e4)}
    if job.figure in ("P1", "R2"):
        shape = (len(DISCOUNTS), len(job.seeds), 4)
        parts = {f"{party}_{part}": random.lognormal(0, 1, shape) for party in PARTIES for part in PARTS}
        return parts | {f"{party}_error": random.lognormal(0, 1, shape[:2]) for party in PARTIES}
    shape = (len(job.arrival_probs), len(job.seeds), job.blocks)
    over_time = ("cost", "device_relative_change", "server_relative_change")
    sums, components = ("from_start", "after_training"), ("components", "from_start_components")
    return {
        **{name: random.lognormal(0, 1, shape) for name in over_time},
        **{name: random.lognormal(0, 1, shape[:2]) for name in sums},
        **{name: np.ones((*shape[:2], 4)) for name in (*components, "after_training_components")},
        "unstable": random.random(shape[:2]) < 0.3,
    }


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that are computed, with made-up arrays in place of runs; sizes are TINY."""
    jobs: list[Any] = []

    def stand_in(job: Any) -> Arrays:
        jobs.append(job)
        return made_up(job)

    for kind in (FigureJob, PropositionJob, RemarkJob):
        monkeypatch.setattr(kind, "run", stand_in)
    monkeypatch.setattr(figure_runs, "QUICK", TINY)
    return jobs


def same(one: Arrays, two: Arrays) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def kept_in(out: Path, jobs: list[FigureJob]) -> dict[FigureJob, Arrays]:
    with opened(out, TINY, "paper", False) as store:
        return run_jobs(jobs, store, 1)


def test_a_stopped_run_is_resumed(tmp_path: Path, computed: list[Any]):
    """What is kept is not computed again, and is the same; a damaged file counts as missing."""
    made = [small(seeds=(seed,)) for seed in (1, 2)]
    first = kept_in(tmp_path, made[:1])
    again = kept_in(tmp_path, made)
    assert computed == made
    assert same(again[made[0]], first[made[0]])
    assert SECONDS in again[made[0]]
    path = tmp_path / "jobs" / f"{job_key(made[0])}.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert same(kept_in(tmp_path, made)[made[0]], first[made[0]]) is False  # its time was measured anew
    assert computed == [*made, made[0]]


def test_a_job_is_found_again_only_if_nothing_that_it_depends_on_has_changed(monkeypatch: pytest.MonkeyPatch):
    jobs = (small(), small(blocks=40), small(preset="ocr"))
    names = {job_key(job) for job in jobs}
    assert job_key(small()) in names
    for change in ({"code": "another"}, {"jax": "another"}):
        monkeypatch.setattr(module, "made_by", lambda *modules, change=change: {"code": "c", "jax": "j", **change})
        names |= {job_key(job) for job in jobs}
    assert len(names) == 9
    assert all(re.fullmatch(r"figure-8-parametric-printed-conserving-3-[0-9a-f]{32}", name) for name in names)


def test_the_code_of_a_job_is_all_that_its_module_imports():
    jobs = all_jobs(TINY, "paper")
    closure = set(import_closure(*module.modules(jobs)))
    assert {"partway.paper.figure_runs", "partway.paper.proposition1", "partway.paper.remark1"} <= closure
    assert "partway.controllers.parametric" in closure
    assert "partway.paper.html" not in closure
    assert jobs_code_hash(jobs) != jobs_code_hash(jobs[:1])


@pytest.mark.slow
def test_processes_give_what_one_gives(tmp_path: Path):
    made = [RemarkJob(PRINTED, (2,)), RemarkJob(PARAMETRIC, (2,))]
    alone, together = run_jobs(made, None, 1), run_jobs(made, None, 2)
    assert all(np.array_equal(alone[job]["device"], together[job]["device"]) for job in made)
    assert jax.tree.structure(alone[made[0]]) == jax.tree.structure(together[made[0]])


# Remark 1


def test_the_central_problem_by_hand():
    """One device: 8 x 3 of its states, 9 of the server, 6 x 16 actions; each more multiplies by 8 x 3 x 6 and more."""
    assert central(1) == 8 * 3 * 9 * 6 * 16
    assert central(2) / central(1) == pytest.approx(8 * 3 * 6 * 17 / 9)


def test_a_device_computes_the_same_in_any_fleet():
    few, many = (remark1.operations(PRINTED, devices) for devices in (2, 40))
    assert few[0] == many[0] > 0
    assert few[1] < many[1] < 20 * few[1]  # the server reads every queue


# The report


class Structure(HTMLParser):
    """Checks that tags are nested, and collects ids, links, cells and text."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.images, self.cells = [], [], [], 0, 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.images += tag == "img"
        self.cells += given.get("class", "").startswith("verdict")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def structure_of(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    return structure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Empty pictures in place of figures; their names."""
    names = [f"figure-{number}{end}" for end in ("", "-as-printed") for number in "6789"] + ["proposition-1"]

    def write(findings: Findings, folder: Path, look: Any = None) -> list[str]:
        for name in names:
            (folder / f"{name}.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        return names

    monkeypatch.setattr(figures, "write", write)
    return names


def test_the_command_from_end_to_end(
    tmp_path: Path,
    computed: list[Any],
    drawn: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """The report, its JSON, the table in a document; the same command does not compute anything again."""
    document, out = tmp_path / "page.md", tmp_path / "out"
    document.write_text(f"before\n{MARKS[0]}\nwas here\n{MARKS[1]}\nafter\n")
    command = ["reproduce", "--quick", "--out", str(out), "--jobs", "1"]
    assert cli.main([*command, "--json", "-", "--table", str(document)]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["schema_version"] == 2
    assert report["code"] == jobs_code_hash(computed)
    claim = {one["id"]: one for one in report["claims"]}["8b"]
    assert set(claim["schemes"]) == set(CANDIDATES)
    assert claim["schemes"][PRINTED]["verdict"] == "too few replicates"
    assert len(claim["schemes"][PRINTED]["cases"]) == 8
    printed = [one for one in claim["schemes"]["priced"]["cases"] if one["reading"] == "as_printed"]
    assert [(one["baselines"], one["verdict"]) for one in printed] == [
        (kind, "not applicable") for kind in ("literal", "literal", "q-learned", "q-learned")
    ]
    names = {path.name for path in out.iterdir()}
    assert names == {
        ".partway",
        ".lock",
        "jobs",
        "claims.csv",
        "verdicts.md",
        "report.json",
        "report.html",
        *(f"{n}.svg" for n in drawn),
    }
    assert len(list((out / "jobs").iterdir())) == len(all_jobs(TINY, "paper"))
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{MARKS[1]}\nafter\n")
    assert "was here" not in text
    assert "| 8b |" in text
    count = len(computed)
    assert cli.main(command) == 0
    assert len(computed) == count
    monkeypatch.setattr(figure_runs, "QUICK", Sizes((3, 4, 5), TINY.points, 20, 10, 2000))
    assert cli.main(command) == 2
    assert "holds another reproduction: sizes.seeds is [3, 4], not [3, 4, 5]" in capsys.readouterr().err
    assert len(computed) == count


def test_overwriting_keeps_the_jobs_that_are_needed(tmp_path: Path, computed: list[Any]):
    def reproduced(sizes: Sizes, overwrite: bool) -> int:
        """How many jobs were computed."""
        before = len(computed)
        with opened(tmp_path / "out", sizes, "paper", overwrite) as store:
            reproduce(sizes, store=store)
            with store.results() as folder:
                (folder / "report.html").write_text("report")
        return len(computed) - before

    more = Sizes(TINY.seeds, Points((0.1, 0.5), (2, 3, 4)), training=20, horizon=10, blocks=2000)
    assert reproduced(TINY, False) == len(all_jobs(TINY, "paper"))
    assert reproduced(more, True) == len(set(all_jobs(more, "paper")) - set(all_jobs(TINY, "paper"))) > 0
    assert reproduced(TINY, True) == 0
    assert len(list((tmp_path / "out" / "jobs").iterdir())) == len(all_jobs(TINY, "paper"))


@pytest.fixture
def findings(computed: list[Any]) -> Findings:
    return reproduce(TINY)


def test_the_page_is_whole_and_stands_alone(findings: Findings, drawn: list[str], tmp_path: Path):
    figures.write(findings, tmp_path)
    page = html.page(findings, [tmp_path / f"{name}.svg" for name in drawn])
    structure = structure_of(page)
    assert "://" not in page.split("<body>")[1]
    assert "undefined" not in page.casefold()
    assert structure.images == len(drawn)
    assert len(structure.ids) == len(set(structure.ids))
    assert {link.removeprefix("#") for link in structure.links} <= set(structure.ids)
    assert {claim.id for claim in findings.claims} <= set(structure.ids)
    judged = [one for one in findings.verdicts if one.verdict != "not applicable"]
    assert structure.cells == len(findings.verdicts) + len(judged)  # in the tables, and again in detail
    for one in judged:
        assert one.why in structure.text
    for job in findings.runs:
        assert f"jobs/{job_key(job)}.npz" in structure.text
    assert structure.text.count("(least squares have no step size)") > 0  # of 6a or 6b with `qlearning-designed`
    assert "Fewer than 20 replicates are too few for a verdict" in structure.text
    too_few = sum(one.verdict == "too few replicates" for one in findings.verdicts)
    assert too_few >= 21 * (6 + 3)  # claims on Figures 6 to 9, for the candidates that can run under each reading
    assert f"too few replicates: {too_few}" in structure.text


def rows_of(text: str) -> list[list[str]]:
    """The cells of the rows of claims in the tables of a document."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "claim"]


def test_a_table_has_verdicts_where_there_are_enough_replicates(findings: Findings):
    """Of 2 replicates it says how many comparisons support a claim, of 20 what is decided; R1, D1, D2 are neither."""
    enough = reproduce(Sizes(tuple(range(20)), TINY.points, TINY.training, TINY.horizon, TINY.blocks))
    for report, words in ((findings, r"\d+ of \d+ for"), (enough, r"(holds|fails|undecided) \[[^]]+, [^]]+\]")):
        short, full = rows_of(markdown(report)), rows_of(everything(report))
        assert [row[0] for row in short] == [row[0] for row in full[: len(full) // 2]] == [*ROWS, "hold", "hold"]
        on_figures = [cell for row in short for cell in row[2:] if row[0][0] in "6789"]
        assert len(on_figures) == 21 * len(CANDIDATES)
        assert [cell for cell in on_figures if not re.fullmatch(words, cell)] == []
        declared = {row[0]: row[2:] for row in short}
        assert declared["D1"] == ["holds"] * 5 + ["fails"]  # `priced` receives a price
        assert declared["D2"] == ["holds"] * 6
        assert all(cell.startswith("holds [") for cell in declared["R1"])
    assert re.fullmatch(r"\d+ of 21", rows_of(markdown(enough))[-1][2])
    assert rows_of(markdown(findings))[-1][2:] == ["-"] * 6


ROWS = ["6a", "6b", "6c", "7a", "7b", "7c", "7d"]
ROWS += [name for name in ("8a", "8b", "8c", "9a", "9b", "9c", "9d") for _ in PHASES] + ["P1", "R2", "R1", "D1", "D2"]
"""First cells of a table of claims."""


def test_a_curve_is_the_median_whatever_a_lost_replicate_costs():
    """Of 1, 2, 3, 4 and a lost one of 1e6: median 3, quartiles 2 and 4, a mean of 2e5; one of five is unstable."""
    values = np.array([[1.0], [2.0], [3.0], [4.0], [1e6]])
    curve = figures.line(np.array([0.4]), values, values > 100)
    assert (curve.median, curve.low, curve.high, curve.unstable) == (3, 2, 4, 1)
    assert curve.mean == pytest.approx(2e5, rel=1e-4)


def test_an_axis_covers_the_medians_of_what_is_stable():
    """One scheme costs 1 to 2; the other is unstable in most replicates at its second point: an arrow at the edge."""
    axes, few = Figure().subplots(), np.zeros((4, 2), bool)
    lost = few.copy()
    lost[:2, 1] = True
    x = np.array([5.0, 60.0])
    curves = {
        "even": figures.line(x, np.array([[1.0, 2.0]] * 4), few),
        "binary": figures.line(x, np.array([[1.5, 1e7]] * 4), lost),
    }
    figures._fit_axis(axes, curves, 4)
    assert axes.get_ylim() == pytest.approx((1 / 1.3, 2 * 1.5))
    assert [(*line.get_xdata(), line.get_marker()) for line in axes.lines if len(line.get_xdata())] == [(60.0, "^")]


def test_markers_say_how_many_replicates_are_unstable():
    """Three points, of four replicates 0, 1 and 2 unstable: filled, open, a cross."""
    axes, unstable = Figure().subplots(), np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]], bool)
    figures._draw(axes, "even", figures.line(np.arange(3.0), np.ones((4, 3)), unstable), 4)
    drawn = [(line.get_marker(), line.get_markerfacecolor() == "white", *line.get_xdata()) for line in axes.lines[1:]]
    assert drawn == [("o", False, 0.0), ("o", True, 1.0), ("x", False, 2.0)]


def test_the_page_shows_text_as_it_is(findings: Findings):
    """A preset is a file of any name."""
    name = "<script>alert('&')</script>"
    page = html.page(Findings(**{**vars(findings), "preset": name, "command": name, "runs": {}}), [])
    assert "<script" not in page
    assert structure_of(page).text.count(name) == 2


def test_a_document_without_marks_is_left_alone(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(InputError, match="must contain each of these lines once"):
        insert(page, None)  # type: ignore[arg-type]  # it is refused before the findings are read
    assert page.read_text() == "nothing"


def test_a_document_stays_as_it_was_where_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    page, text = tmp_path / "page.md", "\n".join(("before", *MARKS, "after"))
    page.write_text(text)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("partway.paper.report.markdown", lambda findings: "tables")
    nothing: Any = None
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=r"--table .*cannot be written \(No space left"):
            insert(page, nothing)
    assert page.read_text() == text
    insert(page, nothing)
    assert page.read_text().splitlines() == ["before", MARKS[0], "tables", MARKS[1], "after"]
    assert os.listdir(tmp_path) == ["page.md"]


@pytest.mark.slow
def test_the_figures_are_drawn_and_stand_in_the_page(computed: list[Any], tmp_path: Path):
    findings = reproduce(TINY)
    names = figures.write(findings, tmp_path)
    assert len(names) == 9
    page = html.page(findings, [tmp_path / f"{name}.svg" for name in names])
    assert page.count("data:image/svg+xml") == 9
    assert structure_of(page).images == 9
