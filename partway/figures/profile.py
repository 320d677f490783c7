"""A profile told: the table of its cuts, plain sentences on what they are worth, the figure bits against work."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, PercentFormatter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from partway.dnn.profile import Profile

EVERY, WORTH, LAW = "#9aa5b1", "#0b6e99", "#c8553d"
"""Colours of the figure: all cuts, those worth having, the paper's law."""
NAMED = 5
"""The figure names that many cuts: those that save most against the one before."""


def report(profile: Profile, tensor_dtype: str, console: Console, seconds: np.ndarray | None = None) -> None:
    """Print the table of cuts and what it says.

    coding   "fp32", "fp16" or "uint8"
    seconds  [s] (cuts,) time of the work between each cut and the one before, as `measure` gives it
    """
    console.print(_table(profile, tensor_dtype, seconds))
    for sentence in sentences(profile, tensor_dtype):
        console.print(Text(sentence))


def _table(profile: Profile, tensor_dtype: str, seconds: np.ndarray | None) -> Table:
    """One row per cut; a cut that differs from the row above neither in work nor in bits has none."""
    bits, share, pareto_optimal = profile.bits(tensor_dtype), profile.share(), profile.pareto_optimal(tensor_dtype)
    table = Table(
        title=f"{profile.name}: cuts, tensors sent as {tensor_dtype}", title_justify="left", title_style="bold"
    )
    table.add_column("cut", justify="right")
    table.add_column("after", overflow="ellipsis", no_wrap=True, max_width=44)
    timed = () if seconds is None else ("since above [ms]", "time done [ms]")
    for head in ("work done [M MAC]", "work left", "sends [kbit]", *timed):
        table.add_column(head, justify="right")
    table.add_column("pareto_optimal")
    elapsed = None if seconds is None else np.cumsum(seconds)
    before = 0.0
    for i in _distinct(profile, tensor_dtype):
        cells = [f"{profile.cuts[i].macs / 1e6:,.1f}", f"{share[i]:.1%}", f"{bits[i] / 1e3:,.2f}"]
        if elapsed is not None:
            cells += [f"{1e3 * (elapsed[i] - before):.3f}", f"{1e3 * elapsed[i]:.3f}"]
            before = elapsed[i]
        # Text, not markup: a tensor's name may hold brackets
        row = [str(i), profile.cuts[i].after, *cells, "yes" if pareto_optimal[i] else ""]
        table.add_row(*map(Text, row), style="bold" if pareto_optimal[i] else "dim")
    return table


def _distinct(profile: Profile, tensor_dtype: str) -> list[int]:
    """Cuts that differ from the one before in work or bits, and the output."""
    macs, bits = [cut.macs for cut in profile.cuts], profile.bits(tensor_dtype)
    last = len(macs) - 1
    return [i for i in range(last + 1) if i in (0, last) or macs[i] != macs[i - 1] or bits[i] != bits[i - 1]]


def sentences(profile: Profile, tensor_dtype: str) -> list[str]:
    """What the table says: size of the network, rows left out, cuts worth having, distance from the paper's law."""
    bits, share = profile.bits(tensor_dtype), profile.share()
    shape = "x".join(str(size) for size in profile.input_shape)
    said = [f"{profile.name} ({profile.source}): input {shape}, {profile.macs / 1e6:,.1f} M multiply-accumulates."]
    hidden = len(profile.cuts) - len(_distinct(profile, tensor_dtype))
    if hidden:
        said.append(f"Left out: {hidden} of {len(profile.cuts)} cuts, with the work and the bits of the row above.")
    inner = [i for i in np.flatnonzero(profile.pareto_optimal(tensor_dtype)) if 0 < i < len(profile.cuts) - 1]
    told = ", ".join(
        f"{i} ({100 * (1 - share[i]):.4g} % of the work done, {_times(bits[0] / bits[i])} fewer bits)" for i in inner
    )
    if inner:
        said.append(f"Worth having (fewer bits than the input and than every earlier cut), beside both ends: {told}.")
    else:
        said.append("No cut inside sends fewer bits than the input: send the input, or compute everything here.")
    fit = profile.proportionality(tensor_dtype)
    said.append(
        f"The paper's law, bits in proportion to the work left, fits with R^2 = {fit:.2f} "
        "(1: exactly; below 0: worse than one number for all cuts)."
    )
    return said


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def draw(profile: Profile, tensor_dtype: str) -> Figure:
    """Bits to send (log axis) against the share of the work done before the cut, with the proportional law."""
    done, bits, pareto_optimal = 1.0 - profile.share(), profile.bits(tensor_dtype), profile.pareto_optimal(tensor_dtype)
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(done[:-1], bits[:-1], "-o", color=EVERY, lw=0.8, ms=3.5, label="all cuts")
    line = np.linspace(0.0, 0.995, 400)
    fit = profile.proportionality(tensor_dtype)
    law = profile.law_slope(tensor_dtype) * (1.0 - line)
    axes.plot(line, law, "--", color=LAW, lw=1.4, label=f"the paper's law, best fit: R² = {fit:.2f}")
    chosen = np.flatnonzero(pareto_optimal)[:-1]
    axes.step(done[chosen], bits[chosen], where="post", color=WORTH, lw=1.2, alpha=0.5)
    axes.plot(done[chosen], bits[chosen], "o", color=WORTH, ms=7, mec="white", mew=0.8, label="worth having")
    axes.plot(1.0, 0.0, "v", color=WORTH, ms=8, clip_on=False, transform=axes.get_xaxis_transform())
    axes.set_yscale("log")
    axes.set_ylim(bits[:-1].min() / 4.0, bits.max() * 2.0)
    _name(axes, profile, tensor_dtype, chosen)
    _dress(axes, f"{profile.name}: bits to send at each cut, {tensor_dtype}")
    return figure


def _name(axes: Axes, profile: Profile, tensor_dtype: str, chosen: np.ndarray) -> None:
    """Write the number of a cut beside its point, for those that save most against the one before."""
    bits, done = profile.bits(tensor_dtype), 1.0 - profile.share()
    style: dict[str, Any] = {
        "fontsize": 9,
        "color": WORTH,
        "path_effects": [withStroke(linewidth=2.5, foreground="white")],
    }
    saving = bits[chosen[:-1]] / bits[chosen[1:]]
    for i in (0, *chosen[1:][np.argsort(-saving)[:NAMED]]):
        # below and left of such a point there is nothing else: all earlier cuts send more
        label, place, side = ("input", (-7, -3), "right") if i == 0 else (str(i), (-6, -11), "right")
        axes.annotate(label, (done[i], bits[i]), place, textcoords="offset points", ha=side, **style)
    floor = axes.get_xaxis_transform()
    axes.annotate(
        "output: nothing sent", (1.0, 0.0), (-8, 3), xycoords=floor, textcoords="offset points", ha="right", **style
    )


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("work done before the cut")
    axes.set_xlim(-0.07, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(EngFormatter("bit"))
    axes.grid(which="major", color="#e6e9ed", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="best")
