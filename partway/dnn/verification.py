"""Runs both halves of a cut from their files, and compares what they give with what the whole network gives.

Graph optimisation is off: then halves whose tensors are sent in their own data type give the same bits. What a coded
tensor costs in accuracy is measured on the user's own inputs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from partway.arguments import named
from partway.dnn.graph import Network
from partway.dnn.runtime import (
    Session,
    Tensors,
    difference,
    differs_from_itself,
    equal,
    is_half,
    is_real,
    is_rounded,
    magnitudes,
    random_inputs,
    run_both,
    whole_session,
)
from partway.errors import InputError, shorten, shown

SUFFIXES = (".npy", ".npz")
"""Of files of inputs."""


@dataclass(frozen=True)
class Verification:
    """How the outputs of both halves differ from those of the whole network.

    examples        inputs that were tried
    exact           whether all outputs are equal, bit by bit
    rounding        whether they are not equal, but differ by no more than float16 rounding, in a network that computes
                    with 16-bit numbers
    same_shapes     whether all outputs have the shapes of the whole network's
    elements        elements of the whole network's outputs
    finite          those of them that are neither infinite nor NaN
    lost            those that are infinite or NaN where the other side is not, or is another of these
    largest_error   largest absolute difference of the elements that are not lost; None where outputs differ in shape
    mean_error      mean absolute difference of these elements; None likewise
    largest_output  largest absolute value of an element of the whole network's outputs, to compare the errors with
    top1_agreement  share of the predictions in which the largest score is in the same place: along the channels of
                    outputs with four or more axes, along the last axis of others; None without finite scores
    """

    examples: int
    exact: bool
    rounding: bool
    same_shapes: bool
    elements: int
    finite: int
    lost: int
    largest_error: float | None
    mean_error: float | None
    largest_output: float
    top1_agreement: float | None


class Reference:
    """The outputs of a whole network for some inputs: what its halves are compared with.

    folder  of the inputs: a .npz file per example, with an array for every input of the network, or a .npy file if it
            has one input. None: one example, drawn at random

    Raises InputError if the folder has no examples, one does not fit, or onnxruntime cannot run the network.
    """

    def __init__(self, network: Network, folder: Path | None = None):
        self._network, self._files = network, None if folder is None else example_files(folder)
        whole = whole_session(network)
        self._expected = [whole.run(inputs) for inputs in self._examples()]

    def is_random(self) -> bool:
        """Whether two runs of the whole network differ: then its halves cannot be compared with it."""
        return any(differs_from_itself(self._network, inputs) for inputs in self._examples())

    def _examples(self) -> Iterator[Tensors]:
        if self._files is None:
            yield random_inputs(self._network)
            return
        for path in self._files:
            yield read_example(self._network, path)

    def compare(self, front: Path, back: Path) -> Verification:
        """The result of the two halves in these files."""
        sessions, measured = (Session(front), Session(back)), _Measured()
        exact, rounding, half = True, True, is_half(self._network)
        for inputs, expected in zip(self._examples(), self._expected, strict=True):
            found = run_both(*sessions, inputs)
            same = all(equal(expected[name], found[name]) for name in expected)
            exact &= same
            rounding &= same or (half and all(is_rounded(expected[name], found[name]) for name in expected))
            for name in expected:
                measured.add(expected[name], found[name])
        return measured.verification(len(self._expected), exact, rounding and not exact)


@dataclass
class _Measured:
    """Sums over outputs and examples."""

    same_shapes: bool = True
    largest: float = 0.0
    total: float = 0.0
    elements: int = 0
    finite: int = 0
    lost: int = 0
    output: float = 0.0
    agreeing: int = 0
    predictions: int = 0

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        if expected.dtype.kind in "OSU":
            return
        sizes = magnitudes(expected)
        finite = np.isfinite(sizes)
        self.elements, self.finite = self.elements + sizes.size, self.finite + int(np.sum(finite))
        self.output = max(self.output, float(np.max(sizes, initial=0.0, where=finite)))
        if expected.shape != found.shape:
            self.same_shapes = False
            return
        errors = difference(expected, found)
        known = np.isfinite(errors)
        self.lost += int(np.sum(~known))
        self.largest = max(self.largest, float(np.max(errors, initial=0.0, where=known)))
        self.total += float(np.sum(errors, where=known))
        axis = 1 if expected.ndim >= 4 else -1
        if is_real(expected.dtype) and expected.ndim and expected.size and expected.shape[axis] > 1:
            scored = np.all(finite, axis)
            same = scored & (expected.argmax(axis) == found.argmax(axis)) & np.all(known, axis)
            self.agreeing, self.predictions = self.agreeing + int(np.sum(same)), self.predictions + int(np.sum(scored))

    def verification(self, examples: int, exact: bool, rounding: bool) -> Verification:
        return Verification(
            examples,
            exact,
            rounding,
            self.same_shapes,
            self.elements,
            self.finite,
            self.lost,
            self.largest if self.same_shapes else None,
            self.total / max(1, self.elements - self.lost) if self.same_shapes else None,
            self.output,
            self.agreeing / self.predictions if self.predictions else None,
        )


def example_files(folder: Path) -> list[Path]:
    """The files of inputs in a folder, by name. Raises InputError where there are none."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    except NotADirectoryError:
        given = shown(str(folder), 100)
        raise InputError(
            f"{named('inputs')} takes a folder with a file for each example, got the file {given}"
        ) from None
    except OSError as error:
        raise InputError(f"{named('inputs')} {shown(str(folder), 100)}: cannot be read ({error.strerror})") from None
    if not found:
        given = f"{named('inputs')} {shown(str(folder), 100)}"
        raise InputError(f"{given}: has no .npz or .npy files; save inputs with numpy.savez")
    return found


def read_example(network: Network, path: Path) -> Tensors:
    """The inputs of a network in a .npz file, by name, or in a .npy file.

    Raises InputError if the file cannot be read, or an array is missing or does not fit the input of its name.
    """
    values = {value.name: value.type.tensor_type for value in network.original.graph.input}
    try:
        loaded = np.load(path, allow_pickle=False)
        several = isinstance(loaded, Mapping)
        arrays: Tensors = {
            name: loaded[name] if several else loaded for name in values if not several or name in loaded
        }
    except Exception as error:  # NumPy, zipfile and zlib raise half a dozen kinds of errors for a damaged file
        raise InputError(f"'{path}' is not a file of inputs: {shorten(str(error), 160)}") from None
    if path.suffix == ".npy" and len(values) > 1:
        raise InputError(f"'{path}' has one array, the network the inputs {', '.join(values)}; save a .npz file")
    inputs: Tensors = {}
    for name, tensor in values.items():
        if name not in arrays:
            raise InputError(f"'{path}' has no array '{name}'; it must have {', '.join(values)}")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        array, shape = arrays[name], tuple(dim.dim_value for dim in tensor.shape.dim)
        if array.shape != shape or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise InputError(
                f"'{path}': '{name}' is {array.dtype} of shape {array.shape}, the network reads {dtype} of {shape}"
            )
        inputs[name] = array.astype(dtype)
    return inputs
