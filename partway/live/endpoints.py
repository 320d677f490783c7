"""A server and a device, each as a process of its own: where they listen and connect, and what they leave."""

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import replace

import grpc
import jax

from partway.bound.certificate import Certificate
from partway.errors import InputError, shown
from partway.live.accounts import metrics
from partway.live.agent import Agent, AgentLog, MakeWorkload, synthetic
from partway.live.clock import now
from partway.live.cpu import Cpu
from partway.live.engine import Engine
from partway.live.events import Event, Listener, silent
from partway.live.grpc_client import SPEAKS_TLS, GrpcLink
from partway.live.grpc_server import NO_TOKEN, GrpcServer
from partway.live.messages import MessageError, Refused, RegisterReply, RegisterRequest
from partway.live.plan import LivePlan
from partway.live.service import BlockEnded, Service
from partway.live.workload import Workload
from partway.measurement.checkpoint import Checkpoint
from partway.measurement.metrics import BlockMetrics

RETRY_S, MAX_RETRY_S = 0.2, 3.0
"""How long a device waits before it tries again to reach a server [s]: twice as long each time, up to the second."""
UNREACHABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
FINAL = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid": "its certificate is not valid yet; is the time right on both machines?",
    "CERTIFICATE_VERIFY_FAILED": "no CA of --tls-ca has signed its certificate",
    "Hostname Verification Check failed": "its certificate is for another name",
    "WRONG_VERSION_NUMBER": "it does not speak TLS, which --tls-ca asks for",
    SPEAKS_TLS: "it speaks TLS, give --tls-ca",
}
"""Errors of a link that do not end by waiting, and their meaning: of those that fit the first one counts."""
WORDS = FINAL | {
    "Connection refused": "nothing listens there",
    "lookup failed": "no machine is known by this name",
    "Socket closed": "it closes the connection; with --tls-client-ca it asks for --tls-cert and --tls-key",
}


def use_precision(precision: str) -> None:
    """Set JAX to the precision of a run, in all threads of this process."""
    jax.config.update("jax_enable_x64", precision == "float64")


def compute_in_the_calling_thread() -> None:
    """Have JAX run a program in the thread that calls it; must be set before JAX computes for the first time.

    Another thread, which JAX uses otherwise, gets a busy core only after milliseconds, and a block begins late by them.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def check_address(address: str, encrypted: bool, asks: bool) -> None:
    """Raise InputError unless an address to listen at is on this machine alone, or connections are secured.

    encrypted, asks  whether they are encrypted, and whether devices must prove who they are
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise InputError(f"--bind must be HOST:PORT, got {shown(address)}")
    lacks = [] if encrypted else ["--tls-cert and --tls-key"]
    lacks += [] if asks else ["--token-file or --tls-client-ca"]
    if lacks and not is_loopback(host):
        raise InputError(
            f"--bind {shown(address)} can be reached from other machines: give {', and '.join(lacks)}, "
            "or bind to 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a host can only be this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(
    plan: LivePlan,
    engine: Engine | None,
    address: str,
    *,
    wait_s: float,
    token: str = "",
    credentials: grpc.ServerCredentials | None = None,
    certificate: Certificate | None = None,
    trained: Checkpoint | None = None,
    listen: Callable[[Event | BlockEnded], object] = lambda event: None,
    on_listening: Callable[[int], None] = lambda port: None,
    on_begin: Callable[[int], None] = lambda devices: None,
) -> tuple[Service, BlockMetrics]:
    """Run a server until its run ends: what it did and learned, and what that cost.

    Raises OSError where it cannot listen, Refused where nobody joins.

    trained       what a simulation had learned, with which the server begins
    listen        is told what happens
    on_listening  called with the port, once devices can join
    on_begin      called when the run begins, with the number of devices
    """
    use_precision(plan.precision)
    service = Service(plan, engine, trained, listen)
    service.party.compile()
    server = GrpcServer(service, token, engine.max_bytes() if engine else 0)
    on_listening(await server.start(address, credentials))
    try:
        ledger = await service.run(wait_s, on_begin)
        await asyncio.sleep(0.2)  # the last results are on their way
    finally:
        await server.stop()
    return service, metrics(ledger, plan, service.party.changes, certificate)


