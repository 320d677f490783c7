"""What is wrong with a policy from outside, said in one line before anything runs: class, line and remedy.

Functions are traced for one device, or the server, without being compiled. `print` and `sys.exit` in them do no harm.
"""

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import (
    BROADCAST_FIELDS,
    ControllerPair,
    DeviceController,
    DeviceView,
    ServerController,
    ServerView,
)
from partway.controllers.block import received, ships
from partway.errors import InputError, shorten
from partway.pytree import cast_floats
from partway.system import kinds
from partway.system.processes import Channel, Station, Traffic, station_of
from partway.system.types import Broadcast, Device, DeviceAction, Server, ServerAction
from partway.system.world import World

T = TypeVar("T")
OURS = Path(__file__).parents[1]
UNKNOWN = "the values of arrays are not known while a policy is compiled"
REMEDIES: dict[type[Exception], str] = {
    jax.errors.TracerBoolConversionError: f"`if`, `and`, `or`, `not`, `min` and `max` need values, and {UNKNOWN}; use "
    "jnp.where, jnp.minimum, jnp.maximum, & and |",
    jax.errors.TracerArrayConversionError: f"NumPy needs values, and {UNKNOWN}; use jax.numpy",
    jax.errors.TracerIntegerConversionError: f"`range`, and an index into a list or a NumPy array, need values, and "
    f"{UNKNOWN}; use jnp.arange, and index a jnp.array",
    jax.errors.ConcretizationTypeError: f"int, float, range and shapes need values, and {UNKNOWN}; use jax.numpy",
}


CHECKED_BLOCKS = 32
"""Blocks of a channel or of traffic from outside that are run before anything else is."""


def comes_from_outside(pair: ControllerPair) -> bool:
    """Whether a controller of the pair does not ship with Partway."""
    return not (ships(pair.device) and ships(pair.server))


def classes_from_outside(pair: ControllerPair) -> list[str]:
    """The names of the classes of the pair that do not ship with Partway."""
    return [type(party).__name__ for party in (pair.device, pair.server) if not ships(party)]


def check_pair(name: str, pair: ControllerPair, world: World, precision: str) -> None:
    """Raise InputError, one line with class, line and remedy, if a controller from outside cannot work.

    name  of the scheme, for the message        world  whose first device is asked, and whose server
    """
    with jax.enable_x64(precision == "float64"):
        if not ships(pair.device):
            check_device(name, pair.device, cast_floats(world.devices, precision))
        if not ships(pair.server):
            check_server(name, pair.server, cast_floats(world.server, precision), world.devices.mean_gain.shape[-1])


def check_device(name: str, controller: DeviceController, devices: Device) -> None:
    """`check_pair` of a device controller."""
    device: Device = jax.tree.map(lambda leaf: leaf[..., 0], devices)
    view, key = _device_view(controller, device), jax.random.key(0)
    guard = _Guard(_scheme(name), controller)
    controller = guard("setup", controller.setup, key, devices, traced=False)
    state = guard("init", controller.init, device, view, key)
    action = guard("act", controller.act, state, device, view, key)
    guard.check_result("act", action, DeviceAction, {"started": (), "offload": ()})
    if action.power is not None:
        guard.check_result("act", action, DeviceAction, {"power": ()})
    happened = DeviceAction(view.q, view.q, action.power)
    after = guard("learn", controller.learn, state, device, view, happened, view.q, view)
    guard.check_state(state, after)
    guard.check_number("relative_change", guard("relative_change", controller.relative_change, state))


def check_server(name: str, controller: ServerController, server: Server, devices: int) -> None:
    """`check_pair` of a server controller."""
    zero = jnp.zeros_like(server.queue_weight)
    view = ServerView(zero, zero, jnp.zeros(devices, zero.dtype))
    guard, key = _Guard(_scheme(name), controller), jax.random.key(0)
    state = guard("init", controller.init, server, view, key)
    action = guard("act", controller.act, state, server, view, key)
    guard.check_result("act", action, ServerAction, {"service_per_slot": (server.slots,)})
    shapes = {"price": (), "service_rate": (), "backlog": (), "share": (devices,)}
    guard.check_result("act", action.broadcast, Broadcast, shapes)
    after = guard("learn", controller.learn, state, server, view, action, zero, view)
    guard.check_state(state, after)
    guard.check_number("relative_change", guard("relative_change", controller.relative_change, state))


def check_processes(world: World, precision: str) -> None:
    """Raise InputError, as `check_pair` does, if the world's channel or traffic from outside cannot work."""
    with jax.enable_x64(precision == "float64"):
        concrete: World = cast_floats(world, precision)
        stations = station_of(concrete.devices, concrete.arrival_threshold)
        for field, process in (("radio.fading", concrete.channel), ("traffic", concrete.traffic)):
            if not kinds.ships(process):
                _check_process(field, process, stations)


def _check_process(field: str, process: Channel | Traffic, stations: Station) -> None:
    """`check_processes` of one: its `step` for the first device, or its own `draw`."""
    guard, key, blocks = _Guard(field, process), jax.random.key(0), jnp.arange(2, dtype=jnp.uint32)
    if type(process).draw not in (Channel.draw, Traffic.draw):
        state = guard("begin", process.begin, blocks[0], stations)
        guard.check_state(state, guard("draw", process.draw, state, blocks[0], blocks, stations)[0], "draw")
        return
    station = jax.tree.map(lambda leaf: jnp.asarray(leaf)[..., 0], stations)
    shape = (station.slots,) if isinstance(process, Traffic) else ()
    state = guard("init", process.init, key, station)
    result: Any = guard("step", process.step, state, key, station, jnp.uint32(0))
    what = "the arrivals" if isinstance(process, Traffic) else "the gain"
    if not isinstance(result, tuple) or len(result) != 2:  # pyright: ignore[reportUnknownArgumentType]
        raise InputError(f"{field}: {type(process).__name__}.step: must return two values, the next state and {what}")
    guard.check_state(state, result[0], "step")
    guard.check_number("step", result[1], "the second result", shape)
    _check_values(guard, process, station)


