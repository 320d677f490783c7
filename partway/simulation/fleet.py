"""All devices of a system, for one block or, where they do not depend on the server, for several blocks at once."""

from functools import partial

import jax
from jax.sharding import PartitionSpec

from partway.controllers.base import ControllerState, DeviceController, DeviceView
from partway.controllers.block import DeviceOutcome, device_block, for_fleet
from partway.pytree import record
from partway.simulation.sharding import AXIS, broadcast_shared, is_chunked, on_mesh
from partway.system.exogenous import PackedExogenous, unpack
from partway.system.types import Broadcast, Device


@record
class Fleet:
    """Inputs of one block, device axis last.

    views           what every device sees
    exogenous       what is random in the block
    next_broadcast  the broadcast that every device has when the block ends
    keys            (K,) of the devices' own randomness
    """

    devices: Device
    views: DeviceView
    exogenous: PackedExogenous
    next_broadcast: Broadcast
    keys: jax.Array


@record
class FleetAhead:
    """Inputs of T blocks of devices that use no broadcast: `views` of the first block; `exogenous`, `keys` (T, ...)."""

    devices: Device
    views: DeviceView
    exogenous: PackedExogenous
    keys: jax.Array


def run_fleet(
    controller: DeviceController, states: ControllerState, fleet: Fleet, learning: bool
) -> tuple[ControllerState, DeviceOutcome]:
    """One block of all devices: their states after it, and what they did (K,)."""

    def block(states: ControllerState, fleet: Fleet) -> tuple[ControllerState, DeviceOutcome]:
        states, _, outcome = _block(controller, states, fleet, learning)
        return states, outcome

    return on_mesh(block, PartitionSpec(AXIS), states, fleet)


def run_ahead(
    controller: DeviceController, states: ControllerState, fleet: FleetAhead, learning: bool
) -> tuple[ControllerState, DeviceOutcome]:
    """T blocks of devices that use no broadcast, chunk by chunk: their states after them, what they did (T, K)."""

    def blocks(states: ControllerState, fleet: FleetAhead) -> tuple[ControllerState, DeviceOutcome]:
        nothing = fleet.views.broadcast

        def block(before: tuple[ControllerState, DeviceView], at: tuple[PackedExogenous, jax.Array]):
            (states, views), (exogenous, keys) = before, at
            inputs = Fleet(fleet.devices, views, exogenous, nothing, keys)
            states, views, outcome = _block(controller, states, inputs, learning)
            return (states, views), outcome

        (states, _), outcomes = jax.lax.scan(block, (states, fleet.views), (fleet.exogenous, fleet.keys))
        return states, outcomes

    return on_mesh(blocks, PartitionSpec(None, AXIS), states, fleet)


def runs_ahead(controller: DeviceController, devices: int) -> bool:
    """Whether devices run several blocks ahead of the server: of a smaller fleet all is in the cache anyway."""
    return not controller.uses_broadcast and is_chunked(devices)


def _block(
    controller: DeviceController, states: ControllerState, fleet: Fleet, learning: bool
) -> tuple[ControllerState, DeviceView, DeviceOutcome]:
    devices = broadcast_shared(fleet.devices, fleet.views.q.shape[-1])
    exogenous = unpack(devices.slots, fleet.exogenous)
    block = for_fleet(controller, partial(device_block, controller, learning=learning))
    return block(states, devices, fleet.views, fleet.keys, exogenous, fleet.next_broadcast)
