"""`partway run`: one scheme, single devices block by block, and trained controllers to save and to resume from."""

import argparse
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partway.cli import flags
from partway.cli.flags import whole_number
from partway.cli.terminal import counting, terminal
from partway.errors import InputError, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr

    from partway.experiments.comparison import SchemeRunner
    from partway.experiments.plan import Plan, Setting
    from partway.experiments.summary import Summary
    from partway.figures import Look
    from partway.measurement.checkpoint import Checkpoint
    from partway.simulation.rollout import Run

DEFAULT_SCHEME = "parametric"
DESCRIPTION = (
    "Simulate one scheme and print all its numbers. Its trained controllers can be saved, and a later run can resume "
    "from them, in the same scenario or another."
)
EXAMPLES = {
    "Record two devices block by block": "partway run --schemes priced --trace 0 3 --out results/priced",
    "The devices of one scheme with the server of another": "partway run --schemes random --server priced",
    "Save what was learned": "partway run --schemes priced --save trained.npz",
    "Resume from it for another 2000 blocks": "partway run --load trained.npz --warmup 0",
    "Resume with other traffic": "partway run --load trained.npz --set device.arrival_prob=0.5 --save busy.npz",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway run`."""
    flags.add_scenario(parser, None, otherwise="paper")
    flags.add_simulation(parser, schemes=DEFAULT_SCHEME)
    group = parser.add_argument_group("devices and controllers")
    group.add_argument(
        "--trace",
        nargs="+",
        type=whole_number,
        default=[0],
        metavar="DEVICE",
        help="devices to record block by block (default: 0)",
    )
    group.add_argument("--save", metavar="FILE", help="save the trained controllers to this .npz file")
    group.add_argument(
        "--load", metavar="FILE", help="resume from such a file, by default with its scenario, scheme and seeds"
    )
    flags.add_by(parser)
    flags.add_output(parser)
    flags.add_figures(parser)


def run(options: Namespace) -> None:
    """Run the scheme, print and write its numbers, and save its controllers."""
    from partway.cli import output
    from partway.experiments import checkpoint
    from partway.experiments.comparison import execute
    from partway.experiments.report import check_complete
    from partway.measurement.checkpoint import read

    start = None if options.load is None else read(options.load)
    plan, errors = _plan(options, start), terminal(errors=True)
    look = flags.look(options, plan.schemes)
    with output.destinations(options) as places, output.checkpoint_file(options) as trained:
        output.print_load(plan, errors)
        if start:
            errors.print(f"Resuming {plan.schemes[0]} after block {start.header.blocks}.", style="dim")
        runs: list[Run] = []
        with counting(plan.blocks, "blocks", errors) as on_progress:
            traced, runner = tuple(dict.fromkeys(options.trace)), _runner(start, runs)
            dataset = execute(plan, on_progress, traced, runner, lambda words: on_progress(words, 0))
        if trained and not runs:
            why = dataset["reason"].values[0]
            raise InputError(f"--save {options.save}: {plan.schemes[0]} has nothing to save: {why}")
        first: list[output.Step] = []
        if trained:
            first = [partial(trained.fill, partial(_save, plan, runs[0], start))]
        output.finish_dataset(options, places, checkpoint.continued(dataset, start), partial(_draw, look), first)
    check_complete(dataset)


def _draw(look: "Look | None", dataset: "xr.Dataset", summaries: "Sequence[Summary]", folder: Path) -> None:
    from partway import figures  # Matplotlib takes half a second to import

    figures.write_run(dataset, folder, summaries, look)


def _save(plan: "Plan", run: "Run", start: "Checkpoint | None", path: Path) -> None:
    from partway.experiments import checkpoint

    checkpoint.save(path, plan, run, start.header.blocks if start else 0)


def _plan(options: Namespace, start: "Checkpoint | None") -> "Plan":
    """What to run: flags that are not given are those of the checkpoint, or the defaults."""
    from partway.experiments import checkpoint
    from partway.schemes import refuse_agents

    plan = flags.comparison_plan(_completed(options, start), start.header.seeds if start else 8)
    if start and options.scenario is None:
        plan = replace(plan, name=start.header.scenario_name)
    refuse_agents(plan.schemes, "run")
    if len(plan.schemes) != 1:
        raise InputError(f"--schemes must name one scheme, got {' '.join(plan.schemes)}; 'compare' takes several")
    for device in options.trace:
        if not 0 <= device < plan.scenario.devices:
            raise InputError(f"--trace must be a device from 0 to {plan.scenario.devices - 1}, got {device}")
    if start:
        checkpoint.check(start, plan)
    return plan


def _completed(options: Namespace, start: "Checkpoint | None") -> Namespace:
    """The flags, with those that are not given as in the checkpoint, or with their defaults."""
    usual: dict[str, Any] = {"scenario": "paper", "schemes": [DEFAULT_SCHEME]}
    if start:
        header = start.header
        usual = {"scenario": start.scenario(), "schemes": [header.scheme], "server": header.server}
        usual["precision"] = header.precision
        for flag, name in (("--schemes", header.scheme), ("--server", header.server)):
            if name and ":" in name and getattr(options, flag.removeprefix("--")) is None:
                raise InputError(f"{start.given}: imports no code; add {flag} {shorten(name)} to use that controller")
    return Namespace(**vars(options) | {name: value for name, value in usual.items() if getattr(options, name) is None})


def _runner(start: "Checkpoint | None", runs: "list[Run]") -> "SchemeRunner":
    """Runs a scheme from where the checkpoint ends, and adds to `runs` what it leaves, without its traces."""
    from partway.experiments import checkpoint

    def run_scheme(
        plan: "Plan",
        name: str,
        setting: "Setting",
        on_progress: "Callable[[int], None]",
        traces: bool,
        threads: int | None,
    ) -> "Run":
        run = checkpoint.continue_scheme(start, plan, name, setting, on_progress, traces, threads)
        runs.append(replace(run, traces=None))
        return run

    return run_scheme
