"""Environments: blocks of the simulation as Gymnasium, PettingZoo and gymnax have them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import MIXED, frozen, world_of
from env_player import Player, given_device
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from pettingzoo.test import api_test, max_cycles_test, parallel_api_test, parallel_seed_test, seed_test
from test_processes import MARKOV, OWN

from partway.controllers.base import BROADCAST_FIELDS, ControllerPair
from partway.env import functional, parallel, single, vector
from partway.env.params import TRAINING_SEED
from partway.errors import InputError
from partway.rng import block_keys, controller_keys, per_device, stable_hash
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, stream_of
from partway.simulation.rollout import rollout
from partway.simulation.sharding import broadcast_shared
from partway.simulation.step import device_views
from partway.system.signalling import no_broadcast

BLOCKS, SEED = 30, 5
FOUR: dict[str, Any] = {"devices": 4}
TRAINED: dict[str, Any] = {"scenario": FOUR, "training": 10}
"""`partway/Device-v0` in the small: four devices, whose others learn for ten blocks."""
SUITE = ("priced",)
"""Schemes that are driven through the environments in every run of the tests, the others in the slow one."""
PER_DEVICE = ("q", "gain", "started", "offload", "power")
COMPONENTS = ("server_queue", "server_energy", "device_queue", "device_energy")
SLOW = pytest.mark.slow


# Every scheme, driven from outside, does what it does in a rollout


def driven(player: Player, scenario: Scenario) -> dict[str, list[Any]]:
    """What a scheme does in BLOCKS blocks of three environments at once, each in its own numbers; they must agree."""
    params = functional.system(scenario, precision="float64")
    central, step = single.SystemEnv(scenario, precision="float64"), jax.jit(functional.step_env)
    own = parallel.parallel_env(scenario, precision="float64", shares=True)
    state = jax.jit(functional.reset_to)(jnp.uint32(SEED), params)[1]
    info, _ = central.reset(seed=SEED)[1], own.reset(seed=SEED)
    found = dict[str, list[Any]]()
    for _ in range(BLOCKS):
        devices, server, kept = player.act(info, params.unit)
        action = np.concatenate([devices.reshape(-1), server[: params.world.server.slots]])
        before, (_, state, *_, inside) = info, step(state, action, params)
        *_, info = central.step(action)
        told = {f"device_{k}": devices[:, k] for k in range(4)} | {"server_0": server}
        of_agents = own.step(told)[-1]["server_0"]
        for name, value in inside.items():
            np.testing.assert_allclose(value, info[name], rtol=1e-12, atol=1e-12)
        for name in (*PER_DEVICE, "backlog", "cost", "server_energy"):
            np.testing.assert_allclose(of_agents[name], info[name], rtol=1e-13)
        player.learn(kept, info)
        for name in BROADCAST_FIELDS:  # in PettingZoo's environment the devices hear what the server has said
            heard = of_agents["received_backlog" if name == "backlog" else name]
            np.testing.assert_allclose(heard, getattr(player.line, name)[0], rtol=1e-12, atol=1e-14)
        for name, value in (info | {name: before[name] for name in ("q", "gain")}).items():
            found.setdefault(name, []).append(value)
    return found


def check_that_environments_do_what_a_rollout_does(scheme: str, pair: ControllerPair, scenario: Scenario) -> None:
    """Functional, Gymnasium's with one agent, and PettingZoo's: the same actions, and numbers to 1e-12."""
    world, stream = world_of(scenario), stream_of(scheme)
    run = rollout(world, pair, stream, [SEED], BLOCKS, precision="float64", traces=True)
    assert run.traces is not None
    found = driven(Player.of(world, pair, stream, SEED), scenario)
    for name in PER_DEVICE:
        np.testing.assert_allclose(np.stack(found[name]), getattr(run.traces, name)[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.stack(found["device_cost"]), run.traces.cost[0], rtol=1e-12)
    for name in COMPONENTS:
        np.testing.assert_allclose(found[name], getattr(run.metrics, name)[0], rtol=1e-12, atol=1e-12)
    assert np.ptp(found["cost"]) > 0


@pytest.mark.parametrize("scheme", [pytest.param(name, marks=() if name in SUITE else SLOW) for name in SCHEMES])
def test_a_scheme_in_the_environments_does_what_it_does_in_a_rollout(
    scheme: str, float64: None, mixed: Scenario, pair_of: Callable[[str], ControllerPair]
):
    check_that_environments_do_what_a_rollout_does(scheme, pair_of(scheme), mixed)


@pytest.mark.parametrize("kind", ["gauss_markov", pytest.param("trace", marks=SLOW), pytest.param("own", marks=SLOW)])
def test_channels_and_traffic_with_a_memory_go_on_in_the_environments_as_in_a_rollout(
    kind: str, float64: None, tmp_path: Path
):
    """A trace is shorter than the run, and each device begins somewhere else in it."""
    rows = "".join(f"{0.5 * block},{1e6 * (1 + block % 7)}\n" for block in range(11))
    (tmp_path / "trace.csv").write_text(f"time_s,gain_per_w\n{rows}")
    trace = {"kind": "trace", "file": str(tmp_path / "trace.csv"), "loop": True, "start": "random"}
    changes = {"gauss_markov": MARKOV, "trace": {"radio.fading": trace}, "own": OWN}[kind]
    pair = ControllerPair(SCHEMES["priced"].device, SCHEMES["priced"].server)
    check_that_environments_do_what_a_rollout_does("priced", pair, load(MIXED, changes))


@SLOW
def test_one_device_that_plays_what_the_others_play_changes_nothing():
    """It is told what its frozen scheme would do: all is as in a rollout that continues without learning."""
    pair, world = ControllerPair(SCHEMES["priced"].device, SCHEMES["priced"].server), world_of(load(FOUR))
    trained = rollout(world, pair, "priced", [TRAINING_SEED], 10)
    run = frozen(world, trained, "priced", [SEED], 10, traces=True)
    assert run.traces is not None
    params = functional.device(**TRAINED, number=2)
    state, step = functional.reset_to(jnp.uint32(SEED), params)[1], jax.jit(functional.step_env)
    devices, key = broadcast_shared(params.world.devices, 4), controller_keys(jnp.uint32(SEED), params.stream)[2]
    others = params.pair.device.others
    for block in range(10):
        views = device_views(others, state.system, no_broadcast(4, jnp.dtype("float32")))
        action = others.act(params.device_state, devices, views, per_device(block_keys(key, block)[0], 4))
        _, state, reward, *_, info = step(state, given_device(devices, action)[:, 2], params)
        for name in ("started", "offload", "power"):
            np.testing.assert_allclose(info[name], getattr(run.traces, name)[0, block], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(info["cost"], run.metrics.cost()[0, block], rtol=1e-5)
        paid = run.traces.cost[0, block, 2] + info["payment"][2]
        np.testing.assert_allclose(reward, -paid, rtol=1e-5)
    assert np.any(run.traces.offload[0, :, 2] > 0)
    assert params.stream == stable_hash("priced")


# Functional, with the meaning of gymnax 1.0


def test_the_horizon_truncates_and_begins_a_new_episode():
    params = functional.system(FOUR, horizon=3)
    step, action = jax.jit(functional.step), jnp.zeros(functional.action_size(params))
    observation, state = functional.reset(jax.random.key(0), params)
    first, seed = observation, state.seed
    for block in (1, 2, 3):
        key = jax.random.key(block)
        observation, state, reward, terminated, truncated, info = step(key, state, action, params)
        assert (bool(terminated), bool(truncated)) == (False, block == 3)
        assert reward == -info["cost"] < 0
        assert (info["terminated"], info["truncated"]) == (terminated, truncated)
        last = info["final_observation"]
        assert np.array_equal(last, observation) == (block < 3)
    begun, fresh = functional.reset(key, params)
    assert (state.time, state.seed) == (0, fresh.seed)
    assert state.seed != seed
    np.testing.assert_allclose(observation, begun, rtol=1e-6)
    assert not np.allclose(observation, first)


@SLOW
def test_many_episodes_at_once_are_the_same_as_one_after_the_other():
    params = functional.parallel(FOUR)
    seeds = jnp.arange(3, dtype=jnp.uint32)
    action = {"devices": jnp.linspace(-1, 1, 8).reshape(4, 2), "server": jnp.zeros(6)}
    one = jax.jit(functional.step_env)
    many = jax.jit(jax.vmap(functional.step_env, in_axes=(0, None, None)))
    _, states = jax.vmap(functional.reset_to, in_axes=(0, None))(seeds, params)
    together = many(states, action, params)
    for i in range(3):
        alone = one(jax.tree.map(lambda leaf, i=i: leaf[i], states), action, params)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6), together, alone)


def test_sizes_are_those_of_what_is_observed():
    for params in (functional.system(FOUR), functional.parallel(FOUR)):
        observation, _ = functional.reset_to(jnp.uint32(0), params)
        assert jax.tree.map(lambda leaf: leaf.shape[-1], observation) == functional.observation_size(params)


def test_queues_that_overflow_stay_in_range():
    """Nobody starts a task for 200 blocks: about 400 wait at each device."""
    env = gymnasium.make("partway/System-v0", scenario=FOUR)
    env.reset(seed=0)
    for _ in range(200):
        observation, *_ = env.step(np.full(13, -1.0, np.float32))
        assert observation in env.observation_space
    assert 0.98 < observation[2:6].min() < observation[2:6].max() < 1.0


# Rewards


def test_rewards_are_minus_the_cost():
    """Of all; or each agent's own terms, which add up to it; or these and what a device pays for what it sends."""
    told = {f"device_{k}": np.array([0.5, 0.5]) for k in range(4)} | {"server_0": np.zeros(6)}
    found = dict[str, list[dict[str, float]]]()
    for reward in ("system", "own", "priced"):
        env = parallel.parallel_env(FOUR, reward=reward)
        env.reset(seed=1)
        blocks = [env.step(told) for _ in range(4)]
        found[reward], infos = [block[1] for block in blocks], [block[4] for block in blocks]
    for block in range(4):
        cost, payment = infos[block]["server_0"]["cost"], infos[block]["server_0"]["payment"]
        assert set(found["system"][block].values()) == {-cost}
        assert sum(found["own"][block].values()) == pytest.approx(-cost, rel=1e-5)
        paid = [found["own"][block][f"device_{k}"] - found["priced"][block][f"device_{k}"] for k in range(4)]
        np.testing.assert_allclose(paid, payment, rtol=1e-3, atol=1e-5)
    # 0.75 of a task at a price of one unit, w3 W + w4 400 J = 2, once the first price has arrived
    np.testing.assert_allclose(
        payment, 1.5 * np.array([info > 0 for info in infos[-1]["server_0"]["offload"]]), rtol=1e-5
    )


