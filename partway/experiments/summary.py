"""What can be said from a comparison or a sweep: the same numbers, computed in one place.

Means are over seeds, with 95 % Student intervals; comparisons are paired by seed, because every scheme meets the same
world. An unstable scheme has a growth rate and no average.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import xarray as xr

from partway.errors import InputError, nearest, shown
from partway.experiments.numbers import LATENCY, Usage, gap_reason, numbers_of
from partway.experiments.statistics import Estimate, estimate
from partway.measurement.gap import COST_COMPONENTS, LOSSES, Horizon, Series
from partway.measurement.latency import DELAYS
from partway.schemes import REFERENCE

NOTHING = Estimate(np.nan, np.nan, np.nan)
UNSTABLE_MARK = "†"
"""After the name of a scheme that is unstable in some seeds, in tables and figures."""
UNSTABLE_NOTE = "unstable in some seeds: its means depend on the length of the run."
"""What UNSTABLE_MARK means."""
NO_BOUND = "this dataset holds no lower bound"


@dataclass(frozen=True)
class Gap:
    """How far above the lower bound, as a share of it: `whole`, and the means of LOSSES that it consists of."""

    whole: Estimate
    devices: float
    waiting: float
    service: float


@dataclass(frozen=True, kw_only=True)
class Summary(Usage):
    """What a comparison says of one scheme, after warm-up unless it says otherwise.

    status         ok, unstable, invalid (numbers became infinite), failed (an error ended it), not_applicable; `reason`
                   says why
    cost           cost per block; cost_full: warm-up included; cost_median: of the seeds
    discounted_from_start    sum of gamma^t cost from the first block; discounted_after_warmup: from the end of warm-up
    relative_cost  difference of cost to the reference scheme in per cent of it, paired by seed; None without one
    gap            to the lower bound on the scenario's objective, or None for the reason in `no_gap`
    cost_components  cost per block by component of (8)
    latency_s      mean, p50, p95, p99                 unfinished     share of tasks that the run's end cut off
    delays_s       the parts of the mean latency, by `partway.measurement.latency.DELAYS`
    throughput     work that devices and server do [mean tasks/s], also of unstable schemes
    growth_per_block  mean tasks per block by which waiting work grows, for unstable schemes
    heavy_tail     the mean radio cost is infinite in theory: the scheme ignores the channel and nothing limits power
    signalling     numbers sent up and down per device and block
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
    cost_components: dict[str, float]
    latency_s: dict[str, float]
    delays_s: dict[str, float]
    unfinished: float
    throughput: Estimate
    growth_per_block: float | None
    heavy_tail: bool
    signalling: dict[str, int]

    @property
    def partly_unstable(self) -> bool:
        """Whether some seeds are unstable, too few for the whole to be."""
        return self.status == "ok" and (self.reason or "").startswith("unstable")


def cost_of(dataset: xr.Dataset, scheme: str) -> np.ndarray:
    """(seeds, blocks) cost per block of a scheme."""
    return np.asarray(dataset["cost"].sel(scheme=scheme), np.float64).sum(axis=-1)


def relative_cost(dataset: xr.Dataset, scheme: str, reference: str) -> Estimate:
    """How much more `scheme` costs than `reference` after warm-up [% of it], paired by seed; NaN if that is free."""
    warmup = int(dataset.attrs["warmup"])
    ours, theirs = (cost_of(dataset, name)[:, warmup:].mean(axis=1) for name in (scheme, reference))
    if not (theirs > 0).all():
        return NOTHING
    return estimate(100.0 * (ours - theirs) / theirs)


def gap(dataset: xr.Dataset, scheme: str) -> Gap:
    """The gap of a scheme in a dataset that has a bound."""
    by_seed = numbers_of(_series(dataset.sel(scheme=scheme)), horizon_of(dataset)).gap
    assert by_seed is not None
    return gap_of(by_seed)


def gap_of(by_seed: np.ndarray) -> Gap:
    """The gap from (seeds, 3) of LOSSES."""
    return Gap(estimate(by_seed.sum(axis=-1)), *(float(value) for value in by_seed.mean(axis=0)))


