"""What was measured, as numbers: records looked up, medians with their ranges, ratios of what was measured together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = dict[str, Any]
NONE = "-"
NOT_RECORDED = "not recorded"
"""The code of records that were made before it was noted."""
FEW = 4
"""Measurements that are missing for one reason and still named one by one."""


@dataclass(frozen=True)
class Measured:
    """The median of some repetitions, the least and the greatest."""

    median: float
    low: float
    high: float

    def words(self, scale: float = 1.0, unit: str = "") -> str:
        """`median (low to high) unit`; one number where there was one repetition."""
        median, low, high = (short(value * scale) for value in (self.median, self.low, self.high))
        spread = f" ({low} to {high})" if self.low != self.high else ""
        return f"{median}{spread}{unit and ' ' + unit}"

    def times(self, scale: float) -> "Measured":
        """The same in another unit."""
        return Measured(self.median * scale, self.low * scale, self.high * scale)


def short(value: float) -> str:
    """Three digits, no exponent where it reads well without."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    digits = 2 - int(np.floor(np.log10(abs(value))))
    rounded = round(value, digits)
    return f"{rounded:,.{max(digits, 0)}f}" if 1e-3 <= abs(value) < 1e7 else f"{value:.2e}"


def measured(values: Sequence[float]) -> Measured:
    """Raises ValueError where there are none."""
    if not values:
        raise ValueError("nothing was measured")
    return Measured(float(np.median(values)), min(values), max(values))


def ratio(of: Sequence[float], to: Sequence[float]) -> Measured:
    """Repetition by repetition: what was measured one after the other is compared."""
    return measured([a / b for a, b in zip(of, to, strict=True)])


def of_group(records: Sequence[Record], group: str, **about: Any) -> list[Record]:
    """The records of a group whose `about` has these values."""
    return [
        one
        for one in records
        if one["group"] == group and all(one["about"].get(name) == value for name, value in about.items())
    ]


def found(records: Sequence[Record], group: str, **about: Any) -> list[dict[str, Any]]:
    """What the repetitions of the one such record have found, those that failed left out; none: []."""
    matching = of_group(records, group, **about)
    return [one for record in matching[:1] for one in record["found"] if "failed" not in one]


def failures(records: Sequence[Record]) -> list[str]:
    """What could not be measured, and why; many of one group and reason in one line, with what they have in common."""
    by_reason = dict[tuple[str, str], list[dict[str, Any]]]()
    for record in records:
        for one in record["found"][:1]:
            if "failed" in one:
                by_reason.setdefault((record["group"], one["failed"]), []).append(record["about"])
    lines = list[str]()
    for (group, why), abouts in by_reason.items():
        if len(abouts) > FEW:
            shared = [f"{name} {value}" for name, value in abouts[0].items() if all(a[name] == value for a in abouts)]
            lines.append(f"{len(abouts)} of {' '.join([group, *shared])}: {why}")
        else:
            lines += [f"{group} {' '.join(map(str, about.values()))}: {why}" for about in abouts]
    return lines


@dataclass(frozen=True)
class Rate:
    """One configuration: device-blocks a second by implementation, and the rest of what its job has found.

    cores  all that were used; 0: an accelerator
    """

    scheme: str
    devices: int
    runs: int
    precision: str
    cores: int
    by: dict[str, list[float]]
    left: dict[str, float]
    machine: str
    date: str

    def place(self) -> str:
        """K and the number of runs, as a sentence says them."""
        return f"K = {self.devices:,}, {self.runs:,} run{'s' * (self.runs != 1)}"

    def against(self, kind: str) -> Measured | None:
        """How many times as fast ours is."""
        return ratio(self.by["ours"], self.by[kind]) if kind in self.by else None


def all_rates(records: Sequence[Record]) -> list[Rate]:
    """Every configuration that was measured."""
    rates = list[Rate]()
    for record in of_group(records, "rates"):
        about = {name: record["about"][name] for name in ("scheme", "devices", "precision", "cores")}
        for one in (one for one in record["found"] if "failed" not in one):
            for runs, values in one.items():
                if isinstance(values, dict):
                    by = {name: value for name, value in values.items() if isinstance(value, list)}
                    left = {name: values[name] for name in ("waiting", "backlog")}
                    where = {name: record[name] for name in ("machine", "date")}
                    rates.append(Rate(**about, runs=int(runs), by=by, left=left, **where))
    return rates


def origins(records: Sequence[Record]) -> dict[tuple[str, str, str], list[str]]:
    """The groups measured on each day, on each machine, by each code: by (date, machine, code), ordered by day."""
    groups = dict[tuple[str, str, str], list[str]]()
    for record in records:
        own = groups.setdefault((record["date"], record["machine"], record.get("code", NOT_RECORDED)), [])
        own += [record["group"]] * (record["group"] not in own)
    return dict(sorted(groups.items()))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent of y ~ x^slope that fits best (least squares of logarithms): 1 is linear."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
