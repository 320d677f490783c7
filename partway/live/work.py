"""The server's queue of tasks: first come, first served, at the rate that the controller commands."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from partway.measurement.latency import TOLERANCE


@dataclass
class Job:
    """The rest of a task at the server.

    device, task, block  whose it is, its number there, and the block in which it was cut
    work                 [mean tasks]
    received             when it came [s]
    begun, done          when the server begins and finishes it [s], None before that is known
    """

    device: int
    task: int
    block: int
    work: float
    received: float
    begun: float | None = None
    done: float | None = None
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.work


class WorkQueue:
    """Jobs in the order in which they are served. What was sent in a block is served in the order of device numbers,
    rotated by the block so that no device is always first."""

    def __init__(self, devices: int, slot_s: float):
        self._devices, self._slot_s, self._waiting = devices, slot_s, deque[Job]()
        self._owed = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, jobs: Iterable[Job]) -> None:
        """Add what has come since the last block."""
        order = sorted(jobs, key=lambda job: (job.block, (job.device - job.block) % self._devices, job.task))
        self._waiting.extend(order)

    def serve(self, service_per_slot: np.ndarray, start: float) -> list[Job]:
        """Serve for a block that begins at `start` [s]: the jobs that are begun or done in it, with their times."""
        touched = dict[int, Job]()
        for i, capacity in enumerate(service_per_slot.tolist()):
            for job in self._slot(capacity, start + i * self._slot_s):
                touched[id(job)] = job
        return list(touched.values())

    def drain(self) -> list[Job]:
        """The jobs that are left when the run ends."""
        left, self._waiting = list(self._waiting), deque[Job]()
        return left

    def _slot(self, capacity: float, start: float) -> list[Job]:
        """One slot. A job of which no more is missing than rounding leaves is done at its end; that is done later."""
        served, touched = min(self._owed, capacity), list[Job]()
        self._owed -= served
        while self._waiting and served < capacity:
            job = self._waiting[0]
            touched.append(job)
            if job.begun is None:
                job.begun = start + served / capacity * self._slot_s
            share = min(job.left, capacity - served)
            job.left, served = job.left - share, served + share
            if job.left > min(TOLERANCE, job.work / 2):
                break
            job.done = start + min(served / capacity, 1.0) * self._slot_s
            self._owed += job.left
            self._waiting.popleft()
        if not self._waiting:
            self._owed = 0.0
        return touched
