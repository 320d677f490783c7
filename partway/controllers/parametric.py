"""Algorithms 1 and 2 of the paper: Q is linear in random sigmoids, and one gradient moves parameters AND action.

    phi_m(s, a) = sigmoid(mu_m . [s, a])        Q(s, a; theta) = theta . phi(s, a)
    delta       = r + gamma Q(s', a; theta) - Q(s, a; theta)                            (24), a held for both (T14)
    a     <- a     - alpha_t d(delta^2)/da                                              (25), (26), (28a), (33), (35)
    theta <- theta - alpha_t d(delta^2)/dtheta                                          (27), (28b), (34), (35)

There is no minimum over actions in it (trap T3): see `partway.controllers.qlearning` for the Q-learning that the text
describes. `gradient = "exact"` is the derivative; `"printed"` is what (26), (27), (33), (34) print (trap T2).
Legend: a is the power p at a device (Algorithm 1), the rates f at the server (Algorithm 2); both in units of order one.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self

import jax
import jax.numpy as jnp

from partway.controllers.base import (
    DeviceController,
    DeviceView,
    Limits,
    ServerController,
    ServerView,
    normal,
    required,
    server_action,
)
from partway.controllers.features import (
    ServerWeights,
    device_features,
    half_power,
    server_features,
    typical_device_cost,
    typical_server_cost,
)
from partway.pytree import record
from partway.system.equations import (
    device_energy,
    local_energy,
    local_work,
    most_startable,
    next_device_queue,
    next_server_queue,
    radio_energy,
    server_energy,
    share_for_power,
)
from partway.system.types import Device, DeviceAction, Server, ServerAction

LEARNING_LIMITS: Mapping[str, Limits] = {
    "gradient": frozenset({"exact", "printed"}),
    "features": (1, 10_000),
    "step": (0.0, 1e6),
    "decay": (0.0, 10.0),
    "tolerance": (0.0, 1e6),
    "patience": (1, 1_000_000),
    "start_value": (-1e6, 1e6),
    "start_power": (0.0, 1e4),
    "start_rate": (0.0, 1.0),
    "explore": (0.0, 1.0),
}
"""What the hyperparameters of learners may be; step sizes outside (36) are allowed, to see what they do."""
MAX_POWER = 1e4
"""Upper end of the commanded power, in units of `half_power` (ours): a whole task at a tenth of the mean gain."""


@record
class Learned:
    """Memory of one learner.

    theta   (M,) parameters of Q         action  p or f, in units of order one
    block   t, blocks learned from       change  ||theta_t+1 - theta_t|| / ||theta_t||
    quiet   blocks in a row with change <= tolerance; once it reaches `patience` the learner has stopped
    """

    theta: jax.Array
    action: jax.Array
    block: jax.Array
    relative_change: jax.Array
    quiet: jax.Array


def step_size(first: float | jax.Array, decay: float | jax.Array, block: jax.Array) -> jax.Array:
    """first / (1 + t)^decay. (36), sum alpha = inf and sum alpha^2 < inf, holds for 1/2 < decay <= 1."""
    return first / jnp.maximum((1.0 + block) ** decay, 1.0)  # never below 1: XLA would make a power -decay of it


Terms = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""(action, theta) -> r, Q(s, a), Q(s', a), of one learner or of each of a fleet (K,)."""


def q_value(theta: jax.Array, phi: jax.Array) -> jax.Array:
    """Q = theta . phi, both (M,) of one learner or (M, K) of a fleet."""
    return jnp.sum(theta * phi, axis=0)


def gradients(
    terms: Terms, action: jax.Array, theta: jax.Array, discount: jax.Array, gradient: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(e, x, z): the derivatives of delta^2, exact or as printed, are e x by the action and e z by theta.

    Exact: e = 2 delta, x = d delta/da, z = d delta/dtheta. Printed: the factor 2 is missing, and the sum in the
    derivative by the action has the opposite sign, phi' being phi(s', a):
    x = dr/da - sum_m theta_m mu_m [gamma phi'(1 - phi') - phi (1 - phi)].
    """
    factor, direction = (2.0, 1.0) if gradient == "exact" else (1.0, -1.0)

    def delta(a: jax.Array, parameters: jax.Array, sign: float = 1.0) -> jax.Array:
        r, now, after = terms(a, parameters)
        return r + sign * (discount * after - now)

    by_action = jax.grad(lambda a: jnp.sum(delta(a, theta, direction)))(action)
    by_theta = jax.grad(lambda parameters: jnp.sum(delta(action, parameters)))(theta)
    return factor * delta(action, theta), by_action, by_theta


@record
class _Learner:
    """Hyperparameters that Algorithms 1 and 2 share. M and eps are the paper's, the rest is ours (T9).

    gradient   "exact" or "printed"                      features  M
    step       alpha_0 on inputs and actions of order one, decay: its exponent, see `step_size`
    tolerance  eps: learning stops when the relative change of theta stays at or below it for `patience` blocks (T16)
    stop       False: keep learning for ever
    start_value  Q before the first block, in units of what costing one `usual_cost` for ever is worth; not 0 (T16)
    """

    gradient: str = "exact"
    features: int = 30
    step: float = 0.01
    decay: float = 0.6
    tolerance: float = 1e-3
    patience: int = 10
    stop: bool = True
    start_value: float = 1.0

    def fresh(self, action: jax.Array, discount: jax.Array) -> Learned:
        """Memory before the first block: all theta_m equal; a feature is 1/2 on average."""
        zero = jnp.zeros_like(discount)
        each = 2.0 * self.start_value / (self.features * (1.0 - discount))
        theta = jnp.full((self.features, *jnp.shape(discount)), each, action.dtype)
        return Learned(theta, action, zero, zero + jnp.inf, zero)

    def improve(self, state: Learned, terms: Terms, discount: jax.Array, most: float) -> Learned:
        """One step of (28) or (35), the action kept in [0, most]; none once the learner has stopped."""
        error, by_action, by_theta = gradients(terms, state.action, state.theta, discount, self.gradient)
        step = step_size(self.step * error, self.decay, state.block)  # what ends in a division XLA computes once
        theta = state.theta - step * by_theta
        relative_change = jnp.abs(step) * jnp.linalg.norm(by_theta, axis=0) / jnp.linalg.norm(state.theta, axis=0)
        quiet = jnp.where(relative_change <= self.tolerance, state.quiet + 1, 0.0)
        action = jnp.clip(state.action - step * by_action, 0.0, most)
        learned = Learned(theta, action, state.block + 1, relative_change, quiet)
        stopped = self.stopped(state)
        return jax.tree.map(lambda new, old: jnp.where(stopped, old, new), learned, state)

    def stopped(self, state: Learned) -> jax.Array:
        """Whether the stopping rule has fired; from then on the action is the algorithm's output, and constant."""
        return jnp.asarray(self.stop) & (state.quiet >= self.patience)


