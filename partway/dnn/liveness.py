"""Where a graph can be cut: what is live at each of its positions, and which positions a profile lists.

A tensor is *live* at a position of the graph if it depends on the input, is computed before the position and is read
after it. The live tensors are what the server needs there; both sides have the weights. An output of the network that
is ready before the cut is sent too, so that the server has all outputs.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from onnx import NodeProto

from partway.dnn.control_flow import reads
from partway.dnn.profile import DTYPE_BITS, Tensor
from partway.errors import InputError

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


def positions(
    nodes: Sequence[NodeProto], work: Sequence[int], inputs: Sequence[str], outputs: Sequence[str]
) -> list[Position]:
    """The positions after every node with what is live there."""
    readers = Counter(name for node in nodes for name in reads(node))
    age = {name: count for count, node in enumerate(nodes, 1) for name in node.output}
    source, views = sources(nodes, inputs), views_to(nodes, outputs)
    live, ready, macs, found = set(inputs), set[str](), 0, list[Position]()
    for count, node in enumerate(nodes, 1):
        macs += work[count - 1]
        readers.subtract(reads(node))
        ready.update(name for name in node.output if name in outputs and source.get(name) not in inputs)
        live = {name for name in live.union(node.output) if readers[name] > 0}
        unread = {name for name in ready if views[name].isdisjoint(live)}
        sent = {source.get(name, name) for name in live | unread}
        found.append(Position(count, tuple(sorted(sent, key=lambda name: (-age.get(name, 0), name))), macs))
    return found


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


def views_to(nodes: Iterable[NodeProto], outputs: Iterable[str]) -> dict[str, set[str]]:
    """Output -> its name and those of the tensors of which it is a view."""
    made_by = {name: node for node in nodes for name in node.output}

    def views(name: str) -> Iterable[str]:
        yield name
        if name in made_by and made_by[name].op_type in VIEWS:
            yield from views(made_by[name].input[0])

    return {name: set(views(name)) for name in outputs}


def useful(
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


def before_work(nodes: Iterable[NodeProto], work: Iterable[int], inputs: Iterable[str]) -> set[str]:
    """The inputs and what is computed from them without a multiply-accumulate."""
    names, varying = set(inputs), set(inputs)
    for node, macs in zip(nodes, work, strict=True):
        if not macs and names.issuperset(varying.intersection(reads(node))):
            names.update(node.output)
        varying.update(node.output)
    return names


def needed(nodes: Sequence[NodeProto], wanted: Iterable[str], given: Collection[str] = ()) -> list[NodeProto]:
    """The nodes, in order, that compute the tensors `wanted` from the tensors `given`."""
    missing, required = set(wanted).difference(given), list[NodeProto]()
    for node in reversed(nodes):
        if not missing.isdisjoint(node.output):
            missing.update(name for name in reads(node) if name not in given)
            required.append(node)
    return required[::-1]


def dependent_nodes(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that depend on the inputs; raises InputError for non-standard operators."""
    varying, dependent = set(dependent_names(nodes := list(nodes), inputs)), list[NodeProto]()
    for node in nodes:
        if varying.isdisjoint(node.output):
            continue
        if node.domain not in ("", "ai.onnx") and (node.domain != ML_DOMAIN or node.op_type not in ML_OPERATORS):
            raise InputError(f"operator {node.domain}.{node.op_type} is not standard; export with ONNX operators only")
        dependent.append(node)
    return dependent


def dependent_names(nodes: Iterable[NodeProto], inputs: Iterable[str]) -> set[str]:
    """The inputs and all tensors that depend on them."""
    names = set(inputs)
    for node in nodes:
        if not names.isdisjoint(reads(node)):
            names.update(name for name in node.output if name)
    return names
