"""Write the tables of docs/proposition-1.md, its figure and its data: Proposition 1 and Remark 2, measured.

The runs are those of `partway reproduce`, and the same with other steps that satisfy (36). Finished runs are kept in
results/proposition1, where the same command finds them again.

make proposition
"""

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from pages import origin, write_section

from partway.experiments import store as stores
from partway.experiments.statistics import estimate
from partway.figures import proposition1 as figure
from partway.figures.common import save
from partway.figures.style import figure_style
from partway.paper.claims import READINGS
from partway.paper.figure_runs import FULL
from partway.paper.jobs import REPRODUCTION, Arrays, job_key, modules, run_jobs
from partway.paper.proposition1 import (
    DISCOUNTS,
    PARTIES,
    PropositionJob,
    Sides,
    divisor,
    jobs,
    judge,
    log_ratio,
    schemes,
    sides,
    smallest,
)
from partway.paper.report import READING_WORDS
from partway.paper.statistics import NOT_APPLICABLE, Decision, decide
from partway.paper.verdicts import bounded_exp
from partway.provenance import made_by

ROOT = Path(__file__).parents[1]
PAGE, DATA, PICTURES = ROOT / "docs" / "proposition-1.md", ROOT / "docs" / "data", ROOT / "docs" / "img"
OUT = ROOT / "results" / "proposition1"
STEPS: Mapping[str, dict[str, float | int]] = {
    "0.01 (1 + t)^-0.6, the schemes'": {},
    "0.1 (1 + t)^-0.6": {"step": 0.1},
    "0.001 (1 + t)^-0.6": {"step": 0.001},
}
"""Steps that satisfy (36), in words, and what differs in the jobs."""
UNITS = (0.1, 1.0, 10.0)
"""Factors c of costs and theta."""
Runs = Mapping[PropositionJob, Arrays]


