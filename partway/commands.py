"""What the commands do, once their flags are read."""

import argparse
import contextlib
import json
import os
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from partway import figures, profile_report, report, store
from partway.comparison import Plan, Tick, execute, plan
from partway.errors import InputError, shown
from partway.scenario import preset_text, presets
from partway.schemes import SCHEMES, explanations, find_scheme, hyperparameters
from partway.task import Profile, read_profile, write_profile
from partway.world import build, load_of, place

MOST_SEEDS = 100_000
INTERRUPTED = threading.Event()
"""Ctrl-C was heard where it could not be raised."""


class Screen(Console):
    """Prints names as they are, whatever brackets are in them, and leaves a pipe that closes to `main`."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Rich would exit with 1 here."""
        raise BrokenPipeError


def terminal(errors: bool = False) -> Console:
    """stdout or stderr; 100 columns wide when it is a file or a pipe."""
    console = Screen(stderr=errors)
    return console if console.is_terminal else Screen(stderr=errors, width=100)


def _plan(options: argparse.Namespace) -> Plan:
    seeds = options.seeds[0] if len(options.seeds) == 1 else options.seeds
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise InputError(f"--seeds {shown(seeds)}: allowed is a count from 1 up to {MOST_SEEDS}, or several seeds")
    return plan(
        options.scenario,
        overrides=options.set,
        schemes=options.schemes,
        server=options.server,
        blocks=options.blocks,
        seeds=seeds,
        warmup=options.warmup,
        precision=options.precision,
    )


@contextlib.contextmanager
def _destinations(options: argparse.Namespace) -> Generator[tuple[Path | None, Path | None]]:
    """(folder, JSON file) to write into; both appear under their names only when all went well."""
    to_file = options.json not in (None, "-")
    if options.out and to_file and Path(os.path.realpath(options.json)).is_relative_to(os.path.realpath(options.out)):
        raise InputError(f"--json {options.json}: is in --out, which has a results.json anyway; choose another place")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(store.new_folder(options.out, options.overwrite)) if options.out else None
        file = stack.enter_context(store.new_file(Path(options.json), options.overwrite, "--json")) if to_file else None
        yield folder, file


@contextlib.contextmanager
def _progress(todo: Plan, console: Console) -> Generator[Tick]:
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=todo.blocks * len(todo.schemes))

        def tick(name: str, blocks: int) -> None:
            if INTERRUPTED.is_set():
                raise KeyboardInterrupt
            bar.update(task, description=name, advance=blocks)

        yield tick


def compare(options: argparse.Namespace) -> None:
    """Schemes side by side."""
    todo, errors = _plan(options), terminal(errors=True)
    with _destinations(options) as (folder, file):
        _say_load(todo, errors)
        with _progress(todo, errors) as tick:
            dataset = execute(todo, tick)
        _write(dataset, folder, file, lambda out: figures.write_comparison(dataset, out))
    _show(dataset, options)


def run(options: argparse.Namespace) -> None:
    """One scheme, and single devices block by block."""
    options.schemes = options.schemes or ["exact"]
    todo, errors = _plan(options), terminal(errors=True)
    if len(todo.schemes) != 1:
        raise InputError(f"--schemes {' '.join(todo.schemes)}: 'run' takes one scheme; use 'compare' for several")
    for device in options.trace:
        if not 0 <= device < todo.scenario.devices:
            raise InputError(f"--trace {device}: allowed is a device from 0 to {todo.scenario.devices - 1}")
    with _destinations(options) as (folder, file):
        _say_load(todo, errors)
        with _progress(todo, errors) as tick:
            dataset = execute(todo, tick, trace=tuple(dict.fromkeys(options.trace)))
        _write(dataset, folder, file, lambda out: figures.write_run(dataset, out))
    _show(dataset, options)


