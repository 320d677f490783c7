"""Agents in comparisons: whatever answers observations, its numbers are those of a scheme that does the same."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import world_of
from env_player import given_device, given_server
from test_cli import refused

import partway
from partway.cli.main import main
from partway.controllers.base import DeviceController, ServerView
from partway.controllers.given import device_action, price_unit, server_action_of, startable
from partway.controllers.observation import bounded, device_observation, radio_ease
from partway.errors import InputError
from partway.experiments.by_device import VALUES
from partway.experiments.comparison import compare
from partway.experiments.evaluation import evaluate
from partway.experiments.summary import Summary
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.schemes import SCHEMES, environment_of, is_agent
from partway.system.equations import feasible_action, power_for
from partway.system.types import Broadcast, Device, DeviceAction, ServerAction
from partway.system.world import World

FOUR: dict[str, Any] = {"devices": 4}
SMALL: dict[str, Any] = {"blocks": 60, "seeds": 2}
STARTED, OFFLOAD = 2.0, 0.5
ANSWER = np.array([2 * STARTED / 6 - 1, 2 * OFFLOAD - 1])
"""Two tasks started and half of the second sent; of the paper's devices, which can start up to N = 5."""


class Half:
    """Starts two tasks."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        assert observation.shape == (8,)
        return ANSWER


class Weighted(Half):
    """Needs an argument."""

    def __init__(self, weights: np.ndarray):
        self.weights = weights


class Rows:
    """Answers many at a time, as stable-baselines3 does."""

    observation_space = SimpleNamespace(shape=(8,))

    def predict(self, observation: np.ndarray, state: Any = None, deterministic: bool = False) -> tuple[Any, None]:
        assert deterministic
        return np.tile(ANSWER, (len(observation), 1)), None


@jax.jit
def compiled(observation: jax.Array) -> jax.Array:
    """The same in JAX; it depends on what it observes, so that a mapping over the wrong axis is seen."""
    return jnp.asarray(ANSWER, observation.dtype) + 0.0 * observation[7]


EACH = {f"device_{k}": agent for k, agent in enumerate((Half(), Rows(), compiled, Half()))}


def assert_same(one: Summary, other: Summary, rel: float = 1e-4) -> None:
    """All that was measured, without the names."""
    unlike = {"name": "", "signalling": None, "heavy_tail": None}  # what is known of a scheme, not measured
    measured = [asdict(summary) | unlike for summary in (one, other)]
    assert jax.tree.structure(measured[0]) == jax.tree.structure(measured[1])
    for a, b in zip(*map(jax.tree.leaves, measured), strict=True):
        assert a == (b if isinstance(b, str) else pytest.approx(b, rel=rel, nan_ok=True))


@pytest.fixture(scope="module")
def constant() -> Summary:
    how = {"schemes.constant.offload": OFFLOAD, "schemes.constant.started": STARTED}
    return partway.summarise(compare(FOUR, schemes=["constant"], overrides=how, server="priced", **SMALL), None)[0]


@pytest.mark.parametrize(
    "agent", [Half, Half(), Rows(), compiled, EACH], ids=["class", "act", "predict", "jit", "each"]
)
def test_an_agent_is_worth_what_a_scheme_that_does_the_same_is_worth(agent: Any, constant: Summary):
    """Cost, latency, energy, and the gap by its sources, number by number."""
    before = dict(SCHEMES)
    found = evaluate(agent, FOUR, **SMALL)
    assert_same(found, constant)
    assert found.gap is not None
    assert found.gap.devices > found.gap.service > 0
    assert before == SCHEMES


def test_agents_of_all_parties_and_one_for_the_whole_system_agree():
    """All told the same, the server too: half of its speed in every slot."""
    devices = np.repeat(ANSWER, 4)
    central = SimpleNamespace(act=lambda observation: np.append(devices, np.zeros(5)), environment="partway/System-v0")
    apart = EACH | {"server_0": SimpleNamespace(act=lambda observation: np.zeros(6))}
    one, other = (evaluate(agent, FOUR, **SMALL) for agent in (central, apart))
    assert_same(one, other, rel=1e-5)
    assert one.server_utilisation < 0.5
    unnamed = SimpleNamespace(act=central.act)
    assert evaluate(unnamed, FOUR, environment="partway/System-v0", **SMALL).cost == one.cost


@pytest.mark.slow
def test_schemes_and_policies_are_evaluated_too(constant: Summary):
    class Same(DeviceController):
        def act(self, state: Any, device: Any, view: Any, key: Any) -> DeviceAction:
            return DeviceAction(jnp.minimum(view.q, STARTED), jnp.full_like(view.q, OFFLOAD))

    assert evaluate("local", FOUR, bound=False, **SMALL).name == "local"
    found = evaluate(Same, FOUR, **SMALL)
    assert found.name == "Same"
    assert found.cost.mean == pytest.approx(constant.cost.mean, rel=1e-6)


@pytest.mark.slow
def test_latency_and_traces_of_several_calls_are_joined(monkeypatch: pytest.MonkeyPatch, constant: Summary):
    monkeypatch.setattr("partway.experiments.agents.MEASURED", 25)
    seen = list[int]()
    found = evaluate(compiled, FOUR, on_progress=lambda name, blocks: seen.append(blocks), **SMALL)
    assert_same(found, constant)
    assert seen == [0, 25, 25, 10]


def test_an_agent_has_results_of_devices_and_classes_like_a_scheme(monkeypatch: pytest.MonkeyPatch):
    """The sums begin within the second of three parts."""
    monkeypatch.setattr("partway.experiments.agents.MEASURED", 25)
    how = {"schemes.constant.offload": OFFLOAD, "schemes.constant.started": STARTED}
    dataset = compare(FOUR, schemes=[Rows, "constant"], overrides=how, server="priced", **SMALL)
    one, other = (dataset.isel(scheme=i) for i in (0, 1))
    for name in (f"{each}_by_{by}" for each in VALUES for by in ("class", "device")):
        assert np.isfinite(one[name]).all()
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=name)


MODULE = """
import numpy as np

