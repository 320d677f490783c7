"""A fleet played part by part is the fleet played at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway import fleet, runs
from partway.controllers.base import DeviceController
from partway.controllers.parametric import Algorithm1
from partway.controllers.postdecision import Priced
from partway.draws import draws
from partway.fleet import mesh_for
from partway.runs import Run, begin, evaluate, run
from partway.scenario import load
from partway.schemes import pair_for
from partway.simulate import play_block
from partway.world import build, place, precise

DEVICES = 11


@pytest.mark.parametrize(("name", "most"), [("printed", 5), ("exact", 5), ("priced", 4), ("random", 10), ("ans", 5)])
def test_results_do_not_depend_on_parts(name: str, most: int, monkeypatch: pytest.MonkeyPatch):
    """11 = 4 + 4 + 3, 5 + 5 + 1, 10 + 1: the last part overlaps. Not bit for bit: XLA rounds by the shape of a loop."""
    whole = _played(name)
    monkeypatch.setattr(fleet, "PART", most)
    for one, other in zip(jax.tree.leaves(_played(name)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "seeds"), [("printed", [3]), ("priced", [1, 2, 3])])
def test_results_do_not_depend_on_cores(name: str, seeds: list[int], monkeypatch: pytest.MonkeyPatch):
    """Two JAX devices play six devices each, in parts of five, or one plays all twelve."""
    scenario = load("camera", {"devices": 12})
    world, pair = build(scenario, place(scenario)), pair_for(name, scenario, None)
    alone = run(world, pair, name, seeds, 20, precision="float64", traces=True)
    monkeypatch.setattr(fleet, "PART", 5)
    monkeypatch.setattr(runs, "cores", lambda: 2)  # three seeds would have three threads on three cores
    shared = run(world, pair, name, seeds, 20, precision="float64", traces=True)
    assert len(shared.loop.state.q.sharding.device_set) == 2
    for one, other in zip(jax.tree.leaves(_kept(shared)), jax.tree.leaves(_kept(alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    frozen = evaluate(world, shared, name, seeds, 20)  # played without learning, from where the two have left it
    assert np.isfinite(frozen.sums.cost()).all()


def test_as_many_cores_as_have_equal_shares():
    """Two JAX devices here (`conftest`): both for a large even fleet, one for an odd one or one that is small."""
    assert [mesh and mesh.size for mesh in map(mesh_for, (2048, 2047, 2049, 2050, 1000))] == [2, None, None, 2, None]


@pytest.mark.parametrize(
    ("seeds", "devices", "together"),
    [(128, 4, 64), (128, 20, 64), (128, 50, 16), (7, 20, 7), (62, 50, 31), (3, 600, 1), (32, 100_000, 1)],
)
def test_seeds_that_a_call_plays(seeds: int, devices: int, together: int, monkeypatch: pytest.MonkeyPatch):
    """A core's share, cut where it is too large for the cache, not into crumbs; large fleets each alone."""
    monkeypatch.setattr(runs, "cores", lambda: 2)
    assert runs._seeds_together(seeds, devices) == together


@pytest.mark.parametrize("base", [Algorithm1, Priced])
def test_a_function_of_ones_own_is_mapped_over_the_fleet(base: type[DeviceController]):
    """It may be written for one device: a mixin's and a helper's too. New numbers alone change nothing."""

    class Own(base):
        def stopped(self, memory: Any) -> jax.Array:
            return jnp.all(memory.block > 0)

    class Mixin:
        def act(self, memory: Any, device: Any, view: Any, key: Any) -> Any: ...

    assert base.takes_fleets
    assert not Own.takes_fleets
    assert not type("Mixed", (Mixin, base), {}).takes_fleets
    assert type("Same", (base,), {"patience": 3}).takes_fleets


def _played(name: str, blocks: int = 6) -> Any:
    """What a few blocks of the scenario `camera` leave, block by block compiled alone, in float64."""
    scenario = load("camera", {"devices": DEVICES})
    pair = pair_for(name, scenario, None)
    with jax.enable_x64(True):
        world = precise(build(scenario, place(scenario)), "float64")
        agreed, loops = begin(world, pair, name, [3], "float64")
        pair, loop = (jax.tree.map(lambda leaf: leaf[0], of_seeds) for of_seeds in (agreed, loops))
        block: Callable[..., Any] = jax.jit(
            lambda loop, t: play_block(world, pair, loop, draws(world, 3, t), KEY, t, True)
        )
        kept = []
        for t in range(blocks):
            loop, played = block(loop, jnp.uint32(t))
            kept.append(jax.tree.map(np.asarray, (loop.state, loop.device_memory, played.costs)))
    return kept


def _kept(played: Run) -> Any:
    return played.sums, played.traces, played.loop.state, played.loop.device_memory, played.loop.server_memory


KEY = jax.random.key(7)
