"""What breaks between processes: a server or a device that is killed or frozen, a cable that stalls or is cut.

The devices run in this process, so that it is known when what happened; the server is a process of its own. With `-s`
each test prints its figures, which docs/live.md has.
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from live_site import BLOCK_S, devices_of, ended, outcomes

from partway.live import codec, tensors
from partway.live.agent import ALONE_AFTER, MAX_PAUSE_BLOCKS, Agent, AgentLog
from partway.live.clock import now, sleep_until
from partway.live.documents import tasks_of
from partway.live.endpoints import reach
from partway.live.grpc_client import CLIENT_OPTIONS, GrpcLink
from partway.live.grpc_server import ATTEND, INFER, MAX_CONTROL_BYTES, REGISTER
from partway.live.halves import Halves
from partway.live.messages import InferRequest, Refused, RegisterRequest, Report, Start
from partway.live.network import write_small_network
from partway.live.plan import LEASE_BLOCKS
from partway.live.processes import START_S, Fleet, serving
from partway.live.sessions import MAX_NEWS
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, WAITING

pytestmark = pytest.mark.slow
BLOCKS, BREAKS, WHOLE = 90, 24, 44
"""Of a run; and the blocks in the middle of which something breaks, and is whole again."""
SLACK = 4
"""Blocks that a loaded machine may take longer."""


class Cable:
    """A port that passes on to another one, until it stalls or is cut."""

    def __init__(self, target: str):
        self._host, _, self._port = target.rpartition(":")
        self._open, self._cut = asyncio.Event(), False
        self._writers = set[asyncio.StreamWriter]()
        self._open.set()

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """Where its near end is."""
        server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0.1)  # until all connections have noticed

    def stall(self) -> None:
        """Drop all messages silently."""
        self._open.clear()

    def cut(self) -> None:
        """All connections are reset, and no other can be made."""
        self._cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._cut = False
        self._open.set()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
            self._writers.add(far_writer)
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        except OSError:  # reset, or nobody is there
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                await self._open.wait()
                writer.write(data)
        finally:
            writer.close()


@dataclass
class Scene:
    """A run while it goes on. epoch: when block 0 began, by this loop's clock [s]."""

    fleet: Fleet
    cable: Cable
    epoch: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict[str, Any])

    async def middle_of(self, block: int) -> float:
        """Wait until the middle of a block; returns the moment, from the start of block 0 [s]."""
        await sleep_until(self.epoch + (block + 0.5) * BLOCK_S)
        return now() - self.epoch


def played(
    folder: Path,
    disturb: Callable[[Scene], Awaitable[None]],
    here: int = 4,
    start: Callable[[Fleet], None] = lambda fleet: None,
    finish: Callable[[Fleet], Any] = lambda fleet: None,
    beside: Callable[[Scene], Awaitable[None]] | None = None,
) -> tuple[Scene, list[AgentLog], dict[str, Any] | None]:
    """A run with `here` devices in this process, of which the last one has a cable that can break.

    start, finish  start those that are processes of their own, and wait for what they leave (`Scene.seen["finished"]`)
    beside         another client, which is not waited for when the run has ended
    """
    halves = Halves(write_small_network(folder), "fp16")

    async def main(fleet: Fleet) -> tuple[Scene, list[AgentLog]]:
        scene = Scene(fleet, Cable(fleet.target))
        async with scene.cable.laid() as near:
            targets = [*[fleet.target] * (here - 1), near]
            links = [GrpcLink(target) for target in targets]
            for link in links:
                await reach(link, 30.0)
            agents = [Agent(link, halves, RegisterRequest(number)) for number, link in enumerate(links)]
            running = [asyncio.create_task(agent.run()) for agent in agents]
            other = None if beside is None else asyncio.ensure_future(beside(scene))
            while not agents[0].epoch:
                await asyncio.sleep(0.05)
            scene.epoch = agents[0].epoch
            await disturb(scene)
            logs = list(await asyncio.gather(*running))
            if other is not None and not other.done():
                other.cancel()
            for link in links:
                await link.close()
            return scene, logs

    with serving(folder, "--blocks", str(BLOCKS), "--wait", "90") as fleet:
        start(fleet)
        scene, logs = asyncio.run(main(fleet))
        server = fleet.processes["server"]
        alive = server.poll() is None or server.returncode == 0
        if alive:
            fleet.wait(lambda: server.poll() is not None, 60.0, "the end of the run")
        served = fleet.document("server") if alive else None
        scene.seen["finished"] = finish(fleet)
    for log in logs:
        check_tasks(log)
    return scene, logs, served


