"""Scenarios from presets, files and overrides, and what to say where one is wrong.

A scenario is a TOML file. Whatever it leaves out has the value of the preset `paper`, whose file
(`presets/paper.toml`) is the one place where those values stand, each with its reason. SI units, named in the fields.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from partway.errors import InputError, closest, compact, nearest, shorten, shown
from partway.scenario.schema import TABLES, TASKS, Group, Scenario, Section

PRESETS = Path(__file__).with_name("presets")
LARGEST_FILE = 1_000_000
"""Bytes of a scenario file; what is larger is something else."""

Raw = dict[str, Any]


def presets() -> dict[str, str]:
    """Name of every preset and its one-line description (the first line of its file)."""
    files = sorted(PRESETS.glob("*.toml"), key=lambda path: path.stem)
    return {path.stem: path.read_text("utf-8").split("\n", 1)[0].lstrip("# ") for path in files}


def preset_text(name: str) -> str:
    """The commented file of a preset."""
    if name not in presets():
        raise InputError(f"no scenario {shown(name)}{nearest(name, presets())}")
    return (PRESETS / f"{name}.toml").read_text("utf-8")


def load(
    source: str | Path | Mapping[str, Any] = "paper", overrides: Mapping[str, Any] | Sequence[str] = ()
) -> Scenario:
    """A scenario from a preset's name, a TOML file or a mapping, with overrides by dotted name.

    >>> load("paper", {"devices": 50, "device.arrival_prob": 0.2}).devices
    50

    Raises InputError, one line with field, value and allowed range, for anything that cannot be a scenario.
    """
    try:
        raw = _merge(tomllib.loads(preset_text("paper")), _read(source))
        pairs = overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides)
        for name, value in pairs:
            _set(raw, name, _copied(value))
        return Scenario.model_validate(_complete_groups(raw))
    except ValidationError as error:
        raise InputError(_explain(error.errors(include_url=False)[0])) from None
    except RecursionError:
        raise InputError("--scenario: tables or arrays are nested too deeply; see `partway scenario paper`") from None


def parse_override(text: str) -> tuple[str, Any]:
    """`FIELD=VALUE` -> (field, value); VALUE is TOML, or a bare word taken as a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {shown(text)}: expected FIELD=VALUE, such as device.arrival_prob=0.2")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # not TOML, or a number of more digits than Python reads
        parsed = {}
    return name.strip(), parsed["value"] if len(parsed) == 1 else value.strip()


