"""The page of a finished comparison: all schemes beside the lower bound, and each of them over its blocks."""

from pathlib import Path

import numpy as np
import xarray as xr

from partway.dashboard.view import (
    MEAN_BLOCKS,
    NO_PRICE,
    NOISE,
    Bar,
    Bars,
    Chart,
    Line,
    Page,
    Tile,
    View,
    cost_chart,
    running_mean,
    thinned,
    with_unit,
)
from partway.experiments.summary import Summary, summarise
from partway.formatting import number, percent
from partway.measurement.gap import COMPONENT_NAMES
from partway.measurement.latency import DELAY_NAMES, DELAYS
from partway.netcdf import load_dataset

MAX_TILES = 100


class Comparison:
    """A comparison that `partway compare --out` has written."""

    def __init__(self, folder: Path):
        """Read it. Raises InputError where the folder holds none, or a damaged one."""
        dataset = load_dataset(folder)
        schemes = sorted(summarise(dataset), key=lambda one: (one.status != "ok", one.cost.mean))
        sizes = dataset.sizes
        title = f"{dataset.attrs['scenario_name']}: {sizes['device']} devices, {sizes['seed']} seeds"
        views = [*([_all(dataset, schemes)] if len(schemes) > 1 else []), *(_view(dataset, one) for one in schemes)]
        status = f"finished, {sizes['block']} blocks, means after block {int(dataset.attrs['warmup'])}"
        self._page = Page(title, "ended", status, None, views)

    def page(self) -> Page:
        """The page."""
        return self._page


def _bound(dataset: xr.Dataset) -> float | None:
    """The lower bound on the mean cost of a block; None where there is none."""
    is_average = dataset.attrs["objective"] == "average" and not dataset.attrs["bound_reason"]
    return float(dataset.attrs["bound"]) if is_average else None


def _all(dataset: xr.Dataset, schemes: list[Summary]) -> View:
    """All schemes, cheapest first."""
    ok = [one for one in schemes if one.status == "ok"]
    others = ", ".join(f"{one.name} {one.status.replace('_', ' ')}" for one in schemes if one.status != "ok")
    costs = [Bar(one.name, one.cost.mean, number(one.cost.mean, 4)) for one in ok]
    gaps = [Bar(one.name, one.gap.whole.mean, percent(one.gap.whole)) for one in ok if one.gap]
    late = [Bar(one.name, one.latency_s["p95"], with_unit(one.latency_s["p95"], "s")) for one in ok]
    late = [bar for bar in late if np.isfinite(bar.value)]
    bars = [
        Bars("cost", "Cost per block", costs, _bound(dataset), "lower bound", others),
        Bars("gap", "Gap to the lower bound [%]", gaps, note=dataset.attrs["bound_reason"]),
        Bars("latency", "Latency, 95 % of the tasks", late),
    ]
    return View("all schemes", _facts_of_all(dataset), [], bars, *_fleet(dataset))


def _facts_of_all(dataset: xr.Dataset) -> list[tuple[str, str]]:
    reason = dataset.attrs["bound_reason"]
    bound = reason or number(float(dataset.attrs["bound"]), 4)
    return [("lower bound", bound), ("block", with_unit(1e3 * float(dataset.attrs["block_s"]), "ms"))]


def _view(dataset: xr.Dataset, one: Summary) -> View:
    facts = [
        ("cost per block", number(one.cost.mean, 4)),
        *_facts_of_all(dataset)[:1],
        ("gap to the lower bound", f"{percent(one.gap.whole)} %" if one.gap else "–"),
        ("latency, mean", with_unit(one.latency_s["mean"], "s")),
        ("latency, 95 % within", with_unit(one.latency_s["p95"], "s")),
        ("device energy per task", with_unit(one.device_j, "J")),
        ("server energy per task", with_unit(one.server_j, "J")),
        ("price at the bound", number(float(dataset.attrs.get("bound_price", np.nan)))),
        ("work sent to the server", with_unit(100 * one.offloaded, "%")),
    ]
    if one.status != "ok":
        facts.insert(0, ("status", one.reason or one.status.replace("_", " ")))
    return View(one.name, facts, _charts(dataset, one), [_stages(one), _losses(one)], *_fleet(dataset))


