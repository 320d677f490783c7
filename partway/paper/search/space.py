"""What is searched: every parameter of section VI that the paper does not publish, its range, and the reason for it.

A setting is a choice of all parameters of `space(candidate)`; `overrides` makes it a scenario. Parameters are named as
in a scenario, but for STOPPING and OWN_STEPS. The scenario holds what the candidate learns with, which its baselines
share (`partway.paper.figure_runs.baseline`), and with OWN_STEPS the steps of `binary` and `even` for themselves. The
literal baselines of Q-learning are those of `parametric`.

Not searched: w3, which only fixes the unit of the cost; mu and nu, which every seed draws again. (36) holds for every
step in the space.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from partway.paper.figure_runs import LITERAL, STOPPING, supports

CANDIDATES = ("parametric-printed", "parametric", "qlearning", "qlearning-designed")
"""Schemes for which the parameters are searched as "the proposed scheme"."""
Setting = tuple[tuple[str, Any], ...]
"""The values of all parameters, by name."""
DIGITS = 4
"""Significant digits of a value, so that the data holds what was run."""
STOPPING_RULE, OWN_STEPS = "stopping", "baselines.own_steps"
STOPS: Mapping[str, Mapping[str, Any]] = {
    "first block": {"patience": 1},
    "tenth block": {"patience": 10},
    "never": {"stop": False},
}
"""Learning stops in the first block with a small change, as printed, in the tenth in a row, or never (T16)."""


@dataclass(frozen=True)
class Range:
    """The range of a parameter, and its reason.

    scale    "log", "linear", or "horizon": logarithmic in 1 / (1 - value)
    choices  instead of a range
    program  whether each choice needs a compiled program of its own
    """

    low: float
    high: float
    why: str
    scale: str = "log"
    choices: tuple[Any, ...] = ()
    program: bool = False

    def at(self, share: float) -> Any:
        """The value at a share of the range, 0 to 1."""
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        low, high = self._scaled(self.low), self._scaled(self.high)
        return float(f"{self._value(low + (high - low) * share):.{DIGITS}g}")

    def where(self, value: Any) -> float:
        """The share at which a value is; that of the middle of a choice."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    def grid(self, count: int) -> list[Any]:
        """`count` values from end to end, or the choices."""
        return list(self.choices) or [self.at(i / (count - 1)) for i in range(count)]

    def _scaled(self, value: float) -> float:
        return {"log": math.log, "linear": float, "horizon": lambda each: -math.log(1.0 - each)}[self.scale](value)

    def _value(self, scaled: float) -> float:
        if self.scale == "horizon":
            return 1.0 - math.exp(-scaled)
        return math.exp(scaled) if self.scale == "log" else scaled


def choice(why: str, *choices: Any, program: bool = False) -> Range:
    """A parameter that is one of these."""
    return Range(0.0, 0.0, why, choices=choices, program=program)


WORLD: Mapping[str, Range] = {
    "discount": Range(0.5, 0.99, "gamma: a horizon of 2 to 100 blocks", "horizon"),
    "weights.server_queue": Range(1e-11, 1e-9, "w1: waiting costs a tenth to ten times what it costs at a device"),
    "weights.server_energy": Range(2.5e-7, 2.5e-3, "w2: from free to as expensive as a device's"),
    "weights.device_energy": Range(2.5e-5, 2.5e-1, "w4: running a task in a block costs 0.01 to 100 blocks of waiting"),
    "device.task.bits_per_cycle": Range(1e-6, 2e-4, "zeta: a whole task needs 0.1 to 20 bit/s/Hz in its slot"),
    "device.cpu_max_hz": Range(40e9, 160e9, "f_max: from half to twice what b = 0.8 needs"),
    "server.cpu_max_hz": Range(
        4e11, 2e13, "from half the load of K = 20, b = 0.4 to four times that of K = 60, b = 0.9"
    ),
    "radio.noise_dbm_per_hz": choice("-174 dBm/Hz, or the printed -174 dBW over 1 MHz (T7)", -174.0, -204.0),
    "queue": choice("the readings of (1) (T1)", "conserving", "as_printed", program=True),
}
_STEPS: Mapping[str, Range] = {
    "device_step": Range(1e-4, 1.0, "alpha_0 of the devices (36a)"),
    "server_step": Range(1e-4, 1.0, "alpha_0 of the server (36b)"),
    "device_decay": Range(0.51, 1.0, "the exponent of its decay, as far as (36) allows", "linear"),
    "server_decay": Range(0.51, 1.0, "the exponent of its decay, as far as (36) allows", "linear"),
}
_SCALES: Mapping[str, Range] = {
    "device_feature_scale": Range(0.1, 10.0, "standard deviation of mu"),
    "server_feature_scale": Range(0.1, 10.0, "standard deviation of nu"),
}
_STARTS: Mapping[str, Range] = {
    "device_start_value": Range(0.01, 100.0, "Q of the devices before the first block"),
    "server_start_value": Range(0.01, 100.0, "Q of the server before the first block"),
    "start_power": Range(0.01, 100.0, "of p, in units of the power that sends half a task"),
    "start_rate": Range(0.05, 1.0, "of the server's rates, as a share of f_max"),
}
_EXPLORE: Mapping[str, Range] = {
    "device_explore": Range(0.001, 0.3, "share of a device's blocks with a random action"),
    "server_explore": Range(0.001, 0.3, "share of the server's blocks with a random action"),
}
_GRADIENT_LEARNING = {**_STEPS, **_SCALES, **_STARTS}
LEARNING: Mapping[str, Mapping[str, Range]] = {
    "parametric-printed": _GRADIENT_LEARNING,
    "parametric": _GRADIENT_LEARNING,
    "qlearning": {**_STEPS, **_SCALES, **_EXPLORE},
    "qlearning-designed": {
        "device_prior": Range(0.01, 100.0, "squared error of a device's first theta"),
        "server_prior": Range(0.01, 100.0, "squared error of the server's first theta"),
        "device_decay": Range(0.1, 1.0, "exponent with which a device's exploration fades", "linear"),
        "server_decay": Range(0.1, 1.0, "exponent with which the server's exploration fades", "linear"),
        **_EXPLORE,
    },
}
"""Hyperparameters of each candidate."""
OWN: Mapping[str, Range] = {
    f"schemes.{LITERAL[name]}.{party}_step": Range(1e-4, 1.0, f"alpha_0 of {name}'s {party} with {OWN_STEPS}")
    for name in ("binary", "even")
    for party in ("device", "server")
}


