"""Scenarios: valid ones survive a round trip; invalid ones get a one-line error with field, range and given value."""

import contextlib
import datetime
import math
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from partway.errors import InputError
from partway.scenario.loading import MAX_FILE_BYTES, load, preset_text, presets
from partway.scenario.schema import (
    DeviceClass,
    Group,
    LayersTask,
    ProportionalTask,
    Radio,
    Scenario,
    Section,
    ServerClass,
    Weights,
)
from partway.schemes import check_hyperparameters
from partway.system.load import load_of
from partway.system.placement import Placement, sample_placement
from partway.system.world import build

TABLES: dict[str, type[Section]] = {"weights": Weights, "device": DeviceClass, "server": ServerClass, "radio": Radio}
LAYERS = {"kind": "layers", "profile": "resnet50", "tensor_dtype": "uint8"}
PAPER = tomllib.loads(preset_text("paper"))
CAMERA = tomllib.loads(preset_text("camera"))
TREES = [PAPER, CAMERA, tomllib.loads(load("camera").to_toml()), tomllib.loads(preset_text("ocr"))]

many = settings(max_examples=300, deadline=None, derandomize=False)  # new inputs in every run
few = settings(max_examples=200, deadline=None, derandomize=False)


def one_line(source: str | Path | Mapping[str, Any], overrides: Any = ()) -> str:
    """The error message for an invalid scenario."""
    with pytest.raises(InputError) as caught:
        load(source, overrides)
    return checked(caught.value)


def checked(error: InputError) -> str:
    """The message of an error, which must be printable and short."""
    message = str(error)
    assert message.isprintable()
    assert 0 < len(message) <= 300
    return message


# What is no scenario


@pytest.mark.parametrize("source", [5, True, None, 0.5, b"paper", ["paper"]])
def test_what_is_no_name_and_no_mapping_is_refused(source: Any):
    """A number would be read as an open file of this process."""
    with pytest.raises(InputError, match="must be the name of a preset, a TOML file, a mapping or a Scenario"):
        load(source)


# Presets


def tables_of(text: str) -> dict[str, str]:
    """The text of every top-level table of a file, with comments; "" is the text above the first table."""
    first, *others = re.split(r"(?m)^\[(?=\w)", text)
    return {"": first} | {name: body for name, _, body in (other.partition("]") for other in others)}


def test_paper_names_every_field():
    text = tables_of(preset_text("paper"))
    fields = {name: set(section.model_fields) for name, section in TABLES.items()}
    fields["device"] |= {*ProportionalTask.model_fields, *LayersTask.model_fields, *Group.model_fields} - {"device"}
    fields[""] = {*Scenario.model_fields} - {*TABLES, "group", "schemes"}
    missing = {
        f"{name}.{field}" for name in fields for field in fields[name] if not re.search(rf"\b{field}\b", text[name])
    }
    assert missing == set()
    assert "[[group]]" in text["device"]
    assert "[schemes." in text["radio"]


def test_paper_leaves_nothing_to_defaults():
    assert Scenario.model_validate(PAPER) == load("paper")


def test_what_paper_has_as_comments_is_valid():
    text = preset_text("paper")
    tasks = re.findall(r"(?m)^# task = (\{.*?\})", text)
    assert len(tasks) == 3
    for task in tasks:
        assert load("paper", [f"device.task={task}"]).device.task.kind == "layers"
    uncommented = re.sub(
        r"(?m)^# (?=\[|(?:name|fraction|cpu_max_hz|step|distance_m|queue_weight|energy_weight"
        r"|feature_weights|limit_power|patience) =)",
        "",
        text,
    )
    scenario = load(tomllib.loads(uncommented))
    assert [group.name for group in scenario.group] == ["slow", "fast"]
    assert scenario.group[0].device.cpu_max_hz < scenario.group[1].device.cpu_max_hz == scenario.device.cpu_max_hz
    assert {scenario.device.distance_m, scenario.device.queue_weight, scenario.device.energy_weight}.isdisjoint({None})
    assert scenario.schemes["parametric"].keys() == {"step", "feature_weights", "limit_power", "patience"}
    check_hyperparameters(scenario)


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_and_has_a_description(name: str):
    assert load(name) == load(tomllib.loads(preset_text(name)))
    assert preset_text(name).startswith(f"# {presets()[name]}\n")
    assert len(presets()[name]) > 20


@pytest.mark.parametrize("name", presets())
def test_every_line_of_a_preset_is_readable(name: str):
    assert max(map(len, preset_text(name).splitlines())) <= 125


# Files, overrides, groups


