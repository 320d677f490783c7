"""The paper's schemes and the baselines once more, in plain loops from their equations: see `reference`."""

import math
from dataclasses import dataclass

import numpy as np
from reference import (
    Broadcasting,
    DeviceNumbers,
    DeviceObservation,
    Samples,
    ServerNumbers,
    ServerObservation,
    device_unit,
    full_power,
    half_power,
    joined,
    local_energy,
    most_startable,
    next_backlog,
    next_queue,
    radio_energy,
    server_energy,
    server_unit,
    share_for_power,
    share_slope,
)
from scipy.special import expit

FEATURES = 30
POWER_CHOICES = [0.0, *(10.0 ** (-2 + i / 3) for i in range(16))]
SPEED_CHOICES = [i / 15 for i in range(16)]
AT_KINK = 0.5
"""Slope of [x]^+ at x = 0, a choice; it matters in every block in which the server is empty and does nothing."""
SAME = 1e-9
"""Relative difference below which two values count as equal. Large powers saturate every sigmoid and look alike."""


# Algorithms 1 and 2: printed as in (26), (28), (33)-(35), or the exact gradient of the squared error of (24), (31).


@dataclass(frozen=True)
class Rates:
    """How an algorithm learns: alpha_t = step / (1 + t)^decay, Q at first, quiet blocks until it stops."""

    step: float = 0.01
    decay: float = 0.6
    start_value: float = 1.0
    patience: int = 10


class Descent:
    """What both algorithms share: parameters theta, action a, the step size, the stopping rule."""

    def __init__(self, weights: np.ndarray, a: list[float], top: float, gamma: float, rates: Rates):
        self.weights, self.a, self.top, self.gamma, self.rates = weights, np.array(a), top, gamma, rates
        self.theta = np.full(FEATURES, 2 * rates.start_value / (FEATURES * (1 - gamma)))
        self.learned = self.quiet = 0

    def phi(self, inputs: list[float]) -> np.ndarray:
        """The features."""
        return expit(self.weights @ np.array(inputs))

    def move(self, theta_slope: np.ndarray, a_slope: np.ndarray) -> None:
        """One step of (28), against both slopes, unless the stopping rule has fired (T16)."""
        if self.quiet >= self.rates.patience:
            return
        alpha = self.rates.step * (1 + self.learned) ** -self.rates.decay
        theta = self.theta - alpha * theta_slope
        change = np.linalg.norm(theta - self.theta) / np.linalg.norm(self.theta)
        self.a = np.clip(self.a - alpha * a_slope, 0.0, self.top)
        self.theta = theta
        self.quiet = self.quiet + 1 if change <= 1e-3 else 0
        self.learned += 1

    def printed(self, r: float, r_slope: np.ndarray, now: np.ndarray, after: np.ndarray, columns: slice) -> None:
        """delta times the printed factors: no 2, a minus before the sum, the next queue constant."""
        delta = r + self.gamma * self.theta @ after - self.theta @ now
        bend = self.gamma * after * (1 - after) - now * (1 - now)
        total = (self.theta * bend) @ self.weights[:, columns]
        self.move(delta * (self.gamma * after - now), delta * (r_slope - total))

    def exact(self, r: float, r_slope: np.ndarray, now: np.ndarray, after: np.ndarray, columns: slice, queue_slope):
        """The gradient of delta^2; `queue_slope`: derivative of the own next queue, which is input 0, by a."""
        delta = r + self.gamma * self.theta @ after - self.theta @ now
        own = self.weights[:, columns]
        through_queue = np.outer(self.weights[:, 0], queue_slope)
        after_slope = (self.theta * after * (1 - after)) @ (own + through_queue)
        now_slope = (self.theta * now * (1 - now)) @ own
        slope = r_slope + self.gamma * after_slope - now_slope
        self.move(2 * delta * (self.gamma * after - now), 2 * delta * slope)