class Agent:
    def act(self, observation):
        return np.array([-1 / 3, 0.0])

agent = Agent()
wrong = lambda observation: np.zeros(2)
"""


def test_an_agent_stands_beside_schemes_on_the_command_line(user_folder: Path, capsys: pytest.CaptureFixture[str]):
    (user_folder / "outside_agent.py").write_text(MODULE)
    words = "compare --set devices=2 --blocks 20 --seeds 1 --schemes local outside_agent:agent outside_agent:Agent"
    assert main(words.split()) == 0
    shown = capsys.readouterr().out
    assert "outside_agent:agent" in shown
    rows = [line.split() for line in shown.splitlines()]
    first = [row[1:] for row in rows if row[:1] == ["outside_agent:agent"]]
    assert first
    assert first == [row[1:] for row in rows if row[:1] == ["outside_agent:Agent"]]


@pytest.mark.parametrize(
    "words",
    [
        "run --set devices=2 --blocks 20 --schemes outside_agent:agent",
        "sweep --set devices=2 --blocks 20 --axis device.arrival_prob=0.1,0.2 --schemes outside_agent:agent --out out",
    ],
)
def test_other_commands_refuse_agents(words: str, user_folder: Path):
    (user_folder / "outside_agent.py").write_text(MODULE)
    assert "is an agent: `compare` runs it" in refused(*words.split())


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (jax.jit(lambda observation: jnp.zeros(3)), r"an action must have the shape \(2,\), got \(3,\)"),
        (SimpleNamespace(act=lambda observation: np.full(2, np.nan)), "an action is not a number"),
        (SimpleNamespace(act=lambda observation: {}["x"]), r"line \d+ of test_agents.py: KeyError: 'x'"),
        (
            SimpleNamespace(predict=lambda observation: ANSWER),
            r"given many observations, here \(1, 8\), and must return actions \(1, 2\), got \(2,\)",
        ),
        (
            SimpleNamespace(predict=lambda observation: np.ones((2, 8)) @ observation),
            r"line \d+ of test_agents.py: ValueError: .*; predict is given many observations, here \(1, 8\)",
        ),
        (Weighted, r"Weighted\(\) fails; give an object instead of the class: TypeError: .*weights"),
        ({"device_0": compiled}, "has no agent device_1; agents are device_0 to device_3 and server_0"),
        (EACH | {"device_4": compiled}, "has an agent device_4 that does not exist"),
        (3, "expected a Scheme, a DeviceController or an agent"),
        (lambda observation: ANSWER, "expected a Scheme, a DeviceController or an agent"),
        (SimpleNamespace(act=Half().act, environment="Device"), "environment must be partway/Device-v0 or partway/"),
        (SimpleNamespace(act=Half().act, environment=np.arange(2)), r"environment must be .*, got \[0 1\]"),
        (SimpleNamespace(act=Half().act, observation_space=SimpleNamespace(shape=None)), "observation_space must be"),
        (SimpleNamespace(act=Half().act, observation_space={"queue": 8}), "observation_space must be .*, got dict"),
    ],
)
def test_an_agent_that_cannot_act_is_refused_before_anything_runs(agent: Any, message: str):
    with pytest.raises(InputError, match=message):
        evaluate(agent, FOUR, **SMALL)


class Growing:
    """Answers with more and more numbers, first with the right ones."""

    size = 1

    def act(self, observation: np.ndarray) -> np.ndarray:
        self.size += 1
        return np.zeros(self.size)


def test_actions_of_different_shapes_are_named():
    with pytest.raises(InputError, match=r"actions must have one shape, got \(3,\) and \(4,\)"):
        evaluate(Growing(), {"devices": 1}, blocks=4, seeds=2, bound=False)


def test_an_agent_that_cannot_be_looked_at_is_refused_in_one_line(user_folder: Path):
    code = "class Agent:\n    @property\n    def act(self):\n        raise ValueError('no act')\n"
    (user_folder / "outside_broken.py").write_text(code)
    said = refused("compare", "--schemes", "outside_broken:Agent")
    assert "scheme 'outside_broken:Agent': ValueError: no act" in said


class Tired:
    """Fails in the third block."""

    blocks = 0

    def predict(self, observation: np.ndarray) -> np.ndarray:
        self.blocks += 1
        if self.blocks > 3:  # once it is asked before the run
            raise ZeroDivisionError("no more")
        return np.tile(ANSWER, (len(observation), 1))


def test_an_agent_that_fails_in_the_run_is_named_with_its_line():
    with pytest.raises(
        InputError, match=r"scheme 'Tired' failed: line \d+ of test_agents\.py: ZeroDivisionError: no more"
    ):
        evaluate(Tired(), FOUR, **SMALL, bound=False)


def test_agents_need_a_broadcast_that_takes_time():
    with pytest.raises(InputError, match="agents need broadcast_delay_blocks of 1 or more, got 0"):
        evaluate(compiled, FOUR, overrides=["broadcast_delay_blocks=0"], **SMALL)


def test_what_is_an_agent_and_where_it_acts():
    assert [is_agent(one) for one in (Half(), compiled, EACH, {}, Half, {"device_0": 1}, SCHEMES["priced"].device)] == [
        *(True, True, True),
        *(False, False, False, False),
    ]
    spaces = [SimpleNamespace(observation_space=SimpleNamespace(shape=(size,))) for size in (8, 18)]
    assert [environment_of(one) for one in (Half(), *spaces)] == [
        *("partway/Device-v0", "partway/Device-v0", "partway/System-v0"),
    ]


# Actions as numbers, and what is observed


@pytest.fixture
def devices(mixed_world: World, float64: None) -> Device:
    return cast_floats(mixed_world.devices, "float64")


@jax.jit
def there_and_back(devices: Device, q: Any, gain: Any, asked: DeviceAction) -> tuple[DeviceAction, DeviceAction]:
    """What happens when this is asked for, and when the numbers are that stand for it."""
    back = device_action(devices, given_device(devices, asked))
    return feasible_action(devices, q, gain, asked), feasible_action(devices, q, gain, back)


def test_actions_survive_the_way_to_numbers_and_back(devices: Device):
    """Every cut of every device's task, and every number of tasks: what then happens is exactly the same."""
    q, gain = jnp.full(4, 5.0), devices.mean_gain * 3.0
    for started in range(7):
        for share in devices.task.share:
            wanted, found = there_and_back(devices, q, gain, DeviceAction(jnp.full(4, float(started)), share))
            np.testing.assert_array_equal(found.started, wanted.started)
            np.testing.assert_allclose(found.offload, wanted.offload, rtol=1e-15, atol=1e-15)