def learner(candidate: str) -> str:
    """The scheme whose hyperparameters the baselines share: the candidate, or `parametric` (Algorithms 1 and 2)."""
    return candidate if candidate in STOPPING else "parametric"


def space(candidate: str) -> dict[str, Range]:
    """Every parameter that is searched."""
    world = {name: one for name, one in WORLD.items() if name != "queue" or supports(candidate, "as_printed")}
    own = {f"schemes.{candidate}.{name}": one for name, one in LEARNING[candidate].items()}
    shared = {f"schemes.{learner(candidate)}.{name}": one for name, one in _GRADIENT_LEARNING.items()}
    stopping = choice("when Algorithms 1 and 2 stop (T16)", *STOPS, program=True)
    steps = choice("whether binary and even have steps of their own", False, True)
    return {**world, **shared, **own, STOPPING_RULE: stopping, OWN_STEPS: steps, **OWN}


def overrides(candidate: str, setting: Setting) -> dict[str, Any]:
    """The fields of the scenario of a setting."""
    fields = dict(setting)
    stops = STOPS[fields.pop(STOPPING_RULE)]
    if not fields.pop(OWN_STEPS):
        fields = {name: value for name, value in fields.items() if name not in OWN}
    return fields | {f"schemes.{learner(candidate)}.{name}": value for name, value in stops.items()}


def setting_at(candidate: str, shares: Mapping[str, float]) -> Setting:
    """The setting at a share of every parameter's range."""
    return tuple((name, one.at(shares[name])) for name, one in space(candidate).items())


def program_of(candidate: str, setting: Setting) -> tuple[Any, ...]:
    """What of a setting decides its compiled programs."""
    known = space(candidate)
    return tuple(value for name, value in setting if known[name].program)


def programs(candidate: str) -> list[dict[str, Any]]:
    """All combinations of the choices that need programs of their own, by name."""
    made: list[dict[str, Any]] = [{}]
    for name, one in space(candidate).items():
        if one.program:
            made = [{**before, name: value} for before in made for value in one.choices]
    return made


def spread(candidate: str, count: int, seed: int = 0) -> list[Setting]:
    """`count` settings spread evenly over the space, equally many for each program, those of one after one another.

    For each program a Latin hypercube: of m settings, each m-th of every range has one. Raises ValueError unless
    `count` is a multiple of the programs.
    """
    known, kinds, random = space(candidate), programs(candidate), np.random.default_rng(seed)
    if count % len(kinds):
        raise ValueError(f"settings must be a multiple of {len(kinds)}, the number of programs, got {count}")
    free, settings, own = [name for name, one in known.items() if not one.program], list[Setting](), count // len(kinds)
    for kind in kinds:
        fixed = {name: known[name].where(value) for name, value in kind.items()}
        cells = random.permuted(np.tile(np.arange(own), (len(free), 1)), axis=1)
        for column in ((cells + random.uniform(size=cells.shape)) / own).T.tolist():
            settings.append(setting_at(candidate, fixed | dict(zip(free, column, strict=True))))
    return settings
