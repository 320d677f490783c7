"""What tests of live processes share: certificates, a fleet that is stopped at the end, a cable that can be cut."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from partway.live.documents import tasks_of
from partway.live.processes import Fleet
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, WAITING, TaskLog

BLOCK_S = 0.25
"""A block of the scenario that `partway serve` has by default [s]."""


def certificates(folder: Path) -> None:
    """A CA, and what it has signed for a server at localhost and for a device: NAME.pem and NAME.key."""
    extensions = {
        "server": "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.77.0.1",
        "device": "subjectAltName=DNS:device",
    }

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for ca in ("ca", "stranger"):
        openssl("req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}")
    for name, extension in extensions.items():
        (folder / f"{name}.ext").write_text(extension)
        openssl("req", "-new", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)


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
