"""The learners of post-decision values once more, in plain loops from their equations: see `reference`.

device   U(m) <- U(m) + a_t (E_A [w3 W (m + A) + min over (j, rest) of c(j, rest; h') + gamma U(m + A - j)] - U(m))
server   u(x) <- u(x) + a_t (V'(x + a) - u(x)),  V'(y) = w1 + gamma u(y - f(y)),  w2 E'(f) = gamma u(y - f)
"""

import math

import numpy as np
from reference import (
    SAFETY,
    Chance,
    DeviceNumbers,
    DeviceSees,
    ServerNumbers,
    ServerSees,
    Serving,
    affordable_bits,
    bits_of,
    capacity,
    local_energy,
    power,
)

STATES = 32
POINTS = 32
REACH = 4.0
ANSWER = 0.2
SAME = 1e-12
"""Relative difference below which rounding decides which of two choices is better."""


def least(values: list[float]) -> int:
    """Where the least value is, the first of equal ones. Raises ArithmeticError where only rounding tells two apart."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    if len(order) > 1:
        best, second = values[order[0]], values[order[1]]
        if 0 < second - best <= SAME * max(abs(best), abs(second)):
            raise ArithmeticError("two choices differ by rounding only, so nobody can say which is right: other draws!")
    return order[0]


def cut_list(d: DeviceNumbers) -> list[tuple[float, float]]:
    """(share, bits), ascending: the DNN's cuts, or 33 even shares of the paper's law."""
    return [(i / 32, bits_of(d, i / 32)) for i in range(33)] if d.cuts is None else d.cuts


def affordable_cuts(d: DeviceNumbers, h: float) -> list[tuple[float, float]]:
    """Those of the list that power and the 40 bit/s/Hz allow."""
    limit = affordable_bits(d, h, d.power_max)
    return [(share, bits) for share, bits in cut_list(d) if bits <= limit]


def work_of_share(d: DeviceNumbers, offload: float) -> float:
    """rest W_ser [mean tasks]."""
    return offload * d.server_cycles / d.mean_task


def fading_above(d: DeviceNumbers, h: float, price: float) -> list[tuple[int, float, float]]:
    """All (j, rest, c(j, rest; h, price)) that a block can do: take up j tasks, send `offload` of the last."""
    found = [(0, 0.0, 0.0)]
    for share, bits in affordable_cuts(d, h):
        sending = d.w4 * d.slot_s * power(d, h, bits) + price * work_of_share(d, share)
        for j in range(1, math.floor(capacity(d) + SAFETY + share) + 1):
            found.append((j, share, d.w4 * local_energy(d, j - share) + sending))
    return found


def cheapest(d: DeviceNumbers, h: float, price: float) -> dict[int, float]:
    """c(j), the least over the cuts."""
    best: dict[int, float] = {}
    for j, _, cost in fading_above(d, h, price):
        best[j] = min(cost, best.get(j, math.inf))
    return best


def step_size(t: int, decay: float, floor: float) -> float:
    """a_t."""
    return max((t + 1) ** -decay, floor)


class Planner:
    """A device that takes the best of all plans by some measure."""

    def __init__(self, d: DeviceNumbers):
        self.d = d

    def price(self, sees: DeviceSees) -> float:
        """Of a mean task sent."""
        return 0.0

    def measure(self, sees: DeviceSees, j: int, cost: float) -> float:
        """What is to be small."""
        raise NotImplementedError

    def act(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> tuple[float, float]:
        """(whole, rest)."""
        possible = [plan for plan in fading_above(self.d, sees.h, self.price(sees)) if plan[0] <= sees.q]
        j, offload, _ = possible[least([self.measure(sees, j, cost) for j, _, cost in possible])]
        return sees.q - j, offload

    def learn(self, sees: DeviceSees, whole: float, offload: float, cost: float, then: DeviceSees) -> None:
        """Nothing."""


class Myopic(Planner):
    """c plus w3 for every task that is left for one block."""

    def measure(self, sees: DeviceSees, j: int, cost: float) -> float:
        """c + w3 W (q - j)."""
        return cost + self.d.w3 * self.d.cycles * (sees.q - j)


class Drift(Planner):
    """V times energy, against the device's own queue and its part of the server's."""

    v = 0.7

    def price(self, sees: DeviceSees) -> float:
        """Y / (K V), so that V times it is the pressure of the server's queue."""
        return sees.broadcast.backlog / self.d.fleet / self.v

    def measure(self, sees: DeviceSees, j: int, cost: float) -> float:
        """V w4 E + Y / K rest W_ser - q j."""
        return self.v * cost - sees.q * j


