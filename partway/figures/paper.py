"""Figures 6 to 9 of the paper with its axes: means over replicates with their 95 % bands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from partway.figures import proposition1
from partway.figures.intervals import mean_and_interval
from partway.figures.style import (
    FigureData,
    Row,
    block_axis,
    figure_style,
    log_axis,
    new_figure,
    save,
    scheme_colour,
)
from partway.paper.claims import BASELINES, CANDIDATES, PHASES, READINGS, TOLERANCE
from partway.paper.figure_runs import FigureJob
from partway.paper.reproduce import Findings
from partway.paper.verdicts import step_ratio

Runs = Mapping[FigureJob, Mapping[str, np.ndarray]]

SUFFIX = {"conserving": "", "as_printed": "-as-printed"}
READING_NAMES = {"conserving": "queue that conserves work", "as_printed": "queue as equation (1) is printed"}
PHASE_NAMES = dict(zip(PHASES, ("from empty queues, before learning", "after training"), strict=True))
PAPER_WIDTH, PANEL_HEIGHT = 10.0, 2.9
"""Width of a figure, height of a row of panels [inch]."""
BIN = 20
"""Blocks that are averaged into one point of a curve."""
MAX_MARKERS = 20
"""A curve with more points than this has no markers."""
ESTIMATE_COLUMNS = ("mean", "95 % low", "95 % high", "median")
BANDS = "Lines: means over replicates; bands: 95 % confidence intervals."


class Line(NamedTuple):
    """A curve with its band, (points,) each."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    median: np.ndarray


def write(findings: Findings, folder: Path) -> list[str]:
    """Write figure-6 ... figure-9 and proposition-1 as .png, .svg and .csv; returns their names."""
    names: list[str] = []
    with figure_style():
        for reading in READINGS:
            runs = {job: arrays for job, arrays in findings.figure_runs().items() if job.reading == reading}
            for number, draw in (("6", _figure_6), ("7", _figure_7), ("8", _figure_8_or_9), ("9", _figure_8_or_9)):
                own = {job: arrays for job, arrays in runs.items() if job.figure == number}
                names.append(f"figure-{number}{SUFFIX[reading]}")
                save(folder, names[-1], draw(own, reading))
        names.append("proposition-1")
        save(folder, names[-1], proposition1.draw(findings.runs))
    return names


def line(x: np.ndarray, values: np.ndarray) -> Line:
    """The curve of (replicates, points)."""
    mean, low, high = mean_and_interval(values)
    return Line(x, mean, low, high, np.median(values, axis=0))


def _new_figure(title: str, notes: Sequence[str], runs: Runs, reading: str, rows: int = 1) -> tuple[Figure, np.ndarray]:
    replicates = len(next(iter(runs)).seeds)
    subtitle = f"{READING_NAMES[reading]}, {replicates} replicates"
    figure = new_figure(title, subtitle, [*notes, BANDS], PANEL_HEIGHT * rows, PAPER_WIDTH)
    return figure, figure.subplots(rows, 2, squeeze=False)


def _legend(figure: Figure, panels: Sequence[Axes], columns: int) -> None:
    """One legend for lines of several panels."""
    handles = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="lower left", ncols=columns, borderaxespad=0)


def _draw(axes: Axes, name: str, curve: Line, dashes: str = "-") -> None:
    colour, marker = scheme_colour(name), "" if len(curve.x) > MAX_MARKERS else "o"
    axes.plot(curve.x, curve.mean, dashes, color=colour, linewidth=1.3, label=name, marker=marker)
    axes.fill_between(curve.x, np.maximum(curve.low, 1e-300), curve.high, color=colour, alpha=0.15, linewidth=0)


def _rows(key: Sequence[str | float], curve: Line) -> list[Row]:
    return [(*key, *point) for point in np.stack(curve, axis=-1).tolist()]


