"""How a channel or traffic is named: a kind that ships, `module:Class`, an object; in files only with a flag."""

import ast
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import world_of
from test_processes import MARKOV, OnOff, Walk, exogenous_of, played

import partway
from partway.cli.main import main
from partway.errors import InputError
from partway.experiments import checkpoint
from partway.experiments.plan import make_plan, setting_of
from partway.experiments.sweep.plan import sweep_plan
from partway.live.plan import make_plan as live_plan
from partway.measurement.checkpoint import read
from partway.planner.context import max_throughput
from partway.scenario.loading import load
from partway.system.kinds import CHANNELS, TRAFFIC, channel_of, is_paper
from partway.system.load import load_of

MINE = '''
import jax.numpy as jnp
import partway


class Half(partway.Channel):
    """Half the mean gain, or another part of it."""

    part: float = 0.5
    limits = {"part": (0.0, 2.0)}

    def step(self, state, key, device, block):
        return state, self.part * device.mean_gain


class Never(partway.Traffic):
    """No tasks."""

    def step(self, state, key, device, block):
        return state, jnp.zeros(device.slots)


def function():
    pass
'''


@pytest.fixture
def mine(user_folder: Path) -> Path:
    (user_folder / "mine.py").write_text(MINE)
    return user_folder


def gain_of(scenario: Any) -> np.ndarray:
    world = world_of(scenario)
    return exogenous_of(played(world, blocks=2))[0][0, 0] / np.asarray(world.devices.mean_gain)


# Names


def test_an_override_names_a_class_from_outside(mine: Path):
    given = ["devices=2", "radio.fading.kind=mine:Half"]
    np.testing.assert_allclose(gain_of(load("paper", given)), 0.5, rtol=1e-6)
    np.testing.assert_allclose(gain_of(load("paper", [*given, "radio.fading.part=0.25"])), 0.25, rtol=1e-6)


def test_a_file_imports_no_code(mine: Path):
    """Neither a file nor tables, unless an override names the same class: its parameters are then those of the file."""
    file = mine / "mine.toml"
    file.write_text(
        'devices = 2\n[radio]\nfading = { kind = "mine:Half", part = 0.25 }\n[traffic]\nkind = "mine:Never"\n'
    )
    refused = r"radio\.fading\.kind 'mine:Half': a scenario imports no code; add --channel mine:Half too"
    for source in (file, {"radio": {"fading": {"kind": "mine:Half"}}}):
        with pytest.raises(InputError, match=refused):
            load(source)
    with pytest.raises(InputError, match=r"traffic\.kind 'mine:Never': .* add --traffic mine:Never too"):
        load(file, ["radio.fading.kind=mine:Half"])
    for parameters in ({"radio.fading": {"part": 0.5}}, {"radio": {"fading": {"part": 0.5}}}):  # names no class
        with pytest.raises(InputError, match=refused):
            load(file, parameters)
    both = load(file, ["traffic.kind=mine:Never", "radio.fading.kind=mine:Half"])
    np.testing.assert_allclose(gain_of(both), 0.25, rtol=1e-6)
    assert load(file, {"radio.fading": {"kind": "rayleigh"}, "traffic.kind": "bernoulli"}) == load({"devices": 2})


def test_flags_name_kinds(mine: Path, capsys: pytest.CaptureFixture[str]):
    run = ["compare", "--schemes", "local", "--blocks", "4", "--seeds", "1", "--set", "devices=2"]
    assert main([*run, "--channel", "mine:Half", "--traffic", "mine:Never", "--json", "-"]) == 0
    assert '"kind": "mine:Half"' in capsys.readouterr().out
    assert main([*run, "--channel", "gauss_markov", "--set", "radio.fading.lag_correlation=2"]) == 2
    assert "radio.fading.lag_correlation must be a number from 0 to 1, got 2" in capsys.readouterr().err


