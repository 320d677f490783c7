"""Runs a network in onnxruntime: the time of the layers before cuts, and whether two halves equal the network.

Graph optimisation is off, so that every node is kept: times are those of single layers (a runtime that fuses layers is
faster), and the halves must give exactly the output of the network.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partway.arguments import named
from partway.dnn.boundary import offered
from partway.dnn.graph import Network
from partway.dnn.halves import Cutter
from partway.errors import InputError, shorten

try:
    import onnx
    import onnxruntime
    from onnx import ModelProto
except ImportError as error:
    raise InputError(f"{error}: running a network needs the extra packages of `pip install 'partway[onnx]'`") from None

Tensors = dict[str, np.ndarray]
HALF_TOLERANCE = 8 * 2.0**-10
"""Largest deviation that passes for float16 rounding: a few units of its last place."""
CONSTANT = "constant"
"""Prefix of the names of nodes that do not depend on the input: they run once, not in every inference."""
RANDOM = "the network is random: two runs of the whole on the same inputs differ, so its halves cannot be verified"
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Check:
    """The result of running both halves of one cut.

    cut        number of the cut in the profile      after      names of its tensors
    exact      whether all outputs are equal to those of the network, bit by bit
    deviation  largest absolute difference of any output, infinite if they differ in shape
    rounding   whether it is at most the rounding of a float16 or bfloat16 tensor: onnxruntime computes with float32
               in between, and only a tensor at a cut is rounded
    finite     whether any element of the network's outputs is finite; without one equality says little
    """

    cut: int
    after: str
    exact: bool
    deviation: float
    rounding: bool
    finite: bool


def check(network: Network, limit: int | None = None, seed: int = 0) -> list[Check]:
    """Run both halves of every cut in sequence and compare the outputs with those of the original graph.

    limit  check at most this many cuts, evenly spaced; None: all. The two ends of the network are not cuts.

    Raises InputError if onnxruntime cannot run the network, its tensors need more memory than there is, or two runs of
    the whole network differ.
    """
    inputs, cutter = random_inputs(network, seed), Cutter(network)
    expected, half = whole_session(network).run(inputs), is_half(network)
    finite = any(
        np.isfinite(magnitudes(values)).any() for values in expected.values() if values.dtype.kind not in "OSU"
    )
    count, found = len(network.positions), list[Check]()
    chosen = range(count) if limit is None else sorted({round(i) for i in np.linspace(0, count - 1, min(limit, count))})
    for number in (i + 1 for i in chosen):
        boundary = offered(network, number)
        halves = cutter.halves(boundary)
        front, back = (Session(model, network.path.parent) for model in (halves.front, halves.back))
        outputs = run_both(front, back, inputs)
        exact = all(equal(expected[name], outputs[name]) for name in expected)
        rounding = exact or (half and all(is_rounded(expected[name], outputs[name]) for name in expected))
        largest = max((deviation(expected[name], outputs[name]) for name in expected), default=0.0)
        found.append(Check(number, boundary.after, exact, 0.0 if exact else largest, rounding, finite))
    if not all(one.rounding for one in found) and differs_from_itself(network, inputs):
        raise InputError(RANDOM)
    return found


def run_both(front: "Session", back: "Session", inputs: Tensors) -> Tensors:
    """The outputs of both halves; the back half reads outputs of the front half, and inputs that the device sends."""
    at_device = inputs | front.run(inputs)
    return at_device | back.run(at_device)


def whole_session(network: Network) -> "Session":
    """A session for the graph of the file, with the outputs that are computed from the inputs."""
    return Session(_with_outputs(network.original, _computed(network)), network.path.parent)


def _computed(network: Network) -> list[str]:
    """The outputs that are computed from the inputs; others are inputs or constants."""
    made = {name for node in network.nodes for name in node.output}
    return [name for name in network.outputs if name in made]


def _with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model with these outputs only; onnxruntime loads none whose output is a constant."""
    copy = ModelProto()
    copy.CopyFrom(model)
    kept = [value for value in model.graph.output if value.name in names]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    return copy


def differs_from_itself(network: Network, inputs: Tensors) -> bool:
    """Whether two runs of the whole network on the same inputs differ, as with RandomNormalLike."""
    whole = whole_session(network)
    first, second = whole.run(inputs), whole.run(inputs)
    return not all(equal(first[name], second[name]) for name in first)


def magnitudes(values: np.ndarray) -> np.ndarray:
    """Absolute value of each element, as float64."""
    return np.abs(values.astype(complex if values.dtype.kind == "c" else float))


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tensors are equal in type, shape and every element; NaN is equal to NaN."""
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=is_real(one.dtype))


def is_real(dtype: np.dtype[Any]) -> bool:
    """Whether a data type is one of real or complex numbers."""
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))  # the short ones are of kind V


def deviation(one: np.ndarray, other: np.ndarray) -> float:
    """Largest absolute difference; infinite for arrays that cannot be subtracted."""
    if one.shape != other.shape or one.dtype.kind in "OSU":
        return 0.0 if equal(one, other) else np.inf
    return float(np.max(difference(one, other), initial=0.0))


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute difference of each element; 0 where both are NaN or the same infinity, infinite where one is NaN."""
    wide = complex if one.dtype.kind == "c" else float
    with np.errstate(invalid="ignore"):
        found = np.abs(one.astype(wide) - other.astype(wide))
    same = (one == other) | ((one != one) & (other != other))
    return np.where(same, 0.0, np.where(np.isnan(found), np.inf, found))


