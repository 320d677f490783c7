"""Hostile peers of a live server: what they send over gRPC and over raw sockets, while honest devices run.

python -m fuzz.hostile                       100,000 messages to a server that two honest devices use; minutes
python -m fuzz.hostile --messages 2000       for a first look
python -m fuzz.hostile --flood               valid messages of a device that has joined, as fast as they are taken

Every message is made from the seed and its number. Prints how they were answered, the server's memory before and after,
and how the tasks of the honest devices ended; exit code 1 where something happened that must not.
"""

import argparse
import asyncio
import contextlib
import gzip
import math
import random
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np

from fuzz.counts import chosen
from partway.live import codec, tensors
from partway.live.documents import tasks_of
from partway.live.grpc_client import UNWRITTEN
from partway.live.grpc_server import ATTEND, CONTROL, INFER, INFERENCE, LEAVE, LIVE, REGISTER
from partway.live.messages import BlockRecord, InferRequest, LeaveRequest, RegisterRequest, Report
from partway.live.processes import START_S, serving
from partway.live.proto import control_pb2 as wire
from partway.live.proto import open_inference_pb2 as inference
from partway.live.tasks import ANSWERED, LOCAL, WAITING

MESSAGES, PARTIES, SILENT = 100_000, 8, 50
"""Messages, how many are on their way at a time, and connections that are opened and say nothing."""
OWN = (("grpc.use_local_subchannel_pool", 1),)
"""A channel with a connection of its own."""
HONEST, PLACE = 2, 3
"""Honest devices, and the place that the hostile one has joined in."""
BLOCKS, BLOCK_S = 1000, 0.25
"""Of the run around the attack: four minutes."""
MOST_MIB = 100.0
"""By which the server's memory may grow."""
WITHIN_S, LISTEN_S = 2.0, 0.005
"""How long a call may take, and how long a raw connection waits for an answer [s]."""
FAULTS = ("UNKNOWN", "INTERNAL", "ABORTED", "DATA_LOSS")
"""Status codes that no rule of the protocol leads to."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, CONTINUATION = 0, 1, 4, 9
END_HEADERS = 4
BOMB = gzip.compress(bytes(60 * 2**20), 9)
"""60 KiB that become 60 MiB, within the 64 KiB that may be sent without being asked for."""


NOBODY = "nobody"
"""A session that no server has given."""


@dataclass
class Attack:
    """What a hostile device knows: where the server is, and a session that it was given. `counted`: answers by kind."""

    target: str
    session: str = NOBODY
    block: int = 0
    task: int = 0
    counted: Counter[str] = field(default_factory=Counter[str])

    def joining(self) -> bytes:
        """The message by which it joins, or comes back with the session that it has."""
        own = "" if self.session == NOBODY else self.session
        return codec.write_register(RegisterRequest(PLACE, session=own))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.target.rpartition(":")
        return host, int(port)


# Messages over gRPC: method and bytes


def garbage(rng: random.Random, attack: Attack) -> tuple[str, bytes]:
    """Random bytes to any method, also to those that there are not."""
    del attack
    others = [f"/{CONTROL}/Obey", f"/{INFERENCE}/ModelMetadata", f"/{INFERENCE}/ModelReady", "/", "/a/b"]
    return rng.choice([REGISTER, LEAVE, INFER, LIVE, ATTEND, *others]), rng.randbytes(rng.randrange(400))


def damaged(rng: random.Random, attack: Attack) -> tuple[str, bytes]:
    """A valid message with bytes changed, lost, repeated or added."""
    method, data = rng.choice([_register, _report, _infer, _leave])(attack)
    body = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(4):
            case 0 if at < len(body):
                body[at] = rng.randrange(256)
            case 1:
                del body[at : at + rng.randint(1, 20)]
            case 2:
                body[at:at] = body[: rng.randrange(200)]
            case _:
                body[at:at] = rng.randbytes(rng.randint(1, 20))
    return method, bytes(body)


def poison(rng: random.Random, attack: Attack) -> tuple[str, bytes]:
    """A report that is well formed, with a number that would spoil a memory."""
    report = wire.Report.FromString(_report(attack)[1])
    record = rng.choice([report, report.last])
    names = [one.name for one in record.DESCRIPTOR.fields if one.type == one.TYPE_DOUBLE]
    bad = [math.nan, math.inf, -math.inf, -1.0, 0.5, 1e300, 2.0**52, 5e-324, -0.0, 0.0]
    setattr(record, rng.choice(names), rng.choice(bad))
    report.block = rng.choice([attack.block, attack.block + 1, 0, 2**32 - 1, 2**63])
    return ATTEND, report.SerializeToString()


def unfit(rng: random.Random, attack: Attack) -> tuple[str, bytes]:
    """A task with a tensor, a model, a block or a share that does not fit."""
    message = inference.ModelInferRequest.FromString(_infer(attack)[1])
    match rng.randrange(8):
        case 0:
            message.model_name = rng.choice(["cut-99", "../../etc/passwd", "cut-0\0", "", "x" * 5000])
        case 1:
            message.inputs[0].datatype = rng.choice(["FP32", "BYTES", "INT64", ""])
        case 2:
            message.inputs[0].shape[0] = rng.choice([-1, 0, 2, 2**40, 2**62, -(2**63)])
        case 3:
            message.inputs[0].shape.extend([rng.choice([0, 1, 2**32])] * rng.randint(1, 400))
        case 4:
            message.parameters["partway_block"].int64_param = rng.choice([-1, 10**6, 2**32, 2**63 - 1])
        case 5:
            message.parameters["partway_offload"].double_param = rng.choice([math.nan, math.inf, -0.1, 1.1])
        case 6:
            message.raw_input_contents[0] = rng.randbytes(rng.choice([0, 1, 3071, 3073, 200_000]))
        case _:
            message.inputs.add(name="more", datatype="FP16", shape=[2])
            message.raw_input_contents.append(struct.pack("<2e", math.nan, math.inf))
    return INFER, message.SerializeToString()


def stranger(rng: random.Random, attack: Attack) -> tuple[str, bytes]:
    """A message in another device's name, or of another version, network or scenario."""
    session = rng.choice([NOBODY, attack.session[:-1], attack.session + "0", f"{rng.getrandbits(128):032x}", ""])
    mine = Attack(attack.target, session, attack.block, attack.task)
    requests = [RegisterRequest(0), RegisterRequest(1, session=session), RegisterRequest(2**32 - 1)]
    requests += [RegisterRequest(version=2**32 - 1), RegisterRequest(model_sha256="0" * 64)]
    registers = [(REGISTER, codec.write_register(request)) for request in requests]
    return rng.choice([*registers, _report(mine), _infer(mine), _leave(mine)])


