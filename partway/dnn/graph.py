"""ONNX file -> Profile: fix the shapes, simplify the graph, find the cuts by a liveness analysis.

The work after a cut is counted in multiply-accumulates: no cut is made where none are left.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

from partway.arguments import named
from partway.dnn.profile import (
    FLOAT_BITS,
    MAX_COUNT,
    OTHER_BITS,
    Cut,
    Profile,
    Tensor,
    clean_name,
    clean_text,
)
from partway.errors import InputError, shorten

try:
    from onnx import ModelProto, NodeProto

    from partway.dnn import control_flow, liveness
    from partway.dnn.coding import dtype_name
    from partway.dnn.inputs import Value, checked_names, checked_shapes, fix_inputs
    from partway.dnn.liveness import Position
    from partway.dnn.macs import Shape, known_shapes
    from partway.dnn.onnx_file import read_model
    from partway.dnn.simplify import simplify_and_infer
except ImportError as error:
    raise InputError(f"{error}: ONNX files need the extra packages of `pip install 'partway[onnx]'`") from None


@dataclass(frozen=True)
class Network:
    """A network with fixed shapes.

    original   the graph of the file
    model      the simplified graph
    nodes      nodes of `model` that depend on an input and lead to an output, in order
    inputs     names of the inputs that these nodes read
    outputs    names of the outputs
    tensors    name -> number of elements and data type, of every tensor of a fixed size
    shapes     name -> shape of every tensor that has a fixed one
    positions  where the network can be cut, without its two ends
    work       multiply-accumulates of each node
    batches    inputs whose batch is open in the file and is 1 here -> their shapes there
    """

    path: Path
    original: ModelProto
    model: ModelProto
    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    shapes: Mapping[str, Shape]
    positions: tuple[Position, ...]
    work: tuple[int, ...]
    batches: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all nodes."""
        return sum(self.work)


def profile_model(
    path: str | Path,
    *,
    shapes: Mapping[str, Shape] | None = None,
    values: Mapping[str, Value] | None = None,
    input_bits: float | None = None,
) -> Profile:
    """The profile of an ONNX file; arguments as in `load_network` and `profile_network`."""
    return profile_network(load_network(path, shapes, values), input_bits)


def profile_network(network: Network, input_bits: float | None = None) -> Profile:
    """The profile of a network.

    input_bits  [bit] size of all encoded inputs together. None: 8 bits per element of an image of real numbers (raw
                camera output), its own data type for any other input

    Raises InputError unless `input_bits` is from 1 to 2^53.
    """
    if input_bits is not None and not 1 <= input_bits <= MAX_COUNT:
        raise InputError(f"input_bits must be from 1 to 2^53, got {input_bits}; give the size of the encoded input")
    names = _clean_names([*network.inputs, *(t for p in network.positions for t in p.tensors), *network.outputs])

    def cut(tensors: Sequence[str], macs: int) -> Cut:
        return Cut(tuple(_renamed(network.tensors.get(name), names[name]) for name in tensors), macs)

    inner = (cut(position.tensors, position.macs) for position in network.positions)
    cuts = (cut(network.inputs, 0), *inner, cut(network.outputs, network.macs))
    bits = sum(tensor.own_bits for tensor in cuts[0].tensors) if input_bits is None else float(input_bits)
    name, file, shape = clean_name(network.path.stem), clean_name(network.path.name), network.shapes[network.inputs[0]]
    return Profile(name, clean_text(f"file {file}"), shape, bits, cuts)


def _renamed(tensor: Tensor | None, name: str) -> Tensor:
    """The tensor with the name that it has in a profile; an output without a fixed size has no elements."""
    return Tensor(name, 0, "other") if tensor is None else Tensor(name, tensor.elements, tensor.dtype)


def _clean_names(names: Iterable[str]) -> dict[str, str]:
    """Names for a profile; a number is added where two would be equal."""
    clean, taken = dict[str, str](), Counter[str]()
    for name in names:
        if name not in clean:
            word = clean_name(name)
            taken[word] += 1
            clean[name] = word if taken[word] == 1 else f"{word}_{taken[word]}"
    return clean


