"""What commands print on: consoles that fit the terminal, and plain lists."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


class Screen(Console):
    """Prints names as they are, whatever brackets are in them, and leaves a pipe that closes to `main`."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1 here."""
        raise BrokenPipeError


def terminal(errors: bool = False) -> Console:
    """stdout or stderr; 100 columns wide when it is a file or a pipe."""
    console = Screen(stderr=errors)
    return console if console.is_terminal else Screen(stderr=errors, width=100)


def listing(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table that keeps all columns but the second on one line, and that one too where it holds defaults."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=title != titles[1] or (len(titles) == 2 and title == "default"))
    for row in rows:
        table.add_row(*row)
    return table