def test_a_file_gives_what_it_has_and_paper_the_rest(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xef\xbb\xbfdevices = 7\r\n[radio]\r\nsnr_gap = 2\r\n")  # as Windows writes it
    scenario, paper = load(file), load("paper")
    assert (scenario.devices, scenario.radio.snr_gap) == (7, 2.0)
    assert scenario.radio.noise_dbm_per_hz == paper.radio.noise_dbm_per_hz
    assert load(str(file)) == scenario == load({"devices": 7, "radio": {"snr_gap": 2}})


def test_overrides_are_values_or_text():
    scenario = load(
        "paper", ["devices=50", "device.arrival_prob = 0.2", "objective=discounted", "device.tx_power_max_w=2"]
    )
    assert (scenario.devices, scenario.device.arrival_prob, scenario.objective) == (50, 0.2, "discounted")
    assert scenario.device.tx_power_max_w == 2.0
    same = {"devices": 50, "device": {"arrival_prob": 0.2, "tx_power_max_w": 2}, "objective": "discounted"}
    assert load("paper", same) == scenario


def test_overrides_leave_the_callers_mapping_alone():
    raw = {"group": [{"fraction": 1.0, "task": dict(LAYERS)}], "schemes": {"parametric": {"step": 0.1}}}
    scenario = load(raw, {"group.0.task.tensor_dtype": "fp16", "schemes.parametric.step": 0.2})
    task = scenario.group[0].device.task
    assert isinstance(task, LayersTask)
    assert task.tensor_dtype == "fp16"
    assert scenario.schemes["parametric"]["step"] == 0.2
    assert raw == {"group": [{"fraction": 1.0, "task": LAYERS}], "schemes": {"parametric": {"step": 0.1}}}


def test_a_task_changes_its_kind_field_by_field_in_any_order():
    overrides = [f"device.task.{name}={value}" for name, value in LAYERS.items()]
    assert load("paper", overrides).device.task == LayersTask.model_validate(LAYERS)
    assert load("paper", overrides[::-1]) == load("paper", overrides)


def test_a_group_has_what_it_changes_and_device_after_overrides_the_rest():
    groups = [{"fraction": 0.5, "cpu_max_hz": 1e9}, {"fraction": 0.5, "task": {"cycles": 2e9}}]
    scenario = load({"group": groups}, ["device.arrival_prob=0.1", "group.1.bandwidth_hz=5"])
    slow, small = (group.device for group in scenario.group)
    assert slow == scenario.device.model_copy(update={"cpu_max_hz": 1e9})
    assert (slow.arrival_prob, small.arrival_prob) == (0.1, 0.1)
    assert (small.bandwidth_hz, slow.bandwidth_hz) == (5.0, scenario.device.bandwidth_hz)
    assert small.task == scenario.device.task.model_copy(update={"cycles": 2e9})


GROUPS = [{"name": "slow", "fraction": 0.5, "cpu_max_hz": 1e9}, {"name": "fast", "fraction": 0.25}, {"fraction": 0.25}]


def test_groups_are_named_by_number_by_name_or_all_at_once():
    scenario = load(
        {"group": GROUPS}, ["group.*.arrival_prob=0.3", "group.fast.arrival_prob=0.1", "group.2.cpu_max_hz=2e9"]
    )
    classes = [group.device for group in scenario.group]
    assert [one.arrival_prob for one in classes] == [0.3, 0.1, 0.3]
    assert [one.cpu_max_hz for one in classes] == [1e9, scenario.device.cpu_max_hz, 2e9]
    tasks = load({"group": GROUPS}, {"group.*.task": dict(LAYERS), "group.slow.task.tensor_dtype": "fp16"}).group
    assert [getattr(group.device.task, "tensor_dtype", "") for group in tasks] == ["fp16", "uint8", "uint8"]


@pytest.mark.parametrize(
    ("groups", "override", "those"),
    [
        (GROUPS, "device.cpu_max_hz=2e9", "'slow'"),
        (GROUPS, "device={cpu_max_hz=2e9}", "'slow'"),
        ([{"fraction": 1.0, "device": {"cpu_max_hz": 1e9}}], "device.cpu_max_hz=2e9", "0"),
        ([{"fraction": 0.5}, {"fraction": 0.5, "task": {"cycles": 2e9}}], "device.task.cycles=1e9", "1"),
        ([{"name": "net", "fraction": 1.0, "task": LAYERS}], "device.task.tensor_dtype=fp16", "'net'"),
        ([{"name": "net", "fraction": 1.0, "task": LAYERS}], "device.task.bits_per_cycle=1", "'net'"),
        ([{"name": "a", "fraction": 1.0, "queue_weight": 1e-9}], "weights.device_queue=1e-8", "'a'"),
        ([{"name": "a", "fraction": 1.0, "energy_weight": 1e-9}], "weights.device_energy=1e-8", "'a'"),
    ],
)
def test_a_field_that_groups_set_themselves_is_no_override_of_device(
    groups: list[dict[str, Any]], override: str, those: str
):
    """It changed nothing there before, and said nothing."""
    message = one_line({"group": groups}, [override])
    assert ": does not reach the groups that set " in message
    assert f" themselves ({those}); use group.N." in message
    assert "or group.*." in message


def test_what_reaches_every_device_is_no_error():
    assert (
        load({"group": GROUPS}, ["device.arrival_prob=0.3", "weights.device_queue=1"]).group[0].device.arrival_prob
        == 0.3
    )
    partly = [{"fraction": 1.0, "task": {"cycles": 2e9}}]
    assert (
        getattr(load({"group": partly}, ["device.task.bits_per_cycle=1"]).group[0].device.task, "bits_per_cycle", 0)
        == 1
    )
    assert "does nothing because [device] sets queue_weight" in one_line(
        {"device": {"queue_weight": 1.0}}, ["weights.device_queue=2"]
    )


def test_a_group_that_is_not_there_is_answered_with_those_that_are():
    message = one_line({"group": GROUPS}, ["group.slwo.arrival_prob=1"])
    assert message.endswith("the scenario has no table 'group.slwo'; groups: 'slow', 'fast', 2")


def test_a_complete_file_can_be_overridden_like_the_original():
    """Its groups hold only what differs from [device]."""
    scenario = load({"group": [*GROUPS[:2], {"fraction": 0.25, "task": {"cycles": 2e9}}]})
    again = tomllib.loads(scenario.to_toml())
    assert load(again) == scenario
    assert [set(group["device"]) for group in again["group"]] == [{"cpu_max_hz"}, set(), {"task"}]
    assert {group.device.arrival_prob for group in load(again, ["device.arrival_prob=0.3"]).group} == {0.3}
    assert {group.device.arrival_prob for group in load(scenario, ["device.arrival_prob=0.3"]).group} == {0.3}
    assert "themselves ('slow')" in one_line(again, ["device.cpu_max_hz=2e9"])


def test_a_scheme_of_a_module_in_a_package_can_be_set():
    assert load("paper", ["schemes.my.module:Policy.x=1"]).schemes == {"my.module:Policy": {"x": 1}}


# Paths


def profile_of(scenario: Scenario) -> list[str]:
    return [
        getattr(kind.task, "profile", "") for kind in (scenario.device, *(group.device for group in scenario.group))
    ]


def test_a_path_in_a_file_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In [device], in a group and in its device; a name stays a name, an absolute path what it is."""
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "mine.toml"
    tasks = [LAYERS | {"profile": name} for name in ("net.csv", "../net.csv", "resnet50", "/a/net.csv")]
    groups = [{"fraction": 0.5, "task": tasks[1]}, {"fraction": 0.25, "device": {"task": tasks[2]}}]
    groups += [{"fraction": 0.25, "task": tasks[3]}]
    file.write_text(tomli_w.dumps({"device": {"task": tasks[0]}, "group": groups}))
    expected = [f"{tmp_path}/sub/net.csv", f"{tmp_path}/sub/../net.csv", "resnet50", "/a/net.csv"]
    for folder, source in ((tmp_path, "sub/mine.toml"), (tmp_path / "sub", Path("mine.toml")), (Path("/"), file)):
        monkeypatch.chdir(folder)
        assert profile_of(load(source)) == expected


def test_a_path_elsewhere_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that the complete file that is written can be read anywhere."""
    monkeypatch.chdir(tmp_path)
    task = LAYERS | {"profile": "sub/net.csv"}
    scenario = load({"device": {"task": task}})
    assert profile_of(scenario) == [f"{tmp_path}/sub/net.csv"]
    assert load("paper", {"device.task": task}) == scenario
    (tmp_path / "scenario.toml").write_text(scenario.to_toml())
    monkeypatch.chdir("/")
    assert load(tmp_path / "scenario.toml") == scenario


def test_a_profile_beside_the_file_can_move_with_it(tmp_path: Path):
    scenario = load({"device": {"task": LAYERS | {"profile": str(tmp_path / "here" / "net.csv")}}})
    assert 'profile = "net.csv"' in scenario.to_toml(tmp_path / "here")
    assert f'profile = "{tmp_path}/here/net.csv"' in scenario.to_toml(tmp_path / "elsewhere")
    assert 'profile = "resnet50"' in load({"device": {"task": LAYERS}}).to_toml(tmp_path)


def test_counts_follow_one_another_and_fractions_are_spread():
    kinds = [{"cpu_max_hz": 1e9}, {"cpu_max_hz": 2e9}]
    counted = load({"devices": 5, "group": [{"count": 2, **kinds[0]}, {"count": 3, **kinds[1]}]})
    assert [device.cpu_max_hz for device in counted.device_classes()] == [1e9, 1e9, 2e9, 2e9, 2e9]
    spread = load({"devices": 8, "group": [{"fraction": 0.25, **kinds[0]}, {"fraction": 0.75, **kinds[1]}]})
    assert [device.cpu_max_hz for device in spread.device_classes()] == [2e9, 1e9, 2e9, 2e9] * 2


@few
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 60), st.integers(1, 60))
def test_the_first_devices_of_a_fleet_are_those_of_a_smaller_one(parts: list[int], one: int, other: int):
    groups = [{"fraction": part / sum(parts), "cpu_max_hz": 1e9 + i} for i, part in enumerate(parts)]
    small, large = (load({"devices": size, "group": groups}).device_classes() for size in sorted((one, other)))
    assert large[: len(small)] == small
    assert len(large) == max(one, other)
    for i, part in enumerate(parts):
        have = sum(device.cpu_max_hz == 1e9 + i for device in large)
        assert abs(have - part / sum(parts) * len(large)) < len(parts)


