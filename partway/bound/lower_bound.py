"""A proven lower bound on the cost of every policy. The proof is docs/bound.md.

A multiplier lambda >= 0 for the server's queue decomposes the system: each device pays lambda for a unit of work that
it sends, and the server is paid lambda for a unit that it serves. The sum of their least costs is a lower bound:

    average     J >= sum_k g_k(lambda) + min_f [(w1 - lambda) f + w2 E(f)]
    discounted  J >= sum_k V_k(0; lambda) + gamma^2 / (1 - gamma) min_f [(w1 - lambda / gamma) f + w2 E(f)],
                lambda <= w1 gamma / (1 - gamma)

g_k and V_k, a device's least cost when it pays lambda for what it sends, come from `partway.bound.device_program`. All
approximations lower the bound. f is the work that the server serves in a block [mean tasks]; for the other symbols see
`partway.system.equations`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from partway.arguments import whole_number
from partway.bound.certificate import Certificate
from partway.bound.device_program import Fading, Program, Solved, fading_above, fading_below, solve_fleet
from partway.errors import InputError, shown
from partway.pytree import host_array
from partway.system.equations import service_cost_coef
from partway.system.kinds import arrival_probabilities, law_of
from partway.system.load import UNSTABLE, most_started
from partway.system.processes import Law, station_of
from partway.system.types import Device, Server
from partway.system.world import MAX_PLANNED, World

STATES = 32
"""States of a device's table at first; doubled while the best policy reaches its last state too often."""
MAX_STATES = 512
BINS = 256
"""Intervals of the fading over which an expectation is taken."""
MAX_BINS = 100_000
MAX_TAIL_PROBABILITY = 1e-7
"""Probability of a table's last state above which the table is too short."""
UNSETTLED = 1e-3
"""Probability of the longest table's last state, or of starting more than MAX_PLANNED tasks, above which a device's
program does not describe it."""
MAX_PRICE = 1e6
"""Multiple of what a task costs a party that works at its limit: devices that send at this price have no choice."""


OnProgress = Callable[[str], None]


def silent(words: str) -> None:
    """No report on progress."""


class NoBound(Exception):
    """A world has no bound; the message says why."""


@dataclass(frozen=True)
class Bound:
    """The bound of a world.

    certificate       float64, device axis last
    objective         "average" or "discounted"
    slack             about what an exact expectation over the fading would add
    tail_probability  the largest probability of the last state of a device's table; beyond it values continue linearly
    parts             (K,) the devices' parts of the bound
    inflow            (K,) work that each device sends at this price [mean tasks per block]

    Where gamma < 1, `tail_probability` and `inflow` are means with the weights (1 - gamma) gamma^t.
    """

    certificate: Certificate
    objective: str
    slack: float
    tail_probability: float
    parts: np.ndarray
    inflow: np.ndarray

    @property
    def value(self) -> float:
        """The bound itself."""
        return float(self.certificate.bound)


def lower_bound(
    world: World,
    bins: int = BINS,
    price: float | None = None,
    slack: bool = True,
    on_progress: OnProgress = silent,
) -> Bound:
    """The bound with the multiplier that makes it largest, or with `price` [cost per mean task sent].

    bins         intervals of the fading over which an expectation is taken
    slack        False: it is NaN, which saves a quarter of the time
    on_progress  called with a description of the next step: near critical load a step can take minutes

    Raises NoBound where there is none, InputError where `price` is not from 0 to w1 gamma / (1 - gamma) or another
    argument is of a wrong type.
    """
    given: tuple[Any, Any] = world, price  # of any type: a caller in Python need not heed annotations
    if not isinstance(given[0], World):
        raise InputError(f"lower_bound takes a world of partway.system.world.build, got {type(world).__name__}")
    whole_number("bins", bins, 2, MAX_BINS)
    law, arrive = _laws(world)
    with jax.enable_x64(True):
        fading = fading_below(law, bins, bool(np.isinf(world.devices.tx_power_max_w).all()))
        dual = _Dual(world, arrive, fading, STATES, on_progress)
        if price is not None and not (isinstance(given[1], int | float | np.number) and 0 <= price <= dual.cap):
            raise InputError(f"price {shown(price)}: the bound is proven for prices between 0 and {dual.cap:g}")
        multiplier = dual.best_price() if price is None else price
        solved = dual.at(multiplier)
        if np.max(solved.tail_probability) > UNSETTLED:
            raise NoBound(f"no bound: a device's queue does not settle within {dual.states} tasks")
        if np.max(solved.many) > UNSETTLED:
            raise NoBound(f"no bound: a device would start more than {MAX_PLANNED} tasks in a block")
        above = (
            _Dual(world, arrive, fading_above(law, bins), dual.states, on_progress).at(multiplier).part
            if slack
            else np.nan
        )
        server_dual_value, _ = best_service(world.server, dual.discount, multiplier)
        parts = np.asarray(solved.part)
        value = float(parts.sum()) + dual.server_weight * server_dual_value
        tables = jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, -1), solved.tables)
        certificate = Certificate(
            host_array(multiplier), tables, host_array(server_dual_value), host_array(value), host_array(dual.discount)
        )
        return Bound(
            certificate,
            world.devices.objective,
            float(np.sum(above - parts)),
            float(np.max(solved.tail_probability)),
            parts,
            np.asarray(solved.inflow),
        )


