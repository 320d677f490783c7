"""Control flow as single nodes: what If, Loop and Scan read, how much work they do, and which branch is constant."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, numpy_helper

from partway.dnn.macs import MAX_SHAPE_ELEMENTS, Shapes, known_shapes, node_macs
from partway.dnn.onnx_file import MIN_IR_VERSION, subgraphs
from partway.errors import InputError

MAX_CONDITION_NODES = 100
"""Most nodes between the initialisers and a condition that is evaluated."""


@dataclass(frozen=True)
class Scope:
    """What is known of the tensors of a graph.

    types      name -> data type and shape
    constants  name -> the value of a small initialiser
    """

    types: Mapping[str, ValueInfoProto]
    constants: Mapping[str, TensorProto]
    opsets: tuple[OperatorSetIdProto, ...]


def scope_of(graph: GraphProto, opsets: Iterable[OperatorSetIdProto]) -> Scope:
    """What shape inference has found out about a graph's tensors."""
    types = {t.name: onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer}
    types |= {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    constants = {t.name: t for t in graph.initializer if np.prod(t.dims, dtype=float) <= MAX_SHAPE_ELEMENTS}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    return Scope(types, constants, tuple(opsets))


def reads(node: NodeProto) -> list[str]:
    """The tensors that a node reads, those that the graphs inside it read from outside included."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        names += _outer_names(graph)
    return list(dict.fromkeys(names))


def _outer_names(graph: GraphProto) -> list[str]:
    inner, outer = {value.name for value in graph.input} | {t.name for t in graph.initializer}, list[str]()
    for node in graph.node:
        outer += [name for name in reads(node) if name not in inner]
        inner.update(node.output)
    return outer + [value.name for value in graph.output if value.name not in inner]


def work(node: NodeProto, shapes: Shapes, scope: Scope) -> int:
    """Multiply-accumulates of a node: of an If those of the larger branch, of a Loop or Scan those of all iterations.

    Raises InputError if a shape is not fixed or the number of iterations depends on the data.
    """
    if not subgraphs(node):
        return node_macs(node, shapes)
    bodies = [_body(node, graph, scope) for graph in subgraphs(node)]
    each = max(_graph_work(body, scope) for body in bodies)
    if node.op_type == "If" or not each:
        return each
    iterations = _iterations(node, shapes, scope)
    if iterations is None:
        raise InputError(
            f"the iterations of {node.op_type} '{node.name}' depend on the data, and so do its multiply-accumulates; "
            "export the network with a fixed number"
        )
    return each * iterations


def _graph_work(graph: GraphProto, scope: Scope) -> int:
    inner = scope_of(graph, scope.opsets)
    inside = Scope({**scope.types, **inner.types}, {**scope.constants, **inner.constants}, scope.opsets)
    shapes = known_shapes(graph)
    return sum(work(node, shapes, inside) for node in graph.node)


def output_types(node: NodeProto, shapes: Shapes, scope: Scope) -> list[ValueInfoProto]:
    """Data types and shapes of the outputs of a Loop or Scan; shape inference leaves out those of a Loop's states."""
    (graph,) = subgraphs(node)
    body = _body(node, graph, scope)
    iterations, states = _iterations(node, shapes, scope), len(node.output) - _scan_outputs(node, graph)
    skipped = 1 if node.op_type == "Loop" else 0
    found = list[ValueInfoProto]()
    inside = known_shapes(body)
    for i, (name, value) in enumerate(zip(node.output, list(body.output)[skipped:], strict=False)):
        if not name or value.name not in inside or (i >= states and iterations is None):
            continue
        shape = inside[value.name] if i < states else (iterations or 0, *inside[value.name])
        found.append(onnx.helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, shape))
    return found


def _scan_outputs(node: NodeProto, body: GraphProto) -> int:
    """The number of outputs that have one slice per iteration."""
    if node.op_type == "Loop":
        return len(body.output) - len(body.input) + 1
    return len(body.output) - (len(body.input) - _integer(node, "num_scan_inputs", 0))


