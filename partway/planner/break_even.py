"""How much bandwidth it takes until sending pays, for one waiting task and the channel at its mean.

    c(B) = min over the allowed cuts of  w4 [xi ((1 - rest) W)^3 / (n tau)^2 + tau p(rest; B)] + price rest W_ser

The density of the noise is kept, so that all of it grows with the bandwidth: h(B) = h B_0 / B. More bandwidth then
never makes a cut dearer, and what is cheaper from some bandwidth on stays so.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.system.stage_cost import best_cuts
from partway.system.types import Device

LEAST_HZ, MOST_HZ = 1e3, 1e12
"""Bandwidths between which is looked."""
HALVINGS = 60


@dataclass(frozen=True)
class BreakEven:
    """Bandwidths [Hz], None where there is none up to MOST_HZ; LEAST_HZ stands for that or less.

    sending_hz  from which the best cut that sends something costs less than running all of the task
    remote_hz   from which sending the encoded input costs less than running all of the task
    """

    sending_hz: float | None
    remote_hz: float | None


def one_task_cost(device: Device, price: float, bandwidth_hz: float, allowed: np.ndarray | None = None) -> float:
    """c(B), infinite where no cut can be afforded; `allowed` (cuts,) are the cuts to choose from, all if not given."""
    with jax.enable_x64(True):
        shares = device.task.share
        mask = np.ones(len(shares), bool) if allowed is None else allowed
        own = replace(
            device, bandwidth_hz=jnp.float64(bandwidth_hz), task=replace(device.task, feasible=jnp.asarray(mask))
        )
        gain = device.mean_gain * device.bandwidth_hz / bandwidth_hz
        return float(_cost_of_one(own, jnp.float64(gain), jnp.float64(price)))


@jax.jit
def _cost_of_one(device: Device, gain: jax.Array, price: jax.Array) -> jax.Array:
    return best_cuts(device, gain, price).cost[1]


def break_even(device: Device, price: float) -> BreakEven:
    """The two bandwidths of one device (float64 constants) at the price of a mean task sent."""
    share = np.asarray(device.task.share)
    local = one_task_cost(device, price, float(device.bandwidth_hz), share == 0)
    return BreakEven(_first(device, price, share > 0, local), _first(device, price, share == 1, local))


def _first(device: Device, price: float, allowed: np.ndarray, local: float) -> float | None:
    """The bandwidth where the cost over these cuts falls below `local`, by halving its logarithm."""

    def pays(bandwidth_hz: float) -> bool:
        return one_task_cost(device, price, bandwidth_hz, allowed) < local

    if not pays(MOST_HZ):
        return None
    if pays(LEAST_HZ):
        return LEAST_HZ
    low, high = LEAST_HZ, MOST_HZ
    for _ in range(HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if pays(middle) else (middle, high)
    return high