def check_tasks(log: AgentLog) -> None:
    """Every task has ended, once; no block is missing."""
    assert sorted(task.number for task in log.tasks) == list(range(len(log.tasks)))
    assert {task.outcome for task in log.tasks} <= {ANSWERED, LOCAL, FINISHED_HERE, WAITING}
    assert all(np.isfinite(task.answered) for task in log.tasks if task.outcome != WAITING)
    assert len(log.records) == BLOCKS


def alone(log: AgentLog, broke_s: float) -> float:
    """How long after something broke the device works alone [s]."""
    return log.alone[0] * BLOCK_S - broke_s


def back(log: AgentLog, whole_s: float) -> float:
    """How long after it was whole again the device decides with the server again [s]."""
    return (log.alone[-1] + 1) * BLOCK_S - whole_s


def tell(name: str, logs: list[AgentLog], **figures: float) -> None:
    """Print the figures of a test."""
    ended = Counter(task.outcome for log in logs for task in log.tasks)
    sent = ended[ANSWERED] + ended[FINISHED_HERE]
    numbers = "".join(f", {word.replace('_', ' ')} {value:.1f} s" for word, value in figures.items())
    print(f"\n{name}: {sent} tasks sent, {ended[ANSWERED]} answered, {ended[FINISHED_HERE]} finished here{numbers}")


def check_server(logs: list[AgentLog], served: dict[str, Any] | None, may_ask_again: bool = False) -> None:
    """The server has answered all that it has received, and each device that waited has its answer.

    may_ask_again  whether a connection was cut, over which a device may have sent a task: it asks for its answer again
    """
    assert served is not None
    print(f"received again: {served['tasks']['duplicates']}")
    assert may_ask_again or served["tasks"]["duplicates"] == 0
    answered = sum(task.outcome == ANSWERED for log in logs for task in log.tasks)
    assert answered <= served["tasks"]["answered"] == served["tasks"]["received"]


def test_a_server_that_is_killed(tmp_path: Path):
    async def disturb(scene: Scene) -> None:
        scene.seen["broke"] = await scene.middle_of(BREAKS)
        scene.fleet.processes["server"].kill()

    scene, logs, _ = played(tmp_path, disturb)
    times = [alone(log, scene.seen["broke"]) for log in logs]
    tell("server killed", logs, alone_after=max(times))
    assert max(times) < (ALONE_AFTER + 3 + SLACK) * BLOCK_S
    for log in logs:
        assert log.alone[-1] == BLOCKS - 1
        after = [task for task in log.tasks if task.begun > (log.alone[0] + 1) * BLOCK_S]
        assert {task.outcome for task in after} <= {LOCAL, WAITING}
        here = [task for task in log.tasks if task.outcome == FINISHED_HERE]
        assert all(task.answered - task.sent < (LEASE_BLOCKS + SLACK) * BLOCK_S for task in here)


def test_a_server_that_is_started_again(tmp_path: Path):
    """It begins another run. A device of the older one ends, and says why."""

    def serve(fleet: Fleet, bind: str) -> None:
        fleet.start("server", "serve", "--bind", bind, "--set", "devices=1", "--blocks", "400", "--wait", "90")
        fleet.wait(lambda: fleet.listening() != "", START_S, "starting the server")

    fleet = Fleet(tmp_path)
    try:
        serve(fleet, "127.0.0.1:0")
        target = fleet.listening()
        fleet.start("device", "join", target)
        fleet.wait(lambda: "the run begins" in (tmp_path / "server.out").read_text(), START_S, "the run")
        time.sleep(BREAKS * BLOCK_S)
        fleet.processes["server"].kill()
        fleet.processes["server"].wait()
        serve(fleet, target)
        began, device = time.monotonic(), fleet.processes["device"]
        assert device.wait(timeout=60) == 2
        took = time.monotonic() - began
    finally:
        for process in fleet.processes.values():
            process.kill()
            process.wait()
    print(f"\nserver started again: the device of the older run ends {took:.1f} s after it listens")
    said = (tmp_path / "device.err").read_text().strip().splitlines()[-1]
    assert said == f"partway: {target}: the server has begun another run; join again to take part in it"
    document = json.loads((tmp_path / "device.json").read_text())["devices"][0]
    assert document["tasks"]
    assert took < (MAX_PAUSE_BLOCKS + LEASE_BLOCKS + SLACK) * BLOCK_S + 3  # and what a process takes to end


