"""Cut tables: the offloaded share and the bits to send at every cut of a device's task, padded to the fleet's largest.

Legend: `offload` is the fraction of one task that the server finishes, D the bits of the tensor at that cut [bit].
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
"""Number of evenly spaced cuts that represent the continuous law where a scheme needs a list of cuts."""
MAX_EFFICIENCY = 40.0
"""Highest spectral efficiency of a cut [bit/s/Hz]: no radio reaches an SNR of 2^40, and 2^128 overflows float32."""


@record
class Task:
    """The cuts of one device's task, in ascending order of `share`, padded with infeasible rows.

    share          (cuts,) fraction of the task that is offloaded at the cut; the first is 0 (nothing is sent)
    bits           (cuts,) D [bit]
    feasible       (cuts,) False for padding and for cuts above `MAX_EFFICIENCY`
    proportional   () whether D = bits_per_task * offload for every offload in [0, 1] (the law of the paper)
    bits_per_task  () zeta W [bit], the bits of a whole task under that law
    laws           laws of the fleet: proportional for all tasks ("line"), for none ("table") or for some ("both")
    """

    share: jax.Array
    bits: jax.Array
    feasible: jax.Array
    proportional: jax.Array
    bits_per_task: jax.Array
    laws: str = "both"


def proportional_cuts(bits_per_task: float) -> tuple[np.ndarray, np.ndarray]:
    """(share, bits [bit]) of evenly spaced cuts under the law of the paper, D = zeta W offload."""
    share = np.linspace(0.0, 1.0, CONTINUOUS_CUTS)
    return share, bits_per_task * share


def table_rows(profile: Profile, tensor_dtype: str, input_bits: float | None = None, keep: str = "all") -> np.ndarray:
    """(rows,) numbers of the profile's cuts that are in its table, in ascending order of the share.

    Of cuts with equal shares it has the one with the fewest bits.

    input_bits  [bit] replaces the profile's size of the encoded inputs
    keep        "all" cuts, or only the "pareto"-optimal ones
    """
    share, bits = profile.share().astype(np.float32), profile.bits(tensor_dtype, input_bits)
    # shares that are equal in float32, the precision of a run, are one cut
    order = np.lexsort((bits, share))
    rows = order[np.concatenate([[True], np.diff(share[order]) > 0])]
    return rows if keep == "all" else rows[profile.pareto_optimal(tensor_dtype, input_bits)[rows]]


def layer_cuts(
    profile: Profile, tensor_dtype: str, input_bits: float | None = None, keep: str = "all"
) -> tuple[np.ndarray, np.ndarray]:
    """(share, bits [bit]) of a network's table of cuts, ascending; arguments as in `table_rows`."""
    rows = table_rows(profile, tensor_dtype, input_bits, keep)
    return profile.share()[rows], profile.bits(tensor_dtype, input_bits)[rows]


def by_law(task: Task, line: Callable[[], T], table: Callable[[], T]) -> T:
    """`line()` for proportional tasks, `table()` for the others; computes only what the fleet's tasks need."""
    if task.laws == "both":
        return jax.tree.map(partial(jnp.where, task.proportional), line(), table())
    return line() if task.laws == "line" else table()


def sent_bits(task: Task, offload: jax.Array) -> jax.Array:
    """D(offload) [bit]: the law of the paper, or the bits of the first cut whose share is at least `offload`."""

    def of_table() -> jax.Array:
        share = jnp.min(jnp.where(task.share >= offload, task.share, jnp.inf), axis=0)
        return jnp.max(jnp.where(task.share == share, task.bits, 0.0), axis=0)

    return by_law(task, lambda: task.bits_per_task * offload, of_table)


def nearest_affordable(task: Task, offload: jax.Array, max_bits: jax.Array) -> jax.Array:
    """The feasible share nearest to the requested `offload` that sends at most `max_bits` [bit].

    It is the smallest affordable cut that is at least as large as requested, or, if there is none, the largest
    affordable cut below (0 is always affordable). Under the law of the paper every share in [0, 1] is a cut.
    """

    def of_table() -> jax.Array:
        affordable = task.feasible & (task.bits <= max_bits)
        above = jnp.min(jnp.where(affordable & (task.share >= offload), task.share, jnp.inf), axis=0)
        below = jnp.max(jnp.where(affordable & (task.share < offload), task.share, 0.0), axis=0)
        return jnp.where(above <= 1.0, above, below) + 0.0 * offload  # a policy's NaN stays one: 0 would hide it

    return by_law(task, lambda: jnp.minimum(offload, max_bits / task.bits_per_task), of_table)


def largest_share(task: Task, max_bits: jax.Array) -> jax.Array:
    """The largest share that sends at most `max_bits` [bit]; 0 if no cut does."""

    def of_table() -> jax.Array:
        return jnp.max(jnp.where(task.feasible & (task.bits <= max_bits), task.share, 0.0), axis=0)

    return by_law(task, lambda: jnp.minimum(1.0, max_bits / task.bits_per_task), of_table)
