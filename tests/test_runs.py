"""Runs: how many blocks are drawn at a time changes no result."""

from typing import Any

import numpy as np
import pytest
from conftest import Play

from partway import runs
from partway.runs import Run
from partway.world import World

TILES = (1, 7, 50)
BLOCKS = 350
"""In one call; all TILES divide it."""


@pytest.fixture
def drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tiles of the calls that are made meanwhile."""
    tiles, real = list[int](), runs._play_seeds

    def watched(*arguments: Any) -> Any:
        tiles.append(arguments[-1].tile)
        return real(*arguments)

    monkeypatch.setattr(runs, "_play_seeds", watched)
    return tiles


def numbers(run: Run) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in vars(run.sums).items()}


@pytest.mark.parametrize("scheme", ["printed", "priced"])
def test_results_do_not_depend_on_how_many_blocks_are_drawn_at_a_time(
    scheme: str, play: Play, mixed_world: World, monkeypatch: pytest.MonkeyPatch, drawn_at_a_time: list[int]
):
    played = list[Run]()
    for tile in TILES:
        monkeypatch.setattr(runs, "BLOCKS_PER_TILE", tile)
        played.append(play(scheme, mixed_world, BLOCKS, call=BLOCKS, precision="float64"))
    assert set(drawn_at_a_time) == {*TILES}
    first, *others = map(numbers, played)
    assert first["arrived"].any()
    for other in others:
        assert (other["arrived"] == first["arrived"]).all()
        for name, values in first.items():
            np.testing.assert_allclose(other[name], values, rtol=1e-12, atol=0, err_msg=name)