def test_an_object_is_named_by_its_class_and_its_parameters():
    """In overrides and in tables, and again from the scenario that results hold."""
    scenario = load({"devices": 2, "traffic": OnOff()}, {"radio.fading": Walk(step_size=0.5)})
    assert scenario.radio.fading.parameters() == {"step_size": 0.5}
    assert scenario.radio.fading.kind == "test_processes:Walk"
    assert channel_of(scenario) == Walk(step_size=0.5)
    assert load(scenario) == scenario
    with pytest.raises(InputError, match="a scenario imports no code"):
        load(scenario.tables())


@pytest.mark.parametrize("half", [np.float32(0.5), np.float64(0.5), np.array(0.5), jnp.float32(0.5)])
def test_numpys_numbers_are_parameters_of_an_object(half: Any):
    assert channel_of(load("paper", {"radio.fading": Walk(step_size=half)})) == Walk(step_size=0.5)
    assert channel_of(load("paper", {"radio.fading": Walk(step_size=np.int64(1))})) == Walk(step_size=1.0)


def test_an_object_with_arrays_is_refused():
    class Table(partway.Channel):
        values: Any = None

    with pytest.raises(InputError, match=r"Table\.values must be a number or a string, got ndarray"):
        load("paper", {"radio.fading": Table(np.ones(3))})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["radio.fading.kind=rayleig"], r"radio\.fading\.kind: no kind 'rayleig'; did you mean 'rayleigh'"),
        (["traffic.kind=poisson"], r"traffic\.kind: no kind 'poisson'; .*your own is module:Class"),
        (["radio.fading.kind=nothere:X"], r"radio\.fading\.kind 'nothere:X': ModuleNotFoundError"),
        (["radio.fading.kind=mine:X"], r"radio\.fading\.kind 'mine:X': AttributeError"),
        (["radio.fading.kind=mine:function"], r"must be a subclass of partway\.Channel"),
        (["traffic.kind=mine:Half"], r"must be a subclass of partway\.Traffic"),
        (
            ["radio.fading.kind=mine:Half", "radio.fading.prt=1"],
            r"unknown field 'radio\.fading\.prt'; did you mean 'part'",
        ),
        (
            ["radio.fading.kind=mine:Half", "radio.fading.part=3"],
            r"radio\.fading\.part must be a number from 0 to 2, got 3",
        ),
        (["radio.fading.lag=3"], r"unknown field 'radio\.fading\.lag'; kind 'rayleigh' has no parameters"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(mine: Path, overrides: list[str], message: str):
    with pytest.raises(InputError, match=message):
        make_plan("paper", overrides=overrides, schemes=["local"])


def test_another_kind_does_not_keep_the_parameters_of_the_one_before():
    markov = load("paper", MARKOV)
    assert load(markov, ["radio.fading.kind=trace"]).radio.fading.parameters() == {}
    assert load(markov, ["radio.fading.kind=gauss_markov"]) == markov


def test_nobody_imports_a_kind():
    """But the table of kinds: what depends on a process asks the process."""
    package = Path(partway.__file__).parent
    homes = {kind.__module__ for kind in (*CHANNELS.values(), *TRAFFIC.values())}
    assert homes == {"partway.system.fading", "partway.system.trace", "partway.system.traffic"}
    for path in package.rglob("*.py"):
        imports = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not imports & homes or path == package / "system" / "kinds.py"


# Processes that cannot work


class NoStep(partway.Channel):
    pass


class Branching(partway.Channel):
    def step(self, state: Any, key: Any, device: partway.Station, block: Any) -> Any:
        return state, device.mean_gain if device.mean_gain > 0 else 0.0


class Alone(partway.Channel):
    def step(self, state: Any, key: Any, device: partway.Station, block: Any) -> Any:
        return device.mean_gain


class Growing(partway.Channel):
    def step(self, state: Any, key: Any, device: partway.Station, block: Any) -> Any:
        return device.mean_gain, device.mean_gain


class OneTask(partway.Traffic):
    def step(self, state: Any, key: Any, device: partway.Station, block: Any) -> Any:
        return state, device.mean_gain


class Spoilt(partway.Channel):
    """Has the logarithm of this as its gain from block 20 on."""

    what: float = 1.0

    def step(self, state: Any, key: Any, device: partway.Station, block: Any) -> Any:
        return state, jnp.where(block < 20, device.mean_gain, jnp.log(self.what))


class Counts(partway.Traffic):
    """Two tasks in a slot, which would count as one."""

    def step(self, state: Any, key: Any, device: partway.Station, block: Any) -> Any:
        return state, jnp.full(device.slots, 2.0)


class Rates(OnOff):
    """Says this of what arrives on the mean, and in a block."""

    rate: float = 1.0

    def relative_rate(self, stations: Any) -> Any:
        return self.rate if self.rate < 1 else "much"

    def arrivals_in_a_block(self, stations: Any) -> Any:
        return np.full((2, 6), self.rate / 6)


@pytest.mark.parametrize(
    ("field", "process", "message"),
    [
        ("radio.fading", Spoilt(what=-1.0), r"Spoilt\.step: .* a finite gain above 0, got nan in block 20"),
        ("radio.fading", Spoilt(what=1.0), r"Spoilt\.step: .* a finite gain above 0, got 0\.0 in block 20"),
        ("radio.fading", Spoilt(what=0.5), r"Spoilt\.step: .* a finite gain above 0, got -0\.69"),
        ("traffic", Counts(), r"Counts\.step: .* must be 0 or 1 for each slot, got 2\.0 in block 0"),
        ("radio.fading", NoStep(), r"radio\.fading: NoStep\.step.*: it needs a method `step`"),
        ("radio.fading", Branching(), r"Branching\.step, line \d+ of test_process_kinds\.py: .*use jnp\.where"),
        ("radio.fading", Alone(), r"Alone\.step: must return two values, the next state and the gain"),
        ("radio.fading", Growing(), r"Growing\.step: must return a state of the same structure as `init`"),
        ("traffic", OneTask(), r"traffic: OneTask\.step: the second result must be numbers of shape \(5,\)"),
    ],
)
def test_a_process_that_cannot_work_is_explained_before_anything_runs(field: str, process: Any, message: str):
    with pytest.raises(InputError, match=message):
        make_plan("paper", overrides={field: process}, schemes=["local"])


class OnHost(Walk):
    """Fails, or says what cannot be, where it is asked once for the whole fleet."""

    what: str = ""

    def prepared(self, stations: Any) -> Any:
        return self if self.what != "prepared" else {}["no file"]

    def mean_gain(self, stations: Any) -> Any:
        gains = {
            "one gain": 1.0,
            "negative": -stations.mean_gain,
            "undefined": stations.mean_gain * np.nan,
            "word": "x",
        }
        return gains.get(self.what, stations.mean_gain)

    def longest_run(self) -> int | None:
        return None if self.what != "longest_run" else 1 // 0

    @property
    def law(self) -> Any:
        return {"law": lambda: 1 // 0, "number as law": lambda: 5}.get(self.what, lambda: None)()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("prepared", r"radio\.fading: OnHost\.prepared: KeyError: 'no file'"),
        ("longest_run", r"radio\.fading: OnHost\.longest_run: ZeroDivisionError"),
        ("law", r"radio\.fading: OnHost\.law: ZeroDivisionError"),
        ("number as law", r"radio\.fading: OnHost\.law must be None or have .*, got int"),
        *((what, "OnHost.mean_gain must return one finite number") for what in ("one gain", "negative", "undefined")),
        ("word", "OnHost.mean_gain must return one finite number"),
    ],
)
def test_what_a_process_says_on_the_host_is_checked(what: str, message: str):
    with pytest.raises(InputError, match=message):
        setting_of(make_plan("paper", overrides={"devices": 2, "radio.fading": OnHost(what=what)}, blocks=4).scenario)


