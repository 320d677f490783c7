"""Multiply-accumulates (MACs) of one ONNX node from the shapes of its tensors, one rule per operator.

A MAC is one multiplication and one addition. As in published tables (He et al. 2016, Table 1; Sandler et al. 2018,
Table 4) convolutions, matrix products and recurrent cells count; biases, normalisation, activations, pooling and other
elementwise work do not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import onnx

from partway.arguments import named
from partway.errors import InputError

Shape = tuple[int, ...]
MAX_SHAPE_ELEMENTS = 256
"""Larger constants are weights: no shape depends on their values."""


@dataclass(frozen=True)
class Call:
    """One node, the shapes of its inputs (None if absent) and of its first output (() if a recurrent cell omits it)."""

    inputs: tuple[Shape | None, ...]
    output: Shape
    node: onnx.NodeProto

    def shape(self, index: int) -> Shape:
        """Shape of the input with that index; () if it is absent."""
        return (self.inputs[index] if index < len(self.inputs) else None) or ()

    def attribute(self, name: str, default: int | str) -> int | str:
        """Value of an integer or string attribute."""
        for item in self.node.attribute:
            if item.name == name:
                return item.i if isinstance(default, int) else item.s.decode()
        return default


def _contracted(call: Call, size: int, other: int) -> int:
    """The size of the axis over which a node sums. ONNX's shape inference does not always check that they agree."""
    if size != other:
        raise InputError(
            f"{call.node.op_type} '{call.node.output[0]}' contracts sizes {size} and {other}, which must be equal; "
            f"check {named('shapes')}"
        )
    return size


def _conv(weight: int) -> Callable[[Call], int]:
    """Every output element sums over the weights of its channel: input `weight`, shape (out, in / groups, *kernel)."""

    def macs(call: Call) -> int:
        _contracted(call, call.shape(0)[1], call.shape(weight)[1] * int(call.attribute("group", 1)))
        return prod(call.output) * prod(call.shape(weight)[1:])

    return macs


def _conv_transpose(call: Call) -> int:
    """Every input element is multiplied by the weights of its channel, shape (in, out / groups, *kernel).

    The border that `pads` crops is counted, as in published tables.
    """
    _contracted(call, call.shape(0)[1], call.shape(1)[0])
    return prod(call.shape(0)) * prod(call.shape(1)[1:])


def _gemm(call: Call) -> int:
    """(rows, inner) x (inner, columns); `transA` and `transB` transpose the operands."""
    inner_a, inner_b = int(call.attribute("transA", 0) == 0), int(call.attribute("transB", 0) != 0)
    return prod(call.output) * _contracted(call, call.shape(0)[inner_a], call.shape(1)[inner_b])


def _matmul(call: Call) -> int:
    """(..., rows, inner) x (..., inner, columns), broadcast over the leading sizes, or vectors of size inner."""
    other = call.shape(3 if call.node.op_type == "QLinearMatMul" else 1)
    return prod(call.output) * _contracted(call, call.shape(0)[-1], other[-2:][0])


def _recurrent(call: Call) -> int:
    """Steps x batch x all weights W (directions, gates hidden, in) and R (directions, gates hidden, hidden).

    Steps and batch are the first two sizes of X in either layout. An input `sequence_lens` may shorten the sequences;
    the full length is counted. Peepholes and gates are elementwise and count 0.
    """
    _contracted(call, call.shape(0)[-1], call.shape(1)[-1])
    return prod(call.shape(0)[:2]) * (prod(call.shape(1)) + prod(call.shape(2)))


def _einsum(call: Call) -> int:
    """Product of the sizes of all letters, once per product of two operands (contraction order not optimised)."""
    terms = str(call.attribute("equation", "")).replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = call.shape(index)
        before, _, after = term.partition("...")
        hidden = [f"...{-i}" for i in range(len(shape) - len(before) - len(after), 0, -1)]
        for letter, size in zip([*before, *hidden, *after], shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return (len(terms) - 1) * prod(sizes.values())


def _attention(call: Call) -> int:
    """Q K^T and its product with V: every element of Q and of Y is multiplied once per key, past keys included.

    K is (batch, keys, heads size) or (batch, heads, keys, size): the number of keys is second to last in both.
    """
    past = call.shape(4)
    keys = call.shape(1)[-2] + (past[-2] if past else 0)
    return keys * (prod(call.shape(0)) + prod(call.output))


RULES: dict[str, Callable[[Call], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "DeformConv": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
    "Attention": _attention,
}


def node_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of one node; `shapes` maps the names of its tensors to their shapes."""
    rule = RULES.get(node.op_type)
    if rule is None:
        return 0
    inputs = tuple(shapes[name] if name else None for name in node.input)
    return rule(Call(inputs, shapes[node.output[0]] if node.output[0] else (), node))


class Shapes(dict[str, Shape]):
    """Name -> shape of every tensor whose shape is fixed; raises InputError for any other tensor."""

    def __missing__(self, name: str) -> Shape:
        raise InputError(f"the shape of tensor '{name}' is not fixed; export the network with fixed shapes")


def known_shapes(graph: onnx.GraphProto) -> Shapes:
    """The fixed shapes in a graph."""
    known = Shapes({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            known[value.name] = tuple(dim.dim_value for dim in dims)
    return known
