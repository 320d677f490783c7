"""Decide, block by block, how much of each DNN inference a wireless device runs itself and an edge server finishes."""

from partway.comparison import compare
from partway.controllers.base import DeviceController, ServerController
from partway.errors import InputError
from partway.model import DeviceAction, ServerAction, drain
from partway.record import record
from partway.results import summarise
from partway.scenario import Scenario, load
from partway.schemes import SCHEMES, Scheme

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
]
