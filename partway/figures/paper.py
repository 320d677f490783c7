"""Figures 6 to 9 of the paper.

Abscissae are the paper's: iterations, block index, arrival probability, K. So are ordinates, cost per block (Figure 7)
and discounted sum (8, 9), but on logarithmic axes; that of Figure 6 is ours. Lines are medians over replicates: a few
whose server is overloaded for good would decide a mean. Unstable replicates are marked, and axes cover the medians of
what is stable in most replicates.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from partway.figures import proposition1
from partway.figures.colours import mark_line, scheme_colour, scheme_marker
from partway.figures.common import FigureData, Row, block_axis, log_axis, new_figure, write_figures
from partway.figures.intervals import mean_and_interval
from partway.figures.layout import PanelFigure, bottom_legend
from partway.figures.style import Look, as_text, display_label, panel_height
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
ESTIMATE_COLUMNS = ("median", "25 %", "75 %", "mean", "95 % low", "95 % high", "unstable replicates")
BANDS = "Lines: medians over replicates; bands: the middle half of the replicates."
UNSTABLE = "Unstable: the waiting work grows without end."
DOTTED = (
    "Dotted: baselines that learn otherwise than section VI says. Printed: with the gradients that the paper prints."
)
MARKERS = (
    "Filled markers: all replicates are stable; open: some are unstable, their waiting work grows without end; "
    "crosses: at least half are. Arrows: beyond the axis."
)


class Line(NamedTuple):
    """A curve, (points,) each: median and quartiles, mean and its 95 % interval, number of unstable replicates."""

    x: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    mean_low: np.ndarray
    mean_high: np.ndarray
    unstable: np.ndarray


def write(findings: Findings, folder: Path, look: Look | None = None) -> list[str]:
    """Write figure-6 ... figure-9 and proposition-1 as .png, .svg and .csv; returns their names."""
    draws: dict[str, Callable[[], FigureData]] = {}
    for reading in READINGS:
        runs = {job: arrays for job, arrays in findings.figure_runs().items() if job.reading == reading}
        for number, draw in (("6", _figure_6), ("7", _figure_7), ("8", _figure_8_or_9), ("9", _figure_8_or_9)):
            own = {job: arrays for job, arrays in runs.items() if job.figure == number}
            draws[f"figure-{number}{SUFFIX[reading]}"] = partial(draw, own, reading)
    draws["proposition-1"] = partial(proposition1.draw, findings.runs)
    write_figures(folder, draws, look, sorted({job.name for job in findings.figure_runs()}))
    return list(draws)


def line(x: np.ndarray, values: np.ndarray, unstable: np.ndarray) -> Line:
    """The curve of (replicates, points), of which `unstable` (replicates, points) or (replicates, 1) are unstable."""
    with np.errstate(invalid="ignore"):  # of infinite values
        low, median, high = np.percentile(values, (25, 50, 75), axis=0)
    mean, mean_low, mean_high = mean_and_interval(values)
    counts = np.broadcast_to(unstable, values.shape).sum(axis=0)
    return Line(x, median, low, high, mean, mean_low, mean_high, counts)


def _new_figure(
    title: str, notes: Sequence[str], runs: Runs, reading: str, rows: int = 1
) -> tuple[PanelFigure, np.ndarray]:
    replicates = len(next(iter(runs)).seeds)
    subtitle = f"{READING_NAMES[reading]}, {replicates} replicates"
    height = panel_height(PANEL_HEIGHT * rows, 2)
    figure = new_figure(title, subtitle, [*notes, BANDS], height, PAPER_WIDTH, columns=2)
    return figure, figure.subplots(rows, 2, squeeze=False)


def _legend(figure: Figure, panels: Sequence[Axes], columns: int) -> None:
    """One legend for lines of several panels."""
    handles = [handle for axes in panels for handle in axes.get_legend_handles_labels()[0]]
    bottom_legend(figure, handles, columns)


def _draw(axes: Axes, name: str, curve: Line, replicates: int, dashes: str = "-") -> None:
    """A curve with a marker at each point; if there are many, its label has the number of unstable replicates."""
    colour, label, many = scheme_colour(name), as_text(display_label(name)), len(curve.x) > MAX_MARKERS
    if many and curve.unstable[0]:
        label = f"{label} ({curve.unstable[0]} of {replicates} unstable)"
    lines = axes.plot(curve.x, curve.median, dashes, color=colour, linewidth=1.3, label=label)
    axes.fill_between(curve.x, np.maximum(curve.low, 1e-300), curve.high, color=colour, alpha=0.15, linewidth=0)
    if many:
        mark_line(lines[0], scheme_marker(name))
        return
    own = scheme_marker(name)
    lines[0].set(marker=own, markevery=(len(curve.x), 1), markersize=5)  # in the legend alone
    most, some = 2 * curve.unstable >= replicates, curve.unstable > 0
    for which, marker, face in ((~some, own, colour), (some & ~most, own, "white"), (most, "x", colour)):
        style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 5, "zorder": 3}
        axes.plot(curve.x[which], curve.median[which], linestyle="", marker=marker, **style)


def _fit_axis(axes: Axes, curves: Mapping[str, Line], replicates: int) -> None:
    """A logarithmic axis for the medians where less than half of the replicates are unstable; arrows for the rest."""
    medians = np.concatenate([curve.median for curve in curves.values()])
    stable = np.concatenate([2 * curve.unstable < replicates for curve in curves.values()]) & np.isfinite(medians)
    shown = medians[stable] if stable.any() else medians[np.isfinite(medians)]
    low, high = shown.min() / 1.3, shown.max() * 1.5
    log_axis(axes, "y", low, high)
    above = 0 * next(iter(curves.values())).x
    for name, curve in curves.items():
        beyond = curve.median > high
        if len(curve.x) <= MAX_MARKERS and beyond.any():
            above[beyond] += 1  # those at the same point stand one below the other
            heights = high * (low / high) ** (0.03 * above[beyond] - 0.01)
            axes.plot(curve.x[beyond], heights, "^", color=scheme_colour(name), markersize=5, zorder=3)


def _rows(key: Sequence[str | float], curve: Line) -> list[Row]:
    return [(*key, *point) for point in np.stack(curve, axis=-1).tolist()]


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(middle of each bin, (replicates, bins)) of (replicates, blocks)."""
    count = values.shape[1] // BIN
    bins = values[:, : count * BIN].reshape(len(values), count, BIN).mean(axis=-1, dtype=np.float64)
    return (np.arange(count) + 0.5) * BIN, bins


