"""The law of the fading x, the channel gain divided by its mean: Exp(1), which is Rayleigh fading of the amplitude.

The functions that depend on this law are here: what is drawn in a run, the intervals that the bound integrates over,
and the quantiles of a plan. Two things elsewhere are chosen for it. The nodes of `partway.bound.device_program` suit
Exp(1): with them the bound holds for every law of mean 1, but may be looser. And E[1/x] is infinite, which is why
`Scheme.channel_blind` schemes have a warning.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

LAW = "Rayleigh"


def fading_from_uniform(uniform: jax.Array) -> jax.Array:
    """x from a uniform number in (0, 1): the x that is exceeded with this probability."""
    return -jnp.log(uniform)


def fading_quantile(probability: Any) -> np.ndarray:
    """x with P(fading <= x) = `probability`."""
    return -np.log1p(-np.asarray(probability, np.float64))


def probability_below(x: float) -> float:
    """P(fading <= x), exact for small x as well."""
    return float(-np.expm1(-x))


def interval_probabilities(x: np.ndarray) -> np.ndarray:
    """(nodes,) probability of the interval above each of the ascending nodes (nodes,); the last one is open."""
    return np.append(-np.diff(np.exp(-x)), np.exp(-x[-1]))


def interval_losses(x: np.ndarray) -> np.ndarray:
    """(nodes,) E[1/x; interval] of the same intervals."""
    return np.append(-np.diff(special.exp1(x)), special.exp1(x[-1]))
