"""Standard output for results alone: while a command runs, what a policy or a library prints goes to standard error."""

import contextlib
import sys
from collections.abc import Generator
from typing import TextIO

_reserved: TextIO | None = None


@contextlib.contextmanager
def reserved() -> Generator[None]:
    """Standard output is reserved for those who write to `results()`."""
    global _reserved
    before, _reserved = _reserved, sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved = before


def results() -> TextIO:
    """Standard output, whether it is reserved or not."""
    return _reserved or sys.stdout
