"""Figures 6 to 9 of the paper with its axes: means over replicates with their 95 % bands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from partway.experiments.statistics import Estimate, estimate
from partway.figures.style import STYLE, Drawn, Row, colour, count_blocks, log_axis, save
from partway.paper import proposition1
from partway.paper.claims import BASELINES, CANDIDATES, PHASES, READINGS, TOLERANCE
from partway.paper.figure_runs import Part
from partway.paper.reproduce import Findings
from partway.paper.verdicts import shrinking

SUFFIX = {"conserving": "", "as_printed": "-as-printed"}
READING_WORDS = {"conserving": "queue conserving work", "as_printed": "queue as (1) is printed"}
PHASE_WORDS = {"discounted_from_start": "from empty queues, nothing learned", "after_training": "after training"}
WIDE = 10.0
BIN = 20
"""Blocks that are averaged into one point of a curve."""
ESTIMATE_COLUMNS = ("mean", "95 % low", "95 % high", "median")
SIDES = ("left", "right", "right of the mean TD error", "right / (1 - gamma)")
"""Sides of (37) and (38): as printed, without the noise of single samples, and as large as a true bound can be."""


@dataclass(frozen=True)
class Line:
    """A curve with its band."""

    x: np.ndarray
    estimates: list[Estimate]
    medians: list[float]

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mean, low, high = np.array([(one.mean, one.low, one.high) for one in self.estimates]).T
        return mean, low, high


def write(findings: Findings, folder: Path) -> list[str]:
    """Write figure-6 ... figure-9 and proposition-1 as .png, .svg and .csv; returns their names."""
    names: list[str] = []
    with style.context(["default", STYLE]):
        for reading in READINGS:
            runs = {p: arrays for p, arrays in findings.figure_runs().items() if p.reading == reading}
            for number, draw in (("6", _figure_6), ("7", _figure_7), ("8", _over_points), ("9", _over_points)):
                own = {part: arrays for part, arrays in runs.items() if part.figure == number}
                names.append(f"figure-{number}{SUFFIX[reading]}")
                save(folder, names[-1], draw(own, reading))
        names.append("proposition-1")
        save(folder, names[-1], _proposition(findings))
    return names


def line(x: np.ndarray, values: np.ndarray) -> Line:
    """From (replicates, points)."""
    found = [np.asarray(column, np.float64) for column in values.T]
    return Line(x, [estimate(column) for column in found], [float(np.median(column)) for column in found])


def _sheet(title: str, part: Part, reading: str, rows: int = 1) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDE, 0.8 + 3.4 * rows))
    text = f"{title} ({READING_WORDS[reading]}, {len(part.seeds)} replicates)"
    figure.suptitle(text, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    return figure, figure.subplots(rows, 2, squeeze=False)


def _draw(axes: Axes, name: str, drawn: Line, dashes: str = "-") -> None:
    mean, low, high = drawn.columns()
    tint = colour(name)
    marker = "" if len(mean) > 20 else "o"
    axes.plot(drawn.x, mean, dashes, color=tint, linewidth=1.3, label=name, marker=marker)
    axes.fill_between(drawn.x, np.maximum(low, 1e-300), high, color=tint, alpha=0.15, linewidth=0)


def _rows(key: Sequence[str | float], drawn: Line) -> list[Row]:
    return [
        (*key, float(x), one.mean, one.low, one.high, median)
        for x, one, median in zip(drawn.x, drawn.estimates, drawn.medians, strict=True)
    ]


def _binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(middle of each bin, (replicates, bins)) of (replicates, blocks)."""
    count = values.shape[1] // BIN
    bins = values[:, : count * BIN].reshape(len(values), count, BIN).mean(axis=-1, dtype=np.float64)
    return (np.arange(count) + 0.5) * BIN, bins


def _figure_6(runs: Mapping[Part, Mapping[str, np.ndarray]], reading: str) -> Drawn:
    """The relative change, which is alpha_t ||gradient|| / ||theta||, and what it is without the shrinking step."""
    figure, panels = _sheet("Figure 6: convergence, K = 4", next(iter(runs)), reading, rows=2)
    rows: list[Row] = [("algorithm", "scheme", "step", "iteration", *ESTIMATE_COLUMNS)]
    for column, (number, field) in enumerate((("1", "device_relative_change"), ("2", "server_relative_change"))):
        for part, arrays in runs.items():
            change, alpha = arrays[field][0], shrinking(part)
            for row, step in enumerate((1.0, alpha)):
                drawn = line(*_binned(change / step))
                _draw(panels[row, column], part.scheme, drawn)
                rows += _rows((number, part.scheme, "shrinking" if row == 0 else "as at first"), drawn)
        for row, words in enumerate(("relative change", r"$\alpha_0 \Vert$gradient$\Vert / \Vert\theta\Vert$")):
            axes = panels[row, column]
            axes.set(yscale="log", xlabel="iteration", ylabel=words, title=f"Algorithm {number}", ylim=(1e-6, 3))
            axes.axhline(TOLERANCE, color="0.3", linewidth=0.8, linestyle=":")
            count_blocks(axes)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=6)
    return figure, rows


