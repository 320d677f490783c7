"""The system (1)-(8) a second time: slow, plain loops in float64, the oracle of the tests.

Written from the equations and not from the package, of which only facts are taken: the scenario's numbers and a
profile's cuts. All random numbers are given (`Samples`). The paper's schemes are in `reference_paper`, learners of
post-decision values in `reference_planners`, rules of related work in `reference_rules`.

Legend: q tasks at a device; `started` of them are taken from the queue in a block, and of the last one the fraction
`offload` is sent; y work at the server in mean tasks (the mean over devices of W_ser,k); h gain over noise [1/W]; p
power [W].
"""

import math
from dataclasses import dataclass, field

import numpy as np

from partway.dnn.profile import read_profile
from partway.scenario.schema import DeviceClass, Scenario

SAFETY = 1e-4
MAX_EFFICIENCY = 40.0
BITS_PER_NUMBER = {"fp32": 32.0, "fp16": 16.0, "uint8": 8.0}
DEVICE_ENTRIES = ("q", "started", "offload", "device_queue", "device_local", "device_radio")


@dataclass(frozen=True)
class DeviceNumbers:
    """Device number `k`.

    `cycles` W, `server_cycles` W_ser, `cuts` ascending (share, bits), or None under the paper's law; `sees_current`:
    arrivals of a block are seen before the device acts (T6).
    """

    k: int
    cycles: float
    server_cycles: float
    mean_task: float
    cuts: list[tuple[float, float]] | None
    bits_per_task: float
    cpu_max_hz: float
    xi: float
    bandwidth_hz: float
    power_max: float
    w3: float
    w4: float
    mean_gain: float
    gap: float
    slots: int
    slot_s: float
    fleet: int
    conserving: bool
    discount: float
    average: bool
    sees_current: bool


@dataclass(frozen=True)
class ServerNumbers:
    """The server; `mean_task` [cycles] is its unit of work, `slot_capacity` what it can do in a slot in that unit."""

    mean_task: float
    slot_capacity: float
    xi: float
    w1: float
    w2: float
    slots: int
    slot_s: float
    fleet: int
    discount: float
    average: bool
    broadcast_delay_blocks: int


@dataclass(frozen=True)
class Samples:
    """All random numbers of a run.

    arrivals                         [block][slot][device], of one more block than is simulated
    gain                             [block][device], of one more block than is simulated
    mu, nu                           (M, 3 + n), (M, 1 + K + n) weights of the features
    uniform                          [block][device] fractions of `Random`
    device_explores, device_index    [block][device] exploration of Q-learning: whether, and which choice
    server_explores, server_index    [block] the same at the server
    """

    arrivals: np.ndarray
    gain: np.ndarray
    mu: np.ndarray | None = None
    nu: np.ndarray | None = None
    uniform: np.ndarray | None = None
    device_explores: np.ndarray | None = None
    device_index: np.ndarray | None = None
    server_explores: np.ndarray | None = None
    server_index: np.ndarray | None = None


@dataclass(frozen=True)
class Broadcast:
    """The server's broadcast: price, work done in this block, work that waits, every device's share of the service."""

    price: float
    service_rate: float
    backlog: float
    shares: list[float]


@dataclass(frozen=True)
class DeviceObservation:
    """What device k sees at the start of a block; `arrivals` [slot] are those of the block before, or its own (T6)."""

    k: int
    q: float
    h: float
    arrivals: list[float]
    broadcast: Broadcast


@dataclass(frozen=True)
class ServerObservation:
    """What the server sees; `inflow` is the work that arrived in the block before."""

    backlog: float
    inflow: float
    q: list[float]


@dataclass
class History:
    """What happened, one entry per block; the last five are the components of (8), in units of cost."""

    q: list[list[float]] = field(default_factory=list)
    backlog: list[float] = field(default_factory=list)
    started: list[list[float]] = field(default_factory=list)
    offload: list[list[float]] = field(default_factory=list)
    service_per_slot: list[list[float]] = field(default_factory=list)
    server_queue: list[float] = field(default_factory=list)
    server_energy: list[float] = field(default_factory=list)
    device_queue: list[list[float]] = field(default_factory=list)
    device_local: list[list[float]] = field(default_factory=list)
    device_radio: list[list[float]] = field(default_factory=list)


# What the scenario says.


