"""The first answer of `partway cut` for a terminal and as JSON. Needs no JAX."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Group

from partway.errors import shorten
from partway.formatting import number, plain, prefixed
from partway.planner.answer import CutRow, OneTask
from partway.planner.one_task import better_on_front, costs, least_rate
from partway.text_tables import Grid, Sentence
from partway.units import DOWN, RATE, UP, prefix_of, quantity

MAX_NAME = 44
"""Characters of a tensor's name that are shown in a sentence."""
DIGITS = 4
LEGEND = (
    "One task in continuous time, nothing else running, the CPU at full speed: device + link + round trip + server. "
    "Link: bits / rate."
)


def name_of(answer: OneTask, row: CutRow) -> str:
    """A cut in words."""
    if row.cut == 0:
        return "all remote"
    if row.cut == len(answer.profile.cuts) - 1:
        return "all local"
    return f"cut {row.cut}"


def headline(answer: OneTask) -> str:
    """What to do with one task, in one sentence."""
    row, rate = answer.recommended, quantity(answer.question.link.bit_per_s, "bit/s")
    return f"At {rate}: {_action(answer, row)}: {_taken(row)}{_beside(answer, row)}."


def _action(answer: OneTask, row: CutRow) -> str:
    if row.bits == 0:
        return "run everything locally" + _at_rate(answer, row)
    sent = f"{prefixed(row.bits)}bit".replace(" ", " ") if row.bits >= 1e3 else f"{row.bits:.0f} bit"
    if row.cut == 0:
        return f"send the encoded input, {sent}"
    run = f"run up to '{shorten(row.after, MAX_NAME)}' (cut {row.cut}){_at_rate(answer, row)}"
    return f"{run}, send {sent}, {row.left:.0%} left for the server"


def _at_rate(answer: OneTask, row: CutRow) -> str:
    """The CPU rate, if it is not the largest."""
    slower = row.cpu_hz < answer.question.device.max_hz * (1 - 1e-9)
    return f" with the CPU at {quantity(row.cpu_hz, 'Hz', rounding=UP)}" if slower else ""


def _taken(row: CutRow) -> str:
    return f"{quantity(row.latency_s, 's', DIGITS)}, {quantity(row.device_j, 'J')} at the device"


def _beside(answer: OneTask, row: CutRow) -> str:
    """All local and all remote, unless they are recommended."""
    others = [other for other in (answer.all_local, answer.all_remote) if other.cut != row.cut]
    return "".join(f"; {name_of(answer, other)} {_taken(other)}" for other in others)


def deadline_sentence(answer: OneTask) -> str | None:
    """Whether the deadline is met, and why not; None without one."""
    limit, question = answer.question.deadline_s, answer.question
    if limit is None:
        return None
    words, row = quantity(limit, "s", DIGITS), answer.recommended
    if answer.met:
        fastest = answer.cuts[0]
        reason = "" if fastest.cut == row.cut else f", with less energy than the fastest, {name_of(answer, fastest)}"
        return f"Deadline {words}: met by {name_of(answer, row)}{reason}."
    late = quantity(row.latency_s - limit, "s")
    where = [("device", row.device_s), ("link", row.link_s), ("round trip", row.rtt_s), ("server", row.server_s)]
    parts = " + ".join(f"{quantity(value, 's', DIGITS)} {name}" for name, value in where if value > 0)
    missed = f"Deadline {words}: NOT MET. The fastest, {name_of(answer, row)}, is {late} late: {parts}"
    rate = least_rate(question, limit, question.bits > 0)
    if rate is not None and rate <= RATE.most:
        return f"{missed}. It can be met from {quantity(rate, 'bit/s', rounding=UP)}."
    least = float((costs(question).latency_s - costs(question).link_s).min())
    below = "" if rate is None else f" up to {quantity(RATE.most, 'bit/s')}"
    return f"{missed}. No rate{below} meets it: layers and round trip alone take {quantity(least, 's', DIGITS, UP)}."


def why_recommended(answer: OneTask) -> str | None:
    """Why a cut is recommended that is not Pareto-optimal in work and bits; None if it is."""
    row = answer.recommended
    if (other := better_on_front(answer.question, row.cut)) is None:
        return None
    than = answer.row(other, answer.choice.speed)
    gains = (("device", than.device_s - row.device_s), ("link", than.link_s - row.link_s))
    gains += (("server", than.server_s - row.server_s),)
    parts = ", ".join(f"{name} {'-' if gain > 0 else '+'}{quantity(abs(gain), 's')}" for name, gain in gains if gain)
    return (
        f"Cut {row.cut} is not Pareto-optimal: {name_of(answer, than)} sends no more bits after no more work. It is "
        f"recommended because layers take the times measured, not times in proportion to their work: {parts}."
    )


def notes(answer: OneTask) -> list[str]:
    """What the answer assumes of device, link and server."""
    question, stated = answer.question, answer.stated
    device, link = question.device, question.link
    speed = f", down to {quantity(device.min_speed * device.max_hz, 'Hz')}" if device.min_speed < 1 else ""
    idle = f", {quantity(device.idle_w, 'W')} idle" if device.idle_w else ""
    whose = "as stated" if stated.rate is not None else "full power at the mean channel gain"
    return [
        f"Device: {device.source}{speed}, CPU {quantity(device.busy_w, 'W')}{idle}. Server: {question.server.source}. "
        f"Link: {quantity(link.bit_per_s, 'bit/s')} ({whose}), round trip {quantity(link.rtt_s, 's')}, "
        f"{quantity(link.j_per_bit, 'J/bit')}. Tensors are sent as {answer.tensor_dtype}."
    ]


