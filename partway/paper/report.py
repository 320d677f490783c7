"""What a reproduction found: a table for the terminal, a table for a document, JSON, and every comparison as CSV."""

import csv
import math
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from partway.errors import InputError
from partway.paper.claims import CANDIDATES, PHASES, READINGS, Claim
from partway.paper.jobs import code_hash
from partway.paper.proposition1 import DISCOUNTS, PARTIES, PropositionPart, bounds
from partway.paper.reproduce import HEADLINE, Findings, phase_shown
from partway.paper.statistics import ALPHA, FAILS, HOLDS, NOT_APPLICABLE, UNDECIDED
from partway.paper.verdicts import Verdict, bounded_exp, phases
from partway.provenance import version

SCHEMA_VERSION = 1
ENOUGH = 20
"""Replicates from which on a verdict is meant to be quoted."""
TINTS = {HOLDS: "green", FAILS: "red", UNDECIDED: "yellow", NOT_APPLICABLE: "dim"}
PHASE_WORDS = {"": "", "from_start": "from empty queues", "after_training": "after training"}
READING_WORDS = {"conserving": "(1) conserving work", "as_printed": "(1) as printed"}
MARKS = ("<!-- claims: begin, written by `make reproduce` -->", "<!-- claims: end -->")
"""Lines of a document between which the table of claims is written."""


def show(findings: Findings) -> Group:
    """A row for each claim and phase, a column for each candidate, a table for each reading."""
    tables = [_table(findings, reading) for reading in READINGS]
    words = (
        f"{len(findings.sizes.seeds)} replicates, each with a seed and a placement of its own. "
        f"In a column a verdict on Figures 6 to 9 is wrong in any row with a chance of {ALPHA:.0%} at most (Holm); "
        "in it P1 is a family of its own."
    )
    if len(findings.sizes.seeds) < ENOUGH:
        words += f" Fewer than {ENOUGH} replicates: these verdicts only show that all of it runs."
    return Group(*tables, Text(words, style="dim"))


