"""The contract: what a controller sees, what it returns, and what it may learn from.

A controller is a frozen dataclass of hyperparameters, for ONE party. The simulator runs all devices at once by `vmap`;
live, the same functions run on one device with a clock. A device policy is a class with an `act`:

    class Half(DeviceController):
        '''Sends half of one task in every block and runs as many as the CPU allows.'''

        fraction: float = 0.5

        def act(self, state, device, view, key):
            return DeviceAction(started=most_startable(device, view.q, self.fraction), offload=self.fraction)

A policy that learns has `init` and `learn` too. Fields of the server's broadcast that it reads are named in the class,
`uses_broadcast = ("price",)`, and count as signalling.
"""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey, register_pytree_with_keys_class

from partway.arguments import Limits
from partway.errors import RENAMED
from partway.pytree import fleetwise, record
from partway.system.types import Broadcast, Device, DeviceAction, Server, ServerAction

T = TypeVar("T")
ControllerState = Any
"""What a controller remembers from block to block: any pytree of arrays, whose shapes and types never change."""
BROADCAST_FIELDS = tuple(field.name for field in fields(Broadcast))
ALIKE = 0.86
"""Likeness from which a name counts as another one mistyped: `use_broadcast`, but not `batch` for `batched`."""


@register_pytree_with_keys_class
class Received:
    """The fields of a broadcast that a controller uses; other fields do not exist."""

    def __init__(self, **values: Any):
        self.__dict__.update(values)

    @classmethod
    def of(cls, broadcast: Broadcast, names: tuple[str, ...]) -> Broadcast:
        """The fields `names` of a broadcast; typed as one, since the names are known at run time only."""
        return cast(Broadcast, cls(**{name: getattr(broadcast, name) for name in names}))

    def __getattr__(self, name: str) -> Any:
        if name in BROADCAST_FIELDS:
            raise AttributeError(
                f"`broadcast.{name}` is not declared: add {name!r} to `uses_broadcast` of the controller"
            )
        raise AttributeError(f"a broadcast has no field {name!r}; its fields are {', '.join(BROADCAST_FIELDS)}")

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """JAX sees the fields, in the order in which they were declared."""
        return [(GetAttrKey(name), value) for name, value in self.__dict__.items()], tuple(self.__dict__)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Any) -> Self:
        """The inverse."""
        return cls(**dict(zip(names, values, strict=True)))


@record
class DeviceView:
    """All that a device sees at the start of a block.

    q          tasks waiting (a whole number while the queue is conserving)
    gain       h of this block [1/W]; known before the block, as the paper assumes (trap T13)
    arrivals   (n,) 0 or 1: own arrivals in the slots of the block before, already in q (trap T6); with the scenario's
               `arrivals_seen = "current"` those of the block that starts, not yet in q: see `arrivals_between`
    broadcast  the last broadcast that has reached the device: the fields in `uses_broadcast`; `share` is its own
    """

    q: jax.Array
    gain: jax.Array
    arrivals: jax.Array
    broadcast: Broadcast


@record
class ServerView:
    """All that the server sees at the start of a block.

    backlog      work that waits [mean tasks]
    last_inflow  the part of it that arrived in the block before [mean tasks]
    queues       (K,) tasks waiting at the devices
    """

    backlog: jax.Array
    last_inflow: jax.Array
    queues: jax.Array


