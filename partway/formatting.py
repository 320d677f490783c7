"""Numbers and intervals in tables and messages, and JSON types."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast


class Interval(Protocol):
    """A mean and its interval, such as `partway.experiments.statistics.Estimate`."""

    @property
    def mean(self) -> float:
        """The mean."""
        ...

    @property
    def low(self) -> float:
        """The lower end."""
        ...

    @property
    def high(self) -> float:
        """The upper end."""
        ...


def plain(value: Any) -> Any:
    """`value` with every number that JSON cannot express replaced by None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in cast(Sequence[Any], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float, digits: int = 3) -> str:
    """A number for a table: `digits` significant ones, a dash where there is none."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def prefixed(value: float, digits: int = 4) -> str:
    """A number of at least 1 with an SI prefix: 12, 11.26 k, 4.089 G. Smaller ones and 0 have no prefix."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if float(f"{value:.{digits}g}") >= size:
            return f"{significant(value / size, digits)} {prefix}"
    return significant(value, digits)


def significant(value: float, digits: int) -> str:
    """A number from 0 to 10^digits with `digits` significant ones, without an exponent; whole numbers have no point."""
    if value == int(value) or value >= 10 ** (digits - 1):
        return f"{value:.0f}"
    before = max(1, len(f"{int(value)}"))
    return f"{value:.{digits - before}f}"


def with_interval(value: Interval, digits: int) -> str:
    """A mean with `digits` significant ones, and half its interval."""
    half = (value.high - value.low) / 2
    text = number(value.mean, digits)
    return f"{text} ± {number(half, 2)}" if math.isfinite(half) and math.isfinite(value.mean) else text


def percent(share: Interval) -> str:
    """A share with its interval, in per cent, two digits of the interval."""
    half = 50.0 * (share.high - share.low)
    digits = 2 if not math.isfinite(half) else min(3, max(0, 1 - math.floor(math.log10(max(half, 1e-3)))))
    text = f"{100 * share.mean:.{digits}f}"
    return f"{text} ± {half:.{digits}f}" if math.isfinite(half) else text


def host_port(host: str, port: int) -> str:
    """`HOST:PORT` as in a URL: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