def test_in_float32_a_cut_is_not_taken_for_the_next_one(mixed_world: World):
    devices: Device = cast_floats(mixed_world.devices, "float32")
    q, gain = jnp.full(4, 5.0), devices.mean_gain * 1e3
    for share in devices.task.share:
        wanted, found = there_and_back(devices, q, gain, DeviceAction(jnp.full(4, 1.0), share))
        np.testing.assert_allclose(found.offload, wanted.offload, rtol=1e-5, atol=1e-6)


def test_numbers_by_hand():
    """The paper's device can start N = 5 tasks: six equal bins; the middle of the range is half a task."""
    world = cast_floats(papers_world(), "float32")
    device: Device = jax.tree.map(lambda leaf: leaf[..., 0], world.devices)
    assert startable(device) == 5
    for number, tasks in ((-1.0, 0), (-0.7, 0), (-0.6, 1), (0.0, 3), (0.99, 5), (7.0, 6)):
        asked = device_action(device, jnp.array([number, 0.0]))
        assert (int(asked.started), float(asked.offload)) == (tasks, 0.5)
    assert price_unit(world.devices) == pytest.approx(2.0)  # a task that waits costs 1, and 400 J cost 1
    view = ServerView(jnp.float32(3.0), jnp.float32(1.0), jnp.zeros(4))
    action = server_action_of(world.server, view, 2.0, jnp.array([-1.0, 0.0, 1.0, 0.0, 0.0, 1 / 3]))
    np.testing.assert_allclose(action.service_per_slot / world.server.slot_capacity, [0.0, 0.5, 1.0, 0.5, 0.5])
    assert float(action.broadcast.price) == pytest.approx(4.0)
    np.testing.assert_allclose(given_server(world.server, 2.0, action), [-1.0, 0.0, 1.0, 0.0, 0.0, 1 / 3], atol=1e-6)


