"""Related work as rules: each weighs what it knows against what it heard of the server; only `Ans` learns.

`Myopic` and `Drift` choose how many tasks to take up and the cut of the last one. The others choose a cut for the task
at the head of the queue, as their sources do, and take up as many tasks as f_max allows (`drain`, trap T5). They share

  cuts     of the task's table that exist, can be afforded, and leave no more to the device than a block can run
  compute  (1 - rest) / (n tau f_max / W) [blocks]: the sources' devices run at one clock, here f_max
  radio    [blocks]. In (4) sending always takes the slot, with the power that fits; weighed is the time the bits would
           take at the power limit, or at 40 bit/s/Hz where that is less
  server   work / rate heard [blocks]. Rate and backlog are 0 before the server has spoken, and the rate of an idle one
           is 0 too: it tells the work it does. Then nothing speaks against it and its time is 0, or nobody would start.

Who divides that rate among the devices (`Dads`, `Iao`) finds a server slow to which little is sent, sends less, hears
less, and starts again at silence. A sum of times is linear in the share under the proportional law, but for the
server's queue that is joined at all, and so least at an end of what is possible: all or nothing where both are. On the
tables of real networks the least one lies inside.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from partway.controllers.base import ControllerState, DeviceController, DeviceView, Limits
from partway.controllers.baselines import start_most
from partway.dnn.cuts import sent_bits
from partway.pytree import record
from partway.system.equations import affordable_bits, transmit_power
from partway.system.stage_cost import Choices, best_cuts
from partway.system.types import ROUNDING, Device, DeviceAction

LEAST_RATE = 0.01
"""A server that does less, or nothing though work waits, is taken to do this [mean tasks a block]."""
FIRST_HORIZON = 16.0
"""Frames that `Ans` takes for all there will be, at first (ours)."""


def possible_cuts(device: Device, view: DeviceView) -> jax.Array:
    """(cuts,) bool: exists, can be afforded, and what is left of the head task can be run in a block."""
    task, head = device.task, jnp.minimum(view.q, 1.0)
    affordable = task.bits <= affordable_bits(device, view.gain, device.tx_power_max_w)
    return task.feasible & affordable & (task.share <= head) & (head - task.share <= device.capacity + ROUNDING)


def take_cut(device: Device, view: DeviceView, possible: jax.Array, objective: jax.Array) -> DeviceAction:
    """Send the `possible` cut of least `objective`, both (cuts,), ties to the smaller share; none if none is."""
    best = jnp.argmin(jnp.where(possible, objective, jnp.inf))
    return start_most(device, view, jnp.where(jnp.any(possible), device.task.share[best], 0.0))


def take_tasks(view: DeviceView, choices: Choices, value: jax.Array) -> DeviceAction:
    """Take up the j of least `value` (most + 1,) among those that wait, the last at its best cut.

    Ties, and what only rounding tells apart, go to the more.
    """
    started = jnp.arange(value.shape[0], dtype=value.dtype)
    value = jnp.where(started <= view.q, value, jnp.inf)
    least = jnp.min(value)
    nearly = least + 16.0 * jnp.finfo(value.dtype).eps * jnp.abs(least)
    best = jnp.max(jnp.where(value <= nearly, started, 0.0))
    return DeviceAction(started=best, offload=jnp.max(jnp.where(started == best, choices.offload, 0.0)))


def radio_blocks(device: Device, gain: jax.Array, bits: jax.Array) -> jax.Array:
    """Time to send `bits`, at most a slot, which all that can be sent fits into [blocks]."""
    in_a_slot = jnp.maximum(affordable_bits(device, gain, device.tx_power_max_w), 1.0)
    return jnp.minimum(bits / in_a_slot, 1.0) / device.slots


def server_blocks(work: jax.Array, ahead: jax.Array, rate: jax.Array) -> jax.Array:
    """Time of a server that does `service_rate` a block for `work` behind `ahead` [mean tasks]; no work takes none.

    One that stands still with nothing to do, but for what rounding leaves, says nothing of itself: it is taken as fast.
    """
    known = (rate > ROUNDING) | (ahead > ROUNDING)
    return jnp.where((work > 0) & known, (ahead + work) / jnp.maximum(rate, LEAST_RATE), 0.0)


def queueing_blocks(device: Device, view: DeviceView, offload: jax.Array) -> jax.Array:
    """Time at a server that serves all in turn [blocks], behind [backlog - rate]^+, which (6) leaves when it joins."""
    rate = view.broadcast.service_rate
    return server_blocks(offload * device.server_work, jnp.maximum(view.broadcast.backlog - rate, 0.0), rate)


def latencies(device: Device, view: DeviceView, at_server: jax.Array) -> jax.Array:
    """(cuts,) compute + radio + `at_server` (cuts,) [blocks]."""
    compute = (1.0 - device.task.share) / device.capacity
    return compute + radio_blocks(device, view.gain, device.task.bits) + at_server


def head_energies(device: Device, view: DeviceView) -> jax.Array:
    """(cuts,) xi f_max^2 (1 - rest) W to run a task at f_max and tau p to send its cut [J]: (2), (4), (5)."""
    running = device.energy_coef * device.capacity**2 * (1.0 - device.task.share)
    return running + device.slot_s * transmit_power(device, view.gain, device.task.bits)


class Myopic(DeviceController):
    """Least cost of this block and of what it leaves: c(j, rest) + w3 W (q - j).

    One step of dynamic programming (D. P. Bertsekas, "Dynamic Programming and Optimal Control") with w3 W, one block of
    waiting, for the value of a task left. It hears nobody: what is sent is free. Unstable where running a second task
    costs more than that. c has a cube and an exponential: cuts lie inside under either law.
    """

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        choices = best_cuts(device, view.gain, 0.0)
        return take_tasks(
            view, choices, choices.cost - device.queue_weight * jnp.arange(device.max_tasks_per_block + 1)
        )


class Drift(DeviceController):
    """Least V c(j, rest) - q j + (backlog / K) rest W_ser: drift of the queues plus V times the penalty, energy.

    Y. Mao, J. Zhang, S. H. Song, K. B. Letaief, "Stochastic Joint Radio and Computational Resource Management for
    Multi-User Mobile-Edge Computing Systems", IEEE Trans. Wireless Commun., 2017 (arXiv 1702.00892). Its queues are of
    bits; here a device's is of tasks, and the server's is one for all, heard late, that enters the Lyapunov function as
    y^2 / K. Nothing heard is no pressure. Cuts lie inside under either law.

    v  V, of energy against waiting (ours: 0.5 costs least in `paper`, 0.7 to 1 in `ocr`, 0.7 within 3 % in both)
    """

    uses_broadcast = ("backlog",)
    limits: ClassVar[Mapping[str, Limits]] = {"v": (1e-6, 1e6)}
    v: float = 0.7

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        choices = best_cuts(device, view.gain, view.broadcast.backlog / device.fleet_size / self.v)
        return take_tasks(view, choices, self.v * choices.cost - view.q * jnp.arange(device.max_tasks_per_block + 1))


class Neurosurgeon(DeviceController):
    """The cut of least latency for the head task.

    Y. Kang et al., "Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge", ASPLOS 2017: the times
    of device, radio and loaded server, predicted by regression, are added for every cut. Here they are formulas and the
    load is what was heard. All or nothing under the proportional law.
    """

    uses_broadcast = ("service_rate", "backlog")

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        latency = latencies(device, view, queueing_blocks(device, view, device.task.share))
        return take_cut(device, view, possible_cuts(device, view), latency)


class NeurosurgeonEnergy(DeviceController):
    """The same authors' other mode: the cut of least device energy for the head task, at f_max.

    What was heard does not matter. Not all or nothing under the proportional law, where radio energy is exponential.
    """

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return take_cut(device, view, possible_cuts(device, view), head_energies(device, view))


class Dads(DeviceController):
    """The cut whose slowest stage, of compute, radio and server, is fastest, so that a stream of tasks flows fastest.

    C. Hu, W. Bao, D. Wang, F. Liu, "Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge", INFOCOM 2019,
    at heavy load; its minimum cut of a graph is a search of the table here. Its server has one user and this one K: the
    stage runs at rate / K. Under the proportional law the stages are balanced: not all or nothing.
    """

    uses_broadcast = ("service_rate",)

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        task, rate = device.task, view.broadcast.service_rate / device.fleet_size
        at_server = server_blocks(task.share * device.server_work, jnp.zeros_like(rate), rate)
        own = jnp.maximum((1.0 - task.share) / device.capacity, radio_blocks(device, view.gain, task.bits))
        return take_cut(device, view, possible_cuts(device, view), jnp.maximum(own, at_server))


@record
class Fit:
    """Memory of `Ans`: `inverse` (4, 4) A^-1 and `weighted` (4,) b, theta = A^-1 b; `frame`s seen; `horizon` T."""

    inverse: jax.Array
    weighted: jax.Array
    frame: jax.Array
    horizon: jax.Array


class Ans(DeviceController):
    """LinUCB: least own compute + theta . x - alpha sqrt(x A^-1 x), theta learned from the delays of what was sent.

    L. Zhang, L. Chen, J. Xu, "Autodidactic Neurosurgeon: Collaborative Deep Inference for Mobile Edge Intelligence via
    Online Learning", WWW 2021. Running all locally teaches nothing, so every ceil(T^sampling)-th frame must offload. A
    frame is a block that takes up a task; T, unknown, is doubled when it is reached (ours); none is a key frame. The
    source's x is of layers and bits; here the channel is known and all layers are alike, see `contexts`. The delay is
    the radio's, and the server's by what has been heard when the block ends, which is `broadcast_delay_blocks` blocks old. It is
    near linear in the share under the proportional law: all or nothing, but for alpha.

    alpha, ridge  (ours) optimism holds for |theta| up to alpha / sqrt(ridge) = 0.3 blocks, a task's own compute; A is
                  ridge times the identity at first. At an alpha of 0.3 all devices of `paper` swing together
    """

    uses_broadcast = ("service_rate", "backlog")
    limits: ClassVar[Mapping[str, Limits]] = {"alpha": (0.0, 1e3), "ridge": (1e-6, 1e6), "sampling": (0.0, 1.0)}
    alpha: float = 0.1
    ridge: float = 0.1
    sampling: float = 0.25

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> Fit:
        zero = jnp.zeros_like(view.q)
        return Fit(jnp.eye(4, dtype=zero.dtype) / self.ridge, jnp.zeros(4, zero.dtype), zero, zero + FIRST_HORIZON)

    def act(self, state: Fit, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        task, possible = device.task, possible_cuts(device, view)
        x = contexts(device, view, task.share, task.bits)
        doubt = jnp.sqrt(jnp.maximum(jnp.sum(x @ state.inverse * x, axis=-1), 0.0))
        delay = x @ (state.inverse @ state.weighted) - self.alpha * doubt
        forced = (state.frame + 1.0) % jnp.ceil(state.horizon**self.sampling - ROUNDING) == 0
        sending = possible & (task.share > 0)
        allowed = jnp.where(forced & jnp.any(sending), sending, possible)
        return take_cut(device, view, allowed, (1.0 - task.share) / device.capacity + delay)

    def learn(
        self,
        state: Fit,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> Fit:
        """A += x x^T, by its inverse (Sherman and Morrison), and b += delay x; x = 0 where nothing was sent."""
        bits = sent_bits(device.task, action.offload)
        x = contexts(device, view, action.offload[None], bits[None])[0]
        delay = radio_blocks(device, view.gain, bits) + queueing_blocks(device, next_view, action.offload)
        along = state.inverse @ x
        inverse = state.inverse - along[:, None] * along / (1.0 + jnp.maximum(x @ along, 0.0))
        frame = state.frame + jnp.where(action.started > 0, 1.0, 0.0)
        horizon = jnp.where(frame >= state.horizon, 2.0 * state.horizon, state.horizon)
        return Fit(inverse, state.weighted + delay * x, frame, horizon)


def contexts(device: Device, view: DeviceView, offload: jax.Array, bits: jax.Array) -> jax.Array:
    """(cuts, 4) x: 1, work sent [mean tasks], radio time [slots], backlog heard / K; 0 where nothing is sent."""
    radio = device.slots * radio_blocks(device, view.gain, bits)
    one = jnp.ones_like(offload)
    x = jnp.stack([one, offload * device.server_work, radio, one * view.broadcast.backlog / device.fleet_size], axis=-1)
    return jnp.where(offload[:, None] > 0, x, 0.0)


class CoEdge(DeviceController):
    """The cut of least energy of the device that meets the deadline of a block; the fastest one where none does.

    L. Zeng, X. Chen, Z. Zhou, L. Yang, J. Zhang, "CoEdge: Cooperative DNN Inference With Adaptive Workload Partitioning
    Over Heterogeneous Edge Devices", IEEE/ACM Trans. Netw., 2021. Its split among peers is one share to a server here,
    and each stage has a block: f_max for the device's part, a radio slot, the server for what it is sent. Energy is
    that of `NeurosurgeonEnergy`, and so is the choice wherever the deadline does not bind, as in all presets: cuts lie
    inside under either law.
    """

    uses_broadcast = ("service_rate", "backlog")

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        possible, at_server = possible_cuts(device, view), queueing_blocks(device, view, device.task.share)
        in_time = possible & (at_server <= 1.0)
        objective = jnp.where(jnp.any(in_time), head_energies(device, view), latencies(device, view, at_server))
        return take_cut(device, view, jnp.where(jnp.any(in_time), in_time, possible), objective)
