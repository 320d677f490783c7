"""Related work as rules: each weighs what the device knows against the server's last broadcast; only `Ans` learns.

`Myopic` and `Drift` choose how many tasks to start and the cut of the last one. The others choose a cut for the task at
the head of the queue, as their sources do, and start as many tasks as f_max allows (`most_startable`, trap T5). They
share, with all times in blocks:

  cuts     of the task's table that exist, can be afforded, and leave no more to the device than a block can run
  compute  (1 - offload) / (n tau f_max / W): the devices of the sources run at one clock, here f_max
  radio    in (4) sending always takes the whole slot, at the power that fits. What is weighed is the time that the bits
           would take at the power limit, or at 40 bit/s/Hz where that is less
  server   work / broadcast service rate. Service rate and backlog are 0 before the first broadcast, and the service
           rate of an idle server is 0 as well, since it is the work that is done. In both cases the time is taken as 0;
           otherwise no device would start to offload

A rule that divides the service rate among the devices (`Dads`, `Iao`) finds a server slow that receives little work. It
then offloads less, the broadcast rate falls, and it starts again once the rate is 0.

Under the proportional law a sum of times is linear in the fraction, except for the server's queue, which counts only if
something is sent. Its minimum is therefore at an end of the feasible range: all or nothing where both are feasible. On
the cut tables of real networks it can lie in between.
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

MIN_SERVICE = 0.01
"""Service [mean tasks a block] assumed of a server that does less, or nothing, although work waits."""
FIRST_HORIZON = 16.0
"""The number of frames that `Ans` expects at first (ours)."""


def possible_cuts(device: Device, view: DeviceView) -> jax.Array:
    """(cuts,) bool: the cut exists, can be afforded, and the rest of the head task can be run in a block."""
    task, head = device.task, jnp.minimum(view.q, 1.0)
    affordable = task.bits <= affordable_bits(device, view.gain, device.tx_power_max_w)
    return task.feasible & affordable & (task.share <= head) & (head - task.share <= device.capacity + ROUNDING)


def choose_cut(device: Device, view: DeviceView, possible: jax.Array, objective: jax.Array) -> DeviceAction:
    """The `possible` cut of least `objective`, both (cuts,), ties to the smaller fraction; offload 0 if none is."""
    best = jnp.argmin(jnp.where(possible, objective, jnp.inf))
    return start_most(device, view, jnp.where(jnp.any(possible), device.task.share[best], 0.0))


def choose_tasks(view: DeviceView, choices: Choices, objective: jax.Array) -> DeviceAction:
    """Start the j of least `objective` (max_tasks_per_block + 1,) among those that wait, the last at its best cut.

    Ties, including differences that only rounding makes, go to the larger j.
    """
    started = jnp.arange(objective.shape[0], dtype=objective.dtype)
    objective = jnp.where(started <= view.q, objective, jnp.inf)
    least = jnp.min(objective)
    nearly = least + 16.0 * jnp.finfo(objective.dtype).eps * jnp.abs(least)
    best = jnp.max(jnp.where(objective <= nearly, started, 0.0))
    return DeviceAction(started=best, offload=jnp.max(jnp.where(started == best, choices.offload, 0.0)))


def radio_blocks(device: Device, gain: jax.Array, bits: jax.Array) -> jax.Array:
    """Time to send `bits` [blocks]; at most one slot, into which everything that can be sent fits."""
    bits_per_slot = jnp.maximum(affordable_bits(device, gain, device.tx_power_max_w), 1.0)
    return jnp.minimum(bits / bits_per_slot, 1.0) / device.slots


def server_blocks(work: jax.Array, ahead: jax.Array, service: jax.Array) -> jax.Array:
    """Time [blocks] of a server that does `service` a block for `work` behind `ahead` [mean tasks]; 0 for no work.

    A server that does nothing while nothing waits, up to rounding, does not reveal its speed: its time is taken as 0.
    """
    known = (service > ROUNDING) | (ahead > ROUNDING)
    return jnp.where((work > 0) & known, (ahead + work) / jnp.maximum(service, MIN_SERVICE), 0.0)


def queueing_blocks(device: Device, view: DeviceView, offload: jax.Array) -> jax.Array:
    """Time [blocks] at a first-come-first-served server, behind the [backlog - service]^+ that (6) leaves in front."""
    service = view.broadcast.service_rate
    return server_blocks(offload * device.server_work, jnp.maximum(view.broadcast.backlog - service, 0.0), service)


def latencies(device: Device, view: DeviceView, at_server: jax.Array) -> jax.Array:
    """(cuts,) compute + radio + `at_server` (cuts,) [blocks]."""
    compute = (1.0 - device.task.share) / device.capacity
    return compute + radio_blocks(device, view.gain, device.task.bits) + at_server


def head_energies(device: Device, view: DeviceView) -> jax.Array:
    """(cuts,) xi f_max^2 (1 - offload) W to run a task at f_max and tau p to send its cut [J]: (2), (4), (5)."""
    running = device.energy_coef * device.capacity**2 * (1.0 - device.task.share)
    return running + device.slot_s * transmit_power(device, view.gain, device.task.bits)


class Myopic(DeviceController):
    """Least cost of this block and of the tasks it leaves: c(j, offload) + w3 W (q - j).

    One step of dynamic programming (D. P. Bertsekas, "Dynamic Programming and Optimal Control"), in which a task left
    over has the value w3 W, the cost of one block of waiting. It uses no broadcast: the server's work is free. It is
    unstable where running a second task costs more than that. The cost has a cube and an exponential, so cuts lie
    inside the range under either law.
    """

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        choices = best_cuts(device, view.gain, 0.0)
        return choose_tasks(
            view, choices, choices.cost - device.queue_weight * jnp.arange(device.max_tasks_per_block + 1)
        )


class Drift(DeviceController):
    """Least V c(j, offload) / (w3 W) - q j + (backlog / K) offload W_ser: Lyapunov drift plus V times the penalty.

    Y. Mao, J. Zhang, S. H. Song, K. B. Letaief, "Stochastic Joint Radio and Computational Resource Management for
    Multi-User Mobile-Edge Computing Systems", IEEE Trans. Wireless Commun., 2017 (arXiv 1702.00892). Its queues hold
    bits. Here a device's queue holds tasks, and the server has one queue for all devices, broadcast with a delay, which
    enters the Lyapunov function as backlog^2 / K; before the first broadcast it counts as empty. The penalty is the
    energy in units of w3 W, what a task costs that waits for a block: V does not depend on the unit of costs. Cuts lie
    inside the range under either law.

    v  V, the weight of energy against waiting (ours: 0.5 costs least in `paper`, 0.7 to 1 in `ocr`; 0.7 is within 3 %
       of the least in both)
    """

    uses_broadcast = ("backlog",)
    limits: ClassVar[Mapping[str, Limits]] = {"v": (1e-6, 1e6)}
    v: float = 0.7

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        unit = device.queue_weight  # multiplied rather than divided by: it may be 0
        choices = best_cuts(device, view.gain, unit * view.broadcast.backlog / device.fleet_size / self.v)
        started = jnp.arange(device.max_tasks_per_block + 1)
        return choose_tasks(view, choices, self.v * choices.cost - unit * view.q * started)


class Neurosurgeon(DeviceController):
    """The cut of least latency for the head task.

    Y. Kang et al., "Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge", ASPLOS 2017: for every
    cut the times of device, radio and loaded server, predicted by regression, are added. Here the times are formulas,
    and the load is that of the last broadcast. All or nothing under the proportional law.
    """

    uses_broadcast = ("service_rate", "backlog")

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        latency = latencies(device, view, queueing_blocks(device, view, device.task.share))
        return choose_cut(device, view, possible_cuts(device, view), latency)


class NeurosurgeonEnergy(DeviceController):
    """The other mode of Neurosurgeon (Kang et al. 2017): the cut of least device energy for the head task, at f_max.

    It uses no broadcast. Not all or nothing under the proportional law, where radio energy is exponential.
    """

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        return choose_cut(device, view, possible_cuts(device, view), head_energies(device, view))


class Dads(DeviceController):
    """The cut whose slowest stage (compute, radio or server) is fastest, which maximises the throughput of a stream.

    C. Hu, W. Bao, D. Wang, F. Liu, "Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge", INFOCOM 2019,
    under heavy load; its minimum cut of a graph is here a search of the cut table. Its server has one user, this one
    has K: the server stage runs at service rate / K. Under the proportional law the stages are balanced, so it is not
    all or nothing.
    """

    uses_broadcast = ("service_rate",)

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        task, service = device.task, view.broadcast.service_rate / device.fleet_size
        at_server = server_blocks(task.share * device.server_work, jnp.zeros_like(service), service)
        own = jnp.maximum((1.0 - task.share) / device.capacity, radio_blocks(device, view.gain, task.bits))
        return choose_cut(device, view, possible_cuts(device, view), jnp.maximum(own, at_server))


@record
class AnsState:
    """State of `Ans`; theta = A^-1 b.

    inverse   (4, 4) A^-1        frame    frames so far
    weighted  (4,) b             horizon  T, the number of frames expected
    """

    inverse: jax.Array
    weighted: jax.Array
    frame: jax.Array
    horizon: jax.Array


class Ans(DeviceController):
    """LinUCB: least own compute + theta . x - alpha sqrt(x A^-1 x), theta learned from the delays of what was sent.

    L. Zhang, L. Chen, J. Xu, "Autodidactic Neurosurgeon: Collaborative Deep Inference for Mobile Edge Intelligence via
    Online Learning", WWW 2021. Running everything locally teaches nothing, so every ceil(T^sampling)-th frame must
    offload. A frame is a block in which a task is started; T, unknown, is doubled when it is reached (ours); there are
    no key frames. The x of the source describes layers and bits; here the channel is known and all layers are alike,
    see `contexts`. The delay is that of the radio plus that of the server, computed from the broadcast that has arrived
    when the block ends, which is `broadcast_delay_blocks` blocks old. It is nearly linear in the fraction under the
    proportional law, so that but for alpha the rule is all or nothing.

    alpha     optimism, sufficient for |theta| up to alpha / sqrt(ridge) = 0.3 blocks, a task's own compute (ours). At
              an alpha of 0.3 all devices of `paper` oscillate together
    ridge     A is ridge times the identity at first (ours)
    sampling  exponent of the forced frames
    """

    uses_broadcast = ("service_rate", "backlog")
    limits: ClassVar[Mapping[str, Limits]] = {"alpha": (0.0, 1e3), "ridge": (1e-6, 1e6), "sampling": (0.0, 1.0)}
    alpha: float = 0.1
    ridge: float = 0.1
    sampling: float = 0.25

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> AnsState:
        zero = jnp.zeros_like(view.q)
        return AnsState(jnp.eye(4, dtype=zero.dtype) / self.ridge, jnp.zeros(4, zero.dtype), zero, zero + FIRST_HORIZON)

    def act(self, state: AnsState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        task, possible = device.task, possible_cuts(device, view)
        x = contexts(device, view, task.share, task.bits)
        doubt = jnp.sqrt(jnp.maximum(jnp.sum(x @ state.inverse * x, axis=-1), 0.0))
        delay = x @ (state.inverse @ state.weighted) - self.alpha * doubt
        forced = (state.frame + 1.0) % jnp.ceil(state.horizon**self.sampling - ROUNDING) == 0
        sending = possible & (task.share > 0)
        candidates = jnp.where(forced & jnp.any(sending), sending, possible)
        return choose_cut(device, view, candidates, (1.0 - task.share) / device.capacity + delay)

    def learn(
        self,
        state: AnsState,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> AnsState:
        """A += x x^T, by its inverse (Sherman and Morrison), and b += delay x; x = 0 where nothing was sent."""
        bits = sent_bits(device.task, action.offload)
        x = contexts(device, view, action.offload[None], bits[None])[0]
        delay = radio_blocks(device, view.gain, bits) + queueing_blocks(device, next_view, action.offload)
        along = state.inverse @ x
        inverse = state.inverse - along[:, None] * along / (1.0 + jnp.maximum(x @ along, 0.0))
        frame = state.frame + jnp.where(action.started > 0, 1.0, 0.0)
        horizon = jnp.where(frame >= state.horizon, 2.0 * state.horizon, state.horizon)
        return AnsState(inverse, state.weighted + delay * x, frame, horizon)


def contexts(device: Device, view: DeviceView, offload: jax.Array, bits: jax.Array) -> jax.Array:
    """(cuts, 4) x: 1, work sent [mean tasks], radio time [slots], broadcast backlog / K; 0 where nothing is sent."""
    radio = device.slots * radio_blocks(device, view.gain, bits)
    one = jnp.ones_like(offload)
    x = jnp.stack([one, offload * device.server_work, radio, one * view.broadcast.backlog / device.fleet_size], axis=-1)
    return jnp.where(offload[:, None] > 0, x, 0.0)


class CoEdge(DeviceController):
    """The cut of least device energy that meets the deadline of a block; the fastest cut where none does.

    L. Zeng, X. Chen, Z. Zhou, L. Yang, J. Zhang, "CoEdge: Cooperative DNN Inference With Adaptive Workload Partitioning
    Over Heterogeneous Edge Devices", IEEE/ACM Trans. Netw., 2021. Its split among peers is here one fraction for one
    server, and each stage has a block: f_max for the device's part, a radio slot, the server for what it receives. The
    energy is that of `NeurosurgeonEnergy`, and so is the choice wherever the deadline does not bind, as in all presets:
    cuts lie inside the range under either law.
    """

    uses_broadcast = ("service_rate", "backlog")

    def act(self, state: ControllerState, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        possible, at_server = possible_cuts(device, view), queueing_blocks(device, view, device.task.share)
        in_time = possible & (at_server <= 1.0)
        objective = jnp.where(jnp.any(in_time), head_energies(device, view), latencies(device, view, at_server))
        return choose_cut(device, view, jnp.where(jnp.any(in_time), in_time, possible), objective)
