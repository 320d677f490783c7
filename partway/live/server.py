"""The server: its controller with a memory of its own, its queue of work, and what it saw of the devices' queues.

As `partway.live.device`: the simulation's own functions, one block at a time, without a clock or a socket.
"""

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerState, ServerController, ServerView
from partway.controllers.block import act_server, learn_server
from partway.live import memories
from partway.live.device import ACTS
from partway.measurement.checkpoint import Checkpoint
from partway.program_cache import RUNS_ONCE, kept_jit
from partway.pytree import cast_floats, floats_as_arrays
from partway.rng import block_keys, both_parties, controller_keys_on_host
from partway.system.equations import next_server_queue
from partway.system.types import Server, ServerAction


@dataclass(frozen=True)
class Turn:
    """What the server does in a block.

    service_per_slot  (n,) work commanded in each slot [mean tasks]
    broadcast         the fields of the broadcast by name; `share` (K,)
    backlog           work that waited when the block began [mean tasks]
    """

    service_per_slot: np.ndarray
    broadcast: dict[str, np.ndarray]
    backlog: float


class ServerParty:
    """A server between its blocks, for a fleet of so many devices: its tables are made for that number.

    block    the block that begins next
    changes  relative change of what was learned in every block that has ended, NaN where nothing is
    """

    def __init__(
        self,
        controller: ServerController,
        server: Server,
        devices: int,
        stream: str,
        seed: int,
        precision: str,
        learning: bool = True,
    ):
        """A server with an empty queue; arguments as in `DeviceParty`."""
        self.block, self.changes = 0, list[float]()
        self._dtype, self._devices, self._learning = np.dtype(precision), devices, learning
        self._server: Server = cast_floats(server, precision)
        keys = controller_keys_on_host(np.array([seed], np.uint32), stream)[0]
        self._key = keys[ACTS]
        self._controller = floats_as_arrays(controller, precision)
        zero: Any = np.zeros((), self._dtype)
        self._view = ServerView(zero, zero, cast(jax.Array, np.zeros(devices, self._dtype)))
        self._state = _set_up(self._controller, self._server, self._view, keys)
        self._acted: ServerAction | None = None

    @property
    def state(self) -> ControllerState:
        """What the controller remembers."""
        return self._state

    def remember(self, checkpoint: Checkpoint, run: int) -> None:
        """Continue with what the server had learned in a run of a checkpoint; raises InputError if it does not fit."""
        self._state = memories.of_server(checkpoint, run, self._state)

    def end(self, queues: np.ndarray, inflow: float) -> None:
        """End a block: learn from it, and see the next one.

        queues  (K,) tasks that wait at the devices when their next block begins
        inflow  work that has come from the devices, and is served from the next block on [mean tasks]

        Raises ValueError, and changes nothing, for numbers that would spoil the memory.
        """
        seen, came = self._seen(queues), self._work(inflow)
        if self._acted is None:
            raise ValueError("a block must begin before it ends")
        self._state, self._view, change = _finish(
            self._controller, self._state, self._server, self._view, self._acted, seen, came, learning=self._learning
        )
        self.changes.append(float(change))
        self._acted, self.block = None, self.block + 1

    def begin(self) -> Turn:
        """Begin a block: what the server does in it, and what it broadcasts."""
        acted = _act(self._controller, self._state, self._server, self._view, self._key, np.uint32(self.block))
        self._acted, sent = acted, acted.broadcast
        broadcast = {name: np.asarray(getattr(sent, name)) for name in ("price", "service_rate", "backlog", "share")}
        return Turn(np.asarray(acted.service_per_slot), broadcast, float(self._view.backlog))

    def compile(self) -> None:
        """Compile what a block needs."""
        state, view, block = self._state, self._view, self.block
        self.begin()
        self.end(np.zeros(self._devices), 0.0)
        self._state, self._view, self.block = state, view, block
        self.changes.clear()

    def _seen(self, queues: np.ndarray) -> np.ndarray:
        numbers = np.asarray(queues, self._dtype)
        if numbers.shape != (self._devices,) or not (np.isfinite(numbers) & (numbers >= 0)).all():
            raise ValueError(f"queues must be {self._devices} finite numbers from 0, got {numbers}")
        return numbers

    def _work(self, inflow: float) -> np.ndarray:
        if not 0 <= inflow < np.inf:
            raise ValueError(f"inflow must be finite and at least 0, got {inflow}")
        return np.asarray(inflow, self._dtype)


@kept_jit(compiler_options=RUNS_ONCE)
def _set_up(controller: ServerController, server: Server, view: ServerView, keys: jax.Array) -> ControllerState:
    return controller.init(server, view, both_parties(keys[1])[1])


@kept_jit()
def _act(
    controller: ServerController,
    state: ControllerState,
    server: Server,
    view: ServerView,
    key: jax.Array,
    block: jax.Array,
) -> ServerAction:
    return act_server(controller, state, server, view, block_keys(key, block)[1])[0]


@kept_jit(static_argnames=["learning"])
def _finish(
    controller: ServerController,
    state: ControllerState,
    server: Server,
    view: ServerView,
    action: ServerAction,
    queues: jax.Array,
    inflow: jax.Array,
    learning: bool,
) -> tuple[ControllerState, ServerView, jax.Array]:
    """The state after the block, what the server sees then, and how much was learned."""
    backlog = next_server_queue(view.backlog, action.service_per_slot, inflow)
    next_view = ServerView(backlog, inflow, queues)
    if learning:
        state = learn_server(controller, state, server, view, action, next_view)
    return state, next_view, jnp.asarray(controller.relative_change(state), backlog.dtype)