def _figure_6(runs: Runs, reading: str) -> FigureData:
    """The relative change, which is alpha_t ||gradient|| / ||theta||, and what it is without the shrinking step."""
    notes = (
        "Above: relative change of the parameters theta in an iteration. Below: with a step size that does not shrink; "
        "least squares (qlearning-designed) have none and are the same.",
        f"Dotted: tolerance of the stopping rule, {TOLERANCE:g}.",
        UNSTABLE,
    )
    figure, panels = _new_figure("Figure 6: convergence, K = 4 devices", notes, runs, reading, rows=2)
    rows: list[Row] = [("algorithm", "scheme", "step", "iteration", *ESTIMATE_COLUMNS)]
    for column, (number, party) in enumerate((("1", "devices"), ("2", "server"))):
        field = f"{party.removesuffix('s')}_relative_change"
        for job, arrays in runs.items():
            change, alpha = arrays[field][0], step_ratio(job, party.removesuffix("s"))
            for row, step in enumerate((1.0, alpha)):
                curve = line(*_binned(change / step), arrays["unstable"].T)
                _draw(panels[row, column], job.scheme, curve, len(job.seeds))
                rows += _rows((number, job.scheme, "shrinking" if row == 0 else "first"), curve)
        for row, label in enumerate(("relative change", r"$\alpha_0 \Vert$gradient$\Vert / \Vert\theta\Vert$")):
            axes = panels[row, column]
            axes.set(yscale="log", ylabel=label, title=f"Algorithm {number} ({party})", ylim=(1e-6, 3))
            axes.axhline(TOLERANCE, color="0.3", linewidth=0.8, linestyle=":")
            block_axis(axes)
            axes.set_xlabel("iteration")
    _legend(figure, [panels[0, 0]], columns=3)
    return figure, rows


