"""What breaks: links, servers and devices, on a clock that skips waiting. Every task still ends, once.

With `-s` some tests print their figures, which docs/live.md has.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import jax
import numpy as np
import pytest

from partway.live.agent import ALONE_AFTER, MAX_REPORTS, Agent, AgentLog
from partway.live.clock import FakeTimeLoop, now, run_on_fake_clock, sleep_until
from partway.live.memory import MemoryLink
from partway.live.messages import (
    BlockRecord,
    InferReply,
    InferRequest,
    MessageError,
    Refused,
    RegisterReply,
    RegisterRequest,
    Report,
    Start,
)
from partway.live.plan import LivePlan, make_plan
from partway.live.service import Service
from partway.live.sessions import GREET_S, MAX_NEWS, MAX_SAVED, MESSAGES_PER_BLOCK, Session
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, WAITING
from partway.scenario.loading import load

T = TypeVar("T")
BLOCKS, BLOCK_S = 80, 0.5
CUT_S, RESTORED_S = 12.2, 20.2
"""When links break and are whole again: in the middle of the run, and of a block."""
SCENARIO: dict[str, Any] = {
    "devices": 3,
    "server": {"macs_per_cycle": 0.08},
    "device": {
        "macs_per_cycle": 0.4,
        "bandwidth_hz": 3e6,
        "task": {"kind": "layers", "profile": "resnet50", "tensor_dtype": "uint8"},
    },
}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class Cable:
    """A device's link that can break: with an error, or silently, so that messages are lost."""

    def __init__(self, service: Service):
        self._link = MemoryLink(service, 0.002)
        self._whole, self._reset = asyncio.Event(), asyncio.Event()
        self._whole.set()

    def cut(self, silently: bool) -> None:
        self._whole.clear()
        if not silently:
            self._reset.set()

    def mend(self) -> None:
        self._reset.clear()
        self._whole.set()

    async def probe(self) -> None:
        await self._over(self._link.probe(), 5.0)

    async def register(self, request: RegisterRequest) -> RegisterReply:
        return await self._over(self._link.register(request), 5.0)

    async def infer(self, request: InferRequest, within_s: float) -> InferReply:
        return await self._over(self._link.infer(request, within_s), within_s)

    async def leave(self, request: Any) -> None:
        await self._over(self._link.leave(request), 5.0)

    async def attend(self, reports: AsyncIterator[Report]) -> AsyncIterator[Any]:
        async def carried() -> AsyncIterator[Report]:
            async for report in reports:
                await self._whole.wait()
                yield report

        stream = self._link.attend(carried())
        while True:
            try:
                news = await self._over(anext(stream), 1e9)
            except StopAsyncIteration:
                return
            await self._whole.wait()
            yield news

    async def _over(self, work: Awaitable[T], within_s: float) -> T:
        """What `work` gives, unless the cable breaks or is broken."""
        if self._reset.is_set():
            asyncio.ensure_future(work).cancel()
            raise Refused("UNAVAILABLE", "the link is down")
        doing = asyncio.ensure_future(self._after(work))
        broken = asyncio.ensure_future(self._reset.wait())
        await asyncio.wait({doing, broken}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if doing.done():
            return doing.result()
        doing.cancel()
        raise Refused("UNAVAILABLE" if self._reset.is_set() else "DEADLINE_EXCEEDED", "the link is down")

    async def _after(self, work: Awaitable[T]) -> T:
        await self._whole.wait()
        result = await work
        await self._whole.wait()
        return result


def plan_of() -> LivePlan:
    return make_plan(load(SCENARIO), "neurosurgeon", blocks=BLOCKS, precision="float64")


class Site:
    """A server and its devices, with a cable each."""

    def __init__(self) -> None:
        self.plan = plan_of()
        self.service = Service(self.plan)
        self.cables = [Cable(self.service) for _ in range(self.plan.devices)]
        agents = [Agent(cable, request=RegisterRequest(k)) for k, cable in enumerate(self.cables)]
        self.serving = asyncio.create_task(self.service.run())
        self.devices = [asyncio.create_task(agent.run()) for agent in agents]

    async def logs(self) -> list[AgentLog]:
        logs = list(await asyncio.gather(*(device for device in self.devices if not device.cancelled())))
        self.serving.cancel()
        return logs


def run(disturb: Callable[[Site], Awaitable[None]]) -> tuple[Site, list[AgentLog]]:
    async def main() -> tuple[Site, list[AgentLog]]:
        site = Site()
        await disturb(site)
        return site, await site.logs()

    return run_on_fake_clock(main())


def check_tasks(log: AgentLog) -> None:
    """Every task has ended, once."""
    numbers = [task.number for task in log.tasks]
    assert sorted(numbers) == list(range(len(numbers)))
    assert {task.outcome for task in log.tasks} <= {ANSWERED, LOCAL, FINISHED_HERE, WAITING}
    assert all(np.isfinite(task.answered) for task in log.tasks if task.outcome != WAITING)


def check_every_task_ends_once(site: Site, logs: list[AgentLog]) -> None:
    for log in logs:
        check_tasks(log)
        assert len(log.records) == BLOCKS
    answered = sum(task.outcome == ANSWERED for log in logs for task in log.tasks)
    assert answered <= site.service.ledger.answered <= site.service.ledger.received


def tell(name: str, logs: list[AgentLog], service: Service) -> None:
    """Print the figures of a test."""
    ended = Counter(task.outcome for log in logs for task in log.tasks)
    print(
        f"\n{name}: {ended[ANSWERED] + ended[FINISHED_HERE]} tasks sent, {ended[ANSWERED]} answered, "
        f"{ended[FINISHED_HERE]} finished here, {service.ledger.duplicates} received twice, "
        f"alone in {sum(len(log.alone) for log in logs)} blocks"
    )


def alone_and_back(log: AgentLog) -> tuple[float, float]:
    """How long after the cut the device works alone, and how long after the repair it sends again [s]."""
    assert log.alone == list(range(log.alone[0], log.alone[-1] + 1))
    return log.alone[0] * BLOCK_S - CUT_S, (log.alone[-1] + 1) * BLOCK_S - RESTORED_S


@pytest.mark.parametrize("silently", [False, True])
def test_a_link_that_breaks_and_comes_back(silently: bool):
    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        site.cables[1].cut(silently)
        await sleep_until(RESTORED_S)
        site.cables[1].mend()

    site, logs = run(disturb)
    check_every_task_ends_once(site, logs)
    assert logs[0].alone == logs[2].alone == []
    alone_s, back_s = alone_and_back(logs[1])
    assert 0 < alone_s <= (ALONE_AFTER + 3) * BLOCK_S
    assert 0 < back_s <= (8 + 4) * BLOCK_S  # the longest pause, and until broadcasts are due
    later = [task for task in logs[1].tasks if task.begun > RESTORED_S + back_s]
    assert any(task.outcome == ANSWERED for task in later)
    # nothing is sent while the device is alone
    begun = [task for task in logs[1].tasks if logs[1].alone[0] * BLOCK_S <= task.begun < RESTORED_S]
    assert begun
    assert {task.outcome for task in begun} == {LOCAL}


def test_a_server_that_is_killed():
    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        site.serving.cancel()
        for cable in site.cables:
            cable.cut(silently=False)

    site, logs = run(disturb)
    for log in logs:
        alone_s, _ = alone_and_back(log)
        assert 0 < alone_s <= (ALONE_AFTER + 3) * BLOCK_S
        assert log.alone[-1] == BLOCKS - 1
        late = [task.outcome for task in log.tasks if task.begun > log.alone[0] * BLOCK_S]
        assert set(late) <= {LOCAL, WAITING}
    check_every_task_ends_once(site, logs)
    assert any(task.outcome == FINISHED_HERE for log in logs for task in log.tasks)


def test_a_server_that_is_started_again_begins_another_run():
    """Devices of the older run end soon after it is there, say why, and take no place from those that join now."""

    async def main() -> tuple[list[AgentLog], list[AgentLog], Service]:
        site = Site()
        await sleep_until(CUT_S)
        site.serving.cancel()
        for cable in site.cables:
            cable.cut(silently=False)
        await sleep_until(RESTORED_S)
        second = Service(site.plan)
        for cable in site.cables:
            cable._link = MemoryLink(second, 0.002)
            cable.mend()
        running = asyncio.create_task(second.run())
        old = await site.logs()
        assert now() < RESTORED_S + (8 + 1 + site.plan.lease_blocks) * BLOCK_S  # the longest pause; and what was sent
        assert not any(session.attending for session in second._sessions)
        links = [MemoryLink(second, 0.002) for _ in old]
        new = await asyncio.gather(*(Agent(link, request=RegisterRequest(k)).run() for k, link in enumerate(links)))
        await running
        return old, list(new), second

    old, new, second = run_on_fake_clock(main())
    for log in old:
        check_tasks(log)
        assert log.ended == "the server has begun another run; join again to take part in it"
        assert CUT_S / BLOCK_S < max(log.records) < BLOCKS - 1
    for log in new:
        check_tasks(log)
        assert log.ended == ""
        assert log.alone == []
        assert len(log.records) == BLOCKS
    assert second.ledger.received == second.ledger.answered > 20


def test_a_device_that_is_killed_is_forgotten_and_harms_nobody():
    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        site.devices[1].cancel()
        await asyncio.sleep((site.plan.lease_blocks + 3) * BLOCK_S)
        assert site.service._queues[1] == 0
        assert sorted(session.device for session in site.service._sessions) == [0, 2]

    site, logs = run(disturb)
    assert [log.device for log in logs] == [0, 2]
    assert [log.alone for log in logs] == [[], []]
    assert [log.misses for log in logs] == [0, 0]
    assert len(site.service.ledger.turns) == BLOCKS


class Wild(MemoryLink):
    """A link on which every message takes a time of its own, so that they overtake each other, and may come twice."""

    def __init__(self, service: Service, slowest_s: float, seed: int):
        super().__init__(service)
        self._slowest_s, self._rng = slowest_s, random.Random(seed)
        self.late = 0

    async def infer(self, request: InferRequest, within_s: float) -> InferReply:
        """Two calls for one task; whichever is answered first counts, and the other one comes later."""
        calls = [asyncio.create_task(super(Wild, self).infer(request, within_s)) for _ in range(2)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            call.add_done_callback(self._count)
        return done.pop().result()

    async def attend(self, reports: AsyncIterator[Report]) -> AsyncIterator[Any]:
        """News in any order, every third one again, later."""
        arrived, arriving = asyncio.Queue[Any](), set[asyncio.Task[None]]()

        async def arrive(news: Any) -> None:
            await self._carried(b"")
            arrived.put_nowait(news)

        async def listen() -> None:
            async for news in super(Wild, self).attend(self._twice(reports)):
                for _ in range(1 + (self._rng.random() < 1 / 3)):
                    arriving.add(asyncio.create_task(arrive(news)))

        listening = asyncio.create_task(listen())
        listening.add_done_callback(lambda _: arrived.put_nowait(None))
        while (news := await arrived.get()) is not None:
            yield news

    async def _twice(self, reports: AsyncIterator[Report]) -> AsyncIterator[Report]:
        async for report in reports:
            yield report
            if report.block and self._rng.random() < 1 / 3:
                yield report

    async def _carried(self, data: bytes) -> bytes:
        await asyncio.sleep(self._rng.uniform(0, self._slowest_s))
        return data

    def _count(self, call: "asyncio.Task[InferReply]") -> None:
        self.late += call.exception() is None


@pytest.mark.parametrize("slowest_s", [0.1, 0.45])
def test_messages_that_overtake_each_other_and_come_twice(slowest_s: float):
    """Every task is done once, however often it is asked for; nobody has to work alone."""

    async def main() -> tuple[Service, list[AgentLog], int]:
        service = Service(plan_of())
        links = [Wild(service, slowest_s, seed) for seed in range(3)]
        running = asyncio.create_task(service.run())
        logs = await asyncio.gather(*(Agent(link, request=RegisterRequest(k)).run() for k, link in enumerate(links)))
        await running
        return service, list(logs), sum(link.late for link in links)

    service, logs, answers = run_on_fake_clock(main())
    tell(f"messages that take up to {slowest_s:g} s", logs, service)
    for log in logs:
        check_tasks(log)
        assert log.alone == []
        assert len(log.records) == BLOCKS
    sent = [task for log in logs for task in log.tasks if task.outcome in (ANSWERED, FINISHED_HERE)]
    answered = sum(task.outcome == ANSWERED for task in sent)
    assert 20 < answered <= service.ledger.received == service.ledger.answered <= len(sent)
    assert 0 < service.ledger.duplicates <= service.ledger.received
    assert answered < answers <= 2 * answered  # second answers came, and changed nothing
    # what arrived when the server had ended its run, the device has finished; its last reports may have come too late
    assert all(task.outcome == ANSWERED for task in sent if task.sent < (BLOCKS - 1) * BLOCK_S)
    assert len(service.ledger.records) >= 3 * (BLOCKS - 1)
    if slowest_s < 0.3:  # two messages and half a block: each broadcast was there when it was due
        assert [log.misses for log in logs] == [0, 0, 0]


def test_answers_that_come_after_the_lease_are_not_used():
    """The device has finished those tasks itself; the server has done them in vain, and nothing ends twice."""

    class Late(MemoryLink):
        async def infer(self, request: InferRequest, within_s: float) -> InferReply:
            asked = asyncio.create_task(super().infer(request, 1e6))
            await asyncio.sleep(within_s)
            asked.add_done_callback(lambda call: call.exception())
            raise Refused("DEADLINE_EXCEEDED", "no answer in time")

    async def main() -> tuple[Service, list[AgentLog]]:
        service = Service(plan_of())
        links = [Late(service) if k == 1 else MemoryLink(service) for k in range(3)]
        running = asyncio.create_task(service.run())
        logs = await asyncio.gather(*(Agent(link, request=RegisterRequest(k)).run() for k, link in enumerate(links)))
        await running
        return service, list(logs)

    service, logs = run_on_fake_clock(main())
    tell("answers of one device after the lease", logs, service)
    for log in logs:
        check_tasks(log)
    ended = [Counter(task.outcome for task in log.tasks) for log in logs]
    assert ended[1][ANSWERED] == 0 < ended[1][FINISHED_HERE]
    assert ended[0][FINISHED_HERE] == ended[2][FINISHED_HERE] == 0
    sent = sum(one[ANSWERED] + one[FINISHED_HERE] for one in ended)
    assert ended[0][ANSWERED] + ended[2][ANSWERED] < service.ledger.received <= sent
    lease_s = 10 * BLOCK_S
    took = [task.answered - task.sent for task in logs[1].tasks if task.outcome == FINISHED_HERE]
    assert lease_s <= min(took) <= max(took) < lease_s + 0.01


def test_another_device_may_have_the_place_of_one_that_is_gone():
    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        site.devices[1].cancel()
        await asyncio.sleep((site.plan.lease_blocks + 3) * BLOCK_S)
        joined = Agent(MemoryLink(site.service, 0.002))
        site.devices[1] = asyncio.create_task(joined.run())

    _, logs = run(disturb)
    assert [log.device for log in logs] == [0, 1, 2]
    assert 30 < len(logs[1].records) < BLOCKS
    assert logs[1].alone == []
    assert any(task.outcome == ANSWERED for task in logs[1].tasks)


def test_a_device_that_does_not_read_loses_its_session_and_harms_nobody():
    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        session = next(session for session in site.service._sessions if session.device == 1)
        for _ in range(MAX_NEWS + 1):  # as if it had read none of them
            site.service._sessions.tell(session, Start(0, 0.0))
        assert session not in list(site.service._sessions)

    site, logs = run(disturb)
    check_every_task_ends_once(site, logs)
    assert logs[0].alone == logs[2].alone == []
    assert any(task.outcome == ANSWERED and task.begun > CUT_S + 5 for task in logs[1].tasks)  # it has come back


def test_a_place_that_is_taken_is_not_given_to_another_device():
    async def main() -> str:
        site = Site()
        await sleep_until(5.0)
        with pytest.raises(Refused) as caught:
            site.service.register(RegisterRequest(1))
        for task in (*site.devices, site.serving):
            task.cancel()
        return caught.value.code

    assert run_on_fake_clock(main()) == "RESOURCE_EXHAUSTED"


def free_block(service: Service, session: Session) -> int:
    """The last block of which the device has sent no task."""
    block = service._now()
    while block in session.cut:
        block -= 1
    return block


def test_a_task_that_is_asked_for_again_is_done_once():
    async def main() -> tuple[Service, list[InferReply]]:
        site = Site()
        await sleep_until(5.0)
        session = next(iter(site.service._sessions))
        link = MemoryLink(site.service, 0.002)
        request = InferRequest(session.key, 10_000, free_block(site.service, session), 0.5)
        replies = list(await asyncio.gather(*(link.infer(request, 30.0) for _ in range(5))))
        replies.append(await link.infer(request, 30.0))
        for task in (*site.devices, site.serving):
            task.cancel()
        return site.service, replies

    service, replies = run_on_fake_clock(main())
    assert service.ledger.duplicates == 5
    assert len({(reply.task, reply.wait_s, reply.run_s) for reply in replies}) == 1


def test_a_device_that_floods_the_server_with_valid_messages_is_stopped_and_harms_nobody():
    """It sends ten thousand reports in a second, on one stream after the other, and the others run as without it."""
    assert MAX_SAVED > MAX_REPORTS + MESSAGES_PER_BLOCK  # an honest one that comes back
    taken, refusals = list[float](), Counter[str]()

    async def flood(service: Service) -> None:
        link, key = MemoryLink(service), ""

        async def reports() -> AsyncIterator[Report]:
            yield Report(key, 0, 0.0)
            for _ in range(5000):
                yield Report(key, service._now(), 0.0)
                taken.append(now())
                await asyncio.sleep(1e-4)

        end = now() + 1.0
        while now() < end:
            try:
                key = (await link.register(RegisterRequest(1, session=key))).session
                async for _ in link.attend(reports()):
                    pass
            except Refused as refused:
                refusals[refused.code] += 1
                await asyncio.sleep(1e-3)

    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        site.devices[1].cancel()
        await asyncio.sleep((site.plan.lease_blocks + 3) * BLOCK_S)  # its place is free
        await flood(site.service)

    async def leave(site: Site) -> None:
        await sleep_until(CUT_S)
        site.devices[1].cancel()
        await asyncio.sleep(0.1)

    site, logs = run(disturb)
    tell("one device floods the server, the others", logs, site.service)
    _, quiet = run(leave)
    assert set(refusals) == {"RESOURCE_EXHAUSTED"}
    assert MAX_SAVED / 2 < len(taken) <= MAX_SAVED + 3 * MESSAGES_PER_BLOCK
    for log, other in zip(logs, quiet, strict=True):
        assert [(task.number, task.outcome) for task in log.tasks] == [
            (task.number, task.outcome) for task in other.tasks
        ]
        assert log.alone == []


def test_a_device_sends_one_task_per_block_and_none_of_another_time():
    """A device that lies takes no more of the server than any device may."""

    async def main() -> list[str]:
        site, reasons = Site(), list[str]()
        await sleep_until(20.0)
        session = next(iter(site.service._sessions))
        block, free = site.service._now(), free_block(site.service, session)
        asked = [asyncio.create_task(site.service.infer(InferRequest(session.key, 10_000, free, 0.5)))]
        await asyncio.sleep(0)
        for wrong in (free, block + 2, block - site.plan.lease_blocks - 3):
            with pytest.raises(Refused) as caught:
                await site.service.infer(InferRequest(session.key, 10_001 + wrong, wrong, 0.5))
            reasons.append(f"{caught.value.code} {caught.value.reason}")
        for task in (*site.devices, site.serving, *asked):
            task.cancel()
        return reasons

    reasons = run_on_fake_clock(main())
    assert [reason.split()[0] for reason in reasons] == ["INVALID_ARGUMENT"] * 3
    assert "one is cut per block" in reasons[0]
    assert "is not now" in reasons[1]
    assert "is not now" in reasons[2]


@pytest.mark.parametrize("field", ["queue", "last.queue", "last.arrivals"])
def test_a_device_cannot_report_more_than_has_happened(field: str):
    """Five slots in a block: at most 50 tasks after ten blocks. Its session stays, its stream ends with the reason."""

    async def main() -> tuple[Site, Session]:
        site = Site()
        await sleep_until(11 * BLOCK_S)
        session = next(iter(site.service._sessions))
        most = site.plan.slots * 10
        last = BlockRecord(most - 5.0, 1.0, 0.0, 0.0, np.nan, 0.0, 0.0, np.nan, 0b11111)
        site.service._note(session, Report(session.key, 10, most, last))
        lies = {
            "queue": Report(session.key, 10, most + 1.0, last),
            "last.queue": Report(session.key, 10, most, replace(last, queue=most - 4.0)),
            "last.arrivals": Report(session.key, 10, most, replace(last, arrivals=0b100000)),
        }
        with pytest.raises(MessageError, match="than"):
            site.service._note(session, lies[field])
        for task in (*site.devices, site.serving):
            task.cancel()
        return site, session

    site, session = run_on_fake_clock(main())
    assert site.service.ledger.records[9, session.device].arrivals == 0b11111


def test_a_stream_without_a_greeting_is_closed():
    async def main() -> tuple[str, float]:
        async def nothing() -> AsyncIterator[Report]:
            await asyncio.Event().wait()
            yield Report("", 0, 0.0)

        with pytest.raises(Refused) as caught:
            await anext(MemoryLink(Service(plan_of())).attend(nothing()))
        return caught.value.code, now()

    code, waited = run_on_fake_clock(main())
    assert (code, waited) == ("DEADLINE_EXCEEDED", pytest.approx(GREET_S, abs=0.1))


def test_a_device_that_is_killed_before_the_run_leaves_its_place():
    async def main() -> tuple[Service, list[AgentLog]]:
        service = Service(plan_of())
        running = asyncio.create_task(service.run())
        first = asyncio.create_task(Agent(MemoryLink(service)).run())
        await asyncio.sleep(1.0)
        assert [session.attending for session in service._sessions] == [True]
        first.cancel()
        await asyncio.sleep(0.1)
        assert list(service._sessions) == []
        logs = await asyncio.gather(*(Agent(MemoryLink(service)).run() for _ in range(3)))
        await running
        return service, list(logs)

    service, logs = run_on_fake_clock(main())
    assert [log.device for log in logs] == [0, 1, 2]
    assert len(service.ledger.records) == 3 * BLOCKS


def test_a_block_that_has_not_begun_is_refused():
    async def main() -> str:
        site = Site()
        await sleep_until(5.0)
        session = next(iter(site.service._sessions))
        with pytest.raises(Refused) as caught:
            await site.service.infer(InferRequest(session.key, 10_000, 50, 0.5))
        for task in (*site.devices, site.serving):
            task.cancel()
        return caught.value.code

    assert run_on_fake_clock(main()) == "INVALID_ARGUMENT"


SUSPENDED_S = 8.3
"""How long a machine sleeps; its clock has jumped when it wakes."""


def test_a_machine_that_sleeps_goes_on_where_the_clock_is():
    """Server and devices sleep through 16 blocks: they catch up, no task is lost, and devices send again."""

    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, FakeTimeLoop)
        loop.present += SUSPENDED_S

    site, logs = run(disturb)
    check_every_task_ends_once(site, logs)
    assert len(site.service.ledger.turns) == BLOCKS
    for log in logs:
        assert log.late_s.max() == pytest.approx(SUSPENDED_S, abs=BLOCK_S)
        assert log.late_s[-1] < 0.01
        assert max(log.alone, default=0) * BLOCK_S < CUT_S + SUSPENDED_S + (ALONE_AFTER + 3) * BLOCK_S
        after = [task for task in log.tasks if task.begun > CUT_S + SUSPENDED_S + 12 * BLOCK_S]
        assert any(task.outcome == ANSWERED for task in after)


def test_the_time_of_day_may_jump(monkeypatch: pytest.MonkeyPatch):
    """Nobody reads it: a run in which it leaps back and forth is the same run."""

    async def nothing(site: Site) -> None:
        del site

    async def disturb(site: Site) -> None:
        await sleep_until(CUT_S)
        monkeypatch.setattr(time, "time", lambda: -1e6)
        await sleep_until(RESTORED_S)
        monkeypatch.setattr(time, "time", lambda: 1e12)

    (_, calm), (_, wild) = run(nothing), run(disturb)
    monkeypatch.undo()
    for one, other in zip(calm, wild, strict=True):
        assert repr(one.tasks) == repr(other.tasks)
        assert repr(one.records) == repr(other.records)