# The checkers


@pytest.fixture(scope="module")
def device_env() -> gymnasium.Env[Any, Any]:
    return gymnasium.make("partway/Device-v0", **TRAINED)


def test_gymnasiums_checker_accepts_one_device(device_env: gymnasium.Env[Any, Any]):
    check_env(device_env.unwrapped)


def test_gymnasiums_checker_accepts_one_agent_for_all():
    check_env(gymnasium.make("partway/System-v0", scenario=FOUR).unwrapped)


class Zoo:
    """What PettingZoo's tests take as a module."""

    @staticmethod
    def parallel_env(**how: Any) -> parallel.OffloadingEnv:
        return parallel.parallel_env(FOUR, **how)

    @staticmethod
    def env(**how: Any) -> Any:
        return parallel.env(FOUR, **how)


def test_pettingzoos_tests_accept_all_agents():
    parallel_api_test(Zoo.parallel_env(), num_cycles=20)
    parallel_seed_test(lambda: Zoo.parallel_env(max_cycles=10), num_cycles=10)
    max_cycles_test(Zoo)
    seed_test(lambda: Zoo.env(max_cycles=10), num_cycles=10)


@SLOW
def test_pettingzoos_test_of_agents_in_turn_accepts_devices():
    """It warns where agents differ in what they observe, so the server plays a scheme."""
    api_test(Zoo.env(server="priced", training=10), num_cycles=20)


