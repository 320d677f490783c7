"""Sections of a page that a script writes, between two marks that stay."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from partway.provenance import package_hash

COLUMNS = 122
"""Of a line of a page."""


def paragraph(text: str) -> str:
    """The words of `text` in lines of COLUMNS; links and code are not broken."""
    whole = re.sub(r"\[[^]]*\]\([^)]*\)|`[^`]*`", lambda part: part[0].replace(" ", "\0"), " ".join(text.split()))
    lines = textwrap.wrap(whole, COLUMNS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows))


def origin(day: str | None = None, code: str | None = None) -> str:
    """When a section was made, and with which code: today and by this code if nothing else is said."""
    made, by = day or date.today().isoformat(), code or package_hash()
    return f"*Made on {made} by the code `{by}` (`partway.provenance.package_hash`).*"


def write_section(page: Path, name: str, text: str) -> None:
    """Put `text` between the marks of `name`; raises ValueError where the page has not each of them once."""
    begin, end = f"<!-- {name}: begin, written by `make {name}` -->", f"<!-- {name}: end -->"
    before, first, rest = page.read_text().partition(begin)
    section, last, after = rest.partition(end)
    if not first or not last or begin in section + after or end in after:
        raise ValueError(f"{page}: must hold each of these lines once: {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")
