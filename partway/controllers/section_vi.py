"""The baselines of section VI as its words describe them: binary and even learn by Algorithms 1 and 2 (trap T10)."""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.controllers.base import ControllerState, DeviceView, Limits, ServerController, ServerView, server_action
from partway.controllers.baselines import even_share
from partway.controllers.features import full_power
from partway.controllers.parametric import Algorithm1
from partway.system.types import Device, Server, ServerAction


class BinaryParametric(Algorithm1):
    """Section VI's binary offloading by Algorithm 1: where p can send a whole task, it is sent; else nothing (T10).

    The unit of p is the power of a whole task at mean gain. The fraction is a step of p, so the true gradient feels p
    through the features only, as on a table of cuts.
    """

    batched = True

    def power_unit(self, device: Device) -> jax.Array:
        return full_power(device)

    def offload(self, device: Device, view: DeviceView, power: jax.Array) -> jax.Array:
        return jnp.floor(super().offload(device, view, power))


class EvenParametric(Algorithm1):
    """Section VI's even allocation by Algorithm 1: p as it is learned, up to the device's K-th of the server's rate.

    Where p sends more than that, all devices offload the same amount (T10); `Even` offloads it whatever p would be.
    """

    batched = True
    uses_broadcast = ("service_rate",)

    def offload(self, device: Device, view: DeviceView, power: jax.Array) -> jax.Array:
        return jnp.minimum(super().offload(device, view, power), even_share(device, view))


class Fixed(ServerController):
    """A server that never changes its first rate, whether work waits or not: `random` as section VI words it (T10).

    start_rate  speed of every slot, as a fraction of f_max, as in `Algorithm2`
    """

    limits: ClassVar[Mapping[str, Limits]] = {"start_rate": (0.0, 1.0)}
    start_rate: float = 0.3

    def act(self, state: ControllerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        speeds = jnp.full((server.slots,), self.start_rate, view.backlog.dtype)
        return server_action(view, speeds * server.slot_capacity)
