"""What is wrong with a policy from outside, said in one line before anything runs: class, line and remedy.

Functions are traced for one device, or the server, without being compiled.
"""

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from partway.controllers.base import (
    BROADCAST_FIELDS,
    ControllerPair,
    DeviceController,
    DeviceView,
    ServerController,
    ServerView,
)
from partway.controllers.block import received
from partway.errors import InputError, shorten
from partway.system.types import Broadcast, Device, DeviceAction, Server, ServerAction

OURS = Path(__file__).parents[1]
UNKNOWN = "the values of arrays are not known while a policy is compiled"
REMEDIES: dict[type[Exception], str] = {
    jax.errors.TracerBoolConversionError: f"`if`, `and`, `or`, `not`, `min` and `max` need values, and {UNKNOWN}; use "
    "jnp.where, jnp.minimum, jnp.maximum, & and |",
    jax.errors.TracerArrayConversionError: f"NumPy needs values, and {UNKNOWN}; use jax.numpy",
    jax.errors.ConcretizationTypeError: f"int, float, range and shapes need values, and {UNKNOWN}; use jax.numpy",
    NotImplementedError: "a controller needs a method `act`",
}


def comes_from_outside(pair: ControllerPair) -> bool:
    """Whether a controller of the pair does not ship with Partway."""
    return not (_ships(pair.device) and _ships(pair.server))


def check_pair(name: str, pair: ControllerPair, devices: Device, server: Server) -> None:
    """Raise InputError, one line with class, line and remedy, if a controller from outside cannot work.

    name     of the scheme, for the message        devices  of the fleet, device axis last; the first is asked
    """
    if not _ships(pair.device):
        check_device(name, pair.device, devices)
    if not _ships(pair.server):
        check_server(name, pair.server, server, devices.mean_gain.shape[-1])


def check_device(name: str, controller: DeviceController, devices: Device) -> None:
    """`check_pair` of a device controller."""
    devices = jax.tree.map(jnp.asarray, devices)
    device = jax.tree.map(lambda leaf: leaf[..., 0], devices)
    view, key = _device_view(controller, device), jax.random.key(0)
    guard = _Guard(name, controller)
    controller = guard("setup", controller.setup, key, devices, traced=False)
    state = guard("init", controller.init, device, view, key)
    action = guard("act", controller.act, state, device, view, key)
    guard.check_action(action, DeviceAction, {"started": (), "offload": ()})
    happened = DeviceAction(view.q, view.q, action.power)
    after = guard("learn", controller.learn, state, device, view, happened, view.q, view)
    guard.check_state(state, after)


def check_server(name: str, controller: ServerController, server: Server, devices: int) -> None:
    """`check_pair` of a server controller."""
    server = jax.tree.map(jnp.asarray, server)
    zero = jnp.zeros_like(server.queue_weight)
    view = ServerView(zero, zero, jnp.zeros(devices, zero.dtype))
    guard, key = _Guard(name, controller), jax.random.key(0)
    state = guard("init", controller.init, server, view, key)
    action = guard("act", controller.act, state, server, view, key)
    guard.check_action(action, ServerAction, {"service_per_slot": (server.slots,)})
    after = guard("learn", controller.learn, state, server, view, action, zero, view)
    guard.check_state(state, after)


def _ships(controller: DeviceController | ServerController) -> bool:
    return type(controller).__module__.partition(".")[0] == "partway"


def _device_view(controller: DeviceController, device: Device) -> DeviceView:
    """Some view of a device."""
    one = jnp.ones_like(device.mean_gain)
    broadcast = Broadcast(**dict.fromkeys(BROADCAST_FIELDS, one))
    return DeviceView(one, device.mean_gain, jnp.zeros(device.slots, one.dtype), received(controller, broadcast))


class _Guard:
    """Calls a controller's methods, and says what is wrong with them."""

    def __init__(self, name: str, controller: DeviceController | ServerController):
        self.name, self.kind = name, type(controller)

    def __call__(self, method: str, function: Callable[..., Any], *arguments: Any, traced: bool = True) -> Any:
        """What the method returns, as shapes; raises InputError where it fails."""
        try:
            return jax.eval_shape(function, *arguments) if traced else function(*arguments)
        except MemoryError:
            raise
        except Exception as error:  # somebody else's code can fail in any way
            remedy = next((words for kind, words in REMEDIES.items() if isinstance(error, kind)), None)
            message = remedy or f"{type(error).__name__}: {shorten(str(error).splitlines()[0], 160)}"
            raise InputError(f"{self._where(method, error)}: {message}") from error

    def check_action(self, action: Any, kind: type, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raise InputError unless `act` has returned what it must."""
        if not isinstance(action, kind):
            raise self._wrong("act", f"must return a {kind.__name__}, not {type(action).__name__}")
        for field, shape in shapes.items():
            had = jnp.shape(getattr(action, field))
            if had != shape and not (shape == () and had == ()):
                of = "one number" if shape == () else f"shape {shape}"
                raise self._wrong("act", f"{field} must be {of}, not an array of shape {had}; it is for one party only")

    def check_state(self, before: Any, after: Any) -> None:
        """Raise InputError unless `learn` returns a state of the same structure, shapes and types as `init`."""
        if jax.tree.structure(before) != jax.tree.structure(after):
            raise self._wrong(
                "learn", "must return a state of the same structure as `init` (or the state it was given)"
            )
        leaves, _ = jax.tree_util.tree_flatten_with_path(before)
        for (path, old), new in zip(leaves, jax.tree.leaves(after), strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                what = f"state{jax.tree_util.keystr(path)}"
                had, now = (f"{one.dtype}{list(one.shape)}" for one in (old, new))
                raise self._wrong("learn", f"{what} is {had} in `init` and {now} in `learn`; keep its shape and type")

    def _wrong(self, method: str, words: str) -> InputError:
        return InputError(f"{self._where(method)}: {words}")

    def _where(self, method: str, error: Exception | None = None) -> str:
        """Scheme, class and method, with the line of the user's code at which an error was raised."""
        text = f"scheme '{self.name}': {self.kind.__name__}.{method}"
        frames = traceback.extract_tb(error.__traceback__) if error else []
        own = [frame for frame in frames if self._is_theirs(frame.filename)]
        if own:
            return f"{text}, line {own[-1].lineno} of {Path(own[-1].filename).name}"
        return text

    def _is_theirs(self, file: str) -> bool:
        """Whether a file is the user's: that of the class, or beside it."""
        try:
            home = Path(inspect.getfile(self.kind)).parent
        except (OSError, TypeError):
            return False
        return home in Path(file).parents and OURS not in Path(file).parents
