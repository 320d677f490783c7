"""One device: its controller and its state, its view of the system, and the broadcasts that it has received.

It computes what `partway.simulation.step` computes for a whole fleet, by the same functions for one device, one block
at a time. It knows no clock and no socket: `partway.live.agent` has both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from partway.controllers.base import ControllerState, DeviceController, DeviceView, Received
from partway.controllers.baselines import Local
from partway.controllers.block import act_device, finish_device
from partway.live import memories
from partway.live.messages import BlockRecord, MessageError
from partway.measurement.checkpoint import Checkpoint
from partway.program_cache import RUNS_ONCE, kept_jit
from partway.pytree import cast_floats, floats_as_arrays
from partway.rng import ACTS, block_keys, both_parties, controller_keys_on_host, of_device
from partway.system.types import Broadcast, Device, DeviceAction, Exogenous

Acted = tuple[DeviceAction, jax.Array, jax.Array | None]
"""What `act_device` returns."""


@dataclass(frozen=True)
class _Next:
    """The end of a block: what the device remembers and sees then, and what happened in the block."""

    state: ControllerState
    view: DeviceView
    record: BlockRecord


@dataclass(frozen=True)
class _Ahead:
    """The end of a block and the begin of the next, computed from what was `known` then."""

    known: tuple[Any, ...]
    next: _Next
    alone: bool
    acted: Acted
    action: DeviceAction


class DeviceParty:
    """A device between its blocks. Every array has the precision of the run; in float64 JAX must be set to it before.

    block  the block that begins next
    queue  tasks that wait
    """

    def __init__(
        self,
        controller: DeviceController,
        device: Device,
        number: int,
        stream: str,
        seed: int,
        delay: int,
        gain: float,
        precision: str,
        first_block: int = 0,
        learning: bool = True,
    ):
        """A device with an empty queue.

        controller    with its hyperparameters; `setup` is called here
        device        its constants, scalars
        number        its number in the fleet, on which its random numbers depend
        stream, seed  of the controllers' random numbers
        delay         blocks until a broadcast reaches the devices
        gain          h of its first block [1/W]
        """
        self.block, self.misses = first_block, 0
        self._dtype, self._delay, self._learning = np.dtype(precision), delay, learning
        self._device: Device = cast_floats(device, precision)
        self._number, keys = np.uint32(number), controller_keys_on_host(np.array([seed], np.uint32), stream)[0]
        self._key = keys[ACTS]
        self._names = controller.uses_broadcast
        self._heard = dict[int, Mapping[str, float]]()
        self._view = self._first_view(first_block, gain)
        given = floats_as_arrays(controller, precision)
        self._controller, self._state = _set_up(given, self._device, self._view, keys, self._number)
        self._acted: Acted | None = None
        self._ahead: _Ahead | None = None

    @property
    def queue(self) -> float:
        """Tasks that wait at the start of `block`."""
        return float(self._view.q)

    @property
    def state(self) -> ControllerState:
        """What the controller remembers."""
        return self._state

    def hear(self, block: int, values: Mapping[str, float]) -> None:
        """The server's broadcast of a block; fields that the controller does not use are dropped.

        Raises MessageError where a field that it uses is missing.
        """
        missing = [name for name in self._names if name not in values]
        if missing:
            raise MessageError(f"the broadcast of block {block} lacks {', '.join(missing)}")
        self._heard[block] = {name: values[name] for name in self._names}

    def begin(self, alone: bool = False) -> DeviceAction:
        """Begin a block: what happens in it. `alone`: nothing is sent, whatever the controller wants."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.next.view is self._view and ahead.alone == alone:
            self._acted = ahead.acted
            return ahead.action
        self._acted, action = self._begun(self._state, self._view, self.block, alone)
        return action

    def prepare(self, arrivals: np.ndarray, next_gain: float, alone: bool = False) -> None:
        """Compute `end` and the `begin` that follows it ahead of time, from what is expected and known now.

        They take what has been computed if their arguments are these, and no broadcast that changes it has come in
        between; otherwise they compute again.
        """
        came, known = self._known(arrivals, next_gain)
        then = self._ended(came, next_gain)
        acted, action = self._begun(then.state, then.view, self.block + 1, alone)
        self._ahead = _Ahead(known, then, alone, acted, action)

    def end(self, arrivals: np.ndarray, next_gain: float) -> BlockRecord:
        """End the block: learn from it, and see the next one. Returns what happened in it.

        arrivals   (n,) 0 or 1, in each of its slots
        next_gain  h of the next block [1/W]

        Raises ValueError, and changes nothing, for arrivals or a gain that would spoil the memory.
        """
        came, known = self._known(arrivals, next_gain)
        if self._ahead is not None and self._ahead.known != known:
            self._ahead = None
        then = self._ended(came, next_gain) if self._ahead is None else self._ahead.next
        self._state, self._view, self._acted = then.state, then.view, None
        self.block += 1
        self.misses += self._misses(self.block)
        newest = self._newest(self.block)
        for block in [block for block in self._heard if newest is not None and block < newest]:
            del self._heard[block]
        return then.record

    def start_at(self, block: int, gain: float) -> None:
        """Begin with another block than planned, with an empty queue; `gain`: h of that block [1/W]."""
        self.block, self.misses = block, int(self._misses(block))
        self._view = self._first_view(block, gain)

    def remember(self, checkpoint: Checkpoint, run: int) -> None:
        """Continue with what this device had learned in a run of a checkpoint; raises InputError if it does not fit."""
        self._controller, self._state = memories.of_device(
            checkpoint, run, int(self._number), self._controller, self._state
        )

    @property
    def learned(self) -> tuple[DeviceController, ControllerState]:
        """The controller and what it remembers."""
        return self._controller, self._state

    def compile(self) -> None:
        """Compile what a block needs: the first one would otherwise begin late."""
        block, state, view, misses = self.block, self._state, self._view, self.misses
        for alone in (True, False):
            self.begin(alone)
        self.end(np.zeros(self._device.slots), float(np.asarray(view.gain)))
        self.block, self._state, self._view, self.misses = block, state, view, misses

    def _begun(self, state: ControllerState, view: DeviceView, block: int, alone: bool) -> tuple[Acted, DeviceAction]:
        """What a device that remembers and sees this does in a block; and its action as numbers."""
        acted = _act(
            self._controller, state, self._device, view, self._key, np.uint32(block), self._number, alone=alone
        )
        started, offload = (cast(jax.Array, float(value)) for value in (acted[0].started, acted[0].offload))
        return acted, DeviceAction(started, offload)

    def _ended(self, came: np.ndarray, next_gain: float) -> _Next:
        """The end of the block that runs, with these arrivals (n,)."""
        seen = cast(jax.Array, came.astype(self._dtype))
        state, view, outcome = _finish(
            self._controller,
            self._state,
            self._device,
            self._view,
            self._acted,
            Exogenous(seen, self._scalar(next_gain), seen),
            self._broadcast(self.block + 1),
            learning=self._learning,
        )
        values = (outcome.commanded, outcome.power, outcome.energy_j, outcome.relative_change)
        bits = sum(1 << slot for slot in np.flatnonzero(came).tolist())
        before = (outcome.q, outcome.gain, outcome.started, outcome.offload)
        return _Next(state, view, BlockRecord(*(float(value) for value in (*before, *values)), arrivals=bits))

    def _known(self, arrivals: np.ndarray, next_gain: float) -> tuple[np.ndarray, tuple[Any, ...]]:
        """Arrivals (n,), and all on which the end of the block that runs depends. Raises ValueError."""
        if self._acted is None:
            raise ValueError("a block must begin before it ends")
        came = np.asarray(arrivals)
        if came.shape != (self._device.slots,) or not ((came == 0) | (came == 1)).all():
            raise ValueError(f"arrivals must be 0 or 1 in each of {self._device.slots} slots, got {came}")
        return came, (self.block, came.tolist(), _positive(next_gain), self._values(self.block + 1))

    def _misses(self, block: int) -> bool:
        """Whether the broadcast that is due when a block begins is not there."""
        due = block - self._delay
        return due >= 0 and due not in self._heard

    def _newest(self, block: int) -> int | None:
        """The broadcast that has reached the device when a block begins: that of `block` - delay; None before any.

        One that has been lost is replaced by the newest before it, never by a newer one: how late a message is must not
        decide what a device knows.
        """
        return max((number for number in self._heard if number <= block - self._delay), default=None)

    def _values(self, block: int) -> Mapping[str, float]:
        """What the newest broadcast says when a block begins; zeros before any."""
        newest = self._newest(block)
        return dict.fromkeys(self._names, 0.0) if newest is None else self._heard[newest]

    def _broadcast(self, block: int) -> Broadcast:
        """The same as arrays."""
        values = {name: self._scalar(value) for name, value in self._values(block).items()}
        return cast(Broadcast, Received(**values))

    def _first_view(self, block: int, gain: float) -> DeviceView:
        """What a device with an empty queue sees when it begins with a block."""
        nothing = cast(jax.Array, np.zeros(self._device.slots, self._dtype))
        return DeviceView(self._scalar(0.0), self._scalar(_positive(gain)), nothing, self._broadcast(block))

    def _scalar(self, value: float) -> jax.Array:
        return cast(jax.Array, np.asarray(value, self._dtype))


