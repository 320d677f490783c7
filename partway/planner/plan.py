"""The plan of one device: for every queue length and channel gain the tasks to start, the cut and the CPU rate.

The values of a plan come from the lower bound, which knows the statistics of the scenario, or from what `priced` has
learned. Legend as in `partway.system.equations`; x is the fading, the channel gain divided by its mean.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from partway.bound.lower_bound import Bound
from partway.controllers.base import DeviceView
from partway.controllers.block import received
from partway.controllers.postdecision import PostDecision, planned, value_left
from partway.errors import InputError
from partway.planner.context import DeviceContext
from partway.program_cache import kept_jit
from partway.pytree import cast_floats, host_array
from partway.simulation.rollout import Run
from partway.system.equations import data_rate, local_work
from partway.system.signalling import no_broadcast
from partway.system.types import Device, DeviceAction

FADING_QUANTILES = (0.05, 0.2, 0.5, 0.8, 0.95)
"""Channel gains of the printed plan: in this share of the blocks the gain is lower."""
QUEUE_LENGTHS = (1, 2, 3, 4, 6, 8)
"""Queue lengths of the printed plan."""


@dataclass(frozen=True)
class PlanRule:
    """The numbers that determine a decision.

    value     (states,) U, cost of the tasks that are left after the decision
    slope     increase of U per task beyond the table
    discount  gamma                       price  cost of a mean task sent to the server
    """

    value: np.ndarray
    slope: float
    discount: float
    price: float


@dataclass(frozen=True)
class PlanTable:
    """The decisions for all combinations of `queues` and `fading`; the other arrays have the shape (queues, fading).

    queues   (queues,) tasks waiting      fading  (fading,) x
    started  tasks to start               cut     number in the profile of the cut of the last one
    offload  fraction of it to offload    bits    to send [bit]        cpu_hz  CPU rate [Hz]
    """

    queues: np.ndarray
    fading: np.ndarray
    started: np.ndarray
    cut: np.ndarray
    offload: np.ndarray
    bits: np.ndarray
    cpu_hz: np.ndarray


def exact_rule(target: DeviceContext, bound: Bound) -> PlanRule:
    """The rule with the price and the table of the lower bound."""
    tables, price, discount = bound.certificate.tables, bound.certificate.price, bound.certificate.discount
    value, slope = np.asarray(tables.value)[:, target.index], float(np.asarray(tables.slope)[target.index])
    return PlanRule(value, slope, float(discount), float(price))


def learned_rule(target: DeviceContext, simulated: Run) -> PlanRule:
    """The rule that a run of `priced` has learned, averaged over its seeds; raises InputError if it is not finite."""
    controller, carry = simulated.pair.device, simulated.carry
    assert isinstance(controller, PostDecision)
    by_seed = np.asarray(jax.vmap(value_left)(carry.device_state), np.float64)[..., target.index]
    value, price = by_seed.mean(axis=0), float(np.mean(carry.server_state.mean_price))
    if not (np.isfinite(value).all() and np.isfinite(price)):
        raise InputError(
            "no plan: what priced has learned is not finite in float32; check the scenario's rates, weights"
        )
    return PlanRule(value, float(value[-1] - value[-2]), float(controller.discount(target.device)), price)


def plan_table(target: DeviceContext, rule: PlanRule, queues: np.ndarray, fading: np.ndarray) -> PlanTable:
    """The decisions of the rule for every queue length (queues,) and fading (fading,)."""
    with jax.enable_x64(True):
        device = cast_floats(target.device, "float64", host_array)
        numbers = (rule.value, rule.slope, rule.discount, rule.price, queues, fading)
        action = _decisions(device, *(np.asarray(each, np.float64) for each in numbers))
    started, offload = np.asarray(action.started), np.asarray(action.offload)
    rows, local = target.rows(offload), np.asarray(local_work(action))
    bits = np.asarray(target.device.task.bits)[rows]
    return PlanTable(queues, fading, started, target.cuts[rows], offload, bits, target.cpu_hz(local))


@kept_jit()
def _decisions(
    device: Device,
    value: jax.Array,
    slope: jax.Array,
    discount: jax.Array,
    price: jax.Array,
    queues: jax.Array,
    fading: jax.Array,
) -> DeviceAction:
    """The actions (queues, fading)."""

    def decide(queue: jax.Array, x: jax.Array) -> DeviceAction:
        nothing = received(PostDecision(), no_broadcast(1, queue.dtype))
        view = DeviceView(queue, x * device.mean_gain, jnp.zeros(device.slots), nothing)
        return planned(device, view, value, slope, discount, price)

    return jax.vmap(jax.vmap(decide, in_axes=(None, 0)), in_axes=(0, None))(queues, fading)


def max_efficiency(target: DeviceContext, fading: np.ndarray) -> np.ndarray:
    """[bit/s/Hz] spectral efficiency at full transmit power; NaN without a power limit."""
    device = target.device
    if np.isinf(device.tx_power_max_w):
        return np.full(fading.shape, np.nan)
    with jax.enable_x64(True):
        return np.asarray(_rate_at_full_power(device, fading)) / device.bandwidth_hz


@kept_jit()
def _rate_at_full_power(device: Device, fading: jax.Array) -> jax.Array:
    return data_rate(device, fading * device.mean_gain, device.tx_power_max_w)


def printed_plan(target: DeviceContext, rule: PlanRule) -> PlanTable:
    """The plan at QUEUE_LENGTHS and FADING_QUANTILES."""
    return plan_table(target, rule, np.array(QUEUE_LENGTHS), target.fading_quantile(FADING_QUANTILES))


def typical_plan(target: DeviceContext, rule: PlanRule) -> PlanTable:
    """The plan for one state: the mean channel gain, and as many tasks waiting as arrive in a block on average."""
    return plan_table(target, rule, np.array([max(1, round(target.arrivals_per_block))]), np.ones(1))