class Algorithm1(Descent):
    """A device: one power p = a p_half, improved in every block; `mu` (M, 3 + n), or (K, M, 3 + n) by `d.k`."""

    def __init__(
        self,
        d: DeviceNumbers,
        mu: np.ndarray,
        gradient: str,
        rates: Rates = Rates(),
        start: float = 1.0,
        top: float = 1e4,
    ):
        super().__init__(mu if mu.ndim == 2 else mu[d.k], [start], top, d.discount, rates)
        self.d, self.gradient = d, gradient

    def unit(self) -> float:
        """The unit of p [W]."""
        return half_power(self.d)

    def share(self, seen: DeviceObservation) -> tuple[float, float]:
        """The fraction offloaded at a, and its derivative by a."""
        p = self.a[0] * self.unit()
        return share_for_power(self.d, seen.h, p), share_slope(self.d, seen.h, p) * self.unit()

    def inputs(self, q: float, h: float, arrivals: list[float]) -> list[float]:
        """The state and a."""
        return [q, h / self.d.mean_gain, self.a[0], *arrivals]

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """(started, offload) at this block's power."""
        offload, _ = self.share(seen)
        return most_startable(self.d, seen.q, offload), offload

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """One step; (started, offload) is what happened."""
        if self.gradient == "printed":
            self.learn_printed(seen, started, offload, after)
        else:
            self.learn_exact(seen, started, after)

    def learn_printed(self, seen: DeviceObservation, started: float, offload: float, after: DeviceObservation) -> None:
        """r contains the power commanded, and depends on p through it alone (T15)."""
        d = self.d
        energy = local_energy(d, started - offload) + d.slot_s * self.a[0] * self.unit()
        r = (d.w3 * d.cycles * seen.q + d.w4 * energy) / device_unit(d)
        r_slope = np.array([d.w4 * d.slot_s * self.unit() / device_unit(d)])
        phi = self.phi(self.inputs(seen.q, seen.h, seen.arrivals))
        phi_after = self.phi(self.inputs(after.q, after.h, after.arrivals))
        self.printed(r, r_slope, phi, phi_after, slice(2, 3))

    def learn_exact(self, seen: DeviceObservation, started: float, after: DeviceObservation) -> None:
        """offload, L, the energies and the next queue are functions of p; `started` is constant (T14)."""
        d, (offload, slope) = self.d, self.share(seen)
        if offload >= started:  # no more than was started
            offload, slope = started, 0.0
        tasks = started - offload
        energy = local_energy(d, tasks) + radio_energy(d, seen.h, offload)
        local_slope = -3 * d.xi * d.cycles**3 * tasks**2 / (d.slots * d.slot_s) ** 2 * slope
        radio_slope = d.slot_s * self.unit() if slope > 0 else 0.0  # where all of p is spent
        r = (d.w3 * d.cycles * seen.q + d.w4 * energy) / device_unit(d)
        r_slope = np.array([d.w4 * (local_slope + radio_slope) / device_unit(d)])
        q_after = next_queue(d, seen.q, started, offload, joined(d, seen, after))
        phi = self.phi(self.inputs(seen.q, seen.h, seen.arrivals))
        phi_after = self.phi(self.inputs(q_after, after.h, after.arrivals))
        self.exact(r, r_slope, phi, phi_after, slice(2, 3), np.array([0.0 if d.conserving else slope]))


class BinaryParametric(Algorithm1):
    """All of a task where p carries it, or nothing; p in units of what a whole task takes at mean gain."""

    def unit(self) -> float:
        """The unit of p [W]."""
        return full_power(self.d)

    def share(self, seen: DeviceObservation) -> tuple[float, float]:
        """A step of a."""
        return (1.0 if super().share(seen)[0] >= 1.0 else 0.0), 0.0


class EvenParametric(Algorithm1):
    """As much as p carries, at most a K-th of the service rate received."""

    def share(self, seen: DeviceObservation) -> tuple[float, float]:
        """Constant where the limit holds."""
        own, slope = super().share(seen)
        limit = seen.broadcast.service_rate / self.d.fleet / (self.d.server_cycles / self.d.mean_task)
        return (own, slope) if own < limit else (min(limit, 1.0), 0.0)


