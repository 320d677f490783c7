"""The rules of related work once more, in plain loops from the equations in their docstrings: see `reference`."""

import math

import numpy as np
from reference import (
    SAFETY,
    Broadcast,
    DeviceNumbers,
    DeviceObservation,
    Samples,
    ServerNumbers,
    ServerObservation,
    affordable_bits,
    bits_of,
    capacity,
    most_startable,
    power,
)
from reference_planners import PostDecisionServer, affordable_cuts, least, work_of_share

MIN_SERVICE = 0.01
UNITS = 4
EXCHANGES = 8


def radio_blocks(d: DeviceNumbers, h: float, bits: float) -> float:
    """Time to send [blocks], at the power limit or 40 bit/s/Hz."""
    return bits / max(affordable_bits(d, h, d.power_max), 1.0) / d.slots


def server_blocks(work: float, ahead: float, service: float) -> float:
    """Time of the server [blocks]; 0 for one that does nothing while nothing waits."""
    if work == 0 or (service <= SAFETY and ahead <= SAFETY):
        return 0.0
    return (ahead + work) / max(service, MIN_SERVICE)


class Rule:
    """A device that sends the cut of least `weight` and starts as many tasks as f_max allows."""

    def __init__(self, d: DeviceNumbers):
        self.d = d

    def weight(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """What is minimised."""
        raise NotImplementedError

    def possible(self, seen: DeviceObservation) -> list[tuple[float, float]]:
        """(share, bits) that can be sent and leave no more of the head task than a block can run."""
        head = min(seen.q, 1.0)
        cuts = affordable_cuts(self.d, seen.h)
        return [cut for cut in cuts if cut[0] <= head and head - cut[0] <= capacity(self.d) + SAFETY]

    def allowed(self, seen: DeviceObservation) -> list[tuple[float, float]]:
        """Those that may be chosen."""
        return self.possible(seen)

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """(started, offload)."""
        cuts = self.allowed(seen)
        offload = cuts[least([self.weight(seen, *cut) for cut in cuts])][0] if cuts else 0.0
        return most_startable(self.d, seen.q, offload), offload

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """Nothing."""

    def compute(self, offload: float) -> float:
        """Time of the device's part at f_max [blocks]."""
        return (1 - offload) / capacity(self.d)

    def in_turn(self, broadcast: Broadcast, offload: float) -> float:
        """Time at the server behind the backlog that its current block leaves."""
        return server_blocks(
            work_of_share(self.d, offload), max(broadcast.backlog - broadcast.service_rate, 0.0), broadcast.service_rate
        )

    def own_time(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """Device and radio [blocks]."""
        return self.compute(offload) + radio_blocks(self.d, seen.h, bits)

    def energy(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """xi f_max^2 (1 - offload) W + tau p [J]."""
        d = self.d
        return d.xi * d.cpu_max_hz**2 * (1 - offload) * d.cycles + d.slot_s * power(d, seen.h, bits)


class Neurosurgeon(Rule):
    """Least latency."""

    def weight(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """The sum of the times."""
        return self.own_time(seen, offload, bits) + self.in_turn(seen.broadcast, offload)


class NeurosurgeonEnergy(Rule):
    """Least energy."""

    def weight(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """Of the device, for the head task."""
        return self.energy(seen, offload, bits)


class Dads(Rule):
    """Fastest slowest stage."""

    def weight(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """The longest of the times; every device has a K-th of the service."""
        server = server_blocks(work_of_share(self.d, offload), 0.0, seen.broadcast.service_rate / self.d.fleet)
        return max(self.compute(offload), radio_blocks(self.d, seen.h, bits), server)


class CoEdge(Rule):
    """Least energy of the cuts that the server finishes within a block; least latency if there are none."""

    def in_time(self, seen: DeviceObservation) -> list[tuple[float, float]]:
        """The cuts that the server finishes within a block."""
        return [cut for cut in self.possible(seen) if self.in_turn(seen.broadcast, cut[0]) <= 1]

    def allowed(self, seen: DeviceObservation) -> list[tuple[float, float]]:
        """Those, if there are any."""
        return self.in_time(seen) or self.possible(seen)

    def weight(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """Energy, or latency."""
        if self.in_time(seen):
            return self.energy(seen, offload, bits)
        return self.own_time(seen, offload, bits) + self.in_turn(seen.broadcast, offload)


class Iao(Rule):
    """Least latency at the device's share of the service."""

    def weight(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """The sum of the times."""
        service = seen.broadcast.shares[seen.k] * seen.broadcast.service_rate
        return self.own_time(seen, offload, bits) + server_blocks(work_of_share(self.d, offload), 0.0, service)


class Ans(Rule):
    """LinUCB with forced sampling: A and b themselves, solved anew in every block."""

    alpha, ridge, sampling, horizon = 0.1, 0.1, 0.25, 16

    def __init__(self, d: DeviceNumbers):
        super().__init__(d)
        self.matrix, self.vector, self.frames = self.ridge * np.eye(4), np.zeros(4), 0

    def context(self, seen: DeviceObservation, offload: float, bits: float) -> np.ndarray:
        """x: 1, work sent, radio time in slots, broadcast backlog / K."""
        if offload == 0:
            return np.zeros(4)
        radio = self.d.slots * radio_blocks(self.d, seen.h, bits)
        return np.array([1.0, work_of_share(self.d, offload), radio, seen.broadcast.backlog / self.d.fleet])

    def allowed(self, seen: DeviceObservation) -> list[tuple[float, float]]:
        """In every ceil(T^sampling)-th frame only cuts that send."""
        possible = self.possible(seen)
        forced = (self.frames + 1) % math.ceil(self.horizon**self.sampling - SAFETY) == 0
        sending = [cut for cut in possible if cut[0] > 0]
        return sending if forced and sending else possible

    def weight(self, seen: DeviceObservation, offload: float, bits: float) -> float:
        """Own compute + theta . x - alpha sqrt(x A^-1 x)."""
        x = self.context(seen, offload, bits)
        theta = np.linalg.solve(self.matrix, self.vector)
        return self.compute(offload) + float(theta @ x) - self.alpha * math.sqrt(x @ np.linalg.solve(self.matrix, x))

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """The delay of what was sent, by the broadcast that has arrived when the block ends."""
        bits = bits_of(self.d, offload)
        x = self.context(seen, offload, bits)
        delay = radio_blocks(self.d, seen.h, bits) + self.in_turn(after.broadcast, offload)
        self.matrix, self.vector = self.matrix + np.outer(x, x), self.vector + delay * x
        self.frames += started > 0
        if self.frames >= self.horizon:
            self.horizon *= 2


class IaoServer(PostDecisionServer):
    """The service of its parent; shares by moving units from the device least loaded without to the most loaded."""

    def __init__(self, s: ServerNumbers):
        super().__init__(s)
        self.units = [UNITS] * s.fleet

    def shares(self, seen: ServerObservation) -> list[float]:
        """At most EXCHANGES exchanges a block."""
        for _ in range(EXCHANGES):
            load = [q / units for q, units in zip(seen.q, self.units, strict=True)]
            taker = load.index(max(load))
            givers = [k for k, units in enumerate(self.units) if units > 1 and k != taker]
            without = {k: seen.q[k] / (self.units[k] - 1) for k in givers}
            if not without or min(without.values()) >= load[taker]:
                break
            self.units[min(without, key=lambda k: without[k])] -= 1
            self.units[taker] += 1
        return [units / sum(self.units) for units in self.units]
