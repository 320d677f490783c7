"""The documents are correct: names exist, commands are understood, links lead somewhere, examples run."""

import csv
import importlib
import itertools
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import world_of
from scipy import special

import partway
from partway.cli.main import build_parser
from partway.controllers.given import startable
from partway.errors import RENAMED, InputError
from partway.experiments.plan import make_plan
from partway.scenario.loading import load

ROOT = Path(__file__).parents[1]
SITE = [path for path in sorted(ROOT.glob("docs/**/*.md")) if not path.is_relative_to(ROOT / "docs" / "_build")]
PAGES = {path.name: path.read_text("utf-8") for path in sorted(ROOT.glob("*.md"))} | {
    path.relative_to(ROOT / "docs").as_posix(): path.read_text("utf-8") for path in SITE
}
PAPER, README, DESIGN = PAGES["paper.md"], PAGES["README.md"], PAGES["design.md"]
PAPER_WORDS = " ".join(PAPER.split())
"""docs/paper.md on one line."""
EXAMPLES = ROOT / "examples"
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


def first_cells(section: str) -> list[str]:
    """The first cells of the rows of a section of docs/paper.md."""
    text = PAPER.split(f"## {section}\n")[1].split("\n## ")[0]
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]


def numbers_in(cells: list[str], pattern: str) -> list[int]:
    """All numbers n that the pattern finds, with ranges n-m written out, in order."""
    found = [match for cell in cells for match in re.findall(pattern, cell)]
    return [number for low, high in found for number in range(int(low), int(high or low) + 1)]


def test_every_number_of_the_paper_has_a_row():
    """Equations (1) to (54), statements, algorithms, Figures 1 to 9, systems [11] to [22], and our traps, each once."""
    equations = numbers_in(first_cells("Equations"), r"\((\d+)[a-d]?\)(?:-\((\d+)[a-d]?\))?")
    assert sorted(set(equations)) == list(range(1, 55))
    rows = first_cells("Algorithms, statements, figures")
    assert numbers_in(rows, r"Fig\. (\d)()") == list(range(1, 10))
    assert set(re.findall(r"(?:Algorithm|Lemma|Theorem|Proposition|Remark) \d", " ".join(rows))) == {
        *(f"{kind} {number}" for kind in ("Algorithm", "Remark") for number in (1, 2)),
        *("Lemma 1", "Lemma 2", "Lemma 3", "Theorem 1", "Proposition 1"),
    }
    assert [cell for cell in first_cells("Related systems") if cell.startswith("[")] == [
        f"[{n}]" for n in range(11, 23)
    ]
    assert re.findall(r"^\| (T\d+) ", PAPER, re.MULTILINE) == [f"T{i}" for i in range(1, 21)]


def test_the_paper_page_is_for_a_reader():
    """No row is marked as not compared with the paper, and long tables are data."""
    assert "†" not in PAPER
    assert len(PAPER.splitlines()) <= 250


def test_the_exponential_integrals_of_37_and_38():
    said = re.search(r"E_1\(ln 1/gamma\) is ([\d., ]+) at gamma = ([\d., ]+\d)", PAPER_WORDS)
    assert said
    values, discounts = ([float(number) for number in part.rstrip(", ").split(", ")] for part in said.groups())
    assert values == pytest.approx([special.exp1(np.log(1 / gamma)) for gamma in discounts], abs=5e-4)
    assert discounts == [0.9, 0.95, 0.99, 0.999]


