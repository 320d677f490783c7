"""Rollouts: results do not depend on how blocks are divided into tiles and calls, nor on what is computed together."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import MIXED, scheduled, world_of

from partway.controllers.base import ControllerPair, DeviceController, DeviceView, uniform
from partway.controllers.baselines import Steady, start_most
from partway.rng import controller_keys, controller_keys_on_host, stable_hash
from partway.scenario.loading import load
from partway.schemes import SCHEMES
from partway.simulation.rollout import ACTS, Run, init_runs, rollout
from partway.simulation.schedule import schedule
from partway.system.types import Device, DeviceAction
from partway.system.world import World

TILES = (1, 2, 46)
BLOCKS = 46
"""One compiled call, which all TILES divide; in calls of at most 10 blocks the last one is shorter."""
SLOW = pytest.mark.slow


class Probe(DeviceController):
    """Sends a random share below a level that it learns from its cost: a small program with all that a run has."""

    step: float = 0.1

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> jax.Array:
        return uniform(key, (), view.q.dtype)

    def act(self, state: jax.Array, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return start_most(device, view, state * uniform(key, (), view.q.dtype))

    def learn(
        self, state: jax.Array, device: Any, view: Any, action: Any, cost: jax.Array, next_view: Any
    ) -> jax.Array:
        return jnp.clip(state + self.step * (jnp.exp(-cost) - 0.5), 0.0, 1.0)


PROBE = ControllerPair(Probe(), Steady())


def pair_of(device: str, server: str) -> ControllerPair:
    return ControllerPair(SCHEMES[device].device, SCHEMES[server].server)


def with_expensive_server(world: World) -> World:
    """The same with a server whose energy costs nine times as much."""
    return replace(world, server=replace(world.server, energy_weight=world.server.energy_weight * 9))


def left_by(run: Run) -> list[Any]:
    """All that a run leaves."""
    return jax.tree.leaves((run.metrics, run.traces, run.carry))


def assert_same(one: list[Any], other: list[Any]) -> None:
    """But for rounding in float64."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    "pair",
    [PROBE, pytest.param(pair_of("priced", "priced"), marks=SLOW), pytest.param(pair_of("ans", "even"), marks=SLOW)],
    ids=["probe", "priced", "ans"],
)
def test_results_do_not_depend_on_the_blocks_of_a_tile(pair: ControllerPair, mixed_world: World):
    runs = list[Run]()
    for tile in TILES:
        with scheduled(BLOCKS_PER_TILE=tile):
            assert schedule(2, 4, BLOCKS).calls == [(BLOCKS, tile)]
            runs.append(rollout(mixed_world, pair, "own", (0, 1), BLOCKS, precision="float64"))
    assert runs[0].metrics.arrived.any()
    for other in runs[1:]:
        assert np.array_equal(other.metrics.arrived, runs[0].metrics.arrived)
        assert_same(left_by(other), left_by(runs[0]))


@pytest.mark.parametrize(
    "pair",
    [
        PROBE,
        pytest.param(pair_of("qlearning", "priced"), marks=SLOW),
        pytest.param(pair_of("parametric", "parametric-printed"), marks=SLOW),
    ],
    ids=["probe", "qlearning", "parametric"],
)
def test_results_do_not_depend_on_the_number_of_cores(pair: ControllerPair, mixed_world: World):
    """Two seeds together on one core, or one seed on each of two threads."""
    found = list[Run]()
    for cores in (1, 2):
        with scheduled(cores):
            found.append(rollout(mixed_world, pair, "own", (0, 1), BLOCKS, precision="float64", traces=True))
    assert len(left_by(found[0])) > 30
    assert_same(left_by(found[0]), left_by(found[1]))


def test_results_do_not_depend_on_calls_that_are_not_equally_long(mixed_world: World):
    """46 blocks in one call; in calls of 10, 10, 10, 10 and 6; continued from block 6."""
    how: dict[str, Any] = {"precision": "float64", "traces": True}
    ticks = list[int]()
    with scheduled():
        whole = rollout(mixed_world, PROBE, "own", (0, 1), BLOCKS, on_progress=ticks.append, **how)
    with scheduled(BLOCKS_PER_CALL=10, FEW=0):
        in_calls = rollout(mixed_world, PROBE, "own", (0, 1), BLOCKS, on_progress=ticks.append, **how)
        pair, carry = init_runs(mixed_world, PROBE, "own", (0, 1), "float64")
        early = rollout(mixed_world, pair, "own", (0, 1), 6, carry=carry, **how)
        late = rollout(mixed_world, early.pair, "own", (0, 1), 40, carry=early.carry, first_block=6, **how)
    assert ticks == [46, 10, 10, 10, 10, 6]
    assert_same(left_by(in_calls), left_by(whole))
    np.testing.assert_allclose(late.metrics.cost(), whole.metrics.cost()[:, 6:], rtol=1e-12)
    assert_same(jax.tree.leaves(late.carry), jax.tree.leaves(whole.carry))


def test_runs_that_are_computed_together_are_what_each_is_alone(mixed_world: World):
    """Two worlds, two pairs and two seeds; alone all devices at once, together in chunks that run 2 blocks ahead."""
    worlds = [mixed_world, with_expensive_server(mixed_world)]
    pairs = [ControllerPair(Probe(step=step), Steady()) for step in (0.01, 0.1)]
    how: dict[str, Any] = {"precision": "float64", "traces": True}
    with scheduled():
        alone = [rollout(worlds[i], pairs[i], "own", (0, 1), BLOCKS, **how) for i in (0, 1)]
    with scheduled(cores=1, chunk=2, BLOCKS_PER_TILE=2):
        together = rollout(worlds * 2, pairs * 2, "own", (0, 0, 1, 1), BLOCKS, **how)
    assert not np.array_equal(alone[0].carry.device_state, alone[1].carry.device_state)
    for i in (0, 1):
        assert_same([leaf[i::2] for leaf in left_by(together)], left_by(alone[i]))


def test_runs_that_are_computed_together_agree_in_shapes_and_static_fields(mixed_world: World):
    delayed = world_of(load(MIXED, {"broadcast_delay_blocks": 3}))
    with pytest.raises(ValueError, match="must agree in static fields"):
        rollout([mixed_world, delayed], PROBE, "own", (0, 1), 10)
    with pytest.raises(ValueError, match="same shape"):
        rollout([world_of(load({"devices": count})) for count in (4, 3)], PROBE, "own", (0, 1), 10)


def test_a_rollout_that_continues_takes_the_pair_that_was_set_up(mixed_world: World):
    pair, carry = init_runs(mixed_world, PROBE, "own", (0, 1), "float64")
    with pytest.raises(ValueError, match="takes the pair of the rollout before it"):
        rollout(mixed_world, [pair, pair], "own", (0, 1), 10, carry=carry, precision="float64")


def test_a_run_has_the_keys_of_its_seeds():
    seeds = np.array([0, 3, 2**32 - 1], np.uint32)
    theirs = [controller_keys(jnp.uint32(seed), jnp.uint32(stable_hash("priced"))) for seed in seeds]
    expected = np.stack([jax.random.key_data(keys) for keys in theirs])
    np.testing.assert_array_equal(jax.random.key_data(controller_keys_on_host(seeds, "priced")), expected)
    actions = controller_keys_on_host(seeds, "priced", ACTS)
    np.testing.assert_array_equal(jax.random.key_data(actions), expected[:, 2])
