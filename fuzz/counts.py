"""What a part has tried, how it ended, and the faults that it found."""

import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from partway.errors import LONGEST, InputError

FAULTS = ("traceback", "wrong exit code", "lost result", "silent NaN", "litter", "unclear message", "crash or hang")
"""What must never happen, in the order of the report."""
CASE_S = 120.0
"""Longest time of one case in the process of the harness."""
Case = tuple[str, int, int]
"""Name of the part, the seed of all, the number of the case."""


@dataclass(frozen=True)
class Fault:
    """Something that must not happen: one of FAULTS, in which case, and what was seen."""

    kind: str
    case: Case
    text: str

    def line(self) -> str:
        """One line, with the command that makes the case again."""
        part, seed, number = self.case
        return f"{self.kind}: {self.text} (python -m fuzz {part} --seed {seed} --case {number})"


@dataclass
class Counts:
    """Outcomes of the cases of one part, such as "refused", and faults."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    faults: list[Fault] = field(default_factory=list[Fault])

    def add(self, other: "Counts") -> None:
        """Add what another process has counted."""
        self.outcomes.update(other.outcomes)
        self.faults += other.faults

    def tried(self) -> int:
        """Number of cases."""
        return sum(self.outcomes.values())


class Fail(Exception):
    """A fault that a part has seen: one of FAULTS, and what."""

    def __init__(self, kind: str, text: str):
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


def chosen(case: Case) -> random.Random:
    """The random numbers of a case."""
    return random.Random("-".join(map(str, case)))


def count(run: Callable[[random.Random], str], cases: Sequence[Case], limit_s: float = CASE_S) -> Counts:
    """Run cases: `run` returns how one ended, or raises InputError ("refused"), Fail, or what is a fault itself."""
    counts = Counts()
    for case in cases:
        outcome, fault = _ended(run, case, limit_s)
        counts.outcomes[outcome] += 1
        if fault:
            counts.faults.append(fault)
    return counts


def _ended(run: Callable[[random.Random], str], case: Case, limit_s: float) -> tuple[str, Fault | None]:
    try:
        with _limited(limit_s):
            return run(chosen(case)), None
    except InputError as error:
        message = str(error)
        if message.isprintable() and 10 < len(message) <= LONGEST:
            return "refused", None
        return "fault", Fault("unclear message", case, repr(message))
    except Fail as fail:
        return "fault", Fault(fail.kind, case, fail.text)
    except TimeoutError:
        return "fault", Fault("crash or hang", case, f"longer than {limit_s:g} s")
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {str(error)[:120]} at {where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
        return "fault", Fault("traceback", case, " ".join(text.split()))


@contextmanager
def _limited(seconds: float) -> Generator[None]:
    """Raise TimeoutError in this block, in the main thread, after so many seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
