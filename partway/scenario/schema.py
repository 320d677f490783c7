"""The fields of a scenario, in the tables of its TOML file, each with its range. SI units, named in the fields."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

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
Word = Annotated[
    str, Field(pattern=r"^\P{C}*$", max_length=200, description="a string of at most 200 printable characters")
]
NameOrPath = Annotated[
    str,
    Field(pattern=r"^\P{C}*$", max_length=4096, description="a name or a path of at most 4096 printable characters"),
]
Kind = Annotated[
    str,
    Field(pattern=r"^[\w.]+(:[\w.]+)?$", max_length=400, description="a kind that ships, or module:Class for your own"),
]
Tasks = Annotated[float, Field(ge=0, le=1e6)]
Watts = Annotated[
    float,
    Field(allow_inf_nan=True, description="between 1e-15 and 1e12, or inf for no limit"),
    AfterValidator(_power_or_inf),
]
Setting = bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float | Word


class Section(BaseModel):
    """A table of the file: frozen, without unknown fields, type conversion or NaN.

    The ranges are much wider than any realistic value; within them no derived coefficient overflows float64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Weights(Section):
    """The weights w1..w4 of the cost (8): [1/cycle] for the queues, [1/J] for the energies."""

    server_queue: Weight
    server_energy: Weight
    device_queue: Weight
    device_energy: Weight


class ProportionalTask(Section):
    """The paper's proportional law: W cycles a task, and D = zeta W offload bits to send."""

    kind: Literal["proportional"]
    cycles: Annotated[float, Field(ge=1, le=1e18)]
    bits_per_cycle: Annotated[float, Field(ge=1e-15, le=1e6)]


class LayersTask(Section):
    """A real network, cut between layers.

    profile     name of a shipped network, or absolute path of a CSV file
    input_bits  [bit] replaces the profile's size of the encoded inputs
    cuts        the cuts that devices may choose: "all" of the profile, or only the "pareto"-optimal ones. Schemes that
                choose a fraction without looking at the bits (`random`, `even`, the paper's learners) depend on it
    """

    kind: Literal["layers"]
    profile: NameOrPath
    tensor_dtype: Literal["fp32", "fp16", "uint8"]
    input_bits: Annotated[float, Field(ge=1, le=1e18)] | None = None
    cuts: Literal["all", "pareto"] = "all"


class DeviceClass(Section):
    """The parameters of one class of devices. Without `distance_m` a device has a random position.

    initial_queue_tasks  tasks that wait when the run begins, a whole number unless queue = "as_printed"
    """

    arrival_prob: Probability
    initial_queue_tasks: Tasks
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
    """A class of devices: its fraction of the fleet or its count, and its parameters ([device] with the changes)."""

    name: Word = ""
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    count: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    device: DeviceClass


class ServerClass(Section):
    """The edge server.

    initial_queue_tasks  work that waits when the run begins, in mean tasks of the fleet
    """

    initial_queue_tasks: Tasks
    cpu_max_hz: Hertz
    capacitance: Capacitance
    macs_per_cycle: MacsPerCycle


