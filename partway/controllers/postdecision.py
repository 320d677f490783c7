"""Post-decision learning: near-optimal control of devices and server.

A device knows its energy and radio formulas. Only arrivals and fading are unknown, and they do not depend on its
action. It therefore counts how many tasks arrive and learns V(q), the value of a block that begins with q tasks.
U(m) = E V(m + A) is the value of m tasks left after the decision and before the arrivals A. Every observation updates
the whole table ("virtual experience"; N. Mastronarde, M. van der Schaar, IEEE Trans. Signal Process. 2011), so that no
exploration is needed.

The server does the same with u = dU/dx, the cost of one more unit of work, which is the price of `priced`.

Legend: j tasks started, c(j, offload; h, price) their cost in this block (`partway.system.stage_cost`), f the work that
the server does in a block, E(f) its energy.
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
from partway.system.equations import local_energy, service_cost_coef
from partway.system.stage_cost import best_cuts, column, table_value, where_least
from partway.system.types import Device, DeviceAction, Server, ServerAction

CRITERIA = frozenset({"objective", "average", "discounted"})
TABLE_LIMITS: Mapping[str, Limits] = {"criterion": CRITERIA, "decay": (0.0, 10.0), "min_step": (0.0, 1.0)}
SERVER_DISCOUNT = 0.9999
"""gamma of the server when the average cost is minimised: it learns slopes, which have no constant to subtract."""
UNHURRIED = 4.0
"""Blocks in which a server that has learned nothing would complete the work that waits."""


def minimises_average(criterion: str, party: Device | Server) -> bool:
    """Whether the average cost is minimised, not the discounted sum: what `criterion` or the party's objective says."""
    return (party.objective if criterion == "objective" else criterion) == "average"


def table_step(block: jax.Array, decay: float, min_step: float) -> jax.Array:
    """a_t = max((t + 1)^-decay, min_step)."""
    return jnp.maximum((1.0 + block) ** -decay, min_step)


@record
class PostDecisionState:
    """State of a device.

    value            (states,) V, relative to V(0) where gamma is 1
    arrive           (n + 1,) fractions of the blocks in which 0..n tasks arrived
    block            t, blocks learned from
    relative_change  of the last entry of V in the last block
    """

    value: jax.Array
    arrive: jax.Array
    block: jax.Array
    relative_change: jax.Array