async def join(
    target: str,
    engine: Engine | None,
    request: RegisterRequest,
    *,
    wait_s: float,
    count: int = 1,
    token: str = "",
    credentials: grpc.ChannelCredentials | None = None,
    named: str | None = None,
    trained: Checkpoint | None = None,
    tasks: Callable[[Workload], Workload] = lambda laws: laws,
    laws: MakeWorkload = synthetic,
    cpu: Cpu | None = None,
    listen: Listener = silent,
    on_join: Callable[[int], object] = lambda device: None,
    on_wait: Callable[[str], object] = lambda reason: None,
) -> list[AgentLog]:
    """Run devices until their run ends: `count` of them, each with a connection of its own.

    request  of the first one; where it names a number, the others have the next ones
    laws     makes a device's arrivals and channel
    tasks    makes its workload of these
    cpu      that runs their part of the tasks; without one they are paced
    listen   is told what happens to them
    on_join  called with the number of each when it has joined
    on_wait  called with the reason where the server cannot be reached at once

    Raises InputError where the server cannot be reached within `wait_s`, or refuses one.
    """

    def workload(reply: RegisterReply) -> Workload:
        use_precision(reply.policy.precision)
        return tasks(laws(reply))

    links = [GrpcLink(target, token, credentials) for _ in range(count)]
    first = request.device
    asked = [replace(request, device=None if first is None else first + i) for i in range(count)]
    agents = [
        Agent(link, engine, one, workload, named, trained, listen, on_join, cpu)
        for link, one in zip(links, asked, strict=True)
    ]
    running = list[asyncio.Task[AgentLog]]()
    try:
        await reach(links[0], wait_s, lambda error: on_wait(reason_of(target, error)))
        running = [asyncio.create_task(_reached(*each, wait_s)) for each in zip(links, agents, strict=True)]
        return list(await asyncio.gather(*running))
    except (Refused, MessageError) as error:
        raise InputError(reason_of(target, error)) from None
    finally:
        for task in running:
            task.cancel()
        for link in links:
            await link.close()


def reason_of(target: str, error: Refused | MessageError) -> str:
    """Why a server cannot be reached or does not let a device join, as a message for the user."""
    if isinstance(error, MessageError):
        return f"{target} breaks the protocol: {error}"
    if error.code not in UNREACHABLE:
        return f"{target}: {error.reason}{', see --token-file' * (error.reason == NO_TOKEN)}"
    return f"no server answers at {target}: {next((WORDS[one] for one in WORDS if one in error.reason), error.reason)}"


def check_secret(target: str, secured: bool, token: str) -> None:
    """Raise InputError where a token would be sent to another machine unencrypted."""
    if token and not secured and not is_loopback(target.rpartition(":")[0]):
        raise InputError(f"--token-file: without --tls-ca the token would be sent to {shown(target)} unencrypted")


async def _reached(link: GrpcLink, agent: Agent, wait_s: float) -> AgentLog:
    """Run a device once its own connection is there, which can take more than one attempt on a busy machine."""
    await reach(link, wait_s)
    return await agent.run()


async def reach(link: GrpcLink, wait_s: float, on_wait: Callable[[Refused], object] = lambda error: None) -> None:
    """Wait until the server answers, trying less and less often. Raises Refused where it does not or refuses.

    on_wait  called with the first error that may end by waiting
    """
    pause, end, is_first = RETRY_S, now() + wait_s, True
    while True:
        try:
            await link.probe()
            return
        except Refused as error:
            if error.code not in UNREACHABLE or now() + pause > end or any(one in error.reason for one in FINAL):
                raise
            if is_first:
                on_wait(error)
        await asyncio.sleep(pause)
        pause, is_first = min(2 * pause, MAX_RETRY_S), False
