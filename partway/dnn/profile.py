"""The facts of a network: its cuts, with the work done before each and the size of the tensor there; its CSV file."""

import csv
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from partway.errors import InputError, nearest
from partway.files import read_limited

SHIPPED = resources.files("partway.dnn") / "profiles"
DTYPE_BITS = {"fp32": 32, "fp16": 16, "uint8": 8}
"""Bits per element of a tensor, by the data type in which it is sent."""
MAX_FILE_BYTES = 10_000_000
"""A larger file is not a profile."""


@dataclass(frozen=True)
class Cut:
    """A position in the network where exactly one tensor is live.

    after     name of that tensor
    macs      multiply-accumulates before the cut
    elements  number of elements of the tensor
    """

    after: str
    macs: int
    elements: int


@dataclass(frozen=True)
class Profile:
    """The facts of one network. The first cut is the input (no MACs before it), the last is the output (all MACs).

    source       where the network comes from
    input_bits   [bit] size of the encoded input, which is sent at the first cut
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
        """(cuts,) share of the work that remains after each cut, from 1 at the input to 0 at the output."""
        return 1.0 - np.array([cut.macs for cut in self.cuts]) / self.macs

    def bits(self, tensor_dtype: str) -> np.ndarray:
        """(cuts,) bits to send at each cut: the encoded input at the first, nothing at the last, tensors between."""
        tensors = [DTYPE_BITS[tensor_dtype] * float(cut.elements) for cut in self.cuts[1:-1]]
        return np.array([self.input_bits, *tensors, 0.0])

    def pareto_optimal(self, tensor_dtype: str) -> np.ndarray:
        """(cuts,) whether a cut is Pareto-optimal: it sends fewer bits than the input and every earlier cut."""
        bits = self.bits(tensor_dtype)
        return np.concatenate([[True], bits[1:] < np.minimum.accumulate(bits)[:-1]])

    def law_slope(self, tensor_dtype: str) -> float:
        """[bit] slope of the proportional law bits = slope * share, fitted by least squares; the output is left out."""
        share, bits = self.share()[:-1], self.bits(tensor_dtype)[:-1]
        return float(share @ bits / (share @ share))

    def proportionality(self, tensor_dtype: str) -> float:
        """R^2 of that law: 1 for the law of the paper; below 0 where a constant would fit better."""
        share, bits = self.share()[:-1], self.bits(tensor_dtype)[:-1]
        variance = float(np.sum((bits - bits.mean()) ** 2))
        residual = float(np.sum((bits - self.law_slope(tensor_dtype) * share) ** 2))
        return 1.0 - residual / variance if variance else 1.0


def shipped_profiles() -> list[str]:
    """The names of the profiles that Partway ships, sorted."""
    names = (file.name for file in SHIPPED.iterdir())
    return sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv"))


def read_profile(name: str) -> Profile:
    """The shipped profile of that name, or the profile in the CSV file at that path.

    Raises InputError for an unknown name, an unreadable file and a file that is not a profile.
    """
    is_name = re.fullmatch(r"[\w-]+", name) is not None
    if is_name and name not in shipped_profiles():
        raise InputError(f"no shipped profile '{name}'{nearest(name, shipped_profiles())}")
    file = SHIPPED / f"{name}.csv" if is_name else Path(name)
    try:
        lines = read_limited(str(file), MAX_FILE_BYTES).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the profile '{name}': {error}; give a CSV file of `partway profile`") from None
    try:
        return _parse(Path(name).stem, lines)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"'{name}' is not a profile: {error}; create one with `partway profile MODEL.onnx --out DIR`"
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
    """Raise ValueError unless the MACs rise from 0 to a positive total and all sizes are positive."""
    macs = [cut.macs for cut in profile.cuts]
    if len(macs) < 2 or macs[0] != 0 or macs[-1] <= 0 or sorted(macs) != macs:
        raise ValueError("macs must rise from 0 to a positive total")
    if min(cut.elements for cut in profile.cuts) < 1 or not 0 < profile.input_bits < float("inf"):
        raise ValueError("elements and input_bits must be positive")


def write_profile(profile: Profile) -> str:
    """The text of a profile's CSV file."""
    shape = "x".join(str(size) for size in profile.input_shape)
    header = f"# source: {profile.source}\n# input_shape: {shape}\n# input_bits: {profile.input_bits:.17g}\n"
    rows = "".join(f"{i},{cut.after},{cut.macs},{cut.elements}\n" for i, cut in enumerate(profile.cuts))
    return header + "cut,after,macs,elements\n" + rows