def test_as_printed_needs_devices_that_can_run_a_task_in_a_block():
    assert load("paper", ["queue=as_printed"]).queue == "as_printed"
    assert "cpu_max_hz must be at least 20000000000, got 10000000000" in one_line(
        "paper", ["queue=as_printed", "device.cpu_max_hz=10e9"]
    )
    slow = {"queue": "as_printed", "group": [{"fraction": 0.999}, {"fraction": 0.001, "cpu_max_hz": 1e9}]}
    assert "queue = 'as_printed'" in one_line(slow)
    assert "kind 'proportional'" in one_line("ocr", ["queue=as_printed"])


# Every valid scenario


@cache
def ranges(section: type[Section]) -> dict[str, tuple[float, float]]:
    """The smallest and the largest value of every number of a table."""
    limits: dict[str, tuple[float, float]] = {}
    for name, schema in section.model_json_schema()["properties"].items():
        for option in schema.get("anyOf", [schema]):
            if "maximum" in option:
                low = option.get("minimum", math.nextafter(option.get("exclusiveMinimum", math.nan), math.inf))
                limits[name] = (low, option["maximum"])
    return limits


POWER = (1e-15, 1e12)  # or inf: the only field whose range is not in its schema
DEVICE = {**ranges(DeviceClass), "tx_power_max_w": POWER, "initial_queue_tasks": (0, 10**6)}  # whole with this queue
TOP = ranges(Scenario)


