"""Sweeps: any grid over scenario fields x schemes x seeds, on processes or any executor, that survive being killed.

    plan -> groups of cases -> an executor -> a file for each case -> one labelled dataset

Whatever is killed and whenever, starting the sweep again computes only groups of which a case is missing, and ends
with the dataset of a sweep that was never disturbed, bit for bit. That holds on one kind of machine: another CPU or
another version of XLA may round differently.
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

from partway.errors import InputError, shorten
from partway.experiments.comparison import Plan
from partway.experiments.sweep.dask import scheduler_gone
from partway.experiments.sweep.dataset import assemble
from partway.experiments.sweep.group import FAILED, Outcome, failed, play_group
from partway.experiments.sweep.plan import Case, SweepPlan, key_of, sweep_plan, versions
from partway.experiments.sweep.store import Store, opened, refusals
from partway.files import DATASET, replacing
from partway.schemes import find_scheme
from partway.workers import jobs_of, processes

MOST_TRIES = 3
"""How often a group may lose its worker, or run out of memory."""
WINDOW = 256
"""Groups that are handed to an executor from outside at a time; to our own processes, two for each."""
HEARTBEAT_S = 0.5
"""How long Ctrl-C may go unheard."""
LOST = ("KilledWorker", "CommClosedError", "FutureCancelledError", "FuturesCancelledError")
"""Exceptions, by the names that Dask gives them, that say a worker is gone."""

Group = tuple[Case, ...]


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: cases done, of how many, and groups that are being computed."""

    done: int
    cases: int
    flying: int


OnProgress = Callable[[Progress], None]


