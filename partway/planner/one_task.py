"""One task in continuous time, with nothing else running: the latency and the energy of every cut.

    latency(c, v) = d_c / v + D_c / R + rtt + s_c
    energy(c, v)  = P v^2 d_c + e D_c + P_idle latency(c, v)           (of the device)

  c    cut                                        v    CPU rate of the device / its largest, from v_min to 1
  d_c  time of the layers before c at v = 1 [s]   s_c  time of the layers after c at the server [s]
  D_c  bits at the cut [bit]                      R    rate of the link [bit/s]     rtt  its round trip [s]
  P    power of the CPU at v = 1 [W]              e    energy of sending [J/bit]    P_idle  drawn all the time [W]
                                                       P_tx / R, or the same at every rate

The power of the CPU grows with v^3, as in (2), so that its energy for the same work grows with v^2. A cut that sends
nothing has no round trip. What the result costs on its way back is the round trip alone. There are no blocks, no queues
and no fading here; `partway.planner.evaluation` has these. This module needs no JAX.
"""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Processor:
    """What runs layers.

    elapsed_s  (cuts,) time [s] of the layers before each cut at full speed; the last is that of the whole network
    busy_w     P [W], at full speed, above idle
    idle_w     P_idle [W]
    min_speed  v_min
    max_hz     CPU rate at full speed [Hz], for what is printed
    source     where its times come from, in words
    """

    elapsed_s: np.ndarray
    busy_w: float
    idle_w: float = 0.0
    min_speed: float = 0.0
    max_hz: float = np.nan
    source: str = ""

    @property
    def left_s(self) -> np.ndarray:
        """(cuts,) time [s] of the layers after each cut at full speed."""
        return self.elapsed_s[-1] - self.elapsed_s


@dataclass(frozen=True)
class Link:
    """The link.

    bit_per_s   R [bit/s]                       rtt_s      its round trip [s]
    tx_w        P_tx, power while sending [W]   fixed_j_per_bit  energy of sending that no rate changes [J/bit]
    """

    bit_per_s: float
    rtt_s: float = 0.0
    tx_w: float = 0.0
    fixed_j_per_bit: float = 0.0

    @property
    def j_per_bit(self) -> float:
        """e [J/bit]."""
        return self.tx_w / self.bit_per_s + self.fixed_j_per_bit


@dataclass(frozen=True)
class Question:
    """What is asked about one task.

    bits        (cuts,) D [bit]; the last, the output, sends nothing
    front       (cuts,) whether a cut is Pareto-optimal in work and bits
    deadline_s  None: as soon as possible
    """

    bits: np.ndarray
    front: np.ndarray
    device: Processor
    server: Processor
    link: Link
    deadline_s: float | None = None


@dataclass(frozen=True)
class Costs:
    """(cuts,) what every cut takes; `rtt_s` is 0 where nothing is sent."""

    device_s: np.ndarray
    link_s: np.ndarray
    rtt_s: np.ndarray
    server_s: np.ndarray
    device_j: np.ndarray
    server_j: np.ndarray

    @property
    def latency_s(self) -> np.ndarray:
        """(cuts,) from the start of the task to its result [s]."""
        return self.device_s + self.link_s + self.rtt_s + self.server_s


@dataclass(frozen=True)
class Choice:
    """A cut and the speed of the CPU; `met`: whether it meets the deadline, True without one."""

    cut: int
    speed: float
    met: bool


def costs(question: Question, speed: np.ndarray | float = 1.0) -> Costs:
    """What every cut takes at a speed v of the device's CPU, one for all cuts or (cuts,)."""
    device, server, link = question.device, question.server, question.link
    device_s, link_s = device.elapsed_s / speed, question.bits / link.bit_per_s
    rtt_s = np.where(question.bits > 0, link.rtt_s, 0.0)
    latency_s = device_s + link_s + rtt_s + server.left_s
    device_j = device.busy_w * speed**2 * device.elapsed_s + link.j_per_bit * question.bits + device.idle_w * latency_s
    return Costs(device_s, link_s, rtt_s, server.left_s, device_j, server.busy_w * server.left_s)


def slow_speeds(question: Question) -> np.ndarray:
    """(cuts,) the speed v with the least energy of those that meet the deadline; NaN where none does.

    P v^2 d + P_idle d / v is least at v^3 = P_idle / (2 P).
    """
    full, device = costs(question), question.device
    if question.deadline_s is None:
        return np.ones(len(question.bits))
    slack = question.deadline_s - full.link_s - full.rtt_s - full.server_s
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(device.elapsed_s > 0, device.elapsed_s / slack, 0.0)
    frugal = np.cbrt(device.idle_w / (2.0 * device.busy_w)) if device.busy_w > 0 else 1.0
    speed = np.minimum(np.maximum(needed, max(frugal, device.min_speed)), 1.0)
    possible = full.latency_s <= question.deadline_s * (1.0 + 1e-12)  # that of `least_rate` is met, with its rounding
    return np.where(possible, np.where(speed > 0, speed, 1.0), np.nan)


