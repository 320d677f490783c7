"""Where a device's tasks come from, and how good its channel is: by the scenario's laws, or from elsewhere."""

from dataclasses import replace
from typing import Any, Protocol

import jax
import numpy as np

from partway.live.tasks import Source
from partway.program_cache import kept_jit
from partway.pytree import host_array
from partway.system.exogenous import PackedExogenous, gains, sample, unpack_arrivals
from partway.system.kinds import paper_channel, paper_traffic, trace_gains
from partway.system.processes import Station
from partway.system.types import Device
from partway.system.world import World

TILE = 64
"""Blocks that are drawn at a time."""


class Workload(Source, Protocol):
    """What happens to a device in block after block, whatever it does; and the inputs of its tasks.

    over       whether nothing more will arrive, and all that has arrived has ended
    mean_gain  h in the mean [1/W] where it is not that of the device's record
    """

    mean_gain: float | None = None

    @property
    def over(self) -> bool:
        return False

    def prepare(self) -> None:
        """Do what takes time, before the first block begins."""

    def arrivals(self, block: int) -> np.ndarray:
        """(n,) 0 or 1: whether a task arrives in each slot of a block. It is asked once for each, in order."""
        ...

    def expected(self, block: int) -> np.ndarray | None:
        """What `arrivals` will most likely be, asked before the block ends; None: nobody knows."""
        del block

    def gain(self, block: int) -> float:
        """h of a block [1/W]."""
        ...


class Synthetic(Workload):
    """Arrivals and gains by the scenario's laws: those that the simulation draws for this device and seed."""

    def __init__(self, device: Device, number: int, arrival_threshold: int, seed: int, precision: str):
        """The workload of device `number`, whose constants are scalars, such as those of its record."""
        self._slots, self._seed, self._tiles = device.slots, np.uint32(seed), dict[int, tuple[np.ndarray, np.ndarray]]()
        # the random words of the first devices of a fleet do not depend on how many follow: it may end here
        own = np.full(number + 1, np.asarray(device.mean_gain), np.dtype(precision))
        devices: Any = jax.tree.map(lambda leaf: np.asarray(leaf)[..., None], device)
        nobody: Any = None
        threshold = host_array(np.full(number + 1, arrival_threshold, np.uint32))
        processes = paper_channel(), paper_traffic()
        self._world = World(_with_gain(devices, own), nobody, threshold, nobody, nobody, *processes)
        self._first = float(np.asarray(_gains(self._world, self._seed, np.uint32(0)))[-1])

    def prepare(self) -> None:
        """Compile what draws arrivals and gains."""
        self._tile(0)

    def arrivals(self, block: int) -> np.ndarray:
        """(n,) 0 or 1 in each slot of a block."""
        return self._tile(block)[0][block % TILE]

    def expected(self, block: int) -> np.ndarray:
        """The arrivals themselves."""
        return self.arrivals(block)

    def gain(self, block: int) -> float:
        """h of a block [1/W]."""
        return self._first if block == 0 else float(self._tile(block - 1)[1][(block - 1) % TILE])

    def _tile(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Arrivals (TILE, n) of the blocks around one, and gains (TILE,) of those one later."""
        number = block // TILE
        if number not in self._tiles:
            first = (number * TILE + np.arange(TILE)).astype(np.uint32)
            drawn = _sample(self._world, self._seed, first)
            bits = unpack_arrivals(self._slots, np.asarray(drawn.arrival_bits))
            self._tiles = {n: tile for n, tile in self._tiles.items() if n == number - 1}
            self._tiles[number] = bits[..., -1], np.asarray(drawn.gain)[:, -1]
        return self._tiles[number]


class Traced(Synthetic):
    """Arrivals by the scenario's law, on a channel that was measured."""

    def __init__(self, path: str, device: Device, number: int, arrival_threshold: int, seed: int, precision: str):
        """As `Synthetic`; path: of a trace (`partway.system.trace_file`), which begins again at its end.

        Raises InputError where it cannot be replayed.
        """
        super().__init__(device, number, arrival_threshold, seed, precision)
        station = Station(
            number=host_array(np.asarray(number, np.uint32)),
            mean_gain=device.mean_gain,
            arrival_threshold=host_array(np.asarray(arrival_threshold, np.uint32)),
            bandwidth_hz=device.bandwidth_hz,
            snr_gap=device.snr_gap,
            tx_power_max_w=device.tx_power_max_w,
            slot_s=device.slot_s,
            slots=device.slots,
        )
        self._gains = trace_gains(path, station)
        self.mean_gain = float(np.mean(self._gains))

    def gain(self, block: int) -> float:
        """h of a block [1/W]."""
        return float(self._gains[block % len(self._gains)])


def _with_gain(device: Any, gain: np.ndarray) -> Device:
    return replace(device, mean_gain=gain)


@kept_jit()
def _sample(world: World, seed: jax.Array, blocks: jax.Array) -> PackedExogenous:
    return sample(world, seed, blocks)


@kept_jit()
def _gains(world: World, seed: jax.Array, block: jax.Array) -> jax.Array:
    return gains(world, seed, block)
