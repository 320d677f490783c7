"""Back halves that another server computes: any that speaks the Open Inference Protocol and has the models.

The models are called as in `partway.live.halves`, "cut-N", and take the tensors of a cut in the network's own data
types; `Halves.write_models` writes them.
"""

import numpy as np

from partway.errors import InputError, shown
from partway.live import tensors as wire
from partway.live.engine import Specs, Tensors
from partway.live.halves import Halves
from partway.live.messages import Refused
from partway.live.proto import open_inference_pb2 as inference

try:
    import grpc
except ImportError as error:
    raise InputError(f"{error}: live needs the extra 'live', pip install 'partway[live]'") from None

INFER, READY = (f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ModelReady"))
SCHEMES = ("grpc://", "grpcs://")
"""How an address begins; the second is encrypted, and trusts the system's certificates."""
WITHIN_S = 20.0
"""How long a call may take; a device does not wait longer than a lease."""
OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


class Remote:
    """A network whose back halves a server at `address`, "grpc://HOST:PORT", computes."""

    def __init__(self, halves: Halves, address: str):
        """Connects when it is first used. Raises InputError for another address."""
        scheme = next((one for one in SCHEMES if address.startswith(one)), "")
        target = address.removeprefix(scheme)
        host, _, port = target.rpartition(":")
        if not (scheme and host and port.isdecimal()):
            raise InputError(f"--engine must be grpc://HOST:PORT or grpcs://HOST:PORT, got {shown(address)}")
        self._halves, self._address, self._target, self._is_secure = halves, address, target, scheme == SCHEMES[1]
        self._channel: grpc.aio.Channel | None = None

    async def check(self) -> None:
        """Raise InputError unless the server has all the models."""
        for model in self.models():
            if not self._halves.back_half(model).computed:
                continue
            try:
                request = inference.ModelReadyRequest(name=model).SerializeToString()
                answer = inference.ModelReadyResponse.FromString(await self._called(READY, request))
            except Refused as error:
                raise InputError(f"--engine {self._address}: model {model}: {error}") from None
            if not answer.ready:
                raise InputError(
                    f"--engine {self._address}: it has no model {model}; `partway serve --write-models DIR` writes them"
                )

    async def front(
        self, share: float, number: int, inputs: Tensors | None = None, device: int = 0
    ) -> tuple[str, Tensors]:
        """As `Halves.front`."""
        return await self._halves.front(share, number, inputs, device)

    async def back(self, model: str, tensors: Tensors) -> Tensors:
        """The result of the back half `model`. Raises Refused or MessageError where the server does not give it."""
        half, known = self._halves.back_half(model), self._halves.received(model, tensors)
        if not half.computed:
            return {name: known[name] for name in half.outputs}
        sent = {name: np.ascontiguousarray(known[name]) for name in half.inputs}
        answer = await self._called(INFER, wire.write_call(model, sent, half.computed))
        _, outputs = self._halves.specs(model)
        got = wire.read_outputs(answer, {name: outputs[name] for name in half.computed})
        return {name: got[name] if name in got else known[name] for name in half.outputs}

    def refusal(self, model: str, tensors: Tensors) -> str | None:
        """As `Halves.refusal`."""
        return self._halves.refusal(model, tensors)

    def models(self) -> list[str]:
        """As `Halves.models`."""
        return self._halves.models()

    def specs(self, model: str) -> tuple[Specs, Specs]:
        """As `Halves.specs`."""
        return self._halves.specs(model)

    def max_bytes(self) -> int:
        """As `Halves.max_bytes`."""
        return self._halves.max_bytes()

    async def _called(self, method: str, data: bytes) -> bytes:
        if self._channel is None:  # it belongs to the event loop that uses it
            credentials = grpc.ssl_channel_credentials()
            self._channel = (
                grpc.aio.secure_channel(self._target, credentials, options=OPTIONS)
                if self._is_secure
                else grpc.aio.insecure_channel(self._target, options=OPTIONS)
            )
        call = self._channel.unary_unary(method)
        try:
            return await call(data, timeout=WITHIN_S)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code().name, error.details() or "no details") from None
