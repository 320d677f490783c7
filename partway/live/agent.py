"""The device's side of a live run: blocks on a clock, and a connection that is restored when it breaks.

At the start of a block the device finishes the previous one (its controller learns), decides, and reports its queue. If
several blocks pass without a message from the server, the device runs all its tasks itself until the next message
arrives. Neither the server nor the network can delay a device's blocks.
"""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from partway.errors import InputError
from partway.live.clock import now, sleep_until
from partway.live.cpu import Cpu, Pacing
from partway.live.device import DeviceParty
from partway.live.engine import Engine, NoEngine
from partway.live.events import BlockBegun, Listener, TaskLeft, silent, task_ended
from partway.live.memories import run_of
from partway.live.messages import (
    BlockRecord,
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
from partway.live.rows import BlockRows, TaskRows
from partway.live.tasks import Rest, TaskLog, Tasks, Timing
from partway.live.workload import Synthetic, Traced, Workload
from partway.measurement.checkpoint import Checkpoint
from partway.pytree import host_array

ALONE_AFTER = 3
"""Broadcasts in a row that may be missing before a device sends nothing any more."""
PROBES = 5
"""Round trips by which a device finds out how late the server's word is."""
PASSING = ("UNAVAILABLE", "UNAUTHENTICATED", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED", "UNKNOWN")
"""Refusals after which the same may be tried again."""
MAX_REPORTS = 1000
"""Blocks of which a device tells a server that comes back; older ones count as if it had not been there."""
MAX_LEAD_S = 0.05
"""A block is computed half a slot before it begins, and no earlier than this: what comes later may change it."""
FIRST_PAUSE_BLOCKS, MAX_PAUSE_BLOCKS = 0.5, 8.0
"""How long a device waits before it tries again: twice as long every time, up to the second number [blocks]."""


class Link(Protocol):
    """A server, from a device's side. Every method raises Refused."""

    async def probe(self) -> None:
        """Return when the server has said that it is there."""
        ...

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
class AgentLog:
    """What a device did: its number, its blocks and its tasks.

    reply   what the server had said when it joined
    party   the device, with what it has learned
    misses  blocks in which the broadcast that was due was not there
    alone   blocks in which it sent nothing because the server was silent
    late_s  (blocks,) how late each block began, its action decided [s]
    ended   why it could not come back to the server, and has ended before the run; "" if it has not
    """

    device: int
    reply: RegisterReply
    party: DeviceParty
    records: Mapping[int, BlockRecord]
    tasks: Sequence[TaskLog]
    misses: int
    alone: list[int]
    late_s: np.ndarray
    ended: str = ""


MakeWorkload = Callable[[RegisterReply], Workload]


def synthetic(reply: RegisterReply) -> Workload:
    """Tasks and channel by the scenario's laws."""
    policy = reply.policy
    return Synthetic(device_of(reply.constants), reply.device, reply.arrival_threshold, policy.seed, policy.precision)


def traced(path: str, reply: RegisterReply) -> Workload:
    """Tasks by the scenario's law, on a channel that was measured. Raises InputError."""
    policy = reply.policy
    return Traced(
        path, device_of(reply.constants), reply.device, reply.arrival_threshold, policy.seed, policy.precision
    )


class Agent:
    """One device of a live run. epoch: when block 0 begins by the loop's clock [s], None while that is not known."""

    def __init__(
        self,
        link: Link,
        engine: Engine | None = None,
        request: RegisterRequest | None = None,
        workload: MakeWorkload = synthetic,
        named: str | None = None,
        trained: Checkpoint | None = None,
        listen: Listener = silent,
        on_join: Callable[[int], object] = lambda device: None,
        cpu: Cpu | None = None,
    ):
        """A device that will join through a link.

        engine    the network; without one tasks only take their time
        request   what it asks for when it joins
        workload  makes its tasks and channel from the server's reply
        named     a scheme from outside that may be used (`partway.live.plan.controller_of`)
        trained   what a simulation had learned, with which it begins
        listen    is told what happens
        on_join   called with the device's number when it has joined
        cpu       that runs its part of the tasks; without one they are paced
        """
        self._listen, self._on_join = listen, on_join
        self._link, self._engine = link, engine or NoEngine()
        self._request, self._make_workload = request or RegisterRequest(), workload
        self._named, self._trained = named, trained
        self._cpu = cpu or Pacing()
        self._outbox = asyncio.Queue[Report](MAX_REPORTS)
        self._session, self._heard, self._one_way_s = "", -1, 0.0
        self._ended = ""
        self.epoch: float | None = None

    async def run(self) -> AgentLog:
        """Join, run all blocks, wait for what is on its way, leave.

        Raises Refused where the server does not let it join, and MessageError where it breaks the protocol then.
        """
        reply = await self._register(self._request)
        self._on_join(reply.device)
        try:
            workload = self._make_workload(reply)
        except InputError:  # of a trace that does not fit: the place is free for another device
            with contextlib.suppress(Refused, MessageError):
                await self._link.leave(LeaveRequest(self._session))
            raise
        party = self._made(reply, workload)
        party.compile()
        workload.prepare()
        self._one_way_s = await self._measured_delay()
        begun: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()
        attending = asyncio.create_task(self._attend(party, reply, begun))
        attending.add_done_callback(lambda task: task.cancelled() or task.exception())  # the device continues alone
        try:
            await asyncio.wait({begun, attending}, return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                await attending
                raise Refused("UNAVAILABLE", "the server has ended the stream before the first block")
            return await self._blocks(party, workload, reply, *begun.result())
        finally:
            attending.cancel()

    async def _blocks(
        self, party: DeviceParty, workload: Workload, reply: RegisterReply, first: int, epoch: float
    ) -> AgentLog:
        """All blocks from the first one on."""
        self.epoch = epoch
        timing = Timing(epoch, reply.constants.numbers["slot_s"], reply.constants.slots)
        within_s = reply.lease_blocks * timing.block_s
        capacity = reply.constants.numbers["capacity"]

        async def ask(rest: Rest) -> InferReply | None:
            return await self._ask(rest, within_s)

        def on_end(task: TaskLog) -> None:
            ended.append(task)
            self._listen(task_ended(task))

        tasks = Tasks(reply.device, self._engine, timing, ask, workload, on_end, self._cpu)
        records, late, alone, ended = BlockRows(), array("d"), list[int](), TaskRows()
        party.start_at(first, workload.gain(first))
        self._outbox.put_nowait(Report("", first, party.queue))
        lead_s = min(timing.slot_s / 2, MAX_LEAD_S)

        def is_alone(block: int) -> bool:
            return block - reply.broadcast_delay_blocks - max(self._heard, first - 1) > ALONE_AFTER

        try:
            for block in range(first, reply.blocks + 1):
                await sleep_until(timing.start(block) - lead_s)
                if block > first and (expected := workload.expected(block - 1)) is not None:
                    party.prepare(expected, workload.gain(block), is_alone(block))
                await sleep_until(timing.start(block))
                record = None
                if block > first:
                    arrivals = workload.arrivals(block - 1)
                    record = party.end(arrivals, workload.gain(block))
                    tasks.arrive(block - 1, arrivals)
                over = block == reply.blocks or workload.over or self._ended != ""
                without_server = is_alone(block)
                if not over:
                    action = party.begin(without_server)
                    self._cpu.command((float(action.started) - float(action.offload)) / capacity)
                    tasks.start(block, round(float(action.started)), float(action.offload))
                    late.append(now() - timing.start(block))
                if record is not None:
                    records[block - 1] = record
                    self._report(block, party.queue, record)
                if over:
                    break
                alone += [block] if without_server else []
                self._listen(BlockBegun(reply.device, block, late[-1], without_server))
            for task in await tasks.drain():
                ended.append(task)
                self._listen(TaskLeft(task.device, task.number, task.block, task.arrived))
        finally:
            tasks.stop()
        with contextlib.suppress(Refused, MessageError):  # the server may have closed the session with the run
            await self._link.leave(LeaveRequest(self._session))
        return AgentLog(reply.device, reply, party, records, ended, party.misses, alone, np.array(late), self._ended)

    def _report(self, block: int, queue: float, last: BlockRecord) -> None:
        """Say at the start of a block what waits, and what happened in the block before."""
        if self._outbox.full():
            self._outbox.get_nowait()
        self._outbox.put_nowait(Report("", block, queue, last))

    def _made(self, reply: RegisterReply, workload: Workload) -> DeviceParty:
        policy, device = reply.policy, device_of(reply.constants)
        if workload.mean_gain is not None:
            device = replace(device, mean_gain=host_array(np.float64(workload.mean_gain)))
        party = DeviceParty(
            controller_of(policy, self._named),
            device,
            reply.device,
            policy.stream,
            policy.seed,
            reply.broadcast_delay_blocks,
            workload.gain(0),
            policy.precision,
        )
        if self._trained is not None:
            fleet = int(reply.constants.numbers["fleet_size"])
            party.remember(self._trained, run_of(self._trained, policy.scheme, fleet, policy.seed))
        return party

    # The server

    async def _register(self, request: RegisterRequest) -> RegisterReply:
        reply = await self._link.register(request)
        self._session = reply.session
        return reply

    async def _measured_delay(self) -> float:
        """How long a message takes one way [s]: half of the shortest of some round trips."""
        trips = list[float]()
        for _ in range(PROBES):
            asked = now()
            with contextlib.suppress(Refused):  # of a server that is busy
                await self._link.probe()
                trips.append(now() - asked)
        return min(trips, default=0.0) / 2

    async def _attend(
        self, party: DeviceParty, reply: RegisterReply, begun: "asyncio.Future[tuple[int, float]]"
    ) -> None:
        """Keep the stream open, and rejoin as the same device if it breaks after the first block.

        A server that runs another network or has begun another run never takes the device back: then the device ends.

        begun  is set to the first block, and the time at which block 0 starts on this device's clock
        """
        block_s = reply.constants.slots * reply.constants.numbers["slot_s"]
        pause = FIRST_PAUSE_BLOCKS * block_s
        while True:
            try:
                async for news in self._link.attend(self._outgoing()):
                    pause = FIRST_PAUSE_BLOCKS * block_s
                    if isinstance(news, Start):
                        if not begun.done():
                            begun.set_result((news.block, now() - self._one_way_s + news.in_s - news.block * block_s))
                        continue
                    party.hear(news.block, news.values)
                    self._heard = max(self._heard, news.block)
            except Refused as error:
                if not begun.done() or error.code not in PASSING:
                    raise
            if not begun.done():
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_BLOCKS * block_s)
            try:
                await self._register(replace(self._request, device=reply.device, session=self._session))
            except Refused as error:
                if error.code == "FAILED_PRECONDITION":
                    self._ended = error.reason
                    return
            except MessageError:  # of a server that breaks the protocol: it is asked again
                continue

    async def _outgoing(self) -> AsyncIterator[Report]:
        """The greeting, and what is to be reported; what has piled up holds records of blocks, which are measured."""
        yield Report(self._session, 0, 0.0)
        while True:
            yield replace(await self._outbox.get(), session=self._session)

    async def _ask(self, rest: Rest, within_s: float) -> InferReply | None:
        """Have the server finish a task; None where it has not within so long. It may be asked again and again."""
        end, pause = now() + within_s, within_s / 20
        while True:
            request = InferRequest(self._session, rest.task, rest.block, rest.offload, rest.model, rest.tensors)
            try:
                return await self._link.infer(request, max(end - now(), 0.0))
            except MessageError:
                return None
            except Refused as error:
                if error.code not in PASSING or now() + pause >= end:
                    return None
            await asyncio.sleep(pause)
            pause = 2 * pause
