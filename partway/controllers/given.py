"""Controllers that do as they are told: their memory is an action that somebody outside has chosen for the block.

With them an environment is `partway.simulation.step`, and an agent is one more party of the system. Actions are numbers
from -1 to 1, so that an agent needs no units; what lies outside is clipped. Shapes, the device axis last:

    device  (2,)         a -> tasks started, (a + 1) / 2 of one more than its CPU can run, rounded down; a -> offload,
                         (a + 1) / 2
    server  (n + 1,)     n slots: service, (a + 1) / 2 of what a slot can do; a -> price, (1 + a) / (1 - a) price units
    server  (n + 1 + K,) the same, and each device's share of the service, (a + 1) / 2, that is broadcast
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from partway.controllers.base import (
    BROADCAST_FIELDS,
    ControllerState,
    DeviceController,
    DeviceView,
    Received,
    ServerController,
    ServerView,
    server_action,
)
from partway.pytree import record
from partway.system.equations import local_energy
from partway.system.types import ROUNDING, Device, DeviceAction, Server, ServerAction

DEVICE_ACTIONS = 2
"""Numbers of a device's action: tasks started, and offload."""
HIGHEST = 1.0 - 1e-6
"""Largest number that stands for a price: the price is then two million units."""


def startable(device: Device) -> jax.Array:
    """N, the most tasks that a device can start in a block: all that its CPU can run, and one that it sends."""
    return jnp.floor(device.capacity + ROUNDING) + 1.0


def price_unit(devices: Device) -> jax.Array:
    """w3 W + w4 xi W^3 / (n tau)^2, mean of the fleet: the cost of a task that waits for a block and is run in one."""
    alone = devices.queue_weight + devices.energy_weight * local_energy(devices, jnp.ones_like(devices.capacity))
    return jnp.maximum(jnp.mean(alone), jnp.finfo(alone.dtype).tiny)


def device_action(device: Device, given: jax.Array) -> DeviceAction:
    """The action that numbers (2,) or (2, K) stand for; `feasible_action` makes it one that can happen."""
    started, offload = (jnp.clip(given, -1.0, 1.0) + 1.0) / 2.0
    # a hair less: a cut's share, scaled to [-1, 1] and back, must not be rounded to more, or the next cut is taken
    below = jnp.maximum(offload - 2.0 * jnp.finfo(given.dtype).eps, 0.0)
    offload = jnp.where(device.task.proportional, offload, below)
    return DeviceAction(started * (startable(device) + 1.0), offload)


def server_action_of(server: Server, view: ServerView, unit: jax.Array | float, given: jax.Array) -> ServerAction:
    """The action that numbers (n + 1,) or (n + 1 + K,) stand for; `unit`: `price_unit`."""
    slots, inside = server.slots, jnp.clip(given, -1.0, 1.0)
    price = jnp.minimum(inside[slots], HIGHEST)
    service = (inside[:slots] + 1.0) / 2.0 * server.slot_capacity
    action = server_action(view, service, unit * (1.0 + price) / (1.0 - price))
    if given.shape[-1] == slots + 1:
        return action
    return replace(action, broadcast=replace(action.broadcast, share=(inside[slots + 1 :] + 1.0) / 2.0))


class Given(DeviceController):
    """Does what its state says, see `device_action`."""

    batched = True

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> jax.Array:
        return jnp.zeros(DEVICE_ACTIONS, view.q.dtype)

    def act(self, state: jax.Array, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return device_action(device, state)


class GivenServer(ServerController):
    """Does what its state says, see `server_action_of`.

    unit    of the price, see `price_unit`
    shares  whether the state has each device's share of the service
    """

    unit: float = 1.0
    shares: bool = False

    def init(self, server: Server, view: ServerView, key: jax.Array) -> jax.Array:
        return jnp.zeros(server.slots + 1 + view.queues.shape[-1] * self.shares, view.backlog.dtype)

    def act(self, state: jax.Array, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        return server_action_of(server, view, self.unit, state)


@record
class OneGivenState:
    """What a device remembers where one of them is told what to do.

    mine    whether it is this one
    action  (2,) what that one is told
    others  what it remembers if it is another one
    """

    mine: jax.Array
    action: jax.Array
    others: ControllerState


class OneGiven(DeviceController):
    """One device is told what to do, the others play `others`; the one that is told may see all of the broadcast."""

    uses_broadcast = BROADCAST_FIELDS
    others: DeviceController = Given()

    @property
    def batched(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]  # as the others are
        """Whether it takes a whole fleet."""
        return self.others.batched

    def act(self, state: OneGivenState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        theirs = replace(view, broadcast=Received.of(view.broadcast, self.others.uses_broadcast))
        played, told = self.others.act(state.others, device, theirs, key), device_action(device, state.action)
        return DeviceAction(
            jnp.where(state.mine, told.started, played.started), jnp.where(state.mine, told.offload, played.offload)
        )
