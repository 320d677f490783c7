"""The features of the paper's learners, and the units in which their inputs are of order one (trap T11)."""

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp

from partway.controllers.base import DeviceView, ServerView, normal
from partway.dnn.cuts import MAX_EFFICIENCY, sent_bits
from partway.pytree import record
from partway.rng import normals
from partway.system.equations import power_for, server_energy, transmit_power
from partway.system.types import Device, Server


@record
class ServerWeights:
    """nu of (30), divided by the input that it weighs.

    own               (M,) the server's queue
    queues            (M, K) the devices' queues
    service_per_slot  (M, n) the service of each slot
    """

    own: jax.Array
    queues: jax.Array
    service_per_slot: jax.Array

    @classmethod
    def sample(
        cls, key: jax.Array, features: int, devices: int, slots: int, dtype: Any, scale: float | jax.Array = 1.0
    ) -> Self:
        """Normals with this standard deviation for M = `features`, K = `devices`, n = `slots`.

        One feature is drawn at a time, as K may be large.
        """
        first, second = jax.random.key_data(key)
        count = 1 + devices + slots

        def weights(feature: jax.Array) -> Self:
            return cls.from_columns(scale * normals((first, second), feature * count, count).astype(dtype), devices)

        return jax.lax.map(weights, jnp.arange(features, dtype=jnp.uint32))

    @classmethod
    def from_columns(cls, nu: jax.Array, devices: int) -> Self:
        """The weights in nu (M, 1 + K + n), or in the row (1 + K + n) of one feature."""
        return cls(nu[..., 0], nu[..., 1 : 1 + devices], nu[..., 1 + devices :])


def device_weights(key: jax.Array, features: int, device: Device, scale: float | jax.Array = 1.0) -> jax.Array:
    """mu of (23): normals (M, 3 + n), M = `features`, with this standard deviation."""
    return scale * normal(key, (features, 3 + device.slots), device.capacity.dtype)


def weights_of(learner: Any, kind: str, key: jax.Array, device: Device) -> jax.Array | None:
    """mu of a learner whose `feature_weights` are of this kind, else None.

    kind  "shared": all devices have the same, drawn before a run; "per_device": each has its own, mu_k as printed
    """
    if learner.feature_weights != kind:
        return None
    return device_weights(key, learner.features, device, learner.feature_scale)


def half_power(device: Device) -> jax.Array:
    """The power that sends half a task (or the next larger cut) at mean gain [W], the unit of powers (T11)."""
    return power_for(device, device.mean_gain, jnp.full_like(device.mean_gain, 0.5))


def full_power(device: Device) -> jax.Array:
    """The power that sends a whole task, or as much of it as a radio can at all, at mean gain [W]."""
    bits = sent_bits(device.task, jnp.ones_like(device.mean_gain))
    most = MAX_EFFICIENCY * device.slot_s * device.bandwidth_hz
    return transmit_power(device, device.mean_gain, jnp.minimum(bits, most))


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
    """(23): phi = sigmoid(mu . [q, h, p, beta_1..beta_n]) as a function of p and q, which an action changes.

    (23) has the inputs as [p, q, h, beta_1..beta_n] and weights of its own for each device, mu_{k,i}, which is
    `feature_weights = "per_device"`; mu is random, so that the order means nothing. phi is (M,) of one device or (M, K)
    of a fleet. All inputs are of order one: q in tasks, h by its mean, p by `half_power` (T6, T11). The contribution of
    h and beta is computed once, for all p and q.

    mu          (M, 3 + n); of a fleet in which every device has its own, (M, 3 + n, K)
    log_scaled  h and p enter as log(h) and log(1 + p)
    """
    gain = view.gain / device.mean_gain
    shared = mu.ndim == 2
    by = partial(jnp.tensordot, axes=0) if shared else jnp.multiply
    arrived = mu[:, 3:] @ view.arrivals if shared else jnp.sum(mu[:, 3:] * view.arrivals, axis=1)
    fixed = by(mu[:, 1], jnp.log(gain) if log_scaled else gain) + arrived

    def features(power: jax.Array, q: jax.Array) -> jax.Array:
        # The quotient is q; XLA computes the result of a division once, but the next queue for each of the M features.
        q = q / jax.lax.stop_gradient(jnp.maximum(jnp.sign(q), 1.0))
        return jax.nn.sigmoid(fixed + by(mu[:, 0], q) + by(mu[:, 2], jnp.log1p(power) if log_scaled else power))

    return features


def server_features(
    nu: ServerWeights, view: ServerView, log_scaled: bool = False
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """(30): phi = sigmoid(nu . [backlog / K, q / sqrt(K), f_1..f_n]) as a function of f (n,) and the backlog.

    (30) has the inputs as [f_1..f_n, q_ser, q_1..q_K], not scaled. phi is (M,); f is a fraction of f_max. Without the
    root nu . q would grow with the fleet (T11). The contribution of the devices' queues is computed once.

    log_scaled  the backlog enters as log(1 + backlog / K), which does not saturate the sigmoids when work piles up
    """
    devices = view.queues.shape[-1]
    fixed = nu.queues @ (view.queues / jnp.sqrt(devices))

    def features(speeds: jax.Array, backlog: jax.Array) -> jax.Array:
        own = jnp.log1p(backlog / devices) if log_scaled else backlog / devices
        return jax.nn.sigmoid(fixed + nu.own * own + nu.service_per_slot @ speeds)

    return features