@pytest.mark.parametrize("rate", [-1.0, 2.0])
def test_what_traffic_says_of_its_rate_is_checked(rate: float):
    scenario = load("paper", {"devices": 2, "traffic": Rates(rate=rate)})
    with pytest.raises(InputError, match=r"Rates\.relative_rate must return one finite number of at least 0"):
        load_of(scenario, world_of(scenario))


@pytest.mark.parametrize("rate", [-1.0, 0.5])
def test_what_traffic_says_of_a_block_is_checked(rate: float):
    with pytest.raises(InputError, match=r"Rates\.arrivals_in_a_block must return probabilities of shape \(2, 6\)"):
        partway.lower_bound(world_of(load("paper", {"devices": 2, "traffic": Rates(rate=rate)})))


def test_a_cut_for_one_task_takes_a_class_from_outside(mine: Path):
    """Of which it needs the mean gain only."""
    named = partway.cut("mobilenetv2", overrides=["radio.fading.kind=mine:Half"])
    assert named.question.link == partway.cut("mobilenetv2").question.link


# Where a scenario is used


def test_a_sweep_has_an_axis_for_a_parameter_and_for_a_kind():
    by_value = sweep_plan("paper", {"radio.fading.lag_correlation": [0.5, 0.9]}, overrides=MARKOV, schemes=["local"])
    assert len(by_value.groups) == 1  # of one program
    assert len({cell.key for cell in by_value.cells}) == 2
    by_kind = sweep_plan("paper", {"radio.fading.kind": ["rayleigh", "gauss_markov"]}, schemes=["local"])
    assert len(by_kind.groups) == 2


