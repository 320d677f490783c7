"""Small ONNX models for tests, and the rows of their profiles."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from partway.dnn.profile import Profile

Shape = tuple[int, ...]
FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)


def network(
    nodes: Sequence[NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: dict[str, np.ndarray | Shape] | None = None,
    opset: int = 18,
    types: dict[str, int] | None = None,
) -> ModelProto:
    """A model; a weight that is given by its shape is random. Inputs and outputs are float but for those in `types`."""
    types = types or {}
    tensors = {
        name: RNG.standard_normal(value).astype(np.float32) if isinstance(value, tuple) else value
        for name, value in (weights or {}).items()
    }
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), size)
            for name, size in inputs.items()
        ],
        [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def saved(folder: Path, model: ModelProto, name: str = "net.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


def node(kind: str, inputs: str, outputs: str, **attributes: object) -> NodeProto:
    """A node with the tensors named in the two strings; '_' stands for an absent optional tensor."""
    names = [["" if name == "_" else name for name in words.split()] for words in (inputs, outputs)]
    return helper.make_node(kind, *names, **attributes)


def rows(profile: Profile) -> list[tuple[str, int, int]]:
    return [(cut.after, cut.macs, sum(tensor.elements for tensor in cut.tensors)) for cut in profile.cuts]


def conv(x: str, y: str, weight: str = "w") -> NodeProto:
    return node("Conv", f"{x} {weight}", y, pads=[1] * 4)


SQUARE = {"w": (4, 4, 3, 3)}
IMAGE = {"x": (1, 4, 8, 8)}
FULL, EACH = 4 * 8 * 8, 4 * 8 * 8 * 4 * 9
"""Elements of a tensor of that size, and MACs of a convolution on it."""
