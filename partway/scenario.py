"""All numbers of a scenario: names, units, allowed ranges, files, presets.

A scenario is a TOML file. Whatever it leaves out has the value of the preset `paper`, whose file
(`presets/paper.toml`) is the one place where those values stand, each with its reason. SI units, named in the fields.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from partway.errors import InputError, closest, compact, nearest, shorten, shown

PRESETS = Path(__file__).with_name("presets")
LARGEST_FILE = 1_000_000
"""Bytes of a scenario file; what is larger is something else."""

Raw = dict[str, Any]


def _power_or_inf(value: float) -> float:
    if not (1e-15 <= value <= 1e12 or value == math.inf):
        raise ValueError
    return value


Probability = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e12)]
Hertz = Annotated[float, Field(ge=1, le=1e18)]
Capacitance = Annotated[float, Field(ge=0, le=1)]
MacsPerCycle = Annotated[float, Field(ge=1e-6, le=1e12)]
Metres = Annotated[float, Field(ge=1e-3, le=1e9)]
Decibel = Annotated[float, Field(ge=-300, le=300)]
Word = Annotated[str, Field(pattern=r"^\P{C}{0,200}$", description="a text of at most 200 printable characters")]
Watts = Annotated[
    float,
    Field(allow_inf_nan=True, description="a number from 1e-15 up to 1e12, or inf for no limit"),
    AfterValidator(_power_or_inf),
]
Setting = bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | Word


class Section(BaseModel):
    """A table of the file: frozen, no unknown fields, no conversion of one type into another, no NaN.

    Ranges are far wider than what makes sense; inside them no coefficient that is formed of them overflows a float64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Weights(Section):
    """w1..w4 of (8)."""

    server_queue: Weight
    server_energy: Weight
    device_queue: Weight
    device_energy: Weight


class ProportionalTask(Section):
    """The paper's law: W cycles, and D = zeta W rest bits to send."""

    kind: Literal["proportional"]
    cycles: Annotated[float, Field(ge=1, le=1e18)]
    bits_per_cycle: Annotated[float, Field(ge=1e-15, le=1e6)]


class LayersTask(Section):
    """A real network, cut between layers. `input_bits` replaces the profile's size of the encoded input."""

    kind: Literal["layers"]
    profile: Word
    coding: Literal["fp32", "fp16", "uint8"]
    input_bits: Annotated[float, Field(ge=1, le=1e18)] | None = None


class DeviceClass(Section):
    """What devices of one class have in common. Without `distance_m` a device has a random place."""

    arrival_prob: Probability
    cpu_max_hz: Hertz
    capacitance: Capacitance
    macs_per_cycle: MacsPerCycle
    bandwidth_hz: Hertz
    tx_power_max_w: Watts
    task: Annotated[ProportionalTask | LayersTask, Field(discriminator="kind")]
    distance_m: Metres | None = None
    queue_weight: Weight | None = None
    energy_weight: Weight | None = None


class Group(Section):
    """A class of devices: its fraction of the fleet or its count, and the complete class: [device] with its changes."""

    name: Word = ""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    count: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    device: DeviceClass


class ServerClass(Section):
    """The edge server."""

    cpu_max_hz: Hertz
    capacitance: Capacitance
    macs_per_cycle: MacsPerCycle


class Radio(Section):
    """Path loss [dB] = pathloss_db_at_1m + pathloss_slope_db log10(distance) + normal shadowing."""

    snr_gap: Annotated[float, Field(ge=1, le=1e6)]
    noise_dbw: Decibel
    cell_radius_m: Metres
    min_distance_m: Metres
    pathloss_db_at_1m: Decibel
    pathloss_slope_db: Annotated[float, Field(ge=0, le=200)]
    shadowing_db: Annotated[float, Field(ge=0, le=100)]


