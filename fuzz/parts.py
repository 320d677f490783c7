"""The parts of the harness: what is tried, how often, and in how many processes."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from time import monotonic

from fuzz.counts import CASE_S, Case, Counts, Fault, count
from partway.workers import processes

PROCESS_S = 1500.0
"""Longest time of a case that starts processes, the first of which compile; these have limits of their own."""


@dataclass(frozen=True)
class Part:
    """A row of PARTS: `run` is a function of a random number generator, as "module:name".

    chunk    cases that a process is given at once; all of them again, one at a time, if it dies
    limit_s  longest time of a case
    """

    name: str
    about: str
    cases: int
    run: str
    chunk: int = 50
    limit_s: float = CASE_S


PARTS = (
    Part("scenarios", "mutated scenarios, loaded and traced", 10_000, "scenarios:load_mutated"),
    Part("runs", "mutated scenarios that are accepted, run", 200, "scenarios:run_mutated", 5),
    Part("files", "damaged datasets, marks, units, profiles and controllers, read", 10_000, "damaged:damage"),
    Part("networks", "generated ONNX networks, profiled, cut and run", 300, "networks:profile_generated", 10),
    Part(
        "signals",
        "SIGINT, SIGTERM and SIGHUP at any moment of compare, run, sweep, reproduce",
        150,
        "signals:interrupt",
        3,
        PROCESS_S,
    ),
    Part(
        "kills",
        "SIGKILL at any moment of compare, run, sweep; then the same command again",
        20,
        "signals:kill",
        2,
        PROCESS_S,
    ),
    Part("disks", "every command on a disk of 2 MB that is nearly full", 60, "disks:fill", 3, PROCESS_S),
)


def function(run: str) -> Callable[..., str]:
    """The function of a part."""
    module, _, name = run.partition(":")
    return getattr(import_module(f"fuzz.{module}"), name)


def run_chunk(part: Part, cases: Sequence[Case]) -> Counts:
    """Run cases in this process."""
    return count(function(part.run), cases, part.limit_s)


def run_part(
    part: Part, seed: int, cases: int, jobs: int, minutes: float, on_progress: Callable[[int], None] = lambda done: None
) -> Counts:
    """Run the first `cases` cases of a part, or as many as are begun within so many minutes."""
    counts, deadline = Counts(), monotonic() + 60 * minutes
    numbers = [(part.name, seed, number) for number in range(cases)]
    chunks = [numbers[i : i + part.chunk] for i in range(0, cases, part.chunk)]
    for found in _outcomes(part, chunks, jobs, deadline):
        counts.add(found)
        on_progress(counts.tried())
    return counts


def _outcomes(part: Part, chunks: list[list[Case]], jobs: int, deadline: float) -> Generator[Counts]:
    if jobs == 1:
        for chunk in chunks:
            if monotonic() < deadline:
                yield run_chunk(part, chunk)
        return
    repeated = list[list[Case]]()
    with processes(jobs) as workers:
        while repeated or (chunks and monotonic() < deadline):  # what died is tried again whatever the time
            if not repeated:
                repeated, chunks = chunks[: 4 * jobs], chunks[4 * jobs :]
            batch, repeated = repeated, []
            futures = {workers.submit(run_chunk, part, chunk): chunk for chunk in batch}
            for future in as_completed(futures):
                chunk = futures[future]
                try:
                    yield future.result()
                except BrokenExecutor as error:  # a case has killed its process: again, one after the other
                    if len(chunk) > 1:
                        repeated += [[case] for case in chunk]
                        continue
                    counts = Counts()
                    counts.outcomes["fault"] += 1
                    counts.faults.append(Fault("crash or hang", chunk[0], str(error)[:150]))
                    yield counts
