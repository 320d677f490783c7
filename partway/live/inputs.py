"""A device's own inputs: read by a thread, run as the device's tasks, answered by another thread.

At most MAX_OPEN inputs are between the two: whoever gives more waits, as long as it is read from a pipe.
"""

import contextlib
import json
import os
import queue
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partway import files
from partway.errors import InputError, shown
from partway.formatting import plain
from partway.live.engine import Tensors
from partway.live.tasks import WAITING, TaskLog
from partway.live.workload import Workload

MAX_OPEN = 64
"""Inputs that have been read and not answered."""
Read = Callable[[Path], Tensors]
"""Reads a file; raises InputError."""


@dataclass(frozen=True)
class Answer:
    """What became of an input.

    given    its path, as it was given
    task     the device's task that it was, None if it was none
    outputs  of the network, None without any
    error    why it has no result, "" if it has one
    """

    given: str
    task: TaskLog | None = None
    outputs: Tensors | None = None
    error: str = ""


@dataclass(frozen=True)
class _Given:
    """An input that has been read; `read`: when that was, by the monotonic clock [s]."""

    path: str
    read: float
    tensors: Tensors


class Inputs:
    """Inputs from their paths to their answers.

    ahead  set when as many as may be open have been read, or all
    """

    def __init__(self, paths: Iterable[str], read: Read, answer: Callable[[Answer], object]):
        """Begin to read.

        paths   in the order in which they are run; the thread that reads may wait for the next one
        read    called there with each path
        answer  called in another thread with each answer, in the order in which they are known
        """
        self._paths, self._read, self._answer = iter(paths), read, answer
        self._room, self.ahead = threading.Semaphore(MAX_OPEN), threading.Event()
        self._read_ones, self._answers = queue.SimpleQueue[_Given | None](), queue.SimpleQueue[Answer | None]()
        self._done = False
        self._fault: Exception | None = None
        self._answering = threading.Thread(target=self._answer_all, daemon=True)
        self._answering.start()
        threading.Thread(target=self._read_all, daemon=True).start()  # it may wait for its next path at the end

    @property
    def exhausted(self) -> bool:
        """Whether `next` will give no more input."""
        return self._done and not self.waiting

    @property
    def waiting(self) -> int:
        """Inputs that have been read, for `next`."""
        return max(self._read_ones.qsize() - self._done, 0)  # without the word that there are no more

    def next(self) -> "_Given | None":
        """The next input; None after the last one. Raises queue.Empty if it has not been read."""
        return self._read_ones.get(block=False)

    def answer(self, answer: Answer) -> None:
        """Answer an input; returns at once."""
        self._answers.put(answer)

    def close(self) -> None:
        """Answer those that have been read and not run; return when all answers are written.

        Raises what `answer` has raised first.
        """
        while not self._read_ones.empty():
            if (given := self._read_ones.get()) is not None:
                self.answer(Answer(given.path, error="the run has ended"))
        self._answers.put(None)
        self._answering.join()
        if self._fault is not None:
            raise self._fault

    def _read_all(self) -> None:
        try:
            while True:
                if not self._room.acquire(blocking=False):
                    self.ahead.set()
                    self._room.acquire()
                path = next(self._paths, None)
                if path is None:
                    return
                at = time.monotonic()
                try:
                    self._read_ones.put(_Given(path, at, self._read(Path(path))))
                except InputError as error:
                    self.answer(Answer(path, error=str(error)))
        finally:
            self._read_ones.put(None)
            self._done = True
            self.ahead.set()

    def _answer_all(self) -> None:
        while (answer := self._answers.get()) is not None:
            try:
                self._answer(answer)
            except Exception as fault:  # the others are answered all the same
                self._fault = self._fault or fault
            self._room.release()


