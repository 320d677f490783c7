"""Write a section of docs/results.md: what PPO and independent PPO learn, seed by seed, beside schemes.

Every training is stored in docs/data/agents.csv as soon as it is evaluated; the same command resumes. Takes hours.

make agents
"""

import argparse
import csv
import hashlib
import io
import math
import runpy
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pages import origin, paragraph, table, write_section

import partway
from partway.env import functional
from partway.experiments.statistics import Estimate, estimate
from partway.experiments.summary import Summary, summarise
from partway.figures.colours import scheme_colour
from partway.figures.style import figure_style
from partway.files import write_whole
from partway.formatting import percent
from partway.provenance import package_hash

ROOT = Path(__file__).parents[1]
DATA, PICTURE = ROOT / "docs" / "data" / "agents.csv", ROOT / "docs" / "img" / "agents.png"
SCENARIO = "paper"
BESIDE = ("constant", "qlearning-designed", "priced")
COMMAND = f"partway compare --scenario {SCENARIO} --schemes {' '.join(BESIDE)}"
LEARNERS = {"ppo": "PPO (stable-baselines3)", "ippo": "IPPO (JAX)"}
STEPS = {"ppo": 102_400, "ippo": 1_024_000}
"""Device-steps of one training: blocks times devices that are trained on."""
SEEDS = 10
RATES = (3e-4, 1e-3, 3e-3)
"""Learning rates that the tuning tries, once each."""
TUNING_SEED = 100
EPISODES, TUNING_EPISODES = range(8), range(100, 104)
"""Seeds of the evaluation, those of `partway compare`, and of the tuning."""


@dataclass(frozen=True)
class Row:
    """One line of the data: what was trained, how, and what it is worth. Shares of the bound are in per cent.

    part       tuning, result, or scheme: nothing was trained
    cost       per block; low and high are the ends of the 95 % interval over evaluation episodes
    gap        empty if there is none, for the reason in `status`
    seconds    of the training, on a machine that does other things as well
    code, program   `package_hash`, and a hash of the learner's file
    """

    part: str
    name: str
    rate: float
    seed: int
    device_steps: int
    status: str
    cost: float
    cost_low: float
    cost_high: float
    gap: float
    gap_low: float
    gap_high: float
    devices: float
    waiting: float
    service: float
    latency_mean_s: float
    seconds: float
    day: str
    code: str
    program: str

    @property
    def key(self) -> tuple[Any, ...]:
        """What was asked for."""
        return self.part, self.name, self.rate, self.seed, self.device_steps


def main() -> None:
    """Train and evaluate what is missing, and write the section."""
    parser = argparse.ArgumentParser(description="what PPO and independent PPO learn, beside schemes")
    parser.add_argument("--page", action="store_true", help="train nothing; draw and write the data that is there")
    if not parser.parse_args().page:
        measure()
    rows = stored()
    lacking = missing(rows)
    if lacking:
        sys.exit(f"{DATA.name} is incomplete: {', '.join(lacking)}. `make agents` computes what is missing.")
    with figure_style():
        draw(rows).savefig(PICTURE)
    write_section(ROOT / "docs" / "results.md", "agents", section(rows))


# Measuring


def measure() -> None:
    """Schemes, then the tuning of each learner and its seeds; each row is written when it is known."""
    if {row.name for row in current() if row.part == "scheme"} != {*BESIDE}:
        for one in summarise(partway.compare(SCENARIO, schemes=list(BESIDE))):
            store(row_of(one, "scheme", one.name))
    for name in LEARNERS:
        for rate in RATES:
            trained("tuning", name, rate, TUNING_SEED)
    for seed in range(SEEDS):
        for name in LEARNERS:
            trained("result", name, best_rate(current(), name), seed)


