from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RegisterRequest(_message.Message):
    __slots__ = ("protocol_version", "device", "scenario_sha256", "model_sha256", "session")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_SHA256_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    device: int
    scenario_sha256: str
    model_sha256: str
    session: str
    def __init__(self, protocol_version: _Optional[int] = ..., device: _Optional[int] = ..., scenario_sha256: _Optional[str] = ..., model_sha256: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("device", "session", "record", "policy", "workload", "blocks", "broadcast_delay_blocks", "lease_blocks", "scenario_sha256", "model_sha256")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_DELAY_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    LEASE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SCENARIO_SHA256_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    device: int
    session: str
    record: Device
    policy: Policy
    workload: Workload
    blocks: int
    broadcast_delay_blocks: int
    lease_blocks: int
    scenario_sha256: str
    model_sha256: str
    def __init__(self, device: _Optional[int] = ..., session: _Optional[str] = ..., record: _Optional[_Union[Device, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., workload: _Optional[_Union[Workload, _Mapping]] = ..., blocks: _Optional[int] = ..., broadcast_delay_blocks: _Optional[int] = ..., lease_blocks: _Optional[int] = ..., scenario_sha256: _Optional[str] = ..., model_sha256: _Optional[str] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("capacity", "energy_coef", "queue_weight", "energy_weight", "server_work", "mean_gain", "snr_gap", "bandwidth_hz", "slot_s", "tx_power_max_w", "discount", "fleet_size", "task", "slots_per_block", "max_tasks_per_block", "objective")
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ENERGY_COEF_FIELD_NUMBER: _ClassVar[int]
    QUEUE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ENERGY_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SERVER_WORK_FIELD_NUMBER: _ClassVar[int]
    MEAN_GAIN_FIELD_NUMBER: _ClassVar[int]
    SNR_GAP_FIELD_NUMBER: _ClassVar[int]
    BANDWIDTH_HZ_FIELD_NUMBER: _ClassVar[int]
    SLOT_S_FIELD_NUMBER: _ClassVar[int]
    TX_POWER_MAX_W_FIELD_NUMBER: _ClassVar[int]
    DISCOUNT_FIELD_NUMBER: _ClassVar[int]
    FLEET_SIZE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SLOTS_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    MAX_TASKS_PER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    capacity: float
    energy_coef: float
    queue_weight: float
    energy_weight: float
    server_work: float
    mean_gain: float
    snr_gap: float
    bandwidth_hz: float
    slot_s: float
    tx_power_max_w: float
    discount: float
    fleet_size: float
    task: Task
    slots_per_block: int
    max_tasks_per_block: int
    objective: str
    def __init__(self, capacity: _Optional[float] = ..., energy_coef: _Optional[float] = ..., queue_weight: _Optional[float] = ..., energy_weight: _Optional[float] = ..., server_work: _Optional[float] = ..., mean_gain: _Optional[float] = ..., snr_gap: _Optional[float] = ..., bandwidth_hz: _Optional[float] = ..., slot_s: _Optional[float] = ..., tx_power_max_w: _Optional[float] = ..., discount: _Optional[float] = ..., fleet_size: _Optional[float] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., slots_per_block: _Optional[int] = ..., max_tasks_per_block: _Optional[int] = ..., objective: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("share", "bits", "feasible", "proportional", "bits_per_task", "laws")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    FEASIBLE_FIELD_NUMBER: _ClassVar[int]
    PROPORTIONAL_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_TASK_FIELD_NUMBER: _ClassVar[int]
    LAWS_FIELD_NUMBER: _ClassVar[int]
    share: _containers.RepeatedScalarFieldContainer[float]
    bits: _containers.RepeatedScalarFieldContainer[float]
    feasible: _containers.RepeatedScalarFieldContainer[bool]
    proportional: bool
    bits_per_task: float
    laws: str
    def __init__(self, share: _Optional[_Iterable[float]] = ..., bits: _Optional[_Iterable[float]] = ..., feasible: _Optional[_Iterable[bool]] = ..., proportional: bool = ..., bits_per_task: _Optional[float] = ..., laws: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("scheme", "settings", "stream", "seed", "precision", "uses_broadcast")
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    USES_BROADCAST_FIELD_NUMBER: _ClassVar[int]
    scheme: str
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    stream: str
    seed: int
    precision: str
    uses_broadcast: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scheme: _Optional[str] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., stream: _Optional[str] = ..., seed: _Optional[int] = ..., precision: _Optional[str] = ..., uses_broadcast: _Optional[_Iterable[str]] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("name", "number", "whole", "flag", "word")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    name: str
    number: float
    whole: int
    flag: bool
    word: str
    def __init__(self, name: _Optional[str] = ..., number: _Optional[float] = ..., whole: _Optional[int] = ..., flag: bool = ..., word: _Optional[str] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("arrival_threshold",)
    ARRIVAL_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    arrival_threshold: int
    def __init__(self, arrival_threshold: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("session", "block", "queue", "last")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    session: str
    block: int
    queue: float
    last: BlockRecord
    def __init__(self, session: _Optional[str] = ..., block: _Optional[int] = ..., queue: _Optional[float] = ..., last: _Optional[_Union[BlockRecord, _Mapping]] = ...) -> None: ...

class BlockRecord(_message.Message):
    __slots__ = ("queue", "gain", "started", "offload", "commanded_w", "power_w", "energy_j", "relative_change", "arrivals")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    GAIN_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    OFFLOAD_FIELD_NUMBER: _ClassVar[int]
    COMMANDED_W_FIELD_NUMBER: _ClassVar[int]
    POWER_W_FIELD_NUMBER: _ClassVar[int]
    ENERGY_J_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    ARRIVALS_FIELD_NUMBER: _ClassVar[int]
    queue: float
    gain: float
    started: float
    offload: float
    commanded_w: float
    power_w: float
    energy_j: float
    relative_change: float
    arrivals: int
    def __init__(self, queue: _Optional[float] = ..., gain: _Optional[float] = ..., started: _Optional[float] = ..., offload: _Optional[float] = ..., commanded_w: _Optional[float] = ..., power_w: _Optional[float] = ..., energy_j: _Optional[float] = ..., relative_change: _Optional[float] = ..., arrivals: _Optional[int] = ...) -> None: ...

class News(_message.Message):
    __slots__ = ("start", "broadcast")
    START_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    start: Start
    broadcast: Broadcast
    def __init__(self, start: _Optional[_Union[Start, _Mapping]] = ..., broadcast: _Optional[_Union[Broadcast, _Mapping]] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("block", "in_s")
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    IN_S_FIELD_NUMBER: _ClassVar[int]
    block: int
    in_s: float
    def __init__(self, block: _Optional[int] = ..., in_s: _Optional[float] = ...) -> None: ...

class Broadcast(_message.Message):
    __slots__ = ("block", "price", "service_rate", "backlog", "share", "lease_until_block")
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_RATE_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    LEASE_UNTIL_BLOCK_FIELD_NUMBER: _ClassVar[int]
    block: int
    price: float
    service_rate: float
    backlog: float
    share: float
    lease_until_block: int
    def __init__(self, block: _Optional[int] = ..., price: _Optional[float] = ..., service_rate: _Optional[float] = ..., backlog: _Optional[float] = ..., share: _Optional[float] = ..., lease_until_block: _Optional[int] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
