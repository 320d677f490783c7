"""The contract of what is random: the channel of a device, and the arrival of its tasks, whatever anybody does.

A process is a frozen dataclass of parameters. It is written for ONE device and one block, and remembers what it likes:

    class Weather(Channel):
        '''The channel is ten times worse in the rain, which starts and ends at random.'''

        change: float = 0.02

        def init(self, key, device):
            return jnp.zeros(())

        def step(self, rain, key, device, block):
            rain = jnp.where(jax.random.uniform(key) < self.change, 1.0 - rain, rain)
            return rain, device.mean_gain * jnp.where(rain > 0, 0.1, 1.0)

A key depends on seed, block and number of the device alone: every scheme meets the same world, and a small fleet is a
prefix of a larger one. What a process remembers goes from block to block in the state of the system.

A law whose blocks are independent overrides `draw`, which draws many blocks at a time. What the lower bound assumes is
a property of a process: `Channel.law` and `Channel.memory`, and `Traffic.arrivals_in_a_block`. docs/channels.md says
how processes are named.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol, dataclass_transform, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from partway.arguments import Limits
from partway.errors import InputError
from partway.pytree import fleetwise, host_array, record
from partway.rng import stream, words
from partway.scenario.overrides import copied
from partway.system.types import Device
from partway.threefry import Words

ProcessState = Any
"""What a process remembers of a device from block to block: any pytree of arrays of fixed shapes and types."""
CHANNEL, CHANNEL_START, TRAFFIC, TRAFFIC_START = range(1000, 1004)
"""Parts of a seed's stream: numbers below are those of the words of `Bernoulli` arrivals."""
SLOTS_PER_WORD = 8
"""Slots that share a word of packed arrivals, and a random word of `Bernoulli` ones: 32 bits hold eight of them to a
part in 2^24 or better."""


@record
class Station:
    """One device as a process sees it; of a fleet, device axis last.

    number        0, 1, ...: its place in the fleet
    mean_gain     h without fading [1/W], from path loss and shadowing
    arrival_threshold  uint32: `arrival_prob` in parts of 2^32
    slots         n, slots per block
    bandwidth_hz, snr_gap, tx_power_max_w, slot_s  as in `partway.system.types.Device`
    """

    number: jax.Array
    mean_gain: jax.Array
    arrival_threshold: jax.Array
    bandwidth_hz: jax.Array
    snr_gap: jax.Array
    tx_power_max_w: jax.Array
    slot_s: jax.Array
    slots: int

    @property
    def arrival_prob(self) -> jax.Array:
        """The scenario's probability that a task arrives in a slot."""
        return self.arrival_threshold.astype(self.mean_gain.dtype) / 2.0**32


def station_of(devices: Device, arrival_threshold: jax.Array) -> Station:
    """The devices of a fleet as processes see them."""
    return Station(
        number=host_array(np.arange(devices.mean_gain.shape[-1], dtype=np.uint32)),
        mean_gain=devices.mean_gain,
        arrival_threshold=arrival_threshold,
        bandwidth_hz=devices.bandwidth_hz,
        snr_gap=devices.snr_gap,
        tx_power_max_w=devices.tx_power_max_w,
        slot_s=devices.slot_s,
        slots=devices.slots,
    )


@runtime_checkable
class Law(Protocol):
    """The distribution of the fading x, the channel gain divided by its mean: E[x] = 1. On the host.

    name           in words              mean_loss_is_infinite  whether E[1/x] is
    """

    name: ClassVar[str]
    mean_loss_is_infinite: ClassVar[bool]

    def quantile(self, probability: Any) -> np.ndarray:
        """x with P(fading <= x) = `probability`."""
        ...

    def probability_below(self, x: float) -> float:
        """P(fading <= x), exact for small x as well."""
        ...

    def interval_probabilities(self, x: np.ndarray) -> np.ndarray:
        """(nodes,) probability of the interval above each of the ascending nodes (nodes,); the last one is open."""
        ...

    def interval_losses(self, x: np.ndarray) -> np.ndarray:
        """(nodes,) E[1/x; interval] of the same intervals."""
        ...


