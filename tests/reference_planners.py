"""The learners of post-decision values once more, in plain loops from their equations: see `reference`.

device   V(q) <- V(q) + a_t (w3 W q + min over (j, offload) of c(j, offload; h) + gamma U(q - j) - V(q)),
         U(m) = E V(m + A)
server   u(x) <- u(x) + a_t (V'(x + a) - u(x)),  V'(y) = w1 + gamma u(y - f(y)),  w2 E'(f) = gamma u(y - f)
"""

import math

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
    bits_of,
    capacity,
    joined,
    local_energy,
    power,
)

STATES = 32
GRID_POINTS = 32
GRID_MAX = 4.0
PRICE_GAIN = 0.2
SAME = 1e-12
"""Relative difference below which rounding decides which of two choices is better."""


def least(values: list[float]) -> int:
    """Index of the least value, the first of equal ones. Raises ArithmeticError if two differ by rounding only."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    if len(order) > 1:
        best, second = values[order[0]], values[order[1]]
        if 0 < second - best <= SAME * max(abs(best), abs(second)):
            raise ArithmeticError("two choices differ by rounding only, so that either may be right: use other samples")
    return order[0]


def cut_list(d: DeviceNumbers) -> list[tuple[float, float]]:
    """(share, bits), ascending: the DNN's cuts, or 33 even shares of the paper's law."""
    return [(i / 32, bits_of(d, i / 32)) for i in range(33)] if d.cuts is None else d.cuts


def affordable_cuts(d: DeviceNumbers, h: float) -> list[tuple[float, float]]:
    """Those of the list that the power limit and 40 bit/s/Hz allow."""
    limit = affordable_bits(d, h, d.power_max)
    return [(share, bits) for share, bits in cut_list(d) if bits <= limit]


def work_of_share(d: DeviceNumbers, offload: float) -> float:
    """offload W_ser [mean tasks]."""
    return offload * d.server_cycles / d.mean_task


def plans(d: DeviceNumbers, h: float, price: float) -> list[tuple[int, float, float]]:
    """All feasible (j, offload, c(j, offload; h, price)): start j tasks, send `offload` of the last one."""
    found = [(0, 0.0, 0.0)]
    for share, bits in affordable_cuts(d, h):
        sending = d.w4 * d.slot_s * power(d, h, bits) + price * work_of_share(d, share)
        for j in range(1, math.floor(capacity(d) + SAFETY + share) + 1):
            found.append((j, share, d.w4 * local_energy(d, j - share) + sending))
    return found


def cheapest(d: DeviceNumbers, h: float, price: float) -> dict[int, float]:
    """c(j), the least over the cuts."""
    best: dict[int, float] = {}
    for j, _, cost in plans(d, h, price):
        best[j] = min(cost, best.get(j, math.inf))
    return best


def step_size(t: int, decay: float, floor: float) -> float:
    """a_t."""
    return max((t + 1) ** -decay, floor)


class Planner:
    """A device that takes the plan of least `measure`."""

    def __init__(self, d: DeviceNumbers):
        self.d = d

    def price(self, seen: DeviceObservation) -> float:
        """Price of a mean task sent."""
        return 0.0

    def measure(self, seen: DeviceObservation, j: int, cost: float) -> float:
        """What is minimised."""
        raise NotImplementedError

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """(started, offload)."""
        possible = [plan for plan in plans(self.d, seen.h, self.price(seen)) if plan[0] <= seen.q]
        j, offload, _ = possible[least([self.measure(seen, j, cost) for j, _, cost in possible])]
        return float(j), offload

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """Nothing."""


class Myopic(Planner):
    """The cost of the block plus one block of waiting for every task left."""

    def measure(self, seen: DeviceObservation, j: int, cost: float) -> float:
        """c + w3 W (q - j)."""
        return cost + self.d.w3 * self.d.cycles * (seen.q - j)


class Drift(Planner):
    """V times energy against the device's own queue and its share of the server's."""

    v = 0.7

    def price(self, seen: DeviceObservation) -> float:
        """w3 W y / (K V): V times it is the weight of the server's queue."""
        return self.d.w3 * self.d.cycles * seen.broadcast.backlog / self.d.fleet / self.v

    def measure(self, seen: DeviceObservation, j: int, cost: float) -> float:
        """V w4 E + w3 W (y / K offload W_ser - q j)."""
        return self.v * cost - self.d.w3 * self.d.cycles * seen.q * j


