"""Schemes by their names, whether they ship or come from outside, and what is known of their controllers."""

import importlib
import inspect
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from partway.errors import InputError, nearest, shorten, shown
from partway.schemes.agents import agent_scheme, is_agent
from partway.schemes.scheme import Scheme
from partway.schemes.table import LEARNING_SERVER, SCHEMES


def find_scheme(name: str) -> Scheme:
    """The scheme of that name, or `module:ATTRIBUTE` from outside: a Scheme, a device controller or an agent.

    A module in the current folder is found. A device controller alone runs with the post-decision server. Raises
    InputError for a name that is not known and for a module that cannot be imported.
    """
    if ":" in name:
        return _imported(name)
    if name not in SCHEMES:
        raise InputError(f"no scheme {shown(name)}{nearest(name, SCHEMES)}")
    return as_scheme(name, SCHEMES[name])


def name_of(given: Any, argument: str) -> str:
    """The name of a scheme that is given by its name, as a row of SCHEMES, or as a class of device controllers.

    Raises InputError, which names the argument, for anything else.
    """
    if isinstance(given, str):
        return given
    name = next((name for name, row in SCHEMES.items() if row is given), None)
    if name is None and isinstance(given, type):
        name = f"{given.__module__}:{given.__qualname__}"
        name = name if getattr(sys.modules.get(given.__module__), given.__qualname__, None) is given else None
    if name is None:
        what = given.__name__ if isinstance(given, type) else type(given).__name__
        raise InputError(
            f"{argument} takes names, got {what}; add it to the table, partway.SCHEMES['mine'] = partway.Scheme(...), "
            "and give 'mine'"
        )
    return name


def stream_of(name: str) -> str:
    """The label of a scheme's random numbers."""
    return find_scheme(name).stream or name


def _imported(name: str) -> Scheme:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        given = getattr(importlib.import_module(module), attribute)
        return as_scheme(name, given() if isinstance(given, type) else given)
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a user's module can fail in any way, and may be a script that exits
        raise InputError(f"scheme '{name}': {type(error).__name__}: {error}") from error


def as_scheme(name: str, made: Any) -> Scheme:
    """A scheme, a device controller with the post-decision server, or an agent. Raises InputError for anything else."""
    if isinstance(made, Scheme):
        return made
    from partway.controllers.base import DeviceController

    made = made() if isinstance(made, type) and issubclass(made, DeviceController) else made
    if is_agent(made):
        return agent_scheme(made)
    if not isinstance(made, DeviceController):
        hint = "; compile a function with jax.jit, or make it the method act of a class" if callable(made) else ""
        raise InputError(
            f"scheme '{name}': expected a Scheme, a DeviceController or an agent with act or predict, "
            f"got {type(made).__name__}{hint}"
        )
    return Scheme((type(made).__doc__ or name).split("\n")[0], made, LEARNING_SERVER)


def refuse_agents(names: Collection[str], command: str) -> None:
    """Raise InputError where an agent, which runs in `compare` alone, is among the schemes of a command."""
    for name in names:
        if find_scheme(name).agent is not None:
            raise InputError(f"scheme '{shorten(name)}' is an agent: `compare` runs it, {command} does not")


def explanations(name: str) -> list[str]:
    """What a scheme's controllers are and what their fields mean, in the words of their docstrings."""
    from partway.controllers.base import DeviceController, ServerController

    scheme, bases = find_scheme(name), (DeviceController, ServerController, object)
    kinds = [kind for party in (scheme.device, scheme.server) for kind in type(party).__mro__ if kind not in bases]
    return [words for words in (inspect.getdoc(kind) for kind in dict.fromkeys(kinds)) if words]


def learns(name: str) -> bool:
    """Whether the devices of a scheme learn."""
    from partway.controllers.base import DeviceController

    return type(find_scheme(name).device).learn is not DeviceController.learn
