"""The CPU of a device at the rate that its controller commands: emulated, or by what Linux offers.

The rate is a share of the device's highest one, `cpu_max_hz` in the scenario. Energy is that of the model in any case.

    pacing   the CPU is as fast as it is, and tasks take the time that the rate would take
    cpufreq  the share of the highest frequency that a policy allows (Documentation/admin-guide/pm/cpufreq.rst)
    cgroup   the share of one core's time, as a quota of a threaded group (Documentation/admin-guide/cgroup-v2.rst)
"""

import asyncio
import contextlib
import math
import os
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from partway import files
from partway.errors import InputError, shown
from partway.live.clock import sleep_until

PACING, CPUFREQ, CGROUP = "pacing", "cpufreq", "cgroup"
POLICY = Path("/sys/devices/system/cpu/cpufreq/policy0")
"""The policy of the first CPU."""
USERSPACE = "userspace"
LEAST_QUOTA_US = 1000
"""The kernel's least quota (Documentation/scheduler/sched-bwc.rst)."""


class Cpu(Protocol):
    """What runs the device's part of its tasks. Every method raises InputError where the system does not let it."""

    about: str
    """What was found, in a few words."""

    def attach(self, thread: int) -> None:
        """Let the rate hold for a thread of this process, by its native number: the one that computes."""
        ...

    def command(self, share: float) -> None:
        """Run at a share of the highest rate, from 0 to 1, from now on."""
        ...

    async def until(self, moment: float) -> None:
        """Return when what the CPU was to do by `moment` [s] of the loop's clock is done; it has been computed."""
        ...

    def restore(self) -> None:
        """Leave the system as it was found."""
        ...


class Pacing:
    """Tasks begin and end when they would on a CPU of the commanded rate."""

    about = "tasks are paced"

    def attach(self, thread: int) -> None:
        """Nothing."""
        del thread

    def command(self, share: float) -> None:
        """Nothing: the moments in `until` follow from the rate."""
        del share

    async def until(self, moment: float) -> None:
        """Wait."""
        await sleep_until(moment)

    def restore(self) -> None:
        """Nothing."""


class _Real:
    """A CPU that takes the time that it takes."""

    async def until(self, moment: float) -> None:
        """Return at once."""
        del moment
        await asyncio.sleep(0)


class Cpufreq(_Real):
    """The frequency of a policy, by the governor `userspace`, or where that is missing by `scaling_max_freq`."""

    def __init__(self, folder: Path):
        """The policy in a folder of sysfs, of which nothing is changed yet. Raises InputError where that cannot be."""
        self._folder = folder
        governors = _read(folder / "scaling_available_governors").split()
        self._governor = _read(folder / "scaling_governor")
        (self._least,), (self._most,) = (_numbers(folder / f"scaling_{end}_freq", 1) for end in ("min", "max"))
        listed = folder / "scaling_available_frequencies"  # of some drivers
        self._steps = sorted(_numbers(listed)) if listed.exists() else []
        self._cpus = _numbers(folder / "affected_cpus")
        is_free = USERSPACE in governors
        self._target = folder / ("scaling_setspeed" if is_free else "scaling_max_freq")
        self._before = _read(self._target)
        for path in (self._target, *([folder / "scaling_governor"] if is_free else [])):
            _check_writable(path)
        self._is_free, self._is_taken, self._last = is_free, False, 0
        by = f"governor {USERSPACE}" if is_free else f"scaling_max_freq, as the governors are {', '.join(governors)}"
        self.about = f"{self._least} to {self._most} kHz by {by}"

    def attach(self, thread: int) -> None:
        """Keep the thread on the policy's CPUs, and take the governor."""
        try:
            os.sched_setaffinity(thread, self._cpus)
        except OSError as error:
            raise InputError(f"{_given(self._folder)}: its CPUs cannot be used ({files.why(error)})") from None
        if self._is_free and self._governor != USERSPACE:
            self._is_taken = True
            _write(self._folder / "scaling_governor", USERSPACE)

    def command(self, share: float) -> None:
        """The lowest frequency that is at least the share of the highest one."""
        wanted = min(max(math.ceil(share * self._most), self._least), self._most)
        allowed = (step for step in self._steps if wanted <= step <= self._most)
        frequency = next(allowed, wanted)
        if frequency != self._last:
            _write(self._target, str(frequency))
            self._last = frequency

    def restore(self) -> None:
        """The governor, frequency or limit that was there."""
        if self._is_taken:
            _write(self._folder / "scaling_governor", self._governor)
        elif self._last:
            _write(self._target, self._before)


class Cgroup(_Real):
    """A quota of CPU time for the thread that computes, in a threaded group of version 2.

    A group of whole processes would hold up the messages, too.
    """

    def __init__(self, folder: Path):
        """The group in a folder, of which nothing is changed yet. Raises InputError where that cannot be."""
        kind = _read(folder / "cgroup.type")
        if kind != "threaded":
            raise InputError(f"{_given(folder)}: is of the type {shown(kind)}; must be a threaded group")
        self._target, self._threads = folder / "cpu.max", folder / "cgroup.threads"
        self._before = _read(self._target)
        _, _, period = self._before.partition(" ")
        if not period.isdecimal():
            raise InputError(f"{_given(self._target)}: must hold a quota and a period, got {shown(self._before)}")
        self._period_us = int(period)
        for path in (self._target, self._threads):
            _check_writable(path)
        self._last = ""
        self.about = f"{LEAST_QUOTA_US} to {self._period_us} us of one core in every {self._period_us} us"

    def attach(self, thread: int) -> None:
        """Put the thread into the group."""
        _write(self._threads, str(thread))

    def command(self, share: float) -> None:
        """The share of one core's time."""
        quota = min(max(math.ceil(share * self._period_us), LEAST_QUOTA_US), self._period_us)
        limit = f"{quota} {self._period_us}"
        if limit != self._last:
            _write(self._target, limit)
            self._last = limit

    def restore(self) -> None:
        """The limit that was there."""
        if self._last:
            _write(self._target, self._before)


@contextlib.contextmanager
def taken(kind: str, folder: Path | None) -> Generator[Cpu]:
    """A CPU of a kind, and its folder, until the block ends, however it ends. Raises InputError."""
    if kind == PACING:
        yield Pacing()
        return
    if folder is None and kind == CGROUP:
        raise InputError("--cpu cgroup needs --cpu-path DIR, a threaded group of version 2")
    cpu = Cgroup(folder) if kind == CGROUP and folder is not None else Cpufreq(folder or POLICY)
    try:
        yield cpu
    finally:
        with files.uninterrupted():
            cpu.restore()


def _given(path: Path) -> str:
    return f"--cpu-path {shown(str(path), 100)}"


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"{_given(path)}: cannot be read ({files.why(error)})") from None


def _numbers(path: Path, count: int | None = None) -> list[int]:
    """The whole numbers in a file: so many, or at least one."""
    words = _read(path).split()
    if not words or not all(word.isdecimal() for word in words) or len(words) != (count or len(words)):
        raise InputError(f"{_given(path)}: must hold whole numbers, got {shown(' '.join(words))}")
    return [int(word) for word in words]


def _check_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise InputError(f"{_given(path)}: cannot be written; run as root, or have it given to this user")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(f"{text}\n", "ascii")
    except OSError as error:
        raise InputError(f"{_given(path)}: {text} cannot be written ({files.why(error)})") from None
