"""What a live run prints: what it cost beside its simulation, where tasks spent their time, and whether all ended."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from partway.formatting import number
from partway.live.accounts import Stages, stages
from partway.live.documents import series_of, tasks_of
from partway.live.tasks import ANSWERED, FAILED, FINISHED_HERE, LOCAL, MESSAGES, WAITING, TaskLog
from partway.measurement.gap import COMPONENT_NAMES, COST_COMPONENTS, Horizon, gap_by_seed, why_no_gap
from partway.measurement.latency import DELAY_NAMES, DELAYS, end_of_run
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme
from partway.text_tables import Grid

OUTCOME_NAMES = {
    LOCAL: "finished by the device",
    ANSWERED: "answered by it",
    FINISHED_HERE: "finished by the device after all",
    FAILED: "failed, as the network cannot compute the input",
    WAITING: "not started when the run ended",
}
COUNT_NAMES = {"received": "received", "answered": "answered", "duplicates": "received again", "late": "received late"}
"""Words for what a server counts."""


@dataclass(frozen=True)
class Figures:
    """The numbers of a run, means over the blocks after warm-up; NaN for what it has not.

    cost, components        cost of a block, and its components by name
    device_j, server_j      energy per task that arrives [J]
    gap, no_gap             above the lower bound on the scenario's objective, as a share of it, or why there is none
    latency, p50, p95       [s]         delays  by `DELAYS` [s]         network  [s] beyond them
    """

    cost: float
    components: Mapping[str, float]
    device_j: float
    server_j: float
    gap: float
    no_gap: str
    latency: float = np.nan
    p50: float = np.nan
    p95: float = np.nan
    delays: Mapping[str, float] | None = None
    network: float = np.nan


def horizon_of(scenario: Scenario, blocks: int, bound: float | None, no_bound: str) -> Horizon:
    """What the figures of a run refer to: the first half of its blocks is warm-up."""
    block_s = scenario.slots_per_block * scenario.slot_s
    return Horizon(blocks // 2, scenario.discount, scenario.objective, block_s, bound, no_bound)


def served_horizon(document: Mapping[str, Any]) -> Horizon:
    """That of the run in a server's document."""
    scenario = load(tomllib.loads(document["scenario"]))
    return horizon_of(scenario, document["blocks"], document["bound"], document["bound_reason"])


def figures(series: Mapping[str, np.ndarray], horizon: Horizon) -> Figures:
    """The figures of metrics (1, blocks) by name, without those of tasks."""
    mean = {name: float(np.mean(values[0, horizon.warmup :])) for name, values in series.items()}
    arrived = mean["arrived"] or np.nan
    components = {name: mean[name] for name in COST_COMPONENTS}
    energy = (mean["device_energy_j"] / arrived, mean["server_energy_j"] / arrived)
    by_seed = gap_by_seed(series.__getitem__, horizon)
    gap = np.nan if by_seed is None else float(by_seed.sum())
    return Figures(sum(components.values()), components, *energy, gap, why_no_gap(series.__getitem__, horizon))


