"""The bandwidth from which offloading pays, for one waiting task and the channel gain at its mean.

    c(B) = min over the allowed cuts of
           w4 [xi ((1 - offload) W)^3 / (n tau)^2 + tau p(offload; B)] + price offload W_ser

Where the scenario gives a noise density, the noise power grows with the bandwidth, h(B) = h B_0 / B; where it gives a
total, h stays as it is. Either way more bandwidth never makes a cut more expensive, and both thresholds are unique.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.system.stage_cost import best_cuts
from partway.system.types import Device

MIN_HZ, MAX_HZ = 1e3, 1e12
"""Range of the search [Hz]."""
BISECTIONS = 60


@dataclass(frozen=True)
class BreakEven:
    """Bandwidths [Hz]; None if there is none up to MAX_HZ, MIN_HZ if it is that or less.

    offloading_hz  from which the best cut that sends something costs less than running the whole task locally
    all_remote_hz  from which sending the encoded input costs less than running the whole task locally
    """

    offloading_hz: float | None
    all_remote_hz: float | None


def break_even(device: Device, price: float, fixed_noise: bool = False) -> BreakEven:
    """Both bandwidths for one device (float64 constants).

    price        cost of a mean task sent to the server
    fixed_noise  whether the noise power is the same at every bandwidth
    """
    share = np.asarray(device.task.share)
    local = one_task_cost(device, price, float(device.bandwidth_hz), share == 0)

    def threshold(allowed: np.ndarray) -> float | None:
        return _threshold(lambda hertz: one_task_cost(device, price, hertz, allowed, fixed_noise) < local)

    return BreakEven(threshold(share > 0), threshold(share == 1))


def one_task_cost(
    device: Device, price: float, bandwidth_hz: float, allowed: np.ndarray | None = None, fixed_noise: bool = False
) -> float:
    """c(B), infinite if no cut is affordable; `allowed` (cuts,) selects the cuts, by default all."""
    with jax.enable_x64(True):
        feasible = jnp.ones(len(device.task.share), bool) if allowed is None else jnp.asarray(allowed)
        task = replace(device.task, feasible=feasible)
        gain = device.mean_gain * (1.0 if fixed_noise else device.bandwidth_hz / bandwidth_hz)
        changed = replace(device, bandwidth_hz=jnp.float64(bandwidth_hz), task=task)
        return float(_cost_of_one(changed, jnp.float64(gain), jnp.float64(price)))


@jax.jit
def _cost_of_one(device: Device, gain: jax.Array, price: jax.Array) -> jax.Array:
    return best_cuts(device, gain, price).cost[1]


def _threshold(pays: Callable[[float], bool]) -> float | None:
    """The bandwidth from which it pays, by bisection of its logarithm."""
    if not pays(MAX_HZ):
        return None
    if pays(MIN_HZ):
        return MIN_HZ
    low, high = MIN_HZ, MAX_HZ
    for _ in range(BISECTIONS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if pays(middle) else (middle, high)
    return high
