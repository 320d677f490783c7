"""TODO system.types."""

import jax

from partway.dnn.cuts import Task
from partway.pytree import record

ROUNDING = 1e-4
"""Slack [tasks] under which a device is taken to reach a whole number of tasks."""


@record
class Device:
    """A device's own constants, never a probability of its world. Coefficients are formed in float64 on the host.

    capacity       n tau f_max / W, most tasks a block can run
    energy_coef    xi W^3 / (n tau)^2 [J / task^3]
    queue_weight   w3 W, cost of a task waiting for a block
    energy_weight  w4 [1/J]
    server_work    W_ser,k, work of a whole task at the server [mean tasks of the fleet]
    mean_gain      h without fading [1/W]
    fleet_size     K, the devices that share the server
    discount, objective  gamma, and what is to be small: the "average" cost of a block or the "discounted" sum
    most           tasks the fastest device of the fleet can take up in a block, the last of them cut
    """

    capacity: jax.Array
    energy_coef: jax.Array
    queue_weight: jax.Array
    energy_weight: jax.Array
    server_work: jax.Array
    mean_gain: jax.Array
    snr_gap: jax.Array
    bandwidth_hz: jax.Array
    slot_s: jax.Array
    tx_power_max_w: jax.Array
    discount: jax.Array
    fleet_size: jax.Array
    task: Task
    slots: int
    max_tasks_per_block: int
    queue: str
    objective: str


@record
class Server:
    """The server's own constants; its unit of work is the fleet's mean task.

    slot_capacity  tau F / mean task, most work a slot can do
    energy_coef    xi_ser (mean task)^3 / tau^2 [J / work^3 and slot]
    queue_weight   w1 mean task, cost of one unit of work waiting for a block
    energy_weight  w2 [1/J]
    lag            blocks until devices hear what it says
    """

    slot_capacity: jax.Array
    energy_coef: jax.Array
    queue_weight: jax.Array
    energy_weight: jax.Array
    discount: jax.Array
    slots: int
    broadcast_delay_blocks: int
    objective: str


@record
class Broadcast:
    """What the server tells the devices once a block.

    price  cost of one more unit of work sent now       rate   work it does in this block
    backlog  work waiting                               share  (K,) of its rate, by device; each device hears its own
    """

    price: jax.Array
    service_rate: jax.Array
    backlog: jax.Array
    share: jax.Array


@record
class DeviceAction:
    """`whole` tasks left untouched, share `offload` of one task sent; `power` [W] where a controller commands a power.

    The world's action may differ from the one asked for (`feasible_action`).
    """

    whole: jax.Array
    offload: jax.Array
    power: jax.Array | None = None


@record
class ServerAction:
    """`service_per_slot` (n,) work in each slot [mean tasks], and what the devices are told."""

    service_per_slot: jax.Array
    broadcast: Broadcast


@record
class Exogenous:
    """What chance decides in one block: `arrivals` (n, K) 0 or 1 in each slot; `gain` (K,) of the next block."""

    arrivals: jax.Array
    gain: jax.Array


@record
class State:
    """The system at the start of block t. The server's block t runs n + 1 slots after the devices' block t (Fig. 2).

    q        (K,) tasks waiting; integers while the queue is conserving
    gain     (K,) h of this block
    arrivals (n, K) of the block just ended, already in q (trap T6)
    y        work waiting at the server
    arrived  the part of y that the last block brought
    told     Broadcast with axis (lag,) first: what the server said in the last `broadcast_delay_blocks` blocks, oldest first
    """

    q: jax.Array
    gain: jax.Array
    arrivals: jax.Array
    backlog: jax.Array
    arrived: jax.Array
    broadcast_queue: Broadcast


@record
class Costs:
    """(8) by party and kind, before summing over devices: the two kinds of parts of (13)."""

    server_queue: jax.Array
    server_energy: jax.Array
    device_queue: jax.Array
    device_energy: jax.Array