def test_every_number_has_both_limits():
    for section in (*TABLES.values(), ProportionalTask, LayersTask, Group, Scenario):
        for name, schema in section.model_json_schema()["properties"].items():
            kinds = {option.get("type") for option in schema.get("anyOf", [schema])}
            if kinds & {"number", "integer"} and name != "tx_power_max_w":
                low, high = ranges(section)[name]
                assert -math.inf < low < high < math.inf


def numbers(limits: Mapping[str, tuple[float, float]], extreme: bool) -> st.SearchStrategy[dict[str, float]]:
    """Some of the fields, with values from their whole ranges, or only from the ends of the ranges."""

    def of(low: float, high: float) -> st.SearchStrategy[float]:
        whole = isinstance(low, int) and isinstance(high, int)
        inside = st.integers(low, high) if whole else st.floats(low, high)  # type: ignore[arg-type]
        return st.sampled_from([low, high]) if extreme else inside

    return st.fixed_dictionaries({}, optional={name: of(*span) for name, span in limits.items()})


@cache
def tasks(extreme: bool) -> st.SearchStrategy[dict[str, Any]]:
    proportional = numbers(ranges(ProportionalTask), extreme).map(lambda task: {**PAPER["device"]["task"], **task})
    layers = numbers(ranges(LayersTask), extreme).map(lambda task: {**LAYERS, **task})
    return proportional | layers


@cache
def classes(extreme: bool) -> st.SearchStrategy[dict[str, Any]]:
    task = st.fixed_dictionaries({}, optional={"task": tasks(extreme)})
    return st.builds(lambda fields, task: {**fields, **task}, numbers(DEVICE, extreme), task)


@st.composite
def scenarios(draw: st.DrawFn, extreme: bool = False) -> dict[str, Any]:
    """The contents of a valid file."""
    top = numbers({name: span for name, span in TOP.items() if name != "devices"}, extreme)
    raw: dict[str, Any] = {**draw(top), "devices": 2, "device": draw(classes(extreme))}
    raw["radio"] = draw(numbers({name: s for name, s in ranges(Radio).items() if not name.endswith("_m")}, extreme))
    for name in draw(st.sampled_from([("noise_dbw",), ("noise_dbm_per_hz", "noise_figure_db")])):
        raw["radio"].pop(name, None)
    near, far = ranges(Radio)["min_distance_m"]
    raw["radio"]["min_distance_m"] = draw(st.sampled_from([near, 10.0]))
    raw["radio"]["cell_radius_m"] = draw(st.sampled_from([11.0, far]))
    raw["weights"] = draw(numbers(ranges(Weights), extreme))
    raw["server"] = draw(numbers(ranges(ServerClass), extreme))
    parts = draw(st.lists(st.integers(1, 4), max_size=3))
    changes = [draw(classes(extreme)) for _ in parts]
    if draw(st.booleans()):
        raw["group"] = [{"fraction": part / sum(parts), **change} for part, change in zip(parts, changes, strict=True)]
    elif parts:
        raw["devices"] = sum(parts)
        raw["group"] = [{"count": part, **change} for part, change in zip(parts, changes, strict=True)]
    return raw


words = st.text(st.characters(exclude_categories=["C"]), max_size=8)
hyperparameters = st.dictionaries(
    st.text(max_size=4),
    st.dictionaries(
        st.text(max_size=4),
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | words,
        max_size=3,
    ),
    max_size=2,
)


@settings(max_examples=150, deadline=None)
@given(scenarios(), hyperparameters, words)
def test_toml_is_the_whole_scenario(raw: dict[str, Any], schemes: dict[str, Any], name: str):
    for group in raw.get("group", []):
        group["name"] = name
    scenario = load({**raw, "schemes": schemes})
    text = scenario.to_toml()
    assert load(tomllib.loads(text)) == scenario
    assert load(tomllib.loads(text)).to_toml() == text
    assert len(scenario.device_classes()) == scenario.devices


