"""`partway scenarios`: what ships, and a commented file to start from."""

import argparse

from partway.cli.stdout import results
from partway.cli.terminal import listing, terminal

DESCRIPTION = "List the scenarios that ship with Partway, or print one as commented TOML to start your own from."
EXAMPLES = {
    "All scenarios": "partway scenarios",
    "A file to edit": "partway scenarios ocr > mine.toml",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The arguments of `partway scenarios`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the scenario to print (default: list all)")


def run(options: argparse.Namespace) -> None:
    """Print the list, or one scenario's file."""
    from partway.scenario.loading import preset_text, presets

    if options.name is None:
        terminal().print(listing(("scenario", "what it models"), list(presets().items()), wrapped="what it models"))
    else:
        print(preset_text(options.name), end="", file=results())
