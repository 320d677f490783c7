"""Small ONNX models for tests, and the rows of their profiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    rng: np.random.Generator = RNG,
) -> ModelProto:
    """A model; a weight that is given by its shape is random. Inputs and outputs are float but for those in `types`."""
    types = types or {}
    tensors = {
        name: rng.standard_normal(value).astype(np.float32) if isinstance(value, tuple) else value
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


# Kinds of networks that are cut in two


def fixed(*parts: Any, **how: Any) -> ModelProto:
    """A network with the same weights whenever it is made."""
    return network(*parts, rng=np.random.default_rng(0), **how)


def unet() -> ModelProto:
    """Two levels of 8 x 8 and 4 x 4, with a skip connection; an inner cut sends two tensors."""
    nodes = [
        conv("x", "skip"),
        node("MaxPool", "skip", "low", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "low k", "deep", pads=[1] * 4),
        node("Relu", "deep", "active"),
        node("Conv", "active m", "narrow"),
        node("ConvTranspose", "narrow t", "up", strides=[2, 2]),
        node("Concat", "up skip", "both", axis=1),
        node("Conv", "both n", "y"),
    ]
    weights: dict[str, np.ndarray | Shape] = {**SQUARE, "k": (8, 4, 3, 3), "m": (1, 8, 1, 1)}
    return fixed(nodes, dict(IMAGE), ["y"], weights | {"t": (1, 4, 2, 2), "n": (2, 8, 1, 1)})


def yolo() -> ModelProto:
    """A backbone of three scales, each with a head that is an output of its own."""
    nodes = [
        node("Conv", "x stem", "s", pads=[1] * 4),
        node("Relu", "s", "p3"),
        node("Conv", "p3 down1", "d4", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "d4", "p4"),
        node("Conv", "p4 down2", "d5", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "d5", "p5"),
        node("Conv", "p5 head5", "h5"),
        node("Sigmoid", "h5", "out5"),
        node("Resize", "p5 _ scales", "u4"),
        node("Add", "u4 p4", "m4"),
        node("Conv", "m4 head4", "h4"),
        node("Sigmoid", "h4", "out4"),
        node("Resize", "m4 _ scales", "u3"),
        node("Add", "u3 p3", "m3"),
        node("Conv", "m3 head3", "h3"),
        node("Sigmoid", "h3", "out3"),
    ]
    weights: dict[str, np.ndarray | Shape] = {
        **{"stem": (8, 4, 3, 3), "down1": (8, 8, 3, 3), "down2": (8, 8, 3, 3)},
        **{f"head{scale}": (6, 8, 1, 1) for scale in (3, 4, 5)},
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    return fixed(nodes, {"x": (1, 4, 16, 16)}, ["out3", "out4", "out5"], weights)


def encoder(words: int = 6, width: int = 8, layers: int = 2) -> ModelProto:
    """A transformer encoder over words: attention with one head, layer normalisation after each residual sum."""
    nodes, weights = [node("Gather", "table ids", "t0")], dict[str, np.ndarray | Shape]({"table": (50, width)})
    for i in range(layers):
        x, y = f"t{i}", f"t{i + 1}"
        for each in "qkvo":
            weights[f"w{each}{i}"] = (width, width)
        weights |= {f"up{i}": (width, 4 * width), f"down{i}": (4 * width, width)}
        weights |= {f"scale{i}{half}": np.ones(width, np.float32) for half in "ab"}
        nodes += [
            *(node("MatMul", f"{x} w{each}{i}", f"{each}{i}") for each in "qkv"),
            node("Transpose", f"k{i}", f"kt{i}", perm=[0, 2, 1]),
            node("MatMul", f"q{i} kt{i}", f"score{i}"),
            node("Softmax", f"score{i}", f"weight{i}", axis=-1),
            node("MatMul", f"weight{i} v{i}", f"mixed{i}"),
            node("MatMul", f"mixed{i} wo{i}", f"attended{i}"),
            node("Add", f"attended{i} {x}", f"sum{i}"),
            node("LayerNormalization", f"sum{i} scale{i}a", f"norm{i}", axis=-1),
            node("MatMul", f"norm{i} up{i}", f"wide{i}"),
            node("Relu", f"wide{i}", f"active{i}"),
            node("MatMul", f"active{i} down{i}", f"narrow{i}"),
            node("Add", f"narrow{i} norm{i}", f"total{i}"),
            node("LayerNormalization", f"total{i} scale{i}b", y, axis=-1),
        ]
    nodes += [node("ReduceMean", f"t{layers} one", "pooled", keepdims=0), node("MatMul", "pooled classes", "y")]
    weights |= {"classes": (width, 3), "one": np.array([1])}
    return fixed(nodes, {"ids": (1, words)}, ["y"], weights, types={"ids": TensorProto.INT64})


def lstm() -> ModelProto:
    """Two recurrent layers over 5 steps of 6 features, 4 units each; the last states are outputs, too."""
    nodes = [
        node("LSTM", "x w r", "s0 h0 c0", hidden_size=4),
        node("Squeeze", "s0 one", "s1"),
        node("LSTM", "s1 w2 r", "s2 h1 c1", hidden_size=4),
        node("Squeeze", "h1 zero", "last"),
        node("MatMul", "last v", "y"),
    ]
    weights: dict[str, np.ndarray | Shape] = {
        **{"w": (1, 16, 6), "w2": (1, 16, 4), "r": (1, 16, 4), "v": (4, 3)},
        **{"one": np.array([1]), "zero": np.array([0])},
    }
    return fixed(nodes, {"x": (5, 1, 6)}, ["y", "h0", "c1"], weights)


def quantised() -> ModelProto:
    """Convolutions between pairs of QuantizeLinear and DequantizeLinear, weights as int8."""
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "wq ws wz", "wd"),
        node("Conv", "xd wd", "a", pads=[1] * 4),
        node("Relu", "a", "b"),
        node("QuantizeLinear", "b s z", "bq"),
        node("DequantizeLinear", "bq s z", "bd"),
        node("Conv", "bd wd", "c", pads=[1] * 4, strides=[2, 2]),
        node("QuantizeLinear", "c s z", "cq"),
        node("DequantizeLinear", "cq s z", "cd"),
        node("Flatten", "cd", "f"),
        node("MatMul", "f m", "y"),
    ]
    weights: dict[str, np.ndarray | Shape] = {
        "wq": np.random.default_rng(0).integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
        **{"s": np.asarray(np.float32(0.05)), "z": np.asarray(np.uint8(128))},
        **{"ws": np.asarray(np.float32(0.01)), "wz": np.asarray(np.int8(0)), "m": (64, 3)},
    }
    return fixed(nodes, dict(IMAGE), ["y"], weights)


def conditional() -> ModelProto:
    """An If whose branches read `a` from outside, which is older than the tensor that the If is given."""

    def branch(name: str, *nodes: NodeProto) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", FLOAT, None)])

    nodes = [
        conv("x", "a"),
        node("GlobalAveragePool", "a", "g"),
        node("ReduceMax", "g", "most", keepdims=0),
        node("Greater", "most half", "choice"),
        node("Conv", "a v", "b"),
        node(
            "If",
            "choice",
            "c",
            then_branch=branch("then", node("Conv", "a v", "then_a"), node("Add", "then_a b", "then_y")),
            else_branch=branch("else", node("Relu", "b", "else_y")),
        ),
        node("Conv", "c u", "y"),
    ]
    weights: dict[str, np.ndarray | Shape] = {"half": np.asarray(np.float32(0.5)), "v": (2, 4, 1, 1), "u": (3, 2, 1, 1)}
    return fixed(nodes, dict(IMAGE), ["y"], SQUARE | weights)


def any_size() -> ModelProto:
    """Images of any size: two convolutions, whose mean over the pixels is classified."""
    nodes = [
        conv("x", "a"),
        node("Relu", "a", "r"),
        node("Conv", "r v", "b", strides=[2, 2]),
        node("GlobalAveragePool", "b", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f u", "y"),
    ]
    return fixed(nodes, {"x": ("N", 3, "H", "W")}, ["y"], {"w": (4, 3, 3, 3), "v": (6, 4, 1, 1), "u": (6, 5)})


def classifier(side: int = 64, width: int = 64) -> ModelProto:
    """Images: four convolutions, whose mean over the pixels is classified; 460 M MACs as it is."""
    nodes, weights, previous = list[NodeProto](), dict[str, np.ndarray | Shape](), "image"
    for i in range(4):
        nodes += [conv(previous, f"c{i}", f"w{i}"), node("Relu", f"c{i}", f"r{i}")]
        weights[f"w{i}"] = np.random.default_rng(i).normal(0, 0.05, (width, width if i else 3, 3, 3)).astype(np.float32)
        previous = f"r{i}"
    nodes += [node("GlobalAveragePool", previous, "g"), node("Flatten", "g", "f"), node("MatMul", "f u", "scores")]
    return fixed(nodes, {"image": (1, 3, side, side)}, ["scores"], weights | {"u": (width, 10)})


def half_precision() -> ModelProto:
    """Two layers in float16."""
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    rng = np.random.default_rng(0)
    weights = {name: rng.random(shape).astype(np.float16) for name, shape in (("w", (8, 4)), ("v", (4, 2)))}
    return fixed(nodes, {"x": (1, 8)}, ["y"], dict(weights), types=dict.fromkeys("xy", TensorProto.FLOAT16))


def mixed_ends() -> ModelProto:
    """Two inputs, of which one is read late; two outputs, of which one is ready early and one is a view of an input."""
    nodes = [
        conv("x", "a"),
        node("GlobalAveragePool", "a", "early"),
        node("Conv", "a v", "b"),
        node("Mul", "b gain", "c"),
        node("Conv", "c u", "y"),
        node("Flatten", "x", "copy"),
    ]
    weights: dict[str, np.ndarray | Shape] = {**SQUARE, "v": (2, 4, 1, 1), "u": (3, 2, 1, 1)}
    return fixed(nodes, IMAGE | {"gain": (1,)}, ["y", "early", "copy"], weights)


KINDS = {
    **{"unet": unet, "yolo": yolo, "encoder": encoder, "lstm": lstm, "quantised": quantised},
    **{"conditional": conditional, "half_precision": half_precision, "mixed_ends": mixed_ends},
}
