"""The rules of related work once more, in plain loops from the equations in their docstrings: see `reference`."""

import math

import numpy as np
from reference import (
    SAFETY,
    Chance,
    DeviceNumbers,
    DeviceSees,
    ServerNumbers,
    ServerSees,
    Words,
    affordable_bits,
    bits_of,
    capacity,
    drain,
    power,
)
from reference_planners import PostDecisionServer, affordable_cuts, least, work_of_share

LEAST_RATE = 0.01
UNITS = 4
EXCHANGES = 8


def radio_blocks(d: DeviceNumbers, h: float, bits: float) -> float:
    """Time to send [blocks], at the power limit or 40 bit/s/Hz."""
    return bits / max(affordable_bits(d, h, d.power_max), 1.0) / d.slots


def server_blocks(work: float, ahead: float, rate: float) -> float:
    """Time of the server [blocks]: nothing speaks against one that stands still with nothing to do."""
    if work == 0 or (rate <= SAFETY and ahead <= SAFETY):
        return 0.0
    return (ahead + work) / max(rate, LEAST_RATE)


class Rule:
    """A device that sends the cut of least `weight` and takes up as many tasks as f_max allows."""

    def __init__(self, d: DeviceNumbers):
        self.d = d

    def weight(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """What is to be small."""
        raise NotImplementedError

    def possible(self, sees: DeviceSees) -> list[tuple[float, float]]:
        """(share, bits) that can be sent, and leave of the head task no more than a block can run."""
        head = min(sees.q, 1.0)
        cuts = affordable_cuts(self.d, sees.h)
        return [cut for cut in cuts if cut[0] <= head and head - cut[0] <= capacity(self.d) + SAFETY]

    def allowed(self, sees: DeviceSees) -> list[tuple[float, float]]:
        """Of those the ones to choose from."""
        return self.possible(sees)

    def act(self, sees: DeviceSees, chance: Chance, t: int, k: int) -> tuple[float, float]:
        """(whole, rest)."""
        cuts = self.allowed(sees)
        offload = cuts[least([self.weight(sees, *cut) for cut in cuts])][0] if cuts else 0.0
        return drain(self.d, sees.q, offload), offload

    def learn(self, sees: DeviceSees, whole: float, offload: float, cost: float, then: DeviceSees) -> None:
        """Nothing."""

    def compute(self, offload: float) -> float:
        """Time of the device's part at f_max [blocks]."""
        return (1 - offload) / capacity(self.d)

    def in_turn(self, broadcast: Words, offload: float) -> float:
        """Time at the server behind what its block leaves of the backlog."""
        return server_blocks(
            work_of_share(self.d, offload), max(broadcast.backlog - broadcast.service_rate, 0.0), broadcast.service_rate
        )

    def own_time(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """Device and radio [blocks]."""
        return self.compute(offload) + radio_blocks(self.d, sees.h, bits)

    def energy(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """xi f_max^2 (1 - rest) W + tau p [J]."""
        d = self.d
        return d.xi * d.cpu_max_hz**2 * (1 - offload) * d.cycles + d.slot_s * power(d, sees.h, bits)


class Neurosurgeon(Rule):
    """Least latency."""

    def weight(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """The sum of the times."""
        return self.own_time(sees, offload, bits) + self.in_turn(sees.broadcast, offload)


class NeurosurgeonEnergy(Rule):
    """Least energy."""

    def weight(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """Of the device, for the head task."""
        return self.energy(sees, offload, bits)


class Dads(Rule):
    """The slowest stage is fastest."""

    def weight(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """The largest of the times; the server gives every device a K-th."""
        server = server_blocks(work_of_share(self.d, offload), 0.0, sees.broadcast.service_rate / self.d.fleet)
        return max(self.compute(offload), radio_blocks(self.d, sees.h, bits), server)


class CoEdge(Rule):
    """Least energy of what the server finishes in a block; least latency where nothing is."""

    def in_time(self, sees: DeviceSees) -> list[tuple[float, float]]:
        """The cuts that the server finishes in a block."""
        return [cut for cut in self.possible(sees) if self.in_turn(sees.broadcast, cut[0]) <= 1]

    def allowed(self, sees: DeviceSees) -> list[tuple[float, float]]:
        """Those, if there are any."""
        return self.in_time(sees) or self.possible(sees)

    def weight(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """Energy, or latency."""
        if self.in_time(sees):
            return self.energy(sees, offload, bits)
        return self.own_time(sees, offload, bits) + self.in_turn(sees.broadcast, offload)


class Iao(Rule):
    """Least latency at the own share of the server's rate."""

    def weight(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """The sum of the times."""
        rate = sees.broadcast.shares[sees.k] * sees.broadcast.service_rate
        return self.own_time(sees, offload, bits) + server_blocks(work_of_share(self.d, offload), 0.0, rate)


class Ans(Rule):
    """LinUCB with forced sampling: A and b as they are, solved anew in every block."""

    alpha, ridge, sampling, horizon = 0.1, 0.1, 0.25, 16

    def __init__(self, d: DeviceNumbers):
        super().__init__(d)
        self.matrix, self.vector, self.frames = self.ridge * np.eye(4), np.zeros(4), 0

    def context(self, sees: DeviceSees, offload: float, bits: float) -> np.ndarray:
        """x: 1, work sent, radio time in slots, backlog heard / K."""
        if offload == 0:
            return np.zeros(4)
        radio = self.d.slots * radio_blocks(self.d, sees.h, bits)
        return np.array([1.0, work_of_share(self.d, offload), radio, sees.broadcast.backlog / self.d.fleet])

    def allowed(self, sees: DeviceSees) -> list[tuple[float, float]]:
        """In every ceil(T^sampling)-th frame only cuts that send."""
        possible = self.possible(sees)
        forced = (self.frames + 1) % math.ceil(self.horizon**self.sampling - SAFETY) == 0
        sending = [cut for cut in possible if cut[0] > 0]
        return sending if forced and sending else possible

    def weight(self, sees: DeviceSees, offload: float, bits: float) -> float:
        """Own compute + theta . x - alpha sqrt(x A^-1 x)."""
        x = self.context(sees, offload, bits)
        theta = np.linalg.solve(self.matrix, self.vector)
        return self.compute(offload) + float(theta @ x) - self.alpha * math.sqrt(x @ np.linalg.solve(self.matrix, x))

    def learn(self, sees: DeviceSees, whole: float, offload: float, cost: float, then: DeviceSees) -> None:
        """The delay of what was sent, as far as it is known when the block ends."""
        bits = bits_of(self.d, offload)
        x = self.context(sees, offload, bits)
        delay = radio_blocks(self.d, sees.h, bits) + self.in_turn(then.broadcast, offload)
        self.matrix, self.vector = self.matrix + np.outer(x, x), self.vector + delay * x
        self.frames += sees.q > whole
        if self.frames >= self.horizon:
            self.horizon *= 2


class IaoServer(PostDecisionServer):
    """Rates as its parent; shares by moving units to the most loaded from the one that would be least loaded."""

    def __init__(self, s: ServerNumbers):
        super().__init__(s)
        self.units = [UNITS] * s.fleet

    def shares(self, sees: ServerSees) -> list[float]:
        """At most so many exchanges a block."""
        for _ in range(EXCHANGES):
            load = [q / units for q, units in zip(sees.q, self.units, strict=True)]
            taker = load.index(max(load))
            givers = [k for k, units in enumerate(self.units) if units > 1 and k != taker]
            without = {k: sees.q[k] / (self.units[k] - 1) for k in givers}
            if not without or min(without.values()) >= load[taker]:
                break
            self.units[min(without, key=lambda k: without[k])] -= 1
            self.units[taker] += 1
        return [units / sum(self.units) for units in self.units]
