"""Tables fit any width, and no number in them is ever cut."""

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

import partway
from partway.cli.terminal import FILE_WIDTH, terminal
from partway.text_tables import LEAST_NAME, Grid, details_grid, shorten_name

NAMES = ("priced", "neurosurgeon-energy", "a_package.with.a_long.name:AndAPolicyWithALongName")
NUMBERS = ("124.1 ± 0.92", "-9.5", "0.088 ± 0.004", "12,345,678", "0.000987", "42%", "0/1")
TITLES = ("cost\nper block", "vs const.\n%", "gap to bound\n%", "work", "server\nJ/task", "sent", "up/\ndown")


def comparison(names: tuple[str, ...] = NAMES) -> Grid:
    grid = Grid("a comparison")
    grid.add_column("scheme", name=True)
    for title in TITLES:
        grid.add_column(title, "right")
    for name in names:
        grid.add_row(name, *NUMBERS)
    return grid


def printed(grid: Grid, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(grid)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 160, 100, 80, 60, 40, 25])
def test_every_number_is_there_once_for_every_row_at_every_width(width: int):
    lines = printed(comparison(), width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for number in NUMBERS:
        assert len(re.findall(rf"(?<!\S){re.escape(number)}(?!\S)", text)) == len(NAMES), number


def test_a_table_that_fits_is_one_row_a_scheme():
    lines = printed(comparison(), 160)
    assert [line.split()[0] for line in lines[-3:]] == list(NAMES)
    assert lines[1].split() == ["cost", "vs", "const.", "gap", "to", "bound", "server", "up/"]
    assert lines[2].split() == ["scheme", "per", "block", "%", "%", "work", "J/task", "sent", "down"]
    assert lines[3].endswith("  0/1")


def test_names_are_shortened_before_the_table_is_divided():
    """83 columns of numbers and spaces between them leave 17 for names of up to 50."""
    lines = printed(comparison(), 90)
    assert lines[-1] == "…: a long name is shortened."
    shortened = lines[-2].split()[0]
    assert shortened.startswith("a_pack")
    assert shortened.endswith("Name")
    assert "…" in shortened
    assert len(lines) == 1 + 2 + 3 + 1


def test_a_divided_table_says_so_and_repeats_the_names():
    lines = printed(comparison(), 60)
    assert sum(line.startswith("priced ") for line in lines) == 2
    words = " ".join(" ".join(lines).split())
    assert re.search(r"The table is \d+ columns wide and continues in 2 parts, one below the other\.", words)


def test_where_no_column_fits_beside_the_name_every_row_is_a_list():
    lines = printed(comparison(), 25)
    assert lines[1:3] == ["priced", "  cost per block:"]
    assert lines[3] == "  124.1 ± 0.92"
    assert "  vs const. %: -9.5" in lines


def test_sentences_wrap_and_numbers_do_not():
    grid = Grid()
    grid.add_column("scheme", name=True)
    grid.add_column("policy", wrap=True)
    grid.add_column("up", "right")
    grid.add_row("priced", "devices decide alone and receive one number per block from the server", "1")
    assert printed(grid, 60) == [
        "scheme  policy                                            up",
        "priced  devices decide alone and receive one number per    1",
        "        block from the server",
    ]


def test_details_keep_name_and_value_on_a_line():
    grid = details_grid("about")
    grid.add_row("cost per block", "124.1 ± 0.92", "with warm-up: 125.3 ± 0.88")
    grid.add_row("", "12345", "")
    wide, narrow = (printed(grid, width)[1:] for width in (60, 30))
    assert wide == ["cost per block  124.1 ± 0.92  with warm-up: 125.3 ± 0.88", "                12345"]
    assert narrow == ["cost per block", "  124.1 ± 0.92", "  with warm-up: 125.3 ± 0.88", "  12345"]


def test_brackets_and_styles_are_text():
    """Not markup of Rich: a tensor's name may be in brackets."""
    grid = Grid()
    grid.add_column("[red]")
    grid.add_row(Text("[bold]", style="green"))
    assert printed(grid, 20) == ["[red]", "[bold]"]


def test_names_stay_different_when_they_are_shortened():
    same_ends = tuple(f"module.{'x' * 20}{i}{'x' * 20}.Policy" for i in range(3))
    lines = printed(comparison(same_ends), 90)
    firsts = [line.split()[0] for line in lines if line.startswith("module")]
    assert len(set(firsts)) == 3


@given(st.text(st.characters(categories=["L", "N", "P", "Sm"]), max_size=80), st.integers(5, 80))
def test_a_shortened_name_keeps_beginning_and_end(name: str, width: int):
    short = shorten_name(name, width)
    assert cell_len(short) <= width
    if cell_len(name) <= width:
        assert short == name
    else:
        beginning, _, end = short.partition("…")
        assert name.startswith(beginning)
        assert name.endswith(end)
        assert beginning


def test_a_row_has_a_cell_for_every_column():
    with pytest.raises(ValueError, match="1 cells for 8 columns"):
        comparison().add_row("alone")


def test_an_empty_table_has_its_header():
    grid = Grid("nothing")
    grid.add_column("scheme", name=True)
    assert printed(grid, 40) == ["nothing", "scheme"]
    assert LEAST_NAME < 40


def test_every_table_of_every_command_is_one_of_these():
    """Rich's own would cut what is too wide."""
    sources = sorted(Path(partway.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    assert [path.name for path in sources if "rich.table" in path.read_text("utf-8")] == []


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("160", 160), (None, FILE_WIDTH), ("", FILE_WIDTH)])
def test_a_pipe_takes_as_many_columns_as_it_says(columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert terminal().width == width
