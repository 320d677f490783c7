"""Sections of a page that a script writes, between two marks that stay."""

from pathlib import Path


def write_section(page: Path, name: str, text: str) -> None:
    """Put `text` between the marks of `name`; raises ValueError where the page has not each of them once."""
    begin, end = f"<!-- {name}: begin, written by `make {name}` -->", f"<!-- {name}: end -->"
    before, first, rest = page.read_text().partition(begin)
    section, last, after = rest.partition(end)
    if not first or not last or begin in section + after or end in after:
        raise ValueError(f"{page}: must hold each of these lines once: {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")
