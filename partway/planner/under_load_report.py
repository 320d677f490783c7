"""The second answer of `partway cut`, under load: one sentence, tables for the terminal, and a JSON document."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group

from partway.errors import shorten
from partway.formatting import number, plain, prefixed
from partway.planner.answer import OneTask
from partway.planner.break_even import MAX_HZ, MIN_HZ, BreakEven
from partway.planner.context import DeviceContext
from partway.planner.evaluation import PolicyOutcome, SingleTask
from partway.planner.plan import (
    FADING_QUANTILES,
    QUEUE_LENGTHS,
    PlanRule,
    PlanTable,
    max_efficiency,
    printed_plan,
    typical_plan,
)
from partway.text_tables import Grid, Sentence
from partway.units import UP, quantity

MAX_NAME = 44
"""Characters of a tensor's name that are shown in a sentence."""
PLAN_LEGEND = (
    "Plan: tasks to start, cut of the last one, CPU rate. Rows: tasks waiting. Columns: share of the blocks with a "
    "lower channel gain; gain / mean and, if the transmit power is limited, bit/s/Hz at full power."
)
SINGLE_TASK_LEGEND = (
    "One task in blocks, in closed form: it arrives at the start of a block, all queues are empty, the channel gain is "
    "at its mean. Its latency is a block at the device, a radio slot, the wait for the server's next block, and that "
    "block; a task that arrives within a block first waits for the next one."
)
OUTCOMES_LEGEND = (
    "Simulation: this device, all devices with the same policy. Recommended is what costs least, not what is fastest "
    "(cost: waiting, energy, price of the offloaded work)."
)
TITLE = "Under load, simulated"
WORD_COLUMNS = ("after", "choice", "policy")
"""Headers of left-aligned columns."""


@dataclass(frozen=True)
class CutResult:
    """The second answer of `partway cut`.

    source        where the plan comes from, in words
    single_tasks  the choices for a single task, in closed form
    outcomes      the simulated policies; may be empty
    """

    target: DeviceContext
    rule: PlanRule
    source: str
    break_even: BreakEven
    single_tasks: Sequence[SingleTask]
    outcomes: Sequence[PolicyOutcome]

    def plan(self) -> PlanTable:
        """The plan at QUEUE_LENGTHS and FADING_QUANTILES."""
        return printed_plan(self.target, self.rule)

    def typical(self) -> PlanTable:
        """The plan at the mean channel gain, with as many tasks waiting as arrive in a block."""
        return typical_plan(self.target, self.rule)


def _hertz(value: Any) -> str:
    return quantity(float(value), "Hz")


def headline(result: CutResult) -> str:
    """The decision in the typical state, in one sentence."""
    plan = result.typical()
    queue, started, offload = int(plan.queues[0]), int(plan.started[0, 0]), float(plan.offload[0, 0])
    state = f"With {queue} task{'s' * (queue != 1)} waiting and the channel gain at its mean"
    if not started:
        return f"{state}: start no task in this block."
    cpu, kbit = f"with the CPU at {_hertz(plan.cpu_hz[0, 0])}", f"{number(float(plan.bits[0, 0]) / 1e3)} kbit"
    if offload == 0:
        return f"{state}: run {started if started > 1 else 'it'} locally {cpu}; send nothing."
    run, last = [f"{started - 1} locally"] * (started > 1), "the next" if started > 1 else "it"
    if not (cut := int(plan.cut[0, 0])):
        send = f"send {'the encoded input of the next' if started > 1 else 'its encoded input'}, {kbit}"
    else:
        run.append(f"{last} up to '{shorten(result.target.profile.cuts[cut].after, MAX_NAME)}'")
        send = f"send {kbit}, the server does {offload:.0%} of that task"
    steps = [f"run {' and '.join(run)} {cpu}", send] if run else [send]
    return f"{state}: {'; '.join(steps)}."


def notes(result: CutResult) -> list[str]:
    """The assumptions: which device, where the plan comes from, and whether the arrivals were scaled."""
    target, scenario = result.target, result.target.scenario
    distance_m, gain = target.placement.distance_m[target.index], float(target.device.mean_gain)
    about_device = (
        f"Device {target.index} of {scenario.devices}, distance {number(float(distance_m))} m, "
        f"mean channel gain {number(gain)} / W; {result.source}."
    )
    if target.arrival_scale == 1:
        return [about_device]
    probability = number(scenario.device_classes()[target.index].arrival_prob)
    return [
        f"OVERLOAD: the arrivals exceed the capacity. The plan is for {target.arrival_scale:.2g} times the arrivals "
        f"(arrival_prob {probability}); lower device.arrival_prob, or use a faster CPU or more bandwidth.",
        about_device,
    ]


