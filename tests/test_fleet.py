"""A fleet that is computed in chunks, on a mesh, or ahead of the server is the fleet computed at once."""

import platform
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import frozen, scheduled, world_of

from partway.controllers.base import DeviceController
from partway.controllers.parametric import Algorithm1
from partway.controllers.postdecision import Priced
from partway.scenario.loading import load
from partway.schemes import pair_for, stream_of
from partway.simulation import rollout as rollouts
from partway.simulation import schedule, sharding, shares
from partway.simulation.fleet import runs_ahead
from partway.simulation.rollout import Run, rollout
from partway.simulation.sharding import broadcast_shared, mesh_for, release_freed_memory, squeeze_shared

DEVICES = 11
BLOCKS = 12
AS_PRINTED = "as printed"
"""Four of the paper's devices, all alike, whose queue keeps fractions of tasks."""
SLOW = pytest.mark.slow


def scenario_of(fleet: str, devices: int = DEVICES) -> Any:
    """Of `camera`, with four classes of devices; of `paper`, with one; or AS_PRINTED."""
    printed = fleet == AS_PRINTED
    return load("paper" if printed else fleet, {"devices": devices, "queue": "as_printed" if printed else "conserving"})


def computed(scheme: str, scenario: Any, seeds: tuple[int, ...] = (3,)) -> Run:
    """A run of a fleet in float64, in one call."""
    world, pair = world_of(scenario), pair_for(scheme, scenario)
    return rollout(world, pair, stream_of(scheme), seeds, BLOCKS, precision="float64", traces=True)


def left_by(run: Run) -> list[Any]:
    """All that a run leaves."""
    return jax.tree.leaves((run.metrics, run.traces, run.carry))


@pytest.fixture(scope="session")
def at_once() -> Callable[..., Run]:
    """A fleet whose devices are computed all together, block by block."""

    def made(scheme: str, fleet: str, seeds: tuple[int, ...] = (3,)) -> Run:
        with scheduled(cores=1):
            return computed(scheme, scenario_of(fleet), seeds)

    return cache(made)


@contextmanager
def watched(module: Any, name: str, note: Callable[..., Any]) -> Iterator[list[Any]]:
    """What `note` makes of the arguments of each call of a function, meanwhile."""
    noted, real = list[Any](), getattr(module, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, name, lambda *given, **named: noted.append(note(*given, **named)) or real(*given, **named)
        )
        yield noted


def assert_same(one: Run, other: Run) -> None:
    """But for rounding: XLA rounds by the shape of a loop."""
    assert np.any(other.traces.started)
    for a, b in zip(left_by(one), left_by(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "fleet", "chunk"),
    [
        ("priced", "paper", 4),
        pytest.param("parametric", "camera", 5, marks=SLOW),
        pytest.param("random", "camera", 10, marks=SLOW),
        pytest.param("ans", "camera", 5, marks=SLOW),
        pytest.param("iao", "camera", 4, marks=SLOW),
        pytest.param("qlearning", "paper", 5, marks=SLOW),
    ],
)
def test_results_do_not_depend_on_chunks(name: str, fleet: str, chunk: int, at_once: Callable[..., Run]):
    """11 = 4 + 4 + 3, 5 + 5 + 1, 10 + 1: the last chunk overlaps. Tiles of one block: no device runs ahead."""
    with (
        watched(sharding, "in_chunks", lambda function, states, fleet, limit: limit) as limits,
        watched(rollouts, "run_devices_ahead", lambda *given: given) as ahead,
        scheduled(cores=1, chunk=chunk, BLOCKS_PER_TILE=1),
    ):
        chunked = computed(name, scenario_of(fleet))
    assert set(limits) == {chunk}
    assert not ahead
    assert_same(chunked, at_once(name, fleet))


@pytest.mark.parametrize(
    ("name", "seeds", "fleet"),
    [
        ("random", (3,), "camera"),
        pytest.param("parametric", (1, 2), AS_PRINTED, marks=SLOW),
        pytest.param("parametric-printed", (3,), "camera", marks=SLOW),
        pytest.param("qlearning", (3,), "camera", marks=SLOW),
    ],
)
def test_results_do_not_depend_on_blocks_that_run_ahead(
    name: str, seeds: tuple[int, ...], fleet: str, at_once: Callable[..., Run]
):
    """Eleven devices that use no broadcast run tiles of three blocks in chunks of 4 + 4 + 3, of one seed or of two.

    Devices of `camera` are of four classes, those of the paper share their constants. `random` is written for one
    device.
    """
    with watched(rollouts, "run_devices_ahead", lambda *given: len(given[5])) as lengths, ahead_of_the_server():
        ahead = computed(name, scenario_of(fleet), seeds)
    assert set(lengths) == {3}
    assert_same(ahead, at_once(name, fleet, seeds))