def _write(dataset: xr.Dataset, folder: Path | None, file: Path | None, draw: Callable[[Path], Any]) -> None:
    """Write what was asked for."""
    if file:
        file.write_text(_json(dataset), "utf-8")
    if folder:
        store.save_dataset(dataset, folder)
        (folder / "results.json").write_text(_json(dataset), "utf-8")
        (folder / "scenario.toml").write_text(dataset.attrs["scenario"], "utf-8")
        with (folder / "table.txt").open("w", encoding="utf-8") as table:
            report.show(dataset, Screen(file=table, width=100))
        draw(folder)


def _json(dataset: xr.Dataset) -> str:
    return json.dumps(report.as_json(dataset), indent=1, allow_nan=False) + "\n"


def _show(dataset: xr.Dataset, options: argparse.Namespace) -> None:
    """Print what was found. Files are in place by now, whatever becomes of the pipe."""
    if options.json == "-":
        print(_json(dataset), end="")
    else:
        report.show(dataset, terminal())
    _say_where(options)


def _say_load(todo: Plan, console: Console) -> None:
    placement = place(todo.scenario)
    console.print(load_of(todo.scenario, build(todo.scenario, placement)).sentence(), style="dim")


def _say_where(options: argparse.Namespace) -> None:
    console = terminal(errors=True)
    if options.out:
        console.print(f"Figures, data and JSON are in {options.out}")
    elif not options.json:
        console.print("Nothing was written; --out DIR keeps data and figures.", style="dim")


def schemes(options: argparse.Namespace) -> None:
    """What can be compared."""
    console = terminal()
    if options.scheme is None:
        rows = [(name, scheme.about, *map(str, scheme.signalling().values())) for name, scheme in SCHEMES.items()]
        console.print(_listing(("scheme", "what it does", "up", "down"), rows))
        console.print("up/down: numbers sent per device and block for control", style="dim")
        return
    about = find_scheme(options.scheme).about
    console.print(f"{options.scheme}: {about}")
    rows = [
        (f"schemes.{options.scheme}.{name}", shown(value)) for name, value in hyperparameters(options.scheme).items()
    ]
    console.print(_listing(("set with --set", "default"), rows))
    for words in explanations(options.scheme):
        console.print(f"\n{words}", style="dim")


def scenarios(options: argparse.Namespace) -> None:
    """The presets."""
    terminal().print(_listing(("scenario", "what it is"), list(presets().items())))


def _listing(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=title != titles[1] or (len(titles) == 2 and title == "default"))
    for row in rows:
        table.add_row(*row)
    return table


def scenario(options: argparse.Namespace) -> None:
    """A preset's file."""
    print(preset_text(options.name), end="")


def profile_network(options: argparse.Namespace) -> None:
    """Where a network can be cut: a table, sentences, and on request files, times and a proof."""
    console, by_table = terminal(), Path(options.model).suffix.lower() != ".onnx"
    if by_table and (options.measure or options.check or options.shape or options.input_bits):
        raise InputError(f"'{options.model}': --measure, --check, --shape and --input-bits need an .onnx file")
    target = store.new_folder(options.out, options.overwrite) if options.out else contextlib.nullcontext()
    with target as folder:
        found = read_profile(options.model) if by_table else _profile_file(options, console)
        if by_table:
            profile_report.report(found, options.coding, console)
        if folder:
            _write_profile(found, options.coding, folder)
    if options.out:
        console.print(f"Table and figure are in {options.out}")


def _profile_file(options: argparse.Namespace, console: Console) -> Profile:
    """Read, measure, report and check an ONNX file. Imports here: the rest works without the extra `onnx`."""
    from partway import profile, profile_run

    network = profile.load_network(options.model, dict(options.shape))
    found = profile.profile_network(network, options.input_bits)
    seconds = profile_run.measure(network) if options.measure else None
    profile_report.report(found, options.coding, console, seconds)
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


def _write_profile(found: Profile, coding: str, folder: Path) -> None:
    (folder / f"{found.name}.csv").write_text(write_profile(found), encoding="utf-8")
    figure = profile_report.draw(found, coding)
    for kind in ("png", "svg"):
        figure.savefig(folder / f"{found.name}.{kind}")
