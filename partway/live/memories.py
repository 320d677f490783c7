"""What has been learned, as files: a simulation's for one party, or what the parties of a live run leave."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerState, DeviceController
from partway.errors import InputError, shorten, shown
from partway.measurement.checkpoint import Checkpoint, Header, is_key, named, restored, words_of, write
from partway.provenance import versions
from partway.schemes import settable

T = TypeVar("T")
DEVICE, DEVICES, SERVER = "['pair'].device", "['carry'].device_state", "['carry'].server_state"
"""Where a file has the devices' controller, their memories, the devices' axis last, and the server's memory."""


def run_of(checkpoint: Checkpoint, scheme: str, devices: int, seed: int) -> int:
    """Which run of a checkpoint a live run continues: that of its seed, else the first one.

    Raises InputError where the file is of another scheme or fleet.
    """
    header = checkpoint.header
    if header.scheme != scheme:
        raise InputError(f"{checkpoint.given}: holds the scheme {shown(header.scheme)}, this run has {shown(scheme)}")
    if header.devices != devices:
        raise InputError(f"{checkpoint.given}: was trained with {header.devices} devices, this run has {devices}")
    return header.seeds.index(seed) if seed in header.seeds else 0


def of_device(
    checkpoint: Checkpoint, run: int, number: int, controller: DeviceController, state: ControllerState
) -> tuple[DeviceController, ControllerState]:
    """A device's controller and memory as they were after a run; hyperparameters stay those that are given.

    Raises InputError where the file has other tables, or not this device.
    """
    own, holds = settable(controller), checkpoint.header.holds
    if holds is not None and number not in holds:
        raise InputError(
            f"{checkpoint.given}: holds {_words(holds)}, and this is device {number}; name it with --device"
        )
    at = number if holds is None else holds.index(number)
    kept = _filled(checkpoint, DEVICE, controller, lambda array: array[run], lambda path: path.lstrip(".") in own)
    return kept, _filled(checkpoint, DEVICES, state, lambda array: array[run][..., at])


def of_server(checkpoint: Checkpoint, run: int, state: ControllerState) -> ControllerState:
    """The server's memory as it was after a run. Raises InputError where the file has other tables, or no server."""
    if checkpoint.header.holds:
        raise InputError(f"{checkpoint.given}: holds {_words(checkpoint.header.holds)}, and this is the server")
    return _filled(checkpoint, SERVER, state, lambda array: array[run])


def of_fleet(
    server: Checkpoint,
    device: Callable[[int], Checkpoint],
    run: Callable[[Checkpoint], int],
    controller: DeviceController,
    states: ControllerState,
    server_state: ControllerState,
) -> tuple[DeviceController, ControllerState, ControllerState]:
    """The memories of a whole fleet, with which a simulation begins as its live run does.

    server, device        the files of the server, and of each device by its number
    run                   which run of a file is continued
    controller, states, server_state   of a simulation of one run, its axis in front, the devices' last

    Raises InputError where a file does not fit.
    """
    fresh = jax.tree.map(lambda leaf: leaf[0], controller)
    count = jax.tree.leaves(states)[0].shape[-1] if jax.tree.leaves(states) else 1
    own = [
        of_device(device(k), run(device(k)), k, fresh, jax.tree.map(lambda leaf, k=k: leaf[0, ..., k], states))
        for k in range(count)
    ]
    kept = of_server(server, run(server), jax.tree.map(lambda leaf: leaf[0], server_state))

    def stacked(*leaves: Any) -> Any:
        return jnp.stack(leaves, axis=-1)[None]

    def alone(leaf: Any) -> Any:
        return jnp.asarray(leaf)[None]

    together = jax.tree.map(stacked, *(state for _, state in own))
    return jax.tree.map(alone, own[0][0]), together, jax.tree.map(alone, kept)


def _words(holds: tuple[int, ...]) -> str:
    return f"device {shorten(', '.join(map(str, holds)))}" if holds else "the server"


def save_devices(path: Path, origin: Header, devices: Mapping[int, tuple[DeviceController, ControllerState]]) -> None:
    """Write what devices of a live run have learned: by number, their controllers and memories."""
    numbers = sorted(devices)
    (controller, _), *_ = devices.values()
    states = [dict(_arrays(DEVICES, devices[number][1])) for number in numbers]
    arrays = {name: np.stack([state[name] for state in states], axis=-1)[None] for name in states[0]}
    arrays |= {name: array[None] for name, array in _arrays(DEVICE, controller)}
    write(path, origin.model_copy(update={"holds": tuple(numbers)}), arrays)


def save_server(path: Path, origin: Header, state: ControllerState) -> None:
    """Write what the server of a live run has learned."""
    write(path, origin, {name: array[None] for name, array in _arrays(SERVER, state)})


def origin_of(scheme: str, seed: int, blocks: int, precision: str, devices: int, scenario: str = "") -> Header:
    """What a file says of the live run that it comes from; `scenario`: as TOML, where it is known."""
    return Header(
        scheme=scheme,
        server=None,
        seeds=(seed,),
        blocks=blocks,
        precision="float64" if precision == "float64" else "float32",
        scenario_name="live",
        scenario=scenario,
        devices=devices,
        switches={},
        holds=(),
        versions=versions(),
    )


def _arrays(prefix: str, tree: Any) -> list[tuple[str, np.ndarray]]:
    return [(f"{prefix}{path}", np.asarray(words_of(leaf))) for path, leaf in named(tree)]


def _filled(checkpoint: Checkpoint, prefix: str, tree: T, part: Any, keep: Any = lambda path: False) -> T:
    """The tree with the file's arrays, of each the part that is this party's."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    filled = list[Any]()
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        filled.append(leaf if keep(name) else _loaded(checkpoint, f"{prefix}{name}", leaf, part))
    return jax.tree.unflatten(structure, filled)


def _loaded(checkpoint: Checkpoint, name: str, leaf: Any, part: Any) -> Any:
    if name not in checkpoint.kinds:
        raise InputError(f"{checkpoint.given}: {shorten(name)} is missing in the file; train again")
    array, like = np.asarray(part(checkpoint.array(name))), words_of(leaf)
    if array.shape != like.shape:
        had, wanted = list(array.shape), list(like.shape)
        raise InputError(f"{checkpoint.given}: {shorten(name)} is {had} and must be {wanted} here; train again")
    return restored(array, leaf) if is_key(leaf) else array.astype(like.dtype)
