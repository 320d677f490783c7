"""The system (1)-(8) and the paper's schemes a second time: slow, plain loops in float64, the oracle of the tests.

Written from the equations and not from the package, of which only facts are taken: the scenario's numbers and a
profile's cuts. All chance is given (`Chance`). Learners of post-decision values are in `reference_planners`, rules of
related work in `reference_rules`. Legend: q tasks at a device, y work at the server in mean tasks (the
mean over devices of W_ser,k), h gain over noise [1/W], p power [W]; `whole` tasks stay, `offload` of one is sent.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from partway.dnn.profile import read_profile
from partway.scenario.schema import DeviceClass, Scenario

SAFETY = 1e-4
MAX_EFFICIENCY = 40.0
BITS_PER_NUMBER = {"fp32": 32.0, "fp16": 16.0, "uint8": 8.0}
FEATURES = 30
POWER_CHOICES = [0.0, *(10.0 ** (-2 + i / 3) for i in range(16))]
RATE_CHOICES = [i / 15 for i in range(16)]
AT_KINK = 0.5
"""Slope of [x]^+ at x = 0: a choice, met in every block in which the server is empty and stands still."""
SAME = 1e-9
"""Relative difference below which two values are one. Large powers saturate every sigmoid: they all look alike."""
DEVICE_ENTRIES = ("q", "whole", "offload", "device_queue", "device_local", "device_radio")


@dataclass(frozen=True)
class DeviceNumbers:
    """One device. `cycles` W, `server_cycles` W_ser, `cuts` ascending (share, bits), or None under the paper's law."""

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
class Chance:
    """What is drawn: `arrivals` [block][slot][device], `gain` [block][device] (one block more than is played).

    mu (M, 3 + n) and nu: the features' weights. uniform [block][device]: shares of `Random`. device_explores,
    device_index [block][device] and server_explores, server_index [block]: exploration of Q-learning.
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
class Words:
    """What the server says in a block: price, work it does, work that waits, and every device's share of its rate."""

    price: float
    service_rate: float
    backlog: float
    shares: list[float]


@dataclass(frozen=True)
class DeviceSees:
    """What device k sees at the start of a block; `arrivals` [slot] are those of the block just ended."""

    k: int
    q: float
    h: float
    arrivals: list[float]
    broadcast: Words


@dataclass(frozen=True)
class ServerSees:
    """What the server sees; `inflow` is the work that came in the block just ended."""

    backlog: float
    inflow: float
    q: list[float]