def _finite(means: Sequence[np.ndarray]) -> np.ndarray:
    values = np.concatenate(means)
    return values[np.isfinite(values)]


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(middle of each bin, (replicates, bins)) of (replicates, blocks)."""
    count = values.shape[1] // BIN
    bins = values[:, : count * BIN].reshape(len(values), count, BIN).mean(axis=-1, dtype=np.float64)
    return (np.arange(count) + 0.5) * BIN, bins


def _figure_6(runs: Runs, reading: str) -> FigureData:
    """The relative change, which is alpha_t ||gradient|| / ||theta||, and what it is without the shrinking step."""
    notes = (
        "Above: relative change of the parameters theta in an iteration. Below: with a step size that does not shrink.",
        f"Dotted: tolerance of the stopping rule, {TOLERANCE:g}.",
    )
    figure, panels = _new_figure("Figure 6: convergence, K = 4 devices", notes, runs, reading, rows=2)
    rows: list[Row] = [("algorithm", "scheme", "step", "iteration", *ESTIMATE_COLUMNS)]
    for column, (number, party) in enumerate((("1", "devices"), ("2", "server"))):
        field = f"{party.removesuffix('s')}_relative_change"
        for job, arrays in runs.items():
            change, alpha = arrays[field][0], step_ratio(job)
            for row, step in enumerate((1.0, alpha)):
                curve = line(*_binned(change / step))
                _draw(panels[row, column], job.scheme, curve)
                rows += _rows((number, job.scheme, "shrinking" if row == 0 else "first"), curve)
        for row, label in enumerate(("relative change", r"$\alpha_0 \Vert$gradient$\Vert / \Vert\theta\Vert$")):
            axes = panels[row, column]
            axes.set(yscale="log", ylabel=label, title=f"Algorithm {number} ({party})", ylim=(1e-6, 3))
            axes.axhline(TOLERANCE, color="0.3", linewidth=0.8, linestyle=":")
            block_axis(axes)
            axes.set_xlabel("iteration")
    _legend(figure, [panels[0, 0]], columns=6)
    return figure, rows


def _figure_7(runs: Runs, reading: str) -> FigureData:
    """Candidates left, baselines right, on the same logarithmic axis."""
    figure, panels = _new_figure("Figure 7: cost per block over time, K = 20 devices", (), runs, reading)
    rows: list[Row] = [("scheme", "block", *ESTIMATE_COLUMNS)]
    shown: list[np.ndarray] = []
    for axes, names in zip(panels[0], (CANDIDATES, BASELINES), strict=True):
        for job, arrays in runs.items():
            if job.scheme not in names:
                continue
            curve = line(*_binned(arrays["cost"][0]))
            _draw(axes, job.scheme, curve)
            shown.append(curve.mean)
            rows += _rows((job.scheme,), curve)
        axes.set(ylabel="cost per block", title=f"mean of {BIN} blocks")
        block_axis(axes)
    means = _finite(shown)
    for axes in panels[0]:
        log_axis(axes, "y", means.min() / 1.3, means.max() * 1.5)
    _legend(figure, list(panels[0]), columns=8)
    return figure, rows


def _figure_8_or_9(runs: Runs, reading: str) -> FigureData:
    """A panel for each phase, the axis logarithmic."""
    first = next(iter(runs))
    arrivals = first.figure == "8"
    title = "Figure 8: arrival probability, K = 50 devices" if arrivals else "Figure 9: number of devices"
    figure, panels = _new_figure(f"{title}, discounted sum of costs", ("Dashed: baselines.",), runs, reading)
    axis = "arrival probability b" if arrivals else "number of devices K"
    rows: list[Row] = [("phase", "scheme", axis, *ESTIMATE_COLUMNS)]
    x = np.array(first.arrival_probs if arrivals else sorted({job.devices for job in runs}), np.float64)
    for axes, phase in zip(panels[0], PHASES, strict=True):
        curves = _curves(runs, x, phase)
        for name, curve in curves.items():
            _draw(axes, name, curve, "--" if name in BASELINES else "-")
            rows += _rows((phase, name), curve)
        means = _finite([curve.mean for curve in curves.values()])
        log_axis(axes, "y", means.min() / 1.3, means.max() * 1.5)
        axes.set(xlabel=axis, ylabel="discounted sum of costs", title=PHASE_NAMES[phase], xticks=x)
    _legend(figure, [panels[0, 0]], columns=8)
    return figure, rows


def _curves(runs: Runs, x: np.ndarray, phase: str) -> dict[str, Line]:
    """The curve of every scheme that was run."""
    jobs = {name: [job for job in runs if job.scheme == name] for name in (*CANDIDATES, *BASELINES)}
    return {
        name: line(x, np.concatenate([runs[job][phase] for job in sorted(own, key=lambda job: job.devices)]).T)
        for name, own in jobs.items()
        if own
    }
