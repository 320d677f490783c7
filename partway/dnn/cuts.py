"""What a DNN is to the system: the places where it can be cut, the work behind each, the bits to send at each.

A `Profile` holds facts of a network (a CSV file, made by `partway profile`); a `Task` is what device, server and
controllers compute with. Legend: `offload` share of one task that the server finishes; D bits of the tensor at that cut.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from partway.dnn.profile import Profile
from partway.pytree import record

T = TypeVar("T")


CONTINUOUS_CUTS = 33
"""Points that stand for the continuous law where a scheme needs a list of cuts."""


MAX_EFFICIENCY = 40.0
"""Highest spectral efficiency of a cut [bit/s/Hz]: 2^40 is beyond any radio, and 2^x overflows float32 soon after."""


@record
class Task:
    """The cuts one device can make, in ascending order of `share`, padded with infeasible rows.

    share     (cuts,) share of the task that the server finishes; the first is 0 (nothing sent)
    bits      (cuts,) D, bits to send at that cut
    feasible  (cuts,) False for padding and above `MAX_EFFICIENCY`
    proportional  ()  True: D = bits_per_task * rest for every rest in [0, 1] (the paper's law), not only at the cuts
    bits_per_task ()  zeta W, bits of a whole task under that law
    laws      what the tasks of the fleet are: all of that law ("line"), none ("table"), or some ("both")
    """

    share: jax.Array
    bits: jax.Array
    feasible: jax.Array
    proportional: jax.Array
    bits_per_task: jax.Array
    laws: str = "both"


def proportional_cuts(bits_per_task: float) -> tuple[np.ndarray, np.ndarray]:
    """(share, bits) of evenly spaced cuts of the paper's law D = zeta W rest."""
    share = np.linspace(0.0, 1.0, CONTINUOUS_CUTS)
    return share, bits_per_task * share


def layer_cuts(profile: Profile, tensor_dtype: str, input_bits: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(share, bits) of a real network's cuts, ascending; of the cuts with one and the same share the cheapest stays."""
    share, bits = profile.share(), profile.bits(tensor_dtype)
    if input_bits is not None:
        bits = np.concatenate([[input_bits], bits[1:]])
    # what float32 cannot tell apart is one cut
    _, first, group = np.unique(share.astype(np.float32), return_index=True, return_inverse=True)
    cheapest = np.full(len(first), np.inf)
    np.minimum.at(cheapest, group, bits)
    return share[first], cheapest


def by_law(task: Task, line: Callable[[], T], table: Callable[[], T]) -> T:
    """What holds under the paper's law, or for a table of cuts, computing no more than the fleet needs."""
    if task.laws == "both":
        return jax.tree.map(partial(jnp.where, task.proportional), line(), table())
    return line() if task.laws == "line" else table()


def sent_bits(task: Task, offload: jax.Array) -> jax.Array:
    """D(rest) [bit]: the paper's law, or the bits of the first cut whose share reaches `offload`."""

    def at_cut() -> jax.Array:
        reached = jnp.min(jnp.where(task.share >= offload, task.share, jnp.inf), axis=0)
        return jnp.max(jnp.where(task.share == reached, task.bits, 0.0), axis=0)

    return by_law(task, lambda: task.bits_per_task * offload, at_cut)


def nearest_affordable(task: Task, asked: jax.Array, max_bits: jax.Array) -> jax.Array:
    """The share that is sent when `asked` is wanted and `max_bits` can be.

    The smallest affordable cut that is at least as large; where there is none the largest affordable one below
    (nothing sent is always affordable). Under the paper's law every share is a cut.
    """

    def of_table() -> jax.Array:
        affordable = task.feasible & (task.bits <= max_bits)
        above = jnp.min(jnp.where(affordable & (task.share >= asked), task.share, jnp.inf), axis=0)
        below = jnp.max(jnp.where(affordable & (task.share < asked), task.share, 0.0), axis=0)
        return jnp.where(above <= 1.0, above, below)

    return by_law(task, lambda: jnp.minimum(asked, max_bits / task.bits_per_task), of_table)


def largest_share(task: Task, max_bits: jax.Array) -> jax.Array:
    """The largest share whose bits do not exceed `max_bits`; 0 where no cut is that small."""

    def of_table() -> jax.Array:
        return jnp.max(jnp.where(task.feasible & (task.bits <= max_bits), task.share, 0.0), axis=0)

    return by_law(task, lambda: jnp.minimum(1.0, max_bits / task.bits_per_task), of_table)
