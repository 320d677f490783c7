"""A graph with fixed inputs -> the same function with all shapes known, constants folded and no-ops removed."""

import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import onnx
import onnxslim
from onnx import ModelProto

from partway.dnn import control_flow
from partway.dnn.liveness import dependent_names
from partway.dnn.macs import MAX_SHAPE_ELEMENTS, Shapes, known_shapes
from partway.dnn.onnx_file import weights_as_inputs

MAX_ROUNDS = 4
"""Rounds of simplification and shape inference; one is enough for all shipped networks."""
MAX_FOLDED_ELEMENTS = 2**28
"""Networks that compute larger constants are not simplified: folding would need the memory for them."""
SKIPPED_OPTIMISATIONS = ["graph_fusion", "subexpression_elimination", "weight_tying"]
"""Optimisations of onnxslim that would remove cuts or work, or compare all weights with each other."""


def simplify_and_infer(model: ModelProto) -> tuple[ModelProto, Exception | None]:
    """The simplified model with shapes, and what is wrong with those that could not be inferred.

    Simplification and shape inference alternate: a folded constant may fix a shape, and a shape fold a constant.
    """
    model, problem = onnx.shape_inference.infer_shapes(_with_defaults(model), data_prop=True), None
    for _ in range(MAX_ROUNDS):
        model = control_flow.with_constant_branches(_simplify(model))
        model, problem = _inferred(model)
        known = known_shapes(model.graph)
        if all(name in known for node in model.graph.node for name in node.output if name):
            break
        _add_loop_shapes(model, known)
    return model, problem


def _with_defaults(model: ModelProto) -> ModelProto:
    """The model with a default written out that shape inference reads wrongly: STFT returns half of the spectrum."""
    for node in model.graph.node:
        if node.op_type == "STFT" and not any(item.name == "onesided" for item in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("onesided", 1))
    return model


def _inferred(model: ModelProto) -> tuple[ModelProto, Exception | None]:
    """The model with inferred shapes; what is wrong with them may concern only nodes at its end, which do no work."""
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), None
    except Exception as error:  # the exceptions of shape inference share no narrower base
        return onnx.shape_inference.infer_shapes(model, data_prop=True), error


def _add_loop_shapes(model: ModelProto, known: Shapes) -> None:
    """Add the shapes of the outputs of loops, which shape inference leaves open."""
    scope = control_flow.scope_of(model.graph, model.opset_import)
    for node in model.graph.node:
        if node.op_type in ("Loop", "Scan") and any(name not in known for name in node.output if name):
            found = {value.name: value for value in control_flow.output_types(node, known, scope)}
            kept = [value for value in model.graph.value_info if value.name not in found]
            del model.graph.value_info[:]
            model.graph.value_info.extend([*kept, *found.values()])


def _simplify(model: ModelProto) -> ModelProto:
    """The same function with constants folded and no-ops removed; the unchanged graph if onnxslim fails."""
    if _largest_constant(model) > MAX_FOLDED_ELEMENTS:
        return model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slim = _slim(model)
    except Exception:  # onnxslim can fail in many ways, and the unchanged graph can still be cut
        return model
    same = [value.name for value in slim.graph.output] == [value.name for value in model.graph.output]
    return slim if same else model


def _largest_constant(model: ModelProto) -> int:
    """Elements of the largest tensor that is computed from constants."""
    shapes, graph = known_shapes(model.graph), model.graph
    varying = set(dependent_names(graph.node, [value.name for value in graph.input]))
    constant = (name for node in graph.node for name in node.output if name not in varying and name in shapes)
    return max((prod(shapes[name]) for name in constant), default=0)


def _slim(model: ModelProto) -> ModelProto:
    """The model simplified by onnxslim. Weights are passed as inputs, so that they are neither copied nor folded."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if prod(tensor.dims) > MAX_SHAPE_ELEMENTS}
    light = weights_as_inputs(model, list(weights.values()))
    run_onnxslim: Callable[..., Any] = onnxslim.slim  # its declared types are wrong
    # shapes are inferred by onnx: onnxslim's own inference hangs on some broken files
    slim: ModelProto = run_onnxslim(
        light, skip_optimizations=SKIPPED_OPTIMISATIONS, size_threshold=MAX_SHAPE_ELEMENTS * 4, no_shape_infer=True
    )
    inputs = list(slim.graph.input)
    slim.graph.initializer.extend(weights[value.name] for value in inputs if value.name in weights)
    del slim.graph.input[:]
    slim.graph.input.extend(value for value in inputs if value.name not in weights)
    return slim
