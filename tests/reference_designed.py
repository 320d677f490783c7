"""Q-learning with designed features once more, in plain loops from its equations: see `reference`."""

import math
from itertools import pairwise

import numpy as np
from reference import (
    SAFETY,
    Broadcasting,
    DeviceNumbers,
    DeviceObservation,
    Samples,
    ServerNumbers,
    ServerObservation,
    affordable_bits,
    affordable_shares,
    capacity,
    device_unit,
    joined,
    local_energy,
    most_startable,
    radio_energy,
    server_unit,
)
from reference_planners import least

Step = tuple[tuple[float, ...], float, float]
"""Direction, lower and upper edge."""
SHARES = [i / 8 for i in range(9)]
FRACTIONS = [(5 + i) / 20 for i in range(16)]
PLANNED = 16


def steps(direction: tuple[float, ...], edges: list[float]) -> list[Step]:
    """Neighbouring edges."""
    return [(direction, low, high) for low, high in pairwise(edges)]


SENT = steps((0, 1, 0), [0, 1])
RADIO = steps((0, 0, 1), [-0.75, 0, 0.75, 1.5, 2.25, 3, 3.75])
UNSENT = steps((1, -1, 0), [i - 0.5 for i in range(16)] + [16.5, 18.5, 20.5, 24, 30, 40, 60])
BUSY = steps((0, 0, 1), [0, 1])
SERVED = steps((1, 0, 0), [-0.2, 0, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 3])
LEFT = steps((-1, 1, 0), [-0.1, 0, 0.1, 0.25, 0.5, 1, 2])
NEXT = steps((-1, 1, 1), [-0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 10, 16])


def rise(function, step: Step) -> float:
    """By how much a function of x >= 0 rises over a step."""
    return function(max(step[2], 0.0)) - function(max(step[1], 0.0))


class LeastSquares:
    """A constant feature and one for each step; theta_i is what Q rises by over step i."""

    def __init__(self, every: list[Step], theta: list[float], gamma: float):
        self.steps, self.gamma, self.t = every, gamma, 0
        self.theta = np.array([0.0, *theta])
        self.spread = np.diag([0.0, *((high - low) ** 2 for _, low, high in every)])

    def phi(self, inputs: list[float]) -> np.ndarray:
        """The features of these inputs."""
        found = [0.5]
        for direction, low, high in self.steps:
            along = sum(weight * value for weight, value in zip(direction, inputs, strict=True))
            found.append(1 / (1 + math.exp(-3 * (along - (low + high) / 2) / (high - low))))
        return np.array(found)

    def q(self, inputs: list[float]) -> float:
        """Q of these inputs."""
        return float(self.theta @ self.phi(inputs))

    def step(self, r: float, inputs: list[float], least_after: float) -> None:
        """Recursive least squares towards r + gamma min Q."""
        phi = self.phi(inputs)
        error = r + self.gamma * least_after - self.theta @ phi
        along = self.spread @ phi
        gain = along / (1 + phi @ along)
        self.spread = self.spread - np.outer(gain, along)
        self.theta = self.theta + error * gain
        self.theta[0] += 2 * error / (1 - self.gamma) / (1 + self.t)
        self.t += 1


