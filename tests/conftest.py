"""What the tests share: sane defaults, one small mixed fleet, and every scheme compiled once for it."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")  # before Matplotlib is imported by anyone

from partway.experiments.comparison import with_bound
from partway.measurement.metrics import BlockMetrics, DeviceTraces
from partway.pytree import cast_floats
from partway.rng import controller_keys, stable_hash
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, consult_bound
from partway.simulation import rollout as runs
from partway.simulation import schedule as layout
from partway.simulation.rollout import Options, Run, run
from partway.simulation.step import Carry, ControllerPair
from partway.system.placement import sample_placement
from partway.system.world import World, build

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
jax.config.update("jax_enable_compilation_cache", False)  # no test may depend on what an earlier run left on disk
jax.config.update("jax_disable_most_optimizations", True)  # half the time to compile; the same numbers but for rounding
jax.config.update("jax_num_cpu_devices", 4)  # that a large fleet is shared by
settings.register_profile("partway", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("partway")

CALL = 50
"""Blocks in one compiled call of the shared runs."""

MIXED: dict[str, Any] = {
    "devices": 4,
    "server": {"macs_per_cycle": 0.08, "cpu_max_hz": 5e11},
    "group": [
        {"count": 1, "distance_m": 80.0},
        {
            "count": 1,
            "distance_m": 40.0,
            "arrival_prob": 0.15,
            "cpu_max_hz": 10e9,  # 5/12 of a task in a block: it has to send
            "task": {"kind": "proportional", "cycles": 1.2e10, "bits_per_cycle": 5e-5},
            "queue_weight": 2e-10,
        },
        {
            "count": 1,
            "distance_m": 60.0,
            "arrival_prob": 0.3,
            "macs_per_cycle": 0.05,
            "bandwidth_hz": 2e6,
            "tx_power_max_w": 0.2,
            "task": {"kind": "layers", "profile": "alexnet", "tensor_dtype": "uint8"},
        },
        {
            "count": 1,
            "distance_m": 50.0,
            "arrival_prob": 0.2,
            "macs_per_cycle": 0.4,
            "bandwidth_hz": 3e6,
            "energy_weight": 4e-3,
            "task": {"kind": "layers", "profile": "resnet50", "tensor_dtype": "fp16"},
        },
    ],
}
"""Four devices, no two alike: the paper's, one too slow for a task, two with real networks."""


def world_of(scenario: Scenario) -> World:
    return build(scenario, sample_placement(scenario))


class Play(Protocol):
    """`run` in calls of CALL blocks; worlds of four devices and worlds like MIXED share the compiled programs."""

    def __call__(self, scheme: str | ControllerPair, world: World, blocks: int = 100, **how: Any) -> Run: ...


@pytest.fixture(scope="session")
def mixed() -> Scenario:
    return load(MIXED)


@pytest.fixture(scope="session")
def mixed_world(mixed: Scenario) -> World:
    return world_of(mixed)


@pytest.fixture(scope="session")
def four() -> Callable[..., World]:
    """A world of four of the paper's devices with what is overridden."""

    def made(overrides: dict[str, Any]) -> World:
        return world_of(load({"devices": 4}, overrides))

    return made


@pytest.fixture
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are split into calls of CALL blocks, so that they share compiled programs with the other tests."""
    monkeypatch.setattr(layout, "BLOCKS_PER_CALL", CALL)


@pytest.fixture(scope="session")
def play() -> Play:
    def played(scheme: str | ControllerPair, world: World, blocks: int = 100, **how: Any) -> Run:
        pair = ControllerPair(SCHEMES[scheme].device, SCHEMES[scheme].server) if isinstance(scheme, str) else scheme
        name = how.pop("name", scheme if isinstance(scheme, str) else "probe")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layout, "BLOCKS_PER_CALL", how.pop("call", CALL))
            return run(world, pair, name, how.pop("seeds", (0, 1)), blocks, traces=True, **how)

    return played


@pytest.fixture(scope="session")
def pair_of(mixed_world: World) -> Callable[[str], ControllerPair]:
    """A scheme's pair for the mixed world: the oracle's with the bound's tables; no constant is tuned."""

    def made(name: str) -> ControllerPair:
        pair = ControllerPair(SCHEMES[name].device, SCHEMES[name].server)
        return consult_bound(pair, with_bound(mixed_world)[0]) if SCHEMES[name].prepare is consult_bound else pair

    return cache(made)


@pytest.fixture(scope="session")
def played(play: Play, mixed_world: World, pair_of: Callable[[str], ControllerPair]) -> Callable[[str], Run]:
    """A scheme's run of 100 blocks and two seeds in the mixed world, made once."""
    return cache(lambda name: play(pair_of(name), mixed_world, name=name))


@pytest.fixture(scope="session")
def replay(mixed_world: World) -> Callable[..., tuple[Carry, BlockMetrics, DeviceTraces]]:
    """CALL more blocks of a finished run of `played`, from another loop, world or seeds."""

    def again(
        name: str, run: Run, loop: Carry, world: World = mixed_world, seeds: Sequence[int] = (0, 1)
    ) -> tuple[Carry, BlockMetrics, DeviceTraces]:
        keys = jax.vmap(controller_keys)(jnp.arange(2, dtype=jnp.uint32), jnp.full(2, stable_hash(name), jnp.uint32))
        numbers, options = jnp.asarray(seeds, jnp.uint32), Options(CALL, CALL, traces=True)
        after, (sums, traces) = runs._play_seeds(
            cast_floats(world, "float32"),
            run.pair,
            jax.tree.map(jnp.copy, loop),
            numbers,
            keys[:, 2],
            jnp.uint32(100),
            options,
        )
        return after, *jax.tree.map(np.asarray, (sums, traces))

    return again


@pytest.fixture
def float64() -> Iterator[None]:
    """The test computes in float64."""
    with jax.enable_x64(True):
        yield
