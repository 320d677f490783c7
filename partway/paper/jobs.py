"""Parts of a long computation: run by several processes, kept as they are done, found again after a stop.

A part's file has the hash of all it depends on in its name: the part, its scenario with every number, the source of the
modules that make its numbers and the versions of the libraries they use. So a file that is there is right, and one that
is not is made.
"""

import dataclasses
import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from partway import provenance
from partway.files import replacing
from partway.scenario.schema import Scenario
from partway.workers import processes

Arrays = dict[str, np.ndarray]
P = TypeVar("P", bound="Computation")
SECONDS = "seconds"
"""Name of the array that says how long a part took to compute."""


class Computation(Protocol):
    """A part: a frozen dataclass, which can be sent to another process."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def label(self) -> str:
        """Words for a file's name."""
        ...

    def scenario(self) -> Scenario:
        """Its scenario, with every number."""
        ...

    def device_blocks(self) -> int:
        """How large it is."""
        ...

    def play(self) -> Arrays:
        """Compute it."""
        ...


def code_hash(parts: Iterable[Computation]) -> str:
    """Of the source that the parts' numbers come from, and of the versions of the libraries."""
    own = provenance.code_hash(*sorted({type(part).__module__ for part in parts}))
    return hashlib.sha256(repr([own, provenance.versions()]).encode()).hexdigest()[:16]


def part_name(part: Computation) -> str:
    """A file's name: what one would look for, and the hash."""
    words = repr(dataclasses.astuple(part)) + part.scenario().to_toml() + code_hash([part])
    digest = hashlib.sha256(words.encode()).hexdigest()[:16]
    return f"{part.label()}-{digest}.npz"


def missing(parts: Sequence[P], folder: Path | None) -> list[P]:
    """Parts that `folder` does not keep."""
    return [part for part in parts if folder is None or not (folder / part_name(part)).exists()]


def run_parts(
    parts: Sequence[P], folder: Path | None, jobs: int, on_progress: Callable[[P], None] = lambda part: None
) -> dict[P, Arrays]:
    """The arrays of every part, from `folder` where they are there, else made by `jobs` processes and kept there.

    tick  called as each part is there
    """
    found = dict[P, Arrays]()

    def done(part: P, arrays: Arrays) -> None:
        found[part] = arrays
        on_progress(part)

    for part in parts:
        arrays = read(folder / part_name(part)) if folder else None
        if arrays is not None:
            done(part, arrays)
    left = sorted((part for part in parts if part not in found), key=lambda part: part.device_blocks(), reverse=True)
    for part, arrays in _played(left, min(jobs, len(left))):
        if folder:
            write(folder / part_name(part), arrays)
        done(part, arrays)
    return {part: found[part] for part in parts}


def _played(parts: Sequence[P], jobs: int) -> Generator[tuple[P, Arrays]]:
    if jobs <= 1:
        yield from ((part, _play(part)) for part in parts)
        return
    with processes(jobs) as workers:
        waiting = {workers.submit(_play, part): part for part in parts}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _play(part: Computation) -> Arrays:
    began = time.monotonic()
    arrays = part.play()
    return {**arrays, SECONDS: np.array(time.monotonic() - began)}


def read(path: Path) -> Arrays | None:
    """The arrays of a file; None where there is none that can be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def write(path: Path, arrays: Arrays) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
