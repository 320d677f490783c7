"""The baselines of section VI, and the controls every reader would ask for."""

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
from partway.system.equations import most_startable
from partway.system.types import Device, DeviceAction, Server, ServerAction


def start_most(device: Device, view: DeviceView, offload: jax.Array) -> DeviceAction:
    """Send `offload` of a task and run as much of the queue as f_max allows (the rule `most_startable`, T5)."""
    return DeviceAction(most_startable(device, view.q, offload), offload)


class Random(DeviceController):
    """Section VI: rest is uniform in [0, 1]."""

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return start_most(device, view, uniform(key, (), view.q.dtype))


class Even(DeviceController):
    """Section VI: every device sends the same amount of work, the server's rate divided by K (T10).

    The rate is the one last heard, whatever the broadcast's delay is. With a server that waits for work before it sets
    a rate (`Steady`) nothing ever starts.
    """

    uses_broadcast = ("service_rate",)

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        amount = view.broadcast.service_rate / device.fleet_size
        return start_most(device, view, jnp.minimum(amount / device.server_work, 1.0))


class Local(DeviceController):
    """Nothing is ever sent."""

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return start_most(device, view, jnp.zeros_like(view.q))


class Full(DeviceController):
    """The device computes nothing: one whole task a block goes to the server, which is all the radio slot is for."""

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(jnp.minimum(view.q, 1.0), jnp.ones_like(view.q))


class Constant(DeviceController):
    """In every block the same number of tasks is taken up and the same share of the last one is sent.

    share, tasks: tuned on held-out seeds before a comparison (`partway.tuning`), unless a scenario sets them.
    """

    limits: ClassVar[Mapping[str, Limits]] = {"share": (0.0, 1.0), "tasks": (0.0, 1e6)}
    share: float = 0.5
    tasks: float = 2.0

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(jnp.minimum(view.q, self.tasks), jnp.full_like(view.q, self.share))


class Steady(ServerController):
    """A server at a constant share of f_max, as far as there is work: what a learning server should beat."""

    limits: ClassVar[Mapping[str, Limits]] = {"speed": (0.0, 1.0)}
    speed: float = 0.5

    def act(self, state: ControllerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        wanted = jnp.minimum(self.speed * server.slot_capacity, view.backlog / server.slots)
        return server_action(view, jnp.full((server.slots,), wanted))
