"""What tests of live processes share: certificates, a fleet that is stopped at the end, commands of docs/live.md."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from partway.live.documents import tasks_of
from partway.live.processes import Fleet
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, WAITING, TaskLog
from partway.workers import ONE_THREAD

PAGE = Path(__file__).parents[1] / "docs" / "live.md"
BLOCK_S = 0.25
"""A block of the scenario that `partway serve` has by default [s]."""


def certificates(folder: Path) -> None:
    """Two CAs, ca.pem and stranger.pem, and those whom they have signed, NAME.pem and NAME.key.

    server   by ca, for this machine and the address of a test      device   by ca
    expired  by ca for both, valid until yesterday                  foreign  a device, by stranger
    early    by ca for a server, valid from tomorrow on
    """
    authorities = {name: trustme.CA() for name in ("ca", "stranger")}
    ca, stranger = authorities.values()
    names, today = ("localhost", "127.0.0.1", "10.77.0.1"), datetime.now(UTC)
    day = timedelta(days=1)
    issued = {
        "server": ca.issue_cert(*names),
        "device": ca.issue_cert("device"),
        "expired": ca.issue_cert(*names, "device", not_before=today - 2 * day, not_after=today - day),
        "early": ca.issue_cert(*names, not_before=today + day, not_after=today + 2 * day),
        "foreign": stranger.issue_cert("device"),
    }
    for name, authority in authorities.items():
        authority.cert_pem.write_to_path(folder / f"{name}.pem")
    for name, certificate in issued.items():
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")


def secured(folder: Path) -> tuple[list[str], list[str]]:
    """Flags with which a server and its devices speak TLS and know a token, of files that are made in a folder."""
    certificates(folder)
    token = folder / "token"
    token.write_text("0123456789abcdef")
    own = ["--token-file", str(token)]
    return (
        ["--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"), *own],
        ["--tls-ca", str(folder / "ca.pem"), *own],
    )


def ended(fleet: Fleet, *names: str, within_s: float) -> None:
    """Wait until these processes have ended, without an error."""
    fleet.wait(lambda: all(fleet.processes[name].poll() is not None for name in names), within_s, "the run")


def devices_of(fleet: Fleet, *names: str) -> list[dict[str, Any]]:
    """What the devices of these processes have left."""
    return [device for name in names for device in fleet.document(name)["devices"]]


def outcomes(devices: Sequence[dict[str, Any]]) -> Counter[str]:
    """How many tasks ended in which way. Raises AssertionError unless each of them ended once."""
    counted = Counter[str]()
    for device in devices:
        tasks: list[TaskLog] = tasks_of(device)
        assert sorted(task.number for task in tasks) == list(range(len(tasks)))
        counted.update(task.outcome for task in tasks)
    assert set(counted) <= {ANSWERED, LOCAL, FINISHED_HERE, WAITING}
    return counted


def shell_blocks(section: str) -> list[str]:
    """The blocks of shell commands in a section of docs/live.md, in their order."""
    text = PAGE.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block_with(section: str, words: str) -> str:
    """The one block of shell commands of a section that contains these words."""
    (found,) = (block for block in shell_blocks(section) if words in block)
    return found


class Shells:
    """Shells in which a reader of the page works: `partway` is a command there, and each has a folder of its own.

    All that they have started is killed when the block ends that made them.
    """

    def __init__(self, folder: Path):
        """folder: of the command."""
        command = folder / "partway"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m partway "$@"\n')
        command.chmod(0o755)
        path = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = os.environ | ONE_THREAD | {"PATH": path, "TMPDIR": str(folder), "COLUMNS": "200"}
        self._started = list[subprocess.Popen[bytes]]()

    def run(self, block: str, folder: Path, under: Sequence[str] = (), but: str = "", within_s: float = 240.0) -> str:
        """Run a block of commands in a folder to its end; returns what it printed.

        Raises AssertionError if it fails, unless its last line is `but`.
        """
        process = self.start(block, folder, "run", under)
        status = process.wait(within_s)
        printed = said(folder, "run")
        assert status == 0 or printed.splitlines()[-1:] == [but], printed
        return printed

    def start(self, block: str, folder: Path, name: str, under: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start a block of commands; what it prints goes to NAME.out in the folder."""
        with (folder / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                [*under, "sh", "-ec", block],
                cwd=folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def stop(self) -> None:
        """Kill all that run."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def shells(folder: Path) -> Iterator[Shells]:
    """Shells whose processes end with the block."""
    made = Shells(folder)
    try:
        yield made
    finally:
        made.stop()


def said(folder: Path, name: str) -> str:
    """What a block of commands has printed so far."""
    return (folder / f"{name}.out").read_text("utf-8", "replace")


def until(there: Callable[[], bool], running: Mapping[str, "subprocess.Popen[bytes]"], within_s: float) -> None:
    """Wait for something. Raises AssertionError where it takes too long, or one of these processes has failed."""
    end = time.monotonic() + within_s
    while not there():
        for name, process in running.items():
            assert process.poll() in (None, 0), f"{name} has failed"
        assert time.monotonic() < end, f"took longer than {within_s:g} s"
        time.sleep(0.1)


def counts(table: str) -> dict[str, int]:
    """The rows of a printed table that have one whole number: label -> number."""
    return {name.strip(): int(number) for name, number in re.findall(r"^ *(\S.*?) {2,}(\d+)$", table, re.MULTILINE)}
