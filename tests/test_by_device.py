"""Results of devices and classes of devices: sums over blocks are those of the traces, and of all devices the whole."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import world_of
from rich.console import Console

from partway.cli.main import main
from partway.experiments import by_device
from partway.experiments.by_device import VALUES, table
from partway.experiments.comparison import execute
from partway.experiments.plan import make_plan
from partway.experiments.report import as_json
from partway.experiments.summary import summarise
from partway.experiments.tidy import write_csv
from partway.measurement.by_device import DeviceSums
from partway.scenario.loading import load
from partway.simulation import rollout as rollouts
from partway.simulation import schedule

BLOCKS, WARMUP = 60, 25
FLEET: dict[str, Any] = {
    "devices": 5,
    "group": [
        {"name": "slow", "fraction": 0.4, "cpu_max_hz": 4e10, "arrival_prob": 0.2},
        {"name": "idle", "fraction": 0.2, "arrival_prob": 0.0},
        {"fraction": 0.4, "queue_weight": 2e-10},
    ],
}
"""Two slow devices, one at which no task arrives, and two of a class without a name."""


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    """Two calls, and warm-up ends in the first one; all devices traced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "BLOCKS_PER_CALL", 30)
        plan = make_plan(FLEET, schemes=["priced", "random"], blocks=BLOCKS, warmup=WARMUP, seeds=2)
        return execute(plan, trace=range(5))


def test_classes_are_those_of_the_groups(dataset: xr.Dataset):
    assert dataset["class"].values.tolist() == ["slow", "idle", "2"]
    classes = dataset["device_class"].values.tolist()
    assert [classes.count(name) for name in ("slow", "idle", "2")] == [2, 1, 2]


