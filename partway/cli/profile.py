"""`partway profile`: a network's cuts as a table, sentences and files; on request their times and a verification."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from partway.cli import flags
from partway.cli.terminal import terminal, working
from partway.dnn.layer_times import read_times
from partway.dnn.profile import Profile, clean_text, read_profile, write_profile
from partway.errors import InputError, shown
from partway.units import SIZE, parsed

if TYPE_CHECKING:
    from partway.dnn.graph import Network  # needs the extra `onnx`
    from partway.figures import Look

DESCRIPTION = (
    "List where a network can be split between device and server, with the work before each cut and the bits to send "
    "there. Only Pareto-optimal cuts are useful: no other cut sends as few bits after as little work on the device."
)
EXAMPLES = {
    "A network that ships with Partway": "partway profile resnet50",
    "Your own network; save its profile and a figure": "partway profile model.onnx --out my-model",
    "Store the times that its layers take on the device": "partway profile model.onnx --times pi.csv --out my-model",
    "Time its layers here and verify its cuts": (
        "partway profile model.onnx --shape input=1x3x224x224 --time-layers --verify"
    ),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway profile`."""
    flags.add_network(parser)
    parser.add_argument(
        "--times",
        metavar="FILE",
        help="store times of layers measured elsewhere: a CSV file with columns after and ms, or a profile",
    )
    group = parser.add_argument_group("with an ONNX file")
    group.add_argument(
        "--time-layers", action="store_true", help="time every layer on this machine, and store the times"
    )
    group.add_argument(
        "--verify",
        action="store_true",
        help="run both halves of every cut and compare their output with the whole network's, bit for bit",
    )
    flags.add_output(parser, json=False)
    flags.add_figures(parser, names=False)


def run(options: argparse.Namespace) -> None:
    """Profile and time the network, print the table and what it means, write files, verify the cuts.

    If the network cannot be run here, its profile is printed and written all the same, before the error.
    """
    from partway.cli import output
    from partway.dnn.report import report

    from_file = Path(options.model).suffix.lower() == ".onnx"
    given = (options.time_layers, options.verify, options.shape, options.input, options.input_bits is not None)
    if not from_file and any(given):
        wanted = "--time-layers, --verify, --shape, --input and --input-bits need an .onnx file"
        raise InputError(f"{wanted}, got {shown(options.model)}")
    if options.times and options.time_layers:
        raise InputError("give --times or --time-layers, not both")
    network, failure, look = None, None, flags.look(options)
    with output.destinations(options) as places:
        if from_file:
            network, profile = _profile_file(options)
            profile, failure = _timed(network, profile) if options.time_layers else (profile, None)
        else:
            profile = read_profile(options.model)
        if options.times:
            profile = profile.with_seconds(read_times(options.times, profile))

        def show(console: Console) -> None:
            report(profile, options.tensor_dtype, console)

        output.finish(options, str, show, places.steps(str, partial(_write, profile, options.tensor_dtype, look)))
    if options.out:
        output.say_where(options)
    if failure:
        raise failure
    if network is not None and options.verify:
        _verify(network, terminal())


def _profile_file(options: argparse.Namespace) -> "tuple[Network, Profile]":
    """The network in an ONNX file, and its profile."""
    from partway.dnn import graph

    given = options.input_bits
    input_bits = None if given is None else parsed("--input-bits", given, SIZE)
    with working("reading the network", terminal(errors=True)):
        shapes, values = (flags.one_each(f"--{name}", getattr(options, name)) for name in ("shape", "input"))
        network = graph.load_network(options.model, shapes, values)
        return network, graph.profile_network(network, input_bits)


def _timed(network: "Network", profile: Profile) -> tuple[Profile, InputError | None]:
    """The profile with the times of the layers, or without them and why."""
    from partway.dnn import runtime

    with working("timing the layers", terminal(errors=True)):
        try:
            return profile.with_seconds(runtime.measure(network)), None
        except InputError as error:
            return profile, error


def _verify(network: "Network", console: Console) -> None:
    """Print how many cuts reproduce the whole network's output, and those that do not.

    Raises InputError, which names the first of those, if there are any.
    """
    from partway.dnn import runtime

    with working("verifying the cuts", terminal(errors=True)):
        splits = runtime.check(network)
    if not splits:
        console.print("verify: there is no cut between input and output")
        return
    right = [split for split in splits if split.rounding]
    how = "exactly" if all(split.exact for split in right) else "up to float16 rounding"
    console.print(f"verify: {len(right)} of {len(splits)} cuts reproduce the whole network's output {how}")
    if not splits[0].finite:
        console.print("verify: no output of the whole network is finite for random inputs: the comparison says little")
    wrong = [split for split in splits if not split.rounding]
    for split in wrong:
        text = f"  cut {split.cut} after {clean_text(split.after)}: off by up to {split.deviation:.3g}"
        console.print(text, markup=False)
    if wrong:
        raise InputError(
            f"verify: {len(wrong)} of {len(splits)} cuts give another output than the whole network, such as cut "
            f"{wrong[0].cut} after {clean_text(wrong[0].after)}"
        )


def _write(profile: Profile, tensor_dtype: str, look: "Look | None", folder: Path) -> None:
    """Write the profile as CSV, and its figure."""
    from partway.figures import profile as figure

    (folder / f"{profile.name}.csv").write_text(write_profile(profile), encoding="utf-8")
    figure.write(profile, tensor_dtype, folder, look)
