"""A scheme: a device controller and a server controller that run together, and what is known about them."""

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from partway.errors import InputError

if TYPE_CHECKING:
    from partway.controllers.base import DeviceController, ServerController

T = TypeVar("T")
Preparation = Literal["tune_constant", "use_bound"]
"""What is computed before a run (`partway.experiments.preparation`)."""


@dataclass(frozen=True)
class Deferred:
    """A controller that is imported and made when it is needed: "module:Class" in `partway.controllers`."""

    path: str
    options: tuple[tuple[str, Any], ...] = ()

    def make(self) -> Any:
        """The controller."""
        module, _, name = self.path.partition(":")
        kind = getattr(importlib.import_module(f"partway.controllers.{module}"), name)
        return kind(**{key: value.make() if isinstance(value, Deferred) else value for key, value in self.options})


def controller(path: str, **options: Any) -> Deferred:
    """A controller that ships, with hyperparameters that differ from its defaults."""
    return Deferred(path, tuple(options.items()))


class Scheme:
    """A row of SCHEMES.

    about          one line for `partway schemes`
    fractional     whether it works with the fractions of tasks that equation (1) as printed leaves behind (T1)
    channel_blind  whether it sometimes sends regardless of the channel, so that without a limit on power its mean
                   radio cost, E[1/h], is infinite
    preparation    what is computed before a run
    stream         label of its controllers' random numbers; None: its name
    signals        numbers (up, down) sent per device and block; None: what its controllers say
    by_default     whether a comparison that names no schemes runs it
    agent          what chooses their actions, block by block (`partway.experiments.agents`); None: the controllers do
    """

    def __init__(
        self,
        about: str,
        device: "DeviceController | Deferred",
        server: "ServerController | Deferred",
        *,
        fractional: bool = True,
        channel_blind: bool = False,
        preparation: Preparation | None = None,
        stream: str | None = None,
        signals: tuple[int, int] | None = None,
        by_default: bool = True,
        agent: Any = None,
    ):
        self.about, self.fractional, self.channel_blind = about, fractional, channel_blind
        self.preparation, self.stream = preparation, stream
        self.by_default, self.agent = by_default, agent
        self._device, self._server, self._signals = device, server, signals

    @cached_property
    def device(self) -> "DeviceController":
        """The device controller. Raises InputError where the row was given something else."""
        from partway.controllers.base import DeviceController

        return _made(self._device, DeviceController)

    @cached_property
    def server(self) -> "ServerController":
        """The server controller. Raises InputError where the row was given something else."""
        from partway.controllers.base import ServerController

        return _made(self._server, ServerController)

    def signalling(self) -> dict[str, int]:
        """Numbers sent up and down per device and block for control."""
        if self._signals is not None:
            return dict(zip(("up", "down"), self._signals, strict=True))
        return {"up": int(self.server.sees_queues), "down": len(self.device.uses_broadcast)}


def _made(given: Any, kind: type[T]) -> T:
    """A controller of this kind, from a Deferred, the controller itself or its class."""
    made = given.make() if isinstance(given, Deferred) else given() if isinstance(given, type) else given
    if not isinstance(made, kind):
        raise InputError(f"partway.Scheme: expected a {kind.__name__}, got {type(made).__name__}")
    return made
