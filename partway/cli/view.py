"""`partway view`: a page about a finished comparison or a live run, in a browser on this machine."""

import argparse
import threading
from pathlib import Path

from partway.cli.flags import address
from partway.cli.stdout import results

DESCRIPTION = (
    "Show the results in a folder as a page for a browser on this machine: of a comparison (partway compare --out), or "
    "of a live run (partway live --events), while it runs or afterwards. Ctrl-C ends it."
)
EXAMPLES = {
    "A finished comparison": "partway view results/paper",
    "A live run, at a port of your choice": "partway view events --bind 8080",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway view`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="results of `compare`, or events of a live run")
    parser.add_argument(
        "--bind",
        type=address,
        default=("127.0.0.1", 0),
        metavar="[HOST:]PORT",
        help="address of the page (default: a free port of 127.0.0.1)",
    )


def run(options: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from partway.live import extra

    extra.require_for("the page")
    from partway.dashboard import app

    with app.serving(app.source_of(options.folder), options.bind) as url:
        print(f"page at {url}", file=results(), flush=True)
        threading.Event().wait()
