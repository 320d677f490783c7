"""What the commands write and print in the same way: files that appear only when a command succeeds, JSON, datasets."""

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from partway import files
from partway.cli.stdout import results
from partway.cli.terminal import FILE_WIDTH, Screen, terminal
from partway.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from partway.experiments.comparison import Plan

STDOUT = "-"
"""What --json takes for standard output."""


@contextlib.contextmanager
def destinations(options: argparse.Namespace) -> Generator[tuple[Path | None, Path | None]]:
    """(folder of --out, file of --json), None where not asked for.

    Both get their names only when the block ends well. Raises InputError at once where they cannot be written.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(json_file(options))
        folder = stack.enter_context(files.new_folder(options.out, options.overwrite)) if options.out else None
        yield folder, file


@contextlib.contextmanager
def json_file(options: argparse.Namespace) -> Generator[Path | None]:
    """The file of --json, None where there is none; it gets its name only when the block ends well."""
    if options.json in (None, STDOUT):
        yield None
        return
    if options.out and _inside(options.json, options.out):
        raise InputError(f"--json {options.json} is in --out, which gets its own JSON file; choose another place")
    with files.new_file(Path(options.json), options.overwrite, "--json") as file:
        yield file


@contextlib.contextmanager
def checkpoint_file(options: argparse.Namespace) -> Generator[Path | None]:
    """The file of --save, None where there is none; it gets its name only when the block ends well."""
    if options.save is None:
        yield None
        return
    same = options.json not in (None, STDOUT) and os.path.realpath(options.save) == os.path.realpath(options.json)
    if same or (options.out and _inside(options.save, options.out)):
        raise InputError(f"--save {options.save} is the file of --json or in --out; choose another place")
    with files.new_file(Path(options.save), options.overwrite, "--save") as file:
        yield file


def _inside(path: str, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def json_text(document: Mapping[str, Any]) -> str:
    """A document as JSON; raises ValueError for NaN, which JSON does not have."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def show(options: argparse.Namespace, text: Callable[[], str], table: Callable[[Console], object]) -> None:
    """Print the JSON that `text` makes if it was asked for on standard output, else call `table` with the terminal.

    To be called when files are in place: whoever reads standard output may leave.
    """
    if options.json == STDOUT:
        print(text(), end="", file=results())
    else:
        table(terminal())


def say_where(options: argparse.Namespace) -> None:
    """Say where the results are, or how to save them."""
    console = terminal(errors=True)
    if options.out:
        console.print(f"Results are in {options.out}")
    elif not (options.json or getattr(options, "save", None)):
        console.print("Nothing was saved; use --out DIR to save data and figures.", style="dim")


def save_table(folder: Path, table: Callable[[Console], object]) -> None:
    """Write table.txt, which is what `table` prints."""
    with (folder / "table.txt").open("w", encoding="utf-8") as file:
        table(Screen(file=file, width=FILE_WIDTH))


def write_dataset(dataset: "xr.Dataset", folder: Path | None, file: Path | None) -> None:
    """Write a comparison to a folder and to a JSON file, each unless it is None."""
    from partway.experiments import report

    if file:
        file.write_text(dataset_json(dataset), "utf-8")
    if folder:
        files.save_dataset(dataset, folder)
        (folder / "results.json").write_text(dataset_json(dataset), "utf-8")
        (folder / "scenario.toml").write_text(dataset.attrs["scenario"], "utf-8")
        save_table(folder, partial(report.show, dataset))


def show_dataset(options: argparse.Namespace, dataset: "xr.Dataset") -> None:
    """Print a comparison, and where it is."""
    from partway.experiments import report

    show(options, partial(dataset_json, dataset), partial(report.show, dataset))
    say_where(options)


def dataset_json(dataset: "xr.Dataset") -> str:
    """A comparison as JSON."""
    from partway.experiments import report

    return json_text(report.as_json(dataset))


def print_load(plan: "Plan", console: Console) -> None:
    """Print how much work arrives and how much can be done."""
    from partway.system.load import load_of
    from partway.system.placement import sample_placement
    from partway.system.world import build

    world = build(plan.scenario, sample_placement(plan.scenario))
    console.print(load_of(plan.scenario, world).sentence(), style="dim")
