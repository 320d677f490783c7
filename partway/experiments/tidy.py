"""summary.csv: one row for each scheme and case of a comparison or a sweep, with units in the header."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COLUMNS: Mapping[str, Sequence[str]] = {
    "status": ("status",),
    "reason": ("reason",),
    "cost [per block]": ("cost_per_block.mean",),
    "cost, 95 % low [per block]": ("cost_per_block.ci95.0",),
    "cost, 95 % high [per block]": ("cost_per_block.ci95.1",),
    "server queue cost [per block]": ("cost_components.server_queue",),
    "server energy cost [per block]": ("cost_components.server_energy",),
    "device queue cost [per block]": ("cost_components.device_queue",),
    "device energy cost [per block]": ("cost_components.device_energy",),
    "gap to bound [1]": ("gap.mean",),
    "gap, 95 % low [1]": ("gap.ci95.0",),
    "gap, 95 % high [1]": ("gap.ci95.1",),
    "no gap because": ("gap.reason",),
    "latency, mean [s]": ("latency_s.mean",),
    "latency, p50 [s]": ("latency_s.p50",),
    "latency, p95 [s]": ("latency_s.p95",),
    "latency, p99 [s]": ("latency_s.p99",),
    "device energy [J/task]": ("energy_j_per_task.device", "device_energy_j_per_task"),
    "server energy [J/task]": ("energy_j_per_task.server", "server_energy_j_per_task"),
    "offloaded share [1]": ("offloaded_share",),
    "throughput [mean tasks/s]": ("throughput_per_s.mean",),
    "CPU utilisation [1]": ("utilisation.cpu", "cpu_utilisation"),
    "radio utilisation [1]": ("utilisation.radio", "radio_utilisation"),
    "server utilisation [1]": ("utilisation.server", "server_utilisation"),
}
"""Title of a column -> where its number is in the JSON of a comparison's scheme, or of a sweep's case."""

NUMBER = r"[+-]?[\d.]+(e[+-]?\d+)?"
"""A text that is a number, which may begin with a sign."""


def rows(before: Mapping[str, Sequence[Any]], cases: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The header, and a row for each case, empty where a number does not exist.

    before  the first columns, which say what a case is: title -> its value in each case
    """
    header = [*before, *COLUMNS]
    keys = zip(*before.values(), strict=True)
    return [header, *([*map(_cell, key), *_numbers(case)] for key, case in zip(keys, cases, strict=True))]


def write_csv(path: Path, table: Iterable[Sequence[Any]]) -> None:
    """Write rows, the first of them the header: empty cells for NaN, and no text that a spreadsheet would compute."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(map(_written, row) for row in table)


def _written(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value != value else value
    return value if re.fullmatch(NUMBER, value) else re.sub("^[=+@-](?=.)", "_", value)


def _numbers(case: Mapping[str, Any]) -> list[Any]:
    return [next((_cell(_at(case, path)) for path in paths if _has(case, path)), "") for paths in COLUMNS.values()]


def _has(case: Mapping[str, Any], path: str) -> bool:
    return path.partition(".")[0] in case


def _at(case: Any, path: str) -> Any:
    """What is at a dotted path; None where it ends early: without a latency it has no parts."""
    for part in path.split("."):
        if case is None:
            return None
        case = case[int(part)] if isinstance(case, list) else case[part]
    return case


def _cell(value: Any) -> Any:
    return "" if value is None else value