def replay(rng: random.Random, attack: Attack) -> tuple[str, bytes]:
    """A task that is right, asked for again, or one more in a block that has one."""
    return _infer(Attack(attack.target, attack.session, attack.block, rng.randrange(attack.task + 2)))


def huge(rng: random.Random, attack: Attack) -> tuple[str, bytes]:
    """More than any message may have."""
    del attack
    return rng.choice([REGISTER, LEAVE, INFER, ATTEND]), bytes(rng.choice([2**20 + 10_000, 5 * 2**20]))


def _register(attack: Attack) -> tuple[str, bytes]:
    return REGISTER, codec.write_register(RegisterRequest(PLACE, "a" * 64, "b" * 64, session=NOBODY))


def _report(attack: Attack) -> tuple[str, bytes]:
    record = BlockRecord(1.0, 0.25, 1.0, 0.5, math.nan, 1e-3, 0.125, math.nan, 0b10010)
    return ATTEND, codec.write_report(Report(attack.session, attack.block, 2.0, record))


def _infer(attack: Attack) -> tuple[str, bytes]:
    image = np.zeros((1, 3, 32, 32), np.uint8)
    request = InferRequest(attack.session, attack.task, attack.block, 1.0, "cut-0", {"image": image})
    return INFER, tensors.write_infer(request)


def _leave(attack: Attack) -> tuple[str, bytes]:
    return LEAVE, codec.write_leave(LeaveRequest("nobody"))


OVER_GRPC: dict[Callable[[random.Random, Attack], tuple[str, bytes]], int] = {
    garbage: 20,
    damaged: 30,
    poison: 10,
    unfit: 10,
    stranger: 10,
    replay: 5,
    huge: 1,
}
"""Kinds of messages over gRPC, and how often each comes."""

