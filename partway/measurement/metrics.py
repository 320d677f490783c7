"""What is measured of a block, computed from transitions by one program that all schemes share.

    transitions (runs, blocks) of a compiled call --measure--> BlockMetrics (runs, blocks)

The program sees no controller, so that it is compiled once for all schemes of a comparison. It takes a fixed number of
blocks at a time (`rows_per_tile`), the last tile padded: a block's numbers do not depend on what is computed with it.
"""

from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from partway.bound.certificate import Certificate, device_loss, service_loss, waiting_loss
from partway.controllers.block import Transition
from partway.program_cache import kept_jit
from partway.pytree import record
from partway.system.equations import device_cost, server_energy
from partway.system.exogenous import unpack_arrivals
from partway.system.types import Device, DeviceAction, Server

T = TypeVar("T")
TILE = 2048
"""Device-blocks that are measured at a time: enough to fill the vector units, few enough for the cache."""
UNROLLED = 2**19
"""Devices from which the few blocks of a call are measured without a loop, which would copy all transitions first."""
MISMATCH = 1e-3
"""Relative difference of power from which the power spent counts as another one than that commanded (trap T15)."""


@record
class BlockMetrics:
    """One block of the whole system; after a run every field has the axes (seed, block).

    server_queue, server_energy, device_queue, device_energy   the four components of the cost (8)
    device_energy_j, server_energy_j, wasted_energy_j          [J]; wasted: by a server that had no work left
    waiting, arrived, started                tasks at the devices: waiting at the start, new ones, started
    backlog, sent, served                    work at the server [mean tasks]: waiting at the start, new, done
    started_work, arrived_work               work that the tasks started, and the new ones, are there [mean tasks]
    total_work                               work that waits anywhere [mean tasks]
    price                                    as broadcast [cost per mean task], NaN where no device reads it
    cpu_utilisation, radio_utilisation, server_utilisation   of f_max, of radio slots, of the server's f_max
    device_relative_change, server_relative_change           of what was learned (mean of devices), NaN if nothing is
    power_mismatch                           fraction of devices that spent another power than the one commanded (T15)
    loss_devices, loss_waiting, loss_service cost above the lower bound (`partway.bound.certificate`), NaN without one
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
    price: jax.Array
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
        """(8), the sum of its four components."""
        return self.server_queue + self.server_energy + self.device_queue + self.device_energy


@record
class DeviceTraces:
    """Blocks device by device, axes (seed, block) first.

    arrivals (n, K) 0 or 1; q, gain, started, offload, power, cost (K,); service_per_slot (n,)
    """

    arrivals: jax.Array
    q: jax.Array
    gain: jax.Array
    started: jax.Array
    offload: jax.Array
    power: jax.Array
    cost: jax.Array
    service_per_slot: jax.Array


@record
class Parties:
    """Whose blocks are measured: all devices (..., K) or what they share (..., 1), the server, and the certificate."""

    devices: Device
    server: Server
    certificate: Certificate | None


@kept_jit(static_argnames=["stacked"])
def measure(parties: Parties, transitions: Transition, stacked: tuple[bool, ...]) -> BlockMetrics:
    """Metrics (runs, blocks) of transitions (runs, blocks, ...).

    stacked  which leaves of `parties` have the axis of the runs in front; the others are the same for all runs
    """
    leaves, structure = jax.tree.flatten(parties)
    runs = transitions.block.shape[0]

    def of_run(at: tuple[list[jax.Array], Transition]) -> BlockMetrics:
        mine, own = at
        each = iter(mine)
        filled = [next(each) if has else leaf for leaf, has in zip(leaves, stacked, strict=True)]
        return _measure_run(jax.tree.unflatten(structure, filled), own)

    varying = [leaf for leaf, has in zip(leaves, stacked, strict=True) if has]
    if runs == 1:
        return jax.tree.map(lambda leaf: leaf[None], of_run(jax.tree.map(lambda leaf: leaf[0], (varying, transitions))))
    return jax.lax.map(of_run, (varying, transitions))


def rows_per_tile(devices: int) -> int:
    """Blocks of a fleet that are measured at a time."""
    return max(1, TILE // devices)


def _measure_run(parties: Parties, transitions: Transition) -> BlockMetrics:
    """Metrics (blocks,) of one run, tile by tile."""
    blocks, rows = transitions.block.shape[0], rows_per_tile(transitions.devices.q.shape[-1])
    tiles = -(-blocks // rows)
    if transitions.devices.q.shape[-1] >= UNROLLED:
        single = [jax.tree.map(lambda leaf, t=t: leaf[t : t + 1], transitions) for t in range(blocks)]
        each = [measure_blocks(parties, block) for block in single]
        return jax.tree.map(lambda *values: jnp.concatenate(values), *each)

    def divided(leaf: jax.Array) -> jax.Array:
        padded = jnp.pad(leaf, [(0, tiles * rows - blocks)] + [(0, 0)] * (leaf.ndim - 1), mode="edge")
        return padded.reshape(tiles, rows, *leaf.shape[1:])

    measured = jax.lax.map(partial(measure_blocks, parties), jax.tree.map(divided, transitions))
    return jax.tree.map(lambda leaf: leaf.reshape(-1)[:blocks], measured)


def measure_blocks(parties: Parties, blocks: Transition) -> BlockMetrics:
    """Metrics (T,) of T blocks at once."""
    count = blocks.devices.q.shape[-1]
    devices: Device = jax.tree.map(lambda leaf: _over_blocks(leaf, count), parties.devices)
    server, did, service = parties.server, blocks.devices, blocks.server.service_per_slot
    energy_j, work_done = server_energy(server, service), served_work(blocks.server.backlog, service)
    arrived, served = arrived_tasks(blocks.arrival_bits).astype(did.q.dtype), jnp.sum(work_done, axis=-1)
    action = DeviceAction(did.started, did.offload)
    device_loss_, waiting_loss_, service_loss_ = _losses(parties, devices, blocks, action, served)
    return BlockMetrics(
        server_queue=server.queue_weight * blocks.server.backlog,
        server_energy=server.energy_weight * energy_j,
        device_queue=_total(devices.queue_weight * did.q),
        device_energy=_total(devices.energy_weight * did.energy_j),
        device_energy_j=_total(did.energy_j),
        server_energy_j=energy_j,
        wasted_energy_j=wasted_energy(server, work_done, service),
        waiting=_total(did.q),
        arrived=_total(arrived),
        started=_total(did.started),
        backlog=blocks.server.backlog,
        sent=blocks.inflow,
        served=served,
        started_work=_total(did.started * devices.server_work),
        arrived_work=_total(arrived * devices.server_work),
        total_work=_total(did.q * devices.server_work) + blocks.server.backlog,
        price=blocks.server.price,
        cpu_utilisation=_mean((did.started - did.offload) / devices.capacity),
        radio_utilisation=_mean(jnp.where(did.offload > 0, 1.0, 0.0)),
        server_utilisation=served / (server.slot_capacity * server.slots),
        device_relative_change=_mean(did.relative_change),
        server_relative_change=blocks.server.relative_change,
        power_mismatch=_mean(_mismatch(did.commanded, did.power)),
        loss_devices=device_loss_,
        loss_waiting=waiting_loss_,
        loss_service=service_loss_,
    )


def _over_blocks(leaf: jax.Array, count: int) -> jax.Array:
    """A leaf of the fleet for all blocks of a tile: (K,) or (rows of a table, 1, K)."""
    whole = jnp.broadcast_to(leaf, (*leaf.shape[:-1], count))
    return whole if whole.ndim == 1 else whole[..., None, :]


def _total(values: jax.Array) -> jax.Array:
    """The sum over devices (T,) of (T, K)."""
    return jnp.sum(values, axis=-1)


def _mean(values: jax.Array) -> jax.Array:
    """The mean over devices (T,) of (T, K)."""
    return jnp.mean(values, axis=-1)


def arrived_tasks(arrival_bits: jax.Array) -> jax.Array:
    """(T, K) tasks that arrived, from (T, words, K)."""
    return jnp.sum(jax.lax.population_count(arrival_bits), axis=-2)


def served_work(backlog: jax.Array, service_per_slot: jax.Array) -> jax.Array:
    """(..., n) work done in each slot when `service_per_slot` (..., n) is commanded and `backlog` (...) waits."""
    before = jnp.cumsum(service_per_slot, axis=-1) - service_per_slot
    return jnp.clip(backlog[..., None] - before, 0.0, service_per_slot)


def wasted_energy(server: Server, work_done: jax.Array, service_per_slot: jax.Array) -> jax.Array:
    """The part of (7) that was spent while no work was left [J], (...) of (..., n)."""
    safe = jnp.where(service_per_slot > 0, service_per_slot, 1.0)
    idle = jnp.where(service_per_slot > 0, 1.0 - work_done / safe, 0.0)
    return server.energy_coef * jnp.sum(service_per_slot**3 * idle, axis=-1)


def _mismatch(commanded: jax.Array, spent: jax.Array) -> jax.Array:
    """1 where another power was spent than commanded, 0 where not, NaN where none was commanded (T15)."""
    other = jnp.where(jnp.abs(spent - commanded) > MISMATCH * commanded, 1.0, 0.0)
    return jnp.where(jnp.isnan(commanded), jnp.nan, other)


def _losses(
    parties: Parties, devices: Device, blocks: Transition, action: DeviceAction, served: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cost above the lower bound (T,): lost by the devices, by waiting work, by the service; NaN without a bound."""
    certificate, did, server = parties.certificate, blocks.devices, parties.server
    if certificate is None:
        nothing = jnp.full_like(served, jnp.nan)
        return nothing, nothing, nothing
    tables: Any = jax.tree.map(lambda leaf: _over_blocks(leaf, did.q.shape[-1]), certificate.tables)
    return (
        _total(device_loss(devices, tables, certificate, did.q, did.gain, action)),
        waiting_loss(certificate, server, blocks.server.backlog, served),
        service_loss(certificate, server, served, blocks.server.service_per_slot, blocks.block),
    )


def device_traces(devices: Device, transitions: Transition) -> DeviceTraces:
    """Traces from transitions, as NumPy arrays with axes (seed, block)."""
    did = jax.tree.map(np.asarray, transitions.devices)
    return DeviceTraces(
        arrivals=unpack_arrivals(devices.slots, np.asarray(transitions.arrival_bits)),  # pyright: ignore
        q=did.q,
        gain=did.gain,
        started=did.started,
        offload=did.offload,
        power=did.power,
        cost=device_cost(devices, did.q, did.energy_j),
        service_per_slot=np.asarray(transitions.server.service_per_slot),  # pyright: ignore
    )
