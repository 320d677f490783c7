"""The system: equations (1)-(8), what an action may be, and the transition from one block to the next.

Functions are written for ONE device; the caller `vmap`s over the fleet, whose records carry the device axis last.

Legend, in the units of the code:
  q       tasks waiting at a device                 whole   tasks left untouched after the block (an integer)
  rest    share of one task sent to the server      L       tasks run locally, q - whole - rest
  h       channel gain over noise [1/W]             p       transmit power [W]
  D       bits sent                                 y       work waiting at the server [mean tasks of the fleet]
  n, tau  slots in a block, length of a slot [s]    rates   work the server is told to do in each slot [mean tasks]
  Gamma   SNR gap                                   xi      capacitance [W s^3 / cycle^3]
Work is counted in tasks because 1e10 cycles has a spacing of 1024 in float32.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

from partway.dnn.cuts import MAX_EFFICIENCY, largest_share, nearest_affordable, sent_bits
from partway.pytree import fleetwise
from partway.system.signalling import enqueue
from partway.system.types import ROUNDING, Costs, Device, DeviceAction, Exogenous, Server, ServerAction, State

T = TypeVar("T")


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
    """(6) [y - sum_i rates_i]^+ + inflow, inflow = sum_k rest_k W_ser,k."""
    return jnp.maximum(backlog - jnp.sum(service_per_slot), 0.0) + inflow


def server_energy(server: Server, service_per_slot: jax.Array) -> jax.Array:
    """(7) tau xi_ser sum_i f_i^3 [J], for the rates commanded, whether there is work or not."""
    return server.energy_coef * jnp.sum(service_per_slot**3)


def next_device_queue(device: Device, action: DeviceAction, arrivals: jax.Array) -> jax.Array:
    """(1) whole + arrivals, or whole + rest + arrivals as the paper prints it (trap T1)."""
    kept = action.offload if device.queue == "as_printed" else 0.0
    return action.whole + kept + jnp.sum(arrivals, axis=0)


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
    """`whole` when a scheme chooses only `offload` (trap T5): as few as f_max allows."""
    return jnp.maximum(jnp.ceil(q - offload - device.capacity - ROUNDING), 0.0)


def feasible_action(device: Device, q: jax.Array, gain: jax.Array, asked: DeviceAction) -> DeviceAction:
    """The action that happens when `asked` is wanted: a cut that exists and can be afforded, no more than f_max allows.

    A block that takes up no task sends nothing.
    """
    bits = affordable_bits(device, gain, device.tx_power_max_w)
    offload = nearest_affordable(device.task, jnp.clip(asked.offload, 0.0, jnp.minimum(q, 1.0)), bits)
    whole = jnp.clip(jnp.ceil(asked.whole - ROUNDING), most_startable(device, q, offload), jnp.floor(q))
    offload = jnp.where(q - whole >= offload, offload, 0.0)
    return DeviceAction(whole=whole, offload=offload, power=asked.power)


def local_work(q: jax.Array, action: DeviceAction) -> jax.Array:
    """L = q - whole - rest, tasks run by the device itself."""
    return q - action.whole - action.offload


def device_energy(device: Device, q: jax.Array, gain: jax.Array, action: DeviceAction) -> jax.Array:
    """(2) + (5) [J] of an admitted action: the power charged is always (4) of what was sent (trap T15)."""
    power = power_for(device, gain, action.offload)
    return local_energy(device, local_work(q, action)) + radio_energy(device, power)


def inflow(devices: Device, actions: DeviceAction) -> jax.Array:
    """sum_k rest_k W_ser,k: the work a block's cuts bring to the server [mean tasks]."""
    return jnp.sum(actions.offload * devices.server_work)


def block_costs(devices: Device, server: Server, state: State, device_j: jax.Array, server_j: jax.Array) -> Costs:
    """(8) w1 q_ser + w2 E_ser + sum_k (w3 q_k W_k + w4 E_k), in the parts of (13), from the energies spent [J]."""
    return Costs(
        server_queue=server.queue_weight * state.backlog,
        server_energy=server.energy_weight * server_j,
        device_queue=devices.queue_weight * state.q,
        device_energy=devices.energy_weight * device_j,
    )


def transition(devices: Device, state: State, actions: DeviceAction, server: ServerAction, draws: Exogenous) -> State:
    """(1) and (6): the next block's state. `draws` does not depend on the actions ((10), (18)).

    What is sent in block t is in the server's queue, and paid for, from its block t + 1 on.
    """
    brought = inflow(devices, actions)
    return State(
        q=fleetwise(next_device_queue)(devices, actions, draws.arrivals),
        gain=draws.gain,
        arrivals=draws.arrivals,
        backlog=next_server_queue(state.backlog, server.service_per_slot, brought),
        arrived=brought,
        broadcast_queue=enqueue(state.broadcast_queue, server.broadcast),
    )
