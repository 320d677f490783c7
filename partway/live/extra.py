"""Which extra is missing where a package of the live runtime cannot be imported."""

import importlib.util
import os

from partway.errors import InputError

PACKAGES = {
    "grpc": "grpcio",
    "google.protobuf": "protobuf",
    "onnxruntime": "onnxruntime",
    "onnx": "onnx",
    "onnxslim": "onnxslim",
    "onnx_ir": "onnx-ir",
}
"""Packages of the extra `live` without which there is no live run: module -> name in a registry."""
PACKAGES_FOR = {
    "--metrics": {"prometheus_client": "prometheus-client"},
    "the page": {"starlette": "starlette", "uvicorn": "uvicorn"},
}
"""Those that only a part of it needs."""


def missing() -> list[str]:
    """The packages of the extra that are not installed."""
    return [name for module, name in PACKAGES.items() if not _found(module)]


def require() -> None:
    """Raise InputError where a package of the extra is missing. Must be called before gRPC is imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a peer could make it write as many lines as it likes
    absent = missing()
    if absent:
        raise InputError(f"{', '.join(absent)} not installed: live needs the extra 'live', pip install 'partway[live]'")


def require_for(what: str) -> None:
    """Raise InputError where a package is missing that only a part needs, by its name in PACKAGES_FOR."""
    absent = [name for module, name in PACKAGES_FOR[what].items() if not _found(module)]
    if absent:
        raise InputError(
            f"{', '.join(absent)} not installed: {what} needs the extra 'live', pip install 'partway[live]'"
        )


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