def _charts(dataset: xr.Dataset, one: Summary) -> list[Chart]:
    own = dataset.sel(scheme=one.name)

    def mean(name: str) -> np.ndarray:
        return np.asarray(own[name].mean("seed"), np.float64)

    blocks = np.arange(dataset.sizes["block"])
    cost = own["cost"].mean("seed")
    parts = {word: np.asarray(cost.sel(component=name), np.float64) for name, word in COMPONENT_NAMES.items()}
    at, queues = thinned(blocks, np.stack([mean("waiting"), mean("backlog")]))
    with np.errstate(divide="ignore", invalid="ignore"):
        _, sent = thinned(blocks, (mean("sent") / mean("started_work"))[None])
    smooth, note = running_mean(np.sum([*parts.values()], axis=0), MEAN_BLOCKS), "Means over the seeds."
    bound = _bound(dataset)
    return [
        cost_chart(blocks, parts, smooth, bound, note if bound is None else f"{note} {NOISE}"),
        Chart(
            "queues",
            "Queues",
            "lines",
            at,
            [Line("at all devices [tasks]", queues[0]), Line("at the server [mean tasks]", queues[1])],
        ),
        *([_price(blocks, mean("price"), dataset.attrs["bound_price"])] if "price" in own else []),  # newer files
        Chart("cuts", "Share of the started work that is sent", "lines", at, [Line("sent", sent[0])]),
    ]


def _price(blocks: np.ndarray, price: np.ndarray, at_bound: float) -> Chart:
    """The price that is broadcast, beside the one with which the lower bound is computed."""
    title = "Price of a task at the server"
    if np.isnan(price).all():
        return Chart("price", title, "lines", [], [], note=NO_PRICE)
    at, lines = thinned(blocks, price[None])
    mark = float(at_bound) if np.isfinite(at_bound) else None
    return Chart("price", title, "lines", at, [Line("price", lines[0])], mark=mark, mark_name="price at the bound")


def _losses(one: Summary) -> Bars:
    """Where the gap arises."""
    if one.gap is None:
        return Bars("losses", "Where the gap arises", [], note=one.no_gap or "")
    words = {"decisions of the devices": one.gap.devices, "work left waiting at the server": one.gap.waiting}
    words["rate of the server"] = one.gap.service
    bars = [Bar(word, share, with_unit(100 * share, "%")) for word, share in words.items()]
    return Bars("losses", "Where the gap arises", bars, note="Of the lower bound.")


def _stages(one: Summary) -> Bars:
    bars = [Bar(DELAY_NAMES[name], one.delays_s[name], with_unit(one.delays_s[name], "s")) for name in DELAYS]
    known = [bar for bar in bars if np.isfinite(bar.value)]
    return Bars("stages", "Where the latency arises (mean)", known, note="" if known else "No latency was computed.")


def _fleet(dataset: xr.Dataset) -> tuple[list[Tile], str]:
    """A tile for each device: where it is, and its channel."""
    distance, gain = (np.asarray(dataset[name]).tolist() for name in ("distance_m", "mean_gain_per_w"))
    largest = max(gain)
    tiles = [
        Tile(f"device {k}", "placed", f"{number(metres)} m away", [f"mean gain {number(own)} /W"], own / largest)
        for k, (metres, own) in enumerate(zip(distance, gain, strict=True))
    ]
    note = f"{MAX_TILES} of {len(tiles)} devices. " if len(tiles) > MAX_TILES else ""
    return tiles[:MAX_TILES], f"{note}Bars: mean channel gain."
