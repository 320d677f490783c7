"""Quantities with their units, as people write them (`20Mbit/s`, `10ms`, `2 GHz`), and back again.

Case decides where it must (`MB/s` are bytes, `Mb/s` bits; `mW` and `MW`). Elsewhere `mhz` and `gbps` are understood,
and `20 mbps` is 20 Mbit/s, as no link has millibits. A number without a unit is refused: 20 is neither bit nor Mbit/s.
Only 0 needs none.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

from partway.arguments import as_real
from partway.errors import InputError, compact, shown

LARGE = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18}
BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """A kind of quantity.

    units    its size in SI units of every spelling of a unit
    folded   whether case may be ignored where that leaves only one unit
    example  what an error shows
    least, most  the range, in SI units; `zero`: whether 0 is allowed as well
    bare     whether a number without a unit is understood, in SI units
    """

    units: Mapping[str, float]
    folded: bool
    example: str
    least: float
    most: float
    zero: bool = False
    bare: bool = False


def _spelled(prefixes: Mapping[str, float], sizes: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for prefix, factor in prefixes.items():
        for unit, size in sizes.items():
            yield f"{prefix}{unit}", factor * size


_PER_SECOND = {
    **dict.fromkeys(("bit/s", "bits/s", "bps", "b/s", "bit/sec", "bits/sec"), 1.0),
    **dict.fromkeys(("B/s", "Bps", "Byte/s", "byte/s", "bytes/s", "B/sec"), 8.0),
}
RATE = Kind(dict(_spelled(LARGE | BINARY, _PER_SECOND)), True, "20Mbit/s or 5MB/s", 1.0, 1e15)
"""[bit/s]"""
TIME = Kind(
    {**dict(_spelled(SMALL, {"s": 1.0, "sec": 1.0})), "second": 1.0, "seconds": 1.0, "min": 60.0, "h": 3600.0},
    False,
    "10ms or 0.5s",
    1e-12,
    1e9,
    True,
)
"""[s]"""
DEADLINE = replace(TIME, zero=False)
"""[s]"""
FREQUENCY = Kind(dict(_spelled(LARGE, {"Hz": 1.0})), True, "600MHz or 2GHz", 1.0, 1e18)
"""[Hz]"""
WORK_RATE = Kind(
    dict(_spelled(LARGE, {"MAC/s": 1.0, "MACs/s": 1.0, "MACS": 1.0, "FLOP/s": 0.5, "FLOPS": 0.5, "OPS": 0.5})),
    True,
    "8GMAC/s (or 16GFLOPS: two operations are a multiply-accumulate)",
    1e-3,
    1e24,
)
"""[multiply-accumulates / s]"""
POWER = Kind(dict(_spelled({**SMALL, "k": 1e3}, {"W": 1.0})), False, "0.8W or 200mW", 1e-12, 1e9, True)
"""[W]"""
BIT_ENERGY = Kind(dict(_spelled(SMALL, {"J/bit": 1.0, "J/b": 1.0, "J/B": 0.125})), False, "50nJ/bit", 1e-18, 1e3, True)
"""[J/bit]"""
_AMOUNT = {**dict.fromkeys(("bit", "bits", "b"), 1.0), **dict.fromkeys(("B", "Byte", "byte", "bytes"), 8.0)}
SIZE = Kind(
    dict(_spelled(LARGE | BINARY, _AMOUNT)),
    False,
    "60kbit or 7.5kB",
    1.0,
    2.0**53,
    bare=True,
)
"""[bit]"""


def parsed(name: str, value: Any, kind: Kind) -> float:
    """A quantity in SI units.

    name   of the flag or argument, for errors
    value  text with a unit, or a number in SI units

    Raises InputError, in one line, for a text without a number or with an unknown or ambiguous unit, and out of range.
    """
    if isinstance(value, str):
        match = NUMBER.fullmatch(value)
        if not match:
            raise InputError(f"{name} must be a number and a unit, such as {kind.example}, got {shown(value)}")
        number = float(match[1])
        number *= 1.0 if not match[2] and (kind.bare or number == 0) else _size(name, value, match[2], kind)
    elif (found := as_real(value)) is not None:
        number = found
    else:
        raise InputError(f"{name} must be a number or a text such as {kind.example}, got {shown(value)}")
    if not (kind.least <= number <= kind.most or (kind.zero and number == 0)):
        limits = f"{'0 or ' * kind.zero}from {compact(kind.least)} to {compact(kind.most)}"
        unit = next(unit for unit, size in kind.units.items() if size == 1)
        raise InputError(f"{name} must be {limits} {unit}, got {shown(value)}")
    return number


def _size(name: str, text: str, unit: str, kind: Kind) -> float:
    """The size of a unit."""
    if unit in kind.units:
        return kind.units[unit]
    if not unit:
        raise InputError(f"{name} needs a unit, such as {kind.example}, got {shown(text)}")
    alike = [known for known in kind.units if known.casefold() == unit.casefold()] if kind.folded else []
    same_after_prefix = [known for known in alike if known[1:] == unit[1:]]  # mbps: in Mbps and MBps b is not B
    for candidates in (same_after_prefix, alike):
        if len(sizes := {kind.units[known] for known in candidates}) == 1:
            return sizes.pop()
    if f"{unit}/s" in kind.units:
        raise InputError(f"{name} {shown(text)} is not a rate; write {text.strip()}/s")
    if alike:
        raise InputError(f"{name} {shown(text)}: write {' or '.join(sorted({*alike}))}, as B is a byte and b a bit")
    raise InputError(f"{name} {shown(text)}: unknown unit {shown(unit, 20)}; write it like {kind.example}")


NEAREST, DOWN, UP = "nearest", "down", "up"
"""How a quantity is rounded: a limit that holds from a value is rounded up, so that it holds for what is shown."""
NOISE = 1e-13
"""Relative error of a computed value that is not rounded up or down to another digit."""
PREFIXES = (
    *((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")),
    *((1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"), (1e-18, "a")),
)
LONG_S = 1e4
"""A time from which it is written in hours [s]."""


def quantity(value: float, unit: str, digits: int = 3, rounding: str = NEAREST) -> str:
    """A positive quantity with a prefix for a sentence: 21.3 ms, 2 GHz, 1500 s, 0 s; a dash where there is none.

    digits  significant ones; zeros at the end are left out. `rounding`: NEAREST, DOWN or UP
    """
    if not math.isfinite(value):
        return "-"
    if unit == "s" and value >= LONG_S:
        return quantity(value / 3600.0, "h", digits, rounding)
    if rounding != NEAREST and value > 0:
        value = _rounded(value, digits, rounding)
    size, prefix = (1.0, "") if unit in ("s", "h") and value >= 1 else prefix_of(value, digits)
    text = f"{value / size:.{digits}g}"
    text = text if "e" not in text else f"{float(text):.0f}" if value >= 1 else text
    return f"{text} {prefix}{unit}"


def _rounded(value: float, digits: int, rounding: str) -> float:
    """A positive value with so many digits, from above or from below."""
    noise = Decimal(1 + (NOISE if rounding == DOWN else -NOISE))
    context = Context(prec=digits, rounding=ROUND_CEILING if rounding == UP else ROUND_FLOOR)
    return float(context.create_decimal(Decimal(value) * noise))


def prefix_of(value: float, digits: int = 3) -> tuple[float, str]:
    """(size, prefix) with which a value, rounded to `digits`, is from 1 to 1000; the nearest one there is."""
    for size, prefix in PREFIXES:
        if float(f"{value / size:.{digits}g}") >= 1:
            return size, prefix
    return PREFIXES[-1] if value else (1.0, "")