@dataclass_transform(frozen_default=True)
@record
class Process:
    """What channels and traffic have in common; see `Channel` and `Traffic`.

    limits  values that parameters may have: from one number to another, or one of some words
    """

    limits: ClassVar[Mapping[str, Limits]] = {}

    def __init_subclass__(cls) -> None:
        """Make the class a frozen dataclass and a pytree."""
        super().__init_subclass__()
        record(cls)

    def as_table(self) -> dict[str, Any]:
        """The process as a scenario names it: its class as `kind`, and its parameters. Raises InputError."""
        kind = type(self)
        table: dict[str, Any] = {"kind": f"{kind.__module__}:{kind.__qualname__}"}
        for field in fields(self):
            given = getattr(self, field.name)
            value = copied(given)  # NumPy's numbers are numbers, and paths are strings
            if not isinstance(value, bool | int | float | str):
                raise InputError(
                    f"{kind.__name__}.{field.name} must be a number or a string, got {type(given).__name__}: results "
                    "name it; read arrays from a file in `prepared`"
                )
            table[field.name] = value
        return table

    def init(self, key: jax.Array, device: Station) -> ProcessState:
        """The state before the first block."""
        del key, device
        return ()

    def longest_run(self) -> int | None:
        """Number of the block at which a run has to end; None: it may go on for ever."""
        return None


class Channel(Process):
    """Base of channels. A subclass becomes a frozen dataclass and a pytree by itself.

    memory  whether the gains of a device's blocks depend on one another; True unless a class sets it
    """

    memory: ClassVar[bool] = True

    @property
    def law(self) -> Law | None:
        """The distribution of gain / mean gain in every block, if it is known: plans and the lower bound need it."""
        return None

    def prepared(self, stations: Station) -> "Channel":
        """The channel as it runs in a world, such as with the content of a file. Called once, on the host.

        stations  of the fleet, NumPy arrays (K,)
        """
        del stations
        return self

    def mean_gain(self, stations: Station) -> jax.Array:
        """(K,) E[h] [1/W] by device: what controllers know as `device.mean_gain`. On the host."""
        return stations.mean_gain

    def step(self, state: ProcessState, key: jax.Array, device: Station, block: jax.Array) -> tuple[ProcessState, Any]:
        """The state after a block, and h in it [1/W], one number above 0."""
        raise NotImplementedError

    def begin(self, seed: jax.Array, stations: Station) -> ProcessState:
        """The states before the first block, device axis last."""
        return _begin(self, seed, CHANNEL_START, stations)

    def draw(
        self, state: ProcessState, seed: jax.Array, blocks: jax.Array, stations: Station
    ) -> tuple[ProcessState, jax.Array]:
        """The states after consecutive blocks (T,), and h (T, K) in them [1/W]."""
        state, gain = _steps(self, state, seed, CHANNEL, blocks, stations)
        return state, jnp.asarray(gain, stations.mean_gain.dtype)


