"""The one kind of error a user can cause: what was given, what was expected, what to do."""

import difflib
import re
from collections.abc import Iterable

LONGEST = 300
"""Characters of a message, however long the value that it names."""


class InputError(ValueError):
    """Something a user gave cannot be used. The message is one line; the command line prints it and exits with 2."""

    def __init__(self, message: str):
        line = "".join(_visible(character) for character in " ".join(message.split()))
        super().__init__(shorten(line, LONGEST))


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, None where none is."""
    return next(iter(difflib.get_close_matches(shorten(word), sorted(known), n=1, cutoff=0.6)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or the list of what is known where none is close."""
    known = sorted(known)
    found = closest(word, known)
    return f"; did you mean '{found}'?" if found else f"; known: {', '.join(known)}"


def shorten(text: str, most: int = 60) -> str:
    """`text`, cut to `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def shown(value: object, most: int = 60) -> str:
    """A value about as it stands in a TOML file, short enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"{'-' if value < 0 else ''}1e{int(value.bit_length() * 0.30103)} or so"
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "an array"
    return shorten(repr(value) if isinstance(value, str) else str(value), most)


def compact(value: float) -> str:
    """A number as one would type it: 10000000, 1e18, 0.001."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.12g}")


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
