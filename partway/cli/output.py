"""What the commands print and write in the same way: first the result, then files that are complete or absent."""

import argparse
import contextlib
import importlib
import json
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from partway import files, netcdf
from partway.cli.stdout import results
from partway.cli.terminal import FILE_WIDTH, Screen, terminal, working
from partway.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from partway.experiments.by_device import By
    from partway.experiments.plan import Plan
    from partway.experiments.summary import Summary

STDOUT = "-"
"""What --json takes for standard output."""


class Destination:
    """A file or folder that is reserved before anything is computed, and gets its name when it is filled at the end."""

    def __init__(self, held: contextlib.ExitStack, partial: Path):
        self._held, self.partial = held, partial

    def fill(self, write: Callable[[Path], object]) -> None:
        """Let `write` write what is to appear there. Raises InputError where that fails; then nothing appears."""
        with self._held.pop_all():
            write(self.partial)


Step = Callable[[], object]
"""A deferred write."""


@contextlib.contextmanager
def resumable(saved: Callable[[], str]) -> Generator[None]:
    """Ctrl-C inside says what is saved, in the words of `saved`, and how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {saved()}; run the same command again to resume") from None


class Destinations(NamedTuple):
    """The folder of --out and the file of --json, None where not asked for."""

    out: Destination | None
    json: Destination | None

    def steps(self, text: Callable[[], str], write: Callable[[Path], object]) -> list[Step]:
        """What writes them: the JSON that `text` makes, and what `write` writes into a folder."""
        steps = list[Step]()
        if self.json:
            file = self.json
            steps.append(lambda: file.fill(lambda path: path.write_text(text(), "utf-8")))
        if self.out:
            folder = self.out
            steps.append(lambda: folder.fill(write))
        return steps


@contextlib.contextmanager
def destinations(options: argparse.Namespace, folder: bool = True) -> Generator[Destinations]:
    """Where --out and --json write; `folder`: whether --out is a folder that is written as a whole.

    Raises InputError at once where they cannot be written.
    """
    with contextlib.ExitStack() as stack:
        file = out = None
        if options.json not in (None, STDOUT):
            if options.out and _inside(options.json, options.out):
                raise InputError(
                    f"--json {options.json} is in --out, which gets its own JSON file; choose another place"
                )
            file = stack.enter_context(_reserved(files.new_file(Path(options.json), options.overwrite, "--json")))
        if options.out and folder:
            out = stack.enter_context(_reserved(files.new_folder(options.out, options.overwrite, options.command)))
            threading.Thread(target=_import_matplotlib, daemon=True).start()
        yield Destinations(out, file)


def _import_matplotlib() -> None:
    """Import what draws the figures at the end: half a second, beside compiled programs that use one core.

    Only what no other thread imports: two threads that import modules which import each other may find half of one.
    """
    with contextlib.suppress(Exception):  # who draws imports it again, and sees what is wrong
        for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"):
            importlib.import_module(name)


class _Checked(Exception):
    """Leaves `destinations` with nothing written."""


def check_destinations(options: argparse.Namespace) -> None:
    """Raise InputError where --out and --json cannot be written; nothing stays reserved."""
    with contextlib.suppress(_Checked), destinations(options):
        raise _Checked


@contextlib.contextmanager
def checkpoint_file(options: argparse.Namespace) -> Generator[Destination | None]:
    """The file of --save, None where there is none."""
    if options.save is None:
        yield None
        return
    same = options.json not in (None, STDOUT) and os.path.realpath(options.save) == os.path.realpath(options.json)
    if same or (options.out and _inside(options.save, options.out)):
        raise InputError(f"--save {options.save} is the file of --json or in --out; choose another place")
    with _reserved(files.new_file(Path(options.save), options.overwrite, "--save")) as file:
        yield file


@contextlib.contextmanager
def _reserved(opened: contextlib.AbstractContextManager[Path]) -> Generator[Destination]:
    with contextlib.ExitStack() as held:
        yield Destination(held, held.enter_context(opened))


def _inside(path: str, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def json_text(document: Mapping[str, Any]) -> str:
    """A document as JSON; raises ValueError for NaN, which JSON does not have."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def show_now(options: argparse.Namespace, table: Callable[[Console], object]) -> None:
    """Print a first part of a result before the rest is computed, unless --json has standard output.

    An output that cannot be written to is left to `finish`, which then fails as well.
    """
    if options.json != STDOUT:
        with contextlib.suppress(OSError):
            table(terminal())
            if results():
                results().flush()


