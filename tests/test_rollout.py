"""Rollouts: results do not depend on how blocks are divided into tiles and calls, nor on what is computed together."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import MIXED, Play, scheduled, world_of

from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Random, Steady
from partway.rng import controller_keys, controller_keys_on_host, stable_hash
from partway.scenario.loading import load
from partway.schemes import SCHEMES, stream_of
from partway.simulation.rollout import ACTS, Run, init_runs, rollout
from partway.simulation.schedule import schedule
from partway.system.world import World

TILES = (1, 7, 42)
BLOCKS = 42
"""One compiled call, which all TILES divide."""
RANDOM = ControllerPair(Random(), Steady())


def pair_of(scheme: str) -> ControllerPair:
    return ControllerPair(SCHEMES[scheme].device, SCHEMES[scheme].server)


def with_expensive_server(world: World) -> World:
    """The same with a server whose energy costs nine times as much."""
    return replace(world, server=replace(world.server, energy_weight=world.server.energy_weight * 9))


def left_by(run: Run) -> list[Any]:
    """All that a run leaves."""
    return jax.tree.leaves((run.metrics, run.traces, run.carry))


def assert_same(one: list[Any], other: list[Any]) -> None:
    """But for rounding in float64."""
    assert len(one) > 30
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("scheme", ["priced", pytest.param("parametric-printed", marks=pytest.mark.slow)])
def test_results_do_not_depend_on_the_blocks_of_a_tile(scheme: str, mixed_world: World):
    runs = list[Run]()
    for tile in TILES:
        with scheduled(cores=1, BLOCKS_PER_TILE=tile):
            assert schedule(2, 4, BLOCKS).calls == [(BLOCKS, tile)]
            pair, stream = pair_of(scheme), stream_of(scheme)
            runs.append(rollout(mixed_world, pair, stream, (0, 1), BLOCKS, precision="float64"))
    assert runs[0].metrics.arrived.any()
    for other in runs[1:]:
        assert np.array_equal(other.metrics.arrived, runs[0].metrics.arrived)
        assert_same(left_by(other), left_by(runs[0]))


@pytest.mark.parametrize(
    ("device", "server"),
    [("qlearning", "priced"), pytest.param("parametric", "parametric-printed", marks=pytest.mark.slow)],
)
def test_results_do_not_depend_on_the_number_of_cores(device: str, server: str, play: Play, mixed_world: World):
    """Two calls of two seeds together on one core, or of one seed on each of two threads."""
    pair = ControllerPair(SCHEMES[device].device, SCHEMES[server].server)
    one, two = (play(pair, mixed_world, cores=cores, precision="float64") for cores in (1, 2))
    assert_same(left_by(one), left_by(two))


def test_results_do_not_depend_on_calls_that_are_not_equally_long(mixed_world: World):
    """23 blocks in one call; in calls of 10, 10 and 3; continued from block 3."""
    how, ticks = {"precision": "float64", "traces": True}, list[int]()
    with scheduled(cores=1):
        whole = rollout(mixed_world, RANDOM, "own", (0, 1), 23, on_progress=ticks.append, **how)
    with scheduled(cores=1, BLOCKS_PER_CALL=10, FEW=0):
        in_calls = rollout(mixed_world, RANDOM, "own", (0, 1), 23, on_progress=ticks.append, **how)
        pair, carry = init_runs(mixed_world, RANDOM, "own", (0, 1), "float64")
        early = rollout(mixed_world, pair, "own", (0, 1), 3, carry=carry, **how)
        late = rollout(mixed_world, early.pair, "own", (0, 1), 20, carry=early.carry, first_block=3, **how)
    assert ticks == [23, 10, 10, 3]
    assert_same(left_by(in_calls), left_by(whole))
    np.testing.assert_allclose(late.metrics.cost(), whole.metrics.cost()[:, 3:], rtol=1e-12)
    assert_same(left_by(late)[-9:], left_by(whole)[-9:])


@pytest.mark.parametrize("scheme", ["parametric"])
def test_runs_that_are_computed_together_are_what_each_is_alone(scheme: str, mixed_world: World):
    """Two worlds, two pairs and two seeds; alone all devices at once, together in chunks that run 3 blocks ahead."""
    worlds = [mixed_world, with_expensive_server(mixed_world)]
    pairs = [replace(pair_of(scheme), device=replace(pair_of(scheme).device, step=step)) for step in (0.01, 0.1)]
    how, stream = {"precision": "float64", "traces": True}, stream_of(scheme)
    with scheduled(cores=1):
        alone = [rollout(worlds[i], pairs[i], stream, (0, 1), 12, **how) for i in (0, 1)]
    with scheduled(cores=1, chunk=2, BLOCKS_PER_TILE=3):
        together = rollout(worlds * 2, pairs * 2, stream, (0, 0, 1, 1), 12, **how)
    assert not np.array_equal(alone[0].carry.device_state.theta, alone[1].carry.device_state.theta)
    for i in (0, 1):
        assert_same([leaf[i::2] for leaf in left_by(together)], left_by(alone[i]))


def test_runs_that_are_computed_together_agree_in_shapes_and_static_fields(mixed_world: World):
    smaller, later = ({**MIXED, "broadcast_delay_blocks": 3}, {"devices": 4})
    with pytest.raises(ValueError, match="must agree in static fields"):
        rollout([mixed_world, world_of(load(smaller))], RANDOM, "own", (0, 1), 10)
    with pytest.raises(ValueError, match="same shape"):
        rollout([world_of(load(later)), world_of(load({"devices": 3}))], RANDOM, "own", (0, 1), 10)
    with pytest.raises(ValueError, match="takes the pair of the rollout before it"):
        pair, carry = init_runs(mixed_world, RANDOM, "own", (0, 1), "float32")
        rollout(mixed_world, [pair, pair], "own", (0, 1), 10, carry=carry)


def test_a_run_has_the_keys_of_its_seeds():
    seeds = np.array([0, 3, 2**32 - 1], np.uint32)
    theirs = [controller_keys(jnp.uint32(seed), jnp.uint32(stable_hash("priced"))) for seed in seeds]
    expected = np.stack([jax.random.key_data(keys) for keys in theirs])
    np.testing.assert_array_equal(jax.random.key_data(controller_keys_on_host(seeds, "priced")), expected)
    actions = controller_keys_on_host(seeds, "priced", ACTS)
    np.testing.assert_array_equal(jax.random.key_data(actions), expected[:, 2])