def test_a_checkpoint_continues_a_channel_with_a_memory(tmp_path: Path):
    """As if the run had never stopped; and in a world with another channel."""
    plan = make_plan("paper", overrides={"devices": 2, **MARKOV}, schemes=["local"], blocks=20, seeds=2)
    setting = setting_of(plan.scenario, bound=False)
    whole, half = (played(setting.world, "local", seeds=[0, 1], blocks=blocks) for blocks in (40, 20))
    checkpoint.save(tmp_path / "half.npz", plan, half)
    start = read(tmp_path / "half.npz")
    pair, carry = checkpoint.resume(start, plan, setting)
    rest = played(setting.world, "local", seeds=[0, 1], blocks=20, pair=pair, carry=carry, first_block=20)
    for one, other in zip(exogenous_of(whole), exogenous_of(rest), strict=True):
        np.testing.assert_array_equal(one[:, 20:], other)
    elsewhere = make_plan("paper", overrides={"devices": 2, "traffic": OnOff()}, schemes=["local"], blocks=20, seeds=2)
    _, carry = checkpoint.resume(start, elsewhere, setting_of(elsewhere.scenario, bound=False))
    assert carry.state.memory.channel == ()
    assert carry.state.memory.traffic.shape == (2, 2)


def test_a_plan_under_load_needs_a_law(tmp_path: Path):
    most = [max_throughput(world_of(load("ocr", given))) for given in ({}, MARKOV)]
    np.testing.assert_array_equal(*most)
    with pytest.raises(InputError, match="needs a fading whose law is known"):
        max_throughput(world_of(load("ocr", {"radio.fading": Walk()})))


def test_a_live_run_takes_the_laws_of_the_paper_only():
    assert is_paper(load("paper"))
    with pytest.raises(InputError, match="a live device draws its gains and tasks by the laws of the preset paper"):
        live_plan(load("paper", MARKOV), "priced", blocks=10)


class Double(OnOff):
    def relative_rate(self, stations: partway.Station) -> float:
        return 2.0


def test_the_load_is_judged_by_the_tasks_that_arrive():
    usual, double = (load("paper", {"traffic": traffic}) for traffic in (OnOff(), Double()))
    once, twice = (load_of(scenario, world_of(scenario)) for scenario in (usual, double))
    assert twice.tasks == 2 * once.tasks
    assert twice.device_utilisation == 2 * once.device_utilisation
