"""Q-learning on the paper's features, with the minimum over the next action that (24), (25) lack (trap T3).

    a_t    = argmin_a Q(s_t, a)                                                         the text, (20), (21)
    theta <- theta + alpha_t (r_t + gamma min_a Q(s_(t+1), a) - Q(s_t, a_t)) phi(s_t, a_t)

The paper does not mention exploration: in a fraction `explore` of the blocks the action is random (ours).
"""

from dataclasses import replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import (
    DeviceController,
    DeviceView,
    ServerController,
    ServerView,
    required,
    server_action,
    uniform,
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
from partway.controllers.parametric import LEARNING_LIMITS, step_size
from partway.pytree import record
from partway.system.equations import most_startable, share_for_power
from partway.system.types import Device, DeviceAction, Server, ServerAction

LEVELS = 16
POWERS = np.concatenate([[0.0], np.logspace(-2, 3, LEVELS)])
"""Powers to choose from, in units of `half_power`: 0, and 16 between a hundredth and a thousand."""
SHARES = np.array([0.0, 1.0])
"""Fractions that `Binary` chooses from: everything local, or one whole task to the server."""
SPEEDS = np.linspace(0.0, 1.0, LEVELS)
"""Speeds of the server to choose from, as fractions of f_max, the same in every slot of a block."""


@record
class QState:
    """State: theta (M,), the number of blocks learned from, and the relative change of theta in the last of them.

    mu  (M, 3 + n) weights of a device's features, if it has its own
    """

    theta: jax.Array
    block: jax.Array
    relative_change: jax.Array
    mu: jax.Array | None = None


@record
class _QLearner:
    """Hyperparameters of linear Q-learning; M is the paper's, the rest is ours (T9).

    features     M
    step, decay  alpha_0 and exponent of `step_size`
    explore      fraction of the blocks in which the action is random
    feature_scale  standard deviation of the features' weights, mu or nu
    """

    features: int = 30
    step: float = 0.1
    decay: float = 0.6
    explore: float = 0.05
    feature_scale: float = 1.0

    def initial_state(self, dtype: jnp.dtype) -> QState:
        """The state before the first block. All values are 0, below any cost, so that every action is tried."""
        zero = jnp.zeros((), dtype)
        return QState(jnp.zeros((self.features,), dtype), zero, zero + jnp.inf)

    def choose(self, values: jax.Array, key: jax.Array) -> jax.Array:
        """Index of the smallest value (ties: the first), or a random one in a fraction `explore` of the blocks."""
        key_whether, key_which = jax.random.split(key)
        explores = uniform(key_whether, (), values.dtype) < self.explore
        return jnp.where(explores, jax.random.randint(key_which, (), 0, values.shape[0], jnp.int32), jnp.argmin(values))

    def update(self, state: QState, phi: jax.Array, cost: jax.Array, after: jax.Array, discount: jax.Array) -> QState:
        """One step towards r + gamma min_a Q(s', a); `after` holds Q(s', a) of every action, `cost` is r."""
        error = cost + discount * jnp.min(after) - state.theta @ phi
        step = step_size(self.step, self.decay, state.block) * error * phi
        relative_change = jnp.linalg.norm(step) / jnp.maximum(jnp.linalg.norm(state.theta), 1e-30)
        return QState(state.theta + step, state.block + 1, relative_change, state.mu)


class QLearningDevice(_QLearner, DeviceController):
    """A device chooses one of 17 powers; `started` follows from the rule `most_startable` (T5).

    log_scaled  power and gain enter the features by their logarithms
    feature_weights  "shared": all devices have the same mu; "per_device": each has its own, mu_k as printed
    mu          (M, 3 + n) weights of the features that all devices share; filled in by `setup`
    """

    limits = LEARNING_LIMITS
    log_scaled: bool = False
    feature_weights: str = "shared"
    mu: jax.Array | None = None

    def setup(self, key: jax.Array, devices: Device) -> Self:
        return replace(self, mu=weights_of(self, "shared", key, devices))

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> QState:
        return replace(self.initial_state(view.q.dtype), mu=weights_of(self, "per_device", key, device))

    def act(self, state: QState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        index = self.choose(self._values(state, device, view), key)
        power = jnp.asarray(POWERS, view.q.dtype)[index] * half_power(device)
        offload = share_for_power(device, view.gain, power)
        return DeviceAction(most_startable(device, view.q, offload), offload, power)

    def learn(
        self,
        state: QState,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> QState:
        chosen = self._chosen(device, action)
        phi = device_features(self._weights(state), device, view, self.log_scaled)(chosen, view.q)
        after = self._values(state, device, next_view)
        return self.update(state, phi, cost / typical_device_cost(device), after, device.discount)

    def relative_change(self, state: QState) -> jax.Array:
        return state.relative_change

    def _weights(self, state: QState) -> jax.Array:
        return required(self.mu if state.mu is None else state.mu)

    def _choices(self) -> np.ndarray:
        return POWERS

    def _chosen(self, device: Device, action: DeviceAction) -> jax.Array:
        """The choice that led to an action, in the units of `_choices`. Raises ValueError if it has no power."""
        if action.power is None:
            raise ValueError("the action must contain the power that was commanded")
        return action.power / half_power(device)

    def _values(self, state: QState, device: Device, view: DeviceView) -> jax.Array:
        """Q(s, a) of every choice a."""
        features = device_features(self._weights(state), device, view, self.log_scaled)
        choices = jnp.asarray(self._choices(), view.q.dtype)
        return jax.vmap(lambda choice: state.theta @ features(choice, view.q))(choices)


class Binary(QLearningDevice):
    """Baseline of section VI: offload in {0, 1}, learned by the same Q-learning with `offload` in place of p (T10)."""

    def act(self, state: QState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        offload = jnp.asarray(SHARES, view.q.dtype)[self.choose(self._values(state, device, view), key)]
        return DeviceAction(most_startable(device, view.q, offload), offload)

    def _choices(self) -> np.ndarray:
        return SHARES

    def _chosen(self, device: Device, action: DeviceAction) -> jax.Array:
        return action.offload


@record
class QServerState:
    """State of the server's Q-learning: that of its learner, and the weights of its features, for one speed."""

    learned: QState
    nu: ServerWeights


class QLearningServer(_QLearner, ServerController):
    """The server chooses one of 16 speeds, the same in every slot, from its own queue and the devices' queues.

    log_scaled  its own queue enters the features by its logarithm
    """

    sees_queues = True
    limits = LEARNING_LIMITS
    log_scaled: bool = False

    def init(self, server: Server, view: ServerView, key: jax.Array) -> QServerState:
        size, dtype = (self.features, view.queues.shape[-1], 1), view.backlog.dtype
        return QServerState(self.initial_state(dtype), ServerWeights.sample(key, *size, dtype, self.feature_scale))

    def act(self, state: QServerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        speed = jnp.asarray(SPEEDS, view.backlog.dtype)[self.choose(self._values(state, view), key)]
        return server_action(view, jnp.full((server.slots,), speed * server.slot_capacity))

    def learn(
        self,
        state: QServerState,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> QServerState:
        speed = action.service_per_slot[:1] / server.slot_capacity
        phi = server_features(state.nu, view, self.log_scaled)(speed, view.backlog)
        after = self._values(state, next_view)
        scaled = cost / typical_server_cost(server, view)
        return replace(state, learned=self.update(state.learned, phi, scaled, after, server.discount))

    def relative_change(self, state: QServerState) -> jax.Array:
        return state.learned.relative_change

    def _values(self, state: QServerState, view: ServerView) -> jax.Array:
        """Q(s, a) of every speed a."""
        features = server_features(state.nu, view, self.log_scaled)
        speeds = jnp.asarray(SPEEDS, view.backlog.dtype)
        return jax.vmap(lambda speed: state.learned.theta @ features(speed[None], view.backlog))(speeds)
