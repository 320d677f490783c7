"""Numbers of a comparison: one labelled dataset, and what can honestly be said from it.

Means are over seeds, with 95 % Student intervals; comparisons are paired by seed, because every scheme meets the same
world. An unstable scheme has a growth rate and no average.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from partway.experiments.statistics import Estimate, discounted, estimate, settling_block

COST_COMPONENTS = ("server_queue", "server_energy", "device_queue", "device_energy")


LATENCY = ("mean", "p50", "p95", "p99")


UNITS = {
    "cost": "cost per block, the parts of (8)",
    "device_energy_j": "J",
    "server_energy_j": "J",
    "wasted_energy_j": "J",
    "waiting": "tasks",
    "arrived": "tasks",
    "started": "tasks",
    "backlog": "mean tasks",
    "sent": "mean tasks",
    "served": "mean tasks",
    "started_work": "mean tasks",
    "arrived_work": "mean tasks",
    "total_work": "mean tasks",
    "cpu_utilisation": "share",
    "radio_utilisation": "share",
    "server_utilisation": "share",
    "device_relative_change": "1",
    "server_relative_change": "1",
    "power_mismatch": "share",
    "loss_devices": "cost per block above the lower bound",
    "loss_waiting": "cost per block above the lower bound",
    "loss_service": "cost per block above the lower bound",
    "latency_s": "s",
    "unfinished": "share",
    "distance_m": "m",
    "mean_gain_per_w": "1/W",
}


@dataclass(frozen=True)
class Gap:
    """How far above the lower bound, as a share of it: the whole, and what devices, waiting work and the rate lose."""

    whole: Estimate
    devices: float
    waiting: float
    service: float


@dataclass(frozen=True)
class Summary:
    """What a comparison says of one scheme, after warm-up unless it says otherwise.

    status        ok, unstable, invalid (numbers became infinite), not_applicable; `reason` says why
    cost          cost per block; cost_full: warm-up included; cost_median: of the seeds
    from_empty    sum of gamma^t cost from empty queues; after_warmup: the same from the end of warm-up
    versus        difference of cost to the reference scheme in per cent of it, paired by seed; None without one
    gap           to the lower bound on the scenario's objective, or None for the reason in `no_gap`
    parts         cost by part              latency_s     mean, p50, p95, p99
    device_j, server_j, wasted_j            energy per task that arrives [J]
    offloaded     work sent, as a share of the work of the tasks taken up
    converged     first block from which the running mean of the cost stays within 5 % of its end, or None
    growth        tasks per block by which waiting work grows, for unstable schemes
    heavy_tail    the mean radio cost is infinite in theory: the scheme ignores the channel and nothing limits power
    """

    name: str
    status: str
    reason: str | None
    cost: Estimate
    cost_full: Estimate
    cost_median: float
    discounted_from_start: Estimate
    discounted_after_warmup: Estimate
    relative_cost: Estimate | None
    gap: Gap | None
    no_gap: str | None
    parts: dict[str, float]
    latency_s: dict[str, float]
    unfinished: float
    device_j: float
    server_j: float
    wasted_j: float
    offloaded: float
    cpu_utilisation: float
    radio_utilisation: float
    server_utilisation: float
    power_mismatch: float
    settling_block: int | None
    growth: float | None
    heavy_tail: bool
    signalling: dict[str, int]


def cost_of(dataset: xr.Dataset, scheme: str) -> np.ndarray:
    """(seeds, blocks) cost per block of a scheme."""
    return np.asarray(dataset["cost"].sel(scheme=scheme).sum("component", skipna=False), dtype=np.float64)


def relative_cost(dataset: xr.Dataset, scheme: str, reference: str) -> Estimate:
    """How much more `scheme` costs than `reference` after warm-up [% of it], paired by seed; NaN if that is free."""
    warmup = int(dataset.attrs["warmup"])
    ours, theirs = (cost_of(dataset, name)[:, warmup:].mean(axis=1) for name in (scheme, reference))
    if not (theirs > 0).all():
        return Estimate(np.nan, np.nan, np.nan)
    return estimate(100.0 * (ours - theirs) / theirs)


def gap(dataset: xr.Dataset, scheme: str) -> Gap:
    """The gap of a scheme by the advantage identity (`partway.certificate`).

    On the average cost: the mean after warm-up. On the discounted sum: from empty queues, learning included.
    """
    bound, discount, warmup = (dataset.attrs[name] for name in ("bound", "discount", "warmup"))

    def per_seed(part: str) -> np.ndarray:
        lost = np.asarray(dataset[f"loss_{part}"].sel(scheme=scheme), np.float64)
        if dataset.attrs["objective"] == "average":
            return lost[:, int(warmup) :].mean(axis=1) / bound
        return discounted(lost, float(discount)) / bound

    parts = [per_seed(part) for part in ("devices", "waiting", "service")]
    return Gap(estimate(np.sum(parts, axis=0)), *(float(part.mean()) for part in parts))


def _no_gap(dataset: xr.Dataset, scheme: str) -> str | None:
    """Why there is no gap, or None."""
    if dataset.attrs.get("bound_reason", "this dataset holds no lower bound"):
        return dataset.attrs.get("bound_reason", "this dataset holds no lower bound")
    status = str(dataset["status"].sel(scheme=scheme).values)
    return None if status == "ok" else f"the scheme is {status.replace('_', ' ')}"


def summarise(dataset: xr.Dataset, reference: str | None = "constant") -> list[Summary]:
    """One summary per scheme, in the dataset's order."""
    names = [str(name) for name in dataset["scheme"].values]
    status = {name: str(dataset["status"].sel(scheme=name).values) for name in names}
    reference = reference if reference in names and status[reference] == "ok" else None
    return [_summarise(dataset, name, reference) for name in names]


