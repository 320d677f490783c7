"""The baselines of section VI, and simple policies that a comparison needs as controls."""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.controllers.base import (
    ControllerState,
    DeviceController,
    DeviceView,
    Limits,
    ServerController,
    ServerView,
    server_action,
    uniform,
)
from partway.controllers.features import full_power
from partway.controllers.parametric import Algorithm1
from partway.system.equations import most_startable
from partway.system.types import Device, DeviceAction, Server, ServerAction


def start_most(device: Device, view: DeviceView, offload: jax.Array) -> DeviceAction:
    """Offload this fraction of a task and start as many tasks as f_max allows (`most_startable`, trap T5)."""
    return DeviceAction(most_startable(device, view.q, offload), offload)


def even_share(device: Device, view: DeviceView) -> jax.Array:
    """The fraction of a task that is a K-th of the service rate last received, at most a whole task."""
    amount = view.broadcast.service_rate / device.fleet_size
    return jnp.minimum(amount / device.server_work, 1.0)


class Random(DeviceController):
    """Section VI: the offloaded fraction is uniform in [0, 1]."""

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return start_most(device, view, uniform(key, (), view.q.dtype))


class Even(DeviceController):
    """Section VI: every device offloads the same amount of work, the server's service rate divided by K (T10).

    The rate is the last one received, however long the broadcast is delayed. With a server that waits for work before
    it sets a rate (`Steady`), no device ever starts to offload.
    """

    uses_broadcast = ("service_rate",)

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return start_most(device, view, even_share(device, view))


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


class Local(DeviceController):
    """Nothing is offloaded."""

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return start_most(device, view, jnp.zeros_like(view.q))


class Full(DeviceController):
    """The device computes nothing: it offloads one whole task per block, the most that its radio slot can send."""

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(jnp.minimum(view.q, 1.0), jnp.ones_like(view.q))


class Constant(DeviceController):
    """In every block the same number of tasks is started and the same fraction of the last one is offloaded.

    offload, started  that fraction and that number; tuned on held-out seeds before a comparison
                      (`partway.experiments.preparation`), unless the scenario sets them
    """

    limits: ClassVar[Mapping[str, Limits]] = {"offload": (0.0, 1.0), "started": (0.0, 1e6)}
    offload: float = 0.5
    started: float = 2.0

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(jnp.minimum(view.q, self.started), jnp.full_like(view.q, self.offload))


class Fixed(ServerController):
    """A server that never changes its first rate, whether work waits or not: `random` as section VI words it (T10).

    start_rate  speed of every slot, as a fraction of f_max, as in `Algorithm2`
    """

    limits: ClassVar[Mapping[str, Limits]] = {"start_rate": (0.0, 1.0)}
    start_rate: float = 0.3

    def act(self, state: ControllerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        speeds = jnp.full((server.slots,), self.start_rate, view.backlog.dtype)
        return server_action(view, speeds * server.slot_capacity)


class Steady(ServerController):
    """A server at a constant speed while work waits: the control for servers that learn.

    speed  of every slot, as a fraction of f_max
    """

    limits: ClassVar[Mapping[str, Limits]] = {"speed": (0.0, 1.0)}
    speed: float = 0.5

    def act(self, state: ControllerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        service = jnp.minimum(self.speed * server.slot_capacity, view.backlog / server.slots)
        return server_action(view, jnp.full((server.slots,), service))
