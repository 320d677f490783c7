"""TODO dnn.profile."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from partway.errors import InputError, nearest

SHIPPED = Path(__file__).with_name("profiles")


DTYPE_BITS = {"fp32": 32, "fp16": 16, "uint8": 8}


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

    def bits(self, tensor_dtype: str) -> np.ndarray:
        """Bits to send at each cut, shape (cuts,): the encoded input first, nothing last, tensors between."""
        sent = [self.input_bits] + [DTYPE_BITS[tensor_dtype] * float(cut.elements) for cut in self.cuts[1:-1]] + [0.0]
        return np.array(sent)

    def pareto_optimal(self, tensor_dtype: str) -> np.ndarray:
        """Which cuts are worth having, shape (cuts,): fewer bits than the input and than every earlier cut."""
        bits = self.bits(tensor_dtype)
        return np.concatenate([[True], bits[1:] < np.minimum.accumulate(bits)[:-1]])

    def law_slope(self, tensor_dtype: str) -> float:
        """Bits of a whole task under the proportional law D = slope * share that fits best (least squares)."""
        share, bits = self.share()[:-1], self.bits(tensor_dtype)[:-1]
        return float(share @ bits / (share @ share))

    def proportionality(self, tensor_dtype: str) -> float:
        """R^2 of the best proportional law over all positions that send something.

        1 is the paper's law; below 0 the mean of the bits would have been the better guess.
        """
        share, bits = self.share()[:-1], self.bits(tensor_dtype)[:-1]
        spread = float(np.sum((bits - bits.mean()) ** 2))
        return 1.0 - float(np.sum((bits - self.law_slope(tensor_dtype) * share) ** 2)) / spread if spread else 1.0


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
