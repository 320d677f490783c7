"""What is measured, one job a process: every function here takes plain values and returns plain values.

A measured number is a list, one value a repetition; implementations are measured alternately, A B C A B C, so that
what disturbs the machine disturbs all of them.
"""

import gc
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from benchmarks.agree import differences
from benchmarks.environments import environments
from benchmarks.fleet import OwnDraws, fleet_of, own_features
from benchmarks.limit import peaks
from benchmarks.machine import peak_bytes, words
from benchmarks.main_parts import device_block
from benchmarks.rivals import LOOP_DEVICES, ONE_BY_ONE, rival_of
from benchmarks.worlds import pair_of, world_of
from partway.schemes import stream_of
from partway.simulation.rollout import init_runs, rollout

BLOCKS = {"cpu": (20, 50, 125, 250, 500), "gpu": (20, 50, 125, 250, 500, 1000, 5000)}
"""What the fewest blocks of a measurement of ours are chosen from, by device: all divide those of a long run."""
TARGET = {"cpu": 5_000_000, "gpu": 200_000_000}
"""Device-blocks that these may be, where more than the first of BLOCKS are chosen."""
MEASURED_S = 0.15
"""Seconds of one measurement, about: of ours some times the fewest blocks, of a rival some blocks."""
REPEATS, FEWER, LONG_S = 5, 3, 60.0
"""How often a rate is measured; fewer times where that takes long."""
Play = Callable[[], float]
"""Computes some blocks; device-blocks a second."""


class Ours:
    """Partway; every call continues from the one before."""

    def __init__(self, scheme: str, devices: int, runs: int, precision: str):
        self.scheme, self.seeds, self.precision, self.first = scheme, list(range(runs)), precision, 0
        self.world = world_of(devices)
        self.pair, self.carry = init_runs(self.world, pair_of(scheme), stream_of(scheme), self.seeds, precision)
        self.lanes = devices * runs
        jax.block_until_ready(self.carry)

    def play(self, blocks: int) -> float:
        """Device-blocks a second."""
        start = time.perf_counter()
        what = (self.world, self.pair, stream_of(self.scheme), self.seeds, blocks)
        run = rollout(*what, carry=self.carry, first_block=self.first, precision=self.precision)
        self.carry = jax.block_until_ready(run.carry)
        took = time.perf_counter() - start
        self.first += blocks
        ends = {"waiting": run.metrics.waiting, "backlog": run.metrics.backlog}
        self.left = {name: float(work[:, -1].mean()) * len(self.seeds) / self.lanes for name, work in ends.items()}
        return self.lanes * blocks / took


def rates(
    scheme: str,
    devices: int,
    runs: list[int],
    precision: str,
    kinds: list[str],
    repeats: int = REPEATS,
    blocks: int = 0,
) -> dict[str, Any]:
    """By number of runs: device-blocks a second of ours and of the rivals named, and what waits per device at the end.

    blocks  of one measurement of ours, 0: as many as take long enough
    """
    measured = dict[str, Any]()
    for count in runs:
        ours = Ours(scheme, devices, count, precision)
        length = blocks or enough_blocks(ours)
        plays: dict[str, Play] = {"ours": partial(ours.play, length)}
        plays |= {kind: _rival(kind, scheme, devices, count, precision) for kind in kinds}
        ours.play(length)  # compiles, where nothing has before
        measured[str(count)] = {**alternately(plays, repeats), **ours.left, "blocks": length}
    return measured


def enough_blocks(ours: Ours) -> int:
    """Blocks of ours that take MEASURED_S, by the faster of two tries; the fewest, not tried, of many devices."""
    least, most = least_blocks(ours.lanes, _device()), TARGET[_device()]
    if ours.lanes * least >= most:
        return least
    ours.play(least)  # compiles
    rate = max(ours.play(least) for _ in range(2))
    return least * math.ceil(MEASURED_S * rate / (ours.lanes * least))


def alternately(plays: dict[str, Play], repeats: int) -> dict[str, list[float]]:
    """A B C A B C ...: what each gives, by name; after LONG_S no more than FEWER times."""
    measured: dict[str, list[float]] = {name: [] for name in plays}
    start = time.perf_counter()
    for repeat in range(repeats):
        if repeat >= FEWER and time.perf_counter() - start > LONG_S:
            break
        for name, play in plays.items():
            measured[name].append(play())
    return measured


def rival_rates(scheme: str, devices: int, kinds: list[str], precision: str) -> dict[str, list[float]]:
    """Device-blocks a second of the rivals alone, one run."""
    return alternately({kind: _rival(kind, scheme, devices, 1, precision) for kind in kinds}, 1)


