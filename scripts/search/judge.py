"""The best setting of all: its preset, and every claim judged with seeds and placements that no other stage has used.

Each claim is judged twice: with the baselines as the setting has them, and with each of them at its own best steps in
this setting. A claim that holds only in the former holds because a baseline learns worse than it could: it is marked.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from partway.paper.claims import BASELINES, LATE, READINGS, Term, claims
from partway.paper.figure_runs import FULL, KINDS, LITERAL, Configured, FigureJob, Sizes, baseline, jobs
from partway.paper.report import interval_words
from partway.paper.search.jobs import MEASURED, SearchJob
from partway.paper.search.score import Value, values
from partway.paper.search.space import OWN, OWN_STEPS, Setting, overrides
from partway.paper.statistics import HOLDS
from partway.paper.verdicts import Verdict, column
from partway.scenario.loading import load
from search.data import DATA, ROOT, Tried
from search.stages import SHORT, Runner, jobs_of

PRESETS = ROOT / "partway" / "scenario" / "presets"
FIRST_SEED, REPLICATES = 7000, 16
"""Of the seeds and placements on which the baselines' best steps are chosen."""
STEPS = 7
"""Steps that are tried of each party of `binary` and `even`: all pairs of so many, from end to end of their range."""
Fields = dict[str, Any]


@dataclass(frozen=True)
class Rival:
    """A baseline: what it plays in the setting, and with its own best steps; `excess` of the former's cost, 0.1 = 10 %.

    Cost is that of Figure 7 at its end, in the mean of logarithms over replicates.
    """

    name: str
    found: Configured
    best: Configured
    excess: float


@dataclass(frozen=True)
class Judged:
    """Verdicts with the baselines as found, and with their best steps, in the same order."""

    candidate: str
    rivals: tuple[Rival, ...]
    found: tuple[Verdict, ...]
    best: tuple[Verdict, ...]

    def marked(self) -> list[bool]:
        """Whether a claim holds only against a baseline that is worse than with its own best steps."""
        pairs = zip(self.found, self.best, strict=True)
        return [with_found.verdict == HOLDS != with_best.verdict for with_found, with_best in pairs]


def preset_of(candidate: str) -> Path:
    """The file of a candidate's preset."""
    return PRESETS / f"paper-fitted-{candidate}.toml"


def write_preset(candidate: str, chosen: Tried) -> Path:
    """Write a setting as a preset, relative to `paper`."""
    raw = dict[str, Any]()
    for name, value in overrides(candidate, chosen.setting).items():
        *tables, field = name.split(".")
        table = raw
        for word in tables:
            table = table.setdefault(word, {})
        table[field] = value
    head = (
        f"# What the paper does not publish, from a search for values with which `{candidate}` has its claims.\n"
        f"# {chosen.likely()} of {len(chosen.weakest)} claims were likely to hold on the replicates of the search;\n"
        f"# docs/data/search/{candidate}-verdicts.csv has the verdicts on others.\n"
        "# Everything else is as in the preset paper.\n\n"
    )
    path = preset_of(candidate)
    path.write_text(head + tomli_w.dumps(raw), "utf-8")
    return path


def tried_steps(setting: Setting) -> list[tuple[Setting, dict[str, Fields]]]:
    """Settings that differ in the baselines' own steps, the first in none, and what each baseline has of its own."""
    pairs = [(one, two) for one in grid() for two in grid()]
    rates = np.linspace(0.0, 1.0, len(pairs) + 1)[1:]
    made: list[tuple[Setting, dict[str, Fields]]] = [(setting, {name: {} for name in BASELINES})]
    for (device, server), rate in zip(pairs, rates, strict=True):
        steps = {"device_step": device, "server_step": server}
        own = {"binary": steps, "even": steps, "random": {"start_rate": float(f"{rate:.4g}")}}
        fields = {f"schemes.{LITERAL[name]}.{field}": value for name in own for field, value in own[name].items()}
        made.append((tuple({**dict(setting), OWN_STEPS: True, **fields}.items()), own))
    return made


def grid() -> list[float]:
    """The steps that are tried."""
    return next(iter(OWN.values())).grid(STEPS)


