"""What the page shows, as data: the browser draws it and knows nothing of what it means.

Page ---> View (one at a time) ---> facts, charts over blocks, bars, a tile per device
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from partway.formatting import number, plain

POINTS = 400
"""Most points of a line: more would be closer than the pixels of a screen."""
MEAN_BLOCKS = 100
"""Blocks over which the cost is averaged, as the gap of a live run is (`partway.live.watch.WINDOW`)."""
NO_PRICE = "Devices of this scheme decide without a price."
NOISE = "The cost of few blocks is noisy and may be below the bound; the gap lacks most of that noise."


@dataclass(frozen=True)
class Line:
    """A line of a chart; NaN where there is nothing to draw."""

    name: str
    values: list[float]


@dataclass(frozen=True)
class Chart:
    """Lines over blocks.

    kind    "stack": the lines are parts, drawn on top of each other, or "lines"
    blocks  the block of each point
    over    lines that are drawn on top, such as a mean
    mark    a value to compare with, drawn across, and mark_name its name; None without
    note    a sentence below; where there are no lines, why
    """

    key: str
    title: str
    kind: str
    blocks: list[int]
    lines: list[Line]
    over: list[Line] = field(default_factory=list[Line])
    mark: float | None = None
    mark_name: str = ""
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar; `text`: its value with its unit."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class Bars:
    """Bars below each other; `mark`, `mark_name`, `note` as in Chart."""

    key: str
    title: str
    bars: list[Bar]
    mark: float | None = None
    mark_name: str = ""
    note: str = ""


@dataclass(frozen=True)
class Tile:
    """A device.

    state  "here", "gone", "silent" or "absent"; `word` says it
    level  share of the tile's bar that is filled, of the longest queue
    """

    name: str
    state: str
    word: str
    lines: list[str]
    level: float = 0.0


@dataclass(frozen=True)
class View:
    """A choice of the page. facts: (name, value)."""

    name: str
    facts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    charts: list[Chart] = field(default_factory=list[Chart])
    bars: list[Bars] = field(default_factory=list[Bars])
    tiles: list[Tile] = field(default_factory=list[Tile])
    tiles_note: str = ""


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    state    "waiting", "running", "silent" or "ended"; `status` says it
    every_s  how often it changes [s], None where it does not any more
    alerts   what a user must not miss, newest first
    """

    title: str
    state: str
    status: str
    every_s: float | None
    views: list[View]
    alerts: list[str] = field(default_factory=list[str])

    def as_json(self) -> dict[str, Any]:
        """The page in JSON types; null for NaN."""
        return plain(asdict(self))


def thinned(blocks: np.ndarray, values: np.ndarray) -> tuple[list[int], list[list[float]]]:
    """At most POINTS points of series (lines, blocks): means of as many blocks each, NaN among them left out.

    Returns the first block of each point, and the lines.
    """
    size = -(-len(blocks) // POINTS) or 1
    starts = range(0, len(blocks), size)
    lines = [[_mean(line[start : start + size]) for start in starts] for line in values]
    return blocks[::size].tolist(), lines


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(f"{finite.mean():.6g}") if finite.size else float("nan")


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """(blocks,) means of the last `window` values up to each; of all so far where there are fewer."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def cost_chart(
    blocks: np.ndarray, parts: Mapping[str, np.ndarray], mean: np.ndarray, bound: float | None, note: str
) -> Chart:
    """The cost of each block by its components (blocks,) by name, with a running mean, against the lower bound."""
    at, lines = thinned(blocks, np.array([*parts.values(), mean]))
    drawn = [Line(*pair) for pair in zip(parts, lines[:-1], strict=True)]
    over = [Line(f"mean of {MEAN_BLOCKS} blocks", lines[-1])]
    return Chart("cost", "Cost of a block, by component", "stack", at, drawn, over, bound, "lower bound", note)


def with_unit(value: float, unit: str, digits: int = 3) -> str:
    """A number with its unit for a reader, a dash where there is none."""
    if not np.isfinite(value):
        return "–"
    return f"{number(value, digits)} {unit}".rstrip()
