"""`partway schemes`: what can be compared."""

import argparse
import re
from collections.abc import Collection, Iterator
from dataclasses import fields

from partway.cli.terminal import listing, terminal
from partway.errors import shown
from partway.text_tables import Grid

ENTRY = re.compile(r"(\w[\w, ]*?) {2,}(\S.*)")
"""A line of a docstring that begins with the name of a field, or several, and says what it means."""
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

    console, scheme = terminal(), find_scheme(name)
    console.print(f"{name}: {scheme.about}")
    rows = [(f"schemes.{name}.{field}", shown(value)) for field, value in hyperparameters(name).items()]
    console.print(listing(("set with --set", "default"), rows))
    console.print("a name with device_ or server_ in front sets it for that party alone", style="dim")
    every = {field.name for party in (scheme.device, scheme.server) for field in fields(party)}
    filled_in = every - {*hyperparameters(name)}
    docstrings = explanations(name)
    for docstring in docstrings:
        for paragraph in paragraphs(docstring, filled_in):
            console.print()
            console.print(paragraph, style="dim")
    if any(re.search(r"\bT\d+\b", docstring) for docstring in docstrings):
        console.print()
        console.print("(1) to (54) are equations of the paper, T1 to T20 ambiguities of it: docs/paper.md", style="dim")


def paragraphs(docstring: str, left_out: Collection[str] = ()) -> Iterator[str | Grid]:
    """A docstring's paragraphs, which fit any width: prose on one line, and tables of names and what they mean.

    left_out  names without a line in these tables
    """
    for paragraph in docstring.split("\n\n"):
        lines = paragraph.splitlines()
        if ENTRY.fullmatch(lines[0]):
            if entries := _entries(lines, left_out):
                yield _table(entries)
        elif any(re.match(r"[\s*-]", line) for line in lines):  # a list or an example, in the lines of its author
            yield paragraph
        else:
            yield " ".join(lines)


def _entries(lines: list[str], left_out: Collection[str]) -> list[list[str]]:
    """[name, meaning] of lines such as `limit   how many wait`; indented lines continue the one before."""
    entries = list[list[str]]()
    for line in lines:
        entry = ENTRY.fullmatch(line)
        if entry:
            entries.append([*entry.groups()])
        else:
            entries[-1][1] += f" {line.strip()}"
    return [entry for entry in entries if entry[0] not in left_out]


def _table(entries: list[list[str]]) -> Grid:
    table = Grid(header=False)
    table.add_column("")
    table.add_column("", wrap=True)
    for name, meaning in entries:
        table.add_row(name, meaning)
    return table