def _positive(gain: float) -> float:
    if not 0 < gain < np.inf:
        raise ValueError(f"a channel gain must be above 0 and finite, got {gain}")
    return gain


@kept_jit(compiler_options=RUNS_ONCE)
def _set_up(
    controller: DeviceController, device: Device, view: DeviceView, keys: jax.Array, number: jax.Array
) -> tuple[DeviceController, ControllerState]:
    """The controller after what all devices agree on, and its first state."""
    own = controller.setup(keys[0], jax.tree.map(lambda leaf: leaf[..., None], device))
    return own, own.init(device, view, of_device(both_parties(keys[1])[0], number))


@kept_jit(static_argnames=["alone"])
def _act(
    controller: DeviceController,
    state: ControllerState,
    device: Device,
    view: DeviceView,
    key: jax.Array,
    block: jax.Array,
    number: jax.Array,
    alone: bool,
) -> Acted:
    own = of_device(block_keys(key, block)[0], number)
    return act_device(Local(), (), device, view, own) if alone else act_device(controller, state, device, view, own)


@kept_jit(static_argnames=["learning"])
def _finish(
    controller: DeviceController,
    state: ControllerState,
    device: Device,
    view: DeviceView,
    acted: Acted,
    exogenous: Exogenous,
    next_broadcast: Broadcast,
    learning: bool,
) -> Any:
    return finish_device(controller, state, device, view, acted, exogenous, next_broadcast, learning)
