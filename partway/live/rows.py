"""What a run keeps of every block and task until its end, as rows of NumPy arrays: 8 bytes a number."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any, cast, overload

import numpy as np

from partway.live.messages import BlockRecord
from partway.live.tasks import TaskLog

KINDS = {int: "i8", float: "f8", str: "S16"}
TILE = 256
"""Rows of an array: the next ones get another, so that nothing is copied."""
TASK = np.dtype([(one.name, KINDS[cast(Any, one.type)]) for one in fields(TaskLog)])
RECORD = np.dtype([(one.name, "u8" if one.name == "arrivals" else "f8") for one in fields(BlockRecord)])
ABSENT = BlockRecord(0.0, 1.0, 0.0, 0.0, float("nan"), 0.0, 0.0, float("nan"), 0)
"""The block of a device that was not there: nothing waited, nothing was done."""


class Rows:
    """Rows of a structured data type."""

    def __init__(self, dtype: np.dtype[Any]):
        self._dtype, self._tiles, self._count = dtype, list[np.ndarray](), 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: tuple[Any, ...]) -> None:
        """Add a row."""
        if self._count == TILE * len(self._tiles):
            self._tiles.append(np.zeros(TILE, self._dtype))
        self._tiles[-1][self._count % TILE] = row
        self._count += 1

    def row(self, index: int) -> tuple[Any, ...]:
        """A row as Python's numbers."""
        return self._tiles[index // TILE][index % TILE].item()

    def of(self, rows: range) -> np.ndarray:
        """(rows,) those in a range whose step is 1."""
        first, last = rows.start // TILE, -(-rows.stop // TILE)
        tiles = self._tiles[first:last] or [np.zeros(0, self._dtype)]
        return np.concatenate(tiles)[rows.start - first * TILE : rows.stop - first * TILE]


class TaskRows(Sequence[TaskLog]):
    """Tasks, 104 bytes each."""

    def __init__(self) -> None:
        self._rows = Rows(TASK)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TaskLog: ...

    @overload
    def __getitem__(self, index: slice) -> list[TaskLog]: ...

    def __getitem__(self, index: int | slice) -> TaskLog | list[TaskLog]:
        numbers = range(len(self))[index]
        return self._task(numbers) if isinstance(numbers, int) else [self._task(number) for number in numbers]

    def __repr__(self) -> str:
        return repr(list(self))

    def append(self, task: TaskLog) -> None:
        """Add a task."""
        self._rows.append(astuple(task))

    def _task(self, index: int) -> TaskLog:
        *numbers, outcome = self._rows.row(index)
        return TaskLog(*numbers, outcome=outcome.decode())


class BlockRows(Mapping[int, BlockRecord]):
    """What one device did, by block, 73 bytes each."""

    def __init__(self) -> None:
        self._records = RecordRows(1)

    def __setitem__(self, block: int, record: BlockRecord) -> None:
        """Keep a record."""
        self._records[block, 0] = record

    def __getitem__(self, block: int) -> BlockRecord:
        return self._records[block, 0]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[int]:
        return (block for block, _ in self._records)

    def __repr__(self) -> str:
        return repr(dict(self))


class RecordRows(Mapping[tuple[int, int], BlockRecord]):
    """What each of so many devices did in each block, by (block, device), 73 bytes each."""

    def __init__(self, devices: int):
        self._devices, self._tiles, self._there = devices, list[np.ndarray](), list[np.ndarray]()

    def __setitem__(self, at: tuple[int, int], record: BlockRecord) -> None:
        """Keep a record; one that is there is replaced."""
        block, device = at
        while len(self._tiles) <= block // TILE:
            self._tiles.append(np.full((TILE, self._devices), np.array(astuple(ABSENT), RECORD)))
            self._there.append(np.zeros((TILE, self._devices), bool))
        self._tiles[block // TILE][block % TILE, device] = astuple(record)
        self._there[block // TILE][block % TILE, device] = True

    def __getitem__(self, at: tuple[int, int]) -> BlockRecord:
        block, device = at
        if not (0 <= block < TILE * len(self._tiles) and self._there[block // TILE][block % TILE, device]):
            raise KeyError(at)
        return BlockRecord(*self._tiles[block // TILE][block % TILE, device].item())

    def __len__(self) -> int:
        return sum(int(there.sum()) for there in self._there)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for tile, there in enumerate(self._there):
            for block, device in np.argwhere(there).tolist():
                yield tile * TILE + block, device

    def counts(self, blocks: int) -> np.ndarray:
        """(blocks,) how many devices have a record of each of the first blocks."""
        known = [there.sum(axis=1) for there in self._there]
        return np.concatenate([*known, np.zeros(blocks, int)])[:blocks]

    def of(self, blocks: range) -> np.ndarray:
        """(blocks, devices) records in a range whose step is 1, ABSENT where there is none."""
        missing = np.full((TILE, self._devices), np.array(astuple(ABSENT), RECORD))
        first, last = blocks.start // TILE, -(-blocks.stop // TILE)
        tiles = [self._tiles[tile] if tile < len(self._tiles) else missing for tile in range(first, last)]
        return np.concatenate([*tiles, missing[:0]])[blocks.start - first * TILE : blocks.stop - first * TILE]