class PostDecision(Planner):
    """The device that learns V and counts arrivals, from which U follows; at no price."""

    def __init__(self, d: DeviceNumbers):
        super().__init__(d)
        self.gamma = 1.0 if d.average else d.discount
        self.t, self.came = 0, [1.0] + [0.0] * d.slots
        most = capacity(d)
        marginal = 3 * d.xi * d.cycles**3 * most**2 / (d.slots * d.slot_s) ** 2
        self.v = []
        for q in range(STATES):
            energy = local_energy(d, min(q, most)) + marginal * max(q - most, 0.0)
            self.v.append(d.w3 * d.cycles * q + d.w4 * energy)

    def begin(self, q: float) -> float:
        """V, a straight line beyond the table."""
        if q < STATES:
            return self.v[int(q)]
        return self.v[-1] + (q - STATES + 1) * (self.v[-1] - self.v[-2])

    def value(self, left: float) -> float:
        """U, V after the arrivals that have been counted."""
        return sum(often * self.begin(left + a) for a, often in enumerate(self.came))

    def measure(self, sees: DeviceSees, j: int, cost: float) -> float:
        """c + gamma U(q - j)."""
        return cost + self.gamma * self.value(sees.q - j)

    def learn(self, sees: DeviceSees, whole: float, offload: float, cost: float, then: DeviceSees) -> None:
        """Every entry of the table at the gain just met; then the arrivals are counted."""
        d, best = self.d, cheapest(self.d, sees.h, self.price(sees))
        step, moved = step_size(self.t, 0.6, 0.01), []
        for q in range(STATES):
            ahead = min(c + self.gamma * self.value(q - j) for j, c in best.items() if j <= q)
            moved.append(self.v[q] + step * (d.w3 * d.cycles * q + ahead - self.v[q]))
        self.v = [value - moved[0] for value in moved] if d.average else moved
        new = round(sum(then.arrivals))
        self.came = [(seen * self.t + (a == new)) / (self.t + 1) for a, seen in enumerate(self.came)]
        self.t += 1


class Priced(PostDecision):
    """The same at the price heard."""

    def price(self, sees: DeviceSees) -> float:
        """As heard."""
        return sees.broadcast.price


class PostDecisionServer(Serving):
    """The server that learns u, the marginal value of work left, on a grid that is denser near 0."""

    def __init__(self, s: ServerNumbers):
        self.s, self.t, self.mean_price = s, 0, 0.0
        self.gamma = 0.9999 if s.average else s.discount
        self.coef = s.w2 * s.xi * s.mean_task**3 / (s.slots * s.slot_s) ** 2  # w2 E(f) = coef f^3
        self.grid = [REACH * s.fleet * (i / (POINTS - 1)) ** 2 for i in range(POINTS)]
        self.u = [s.w1 * s.mean_task + 3 * self.coef * ((x + s.fleet) / 4) ** 2 for x in self.grid]

    def best_rates(self) -> tuple[list[float], list[float]]:
        """(y, f) of every x of the grid: the f at which leaving x is best, and the work y = x + f it starts from."""
        most = self.s.slot_capacity * self.s.slots
        rates = [min(math.sqrt(self.gamma * u / (3 * self.coef)), most) for u in self.u]
        return [x + f for x, f in zip(self.grid, rates, strict=True)], rates

    def act(self, sees: ServerSees, chance: Chance, t: int) -> list[float]:
        """f(y), a straight line between the points, never more than there is."""
        work, rates = self.best_rates()
        return [min(sees.backlog, float(np.interp(sees.backlog, work, rates))) / self.s.slots] * self.s.slots

    def marginal(self, y: float) -> float:
        """V'(y)."""
        work, _ = self.best_rates()
        if y < work[0]:
            return self.s.w1 * self.s.mean_task + 3 * self.coef * y**2
        return self.s.w1 * self.s.mean_task + float(np.interp(y, work, [self.gamma * u for u in self.u]))

    def cost_of_more(self, sees: ServerSees, rates: list[float]) -> float:
        """gamma u at what is left."""
        return self.gamma * float(np.interp(max(sees.backlog - sum(rates), 0.0), self.grid, self.u))

    def usual_with(self, now: float) -> float:
        """The running mean of the cost of more."""
        return self.mean_price + step_size(self.t, 0.7, 0.005) * (now - self.mean_price)

    def price(self, sees: ServerSees, rates: list[float]) -> float:
        """From the usual a part of the way to what it is now."""
        now = self.cost_of_more(sees, rates)
        usual = self.usual_with(now)
        return usual + ANSWER / (1 + self.s.broadcast_delay_blocks / 2) * (now - usual)

    def learn(self, sees: ServerSees, rates: list[float], cost: float, then: ServerSees) -> None:
        """Every point of the grid, with the work that has just come."""
        self.mean_price = self.usual_with(self.cost_of_more(sees, rates))
        step, targets = step_size(self.t, 0.6, 0.01), [self.marginal(x + then.inflow) for x in self.grid]
        self.u = [u + step * (target - u) for u, target in zip(self.u, targets, strict=True)]
        self.t += 1
