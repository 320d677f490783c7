"""The report of a reproduction: tables for the terminal and for a document, JSON, and every comparison as CSV."""

import csv
import math
import os
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from partway.errors import InputError, shown
from partway.files import clear_stale, read_limited, refusals, why, write_whole, written
from partway.formatting import plain
from partway.paper.claims import CANDIDATES, PHASES, READINGS, Claim
from partway.paper.figure_runs import KINDS, supports
from partway.paper.jobs import jobs_code_hash
from partway.paper.reproduce import HEADLINE, Findings, phase_shown
from partway.paper.statistics import ALPHA, ENOUGH, FAILS, HOLDS, NOT_APPLICABLE, TOO_FEW, UNDECIDED
from partway.paper.verdicts import Verdict, bounded_exp, phases
from partway.provenance import versions
from partway.text_tables import Grid

SCHEMA_VERSION = 2
COLOURS = {HOLDS: "green", FAILS: "red", UNDECIDED: "yellow", NOT_APPLICABLE: "dim", TOO_FEW: "dim"}
PHASE_WORDS = {"": "", "from_start": "from empty queues", "after_training": "after training"}
READING_WORDS = {"conserving": "(1) conserving work", "as_printed": "(1) as printed"}
KIND_WORDS = {"literal": "baselines as section VI words them", "q-learned": "`binary`, `even` and `random`"}
MAX_DOCUMENT_BYTES = 10_000_000
DOCUMENT_COLUMNS = 122
MARKS = ("<!-- claims: begin, written by `make reproduce` -->", "<!-- claims: end -->")
"""Lines of a document between which `insert` writes the table of claims."""


def show(findings: Findings) -> Group:
    """A row for each claim and phase, a column for each candidate, a table for each reading."""
    tables = [_table(findings, reading) for reading in READINGS]
    words = (
        f"{len(findings.sizes.seeds)} replicates, each with its own seed and placement. The probability that any "
        f"verdict on Figures 6 to 9 in a column is wrong is at most {ALPHA:.0%} (Holm's method); P1 and R2 are "
        f"families of their own, of {findings.sizes.points.replicates} replicates."
    )
    if len(findings.sizes.seeds) < ENOUGH:
        words = _too_few(findings)
    return Group(*tables, Text(words, style="dim"))


def _table(findings: Findings, reading: str) -> Grid:
    grid = Grid(READING_WORDS[reading], keys=2)
    grid.add_column("claim")
    grid.add_column("", wrap=True)
    for name in CANDIDATES:
        grid.add_column(name)
    for claim in findings.claims:
        for phase in phases(claim):
            cells = [findings.of(claim.id, name, reading, phase) for name in CANDIDATES]
            words = [Text(verdict_words(cell), style=COLOURS[cell.verdict]) for cell in cells]
            grid.add_row(claim.id, f"{claim.text.split(':')[0]}{', ' * bool(phase)}{PHASE_WORDS[phase]}", *words)
    return grid


def markdown(findings: Findings) -> str:
    """The table for a document: verdicts under HEADLINE's reading, and how many hold under the other."""
    headline = f"With {READING_WORDS[HEADLINE[0]]} (what is sent leaves the queue, which (1) does not say: T1):"
    lines = [*_about(findings), headline, "", *_verdicts(findings, HEADLINE[0])]
    if len(findings.sizes.seeds) < ENOUGH:
        return "\n".join(lines)
    for reading in (one for one in READINGS if one != HEADLINE[0]):
        able = [name for name in CANDIDATES if supports(name, reading)]
        held = [f"{_held(findings, name, reading)} hold with `{name}`" for name in able]
        lines += ["", f"With {READING_WORDS[reading]} {', '.join(held)}; the others cannot run."]
    return "\n".join(lines)


def everything(findings: Findings) -> str:
    """A document: the verdicts under every reading, and what decides the claims that fail."""
    lines = ["# Every verdict", "", *_about(findings)]
    for reading in READINGS:
        lines += ["", f"## With {READING_WORDS[reading]}", "", *_verdicts(findings, reading)]
    return "\n".join([*lines, "", *_failures(findings), ""])