class Algorithm2(Descent, Broadcasting):
    """The server: a speed a_i for every slot, f_i = a_i slot_capacity, improved in every block."""

    def __init__(self, s: ServerNumbers, nu: np.ndarray, gradient: str, rates: Rates = Rates(), start: float = 0.3):
        super().__init__(nu, [start] * s.slots, 1.0, s.discount, rates)
        self.s, self.gradient = s, gradient

    def inputs(self, y: float, q: list[float]) -> list[float]:
        """The state and a."""
        fleet = self.s.fleet
        return [y / fleet, *(own / math.sqrt(fleet) for own in q), *self.a]

    def act(self, seen: ServerObservation, samples: Samples, t: int) -> list[float]:
        """Service of each slot [mean tasks]."""
        return [speed * self.s.slot_capacity for speed in self.a]

    def learn(self, seen: ServerObservation, service: list[float], cost: float, after: ServerObservation) -> None:
        """One step."""
        s, columns = self.s, slice(1 + self.s.fleet, None)
        service = [speed * s.slot_capacity for speed in self.a]
        r = (s.w1 * s.mean_task * seen.backlog + s.w2 * server_energy(s, service)) / server_unit(s)
        slopes = [3 * s.slot_s * s.xi * work**2 * (s.mean_task / s.slot_s) ** 3 for work in service]
        r_slope = s.w2 * np.array(slopes) * s.slot_capacity / server_unit(s)
        phi = self.phi(self.inputs(seen.backlog, seen.q))
        y_after = next_backlog(seen.backlog, service, after.inflow)
        phi_after = self.phi(self.inputs(y_after, after.q))
        if self.gradient == "printed":
            self.printed(r, r_slope, phi, phi_after, columns)
        else:
            left = seen.backlog - sum(service)
            served = 1.0 if left > 0 else AT_KINK if left == 0 else 0.0
            queue_slope = np.full(s.slots, -served * s.slot_capacity / s.fleet)
            self.exact(r, r_slope, phi, phi_after, columns, queue_slope)


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
        """Q of every choice, given the inputs of each."""
        return [float(self.theta @ self.phi(inputs)) for inputs in states]

    def choose(self, states: list[list[float]], explores: bool, index: int) -> float:
        """The first best choice, or number `index` when it explores."""
        if explores:
            return self.choices[index]
        values = self.values(states)
        best, second = sorted(values)[:2]
        if self.theta.any() and second - best < SAME * max(1.0, abs(best)):
            raise ArithmeticError("two choices differ by rounding only, so that either may be right: use other samples")
        return self.choices[values.index(best)]

    def step(self, r: float, inputs: list[float], inputs_after: list[list[float]]) -> None:
        """(20) with its minimum."""
        phi = self.phi(inputs)
        error = r + self.gamma * min(self.values(inputs_after)) - self.theta @ phi
        self.theta = self.theta + 0.1 * (1 + self.learned) ** -0.6 * error * phi
        self.learned += 1


class QLearningDevice(QTable):
    """A device that chooses a power, in units of `half_power`."""

    choices_of_device = POWER_CHOICES

    def __init__(self, d: DeviceNumbers, mu: np.ndarray, log_scaled: bool = False):
        super().__init__(mu if mu.ndim == 2 else mu[d.k], self.choices_of_device, d.discount)
        self.d, self.log_scaled = d, log_scaled
        self.commanded = 0.0

    def inputs(self, seen: DeviceObservation, choice: float) -> list[float]:
        """The state and the choice."""
        gain = seen.h / self.d.mean_gain
        if self.log_scaled:
            gain, choice = math.log(gain), math.log(1 + choice)
        return [seen.q, gain, choice, *seen.arrivals]

    def all_inputs(self, seen: DeviceObservation) -> list[list[float]]:
        """The inputs with every choice."""
        return [self.inputs(seen, choice) for choice in self.choices]

    def share(self, seen: DeviceObservation) -> float:
        """The fraction that the commanded power sends."""
        return share_for_power(self.d, seen.h, self.commanded * half_power(self.d))

    def chosen(self, offload: float) -> float:
        """The choice that is learned about."""
        return self.commanded

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """(started, offload) of the best choice or a random one."""
        explores, index = bool(samples.device_explores[t, k]), int(samples.device_index[t, k])
        self.commanded = self.choose(self.all_inputs(seen), explores, index)
        offload = self.share(seen)
        return most_startable(self.d, seen.q, offload), offload

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """One step, with the cost charged."""
        self.step(cost / device_unit(self.d), self.inputs(seen, self.chosen(offload)), self.all_inputs(after))


class Binary(QLearningDevice):
    """A device that chooses between a whole task and nothing (T10), and learns about what happened."""

    choices_of_device = (0.0, 1.0)

    def share(self, seen: DeviceObservation) -> float:
        """The choice itself."""
        return self.commanded

    def chosen(self, offload: float) -> float:
        """The fraction that was sent."""
        return offload


