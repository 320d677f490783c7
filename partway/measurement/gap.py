"""What the cost of a block consists of, and how far a run is above the lower bound: for simulations and live runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from partway.scenario.schema import Scenario

COST_COMPONENTS = ("server_queue", "server_energy", "device_queue", "device_energy")
"""The components of (8), by their fields in `BlockMetrics`."""
COMPONENT_NAMES = {
    "device_queue": "device queues",
    "device_energy": "device energy",
    "server_queue": "server queue",
    "server_energy": "server energy",
}
"""Words for COST_COMPONENTS, in the order of tables and of the page."""
LOSSES = ("devices", "waiting", "service")
"""Where the gap to the lower bound arises: the devices' choices, work left waiting at the server, its service."""
Series = Callable[[str], np.ndarray]
"""(seeds, blocks) of a field of `BlockMetrics`, by its name."""


@dataclass(frozen=True)
class Horizon:
    """What the numbers of a run refer to.

    warmup, discount, objective   blocks of warm-up, gamma, and the scenario's objective
    block_s                       length of a block [s]
    bound, no_bound               the lower bound on the objective, above 0, or None and the reason
    """

    warmup: int
    discount: float
    objective: str
    block_s: float
    bound: float | None
    no_bound: str

    @classmethod
    def of(cls, scenario: Scenario, warmup: int, bound: float | None, no_bound: str) -> Self:
        """That of a run in a scenario."""
        block_s = scenario.slots_per_block * scenario.slot_s
        return cls(warmup, scenario.discount, scenario.objective, block_s, bound, no_bound)


def default_warmup(blocks: int) -> int:
    """Blocks that are left out of the means where nobody says how many."""
    return blocks // 2


def gap_by_seed(series: Series, horizon: Horizon) -> np.ndarray | None:
    """(seeds, 3) above the bound, as a share of it, by LOSSES (`partway.bound.certificate`); None without a bound.

    Of the average cost the mean after warm-up; of the discounted sum from the first block, with empty queues.
    """
    if horizon.bound is None:
        return None
    losses = [_loss(series, name) for name in LOSSES]
    if horizon.objective == "average":
        by_seed = [loss[:, horizon.warmup :].mean(axis=1) for loss in losses]
    else:
        by_seed = [discounted(loss, horizon.discount) for loss in losses]
    return np.stack(by_seed, axis=-1) / horizon.bound


def why_no_gap(series: Series, horizon: Horizon) -> str:
    """Why a run has no gap to the lower bound, "" if it has one."""
    if horizon.bound is None:
        return horizon.no_bound
    if not all(np.isfinite(_loss(series, name)).all() for name in LOSSES):
        return "a loss against the lower bound became infinite or undefined"
    return ""


def discounted(cost: np.ndarray, discount: float) -> np.ndarray:
    """(seeds,) sum over t of gamma^t cost, from (seeds, blocks)."""
    return cost @ discount ** np.arange(cost.shape[1])


def _loss(series: Series, name: str) -> np.ndarray:
    return np.asarray(series(f"loss_{name}"), np.float64)
