"""Search the parameters that the paper does not publish for the setting in which most of its claims hold.

One search for each of the paper's algorithms as the proposed scheme; writes partway/scenario/presets/paper-fitted-*.
The search maximises a score that changes with every comparison and not only with those that decide: the sum over claims
6a to 9d of 1 where all comparisons support the claim in the mean of the replicates, otherwise half the share of those
that do; Figures 8 and 9 count half from empty queues, half after training. Of the settings it tried, the one in which
most claims significantly hold becomes the preset; the score decides between equals. The table of verdicts uses none of
its seeds and placements. Finished settings are kept in results/fit; a resumed search continues from them, but not from
its random numbers. docs/data/fit-*.csv holds every setting, the space and the verdicts.

Not searched: w3, which only fixes the unit of the cost; mu and nu, which every seed draws again, and their scale, which
belongs to the units of the features; the noise (T7). Sums over 120 blocks are truncated where gamma is above 0.97.

make fit
"""

import argparse
import csv
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tomli_w
from matplotlib.figure import Figure
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pages import paragraph, write_section

from partway.figures.look import figure_style
from partway.paper.claims import Points, claims
from partway.paper.figure_runs import FULL, KINDS, Sizes, jobs
from partway.paper.report import READING_WORDS, interval_words
from partway.paper.statistics import HOLDS
from partway.paper.verdicts import Verdict, column, phases
from partway.scenario.loading import load
from partway.scenario.schema import Scenario

ROOT = Path(__file__).parents[1]
PRESETS, STATE, DATA = ROOT / "partway" / "scenario" / "presets", ROOT / "results" / "fit", ROOT / "docs" / "data"
CANDIDATES = ("parametric-printed", "parametric", "qlearning")
TRIALS = 50
READING = "conserving"
FIRST_SEED = 5000
POINTS = Points((0.1, 0.5, 0.9), (5, 20, 60))
VERDICTS = sum(len(phases(claim)) for claim in claims(POINTS) if claim.orderings)
SIZES = Sizes(tuple(range(FIRST_SEED, FIRST_SEED + 8)), POINTS, training=500, horizon=120)


@dataclass(frozen=True)
class Range:
    """The range of a parameter, and its reason; `choices` where each value needs a program of its own."""

    low: float
    high: float
    why: str
    log: bool = True
    choices: tuple[float, ...] = ()

    def suggest(self, trial: optuna.Trial, name: str) -> float:
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def grid(self, count: int) -> list[float]:
        """`count` values from end to end, or the choices."""
        if self.choices:
            return list(self.choices)
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        even = [ends[0] + (ends[1] - ends[0]) * i / (count - 1) for i in range(count)]
        return [float(f"{math.exp(at) if self.log else at:.4g}") for at in even]


WORLD: Mapping[str, Range] = {
    "discount": Range(0.5, 0.99, "gamma: a horizon of 2 to 100 blocks", log=False),
    "weights.server_queue": Range(1e-11, 1e-9, "w1: waiting costs a tenth to ten times what it costs at a device"),
    "weights.server_energy": Range(2.5e-7, 2.5e-3, "w2: from free to as expensive as a device's"),
    "weights.device_energy": Range(2.5e-5, 2.5e-1, "w4: running a task in a block costs 0.01 to 100 blocks of waiting"),
    "device.task.bits_per_cycle": Range(1e-6, 2e-4, "zeta: a whole task needs 0.1 to 20 bit/s/Hz in its slot"),
    "device.cpu_max_hz": Range(
        40e9, 160e9, "f_max: half of, as, and twice what b = 0.8 needs", choices=(40e9, 80e9, 160e9)
    ),
    "server.cpu_max_hz": Range(
        4e11, 2e13, "from half the load of K = 20, b = 0.4 to four times that of K = 60, b = 0.9"
    ),
}
STEPS: Mapping[str, Range] = {
    "step": Range(1e-4, 1.0, "alpha_0"),
    "decay": Range(0.51, 1.0, "its exponent, as far as (36) allows", log=False),
}
START: Mapping[str, Range] = {
    "start_value": Range(0.01, 100.0, "of theta"),
    "start_power": Range(0.01, 100.0, "of p, in units of the power that sends half a task"),
    "start_rate": Range(0.05, 1.0, "of the server's rates, as a share of f_max"),
}
LEARNING: Mapping[str, Mapping[str, Range]] = {
    "parametric-printed": {**STEPS, **START},
    "parametric": {**STEPS, **START},
    "qlearning": {**STEPS, "explore": Range(0.01, 0.3, "share of blocks with a random action")},
}


