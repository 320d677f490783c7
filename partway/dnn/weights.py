"""Weights in external files, when a part of a network is saved in another folder: embedded, linked or copied."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import GraphProto, ModelProto, TensorProto, external_data_helper

from partway.dnn.onnx_file import subgraphs

EMBEDDED_BYTES = 2**30
"""A model of at most this size gets its weights inside it: a protocol buffer cannot be larger than 2 GiB."""
ALIGNMENT = 4096
"""Of each tensor in a file of weights [byte], so that it can be mapped into memory."""
PIECE = 2**20


@dataclass(frozen=True)
class WeightFile:
    """A file of weights beside a model.

    linked  whether it is a hard link to a file of the network, of which nothing was read
    """

    path: Path
    linked: bool


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """The tensors of a model whose values are in other files."""
    return [tensor for tensor in _tensors(model.graph) if external_data_helper.uses_external_data(tensor)]


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for item in node.attribute:
            if item.HasField("t"):
                yield item.t
            yield from item.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def external_bytes(model: ModelProto) -> int:
    """[byte] size of the values in other files."""
    return sum(map(_length, external_tensors(model)))


def _length(tensor: TensorProto) -> int:
    """[byte] as the file says, or as the shape says."""
    stated = external_data_helper.ExternalDataInfo(tensor).length
    if stated:
        return stated
    width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return prod(tensor.dims) * width


def embed(model: ModelProto, folder: Path) -> None:
    """Read the external weights of a model, whose files are in `folder`, into it."""
    for tensor in external_tensors(model):
        external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def link(model: ModelProto, folder: Path, target: Path) -> list[WeightFile]:
    """Make hard links in the folder `target` to the files of external weights in `folder`, and let the model use them.

    Nothing is read, unless the two folders are in different file systems: then the files are copied.
    """
    names, made = dict[str, str](), list[WeightFile]()
    for tensor in external_tensors(model):
        location = external_data_helper.ExternalDataInfo(tensor).location
        if location not in names:
            names[location] = _free(Path(location).name, set(names.values()))
            made.append(_linked(folder / location, target / names[location]))
        _set(tensor, "location", names[location])
    return made


def _free(name: str, taken: set[str]) -> str:
    return name if name not in taken else _free(f"{name}_", taken)


def _linked(source: Path, target: Path) -> WeightFile:
    if target.exists():  # of the other half
        return WeightFile(target, os.path.samefile(source, target))
    with suppress(OSError):  # another file system, or one without links
        os.link(os.path.realpath(source), target)
        return WeightFile(target, True)
    with source.open("rb") as read, target.open("wb") as write:
        _copy(read, 0, source.stat().st_size, write)
    return WeightFile(target, False)


def copy(model: ModelProto, folder: Path, target: Path) -> list[WeightFile]:
    """Copy the external weights that the model reads into the file `target`, piece by piece."""
    tensors = external_tensors(model)
    if not tensors:
        return []
    with target.open("wb") as write:
        for tensor in tensors:
            info = external_data_helper.ExternalDataInfo(tensor)
            start, length = -(-write.tell() // ALIGNMENT) * ALIGNMENT, _length(tensor)
            write.seek(start)
            with (folder / info.location).open("rb") as read:
                _copy(read, info.offset or 0, length, write)
            for key, value in (("location", target.name), ("offset", start), ("length", length)):
                _set(tensor, key, value)
    return [WeightFile(target, False)]


def _copy(read: BinaryIO, offset: int, length: int, write: BinaryIO) -> None:
    """Copy bytes to where `write` is. Pieces of zeros become holes: a sparse file stays sparse."""
    read.seek(offset)
    end = write.tell() + length
    while left := end - write.tell():
        piece = read.read(min(PIECE, left))
        if not piece:
            break
        write.seek(len(piece), os.SEEK_CUR) if piece == bytes(len(piece)) else write.write(piece)
    write.truncate(end)
    write.seek(end)


def _set(tensor: TensorProto, key: str, value: object) -> None:
    """Set a field of what a tensor says about its file."""
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = str(value)
            return
    entry = tensor.external_data.add()
    entry.key, entry.value = key, str(value)
