"""The server's side of a live run: sessions, blocks on a clock, the queue of tasks. Any transport can carry it.

    register ---> a session, its record        attend ---> reports in, news out        infer ---> the rest of a task

The server's block t begins one block and one slot after the devices' block t (Fig. 2 of the paper). It uses what the
devices have reported at the start of their block t, and serves what was cut before it. A message is put where its block
number says, whenever it arrives.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from partway.errors import shorten
from partway.live.clock import now, sleep_until
from partway.live.engine import Engine, NoEngine
from partway.live.messages import (
    PROTOCOL_VERSION,
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
from partway.live.plan import LivePlan
from partway.live.server import ServerParty, Turn
from partway.live.work import Job, WorkQueue

LEAD_S = 0.5
"""How long before the first block the devices are told when it starts."""
MAX_NEWS = 64
"""News that wait for a device that does not read; then it is dropped."""
MAX_JOBS = 1024
"""Tasks of a device that the server keeps: waiting ones, and results for those who ask again."""


@dataclass
class Session:
    """A device that has joined.

    news    what it has not been told yet, None: that is all     queues   by block, what it has reported
    heard   the last block that it has reported                   answers  by task, its result, present or future
    fault   the rule that its stream has broken
    """

    device: int
    key: str
    heard: int
    news: asyncio.Queue[News | None] = field(default_factory=lambda: asyncio.Queue[News | None](MAX_NEWS))
    queues: dict[int, float] = field(default_factory=dict[int, float])
    answers: dict[int, asyncio.Future[InferReply]] = field(default_factory=dict[int, asyncio.Future[InferReply]])
    attending: bool = False
    fault: str = ""


@dataclass
class Ledger:
    """What has happened: the server's turns, and the devices' records by (block, device)."""

    turns: list[Turn] = field(default_factory=list[Turn])
    inflow: list[float] = field(default_factory=list[float])
    records: dict[tuple[int, int], BlockRecord] = field(default_factory=dict[tuple[int, int], BlockRecord])
    received: int = 0
    answered: int = 0
    duplicates: int = 0
    late: int = 0


class Service:
    """One live run at the server. The methods that a transport calls raise Refused.

    ledger  what has happened so far
    """

    def __init__(self, plan: LivePlan, engine: Engine | None = None):
        self.plan, self.ledger = plan, Ledger()
        self._engine = engine or NoEngine()
        self.party = ServerParty(
            plan.pair.server, plan.world.server, plan.devices, plan.stream, plan.seed, plan.precision
        )
        self._sessions = dict[str, Session]()
        self._full = asyncio.Event()
        self._epoch: float | None = None
        self._block = 0
        self._new = list[Job]()
        self._jobs = WorkQueue(plan.devices, plan.slot_s)
        self._running = set[asyncio.Task[None]]()
        self._requests = dict[int, InferRequest]()
        self._answers = dict[int, asyncio.Future[InferReply]]()
        self._work = np.asarray(plan.world.devices.server_work, np.float64)
        self._queues = np.zeros(plan.devices)

    # What a transport calls

    def register(self, request: RegisterRequest) -> RegisterReply:
        """Let a device join."""
        if request.version != PROTOCOL_VERSION:
            raise Refused(
                "FAILED_PRECONDITION", f"this server speaks version {PROTOCOL_VERSION}, you speak {request.version}"
            )
        reply = self.plan.reply(self._free_number(request.device), secrets.token_hex(16))
        for what in ("scenario_sha256", "model_sha256"):
            wanted, has = getattr(request, what), getattr(reply, what)
            if wanted not in ("", has):
                raise Refused("FAILED_PRECONDITION", f"{what} is {shorten(has) or 'none'} here, you have {wanted}")
        self._sessions[reply.session] = Session(reply.device, reply.session, self._block)
        return reply

    async def attend(self, reports: AsyncIterator[Report]) -> AsyncIterator[News]:
        """A device's stream, whose first message is a greeting that has its session: the news for it."""
        first = await anext(reports, None)
        if first is None:
            return
        own = self._session(first.session)
        if own.attending:
            raise Refused("FAILED_PRECONDITION", "this session has a stream already")
        own.attending = True
        reading = asyncio.create_task(self._read(own, reports))
        try:
            self._welcome(own)
            while (news := await own.news.get()) is not None:
                yield news
            if own.fault:
                raise Refused("INVALID_ARGUMENT", own.fault)
        finally:
            own.attending = False
            reading.cancel()

    async def infer(self, request: InferRequest) -> InferReply:
        """The rest of a task, when the server has done it. Asked again, it gives the same answer."""
        own = self._session(request.session)
        if request.task in own.answers:
            self.ledger.duplicates += 1
            return await asyncio.shield(own.answers[request.task])
        if len(own.answers) >= MAX_JOBS:
            self._forget_answers(own)
        if request.block > self._block + 1:
            raise Refused("INVALID_ARGUMENT", f"block {request.block} has not begun; this is block {self._block}")
        if why := self._engine.refusal(request.model, request.tensors):
            raise Refused("INVALID_ARGUMENT", why)
        answer = own.answers[request.task] = asyncio.get_running_loop().create_future()
        job = Job(own.device, request.task, request.block, request.offload * float(self._work[own.device]), now())
        self.ledger.received += 1
        self._new.append(job)
        self._requests[id(job)], self._answers[id(job)] = request, answer
        return await asyncio.shield(answer)

    def models(self) -> list[str]:
        """The back halves that can be computed."""
        return self._engine.models()

    def leave(self, request: LeaveRequest) -> None:
        """A device leaves."""
        self._remove(self._session(request.session))

    # The run

    async def run(self, wait_s: float = 60.0) -> Ledger:
        """Wait until all devices attend, at most so long, then run the blocks. Returns what has happened."""
        self.party.compile()
        try:
            await asyncio.wait_for(self._full.wait(), wait_s)
        except TimeoutError:
            if not any(session.attending for session in self._sessions.values()):
                raise Refused("DEADLINE_EXCEEDED", f"no device has joined within {wait_s:g} s") from None
        self._epoch = now() + LEAD_S
        for session in self._attending():
            self._welcome(session)
        for block in range(self.plan.blocks):
            await self._wait_for(block)
            self._turn(block)
        await self._wait_for(self.plan.blocks)
        self._end_block(self.plan.blocks)
        await self._finish()
        return self.ledger

    async def _wait_for(self, block: int) -> None:
        assert self._epoch is not None
        await sleep_until(self._start(block))

    def _start(self, block: int) -> float:
        """When the server's block begins [s]."""
        assert self._epoch is not None
        return self._epoch + ((block + 1) * self.plan.slots + 1) * self.plan.slot_s

    def _turn(self, block: int) -> None:
        """Begin a block: see what came, decide, say it, and serve."""
        self._block = block
        if block:
            self._end_block(block)
        turn = self.party.begin()
        self.ledger.turns.append(turn)
        for session in self._attending():
            self._tell(session, self._broadcast(turn, session))
        self._expire()
        for job in self._jobs.serve(turn.service_per_slot, self._start(block)):
            self._follow(job)

    def _end_block(self, block: int) -> None:
        """End the block before: what was cut in it, or late before, is in the queue from now on."""
        came = [job for job in self._new if job.block < block]
        self._new = [job for job in self._new if job.block >= block]
        self.ledger.late += sum(job.block < block - 1 for job in came)
        self._jobs.add(came)
        by_device = np.zeros(self.plan.devices)
        for job in came:
            by_device[job.device] += job.work
        inflow = float(by_device.sum())
        self.ledger.inflow.append(inflow)
        for session in self._sessions.values():
            if block in session.queues:
                self._queues[session.device] = session.queues[block]
            session.queues = {at: queue for at, queue in session.queues.items() if at > block}
        self.party.end(self._queues, inflow)

    def _follow(self, job: Job) -> None:
        """Compute and answer a job that is begun in this block, when it is done."""
        if job.done is not None:
            task = asyncio.create_task(self._answer(job, job.done))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, job: Job, done: float) -> None:
        """Run the back half, and answer when the emulated CPU has done the work."""
        request = self._requests.pop(id(job))
        begun = done if job.begun is None else job.begun
        await sleep_until(begun)
        answer = self._answers.pop(id(job))
        try:
            outputs = await self._engine.back(request.model, request.tensors)
        except Exception as error:  # of a runtime; whoever waits for the task must hear of it
            answer.set_exception(Refused("INTERNAL", f"the network cannot be computed: {shorten(str(error), 200)}"))
            return
        await sleep_until(done)
        answer.set_result(InferReply(job.task, max(begun - job.received, 0.0), max(now() - begun, 0.0), outputs))
        self.ledger.answered += 1

    async def _finish(self) -> None:
        """Answer what is left at the end of the run, and close the streams."""
        for job in [*self._jobs.drain(), *self._new]:
            job.done = now()
            self._follow(job)
        self._new.clear()
        while self._running:
            await asyncio.wait(self._running)
        for session in self._attending():
            self._tell(session, None)

    # Sessions

    def _session(self, key: str) -> Session:
        if key not in self._sessions:
            raise Refused("UNAUTHENTICATED", "this session is not known; register again")
        return self._sessions[key]

    def _attending(self) -> list[Session]:
        return [session for session in self._sessions.values() if session.attending]

    def _free_number(self, wanted: int | None) -> int:
        taken = {session.device: session for session in self._sessions.values()}
        if wanted is None:
            free = [number for number in range(self.plan.devices) if number not in taken]
            if not free:
                raise Refused("RESOURCE_EXHAUSTED", f"all {self.plan.devices} places are taken")
            return free[0]
        if wanted >= self.plan.devices:
            raise Refused("INVALID_ARGUMENT", f"devices are numbered from 0 to {self.plan.devices - 1}, got {wanted}")
        if wanted in taken:
            if taken[wanted].attending:
                raise Refused("RESOURCE_EXHAUSTED", f"device {wanted} is here already")
            self._remove(taken[wanted])
        return wanted

    def _remove(self, session: Session) -> None:
        self._sessions.pop(session.key, None)
        self._queues[session.device] = 0.0
        self._tell(session, None)

    def _expire(self) -> None:
        """Forget devices that have not reported for the length of a lease."""
        for session in list(self._sessions.values()):
            if self._block - session.heard > self.plan.lease_blocks:
                self._remove(session)

    def _forget_answers(self, session: Session) -> None:
        """Forget the oldest results of a device; refuse a task where all are still waited for."""
        done = [task for task, answer in session.answers.items() if answer.done()]
        if not done:
            raise Refused("RESOURCE_EXHAUSTED", f"{MAX_JOBS} tasks of this device wait already")
        for task in done[: MAX_JOBS // 2]:
            del session.answers[task]

    def _welcome(self, session: Session) -> None:
        """Tell a device when its first block starts, once that is known."""
        if self._epoch is not None:
            begun = int((now() - self._epoch) // self.plan.block_s) + 1
            block = max(begun + 1, 0) if now() > self._epoch else 0
            session.heard = block
            self._tell(session, Start(block, self._epoch + block * self.plan.block_s - now()))
        elif len(self._attending()) == self.plan.devices:
            self._full.set()

    async def _read(self, session: Session, reports: AsyncIterator[Report]) -> None:
        """Take in what a device says, until it breaks a rule or says no more."""
        try:
            async for report in reports:
                if report.session != session.key:
                    raise MessageError("a report of another session")
                self._note(session, report)
        except MessageError as error:
            session.fault = str(error)
        self._tell(session, None)

    def _note(self, session: Session, report: Report) -> None:
        """Keep what a device has reported, if it is about a block that can be."""
        if not self._block - self.plan.lease_blocks <= report.block <= min(self._block + 3, self.plan.blocks):
            return
        session.heard = max(session.heard, report.block)
        session.queues[report.block] = report.queue
        if report.last is not None and report.block:
            self.ledger.records[report.block - 1, session.device] = report.last

    def _tell(self, session: Session, news: News | None) -> None:
        """Put news in a device's queue; one that does not read is dropped."""
        try:
            session.news.put_nowait(news)
        except asyncio.QueueFull:
            while not session.news.empty():
                session.news.get_nowait()
            session.news.put_nowait(None)
            self._sessions.pop(session.key, None)

    def _broadcast(self, turn: Turn, session: Session) -> BroadcastNews:
        """The fields that the scheme reads; a device hears its own share only."""
        own = turn.broadcast | {"share": turn.broadcast["share"][session.device]}
        values = {name: float(own[name]) for name in self.plan.pair.device.uses_broadcast}
        return BroadcastNews(self.party.block, values, session.heard + self.plan.lease_blocks)
