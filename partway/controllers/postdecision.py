"""Learning the value of what a decision leaves, before chance moves on: near-optimal control of devices and server.

A device knows its energy and radio formulas; only arrivals and fading are unknown, and they do not depend on what it
does. So it counts how many tasks come and learns V(q), the value of a block that begins with q; U(m) = E V(m + A) is
the value of m tasks left after the decision, and every observation improves all of it ("virtual experience";
N. Mastronarde, M. van der Schaar, IEEE Trans. Signal Process. 2011): nothing has to be explored.
The server does the same with u = dU/dx, which is what one more unit of work will cost: the price of `priced`.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.bound.certificate import Certificate, Tables
from partway.controllers.base import (
    DeviceController,
    DeviceView,
    Limits,
    ServerController,
    ServerView,
    required,
    server_action,
)
from partway.pytree import record
from partway.system.equations import local_energy
from partway.system.stage_cost import best_cuts, column, table_value, where_least
from partway.system.types import Device, DeviceAction, Server, ServerAction

CRITERIA = frozenset({"objective", "average", "discounted"})
TABLE_LIMITS: Mapping[str, Limits] = {"criterion": CRITERIA, "decay": (0.0, 10.0), "min_step": (0.0, 1.0)}
SERVER_DISCOUNT = 0.9999
"""gamma of the server where the average cost is to be small: it learns slopes, which have no constant to subtract."""
UNHURRIED = 4.0
"""Blocks in which a server that has learned nothing would work off what waits."""


def minimises_average(criterion: str, party: Device | Server) -> bool:
    """Whether the average cost is to be small; the discounted sum otherwise."""
    return (party.objective if criterion == "objective" else criterion) == "average"


def table_step(block: jax.Array, decay: float, least: float) -> jax.Array:
    """a_t = max((t + 1)^-decay, least)."""
    return jnp.maximum((1.0 + block) ** -decay, least)


@record
class Learner:
    """Memory of a device.

    value   (states,) V, relative to V(0) where gamma is 1      block   t, blocks learned from
    arrive  (n + 1,) how often 0..n tasks came in a block       change  relative, of V's last entry, in the last block
    """

    value: jax.Array
    arrive: jax.Array
    block: jax.Array
    relative_change: jax.Array


class PostDecision(DeviceController):
    """A device that learns V and takes the choice of least c(j, rest; h, price) + gamma U(q - j), at the price 0.

    V starts as if what waits had to be run at once: too high, so that no queue builds up meanwhile.

    states   of the table; beyond it U goes on linearly
    aim      "objective": the scenario's; "average": gamma = 1, relative values; "discounted": the scenario's gamma
    decay, least_step  of a_t = max((t + 1)^-decay, least_step)
    """

    batched = True
    limits: ClassVar[Mapping[str, Limits]] = {**TABLE_LIMITS, "states": (2, 4096)}
    states: int = 32
    criterion: str = "objective"
    decay: float = 0.6
    min_step: float = 0.01

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> Learner:
        del key
        q = column(0, self.states, view.q)
        zero, run = jnp.zeros_like(view.q), jnp.minimum(q, device.capacity)
        joules = local_energy(device, run) + 3.0 * device.energy_coef * device.capacity**2 * (q - run)
        value = device.queue_weight * q + device.energy_weight * joules
        none_came = jnp.where(column(0, device.slots + 1, view.q) == 0, 1.0, zero)
        return Learner(value, none_came, zero, zero + jnp.inf)

    def act(self, state: Learner, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        del key
        left, slope = value_left(state), state.value[-1] - state.value[-2]
        return planned(device, view, left, slope, self.discount(device), self.price(view))

    def learn(
        self,
        state: Learner,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> Learner:
        """V(q) += a_t (w3 W q + min_j (c(j; h) + gamma U(q - j)) - V(q)) for every q.

        h is the gain it has acted on, so that what `act` found of c and U serves again. Counting arrivals leaves the
        fading as the only noise.
        """
        del action, cost
        choices = best_cuts(device, view.gain, self.price(view))
        target = backup(device, value_left(state), choices.cost, self.discount(device))
        value = state.value + table_step(state.block, self.decay, self.min_step) * (target - state.value)
        if minimises_average(self.criterion, device):
            value = value - value[0]
        came = column(0, device.slots + 1, view.q) == jnp.sum(next_view.arrivals, axis=0)
        arrive = state.arrive + (came - state.arrive) / (1.0 + state.block)
        relative_change = jnp.abs(value[-1] - state.value[-1]) / jnp.maximum(jnp.abs(state.value[-1]), 1e-30)
        return Learner(value, arrive, state.block + 1, relative_change)

    def relative_change(self, state: Learner) -> jax.Array:
        return state.relative_change

    def price(self, view: DeviceView) -> jax.Array | float:
        """What a mean task sent now costs beyond its energy."""
        del view
        return 0.0

    def discount(self, device: Device) -> jax.Array | float:
        """gamma of this learner."""
        return 1.0 if minimises_average(self.criterion, device) else device.discount


class Priced(PostDecision):
    """The same, at the price the server tells: what a unit of work sent in the block it is heard in will cost there."""

    batched = True
    uses_broadcast = ("price",)

    def price(self, view: DeviceView) -> jax.Array:
        return view.broadcast.price


def planned(
    device: Device,
    view: DeviceView,
    value: jax.Array,
    slope: jax.Array,
    discount: jax.Array | float,
    price: jax.Array | float,
) -> DeviceAction:
    """argmin over (j, rest) of c(j, rest; h, price) + gamma U(q - j), U given by a table and its slope beyond."""
    choices = best_cuts(device, view.gain, price)
    started = column(0, device.max_tasks_per_block + 1, view.q)
    total = choices.cost + discount * table_value(value, slope, view.q - started)
    total = jnp.where(started <= view.q, total, jnp.inf)
    best = where_least(total, started)
    return DeviceAction(started=best, offload=jnp.max(jnp.where(started == best, choices.offload, 0.0), axis=0))


def value_left(state: Learner) -> jax.Array:
    """(states,) U(m) = E V(m + A); V goes on beyond its table with its last slope."""
    value, arrive = state.value, state.arrive
    states, slots = value.shape[0], arrive.shape[0] - 1
    beyond = value[-1] + (value[-1] - value[-2]) * column(1, slots + 1, value[-1])
    longer = jnp.concatenate([value, beyond])
    return sum((arrive[a] * longer[a : a + states] for a in range(slots + 1)), jnp.zeros(()))


def backup(device: Device, left: jax.Array, cost: jax.Array, discount: jax.Array | float) -> jax.Array:
    """(states,) w3 W q + min over j of c(j) + gamma U(q - j), from U and c."""
    most, states = device.max_tasks_per_block, left.shape[0]
    future = jnp.concatenate([jnp.full_like(left[:1], jnp.inf, shape=(most, *left.shape[1:])), discount * left])
    best = future[most:]  # no task taken up costs nothing
    for j in range(1, most + 1):
        best = jnp.minimum(best, future[most - j : most - j + states] + cost[j])
    return device.queue_weight * column(0, states, left[0]) + best


@record
class ServerLearner:
    """Memory of the server: `slope` (points,) u, `mean_price` running mean of gamma u at the work left, `block` t."""

    slope: jax.Array
    mean_price: jax.Array
    block: jax.Array
    relative_change: jax.Array


class PostDecisionServer(ServerController):
    """A server that learns u(x), the marginal value of leaving x work, and serves where w2 E'(f) = gamma u(y - f).

    u averages over what a block brings, so gamma u(x) is what one more unit sent now will cost. The price told is its
    running mean, and a part of the way from there to what it is now: if it went all the way, every device would answer
    the same noise at once, and the later they hear it, the more they would overshoot.

    points, reach   of the grid of x: from 0 to `grid_max` mean tasks per device, denser near 0
    answer          that part of the way where the price is heard at once; the part is answer / (1 + lag / 2)
    usual_step      of the running mean: max((t + 1)^-0.7, usual_step)
    aim             as at the devices; the average cost is approached by gamma = 0.9999
    decay, least_step  of a_t = max((t + 1)^-decay, least_step)
    """

    limits: ClassVar[Mapping[str, Limits]] = {
        **TABLE_LIMITS,
        "grid_points": (2, 4096),
        "grid_max": (1e-3, 1e6),
        "price_gain": (0.0, 1.0),
        "mean_price_step": (0.0, 1.0),
    }
    grid_points: int = 32
    grid_max: float = 4.0
    price_gain: float = 0.2
    mean_price_step: float = 0.005
    criterion: str = "objective"
    decay: float = 0.6
    min_step: float = 0.01

    def init(self, server: Server, view: ServerView, key: jax.Array) -> ServerLearner:
        """u(x) at first: w1 + w2 E'(f), f working off x and a mean task of every device in UNHURRIED blocks.

        A price too high, so that not all send before there is one. A server that emptied its queue in every block would
        rush through what comes first, and ask a price for it that keeps everybody away for long.
        """
        del key
        grid, zero = self.grid(view), jnp.zeros_like(view.backlog)
        slope = server.queue_weight + 3.0 * energy_coef(server) * ((grid + view.queues.shape[-1]) / UNHURRIED) ** 2
        return ServerLearner(slope, zero, zero, zero + jnp.inf)

    def act(self, state: ServerLearner, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        del key
        served = self.service_per_slot(state, server, view).serve(view.backlog)
        now = self.cost_of_more(state, server, view, served)
        mean_price = self.mean_price(state, now)
        price = mean_price + self.price_gain / (1.0 + server.broadcast_delay_blocks / 2.0) * (now - mean_price)
        return server_action(view, jnp.full((server.slots,), served / server.slots), price)

    def learn(
        self,
        state: ServerLearner,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> ServerLearner:
        """u(x) += a_t (V'(x + a) - u(x)) for every x of the grid, a being what arrived."""
        del cost
        target = self.service_per_slot(state, server, view).marginal(self.grid(view) + next_view.last_inflow, server)
        slope = state.slope + table_step(state.block, self.decay, self.min_step) * (target - state.slope)
        mean_price = self.mean_price(state, self.cost_of_more(state, server, view, jnp.sum(action.service_per_slot)))
        relative_change = jnp.linalg.norm(slope - state.slope) / jnp.linalg.norm(state.slope)
        return ServerLearner(slope, mean_price, state.block + 1, relative_change)

    def relative_change(self, state: ServerLearner) -> jax.Array:
        return state.relative_change

    def grid(self, view: ServerView) -> jax.Array:
        """(points,) x [mean tasks]."""
        even = jnp.arange(self.grid_points, dtype=view.backlog.dtype) / (self.grid_points - 1)
        return self.grid_max * view.queues.shape[-1] * even**2

    def discount(self, server: Server) -> jax.Array | float:
        """gamma of this learner."""
        return SERVER_DISCOUNT if minimises_average(self.criterion, server) else server.discount

    def cost_of_more(self, state: ServerLearner, server: Server, view: ServerView, served: jax.Array) -> jax.Array:
        """gamma u(x) at the work x that `served` leaves: the cost of one more unit sent in this block."""
        left = jnp.maximum(view.backlog - served, 0.0)
        return self.discount(server) * interpolate(left[None], self.grid(view), state.slope)[0]

    def mean_price(self, state: ServerLearner, now: jax.Array) -> jax.Array:
        """The running mean with `now` in it."""
        return state.mean_price + table_step(state.block, 0.7, self.mean_price_step) * (now - state.mean_price)

    def service_per_slot(self, state: ServerLearner, server: Server, view: ServerView) -> "Rates":
        """What this server serves, by the work that waits."""
        worth = self.discount(server) * state.slope
        served = jnp.minimum(jnp.sqrt(worth / (3.0 * energy_coef(server))), server.slot_capacity * server.slots)
        return Rates(self.grid(view) + served, served, worth, energy_coef(server))


@record
class Rates:
    """What to serve at work y, from the points (x + f(x)) where leaving x is best. Beyond the last, as there.

    work, served, worth  (points,) y, f, gamma u        coef  w2 xi_ser / (n tau)^2
    """

    work: jax.Array
    served: jax.Array
    worth: jax.Array
    coef: jax.Array

    def serve(self, backlog: jax.Array) -> jax.Array:
        """f(y), () [mean tasks a block]: all of y where that is less than what is best to serve with nothing left."""
        return jnp.minimum(backlog, interpolate(backlog[None], self.work, self.served)[0])

    def marginal(self, backlog: jax.Array, server: Server) -> jax.Array:
        """V'(y) = w1 + gamma u(y - f(y)), or w1 + w2 E'(y) where the queue empties; any shape (m,)."""
        left = interpolate(backlog, self.work, self.worth)
        return server.queue_weight + jnp.where(backlog < self.work[0], 3.0 * self.coef * backlog**2, left)


def energy_coef(server: Server) -> jax.Array:
    """w2 E(f) = coef f^3 for f mean tasks in a block, at equal rates over its slots."""
    return server.energy_weight * server.energy_coef / server.slots**2


def interpolate(at: jax.Array, grid_points: jax.Array, values: jax.Array) -> jax.Array:
    """The piecewise linear function through (points, values), constant beyond, at (m,): a sum of ramps.

    Far faster than a search and a gather; as a product faster to compile than ramp by ramp.
    """
    length = grid_points[1:] - grid_points[:-1]
    ramps = jnp.clip(at[:, None] - grid_points[:-1], 0.0, length)
    return values[0] + jnp.dot(ramps, (values[1:] - values[:-1]) / length, precision="highest")


class Oracle(DeviceController):
    """Plays the lower bound's own multiplier and exact tables: a yardstick that knows statistics, no ceiling."""

    batched = True
    certificate: Certificate | None = None

    def init_fleet(self, devices: Device, views: DeviceView, keys: jax.Array) -> Tables:
        del devices, views, keys
        return required(self.certificate).tables

    def act(self, state: Tables, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        del key
        known = required(self.certificate)
        return planned(device, view, state.value, state.slope, known.discount, known.price)
