"""Decide, block by block, how much of each DNN inference a wireless device runs itself and an edge server finishes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partway.controllers.base import DeviceController, ServerController
    from partway.errors import InputError
    from partway.experiments.comparison import compare
    from partway.experiments.summary import summarise
    from partway.experiments.sweep.run import sweep
    from partway.pytree import record
    from partway.scenario.loading import load
    from partway.scenario.schema import Scenario
    from partway.schemes import SCHEMES, Scheme
    from partway.system.equations import most_startable
    from partway.system.types import DeviceAction, ServerAction

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
    "DeviceAction": "system.types",
    "DeviceController": "controllers.base",
    "InputError": "errors",
    "Scenario": "scenario.schema",
    "Scheme": "schemes",
    "ServerAction": "system.types",
    "ServerController": "controllers.base",
    "compare": "experiments.comparison",
    "drain": "system.equations",
    "load": "scenario.loading",
    "record": "pytree",
    "summarise": "experiments.summary",
    "sweep": "experiments.sweep.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: JAX takes a second, which `partway --help` need not wait."""
    if name not in _HOME:
        raise AttributeError(f"module 'partway' has no attribute '{name}'")
    return getattr(importlib.import_module(f"partway.{_HOME[name]}"), name)
