"""Q-learning with the function class of section V and its minimum; the rest is designed for this problem.

Kept: Q = theta . phi, M = 30 sigmoids of weighted sums of the inputs, the weights fixed in advance, (22), (23), (29),
(30); the minimum over the next action, (20), (21); what each party sees; learning online from its own cost. Ours:

  weights  each sigmoid is a step of a staircase, along a direction in which Q bends: at a device the work that is not
           sent, q - offload, at the server the work that is left, q_ser - f
  inputs   a device's are q, the share that p sends over h, and log(1 + cost of the radio energy); the server's are f,
           q_ser and how many devices have a task; both have a constant. Arrivals are in q already (T6)
  actions  a device: the powers that send 0, 1/8, .., 1 of a task over h; the server: a quarter to all of its queue
  tasks    (4), (14b) leave open how many whole tasks wait on (T5). As (20) says: those for which the energy now and
           gamma min_p Q after the block cost least
  start    theta such that Q is the cost of running at once what is not sent
  steps    recursive least squares instead of gradient steps; that of the constant feature is a mean over time

    e     = r + gamma min_a Q(s', a) - theta . phi                                      (24), (31) with the minimum
    g     = P phi / (1 + phi . P phi),  P <- P - g (P phi)^T,  P = prior diag(width^2) at first, 0 for the constant
    theta <- theta + g e;   theta_0 <- theta_0 + 2 / (1 + t) e / (1 - gamma),  where phi_0 = 1/2

Legend: `width` is that of a feature's step, in its input. Device axis last, as in `partway.controllers.postdecision`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import (
    DeviceController,
    DeviceView,
    Limits,
    ServerController,
    ServerView,
    arrivals_between,
    server_action,
    uniform,
)
from partway.controllers.features import typical_device_cost, typical_server_cost
from partway.controllers.parametric import step_size
from partway.dnn.cuts import nearest_affordable
from partway.pytree import record
from partway.system.equations import (
    affordable_bits,
    local_energy,
    most_startable,
    power_for,
    radio_energy,
    service_cost_coef,
)
from partway.system.stage_cost import column
from partway.system.types import ROUNDING, Device, DeviceAction, Server, ServerAction

SHARES = np.linspace(0.0, 1.0, 9)
"""A device chooses among the powers that send these fractions of a task over the present channel."""
FRACTIONS = np.linspace(0.25, 1.0, 16)
"""The server chooses which of these fractions of its queue it serves in a block: its queue stays bounded."""
RADIO_LIMIT = 20.0
"""No power costs more than this many typical blocks of the device (`typical_device_cost`)."""
PLANNED = 16
"""A device compares 0 to 15 tasks left; from a longer queue it starts as many as it can."""


class Staircase(NamedTuple):
    """Steps side by side along a direction x: feature i rises from 0 to 1 between lower_i and upper_i.

    direction  (inputs,) weights of the inputs in x         lower, upper  (steps,) edges of each step
    """

    direction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, direction: Sequence[float], edges: Sequence[float]) -> "Staircase":
        """The steps between neighbouring edges."""
        return cls(np.array(direction), np.array(edges[:-1]), np.array(edges[1:]))

    @property
    def width(self) -> np.ndarray:
        """(steps,)"""
        return self.upper - self.lower

    def weights(self) -> np.ndarray:
        """(steps, inputs + 1) mu or nu; the last column is for the constant.

        The sigmoid of 3 times the distance in widths: the slope of equal steps together is then right within 5 %.
        """
        slope = 3.0 / self.width
        return np.column_stack([np.outer(slope, self.direction), -slope * (self.lower + self.upper) / 2.0])

    def following(self, function: Callable[[jax.Array], jax.Array], like: jax.Array) -> jax.Array:
        """(steps, ...) parameters with which the steps add up to `function` of x >= 0; `like` (...) is any number."""
        lower, upper = (np.maximum(edge, 0.0).reshape(-1, *(1,) * like.ndim) for edge in (self.lower, self.upper))
        return function(jnp.asarray(upper, like.dtype)) - function(jnp.asarray(lower, like.dtype)) + 0.0 * like


def constant_and(staircases: Sequence[Staircase]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (M, inputs + 1) of all features, the first one constant, and their widths (M,), that of the first 0."""
    inputs = len(staircases[0].direction) + 1
    weights = np.concatenate([np.zeros((1, inputs)), *(each.weights() for each in staircases)])
    return weights, np.concatenate([[0.0], *(each.width for each in staircases)])


