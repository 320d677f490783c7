"""Results on disk: written beside their place and moved there whole, never over something else, never by halves."""

import contextlib
import errno
import os
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Generator
from pathlib import Path

import xarray as xr

from partway.errors import InputError, shown

DATASET = "results.nc"
MARK = ".partway"
"""A file in every folder of results that names the others: what it does not name is somebody else's."""
MARK_TITLE = "Partway wrote these files, and replaces them when asked to:"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def new_folder(out: Path, overwrite: bool) -> Generator[Path]:
    """A folder to write into that becomes `out` when the block ends well, and vanishes when it does not.

    Raises InputError at once if `out` cannot be written, exists and `overwrite` is not asked for, or holds anything
    that Partway did not write.
    """
    given, partial, made = f"--out {shown(str(out), 100)}", None, list[Path]()
    try:
        with _refusals(given):
            place = Path(os.path.realpath(out))
            _check_folder(place, overwrite, given)
            _make_folders(place.parent, made)
            partial = _beside(place, "partial")
            partial.mkdir()
        with _room(given):
            yield partial
        with _undisturbed(), _refusals(given):
            names = sorted(_names(partial))
            (partial / MARK).write_text("\n".join([MARK_TITLE, *names, ""]), "utf-8")
            _check_folder(place, overwrite, given)
            _replace_folder(partial, place)
    except BaseException:
        with _undisturbed():
            _remove(partial, made)
        raise


@contextlib.contextmanager
def new_file(path: Path, overwrite: bool, flag: str) -> Generator[Path]:
    """A file to write that becomes `path` when the block ends well, and vanishes when it does not."""
    given, partial = f"{flag} {shown(str(path), 100)}", None
    try:
        with _refusals(given):
            place = Path(os.path.realpath(path))
            _check_file(place, overwrite, given)
            partial = _beside(place, "partial")
            partial.touch(exist_ok=False)
        with _room(given):
            yield partial
        with _undisturbed(), _refusals(given):
            _check_file(place, overwrite, given)
            partial.replace(place)
    except BaseException:
        with _undisturbed():
            _remove(partial, [])
        raise


@contextlib.contextmanager
def _refusals(given: str) -> Generator[None]:
    """What the operating system refuses, as an InputError that names the flag."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{given}: cannot be written ({why}); choose another place") from None


@contextlib.contextmanager
def _room(given: str) -> Generator[None]:
    """A full disk as an InputError; every other error of the block is its own."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(f"{given}: cannot be written ({error.strerror}); choose another place") from None


@contextlib.contextmanager
def _undisturbed() -> Generator[None]:
    """Ctrl-C is not heard inside: moving and clearing away take milliseconds and must not stop half-way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _check_folder(place: Path, overwrite: bool, given: str) -> None:
    """Raise InputError unless a folder may be made or replaced there."""
    mode = _mode(place)
    if mode is None:
        return
    if not stat.S_ISDIR(mode):
        raise InputError(f"{given}: is not a folder; choose another name")
    if place in (Path.cwd(), *Path.cwd().parents) or place.is_mount():
        raise InputError(f"{given}: cannot be replaced, being in use; name a new folder in it")
    names = _names(place)
    if names and not overwrite:
        raise InputError(f"{given}: exists already; add --overwrite or choose another folder")
    foreign = sorted(names - _ours(place))
    if foreign:
        raise InputError(f"{given}: holds {shown(foreign[0])}, which Partway did not write; choose another folder")


def _check_file(place: Path, overwrite: bool, given: str) -> None:
    """Raise InputError unless a file may be made or replaced there."""
    mode = _mode(place)
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        raise InputError(f"{given}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{given}: is not a regular file; choose another name, or '-' for standard output")
    if not overwrite:
        raise InputError(f"{given}: exists already; add --overwrite or choose another name")


def _mode(place: Path) -> int | None:
    """What kind of thing is there; None if nothing is."""
    try:
        return place.lstat().st_mode
    except FileNotFoundError:
        return None


def _names(folder: Path) -> set[str]:
    """All that a folder holds, also inside its folders."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _ours(folder: Path) -> set[str]:
    """What Partway wrote there."""
    try:
        title, *names = (folder / MARK).read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return set()
    return {MARK, *names} if title == MARK_TITLE else set()


def _beside(place: Path, role: str) -> Path:
    """A hidden new name in the same folder, so that a rename moves it into place."""
    return place.with_name(f".{place.name[:50]}.{role}-{secrets.token_hex(4)}")


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Make `folder` and those above it; those that were not there go to `made`, innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        made.insert(0, each)


def _remove(partial: Path | None, made: list[Path]) -> None:
    """Clear away what a run that failed has made."""
    if partial is not None:
        with contextlib.suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _replace_folder(new: Path, place: Path) -> None:
    """A rename, or two: between them the old results stand complete under another name."""
    if not place.exists():
        new.rename(place)
        return
    old = _beside(place, "old")
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def save_dataset(dataset: xr.Dataset, folder: Path) -> None:
    """The dataset as compressed netCDF4 under `folder`."""
    encoding = {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars if dataset[name].ndim > 1}
    try:
        dataset.to_netcdf(folder / DATASET, engine="netcdf4", encoding=encoding)
    except (OSError, RuntimeError) as error:  # RuntimeError: "NetCDF: HDF error", such as a full disk's
        raise InputError(f"{DATASET}: cannot be written ({error}); choose another place for --out") from None


def load_dataset(folder: str | Path) -> xr.Dataset:
    """The dataset of an earlier run, from its `--out` folder or from the file itself."""
    path = Path(folder)
    try:
        path = path / DATASET if path.is_dir() else path
        return xr.load_dataset(path, engine="netcdf4")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(
            f"{shown(str(path), 100)}: cannot be read ({why}); give a folder that `partway compare --out` wrote"
        ) from None


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there with all of `content` or not at all, whenever the process or the machine stops."""
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A file to write that becomes `path`, on the disk, when the block ends well, and vanishes when it does not."""
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
