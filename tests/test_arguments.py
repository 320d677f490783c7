"""Arguments from Python: NumPy's numbers are numbers, a wrong type is an InputError, nothing is rounded in silence."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import partway
from partway.arguments import seed_values, whole_number
from partway.controllers.base import ControllerPair, DeviceController
from partway.controllers.baselines import Constant, Local, Steady
from partway.errors import InputError
from partway.experiments.comparison import compare
from partway.experiments.plan import make_plan
from partway.experiments.sweep.axes import parse_axes
from partway.experiments.sweep.run import sweep
from partway.netcdf import load_dataset
from partway.pytree import floats_as_arrays
from partway.scenario.loading import load
from partway.schemes import SCHEMES, Scheme, find_scheme
from partway.simulation.rollout import rollout
from partway.system.world import World
from partway.workers import process_count

NUMBERS: dict[str, Any] = {
    "int64": np.int64(6),
    "uint8": np.uint8(6),
    "array": np.array(6),
    "int": 6,
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numpys_whole_numbers_are_whole_numbers(kind: str):
    six = NUMBERS[kind]
    plan = make_plan({"devices": six}, overrides={"slots_per_block": six}, blocks=six, seeds=six, warmup=six - 1)
    assert plan == make_plan({"devices": 6}, overrides={"slots_per_block": 6}, blocks=6, seeds=6, warmup=5)
    assert type(plan.blocks) is type(plan.warmup) is type(plan.scenario.devices) is int
    assert make_plan("paper", seeds=[six, 0]).seeds == (6, 0)
    assert process_count(six) == 6


@pytest.mark.parametrize(
    "seeds", [np.arange(3), np.array([0, 1, 2], np.uint32), range(3), (0, 1, 2), {0: 0, 1: 1}.keys()]
)
def test_seeds_in_any_sequence(seeds: Any):
    assert seed_values(seeds) == tuple(range(len(seeds)))


def test_numpys_numbers_and_paths_in_a_scenario(tmp_path: Path):
    """Also in a group, a task, a hyperparameter and an axis."""
    raw = {
        "device": {"arrival_prob": np.float32(0.25), "tx_power_max_w": np.float64(np.inf)},
        "group": [{"fraction": np.float64(1.0), "task": {"cycles": np.int32(10**9)}}],
        "schemes": {"constant": {"offload": np.float16(0.5)}},
    }
    scenario = load(raw, {"radio.snr_gap": np.array(2.0)})
    assert scenario.device.arrival_prob == 0.25
    assert scenario.radio.snr_gap == 2.0
    assert load(scenario.tables()) == scenario
    assert scenario.schemes == {"constant": {"offload": 0.5}}
    (axis,) = parse_axes({"devices": np.array([2, 4])})
    assert [type(value) for value in axis.values] == [int, int]
    task = load(
        {"device": {"task": {"kind": "layers", "profile": tmp_path / "a.csv", "tensor_dtype": "fp32"}}}
    ).device.task
    assert task.kind == "layers"
    assert task.profile == str(tmp_path / "a.csv")


NOT_WHOLE: list[Any] = [1.5, 2.0, np.float32(2.0), "2", None, True, np.True_, [2], 2j]


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
def test_what_is_no_whole_number_is_refused(value: Any):
    with pytest.raises(InputError, match="n must be a whole number from 0 to 9, got "):
        whole_number("n", value, 0, 9)
    with pytest.raises(InputError, match="--blocks must be a whole number from 2 to 10000000"):
        make_plan("paper", blocks=value)
    if value is not None:
        with pytest.raises(InputError, match="--warmup must be a whole number from 0 to 1999, got "):
            make_plan("paper", warmup=value)
        with pytest.raises(InputError, match="--jobs must be between 1 and"):
            process_count(value)


@pytest.mark.parametrize(
    "seeds",
    [0.5, [0.0, 0.5, 1.0], np.array([0.0, 1.0]), [0, "1"], "8", True, [True], None, {}, 10**12, -1, [2**32], [3, 3]],
)
def test_seeds_that_are_not_different_whole_numbers_are_refused(seeds: Any):
    """They were rounded down before: seed 0 three times, an interval of width 0."""
    with pytest.raises(InputError, match="--seeds must be a count from 1 to 100000, or different whole numbers"):
        make_plan("paper", seeds=seeds)


def test_a_rollout_rounds_no_seed(mixed_world: World):
    pair: Any = None
    with pytest.raises(ValueError, match=r"seeds must be whole numbers, got \[0\.5\]"):
        rollout(mixed_world, pair, "own", [0.5], 2)  # pyright: ignore[reportArgumentType]


def test_a_hyperparameter_of_numpy_has_the_precision_of_the_run():
    """A float32 would have stayed one in a run in float64."""
    pair = ControllerPair(Constant(offload=np.float32(0.5), started=2.0), Steady())  # pyright: ignore[reportArgumentType]
    assert {leaf.dtype for leaf in jax.tree.leaves(floats_as_arrays(pair, "float64"))} == {np.dtype("float64")}


WRONG: dict[str, tuple[Any, str]] = {
    "scenario": (
        lambda: load(5),
        "--scenario 5: must be the name of a preset, a TOML file",
    ),  # a file descriptor before
    "scenario of bytes": (lambda: load(b"paper"), "--scenario b'paper': must be"),
    "no scenario": (lambda: make_plan(None), "--scenario None: must be"),
    "override": (lambda: load("paper", [5]), "--set 5: expected FIELD=VALUE"),
    "overrides": (lambda: load("paper", 5), "--set 5: expected FIELD=VALUE"),
    "name of an override": (lambda: load("paper", {5: 1}), "unknown field 5"),
    "scheme": (lambda: make_plan("paper", schemes=[5]), "--schemes takes names, got int"),
    "schemes": (lambda: make_plan("paper", schemes=5), "--schemes takes names, got int"),
    "no scheme": (lambda: make_plan("paper", schemes=[]), "--schemes must name at least one scheme"),
    "controller": (
        lambda: make_plan("paper", schemes=[Local()]),
        "--schemes takes names, got Local; add it to the table",
    ),
    "server": (lambda: make_plan("paper", server=Steady()), "--server takes names, got Steady"),
    "empty server": (lambda: make_plan("paper", server=""), "no scheme ''"),
    "precision": (lambda: make_plan("paper", precision=32), "--precision must be one of float32, float64, got 32"),
    "precision of an array": (lambda: make_plan("paper", precision=np.arange(2)), r"float64, got \[0 1\]"),
    "schemes of an array": (lambda: make_plan("paper", schemes=np.array(3)), "--schemes takes names, got ndarray"),
    "task": (lambda: load("paper", {"device.task": Decimal(1)}), r"device\.task must be a table, got 1"),
    "data type": (
        lambda: partway.cut("mobilenetv2", tensor_dtype=np.arange(2)),
        r"tensor_dtype must be one of fp32, fp16, uint8, got \[0 1\]",
    ),
    "shapes": (
        lambda: partway.cut("mobilenetv2", shapes=np.arange(2)),
        r"shapes and values need an \.onnx file, got 'mobilenetv2'",
    ),
    "layout": (
        lambda: partway.split("net.onnx", "halves", layout=np.arange(2)),
        r"layout must be one of files, triton, got \[0 1\]",
    ),
    "bound": (lambda: make_plan("paper", bound="no"), "bound must be True or False, got 'no'"),
    "on_progress": (lambda: compare("paper", on_progress=1), "on_progress must be a function, got 1"),
    "axes": (lambda: sweep("paper", 5), "--axis 5: expected"),
    "axis": (lambda: sweep("paper", [5]), "--axis 5: expected FIELD=SPEC"),
    "values of an axis": (lambda: sweep("paper", {"devices": 4}), "--axis 'devices=4': "),
    "name of an axis": (lambda: sweep("paper", {5: [4]}), "--axis 5: must be the dotted name of a field"),
    "out": (lambda: sweep("paper", {"devices": [4]}, out=5), "out must be a path, got 5"),
    "empty out": (lambda: sweep("paper", {"devices": [4]}, out=""), "out must be a path, got ''"),
    "overwrite": (lambda: sweep("paper", {"devices": [4]}, overwrite=1), "overwrite must be True or False, got 1"),
    "executor": (
        lambda: sweep("paper", {"devices": [4]}, executor=4),
        "executor must be a concurrent.futures.Executor",
    ),
    "jobs": (
        lambda: sweep("paper", {"devices": [4]}, schemes="local", jobs=1.5),
        r"--jobs must be between 1 and 1024, got 1\.5",
    ),
    "results": (lambda: load_dataset(5), "the folder of results must be a path, got 5"),
    "dataset": (
        lambda: partway.summarise("results"),
        "summarise takes a dataset of partway.compare, got str 'results'",
    ),
    "world": (lambda: partway.lower_bound("paper"), "lower_bound takes a world of partway.system.world.build, got str"),
    "row": (
        lambda: Scheme("x", 5, SCHEMES["local"].server).device,
        "partway.Scheme: expected a DeviceController, got int",
    ),
    "server of a row": (lambda: Scheme("x", Local(), Local()).server, "expected a ServerController, got Local"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_type_is_an_input_error(case: str):
    call, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        call()


def test_bins_and_price_of_the_bound(mixed_world: World):
    with pytest.raises(InputError, match=r"bins must be a whole number from 2 to 100000, got 1\.5"):
        partway.lower_bound(mixed_world, bins=1.5)  # pyright: ignore[reportArgumentType]
    for price in ("1", np.array([1.0]), -1):
        with pytest.raises(InputError, match="the bound is proven for prices between 0 and"):
            partway.lower_bound(mixed_world, bins=16, price=price)  # pyright: ignore[reportArgumentType]


# Schemes


class Own(DeviceController):
    """Starts what it can, offloads nothing."""

    act = Local.act


def test_a_scheme_as_one_name_a_row_or_a_class():
    assert make_plan("paper", schemes="priced").schemes == ("priced",)
    assert make_plan("paper", schemes=[SCHEMES["priced"], "local", "priced"]).schemes == ("priced", "local")
    assert make_plan("paper", schemes=(name for name in ["local"])).schemes == ("local",)
    assert make_plan("paper", schemes=["local"], server=SCHEMES["constant"]).server == "constant"
    plan = make_plan({"devices": 2}, schemes=Own)
    assert plan.schemes == (f"{__name__}:Own",)
    assert type(find_scheme(plan.schemes[0]).device) is Own


def test_a_controller_may_stand_in_the_table_without_a_scheme(monkeypatch: pytest.MonkeyPatch):
    """Or its class, alone or in a row."""
    for row in (Own(), Own, Scheme("own", Own, SCHEMES["local"].server)):
        monkeypatch.setitem(SCHEMES, "own", row)  # pyright: ignore[reportArgumentType]
        assert type(find_scheme("own").device) is Own
    monkeypatch.setitem(SCHEMES, "own", 5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"scheme 'own': expected a Scheme, a DeviceController or an agent.*, got int"):
        find_scheme("own")


def test_overrides_change_a_scenario_that_is_loaded_already():
    """They were ignored before."""
    scenario = load("paper")
    assert make_plan(scenario, overrides={"devices": 7}).scenario == load("paper", {"devices": 7})
    assert make_plan(scenario, overrides="devices=7").scenario.devices == 7
    assert make_plan(scenario).scenario is scenario