def _about(findings: Findings) -> list[str]:
    """What was run by which code, and how to read a cell."""
    seeds, numbers = findings.sizes.seeds, ", ".join(f"{name} {number}" for name, number in versions().items())
    made = (
        f"`{findings.command}`: {len(seeds)} replicates (seeds and placements {seeds[0]} to {seeds[-1]}), scenario "
        f"`{findings.preset}`; code `{jobs_code_hash(findings.runs)}` (hash of all modules that the runs depend on), "
        f"{numbers}. "
    )
    reading = (
        "Brackets hold the interval of the comparison that decides, at its level by Holm (`claims.csv`): the "
        f'probability that any "holds" or "fails" of a column on Figures 6 to 9 is wrong, for our values, is at most '
        f"{ALPHA:.0%}; P1, R2 are families of their own, of {findings.sizes.points.replicates} replicates. A ratio "
        "above 1 supports the claim. R1 is counted, with its least and greatest ratio over K; D1 and D2 follow from "
        "what a scheme declares. A dash: the scheme cannot run, or the claim is not on it. Baselines are as section VI "
        "words them, with the candidate's gradient and steps, or those of `parametric`; the last row counts those that "
        "hold with `binary`, `even`, `random` instead."
    )
    return textwrap.wrap(made + (_too_few(findings) if len(seeds) < ENOUGH else reading), DOCUMENT_COLUMNS)


def _too_few(findings: Findings) -> str:
    return (
        f"{len(findings.sizes.seeds)} replicates are too few for a verdict, which takes {ENOUGH}: a cell says how many "
        "of a claim's comparisons point its way in the mean."
    )


def _verdicts(findings: Findings, reading: str) -> list[str]:
    """A row for each claim and phase, a column for each candidate, and the number of claims that hold."""
    lines = [f"| claim | | {' | '.join(CANDIDATES)} |", "|---|---|" + "---|" * len(CANDIDATES)]
    for claim in findings.claims:
        for phase in phases(claim):
            cells = [_cell(findings.of(claim.id, name, reading, phase)) for name in CANDIDATES]
            about = claim.text + (f", {PHASE_WORDS[phase]}" if phase else "")
            lines.append(f"| {claim.id} | {about} | {' | '.join(cells)} |")
    for kind, words in KIND_WORDS.items():
        held = " | ".join(_held(findings, name, reading, kind) for name in CANDIDATES)
        lines.append(f"| hold | of those on Figures 6 to 9, with {words} | {held} |")
    return lines


def _held(findings: Findings, candidate: str, reading: str, kind: str = KINDS[0]) -> str:
    """How many claims on Figures 6 to 9 hold, of how many; a dash where there are no verdicts."""
    figures = [(claim.id, phase) for claim in findings.claims if claim.figure for phase in phases(claim)]
    own = [findings.of(claim, candidate, reading, phase, kind) for claim, phase in figures]
    if any(one.verdict in (NOT_APPLICABLE, TOO_FEW) for one in own):
        return "-"
    return f"{sum(one.verdict == HOLDS for one in own)} of {len(own)}"


def _failures(findings: Findings) -> list[str]:
    """A line for each claim, reading and phase that fails with any candidate."""
    cells = [(claim, reading, phase) for reading in READINGS for claim in findings.claims for phase in phases(claim)]
    lines = [_failure(findings, *cell) for cell in cells]
    failing = list(filter(None, lines))
    return ["What decides the claims that fail, by candidate:", "", *failing] if failing else []


def _failure(findings: Findings, claim: Claim, reading: str, phase: str) -> str:
    """What decides it, once for candidates that share the reason; "" where the claim fails for none."""
    by_reason: dict[str, list[str]] = {}
    for name in CANDIDATES:
        one = findings.of(claim.id, name, reading, phase)
        if one.verdict == FAILS:
            by_reason.setdefault(one.why, []).append(f"`{name}`")
    words = [f"{', '.join(names)}: {why}" for why, names in by_reason.items()]
    about = ", ".join(word for word in (READING_WORDS[reading], PHASE_WORDS[phase]) if word)
    return f"- **{claim.id}** ({about}) {' '.join(words)}" if words else ""


def _cell(one: Verdict) -> str:
    return f"{verdict_words(one)} {interval_words(one)}".strip()


def verdict_words(one: Verdict) -> str:
    """A verdict for a table: a dash where there is none; with too few replicates how many comparisons support it."""
    if one.verdict == TOO_FEW:
        return f"{one.supporting()} of {len(one.decisions)} for"
    return "-" if one.verdict == NOT_APPLICABLE else one.verdict


