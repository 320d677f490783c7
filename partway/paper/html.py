"""A reproduction as one HTML page without any other file: verdicts, figures, and the origin of every number."""

import base64
import inspect
import shlex
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from partway.paper import figure_runs, information, proposition1, remark1, statistics, verdicts
from partway.paper.claims import CANDIDATES, READINGS, Claim, claims
from partway.paper.figure_runs import KINDS, FigureJob
from partway.paper.jobs import REPRODUCTION, job_key, jobs_code_hash
from partway.paper.report import KIND_WORDS, PHASE_WORDS, READING_WORDS, interval_words, verdict_words
from partway.paper.reproduce import Findings
from partway.paper.statistics import ALPHA, ENOUGH, FAILS, HOLDS, NOT_APPLICABLE, TOO_FEW, UNDECIDED
from partway.paper.verdicts import Verdict, has_baselines, phases
from partway.provenance import versions

TEMPLATE = "report.html"
CLASSES = {HOLDS: "holds", FAILS: "fails", UNDECIDED: "undecided", NOT_APPLICABLE: "none", TOO_FEW: "none"}
"""Style of a verdict."""
SOURCES: dict[str, Callable[..., Any]] = {
    "the claims, their windows and points": claims,
    "the runs": figure_runs.run_job,
    "one lane of them": figure_runs.lanes,
    "the block at which learning has converged": figure_runs.converged,
    "the value of a term of a claim": verdicts.value,
    "intervals and Holm's method": statistics.decide,
    "the verdict": statistics.verdict,
    "Proposition 1, both sides": proposition1.PropositionJob.run,
    "R1, operations": remark1.operations,
    "D1 and D2, declarations": information.judge,
}
"""The functions that compute the numbers."""
AS_PRINTED = "; (1) as printed: queue = 'as_printed'"
SCENARIOS = {
    "6": ("Figure 6", AS_PRINTED),
    "7": ("Figure 7", AS_PRINTED),
    "8": ("Figure 8", f"; device.arrival_prob varies{AS_PRINTED}"),
    "9": ("Figure 9", f"; devices varies{AS_PRINTED}"),
    "P1": ("Proposition 1", f"; discount varies{AS_PRINTED}"),
    "R2": ("Remark 2", f"; discount varies, start_value = 10 (1 - discount){AS_PRINTED}"),
    "R1": ("claim R1", "; devices varies"),
}
"""What a scenario is of, and which of its fields differ between the runs."""


def page(findings: Findings, figures: Sequence[Path]) -> str:
    """The page; `figures` are SVG files, which it contains."""
    template = files("partway.paper").joinpath(TEMPLATE).read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        findings=findings,
        seeds=findings.sizes.seeds,
        counts={word: sum(one.verdict == word for one in findings.verdicts) for word in CLASSES},
        classes=CLASSES,
        enough=ENOUGH,
        alpha=ALPHA,
        candidates=CANDIDATES,
        tables={
            f"{READING_WORDS[reading]}, {KIND_WORDS[kind].replace('`', '')}": _rows(findings, reading, kind)
            for kind in KINDS
            for reading in READINGS
        },
        figures=[_figure(path) for path in figures],
        claims=[_claim(findings, claim) for claim in findings.claims],
        origin=_origin(findings),
    )


def _rows(findings: Findings, reading: str, kind: str) -> list[dict[str, Any]]:
    """A row of the table of verdicts for each claim and phase; with other baselines, of claims that are on them."""
    return [
        {
            "claim": claim,
            "phase": PHASE_WORDS[phase],
            "cells": [_cell(findings.of(claim.id, name, reading, phase, kind)) for name in CANDIDATES],
        }
        for claim in findings.claims
        if kind == KINDS[0] or has_baselines(claim)
        for phase in phases(claim)
    ]


def _cell(one: Verdict) -> dict[str, str]:
    return {"verdict": verdict_words(one), "interval": interval_words(one), "style": CLASSES[one.verdict]}


def _figure(path: Path) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"name": path.stem, "title": path.stem.replace("-", " ").capitalize(), "data": data}


def _claim(findings: Findings, claim: Claim) -> dict[str, Any]:
    """A claim with what decides each of its verdicts."""
    own = [one for one in findings.verdicts if one.claim == claim.id and one.verdict != NOT_APPLICABLE]
    return {"claim": claim, "verdicts": [_detail(one) for one in own]}


def _detail(one: Verdict) -> dict[str, Any]:
    signs = [decision.sign for decision in one.decisions]
    count = f"{signs.count(1)} for, {signs.count(-1)} against, {signs.count(0)} open" if signs else one.unit
    about = [one.candidate, READING_WORDS[one.reading], PHASE_WORDS[one.phase], one.baselines]
    return {"about": about, "cell": _cell(one), "count": count, "why": one.why}


def _origin(findings: Findings) -> dict[str, Any]:
    """How to get from a number to the command, the seeds, the scenario and the line of code."""
    folder = REPRODUCTION.units
    return {
        "folder": folder,
        "code": jobs_code_hash(findings.runs),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "sources": {what: _location(function) for what, function in SOURCES.items()},
        "runs": [
            (job.label(), f"{folder}/{REPRODUCTION.file_name(job_key(job))}", _command(job)) for job in findings.runs
        ],
        "scenarios": _scenarios(findings),
    }


def _command(job: Any) -> str:
    """A command that runs a job alone."""
    if isinstance(job, FigureJob):
        return job.command()
    program = f"from {type(job).__module__} import {type(job).__name__}; print({job!r}.run())"
    return shlex.join(["python", "-c", program])


def _scenarios(findings: Findings) -> list[tuple[str, str]]:
    """(title, TOML) of the complete scenario of each figure, of P1, R2 and R1; their schemes differ in nothing else."""
    first: dict[str, Any] = {}
    for job in findings.runs:
        first.setdefault(job.figure, job)
    return [("".join(SCENARIOS[figure]), job.scenario().to_toml()) for figure, job in first.items()]


def _location(function: Callable[..., Any]) -> str:
    line = inspect.getsourcelines(inspect.unwrap(function))[1]
    return f"{function.__module__}:{function.__qualname__}, line {line}"
