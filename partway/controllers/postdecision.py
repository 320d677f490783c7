"""Post-decision learning: near-optimal control of a device.

A device knows its energy and radio formulas. Only arrivals and fading are unknown, and they do not depend on its
action. It therefore counts how many tasks arrive and learns V(q), the value of a block that begins with q tasks.
U(m) = E V(m + A) is the value of m tasks left after the decision and before the arrivals A. Every observation updates
the whole table ("virtual experience"; N. Mastronarde, M. van der Schaar, IEEE Trans. Signal Process. 2011), so that no
exploration is needed.

The server does the same with the marginal value of its work, the price of `priced` (`partway.controllers.price`).

Legend: j tasks started, c(j, offload; h, price) their cost in this block (`partway.system.stage_cost`).
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.bound.certificate import Certificate, Tables
from partway.controllers.base import DeviceController, DeviceView, Limits, arrivals_between, required
from partway.pytree import record
from partway.system.equations import local_energy
from partway.system.stage_cost import best_cuts, column, table_value, where_least
from partway.system.types import Device, DeviceAction, Server

CRITERIA = frozenset({"objective", "average", "discounted"})
TABLE_LIMITS: Mapping[str, Limits] = {"criterion": CRITERIA, "decay": (0.0, 10.0), "min_step": (0.0, 1.0)}


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
        arrived = column(0, device.slots + 1, view.q) == jnp.sum(arrivals_between(device, view, next_view), axis=0)
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
    """`PostDecision` at the broadcast price: the cost at the server of a unit of work that is sent now."""

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


class Oracle(DeviceController):
    """Uses the multiplier and the exact tables of the lower bound. Knows the statistics; for reference, not an optimum.

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
