"""A server and its devices as processes on this machine, started by the commands that start them on others."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from partway.errors import InputError, shorten
from partway.workers import ONE_THREAD

LISTENING = re.compile(r"listening at (\S+) for (\d+) devices?")
START_S = 120.0
"""How long a process may take to start on a loaded machine."""
POLL_S = 0.1


@dataclass
class Fleet:
    """Processes that run: the server, and devices by number. They are killed when the block that made them ends.

    own  the arguments that a process has for itself, by its name
    """

    folder: Path
    own: Callable[[str], Sequence[str]] = lambda name: ()
    target: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict[str, subprocess.Popen[bytes]])

    def start(self, name: str, *arguments: str, under: Sequence[str] = ()) -> None:
        """Start a command of Partway, by the command `under`; its output goes to files in the folder.

        So do its temporary files, of which a process that is killed leaves some.
        """
        left = self.folder / f"{name}.json"
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as errors:
            self.processes[name] = subprocess.Popen(
                [*under, sys.executable, "-m", "partway", *arguments, *self.own(name), "--json", str(left)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=os.environ | ONE_THREAD | {"TMPDIR": str(self.folder)},
            )

    def document(self, name: str) -> dict[str, Any]:
        """What a process has left. Raises InputError where it failed."""
        self.check(name)
        return json.loads((self.folder / f"{name}.json").read_text("utf-8"))

    def check(self, name: str) -> None:
        """Raise InputError if a process has failed, with its last line."""
        if self.processes[name].poll() not in (None, 0):
            said = (self.folder / f"{name}.err").read_text("utf-8", "replace").strip().splitlines() or ["no word"]
            raise InputError(f"the {name} process failed: {shorten(said[-1].removeprefix('partway: '), 200)}")

    def wait(self, until: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait for something; raises InputError where a process fails or it takes too long."""
        end = time.monotonic() + within_s
        while not until():
            for name in self.processes:
                self.check(name)
            if time.monotonic() > end:
                raise InputError(f"{what} took longer than {within_s:.0f} s")
            time.sleep(POLL_S)

    def listening(self) -> str:
        """Where the server listens, "" while it does not."""
        found = LISTENING.search((self.folder / "server.out").read_text("utf-8", "replace"))
        return found[1] if found else ""


@contextlib.contextmanager
def serving(
    folder: Path,
    *flags: str,
    bind: str = "127.0.0.1:0",
    under: Sequence[str] = (),
    own: Callable[[str], Sequence[str]] = lambda name: (),
) -> Generator[Fleet]:
    """A server that listens, started by the command `under`; it and all others are stopped when the block ends."""
    fleet = Fleet(folder, own)
    try:
        fleet.start("server", "serve", "--bind", bind, *flags, under=under)
        fleet.wait(lambda: fleet.listening() != "", START_S, "starting the server")
        fleet.target = fleet.listening()
        yield fleet
    finally:
        for process in fleet.processes.values():
            process.kill()
        for process in fleet.processes.values():
            process.wait()


@contextlib.contextmanager
def loopback(
    folder: Path, serve: Sequence[str], join: Sequence[str], devices: int, own: Callable[[str], Sequence[str]]
) -> Generator[Fleet]:
    """A server and so many devices that have been started; all are stopped when the block ends.

    serve, join  arguments of these commands beside where they listen and connect, and the device's number
    own          more of them by the name of a process
    """
    with serving(folder, *serve, own=own) as fleet:
        for number in range(devices):
            fleet.start(f"device-{number}", "join", fleet.target, "--device", str(number), *join)
        yield fleet


def finished(fleet: Fleet) -> Mapping[str, bool]:
    """Which processes have ended."""
    return {name: process.poll() is not None for name, process in fleet.processes.items()}
