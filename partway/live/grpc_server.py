"""The service over gRPC: both services of the .proto files on one port, with limits on what a peer can make large."""

import contextlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from partway.files import why
from partway.live import codec, tensors
from partway.live.checks import parsed
from partway.live.messages import MessageError, Refused
from partway.live.proto import open_inference_pb2 as inference
from partway.live.service import Service
from partway.provenance import version

CONTROL, INFERENCE = "partway.live.v1.Control", "inference.GRPCInferenceService"
REGISTER, ATTEND, LEAVE = (f"/{CONTROL}/{name}" for name in ("Register", "Attend", "Leave"))
INFER, LIVE = (f"/{INFERENCE}/{name}" for name in ("ModelInfer", "ServerLive"))
MAX_MESSAGE_BYTES = 64 * 2**20
"""A tensor at a cut, and what goes with it, where it is not known how large it can be."""
MAX_CONTROL_BYTES = 2**20
"""A message without a tensor."""
WITHIN_S = 20.0
"""How long a call of the control service may take: on a loaded machine the first takes seconds."""
NO_TOKEN = "the token is missing or wrong"
MAX_CALLS = 4096
"""Calls that a server answers at a time; more are refused."""
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16 * 2**10),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: 60 KiB could become 60 MiB before they are looked at
)
SERVER_OPTIONS = (
    *OPTIONS,
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 5),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", 256),
)
CODES = {code.name: code for code in grpc.StatusCode}


class GrpcServer:
    """A service on a port.

    service    None: all that can be asked is whether it is there
    token      that every call must bring; empty: none
    max_bytes  of the tensors at a cut: longer messages are not read
    """

    def __init__(self, service: Service | None, token: str = "", max_bytes: int = MAX_MESSAGE_BYTES):
        self._given = service
        limit = ("grpc.max_receive_message_length", max_bytes + MAX_CONTROL_BYTES)
        self._server: Any = grpc.aio.server(
            interceptors=(_TokenCheck(token),) if token else (),
            options=(*SERVER_OPTIONS, limit),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        control: dict[str, Any] = {
            "Register": grpc.unary_unary_rpc_method_handler(self._register),
            "Attend": grpc.stream_stream_rpc_method_handler(self._attend),
            "Leave": grpc.unary_unary_rpc_method_handler(self._leave),
        }
        infer: dict[str, Any] = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            "ServerLive": grpc.unary_unary_rpc_method_handler(self._live),
            "ServerReady": grpc.unary_unary_rpc_method_handler(self._ready),
            "ServerMetadata": grpc.unary_unary_rpc_method_handler(self._server_metadata),
            "ModelMetadata": grpc.unary_unary_rpc_method_handler(self._model_metadata),
            "ModelReady": grpc.unary_unary_rpc_method_handler(self._model_ready),
        }
        for name, methods in ((CONTROL, control), (INFERENCE, infer)):
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))

    @property
    def _service(self) -> Service:
        if self._given is None:
            raise Refused("UNAVAILABLE", "nothing runs here")
        return self._given

    async def start(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Listen at "HOST:PORT", and return the port. Raises OSError where that is not possible."""
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise OSError(_why_not(address)) from None
        if port == 0:
            raise OSError(_why_not(address))
        await self._server.start()
        return port

    async def stop(self, grace_s: float = 1.0) -> None:
        """Stop listening; what is being answered has so long to end."""
        await self._server.stop(grace_s)

    async def _register(self, data: bytes, context: Any) -> bytes:
        async def answer() -> bytes:
            return codec.write_registered(self._service.register(codec.read_register(data)))

        return await self._answered(context, answer)

    async def _leave(self, data: bytes, context: Any) -> bytes:
        async def answer() -> bytes:
            self._service.leave(codec.read_leave(data))
            return b""

        return await self._answered(context, answer)

    async def _infer(self, data: bytes, context: Any) -> bytes:
        async def answer() -> bytes:
            request = tensors.read_infer(data)
            reply = await self._service.infer(request)
            return tensors.write_inferred(reply, request.model, request.wanted, request.label)

        return await self._answered(context, answer)

    async def _live(self, data: bytes, context: Any) -> bytes:
        del data, context
        return inference.ServerLiveResponse(live=True).SerializeToString()

    async def _ready(self, data: bytes, context: Any) -> bytes:
        del data, context
        return inference.ServerReadyResponse(ready=True).SerializeToString()

    async def _server_metadata(self, data: bytes, context: Any) -> bytes:
        del data, context
        return inference.ServerMetadataResponse(name="partway", version=version()).SerializeToString()

    async def _model_ready(self, data: bytes, context: Any) -> bytes:
        async def answer() -> bytes:
            asked = parsed(inference.ModelReadyRequest, data)
            name = tensors.named(asked.name, asked.version)
            return inference.ModelReadyResponse(ready=name in self._service.models()).SerializeToString()

        return await self._answered(context, answer)

    async def _model_metadata(self, data: bytes, context: Any) -> bytes:
        async def answer() -> bytes:
            asked = parsed(inference.ModelMetadataRequest, data)
            name = tensors.named(asked.name, asked.version)
            return tensors.write_metadata(name, *self._service.specs(name))

        return await self._answered(context, answer)

    async def _attend(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async def reports() -> AsyncIterator[Any]:
            async for data in messages:
                yield codec.read_report(data)

        try:
            async with contextlib.aclosing(self._service.attend(reports())) as stream:
                async for news in stream:
                    yield codec.write_news(news)
        except (Refused, MessageError) as error:
            await _abort(context, error)

    async def _answered(self, context: Any, answer: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await answer()
        except (Refused, MessageError) as error:
            await _abort(context, error)
        return b""


def _why_not(address: str) -> str:
    """Why it is impossible to listen at an address, which gRPC does not say."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
            listener.listen()
    except OSError as error:
        return why(error)
    return "gRPC cannot listen there"


class _TokenCheck(grpc.aio.ServerInterceptor):
    """Ends a call that does not bring the token, before its message is read."""

    def __init__(self, token: str):
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler of the call, or one that refuses it."""
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        if hmac.compare_digest(str(given).encode(), self._expected):
            return await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(_refuse)  # of all kinds the one that reads nothing by itself


async def _refuse(messages: Any, context: Any) -> None:
    del messages
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)


async def _abort(context: Any, error: Refused | MessageError) -> None:
    code, reason = (error.code, error.reason) if isinstance(error, Refused) else ("INVALID_ARGUMENT", str(error))
    await context.abort(CODES.get(code, grpc.StatusCode.UNKNOWN), reason)