def rivals(candidate: str, setting: Setting, measured: np.ndarray) -> tuple[Rival, ...]:
    """The baselines, from what `tried_steps` has cost: (settings, replicates, values) of Figure 7."""
    scenario = load("paper", overrides(candidate, setting))
    known, tried, made = values(SHORT.points, ("7",)), tried_steps(setting), list[Rival]()
    for name in BASELINES:
        cost = np.log(measured[..., known.index(Value(Term("cost", name, LATE), "7", ""))]).mean(axis=-1)
        best = int(np.argmin(cost))
        scheme, shared = found = baseline(name, candidate, KINDS[0], scenario)
        own = {**dict(shared), **scenario.schemes.get(scheme, {}), **tried[best][1][name]}
        chosen = (scheme, tuple(sorted(own.items()))) if best else found
        made.append(Rival(name, found, chosen, float(np.expm1(cost[0] - cost[best]))))
    return tuple(made)


def work(candidate: str) -> float:
    """Device-blocks of this stage, if all baselines have better steps than they have as found."""
    runs = _runs(candidate, READINGS[0], "paper", ())
    again = [job for job in runs if job.scheme in LITERAL.values()]
    return sum(job.device_blocks() for job in [*_step_jobs(candidate, ()), *runs, *again])


def judge(runner: Runner, setting: Setting) -> Judged:
    """Find the baselines' best steps, and judge every claim twice; the setting is the candidate's preset."""
    candidate = runner.candidate
    steps = _step_jobs(candidate, setting)
    costs = runner.arrays(steps)
    own = rivals(candidate, setting, np.concatenate([costs[job][MEASURED] for job in steps]))
    reading = dict(setting).get("queue", READINGS[0])
    runs = runner.arrays(_runs(candidate, reading, str(preset_of(candidate)), own))
    asked = claims(FULL.points)
    found = column(asked, runs, candidate, reading, baselines={one.name: one.found for one in own})
    best = column(asked, runs, candidate, reading, baselines={one.name: one.best for one in own})
    return Judged(candidate, own, tuple(found), tuple(best))


def _step_jobs(candidate: str, setting: Setting) -> list[SearchJob]:
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + REPLICATES))
    settings = [one for one, _ in tried_steps(setting)]
    return jobs_of("judge", candidate, ("7",), settings, replace(SHORT, seeds=seeds))


def _runs(candidate: str, reading: str, preset: str, own: Sequence[Rival], sizes: Sizes = FULL) -> list[FigureJob]:
    """The runs of `make reproduce` of the candidate and of its baselines, as found and with their best steps."""
    made = list[FigureJob]()
    for job in jobs(sizes, preset, (candidate,), KINDS[:1]):
        if job.reading == reading:
            others = [one.best for one in own if one.found == (job.scheme, job.settings)]
            made += [job, *(replace(job, settings=settings) for _, settings in others)]
    return list(dict.fromkeys(made))


def write(judged: Judged) -> None:
    """Write the verdicts and what the baselines' steps are, as CSV."""
    DATA.mkdir(parents=True, exist_ok=True)
    with (DATA / f"{judged.candidate}-verdicts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("claim", "phase", "verdict", "interval", "with best steps", "its interval", "only against worse")
        )
        for found, best, marked in zip(judged.found, judged.best, judged.marked(), strict=True):
            words = (found.verdict, interval_words(found), best.verdict, interval_words(best), "yes" if marked else "")
            writer.writerow((found.claim, found.phase, *words))
    with (DATA / f"{judged.candidate}-baselines.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("baseline", "scheme", "as found", "with its best steps", "cost above these [%]"))
        for one in judged.rivals:
            texts = ["; ".join(f"{name} = {value}" for name, value in which[1]) for which in (one.found, one.best)]
            writer.writerow((one.name, one.found[0], *texts, f"{100 * one.excess:.3g}"))


def counts(judged: Judged) -> Mapping[str, int]:
    """How many claims there are, how many hold, and how many of these are marked."""
    return {
        "all": len(judged.found),
        "hold": sum(one.verdict == HOLDS for one in judged.found),
        "marked": sum(judged.marked()),
    }


def sentence(judged: Judged) -> str:
    """What was found."""
    number = counts(judged)
    excess = ", ".join(f"{one.name} {100 * one.excess:.2g} %" for one in judged.rivals)
    return (
        f"{number['hold']} of {number['all']} claims hold, {number['marked']} of them only against a baseline that is "
        f"worse than with its own best steps; the baselines cost more than with these by: {excess}"
    )
