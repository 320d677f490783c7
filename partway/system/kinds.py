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
from partway.system.processes import Channel, Law, Process, Station, Traffic
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


def trace_gains(path: str, station: Station) -> np.ndarray:
    """(blocks,) the gains [1/W] in a trace for one device, whose numbers are scalars. Raises InputError."""
    return Trace(file=path, loop=True).prepared(station).gains(station)


def is_paper(scenario: Scenario) -> bool:
    """Whether channels and traffic are the paper's."""
    given = {"radio.fading": scenario.radio.fading, "traffic": scenario.traffic}
    return all(table.kind == PAPER[field] and not table.parameters() for field, table in given.items())


def mean_radio_cost_is_infinite(scenario: Scenario) -> bool:
    """Whether a device that sends on any channel has an infinite mean radio cost, E[1/h]: nothing limits its power."""
    law = law_of(channel_of(scenario))
    unlimited = any(np.isinf(kind.tx_power_max_w) for kind in scenario.device_classes())
    return unlimited and law is not None and law.mean_loss_is_infinite


def ships(process: Process) -> bool:
    """Whether a process is one of Partway's."""
    return type(process).__module__.partition(".")[0] == "partway"


def host_value(field: str, process: Process, method: str, *arguments: Any) -> Any:
    """What a method of a process returns, or the value of its property, on the host.

    Raises InputError where the code of a class from outside fails.
    """
    try:
        found = getattr(process, method)
        return found(*arguments) if callable(found) else found
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a user's code can fail in any way
        if ships(process):
            raise
        where = f"{field}: {type(process).__name__}.{method}"
        raise InputError(f"{where}: {type(error).__name__}: {shorten(' '.join(str(error).split()), 160)}") from error


def mean_gains(channel: Channel, stations: Station) -> np.ndarray:
    """(K,) `Channel.mean_gain`, which must be positive: raises InputError where that of a class from outside is not."""
    try:
        gain = np.asarray(host_value("radio.fading", channel, "mean_gain", stations), np.float64)
    except (TypeError, ValueError):
        gain = np.empty(0)
    if gain.shape != np.shape(stations.mean_gain) or not np.all((gain > 0) & np.isfinite(gain)):
        raise InputError(
            f"radio.fading: {type(channel).__name__}.mean_gain must return one finite number above 0 for each device"
        )
    return gain


def law_of(channel: Channel) -> Law | None:
    """`Channel.law`. Raises InputError where that of a class from outside is not a law."""
    law = host_value("radio.fading", channel, "law")
    if law is not None and not isinstance(law, Law):
        raise InputError(
            f"radio.fading: {type(channel).__name__}.law must be None or have what partway.system.processes:Law has, "
            f"got {type(law).__name__}"
        )
    return law


def relative_rates(traffic: Traffic, stations: Station) -> np.ndarray:
    """(K,) `Traffic.relative_rate`, at least 0: raises InputError where that of a class from outside is not."""
    try:
        rate = np.asarray(host_value("traffic", traffic, "relative_rate", stations), np.float64)
        rates = np.broadcast_to(rate, np.shape(stations.mean_gain))
    except (TypeError, ValueError):
        rates = np.array(np.nan)
    if not np.all((rates >= 0) & np.isfinite(rates)):
        raise InputError(
            f"traffic: {type(traffic).__name__}.relative_rate must return one finite number of at least 0, or one for "
            "each device"
        )
    return rates


def arrival_probabilities(traffic: Traffic, stations: Station) -> np.ndarray | None:
    """(K, n + 1) `Traffic.arrivals_in_a_block`; raises InputError unless those of a class from outside are such."""
    given = host_value("traffic", traffic, "arrivals_in_a_block", stations)
    if given is None:
        return None
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    shape = (*np.shape(stations.mean_gain), stations.slots + 1)
    if found.shape != shape or not np.all(found >= 0) or not np.allclose(found.sum(axis=-1), 1.0, atol=1e-6):
        raise InputError(
            f"traffic: {type(traffic).__name__}.arrivals_in_a_block must return probabilities of shape {shape}, each "
            "row with the sum 1"
        )
    return found


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
