"""The pin files and the wheel hold what pyproject.toml promises, and nothing of the machine they were made on."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from partway.provenance import import_closure, source_file

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "partway"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
BUILD = PYPROJECT["build-system"]["requires"]
PROMISED = {"requirements.txt": RUN + BUILD, "requirements-dev.txt": RUN + BUILD + EXTRAS["dev"]}
PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.!+]+)(?: *;[^#]*?)?(?: +--hash=sha256:[0-9a-f]{64})+")

each_file = pytest.mark.parametrize("file", PROMISED)


def pin_lines(file: str) -> list[str]:
    """One line per pin, without comments."""
    lines = (ROOT / file).read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.lstrip().startswith("#")]


def pins(file: str) -> dict[str, str]:
    found = (PIN.match(line) for line in pin_lines(file))
    return {pin["name"]: pin["version"] for pin in found if pin}


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def imported(sources: Iterable[Path]) -> set[str]:
    """Everything outside the standard library and the package that its files import, by its first name."""
    found: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {PACKAGE.name}


def data_files() -> set[Path]:
    return {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}


@each_file
def test_pins_do_not_say_where_from(file: str):
    assert not re.search(r"://|@|(^|[\s=])/|-url|find-links", (ROOT / file).read_text())


@each_file
def test_every_pin_has_hashes(file: str):
    lines = pin_lines(file)
    assert lines
    assert [line for line in lines if not PIN.fullmatch(line.rstrip())] == []


@pytest.mark.parametrize(("file", "wanted"), [(file, each) for file in PROMISED for each in PROMISED[file]])
def test_every_dependency_is_pinned(file: str, wanted: str):
    requirement = Requirement(wanted)
    assert pins(file)[canonicalize_name(requirement.name)] in requirement.specifier


def test_one_environment_serves_both_pin_files():
    assert pins("requirements.txt").items() <= pins("requirements-dev.txt").items()


@pytest.mark.parametrize("extra", ["onnx", "live", "env", "docs", "cluster", "tune"])
def test_dev_holds_all_of_an_extra(extra: str):
    assert set(EXTRAS[extra]) <= set(EXTRAS["dev"])


def test_what_is_imported_is_declared():
    declared = names(RUN + EXTRAS["onnx"] + EXTRAS["live"] + EXTRAS["env"])
    theirs = names(each for name in declared for each in requires(name) or () if "extra ==" not in each)
    homes = packages_distributions()
    undeclared = {
        name for name in imported(PACKAGE.rglob("*.py")) if not names(homes.get(name, ())) & (declared | theirs)
    }
    assert undeclared == set()


@pytest.mark.parametrize(("extra", "folders"), [("live", ("live", "dashboard")), ("onnx", ("dnn",)), ("env", ("env",))])
def test_an_extra_is_enough_for_its_packages(extra: str, folders: tuple[str, ...]):
    """Modules that they import from the rest of Partway count, and other extras are not installed."""
    files = [path for folder in folders for path in (PACKAGE / folder).glob("*.py") if path.name != "__init__.py"]
    modules = [".".join((PACKAGE.name, path.parent.name, path.stem)) for path in files]
    used, homes = imported(map(source_file, import_closure(*modules))), packages_distributions()
    declared, others = names(RUN + EXTRAS[extra]), names(each for name in EXTRAS for each in EXTRAS[name])
    assert {name for name in used if (home := names(homes[name])) & others and not home & declared} == set()


@pytest.mark.parametrize("glob", PYPROJECT["tool"]["setuptools"]["package-data"]["partway"])
def test_every_data_glob_finds_a_file(glob: str):
    assert list(PACKAGE.glob(glob))


def test_every_data_file_is_shipped():
    globs = PYPROJECT["tool"]["setuptools"]["package-data"]["partway"]
    assert data_files() == {path for glob in globs for path in PACKAGE.glob(glob)}
