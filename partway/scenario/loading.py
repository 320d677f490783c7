"""Load a scenario from a preset, a TOML file or a mapping, and apply overrides.

A field that a file leaves out has the value of the preset `paper` (`presets/paper.toml`), the only place where defaults
are defined, each with its reason.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from partway.arguments import is_shipped_name
from partway.errors import InputError, nearest, shorten, shown
from partway.files import read_limited
from partway.scenario.messages import explain
from partway.scenario.overrides import Raw, check_reach, copied, merge, override_pairs, set_field
from partway.scenario.schema import GROUP_FIELDS, Group, Scenario

PRESETS = resources.files("partway.scenario") / "presets"
MAX_FILE_BYTES = 1_000_000
"""A larger file is not a scenario."""
PROCESSES = {"radio.fading": "--channel", "traffic": "--traffic"}
"""Fields whose kind may be a class from outside, and the flags that name it."""


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
    source: str | Path | Mapping[str, Any] | Scenario = "paper",
    overrides: Mapping[str, Any] | Sequence[str] = (),
) -> Scenario:
    """A scenario from a preset's name, a TOML file, a mapping or a scenario, with overrides by dotted name.

    >>> load("paper", {"devices": 50, "device.arrival_prob": 0.2}).devices
    50

    `group.N.X`, `group.NAME.X` and `group.*.X` are fields of the group with that number or name, and of all groups. A
    relative path of a profile or a trace is relative to the file that holds it, elsewhere to the current folder.
    `radio.fading` and `traffic` may be an object: a `partway.Channel`, a `partway.Traffic`.

    Raises InputError, one line with the field, its range and the given value, for anything that is not a scenario, and
    for an override of [device] that a group overrules.
    """
    try:
        given, changes = _read(source), override_pairs(overrides)
        if not isinstance(source, Scenario):
            _check_code(source if isinstance(source, Mapping) else given, changes)
        raw = merge(_without_other_noise(copied(_preset("paper")), _radio_fields(given.items())), given)
        raw = _without_other_noise(raw, _radio_fields(changes.items()))
        for name, value in sorted(changes.items(), key=lambda change: not change[0].endswith(".kind")):
            set_field(raw, name, value)  # a kind first, which removes the parameters of another
        check_reach(raw, changes)
        return Scenario.model_validate(_complete_groups(_with_absolute_paths(raw, ".")))
    except ValidationError as error:
        raise InputError(explain(error.errors(include_url=False))) from None
    except RecursionError:
        raise InputError("--scenario: tables or arrays are nested too deeply; see `partway scenarios paper`") from None


def _read(source: Any) -> Raw:
    if isinstance(source, Scenario):
        return source.tables()
    if isinstance(source, Mapping):
        return copied(cast(Mapping[str, Any], source))
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"--scenario {shown(source)}: must be the name of a preset, a TOML file, a mapping or a Scenario"
        )
    if isinstance(source, str) and source in _preset_names():
        return copied(_preset(source))
    given = f"--scenario {shown(str(source), 100)}"
    try:
        if "\0" in str(source):
            raise FileNotFoundError
        data = read_limited(source, MAX_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{given} is neither a file nor a preset{nearest(str(source), _preset_names())}") from None
    except OSError as error:
        raise InputError(f"{given} cannot be read ({error.strerror}); give a TOML file") from None
    except ValueError as error:
        raise InputError(f"{given} cannot be read: {error}; give a TOML file") from None
    return _with_absolute_paths(_parsed(data, given), os.path.dirname(source))


def _check_code(tables: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Raise InputError for a class from outside that no override names: a scenario imports no code."""
    for field, flag in PROCESSES.items():
        kind = _at(tables, [*field.split("."), "kind"])
        named = [_at(changes, [f"{field}.kind"])]
        named += [_at(changes, [*path, "kind"]) for path in ([field], field.split("."))]
        if isinstance(kind, str) and ":" in kind and not any(named):
            raise InputError(f"{field}.kind {shown(kind)}: a scenario imports no code; add {flag} {shorten(kind)} too")


def _at(tables: Any, path: Sequence[str]) -> Any:
    """The value at a path of nested tables; None if there is none."""
    for part in path:
        tables = cast(Mapping[str, Any], tables).get(part) if isinstance(tables, Mapping) else None
    return tables


def _parsed(data: bytes, given: str) -> Raw:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{given} is not a text file; give a TOML file in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{given} is not valid TOML: {shorten(str(error), 120)}") from None
    except ValueError:
        raise InputError(f"{given} is not valid TOML: a number has too many digits") from None


def _radio_fields(pairs: Iterable[tuple[Any, Any]]) -> set[str]:
    """The fields of [radio] that are given, in a table or by dotted names."""
    inside = [set(cast(Raw, value)) for name, value in pairs if name == "radio" and isinstance(value, Mapping)]
    return set[str]().union(*inside, {str(name).removeprefix("radio.") for name, _ in pairs})


def _without_other_noise(raw: Raw, given: set[str]) -> Raw:
    """A density that a file or an override gives replaces a total noise below it, and a total replaces a density."""
    radio = raw.get("radio")
    if not isinstance(radio, dict):
        return raw
    replaced = set[str]()
    if "noise_dbw" in given and "noise_dbm_per_hz" not in given:
        replaced = {"noise_dbm_per_hz", "noise_figure_db"}
    elif "noise_dbm_per_hz" in given and "noise_dbw" not in given:
        replaced = {"noise_dbw"}
    return {**raw, "radio": {name: value for name, value in cast(Raw, radio).items() if name not in replaced}}


def _with_absolute_paths(raw: Raw, folder: str | Path) -> Raw:
    """The tables, which are changed in place, with relative paths of profiles and traces as absolute ones."""
    groups = raw.get("group")
    classes = [raw.get("device"), *(cast(list[Any], groups) if isinstance(groups, list) else [])]
    classes += [group.get("device") for group in classes[1:] if isinstance(group, dict)]
    tables = [(cast(Raw, one).get("task"), "profile") for one in classes if isinstance(one, dict)]
    tables += [(_at(raw, field.split(".")), "file") for field in PROCESSES]
    for table, name in tables:
        path = cast(Raw, table).get(name) if isinstance(table, dict) else None
        if not isinstance(path, str) or not path or (name == "profile" and is_shipped_name(path)):
            continue
        if not os.path.isabs(path):
            cast(Raw, table)[name] = os.path.join(os.path.abspath(folder), path)
    return raw


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
    merged = merge(merge(device, cast(Raw, nested)), changes) if isinstance(nested, dict) else nested
    return {**complete, "device": merged}