@settings(max_examples=150, deadline=None)
@given(scenarios(extreme=True))
def test_the_ends_of_all_ranges_make_a_world_of_finite_numbers(raw: dict[str, Any]):
    scenario = load({**raw, "devices": 2} if not any("count" in group for group in raw.get("group", [])) else raw)
    world = build(scenario, Placement(np.ones(scenario.devices), np.ones(scenario.devices)))
    unlimited = math.isinf(scenario.device.tx_power_max_w)
    for party in (world.devices, world.server, world.devices.task):
        for name, value in vars(party).items():
            if isinstance(value, np.ndarray) and not (name == "tx_power_max_w" and unlimited):
                assert np.isfinite(value).all(), name
    assert load_of(scenario, world).sentence()


@settings(max_examples=60, deadline=None)
@given(scenarios(extreme=True))
def test_the_ends_of_all_ranges_have_a_finite_gain(raw: dict[str, Any]):
    placement = sample_placement(load({name: value for name, value in raw.items() if name != "group"} | {"devices": 2}))
    assert (np.isfinite(placement.mean_gain_per_w) & (placement.mean_gain_per_w > 0)).all()
    assert (np.isfinite(placement.distance_m) & (placement.distance_m > 0)).all()


# Bad values

DEVICES, SLOT_S = "a whole number between 1 and 10000000", "between 1e-9 and 1000000"
POWERS, TASK_KINDS = "between 1e-15 and 1e12, or inf for no limit", "'proportional' or 'layers'"
TEXT = "a string of at most 200 printable characters"
SETTING = "true or false, a finite number or a string"
PATH = "a name or a path of at most 4096 printable characters"


