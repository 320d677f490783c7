"""Imports go one way, in the order of the data, and what users import by `partway.NAME` is a promise."""

import ast
from pathlib import Path

import pytest

import partway

PACKAGE = Path(partway.__file__).parent
ORDER = (
    "errors",
    "records",
    "task",
    "sections",
    "scenario",
    "model",
    "choices",
    "certificate",
    "program",
    "chance",
    "world",
    "draws",
    "bound",
    "latency",
    "controllers",
    "controllers.base",
    "controllers.features",
    "controllers.parametric",
    "controllers.qlearning",
    "controllers.baselines",
    "controllers.postdecision",
    "controllers.rules",
    "controllers.iao",
    "fleet",
    "simulate",
    "layout",
    "runs",
    "tuning",
    "schemes",
    "results",
    "comparison",
    "theorem1",
    "report",
    "bound_report",
    "keep",
    "store",
    "terminal",
    "macs",
    "profile",
    "profile_run",
    "profile_report",
    "profile_command",
    "figures.sheet",
    "figures.over_time",
    "figures.gap",
    "figures.cost_parts",
    "figures.tradeoff",
    "figures.devices",
    "figures.theorem1",
    "figures",
    "cut",
    "break_even",
    "cut_runs",
    "cut_report",
    "cut_map",
    "cut_command",
    "commands",
    "theorem1_command",
    "workers",
    "sweep_grid",
    "sweep_plan",
    "sweep_cases",
    "sweep_store",
    "sweep_dataset",
    "sweep_cluster",
    "sweep_run",
    "figures.sweep",
    "sweep_command",
    "claims",
    "verdicts",
    "parts",
    "reproduction",
    "judge",
    "proposition1",
    "remark1",
    "reproduce",
    "reproduce_report",
    "figures.reproduction",
    "reproduce_page",
    "reproduce_command",
    "cli",
    "__init__",
    "__main__",
)
"""A module imports only from those before it."""


def modules() -> list[str]:
    paths = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def imported(module: str) -> set[str]:
    """The modules of the package that a module imports, anywhere in it, by their names in ORDER."""
    path = PACKAGE / module.replace(".", "/")
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            whole = node.module or ""
            inner = {f"{whole}.{alias.name}" for alias in node.names if f"{whole}.{alias.name}" in known()}
            found |= inner or {whole}
    ours = {name.removeprefix("partway.") for name in found if name.startswith("partway.")}
    return ours | ({"__init__"} if "partway" in found else set())


def known() -> set[str]:
    return {f"partway.{name}" for name in modules()}


def test_every_module_has_its_place():
    assert sorted(modules()) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_what_comes_before_it(module: str):
    assert imported(module) - set(ORDER[: ORDER.index(module)]) == set()


def test_imports_are_found():
    """So that the test above can fail: the shapes of import that the package uses, one of each."""
    assert {"world", "model", "controllers.base"} <= imported("simulate")
    assert "bound_report" in imported("commands")
    assert "comparison" in imported("__init__")


def test_what_is_exported_is_what_users_need():
    """To run and read a comparison, to write a scheme of one's own, and to catch what can go wrong."""
    compare = {"compare", "sweep", "summarise", "load", "Scenario", "InputError"}
    write = {
        "SCHEMES",
        "Scheme",
        "DeviceController",
        "ServerController",
        "DeviceAction",
        "ServerAction",
        "drain",
        "record",
    }
    assert set(partway.__all__) == compare | write
    assert all(hasattr(partway, name) for name in partway.__all__)
