"""The bandwidth from which offloading pays, for one waiting task and the channel gain at its mean.

    c(B) = min over the allowed cuts of
           w4 [xi ((1 - offload) W)^3 / (n tau)^2 + tau p(offload; B)] + price offload W_ser

Where the scenario gives a noise density, the noise power grows with the bandwidth, h(B) = h B_0 / B; where it gives a
total, h stays as it is. Either way more bandwidth never makes a cut more expensive, and both thresholds are unique.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from partway.program_cache import kept_jit
from partway.pytree import cast_floats, host_array
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
    with jax.enable_x64(True):
        allowed = np.stack([share > 0, share == 1])
        exact = cast_floats(device, "float64", host_array)
        found = _thresholds(exact, np.float64(price), share == 0, allowed, fixed_noise=fixed_noise)
    return BreakEven(*(float(hertz) if np.isfinite(hertz) else None for hertz in np.asarray(found)))


def _cost(device: Device, price: jax.Array, hertz: jax.Array, allowed: jax.Array, fixed_noise: bool) -> jax.Array:
    """c(B), infinite if no cut is affordable; `allowed` (cuts,) selects the cuts."""
    gain = device.mean_gain * (1.0 if fixed_noise else device.bandwidth_hz / hertz)
    changed = replace(device, bandwidth_hz=hertz, task=replace(device.task, feasible=allowed))
    return best_cuts(changed, gain, price).cost[1]


@kept_jit(static_argnames=["fixed_noise"])
def _thresholds(device: Device, price: jax.Array, local: jax.Array, allowed: jax.Array, fixed_noise: bool) -> jax.Array:
    """(rows,) the bandwidth from which the cuts of each row of `allowed` (rows, cuts) cost less than those of `local`.

    By bisection of its logarithm: infinite if there is none up to MAX_HZ, MIN_HZ if it is that or less.
    """
    least = _cost(device, price, device.bandwidth_hz, local, fixed_noise)

    def threshold(cuts: jax.Array) -> jax.Array:
        def pays(hertz: jax.Array) -> jax.Array:
            return _cost(device, price, hertz, cuts, fixed_noise) < least

        def halve(_: int, limits: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = limits
            middle = jnp.sqrt(low * high)
            enough = pays(middle)
            return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

        lowest, highest = jnp.float64(MIN_HZ), jnp.float64(MAX_HZ)
        _, high = jax.lax.fori_loop(0, BISECTIONS, halve, (lowest, highest))
        return jnp.where(pays(lowest), MIN_HZ, jnp.where(pays(highest), high, jnp.inf))

    return jax.vmap(threshold)(allowed)