# Bytes over raw sockets


def noise(rng: random.Random) -> bytes:
    """Random bytes, and the beginnings of other protocols."""
    openings = [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        PREFACE[:-3],
    ]
    return rng.choice(openings) + rng.randbytes(rng.randrange(2000))


def frames(rng: random.Random) -> bytes:
    """The preface of HTTP/2, then frames of any kind, some with a length that is a lie."""
    made = [PREFACE, frame(SETTINGS)]
    for _ in range(rng.randint(1, 30)):
        body = rng.randbytes(rng.randrange(60))
        length = rng.choice([len(body)] * 8 + [2**24 - 1, 0])
        made.append(frame(rng.randrange(12), rng.randrange(256), rng.choice([0, 1, 3, 2**31 - 1]), body, length))
    return b"".join(made)


def after_preface(rng: random.Random) -> bytes:
    """The preface, then random bytes."""
    return PREFACE + rng.choice([b"", frame(SETTINGS)]) + rng.randbytes(rng.randrange(2000))


def call(rng: random.Random) -> bytes:
    """A call that begins as it should, and then promises a message of gigabytes, or headers without an end."""
    path = rng.choice([REGISTER, INFER, ATTEND])
    named = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a", "te": "trailers"}
    block = b"".join(literal(name, value) for name, value in {**named, "content-type": "application/grpc"}.items())
    made = [PREFACE, frame(SETTINGS)]
    if rng.random() < 0.3:
        more = [frame(CONTINUATION, 0, 1, literal(f"x-{i}", "y" * 120) * 50) for i in range(20)]
        return b"".join([*made, frame(HEADERS, 0, 1, block), *more])
    size = rng.choice([2**32 - 1, 2**31, 10**6, 5])
    body = struct.pack(">BI", rng.choice([0, 1, 7]), size) + rng.randbytes(rng.randrange(5000))
    return b"".join([*made, frame(HEADERS, END_HEADERS, 1, block), frame(DATA, 0, 1, body)])


def bomb(rng: random.Random) -> bytes:
    """A message that is small until it is decompressed."""
    named = {":method": "POST", ":scheme": "http", ":path": rng.choice([REGISTER, INFER, ATTEND]), ":authority": "a"}
    named |= {"te": "trailers", "content-type": "application/grpc", "grpc-encoding": "gzip"}
    body = struct.pack(">BI", 1, len(BOMB)) + BOMB
    made = [
        PREFACE,
        frame(SETTINGS),
        frame(HEADERS, END_HEADERS, 1, b"".join(literal(*pair) for pair in named.items())),
    ]
    return b"".join([*made, *(frame(DATA, 0, 1, body[i : i + 2**14]) for i in range(0, len(body), 2**14))])


def frame(kind: int, flags: int = 0, stream: int = 0, body: bytes = b"", length: int | None = None) -> bytes:
    """A frame of HTTP/2."""
    return (
        struct.pack(">I", len(body) if length is None else length)[1:] + struct.pack(">BBI", kind, flags, stream) + body
    )


