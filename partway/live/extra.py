"""Which extra is missing where a package of the live runtime cannot be imported."""

import importlib.util
import os

from partway.errors import InputError

PACKAGES = {"grpc": "grpcio", "google.protobuf": "protobuf", "onnxruntime": "onnxruntime", "onnx": "onnx"}
"""Packages of the extra `live`: module -> name in a registry."""


def missing() -> list[str]:
    """The packages of the extra that are not installed."""
    return [name for module, name in PACKAGES.items() if not _found(module)]


def require() -> None:
    """Raise InputError where a package of the extra is missing. Must be called before gRPC is imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a peer could make it write as many lines as it likes
    absent = missing()
    if absent:
        raise InputError(f"{', '.join(absent)} not installed: live needs the extra of `pip install 'partway[live]'`")


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