def recommend(question: Question) -> Choice:
    """The fastest cut; with a deadline, the one with the least energy of the device that meets it, or the fastest."""
    full = costs(question)
    if question.deadline_s is not None:
        speed = slow_speeds(question)
        if (met := np.isfinite(speed)).any():
            slow = costs(question, np.where(met, speed, 1.0))
            cut = _first(question, np.where(met, slow.device_j, np.inf), slow.latency_s)
            return Choice(cut, float(speed[cut]), True)
    return Choice(_first(question, full.latency_s, full.device_j), 1.0, question.deadline_s is None)


def _first(question: Question, *measures: np.ndarray) -> int:
    """The cut with the least measure, then the next; of equal ones a Pareto-optimal one."""
    keys = (np.arange(len(question.bits)), ~question.front, *measures[::-1])
    return int(np.lexsort(keys)[0])


def shown_cuts(question: Question) -> np.ndarray:
    """The numbers of the Pareto-optimal cuts, all remote, all local and the recommended one, the fastest first."""
    shown = question.front.copy()
    shown[[0, -1, recommend(question).cut]] = True
    cuts = np.flatnonzero(shown)
    return cuts[np.argsort(costs(question).latency_s[cuts], kind="stable")]


def better_on_front(question: Question, cut: int) -> int | None:
    """A Pareto-optimal cut that sends no more bits after no more work; None if `cut` is Pareto-optimal itself."""
    if question.front[cut]:
        return None
    before = np.flatnonzero(question.front[: cut + 1] & (question.bits[: cut + 1] <= question.bits[cut]))
    return int(before[-1]) if len(before) else None


# The rate of the link


def least_rate(question: Question, within_s: float, cuts: np.ndarray) -> float | None:
    """The rate [bit/s] from which some of `cuts` (cuts,) takes at most `within_s` at full speed; None if none does.

    It is the least D / (t - d - rtt - s), at which the cut takes t.
    """
    full = costs(question)
    slack = within_s - full.device_s - full.rtt_s - full.server_s
    possible = cuts & (question.bits > 0) & (slack > 0)
    with np.errstate(over="ignore"):
        least = float(np.min(question.bits[possible] / slack[possible], initial=np.inf))
    return least if np.isfinite(least) else None


@dataclass(frozen=True)
class BreakEvenRate:
    """Rates of the link [bit/s] from which sending is faster than running the whole task locally; None if it never is.

    offloading  from which the best cut that sends something is
    all_remote  from which sending the input is
    """

    offloading: float | None
    all_remote: float | None


def break_even_rate(question: Question) -> BreakEvenRate:
    """Both rates of the link."""
    local_s, cuts = float(question.device.elapsed_s[-1]), np.arange(len(question.bits))
    return BreakEvenRate(least_rate(question, local_s, cuts >= 0), least_rate(question, local_s, cuts == 0))


def crossovers(fixed: np.ndarray, per_bit_time: np.ndarray) -> list[tuple[float, int]]:
    """The cut with the least fixed + per_bit_time / R, for every rate R > 0: [(rate from which, cut)], ascending.

    Both (cuts,). The first entry has the rate 0. It is the lower envelope of straight lines in 1 / R.
    """
    best = int(np.lexsort((fixed, per_bit_time))[0])
    found = [(0.0, best)]
    while True:
        later = np.flatnonzero((fixed < fixed[best]) & (per_bit_time > per_bit_time[best]))
        if not len(later):
            return found
        rates = (per_bit_time[later] - per_bit_time[best]) / (fixed[best] - fixed[later])
        best = int(later[np.lexsort((fixed[later], rates))[0]])
        found.append((float(np.min(rates)), best))


def fastest_by_rate(question: Question) -> list[tuple[float, int]]:
    """The fastest cut for every rate: [(rate [bit/s] from which, cut)], ascending, the first from 0."""
    full = costs(question)
    return crossovers(full.device_s + full.rtt_s + full.server_s, question.bits)


def thriftiest_by_rate(question: Question) -> list[tuple[float, int]]:
    """The cut with the least energy of the device at full speed, for every rate, as `fastest_by_rate`."""
    full, device, link = costs(question), question.device, question.link
    unsent_s = full.device_s + full.rtt_s + full.server_s
    fixed_j = device.busy_w * full.device_s + link.fixed_j_per_bit * question.bits + device.idle_w * unsent_s
    return crossovers(fixed_j, (link.tx_w + device.idle_w) * question.bits)


def at_rate(question: Question, bit_per_s: float) -> Question:
    """The question at another rate of the link."""
    return replace(question, link=replace(question.link, bit_per_s=bit_per_s))
