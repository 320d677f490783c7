"""The runs behind Figures 6 to 9: the paper's world, replicate by replicate.

A replicate has a seed and a placement of its own. What differs between lanes of one compiled program is the devices'
mean gain, the arrival probability and the seed; every lane is the run that `partway run` makes of the same scenario.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.experiments.statistics import count_unstable, discounted
from partway.experiments.summary import COST_COMPONENTS
from partway.paper.claims import BASELINES, CANDIDATES, HORIZON, LATE, QUICK_POINTS, READINGS, TRAINING, Points
from partway.pytree import cast_floats
from partway.rng import controller_keys, stable_hash
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for
from partway.simulation.rollout import Options, play_seed
from partway.simulation.schedule import BLOCKS_PER_TILE
from partway.simulation.step import ControllerPair, start
from partway.system.placement import sample_placement
from partway.system.world import World, build

FIRST_SEED = 1000
"""Of seeds and placements; the search for parameters uses others."""
DEVICES = {"6": 4, "7": 20, "8": 50}
KEPT = (*COST_COMPONENTS, "total_work", "arrived_work", "device_relative_change", "server_relative_change")
"""Fields of `BlockMetrics` that the figures need."""


@dataclass(frozen=True)
class Sizes:
    """How much is run. seeds: of the replicates, and of their placements; training, horizon: Figures 8 and 9."""

    seeds: tuple[int, ...]
    points: Points
    training: int = TRAINING
    horizon: int = HORIZON
    blocks: int = LATE[1]


FULL = Sizes(tuple(range(FIRST_SEED, FIRST_SEED + 24)), Points())
QUICK = Sizes(tuple(range(FIRST_SEED, FIRST_SEED + 4)), QUICK_POINTS, training=300)


@dataclass(frozen=True)
class Part:
    """One compiled program: a scheme under a reading of (1) with K devices, at some arrival probabilities."""

    figure: str
    scheme: str
    reading: str
    devices: int
    arrival_probs: tuple[float, ...]
    seeds: tuple[int, ...]
    blocks: int
    training: int
    preset: str = "paper"

    def overrides(self) -> dict[str, Any]:
        """What differs from the preset, but for the placement: of the first arrival probability."""
        changed: dict[str, Any] = {"devices": self.devices, "queue": self.reading}
        changed["device.arrival_prob"] = self.arrival_probs[0]
        if self.figure == "6" and self.scheme in ("printed", "exact"):
            changed[f"schemes.{self.scheme}.stop"] = False
        return changed

    def scenario(self, placement_seed: int | None = None) -> Scenario:
        placed = {"placement_seed": self.seeds[0] if placement_seed is None else placement_seed}
        return load(self.preset, self.overrides() | placed)

    def device_blocks(self) -> int:
        """The size of it, for the time left."""
        return self.devices * len(self.arrival_probs) * len(self.seeds) * self.blocks

    def label(self) -> str:
        return f"figure-{self.figure}-{self.scheme}-{self.reading}-{self.devices}"

    def play(self) -> dict[str, np.ndarray]:
        """See `play`."""
        return play(self)

    def command(self) -> str:
        """The command that plays the first replicate by itself, at the first arrival probability."""
        changed = {**self.overrides(), "placement_seed": self.seeds[0]}
        words = [
            f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in changed.items()
        ]
        sizes = ["--blocks", str(self.blocks), "--seed", str(self.seeds[0])]
        return shlex.join(
            ["partway", "run", "--scenario", self.preset, "--schemes", self.scheme, *sizes, "--set", *words]
        )


def plays(scheme: str, reading: str) -> bool:
    """Whether a scheme exists under a reading of (1)."""
    return reading == "conserving" or find_scheme(scheme).fractional


def parts(sizes: Sizes, preset: str = "paper") -> list[Part]:
    """All that has to be run, in the order of the figures."""
    usual = load(preset).device.arrival_prob
    pairs = [(reading, name) for reading in READINGS for name in (*CANDIDATES, *BASELINES) if plays(name, reading)]
    found: list[Part] = []
    for figure, devices, probs in _cells(sizes, usual):
        training = sizes.training if figure in ("8", "9") else 0
        blocks = training + sizes.horizon if training else sizes.blocks
        chosen = [pair for pair in pairs if figure != "6" or pair[1] in CANDIDATES]
        found += [Part(figure, n, r, devices, probs, sizes.seeds, blocks, training, preset) for r, n in chosen]
    return found


def _cells(sizes: Sizes, usual: float) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    yield "6", DEVICES["6"], (usual,)
    yield "7", DEVICES["7"], (usual,)
    yield "8", DEVICES["8"], sizes.points.arrival_probs
    for devices in sizes.points.fleets:
        yield "9", devices, (usual,)


def play(part: Part) -> dict[str, np.ndarray]:
    """Run a part and keep what its figure needs; the first axis is the arrival probability, the second the replicate.

    cost     (points, replicates, blocks)  Figure 7     device_change, server_change  the same, Figure 6
    from_empty, after_training  (points, replicates)  discounted sum cost, Figures 8 and 9
    parts    (points, replicates, 4)  mean of each part of the cost, over the last 200 blocks, Figure 7
    from_empty_parts, after_training_parts  (points, replicates, 4)  the same of the discounted sums
    unstable (points,)  replicates whose waiting work grows without end
    """
    series = {name: values.reshape(_shape(part)) for name, values in lanes(part).items()}
    cost: np.ndarray = np.stack([series[name] for name in COST_COMPONENTS]).sum(axis=0, dtype=np.float64)
    found: dict[str, np.ndarray] = {"unstable": _unstable(series)}
    if part.figure == "6":
        return found | {name: series[name] for name in ("device_relative_change", "server_relative_change")}
    if part.figure == "7":
        late = np.stack([series[name][..., -(LATE[1] - LATE[0]) :].mean(axis=-1) for name in COST_COMPONENTS], axis=-1)
        return found | {"cost": cost.astype(np.float32), "parts": late}
    discount = part.scenario().discount
    horizon = part.blocks - part.training
    windows = {"from_start": slice(None, horizon), "after_training": slice(part.training, None)}
    for phase, window in windows.items():
        own = [np.array([discounted(each[:, window], discount) for each in series[name]]) for name in COST_COMPONENTS]
        found |= {phase: np.sum(own, axis=0), f"{phase}_parts": np.stack(own, axis=-1)}
    return found


def _shape(part: Part) -> tuple[int, int, int]:
    return len(part.arrival_probs), len(part.seeds), part.blocks


def _unstable(series: dict[str, np.ndarray]) -> np.ndarray:
    work, arrived = series["total_work"].astype(np.float64), series["arrived_work"]
    return np.array([count_unstable(each, float(new.mean()))[0] for each, new in zip(work, arrived, strict=True)])


def lanes(part: Part) -> dict[str, np.ndarray]:
    """The series KEPT of every lane, (points x replicates, blocks) each."""
    scenarios = [part.scenario(seed) for seed in part.seeds]
    world = cast_floats(build(scenarios[0], sample_placement(scenarios[0])), "float32")
    gain = np.stack([sample_placement(scenario).mean_gain_per_w for scenario in scenarios])
    threshold = np.stack([_threshold(scenarios[0], prob) for prob in part.arrival_probs])
    seeds = jnp.asarray(part.seeds, jnp.uint32)
    keys = jax.vmap(partial(controller_keys, name_hash=jnp.uint32(stable_hash(part.scheme))))(seeds)
    each, points = len(part.seeds), len(part.arrival_probs)
    series = _play_lanes(
        world,
        pair_for(part.scheme, scenarios[0]),
        jnp.tile(jnp.asarray(gain, jnp.float32), (points, 1)),
        jnp.repeat(jnp.asarray(threshold), each, axis=0),
        jnp.tile(seeds, points),
        jnp.tile(keys, (points, 1)),
        part.blocks,
    )
    return {name: np.asarray(values) for name, values in series.items()}


def _threshold(scenario: Scenario, prob: float) -> np.ndarray:
    """(K,) `World.arrival_threshold` at another arrival probability."""
    changed = scenario.model_copy(update={"device": scenario.device.model_copy(update={"arrival_prob": prob})})
    return np.asarray(build(changed, sample_placement(changed)).arrival_threshold)


@partial(jax.jit, static_argnames="blocks")
def _play_lanes(
    world: World,
    pair: ControllerPair,
    gain: jax.Array,
    threshold: jax.Array,
    seeds: jax.Array,
    keys: jax.Array,
    blocks: int,
) -> dict[str, jax.Array]:
    options = Options(blocks, gcd(blocks, BLOCKS_PER_TILE))

    def play_lane(gain: jax.Array, threshold: jax.Array, seed: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
        own = replace(world, devices=replace(world.devices, mean_gain=gain), arrival_threshold=threshold)
        agreed, loop = start(own, pair, seed, keys)
        _, (sums, _) = play_seed(own, agreed, loop, seed, keys[2], jnp.uint32(0), options)
        return {name: getattr(sums, name) for name in KEPT}

    return jax.vmap(play_lane)(gain, threshold, seeds, keys)


def settled(change: np.ndarray, tolerance: float, quiet: int) -> np.ndarray:
    """(replicates,) first iteration, from 1, at which (replicates, blocks) begins `quiet` blocks at most `tolerance`.

    Where there is none, the number of blocks: it takes at least that long.
    """
    below = np.lib.stride_tricks.sliding_window_view(change <= tolerance, quiet, axis=-1).all(axis=-1)
    first = np.where(below.any(axis=-1), below.argmax(axis=-1) + 1, change.shape[-1])
    return first.astype(np.float64)


def replicates(sizes: Sizes) -> Sequence[tuple[int, int]]:
    """(seed, placement seed) of every replicate."""
    return [(seed, seed) for seed in sizes.seeds]
