"""A sweep as JSON for programs and as a table for the terminal."""

import json
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Group
from rich.table import Table
from rich.text import Text

from partway.errors import InputError, shorten
from partway.experiments.sweep.dataset import axis_names, cost_of, gap_of, grid
from partway.experiments.sweep.group import FAILED
from partway.formatting import number, percent, plain

SCHEMA_VERSION = 2
MAX_ROWS = 60
"""Points of the grid in the table on the terminal; files hold all of them."""
MAX_REASONS = 10


def as_json(dataset: xr.Dataset) -> dict[str, Any]:
    """The sweep as JSON types: null for what does not exist, never NaN."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "axes": json.loads(dataset.attrs["axes"]),
        "seeds": dataset["seed"].values.tolist(),
        "blocks": int(dataset.attrs["blocks"]),
        "warmup": int(dataset.attrs["warmup"]),
        "cases": [_case(dataset, at, str(name)) for at in grid(dataset) for name in dataset["scheme"].values],
    }
    return plain(document)


def _case(dataset: xr.Dataset, at: dict[str, int], scheme: str) -> dict[str, Any]:
    here = dataset.isel(at).sel(scheme=scheme)
    estimates = {"cost_per_block": cost_of(dataset, at, scheme), "gap": gap_of(dataset, at, scheme)}
    components = here["cost"].mean("seed", skipna=False)
    names = [str(name) for name in here.data_vars if here[name].ndim == 0 and name != "bound_slack"]
    return {
        "point": {here[name].attrs["field"]: here[name].item() for name in axis_names(dataset)},
        "scheme": scheme,
        **{name: {"mean": one.mean, "ci95": [one.low, one.high]} for name, one in estimates.items()},
        "cost_components": dict(zip(map(str, components["component"].values), components.values.tolist(), strict=True)),
        **{name: here[name].item() for name in names},
    }


def table(dataset: xr.Dataset, max_rows: int = MAX_ROWS) -> Group:
    """A row for each point, a column for each scheme: cost per block, and below it the gap where there is one."""
    schemes, points = [str(name) for name in dataset["scheme"].values], grid(dataset)
    has_gap = bool(np.isfinite(dataset["gap"]).any())
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for name in axis_names(dataset):
        rows.add_column(name, no_wrap=True)
    for name in schemes:
        rows.add_column(name, justify="right")
    for at in points[:max_rows]:
        labels = [_label(dataset[name].values[i]) for name, i in at.items()]
        rows.add_row(*labels, *(_cell(dataset, at, name, has_gap) for name in schemes))
    notes = ["cost per block after warm-up, ± 95 % over seeds" + "; below it the gap to the lower bound" * has_gap]
    if len(points) > max_rows:
        notes.append(f"not shown: {len(points) - max_rows} of {len(points)} points; the files hold all")
    return Group(rows, *(Text(line, style="dim") for line in notes), *_reasons(dataset))


def check_complete(dataset: xr.Dataset) -> None:
    """Raise InputError, with the cause, if a case has failed."""
    status, reasons = dataset["status"].values.ravel(), dataset["reason"].values.ravel()
    causes = [str(reason) for one, reason in zip(status, reasons, strict=True) if one == FAILED]
    if causes:
        more = "" if len({*causes}) == 1 else f", and {len({*causes}) - 1} more causes"
        raise InputError(
            f"{len(causes)} of {status.size} cases failed: {shorten(causes[0], 160)}{more}; run the same command again "
            "to try them again"
        )


def _label(value: Any) -> str:
    return value if isinstance(value, str) else number(float(value), 4)


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
    """Why cases have no numbers, and what is to be noted of others: each reason once, with the number of cases."""
    counts = dict[tuple[str, str], int]()
    for status, reason in zip(dataset["status"].values.ravel(), dataset["reason"].values.ravel(), strict=True):
        if status != "ok" or reason:
            counts[str(status), str(reason)] = counts.get((str(status), str(reason)), 0) + 1
    lines = [
        f"{count} x {status.replace('_', ' ')}: {reason.removeprefix(f'{status}: ')}"
        for (status, reason), count in counts.items()
    ]
    return [Text(line) for line in lines[:MAX_REASONS]]
