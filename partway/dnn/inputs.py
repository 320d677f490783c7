"""Gives every input of a network a fixed shape, or a fixed value: sizes that a file leaves open, and how to name them.

An open size is a batch of 1 if its name says so, or if it has no name and the network uses it as one. All others are
asked for, in one message. Sizes with the same name are equal.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, repeat
from typing import Any, cast

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

from partway.arguments import as_whole, named
from partway.dnn.macs import MAX_SHAPE_ELEMENTS, Shape
from partway.dnn.onnx_file import weights_as_inputs
from partway.errors import InputError, nearest, shown

Size = int | str
"""A fixed size, or the name of an open one."""
Value = float | bool | Sequence[float]
BATCH = re.compile(r"n|b|bsz?|bz|(.*[^a-z])?(batch|batches|batch_?size|nbatch)([^a-z].*)?", re.IGNORECASE)
UNNAMED = re.compile(r"\W*\d*|none|unk.*|.*dynamic_?(axes|dimension).*|[sd]\d+|dim_?\d*", re.IGNORECASE)
"""Names of sizes that exporters make up."""
FIRST_IS_BATCH = (
    *("Conv", "ConvTranspose", "QLinearConv", "ConvInteger", "BatchNormalization", "InstanceNormalization"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LRN"),
)
"""Operators whose first input has the batch in its first place."""
OTHER_KINDS = {
    "sequence_type": "a sequence",
    "optional_type": "optional",
    "map_type": "a map",
    "sparse_tensor_type": "a sparse tensor",
}
EXAMPLE_SIDE, EXAMPLE_SIZE = 224, 128
"""Sizes in the proposal: the sides of an image, and others."""


def checked_shapes(given: Any) -> dict[str, Shape]:
    """Input name -> shape. Raises InputError for anything but a mapping from names to sequences of whole numbers."""
    return {name: _checked_shape(name, sizes) for name, sizes in checked_names("shapes", given).items()}


def checked_names(argument: str, given: Any) -> dict[str, Any]:
    """Input name -> what is given for it; nothing for None. Raises InputError for anything but a mapping from names."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in cast(Mapping[Any, Any], given)):
        raise InputError(f"{named(argument)} must be a mapping from names of inputs, got {shown(given)}")
    return dict(cast(Mapping[str, Any], given))


def _checked_shape(name: str, given: Any) -> Shape:
    sizes: list[Any] = [*given] if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [None]
    whole = tuple(size for size in map(as_whole, sizes) if size is not None)
    if len(whole) < len(sizes):
        got = f"{shown(given)} for '{name}'"
        raise InputError(f"{named('shapes')} must be sequences of whole numbers, such as (1, 3, 224, 224), got {got}")
    return whole


def fix_inputs(model: ModelProto, shapes: Mapping[str, Shape], values: Mapping[str, Value]) -> dict[str, str]:
    """Fix the shapes of all inputs, replace those in `values` by constants, and clear the shapes inferred from others.

    Returns the inputs whose batch is open in the file and became 1, and their shapes there.

    Raises InputError for an unknown name, sizes that remain open, and inputs that are not tensors.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    names = [value.name for value in inputs]
    for argument, given in (("shapes", shapes), ("values", values)):
        for name in given:
            if name not in names:
                raise InputError(f"{named(argument)}: the network has no input '{name}'{nearest(name, names)}")
    for value in inputs:
        if kind := OTHER_KINDS.get(value.type.WhichOneof("value") or ""):
            raise InputError(f"input '{value.name}' is {kind}; only tensors are supported: export with tensor inputs")
    fixed = _fixed_shapes(model, [value for value in inputs if value.name not in values], shapes)
    batches = {
        value.name: _text(_sizes(value, repeat("?")))
        for value in inputs
        if value.name in fixed and value.name not in shapes and not _is_fixed(value)
    }
    graph.initializer.extend(_constant(value, values[value.name]) for value in inputs if value.name in values)
    del graph.input[:], graph.value_info[:]
    graph.input.extend(
        onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, fixed[value.name])
        for value in inputs
        if value.name in fixed
    )
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return batches


def _is_fixed(value: ValueInfoProto) -> bool:
    return all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)


def _constant(value: ValueInfoProto, given: Value) -> TensorProto:
    """The value given to an input as an initialiser: one number for all elements, or as many as it has."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    try:
        exact = np.asarray(given)
        array = exact.astype(dtype)
        sizes = [dim.dim_value or exact.size for dim in value.type.tensor_type.shape.dim]
        array = np.full(sizes, array.ravel()[0]) if exact.size == 1 else array.reshape(sizes)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{named('values')}: {shown(given)} does not fit the input '{value.name}'") from None
    if not np.array_equal(
        array.astype(np.float64), np.broadcast_to(exact.reshape(-1), array.size).reshape(array.shape)
    ):
        raise InputError(
            f"{named('values')}: '{value.name}' has the data type {dtype}, which cannot hold {shown(given)}"
        )
    return numpy_helper.from_array(array, value.name)


