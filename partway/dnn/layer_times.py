"""Times of layers that were measured elsewhere, such as on the device itself: a CSV file for a network's cuts.

    after,ms
    conv1,2.1
    pool5,41.0
    scores,60.2

`after` holds names of tensors in the profile, or `cut` holds the numbers of cuts. One of `seconds` and `ms` is the time
from the start until the tensor is there; `layer_seconds` and `layer_ms` are the time since the row above instead. The
output must be among the rows, and no name twice; `layer_seconds` and `layer_ms` of the same number of a cut are added.
Between rows time passes in proportion to the multiply-accumulates. A profile with `seconds` is such a file, too.
"""

import csv
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from partway.dnn.profile import EXTRA, MAX_FILE_BYTES, Profile, check_cells, clean_text
from partway.errors import InputError, compact, nearest, shown
from partway.files import read_limited, why

TIMES = {"seconds": (1.0, False), "ms": (1e-3, False), "layer_seconds": (1.0, True), "layer_ms": (1e-3, True)}
"""Columns of times: their unit [s], and whether they are the time since the row above."""
MAX_SECONDS = 1e9


def read_times(file: str, profile: Profile) -> np.ndarray:
    """(cuts,) time [s] of the layers before each cut of the profile.

    Raises InputError, in one line, for a file that cannot be read, unknown cuts, times that fall, or no output.
    """
    try:
        text = read_limited(file, MAX_FILE_BYTES).decode("utf-8-sig")
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        rows = list(csv.DictReader(lines, restkey=EXTRA, skipinitialspace=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"cannot read the times '{file}': {why(error)}") from None
    try:
        return _elapsed(rows, profile)
    except ValueError as error:
        raise InputError(f"times '{clean_text(Path(file).name)}': {error}") from None


def _elapsed(rows: Sequence[Mapping[str, str | None]], profile: Profile) -> np.ndarray:
    header = [name for name in rows[0] if name != EXTRA] if rows else []
    columns = [name for name in TIMES if name in header]
    if len(columns) != 1 or not {"cut", "after"} & {*header}:
        found = shown(",".join(map(str, header)))
        raise ValueError(f"it needs a column 'after' or 'cut' and one of {', '.join(TIMES)}; its first line is {found}")
    unit, since_above = TIMES[columns[0]]
    numbers = _numbers(profile)
    check_cells(rows)
    at = [_cut(row, numbers, profile) for row in rows]
    if "after" in header or not since_above:
        _check_unique(rows)
    times = unit * np.array([_time(columns[0], row[columns[0]]) for row in rows])
    elapsed = np.cumsum(times) if since_above else times
    if any(second < first for first, second in pairwise(at)):
        raise ValueError("the rows must be in the order of the cuts")
    if (np.diff(elapsed) < 0).any():
        raise ValueError(f"{columns[0]} must not fall")
    if at[-1] != len(profile.cuts) - 1:
        raise ValueError(f"the time of the output, '{profile.cuts[-1].after}', is missing")
    last_of = dict(zip(at, elapsed, strict=True))  # of rows with the same cut the last one
    return np.interp(_progress(profile), _progress(profile)[[0, *last_of]], [0.0, *last_of.values()])


def _check_unique(rows: Sequence[Mapping[str, str | None]]) -> None:
    """Raise ValueError if two rows are about the same layer."""
    names = [tuple((row.get(column) or "").strip() for column in ("cut", "after")) for row in rows]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice[1] or f'cut {twice[0]}')} has several rows; give each layer one time")


def _progress(profile: Profile) -> np.ndarray:
    """(cuts,) MACs done before each cut, a little more at each further cut, so that no two are equal."""
    macs = np.array([cut.macs for cut in profile.cuts], np.float64)
    return macs / profile.macs + 1e-9 * np.arange(len(macs))


def _numbers(profile: Profile) -> dict[str, int]:
    """The number of the first cut at which each tensor is sent, and of each cut by all its tensors."""
    names = dict[str, int]()
    for number, cut in enumerate(profile.cuts):
        for name in (cut.after, *(tensor.name for tensor in cut.tensors)):
            names.setdefault(name, number)
    names[profile.cuts[-1].after] = len(profile.cuts) - 1
    return names


def _cut(row: Mapping[str, str | None], numbers: Mapping[str, int], profile: Profile) -> int:
    count, name = len(profile.cuts), (row.get("after") or "").strip()
    if (text := row.get("cut")) is not None:
        if not (text.strip().isdecimal() and len(text) < 10 and int(text) < count):
            raise ValueError(f"cut must be a whole number from 0 to {count - 1}, got {shown(text)}")
        cut = profile.cuts[int(text)]
        if name and name not in (cut.after, *(tensor.name for tensor in cut.tensors)):
            raise ValueError(f"cut {int(text)} of {profile.name} is after {shown(cut.after)}, not {shown(name)}")
        return int(text)
    if name not in numbers:
        known = nearest(name, numbers)
        raise ValueError(f"no cut is after {shown(name)}{known if known.startswith('; did') else ''}")
    return numbers[name]


def _time(column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not 0 <= value < MAX_SECONDS:
        raise ValueError(f"{column} must be numbers from 0 to {compact(MAX_SECONDS)}, got {shown(text or '')}")
    return value
