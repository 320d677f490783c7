"""The file format of trained controllers: arrays by their paths in a tree, a header in JSON. Nothing is executed."""

import contextlib
import json
import os
import stat
import tomllib
import warnings
import zipfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from partway.errors import InputError, shorten, shown
from partway.files import why

HEADER = "header"
SCHEMA_VERSION = 2
LAST_BLOCK = 2**32 - 1
"""Random numbers depend on the number of the block, which has 32 bits."""
MAX_HEADER_BYTES = 2**24
"""NumPy takes four bytes for a character, and a scenario's file has at most a million."""


class Header(BaseModel):
    """What a checkpoint says of itself.

    blocks    run so far        scenario  the complete scenario as TOML
    switches  the hyperparameters that are whole numbers, words or yes and no; the others are among the arrays
    holds     None: all parties of a simulation; else what a part of a live run has learned: devices by number, or,
              where it is empty, the server
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    schema_version: Literal[2] = SCHEMA_VERSION
    scheme: str
    server: str | None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...]
    blocks: Annotated[int, Field(ge=1, le=LAST_BLOCK)]
    precision: Literal["float32", "float64"]
    scenario_name: str
    scenario: str
    devices: Annotated[int, Field(ge=1)]
    switches: dict[str, bool | int | str]
    holds: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    versions: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A file of trained controllers: its header, shape and type of its arrays by tree path, and the flag that named it.

    An array is decompressed only when it is asked for: until its shape has been compared with what is needed, nothing
    bounds how large it may become.
    """

    header: Header
    kinds: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    given: str
    path: Path

    def scenario(self) -> dict[str, Any]:
        """The scenario it was trained in, as `partway.load` takes it."""
        return tomllib.loads(self.header.scenario)

    def array(self, name: str) -> np.ndarray:
        """One array; raises InputError where it cannot be read, or the file is no longer what it was."""
        with _readable(self.given), zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            if member.read(1) or (array.shape, array.dtype) != self.kinds[name]:
                raise ValueError("not the array that the file announced")
            return array


def write(path: Path, header: Header, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint of arrays by their paths."""
    text = np.array(json.dumps(header.model_dump(mode="json")))
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays, **{HEADER: text})


def read(path: str | Path) -> Checkpoint:
    """The checkpoint in a file; raises InputError where it is none, a damaged one, or one of an older version."""
    given = f"--load {shown(str(path), 100)}"
    with _readable(given):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is not a regular file")
        with zipfile.ZipFile(path) as archive:
            kinds = _kinds(archive)
            shape, dtype = kinds.pop(HEADER)
            if shape or dtype.kind != "U" or dtype.itemsize > MAX_HEADER_BYTES:
                raise ValueError("its header is not text")
            with archive.open(f"{HEADER}.npy") as member:
                text = str(np.lib.format.read_array(member, allow_pickle=False))
        _check_version(text, given)
        checkpoint = Checkpoint(Header.model_validate_json(text), kinds, given, Path(path))
        checkpoint.scenario()
    return checkpoint


@contextlib.contextmanager
def _readable(given: str) -> Generator[None]:
    """Whatever fails inside as an InputError: zipfile and NumPy raise a dozen kinds of errors for a damaged file."""
    cure = "name a file of `partway run --save`"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # NumPy's of an array in an old or damaged format
            yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{given}: cannot be read ({error.strerror}); {cure}") from None
        reason = "its header does not fit" if isinstance(error, ValidationError) else shorten(why(error), 100)
        raise InputError(f"{given}: holds no trained controllers ({reason}); {cure}") from None


def _kinds(archive: zipfile.ZipFile) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array from the first bytes of each. Raises ValueError if it is not a file of arrays."""
    kinds = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]()
    if len(archive.infolist()) != _announced(archive):
        raise ValueError("its list of arrays is damaged")
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        with archive.open(info) as member:
            if np.lib.format.read_magic(member) != (1, 0) or name in kinds or name == info.filename:
                raise ValueError("it is not a file of arrays with distinct names")
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            kinds[name] = (shape, dtype)
    return kinds


def _announced(archive: zipfile.ZipFile) -> int:
    """How many members the last record of the file says there are; zipfile itself goes by the length of their list."""
    assert archive.fp
    archive.fp.seek(-22, os.SEEK_END)  # its length, as these files end without a comment
    return int.from_bytes(archive.fp.read(12)[10:], "little")


def _check_version(text: str, given: str) -> None:
    """Raise InputError for a file of another version of the format."""
    raw: Any = json.loads(text)
    version = raw.get("schema_version", raw.get("format")) if isinstance(raw, dict) else None  # pyright: ignore
    if isinstance(version, int) and version != SCHEMA_VERSION:
        raise InputError(
            f"{given}: has format {version}, this version of Partway reads format {SCHEMA_VERSION}; train again"
        )


def named(tree: Any) -> list[tuple[str, Any]]:
    """All arrays of a tree with their paths, such as `['carry'].state.q`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def is_key(leaf: Any) -> bool:
    """Whether a leaf holds random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def words_of(leaf: Any) -> Any:
    """The leaf, or the words of a random key that a controller remembers."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def restored(array: np.ndarray, like: Any) -> jax.Array:
    """An array of a file as a leaf of the kind of `like`."""
    words = jnp.asarray(array)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(like)) if is_key(like) else words