class Process(Section):
    """What is random from block to block: a kind and its parameters, which `partway.system.kinds` checks.

    kind  one that ships, or `module:Class`        file  a parameter of this name is a path
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Setting]  # pyright: ignore[reportIncompatibleVariableOverride]  # pydantic's way
    kind: Kind

    def parameters(self) -> dict[str, Any]:
        """Name -> value of all but `kind`."""
        return dict(self.__pydantic_extra__)


class Radio(Section):
    """Path loss [dB] = pathloss_db_at_1m + pathloss_slope_db log10(distance) + normal shadowing, times the fading.

    Noise is a density and the receiver's noise figure, over each device's own bandwidth; or `noise_dbw`, the total of
    both, the same at every bandwidth.
    """

    snr_gap: Annotated[float, Field(ge=1, le=1e6)]
    noise_dbm_per_hz: Annotated[float, Field(ge=-300, le=0)] | None = None
    noise_figure_db: Annotated[float, Field(ge=0, le=100)] = 0.0
    noise_dbw: Decibel | None = None
    cell_radius_m: Metres
    min_distance_m: Metres
    pathloss_db_at_1m: Decibel
    pathloss_slope_db: Annotated[float, Field(ge=0, le=200)]
    shadowing_db: Annotated[float, Field(ge=0, le=100)]
    fading: Process


class Scenario(Section):
    """The system, its randomness and the objective; `schemes` maps scheme -> hyperparameter -> value.

    arrivals_seen  arrivals that a device sees when it acts: those of the "past" block, which are in its queue, or, as
                   in the printed state, those of the "current" one, which are not yet (T6)
    """

    devices: Annotated[int, Field(ge=1, le=10_000_000)]
    slots_per_block: Annotated[int, Field(ge=1, le=64)]
    slot_s: Annotated[float, Field(ge=1e-9, le=1e6)]
    discount: Annotated[float, Field(gt=0, le=0.999999)]
    objective: Literal["average", "discounted"]
    queue: Literal["conserving", "as_printed"]
    arrivals_seen: Literal["past", "current"]
    placement_seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    broadcast_delay_blocks: Annotated[int, Field(ge=0, le=1000)]
    weights: Weights
    device: DeviceClass
    group: tuple[Group, ...] = ()
    server: ServerClass
    radio: Radio
    traffic: Process
    schemes: dict[str, dict[str, Setting]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.radio.min_distance_m >= self.radio.cell_radius_m:
            raise ValueError(
                f"radio.min_distance_m must be below radio.cell_radius_m = {compact(self.radio.cell_radius_m)}, "
                f"got {compact(self.radio.min_distance_m)}"
            )
        _check_noise(self.radio)
        _check_groups(self)
        if self.queue == "as_printed":
            _check_as_printed(self)
        else:
            _check_whole_queues(self)
        return self

    def device_classes(self) -> list[DeviceClass]:
        """The class of every device, in order, length `devices`.

        With counts the classes follow one another. With fractions every prefix of the fleet has nearly the same
        proportions: the first 20 of 50 devices have the classes of a fleet of 20.
        """
        if not self.group:
            return [self.device] * self.devices
        return [self.group[i].device for i in self.groups_of_devices()]

    def groups_of_devices(self) -> list[int]:
        """The number of every device's class, in order, length `devices`; 0 for all without groups."""
        if not self.group:
            return [0] * self.devices
        if self.group[0].count is not None:
            return [i for i, group in enumerate(self.group) for _ in range(group.count or 0)]
        return list(_apportion([group.fraction or 0.0 for group in self.group], self.devices))

    def class_names(self) -> list[str]:
        """The name of every class, all different: that of its group, or its number where that is not its own."""
        names = [group.name for group in self.group]
        taken = ["", *map(str, range(len(names)))]  # a group that is called 1 need not be number 1
        own = [name not in taken and names.count(name) == 1 for name in names]
        return [name if is_own else str(i) for i, (name, is_own) in enumerate(zip(names, own, strict=True))] or ["all"]

    def tables(self) -> dict[str, Any]:
        """The complete scenario as the tables of a file; loading it returns an equal scenario.

        A group holds only what differs from [device], so that a change of [device] reaches it as in the original file.
        """
        raw = self.model_dump(mode="python", exclude_none=True)
        raw["group"] = list(raw["group"])
        for group in raw["group"]:
            group["device"] = {
                name: value for name, value in group["device"].items() if raw["device"].get(name) != value
            }
        return raw

    def to_toml(self, folder: Path | None = None) -> str:
        """`tables` as TOML. Profiles in `folder`, where the file will be, are named relative to it."""
        raw = self.tables()
        tasks = [table.get("task", {}) for table in (raw["device"], *(group["device"] for group in raw["group"]))]
        with_files = [(task, "profile") for task in tasks] + [
            (raw["radio"]["fading"], "file"),
            (raw["traffic"], "file"),
        ]
        for table, name in with_files:
            given = table.get(name)
            if folder is not None and isinstance(given, str) and (path := Path(given)).is_relative_to(folder):
                table[name] = str(path.relative_to(folder))
        return tomli_w.dumps(raw)


