"""A world as a NumPy user would describe it: one class of devices at many places, and one server.

Legend of the rivals: S runs (seeds), K devices, n slots, M features, C cuts, Q states of a table; runs first, devices
last.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerPair
from partway.controllers.features import ServerWeights
from partway.controllers.parametric import Algorithm1, Algorithm2
from partway.pytree import cast_floats
from partway.schemes import stream_of
from partway.simulation.rollout import init_runs
from partway.system.equations import LN2
from partway.system.exogenous import gains, sample, unpack
from partway.system.world import World

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fleet:
    """Numbers of one class of devices and of its server, all of one precision, in the units of `partway.system.types`.

    reach      ln 2 times the spectral efficiency of one task: `offload` takes snr_gap / h (e^(reach offload) - 1) [W]
    share      (C,) the fraction sent at each cut
    mean_gain  (K,) [1/W]
    """

    devices: int
    slots: int
    broadcast_delay_blocks: int
    max_tasks_per_block: int
    dtype: Any
    arrival_prob: float
    capacity: Any
    energy_coef: Any
    queue_weight: Any
    energy_weight: Any
    slot_s: Any
    snr_gap: Any
    reach: Any
    discount: Any
    server_capacity: Any
    server_coef: Any
    server_queue_weight: Any
    server_energy_weight: Any
    share: Array
    mean_gain: Array


def fleet_of(world: World, precision: str) -> Fleet:
    """The numbers of a world of equal devices with the paper's task, whose broadcast arrives at least a block late.

    Raises ValueError for any other world: the rivals leave out what only other worlds need.
    """
    one, dtype = _one_class(world), np.dtype(precision).type
    device, server = one.devices, one.server
    if (
        not bool(device.task.proportional)
        or device.capacity < 1
        or np.isfinite(device.tx_power_max_w)
        or server.broadcast_delay_blocks < 1
    ):
        raise ValueError("the rivals know equal devices of the preset `paper` only, with broadcast_delay_blocks from 1")
    numbers = {
        "capacity": device.capacity,
        "energy_coef": device.energy_coef,
        "queue_weight": device.queue_weight,
        "energy_weight": device.energy_weight,
        "slot_s": device.slot_s,
        "snr_gap": device.snr_gap,
        "reach": LN2 * device.task.bits_per_task / (device.slot_s * device.bandwidth_hz),
        "discount": device.discount,
        "server_capacity": server.slot_capacity,
        "server_coef": server.energy_coef,
        "server_queue_weight": server.queue_weight,
        "server_energy_weight": server.energy_weight,
        "share": device.task.share,
        "mean_gain": world.devices.mean_gain,
    }
    return Fleet(
        devices=world.devices.mean_gain.shape[-1],
        slots=device.slots,
        broadcast_delay_blocks=server.broadcast_delay_blocks,
        max_tasks_per_block=device.max_tasks_per_block,
        dtype=dtype,
        arrival_prob=float(one.arrival_threshold) / 2.0**32,
        **{name: np.asarray(value, dtype)[()] for name, value in numbers.items()},
    )


def _one_class(world: World) -> World:
    """The world of its first device, whose other devices differ in nothing but their gains."""
    first, last = (jax.tree.map(lambda leaf, at=at: leaf[..., at], world.devices) for at in (0, -1))
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(last), strict=True)]
    if same.count(False) > 1:
        raise ValueError("the rivals know fleets of one class of devices only")
    return replace(world, devices=first, arrival_threshold=world.arrival_threshold[0])


class Chance(Protocol):
    """What is random: `first` (S, K) gains of block 0; `block(t)` arrivals (S, n, K) and the next gains (S, K)."""

    def first(self) -> Array: ...

    def block(self, t: int) -> tuple[Array, Array]: ...


class OwnDraws:
    """NumPy's generator, as a user would call it: for measuring time, its cost included."""

    def __init__(self, fleet: Fleet, runs: int, seed: int = 0):
        self.fleet, self.runs, self.random = fleet, runs, np.random.Generator(np.random.SFC64(seed))

    def first(self) -> Array:
        size = (self.runs, self.fleet.devices)
        return self.fleet.mean_gain * self.random.standard_exponential(size, dtype=self.fleet.dtype)

    def block(self, t: int) -> tuple[Array, Array]:
        uniform = self.random.random((self.runs, self.fleet.slots, self.fleet.devices), dtype=np.float32)
        return (uniform < self.fleet.arrival_prob).astype(self.fleet.dtype), self.first()


@dataclass(frozen=True)
class RecordedDraws:
    """What Partway draws, made beforehand, for comparing: gains (blocks + 1, S, K), arrivals (blocks, S, n, K)."""

    gains: Array
    arrivals: Array

    def first(self) -> Array:
        return self.gains[0]

    def block(self, t: int) -> tuple[Array, Array]:
        return self.arrivals[t], self.gains[t + 1]

    def of(self, runs: slice) -> "RecordedDraws":
        """Those of some of the runs."""
        return RecordedDraws(self.gains[:, runs], self.arrivals[:, runs])


def recorded(world: World, seeds: list[int], blocks: int, precision: str) -> RecordedDraws:
    """What Partway draws for these seeds."""
    with jax.enable_x64(precision == "float64"):
        concrete, numbers = cast_floats(world, precision), jnp.asarray(seeds, jnp.uint32)
        of_seeds = jax.vmap(
            lambda seed, t: unpack(concrete.devices.slots, sample(concrete, seed, t)), in_axes=(0, None)
        )
        drawn = jax.jit(jax.vmap(of_seeds, in_axes=(None, 0)))(numbers, jnp.arange(blocks, dtype=jnp.uint32))
        first = jax.vmap(lambda seed: gains(concrete, seed, 0))(numbers)
        return RecordedDraws(np.concatenate([first[None], drawn.gain]), np.asarray(drawn.arrivals))


@dataclass(frozen=True)
class Features:
    """Random features of `parametric-printed`: mu (S, M, 3 + n) of the devices, nu (S, M, 1 + K + n) of the server."""

    mu: Array
    nu: Array

    def of(self, runs: slice) -> "Features":
        """Those of some of the runs."""
        return Features(self.mu[runs], self.nu[runs])


def own_features(fleet: Fleet, runs: int, seed: int = 0) -> Features:
    """As many normals from NumPy: for measuring time."""
    random, m = np.random.Generator(np.random.SFC64(seed)), Algorithm1().features
    shapes = (runs, m, 3 + fleet.slots), (runs, m, 1 + fleet.devices + fleet.slots)
    mu, nu = (random.standard_normal(shape, dtype=fleet.dtype) for shape in shapes)
    return Features(mu, nu)


def agreed_features(world: World, pair: ControllerPair, name: str, seeds: list[int], precision: str) -> Features:
    """What Partway uses for these seeds: for comparing results."""
    if not isinstance(pair.device, Algorithm1) or not isinstance(pair.server, Algorithm2):
        raise ValueError(f"'{name}' has no random features")
    made, carry = init_runs(world, pair, stream_of(name), seeds, precision)
    device: Any = made.device
    nu: ServerWeights = carry.server_state.nu
    return Features(np.asarray(device.mu), np.concatenate([nu.own[..., None], nu.queues, nu.service_per_slot], axis=-1))