class Scenario(Section):
    """Everything about the world and the objective. `schemes` holds hyperparameters by scheme and field name."""

    devices: Annotated[int, Field(ge=1, le=10_000_000)]
    slots: Annotated[int, Field(ge=1, le=64)]
    slot_s: Annotated[float, Field(ge=1e-9, le=1e6)]
    discount: Annotated[float, Field(gt=0, le=0.999999)]
    objective: Literal["average", "discounted"]
    queue: Literal["conserving", "as_printed"]
    placement_seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    broadcast_lag: Annotated[int, Field(ge=0, le=1000)]
    weights: Weights
    device: DeviceClass
    group: tuple[Group, ...] = ()
    server: ServerClass
    radio: Radio
    schemes: dict[str, dict[str, Setting]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.radio.min_distance_m >= self.radio.cell_radius_m:
            raise ValueError(
                f"radio.min_distance_m = {compact(self.radio.min_distance_m)}: allowed is a number below "
                f"radio.cell_radius_m = {compact(self.radio.cell_radius_m)}"
            )
        _check_groups(self)
        if self.queue == "as_printed":
            _check_as_printed(self)
        return self

    def device_classes(self) -> list[DeviceClass]:
        """The class of every device, in order.

        With fractions each device gets the class that is furthest behind its fraction, so that the first 20 devices
        of 50 have the classes of a fleet of 20; with counts the classes follow one another.
        """
        if not self.group:
            return [self.device] * self.devices
        if self.group[0].count is not None:
            return [group.device for group in self.group for _ in range(group.count or 0)]
        fractions, taken, order = [group.fraction or 0.0 for group in self.group], [0] * len(self.group), []
        for k in range(self.devices):
            behind = [fraction * (k + 1) - have for fraction, have in zip(fractions, taken, strict=True)]
            chosen = behind.index(max(behind))
            taken[chosen] += 1
            order.append(self.group[chosen].device)
        return order

    def to_toml(self) -> str:
        """The complete scenario as TOML; loading it gives the same scenario."""
        return tomli_w.dumps(self.model_dump(mode="python", exclude_none=True))


TASKS: dict[str, type[Section]] = {"proportional": ProportionalTask, "layers": LayersTask}
TABLES: dict[str, type[Section]] = {"weights": Weights, "device": DeviceClass, "server": ServerClass, "radio": Radio}


def _check_groups(scenario: Scenario) -> None:
    groups = scenario.group
    for i, group in enumerate(groups):
        if (group.fraction is None) == (group.count is None):
            has = "neither fraction nor count" if group.count is None else "both fraction and count"
            raise ValueError(f"group.{i} has {has}: allowed is one of them, fraction above 0 up to 1 or count from 1")
    if all(group.count is None for group in groups):
        total = math.fsum(group.fraction or 0.0 for group in groups)
        if groups and abs(total - 1) > 1e-9:
            raise ValueError(f"group: the fractions sum to {compact(total)}: allowed is a sum of 1")
    elif all(group.fraction is None for group in groups):
        count = sum(group.count or 0 for group in groups)
        if count != scenario.devices:
            raise ValueError(f"group: the counts sum to {count}: allowed is a sum of devices = {scenario.devices}")
    else:
        raise ValueError("group: some have fraction and some count: allowed is one kind for all")


def _check_as_printed(scenario: Scenario) -> None:
    """Equation (1) as printed leaves fractions of tasks behind, which only the paper's own kind of task allows (T1)."""
    for device in [group.device for group in scenario.group] or [scenario.device]:
        if device.task.kind != "proportional":
            raise ValueError("queue = 'as_printed': allowed only with tasks of kind 'proportional'")
        least = device.task.cycles / (scenario.slots * scenario.slot_s)
        if device.cpu_max_hz < least:
            raise ValueError(
                "queue = 'as_printed': allowed only where every device can run a whole task in a block, here with "
                f"cpu_max_hz from {compact(least)}, not {compact(device.cpu_max_hz)}"
            )


def presets() -> dict[str, str]:
    """Name of every preset and its one-line description (the first line of its file)."""
    files = sorted(PRESETS.glob("*.toml"))
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