def sweep(
    scenario: str | Path | Mapping[str, Any] = "paper",
    over: Mapping[str, Any] | Sequence[str] = (),
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    schemes: Sequence[str] | None = None,
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

    over      {field: values} by dotted name, such as {"device.arrival_prob": [0.1, 0.2]}; or texts FIELD=SPEC
    out       a folder for state and results: a sweep that was stopped goes on there; without one nothing is kept
    jobs      worker processes; as many as cores if not given (with a GPU give 1)
    executor  runs the groups instead: any `concurrent.futures.Executor`, such as a Dask client's
    tick      called as cases are done, and at least twice a second

    The other arguments are those of `partway.compare`. Returns a dataset with a dimension for each axis, then scheme,
    seed, part and loss; a case that could not be run says why in `status` and `reason`. Raises InputError for what
    cannot be swept or written.
    """
    how = {"server": server, "blocks": blocks, "seeds": seeds, "warmup": warmup, "precision": precision}
    plan = sweep_plan(scenario, over, overrides=overrides, schemes=schemes, **how)
    check_processes(plan, jobs, executor)
    with _folder(out) as folder, opened(folder, plan.description(), overwrite) as store:
        return execute(plan, store, jobs, executor, on_progress)


def execute(
    plan: SweepPlan, store: Store, jobs: int | None, executor: Executor | None, on_progress: OnProgress
) -> xr.Dataset:
    """Compute what `store` has not, and write the dataset there."""
    with _workers(plan, jobs, executor) as (chosen, window):
        lost = _Computation(plan, store, chosen, window, on_progress).run()
    dataset = assemble(plan, lambda key: lost.get(key) or store.read(key))
    with refusals(store.given), replacing(store.folder / DATASET) as partial:
        save(dataset, partial)
    return dataset


def save(dataset: xr.Dataset, path: Path) -> None:
    """The dataset as netCDF4. Raises OSError where there is no room."""
    try:
        dataset.to_netcdf(path, engine="netcdf4")
    except RuntimeError as error:  # "NetCDF: HDF error", such as a full disk's
        raise OSError(None, str(error)) from None


def check_processes(plan: SweepPlan, jobs: int | None, executor: Executor | None) -> None:
    """Raise InputError for a number of jobs that is none, or schemes that other processes cannot find."""
    if executor is not None:
        return
    jobs_of(jobs)
    for name in plan.base.schemes:
        home = type(find_scheme(name).device).__module__
        if ":" not in name and home.partition(".")[0] != "partway":
            raise InputError(
                f"scheme '{name}': other processes do not know it; name it module:ATTRIBUTE, or give "
                "executor=concurrent.futures.ThreadPoolExecutor(1)"
            )


class _Computation:
    """One pass over the groups of which a case is missing.

    A group that was in flight when a worker died may have killed it: it is tried again with nothing beside it. So is
    one that ran out of memory.
    """

    def __init__(self, plan: SweepPlan, store: Store, executor: Executor, window: int, on_progress: OnProgress):
        self.store, self.executor, self.window, self.on_progress = store, executor, window, on_progress
        self.cases = sum(map(len, plan.groups))
        missing = [group for group in plan.groups if any(store.read(case.key) is None for case in group)]
        self.waiting: deque[tuple[Group, int]] = deque((group, 1) for group in missing)
        self.flying: dict[Future[list[Outcome]], tuple[Group, int]] = {}
        self.done = self.cases - sum(map(len, missing))
        self.lost: dict[str, Outcome] = {}

    def run(self) -> dict[str, Outcome]:
        """Compute and keep them; returns the outcomes that are not kept because another attempt may differ."""
        try:
            while self.waiting or self.flying:
                self._submit()
                self.on_progress(self._progress())
                self._receive()
            self.on_progress(self._progress())
        finally:
            for future in self.flying:
                future.cancel()
        return self.lost

    def _progress(self) -> Progress:
        return Progress(self.done, self.cases, len(self.flying))

    def _submit(self) -> None:
        while self.waiting and len(self.flying) < self._room():
            group, tries = self.waiting.popleft()
            try:
                future = self.executor.submit(_play, play_group, group, versions())
            except (RuntimeError, OSError) as error:  # BrokenExecutor is a RuntimeError
                raise InputError(
                    f"the executor takes no more work ({type(error).__name__}: {shorten(str(error), 100)}); what is "
                    "done is kept, start the sweep again with a new one"
                ) from None
            self.flying[future] = (group, tries)

    def _room(self) -> int:
        suspects = [self.waiting[0][1], *(tries for _, tries in self.flying.values())]
        return 1 if max(suspects) > 1 else self.window

    def _receive(self) -> None:
        """Wait a moment for results, and keep them. No future is held on to: Dask computes anew what one stands for."""
        finished, _ = wait(self.flying, HEARTBEAT_S, FIRST_COMPLETED)
        if not finished and scheduler_gone(self.executor):
            raise InputError("the Dask scheduler is gone; what is done is kept, the same sweep goes on with a new one")
        while finished:
            self._finish(finished.pop())

    def _finish(self, future: Future[list[Outcome]]) -> None:
        group, tries = self.flying.pop(future)
        try:
            outcomes = future.result()
        except ImportError as error:
            raise InputError(
                f"a worker cannot run this: {error}; it needs what is installed here and the same files, and is to be "
                "started again when they have changed"
            ) from None
        except (Exception, CancelledError) as error:
            if (_worker_gone(error) or isinstance(error, MemoryError)) and tries < MOST_TRIES:
                self.waiting.appendleft((group, tries + 1))
                return
            outcomes = [failed(_why(error, tries))] * len(group)
        for case, outcome in zip(group, outcomes, strict=True):
            if outcome["status"] == FAILED:
                self.lost[case.key] = outcome
            elif self.store.read(case.key) is None:
                self.store.write(case.key, outcome)
        self.done += len(group)


def _play(play: Callable[[list[Plan]], list[Outcome]], group: Group, expected: Mapping[str, str]) -> list[Outcome]:
    """`play_group` in a worker. Raises ImportError where it would compute something else than the cases' hashes say."""
    here = versions()
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
    return play([case.plan for case in group])


def _worker_gone(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, BrokenExecutor | CancelledError | ConnectionError | EOFError) or bool(names & {*LOST})


def _why(error: BaseException, tries: int) -> str:
    if _worker_gone(error):
        return f"its worker died {tries} times, out of memory or killed: {type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return f"it ran out of memory {tries} times: {error}"
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _workers(plan: SweepPlan, jobs: int | None, executor: Executor | None) -> Generator[tuple[Executor, int]]:
    """The given executor, left as it is, or worker processes of our own, which are gone at the end; and its window."""
    if executor is not None:
        yield executor, WINDOW
        return
    count = min(jobs_of(jobs), max(len(plan.groups), 1))
    with processes(count) as made:
        yield made, 2 * count


@contextlib.contextmanager
def _folder(out: str | Path | None) -> Generator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="partway-sweep-") as folder:
        yield Path(folder)
