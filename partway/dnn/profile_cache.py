"""Profiles of ONNX files, kept between runs: making one takes seconds, reading it again takes milliseconds.

A profile is looked up by all that it is made from: the content and name of the file, stated shapes and inputs, the
source of Partway and the versions of the packages that read it. A network with weights in other files is not kept,
because a shape may depend on them.
"""

import contextlib
import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from partway import files, provenance
from partway.dnn.profile import Profile, clean_name, read_profile, write_profile
from partway.errors import InputError

READERS = ("onnx", "onnxslim", "onnxruntime")
"""Packages that decide what is found in a file."""
EXTERNAL = b"location"
"""Stands in a file whose weights are in others."""
MAX_FILE_BYTES = 2**31
MAX_KEPT = 500
"""Profiles above which those unused for longest are deleted."""


def kept_profile(folder: Path, path: str | Path, shapes: Mapping[str, Any], values: Mapping[str, Any]) -> Profile:
    """The profile of an ONNX file as `partway.dnn.graph.profile_model` makes it, from `folder` if it is there."""
    key = _key(Path(path), shapes, values)
    if key is None:
        return _made(path, shapes, values)
    file = folder / f"{key}.csv"
    with contextlib.suppress(InputError, OSError):  # a file that is missing or damaged is made again
        kept = read_profile(str(file))
        os.utime(file)
        return replace(kept, name=clean_name(Path(path).stem))
    profile = _made(path, shapes, values)
    with contextlib.suppress(OSError):  # a profile that cannot be kept is made again next time
        folder.mkdir(parents=True, exist_ok=True)
        files.write_whole(file, write_profile(profile).encode())
        _prune(folder)
    return profile


def _made(path: str | Path, shapes: Mapping[str, Any], values: Mapping[str, Any]) -> Profile:
    from partway.dnn import graph  # needs the extra `onnx`

    return graph.profile_model(path, shapes=shapes, values=values)


def _key(path: Path, shapes: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    """The hash of all that a profile is made from; None where it cannot be known."""
    try:
        content = files.read_limited(path, MAX_FILE_BYTES)
        versions = [importlib.metadata.version(name) for name in READERS]
    except (OSError, ValueError, importlib.metadata.PackageNotFoundError):
        return None
    if EXTERNAL in content:
        return None
    stated = sorted(shapes.items()), sorted(values.items())
    made_from = repr((path.name, stated, versions, provenance.package_hash())).encode()
    return hashlib.sha256(hashlib.sha256(content).digest() + made_from).hexdigest()[:40]


def _prune(folder: Path) -> None:
    kept = sorted(folder.glob("*.csv"), key=lambda file: file.stat().st_mtime)
    for file in kept[: max(0, len(kept) - MAX_KEPT)]:
        file.unlink(missing_ok=True)