def _table(findings: Findings, reading: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold", title=READING_WORDS[reading], title_justify="left")
    grid.add_column("claim", no_wrap=True)
    grid.add_column("", ratio=1)
    for name in CANDIDATES:
        grid.add_column(name, no_wrap=True)
    for claim in findings.claims:
        for phase in phases(claim):
            cells = [findings.of(claim.id, name, reading, phase).verdict for name in CANDIDATES]
            shown = [Text("-" if cell == NOT_APPLICABLE else cell, style=TINTS[cell]) for cell in cells]
            grid.add_row(claim.id, f"{claim.text.split(':')[0]}{', ' * bool(phase)}{PHASE_WORDS[phase]}", *shown)
    return grid


def markdown(findings: Findings) -> str:
    """The table for a document: verdicts with the interval that decides."""
    seeds = findings.sizes.seeds
    lines = [
        f"`{findings.command}`:",
        f"{len(seeds)} replicates (seeds and placements {seeds[0]} to {seeds[-1]}), scenario `{findings.preset}`. In",
        "brackets: the interval of the comparison that decides, at its level by Holm's method (see `claims.csv`), so",
        "that a column's verdicts on Figures 6 to 9 are all right with 95 %; in a column P1 is a family of its own. A",
        "ratio above 1 is for the claim. R1 is counted, not estimated, and the same under both readings: its",
        "brackets hold the least and the greatest ratio over K. A scheme that cannot play has a -.",
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
    return "\n".join([*lines, "", *_failures(findings), "", *_sides(findings)])


def _held(findings: Findings, candidate: str, reading: str) -> str:
    """How many verdicts on Figures 6 to 9 are that a claim holds."""
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
    return ["What decides the claims that fail, candidate by candidate:", "", *filter(None, lines)]


def _failure(findings: Findings, claim: Claim, reading: str, phase: str) -> str:
    """What decides it, once for candidates that share it; "" where it fails with none."""
    by_reason: dict[str, list[str]] = {}
    for name in CANDIDATES:
        one = findings.of(claim.id, name, reading, phase)
        if one.verdict == FAILS:
            by_reason.setdefault(one.why, []).append(f"`{name}`")
    words = [f"{', '.join(names)}: {why}" for why, names in by_reason.items()]
    about = ", ".join(word for word in (READING_WORDS[reading], PHASE_WORDS[phase]) if word)
    return f"- **{claim.id}** ({about}) {' '.join(words)}" if words else ""


def _sides(findings: Findings) -> list[str]:
    """Both sides of (37) and (38) at the end of the run, medians of replicates."""
    runs = {part: arrays for part, arrays in findings.runs.items() if isinstance(part, PropositionPart)}
    own = {part.scheme: bounds(arrays) for part, arrays in runs.items() if part.reading == HEADLINE[0]}
    last = next(iter(runs)).checkpoints[-1]
    head = [f"`{name}`: left | right | right / (1 - gamma)" for name in own]
    lines = [
        f"Both sides of (37) and (38) at block {last}, medians of the replicates, {READING_WORDS[HEADLINE[0]]}; the",
        "last column is what a contraction gives, but for the largest error there and the mean one here:",
        "",
        f"| | gamma | {' | '.join(head)} |",
        f"|---|---|{'---|' * 3 * len(own)}",
    ]
    for party, number in PARTIES.items():
        for i, gamma in enumerate(DISCOUNTS):
            sides = [
                np.median(side[-1])
                for found in own.values()
                for side in (found[i].left[party], found[i].right(party), found[i].certain(party))
            ]
            lines.append(f"| {number}, {party} | {gamma:g} | {' | '.join(f'{side:.2g}' for side in sides)} |")
    return lines


def _cell(one: Verdict) -> str:
    return "-" if one.verdict == NOT_APPLICABLE else f"{one.verdict} {interval_words(one)}".strip()


def interval_words(one: Verdict) -> str:
    """The interval that decides, short."""
    found = one.interval()
    if found is None or not all(map(math.isfinite, found)):
        return ""
    return f"[{_short(found[0])}, {_short(found[1])}]"


def _short(number: float) -> str:
    return f"{number:.2f}" if 0.1 <= abs(number) < 100 else f"{number:.1e}"


def marked(document: Path) -> str:
    """What stands in a document that has each of MARKS once; raises InputError for any other."""
    try:
        text = document.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--table {document}: cannot be read ({error}); name a document with marks") from None
    if any(text.count(mark) != 1 for mark in MARKS):
        raise InputError(f"--table {document}: must hold each of these lines once: {' and '.join(MARKS)}")
    return text


def insert(document: Path, findings: Findings) -> None:
    """Write the table between the two MARKS of a document."""
    text = marked(document)
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    document.write_text(f"{before}{MARKS[0]}\n{markdown(findings)}\n{MARKS[1]}{after}", "utf-8")


def as_json(findings: Findings) -> dict[str, Any]:
    """For programs; a verdict of `schemes` is that of HEADLINE, all others are in `cases`."""
    seeds = list(findings.sizes.seeds)
    return {
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
        "jobs": findings.jobs,
        "code": code_hash(findings.runs),
        "versions": made_with(),
        "claims": [_claim(findings, claim) for claim in findings.claims],
    }


def made_with() -> dict[str, str]:
    """Versions of what makes the numbers."""
    versions = {"partway": version(), "jax": jax.__version__, "numpy": np.__version__}
    return {**versions, "python": platform.python_version()}


def _claim(findings: Findings, claim: Claim) -> dict[str, Any]:
    schemes: dict[str, Any] = {}
    for name in CANDIDATES:
        shown = findings.of(claim.id, name, HEADLINE[0], phase_shown(claim))
        cases = [_case(findings.of(claim.id, name, reading, phase)) for reading in READINGS for phase in phases(claim)]
        schemes[name] = {**_verdict(shown), "cases": cases}
    return {"id": claim.id, "figure": claim.figure or None, "text": claim.text, "test": claim.test, "schemes": schemes}


def _verdict(one: Verdict) -> dict[str, Any]:
    found = one.interval()
    return {"verdict": one.verdict, "interval": None if found is None else [finite(value) for value in found]}


def _case(one: Verdict) -> dict[str, Any]:
    decided = None if one.deciding is None else one.labels[one.deciding]
    about = {"reading": one.reading, "phase": one.phase or None, "unit": one.unit}
    confidence = None if one.deciding is None else 1.0 - one.decisions[one.deciding].level
    counted = {"comparisons": len(one.decisions), "deciding": decided, "why": one.why or None}
    return {**about, **_verdict(one), "confidence": confidence, **counted}


def finite(value: float) -> float | None:
    """A number as JSON has it."""
    return float(value) if math.isfinite(value) else None


def write_comparisons(findings: Findings, path: Path) -> None:
    """claims.csv: every comparison of every verdict, with its interval."""
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
