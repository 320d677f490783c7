"""A sweep as JSON for programs and as a table for the terminal."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import numpy as np
import xarray as xr
from rich.console import Console, Group
from rich.text import Text

from partway.errors import compact
from partway.experiments import by_device, failures, tidy
from partway.experiments.report import bound_note
from partway.experiments.statistics import Estimate, estimate
from partway.experiments.sweep.dataset import axis_names, cost_of, gap_of, grid
from partway.formatting import number, percent, plain
from partway.measurement.by_device import MAX_DEVICES
from partway.text_tables import Grid, shorten_name

SCHEMA_VERSION = 2
MAX_ROWS = 60
"""Points of the grid, or rows by class, in the tables on the terminal; files hold all of them."""
By = Literal["class"]
CLIPPED = re.compile(r"[\d,]+ (actions out of range were clipped)( \([^)]*\))?")
"""The note of `partway.experiments.status.with_note`."""
MAX_REASONS = 10
ELSEWHERE = ("bound_slack", "gap_reason")
"""Variables of a case that its JSON leaves out or has at another place."""


def as_json(dataset: xr.Dataset) -> dict[str, Any]:
    """The sweep as JSON types: null for what does not exist, never NaN."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "axes": json.loads(dataset.attrs["axes"]),
        "seeds": dataset["seed"].values.tolist(),
        "blocks": int(dataset.attrs["blocks"]),
        "warmup": int(dataset.attrs["warmup"]),
        "bound_assumes": json.loads(dataset.attrs["bound_assumes"]),
        "cases": [_case(dataset, at, str(name)) for at in grid(dataset) for name in dataset["scheme"].values],
    }
    return plain(document)


def _case(dataset: xr.Dataset, at: dict[str, int], scheme: str) -> dict[str, Any]:
    here = dataset.isel(at).sel(scheme=scheme)
    names = [str(name) for name in here.data_vars if here[name].ndim == 0 and name not in ELSEWHERE]

    def means(name: str, dim: str) -> dict[str, float]:
        values = here[name].mean("seed", skipna=False)
        return dict(zip(map(str, values[dim].values), values.values.tolist(), strict=True))

    return {
        "point": {here[name].attrs["field"]: here[name].item() for name in axis_names(dataset)},
        "scheme": scheme,
        "cost_per_block": _estimate(cost_of(dataset, at, scheme)),
        "gap": _estimate(gap_of(dataset, at, scheme)) | {"reason": here["gap_reason"].item() or None},
        "cost_components": means("cost", "component"),
        "latency_s": means("latency_s", "statistic") | {"delays": means("delay_s", "delay")},
        "unfinished_share": float(here["unfinished"].mean("seed", skipna=False)),
        "throughput_per_s": _estimate(estimate(here["throughput"].to_numpy())),
        **{name: here[name].item() for name in names},
        "classes": _classes(here),
    }


def _classes(here: xr.Dataset) -> list[dict[str, Any]] | None:
    """The classes that have devices at a point, for one scheme; None where nothing is kept of single devices."""
    counts = here["devices_by_class"].to_numpy()
    if counts.sum() > MAX_DEVICES:
        return None
    return by_device.classes(here.isel({"class": counts > 0}), counts[counts > 0].tolist())


def _estimate(one: Estimate) -> dict[str, Any]:
    return {"mean": one.mean, "ci95": [one.low, one.high]}


def summary_rows(document: Mapping[str, Any], dataset: xr.Dataset) -> list[list[Any]]:
    """summary.csv of the JSON of a sweep: the axes come first."""
    cases = document["cases"]
    keys = zip(*(_key(case, dataset) for case in cases), strict=True)
    return tidy.rows(dict(zip(_key_titles(dataset), map(list, keys), strict=True)), cases)


def class_rows(document: Mapping[str, Any], dataset: xr.Dataset) -> list[list[Any]]:
    """by-class.csv of the JSON of a sweep: a row for each case and each class that has devices there."""
    rows = [[*_key_titles(dataset), *by_device.CLASS_COLUMNS]]
    for case in document["cases"]:
        rows += [[*_key(case, dataset), *by_device.class_row(one)] for one in case["classes"] or ()]
    return rows


def _key_titles(dataset: xr.Dataset) -> list[str]:
    """Titles of the first columns of CSV files: scenario, axes with their units, scheme."""
    about = [dataset[name].attrs for name in axis_names(dataset)]
    return ["scenario", *(f"{attrs['field']} [{attrs['units']}]" for attrs in about), "scheme"]


def _key(case: Mapping[str, Any], dataset: xr.Dataset) -> list[Any]:
    """The cells under `_key_titles` of a case."""
    return [dataset.attrs["scenario_name"], *case["point"].values(), case["scheme"]]


