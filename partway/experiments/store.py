"""A folder of results that a stopped run resumes: one file for each unit of work, complete or missing.

    .partway         the mark: what was asked for, and the names of the files that Partway wrote
    .lock            locked by the process that writes
    UNITS/KEY.json   or KEY.npz: the result of one unit; the key ends with the hash of everything that decides it
    results.nc ...   written at the end

A file is written beside its destination, flushed to the disk and renamed, so that it is complete or absent whenever a
process is killed. The file of a unit ends with a checksum: a damaged one counts as missing, and so does a renamed one.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from partway.errors import InputError, shorten, shown
from partway.files import (
    MARK,
    PARTIAL_NAME,
    Mark,
    beside,
    full_disk_refused,
    lock,
    read_limited,
    read_mark,
    refusals,
    write_whole,
    written,
)

T = TypeVar("T")
LOCK = ".lock"
RESUME = "what is finished is kept; run the same command again to resume"
KEY = re.compile(r"([\w.-]+-)?[0-9a-f]{32}")
"""A unit's key: words that help a reader to find a file, and the hash of its content."""
DIGITS = 64
"""Hexadecimal digits of a SHA-256, with which every file of a unit ends."""
MAX_UNIT = 2**31
"""Bytes of a larger file are not read: no unit is that large."""
HASH = re.compile(r"[0-9a-f]{32,64}")


@dataclass(frozen=True)
class Codec(Generic[T]):
    """How a unit's result becomes a file; `decode` may raise anything for bytes that are not its own."""

    suffix: str
    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of store: its name, the folder of its units, and their format."""

    name: str
    units: str
    codec: Codec[T]

    def file_name(self, key: str) -> str:
        """Name of a unit's file within the folder of units. Raises ValueError for anything but a KEY."""
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} does not end with a hash")
        return key + self.codec.suffix

    def owns(self, name: str) -> bool:
        """Whether a file of this name in the folder of units is a unit's."""
        return name.endswith(self.codec.suffix) and bool(KEY.fullmatch(name.removesuffix(self.codec.suffix)))


class Store(Generic[T]):
    """The results of units and the files at the end, in a folder that `opened` has checked and locked.

    folder   where it is        given   how messages name it, such as "--out 'results'"
    """

    def __init__(self, folder: Path, kind: Kind[T], request: Mapping[str, Any], given: str):
        self.folder, self.kind, self.request, self.given = folder, kind, request, given

    def read(self, key: str) -> T | None:
        """A unit's result; None where it is missing or damaged."""
        try:
            content = read_limited(self._path(key), MAX_UNIT)
        except (OSError, ValueError):
            return None
        body = content[:-DIGITS]
        if content[-DIGITS:] != _checksum(key, body):
            return None
        try:
            return self.kind.codec.decode(body)
        except Exception:  # zipfile, NumPy and JSON raise a dozen kinds of errors for a file that they did not write
            return None

    def write(self, key: str, value: T) -> None:
        """Keep a unit's result. Raises InputError where the file cannot be written."""
        body = self.kind.codec.encode(value)
        with refusals(self.given, RESUME):
            write_whole(self._path(key), body + _checksum(key, body))

    @contextlib.contextmanager
    def results(self) -> Generator[Path]:
        """A folder to write into, whose files move into the store if the block succeeds, and replace those of before.

        Raises InputError where they cannot be written or a name is taken by a file that Partway did not write.
        """
        partial = beside(self.folder / "results")
        try:
            with refusals(self.given, RESUME):
                partial.mkdir()
            with full_disk_refused(self.given, RESUME):
                yield partial
            with refusals(self.given, RESUME):
                self._publish(partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, partial: Path) -> None:
        """Move all files to the store; the mark names them before the first is there."""
        names = sorted(path.name for path in partial.iterdir())
        mark = read_mark(self.folder)
        known = mark.files if mark else frozenset[str]()
        foreign = [name for name in names if name not in known and (self.folder / name).exists()]
        if foreign:
            raise InputError(_foreign(self.given, foreign[0]))
        Mark(self.kind.name, known.union(names), self.request).write(self.folder)
        for name in names:
            with (partial / name).open("rb+") as file:
                os.fsync(file.fileno())
            (partial / name).replace(self.folder / name)

    def _path(self, key: str) -> Path:
        return self.folder / self.kind.units / self.kind.file_name(key)


