"""What a simulation has learned, taken out of its checkpoint for one party."""

from typing import Any, TypeVar

import jax
import numpy as np

from partway.controllers.base import ControllerState, DeviceController
from partway.errors import InputError, shorten, shown
from partway.measurement.checkpoint import Checkpoint, is_key, restored, words_of
from partway.schemes import settable

T = TypeVar("T")


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

    Raises InputError where the file has other tables.
    """
    own = settable(controller)
    kept = _filled(
        checkpoint, "['pair'].device", controller, lambda array: array[run], lambda path: path.lstrip(".") in own
    )
    return kept, _filled(checkpoint, "['carry'].device_state", state, lambda array: array[run][..., number])


def of_server(checkpoint: Checkpoint, run: int, state: ControllerState) -> ControllerState:
    """The server's memory as it was after a run. Raises InputError where the file has other tables."""
    return _filled(checkpoint, "['carry'].server_state", state, lambda array: array[run])


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
