"""A release: its version is the same everywhere, its notes are a section of the changelog, `cite` agrees, and every
Python that it names is tested."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from release import declared_version, notes, problems_of

from partway.cli import cite

ROOT = Path(__file__).parent.parent
CITATION = (ROOT / "CITATION.cff").read_text()
CHANGELOG = "# Changes\n\n## 0.2.0 (2027-01-31)\n\n- New.\n\n### Files\n\n- Also.\n\n## 0.1.0 (2026-12-01)\n\n- One.\n"


def test_the_notes_of_a_version_end_where_the_next_begins():
    assert notes(CHANGELOG, "0.2.0") == "- New.\n\n### Files\n\n- Also.\n"
    assert notes(CHANGELOG, "0.1.0") == "- One.\n"
    with pytest.raises(KeyError):
        notes(CHANGELOG, "0.3.0")


@pytest.mark.parametrize(
    ("version", "changelog", "citation", "words"),
    [
        ("0.2.0", CHANGELOG, "version: 0.2.0\n", []),
        ("0.1.0", CHANGELOG, "version: 0.1.0\n", ["CHANGELOG.md begins with 0.2.0"]),
        ("0.2.0", CHANGELOG, "version: 0.1.0\n", ["CITATION.cff has 0.1.0"]),
        ("0.2.0", CHANGELOG.replace("2027-01-31", "unreleased"), "version: 0.2.0\n", ["gives 0.2.0 no date"]),
        ("0.2.0", "", "", ["no version, pyproject", "CITATION.cff has no version"]),
    ],
)
def test_what_disagrees_is_a_problem(version: str, changelog: str, citation: str, words: list[str]):
    problems = problems_of(version, changelog, citation)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


def test_the_version_in_the_tree_is_one_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    undated = f"CHANGELOG.md gives {declared_version()} no date"
    assert [each for each in problems_of(declared_version(), changelog, CITATION) if undated not in each] == []
    assert notes(changelog, declared_version())


def test_every_python_that_is_named_is_tested_before_a_release():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    named = [each.removeprefix("Programming Language :: Python :: ") for each in project["classifiers"]]
    versions = [each for each in named if re.fullmatch(r"3\.\d+", each)]
    assert project["requires-python"] == f">={versions[0]}"
    assert [jobs[job]["strategy"]["matrix"]["python"] for job in jobs["release"]["needs"]] == [versions, versions]


def test_bibtex_and_citation_file_name_the_same_paper():
    (paper,) = yaml.safe_load(CITATION)["references"]
    entry = re.sub(r"[{}]", "", cite.ENTRIES.partition("@article")[2])
    authors = " and ".join(f"{each['family-names']}, {each['given-names']}" for each in paper["authors"])
    for value in (paper["title"], authors, str(paper["year"]), paper["identifiers"][0]["value"], paper["url"]):
        assert f"= {value}" in entry or f"arXiv preprint {value}" in entry


def test_bibtex_has_the_installed_version(capsys: pytest.CaptureFixture[str]):
    cite.run(None)  # pyright: ignore[reportArgumentType]  there are no options
    out = capsys.readouterr().out
    assert f"version = {{{declared_version()}}}" in out
    assert out.count("{") == out.count("}")
