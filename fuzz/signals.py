"""SIGINT, SIGTERM, SIGHUP and SIGKILL at any moment of small runs of the commands that take long."""

import os
import random
import re
import signal
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fuzz.counts import Fail
from fuzz.process import TOO_EARLY, Place, finished, place, settled, started

TINY = ("--set", "devices=2", "--blocks", "200", "--seeds", "2")
SCHEMES = ("--schemes", "local", "priced")
RESUMED = re.compile(r"partway: interrupted; .* saved in .*; run the same command again to resume\n$")
STOPPED = re.compile(r"partway: interrupted((;| after) .*)?\n$")
LONGEST_S = 600


class Job(NamedTuple):
    """A command: its words, what it writes, whether it is resumed, and its share of the cases."""

    words: tuple[str, ...]
    writes: tuple[str, ...]
    resumed: bool
    share: int


JOBS = (
    Job(("compare", *TINY, *SCHEMES, "--out", "out", "--json", "file.json"), ("out", "file.json"), False, 3),
    Job(("run", *TINY, "--schemes", "priced", "--out", "out", "--save", "a.npz"), ("out", "a.npz"), False, 3),
    Job(("sweep", "--axis", "devices=2,3", *TINY[2:], *SCHEMES, "--jobs", "2", "--out", "out"), ("out",), True, 3),
    Job(("reproduce", "--quick", "--jobs", "2", "--out", "out"), ("out",), True, 1),
)
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt(rng: random.Random) -> str:
    """A case: one of the signals at any moment, to the process or to all that it has started."""
    job = rng.choices(JOBS, [job.share for job in JOBS])[0]
    number = rng.choice(NUMBERS)
    return f"{number.name}, {job.words[0]}, {_signalled(rng, job, number)}"


def kill(rng: random.Random) -> str:
    """A case: SIGKILL at any moment; the same command then ends as if nothing had been, and cleans up."""
    job = rng.choice([job for job in JOBS if job.words[0] != "reproduce"])
    with place() as where:
        after = rng.uniform(0.2, 1.1) * seconds(job)
        with started(job.words, where) as process:
            time.sleep(after)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for path in job.writes:
            if not job.resumed and (where.work / path).exists():
                return f"{job.words[0]}, had finished"
        with started(job.words, where) as process:
            code, _, err = finished(process, LONGEST_S)
            if code != 0:
                raise Fail(
                    "wrong exit code", f"{code} of {job.words[0]} after SIGKILL at {after:.2f} s: {err[-150:]!r}"
                )
            left = settled(process, where)
        if left:
            raise Fail("litter", f"{left[:3]} of {job.words[0]} killed at {after:.2f} s, after the next run")
        _check_written(job, where)
    return f"{job.words[0]}, killed and run again"


@cache
def seconds(job: Job) -> float:
    """How long the job takes undisturbed, once its programs are compiled; of a reproduction only the beginning."""
    if job.words[0] == "reproduce":
        return 20.0
    for _ in range(2):
        with place() as where, started(job.words, where) as process:
            began = time.monotonic()
            code, _, err = finished(process, LONGEST_S)
            took = time.monotonic() - began
        if code != 0:
            raise RuntimeError(f"{job.words[0]}: exit code {code}, {err[-200:]}")
    return took


def _signalled(rng: random.Random, job: Job, number: int) -> str:
    after, all_of_them = rng.uniform(0, 1.05) * seconds(job), rng.random() < 0.5
    about = f"{job.words[0]}, {signal.Signals(number).name} {'to all ' if all_of_them else ''}at {after:.2f} s"
    with place() as where, started(job.words, where) as process:
        time.sleep(after)
        if process.poll() is None:
            os.killpg(process.pid, number) if all_of_them else process.send_signal(number)
        try:
            code, out, err = finished(process)
        except Fail as fail:
            raise Fail(fail.kind, f"{about}: {fail.text}") from None
        left = settled(process, where)
        if left:
            raise Fail("litter", f"{about}: {left[:3]}")
        names = sorted(os.listdir(where.work))
        if code == 0:
            _check_written(job, where)
            if not out:
                raise Fail("lost result", f"{about}: nothing was printed")
            return "had finished"
        if (code == -number or TOO_EARLY in err) and not names:
            return "ended before it had begun"
        if code != 128 + number:
            raise Fail("wrong exit code", f"{about}: {code}, {err[-150:]!r}")
        if not (RESUMED if job.resumed and names else STOPPED).search(err):
            raise Fail("unclear message", f"{about}: {err[-150:]!r}")
        if names and not job.resumed and "after writing" not in err:
            raise Fail("litter", f"{about}: {names}")
    return "interrupted"


def _check_written(job: Job, where: Place) -> None:
    missing = [name for name in job.writes if not (where.work / name).exists()]
    empty = [
        path for path in where.work.rglob("*") if path.is_file() and path.name != ".lock" and not path.stat().st_size
    ]
    if missing or empty:
        raise Fail("lost result", f"{job.words[0]} ended well without {[*missing, *map(Path.as_posix, empty)]}")
