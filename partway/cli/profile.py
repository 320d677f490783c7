"""`partway profile`: a network's cuts as a table, sentences and files, and on request times and a proof."""

import argparse
import contextlib
from pathlib import Path

from rich.console import Console

from partway import files as store
from partway.cli.terminal import terminal
from partway.dnn import report as dnn_report
from partway.dnn.profile import Profile, read_profile, write_profile
from partway.errors import InputError
from partway.figures import profile as profile_report


def profile_network(options: argparse.Namespace) -> None:
    """Where a network can be cut: a table, sentences, and on request files, times and a proof."""
    console, by_table = terminal(), Path(options.model).suffix.lower() != ".onnx"
    if by_table and (options.measure or options.check or options.shape or options.input_bits):
        raise InputError(f"'{options.model}': --measure, --check, --shape and --input-bits need an .onnx file")
    target = store.new_folder(options.out, options.overwrite) if options.out else contextlib.nullcontext()
    with target as folder:
        found = read_profile(options.model) if by_table else _profile_file(options, console)
        if by_table:
            dnn_report.report(found, options.tensor_dtype, console)
        if folder:
            _write_profile(found, options.tensor_dtype, folder)
    if options.out:
        console.print(f"Table and figure are in {options.out}")


def _profile_file(options: argparse.Namespace, console: Console) -> Profile:
    """Read, measure, report and check an ONNX file. Imports here: the rest works without the extra `onnx`."""
    from partway.dnn import graph as profile
    from partway.dnn import runtime as profile_run

    network = profile.load_network(options.model, dict(options.shape))
    found = profile.profile_network(network, options.input_bits)
    seconds = profile_run.measure(network) if options.measure else None
    dnn_report.report(found, options.tensor_dtype, console, seconds)
    if options.check:
        splits = profile_run.check(network)
        if not splits:
            console.print("check: there is no cut between input and output, so there is nothing to check")
            return found
        wrong = [split for split in splits if not split.exact]
        console.print(
            f"check: {len(splits) - len(wrong)} of {len(splits)} cuts give exactly the whole network's output"
        )
        for split in wrong:
            console.print(f"  cut {split.cut} after {split.after}: off by up to {split.deviation:.3g}")
    return found


def _write_profile(found: Profile, tensor_dtype: str, folder: Path) -> None:
    (folder / f"{found.name}.csv").write_text(write_profile(found), encoding="utf-8")
    figure = profile_report.draw(found, tensor_dtype)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"{found.name}.{kind}")
