"""A comparison as JSON for programs, and as a table with a legend for people."""

import math
import tomllib
from collections.abc import Sequence
from typing import Any, cast

import xarray as xr
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from partway.experiments.statistics import Estimate
from partway.experiments.summary import Summary, summarise
from partway.formatting import number, percent, plain, with_interval
from partway.schemes import REFERENCE

SCHEMA_VERSION = 2
"""Of the JSON document; raised when a key is renamed."""


def as_json(dataset: xr.Dataset) -> dict[str, Any]:
    """The results as JSON types: null for what does not exist or is infinite, never NaN."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "scenario": tomllib.loads(dataset.attrs["scenario"]),
        "seeds": dataset["seed"].values.tolist(),
        "blocks": dataset.sizes["block"],
        "warmup": int(dataset.attrs["warmup"]),
        "placement": {name: dataset[name].values.tolist() for name in ("distance_m", "mean_gain_per_w")},
        "lower_bound": _bound(dataset),
        "schemes": [_scheme(summary, dataset.attrs["objective"]) for summary in summarise(dataset)],
    }
    return cast(dict[str, Any], plain(document))


def _bound(dataset: xr.Dataset) -> dict[str, Any]:
    """The bound on the scenario's objective; the other one is not computed."""
    values: dict[str, Any] = {"average": None, "discounted": None}
    values[dataset.attrs["objective"]] = dataset.attrs["bound"]
    about = {name: dataset.attrs[f"bound_{name}"] for name in ("price", "slack")}
    return values | about | {"reason": dataset.attrs["bound_reason"] or None}


def _gap(summary: Summary, objective: str) -> dict[str, Any]:
    if summary.gap is None:
        values: dict[str, Any] = dict.fromkeys(("mean", "ci95", "devices", "waiting", "service"))
    else:
        parts = {"devices": summary.gap.devices, "waiting": summary.gap.waiting, "service": summary.gap.service}
        values = _estimate(summary.gap.whole) | parts
    return values | {"objective": objective, "reason": summary.no_gap}


def _scheme(summary: Summary, objective: str) -> dict[str, Any]:
    return {
        "name": summary.name,
        "status": summary.status,
        "reason": summary.reason,
        "cost_per_block": _estimate(summary.cost) | {"median": summary.cost_median},
        "cost_per_block_with_warmup": _estimate(summary.cost_full),
        "relative_cost_percent": _estimate(summary.relative_cost) if summary.relative_cost else None,
        "discounted_cost": {
            "from_start": _estimate(summary.discounted_from_start),
            "after_warmup": _estimate(summary.discounted_after_warmup),
        },
        "gap": _gap(summary, objective),
        "cost_components": summary.cost_components,
        "latency_s": summary.latency_s | {"unfinished_share": summary.unfinished},
        "energy_j_per_task": {"device": summary.device_j, "server": summary.server_j, "wasted": summary.wasted_j},
        "offloaded_share": summary.offloaded,
        "utilisation": {
            "cpu": summary.cpu_utilisation,
            "radio": summary.radio_utilisation,
            "server": summary.server_utilisation,
        },
        "power_mismatch": summary.power_mismatch,
        "settling_block": summary.settling_block,
        "heavy_tail": summary.heavy_tail,
        "signalling": summary.signalling,
        "growth_per_block": summary.growth,
    }


def _estimate(value: Estimate) -> dict[str, Any]:
    return {"mean": value.mean, "ci95": [value.low, value.high]}


def _row(summary: Summary) -> list[str]:
    if summary.status in ("not_applicable", "invalid"):
        return [summary.name, summary.status.replace("_", " "), *["-"] * 8]
    if summary.status == "unstable":
        return [summary.name, f"unstable (+{number(summary.growth or 0)})", *["-"] * 8]
    late = summary.latency_s
    return [
        summary.name + ("*" if summary.heavy_tail else ""),
        with_interval(summary.cost, 4),
        f"{summary.relative_cost.mean:+.1f}"
        if summary.relative_cost and math.isfinite(summary.relative_cost.mean)
        else "-",
        percent(summary.gap.whole) if summary.gap else "-",
        number(late["mean"], 2),
        number(late["p95"], 2),
        number(summary.device_j),
        number(summary.server_j),
        f"{summary.offloaded:.0%}" if math.isfinite(summary.offloaded) else "-",
        f"{summary.signalling['up']}/{summary.signalling['down']}",
    ]


WAITING_AND_COST = ("cost per block", "vs const.\n%", "gap to bound\n%", "latency\nmean s", "\np95 s")


ENERGY_AND_MESSAGES = ("device\nJ/task", "server\nJ/task", "sent", "up/\ndown")