def why_it_differs(result: CutResult, first: OneTask) -> list[str]:
    """Why the latency is not that of the first answer, and whether the deadline is met under load."""
    scenario, one, plan = result.target.scenario, first.recommended, result.typical()
    slot, block = (quantity(each, "s") for each in (scenario.slot_s, result.target.block_s))
    arriving = result.target.arrivals_per_block * scenario.devices / result.target.block_s
    devices = f"{scenario.devices} devices share" if scenario.devices > 1 else "one device has"
    sentences = [
        f"One task alone takes {quantity(one.latency_s, 's', 4)}. Here {devices} the server, "
        f"{number(arriving)} tasks arrive per second, the channel fades, and time is in blocks of {block}: a task "
        f"waits for the next block, a tensor is sent in one slot of {slot} after it, the server works in blocks, too."
    ]
    cpu_hz = float(plan.cpu_hz[0, 0])
    if 0 < cpu_hz < result.target.cpu_max_hz * (1 - 1e-6):
        saved = (cpu_hz / result.target.cpu_max_hz) ** 2
        percent = f"{saved:.0%}" if saved >= 0.01 else "less than 1%"
        sentences.append(
            f"The plan waits for the CPU to save energy: at {_hertz(cpu_hz)} instead of "
            f"{_hertz(result.target.cpu_max_hz)} the same work takes the whole block and {percent} of the energy."
        )
    if first.question.link.rtt_s:
        sentences.append("The simulation has no round trip.")
    deadline_s, (recommended, *_) = first.question.deadline_s, result.outcomes or (None,)
    if deadline_s is not None and recommended is not None and not recommended.unstable:
        p95_s = recommended.p95_latency_s
        sentences.append(_under_load(deadline_s, p95_s, result.target.block_s))
    return sentences


def _under_load(deadline_s: float, p95_s: float, block_s: float) -> str:
    words = f"Deadline {quantity(deadline_s, 's', 4)} under load"
    if p95_s <= deadline_s:
        return f"{words}: met, 95 % of the tasks take at most {quantity(p95_s, 's', 4, UP)}."
    shorter = "; blocks are longer than the deadline: set a shorter slot_s" if block_s > deadline_s else ""
    if not np.isfinite(p95_s):
        return f"{words}: NOT MET, more than 5 % take longer{shorter}."
    return f"{words}: NOT MET, 95 % of the tasks take up to {quantity(p95_s, 's', 4, UP)}{shorter}."


def break_even_sentence(result: CutResult) -> str:
    """The bandwidths from which offloading pays."""
    bandwidth, even = _hertz(result.target.device.bandwidth_hz), result.break_even
    noise = "total noise" if result.target.fixed_noise else "noise density"
    return (
        f"By cost, not by latency, for one waiting task, the mean channel gain and a constant {noise} (bandwidth now "
        f"{bandwidth}): offloading a part pays {_from(even.offloading_hz)}; all remote costs less than all local "
        f"{_from(even.all_remote_hz)}{_why_never(result)}."
    )


def _why_never(result: CutResult) -> str:
    """Why no bandwidth makes sending everything cheaper, although it may be faster."""
    if result.break_even.all_remote_hz is not None:
        return ""
    return ": the price of the task at the server alone is above the device's energy for it, spread over a block"


def _from(value: float | None) -> str:
    if value is None:
        return f"at no bandwidth up to {_hertz(MAX_HZ)}"
    return f"at {_hertz(value)} and below" if value == MIN_HZ else f"from {quantity(value, 'Hz', rounding=UP)}"


def details_table(result: CutResult, first: OneTask | None = None) -> Group:
    """The second answer for a terminal; `first`: to say why it differs."""
    return Group(
        Sentence(f"{TITLE}. {headline(result)}", style="bold"),
        *(Sentence(sentence) for sentence in (why_it_differs(result, first) if first else ())),
        *(Sentence(note, style="dim") for note in notes(result)),
        *(("", Sentence(OUTCOMES_LEGEND), _outcomes_grid(result)) if result.outcomes else ()),
        *(
            Sentence(f"{each.name}: the queue of the {each.unstable} grows")
            for each in result.outcomes
            if each.unstable
        ),
        "",
        Sentence(SINGLE_TASK_LEGEND),
        _single_task_grid(result),
        *(Sentence(f"{task.name}: {task.reason}") for task in result.single_tasks if task.reason),
        "",
        Sentence(PLAN_LEGEND),
        _plan_grid(result),
        "",
        _cuts_grid(result),
        Sentence(break_even_sentence(result)),
    )


def _grid(headers: Iterable[str], keys: int = 1) -> Grid:
    """An empty table; columns of words are left-aligned, the others right-aligned."""
    grid = Grid(keys=keys)
    for header in headers:
        grid.add_column(header, "left" if header in WORD_COLUMNS else "right", name=header == "after")
    return grid


def _plan_grid(result: CutResult) -> Grid:
    """Queue length by channel gain; each cell has the tasks to start, the cut of the last one, and the CPU rate."""
    plan, efficiencies = result.plan(), max_efficiency(result.target, result.target.fading_quantile(FADING_QUANTILES))
    grid = Grid()
    grid.add_column("waiting", "right")
    for share, x, efficiency in zip(FADING_QUANTILES, plan.fading, efficiencies, strict=True):
        rate = f", {efficiency:.1f}" if np.isfinite(efficiency) else ""
        grid.add_column(f"{share:.0%}\n{x:.2g}{rate}")
    for i, queue in enumerate(QUEUE_LENGTHS):
        grid.add_row(str(queue), *(_cell(plan, i, j) for j in range(len(FADING_QUANTILES))))
    return grid


