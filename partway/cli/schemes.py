"""`partway schemes`: what can be compared."""

import argparse

from partway.cli.terminal import listing, terminal
from partway.errors import shown

DESCRIPTION = "List the schemes, or describe one of them and its hyperparameters, which --set changes."
EXAMPLES = {
    "All schemes": "partway schemes",
    "The hyperparameters of one": "partway schemes priced",
    "Your own policy": "partway schemes mymodule:MyPolicy",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The arguments of `partway schemes`."""
    parser.add_argument("scheme", nargs="?", metavar="NAME", help="the scheme to describe (default: list all)")


def run(options: argparse.Namespace) -> None:
    """Print the list, or one scheme."""
    if options.scheme is None:
        _print_all()
    else:
        _print_one(options.scheme)


def _print_all() -> None:
    from partway.schemes import SCHEMES  # its names and descriptions need no JAX

    console = terminal()
    rows = [
        (name + "*" * (not scheme.by_default), scheme.about, *map(str, scheme.signalling().values()))
        for name, scheme in SCHEMES.items()
    ]
    console.print(listing(("scheme", "policy", "up", "down"), rows, wrapped="policy"))
    console.print("up, down: numbers that each device sends and receives per block for control", style="dim")
    console.print("* runs only where --schemes names it", style="dim")


def _print_one(name: str) -> None:
    from partway.schemes import explanations, find_scheme, hyperparameters

    console = terminal()
    console.print(f"{name}: {find_scheme(name).about}")
    rows = [(f"schemes.{name}.{field}", shown(value)) for field, value in hyperparameters(name).items()]
    console.print(listing(("set with --set", "default"), rows))
    console.print("a name with device_ or server_ in front sets it for that party alone", style="dim")
    for paragraph in explanations(name):
        console.print(f"\n{paragraph}", style="dim")