def test_shares_are_broadcast_if_the_server_says_them():
    world = cast_floats(papers_world(), "float32")
    view = ServerView(jnp.float32(3.0), jnp.float32(1.0), jnp.zeros(4))
    said = Broadcast(jnp.float32(0.5), jnp.float32(0), jnp.float32(3), jnp.array([0.1, 0.2, 0.3, 0.4]))
    action = ServerAction(jnp.full(5, 0.2), said)
    back = server_action_of(world.server, view, 2.0, given_server(world.server, 2.0, action, shares=True))
    np.testing.assert_allclose(back.broadcast.share, said.share, atol=1e-6)
    assert float(back.broadcast.service_rate) == pytest.approx(1.0, rel=1e-5)


def test_what_a_device_observes_by_hand():
    """As many tasks as it can start, the mean gain, no broadcast: half, and half, and nothing."""
    world = cast_floats(papers_world(), "float32")
    device: Device = jax.tree.map(lambda leaf: leaf[..., 0], world.devices)
    said = Broadcast(*map(jnp.float32, (2.0, 0.0, 4.0, 0.25)))
    seen = SimpleNamespace(
        q=jnp.float32(5), gain=device.mean_gain, arrivals=jnp.array([1.0, 0, 0, 0, 1]), broadcast=said
    )
    like_a_view: Any = seen
    found = np.asarray(device_observation(device, like_a_view, 2.0))
    np.testing.assert_allclose(found[[0, 1, 2, 4, 5, 6, 7]], [0.5, 0.4, 0.5, 0.5, 0.0, 0.5, 0.5], rtol=1e-6)
    joules = 0.1 * float(power_for(device, device.mean_gain, jnp.float32(1.0)))
    assert float(found[3]) == pytest.approx(np.clip(0.5 + 10 * np.log10(400.0 / joules) / 80, 0, 1), rel=1e-4)
    assert radio_ease(device, jnp.float32(1e-30)) == 0.0
    assert radio_ease(device, jnp.float32(1e30)) == 1.0
    np.testing.assert_array_equal(bounded(jnp.array([0.0, jnp.inf]), 2.0), [0.0, 1.0])


def papers_world() -> World:
    return world_of(load(FOUR))
