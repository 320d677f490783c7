"""Agents as schemes: their controllers do as they are told, and the agent is the one who tells them."""

import inspect
from collections.abc import Mapping
from typing import Any, cast

from partway.errors import InputError, shown
from partway.schemes.scheme import Scheme, controller
from partway.schemes.table import LEARNING_SERVER

ENVIRONMENTS = ("partway/Device-v0", "partway/System-v0")
"""Of agents: one acts for a device, one for the whole system."""


def is_agent(made: Any) -> bool:
    """Whether it answers observations: has `act` or `predict`, is compiled by `jax.jit`, or is a table of such."""
    from jax.stages import Wrapped

    from partway.controllers.base import DeviceController, ServerController

    if isinstance(made, Mapping):
        return bool(made) and all(map(is_agent, made.values()))
    if isinstance(made, type | DeviceController | ServerController):
        return False
    return isinstance(made, Wrapped) or any(callable(getattr(made, name, None)) for name in ("act", "predict"))


def environment_of(agent: Any) -> str:
    """The environment of an agent: what its attribute `environment` says, or the shape of its `observation_space`.

    An agent that has neither acts for a device. Raises InputError for an environment that does not exist.
    """
    from partway.controllers.observation import DEVICE_NUMBERS

    named, space = getattr(agent, "environment", None), getattr(agent, "observation_space", None)
    if named is not None:
        return _known(named)
    if space is None:
        return ENVIRONMENTS[0]
    shape = getattr(space, "shape", None)
    if not isinstance(shape, tuple) or len(cast(tuple[Any, ...], shape)) != 1:
        raise InputError(
            f"observation_space must be a vector of numbers, got {type(space).__name__} with the shape {shape}; "
            "agents observe what the environments of partway.env give"
        )
    return ENVIRONMENTS[0] if shape == (len(DEVICE_NUMBERS),) else ENVIRONMENTS[1]


def _known(environment: Any) -> str:
    if not isinstance(environment, str) or environment not in ENVIRONMENTS:
        raise InputError(f"environment must be {' or '.join(ENVIRONMENTS)}, got {shown(environment)}")
    return environment


def agent_scheme(agent: Any, environment: str | None = None) -> Scheme:
    """The scheme in which an agent acts: for every device by itself, for the whole system, or as its table says.

    environment  one of ENVIRONMENTS; None: `environment_of`. A server that has no agent is the post-decision one

    What a device's agent observes counts as signalling, as does what one agent for all needs to know and says.
    """
    about = (inspect.getdoc(type(agent)) or type(agent).__name__).split("\n")[0]
    told, server = controller("given:Given"), controller("given:GivenServer")
    if isinstance(agent, Mapping):
        both = "server_0" in agent
        return Scheme("agents", told, server if both else LEARNING_SERVER, signals=(int(both), 4), agent=agent)
    where = environment_of(agent) if environment is None else _known(environment)
    if where == ENVIRONMENTS[1]:
        return Scheme(about, told, server, signals=(3, 2), agent=agent)
    return Scheme(about, told, LEARNING_SERVER, signals=(0, 4), agent=agent)
