"""`partway profile`: a network's cuts as a table, sentences and files; on request their times and a verification."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from partway.cli import flags
from partway.cli.terminal import terminal, working
from partway.dnn.profile import Profile, read_profile, write_profile
from partway.errors import InputError, shown

if TYPE_CHECKING:
    from partway.dnn.runtime import Split  # needs the extra `onnx`

DESCRIPTION = (
    "List where a network can be split between device and server, with the work before each cut and the bits to send "
    "there. Only Pareto-optimal cuts are useful: they send fewer bits than the input and than every earlier cut."
)
EXAMPLES = {
    "A network that ships with Partway": "partway profile resnet50",
    "Your own network; save its profile and a figure": "partway profile model.onnx --out my-model",
    "Time its layers and verify its cuts": (
        "partway profile model.onnx --shape input=1x3x224x224 --time-layers --verify"
    ),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway profile`."""
    flags.add_network(parser)
    group = parser.add_argument_group("with an ONNX file")
    group.add_argument("--time-layers", action="store_true", help="time every layer on this machine")
    group.add_argument(
        "--verify",
        action="store_true",
        help="run both halves of every cut and compare their output with the whole network's, bit for bit",
    )
    flags.add_output(parser, json=False)


def run(options: argparse.Namespace) -> None:
    """Profile, time and verify the network, print the table and what it means, write files."""
    from partway.cli import output
    from partway.dnn.report import report

    seconds, splits = None, None
    from_file = Path(options.model).suffix.lower() == ".onnx"
    if not from_file and (options.time_layers or options.verify or options.shape or options.input_bits is not None):
        wanted = "--time-layers, --verify, --shape and --input-bits need an .onnx file"
        raise InputError(f"{wanted}, got {shown(options.model)}")
    with output.destinations(options) as places:
        if from_file:
            profile, seconds, splits = _profile_file(options)
        else:
            profile = read_profile(options.model)

        def show(console: Console) -> None:
            report(profile, options.tensor_dtype, console, seconds)
            if splits is not None:
                _report_splits(splits, console)

        output.finish(options, str, show, places.steps(str, partial(_write, profile, options.tensor_dtype)))
    if options.out:
        output.say_where(options)


def _profile_file(options: argparse.Namespace) -> "tuple[Profile, np.ndarray | None, list[Split] | None]":
    """The profile of an ONNX file; on request the seconds of its layers, and its cuts tried out."""
    from partway.dnn import graph

    errors = terminal(errors=True)
    with working("reading the network", errors):
        network = graph.load_network(options.model, dict(options.shape))
        profile = graph.profile_network(network, options.input_bits)
    if not (options.time_layers or options.verify):
        return profile, None, None
    from partway.dnn import runtime

    with working("running the network", errors):
        seconds = runtime.measure(network) if options.time_layers else None
        splits = runtime.check(network) if options.verify else None
    return profile, seconds, splits


def _report_splits(splits: "Sequence[Split]", console: Console) -> None:
    """Print how many cuts reproduce the whole network's output, and those that do not."""
    if not splits:
        console.print("verify: there is no cut between input and output")
        return
    wrong = [split for split in splits if not split.exact]
    console.print(
        f"verify: {len(splits) - len(wrong)} of {len(splits)} cuts reproduce the whole network's output exactly"
    )
    for split in wrong:
        console.print(f"  cut {split.cut} after {split.after}: off by up to {split.deviation:.3g}")


def _write(profile: Profile, tensor_dtype: str, folder: Path) -> None:
    """Write the profile as CSV, and its figure."""
    from partway.figures.profile import draw

    (folder / f"{profile.name}.csv").write_text(write_profile(profile), encoding="utf-8")
    figure = draw(profile, tensor_dtype)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"{profile.name}.{kind}")