def summarise(dataset: xr.Dataset, reference: str | None = REFERENCE) -> list[Summary]:
    """One summary per scheme of a dataset of `partway.compare`, in its order.

    reference  the scheme that `relative_cost` compares with; without it, or where it is not `ok`, there is none

    Raises InputError for anything else than such a dataset.
    """
    given, compared = cast(tuple[Any, Any], (dataset, reference))
    if not isinstance(given, xr.Dataset) or not {"scheme", "seed", "block"} <= {*given.dims}:
        raise InputError(f"summarise takes a dataset of partway.compare, got {type(given).__name__} {shown(given, 30)}")
    names = [str(name) for name in dataset["scheme"].values]
    status = {name: str(dataset["status"].sel(scheme=name).values) for name in names}
    if not isinstance(compared, str | None) or compared not in (None, REFERENCE, *names):
        raise InputError(f"summarise: no scheme {shown(reference)} in this dataset{nearest(str(reference), names)}")
    reference = reference if reference in names and status[reference] == "ok" else None
    return [_summarise(dataset, name, reference) for name in names]


def horizon_of(dataset: xr.Dataset) -> Horizon:
    """What the numbers of a comparison refer to."""
    attrs = dataset.attrs
    no_bound = str(attrs.get("bound_reason", NO_BOUND))
    return Horizon(
        warmup=int(attrs["warmup"]),
        discount=float(attrs["discount"]),
        objective=str(attrs["objective"]),
        block_s=float(attrs["block_s"]),
        bound=None if no_bound else float(attrs["bound"]),
        no_bound=no_bound,
    )


def with_gap_reasons(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with `gap_reason` of every scheme, and without the losses of those that have no gap."""
    horizon, rows = horizon_of(dataset), [dataset.sel(scheme=name) for name in dataset["scheme"].values]
    reasons = np.array([gap_reason(str(own["status"].values), horizon, _series(own)) for own in rows], object)
    dataset = dataset.assign(gap_reason=("scheme", reasons))
    has_gap = xr.DataArray(reasons == "", dims="scheme", coords={"scheme": dataset["scheme"]})
    return dataset.assign({f"loss_{name}": dataset[f"loss_{name}"].where(has_gap) for name in LOSSES})


def _series(own: xr.Dataset) -> Series:
    """The metrics of one scheme of a comparison."""
    cost = own["cost"]
    return lambda name: np.asarray(cost.sel(component=name) if name in COST_COMPONENTS else own[name])


def _summarise(dataset: xr.Dataset, name: str, reference: str | None) -> Summary:
    own, status = dataset.sel(scheme=name), str(dataset["status"].sel(scheme=name).values)
    ok, horizon, series = status == "ok", horizon_of(dataset), _series(own)
    no_gap, numbers = gap_reason(status, horizon, series), numbers_of(series, horizon)
    late = numbers.cost.sum(axis=1)

    def number(value: float) -> float:
        return value if ok else np.nan

    return Summary(
        name=name,
        status=status,
        reason=str(own["reason"].values) or None,
        cost=estimate(late) if ok else NOTHING,
        cost_full=estimate(numbers.cost_with_warmup) if ok else NOTHING,
        cost_median=number(float(np.median(late))),
        discounted_from_start=estimate(numbers.discounted_from_start),
        discounted_after_warmup=estimate(numbers.discounted_after_warmup),
        relative_cost=relative_cost(dataset, name, reference) if ok and reference and reference != name else None,
        gap=gap_of(numbers.gap) if numbers.gap is not None and not no_gap else None,
        no_gap=no_gap or None,
        cost_components=dict(zip(COST_COMPONENTS, map(number, numbers.cost.mean(axis=0).tolist()), strict=True)),
        latency_s={which: number(float(own["latency_s"].sel(statistic=which).mean())) for which in LATENCY},
        delays_s={which: number(float(own["delay_s"].sel(delay=which).mean())) for which in DELAYS},
        unfinished=number(float(own["unfinished"].mean())),
        throughput=estimate(numbers.throughput) if status in ("ok", "unstable") else NOTHING,
        device_j=number(numbers.device_j),
        server_j=number(numbers.server_j),
        wasted_j=number(numbers.wasted_j),
        offloaded=number(numbers.offloaded),
        cpu_utilisation=number(numbers.cpu_utilisation),
        radio_utilisation=number(numbers.radio_utilisation),
        server_utilisation=number(numbers.server_utilisation),
        power_mismatch=number(numbers.power_mismatch),
        settling_block=numbers.settling_block if ok else None,
        growth_per_block=float(own["growth_per_block"]) if status == "unstable" else None,
        heavy_tail=bool(own["heavy_tail"]),
        signalling={"up": int(own["signals_up"]), "down": int(own["signals_down"])},
    )
