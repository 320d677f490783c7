"""What the commands do, once their flags are read."""

import argparse
import contextlib
import json
import os
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from partway import files as store
from partway.bound import report as bound_report
from partway.bound.lower_bound import NoBound, lower_bound
from partway.cli.terminal import Screen, listing, terminal
from partway.controllers.base import DeviceController
from partway.errors import InputError, shown
from partway.experiments import checkpoint as keep
from partway.experiments import report
from partway.experiments.comparison import OnProgress, Plan, Player, execute, make_plan
from partway.scenario.loading import load, preset_text, presets
from partway.schemes import SCHEMES, explanations, find_scheme, hyperparameters
from partway.simulation.rollout import Run
from partway.system.load import load_of
from partway.system.placement import sample_placement
from partway.system.world import World, build

MOST_SEEDS = 100_000
CONSTANT = "constant"
INTERRUPTED = threading.Event()
"""Ctrl-C was heard where it could not be raised."""


def _plan(options: argparse.Namespace, kept: keep.Kept | None = None) -> Plan:
    """What is asked for; what is not said is as in the file of trained controllers, or the default."""
    seeds = seeds_of(options, 8 if kept is None else kept.header.seeds)
    scenario = "paper" if kept is None else kept.scenario()
    plan = make_plan(
        scenario if options.scenario is None else options.scenario,
        overrides=options.set,
        schemes=options.schemes or ([kept.header.scheme] if kept else None),
        server=options.server or (kept.header.server if kept else None),
        blocks=options.blocks,
        seeds=seeds,
        warmup=options.warmup,
        precision=options.precision or (kept.header.precision if kept else "float32"),
    )
    return replace(plan, name=kept.header.scenario_name) if kept and options.scenario is None else plan


def seeds_of(options: argparse.Namespace, default: int | Sequence[int]) -> int | Sequence[int]:
    """A count or seeds, from --seed and --seeds."""
    if options.seed is not None:
        return [options.seed]
    given: list[int] = options.seeds or []
    if len(given) == 1 and given[0] > MOST_SEEDS:
        raise InputError(f"--seeds {shown(given[0])}: allowed is a count from 1 up to {MOST_SEEDS}, or several seeds")
    return default if not given else given[0] if len(given) == 1 else given


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
def _progress(blocks: int, console: Console) -> Generator[OnProgress]:
    """A bar for so many blocks of all schemes together."""
    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=blocks)

        def on_progress(name: str, done: int) -> None:
            if INTERRUPTED.is_set():
                raise KeyboardInterrupt
            bar.update(task, description=name, advance=done)

        yield on_progress


def compare(options: argparse.Namespace) -> None:
    """Schemes side by side."""
    plan, errors = _plan(options), terminal(errors=True)
    if CONSTANT not in plan.schemes and any(map(learns, plan.schemes)):
        errors.print(f"What learns should beat `{CONSTANT}`, tuned on other seeds: add it to --schemes.", style="dim")
    with _destinations(options) as (folder, file):
        _say_load(plan, errors)
        with _progress(plan.blocks * len(plan.schemes), errors) as on_progress:
            dataset = execute(plan, on_progress)
        _write(dataset, folder, file, lambda out: _figures().write_comparison(dataset, out))
    _show(dataset, options)


def learns(name: str) -> bool:
    """Whether a scheme's devices learn."""
    return type(find_scheme(name).device).learn is not DeviceController.learn


def run(options: argparse.Namespace) -> None:
    """One scheme, and single devices block by block; trained controllers are kept and go on."""
    kept = keep.read(options.load) if options.load else None
    options.schemes = options.schemes or (None if kept else ["exact"])
    plan, errors = _plan(options, kept), terminal(errors=True)
    if len(plan.schemes) != 1:
        raise InputError(f"--schemes {' '.join(plan.schemes)}: 'run' takes one scheme; use 'compare' for several")
    for device in options.trace:
        if not 0 <= device < plan.scenario.devices:
            raise InputError(f"--trace {device}: allowed is a device from 0 to {plan.scenario.devices - 1}")
    if kept:
        keep.check(kept, plan)
    with _destinations(options) as (folder, file), _trained_to(options) as trained:
        _say_load(plan, errors)
        if kept:
            errors.print(f"Goes on with {plan.schemes[0]} after block {kept.header.blocks}.", style="dim")
        with _progress(plan.blocks, errors) as on_progress:
            dataset = execute(plan, on_progress, tuple(dict.fromkeys(options.trace)), _player(kept, trained))
        if trained and str(dataset["status"].values[0]) == "not_applicable":
            raise InputError(f"--save {options.save}: {plan.schemes[0]} learned nothing: {dataset['reason'].values[0]}")
        dataset = keep.goes_on(dataset, kept)
        _write(dataset, folder, file, lambda out: _figures().write_run(dataset, out))
    _show(dataset, options)