@pytest.mark.parametrize(
    ("override", "field", "accepted", "value"),
    [
        ("devices=0", "devices", DEVICES, "0"),
        ("devices=20.0", "devices", DEVICES, "20.0"),
        ("devices=true", "devices", DEVICES, "true"),
        ("devices=many", "devices", DEVICES, "'many'"),
        ("devices=", "devices", DEVICES, "''"),
        ("devices=0x" + "f" * 5000, "devices", DEVICES, "1e6020 or so"),
        ("slots_per_block=65", "slots_per_block", "a whole number between 1 and 64", "65"),
        ("slot_s=0", "slot_s", SLOT_S, "0"),
        ("slot_s=nan", "slot_s", SLOT_S, "nan"),
        ("slot_s=inf", "slot_s", SLOT_S, "inf"),
        ("slot_s=true", "slot_s", f"a number {SLOT_S}", "true"),
        ("slot_s=1" + "0" * 400, "slot_s", SLOT_S, "1e400 or so"),
        ("slot_s=2020-01-01", "slot_s", f"a number {SLOT_S}", "2020-01-01"),
        ("slot_s=[1]", "slot_s", f"a number {SLOT_S}", "an array"),
        ("slot_s={a=1}", "slot_s", f"a number {SLOT_S}", "a table"),
        ("discount=1", "discount", "above 0 and at most 0.999999", "1"),
        ("discount=0", "discount", "above 0 and at most 0.999999", "0"),
        ("discount=low", "discount", "a number above 0 and at most 0.999999", "'low'"),
        ("objective=averge", "objective", "'average' or 'discounted'", "'averge'"),
        ("queue=5", "queue", "'conserving' or 'as_printed'", "5"),
        ("placement_seed=-1", "placement_seed", "a whole number between 0 and 4294967295", "-1"),
        ("broadcast_delay_blocks=1001", "broadcast_delay_blocks", "a whole number between 0 and 1000", "1001"),
        ("weights=3", "weights", "a table", "3"),
        ("weights.device_energy=-1e-3", "weights.device_energy", "between 0 and 1e12", "-0.001"),
        ("device.arrival_prob=1.2", "device.arrival_prob", "between 0 and 1", "1.2"),
        ("device.capacitance=-1", "device.capacitance", "between 0 and 1", "-1"),
        ("device.cpu_max_hz=0", "device.cpu_max_hz", "between 1 and 1e18", "0"),
        ("device.distance_m=-3", "device.distance_m", "between 0.001 and 1000000000", "-3"),
        ("device.queue_weight=x", "device.queue_weight", "a number between 0 and 1e12", "'x'"),
        ("device.tx_power_max_w=0", "device.tx_power_max_w", POWERS, "0"),
        ("device.tx_power_max_w=nan", "device.tx_power_max_w", POWERS, "nan"),
        ("device.tx_power_max_w=-inf", "device.tx_power_max_w", POWERS, "-inf"),
        ("device.tx_power_max_w=true", "device.tx_power_max_w", POWERS, "true"),
        ("device.task=5", "device.task", "a table", "5"),
        ("device.task.cycles=0", "device.task.cycles", "between 1 and 1e18", "0"),
        ("device.task.kind=layer", "device.task.kind", TASK_KINDS, "'layer'"),
        ("device.task.kind=[1]", "device.task.kind", TASK_KINDS, "an array"),
        (
            'device.task={kind="layers",profile="x",tensor_dtype=8}',
            "device.task.tensor_dtype",
            "'fp32', 'fp16' or 'uint8'",
            "8",
        ),
        ('device.task={kind="layers",profile=1,tensor_dtype="fp32"}', "device.task.profile", PATH, "1"),
        ("group=5", "group", "an array of tables, one [[group]] each", "5"),
        ("group=[5]", "group.0", "a table", "5"),
        ("group=[{fraction=2}]", "group.0.fraction", "above 0 and at most 1", "2"),
        ("group=[{count=0}]", "group.0.count", DEVICES, "0"),
        ("group=[{fraction=1,name=3}]", "group.0.name", TEXT, "3"),
        ("group=[{fraction=1,arrival_prob=2}]", "group.0.arrival_prob", "between 0 and 1", "2"),
        ("group=[{fraction=1,device={arrival_prob=2}}]", "group.0.arrival_prob", "between 0 and 1", "2"),
        ("group=[{fraction=1,device=7}]", "group.0.device", "a table", "7"),
        ("group=[{fraction=1,task={cycles=nan}}]", "group.0.task.cycles", "between 1 and 1e18", "nan"),
        ("radio=[]", "radio", "a table", "an array"),
        ("radio.snr_gap=0.5", "radio.snr_gap", "between 1 and 1000000", "0.5"),
        ("radio.min_distance_m=200", "radio.min_distance_m", "below radio.cell_radius_m = 200", "200"),
        ("radio.noise_dbw=-1e3", "radio.noise_dbw", "between -300 and 300", "-1000.0"),
        ("radio.noise_dbm_per_hz=1", "radio.noise_dbm_per_hz", "between -300 and 0", "1"),
        ("radio.noise_figure_db=-1", "radio.noise_figure_db", "between 0 and 100", "-1"),
        ("schemes=1", "schemes", "a table", "1"),
        ("schemes.parametric=1", "schemes.parametric", "a table", "1"),
        ("schemes.parametric.step=[]", "schemes.parametric.step", SETTING, "an array"),
        ("schemes.parametric.step=nan", "schemes.parametric.step", SETTING, "nan"),
    ],
)
def test_a_bad_value_is_reported_with_its_field_and_range(override: str, field: str, accepted: str, value: str):
    assert one_line("paper", [override]) == f"{field} must be {accepted}, got {value}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("device.task={kind='layers'}", f"device.task.profile is missing; it must be {PATH}"),
        ("group=[{fraction=0.5},{fraction=0.4}]", "group: the fractions must sum to 1, got 0.9"),
        ("group=[{fraction=0.5},{fraction=0.4999999}]", "group: the fractions must sum to 1, got 0.9999999"),
        ("group=[{count=3}]", "group: the counts must sum to devices = 20, got 3"),
        ("group=[{count=3},{fraction=1.0}]", "group: give every group a fraction or every group a count, got some of"),
        ("group=[{fraction=1},{}]", "group.1 must have either fraction or count, got neither"),
        ("group=[{fraction=1,count=20}]", "group.0 must have either fraction or count, got both"),
        ("group.0.fraction=1", "--set group.0.fraction=1: the scenario has no table 'group.0'"),
        ("group.x.fraction=1", "--set group.x.fraction=1: the scenario has no table 'group.x'"),
        ("devices.number=3", "--set devices.number=3: the scenario has no table 'devices'"),
        ("devices", "--set 'devices': expected FIELD=VALUE"),
        ("=3", "--set '=3': expected FIELD=VALUE"),
        ("devices=1\nslots_per_block=2", f"devices must be {DEVICES}, got '1\\nslots_per_block=2'"),
        ("devices=" + "9" * 5000, f"devices must be {DEVICES}, got '999"),
        ("devices=" + "[" * 5000, f"devices must be {DEVICES}, got '[[["),
        ("\x1b[2J=1", r"unknown field '\x1b[2J'; known: "),
        ("=".join(["x" * 5000, "1"]), "unknown field 'xxx"),
    ],
)
def test_errors_that_are_not_about_one_value(override: str, message: str):
    assert one_line("paper", [override]).startswith(message)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("devcies=3", "devices"),
        ("device.arival_prob=3", "arrival_prob"),
        ("device.task.cycle=3", "cycles"),
        ('device.task={kind="layers",profil="x",tensor_dtype="fp32",profile="y"}', "profile"),
        ("weights.server_queu=3", "server_queue"),
        ("radio.noise_db=3", "noise_figure_db"),
        ("radio.noise=3", "noise_dbm_per_hz"),
        ("radio.noise_dbm_hz=3", "noise_dbm_per_hz"),
        ("device.task.bit_per_cycle=3", "bits_per_cycle"),
        ("group=[{fraction=1,cpu_hz=1e9}]", "cpu_max_hz"),
        ("group=[{fraktion=1}]", "fraction"),
        ("arrival_prob=0.2", "device.arrival_prob"),
        ("snr_gap=2", "radio.snr_gap"),
        ("device.noise_db=3", "radio.noise_figure_db"),
        ("cpu_max=3", "device.cpu_max_hz"),
        ("slots=5", "slots_per_block"),
        ("broadcast_lag=2", "broadcast_delay_blocks"),
        ('device.task={kind="layers",profile="resnet50",coding="uint8"}', "tensor_dtype"),
        ('group=[{fraction=1,task={kind="layers",profile="resnet50",coding="uint8"}}]', "tensor_dtype"),
    ],
)
def test_a_mistyped_field_suggests_the_nearest(override: str, nearest: str):
    assert re.fullmatch(
        rf"unknown field '[\w.]+'; did you mean '{re.escape(nearest)}'\?", one_line("paper", [override])
    )


