"""ONNX file -> Profile: fixed shapes, simplified graph, one pass with a live set.

A tensor is *live* at a position of the graph when it depends on the input, is there already, and is still to be read.
Where exactly one is live, the network can be cut: that tensor is all the server needs. Weights are on both sides and
never sent. An output of the network that is done stays at the device, as the whole result does at the last cut.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any

from partway.dnn.profile import Cut, Profile
from partway.errors import InputError, nearest

try:
    import onnx
    import onnxslim
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, external_data_helper, inliner

    from partway.dnn.macs import Shape, known_shapes, node_macs
except ImportError as error:
    raise InputError(f"{error}: ONNX files need more packages; do `pip install 'partway[onnx]'`") from None

LARGEST_COUNT = 2**53
"""Counts above are not exact in float64, and no network is that large."""
WEIGHT_ELEMENTS = 256
"""Constants above this size are weights: their values are never needed to work out a shape."""
ROUNDS = 4
"""Turns of simplification and shape inference, at most; one is enough for all shipped networks."""
SKIPPED = ["graph_fusion", "subexpression_elimination", "weight_tying"]
"""Left out of onnxslim: what would take away places to cut or work, or compare all weights with each other."""
IR_VERSION = 8
"""Files older than version 4 must list their weights among the inputs; the stubs in the `onnx` package do not."""


@dataclass(frozen=True)
class Position:
    """Where the first `nodes` nodes are done, `macs` with them, and only `tensor` is live."""

    nodes: int
    tensor: str
    macs: int


@dataclass(frozen=True)
class Network:
    """A network of fixed shapes.

    whole      the file's own graph
    model      the simplified one
    nodes      its nodes that depend on the input and lead to an output, in order
    inputs     names of the inputs that they read; `outputs` likewise
    shapes     name -> shape of every tensor
    positions  where it can be cut, without the two ends
    macs       multiply-accumulates of all nodes
    """

    path: Path
    whole: ModelProto
    model: ModelProto
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape]
    positions: tuple[Position, ...]
    macs: int


def profile_model(
    path: str | Path, *, shapes: Mapping[str, Shape] | None = None, input_bits: float | None = None
) -> Profile:
    """The profile of an ONNX file; arguments as in `load_network` and `profile_network`."""
    return profile_network(load_network(path, shapes), input_bits)


def profile_network(network: Network, input_bits: float | None = None) -> Profile:
    """The cut table of a network.

    input_bits  [bit] what the raw cut sends, all inputs together. None: 8 per element of an image (what a camera
                delivers, before any coding), 32 per element of anything else
    """
    if input_bits is not None and not 0 < input_bits < inf:
        raise InputError(f"input_bits is {input_bits}: give the size of the encoded input in bits, above 0")

    def cut(tensors: Sequence[str], macs: int) -> Cut:
        return Cut(_clean("+".join(tensors)), macs, sum(_elements(network.shapes, name) for name in tensors))

    inner = (cut([position.tensor], position.macs) for position in network.positions)
    cuts = (cut(network.inputs, 0), *inner, cut(network.outputs, network.macs))
    shapes = [network.shapes[name] for name in network.inputs]
    bits = sum(prod(shape) * (8 if _is_image(shape) else 32) for shape in shapes)
    path = network.path
    return Profile(_clean(path.stem), f"file {_clean(path.name)}", shapes[0], float(input_bits or bits), cuts)


def load_network(path: str | Path, shapes: Mapping[str, Shape] | None = None) -> Network:
    """Read an ONNX file and find where it can be cut.

    `shapes`: input name -> shape; an input not named keeps the file's, with a batch of 1 where the batch is open.
    Raises InputError, one line that says what to do, for whatever is not a network of fixed shapes.
    """
    path = Path(path)
    try:
        whole = _read(path)
    except Exception as error:  # what onnx, protobuf and the file system raise shares no narrower base
        raise InputError(f"'{path}' is no ONNX network: {str(error)[:200]}; give an intact .onnx file") from None
    _fix_shapes(whole.graph, shapes or {})
    try:
        model = _settle(onnx.shape_inference.infer_shapes(whole, data_prop=True))
    except Exception as error:  # nor does what comes out of the C++ of shape inference
        raise InputError(f"the shapes in '{path}' do not fit: {str(error)[:200]}; check --shape") from None
    return _cut(path, whole, model)


def _read(path: Path) -> ModelProto:
    """The file's model, checked, without weights that are stored beside it, functions of its own expanded."""
    model = onnx.load_model_from_string(path.read_bytes())
    model.ir_version = max(model.ir_version, IR_VERSION)
    graph = model.graph
    for value in graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()  # onnxruntime does without, the checker does not
    names: list[object] = [name for node in graph.node for name in (*node.input, *node.output)]
    if not all(isinstance(name, str) for name in (*names, *(value.name for value in graph.input))):
        raise ValueError("a tensor's name is not UTF-8")  # protobuf gives bytes then
    beside = any(external_data_helper.uses_external_data(tensor) for tensor in graph.initializer)
    onnx.checker.check_model(str(path) if beside else model)
    return inliner.inline_local_functions(model) if model.functions else model


