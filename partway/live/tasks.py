"""A device's tasks: they wait, run on its CPU, and the rest of one that is cut goes out by an emulated radio.

A task ends exactly once: finished by the device as planned, answered by the server, or, where no answer comes in time,
finished by the device after all. One whose input the network cannot compute fails. What has not been started when the
run ends is said to wait.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from partway.errors import InputError
from partway.live.clock import now, sleep_until
from partway.live.cpu import Cpu, Pacing
from partway.live.engine import Engine, Tensors
from partway.live.messages import InferReply
from partway.measurement.latency import DELAYS

ANSWERED, LOCAL, FINISHED_HERE, FAILED, WAITING = "answered", "local", "finished here", "failed", "waiting"
"""How a task ends: by the server, by the device as planned, by the device because the server did not, without a result,
or not at all."""
MESSAGES = "messages"
STAGES = (*DELAYS, MESSAGES)
"""What a latency is the sum of: the delays of a simulation, and what messages and computing add to them."""


@dataclass(frozen=True)
class TaskLog:
    """One task: when things happened to it, in seconds from the start of block 0, NaN for what did not.

    arrived        when it came into the queue
    begun, cut     when the device began and ended its part
    sent           when the radio's slot ended
    answered       when its result was there
    wait_s, run_s  how long it waited and took at the server, by the server's clock
    """

    device: int
    number: int
    block: int
    arrived: float
    begun: float = np.nan
    cut: float = np.nan
    sent: float = np.nan
    answered: float = np.nan
    wait_s: float = np.nan
    run_s: float = np.nan
    offload: float = 0.0
    outcome: str = WAITING

    def stages(self) -> dict[str, float]:
        """What each of STAGES took [s] of a task that has ended; 0 for those that it did not go through."""
        delays = {
            "device_wait": self.begun - self.arrived,
            "device": self.cut - self.begun,
            "radio": self.sent - self.cut,
            "server_wait": self.wait_s,
            "server": self.run_s,
        }
        known = {name: 0.0 if np.isnan(delay) else delay for name, delay in delays.items()}
        return known | {MESSAGES: self.answered - self.arrived - sum(known.values())}


@dataclass(frozen=True)
class Timing:
    """The blocks of a device. epoch: when block 0 starts by the loop's clock [s]."""

    epoch: float
    slot_s: float
    slots: int

    @property
    def block_s(self) -> float:
        """Length of a block [s]."""
        return self.slots * self.slot_s

    def start(self, block: int) -> float:
        """When a block starts [s]."""
        return self.epoch + block * self.block_s


@dataclass(frozen=True)
class Rest:
    """What is left of a task that was cut in a block: the share `offload` of it, by a model and its inputs."""

    task: int
    block: int
    offload: float
    model: str
    tensors: Tensors


class Source(Protocol):
    """Where the inputs of tasks come from and their results go. As it is: random inputs, whose results nobody wants."""

    def arrived(self, number: int) -> float | None:
        """When the input of a task came, by the loop's clock [s]; None: at the end of the slot."""
        del number

    def inputs(self, number: int) -> Tensors | None:
        """The network's inputs in a task that is about to be run; None: random ones."""
        del number

    def ended(self, task: TaskLog, outputs: Tensors) -> None:
        """A task has ended with the network's outputs."""
        del task, outputs

    def failed(self, task: TaskLog, reason: str) -> None:
        """A task has no result."""
        del task, reason