@SLOW
@pytest.mark.parametrize("name", ["parametric"])
def test_devices_that_run_ahead_without_learning_stay_as_they_are(name: str, at_once: Callable[..., Run]):
    trained, world = at_once(name, AS_PRINTED, (1, 2)), world_of(scenario_of(AS_PRINTED))
    with watched(rollouts, "run_devices_ahead", lambda *given: given[6]) as learning, ahead_of_the_server():
        after_learning = frozen(world, trained, stream_of(name), (8, 9), BLOCKS)
    assert set(learning) == {False}
    before, after = (jax.tree.leaves(run.carry.device_state) for run in (trained, after_learning))
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    assert np.min(np.asarray(trained.carry.device_state.block)) > 0
    assert np.any(after_learning.metrics.started)


def ahead_of_the_server() -> Any:
    """Devices run tiles of three blocks in chunks of four."""
    return scheduled(cores=1, chunk=4, BLOCKS_PER_TILE=3)


@pytest.mark.parametrize(
    ("name", "seeds", "chunk", "meshes"),
    [
        ("parametric-printed", (3,), 2, {4}),
        pytest.param("priced", (1, 2, 3), 2, {4}, marks=SLOW),
        pytest.param("parametric", (1, 2, 3), 1024, set[int](), marks=SLOW),
    ],
)
def test_results_do_not_depend_on_the_mesh(name: str, seeds: tuple[int, ...], chunk: int, meshes: set[int]):
    """Four JAX devices have three devices each, in chunks of two, seed after seed; or two threads have a seed each."""
    scenario = scenario_of("camera", devices=12)
    with scheduled(cores=1):
        alone = computed(name, scenario, seeds)
    with (
        watched(shares, "reshard", lambda mesh, *given: mesh.size) as used,
        scheduled(cores=2, chunk=chunk, DEVICES_PER_CALL=12),
    ):
        shared = computed(name, scenario, seeds)
    assert set(used) == meshes
    assert_same(shared, alone)


def test_only_devices_that_use_no_broadcast_run_ahead():
    """And only those of a fleet that is computed in chunks: of a smaller one all is in the cache anyway."""
    names = ("parametric-printed", "random", "priced")
    ahead = {name: runs_ahead(pair_for(name, load("paper")).device, 1025) for name in names}
    assert ahead == {"parametric-printed": True, "random": True, "priced": False}
    assert not runs_ahead(pair_for("parametric-printed", load("paper")).device, 1024)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["priced", "ans", "parametric"])
