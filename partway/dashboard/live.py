"""The page of a live run, made of its events: fleet, queues, cuts, price, cost against the lower bound, stages."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from partway.dashboard.follow import Files
from partway.dashboard.view import (
    MEAN_BLOCKS,
    NO_PRICE,
    NOISE,
    Bar,
    Bars,
    Chart,
    Line,
    Page,
    Tile,
    View,
    cost_chart,
    running_mean,
    thinned,
    with_unit,
)
from partway.formatting import number
from partway.live.accounts import UNFINISHED, Stages, stages_of
from partway.live.events import LEFT, LOST
from partway.live.tasks import ANSWERED, FAILED, FINISHED_HERE, LOCAL, MESSAGES, STAGES, WAITING
from partway.measurement.gap import COMPONENT_NAMES, COST_COMPONENTS
from partway.measurement.latency import DELAY_NAMES

WINDOW = 400
"""Blocks that are shown while a run goes on; afterwards it is shown from its beginning."""
RECENT = 1000
"""Tasks of which latency and stages are shown."""
SILENT_BLOCKS, SILENT_S = 4, 2.0
"""A server that says nothing for so many blocks and so many seconds is said to be silent."""
MISSED = 2
"""Reports in a row that a device may miss before it is said to be silent."""
MAX_DEVICES, MAX_BLOCK = 100_000, 2**32
"""Events that name more are not believed."""
MAX_TILES, MAX_CUTS, MAX_ALERTS = 100, 8, 5
STAGE_NAMES = DELAY_NAMES | {MESSAGES: "messages"}
COUNTED = ("received", "answered", "duplicates")
SERIES = (*COST_COMPONENTS, "waiting", "backlog")


@dataclass(frozen=True)
class Plan:
    """What is known of a run from its plan, as in `partway.live.events.Planned`; `end_s`: when the run ends."""

    scheme: str = "run"
    devices: int = 0
    blocks: int = 0
    block_s: float = 0.5
    end_s: float = np.inf
    is_average: bool = True
    bound: float | None = None
    no_bound: str = ""
    uses_price: bool = False
    cuts: tuple[tuple[str, float], ...] = ()

    @classmethod
    def read(cls, event: dict[str, Any]) -> "Plan":
        """The plan in an event. Raises ValueError or TypeError where it is none."""
        return cls(
            scheme=str(event["scheme"]),
            devices=_count(event["devices"], MAX_DEVICES),
            blocks=_count(event["blocks"]),
            block_s=_finite(event["block_s"]),
            end_s=_finite(event["end_s"]),
            is_average=event["objective"] == "average",
            bound=None if event["bound"] is None else _finite(event["bound"]),
            no_bound=str(event["no_bound"]),
            uses_price=bool(event["uses_price"]),
            cuts=tuple((str(name), _finite(share)) for name, share in event["cuts"]),
        )


@dataclass
class Device:
    """What is known of a device.

    gone      how it has gone, None while it is there
    since     the block in which that changed
    reported  the last block of which it has reported `last`
    """

    gone: str | None = None
    since: int = 0
    reported: int = -1
    last: dict[str, float] = field(default_factory=dict[str, float])


class LiveRun:
    """A run whose files of events are in a folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic):
        """clock  gives the time [s], from any moment on"""
        self._files, self._plan, self._clock, self._heard_s = Files(folder), Plan(), clock, clock()
        self._state, self._block, self._gap, self._counts = "waiting", -1, np.nan, dict[str, int]()
        self._series = {name: list[float]() for name in (*SERIES, "price")}
        self._blocks = list[int]()
        self._devices = dict[int, Device]()
        self._cuts, self._outcomes = Counter[int](), Counter[str]()
        self._tasks = deque[tuple[float, ...]](maxlen=RECENT)
        self._missing, self._alone, self._alerts = False, 0, deque[str](maxlen=MAX_ALERTS)

    def page(self) -> Page:
        """The page as of now: reads what has come since the last call."""
        for event in self._files.new():
            self._heard_s = self._clock()
            try:
                self._take(event)
            except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
                self._files.unreadable += 1  # of another version, or damaged
        state = "silent" if self._is_silent() else self._state
        view = View(self._plan.scheme, self._facts(), self._charts(), self._bars(), *self._tiles())
        every_s = None if state == "ended" else min(max(self._plan.block_s, 0.1), 1.0)
        return Page(self._title(), state, self._status(state), every_s, [view], list(self._alerts))

    # Events

    def _take(self, event: dict[str, Any]) -> None:
        """Take in an event, whole or not at all."""
        match event["event"]:
            case "Planned":
                self._plan = Plan.read(event)
                self._devices = {number: Device("absent") for number in range(self._plan.devices)}
            case "Joined":
                self._joined(int(event["device"]))
            case "Gone":
                self._gone(int(event["device"]), str(event["how"]))
            case "Begun":
                self._state = "running"
            case "BlockMeasured":
                self._measured(event)
            case "Ended":
                self._counts = {name: _count(event[name]) for name in COUNTED}
                self._state = "ended"
            case "TaskEnded":
                took = tuple(_finite(event["stages"][stage]) for stage in STAGES)
                outcome, arrived = str(event["outcome"]), _finite(event["arrived_s"])
                self._outcomes[outcome] += 1
                if outcome != FAILED:
                    self._tasks.append((arrived, *took))
            case "TaskLeft":
                self._tasks.append((_finite(event["arrived_s"]), *UNFINISHED))
                self._outcomes[WAITING] += 1
            case "BlockBegun":
                self._alone += bool(event["alone"])
            case _:
                pass

    def _joined(self, number: int) -> None:
        device = self._devices[number]
        if device.gone == LOST:
            self._alerts.appendleft(f"device {number} is back, block {self._block + 1}")
        device.gone, device.since, device.reported = None, self._block + 1, self._block

    def _gone(self, number: int, how: str) -> None:
        device = self._devices[number]
        device.gone, device.since = how, self._block + 1
        if how == LOST and self._state == "running":
            self._missing = True
            self._alerts.appendleft(f"device {number} was lost, block {device.since}")

    def _measured(self, event: dict[str, Any]) -> None:
        block, gap = _count(event["block"], MAX_BLOCK), _number(event["gap"])
        numbers = {name: _number(event["metrics"][name]) for name in SERIES} | {"price": _number(event["price"])}
        counts = {name: _count(event[name]) for name in COUNTED}
        reports = {
            int(key): {name: _finite(report[name]) for name in ("queue", "started", "offload")}
            for key, report in event["reports"].items()
            if int(key) in self._devices
        }
        self._block, self._gap, self._counts = block, gap, counts
        self._blocks.append(block)
        for name, value in numbers.items():
            self._series[name].append(value)
        shares = np.array([share for _, share in self._plan.cuts])
        for key, report in reports.items():
            device = self._devices[key]
            device.reported, device.last = block, report
            if report["offload"] > 0 and shares.size:
                self._cuts[int(np.argmin(np.abs(shares - report["offload"])))] += 1

    def _is_silent(self) -> bool:
        pause = self._clock() - self._heard_s
        return self._state == "running" and pause > max(SILENT_BLOCKS * self._plan.block_s, SILENT_S)

    # What is shown

    def _title(self) -> str:
        planned = self._plan
        return f"Live run: {planned.scheme}, {planned.devices} devices" if planned.devices else "Live run"

    def _status(self, state: str) -> str:
        here = sum(device.gone is None for device in self._devices.values())
        of = f"block {self._block + 1} of {self._plan.blocks}"
        said = {
            "waiting": f"waiting for devices, {here} of {len(self._devices)} are there"
            if self._devices
            else "waiting for the server",
            "running": f"running, {of}",
            "silent": f"the server says nothing since {of}",
            "ended": f"ended, {of}",
        }[state]
        lines = self._files.unreadable
        return said + (f"; {lines} lines of the files are not events" if lines else "")

    def _facts(self) -> list[tuple[str, str]]:
        if not self._blocks:
            return []
        cost = sum(np.mean(self._series[name][-MEAN_BLOCKS:]) for name in COST_COMPONENTS)
        facts = [(f"cost per block, last {min(len(self._blocks), MEAN_BLOCKS)}", number(float(cost), 4))]
        bound, name = self._plan.bound, "lower bound" if self._plan.is_average else "lower bound, discounted sum"
        facts.append((name, self._plan.no_bound if bound is None else number(bound, 4)))
        facts.append(("gap to the lower bound", with_unit(100 * self._gap, "%")))
        if self._plan.uses_price:
            facts.append(("price of a task", number(self._series["price"][-1])))
        if self._tasks and np.isfinite(self._plan.end_s):
            took = self._took()
            facts.append(("latency, mean", with_unit(1e3 * took.latency, "ms")))
            facts.append(("latency, 95 % within", with_unit(1e3 * took.p95, "ms")))
        counted = self._counts
        facts.append(("tasks received, answered, received twice", ", ".join(str(counted[name]) for name in COUNTED)))
        if self._alone:
            facts.append(("blocks without the server", str(self._alone)))
        return facts

    def _charts(self) -> list[Chart]:
        if not self._blocks:
            return []
        shown = slice(None) if self._state == "ended" else slice(-WINDOW, None)
        blocks = np.array(self._blocks[shown])

        def lines(names: dict[str, str]) -> tuple[list[int], list[Line]]:
            at, values = thinned(blocks, np.array([self._series[name][shown] for name in names]))
            return at, [Line(word, line) for word, line in zip(names.values(), values, strict=True)]

        cost = np.sum([self._series[name] for name in COST_COMPONENTS], axis=0)
        parts = {word: np.array(self._series[name])[shown] for name, word in COMPONENT_NAMES.items()}
        mean = running_mean(cost, MEAN_BLOCKS)[shown]
        bound = self._plan.bound if self._plan.is_average else None
        lost = " It is that of the whole fleet." if self._missing else ""
        note = "" if bound is None else NOISE + lost
        queues = {"waiting": "at all devices [tasks]", "backlog": "at the server [mean tasks]"}
        prices = lines({"price": "price"}) if self._plan.uses_price else ([], [])
        why = "" if self._plan.uses_price else NO_PRICE
        return [
            cost_chart(blocks, parts, mean, bound, note),
            Chart("queues", "Queues", "lines", *lines(queues)),
            Chart("price", "Price of a task at the server", "lines", *prices, note=why),
        ]

    def _bars(self) -> list[Bars]:
        if not self._blocks:
            return []
        return [self._stages(), self._chosen(), self._ended()]

    def _stages(self) -> Bars:
        title = "Where the latency arises (mean)"
        if not (self._tasks and np.isfinite(self._plan.end_s)):
            note = "Devices write their own files of events; there is none in this folder."
            return Bars("stages", title, [], note=note)
        took = self._took()
        mean = {**took.delays, MESSAGES: took.network}
        bars = [Bar(STAGE_NAMES[stage], mean[stage], with_unit(1e3 * mean[stage], "ms")) for stage in STAGES]
        unfinished = round(took.unfinished * took.tasks)
        note = f"The last {took.tasks} tasks that have ended"
        note += f", or were not finished when the run ended ({unfinished})." if unfinished else "."
        return Bars("stages", title, bars, note=note)

    def _took(self) -> Stages:
        """How long the last tasks took."""
        return stages_of(np.array(self._tasks), self._plan.end_s)

    def _chosen(self) -> Bars:
        names = [name for name, _ in self._plan.cuts]
        most = sorted(cut for cut, _ in self._cuts.most_common(MAX_CUTS))
        bars = [Bar(f"after {names[cut]}", self._cuts[cut], f"{self._cuts[cut]}") for cut in most]
        note = "Tasks that were cut there; the server does the rest." if bars else "No task has been cut so far."
        return Bars("cuts", "Cuts chosen", bars, note=note)

    def _ended(self) -> Bars:
        words = {LOCAL: "by the device", ANSWERED: "by the server", FINISHED_HERE: "by the device, no answer came"}
        rare = {FAILED: "by nobody, it failed", WAITING: "by nobody, the run ended before it began"}
        words |= {outcome: word for outcome, word in rare.items() if self._outcomes[outcome]}
        bars = [Bar(word, self._outcomes[name], str(self._outcomes[name])) for name, word in words.items()]
        return Bars("outcomes", "Tasks, by who finished them", bars if self._tasks else [])

    def _tiles(self) -> tuple[list[Tile], str]:
        """A tile for each device; of a large fleet those first that are not as they should be."""
        longest = max((device.last.get("queue", 0.0) for device in self._devices.values()), default=0.0) or 1.0
        order = sorted(self._devices.items(), key=lambda one: (self._word(one[1])[0] == "here", one[0]))
        shown = sorted(order[:MAX_TILES], key=lambda one: one[0])
        tiles = [self._tile(number, device, longest) for number, device in shown]
        some = f"{len(tiles)} of {len(order)} devices; those that are not connected are among them."
        return tiles, some if len(tiles) < len(order) else ""

    def _tile(self, which: int, device: Device, longest: float) -> Tile:
        state, word = self._word(device)
        last = device.last
        if not last or state != "here":
            return Tile(f"device {which}", state, word, [])
        names = self._plan.cuts
        lines = [f"{last['queue']:.0f} waiting", f"started {last['started']:.0f}"]
        if last["offload"] and names:
            cut, _ = min(names, key=lambda one: abs(one[1] - last["offload"]))
            lines.append(f"cut after {cut}, {number(100 * last['offload'], 2)} % of its work sent")
        else:
            lines.append("nothing sent")
        return Tile(f"device {which}", state, word, lines, last["queue"] / longest)

    def _word(self, device: Device) -> tuple[str, str]:
        """(state, word) of a device."""
        if device.gone == "absent":
            return "absent", "not there yet"
        if device.gone == LEFT:
            return "absent", f"left in block {device.since}"
        if device.gone is not None:
            return "gone", f"{device.gone} in block {device.since}"
        missed = self._block - device.reported
        if self._state == "running" and missed > MISSED:
            return "silent", f"silent for {missed} blocks"
        return "here", "connected"


def _number(value: Any) -> float:
    """A number, NaN for none."""
    return np.nan if value is None else float(value)


def _finite(value: Any) -> float:
    """A finite number. Raises ValueError for another."""
    if not np.isfinite(given := float(value)):
        raise ValueError("not finite")
    return given


def _count(value: Any, limit: int = 2**53) -> int:
    """A whole number from 0 to `limit`. Raises ValueError for another."""
    if not 0 <= (given := int(value)) <= limit:
        raise ValueError("out of range")
    return given
