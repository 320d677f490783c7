"""A comparison as JSON for programs, and as a table with a legend for people."""

import math
import tomllib
from collections.abc import Sequence
from typing import Any, cast

import xarray as xr
from rich.console import Console, Group, RenderableType
from rich.text import Text

from partway.bound.report import assumptions
from partway.experiments import by_device, failures, tidy
from partway.experiments.statistics import Estimate
from partway.experiments.summary import UNSTABLE_MARK, UNSTABLE_NOTE, Summary, summarise
from partway.formatting import number, percent, plain, with_interval
from partway.measurement.gap import COMPONENT_NAMES
from partway.measurement.latency import DELAY_NAMES
from partway.schemes import REFERENCE
from partway.text_tables import Grid, details_grid

SCHEMA_VERSION = 2
"""Schema version of the JSON; increment when a key is renamed."""


def as_json(dataset: xr.Dataset, summaries: Sequence[Summary] | None = None) -> dict[str, Any]:
    """The results as JSON types: null for what does not exist or is infinite, never NaN.

    summaries  of the dataset's schemes, which saves the time to compute them
    """
    document = {
        "schema_version": SCHEMA_VERSION,
        "scenario": tomllib.loads(dataset.attrs["scenario"]),
        "seeds": dataset["seed"].values.tolist(),
        "blocks": dataset.sizes["block"],
        "warmup": int(dataset.attrs["warmup"]),
        "placement": {name: dataset[name].values.tolist() for name in ("distance_m", "mean_gain_per_w")},
        "lower_bound": _bound(dataset),
        "schemes": [
            _scheme(summary, dataset.attrs["objective"]) | {"classes": by_device.as_json(dataset, summary.name)}
            for summary in summaries or summarise(dataset)
        ],
    }
    return cast(dict[str, Any], plain(document))


def _bound(dataset: xr.Dataset) -> dict[str, Any]:
    """The bound on the scenario's objective, and what its proof assumes; the other one is not computed."""
    objective, why = dataset.attrs["objective"], dataset.attrs["bound_reason"] or None
    values: dict[str, Any] = {"objective": objective, "average": None, "discounted": None}
    values[objective] = dataset.attrs["bound"]
    about = {name: dataset.attrs[f"bound_{name}"] for name in ("price", "slack")}
    return values | about | {"assumes": None if why else assumptions(objective), "reason": why}


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
        "latency_s": summary.latency_s | {"unfinished_share": summary.unfinished, "delays": summary.delays_s},
        "throughput_per_s": _estimate(summary.throughput),
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
        "growth_per_block": summary.growth_per_block,
    }


def _estimate(value: Estimate) -> dict[str, Any]:
    return {"mean": value.mean, "ci95": [value.low, value.high]}


COST_AND_LATENCY = ("cost\nper block", "vs const.\n%", "gap to bound\n%", "latency\nmean s", "latency\np95 s")
ENERGY_AND_MESSAGES = ("device\nJ/task", "server\nJ/task", "sent", "up/\ndown")
DELAY_TITLES = ("device\nwaits", "device\ncomputes", "radio\nsends", "server\nwaits", "server\ncomputes", "in all")
"""DELAY_NAMES, short enough for columns."""


def _name(summary: Summary) -> str:
    """The scheme's name with the marks that the legend explains."""
    ok = summary.status == "ok"
    return summary.name + UNSTABLE_MARK * summary.partly_unstable + "*" * (ok and summary.heavy_tail)


def _row(summary: Summary) -> list[str]:
    if summary.status != "ok":
        return [summary.name, summary.status.replace("_", " "), *["-"] * 8]
    late, relative = summary.latency_s, summary.relative_cost
    return [
        _name(summary),
        with_interval(summary.cost, 4),
        f"{relative.mean:+.1f}" if relative and math.isfinite(relative.mean) else "-",
        percent(summary.gap.whole) if summary.gap else "-",
        number(late["mean"], 2),
        number(late["p95"], 2),
        number(summary.device_j),
        number(summary.server_j),
        f"{summary.offloaded:.0%}" if math.isfinite(summary.offloaded) else "-",
        f"{summary.signalling['up']}/{summary.signalling['down']}",
    ]


