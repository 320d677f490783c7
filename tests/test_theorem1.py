"""`partway theorem1`: what it measures, its table and its figure."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sweep_toys
from rich.console import Console
from sweep_toys import Here

from partway.cli.main import main
from partway.cli.theorem1 import table
from partway.experiments.plan import Plan
from partway.experiments.sweep import run as sweep_run
from partway.figures import theorem1 as figure
from partway.formatting import percent
from partway.paper import theorem1
from partway.paper.theorem1 import Point, cases, measure

SIZES: dict[str, Any] = {"fleets": (2, 4), "weights": (1e-4, 1e-3), "blocks": 20, "seeds": 2}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that are run, with made-up numbers in place of runs: no bound at two devices, and one unstable case."""
    plans: list[Plan] = []

    def run_group(group: Sequence[Plan]) -> list[dict[str, Any]]:
        plans.extend(group)
        return [_outcome(plan) for plan in group]

    monkeypatch.setattr(sweep_run, "run_group", run_group)
    return plans


def _outcome(plan: Plan) -> dict[str, Any]:
    made = sweep_toys.outcome(plan) | {"gap": [[0.1, 0.02, 0.003], [0.3, 0.02, 0.001]], "gap_reason": ""}
    if plan.scenario.devices == 2:
        why = "waiting costs nothing"
        return made | {"bound": math.nan, "bound_reason": why, "gap": [[math.nan] * 3] * 2, "gap_reason": why}
    if plan.schemes == ("decoupled",) and plan.scenario.devices == 4:
        unstable = {"status": "unstable", "reason": "too slow", "gap_reason": "the scheme is unstable"}
        return {name: made[name] for name in ("bound", "bound_reason")} | unstable
    return made


def printed(points: list[Point]) -> str:
    text = io.StringIO()
    Console(file=text, width=100).print(table(points))
    return text.getvalue()


def test_every_world_has_both_learners_by_both_criteria_and_the_constant_once(seen: list[Plan]):
    done = list[int]()
    points = measure("paper", ["objective=discounted"], **SIZES, executor=Here(), on_progress=done.append)
    learners = [("decoupled", "average"), ("priced", "average"), ("constant", "average")]
    kinds = [*learners, ("decoupled", "discounted"), ("priced", "discounted")]
    assert list(dict.fromkeys(one.kind for one in points)) == kinds
    worlds = [("devices", 2), ("devices", 4), ("weights.server_energy", 1e-4), ("weights.server_energy", 1e-3)]
    assert {(one.axis, one.value, *one.kind) for one in points} == {(*at, *kind) for at in worlds for kind in kinds}
    assert len(points) == sum(done) == cases((2, 4), (1e-4, 1e-3)) == 20


def test_it_measures_the_average_cost_whatever_the_scenario_asks_for(seen: list[Plan]):
    measure("paper", ["objective=discounted"], **SIZES, executor=Here())
    assert {plan.scenario.objective for plan in seen} == {"average"}
    for name in theorem1.SCHEMES:
        criteria = [plan.scenario.schemes[name]["criterion"] for plan in seen if plan.schemes == (name,)]
        assert sorted(set(criteria)) == ["average", "discounted"]


def test_each_gap_is_in_the_table_and_in_the_csv_or_why_there_is_none(seen: list[Plan], tmp_path: Path):
    points = measure(**SIZES, executor=Here())
    figure.write(points, "tiny", tmp_path)
    rows = list(csv.DictReader((tmp_path / "theorem1.csv").read_text().splitlines()))
    assert len(rows) == len(points)
    (pair,) = [one for one in points if (one.axis, one.value, one.kind) == ("devices", 4, ("priced", "average"))]
    assert (pair.gap.mean, pair.no_gap) == (pytest.approx(0.222), None)
    assert percent(pair.gap) in printed(points)
    assert {row["gap [%]"] for row in rows if row["scheme"] == "priced"} == {"", "22.2"}
    (without,) = [one for one in points if (one.axis, one.value, one.kind) == ("devices", 2, ("priced", "average"))]
    assert (without.no_gap, math.isnan(without.gap.mean)) == ("waiting costs nothing", True)
    (lost,) = [one for one in points if (one.axis, one.value, one.kind) == ("devices", 4, ("decoupled", "average"))]
    assert (lost.status, lost.no_gap, math.isnan(lost.cost.mean)) == ("unstable", "the scheme is unstable", True)
    for words in ("no gap", "waiting costs nothing", "unstable"):
        assert words in printed(points)


def test_the_bound_is_that_of_the_average_cost(monkeypatch: pytest.MonkeyPatch):
    """Of four devices: that of docs/results.md; the gap is the cost's share above it."""
    monkeypatch.setattr(theorem1, "SCHEMES", ())
    monkeypatch.setattr(theorem1, "CONSTANT", "local")  # the fastest to compile
    monkeypatch.setattr(theorem1, "VARIANTS", {"average": "gamma = 1"})
    points = measure("paper", ["objective=discounted"], fleets=(4,), weights=(), blocks=200, seeds=2, executor=Here())
    (one,) = points
    assert one.bound == pytest.approx(23.899, abs=0.01)
    assert one.cost.mean == pytest.approx(one.bound * (1 + one.gap.mean), rel=0.2)  # few blocks, two seeds


def test_a_failed_case_is_an_error_with_its_cause(seen: list[Plan], monkeypatch: pytest.MonkeyPatch, capsys: Any):
    """Of the measurement, and of the command after its table."""

    def fail(group: Sequence[Plan]) -> list[dict[str, Any]]:
        return [{"status": "failed", "reason": "no GPU"} for _ in group]

    monkeypatch.setattr(sweep_run, "run_group", fail)
    points = measure("paper", **SIZES | {"weights": ()}, executor=Here())
    assert {(one.status, one.no_gap) for one in points} == {("failed", "no GPU")}
    monkeypatch.setattr(theorem1, "measure", lambda *_, **__: points)
    assert main(["theorem1"]) == 2
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1] == "partway: 10 of 10 cases failed: no GPU"
    assert "failed" in printed.out