def is_half(network: Network) -> bool:
    """Whether the network computes with 16-bit real numbers."""
    halves = {name for name, tensor in network.tensors.items() if tensor.dtype in ("float16", "bfloat16")}
    return any(name in halves for node in network.nodes for name in node.output)


def is_rounded(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two outputs differ by no more than 16-bit rounding, relative to the largest number."""
    if not is_real(one.dtype):
        return equal(one, other)
    largest = np.max(np.abs(one.astype(float)), initial=0.0, where=np.isfinite(one.astype(float)))
    return deviation(one, other) <= HALF_TOLERANCE * float(largest)


def measure(network: Network, runs: int = 10, seed: int = 0) -> np.ndarray:
    """(cuts,) time [s] of the nodes before each cut; 0 at the input.

    It is the sum of the times between cuts, each the median of `runs` runs on all cores of this machine, after one
    warm-up run.

    Raises InputError if onnxruntime cannot run the network or its tensors need more memory than there is.
    """
    inputs = random_inputs(network, seed)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(_numbered(network), network.path.parent, threads=0, profile=folder)
        for _ in range(runs + 1):
            session.run(inputs)
        events = json.loads(session.end_profiling().read_text(encoding="utf-8"))
    seconds = _node_seconds(events, runs + 1, len(network.nodes))[1:]
    starts = [0, *(position.nodes for position in network.positions)]
    return np.cumsum([0.0, *np.median(np.add.reduceat(seconds, starts, axis=1), axis=0)])


def _numbered(network: Network) -> ModelProto:
    """The model with each node named by its index in `network.nodes`, so that the profiler reports the index."""
    index_of = {name: index for index, node in enumerate(network.nodes) for name in node.output if name}
    model = ModelProto()
    model.CopyFrom(_with_outputs(network.model, _computed(network)))
    for i, node in enumerate(model.graph.node):
        node.name = str(next((index_of[name] for name in node.output if name in index_of), f"{CONSTANT}{i}"))
    return model


def _node_seconds(events: Sequence[dict[str, Any]], runs: int, nodes: int) -> np.ndarray:
    """(runs, nodes) time [s], from the profiler's events in order of execution.

    onnxruntime replaces a node for which it has no kernel by several nodes with names of its own; their time is added
    to the next node that has no event under its own name.
    """
    kernels = [(event, event["name"].removesuffix("_kernel_time")) for event in events]
    replaced = sorted(set(range(nodes)) - {int(name) for _, name in kernels if name.isdecimal()})
    seconds, run, node = np.zeros((runs, nodes)), 0, 0
    for event, name in kernels:
        if event["cat"] == "Node" and event["name"] != name and not name.startswith(CONSTANT):
            node = int(name) if name.isdecimal() else next((i for i in replaced if i >= node), node)
            seconds[run, node] += event["dur"] * 1e-6
        elif name == "model_run":
            run, node = run + 1, 0
    return seconds


def random_inputs(network: Network, seed: int = 0) -> Tensors:
    """A random tensor for every input: real numbers in [0, 1), or integers 0 and 1.

    Raises InputError if the network's tensors need more memory than this machine has.
    """
    _check_memory(network)
    rng = np.random.default_rng(seed)
    inputs: Tensors = {}
    for value in network.original.graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        numbers = rng.random([dim.dim_value for dim in value.type.tensor_type.shape.dim])
        inputs[value.name] = np.asarray(numbers if is_real(dtype) else np.round(numbers)).astype(dtype)
    return inputs


def _check_memory(network: Network) -> None:
    """Raise InputError if one tensor alone is larger than the memory of this machine."""
    if not hasattr(os, "sysconf"):  # Windows: the run will tell
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name, tensor in network.tensors.items():
        size = 8 * tensor.elements if name in network.inputs else tensor.own_bits / 8  # numbers are drawn in float64
        if size > memory:
            raise InputError(
                f"cannot run the network: tensor '{name}' alone needs {size / 2**30:.0f} GiB, and this machine has "
                f"{memory / 2**30:.0f} GiB; give smaller sizes by {named('shapes')}"
            )


class Session:
    """A model in onnxruntime on the CPU, without graph optimisation.

    model    a model whose external weights are in `folder`, or the path of a file
    threads  one makes the order of sums deterministic; 0 means all cores
    profile  a folder for the profiler's events
    """

    def __init__(
        self, model: ModelProto | Path, folder: Path | None = None, *, threads: int = 1, profile: str | None = None
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        if folder is not None:
            options.add_session_config_entry(WEIGHTS_FOLDER, str(folder.absolute()))
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(profile) / "run")
        try:
            source = str(model) if isinstance(model, Path) else model.SerializeToString()
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the exceptions of onnxruntime share no narrower base
            raise InputError(f"onnxruntime cannot load the network: {shorten(str(error), 200)}") from None
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    def run(self, tensors: Tensors) -> Tensors:
        """The outputs, of the inputs among `tensors`. Raises InputError if onnxruntime cannot compute them."""
        try:
            results = self._session.run(self.outputs, {name: tensors[name] for name in self.inputs})
        except Exception as error:  # the exceptions of onnxruntime share no narrower base
            raise InputError(f"onnxruntime cannot run the network: {shorten(str(error), 200)}") from None
        return {name: np.asarray(output) for name, output in zip(self.outputs, results, strict=True)}

    def end_profiling(self) -> Path:
        """The file of the profiler's events."""
        return Path(self._session.end_profiling())
