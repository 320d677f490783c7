"""The laws by which tasks arrive."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from partway.rng import stream, words
from partway.system.processes import SLOTS_PER_WORD, ProcessState, Station, Traffic


class Bernoulli(Traffic):
    """A task arrives with the probability `arrival_prob` in every slot, independently: the paper's law."""

    def arrivals_in_a_block(self, stations: Station) -> np.ndarray:
        """The binomial distribution."""
        probability, count = (np.asarray(stations.arrival_threshold) / 2.0**32)[:, None], np.arange(stations.slots + 1)
        ways = special.binom(stations.slots, count)  # without half a second for scipy.stats
        return ways * probability**count * (1 - probability) ** count[::-1]

    def draw(
        self, state: ProcessState, seed: jax.Array, blocks: jax.Array, stations: Station
    ) -> tuple[ProcessState, jax.Array]:
        """(..., words, K) the arrivals of any blocks (...), eight slots in a word.

        One random word decides them: it is a point in an interval that each slot splits at b and keeps one side of, in
        whole numbers, so that float32, float64, CPU and GPU draw the same. b = 1 fails once in 2^31 slots.
        """
        slots, threshold, packed = stations.slots, stations.arrival_threshold, list[jax.Array]()
        for first in range(0, slots, SLOTS_PER_WORD):
            _, point = words(stream(seed, first // SLOTS_PER_WORD), blocks, threshold.shape[-1])
            width, bits = jnp.full_like(point, 2**32 - 1), jnp.zeros_like(point)
            for slot in range(min(SLOTS_PER_WORD, slots - first)):
                split = product_high(width, threshold)
                arrives = point < split
                point, width = jnp.where(arrives, point, point - split), jnp.where(arrives, split, width - split)
                bits = bits | arrives.astype(jnp.uint32) << slot
            packed.append(bits)
        return state, jnp.stack(packed, axis=-2)


@jax.jit
def product_high(a: jax.Array, b: jax.Array) -> jax.Array:
    """The upper 32 bits of the 64-bit product of two uint32."""
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = a_high * b_low + ((a_low * b_low) >> 16)
    carry = a_low * b_high + (middle & 0xFFFF)
    return a_high * b_high + (middle >> 16) + (carry >> 16)
