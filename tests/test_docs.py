"""The documents tell the truth: names exist, examples run, commands are understood."""

import csv
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import partway
from partway.cli.main import _parser
from partway.paper.claims import PHASES, Points, claims
from partway.paper.verdicts import phases
from partway.scenario.loading import load

ROOT = Path(__file__).parents[1]
PAPER = (ROOT / "docs" / "paper.md").read_text()
README = (ROOT / "README.md").read_text()
FITTED = ("printed", "exact", "qlearning")


def test_every_function_that_stands_for_the_paper_exists():
    names = set(re.findall(r"`([a-z_.]+):([A-Za-z_0-9]+)`", PAPER))
    assert len(names) > 30
    missing = [
        f"{module}:{name}" for module, name in names if not hasattr(importlib.import_module(f"partway.{module}"), name)
    ]
    assert missing == []


def test_every_test_that_stands_for_the_paper_exists():
    named = set(re.findall(r"`(test_\w+\.py)::(\w+)`", PAPER))
    assert len(named) > 30
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / "tests" / file).read_text()]
    assert missing == []


def test_every_numbered_equation_and_trap_has_a_row():
    section = PAPER.split("## Equations")[1].split("## Algorithms")[0]
    firsts = [row.split("|")[1] for row in section.splitlines() if row.startswith("| (")]
    covered: set[int] = set()
    for first in firsts:
        for low, high in re.findall(r"\((\d+)[ab]?\)(?:-\((\d+)\))?", first):
            covered.update(range(int(low), int(high or low) + 1))
    assert covered == set(range(1, 39))
    assert re.findall(r"^\| (T\d+) ", PAPER, re.MULTILINE) == [f"T{i}" for i in range(1, 17)]


def test_the_gaps_of_the_readme_are_measured_ones():
    said = re.findall(r"\d+\.\d+ ± \d+\.\d+", README)
    assert said
    results = (ROOT / "docs" / "results.md").read_text()
    assert [gap for gap in said if gap not in results] == []


def settings_of(candidate: str) -> list[dict[str, str]]:
    """The settings that `make fit` tried."""
    with (ROOT / "docs" / "data" / f"fit-{candidate}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("candidate", FITTED)
def test_a_fitted_preset_is_the_setting_in_which_most_claims_held(candidate: str):
    best = max(settings_of(candidate), key=lambda row: (int(row["held"]), float(row["score"])))
    scenario = load(f"paper-fitted-{candidate}").model_dump()
    for name, value in best.items():
        found: Any = scenario
        for word in name.split(".") if name not in ("setting", "score", "held", "held claims") else ():
            found = found[word]
        if found is not scenario:
            assert found == pytest.approx(float(value), rel=1e-3), name


def test_what_no_setting_had_is_what_the_paper_page_says():
    """docs/paper.md: 7a, 8b after training, 8c, 9c, 9d from empty queues; 9b after training but with `printed`."""
    had = {name: {one for row in settings_of(name) for one in row["held claims"].split("; ")} for name in FITTED}
    pairs = [(one.id, phase) for one in claims(Points()) if one.orderings for phase in phases(one)]
    everything = {" ".join(pair).strip() for pair in pairs}
    assert everything - set().union(*had.values()) == {
        "7a",
        "8b after_training",
        *(f"{claim} {phase}" for claim in ("8c", "9c") for phase in PHASES),
        "9d from_empty",
    }
    assert [name for name in FITTED if "9b after_training" in had[name]] == ["printed"]


def test_what_the_paper_page_says_of_proposition_1_is_what_was_found():
    """The two sentences on (37) and (38) in docs/paper.md, held to docs/data/reproduction/claims.csv."""
    with (ROOT / "docs" / "data" / "reproduction" / "claims.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] == "P1"]
    said = {(row["reading"], row["scheme"], row["comparison"].split(":")[0]): row["says"] for row in rows}
    assert {says for (_, _, what), says in said.items() if what.startswith("(37)")} == {"against"}

    def at(scheme: str, gamma: float) -> tuple[str, ...]:
        blocks = Points().checkpoints
        return tuple(said["conserving", scheme, f"(38) at gamma = {gamma:g}, block {block}"] for block in blocks)

    assert at("exact", 0.9)[1:] == at("exact", 0.95)[1:] == ("for", "for")
    assert at("exact", 0.999) == at("printed", 0.9) == ("against",) * 3
    assert at("printed", 0.95)[1:] == at("printed", 0.999)[:2] == ("against", "against")
    assert at("printed", 0.99)[:2] == ("for", "for")


def test_the_sides_of_proposition_1_on_the_paper_page_are_those_found():
    """The medians in that section; with one more factor 1 / (1 - gamma) the devices are within the bound everywhere."""
    with (ROOT / "docs" / "data" / "reproduction" / "proposition-1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["left"]) < float(row["right / (1 - gamma)"]) for row in rows if row["side of"] == "(37)")

    def at_server(scheme: str, gamma: str, name: str) -> list[float]:
        wanted = ("conserving", scheme, "(38)", gamma)
        keys = ("reading", "scheme", "side of", "gamma")
        return [float(row[name]) for row in rows if tuple(row[key] for key in keys) == wanted]

    left, right = (at_server("exact", "0.999", name)[1] for name in ("left", "right / (1 - gamma)"))
    page = (ROOT / "docs" / "paper.md").read_text()
    for words in (", ".join(map(short, at_server("printed", "0.9", "left"))), f"{short(left)} against {short(right)}"):
        assert words in page


def short(number: float) -> str:
    """9.6e4"""
    return f"{number:.1e}".replace("e+0", "e").replace("e+", "e")


def test_the_readme_example_runs(capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    try:
        exec(compile(example.replace("blocks=400", "blocks=20, seeds=2"), "README.md", "exec"), {})
    finally:
        partway.SCHEMES.pop("channel-aware", None)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["constant", "channel-aware"]


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/paper.md"])
def test_every_command_shown_is_understood(page: str):
    text = (ROOT / page).read_text()
    commands = re.findall(r"^(partway [^\n#>]*)", text, re.MULTILINE) + re.findall(r"`(partway [^`]*)`", text)
    assert commands
    for command in commands:
        words = shlex.split(command)[1:]
        if "--help" not in words and "NAME" not in words:
            _parser().parse_args(words)


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    found = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    targets = [target for target in found if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