def space(candidate: str) -> dict[str, Range]:
    """Every parameter that is searched, by its name in a scenario."""
    return {**WORLD, **{f"schemes.{candidate}.{name}": one for name, one in LEARNING[candidate].items()}}


def evaluate(candidate: str, scenario: Scenario, sizes: Sizes = SIZES) -> list[Verdict]:
    """Verdicts of claims 6a to 9d in a scenario."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.toml"
        path.write_text(scenario.to_toml(), "utf-8")
        wanted = jobs(sizes, str(path), (candidate,), KINDS[:1])
        runs = {job: job.run() for job in wanted if job.reading == READING}
    return column(claims(sizes.points), runs, candidate, READING)


def share_for(one: Verdict) -> float:
    """Share of a claim's comparisons that support it in the mean over replicates."""
    return sum(decision.mean > 0 for decision in one.decisions) / len(one.decisions)


def score(verdicts: Sequence[Verdict]) -> float:
    """See the top of this file."""
    total = 0.0
    for one in verdicts:
        for_it = share_for(one)
        total += (0.5 if one.phase else 1.0) * (1.0 if for_it == 1.0 else 0.5 * for_it)
    return total


def search(candidate: str, trials: int) -> optuna.Study:
    """The search, up to `trials` settings; resumes an earlier one."""
    STATE.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=candidate,
        storage=JournalStorage(JournalFileBackend(str(STATE / f"{candidate}.log"))),
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=trials // 3),
        load_if_exists=True,
    )
    if not study.trials:
        preset = load("paper").model_dump()
        study.enqueue_trial({name: _field(preset, name) for name in WORLD})

    def objective(trial: optuna.Trial) -> float:
        start = time.monotonic()
        changed = {name: one.suggest(trial, name) for name, one in space(candidate).items()}
        verdicts = evaluate(candidate, load("paper", changed))
        held = [f"{one.claim} {one.phase}".strip() for one in verdicts if one.verdict == HOLDS]
        trial.set_user_attr("holds", held)
        print(f"{candidate} {trial.number}: {score(verdicts):.3f}, {time.monotonic() - start:.0f} s", flush=True)
        return score(verdicts)

    done = len([one for one in study.trials if one.state == optuna.trial.TrialState.COMPLETE])
    study.optimize(objective, n_trials=max(trials - done, 0))
    return study


def _field(values: Mapping[str, Any], name: str) -> Any:
    """The value of a field by its dotted name."""
    value: Any = values
    for word in name.split("."):
        value = value[word]
    return value


def tried(study: optuna.Study, trials: int) -> list[optuna.trial.FrozenTrial]:
    """The first `trials` settings that have a score."""
    return study.get_trials(states=[optuna.trial.TrialState.COMPLETE])[:trials]


def freeze(candidate: str, study: optuna.Study, trials: int) -> int:
    """Write the setting in which most claims hold as a preset, relative to `paper`; returns how many held."""
    best = max(tried(study, trials), key=lambda one: (len(one.user_attrs["holds"]), one.value or 0.0))
    held = len(best.user_attrs["holds"])
    raw = dict[str, Any]()
    for name, value in best.params.items():
        *tables, field = name.split(".")
        table = raw
        for word in tables:
            table = table.setdefault(word, {})
        table[field] = float(f"{value:.4g}")
    head = (
        f"# Section VI with unpublished parameters fitted to its claims on `{candidate}` (make fit)\n"
        f"# Of {trials} settings the one in which most claims held, {held} of {VERDICTS}, "
        "on the replicates of the search;\n"
        "# docs/data/fit-verdicts.csv has the verdicts on others.\n"
        "# Everything else is as in the preset paper.\n\n"
    )
    (PRESETS / f"paper-fitted-{candidate}.toml").write_text(head + tomli_w.dumps(raw), "utf-8")
    return held


