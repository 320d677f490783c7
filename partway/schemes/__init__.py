"""Schemes: the table of all that can be compared (`table`), what a row of it is (`scheme`), schemes by their names
(`lookup`), the hyperparameters of their controllers (`parameters`), and agents as schemes (`agents`). No JAX is imported
before a controller is used.
"""

from partway.schemes.agents import agent_scheme, environment_of, is_agent
from partway.schemes.lookup import as_scheme, explanations, find_scheme, learns, name_of, refuse_agents, stream_of
from partway.schemes.parameters import (
    check_hyperparameters,
    check_running,
    hyperparameters,
    names_of,
    pair_for,
    settable,
)
from partway.schemes.scheme import Deferred, Preparation, Scheme, controller
from partway.schemes.table import REFERENCE, SCHEMES

__all__ = [
    "REFERENCE",
    "SCHEMES",
    "Deferred",
    "Preparation",
    "Scheme",
    "agent_scheme",
    "as_scheme",
    "check_hyperparameters",
    "check_running",
    "controller",
    "environment_of",
    "explanations",
    "find_scheme",
    "hyperparameters",
    "is_agent",
    "learns",
    "name_of",
    "names_of",
    "pair_for",
    "refuse_agents",
    "settable",
    "stream_of",
]
