"""The network of `partway cut`: its profile from wherever it is, and measured times of its layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from partway.arguments import choice, named
from partway.dnn.layer_times import read_times
from partway.dnn.profile import DTYPE_BITS, Profile, read_profile
from partway.errors import InputError, shown


def read_network(
    network: str | Path | Profile,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    values: Mapping[str, list[float]] | None = None,
) -> Profile:
    """The profile of a network that is named, or in a file. Raises InputError if it cannot be read."""
    if isinstance(network, Profile):
        return network
    if is_onnx(network):
        from partway.dnn import graph  # needs the extra `onnx`

        return graph.profile_model(str(network), shapes=shapes, values=values)
    given = cast(tuple[Any, Any], (shapes, values))
    if not all(one is None or (isinstance(one, Mapping) and not one) for one in given):
        raise InputError(f"{named('shapes')} and {named('values')} need an .onnx file, got {shown(str(network))}")
    return read_profile(str(network))


def is_onnx(network: str | Path) -> bool:
    """Whether a network is in an ONNX file, by its name."""
    return Path(network).suffix.lower() == ".onnx"


def file_of(network: str | Path | Profile) -> str | None:
    """The name or the path of a profile; None for a profile itself and for an ONNX file."""
    return None if isinstance(network, Profile) or is_onnx(network) else str(network)


def task_of(network: str | Path | Profile, tensor_dtype: str, input_bits: float | None) -> dict[str, Any]:
    """The task of a scenario whose devices run the network."""
    choice(named("tensor_dtype"), tensor_dtype, DTYPE_BITS)
    name = network.name if isinstance(network, Profile) else str(network)
    bits = {} if input_bits is None else {"input_bits": input_bits}
    return {"kind": "layers", "profile": name, "tensor_dtype": tensor_dtype, "cuts": "pareto", **bits}


def measured(name: str, given: str | Path | Sequence[float] | None, profile: Profile) -> np.ndarray | None:
    """(cuts,) measured times; a file's name is read."""
    if given is None:
        return None
    if isinstance(given, str | Path):
        return read_times(str(given), profile)
    try:
        times = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        times = np.array(np.nan)
    rising = times.shape == (len(profile.cuts),) and times[0] == 0 and bool((np.diff(times) >= 0).all())
    if not (rising and np.isfinite(times[-1])):
        raise InputError(f"{name} must be {len(profile.cuts)} times in seconds, one for each cut, rising from 0")
    return times
