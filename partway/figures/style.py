"""What all figures share: their look, the words and scales on their axes, and the files they become."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from partway.experiments.summary import COST_COMPONENTS, Summary
from partway.rng import stable_hash
from partway.schemes import SCHEMES

STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": "0.3",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.5",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": "0.92",
    "xtick.color": "0.5",
    "ytick.color": "0.5",
    "xtick.labelcolor": "0.2",
    "ytick.labelcolor": "0.2",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "partway",
}
WIDTH = 8.0
LINE = 0.16
"""Height of a line of text [inch]."""
PALETTE = (
    *("#1f6fc4", "#f08a00", "#bd1f01", "#e58fb0", "#832db6", "#8c6d4f", "#b9ac70", "#1a9c7b", "#94a4a2", "#d9a3ff"),
    *("#5fb3d9", "#ffbe6f", "#7a8b2a", "#a8c95c", "#ff7a59", "#6f7fd6", "#40c4b0", "#c77a9e", "#3f8f3f", "#e4007c"),
    *("#5a5a5a", "#111111"),
)
"""The shipped schemes in their order; a scheme from outside has a colour of FOREIGN that depends on its name alone."""
FOREIGN = ("#00b8d4", "#7cb518", "#5a3fd6", "#d6006e", "#5b6b00")
COMPONENT_COLOURS = dict(zip(COST_COMPONENTS, ("#1b4f8a", "#8cb8e6", "#a8480a", "#f6b26b"), strict=True))
COMPONENT_NAMES = dict(
    zip(COST_COMPONENTS, ("server waiting", "server energy", "device waiting", "device energy"), strict=True)
)
MARK = "†"
LONGEST_NAME = 30
COST_COLUMNS = ("cost [per block]", "95 % low [per block]", "95 % high [per block]")

Row = Sequence[str | float]
Drawn = tuple[Figure, list[Row]]
"""A figure and the numbers in it; the first row names them, with units."""


def colour(scheme: str) -> str:
    """A scheme's colour, the same whatever it is compared with."""
    shipped = dict(zip(SCHEMES, PALETTE, strict=False))
    return shipped.get(scheme, FOREIGN[stable_hash(scheme) % len(FOREIGN)])


def save(folder: Path, name: str, drawn: Drawn) -> None:
    """Write NAME.png, NAME.svg, and NAME.csv with the numbers drawn."""
    figure, rows = drawn
    folder.mkdir(parents=True, exist_ok=True)
    ConstrainedLayoutEngine().execute(figure)  # once, not once for each format
    figure.savefig(folder / f"{name}.png")
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        blanked = [["" if value != value else value for value in row] for row in rows]  # NaN: there is no such number
        csv.writer(file, lineterminator="\n").writerows(blanked)


def new_figure(dataset: xr.Dataset, height: float, width: float = WIDTH, more: str = "") -> Figure:
    """An empty figure whose title says what was run."""
    figure, sizes, server = Figure(figsize=(width, height)), dataset.sizes, dataset.attrs["server"]
    name = str(dataset.attrs["scenario_name"]).replace("$", r"\$")  # a file's name, not mathematics
    counts = ", ".join(f"{sizes[of]} {of}{'s' * (sizes[of] != 1)}" for of in ("device", "block", "seed"))
    title = f"{name}: {counts}" + f", server of {server}" * bool(server) + more
    figure.suptitle(title, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def short_number(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"


def short_name(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def shown_name(one: Summary) -> str:
    """The name, with its status, or with a mark where seeds disagree about it."""
    name = short_name(one.name)
    if one.status != "ok":
        return f"{name}, {one.status.replace('_', ' ')}"
    return f"{name} {MARK}" if one.reason else name


def marked(text: str, summaries: Sequence[Summary]) -> str:
    """`text`, and what the mark means if any scheme bears it."""
    borne = any(one.status == "ok" and one.reason for one in summaries)
    return text + f"\n{MARK} unstable in some seeds: its mean depends on the length of the run" * borne


def after_warmup(dataset: xr.Dataset) -> str:
    return f"means after block {dataset.attrs['warmup']}" if dataset.attrs["warmup"] else "means of all blocks"


def wide(values: np.ndarray) -> bool:
    """Whether the values are positive and span more than a factor of ten."""
    return len(values) > 0 and bool(values.min() > 0 and values.max() > 10 * values.min())


def log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Ticks at powers of ten, and at 2 and 5 times them where there would be few."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    few = high < 1e3 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_minor_formatter(NullFormatter())
    if few:
        axis.set_major_formatter(short_number)
    else:
        axis.set_minor_locator(NullLocator())


def count_blocks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 2.5, 5, 10)))


def label_points(axes: Axes, labels: Sequence[tuple[str, float, float, str]]) -> None:
    """(text, x, y, colour) in a column at the right, each tied to its point, none over another."""
    ordered = sorted(labels, key=lambda one: one[2])
    axes.autoscale_view()  # limits are otherwise found later, when it is drawn
    to_axes = axes.transScale + axes.transLimits
    wanted = np.array([to_axes.transform((x, y))[1] for _, x, y, _ in ordered])
    steps = np.arange(len(ordered)) * LINE / (axes.figure.bbox.height / axes.figure.dpi - 1.2)
    up = np.maximum.accumulate(wanted - steps)
    down = np.minimum.accumulate((wanted - steps)[::-1])[::-1]
    places = np.clip((up + down) / 2 + steps, steps, 1 - steps[::-1])
    for (text, x, y, tint), place in zip(ordered, places.tolist(), strict=True):
        line = {"arrowstyle": "-", "color": tint, "linewidth": 0.9, "relpos": (0, 0.5), "shrinkB": 0}
        axes.annotate(
            text, (x, y), (1.04, place), textcoords="axes fraction", va="center", arrowprops=line, annotation_clip=False
        )


def say_instead(axes: Axes, words: str) -> None:
    """Words where there is nothing to draw."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color="0.4")
    axes.set_yticks([])


def highest_shown(costs: np.ndarray) -> float:
    """The highest cost, or three times the median if a few schemes cost much more than most."""
    highest, middle = costs.max(initial=0), np.median(costs) if len(costs) else 0.0
    return float(highest if highest <= 5 * middle else 3 * middle) or 1.0
