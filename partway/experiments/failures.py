"""Runs that fail: what ended one, in one line, and the error with which a command says so at its end."""

import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

from partway.errors import InputError, out_of_memory, shorten
from partway.program_cache import missing_backend

FAILED = "failed"
"""The status of a run that an error has ended."""
INVALID = "invalid"
"""The status of a run that cannot be made, or whose numbers became infinite or undefined."""
CALLBACK = re.compile(r'^ *File "([^"]*)", line (\d+), in .*\n', re.MULTILINE)
"""A frame in the message of JAX's error for a Python function that a compiled program called."""
NOT_THEIRS = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"))
"""Folders that hold no code of the user's; nor does any `site-packages`."""


def cause(error: BaseException) -> str:
    """What ended a run, in one line: `line 6 of mine.py: ValueError: no row`, if the user's own code is in it."""
    text = str(error)
    known = text if isinstance(error, InputError) else out_of_memory(error)
    if known is None and isinstance(error, RuntimeError | AssertionError):
        known = missing_backend()
    if known is not None:
        return str(InputError(known))
    words = f"{type(error).__name__}: {text}"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if called := list(CALLBACK.finditer(text)):
        frames, words = [(frame[1], int(frame[2])) for frame in called], text[called[-1].end() :]
    own = [frame for frame in frames if _is_theirs(frame[0])]
    where = f"line {own[-1][1]} of {Path(own[-1][0]).name}: " if own else ""
    return str(InputError(f"{where}{words}"))


def _is_theirs(file: str) -> bool:
    """Whether a file may be the user's."""
    return "site-packages" not in Path(file).parts and not file.startswith(("<", *NOT_THEIRS))


def check_complete(runs: Iterable[tuple[str, str]], things: str, again: str = "") -> None:
    """Raise InputError, with the first cause, if runs have failed or are invalid.

    runs    (status, reason) of every run
    things  what they are called         again  what to do about those that have failed
    """
    every = list(runs)
    said = list[str]()
    for status in (FAILED, INVALID):
        causes = [reason for one, reason in every if one == status]
        if causes:
            others = len({*causes}) - 1
            more = f", and {others} more cause{'s' * (others > 1)}" if others else ""
            hint = again if status == FAILED else ""
            said.append(f"{len(causes)} of {len(every)} {things} {status}: {shorten(causes[0], 160)}{more}{hint}")
    if said:
        raise InputError("; ".join(said))
