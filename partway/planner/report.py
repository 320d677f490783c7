"""Where to cut, told: one sentence, the table of queue and radio, what it brings, from which bandwidth it pays."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from partway.errors import shorten
from partway.formatting import number, plain
from partway.planner.break_even import LEAST_HZ, MOST_HZ, BreakEven
from partway.planner.evaluation import Alone, Measured
from partway.planner.plan import QUANTILES, QUEUES, DeviceContext, PlanRule, PlanTable, advise, efficiency, quantile

LONGEST_TENSOR = 44
CHOICES = (
    "What to do (tasks to take up, cut of the last one, rate of the CPU), by tasks waiting and radio:\n"
    "share of blocks that are worse; gain / mean and, where power is limited, bit/s/Hz at full power."
)
ALONE = (
    "One task alone, by formula: it comes as a block begins, nothing waits, the channel is at its mean.\n"
    "Latency: a block at the device, a radio slot, the wait for the server's next block, that block; a\n"
    "task that comes within a block waits for its end first. No policy here runs a lone task at f_max."
)
MEASURED = "Simulated: this device, all playing alike (cost: its waiting and energy, the price of work sent)."


@dataclass(frozen=True)
class Answer:
    """All that `partway cut` found. `source`: where the plan comes from, in words; `measured` may be empty.

    `alone`: one task of each choice, in closed form.
    """

    target: DeviceContext
    rule: PlanRule
    source: str
    even: BreakEven
    alone: Sequence[Alone]
    measured: Sequence[Measured]

    def table(self) -> PlanTable:
        """The advice at QUEUES and QUANTILES."""
        return advise(self.target, self.rule, np.array(QUEUES), quantile(QUANTILES))

    def usual(self) -> PlanTable:
        """The advice at the radio's mean, with as many tasks waiting as arrive in a block."""
        kind = self.target.scenario.device_classes()[self.target.device]
        waiting = max(1, round(kind.arrival_prob * self.target.scenario.slots))
        return advise(self.target, self.rule, np.array([waiting]), np.ones(1))


def hertz(value: float) -> str:
    """1.2 GHz."""
    for unit, size in (("THz", 1e12), ("GHz", 1e9), ("MHz", 1e6), ("kHz", 1e3)):
        if value >= size:
            return f"{number(value / size)} {unit}"
    return f"{number(value)} Hz"


def sentence(answer: Answer) -> str:
    """The answer in one sentence."""
    one, cuts = answer.usual(), answer.target.profile.cuts
    queue, started, offload = int(one.queues[0]), int(one.started[0, 0]), float(one.offload[0, 0])
    start = f"With {queue} task{'s' * (queue != 1)} waiting and the radio at its mean: "
    if not started:
        return start + "wait for a better moment."
    cpu, kbit = hertz(float(one.cpu_hz[0, 0])), f"{number(float(one.bits[0, 0]) / 1e3)} kbit"
    whole = f"run {started - 1} here and " if started > 1 else ""
    at = f", the CPU at {cpu}" if started > offload else ""
    if offload == 0:
        return start + f"run {started if started > 1 else 'it'} here at {cpu}, send nothing."
    if offload == 1:
        return start + f"{whole}send {'the next' if started > 1 else 'it'} uncut, its encoded input, {kbit}{at}."
    after = shorten(cuts[int(one.cut[0, 0])].after, LONGEST_TENSOR)
    which = "the next" if started > 1 else "run it"
    return start + f"{whole}{which} up to '{after}', then send {kbit} ({offload:.2f} of its work){at}."


def notes(answer: Answer) -> list[str]:
    """What has to be known about the question: which device, where the plan comes from, what was changed."""
    target, scenario = answer.target, answer.target.scenario
    said = [
        f"Device {target.device} of {scenario.devices}, {number(float(target.placement.distance_m[target.device]))} m "
        f"away, mean gain {number(float(target.own.mean_gain))} / W; {answer.source}."
    ]
    if target.eased < 1:
        said.insert(
            0,
            f"MORE WORK ARRIVES THAN CAN BE DONE: planned for {target.eased:.2g} times the scenario's arrivals "
            f"(arrival_prob {number(scenario.device_classes()[target.device].arrival_prob)}); set another "
            "device.arrival_prob, a faster CPU or more bandwidth.",
        )
    return said


def even_sentences(answer: Answer) -> list[str]:
    """From which bandwidth it pays."""
    now = hertz(float(answer.target.own.bandwidth_hz))
    sending, remote = _from(answer.even.sending_hz), _from(answer.even.remote_hz)
    return [
        "One task waiting, radio at its mean, noise growing with the bandwidth "
        f"(now {now}): sending part of it pays {sending}; all remote beats all local {remote}."
    ]


def _from(value: float | None) -> str:
    if value is None:
        return f"never up to {hertz(MOST_HZ)}"
    return f"already at {hertz(value)}" if value == LEAST_HZ else f"from {hertz(value)}"


def sheet(answer: Answer) -> Group:
    """All of it for the terminal, 100 columns."""
    parts: list[Any] = [Text(sentence(answer), style="bold"), *(Text(note, style="dim") for note in notes(answer))]
    parts += ["", Text(CHOICES), _choices(answer), "", _cuts_used(answer), "", Text(ALONE), _alone(answer)]
    parts += [Text(f"{one.name}: {one.why}") for one in answer.alone if one.why]
    if answer.measured:
        parts += ["", Text(MEASURED), _measured(answer)]
    parts += [Text(f"{one.name}: work piles up {one.unstable}") for one in answer.measured if one.unstable]
    return Group(*parts, "", *map(Text, even_sentences(answer)))