def split_command(answer: OneTask) -> str | None:
    """The command that writes the two halves of the recommended cut, with its data type; None if nothing is split."""
    row, last = answer.recommended, len(answer.profile.cuts) - 1
    if answer.onnx is None or row.cut in (0, last):
        return None
    how = ["--cuts", str(row.cut), "--tensor-dtype", answer.tensor_dtype, "--out", "halves", "--verify"]
    return shlex.join(["partway", "split", answer.onnx, *answer.onnx_flags, *how])


def _in_two_lines(command: str) -> list[Sentence]:
    """The command for a shell, in lines that a terminal need not break."""
    first, _, second = command.rpartition(" --cuts ")
    return [Sentence("Split it:"), Sentence(f"  {first} \\"), Sentence(f"    --cuts {second}")]


def break_even_sentence(answer: OneTask) -> str:
    """The fastest cut by the rate of the link, and the rate from which all remote is faster than all local."""
    pieces, remote = answer.fastest_by_rate, answer.break_even.all_remote
    names = [name_of(answer, answer.row(cut)) for _, cut in pieces]
    if len(pieces) == 1:
        return f"Break-even: none, {names[0]} is the fastest at every rate."
    limits = [f"up to {quantity(rate, 'bit/s', rounding=DOWN)}" for rate, _ in pieces[1:]]
    by_rate = ", ".join(f"{name} {limit}" for name, limit in zip(names, limits, strict=False))
    text = f"Break-even: {by_rate}, then {names[-1]} is the fastest."
    if len(pieces) == 2 and names[-1] == "all remote":
        return text
    return f"{text} All remote is faster than all local {_from(remote)}."


def _from(rate: float | None) -> str:
    return "at no rate" if rate is None else f"from {quantity(rate, 'bit/s', rounding=UP)}"


def table(answer: OneTask) -> Group:
    """The first answer for a terminal."""
    command = split_command(answer)
    sentences = [sentence for sentence in (deadline_sentence(answer), why_recommended(answer)) if sentence]
    return Group(
        Sentence(headline(answer), style="bold"),
        *(Sentence(sentence, style="bold" if sentence.startswith("Deadline") else "") for sentence in sentences),
        *(Sentence(note, style="dim") for note in notes(answer)),
        "",
        Sentence(LEGEND),
        _grid(answer),
        Sentence(break_even_sentence(answer)),
        *(_in_two_lines(command) if command else ()),
    )


def _grid(answer: OneTask) -> Grid:
    """One row per cut, the fastest first; the recommended one is bold."""
    rows, deadline = answer.cuts, answer.question.deadline_s is not None
    time, joule = prefix_of(min(answer.recommended.latency_s, 1.0), DIGITS), prefix_of(answer.all_local.device_j)
    has_rtt = answer.question.link.rtt_s > 0
    grid = Grid(keys=2)
    grid.add_column("cut", "right")
    grid.add_column("after", name=True)
    times = ("latency", "device", "link", *(("trip",) * has_rtt), "server")
    heads = [f"{name}\n{time[1]}s" for name in times] + [f"{name}\n{joule[1]}J" for name in ("device", "server")]
    for header in ("sends\nbit", *heads):
        grid.add_column(header, "right")
    if deadline:
        grid.add_column("in\ntime")
    for row in rows:
        seconds = (row.latency_s, row.device_s, row.link_s, *((row.rtt_s,) * has_rtt), row.server_s)
        cells = [number(value / time[0], DIGITS) for value in seconds]
        cells += [number(value / joule[0]) for value in (row.device_j, row.server_j)]
        words = name_of(answer, row)
        after = row.after if words.startswith("cut") else words
        mark = [("yes" if row.meets else "no")] if deadline else []
        style = "bold" if row.cut == answer.choice.cut else ""
        grid.add_row(str(row.cut), after, prefixed(row.bits), *cells, *mark, style=style)
    return grid


def as_json(answer: OneTask) -> dict[str, Any]:
    """The first answer for other programs; null for numbers that do not exist."""
    link, even = answer.question.link, answer.break_even
    deadline = {"deadline_s": answer.question.deadline_s, "met": answer.met, "reason": deadline_sentence(answer)}
    document: Mapping[str, Any] = {
        "recommendation": headline(answer),
        "recommended": _row(answer.recommended),
        "why_not_pareto": why_recommended(answer),
        "deadline": deadline if answer.question.deadline_s is not None else None,
        "tensor_dtype": answer.tensor_dtype,
        "split": split_command(answer),
        "assumptions": [LEGEND, *notes(answer)],
        "link": {"bit_per_s": link.bit_per_s, "rtt_s": link.rtt_s, "j_per_bit": link.j_per_bit},
        "cuts": [_row(row) for row in answer.cuts],
        "break_even_bit_per_s": {"offloading": even.offloading, "all_remote": even.all_remote},
        "fastest_by_rate": [{"from_bit_per_s": rate, "cut": cut} for rate, cut in answer.fastest_by_rate],
        "least_energy_by_rate": [{"from_bit_per_s": rate, "cut": cut} for rate, cut in answer.thriftiest_by_rate],
    }
    return plain(document)


def _row(row: CutRow) -> dict[str, Any]:
    return asdict(row) | {"latency_s": row.latency_s}
