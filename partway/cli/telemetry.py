"""--metrics and --events of live commands: who listens to what happens."""

import argparse
import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from partway.cli.flags import address
from partway.cli.stdout import results
from partway.cli.terminal import terminal
from partway.errors import shown
from partway.formatting import host_port

if TYPE_CHECKING:
    from partway.live.events import EventFile, Listener


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--metrics and --events."""
    group = parser.add_argument_group("telemetry")
    group.add_argument(
        "--metrics",
        type=address,
        metavar="[HOST:]PORT",
        help="offer metrics to Prometheus at http://HOST:PORT/metrics (default host: 127.0.0.1; port 0: a free one)",
    )
    group.add_argument(
        "--events", type=Path, metavar="FILE", help="write what happens to this file as it happens, as lines of JSON"
    )


@contextlib.contextmanager
def listeners(options: argparse.Namespace, party: Literal["server", "device"]) -> Generator["Listener"]:
    """Whoever listens to a party. Raises InputError where the flags cannot be followed."""
    from partway.live.events import Listener, to_all

    found, file = list[Listener](), None
    if options.metrics is not None:
        from partway.live import extra

        extra.require_for("--metrics")
        from partway.live import exporter

        metrics = exporter.Exporter(party)
        port = exporter.start(metrics, options.metrics)
        print(f"metrics at http://{host_port(options.metrics[0], port)}/metrics", file=results(), flush=True)
        found.append(metrics)
    if options.events is not None:
        file = _event_file(options.events, options.overwrite)
        found.append(file)
    try:
        yield to_all(found)
    finally:
        if file is not None:
            file.close()
            _say_fault(str(options.events), file.fault)


def _say_fault(path: str, fault: str) -> None:
    """Say what could not be written, whatever else went wrong."""
    if fault:
        text = f"--events {shown(path)}: the last events could not be written ({fault})"
        terminal(errors=True).print(text, soft_wrap=True)


def _event_file(path: Path, overwrite: bool) -> "EventFile":
    from partway import files
    from partway.live.events import EventFile

    given = f"--events {shown(str(path), 100)}"
    with files.refusals(given):
        files.check_file(path, overwrite, given)
        return EventFile(path)
