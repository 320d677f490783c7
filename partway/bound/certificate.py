"""What the lower bound leaves behind: tables with which every block of any policy says how far it is from the bound.

With the bound's own tables, for any policy (docs/bound.md):

    J - bound = E average of [ sum_k (advantage_k + gamma surplus_k) + kappa (y - f) + psi(f) - psi* ],  every term >= 0

advantage_k: what the chosen action costs in device k's exact program more than its best one; surplus_k: by how much the
tables miss the tasks it leaves; f: work served;
psi(f) = w2 E + (w1 - lambda / gamma) f; kappa = w1 - lambda (1 - gamma) / gamma. Averages of these have intervals
that are some hundred times narrower than those of the cost, and say where the loss is.
"""

import jax
import jax.numpy as jnp

from partway.pytree import record
from partway.system.equations import affordable_bits, device_energy, server_energy
from partway.system.stage_cost import column, exact_choices, table_value
from partway.system.types import Device, DeviceAction, Server


@record
class Tables:
    """A device's exact program at a price, gamma being 1 for the average cost.

    value     (S,) U(m), the value of m tasks left; beyond it U goes on with `slope`
    surplus   (S + most,) (T U - U)(m) - min (T U - U) >= 0; beyond it grows by `slope_of_surplus` a task
    certificate  min (T U - U): g, or (1 - gamma) times what has to be added to U to make it a bound
    """

    value: jax.Array
    slope: jax.Array
    surplus: jax.Array
    slope_of_surplus: jax.Array
    certificate: jax.Array


@record
class Certificate:
    """The bound's multiplier and tables.

    price    lambda [cost per mean task sent]   tables   of all devices, device axis last
    idle     psi*, the server's part at its best rate
    bound    on the average cost of a block, or on the discounted sum from empty queues
    discount gamma, 1 for the average cost
    """

    price: jax.Array
    tables: Tables
    server_dual_value: jax.Array
    bound: jax.Array
    discount: jax.Array


@record
class Losses:
    """Cost above the bound in one block, by where it is lost; each >= 0.

    devices  their choices        waiting  work left at the server        rate  what the server serves and commands
    """

    devices: jax.Array
    waiting: jax.Array
    service: jax.Array


def device_loss(
    device: Device, tables: Tables, certificate: Certificate, q: jax.Array, gain: jax.Array, action: DeviceAction
) -> jax.Array:
    """advantage + gamma surplus of the tasks left: 0 for what the exact program would do. Of one device, or (K,)."""
    discount, price = certificate.discount, certificate.price
    bits = affordable_bits(device, gain, device.tx_power_max_w)
    choices = exact_choices(device, 1.0 / gain, bits, price)
    left = q - column(0, device.max_tasks_per_block + 1, q)
    ahead = discount * table_value(tables.value, tables.slope, left)
    best = jnp.min(jnp.where(left >= 0, choices.cost + ahead, jnp.inf), axis=0)
    paid = device.energy_weight * device_energy(device, gain, action) + price * action.offload * device.server_work
    remaining = (q - action.started)[None]
    paid = paid + discount * table_value(tables.value, tables.slope, remaining)[0]
    surplus = table_value(tables.surplus, tables.slope_of_surplus, remaining)[0]
    return jnp.maximum(paid - best, 0.0) + discount * surplus


def waiting_loss(certificate: Certificate, server: Server, backlog: jax.Array, served: jax.Array) -> jax.Array:
    """kappa (backlog - f): work that waits at the server and is not served in this block."""
    discount = certificate.discount
    return (server.queue_weight - certificate.price * (1.0 - discount) / discount) * (backlog - served)


def service_loss(
    certificate: Certificate, server: Server, served: jax.Array, service_per_slot: jax.Array, block: jax.Array
) -> jax.Array:
    """psi(f) - psi*, the energy being that of the rates commanded. Before block 2 nothing can be there to serve."""
    discount = certificate.discount
    energy = server.energy_weight * server_energy(server, service_per_slot)
    server_dual_value = jnp.where((discount < 1) & (block < 2), 0.0, certificate.server_dual_value)
    return energy + (server.queue_weight - certificate.price / discount) * served - server_dual_value
