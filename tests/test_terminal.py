"""Progress: on a terminal a bar, elsewhere a line from time to time."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from partway.cli import terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, its last number."""
    times = [0.0]
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: times[-1]))
    return times


def test_off_a_terminal_long_work_says_what_it_does(clock: list[float]):
    screen = io.StringIO()
    with terminal.working("computing", Console(file=screen)) as say:
        for now, words in (
            (1, "32 states"),
            (29, "64 states"),
            (31, "128 states"),
            (60, "256 states"),
            (62, "512 states"),
        ):
            clock.append(now)
            say(words)
    assert screen.getvalue().splitlines() == ["128 states", "512 states"]


def test_off_a_terminal_what_is_counted_says_how_far_it_is(clock: list[float]):
    screen = io.StringIO()
    with terminal.counting(4000, "blocks", Console(file=screen)) as advance:
        for now, words, done in ((31, "lower bound", 0), (40, "priced", 1500), (70, "local", 500)):
            clock.append(now)
            advance(words, done)
    assert screen.getvalue().splitlines() == ["lower bound: 0 of 4,000 blocks", "local: 2,000 of 4,000 blocks"]


def test_off_a_terminal_jobs_of_different_sizes_say_how_long_they_take(clock: list[float]):
    """40 of 100 were found; after 120 s 30 of the other 60 are done, so the last 30 take two minutes more."""
    screen = io.StringIO()
    with terminal.weighing(100.0, Console(file=screen)) as advance:
        for now, words, size, computed in (
            (1, "old", 40.0, False),
            (60, "small", 10.0, True),
            (120, "large", 20.0, True),
        ):
            clock.append(now)
            advance(words, size, computed)
    assert screen.getvalue().splitlines() == [
        "small: 50% done, 5 minutes left",
        "large: 70% done, 2 minutes left",
    ]


def test_on_a_terminal_it_is_a_bar(clock: list[float]):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with terminal.working("computing", console) as say:
        clock.append(100.0)
        say("512 states")
    assert "512 states" in screen.getvalue()
    assert "512 states\n" not in screen.getvalue()


@pytest.mark.parametrize(("columns", "width"), [("50", 50), ("0", 100), ("²", 100), ("", 100), ("-5", 100)])
def test_the_width_of_a_pipe_is_that_of_columns_if_it_is_a_width(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With 0 columns nothing would be printed."""
    monkeypatch.setenv("COLUMNS", columns)
    console = terminal.terminal()
    console.print("a table")
    assert console.width == width
    assert capsys.readouterr().out == "a table\n"