class Tasks:
    """The tasks of one device."""

    def __init__(
        self,
        device: int,
        engine: Engine,
        timing: Timing,
        ask: Callable[[Rest], Awaitable[InferReply | None]],
        source: Source,
        on_end: Callable[[TaskLog], object] = lambda task: None,
        cpu: Cpu | None = None,
    ):
        """No tasks yet.

        ask     has the server finish a task; None: it has not answered in time
        source  has the inputs and takes the results
        on_end  called with each task that ends
        cpu     that runs them; without one they are paced
        """
        self._source, self._on_end, self._cpu = source, on_end, cpu or Pacing()
        self._device, self._engine, self._timing, self._ask = device, engine, timing, ask
        self._waiting, self._count = deque[TaskLog](), 0
        self._running, self._faults = set[asyncio.Task[None]](), list[BaseException]()

    def __len__(self) -> int:
        """How many wait to be started."""
        return len(self._waiting)

    def arrive(self, block: int, arrivals: np.ndarray) -> None:
        """The arrivals (n,) of a block join the queue, each at the end of its slot."""
        for slot in np.flatnonzero(arrivals).tolist():
            arrived = self._timing.start(block) - self._timing.epoch + (slot + 1) * self._timing.slot_s
            if (came := self._source.arrived(self._count)) is not None:
                arrived = max(came - self._timing.epoch, 0.0)  # what came before the run waits from its start
            self._waiting.append(TaskLog(self._device, self._count, block, arrived))
            self._count += 1

    def start(self, block: int, count: int, offload: float) -> None:
        """Start so many tasks in a block; `offload` of the last one is left to the server."""
        tasks = [self._waiting.popleft() for _ in range(count)]
        if tasks:
            self._spawn(self._run(block, tasks, offload))

    async def drain(self) -> list[TaskLog]:
        """Wait until all that were started have ended. Returns the others. Raises what went wrong in one."""
        while self._running:
            await asyncio.wait(self._running)
        if self._faults:
            raise self._faults[0]
        for task in self._waiting:
            self._source.failed(task, "the run has ended")
        return list(self._waiting)

    def stop(self) -> None:
        """Stop what runs, at once."""
        for task in self._running:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Note that work has ended, and how if it failed."""
        self._running.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            self._faults.append(fault)

    def _end(self, task: TaskLog, outputs: Tensors) -> None:
        self._source.ended(task, outputs)
        self._on_end(task)

    def _fail(self, task: TaskLog, error: InputError) -> None:
        """A task whose input the network cannot compute has ended."""
        failed = replace(task, answered=self._since_epoch(), outcome=FAILED)
        self._source.failed(failed, str(error))
        self._on_end(failed)

    def _since_epoch(self) -> float:
        return now() - self._timing.epoch

    async def _run(self, block: int, tasks: list[TaskLog], offload: float) -> None:
        """Run the tasks of a block: L = j - offload of them, at a constant rate."""
        local, start, block_s = len(tasks) - offload, self._timing.start(block), self._timing.block_s
        for i, task in enumerate(tasks):
            is_cut = offload > 0 and i == len(tasks) - 1
            begin = start + (i / local if local > 0 else 1.0) * block_s
            end = start + (1.0 if is_cut else (i + 1) / local) * block_s
            await self._cpu.until(begin)
            begun = replace(task, begun=self._since_epoch())
            inputs = self._source.inputs(task.number)
            try:
                share = offload if is_cut else 0.0
                model, tensors = await self._engine.front(share, task.number, inputs, self._device)
            except InputError as error:
                self._fail(begun, error)
                continue
            await self._cpu.until(end)
            done = replace(begun, cut=self._since_epoch())
            if is_cut:
                self._spawn(self._send(done, Rest(task.number, block, offload, model, tensors)))
            else:
                self._end(replace(done, answered=done.cut, outcome=LOCAL), tensors)

    async def _send(self, task: TaskLog, rest: Rest) -> None:
        """Send the rest of a task when the emulated radio has carried it, and wait for the result."""
        await sleep_until(self._timing.start(rest.block + 1) + self._timing.slot_s)
        sent = replace(task, sent=self._since_epoch(), offload=rest.offload)
        reply = await self._ask(rest)
        if reply is None:
            try:
                outputs = await self._engine.back(rest.model, rest.tensors)
            except InputError as error:
                self._fail(sent, error)
                return
            self._end(replace(sent, answered=self._since_epoch(), outcome=FINISHED_HERE), outputs)
            return
        times = {"answered": self._since_epoch(), "wait_s": reply.wait_s, "run_s": reply.run_s}
        self._end(replace(sent, **times, outcome=ANSWERED), reply.outputs)
