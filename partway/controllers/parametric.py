"""Algorithms 1 and 2 of the paper: Q is linear in random sigmoids, and one gradient moves parameters AND action.

    phi_m(s, a) = sigmoid(mu_m . [s, a])        Q(s, a; theta) = theta . phi(s, a)           (22), (23); (29), (30)
    delta       = r + gamma Q(s', a; theta) - Q(s, a; theta)                                 (24); (31)
    a     <- a     - alpha_t d(delta^2)/da                                                   (26), (28a); (33), (35a)
    theta <- theta - alpha_t d(delta^2)/dtheta                                               (27), (28b); (34), (35b)

The numbers before the semicolon are a device's, those after it the server's, whose theta, mu and delta the paper calls
eta, nu and rho. The steps are to solve (25) and (32), min delta^2. (24) and (31) have the next action in the second Q;
here it is the same a (T14). None of these equations contains a minimum over actions (trap T3): for the Q-learning that
the text describes see `partway.controllers.qlearning`. `gradient = "exact"` is the derivative; `"printed"` is what
(26), (27), (33), (34) print (trap T2).

Legend: a is the transmit power p at a device (Algorithm 1), in units of `half_power`, and at the server the speeds
f_1..f_n of the slots (Algorithm 2), fractions of f_max. Both are of order one.
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
    arrivals_between,
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
    weights_of,
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
    "feature_weights": frozenset({"shared", "per_device"}),
    "feature_scale": (0.0, 1e6),
}
"""Values that hyperparameters of learners may have; step sizes outside (36) are possible, to see their effect."""
MAX_POWER = 1e4
"""Upper limit of the commanded power in its unit, half a task at mean gain: a whole one at a 300th of it.

It is ours, (28a) has none: `limit_power`."""


@record
class LearnerState:
    """State of one learner, or of a fleet, device axis last.

    theta            (M,) parameters of Q
    action           p, or f (n,), in units of order one
    block            t, blocks learned from
    relative_change  ||theta_(t+1) - theta_t|| / ||theta_t|| in the last block
    quiet            consecutive blocks with relative_change <= tolerance; at `patience` the learner has stopped
    mu               (M, 3 + n) weights of a device's features, if it has its own
    """

    theta: jax.Array
    action: jax.Array
    block: jax.Array
    relative_change: jax.Array
    quiet: jax.Array
    mu: jax.Array | None = None


def step_size(first: float | jax.Array, decay: float | jax.Array, block: jax.Array) -> jax.Array:
    """first / (1 + t)^decay. (36), sum alpha = inf and sum alpha^2 < inf, holds for 1/2 < decay <= 1."""
    # The maximum changes nothing; without it XLA would rewrite the quotient as a power of -decay.
    return first / jnp.maximum((1.0 + block) ** decay, 1.0)


Terms = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""(action, theta) -> r, Q(s, a), Q(s', a), of one learner () or of a fleet (K,)."""


def q_value(theta: jax.Array, phi: jax.Array) -> jax.Array:
    """Q = theta . phi, both (M,) of one learner or (M, K) of a fleet."""
    return jnp.sum(theta * phi, axis=0)


