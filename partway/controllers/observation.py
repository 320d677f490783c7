"""What agents observe: views as numbers from 0 to 1, which need no units and never leave their range.

A number x >= 0 without an upper end becomes x / (x + unit): half where it is one unit, and the order is kept.
"""

import jax
import jax.numpy as jnp

from partway.controllers.base import BROADCAST_FIELDS, DeviceView, Received, ServerView
from partway.controllers.given import startable
from partway.system.equations import local_energy, power_for, radio_energy
from partway.system.signalling import delivered
from partway.system.types import Device, State

DEVICE_NUMBERS = ("queue", "arrivals", "gain", "radio", "price", "service_rate", "backlog", "share")
"""What `device_observation` consists of, in its order."""
RADIO_DB = 80.0
"""Range of the ratio of CPU to radio energy that a device observes [dB]."""


def all_views(state: State) -> DeviceView:
    """What every device sees, (K,) each, with all fields of the broadcast; the delay of the broadcast is not 0."""
    arrived = delivered(state.broadcast_queue, state.broadcast_queue)
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, state.q.shape), arrived)
    return DeviceView(state.q, state.gain, state.arrivals, Received.of(each, BROADCAST_FIELDS))


def bounded(value: jax.Array, unit: jax.Array | float) -> jax.Array:
    """value / (value + unit), from 0 to 1; 1 where the value is infinite."""
    return 1.0 / (1.0 + unit / jnp.maximum(value, jnp.finfo(value.dtype).tiny))


def radio_ease(device: Device, gain: jax.Array) -> jax.Array:
    """How cheap sending is at this gain: CPU over radio energy of a whole task, from -40 dB (0) to 40 dB (1)."""
    cpu = local_energy(device, jnp.ones_like(gain))
    radio = radio_energy(device, power_for(device, gain, jnp.ones_like(gain)))
    ratio = jnp.log10(jnp.maximum(cpu, jnp.finfo(gain.dtype).tiny)) - jnp.log10(radio)
    return jnp.clip(0.5 + 10.0 * ratio / RADIO_DB, 0.0, 1.0)


def device_observation(device: Device, view: DeviceView, unit: jax.Array | float) -> jax.Array:
    """(8,) or (8, K): DEVICE_NUMBERS of a view with all fields of the broadcast. `unit`: `given.price_unit`.

    queue         tasks waiting, the unit is what the device can start in a block
    arrivals      in the slots of the last block, as a share of them
    gain          h, the unit is its mean
    radio         `radio_ease`
    price         last received, in price units
    service_rate  last received, the unit is one mean task per device, as of
    backlog       the server's work that waits, and of
    share         this device's part of the service, times the number of devices
    """
    said, fleet = view.broadcast, device.fleet_size
    numbers = (
        bounded(view.q, startable(device)),
        jnp.mean(view.arrivals, axis=0),
        bounded(view.gain, device.mean_gain),
        radio_ease(device, view.gain),
        bounded(said.price, unit),
        bounded(said.service_rate, fleet),
        bounded(said.backlog, fleet),
        bounded(said.share * fleet, 1.0),
    )
    return jnp.stack(jnp.broadcast_arrays(*numbers))


def server_observation(devices: Device, view: ServerView) -> jax.Array:
    """(2 + K,): backlog and last inflow, the unit is one mean task per device, and the devices' queues."""
    fleet = float(view.queues.shape[-1])
    work = jnp.stack([bounded(view.backlog, fleet), bounded(view.last_inflow, fleet)])
    return jnp.concatenate([work, bounded(view.queues, startable(devices))])


def system_observation(devices: Device, server: ServerView, views: DeviceView) -> jax.Array:
    """(2 + 4 K,): backlog, last inflow, queue of each device, arrivals of each, gain of each, radio of each."""
    own = device_observation(devices, views, 1.0)[1:4]
    return jnp.concatenate([server_observation(devices, server), own.reshape(-1)])
