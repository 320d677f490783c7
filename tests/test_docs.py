"""The documents are correct: names exist, commands are understood, links lead somewhere, examples run."""

import csv
import importlib
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import partway
from partway.cli.main import build_parser
from partway.experiments.comparison import make_plan
from partway.paper.claims import PHASES, Points, claims
from partway.paper.verdicts import phases
from partway.scenario.loading import load

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text("utf-8") for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")))}
PAPER, README, DESIGN = PAGES["paper.md"], PAGES["README.md"], PAGES["design.md"]
EXAMPLES = ROOT / "examples"
FITTED = ("parametric-printed", "parametric", "qlearning")
MAX_FIRST_LINES = 1100
"""Lines of the files that docs/design.md tells a newcomer to read first: "about 1,000"."""


@pytest.mark.parametrize(("page", "least"), [("paper.md", 30), ("bound.md", 15)])
def test_every_function_named_exists(page: str, least: int):
    names = set(re.findall(r"`([a-z_0-9.]+):([A-Za-z_0-9]+)`", PAGES[page]))
    assert len(names) >= least
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
    assert [gap for gap in said if gap not in PAGES["results.md"]] == []


def settings_of(candidate: str) -> list[dict[str, str]]:
    """The settings that `make fit` tried."""
    with (ROOT / "docs" / "data" / f"fit-{candidate}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("candidate", FITTED)
def test_a_fitted_preset_is_the_setting_in_which_most_claims_held(candidate: str):
    best = max(settings_of(candidate), key=lambda row: (int(row["held"]), float(row["score"])))
    scenario = load(f"paper-fitted-{candidate}").model_dump()
    for name, value in best.items():
        if name not in ("setting", "score", "held", "held claims"):
            field: Any = scenario
            for word in name.split("."):
                field = field[word]
            assert field == pytest.approx(float(value), rel=1e-3), name


def test_what_no_setting_had_is_what_the_paper_page_says():
    """docs/paper.md: 7a, 8b after training, 8c, 9c, 9d from empty queues; 9b after training with two of them."""
    had = {name: {one for row in settings_of(name) for one in row["held claims"].split("; ")} for name in FITTED}
    pairs = [(one.id, phase) for one in claims(Points()) if one.orderings for phase in phases(one)]
    everything = {" ".join(pair).strip() for pair in pairs}
    assert everything - set().union(*had.values()) == {
        "7a",
        "8b after_training",
        *(f"{claim} {phase}" for claim in ("8c", "9c") for phase in PHASES),
        "9d from_start",
    }
    assert [name for name in FITTED if "9b after_training" in had[name]] == ["parametric-printed"]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `partway` command in a page, at the start of a line or in backticks, that has any."""
    lines = re.findall(r"^ *(partway (?:[^\n]*\\\n)*[^\n]*)", text, re.MULTILINE)
    for command in lines + re.findall(r"`(partway [^`]*)`", text):
        words = shlex.split(command.replace("\\\n", " "), comments=True)[1:]
        if len(words) > 1:
            yield words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if list(commands(text))])
def test_every_command_shown_is_understood(page: str):
    for words in commands(PAGES[page]):
        if "--help" not in words:
            build_parser().parse_args(words)


def test_pages_show_commands():
    """So that the test above can fail: of the pages that should, none has lost its commands."""
    assert {"README.md", "cluster.md", "results.md", "paper.md"} <= {
        name for name in PAGES if list(commands(PAGES[name]))
    }
    assert len(list(commands(README))) >= 15
    assert ["sweep", "--axis", "device.arrival_prob=0.1:0.9:9"] in [
        words[:3] for words in commands(PAGES["cluster.md"])
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str):
    folder = ROOT if (ROOT / page).exists() else ROOT / "docs"
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]) if "://" not in target]
    assert [target for target in targets if not (folder / target).exists()] == []


def test_every_verb_of_make_is_explained_and_exists():
    verbs = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)) - {"help"}
    shown = {
        verb for text in PAGES.values() for verb in re.findall(r"(?:`|^)make ([a-z-]+)(?:`| +#)", text, re.MULTILINE)
    }
    assert shown == verbs
    assert set(re.findall(r"`make ([a-z-]+)`", PAGES["CONTRIBUTING.md"])) == verbs


def test_the_files_to_read_first_exist_and_are_few():
    section = DESIGN.split("## Read these files first")[1].split("## ")[0]
    files = re.findall(r"^\d+\. `([^`]+)`", section, re.MULTILINE)
    assert len(files) > 3
    assert sum(len((ROOT / name).read_text("utf-8").splitlines()) for name in files) < MAX_FIRST_LINES


def test_the_design_page_has_the_packages_in_the_order_that_make_lint_holds():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (contract,) = (one for one in settings["contracts"] if one["type"] == "layers")
    layers = [re.findall(r"\w+", layer) for layer in reversed(contract["layers"])]
    rows = re.findall(r"^\| (`.*?)(?: \(planned\))? \|", DESIGN.split("## Packages")[1].split("## ")[0], re.MULTILINE)
    row_of = {name: i for i, row in enumerate(rows) for name in re.findall(r"`(\w+)`", row)}
    assert set(row_of) == {name for layer in layers for name in layer}
    assert [row_of[name] for layer in layers for name in layer] == sorted(
        row_of[name] for layer in layers for name in layer
    )


# Examples


def run_example(name: str, blocks: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The first words that a small run of an example prints."""
    source = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert blocks in source
    try:
        exec(compile(source.replace(blocks, "blocks=20, seeds=2"), f"{name}.py", "exec"), {"__name__": "__main__"})
    finally:
        partway.SCHEMES.pop(name, None)
    return [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]


def test_the_example_of_the_readme_is_the_one_in_the_folder_and_is_short():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert (EXAMPLES / "threshold.py").read_text("utf-8").endswith(example)
    assert len([line for line in example.splitlines() if line.strip()]) <= 15


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]):
    assert run_example("threshold", "blocks=400", capsys) == ["constant", "threshold"]


def test_the_example_that_learns_runs(capsys: pytest.CaptureFixture[str]):
    assert run_example("bandit", "blocks=2000", capsys) == ["constant", "bandit"]


def test_the_example_that_learns_gets_better(monkeypatch: pytest.MonkeyPatch):
    """It starts with no offloading, which costs about 60 % more in `ocr` than the best fixed fraction."""
    kind = runpy.run_path(str(EXAMPLES / "bandit.py"))["Bandit"]
    monkeypatch.setitem(partway.SCHEMES, "bandit", partway.Scheme("", kind(), partway.SCHEMES["priced"].server))
    cost = (
        partway.compare("ocr", schemes=["bandit"], blocks=400, seeds=2)["cost"]
        .sum("component")
        .mean(("scheme", "seed"))
    )
    assert float(cost[300:].mean()) < 0.8 * float(cost[5:25].mean())


@pytest.mark.parametrize("name", ["threshold", "bandit"])
def test_the_commands_of_the_examples_are_understood(name: str, monkeypatch: pytest.MonkeyPatch):
    """And set what they name, from the folder of the examples."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES)
    shown = list(commands((EXAMPLES / f"{name}.py").read_text("utf-8")))
    assert len(shown) == 2
    for words in shown:
        options = build_parser().parse_args(words)
        make_plan(options.scenario, overrides=options.set, schemes=options.schemes)
