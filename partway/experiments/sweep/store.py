"""A sweep's folder: what the sweep is, and one file for each case that is done, whole or not there.

    plan.json          what is swept; a folder belongs to one sweep
    cases/HASH.json    a case's numbers, under the hash of its content; its first line is the hash of the rest
    results.nc ...     written at the end

Every file is written beside its place, brought to the disk and renamed: whenever a sweep is killed, a file is there
whole or not at all. What is damaged all the same counts as missing.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any

from partway.errors import InputError, shorten, shown
from partway.files import write_whole

PLAN, CASES, LOCK = "plan.json", "cases", ".lock"
RESULTS = ("results.nc", "results.json", "table.txt", "scenario.toml")
DRAWN = tuple(f"{name}.{kind}" for name in ("cost", "gap") for kind in ("png", "svg", "csv"))
OURS = frozenset({PLAN, CASES, LOCK, *RESULTS, *DRAWN})
CHANGED = "a profile's or a policy's file has changed since"
HEAD = 64
"""Characters of a SHA-256 in hexadecimal digits."""


class Store:
    """The cases that are done, in a folder that `opened` gives. Raises InputError for what the system refuses."""

    def __init__(self, folder: Path, given: str):
        self.folder, self.given = folder, given

    def read(self, key: str) -> dict[str, Any] | None:
        """A case's outcome; None where it is not there or damaged."""
        try:
            text = self._path(key).read_text("utf-8")
            digest, body = text[:HEAD], text[HEAD + 1 :]
            if digest != _digest(body):
                return None
            found: dict[str, Any] = json.loads(body)
        except (OSError, ValueError):
            return None
        return found["outcome"] if found["key"] == key else None

    def write(self, key: str, outcome: Mapping[str, Any]) -> None:
        """Keep a case's outcome."""
        body = json.dumps({"key": key, "outcome": dict(outcome)}, sort_keys=True)
        with refusals(self.given):
            write_whole(self._path(key), f"{_digest(body)}\n{body}".encode())

    def _path(self, key: str) -> Path:
        return self.folder / CASES / f"{key}.json"


@contextlib.contextmanager
def opened(out: Path, description: Mapping[str, Any], overwrite: bool) -> Generator[Store]:
    """The folder `out`, made or gone on with, for one sweep at a time.

    Raises InputError where it cannot be written, holds another sweep or what Partway did not write, unless `overwrite`
    is asked for and nothing foreign is in it, or is in use.
    """
    given = f"--out {shown(str(out), 100)}"
    with contextlib.ExitStack() as held:
        with refusals(given):
            held.enter_context(_exclusively(_made(out, given), given))
            _cleared(out)
            if overwrite:
                _emptied(out)
            before = _plan_of(out)
            if before is None:
                write_whole(out / PLAN, json.dumps(description, indent=1, sort_keys=True).encode() + b"\n")
            else:
                _check_same(before, json.loads(json.dumps(description)), given)
            (out / CASES).mkdir(exist_ok=True)
        yield Store(out, given)


@contextlib.contextmanager
def refusals(given: str) -> Generator[None]:
    """What the operating system refuses, a full disk among it, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(
            f"{given}: cannot be written ({why}); what is done is kept, the same command goes on"
        ) from None


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _made(out: Path, given: str) -> Path:
    """The folder, with nothing foreign in it."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{given}: is not a folder; choose another name")
    out.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in out.iterdir()}
    foreign = sorted(name for name in names - OURS if not _partial(name))
    if foreign:
        raise InputError(f"{given}: holds {shown(foreign[0])}, which no sweep wrote; choose another folder")
    if names & {*RESULTS} and PLAN not in names:
        raise InputError(f"{given}: holds results that are not a sweep's; choose another folder")
    return out


def _partial(name: str) -> bool:
    return name.startswith(".") and ".partial-" in name


def _cleared(out: Path) -> None:
    """Away with what a killed sweep was just writing; nobody else is at work here."""
    for path in [*out.iterdir(), *(out / CASES).glob(".*")]:
        if _partial(path.name):
            path.unlink(missing_ok=True)


def _emptied(out: Path) -> None:
    """Away with the sweep that is here, its plan last: until then the folder says what it was."""
    shutil.rmtree(out / CASES, ignore_errors=True)
    for name in (*RESULTS, *DRAWN, PLAN):
        (out / name).unlink(missing_ok=True)


def _plan_of(out: Path) -> Any:
    """The plan of the sweep that is here; None without one."""
    try:
        return json.loads((out / PLAN).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _check_same(before: Any, now: Mapping[str, Any], given: str) -> None:
    """Raise InputError, with the first difference, unless both are the same sweep."""
    for name, value in now.items():
        had = before.get(name) if isinstance(before, dict) else None
        if had != value:
            what = CHANGED if name == "cases" else f"{name} {_difference(had, value)}"
            raise InputError(f"{given}: holds another sweep: {what}; add --overwrite or choose another folder")


def _difference(had: Any, value: Any) -> str:
    """What two parts of a plan differ in, short."""
    if isinstance(had, dict) and isinstance(value, dict):
        name = next((name for name in value if had.get(name) != value[name]), "")
        return f"of {name} is {shorten(str(had.get(name)), 40)}, not {shorten(str(value.get(name)), 40)}"
    if isinstance(had, str) and isinstance(value, str) and "\n" in value:
        lines = sorted(set(had.splitlines()) ^ set(value.splitlines()))
        return f"differs in {shorten(lines[0], 60)}" if lines else "differs"
    return f"is {shorten(str(had), 60)}, not {shorten(str(value), 60)}"


@contextlib.contextmanager
def _exclusively(out: Path, given: str) -> Generator[None]:
    """No other sweep works in the folder meanwhile, where the system can tell; a killed one holds nothing."""
    with (out / LOCK).open("w") as file:
        if not _locked(file):
            raise InputError(f"{given}: another sweep is at work there; wait for it or choose another folder")
        yield


def _locked(file: IO[str]) -> bool:
    try:
        import fcntl  # not on Windows
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        return True
    return True
