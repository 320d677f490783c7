"""What a sweep consists of: hashes that change with what decides numbers, groups that the plan alone fixes."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import partway
from partway.errors import InputError
from partway.experiments.plan import make_plan
from partway.experiments.sweep import plan as module
from partway.experiments.sweep.plan import MAX_WORLDS, SweepPlan, key_of, sweep_plan
from partway.provenance import code_hash
from partway.scenario.loading import load

PACKAGE = Path(partway.__file__).parent
BASE: dict[str, Any] = {"schemes": ["priced"], "blocks": 20, "seeds": 2}
CHANGES: list[dict[str, Any]] = [
    {"blocks": 21},
    {"seeds": 3},
    {"seeds": [1, 0]},
    {"warmup": 3},
    {"precision": "float64"},
    {"server": "parametric"},
    {"schemes": ["decoupled"]},
    {"overrides": {"devices": 3}},
    {"overrides": {"device.arrival_prob": 0.41}},
    {"overrides": {"device.task": {"kind": "layers", "profile": "resnet50", "tensor_dtype": "uint8"}}},
    {"overrides": {"device.task": {"kind": "layers", "profile": "alexnet", "tensor_dtype": "uint8"}}},
    {"overrides": {"device.tx_power_max_w": 0.2}},
    {"overrides": {"placement_seed": 1}},
    {"overrides": {"schemes.priced.price_gain": 0.31}},
    {"overrides": {"group": [{"count": 20, "arrival_prob": 0.3}]}},
]


def key(**how: Any) -> str:
    return key_of(make_plan("paper", **(BASE | how)))


def small(*axes: str, **how: Any) -> SweepPlan:
    return sweep_plan("paper", axes, **({"schemes": ["local"], "blocks": 10, "seeds": 2} | how))


def test_every_input_changes_the_hash():
    keys = [key(), *(key(**change) for change in CHANGES)]
    assert len(set(keys)) == len(keys)


def test_what_decides_no_number_does_not():
    others = load("paper", {"schemes.decoupled.criterion": "discounted"})
    assert key_of(make_plan(others, **BASE)) == key()  # another scheme's
    assert key(warmup=10) == key()  # the default, given
    assert key(overrides={"device.arrival_prob": 0.4}) == key()


def test_versions_and_code_are_part_of_it(monkeypatch: pytest.MonkeyPatch):
    before = key()
    assert module.computed_by()["code"] == code_hash("partway.experiments.sweep.group")
    for name in ("jax", "code"):
        other = {**module.computed_by(), name: "another"}
        monkeypatch.setattr(module, "computed_by", lambda other=other: other)
        assert key() != before
        monkeypatch.undo()


def test_a_profile_counts_by_its_content(tmp_path: Path):
    text = (PACKAGE / "dnn" / "profiles" / "alexnet.csv").read_text()
    for name, content in (("one", text), ("two", text.replace("# input_bits: ", "# input_bits: 1"))):
        (tmp_path / f"{name}.csv").write_text(content)

    def with_profile(path: Path | str) -> str:
        return key(overrides={"device.task": {"kind": "layers", "profile": str(path), "tensor_dtype": "uint8"}})

    contents = [module._profile(str(tmp_path / name)) for name in ("one.csv", "two.csv")]
    assert contents[0] != contents[1]
    assert with_profile(tmp_path / "one.csv") != with_profile(tmp_path / "two.csv")


def test_the_hash_is_the_same_in_another_process():
    program = "from partway.experiments.plan import make_plan; "
    program += "from partway.experiments.sweep.plan import key_of; "
    program += "print(key_of(make_plan('paper', schemes=['priced'], blocks=20, seeds=2)))"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == key()


def test_a_policy_from_outside_counts_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = "from partway import DeviceController\nclass {0}(DeviceController): pass\n"
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("Outside1", "Outside2"):
        (tmp_path / f"{name.lower()}.py").write_text(source.format(name))
    assert module._policy_source("outside1:Outside1") == source.format("Outside1")
    assert module._policy_source("outside2:Outside2") != module._policy_source("outside1:Outside1")
    assert module._policy_source("priced") == ""


def test_cases_of_one_shape_share_a_group():
    plan = small("device.arrival_prob=0.1,0.2,0.3", "devices=1,2", schemes=["local", "full"])
    groups = [
        (group[0].plan.schemes[0], {case.plan.scenario.devices for case in group}, len(group)) for group in plan.groups
    ]
    assert groups == [("local", {1}, 3), ("full", {1}, 3), ("local", {2}, 3), ("full", {2}, 3)]


def test_what_the_compiled_program_is_specialised_to_parts_groups():
    assert len(small("objective=average,discounted").groups) == 2
    assert len(small("broadcast_delay_blocks=1,2").groups) == 2
    assert len(small("schemes.priced.criterion=average,discounted", schemes=["priced"]).groups) == 2
    assert len(small("schemes.priced.price_gain=0.1,0.2", schemes=["priced"]).groups) == 1
    assert len(small("device.cpu_max_hz=20e9,80e9").groups) == 2  # more tasks fit into a block


def test_groups_are_bounded_and_even():
    plan = small("device.arrival_prob=0.1:0.9:33")
    assert [len(group) for group in plan.groups] == [11, 11, 11]
    assert max(map(len, plan.groups)) <= MAX_WORLDS
    large = small("device.arrival_prob=0.1:0.9:3", blocks=100_000, overrides={"devices": 60})
    assert [len(group) for group in large.groups] == [1, 1, 1]  # 12 million device-blocks each


def test_what_an_axis_does_not_touch_is_one_case():
    plan = small("schemes.priced.price_gain=0.1,0.2", schemes=["priced", "local"])
    keys = [cell.key for cell in plan.cells]
    assert [cell.scheme for cell in plan.cells] == ["priced", "local"] * 2
    assert keys[1] == keys[3]
    assert keys[0] != keys[2]
    assert sum(map(len, plan.groups)) == 3


def test_an_axis_that_groups_overrule_is_refused():
    """All its points were equal before."""
    with pytest.raises(
        InputError, match=r"device\.arrival_prob: does not reach the groups .*\('a'\).*group\.\*\.arrival_prob"
    ):
        small("device.arrival_prob=0.1,0.9", overrides={"group": [{"name": "a", "fraction": 1.0, "arrival_prob": 0.4}]})


@pytest.mark.parametrize("axis", ["group.0.arrival_prob", "group.a.arrival_prob", "group.*.arrival_prob"])
def test_an_axis_over_a_field_of_groups(axis: str):
    plan = small(f"{axis}=0.1,0.9", overrides={"group": [{"name": "a", "fraction": 1.0, "arrival_prob": 0.4}]})
    found = [case.plan.scenario.group[0].device.arrival_prob for group in plan.groups for case in group]
    assert found == [0.1, 0.9]


@pytest.mark.parametrize(
    "axis", ["device.macs_per_cycle=1,2", "server.macs_per_cycle=1,2", "radio.cell_radius_m=100,200"]
)
def test_an_axis_that_changes_nothing_is_refused(axis: str):
    """No task is a network, and the place of every device is given."""
    with pytest.raises(InputError, match="changes nothing in this scenario"):
        small(axis, "device.arrival_prob=0.1,0.2", overrides={"device.distance_m": 50.0})


def test_an_axis_that_matters_for_some_values_of_another_is_one():
    """The MACs of a cycle matter for the network alone."""
    tasks = [{"kind": "proportional", "cycles": 1e10, "bits_per_cycle": 1e-4}]
    tasks += [{"kind": "layers", "profile": "alexnet", "tensor_dtype": "uint8"}]
    plan = sweep_plan(
        "paper", {"device.macs_per_cycle": [1, 2], "device.task": tasks}, schemes=["local"], blocks=10, seeds=2
    )
    assert len(plan.cells) == 4


def test_an_axis_that_changes_only_where_devices_are_is_one():
    assert len(small("radio.cell_radius_m=100,200").cells) == len(small("placement_seed=1,2").cells) == 2


def test_where_a_profile_is_does_not_count(tmp_path: Path):
    """A folder can move, and a worker of a cluster can have it elsewhere."""
    text, keys = (PACKAGE / "dnn" / "profiles" / "alexnet.csv").read_text(), list[str]()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.csv").write_text(text)
        task = {"kind": "layers", "profile": str(tmp_path / name / "net.csv"), "tensor_dtype": "uint8"}
        keys.append(key(overrides={"device.task": task}))
    assert keys[0] == keys[1]


def test_axes_override_what_is_set():
    plan = small("devices=2,3", overrides=["devices=7", "device.arrival_prob=0.2"])
    settings = [
        (case.plan.scenario.devices, case.plan.scenario.device.arrival_prob) for group in plan.groups for case in group
    ]
    assert settings == [(2, 0.2), (3, 0.2)]
    assert plan.base.scenario.devices == 7


def test_points_that_are_no_scenario_are_cells_without_a_case():
    plan = small("device.arrival_prob=0.5,1.5", "queue=conserving,as_printed")
    assert [cell.key is None for cell in plan.cells] == [False, False, True, True]
    assert re.search(r"device\.arrival_prob.*1\.5", plan.cells[2].why)
    limited = small("schemes.priced.price_gain=0.5,7", schemes=["priced", "local"])
    assert [cell.key is None for cell in limited.cells] == [False, False, True, True]  # as `compare` refuses it


@pytest.mark.parametrize(
    ("axes", "how", "message"),
    [
        (("device.arival_prob=0.1,0.2",), {}, "arival_prob.*did you mean"),
        (("device.arrival_prob=2,3",), {}, "device.arrival_prob.*2"),
        (("devices=2,3",), {"schemes": ["pricd"]}, "did you mean 'priced'"),
        (("devices=2,3",), {"blocks": 0}, "--blocks.* 0"),
    ],
)
def test_a_sweep_without_a_valid_point_is_refused(axes: tuple[str, ...], how: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        small(*axes, **how)


def test_the_request_holds_everything_and_is_json():
    request = small("devices=2,3").request()
    assert json.loads(json.dumps(request)) == request
    assert request != small("devices=2,4").request()
    assert request["axes"] == [["devices", [2, 3]]]
    assert {"partway", "code", "jax", "numpy"} <= set(request["versions"])