def least_blocks(lanes: int, device: str) -> int:
    """The fewest blocks of a measurement of ours: the most of BLOCKS that TARGET allows."""
    allowed = BLOCKS[device]
    return max([blocks for blocks in allowed if blocks * lanes <= TARGET[device]], default=allowed[0])


def _rival(kind: str, scheme: str, devices: int, runs: int, precision: str) -> Play:
    """A rival that has played one block. One run stands for all of those that play one after the other."""
    at_once = 1 if kind in ONE_BY_ONE else runs
    fleet = fleet_of(world_of(devices), "float64" if kind == "loop" else precision)
    features = own_features(fleet, at_once) if scheme == "parametric-printed" else None
    rival = rival_of(kind, pair_of(scheme), fleet, OwnDraws(fleet, at_once), features, at_once)
    rival.block()

    def play() -> float:
        start, blocks = time.perf_counter(), 0
        while blocks == 0 or time.perf_counter() - start < MEASURED_S:
            rival.block()
            blocks += 1
        return devices * at_once * blocks / (time.perf_counter() - start)

    return play


def memory(scheme: str, devices: int, blocks: int) -> dict[str, Any]:
    """Peak memory [bytes] of one run: of this process, or of the accelerator where it says so; `of` names which."""
    rollout(world_of(devices), pair_of(scheme), stream_of(scheme), [0], blocks)
    of, peak = peak_bytes()
    return {"peak": [peak], "of": of}


def compiling(scheme: str, devices: int, runs: int) -> dict[str, Any]:
    """Seconds to compile without a cache: the first call beyond the second."""
    ours = Ours(scheme, devices, runs, "float32")
    took = []
    for _ in range(2):
        start = time.perf_counter()
        ours.play(least_blocks(devices * runs, _device()))
        took.append(time.perf_counter() - start)
    return {"compile_s": [took[0] - took[1]]}


def by_blocks(scheme: str, devices: int, runs: int, blocks: list[int], repeats: int = 3) -> dict[str, Any]:
    """Seconds of `run` by the number of blocks, compiled before."""
    took: dict[str, list[float]] = {str(count): [] for count in blocks}
    for repeat in range(repeats + 1):
        for count in blocks:
            start = time.perf_counter()
            rollout(world_of(devices), pair_of(scheme), stream_of(scheme), list(range(runs)), count)
            if repeat > 0:
                took[str(count)].append(time.perf_counter() - start)
    return took


def many_runs(scheme: str, devices: int, runs: int, blocks: int) -> dict[str, Any]:
    """Many runs at once; the caller takes the time of the whole process."""
    run = rollout(world_of(devices), pair_of(scheme), stream_of(scheme), list(range(runs)), blocks)
    return {"cost": float(run.metrics.cost().mean())}


def agreement(scheme: str, devices: int, runs: int, blocks: int, precision: str) -> dict[str, float]:
    """The largest relative differences from ours, by rival; the plain loop of small fleets, and in float64, only."""
    kinds = ["loop"] * (precision == "float64" and devices <= LOOP_DEVICES) + ["per_run", "batched"]
    return differences(scheme, devices, runs, blocks, precision, kinds)


def best_rates(precision: str, seconds: float = 0.3) -> dict[str, Any]:
    """What the cores of this process can do at best."""
    return {name: [rate] for name, rate in peaks(precision, seconds).items()}


def counted_by_xla(scheme: str, devices: int = 1000) -> dict[str, Any]:
    """XLA's own count of one block: flops, transcendentals and bytes of a device, of the largest program that ran."""
    rollout(world_of(devices), pair_of(scheme), stream_of(scheme), [0], 1)
    gc.collect()
    found = [made.cost_analysis() for made in jax.devices()[0].client.live_executables()]
    largest = max((one[0] if isinstance(one, list) else one for one in found), key=lambda one: one.get("flops", 0.0))
    return {name: largest.get(name, 0.0) / devices for name in ("flops", "transcendentals", "bytes accessed")}


def described() -> dict[str, Any]:
    """The machine in words; fails where its accelerator is missing."""
    return {"machine": words()}


def _device() -> str:
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


MEASUREMENTS = (
    device_block,
    rates,
    rival_rates,
    memory,
    compiling,
    by_blocks,
    many_runs,
    agreement,
    best_rates,
    counted_by_xla,
    environments,
)
JOBS: dict[str, Callable[..., dict[str, Any]]] = {job.__name__: job for job in (described, *MEASUREMENTS)}
