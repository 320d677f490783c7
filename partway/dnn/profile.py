"""The facts of a network: its cuts, with the work done before each and the tensors sent there; its CSV file.

The file has one row per tensor; rows with the same number of a cut belong together:

    # source: where the network comes from
    # input_shape: 1x3x224x224
    # input_bits: 1204224
    cut,after,macs,elements,dtype,seconds
    0,image,0,150528,uint8,0
    1,conv1,118013952,802816,float32,0.0021
    1,sizes,118013952,2,int64,0.0021
    2,scores,4089184256,1000,float32,0.06

`dtype` (float32 without it) and `seconds` are optional. A file may come from elsewhere, so it is read with suspicion.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from partway.arguments import is_shipped_name
from partway.errors import InputError, nearest, shown
from partway.files import read_limited, why

SHIPPED = resources.files("partway.dnn") / "profiles"
DTYPE_BITS = {"fp32": 32, "fp16": 16, "uint8": 8}
"""Bits per element of a tensor, by the data type in which it is sent."""
FLOAT_BITS = {
    **{"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16},
    **{"float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8, "float8e8m0": 8, "float4e2m1": 4},
}
"""Bits per element, by the data type of a tensor in the network. Real numbers may be sent in a shorter type."""
OTHER_BITS = {
    **{f"{sign}int{bits}": bits for sign in ("", "u") for bits in (64, 32, 16, 8, 4, 2)},
    **{"bool": 8, "complex64": 64, "complex128": 128, "other": 0},
}
"""The same for tensors that are sent as they are: integers may be indices, and quantised tensors are short already.

"other" are strings and sequences. They have no fixed size, so they occur only among the outputs.
"""
MAX_COUNT = 2**53
"""Larger counts are not exact in float64, and no network is that large."""
OTHER_MODELS = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".safetensors"), "a PyTorch file"),
    **dict.fromkeys((".h5", ".keras", ".pb"), "a Keras or TensorFlow file"),
    **{".tflite": "a TensorFlow Lite file", ".engine": "a TensorRT file", ".plan": "a TensorRT file"},
    **{".mlmodel": "a Core ML file", ".mlpackage": "a Core ML folder", ".ort": "a file for ONNX Runtime only"},
}
"""Files of other formats, by their suffix."""
MAX_FILE_BYTES = 10_000_000
"""A larger file is not a profile."""
EXTRA = "more cells"
"""Key of the cells of a row for which the first line has no name."""
COLUMNS = ("cut", "after", "macs", "elements", "dtype", "seconds")


@dataclass(frozen=True)
class Tensor:
    """A tensor that is sent at a cut.

    elements  its number of elements; 0 only for an output whose size depends on the data
    dtype     a key of FLOAT_BITS or OTHER_BITS. For an input: the data type of the encoded input, such as uint8 for an
              image, whatever the network casts it to
    """

    name: str
    elements: int
    dtype: str = "float32"

    @property
    def own_bits(self) -> float:
        """[bit] size in its own data type."""
        return float(self.elements) * (FLOAT_BITS | OTHER_BITS)[self.dtype]

    def sent_bits(self, tensor_dtype: str) -> float:
        """[bit] size when real numbers are sent as `tensor_dtype`, if that is shorter."""
        if self.dtype in OTHER_BITS:
            return self.own_bits
        return float(self.elements) * min(FLOAT_BITS[self.dtype], DTYPE_BITS[tensor_dtype])


@dataclass(frozen=True)
class Cut:
    """A position in the network and the tensors from which the rest of it can be computed.

    tensors  what is sent there
    macs     multiply-accumulates before the cut
    seconds  [s] time of the layers before the cut, None if it was not measured
    """

    tensors: tuple[Tensor, ...]
    macs: int
    seconds: float | None = None

    @property
    def after(self) -> str:
        """The names of its tensors."""
        return "+".join(tensor.name for tensor in self.tensors)


@dataclass(frozen=True)
class Profile:
    """The facts of one network. The first cut is the input (no MACs before it), the last is the output (all MACs).

    source       where the network comes from
    input_shape  of the first input
    input_bits   [bit] size of all encoded inputs together, which are sent at the first cut
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

    @property
    def seconds(self) -> np.ndarray | None:
        """(cuts,) time [s] of the layers before each cut; None if it was not measured."""
        times = [cut.seconds for cut in self.cuts if cut.seconds is not None]
        return np.array(times) if len(times) == len(self.cuts) else None

    def with_seconds(self, seconds: np.ndarray) -> "Profile":
        """The profile with measured times (cuts,) [s] of the layers before each cut."""
        pairs = zip(self.cuts, seconds.tolist(), strict=True)
        return replace(self, cuts=tuple(replace(cut, seconds=time) for cut, time in pairs))

    def share(self) -> np.ndarray:
        """(cuts,) share of the work that remains after each cut, from 1 at the input to 0 at the output."""
        return 1.0 - np.array([cut.macs for cut in self.cuts]) / self.macs

    def bits(self, tensor_dtype: str, input_bits: float | None = None) -> np.ndarray:
        """(cuts,) bits to send at each cut: the encoded inputs at the first, nothing at the last, tensors between.

        Where an input is sent later with other tensors, it is as large as when it is encoded.

        input_bits  [bit] replaces the profile's size of the encoded inputs
        """
        encoded, names = (self.input_bits if input_bits is None else input_bits), self._inputs()

        def sent(cut: Cut) -> float:
            inputs = [tensor for tensor in cut.tensors if tensor.name in names]
            own = encoded if len(inputs) == len(names) else min(encoded, sum(tensor.own_bits for tensor in inputs))
            return own + sum(tensor.sent_bits(tensor_dtype) for tensor in cut.tensors if tensor.name not in names)

        return np.array([encoded, *map(sent, self.cuts[1:-1]), 0.0])

    def _inputs(self) -> set[str]:
        return {tensor.name for tensor in self.cuts[0].tensors}

    def pareto_optimal(self, tensor_dtype: str, input_bits: float | None = None) -> np.ndarray:
        """(cuts,) whether a cut is Pareto-optimal: no other sends as few bits after as little work.

        Of cuts that are equal in both, the first is.
        """
        bits, macs = self.bits(tensor_dtype, input_bits), np.array([cut.macs for cut in self.cuts])
        order = np.lexsort((bits, macs))
        smallest = np.minimum.accumulate(bits[order])
        front = np.zeros(len(bits), bool)
        front[order] = np.concatenate([[True], bits[order][1:] < smallest[:-1]])
        return front

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


