"""A link over gRPC: what a device calls."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from partway.live import codec, tensors
from partway.live.grpc_server import ATTEND, INFER, LEAVE, LIVE, MAX_MESSAGE_BYTES, OPTIONS, REGISTER, WITHIN_S
from partway.live.messages import (
    InferReply,
    InferRequest,
    LeaveRequest,
    News,
    Refused,
    RegisterReply,
    RegisterRequest,
    Report,
)

CLIENT_OPTIONS = (
    *OPTIONS,
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own: one carries a limited number of streams
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 200),  # a device tries again by itself, less and less often
    ("grpc.min_reconnect_backoff_ms", 2_000),  # how long an attempt may take: over TLS three round trips
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
UNWRITTEN = "Internal error from Core"
"""What gRPC says, instead of the server's reason, where a stream has ended while a message was being written to it."""
PROBE_S = 3.0
"""How long a server may take to say that it is there."""
SPEAKS_TLS = "the server speaks TLS"
"""The reason where a server that speaks TLS has closed an unencrypted connection, which gRPC calls "Socket closed"."""


class GrpcLink:
    """A device's link to a server at `target`, "HOST:PORT". Close it by `close`."""

    def __init__(self, target: str, token: str = "", credentials: grpc.ChannelCredentials | None = None):
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._target, self._is_secure = target, credentials is not None
        if credentials is None:
            self._channel: Any = grpc.aio.insecure_channel(target, options=CLIENT_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=CLIENT_OPTIONS)
        self._register, self._infer, self._leave = (self._channel.unary_unary(at) for at in (REGISTER, INFER, LEAVE))
        self._attend = self._channel.stream_stream(ATTEND)

    async def probe(self) -> None:
        """Raise Refused unless a server answers."""
        try:
            await self._called(self._channel.unary_unary(LIVE), b"", PROBE_S)
        except Refused as error:
            if error.code == "UNAVAILABLE" and not self._is_secure and await _speaks_tls(self._target):
                raise Refused(error.code, SPEAKS_TLS) from None
            raise

    async def register(self, request: RegisterRequest) -> RegisterReply:
        """Join."""
        return codec.read_registered(await self._called(self._register, codec.write_register(request), WITHIN_S))

    async def attend(self, reports: AsyncIterator[Report]) -> AsyncIterator[News]:
        """Keep a stream open."""

        async def written() -> AsyncIterator[bytes]:
            async for report in reports:
                yield codec.write_report(report)

        call = self._attend(written(), metadata=self._metadata)
        try:
            async for data in call:
                yield codec.read_news(data)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None
        finally:
            call.cancel()

    async def infer(self, request: InferRequest, within_s: float) -> InferReply:
        """Have the rest of a task done."""
        return tensors.read_inferred(await self._called(self._infer, tensors.write_infer(request), within_s))

    async def leave(self, request: LeaveRequest) -> None:
        """Leave."""
        await self._called(self._leave, codec.write_leave(request), WITHIN_S)

    async def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._channel.close()

    async def _called(self, method: Callable[..., Awaitable[bytes]], data: bytes, within_s: float) -> bytes:
        try:
            return await method(data, timeout=within_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None


async def _speaks_tls(target: str) -> bool:
    """Whether a handshake with a server succeeds, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    except (OSError, ValueError):  # TimeoutError and SSLError among them; a name that is none
        return False
    writer.transport.abort()
    return True


def _refused(error: grpc.aio.AioRpcError) -> Refused:
    if error.details() == UNWRITTEN:
        return Refused("UNAVAILABLE", "the stream has ended")
    return Refused(error.code().name, error.details() or "no details")