def load_network(
    path: str | Path, shapes: Mapping[str, Shape] | None = None, values: Mapping[str, Value] | None = None
) -> Network:
    """Read an ONNX file and find the positions where the network can be cut.

    shapes  input name -> shape. Other inputs keep the shape of the file, with a batch of 1 if the batch size is open
    values  input name -> value of an input that is always the same, such as one that chooses a branch: it becomes a
            constant of the network

    Raises InputError if the file is not an ONNX network, its shapes are not fixed, or it cannot be cut.
    """
    path, shapes, values = Path(path), checked_shapes(shapes), checked_names("values", values)
    original = read_model(path)
    batches = fix_inputs(original, shapes, values)
    try:
        model, problem = simplify_and_infer(original)
    except InputError:
        raise
    except Exception as error:  # nor do those of shape inference
        raise InputError(
            f"the shapes in '{path}' are inconsistent: {_first_line(error)}; check {named('shapes')}"
        ) from None
    try:
        return replace(_find_cuts(path, original, model), batches=batches)
    except InputError as error:
        if names := control_flow.inputs_of_conditions(model.graph):
            fix = f"if '{names[0]}' chooses a branch or the iterations, fix it by {named('values')} {names[0]}=VALUE"
            raise InputError(f"{error}; {fix}") from None
        if problem is None:
            raise
        raise InputError(
            f"the shapes in '{path}' are inconsistent: {_first_line(problem)}; check {named('shapes')}"
        ) from None


def _first_line(error: Exception) -> str:
    return shorten(str(error), 200)


def _find_cuts(path: Path, original: ModelProto, model: ModelProto) -> Network:
    """The network with the positions where it can be cut."""
    graph, shapes = model.graph, known_shapes(model.graph)
    outputs = [value.name for value in graph.output]
    needed = liveness.needed(graph.node, outputs)
    nodes = liveness.dependent_nodes(needed, [value.name for value in graph.input])
    read = {name for node in nodes for name in control_flow.reads(node)}
    inputs = [value.name for value in graph.input if value.name in read]
    tensors = _tensors(model, shapes)
    for name in inputs:
        if name not in tensors:
            raise InputError(f"input '{name}' has the shape {shapes[name]}; it must have between 1 and 2^53 elements")
    scope = control_flow.scope_of(graph, model.opset_import)
    work = [control_flow.work(node, shapes, scope) for node in nodes]
    macs = sum(work)
    if not 0 < macs < MAX_COUNT:
        raise InputError(f"'{path}' does {macs} multiply-accumulates on its input; it must do between 1 and 2^53")
    found = liveness.positions(nodes, work, inputs, outputs)
    usable = [position for position in found if all(name in tensors for name in position.tensors)]
    along = liveness.before_work(nodes, work, inputs) | set().union(*liveness.views_to(nodes, outputs).values())
    positions = liveness.useful([position for position in usable if position.macs < macs], inputs, along, tensors)
    lasting = tuple(nodes), tuple(inputs), tuple(outputs)
    return Network(path, original, model, *lasting, tensors, shapes, tuple(positions), tuple(work))


def _tensors(model: ModelProto, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Name -> elements and data type of every tensor that can be sent. Images of real numbers are sent as uint8."""
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output, *graph.input)}
    tensors, inputs = dict[str, Tensor](), {value.name for value in graph.input}
    for name, shape in shapes.items():
        dtype = dtype_name(types.get(name, 0))
        if name in inputs and dtype in FLOAT_BITS and _is_image(shape):
            dtype = "uint8"
        if 0 < prod(shape) < MAX_COUNT and dtype in FLOAT_BITS | OTHER_BITS:
            tensors[name] = Tensor(name, prod(shape), dtype)
    return tensors


def _is_image(shape: Shape) -> bool:
    """Whether a shape is that of grey or colour images, with the channels first or last."""
    return len(shape) == 4 and any(
        channels in (1, 3) and min(sides) > 7 for channels, sides in ((shape[1], shape[2:]), (shape[3], shape[1:3]))
    )
