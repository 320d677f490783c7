"""TODO measurement.metrics."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from partway.bound.certificate import Losses, devices_loss, service_loss, waiting_loss
from partway.pytree import record
from partway.simulation.fleet import broadcast_shared
from partway.simulation.step import Carry, ControllerPair, Transition
from partway.system.equations import local_work
from partway.system.types import DeviceAction, Server
from partway.system.world import World


@record
class BlockMetrics:
    """One block of the whole system; after a run every field has the axes (seed, block).

    server_queue, server_energy, device_queue, device_energy   the four parts of (8), cost
    device_energy_j, server_energy_j, wasted_energy_j          [J]; wasted: commanded while there was no work
    waiting, arrived, taken                tasks at the devices: at the start, new ones, taken up
    backlog, sent, served                  work at the server [mean tasks]: at the start, new, done
    offered, arrived_work                  work the tasks taken up, and the new ones, would be there [mean tasks]
    total_work                             all that waits anywhere [mean tasks]
    cpu_use, radio_use, server_use         share of f_max used, of radio slots used, of the server's f_max used
    device_change, server_change           relative change of what was learned (mean over devices), NaN if nothing is
    off_command                            share of devices that spent another power than the one commanded (T15)
    loss_devices, loss_waiting, loss_rate  cost above the lower bound (`partway.certificate.Losses`), NaN without one
    """

    server_queue: jax.Array
    server_energy: jax.Array
    device_queue: jax.Array
    device_energy: jax.Array
    device_energy_j: jax.Array
    server_energy_j: jax.Array
    wasted_energy_j: jax.Array
    waiting: jax.Array
    arrived: jax.Array
    started: jax.Array
    backlog: jax.Array
    sent: jax.Array
    served: jax.Array
    started_work: jax.Array
    arrived_work: jax.Array
    total_work: jax.Array
    cpu_utilisation: jax.Array
    radio_utilisation: jax.Array
    server_utilisation: jax.Array
    device_relative_change: jax.Array
    server_relative_change: jax.Array
    power_mismatch: jax.Array
    loss_devices: jax.Array
    loss_waiting: jax.Array
    loss_service: jax.Array

    def cost(self) -> jax.Array:
        """(8), the sum of its four parts."""
        return self.server_queue + self.server_energy + self.device_queue + self.device_energy


@record
class DeviceTraces:
    """One block device by device; after a run the axes (seed, block) come first.

    arrivals (n, K) 0 or 1; q, gain, taken, rest, power, cost (K,); rates (n,)
    """

    arrivals: jax.Array
    q: jax.Array
    gain: jax.Array
    started: jax.Array
    offload: jax.Array
    power: jax.Array
    cost: jax.Array
    service_per_slot: jax.Array


def served_work(y: jax.Array, service_per_slot: jax.Array) -> jax.Array:
    """(n,) work done in each slot when `service_per_slot` are commanded and y waits."""
    before = jnp.cumsum(service_per_slot) - service_per_slot
    return jnp.clip(y - before, 0.0, service_per_slot)


def wasted_energy(server: Server, y: jax.Array, service_per_slot: jax.Array) -> jax.Array:
    """The part of (7) that was spent while no work was left [J]."""
    idle = jnp.where(
        service_per_slot > 0,
        1.0 - served_work(y, service_per_slot) / jnp.where(service_per_slot > 0, service_per_slot, 1.0),
        0.0,
    )
    return server.energy_coef * jnp.sum(service_per_slot**3 * idle)


def summed(world: World, pair: ControllerPair, loop: Carry, played: Transition) -> BlockMetrics:
    """The block's totals; `loop` is the one after it."""
    server, state, costs, actions = world.server, played.before, played.costs, played.did.actions
    devices = broadcast_shared(world.devices, state.q.shape[-1])
    started, served = state.q - actions.whole, jnp.sum(served_work(state.backlog, played.service_per_slot))
    lost = _losses(replace(world, devices=devices), played, served)
    return BlockMetrics(
        server_queue=costs.server_queue,
        server_energy=costs.server_energy,
        device_queue=jnp.sum(costs.device_queue),
        device_energy=jnp.sum(costs.device_energy),
        device_energy_j=jnp.sum(played.did.joules),
        server_energy_j=played.server_j,
        wasted_energy_j=wasted_energy(server, state.backlog, played.service_per_slot),
        waiting=jnp.sum(state.q),
        arrived=jnp.sum(played.after.arrivals),
        started=jnp.sum(started),
        backlog=state.backlog,
        sent=played.after.arrived,
        served=served,
        started_work=jnp.sum(started * devices.server_work),
        arrived_work=jnp.sum(played.after.arrivals * devices.server_work),
        total_work=jnp.sum(state.q * devices.server_work) + state.backlog,
        cpu_utilisation=jnp.mean(local_work(state.q, actions) / devices.capacity),
        radio_utilisation=jnp.mean(jnp.where(actions.offload > 0, 1.0, 0.0)),
        server_utilisation=served / (server.slot_capacity * server.slots),
        device_relative_change=jnp.mean(played.did.relative_change),
        server_relative_change=pair.server.relative_change(loop.server_state),
        power_mismatch=_power_mismatch(actions, played.did.power),
        loss_devices=lost.devices,
        loss_waiting=lost.waiting,
        loss_service=lost.service,
    )


def _losses(world: World, played: Transition, served: jax.Array) -> Losses:
    """The block's cost above the lower bound, where the world has one."""
    if world.certificate is None:
        nothing = jnp.full((), jnp.nan)
        return Losses(nothing, nothing, nothing)
    state = played.before
    return Losses(
        devices=devices_loss(world.certificate, world.devices, state.q, state.gain, played.did.actions),
        waiting=waiting_loss(world.certificate, world.server, state.backlog, served),
        service=service_loss(world.certificate, world.server, served, played.service_per_slot, played.block),
    )


def _power_mismatch(actions: DeviceAction, spent: jax.Array) -> jax.Array:
    """Share of devices that spent another power than the one they commanded; NaN where none is commanded (T15)."""
    if actions.power is None:
        return jnp.full((), jnp.nan)
    return jnp.mean(jnp.where(jnp.abs(spent - actions.power) > 1e-3 * actions.power, 1.0, 0.0))


def traced(played: Transition) -> DeviceTraces:
    """The block device by device."""
    state, costs = played.before, played.costs
    return DeviceTraces(
        arrivals=played.after.arrivals,
        q=state.q,
        gain=state.gain,
        started=state.q - played.did.actions.whole,
        offload=played.did.actions.offload,
        power=played.did.power,
        cost=costs.device_queue + costs.device_energy,
        service_per_slot=played.service_per_slot,
    )
