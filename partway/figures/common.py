"""What all figures share: titles, notes and axes, and the files they are saved in."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from partway.experiments.summary import UNSTABLE_MARK, UNSTABLE_NOTE, Summary
from partway.experiments.tidy import write_csv
from partway.figures.captions import figure_float
from partway.figures.layout import PAD, PanelFigure, fit_margins
from partway.figures.style import Look, as_text, current_style, display_label, figure_style

WIDTH = 8.0
"""Width of a figure [inch]."""
TITLE_COLUMNS, COLUMNS, NOTE_COLUMNS = 10.5, 14.5, 18.5
"""Characters per inch of the title, the subtitle and the notes."""
COMPONENT_DIMENSION = "component"
"""The dimension of a dataset that holds the cost components."""
COST_NOTE = (
    "Cost per block: weighted sum of queued work and energy, at server and devices, equation (8) of arXiv 2203.01005."
)
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
COST_COLUMNS = ("cost [per block]", "95 % low [per block]", "95 % high [per block]")

Row = Sequence[str | float]
FigureData = tuple[PanelFigure, list[Row]]
"""A figure and the numbers in it; the first row names the columns, with units."""
FigureFunctions = Mapping[str, Callable[[], FigureData | None]]
"""What draws each figure, by its name; a figure that is None has nothing to show."""


def write_figures(folder: Path, draws: FigureFunctions, look: Look | None = None, schemes: Sequence[str] = ()) -> None:
    """Draw figures and save them; in the style "paper" also captions.tex, which has each of them as a LaTeX figure.

    schemes  as in `figure_style`
    """
    look = look or Look()
    for style in look.styles():
        floats = list[str]()
        with figure_style(style, look.labels, schemes) as settings:
            for name, draw in draws.items():
                if data := draw():
                    save(folder, name, data)
                    floats.append(figure_float(name, data[0]))
            if not settings.titles:
                (folder / "captions.tex").write_text("\n".join(floats), "utf-8")


def save(folder: Path, name: str, data: FigureData) -> None:
    """Write a figure as the files of the style in force, and NAME.csv with the numbers drawn, if there are any."""
    figure, rows = data
    folder.mkdir(parents=True, exist_ok=True)
    fit_margins(figure)
    for ending, how in current_style().files.items():
        figure.savefig(folder / f"{name}.{ending}", **how)
    if rows:
        write_csv(folder / f"{name}.csv", rows)


def new_figure(
    title: str, subtitle: str, notes: Sequence[str], height: float, width: float = WIDTH, columns: int = 1
) -> PanelFigure:
    """An empty figure with titles at its top and a line for each note at its bottom, or all of them as its caption.

    height, width  of the panels together, without the space between them, and of the whole figure on the screen [inch]
    columns        of a page that it takes in a paper: 1 or 2
    """
    style = current_style()
    caption = " ".join(map(_sentence, filter(None, (title, subtitle[:1].upper() + subtitle[1:], *notes))))
    figure = PanelFigure(style.column_inch[columns - 1] if style.column_inch else width, height, caption, columns)
    if not style.titles:
        return figure
    titles = [_wrap(title, TITLE_COLUMNS * width), _wrap(subtitle, COLUMNS * width)]
    lines = [line for note in notes for line in _wrap(note, NOTE_COLUMNS * width)]
    styles: tuple[dict[str, Any], ...] = ({"fontsize": 10.5, "fontweight": "bold"}, {"color": "0.3"})
    for text, how in zip(titles, styles, strict=True):
        figure.text(PAD / width, 1.0, "\n".join(text), va="top", **how)
    if lines:
        notes_text = figure.text(PAD / width, 0.0, "\n".join(lines), va="bottom", fontsize=7.5, color="0.35")
        notes_text.set_linespacing(1.3)
    return figure


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


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
    return COST_NOTE.replace("block", f"block ({short_number(dataset.attrs['block_s'])} s)", 1)


def axis_label(dataset: xr.Dataset, name: str) -> str:
    """A variable's words and unit for an axis or a column: its long name up to the first comma."""
    words, unit = dataset[name].attrs["long_name"].split(",")[0], dataset[name].attrs["units"]
    return words if unit in ("1", words) else f"{words} [{unit}]"


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


def short_number(value: float, _: object = None) -> str:
    """A number for an axis or a label; also a formatter for Matplotlib, which passes the position too."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"


def display_name(summary: Summary) -> str:
    """The scheme's name, with its status unless that is ok, or with UNSTABLE_MARK."""
    name = display_label(summary.name)
    if summary.status != "ok":
        return f"{name}, {summary.status.replace('_', ' ')}"
    return f"{name} {UNSTABLE_MARK}" if summary.partly_unstable else name


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
        axis.set_major_formatter(power_of_ten)
        axis.set_minor_locator(NullLocator())


def power_of_ten(value: float, _: object = None) -> str:
    """A power of ten for an axis; a formatter for Matplotlib, whose own takes long: it parses each one as a formula."""
    return "10" + str(round(np.log10(value))).translate(SUPERSCRIPTS)


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
