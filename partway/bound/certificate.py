"""The lower bound's certificate: tables by which the distance of any policy from the bound is measured block by block.

With the bound's own tables, for any policy (docs/bound.md, section 6):

    J - bound = E mean over blocks of
                [ sum_k (advantage_k + gamma surplus_k) + kappa (y - f) + psi(f) - psi* ],      every term >= 0

advantage_k is the value of the chosen action in device k's exact program minus that of the best one, surplus_k the
residual of its Bellman equation at the tasks that remain, y the server's backlog, f the work served;
psi(f) = w2 E + (w1 - lambda / gamma) f; kappa = w1 - lambda (1 - gamma) / gamma. The mean of these losses has an
interval about a hundred times narrower than that of the cost, and shows where the loss arises.
"""

import jax
import jax.numpy as jnp

from partway.pytree import record
from partway.system.equations import affordable_bits, device_energy, server_energy
from partway.system.stage_cost import column, exact_choices, table_value
from partway.system.types import Device, DeviceAction, Server


@record
class Tables:
    """A device's exact program at a price; gamma is 1 for the average cost.

    value        (S,) U(m), the value of m remaining tasks; beyond the table U continues with `slope`
    surplus      (S + max_tasks_per_block,) (T U - U)(m) - min (T U - U) >= 0; beyond the table it grows by
                 `slope_of_surplus` per task
    certificate  min (T U - U): the average cost g, or (1 - gamma) times what has to be added to U to make it a bound
    many         (Q,) by queue length: what it costs at least, with the value of the tasks that remain, to start more
                 than max_tasks_per_block tasks, in addition to c(max_tasks_per_block); beyond the table it grows by
                 `slope_of_many` per task. None where no CPU can run so many
    """

    value: jax.Array
    slope: jax.Array
    surplus: jax.Array
    slope_of_surplus: jax.Array
    certificate: jax.Array
    many: jax.Array | None = None
    slope_of_many: jax.Array | None = None


@record
class Certificate:
    """The bound's multiplier and tables.

    price              lambda [cost per mean task sent]
    tables             of all devices, device axis last
    server_dual_value  psi*, the server's part of the dual at its best service rate
    bound              on the average cost of a block, or on the discounted sum from empty queues
    discount           gamma, 1 for the average cost
    """

    price: jax.Array
    tables: Tables
    server_dual_value: jax.Array
    bound: jax.Array
    discount: jax.Array


def device_loss(
    device: Device, tables: Tables, certificate: Certificate, q: jax.Array, gain: jax.Array, action: DeviceAction
) -> jax.Array:
    """advantage + gamma surplus of the remaining tasks, of one device or (K,); 0 for the exact program's own action."""
    discount, price = certificate.discount, certificate.price
    bits = affordable_bits(device, gain, device.tx_power_max_w)
    choices = exact_choices(device, 1.0 / gain, bits, price)
    possible = q - column(0, device.max_tasks_per_block + 1, q)
    future = discount * table_value(tables.value, tables.slope, possible)
    best = jnp.min(jnp.where(possible >= 0, choices.cost + future, jnp.inf), axis=0)
    if tables.many is not None and tables.slope_of_many is not None:
        many = table_value(tables.many, tables.slope_of_many, q[None])[0]
        best = jnp.minimum(best, choices.cost[-1] + many)
    paid = device.energy_weight * device_energy(device, gain, action) + price * action.offload * device.server_work
    remaining = (q - action.started)[None]
    paid = paid + discount * table_value(tables.value, tables.slope, remaining)[0]
    surplus = table_value(tables.surplus, tables.slope_of_surplus, remaining)[0]
    return jnp.maximum(paid - best, 0.0) + discount * surplus


def waiting_loss(certificate: Certificate, server: Server, backlog: jax.Array, served: jax.Array) -> jax.Array:
    """kappa (y - f): work that waits at the server and is not served in this block."""
    discount = certificate.discount
    return (server.queue_weight - certificate.price * (1.0 - discount) / discount) * (backlog - served)


def service_loss(
    certificate: Certificate, server: Server, served: jax.Array, service_per_slot: jax.Array, block: jax.Array
) -> jax.Array:
    """psi(f) - psi*, with the energy of the service commanded.

    In blocks 0 and 1 there is nothing to serve yet, and of the discounted sum psi* counts from block 2 on.
    """
    discount = certificate.discount
    energy = server.energy_weight * server_energy(server, service_per_slot)
    least = jnp.where((discount < 1) & (block < 2), 0.0, certificate.server_dual_value)
    return energy + (server.queue_weight - certificate.price / discount) * served - least