def finish(
    options: argparse.Namespace,
    text: Callable[[], str],
    table: Callable[[Console], object],
    steps: Sequence[Step] = (),
) -> None:
    """Print a result, then write it: what cannot be printed or written keeps nothing else from being.

    text, table  make the JSON, and print the table; --json decides which goes to standard output

    Raises what went wrong when all is done: a fault of the program before an InputError, which names all that failed,
    before an error of standard output.
    """
    unprinted: Exception | None = None
    try:
        if options.json == STDOUT:
            print(text(), end="", file=results())
        else:
            table(terminal())
        if results():  # None where it is closed
            results().flush()  # files come after it: a disk that is full loses no result
    except Exception as error:
        unprinted = error
    errors = list[Exception]()
    with working("writing results", terminal(errors=True)):
        for step in steps:
            try:
                step()
            except Exception as error:
                errors.append(error)
    faults = [error for error in errors if not isinstance(error, InputError)]
    if faults:
        raise faults[0]
    if errors:
        raise InputError("; ".join(map(str, errors)))
    if unprinted:
        raise unprinted


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


def finish_dataset(
    options: argparse.Namespace,
    places: Destinations,
    dataset: "xr.Dataset",
    draw: Callable[["xr.Dataset", "Sequence[Summary]", Path], object],
    first: Sequence[Step] = (),
) -> None:
    """Print and write a comparison, and say where it is.

    draw   writes its figures, from the dataset and the summaries of its schemes, into a folder
    first  what is written before
    """
    from partway.experiments import report
    from partway.experiments.summary import summarise

    summaries = summarise(dataset)

    def write(folder: Path) -> None:
        write_dataset(dataset, summaries, folder, options.by)
        draw(dataset, summaries, folder)

    text, table = partial(dataset_json, dataset, summaries), partial(report.show, dataset, summaries=summaries)
    finish(options, text, partial(table, by=options.by), [*first, *places.steps(text, write)])
    say_where(options)


def write_dataset(dataset: "xr.Dataset", summaries: "Sequence[Summary]", folder: Path, by: "By | None" = None) -> None:
    """Write a comparison and the summaries of its schemes to a folder, without figures. by: as in `report.show`."""
    from partway.experiments import by_device, report
    from partway.experiments.tidy import write_csv

    netcdf.save_dataset(dataset, folder)
    document = report.as_json(dataset, summaries)
    (folder / "results.json").write_text(json_text(document), "utf-8")
    (folder / "scenario.toml").write_text(dataset.attrs["scenario"], "utf-8")
    save_table(folder, partial(report.show, dataset, by=by, summaries=summaries))
    by_device.write(dataset, folder)
    write_csv(folder / "summary.csv", report.summary_rows(document, dataset.attrs["scenario_name"]))


def dataset_json(dataset: "xr.Dataset", summaries: "Sequence[Summary] | None" = None) -> str:
    """A comparison as JSON. summaries: as in `report.as_json`."""
    from partway.experiments import report

    return json_text(report.as_json(dataset, summaries))


def print_load(plan: "Plan", console: Console) -> None:
    """Print how much work arrives and how much can be done."""
    from partway.system.load import load_of
    from partway.system.placement import sample_placement
    from partway.system.world import build

    world = build(plan.scenario, sample_placement(plan.scenario))
    console.print(load_of(plan.scenario, world).sentence(), style="dim")