def _fix_shapes(graph: GraphProto, shapes: Mapping[str, Shape]) -> None:
    """Give every input a fixed shape, and forget the shapes that followed from the old ones."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise InputError(f"--shape names '{name}', which is no input{nearest(name, names)}")
    del graph.input[:], graph.value_info[:]
    for value in inputs:
        shape = _fixed_shape(value, shapes.get(value.name))
        graph.input.append(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _fixed_shape(value: ValueInfoProto, given: Shape | None) -> Shape:
    kind = value.type.tensor_type
    sizes = [max(dim.dim_value, 0) for dim in kind.shape.dim]
    steps = any(re.search("seq|len|time", str(dim.dim_param), re.IGNORECASE) for dim in kind.shape.dim[:1])
    if len(sizes) > 1 and not sizes[0] and not steps:
        sizes[0] = 1  # the batch
    shape = tuple(sizes) if given is None and kind.HasField("shape") else given or (0,)
    if min(shape, default=1) < 1 or (sizes and len(sizes) != len(shape)):
        shown = "x".join(str(size or "?") for size in sizes) or "unknown"
        example = "x".join(str(size or 224) for size in sizes or [1, 3, 0, 0])
        raise InputError(f"input '{value.name}' is {shown} in the file: give its sizes, --shape {value.name}={example}")
    return shape


def _settle(model: ModelProto) -> ModelProto:
    """Simplify and infer shapes in turn: a constant worked out may fix a shape, and a shape make a constant."""
    for _ in range(ROUNDS):
        model = onnx.shape_inference.infer_shapes(_simplify(model), strict_mode=True, data_prop=True)
        known = known_shapes(model.graph)
        if all(name in known for node in model.graph.node for name in node.output if name):
            break
    return model


def _simplify(model: ModelProto) -> ModelProto:
    """The same function with constants worked out and no-ops removed; the graph as it is where onnxslim fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slim = _slim(model)
    except Exception:  # whatever goes wrong in there, the graph as it is can still be cut
        return model
    same = [value.name for value in slim.graph.output] == [value.name for value in model.graph.output]
    return slim if same else model


def _slim(model: ModelProto) -> ModelProto:
    """What onnxslim makes of the model. Weights pass through it as inputs, so that nobody copies or folds them."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if prod(tensor.dims) > WEIGHT_ELEMENTS}
    opened = [onnx.helper.make_tensor_value_info(name, w.data_type, w.dims) for name, w in weights.items()]
    small = [tensor for tensor in graph.initializer if tensor.name not in weights]
    inputs = [*graph.input, *opened]
    bare = onnx.helper.make_graph(graph.node, graph.name, inputs, graph.output, small, value_info=graph.value_info)
    bare = onnx.helper.make_model(bare, opset_imports=model.opset_import, ir_version=model.ir_version)
    tidy: Callable[..., Any] = onnxslim.slim  # the types it declares are not those it takes and gives
    # shapes are inferred by onnx: onnxslim's own inference hangs on some broken files
    slim: ModelProto = tidy(bare, skip_optimizations=SKIPPED, size_threshold=WEIGHT_ELEMENTS * 4, no_shape_infer=True)
    inputs = list(slim.graph.input)
    slim.graph.initializer.extend(weights[value.name] for value in inputs if value.name in weights)
    del slim.graph.input[:]
    slim.graph.input.extend(value for value in inputs if value.name not in weights)
    return slim


def _cut(path: Path, whole: ModelProto, model: ModelProto) -> Network:
    """Find the positions where exactly one tensor is live."""
    shapes = known_shapes(model.graph)
    outputs = [value.name for value in model.graph.output]
    nodes = _dependent(needed(model.graph.node, outputs), [value.name for value in model.graph.input])
    readers = Counter(name for node in nodes for name in set(node.input) if name)
    inputs = [value.name for value in model.graph.input if readers[value.name]]
    live, macs, positions = set(inputs), 0, list[Position]()
    for done, node in enumerate(nodes, 1):
        macs += node_macs(node, shapes)
        readers.subtract(set(node.input))
        live = {name for name in live.union(node.output) if readers[name] > 0}
        if len(live) == 1:
            positions.append(Position(done, next(iter(live)), macs))
    if not 0 < macs < LARGEST_COUNT:
        raise InputError(f"'{path}' does {macs} multiply-accumulates on its input: there is no work to share")
    return Network(path, whole, model, tuple(nodes), tuple(inputs), tuple(outputs), shapes, tuple(positions), macs)


def needed(nodes: Sequence[NodeProto], wanted: Iterable[str], given: Collection[str] = ()) -> list[NodeProto]:
    """The nodes, in order, that make the tensors `wanted` when the tensors `given` are handed in."""
    missing, kept = set(wanted).difference(given), list[NodeProto]()
    for node in reversed(nodes):
        if not missing.isdisjoint(node.output):
            missing.update(name for name in node.input if name and name not in given)
            kept.append(node)
    return kept[::-1]


def _dependent(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that depend on the inputs. Control flow and operators of unknown work among them are refused."""
    tensors, kept = set(inputs), list[NodeProto]()
    for node in nodes:
        if any(item.HasField("g") for item in node.attribute):
            raise InputError(f"control flow ({node.op_type} '{node.name}') cannot be cut: export without it")
        if tensors.isdisjoint(node.input):
            continue
        if node.domain not in ("", "ai.onnx"):
            raise InputError(f"operator {node.domain}.{node.op_type} is not standard: export with plain ONNX operators")
        tensors.update(name for name in node.output if name)
        kept.append(node)
    return kept


def _elements(shapes: Mapping[str, Shape], name: str) -> int:
    elements = prod(shapes[name])
    if not 0 < elements < LARGEST_COUNT:
        raise InputError(f"tensor '{name}' has {elements} elements: nothing to send")
    return elements


def _is_image(shape: Shape) -> bool:
    """Whether a shape is that of gray or colour pictures, channels first or last."""
    return len(shape) == 4 and any(
        channels in (1, 3) and min(sides) > 7 for channels, sides in ((shape[1], shape[2:]), (shape[3], shape[1:3]))
    )


def _clean(name: str) -> str:
    """The name without what would break a line of the CSV file."""
    return re.sub(r"[^\w./:+-]", "_", name)
