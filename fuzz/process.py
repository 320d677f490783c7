"""`partway` as a process in an empty folder, and what it has left when it has ended."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.counts import Fail
from partway.program_cache import OLDER_GENERATOR

ROOT = Path(__file__).parents[1]
CACHE = "FUZZ_CACHE"
"""Environment variable with the folder of compiled programs that all processes share."""
FAST = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "XLA_FLAGS": " ".join(f"--{option}={str(value).lower()}" for option, value in OLDER_GENERATOR.items()),
    "MPLBACKEND": "Agg",
    "PYTHONFAULTHANDLER": "1",
}
"""Half the time to compile; and on SIGABRT every thread says where it is."""
FRAME = re.compile(r'^(?:Current thread|Thread) .*|^  File "(?:.*/)?([^"]*)", line (\d+) in (\S+)', re.MULTILINE)
"""What a thread says then: that it is another one, or one of its calls, the innermost first."""
FRAMES = 5
"""How many calls of each thread are reported for a process that hangs."""
USUAL_SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Program that becomes a command which takes signals as a user's do; the workers of the harness ignore some of them."""
NOISE = re.compile("Traceback|resource_tracker|Exception ignored|Warning|Fatal|core dumped|terminate called")
TOO_EARLY = "Fatal Python error: init_"
"""What Python itself prints where it is interrupted before it has imported anything of ours."""
HIDDEN = re.compile(r"\..+\.(partial|old)-[0-9a-f]{8}")
ENDS_S = 60
"""How long a process may take to end after a signal, and all others of its session after it."""
SETTLE_S = 5


@dataclass
class Place:
    """Folders of one process: where it stands, and its temporary files."""

    work: Path
    temporary: Path

    def litter(self) -> list[str]:
        """Unfinished files, and whatever is left among the temporary ones."""
        hidden = [str(path.relative_to(self.work)) for path in self.work.rglob("*") if HIDDEN.fullmatch(path.name)]
        return hidden + [f"temporary {path.name}" for path in self.temporary.iterdir()]


@contextlib.contextmanager
def place() -> Generator[Place]:
    """Empty folders, deleted at the end."""
    with TemporaryDirectory(prefix="fuzz-") as name:
        made = Place(Path(name, "work"), Path(name, "tmp"))
        made.work.mkdir()
        made.temporary.mkdir()
        yield made


@contextlib.contextmanager
def started(words: Sequence[str], where: Place, **environment: str) -> Generator[subprocess.Popen[str]]:
    """A process in a session of its own, which is killed at the end with all that it has started."""
    variables = {**os.environ, **FAST, "PYTHONPATH": str(ROOT), "TMPDIR": str(where.temporary)}
    variables |= {"XDG_CACHE_HOME": os.environ[CACHE], **environment}
    command = [sys.executable, "-Ic", USUAL_SIGNALS, sys.executable, "-m", "partway", *words]
    with subprocess.Popen(
        command,
        cwd=where.work,
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def finished(process: subprocess.Popen[str], within: float = ENDS_S) -> tuple[int, str, str]:
    """Exit code, output and errors. Raises Fail for what takes too long, and for tracebacks and warnings."""
    try:
        out, err = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        raise Fail("crash or hang", f"has not ended after {within:g} s: {_where(process)}") from None
    noise = NOISE.search(out + err)
    if noise and TOO_EARLY not in err:
        lines = [line for line in (out + err).splitlines() if line.strip()]
        at = next(i for i, line in enumerate(lines) if NOISE.search(line))
        raise Fail("traceback", f"{lines[at].strip()[:100]} ... {lines[-1].strip()[:150]}")
    if process.returncode < 0 and -process.returncode in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        raise Fail("crash or hang", f"signal {-process.returncode}")
    return process.returncode, out, err


def _where(process: subprocess.Popen[str]) -> str:
    """Where the threads of a process are, which this ends."""
    process.send_signal(signal.SIGABRT)
    try:
        _, err = process.communicate(timeout=SETTLE_S)
    except subprocess.TimeoutExpired:
        return "it does not say where"
    return calls(err) or "it does not say where"


def calls(report: str) -> str:
    """The innermost calls of every thread, from what Python's fault handler has printed."""
    threads = list[list[str]]()
    for frame in FRAME.finditer(report):
        file, line, name = frame.groups()
        if file is None:
            threads.append([])
        elif threads and len(threads[-1]) < FRAMES:
            threads[-1].append(f"{name} ({file}:{line})")
    return "; ".join(" < ".join(thread) for thread in threads if thread)


def settled(process: subprocess.Popen[str], where: Place) -> list[str]:
    """What is left behind after SETTLE_S at most: processes, semaphores, temporary and unfinished files."""
    end = time.monotonic() + SETTLE_S
    while True:
        left = [*where.litter(), *_semaphores(process.pid), *_session(process.pid)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


def _semaphores(pid: int) -> list[str]:
    folder = Path("/dev/shm")
    return [path.name for path in folder.glob(f"sem.loky-{pid}-*")] if folder.is_dir() else []


def _session(pid: int) -> list[str]:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return []
    return ["a process"]
