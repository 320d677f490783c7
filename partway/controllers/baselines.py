"""The baselines of section VI, and the controls every reader would ask for."""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.controllers.base import (
    DeviceController,
    DeviceView,
    Limits,
    Memory,
    ServerController,
    ServerView,
    announce,
    uniform,
)
from partway.pytree import record
from partway.system.equations import drain
from partway.system.types import Device, DeviceAction, Server, ServerAction


def offload(device: Device, view: DeviceView, rest: jax.Array) -> DeviceAction:
    """Send `rest` of a task and run as much of the queue as f_max allows (the rule `drain`, T5)."""
    return DeviceAction(drain(device, view.q, rest), rest)


@record
class Random(DeviceController):
    """Section VI: rest is uniform in [0, 1]."""

    def act(self, memory: Memory, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return offload(device, view, uniform(key, (), view.q.dtype))


@record
class Even(DeviceController):
    """Section VI: every device sends the same amount of work, the server's rate divided by K (T10).

    The rate is the one last heard, whatever the broadcast's delay is. With a server that waits for work before it sets
    a rate (`Steady`) nothing ever starts.
    """

    hears = ("rate",)

    def act(self, memory: Memory, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        amount = view.heard.rate / device.fleet_size
        return offload(device, view, jnp.minimum(amount / device.server_work, 1.0))


@record
class Local(DeviceController):
    """Nothing is ever sent."""

    def act(self, memory: Memory, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return offload(device, view, jnp.zeros_like(view.q))


@record
class Full(DeviceController):
    """The device computes nothing: one whole task a block goes to the server, which is all the radio slot is for."""

    def act(self, memory: Memory, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(jnp.maximum(view.q - 1.0, 0.0), jnp.ones_like(view.q))


@record
class Constant(DeviceController):
    """In every block the same number of tasks is taken up and the same share of the last one is sent.

    share, tasks: tuned on held-out seeds before a comparison (`partway.tuning`), unless a scenario sets them.
    """

    limits: ClassVar[Mapping[str, Limits]] = {"share": (0.0, 1.0), "tasks": (0.0, 1e6)}
    share: float = 0.5
    tasks: float = 2.0

    def act(self, memory: Memory, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return DeviceAction(jnp.maximum(view.q - self.tasks, 0.0), jnp.full_like(view.q, self.share))


@record
class Steady(ServerController):
    """A server at a constant share of f_max, as far as there is work: what a learning server should beat."""

    limits: ClassVar[Mapping[str, Limits]] = {"speed": (0.0, 1.0)}
    speed: float = 0.5

    def act(self, memory: Memory, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        wanted = jnp.minimum(self.speed * server.slot_capacity, view.y / server.slots)
        return announce(view, jnp.full((server.slots,), wanted))