def _iterations(node: NodeProto, shapes: Shapes, scope: Scope) -> int | None:
    """How often a Loop or Scan runs its body; None if that depends on the data."""
    (graph,) = subgraphs(node)
    if node.op_type == "Scan":
        scanned = _integer(node, "num_scan_inputs", 0)
        name = node.input[len(node.input) - scanned]
        return shapes[name][_scan_axes(node, scanned)[0]] if name in shapes else None
    count, go_on = (node.input[0], node.input[1]) if len(node.input) > 1 else (node.input[0], "")
    if count not in scope.constants or (go_on and not _is_true(scope.constants.get(go_on))):
        return None
    return max(0, int(numpy_helper.to_array(scope.constants[count]).item())) if _never_stops(graph) else None


def _never_stops(body: GraphProto) -> bool:
    """Whether the condition that a Loop's body returns is the one it was given, or true."""
    name, made_by = body.output[0].name, {name: node for node in body.node for name in node.output}
    while name in made_by and made_by[name].op_type in ("Identity", "Cast"):
        name = made_by[name].input[0]
    if name in made_by and made_by[name].op_type == "Constant":
        return _is_true(made_by[name].attribute[0].t)
    given = next((tensor for tensor in body.initializer if tensor.name == name), None)
    return name == body.input[1].name or _is_true(given)


def _is_true(tensor: TensorProto | None) -> bool:
    return tensor is not None and bool(np.all(numpy_helper.to_array(tensor)))


def _scan_axes(node: NodeProto, scanned: int) -> list[int]:
    given = [list(item.ints) for item in node.attribute if item.name == "scan_input_axes"]
    return given[0] if given else [0] * scanned


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _body_inputs(node: NodeProto, graph: GraphProto, scope: Scope) -> list[ValueInfoProto]:
    """The inputs of a body with the shapes of what is passed to it, of a Scan without the axis of the iterations."""
    if node.op_type == "If":
        return []
    passed = [*node.input] if node.op_type == "Scan" else [*node.input, "", ""][: len(graph.input)]
    scanned = _integer(node, "num_scan_inputs", 0) if node.op_type == "Scan" else 0
    axes = [None] * (len(passed) - scanned) + (_scan_axes(node, scanned) if scanned else [])
    values = list[ValueInfoProto]()
    for inner, outer, axis in zip(graph.input, passed, axes, strict=False):
        value = ValueInfoProto()
        value.CopyFrom(inner)
        if node.op_type == "Loop" and len(values) < 2:  # the iteration number and the condition
            value.type.tensor_type.elem_type = (TensorProto.INT64, TensorProto.BOOL)[len(values)]
        elif outer in scope.types:
            value.type.CopyFrom(scope.types[outer].type)
            if axis is not None and value.type.tensor_type.shape.dim:
                del value.type.tensor_type.shape.dim[axis]
        values.append(value)
    return values


def _body(node: NodeProto, graph: GraphProto, scope: Scope) -> GraphProto:
    """A copy of the graph inside a node with its shapes; sizes of a state that change between iterations are open."""
    inputs = _body_inputs(node, graph, scope)
    body = _inferred(graph, inputs, scope)
    while _open_changing_sizes(node, inputs, body):
        body = _inferred(graph, inputs, scope)
    return body


def _open_changing_sizes(node: NodeProto, inputs: list[ValueInfoProto], body: GraphProto) -> bool:
    """Whether a state had sizes that are not the same after an iteration; they are removed from `inputs`."""
    if node.op_type == "If":
        return False
    skipped = (2, 1) if node.op_type == "Loop" else (0, 0)
    states = len(inputs) - skipped[0] - _integer(node, "num_scan_inputs", 0)
    changed = False
    for before, after in zip(inputs[skipped[0] :][:states], body.output[skipped[1] :], strict=False):
        sizes, new = before.type.tensor_type.shape.dim, after.type.tensor_type.shape.dim
        if len(sizes) != len(new) and before.type.tensor_type.HasField("shape"):
            before.type.tensor_type.ClearField("shape")
            changed = True
            continue
        for size, other in zip(sizes, new, strict=False):
            if size.HasField("dim_value") and size.dim_value != (
                other.dim_value if other.HasField("dim_value") else -1
            ):
                size.Clear()
                changed = True
    return changed


