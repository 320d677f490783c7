"""ONNX file -> Profile: fix the shapes, simplify the graph, find the cuts by a liveness analysis.

A tensor is *live* at a position of the graph if it depends on the input, is computed before the position and is read
after it. Where exactly one tensor is live the network can be cut: the server needs only that tensor. Both sides have
the weights. Outputs of the network that are computed before the cut remain at the device.
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
from partway.files import read_limited

try:
    import onnx
    import onnxslim
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, external_data_helper, inliner

    from partway.dnn.macs import Shape, known_shapes, node_macs
except ImportError as error:
    raise InputError(f"{error}: ONNX files need the extra packages of `pip install 'partway[onnx]'`") from None

MAX_COUNT = 2**53
"""Larger counts are not exact in float64, and no network is that large."""
MAX_FILE_BYTES = 2**31
"""Protocol buffers cannot be larger; a device such as /dev/zero has no end."""
MAX_SHAPE_ELEMENTS = 256
"""Larger constants are weights: no shape depends on their values."""
MAX_ROUNDS = 4
"""Rounds of simplification and shape inference; one is enough for all shipped networks."""
SKIPPED_OPTIMISATIONS = ["graph_fusion", "subexpression_elimination", "weight_tying"]
"""Optimisations of onnxslim that would remove cuts or work, or compare all weights with each other."""
MIN_IR_VERSION = 8
"""Files older than version 4 must list their weights among the inputs; the stubs in the `onnx` package do not."""


@dataclass(frozen=True)
class Position:
    """A position after the first `nodes` nodes, which do `macs` multiply-accumulates, where only `tensor` is live."""

    nodes: int
    tensor: str
    macs: int


@dataclass(frozen=True)
class Network:
    """A network with fixed shapes.

    original   the graph of the file
    model      the simplified graph
    nodes      nodes of `model` that depend on an input and lead to an output, in order
    inputs     names of the inputs that these nodes read
    outputs    names of the outputs
    shapes     name -> shape of every tensor
    positions  where the network can be cut, without its two ends
    macs       multiply-accumulates of all nodes
    """

    path: Path
    original: ModelProto
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
    """The profile of a network.

    input_bits  [bit] size of all encoded inputs together. None: 8 bits per element of an image (raw camera output),
                32 bits per element of any other input

    Raises InputError unless `input_bits` is positive and finite.
    """
    if input_bits is not None and not 0 < input_bits < inf:
        raise InputError(
            f"input_bits must be positive and finite, got {input_bits}; give the size of the encoded input"
        )

    def cut(tensors: Sequence[str], macs: int) -> Cut:
        return Cut(_clean("+".join(tensors)), macs, sum(_elements(network.shapes, name) for name in tensors))

    inner = (cut([position.tensor], position.macs) for position in network.positions)
    cuts = (cut(network.inputs, 0), *inner, cut(network.outputs, network.macs))
    shapes = [network.shapes[name] for name in network.inputs]
    bits = sum(prod(shape) * (8 if _is_image(shape) else 32) for shape in shapes)
    path = network.path
    return Profile(_clean(path.stem), f"file {_clean(path.name)}", shapes[0], float(input_bits or bits), cuts)


def load_network(path: str | Path, shapes: Mapping[str, Shape] | None = None) -> Network:
    """Read an ONNX file and find the positions where the network can be cut.

    shapes  input name -> shape. Other inputs keep the shape of the file, with a batch of 1 if the batch size is open

    Raises InputError if the file is not an ONNX network, its shapes are not fixed, or it cannot be cut.
    """
    path = Path(path)
    try:
        original = _read(path)
    except Exception as error:  # the exceptions of onnx, protobuf and the file system share no narrower base
        raise InputError(f"'{path}' is not an ONNX network: {str(error)[:200]}; give an intact .onnx file") from None
    _fix_shapes(original.graph, shapes or {})
    try:
        model = _simplify_and_infer(onnx.shape_inference.infer_shapes(original, data_prop=True))
    except Exception as error:  # nor do those of shape inference
        raise InputError(f"the shapes in '{path}' are inconsistent: {str(error)[:200]}; check --shape") from None
    return _find_cuts(path, original, model)


def _read(path: Path) -> ModelProto:
    """The checked model of the file, with local functions expanded; weights in external files are not loaded."""
    model = onnx.load_model_from_string(read_limited(path, MAX_FILE_BYTES))
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)
    graph = model.graph
    for value in graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()  # the checker requires it, onnxruntime does not
    names: list[object] = [name for node in graph.node for name in (*node.input, *node.output)]
    if not all(isinstance(name, str) for name in (*names, *(value.name for value in graph.input))):
        raise ValueError("a tensor's name is not UTF-8")  # protobuf then returns bytes
    external = any(external_data_helper.uses_external_data(tensor) for tensor in graph.initializer)
    onnx.checker.check_model(str(path) if external else model)
    return inliner.inline_local_functions(model) if model.functions else model


def _fix_shapes(graph: GraphProto, shapes: Mapping[str, Shape]) -> None:
    """Give every input a fixed shape, and clear the shapes that were inferred from the old ones."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    for name in shapes:
        if name not in names:
            raise InputError(f"--shape: the network has no input '{name}'{nearest(name, names)}")
    del graph.input[:], graph.value_info[:]
    for value in inputs:
        shape = _fixed_shape(value, shapes.get(value.name))
        graph.input.append(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _fixed_shape(value: ValueInfoProto, given: Shape | None) -> Shape:
    """The shape given by the user, else that of the file, with a batch of 1 if only the batch size is open."""
    tensor = value.type.tensor_type
    sizes = [max(dim.dim_value, 0) for dim in tensor.shape.dim]
    is_sequence = any(re.search("seq|len|time", str(dim.dim_param), re.IGNORECASE) for dim in tensor.shape.dim[:1])
    if len(sizes) > 1 and not sizes[0] and not is_sequence:
        sizes[0] = 1
    shape = tuple(sizes) if given is None and tensor.HasField("shape") else given or (0,)
    if min(shape, default=1) < 1 or (sizes and len(sizes) != len(shape)):
        shown = "x".join(str(size or "?") for size in sizes) or "unknown"
        example = "x".join(str(size or 224) for size in sizes or [1, 3, 0, 0])
        raise InputError(
            f"input '{value.name}' has the shape {shown} in the file; fix it with --shape {value.name}={example}"
        )
    return shape


def _simplify_and_infer(model: ModelProto) -> ModelProto:
    """Alternate simplification and shape inference: a folded constant may fix a shape, and a shape fold a constant."""
    for _ in range(MAX_ROUNDS):
        model = onnx.shape_inference.infer_shapes(_simplify(model), strict_mode=True, data_prop=True)
        known = known_shapes(model.graph)
        if all(name in known for node in model.graph.node for name in node.output if name):
            break
    return model


def _simplify(model: ModelProto) -> ModelProto:
    """The same function with constants folded and no-ops removed; the unchanged graph if onnxslim fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slim = _slim(model)
    except Exception:  # onnxslim can fail in many ways, and the unchanged graph can still be cut
        return model
    same = [value.name for value in slim.graph.output] == [value.name for value in model.graph.output]
    return slim if same else model


def _slim(model: ModelProto) -> ModelProto:
    """The model simplified by onnxslim. Weights are passed as inputs, so that they are neither copied nor folded."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if prod(tensor.dims) > MAX_SHAPE_ELEMENTS}
    as_inputs = [onnx.helper.make_tensor_value_info(name, w.data_type, w.dims) for name, w in weights.items()]
    small = [tensor for tensor in graph.initializer if tensor.name not in weights]
    inputs = [*graph.input, *as_inputs]
    light = onnx.helper.make_graph(graph.node, graph.name, inputs, graph.output, small, value_info=graph.value_info)
    light = onnx.helper.make_model(light, opset_imports=model.opset_import, ir_version=model.ir_version)
    run_onnxslim: Callable[..., Any] = onnxslim.slim  # its declared types are wrong
    # shapes are inferred by onnx: onnxslim's own inference hangs on some broken files
    slim: ModelProto = run_onnxslim(
        light, skip_optimizations=SKIPPED_OPTIMISATIONS, size_threshold=MAX_SHAPE_ELEMENTS * 4, no_shape_infer=True
    )
    inputs = list(slim.graph.input)
    slim.graph.initializer.extend(weights[value.name] for value in inputs if value.name in weights)
    del slim.graph.input[:]
    slim.graph.input.extend(value for value in inputs if value.name not in weights)
    return slim


def _find_cuts(path: Path, original: ModelProto, model: ModelProto) -> Network:
    """The network with the positions where exactly one tensor is live."""
    shapes = known_shapes(model.graph)
    outputs = [value.name for value in model.graph.output]
    nodes = _dependent(needed(model.graph.node, outputs), [value.name for value in model.graph.input])
    readers = Counter(name for node in nodes for name in set(node.input) if name)
    inputs = [value.name for value in model.graph.input if readers[value.name]]
    live, macs, positions = set(inputs), 0, list[Position]()
    for count, node in enumerate(nodes, 1):
        macs += node_macs(node, shapes)
        readers.subtract(set(node.input))
        live = {name for name in live.union(node.output) if readers[name] > 0}
        if len(live) == 1:
            positions.append(Position(count, next(iter(live)), macs))
    if not 0 < macs < MAX_COUNT:
        raise InputError(f"'{path}' does {macs} multiply-accumulates on its input; it must do between 1 and 2^53")
    return Network(path, original, model, tuple(nodes), tuple(inputs), tuple(outputs), shapes, tuple(positions), macs)


def needed(nodes: Sequence[NodeProto], wanted: Iterable[str], given: Collection[str] = ()) -> list[NodeProto]:
    """The nodes, in order, that compute the tensors `wanted` from the tensors `given`."""
    missing, required = set(wanted).difference(given), list[NodeProto]()
    for node in reversed(nodes):
        if not missing.isdisjoint(node.output):
            missing.update(name for name in node.input if name and name not in given)
            required.append(node)
    return required[::-1]


def _dependent(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that depend on the inputs; raises InputError for control flow and for non-standard operators."""
    tensors, dependent = set(inputs), list[NodeProto]()
    for node in nodes:
        if any(item.HasField("g") for item in node.attribute):
            raise InputError(
                f"control flow ({node.op_type} '{node.name}') cannot be cut; export the network without it"
            )
        if tensors.isdisjoint(node.input):
            continue
        if node.domain not in ("", "ai.onnx"):
            raise InputError(f"operator {node.domain}.{node.op_type} is not standard; export with ONNX operators only")
        tensors.update(name for name in node.output if name)
        dependent.append(node)
    return dependent


def _elements(shapes: Mapping[str, Shape], name: str) -> int:
    """The number of elements of a tensor; raises InputError if there are none or more than MAX_COUNT."""
    elements = prod(shapes[name])
    if not 0 < elements < MAX_COUNT:
        raise InputError(f"tensor '{name}' has {elements} elements; it must have between 1 and 2^53")
    return elements


def _is_image(shape: Shape) -> bool:
    """Whether a shape is that of grey or colour images, with the channels first or last."""
    return len(shape) == 4 and any(
        channels in (1, 3) and min(sides) > 7 for channels, sides in ((shape[1], shape[2:]), (shape[3], shape[1:3]))
    )


def _clean(name: str) -> str:
    """The name with every character replaced that could break a line of the CSV file."""
    return re.sub(r"[^\w./:+-]", "_", name)
