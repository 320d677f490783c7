"""Weights in external files, when a part of a network is saved in another folder: embedded, linked or copied."""

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
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


def link_names(network: ModelProto, taken: Iterable[str]) -> dict[str, str]:
    """Location of every file of weights of a network -> a name for it in a folder where the names `taken` are used."""
    names, used = dict[str, str](), set(taken)
    for tensor in external_tensors(network):
        location = external_data_helper.ExternalDataInfo(tensor).location
        if location not in names:
            names[location] = _free(Path(location).name, used)
            used.add(names[location])
    return names


def _free(name: str, used: Collection[str]) -> str:
    return name if name not in used else _free(f"{name}_", used)


def link(model: ModelProto, folder: Path, target: Path, names: Mapping[str, str]) -> list[WeightFile]:
    """Make hard links in the folder `target` to the files of external weights in `folder`, and let the model use them.

    Nothing is read, unless the two folders are in different file systems: then the files are copied.

    names  of `link_names`, the same for all parts of a network that are saved in one folder
    """
    tensors = external_tensors(model)
    locations = dict.fromkeys(external_data_helper.ExternalDataInfo(tensor).location for tensor in tensors)
    made = [_linked(folder / location, target / names[location]) for location in locations]
    for tensor in tensors:
        _set(tensor, "location", names[external_data_helper.ExternalDataInfo(tensor).location])
    return made


def _linked(source: Path, target: Path) -> WeightFile:
    if target.exists():  # of the other half
        return WeightFile(target, os.path.samefile(source, target))
    with suppress(OSError):  # another file system, or one without links
        os.link(os.path.realpath(source), target)
        return WeightFile(target, True)
    with source.open("rb", buffering=0) as read, target.open("wb") as write:
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
            with (folder / info.location).open("rb", buffering=0) as read:
                _copy(read, info.offset or 0, length, write)
            for key, value in (("location", target.name), ("offset", start), ("length", length)):
                _set(tensor, key, value)
    return [WeightFile(target, False)]


def _copy(read: BinaryIO, offset: int, length: int, write: BinaryIO) -> None:
    """Copy bytes to where `write` is; holes of a sparse file are not read and remain holes. `read` has no buffer."""
    at, end, shift = offset, offset + length, write.tell() - offset
    while (at := _data_from(read, at, end)) < end:
        read.seek(at)
        piece = read.read(min(PIECE, end - at))
        if not piece:
            break
        write.seek(at + shift)
        write.write(piece)
        at += len(piece)
    write.truncate(end + shift)
    write.seek(end + shift)


def _data_from(file: BinaryIO, at: int, end: int) -> int:
    """The first position from `at` on that is not in a hole of the file; `end` if there is none."""
    if not hasattr(os, "SEEK_DATA"):  # Windows
        return at
    try:
        return os.lseek(file.fileno(), at, os.SEEK_DATA)
    except OSError as error:
        return end if error.errno == errno.ENXIO else at


def _set(tensor: TensorProto, key: str, value: object) -> None:
    """Set a field of what a tensor says about its file."""
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = str(value)
            return
    entry = tensor.external_data.add()
    entry.key, entry.value = key, str(value)
