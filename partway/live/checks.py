"""Checks of what comes from a peer: each raises MessageError with what is wrong."""

import math
from typing import Any

from partway.live.messages import MessageError

MAX_NAME = 200
"""Characters of a name, a session or a hash."""
LEAST, MOST = 1e-30, 1e30
"""Of numbers: products of a few of them are neither 0 nor infinite, in single precision either."""
MAX_BLOCK = 2**32 - 1
"""Random numbers depend on the number of the block, which has 32 bits."""


def check(condition: bool, what: str) -> None:
    """What a message must fulfil."""
    if not condition:
        raise MessageError(what)


def number(name: str, value: float, low: float = -MOST, high: float = MOST) -> float:
    """A finite number from `low` to `high`."""
    check(math.isfinite(value) and low <= value <= high, f"{name} must be a number from {low:g} to {high:g}")
    return value


def whole(name: str, value: int, high: int, low: int = 0) -> int:
    """A whole number from `low` to `high`."""
    check(low <= value <= high, f"{name} must be a whole number from {low} to {high}")
    return value


def printable(name: str, value: str, empty: bool = True) -> str:
    """A short text without control characters."""
    right = len(value) <= MAX_NAME and value.isprintable() and (empty or value != "")
    check(right, f"{name} must have at most {MAX_NAME} printable characters")
    return value


def parsed(kind: Any, data: bytes) -> Any:
    """The message of this kind in the bytes."""
    try:
        return kind.FromString(data)
    except Exception as error:  # protobuf's own, whose class differs between its implementations
        raise MessageError(f"no message of the kind {kind.DESCRIPTOR.name}: {type(error).__name__}") from None