def main() -> None:
    """Run what is missing and write everything."""
    made = origin()  # before minutes in which the code may change
    base = jobs(FULL)
    others = [replace(job, **changed) for changed in STEPS.values() for job in base if _headline(job)]
    everything = list(dict.fromkeys((*base, *others)))
    request = {"jobs": [asdict(job) for job in everything], "versions": made_by(*modules(everything))}
    with stores.opened(OUT, REPRODUCTION, request, True, [job_key(job) for job in everything]) as store:
        runs: Runs = run_jobs(everything, store, 1, lambda job: print(job.label(), flush=True))
        with store.results() as folder, figure_style():
            save(folder, "proposition-1", figure.draw({job: runs[job] for job in base}))
    shutil.copy(OUT / "proposition-1.png", PICTURES)
    shutil.copy(OUT / "proposition-1.csv", DATA / "reproduction")
    with (DATA / "proposition-1.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEAD, *numbers(runs)])
    write_section(PAGE, "proposition", "\n\n".join([made, *("\n".join(part) for part in sections(runs, base))]))


def _headline(job: PropositionJob) -> bool:
    """Whether it is a run on Proposition 1 under the first reading of (1)."""
    return job.figure == "P1" and job.reading == READINGS[0]


HEAD = (
    *("reading", "scheme", "start", "step", "decay", "blocks", "side of", "gamma", "left", "left 95 % low"),
    *("left 95 % high", "left median", "left by the action alone", "left by parameters alone", "left as printed"),
    *("right", "right 95 % low", "right 95 % high", "right / left", "low", "high"),
    *("right / left by parameters alone", "low alone", "high alone"),
)


def numbers(runs: Runs) -> Iterator[Sequence[str | float]]:
    """A row of the data for each run, party and discount; the last interval is that of Holm's method in its verdict."""
    for job, arrays in runs.items():
        own = sides(arrays)
        decisions, alone = compared(own)
        given = ("scheme's" if value is None else value for value in (job.start, job.step, job.decay))
        about = (job.reading, job.scheme, *given, job.blocks)
        for one, *decided in zip(own, decisions, alone, strict=True):
            left, right = estimate(smallest(one.left)), estimate(one.right)
            parts = (float(np.mean(at_smallest(one, part))) for part in (one.action, one.parameters))
            values = (
                *(left.mean, left.low, left.high, float(np.median(smallest(one.left))), *parts),
                *(float(np.mean(smallest(one.printed))), right.mean, right.low, right.high),
                *(bounded_exp(value) for each in decided for value in (each.mean, each.low, each.high)),
            )
            yield (*about, PARTIES[one.party], one.discount, *(f"{value:.5g}" for value in values))


def compared(own: Sequence[Sides]) -> tuple[list[Decision], list[Decision]]:
    """Right over left side, and right over the part of the left side by parameters alone; each is a family."""
    left = decide([log_ratio(smallest(one.left), one.right) for one in own])
    return left, decide([log_ratio(smallest(one.parameters), one.right) for one in own])


def at_smallest(one: Sides, part: np.ndarray) -> np.ndarray:
    """(replicates,) a part of the left side in the window in which the left side is smallest."""
    half = one.left.shape[1] // 2
    return part[:, half + int(np.argmin(one.left[:, half:].mean(axis=0)))]


def sections(runs: Runs, base: Sequence[PropositionJob]) -> Iterator[list[str]]:
    """The tables of the page."""
    yield verdict_table({job: runs[job] for job in base})
    for scheme in schemes():
        yield side_table(scheme, runs[_job(base, scheme, "P1")])
    yield unit_table({scheme: runs[_job(base, scheme, "P1")] for scheme in schemes()})
    yield step_table(runs)
    yield start_table({scheme: runs[_job(base, scheme, "R2")] for scheme in schemes()})


def _job(base: Sequence[PropositionJob], scheme: str, figure: str) -> PropositionJob:
    return next(job for job in base if (job.scheme, job.figure, job.reading) == (scheme, figure, READINGS[0]))


def verdict_table(runs: Runs) -> list[str]:
    """The verdicts of `partway reproduce` on P1 and R2."""
    lines = ["| claim | | " + " | ".join(f"`{name}`" for name in schemes()) + " |", "|---|---|---|---|"]
    verdicts = [one for one in judge(runs) if one.verdict != NOT_APPLICABLE]
    for claim in ("P1", "R2"):
        for reading in READINGS:
            cells = []
            for name in schemes():
                (own,) = (one for one in verdicts if (one.claim, one.candidate, one.reading) == (claim, name, reading))
                signs = [decision.sign for decision in own.decisions]
                cells.append(f"{own.verdict}: {signs.count(1)} for, {signs.count(-1)} against, {signs.count(0)} open")
            lines.append(f"| {claim} | {READING_WORDS[reading]} | {' | '.join(cells)} |")
    return lines


def side_table(scheme: str, arrays: Arrays) -> list[str]:
    """Both sides for one scheme, with the interval that decides."""
    own = sides(arrays)
    decisions, _ = compared(own)
    head = ("", "gamma", "E_1", "left", "by theta or eta alone", "with the printed gradient", "right", "right / left")
    lines = [f"`{scheme}`:", "", f"| {' | '.join(head)} |", "|---|" + "---|" * (len(head) - 1)]
    for one, decision in zip(own, decisions, strict=True):
        values = (smallest(one.left), at_smallest(one, one.parameters), smallest(one.printed), one.right)
        low, high = bounded_exp(decision.low), bounded_exp(decision.high)
        cells = [PARTIES[one.party], f"{one.discount:g}", f"{divisor(one.discount):.3f}"]
        cells += [short(float(np.mean(value))) for value in values]
        lines.append(f"| {' | '.join(cells)} | {short(bounded_exp(decision.mean))} [{short(low)}, {short(high)}] |")
    return lines


def unit_table(runs: Mapping[str, Arrays]) -> list[str]:
    """The left side over the right one with costs and theta times c."""
    units = [f"c = {unit:g}" for unit in UNITS]
    lines = [
        "Left side over right side with costs and theta times c (c to 0: the part by theta or eta alone):",
        "",
        f"| | gamma | {' | '.join(f'`{name}`: c to 0 | ' + ' | '.join(units) for name in runs)} |",
        f"|---|---|{'---|' * (1 + len(UNITS)) * len(runs)}",
    ]
    own = [sides(arrays) for arrays in runs.values()]
    alone = [compared(each)[1] for each in own]
    for i, rows in enumerate(zip(*own, strict=True)):
        cells = list[str]()
        for one, decisions in zip(rows, alone, strict=True):
            high, low = (short(bounded_exp(-value)) for value in (decisions[i].low, decisions[i].high))
            cells.append(f"{short(ratio_in(one, 0.0))} [{low}, {high}]")
            cells += [short(ratio_in(one, unit)) for unit in UNITS]
        lines.append(f"| {PARTIES[rows[0].party]} | {rows[0].discount:g} | {' | '.join(cells)} |")
    return lines


def ratio_in(one: Sides, unit: float) -> float:
    """The left side over the right one where costs and theta are multiplied by `unit`; their limit where it is 0."""
    scaled = replace(one, action=unit**2 * one.action)  # all divided by unit^2
    return float(np.mean(smallest(scaled.left)) / np.mean(scaled.right))


def step_table(runs: Runs) -> list[str]:
    """The left side over the right one with other steps."""
    lines = [
        "Left side over right side with steps that satisfy (36); in brackets its part by theta or eta alone:",
        "",
        f"| alpha_t | | | {' | '.join(f'gamma = {gamma:g}' for gamma in DISCOUNTS)} |",
        f"|---|---|---|{'---|' * len(DISCOUNTS)}",
    ]
    for words, changed in STEPS.items():
        for job in filter(_headline, jobs(FULL)):
            own = sides(runs[replace(job, **changed)])
            for party, number in PARTIES.items():
                cells = [f"{short(ratio_in(one, 1))} ({short(ratio_in(one, 0))})" for one in own if one.party == party]
                lines.append(f"| {words} | `{job.scheme}` | {number} | {' | '.join(cells)} |")
    return lines


def start_table(runs: Mapping[str, Arrays]) -> list[str]:
    """Both sides from the same first parameters at every discount."""
    lines = [
        "From the same first parameters at every discount (Q = 10 on average), as Remark 2 reads:",
        "",
        f"| | gamma | {' | '.join(f'`{name}`: left | right' for name in runs)} |",
        f"|---|---|{'---|' * 2 * len(runs)}",
    ]
    for rows in zip(*(sides(arrays) for arrays in runs.values()), strict=True):
        cells = [short(float(np.mean(side))) for one in rows for side in (smallest(one.left), one.right)]
        lines.append(f"| {PARTIES[rows[0].party]} | {rows[0].discount:g} | {' | '.join(cells)} |")
    return lines


def short(value: float) -> str:
    """A number in two significant digits."""
    if not np.isfinite(value):
        return "no number"
    if 1e-2 <= abs(value) < 1e3:
        return f"{float(f'{value:.2g}'):g}"
    return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-")


if __name__ == "__main__":
    main()