@dataclass
class History:
    """What happened, one entry a block; the last five are the parts of (8), in units of cost."""

    q: list[list[float]] = field(default_factory=list)
    backlog: list[float] = field(default_factory=list)
    whole: list[list[float]] = field(default_factory=list)
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
    """Ascending (share, bits); of one and the same share the cheapest. None under the paper's law."""
    task = kind.task
    if task.kind == "proportional":
        return None
    profile = read_profile(task.profile)
    cheapest: dict[int, float] = {}
    for i, cut in enumerate(profile.cuts):
        bits = BITS_PER_NUMBER[task.tensor_dtype] * cut.elements
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
            slots=scenario.slots,
            slot_s=scenario.slot_s,
            fleet=len(kinds),
            conserving=scenario.queue == "conserving",
            discount=scenario.discount,
            average=scenario.objective == "average",
        )
        devices.append(device)
    server = ServerNumbers(
        mean_task=mean_task,
        slot_capacity=scenario.slot_s * scenario.server.cpu_max_hz / mean_task,
        xi=scenario.server.capacitance,
        w1=weights.server_queue,
        w2=weights.server_energy,
        slots=scenario.slots,
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
    """D of a share that can be sent."""
    if d.cuts is None:
        return d.bits_per_task * offload
    return next(bits for share, bits in d.cuts if share == offload)


def power(d: DeviceNumbers, h: float, bits: float) -> float:
    """(4)."""
    return d.gap / h * math.expm1(math.log(2) * bits / (d.slot_s * d.bandwidth_hz))


def affordable_shares(d: DeviceNumbers, bits: float) -> list[float]:
    """Shares of the cuts that take at most so many bits, ascending."""
    limit = min(bits, MAX_EFFICIENCY * d.slot_s * d.bandwidth_hz)
    return [share for share, needs in d.cuts if needs <= limit]


def share_for_power(d: DeviceNumbers, h: float, p: float) -> float:
    """The largest share that power p sends."""
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


def drain(d: DeviceNumbers, q: float, offload: float) -> float:
    """The fewest whole tasks that f_max allows to leave (T5)."""
    return max(0.0, math.ceil(q - offload - capacity(d) - SAFETY))


def feasible_action(d: DeviceNumbers, q: float, h: float, whole: float, offload: float) -> tuple[float, float]:
    """What the world makes of an asked action."""
    offload = min(max(offload, 0.0), min(q, 1.0))
    bits = affordable_bits(d, h, d.power_max)
    if d.cuts is None:
        offload = min(offload, bits / d.bits_per_task)
    else:
        shares = affordable_shares(d, bits)
        above = [share for share in shares if share >= offload]
        offload = min(above) if above else max(share for share in shares if share < offload)
    whole = min(max(whole, drain(d, q, offload)), math.floor(q))
    if q - whole < offload:
        offload = 0.0
    return max(whole, drain(d, q, offload)), offload


def local_energy(d: DeviceNumbers, tasks: float) -> float:
    """(2) at equal rates [J]."""
    return d.xi * (tasks * d.cycles) ** 3 / (d.slots * d.slot_s) ** 2


def radio_energy(d: DeviceNumbers, h: float, offload: float) -> float:
    """(5) [J]."""
    return d.slot_s * power(d, h, bits_of(d, offload))


def next_queue(d: DeviceNumbers, whole: float, offload: float, arrivals: list[float]) -> float:
    """(1), conserving or as printed (T1)."""
    return whole + sum(arrivals) + (0.0 if d.conserving else offload)


def device_unit(d: DeviceNumbers) -> float:
    """c, the usual cost of a device: one task waits, one is run."""
    return d.w3 * d.cycles + d.w4 * local_energy(d, 1.0)


def half_power(d: DeviceNumbers) -> float:
    """The power that sends half a task at mean gain; on layers the first cut of at least a half."""
    if d.cuts is None:
        return power(d, d.mean_gain, 0.5 * d.bits_per_task)
    return power(d, d.mean_gain, next(bits for share, bits in d.cuts if share >= 0.5))


# The server's physics.


def server_energy(s: ServerNumbers, rates: list[float]) -> float:
    """(7) [J], for the rates commanded [mean tasks per slot]."""
    return sum(s.slot_s * s.xi * (rate * s.mean_task / s.slot_s) ** 3 for rate in rates)


def server_unit(s: ServerNumbers) -> float:
    """c, the usual cost of the server: a task of every device waits, as many are served evenly."""
    even = [s.fleet / s.slots] * s.slots
    return s.w1 * s.mean_task * s.fleet + s.w2 * server_energy(s, even)


def next_backlog(y: float, rates: list[float], inflow: float) -> float:
    """(6)."""
    return max(y - sum(rates), 0.0) + inflow


class Serving:
    """A server's words, which most servers do not think about."""

    def price(self, sees: ServerSees, rates: list[float]) -> float:
        """No price."""
        return 0.0

    def shares(self, sees: ServerSees) -> list[float]:
        """To every device the same."""
        return [1 / len(sees.q)] * len(sees.q)


# Algorithms 1 and 2: printed as in (26), (28), (33)-(35), or the exact gradient of the squared error of (24), (32).


class Descent:
    """What both algorithms share: weights theta, parameters a, the step size, the stopping rule."""

    def __init__(self, weights: np.ndarray, a: list[float], top: float, gamma: float):
        self.weights, self.a, self.top, self.gamma = weights, np.array(a), top, gamma
        self.theta = np.full(FEATURES, 2 * 1.0 / (FEATURES * (1 - gamma)))
        self.learned = self.quiet = 0

    def phi(self, inputs: list[float]) -> np.ndarray:
        """The features."""
        return expit(self.weights @ np.array(inputs))

    def move(self, theta_slope: np.ndarray, a_slope: np.ndarray) -> None:
        """One step of (28), against both slopes, unless the stopping rule has fired (T16)."""
        if self.quiet >= 10:
            return
        alpha = 0.01 * (1 + self.learned) ** -0.6
        theta = self.theta - alpha * theta_slope
        change = np.linalg.norm(theta - self.theta) / np.linalg.norm(self.theta)
        self.a = np.clip(self.a - alpha * a_slope, 0.0, self.top)
        self.theta = theta
        self.quiet = self.quiet + 1 if change <= 1e-3 else 0
        self.learned += 1

    def printed(self, r: float, r_slope: np.ndarray, now: np.ndarray, then: np.ndarray, columns: slice) -> None:
        """delta times the printed factors: no 2, a minus before the sum, the next queue held."""
        delta = r + self.gamma * self.theta @ then - self.theta @ now
        bend = self.gamma * then * (1 - then) - now * (1 - now)
        total = (self.theta * bend) @ self.weights[:, columns]
        self.move(delta * (self.gamma * then - now), delta * (r_slope - total))

    def exact(self, r: float, r_slope: np.ndarray, now: np.ndarray, then: np.ndarray, columns: slice, queue_slope):
        """The gradient of delta^2; `queue_slope` is that of the next own queue, which is input 0, in a."""
        delta = r + self.gamma * self.theta @ then - self.theta @ now
        own = self.weights[:, columns]
        through_queue = np.outer(self.weights[:, 0], queue_slope)
        then_slope = (self.theta * then * (1 - then)) @ (own + through_queue)
        now_slope = (self.theta * now * (1 - now)) @ own
        slope = r_slope + self.gamma * then_slope - now_slope
        self.move(2 * delta * (self.gamma * then - now), 2 * delta * slope)


class Algorithm1(Descent):
    """A device: one power p = p^ p_half for ever improved."""

    def __init__(self, d: DeviceNumbers, mu: np.ndarray, gradient: str):
        super().__init__(mu, [1.0], 1e4, d.discount)
        self.d, self.gradient = d, gradient

    def inputs(self, q: float, h: float, arrivals: list[float]) -> list[float]:
        """The state and p^."""
        return [q, h / self.d.mean_gain, self.a[0], *arrivals]

    def act(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> tuple[float, float]:
        """(whole, rest) of this block's power."""
        offload = share_for_power(self.d, sees.h, self.a[0] * half_power(self.d))
        return drain(self.d, sees.q, offload), offload

    def learn(self, sees: DeviceSees, whole: float, offload: float, cost: float, then: DeviceSees) -> None:
        """One step; (whole, rest) are the admitted ones."""
        if self.gradient == "printed":
            self.learn_printed(sees, whole, offload, then)
        else:
            self.learn_exact(sees, whole, then)

    def learn_printed(self, sees: DeviceSees, whole: float, offload: float, then: DeviceSees) -> None:
        """r charges the power commanded, and depends on p through it alone (T15)."""
        d = self.d
        energy = local_energy(d, sees.q - whole - offload) + d.slot_s * self.a[0] * half_power(d)
        r = (d.w3 * d.cycles * sees.q + d.w4 * energy) / device_unit(d)
        r_slope = np.array([d.w4 * d.slot_s * half_power(d) / device_unit(d)])
        phi = self.phi(self.inputs(sees.q, sees.h, sees.arrivals))
        phi_then = self.phi(self.inputs(then.q, then.h, then.arrivals))
        self.printed(r, r_slope, phi, phi_then, slice(2, 3))

    def learn_exact(self, sees: DeviceSees, whole: float, then: DeviceSees) -> None:
        """rest, L, the energies and the next queue are functions of p; `whole` is held (T14)."""
        d, p = self.d, self.a[0] * half_power(self.d)
        offload, slope = share_for_power(d, sees.h, p), share_slope(d, sees.h, p) * half_power(d)
        if offload >= sees.q - whole:  # no more than there is
            offload, slope = sees.q - whole, 0.0
        tasks = sees.q - whole - offload
        energy = local_energy(d, tasks) + radio_energy(d, sees.h, offload)
        local_slope = -3 * d.xi * d.cycles**3 * tasks**2 / (d.slots * d.slot_s) ** 2 * slope
        radio_slope = d.slot_s * half_power(d) if slope > 0 else 0.0  # where all of p is spent
        r = (d.w3 * d.cycles * sees.q + d.w4 * energy) / device_unit(d)
        r_slope = np.array([d.w4 * (local_slope + radio_slope) / device_unit(d)])
        q_then = next_queue(d, whole, offload, then.arrivals)
        phi = self.phi(self.inputs(sees.q, sees.h, sees.arrivals))
        phi_then = self.phi(self.inputs(q_then, then.h, then.arrivals))
        self.exact(r, r_slope, phi, phi_then, slice(2, 3), np.array([0.0 if d.conserving else slope]))


class Algorithm2(Descent, Serving):
    """The server: one rate for every slot, f = f^ slot_capacity, for ever improved."""

    def __init__(self, s: ServerNumbers, nu: np.ndarray, gradient: str):
        super().__init__(nu, [0.3] * s.slots, 1.0, s.discount)
        self.s, self.gradient = s, gradient

    def inputs(self, y: float, q: list[float]) -> list[float]:
        """The state and f^."""
        fleet = self.s.fleet
        return [y / fleet, *(own / math.sqrt(fleet) for own in q), *self.a]

    def act(self, sees: ServerSees, chance: Chance, t: int) -> list[float]:
        """Rates [mean tasks per slot]."""
        return [rate * self.s.slot_capacity for rate in self.a]

    def learn(self, sees: ServerSees, rates: list[float], cost: float, then: ServerSees) -> None:
        """One step."""
        s, columns = self.s, slice(1 + self.s.fleet, None)
        rates = [rate * s.slot_capacity for rate in self.a]
        r = (s.w1 * s.mean_task * sees.backlog + s.w2 * server_energy(s, rates)) / server_unit(s)
        per_rate = [3 * s.slot_s * s.xi * rate**2 * (s.mean_task / s.slot_s) ** 3 for rate in rates]
        r_slope = s.w2 * np.array(per_rate) * s.slot_capacity / server_unit(s)
        phi = self.phi(self.inputs(sees.backlog, sees.q))
        y_then = next_backlog(sees.backlog, rates, then.inflow)
        phi_then = self.phi(self.inputs(y_then, then.q))
        if self.gradient == "printed":
            self.printed(r, r_slope, phi, phi_then, columns)
        else:
            left = sees.backlog - sum(rates)
            served = 1.0 if left > 0 else AT_KINK if left == 0 else 0.0
            queue_slope = np.full(s.slots, -served * s.slot_capacity / s.fleet)
            self.exact(r, r_slope, phi, phi_then, columns, queue_slope)


# Q-learning with the minimum over the next action (T3).


class QTable:
    """Linear Q-learning over a list of choices."""

    def __init__(self, weights: np.ndarray, choices: list[float], gamma: float):
        self.weights, self.choices, self.gamma = weights, choices, gamma
        self.theta = np.zeros(FEATURES)
        self.learned = 0

    def phi(self, inputs: list[float]) -> np.ndarray:
        """The features."""
        return expit(self.weights @ np.array(inputs))

    def values(self, states: list[list[float]]) -> list[float]:
        """Q of every choice, given the inputs with each."""
        return [float(self.theta @ self.phi(inputs)) for inputs in states]

    def choose(self, states: list[list[float]], explores: bool, index: int) -> float:
        """The first best choice, or the given one."""
        if explores:
            return self.choices[index]
        values = self.values(states)
        best, second = sorted(values)[:2]
        if self.theta.any() and second - best < SAME * max(1.0, abs(best)):
            raise ArithmeticError("two choices differ by rounding only, so nobody can say which is right: other draws!")
        return self.choices[values.index(best)]

    def step(self, r: float, started: list[float], states_then: list[list[float]]) -> None:
        """(20) with its minimum."""
        phi = self.phi(started)
        error = r + self.gamma * min(self.values(states_then)) - self.theta @ phi
        self.theta = self.theta + 0.1 * (1 + self.learned) ** -0.6 * error * phi
        self.learned += 1


class QLearningDevice(QTable):
    """A device that chooses a power p^."""

    choices_of_device = POWER_CHOICES

    def __init__(self, d: DeviceNumbers, mu: np.ndarray, log_scaled: bool = False):
        super().__init__(mu, self.choices_of_device, d.discount)
        self.d, self.log_scaled = d, log_scaled
        self.commanded = 0.0

    def inputs(self, sees: DeviceSees, choice: float) -> list[float]:
        """The state and the choice."""
        gain = sees.h / self.d.mean_gain
        if self.log_scaled:
            gain, choice = math.log(gain), math.log(1 + choice)
        return [sees.q, gain, choice, *sees.arrivals]

    def all_inputs(self, sees: DeviceSees) -> list[list[float]]:
        """The inputs with every choice."""
        return [self.inputs(sees, choice) for choice in self.choices]

    def share(self, sees: DeviceSees) -> float:
        """What the commanded power sends."""
        return share_for_power(self.d, sees.h, self.commanded * half_power(self.d))

    def started(self, offload: float) -> float:
        """The choice that is learned about."""
        return self.commanded

    def act(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> tuple[float, float]:
        """(whole, rest) of the best choice or a random one."""
        explores, index = bool(chance.device_explores[t, k]), int(chance.device_index[t, k])
        self.commanded = self.choose(self.all_inputs(sees), explores, index)
        offload = self.share(sees)
        return drain(self.d, sees.q, offload), offload

    def learn(self, sees: DeviceSees, whole: float, offload: float, cost: float, then: DeviceSees) -> None:
        """One step, with the cost charged."""
        self.step(cost / device_unit(self.d), self.inputs(sees, self.started(offload)), self.all_inputs(then))


class Binary(QLearningDevice):
    """A device that chooses between a whole task and nothing (T10), and learns about what was admitted."""

    choices_of_device = (0.0, 1.0)

    def share(self, sees: DeviceSees) -> float:
        """The choice itself."""
        return self.commanded

    def started(self, offload: float) -> float:
        """The share admitted."""
        return offload


class QLearningServer(QTable, Serving):
    """The server that chooses one rate for all slots."""

    def __init__(self, s: ServerNumbers, nu: np.ndarray, log_scaled: bool = False):
        super().__init__(nu, RATE_CHOICES, s.discount)
        self.s, self.log_scaled = s, log_scaled
        self.commanded = 0.0

    def inputs(self, sees: ServerSees, choice: float) -> list[float]:
        """The state and the choice."""
        fleet = self.s.fleet
        backlog = math.log(1 + sees.backlog / fleet) if self.log_scaled else sees.backlog / fleet
        return [backlog, *(own / math.sqrt(fleet) for own in sees.q), choice]

    def all_inputs(self, sees: ServerSees) -> list[list[float]]:
        """The inputs with every choice."""
        return [self.inputs(sees, choice) for choice in self.choices]

    def act(self, sees: ServerSees, chance: Chance, t: int) -> list[float]:
        """Rates [mean tasks per slot]."""
        explores, index = bool(chance.server_explores[t]), int(chance.server_index[t])
        self.commanded = self.choose(self.all_inputs(sees), explores, index)
        return [self.commanded * self.s.slot_capacity] * self.s.slots

    def learn(self, sees: ServerSees, rates: list[float], cost: float, then: ServerSees) -> None:
        """One step, with the cost charged."""
        self.step(cost / server_unit(self.s), self.inputs(sees, self.commanded), self.all_inputs(then))


# Baselines.


class Baseline:
    """A device that learns nothing."""

    def __init__(self, d: DeviceNumbers):
        self.d = d

    def share(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> float:
        """The share asked for."""
        raise NotImplementedError

    def act(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> tuple[float, float]:
        """(whole, rest)."""
        offload = self.share(sees, chance, t, k)
        return drain(self.d, sees.q, offload), offload

    def learn(self, sees: DeviceSees, whole: float, offload: float, cost: float, then: DeviceSees) -> None:
        """Nothing."""


class Random(Baseline):
    """rest ~ U(0, 1)."""

    def share(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> float:
        """The given draw."""
        return float(chance.uniform[t, k])


class Even(Baseline):
    """Every device sends the same amount of work, together what the server was heard to serve."""

    def share(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> float:
        """A K-th of the rate heard."""
        return min(1.0, sees.broadcast.service_rate / self.d.fleet / (self.d.server_cycles / self.d.mean_task))


class Local(Baseline):
    """Sends nothing."""

    def share(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> float:
        """Nothing."""
        return 0.0


class Full(Baseline):
    """Sends a whole task and runs none."""

    def act(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> tuple[float, float]:
        """All but one stay."""
        return max(sees.q - 1, 0.0), 1.0


class Constant(Baseline):
    """The same number of tasks and the same share for ever."""

    def __init__(self, d: DeviceNumbers, tasks: float, share: float):
        super().__init__(d)
        self.tasks, self.fixed = tasks, share

    def act(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> tuple[float, float]:
        """Take up `tasks`, send `share` of the last."""
        return max(sees.q - self.tasks, 0.0), self.fixed


class Steady(Serving):
    """A server at a constant share of f_max, as far as there is work; it learns nothing."""

    def __init__(self, s: ServerNumbers, speed: float):
        self.s, self.speed = s, speed

    def act(self, sees: ServerSees, chance: Chance, t: int) -> list[float]:
        """Rates [mean tasks per slot]."""
        return [min(self.speed * self.s.slot_capacity, sees.backlog / self.s.slots)] * self.s.slots

    def learn(self, sees: ServerSees, rates: list[float], cost: float, then: ServerSees) -> None:
        """Nothing."""


# The loop.


def play(scenario: Scenario, mean_gain: np.ndarray, chance: Chance, make_device, make_server, blocks: int) -> History:
    """The scenario's world under one scheme: `make_device(numbers)`, `make_server(numbers)` give its controllers."""
    device_numbers, server_numbers = numbers(scenario, mean_gain)
    devices = [make_device(d) for d in device_numbers]
    server = make_server(server_numbers)
    fleet = range(len(devices))
    server_sees = ServerSees(0.0, 0.0, [0.0 for _ in fleet])
    arrivals = [[0.0] * scenario.slots for _ in fleet]
    said: list[Words] = []
    history = History()
    for t in range(blocks):
        q, y = server_sees.q, server_sees.backlog
        rates = server.act(server_sees, chance, t)
        said.append(Words(server.price(server_sees, rates), sum(rates), y, server.shares(server_sees)))
        broadcast = heard_at(t, said, scenario.broadcast_delay_blocks)
        device_sees = [DeviceSees(k, q[k], float(chance.gain[t, k]), arrivals[k], broadcast) for k in fleet]
        play_devices(history, device_numbers, devices, device_sees, chance, t)
        charge_server(history, server_numbers, y, rates)

        whole, offload = history.whole[-1], history.offload[-1]
        arrivals = [[float(chance.arrivals[t, i, k]) for i in range(scenario.slots)] for k in fleet]
        inflow = sum(offload[k] * d.server_cycles / d.mean_task for k, d in enumerate(device_numbers))
        q_then = [next_queue(d, whole[k], offload[k], arrivals[k]) for k, d in enumerate(device_numbers)]
        server_then = ServerSees(next_backlog(y, rates, inflow), inflow, q_then)

        broadcast = heard_at(t + 1, said, scenario.broadcast_delay_blocks)
        for k in fleet:
            cost = history.device_queue[-1][k] + history.device_local[-1][k] + history.device_radio[-1][k]
            then = DeviceSees(k, q_then[k], float(chance.gain[t + 1, k]), arrivals[k], broadcast)
            devices[k].learn(device_sees[k], whole[k], offload[k], cost, then)
        server.learn(server_sees, rates, history.server_queue[-1] + history.server_energy[-1], server_then)
        server_sees = server_then
    return history


def heard_at(t: int, said: list[Words], lag: int) -> Words:
    """What has been heard when block t starts: the words of block t - lag, the last ones if it has not spoken yet."""
    if t < lag:
        return Words(0.0, 0.0, 0.0, [0.0] * len(said[0].shares))
    return said[min(t - lag, len(said) - 1)]


def play_devices(
    history: History, numbers: list[DeviceNumbers], devices: list, sees: list[DeviceSees], chance: Chance, t: int
) -> None:
    """Every device acts, the world admits, and charges the devices' parts of (8)."""
    rows: dict[str, list[float]] = {name: [] for name in DEVICE_ENTRIES}
    for k, d in enumerate(numbers):
        q, h = sees[k].q, sees[k].h
        whole, offload = feasible_action(d, q, h, *devices[k].act(sees[k], chance, t, k))
        rows["q"].append(q)
        rows["whole"].append(whole)
        rows["offload"].append(offload)
        rows["device_queue"].append(d.w3 * d.cycles * q)
        rows["device_local"].append(d.w4 * local_energy(d, q - whole - offload))
        rows["device_radio"].append(d.w4 * radio_energy(d, h, offload))
    for name, row in rows.items():
        getattr(history, name).append(row)


def charge_server(history: History, s: ServerNumbers, y: float, rates: list[float]) -> None:
    """The server's parts of (8)."""
    history.backlog.append(y)
    history.service_per_slot.append(list(rates))
    history.server_queue.append(s.w1 * s.mean_task * y)
    history.server_energy.append(s.w2 * server_energy(s, rates))