def test_results_do_not_depend_on_what_is_kept_once(
    name: str, at_once: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    once = at_once(name, "paper")
    monkeypatch.setattr(rollouts, "squeeze_shared", lambda devices: devices)
    with scheduled(cores=1):
        assert_same(computed(name, scenario_of("paper")), once)


def test_what_is_the_same_for_all_devices_is_kept_once():
    """Not the gains, nor anything of a fleet of two classes; broadcast again it is what it was."""
    devices = world_of(scenario_of("paper")).devices
    small = squeeze_shared(devices)
    assert {np.shape(leaf)[-1] for leaf in jax.tree.leaves(small)} == {1, DEVICES}
    assert np.shape(small.mean_gain) == (DEVICES,)
    for one, other in zip(jax.tree.leaves(broadcast_shared(small, DEVICES)), jax.tree.leaves(devices), strict=True):
        np.testing.assert_array_equal(one, np.asarray(other, one.dtype))
    kinds = world_of(load("paper", {"devices": 5, "group": [{"count": 2, "cpu_max_hz": 2e9}, {"count": 3}]})).devices
    assert {np.shape(leaf)[-1] for leaf in jax.tree.leaves(squeeze_shared(kinds))} == {5}


# Which schedule


def test_as_many_jax_devices_as_have_equal_shares():
    """Of the four that the tests have (`conftest`)."""
    fleets = {2048: 2, 2047: None, 2049: None, 2050: 2, 1000: None, 4096: 4, 3072: 3}
    assert {count: mesh and mesh.size for count, mesh in zip(fleets, map(mesh_for, fleets), strict=True)} == fleets


def test_a_gpu_has_larger_chunks_and_all_seeds_in_one_call(monkeypatch: pytest.MonkeyPatch):
    found = list[tuple[int, int]]()
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found.append((sharding.chunk_size(), schedule.runs_per_call(128, 100_000)))
    assert found == [(1024, 1), (2**20, 128)]


@pytest.mark.parametrize(
    ("seeds", "devices", "together"),
    [(128, 4, 64), (128, 20, 64), (128, 50, 16), (7, 20, 7), (62, 50, 31), (3, 600, 1), (32, 100_000, 1)],
)
def test_seeds_that_a_call_computes(seeds: int, devices: int, together: int):
    """A core's share, cut where it is too large for the cache, not into crumbs; large fleets each alone."""
    with scheduled(cores=2):
        assert schedule.runs_per_call(seeds, devices) == together


@pytest.mark.parametrize(
    ("runs", "devices", "threads", "expected"),
    [
        (8, 20, None, (2, 2, None)),  # two shares of four runs side by side
        (8, 20, 1, (2, 1, None)),
        (1, 20, None, (1, 1, None)),
        (1, 4096, None, (1, 1, 4)),  # a large fleet on all JAX devices
        (8, 2048, None, (8, 2, None)),  # as many runs as cores: each on its own
    ],
)
def test_shares_threads_and_mesh(runs: int, devices: int, threads: int | None, expected: tuple[int, int, int | None]):
    with scheduled(cores=2):
        plan = schedule.schedule(runs, devices, 100, threads)
    assert (plan.shares, plan.threads, plan.mesh and plan.mesh.size) == expected


@pytest.mark.parametrize(
    ("blocks", "lanes", "calls"),
    [
        (5000, 40, [(500, 50)] * 10),
        (997, 20, [(997, 1)]),  # a prime number, of few devices: some milliseconds
        (997, 20_000, [(200, 50)] * 4 + [(197, 1)]),
        (998, 40, [(499, 1), (499, 1)]),
        (1000, 1_000_000, [(4, 4)] * 250),
        (997, 1_000_000, [*[(4, 4)] * 249, (1, 1)]),
        (22, 1_000_000, [(2, 2)] * 11),
        (4_999_999, 4, [*[(500, 50)] * 9999, (499, 1)]),
        (100, 200_000, [(20, 20)] * 5),
        (3, 30_000_000, [(1, 1)] * 3),
    ],
)
def test_how_many_blocks_a_call_computes(blocks: int, lanes: int, calls: list[tuple[int, int]]):
    """At most some seconds of a CPU, of one program if their number can be divided so that tiles are long."""
    assert schedule.divide_blocks(blocks, lanes) == calls
    assert sum(call for call, _ in calls) == blocks


@pytest.mark.parametrize(
    ("blocks", "lanes", "calls"),
    [
        (5000, 40, [(500, 50)] * 10),  # as above
        (1000, 1_000_000, [(2, 2)] * 500),
        (997, 1_000_000, [*[(2, 2)] * 498, (1, 1)]),
        (4, 2_000_000, [(2, 2)] * 2),
        (100, 200_000, [(10, 10)] * 10),
        (3, 30_000_000, [(1, 1)] * 3),
    ],
)
def test_calls_of_devices_that_wait_for_the_server_are_half_as_long(
    blocks: int, lanes: int, calls: list[tuple[int, int]]
):
    """Their transitions take half the memory."""
    assert schedule.divide_blocks(blocks, lanes, ahead=False) == calls


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_freed_memory_goes_back_to_the_system():
    """What lies below memory that is in use stays with the process until it is released."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    below = [bytearray(100_000) for _ in range(1000)]
    above = bytearray(100_000)
    del below
    before = resident()
    release_freed_memory()
    assert before - resident() > 50_000_000
    assert len(above) == 100_000


def test_only_devices_that_use_a_broadcast_wait_for_the_server():
    with scheduled(cores=2):
        plans = [schedule.schedule(1, 1_000_000, 8, ahead=ahead).calls for ahead in (True, False)]
    assert plans == [[(4, 4)] * 2, [(2, 2)] * 4]


@pytest.mark.parametrize("base", [Algorithm1, Priced])
def test_a_controller_with_a_function_of_its_own_is_mapped_over_the_fleet(base: type[DeviceController]):
    """It may be written for one device; a class says of itself that it is not."""

    class Own(base):
        def act(self, state: Any, device: Any, view: Any, key: Any) -> Any: ...

    class Batched(base):
        batched = True

    assert base.batched
    assert not Own.batched
    assert Batched.batched