def _read(source: str | Path | Mapping[str, Any]) -> Raw:
    if isinstance(source, Mapping):
        return _copied(source)
    if isinstance(source, str) and source in presets():
        return tomllib.loads(preset_text(source))
    given = f"--scenario {shown(str(source), 100)}"
    try:
        with open(source, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise InputError(f"{given}: neither a file nor a preset{nearest(str(source), presets())}") from None
    except OSError as error:
        raise InputError(f"{given}: cannot be read ({error.strerror}); give a TOML file") from None
    if len(data) > LARGEST_FILE:
        raise InputError(f"{given}: has more than {LARGEST_FILE} bytes; give a TOML file")
    return _parsed(data, given)


def _parsed(data: bytes, given: str) -> Raw:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{given}: not a text file; give a TOML file in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{given}: not valid TOML: {shorten(str(error), 120)}") from None
    except ValueError:
        raise InputError(f"{given}: not valid TOML: a number has more digits than can be read") from None


def _copied(value: Any) -> Any:
    """The same in dicts and lists of our own, so that overrides leave the caller's as they are."""
    if isinstance(value, Mapping):
        return {_named(name): _copied(inner) for name, inner in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_copied(inner) for inner in cast(Sequence[Any], value)]
    return value


def _named(name: Any) -> str:
    """`name`, if a TOML file could have it."""
    try:
        name.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InputError(f"unknown field {shown(name)}; see `partway scenario paper`") from None
    return name


def _merge(base: Raw, over: Mapping[str, Any]) -> Raw:
    """`over` on top of `base`, table by table; a table that names its `kind` replaces the other whole."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, dict) and isinstance(value, dict) and "kind" not in value:
            value = _merge(cast(Raw, below), cast(Raw, value))
        merged[name] = value
    return merged


def _set(raw: Raw, name: str, value: Any) -> None:
    """Change one field in place. Where a task changes its `kind`, what only another kind has goes."""
    *path, last = _named(name).split(".")
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
    """What `part` of a dotted name leads to: a table, made if need be, or the [[group]] of that number."""
    if isinstance(table, dict):
        return cast(Raw, table).setdefault(part, [] if part == "group" else {})
    numbered = {str(i): item for i, item in enumerate(cast(list[Any], table))} if isinstance(table, list) else {}
    return numbered.get(part)


def _complete_groups(raw: Raw) -> Raw:
    """Give every [[group]] the complete device class: [device] with what the group changes."""
    groups, device = raw.get("group"), raw.get("device")
    if not isinstance(groups, list) or not isinstance(device, dict):
        return raw
    return {**raw, "group": tuple(_complete_group(group, cast(Raw, device)) for group in cast(list[Any], groups))}


def _complete_group(group: Any, device: Raw) -> Any:
    if not isinstance(group, dict):
        return group
    table = cast(Raw, group)
    own = {name: table[name] for name in ("name", "fraction", "count") if name in table}
    inner, differs = table.get("device", {}), {name: table[name] for name in table if name not in (*own, "device")}
    whole = _merge(_merge(device, cast(Raw, inner)), differs) if isinstance(inner, dict) else inner
    return {**own, "device": whole}


def _explain(error: ErrorDetails) -> str:
    """One line: field, value, what is allowed."""
    names, section = _locate(error["loc"])
    field, value, kind = shorten(".".join(names)), error["input"], error["type"]
    if kind == "value_error" and not names:
        return error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"unknown field '{field}'{_suggestion(names, section)}"
    if kind.startswith("union_tag"):
        return f"{field}.kind = {shown(value.get('kind'))}: allowed is {' or '.join(map(repr, TASKS))}"
    allowed = _allowed(names, section) or error["msg"].removeprefix("Input should be ")
    return f"{field} {'is missing' if kind == 'missing' else f'= {shown(value)}'}: allowed is {allowed}"


def _locate(loc: tuple[int | str, ...]) -> tuple[list[str], type[Section]]:
    """The names that lead to a field, as a user writes them, and the section that it belongs to."""
    if loc[:1] == ("schemes",):
        return [str(part) for part in loc[:3]], Scenario  # a fourth part is a type that was tried
    section: type[Section] = Scenario
    for part in loc[:-1]:
        section = {**TABLES, **TASKS, "group": Group}.get(str(part), section)
    implied = [i for i, part in enumerate(loc[:-1]) if part in TASKS or (i == 2 and part == "device")]
    return [str(part) for i, part in enumerate(loc) if i not in implied], section


def _suggestion(names: Sequence[str], section: type[Section]) -> str:
    """The nearest field: of that section or group, else of another section."""
    known = {*section.model_fields, *(["name", "fraction", "count"] if names[0] == "group" and len(names) == 3 else [])}
    elsewhere = {field: f"{table}.{field}" for table, other in reversed(TABLES.items()) for field in other.model_fields}
    other = closest(names[-1], elsewhere)
    if other and not closest(names[-1], known):
        return f"; did you mean '{elsewhere[other]}'?"
    return nearest(names[-1], known)


def _allowed(names: Sequence[str], section: type[Section]) -> str:
    """What the field's declaration allows, such as `a number from 0 up to 1`; nothing if it is a choice of words."""
    if names[0] == "schemes" and len(names) == 3:
        return "true or false, a finite number or a text"
    if names[-1] in (*TABLES, "task", "schemes") or names[-2:-1] in (["group"], ["schemes"]):
        return "a table"
    if names == ["group"]:
        return "an array of tables, one [[group]] each"
    field = section.model_fields[names[-1]]
    if field.description:
        return field.description
    words, rules = {"gt": "above", "ge": "from", "le": "up to"}, _rules(field)
    limits = [f"{words[at]} {compact(getattr(rule, at))}" for at in words for rule in rules if hasattr(rule, at)]
    whole = "whole " if "int" in str(field.annotation) else ""
    return f"a {whole}number {' '.join(limits)}" if limits else ""


def _rules(field: Any) -> list[Any]:
    """The annotated limits of a field, also inside `X | None`."""
    options = getattr(field.annotation, "__args__", ())
    inner = [rule for option in options for rule in getattr(option, "__metadata__", ())]
    return [deep for rule in (*field.metadata, *inner) for deep in (getattr(rule, "metadata", None) or [rule])]
