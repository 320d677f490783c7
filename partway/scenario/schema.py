"""What a scenario holds: every field with its unit and allowed range, in tables as in the file. SI units."""

import math
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from partway.errors import compact


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
    tensor_dtype: Literal["fp32", "fp16", "uint8"]
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
    broadcast_delay_blocks: Annotated[int, Field(ge=0, le=1000)]
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
