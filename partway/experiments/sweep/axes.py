"""The axes of a sweep: which fields of a scenario vary, over which values, and the names of their dimensions."""

import itertools
import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partway.errors import InputError, compact, shown
from partway.scenario.overrides import copied, parse_override

MAX_VALUES = 10_000
MAX_POINTS = 100_000
OTHER_FLAGS = {"scheme": "--schemes", "schemes": "--schemes", "seed": "--seeds", "seeds": "--seeds"}
UNITS = {
    "devices": "devices",
    "slots_per_block": "slots",
    "broadcast_delay_blocks": "blocks",
    "server_queue": "1/cycle",
    "device_queue": "1/cycle",
    "queue_weight": "1/cycle",
    "server_energy": "1/J",
    "device_energy": "1/J",
    "energy_weight": "1/J",
    "capacitance": "W s^3 / cycle^3",
    "cycles": "cycles",
    "bits_per_cycle": "bit/cycle",
    "input_bits": "bit",
    "macs_per_cycle": "1/cycle",
}
"""Units of fields without a unit in their name, by the last part of the name."""
SUFFIXES = {
    "_dbm_per_hz": "dBm/Hz",
    "_hz": "Hz",
    "_s": "s",
    "_m": "m",
    "_w": "W",
    "_dbw": "dBW",
    "_db": "dB",
    "_at_1m": "dB",
}


@dataclass(frozen=True)
class Axis:
    """One field of the scenario, by its dotted name, and its values in the order given."""

    field: str
    values: tuple[Any, ...]

    def labels(self) -> list[float] | list[int] | list[str]:
        """The values as a coordinate: numbers if all are numbers, else strings."""
        kinds = {type(value) for value in self.values}
        if kinds <= {int}:
            return list(self.values)
        if kinds <= {int, float}:
            return [float(value) for value in self.values]
        return [value if isinstance(value, str) else json.dumps(value) for value in self.values]

    def words(self, name: str) -> str:
        """A name of the field for people, without its unit, from that of its dimension."""
        return name.removesuffix(f"_{self.unit().lower()}").replace("_", " ").replace(".", " ")

    def unit(self) -> str:
        """The unit of the field; "1" where it has none."""
        last = self.field.rpartition(".")[2]
        return UNITS.get(last) or next((unit for end, unit in SUFFIXES.items() if last.endswith(end)), "1")


def parse_axes(given: Mapping[str, Any] | Sequence[str]) -> tuple[Axis, ...]:
    """Axes from {field: values or SPEC} or from strings FIELD=SPEC; see `parse_values` for SPEC.

    Raises InputError for a malformed axis, a field given twice, or more than MAX_POINTS points.
    """
    if isinstance(given, str):
        given = [given]
    anything: Any = given
    if not isinstance(anything, Mapping | Sequence):
        raise InputError(f"--axis {shown(anything)}: expected {{field: values}} or strings FIELD=SPEC")
    pairs = list(given.items()) if isinstance(given, Mapping) else [_split(text) for text in given]
    fields = [field for field, _ in pairs]
    twice = next((field for field in fields if fields.count(field) > 1), None)
    if twice:
        raise InputError(f"--axis {shown(twice)}: is given twice; give each field one axis")
    axes = tuple(_axis(field, values) for field, values in pairs)
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_POINTS:
        raise InputError(f"--axis: the axes have {count} points together; at most {MAX_POINTS} are allowed")
    return axes


def parse_values(spec: str) -> tuple[Any, ...]:
    """The values that a SPEC stands for.

        0.1:0.9:9           nine numbers, evenly spaced, with both ends
        1e-5:1e-2:4:log     four numbers, evenly spaced on a logarithmic scale, with both ends
        4,20,50 or a,b      these numbers or strings
        [...]               a TOML array: anything else

    Raises ValueError, which says what is allowed, for anything else.
    """
    text = spec.strip()
    if text.startswith("["):
        try:
            return tuple(tomllib.loads(f"value = {text}")["value"])
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"not a TOML array: {error}") from None
    pieces = text.split(":")
    if len(pieces) > 1:
        return _spaced(pieces)
    return tuple(parse_override(f"value={piece.strip()}")[1] for piece in text.split(","))


def dimensions(axes: Sequence[Axis], taken: Collection[str]) -> list[str]:
    """A name for each axis: the last part of its field, or the whole field where that is not unique.

    taken  names in the dataset that are not axes
    """
    last = [axis.field.rpartition(".")[2] for axis in axes]
    return [
        name if last.count(name) == 1 and name not in taken else axis.field
        for name, axis in zip(last, axes, strict=True)
    ]


def points(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """The overrides at every point of the grid, the last axis fastest."""
    fields = [axis.field for axis in axes]
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def _split(text: Any) -> tuple[str, str]:
    field, equals, spec = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals or not field.strip():
        raise InputError(f"--axis {shown(text)}: expected FIELD=SPEC, such as device.arrival_prob=0.1:0.9:9")
    return field.strip(), spec


def _axis(field: Any, given: Any) -> Axis:
    name = f"--axis {shown(field)}"
    if not isinstance(field, str):
        raise InputError(f"{name}: must be the dotted name of a field")
    if field in OTHER_FLAGS:
        raise InputError(f"{name}: is always a dimension; give its values with {OTHER_FLAGS[field]}")
    name = f"--axis {shown(f'{field}={given}')}"
    try:
        values = parse_values(given) if isinstance(given, str) else _plain(given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {error}") from None
    if not 1 <= len(values) <= MAX_VALUES or "" in values:
        raise InputError(f"{name}: must have 1 to {MAX_VALUES} values, such as 0.1:0.9:9 or 4,20,50")
    seen = [json.dumps(value, sort_keys=True, default=str) for value in values]
    if len(set(seen)) < len(seen) or len({*Axis(field, values).labels()}) < len(values):
        raise InputError(f"{name}: values must differ, got one twice")
    return Axis(field, values)


def _plain(given: Any) -> tuple[Any, ...]:
    """The values in Python's types. Raises TypeError for what holds no values."""
    if isinstance(given, Mapping):
        raise TypeError("expected a list of values, got a table")
    return tuple(copied(list(given)))


def _spaced(pieces: Sequence[str]) -> tuple[int | float, ...]:
    """START:STOP:COUNT or START:STOP:COUNT:log; integers where both ends and all values between are."""
    try:
        low, high, count = float(pieces[0]), float(pieces[1]), int(pieces[2])
        word = pieces[3] if len(pieces) == 4 else ""
        if len(pieces) > 4 or word not in ("", "log") or not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError
    except (ValueError, IndexError):
        raise ValueError("expected START:STOP:COUNT or START:STOP:COUNT:log, such as 0.1:0.9:9") from None
    if not 2 <= count <= MAX_VALUES:
        raise ValueError(f"the count must be between 2 and {MAX_VALUES}")
    if word and min(low, high) <= 0:
        raise ValueError("both ends must be above 0 on a logarithmic scale")
    inner = np.geomspace(low, high, count) if word else np.linspace(low, high, count)
    numbers = [low, *(float(compact(value)) for value in inner[1:-1].tolist()), high]
    whole = all(piece.strip().lstrip("+-").isdigit() for piece in pieces[:2]) and all(map(float.is_integer, numbers))
    return tuple(map(int, numbers)) if whole else tuple(numbers)
