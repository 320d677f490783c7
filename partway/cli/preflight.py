"""`partway preflight`: whether this machine can take part in a live run, without any hardware."""

import argparse
from functools import partial
from typing import Any

from partway.cli import join, serve
from partway.cli.flags import target
from partway.errors import InputError

DESCRIPTION = (
    "Check what a live run needs: packages, the network and its halves, a port, and how accurately this machine keeps "
    "time. Exits with 2 if something is missing."
)
EXAMPLES = {
    "This machine": "partway preflight",
    "Your own network, and the connection to a server": "partway preflight --model net.onnx "
    "--server edge.local:7070 --tls-ca ca.pem",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway preflight`."""
    serve.add_network(parser)
    parser.add_argument("--server", type=target, metavar="HOST:PORT", help="also connect to this server")
    join.add_cpu(parser)
    join.add_connection(parser)


def run(options: argparse.Namespace) -> None:
    """Check one thing after the other, and print each. Raises InputError for those that failed."""
    from partway.cli.terminal import listing, terminal
    from partway.live.credentials import Files
    from partway.live.preflight import checks

    files = Files(options.tls_cert, options.tls_key, options.tls_ca, options.token_file)
    rows, failed = list[tuple[str, ...]](), list[str]()
    join.check_cpu(options)
    network = partial(serve.halves_of, options)
    for name, check in checks(network, options.server, files, options.cpu, options.cpu_path):
        try:
            rows.append(("ok", name, check()))
        except InputError as error:
            failed.append(name)
            rows.append(("not ok", name, str(error)))
    console: Any = terminal()
    console.print(listing(("", "what", "result"), rows, "result"))
    if failed:
        raise InputError(f"not ready: {', '.join(failed)}")