SENT = Staircase.of((0, 1, 0), (0, 1))
RADIO = Staircase.of((0, 0, 1), (-0.75, 0, 0.75, 1.5, 2.25, 3, 3.75))
UNSENT = Staircase.of((1, -1, 0), (*np.arange(-0.5, 15), 16.5, 18.5, 20.5, 24, 30, 40, 60))
MU, DEVICE_WIDTHS = constant_and((SENT, RADIO, UNSENT))
"""mu of a device's inputs: q, offload, log(1 + radio cost), 1."""

BUSY = Staircase.of((0, 0, 1), (0, 1))
SERVED = Staircase.of((1, 0, 0), (-0.2, 0, 0.2, 0.4, 0.6, 0.8, 1, 1.5, 3))
LEFT = Staircase.of((-1, 1, 0), (-0.1, 0, 0.1, 0.25, 0.5, 1, 2))
NEXT = Staircase.of((-1, 1, 1), (-0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 10, 16))
NU, SERVER_WIDTHS = constant_and((BUSY, SERVED, LEFT, NEXT))
"""nu of the server's inputs, all divided by K: its service in a block, its queue, the devices that have a task, 1."""


def feature(weights: np.ndarray, inputs: Sequence[jax.Array]) -> jax.Array:
    """(23), (30): one sigmoid of the weighted sum of the inputs (...) and the constant."""
    total = jnp.full_like(inputs[0], weights[-1])
    for weight, values in zip(weights[:-1].tolist(), inputs, strict=True):
        total = total + weight * values if weight else total
    return jax.nn.sigmoid(total)


def features(weights: np.ndarray, inputs: Sequence[jax.Array]) -> jax.Array:
    """phi (M, ...) at the inputs (...)."""
    return jnp.stack([feature(row, inputs) for row in weights])


def q_value(theta: jax.Array, weights: np.ndarray, inputs: Sequence[jax.Array]) -> jax.Array:
    """theta . phi (...); feature by feature, because XLA does not vectorise a sum over the first axis on a CPU."""
    return sum((theta[m] * feature(row, inputs) for m, row in enumerate(weights)), jnp.zeros((), theta.dtype))


@record
class LearnedState:
    """State of a learner; a fleet's has the device axis last.

    theta            (M,) parameters of Q
    spread           (M, M) P: how far theta may still be from what the costs say, in squared units of their noise
    block            t, blocks learned from
    relative_change  ||theta_(t+1) - theta_t|| / ||theta_t|| in the last block
    """

    theta: jax.Array
    spread: jax.Array
    block: jax.Array
    relative_change: jax.Array


LIMITS: Mapping[str, Limits] = {"prior": (0.0, 1e6), "explore": (0.0, 1.0), "decay": (0.0, 10.0)}


@record
class _LeastSquares:
    """Hyperparameters of both learners.

    prior    squared error of theta at first, per width^2, relative to the variance of e; 0: theta is not learned
    explore  in this fraction of the blocks, times (1 + t)^-decay, the action is random
    """

    prior: float = 1.0
    explore: float = 0.02
    decay: float = 0.6

    def first_state(self, theta: jax.Array, widths: np.ndarray) -> LearnedState:
        """The state before the first block."""
        zero = jnp.zeros_like(theta[0])
        spread = jnp.asarray(np.diag(widths**2), theta.dtype).reshape(*(len(widths),) * 2, *(1,) * zero.ndim)
        return LearnedState(theta, self.prior * spread + zero, zero, zero + jnp.inf)

    def choose(self, state: LearnedState, values: jax.Array, key: jax.Array) -> jax.Array:
        """Index of the smallest of the values (choices, ...), the first of equal ones, or now and then any."""

        def draws(key: jax.Array) -> jax.Array:
            return uniform(key, (2,), values.dtype)

        whether, which = jax.vmap(draws, out_axes=-1)(key) if key.ndim else draws(key)
        explores = whether < step_size(self.explore, self.decay, state.block)
        return jnp.where(explores, jnp.floor(which * values.shape[0]).astype(jnp.int32), jnp.argmin(values, axis=0))

    def update(
        self, state: LearnedState, phi: jax.Array, cost: jax.Array, after: jax.Array, discount: jax.Array
    ) -> LearnedState:
        """One step towards r + gamma min_a Q(s', a); phi (M, ...) of (s, a), `cost` r, `after` Q(s', a) of every a."""
        error = cost + discount * jnp.min(after, axis=0) - jnp.sum(state.theta * phi, axis=0)
        along = jnp.sum(state.spread * phi, axis=1)
        gain = along / (1.0 + jnp.sum(phi * along, axis=0))
        step = error * gain
        step = step.at[0].add(2.0 * error / ((1.0 - discount) * (1.0 + state.block)))
        change = jnp.linalg.norm(step, axis=0) / jnp.maximum(jnp.linalg.norm(state.theta, axis=0), 1e-30)
        return LearnedState(state.theta + step, state.spread - gain[:, None] * along, state.block + 1, change)


