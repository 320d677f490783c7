"""The server's rate shared out by greedy exchange, and devices that cut for their share of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.controllers.base import ControllerState, DeviceController, DeviceView, Limits, ServerController, ServerView
from partway.controllers.baselines import Steady
from partway.controllers.related_work import latencies, possible_cuts, server_blocks, take_cut
from partway.pytree import record
from partway.system.types import Device, DeviceAction, Server, ServerAction


class Iao(DeviceController):
    """The cut of least latency at its share of the server's rate: the devices' half of an alternating optimisation.

    X. Tang, X. Chen, L. Zeng, S. Yu, L. Chen, "Joint Multiuser DNN Partitioning and Computational Resource Allocation
    for Collaborative Edge Intelligence", IEEE Internet Things J., 2021: cuts for given resources, resources for given
    cuts, in turns; here from block to block, with `IaoServer`. All or nothing under the proportional law.
    """

    uses_broadcast = ("service_rate", "share")

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        rate = view.broadcast.share * view.broadcast.service_rate
        at_server = server_blocks(device.task.share * device.server_work, jnp.zeros_like(rate), rate)
        return take_cut(device, view, possible_cuts(device, view), latencies(device, view, at_server))


@record
class Units:
    """Memory of `IaoServer`: `units` (K,) of the rate, whole numbers; `serving` the inner server's memory."""

    units: jax.Array
    serving: ControllerState


class IaoServer(ServerController):
    """Shares of the rate by greedy exchange: the largest load per unit is made small; rates by another server.

    The server's half of Tang et al. (`Iao`), whose latencies it cannot know: a device's load is the tasks it has
    waiting. There is one queue at the server, so a share is no reserve, only what its device plans with.

    serving  sets rates and price    units  a device at first; one is kept    exchanges  at most in a block (ours, both)
    """

    sees_queues = True
    limits: ClassVar[Mapping[str, Limits]] = {"units": (1, 1000), "exchanges": (0, 1000)}
    serving: ServerController = Steady()
    units: int = 4
    exchanges: int = 8

    def init(self, server: Server, view: ServerView, key: jax.Array) -> Units:
        return Units(jnp.full_like(view.queues, float(self.units)), self.serving.init(server, view, key))

    def act(self, state: Units, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        action = self.serving.act(state.serving, server, view, key)
        units = jax.lax.fori_loop(0, self.exchanges, lambda _, now: exchange(now, view.queues), state.units)
        return replace(action, broadcast=replace(action.broadcast, share=units / (self.units * units.shape[-1])))

    def learn(
        self,
        state: Units,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> Units:
        units = jnp.round(action.broadcast.share * (self.units * state.units.shape[-1]))
        return Units(units, self.serving.learn(state.serving, server, view, action, cost, next_view))

    def relative_change(self, state: Units) -> jax.Array:
        return self.serving.relative_change(state.serving)


def exchange(units: jax.Array, load: jax.Array) -> jax.Array:
    """A unit from the device that would be least loaded without it to the most loaded, while the giver stays below.

    When none moves, the largest load is the least there is: to lower it the taker needs a unit that nobody can spare.
    """
    who, taker = jnp.arange(load.shape[-1]), jnp.argmax(load / units)
    without = jnp.where((units > 1) & (who != taker), load / jnp.maximum(units - 1, 1), jnp.inf)
    giver = jnp.argmin(without)
    moved = jnp.where(without[giver] < load[taker] / units[taker], 1.0, 0.0)
    return units + moved * ((who == taker) * 1.0 - (who == giver) * 1.0)
