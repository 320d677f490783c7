"""The law of the fading, the channel gain of a block divided by its mean: Rayleigh, so the gain is exponential.

Everything that depends on the law is in this file.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy import special

NAME = "Rayleigh"
USUAL = (1e-4, 30.0)
"""Values below and above which the fading hardly ever is."""


def from_uniform(uniform: jax.Array) -> jax.Array:
    """Fading, of mean 1, from numbers in (0, 1); any shape."""
    return -jnp.log(uniform)


def quantile(probability: ArrayLike) -> np.ndarray:
    """x with P(fading <= x) = `probability`, in [0, 1); any shape."""
    return -np.log1p(-np.asarray(probability, np.float64))


def at_most(x: ArrayLike) -> Any:
    """P(fading <= x); any shape."""
    return -np.expm1(-np.asarray(x, np.float64))


def at_least(x: ArrayLike) -> Any:
    """P(fading >= x); any shape."""
    return np.exp(-np.asarray(x, np.float64))


def mean_inverse_above(x: ArrayLike) -> Any:
    """E[1 / fading; fading >= x], infinite at x = 0; any shape."""
    return special.exp1(np.asarray(x, np.float64))
