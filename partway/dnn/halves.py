"""Cuts a network into two ONNX models, of which the second reads what the first computes.

Control flow is a single node, with all that its branches read from outside; it is in one half as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partway.arguments import named
from partway.dnn.boundary import Boundary
from partway.dnn.graph import Network
from partway.errors import InputError

try:
    import onnx_ir
    from onnx import ModelProto, ValueInfoProto, helper
    from onnx_ir.convenience import extract

    from partway.dnn.coding import CODER_OPSET, Nodes, Sent, Wire, coder, decoder, dtype_name, element_type, wires
    from partway.dnn.control_flow import reads
except ImportError as error:
    raise InputError(f"{error}: cutting a network needs the extra packages of `pip install 'partway[onnx]'`") from None

FRONT, BACK, INPUT = "front", "back", "input"
"""The two halves; and what is given to both."""


@dataclass(frozen=True)
class Halves:
    """The two models of a cut; weights in external files stay there.

    sent     the tensors that cross
    outputs  name of every output of the network -> which half gives it: FRONT, BACK, or INPUT where it is an input
    """

    boundary: Boundary
    sent: tuple[Sent, ...]
    front: ModelProto
    back: ModelProto
    outputs: Mapping[str, str]

    @property
    def bits(self) -> int:
        """[bit] what is sent."""
        return sum(tensor.bits for tensor in self.sent)


class Cutter:
    """Cuts one network at any number of boundaries. The network must not change in between.

    Raises InputError if `onnx_ir` cannot read the network.
    """

    def __init__(self, network: Network):
        graph = network.model.graph
        values = (*graph.value_info, *graph.output, *graph.input)
        self._network = network
        self._dtypes = {value.name: dtype_name(value.type.tensor_type.elem_type) for value in values}
        self._inputs = [value.name for value in graph.input]
        self._declared = {value.name: value for value in network.original.graph.output}
        try:
            self._whole = onnx_ir.from_proto(network.model)
        except Exception as error:  # the exceptions of onnx_ir share no narrower base
            raise InputError(f"'{network.path}' cannot be cut: {error}") from None

    def halves(self, boundary: Boundary, tensor_dtype: str | None = None) -> Halves:
        """The two models of a cut.

        tensor_dtype  a key of DTYPE_BITS: real numbers are sent in it if that takes fewer bits. None: in their own type

        Raises InputError if the network cannot be cut there, or uses a version of ONNX that is too old for the coders.
        """
        sent = tuple(self._sent(name, tensor_dtype) for name in boundary.tensors)
        version = next((one.version for one in self._network.model.opset_import if one.domain in ("", "ai.onnx")), 1)
        if version < CODER_OPSET and any(tensor.is_coded for tensor in sent):
            raise InputError(
                f"{named('tensor_dtype')} {tensor_dtype} needs version {CODER_OPSET} of ONNX's operators, the network "
                f"has {version}; convert it with onnx.version_converter"
            )
        outputs = {name: self._given_by(name, boundary) for name in self._network.outputs}
        late = [name for name, half in outputs.items() if half == BACK]
        return Halves(boundary, sent, self._front(sent, boundary.kept), self._back(sent, late), outputs)

    def _sent(self, name: str, tensor_dtype: str | None) -> Sent:
        dtype, shape = self._dtypes[name], self._network.shapes[name]
        crossing = wires(name, dtype, shape, tensor_dtype, name in self._network.outputs)
        crossing = tuple(Wire(self._free(wire.name, name), wire.dtype, wire.shape) for wire in crossing)
        as_input = name in self._inputs and crossing[0].name == name
        return Sent(name, dtype, shape, INPUT if as_input else FRONT, crossing)

    def _free(self, name: str, tensor: str) -> str:
        """A name that no other tensor has."""
        return name if name == tensor or name not in self._dtypes else self._free(f"{name}_", tensor)

    def _given_by(self, output: str, boundary: Boundary) -> str:
        return INPUT if output in self._inputs else FRONT if output in boundary.kept else BACK

    def _front(self, sent: Sequence[Sent], kept: Sequence[str]) -> ModelProto:
        """What computes the tensors that the device does not have, and codes them."""
        crossing = [tensor for tensor in sent if tensor.source == FRONT]
        ready = list(dict.fromkeys([*(one.name for one in crossing if one.name not in self._inputs), *kept]))
        model = self.part(self._inputs, ready)
        values, codes = {value.name: value for value in model.graph.output}, [coder(tensor) for tensor in crossing]
        for code in codes:
            model.graph.node.extend(code.nodes)
        del model.graph.output[:]
        model.graph.output.extend(_value(wire) for tensor in crossing for wire in tensor.wires)
        model.graph.output.extend(values[name] for name in kept)
        return _completed(model, codes, list(values.values()))

    def _back(self, sent: Sequence[Sent], outputs: Sequence[str]) -> ModelProto:
        """What decodes the tensors that were sent, and computes the outputs from them."""
        model = self.part([tensor.name for tensor in sent], outputs)
        for value in model.graph.output:
            if not value.type.tensor_type.elem_type:  # what is not a tensor has lost its type when it was simplified
                value.type.CopyFrom(self._declared[value.name].type)
        values, codes = list(model.graph.input), [decoder(tensor) for tensor in sent]
        nodes = [*(node for code in codes for node in code.nodes), *model.graph.node]
        del model.graph.node[:], model.graph.input[:]
        model.graph.node.extend(nodes)
        model.graph.input.extend(_value(wire) for tensor in sent for wire in tensor.wires)
        return _completed(model, codes, values)

    def part(self, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
        """The part of the network that computes the tensors `outputs` from the tensors `inputs`.

        Raises InputError if they do not suffice.
        """
        whole = self._whole
        try:
            part = extract(whole.graph, inputs, outputs)
            model = onnx_ir.to_proto(onnx_ir.Model(part, ir_version=whole.ir_version, producer_name="partway"))
        except Exception as error:  # the exceptions of onnx_ir share no narrower base
            raise InputError(f"'{self._network.path}' cannot be cut at {'+'.join(outputs)}: {error}") from None
        for unordered in (model.graph.initializer, model.graph.value_info):  # of `extract`
            unordered.sort(key=lambda one: one.name)
        return model


def _value(wire: Wire) -> ValueInfoProto:
    return helper.make_tensor_value_info(wire.name, element_type(wire.dtype), wire.shape)


def _completed(model: ModelProto, codes: Sequence[Nodes], values: Sequence[ValueInfoProto]) -> ModelProto:
    """The model without inputs that it does not read, with the constants of its coders, and the types of `values`.

    Raises InputError if it reads a tensor that it does not have, such as one that only a branch reads.
    """
    graph = model.graph
    graph.initializer.extend(constant for code in codes for constant in code.constants)
    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    inputs = [value for value in graph.input if value.name in read]
    del graph.input[:]
    graph.input.extend(inputs)
    known = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    graph.value_info.extend(value for value in values if value.name not in known)
    have = {value.name for value in inputs} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if missing := [name for name in reads(node) if name not in have]:
            raise InputError(f"the network cannot be cut: {node.op_type} '{node.name}' needs '{missing[0]}' as well")
        have.update(node.output)
    return model
