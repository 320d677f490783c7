"""What each device does, costs and spends over a run: sums over its blocks, so that no block has to be kept."""

from typing import Any

import jax
import numpy as np

from partway.controllers.block import Transition
from partway.pytree import record

MAX_DEVICES = 10_000
"""Devices of a fleet up to which sums are kept for each."""


@record
class DeviceSums:
    """Sums over the blocks after a run's warm-up, (runs, K) float64 each.

    waiting   tasks that wait at the start of a block        energy_j  of CPU and radio [J]
    arrived, started, sent  tasks, and fractions of tasks
    """

    waiting: Any
    energy_j: Any
    arrived: Any
    started: Any
    sent: Any


def sums_of(transitions: Transition, skipped: int) -> DeviceSums:
    """The sums (runs, 1, K) over transitions (runs, blocks, ...) without the first `skipped` blocks of each run.

    The axis in front of the devices is one of calls, over which `summed` adds up.
    """
    did: Any = transitions.devices

    def over_blocks(values: Any) -> np.ndarray:
        return np.asarray(values)[:, skipped:].sum(axis=1, dtype=np.float64, keepdims=True)

    tasks = np.bitwise_count(np.asarray(transitions.arrival_bits)).sum(axis=2, dtype=np.uint8)
    arrived = over_blocks(tasks)
    return DeviceSums(
        over_blocks(did.q), over_blocks(did.energy_j), arrived, over_blocks(did.started), over_blocks(did.offload)
    )


def summed(by_call: DeviceSums) -> DeviceSums:
    """The sums (runs, K) of (runs, calls, K)."""
    return jax.tree.map(lambda sums: np.sum(sums, axis=1), by_call)