def trained(part: str, name: str, rate: float, seed: int) -> None:
    """Train and evaluate, unless the data has it."""
    wanted = (part, name, rate, seed, STEPS[name])
    if any(row.key == wanted for row in current()):
        return
    begin = time.perf_counter()
    agent = TRAIN[name](seed, STEPS[name], rate)
    seconds = time.perf_counter() - begin
    episodes = TUNING_EPISODES if part == "tuning" else EPISODES
    found = row_of(partway.evaluate(agent, SCENARIO, seeds=episodes), part, name)
    store(replace(found, rate=rate, seed=seed, device_steps=STEPS[name], seconds=round(seconds, 1)))


def train_ppo(seed: int, steps: int, rate: float) -> Any:
    """A model of stable-baselines3."""
    import torch  # pyright: ignore[reportMissingImports]  # in .venv/agents alone

    torch.set_num_threads(1)
    return example("ppo")["train"](SCENARIO, devices(), seed, steps, rate)


def train_ippo(seed: int, steps: int, rate: float) -> Any:
    """A compiled function of the observation."""
    code = example("ippo")
    per_update = code["STEPS"] * code["EPISODES"] * devices()
    if steps % per_update:
        raise ValueError(f"device-steps must be a multiple of {per_update}, got {steps}")
    params = functional.parallel(SCENARIO, server="priced", reward="priced", horizon=code["HORIZON"])
    key = jax.random.key(code["FIRST_SEED"] + seed)
    network, _ = code["train"](key, params, steps // per_update, rate)
    return code["policy"](jax.block_until_ready(network))


TRAIN: Mapping[str, Callable[[int, int, float], Any]] = {"ppo": train_ppo, "ippo": train_ippo}


@cache
def example(name: str) -> dict[str, Any]:
    """The names of a program in examples/."""
    return runpy.run_path(str(source(name)))


@cache
def devices() -> int:
    """Of the scenario."""
    return partway.load(SCENARIO).devices


def row_of(one: Summary, part: str, name: str) -> Row:
    """What a summary says; nothing was trained."""
    whole = Estimate(math.nan, math.nan, math.nan) if one.gap is None else one.gap.whole
    return Row(
        part=part,
        name=name,
        rate=0.0,
        seed=0,
        device_steps=0,
        status=one.status if one.reason is None else one.reason,
        cost=one.cost.mean,
        cost_low=one.cost.low,
        cost_high=one.cost.high,
        gap=100 * whole.mean,
        gap_low=100 * whole.low,
        gap_high=100 * whole.high,
        devices=math.nan if one.gap is None else 100 * one.gap.devices,
        waiting=math.nan if one.gap is None else 100 * one.gap.waiting,
        service=math.nan if one.gap is None else 100 * one.gap.service,
        latency_mean_s=one.latency_s["mean"],
        seconds=0.0,
        day=date.today().isoformat(),
        code=package_hash(),
        program=program(name),
    )


@cache
def program(name: str) -> str:
    """Hash of a learner's file; empty for a scheme."""
    return "" if name in BESIDE else hashlib.sha256(source(name).read_bytes()).hexdigest()[:8]


def source(name: str) -> Path:
    """The file of a learner."""
    return ROOT / "examples" / f"{name}.py"


def best_rate(rows: Iterable[Row], name: str) -> float:
    """The learning rate with the least gap in the tuning; one without a gap is not chosen."""
    return min(of_part(rows, "tuning", name), key=lambda row: math.inf if math.isnan(row.gap) else row.gap).rate


def stored() -> list[Row]:
    """The data."""
    if not DATA.exists():
        return []
    with DATA.open(newline="") as file:
        return [
            Row(**{field.name: _read(field.type, line[field.name]) for field in fields(Row)})
            for line in csv.DictReader(file)
        ]


def _read(kind: Any, text: str) -> Any:
    return (float(text) if text else math.nan) if kind is float else kind(text)


def current() -> list[Row]:
    """The data that is from this code and these steps."""
    steps = STEPS | dict.fromkeys(BESIDE, 0)
    known = {name: (package_hash(), program(name), steps[name]) for name in steps}
    return [row for row in stored() if (row.code, row.program, row.device_steps) == known[row.name]]


def missing(rows: Sequence[Row]) -> list[str]:
    """What the page needs and the data does not have, in words; [] for complete data."""
    needed = {("scheme", name): 1 for name in BESIDE}
    for name in LEARNERS:
        needed |= {("tuning", name): len(RATES), ("result", name): SEEDS}
    found = {key: len(of_part(rows, *key)) for key in needed}
    lacking = [
        f"{found[part, name]} of {count} {part} rows of {name}"
        for (part, name), count in needed.items()
        if found[part, name] < count
    ]
    codes = {row.code for row in rows}
    return lacking + ([f"rows of {len(codes)} versions of the code"] if len(codes) > 1 else [])


def store(row: Row) -> None:
    """Add a row to the current ones."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    for one in [*current(), row]:
        values = asdict(one).values()
        writer.writerow("" if isinstance(v, float) and math.isnan(v) else _short(v) for v in values)
    write_whole(DATA, text.getvalue().encode())
    print(row, file=sys.stderr, flush=True)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


# The page


def section(rows: Sequence[Row]) -> str:
    """The section of the page."""
    (code,), day = {row.code for row in rows}, max(row.day for row in rows)
    parts = [
        origin(day, code),
        "## What reinforcement learning achieves",
        paragraph(head(rows)),
        f"![gap of every seed, beside schemes](img/{PICTURE.name})",
        totals(rows),
        "Every seed, and the interval over the episodes of its evaluation:",
        every_seed(rows),
        "The tuning, one training for each learning rate:",
        tuning(rows),
        paragraph(READING),
    ]
    return "\n\n".join(parts)


def head(rows: Sequence[Row]) -> str:
    """What was trained, and how it was evaluated."""
    tuned = f"{len(RATES)} learning rates with one seed each, on episodes of its own"
    return f"""
    An agent acts for every device of `{SCENARIO}` ({devices()} devices), each by itself, and sees no more than a device
    of `priced` can know; the server is that of `priced`. The gap is to a proven lower bound on every policy's average
    cost ([bound.md](bound.md)), on the episodes of `{COMMAND}`.
    [examples/ppo.py](../examples/ppo.py) trains {STEPS["ppo"]:,} device-steps for a seed,
    [examples/ippo.py](../examples/ippo.py) {STEPS["ippo"]:,}; both have one network for all devices and {SEEDS} seeds,
    all of which are shown. The tuning, by this script, tried {tuned}. Other hyperparameters, in the two files, were set
    by hand. One was changed after a first look: 16 episodes at once in ippo.py became 4, with the same device-steps and
    more gradient steps, as the gap had been larger. `constant` is tuned, other schemes are not
    trained before. [Data](data/{DATA.name}).
    """


def of_part(rows: Iterable[Row], part: str, name: str) -> list[Row]:
    """The rows of a learner or a scheme."""
    return [row for row in rows if (row.part, row.name) == (part, name)]


def totals(rows: Sequence[Row]) -> str:
    """Learners over their seeds, then schemes."""
    lines = list[Sequence[str]]()
    for name, words in LEARNERS.items():
        own = of_part(rows, "result", name)
        gaps = np.array([row.gap for row in own])
        lost = int(np.isnan(gaps).sum())
        ranked = np.sort(np.nan_to_num(gaps, nan=math.inf))  # a seed without a gap is worse than any other
        whole = f"none in {lost} of {len(own)} seeds" if lost else percent(estimate(gaps / 100))
        spread = f"{ranked[0]:.3g} to {'none' if lost else f'{ranked[-1]:.3g}'}"
        sources = ", ".join(f"{np.nanmedian([getattr(row, source) for row in own]):.3g}" for source in SOURCES)
        lines.append((words, f"{own[0].device_steps:,}", whole, f"{np.median(ranked):.3g}", spread, sources))
    for name in BESIDE:
        (row,) = of_part(rows, "scheme", name)
        sources = ", ".join(f"{getattr(row, source):.3g}" for source in SOURCES)
        lines.append((f"`{name}`", "-", _gap(row), "-", "-", sources))
    titles = ("", "device-steps per seed", "gap %", "median seed", "best to worst seed", "devices, waiting, service %")
    return table(titles, lines)


SOURCES = ("devices", "waiting", "service")


def every_seed(rows: Sequence[Row]) -> str:
    """One line for each seed, both learners side by side."""
    lines = list[Sequence[str]]()
    by_seed = (sorted(of_part(rows, "result", name), key=lambda row: row.seed) for name in LEARNERS)
    for pair in zip(*by_seed, strict=True):
        cells = [cell for row in pair for cell in (_gap(row), _cost(row), f"{row.seconds:.0f} s")]
        lines.append((f"{pair[0].seed}", *cells))
    titles = [f"{words}: {what}" for words in LEARNERS.values() for what in ("gap %", "cost", "training")]
    return table(("seed", *titles), lines)


def tuning(rows: Sequence[Row]) -> str:
    """The gap at each learning rate, the chosen one in bold."""
    lines = list[Sequence[str]]()
    for name, words in LEARNERS.items():
        chosen = of_part(rows, "result", name)[0].rate
        own = of_part(rows, "tuning", name)
        lines.append((words, *(f"**{_gap(row)}**" if row.rate == chosen else _gap(row) for row in own)))
    return table(("gap %", *(f"{rate:g}" for rate in RATES)), lines)


def _gap(row: Row) -> str:
    """The gap with its interval, or why there is none."""
    if math.isnan(row.gap):
        return row.status
    return percent(Estimate(row.gap / 100, row.gap_low / 100, row.gap_high / 100))


def _cost(row: Row) -> str:
    """The cost of a block; unstable runs have none."""
    return "-" if math.isnan(row.cost) else f"{row.cost:.4g}"


def draw(rows: Sequence[Row]) -> Figure:
    """A point for each seed, a line for each scheme; seeds without a gap are crosses at the right edge."""
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.subplots()
    for height, name in enumerate(LEARNERS):
        gaps = np.array([row.gap for row in of_part(rows, "result", name)])
        across = height + np.linspace(-0.25, 0.25, len(gaps))  # so that equal gaps are not one point
        axes.plot(gaps, across, "o", color="#1f6fc4", alpha=0.8, markersize=5)
        lost = across[np.isnan(gaps)]
        axes.plot(np.full(len(lost), 0.99), lost, "x", color="#bd1f01", transform=axes.get_yaxis_transform())
        if len(lost):
            axes.annotate(
                "no gap:\nunstable", (0.97, float(lost.mean())), xycoords=axes.get_yaxis_transform(),
                ha="right", va="center", color="#bd1f01", fontsize=8,
            )  # fmt: skip
    for name in BESIDE:
        (row,) = of_part(rows, "scheme", name)
        axes.axvline(row.gap, color=scheme_colour(name), linewidth=1.5)
        axes.annotate(
            name, (row.gap, 1.0), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", color=scheme_colour(name),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(-0.6, len(LEARNERS) - 0.4)
    axes.set_yticks(range(len(LEARNERS)), LEARNERS.values())
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("gap to the lower bound [%]")
    return figure


READING = """
How to read it. Nearly all of an agent's gap is in what the devices decide; what waits at the server and the server's
rate cost about what they do with `priced`. The budgets are small: the gaps show what such a budget achieves, not what
an algorithm could. With its budget, PPO lets work pile up in some seeds; the tuning, with one seed for each rate, did
not show that. The interval of a seed is wide where its policy sends on bad channels, too: the energy of the radio is
then heavy-tailed, as with `constant`. `priced` sees the same and needs no training: it solves each device's own problem
and learns one number, the price.
"""


if __name__ == "__main__":
    main()