def clean_name(name: str) -> str:
    """The name of a tensor with every character replaced that could break a CSV line, a terminal or a spreadsheet."""
    return re.sub(r"^[+-]|[^\w./:+-]", "_", name) or "_"


def clean_text(text: str) -> str:
    """A text with every character replaced that is not printable."""
    return "".join(character if character.isprintable() else "_" for character in text)


def shipped_profiles() -> list[str]:
    """The names of the profiles that Partway ships, sorted."""
    names = (file.name for file in SHIPPED.iterdir())
    return sorted(name.removesuffix(".csv") for name in names if name.endswith(".csv"))


def read_profile(name: str) -> Profile:
    """The shipped profile of that name, or the profile in the CSV file at that path.

    Raises InputError for an unknown name, an unreadable file and a file that is not a profile.
    """
    is_name = is_shipped_name(name)
    if is_name and name not in shipped_profiles():
        raise InputError(f"no shipped profile '{name}'{nearest(name, shipped_profiles())}")
    file = SHIPPED / f"{name}.csv" if is_name else Path(name)
    if kind := OTHER_MODELS.get(Path(name).suffix.lower()):
        raise InputError(f"'{name}' is {kind}, which cannot be read; export the network to an .onnx file")
    try:
        text = read_limited(str(file), MAX_FILE_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the profile '{name}': {why(error)}; give a CSV file of `partway profile`"
        ) from None
    try:
        return _parse(clean_text(Path(name).stem), text.splitlines())
    except (csv.Error, KeyError, ValueError) as error:
        raise InputError(
            f"'{name}' is not a profile: {error}; create one with `partway profile MODEL.onnx --out DIR`"
        ) from None


def _parse(name: str, lines: list[str]) -> Profile:
    header = {key: value for key, _, value in (line[2:].partition(": ") for line in lines if line.startswith("# "))}
    rows = list(csv.DictReader((line for line in lines if not line.startswith("#")), restkey=EXTRA))
    for key in ("source", "input_shape", "input_bits"):
        if key not in header:
            raise ValueError(f"it has no line '# {key}: ...'")
    for column in ("after", "macs", "elements"):
        if rows and column not in rows[0]:
            raise ValueError(f"it has no column '{column}'")
    check_cells(rows)
    numbered = enumerate(rows)
    groups = groupby(numbered, lambda each: each[1].get("cut") or f"row {each[0]}")
    together = [(number, [row for _, row in group]) for number, group in groups]
    numbers = [number for number, _ in together]
    if len(set(numbers)) < len(numbers):
        twice = next(one for one in numbers if numbers.count(one) > 1)
        raise ValueError(f"the rows of cut {shown(twice)} must follow one another")
    cuts = tuple(_cut(number, rows) for number, rows in together)
    sizes = header["input_shape"].strip()  # none for a scalar
    shape = tuple(_count("input_shape", size, 1) for size in sizes.split("x")) if sizes else ()
    profile = Profile(name, clean_text(header["source"]), shape, _input_bits(header["input_bits"]), cuts)
    _check(profile)
    return profile


