"""Generated ONNX networks over operators, shapes, types and control flow: profiled, counted by hand, cut and run."""

import math
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fuzz.counts import Fail
from partway.dnn.graph import load_network, profile_network
from partway.dnn.profile import DTYPE_BITS, Profile, read_profile, write_profile
from partway.dnn.runtime import check

Shape = tuple[int, ...]
TYPES = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.float64: TensorProto.DOUBLE}
ELEMENTWISE = ("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Identity", "Softplus", "Exp", "Erf", "HardSwish", "Dropout")
MAX_ELEMENTS = 200_000


@dataclass
class Builder:
    """A network that grows by one operator at a time.

    now, shape   the tensor that the next operator reads        macs   counted by hand; None where that is not done
    earlier      tensors that a later operator may read again, by shape
    """

    rng: random.Random
    dtype: Any
    now: str = "x"
    shape: Shape = ()
    macs: int | None = 0
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    weights: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    earlier: dict[Shape, list[str]] = field(default_factory=dict[Shape, list[str]])

    def add(self, kind: str, shape: Shape, *others: str, macs: int = 0, **attributes: Any) -> None:
        """An operator that reads the present tensor and others."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.now, *others], [name], name=f"n{len(self.nodes)}", **attributes))
        self.earlier.setdefault(self.shape, []).append(self.now)
        self.now, self.shape = name, shape
        self.macs = None if self.macs is None else self.macs + macs

    def weight(self, *shape: int, dtype: Any = None) -> str:
        """A random weight."""
        name = f"w{len(self.weights)}"
        values = np.random.default_rng(self.rng.randrange(2**32)).normal(size=shape) / math.sqrt(
            max(1, math.prod(shape))
        )
        self.weights[name] = values.astype(dtype or self.dtype)
        return name

    def constant(self, *values: int, dtype: Any = np.int64) -> str:
        """A constant, such as a shape."""
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(values, dtype)
        return name


def profile_generated(rng: random.Random) -> str:
    """A case: profile a generated network, compare its MACs with those counted by hand, and run both halves of cuts."""
    dtype = rng.choice((np.float32,) * 8 + (np.float16, np.float64))
    model, macs, shapes = generated(rng, dtype)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder, "net.onnx")
        onnx.save(model, path)
        network = load_network(path, shapes)
        profile = profile_network(network)
        _check_profile(profile, path.with_suffix(".csv"))
        if macs is not None and profile.macs != macs:
            raise Fail("lost result", f"{profile.macs} MACs, by hand {macs}")
        for split in check(network, limit=3):
            if not split.rounding:
                raise Fail("lost result", f"the halves of cut {split.cut} are off by {split.deviation}")
    return "profiled" if len(profile.cuts) > 2 else "profiled, no inner cut"


def _check_profile(profile: Profile, path: Path) -> None:
    macs = [cut.macs for cut in profile.cuts]
    if macs != sorted(macs) or macs[0] != 0:
        raise Fail("lost result", f"MACs do not rise: {macs}")
    for dtype in DTYPE_BITS:
        if not np.isfinite(profile.bits(dtype)).all() or (profile.bits(dtype)[:-1] <= 0).any():
            raise Fail("silent NaN", f"bits {profile.bits(dtype)}")
    path.write_text(write_profile(profile), "utf-8")
    if [cut.macs for cut in read_profile(str(path)).cuts] != macs:
        raise Fail("lost result", "the profile is another one when it is read again")


def generated(rng: random.Random, dtype: Any) -> tuple[onnx.ModelProto, int | None, dict[str, Shape]]:
    """A network, its MACs by hand or None, and the shapes that its open dimensions need."""
    size = rng.choice((1, 3, 8, 15, 32))
    shape: Shape = rng.choice(((1, rng.choice((1, 3, 4)), size, size + rng.choice((0, 1))), (1, size, 16), (1, 24)))
    build = Builder(rng, dtype, shape=shape)
    if rng.random() < 0.9:  # without any work there is nothing to cut
        {4: _conv, 3: _matmul, 2: _gemm}[len(shape)](build)
    for _ in range(rng.randint(1, 12)):
        rng.choice(_operators(build))(build)
    open_batch, shapes = rng.random() < 0.2, dict[str, Shape]()
    declared: list[int | str] = list(shape)
    if open_batch:
        declared[0] = "batch"
        if rng.random() < 0.5:
            shapes = {"x": shape}
    if rng.random() < 0.1:
        declared[-1] = "width"
        shapes = {"x": shape}
    outputs = [build.now]
    if rng.random() < 0.15 and build.nodes:
        outputs.append(rng.choice(build.nodes).output[0])
    types = dict.fromkeys(outputs, TYPES[dtype])
    graph = helper.make_graph(
        build.nodes,
        "generated",
        [helper.make_tensor_value_info("x", TYPES[dtype], declared)],
        [helper.make_tensor_value_info(name, types[name], None) for name in dict.fromkeys(outputs)],
        [numpy_helper.from_array(value, name) for name, value in build.weights.items()],
    )
    opset = rng.choice((13, 17, 18, 20))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), build.macs, shapes


def _operators(build: Builder) -> list[Callable[[Builder], None]]:
    """What can come next."""
    known = [_elementwise, _elementwise, _affine, _reshaped, _transposed, _skip, _branch, _loop, _cast, _scaled, _odd]
    rank = len(build.shape)
    if rank == 4:
        known += [_conv, _conv, _conv, _pool, _normalised, _global, _flatten, _concat, _resize]
    if rank == 3:
        known += [_matmul, _matmul, _softmax, _attention, _concat]
    if rank == 2:
        known += [_gemm, _gemm, _gemm, _concat]
    return known


def _elementwise(build: Builder) -> None:
    build.add(build.rng.choice(ELEMENTWISE), build.shape)


def _affine(build: Builder) -> None:
    build.add(build.rng.choice(("Add", "Mul", "Sub")), build.shape, build.weight(build.shape[-1]))


def _reshaped(build: Builder) -> None:
    batch, rest = build.shape[0], math.prod(build.shape[1:])
    target = build.rng.choice(((batch, rest), (batch, 1, rest), (batch, rest, 1, 1)))
    build.add("Reshape", target, build.constant(*target))


def _transposed(build: Builder) -> None:
    order = [0, *build.rng.sample(range(1, len(build.shape)), len(build.shape) - 1)]
    build.add("Transpose", tuple(build.shape[i] for i in order), perm=order)


def _skip(build: Builder) -> None:
    same = build.earlier.get(build.shape)
    if same:
        build.add("Add", build.shape, build.rng.choice(same))


def _concat(build: Builder) -> None:
    same = build.earlier.get(build.shape)
    if same and math.prod(build.shape) < MAX_ELEMENTS:
        doubled = (build.shape[0], 2 * build.shape[1], *build.shape[2:])
        build.add("Concat", doubled, build.rng.choice(same), axis=1)


def _cast(build: Builder) -> None:
    """To another type and back, or quantised and back."""
    if build.dtype is np.float32 and build.rng.random() < 0.5:
        scale, zero = f"s{len(build.weights)}", f"z{len(build.weights)}"
        build.weights[scale], build.weights[zero] = np.array(0.05, np.float32), np.array(128, np.uint8)
        build.add("QuantizeLinear", build.shape, scale, zero)
        build.add("DequantizeLinear", build.shape, scale, zero)
    else:
        build.add("Cast", build.shape, to=TensorProto.FLOAT)
        build.add("Cast", build.shape, to=TYPES[build.dtype])
    build.earlier[build.shape].pop()  # has another type than what later operators add to it


def _scaled(build: Builder) -> None:
    name = f"w{len(build.weights)}"
    build.weights[name] = np.array(0.5, build.dtype)
    build.add("Mul", build.shape, name)


def _conv(build: Builder) -> None:
    rng, (batch, channels, height, width) = build.rng, build.shape
    kernel, stride = rng.choice((1, 3, 3, 5)), rng.choice((1, 1, 2))
    groups = rng.choice((1, channels))
    out = groups * rng.choice((1, 2)) if groups > 1 else rng.choice((1, 4, 8, 16))
    if min(height, width) + 2 * (kernel // 2) < kernel:
        return
    pad = kernel // 2
    sizes = [(side + 2 * pad - kernel) // stride + 1 for side in (height, width)]
    weights = build.weight(out, channels // groups, kernel, kernel)
    build.add(
        "Conv",
        (batch, out, *sizes),
        weights,
        macs=batch * out * math.prod(sizes) * channels // groups * kernel * kernel,
        group=groups,
        strides=[stride, stride],
        pads=[pad] * 4,
        kernel_shape=[kernel, kernel],
    )


def _pool(build: Builder) -> None:
    batch, channels, height, width = build.shape
    if min(height, width) >= 2:
        sizes = (height // 2, width // 2)
        kind = build.rng.choice(("MaxPool", "AveragePool"))
        build.add(kind, (batch, channels, *sizes), kernel_shape=[2, 2], strides=[2, 2])


def _normalised(build: Builder) -> None:
    channels = build.shape[1]
    positive = build.weight(channels)
    build.weights[positive] = np.abs(build.weights[positive]) + build.dtype(0.5)
    others = (build.weight(channels), build.weight(channels), build.weight(channels), positive)
    build.add("BatchNormalization", build.shape, *others)


def _global(build: Builder) -> None:
    build.add("GlobalAveragePool", (*build.shape[:2], 1, 1))


def _flatten(build: Builder) -> None:
    build.add("Flatten", (build.shape[0], math.prod(build.shape[1:])))


def _resize(build: Builder) -> None:
    batch, channels, height, width = build.shape
    if 4 * math.prod(build.shape) < MAX_ELEMENTS and build.dtype is np.float32:
        scales = f"s{len(build.weights)}"
        build.weights[scales] = np.array([1, 1, 2, 2], np.float32)
        build.add("Resize", (batch, channels, 2 * height, 2 * width), "", scales, mode="nearest")


def _gemm(build: Builder) -> None:
    rows, inner = build.shape
    columns, transposed = build.rng.choice((1, 10, 64)), build.rng.randint(0, 1)
    weights = build.weight(*((columns, inner) if transposed else (inner, columns)))
    macs = rows * inner * columns
    build.add("Gemm", (rows, columns), weights, build.weight(columns), macs=macs, transB=transposed)


def _matmul(build: Builder) -> None:
    batch, rows, inner = build.shape
    columns = build.rng.choice((8, 16, 32))
    build.add("MatMul", (batch, rows, columns), build.weight(inner, columns), macs=batch * rows * inner * columns)


def _softmax(build: Builder) -> None:
    """Softmax with a skip connection."""
    before, shape = build.now, build.shape
    build.add("Softmax", shape, axis=-1)
    build.add("Sub", shape, before)


def _attention(build: Builder) -> None:
    """Softmax(X X^T) X."""
    batch, rows, inner = build.shape
    tokens = build.now
    if rows * rows > MAX_ELEMENTS:
        return
    build.add("Transpose", (batch, inner, rows), perm=[0, 2, 1])
    keys, build.now, build.shape = build.now, tokens, (batch, rows, inner)
    build.add("MatMul", (batch, rows, rows), keys, macs=batch * rows * rows * inner)
    build.add("Softmax", build.shape, axis=-1)
    build.add("MatMul", (batch, rows, inner), tokens, macs=batch * rows * rows * inner)


def _branch(build: Builder) -> None:
    """An If that depends on the data."""
    if build.rng.random() < 0.85:
        return
    build.macs = None
    total, zero, condition = (f"c{len(build.nodes)}{letter}" for letter in "tzc")
    build.weights[zero] = np.array(0, build.dtype)
    build.nodes.append(helper.make_node("ReduceSum", [build.now], [total], keepdims=0))
    build.nodes.append(helper.make_node("Greater", [total, zero], [condition]))
    bodies = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(kind, [build.now], [f"{condition}_{name}"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{condition}_{name}", TYPES[build.dtype], build.shape)],
        )
        for name, kind in (("then", "Relu"), ("else", "Neg"))
    }
    tensor = f"t{len(build.nodes)}"
    build.nodes.append(helper.make_node("If", [condition], [tensor], **bodies))
    build.now = tensor


def _loop(build: Builder) -> None:
    """A Loop of a fixed number of steps."""
    if build.rng.random() < 0.85:
        return
    build.macs = None
    name = f"l{len(build.nodes)}"
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Relu", [f"{name}_in"], [f"{name}_out"]),
            helper.make_node("Identity", [f"{name}_c"], [f"{name}_d"]),
        ],
        "body",
        [
            value(f"{name}_i", TensorProto.INT64, []),
            value(f"{name}_c", TensorProto.BOOL, []),
            value(f"{name}_in", TYPES[build.dtype], build.shape),
        ],
        [value(f"{name}_d", TensorProto.BOOL, []), value(f"{name}_out", TYPES[build.dtype], build.shape)],
    )
    steps, go = f"{name}_n", f"{name}_g"
    build.weights[steps], build.weights[go] = np.array(3, np.int64), np.array(True)
    tensor = f"t{len(build.nodes)}"
    build.nodes.append(helper.make_node("Loop", [steps, go, build.now], [tensor], body=body))
    build.now = tensor


def _odd(build: Builder) -> None:
    """What is rare or wrong: an operator that does not exist, a shape that does not fit, a tensor that is not there."""
    if build.rng.random() < 0.9:
        return
    build.macs = None
    kind = build.rng.choice(("NoSuchOperator", "NonZero", "Conv", "Reshape", "Shape"))
    others = {"Conv": (build.weight(3, 5, 3, 3),), "Reshape": (build.constant(7, 11),)}.get(kind, ())
    build.add(kind, build.shape, *others)
