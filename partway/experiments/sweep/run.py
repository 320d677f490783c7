"""Sweeps: any grid over scenario fields x schemes x seeds, on processes or any executor, resumable at any moment.

    plan -> groups of cases -> an executor -> a file for each case -> one labelled dataset

If a sweep or a worker is killed, the same call computes only the groups of which a case is missing, and ends with the
dataset of an uninterrupted sweep, bit for bit. That holds on one kind of machine: another CPU or another version of XLA
may round differently.
"""

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from partway.arguments import flag, function, path
from partway.controllers.base import DeviceController
from partway.errors import InputError, shorten, shown
from partway.experiments import store as stores
from partway.experiments.failures import FAILED
from partway.experiments.plan import Plan
from partway.experiments.store import JSON, Kind, Store
from partway.experiments.sweep.dask import scheduler_gone
from partway.experiments.sweep.dataset import assemble
from partway.experiments.sweep.group import Outcome, failed, run_group
from partway.experiments.sweep.plan import Case, SweepPlan, computed_by, key_of, sweep_plan
from partway.netcdf import save_dataset
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme
from partway.workers import process_count, processes

SWEEP = Kind("sweep", "cases", JSON)
MAX_TRIES = 3
"""How often a group is tried that loses its worker or runs out of memory."""
WINDOW = 256
"""Groups that are handed at once to an executor of the caller; our own processes get two each."""
HEARTBEAT_S = 0.5
"""Longest time between two calls of `on_progress`, which may raise KeyboardInterrupt."""
WORKER_GONE = ("KilledWorker", "CommClosedError", "FutureCancelledError", "FuturesCancelledError")
"""Names of Dask's exceptions for a worker that has died; Dask need not be installed."""

Group = tuple[Case, ...]


@dataclass(frozen=True)
class Progress:
    """Finished cases, all cases, and groups that are being computed."""

    done: int
    cases: int
    in_flight: int


OnProgress = Callable[[Progress], None]


def sweep(
    scenario: str | Path | Mapping[str, Any] | Scenario = "paper",
    axes: Mapping[str, Any] | Sequence[str] = (),
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: str | Sequence[str | type[DeviceController]] | None = None,
    server: str | None = None,
    blocks: int = 2000,
    seeds: int | Sequence[int] = 8,
    warmup: int | None = None,
    precision: str = "float32",
    out: str | Path | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
    executor: Executor | None = None,
    on_progress: OnProgress = lambda progress: None,
) -> xr.Dataset:
    """Run schemes over seeds at every point of a grid.

    axes         {field: values} by dotted name, such as {"device.arrival_prob": [0.1, 0.2]}; or strings FIELD=SPEC
    out          folder for state and results: the same call resumes a sweep there; without it nothing is kept
    overwrite    delete the sweep that is in `out` first
    jobs         worker processes; default: as many as cores (with a GPU give 1)
    executor     runs the groups instead: any `concurrent.futures.Executor`, such as a Dask client's
    on_progress  called as cases finish, and at least twice a second

    The other arguments are those of `compare`. Returns a dataset with a dimension for each axis, then scheme, seed and
    component; a case without numbers has a `status` other than "ok" and a `reason`. Raises InputError for arguments
    that cannot be used, before anything runs, and where `out` cannot be written.
    """
    function("on_progress", on_progress)
    given: Any = executor
    if given is not None and not isinstance(given, Executor):
        raise InputError(f"executor must be a concurrent.futures.Executor, got {shown(given)}")
    overwrite, folder = flag("overwrite", overwrite), None if out is None else path("out", out)
    options: dict[str, Any] = {"server": server, "blocks": blocks, "seeds": seeds, "warmup": warmup}
    plan = sweep_plan(scenario, axes, overrides=overrides, schemes=schemes, precision=precision, **options)
    check_processes(plan, jobs, executor)
    with _folder(folder) as where, opened(plan, where, overwrite) as store:
        return execute(plan, store, jobs, executor, on_progress)


def opened(plan: SweepPlan, out: Path, overwrite: bool) -> contextlib.AbstractContextManager[Store[Outcome]]:
    """The store of a sweep in the folder `out`; see `partway.experiments.store.opened`."""
    return stores.opened(out, SWEEP, plan.request(), overwrite)


def execute(
    plan: SweepPlan, store: Store[Outcome], jobs: int | None, executor: Executor | None, on_progress: OnProgress
) -> xr.Dataset:
    """Compute the cases that `store` does not have, and write the dataset there."""
    dataset = compute(plan, store, jobs, executor, on_progress)
    with store.results() as folder:
        save_dataset(dataset, folder)
    return dataset


def compute(
    plan: SweepPlan, store: Store[Outcome], jobs: int | None, executor: Executor | None, on_progress: OnProgress
) -> xr.Dataset:
    """Compute the cases that `store` does not have, and keep them there; the dataset of all."""
    with _executor(plan, jobs, executor) as (chosen, window):
        unkept = _Computation(plan, store, chosen, window, on_progress).run()
    return assemble(plan, lambda key: unkept.get(key) or store.read(key))


def check_processes(plan: SweepPlan, jobs: int | None, executor: Executor | None) -> None:
    """Raise InputError for an impossible number of processes, or schemes that other processes cannot import."""
    if executor is not None:
        return
    process_count(jobs)
    for name in plan.base.schemes:
        home = type(find_scheme(name).device).__module__
        if (":" not in name or home == "__main__") and home.partition(".")[0] != "partway":
            raise InputError(
                f"scheme '{name}': other processes cannot find it; name it module:ATTRIBUTE, or give "
                "executor=concurrent.futures.ThreadPoolExecutor(1)"
            )