def _inferred(graph: GraphProto, inputs: list[ValueInfoProto], scope: Scope) -> GraphProto:
    """A copy of the graph with these inputs and all shapes that follow; what it reads from outside becomes an input."""
    names = [name for name in dict.fromkeys(_outer_names(graph)) if name in scope.types or name in scope.constants]
    bare = GraphProto()
    bare.CopyFrom(graph)
    for value in bare.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    del bare.input[:], bare.value_info[:]
    bare.input.extend([*inputs, *(scope.types[name] for name in names if name not in scope.constants)])
    bare.initializer.extend(_named(scope.constants[name], name) for name in names if name in scope.constants)
    model = onnx.helper.make_model(bare, opset_imports=scope.opsets, ir_version=MIN_IR_VERSION)
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


def _named(tensor: TensorProto, name: str) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def with_constant_branches(model: ModelProto) -> ModelProto:
    """The model with every If whose condition is constant replaced by the branch that runs."""
    while (found := _constant_if(model)) is not None:
        index, branch = found
        node = model.graph.node[index]
        inlined = _inlined(branch, node, {name for one in model.graph.node for name in one.output})
        nodes = [*model.graph.node[:index], *inlined.node, *model.graph.node[index + 1 :]]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(inlined.initializer)
    return model


def _constant_if(model: ModelProto) -> tuple[int, GraphProto] | None:
    for index, node in enumerate(model.graph.node):
        if node.op_type == "If" and (condition := _condition(model, node.input[0])) is not None:
            name = "then_branch" if condition else "else_branch"
            return index, next(item.g for item in node.attribute if item.name == name)
    return None


def _condition(model: ModelProto, name: str) -> bool | None:
    """The value of a condition that depends on small initialisers only; None for any other."""
    constants, nodes = scope_of(model.graph, []).constants, list(model.graph.node)
    made_by = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    chosen, used, wanted = set[int](), dict[str, TensorProto](), [name]
    while wanted:
        if (one := wanted.pop()) in constants:
            used[one] = _named(constants[one], one)
        elif one not in made_by or len(chosen) > MAX_CONDITION_NODES:
            return None
        elif made_by[one] not in chosen:
            chosen.add(made_by[one])
            wanted += reads(nodes[made_by[one]])
    if name in used:
        return _is_true(used[name])
    return _evaluated(model, [nodes[index] for index in sorted(chosen)], list(used.values()), name)


def _evaluated(model: ModelProto, nodes: list[NodeProto], weights: list[TensorProto], name: str) -> bool | None:
    from onnx.reference import ReferenceEvaluator  # slow to import, and rarely needed

    graph = onnx.helper.make_graph(nodes, "condition", [], [ValueInfoProto(name=name)], weights)
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=MIN_IR_VERSION)
    try:
        (value,) = ReferenceEvaluator(part).run(None, {})
    except Exception:  # the evaluator can fail in many ways; the condition then counts as unknown
        return None
    return bool(np.all(value))


def inputs_of_conditions(graph: GraphProto) -> list[str]:
    """The inputs of one element on which the condition of an If or the iterations of a Loop depend."""
    decides = {"If": 1, "Loop": 2}
    wanted = {name for node in graph.node for name in node.input[: decides.get(node.op_type, 0)]}
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            wanted.update(reads(node))
    shapes = known_shapes(graph)
    return [value.name for value in graph.input if value.name in wanted and np.prod(shapes.get(value.name, (2,))) == 1]


def _inlined(branch: GraphProto, node: NodeProto, taken: set[str]) -> GraphProto:
    """The branch with its outputs named as those of the node, and with names that the graph around it does not use."""
    copy = GraphProto()
    copy.CopyFrom(branch)
    made = {tensor.name for tensor in copy.initializer} | {name for one in copy.node for name in one.output if name}
    names = {name: f"{node.name}/{name}" for name in made if name in taken}
    passed = list[tuple[str, str]]()
    for value, outer in zip(branch.output, node.output, strict=True):
        if value.name in made and outer:
            made.remove(value.name)
            names[value.name] = outer
        elif outer:
            passed.append((value.name, outer))
    _rename(copy, names)
    copy.node.extend(
        onnx.helper.make_node("Identity", [names.get(inner, inner)], [outer], name=outer) for inner, outer in passed
    )
    return copy


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in a graph and in the graphs inside it."""
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for value in graph.output:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in subgraphs(node):
            _rename(inner, names)