def counted_blocks(document: Mapping[str, Any]) -> np.ndarray:
    """The blocks of the run in a server's document that count: those in which a device took part, after warm-up."""
    took_part = np.flatnonzero(document["reports"])
    return took_part[len(took_part) // 2 :]


def served_figures(document: Mapping[str, Any]) -> tuple[Figures, Horizon]:
    """The figures of the run in a server's document, and what they refer to.

    A block in which no device took part is not one of the system: it does not count. The bound is one of the whole
    fleet, so that there is a gap only where all devices took part in all blocks to which it refers.
    """
    series, horizon = series_of(document), served_horizon(document)
    reports, devices = np.asarray(document["reports"]), load(tomllib.loads(document["scenario"])).devices
    took_part = reports > 0
    horizon = replace(horizon, warmup=int(took_part.sum()) // 2)
    if not took_part.any():
        components = dict.fromkeys(COMPONENT_NAMES, np.nan)
        return Figures(np.nan, components, np.nan, np.nan, np.nan, "no device took part"), horizon
    mine = figures({name: values[:, took_part] for name, values in series.items()}, horizon)
    last = len(reports) - 1  # the report on it may not arrive before its device leaves
    counted = counted_blocks(document) if horizon.objective == "average" else np.arange(last + 1)
    if (reports[counted[counted < last]] < devices).any():
        mine = replace(mine, gap=np.nan, no_gap=mine.no_gap or "not all devices took part")
    return mine, horizon


def served_stages(document: Mapping[str, Any], tasks: Iterable[TaskLog]) -> Stages:
    """How long the tasks of that run took which arrived in the blocks that count."""
    scenario, counted = load(tomllib.loads(document["scenario"])), counted_blocks(document)
    end_s = end_of_run(document["blocks"], scenario.slots_per_block, scenario.slot_s)
    return stages(tasks, end_s, int(counted.min(initial=document["blocks"])))


def latency_json(figures: Figures) -> dict[str, Any]:
    """The latency of a run as JSON types, times in s."""
    delays = dict(figures.delays or {}) | {MESSAGES: figures.network}
    return {"mean_s": figures.latency, "p50_s": figures.p50, "p95_s": figures.p95, "stages_s": delays}


def with_stages(figures: Figures, measured: Stages) -> Figures:
    """The figures of a live run with the times of its tasks."""
    return replace(
        figures,
        latency=measured.latency,
        p50=measured.p50,
        p95=measured.p95,
        delays=measured.delays,
        network=measured.network,
    )


def live_table(
    measured: Figures,
    simulated: Figures,
    server: Mapping[str, Any],
    devices: Sequence[Mapping[str, Any]],
    alone: Figures | None = None,
) -> Grid:
    """The table of a whole run, in which each number stands beside that of the simulation.

    alone  the simulation of devices that work alone, None where they are unstable or it is the same
    """
    run = f"{server['scheme']}: {len(devices)} devices, {server['blocks']} blocks"
    grid = Grid(f"{run}; cost and latency of the second half", header=True)
    for title in ("", "measured", "simulated"):
        grid.add_column(title, "left" if title == "" else "right")
    grid.add_column("unit", wrap=True)
    signals = ", ".join(map(str, find_scheme(server["scheme"]).signalling().values()))
    for name, mine, theirs, unit, digits in _rows(measured, simulated, server["bound"]):
        grid.add_row(name, number(mine, digits), number(theirs, digits), unit)
    grid.add_row("numbers up, down", signals, signals, "per device and block")
    if alone is not None:
        grid.add_row("devices alone: latency", "-", number(1e3 * alone.latency, 4), "ms")
        grid.add_row("  95 % of the tasks", "-", number(1e3 * alone.p95, 4), "ms")
    for name, count in task_counts(task for device in devices for task in tasks_of(device)):
        grid.add_row(name, str(count), "", "")
    for name, late in _pacing(server, devices).items():
        for words, share in (("median", 50), ("99 %", 99)):
            percentile = float(np.percentile(late, share)) if late.size else np.nan
            grid.add_row(f"{name} late by ({words})", number(1e3 * percentile, 2), "0", "ms")
    grid.add_row("broadcasts that came too late", str(sum(device["misses"] for device in devices)), "0", "")
    return grid


def _pacing(server: Mapping[str, Any], devices: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """How late blocks began and what the emulation paces happened [s], by words."""

    def of_devices(name: str) -> np.ndarray:
        return np.concatenate([np.asarray(device[name], float) for device in devices])

    return {
        "blocks begin": of_devices("late_s"),
        "tasks at devices are": of_devices("task_late_s"),
        "answers of the server are": np.asarray(server["answer_late_s"], float),
    }


def _rows(measured: Figures, simulated: Figures, bound: float | None) -> list[tuple[str, float, float, str, int]]:
    """(name, measured, simulated, unit, digits)."""
    both = (measured, simulated)
    rows: list[Any] = [("cost per block", measured.cost, simulated.cost, "", 4)]
    rows += [(f"  {words}", *(one.components[name] for one in both), "", 4) for name, words in COMPONENT_NAMES.items()]
    rows += [("device energy per task", *(1e3 * one.device_j for one in both), "mJ", 3)]
    rows += [("server energy per task", *(1e3 * one.server_j for one in both), "mJ", 3)]
    rows += [] if bound is None else [("lower bound", bound, bound, "", 4)]
    rows += [
        ("gap to the lower bound", *(100 * one.gap for one in both), measured.no_gap or simulated.no_gap or "%", 3)
    ]
    rows += [("latency", *(1e3 * one.latency for one in both), "ms", 4)]
    rows += [
        (f"  {DELAY_NAMES[name]}", *(1e3 * one.delays[name] if one.delays else np.nan for one in both), "ms", 3)
        for name in DELAYS
    ]
    rows += [("  messages", 1e3 * measured.network, 0.0, "ms", 2)]
    rows += [("latency, half of the tasks", *(1e3 * one.p50 for one in both), "ms", 4)]
    rows += [("latency, 95 % of the tasks", *(1e3 * one.p95 for one in both), "ms", 4)]
    return rows


def task_counts(tasks: Iterable[TaskLog]) -> list[tuple[str, int]]:
    """How all tasks of devices ended, as they counted them; what is indented adds up to the row above it."""
    ended = Counter(task.outcome for task in tasks)
    rows = [
        ("tasks that arrived", ended.total()),
        (f"  {OUTCOME_NAMES[LOCAL]}", ended[LOCAL]),
        ("  sent to the server", ended[ANSWERED] + ended[FINISHED_HERE]),
        (f"    {OUTCOME_NAMES[ANSWERED]}", ended[ANSWERED]),
        (f"    {OUTCOME_NAMES[FINISHED_HERE]}", ended[FINISHED_HERE]),
        (f"  {OUTCOME_NAMES[FAILED]}", ended[FAILED]),
        (f"  {OUTCOME_NAMES[WAITING]}", ended[WAITING]),
    ]
    return [row for row in rows if row != (f"  {OUTCOME_NAMES[FAILED]}", 0)]  # random inputs never fail


def served_table(document: Mapping[str, Any]) -> Grid:
    """What a server prints of its run."""
    mine, _ = served_figures(document)
    empty = document["reports"].count(0)
    blocks = f"{document['blocks'] - empty} of {document['blocks']}" if empty else document["blocks"]
    grid = _plain(f"{document['scheme']}: {blocks} blocks; cost of the second half")
    grid.add_row("cost per block", number(mine.cost, 4), "")
    for name, words in COMPONENT_NAMES.items():
        grid.add_row(f"  {words}", number(mine.components[name], 3), "")
    if document["bound"] is not None:
        grid.add_row("lower bound", number(document["bound"], 4), "")
    grid.add_row("gap to the lower bound", number(100 * mine.gap, 3), mine.no_gap or "%")
    grid.add_row("tasks", "", "")
    for name, words in COUNT_NAMES.items():
        grid.add_row(f"  {words}", str(document["tasks"][name]), "")
    if empty:
        grid.add_row("blocks without a device, which do not count", str(empty), "")
    return grid


def joined_table(tasks: Mapping[int, Sequence[TaskLog]], end_s: float, alone: int) -> Grid:
    """What devices print of their run.

    tasks  by the number of the device      end_s  as of `stages`      alone  blocks without the server
    """
    mine, numbers = stages(chain(*tasks.values()), end_s), sorted(tasks)
    grid = _plain(f"device{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}")
    grid.add_row("latency", number(1e3 * mine.latency, 4), "ms")
    for name in DELAYS:
        grid.add_row(f"  {DELAY_NAMES[name]}", number(1e3 * mine.delays[name], 3), "ms")
    grid.add_row("  messages", number(1e3 * mine.network, 2), "ms")
    for name, count in task_counts(chain(*tasks.values())):
        grid.add_row(name, str(count), "")
    grid.add_row("blocks without the server", str(alone), "")
    return grid


def _plain(title: str) -> Grid:
    grid = Grid(title, header=False)
    grid.add_column("")
    grid.add_column("", "right")
    grid.add_column("", wrap=True)
    return grid