def data(name: str) -> list[dict[str, str]]:
    """The rows of a file in docs/data."""
    with (ROOT / "docs" / "data" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_the_paper_page_says_of_the_joint_optimum_is_in_its_data():
    """Selfish devices up to 41 % above the optimum, at the bound's price within 3 %, `priced` at most 2.3 %."""
    rows = data("joint-optimum.csv")
    bound, alone, fair, priced = (
        [float(row[f"{name} above {of} [%]"]) for row in rows]
        for name, of in (
            ("optimum", "bound"),
            ("alone at price 0", "optimum"),
            ("alone at the bound's price", "optimum"),
            ("priced", "optimum"),
        )
    )
    assert (min(bound), round(max(bound))) == (0.4, 15)
    assert "0.4 to 15 % above the lower bound" in PAPER_WORDS
    assert round(max(alone)) == 41
    assert round(min(alone)) == 0
    assert "0 to 41 % more" in PAPER_WORDS
    assert max(fair) < 3
    assert (min(priced), max(priced)) == (0.0, 2.3)
    assert "0 to 2.3 % above" in PAPER_WORDS
    largest = data("joint-growth.csv")[-1]
    assert (largest["devices"], largest["states x actions"]) == ("4", "1.3e11")
    assert round(int(largest["joint states"]) / 1e6) == 7


def test_the_gaps_of_the_readme_are_measured_ones():
    said = re.findall(r"\d+\.\d+ ± \d+\.\d+", README)
    assert said
    assert [gap for gap in said if gap not in PAGES["results.md"]] == []


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `partway` command in a page, at the start of a line or in backticks, that has any."""
    lines = re.findall(r"^ *(partway (?:[^\n]*\\\n)*[^\n]*)", text, re.MULTILINE)
    for command in lines + re.findall(r"`(partway [^`]*)`", text):
        words = shlex.split(command.replace("\\\n", " "), comments=True)[1:]
        if len(words) > 1:
            yield list(itertools.takewhile(lambda word: word not in (">", "|"), words))


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
    folder = ROOT if (ROOT / page).exists() else (ROOT / "docs" / page).parent
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]) if "://" not in target]
    assert [target for target in targets if not (folder / target).exists()] == []


def test_every_target_of_make_is_explained_once_and_exists():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)) - {"help"}
    shown = {
        target
        for text in PAGES.values()
        for target in re.findall(r"(?:`|^)make ([a-z-]+)(?:`| +#)", text, re.MULTILINE)
    }
    assert shown == targets
    rows = re.findall(r"^\| (`make .*?) \|", PAGES["CONTRIBUTING.md"], re.MULTILINE)
    assert sorted(re.findall(r"`make ([a-z-]+)`", " ".join(rows))) == sorted(targets)


def test_every_name_that_hints_know_to_have_changed_is_in_the_changelog():
    table = PAGES["CHANGELOG.md"].split("### Names that changed")[1]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("|")]
    words = [tuple(set(re.findall(r"[\w-]+", cell)) for cell in row) for row in rows]
    missing = [
        (old, new)
        for old, new in RENAMED.items()
        if not any({*old.split()} <= before and {*new.split()} <= now for before, now in words)
    ]
    assert missing == []


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
    """The first words that a small run of an example prints, without the lower bound, of which it prints nothing."""
    source = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert blocks in source
    small = source.replace(blocks, "blocks=20, seeds=2, bound=False")
    try:
        exec(compile(small, f"{name}.py", "exec"), {"__name__": "__main__"})
    finally:
        partway.SCHEMES.pop(name, None)
    return [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]


def test_the_examples_of_the_readme_are_those_in_the_folder_and_are_short():
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for example, name in zip(examples, ("threshold", "bandit"), strict=True):
        assert example in (EXAMPLES / f"{name}.py").read_text("utf-8")
        assert len([line for line in example.splitlines() if line.strip()]) <= 17


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]):
    assert run_example("threshold", "blocks=400", capsys) == ["constant", "threshold"]


def test_the_example_that_learns_runs(capsys: pytest.CaptureFixture[str]):
    assert run_example("bandit", "blocks=2000", capsys) == ["constant", "bandit"]


def test_the_example_of_a_channel_is_the_one_in_the_folder_and_runs(capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"```python\n(.*?)```", PAGES["channels.md"], re.DOTALL)
    assert (EXAMPLES / "weather.py").read_text("utf-8").endswith(example)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(EXAMPLES)
        patch.syspath_prepend(EXAMPLES)
        patch.setitem(sys.modules, "__main__", importlib.import_module("weather"))
        assert run_example("weather", "blocks=400", capsys) == ["constant", "priced"]


def test_the_trace_of_the_page_on_channels_can_be_replayed(tmp_path: Path):
    """With the floor and the loop that a trace with zeros and four seconds needs."""
    (text,) = re.findall(r"```csv\n(.*?)```", PAGES["channels.md"], re.DOTALL)
    (tmp_path / "lte.csv").write_text(text)
    fading = {"kind": "trace", "file": str(tmp_path / "lte.csv"), "loop": True, "floor": 1e5, "power_w": 0.2}
    make_plan("camera", overrides={"radio.fading": fading}, schemes=["local"], blocks=100)
    for missing in ("floor", "loop"):
        given = {name: value for name, value in fading.items() if name != missing}
        with pytest.raises(InputError, match=missing):
            make_plan("camera", overrides={"radio.fading": given}, schemes=["local"], blocks=100)


@pytest.mark.slow
def test_the_example_that_learns_is_better_than_chance(monkeypatch: pytest.MonkeyPatch):
    """Random fractions cost about 20 % more in `ocr` than those it has learned in 200 blocks."""
    kind, server = runpy.run_path(str(EXAMPLES / "bandit.py"))["Bandit"], partway.SCHEMES["priced"].server
    monkeypatch.setitem(partway.SCHEMES, "learned", partway.Scheme("", kind(), server))
    monkeypatch.setitem(partway.SCHEMES, "random-choice", partway.Scheme("", kind(explore=1.0), server))
    dataset = partway.compare("ocr", schemes=["learned", "random-choice"], blocks=400, seeds=2, bound=False)
    learned, at_random = dataset["cost"].sum("component").mean("seed")[:, 200:].mean("block").values
    assert learned < 0.9 * at_random


@pytest.mark.parametrize("name", ["threshold", "bandit", "weather"])
def test_the_commands_of_the_examples_are_understood(name: str, monkeypatch: pytest.MonkeyPatch):
    """And set what they name, from the folder of the examples."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES)
    shown = list(commands((EXAMPLES / f"{name}.py").read_text("utf-8")))
    assert len(shown) == 2
    for words in shown:
        options = build_parser().parse_args(words)
        make_plan(options.scenario, overrides=options.set, schemes=options.schemes)


def test_the_most_tasks_that_a_device_can_start_are_those_of_the_page():
    """N, by which the environments scale actions and queues; without it an agent with discrete actions has to guess."""
    stated = dict(
        re.findall(r"(\d+) in `(\w+)`", PAGES["environments.md"].split("Let N be")[1].split("The first number")[0])
    )
    assert len(stated) == 2
    for most, name in stated.items():
        assert set(np.asarray(startable(world_of(load(name)).devices))) == {float(most)}
