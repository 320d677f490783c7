"""`partway draw`: the figures of a finished comparison, run or sweep, drawn again."""

import argparse
from functools import partial
from pathlib import Path

from partway.cli import flags

DESCRIPTION = (
    "Draw the figures of results that `compare`, `run` or `sweep` has written to a folder again: for a paper, or with "
    "other names. Nothing is simulated."
)
EXAMPLES = {
    "PDF in the width of a column, and captions": "partway draw results/ocr --out figures --style paper",
    "With names of your choice": "partway draw results/ocr --out figures --style paper --label priced=Ours",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway draw`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="results of `compare`, `run` or `sweep`")
    flags.add_output(parser, out="write the figures to this new folder", required=True, json=False)
    flags.add_figures(parser)


def run(options: argparse.Namespace) -> None:
    """Draw all figures."""
    from partway import figures, netcdf
    from partway.cli import output

    dataset, labels = netcdf.load_dataset(options.folder), flags.one_each("--label", options.label)
    with output.destinations(options) as places:
        draw = partial(figures.draw, dataset, style=options.style, labels=labels)
        output.finish(options, str, lambda console: None, places.steps(str, draw))
    output.say_where(options)
