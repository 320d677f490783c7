"""Hyperparameters: the fields of a scheme's controllers that a scenario sets in its [schemes.NAME] tables."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from partway.arguments import checked_setting
from partway.errors import InputError, nearest, shorten
from partway.schemes.lookup import find_scheme

if TYPE_CHECKING:
    from partway.controllers.base import ControllerPair
    from partway.scenario.schema import Scenario


def pair_for(name: str, scenario: "Scenario", server: str | None = None) -> "ControllerPair":
    """The scheme's two controllers with the scenario's hyperparameters; `server` takes another scheme's server.

    A hyperparameter of both, such as `step`, is set for both by its name, for one alone by `device_step` and
    `server_step`. Raises InputError for a hyperparameter that neither has, or a value that it cannot have.
    """
    from partway.controllers.base import ControllerPair

    scheme = find_scheme(name)
    serving = scheme.server if server is None else find_scheme(server).server
    given = scenario.schemes.get(name, {})
    pair = ControllerPair(_with(scheme.device, "device", given, name), _with(serving, "server", given, name))
    known = {**settable(pair.device), **settable(pair.server)}
    known |= {**names_of("device", pair.device), **names_of("server", pair.server)}
    unknown = [field for field in given if field not in known]
    if unknown:
        field, value = unknown[0], getattr(pair.device, unknown[0], None)
        if isinstance(value, int | float | str):
            typed = f"{field}: {type(value).__name__} = {value!r}"
            raise InputError(f"'schemes.{name}.{field}' cannot be set: it has no type; write `{typed}` in the class")
        raise InputError(f"unknown field 'schemes.{name}.{field}'{nearest(field, known)}")
    return pair


def check_hyperparameters(scenario: "Scenario", named: Collection[str] = ()) -> None:
    """Raise InputError for a [schemes.NAME] table whose scheme or field does not exist.

    named  schemes that the user has named. Only these are imported if they are from outside: a file imports no code
    """
    for name in scenario.schemes:
        if ":" in name and name not in named:
            raise InputError(
                f"schemes.{shorten(name)}: a scenario imports no code; name this scheme with --schemes or --server "
                "too, or remove its table"
            )
        pair_for(name, scenario)


def check_running(overrides: Mapping[str, Any] | Sequence[str], running: Collection[str], given: str = "--set") -> None:
    """Raise InputError for an override of a scheme that does not exist, or is not among those that run.

    given  what has given the overrides, for the message
    """
    from partway.scenario.overrides import schemes_set  # imports pydantic, which the names above need not wait for

    for name in schemes_set(overrides):
        if name in running:
            continue
        if ":" not in name:
            find_scheme(name)
        those = f"; what runs is {shorten(', '.join(running), 100)}" if running else ""
        raise InputError(
            f"{given} schemes.{shorten(name)}: does nothing, because '{shorten(name)}' does not run{those}"
        )


def hyperparameters(name: str) -> dict[str, Any]:
    """Field names and defaults of a scheme, device and server together."""
    scheme = find_scheme(name)
    return {**settable(scheme.server), **settable(scheme.device)}


def settable(party: Any) -> dict[str, Any]:
    """The fields a scenario may set: numbers, switches and words, no arrays."""
    plain = (bool, int, float, str)
    return {field.name: getattr(party, field.name) for field in fields(party) if isinstance(field.default, plain)}


def names_of(which: str, party: Any) -> dict[str, str]:
    """Name in a scenario -> field, of a party ("device" or "server"): each by its own name, then with the party's."""
    own = settable(party)
    return {name: name for name in own} | {f"{which}_{name}": name for name in own}


def _with(party: Any, which: str, given: Mapping[str, Any], scheme: str) -> Any:
    own, changes = settable(party), dict[str, Any]()
    for name, field in names_of(which, party).items():  # `device_step` comes later and overrides `step`
        if name in given:
            where = f"schemes.{scheme}.{name}"
            changes[field] = checked_setting(where, type(own[field]), party.limits.get(field), given[name])
    return replace(party, **changes)
