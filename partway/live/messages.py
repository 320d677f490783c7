"""What device and server say to each other, as records; `codec` and `tensors` write and read their bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

PROTOCOL_VERSION = 1
Setting = bool | int | float | str


class MessageError(ValueError):
    """Why a message is refused, in one line."""


class Refused(Exception):
    """What a peer answers instead of doing what it was asked for; `code`: the name of a status code of gRPC."""

    def __init__(self, code: str, reason: str):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class RegisterRequest:
    """A device wants to join.

    device   the number that it wants, None for any
    session  the one that it had, if it comes back: whoever has it is that device
    """

    device: int | None = None
    scenario_sha256: str = ""
    model_sha256: str = ""
    version: int = PROTOCOL_VERSION
    session: str = ""


@dataclass(frozen=True)
class DeviceConstants:
    """The constants of one device: numbers by the names of `partway.system.types.Device`, and its cuts.

    share, bits, feasible  (cuts,)
    """

    numbers: Mapping[str, float]
    share: np.ndarray
    bits: np.ndarray
    feasible: np.ndarray
    proportional: bool
    bits_per_task: float
    laws: str
    slots: int
    max_tasks_per_block: int
    objective: str


@dataclass(frozen=True)
class Policy:
    """How a device decides: a scheme by its name, its hyperparameters, and its random numbers."""

    scheme: str
    settings: Mapping[str, Setting]
    stream: str
    seed: int
    precision: str
    uses_broadcast: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegisterReply:
    """A device has joined: what it needs to know."""

    device: int
    session: str
    constants: DeviceConstants
    policy: Policy
    arrival_threshold: int
    blocks: int
    broadcast_delay_blocks: int
    lease_blocks: int
    scenario_sha256: str = ""
    model_sha256: str = ""


@dataclass(frozen=True)
class BlockRecord:
    """What a device did in a block, as in `proto/control.proto`; NaN for what it has not."""

    queue: float
    gain: float
    started: float
    offload: float
    commanded_w: float
    power_w: float
    energy_j: float
    relative_change: float
    arrivals: int


@dataclass(frozen=True)
class Report:
    """A device's word at the start of a block; `last`: what happened in the block before, None in its first one."""

    session: str
    block: int
    queue: float
    last: BlockRecord | None = None


@dataclass(frozen=True)
class Start:
    """The device's first block starts in so many seconds."""

    block: int
    in_s: float


@dataclass(frozen=True)
class BroadcastNews:
    """The server's broadcast of a block: the fields that the scheme reads, by name."""

    block: int
    values: Mapping[str, float]
    lease_until_block: int


News = Start | BroadcastNews


@dataclass(frozen=True)
class LeaveRequest:
    """A device leaves."""

    session: str


@dataclass(frozen=True)
class InferRequest:
    """A task that was cut: the share `offload` of it is left.

    tensors  what is sent, by name
    wanted   outputs that are asked for; all if none is named
    label    by which the caller knows its call, "" if it has none
    """

    session: str
    task: int
    block: int
    offload: float
    model: str = ""
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    wanted: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class InferReply:
    """The rest of a task is done. `wait_s`, `run_s`: how long it waited and took at the server."""

    task: int
    wait_s: float
    run_s: float
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
