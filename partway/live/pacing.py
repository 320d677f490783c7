"""How exactly a device keeps its plan: when its tasks began and ended, against the blocks that it reports."""

from collections.abc import Iterable, Mapping

import numpy as np

from partway.live.messages import BlockRecord
from partway.live.tasks import TaskLog, Timing


def late(records: Mapping[int, BlockRecord], tasks: Iterable[TaskLog], timing: Timing) -> np.ndarray:
    """How late the emulated CPU and radio were at every moment that the model fixes [s]; below 0: early.

    records  the blocks of a device, by number
    tasks    all of its tasks

    The moments are the begin and the end of its part of each task, and of one that was sent the end of the radio's
    slot. A device starts its tasks in the order in which they arrived; j of them in a block, of the last of which it
    leaves the share o to the server, run one after another at a constant rate.
    """
    order, found = iter(sorted(tasks, key=lambda task: task.number)), list[float]()
    for block, record in sorted(records.items()):
        local, start = record.started - record.offload, block * timing.block_s
        count = round(record.started)
        for i, task in zip(range(count), order, strict=False):
            is_cut = record.offload > 0 and i == count - 1
            begin = start + timing.block_s * (i / local if local > 0 else 1.0)
            end = start + timing.block_s * (1.0 if is_cut else (i + 1) / local)
            found += [task.begun - begin, task.cut - end, task.sent - start - timing.block_s - timing.slot_s]
    return np.array([value for value in found if np.isfinite(value)])