class DesignedDevice:
    """A device: the power of least Q, then the number of tasks left that costs least."""

    def __init__(self, d: DeviceNumbers):
        self.d, self.arrived = d, [1.0] + [0.0] * d.slots
        unit, most = device_unit(d), capacity(d)
        marginal = 3 * d.xi * d.cycles**3 * most**2 / (d.slots * d.slot_s) ** 2

        def run_at_once(work: float) -> float:
            energy = local_energy(d, min(work, most)) + marginal * max(work - most, 0.0)
            return (d.w3 * d.cycles * work + d.w4 * energy) / unit

        theta = [
            *(d.w3 * d.cycles / unit * rise(float, step) for step in SENT),
            *(rise(math.expm1, step) for step in RADIO),
            *(rise(run_at_once, step) for step in UNSENT),
        ]
        self.learner = LeastSquares([*SENT, *RADIO, *UNSENT], theta, d.discount)

    def inputs(self, q: float, h: float, offload: float) -> list[float]:
        """q, offload, log(1 + radio cost)."""
        return [q, offload, math.log(1 + self.d.w4 * radio_energy(self.d, h, offload) / device_unit(self.d))]

    def offloads(self, q: float, h: float) -> list[float]:
        """What can be sent with each choice."""
        d = self.d
        if q < 1:
            return [0.0] * len(SHARES)
        bits = affordable_bits(d, h, min(d.power_max, 20 * device_unit(d) / (d.w4 * d.slot_s)))
        if d.cuts is None:
            return [min(share, bits / d.bits_per_task) for share in SHARES]
        cuts = affordable_shares(d, bits)
        return [min([cut for cut in cuts if cut >= share], default=max(cuts)) for share in SHARES]

    def values(self, q: float, h: float) -> list[float]:
        """Q of every choice."""
        return [self.learner.q(self.inputs(q, h, offload)) for offload in self.offloads(q, h)]

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """(started, offload)."""
        assert samples.device_explores is not None
        assert samples.device_index is not None
        offloads = self.offloads(seen.q, seen.h)
        explores = bool(samples.device_explores[t, k])
        offload = offloads[int(samples.device_index[t, k]) if explores else least(self.values(seen.q, seen.h))]
        values = [min(self.values(float(q), seen.h)) for q in range(PLANNED + self.d.slots)]
        costs: dict[int, float] = {}
        for left in range(PLANNED):
            local = seen.q - offload - left
            if -SAFETY <= local <= capacity(self.d) + SAFETY:
                after = sum(share * values[left + a] for a, share in enumerate(self.arrived))
                energy = self.d.w4 * local_energy(self.d, local) / device_unit(self.d)
                costs[left] = energy + self.d.discount * after
        if not costs:
            return most_startable(self.d, seen.q, offload), offload
        return seen.q - list(costs)[least(list(costs.values()))], offload

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """One step, then the arrivals are counted."""
        t = self.learner.t
        own = self.inputs(seen.q, seen.h, offload)
        self.learner.step(cost / device_unit(self.d), own, min(self.values(after.q, after.h)))
        new = round(sum(joined(self.d, seen, after)))
        self.arrived = [(known * t + (a == new)) / (t + 1) for a, known in enumerate(self.arrived)]


class DesignedServer(Broadcasting):
    """The server: the fraction of its queue of least Q."""

    def __init__(self, s: ServerNumbers):
        self.s = s
        unit = server_unit(s)
        wait = s.w1 * s.mean_task * s.fleet / unit
        run = s.w2 * s.xi * (s.fleet * s.mean_task) ** 3 / (s.slots * s.slot_s) ** 2 / unit

        def served(work: float) -> float:
            return wait * work + run * work**3

        theta = [
            *(-wait * rise(float, step) for step in BUSY),
            *(rise(served, step) for step in SERVED),
            *(0.0 for _ in LEFT),
            *(rise(lambda work: wait * work + s.discount * served(work), step) for step in NEXT),
        ]
        self.learner = LeastSquares([*BUSY, *SERVED, *LEFT, *NEXT], theta, s.discount)

    def inputs(self, seen: ServerObservation, service: float) -> list[float]:
        """Service, queue, share of the devices that have a task."""
        fleet = self.s.fleet
        return [service / fleet, seen.backlog / fleet, sum(min(q, 1.0) for q in seen.q) / fleet]

    def choices(self, seen: ServerObservation) -> list[float]:
        """Work to do in a block."""
        return [min(fraction * seen.backlog, self.s.slots * self.s.slot_capacity) for fraction in FRACTIONS]

    def values(self, seen: ServerObservation) -> list[float]:
        """Q of every choice."""
        return [self.learner.q(self.inputs(seen, service)) for service in self.choices(seen)]

    def act(self, seen: ServerObservation, samples: Samples, t: int) -> list[float]:
        """Service of each slot [mean tasks]."""
        assert samples.server_explores is not None
        assert samples.server_index is not None
        explores = bool(samples.server_explores[t])
        service = self.choices(seen)[int(samples.server_index[t]) if explores else least(self.values(seen))]
        return [service / self.s.slots] * self.s.slots

    def learn(self, seen: ServerObservation, service: list[float], cost: float, after: ServerObservation) -> None:
        """One step."""
        self.learner.step(cost / server_unit(self.s), self.inputs(seen, sum(service)), min(self.values(after)))
