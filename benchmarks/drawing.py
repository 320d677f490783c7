"""The figure: device-blocks a second against devices times runs, a line a number of runs, lines of the limit above."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.goals import LANES, best_rates, count_of, peaks_of
from benchmarks.limit import limit_s
from benchmarks.records import Measured, Rate, Record, measured
from benchmarks.rivals import ONE_BY_ONE
from benchmarks.tables import NAMES
from benchmarks.worlds import MEASURED
from partway.figures.common import WIDTH
from partway.figures.style import STYLE

COLOURS = {"ours": "#1f6fc4", "batched": "#f08a00", "per_run": "#bd1f01", "loop": "#94a4a2"}
LOOKS = (("o", "-"), ("s", "--"), ("D", ":"), ("^", "-."))
"""Marker and line by number of runs."""


@dataclass(frozen=True)
class Line:
    """An implementation at one number of runs: device-blocks a second by devices times runs, which grow."""

    kind: str
    runs: int
    lanes: list[int]
    rates: list[Measured]


def write(records: Sequence[Record], path: Path) -> None:
    """Write the PNG file."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        panels = figure.subplots(1, len(MEASURED), sharey=True)
        for axes, scheme in zip(panels, MEASURED, strict=True):
            _panel(axes, records, scheme)
        panels[0].set_ylabel("device-blocks a second")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def lines(rates: Sequence[Rate]) -> list[Line]:
    """A line for each implementation and number of runs.

    A rival that plays one run after the other is measured with one run, whatever the number: it has one line, of one
    run, where that is, of the measurements beside the fewest runs.
    """
    made = list[Line]()
    for kind in NAMES:
        own = sorted((rate for rate in rates if kind in rate.by), key=lambda rate: (rate.devices, rate.runs))
        if kind in ONE_BY_ONE:
            fewest = {rate.devices: rate for rate in reversed(own)}
            by_runs = {1: sorted(fewest.values(), key=lambda rate: rate.devices)}
        else:
            by_runs = {runs: [rate for rate in own if rate.runs == runs] for runs in sorted({r.runs for r in own})}
        for runs, of_runs in by_runs.items() if own else ():
            best = [measured(rate.by[kind]) for rate in of_runs]
            made.append(Line(kind, runs, [rate.devices * runs for rate in of_runs], best))
    return made


def _panel(axes: Axes, records: Sequence[Record], scheme: str) -> None:
    rates = best_rates(records, scheme)
    drawn = lines(rates)
    axes.set(title=f"{scheme}, float32", xscale="log", yscale="log", xlabel="devices times runs")
    looks = dict(zip(sorted({line.runs for line in drawn}), LOOKS, strict=False))
    for line in drawn:
        ends = [
            [one.median - one.low for one in line.rates],
            [one.high - one.median for one in line.rates],
        ]
        how = _look(*looks[line.runs], COLOURS[line.kind])
        axes.errorbar(line.lanes, [one.median for one in line.rates], ends, elinewidth=0.8, **how)
    for kind in dict.fromkeys(line.kind for line in drawn):
        axes.plot([], [], color=COLOURS[kind], label=NAMES[kind])
    for runs, look in looks.items():
        axes.plot([], [], label=f"{runs:,} run{'s' * (runs != 1)}", **_look(*look, "0.4"))
    peaks = peaks_of(records, "float32", rates[0].cores, rates[0].machine) if rates else None
    if peaks is not None:
        arithmetic, memory = limit_s(count_of(scheme), peaks, LANES["float32"])
        axes.axhline(1.0 / max(arithmetic, memory), color="0.3", linewidth=1.0, label="limit")
        axes.axhline(1.0 / arithmetic, color="0.3", linestyle=(0, (1, 4)), linewidth=1.0, label="arithmetic alone")


def _look(marker: str, linestyle: str, color: str) -> dict[str, Any]:
    return {"marker": marker, "linestyle": linestyle, "color": color, "markersize": 3.5, "linewidth": 0.8}
