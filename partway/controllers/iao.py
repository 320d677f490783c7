"""Iterative alternating optimisation: the server divides its service rate among devices that cut for their shares."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.controllers.base import ControllerState, DeviceController, DeviceView, Limits, ServerController, ServerView
from partway.controllers.baselines import Steady
from partway.controllers.related_work import choose_cut, latencies, possible_cuts, server_blocks
from partway.pytree import record
from partway.system.types import Device, DeviceAction, Server, ServerAction


class Iao(DeviceController):
    """The cut of least latency at its share of the service rate: the devices' half of an alternating optimisation.

    X. Tang, X. Chen, L. Zeng, S. Yu, L. Chen, "Joint Multiuser DNN Partitioning and Computational Resource Allocation
    for Collaborative Edge Intelligence", IEEE Internet Things J., 2021: cuts for given resources and resources for
    given cuts, in turns. Here the turns are blocks; the other half is `IaoServer`. All or nothing under the
    proportional law.
    """

    uses_broadcast = ("service_rate", "share")

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        service = view.broadcast.share * view.broadcast.service_rate
        at_server = server_blocks(device.task.share * device.server_work, jnp.zeros_like(service), service)
        return choose_cut(device, view, possible_cuts(device, view), latencies(device, view, at_server))


@record
class IaoState:
    """State of `IaoServer`: `units` (K,) of the service rate, whole numbers, and the state of the server inside it."""

    units: jax.Array
    serving: ControllerState


class IaoServer(ServerController):
    """Divides the service rate in units by greedy exchange, which lowers the largest load per unit.

    It is the server's half of Tang et al. (`Iao`). The server cannot know their latencies: the load of a device is the
    number of tasks waiting there. All work is in one queue at the server, so a share reserves nothing; it is only what
    its device plans with.

    serving    the server that sets the service rate and the price
    units      per device at first; a device keeps at least one (ours)
    exchanges  at most in a block (ours)
    """

    sees_queues = True
    limits: ClassVar[Mapping[str, Limits]] = {"units": (1, 1000), "exchanges": (0, 1000)}
    serving: ServerController = Steady()
    units: int = 4
    exchanges: int = 8

    def init(self, server: Server, view: ServerView, key: jax.Array) -> IaoState:
        return IaoState(jnp.full_like(view.queues, float(self.units)), self.serving.init(server, view, key))

    def act(self, state: IaoState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        action = self.serving.act(state.serving, server, view, key)
        units = jax.lax.fori_loop(0, self.exchanges, lambda _, now: exchange(now, view.queues), state.units)
        return replace(action, broadcast=replace(action.broadcast, share=units / (self.units * units.shape[-1])))

    def learn(
        self,
        state: IaoState,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> IaoState:
        units = jnp.round(action.broadcast.share * (self.units * state.units.shape[-1]))
        return IaoState(units, self.serving.learn(state.serving, server, view, action, cost, next_view))

    def relative_change(self, state: IaoState) -> jax.Array:
        return self.serving.relative_change(state.serving)


def exchange(units: jax.Array, load: jax.Array) -> jax.Array:
    """Units (K,) after one unit has moved to the device of the largest load (K,) per unit, if that lowers the largest.

    The giver is the device that is least loaded with a unit less. If no unit moves, the largest load is the smallest
    possible: to lower it, the receiver needs a unit that no other device can give without a larger load of its own.
    """
    who, receiver = jnp.arange(load.shape[-1]), jnp.argmax(load / units)
    with_one_less = jnp.where((units > 1) & (who != receiver), load / jnp.maximum(units - 1, 1), jnp.inf)
    giver = jnp.argmin(with_one_less)
    moved = jnp.where(with_one_less[giver] < load[receiver] / units[receiver], 1.0, 0.0)
    return units + moved * ((who == receiver) * 1.0 - (who == giver) * 1.0)