def write_settings(candidate: str, study: optuna.Study, trials: int) -> None:
    """Write every setting of a search as CSV: its score, the claims that held, its parameters."""
    DATA.mkdir(parents=True, exist_ok=True)
    names = list(space(candidate))
    with (DATA / f"fit-{candidate}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("setting", "score", "held", "held claims", *names))
        for one in tried(study, trials):
            held: list[str] = one.user_attrs["holds"]
            numbers = [f"{one.params[name]:.6g}" for name in names]
            writer.writerow((one.number + 1, f"{one.value:.4f}", len(held), "; ".join(held), *numbers))


def write_space() -> None:
    """Write every parameter that is searched, its range and the reason, as CSV."""
    ranges = {**WORLD, **{name: one for own in LEARNING.values() for name, one in own.items()}}
    with (DATA / "fit-space.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("parameter", "from", "to", "why"))
        writer.writerows((name, f"{one.low:g}", f"{one.high:g}", one.why) for name, one in ranges.items())


def write_verdicts(columns: Mapping[str, Sequence[Verdict]]) -> None:
    """Write the verdicts in the fitted presets, with the interval that decides each, as CSV."""
    with (DATA / "fit-verdicts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("claim", "phase", "scheme", "verdict", "interval"))
        for name, verdicts in columns.items():
            writer.writerows((one.claim, one.phase, name, one.verdict, interval_words(one)) for one in verdicts)


def settings_of(candidate: str) -> list[dict[str, str]]:
    """The rows of `write_settings`."""
    with (DATA / f"fit-{candidate}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw() -> Figure:
    """A panel for each candidate: a row for each claim, a column for each setting, dark where the claim held."""
    rows = [f"{one.id} {phase}".strip() for one in claims(POINTS) if one.orderings for phase in phases(one)]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    figure.suptitle("Which claims held in which setting of the search: settings with most claims first")
    for axes, candidate in zip(figure.subplots(1, len(CANDIDATES), sharey=True), CANDIDATES, strict=True):
        settings = sorted(settings_of(candidate), key=lambda row: (int(row["held"]), float(row["score"])), reverse=True)
        held = [set(row["held claims"].split("; ")) for row in settings]
        image = np.array([[row in one for one in held] for row in rows])
        axes.imshow(image, cmap="Greens", vmin=0, vmax=1.2, aspect="auto", interpolation="nearest")
        axes.set_title(f"{candidate}: {settings[0]['held']} of {len(rows)} at most")
        axes.set_xlabel("setting")
        names = [row.replace("from_start", "empty").replace("after_training", "trained") for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=7)
        axes.grid(visible=False)
    return figure


def page(trials: int, held_in_search: Mapping[str, int], held: Mapping[str, int]) -> str:
    """What was searched, and how many claims hold: in the search, and with the seeds and sizes of `make reproduce`."""
    then = ", ".join(f"{count} with `{name}`" for name, count in held_in_search.items())
    now = ", ".join(f"{count} with `{name}`" for name, count in held.items())
    return paragraph(f"""
        `make fit` searched {trials} settings (TPE) of [what is not published](data/fit-space.csv) with each of
        `parametric-printed`, `parametric` and `qlearning` as the proposed scheme, with {len(SIZES.seeds)} replicates
        (seeds {SIZES.seeds[0]} to {SIZES.seeds[-1]}), {SIZES.training} blocks of training and sums over
        {SIZES.horizon} blocks; baselines, as section VI words them, had the same gradient and steps. [Which claims held
        in which setting](img/fit.png); [every setting](data/). The preset `paper-fitted-*` is the setting in which most
        of the {VERDICTS} held: {then}. Judged again with {len(FULL.seeds)} other replicates and all points,
        {READING_WORDS[READING]}, [{now}](data/fit-verdicts.csv) hold.
    """)


def count_held(verdicts: Sequence[Verdict]) -> int:
    """How many claims hold."""
    return sum(one.verdict == HOLDS for one in verdicts)


def write_page(trials: int, held_in_search: Mapping[str, int], held: Mapping[str, int]) -> None:
    """Draw the settings, and write their section."""
    with figure_style():
        draw().savefig(ROOT / "docs" / "img" / "fit.png")
    write_section(ROOT / "docs" / "paper.md", "fit", page(trials, held_in_search, held))


def main() -> None:
    """Search, and write the presets and their page."""
    parser = argparse.ArgumentParser(description="search the parameters that the paper does not publish")
    parser.add_argument("candidates", nargs="*", metavar="SCHEME", help=f"default: {' '.join(CANDIDATES)}")
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    held: dict[str, int] = {}
    for candidate in options.candidates or CANDIDATES:
        study = search(candidate, options.trials)
        held[candidate] = freeze(candidate, study, options.trials)
        write_settings(candidate, study, options.trials)
    if not options.candidates:
        columns = {name: evaluate(name, load(f"paper-fitted-{name}"), FULL) for name in CANDIDATES}
        write_space()
        write_verdicts(columns)
        write_page(options.trials, held, {name: count_held(verdicts) for name, verdicts in columns.items()})


if __name__ == "__main__":
    main()