def literal(name: str, value: str) -> bytes:
    """A header that is not indexed and not compressed (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


RAW: dict[Callable[[random.Random], bytes], int] = {noise: 10, frames: 10, after_preface: 10, call: 10, bomb: 1}
"""Kinds of what is sent over raw sockets, and how often each comes."""

# The attack


async def attacked(attack: Attack, messages: int, seed: int, parties: int = PARTIES) -> None:
    """Send so many messages, half of them over raw sockets, several at a time; count how they are answered."""
    channels = [grpc.aio.insecure_channel(attack.target, options=OWN) for _ in range(2)]
    numbers = iter(range(messages))
    silent = [await asyncio.open_connection(*attack.address) for _ in range(min(SILENT, messages))]

    async def party() -> None:
        for number in numbers:
            rng = chosen(("hostile", seed, number))
            sending = _raw(attack, rng) if number % 2 else _called(attack, channels[number // 2 % 2], rng)
            attack.counted[await sending] += 1

    try:
        await asyncio.gather(*(party() for _ in range(parties)))
    finally:
        for _, writer in silent:
            writer.close()
        for channel in channels:
            await channel.close()


async def flooded(attack: Attack, messages: int, seed: int) -> None:
    """Send so many valid messages of a device that has joined, as fast as the server takes them: registrations, and
    reports on streams; count the reports that were sent, and how the calls are answered."""
    del seed
    async with grpc.aio.insecure_channel(attack.target, options=OWN) as channel:
        while attack.counted.total() < messages:
            try:
                reply = codec.read_registered(await channel.unary_unary(REGISTER)(attack.joining(), timeout=WITHIN_S))
            except grpc.aio.AioRpcError as error:
                attack.counted[_named(error.code(), error.details())] += 1
                continue
            attack.counted["OK"] += 1
            attack.session = reply.session
            report = codec.write_report(Report(reply.session, attack.block, 0.0))
            stream = channel.stream_stream(ATTEND)()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                while attack.counted.total() < messages:
                    await stream.write(report)
                    attack.counted["a report"] += 1
            stream.cancel()
            attack.counted[_named(await stream.code(), await stream.details())] += 1


async def joining(attack: Attack) -> None:
    """Join as an honest device would, for a session that passes the first check; again and again."""
    async with grpc.aio.insecure_channel(attack.target, options=OWN) as channel:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                reply = codec.read_registered(await channel.unary_unary(REGISTER)(attack.joining(), timeout=WITHIN_S))
                attack.session = reply.session
                stream = channel.stream_stream(ATTEND)()
                await stream.write(codec.write_report(Report(reply.session, 0, 0.0)))
                async for data in stream:
                    attack.block, attack.task = codec.read_news(data).block, attack.task + 1
            await asyncio.sleep(0.5)


async def _called(attack: Attack, channel: Any, rng: random.Random) -> str:
    """How a call ends: by the name of its status code."""
    kind = rng.choices(list(OVER_GRPC), list(OVER_GRPC.values()))[0]
    method, data = kind(rng, attack)
    within_s = 0.2 if kind is replay else WITHIN_S  # an answer comes blocks later; the call is over before
    try:
        if method == ATTEND:
            return await _streamed(channel, attack, data, greeted=rng.random() < 0.5)
        await channel.unary_unary(method)(data, timeout=within_s)
    except grpc.aio.AioRpcError as error:
        return _named(error.code(), error.details())
    return "OK"


def _named(code: Any, details: str | None) -> str:
    """A status by its name; one of FAULTS with its details."""
    if details == UNWRITTEN:
        return "ended before all was written"
    return f"{code.name} ({details})" if code.name in FAULTS else code.name


async def _streamed(channel: Any, attack: Attack, data: bytes, greeted: bool) -> str:
    """A stream whose greeting or first report is hostile."""

    async def sent() -> AsyncIterator[bytes]:
        if greeted:
            yield codec.write_report(Report(attack.session, 0, 0.0))
        yield data

    stream = channel.stream_stream(ATTEND)(sent(), timeout=0.5)
    async for _ in stream:
        pass
    return _named(await stream.code(), await stream.details())


async def _raw(attack: Attack, rng: random.Random) -> str:
    """What a raw connection sees: it is closed, or left open for a while at least."""
    reader, writer = await asyncio.open_connection(*attack.address)
    try:
        writer.write(rng.choices(list(RAW), list(RAW.values()))[0](rng))
        async with asyncio.timeout(LISTEN_S):
            while await reader.read(4096):
                pass
        return "raw: closed"
    except TimeoutError:
        return "raw: left open"
    except OSError:
        return "raw: reset"
    finally:
        writer.close()


def unforeseen(counted: Counter[str]) -> list[str]:
    """The answers of a server in which an error was raised that nobody had thought of."""
    return [f"{count} times {name}" for name, count in counted.items() if name.startswith(FAULTS)]


# Around it: a server, and honest devices


def memory_mib(pid: int) -> tuple[float, float]:
    """What a process has in memory, and the most that it had [MiB]."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    numbers = {
        name: float(rest.split()[0]) / 1024
        for name, _, rest in (line.partition(":") for line in lines)
        if rest.endswith(" kB")
    }
    return numbers["VmRSS"], numbers["VmHWM"]


