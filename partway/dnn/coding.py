"""How a tensor crosses a cut: under which names, in which data types, and the ONNX nodes that code and decode it.

A tensor crosses under its own name, in its own type, unless a model cannot have it so. An output of the network that is
ready early is both an input and an output of the back half, which needs two names. And real numbers may be sent in a
shorter type: then the front half ends with the coder, and the back half begins with the decoder. float32 and float16
are casts. uint8 stands for 256 evenly spaced values from the least to the largest element; the least one and the
distance between two are sent with it, as a tensor of two numbers.
"""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from partway.dnn.macs import Shape
from partway.dnn.profile import FLOAT_BITS, OTHER_BITS

LEVELS = 2**8
"""Values of an element that is sent as uint8."""
LEAST_STEP = 2.0**-126
"""Distance between them where all elements are equal: the least normal number of float32."""
CODER_OPSET = 7
"""The first version of ONNX whose arithmetic broadcasts, which the coders need."""
CASTS = {"fp32": "float32", "fp16": "float16"}
"""Data types in which tensors are sent that are casts."""


@dataclass(frozen=True)
class Wire:
    """A tensor as it is sent, and as the back half reads it.

    dtype  such as float32, a key of FLOAT_BITS or OTHER_BITS
    """

    name: str
    dtype: str
    shape: Shape

    @property
    def bits(self) -> int:
        """[bit] its size."""
        return prod(self.shape) * (FLOAT_BITS | OTHER_BITS)[self.dtype]


@dataclass(frozen=True)
class Sent:
    """A tensor of the network that crosses a cut, and as what it is sent.

    source  "front": what is sent are outputs of the front half. "input": the device sends an input of the network
    """

    name: str
    dtype: str
    shape: Shape
    source: str
    wires: tuple[Wire, ...]

    @property
    def bits(self) -> int:
        """[bit] what is sent for it."""
        return sum(wire.bits for wire in self.wires)

    @property
    def is_coded(self) -> bool:
        """Whether it is sent in another data type than its own."""
        return self.wires[0].dtype != self.dtype


@dataclass
class Nodes:
    """Nodes and the constants that they read. `prefix`: of the names of what is inside."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    constants: list[TensorProto] = field(default_factory=list[TensorProto])

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        name = output or f"{self.prefix}/{len(self.nodes)}"
        self.nodes.append(
            onnx.helper.make_node(kind, inputs, [name], name=f"{self.prefix}/{kind}_{name}", **attributes)
        )
        return name

    def cast(self, name: str, dtype: str, output: str | None = None) -> str:
        """Append a cast to a data type such as float32; returns the name of its output."""
        return self.add("Cast", name, output=output, to=element_type(dtype))

    def constant(self, value: object, dtype: Any = np.float32) -> str:
        """Append a constant; returns its name."""
        name = f"{self.prefix}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name


def dtype_name(element: int) -> str:
    """float32 for TensorProto.FLOAT, and so on: the names that profiles use."""
    name = TensorProto.DataType.Name(element).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def element_type(dtype: str) -> int:
    """TensorProto.FLOAT for float32, and so on."""
    return TensorProto.DataType.Value({"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper()))


def wires(name: str, dtype: str, shape: Shape, tensor_dtype: str | None, other_name: bool) -> tuple[Wire, ...]:
    """As what a tensor is sent.

    tensor_dtype  a key of DTYPE_BITS, in which it is sent if that takes fewer bits; None: in its own type
    other_name    whether it must have another name than in the network
    """
    own = (Wire(f"{name}_sent" if other_name else name, dtype, shape),)
    if tensor_dtype is None or dtype not in FLOAT_BITS:
        return own
    coded = (Wire(f"{name}_{tensor_dtype}", CASTS.get(tensor_dtype, tensor_dtype), shape),)
    if tensor_dtype not in CASTS:
        coded = (*coded, Wire(f"{name}_range", "float32", (2,)))
    return min(own, coded, key=lambda sent: sum(wire.bits for wire in sent))  # the first of two that are equal


def coder(tensor: Sent) -> Nodes:
    """From the tensor to what is sent."""
    first = tensor.wires[0]
    code = Nodes(f"{first.name}/code")
    if not tensor.is_coded:
        if first.name != tensor.name:
            code.add("Identity", tensor.name, output=first.name)
    elif len(tensor.wires) == 1:
        code.cast(tensor.name, first.dtype, first.name)
    else:
        real = tensor.name if tensor.dtype == "float32" else code.cast(tensor.name, "float32")
        flat = code.add("Reshape", real, code.constant([-1], np.int64))
        low, high = (code.add(kind, flat, keepdims=1) for kind in ("ReduceMin", "ReduceMax"))
        even = code.add("Div", code.add("Sub", high, low), code.constant(LEVELS - 1))
        step = code.add("Add", even, code.constant(LEAST_STEP))  # does not change a step that is not 0
        level = code.add("Div", code.add("Sub", real, low), step)
        code.cast(code.add("Add", level, code.constant(0.5)), first.dtype, first.name)  # a cast truncates
        code.add("Concat", low, step, output=tensor.wires[1].name, axis=0)
    return code


def decoder(tensor: Sent) -> Nodes:
    """From what is sent to the tensor."""
    first = tensor.wires[0]
    code = Nodes(f"{first.name}/decode")
    if not tensor.is_coded:
        if first.name != tensor.name:
            code.add("Identity", first.name, output=tensor.name)
    elif len(tensor.wires) == 1:
        code.cast(first.name, tensor.dtype, tensor.name)
    else:
        numbers = tensor.wires[1].name
        low, step = (code.add("Gather", numbers, code.constant(i, np.int64)) for i in range(2))
        scaled = code.add("Mul", code.cast(first.name, "float32"), step)
        exact = tensor.dtype == "float32"
        real = code.add("Add", scaled, low, output=tensor.name if exact else None)
        if not exact:
            code.cast(real, tensor.dtype, tensor.name)
    return code