@contextlib.contextmanager
def opened(
    out: Path, kind: Kind[T], request: Mapping[str, Any], overwrite: bool, keep: Collection[str] = ()
) -> Generator[Store[T]]:
    """The store in the folder `out`: new, or that of an earlier run with the same request, which it resumes.

    request     all that makes a run what it is, in JSON types
    overwrite   delete what an earlier run left, except the units whose keys are in `keep`

    Raises InputError where the folder cannot be written, is in use, holds anything that Partway did not write, or holds
    the results of another request and `overwrite` is False.
    """
    given = f"--out {shown(str(out), 100)}"
    with contextlib.ExitStack() as held:
        with refusals(given):
            if out.exists() and not out.is_dir():
                raise InputError(f"{given}: is not a folder; choose another name")
            out.mkdir(parents=True, exist_ok=True)
            _checked_mark(out, kind, given)  # before the lock, which writes a file
            held.enter_context(_exclusively(out, given))
            mark = _checked_mark(out, kind, given)
            _clear_partial(out, kind)
            if mark and overwrite:
                _delete(out, kind, mark, keep)
            elif mark:
                _check_same(mark.request, json.loads(json.dumps(request)), kind, given)
            written.append(out)
            if not mark or overwrite:
                Mark(kind.name, frozenset(), request).write(out)
            (out / kind.units).mkdir(exist_ok=True)
        yield Store(out, kind, request, given)


def content_hash(content: Any) -> str:
    """128 bits of a SHA-256 of `content`, in JSON types or NumPy scalars; equal contents have equal hashes."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=np.generic.item)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _checksum(key: str, body: bytes) -> bytes:
    """SHA-256 of a unit's file, with its key: a file under another name is not its own."""
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest().encode()


def _foreign(given: str, name: str) -> str:
    return f"{given}: holds {shown(name)}, which Partway did not write; choose another folder"


def _checked_mark(out: Path, kind: Kind[Any], given: str) -> Mark | None:
    """The mark of the folder; None in an empty one. Raises InputError for a folder of another kind, or not ours."""
    mark = read_mark(out)
    if mark and mark.kind != kind.name:
        raise InputError(f"{given}: holds {mark.kind} files, not {kind.name} files; choose another folder")
    ours = {LOCK} | ({MARK, kind.units, *mark.files} if mark else set[str]())
    names = [path.name for path in out.iterdir() if path.name not in ours]
    if mark and (out / kind.units).is_dir():
        names += [path.name for path in (out / kind.units).iterdir() if not kind.owns(path.name)]
    foreign = sorted(name for name in names if not PARTIAL_NAME.fullmatch(name))
    if foreign:
        raise InputError(_foreign(given, foreign[0]))
    return mark


def _clear_partial(out: Path, kind: Kind[Any]) -> None:
    """Delete what a killed process was writing; the lock says that nobody writes now."""
    for path in [*out.iterdir(), *(out / kind.units).glob(".*")]:
        if PARTIAL_NAME.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _delete(out: Path, kind: Kind[Any], mark: Mark, keep: Collection[str]) -> None:
    """Delete what an earlier run left; its mark stays until the next one replaces it."""
    kept = {kind.file_name(key) for key in keep}
    units = [path for path in (out / kind.units).glob("*") if path.name not in kept]
    for path in [*units, *(out / name for name in mark.files)]:
        path.unlink(missing_ok=True)


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], kind: Kind[Any], given: str) -> None:
    """Raise InputError, with the first difference, unless both requests are the same."""
    for name in [*now, *(name for name in before if name not in now)]:
        if before.get(name) != now.get(name):
            what = _difference(name, before.get(name), now.get(name))
            raise InputError(f"{given}: holds another {kind.name}: {what}; add --overwrite or choose another folder")


def _difference(name: str, before: Any, now: Any) -> str:
    """How two values in a request differ, in a few words."""
    if isinstance(before, dict) and isinstance(now, dict):
        field = next(field for field in [*now, *before] if before.get(field) != now.get(field))
        return _difference(f"{name}.{field}", before.get(field), now.get(field))
    if isinstance(before, str) and isinstance(now, str):
        if HASH.fullmatch(before) and HASH.fullmatch(now):
            return f"{name} has changed"
        lines = sorted(set(before.splitlines()) ^ set(now.splitlines()))
        if "\n" in now and lines:
            return f"{name} differs in {shorten(lines[0], 60)}"
    return f"{name} is {shorten(json.dumps(before), 50)}, not {shorten(json.dumps(now), 50)}"


@contextlib.contextmanager
def _exclusively(out: Path, given: str) -> Generator[None]:
    """No other process writes to the folder meanwhile, where the system has locks; a killed process holds none."""
    with (out / LOCK).open("a") as file:
        if lock(file.fileno()) is False:
            raise InputError(f"{given}: another process is writing there; wait for it or choose another folder")
        yield


def _json_to_bytes(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def _bytes_to_json(body: bytes) -> dict[str, Any]:
    return dict(json.loads(body))


def _arrays_to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A zip file that announces a comment of DIGITS bytes: with the checksum as its comment, `np.load` reads it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()[:-2] + DIGITS.to_bytes(2, "little")


def _bytes_to_arrays(body: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(body[:-2] + b"\0\0"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


JSON: Codec[dict[str, Any]] = Codec(".json", _json_to_bytes, _bytes_to_json)
"""Objects in JSON types, NaN among them."""
ARRAYS: Codec[dict[str, np.ndarray]] = Codec(".npz", _arrays_to_bytes, _bytes_to_arrays)
"""NumPy arrays by name, of any type but objects: nothing is unpickled."""