def _figure_7(runs: Mapping[Part, Mapping[str, np.ndarray]], reading: str) -> Drawn:
    """Candidates left, baselines right, on the same logarithmic axis."""
    figure, panels = _sheet("Figure 7: cost per block over time, K = 20", next(iter(runs)), reading)
    rows: list[Row] = [("scheme", "block", *ESTIMATE_COLUMNS)]
    shown: list[float] = []
    for axes, names in zip(panels[0], (CANDIDATES, BASELINES), strict=True):
        for part, arrays in runs.items():
            if part.scheme not in names:
                continue
            drawn = line(*_binned(arrays["cost"][0]))
            _draw(axes, part.scheme, drawn)
            shown += [one.mean for one in drawn.estimates if np.isfinite(one.mean)]
            rows += _rows((part.scheme,), drawn)
        axes.set(xlabel="block", ylabel="cost per block", title="mean of 20 blocks, with its 95 % band")
        axes.legend()
        count_blocks(axes)
    for axes in panels[0]:
        log_axis(axes, "y", min(shown) / 1.3, max(shown) * 1.5)
    return figure, rows


def _over_points(runs: Mapping[Part, Mapping[str, np.ndarray]], reading: str) -> Drawn:
    """Figures 8 and 9: a panel for each phase, the axis logarithmic."""
    first = next(iter(runs))
    eighth = first.figure == "8"
    title = "Figure 8: arrivals, K = 50" if eighth else "Figure 9: number of devices"
    figure, panels = _sheet(f"{title}, discounted sum cost", first, reading)
    axis = "arrival probability b" if eighth else "number of devices K"
    rows: list[Row] = [("phase", "scheme", axis, *ESTIMATE_COLUMNS)]
    fleets = sorted({part.devices for part in runs})
    x = np.array(first.arrival_probs if eighth else fleets, np.float64)
    for axes, phase in zip(panels[0], PHASES, strict=True):
        for name in (*CANDIDATES, *BASELINES):
            own = sorted((p for p in runs if p.scheme == name), key=lambda part: part.devices)
            if not own:
                continue
            drawn = line(x, np.concatenate([runs[part][phase] for part in own]).T)
            _draw(axes, name, drawn, "--" if name in BASELINES else "-")
            rows += _rows((phase, name), drawn)
        shown = np.array([row[3] for row in rows[1:] if row[0] == phase], np.float64)
        log_axis(axes, "y", shown.min() / 1.3, shown.max() * 1.5)
        axes.set(xlabel=axis, ylabel="discounted sum cost", title=PHASE_WORDS[phase], xticks=x)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=8)
    return figure, rows


def _proposition(findings: Findings) -> Drawn:
    """Both sides of (37) and (38) for `exact` and `printed` against the discount, at the last checkpoint."""
    figure = Figure(figsize=(WIDE, 4.4))
    panels = figure.subplots(1, 2)
    figure.suptitle("Proposition 1: both sides, conserving queue", x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    rows: list[Row] = [("reading", "scheme", "side of", "gamma", "block", *SIDES)]
    runs: dict[Any, Any] = {part: arrays for part, arrays in findings.runs.items() if part.figure == "P1"}
    for part, arrays in runs.items():
        found = proposition1.bounds(arrays)
        for axes, (party, number) in zip(panels, proposition1.PARTIES.items(), strict=True):
            table = np.array([_sides(one, party) for one in found])  # (discounts, sides, checkpoints)
            rows += [
                (part.reading, part.scheme, number, one.discount, block, *table[i, :, j].tolist())
                for i, one in enumerate(found)
                for j, block in enumerate(part.checkpoints)
            ]
            if part.reading == READINGS[0]:
                x = [1.0 / (1.0 - one.discount) for one in found]
                for side, dashes in ((0, "-"), (1, "--"), (3, ":")):
                    label = f"{part.scheme}: {SIDES[side]}"
                    axes.plot(x, table[:, side, -1], dashes, color=colour(part.scheme), marker="o", label=label)
            axes.set(xscale="log", yscale="log", xlabel="1 / (1 - gamma)", title=number, ylabel="squared error")
            axes.set_xticks([10, 20, 100, 1000], ["10", "20", "100", "1000"])
            axes.minorticks_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure, rows


def _sides(one: proposition1.Bounds, party: str) -> list[np.ndarray]:
    """Medians of replicates (sides, checkpoints)."""
    right, clean = one.right(party), one.residual[party] / (1.0 - one.discount)
    return [np.median(side, axis=-1) for side in (one.left[party], right, clean, one.certain(party))]