def _laws(world: World) -> tuple[Law, np.ndarray]:
    """The law of the fading, and (K, n + 1) probabilities of 0..n arrivals in a block.

    Raises NoBound for a world in which the proof's assumptions do not hold (docs/bound.md, "Assumptions").
    """
    if world.devices.queue != "conserving":
        raise NoBound("no bound for the queue as printed: it keeps fractions of tasks")
    if world.devices.arrivals_seen == "current":
        raise NoBound("no bound where devices see a block's arrivals before they act: it needs independent arrivals")
    if world.devices.objective == "discounted" and (np.any(world.initial_tasks) or np.any(world.initial_backlog)):
        raise NoBound("no bound on the discounted sum from queues that are not empty: it is proven for empty ones")
    if float(world.server.queue_weight) == 0 and world.devices.objective == "average":
        raise NoBound("no bound where waiting at the server costs nothing (w1 = 0): work may accumulate there forever")
    law, stations = law_of(world.channel), station_of(world.devices, world.arrival_threshold)
    arrive = arrival_probabilities(world.traffic, stations)
    if world.channel.memory:
        raise NoBound(
            "no bound for a channel that is correlated in time: the bound needs gains that are independent from block "
            "to block"
        )
    if law is None:
        raise NoBound("no bound for this channel: the distribution of its gains is not known")
    if arrive is None:
        raise NoBound(
            "no bound for this traffic: the bound needs arrivals that are independent from block to block, of a known "
            "distribution"
        )
    arriving = arrive @ np.arange(arrive.shape[-1])
    if (arriving > most_started(world.devices, law) * (1.0 + 1e-12)).any():  # but for rounding
        raise NoBound(f"no bound: a device gets more tasks than it can start: {UNSTABLE}")
    return law, arrive


class _Dual:
    """The bound as a function of the multiplier. Starts each time from the tables of the last one, to be faster."""

    def __init__(self, world: World, arrive: np.ndarray, fading: Fading, states: int, on_progress: OnProgress):
        self.on_progress, self.steps = on_progress, 0
        device, fleet = world.devices, world.devices.mean_gain.shape[-1]
        self.server, self.states = world.server, states
        self.discount = 1.0 if device.objective == "average" else float(np.max(device.discount))
        self.server_weight = 1.0 if self.discount == 1 else self.discount**2 / (1.0 - self.discount)
        own: Device = jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf), -1, 0), device)
        points: Fading = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (fleet, len(leaf))), fading)
        discount, limited = host_array(np.full(fleet, self.discount)), device.max_tasks_per_block == MAX_PLANNED
        self.programs = Program(own, host_array(arrive), points, discount, limited)
        self.cap = price_cap(self.server, self.discount)
        self.value = self._first_guess()

    def _first_guess(self) -> jax.Array:
        return self.programs.device.queue_weight[:, None] * np.arange(self.states) ** 2.0

    def at(self, price: float) -> Solved:
        """The devices' programs, with tables that are long enough (up to MAX_STATES)."""
        solved = self._solved(price, self.value)
        while np.max(solved.tail_probability) > MAX_TAIL_PROBABILITY and self.states < MAX_STATES:
            self.states *= 2
            solved = self._solved(price, self._first_guess())
        self.value = solved.tables.value
        return solved

    def _solved(self, price: float, guess: jax.Array) -> Solved:
        """The programs solved, as NumPy arrays: JAX would compile every small step that follows."""
        self.steps += 1
        self.on_progress(f"lower bound, tables of {self.states} states, step {self.steps}")
        return jax.tree.map(np.asarray, solve_fleet(self.programs, host_array(price), guess))

    def slope(self, price: float) -> float:
        """Derivative of the bound by the multiplier, up to a positive factor: work sent minus work served."""
        return float(np.sum(self.at(price).inflow)) - best_service(self.server, self.discount, price)[1]

    def best_price(self) -> float:
        """The multiplier in [0, cap] where the bound is largest; it is concave."""
        discount, cap = self.discount, self.cap
        free = self.slope(0.0)
        if free <= 0:
            return 0.0
        high = min(cap, discount * _marginal(self.server, free))
        while self.slope(high) > 0:
            if high >= cap:
                return cap
            if high > MAX_PRICE * self.largest_marginal_cost():
                raise NoBound(f"more work arrives than can be done: {UNSTABLE}")
            high = min(cap, 4.0 * high)
        from scipy import optimize  # imported here: it takes a quarter of a second

        solution: Any = optimize.root_scalar(self.slope, bracket=(0.0, high), rtol=1e-5, xtol=1e-9 * high)
        return float(solution.root)

    def largest_marginal_cost(self) -> float:
        """What the last task of a block costs at its limit, for the party where it costs most [cost per mean task]."""
        device, server = self.programs.device, self.server
        own = device.queue_weight + 3.0 * device.energy_weight * device.energy_coef * device.capacity**2
        of_device = float(np.max(own / np.maximum(device.server_work, 1e-30)))
        return max(of_device, _marginal(server, float(server.slot_capacity) * server.slots))


def price_cap(server: Server, discount: float) -> float:
    """w1 gamma / (1 - gamma), up to which the bound is proven; infinite for the average cost."""
    return np.inf if discount == 1 else float(server.queue_weight) * discount / (1.0 - discount)


def _marginal(server: Server, f: float) -> float:
    """w1 + w2 E'(f): what a unit of work costs that is served in the block after its arrival, at f per block."""
    return float(server.queue_weight) + 3.0 * float(service_cost_coef(server)) * f**2


def best_service(server: Server, discount: float, price: float) -> tuple[float, float]:
    """min over f in [0, F] of (w1 - lambda / gamma) f + w2 E(f), and its f."""
    profit, coef = price / discount - float(server.queue_weight), float(service_cost_coef(server))
    limit = float(server.slot_capacity) * server.slots
    f = 0.0 if profit <= 0 else min(float(np.sqrt(profit / (3.0 * coef))), limit) if coef > 0 else limit
    return coef * f**3 - profit * f, f