def csv_rows(document: Mapping[str, Any]) -> list[list[Any]]:
    """The cases of a JSON document as rows of a CSV file, the first with the names of the columns; without classes."""
    rows = [
        dict(_flat({name: value for name, value in case.items() if name != "classes"})) for case in document["cases"]
    ]
    return [list(rows[0]), *(["" if value is None else value for value in row.values()] for row in rows)]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and word in a document, by its dotted name; intervals as `low` and `high`."""
    for name, inner in value.items():
        at = name if prefix in ("", "point.") else f"{prefix}{name}"
        if isinstance(inner, Mapping):
            yield from _flat(cast(Mapping[str, Any], inner), f"{at}.")
        elif isinstance(inner, list):
            yield from zip((f"{prefix}low", f"{prefix}high"), inner, strict=True)
        else:
            yield at, inner


def table(dataset: xr.Dataset, max_rows: int | None = MAX_ROWS) -> Group:
    """A row for each point, a column for each scheme: cost per block, and below it the gap where there is one.

    max_rows  points that are shown; None: all
    """
    schemes, points = [str(name) for name in dataset["scheme"].values], grid(dataset)
    has_gap = bool(np.isfinite(dataset["gap"]).any())
    rows = Grid(keys=len(axis_names(dataset)))
    for name in axis_names(dataset):
        rows.add_column(name, name=dataset[name].dtype.kind not in "if")
    for name in schemes:
        rows.add_column(shorten_name(name), "right")
    for at in points[:max_rows]:
        labels = [_label(dataset[name].values[i]) for name, i in at.items()]
        rows.add_row(*labels, *(_cell(dataset, at, name, has_gap) for name in schemes))
    notes = ["cost per block after warm-up, ± 95 % over seeds" + "; below it the gap to the lower bound" * has_gap]
    if has_gap:
        notes.append(f"gap: {bound_note('`bound` in the files')}")
    left_out = len(points[max_rows:]) if max_rows else 0
    if left_out:
        notes.append(f"not shown: {left_out} of {len(points)} points; the files hold all")
    return Group(rows, *(Text(line, style="dim") for line in notes), *_reasons(dataset))


def class_table(dataset: xr.Dataset, max_rows: int | None = MAX_ROWS) -> Group:
    """A row for each point, scheme and class that has devices there; None: no row is left out."""
    axes, schemes = axis_names(dataset), [str(name) for name in dataset["scheme"].values]
    rows = Grid("By class, means after warm-up", keys=len(axes) + 2)
    for name in axes:
        rows.add_column(name, name=dataset[name].dtype.kind not in "if")
    rows.add_column("scheme", name=True)
    rows.add_column("class", name=True)
    for title in ("devices", *by_device.TITLES):
        rows.add_column(title, "right")
    classes, counts = dataset["class"].values.tolist(), dataset["devices_by_class"].to_numpy()
    every = [
        (at, scheme, i)
        for at in grid(dataset)
        for scheme in schemes
        for i in np.flatnonzero(counts[*at.values()]).tolist()
    ]
    for at, scheme, i in every[:max_rows]:
        labels = [_label(dataset[name].values[n]) for name, n in at.items()]
        own, count = dataset.isel(at).sel(scheme=scheme), str(counts[*at.values(), i])
        rows.add_row(*labels, scheme, classes[i], count, *by_device.cells(own, "class", i))
    notes = [by_device.NOTE]
    if counts.sum(axis=-1).max() > MAX_DEVICES:
        notes.append(by_device.nothing_kept())
    left_out = len(every[max_rows:]) if max_rows else 0
    if left_out:
        notes.append(f"not shown: {left_out} of {len(every)} rows; the files hold all")
    return Group(rows, *(Text(line, style="dim") for line in notes))


def show(dataset: xr.Dataset, console: Console, by: By | None = None, max_rows: int | None = MAX_ROWS) -> None:
    """Print a sweep; `by`: also by class."""
    console.print(table(dataset, max_rows))
    if by:
        console.print(Text(""), class_table(dataset, max_rows))


def check_complete(dataset: xr.Dataset) -> None:
    """Raise InputError, with the cause, if cases have failed or are invalid."""
    runs = zip(dataset["status"].values.ravel(), dataset["reason"].values.ravel(), strict=True)
    failures.check_complete(runs, "cases", "; run the same command again to try them again")


def _label(value: Any) -> str:
    return value if isinstance(value, str) else compact(float(value))


def _cell(dataset: xr.Dataset, at: dict[str, int], scheme: str, gaps: bool) -> str:
    """Cost and gap, or the status."""
    status = str(dataset["status"].isel(at).sel(scheme=scheme).values)
    if status != "ok":
        return status.replace("_", " ")
    cost, gap = cost_of(dataset, at, scheme), gap_of(dataset, at, scheme)
    half = (cost.high - cost.low) / 2
    text = number(cost.mean, 4) + (f" ± {number(half, 2)}" if np.isfinite(half) else "")
    return f"{text}\n{percent(gap)} %" if gaps and np.isfinite(gap.mean) else text


def _reasons(dataset: xr.Dataset) -> list[Text]:
    """Why cases have no numbers or no gap, and notes on others: each reason once, with the number of cases."""
    failed, notes = Counter[str](), Counter[str]()
    for status, reason in zip(dataset["status"].values.ravel(), dataset["reason"].values.ravel(), strict=True):
        if status != "ok":
            failed[f"{status.replace('_', ' ')}: {reason.removeprefix(f'{status}: ')}"] += 1
        elif reason:
            notes[CLIPPED.sub(r"\1", reason)] += 1  # without the numbers, in which most cases differ
    no_gap = Counter(dataset["gap_reason"].values[dataset["status"].values == "ok"].tolist())
    without = {f"no gap: {reason}": count for reason, count in no_gap.items() if reason}
    lines = [f"{count} x {reason}" for reason, count in (failed | without | notes).items()]
    more = len(lines) - MAX_REASONS
    return [Text(line) for line in [*lines[:MAX_REASONS], *([f"and {more} more reasons"] if more > 0 else [])]]
