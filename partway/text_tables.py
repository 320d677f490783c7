"""Tables for a terminal, a file or a pipe of any width, in which no number is ever cut.

A table that is too wide wraps its sentences, shortens its names, and is then divided into parts, one below the other,
each with the first columns again. Where not even one column fits beside these, every row becomes a list. It says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

Justify = Literal["left", "right"]
LEAST_NAME = 12
"""Characters that remain of a name, or more where fewer would make two names the same."""
LEAST_SENTENCE = 24
"""Width of a column of sentences below which the table is rather divided."""
GAPS = (2, 1)
"""Spaces between columns; the fewer where the table would not fit otherwise."""


@dataclass(frozen=True)
class Column:
    """A column: its title, which may have several lines.

    name  its cells are names, which may be shortened        wrap  its cells are sentences, which may take several lines
    """

    title: str
    justify: Justify
    name: bool
    wrap: bool


class Grid:
    """A table without lines.

    title    above it, "" for none
    keys     the number of first columns that say what a row is about
    header   whether the titles of the columns are shown
    """

    def __init__(self, title: str = "", *, keys: int = 1, header: bool = True):
        self._title, self._keys, self._header = title, keys, header
        self._columns: list[Column] = []
        self._rows: list[tuple[list[Text], str]] = []

    def add_column(self, title: str, justify: Justify = "left", *, name: bool = False, wrap: bool = False) -> None:
        """Add a column of numbers or words, of names (`name`), or of sentences (`wrap`)."""
        self._columns.append(Column(title, justify, name, wrap))

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """Add a row with a cell for every column; a cell may have several lines."""
        if len(cells) != len(self._columns):
            raise ValueError(f"a row has {len(cells)} cells for {len(self._columns)} columns")
        self._rows.append(([Text(cell) if isinstance(cell, str) else cell for cell in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines of the table, none longer than the console."""
        if self._title:
            yield Text(self._title, style="table.title")
        yield from self._lines(console, options.max_width)

    def _lines(self, console: Console, width: int) -> Iterator[Text]:
        one_part = self._fitted(width)
        if one_part is not None:
            gap, widths = one_part
            yield from self._part(console, range(len(self._columns)), widths, gap)
            yield from self._about_names(range(len(widths)), widths)
            return
        parts = self._divided(width) if self._header else None
        if parts is None:
            yield from self._records(console, width)
            return
        for number, (columns, widths) in enumerate(parts):
            if number:
                yield Text("")
            yield from self._part(console, columns, widths, GAPS[-1])
        needed = sum(map(self._natural, range(len(self._columns)))) + GAPS[-1] * (len(self._columns) - 1)
        said = f"The table is {needed} columns wide and continues in {len(parts)} parts, one below the other."
        yield Text(said, style="dim")
        yield from self._about_names(*parts[0])

    def _about_names(self, columns: Sequence[int], widths: Sequence[int]) -> Iterator[Text]:
        """Says that names are shortened, if some are."""
        shown = zip(columns, widths, strict=True)
        if any(self._columns[i].name and width < self._natural(i) for i, width in shown):
            yield Text("…: a long name is shortened.", style="dim")

    def _natural(self, column: int) -> int:
        """The width in which every line of a column stands as it is."""
        texts = [self._columns[column].title] * self._header + [cells[column].plain for cells, _ in self._rows]
        return max((cell_len(line) for text in texts for line in text.splitlines()), default=0)

    def _least(self, column: int) -> int:
        """The width down to which a column may be squeezed."""
        natural, about = self._natural(column), self._columns[column]
        title = max(map(cell_len, about.title.split("\n"))) if self._header else 0
        if about.wrap:
            words = [word for cells, _ in self._rows for word in cells[column].plain.split()]
            return min(natural, max([LEAST_SENTENCE, title, *map(cell_len, words)]))
        if about.name:
            return next((w for w in range(max(LEAST_NAME, title), natural) if self._are_distinct(column, w)), natural)
        return natural

    def _are_distinct(self, column: int, width: int) -> bool:
        """Whether no two names become the same when they are shortened."""
        names = {cells[column].plain for cells, _ in self._rows}
        return len({shorten_name(name, width) for name in names}) == len(names)

    def _fitted(self, width: int) -> tuple[int, list[int]] | None:
        """(spaces between columns, widths of columns) of the table in one part; None if it does not fit."""
        every = range(len(self._columns))
        sentences = [i for i in every if self._columns[i].wrap]
        names = [i for i in every if self._columns[i].name]
        wide, narrow = GAPS
        for gap, squeezed in ((wide, []), (narrow, []), (wide, sentences), (narrow, [*sentences, *names])):
            widths = list(map(self._natural, every))
            over = sum(widths) + gap * (len(widths) - 1) - width
            for i in squeezed:
                taken = max(0, min(over, widths[i] - self._least(i)))
                widths[i], over = widths[i] - taken, over - taken
            if over <= 0:
                return gap, widths
        return None

    def _divided(self, width: int) -> list[tuple[list[int], list[int]]] | None:
        """(columns, their widths) of every part, each with the keys; None if some column does not fit beside them."""
        keys, gap = list(range(self._keys)), GAPS[-1]
        own = list(map(self._natural, keys))
        if sum(own) + gap * len(own) > width // 2:
            own = list(map(self._least, keys))
        free = width - sum(own) - gap * len(own)
        parts, used = list[tuple[list[int], list[int]]](), free + 1
        for i in range(self._keys, len(self._columns)):
            needed = self._natural(i) if self._natural(i) <= free else self._least(i)
            if needed > free:
                return None
            if used + gap + needed > free:
                parts.append(([*keys], [*own]))
                used = -gap
            parts[-1][0].append(i)
            parts[-1][1].append(needed)
            used += gap + needed
        return parts

    def _part(self, console: Console, columns: Sequence[int], widths: Sequence[int], gap: int) -> Iterator[Text]:
        """The header and all rows of some columns."""
        if self._header:
            titles = [self._columns[i].title.split("\n") for i in columns]
            height = max(map(len, titles))
            cells = [[Text(line) for line in [""] * (height - len(title)) + title] for title in titles]
            yield from self._row(cells, columns, widths, gap, "bold")
        for row, style in self._rows:
            cells = [self._shown(console, row[i], i, width) for i, width in zip(columns, widths, strict=True)]
            yield from self._row(cells, columns, widths, gap, style)

    def _shown(self, console: Console, cell: Text, column: int, width: int) -> list[Text]:
        """The lines of a cell in a column of this width."""
        about = self._columns[column]
        if about.name and cell_len(cell.plain) > width:
            return [Text(shorten_name(cell.plain, width), style=cell.style)]
        lines = cell.split("\n", allow_blank=True)
        return [piece for line in lines for piece in _wrapped(console, line, width)] if about.wrap else list(lines)

    def _row(
        self, cells: Sequence[list[Text]], columns: Sequence[int], widths: Sequence[int], gap: int, style: str
    ) -> Iterator[Text]:
        """The lines of one row."""
        for height in range(max(map(len, cells))):
            text = Text(style=style, no_wrap=True, overflow="ignore")
            for place, (lines, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
                line = lines[height] if height < len(lines) else Text()
                free = " " * (width - cell_len(line.plain))
                text.append(" " * gap * bool(place))
                right = self._columns[column].justify == "right"
                text.append_text(Text.assemble(*((free, line) if right else (line, free))))
            text.rstrip()
            yield text

    def _records(self, console: Console, width: int) -> Iterator[Text]:
        """Every row as a list: its keys, then a line for each other column."""
        for row, style in self._rows:
            keys = Text(" ").join(filter(bool, row[: self._keys]))
            for piece in _wrapped(console, keys, width) if keys else ():
                yield Text.assemble(piece, style=style)
            for about, cell in zip(self._columns[self._keys :], row[self._keys :], strict=True):
                title = f"{' '.join(about.title.split())}:" if self._header and about.title else ""
                value = Text("; ").join(cell.split("\n"))
                together = Text(" ").join(filter(bool, (Text(title), value)))
                one_line = about.wrap or cell_len(together.plain) <= width - 2
                for line in (together,) if one_line else (Text(title), value):
                    for piece in _wrapped(console, line, width - 2) if cell else ():
                        yield Text.assemble("  ", piece, style=style)


def details_grid(title: str) -> Grid:
    """A table of rows (name, value, unit or explanation), without a header."""
    grid = Grid(title, header=False)
    for wrap in (False, False, True):
        grid.add_column("", wrap=wrap)
    return grid


class Sentence:
    """A text in as many lines as it needs, without blanks at their ends, which Rich leaves there."""

    def __init__(self, text: str, style: str = ""):
        self._text = Text(text, style=style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The lines."""
        yield from _wrapped(console, self._text, options.max_width)


def _wrapped(console: Console, text: Text, width: int) -> list[Text]:
    """A text in as many lines as it needs."""
    lines = list(text.wrap(console, max(1, width), overflow="fold"))
    for line in lines:
        line.rstrip()
    return lines


LONGEST_NAME = 30
"""Characters of a scheme's name in a table's header and in a figure."""


def shorten_name(name: str, width: int = LONGEST_NAME) -> str:
    """A name in so many columns at most, its middle left out: beginning and end are what tells names apart."""
    short, kept = name, width - 1
    while cell_len(short) > width and kept:  # characters can be two columns wide
        short, kept = f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}", kept - 1
    return short
