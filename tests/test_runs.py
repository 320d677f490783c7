"""Runs: how many blocks are drawn at a time changes no result."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway import layout, runs
from partway.runs import run
from partway.schemes import SCHEMES
from partway.simulate import Pair, Sums, controller_keys, stable_hash
from partway.world import World

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
    pair, played = Pair(SCHEMES[scheme].device, SCHEMES[scheme].server), list[Sums]()
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


def test_a_run_has_the_keys_of_its_seeds():
    seeds = [0, 3, 2**32 - 1]
    theirs = [controller_keys(jnp.uint32(seed), jnp.uint32(stable_hash("priced"))) for seed in seeds]
    expected = np.stack([jax.random.key_data(keys) for keys in theirs])
    np.testing.assert_array_equal(jax.random.key_data(runs._keys("priced", seeds)), expected)
    np.testing.assert_array_equal(jax.random.key_data(runs._keys("priced", seeds, runs.ACTS)), expected[:, 2])
