"""A fleet played part by part is the fleet played at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway.controllers.base import DeviceController
from partway.controllers.parametric import Algorithm1
from partway.controllers.postdecision import Priced
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.schemes import pair_for
from partway.simulation import fleet
from partway.simulation import rollout as runs
from partway.simulation import schedule as layout
from partway.simulation import step as simulate
from partway.simulation.fleet import broadcast_shared, mesh_for, plays_ahead, squeeze_shared
from partway.simulation.rollout import Run, begin, evaluate, run
from partway.simulation.step import play_block
from partway.system.exogenous import sample
from partway.system.placement import sample_placement
from partway.system.world import build

DEVICES = 11


@pytest.mark.parametrize(
    ("name", "max_tasks_per_block"), [("printed", 5), ("exact", 5), ("priced", 4), ("random", 10), ("ans", 5)]
)
def test_results_do_not_depend_on_parts(name: str, most: int, monkeypatch: pytest.MonkeyPatch):
    """11 = 4 + 4 + 3, 5 + 5 + 1, 10 + 1: the last part overlaps. Not bit for bit: XLA rounds by the shape of a loop."""
    whole = _played(name)
    monkeypatch.setattr(fleet, "PART", most)
    for one, other in zip(jax.tree.leaves(_played(name)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "seeds", "part", "meshes"),
    [("printed", [3], 2, {4}), ("priced", [1, 2, 3], 2, {4}), ("exact", [1, 2, 3], 1024, set[int]())],
)
def test_results_do_not_depend_on_cores(
    name: str, seeds: list[int], part: int, meshes: set[int], monkeypatch: pytest.MonkeyPatch
):
    """Of twelve devices four JAX devices play three each, in parts of two, seed after seed; or two threads a seed."""
    scenario = load("camera", {"devices": 12})
    world, pair = build(scenario, sample_placement(scenario)), pair_for(name, scenario, None)
    monkeypatch.setattr(layout, "cores", lambda: 1)
    alone = run(world, pair, name, seeds, 20, precision="float64", traces=True)
    frozen = evaluate(world, alone, name, seeds, 20)
    monkeypatch.setattr(layout, "cores", lambda: 2)
    monkeypatch.setattr(layout, "LANES", 12)
    monkeypatch.setattr(fleet, "PART", part)
    used = set[int]()
    monkeypatch.setattr(runs, "move", lambda mesh, *offload: used.add(mesh.size) or fleet.reshard(mesh, *offload))
    shared = run(world, pair, name, seeds, 20, precision="float64", traces=True)
    assert used == meshes
    for one, other in zip(jax.tree.leaves(_kept(shared)), jax.tree.leaves(_kept(alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(evaluate(world, shared, name, seeds, 20).sums.cost(), frozen.sums.cost(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "seeds", "preset", "queue"),
    [
        ("printed", [3], "camera", "conserving"),
        ("exact", [1, 2, 3], "paper", "as_printed"),
        ("qlearning", [3], "camera", "conserving"),
        ("random", [1, 2], "camera", "conserving"),
    ],
)
def test_results_do_not_depend_on_blocks_played_ahead(
    name: str, seeds: list[int], preset: str, queue: str, monkeypatch: pytest.MonkeyPatch
):
    """Eleven devices that hear nothing, of four classes in `camera`, play tiles of three blocks in parts of 4 + 4 + 3,
    or each block all together; one seed, or some in one call. The functions of `random` are mapped over the devices."""
    scenario, lengths = load(preset, {"devices": DEVICES, "queue": queue}), list[int]()
    monkeypatch.setattr(layout, "cores", lambda: 1)
    world, pair = build(scenario, sample_placement(scenario)), pair_for(name, scenario, None)
    play_tile = simulate.play_tile

    def watched(controller: Any, learning: bool, memory: Any, fleet: Any) -> Any:
        lengths.append(len(fleet.keys))
        return play_tile(controller, learning, memory, fleet)

    def played() -> Any:
        runs._play_seeds.clear_cache()
        trained = run(world, pair, name, seeds, 12, precision="float64", traces=True)
        return _kept(trained), evaluate(world, trained, name, seeds, 12).sums if name == "printed" else None

    monkeypatch.setattr(simulate, "play_tile", watched)
    together = played()
    assert not lengths
    monkeypatch.setattr(fleet, "PART", 4)
    if name == "random":
        monkeypatch.setattr(layout, "BLOCKS_PER_TILE", 1)
        played()
        assert not lengths  # a tile of one block is a block
    monkeypatch.setattr(layout, "BLOCKS_PER_TILE", 3)
    in_tiles = played()
    assert set(lengths) == {3}
    assert np.any(together[0][0].started)
    for one, other in zip(jax.tree.leaves(in_tiles), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_only_devices_that_hear_nothing_play_ahead():
    """And only a fleet that is not played at once: all of it is in the cache anyway."""
    ahead = {name: plays_ahead(pair_for(name, load("paper")).device, 1025) for name in ("printed", "random", "priced")}
    assert ahead == {"printed": True, "random": True, "priced": False}
    assert not plays_ahead(pair_for("printed", load("paper")).device, 1024)


@pytest.mark.parametrize("name", ["printed", "priced", "ans"])
def test_what_is_the_same_for_all_devices_is_kept_once(name: str, monkeypatch: pytest.MonkeyPatch):
    """Not the gains, nor anything of a fleet of two kinds; expanded again it is what it was, and so are the results."""
    scenario = load("paper", {"devices": 5})
    world, pair = build(scenario, sample_placement(scenario)), pair_for(name, scenario, None)
    small = squeeze_shared(world.devices)
    assert {np.shape(leaf)[-1] for leaf in jax.tree.leaves(small)} == {1, 5}
    for one, other in zip(jax.tree.leaves(broadcast_shared(small, 5)), jax.tree.leaves(world.devices), strict=True):
        np.testing.assert_array_equal(one, np.asarray(other, one.dtype))
    kinds = load("paper", {"devices": 5, "group": [{"count": 2, "cpu_max_hz": 2e9}, {"count": 3}]})
    assert {
        np.shape(leaf)[-1] for leaf in jax.tree.leaves(squeeze_shared(build(kinds, sample_placement(kinds)).devices))
    } == {5}
    once = run(world, pair, name, [3], 12, precision="float64")
    monkeypatch.setattr(runs, "compact", lambda devices: devices)
    repeated = run(world, pair, name, [3], 12, precision="float64")
    for one, other in zip(jax.tree.leaves(_kept(once)), jax.tree.leaves(_kept(repeated)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_as_many_cores_as_have_equal_shares():
    """Of four JAX devices (`conftest`)."""
    fleets = {2048: 2, 2047: None, 2049: None, 2050: 2, 1000: None, 4096: 4, 3072: 3}
    assert {count: mesh and mesh.size for count, mesh in zip(fleets, map(mesh_for, fleets), strict=True)} == fleets


def test_a_gpu_plays_a_fleet_at_once(monkeypatch: pytest.MonkeyPatch):
    """And all seeds in one call, which is not cut into seconds of a CPU."""
    seen = list[int]()
    monkeypatch.setattr(fleet, "in_parts", lambda *offload: seen.append(offload[-1]))
    scenario = load("paper")
    controller: Any = pair_for("priced", scenario).device
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        fleet.play_devices(controller, True, None, Any)
        seen += [layout.seeds_together(128, 100_000), layout.calls_of(500, 10_000_000)]
    assert seen == [1024, 1, [(2, 1)] * 250, 2**20, 128, [(500, 1)]]


@pytest.mark.parametrize(
    ("seeds", "devices", "together"),
    [(128, 4, 64), (128, 20, 64), (128, 50, 16), (7, 20, 7), (62, 50, 31), (3, 600, 1), (32, 100_000, 1)],
)
def test_seeds_that_a_call_plays(seeds: int, devices: int, together: int, monkeypatch: pytest.MonkeyPatch):
    """A core's share, cut where it is too large for the cache, not into crumbs; large fleets each alone."""
    monkeypatch.setattr(layout, "cores", lambda: 2)
    assert layout.seeds_together(seeds, devices) == together