def chosen(values: jax.Array, index: jax.Array) -> jax.Array:
    """values[index] along the first axis."""
    return jnp.sum(jnp.where(column(0, values.shape[0], index) == index, values, 0.0), axis=0)


@record
class DesignedDeviceState:
    """State of a device: that of its learner, and the fractions (n + 1,) of the blocks in which 0..n tasks arrived."""

    learned: LearnedState
    arrive: jax.Array


class DesignedDevice(_LeastSquares, DeviceController):
    """A device chooses the power of least Q, and leaves as many whole tasks as costs least (see the module)."""

    batched = True
    limits = LIMITS
    weights: ClassVar[np.ndarray] = MU

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> DesignedDeviceState:
        del key
        unit = typical_device_cost(device)

        def run_at_once(work: jax.Array) -> jax.Array:
            """Cost of a block that begins with this work and runs it; work beyond f_max at the last marginal cost."""
            most = jnp.minimum(work, device.capacity)
            joules = local_energy(device, most) + 3.0 * device.energy_coef * device.capacity**2 * (work - most)
            return (device.queue_weight * work + device.energy_weight * joules) / unit

        theta = jnp.concatenate(
            [
                jnp.zeros_like(view.q)[None],
                SENT.following(lambda share: device.queue_weight / unit * share, view.q),
                RADIO.following(jnp.expm1, view.q),
                UNSENT.following(run_at_once, view.q),
            ]
        )
        arrive = jnp.where(column(0, device.slots + 1, view.q) == 0, 1.0, jnp.zeros_like(view.q))
        return DesignedDeviceState(self.first_state(theta, DEVICE_WIDTHS), arrive)

    def act(self, state: DesignedDeviceState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        values = self.values(state.learned.theta, device, view.gain, view.q[None])[:, 0]
        offload = chosen(self.offloads(device, view.gain), self.choose(state.learned, values, key))
        offload = jnp.where(view.q >= 1.0, offload, 0.0)
        return DeviceAction(self.started(state, device, view, offload), offload, power_for(device, view.gain, offload))

    def learn(
        self,
        state: DesignedDeviceState,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> DesignedDeviceState:
        phi = features(self.weights, self.inputs(device, view.gain, view.q, action.offload))
        after = self.values(state.learned.theta, device, next_view.gain, next_view.q[None])[:, 0]
        learned = self.update(state.learned, phi, cost / typical_device_cost(device), after, device.discount)
        arrived = column(0, device.slots + 1, view.q) == jnp.sum(arrivals_between(device, view, next_view), axis=0)
        arrive = state.arrive + (arrived - state.arrive) / (1.0 + state.learned.block)
        return DesignedDeviceState(learned, arrive)

    def relative_change(self, state: DesignedDeviceState) -> jax.Array:
        return state.learned.relative_change

    def offloads(self, device: Device, gain: jax.Array) -> jax.Array:
        """(choices, ...) fractions of a task to choose from, and with them the powers."""
        most = RADIO_LIMIT * typical_device_cost(device) / (device.energy_weight * device.slot_s)
        bits = affordable_bits(device, gain, jnp.minimum(most, device.tx_power_max_w))
        shares = jnp.asarray(SHARES, gain.dtype)
        return jax.vmap(lambda share: nearest_affordable(device.task, share + 0.0 * gain, bits))(shares)

    def inputs(self, device: Device, gain: jax.Array, q: jax.Array, offload: jax.Array) -> tuple[jax.Array, ...]:
        """q, offload and log(1 + radio cost), the radio cost in typical blocks of the device."""
        power = power_for(device, gain, offload)
        cost = device.energy_weight * radio_energy(device, power) / typical_device_cost(device)
        return q, offload, jnp.log1p(cost)

    def values(self, theta: jax.Array, device: Device, gain: jax.Array, q: jax.Array) -> jax.Array:
        """(choices, queues, ...) Q of every power at the queues (queues, ...); without a task none sends anything."""
        offload = self.offloads(device, gain)
        _, _, radio = jax.vmap(lambda share: self.inputs(device, gain, gain, share))(offload)
        sends = (q >= 1.0).astype(q.dtype)
        inputs = q + 0.0 * offload[:, None], sends * offload[:, None], sends * radio[:, None]
        return q_value(theta, self.weights, inputs)

    def started(self, state: DesignedDeviceState, device: Device, view: DeviceView, offload: jax.Array) -> jax.Array:
        """q - m for the m tasks left with the least energy of running the others + gamma U(m); U as in `left`."""
        remaining = column(0, PLANNED, view.q)
        local = view.q - offload - remaining
        energy = device.energy_weight * local_energy(device, local) / typical_device_cost(device)
        total = energy + device.discount * self.left(state, device, view.gain)
        total = jnp.where((local >= -ROUNDING) & (local <= device.capacity + ROUNDING), total, jnp.inf)
        planned = view.q - jnp.argmin(total, axis=0).astype(view.q.dtype)
        return jnp.where(jnp.isfinite(jnp.min(total, axis=0)), planned, most_startable(device, view.q, offload))

    def left(self, state: DesignedDeviceState, device: Device, gain: jax.Array) -> jax.Array:
        """(PLANNED, ...) U(m) = E min_p Q(m + arrivals, h, p), over the arrivals counted, at the gain of this block."""
        slots = device.slots
        queues = column(0, PLANNED + slots, gain)
        least = jnp.min(self.values(state.learned.theta, device, gain, queues), axis=0)
        return sum((state.arrive[a] * least[a : a + PLANNED] for a in range(slots + 1)), jnp.zeros(()))


class DesignedServer(_LeastSquares, ServerController):
    """The server chooses the fraction of its queue of least Q, at equal rates in all slots, and sees all queues."""

    sees_queues = True
    limits = LIMITS
    weights: ClassVar[np.ndarray] = NU

    def init(self, server: Server, view: ServerView, key: jax.Array) -> LearnedState:
        del key
        devices, unit, like = view.queues.shape[-1], typical_server_cost(server, view), view.backlog
        wait, run = server.queue_weight * devices / unit, service_cost_coef(server) * devices**3 / unit

        def kept(work: jax.Array) -> jax.Array:
            """Cost of work that waits for a block and is served as a whole in the next."""
            return wait * work + server.discount * (wait * work + run * work**3)

        theta = jnp.concatenate(
            [
                jnp.zeros_like(like)[None],
                BUSY.following(lambda busy: -wait * busy, like),
                SERVED.following(lambda work: wait * work + run * work**3, like),
                LEFT.following(jnp.zeros_like, like),
                NEXT.following(kept, like),
            ]
        )
        return self.first_state(theta, SERVER_WIDTHS)

    def act(self, state: LearnedState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        index = self.choose(state, self.values(state.theta, server, view), key)
        served = chosen(self.choices(server, view), index)
        return server_action(view, jnp.full((server.slots,), served / server.slots))

    def learn(
        self,
        state: LearnedState,
        server: Server,
        view: ServerView,
        action: ServerAction,
        cost: jax.Array,
        next_view: ServerView,
    ) -> LearnedState:
        phi = features(self.weights, self.inputs(view, jnp.sum(action.service_per_slot)))
        after = self.values(state.theta, server, next_view)
        return self.update(state, phi, cost / typical_server_cost(server, view), after, server.discount)

    def relative_change(self, state: LearnedState) -> jax.Array:
        return state.relative_change

    def choices(self, server: Server, view: ServerView) -> jax.Array:
        """(choices,) work to do in a block."""
        return jnp.minimum(
            jnp.asarray(FRACTIONS, view.backlog.dtype) * view.backlog, server.slots * server.slot_capacity
        )

    def values(self, theta: jax.Array, server: Server, view: ServerView) -> jax.Array:
        """(choices,) Q of every fraction of the queue."""
        return q_value(theta, self.weights, self.inputs(view, self.choices(server, view)))

    def inputs(self, view: ServerView, served: jax.Array) -> tuple[jax.Array, ...]:
        """The work done in a block (...), the queue, and the devices that have a task, all divided by K."""
        devices, busy = view.queues.shape[-1], jnp.mean(jnp.minimum(view.queues, 1.0))
        return served / devices, view.backlog / devices + 0.0 * served, busy + 0.0 * served
