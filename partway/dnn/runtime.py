"""Runs a network in onnxruntime: the time of the layers before cuts, and whether two submodels equal the network.

Graph optimisation is off, so that every node is kept: times are those of single layers (a runtime that fuses layers is
faster), and the submodels must give exactly the output of the network.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partway.dnn.control_flow import reads
from partway.dnn.graph import Network, Position, needed
from partway.errors import InputError

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
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Split:
    """The result of running both submodels of one cut.

    cut        number of the cut in the profile      after      names of its tensors
    exact      whether all outputs are equal to those of the network, bit by bit
    deviation  largest absolute difference of any output, infinite if they differ in shape
    rounding   whether it is at most the rounding of a float16 or bfloat16 tensor: onnxruntime computes with float32
               in between, and only a tensor at a cut is rounded
    """

    cut: int
    after: str
    exact: bool
    deviation: float
    rounding: bool


def check(network: Network, limit: int | None = None, seed: int = 0) -> list[Split]:
    """Run both submodels of every cut in sequence and compare the outputs with those of the original graph.

    limit  check at most this many cuts, evenly spaced; None: all. The two ends of the network are not cuts.

    Raises InputError if onnxruntime cannot run the network or its tensors need more memory than there is.
    """
    inputs, computed = random_inputs(network, seed), _computed(network)
    expected = _run(_session(network, _with_outputs(network.original, computed), threads=1), inputs)
    count = len(network.positions)
    chosen = range(count) if limit is None else sorted({round(i) for i in np.linspace(0, count - 1, min(limit, count))})
    return [_split(network, i + 1, network.positions[i], inputs, expected) for i in chosen]


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


def _split(network: Network, cut: int, position: Position, inputs: Tensors, expected: Tensors) -> Split:
    before = {name for node in network.nodes[: position.nodes] for name in node.output}
    early = [name for name in expected if name in before]
    late = [name for name in expected if name not in before]
    sent = [name for name in position.tensors if name in before]
    at_device = dict(inputs)
    if sent or early:
        front = submodel(network, network.inputs, list(dict.fromkeys([*sent, *early])))
        at_device |= _run(_session(network, front, threads=1), {name: inputs[name] for name in _inputs(front)})
    back = submodel(network, position.tensors, late)
    at_server = _run(_session(network, back, threads=1), {name: at_device[name] for name in _inputs(back)})
    outputs = at_device | at_server
    deviation = max((_deviation(expected[name], outputs[name]) for name in expected), default=0.0)
    exact = all(_equal(expected[name], outputs[name]) for name in expected)
    rounding = exact or (_is_half(network) and all(_is_rounded(expected[name], outputs[name]) for name in expected))
    return Split(cut, "+".join(position.tensors), exact, 0.0 if exact else deviation, rounding)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=_is_real(one.dtype))


def _is_real(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))  # the short ones are of kind V


def _deviation(one: np.ndarray, other: np.ndarray) -> float:
    """Largest absolute difference; infinite for arrays that cannot be subtracted."""
    if one.shape != other.shape or one.dtype.kind in "OSU":
        return 0.0 if _equal(one, other) else np.inf
    with np.errstate(invalid="ignore"):  # equal infinities differ by NaN, which does not count
        difference = np.abs(one.astype(float) - other.astype(float))
    return float(np.max(difference, initial=0.0, where=~np.isnan(difference)))


def _is_half(network: Network) -> bool:
    """Whether the network computes with 16-bit real numbers."""
    halves = {name for name, tensor in network.tensors.items() if tensor.dtype in ("float16", "bfloat16")}
    return any(name in halves for node in network.nodes for name in node.output)


def _is_rounded(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two outputs differ by no more than 16-bit rounding, relative to the largest number."""
    if not _is_real(one.dtype):
        return _equal(one, other)
    largest = np.max(np.abs(one.astype(float)), initial=0.0, where=np.isfinite(one.astype(float)))
    return _deviation(one, other) <= HALF_TOLERANCE * float(largest)


def submodel(network: Network, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """A model of the part of the network that computes the tensors `outputs` from the tensors `inputs`."""
    graph = network.model.graph
    nodes = needed(graph.node, outputs, inputs)
    read = {name for node in nodes for name in reads(node)}
    values = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    part = onnx.helper.make_graph(
        nodes,
        graph.name,
        [values[name] for name in inputs if name in read],
        [values[name] for name in outputs],
        [tensor for tensor in graph.initializer if tensor.name in read],
    )
    model = network.model
    return onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)


def measure(network: Network, runs: int = 10, seed: int = 0) -> np.ndarray:
    """(cuts,) time [s] of the nodes before each cut; 0 at the input.

    It is the sum of the times between cuts, each the median of `runs` runs on all cores of this machine, after one
    warm-up run.

    Raises InputError if onnxruntime cannot run the network or its tensors need more memory than there is.
    """
    inputs = random_inputs(network, seed)
    with tempfile.TemporaryDirectory() as folder:
        session = _session(network, _numbered(network), profile=folder)
        for _ in range(runs + 1):
            _run(session, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
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
        inputs[value.name] = np.asarray(numbers if _is_real(dtype) else np.round(numbers)).astype(dtype)
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
                f"{memory / 2**30:.0f} GiB; give smaller sizes by --shape"
            )


def _session(
    network: Network, model: ModelProto, threads: int = 0, profile: str | None = None
) -> onnxruntime.InferenceSession:
    """A session on the CPU. One thread makes the order of sums deterministic; 0 threads means all cores."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry(WEIGHTS_FOLDER, str(network.path.parent.absolute()))
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(profile) / "run")
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of onnxruntime share no narrower base
        raise InputError(f"onnxruntime cannot load '{network.path}': {str(error)[:200]}") from None


def _run(session: onnxruntime.InferenceSession, inputs: Tensors) -> Tensors:
    names = [value.name for value in session.get_outputs()]
    try:
        return {name: np.asarray(output) for name, output in zip(names, session.run(names, inputs), strict=True)}
    except Exception as error:  # the exceptions of onnxruntime share no narrower base
        raise InputError(f"onnxruntime cannot run the network: {str(error)[:200]}") from None


def _inputs(model: ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]
