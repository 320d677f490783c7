"""The device's side of a live run: blocks on a clock, tasks on an emulated CPU and radio, a link to a server.

At the start of a block the device ends the one before (its memory learns), decides, and reports its queue. During the
block it runs the tasks that it has started, one after another at a constant rate; the rest of the one that was cut goes
out in the slot after the block, and its result is waited for while later blocks go on.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from partway.live.clock import now, sleep_until
from partway.live.device import DeviceParty
from partway.live.engine import Engine, NoEngine, Tensors
from partway.live.messages import (
    BlockRecord,
    BroadcastNews,
    InferReply,
    InferRequest,
    LeaveRequest,
    MessageError,
    News,
    Refused,
    RegisterReply,
    RegisterRequest,
    Report,
    Start,
)
from partway.live.plan import controller_of, device_of
from partway.live.workload import Synthetic, Workload

ANSWERED, LOCAL, FINISHED_HERE, WAITING = "answered", "local", "finished here", "waiting"
"""How a task ends: by the server, by the device as planned, by the device because the server did not, or not at all."""

ALONE_AFTER = 3
"""Broadcasts in a row that may be missing before a device sends nothing any more."""


class Link(Protocol):
    """A server, from a device's side. Every method raises Refused."""

    async def register(self, request: RegisterRequest) -> RegisterReply:
        """Join."""
        ...

    def attend(self, reports: AsyncIterator[Report]) -> AsyncIterator[News]:
        """Keep a stream open: reports up, news down."""
        ...

    async def infer(self, request: InferRequest, within_s: float) -> InferReply:
        """Have the rest of a task done."""
        ...

    async def leave(self, request: LeaveRequest) -> None:
        """Leave."""
        ...


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


@dataclass(frozen=True)
class AgentLog:
    """What a device did: its number, its blocks and its tasks.

    misses  blocks in which the broadcast that was due was not there
    late_s  (blocks,) how late each block began [s]
    """

    device: int
    records: dict[int, BlockRecord]
    tasks: list[TaskLog]
    misses: int
    late_s: np.ndarray


MakeWorkload = Callable[[RegisterReply], Workload]


def synthetic(reply: RegisterReply) -> Workload:
    """Tasks and channel by the scenario's laws."""
    device = device_of(reply.constants)
    return Synthetic(device, reply.device, reply.arrival_threshold, reply.policy.seed, reply.policy.precision)


