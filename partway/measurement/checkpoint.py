"""The file format of trained controllers: arrays by their paths in a tree, a header in JSON. Nothing is executed."""

import json
import tomllib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from partway.errors import InputError, shown

HEADER = "header"
SCHEMA_VERSION = 2
LAST_BLOCK = 2**32 - 1
"""Random numbers depend on the number of the block, which has 32 bits."""
DAMAGED = (ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, NotImplementedError, zlib.error)
"""What NumPy and zipfile raise for files that are damaged or something else."""


class Header(BaseModel):
    """What a checkpoint says of itself.

    blocks    run so far        scenario  the complete scenario as TOML
    switches  the hyperparameters that are whole numbers, words or yes and no; the others are among the arrays
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
    versions: dict[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A file of trained controllers: its header, its arrays by tree path, and the flag that named it."""

    header: Header
    arrays: dict[str, np.ndarray]
    given: str

    def scenario(self) -> dict[str, Any]:
        """The scenario it was trained in, as `partway.load` takes it."""
        return tomllib.loads(self.header.scenario)


def write(path: Path, header: Header, tree: Any) -> None:
    """Write a checkpoint of a tree of arrays."""
    arrays = {name: np.asarray(words_of(leaf)) for name, leaf in named(tree)}
    arrays[HEADER] = np.array(json.dumps(header.model_dump(mode="json")))
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: str | Path) -> Checkpoint:
    """The checkpoint in a file; raises InputError where it is none, or one of an older version."""
    given = f"--load {shown(str(path), 100)}"
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text = str(arrays.pop(HEADER)[()])
        _check_version(text, given)
        checkpoint = Checkpoint(Header.model_validate_json(text), arrays, given)
        checkpoint.scenario()
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{given}: cannot be read ({error.strerror}); name a file of `partway run --save`") from None
    except DAMAGED as error:
        why = "its header does not fit" if isinstance(error, ValidationError) else type(error).__name__
        raise InputError(f"{given}: is not a checkpoint ({why}); name a file of `partway run --save`") from None
    return checkpoint


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
