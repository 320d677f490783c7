"""What pydantic found wrong in a scenario, as one line: the field, the accepted values and the given value."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from partway.errors import RENAMED, closest, compact, shorten, shown
from partway.scenario.schema import GROUP_FIELDS, PROCESSES, TABLES, TASKS, Group, Process, Scenario, Section

SYNONYMS = {**RENAMED, "noise": "noise_dbm_per_hz"}
"""Words for fields that the comparison of spellings would not match, or would match to a wrong field."""
TIMES, FREQUENCIES, POWERS = {"s", "sec", "second", "ms", "us", "ns"}, {"hz", "khz", "mhz", "ghz"}, {"w", "mw", "kw"}
LEVELS, LENGTHS, COUNTS = {"db", "dbm", "dbw"}, {"m", "km", "cm"}, {"bit", "kbit", "mbit", "byte", "mac", "cycle"}
UNIT_WORDS = TIMES | FREQUENCIES | POWERS | LEVELS | LENGTHS | COUNTS
"""Parts of a field's name that are its unit, in the singular. A hint at another unit would invite a wrong value."""
LIMITS = ("ge", "gt", "le")
"""Attributes of the constraints that pydantic attaches to a numeric field."""


def explain(errors: Sequence[ErrorDetails]) -> str:
    """The message on the first error; a misspelt field comes before a missing one."""
    error = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    names, section = _locate(error["loc"])
    field, value, kind = shorten(".".join(names)), error["input"], error["type"]
    if kind == "value_error" and not names:
        return error["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"unknown field '{field}'{_suggestion(names, section)}"
    if kind.startswith("union_tag") and isinstance(value, dict):
        return f"{field}.kind must be {' or '.join(map(repr, TASKS))}, got {shown(value.get('kind'))}"
    accepted = _accepted(names, section, value) or error["msg"].removeprefix("Input should be ")
    if kind == "missing":
        return f"{field} is missing; it must be {accepted}"
    return f"{field} must be {accepted}, got {shown(value)}"


def _locate(loc: tuple[int | str, ...]) -> tuple[list[str], type[Section]]:
    """The dotted name of a field, as a user writes it, and the table that it belongs to."""
    if loc[:1] == ("schemes",):
        return [str(part) for part in loc[:3]], Scenario  # a fourth part is a type that pydantic tried
    process = next((loc.index(name) for name in PROCESSES if name in loc[:-1]), None)
    if process is not None:
        return [str(part) for part in loc[: process + 2]], Process
    section: type[Section] = Scenario
    for part in loc[:-1]:
        section = {**TABLES, **TASKS, "group": Group}.get(str(part), section)
    implied = [i for i, part in enumerate(loc[:-1]) if part in TASKS or (i == 2 and part == "device")]
    return [str(part) for i, part in enumerate(loc) if i not in implied], section


def _suggestion(names: Sequence[str], section: type[Section]) -> str:
    """A hint: the field of that name in another table, the nearest of the same table or group, or of another table."""
    in_group = names[0] == "group" and len(names) == 3
    known = {*section.model_fields, *(GROUP_FIELDS if in_group else ())}
    if SYNONYMS.get(names[-1]) in known:
        return f"; did you mean '{SYNONYMS[names[-1]]}'?"
    elsewhere = {field: f"{table}.{field}" for table, other in reversed(TABLES.items()) for field in other.model_fields}
    if names[-1] in elsewhere:
        return f"; did you mean '{elsewhere[names[-1]]}'?"
    here, there = (_of_the_same_unit(names[-1], fields) for fields in (known, elsewhere))
    if near := closest(names[-1], here):
        return f"; did you mean '{near}'?"
    if other := closest(names[-1], there):
        return f"; did you mean '{elsewhere[other]}'?"
    return f"; known: {', '.join(sorted(known))}"


def _of_the_same_unit(name: str, fields: Iterable[str]) -> list[str]:
    """The fields whose unit is that of `name`; all where it names none."""
    unit = _unit(name)
    return [field for field in fields if not unit or _unit(field) == unit]


def _unit(name: str) -> tuple[str, ...]:
    """The unit in a field's name, such as ("dbm", "hz") of `noise_dbm_per_hz`; () if there is none."""
    parts = [word for word in name.partition("_at_")[0].lower().split("_")[1:] if word != "per"]
    words = [word.removesuffix("s") if len(word) > 3 else word for word in parts]
    count = next((i for i, word in enumerate(reversed(words)) if word not in UNIT_WORDS), len(words))
    return tuple(words[len(words) - count :])


def _accepted(names: Sequence[str], section: type[Section], value: Any) -> str:
    """The accepted values by the field's declaration, such as `between 0 and 1`; empty for a choice of words."""
    if names[0] == "schemes" and len(names) == 3:
        return "true or false, a finite number or a string"
    if section is Process and names[-1] not in Process.model_fields:
        return "true or false, a finite number or a string"
    if names[-1] in PROCESSES:
        kind, base = PROCESSES[names[-1]]
        return f'a table such as {{ kind = "{kind}" }}, or in Python an object of a class of partway.{base}'
    if names[-1] in (*TABLES, "task", "schemes") or names[-2:-1] in (["group"], ["schemes"]):
        return "a table"
    if names == ["group"]:
        return "an array of tables, one [[group]] each"
    field = section.model_fields[names[-1]]
    return field.description or _range(field, is_number=isinstance(value, int | float) and not isinstance(value, bool))


def _range(field: FieldInfo, is_number: bool) -> str:
    """The range of a numeric field in words; empty for a field of another type."""
    limits = {name: compact(getattr(rule, name)) for rule in _rules(field) for name in LIMITS if hasattr(rule, name)}
    if not limits:
        return ""
    noun = "a whole number " if "int" in str(field.annotation) else "" if is_number else "a number "
    if "ge" in limits:
        return f"{noun}between {limits['ge']} and {limits['le']}"
    return f"{noun}above {limits['gt']} and at most {limits['le']}"


def _rules(field: FieldInfo) -> list[Any]:
    """The annotated constraints of a field, also those inside `X | None`."""
    options = getattr(field.annotation, "__args__", ())
    inner = [rule for option in options for rule in getattr(option, "__metadata__", ())]
    return [deep for rule in (*field.metadata, *inner) for deep in (getattr(rule, "metadata", None) or [rule])]
