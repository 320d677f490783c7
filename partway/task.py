"""What a DNN is to the system: the places where it can be cut, the work behind each, the bits to send at each.

A `Profile` holds facts of a network (a CSV file, made by `partway profile`); a `Task` is what device, server and
controllers compute with. Legend: `rest` share of one task that the server finishes; D bits of the tensor at that cut.
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from partway.errors import InputError, nearest
from partway.records import record

T = TypeVar("T")
SHIPPED = Path(__file__).with_name("profiles")
CODING_BITS = {"fp32": 32, "fp16": 16, "uint8": 8}
CONTINUOUS_CUTS = 33
"""Points that stand for the continuous law where a scheme needs a list of cuts."""
MAX_EFFICIENCY = 40.0
"""Highest spectral efficiency of a cut [bit/s/Hz]: 2^40 is beyond any radio, and 2^x overflows float32 soon after."""


@dataclass(frozen=True)
class Cut:
    """A position in the network where exactly one tensor is alive.

    `after`: name of that tensor; `macs`: multiply-accumulates done before it; `elements`: numbers in it.
    """

    after: str
    macs: int
    elements: int


@dataclass(frozen=True)
class Profile:
    """Facts of one network. The first cut is the raw input (no MACs done), the last the output (all MACs done).

    `input_bits`: size of the encoded input, which is what the raw cut sends.
    """

    name: str
    source: str
    input_shape: tuple[int, ...]
    input_bits: float
    cuts: tuple[Cut, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network."""
        return self.cuts[-1].macs

    def share(self) -> np.ndarray:
        """Share of the work that remains behind each cut, shape (cuts,), from 1 down to 0."""
        return 1.0 - np.array([cut.macs for cut in self.cuts]) / self.macs

    def bits(self, coding: str) -> np.ndarray:
        """Bits to send at each cut, shape (cuts,): the encoded input first, nothing last, tensors between."""
        sent = [self.input_bits] + [CODING_BITS[coding] * float(cut.elements) for cut in self.cuts[1:-1]] + [0.0]
        return np.array(sent)

    def worth(self, coding: str) -> np.ndarray:
        """Which cuts are worth having, shape (cuts,): fewer bits than the input and than every earlier cut."""
        bits = self.bits(coding)
        return np.concatenate([[True], bits[1:] < np.minimum.accumulate(bits)[:-1]])

    def law_slope(self, coding: str) -> float:
        """Bits of a whole task under the proportional law D = slope * share that fits best (least squares)."""
        share, bits = self.share()[:-1], self.bits(coding)[:-1]
        return float(share @ bits / (share @ share))

    def proportionality(self, coding: str) -> float:
        """R^2 of the best proportional law over all positions that send something.

        1 is the paper's law; below 0 the mean of the bits would have been the better guess.
        """
        share, bits = self.share()[:-1], self.bits(coding)[:-1]
        spread = float(np.sum((bits - bits.mean()) ** 2))
        return 1.0 - float(np.sum((bits - self.law_slope(coding) * share) ** 2)) / spread if spread else 1.0


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with Partway."""
    return sorted(path.stem for path in SHIPPED.glob("*.csv"))


def read_profile(name: str) -> Profile:
    """The shipped profile of that name, or the one in a CSV file of the same form."""
    path = SHIPPED / f"{name}.csv" if re.fullmatch(r"[\w-]+", name) else Path(name)
    if path.parent == SHIPPED and not path.exists():
        raise InputError(f"no shipped profile '{name}'{nearest(name, shipped_profiles())}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(
            f"cannot read the profile '{name}': {error}; give a CSV file made by `partway profile`"
        ) from None
    try:
        return _parse(path.stem, lines)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"'{name}' is not a profile: {error}; make one with `partway profile MODEL.onnx --out`"
        ) from None


def _parse(name: str, lines: list[str]) -> Profile:
    header = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    cuts = tuple(Cut(row["after"], int(row["macs"]), int(row["elements"])) for row in rows)
    shape = tuple(int(size) for size in header["input_shape"].split("x"))
    profile = Profile(name, header["source"], shape, float(header["input_bits"]), cuts)
    _check(profile)
    return profile


def _check(profile: Profile) -> None:
    """Raise ValueError unless the cuts run from no work done to all of it, and every size is positive."""
    macs = [cut.macs for cut in profile.cuts]
    if len(macs) < 2 or macs[0] != 0 or macs[-1] <= 0 or sorted(macs) != macs:
        raise ValueError("macs must start at 0 and rise to the network's total")
    if min(cut.elements for cut in profile.cuts) < 1 or not 0 < profile.input_bits < float("inf"):
        raise ValueError("elements and input_bits must be positive")


def write_profile(profile: Profile) -> str:
    """The profile as the text of its CSV file."""
    shape = "x".join(str(size) for size in profile.input_shape)
    head = f"# source: {profile.source}\n# input_shape: {shape}\n# input_bits: {profile.input_bits:.17g}\n"
    rows = "".join(f"{i},{cut.after},{cut.macs},{cut.elements}\n" for i, cut in enumerate(profile.cuts))
    return head + "cut,after,macs,elements\n" + rows


@record
class Task:
    """The cuts one device can make, in ascending order of `share`, padded with infeasible rows.

    share     (cuts,) share of the task that the server finishes; the first is 0 (nothing sent)
    bits      (cuts,) D, bits to send at that cut
    feasible  (cuts,) False for padding and above `MAX_EFFICIENCY`
    proportional  ()  True: D = bits_per_task * rest for every rest in [0, 1] (the paper's law), not only at the cuts
    bits_per_task ()  zeta W, bits of a whole task under that law
    laws      what the tasks of the fleet are: all of that law ("line"), none ("table"), or some ("both")
    """

    share: jax.Array
    bits: jax.Array
    feasible: jax.Array
    proportional: jax.Array
    bits_per_task: jax.Array
    laws: str = "both"


def proportional_cuts(bits_per_task: float) -> tuple[np.ndarray, np.ndarray]:
    """(share, bits) of evenly spaced cuts of the paper's law D = zeta W rest."""
    share = np.linspace(0.0, 1.0, CONTINUOUS_CUTS)
    return share, bits_per_task * share


def layer_cuts(profile: Profile, coding: str, input_bits: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(share, bits) of a real network's cuts, ascending; of the cuts with one and the same share the cheapest stays."""
    share, bits = profile.share(), profile.bits(coding)
    if input_bits is not None:
        bits = np.concatenate([[input_bits], bits[1:]])
    # what float32 cannot tell apart is one cut
    _, first, group = np.unique(share.astype(np.float32), return_index=True, return_inverse=True)
    cheapest = np.full(len(first), np.inf)
    np.minimum.at(cheapest, group, bits)
    return share[first], cheapest


def by_law(task: Task, line: Callable[[], T], table: Callable[[], T]) -> T:
    """What holds under the paper's law, or for a table of cuts, computing no more than the fleet needs."""
    if task.laws == "both":
        return jax.tree.map(partial(jnp.where, task.proportional), line(), table())
    return line() if task.laws == "line" else table()


def sent_bits(task: Task, rest: jax.Array) -> jax.Array:
    """D(rest) [bit]: the paper's law, or the bits of the first cut whose share reaches `rest`."""

    def at_cut() -> jax.Array:
        reached = jnp.min(jnp.where(task.share >= rest, task.share, jnp.inf), axis=0)
        return jnp.max(jnp.where(task.share == reached, task.bits, 0.0), axis=0)

    return by_law(task, lambda: task.bits_per_task * rest, at_cut)


def nearest_affordable(task: Task, asked: jax.Array, max_bits: jax.Array) -> jax.Array:
    """The share that is sent when `asked` is wanted and `max_bits` can be.

    The smallest affordable cut that is at least as large; where there is none the largest affordable one below
    (nothing sent is always affordable). Under the paper's law every share is a cut.
    """

    def of_table() -> jax.Array:
        affordable = task.feasible & (task.bits <= max_bits)
        above = jnp.min(jnp.where(affordable & (task.share >= asked), task.share, jnp.inf), axis=0)
        below = jnp.max(jnp.where(affordable & (task.share < asked), task.share, 0.0), axis=0)
        return jnp.where(above <= 1.0, above, below)

    return by_law(task, lambda: jnp.minimum(asked, max_bits / task.bits_per_task), of_table)


def largest_share(task: Task, max_bits: jax.Array) -> jax.Array:
    """The largest share whose bits do not exceed `max_bits`; 0 where no cut is that small."""

    def of_table() -> jax.Array:
        return jnp.max(jnp.where(task.feasible & (task.bits <= max_bits), task.share, 0.0), axis=0)

    return by_law(task, lambda: jnp.minimum(1.0, max_bits / task.bits_per_task), of_table)