class _Computation:
    """One pass over the groups of which a case is missing.

    A group that was being computed when a worker died may have caused it: it is tried again with no other group beside
    it. So is a group that ran out of memory.
    """

    def __init__(
        self, plan: SweepPlan, store: Store[Outcome], executor: Executor, window: int, on_progress: OnProgress
    ):
        self.store, self.executor, self.window, self.on_progress = store, executor, window, on_progress
        self.cases = sum(map(len, plan.groups))
        missing = [group for group in plan.groups if any(store.read(case.key) is None for case in group)]
        self.waiting: deque[tuple[Group, int]] = deque((group, 1) for group in missing)
        self.in_flight: dict[Future[list[Outcome]], tuple[Group, int]] = {}
        self.done = self.cases - sum(map(len, missing))
        self.unkept: dict[str, Outcome] = {}

    def run(self) -> dict[str, Outcome]:
        """Compute and keep them; returns the outcomes that are not kept because another attempt may differ."""
        try:
            while self.waiting or self.in_flight:
                self._submit()
                self.on_progress(self._progress())
                self._receive()
            self.on_progress(self._progress())
        finally:
            for future in self.in_flight:
                future.cancel()
        return self.unkept

    def _progress(self) -> Progress:
        return Progress(self.done, self.cases, len(self.in_flight))

    def _submit(self) -> None:
        while self.waiting and len(self.in_flight) < self._limit():
            group, tries = self.waiting.popleft()
            try:
                future = self.executor.submit(_run, run_group, group, computed_by())
            except (RuntimeError, OSError) as error:  # BrokenExecutor is a RuntimeError
                raise InputError(
                    f"the executor accepts no more work ({type(error).__name__}: {shorten(str(error), 100)}); finished "
                    "cases are kept, start the sweep again with a new one"
                ) from None
            self.in_flight[future] = (group, tries)

    def _limit(self) -> int:
        """Groups that may be in flight: one while any of them, or the next, has lost a worker before."""
        tries = [self.waiting[0][1], *(tries for _, tries in self.in_flight.values())]
        return 1 if max(tries) > 1 else self.window

    def _receive(self) -> None:
        """Wait a moment for results, and keep them. No reference to a future stays: Dask would recompute its result."""
        finished, _ = wait(self.in_flight, HEARTBEAT_S, FIRST_COMPLETED)
        if not finished and scheduler_gone(self.executor):
            raise InputError(
                "the Dask scheduler is gone; finished cases are kept, run the same sweep with a new one to resume"
            )
        while finished:
            self._finish(finished.pop())

    def _finish(self, future: Future[list[Outcome]]) -> None:
        group, tries = self.in_flight.pop(future)
        try:
            outcomes = future.result()
        except ImportError as error:
            raise InputError(
                f"a worker cannot run this: {error}; install there what is installed here, give it the same files, and "
                "restart it when they have changed"
            ) from None
        except (Exception, CancelledError) as error:
            if (_worker_gone(error) or isinstance(error, MemoryError)) and tries < MAX_TRIES:
                self.waiting.appendleft((group, tries + 1))
                return
            outcomes = [failed(_why(error, tries))] * len(group)
        for case, outcome in zip(group, outcomes, strict=True):
            if outcome["status"] == FAILED:
                self.unkept[case.key] = outcome
            elif self.store.read(case.key) is None:
                self.store.write(case.key, outcome)
        self.done += len(group)


def _run(run: Callable[[list[Plan]], list[Outcome]], group: Group, expected: Mapping[str, str]) -> list[Outcome]:
    """`run_group` in a worker. Raises ImportError where it would compute something else than the cases' keys say."""
    here = computed_by()
    name = next((name for name in expected if here.get(name) != expected[name]), None)
    if name:
        raise ImportError(f"{name} is {here.get(name)} there and {expected[name]} here")
    for case in group:
        try:
            key = key_of(case.plan)
        except InputError as error:  # a policy or a profile that is not there
            raise ImportError(str(error)) from None
        if key != case.key:
            names = " and ".join(filter(None, (*case.plan.schemes, case.plan.server)))
            raise ImportError(f"the files of {names}, or of the profiles, are not the same there as here")
    return run([case.plan for case in group])


def _worker_gone(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, BrokenExecutor | CancelledError | ConnectionError | EOFError) or bool(
        names & {*WORKER_GONE}
    )


def _why(error: BaseException, tries: int) -> str:
    if _worker_gone(error):
        return f"its worker died {tries} times, out of memory or killed: {type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return f"it ran out of memory {tries} times: {error}"
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _executor(plan: SweepPlan, jobs: int | None, given: Executor | None) -> Generator[tuple[Executor, int]]:
    """(executor, groups in flight at most): the caller's, which stays open, or processes that end with the block."""
    if given is not None:
        yield given, WINDOW
        return
    count = min(process_count(jobs), max(len(plan.groups), 1))
    with processes(count) as workers:
        yield workers, 2 * count


@contextlib.contextmanager
def _folder(out: Path | None) -> Generator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="partway-sweep-") as folder:
        yield Path(folder)