def test_sums_are_those_of_the_blocks(dataset: xr.Dataset):
    """By the traces of every block, in float64."""
    late = dataset.isel(block=slice(WARMUP, None))
    traced = {
        name: late[f"device_{name}"].values.astype(np.float64) for name in ("cost", "arrivals", "started", "offload")
    }
    energy = (late["device_cpu_energy_j"] + late["device_radio_energy_j"]).values.astype(np.float64)
    mean = {name: value.mean(axis=2) for name, value in traced.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = {
            "cost": mean["cost"],
            "tasks": mean["arrivals"],
            "energy_j_per_task": np.where(mean["arrivals"] > 0, energy.mean(axis=2) / mean["arrivals"], np.nan),
            "offloaded_share": mean["offload"] / mean["started"],
        }
    for name, value in expected.items():
        np.testing.assert_allclose(dataset[f"{name}_by_device"], value, rtol=1e-5, err_msg=name)


def test_all_devices_together_are_the_whole(dataset: xr.Dataset):
    for one in summarise(dataset, reference=None):
        own = dataset.sel(scheme=one.name)
        parts = one.cost_components["device_queue"] + one.cost_components["device_energy"]
        assert float(own["cost_by_device"].sum("device").mean()) == pytest.approx(parts, rel=1e-5)
        tasks, waits = own["tasks_by_device"], own["latency_s_by_device"]
        whole = (waits * tasks).sum("device") / tasks.sum("device")
        np.testing.assert_allclose(whole, own["latency_s"].sel(statistic="mean"), rtol=1e-6)
        energy = (own["energy_j_per_task_by_device"] * tasks).sum() / tasks.sum()
        assert float(energy) == pytest.approx(one.device_j, rel=1e-5)


def test_a_class_is_the_mean_of_its_devices_weighted_by_their_tasks(dataset: xr.Dataset):
    slow = np.flatnonzero(dataset["device_class"].values == "slow")
    own, tasks = dataset.sel({"class": "slow"}), dataset["tasks_by_device"][..., slow]
    for name in ("cost", "tasks"):
        mean = dataset[f"{name}_by_device"][..., slow].mean("device")
        np.testing.assert_allclose(own[f"{name}_by_class"], mean, rtol=1e-6)
    for name in ("latency_s", "energy_j_per_task"):
        mean = (dataset[f"{name}_by_device"][..., slow] * tasks).sum("device") / tasks.sum("device")
        np.testing.assert_allclose(own[f"{name}_by_class"], mean, rtol=1e-6)
    assert not np.allclose(own["cost_by_class"], dataset.sel({"class": "2"})["cost_by_class"])


def test_where_no_task_arrives_there_is_no_latency(dataset: xr.Dataset):
    idle = dataset.sel({"class": "idle"})
    assert np.isnan(idle["latency_s_by_class"]).all()
    assert (idle["tasks_by_class"] == 0).all()
    assert (idle["cost_by_class"] == 0).all()


def test_a_class_without_devices_has_no_cost():
    scenario = load({"devices": 2, "group": [{"name": "most", "fraction": 0.9}, {"name": "few", "fraction": 0.1}]})
    ones = DeviceSums(*[np.ones((1, 2))] * 5)
    found = by_device.by_device(ones, None, scenario, world_of(scenario).devices, 1, 10)
    cost, tasks = (found[f"{name}_by_class"][1][0] for name in ("cost", "tasks"))
    assert cost[0] > 0
    assert np.isnan([cost[1], tasks[1]]).all()


def test_classes_have_names_of_their_own():
    """A group that is called like the number of another one would count its devices, too."""
    names = [["1", ""], ["a", "a"], ["a", "0"], []]
    found = [
        load({"devices": 2, "group": [{"name": name, "count": 1} for name in each]}).class_names() for each in names
    ]
    assert found == [["0", "1"], ["0", "1"], ["a", "1"], ["all"]]


def text_of(what: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=200, color_system=None).print(what)
    return file.getvalue()


def test_the_table_has_a_row_for_every_scheme_and_class_or_device(dataset: xr.Dataset):
    classes, devices, few = (text_of(table(dataset, *how)) for how in (("class",), ("device",), ("device", 3)))
    rows = [sum(line.startswith("priced") for line in text.splitlines()) for text in (classes, devices, few)]
    assert rows == [3, 5, 3]
    assert "2 devices of each scheme are not shown" in few
    assert all(unit in classes for unit in ("per block", "mean s", "J/task", "sent", "devices"))


def test_the_json_has_the_classes(dataset: xr.Dataset):
    first = as_json(dataset)["schemes"][0]["classes"]
    assert [one["class"] for one in first] == ["slow", "idle", "2"]
    assert [one["devices"] for one in first] == [2, 1, 2]
    assert first[1]["latency_s"] is None
    cost = dataset["cost_by_class"].sel(scheme="priced").mean("seed").values
    assert [one["cost_per_block"]["mean"] for one in first] == pytest.approx(cost.tolist())


def test_of_a_large_fleet_nothing_is_kept(monkeypatch: pytest.MonkeyPatch):
    for module in (by_device, rollouts):
        monkeypatch.setattr(module, "MAX_DEVICES", 4)
    large = execute(make_plan({"devices": 5}, schemes=["local"], blocks=10, seeds=1))
    assert not {f"{name}_by_device" for name in VALUES} & {*large.data_vars}
    assert as_json(large)["schemes"][0]["classes"] is None
    assert "nothing is kept of single devices of more than 4" in text_of(table(large, "class"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_comparison_writes_tidy_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scenario, out = tmp_path / "mixed.toml", tmp_path / "out"
    groups = ("name = 'a'\ncount = 1", "name = 'b'\ncount = 1\ncpu_max_hz = 4e10")
    scenario.write_text("devices = 2\n" + "".join(f"[[group]]\n{group}\n" for group in groups))
    flags = f"--scenario {scenario} --schemes local constant --blocks 30 --seeds 2 --by class --out {out}"
    assert main(["compare", *flags.split()]) == 0
    assert "By class, means after warm-up" in capsys.readouterr().out
    classes, devices, summary = (rows_of(out / f"{name}.csv") for name in ("by-class", "by-device", "summary"))
    assert [(row["scheme"], row["class"], row["devices"]) for row in classes] == [
        (scheme, name, "1") for scheme in ("local", "constant") for name in ("a", "b")
    ]
    assert [row["class"] for row in devices] == ["a", "b"] * 2
    assert [row["cost [per block]"] for row in classes] == [row["cost [per block]"] for row in devices]
    assert set(classes[0]) - set(summary[0]) == {"class", "devices", "tasks [per block]"}
    assert set(devices[0]) - set(summary[0]) == {"device", "class", "tasks [per block]"}
    for row in classes:
        low, high = (float(row[f"cost, 95 % {end} [per block]"]) for end in ("low", "high"))
        assert (low + high) / 2 == pytest.approx(float(row["cost [per block]"]))
        assert high > low
    assert [(row["scenario"], row["scheme"], row["status"]) for row in summary] == [
        ("mixed", "local", "ok"),
        ("mixed", "constant", "ok"),
    ]
    parts = [float(row[f"device {part} cost [per block]"]) for row in summary for part in ("queue", "energy")]
    costs = [float(row["cost [per block]"]) for row in classes]
    assert np.reshape(parts, (2, 2)).sum(axis=1) == pytest.approx(np.reshape(costs, (2, 2)).sum(axis=1), rel=1e-5)


def test_no_text_is_a_formula_in_a_spreadsheet(tmp_path: Path):
    """Names of groups come from files of others."""
    cells = ["=1+1", "@sum", "+a", "-a", "a=b", "-", "-174.0", "-1e-5", -2.0, np.nan, ""]
    write_csv(tmp_path / "x.csv", [cells])
    shown = ["_1+1", "_sum", "_a", "_a", "a=b", "-", "-174.0", "-1e-5", "-2.0", "", ""]
    assert (tmp_path / "x.csv").read_text() == ",".join(shown) + "\n"


def test_a_sweep_writes_one_tidy_table(tmp_path: Path):
    flags = "--set devices=2 --axis device.bandwidth_hz=1e6,2e6 --schemes local random --blocks 20 --seeds 1 --jobs 1"
    assert main(["sweep", *flags.split(), "--out", str(tmp_path / "out")]) == 0
    rows = rows_of(tmp_path / "out" / "summary.csv")
    assert [(float(row["device.bandwidth_hz [Hz]"]), row["scheme"]) for row in rows] == [
        (hz, scheme) for hz in (1e6, 2e6) for scheme in ("local", "random")
    ]
    assert all(float(row["cost [per block]"]) > 0 for row in rows)
    assert all(float(row["device energy [J/task]"]) > 0 and row["status"] == "ok" for row in rows)
