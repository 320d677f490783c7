"""`partway profile`: a network's cuts as a table, sentences and files; on request their times and a verification."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    """Profile, time and verify the network, write files, print the table and what it means."""
    from partway.cli import output

    seconds, splits = None, None
    from_file = Path(options.model).suffix.lower() == ".onnx"
    if not from_file and (options.time_layers or options.verify or options.shape or options.input_bits):
        wanted = "--time-layers, --verify, --shape and --input-bits need an .onnx file"
        raise InputError(f"{wanted}, got {shown(options.model)}")
    with output.destinations(options) as (folder, _):
        if from_file:
            profile, seconds, splits = _profile_file(options)
        else:
            profile = read_profile(options.model)
        if folder:
            _write(profile, options.tensor_dtype, folder)
    report(profile, options.tensor_dtype, terminal(), seconds)
    if splits is not None:
        _report_splits(splits, terminal())
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
    with working("drawing", terminal(errors=True)):
        figure = draw(profile, tensor_dtype)
        for kind in ("png", "svg"):
            figure.savefig(folder / f"{profile.name}.{kind}")


def report(profile: Profile, tensor_dtype: str, console: Console, seconds: np.ndarray | None = None) -> None:
    """Print the table of cuts and what it means.

    seconds  [s] (cuts,) time of the work between each cut and the one before, as `partway.dnn.runtime.measure` gives it
    """
    console.print(cut_table(profile, tensor_dtype, seconds))
    for sentence in sentences(profile, tensor_dtype):
        console.print(sentence)


def cut_table(profile: Profile, tensor_dtype: str, seconds: np.ndarray | None = None) -> Table:
    """One row per cut; a cut that differs from the row above neither in work nor in bits has none."""
    bits, share, best = profile.bits(tensor_dtype), profile.share(), profile.pareto_optimal(tensor_dtype)
    title = f"{profile.name}: cuts, tensors sent as {tensor_dtype}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("cut", justify="right")
    table.add_column("after", overflow="ellipsis", no_wrap=True, max_width=44)
    timed = () if seconds is None else ("since above [ms]", "time done [ms]")
    for head in ("work done [M MAC]", "work left", "sends [kbit]", *timed):
        table.add_column(head, justify="right")
    table.add_column("Pareto-optimal")
    elapsed = None if seconds is None else np.cumsum(seconds)
    before = 0.0
    for i in _distinct(profile, tensor_dtype):
        cells = [f"{profile.cuts[i].macs / 1e6:,.1f}", f"{share[i]:.1%}", f"{bits[i] / 1e3:,.2f}"]
        if elapsed is not None:
            cells += [f"{1e3 * (elapsed[i] - before):.3f}", f"{1e3 * elapsed[i]:.3f}"]
            before = elapsed[i]
        # Text, not markup: a tensor's name may hold brackets
        row = [str(i), profile.cuts[i].after, *cells, "yes" if best[i] else ""]
        table.add_row(*map(Text, row), style="bold" if best[i] else "dim")
    return table


def _distinct(profile: Profile, tensor_dtype: str) -> list[int]:
    """Cuts that differ from the one before in work or bits, and the output."""
    macs, bits = [cut.macs for cut in profile.cuts], profile.bits(tensor_dtype)
    last = len(macs) - 1
    return [i for i in range(last + 1) if i in (0, last) or macs[i] != macs[i - 1] or bits[i] != bits[i - 1]]


def sentences(profile: Profile, tensor_dtype: str) -> list[str]:
    """What the table means: size of the network, rows left out, Pareto-optimal cuts, distance from the paper's law."""
    return [
        _size(profile),
        *_left_out(profile, tensor_dtype),
        _optimal(profile, tensor_dtype),
        _law(profile, tensor_dtype),
    ]


def _size(profile: Profile) -> str:
    shape = "x".join(str(size) for size in profile.input_shape)
    return f"{profile.name} ({profile.source}): input {shape}, {profile.macs / 1e6:,.1f} M multiply-accumulates."


def _left_out(profile: Profile, tensor_dtype: str) -> list[str]:
    hidden, total = len(profile.cuts) - len(_distinct(profile, tensor_dtype)), len(profile.cuts)
    return [f"Not shown: {hidden} of {total} cuts, whose work and bits are those of the row above."] if hidden else []


def _optimal(profile: Profile, tensor_dtype: str) -> str:
    bits, share = profile.bits(tensor_dtype), profile.share()
    inner = [i for i in np.flatnonzero(profile.pareto_optimal(tensor_dtype)) if 0 < i < len(profile.cuts) - 1]
    if not inner:
        return "No inner cut sends fewer bits than the input: send the input, or run everything on the device."
    cuts = [
        f"{i} ({100 * (1 - share[i]):.4g} % of the work done, {_times(bits[0] / bits[i])} fewer bits)" for i in inner
    ]
    return (
        f"Pareto-optimal (fewer bits than the input and than every earlier cut) besides both ends: {', '.join(cuts)}."
    )


def _law(profile: Profile, tensor_dtype: str) -> str:
    fit = profile.proportionality(tensor_dtype)
    return (
        f"The paper's law, bits proportional to the work left, fits with R^2 = {fit:.2f} "
        "(1: exact; below 0: worse than a constant)."
    )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"