def _cell(plan: PlanTable, i: int, j: int) -> str:
    started, offload = int(plan.started[i, j]), float(plan.offload[i, j])
    if not started:
        return "wait"
    cut = "all local" if offload == 0 else f"cut {plan.cut[i, j]}" if plan.cut[i, j] else "send input"
    cpu = _hertz(plan.cpu_hz[i, j]) if started > offload else "CPU off"
    return f"{started}, {cut}\n{cpu}"


def _cuts_grid(result: CutResult) -> Grid:
    """The cuts that occur in the plan."""
    plan, grid = result.plan(), _grid(("cut", "after", "work left", "sends [bit]"), keys=2)
    cuts = {int(cut): i for i, cut in enumerate(plan.cut.flat)}
    for cut, i in sorted(cuts.items()):
        name = result.target.profile.cuts[cut].after
        grid.add_row(str(cut), name, f"{plan.offload.flat[i]:.1%}", prefixed(plan.bits.flat[i]))
    return grid


def _single_task_grid(result: CutResult) -> Grid:
    """The choices for a single task; a word instead of numbers where a choice waits or is infeasible."""
    times, energies = ("latency\ns", "device\ns", "radio\ns", "wait\ns", "server\ns"), ("device\nJ", "server\nJ")
    grid = _grid(("choice", "cut", "CPU", *times, *energies))
    for task in result.single_tasks:
        if np.isnan(task.offload):
            grid.add_row(task.name, "-", "-", "waits", *["-"] * 6)
            continue
        values = (task.latency_s, task.device_s, task.radio_s, task.wait_s, task.server_s, task.device_j, task.server_j)
        cells = ["infeasible", *["-"] * 6] if task.reason else map(number, values)
        grid.add_row(
            task.name, str(_cut_of(result.target, task)), _hertz(task.cpu_hz) if task.cpu_hz else "off", *cells
        )
    return grid


def _cut_of(target: DeviceContext, task: SingleTask) -> int | None:
    """The number of the task's cut in the profile; None if the plan starts no task."""
    return None if np.isnan(task.offload) else int(target.cuts[target.rows(task.offload)])


def _outcomes_grid(result: CutResult) -> Grid:
    heads = ("latency\nmean s", "latency\np95 s", "device\nJ/task", "server\nJ/task", "cost\nper block", "offloaded")
    grid = _grid(("policy", *heads))
    for each in result.outcomes:
        latencies = (each.mean_latency_s, each.p95_latency_s)
        values = (*latencies, each.device_j_per_task, each.server_j_per_task, each.cost_per_block)
        cells = ["unstable"] * 6 if each.unstable else [*map(number, values), f"{each.offloaded_share:.0%}"]
        grid.add_row(each.name, *cells)
    return grid


def as_json(result: CutResult, first: OneTask) -> dict[str, Any]:
    """The second answer for other programs; null for numbers that do not exist.

    `single_task.choices` has the fields of `SingleTask`; `reason` says why times and energies are null.
    """
    target, plan = result.target, result.plan()
    rows = [
        {"gain_quantile": quantile} | _plan_row(plan, i, j, target)
        for i in range(len(QUEUE_LENGTHS))
        for j, quantile in enumerate(FADING_QUANTILES)
    ]
    tasks = [{"cut": _cut_of(target, task), "latency_s": task.latency_s} | asdict(task) for task in result.single_tasks]
    document = {
        "recommendation": headline(result),
        "why_it_differs": why_it_differs(result, first),
        "notes": notes(result),
        "device": target.index,
        "mean_gain_per_w": float(target.device.mean_gain),
        "price": result.rule.price,
        "arrival_scale": target.arrival_scale,
        "typical": _plan_row(result.typical(), 0, 0, target),
        "plan": rows,
        "single_task": {"assumptions": SINGLE_TASK_LEGEND, "choices": tasks},
        "simulated": [asdict(outcome) for outcome in result.outcomes],
        "break_even_hz": {"offloading": result.break_even.offloading_hz, "all_remote": result.break_even.all_remote_hz},
    }
    return plain(document)


def _plan_row(plan: PlanTable, i: int, j: int, target: DeviceContext) -> dict[str, Any]:
    cut = int(plan.cut[i, j])
    return {
        "queue": int(plan.queues[i]),
        "gain_over_mean": float(plan.fading[j]),
        "started": int(plan.started[i, j]),
        "cut": cut,
        "after": target.profile.cuts[cut].after,
        "offload": float(plan.offload[i, j]),
        "bits": float(plan.bits[i, j]),
        "cpu_hz": float(plan.cpu_hz[i, j]),
    }