@pytest.mark.parametrize(
    ("blocks", "devices", "threads", "calls"),
    [
        (5000, 20, 2, [(500, 50)] * 10),
        (997, 20, 1, [(997, 1)]),  # a prime number, of few devices: some milliseconds
        (997, 20_000, 1, [(500, 50), (497, 7)]),
        (998, 20, 2, [(499, 1), (499, 1)]),
        (1000, 1_000_000, 1, [(20, 4)] * 50),
        (997, 1_000_000, 1, [*[(20, 4)] * 49, (17, 1)]),
        (22, 1_000_000, 1, [(20, 4), (2, 2)]),  # not twice 11, of tiles of one block
        (1900, 1_050_000, 1, [*[(18, 3)] * 105, (10, 2)]),  # not a hundred times 19
        (4_999_999, 4, 1, [*[(500, 50)] * 9999, (499, 1)]),
        (100, 100_000, 2, [(100, 20)]),
        (3, 30_000_000, 1, [(1, 1)] * 3),
    ],
)
def test_how_many_blocks_a_call_plays(blocks: int, devices: int, threads: int, calls: list[tuple[int, int]]):
    """At most some seconds of a CPU, of one program if their number can be divided so that tiles are long."""
    assert layout.calls_of(blocks, devices, threads) == calls
    assert sum(call for call, _ in calls) == blocks


@pytest.mark.parametrize("base", [Algorithm1, Priced])
def test_a_function_of_ones_own_is_mapped_over_the_fleet(base: type[DeviceController]):
    """It may be written for one device: a mixin's and a helper's too. New numbers alone change nothing."""

    class Own(base):
        def stopped(self, memory: Any) -> jax.Array:
            return jnp.all(memory.block > 0)

    class Mixin:
        def act(self, memory: Any, device: Any, view: Any, key: Any) -> Any: ...

    assert base.batched
    assert not Own.batched
    assert not type("Mixed", (Mixin, base), {}).batched
    assert type("Same", (base,), {"patience": 3}).batched


def _played(name: str, blocks: int = 6) -> Any:
    """What a few blocks of the scenario `camera` leave, block by block compiled alone, in float64."""
    scenario = load("camera", {"devices": DEVICES})
    pair = pair_for(name, scenario, None)
    with jax.enable_x64(True):
        world = cast_floats(build(scenario, sample_placement(scenario)), "float64")
        agreed, loops = begin(world, pair, name, [3], "float64")
        pair, loop = (jax.tree.map(lambda leaf: leaf[0], of_seeds) for of_seeds in (agreed, loops))
        block: Callable[..., Any] = jax.jit(
            lambda loop, t: play_block(world, pair, loop, sample(world, 3, t), KEY, t, True)
        )
        kept = []
        for t in range(blocks):
            loop, played = block(loop, jnp.uint32(t))
            kept.append(jax.tree.map(np.asarray, (loop.state, loop.device_state, played.costs)))
    return kept


def _kept(played: Run) -> Any:
    return played.sums, played.traces, played.loop.state, played.loop.device_state, played.loop.server_state


KEY = jax.random.key(7)
