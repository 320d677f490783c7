"""ONNX file -> Profile: fix the shapes, simplify the graph, find the cuts by a liveness analysis.

A tensor is *live* at a position of the graph if it depends on the input, is computed before the position and is read
after it. The live tensors are what the server needs there; both sides have the weights. An output of the network that
is ready before the cut is sent too, so that the server has all outputs. The work after a cut is counted in
multiply-accumulates: no cut is made where none are left.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod
from pathlib import Path
from typing import Any

from partway.arguments import named
from partway.dnn.profile import (
    DTYPE_BITS,
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
    import onnx
    import onnxslim
    from onnx import ModelProto, NodeProto

    from partway.dnn import control_flow
    from partway.dnn.coding import dtype_name
    from partway.dnn.control_flow import reads
    from partway.dnn.inputs import Value, checked_names, checked_shapes, fix_inputs
    from partway.dnn.macs import MAX_SHAPE_ELEMENTS, Shape, Shapes, known_shapes
    from partway.dnn.onnx_file import read_model, weights_as_inputs
except ImportError as error:
    raise InputError(f"{error}: ONNX files need the extra packages of `pip install 'partway[onnx]'`") from None

MAX_ROUNDS = 4
"""Rounds of simplification and shape inference; one is enough for all shipped networks."""
MAX_FOLDED_ELEMENTS = 2**28
"""Networks that compute larger constants are not simplified: folding would need the memory for them."""
SKIPPED_OPTIMISATIONS = ["graph_fusion", "subexpression_elimination", "weight_tying"]
"""Optimisations of onnxslim that would remove cuts or work, or compare all weights with each other."""
VIEWS = ("Cast", "CastLike", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators whose output holds the numbers of their first input."""
ML_DOMAIN, ML_OPERATORS = "ai.onnx.ml", ("ArrayFeatureExtractor", "LabelEncoder", "ZipMap")
"""Operators of ONNX's second domain that follow a network; they multiply nothing."""


@dataclass(frozen=True)
class Position:
    """A position in the graph where it can be cut.

    nodes    number of nodes before it
    tensors  the tensors that are sent: those from which the outputs can be computed, the newest first
    macs     multiply-accumulates of the nodes before it
    """

    nodes: int
    tensors: tuple[str, ...]
    macs: int


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
        inferred = onnx.shape_inference.infer_shapes(_with_defaults(original), data_prop=True)
        model, problem = _simplify_and_infer(inferred)
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


def _with_defaults(model: ModelProto) -> ModelProto:
    """The model with a default written out that shape inference reads wrongly: STFT returns half of the spectrum."""
    for node in model.graph.node:
        if node.op_type == "STFT" and not any(item.name == "onesided" for item in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("onesided", 1))
    return model


def _simplify_and_infer(model: ModelProto) -> tuple[ModelProto, Exception | None]:
    """The simplified model with shapes, and what is wrong with those that could not be inferred.

    Simplification and shape inference alternate: a folded constant may fix a shape, and a shape fold a constant.
    """
    problem = None
    for _ in range(MAX_ROUNDS):
        model = control_flow.with_constant_branches(_simplify(model))
        model, problem = _inferred(model)
        known = known_shapes(model.graph)
        if all(name in known for node in model.graph.node for name in node.output if name):
            break
        _add_loop_shapes(model, known)
    return model, problem


def _inferred(model: ModelProto) -> tuple[ModelProto, Exception | None]:
    """The model with inferred shapes; what is wrong with them may concern only nodes at its end, which do no work."""
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), None
    except Exception as error:  # the exceptions of shape inference share no narrower base
        return onnx.shape_inference.infer_shapes(model, data_prop=True), error


def _add_loop_shapes(model: ModelProto, known: Shapes) -> None:
    """Add the shapes of the outputs of loops, which shape inference leaves open."""
    scope = control_flow.scope_of(model.graph, model.opset_import)
    for node in model.graph.node:
        if node.op_type in ("Loop", "Scan") and any(name not in known for name in node.output if name):
            found = {value.name: value for value in control_flow.output_types(node, known, scope)}
            kept = [value for value in model.graph.value_info if value.name not in found]
            del model.graph.value_info[:]
            model.graph.value_info.extend([*kept, *found.values()])


def _simplify(model: ModelProto) -> ModelProto:
    """The same function with constants folded and no-ops removed; the unchanged graph if onnxslim fails."""
    if _largest_constant(model) > MAX_FOLDED_ELEMENTS:
        return model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slim = _slim(model)
    except Exception:  # onnxslim can fail in many ways, and the unchanged graph can still be cut
        return model
    same = [value.name for value in slim.graph.output] == [value.name for value in model.graph.output]
    return slim if same else model


def _largest_constant(model: ModelProto) -> int:
    """Elements of the largest tensor that is computed from constants."""
    shapes, graph = known_shapes(model.graph), model.graph
    varying = set(_dependent_names(graph.node, [value.name for value in graph.input]))
    constant = (name for node in graph.node for name in node.output if name not in varying and name in shapes)
    return max((prod(shapes[name]) for name in constant), default=0)


