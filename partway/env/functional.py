"""The environment as pure functions: `reset(key, params)` and `step(key, state, action, params)`, for `jit` and `vmap`.

    params = functional.system("paper")     # one agent acts for all devices and the server
    params = functional.device("paper")     # one device acts, the others and the server play a scheme
    params = functional.parallel("paper")   # every device is an agent, and so is the server

    observation, state = functional.reset(key, params)
    observation, state, reward, terminated, truncated, info = functional.step(key, state, action, params)

The meaning is that of gymnax 1.0: the task never terminates, `truncated` is True at the horizon, and `step` then
returns the first observation and state of the next episode; `info["final_observation"]` is the last one of this.

One step is one block of `partway.simulation.step`, in which agents are controllers that do as they are told
(`partway.controllers.given`). Arrivals and channels depend on the episode's seed and the block alone, not on actions or
keys: `reset_to(seed, params)` begins the episode that `partway.compare` has with that seed.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from partway.controllers.base import ControllerState
from partway.controllers.block import Transition
from partway.controllers.given import DEVICE_ACTIONS, GivenServer, OneGivenState
from partway.controllers.observation import (
    DEVICE_NUMBERS,
    all_views,
    device_observation,
    server_observation,
    system_observation,
)
from partway.env.params import Params, device, parallel, system
from partway.pytree import record
from partway.rng import ACTS, controller_keys
from partway.simulation.sharding import broadcast_shared
from partway.simulation.step import Carry, initial_state, server_view
from partway.simulation.step import step as block
from partway.system.equations import device_cost, server_cost, server_energy
from partway.system.exogenous import draw_block
from partway.system.types import Device, State

__all__ = [
    "EnvState", "Params", "action_size", "central", "device", "observation_size", "observe", "parallel", "reset",
    "reset_to", "status", "step", "step_env", "system", "with_horizon",
]  # fmt: skip
Observation = Any
"""An array, or with `parallel` a dictionary of arrays: "devices" (K, 8), and "server" (2 + K,) if it is an agent."""
Action = Any
"""As `Observation`: of `system` (2 K + n,), of `device` (2,), of `parallel` "devices" (K, 2) and "server"."""


@record
class EnvState:
    """An episode at the start of a block.

    system  the state of the simulated system
    seed    of the episode's arrivals and channels, uint32
    key     (2,) uint32, key data of the random numbers of those who play a scheme
    time    number of the block
    """

    system: State
    seed: jax.Array
    key: jax.Array
    time: jax.Array


def reset(key: jax.Array, params: Params) -> tuple[Observation, EnvState]:
    """The first observation and state of an episode whose seed is drawn from the key."""
    return reset_to(jax.random.bits(key, (), jnp.uint32), params)


def reset_to(seed: jax.Array, params: Params) -> tuple[Observation, EnvState]:
    """The first observation and state of the episode with this seed, a uint32."""
    seed = jnp.asarray(seed, jnp.uint32)
    key = jax.random.key_data(controller_keys(seed, params.stream)[ACTS])
    state = EnvState(initial_state(params.world, seed), seed, key, jnp.zeros((), jnp.uint32))
    return observe(state, params), state


def step(
    key: jax.Array, state: EnvState, action: Action, params: Params
) -> tuple[Observation, EnvState, Any, jax.Array, jax.Array, dict[str, Any]]:
    """One block -> observation, state, reward, terminated, truncated, info; at the horizon a new episode begins.

    key  draws the seed of the next episode; within an episode nothing depends on it
    """
    observation, after, reward, terminated, truncated, info = step_env(state, action, params)
    first, begun = reset(key, params)
    chosen = jax.tree.map(lambda new, old: jnp.where(truncated, new, old), (first, begun), (observation, after))
    info = {**info, "terminated": terminated, "truncated": truncated, "final_observation": observation}
    return *chosen, reward, terminated, truncated, info


def step_env(
    state: EnvState, action: Action, params: Params
) -> tuple[Observation, EnvState, Any, jax.Array, jax.Array, dict[str, Any]]:
    """`step` without a new episode at the horizon, as in gymnax.

    info  what the block has cost and what was done in it, see `outcome`, and the state after it, see `status`
    """
    system, exogenous = draw_block(params.world, state.seed, state.system, state.time)
    carry = Carry(system, *_memories(action, params))
    key = jax.random.wrap_key_data(state.key, impl="threefry2x32")
    carry, transition = block(params.world, params.pair, carry, exogenous, key, state.time, learning=False)
    after = EnvState(carry.state, state.seed, state.key, state.time + 1)
    reward, info = _reward(state, transition, params)
    truncated = after.time >= params.horizon
    return observe(after, params), after, reward, jnp.zeros((), bool), truncated, info | status(after, params)


def _memories(action: Action, params: Params) -> tuple[ControllerState, ControllerState]:
    """The memories of both parties: what they are told, or what those who play a scheme remember."""
    count, slots = params.devices, params.world.server.slots
    if params.acts == "system":
        given = action[: 2 * count].reshape(2, count)
        silent = jnp.full((1,), -1.0, action.dtype)  # nobody listens to the price
        return given, jnp.concatenate([action[2 * count :][:slots], silent])
    if params.acts == "device":
        mine = jnp.arange(count) == params.number
        told = jnp.broadcast_to(action[:, None], (2, count))
        return OneGivenState(mine, told, params.device_state), params.server_state
    return action["devices"].T, action.get("server", params.server_state)


# What agents observe


def observe(state: EnvState, params: Params) -> Observation:
    """What the agents observe at the start of a block: all numbers are from 0 to 1."""
    devices = fleet_of(params)
    if params.acts == "system":
        return central(state, params)
    each = device_observation(devices, all_views(state.system), params.unit).T
    if params.acts == "device":
        return each[params.number]
    if params.server_acts:
        return {"devices": each, "server": server_observation(devices, server_view(state.system))}
    return {"devices": each}


def central(state: EnvState, params: Params) -> jax.Array:
    """(2 + 4 K,): what one agent that acts for all observes."""
    return system_observation(fleet_of(params), server_view(state.system), all_views(state.system))


def fleet_of(params: Params) -> Device:
    """All devices, (K,) each."""
    return broadcast_shared(params.world.devices, params.devices)


def status(state: EnvState, params: Params) -> dict[str, jax.Array]:
    """The state in the units of the model, for `info`.

    block                     its number in the episode
    q, gain, arrivals         (K,) tasks waiting, h [1/W], and (n, K) arrivals in the slots of the block before
    backlog, last_inflow      [mean tasks], waiting at the server, and the part that came in the block before
    price, service_rate, received_backlog, share   the broadcast last received; (K,) the share
    """
    now, said = state.system, all_views(state.system).broadcast
    return {
        "block": state.time,
        "q": now.q,
        "gain": now.gain,
        "arrivals": now.arrivals,
        "backlog": now.backlog,
        "last_inflow": now.last_inflow,
        "price": said.price[0],
        "service_rate": said.service_rate[0],
        "received_backlog": said.backlog[0],
        "share": said.share,
    }


# Rewards


def outcome(transition: Transition, params: Params) -> dict[str, jax.Array]:
    """What a block has cost and what was done in it, in the units of the model, for `info`.

    cost                      (8), the sum of its four components
    server_queue, server_energy, device_queue, device_energy   these components
    device_cost               (K,) each device's own terms of (8)
    started, offload, power, energy_j   (K,) tasks started, fraction sent of the last, transmit power [W], energy [J]
    service_per_slot, server_energy_j, inflow   (n,) [mean tasks], [J], work sent [mean tasks]
    """
    did, served, devices, server = transition.devices, transition.server, fleet_of(params), params.world.server
    server_j = server_energy(server, served.service_per_slot)
    waiting, running = jnp.sum(devices.queue_weight * did.q), jnp.sum(devices.energy_weight * did.energy_j)
    at_server = server_cost(server, served.backlog, server_j)
    return {
        "cost": at_server + waiting + running,
        "server_queue": server.queue_weight * served.backlog,
        "server_energy": server.energy_weight * server_j,
        "device_queue": waiting,
        "device_energy": running,
        "device_cost": device_cost(devices, did.q, did.energy_j),
        "started": did.started,
        "offload": did.offload,
        "power": did.power,
        "energy_j": did.energy_j,
        "service_per_slot": served.service_per_slot,
        "server_energy_j": server_j,
        "inflow": transition.inflow,
    }


def _reward(before: EnvState, transition: Transition, params: Params) -> tuple[Any, dict[str, jax.Array]]:
    """Minus the cost of the block, as `Params.reward` says, and the block's outcome."""
    info, did = outcome(transition, params), transition.devices
    price = all_views(before.system).broadcast.price
    payment = price * did.offload * fleet_of(params).server_work
    info["payment"] = payment
    if params.acts == "system":
        return -info["cost"], info
    of_devices = {
        "own": info["device_cost"],
        "priced": info["device_cost"] + payment,
        "system": jnp.broadcast_to(info["cost"], payment.shape),
    }[params.reward]
    if params.acts == "device":
        return -of_devices[params.number], info
    of_server = info["cost"] if params.reward == "system" else info["server_queue"] + info["server_energy"]
    return {"devices": -of_devices} | ({"server": -of_server} if params.server_acts else {}), info


def with_horizon(params: Params, blocks: int) -> Params:
    """The same with episodes of so many blocks."""
    return replace(params, horizon=jnp.asarray(blocks, jnp.uint32))


# Sizes


def observation_size(params: Params) -> Any:
    """Numbers of an observation, or with `parallel` those of a device and, if it is an agent, of the server."""
    if params.acts == "system":
        return 2 + 4 * params.devices
    if params.acts == "device":
        return len(DEVICE_NUMBERS)
    return {"devices": len(DEVICE_NUMBERS)} | ({"server": 2 + params.devices} if params.server_acts else {})


def action_size(params: Params) -> Any:
    """Numbers of an action, as `observation_size`."""
    slots = params.world.server.slots
    if params.acts == "system":
        return DEVICE_ACTIONS * params.devices + slots
    if params.acts == "device":
        return DEVICE_ACTIONS
    shares = isinstance(params.pair.server, GivenServer) and params.pair.server.shares
    server = {"server": slots + 1 + params.devices * shares}
    return {"devices": DEVICE_ACTIONS} | (server if params.server_acts else {})
