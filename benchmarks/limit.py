"""The limit: what a device-block needs, counted by hand, and how fast this machine does each kind of it at its best.

    time of a device-block >= max(sum over kinds of count / measured rate, bytes / measured memory rate)

Where the state of the devices stays in the cache from one block to the next, the second is no bound; the first is.

The counts are those of the algorithm as it is written down, for one class of devices, with nothing computed twice in a
block. A multiply with an add counts once; so do an add, a minimum and a comparison that stand alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.parametric import Algorithm1
from partway.controllers.postdecision import Priced
from partway.dnn.cuts import CONTINUOUS_CUTS
from partway.rng import threefry

LANES = 16_384
"""Numbers of a kernel that stays in the cache."""
STREAMED = 2**26
"""Numbers of the kernel that does not."""
MATRIX = {"cpu": 768, "accelerator": 4096}
"""Rows and columns of the matrices that are multiplied."""
CHAIN = 16
"""Sigmoids, or words, one after the other in a kernel, so that the arithmetic decides and not the memory."""


@dataclass(frozen=True)
class Count:
    """What one device-block needs.

    multiply_adds
    sigmoids  log and exp among them
    words     random ones of 32 bits, two at a time by Threefry
    numbers   read or written, if no memory of a device stays in the cache from one block to the next
    """

    multiply_adds: int
    sigmoids: int
    words: int
    numbers: int

    def flops(self) -> int:
        """A multiply-add is two, a sigmoid four by name: negation, exponential, sum, reciprocal."""
        return 2 * self.multiply_adds + 4 * self.sigmoids


def counts(slots: int, max_tasks_per_block: int) -> dict[str, Count]:
    """What a device-block of each measured scheme needs.

    parametric-printed  features of two states, ten operations on each feature, and a column of the server's features
    priced              c(j) over the cuts twice (cost, minimum), the cut of the choice, U(m), backup and step of V
    """
    m, q, cuts, scalars = Algorithm1().features, Priced().states, CONTINUOUS_CUTS, 40
    most = max_tasks_per_block
    printed = Count(
        multiply_adds=2 * m * (3 + slots) + 10 * m + 2 * m + scalars,
        sigmoids=2 * m + 3,
        words=2,
        numbers=2 * m + 2 * m + 2 * (5 + slots),
    )
    priced = Count(
        multiply_adds=(2 * most + 2 + 4) * cuts + (slots + 1) * q + 2 * most * q + 2 * q + scalars,
        sigmoids=3,
        words=2,
        numbers=2 * (q + slots + 1) + 2 * (5 + slots),
    )
    return {"parametric-printed": printed, "priced": priced}


@dataclass(frozen=True)
class Peaks:
    """Best measured rates of one or more cores [1/s]; `bytes` is of a stream read and written in place."""

    multiply_adds: float
    sigmoids: float
    words: float
    bytes: float


def limit_s(count: Count, peaks: Peaks, number_bytes: int) -> tuple[float, float]:
    """(arithmetic, memory) seconds of a device-block at best."""
    arithmetic = count.multiply_adds / peaks.multiply_adds + count.sigmoids / peaks.sigmoids + count.words / peaks.words
    return arithmetic, count.numbers * number_bytes / peaks.bytes


def peaks(precision: str, seconds: float = 0.3) -> dict[str, float]:
    """The best rates of this process's cores: sums by matrix product or chain, sigmoids by XLA or NumPy.

    Of an accelerator, if JAX has one: NumPy, which would measure the host, is left out.
    """
    with jax.enable_x64(precision == "float64"):
        dtype, alone = np.dtype(precision).type, jax.default_backend() == "cpu"
        lanes, product = (LANES, _matrix) if alone else (STREAMED, _matrix_on_accelerator)
        x = np.linspace(-3, 3, lanes, dtype=dtype)
        return {
            "multiply_adds": max(product(dtype, seconds), _xla(_multiply_add, x, 4 * CHAIN, seconds)),
            "sigmoids": max(_xla(_sigmoids, x, CHAIN, seconds), _numpy_sigmoid(x, seconds) if alone else 0.0),
            "words": _xla(_words, np.arange(lanes, dtype=np.uint32), 2 * CHAIN, seconds),
            "bytes": max(_stream(dtype, seconds), _numpy_stream(dtype, seconds) if alone else 0.0),
        }


def _multiply_add(x: jax.Array) -> jax.Array:
    y = x
    for _ in range(4 * CHAIN):
        y = y * x + x
    return y


def _sigmoids(x: jax.Array) -> jax.Array:
    for _ in range(CHAIN):
        x = jax.nn.sigmoid(x)
    return x


def _words(x: jax.Array) -> jax.Array:
    y = x
    for _ in range(CHAIN):
        x, y = threefry((jnp.uint32(1), jnp.uint32(2)), (x, y))
    return x ^ y


def _xla(kernel: Callable[[Any], Any], x: Any, each: int, seconds: float) -> float:
    """Operations a second of a compiled kernel that does `each` of them to every number."""
    compiled, x = jax.jit(kernel), jnp.asarray(x)
    return x.size * each * _calls(lambda: jax.block_until_ready(compiled(x)), seconds)


def _matrix(dtype: Any, seconds: float) -> float:
    size = MATRIX["cpu"]
    a = np.ones((size, size), dtype)
    out = np.empty_like(a)
    return size**3 * _calls(lambda: np.matmul(a, a, out=out), seconds)


def _matrix_on_accelerator(dtype: Any, seconds: float) -> float:
    """In the precision asked for, not in the shorter one that such a device takes by itself."""
    size = MATRIX["accelerator"]
    return _xla(lambda a: jnp.matmul(a, a, precision="highest"), np.ones((size, size), dtype), size, seconds)


def _numpy_sigmoid(x: Any, seconds: float) -> float:
    out = np.empty_like(x)

    def once() -> None:
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, 1.0, out=out)
        np.reciprocal(out, out=out)

    return x.size * _calls(once, seconds)


def _stream(dtype: Any, seconds: float) -> float:
    """Bytes a second read and written in place: the pages of a new result would take ten times as long to come by."""
    compiled, held = jax.jit(lambda y: y * dtype(0.999), donate_argnums=0), [jnp.ones(STREAMED, dtype)]

    def once() -> None:
        held[0] = jax.block_until_ready(compiled(held[0]))

    return 2 * held[0].nbytes * _calls(once, seconds)


def _numpy_stream(dtype: Any, seconds: float) -> float:
    numbers = np.ones(STREAMED, dtype)
    return 2 * numbers.nbytes * _calls(lambda: np.multiply(numbers, dtype(0.999), out=numbers), seconds)


def _calls(once: Callable[[], Any], seconds: float) -> float:
    """Calls a second: the best of five stretches, since a peak is asked for."""
    once()
    best = 0.0
    for _ in range(5):
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 5:
            once()
            done += 1
        best = max(best, done / (time.perf_counter() - start))
    return best
