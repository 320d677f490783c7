"""`partway theorem1`: what it measures, in a tiny sweep."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from partway.cli.theorem1 import table
from partway.figures import theorem1 as figure
from partway.formatting import percent
from partway.paper import theorem1
from partway.paper.theorem1 import Point, measure


@pytest.fixture(scope="module")
def points() -> list[Point]:
    """Two worlds of a scenario that asks for discounted sums; learners with another table share no program."""
    return measure("paper", ["objective=discounted"], fleets=(2, 4), weights=(), blocks=200, seeds=2)


def printed(points: list[Point]) -> str:
    text = io.StringIO()
    Console(file=text, width=100).print(table(points))
    return text.getvalue()


def test_it_measures_the_average_cost_whatever_the_scenario_asks_for(points: list[Point]):
    """The bound of four devices is that of docs/results.md, and the gap is the cost's share above it."""
    (four,) = [one for one in points if (one.value, one.kind) == (4.0, ("priced", "average"))]
    assert four.bound == pytest.approx(23.899, abs=0.01)
    assert four.cost.mean == pytest.approx(four.bound * (1 + four.gap.mean), rel=0.2)  # few blocks, two seeds


def test_the_tuned_constant_is_beside_the_learners(points: list[Point]):
    kinds = [("decoupled", "average"), ("priced", "average"), ("constant", "average")]
    assert list(dict.fromkeys(one.kind for one in points)) == [
        *kinds,
        ("decoupled", "discounted"),
        ("priced", "discounted"),
    ]
    assert "constant" in printed(points)
    assert len(points) == 2 * 5


def test_each_gap_is_in_the_table_and_in_the_csv(points: list[Point], tmp_path: Path):
    figure.write(points, "tiny", tmp_path)
    rows = (tmp_path / "theorem1.csv").read_text().splitlines()
    assert len(rows) == 1 + len(points)
    for one in points:
        assert percent(one.gap) in printed(points)


def test_without_a_bound_it_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(theorem1, "VARIANTS", {"average": "gamma = 1"})
    points = measure("paper", ["weights.server_queue=0"], fleets=(2,), weights=(), blocks=200, seeds=2)
    assert all(np.isnan(one.gap.mean) for one in points)
    assert "w1 = 0" in printed(points)
    assert "no bound" in printed(points)