class QLearningServer(QTable, Broadcasting):
    """The server that chooses one speed for all slots."""

    def __init__(self, s: ServerNumbers, nu: np.ndarray, log_scaled: bool = False):
        super().__init__(nu, SPEED_CHOICES, s.discount)
        self.s, self.log_scaled = s, log_scaled
        self.commanded = 0.0

    def inputs(self, seen: ServerObservation, choice: float) -> list[float]:
        """The state and the choice."""
        fleet = self.s.fleet
        backlog = math.log(1 + seen.backlog / fleet) if self.log_scaled else seen.backlog / fleet
        return [backlog, *(own / math.sqrt(fleet) for own in seen.q), choice]

    def all_inputs(self, seen: ServerObservation) -> list[list[float]]:
        """The inputs with every choice."""
        return [self.inputs(seen, choice) for choice in self.choices]

    def act(self, seen: ServerObservation, samples: Samples, t: int) -> list[float]:
        """Service of each slot [mean tasks]."""
        explores, index = bool(samples.server_explores[t]), int(samples.server_index[t])
        self.commanded = self.choose(self.all_inputs(seen), explores, index)
        return [self.commanded * self.s.slot_capacity] * self.s.slots

    def learn(self, seen: ServerObservation, service: list[float], cost: float, after: ServerObservation) -> None:
        """One step, with the cost charged."""
        self.step(cost / server_unit(self.s), self.inputs(seen, self.commanded), self.all_inputs(after))


# Baselines.


class Baseline:
    """A device that learns nothing."""

    def __init__(self, d: DeviceNumbers):
        self.d = d

    def share(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> float:
        """The fraction asked for."""
        raise NotImplementedError

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """(started, offload)."""
        offload = self.share(seen, samples, t, k)
        return most_startable(self.d, seen.q, offload), offload

    def learn(
        self, seen: DeviceObservation, started: float, offload: float, cost: float, after: DeviceObservation
    ) -> None:
        """Nothing."""


class Random(Baseline):
    """offload ~ U(0, 1)."""

    def share(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> float:
        """The given sample."""
        return float(samples.uniform[t, k])


class Even(Baseline):
    """Every device sends the same amount of work, together the service that was broadcast."""

    def share(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> float:
        """A K-th of the service rate received."""
        return min(1.0, seen.broadcast.service_rate / self.d.fleet / (self.d.server_cycles / self.d.mean_task))


class Local(Baseline):
    """Sends nothing."""

    def share(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> float:
        """Nothing."""
        return 0.0


class Full(Baseline):
    """Sends a whole task and runs none."""

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """One task is started."""
        return min(seen.q, 1.0), 1.0


class Constant(Baseline):
    """The same number of tasks and the same fraction in every block."""

    def __init__(self, d: DeviceNumbers, tasks: float, share: float):
        super().__init__(d)
        self.tasks, self.fixed = tasks, share

    def act(self, seen: DeviceObservation, samples: Samples, t: int, k: int) -> tuple[float, float]:
        """Start `tasks`, send `share` of the last one."""
        return min(seen.q, self.tasks), self.fixed


class Fixed(Broadcasting):
    """A server whose rate never changes, idle or not."""

    def __init__(self, s: ServerNumbers, speed: float):
        self.s, self.speed = s, speed

    def act(self, seen: ServerObservation, samples: Samples, t: int) -> list[float]:
        """Service of each slot [mean tasks]."""
        return [self.speed * self.s.slot_capacity] * self.s.slots

    def learn(self, seen: ServerObservation, service: list[float], cost: float, after: ServerObservation) -> None:
        """Nothing."""


class Steady(Broadcasting):
    """A server at a constant speed, a fraction of f_max, while work waits; it learns nothing."""

    def __init__(self, s: ServerNumbers, speed: float):
        self.s, self.speed = s, speed

    def act(self, seen: ServerObservation, samples: Samples, t: int) -> list[float]:
        """Service of each slot [mean tasks]."""
        return [min(self.speed * self.s.slot_capacity, seen.backlog / self.s.slots)] * self.s.slots

    def learn(self, seen: ServerObservation, service: list[float], cost: float, after: ServerObservation) -> None:
        """Nothing."""
