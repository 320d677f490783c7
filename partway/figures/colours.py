"""The colour, marker and line of every scheme in each style of figures, and the colours of the parts of the cost."""

from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from partway.figures.style import in_force
from partway.measurement.gap import COST_COMPONENTS
from partway.rng import stable_hash

COMPONENT_COLOURS: dict[str, str] = dict(
    zip(COST_COMPONENTS, ("#0f2f57", "#6a9fd8", "#a8480a", "#f6b26b"), strict=True)
)
"""Blue at the server, brown at the devices; printed in grey they differ as well."""
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
"""Colours of shipped schemes on the screen. Another that differs from these is #7fdbca."""
OTHER_COLOURS = ("#00b8d4", "#7cb518", "#5a3fd6", "#d6006e", "#5b6b00")
"""Colours of all other schemes on the screen; if a run has more of them than that, some are used twice."""
PAPER_COLOURS = ("#0072b2", "#000000", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of Okabe and Ito, which people with any colour vision can tell apart; their vermilion is kept for others."""
PAPER_OTHER_COLOURS = ("#d55e00", "#882255", "#999933", "#332288", "#44aa99")
PAPER_MARKERS, PAPER_OTHER_MARKERS = ("o", "s", "^", "D", "v", "<"), ("X", "P", "*", "h", ">")
PAPER_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKS = 8
"""Markers on a line of many points."""
PAPER_ORDER = (
    *("priced", "constant", "local", "parametric", "qlearning", "oracle"),
    *("binary", "parametric-printed", "qlearning-designed", "even", "decoupled", "random"),
    *("full", "myopic", "binary-parametric", "even-parametric", "random-fixed", "qlearning-log"),
    *("drift", "neurosurgeon", "neurosurgeon-energy", "dads", "ans", "coedge"),
    *("iao",),
)
"""Shipped schemes; all that stand in one line differ in colour and marker, and each line has its own dashes."""


def scheme_colour(name: str) -> str:
    """A scheme's colour. Shipped schemes have the same in all figures of a style, whatever other schemes there are."""
    if in_force().style == "screen":
        return SCHEME_COLOURS.get(name) or OTHER_COLOURS[_other(name) % len(OTHER_COLOURS)]
    return _paper_look(name)[0]


def scheme_marker(name: str) -> str:
    """A scheme's marker: on the screen, where colours do, the same for all."""
    return "o" if in_force().style == "screen" else _paper_look(name)[1]


def scheme_dashes(name: str) -> Any:
    """The line of a scheme in figures in which dashes have no other meaning."""
    return "-" if in_force().style == "screen" else _paper_look(name)[2]


def mark_line(line: Line2D, marker: str) -> None:
    """Put a few markers on a line of many points; none on the screen, where colours do."""
    if in_force().style == "paper":
        line.set(marker=marker, markevery=max(1, len(np.asarray(line.get_xdata())) // MARKS), markersize=3.5)


def _paper_look(name: str) -> tuple[str, str, Any]:
    """Colour, marker and dashes: no two shipped schemes have the same colour and marker, or marker and dashes."""
    if name not in PAPER_ORDER:
        i = _other(name) % len(PAPER_OTHER_COLOURS)
        return PAPER_OTHER_COLOURS[i], PAPER_OTHER_MARKERS[i], "-"
    line, place = divmod(PAPER_ORDER.index(name), len(PAPER_COLOURS))
    return PAPER_COLOURS[place], PAPER_MARKERS[(place + line) % len(PAPER_MARKERS)], PAPER_DASHES[line]


def _other(name: str) -> int:
    others = [drawn for drawn in in_force().schemes if drawn not in SCHEME_COLOURS]
    return others.index(name) if name in others else stable_hash(name)


def text_colour(background: Any) -> str:
    """Black or white, whichever has more contrast with a colour: at least 4.5 by WCAG 2, with every colour."""
    channels = np.array(to_rgb(background))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "0" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "1"
