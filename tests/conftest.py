"""What the tests share: sane defaults, one small mixed fleet, and every scheme compiled once for it."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("MPLBACKEND", "Agg")  # before Matplotlib is imported by anyone
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # as `partway.live.extra.require` does

import jax
import numpy as np
import pytest
from hypothesis import settings

from partway import program_cache
from partway.controllers.base import ControllerPair
from partway.experiments.preparation import bound_of, use_bound
from partway.measurement.metrics import BlockMetrics, DeviceTraces
from partway.pytree import cast_floats
from partway.rng import controller_keys_on_host
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, stream_of
from partway.simulation import rollout as rollouts
from partway.simulation import schedule, sharding
from partway.simulation.rollout import Run, rollout
from partway.simulation.step import Carry, initial_state
from partway.system.exogenous import sample, unpack
from partway.system.placement import sample_placement
from partway.system.types import Exogenous
from partway.system.world import World, build

CACHE = "PARTWAY_TEST_CACHE"
OWNS_CACHE = CACHE not in os.environ
CACHE_FOLDER = os.environ.setdefault(CACHE, tempfile.mkdtemp(prefix="partway-tests-") if OWNS_CACHE else "")
"""Where compiled programs are: the first process makes the folder, its workers and their children share it."""
SETTINGS = {
    "jax_compilation_cache_dir": f"{CACHE_FOLDER}/partway/jax",  # where the command line has them, too
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_disable_most_optimizations": True,  # half the time to compile; the same numbers but for rounding
    "jax_traceback_in_locations_limit": 0,  # nobody reads in compiled programs which line of Python wrote an operation
}
"""Of JAX, in this process and in those that it starts."""
XLA_FLAGS = (
    *(f"--{option}={str(value).lower()}" for option, value in program_cache.OLDER_GENERATOR.items()),
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.update(
    {name.upper(): str(int(value) if isinstance(value, bool) else value) for name, value in SETTINGS.items()},
    XDG_CACHE_HOME=CACHE_FOLDER,
    # XLA's older code generator, on one thread: another third of the time to compile
    XLA_FLAGS=" ".join((os.environ.get("XLA_FLAGS", ""), *XLA_FLAGS)).strip(),
)
for setting, value in {**SETTINGS, "jax_num_cpu_devices": 4}.items():  # devices that a large fleet is shared by
    jax.config.update(setting, value)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
gc.set_threshold(100_000)  # tracing makes little garbage and many objects: searching them took an eighth of all time
settings.register_profile("partway", deadline=None, derandomize=True, database=None, max_examples=100)
settings.load_profile("partway")

CALL = 50
"""Blocks in one compiled call of the shared runs."""


def exogenous(world: World, seed: Any, block: Any) -> Exogenous:
    """The arrivals of block t, and the gain of block t + 1, of processes without a memory."""
    return unpack(world.devices.slots, sample(world, seed, block))


def arrivals(world: World, seed: Any, block: Any) -> jax.Array:
    """(n, K) 0 or 1 of a block of traffic without a memory."""
    return exogenous(world, seed, block).arrivals


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


def frozen(world: World, trained: Run, stream: str, seeds: Sequence[int], blocks: int, **how: Any) -> Run:
    """The policies that a run has left, from empty queues and without learning: the output of Algorithms 1 and 2.

    The first of `seeds` meets the policy that was trained on the first seed, and so on.
    """
    precision = str(trained.carry.state.q.dtype)
    with jax.enable_x64(precision == "float64"):
        concrete, numbers = cast_floats(world, precision), np.asarray(seeds, np.uint32)
        states = jax.vmap(initial_state, in_axes=(None, 0))(concrete, numbers)
    carry = Carry(states, trained.carry.device_state, trained.carry.server_state)
    how |= {"carry": carry, "learning": False, "precision": precision}
    return rollout(world, trained.pair, stream, seeds, blocks, **how)


class Play(Protocol):
    """`rollout` in calls of CALL blocks, two of them side by side; worlds of the same shapes share the programs."""

    def __call__(self, scheme: str | ControllerPair, world: World, blocks: int = 100, **how: Any) -> Run: ...


class Replay(Protocol):
    """CALL more blocks of a run of `played`, from another carry, world or seeds; the keys are those of the run."""

    def __call__(
        self, name: str, run: Run, carry: Carry, world: World = ..., seeds: Sequence[int] = ...
    ) -> tuple[Carry, BlockMetrics, DeviceTraces]: ...


@contextmanager
def scheduled(cores: int = 2, chunk: int | None = None, **constants: int) -> Iterator[None]:
    """Rollouts are computed as for so many cores, whatever this machine has; `constants` are those of `schedule`.

    chunk  devices that a core computes at a time. A compiled program does not say for which chunks it is: all are new
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "cores", lambda: cores)
        for name, value in constants.items():
            patch.setattr(schedule, name, value)
        if chunk is None:
            yield
            return
        patch.setattr(sharding, "CHUNK", chunk)
        rollouts._rollout_compiled.jit.clear_cache()
        yield
        rollouts._rollout_compiled.jit.clear_cache()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported stays, and is not searched for garbage."""
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The process that has made the folder of compiled programs removes it."""
    if OWNS_CACHE:
        shutil.rmtree(CACHE_FOLDER, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadscope`: tests of one scheme run in one worker, which compiles its program once.

    All other tests of a file do, too, and share its fixtures. (`--dist loadgroup` does nothing with pytest 9.2 and
    pytest-xdist 3.8.)
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class BySchemeOrFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scheme_of(nodeid) or nodeid.split("::")[0]

    return BySchemeOrFile(config, log)


def scheme_of(nodeid: str) -> str | None:
    """The scheme with which a test's parameters begin."""
    parameters = f"{nodeid.partition('[')[2].removesuffix(']')}-"
    return max((name for name in SCHEMES if parameters.startswith(f"{name}-")), key=len, default=None)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """No test computes with programs that another one has asked to keep: they do not know what a test patches."""
    yield
    program_cache.keep_in(None)


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
    """Rollouts are divided into calls of CALL blocks, so that they share compiled programs with the other tests."""
    monkeypatch.setattr(schedule, "BLOCKS_PER_CALL", CALL)


@pytest.fixture(scope="session")
def play() -> Play:
    def played(scheme: str | ControllerPair, world: World, blocks: int = 100, **how: Any) -> Run:
        pair = ControllerPair(SCHEMES[scheme].device, SCHEMES[scheme].server) if isinstance(scheme, str) else scheme
        stream = how.pop("stream", stream_of(scheme) if isinstance(scheme, str) else "probe")
        with scheduled(how.pop("cores", 2), BLOCKS_PER_CALL=how.pop("call", CALL)):
            return rollout(world, pair, stream, how.pop("seeds", (0, 1)), blocks, traces=True, **how)

    return played


@pytest.fixture(scope="session")
def pair_of(mixed_world: World) -> Callable[[str], ControllerPair]:
    """A scheme's pair for the mixed world: the oracle's with the bound's tables; no constant is tuned."""

    def made(name: str) -> ControllerPair:
        pair = ControllerPair(SCHEMES[name].device, SCHEMES[name].server)
        if SCHEMES[name].preparation != "use_bound":
            return pair
        bound = bound_of(mixed_world)
        assert not isinstance(bound, str)
        return use_bound(pair, bound.certificate)

    return cache(made)


@pytest.fixture(scope="session")
def played(play: Play, mixed_world: World, pair_of: Callable[[str], ControllerPair]) -> Callable[[str], Run]:
    """A scheme's run of 100 blocks and two seeds in the mixed world, made once."""
    return cache(lambda name: play(pair_of(name), mixed_world, stream=stream_of(name)))


@pytest.fixture(scope="session")
def replay(mixed_world: World) -> Replay:
    def again(
        name: str, run: Run, carry: Carry, world: World = mixed_world, seeds: Sequence[int] = (0, 1)
    ) -> tuple[Carry, BlockMetrics, DeviceTraces]:
        stream, numbers = stream_of(name), np.arange(2, dtype=np.uint32)
        batch = rollouts._batch(world, None, stream, seeds, "float32")
        batch = replace(batch, action_keys=controller_keys_on_host(numbers, stream, rollouts.ACTS))
        own = jax.tree.map(lambda leaf: leaf.copy(), carry)  # which is used up
        with scheduled(BLOCKS_PER_CALL=CALL):
            after = rollouts._run_calls(batch, run.pair, own, CALL, 100, True, True, None, lambda blocks: None)
        assert after.traces is not None
        return after.carry, after.metrics, after.traces

    return again


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder. Its modules are forgotten afterwards, as other tests reuse their names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def float64() -> Iterator[None]:
    """The test computes in float64."""
    with jax.enable_x64(True):
        yield