def work_of(scenario: Scenario, kind: DeviceClass) -> tuple[float, float]:
    """(W, W_ser) [cycles] of a class."""
    task = kind.task
    if task.kind == "proportional":
        return task.cycles, task.cycles
    macs = read_profile(task.profile).cuts[-1].macs
    return macs / kind.macs_per_cycle, macs / scenario.server.macs_per_cycle


def cuts_of(kind: DeviceClass) -> list[tuple[float, float]] | None:
    """Ascending (share, bits), of equal shares the one with the fewest bits. None under the paper's law."""
    task = kind.task
    if task.kind == "proportional":
        return None
    profile = read_profile(task.profile)
    cheapest: dict[int, float] = {}
    for i, cut in enumerate(profile.cuts):
        bits = BITS_PER_NUMBER[task.tensor_dtype] * sum(tensor.elements for tensor in cut.tensors)
        if i == 0:
            bits = profile.input_bits if task.input_bits is None else task.input_bits
        if i == len(profile.cuts) - 1:
            bits = 0.0
        cheapest[cut.macs] = min(bits, cheapest.get(cut.macs, math.inf))
    return sorted((1.0 - macs / profile.cuts[-1].macs, bits) for macs, bits in cheapest.items())


def numbers(scenario: Scenario, mean_gain: np.ndarray) -> tuple[list[DeviceNumbers], ServerNumbers]:
    """Every party's constants."""
    kinds, weights = scenario.device_classes(), scenario.weights
    mean_task = sum(work_of(scenario, kind)[1] for kind in kinds) / len(kinds)
    devices = []
    for k, kind in enumerate(kinds):
        cycles, server_cycles = work_of(scenario, kind)
        task = kind.task
        device = DeviceNumbers(
            k=k,
            cycles=cycles,
            server_cycles=server_cycles,
            mean_task=mean_task,
            cuts=cuts_of(kind),
            bits_per_task=task.bits_per_cycle * task.cycles if task.kind == "proportional" else math.nan,
            cpu_max_hz=kind.cpu_max_hz,
            xi=kind.capacitance,
            bandwidth_hz=kind.bandwidth_hz,
            power_max=kind.tx_power_max_w,
            w3=weights.device_queue if kind.queue_weight is None else kind.queue_weight,
            w4=weights.device_energy if kind.energy_weight is None else kind.energy_weight,
            mean_gain=float(mean_gain[k]),
            gap=scenario.radio.snr_gap,
            slots=scenario.slots_per_block,
            slot_s=scenario.slot_s,
            fleet=len(kinds),
            conserving=scenario.queue == "conserving",
            discount=scenario.discount,
            average=scenario.objective == "average",
            sees_current=scenario.arrivals_seen == "current",
        )
        devices.append(device)
    server = ServerNumbers(
        mean_task=mean_task,
        slot_capacity=scenario.slot_s * scenario.server.cpu_max_hz / mean_task,
        xi=scenario.server.capacitance,
        w1=weights.server_queue,
        w2=weights.server_energy,
        slots=scenario.slots_per_block,
        slot_s=scenario.slot_s,
        fleet=len(kinds),
        discount=scenario.discount,
        average=scenario.objective == "average",
        broadcast_delay_blocks=scenario.broadcast_delay_blocks,
    )
    return devices, server


# The device's physics.


def capacity(d: DeviceNumbers) -> float:
    """Tasks a device can run in a block."""
    return d.slots * d.slot_s * d.cpu_max_hz / d.cycles


def affordable_bits(d: DeviceNumbers, h: float, p: float) -> float:
    """(3) over one slot, at most 40 bit/s/Hz."""
    return d.slot_s * d.bandwidth_hz * min(math.log2(1 + h * p / d.gap), MAX_EFFICIENCY)


def bits_of(d: DeviceNumbers, offload: float) -> float:
    """D of a fraction that can be sent."""
    if d.cuts is None:
        return d.bits_per_task * offload
    return next(bits for share, bits in d.cuts if share == offload)


def power(d: DeviceNumbers, h: float, bits: float) -> float:
    """(4)."""
    return d.gap / h * math.expm1(math.log(2) * bits / (d.slot_s * d.bandwidth_hz))


def affordable_shares(d: DeviceNumbers, bits: float) -> list[float]:
    """Shares of the cuts with at most so many bits, ascending."""
    limit = min(bits, MAX_EFFICIENCY * d.slot_s * d.bandwidth_hz)
    return [share for share, needs in d.cuts if needs <= limit]


