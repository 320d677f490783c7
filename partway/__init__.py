"""Decide, block by block, how much of a DNN inference a wireless device runs and how much an edge server finishes."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from partway.bound.lower_bound import lower_bound
    from partway.controllers.base import DeviceController, DeviceView, ServerController, ServerView, uniform
    from partway.dnn.split import split
    from partway.errors import InputError
    from partway.experiments.comparison import compare
    from partway.experiments.evaluation import evaluate
    from partway.experiments.summary import summarise
    from partway.experiments.sweep.run import sweep
    from partway.figures import draw
    from partway.planner.answer import cut
    from partway.pytree import record
    from partway.scenario.loading import load
    from partway.scenario.schema import Scenario
    from partway.schemes import SCHEMES, Scheme
    from partway.system.equations import most_startable
    from partway.system.processes import Channel, Station, Traffic
    from partway.system.types import Device, DeviceAction, Server, ServerAction

__all__ = [
    "SCHEMES",
    "Channel",
    "Device",
    "DeviceAction",
    "DeviceController",
    "DeviceView",
    "InputError",
    "Scenario",
    "Scheme",
    "Server",
    "ServerAction",
    "ServerController",
    "ServerView",
    "Station",
    "Traffic",
    "compare",
    "cut",
    "draw",
    "evaluate",
    "load",
    "lower_bound",
    "most_startable",
    "record",
    "split",
    "summarise",
    "sweep",
    "uniform",
]

_HOME = {
    "SCHEMES": "schemes",
    "Channel": "system.processes",
    "Device": "system.types",
    "DeviceAction": "system.types",
    "DeviceController": "controllers.base",
    "DeviceView": "controllers.base",
    "InputError": "errors",
    "Scenario": "scenario.schema",
    "Scheme": "schemes",
    "Server": "system.types",
    "ServerAction": "system.types",
    "ServerController": "controllers.base",
    "ServerView": "controllers.base",
    "Station": "system.processes",
    "Traffic": "system.processes",
    "compare": "experiments.comparison",
    "cut": "planner.answer",
    "draw": "figures",
    "evaluate": "experiments.evaluation",
    "load": "scenario.loading",
    "lower_bound": "bound.lower_bound",
    "most_startable": "system.equations",
    "record": "pytree",
    "split": "dnn.split",
    "summarise": "experiments.summary",
    "sweep": "experiments.sweep.run",
    "uniform": "controllers.base",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: JAX takes a second, which `partway --help` need not wait."""
    from partway.errors import InputError, closest

    if name not in _HOME:
        near = None if name.startswith("_") else closest(name, _HOME)
        raise AttributeError(f"module 'partway' has no attribute '{name}'" + f"; did you mean '{near}'?" * bool(near))

    try:
        return getattr(importlib.import_module(f"partway.{_HOME[name]}"), name)
    except InputError as error:  # the extra that it needs is not installed
        return _missing(str(error))


def _missing(why: str) -> Callable[..., NoReturn]:
    """In place of a function that needs an extra: says so when it is called, so that `import *` needs no extra."""

    def needs_extra(*args: Any, **options: Any) -> NoReturn:
        from partway.errors import InputError

        raise InputError(why)

    return needs_extra