def _choices(answer: Answer) -> Table:
    """Queue by radio quality; every cell says how many to take up, where to cut the last, and the CPU's rate."""
    found, carried = answer.table(), efficiency(answer.target, quantile(QUANTILES))
    grid = Table(header_style="bold", box=None, pad_edge=False)
    grid.add_column("waiting", justify="right")
    for share, x, fast in zip(QUANTILES, found.fading, carried, strict=True):
        speed = f", {fast:.1f}" if np.isfinite(fast) else ""
        grid.add_column(f"{share:.0%}\n{x:.2g}{speed}", no_wrap=True)
    for i, queue in enumerate(QUEUES):
        grid.add_row(str(queue), *(_cell(found, i, j) for j in range(len(QUANTILES))))
    return grid


def _cell(found: PlanTable, i: int, j: int) -> str:
    started, offload = int(found.started[i, j]), float(found.offload[i, j])
    if not started:
        return "wait"
    kind = "all here" if offload == 0 else "send all" if offload == 1 else f"cut {found.cut[i, j]}"
    cpu = hertz(float(found.cpu_hz[i, j])) if started > offload else "CPU off"
    return f"{started}, {kind}\n{cpu}"


def _cuts_used(answer: Answer) -> Table:
    """What the cuts in the table are."""
    found, target = answer.table(), answer.target
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("cut", "after", "work left", "sends [kbit]"):
        grid.add_column(head, justify="left" if head == "after" else "right", no_wrap=True)
    rows = {int(c): (r, b) for c, r, b in zip(found.cut.flat, found.offload.flat, found.bits.flat, strict=True)}
    for cut, (offload, bits) in sorted(rows.items()):
        name = shorten(target.profile.cuts[cut].after, LONGEST_TENSOR)
        grid.add_row(str(cut), Text(name), f"{offload:.1%}", f"{bits / 1e3:,.1f}")
    return grid


def _alone(answer: Answer) -> Table:
    """One task alone; where it waits or cannot be dealt with, that word instead of numbers."""
    grid = Table(header_style="bold", box=None, pad_edge=False)
    grid.add_column("choice", no_wrap=True)
    heads = ("cut", "CPU", "latency\ns", "device\ns", "radio\ns", "wait\ns", "server\ns", "device\nJ", "server\nJ")
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    for one in answer.alone:
        values = (one.latency_s, one.device_s, one.radio_s, one.wait_s, one.server_s, one.device_j, one.server_j)
        if np.isnan(one.offload):
            grid.add_row(one.name, "-", "-", "waits", *["-"] * 6)
            continue
        numbers = ["impossible", *["-"] * 6] if one.why else map(number, values)
        cpu = hertz(one.cpu_hz) if one.cpu_hz else "off"
        grid.add_row(one.name, str(_cut_of(answer.target, one)), cpu, *numbers)
    return grid


def _cut_of(target: DeviceContext, one: Alone) -> int:
    """Number in the profile of the cut that sends so much."""
    return int(target.cuts[np.argmin(np.abs(np.asarray(target.own.task.share)[: len(target.cuts)] - one.offload))])


def _measured(answer: Answer) -> Table:
    grid = Table(header_style="bold", box=None, pad_edge=False)
    grid.add_column("policy", no_wrap=True)
    for head in ("latency\nmean s", "\np95 s", "device\nJ/task", "server\nJ/task", "cost\nper block", "sent"):
        grid.add_column(head, justify="right", no_wrap=True)
    for one in answer.measured:
        if one.unstable:
            grid.add_row(one.name, *["unstable"] * 6)
            continue
        values = (one.latency_s, one.p95_s, one.device_j, one.server_j, one.cost)
        grid.add_row(one.name, *map(number, values), f"{one.sent:.0%}")
    return grid


def as_json(answer: Answer) -> dict[str, Any]:
    """The same for programs: null for what does not exist.

    `alone` holds what is assumed of the lone task and, for each choice, its cut and the fields of `Alone`: `why` says
    why latency and energy are null, where they are.
    """
    target, found = answer.target, answer.table()
    rows = [
        _json_row(found, i, j, answer) | {"worse_share": QUANTILES[j]}
        for i in range(len(QUEUES))
        for j in range(len(QUANTILES))
    ]
    document = {
        "schema_version": 1,
        "answer": sentence(answer),
        "notes": notes(answer),
        "profile": target.profile.name,
        "device": target.device,
        "mean_gain_per_w": float(target.own.mean_gain),
        "price": answer.rule.price,
        "arrivals_factor": target.eased,
        "usual": _json_row(answer.usual(), 0, 0, answer),
        "choices": rows,
        "alone": {"assumes": ALONE.replace("\n", " "), "choices": [_json_alone(one, target) for one in answer.alone]},
        "measured": [asdict(one) for one in answer.measured],
        "break_even_hz": {"sending": answer.even.sending_hz, "all_remote": answer.even.remote_hz},
        "scenario": target.scenario.model_dump(mode="json", exclude_none=True),
    }
    return plain(document)


def _json_alone(one: Alone, target: DeviceContext) -> dict[str, Any]:
    cut = None if np.isnan(one.offload) else _cut_of(target, one)
    return {"cut": cut, "latency_s": one.latency_s} | asdict(one)


def _json_row(found: PlanTable, i: int, j: int, answer: Answer) -> dict[str, Any]:
    cut = int(found.cut[i, j])
    return {
        "waiting": int(found.queues[i]),
        "gain_over_mean": float(found.fading[j]),
        "started": int(found.started[i, j]),
        "cut": cut,
        "after": answer.target.profile.cuts[cut].after,
        "offload": float(found.offload[i, j]),
        "bits": float(found.bits[i, j]),
        "cpu_hz": float(found.cpu_hz[i, j]),
    }