def _trained_to(options: argparse.Namespace) -> contextlib.AbstractContextManager[Path | None]:
    """The file to keep trained controllers in, if it is wanted."""
    if not options.save:
        return contextlib.nullcontext()
    sample_placement, taken = (
        os.path.realpath(options.save),
        options.json not in (None, "-") and os.path.realpath(options.json),
    )
    if sample_placement == taken or (
        options.out and Path(sample_placement).is_relative_to(os.path.realpath(options.out))
    ):
        raise InputError(f"--save {options.save}: is taken by --out or --json; choose another place")
    return store.new_file(Path(options.save), options.overwrite, "--save")


def _player(kept: keep.Kept | None, trained: Path | None) -> Player:
    """Runs a scheme from where `kept` ends, and keeps what it has learned."""

    def play(plan: Plan, name: str, world: World, on_progress: OnProgress, traces: bool) -> Run:
        played = keep.proceed(kept, plan, name, world, on_progress, traces)
        if trained:
            keep.save(trained, plan, played, kept.header.blocks if kept else 0)
        return played

    return play


def bound(options: argparse.Namespace) -> None:
    """The lower bound alone."""
    asked = "paper" if options.scenario is None else options.scenario
    scenario = load(asked, options.set)
    world = build(scenario, sample_placement(scenario))
    with _destinations(options) as (_, file):
        try:
            found = lower_bound(world)
        except NoBound as why:
            raise InputError(str(why)) from None
        document = bound_report.as_json(found, scenario, world.server)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        if file:
            file.write_text(text, "utf-8")
    if options.json == "-":
        print(text, end="")
    else:
        terminal().print(bound_report.details_table(document, Path(asked).stem))


def _figures() -> Any:
    """`partway.figures`, which brings matplotlib: half a second that only --out has to wait for."""
    from partway import figures

    return figures


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


def _say_load(plan: Plan, console: Console) -> None:
    placement = sample_placement(plan.scenario)
    console.print(load_of(plan.scenario, build(plan.scenario, placement)).sentence(), style="dim")


def _say_where(options: argparse.Namespace) -> None:
    console = terminal(errors=True)
    if options.out:
        console.print(f"Figures, data and JSON are in {options.out}")
    elif not options.json:
        console.print("Nothing was written; --out DIR keeps data and figures.", style="dim")


def cut(options: argparse.Namespace) -> None:
    """Where to cut a network now."""
    from partway.cli import cut as cut_command
    from partway.planner import report as cut_report  # with matplotlib, like `_figures`

    found, errors = cut_command.question(options), terminal(errors=True)
    with _destinations(options) as (folder, file):
        with _progress(cut_command.blocks(options), errors) as on_progress:
            answer = cut_command.solve(options, found, on_progress)
        text = json.dumps(cut_report.as_json(answer), indent=1, allow_nan=False) + "\n"
        if file:
            file.write_text(text, "utf-8")
        if folder:
            cut_command.write(options, answer, text, folder)
    if options.json == "-":
        print(text, end="")
    else:
        terminal().print(cut_report.details_table(answer))
    _say_where(options)


def schemes(options: argparse.Namespace) -> None:
    """What can be compared."""
    console = terminal()
    if options.scheme is None:
        rows = [(name, scheme.about, *map(str, scheme.signalling().values())) for name, scheme in SCHEMES.items()]
        console.print(listing(("scheme", "what it does", "up", "down"), rows))
        console.print("up/down: numbers sent per device and block for control", style="dim")
        return
    about = find_scheme(options.scheme).about
    console.print(f"{options.scheme}: {about}")
    rows = [
        (f"schemes.{options.scheme}.{name}", shown(value)) for name, value in hyperparameters(options.scheme).items()
    ]
    console.print(listing(("set with --set", "default"), rows))
    for words in explanations(options.scheme):
        console.print(f"\n{words}", style="dim")


def scenarios(options: argparse.Namespace) -> None:
    """The presets."""
    terminal().print(listing(("scenario", "what it is"), list(presets().items())))


def scenario(options: argparse.Namespace) -> None:
    """A preset's file."""
    print(preset_text(options.name), end="")


def profile_network(options: argparse.Namespace) -> None:
    """One network: where it can be cut."""
    from partway.cli import profile as profile_command  # with matplotlib, like `_figures`

    profile_command.profile_network(options)
