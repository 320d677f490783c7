"""A small real network for a first live run: convolutions with a skip connection, weights drawn from a fixed seed."""

from pathlib import Path
from typing import Any

import numpy as np

from partway.errors import InputError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise InputError(f"{error}: live needs the extra 'live', pip install 'partway[live]'") from None

SIZE, CLASSES = 32, 10
"""Pixels of a side of its images, and what it tells apart."""
CHANNELS = (3, 16, 32, 64)
SEED = 2203
OPSET, IR_VERSION = 17, 8


def small_network() -> onnx.ModelProto:
    """Three stages that halve the image; the second one adds its input to its output. About 0.2 MB."""
    rng, nodes, weights = np.random.default_rng(SEED), list[Any](), list[Any]()

    def convolution(source: str, name: str, inputs: int, outputs: int, stride: int = 1) -> str:
        scale = np.sqrt(2.0 / (9 * inputs))
        drawn = {
            f"{name}.weight": rng.normal(0.0, scale, (outputs, inputs, 3, 3)),
            f"{name}.bias": rng.normal(0.0, 0.1, outputs),
        }
        weights.extend(numpy_helper.from_array(value.astype(np.float32), key) for key, value in drawn.items())
        nodes.append(helper.make_node("Conv", [source, *drawn], [name], name, pads=[1] * 4, strides=[stride] * 2))
        return name

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}.relu"], f"{source}.relu"))
        return f"{source}.relu"

    one, two, three = CHANNELS[1:]
    first = relu(convolution("image", "stage1", CHANNELS[0], one, 2))
    entry = relu(convolution(first, "stage2", one, two, 2))
    inner = convolution(relu(convolution(entry, "stage2.a", two, two)), "stage2.b", two, two)
    nodes.append(helper.make_node("Add", [entry, inner], ["stage2.sum"], "stage2.sum"))
    last = relu(convolution(relu("stage2.sum"), "stage3", two, three, 2))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"], "pooled"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], "features"))
    head = {"head.weight": rng.normal(0.0, 0.2, (three, CLASSES)), "head.bias": np.zeros(CLASSES)}
    weights.extend(numpy_helper.from_array(value.astype(np.float32), key) for key, value in head.items())
    nodes.append(helper.make_node("Gemm", ["features", *head], ["scores"], "head"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS[0], SIZE, SIZE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(nodes, "small", [image], [scores], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def write_small_network(folder: Path) -> Path:
    """Write it to a folder; returns the file."""
    path = folder / "small.onnx"
    path.write_bytes(small_network().SerializeToString())
    return path
