"""Which channel and which traffic a scenario has: kinds that ship, by one word, and classes of your own.

A new kind is one class and one line here. `radio.fading` and `traffic` name a kind and give its parameters, which are
the fields of its class. No other module imports a kind.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from partway.arguments import checked_setting
from partway.errors import InputError, nearest, shorten, shown
from partway.scenario.schema import Process as Table
from partway.scenario.schema import Scenario
from partway.system.fading import GaussMarkov, Rayleigh
from partway.system.processes import Channel, Process, Traffic
from partway.system.trace import Trace
from partway.system.traffic import Bernoulli

T = TypeVar("T", bound=Process)
CHANNELS: dict[str, type[Channel]] = {"rayleigh": Rayleigh, "gauss_markov": GaussMarkov, "trace": Trace}
TRAFFIC: dict[str, type[Traffic]] = {"bernoulli": Bernoulli}
PAPER: dict[str, str] = {"radio.fading": "rayleigh", "traffic": "bernoulli"}
"""The paper's, by field."""


def channel_of(scenario: Scenario) -> Channel:
    """The channel of a scenario, with its parameters. Raises InputError."""
    return _made("radio.fading", scenario.radio.fading, CHANNELS, Channel)


def traffic_of(scenario: Scenario) -> Traffic:
    """The traffic of a scenario, with its parameters. Raises InputError."""
    return _made("traffic", scenario.traffic, TRAFFIC, Traffic)


def paper_channel() -> Channel:
    """The paper's."""
    return CHANNELS[PAPER["radio.fading"]]()


def paper_traffic() -> Traffic:
    """The paper's."""
    return TRAFFIC[PAPER["traffic"]]()


def is_paper(scenario: Scenario) -> bool:
    """Whether channels and traffic are the paper's."""
    given = {"radio.fading": scenario.radio.fading, "traffic": scenario.traffic}
    return all(table.kind == PAPER[field] and not table.parameters() for field, table in given.items())


def mean_radio_cost_is_infinite(scenario: Scenario) -> bool:
    """Whether a device that sends on any channel has an infinite mean radio cost, E[1/h]: nothing limits its power."""
    law = channel_of(scenario).law
    unlimited = any(np.isinf(kind.tx_power_max_w) for kind in scenario.device_classes())
    return unlimited and law is not None and law.mean_loss_is_infinite


def ships(process: Process) -> bool:
    """Whether a process is one of Partway's."""
    return type(process).__module__.partition(".")[0] == "partway"


def _made(field: str, table: Table, known: Mapping[str, type[T]], base: type[T]) -> T:
    """The process that a table of the scenario describes."""
    kind = _imported(field, table.kind, base) if ":" in table.kind else _found(field, table.kind, known)
    settable = {one.name: one.default for one in fields(kind) if isinstance(one.default, bool | int | float | str)}
    values = dict[str, Any]()
    for name, value in table.parameters().items():
        if name not in settable:
            hint = nearest(name, settable) if settable else f"; kind {shown(table.kind)} has no parameters"
            raise InputError(f"unknown field '{field}.{shorten(name)}'{hint}")
        values[name] = checked_setting(f"{field}.{name}", type(settable[name]), kind.limits.get(name), value)
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}.kind {shown(table.kind)}: {error}") from None


def _found(field: str, name: str, known: Mapping[str, type[T]]) -> type[T]:
    if name not in known:
        raise InputError(f"{field}.kind: no kind {shown(name)}{nearest(name, known)}; your own is module:Class")
    return known[name]


def _imported(field: str, path: str, base: type[T]) -> type[T]:
    """A class from outside; a module in the current folder is found."""
    module, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # a user's module can fail in any way, and may be a script that exits
        raise InputError(f"{field}.kind {shown(path)}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{field}.kind {shown(path)}: must be a subclass of partway.{base.__name__}")
    return found