def test_a_server_that_is_frozen_for_five_seconds(tmp_path: Path):
    async def disturb(scene: Scene) -> None:
        scene.seen["broke"] = await scene.middle_of(BREAKS)
        scene.fleet.processes["server"].send_signal(signal.SIGSTOP)
        scene.seen["whole"] = await scene.middle_of(WHOLE)
        scene.fleet.processes["server"].send_signal(signal.SIGCONT)

    scene, logs, served = played(tmp_path, disturb)
    alone_s = max(alone(log, scene.seen["broke"]) for log in logs)
    back_s = max(back(log, scene.seen["whole"]) for log in logs)
    tell("server frozen", logs, alone_after=alone_s, back_after=back_s)
    check_server(logs, served)
    assert alone_s < (ALONE_AFTER + 3 + SLACK) * BLOCK_S
    assert back_s < (MAX_PAUSE_BLOCKS + 4 + SLACK) * BLOCK_S
    assert any(
        task.outcome == ANSWERED and task.begun > scene.seen["whole"] + back_s for log in logs for task in log.tasks
    )


@pytest.mark.parametrize("how", ["stalls", "is cut"])
def test_a_cable_that_breaks_and_is_whole_again(how: str, tmp_path: Path):
    async def disturb(scene: Scene) -> None:
        scene.seen["broke"] = await scene.middle_of(BREAKS)
        (scene.cable.stall if how == "stalls" else scene.cable.cut)()
        scene.seen["whole"] = await scene.middle_of(WHOLE)
        scene.cable.mend()

    scene, logs, served = played(tmp_path, disturb)
    own = logs[-1]
    alone_s, back_s = alone(own, scene.seen["broke"]), back(own, scene.seen["whole"])
    tell(f"cable {how}", [own], alone_after=alone_s, back_after=back_s)
    check_server(logs, served, may_ask_again=how == "is cut")
    assert [log.alone for log in logs[:-1]] == [[], [], []]
    assert alone_s < (ALONE_AFTER + 3 + SLACK) * BLOCK_S
    assert back_s < (MAX_PAUSE_BLOCKS + 4 + SLACK) * BLOCK_S
    # nothing is sent while the device is alone
    begun = [task for task in own.tasks if (own.alone[0] + 1) * BLOCK_S < task.begun < own.alone[-1] * BLOCK_S]
    assert {task.outcome for task in begun} == {LOCAL}


def test_a_device_that_is_killed(tmp_path: Path):
    """The others notice nothing; its place is free after a lease."""

    async def disturb(scene: Scene) -> None:
        scene.seen["broke"] = await scene.middle_of(BREAKS)
        victim = scene.fleet.processes.pop("victim")
        victim.kill()
        victim.wait()
        link = GrpcLink(scene.fleet.target)
        async with asyncio.timeout(60):
            while "free" not in scene.seen:
                with contextlib.suppress(Refused):
                    await link.register(RegisterRequest(3))
                    scene.seen["free"] = now() - scene.epoch
                await asyncio.sleep(0.1)
        await link.close()

    def start(fleet: Fleet) -> None:
        fleet.start("victim", "join", fleet.target, "--device", "3")

    scene, logs, served = played(tmp_path, disturb, here=3, start=start)
    free_s = scene.seen["free"] - scene.seen["broke"]
    tell("device killed", logs, its_place_free_after=free_s)
    check_server(logs, served)
    assert [log.alone for log in logs] == [[], [], []]
    assert (LEASE_BLOCKS - 3) * BLOCK_S < free_s < (LEASE_BLOCKS + 4 + SLACK) * BLOCK_S
    assert served is not None
    assert len(served["metrics"]["device_queue"]) == BLOCKS


