"""One block of ONE device and of ONE server: see, act, become feasible, spend, learn.

The simulator composes these for a whole system; a live device or server calls them one block at a time. A batched
controller takes a whole fleet in the place of one device, device axis last; others are mapped by `for_fleet`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import jax
import jax.numpy as jnp

from partway.controllers.base import (
    ControllerState,
    DeviceController,
    DeviceView,
    Received,
    ServerController,
    ServerView,
)
from partway.pytree import fleetwise, record
from partway.system.equations import (
    device_cost,
    device_energy,
    feasible_action,
    next_device_queue,
    power_for,
    server_cost,
    server_energy,
)
from partway.system.types import ROUNDING, Broadcast, Device, DeviceAction, Exogenous, Server, ServerAction

T = TypeVar("T")


@record
class DeviceOutcome:
    """What devices did in a block, (K,) each.

    q, gain          before the block: tasks waiting, h [1/W]
    started, offload the action that happened
    commanded        transmit power that the controller asked for [W], NaN where it asks for none
    power            transmit power [W]
    energy_j         of CPU and radio [J]
    relative_change  of what was learned, NaN where nothing is
    out_of_range     whether the action that was asked for lies outside its range; None: not looked at
    """

    q: jax.Array
    gain: jax.Array
    started: jax.Array
    offload: jax.Array
    commanded: jax.Array
    power: jax.Array
    energy_j: jax.Array
    relative_change: jax.Array
    out_of_range: jax.Array | None = None


@record
class ServerOutcome:
    """What the server did in a block.

    backlog           work that waited before the block [mean tasks]
    service_per_slot  (n,) work commanded in each slot [mean tasks]
    price             as broadcast [cost per mean task], NaN where no device reads it
    relative_change   of what was learned, NaN where nothing is
    out_of_range      as in `DeviceOutcome`
    """

    backlog: jax.Array
    service_per_slot: jax.Array
    price: jax.Array
    relative_change: jax.Array
    out_of_range: jax.Array | None = None


@record
class Transition:
    """One block of the system as it happened; all that is measured is computed from it.

    block         its number
    arrival_bits  (words, K) uint32: the tasks that arrived, one bit a slot (`partway.system.exogenous`)
    inflow        work that the devices sent to the server [mean tasks]
    """

    block: jax.Array
    arrival_bits: jax.Array
    devices: DeviceOutcome
    server: ServerOutcome
    inflow: jax.Array


def device_block(
    controller: DeviceController,
    state: ControllerState,
    device: Device,
    view: DeviceView,
    key: jax.Array,
    exogenous: Exogenous,
    next_broadcast: Broadcast,
    learning: bool,
) -> tuple[ControllerState, DeviceView, DeviceOutcome]:
    """One block of one device: its state and what it sees after the block, and what it did.

    view, next_broadcast  hold the fields of the broadcast that the controller uses
    """
    acted = act_device(controller, state, device, view, key)
    return finish_device(controller, state, device, view, acted, exogenous, next_broadcast, learning)


def finish_device(
    controller: DeviceController,
    state: ControllerState,
    device: Device,
    view: DeviceView,
    acted: tuple[DeviceAction, jax.Array, jax.Array | None],
    exogenous: Exogenous,
    next_broadcast: Broadcast,
    learning: bool,
) -> tuple[ControllerState, DeviceView, DeviceOutcome]:
    """The end of a block that began with `act_device`, whose result is `acted`; the rest as in `device_block`."""
    action, energy_j, out_of_range = acted
    next_q = next_device_queue(device, view.q, action, exogenous.arrivals)
    next_view = DeviceView(next_q, exogenous.gain, exogenous.seen, next_broadcast)
    if learning:
        cost = device_cost(device, view.q, energy_j)
        state = controller.learn(state, device, view, action, cost, next_view)
    outcome = DeviceOutcome(
        q=view.q,
        gain=view.gain,
        started=action.started,
        offload=action.offload,
        commanded=jnp.full_like(view.q, jnp.nan) if action.power is None else action.power,
        power=power_for(device, view.gain, action.offload),
        energy_j=energy_j,
        relative_change=jnp.broadcast_to(jnp.asarray(controller.relative_change(state), view.q.dtype), view.q.shape),
        out_of_range=out_of_range,
    )
    return state, next_view, outcome


def act_device(
    controller: DeviceController, state: ControllerState, device: Device, view: DeviceView, key: jax.Array
) -> tuple[DeviceAction, jax.Array, jax.Array | None]:
    """The action that happens, the energy that it takes [J], and `DeviceOutcome.out_of_range`."""
    asked = controller.act(state, device, view, key)
    action = feasible_action(device, view.q, view.gain, asked)
    outside = None
    if not ships(controller):
        outside = jnp.broadcast_to(_outside(asked.started, view.q) | _outside(asked.offload, 1.0), view.q.shape)
    return action, device_energy(device, view.gain, action), outside


def for_fleet(controller: DeviceController, function: Callable[..., T]) -> Callable[..., T]:
    """A function of one device as a function of a fleet, device axis last."""
    return function if controller.batched else fleetwise(function)


def act_server(
    controller: ServerController, state: ControllerState, server: Server, view: ServerView, key: jax.Array
) -> tuple[ServerAction, jax.Array | None]:
    """The server's action, its service limited to what f_max allows, and `ServerOutcome.out_of_range`."""
    asked = controller.act(state, server, view, key)
    action = replace(asked, service_per_slot=jnp.clip(asked.service_per_slot, 0.0, server.slot_capacity))
    limit = server.slot_capacity * (1.0 + ROUNDING)
    return action, None if ships(controller) else jnp.any(_outside(asked.service_per_slot, limit))


def _outside(value: jax.Array, limit: jax.Array | float) -> jax.Array:
    """Whether a number is outside 0 to `limit` by more than rounding; NaN is not: it has a message of its own."""
    return jnp.asarray((value < -ROUNDING) | (value > limit + ROUNDING))


def ships(controller: DeviceController | ServerController) -> bool:
    """Whether a controller is one of Partway's: what others ask for is checked."""
    return type(controller).__module__.partition(".")[0] == "partway"


def learn_server(
    controller: ServerController,
    state: ControllerState,
    server: Server,
    view: ServerView,
    action: ServerAction,
    next_view: ServerView,
) -> ControllerState:
    """The server's state after the block."""
    cost = server_cost(server, view.backlog, server_energy(server, action.service_per_slot))
    return controller.learn(state, server, view, action, cost, next_view)


def received(controller: DeviceController, broadcast: Broadcast) -> Broadcast:
    """What the controller may read of a broadcast."""
    return Received.of(broadcast, controller.uses_broadcast)
