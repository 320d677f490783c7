"""Runs a network in onnxruntime: the time of the layers between cuts, and whether two submodels equal the network.

Graph optimisation is off, so that every node is kept: times are those of single layers (a runtime that fuses layers is
faster), and the submodels must give exactly the output of the network.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partway.dnn.graph import Network, Position, needed
from partway.errors import InputError

try:
    import onnx
    import onnxruntime
    from onnx import ModelProto
except ImportError as error:
    raise InputError(f"{error}: running a network needs the extra packages of `pip install 'partway[onnx]'`") from None

Tensors = dict[str, np.ndarray]
CONSTANT = "constant"
"""Prefix of the names of nodes that do not depend on the input: they run once, not in every inference."""
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Split:
    """The result of running both submodels of one cut.

    cut        number of the cut in the profile      after      name of its tensor
    exact      whether all outputs are equal to those of the network, bit by bit
    deviation  largest absolute difference of any output
    """

    cut: int
    after: str
    exact: bool
    deviation: float


def check(network: Network, limit: int | None = None, seed: int = 0) -> list[Split]:
    """Run both submodels of every cut in sequence and compare the outputs with those of the original graph.

    limit  check at most this many cuts, evenly spaced; None: all. The two ends of the network are not cuts.
    """
    inputs = random_inputs(network, seed)
    expected = _run(_session(network, network.original, threads=1), inputs)
    count = len(network.positions)
    chosen = range(count) if limit is None else sorted({round(i) for i in np.linspace(0, count - 1, min(limit, count))})
    return [_split(network, i + 1, network.positions[i], inputs, expected) for i in chosen]


def _split(network: Network, cut: int, position: Position, inputs: Tensors, expected: Tensors) -> Split:
    computed = {name for node in network.nodes[: position.nodes] for name in node.output}
    early = [name for name in network.outputs if name in computed]
    late = [name for name in network.outputs if name not in computed]
    front = submodel(network, network.inputs, list(dict.fromkeys([position.tensor, *early])))
    back = submodel(network, [position.tensor], late)
    at_device = _run(_session(network, front, threads=1), {name: inputs[name] for name in _inputs(front)})
    at_server = _run(_session(network, back, threads=1), {name: at_device[name] for name in _inputs(back)})
    outputs = at_device | at_server
    exact = all(np.array_equal(expected[name], outputs[name], equal_nan=True) for name in network.outputs)
    return Split(cut, position.tensor, exact, 0.0 if exact else _deviation(network.outputs, expected, outputs))


def _deviation(names: Sequence[str], expected: Tensors, outputs: Tensors) -> float:
    """Largest absolute difference of the named tensors."""
    return max(float(np.nanmax(np.abs(expected[name].astype(float) - outputs[name].astype(float)))) for name in names)


def submodel(network: Network, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """A model of the part of the network that computes the tensors `outputs` from the tensors `inputs`."""
    graph = network.model.graph
    nodes = needed(graph.node, outputs, inputs)
    read = {name for node in nodes for name in node.input}
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
    """(cuts,) time [s] of the nodes between each cut and the one before; the first is 0.

    The median of `runs` runs on all cores of this machine, after one warm-up run.
    """
    inputs = random_inputs(network, seed)
    with tempfile.TemporaryDirectory() as folder:
        session = _session(network, _numbered(network), profile=folder)
        for _ in range(runs + 1):
            _run(session, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    seconds = _node_seconds(events, runs + 1, len(network.nodes))[1:]
    starts = [0, *(position.nodes for position in network.positions)]
    return np.concatenate([[0.0], np.median(np.add.reduceat(seconds, starts, axis=1), axis=0)])


def _numbered(network: Network) -> ModelProto:
    """The model with each node named by its index in `network.nodes`, so that the profiler reports the index."""
    index_of = {name: index for index, node in enumerate(network.nodes) for name in node.output if name}
    model = ModelProto()
    model.CopyFrom(network.model)
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
    """A random tensor for every input: real numbers in [0, 1), or integers 0 and 1."""
    rng = np.random.default_rng(seed)
    inputs: Tensors = {}
    for value in network.original.graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        numbers = rng.random([dim.dim_value for dim in value.type.tensor_type.shape.dim])
        inputs[value.name] = (numbers if np.issubdtype(dtype, np.floating) else np.round(numbers)).astype(dtype)
    return inputs


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
