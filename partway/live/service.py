"""The server's side of a live run: sessions, blocks on a clock, the queue of tasks. Any transport can carry it.

    register ---> a session, its record        attend ---> reports in, news out        infer ---> the rest of a task

The server's block t begins one block and one slot after the devices' block t (Fig. 2 of the paper). It uses what the
devices have reported at the start of their block t, and serves what was cut before it. A message is put where its block
number says, whenever it arrives.
"""

import asyncio
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from partway.errors import shorten
from partway.live.checks import check
from partway.live.clock import now, sleep_until
from partway.live.engine import Engine, NoEngine, Specs
from partway.live.events import LEFT, LOST, Begun, Ended, Event, Gone, Joined, Served
from partway.live.memories import run_of
from partway.live.messages import (
    PROTOCOL_VERSION,
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
from partway.live.rows import RecordRows, Rows
from partway.live.server import ServerParty, Turn
from partway.live.sessions import GREET_S, Session, Sessions
from partway.live.work import Job, WorkQueue
from partway.measurement.checkpoint import Checkpoint

LEAD_S = 0.5
"""How long before the first block the devices are told when it starts."""
EARLY_BLOCKS = 3
"""Blocks by which a report may be ahead of this server's clock."""


class Ledger:
    """What has happened: the server's turns, and the devices' records by (block, device).

    turns          rows of service_per_slot (n,), price and backlog, as in `Turn`
    inflow         work that has come in each block [mean tasks]
    late           tasks that came after the block in which they were due
    answer_late_s  by how much each answer was later than the emulated CPU has it [s]
    """

    def __init__(self, devices: int, slots: int):
        self.turns = Rows(np.dtype([("service_per_slot", "f8", (slots,)), ("price", "f8"), ("backlog", "f8")]))
        self.inflow, self.records = list[float](), RecordRows(devices)
        self.received = self.answered = self.duplicates = self.late = 0
        self.answer_late_s = array("d")

    def note(self, turn: Turn) -> None:
        """Keep a turn."""
        self.turns.append((turn.service_per_slot, turn.broadcast["price"], turn.backlog))


@dataclass(frozen=True)
class BlockEnded:
    """A block of the server has ended: all that was cut in it has come. It is for `partway.live.watch`.

    ledger, changes     what has happened so far, and how much was learned in each block
    devices, attending  how many the run has, and the numbers of those whose stream is open
    """

    block: int
    ledger: Ledger
    changes: list[float]
    devices: int
    attending: tuple[int, ...]


class Service:
    """One live run at the server. The methods that a transport calls raise Refused.

    ledger  what has happened so far
    """

    def __init__(
        self,
        plan: LivePlan,
        engine: Engine | None = None,
        trained: Checkpoint | None = None,
        listen: Callable[[Event | BlockEnded], object] = lambda event: None,
    ):
        """A run that waits for its devices.

        trained  what a simulation had learned, with which the server begins
        listen   is told what happens

        Raises InputError where that does not fit.
        """
        self.plan, self.ledger, self._listen = plan, Ledger(plan.devices, plan.slots), listen
        self._engine = engine or NoEngine()
        self.party = ServerParty(
            plan.pair.server, plan.world.server, plan.devices, plan.stream, plan.seed, plan.precision
        )
        if trained is not None:
            self.party.remember(trained, run_of(trained, plan.scheme, plan.devices, plan.seed))
        self._sessions = Sessions(plan.devices, plan.block_s)
        self._full = asyncio.Event()
        self._epoch: float | None = None
        self._block, self._closed = 0, False
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
        plan = self.plan
        scenario = f"that with SHA-256 {plan.scenario_sha256[:12]}..."
        has = {
            "scenario": (request.scenario_sha256, plan.scenario_sha256, scenario),
            "network": (request.model_sha256, plan.model_sha256, shorten(plan.model_words, 300) or "none"),
        }
        for what, (theirs, mine, here) in has.items():
            if theirs not in ("", mine):
                raise Refused("FAILED_PRECONDITION", f"this server runs another {what} than yours: {here}")
        session = self._sessions.admit(request.device, request.session, self._now())
        return self.plan.reply(session.device, session.key)

    async def attend(self, reports: AsyncIterator[Report]) -> AsyncGenerator[News]:
        """A device's stream, whose first message is a greeting that has its session: the news for it."""
        try:
            async with asyncio.timeout(GREET_S):
                first = await anext(reports, None)
        except TimeoutError:
            raise Refused("DEADLINE_EXCEEDED", f"no greeting within {GREET_S:g} s") from None
        if first is None:
            return
        own = self._sessions.of(first.session)
        if own.attending:
            raise Refused("FAILED_PRECONDITION", "this session has a stream already")
        self._sessions.spend(own)
        own.attending = own.arrived = True
        reading = asyncio.create_task(self._read(own, reports))
        self._listen(Joined(own.device))
        try:
            self._welcome(own)
            while (news := await own.news.get()) is not None:
                yield news
            if own.fault is not None:
                raise own.fault
        finally:
            own.attending = False
            reading.cancel()
            if self._epoch is None:  # a lease counts blocks, and there are none yet
                self._end(own)
            if not any(session.device == own.device for session in self._sessions.attending()):
                self._listen(Gone(own.device, LEFT if own.left or self._closed else LOST))

    async def infer(self, request: InferRequest) -> InferReply:
        """The rest of a task, when the server has done it. Asked again, it gives the same answer."""
        own = self._sessions.of(request.session)
        if self._closed:
            raise Refused("UNAVAILABLE", "the run has ended")
        if request.task in own.answers:
            self._sessions.spend(own)
            self.ledger.duplicates += 1
            return await asyncio.shield(own.answers[request.task])
        own.forget_answers()
        block, oldest = self._now(), self._now() - self.plan.lease_blocks - 2
        if not oldest <= request.block <= block + 1:
            raise Refused("INVALID_ARGUMENT", f"block {request.block} is not now; this is block {block}")
        if request.block in own.cut:
            raise Refused("INVALID_ARGUMENT", f"a task of block {request.block} was sent already: one is cut per block")
        if why := self._engine.refusal(request.model, request.tensors):
            raise Refused("INVALID_ARGUMENT", why)
        if unknown := set(request.wanted).difference(self._engine.specs(request.model)[1]):
            raise Refused("INVALID_ARGUMENT", f"model {request.model} has no output {shorten(min(unknown))}")
        own.cut.difference_update([past for past in own.cut if past < oldest])
        own.cut.add(request.block)
        answer = own.answers[request.task] = asyncio.get_running_loop().create_future()
        job = Job(own.device, request.task, request.block, request.offload * float(self._work[own.device]), now())
        self.ledger.received += 1
        self._new.append(job)
        self._requests[id(job)], self._answers[id(job)] = request, answer
        return await asyncio.shield(answer)

    def models(self) -> list[str]:
        """The back halves that can be computed."""
        return self._engine.models()

    def specs(self, model: str) -> tuple[Specs, Specs]:
        """What a back half takes and gives. Raises Refused where there is none of that name."""
        if model not in self._engine.models():
            raise Refused("NOT_FOUND", f"no model {shorten(model)}")
        return self._engine.specs(model)

    def leave(self, request: LeaveRequest) -> None:
        """A device leaves."""
        session = self._sessions.of(request.session)
        session.left = True
        self._end(session)

    # The run

    async def run(self, wait_s: float = 60.0, on_begin: Callable[[int], None] = lambda devices: None) -> Ledger:
        """Wait until all devices attend, at most so long, then run the blocks. Returns what has happened.

        on_begin  called when the run begins, with the number of devices
        """
        self.party.compile()
        try:
            await asyncio.wait_for(self._full.wait(), wait_s)
        except TimeoutError:
            if not any(session.attending for session in self._sessions):
                raise Refused("DEADLINE_EXCEEDED", f"no device has joined within {wait_s:g} s") from None
        self._epoch = now() + LEAD_S
        on_begin(len(self._sessions.attending()))
        self._listen(Begun(len(self._sessions.attending())))
        for session in self._sessions.attending():
            self._welcome(session)
        for block in range(self.plan.blocks):
            await self._wait_for(block)
            self._turn(block)
        await self._wait_for(self.plan.blocks)
        self._listen(self._end_block(self.plan.blocks))
        await self._finish()
        done = self.ledger
        self._listen(Ended(self.plan.blocks, done.received, done.answered, done.duplicates, done.late))
        return done

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
        if block:  # what listens takes milliseconds, and now tensors arrive and the devices wait for the broadcast
            asyncio.get_running_loop().call_later(self.plan.slot_s / 2, self._listen, self._end_block(block))
        turn = self.party.begin()
        self.ledger.note(turn)
        for session in self._sessions.attending():
            self._sessions.tell(session, self._broadcast(turn, session))
        self._expire()
        for job in self._jobs.serve(turn.service_per_slot, self._start(block)):
            self._follow(job)

    def _end_block(self, block: int) -> BlockEnded:
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
        for session in self._sessions:
            if block in session.queues:
                self._queues[session.device] = session.queues[block]
            session.queues = {at: queue for at, queue in session.queues.items() if at > block}
        self.party.end(self._queues, inflow)
        there = tuple(sorted(session.device for session in self._sessions.attending()))
        return BlockEnded(block - 1, self.ledger, self.party.changes, self.plan.devices, there)

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
        self.ledger.answer_late_s.append(now() - done)
        reply = InferReply(job.task, max(begun - job.received, 0.0), max(now() - begun, 0.0), outputs)
        answer.set_result(reply)
        self.ledger.answered += 1
        self._listen(Served(job.device, job.task, reply.wait_s, reply.run_s))

    async def _finish(self) -> None:
        """Answer what is left at the end of the run, and close the streams."""
        self._closed = True
        for job in [*self._jobs.drain(), *self._new]:
            job.done = now()
            self._follow(job)
        self._new.clear()
        while self._running:
            await asyncio.wait(self._running)
        for session in self._sessions.attending():
            self._sessions.tell(session, None)

    # Sessions

    def _now(self) -> int:
        """The block of the devices that runs now, by the clock: this server's own may be late."""
        return 0 if self._epoch is None else max(int((now() - self._epoch) // self.plan.block_s), 0)

    def _end(self, session: Session) -> None:
        """A device is gone: its queue counts as empty."""
        self._sessions.end(session)
        self._queues[session.device] = 0.0

    def _expire(self) -> None:
        """Forget devices that have not reported for the length of a lease."""
        for session in self._sessions.expired(self._block, self.plan.lease_blocks):
            self._queues[session.device] = 0.0

    def _welcome(self, session: Session) -> None:
        """Tell a device when its first block starts, once that is known."""
        if self._epoch is not None:
            block = self._now() + 2 if now() > self._epoch else 0
            session.heard = block
            self._sessions.tell(session, Start(block, self._epoch + block * self.plan.block_s - now()))
        elif len(self._sessions.attending()) == self.plan.devices:
            self._full.set()

    async def _read(self, session: Session, reports: AsyncIterator[Report]) -> None:
        """Take in what a device says, until it breaks a rule or says no more."""
        try:
            async for report in reports:
                if report.session != session.key:
                    raise MessageError("a report of another session")
                self._sessions.spend(session)
                self._note(session, report)
        except MessageError as error:
            session.fault = Refused("INVALID_ARGUMENT", str(error))
        except Refused as error:
            session.fault = error
        self._sessions.tell(session, None)

    def _note(self, session: Session, report: Report) -> None:
        """Keep what a device has reported: its queue if the server's block has not begun, its record in any case."""
        if not 0 <= report.block <= min(self._now() + EARLY_BLOCKS, self.plan.blocks):
            return
        self._check(report)
        session.heard = max(session.heard, report.block)
        if report.block >= self._block:
            session.queues[report.block] = report.queue
        if report.last is not None and report.block:
            self.ledger.records[report.block - 1, session.device] = report.last

    def _check(self, report: Report) -> None:
        """Raise MessageError where a device reports more than can have happened to it."""
        slots, last = self.plan.slots, report.last
        check(report.queue <= slots * report.block, "more tasks wait than can have arrived")
        if last is not None:
            check(last.queue <= slots * (report.block - 1), "more tasks waited than can have arrived")
            check(last.arrivals >> slots == 0, "more tasks arrived than there are slots")

    def _broadcast(self, turn: Turn, session: Session) -> BroadcastNews:
        """The fields that the scheme reads; a device hears its own share only."""
        own = turn.broadcast | {"share": turn.broadcast["share"][session.device]}
        values = {name: float(own[name]) for name in self.plan.pair.device.uses_broadcast}
        return BroadcastNews(self.party.block, values, session.heard + self.plan.lease_blocks)