def share_for_power(d: DeviceNumbers, h: float, p: float) -> float:
    """The largest fraction that power p can send."""
    bits = affordable_bits(d, h, min(p, d.power_max))
    if d.cuts is None:
        return min(1.0, bits / d.bits_per_task)
    return max(affordable_shares(d, bits))


def share_slope(d: DeviceNumbers, h: float, p: float) -> float:
    """d share_for_power / dp [1/W]: zero on layers, above the power limit and where a whole task is sent."""
    if d.cuts is not None or p >= d.power_max or share_for_power(d, h, p) >= 1:
        return 0.0
    snr = h * p / d.gap
    if math.log2(1 + snr) >= MAX_EFFICIENCY:
        return 0.0
    return d.slot_s * d.bandwidth_hz / d.bits_per_task * (h / d.gap) / ((1 + snr) * math.log(2))


def least_remaining(d: DeviceNumbers, q: float, offload: float) -> float:
    """The least whole number of tasks that remain in the queue, as f_max allows (T5)."""
    return max(0.0, math.ceil(q - offload - capacity(d) - SAFETY))


def most_startable(d: DeviceNumbers, q: float, offload: float) -> float:
    """The most tasks that can be started."""
    return q - least_remaining(d, q, offload)


def feasible_action(d: DeviceNumbers, q: float, h: float, started: float, offload: float) -> tuple[float, float]:
    """The (started, offload) that happens when this is asked for."""
    offload = min(max(offload, 0.0), min(q, 1.0))
    bits = affordable_bits(d, h, d.power_max)
    if d.cuts is None:
        offload = min(offload, bits / d.bits_per_task)
    else:
        shares = affordable_shares(d, bits)
        above = [share for share in shares if share >= offload]
        offload = min(above) if above else max(share for share in shares if share < offload)
    remaining = math.ceil(q - started - SAFETY)
    remaining = min(max(remaining, least_remaining(d, q, offload)), math.floor(q))
    if q - remaining < offload:
        offload = 0.0
    return q - max(remaining, least_remaining(d, q, offload)), offload


def local_energy(d: DeviceNumbers, tasks: float) -> float:
    """(2) at equal service [J]."""
    return d.xi * (tasks * d.cycles) ** 3 / (d.slots * d.slot_s) ** 2


def radio_energy(d: DeviceNumbers, h: float, offload: float) -> float:
    """(5) [J]."""
    return d.slot_s * power(d, h, bits_of(d, offload))


def next_queue(d: DeviceNumbers, q: float, started: float, offload: float, arrivals: list[float]) -> float:
    """(1), conserving or as printed (T1)."""
    return q - started + sum(arrivals) + (0.0 if d.conserving else offload)


def joined(d: DeviceNumbers, seen: DeviceObservation, after: DeviceObservation) -> list[float]:
    """The arrivals of the block between two observations."""
    return seen.arrivals if d.sees_current else after.arrivals


def device_unit(d: DeviceNumbers) -> float:
    """The typical cost of a device: one task waits, one is run."""
    return d.w3 * d.cycles + d.w4 * local_energy(d, 1.0)


def full_power(d: DeviceNumbers) -> float:
    """The power that sends a whole task at mean gain."""
    return power(d, d.mean_gain, bits_of(d, 1.0))


def half_power(d: DeviceNumbers) -> float:
    """The power that sends half a task at mean gain; on layers the first cut of at least a half."""
    if d.cuts is None:
        return power(d, d.mean_gain, 0.5 * d.bits_per_task)
    return power(d, d.mean_gain, next(bits for share, bits in d.cuts if share >= 0.5))


# The server's physics.


def server_energy(s: ServerNumbers, service: list[float]) -> float:
    """(7) [J], for the service commanded in each slot [mean tasks]."""
    return sum(s.slot_s * s.xi * (work * s.mean_task / s.slot_s) ** 3 for work in service)


def server_unit(s: ServerNumbers) -> float:
    """The typical cost of the server: one task of every device waits, as many are served at an equal rate."""
    even = [s.fleet / s.slots] * s.slots
    return s.w1 * s.mean_task * s.fleet + s.w2 * server_energy(s, even)


def next_backlog(y: float, service: list[float], inflow: float) -> float:
    """(6)."""
    return max(y - sum(service), 0.0) + inflow