def _table(dataset: xr.Dataset, summaries: Sequence[Summary]) -> Group:
    """The comparison for the terminal, cheapest scheme first, a legend, and where the latency arises."""
    summaries = sorted(summaries, key=lambda one: (one.status != "ok", one.cost.mean))
    costs = Grid(_title(dataset))
    costs.add_column("scheme", name=True)
    for head in COST_AND_LATENCY + ENERGY_AND_MESSAGES:
        costs.add_column(head, "right")
    for summary in summaries:
        costs.add_row(*_row(summary), style="bold" if summary.name == REFERENCE else "")
    return Group(costs, *_legend(dataset, summaries), *_delays(summaries))


def _delays(summaries: Sequence[Summary]) -> list[RenderableType]:
    """A table of the parts of the mean latency of every scheme whose latency is known."""
    known = [one for one in summaries if math.isfinite(one.latency_s["mean"])]
    if not known:
        return []
    grid = Grid("Mean latency by part [s]")
    grid.add_column("scheme", name=True)
    for head in DELAY_TITLES:
        grid.add_column(head, "right")
    for one in known:
        values = (*one.delays_s.values(), one.latency_s["mean"])
        grid.add_row(_name(one), *(number(value, 3) for value in values), style="bold" if one.name == REFERENCE else "")
    note = (
        "Means over all tasks; a task that is not sent counts with 0 s at radio and server. Device wait: until the "
        "device begins, and where a whole task is sent until the block ends. Server wait: from the end of the radio "
        "slot, for the server's next block at least."
    )
    return [Text(""), grid, Text(note, style="dim")]


def _title(dataset: xr.Dataset) -> str:
    sizes, warmup = dataset.sizes, int(dataset.attrs["warmup"])
    return (
        f"{dataset.attrs['scenario_name']}: {sizes['device']} devices, {sizes['block']} blocks, {sizes['seed']} seeds; "
        f"means after block {warmup}, ± 95 %"
    )


def bound_note(value: str) -> str:
    """What a cost below a lower bound and a gap that is not their ratio mean."""
    return (
        f"distance from the proven lower bound, {value} (docs/bound.md), measured without most of the noise in "
        "the cost of a finite run: a cost can be below the bound, and cost / bound - 1 is not the gap."
    )


def _legend(dataset: xr.Dataset, summaries: Sequence[Summary]) -> list[Text]:
    objective = "" if dataset.attrs["objective"] == "average" else " for the discounted sum of costs"
    notes = {
        "cost per block": "weighted waiting and energy of all devices and the server, equation (8); cheapest first.",
        "vs const.": "difference to a constant policy that was tuned on other seeds, paired by seed.",
        "gap to bound": dataset.attrs["bound_reason"] or bound_note(number(dataset.attrs["bound"], 4) + objective),
        "sent": "share of the started work that is offloaded.",
        "up/down": "numbers sent per device and block for control.",
    }
    if any(summary.partly_unstable for summary in summaries):
        notes[UNSTABLE_MARK] = UNSTABLE_NOTE
    if any(summary.heavy_tail and summary.status == "ok" for summary in summaries):
        notes["*"] = "offloads on any channel without a power limit: its mean radio cost is infinite in theory."
    lines = [Text(f"{name}: {text}", style="dim") for name, text in notes.items()]
    medians = [f"{one.name} {number(one.cost_median, 4)}" for one in summaries if one.heavy_tail and one.status == "ok"]
    lines += [Text(f"* median of the seeds: {', '.join(medians)}")] if medians else []
    lines += [Text(f"{one.name}: {_reason(one)}") for one in summaries if one.reason]
    if dataset.attrs["bound_reason"]:  # in the legend already
        return lines
    return lines + [Text(f"{one.name}: no gap, {one.no_gap}") for one in summaries if one.status == "ok" and one.no_gap]