def table(dataset: xr.Dataset) -> Group:
    """The comparison for the terminal, cheapest scheme first, and a legend."""
    summaries = summarise(dataset)
    grid = Table(title=_title(dataset), title_justify="left", header_style="bold", box=None, pad_edge=False)
    grid.collapse_padding = True
    grid.add_column("scheme", no_wrap=True)
    for head in WAITING_AND_COST + ENERGY_AND_MESSAGES:
        grid.add_column(head, justify="right", no_wrap=True)
    for summary in sorted(summaries, key=lambda one: (one.status != "ok", one.cost.mean)):
        grid.add_row(*_row(summary), style="bold" if summary.name == REFERENCE else "")
    return Group(grid, *_legend(summaries, dataset.attrs.get("bound_reason", "")))


def _title(dataset: xr.Dataset) -> str:
    sizes, warmup = dataset.sizes, int(dataset.attrs["warmup"])
    return (
        f"{dataset.attrs['scenario_name']}: {sizes['device']} devices, {sizes['block']} blocks, {sizes['seed']} seeds; "
        f"means after block {warmup}, ± 95 %"
    )


def _legend(summaries: Sequence[Summary], no_bound: str) -> list[Text]:
    notes = {
        "cost per block": "weighted waiting and energy of all devices and the server, equation (8); cheapest first.",
        "vs const.": "difference to a constant policy that was tuned on other seeds, paired by seed.",
        "gap to bound": no_bound
        or "distance from a proven lower bound on the cost of every policy (docs/bound.md). The cost of a "
        "finite run can lie below the bound; the gap is measured with much less noise.",
        "sent": "share of the started work that is offloaded.",
        "up/down": "numbers sent per device and block for control.",
    }
    if any(summary.status == "unstable" for summary in summaries):
        notes["unstable (+x)"] = "waiting work grows by x tasks per block; an average would depend on the run's length."
    if any(summary.heavy_tail and summary.status == "ok" for summary in summaries):
        notes["*"] = "offloads on any channel without a power limit: its mean radio cost is infinite in theory."
    lines = [Text(f"{name}: {text}", style="dim") for name, text in notes.items()]
    medians = [f"{one.name} {number(one.cost_median, 4)}" for one in summaries if one.heavy_tail and one.status == "ok"]
    lines += [Text(f"* median of the seeds: {', '.join(medians)}")] if medians else []
    return lines + [Text(f"{one.name}: {one.reason}") for one in summaries if one.reason]


def details_table(dataset: xr.Dataset) -> Group:
    """Every number of a dataset's only scheme, one a line."""
    (one,) = summarise(dataset, reference=None)
    grid = Table(
        title=f"{one.name} on {_title(dataset)}", title_justify="left", box=None, pad_edge=False, show_header=False
    )
    for name, value, unit in _lines(one):
        grid.add_row(name, value, unit)
    return Group(grid, *([Text(f"{one.name}: {one.reason}")] if one.reason else []))


def _lines(one: Summary) -> list[tuple[str, str, str]]:
    """(name, value, unit) of all that a summary holds."""
    blocks = "-" if one.settling_block is None else str(one.settling_block)
    return [
        ("status", one.status, "" if one.growth is None else f"waiting work grows by {one.growth:.3g} tasks per block"),
        ("cost per block", with_interval(one.cost, 4), "with warm-up: " + with_interval(one.cost_full, 4)),
        *((f"  {part.replace('_', ' ')}", number(value, 4), "") for part, value in one.cost_components.items()),
        *_gap_lines(one),
        ("discounted cost", with_interval(one.discounted_from_start, 4), "from empty queues"),
        ("", with_interval(one.discounted_after_warmup, 4), "from the end of warm-up"),
        *((f"latency, {name}", number(value), "s") for name, value in one.latency_s.items()),
        ("unfinished tasks", number(100 * one.unfinished), "% of those that arrived after warm-up"),
        ("device energy per task", number(one.device_j), "J"),
        ("server energy per task", number(one.server_j), f"J, of which {number(one.wasted_j)} on an empty queue"),
        ("offloaded", number(100 * one.offloaded), "% of the started work"),
        (
            "CPU, radio, server in use",
            ", ".join(number(100 * x) for x in (one.cpu_utilisation, one.radio_utilisation, one.server_utilisation)),
            "%",
        ),
        ("other power spent than commanded", number(100 * one.power_mismatch), "% of device-blocks"),
        ("running mean within 5 % after", blocks, "blocks"),
        ("numbers up, down", f"{one.signalling['up']}, {one.signalling['down']}", "per device and block"),
    ]


def _gap_lines(one: Summary) -> list[tuple[str, str, str]]:
    if one.gap is None:
        return [("gap to the lower bound", "-", one.no_gap or "")]
    parts = (("devices", one.gap.devices), ("waiting", one.gap.waiting), ("service", one.gap.service))
    said = ", ".join(f"{name} {number(100 * part, 2)}" for name, part in parts)
    return [("gap to the lower bound", percent(one.gap.whole), f"% of it: {said}")]


def show(dataset: xr.Dataset, console: Console) -> None:
    """Print a comparison, or all about the only scheme."""
    console.print(details_table(dataset) if dataset.sizes["scheme"] == 1 else table(dataset))
