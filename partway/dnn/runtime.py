"""A network run by onnxruntime: seconds of the work between cuts, and proof that the two parts make the whole.

Graph optimisation is off in both, so that every node stays itself: the seconds are those of single layers (a runtime
that fuses them is faster), and the parts must give exactly what the whole gives.
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
    raise InputError(f"{error}: running a network needs more packages; do `pip install 'partway[onnx]'`") from None

Tensors = dict[str, np.ndarray]
CONSTANT = "constant"
"""Begins the name of every node that does not depend on the input: done once, not in every inference."""
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class Split:
    """One cut tried out: its row in the profile, its tensor, and whether the parts gave exactly the whole's output.

    `deviation`: largest absolute difference of any output.
    """

    cut: int
    after: str
    exact: bool
    deviation: float


def check(network: Network, most: int | None = None, seed: int = 0) -> list[Split]:
    """Cut the network, run front and back one after the other, and compare with the file's own graph, run whole.

    most  try this many cuts, evenly spaced; None: all. The two ends (nothing or everything in front) are no split.
    """
    fed = random_inputs(network, seed)
    wanted = _run(_session(network, network.whole, threads=1), fed)
    count = len(network.positions)
    chosen = range(count) if most is None else sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})
    return [_split(network, i + 1, network.positions[i], fed, wanted) for i in chosen]


def _split(network: Network, cut: int, position: Position, fed: Tensors, wanted: Tensors) -> Split:
    made = {name for node in network.nodes[: position.nodes] for name in node.output}
    early = [name for name in network.outputs if name in made]
    late = [name for name in network.outputs if name not in made]
    front = submodel(network, network.inputs, list(dict.fromkeys([position.tensor, *early])))
    back = submodel(network, [position.tensor], late)
    given = _run(_session(network, front, threads=1), {name: fed[name] for name in _inputs(front)})
    sent = {name: given[name] for name in _inputs(back)}
    got = given | _run(_session(network, back, threads=1), sent)
    exact = all(np.array_equal(wanted[name], got[name], equal_nan=True) for name in network.outputs)
    off = [] if exact else [np.abs(wanted[name].astype(float) - got[name].astype(float)) for name in network.outputs]
    return Split(cut, position.tensor, exact, max((float(np.nanmax(one)) for one in off), default=0.0))


def submodel(network: Network, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """The part of the network that makes the tensors `outputs` from the tensors `inputs`, as a model of its own."""
    graph = network.model.graph
    nodes = needed(graph.node, outputs, inputs)
    read = {name for node in nodes for name in node.input}
    values = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    piece = onnx.helper.make_graph(
        nodes,
        graph.name,
        [values[name] for name in inputs if name in read],
        [values[name] for name in outputs],
        [tensor for tensor in graph.initializer if tensor.name in read],
    )
    model = network.model
    return onnx.helper.make_model(piece, opset_imports=model.opset_import, ir_version=model.ir_version)


def measure(network: Network, runs: int = 10, seed: int = 0) -> np.ndarray:
    """Seconds [s] of the nodes between each cut and the one before, shape (cuts,); the first is 0.

    The median of `runs` runs on this machine with all its cores, after one that does not count.
    """
    fed = random_inputs(network, seed)
    with tempfile.TemporaryDirectory() as folder:
        session = _session(network, _numbered(network), profile=folder)
        for _ in range(runs + 1):
            _run(session, fed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    seconds = _node_seconds(events, runs + 1, len(network.nodes))[1:]
    starts = [0, *(position.nodes for position in network.positions)]
    return np.concatenate([[0.0], np.median(np.add.reduceat(seconds, starts, axis=1), axis=0)])


def _numbered(network: Network) -> ModelProto:
    """The model with each node named by its place in `network.nodes`, which the profiler then tells."""
    places = {name: place for place, node in enumerate(network.nodes) for name in node.output if name}
    model = ModelProto()
    model.CopyFrom(network.model)
    for i, node in enumerate(model.graph.node):
        node.name = str(next((places[name] for name in node.output if name in places), f"{CONSTANT}{i}"))
    return model


def _node_seconds(events: Sequence[dict[str, Any]], runs: int, nodes: int) -> np.ndarray:
    """Seconds [s] per run and node, shape (runs, nodes), of the profiler's events, which stand in order of execution.

    Where onnxruntime has no kernel for a node it runs several of its own names instead: their time goes to the next
    node that has no event under its own name.
    """
    kernels = [(event, event["name"].removesuffix("_kernel_time")) for event in events]
    own = {int(name) for _, name in kernels if name.isdecimal()}
    replaced = sorted(set(range(nodes)) - own)
    seconds, run, place = np.zeros((runs, nodes)), 0, 0
    for event, name in kernels:
        if event["cat"] == "Node" and event["name"] != name and not name.startswith(CONSTANT):
            place = int(name) if name.isdecimal() else next((i for i in replaced if i >= place), place)
            seconds[run, place] += event["dur"] * 1e-6
        elif name == "model_run":
            run, place = run + 1, 0
    return seconds


def random_inputs(network: Network, seed: int = 0) -> Tensors:
    """A tensor for every input: numbers in [0, 1), integers 0 and 1."""
    rng = np.random.default_rng(seed)
    fed: Tensors = {}
    for value in network.whole.graph.input:
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        drawn = rng.random([dim.dim_value for dim in value.type.tensor_type.shape.dim])
        fed[value.name] = (drawn if np.issubdtype(kind, np.floating) else np.round(drawn)).astype(kind)
    return fed


def _session(
    network: Network, model: ModelProto, threads: int = 0, profile: str | None = None
) -> onnxruntime.InferenceSession:
    """A session on the processor; one thread adds up in one order, 0 takes all cores."""
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
    except Exception as error:  # its exceptions share no narrower base
        raise InputError(f"onnxruntime cannot load '{network.path}': {str(error)[:200]}") from None


def _run(session: onnxruntime.InferenceSession, fed: Tensors) -> Tensors:
    names = [value.name for value in session.get_outputs()]
    try:
        return {name: np.asarray(made) for name, made in zip(names, session.run(names, fed), strict=True)}
    except Exception as error:  # its exceptions share no narrower base
        raise InputError(f"onnxruntime cannot run the network: {str(error)[:200]}") from None


def _inputs(model: ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]
