"""Reads an ONNX file: what it is if it is none, its external weights, local functions expanded, every node named."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, external_data_helper, inliner

from partway.errors import InputError, shorten
from partway.files import read_limited, why

MAX_FILE_BYTES = 2**31
"""Protocol buffers cannot be larger; a device such as /dev/zero has no end."""
MIN_IR_VERSION = 8
"""Files older than version 4 must list their weights among the inputs; the stubs in the `onnx` package do not."""
OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer; run `git lfs pull` to download the network itself",
    b"PK\x03\x04": "a ZIP archive, as PyTorch writes; export the network with torch.onnx.export",
    b"\x80\x02": "a pickle, as PyTorch writes; export the network with torch.onnx.export",
    b"\x89HDF": "an HDF5 file, as Keras writes; export the network with tf2onnx",
    b"<!DOCTYPE": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
}
"""Files that are often taken for an ONNX network, by their first bytes."""


def read_model(path: Path) -> ModelProto:
    """The checked model of the file; weights in external files are not loaded.

    Raises InputError if the file is not an ONNX network or has sparse weights.
    """
    try:
        raw = read_limited(path, MAX_FILE_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{path}': {why(error)}; give an .onnx file") from None
    for start, kind in OTHER_FILES.items():
        if raw.startswith(start):
            raise InputError(f"'{path}' is {kind}")
    try:
        model = _checked(path, raw)
    except InputError:
        raise
    except Exception as error:  # the exceptions of onnx, protobuf and the file system share no narrower base
        raise InputError(
            f"'{path}' is not an ONNX network: {shorten(str(error), 200)}; give an intact .onnx file"
        ) from None
    return model


def _checked(path: Path, raw: bytes) -> ModelProto:
    model = onnx.load_model_from_string(raw)
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)
    graph = model.graph
    for value in graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()  # the checker requires it, onnxruntime does not
    names: list[object] = [name for node in graph.node for name in (*node.input, *node.output)]
    if not all(isinstance(name, str) for name in (*names, *(value.name for value in graph.input))):
        raise ValueError("a tensor's name is not UTF-8")  # protobuf then returns bytes
    _refuse_sparse(path, graph)
    for node in every_node(graph):
        node.name = node.name or next((name for name in node.output if name), node.op_type)
    _check_external_files(path, graph)
    onnx.checker.check_model(without_external_weights(model))
    return inliner.inline_local_functions(model) if model.functions else model


def every_node(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from every_node(inner)


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs inside a node of control flow."""
    return [item.g for item in node.attribute if item.HasField("g")]


def _refuse_sparse(path: Path, graph: GraphProto) -> None:
    names = [tensor.values.name for tensor in graph.sparse_initializer]
    names += [
        node.output[0] for node in every_node(graph) if any(item.name == "sparse_value" for item in node.attribute)
    ]
    if names:
        raise InputError(f"'{path}' has sparse weights ('{names[0]}'), which are not supported; export dense ones")


def _check_external_files(path: Path, graph: GraphProto) -> None:
    """Raise ValueError if a file of weights is missing, too short, or not in the folder of the network or below."""
    for tensor in filter(external_data_helper.uses_external_data, graph.initializer):
        info = external_data_helper.ExternalDataInfo(tensor)
        if Path(info.location).is_absolute() or ".." in Path(info.location).parts:
            raise ValueError(f"the file of its weights, '{info.location}', is outside its folder")
        file = path.parent / info.location
        if not file.is_file():
            raise ValueError(f"the file of its weights, '{info.location}', is missing")
        if file.stat().st_size < (info.offset or 0) + (info.length or 0):
            raise ValueError(f"the file of its weights, '{info.location}', is too short")


def without_external_weights(model: ModelProto) -> ModelProto:
    """The model with the weights in external files among its inputs: the checker would look for them elsewhere."""
    external = [tensor for tensor in model.graph.initializer if external_data_helper.uses_external_data(tensor)]
    return weights_as_inputs(model, external) if external else model


def weights_as_inputs(model: ModelProto, weights: list[TensorProto]) -> ModelProto:
    """The model with these initialisers among its inputs, without their values."""
    graph, names = model.graph, {tensor.name for tensor in weights}
    listed = {value.name for value in graph.input}
    as_inputs = [
        onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights if w.name not in listed
    ]
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    inputs = [*graph.input, *as_inputs]
    light = onnx.helper.make_graph(graph.node, graph.name, inputs, graph.output, kept, value_info=graph.value_info)
    return onnx.helper.make_model(
        light, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
