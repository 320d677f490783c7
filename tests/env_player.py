"""A scheme as one agent of the environments: it is told views in the units of the model, and gives actions."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerPair, DeviceView, Received, ServerView
from partway.controllers.block import act_server, for_fleet, learn_server
from partway.controllers.given import startable
from partway.pytree import cast_floats, record
from partway.rng import block_keys, controller_keys, per_device, stable_hash
from partway.simulation.rollout import init_runs
from partway.simulation.sharding import broadcast_shared
from partway.system.signalling import delivered, enqueue
from partway.system.types import Broadcast, Device, DeviceAction, Server, ServerAction
from partway.system.world import World


def given_device(device: Device, action: DeviceAction) -> jax.Array:
    """The inverse of `device_action`: (2,) or (2, K)."""
    started = jnp.minimum(action.started / (startable(device) + 1.0), 1.0)
    return 2.0 * jnp.stack(jnp.broadcast_arrays(started, action.offload)) - 1.0


def given_server(server: Server, unit: jax.Array | float, action: ServerAction, shares: bool = False) -> jax.Array:
    """The inverse of `server_action_of`, (n + 1,), or (n + 1 + K,) with `shares`."""
    price = action.broadcast.price / unit
    parts = [2.0 * action.service_per_slot / server.slot_capacity - 1.0, ((price - 1.0) / (price + 1.0))[None]]
    return jnp.concatenate([*parts, 2.0 * action.broadcast.share - 1.0] if shares else parts)


@record
class Seen:
    """What there is to see at the start of a block, and the broadcasts on their way."""

    q: jax.Array
    gain: jax.Array
    arrivals: jax.Array
    backlog: jax.Array
    last_inflow: jax.Array
    line: Broadcast


def views(pair: ControllerPair, seen: Seen) -> DeviceView:
    heard = delivered(seen.line, seen.line)  # the delay is not 0
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, seen.q.shape), heard)
    return DeviceView(seen.q, seen.gain, seen.arrivals, Received.of(each, pair.device.uses_broadcast))


def server_view(seen: Seen) -> ServerView:
    return ServerView(seen.backlog, seen.last_inflow, seen.q)


@jax.jit
def choose(
    world: World, pair: ControllerPair, memories: Any, seen: Seen, key: jax.Array, block: Any
) -> tuple[DeviceAction, ServerAction]:
    of_devices, of_server = block_keys(key, block)
    count = seen.q.shape[-1]
    devices, keys = broadcast_shared(world.devices, count), per_device(of_devices, count)
    action = for_fleet(pair.device, pair.device.act)(memories[0], devices, views(pair, seen), keys)
    service, _ = act_server(pair.server, memories[1], world.server, server_view(seen), of_server)
    return action, service


@jax.jit
def remember(world: World, pair: ControllerPair, memories: Any, seen: Seen, did: Any, asked: Any, then: Seen) -> Any:
    devices, cost = broadcast_shared(world.devices, seen.q.shape[-1]), did["device_cost"]
    action = DeviceAction(did["started"], did["offload"], asked[0].power)  # as in the step, what was commanded
    learn = for_fleet(pair.device, pair.device.learn)
    mine = learn(memories[0], devices, views(pair, seen), action, cost, views(pair, then))
    theirs = learn_server(pair.server, memories[1], world.server, server_view(seen), asked[1], server_view(then))
    return mine, theirs


@dataclass
class Player:
    """The controllers of one seed's run of a scheme, in float64."""

    world: World
    pair: ControllerPair
    memories: Any
    key: jax.Array
    line: Broadcast
    block: int = 0

    @classmethod
    def of(cls, world: World, pair: ControllerPair, stream: str, seed: int) -> "Player":
        own, carry = init_runs(world, pair, stream, [seed], "float64")
        own, memories = jax.tree.map(lambda leaf: leaf[0], (own, (carry.device_state, carry.server_state)))
        key = controller_keys(jnp.uint32(seed), jnp.uint32(stable_hash(stream)))[2]
        line = jax.tree.map(lambda leaf: leaf[0], carry.state.broadcast_queue)
        return cls(cast_floats(world, "float64"), own, memories, key, line)

    def seen(self, info: dict[str, Any]) -> Seen:
        names = ("q", "gain", "arrivals", "backlog", "last_inflow")
        return Seen(*(jnp.asarray(info[name], jnp.float64) for name in names), self.line)

    def act(self, info: dict[str, Any], unit: Any) -> tuple[np.ndarray, np.ndarray, Any]:
        """The numbers of the devices' action (2, K), of the server's, and what must be remembered."""
        now = self.seen(info)
        action, service = choose(self.world, self.pair, self.memories, now, self.key, jnp.uint32(self.block))
        devices = broadcast_shared(self.world.devices, now.q.shape[-1])
        told = given_device(devices, action), given_server(self.world.server, unit, service, shares=True)
        return (*map(np.asarray, told), (now, (action, service)))

    def learn(self, kept: Any, did: dict[str, Any]) -> None:
        """What `act` left to be remembered, and the info of the block."""
        now, asked = kept
        self.line = enqueue(self.line, asked[1].broadcast)
        happened = {name: did[name] for name in ("started", "offload", "device_cost")}
        self.memories = remember(self.world, self.pair, self.memories, now, happened, asked, self.seen(did))
        self.block += 1
