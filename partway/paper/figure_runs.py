"""The runs behind Figures 6 to 9: the paper's world, replicate by replicate.

A replicate has its own seed and placement. The lanes of one compiled program differ in the devices' mean gain, the
arrival probability and the seed; every lane is the run that `partway run` makes of the same scenario.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from partway.experiments.statistics import unstable_seeds
from partway.measurement.gap import COST_COMPONENTS, discounted
from partway.paper.claims import BASELINES, CANDIDATES, HORIZON, LATE, QUICK_POINTS, READINGS, TRAINING, Points
from partway.pytree import host_array
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, hyperparameters, names_of, pair_for, stream_of
from partway.simulation.rollout import rollout
from partway.system.placement import sample_placement
from partway.system.world import build

FIRST_SEED = 1000
"""Of seeds and placements; the search for parameters uses others."""
DEVICES = {"6": 4, "7": 20, "8": 50}
STOPPING = ("parametric-printed", "parametric")
"""Schemes with a stopping rule, which Figure 6 switches off."""
LEAST_SQUARES = ("qlearning-designed",)
"""Schemes that learn by least squares, which have no step size: their `decay` is that of exploration."""
LITERAL = {"binary": "binary-parametric", "even": "even-parametric", "random": "random-fixed"}
"""What BASELINES are as section VI words them: binary and even learn as the proposed scheme does, random does not."""
KINDS = ("literal", "q-learned")
"""Kinds of baselines: LITERAL, which decide verdicts, and `binary`, `even`, `random` with their own settings."""
Configured = tuple[str, tuple[tuple[str, Any], ...]]
"""A scheme and what is set of its hyperparameters, (name, value) each."""
SERIES = (*COST_COMPONENTS, "total_work", "arrived_work", "device_relative_change", "server_relative_change")
"""Fields of `BlockMetrics` that the figures need."""


@dataclass(frozen=True)
class Sizes:
    """How much is run.

    seeds              of the replicates, and of their placements
    training, horizon  blocks of training and of a discounted sum, Figures 8 and 9
    blocks             of a run, Figures 6 and 7
    """

    seeds: tuple[int, ...]
    points: Points
    training: int = TRAINING
    horizon: int = HORIZON
    blocks: int = LATE[1]


FULL = Sizes(tuple(range(FIRST_SEED, FIRST_SEED + 24)), Points())
QUICK = Sizes(tuple(range(FIRST_SEED, FIRST_SEED + 4)), QUICK_POINTS, training=300)


@dataclass(frozen=True)
class FigureJob:
    """One compiled program: a scheme under a reading of (1) with K devices, at some arrival probabilities.

    settings  hyperparameters of a baseline that it shares with a candidate
    """

    figure: str
    scheme: str
    reading: str
    devices: int
    arrival_probs: tuple[float, ...]
    seeds: tuple[int, ...]
    blocks: int
    training: int
    preset: str = "paper"
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The scheme, and whether it is a baseline with the printed gradients."""
        return f"{self.scheme}, printed" if dict(self.settings).get("gradient") == "printed" else self.scheme

    def overrides(self) -> dict[str, Any]:
        """Differences from the preset, except for the placement, at the first arrival probability."""
        changed: dict[str, Any] = {"devices": self.devices, "queue": self.reading}
        changed["device.arrival_prob"] = self.arrival_probs[0]
        if self.figure == "6" and self.scheme in STOPPING:
            changed[f"schemes.{self.scheme}.stop"] = False
        return changed | {f"schemes.{self.scheme}.{name}": value for name, value in self.settings}

    def scenario(self, placement_seed: int | None = None) -> Scenario:
        """The scenario of a replicate, by default of the first, at the first arrival probability."""
        placed = {"placement_seed": self.seeds[0] if placement_seed is None else placement_seed}
        return load(self.preset, self.overrides() | placed)

    def device_blocks(self) -> int:
        """Its size: devices x blocks x runs."""
        return self.devices * len(self.arrival_probs) * len(self.seeds) * self.blocks

    def label(self) -> str:
        """File name stem."""
        return f"figure-{self.figure}-{self.scheme}-{self.reading}-{self.devices}"

    def run(self) -> dict[str, np.ndarray]:
        """See `run_job`."""
        return run_job(self)

    def command(self) -> str:
        """The command that runs the first replicate alone, at the first arrival probability."""
        changed = {**self.overrides(), "placement_seed": self.seeds[0]}
        words = [
            f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in changed.items()
        ]
        sizes = ["--blocks", str(self.blocks), "--seed", str(self.seeds[0])]
        return shlex.join(
            ["partway", "run", "--scenario", self.preset, "--schemes", self.scheme, *sizes, "--set", *words]
        )


