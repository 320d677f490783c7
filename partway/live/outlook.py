"""Whether cooperation makes tasks slower than devices that work alone: by simulation, before a live run begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from partway.formatting import number
from partway.live.report import Figures
from partway.scenario.schema import Weights

ALONE = "local"
"""The scheme of devices that work alone."""
LESS_ENERGY, MORE_SERVER = 0.25, 3.0
"""Factors on the weights where latency matters more than energy (docs/live.md)."""


def for_latency(weights: Weights) -> dict[str, float]:
    """The weights of a scenario where latency matters more than energy, by their dotted names."""
    return {
        "weights.device_energy": LESS_ENERGY * weights.device_energy,
        "weights.server_energy": LESS_ENERGY * weights.server_energy,
        "weights.server_queue": MORE_SERVER * weights.server_queue,
    }


@dataclass(frozen=True)
class Quicker:
    """A scheme with other weights, by their dotted names."""

    weights: Mapping[str, float]
    figures: Figures

    def sentence(self) -> str:
        """What the weights give, and in a line of its own the flag that sets them."""
        given = " ".join(f"{name}={value:.6g}" for name, value in self.weights.items())
        mean, energy = (number(1e3 * value, 4) for value in (self.figures.latency, self.figures.device_j))
        said = f"With these weights {_within(self.figures)}; mean {mean} ms, energy of the device per task {energy} mJ"
        return f"{said}:\n--set {given}"


@dataclass(frozen=True)
class Outlook:
    """A scheme beside devices that work alone, both simulated with the tasks and channels of a run.

    utilisation  tasks that arrive at the busiest device, as a share of those that it can finish alone: from 1 on its
                 queue grows without bound
    quicker      the scheme with the weights of `for_latency`, None where they were not tried
    """

    scheme: str
    with_server: Figures
    alone: Figures
    utilisation: float
    quicker: Quicker | None = None

    @property
    def is_stable_alone(self) -> bool:
        """Whether devices that work alone finish all their tasks."""
        return self.utilisation < 1

    @property
    def is_slower(self) -> bool | None:
        """Whether 95 % of the tasks take longer than on devices alone; None where those are unstable."""
        if not self.is_stable_alone:
            return None
        return _slowest(self.with_server) > _slowest(self.alone)

    @property
    def is_slower_on_average(self) -> bool | None:
        """Whether the mean latency is longer than on devices alone; None where those are unstable."""
        return self.with_server.latency > self.alone.latency if self.is_stable_alone else None

    @property
    def advice(self) -> Quicker | None:
        """`quicker` where tasks are slower than on devices alone, and with those weights they are not."""
        if not self.is_slower or self.quicker is None:
            return None
        return self.quicker if _slowest(self.quicker.figures) <= _slowest(self.alone) < np.inf else None

    def sentence(self) -> str:
        """What a user should know before the run."""
        if not self.is_stable_alone:
            gets = f"the busiest one gets {self.utilisation:.0%} of the tasks that it can finish"
            why = gets if np.isfinite(self.utilisation) else "one of them cannot finish a task in a block"
            return f"Devices alone are unstable: {why}. With {self.scheme} {_within(self.with_server)} (simulated)."
        verdict = "Cooperation does not make tasks slower"
        if self.is_slower:
            verdict = "Cooperation makes tasks slower"
        elif self.is_slower_on_average:
            verdict = "Cooperation makes tasks slower on average, but not the slowest ones"
        mean, energy = self._compared("latency", "ms"), self._compared("device_j", "mJ")
        said = (
            f"{verdict}: with {self.scheme} {_within(self.with_server)}, on devices alone {_within(self.alone)}; mean "
            f"{mean}, energy of the device per task {energy} (simulated)."
        )
        return said if self.advice is None else f"{said} {self.advice.sentence()}"

    def as_json(self) -> dict[str, Any]:
        """The same as JSON types, times in s, energy in J."""
        advice = self.advice
        return {
            "scheme": self.scheme,
            "utilisation_alone": self.utilisation,
            "slower": self.is_slower,
            "slower_on_average": self.is_slower_on_average,
            "with_server": _numbers(self.with_server),
            "alone": _numbers(self.alone),
            "quicker": None if advice is None else {"weights": dict(advice.weights), **_numbers(advice.figures)},
        }

    def _compared(self, name: str, unit: str) -> str:
        mine, theirs = (number(1e3 * getattr(one, name), 4) for one in (self.with_server, self.alone))
        return f"{mine} instead of {theirs} {unit}"


def _numbers(figures: Figures) -> dict[str, float]:
    return {"latency_s": figures.latency, "p95_s": figures.p95, "device_j_per_task": figures.device_j}


def _slowest(figures: Figures) -> float:
    """The time within which 95 % of the tasks are done [s]; infinite where more of them are not done in the run."""
    return np.inf if np.isnan(figures.p95) else figures.p95


def _within(figures: Figures) -> str:
    if np.isnan(figures.p95):
        return "more than 5 % of the tasks are not done when the run ends"
    return f"95 % of the tasks take up to {number(1e3 * figures.p95, 4)} ms"
