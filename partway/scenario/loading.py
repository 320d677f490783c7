"""Load a scenario from a preset, a TOML file or a mapping, and apply overrides.

A field that a file leaves out has the value of the preset `paper` (`presets/paper.toml`), the only place where defaults
are defined, each with its reason.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from partway.errors import InputError, nearest, shorten, shown
from partway.scenario.messages import explain
from partway.scenario.schema import GROUP_FIELDS, TASKS, Group, Scenario

PRESETS = resources.files("partway.scenario") / "presets"
MAX_FILE_BYTES = 1_000_000
"""A larger file is not a scenario."""

Raw = dict[str, Any]


def presets() -> dict[str, str]:
    """Name -> one-line description (the first line of its file) of every preset, sorted by name."""
    return {name: preset_text(name).split("\n", 1)[0].lstrip("# ") for name in _preset_names()}


def preset_text(name: str) -> str:
    """The commented TOML file of a preset; raises InputError for an unknown name."""
    if name not in _preset_names():
        raise InputError(f"no scenario {shown(name)}{nearest(name, _preset_names())}")
    return (PRESETS / f"{name}.toml").read_text("utf-8")


@cache
def _preset_names() -> tuple[str, ...]:
    names = (file.name for file in PRESETS.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


@cache
def _preset(name: str) -> Raw:
    """The parsed file of a preset, parsed once; copy it before any change."""
    return tomllib.loads(preset_text(name))


def load(
    source: str | Path | Mapping[str, Any] = "paper", overrides: Mapping[str, Any] | Sequence[str] = ()
) -> Scenario:
    """A scenario from a preset's name, a TOML file or a mapping, with overrides by dotted name.

    >>> load("paper", {"devices": 50, "device.arrival_prob": 0.2}).devices
    50

    Raises InputError, one line with the field, its range and the given value, for anything that is not a scenario.
    """
    try:
        raw = _merge(_copied(_preset("paper")), _read(source))
        pairs = overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides)
        for name, value in pairs:
            _set(raw, name, _copied(value))
        return Scenario.model_validate(_complete_groups(raw))
    except ValidationError as error:
        raise InputError(explain(error.errors(include_url=False))) from None
    except RecursionError:
        raise InputError("--scenario: tables or arrays are nested too deeply; see `partway scenarios paper`") from None


def parse_override(text: str) -> tuple[str, Any]:
    """`FIELD=VALUE` -> (field, value); VALUE is TOML, or a string without quotes."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {shown(text)}: expected FIELD=VALUE, such as device.arrival_prob=0.2")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # not TOML, or a number with more digits than Python parses
        parsed = {}
    return name.strip(), parsed["value"] if len(parsed) == 1 else value.strip()


def _read(source: str | Path | Mapping[str, Any]) -> Raw:
    if isinstance(source, Mapping):
        return _copied(source)
    if not isinstance(source, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]  a number is an open file
        raise InputError(f"a scenario must be a preset's name, a TOML file or a mapping, got {shown(source)}")
    if isinstance(source, str) and source in _preset_names():
        return _copied(_preset(source))
    given = f"--scenario {shown(str(source), 100)}"
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"{given} is neither a file nor a preset{nearest(str(source), _preset_names())}") from None
    except OSError as error:
        raise InputError(f"{given} cannot be read ({error.strerror}); give a TOML file") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{given} has more than {MAX_FILE_BYTES} bytes; give a TOML file")
    return _parsed(data, given)


def _parsed(data: bytes, given: str) -> Raw:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{given} is not a text file; give a TOML file in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{given} is not valid TOML: {shorten(str(error), 120)}") from None
    except ValueError:
        raise InputError(f"{given} is not valid TOML: a number has too many digits") from None


def _copied(value: Any) -> Any:
    """A deep copy in dicts and lists, so that overrides do not change the caller's mapping."""
    if isinstance(value, Mapping):
        return {_checked_name(name): _copied(inner) for name, inner in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_copied(inner) for inner in cast(Sequence[Any], value)]
    return value


def _checked_name(name: Any) -> str:
    """`name`, if it can stand in a TOML file; raises InputError otherwise."""
    try:
        name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InputError(f"unknown field {shown(name)}; see `partway scenarios paper`") from None
    return name


def _merge(base: Raw, over: Mapping[str, Any]) -> Raw:
    """`over` on top of `base`, table by table; a table that gives its `kind` replaces the whole table below it."""
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and "kind" not in value:
            value = _merge(cast(Raw, old), cast(Raw, value))
        merged[name] = value
    return merged


def _set(raw: Raw, name: str, value: Any) -> None:
    """Set one field in place. Setting the `kind` of a task removes the fields that only other kinds have."""
    *path, last = _checked_name(name).split(".")
    table: Any = raw
    for part in path:
        table = _inner(table, part)
    if not isinstance(table, dict):
        raise InputError(f"--set {shorten(name)}={shown(value)}: the scenario has no table '{shorten('.'.join(path))}'")
    fields = cast(Raw, table)
    if last == "kind" and isinstance(value, str) and value in TASKS:
        for other in {field for task in TASKS.values() for field in task.model_fields} - set(TASKS[value].model_fields):
            fields.pop(other, None)
    fields.update(_merge(fields, {last: value}))


def _inner(table: Any, part: str) -> Any:
    """The table that `part` of a dotted name refers to, created if absent, or the [[group]] of that number."""
    if isinstance(table, dict):
        return cast(Raw, table).setdefault(part, [] if part == "group" else {})
    items = {str(i): item for i, item in enumerate(cast(list[Any], table))} if isinstance(table, list) else {}
    return items.get(part)


def _complete_groups(raw: Raw) -> Raw:
    """Complete the device class of every [[group]]: [device] with the fields that the group changes."""
    groups, device = raw.get("group"), raw.get("device")
    if not isinstance(groups, list) or not isinstance(device, dict):
        return raw
    return {**raw, "group": tuple(_complete_group(group, cast(Raw, device)) for group in cast(list[Any], groups))}


def _complete_group(group: Any, device: Raw) -> Any:
    if not isinstance(group, dict):
        return group
    table = cast(Raw, group)
    complete = {name: table[name] for name in GROUP_FIELDS if name in table}
    nested, changes = table.get("device", {}), {name: table[name] for name in table if name not in Group.model_fields}
    merged = _merge(_merge(device, cast(Raw, nested)), changes) if isinstance(nested, dict) else nested
    return {**complete, "device": merged}