def check_cells(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError if a row has more cells than the first line, as with a decimal comma; EXTRA is their key."""
    for row in rows:
        if any(extra := row.get(EXTRA, [])):
            cells = [*(cell or "" for name, cell in row.items() if name != EXTRA), *extra]
            raise ValueError(f"{shown(','.join(cells))} has more cells than the first line; write 1.5, not 1,5")


def _cut(number: str, rows: list[dict[str, str | None]]) -> Cut:
    """The cut of the rows with that number."""
    macs = {_count("macs", row["macs"], 0) for row in rows}
    seconds = {_seconds(row.get("seconds")) for row in rows}
    if len(macs) > 1 or len(seconds) > 1:
        raise ValueError(f"the rows of cut {shown(number)} differ in macs or seconds")
    tensors = tuple(map(_tensor, rows))
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ValueError(f"cut {shown(number)} lists a tensor twice")
    return Cut(tensors, macs.pop(), seconds.pop())


def _tensor(row: dict[str, str | None]) -> Tensor:
    dtype = row.get("dtype") or "float32"
    if dtype not in FLOAT_BITS | OTHER_BITS:
        raise ValueError(f"dtype must be one such as float32, float16, int64, uint8, got {shown(dtype)}")
    return Tensor(clean_name(row["after"] or ""), _count("elements", row["elements"], 0), dtype)


def _count(column: str, text: str | None, least: int) -> int:
    """A whole number from `least` to MAX_COUNT."""
    if not re.fullmatch(r"[0-9]{1,16}", (text or "").strip()) or not least <= int(text or "") <= MAX_COUNT:
        raise ValueError(f"{column} must be whole numbers from {least} to 2^53, got {shown(text or '')}")
    return int(text or "")


def _seconds(text: str | None) -> float | None:
    """A measured time [s]; None if there is none."""
    if not text:
        return None
    if not 0 <= (seconds := _number("seconds", text)) < 1e9:
        raise ValueError(f"seconds must be from 0 to 1e9, got {shown(text)}")
    return seconds


def _input_bits(text: str) -> float:
    if not 1 <= (bits := _number("input_bits", text)) <= MAX_COUNT:
        raise ValueError(f"input_bits must be from 1 to 2^53, got {shown(text)}")
    return bits


def _number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{column} must be numbers, got {shown(text)}") from None


def _check(profile: Profile) -> None:
    """Raise ValueError unless MACs and seconds rise from 0, the MACs to a positive total, and tensors have elements."""
    macs = [cut.macs for cut in profile.cuts]
    if len(macs) < 2 or macs[0] != 0 or macs[-1] <= 0 or sorted(macs) != macs:
        raise ValueError("macs must rise from 0 to a positive total")
    if min(tensor.own_bits for cut in profile.cuts[:-1] for tensor in cut.tensors) <= 0:
        raise ValueError("elements must be positive, and the dtype of a tensor that is sent not 'other'")
    times = [cut.seconds for cut in profile.cuts]
    measured = [time for time in times if time is not None]
    if measured and (len(measured) < len(times) or measured[0] != 0 or sorted(measured) != measured):
        raise ValueError("seconds must be given for all cuts, and rise from 0")


def write_profile(profile: Profile) -> str:
    """The text of a profile's CSV file."""
    shape = "x".join(str(size) for size in profile.input_shape)
    header = f"# source: {profile.source}\n# input_shape: {shape}\n# input_bits: {profile.input_bits:.17g}\n"
    columns = COLUMNS[:-1] if profile.seconds is None else COLUMNS
    lines = [",".join(columns)]
    for i, cut in enumerate(profile.cuts):
        time = [] if profile.seconds is None else [f"{cut.seconds:.9g}"]
        lines += [",".join([str(i), t.name, str(cut.macs), str(t.elements), t.dtype, *time]) for t in cut.tensors]
    return header + "\n".join(lines) + "\n"
