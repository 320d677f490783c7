"""What all figures share: their look, the wording of titles, notes and axes, and the files they are saved in."""

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from partway.experiments.summary import UNSTABLE_MARK, UNSTABLE_NOTE, Summary
from partway.experiments.tidy import write_csv
from partway.figures.layout import LINE_HEIGHT, PAD, fit_margins
from partway.measurement.gap import COST_COMPONENTS
from partway.rng import stable_hash
from partway.text_tables import shorten_name

STYLE: dict[str, Any] = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],  # comes with Matplotlib; the usual list of others is searched for every text
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": "0.3",
    "axes.titley": 1.0,  # automatic positions measure every tick label again, each time a figure is drawn
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
    "figure.dpi": 150,  # as PNG files have: what is measured for the layout is then measured once
    "savefig.dpi": 150,
    "path.simplify_threshold": 0.25,  # [pixel]
    "text.hinting": "none",  # at this resolution the same to the eye, and a third faster
    "svg.fonttype": "none",  # text stays text: smaller files, and it can be searched
    "svg.hashsalt": "partway",
}
WIDTH = 8.0
"""Width of a figure [inch]."""
TITLE_COLUMNS, COLUMNS, NOTE_COLUMNS = 10.5, 14.5, 18.5
"""Characters per inch of the title, the subtitle and the notes."""
AXES_TEXT = 0.9
"""Height of tick labels, axis label, legend and the space around them [inch]."""
SCHEME_COLOURS = {
    "parametric-printed": "#1f6fc4",
    "parametric": "#f08a00",
    "qlearning": "#bd1f01",
    "qlearning-log": "#e58fb0",
    "binary": "#832db6",
    "even": "#8c6d4f",
    "random": "#b9ac70",
    "local": "#1a9c7b",
    "full": "#94a4a2",
    "myopic": "#d9a3ff",
    "drift": "#5fb3d9",
    "neurosurgeon": "#ffbe6f",
    "neurosurgeon-energy": "#7a8b2a",
    "dads": "#a8c95c",
    "ans": "#ff7a59",
    "coedge": "#6f7fd6",
    "iao": "#40c4b0",
    "decoupled": "#c77a9e",
    "priced": "#3f8f3f",
    "oracle": "#e4007c",
    "constant": "#5a5a5a",
    "binary-parametric": "#111111",
    "even-parametric": "#2f4b7c",
    "random-fixed": "#b08c00",
    "qlearning-designed": "#7d1f5c",
}
"""Colours of shipped schemes. Another that differs from these is #7fdbca."""
OTHER_COLOURS = ("#00b8d4", "#7cb518", "#5a3fd6", "#d6006e", "#5b6b00")
"""Colours of all other schemes; which one depends on the scheme's name alone. Two schemes may have the same."""
COMPONENT_DIMENSION = "component"
"""The dimension of a dataset that holds the cost components."""
COMPONENT_COLOURS: dict[str, str] = dict(
    zip(COST_COMPONENTS, ("#1b4f8a", "#8cb8e6", "#a8480a", "#f6b26b"), strict=True)
)
COMPONENT_NAMES = dict(
    zip(COST_COMPONENTS, ("server queue", "server energy", "device queues", "device energy"), strict=True)
)
COST_COLUMNS = ("cost [per block]", "95 % low [per block]", "95 % high [per block]")

Row = Sequence[str | float]
FigureData = tuple[Figure, list[Row]]
"""A figure and the numbers in it; the first row names the columns, with units."""


def figure_style() -> AbstractContextManager[None]:
    """Matplotlib's defaults and STYLE, whatever the user's own settings are; to create and to save figures in."""
    settings: dict[Any, Any] = {**mpl.rcParamsDefault, **STYLE}
    return mpl.rc_context(settings)


def save(folder: Path, name: str, data: FigureData) -> None:
    """Write NAME.png, NAME.svg, and NAME.csv with the numbers drawn."""
    figure, rows = data
    folder.mkdir(parents=True, exist_ok=True)
    fit_margins(figure)
    figure.savefig(folder / f"{name}.png", pil_kwargs={"compress_level": 3})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    write_csv(folder / f"{name}.csv", rows)


def new_figure(title: str, subtitle: str, notes: Sequence[str], height: float, width: float = WIDTH) -> Figure:
    """An empty figure with titles at its top and a line for each note at its bottom.

    height, width  of the panels together, and of the whole figure [inch]
    """
    titles = [_wrap(title, TITLE_COLUMNS * width), _wrap(subtitle, COLUMNS * width)]
    lines = [line for note in notes for line in _wrap(note, NOTE_COLUMNS * width)]
    text_height = LINE_HEIGHT * sum(map(len, (*titles, lines)))
    figure = Figure(figsize=(width, height + AXES_TEXT + text_height))
    styles: tuple[dict[str, Any], ...] = ({"fontsize": 10.5, "fontweight": "bold"}, {"color": "0.3"})
    for text, style in zip(titles, styles, strict=True):
        figure.text(PAD / width, 1.0, "\n".join(text), va="top", **style)
    if lines:
        notes_text = figure.text(PAD / width, 0.0, "\n".join(lines), va="bottom", fontsize=7.5, color="0.35")
        notes_text.set_linespacing(1.3)
    return figure


