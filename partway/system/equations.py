"""Equations (1)-(8), one function each, and what makes an action feasible.

Functions are written for ONE device and work as well on a fleet with the device axis last.

Legend, in the units of the code:
  q        tasks waiting at a device                  started  tasks taken from the queue in a block
  offload  fraction of the last one that is sent      L        tasks run locally, started - offload
  h        channel gain over noise [1/W]              p        transmit power [W]
  D        bits sent                                  backlog  work waiting at the server [mean tasks of the fleet]
  n, tau   slots per block, length of a slot [s]      f_ser    work done at the server in each slot [mean tasks]
  Gamma    SNR gap                                    xi       capacitance [W s^3 / cycle^3]
Work is counted in tasks because 1e10 cycles has a spacing of 1024 in float32.
"""

import jax
import jax.numpy as jnp

from partway.dnn.cuts import MAX_EFFICIENCY, largest_share, nearest_affordable, sent_bits
from partway.system.types import ROUNDING, Device, DeviceAction, Server

LN2 = 0.6931471805599453


def local_energy(device: Device, local: jax.Array) -> jax.Array:
    """(2) at equal rates: xi (L W)^3 / (n tau)^2 [J]. Equal rates are optimal because (2) is convex in each rate."""
    return device.energy_coef * local**3


def spectral_efficiency(device: Device, bits: jax.Array) -> jax.Array:
    """D / (tau B) [bit/s/Hz], what the radio slot must reach."""
    return bits / (device.slot_s * device.bandwidth_hz)


def data_rate(device: Device, gain: jax.Array, power: jax.Array) -> jax.Array:
    """(3) B log2(1 + h p / Gamma) [bit/s]."""
    return device.bandwidth_hz * jnp.log1p(gain * power / device.snr_gap) / LN2


def transmit_power(device: Device, gain: jax.Array, bits: jax.Array) -> jax.Array:
    """(4) Gamma / h (2^(D / (tau B)) - 1) [W]."""
    return device.snr_gap / gain * jnp.expm1(LN2 * spectral_efficiency(device, bits))


def radio_energy(device: Device, power: jax.Array) -> jax.Array:
    """(5) tau p [J]: the radio has one slot."""
    return device.slot_s * power


def next_server_queue(backlog: jax.Array, service_per_slot: jax.Array, inflow: jax.Array) -> jax.Array:
    """(6) [backlog - sum_i f_ser,i]^+ + inflow, see `inflow`; `service_per_slot` (..., n) [mean tasks]."""
    return jnp.maximum(backlog - jnp.sum(service_per_slot, axis=-1), 0.0) + inflow


def server_energy(server: Server, service_per_slot: jax.Array) -> jax.Array:
    """(7) tau xi_ser sum_i f_ser,i^3 [J] of the service commanded (..., n), whether there is work or not."""
    return server.energy_coef * jnp.sum(service_per_slot**3, axis=-1)


def service_cost_coef(server: Server) -> jax.Array:
    """w2 xi_ser / (n tau)^2 in units of work: f mean tasks in a block at equal rates over its slots cost coef f^3."""
    return server.energy_weight * server.energy_coef / server.slots**2


def next_device_queue(device: Device, q: jax.Array, action: DeviceAction, arrivals: jax.Array) -> jax.Array:
    """(1) q - started + arrivals; as the paper prints it, with the fraction that was sent still in it (trap T1)."""
    kept = action.offload if device.queue == "as_printed" else 0.0
    return q - action.started + kept + jnp.sum(arrivals, axis=0)


def power_for(device: Device, gain: jax.Array, offload: jax.Array) -> jax.Array:
    """p that sends `offload` [W]: (4) of the bits of that cut."""
    return transmit_power(device, gain, sent_bits(device.task, offload))


def affordable_bits(device: Device, gain: jax.Array, power: jax.Array) -> jax.Array:
    """tau B log2(1 + h p / Gamma), what the slot carries at `power`; never above 40 bit/s/Hz."""
    limit = MAX_EFFICIENCY * device.bandwidth_hz
    return device.slot_s * jnp.minimum(data_rate(device, gain, power), limit)


def share_for_power(device: Device, gain: jax.Array, power: jax.Array) -> jax.Array:
    """(4) the other way: the largest share that `power` can send, 0 where no cut is that small."""
    bits = affordable_bits(device, gain, jnp.minimum(power, device.tx_power_max_w))
    return largest_share(device.task, bits)


def most_startable(device: Device, q: jax.Array, offload: jax.Array) -> jax.Array:
    """The most tasks of q that can be started in a block if `offload` of the last one is sent, as f_max allows.

    It is the rule of every scheme that chooses only a fraction (trap T5).
    """
    return q - jnp.maximum(jnp.ceil(q - offload - device.capacity - ROUNDING), 0.0)


def feasible_action(device: Device, q: jax.Array, gain: jax.Array, asked: DeviceAction) -> DeviceAction:
    """The action that happens when `asked` is asked for.

    The fraction becomes that of a cut that exists and that the radio can carry; no more tasks are started than f_max
    allows and than wait. A block that starts no task sends nothing.
    """
    bits = affordable_bits(device, gain, device.tx_power_max_w)
    offload = nearest_affordable(device.task, jnp.clip(asked.offload, 0.0, jnp.minimum(q, 1.0)), bits)
    remaining = jnp.ceil(q - asked.started - ROUNDING)
    started = q - jnp.clip(remaining, q - most_startable(device, q, offload), jnp.floor(q))
    offload = jnp.where(started >= offload, offload, 0.0)
    return DeviceAction(started=started, offload=offload, power=asked.power)


def local_work(action: DeviceAction) -> jax.Array:
    """L = started - offload, tasks run by the device itself."""
    return action.started - action.offload


def device_energy(device: Device, gain: jax.Array, action: DeviceAction) -> jax.Array:
    """(2) + (5) [J] of a feasible action: the power charged is always (4) of what was sent (trap T15)."""
    power = power_for(device, gain, action.offload)
    return local_energy(device, local_work(action)) + radio_energy(device, power)


def inflow(devices: Device, actions: DeviceAction) -> jax.Array:
    """sum_k offload_k W_ser,k: the work that a block sends to the server [mean tasks]."""
    return jnp.sum(actions.offload * devices.server_work, axis=-1)


def device_cost(device: Device, q: jax.Array, energy_j: jax.Array) -> jax.Array:
    """A device's terms of (8), w3 q W + w4 E, from the energy spent [J]."""
    return device.queue_weight * q + device.energy_weight * energy_j


def server_cost(server: Server, backlog: jax.Array, energy_j: jax.Array) -> jax.Array:
    """The server's terms of (8), w1 q_ser + w2 E_ser, from the energy spent [J]."""
    return server.queue_weight * backlog + server.energy_weight * energy_j
