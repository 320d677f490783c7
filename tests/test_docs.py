"""The documents tell the truth: names exist, examples run, commands are understood."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

import partway
from partway.cli import _parser

ROOT = Path(__file__).parents[1]
PAPER = (ROOT / "docs" / "paper.md").read_text()
README = (ROOT / "README.md").read_text()


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