def _wrap(text: str, columns: float) -> list[str]:
    return textwrap.wrap(as_text(text), int(columns))


def run_title(dataset: xr.Dataset) -> str:
    """What was run: the scenario, and how many devices, blocks and seeds."""
    counts = ", ".join(
        f"{dataset.sizes[name]} {name}{'s' * (dataset.sizes[name] != 1)}" for name in ("device", "block", "seed")
    )
    server = dataset.attrs["server"]
    return f"{dataset.attrs['scenario_name']}: {counts}" + f", server of {server}" * bool(server)


def cost_note(dataset: xr.Dataset) -> str:
    """What the cost of a block is."""
    block = f"{short_number(dataset.attrs['block_s'])} s"
    return f"Cost per block ({block}), equation (8): weighted sum of queued work and energy, at server and devices."


def axis_label(dataset: xr.Dataset, name: str) -> str:
    """A variable's words and unit for an axis or a column: its long name up to the first comma."""
    words, unit = dataset[name].attrs["long_name"].split(",")[0], dataset[name].attrs["units"]
    return words if unit in ("1", words) else f"{words} [{unit}]"


def text_colour(background: Any) -> str:
    """Black or white, whichever has more contrast with a colour: at least 4.5 by WCAG 2, with every colour."""
    channels = np.array(to_rgb(background))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "0" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "1"


def mark_linear_part(axes: Axes, which: Literal["x", "y"], up_to: float) -> None:
    """Mark on an axis that is linear up to a value and logarithmic above where its scale changes."""
    style: dict[str, Any] = {"fontsize": 7, "color": "0.45", "zorder": 0.6}
    words = (("linear ", -1), (" logarithmic", 1))
    if which == "x":
        axes.axvline(up_to, color="0.7", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.6)
        for text, side in words:
            ha = "right" if side < 0 else "left"
            axes.text(up_to, 0.995, text, transform=axes.get_xaxis_transform(), ha=ha, va="top", **style)
        return
    axes.axhline(up_to, color="0.7", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.6)
    for text, side in words:
        va = "top" if side < 0 else "bottom"
        axes.text(0.995, up_to, text.strip(), transform=axes.get_yaxis_transform(), ha="right", va=va, **style)


def averaged_over(dataset: xr.Dataset) -> str:
    """Over which blocks means are taken."""
    return f"means after block {dataset.attrs['warmup']}" if dataset.attrs["warmup"] else "means of all blocks"


def unstable_note(summaries: Sequence[Summary]) -> str:
    """What UNSTABLE_MARK means, if any of these schemes has it."""
    has_mark = any(one.partly_unstable for one in summaries)
    return f"{UNSTABLE_MARK} {UNSTABLE_NOTE}" * has_mark


def as_text(text: str) -> str:
    """Names hold dollar signs that are no mathematics."""
    return text.replace("$", r"\$")


def short_number(value: float, _: object = None) -> str:
    """A number for an axis or a label; also a formatter for Matplotlib, which passes the position too."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"


def short_name(name: str) -> str:
    """The name of a scheme at the length that fits a figure."""
    return shorten_name(name)


def display_name(summary: Summary) -> str:
    """The scheme's name, with its status unless that is ok, or with UNSTABLE_MARK."""
    name = short_name(summary.name)
    if summary.status != "ok":
        return f"{name}, {summary.status.replace('_', ' ')}"
    return f"{name} {UNSTABLE_MARK}" if summary.partly_unstable else name


def scheme_colour(name: str) -> str:
    """A scheme's colour, the same in all figures and whatever other schemes there are."""
    return SCHEME_COLOURS.get(name) or OTHER_COLOURS[stable_hash(name) % len(OTHER_COLOURS)]


def spans_decade(values: np.ndarray) -> bool:
    """Whether the values are positive and the largest is more than ten times the smallest: use a logarithmic axis."""
    return len(values) > 0 and bool(values.min() > 0 and values.max() > 10 * values.min())


def log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """A logarithmic axis with ticks at powers of ten, and at 2 and 5 times them if there would be few."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    few = high < 1e3 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_minor_formatter(NullFormatter())
    if few:
        axis.set_major_formatter(short_number)
    else:
        axis.set_minor_locator(NullLocator())


def block_axis(axes: Axes, block_s: float | None = None) -> None:
    """A horizontal axis of blocks, with ticks at whole numbers."""
    axes.set_xlabel("block" if block_s is None else f"block ({short_number(block_s)} s each)")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 2.5, 5, 10)))


def show_message(axes: Axes, message: str) -> None:
    """A message where there is nothing to draw."""
    axes.text(0.5, 0.5, message, transform=axes.transAxes, ha="center", va="center", color="0.4")
    axes.set_yticks([])


def highest_shown(costs: np.ndarray) -> float:
    """The highest cost, or three times the median if a few schemes cost much more than most."""
    highest, median = costs.max(initial=0), np.median(costs) if len(costs) else 0.0
    return float(highest if highest <= 5 * median else 3 * median) or 1.0