def _slim(model: ModelProto) -> ModelProto:
    """The model simplified by onnxslim. Weights are passed as inputs, so that they are neither copied nor folded."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if prod(tensor.dims) > MAX_SHAPE_ELEMENTS}
    light = weights_as_inputs(model, list(weights.values()))
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
    """The network with the positions where it can be cut."""
    graph, shapes = model.graph, known_shapes(model.graph)
    outputs = [value.name for value in graph.output]
    nodes = _dependent(needed(graph.node, outputs), [value.name for value in graph.input])
    read = {name for node in nodes for name in reads(node)}
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
    found = _positions(nodes, work, inputs, outputs)
    usable = [position for position in found if all(name in tensors for name in position.tensors)]
    along = _before_work(nodes, work, inputs) | set().union(*views_to(nodes, outputs).values())
    positions = _useful([position for position in usable if position.macs < macs], inputs, along, tensors)
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


def _positions(
    nodes: Sequence[NodeProto], work: Sequence[int], inputs: Sequence[str], outputs: Sequence[str]
) -> list[Position]:
    """The positions after every node with what is live there."""
    readers = Counter(name for node in nodes for name in reads(node))
    age = {name: count for count, node in enumerate(nodes, 1) for name in node.output}
    source, views = sources(nodes, inputs), views_to(nodes, outputs)
    live, ready, macs, positions = set(inputs), set[str](), 0, list[Position]()
    for count, node in enumerate(nodes, 1):
        macs += work[count - 1]
        readers.subtract(reads(node))
        ready.update(name for name in node.output if name in outputs and source.get(name) not in inputs)
        live = {name for name in live.union(node.output) if readers[name] > 0}
        unread = {name for name in ready if views[name].isdisjoint(live)}
        sent = {source.get(name, name) for name in live | unread}
        positions.append(Position(count, tuple(sorted(sent, key=lambda name: (-age.get(name, 0), name))), macs))
    return positions


def sources(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> dict[str, str]:
    """Name -> the tensor that is sent in its place.

    For views and casts of an input it is the input, and for a dequantised tensor the quantised one: the server repeats
    those steps.
    """
    source = {name: name for name in inputs}
    varying = set(source)
    for node in nodes:
        names = [name for name in reads(node) if name in varying]
        varying.update(node.output)
        if names != list(node.input[:1]):
            continue
        if node.op_type == "DequantizeLinear":
            source[node.output[0]] = source.get(names[0], names[0])
        elif node.op_type in VIEWS and names[0] in source:
            source[node.output[0]] = source[names[0]]
    return source


def _useful(
    positions: Iterable[Position], inputs: Sequence[str], along: Collection[str], tensors: Mapping[str, Tensor]
) -> list[Position]:
    """Of all positions those that a profile lists.

    They do not send all that an earlier one sends, and the first cut sends the inputs. And they send one tensor beside
    those that ride `along`, inputs and outputs, or fewer bits than all earlier ones in some data type.
    """
    useful, sets, least = list[Position](), [set(inputs)], dict.fromkeys(DTYPE_BITS, inf)
    for position in positions:
        sent = set(position.tensors)
        if any(earlier <= sent for earlier in sets):
            continue
        bits = {
            dtype: sum(tensors[name].own_bits if name in inputs else tensors[name].sent_bits(dtype) for name in sent)
            for dtype in DTYPE_BITS
        }
        if len(sent - set(along)) <= 1 or any(bits[dtype] < least[dtype] for dtype in bits):
            useful.append(position)
            sets.append(sent)
            least = {dtype: min(bits[dtype], least[dtype]) for dtype in bits}
    return useful


def _before_work(nodes: Iterable[NodeProto], work: Iterable[int], inputs: Iterable[str]) -> set[str]:
    """The inputs and what is computed from them without a multiply-accumulate."""
    names, varying = set(inputs), set(inputs)
    for node, macs in zip(nodes, work, strict=True):
        if not macs and names.issuperset(varying.intersection(reads(node))):
            names.update(node.output)
        varying.update(node.output)
    return names


def views_to(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> dict[str, set[str]]:
    """Output -> its name and those of the tensors of which it is a view."""
    made_by = {name: node for node in nodes for name in node.output}

    def views(name: str) -> Iterable[str]:
        yield name
        if name in made_by and made_by[name].op_type in VIEWS:
            yield from views(made_by[name].input[0])

    return {name: set(views(name)) for name in outputs}


def needed(nodes: Sequence[NodeProto], wanted: Iterable[str], given: Collection[str] = ()) -> list[NodeProto]:
    """The nodes, in order, that compute the tensors `wanted` from the tensors `given`."""
    missing, required = set(wanted).difference(given), list[NodeProto]()
    for node in reversed(nodes):
        if not missing.isdisjoint(node.output):
            missing.update(name for name in reads(node) if name not in given)
            required.append(node)
    return required[::-1]


def _dependent(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that depend on the inputs; raises InputError for non-standard operators."""
    varying, dependent = set(_dependent_names(nodes := list(nodes), inputs)), list[NodeProto]()
    for node in nodes:
        if varying.isdisjoint(node.output):
            continue
        if node.domain not in ("", "ai.onnx") and (node.domain != ML_DOMAIN or node.op_type not in ML_OPERATORS):
            raise InputError(f"operator {node.domain}.{node.op_type} is not standard; export with ONNX operators only")
        dependent.append(node)
    return dependent


def _dependent_names(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> set[str]:
    """The inputs and all tensors that depend on them."""
    names = set(inputs)
    for node in nodes:
        if not names.isdisjoint(reads(node)):
            names.update(name for name in node.output if name)
    return names


def _is_image(shape: Shape) -> bool:
    """Whether a shape is that of grey or colour images, with the channels first or last."""
    return len(shape) == 4 and any(
        channels in (1, 3) and min(sides) > 7 for channels, sides in ((shape[1], shape[2:]), (shape[3], shape[1:3]))
    )
