"""The server that sets the price of `priced`: what one more unit of work sent to it will cost, learned block by block.

As the devices learn V (`partway.controllers.postdecision`), it learns u = dU/dx, the marginal value of leaving x work.

Legend: f the work that the server does in a block, E(f) its energy.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.controllers.base import Limits, ServerController, ServerView, server_action
from partway.controllers.postdecision import TABLE_LIMITS, minimises_average, table_step
from partway.pytree import record
from partway.system.equations import service_cost_coef
from partway.system.types import Server, ServerAction

SERVER_DISCOUNT = 0.9999
"""gamma of the server when the average cost is minimised: it learns slopes, which have no constant to subtract."""
UNHURRIED = 4.0
"""Blocks in which a server that has learned nothing would complete the work that waits."""


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
