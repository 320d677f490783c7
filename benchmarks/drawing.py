"""The figure: device-blocks a second against devices times runs, a line of the limit above."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.found import Record, measured
from benchmarks.goals import LANES, best_rates, count_of, peaks_of
from benchmarks.limit import limit_s
from benchmarks.tables import NAMES
from benchmarks.worlds import MEASURED
from partway.figures.sheet import STYLE, WIDTH

COLOURS = {"ours": "#1f6fc4", "batched": "#f08a00", "per_run": "#bd1f01", "loop": "#94a4a2"}
MARKERS = "osD^v"
"""By number of runs."""


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


def _panel(axes: Axes, records: Sequence[Record], scheme: str) -> None:
    rates = best_rates(records, scheme)
    axes.set(title=f"{scheme}, float32", xscale="log", yscale="log", xlabel="devices times runs")
    markers = dict(zip(sorted({rate.runs for rate in rates}), MARKERS, strict=False))
    for kind, name in NAMES.items():
        own = sorted((rate for rate in rates if kind in rate.by), key=lambda rate: rate.devices * rate.runs)
        best = [measured(rate.by[kind]) for rate in own]
        lanes = [rate.devices * rate.runs for rate in own]
        axes.plot(lanes, [one.median for one in best], color=COLOURS[kind], linewidth=0.8, alpha=0.5)
        for runs, marker in markers.items():
            at = [i for i, rate in enumerate(own) if rate.runs == runs]
            x, y = [lanes[i] for i in at], [best[i].median for i in at]
            ends = [[best[i].median - best[i].low for i in at], [best[i].high - best[i].median for i in at]]
            shown = name if runs == min(markers) else None
            axes.errorbar(x, y, ends, fmt=marker, markersize=3.5, color=COLOURS[kind], elinewidth=0.8, label=shown)
    for runs, marker in markers.items():
        axes.plot([], [], marker, markersize=3.5, color="0.4", label=f"{runs} run{'s' * (runs != 1)}")
    peaks = peaks_of(records, "float32", rates[0].cores) if rates else None
    if peaks is not None:
        arithmetic, _ = limit_s(count_of(scheme), peaks, LANES["float32"])
        axes.axhline(1.0 / arithmetic, color="0.3", linestyle=":", linewidth=1.0, label="limit of the arithmetic")