class Traffic(Process):
    """Base of arrivals. A subclass becomes a frozen dataclass and a pytree by itself."""

    def prepared(self, stations: Station) -> "Traffic":
        """The traffic as it runs in a world, such as with the content of a file. Called once, on the host.

        stations  of the fleet, NumPy arrays (K,)
        """
        del stations
        return self

    def arrivals_in_a_block(self, stations: Station) -> np.ndarray | None:
        """(K, n + 1) probabilities of 0..n tasks in a block, if the blocks are independent; on the host.

        The lower bound needs it.
        """
        del stations
        return None

    def relative_rate(self, stations: Station) -> np.ndarray | float:
        """Mean number of tasks per slot as a multiple of `arrival_prob`, (K,) or one for all; on the host.

        A scenario's load is computed from it.
        """
        del stations
        return 1.0

    def step(self, state: ProcessState, key: jax.Array, device: Station, block: jax.Array) -> tuple[ProcessState, Any]:
        """The state after a block, and (n,) 0 or 1: whether a task arrives in each of its slots."""
        raise NotImplementedError

    def begin(self, seed: jax.Array, stations: Station) -> ProcessState:
        """The states before the first block, device axis last."""
        return _begin(self, seed, TRAFFIC_START, stations)

    def draw(
        self, state: ProcessState, seed: jax.Array, blocks: jax.Array, stations: Station
    ) -> tuple[ProcessState, jax.Array]:
        """The states after consecutive blocks (T,), and (T, words, K) uint32: the arrivals, SLOTS_PER_WORD a word."""
        state, arrived = _steps(self, state, seed, TRAFFIC, blocks, stations)
        return state, packed_slots(arrived)


def normal_pair(key: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Two independent standard normal numbers from a process's key, much faster on a CPU than `jax.random.normal`.

    They are made of the key's own 64 bits (Box and Muller), up to 5.8. Half the sum of their squares is Exp(1), with
    the same bits in float32 and float64 but for rounding.
    """
    one, other = jnp.moveaxis(jax.random.key_data(key), -1, 0)
    radius = jnp.sqrt(-2.0 * jnp.log(uniform(one, dtype)))
    angle = (2.0 * np.pi) * uniform(other, dtype)
    return radius * jnp.cos(angle), radius * jnp.sin(angle)


def uniform(word: jax.Array, dtype: Any) -> jax.Array:
    """A uniform number in (0, 1) from 23 bits of a word, so that float32 and float64 hold the same exactly."""
    return ((word >> 9).astype(dtype) + 0.5) * 2.0**-23


def packed_slots(arrived: jax.Array) -> jax.Array:
    """(T, words, K) uint32 from (T, n, K) 0 or 1: one bit a slot, SLOTS_PER_WORD a word."""
    bits = (arrived > 0).astype(jnp.uint32)
    firsts = range(0, bits.shape[-2], SLOTS_PER_WORD)
    return jnp.stack([_word(bits[..., first : first + SLOTS_PER_WORD, :]) for first in firsts], axis=-2)


def with_arrays(process: Process) -> Any:
    """The process with its numbers as arrays, so that their values are no part of a compiled program."""
    return jax.tree.map(lambda leaf: host_array(leaf) if isinstance(leaf, float) else leaf, process)


def _word(bits: jax.Array) -> jax.Array:
    places = jnp.arange(bits.shape[-2], dtype=jnp.uint32)[:, None]
    return jnp.sum(bits << places, axis=-2, dtype=jnp.uint32)


def _begin(process: Process, seed: jax.Array, part: int, stations: Station) -> ProcessState:
    keys = _keys(words(stream(seed, part), jnp.uint32(0), stations.mean_gain.shape[-1]))
    return fleetwise(process.init)(keys, stations)


def _steps(
    process: Channel | Traffic, state: ProcessState, seed: jax.Array, part: int, blocks: jax.Array, stations: Station
) -> tuple[ProcessState, jax.Array]:
    """The states after consecutive blocks (T,), and what comes of them (T, ...), block by block."""

    def block(state: ProcessState, at: tuple[jax.Array, jax.Array]) -> tuple[ProcessState, jax.Array]:
        number, keys = at
        return fleetwise(lambda own, key, device: process.step(own, key, device, number))(state, keys, stations)

    keys = _keys(words(stream(seed, part), blocks, stations.mean_gain.shape[-1]))
    return jax.lax.scan(block, state, (blocks, keys))


def _keys(pair: Words) -> jax.Array:
    """JAX's keys that have these words."""
    return jax.random.wrap_key_data(jnp.stack(pair, axis=-1), impl="threefry2x32")
