"""`partway bound`: the command prints what `lower_bound` finds, and nothing else."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from partway.bound.lower_bound import Bound, best_service, lower_bound
from partway.cli.main import main
from partway.scenario.loading import load
from partway.system.equations import service_cost_coef
from partway.system.placement import sample_placement
from partway.system.world import World, build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


def call(*arguments: str) -> tuple[int, str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("objective", ["average", "discounted"])
def test_json_is_what_lower_bound_finds(objective: str, monkeypatch: pytest.MonkeyPatch):
    solved: list[tuple[World, Bound]] = []

    def recorded(world: World, on_progress: Callable[[str], None]) -> Bound:
        on_progress("said only to those who wait")
        solved.append((world, lower_bound(world)))
        return solved[-1][1]

    monkeypatch.setattr("partway.bound.lower_bound.lower_bound", recorded)
    overrides = ["devices=3", f"objective={objective}"]
    code, out, err = call("bound", "--scenario", "ocr", "--set", *overrides, "--json", "-")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out, parse_constant=pytest.fail)
    scenario, ((world, bound),) = load("ocr", overrides), solved
    assert jax.tree.all(jax.tree.map(np.array_equal, world, build(scenario, sample_placement(scenario))))
    assert document["value"] == bound.value
    assert document["price"] == float(bound.certificate.price)
    assert (document["slack"], document["tail_probability"]) == (bound.slack, bound.tail_probability)
    assert document["parts"]["each_device"] == bound.parts.tolist()
    assert document["parts"]["devices"] + document["parts"]["server"] == pytest.approx(bound.value)
    assert document["sent_per_block"] == pytest.approx(float(bound.inflow.sum()))
    assert load(document["scenario"]) == scenario
    served = document["served_per_block"]
    cost = float(service_cost_coef(world.server)) * served**3
    cost += (float(world.server.queue_weight) - document["price"] / float(bound.certificate.discount)) * served
    assert cost == pytest.approx(float(bound.certificate.server_dual_value))


def test_the_best_rate_is_the_cheapest():
    """Of psi(f) = (w1 - lambda / gamma) f + w2 E(f), by trying every rate."""
    scenario = load("ocr", ["devices=3"])
    server = build(scenario, sample_placement(scenario)).server
    tried = np.linspace(0.0, float(server.slot_capacity) * server.slots, 100_001)
    for price in (0.5, 1.1, 2.0, 1e6):
        cost = (float(server.queue_weight) - price / 0.95) * tried + float(service_cost_coef(server)) * tried**3
        value, served = best_service(server, 0.95, price)
        assert (value, served) == (pytest.approx(cost.min()), pytest.approx(tried[np.argmin(cost)], abs=2 * tried[1]))


@pytest.mark.parametrize("free", ["weights.server_energy=0", "weights.device_energy=0"])
def test_energy_that_costs_nothing(free: str):
    code, out, _ = call("bound", "--scenario", "ocr", "--set", "devices=2", free, "--json", "-")
    document = json.loads(out)
    assert code == 0
    assert document["value"] > 0
    assert document["served_per_block"] >= 0  # there was a division by zero


def test_the_sheet_has_every_number_and_fits(tmp_path: Path):
    code, out, _ = call("bound", "--scenario", "ocr", "--set", "devices=3", "--json", "bound.json")
    assert code == 0
    assert all(len(line) <= 100 for line in out.splitlines())
    document = json.loads((tmp_path / "bound.json").read_text())
    assert f"{document['value']:.6g}" in out
    assert f"{document['price']:.4g}" in out
    assert "Proven for every policy" in " ".join(out.split())
    code, _, err = call("bound", "--scenario", "ocr", "--set", "devices=3", "--json", "bound.json")
    assert code == 2
    assert "exists already; add --overwrite" in err


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["queue=as_printed"], "no bound for the queue as printed"),
        (["devces=3"], "did you mean 'devices'?"),
    ],
)
def test_no_bound_is_one_line(overrides: list[str], why: str):
    code, out, err = call("bound", "--set", *overrides)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err