class PostDecision(Planner):
    """The device that learns V and counts arrivals, which gives U; at the price 0."""

    def __init__(self, d: DeviceNumbers):
        super().__init__(d)
        self.gamma = 1.0 if d.average else d.discount
        self.t, self.arrived = 0, [1.0] + [0.0] * d.slots
        most = capacity(d)
        marginal = 3 * d.xi * d.cycles**3 * most**2 / (d.slots * d.slot_s) ** 2
        self.v = []
        for q in range(STATES):
            energy = local_energy(d, min(q, most)) + marginal * max(q - most, 0.0)
            self.v.append(d.w3 * d.cycles * q + d.w4 * energy)

    def start_value(self, q: float) -> float:
        """V(q), linear beyond the table."""
        if q < STATES:
            return self.v[int(q)]
        return self.v[-1] + (q - STATES + 1) * (self.v[-1] - self.v[-2])

    def value(self, left: float) -> float:
        """U(m) = E V(m + A), by the arrivals counted."""
        return sum(fraction * self.start_value(left + a) for a, fraction in enumerate(self.arrived))

    def measure(self, seen: DeviceObservation, j: int, cost: float) -> float:
        """c + gamma U(q - j)."""
        return cost + self.gamma * self.value(seen.q - j)

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """Every entry of the table at the gain of the block; then the arrivals are counted."""
        d, best = self.d, cheapest(self.d, seen.h, self.price(seen))
        step, learned = step_size(self.t, 0.6, 0.01), []
        for q in range(STATES):
            ahead = min(c + self.gamma * self.value(q - j) for j, c in best.items() if j <= q)
            learned.append(self.v[q] + step * (d.w3 * d.cycles * q + ahead - self.v[q]))
        self.v = [value - learned[0] for value in learned] if d.average else learned
        new = round(sum(joined(d, seen, after)))
        self.arrived = [(known * self.t + (a == new)) / (self.t + 1) for a, known in enumerate(self.arrived)]
        self.t += 1


class Priced(PostDecision):
    """The same at the broadcast price."""

    def price(self, seen: DeviceObservation) -> float:
        """The last one received."""
        return seen.broadcast.price


class PostDecisionServer(Broadcasting):
    """The server that learns u, the marginal value of work left, on a grid that is denser near 0."""

    def __init__(self, s: ServerNumbers):
        self.s, self.t, self.mean_price = s, 0, 0.0
        self.gamma = 0.9999 if s.average else s.discount
        self.coef = s.w2 * s.xi * s.mean_task**3 / (s.slots * s.slot_s) ** 2  # w2 E(f) = coef f^3
        self.grid = [GRID_MAX * s.fleet * (i / (GRID_POINTS - 1)) ** 2 for i in range(GRID_POINTS)]
        self.u = [s.w1 * s.mean_task + 3 * self.coef * ((x + s.fleet) / 4) ** 2 for x in self.grid]

    def service_curve(self) -> tuple[list[float], list[float]]:
        """(y, f) for every x of the grid: the f at which leaving x is best, and the work y = x + f before it."""
        limit = self.s.slot_capacity * self.s.slots
        served = [min(math.sqrt(self.gamma * u / (3 * self.coef)), limit) for u in self.u]
        return [x + f for x, f in zip(self.grid, served, strict=True)], served

    def act(self, seen: ServerObservation, samples: Samples, t: int) -> list[float]:
        """f(y), linear between the points, never more than waits, at an equal rate in all slots [mean tasks]."""
        work, served = self.service_curve()
        return [min(seen.backlog, float(np.interp(seen.backlog, work, served))) / self.s.slots] * self.s.slots

    def marginal_value(self, y: float) -> float:
        """V'(y)."""
        work, _ = self.service_curve()
        if y < work[0]:
            return self.s.w1 * self.s.mean_task + 3 * self.coef * y**2
        return self.s.w1 * self.s.mean_task + float(np.interp(y, work, [self.gamma * u for u in self.u]))

    def marginal_cost(self, seen: ServerObservation, service: list[float]) -> float:
        """gamma u at the work left."""
        return self.gamma * float(np.interp(max(seen.backlog - sum(service), 0.0), self.grid, self.u))

    def new_mean_price(self, now: float) -> float:
        """The running mean of the marginal cost with `now` included."""
        return self.mean_price + step_size(self.t, 0.7, 0.005) * (now - self.mean_price)

    def price(self, seen: ServerObservation, service: list[float]) -> float:
        """Between the running mean and the current marginal cost."""
        now = self.marginal_cost(seen, service)
        mean = self.new_mean_price(now)
        return mean + PRICE_GAIN / (1 + self.s.broadcast_delay_blocks / 2) * (now - mean)

    def learn(self, seen: ServerObservation, service: list[float], cost: float, after: ServerObservation) -> None:
        """Every point of the grid, with the inflow of the block."""
        self.mean_price = self.new_mean_price(self.marginal_cost(seen, service))
        step, targets = step_size(self.t, 0.6, 0.01), [self.marginal_value(x + after.inflow) for x in self.grid]
        self.u = [u + step * (target - u) for u, target in zip(self.u, targets, strict=True)]
        self.t += 1