def supports(scheme: str, reading: str) -> bool:
    """Whether a scheme can run under a reading of (1)."""
    return reading == "conserving" or find_scheme(scheme).fractional


def baseline(name: str, candidate: str, kind: str, scenario: Scenario) -> Configured:
    """One of BASELINES, of a kind of KINDS, as it is compared with a candidate.

    A literal one has the candidate's gradient and what the scenario sets of the candidate's learning, if it is of
    Algorithms 1 and 2, otherwise those of `parametric`; what the scenario sets of the baseline itself counts first.
    """
    if kind != KINDS[0]:
        return name, ()
    scheme, like = LITERAL[name], candidate if candidate in STOPPING else "parametric"
    found, default = find_scheme(scheme), hyperparameters(scheme)
    known = {**names_of("device", found.device), **names_of("server", found.server)}
    shared = {"gradient": hyperparameters(like)["gradient"], **scenario.schemes.get(like, {})}
    own = scenario.schemes.get(scheme, {})
    settings = {name: value for name, value in shared.items() if name in known and name not in own}
    return scheme, tuple((name, value) for name, value in sorted(settings.items()) if default.get(name) != value)


def jobs(
    sizes: Sizes,
    preset: str = "paper",
    candidates: Sequence[str] = CANDIDATES,
    kinds: Sequence[str] = KINDS,
) -> list[FigureJob]:
    """All runs of candidates and of the baselines that they are compared with, in the order of the figures."""
    scenario, made = load(preset), list[FigureJob]()
    proposed: list[Configured] = [(name, ()) for name in candidates]
    rivals = [baseline(name, one, kind, scenario) for kind in kinds for one in candidates for name in BASELINES]
    for figure, devices, probs in _points(sizes, scenario.device.arrival_prob):
        training = sizes.training if figure in ("8", "9") else 0
        blocks = training + sizes.horizon if training else sizes.blocks
        configured = proposed if figure == "6" else list(dict.fromkeys([*proposed, *rivals]))
        made += [
            FigureJob(figure, scheme, reading, devices, probs, sizes.seeds, blocks, training, preset, settings)
            for reading in READINGS
            for scheme, settings in configured
            if supports(scheme, reading)
        ]
    return made


def _points(sizes: Sizes, prob: float) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    """(figure, K, arrival probabilities) of every program; `prob` is that of the preset."""
    yield "6", DEVICES["6"], (prob,)
    yield "7", DEVICES["7"], (prob,)
    yield "8", DEVICES["8"], sizes.points.arrival_probs
    for devices in sizes.points.fleets:
        yield "9", devices, (prob,)


