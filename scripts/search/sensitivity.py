"""Over what range of each parameter are the claims likely to hold? One parameter at a time, from the preset `paper`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from partway.figures.common import short_number
from partway.paper.search.score import needed
from partway.paper.search.space import OWN, OWN_STEPS, Setting, space
from search.data import DATA, preset_value, short_claim
from search.stages import Halving, Rung, Runner, halve

VALUES = 6
"""Of each parameter, from end to end of its range."""
COLUMNS = ("parameter", "value", "claim", "z of its weakest comparison")
COLOURS = LinearSegmentedColormap.from_list("against and for", ("#c0504d", "#f1ead2", "#3c8d5a"))
Row = tuple[str, str, str, float]


def varied(candidate: str) -> list[tuple[str, Any, Setting]]:
    """(parameter, value, setting) of everything that is measured; a baseline's own step needs OWN_STEPS."""
    known = space(candidate)
    preset = {name: preset_value(name) for name in known}
    made = list[tuple[str, Any, Setting]]()
    for name, one in known.items():
        own = {OWN_STEPS: True} if name in OWN else {}
        made += [(name, value, tuple({**preset, **own, name: value}.items())) for value in one.grid(VALUES)]
    return made


def plan(candidate: str) -> Halving:
    """One rung with everything, on all figures."""
    return Halving(("6", "7", "8", "9"), (Rung(len(varied(candidate)), 8),))


def measure(runner: Runner) -> list[Row]:
    """(parameter, value, claim, z of the claim's weakest comparison), one by one."""
    tried = varied(runner.candidate)
    distinct = list(dict.fromkeys(setting for _, _, setting in tried))
    found = {one.setting: one.weakest for one in halve(runner, distinct, plan(runner.candidate).rungs)}
    return [(name, str(value), claim, z) for name, value, one in tried for claim, z in found[one].items()]


def path_of(candidate: str) -> Path:
    """The file of a candidate."""
    return DATA / f"{candidate}-sensitivity.csv"


def write(candidate: str, rows: Sequence[Row]) -> Path:
    """Write the rows of `measure`."""
    path = path_of(candidate)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:3], f"{row[3]:.3g}") for row in rows)
    return path


def read(candidate: str) -> list[Row]:
    """The rows of `measure`, to the digits that were written."""
    with path_of(candidate).open(encoding="utf-8") as file:
        rows = ([row[name] for name in COLUMNS] for row in csv.DictReader(file))
        return [(name, value, claim, float(z)) for name, value, claim, z in rows]


def draw(rows: Sequence[Row]) -> Figure:
    """A panel for each parameter: a row for each claim, a column for each value."""
    names, claims = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[2] for row in rows))
    strength = {row[:3]: float(np.tanh(row[3] / needed())) for row in rows}
    sure, columns = float(np.tanh(1.0)), 5
    figure = Figure(figsize=(13, 2.9 * -(-len(names) // columns) + 0.7), layout="constrained")
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False)
    image: Any = None
    for axes, name in zip(panels.flat, names, strict=False):
        values = list(dict.fromkeys(row[1] for row in rows if row[0] == name))
        shades = np.array([[strength[name, value, claim] for value in values] for claim in claims])
        image = axes.imshow(shades, cmap=COLOURS, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        for row, column in np.argwhere(shades >= sure):
            axes.text(column, row, "●", color="white", ha="center", va="center", fontsize=6)
        axes.set_title(name.removeprefix("schemes."), fontsize=7)
        axes.set_xticks(range(len(values)), [tick(value) for value in values], rotation=45, ha="right")
        axes.set_yticks(range(len(claims)), [short_claim(claim) for claim in claims], fontsize=6)
        axes.grid(visible=False)
        if axes not in panels[:, 0]:
            axes.tick_params(labelleft=False)
    for axes in list(panels.flat)[len(names) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=panels, location="bottom", shrink=0.5, aspect=50)
    bar.set_label("a claim's weakest comparison, from surely against it to surely for it; ● likely to hold")
    return figure


def tick(value: str) -> str:
    """A value on an axis."""
    try:
        return short_number(float(value))
    except ValueError:
        return value