class Algorithm1(_Learner, DeviceController):
    """A device learns one transmit power; `offload` follows from (4), `whole` from the rule `most_startable` (T5).

    gradient "exact": the cost charged, differentiated through rest(p), L(p), q_(t+1)(p) with `whole` held (T14, T15).
    gradient "printed": r holds the commanded p, and neither L nor q_(t+1) is taken to depend on it.
    On a table of cuts rest(p) is a staircase, whose slope is 0: there the gradient of "exact" is true and sees p in the
    features only, not in the cost.
    start_power: p before the first block, in units of `half_power`.
    """

    batched = True
    limits = LEARNING_LIMITS
    start_power: float = 1.0
    mu: jax.Array | None = None

    def setup(self, key: jax.Array, devices: Device) -> Self:
        return replace(self, mu=normal(key, (self.features, 3 + devices.slots), devices.capacity.dtype))

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> Learned:
        del key
        return self.fresh(jnp.full_like(view.q, self.start_power), device.discount)

    def act(self, state: Learned, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        del key
        power = state.action * half_power(device)
        offload = share_for_power(device, view.gain, power)
        return DeviceAction(most_startable(device, view.q, offload), offload, power)

    def learn(
        self,
        state: Learned,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> Learned:
        del cost
        now = device_features(required(self.mu), device, view)
        after = device_features(required(self.mu), device, next_view)

        def terms(power: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            energy, next_q = self._consequences(device, view, action, next_view, power * half_power(device))
            r = device.queue_weight * view.q + device.energy_weight * energy
            values = q_value(theta, now(power, view.q)), q_value(theta, after(power, next_q))
            return r / typical_device_cost(device), *values

        return self.improve(state, terms, device.discount, MAX_POWER)

    def relative_change(self, state: Learned) -> jax.Array:
        return state.relative_change

    def _consequences(
        self, device: Device, view: DeviceView, action: DeviceAction, next_view: DeviceView, power: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(energy [J], next queue) as functions of the power [W], the way `gradient` says."""
        if self.gradient == "printed":
            local = local_energy(device, local_work(action))
            return local + radio_energy(device, power), next_view.q
        offload = jnp.minimum(share_for_power(device, view.gain, power), action.started)
        tied = replace(action, offload=offload)
        return device_energy(device, view.gain, tied), next_device_queue(device, view.q, tied, next_view.arrivals)


@record
class ServerLearned:
    """Memory of Algorithm 2: the learner, and its features' weights."""

    learned: Learned
    nu: ServerWeights


class Algorithm2(_Learner, ServerController):
    """The server learns the n rates of its slots from its own queue and the devices' queues.

    gradient "exact": differentiated through q_ser,(t+1)(f); at the kink of (6), where the rates just empty the queue,
    the slope is 1/2, the middle of its two sides. "printed": (33) holds the next queue fixed, the only term that
    rewards serving.
    start_rate: every slot's rate before the first block, as a share of f_max.
    """

    sees_queues = True
    limits = LEARNING_LIMITS
    start_rate: float = 0.3

    def init(self, server: Server, view: ServerView, key: jax.Array) -> ServerLearned:
        nu = ServerWeights.drawn(key, self.features, view.queues.shape[-1], server.slots, view.backlog.dtype)
        rates = jnp.full((server.slots,), self.start_rate, view.backlog.dtype)
        return ServerLearned(self.fresh(rates, server.discount), nu)

    def act(self, state: ServerLearned, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        del key
        return server_action(view, state.learned.action * server.slot_capacity)

    def learn(
        self,
        state: ServerLearned,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> ServerLearned:
        del action, cost
        now, after = server_features(state.nu, view), server_features(state.nu, next_view)

        def terms(rates: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            commanded = rates * server.slot_capacity
            r = server.queue_weight * view.backlog + server.energy_weight * server_energy(server, commanded)
            next_backlog = next_view.backlog
            if self.gradient == "exact":
                next_backlog = next_server_queue(view.backlog, commanded, next_view.last_inflow)
            values = q_value(theta, now(rates, view.backlog)), q_value(theta, after(rates, next_backlog))
            return r / typical_server_cost(server, view), *values

        return replace(state, learned=self.improve(state.learned, terms, server.discount, 1.0))

    def relative_change(self, state: ServerLearned) -> jax.Array:
        return state.learned.relative_change