def interval_words(one: Verdict) -> str:
    """The interval that decides, short; "" where there is none."""
    interval = None if one.verdict == TOO_FEW else one.interval()
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    low, high = interval
    texts = [(_short(low, digits), _short(high, digits)) for digits in (2, 3, 4)]
    return "[{}, {}]".format(*next((pair for pair in texts if pair[0] != pair[1]), texts[0]))


def _short(number: float, digits: int) -> str:
    return f"{number:.{digits}f}" if 0.1 <= abs(number) < 100 else f"{number:.{digits - 1}e}"


def marked(document: Path) -> str:
    """The text of a document that has each of MARKS once. Raises InputError for any other."""
    try:
        text = read_limited(document, MAX_DOCUMENT_BYTES).decode()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--table {document}: cannot be read ({why(error)}); name a document with the lines {' and '.join(MARKS)}"
        ) from None
    if any(text.count(mark) != 1 for mark in MARKS):
        raise InputError(f"--table {document}: must contain each of these lines once: {' and '.join(MARKS)}")
    return text


def insert(document: Path, findings: Findings) -> None:
    """Write the tables between the two MARKS of a document. Raises InputError where that cannot be done."""
    text = marked(document)
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    target = Path(os.path.realpath(document))
    clear_stale(target)
    with refusals(f"--table {shown(str(document), 100)}", "the document is as it was"):
        write_whole(target, f"{before}{MARKS[0]}\n{markdown(findings)}\n{MARKS[1]}{after}".encode())
    written.append(document)


def as_json(findings: Findings) -> dict[str, Any]:
    """The report in JSON types; the verdict of a scheme is that of HEADLINE, and `cases` has all."""
    seeds = list(findings.sizes.seeds)
    document = {
        "schema_version": SCHEMA_VERSION,
        "scenario": findings.preset,
        "seeds": seeds,
        "placements": seeds,
        "readings": list(READINGS),
        "phases": list(PHASES),
        "headline": {"reading": HEADLINE[0], "phase": HEADLINE[1]},
        "confidence": 1.0 - ALPHA,
        "command": findings.command,
        "seconds": findings.seconds,
        "wall_seconds": findings.wall,
        "processes": findings.processes,
        "code": jobs_code_hash(findings.runs),
        "versions": versions(),
        "claims": [_claim(findings, claim) for claim in findings.claims],
    }
    return plain(document)


def _claim(findings: Findings, claim: Claim) -> dict[str, Any]:
    schemes: dict[str, Any] = {}
    for name in CANDIDATES:
        shown = findings.of(claim.id, name, HEADLINE[0], phase_shown(claim))
        cases = [_case(one) for one in findings.verdicts if (one.claim, one.candidate) == (claim.id, name)]
        schemes[name] = {**_verdict(shown), "cases": cases}
    return {"id": claim.id, "figure": claim.figure or None, "text": claim.text, "test": claim.test, "schemes": schemes}


def _verdict(one: Verdict) -> dict[str, Any]:
    return {"verdict": one.verdict, "interval": one.interval()}


def _case(one: Verdict) -> dict[str, Any]:
    decided = None if one.deciding is None else one.labels[one.deciding]
    about = {"reading": one.reading, "phase": one.phase or None, "baselines": one.baselines, "unit": one.unit}
    confidence = None if one.deciding is None else 1.0 - one.decisions[one.deciding].level
    details = {"comparisons": len(one.decisions), "deciding": decided, "why": one.why or None}
    return {**about, **_verdict(one), "confidence": confidence, **details}


def write_comparisons(findings: Findings, path: Path) -> None:
    """Write every comparison of every verdict, with its interval, as CSV."""
    head = (
        "claim",
        "scheme",
        "reading",
        "phase",
        "baselines",
        "comparison",
        "ratio",
        "low",
        "high",
        "confidence",
        "p",
        "says",
    )
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for one in findings.verdicts:
            for label, decision in zip(one.labels, one.decisions, strict=True):
                ratios = [bounded_exp(value) for value in (decision.mean, decision.low, decision.high)]
                says = {1: "for", -1: "against", 0: "open"}[decision.sign]
                numbers = ["" if value != value else f"{value:.6g}" for value in ratios]
                about = (one.claim, one.candidate, one.reading, one.phase, one.baselines, label)
                writer.writerow((*about, *numbers, f"{1 - decision.level:.6g}", f"{decision.p:.3g}", says))
