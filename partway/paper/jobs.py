"""Jobs of a long computation: run by several processes, kept as they finish, and found again by a later call.

The key of a job's file contains a hash of everything that its numbers depend on: the job, its scenario with every
number, the source of the modules that compute it, and the versions of the libraries they use.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from partway.errors import InputError, shorten
from partway.experiments.store import ARRAYS, Kind, Store, content_hash
from partway.provenance import code_hash, made_by
from partway.scenario.schema import Scenario
from partway.workers import processes

Arrays = dict[str, np.ndarray]
J = TypeVar("J", bound="Job")
REPRODUCTION = Kind("reproduction", "jobs", ARRAYS)
SECONDS = "seconds"
"""Name of the array that holds the time a job took [s]."""


class Job(Protocol):
    """A unit of work: a frozen dataclass that can be sent to another process."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def label(self) -> str:
        """File name stem."""
        ...

    def scenario(self) -> Scenario:
        """Its scenario, with every number."""
        ...

    def device_blocks(self) -> int:
        """Its size: devices x blocks x runs."""
        ...

    def run(self) -> Arrays:
        """Compute it."""
        ...


def modules(jobs: Iterable[Job]) -> list[str]:
    """The modules whose code, with all they import, computes the jobs."""
    return sorted({type(job).__module__ for job in jobs})


def jobs_code_hash(jobs: Iterable[Job]) -> str:
    """Hash of the source that the numbers of all jobs come from."""
    return code_hash(*modules(jobs))


def job_key(job: Job) -> str:
    """The key of a job's file: its label, and the hash of everything that decides its numbers."""
    content = {
        "kind": type(job).__qualname__,
        "job": dataclasses.asdict(job),
        "scenario": job.scenario().to_toml(),
        "versions": made_by(*modules([job])),
    }
    return f"{job.label()}-{content_hash(content)}"


def missing(jobs: Sequence[J], store: Store[Arrays] | None) -> list[J]:
    """Jobs that are yet to be computed."""
    return [job for job in jobs if store is None or store.read(job_key(job)) is None]


def run_jobs(
    jobs: Sequence[J],
    store: Store[Arrays] | None,
    count: int,
    on_progress: Callable[[J], None] = lambda job: None,
    workers: Executor | None = None,
) -> dict[J, Arrays]:
    """The arrays of every job: from `store` where it has them, otherwise computed by `count` processes and kept there.

    on_progress  called with each job when its arrays are available
    workers      compute them instead of new processes: those of several calls trace every program only once
    """
    keys = {job: job_key(job) for job in jobs} if store else {}
    results, waiting = dict[J, Arrays](), list[J]()
    for job in jobs:
        arrays = store.read(keys[job]) if store else None
        if arrays is None:
            waiting.append(job)
        else:
            results[job] = arrays
            on_progress(job)
    waiting.sort(key=lambda job: job.device_blocks(), reverse=True)
    for job, arrays in _computed(waiting, min(count, len(waiting)), workers):
        if store:
            store.write(keys[job], arrays)
        results[job] = arrays
        on_progress(job)
    return {job: results[job] for job in jobs}


def _computed(jobs: Sequence[J], count: int, workers: Executor | None) -> Generator[tuple[J, Arrays]]:
    """Each job with its arrays, as it finishes."""
    if not workers and count <= 1:
        yield from ((job, _timed(job)) for job in jobs)
        return
    with contextlib.nullcontext(workers) if workers else processes(count) as pool:
        futures = {pool.submit(_timed, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                arrays = future.result()
            except BrokenExecutor as error:
                raise InputError(
                    f"a worker process died, out of memory or killed ({shorten(str(error), 80)}); use fewer --jobs; "
                    "with --out, run the same command again to resume"
                ) from None
            yield futures[future], arrays


def _timed(job: Job) -> Arrays:
    start = time.monotonic()
    arrays = job.run()
    return {**arrays, SECONDS: np.array(time.monotonic() - start)}
