"""Which code made a number: the import closure, its hash, and what they depend on."""

import importlib.metadata
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commit_of import commits_of

import partway
from partway import provenance
from partway.provenance import code_hash, import_closure, made_by, source_hash
from partway.schemes import SCHEMES

SOURCE = Path(partway.__file__).parent
SWEEP, FIGURES = "partway.experiments.sweep.group", "partway.paper.figure_runs"
BELOW = {
    "partway.simulation.rollout",
    "partway.simulation.step",
    "partway.controllers.base",
    "partway.controllers.postdecision",
    "partway.controllers.price",
    "partway.bound.certificate",
    "partway.system.equations",
    "partway.system.world",
    "partway.scenario.schema",
    "partway.rng",
}
"""Modules that every simulated number depends on."""
CONTROLLERS = {type(party).__module__ for one in SCHEMES.values() for party in (one.device, one.server)}
"""Modules of controllers, which rows of SCHEMES name and import when they are used."""


def clear() -> None:
    for cached in (code_hash, import_closure, provenance._imports):
        cached.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's source, which is what is hashed."""
    copy = tmp_path / "partway"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.csv", "*.toml"))
    monkeypatch.setattr(provenance, "__file__", str(copy / "provenance.py"))
    clear()
    yield copy
    clear()


def test_the_closure_holds_what_numbers_come_from_and_not_what_shows_them():
    for module in (SWEEP, FIGURES):
        closure = set(import_closure(module))
        assert {module} | BELOW <= closure
        assert closure >= CONTROLLERS
        above = [name for name in closure if name.startswith(("partway.figures", "partway.cli", "partway.planner"))]
        assert above == []
        assert "partway" not in closure  # which exports everything, these too
    assert "partway.bound.lower_bound" in import_closure(SWEEP)
    assert not {"partway.experiments.store", "partway.figures.common"} & set(import_closure(SWEEP))
    assert "partway.paper.claims" in import_closure(FIGURES)
    assert "partway.paper.claims" not in import_closure(SWEEP)


def test_the_closure_is_closed():
    """Whatever a module of it imports is in it, and it is that of its parts."""
    closure = import_closure(SWEEP)
    assert set(closure) == {each for name in closure for each in import_closure(name)}
    assert import_closure(SWEEP, FIGURES) == tuple(sorted({*import_closure(SWEEP), *import_closure(FIGURES)}))


def append(package: Path, module: str, text: str) -> None:
    path = package.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    path.write_text(path.read_text() + text)
    clear()


def test_a_change_within_the_closure_changes_the_hash(package: Path):
    for module in ("partway.system.equations", "partway.simulation", SWEEP):
        before = code_hash(SWEEP)
        append(package, module, "\nHALF = 0.5\n")
        assert code_hash(SWEEP) != before, module


def test_a_change_outside_it_does_not(package: Path):
    before, other = code_hash(SWEEP), code_hash(FIGURES)
    for module in ("partway.figures.common", "partway.cli.main", "partway.experiments.report", "partway"):
        append(package, module, "\nHALF = 0.5\n")
    assert (code_hash(SWEEP), code_hash(FIGURES)) == (before, other)


def test_a_new_import_joins_the_closure(package: Path):
    """Also one inside a function, but not one that only type checkers see."""
    assert "partway.formatting" not in import_closure("partway.system.equations")
    append(package, "partway.system.equations", "\n\ndef late():\n    from partway import formatting\n")
    assert "partway.formatting" in import_closure("partway.system.equations")
    hidden = "\nif TYPE_CHECKING:\n    from partway.figures.common import STYLE\n"
    append(package, "partway.system.equations", hidden)
    assert "partway.figures.common" not in import_closure("partway.system.equations")
    append(package, "partway.system.equations", "\n\ndef late():\n    from partway import sweep\n")
    assert "partway" in import_closure("partway.system.equations")  # for a name of its own it has to run


def test_a_module_that_does_not_exist_is_an_error_and_no_hash():
    with pytest.raises(ModuleNotFoundError, match=r"partway\.nowhere"):
        code_hash("partway.nowhere")


def test_what_made_a_number_names_versions_and_code():
    made = made_by(FIGURES)
    assert made["code"] == code_hash(FIGURES)
    assert made["jax"] == importlib.metadata.version("jax")
    assert {"partway", "python", "numpy", "scipy", "jaxlib"} < set(made)


def test_a_hash_leads_to_its_commits(tmp_path: Path):
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    commits, hashes = list[str](), list[str]()
    for text in ("1", "2"):
        (tmp_path / "partway" / "system").mkdir(parents=True, exist_ok=True)
        (tmp_path / "partway" / "system" / "types.py").write_text(text)
        git("add", ".")
        git("commit", "--quiet", "--message", text)
        commits.append(git("rev-parse", "HEAD"))
        hashes.append(source_hash(tmp_path / "partway"))
    assert [list(commits_of(code, tmp_path)) for code in hashes] == [[commit] for commit in commits]
    assert list(commits_of("0" * 32, tmp_path)) == []
