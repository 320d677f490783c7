"""The bits to send at every cut of a network against the work done before it, and the proportional law."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, PercentFormatter

from partway.dnn.profile import Profile
from partway.figures.common import new_figure, write_figures
from partway.figures.layout import PanelFigure
from partway.figures.style import Look, panel_height

CUT_COLOUR, PARETO_COLOUR, LAW_COLOUR = "#9aa5b1", "#0b6e99", "#c8553d"
MAX_LABELS = 5
"""Number of Pareto-optimal cuts that are labelled: those that reduce the bits most against the one before."""


def write(profile: Profile, tensor_dtype: str, folder: Path, look: Look | None = None) -> None:
    """Write the figure as files that have the name of the profile."""
    write_figures(folder, {profile.name: lambda: (draw(profile, tensor_dtype), [])}, look)


def draw(profile: Profile, tensor_dtype: str) -> PanelFigure:
    """The figure of a profile whose tensors are sent as `tensor_dtype`; the bits have a logarithmic axis."""
    done, bits = 1.0 - profile.share(), profile.bits(tensor_dtype)
    title = f"{profile.name}: bits to send at each cut, tensors sent as {tensor_dtype}"
    figure = new_figure(title, "", (), panel_height(3.8))
    axes = figure.subplots()
    axes.plot(done[:-1], bits[:-1], "-o", color=CUT_COLOUR, lw=0.8, ms=3.5, label="all cuts")
    _draw_law(axes, profile, tensor_dtype)
    pareto = np.flatnonzero(profile.pareto_optimal(tensor_dtype))[:-1]
    front = axes.step(
        done[pareto], bits[pareto], "-o", where="post", color=PARETO_COLOUR, lw=1.0, label="Pareto-optimal"
    )
    front[0].set(markersize=7, markeredgecolor="white", markeredgewidth=0.8)
    axes.plot(1.0, 0.0, "v", color=PARETO_COLOUR, ms=8, clip_on=False, transform=axes.get_xaxis_transform())
    axes.set_yscale("log")
    axes.set_ylim(bits[:-1].min() / 4.0, bits.max() * 2.0)
    _label_cuts(axes, done, bits, pareto)
    _dress(axes)
    return figure


def _draw_law(axes: Axes, profile: Profile, tensor_dtype: str) -> None:
    """The proportional law that fits the cuts best; it ends just before 1, where a logarithmic axis has no 0."""
    done, fit = np.linspace(0.0, 0.995, 400), profile.proportionality(tensor_dtype)
    law = profile.law_slope(tensor_dtype) * (1.0 - done)
    axes.plot(done, law, "--", color=LAW_COLOUR, lw=1.4, label=f"proportional law, best fit: R² = {fit:.2f}")


def _label_cuts(axes: Axes, done: np.ndarray, bits: np.ndarray, pareto: np.ndarray) -> None:
    """The number of a cut beside its point, for those that reduce the bits most against the one before."""
    style: dict[str, Any] = {
        "color": PARETO_COLOUR,
        "textcoords": "offset points",
        "ha": "right",
        "path_effects": [withStroke(linewidth=2.5, foreground="white")],
    }
    axes.annotate("input", (done[0], bits[0]), (-7, -3), **style)
    before = np.concatenate([bits[:1], bits[pareto[:-1]]])
    by_reduction = pareto[np.argsort(-before / bits[pareto], kind="stable")]
    for i in by_reduction[by_reduction > 0][:MAX_LABELS]:
        # the area below and left of a Pareto-optimal cut is empty
        axes.annotate(f"cut {i}", (done[i], bits[i]), (-6, -11), **style)
    axes.annotate("output: nothing to send", (1.0, 0.0), (-8, 3), xycoords=axes.get_xaxis_transform(), **style)


def _dress(axes: Axes) -> None:
    axes.set_xlabel("work done before the cut (share of the multiply-accumulates)")
    axes.set_ylabel("data to send")
    axes.set_xlim(-0.12, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.yaxis.set_major_formatter(EngFormatter("bit"))
    axes.legend(loc="best")
