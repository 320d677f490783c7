"""The first table of the page: the main job against its goals, and its parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.goals import Wanted
from benchmarks.main_job import DEVICE_BLOCK
from benchmarks.main_parts import PARTS
from benchmarks.records import NONE, Measured, Record, found, measured, ratio
from benchmarks.tables import table

TOTAL = "metrics and certificate"
LINES = {
    "start": "start: Python and imports",
    "bound": "bound: placement, world, lower bound",
    "tune": "tune: the constant policy",
    "trace": "programs: trace and lower, or look for one that is kept",
    "compile": "programs: compile",
    "load": "programs: load",
    "play": "play: steps of all schemes",
    "measure": "measure: metrics and certificate",
    "latency": "latency, task by task",
    "write": "write: dataset, JSON, table",
    "figures": "figures, with Matplotlib's import",
    "other": "everything else",
}
"""A line of the table for each part."""


@dataclass(frozen=True)
class Line:
    """A command with a goal: at most so many percent of its time before (d5fbe5c); None: no goal."""

    words: str
    command: str
    cache: str
    most: float | None


OUT = "--out DIR`"
COMPARED = (
    Line(f"`partway compare --scenario paper {OUT}, warm", "compare", "warm", 40),
    Line("the same, cold", "compare", "cold", 55),
    Line(f"`partway run --set devices=4 --blocks 500 {OUT}, warm", "run", "warm", 55),
    Line("the same, cold", "run", "cold", None),
    Line("`partway --help`", "--help", "warm", 25),
    Line("`partway schemes`", "schemes", "warm", 40),
)
MOST_NS = Wanted("<=", 300, "ns")
SECTION = """## The main job

`partway compare` with the 21 schemes that run by default, 20 devices, 2000 blocks and 8 seeds, everything written; and
the commands that are called most. Times of whole processes, from start to end. *Cold*: the folder of compiled programs
is empty. *Warm*: the same command has filled it. *Before*: the same command of the commit d5fbe5c, the last version
before the packages were rearranged, in alternating processes; the column is empty if no checkout of it was given
(`--only main --before PATH`).

{commands}

A device-block of `paper` with {devices} devices and {runs} seeds, on one thread. Metrics are computed by a program of
their own, after the steps; the certificate adds the losses above the lower bound.

{device_blocks}

The parts of `compare`, timed in a process that runs one scheme after another on one thread, so that they add up. The
command itself runs as many schemes at a time as there are cores.

{parts}

"""


def section(records: Sequence[Record]) -> str:
    """The section of the page."""
    return SECTION.format(
        commands=commands(records), device_blocks=device_blocks(records), parts=parts(records), **DEVICE_BLOCK
    )


def commands(records: Sequence[Record]) -> str:
    """Seconds of every command before and now, their ratio, and what it should be."""
    rows = list[list[str]]()
    for line in COMPARED:
        every = found(records, "main", command=line.command)
        now, before = ([one[tree][line.cache] for one in every if tree in one] for tree in ("now", "before"))
        compared = ratio(now, before).times(100) if now and len(now) == len(before) else None
        wanted = Wanted("<=", line.most, "%") if line.most is not None else None
        rows.append(
            [line.words, _words(before), _words(now), _verdict(compared, wanted), wanted.words() if wanted else NONE]
        )
    return table(["command", "before [s]", "now [s]", "now / before", "target"], rows)


def device_blocks(records: Sequence[Record]) -> str:
    """ns a device-block of steps and of measuring them."""
    found_ns = found(records, "main", **DEVICE_BLOCK)
    names = [name for name, ns in found_ns[0].items() if isinstance(ns, list)] if found_ns else [TOTAL]
    rows = list[list[str]]()
    for name in names:
        number, wanted = measured(found_ns[0][name]) if found_ns else None, MOST_NS if name == TOTAL else None
        rows.append([name, _verdict(number, wanted), wanted.words() if wanted else NONE])
    return table(["part", "ns a device-block", "target"], rows)


def parts(records: Sequence[Record]) -> str:
    """Seconds of every part, warm and cold."""
    every = found(records, "main", **{"parts of": "compare"})
    get: dict[str, Callable[[dict[str, float]], float]] = {
        LINES[part]: lambda of, part=part: of[part] for part in PARTS
    }
    get["all"] = lambda of: sum(of.values())
    rows = [
        [name, *(_words([value(one[cache]) for one in every]) for cache in ("warm", "cold"))]
        for name, value in get.items()
    ]
    return table(["part", "warm [s]", "cold [s]"], rows)


def _words(values: Sequence[float]) -> str:
    return measured(values).words() if values else NONE


def _verdict(number: Measured | None, wanted: Wanted | None) -> str:
    """The number, and whether its median meets what is wanted."""
    if number is None:
        return NONE
    verdict = "" if wanted is None else " met" if wanted.met(number.median) else " **missed**"
    return f"{number.words()}{verdict}"
