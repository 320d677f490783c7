"""`partway compare`: schemes side by side on one scenario."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from partway.cli import flags
from partway.cli.terminal import counting, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from partway.experiments.summary import Summary
    from partway.figures import Look

DESCRIPTION = (
    "Simulate schemes on one scenario with common random numbers, and print a table of each scheme's cost, gap to a "
    "proven lower bound, latency, energy and signalling."
)
EXAMPLES = {
    "Every scheme on the paper's scenario": "partway compare",
    "A real DNN; save data, figures and JSON": "partway compare --scenario ocr --out results/ocr",
    "A larger fleet with more traffic": "partway compare --set devices=50 device.arrival_prob=0.2 --blocks 4000",
    "Your own policy beside the tuned constant": "partway compare --schemes constant mymodule:MyPolicy",
    "What each class of devices pays": "partway compare --scenario camera --schemes constant priced --by class",
    "Figures for a paper, with names of your choice": (
        "partway compare --out results/paper --style paper --label priced=Ours"
    ),
    "One column for another program": "partway compare --json - | jq '.schemes[].cost_per_block'",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway compare`."""
    flags.add_scenario(parser)
    flags.add_simulation(parser)
    flags.add_by(parser)
    flags.add_output(parser)
    flags.add_figures(parser)


def run(options: argparse.Namespace) -> None:
    """Run the comparison, print it and write it."""
    from partway.cli import output
    from partway.experiments.comparison import execute
    from partway.experiments.report import check_complete
    from partway.schemes import REFERENCE, learns

    plan, errors = flags.comparison_plan(options), terminal(errors=True)
    look = flags.look(options, plan.schemes)
    if REFERENCE not in plan.schemes and any(map(learns, plan.schemes)):
        errors.print(f"Add {REFERENCE} to --schemes: a scheme that learns should cost less than it.", style="dim")
    with output.destinations(options) as places:
        output.print_load(plan, errors)
        with counting(plan.blocks * len(plan.schemes), "blocks", errors) as on_progress:
            dataset = execute(plan, on_progress, on_bound=lambda words: on_progress(words, 0))
        output.finish_dataset(options, places, dataset, partial(_draw, look))
    check_complete(dataset)


def _draw(look: "Look | None", dataset: "xr.Dataset", summaries: "Sequence[Summary]", folder: Path) -> None:
    from partway import figures  # Matplotlib takes half a second to import

    figures.write_comparison(dataset, folder, summaries, look)
