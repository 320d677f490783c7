"""What tests of live processes share: certificates, a fleet that is stopped at the end, a cable that can be cut."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from partway.live.documents import tasks_of
from partway.live.processes import Fleet
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, WAITING, TaskLog

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
