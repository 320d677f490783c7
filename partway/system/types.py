"""What the system is made of: the constants of every party, actions, the state, and what is random.

Records of one device have scalar fields. Records of a fleet have the device axis last, K = `Device.fleet_size` long.
"""

from typing import Any

import jax

from partway.dnn.cuts import Task
from partway.pytree import record

ROUNDING = 1e-4
"""Slack [tasks] within which a number of tasks counts as whole."""


@record
class Device:
    """Constants of one device. Coefficients are computed in float64 on the host.

    capacity       n tau f_max / W: the most tasks that a block can run
    energy_coef    xi W^3 / (n tau)^2 [J / task^3]
    queue_weight   w3 W: cost of one task that waits for one block
    energy_weight  w4 [1/J]
    server_work    W_ser,k: work of a whole task at the server [mean tasks of the fleet]
    mean_gain      h without fading [1/W]
    snr_gap        Gamma
    fleet_size     K, the number of devices that share the server
    discount       gamma
    slots          n, slots per block
    max_tasks_per_block  the most tasks that the fastest device of the fleet can start in a block, the last one cut
    queue          reading of (1): "conserving" or "as_printed"
    objective      what is minimised: the "average" cost of a block or the "discounted" sum
    arrivals_seen  arrivals seen before acting: those of the "past" block, or of the "current" one too (T6)
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
    arrivals_seen: str = "past"


@record
class Server:
    """Constants of the server. Its unit of work is the mean task of the fleet.

    slot_capacity  tau F / mean task: the most work that a slot can do
    energy_coef    xi_ser (mean task)^3 / tau^2 [J / work^3 and slot]
    queue_weight   w1 mean task: cost of one unit of work that waits for one block
    energy_weight  w2 [1/J]
    discount       gamma
    slots          n, slots per block
    broadcast_delay_blocks  blocks until a broadcast reaches the devices
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
    """What the server sends to all devices once per block.

    price         cost of one more unit of work sent now
    service_rate  work that the server does in this block [mean tasks]
    backlog       work that waits at the server [mean tasks]
    share         (K,) each device's share of the service rate; a device receives its own
    """

    price: jax.Array
    service_rate: jax.Array
    backlog: jax.Array
    share: jax.Array


@record
class DeviceAction:
    """What a device does in a block.

    started  tasks taken from the queue, a whole number; the last of them is the one that is cut
    offload  fraction of the last one that is sent to the server, in [0, 1]
    power    commanded transmit power [W], or None where a controller commands none

    What happens may differ from what a controller asks for: see `partway.system.equations.feasible_action`.
    """

    started: jax.Array
    offload: jax.Array
    power: jax.Array | None = None


@record
class ServerAction:
    """What the server does in a block: work in each slot `service_per_slot` (n,) [mean tasks], and its broadcast."""

    service_per_slot: jax.Array
    broadcast: Broadcast


@record
class Exogenous:
    """What is random in one block.

    arrivals  (n, K) 0 or 1 in each slot
    gain      (K,) of the next block [1/W]
    seen      (n, K) arrivals that devices see when the next block starts: `arrivals`, or its own (`arrivals_seen`)
    """

    arrivals: jax.Array
    gain: jax.Array
    seen: jax.Array


@record
class Memory:
    """What channels and traffic remember from block to block, device axis last (`partway.system.processes`).

    channel  after the gain of this block was drawn
    traffic  after the arrivals were drawn that are in `State.arrivals`
    """

    channel: Any
    traffic: Any


@record
class State:
    """The system at the start of block t. The server's block t runs n + 1 slots after the devices' block t (Fig. 2).

    q            (K,) tasks waiting; whole numbers while the queue is conserving
    gain         (K,) h of this block [1/W]
    arrivals     (n, K) of the block before, already in q; or of this block, if devices see them (trap T6)
    backlog      work waiting at the server [mean tasks]
    last_inflow  the part of the backlog that arrived in the block before [mean tasks]
    broadcast_queue  broadcasts on their way, (broadcast_delay_blocks, ...) each, the oldest first
    memory       what channels and traffic remember; no controller sees it
    """

    q: jax.Array
    gain: jax.Array
    arrivals: jax.Array
    backlog: jax.Array
    last_inflow: jax.Array
    broadcast_queue: Broadcast
    memory: Memory