@jax.jit
def _step(process: Channel | Traffic, state: Any, key: jax.Array, station: Station, block: jax.Array) -> Any:
    """`step` of a process, compiled once for all worlds of a sweep."""
    return process.step(state, key, station, block)


def _check_values(guard: "_Guard", process: Channel | Traffic, station: Station) -> None:
    """Raise InputError where one of the first CHECKED_BLOCKS blocks of a process has a value that cannot be."""
    state = process.init(jax.random.key(0), station)
    for block in range(CHECKED_BLOCKS):
        at = jax.random.key(block), station, jnp.uint32(block)
        state, value = guard("step", _step, process, state, *at, traced=False)
        numbers = np.asarray(value)
        is_right = np.isin(numbers, (0, 1)) if isinstance(process, Traffic) else np.isfinite(numbers) & (numbers > 0)
        if not np.all(is_right):
            kind = "0 or 1 for each slot" if isinstance(process, Traffic) else "a finite gain above 0"
            raise InputError(
                f"{guard.label}: {guard.kind.__name__}.step: the second result must be {kind}, got "
                f"{shorten(str(numbers[~is_right].flat[0]))} in block {block}"
            )


def _scheme(name: str) -> str:
    return f"scheme '{name}'"


def explained(name: str, pair: ControllerPair, function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns; raises InputError as `check_pair` does where a controller of the pair fails in it."""
    return _Guard(_scheme(name), pair.server if ships(pair.device) else pair.device)(
        "", function, *arguments, traced=False
    )


def _device_view(controller: DeviceController, device: Device) -> DeviceView:
    """Some view of a device."""
    one = jnp.ones_like(device.mean_gain)
    broadcast = Broadcast(**dict.fromkeys(BROADCAST_FIELDS, one))
    return DeviceView(one, device.mean_gain, jnp.zeros(device.slots, one.dtype), received(controller, broadcast))


class _Guard:
    """Calls the methods of a controller, or of a channel or traffic, and says what is wrong with them."""

    def __init__(self, label: str, checked: object):
        """label: what the user calls it, such as "scheme 'mine'"."""
        self.label, self.kind = label, type(checked)

    def __call__(self, method: str, function: Callable[..., Any], *arguments: Any, traced: bool = True) -> Any:
        """What the method returns, as shapes if it is traced; raises InputError where it fails."""
        try:
            return jax.eval_shape(function, *arguments) if traced else function(*arguments)
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:  # a user's code can fail in any way
            remedy = next((words for kind, words in REMEDIES.items() if isinstance(error, kind)), None)
            if isinstance(error, NotImplementedError):
                remedy = f"it needs a method `{method}`"
            message = remedy or f"{type(error).__name__}: {shorten(' '.join(str(error).split()), 160)}"
            raise InputError(f"{self._where(method, error)}: {message}") from error

    def check_result(self, method: str, result: Any, kind: type, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raise InputError unless a method has returned what it must."""
        if not isinstance(result, kind):
            raise self._wrong(method, f"must return a {kind.__name__}, not {type(result).__name__}")
        for field, shape in shapes.items():
            self.check_number(method, getattr(result, field), field, shape)

    def check_number(self, method: str, value: Any, field: str = "the result", shape: tuple[int, ...] = ()) -> None:
        """Raise InputError unless a value of a result is a real number, or an array of this shape."""
        of = "one number" if shape == () else f"numbers of shape {shape}"
        if not hasattr(value, "dtype") or not jnp.isdtype(value.dtype, ("real floating", "integral", "bool")):
            what = value.dtype if hasattr(value, "dtype") else type(value).__name__
            raise self._wrong(method, f"{field} must be {of}, not {what}")
        if value.shape != shape:
            raise self._wrong(
                method, f"{field} must be {of}, not an array of shape {value.shape}; it is for one device or server"
            )

    def check_state(self, before: Any, after: Any, method: str = "learn") -> None:
        """Raise InputError unless the method returns a state of the same structure, shapes and types as `init`."""
        if jax.tree.structure(before) != jax.tree.structure(after):
            raise self._wrong(method, "must return a state of the same structure as `init` (or the state it was given)")
        leaves, _ = jax.tree_util.tree_flatten_with_path(before)
        for (path, old), new in zip(leaves, jax.tree.leaves(after), strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                what = f"state{jax.tree_util.keystr(path)}"
                had, now = (f"{one.dtype}{list(one.shape)}" for one in (old, new))
                raise self._wrong(method, f"{what} is {had} in `init` and {now} in `{method}`; keep its shape and type")

    def _wrong(self, method: str, words: str) -> InputError:
        return InputError(f"{self._where(method)}: {words}")

    def _where(self, method: str, error: BaseException | None = None) -> str:
        """Label, class and method, with the line of the user's code at which an error was raised."""
        text = f"{self.label}: {self.kind.__name__}{'.' * bool(method)}{method}"
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
        above = Path(file).parents
        return home in above and OURS not in above and "site-packages" not in Path(file).parts
