"""Files on disk: complete or absent, and never in the place of something that Partway did not write.

A file or folder is written under a hidden name beside its destination and then renamed. Every folder of results holds a
mark, `.partway`, which names the files that Partway wrote there; it replaces and deletes nothing else.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partway.arguments import named
from partway.errors import InputError, shown

MARK = ".partway"
MARK_TITLE = "Partway wrote the files named here and replaces them on request"
RESULTS = "results"
"""Kind of a folder of which no command is known: any may replace it. Others are names of commands."""
PARTIAL = "partial"
OLD = "old"
PARTIAL_NAME = re.compile(rf"\..+\.{PARTIAL}-[0-9a-f]{{8}}")
"""Names of files and folders that are being written, or were when a process was killed."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What ends a command early and tidily: Ctrl-C, a request to terminate, a terminal that was closed."""
ELSEWHERE = "choose another location"
PIECE = 2**20
"""Bytes that are read at once."""
MAX_STREAM, MAX_MARK = 2**27, 2**24
"""Most bytes that are read from a pipe or a device, and of a mark, which names the files of a folder."""
written: list[Path] = []
"""Where this process has written for the user, so that a message about an interruption can say so."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Mark:
    """The mark of a folder.

    kind      of results: RESULTS, or the command that wrote them
    files     names, relative to the folder, of the files and folders that Partway wrote
    request   what was asked for, in JSON types; only a folder that can be resumed has it
    """

    kind: str
    files: frozenset[str]
    request: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def write(self, folder: Path) -> None:
        """Replace the mark of `folder`. Raises OSError."""
        content = {"title": MARK_TITLE, "kind": self.kind, "request": self.request, "files": sorted(self.files)}
        write_whole(folder / MARK, json.dumps(content, indent=1).encode() + b"\n")


def read_mark(folder: Path) -> Mark | None:
    """The mark of `folder`; None where there is none that this version of Partway wrote."""
    try:
        content = json.loads(read_limited(folder / MARK, MAX_MARK))
        mark = Mark(str(content["kind"]), frozenset(map(str, content["files"])), dict(content["request"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    inside = not any(Path(name).is_absolute() or ".." in Path(name).parts for name in mark.files)
    return mark if content.get("title") == MARK_TITLE and inside else None


@contextlib.contextmanager
def new_folder(out: Path, overwrite: bool, kind: str = RESULTS, argument: str = "out") -> Generator[Path]:
    """A folder to write into that becomes `out` if the block succeeds and is removed if it does not.

    kind      the command that writes it
    argument  whose value `out` is

    Raises InputError before anything is written if `out` cannot be written, exists and `overwrite` is False, was
    written by another command, or holds anything that Partway did not write.
    """
    given, made = f"{named(argument)} {shown(str(out), 100)}", list[Path]()
    with contextlib.ExitStack() as held:
        try:
            with refusals(given):
                target = Path(os.path.realpath(out))
                clear_stale(target)
                _check_folder(target, overwrite, given, kind)
                _make_folders(target.parent, made)
                partial = held.enter_context(_partial(target, Path.mkdir))
            with full_disk_refused(given):
                yield partial
            with uninterrupted(), refusals(given):
                Mark(kind, frozenset(_names(partial))).write(partial)
                _check_folder(target, overwrite, given, kind)
                _replace_folder(partial, target)
                written.append(out)
        except BaseException:
            with uninterrupted():
                held.close()
                _remove_folders(made)
            raise


@contextlib.contextmanager
def new_file(path: Path, overwrite: bool, flag: str) -> Generator[Path]:
    """A file to write that becomes `path` if the block succeeds and is removed if it does not.

    Raises InputError, which names `flag`, before anything is written if `path` cannot be written, is not a regular
    file, or exists and `overwrite` is False.
    """
    given = f"{flag} {shown(str(path), 100)}"
    with contextlib.ExitStack() as held:
        with refusals(given):
            target = Path(os.path.realpath(path))
            clear_stale(target)
            check_file(target, overwrite, given)
            partial = held.enter_context(_partial(target, Path.touch))
        with full_disk_refused(given):
            yield partial
        with uninterrupted(), refusals(given):
            check_file(target, overwrite, given)
            partial.replace(target)
            written.append(path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is complete or absent, whenever the process or the machine stops. Raises OSError."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A file to write that becomes `path`, flushed to the disk, if the block succeeds and is removed if it does not."""
    with _partial(path, Path.touch) as partial:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)


def clear_stale(target: Path) -> None:
    """Delete what killed processes were writing to `target`, and put back what one of them had moved aside.

    What a living process writes is locked. What cannot be deleted, such as another user's file, stays.
    """
    name = re.compile(rf"\.{re.escape(target.name[:50])}\.({PARTIAL}|{OLD})-[0-9a-f]{{8}}")
    with contextlib.suppress(OSError):
        for path in [path for path in target.parent.iterdir() if name.fullmatch(path.name)]:
            with contextlib.suppress(OSError), claimed(path) as ours:
                if ours and f".{OLD}-" in path.name and not target.exists():
                    path.rename(target)
            delete_unlocked(path)


