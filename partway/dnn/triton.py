"""A model repository: one folder per model, with a folder per version and the model's configuration.

    MODEL/config.pbtxt        for Triton, alone or under KServe: the names, types and shapes of inputs and outputs
    MODEL/1/model.onnx
    config.json               for OpenVINO Model Server: the names and folders of all models

Sizes are fixed, so that servers do not put requests together: `max_batch_size` is 0.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto, TensorProto, ValueInfoProto

from partway.arguments import named
from partway.errors import InputError

VERSION = "1"
MODEL, MODEL_CONFIG, SERVER_CONFIG = "model.onnx", "config.pbtxt", "config.json"
TYPES: dict[int, str] = {
    **{TensorProto.BOOL: "BOOL", TensorProto.STRING: "STRING", TensorProto.BFLOAT16: "BF16"},
    **{TensorProto.FLOAT16: "FP16", TensorProto.FLOAT: "FP32", TensorProto.DOUBLE: "FP64"},
    **{TensorProto.INT8: "INT8", TensorProto.INT16: "INT16", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64"},
    **{TensorProto.UINT8: "UINT8", TensorProto.UINT16: "UINT16"},
    **{TensorProto.UINT32: "UINT32", TensorProto.UINT64: "UINT64"},
}
"""Data types of Triton's configuration, without the prefix TYPE_."""


def model_file(repository: Path, name: str) -> Path:
    """Where the file of a model is in a repository."""
    return repository / name / VERSION / MODEL


def write_model_config(model: ModelProto, file: Path) -> None:
    """Write the configuration of the model that is in `file`.

    Raises InputError if an input or output has a data type that Triton does not know.
    """
    folder = file.parents[1]
    text = f'name: {_quoted(folder.name)}\nbackend: "onnxruntime"\nmax_batch_size: 0\n'
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        if all(value.type.tensor_type.HasField("shape") for value in values):  # Triton completes what is left out
            text += _listed(kind, values)
    (folder / MODEL_CONFIG).write_text(text, "utf-8")


def _listed(kind: str, values: Sequence[ValueInfoProto]) -> str:
    entries = [_entry(value) for value in values]
    return f"{kind} [\n" + ",\n".join(entries) + "\n]\n"


def _entry(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if tensor.elem_type not in TYPES:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(
            f"'{value.name}' has the data type {kind}, which Triton does not know; use {named('layout')} files"
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    lines = [f"name: {_quoted(value.name)}", f"data_type: TYPE_{TYPES[tensor.elem_type]}", f"dims: {sizes or [1]}"]
    if not sizes:
        lines.append("reshape { shape: [ ] }")  # a single number: Triton's dims cannot be empty
    return "  {\n" + "".join(f"    {line}\n" for line in lines) + "  }"


def _quoted(text: str) -> str:
    """A string of protocol buffers' text format."""
    return json.dumps(text, ensure_ascii=False)


def write_server_config(repository: Path) -> None:
    """Write the list of all models in the repository for OpenVINO Model Server; folders are relative to the file."""
    names = sorted(path.parents[1].name for path in repository.glob(f"*/{VERSION}/{MODEL}"))
    listed = [{"config": {"name": name, "base_path": name}} for name in names]
    (repository / SERVER_CONFIG).write_text(json.dumps({"model_config_list": listed}, indent=1) + "\n", "utf-8")