def test_the_state_of_all_is_what_one_agent_for_all_observes():
    one, all_of_them = single.SystemEnv(FOUR), Zoo.parallel_env()
    observation, _ = one.reset(seed=3)
    all_of_them.reset(seed=3)
    np.testing.assert_allclose(all_of_them.state(), observation, rtol=1e-6)


# Many episodes at once


def test_vectorised_episodes_are_those_of_single_ones_and_begin_again():
    """In Gymnasium's own way: the step after the last one ignores the action."""
    envs = gymnasium.make_vec("partway/System-v0", num_envs=2, scenario=FOUR, max_episode_steps=2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    observations, infos = envs.reset(seed=3)
    actions = np.linspace(-1, 1, 26).reshape(2, 13)
    one = single.SystemEnv(FOUR, horizon=2)
    singles = [(one.reset(seed=3 + i)[0], one.step(actions[i]), one.step(actions[i])) for i in range(2)]
    for i in range(2):
        np.testing.assert_allclose(observations[i], singles[i][0], rtol=1e-6)
    for block in (1, 2):
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        assert observations in envs.observation_space
        assert (truncated.all(), terminated.any()) == (block == 2, False)
        for i in range(2):
            seen, reward, _, over, info = singles[i][block]
            np.testing.assert_allclose(observations[i], seen, rtol=1e-5, atol=1e-6)
            assert (rewards[i], truncated[i]) == (pytest.approx(reward, rel=1e-5), over)
            np.testing.assert_allclose(infos["q"][i], info["q"])
    assert infos["_q"].all()
    _, rewards, _, truncated, infos = envs.step(actions)
    assert (rewards.any(), truncated.any(), infos["block"].tolist()) == (False, False, [0, 0])


def test_the_last_step_can_begin_the_next_episode():
    envs = vector.SystemVectorEnv(FOUR, num_envs=2, horizon=1, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=[3, 8])
    observations, rewards, _, truncated, infos = envs.step(np.zeros((2, 13)))
    assert truncated.all()
    assert (rewards < 0).all()
    assert infos["final_info"]["block"].tolist() == [1, 1]
    np.testing.assert_allclose(rewards, -infos["final_info"]["cost"], rtol=1e-6)
    assert infos["block"].tolist() == [0, 0]
    assert infos["final_obs"][0].shape == observations[0].shape
    assert not np.array_equal(infos["final_obs"][0], observations[0])


def test_each_episode_can_have_another_device_that_acts():
    """With the same seed: what device 2 observes, is paid and does, in its episode as in one of its own."""
    envs = vector.DeviceVectorEnv(FOUR, num_envs=3, training=10, number=(1, 2, 2))
    observations, _ = envs.reset(seed=[SEED, SEED, SEED + 1])
    actions = np.array([[1.0, -1.0], [0.5, 0.5], [0.5, 0.5]])
    _, rewards, *_, infos = envs.step(actions)
    one = single.DeviceEnv(FOUR, training=10, number=2)
    np.testing.assert_allclose(observations[1], one.reset(seed=SEED)[0], rtol=1e-6)
    _, reward, *_, info = one.step(actions[1])
    assert rewards[1] == pytest.approx(reward, rel=1e-5)
    np.testing.assert_allclose(infos["started"][1], info["started"])
    assert not np.array_equal(observations[0], observations[1])
    assert not np.array_equal(observations[1], observations[2])


def test_what_is_returned_can_be_kept_and_changed():
    envs = vector.SystemVectorEnv(FOUR, num_envs=2)
    first, _ = envs.reset(seed=0)
    first[:] = 7.0
    second, *_ = envs.step(np.zeros((2, 13)))
    assert second.max() <= 1.0
    assert second.flags.writeable


# What cannot be used is refused in one line


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: functional.system(FOUR, overrides=["broadcast_delay_blocks=0"]),
            "broadcast_delay_blocks of 1 or more",
        ),
        (lambda: functional.system(FOUR, horizon=0), "horizon must be a whole number from 1"),
        (
            lambda: functional.system(FOUR, precision="float16"),
            "precision must be one of float32, float64",
        ),
        (lambda: functional.parallel(FOUR, reward="prised"), "no reward 'prised'; did you mean 'priced'"),
        (lambda: functional.device(FOUR, number=4), "number must be a whole number from 0 to 3, got 4"),
        (
            lambda: vector.DeviceVectorEnv(FOUR, num_envs=3, training=0, number=[0, 1]),
            r"number must be a whole number or a sequence of 3",
        ),
        (lambda: vector.DeviceVectorEnv(FOUR, num_envs=2, training=0, number=[0, 4]), "number from 0 to 3, got 4"),
        (
            lambda: vector.DeviceVectorEnv(FOUR, num_envs=2, training=0, number=cast(Any, [[0], [1, 2]])),
            "number must be a whole number from 0 to 3, got an array",
        ),
        (lambda: functional.device(FOUR, others="constant"), "'constant' is prepared before a run"),
        (lambda: functional.device(FOUR, others="prized"), "no scheme 'prized'; did you mean 'priced'"),
        (lambda: vector.SystemVectorEnv(FOUR, num_envs=2, autoreset_mode="Disabled"), "must be NextStep or SameStep"),
        (
            lambda: vector.SystemVectorEnv(FOUR, num_envs=2).reset(seed=[1]),
            r"seed must be a whole number or a sequence of 2, got \[1\]",
        ),
        (lambda: single.SystemEnv(FOUR).step(np.zeros(13)), "call reset before step"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Callable[[], Any], message: str):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(12), r"the shape \(13,\), got \(12,\)"),
        ("up", r"numbers in the shape \(13,\), got 'up'"),
        ([[1.0], [1.0, 2.0]], r"numbers in the shape \(13,\), got an array"),
        (np.full(13, np.nan), r"not a number \(NaN\)"),
    ],
)
def test_an_action_that_is_none_is_refused(action: Any, message: str):
    env = single.SystemEnv(FOUR)
    env.reset()
    with pytest.raises(InputError, match=message):
        env.step(action)


def test_an_agent_that_does_not_act_is_named():
    env = Zoo.parallel_env()
    env.reset()
    with pytest.raises(InputError, match="missing: device_1"):
        env.step({agent: np.zeros(6 if agent == "server_0" else 2) for agent in env.agents if agent != "device_1"})


@SLOW
def test_without_gymnasium_the_functions_work_and_the_classes_say_what_is_missing():
    program = """
import sys
sys.modules["gymnasium"] = None
from partway.env import functional
from partway.errors import InputError
assert functional.observation_size(functional.system({"devices": 1})) == 6
try:
    import partway.env.vector
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'partway[env]'" in done.stdout


def test_worlds_of_float64_are_float64():
    params = functional.system(FOUR, precision="float64")
    floats = [leaf.dtype for leaf in jax.tree.leaves(params.world) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floats) == {np.dtype("float64")}
