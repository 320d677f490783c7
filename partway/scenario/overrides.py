"""Overrides: fields of a scenario by their dotted names, as --set, the axes of a sweep and Python give them."""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from partway.errors import InputError, shorten, shown
from partway.scenario.schema import TASKS

OVERRULED_BY = {"weights.device_queue": "queue_weight", "weights.device_energy": "energy_weight"}
"""Fields of a device class that overrule another field of the scenario."""

Raw = dict[str, Any]


def override_pairs(overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Dotted name -> value, from a mapping or from strings FIELD=VALUE, of which the last counts.

    Raises InputError for anything else.
    """
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        return copied(overrides)
    try:
        return dict(map(parse_override, overrides))
    except TypeError:
        raise InputError(f"--set {shown(overrides)}: expected FIELD=VALUE, such as device.arrival_prob=0.2") from None


def parse_override(text: Any) -> tuple[str, Any]:
    """`FIELD=VALUE` -> (field, value); VALUE is TOML, or a string without quotes."""
    name, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
    if not equals or not name.strip():
        raise InputError(f"--set {shown(text)}: expected FIELD=VALUE, such as device.arrival_prob=0.2")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # not TOML, or a number with more digits than Python parses
        parsed = {}
    return name.strip(), parsed["value"] if len(parsed) == 1 else value.strip()


def set_field(raw: Raw, name: str, value: Any) -> None:
    """Set one field in place. Setting the `kind` of a task removes the fields that only other kinds have."""
    path, last = split_field(_checked_name(name))
    tables: list[Any] = [raw]
    for part in path:
        tables = [inner for table in tables for inner in _inner(table, part)]
    if not tables or not all(isinstance(table, dict) for table in tables):
        known = f"; groups: {_named(raw.get('group'))}" if path[:1] == ["group"] and raw.get("group") else ""
        where = shorten(".".join(path))
        raise InputError(f"--set {shorten(name)}={shown(value)}: the scenario has no table '{where}'{known}")
    for fields in cast(list[Raw], tables):
        if last == "kind" and isinstance(value, str) and value in TASKS:
            others = {field for task in TASKS.values() for field in task.model_fields}
            for other in others - set(TASKS[value].model_fields):
                fields.pop(other, None)
        if last == "kind" and path[-1:] in (["fading"], ["traffic"]) and fields.get("kind") != value:
            fields.clear()
        fields.update(merge(fields, {last: copied(value)}))


def split_field(name: str) -> tuple[list[str], str]:
    """The tables of a dotted name, and the field. The name of a scheme may have dots: `schemes.my.module:Policy.x`."""
    *path, last = name.split(".")
    return (["schemes", ".".join(path[1:])] if path[:1] == ["schemes"] and path[1:] else path), last


def schemes_set(overrides: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Names of the schemes of which overrides set hyperparameters."""
    names = list[str]()
    for field, value in override_pairs(overrides).items():
        path, last = split_field(field)
        if path[:1] == ["schemes"]:
            names.append(path[1] if path[1:] else last)
        elif field == "schemes" and isinstance(value, dict):
            names += cast(Raw, value)
    return list(dict.fromkeys(names))


def check_reach(raw: Raw, changes: Mapping[str, Any]) -> None:
    """Raise InputError for an override of [device] or [weights] that does nothing for some devices: it is overruled."""
    given = raw.get("group")
    groups = cast(list[Any], given) if isinstance(given, list) else []
    for name, value in changes.items():
        for path in _leaves(name.split("."), value):
            changed = shorten(".".join(path))
            field = ".".join(path[1:]) if path[0] == "device" else OVERRULED_BY.get(changed, "")
            if changed in OVERRULED_BY and _sets({"device": raw.get("device")}, [field]):
                raise InputError(f"{changed}: does nothing because [device] sets {field}; use device.{field}")
            overruling = [group for group in groups if field and _sets(group, field.split("."))]
            if overruling:
                those, field = _named(groups, overruling), shorten(field)
                raise InputError(
                    f"{changed}: does not reach the groups that set {field} themselves ({those}); use group.N.{field}, "
                    f"group.NAME.{field}, or group.*.{field} for all groups"
                )


def copied(value: Any) -> Any:
    """A deep copy in dicts and lists, so that overrides do not change the caller's mapping.

    NumPy's and JAX's numbers and arrays become Python's, paths strings, channels and traffic tables.
    """
    if callable(as_table := getattr(value, "as_table", None)) and not isinstance(value, type):
        return as_table()
    if isinstance(value, Mapping):
        return {_checked_name(name): copied(inner) for name, inner in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [copied(inner) for inner in cast(Sequence[Any], value)]
    if not isinstance(value, type) and callable(to_python := getattr(value, "tolist", None)):
        return to_python()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def merge(base: Raw, over: Mapping[str, Any]) -> Raw:
    """`over` on top of `base`, table by table; a table that gives its `kind` replaces the whole table below it."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and "kind" not in value:
            value = merge(cast(Raw, old), cast(Raw, value))
        merged[name] = value
    return merged


def _checked_name(name: Any) -> str:
    """`name`, if it can stand in a TOML file; raises InputError otherwise."""
    try:
        name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InputError(f"unknown field {shown(name)}; see `partway scenarios paper`") from None
    return name


def _inner(table: Any, part: str) -> list[Any]:
    """What `part` of a dotted name refers to: a table, created if absent, or each [[group]] of that number or name."""
    if isinstance(table, dict):
        return [cast(Raw, table).setdefault(part, [] if part == "group" else {})]
    groups = cast(list[Any], table) if isinstance(table, list) else []
    numbered = {str(i): [group] for i, group in enumerate(groups)} | {"*": groups}
    return numbered.get(part) or [group for group in groups if isinstance(group, dict) and group.get("name") == part]


def _named(groups: Any, chosen: Sequence[Any] | None = None) -> str:
    """Groups by their names, or their numbers where they have none, short enough for a message."""
    names = [
        repr(group["name"]) if isinstance(group, dict) and group.get("name") else str(i)
        for i, group in enumerate(cast(list[Any], groups) if isinstance(groups, list) else [])
        if chosen is None or any(group is one for one in chosen)
    ]
    return shorten(", ".join(names), 80)


def _leaves(path: list[str], value: Any) -> Iterator[list[str]]:
    """The dotted names of the fields that a value sets, each in parts."""
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in cast(Raw, value).items():
        yield from _leaves([*path, name], inner)


def _sets(group: Any, path: Sequence[str]) -> bool:
    """Whether a [[group]] sets a field of its devices. A table with a `kind` sets all that are in it."""
    for table in (group, group.get("device")) if isinstance(group, dict) else ():
        inner: Any = table
        for part in path:
            if isinstance(inner, dict) and inner is not table and "kind" in inner:
                return True
            inner = cast(Raw, inner).get(part) if isinstance(inner, dict) else None
        if inner is not None:
            return True
    return False
