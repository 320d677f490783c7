"""The one kind of error a user can cause: what was given, what was expected, what to do."""

import difflib
import re
from collections.abc import Iterable

LONGEST = 300
"""Characters of a message, however long the value that it names."""
SHORTEST_PART = 4
"""Characters of a word from which a known word that contains it is more likely meant than one of similar spelling."""

RENAMED = {
    # schemes and presets
    "exact": "parametric",
    "printed": "parametric-printed",
    "paper-fitted-exact": "paper-fitted-parametric",
    "paper-fitted-printed": "paper-fitted-parametric-printed",
    # flags
    "--over": "--axis",
    "--learn": "--plan-from learned",
    "--measure": "--time-layers",
    "--check": "--verify",
    "--coding": "--tensor-dtype",
    # fields of a scenario
    "broadcast_lag": "broadcast_delay_blocks",
    "coding": "tensor_dtype",
    "slots": "slots_per_block",
    # hyperparameters
    "aim": "criterion",
    "answer": "price_gain",
    "least_step": "min_step",
    "points": "grid_points",
    "reach": "grid_max",
    "share": "offload",
    "tasks": "started",
    "usual_step": "mean_price_step",
    # Python
    "drain": "most_startable",
    "hears": "uses_broadcast",
    "takes_fleets": "batched",
}
"""Names that changed before the release (CHANGELOG.md): the new one need not be spelt like the old one."""


class InputError(ValueError):
    """Something a user gave cannot be used. The message is one line; the command line prints it and exits with 2."""

    def __init__(self, message: str):
        line = "".join(_visible(character) for character in " ".join(message.split()))
        super().__init__(shorten(line, LONGEST))


def out_of_memory(error: BaseException) -> str | None:
    """What to do about an error that is a lack of memory, Python's or XLA's; None for any other."""
    text, name = str(error), type(error).__name__  # by its name: JAX need not be imported
    if isinstance(error, MemoryError) or (name == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in text):
        return f"out of memory ({shorten(text, 100) or name}); use fewer devices, seeds or blocks"
    return None


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was renamed to, or that is most like it; None where none is.

    If there are known words that contain it, it is one of these.
    """
    word, known = shorten(word), sorted(known)
    if RENAMED.get(word, "").partition(" ")[0] in known:
        return RENAMED[word]
    longer = [one for one in known if word in one] if len(word) >= SHORTEST_PART else []
    return next(iter(difflib.get_close_matches(word, longer or known, n=1, cutoff=0.0 if longer else 0.6)), None)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or the list of what is known where none is close."""
    known = sorted(known)
    near = closest(word, known)
    return f"; did you mean '{near}'?" if near else f"; known: {', '.join(known)}"


def shorten(text: str, limit: int = 60) -> str:
    """`text`, cut to `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shown(value: object, limit: int = 60) -> str:
    """A value about as it stands in a TOML file, short enough for a message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"{'-' if value < 0 else ''}1e{int(value.bit_length() * 0.30103)} or so"
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "an array"
    return shorten(repr(value) if isinstance(value, str) else str(value), limit)


def compact(value: float) -> str:
    """A number as one would type it: 10000000, 1e18, 0.001."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.12g}")


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
