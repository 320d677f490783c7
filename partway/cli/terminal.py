"""Where commands print: consoles that fit the terminal, plain tables, and progress."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from partway.cli.stdout import results
from partway.text_tables import Grid

LINE_S = 30.0
"""Seconds between two lines of progress where there is no terminal, such as in a batch job."""
FILE_WIDTH = 100
"""Columns of what goes to a file, or to a pipe if COLUMNS does not say how many it takes."""

Advance = Callable[[str, int], None]
"""Called with what is being done and how much of it was just finished."""


class Screen(Console):
    """Prints brackets in names as they are, and leaves a closed pipe to `main`."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Rich would exit with code 1 here."""
        raise BrokenPipeError


def terminal(errors: bool = False) -> Console:
    """Standard output, or standard error; as wide as the terminal, COLUMNS, or FILE_WIDTH."""
    file, columns = None if errors else results(), os.environ.get("COLUMNS", "")
    given = columns.isdecimal() and int(columns) > 0
    environment = os.environ if given else {**os.environ, "COLUMNS": ""}  # Rich would print nothing in 0 columns
    console = Screen(stderr=errors, file=file, _environ=environment)
    if console.is_terminal or given:
        return console
    return Screen(stderr=errors, file=file, width=FILE_WIDTH, _environ=environment)


def listing(titles: Sequence[str], rows: Sequence[Sequence[str]], wrapped: str | None = None) -> Grid:
    """A plain table; only the column `wrapped` may take several lines."""
    table = Grid()
    for title in titles:
        table.add_column(title, wrap=title == wrapped)
    for row in rows:
        table.add_row(*row)
    return table


def progress_bar(console: Console, *columns: ProgressColumn) -> Progress:
    """A bar that disappears when it is done; nothing where the console is not a terminal."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def counting(total: int, unit: str, console: Console) -> Generator[Advance]:
    """A bar up to `total` with the time left; a line every LINE_S seconds where the console is not a terminal."""
    words = TextColumn("{task.description:16}"), TextColumn(unit)
    columns = words[0], BarColumn(), MofNCompleteColumn(), words[1], TimeRemainingColumn()
    with progress_bar(console, *columns) as bar:
        task, say = bar.add_task("preparing", total=total), _lines(console)

        def advance(description: str, done: int) -> None:
            bar.update(task, description=description, advance=done)
            say(f"{description}: {bar.tasks[0].completed:,.0f} of {total:,} {unit}")

        yield advance


@contextlib.contextmanager
def weighing(total: float, console: Console) -> Generator[Callable[[str, float, bool], None]]:
    """A bar for jobs of different sizes, `total` together, with the time left; a line every LINE_S seconds elsewhere.

    What it gives is called after each job, with words for it, its size, and whether it was computed now rather than
    found from an earlier run: the time left follows from what was computed.
    """
    start, done, computed, say = time.monotonic(), 0.0, 0.0, _lines(console)
    with progress_bar(console, TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=total)

        def advance(words: str, size: float, now: bool) -> None:
            nonlocal done, computed
            done, computed = done + size, computed + (size if now else 0.0)
            words += f": {done / total:.0%} done"
            if computed:
                left = (time.monotonic() - start) * (total - done) / computed
                words += f", {left / 60:.0f} minutes left"
            bar.update(task, description=words, completed=done)
            say(words)

        yield advance


@contextlib.contextmanager
def working(words: str, console: Console) -> Generator[Callable[[str], None]]:
    """A spinner with the time so far, for work of unknown length. What it gives is called with other words for it.

    Where the console is not a terminal they are a line every LINE_S seconds.
    """
    with progress_bar(console, SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        task, say = bar.add_task(words, total=None), _lines(console)

        def describe(now: str) -> None:
            bar.update(task, description=now)
            say(now)

        yield describe


def _lines(console: Console) -> Callable[[str], None]:
    """Prints a line if the console is not a terminal, and none has been printed for LINE_S seconds."""
    printed = time.monotonic()

    def say(line: str) -> None:
        nonlocal printed
        now = time.monotonic()
        if not console.is_terminal and now - printed >= LINE_S:
            printed = now
            console.print(line, soft_wrap=True)

    return say


@contextlib.contextmanager
def notice(words: str, console: Console) -> Generator[None]:
    """Words on a terminal that disappear at the end. Unlike `working` it leaves nothing where the process is ended."""
    if console.is_terminal:
        console.print(words, end="\r")
    yield
    if console.is_terminal:
        console.print(" " * len(words), end="\r")