@pytest.mark.parametrize(
    ("override", "other_unit"),
    [
        ("radio.noise_dbm=-100", "noise_dbw"),
        ("radio.noise_w=1e-14", "noise_dbw"),
        ("device.noise_dbm=-100", "noise_dbw"),
        ("device.cpu_max_ghz=2", "cpu_max_hz"),
        ("device.bandwidth_mhz=2", "bandwidth_hz"),
        ("device.tx_power_max_dbm=23", "tx_power_max_w"),
        ("device.macs_per_second=1e9", "macs_per_cycle"),
        ("slot_ms=100", "slot_s"),
    ],
)
def test_no_hint_at_a_field_of_another_unit(override: str, other_unit: str):
    """A hint at cpu_max_hz for cpu_max_ghz would turn 2 GHz into 2 Hz."""
    message = one_line("paper", [override])
    assert message.startswith(f"unknown field '{override.partition('=')[0]}'; known: ")
    assert f"did you mean '{other_unit}'" not in message


# Noise


def test_noise_is_a_density_or_a_total():
    """Whichever a file or an override names replaces the other of the layer below."""
    total = load("paper", {"radio.noise_dbw": -120.0})
    assert (total.radio.noise_dbm_per_hz, total.radio.noise_figure_db, total.radio.noise_dbw) == (None, 0.0, -120.0)
    assert load({"radio": {"noise_dbw": -120.0}}) == total == load("paper", ["radio={noise_dbw=-120.0}"])
    again = load(total.model_dump(exclude_none=True), {"radio.noise_dbm_per_hz": -170.0, "radio.noise_figure_db": 5.0})
    assert (again.radio.noise_dbm_per_hz, again.radio.noise_figure_db, again.radio.noise_dbw) == (-170.0, 5.0, None)
    for scenario in (total, again, load("ocr")):
        assert load(scenario.model_dump(exclude_none=True)) == scenario


@pytest.mark.parametrize(
    ("given", "overrides", "other"),
    [
        ({}, ["radio.noise_dbw=-144", "radio.noise_dbm_per_hz=-174"], "noise_dbm_per_hz"),
        ({"radio": {"noise_dbw": -144.0, "noise_dbm_per_hz": -174.0}}, [], "noise_dbm_per_hz"),
        ({"radio": {"noise_dbw": -144.0}}, ["radio.noise_figure_db=7"], "noise_figure_db"),
    ],
)
def test_a_density_beside_a_total_is_refused(given: Any, overrides: list[str], other: str):
    """It would have no effect."""
    message = f"radio.noise_dbw = -144 is the total noise at every bandwidth: remove it or radio.{other}"
    assert one_line(given, overrides) == message


def test_a_field_with_no_similar_name_lists_the_known_ones():
    assert "; known: cell_radius_m, " in one_line("paper", ["radio.zzz=1"])
    assert "; known: arrivals_seen, broadcast_delay_blocks, " in one_line("paper", ["proportional=1"])


@pytest.mark.parametrize(
    "raw", [{1: 2}, {"device": {None: 1}}, {"\udcff": 1}, {"schemes": {"parametric": {"\udcff": 1}}}]
)
def test_a_name_that_cannot_stand_in_a_file(raw: Any):
    assert one_line(raw).startswith("unknown field ")


def test_text_must_fit_a_file_and_a_terminal():
    for text in ("\udcff", "a\x1b[2J", "a" * 201, "a\nb"):
        assert "printable characters" in one_line({"group": [{"fraction": 1.0, "name": text}]})


# Bad files


def test_a_mistyped_preset_suggests_the_nearest():
    assert one_line("papr") == "--scenario 'papr' is neither a file nor a preset; did you mean 'paper'?"
    assert one_line("somewhere/else.toml").endswith("is neither a file nor a preset; known: " + ", ".join(presets()))
    with pytest.raises(InputError, match=r"no scenario 'camra'; did you mean 'camera'\?"):
        preset_text("camra")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x7fELF\x02\x01\xff\xfe", "not a text file"),
        (bytes(range(256)), "not a text file"),
        (b"\0", "not valid TOML: "),
        (b"devices = ", "not valid TOML: Invalid value (at end of document)"),
        (b"devices = 1\ndevices = 2", "not valid TOML: "),
        (b"# x\n" * MAX_FILE_BYTES, "has more than 1000000 bytes"),
        (b"devices = " + b"9" * 5000, "not valid TOML: a number has too many digits"),
        (b"a = " + b"[" * 50_000, "nested too deeply"),
        (b"a = " + b"{b = " * 50_000, "nested too deeply"),
        (b"device" + b".task" * 5_000 + b" = 1", "unknown field 'device.task.task'"),
        (b"devices" + b".x" * 5_000 + b" = 1", f"devices must be {DEVICES}, got a table"),
        (b'"' + b"x" * 5_000 + b'" = 1', "unknown field 'xxx"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, data: bytes, reason: str):
    file = tmp_path / "bad.toml"
    file.write_bytes(data)
    assert reason in one_line(file)


