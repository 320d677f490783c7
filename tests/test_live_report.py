"""The tables of a live run: the gap to the lower bound is that of a comparison, for both objectives."""

import io
import re
from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from partway.live.accounts import stages
from partway.live.report import (
    Figures,
    figures,
    horizon_of,
    joined_table,
    latency_json,
    live_table,
    served_figures,
    served_stages,
    served_table,
    task_counts,
    with_stages,
)
from partway.live.tasks import ANSWERED, FAILED, FINISHED_HERE, LOCAL, WAITING, TaskLog
from partway.measurement.gap import COMPONENT_NAMES, COST_COMPONENTS
from partway.measurement.latency import DELAY_NAMES, DELAYS
from partway.measurement.metrics import BlockMetrics
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme
from partway.text_tables import Grid

BOUND = 4.0
LOSSES = {
    "loss_devices": (1.0, 0.0, 2.0, 2.0),
    "loss_waiting": (0.0, 4.0, 0.0, 0.0),
    "loss_service": (0.0, 0.0, 0.0, 1.0),
}


def series(**changes: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Metrics (1, 4) of four blocks: 1 everywhere, but for the losses and `changes`."""
    given = LOSSES | changes
    return {field.name: np.array([given.get(field.name, (1.0,) * 4)]) for field in fields(BlockMetrics)}


def figures_of(objective: str, bound: float | None = BOUND, why: str = "", **changes: tuple[float, ...]) -> Figures:
    scenario = load("paper", {"objective": objective, "discount": 0.5})
    return figures(series(**changes), horizon_of(scenario, 4, bound, why))


def test_the_gap_of_the_average_cost_is_the_mean_loss_after_warmup():
    """Blocks 2 and 3 lose 2 and 3."""
    assert figures_of("average").gap == pytest.approx(2.5 / BOUND)


def test_the_gap_of_the_discounted_sum_counts_from_the_first_block():
    """1 + 4 / 2 + 2 / 4 + 3 / 8."""
    assert figures_of("discounted").gap == pytest.approx(3.875 / BOUND)


@pytest.mark.parametrize("objective", ["average", "discounted"])
def test_without_a_bound_there_is_no_gap_but_a_reason(objective: str):
    mine = figures_of(objective, None, "nobody knows")
    assert np.isnan(mine.gap)
    assert mine.no_gap == "nobody knows"


def test_a_loss_that_is_undefined_leaves_no_gap():
    mine = figures_of("average", loss_service=(0.0, 0.0, 0.0, np.nan))
    assert "infinite or undefined" in mine.no_gap
    assert figures_of("average").no_gap == ""


def test_the_cost_is_the_sum_of_its_components_after_warmup():
    mine = figures_of("average", server_queue=(9.0, 9.0, 2.0, 4.0))
    assert mine.components == {"server_queue": 3.0, "server_energy": 1.0, "device_queue": 1.0, "device_energy": 1.0}
    assert mine.cost == 6.0


def test_every_component_and_delay_has_words():
    assert {*COMPONENT_NAMES} == {*COST_COMPONENTS}
    assert {*DELAY_NAMES} == {*DELAYS}


def test_the_tables_give_the_reason_in_place_of_the_unit():
    scenario = load("paper", {"objective": "discounted"})
    document = document_of(scenario, None, "nobody knows", [scenario.devices] * 4)
    assert row(served_table(document)) == ["-", "nobody knows"]
    mine = figures_of("average", None, "nobody knows")
    device = {"device": 0, "tasks": [], "late_s": [0.0], "task_late_s": [], "misses": 0}
    assert row(live_table(mine, mine, document, [device])) == ["-", "-", "nobody knows"]


def test_the_tables_have_the_bound_and_what_the_scheme_says():
    """Of numbers that are sent for control a scheme says how many, as in a comparison."""
    scenario, mine = load("paper", {"devices": 1}), figures_of("average")
    document = document_of(scenario, BOUND, "", [1] * 4) | {"scheme": "neurosurgeon"}
    device = {"device": 0, "tasks": [], "late_s": [0.0], "task_late_s": [], "misses": 0}
    table, signals = live_table(mine, mine, document, [device]), find_scheme("neurosurgeon").signalling()
    said = f"{signals['up']}, {signals['down']}"
    assert row(table, "lower bound") == ["4", "4"]
    assert row(table, "numbers up, down") == [said, said, "per device and block"]
    assert row(served_table(document), "lower bound") == ["4"]


def document_of(
    scenario: Scenario, bound: float | None, why: str, reports: list[int], **changes: Any
) -> dict[str, Any]:
    """What a server leaves of four blocks, on which so many devices have reported."""
    return {
        "scenario": scenario.to_toml(),
        "scheme": "local",
        "blocks": 4,
        "tasks": {"received": 0, "answered": 0, "duplicates": 0, "late": 0},
        "bound": bound,
        "bound_reason": why,
        "answer_late_s": [],
        "reports": reports,
        "metrics": {name: own[0].tolist() for name, own in series(**changes).items()},
    }


@pytest.mark.parametrize(
    ("reports", "objective", "cost", "gap", "counted"),
    [
        ([2, 2, 2, 2], "average", 7.0, 2.5 / BOUND, 4),  # blocks 2 and 3
        ([2, 2, 2, 1], "average", 7.0, 2.5 / BOUND, 4),  # the word on the last block is lost
        ([1, 1, 2, 2], "average", 7.0, 2.5 / BOUND, 4),  # one came late, in the warm-up
        ([1, 1, 2, 2], "discounted", 7.0, None, 4),
        ([2, 2, 1, 1], "average", 7.0, None, 4),  # one has left
        ([2, 2, 0, 0], "average", 5.0, 4.0 / BOUND, 2),  # both have left: block 1 counts
        ([0, 2, 2, 0], "average", 6.0, 2.0 / BOUND, 2),  # block 2
        ([0, 0, 0, 0], "average", None, None, 0),
    ],
)
def test_blocks_in_which_no_device_takes_part_do_not_count(
    reports: list[int], objective: str, cost: float | None, gap: float | None, counted: int
):
    """The server's queue costs 1, 2, 3 and 5 in the four blocks, the other components 1 each."""
    scenario = load("paper", {"devices": 2, "objective": objective, "discount": 0.5})
    document = document_of(scenario, BOUND, "", reports, server_queue=(1.0, 2.0, 3.0, 5.0))
    found, horizon = served_figures(document)
    assert horizon.warmup == counted // 2
    assert (None if np.isnan(found.cost) else found.cost) == cost
    assert (None if np.isnan(found.gap) else found.gap) == gap
    if gap is None:
        assert found.no_gap == ("not all devices took part" if counted else "no device took part")
    text = io.StringIO()
    Console(file=text, width=120).print(served_table(document))
    last = " ".join(text.getvalue().splitlines()[-1].split())
    assert (last == f"blocks without a device, which do not count {4 - counted}") == (counted < 4)


def test_what_the_end_of_a_run_cuts_off_counts_as_it_does_in_a_simulation():
    """By hand, of a run that ends at 10 s: the third task is answered later, the fourth one is never started.

    They take 3 and 7 s, and have waited for 6 and 2 s so far.
    """
    tasks = [
        TaskLog(0, 0, 0, 1.0, 2.0, 4.0, answered=4.0, outcome=LOCAL),
        TaskLog(0, 1, 0, 1.0, 2.0, 5.0, 6.0, 8.0, 1.0, 0.5, 0.5, ANSWERED),
        TaskLog(1, 0, 1, 4.0, 5.0, 6.0, 7.0, 10.1, 1.0, 2.0, 0.5, ANSWERED),
        TaskLog(1, 1, 2, 8.0),
    ]
    found = stages(tasks, 10.0)
    assert (found.tasks, found.unfinished, found.latency, found.p50) == (4, 0.5, 4.5, 7.0)
    assert np.isnan(found.p95)
    assert list(found.delays.values()) == [1.25, 1.5, 0.5, 0.5, 0.625]
    assert found.network == 0.125
    written = latency_json(with_stages(figures_of("average"), found))
    assert (written["mean_s"], written["p50_s"], sum(written["stages_s"].values())) == (4.5, 7.0, 4.5)
    later = stages(tasks, 10.2, first_block=1)
    assert (later.tasks, later.p50) == (2, pytest.approx(6.1))


def test_95_per_cent_is_the_time_of_a_task_and_not_between_two():
    """Of 20 tasks 19 take 1, 2, ..., 19 s, and one is not done: within 19 s 95 % are. One that failed has no time."""
    tasks = [TaskLog(0, k, 0, 0.0, 0.0, float(k), answered=float(k), outcome=LOCAL) for k in range(1, 20)]
    tasks += [TaskLog(0, 20, 0, 0.0), TaskLog(0, 21, 0, 0.0, answered=1.0, outcome=FAILED)]
    found = stages(tasks, 100.0)
    assert (found.tasks, found.p50, found.p95) == (20, 10.0, 19.0)
    assert stages([], 100.0).tasks == 0
    assert np.isnan(stages([], 100.0).latency)


def test_a_device_says_how_all_its_tasks_ended():
    def task(device: int, number: int, outcome: str) -> TaskLog:
        times: dict[str, Any] = {} if outcome == WAITING else {"begun": 1.0, "cut": 1.5, "answered": 2.0}
        return TaskLog(device, number, 0, 0.0, **times, outcome=outcome)

    ends = [[LOCAL, LOCAL, ANSWERED], [ANSWERED, ANSWERED, FINISHED_HERE, LOCAL, WAITING]]
    tasks = {3 - 2 * k: [task(k, i, outcome) for i, outcome in enumerate(outcomes)] for k, outcomes in enumerate(ends)}
    text = io.StringIO()
    Console(file=text, width=80).print(joined_table(tasks, 9.0, 4))
    lines = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert lines[0] == "devices 1, 3"
    assert lines[1] == "latency 2875 ms"  # seven took 2 s, the last one has waited for 9 s
    assert lines[-7:] == [
        "tasks that arrived 8",
        "finished by the device 3",
        "sent to the server 4",
        "answered by it 3",
        "finished by the device after all 1",
        "not started when the run ended 1",
        "blocks without the server 4",
    ]


def test_what_is_indented_adds_up_to_the_row_above_it():
    tasks = [TaskLog(0, k, 0, 0.0, outcome=outcome) for k, outcome in enumerate([LOCAL] * 2 + [ANSWERED] * 3)]
    tasks += [TaskLog(0, 5 + k, 0, 0.0, outcome=outcome) for k, outcome in enumerate([FINISHED_HERE, WAITING, FAILED])]
    indents = Counter[int]()
    counts = dict(task_counts(tasks))
    for name, count in counts.items():
        indents[len(name) - len(name.lstrip())] += count
    assert indents == {0: 8, 2: 8, 4: 4}
    assert counts["  sent to the server"] == 4
    assert len(counts) == 1 + len(task_counts([]))  # a row for those that failed only where there are any


@pytest.mark.parametrize(
    ("reports", "first"), [([2, 2, 2, 2], 2), ([0, 0, 2, 2], 3), ([2, 2, 0, 0], 1), ([0, 2, 0, 2], 3), ([0] * 4, None)]
)
def test_tasks_count_from_the_block_from_which_the_figures_do(reports: list[int], first: int | None):
    """Half of the blocks in which a device took part are warm-up. The task of block b takes b + 1 s."""
    document = document_of(load("paper", {"devices": 2}), None, "", reports)
    tasks = [TaskLog(0, b, b, 0.0, 0.0, b + 1.0, answered=b + 1.0, outcome=LOCAL) for b in range(4)]
    found = served_stages(document | {"blocks": 100}, tasks)
    if first is None:
        assert (found.tasks, np.isnan(found.latency)) == (0, True)
    else:
        assert (found.tasks, found.latency) == (4 - first, pytest.approx((first + 1 + 4) / 2))


def row(grid: Grid, name: str = "gap to the lower bound") -> list[str]:
    """The cells of a row after its name."""
    text = io.StringIO()
    Console(file=text, width=120).print(grid)
    (line,) = (line for line in text.getvalue().splitlines() if line.startswith(name))
    return re.split(r" {2,}", line.strip())[1:]