class PostDecision(DeviceController):
    """A device that learns V and takes the choice of least c(j, offload; h, price) + gamma U(q - j), at the price 0.

    V starts as if all waiting tasks had to be run at once. That is too high, so no queue builds up while V is learned.

    states           entries of the table; U is linear beyond it
    criterion        "objective": that of the scenario; "average": gamma = 1, relative values; "discounted": the gamma
                     of the scenario
    decay, min_step  of a_t = max((t + 1)^-decay, min_step)
    """

    batched = True
    limits: ClassVar[Mapping[str, Limits]] = {**TABLE_LIMITS, "states": (2, 4096)}
    states: int = 32
    criterion: str = "objective"
    decay: float = 0.6
    min_step: float = 0.01

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> PostDecisionState:
        del key
        q = column(0, self.states, view.q)
        zero, run = jnp.zeros_like(view.q), jnp.minimum(q, device.capacity)
        joules = local_energy(device, run) + 3.0 * device.energy_coef * device.capacity**2 * (q - run)
        value = device.queue_weight * q + device.energy_weight * joules
        no_arrivals = jnp.where(column(0, device.slots + 1, view.q) == 0, 1.0, zero)
        return PostDecisionState(value, no_arrivals, zero, zero + jnp.inf)

    def act(self, state: PostDecisionState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        del key
        left, slope = value_left(state), state.value[-1] - state.value[-2]
        return planned(device, view, left, slope, self.discount(device), self.price(view))

    def learn(
        self,
        state: PostDecisionState,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> PostDecisionState:
        """V(q) += a_t (w3 W q + min_j (c(j; h) + gamma U(q - j)) - V(q)) for every q.

        h is the gain of the block that ends, for which `act` has computed c and U already. Since arrivals are counted,
        fading is the only noise.
        """
        del action, cost
        choices = best_cuts(device, view.gain, self.price(view))
        target = backup(device, value_left(state), choices.cost, self.discount(device))
        value = state.value + table_step(state.block, self.decay, self.min_step) * (target - state.value)
        if minimises_average(self.criterion, device):
            value = value - value[0]
        arrived = column(0, device.slots + 1, view.q) == jnp.sum(next_view.arrivals, axis=0)
        arrive = state.arrive + (arrived - state.arrive) / (1.0 + state.block)
        relative_change = jnp.abs(value[-1] - state.value[-1]) / jnp.maximum(jnp.abs(state.value[-1]), 1e-30)
        return PostDecisionState(value, arrive, state.block + 1, relative_change)

    def relative_change(self, state: PostDecisionState) -> jax.Array:
        return state.relative_change

    def price(self, view: DeviceView) -> jax.Array | float:
        """Cost of a mean task sent now, beyond its energy."""
        del view
        return 0.0

    def discount(self, device: Device) -> jax.Array | float:
        """gamma of this learner."""
        return 1.0 if minimises_average(self.criterion, device) else device.discount


class Priced(PostDecision):
    """The same at the broadcast price: what a unit of work sent in the block of its arrival will cost at the server."""

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
    """argmin over (j, offload) of c(j, offload; h, price) + gamma U(q - j).

    value, slope  U as a table (states,) and its increase per task beyond the table
    """
    choices = best_cuts(device, view.gain, price)
    started = column(0, device.max_tasks_per_block + 1, view.q)
    total = choices.cost + discount * table_value(value, slope, view.q - started)
    total = jnp.where(started <= view.q, total, jnp.inf)
    best = where_least(total, started)
    return DeviceAction(started=best, offload=jnp.max(jnp.where(started == best, choices.offload, 0.0), axis=0))


def value_left(state: PostDecisionState) -> jax.Array:
    """(states,) U(m) = E V(m + A); beyond its table V continues with its last slope."""
    value, arrive = state.value, state.arrive
    states, slots = value.shape[0], arrive.shape[0] - 1
    beyond = value[-1] + (value[-1] - value[-2]) * column(1, slots + 1, value[-1])
    longer = jnp.concatenate([value, beyond])
    return sum((arrive[a] * longer[a : a + states] for a in range(slots + 1)), jnp.zeros(()))


def backup(device: Device, left: jax.Array, cost: jax.Array, discount: jax.Array | float) -> jax.Array:
    """(states,) w3 W q + min over j of c(j) + gamma U(q - j), from U and c."""
    limit, states = device.max_tasks_per_block, left.shape[0]
    future = jnp.concatenate([jnp.full_like(left[:1], jnp.inf, shape=(limit, *left.shape[1:])), discount * left])
    best = future[limit:]  # j = 0 costs nothing in this block
    for j in range(1, limit + 1):
        best = jnp.minimum(best, future[limit - j : limit - j + states] + cost[j])
    return device.queue_weight * column(0, states, left[0]) + best


@record
class PostDecisionServerState:
    """State of the server.

    slope            (grid_points,) u
    mean_price       running mean of gamma u at the work left
    block            t, blocks learned from
    relative_change  of u in the last block
    """

    slope: jax.Array
    mean_price: jax.Array
    block: jax.Array
    relative_change: jax.Array


class PostDecisionServer(ServerController):
    """A server that learns u(x), the marginal value of leaving x work, and serves where w2 E'(f) = gamma u(y - f).

    u averages over the inflow of a block, so gamma u(x) is what one more unit of work sent now will cost. The broadcast
    price lies between the running mean of this cost and its current value. At the current value itself all devices
    would react to the same noise at once, and overshoot the more, the longer the broadcast is delayed.

    grid_points, grid_max  the grid of x: from 0 to `grid_max` mean tasks per device, denser near 0
    price_gain             price = mean + gain (current value - mean), gain = price_gain / (1 + delay / 2), with the
                           delay in blocks
    mean_price_step        the step of the running mean is max((t + 1)^-0.7, mean_price_step)
    criterion              as at the devices; the average cost is approximated by gamma = 0.9999
    decay, min_step        of a_t = max((t + 1)^-decay, min_step)
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

    def init(self, server: Server, view: ServerView, key: jax.Array) -> PostDecisionServerState:
        """u(x) = w1 + w2 E'(f), where f completes x and one mean task of every device in UNHURRIED blocks.

        The first price is too high, so that the devices do not all send before a price is known. A server that emptied
        its queue in every block would do the first work at a very high speed, and its price for that would keep the
        devices away for a long time.
        """
        del key
        zero, served = jnp.zeros_like(view.backlog), (self.grid(view) + view.queues.shape[-1]) / UNHURRIED
        slope = server.queue_weight + 3.0 * service_cost_coef(server) * served**2
        return PostDecisionServerState(slope, zero, zero, zero + jnp.inf)

    def act(self, state: PostDecisionServerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        del key
        served = self.service_curve(state, server, view).serve(view.backlog)
        now = self.marginal_cost(state, server, view, served)
        mean_price = self.mean_price(state, now)
        price = mean_price + self.price_gain / (1.0 + server.broadcast_delay_blocks / 2.0) * (now - mean_price)
        return server_action(view, jnp.full((server.slots,), served / server.slots), price)

    def learn(
        self,
        state: PostDecisionServerState,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> PostDecisionServerState:
        """u(x) += a_t (V'(x + a) - u(x)) for every x of the grid, a being the inflow of the block."""
        del cost
        curve = self.service_curve(state, server, view)
        target = curve.marginal_value(self.grid(view) + next_view.last_inflow, server)
        slope = state.slope + table_step(state.block, self.decay, self.min_step) * (target - state.slope)
        served = jnp.sum(action.service_per_slot)
        mean_price = self.mean_price(state, self.marginal_cost(state, server, view, served))
        relative_change = jnp.linalg.norm(slope - state.slope) / jnp.linalg.norm(state.slope)
        return PostDecisionServerState(slope, mean_price, state.block + 1, relative_change)

    def relative_change(self, state: PostDecisionServerState) -> jax.Array:
        return state.relative_change

    def grid(self, view: ServerView) -> jax.Array:
        """(grid_points,) x [mean tasks]."""
        even = jnp.arange(self.grid_points, dtype=view.backlog.dtype) / (self.grid_points - 1)
        return self.grid_max * view.queues.shape[-1] * even**2

    def discount(self, server: Server) -> jax.Array | float:
        """gamma of this learner."""
        return SERVER_DISCOUNT if minimises_average(self.criterion, server) else server.discount

    def marginal_cost(
        self, state: PostDecisionServerState, server: Server, view: ServerView, served: jax.Array
    ) -> jax.Array:
        """gamma u(x) at the work x that `served` leaves: the cost of one more unit sent in this block."""
        left = jnp.maximum(view.backlog - served, 0.0)
        return self.discount(server) * interpolate(left[None], self.grid(view), state.slope)[0]

    def mean_price(self, state: PostDecisionServerState, now: jax.Array) -> jax.Array:
        """The running mean of the marginal cost with the value `now` included."""
        return state.mean_price + table_step(state.block, 0.7, self.mean_price_step) * (now - state.mean_price)

    def service_curve(self, state: PostDecisionServerState, server: Server, view: ServerView) -> "ServiceCurve":
        """The work that this server serves in a block, by the work that waits."""
        marginal, coef = self.discount(server) * state.slope, service_cost_coef(server)
        best = jnp.where(coef > 0, jnp.sqrt(marginal / jnp.where(coef > 0, 3.0 * coef, 1.0)), jnp.inf)
        served = jnp.minimum(best, server.slot_capacity * server.slots)
        return ServiceCurve(self.grid(view), served, marginal, coef)


@record
class ServiceCurve:
    """f(y), the best service of a block that begins with work y, by the points where leaving x is best: y = x + f(x).

    It is constant beyond the last point. y is counted from f(0), the most that is served with nothing left: a server
    that can do millions of tasks in a block serves so much more than is left that float32 holds no sum of the two.

    left      (grid_points,) x [mean tasks], from 0    marginal  (grid_points,) gamma u(x)
    served    (grid_points,) f [mean tasks]            coef      w2 xi_ser / (n tau)^2, see `service_cost_coef`
    """

    left: jax.Array
    served: jax.Array
    marginal: jax.Array
    coef: jax.Array

    def serve(self, backlog: jax.Array) -> jax.Array:
        """f(y), () [mean tasks a block]: all of y where that is less than the best service that leaves nothing."""
        return jnp.minimum(backlog, self._at(backlog[None], self.served)[0])

    def marginal_value(self, backlog: jax.Array, server: Server) -> jax.Array:
        """V'(y) = w1 + gamma u(y - f(y)), or w1 + w2 E'(y) where the queue empties; any shape (m,)."""
        left = self._at(backlog, self.marginal)
        return server.queue_weight + jnp.where(backlog < self.served[0], 3.0 * self.coef * backlog**2, left)

    def _at(self, backlog: jax.Array, values: jax.Array) -> jax.Array:
        """The function with `values` at the points y."""
        more = jnp.maximum(self.served[1:] - self.served[:-1], 0.0)  # only rounding makes it negative
        length = self.left[1:] - self.left[:-1] + more
        start = self.left[:-1] + (self.served[:-1] - self.served[0])
        return sum_of_ramps(backlog - self.served[0], start, length, values)


def interpolate(at: jax.Array, points: jax.Array, values: jax.Array) -> jax.Array:
    """The piecewise linear function through (points, values), constant outside, at (m,)."""
    return sum_of_ramps(at, points[:-1], points[1:] - points[:-1], values)


def sum_of_ramps(at: jax.Array, start: jax.Array, length: jax.Array, values: jax.Array) -> jax.Array:
    """A piecewise linear function at (m,) from its pieces (p,) and its values (p + 1,) at their ends.

    A sum of ramps is much faster than a search and a gather; written as a product it also compiles faster.
    """
    ramps = jnp.clip(at[:, None] - start, 0.0, length)
    return values[0] + jnp.dot(ramps, (values[1:] - values[:-1]) / length, precision="highest")


class Oracle(DeviceController):
    """Uses the multiplier and the exact tables of the lower bound: a yardstick that knows the statistics, no optimum.

    certificate  of the lower bound; filled in by the scheme's preparation
    """

    batched = True
    certificate: Certificate | None = None

    def init_fleet(self, devices: Device, views: DeviceView, keys: jax.Array) -> Tables:
        del devices, views, keys
        return required(self.certificate).tables

    def act(self, state: Tables, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        del key
        certificate = required(self.certificate)
        return planned(device, view, state.value, state.slope, certificate.discount, certificate.price)
