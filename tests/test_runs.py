"""Runs: how many blocks are drawn at a time, or played in a call, changes no result."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway.controllers.baselines import Random, Steady
from partway.measurement.metrics import BlockMetrics
from partway.rng import controller_keys, stable_hash
from partway.schemes import SCHEMES
from partway.simulation import fleet
from partway.simulation import rollout as runs
from partway.simulation import schedule as layout
from partway.simulation import step as simulate
from partway.simulation.rollout import begin, go_on, run, run_worlds
from partway.simulation.step import ControllerPair
from partway.system.world import World

TILES = (1, 7, 50)
BLOCKS = 350
"""One compiled call, which all TILES divide."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks each compiled call draws at a time, meanwhile."""
    tiles, real = list[int](), runs._play_seeds

    def watched(*arguments: Any) -> Any:
        tiles.append(arguments[-1].tile)
        return real(*arguments)

    monkeypatch.setattr(runs, "_play_seeds", watched)
    return tiles


@pytest.mark.parametrize("scheme", ["printed", "priced"])
def test_results_do_not_depend_on_how_many_blocks_are_drawn_at_a_time(
    scheme: str, mixed_world: World, drawn: list[int], monkeypatch: pytest.MonkeyPatch
):
    pair, played = ControllerPair(SCHEMES[scheme].device, SCHEMES[scheme].server), list[BlockMetrics]()
    for most in TILES:
        monkeypatch.setattr(layout, "BLOCKS_PER_TILE", most)
        drawn.clear()
        played.append(run(mixed_world, pair, scheme, (0, 1), BLOCKS, precision="float64").sums)
        assert set(drawn) == {most}
    first = vars(played[0])
    assert first["arrived"].any()
    for other in map(vars, played[1:]):
        assert (other["arrived"] == first["arrived"]).all()
        for name, values in first.items():
            np.testing.assert_allclose(other[name], values, rtol=1e-12, atol=0, err_msg=name)


def dear(world: World) -> World:
    """The same with a server whose energy costs nine times as much."""
    return replace(world, server=replace(world.server, energy_weight=world.server.energy_weight * 9))


def test_results_do_not_depend_on_calls_that_are_not_equally_long(mixed_world: World, monkeypatch: pytest.MonkeyPatch):
    """23 blocks in a call, or in calls of 10, 10 and 3: of a world, of two at once, and gone on with from block 5."""
    pair, seeds, how = ControllerPair(Random(), Steady()), (0, 1), {"precision": "float64"}
    worlds, ticks = [mixed_world, dear(mixed_world)], list[int]()

    def played() -> tuple[Any, ...]:
        whole = run(mixed_world, pair, "own", seeds, 23, on_progress=ticks.append, **how)
        agreed, loop = begin(mixed_world, pair, "own", seeds, **how)
        early = go_on(mixed_world, agreed, loop, "own", seeds, 5, 0, **how)
        late = go_on(mixed_world, agreed, early.loop, "own", seeds, 23, 5, **how)
        return whole.sums, whole.loop.state, late.sums, run_worlds(worlds, [pair, pair], "own", seeds, 23, **how)

    monkeypatch.setattr(layout, "cores", lambda: 1)
    in_one = played()
    monkeypatch.setattr(layout, "BLOCKS_PER_CALL", 10)
    monkeypatch.setattr(layout, "MOST_PLAYED", 100)
    monkeypatch.setattr(layout, "FEW", 0)
    in_three = played()
    assert ticks == [23, 10, 10, 3]
    np.testing.assert_allclose(in_one[2].cost()[:, :18], in_one[0].cost()[:, 5:], rtol=1e-12)
    for one, other in zip(jax.tree.leaves(in_three), jax.tree.leaves(in_one), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_worlds_played_at_once_do_not_depend_on_parts_and_blocks_played_ahead(
    mixed_world: World, monkeypatch: pytest.MonkeyPatch
):
    """Two worlds of four devices and two seeds, in parts of 2 and tiles of 3 blocks, are what each is alone."""
    pair, how = ControllerPair(SCHEMES["printed"].device, SCHEMES["printed"].server), {"precision": "float64"}
    worlds = [mixed_world, dear(mixed_world)]
    alone = [run(world, pair, "printed", (0, 1), 12, **how).sums for world in worlds]
    lengths, play_tile = list[int](), simulate.play_tile
    monkeypatch.setattr(simulate, "play_tile", lambda *given: lengths.append(len(given[-1].keys)) or play_tile(*given))
    monkeypatch.setattr(fleet, "PART", 2)
    monkeypatch.setattr(layout, "BLOCKS_PER_TILE", 3)
    together = run_worlds(worlds, [pair, pair], "printed", (0, 1), 12, **how)
    assert set(lengths) == {3}
    for one, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_a_run_has_the_keys_of_its_seeds():
    seeds = [0, 3, 2**32 - 1]
    theirs = [controller_keys(jnp.uint32(seed), jnp.uint32(stable_hash("priced"))) for seed in seeds]
    expected = np.stack([jax.random.key_data(keys) for keys in theirs])
    np.testing.assert_array_equal(jax.random.key_data(runs._keys("priced", seeds)), expected)
    np.testing.assert_array_equal(jax.random.key_data(runs._keys("priced", seeds, runs.ACTS)), expected[:, 2])
