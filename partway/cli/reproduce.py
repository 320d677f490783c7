"""`partway reproduce`: section VI of the paper, its figures and a verdict on each of its claims."""

import argparse
import contextlib
import json
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from partway import files as store
from partway.cli.terminal import terminal
from partway.errors import InputError, shown
from partway.paper.figure_runs import FULL, QUICK, Sizes
from partway.paper.html import page
from partway.paper.jobs import missing
from partway.paper.report import as_json, insert, marked, show, write_comparisons
from partway.paper.reproduce import Findings, all_parts, reproduce
from partway.scenario.loading import load
from partway.workers import jobs_of

COST_COMPONENTS = "parts"
"""Folder of what has been computed, in --out: what makes a stopped run go on."""
MARK = "reproduction.txt"
"""A file in --out that says what the folder is."""
MARK_TEXT = "A reproduction of section VI by Partway; parts/ holds what has been computed.\n"
PER_PART = 300_000
"""Device-blocks that take as long as a part's compilation, for the time left."""


def reproduce_paper(options: argparse.Namespace) -> None:
    """Figures 6 to 9, Proposition 1, Remark 1, and verdicts."""
    sizes = QUICK if options.quick else FULL
    jobs = jobs_of(options.jobs)
    preset = options.scenario or "paper"
    kinds = {one.task.kind for one in load(preset).device_classes()}
    if kinds != {"proportional"}:
        raise InputError(
            f"--scenario {shown(preset, 100)}: section VI needs tasks of kind 'proportional', the paper's law"
        )
    if options.table:
        marked(options.table)
    errors, to_file = terminal(errors=True), options.json not in (None, "-")
    target = store.new_file(Path(options.json), options.overwrite, "--json") if to_file else contextlib.nullcontext()
    folder = prepared(options.out, options.overwrite) if options.out else None
    with target as file:
        findings = _found(sizes, preset, folder, jobs, errors)
        text = json.dumps(as_json(findings), indent=1, allow_nan=False) + "\n"
        if file:
            file.write_text(text, "utf-8")
        if folder:
            write(findings, text, folder)
    if options.table:
        insert(options.table, findings)
    if options.json == "-":
        print(text, end="")
    else:
        terminal().print(show(findings))
    errors.print(f"The report is {options.out / 'report.html'}" if folder else "Nothing was kept; --out DIR keeps it.")


def _found(sizes: Sizes, preset: str, folder: Path | None, jobs: int, errors: Console) -> Findings:
    """The findings; on Ctrl-C a word on how to go on."""
    try:
        kept = folder / COST_COMPONENTS if folder else None
        with progress(missing(all_parts(sizes, preset), kept), errors) as on_progress:
            return reproduce(sizes, preset, kept, jobs, on_progress)
    except KeyboardInterrupt:
        kept = f"what is done is kept in {folder}, the same command goes on" if folder else "nothing was kept"
        raise KeyboardInterrupt(f"interrupted; {kept}") from None


def prepared(out: Path, overwrite: bool) -> Path:
    """The folder, made if need be; raises InputError where it holds a finished report or anything that is not ours."""
    given = f"--out {shown(str(out), 100)}"
    if out.exists() and not out.is_dir():
        raise InputError(f"{given}: is not a folder; choose another name")
    try:
        names = {path.name for path in out.iterdir()} if out.exists() else set[str]()
        if names and MARK not in names:
            raise InputError(f"{given}: holds other things than a reproduction; choose another folder")
        if "report.html" in names and not overwrite:
            raise InputError(f"{given}: holds a report already; add --overwrite or choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).write_text(MARK_TEXT, "utf-8")
    except OSError as error:
        raise InputError(f"{given}: cannot be written ({error.strerror}); choose another place") from None
    return out


def write(findings: Findings, text: str, folder: Path) -> None:
    """Figures, claims.csv, report.json and report.html, each whole; report.html comes last."""
    making = folder / ".making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    from partway.figures import paper as figures  # matplotlib takes half a second

    names = figures.write(findings, making)
    write_comparisons(findings, making / "claims.csv")
    (making / "report.json").write_text(text, "utf-8")
    (making / "report.html").write_text(page(findings, [making / f"{name}.svg" for name in names]), "utf-8")
    for path in sorted(making.iterdir(), key=lambda path: path.name == "report.html"):
        path.replace(folder / path.name)
    making.rmdir()


@contextlib.contextmanager
def progress(parts: Sequence[Any], console: Console) -> Generator[Callable[[Any], None]]:
    """A bar with the time left, by the size of the parts that are still to be computed."""
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    weights = {part: _weight(part) for part in parts}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(weights.values()))
        yield lambda part: bar.update(task, description=part.label(), advance=weights.get(part, 0.0))


def _weight(part: Any) -> float:
    return part.device_blocks() + PER_PART


def add_flags(parser: argparse.ArgumentParser, whole: Callable[[str], int]) -> None:
    """The flags of `partway reproduce`."""
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer replicates and points")
    add("--scenario", metavar="NAME|FILE", help="instead of the preset paper; its tasks of kind proportional")
    add("--out", type=Path, metavar="DIR", help="keep the report, figures and parts here; a stopped run goes on")
    add("--json", metavar="FILE|-", help="write JSON; '-': to stdout, and nothing else there")
    add("--table", type=Path, metavar="FILE.md", help="write the table of claims between its marks in a document")
    add("--jobs", type=whole, metavar="N", help="processes (default: as many as cores)")
    add("--overwrite", action="store_true", help="replace a report that exists; what is computed stays")
