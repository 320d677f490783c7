"""Arguments from Python, checked: a value of a wrong type is an InputError, like any other wrong value.

NumPy's numbers are numbers. Fractions are not rounded, and True and False are not numbers.
"""

import contextlib
import math
import operator
import os
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat, cast

from partway.errors import InputError, shorten, shown

FLAGS = {"shapes": "--shape", "values": "--input", "overrides": "--set", "network": "MODEL", "path": "MODEL"}
"""Arguments of functions whose flags are not called after them."""
_by_flags = False
Limits = tuple[float, float] | frozenset[str]
"""Values that a parameter of a policy or a channel may have: from one number to another, or one of these words."""
PRECISIONS = ("float32", "float64")
MAX_SEED = 2**32 - 1
MAX_SEED_COUNT = 100_000


@contextlib.contextmanager
def named_by_flags() -> Generator[None]:
    """Inside, messages name flags instead of arguments: the command line calls the functions."""
    global _by_flags
    before, _by_flags = _by_flags, True
    try:
        yield
    finally:
        _by_flags = before


def named(argument: str) -> str:
    """How a message names an argument of a function: `tx_power`, or `--tx-power` on the command line."""
    return FLAGS.get(argument, f"--{argument.replace('_', '-')}") if _by_flags else argument


def is_flag(value: Any) -> bool:
    """Whether `value` is True or False, Python's or NumPy's."""
    return isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"))


def as_whole(value: Any) -> int | None:
    """`value` as an int if it is a whole number, else None."""
    try:
        return None if is_flag(value) else operator.index(value)
    except TypeError:
        return None


def as_real(value: Any) -> float | None:
    """`value` as a float if it is one real number, else None; an integer beyond float64 is infinite."""
    if is_flag(value) or not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if cast(Any, value) > 0 else -math.inf
    except (TypeError, ValueError):  # an array of several numbers; a signalling NaN
        return None


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int. Raises InputError unless it is a whole number from `low` to `high`."""
    number = as_whole(value)
    if number is None or not low <= number <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, got {shown(value)}")
    return number


def flag(name: str, value: Any) -> bool:
    """`value` as a bool. Raises InputError unless it is True or False."""
    if not is_flag(value):
        raise InputError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def choice(name: str, value: Any, known: Iterable[str | None]) -> Any:
    """`value`. Raises InputError unless it is one of some words, or None where that is among them."""
    words = tuple(known)
    if not isinstance(value, str | None) or value not in words:
        raise InputError(f"{name} must be one of {', '.join(map(str, words))}, got {shown(value)}")
    return value


def function(name: str, value: Any) -> Callable[..., Any]:
    """`value`. Raises InputError unless it can be called."""
    if not callable(value):
        raise InputError(f"{name} must be a function, got {shown(value)}")
    return value


def path(name: str, value: Any) -> Path:
    """`value` as a path. Raises InputError unless it is a path or a string that is not empty."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise InputError(f"{name} must be a path, got {shown(value)}")
    return Path(value)


def is_shipped_name(given: str) -> bool:
    """Whether a network is given by the name of a profile that ships; anything else is a path."""
    return re.fullmatch(r"[\w-]+", given) is not None


def seed_values(seeds: Any) -> tuple[int, ...]:
    """The seeds that a count or a sequence of different whole numbers stands for. Raises InputError for others."""
    numbers, count = list[int | None](), as_whole(seeds)
    if count is not None:
        numbers = [*range(count)] if count <= MAX_SEED_COUNT else []
    elif isinstance(seeds, Iterable) and not isinstance(seeds, str | bytes | Mapping):
        numbers = [as_whole(seed) for seed in cast(Iterable[Any], seeds)]
    found = tuple(number for number in numbers if number is not None and 0 <= number <= MAX_SEED)
    if not found or len(found) < len(numbers) or len({*found}) < len(found):
        given = shown(seeds) if isinstance(seeds, str) else shorten(str(seeds))
        hint = "; use --seed for a single value" * (_by_flags and count is not None)
        raise InputError(
            f"--seeds must be a count from 1 to {MAX_SEED_COUNT}, or different whole numbers from 0 to {MAX_SEED}, got "
            f"{given}{hint}"
        )
    return found


def checked_setting(field: str, kind: type, limits: Limits | None, value: Any) -> Any:
    """`value` as the type of the field's default, within its limits; a whole number may stand for a float."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[kind]
    if isinstance(limits, frozenset):
        words = " or ".join(sorted(map(repr, limits)))
    elif limits is not None:
        words += f" from {limits[0]:g} to {limits[1]:g}"
    right = type(value) is kind or (kind is float and type(value) is int)
    if right and limits is not None:
        right = value in limits if isinstance(limits, frozenset) else limits[0] <= value <= limits[1]
    if not right:
        raise InputError(f"{field} must be {words}, got {shown(value)}")
    return float(value) if kind is float else value