class OwnTasks(Workload):
    """Tasks with inputs of one's own; the channel stays that of the scenario."""

    def __init__(self, laws: Workload, inputs: Inputs, as_read: bool, stopped: Callable[[], bool] = lambda: False):
        """Tasks of the inputs, in their order.

        laws     has the gains and, unless `as_read`, the slots in which tasks arrive
        as_read  a task arrives when its input has been read, at most one in a slot
        stopped  whether nobody wants more results
        """
        self._laws, self._inputs, self._as_read, self._stopped = laws, inputs, as_read, stopped
        self._open, self._count, self._all = dict[int, _Given](), 0, False
        self.mean_gain = laws.mean_gain

    @property
    def over(self) -> bool:
        return not self._open and (self._all or self._inputs.exhausted or self._stopped())

    def prepare(self) -> None:
        """Read ahead, so that no block waits for a file."""
        self._laws.prepare()
        if not self._as_read:
            self._inputs.ahead.wait()

    def arrivals(self, block: int) -> np.ndarray:
        """(n,) 0 or 1 in each slot of a block."""
        came = self._laws.arrivals(block)
        own = np.zeros_like(came)
        for slot in self._slots(came):
            if not self._arrive():
                break
            own[slot] = 1
        return own

    def expected(self, block: int) -> np.ndarray | None:
        """As if no more inputs were read in this block."""
        came = self._laws.expected(block)
        if came is None:
            return None
        own, room = np.zeros_like(came), 0 if self._all or self._stopped() else MAX_OPEN - len(self._open)
        own[self._slots(came)[: min(room, self._inputs.waiting)]] = 1
        return own

    def gain(self, block: int) -> float:
        """h of a block [1/W]."""
        return self._laws.gain(block)

    def arrived(self, number: int) -> float | None:
        """When the input was read."""
        return self._open[number].read if self._as_read else None

    def inputs(self, number: int) -> Tensors | None:
        """The input, which is not kept."""
        given = self._open[number]
        self._open[number] = _Given(given.path, given.read, {})
        return given.tensors

    def ended(self, task: TaskLog, outputs: Tensors) -> None:
        """Answer with a result."""
        self._inputs.answer(Answer(self._open.pop(task.number).path, task, outputs))

    def failed(self, task: TaskLog, reason: str) -> None:
        """Answer without one."""
        self._inputs.answer(Answer(self._open.pop(task.number).path, task, error=reason))

    def _slots(self, came: np.ndarray) -> list[int]:
        """Those in which a task of one's own may arrive; came: (n,) arrivals by the laws."""
        return [*range(len(came))] if self._as_read else np.flatnonzero(came).tolist()

    def _arrive(self) -> bool:
        """Whether one more task arrives; while as many are open as may be, none does."""
        if self._all or self._stopped() or len(self._open) == MAX_OPEN:
            return False
        try:
            given = self._inputs.next()
        except queue.Empty:
            return False
        if given is None:
            self._all = True
            return False
        self._open[self._count] = given
        self._count += 1
        return True


class Results:
    """Where answers go: results to a folder, or into the lines of JSON that tell of each answer.

    written  how many results there are            fault  why one could not be written, or an input not be run
    closed   whether nobody reads the lines any more
    """

    def __init__(self, folder: Path | None, say: Callable[[str], object] | None):
        """folder: of the results; say: writes a line, None: there are none."""
        self._folder, self._say = folder, say
        self.written, self.fault, self.closed = 0, "", False

    def __call__(self, answer: Answer) -> None:
        """Write an answer."""
        fields: dict[str, Any] = {"input": answer.given}
        if answer.task is not None:
            fields |= _of_task(answer.task)
        error = answer.error
        if answer.outputs is not None and self._folder is None:
            fields["outputs"] = {name: np.asarray(value).tolist() for name, value in answer.outputs.items()}
        elif answer.outputs is not None and self._folder is not None and answer.task is not None:
            path = self._folder / f"{answer.task.number:06d}-{Path(answer.given).stem}.npz"
            try:
                write_arrays(path, answer.outputs)
                fields["output"] = str(path)
                self.written += 1
            except (OSError, ValueError) as why:
                error = f"{shown(str(path), 100)}: cannot be written ({files.why(why)})"
        if error:
            fields["error"] = error
            self.fault = self.fault or error
        if self._say is not None and not self.closed:
            try:
                self._say(json.dumps(plain(fields), allow_nan=False) + "\n")
            except OSError:
                self.closed = True


def _of_task(task: TaskLog) -> dict[str, Any]:
    """What a line says of a task."""
    fields: dict[str, Any] = {"task": task.number, "outcome": task.outcome}
    if task.outcome == WAITING:
        return fields
    stages = task.stages()
    return fields | {"offload": task.offload, "latency_s": sum(stages.values()), "stages_s": stages}


def write_arrays(path: Path, arrays: Tensors) -> None:
    """Write a .npz file that is complete or absent; an array may have any name. Raises OSError and ValueError."""
    with files.replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def lines_of(descriptor: int) -> Iterator[str]:
    """The lines that are read from a file descriptor, without their ends; there are none where it cannot be read.

    Unbuffered: a thread that waits for a buffered stream keeps Python from ending.
    """
    with contextlib.suppress(OSError), open(descriptor, "rb", buffering=0, closefd=False) as stream:
        for line in stream:
            yield os.fsdecode(line.rstrip(b"\r\n"))


def say_to(descriptor: int) -> Callable[[str], None]:
    """A function that writes text to a file descriptor, unbuffered for the same reason. It raises OSError."""

    def say(text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(descriptor, data) :]

    return say


def results_folder(folder: Path) -> Path:
    """A new or empty folder for results. Raises InputError where it is neither."""
    given = f"--outputs {shown(str(folder), 100)}"
    with files.refusals(given):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{given}: is not empty; choose another name")
    return folder
