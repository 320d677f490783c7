"""`partway join`: one device of a live run."""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from partway.arguments import whole_number as whole
from partway.cli import flags, serve, telemetry
from partway.cli.flags import target, whole_number
from partway.cli.stdout import results

if TYPE_CHECKING:
    from partway.cli.output import Destination, Destinations
    from partway.live.agent import AgentLog
    from partway.live.events import Listener

DESCRIPTION = (
    "Join the server of a live run as a device: run the front half of the network on an emulated CPU, send the rest by "
    "an emulated radio, and learn on the way."
)
EXAMPLES = {
    "A server on this machine": "partway join 127.0.0.1:7070",
    "A server on another machine": "partway join edge.local:7070 --tls-ca ca.pem --token-file token",
}

MAX_COUNT = 1000
"""Devices in one process."""
MAX_DEVICE = 2**31 - 1


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway join`."""
    parser.add_argument("target", type=target, metavar="HOST:PORT", help="where the server listens")
    group = parser.add_argument_group("device")
    group.add_argument(
        "--model", type=Path, metavar="FILE", help="an ONNX file (default: a small network that is included)"
    )
    group.add_argument(
        "--device", type=whole_number, metavar="N", help="its number in the scenario (default: a free one)"
    )
    group.add_argument(
        "--count", type=whole_number, default=1, metavar="N", help="devices in this process (default: 1)"
    )
    group.add_argument("--scheme", metavar="MODULE:NAME", help="a scheme of your own that the server may name")
    serve.add_learned(parser)
    add_connection(parser)
    telemetry.add_flags(parser)
    flags.add_output(parser, out=None, overwrite="replace existing files")


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Whom a device trusts, and by what it proves who it is."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--tls-ca", type=Path, metavar="FILE", help="the CA that has signed the server's certificate, PEM"
    )
    group.add_argument("--tls-cert", type=Path, metavar="FILE", help="the device's own certificate chain, PEM")
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="the secret that the server asks for")


def run(options: argparse.Namespace) -> None:
    """Be a device until the run ends; print where its tasks spent their time."""
    from partway.live import extra

    extra.require()
    from partway.cli import output
    from partway.cli.main import cache_compiled_programs

    whole("--count", options.count, 1, MAX_COUNT)
    whole("--device", options.device or 0, 0, MAX_DEVICE)
    cache_compiled_programs(own_process=True)
    with (
        output.destinations(options) as places,
        output.checkpoint_file(options) as learned,
        telemetry.listeners(options, "device") as listen,
        tempfile.TemporaryDirectory(prefix="partway-live-") as folder,
    ):
        logs = _joined(options, Path(folder), listen)
        _write(options, places, learned, logs)


def _joined(options: argparse.Namespace, folder: Path, listen: "Listener") -> "list[AgentLog]":
    """Run the devices until their run ends; files are written to `folder`."""
    from partway.live import endpoints
    from partway.live.credentials import Files
    from partway.live.halves import Halves
    from partway.live.messages import RegisterRequest
    from partway.live.network import write_small_network
    from partway.measurement import checkpoint

    files = Files(options.tls_cert, options.tls_key, options.tls_ca, options.token_file)
    token, credentials = files.secret(), files.for_device()
    endpoints.check_secret(options.target, credentials is not None, token)
    model = write_small_network(folder) if options.model is None else options.model
    halves = Halves(model, "fp16", seed=options.device or 0)
    joined = list[int]()

    def say_joined(device: int) -> None:
        joined.append(device)
        if len(joined) == options.count:
            numbers = f"device{'s' * (options.count > 1)} {', '.join(map(str, sorted(joined)))}"
            print(f"joined {options.target} as {numbers}", file=results(), flush=True)

    running = endpoints.join(
        options.target,
        halves,
        RegisterRequest(options.device, model_sha256=halves.sha256),
        count=options.count,
        token=token,
        credentials=credentials,
        named=options.scheme,
        trained=checkpoint.read(options.load) if options.load else None,
        listen=listen,
        on_join=say_joined,
    )
    return asyncio.run(running)


def _write(
    options: argparse.Namespace, places: "Destinations", learned: "Destination | None", logs: "Sequence[AgentLog]"
) -> None:
    """Print where the tasks spent their time; write that, and what the devices have learned."""
    from partway.cli import output
    from partway.live import documents, memories
    from partway.live.report import joined_table

    document = documents.of_devices(logs)

    def save(path: Path) -> None:
        reply, policy = logs[0].reply, logs[0].reply.policy
        blocks, fleet = max(len(log.records) for log in logs), int(reply.constants.numbers["fleet_size"])
        origin = memories.origin_of(policy.scheme, policy.seed, max(blocks, 1), policy.precision, fleet)
        memories.save_devices(path, origin, {log.device: log.party.learned for log in logs})

    text = json.dumps(document) + "\n"
    saving = [partial(learned.fill, save)] if learned else []
    steps = [*saving, *places.steps(lambda: text, lambda _: None)]
    output.finish(options, lambda: text, lambda console: console.print(joined_table(document)), steps)
