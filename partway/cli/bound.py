"""`partway bound`: the lower bound alone."""

import argparse
from functools import partial
from pathlib import Path

from partway.cli import flags
from partway.cli.terminal import terminal, working
from partway.errors import InputError

DESCRIPTION = (
    "Compute a lower bound on the cost of every policy, centralised ones included, without simulating anything, and "
    "print how it splits between devices and server and how tight it is."
)
EXAMPLES = {
    "The bound of the paper's scenario": "partway bound",
    "A real DNN with a larger fleet": "partway bound --scenario ocr --set devices=50",
    "The value for another program": "partway bound --json - | jq .value",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway bound`."""
    flags.add_scenario(parser)
    flags.add_output(parser, out=None, overwrite="replace an existing JSON file")


def run(options: argparse.Namespace) -> None:
    """Compute the bound, print it and write it."""
    from partway.bound import report
    from partway.bound.lower_bound import NoBound, lower_bound
    from partway.cli import output
    from partway.scenario.loading import load
    from partway.schemes import check_running
    from partway.system.placement import sample_placement
    from partway.system.world import build

    scenario = load(options.scenario, options.set)
    check_running(options.set, ())
    world = build(scenario, sample_placement(scenario))
    with output.destinations(options) as places:
        try:
            with working("computing the lower bound", terminal(errors=True)) as say:
                bound = lower_bound(world, on_progress=say)
        except NoBound as reason:
            raise InputError(str(reason)) from None
        document = report.as_json(bound, scenario, world.server)
        text = partial(output.json_text, document)
        table = report.details_table(document, Path(options.scenario).stem)
        steps = places.steps(text, lambda folder: None)
        output.finish(options, text, lambda console: console.print(table), steps)