TASKS: dict[str, type[Section]] = {"proportional": ProportionalTask, "layers": LayersTask}
TABLES: dict[str, type[Section]] = {"weights": Weights, "device": DeviceClass, "server": ServerClass, "radio": Radio}
PROCESSES = {"fading": ("rayleigh", "Channel"), "traffic": ("bernoulli", "Traffic")}
"""Names of the tables that are a `Process`: the kind of the paper, and the base class of other kinds."""
GROUP_FIELDS = tuple(name for name in Group.model_fields if name != "device")
"""Fields of a [[group]] itself; all others that a user gives there are changes of its device class."""


def _apportion(fractions: Sequence[float], size: int) -> Iterator[int]:
    """The group of each of `size` devices: the group whose number of devices is furthest below its fraction."""
    counts = [0] * len(fractions)
    for device in range(size):
        deficit = [fraction * (device + 1) - count for fraction, count in zip(fractions, counts, strict=True)]
        group = deficit.index(max(deficit))
        counts[group] += 1
        yield group


def _check_noise(radio: Radio) -> None:
    """Raise ValueError unless the noise is given in one of two ways: as a density or as a total."""
    total, density = radio.noise_dbw, radio.noise_dbm_per_hz
    if total is None and density is None:
        raise ValueError("radio.noise_dbm_per_hz is missing; it must be between -300 and 0")
    if total is not None and (density is not None or radio.noise_figure_db != 0):
        other = "noise_dbm_per_hz" if density is not None else "noise_figure_db"
        raise ValueError(
            f"radio.noise_dbw = {compact(total)} is the total noise at every bandwidth: remove it or radio.{other}"
        )


def _check_groups(scenario: Scenario) -> None:
    """Raise ValueError unless the fractions of the groups sum to 1, or their counts to `devices`."""
    groups = scenario.group
    for i, group in enumerate(groups):
        if (group.fraction is None) == (group.count is None):
            given = "neither" if group.count is None else "both"
            raise ValueError(f"group.{i} must have either fraction or count, got {given}")
    counts = [group.count for group in groups if group.count is not None]
    fractions = [group.fraction for group in groups if group.fraction is not None]
    if counts and fractions:
        raise ValueError("group: give every group a fraction or every group a count, got some of each")
    if counts and sum(counts) != scenario.devices:
        raise ValueError(f"group: the counts must sum to devices = {scenario.devices}, got {sum(counts)}")
    if fractions and abs(math.fsum(fractions) - 1) > 1e-9:
        raise ValueError(f"group: the fractions must sum to 1, got {compact(math.fsum(fractions))}")


def _check_whole_queues(scenario: Scenario) -> None:
    """Raise ValueError unless every device starts with a whole number of tasks: the queue holds no fractions."""
    classes = [(f"group.{i}", group.device) for i, group in enumerate(scenario.group)] or [("device", scenario.device)]
    for where, device in classes:
        if device.initial_queue_tasks % 1:
            raise ValueError(
                f"{where}.initial_queue_tasks must be a whole number with queue = 'conserving', "
                f"got {compact(device.initial_queue_tasks)}"
            )


def _check_as_printed(scenario: Scenario) -> None:
    """Raise ValueError unless every device can have a fractional queue.

    Equation (1) as printed leaves fractions of tasks in the queue (T1), which is meaningful only for proportional tasks
    and devices that can run a whole task in a block.
    """
    for device in [group.device for group in scenario.group] or [scenario.device]:
        if device.task.kind != "proportional":
            raise ValueError("queue = 'as_printed' requires tasks of kind 'proportional'; use queue = 'conserving'")
        min_hz = device.task.cycles / (scenario.slots_per_block * scenario.slot_s)
        if device.cpu_max_hz < min_hz:
            raise ValueError(
                "queue = 'as_printed' requires that every device can run a whole task in a block: "
                f"cpu_max_hz must be at least {compact(min_hz)}, got {compact(device.cpu_max_hz)}"
            )