class Broadcasting:
    """A server's broadcast, unless it has a price or shares of its own."""

    def price(self, seen: ServerObservation, service: list[float]) -> float:
        """0."""
        return 0.0

    def shares(self, seen: ServerObservation) -> list[float]:
        """Equal shares."""
        return [1 / len(seen.q)] * len(seen.q)


# The loop.


def simulate(
    scenario: Scenario, mean_gain: np.ndarray, samples: Samples, make_device, make_server, blocks: int
) -> History:
    """The scenario's world under one scheme; `make_device(numbers)`, `make_server(numbers)` give its controllers."""
    device_numbers, server_numbers = numbers(scenario, mean_gain)
    devices = [make_device(d) for d in device_numbers]
    server = make_server(server_numbers)
    fleet, delay = range(len(devices)), scenario.broadcast_delay_blocks
    waiting = [kind.initial_queue_tasks for kind in scenario.device_classes()]
    server_seen = ServerObservation(scenario.server.initial_queue_tasks, 0.0, waiting)

    def arriving(t: int) -> list[list[float]]:
        return [[float(samples.arrivals[t, i, k]) for i in range(scenario.slots_per_block)] for k in fleet]

    early = scenario.arrivals_seen == "current"
    seen = arriving(0) if early else [[0.0] * scenario.slots_per_block for _ in fleet]
    broadcasts: list[Broadcast] = []
    history = History()
    for t in range(blocks):
        q, y = server_seen.q, server_seen.backlog
        service = server.act(server_seen, samples, t)
        broadcasts.append(Broadcast(server.price(server_seen, service), sum(service), y, server.shares(server_seen)))
        latest = received(t, broadcasts, delay)
        device_seen = [DeviceObservation(k, q[k], float(samples.gain[t, k]), seen[k], latest) for k in fleet]
        act_and_charge(history, device_numbers, devices, device_seen, samples, t)
        charge_server(history, server_numbers, y, service)

        started, offload = history.started[-1], history.offload[-1]
        arrivals = arriving(t)
        seen = arriving(t + 1) if early else arrivals
        inflow = sum(offload[k] * d.server_cycles / d.mean_task for k, d in enumerate(device_numbers))
        q_after = [next_queue(d, q[k], started[k], offload[k], arrivals[k]) for k, d in enumerate(device_numbers)]
        server_after = ServerObservation(next_backlog(y, service, inflow), inflow, q_after)

        latest = received(t + 1, broadcasts, delay)
        for k in fleet:
            cost = history.device_queue[-1][k] + history.device_local[-1][k] + history.device_radio[-1][k]
            after = DeviceObservation(k, q_after[k], float(samples.gain[t + 1, k]), seen[k], latest)
            devices[k].learn(device_seen[k], started[k], offload[k], cost, after)
        server.learn(server_seen, service, history.server_queue[-1] + history.server_energy[-1], server_after)
        server_seen = server_after
    return history


def received(t: int, broadcasts: list[Broadcast], delay: int) -> Broadcast:
    """What devices have received when block t starts: the broadcast of block t - delay, or the last one so far."""
    if t < delay:
        return Broadcast(0.0, 0.0, 0.0, [0.0] * len(broadcasts[0].shares))
    return broadcasts[min(t - delay, len(broadcasts) - 1)]


def act_and_charge(
    history: History,
    numbers: list[DeviceNumbers],
    devices: list,
    seen: list[DeviceObservation],
    samples: Samples,
    t: int,
) -> None:
    """Every device acts, its action becomes feasible, and the devices' components of (8) are charged."""
    rows: dict[str, list[float]] = {name: [] for name in DEVICE_ENTRIES}
    for k, d in enumerate(numbers):
        q, h = seen[k].q, seen[k].h
        started, offload = feasible_action(d, q, h, *devices[k].act(seen[k], samples, t, k))
        rows["q"].append(q)
        rows["started"].append(started)
        rows["offload"].append(offload)
        rows["device_queue"].append(d.w3 * d.cycles * q)
        rows["device_local"].append(d.w4 * local_energy(d, started - offload))
        rows["device_radio"].append(d.w4 * radio_energy(d, h, offload))
    for name, row in rows.items():
        getattr(history, name).append(row)


def charge_server(history: History, s: ServerNumbers, y: float, service: list[float]) -> None:
    """The server's components of (8)."""
    history.backlog.append(y)
    history.service_per_slot.append(list(service))
    history.server_queue.append(s.w1 * s.mean_task * y)
    history.server_energy.append(s.w2 * server_energy(s, service))
