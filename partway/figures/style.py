"""The styles of figures, "screen" and "paper", and the names of schemes in them; their colours are in `colours`.

A style is one `Style` here. It is in force inside `figure_style`, as Matplotlib's own settings are; functions that draw
ask for what they need (`panel_height`, `display_label`, `colours.scheme_colour`) and know no style by name.
"""

import contextlib
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import matplotlib as mpl
from matplotlib.cbook import is_math_text
from matplotlib.mathtext import MathTextParser

from partway.arguments import choice
from partway.errors import InputError, nearest, shown
from partway.text_tables import LONGEST_NAME, shorten_name

StyleName = Literal["screen", "paper"]

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
"""Matplotlib's settings on the screen."""
PAPER_STYLE: dict[str, Any] = STYLE | {
    "font.family": ["STIXGeneral", "DejaVu Sans"],  # Times-like, comes with Matplotlib; the second has other scripts
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 8,
    "axes.titlecolor": "0",
    "axes.edgecolor": "0.2",
    "axes.linewidth": 0.6,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "xtick.color": "0.2",
    "ytick.color": "0.2",
    "xtick.labelcolor": "0",
    "ytick.labelcolor": "0",
    "legend.labelspacing": 0.3,
    "legend.columnspacing": 1.2,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType; publishers refuse Type 3, which is Matplotlib's default
    "savefig.dpi": 600,  # of the colour maps of `cut-map`, the only pixels
}
"""Matplotlib's settings for a paper: text as in IEEE's figures, at the size at which it is printed."""
MATHEMATICS = re.compile(r"(?<!\\)\$.+?(?<!\\)\$")
"""A formula in a label, as Matplotlib and LaTeX read it."""


@dataclass(frozen=True)
class Style:
    """A style of figures.

    settings       Matplotlib's
    files          what a figure is saved as: ending -> arguments of `savefig`
    titles         whether titles and notes stand in the figure; else they are its caption
    longest_name   characters to which longer names of schemes are shortened
    column_inch    width of a figure that takes one column of a page, or two; None: as wide as drawn
    height_factor  height of a panel against that on the screen, in a figure of one column, or two
    """

    settings: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    titles: bool = True
    column_inch: tuple[float, float] | None = None
    longest_name: int = LONGEST_NAME
    height_factor: tuple[float, float] = (1.0, 1.0)


STYLES: Mapping[StyleName, Style] = {
    "screen": Style(STYLE, {"png": {"pil_kwargs": {"compress_level": 3}}, "svg": {"metadata": {"Date": None}}}),
    "paper": Style(
        PAPER_STYLE, {"pdf": {"metadata": {"CreationDate": None}}}, False, (252 / 72.27, 516 / 72.27), 26, (0.58, 0.7)
    ),
}
"""Columns are those of IEEEtran, 252 and 516 of TeX's points. No file holds the time at which it was made."""


@dataclass(frozen=True)
class Look:
    """What a user chooses about figures. Raises InputError for an unknown style, and a label that cannot be drawn.

    style   "screen": PNG and SVG; "paper": also PDF in the width of a column, and captions
    labels  what is shown instead of the name of a scheme or of a sweep's axis; `$...$` is mathematics
    """

    style: StyleName = "screen"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Refuse before anything is computed what Matplotlib would refuse at its end."""
        choice("style", self.style, STYLES)
        labels: Any = self.labels
        if not isinstance(labels, Mapping):
            raise InputError(f"labels must be a mapping of names to texts, got {shown(labels)}")
        for name, label in cast(Mapping[Any, Any], labels).items():
            if not isinstance(label, str) or not label.strip() or not label.isprintable():
                raise InputError(f"label of {shown(name)}: must be text of one line, got {shown(label)}")
            try:
                if is_math_text(label):
                    MathTextParser("path").parse(label)
            except ValueError as error:
                why = str(error).splitlines()[-1]
                raise InputError(f"label of {shown(name)}: {shown(label)} is not valid mathematics: {why}") from None

    def check(self, names: Sequence[str]) -> None:
        """Raise InputError for a label whose name is not in the figures. names: of their schemes and axes."""
        for name in self.labels:
            if name not in names:
                raise InputError(f"label of {shown(name)}: no figure has this name{nearest(str(name), names)}")

    def styles(self) -> tuple[StyleName, ...]:
        """What is drawn: a paper's figures do not replace those that `partway view`, reports and people look at."""
        return ("screen",) if self.style == "screen" else ("screen", "paper")


@dataclass(frozen=True)
class InForce:
    """What `figure_style` was given."""

    style: StyleName = "screen"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    schemes: tuple[str, ...] = ()


_USUAL = InForce()
_IN_FORCE: ContextVar[InForce] = ContextVar("look of figures", default=_USUAL)


@contextlib.contextmanager
def figure_style(
    style: StyleName = "screen", labels: Mapping[str, str] | None = None, schemes: Sequence[str] = ()
) -> Generator[Style]:
    """A style and Matplotlib's defaults, whatever the user's own settings are; to create and to save figures in.

    schemes  that are drawn: those that are not shipped get colours that differ, in this order
    """
    token = _IN_FORCE.set(InForce(style, labels or {}, tuple(schemes)))
    settings: dict[Any, Any] = {**mpl.rcParamsDefault, **STYLES[style].settings}
    try:
        with mpl.rc_context(settings):
            yield STYLES[style]
    finally:
        _IN_FORCE.reset(token)


def in_force() -> InForce:
    """What the innermost `figure_style` was given."""
    return _IN_FORCE.get()


def current_style() -> Style:
    """The style in force."""
    return STYLES[_IN_FORCE.get().style]


def panel_height(inch: float, columns: int = 1) -> float:
    """The height of a panel that is so high on the screen [inch]. columns: as in `new_figure`"""
    return inch * current_style().height_factor[columns - 1]


def user_label(name: str) -> str | None:
    """The user's label of a scheme or an axis, if there is one."""
    return _IN_FORCE.get().labels.get(name)


def display_label(name: str) -> str:
    """The user's label of a scheme, or its name at the length that fits a figure."""
    return user_label(name) or shorten_name(name, current_style().longest_name)


def as_text(text: str) -> str:
    """Text for Matplotlib: dollar signs are mathematics only in the labels of the user."""
    return outside_mathematics(text, lambda rest: re.sub(r"(?<!\\)\$", r"\$", rest))


def outside_mathematics(text: str, change: Callable[[str], str]) -> str:
    """Text, changed everywhere except in the mathematics of the user's labels."""
    labels = [label for label in _IN_FORCE.get().labels.values() if is_math_text(label)]
    found = {re.escape(formula) for label in labels for formula in MATHEMATICS.findall(label)}
    if not found:
        return change(text)
    pieces = re.split(f"({'|'.join(sorted(found, key=len, reverse=True))})", text)
    return "".join(piece if i % 2 else change(piece) for i, piece in enumerate(pieces))