def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be read (Is a directory); give a TOML file" in one_line(tmp_path)
    assert "neither a file nor a preset" in one_line(tmp_path / "file" / "below")
    assert "neither a file nor a preset" in one_line("nul\0byte")
    assert "cannot be read (File name too long)" in one_line("x" * 300)
    assert "cannot be read (" in one_line(tmp_path / "loop")
    assert "neither a file nor a preset" in one_line("")
    assert load(tmp_path / "file") == load("paper")


# Only InputError, whatever the input


def survives(source: str | Path | Mapping[str, Any], overrides: Any = ()) -> None:
    """A scenario that loads must survive a round trip, and must build or be refused with a one-line error."""
    try:
        scenario = load(source, overrides)
    except InputError as error:
        checked(error)
        return
    assert load(tomllib.loads(scenario.to_toml().encode().decode())) == scenario
    if scenario.devices <= 100:
        with contextlib.suppress(InputError):
            load_of(scenario, build(scenario, Placement(np.ones(scenario.devices), np.ones(scenario.devices))))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated") / "scenario.toml"


@many
@given(st.data())
def test_bytes_changed_anywhere(file: Path, data: st.DataObject):
    raw = preset_text(data.draw(st.sampled_from(sorted(presets())))).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        stop = start + data.draw(st.integers(0, 8) | st.integers(0, len(raw)))
        new = data.draw(st.binary(max_size=6) | st.text("0123456789.eE+-=[]{}\"'#,_x \n", max_size=6).map(str.encode))
        raw = raw[:start] + new + raw[stop:]
    file.write_bytes(raw)
    survives(file)


times = st.datetimes() | st.dates() | st.times() | st.datetimes(timezones=st.just(datetime.UTC))
odd = [0, -1, 1, 2**31, 2**63, 10**19, 10**400, -(10**400), 0.0, -0.0, 1e308, 5e-324, math.inf, -math.inf, math.nan]
plain = st.sampled_from(odd) | st.integers() | st.floats() | st.booleans() | st.text(max_size=8) | times
named = st.sampled_from(["kind", "task", "device", "group", "fraction", "count", "proportional", "layers", "schemes"])
keys = named | st.text(max_size=6)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)


def containers(tree: Any) -> list[Any]:
    """Every table and array of a tree."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return [*([tree] if isinstance(tree, dict | list) else []), *(each for part in inner for each in containers(part))]


def copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: copied(value) for name, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A preset with values deleted, replaced and added at any depth."""
    tree = copied(draw(st.sampled_from(TREES)))
    for _ in range(draw(st.integers(1, 3))):
        container = draw(st.sampled_from(containers(tree)))
        known = list(container) if isinstance(container, dict) else list(range(len(container)))
        action = draw(st.sampled_from(["replace", "delete", "add", "swap"] if known else ["add"]))
        if action == "add" and isinstance(container, list):
            container.append(draw(values))
        elif action == "add":
            container[draw(keys)] = draw(values)
        elif action == "delete":
            del container[draw(st.sampled_from(known))]
        elif action == "swap":
            other = draw(st.sampled_from(containers(draw(st.sampled_from(TREES)))))
            container[draw(st.sampled_from(known))] = copied(other)
        else:
            container[draw(st.sampled_from(known))] = draw(values)
    return tree


@many
@given(mutated())
def test_values_changed_anywhere(file: Path, tree: dict[str, Any]):
    survives(tree)
    file.write_text(tomli_w.dumps(tree), "utf-8")
    survives(file)


dotted = st.sampled_from(
    [*Scenario.model_fields]
    + [f"{name}.{field}" for name, section in TABLES.items() for field in section.model_fields]
    + [f"device.task.{field}" for field in (*ProportionalTask.model_fields, *LayersTask.model_fields)]
    + [
        f"group.{i}.{field}"
        for i in (0, 3, 4)
        for field in ("fraction", "count", "task", "device", "device.task", "name")
    ]
    + ["schemes.parametric.step", "schemes.x"]
)
written = values.map(lambda value: tomli_w.dumps({"v": value}).removeprefix("v = ")) | st.text(max_size=10)
options = st.builds("{}={}".format, dotted | st.text(max_size=10), written) | st.text(max_size=20)


@many
@given(st.sampled_from(sorted(presets())), st.lists(options, min_size=1, max_size=3))
def test_any_text_after_set(name: str, overrides: list[str]):
    survives(name, overrides)


@few
@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_any_text_after_scenario(name: str):
    survives(name)
