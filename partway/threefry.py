"""Threefry, the generator behind all randomness, for NumPy's arrays and JAX's: what needs no JAX does not import it."""

from typing import Any

import numpy as np

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
Words = tuple[Any, Any]
"""Two uint32 arrays, of JAX or of NumPy: a key, a counter, or what is drawn."""


def rounds(key: Words, counter: Words) -> Words:
    """Threefry-2x32 with 20 rounds: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011."""
    keys = (*key, key[0] ^ key[1] ^ np.uint32(PARITY))
    x, y = counter[0] + keys[0], counter[1] + keys[1]
    for turn in range(5):
        for rotation in ROTATIONS[:4] if turn % 2 == 0 else ROTATIONS[4:]:
            x = x + y
            y = x ^ (y << rotation | y >> (32 - rotation))
        x, y = x + keys[(turn + 1) % 3], y + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y


def folded(key: Words, number: int) -> Words:
    """`jax.random.fold_in`, or that number of `jax.random.split`, of keys in NumPy: nothing has to be compiled."""
    return rounds(key, (np.zeros_like(key[0]), np.full_like(key[1], number)))