def gradients(
    terms: Terms, action: jax.Array, theta: jax.Array, discount: jax.Array, gradient: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(e, x, z): the derivative of delta^2 with respect to the action is e x, that with respect to theta e z.

    gradient  "exact": e = 2 delta, x = d delta/da, z = d delta/dtheta. "printed": the factor 2 is missing, and the sum
              in the derivative with respect to the action has the opposite sign. With phi' = phi(s', a):
              x = dr/da - sum_m theta_m mu_m [gamma phi'(1 - phi') - phi (1 - phi)]
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

    gradient     "exact" or "printed"
    features     M
    step, decay  alpha_0 and exponent of `step_size`, for inputs and actions of order one
    tolerance    eps: learning stops when the relative change of theta stays at or below it for `patience` blocks (T16)
    patience     1: at the first such block, as printed
    stop         False: learning never stops
    start_value  Q before the first block, in units of 1 / (1 - gamma), the discounted sum of one typical cost in every
                 block; not 0 (T16)
    feature_scale  standard deviation of the features' weights, mu or nu
    """

    gradient: str = "exact"
    features: int = 30
    step: float = 0.01
    decay: float = 0.6
    tolerance: float = 1e-3
    patience: int = 10
    stop: bool = True
    start_value: float = 1.0
    feature_scale: float = 1.0

    def initial_state(self, action: jax.Array, discount: jax.Array) -> LearnerState:
        """The state before the first block. All theta_m are equal; a feature is 1/2 on average."""
        zero = jnp.zeros_like(discount)
        each = 2.0 * self.start_value / (self.features * (1.0 - discount))
        theta = jnp.full((self.features, *jnp.shape(discount)), each, action.dtype)
        return LearnerState(theta, action, zero, zero + jnp.inf, zero)

    def update(self, state: LearnerState, terms: Terms, discount: jax.Array, limit: float | None) -> LearnerState:
        """One step of (28) or (35), the action kept in [0, limit]; none once the learner has stopped."""
        error, by_action, by_theta = gradients(terms, state.action, state.theta, discount, self.gradient)
        # error / t^decay rather than a product: XLA computes the result of a division once, not per use
        step = step_size(self.step * error, self.decay, state.block)
        theta = state.theta - step * by_theta
        relative_change = jnp.abs(step) * jnp.linalg.norm(by_theta, axis=0) / jnp.linalg.norm(state.theta, axis=0)
        quiet = jnp.where(relative_change <= self.tolerance, state.quiet + 1, 0.0)
        action = jnp.clip(state.action - step * by_action, 0.0, limit)
        learned = LearnerState(theta, action, state.block + 1, relative_change, quiet)
        stopped, before = self.stopped(state), replace(state, mu=None)
        after = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), learned, before)
        return replace(after, mu=state.mu)

    def stopped(self, state: LearnerState) -> jax.Array:
        """Whether the stopping rule has fired; from then on the action is constant, the output of the algorithm."""
        return jnp.asarray(self.stop) & (state.quiet >= self.patience)


class Algorithm1(_Learner, DeviceController):
    """A device learns one transmit power; `offload` follows from (4), `started` from the rule `most_startable` (T5).

    gradient     "exact": the cost charged, differentiated through offload(p), L(p) and q_(t+1)(p), with `started` held
                 constant (T14, T15). On a table of cuts offload(p) is a staircase of slope 0: the gradient is still
                 true, but p then acts through the features only, not through the cost.
                 "printed": r contains the commanded p, and neither L nor q_(t+1) depends on it
    start_power  p before the first block, in units of the power that sends half a task at mean gain (T11)
    limit_power  False: p has no upper end, as in (28a); True: it is at most 1e4 units
    feature_weights  "shared": all devices have the same mu; "per_device": each has its own, mu_k as printed
    mu           (M, 3 + n) weights of the features that all devices share; filled in by `setup`
    """

    batched = True
    limits = LEARNING_LIMITS
    start_power: float = 1.0
    limit_power: bool = True
    feature_weights: str = "shared"
    mu: jax.Array | None = None

    def setup(self, key: jax.Array, devices: Device) -> Self:
        return replace(self, mu=weights_of(self, "shared", key, devices))

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> LearnerState:
        state = self.initial_state(jnp.full_like(view.q, self.start_power), device.discount)
        return replace(state, mu=weights_of(self, "per_device", key, device))

    def act(self, state: LearnerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        del key
        power = state.action * self.power_unit(device)
        offload = self.offload(device, view, power)
        return DeviceAction(most_startable(device, view.q, offload), offload, power)

    def power_unit(self, device: Device) -> jax.Array:
        """The unit in which p is of order one [W] (T11)."""
        return half_power(device)

    def offload(self, device: Device, view: DeviceView, power: jax.Array) -> jax.Array:
        """The fraction of a task that is offloaded at this power [W]."""
        return share_for_power(device, view.gain, power)

    def learn(
        self,
        state: LearnerState,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> LearnerState:
        del cost
        limit = MAX_POWER if self.limit_power else None
        return self.update(state, self.terms(device, view, action, next_view, state.mu), device.discount, limit)

    def terms(
        self, device: Device, view: DeviceView, action: DeviceAction, next_view: DeviceView, mu: jax.Array | None = None
    ) -> Terms:
        """The terms of (24) as functions of p, in its unit, and theta; `action` is what happened, `mu` a device's."""
        own = required(self.mu if mu is None else mu)
        now, after = device_features(own, device, view), device_features(own, device, next_view)

        def terms(power: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            energy, next_q = self._consequences(device, view, action, next_view, power * self.power_unit(device))
            r = device.queue_weight * view.q + device.energy_weight * energy
            values = q_value(theta, now(power, view.q)), q_value(theta, after(power, next_q))
            return r / typical_device_cost(device), *values

        return terms

    def relative_change(self, state: LearnerState) -> jax.Array:
        return state.relative_change

    def _consequences(
        self, device: Device, view: DeviceView, action: DeviceAction, next_view: DeviceView, power: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(energy [J], next queue) as functions of the power [W], in the sense of `gradient`."""
        if self.gradient == "printed":
            local = local_energy(device, local_work(action))
            return local + radio_energy(device, power), next_view.q
        share = self.offload(device, view, power)
        # not a minimum, whose slope is half that of the share where both are 0: without a task no power sends anything
        offload = jnp.where(share < action.started, share, action.started)
        caused, arrived = replace(action, offload=offload), arrivals_between(device, view, next_view)
        return device_energy(device, view.gain, caused), next_device_queue(device, view.q, caused, arrived)


@record
class Algorithm2State:
    """State of Algorithm 2: that of its learner, and the weights of its features."""

    learned: LearnerState
    nu: ServerWeights


class Algorithm2(_Learner, ServerController):
    """The server learns the speeds of its n slots from its own queue and the devices' queues.

    gradient    "exact": differentiated through q_ser,(t+1)(f). At the kink of (6), where the service just empties the
                queue, the slope is 1/2, the mean of its two sides.
                "printed": (33) holds the next queue constant, which is the only term that rewards service
    start_rate  speed of every slot before the first block, as a fraction of f_max
    """

    sees_queues = True
    limits = LEARNING_LIMITS
    start_rate: float = 0.3

    def init(self, server: Server, view: ServerView, key: jax.Array) -> Algorithm2State:
        size, dtype = (self.features, view.queues.shape[-1], server.slots), view.backlog.dtype
        nu = ServerWeights.sample(key, *size, dtype, self.feature_scale)
        speeds = jnp.full((server.slots,), self.start_rate, view.backlog.dtype)
        return Algorithm2State(self.initial_state(speeds, server.discount), nu)

    def act(self, state: Algorithm2State, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        del key
        return server_action(view, state.learned.action * server.slot_capacity)

    def learn(
        self,
        state: Algorithm2State,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> Algorithm2State:
        del action, cost
        terms = self.terms(state, server, view, next_view)
        return replace(state, learned=self.update(state.learned, terms, server.discount, 1.0))

    def terms(self, state: Algorithm2State, server: Server, view: ServerView, next_view: ServerView) -> Terms:
        """The terms of (31) as functions of f, as fractions of f_max, and eta."""
        now, after = server_features(state.nu, view), server_features(state.nu, next_view)

        def terms(speeds: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            service = speeds * server.slot_capacity
            r = server.queue_weight * view.backlog + server.energy_weight * server_energy(server, service)
            next_backlog = next_view.backlog
            if self.gradient == "exact":
                next_backlog = next_server_queue(view.backlog, service, next_view.last_inflow)
            values = q_value(theta, now(speeds, view.backlog)), q_value(theta, after(speeds, next_backlog))
            return r / typical_server_cost(server, view), *values

        return terms

    def relative_change(self, state: Algorithm2State) -> jax.Array:
        return state.learned.relative_change