@dataclass_transform(frozen_default=True)
@record
class DeviceController:
    """Base of device controllers. A subclass becomes a frozen dataclass and a pytree by itself.

    uses_broadcast  fields of the broadcast that it reads, such as ("price",); they count as signalling
    limits          values that its hyperparameters may have when a scenario sets them
    batched         `act`, `learn` and `relative_change` also take a whole fleet, device axis last, and need no `vmap`:
                    faster on a CPU, with the same numbers. Not inherited: each class sets it
    """

    uses_broadcast: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[Mapping[str, Limits]] = {}
    batched: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Make the class a record.

        Raises TypeError for a name in `uses_broadcast` that no broadcast has, and for an attribute that is one of this
        class under an old or a mistyped name: nothing would read it.
        """
        super().__init_subclass__()
        _check_names(cls, "uses_broadcast", "batched")
        if isinstance(cls.uses_broadcast, str) or set(cls.uses_broadcast) - {*BROADCAST_FIELDS}:
            raise TypeError(
                f"{cls.__name__}.uses_broadcast = {cls.uses_broadcast!r}: must be a tuple of fields of the broadcast, "
                f"which are {', '.join(BROADCAST_FIELDS)}"
            )
        if "batched" not in cls.__dict__:
            cls.batched = False
        record(cls)

    def setup(self, key: jax.Array, devices: Device) -> Self:
        """The controller with what all devices agree on before a run, such as shared random features."""
        del key, devices
        return self

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> ControllerState:
        """The state before the first block."""
        del device, view, key
        return ()

    def init_fleet(self, devices: Device, views: DeviceView, keys: jax.Array) -> ControllerState:
        """The states of a fleet, device axis last: `init` of each device."""
        return fleetwise(self.init)(devices, views, keys)

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        """What to do in this block; it is made feasible by `partway.system.equations.feasible_action`."""
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
        """The state after the block. `action` is what happened, `cost` the device's own terms of (8).

        `next_view.broadcast` is the last broadcast that has arrived when the block ends.
        """
        del device, view, action, cost, next_view
        return state

    def relative_change(self, state: ControllerState) -> jax.Array:
        """||theta_(t+1) - theta_t|| / ||theta_t|| of what was learned in the last block; NaN if nothing is learned."""
        del state
        return jnp.full((), jnp.nan)


@dataclass_transform(frozen_default=True)
@record
class ServerController:
    """Base of server controllers. A subclass becomes a frozen dataclass and a pytree by itself.

    sees_queues  whether it uses the devices' queues: one number per device and block towards the server
    limits       values that its hyperparameters may have when a scenario sets them
    """

    sees_queues: ClassVar[bool] = False
    limits: ClassVar[Mapping[str, Limits]] = {}

    def __init_subclass__(cls) -> None:
        """Make the class a record. Raises TypeError for `sees_queues` under a mistyped name."""
        super().__init_subclass__()
        _check_names(cls, "sees_queues")
        record(cls)

    def init(self, server: Server, view: ServerView, key: jax.Array) -> ControllerState:
        """The state before the first block."""
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
        """The state after the block; `cost` is the server's own terms of (8)."""
        del server, view, action, cost, next_view
        return state

    def relative_change(self, state: ControllerState) -> jax.Array:
        """Relative change of what was learned in the last block; NaN if nothing is learned."""
        del state
        return jnp.full((), jnp.nan)


def _check_names(cls: type, *known: str) -> None:
    """Raise TypeError for an attribute of the class whose name was one of these or is nearly one."""
    for name, value in vars(cls).items():
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=ALIKE)
        meant = RENAMED.get(name) if RENAMED.get(name) in known else next(iter(near), name)
        if meant != name and not callable(value):
            raise TypeError(f"{cls.__name__}.{name} is not read by anything: call it `{meant}`")


@record
class ControllerPair:
    """A device controller and a server controller that run together."""

    device: DeviceController
    server: ServerController


def arrivals_between(device: Device, view: DeviceView, next_view: DeviceView) -> jax.Array:
    """(n,) own arrivals in the block between two views, which (1) adds to the queue (trap T6)."""
    return view.arrivals if device.arrivals_seen == "current" else next_view.arrivals


def server_action(view: ServerView, service_per_slot: jax.Array, price: jax.Array | float = 0.0) -> ServerAction:
    """The action that does this work; it broadcasts the price, the total, the backlog and equal shares of the total."""
    total, devices = jnp.sum(service_per_slot), view.queues.shape[-1]
    share = jnp.full_like(view.queues, 1.0 / devices)
    price = jnp.asarray(price, service_per_slot.dtype)
    return ServerAction(service_per_slot, Broadcast(price=price, service_rate=total, backlog=view.backlog, share=share))


def required(value: T | None) -> T:
    """A field that `setup`, or a scheme's preparation, fills in; raises ValueError before it has."""
    if value is None:
        raise ValueError("this controller needs setup(key, devices), or its scheme's preparation, before it can act")
    return value


def normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normals that are the same numbers in every precision."""
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)


def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform numbers in [0, 1) that are the same numbers in every precision."""
    return jax.random.uniform(key, shape, jnp.float32).astype(dtype)
