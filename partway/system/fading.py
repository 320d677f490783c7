"""The law of the fading x, the channel gain divided by its mean: independent over blocks, or with a memory.

A law is one class here and one line in `partway.system.kinds`; whatever depends on it asks the class: what is drawn in
a run, the intervals that the bound integrates over, and the quantiles of a plan. Only the nodes of
`partway.bound.device_program` are chosen for `Rayleigh`: the bound holds with them for every law of mean 1, but may be
looser.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from partway.arguments import Limits
from partway.rng import stream, words
from partway.system.processes import Channel, Law, ProcessState, Station, normal_pair, uniform

LEAST = 2.0**-24
"""The least fading that is drawn: that of `Rayleigh` from 23 bits."""


class Independent(Channel):
    """Base of channels whose fading is independent over blocks, with the functions of `Law`."""

    memory: ClassVar[bool] = False
    name: ClassVar[str] = ""
    mean_loss_is_infinite: ClassVar[bool] = False

    @property
    def law(self) -> Law:
        """Its own."""
        return self

    def from_uniform(self, uniform: jax.Array) -> jax.Array:
        """x from a uniform number in (0, 1): the x that is exceeded with this probability."""
        raise NotImplementedError

    def quantile(self, probability: Any) -> np.ndarray:
        """`Law.quantile`."""
        raise NotImplementedError

    def probability_below(self, x: float) -> float:
        """`Law.probability_below`."""
        raise NotImplementedError

    def interval_probabilities(self, x: np.ndarray) -> np.ndarray:
        """`Law.interval_probabilities`."""
        raise NotImplementedError

    def interval_losses(self, x: np.ndarray) -> np.ndarray:
        """`Law.interval_losses`."""
        raise NotImplementedError

    def draw(
        self, state: ProcessState, seed: jax.Array, blocks: jax.Array, stations: Station
    ) -> tuple[ProcessState, jax.Array]:
        """h (..., K) of any blocks (...): mean gain times fading, drawn in the block before."""
        mean = stations.mean_gain
        word, _ = words(stream(seed), jnp.asarray(blocks, jnp.uint32) - 1, mean.shape[-1])
        return state, mean * self.from_uniform(uniform(word, mean.dtype))


class Rayleigh(Independent):
    """Rayleigh fading of the amplitude, Exp(1) of the gain, independent in every block: the paper's law."""

    name: ClassVar[str] = "Rayleigh"
    mean_loss_is_infinite: ClassVar[bool] = True

    def from_uniform(self, uniform: jax.Array) -> jax.Array:
        """x from a uniform number in (0, 1): the x that is exceeded with this probability."""
        return -jnp.log(uniform)

    def quantile(self, probability: Any) -> np.ndarray:
        """`Law.quantile`."""
        return -np.log1p(-np.asarray(probability, np.float64))

    def probability_below(self, x: float) -> float:
        """`Law.probability_below`."""
        return float(-np.expm1(-x))

    def interval_probabilities(self, x: np.ndarray) -> np.ndarray:
        """`Law.interval_probabilities`."""
        return np.append(-np.diff(np.exp(-x)), np.exp(-x[-1]))

    def interval_losses(self, x: np.ndarray) -> np.ndarray:
        """`Law.interval_losses`."""
        return np.append(-np.diff(special.exp1(x)), special.exp1(x[-1]))


class GaussMarkov(Channel):
    """Rayleigh fading that remembers: a complex Gauss-Markov amplitude z, of which the gain is |z|^2.

        z_(t+1) = a z_t + sqrt(1 - a^2) w_t,     z_0 and w_t independent complex normal, E |w|^2 = 1

    In every block |z|^2 is Exp(1), as in `Rayleigh`; the gains of blocks t and t + k have the correlation a^(2 k).

    lag_correlation  a^2, correlation of the gain from one block to the next. A device whose Doppler frequency is f has
                     J0(2 pi f n tau)^2 (Clarke)
    """

    lag_correlation: float = 0.9
    limits: ClassVar[Mapping[str, Limits]] = {"lag_correlation": (0.0, 1.0)}

    @property
    def law(self) -> Law:
        """Of every block by itself, Rayleigh's."""
        return Rayleigh()

    def init(self, key: jax.Array, device: Station) -> ProcessState:
        """(real part, imaginary part) of z, each with variance 1/2."""
        return _complex_normal(key, device)

    def step(
        self, state: ProcessState, key: jax.Array, device: Station, block: jax.Array
    ) -> tuple[ProcessState, jax.Array]:
        """z, and h = mean gain times |z|^2, which is never 0: no power could overcome it."""
        del block
        kept = jnp.sqrt(jnp.asarray(self.lag_correlation, device.mean_gain.dtype))
        new = jnp.sqrt(1.0 - kept**2)
        real, imaginary = (kept * z + new * w for z, w in zip(state, _complex_normal(key, device), strict=True))
        return (real, imaginary), device.mean_gain * jnp.maximum(real**2 + imaginary**2, LEAST)


def _complex_normal(key: jax.Array, device: Station) -> tuple[jax.Array, jax.Array]:
    real, imaginary = normal_pair(key, device.mean_gain.dtype)
    return real * 0.5**0.5, imaginary * 0.5**0.5
