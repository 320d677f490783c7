"""The contract: what a controller may see, what it returns, what it may learn from.

A controller is a record of hyperparameters, for ONE party. The loop (`partway.simulate`) runs all devices at once by
`vmap`; live, the same three functions run on one device with a clock. What a policy uses of the server's words it
names, `hears = ("price",)`. A new device policy is a record with an `act`:

    @record
    class Half(DeviceController):
        '''Sends half of a task in every block and runs as much as the CPU allows.'''

        share: float = 0.5

        def act(self, memory, device, view, key):
            return DeviceAction(whole=drain(device, view.q, self.share), rest=self.share)
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import takewhile
from typing import Any, ClassVar, Self, TypeVar

import jax
import jax.numpy as jnp

from partway.pytree import fleetwise, record
from partway.system.types import Broadcast, Device, DeviceAction, Server, ServerAction

T = TypeVar("T")
ControllerState = Any
"""What a controller remembers: any pytree of arrays."""
Limits = tuple[float, float] | frozenset[str]
"""What a hyperparameter may be: from the one number to the other, or one of these words."""


@record
class Unheard:
    """Stands for a word that a controller does not name in `uses_broadcast`: computing with it, or comparing, is an error."""

    word: str

    def refuse(self, *_: Any) -> Any:
        """Raises TypeError."""
        raise TypeError(f"`heard.{self.word}` is used and not declared: name '{self.word}' in the controller's `hears`")

    __jax_array__ = __array__ = __bool__ = __float__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = refuse


@record
class DeviceView:
    """All a device sees at the start of a block.

    q         tasks waiting (a whole number while the queue is conserving)
    gain      h of this block [1/W]; assumed known before the block, as in the paper (trap T13)
    arrivals  (n,) 0 or 1, own arrivals in the slots of the block just ended, already in q (trap T6)
    heard     the server's last words that have reached the device, if the controller `uses_broadcast` them: `heard.share` is the
              device's own
    """

    q: jax.Array
    gain: jax.Array
    arrivals: jax.Array
    broadcast: Broadcast


@record
class ServerView:
    """All the server sees: its queue `backlog`, what part of it `arrived` in the last block, `queues` (K,) of the devices."""

    backlog: jax.Array
    arrived: jax.Array
    queues: jax.Array


@record
class DeviceController:
    """Base of device controllers.

    hears   the fields of the broadcast it uses, which signalling counts, such as ("price",): others are `Unheard`
    limits  what its hyperparameters may be when a scenario sets them
    takes_fleets  `act`, `learn` and `relative_change` work on a fleet as well, device axis last, without being mapped over it:
            faster on a CPU, and the same numbers
    """

    uses_broadcast: ClassVar[tuple[str, ...]] = ()
    batched: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Nobody inherits `batched` with a function of its own: it may be for one device only.

        Raises TypeError for a word in `uses_broadcast` that the server does not say.
        """
        super().__init_subclass__()
        words = [field.name for field in fields(Broadcast)]
        if unknown := [word for word in cls.uses_broadcast if word not in words]:
            raise TypeError(f"{cls.__name__}.hears names {unknown}: the server says {words}, give a tuple of these")
        since = takewhile(lambda base: "batched" not in base.__dict__, cls.__mro__)
        own = (item for base in since for item in base.__dict__.items())
        if any(callable(value) and not name.startswith("__") for name, value in own):
            cls.batched = False

    limits: ClassVar[Mapping[str, Limits]] = {}

    def listen(self, words: Broadcast) -> Broadcast:
        """What is left of a broadcast: the words in `uses_broadcast`. To use any other is an error, in any fleet."""
        others = [field.name for field in fields(words) if field.name not in self.uses_broadcast]
        unheard: Any = {word: Unheard(word) for word in others}
        return replace(words, **unheard)

    def setup(self, key: jax.Array, devices: Device) -> Self:
        """The controller with what all devices agree on before a run, such as shared random features."""
        del key, devices
        return self

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> ControllerState:
        """Memory before the first block."""
        del device, view, key
        return ()

    def init_fleet(self, devices: Device, views: DeviceView, keys: jax.Array) -> ControllerState:
        """Memories of a fleet, device axis last: `init` of each, unless a scheme has prepared them."""
        return fleetwise(self.init)(devices, views, keys)

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        """What to do in this block. The world makes it feasible (`partway.model.admit`)."""
        raise NotImplementedError

    def learn(
        self,
        state: ControllerState,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> ControllerState:
        """Memory after the block. `action` is what happened, `cost` the device's own terms of (8).

        `next_view.heard` is the last that has been heard when the block ends.
        """
        del device, view, action, cost, next_view
        return state

    def relative_change(self, state: ControllerState) -> jax.Array:
        """Relative change of the learned parameters in the last block, the paper's stopping ratio; NaN if none."""
        del state
        return jnp.full((), jnp.nan)


@record
class ServerController:
    """Base of server controllers.

    sees_queues  whether it uses the devices' queues, one scalar up per device
    limits       what its hyperparameters may be when a scenario sets them
    """

    sees_queues: ClassVar[bool] = False
    limits: ClassVar[Mapping[str, Limits]] = {}

    def init(self, server: Server, view: ServerView, key: jax.Array) -> ControllerState:
        """Memory before the first block."""
        del server, view, key
        return ()

    def act(self, state: ControllerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        """The work of every slot of this block, and the broadcast."""
        raise NotImplementedError

    def learn(
        self,
        state: ControllerState,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> ControllerState:
        """Memory after the block; `cost` is the server's own terms of (8)."""
        del server, view, action, cost, next_view
        return state

    def relative_change(self, state: ControllerState) -> jax.Array:
        """Relative change of the learned parameters in the last block; NaN if none."""
        del state
        return jnp.full((), jnp.nan)


def server_action(view: ServerView, service_per_slot: jax.Array, price: jax.Array | float = 0.0) -> ServerAction:
    """The action that commands `service_per_slot` and tells price, total rate, backlog and equal shares of the rate."""
    total, devices = jnp.sum(service_per_slot), view.queues.shape[-1]
    share = jnp.full_like(view.queues, 1.0 / devices)
    price = jnp.asarray(price, service_per_slot.dtype)
    return ServerAction(service_per_slot, Broadcast(price=price, service_rate=total, backlog=view.backlog, share=share))


def agreed(value: T | None) -> T:
    """What `setup`, or a scheme's `prepare`, has put in place; raises ValueError before it."""
    if value is None:
        raise ValueError("this controller needs setup(key, devices), or its scheme's prepare, before it can act")
    return value


def normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normals that are the same numbers in every precision."""
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform numbers in [0, 1) that are the same numbers in every precision."""
    return jax.random.uniform(key, shape, jnp.float32).astype(dtype)


def no_broadcast(devices: int, dtype: Any) -> Broadcast:
    """The broadcast before the server has spoken: zeros."""
    zero = jnp.zeros((), dtype)
    return Broadcast(price=zero, service_rate=zero, backlog=zero, share=jnp.zeros((devices,), dtype))
