"""Schemes: the table of all that can be compared (`table`), what a row of it is (`scheme`), schemes by their names
(`lookup`) and the hyperparameters of their controllers (`parameters`). No JAX is imported before a controller is used.
"""

from partway.schemes.lookup import explanations, find_scheme, learns, name_of, stream_of
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
    "check_hyperparameters",
    "check_running",
    "controller",
    "explanations",
    "find_scheme",
    "hyperparameters",
    "learns",
    "name_of",
    "names_of",
    "pair_for",
    "settable",
    "stream_of",
]
