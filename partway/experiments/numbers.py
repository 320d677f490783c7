"""The numbers of a run from its metrics: the same ones for a comparison, a case of a sweep and a plan's policies."""

from dataclasses import dataclass

import numpy as np

from partway.experiments.failures import FAILED
from partway.experiments.statistics import settling_block
from partway.measurement.gap import COST_COMPONENTS, Horizon, Series, discounted, gap_by_seed, why_no_gap

LATENCY = ("mean", "p50", "p95", "p99")
"""Statistics of the latency, by their fields in `partway.measurement.latency.Latency`."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Energy and use of a run, after warm-up; NaN where they do not exist.

    device_j, server_j, wasted_j  energy per task that arrives [J]
    offloaded               work sent, as a share of the work of the tasks started
    settling_block          first block from which the running mean of the cost stays within 5 % of its end, or None
    """

    device_j: float
    server_j: float
    wasted_j: float
    offloaded: float
    cpu_utilisation: float
    radio_utilisation: float
    server_utilisation: float
    power_mismatch: float
    settling_block: int | None


@dataclass(frozen=True, kw_only=True)
class Numbers(Usage):
    """The numbers of a run, after warm-up unless the name says otherwise; NaN where they do not exist.

    cost                    (seeds, 4) cost per block, by component of (8)
    cost_with_warmup        (seeds,) cost per block from the first one on
    discounted_from_start   (seeds,) sum of gamma^t cost from the first block
    discounted_after_warmup (seeds,) the same from the end of warm-up
    throughput              (seeds,) work that devices and server do [mean tasks/s]
    energy_j                (seeds, 2) energy of the devices and of the server per task that arrives [J]
    gap                     (seeds, 3) above the bound, as a share of it, by LOSSES; None without a bound.
                            On the average cost: the mean after warm-up. On the discounted sum: from empty queues
    """

    cost: np.ndarray
    cost_with_warmup: np.ndarray
    discounted_from_start: np.ndarray
    discounted_after_warmup: np.ndarray
    throughput: np.ndarray
    energy_j: np.ndarray
    gap: np.ndarray | None


def numbers_of(series: Series, horizon: Horizon) -> Numbers:
    """The numbers of a run from its metrics."""
    warmup = horizon.warmup
    components = np.stack([_double(series, name) for name in COST_COMPONENTS])
    cost = components.sum(axis=0)

    def total(field: str) -> float:
        return float(_double(series, field)[:, warmup:].sum())

    def per(amount: str, base: float) -> float:
        return total(amount) / base if base else np.nan

    def mean(field: str) -> float:
        return float(_double(series, field)[:, warmup:].mean())

    tasks = total("arrived")
    return Numbers(
        cost=components[:, :, warmup:].mean(axis=2).T,
        cost_with_warmup=cost.mean(axis=1),
        discounted_from_start=discounted(cost, horizon.discount),
        discounted_after_warmup=discounted(cost[:, warmup:], horizon.discount),
        throughput=_throughput(series, horizon),
        energy_j=_energy_by_seed(series, warmup),
        gap=gap_by_seed(series, horizon),
        device_j=per("device_energy_j", tasks),
        server_j=per("server_energy_j", tasks),
        wasted_j=per("wasted_energy_j", tasks),
        offloaded=per("sent", total("started_work")),
        cpu_utilisation=mean("cpu_utilisation"),
        radio_utilisation=mean("radio_utilisation"),
        server_utilisation=mean("server_utilisation"),
        power_mismatch=mean("power_mismatch"),
        settling_block=settling_block(cost),
    )


def _double(series: Series, field: str) -> np.ndarray:
    return np.asarray(series(field), np.float64)


def _throughput(series: Series, horizon: Horizon) -> np.ndarray:
    """(seeds,) work that the devices do, what they start without what they send, and the server [mean tasks/s]."""
    started, sent, served = (_double(series, field) for field in ("started_work", "sent", "served"))
    return (started - sent + served)[:, horizon.warmup :].mean(axis=1) / horizon.block_s


def _energy_by_seed(series: Series, warmup: int) -> np.ndarray:
    """(seeds, 2) energy of the devices and of the server per task that arrives [J]; NaN where none does."""
    fields = ("device_energy_j", "server_energy_j", "arrived")
    devices, server, tasks = (_double(series, field)[:, warmup:].sum(axis=1) for field in fields)
    return np.stack([devices, server], axis=-1) / np.where(tasks > 0, tasks, np.nan)[:, None]


def gap_reason(status: str, horizon: Horizon, series: Series) -> str:
    """Why a run has no gap to the lower bound, "" if it has one."""
    if horizon.bound is not None and status != "ok":
        return no_gap_of(status)
    return why_no_gap(series, horizon)


def no_gap_of(status: str) -> str:
    """Why a run of this status, which is not "ok", has no gap."""
    return f"the scheme {'has failed' if status == FAILED else 'is ' + status.replace('_', ' ')}"
