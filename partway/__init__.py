"""Decide, block by block, how much of each DNN inference a wireless device runs itself and an edge server finishes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partway.comparison import compare
    from partway.controllers.base import DeviceController, ServerController
    from partway.errors import InputError
    from partway.model import DeviceAction, ServerAction, drain
    from partway.records import record
    from partway.results import summarise
    from partway.scenario import load
    from partway.schemes import SCHEMES, Scheme
    from partway.sections import Scenario
    from partway.sweep_run import sweep

__all__ = [
    "SCHEMES",
    "DeviceAction",
    "DeviceController",
    "InputError",
    "Scenario",
    "Scheme",
    "ServerAction",
    "ServerController",
    "compare",
    "drain",
    "load",
    "record",
    "summarise",
    "sweep",
]

_HOME = {
    "SCHEMES": "schemes",
    "DeviceAction": "model",
    "DeviceController": "controllers.base",
    "InputError": "errors",
    "Scenario": "sections",
    "Scheme": "schemes",
    "ServerAction": "model",
    "ServerController": "controllers.base",
    "compare": "comparison",
    "drain": "model",
    "load": "scenario",
    "record": "records",
    "summarise": "results",
    "sweep": "sweep_run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: JAX takes a second, which `partway --help` need not wait."""
    if name not in _HOME:
        raise AttributeError(f"module 'partway' has no attribute '{name}'")
    return getattr(importlib.import_module(f"partway.{_HOME[name]}"), name)