def test_a_device_that_does_not_read(tmp_path: Path):
    """It reports every block and reads nothing after the first block's time: when gRPC's buffers are full, MAX_NEWS
    broadcasts wait for it, and then its session ends. The others notice nothing, and it can join again at once."""

    async def beside(scene: Scene) -> None:
        small = (("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0))
        async with grpc.aio.insecure_channel(scene.fleet.target, options=(*CLIENT_OPTIONS, *small)) as channel:
            register, infer = channel.unary_unary(REGISTER), channel.unary_unary(INFER)
            reply = await register(codec.write_register(RegisterRequest(3)), timeout=30.0)
            session = codec.read_registered(reply).session
            stream = channel.stream_stream(ATTEND)()
            await stream.write(codec.write_report(Report(session, 0, 0.0)))
            start = codec.read_news(await stream.read())
            assert isinstance(start, Start)
            began = now() + start.in_s
            for block in range(1, BLOCKS):
                await sleep_until(began + block * BLOCK_S)
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await stream.write(codec.write_report(Report(session, block, 0.0)))
                try:  # no block has this number: the server says whether it knows the session
                    await infer(tensors.write_infer(InferRequest(session, 0, 10**6, 0.5)), timeout=2.0)
                except grpc.aio.AioRpcError as error:
                    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                        scene.seen["ended"] = now() - began
                        break
            stream.cancel()
            joined = codec.read_registered(await register(codec.write_register(RegisterRequest(3)), timeout=30.0))
            stream = channel.stream_stream(ATTEND)()
            await stream.write(codec.write_report(Report(joined.session, 0, 0.0)))
            assert isinstance(codec.read_news(await stream.read()), Start)
            scene.seen["back"] = now() - began - scene.seen["ended"]

    async def disturb(scene: Scene) -> None:
        scene.seen["broke"] = 0.0

    scene, logs, served = played(tmp_path, disturb, here=3, beside=beside)
    tell("a device does not read", logs, its_session_ends_after=scene.seen["ended"], back_after=scene.seen["back"])
    check_server(logs, served)
    assert [log.alone for log in logs] == [[], [], []]
    assert MAX_NEWS * BLOCK_S - 1 < scene.seen["ended"] < (BLOCKS - 1) * BLOCK_S
    assert scene.seen["back"] < SLACK * BLOCK_S


def test_a_client_whose_messages_are_refused(tmp_path: Path):
    """In every block it has another version and another network, sends too large a message and bytes that are none, a
    task without its tensors and a queue that is no number. The others notice nothing."""
    refusals, took = defaultdict[str, Counter[str]](Counter), list[float]()

    async def beside(scene: Scene) -> None:
        link, begun, block = GrpcLink(scene.fleet.target), asyncio.Event(), 0
        session = (await link.register(RegisterRequest(3))).session

        async def reports() -> AsyncIterator[Report]:
            yield Report(session, 0, 0.0)
            await begun.wait()
            yield Report(session, block, 0.0)  # a true one, so that it keeps its session
            yield Report(session, block, math.nan)

        async def attend() -> None:
            async for news in link.attend(reports()):
                if isinstance(news, Start):
                    begun.set()

        wrong: dict[str, Callable[[], Awaitable[Any]]] = {
            "another version": lambda: link.register(RegisterRequest(version=99)),
            "another network": lambda: link.register(RegisterRequest(model_sha256="0" * 64)),
            "too large": lambda: link._called(link._infer, bytes(4 * MAX_CONTROL_BYTES), 5.0),
            "not a message": lambda: link._called(link._infer, b"\xff\xff", 5.0),
            "no tensors": lambda: link.infer(InferRequest(session, 0, block, 0.5, "cut-3"), 5.0),
            "not a number": attend,
        }
        with contextlib.suppress(Refused):
            await attend()
        while not scene.epoch:
            await asyncio.sleep(0.05)
        await scene.middle_of(0)
        while (block := int((now() - scene.epoch) / BLOCK_S)) < BLOCKS - 3:
            for name, call in wrong.items():
                began = now()
                try:
                    await call()
                except Refused as refused:
                    refusals[name][refused.code] += 1
                    took.append(now() - began)
            await scene.middle_of(block + 1)
        await link.close()

    async def disturb(scene: Scene) -> None:
        del scene

    _, logs, served = played(tmp_path, disturb, here=3, beside=beside)
    tell("messages that are refused", logs)
    print(f"{len(took)} refused, the reason after {1e3 * np.median(took):.0f} ms (median): {dict(refusals)}")
    check_server(logs, served)
    assert [log.alone for log in logs] == [[], [], []]
    assert {name: set(codes) for name, codes in refusals.items()} == {
        "another version": {"FAILED_PRECONDITION"},
        "another network": {"FAILED_PRECONDITION"},
        "too large": {"RESOURCE_EXHAUSTED"},
        "not a message": {"INVALID_ARGUMENT"},
        "no tensors": {"INVALID_ARGUMENT"},
        "not a number": {"INVALID_ARGUMENT"},
    }
    assert len({codes.total() for codes in refusals.values()}) == 1  # none was accepted
    assert len(took) > 6 * BLOCKS / 3


def test_a_device_whose_clock_jumps(tmp_path: Path):
    """A device is frozen for five seconds, as by a machine that sleeps; then it is behind by twenty blocks."""

    async def disturb(scene: Scene) -> None:
        victim = scene.fleet.processes["victim"]
        scene.seen["broke"] = await scene.middle_of(BREAKS)
        victim.send_signal(signal.SIGSTOP)
        scene.seen["whole"] = await scene.middle_of(WHOLE)
        victim.send_signal(signal.SIGCONT)

    def start(fleet: Fleet) -> None:
        fleet.start("victim", "join", fleet.target, "--device", "3")

    def finish(fleet: Fleet) -> dict[str, Any]:
        ended(fleet, "victim", within_s=60)
        return fleet.document("victim")["devices"][0]

    scene, logs, served = played(tmp_path, disturb, here=3, start=start, finish=finish)
    victim = scene.seen["finished"]
    counted = outcomes([victim])
    back_s = (max(victim["alone"], default=WHOLE) + 1) * BLOCK_S - scene.seen["whole"]
    print(
        f"\nclock jumped: {counted[ANSWERED] + counted[FINISHED_HERE]} tasks sent, {counted[ANSWERED]} answered, "
        f"{counted[FINISHED_HERE]} finished here; back after {back_s:.1f} s"
    )
    check_server(logs, served)
    assert [log.alone for log in logs] == [[], [], []]
    assert back_s < (MAX_PAUSE_BLOCKS + 4 + SLACK) * BLOCK_S
    assert max(victim["late_s"]) > (WHOLE - BREAKS - 1) * BLOCK_S
    assert np.median(victim["late_s"][-10:]) < 0.2
    later = [task for task in tasks_of(victim) if task.begun > scene.seen["whole"] + back_s]
    assert any(task.outcome == ANSWERED for task in later)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc/mounts").exists(), reason="only root can make a small disk")
def test_a_disk_that_is_full(tmp_path: Path):
    """Events of the server, and what it leaves at the end, are on a disk of 32 KiB: the run goes on, and it says so."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)], check=True)
    try:
        saved = ["--events", str(disk / "events.jsonl"), "--save", str(disk / "learned.npz")]
        with serving(tmp_path, "--blocks", "60", *saved) as fleet:
            fleet.start("devices", "join", fleet.target, "--device", "0", "--count", "4")
            server, devices = fleet.processes.pop("server"), fleet.processes["devices"]
            end = time.monotonic() + 120
            while (server.poll() is None or devices.poll() is None) and time.monotonic() < end:
                time.sleep(0.1)
            assert (server.returncode, devices.returncode) == (2, 0)
            said = (tmp_path / "server.err").read_text()
            counted = outcomes(devices_of(fleet, "devices"))
        assert not (disk / "learned.npz").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    print(f"\nfull disk: {counted[ANSWERED]} tasks answered, {counted[FINISHED_HERE]} finished here")
    assert "the last events could not be written (No space left on device)" in said
    assert "--save" in said.strip().splitlines()[-1]
    table = (tmp_path / "server.out").read_text()
    assert "cost per block" in table  # printed before it is written
    assert (counted[ANSWERED] > 10, counted[FINISHED_HERE]) == (True, 0)
    document = json.loads((tmp_path / "server.json").read_text())
    assert document["tasks"]["answered"] == document["tasks"]["received"] == counted[ANSWERED]
    assert document["tasks"]["duplicates"] == 0


def test_what_a_killed_process_leaves_goes_with_the_folder_of_its_fleet(tmp_path: Path):
    with serving(tmp_path, "--set", "devices=1", "--blocks", "10") as fleet:
        said = (tmp_path / "server.out").read_text()
        assert list(tmp_path.glob("partway-live-*")) != []  # the network, while it runs
    assert said.startswith(f"listening at {fleet.target} for 1 device\n")
    assert list(tmp_path.glob("partway-live-*")) != []
