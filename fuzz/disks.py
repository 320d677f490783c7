"""Every command on a disk of 2 MB that is nearly full: what was computed is printed, and nothing half is left."""

import contextlib
import os
import random
import subprocess
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.counts import Fail
from fuzz.process import HIDDEN, Place, finished, started
from partway.errors import InputError
from partway.measurement.checkpoint import read
from partway.netcdf import load_dataset

TINY = ("--set", "devices=2", "--blocks", "200", "--seeds", "2")
COMMANDS = (
    ("compare", *TINY, "--schemes", "local", "priced", "--out", "out", "--json", "file.json"),
    ("run", *TINY, "--schemes", "priced", "--out", "out", "--json", "file.json", "--save", "a.npz"),
    ("sweep", "--axis", "devices=2,3", *TINY[2:], "--schemes", "local", "--jobs", "1", "--out", "out"),
    ("bound", "--set", "devices=2", "--json", "file.json"),
    ("cut", "alexnet", "--blocks", "20", "--seeds", "1", "--set", "devices=2", "--out", "out", "--json", "file.json"),
    ("profile", "alexnet", "--out", "out"),
    ("theorem1", "--set", "devices=2", "--blocks", "20", "--seeds", "1", "--out", "out"),
    ("reproduce", "--quick", "--jobs", "1", "--out", "out"),
)
SIZE = 2 * 2**20
LONGEST_S = 600
FULL = "No space left on device"


def available() -> str:
    """Why no disk can be made here; "" where one can."""
    try:
        with disk():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"mounting a disk needs root ({error})"


@contextlib.contextmanager
def disk() -> Generator[Path]:
    """An empty disk of SIZE."""
    with TemporaryDirectory(prefix="fuzz-disk-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", name], check=True, capture_output=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-l", name], check=True, capture_output=True)


def fill(rng: random.Random) -> str:
    """A case: one of the commands with so much room; sometimes its temporary files and programs are there as well."""
    words = rng.choices(COMMANDS, [1] * (len(COMMANDS) - 1) + [0.3])[0]
    room = int(SIZE * rng.random() ** 3)
    with disk() as folder, TemporaryDirectory(prefix="fuzz-tmp-") as elsewhere:
        where = Place(folder / "work", Path(elsewhere))
        where.work.mkdir()
        environment = {"XDG_CACHE_HOME": str(folder / "cache")} if rng.random() < 0.2 else {}
        if environment:
            (folder / "cache").mkdir()
        with contextlib.suppress(OSError), open(folder / "filler", "wb") as filler:
            filler.write(bytes(SIZE - room))
        about = f"{words[0]} with {room} bytes{' and its cache there' if environment else ''}"
        with started(words, where, **environment) as process:
            try:
                code, out, err = finished(process, LONGEST_S)
            except Fail as fail:
                raise Fail(fail.kind, f"{about}: {fail.text}") from None
        hidden = [path.name for path in where.work.rglob("*") if HIDDEN.fullmatch(path.name)]
        if hidden or os.listdir(elsewhere):
            raise Fail("litter", f"{about}: {hidden or os.listdir(elsewhere)}")
        _check_complete(where.work, about)
        if code == 0:
            return f"{words[0]}, had room"
        if code != 2:
            raise Fail("wrong exit code", f"{about}: {code}, {err[-150:]!r}")
        if FULL not in err:
            raise Fail("unclear message", f"{about}: {err[-200:]!r}")
        refused = not out and not any(where.work.rglob("*")) and err.count("\n") == 1
        kept = any(where.work.rglob("*.json")) or any(where.work.rglob("*.npz"))
        if not out and not refused and words[0] not in ("sweep", "reproduce"):
            raise Fail("lost result", f"{about}: computed, and not printed: {err[-200:]!r}")
        return f"{words[0]}, {'refused at once' if refused else 'printed' if out else 'kept' if kept else 'stopped'}"


def _check_complete(work: Path, about: str) -> None:
    """What has its name is complete."""
    try:
        if (work / "out" / "results.nc").exists():
            load_dataset(work / "out")
        if (work / "a.npz").exists():
            found = read(work / "a.npz")
            for name in found.kinds:
                found.array(name)
    except InputError as error:
        raise Fail("lost result", f"{about}: {error}") from None
