"""Docstrings as reStructuredText: prose, and lines such as `limit   how many wait` as a list of definitions.

They are written to be read in a terminal, so marks that reStructuredText would take for its own are escaped.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

ENTRY = re.compile(r"(\w[\w, ]*?) {2,}(\S.*)")
"""A line that begins with the name of a field, or several, and says what it means."""
SECOND = re.compile(r"(.*?\S) {4,}(\w[\w, ]*?) {2,}(\S.*)")
"""Two entries on one line."""


def escaped(text: str) -> str:
    """Prose as reStructuredText; what stands in backticks is code."""
    pieces = re.split(r"`([^`]+)`", text)
    marked = [re.sub(r"([\\*|_])", r"\\\1", piece) for piece in pieces[::2]]
    code = [f"``{piece}``" for piece in pieces[1::2]]
    return "".join(a + b for a, b in zip(marked, [*code, ""], strict=True))


def entries(lines: list[str]) -> list[tuple[str, str]]:
    """(name, meaning) of the lines of a table; indented lines continue the one before."""
    found: list[tuple[str, str]] = []
    for line in lines:
        entry = ENTRY.fullmatch(line)
        while entry:
            name, meaning = entry.groups()
            second = SECOND.fullmatch(meaning)
            found.append((name, second[1] if second else meaning))
            entry = ENTRY.fullmatch(f"{second[2]}  {second[3]}") if second else None
        if not ENTRY.fullmatch(line):
            name, meaning = found.pop()
            found.append((name, f"{meaning} {line.strip()}"))
    return found


def converted(docstring: str) -> Iterator[str]:
    """The lines of a docstring as reStructuredText."""
    for paragraph in filter(None, docstring.strip().split("\n\n")):
        lines = paragraph.splitlines()
        if lines[0].startswith(">>>"):
            yield from lines
        elif ENTRY.fullmatch(lines[0]):
            for name, meaning in entries(lines):
                yield from (", ".join(f"``{each.strip()}``" for each in name.split(",")), f"    {escaped(meaning)}")
        else:
            yield " ".join(escaped(line.strip()) for line in lines)
        yield ""


def other_fields(record: Any, docstring: str) -> list[str]:
    """The fields of a dataclass that its docstring does not name because they explain themselves."""
    if not (isinstance(record, type) and dataclasses.is_dataclass(record)):
        return []
    return [each.name for each in dataclasses.fields(record) if not re.search(rf"\b{each.name}\b", docstring)]


def rewrite(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The handler of autodoc's event."""
    docstring = "\n".join(lines)
    others = ", ".join(f"``{name}``" for name in other_fields(obj, docstring))
    lines[:] = [*converted(docstring), *([f"Other fields: {others}.", ""] if others else [])]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