def run_job(job: FigureJob) -> dict[str, np.ndarray]:
    """Run a job and keep what its figure needs; the first axis is the arrival probability, the second the replicate.

    device_relative_change, server_relative_change  (points, replicates, blocks), Figure 6
    cost                        (points, replicates, blocks), Figure 7
    components                  (points, replicates, 4)  components of the mean cost of the last 200 blocks, Figure 7
    from_start, after_training  (points, replicates)  discounted sum cost, Figures 8 and 9
    from_start_components, after_training_components  (points, replicates, 4)  components of these sums
    unstable                    (points, replicates)  whether the waiting work grows without end in the whole run
    """
    shape = len(job.arrival_probs), len(job.seeds), job.blocks
    series = {name: values.reshape(shape) for name, values in lanes(job).items()}
    arrays: dict[str, np.ndarray] = {"unstable": _unstable(series)}
    if job.figure == "6":
        return arrays | {name: series[name] for name in ("device_relative_change", "server_relative_change")}
    if job.figure == "7":
        return arrays | _cost_over_time(series)
    return arrays | _discounted_sums(series, job)


def _cost_over_time(series: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What Figure 7 needs of the series."""
    cost: np.ndarray = np.stack([series[name] for name in COST_COMPONENTS]).sum(axis=0, dtype=np.float64)
    late = [series[name][..., -(LATE[1] - LATE[0]) :].mean(axis=-1) for name in COST_COMPONENTS]
    return {"cost": cost.astype(np.float32), "components": np.stack(late, axis=-1)}


def _discounted_sums(series: dict[str, np.ndarray], job: FigureJob) -> dict[str, np.ndarray]:
    """What Figures 8 and 9 need of the series."""
    discount, horizon = job.scenario().discount, job.blocks - job.training
    windows = {"from_start": slice(None, horizon), "after_training": slice(job.training, None)}
    arrays: dict[str, np.ndarray] = {}
    for phase, window in windows.items():
        own = [np.array([discounted(each[:, window], discount) for each in series[name]]) for name in COST_COMPONENTS]
        arrays |= {phase: np.sum(own, axis=0), f"{phase}_components": np.stack(own, axis=-1)}
    return arrays


def _unstable(series: dict[str, np.ndarray]) -> np.ndarray:
    """(points, replicates) whether the waiting work grows without end."""
    work, arrived = series["total_work"].astype(np.float64), series["arrived_work"]
    return np.array([unstable_seeds(each, float(new.mean()))[0] for each, new in zip(work, arrived, strict=True)])


def lanes(job: FigureJob) -> dict[str, np.ndarray]:
    """The series SERIES of every lane, (points x replicates, blocks) each."""
    scenarios = [job.scenario(seed) for seed in job.seeds]
    world = build(scenarios[0], sample_placement(scenarios[0]))
    thresholds = [_threshold(scenarios[0], prob) for prob in job.arrival_probs]
    gains = [host_array(sample_placement(scenario).mean_gain_per_w) for scenario in scenarios]
    worlds = [
        replace(world, devices=replace(world.devices, mean_gain=gain), arrival_threshold=host_array(threshold))
        for threshold in thresholds
        for gain in gains
    ]
    seeds = job.seeds * len(thresholds)
    run = rollout(worlds, pair_for(job.scheme, scenarios[0]), stream_of(job.scheme), seeds, job.blocks)
    return {name: np.asarray(getattr(run.metrics, name)) for name in SERIES}


def _threshold(scenario: Scenario, prob: float) -> np.ndarray:
    """(K,) `World.arrival_threshold` at another arrival probability."""
    changed = scenario.model_copy(update={"device": scenario.device.model_copy(update={"arrival_prob": prob})})
    return np.asarray(build(changed, sample_placement(changed)).arrival_threshold)


def converged(change: np.ndarray, tolerance: float, quiet: int) -> np.ndarray:
    """(replicates,) first iteration, from 1, of `quiet` in a row whose relative change is at most `tolerance`.

    change   (replicates, blocks)

    Where there is none, the number of blocks: it takes at least that long.
    """
    below = np.lib.stride_tricks.sliding_window_view(change <= tolerance, quiet, axis=-1).all(axis=-1)
    first = np.where(below.any(axis=-1), below.argmax(axis=-1) + 1, change.shape[-1])
    return first.astype(np.float64)
