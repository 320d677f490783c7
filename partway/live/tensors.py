"""The bytes of a task that was cut, and of its result: messages of the Open Inference Protocol."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from partway.live.checks import MAX_BLOCK, check, number, parsed, printable, whole
from partway.live.engine import Specs, Tensors
from partway.live.messages import InferReply, InferRequest
from partway.live.proto import open_inference_pb2 as inference

MAX_TASK = 2**62
VERSION = "1"
"""Of every model."""
DATATYPES = {
    **{"FP64": "float64", "FP32": "float32", "FP16": "float16", "BOOL": "bool"},
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
"""Of the Open Inference Protocol -> of NumPy."""
OF_NUMPY = {numpy: datatype for datatype, numpy in DATATYPES.items()}
MAX_RANK = 16
MAX_TENSORS = 1000


def write_infer(request: InferRequest) -> bytes:
    """The bytes of a task that was cut."""
    message = inference.ModelInferRequest(model_name=request.model, id=request.label or str(request.task))
    _put(message.parameters, "partway_session", string_param=request.session)
    _put(message.parameters, "partway_task", int64_param=request.task)
    _put(message.parameters, "partway_block", int64_param=request.block)
    _put(message.parameters, "partway_offload", double_param=request.offload)
    _put_tensors(message.inputs, message.raw_input_contents, request.tensors)
    return message.SerializeToString()


def read_infer(data: bytes) -> InferRequest:
    """A task that was cut. Raises MessageError."""
    given = parsed(inference.ModelInferRequest, data)
    parameters = given.parameters
    return InferRequest(
        session=printable("partway_session", _parameter(parameters, "partway_session", "string_param"), empty=False),
        task=whole("partway_task", _parameter(parameters, "partway_task", "int64_param"), MAX_TASK),
        block=whole("partway_block", _parameter(parameters, "partway_block", "int64_param"), MAX_BLOCK),
        offload=number("partway_offload", _parameter(parameters, "partway_offload", "double_param"), 0.0, 1.0),
        model=printable("model_name", named(given.model_name, given.model_version)),
        tensors=_tensors(given.inputs, given.raw_input_contents),
        wanted=tuple(printable("a tensor's name", one.name, empty=False) for one in given.outputs[:MAX_TENSORS]),
        label=printable("id", given.id),
    )


def named(model: str, version: str) -> str:
    """A model of that version by its name alone; another version than VERSION is a model that there is not."""
    return model if version in ("", VERSION) else f"{model} of version {version}"


def write_inferred(reply: InferReply, model: str = "", wanted: Collection[str] = (), label: str = "") -> bytes:
    """The bytes of a result: the outputs that are `wanted`, all if none is named. `label`: the id of the call."""
    message = inference.ModelInferResponse(model_name=model, model_version=VERSION, id=label or str(reply.task))
    _put(message.parameters, "partway_wait_s", double_param=reply.wait_s)
    _put(message.parameters, "partway_run_s", double_param=reply.run_s)
    outputs = {name: value for name, value in reply.outputs.items() if not wanted or name in wanted}
    _put_tensors(message.outputs, message.raw_output_contents, outputs)
    return message.SerializeToString()


def read_inferred(data: bytes) -> InferReply:
    """A result. Raises MessageError."""
    given = parsed(inference.ModelInferResponse, data)
    check(given.id.isascii() and given.id.isdecimal() and len(given.id) < 20, "id must be the number of the task")
    return InferReply(
        task=int(given.id),
        wait_s=number("partway_wait_s", _parameter(given.parameters, "partway_wait_s", "double_param"), 0.0),
        run_s=number("partway_run_s", _parameter(given.parameters, "partway_run_s", "double_param"), 0.0),
        outputs=_tensors(given.outputs, given.raw_output_contents),
    )


def write_call(model: str, tensors: Tensors, outputs: Iterable[str]) -> bytes:
    """The bytes of a request to any server of the protocol: some outputs of a model."""
    message = inference.ModelInferRequest(model_name=model)
    _put_tensors(message.inputs, message.raw_input_contents, tensors)
    for name in outputs:
        message.outputs.add(name=name)
    return message.SerializeToString()


def read_outputs(data: bytes, specs: Specs) -> dict[str, np.ndarray]:
    """The outputs in the answer to such a request. Raises MessageError unless they are as in `specs`."""
    given = parsed(inference.ModelInferResponse, data)
    found = _tensors(given.outputs, given.raw_output_contents)
    for name, (kind, shape) in specs.items():
        right = name in found and (found[name].dtype.newbyteorder("="), found[name].shape) == (kind, shape)
        check(right, f"the output {name} must be {kind}{list(shape)}")
    return {name: found[name] for name in specs}


def write_metadata(model: str, inputs: Specs, outputs: Specs) -> bytes:
    """The bytes of a description of a model."""
    message = inference.ModelMetadataResponse(name=model, versions=[VERSION], platform="onnxruntime_onnx")
    for listed, specs in ((message.inputs, inputs), (message.outputs, outputs)):
        for name, (kind, shape) in specs.items():
            listed.add(name=name, datatype=OF_NUMPY[kind.name], shape=shape)
    return message.SerializeToString()


def _put(parameters: Any, name: str, **value: Any) -> None:
    parameters[name].CopyFrom(inference.InferParameter(**value))


def _parameter(parameters: Any, name: str, kind: str) -> Any:
    right = name in parameters and parameters[name].WhichOneof("parameter_choice") == kind
    check(right, f"the parameter {name} must be a {kind}")
    return getattr(parameters[name], kind)


def _put_tensors(listed: Any, raw: Any, tensors: Mapping[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        listed.add(name=name, datatype=OF_NUMPY[tensor.dtype.name], shape=tensor.shape)
        raw.append(np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes())


def _tensors(listed: Any, raw: Any) -> dict[str, np.ndarray]:
    """The tensors of a message, views of its bytes."""
    check(len(listed) == len(raw), "tensors must be sent raw, one piece of bytes each")
    check(len(listed) <= MAX_TENSORS, f"at most {MAX_TENSORS} tensors")
    return {
        printable("a tensor's name", one.name, empty=False): _tensor(one, part)
        for one, part in zip(listed, raw, strict=True)
    }


def _tensor(given: Any, raw: bytes) -> np.ndarray:
    check(given.datatype in DATATYPES, f"datatype must be one of {', '.join(DATATYPES)}")
    shape = tuple(given.shape)
    check(len(shape) <= MAX_RANK and all(0 <= size <= 2**40 for size in shape), "a tensor's shape is out of range")
    dtype = np.dtype(DATATYPES[given.datatype]).newbyteorder("<")
    check(math.prod(shape) * dtype.itemsize == len(raw), "a tensor's bytes do not fit its shape")
    return np.frombuffer(raw, dtype).reshape(shape)
