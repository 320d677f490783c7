"""TODO system.signalling."""

import jax
import jax.numpy as jnp

from partway.system.types import Broadcast


def broadcast(broadcast_queue: Broadcast, now: Broadcast) -> Broadcast:
    """What devices hear in this block: the server's words of `broadcast_delay_blocks` blocks ago, or of now where there is no lag."""
    return jax.tree.map(lambda old, new: old[0] if len(old) else new, broadcast_queue, now)


def enqueue(broadcast_queue: Broadcast, now: Broadcast) -> Broadcast:
    """What the server has said, `now` the newest."""

    def shift(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.concatenate([old[1:], new[None]]) if len(old) else old

    return jax.tree.map(shift, broadcast_queue, now)