class Agent:
    """One device of a live run."""

    def __init__(
        self,
        link: Link,
        engine: Engine | None = None,
        request: RegisterRequest | None = None,
        workload: MakeWorkload = synthetic,
        named: str | None = None,
    ):
        """A device that will join through a link.

        engine    the network; without one tasks only take their time
        request   what it asks for when it joins
        workload  makes its tasks and channel from the server's reply
        named     a scheme from outside that may be used (`partway.live.plan.controller_of`)
        """
        self._link, self._engine = link, engine or NoEngine()
        self._request, self._make_workload, self._named = request or RegisterRequest(), workload, named
        self._reports = asyncio.Queue[Report | None]()
        self._started = asyncio.Event()
        self._first, self._epoch, self._one_way_s, self._tasks = 0, 0.0, 0.0, 0
        self._waiting = deque[TaskLog]()
        self._ended = list[TaskLog]()
        self._running, self._faults = set[asyncio.Task[None]](), list[BaseException]()
        self._heard = -1

    async def run(self) -> AgentLog:
        """Join, run all blocks, wait for what is on its way, leave. Raises Refused where the server refuses."""
        asked = now()
        reply = self._reply = await self._link.register(self._request)
        self._one_way_s = (now() - asked) / 2
        workload = self._make_workload(reply)
        party = self._party = self._made(reply, workload)
        party.compile()
        hearing = asyncio.create_task(self._hear(party))
        hearing.add_done_callback(lambda task: task.cancelled() or task.exception())  # a silent server is noticed
        try:
            await self._reports.put(Report(reply.session, 0, 0.0))
            await self._begin(hearing)
            party.start_at(self._first, workload.gain(self._first))
            records, late = dict[int, BlockRecord](), list[float]()
            for block in range(self._first, reply.blocks):
                await sleep_until(self._start(block))
                late.append(now() - self._start(block))
                self._block(block, party, workload, records)
            await sleep_until(self._start(reply.blocks))
            self._end_block(party, workload, records)
            while self._running:
                await asyncio.wait(self._running)
            if self._faults:
                raise self._faults[0]
            with contextlib.suppress(Refused):  # the server may have closed the session with the run
                await self._link.leave(LeaveRequest(reply.session))
        finally:
            hearing.cancel()
        self._ended.extend(self._waiting)
        return AgentLog(reply.device, records, self._ended, party.misses, np.array(late))

    def _made(self, reply: RegisterReply, workload: Workload) -> DeviceParty:
        policy = reply.policy
        return DeviceParty(
            controller_of(policy, self._named),
            device_of(reply.constants),
            reply.device,
            policy.stream,
            policy.seed,
            reply.broadcast_delay_blocks,
            workload.gain(0),
            policy.precision,
        )

    # Time

    @property
    def _slot_s(self) -> float:
        return self._reply.constants.numbers["slot_s"]

    @property
    def _block_s(self) -> float:
        return self._reply.constants.slots * self._slot_s

    def _start(self, block: int) -> float:
        return self._epoch + block * self._block_s

    async def _begin(self, hearing: "asyncio.Task[None]") -> None:
        """Wait until the server has said when the first block starts. Raises what ended the stream before."""
        starting = asyncio.create_task(self._started.wait())
        await asyncio.wait({starting, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if not self._started.is_set():
            starting.cancel()
            await hearing
            raise Refused("UNAVAILABLE", "the server has ended the stream before the first block")

    # Blocks

    async def _hear(self, party: DeviceParty) -> None:
        """Take in what the server says."""
        async for news in self._link.attend(self._outgoing()):
            if isinstance(news, Start):
                said = now() - self._one_way_s
                self._first, self._epoch = news.block, said + news.in_s - news.block * self._block_s
                self._started.set()
            else:
                self._take(party, news)

    def _take(self, party: DeviceParty, news: BroadcastNews) -> None:
        party.hear(news.block, news.values)
        self._heard = max(self._heard, news.block)

    async def _outgoing(self) -> AsyncIterator[Report]:
        while (report := await self._reports.get()) is not None:
            yield report

    def _block(self, block: int, party: DeviceParty, workload: Workload, records: dict[int, BlockRecord]) -> None:
        """The start of a block."""
        if block > self._first:
            self._end_block(party, workload, records)
        else:
            self._reports.put_nowait(Report(self._reply.session, block, party.queue))
        action = party.begin(alone=self._is_alone(block))
        started = [self._waiting.popleft() for _ in range(round(action.started))]
        self._spawn(self._run_tasks(block, started, float(action.offload)))

    def _end_block(self, party: DeviceParty, workload: Workload, records: dict[int, BlockRecord]) -> None:
        """The end of the block before, whose arrivals join the queue; the report on it."""
        block = party.block
        arrivals = workload.arrivals(block)
        records[block] = party.end(arrivals, workload.gain(block + 1))
        for slot in np.flatnonzero(arrivals).tolist():
            arrived = block * self._block_s + (slot + 1) * self._slot_s
            self._waiting.append(TaskLog(self._reply.device, self._tasks, block, arrived))
            self._tasks += 1
        self._reports.put_nowait(Report(self._reply.session, block + 1, party.queue, records[block]))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Note that work has ended, and how if it failed."""
        self._running.discard(task)
        if not task.cancelled() and (fault := task.exception()):
            self._faults.append(fault)

    def _is_alone(self, block: int) -> bool:
        """Whether the server has been silent for so long that nothing is sent to it."""
        due = block - self._reply.broadcast_delay_blocks
        return due - max(self._heard, self._first - 1) > ALONE_AFTER

    # Tasks

    async def _run_tasks(self, block: int, tasks: list[TaskLog], offload: float) -> None:
        """Run the tasks of a block on the emulated CPU: L = j - offload of them at a constant rate."""
        local = len(tasks) - offload
        start = self._start(block)
        for i, task in enumerate(tasks):
            cut = offload > 0 and i == len(tasks) - 1
            whole_cut = cut and local <= 0
            begin = start + (self._block_s if whole_cut else i / local * self._block_s)
            end = start + (self._block_s if cut else (i + 1) / local * self._block_s)
            await sleep_until(begin)
            begun = replace(task, begun=now() - self._epoch)
            model, tensors = await self._engine.front(offload if cut else 0.0, task.number)
            await sleep_until(end)
            begun = replace(begun, cut=now() - self._epoch)
            if cut:
                self._spawn(self._send(block, begun, offload, model, tensors))
            else:
                self._ended.append(replace(begun, answered=begun.cut, outcome=LOCAL))

    async def _send(self, block: int, task: TaskLog, offload: float, model: str, tensors: Tensors) -> None:
        """Send the rest of a task when the emulated radio has carried it, and wait for the result."""
        await sleep_until(self._start(block + 1) + self._slot_s)
        sent = replace(task, sent=now() - self._epoch, offload=offload)
        request = InferRequest(self._reply.session, task.number, block, offload, model, tensors)
        try:
            reply = await self._link.infer(request, self._reply.lease_blocks * self._block_s)
        except (Refused, MessageError):
            await self._engine.back(model, tensors)
            self._ended.append(replace(sent, answered=now() - self._epoch, outcome=FINISHED_HERE))
            return
        done = replace(sent, answered=now() - self._epoch, wait_s=reply.wait_s, run_s=reply.run_s, outcome=ANSWERED)
        self._ended.append(done)
