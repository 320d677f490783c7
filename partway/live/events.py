"""What happens in a live run, as it happens. Metrics, files and the page are all made of these events.

A party calls its listener in the event loop, between two messages: a listener must return at once and never raise.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from partway.files import why
from partway.formatting import plain
from partway.live.messages import BlockRecord
from partway.live.tasks import TaskLog

LEFT, LOST = "left", "lost"
"""How a device goes: it has said so, or its stream has ended."""


@dataclass(frozen=True)
class Planned:
    """A server is ready for its devices.

    block_s          length of a block [s]
    end_s            when the run ends [s from the start of block 0]
    objective        of the scenario; bound: the lower bound on it, None for the reason `no_bound`
    uses_price       whether devices decide by a price
    cuts             (name, share of the work that is left to the server) of each cut of the network
    """

    scheme: str
    devices: int
    blocks: int
    block_s: float
    end_s: float
    objective: str
    bound: float | None
    no_bound: str
    uses_price: bool
    cuts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Joined:
    """A device has opened its stream at the server."""

    device: int


@dataclass(frozen=True)
class Gone:
    """A device's stream has ended; `how`: LEFT or LOST."""

    device: int
    how: str


@dataclass(frozen=True)
class Begun:
    """The run begins with so many devices."""

    devices: int


@dataclass(frozen=True)
class Served:
    """The server has answered a task; how long that waited and took there [s]."""

    device: int
    task: int
    wait_s: float
    run_s: float


@dataclass(frozen=True)
class BlockMeasured:
    """A block of the server, when all that was cut in it has come.

    metrics         the fields of `BlockMetrics` by name; NaN where there is no bound
    gap             above the lower bound, as a share of it, in the last blocks (`partway.live.watch`); NaN without one
    price           that was broadcast; NaN where devices do not use one
    received, ...   tasks since the run began
    reports         by device, what it reports of the block; those that are silent are missing
    """

    block: int
    metrics: dict[str, float]
    gap: float
    price: float
    received: int
    answered: int
    duplicates: int
    late: int
    attending: tuple[int, ...]
    reports: dict[int, BlockRecord] = field(default_factory=dict[int, BlockRecord])


@dataclass(frozen=True)
class Ended:
    """The run has ended; tasks as in BlockMeasured."""

    blocks: int
    received: int
    answered: int
    duplicates: int
    late: int


@dataclass(frozen=True)
class TaskEnded:
    """A device's task has ended.

    block      in which it arrived
    arrived_s  when that was [s from the start of block 0]
    outcome    as in `partway.live.tasks`
    latency_s  from arrival to result
    stages     what of it each stage took [s], by the names of `TaskLog.stages`
    """

    device: int
    task: int
    block: int
    arrived_s: float
    outcome: str
    latency_s: float
    stages: dict[str, float]


@dataclass(frozen=True)
class TaskLeft:
    """A device's task, which arrived at `arrived_s` in a block, was not started before the run ended."""

    device: int
    task: int
    block: int
    arrived_s: float


@dataclass(frozen=True)
class BlockBegun:
    """A device has begun a block, so late [s]; `alone`: it sends nothing because the server is silent."""

    device: int
    block: int
    late_s: float
    alone: bool


Event = Planned | Joined | Gone | Begun | Served | BlockMeasured | Ended | TaskEnded | TaskLeft | BlockBegun
Listener = Callable[[Event], object]


def silent(event: Event) -> None:
    """Listen to nothing."""
    del event


def to_all(listeners: Sequence[Listener]) -> Listener:
    """A listener that passes every event on to all of these."""

    def listen(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return listen


def task_ended(task: TaskLog) -> TaskEnded:
    """The event of a task that has ended."""
    stages = task.stages()
    latency_s = sum(stages.values())
    return TaskEnded(task.device, task.number, task.block, task.arrived, task.outcome, latency_s, stages)


def line(event: Event, at: float) -> str:
    """An event as a line of JSON: its name, when it happened [s since 1970], its fields; null for NaN."""
    fields: Any = plain(asdict(event))
    return json.dumps({"event": type(event).__name__, "time": round(at, 3)} | fields, allow_nan=False) + "\n"


class EventFile:
    """Writes events to a file, a line each, until the disk is full: then the run goes on without it.

    fault  why no more is written, "" while all is
    """

    def __init__(self, path: Path):
        """Begin a new file. Raises OSError."""
        self._file: TextIO = path.open("w", encoding="utf-8")
        self.fault = ""

    def __call__(self, event: Event) -> None:
        """Write an event."""
        if self.fault:
            return
        try:
            self._file.write(line(event, time.time()))
            self._file.flush()
        except OSError as error:
            self.fault = why(error)

    def close(self) -> None:
        """Close the file; what it still holds back is lost where there is no room."""
        try:
            self._file.close()
        except OSError as error:
            self.fault = self.fault or why(error)
