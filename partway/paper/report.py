"""The report of a reproduction: tables for the terminal and for a document, JSON, and every comparison as CSV."""

import csv
import math
import os
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from partway.errors import InputError, shown
from partway.files import clear_stale, read_limited, refusals, write_whole, written
from partway.formatting import plain
from partway.paper.claims import CANDIDATES, PHASES, READINGS, Claim
from partway.paper.jobs import jobs_code_hash
from partway.paper.reproduce import HEADLINE, Findings, phase_shown
from partway.paper.statistics import ALPHA, FAILS, HOLDS, NOT_APPLICABLE, UNDECIDED
from partway.paper.verdicts import Verdict, bounded_exp, phases
from partway.provenance import versions
from partway.tables import Grid

SCHEMA_VERSION = 2
ENOUGH = 20
"""Least number of replicates of a verdict that can be quoted."""
COLOURS = {HOLDS: "green", FAILS: "red", UNDECIDED: "yellow", NOT_APPLICABLE: "dim"}
PHASE_WORDS = {"": "", "from_start": "from empty queues", "after_training": "after training"}
READING_WORDS = {"conserving": "(1) conserving work", "as_printed": "(1) as printed"}
MAX_DOCUMENT_BYTES = 10_000_000
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
        words += f" With fewer than {ENOUGH} replicates the verdicts only show that everything runs."
    return Group(*tables, Text(words, style="dim"))


def _table(findings: Findings, reading: str) -> Grid:
    grid = Grid(READING_WORDS[reading], keys=2)
    grid.add_column("claim")
    grid.add_column("", wrap=True)
    for name in CANDIDATES:
        grid.add_column(name)
    for claim in findings.claims:
        for phase in phases(claim):
            cells = [findings.of(claim.id, name, reading, phase).verdict for name in CANDIDATES]
            words = [Text("-" if cell == NOT_APPLICABLE else cell, style=COLOURS[cell]) for cell in cells]
            grid.add_row(claim.id, f"{claim.text.split(':')[0]}{', ' * bool(phase)}{PHASE_WORDS[phase]}", *words)
    return grid


def markdown(findings: Findings) -> str:
    """The tables for a document: verdicts with the interval that decides, and what decides claims that fail."""
    seeds = findings.sizes.seeds
    lines = [
        f"`{findings.command}`:",
        f"{len(seeds)} replicates (seeds and placements {seeds[0]} to {seeds[-1]}), scenario `{findings.preset}`.",
        "Brackets hold the interval of the comparison that decides, at its level by Holm's method (see `claims.csv`):",
        f"with a probability of {1 - ALPHA:.0%} all verdicts of a column on Figures 6 to 9 are right; P1 and R2",
        f"are families of their own, of {findings.sizes.points.replicates} replicates. A ratio above 1 supports the",
        "claim. R1 is counted, not estimated, and does not depend on the reading: its brackets hold the least and the",
        "greatest ratio over K. A dash: the scheme cannot run under this reading.",
    ]
    for reading in READINGS:
        lines += ["", f"**{READING_WORDS[reading]}**", "", f"| claim | | {' | '.join(CANDIDATES)} |"]
        lines.append("|---|---|" + "---|" * len(CANDIDATES))
        for claim in findings.claims:
            for phase in phases(claim):
                cells = [_cell(findings.of(claim.id, name, reading, phase)) for name in CANDIDATES]
                about = claim.text + (f", {PHASE_WORDS[phase]}" if phase else "")
                lines.append(f"| {claim.id} | {about} | {' | '.join(cells)} |")
        lines.append(
            f"| hold | of those on Figures 6 to 9 | {' | '.join(_held(findings, n, reading) for n in CANDIDATES)} |"
        )
    return "\n".join([*lines, "", *_failures(findings)])


def _held(findings: Findings, candidate: str, reading: str) -> str:
    """Number of claims on Figures 6 to 9 that hold, and of all of them."""
    own = [
        findings.of(one.id, candidate, reading, phase) for one in findings.claims if one.figure for phase in phases(one)
    ]
    if any(one.verdict == NOT_APPLICABLE for one in own):
        return "-"
    return f"{sum(one.verdict == HOLDS for one in own)} of {len(own)}"


def _failures(findings: Findings) -> list[str]:
    """A line for each claim, reading and phase that fails with any candidate."""
    cells = [(claim, reading, phase) for reading in READINGS for claim in findings.claims for phase in phases(claim)]
    lines = [_failure(findings, *cell) for cell in cells]
    return ["What decides the claims that fail, by candidate:", "", *filter(None, lines)]


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
    return "-" if one.verdict == NOT_APPLICABLE else f"{one.verdict} {interval_words(one)}".strip()


def interval_words(one: Verdict) -> str:
    """The interval that decides, short; "" where there is none."""
    interval = one.interval()
    if interval is None or not all(map(math.isfinite, interval)):
        return ""
    return f"[{_short(interval[0])}, {_short(interval[1])}]"


def _short(number: float) -> str:
    return f"{number:.2f}" if 0.1 <= abs(number) < 100 else f"{number:.1e}"


def marked(document: Path) -> str:
    """The text of a document that has each of MARKS once. Raises InputError for any other."""
    try:
        text = read_limited(document, MAX_DOCUMENT_BYTES).decode()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--table {document}: cannot be read ({error}); name a document with the lines {' and '.join(MARKS)}"
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
        cases = [_case(findings.of(claim.id, name, reading, phase)) for reading in READINGS for phase in phases(claim)]
        schemes[name] = {**_verdict(shown), "cases": cases}
    return {"id": claim.id, "figure": claim.figure or None, "text": claim.text, "test": claim.test, "schemes": schemes}


def _verdict(one: Verdict) -> dict[str, Any]:
    return {"verdict": one.verdict, "interval": one.interval()}


def _case(one: Verdict) -> dict[str, Any]:
    decided = None if one.deciding is None else one.labels[one.deciding]
    about = {"reading": one.reading, "phase": one.phase or None, "unit": one.unit}
    confidence = None if one.deciding is None else 1.0 - one.decisions[one.deciding].level
    details = {"comparisons": len(one.decisions), "deciding": decided, "why": one.why or None}
    return {**about, **_verdict(one), "confidence": confidence, **details}


def write_comparisons(findings: Findings, path: Path) -> None:
    """Write every comparison of every verdict, with its interval, as CSV."""
    head = ("claim", "scheme", "reading", "phase", "comparison", "ratio", "low", "high", "confidence", "p", "says")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for one in findings.verdicts:
            for label, decision in zip(one.labels, one.decisions, strict=True):
                ratios = [bounded_exp(value) for value in (decision.mean, decision.low, decision.high)]
                says = {1: "for", -1: "against", 0: "open"}[decision.sign]
                numbers = ["" if value != value else f"{value:.6g}" for value in ratios]
                about = (one.claim, one.candidate, one.reading, one.phase, label)
                writer.writerow((*about, *numbers, f"{1 - decision.level:.6g}", f"{decision.p:.3g}", says))
