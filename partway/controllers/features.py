"""What the paper's learners feed their features with, and the units that make it of order one (trap T11)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp

from partway.controllers.base import DeviceView, ServerView
from partway.pytree import record
from partway.rng import normals
from partway.system.equations import power_for, server_energy
from partway.system.types import Device, Server


@record
class ServerWeights:
    """nu of (29), by what it weighs: the `own` queue (M,), the devices' `queues` (M, K), the `service_per_slot` (M, n)."""

    own: jax.Array
    queues: jax.Array
    service_per_slot: jax.Array

    @classmethod
    def drawn(cls, key: jax.Array, features: int, devices: int, rates: int, dtype: Any) -> Self:
        """Standard normals for M = `features`, K = `devices` and n = `service_per_slot`; feature by feature: K may be large."""
        first, second = jax.random.key_data(key)
        count = 1 + devices + rates
        return jax.lax.map(
            lambda feature: cls.of(normals((first, second), feature * count, count).astype(dtype), devices),
            jnp.arange(features, dtype=jnp.uint32),
        )

    @classmethod
    def of(cls, nu: jax.Array, devices: int) -> Self:
        """nu (M, 1 + K + n), or one feature's (1 + K + n), cut up."""
        return cls(nu[..., 0], nu[..., 1 : 1 + devices], nu[..., 1 + devices :])


def half_power(device: Device) -> jax.Array:
    """The power that sends half a task (or the next larger cut) at mean gain [W], the unit of powers (T11)."""
    return power_for(device, device.mean_gain, jnp.full_like(device.mean_gain, 0.5))


def typical_device_cost(device: Device) -> jax.Array:
    """Cost of a block in which one task waits and is run locally: the unit of a device's costs (T11)."""
    return device.queue_weight + device.energy_weight * device.energy_coef


def typical_server_cost(server: Server, view: ServerView) -> jax.Array:
    """Cost of a block in which one task of every device waits and is served: the unit of the server's costs (T11)."""
    waiting = 1.0 * view.queues.shape[-1]
    slot = jnp.full((server.slots,), waiting / server.slots, view.backlog.dtype)
    return server.queue_weight * waiting + server.energy_weight * server_energy(server, slot)


def device_features(
    mu: jax.Array, device: Device, view: DeviceView, log_scaled: bool = False
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(22), (23): phi = sigmoid(mu . [q, h, p, beta_1..beta_n]) as a function of p and q, which an action moves.

    phi is (M,) of one device or (M, K) of a fleet. All inputs are of order one: q in tasks, h by its mean, p by
    `half_power` (T6, T11). What h and beta add is computed once, for all p and q.
    log_scaled: h and p enter as log(h), log(1 + p) instead.
    """
    gain = view.gain / device.mean_gain
    by = partial(jnp.tensordot, axes=0)
    fixed = by(mu[:, 1], jnp.log(gain) if log_scaled else gain) + mu[:, 3:] @ view.arrivals

    def features(power: jax.Array, q: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(fixed + by(mu[:, 0], q) + by(mu[:, 2], jnp.log1p(power) if log_scaled else power))

    return features


def server_features(
    nu: ServerWeights, view: ServerView, log_scaled: bool = False
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(29), (30): phi (M,) = sigmoid(nu . [y / K, q / sqrt(K), f_1..f_n]) as a function of f (n,) and y.

    Without the root nu . q would grow with the fleet (T11). What the devices' queues add is computed once.
    log_scaled: y enters as log(1 + y / K), which does not saturate the sigmoids when work piles up.
    """
    devices = view.queues.shape[-1]
    fixed = nu.queues @ (view.queues / jnp.sqrt(devices))

    def features(rates: jax.Array, backlog: jax.Array) -> jax.Array:
        own = jnp.log1p(backlog / devices) if log_scaled else backlog / devices
        return jax.nn.sigmoid(fixed + nu.own * own + nu.service_per_slot @ rates)

    return features
