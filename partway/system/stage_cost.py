"""What one block can cost a device: for every number j of tasks started, the cheapest cut of the last one.

    c(j) = min over o of  w4 [xi ((j - o) W)^3 / (n tau)^2 + tau p(o)] + price o W_ser
           over the cuts that f_max and the radio allow, with o <= 1 and (j - o) W <= n tau f_max;  c(0) = 0

o is the fraction offloaded. This is the inner problem of every controller that plans and of the exact solution
(`partway.bound.device_program`). Numbers of tasks and cuts come first in every shape, so that the same code serves one
device and, with the device axis last, a fleet: several times as fast on a CPU as mapping it over the devices.
"""

import jax
import jax.numpy as jnp

from partway.dnn.cuts import by_law
from partway.pytree import record
from partway.system.equations import LN2, affordable_bits, local_energy, spectral_efficiency
from partway.system.types import ROUNDING, Device

NEWTON_STEPS = 6
"""Newton steps to the best share under the paper's law: the share is then right to 1e-10, its cost to rounding."""


@record
class Choices:
    """For j = 0..max_tasks_per_block tasks started: `cost` (j,), infinite if impossible, `offload` (j,) of the cut."""

    cost: jax.Array
    offload: jax.Array


def radio_cost_of_cuts(device: Device) -> jax.Array:
    """(cuts,) w4 tau p h of (4) and (5): radio cost at a cut, but for the factor 1/h."""
    reach = jnp.expm1(LN2 * spectral_efficiency(device, device.task.bits))
    return device.energy_weight * device.slot_s * device.snr_gap * reach


def best_cuts(device: Device, gain: jax.Array, price: jax.Array | float) -> Choices:
    """c(j) over the cuts of the task's table, which for the paper's law is 33 even shares."""
    bits = affordable_bits(device, gain, device.tx_power_max_w)
    return at_table_cuts(device, 1.0 / gain, bits, price)


def at_table_cuts(device: Device, loss: jax.Array, max_bits: jax.Array, price: jax.Array | float) -> Choices:
    """c(j) over the table's cuts of at most `max_bits`; `loss` is 1/h [W]."""
    task = device.task
    sending = radio_cost_of_cuts(device) * loss + price * device.server_work * task.share
    sending = jnp.where(task.feasible & (task.bits <= max_bits), sending, jnp.inf)[:, None]
    share = task.share[:, None]
    local = column(1, device.max_tasks_per_block + 1, loss) - share
    running = device.energy_weight * local_energy(device, local)
    total = jnp.where(local <= device.capacity + ROUNDING, running + sending, jnp.inf)
    return _with_none(jnp.min(total, axis=0), where_least(total, share))


def exact_choices(device: Device, loss: jax.Array, max_bits: jax.Array, price: jax.Array | float) -> Choices:
    """c(j) from below over all shares under the paper's law; over the table's cuts elsewhere."""
    return by_law(
        device.task,
        lambda: _choices_on_line(device, loss, max_bits, price),
        lambda: at_table_cuts(device, loss, max_bits, price),
    )


def _choices_on_line(device: Device, loss: jax.Array, max_bits: jax.Array, price: jax.Array | float) -> Choices:
    """c(j) from below over all shares under the paper's law.

    The cost is convex in the share, so the minimum over an interval is the free one clipped to it, and the last tangent
    bounds it from below.
    """
    slope_of_radio = LN2 * spectral_efficiency(device, device.task.bits_per_task)
    radio = device.energy_weight * device.slot_s * device.snr_gap * loss
    started = column(1, device.max_tasks_per_block + 1, loss)
    per_share = price * device.server_work
    coef = 3.0 * device.energy_weight * device.energy_coef

    def marginal(offload: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the last bit of share costs in price and radio energy, and its derivative."""
        growing = radio * slope_of_radio * jnp.exp(slope_of_radio * offload)
        return per_share + growing, slope_of_radio * growing

    tiny = jnp.finfo(loss.dtype).tiny
    # where sending costs as much as running all tasks: right of the root of a convex increasing function
    ratio = (coef * started**2 - per_share) / jnp.maximum(radio * slope_of_radio, tiny)
    offload = jnp.clip(jnp.log(jnp.maximum(ratio, 1.0)) / slope_of_radio, 0.0, 1.0)
    for _ in range(NEWTON_STEPS):  # on started - offload = sqrt(marginal / coef): no double root if sending is free
        paid, growth = marginal(offload)
        local = jnp.sqrt(paid / jnp.maximum(coef, tiny))
        slope = 1.0 + growth / jnp.maximum(2.0 * coef * local, tiny)
        offload = jnp.clip(offload - (offload - started + local) / slope, 0.0, 1.0)
    low = jnp.maximum(started - device.capacity - ROUNDING, 0.0)
    high = jnp.minimum(1.0, max_bits / device.task.bits_per_task)
    offload = jnp.clip(offload, low, jnp.maximum(high, low))
    cost = device.energy_weight * local_energy(device, started - offload) + per_share * offload
    cost = cost + radio * jnp.expm1(slope_of_radio * offload)
    steepness = marginal(offload)[0] - coef * (started - offload) ** 2
    tangent = jnp.where(steepness > 0, steepness * (offload - low), -steepness * (high - offload))
    return _with_none(jnp.where(low <= high, cost - tangent, jnp.inf), offload)


def column(first: int, end: int, like: jax.Array) -> jax.Array:
    """first .. end - 1 on a new first axis, to be combined with arrays of the shape of `like`."""
    return jnp.arange(first, end, dtype=like.dtype).reshape(-1, *(1,) * like.ndim)


def _with_none(cost: jax.Array, offload: jax.Array) -> Choices:
    """With the choice to start no task, which costs nothing and sends nothing, in front."""
    nothing = jnp.zeros_like(cost[:1])
    return Choices(jnp.concatenate([nothing, cost]), jnp.concatenate([nothing, offload]))


def where_least(total: jax.Array, of: jax.Array) -> jax.Array:
    """The smallest `of` at the least `total` of the first axis; far faster on a CPU than argmin and a gather.

    A compiler may compute `total` twice and round it differently, so what differs by rounding alone counts as equal.
    """
    least, rounding = jnp.min(total, axis=0), 16.0 * jnp.finfo(total.dtype).eps
    nearly = jnp.maximum(least * (1.0 + rounding), least * (1.0 - rounding))  # which of them is larger: the sign says
    return jnp.min(jnp.where(total <= nearly, of, jnp.inf), axis=0)


def table_value(value: jax.Array, slope: jax.Array, left: jax.Array) -> jax.Array:
    """U at any numbers of tasks (any, ...): the table (states, ...), and `slope` a task beyond."""
    last = value.shape[0] - 1
    inside = jnp.take_along_axis(value, jnp.clip(left, 0, last).astype(jnp.int32), axis=0)
    return inside + jnp.maximum(left - last, 0.0) * slope
