"""A channel that was measured: gains or data rates over time from a CSV file (`partway.system.trace_file`).

With M traces device k replays trace k mod M. A block has the value that holds when it begins. Rates are those at the
transmit power `power_w`.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from partway.arguments import Limits
from partway.dnn.cuts import MAX_EFFICIENCY
from partway.errors import InputError, compact, shown
from partway.pytree import host_array
from partway.system.processes import Channel, ProcessState, Station
from partway.system.trace_file import RATE, Rows, read_trace

LN2 = 0.6931471805599453
MAX_BLOCKS = 10_000_000
"""The most blocks of a trace that are kept."""
SMALLEST_GAIN = 1e-20
"""Smaller gains [1/W] no power overcomes, and float32 does not hold the powers that would."""
EARLY = 1e-9
"""Share of a block by which a row may come too late because its time was rounded in the file."""


class Trace(Channel):
    """A measured channel, replayed.

    file     CSV file with the columns time_s and gain_per_w or rate_bit_s, relative to the scenario's file
    floor    what is below is raised to it, in the unit of the column: at a gain or a rate of 0 no power is enough
    loop     whether the trace begins again after its last whole block; if not, no run may be longer
    start    "beginning", or "random": in every seed every device begins somewhere else in a trace that loops
    power_w  transmit power at which rates were measured; 0: the device's tx_power_max_w
    """

    file: str = ""
    floor: float = 0.0
    loop: bool = False
    start: str = "beginning"
    power_w: float = 0.0
    limits: ClassVar[Mapping[str, Limits]] = {
        "floor": (0.0, 1e30),
        "start": frozenset({"beginning", "random"}),
        "power_w": (0.0, 1e12),
    }

    def prepared(self, stations: Station) -> "Replay":
        """The trace by blocks. Raises InputError where the file cannot be replayed."""
        if not self.file:
            raise InputError("radio.fading.file is missing; it must be a CSV file with time_s and gain_per_w")
        if self.start == "random" and not self.loop:
            raise InputError("radio.fading.start = 'random' needs a trace that can go on: set radio.fading.loop = true")
        column, traces = read_trace(self.file)
        block_s = stations.slots * float(np.max(stations.slot_s))
        held = [_by_block(rows, block_s) for rows in traces]
        lengths = np.array([len(values) for values in held], np.uint32)
        padded = [np.pad(values, (0, int(lengths.max()) - len(values)), mode="edge") for values in held]
        values = np.maximum(np.stack(padded, axis=-1), float(self.floor))
        replay = Replay(
            values=host_array(values),
            lengths=host_array(lengths),
            power_w=host_array(np.array(float(self.power_w))),
            rates=column == RATE,
            loop=self.loop,
            random_start=self.start == "random",
        )
        if replay.rates:
            _check_rates(float(values.max()), stations, replay)
        if np.min(_gain_at_rate(values.min(), replay, stations) if replay.rates else values) < SMALLEST_GAIN:
            raise InputError(
                f"radio.fading.file {shown(self.file)}: {column} is 0 or nearly 0 in some blocks, in which nothing "
                "can be sent at any power; set radio.fading.floor"
            )
        return replay


class Replay(Channel):
    """A trace by blocks.

    values   (L, M) gains [1/W] or data rates [bit/s] of M traces, the last value of shorter ones repeated
    lengths  (M,) uint32 their blocks
    power_w  at which the rates were measured; 0: the device's largest
    """

    values: jax.Array
    lengths: jax.Array
    power_w: jax.Array
    rates: bool
    loop: bool
    random_start: bool

    def mean_gain(self, stations: Station) -> jax.Array:
        """(K,) the mean of a device's trace."""
        values, lengths = np.asarray(self.values), np.asarray(self.lengths)
        row = np.asarray(stations.number) % len(lengths)
        power = np.where(self.power_w > 0, self.power_w, stations.tx_power_max_w)
        alike = np.stack(np.broadcast_arrays(row, stations.bandwidth_hz, stations.snr_gap / power), axis=-1)
        kinds, kind = np.unique(alike, axis=0, return_inverse=True)
        means = list[float]()
        for number, bandwidth_hz, scale in kinds:
            own = values[: lengths[int(number)], int(number)]
            means.append(float(np.mean(scale * np.expm1(LN2 * own / bandwidth_hz) if self.rates else own)))
        return host_array(np.array(means)[kind.reshape(-1)])

    def gains(self, station: Station) -> np.ndarray:
        """(blocks,) h [1/W] of one device, whose numbers are scalars. On the host."""
        row = int(station.number) % len(self.lengths)
        values = np.asarray(self.values)[: int(self.lengths[row]), row]
        return np.array([_gain_at_rate(value, self, station) for value in values]) if self.rates else values

    def longest_run(self) -> int | None:
        """The blocks of the shortest trace, unless it begins again."""
        return None if self.loop else int(np.min(np.asarray(self.lengths)))

    def init(self, key: jax.Array, device: Station) -> ProcessState:
        """The block of the trace with which a run begins."""
        length = self.lengths[device.number % len(self.lengths)]
        return jax.random.key_data(key)[0] % length if self.random_start else jnp.zeros_like(length)

    def step(
        self, state: ProcessState, key: jax.Array, device: Station, block: jax.Array
    ) -> tuple[ProcessState, jax.Array]:
        """h that is in the trace, or with which `power_w` reaches its rate."""
        del key
        row = device.number % len(self.lengths)
        length = self.lengths[row]
        at = (state + block % length) % length if self.loop else jnp.minimum(block, length - 1)
        value = self.values[at, row]
        if not self.rates:
            return state, value
        power = jnp.where(self.power_w > 0, self.power_w, device.tx_power_max_w)
        return state, device.snr_gap / power * jnp.expm1(LN2 * value / device.bandwidth_hz)


def _by_block(rows: Rows, block_s: float) -> np.ndarray:
    """The value that holds when each block begins; the last row holds as long as the row before it."""
    time, value = np.array(rows).T
    end = 2 * time[-1] - time[-2]
    blocks = math.floor(end / block_s + EARLY)
    if not 1 <= blocks <= MAX_BLOCKS:
        raise InputError(
            f"radio.fading.file: a trace of {compact(end)} s has {blocks} blocks of {compact(block_s)} s; from 1 to "
            f"{MAX_BLOCKS} are allowed"
        )
    return value[np.searchsorted(time, (np.arange(blocks) + EARLY) * block_s, side="right") - 1]


def _gain_at_rate(rate: float, replay: Replay, stations: Station) -> np.ndarray:
    """(K,) h at which devices reach a rate with the power at which it was measured. On the host."""
    power = np.where(replay.power_w > 0, replay.power_w, stations.tx_power_max_w)
    return np.asarray(stations.snr_gap / power * np.expm1(LN2 * rate / np.asarray(stations.bandwidth_hz)))


def _check_rates(largest: float, stations: Station, replay: Replay) -> None:
    """Raise InputError where no power is known at which rates were measured, or no radio of this model reaches them."""
    if not np.all(np.isfinite(np.where(replay.power_w > 0, replay.power_w, stations.tx_power_max_w))):
        raise InputError(
            "radio.fading.power_w: state the transmit power [W] at which the rates were measured, or set "
            "device.tx_power_max_w"
        )
    efficiency = largest / float(np.min(stations.bandwidth_hz))
    if efficiency > MAX_EFFICIENCY:
        raise InputError(
            f"radio.fading.file: its largest rate is {compact(efficiency)} bit/s per Hz of device.bandwidth_hz; at "
            f"most {MAX_EFFICIENCY:g} are possible: set a larger bandwidth"
        )