def _fixed_shapes(model: ModelProto, inputs: list[ValueInfoProto], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of every input: as given, else that of the file with all open sizes known."""
    fresh = (f"?{i}" for i in count())  # sizes without a name differ from each other
    sizes = {value.name: _sizes(value, fresh) for value in inputs}
    known = _known_sizes(model, sizes, shapes)
    fixed, asked = dict[str, Shape](), list[tuple[str, tuple[Size, ...] | None]]()
    for name, found in sizes.items():
        if name in shapes:
            shape = shapes[name]
            if min(shape, default=1) < 1 or (found is not None and len(found) != len(shape)):
                raise InputError(
                    f"{named('shapes')}: input '{name}' has the shape {_text(found)} in the file, got {_text(shape)}"
                )
            fixed[name] = shape
            continue
        complete = None if found is None else tuple(known.get(size, size) for size in found)
        if complete is None or any(isinstance(size, str) for size in complete):
            asked.append((name, complete))
        else:
            fixed[name] = tuple(size for size in complete if isinstance(size, int))
    if asked:
        shown_as = ", ".join(f"input '{name}' is {_text(found)}" for name, found in asked)
        examples = " ".join(f"{name}={_example(found)}" for name, found in asked)
        raise InputError(f"sizes are open in the file ({shown_as}); fix them, such as by {named('shapes')} {examples}")
    return fixed


def _sizes(value: ValueInfoProto, fresh: Iterator[str]) -> tuple[Size, ...] | None:
    """The sizes of an input in the file; None if not even their number is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param or next(fresh)
        for dim in tensor.shape.dim
    )


def _known_sizes(
    model: ModelProto, sizes: Mapping[str, tuple[Size, ...] | None], shapes: Mapping[str, Shape]
) -> dict[Size, int]:
    """The open sizes that are known: those in a shape that was given, and batches."""
    known = dict[Size, int]()
    for name, found in sizes.items():
        for size, given in zip(found or (), shapes.get(name, ()), strict=False):
            if isinstance(size, str):
                known.setdefault(size, given)
    symbols = {size for found in sizes.values() for size in found or () if isinstance(size, str)}
    known |= {size: 1 for size in symbols if size not in known and BATCH.fullmatch(size)}
    first = {found[0] for name, found in sizes.items() if found and len(found) > 1 and name not in shapes}
    unnamed = [size for size in first if isinstance(size, str) and size not in known and UNNAMED.fullmatch(size)]
    return known | {size: 1 for size in unnamed if _is_used_as_batch(model, sizes, known, size)}


def _is_used_as_batch(
    model: ModelProto, sizes: Mapping[str, tuple[Size, ...] | None], known: Mapping[Size, int], symbol: str
) -> bool:
    """Whether a size is the batch of a convolution or pooling, or the first of all outputs and in no other place."""
    weights = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims, dtype=float) > MAX_SHAPE_ELEMENTS]
    light = weights_as_inputs(model, weights)
    for value in light.graph.input:
        found = sizes.get(value.name)
        if found is not None:
            shape = [known.get(size, size) for size in found]
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, shape))
    del light.graph.value_info[:]
    for value in light.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception:  # the exceptions of shape inference share no narrower base; the size is then asked for
        return False
    return _is_first_everywhere(graph, symbol)


def _is_first_everywhere(graph: GraphProto, symbol: str) -> bool:
    tensors = {
        value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    if any(
        node.op_type in FIRST_IS_BATCH and tensors.get(node.input[0], [])[:1] == [symbol]
        for node in graph.node
        if node.input
    ):
        return True
    elsewhere = any(symbol in sizes[1:] for sizes in tensors.values())
    return not elsewhere and all(tensors[value.name][:1] == [symbol] for value in graph.output)


def _text(sizes: Sequence[Size] | None) -> str:
    """batchx?x224: a shape with the names of its open sizes."""
    if sizes is None:
        return "of unknown shape"
    return (
        "x".join("?" if isinstance(size, str) and UNNAMED.fullmatch(size) else str(size) for size in sizes)
        or "a number"
    )


def _example(sizes: Sequence[Size] | None) -> str:
    """A shape that could be given for these sizes."""
    sizes = [1, 3, "", ""] if sizes is None else sizes
    open_size = EXAMPLE_SIDE if len(sizes) == 4 or 3 in sizes else EXAMPLE_SIZE
    return "x".join(str(open_size if isinstance(size, str) else size) for size in sizes)
