"""Over what range of each unpublished parameter does each claim of section VI hold? One parameter at a time.

Every other parameter is as in the preset `paper`; seeds, placements and sizes are those of the search of `make fit`.
Writes docs/img/sensitivity-SCHEME.png and .svg, docs/data/sensitivity-SCHEME.csv and a few lines of docs/paper.md.

make sensitivity
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from fit_paper import CANDIDATES, DATA, POINTS, ROOT, evaluate, share_for, space
from matplotlib import style
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from pages import paragraph, write_section

from partway.figures.look import STYLE
from partway.figures.style import short_number
from partway.scenario.loading import load

SHARE = "share of comparisons for it"
VALUES = 6
"""Of each parameter, from end to end of its range."""
COLOURS = LinearSegmentedColormap.from_list("for and against", ("#c0504d", "#f1ead2", "#3c8d5a"))
PHASES = {"": "", "from_start": " empty", "after_training": " trained"}


def measure(candidate: str) -> list[tuple[str, float, str, float]]:
    """(parameter, value, claim, share of its comparisons that support it), one by one."""
    rows: list[tuple[str, float, str, float]] = []
    for name, one in space(candidate).items():
        for value in one.grid(VALUES):
            for verdicts in evaluate(candidate, load("paper", {name: value})):
                rows.append((name, value, f"{verdicts.claim}{PHASES[verdicts.phase]}", share_for(verdicts)))
            print(candidate, name, value, file=sys.stderr, flush=True)
    return rows


def draw(candidate: str, rows: list[tuple[str, float, str, float]]) -> Figure:
    """A panel for each parameter: a row for each claim, a column for each value."""
    names, claims = list(dict.fromkeys(row[0] for row in rows)), list(dict.fromkeys(row[2] for row in rows))
    columns = 4
    figure = Figure(figsize=(11, 2.9 * -(-len(names) // columns) + 0.7), layout="constrained")
    figure.suptitle(f"Which claims hold, with {candidate} as the proposed scheme: one parameter changed at a time")
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False)
    image: Any = None
    for axes, name in zip(panels.flat, names, strict=False):
        own = [row for row in rows if row[0] == name]
        values = list(dict.fromkeys(row[1] for row in own))
        shares = np.array([[next(r[3] for r in own if r[1:3] == (v, c)) for v in values] for c in claims])
        image = axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
        for row, column in np.argwhere(shares == 1):
            axes.text(column, row, "●", color="white", ha="center", va="center", fontsize=6)
        axes.set_title(name.removeprefix("schemes."))
        axes.set_xticks(range(len(values)), [short_number(value) for value in values], rotation=45, ha="right")
        axes.set_yticks(range(len(claims)), claims, fontsize=7)
        axes.grid(visible=False)
        if axes not in panels[:, 0]:
            axes.tick_params(labelleft=False)
    for axes in list(panels.flat)[len(names) :]:
        axes.set_visible(False)
    words = (
        "share of a claim's comparisons that support it in the mean of the replicates; ● all of them: the claim holds"
    )
    figure.colorbar(image, ax=panels, location="bottom", shrink=0.5, aspect=50, label=words)
    return figure


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description="over what range of each parameter each claim holds")
    parser.add_argument("candidates", nargs="*", metavar="SCHEME", help=f"to measure; default: {' '.join(CANDIDATES)}")
    parser.add_argument("--page", action="store_true", help="measure nothing; draw and write the data that is there")
    options = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    for candidate in () if options.page else options.candidates or CANDIDATES:
        rows = measure(candidate)
        with data_file(candidate).open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("parameter", "value", "claim", SHARE))
            writer.writerows(rows)
    for candidate in CANDIDATES:
        with style.context(["default", STYLE]):
            figure = draw(candidate, measured(candidate))
            for kind in ("png", "svg"):
                figure.savefig(ROOT / "docs" / "img" / f"sensitivity-{candidate}.{kind}")
    write_section(ROOT / "docs" / "paper.md", "sensitivity", page())


def data_file(candidate: str) -> Path:
    """The file with the rows of a candidate."""
    return DATA / f"sensitivity-{candidate}.csv"


def measured(candidate: str) -> list[tuple[str, float, str, float]]:
    """The rows of `measure` from the file."""
    with data_file(candidate).open() as file:
        return [
            (one["parameter"], float(one["value"]), one["claim"], float(one[SHARE])) for one in csv.DictReader(file)
        ]


def page() -> str:
    """What was measured, and where it is."""
    points = f"b = {', '.join(f'{one:g}' for one in POINTS.arrival_probs)} and K = {', '.join(map(str, POINTS.fleets))}"
    links = ", ".join(f"[{one}](img/sensitivity-{one}.png) ([data](data/{data_file(one).name}))" for one in CANDIDATES)
    return paragraph(f"""
        `make sensitivity` changes one parameter at a time, others as in the preset `paper`, with the seeds, placements
        and training of the search, {points}. Colours: the share of a claim's comparisons that support it in the mean
        of the replicates, a dot where all do: {links}.
    """)


if __name__ == "__main__":
    main()
