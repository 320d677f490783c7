"""A link in memory: messages are written to bytes and read again, as on a socket, and take a time of their own."""

import asyncio
from collections.abc import AsyncIterator

from partway.live import codec, tensors
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
from partway.live.service import Service


class MemoryLink:
    """A device's link to a service in the same loop; every message takes `delay_s` [s]."""

    def __init__(self, service: Service, delay_s: float = 0.0):
        self._service, self._delay_s = service, delay_s

    async def probe(self) -> None:
        """A message there and back."""
        await self._carried(await self._carried(b""))

    async def register(self, request: RegisterRequest) -> RegisterReply:
        """Join."""
        reply = self._service.register(codec.read_register(await self._carried(codec.write_register(request))))
        return codec.read_registered(await self._carried(codec.write_registered(reply)))

    async def attend(self, reports: AsyncIterator[Report]) -> AsyncIterator[News]:
        """Keep a stream open."""
        async for news in self._service.attend(self._up(reports)):
            yield codec.read_news(await self._carried(codec.write_news(news)))

    async def infer(self, request: InferRequest, within_s: float) -> InferReply:
        """Have the rest of a task done."""
        try:
            async with asyncio.timeout(within_s):
                data = await self._carried(tensors.write_infer(request))
                reply = await self._service.infer(tensors.read_infer(data))
                return tensors.read_inferred(await self._carried(tensors.write_inferred(reply)))
        except TimeoutError:
            raise Refused("DEADLINE_EXCEEDED", f"no answer within {within_s:g} s") from None

    async def leave(self, request: LeaveRequest) -> None:
        """Leave."""
        self._service.leave(codec.read_leave(await self._carried(codec.write_leave(request))))

    async def _up(self, reports: AsyncIterator[Report]) -> AsyncIterator[Report]:
        async for report in reports:
            yield codec.read_report(await self._carried(codec.write_report(report)))

    async def _carried(self, data: bytes) -> bytes:
        await asyncio.sleep(self._delay_s)
        return data