def _figure_7(runs: Runs, reading: str) -> FigureData:
    """Candidates left, baselines right, on the same logarithmic axis; thin: every replicate that is unstable."""
    notes = ("Thin: each unstable replicate by itself, whose waiting work grows without end.", DOTTED)
    figure, panels = _new_figure("Figure 7: cost per block over time, K = 20 devices", notes, runs, reading)
    rows: list[Row] = [("scheme", "block", *ESTIMATE_COLUMNS)]
    curves: dict[str, Line] = {}
    for axes, proposed in zip(panels[0], (True, False), strict=True):
        for job, arrays in runs.items():
            if (job.scheme in CANDIDATES) != proposed:
                continue
            unstable, (x, values) = arrays["unstable"][0], _binned(arrays["cost"][0])
            curve = curves[job.name] = line(x, values, unstable[:, None])
            _draw(axes, job.name, curve, len(job.seeds), ":" if job.scheme in BASELINES else "-")
            axes.plot(x, values[unstable].T, color=scheme_colour(job.name), linewidth=0.4, alpha=0.5, zorder=1.5)
            rows += _rows((job.name,), curve)
        axes.set(ylabel="cost per block", title=f"mean of {BIN} blocks")
        block_axis(axes)
    for axes in panels[0]:
        _fit_axis(axes, curves, len(next(iter(runs)).seeds))
    _legend(figure, list(panels[0]), columns=3)
    return figure, rows


def _figure_8_or_9(runs: Runs, reading: str) -> FigureData:
    """A panel for each phase, the axis logarithmic."""
    first = next(iter(runs))
    arrivals = first.figure == "8"
    title = "Figure 8: arrival probability, K = 50 devices" if arrivals else "Figure 9: number of devices"
    figure, panels = _new_figure(
        f"{title}, discounted sum of costs", ("Dashed: baselines.", DOTTED, MARKERS), runs, reading
    )
    axis = "arrival probability b" if arrivals else "number of devices K"
    rows: list[Row] = [("phase", "scheme", axis, *ESTIMATE_COLUMNS)]
    x = np.array(first.arrival_probs if arrivals else sorted({job.devices for job in runs}), np.float64)
    for axes, phase in zip(panels[0], PHASES, strict=True):
        curves = _curves(runs, x, phase)
        for name, curve in curves.items():
            _draw(
                axes, name, curve, len(first.seeds), ":" if name in BASELINES else "-" if name in CANDIDATES else "--"
            )
            rows += _rows((phase, name), curve)
        _fit_axis(axes, curves, len(first.seeds))
        axes.set(xlabel=axis, ylabel="discounted sum of costs", title=PHASE_NAMES[phase], xticks=x)
    _legend(figure, [panels[0, 0]], columns=5)
    return figure, rows


def _curves(runs: Runs, x: np.ndarray, phase: str) -> dict[str, Line]:
    """The curve of every scheme that was run; before training no replicate counts as unstable."""
    curves: dict[str, Line] = {}
    for name in dict.fromkeys(job.name for job in runs):
        own = sorted((job for job in runs if job.name == name), key=lambda job: job.devices)
        values, unstable = (np.concatenate([runs[job][key] for job in own]).T for key in (phase, "unstable"))
        curves[name] = line(x, values, unstable & (phase == PHASES[1]))
    return curves