@dataclass(frozen=True)
class Outcome:
    """What an attack has led to.

    counted             answers by kind       before, after, most  the server's memory [MiB]
    tasks, once         how the tasks of honest devices ended, and whether each did once
    alone, misses       blocks in which honest devices worked alone, or lacked the broadcast that was due
    received, answered  tasks at the server   said                 the end of what it wrote on standard error
    """

    counted: Counter[str]
    seconds: float
    before: float
    after: float
    most: float
    tasks: Counter[str]
    once: bool
    alone: int
    misses: int
    received: int
    answered: int
    said: str

    def faults(self) -> list[str]:
        """What has happened that must not."""
        found = unforeseen(self.counted)
        if self.most - self.before > MOST_MIB:
            found.append(f"the server's memory has grown by {self.most - self.before:.0f} MiB")
        if not self.once or set(self.tasks) - {ANSWERED, LOCAL, WAITING} or not self.tasks[ANSWERED]:
            found.append(f"tasks of honest devices have ended as {dict(self.tasks)}")
        if self.alone:
            found.append(f"honest devices have worked alone for {self.alone} blocks")
        if self.said:
            found.append(f"the server has said {self.said!r}")
        return found

    def table(self) -> str:
        """All numbers."""
        answers = ", ".join(f"{name} {count}" for name, count in self.counted.most_common())
        ended = ", ".join(f"{name} {count}" for name, count in self.tasks.most_common())
        return "\n".join(
            [
                f"{self.counted.total()} messages in {self.seconds:.0f} s: {answers}",
                f"server's memory: {self.before:.0f} MiB before, {self.after:.0f} after, {self.most:.0f} at most",
                f"{HONEST} honest devices: {ended}; {self.misses} broadcasts too late, {self.alone} blocks alone",
                f"tasks at the server: received {self.received}, answered {self.answered}",
                f"faults: {'; '.join(self.faults()) or 'none'}",
            ]
        )


Assault = Callable[[Attack, int, int], Awaitable[None]]
"""Sends so many messages, made from a seed."""


def besieged(messages: int, seed: int, blocks: int, folder: Path, assault: Assault = attacked) -> Outcome:
    """Attack a server while honest devices run, and wait until their run has ended."""
    with serving(folder, "--blocks", str(blocks), "--wait", "10") as fleet:
        fleet.start("honest", "join", fleet.target, "--device", "0", "--count", str(HONEST))
        attack, pid = Attack(fleet.target), fleet.processes["server"].pid
        started = len((folder / "server.err").read_text("utf-8", "replace"))  # its progress while it prepared the run

        async def main() -> tuple[float, float]:
            joined = asyncio.create_task(joining(attack))
            while not attack.block:
                fleet.check("server")
                await asyncio.sleep(0.1)
            before, began = memory_mib(pid)[0], asyncio.get_running_loop().time()
            if assault is flooded:  # it joins by itself
                joined.cancel()
            await assault(attack, messages, seed)
            joined.cancel()
            return before, asyncio.get_running_loop().time() - began

        before, seconds = asyncio.run(main())
        after, most = memory_mib(pid)
        within_s = START_S + blocks * BLOCK_S * 1.2
        fleet.wait(lambda: all(one.poll() is not None for one in fleet.processes.values()), within_s, "the run")
        served, devices = fleet.document("server"), fleet.document("honest")["devices"]
        tasks = [tasks_of(device) for device in devices]
        return Outcome(
            counted=attack.counted,
            seconds=seconds,
            before=before,
            after=after,
            most=most,
            tasks=Counter(task.outcome for own in tasks for task in own),
            once=all(sorted(task.number for task in own) == list(range(len(own))) for own in tasks),
            alone=sum(len(device["alone"]) for device in devices),
            misses=sum(device["misses"] for device in devices),
            received=served["tasks"]["received"],
            answered=served["tasks"]["answered"],
            said=(folder / "server.err").read_text("utf-8", "replace")[started:].strip()[-300:],
        )


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 where there are faults."""
    parser = argparse.ArgumentParser(
        "python -m fuzz.hostile", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of the run around the attack")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flood", action="store_true", help="valid messages of one device, as fast as possible")
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="fuzz-") as name:
        assault = flooded if options.flood else attacked
        outcome = besieged(options.messages, options.seed, options.blocks, Path(name), assault)
    print(outcome.table())
    return int(bool(outcome.faults()))


if __name__ == "__main__":
    sys.exit(main())