def _summarise(dataset: xr.Dataset, name: str, reference: str | None) -> Summary:
    own, warmup = dataset.sel(scheme=name), int(dataset.attrs["warmup"])
    status, cost, late = str(own["status"].values), cost_of(dataset, name), own.isel(block=slice(warmup, None))
    ok = status == "ok"
    tasks = _total(late, "arrived")

    def mean(field: str) -> float:
        return float(late[field].mean()) if ok else np.nan

    def over_seeds(per_seed: np.ndarray) -> Estimate:
        return estimate(per_seed) if ok else Estimate(np.nan, np.nan, np.nan)

    def per_task(field: str) -> float:
        return _total(late, field) / tasks if ok and tasks else np.nan

    late_cost, discount = cost[:, warmup:], float(dataset.attrs["discount"])
    started_work = _total(late, "started_work")
    return Summary(
        name=name,
        status=status,
        reason=str(own["reason"].values) or None,
        cost=over_seeds(late_cost.mean(axis=1)),
        cost_full=over_seeds(cost.mean(axis=1)),
        cost_median=float(np.median(late_cost.mean(axis=1))) if ok else np.nan,
        discounted_from_start=estimate(discounted(cost, discount)),
        discounted_after_warmup=estimate(discounted(late_cost, discount)),
        relative_cost=relative_cost(dataset, name, reference) if ok and reference and reference != name else None,
        gap=gap(dataset, name) if _no_gap(dataset, name) is None else None,
        no_gap=_no_gap(dataset, name),
        parts={part: float(late["cost"].sel(component=part).mean()) if ok else np.nan for part in COST_COMPONENTS},
        latency_s={which: float(own["latency_s"].sel(statistic=which).mean()) if ok else np.nan for which in LATENCY},
        unfinished=float(own["unfinished"].mean()) if ok else np.nan,
        device_j=per_task("device_energy_j"),
        server_j=per_task("server_energy_j"),
        wasted_j=per_task("wasted_energy_j"),
        offloaded=_total(late, "sent") / started_work if ok and started_work else np.nan,
        cpu_utilisation=mean("cpu_utilisation"),
        radio_utilisation=mean("radio_utilisation"),
        server_utilisation=mean("server_utilisation"),
        power_mismatch=mean("power_mismatch"),
        settling_block=settling_block(cost) if ok else None,
        growth=float(own["growth"]) if status == "unstable" else None,
        heavy_tail=bool(own["heavy_tail"]),
        signalling={"up": int(own["signals_up"]), "down": int(own["signals_down"])},
    )


def _total(dataset: xr.Dataset, field: str) -> float:
    return float(dataset[field].sum())