def _reason(one: Summary) -> str:
    """Why a scheme is not ok, with the growth of its queues."""
    growth = "" if one.growth_per_block is None else f", by {number(one.growth_per_block)} mean tasks per block"
    reason, separator, note = (one.reason or "").partition("; ")
    return f"{reason}{growth}{separator}{note}"


def check_complete(dataset: xr.Dataset) -> None:
    """Raise InputError, with the cause, if schemes have failed or are invalid."""
    rows = (dataset.sel(scheme=name) for name in dataset["scheme"].values)
    runs = [(str(row["status"].values), f"{row['scheme'].item()}: {row['reason'].values}") for row in rows]
    failures.check_complete(runs, f"scheme{'s' * (len(runs) > 1)}")


def _details_table(dataset: xr.Dataset, one: Summary) -> Group:
    """Every number of a dataset's only scheme, one a line."""
    grid = details_grid(f"{one.name} on {_title(dataset)}")
    for name, value, unit in _lines(one, dataset.attrs["bound"]):
        grid.add_row(name, value, unit)
    return Group(grid, *([Text(f"{one.name}: {one.reason}")] if one.reason else []))


def _lines(one: Summary, bound: float) -> list[tuple[str, str, str]]:
    """(name, value, unit) of all that a summary holds."""
    blocks = "-" if one.settling_block is None else str(one.settling_block)
    growth = one.growth_per_block
    return [
        (
            "status",
            one.status,
            "" if growth is None else f"waiting work grows by {growth:.3g} tasks per block",
        ),
        ("cost per block", with_interval(one.cost, 4), "with warm-up: " + with_interval(one.cost_full, 4)),
        *((f"  {COMPONENT_NAMES[part]}", number(value, 4), "") for part, value in one.cost_components.items()),
        *_gap_lines(one, bound),
        ("discounted cost", with_interval(one.discounted_from_start, 4), "from the first block"),
        ("", with_interval(one.discounted_after_warmup, 4), "from the end of warm-up"),
        *((f"latency, {name}", number(value), "s") for name, value in one.latency_s.items()),
        *((f"  {DELAY_NAMES[name]}", number(value), "s of the mean") for name, value in one.delays_s.items()),
        ("throughput", with_interval(one.throughput, 4), "mean tasks per second"),
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


def _gap_lines(one: Summary, bound: float) -> list[tuple[str, str, str]]:
    if one.gap is None:
        return [("gap to the lower bound", "-", one.no_gap or "")]
    about = "for every policy (docs/bound.md); the noisy cost of a finite run can be lower; the gap lacks that noise"
    parts = (("devices", one.gap.devices), ("waiting", one.gap.waiting), ("service", one.gap.service))
    said = ", ".join(f"{name} {number(100 * part, 2)}" for name, part in parts)
    own = ("gap to the lower bound", percent(one.gap.whole), f"% of it: {said}")
    return [("lower bound", number(bound, 4), about), own]


def summary_rows(document: dict[str, Any], scenario_name: str) -> list[list[Any]]:
    """summary.csv of the JSON of a comparison."""
    schemes = document["schemes"]
    before = {"scenario": [scenario_name] * len(schemes), "scheme": [one["name"] for one in schemes]}
    return tidy.rows(before, schemes)


def show(
    dataset: xr.Dataset,
    console: Console,
    by: by_device.By | None = None,
    summaries: Sequence[Summary] | None = None,
) -> None:
    """Print a comparison, or all about the only scheme; `by`: also by class or device. summaries: as in `as_json`."""
    known = summaries or summarise(dataset)
    console.print(_details_table(dataset, known[0]) if len(known) == 1 else _table(dataset, known))
    if by:
        console.print(Text(""), by_device.table(dataset, by))