def delete_unlocked(path: Path) -> None:
    """Delete a file or folder unless a living process has locked it."""
    with claimed(path) as ours:
        if ours:
            delete(path)


def lock(file: int) -> bool | None:
    """Lock an open file or folder for this process: True; False: another process has; None: locks do not exist here.

    The lock ends when the descriptor is closed, also by the death of the process.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


@contextlib.contextmanager
def claimed(path: Path) -> Generator[bool]:
    """Whether this process has the lock of a file or folder inside the block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # gone, or a folder on Windows
        yield False
        return
    try:
        yield lock(descriptor) is True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _partial(target: Path, make: Callable[[Path], None]) -> Generator[Path]:
    """A new hidden file or folder beside `target`, locked while it is written; deleted unless it was renamed."""
    partial = beside(target)
    try:
        make(partial)
        with claimed(partial):
            yield partial
    finally:
        if partial.exists():  # else no signal need be lost
            with uninterrupted():
                delete(partial)


def read_limited(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a file of at most `limit` bytes, or of a pipe or a device, which may have no end, of MAX_STREAM.

    Raises OSError where it cannot be read and ValueError where it has more.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            size = status.st_size
        else:
            size, limit = 0, min(limit, MAX_STREAM)
        content = bytearray()
        while max(size, len(content)) <= limit and (piece := file.read(PIECE)):  # memory for what is there, not more
            content += piece
    if max(size, len(content)) > limit:
        raise ValueError(f"it has more than {limit} bytes")
    return bytes(content)


def why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


@contextlib.contextmanager
def refusals(given: str, cure: str = ELSEWHERE) -> Generator[None]:
    """Errors of the operating system as an InputError that names the flag."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise InputError(f"{given}: cannot be written ({why(error)}); {cure}") from None


@contextlib.contextmanager
def full_disk_refused(given: str, cure: str = ELSEWHERE) -> Generator[None]:
    """A full disk as an InputError; other errors of the block are not ours to explain."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(f"{given}: cannot be written ({error.strerror}); {cure}") from None


@contextlib.contextmanager
def uninterrupted() -> Generator[None]:
    """SIGNALS are ignored inside: renaming and cleaning up take milliseconds and must not stop halfway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python, which cannot put it back
                signal.signal(number, handler)


@contextlib.contextmanager
def interrupted_afterwards() -> Generator[None]:
    """A signal of SIGNALS that comes inside takes effect at the end.

    For code that holds locks which an exception between two of its steps would leave locked, such as that of netCDF
    files in xarray: the next thread that asks for them would wait forever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = list[int]()
    handled = [number for number in SIGNALS if signal.getsignal(number) not in (None, signal.SIG_IGN, signal.SIG_DFL)]
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _check_folder(target: Path, overwrite: bool, given: str, kind: str) -> None:
    """Raise InputError unless a folder may be made or replaced there."""
    mode = _mode(target)
    if mode is None:
        return
    if not stat.S_ISDIR(mode):
        raise InputError(f"{given}: is not a folder; choose another name")
    if target in (Path.cwd(), *Path.cwd().parents) or target.is_mount():
        raise InputError(f"{given}: is in use and cannot be replaced; name a new folder inside it")
    names, mark = _names(target), read_mark(target)
    if mark and mark.kind not in (RESULTS, kind):
        raise InputError(f"{given}: holds {mark.kind} files, which only that command replaces; choose another folder")
    if names and not overwrite:
        raise InputError(f"{given}: exists already; add --overwrite or choose another folder")
    foreign = sorted(names - ({MARK, *mark.files} if mark else set[str]()))
    if foreign:
        raise InputError(f"{given}: holds {shown(foreign[0])}, which Partway did not write; choose another folder")


def check_file(target: Path, overwrite: bool, given: str) -> None:
    """Raise InputError unless a file may be made or replaced there."""
    mode = _mode(target)
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        raise InputError(f"{given}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{given}: is not a regular file; choose another name, or '-' for standard output")
    if not overwrite:
        raise InputError(f"{given}: exists already; add --overwrite or choose another name")


def _mode(target: Path) -> int | None:
    """Type and permissions of what is there, as `os.stat` gives them; None if nothing is."""
    try:
        return target.lstat().st_mode
    except FileNotFoundError:
        return None


def _names(folder: Path) -> set[str]:
    """Names of everything below `folder`, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def beside(target: Path, role: str = PARTIAL) -> Path:
    """A new hidden name in the same folder, so that a rename moves it to `target`."""
    return target.with_name(f".{target.name[:50]}.{role}-{secrets.token_hex(4)}")


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Make `folder` and its missing parents; those that were made are added to `made`, innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        made.insert(0, each)


def delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _remove_folders(made: list[Path]) -> None:
    """Remove the folders that a failed run has made above its own, unless somebody uses them."""
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _replace_folder(new: Path, target: Path) -> None:
    """One rename or two: between the two, the old results are complete under another name."""
    if not target.exists():
        new.rename(target)
        return
    old = beside(target, OLD)
    with claimed(target):
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
