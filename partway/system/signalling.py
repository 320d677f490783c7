"""The delay line of the server's broadcasts."""

import jax
import jax.numpy as jnp

from partway.system.types import Broadcast


def delivered(broadcast_queue: Broadcast, now: Broadcast) -> Broadcast:
    """The broadcast that reaches the devices in this block: the oldest on its way, or `now` if there is no delay."""
    return jax.tree.map(lambda old, new: old[0] if len(old) else new, broadcast_queue, now)


def enqueue(broadcast_queue: Broadcast, now: Broadcast) -> Broadcast:
    """The delay line one block later, `now` the newest."""

    def shift(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.concatenate([old[1:], new[None]]) if len(old) else old

    return jax.tree.map(shift, broadcast_queue, now)


def no_broadcast(devices: int, dtype: jnp.dtype) -> Broadcast:
    """Zeros: the broadcast before the server has sent one."""
    zero = jnp.zeros((), dtype)
    return Broadcast(price=zero, service_rate=zero, backlog=zero, share=jnp.zeros((devices,), dtype))
