"""Sweeps: the numbers are those of a comparison, on any executor, and no kill at any moment changes or loses them."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import sweep_toys
import xarray as xr
from sweep_toys import Here

import partway
from partway.controllers.baselines import Local
from partway.errors import InputError
from partway.experiments.by_device import VALUES
from partway.experiments.comparison import compare
from partway.experiments.summary import Summary, summarise
from partway.experiments.sweep import group as sweep_group
from partway.experiments.sweep import plan as sweep_plan
from partway.experiments.sweep import run as sweep_run
from partway.experiments.sweep.dataset import assemble, cost_of, gap_of, grid
from partway.experiments.sweep.group import run_group
from partway.experiments.sweep.plan import MAX_WORLDS, key_of
from partway.experiments.sweep.report import as_json
from partway.experiments.sweep.run import Progress, sweep
from partway.measurement.gap import COST_COMPONENTS
from partway.schemes import SCHEMES, Scheme
from partway.workers import Workers, processes

NO_BOUND = {"weights.server_queue": 0.0}
"""A world without a lower bound: half the time to compile."""
GRID = {"device.arrival_prob": [0.1, 0.3, 0.5, 0.7, 0.9], "devices": [1, 2]}
TOY: dict[str, Any] = {"axes": GRID, "schemes": ["local", "full"], "blocks": 10, "seeds": 2}
REAL: dict[str, Any] = {
    "axes": {"device.arrival_prob": [0.1, 0.2, 0.3], "devices": [1, 2]},
    "overrides": NO_BOUND,
    "schemes": ["local"],
    "blocks": 12,
    "seeds": 2,
}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)
    monkeypatch.setattr(sweep_toys, "DELAY_S", 0.0)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep REAL, computed in this process."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    sweep(**REAL, out=out, executor=Here())
    return out


def same_files(one: Path, two: Path) -> bool:
    """Bit for bit the same dataset and the same cases."""
    names = [sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) for out in (one, two)]
    return names[0] == names[1] and all((one / name).read_bytes() == (two / name).read_bytes() for name in names[0])


def check_against(summary: Summary, dataset: xr.Dataset, at: dict[str, int], rel: float) -> None:
    """Every number that a comparison and a sweep both have."""
    here, name = dataset.isel(at).sel(scheme=summary.name), summary.name
    assert (str(here["status"].values), str(here["reason"].values)) == (summary.status, summary.reason or "")
    cost = cost_of(dataset, at, name)
    assert (cost.mean, cost.low, cost.high) == pytest.approx(
        (summary.cost.mean, summary.cost.low, summary.cost.high), rel
    )
    components = {one: float(here["cost"].sel(component=one).mean()) for one in COST_COMPONENTS}
    assert components == pytest.approx(summary.cost_components, rel, abs=1e-12)
    for field, whole in (
        ("cost_with_warmup", summary.cost_full),
        ("discounted_from_start", summary.discounted_from_start),
        ("discounted_after_warmup", summary.discounted_after_warmup),
    ):
        assert float(here[field].mean()) == pytest.approx(whole.mean, rel)
    for field, value in (
        ("device_energy_j_per_task", summary.device_j),
        ("server_energy_j_per_task", summary.server_j),
        ("wasted_energy_j_per_task", summary.wasted_j),
        ("offloaded_share", summary.offloaded),
        ("cpu_utilisation", summary.cpu_utilisation),
        ("radio_utilisation", summary.radio_utilisation),
        ("server_utilisation", summary.server_utilisation),
        ("power_mismatch", summary.power_mismatch),
        ("growth_per_block", np.nan if summary.growth_per_block is None else summary.growth_per_block),
        ("settling_block", np.nan if summary.settling_block is None else summary.settling_block),
    ):
        assert float(here[field]) == pytest.approx(value, rel, nan_ok=True), field
    for field, values in (("latency_s", summary.latency_s), ("delay_s", summary.delays_s)):
        assert here[field].mean("seed").values.tolist() == pytest.approx(list(values.values()), rel, nan_ok=True)
    assert float(here["unfinished"].mean()) == pytest.approx(summary.unfinished, rel)
    assert float(here["throughput"].mean()) == pytest.approx(summary.throughput.mean, rel)
    assert here["gap_reason"].item() == (summary.no_gap or "")
    assert summary.gap
    gap = gap_of(dataset, at, name)
    whole = summary.gap.whole
    assert (gap.mean, gap.low, gap.high) == pytest.approx((whole.mean, whole.low, whole.high), rel)
    losses = [float(here["gap"].sel(loss=loss).mean()) for loss in ("devices", "waiting", "service")]
    assert losses == pytest.approx([summary.gap.devices, summary.gap.waiting, summary.gap.service], rel, abs=1e-12)
    assert bool(dataset["heavy_tail"].sel(scheme=name)) == summary.heavy_tail
    assert int(dataset["signals_down"].sel(scheme=name)) == summary.signalling["down"]


@pytest.mark.slow
def test_one_point_has_the_numbers_of_a_comparison():
    how: dict[str, Any] = {"overrides": {"devices": 2}, "schemes": ["priced", "random"], "blocks": 40, "seeds": 3}
    compared = compare("paper", **how)
    dataset = sweep("paper", **how, executor=Here())
    for summary in summarise(compared):
        check_against(summary, dataset, {}, 1e-6)
        per_seed = np.asarray(compared["cost"].sel(scheme=summary.name), np.float64)[:, 20:].mean(axis=1)
        assert (dataset["cost"].sel(scheme=summary.name).values == per_seed).all()  # the same program
    assert float(dataset["bound"]) == compared.attrs["bound"]
    assert float(dataset["bound_price"]) == compared.attrs["bound_price"]


@pytest.mark.slow
def test_points_that_run_together_have_the_numbers_of_comparisons():
    how: dict[str, Any] = {"schemes": ["priced"], "blocks": 40, "seeds": 2, "precision": "float64"}
    fixed, values = {"devices": 2, "objective": "discounted"}, [0.2, 0.3]
    dataset = sweep("paper", {"device.arrival_prob": values}, overrides=fixed, **how, executor=Here())
    for i, value in enumerate(values):
        compared = compare("paper", overrides={**fixed, "device.arrival_prob": value}, **how)
        (summary,) = summarise(compared)
        check_against(summary, dataset, {"arrival_prob": i}, 1e-9)
        assert float(dataset["bound"][i]) == compared.attrs["bound"]


@pytest.mark.slow
def test_classes_of_points_that_run_together_are_those_of_comparisons():
    fleet = [{"name": "slow", "count": 2, "cpu_max_hz": 4e10}, {"name": "idle", "count": 1, "arrival_prob": 0.0}]
    how: dict[str, Any] = {"schemes": ["random"], "blocks": 40, "warmup": 15, "seeds": 2, "precision": "float64"}
    fixed, values = {**NO_BOUND, "devices": 3, "group": fleet}, [0.2, 0.3]
    dataset = sweep("paper", {"group.slow.arrival_prob": values}, overrides=fixed, **how, executor=Here())
    assert dataset["devices_by_class"].values.tolist() == [[2, 1], [2, 1]]
    compared = compare("paper", overrides={**fixed, "group.slow.arrival_prob": 0.3}, **how)
    for name in VALUES:
        here, there = (each[f"{name}_by_class"] for each in (dataset.sel(arrival_prob=0.3), compared))
        assert here.sizes == there.sizes == {"scheme": 1, "seed": 2, "class": 2}
        np.testing.assert_allclose(here, there, rtol=1e-9, err_msg=name)
    assert (dataset["tasks_by_class"].sel({"class": "slow"}).diff("arrival_prob") > 0).all()
    assert np.isfinite(dataset["latency_s_by_class"].sel({"class": "slow"})).all()
    assert np.isnan(dataset["latency_s_by_class"].sel({"class": "idle"})).all()


def test_classes_are_aligned_by_name_where_the_fleet_is_an_axis():
    """The second point lists b first, and has c and no a; the third is no scenario."""
    fleets = [
        [{"name": name, "count": count} for name, count in one]
        for one in ([("a", 1), ("b", 2)], [("b", 1), ("c", 2)], [("b", 9)])
    ]
    plan = sweep_plan.sweep_plan("paper", {"group": fleets}, overrides={"devices": 3}, schemes=["local"], seeds=1)
    first, second, third = plan.cells
    assert third.key is None
    outcomes = {first.key: {"cost_by_class": [[1.0, 2.0]]}, second.key: {"cost_by_class": [[3.0, 4.0]]}}
    dataset = assemble(plan, lambda key: {"status": "ok", "reason": "", **outcomes[key]})
    assert dataset["class"].values.tolist() == ["a", "b", "c"]
    assert dataset["devices_by_class"].values.tolist() == [[1, 2, 0], [0, 1, 2], [0, 0, 0]]
    costs = dataset["cost_by_class"].sel(scheme="local").squeeze("seed").values
    np.testing.assert_array_equal(costs, [[1, 2, np.nan], [np.nan, 3, 4], [np.nan] * 3])
    listed = [
        [(one["class"], one["cost_per_block"]["mean"]) for one in case["classes"]] for case in as_json(dataset)["cases"]
    ]
    assert listed == [[("a", 1.0), ("b", 2.0)], [("b", 3.0), ("c", 4.0)], []]


@pytest.mark.slow
def test_every_executor_gives_the_same_bit_for_bit(simulated: Path, tmp_path: Path):
    with ThreadPoolExecutor(2) as threads:
        sweep(**REAL, out=tmp_path / "threads", executor=threads)
    sweep(**REAL, out=tmp_path / "one", jobs=1)
    sweep(**REAL, out=tmp_path / "two", jobs=2)
    assert same_files(tmp_path / "threads", simulated)
    assert same_files(tmp_path / "one", tmp_path / "two")
    assert same_files(tmp_path / "one", simulated)


def test_the_dataset_is_labelled(toys: None, tmp_path: Path):
    sweep(**REAL, out=tmp_path / "out", executor=Here())
    dataset = xr.load_dataset(tmp_path / "out" / "results.nc")
    assert dict(dataset["cost"].sizes) == {"arrival_prob": 3, "devices": 2, "scheme": 1, "seed": 2, "component": 4}
    assert dataset["arrival_prob"].values.tolist() == [0.1, 0.2, 0.3]
    labels = {"units": "1", "field": "device.arrival_prob", "long_name": "arrival prob"}
    assert dataset["arrival_prob"].attrs == labels
    assert dataset["scheme"].values.tolist() == ["local"]
    unlabelled = [name for name in dataset.variables if not {"long_name", "units"} <= set(dataset[name].attrs)]
    assert unlabelled == []
    assert (dataset["status"] == "ok").all()
    assert len(np.unique(dataset["case"])) == 6
    assert dataset.attrs["schema_version"] == 3
    at = grid(dataset)
    assert at[:3] == [
        {"arrival_prob": 0, "devices": 0},
        {"arrival_prob": 0, "devices": 1},
        {"arrival_prob": 1, "devices": 0},
    ]
    assert len(at) == 6


def test_a_resumed_sweep_computes_only_what_is_missing(toys: None, tmp_path: Path):
    first, again, third = Here(), Here(), Here()
    sweep(**TOY, out=tmp_path / "out", executor=first)
    sweep(**TOY, out=tmp_path / "out", executor=again)
    assert (first.calls, again.calls) == (4, 0)
    before = (tmp_path / "out" / "results.nc").read_bytes()
    cases = sorted((tmp_path / "out" / "cases").iterdir())
    cases[0].write_bytes(cases[0].read_bytes()[:-3])
    kept = cases[1].stat().st_mtime_ns
    sweep(**TOY, out=tmp_path / "out", executor=third)
    assert third.calls == 1
    assert cases[1].stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "results.nc").read_bytes() == before


def test_progress_counts_cases(toys: None, tmp_path: Path):
    seen = list[Progress]()
    sweep(**TOY, out=tmp_path / "out", executor=Here(), on_progress=seen.append)
    assert {progress.cases for progress in seen} == {20}
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1] == Progress(20, 20, 0)
    seen.clear()
    sweep(**TOY, out=tmp_path / "out", executor=Here(), on_progress=seen.append)
    assert seen == [Progress(20, 20, 0)]


def status_of(dataset: xr.Dataset, **at: Any) -> list[str]:
    """The status of every scheme at a point."""
    return [str(one) for one in dataset["status"].sel(at).values]


def test_a_case_that_fails_says_why_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Fails(Local):
        """Works when it is checked, before the sweep starts."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("no idea\nwhat to do")

    class Breaks(Here):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            monkeypatch.setattr(Fails, "act", fail)
            return super().submit(fn, *args, **kwargs)

    monkeypatch.setitem(SCHEMES, "fails", Scheme("fails", Fails(), SCHEMES["local"].server))
    how = REAL | {"axes": {"device.arrival_prob": [0.3, 1.5]}, "overrides": {**NO_BOUND, "devices": 1}}
    how |= {"schemes": ["local", "full", "fails"]}
    dataset = sweep(**how, out=tmp_path / "out", executor=Breaks())
    assert status_of(dataset, arrival_prob=0.3) == ["ok", "unstable", "failed"]
    assert status_of(dataset, arrival_prob=1.5) == ["invalid"] * 3
    assert "waiting at the server costs nothing" in str(dataset["bound_reason"].values[0])
    assert np.isnan(dataset["bound"]).all()
    failing = dataset.isel(arrival_prob=0).sel(scheme="fails")
    assert str(failing["reason"].values).endswith(" of test_sweep_run.py: RuntimeError: no idea what to do")
    assert str(failing["gap_reason"].values) == "the scheme has failed"
    assert np.isnan(failing["cost"]).all()
    growing = dataset.isel(arrival_prob=0).sel(scheme="full")  # at most one task per block, and 1.5 arrive
    assert float(growing["growth_per_block"]) > 0.1
    assert np.isnan(growing["cost"]).all()
    assert np.isfinite(growing["discounted_from_start"]).all()
    fine = dataset.isel(arrival_prob=0).sel(scheme="local")
    assert np.isfinite(fine["cost"]).all()
    monkeypatch.setattr(Fails, "act", Local.act)
    cured = sweep(**how, out=tmp_path / "out", executor=(again := Here()))
    assert again.calls == 1  # what failed is tried again, and nothing else
    assert status_of(cured, arrival_prob=0.3) == ["ok", "unstable", "ok"]


def test_a_scheme_that_does_not_exist_under_a_reading_of_the_queue_is_not_applicable():
    how = REAL | {"axes": {"queue": ["as_printed"]}, "overrides": {**NO_BOUND, "devices": 1}, "schemes": ["full"]}
    dataset = sweep(**how, executor=Here())
    assert status_of(dataset, queue="as_printed") == ["not_applicable"]
    assert "whole tasks" in str(dataset["reason"].values[0, 0])


@pytest.mark.parametrize("kind", ["unwritable", "full"])
def test_a_disk_that_refuses_is_one_clear_line(toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device") if kind == "full" else PermissionError(13, "Permission denied")

    def break_disk(progress: Progress) -> None:
        monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(InputError, match=r"--out .*: cannot be written .*(No space left|Permission denied)"):
        sweep(**TOY, out=tmp_path / "out", executor=Here(), on_progress=break_disk)
    monkeypatch.undo()
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)
    sweep(**TOY, out=tmp_path / "out", executor=Here())
    sweep(**TOY, out=tmp_path / "undisturbed", executor=Here())
    assert same_files(tmp_path / "out", tmp_path / "undisturbed")


def test_killed_workers_change_nothing(toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("PARTWAY_TOY_MARKS", str(marks))
    how = TOY | {"schemes": ["local"]}
    sweep(**how, out=tmp_path / "undisturbed", executor=Here())
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_or_die)
    dataset = sweep(**how, out=tmp_path / "out", jobs=1)
    assert len(list(marks.iterdir())) == 2  # every group lost a worker
    assert set(dataset["status"].values.ravel()) == {"ok"}
    assert same_files(tmp_path / "out", tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_group_that_kills_its_workers_fails_and_the_others_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toys: None
):
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.always_die)
    dataset = sweep(**TOY, out=tmp_path / "out", jobs=2)
    assert set(dataset["status"].sel(devices=1).values.ravel()) == {"ok"}
    assert set(dataset["status"].sel(devices=2).values.ravel()) == {"failed"}
    assert "its worker died 3 times" in str(dataset["reason"].sel(devices=2).values[0, 0])
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)
    cured = sweep(**TOY, out=tmp_path / "out", executor=(again := Here()))
    assert again.calls == 2
    assert set(cured["status"].values.ravel()) == {"ok"}


MANY: dict[str, Any] = TOY | {"axes": {"device.arrival_prob": [i / 100 for i in range(1, 81)], "devices": [1, 2]}}
"""320 cases in 20 groups."""
JOBS = 2
IN_FLIGHT = 2 * JOBS * MAX_WORLDS
"""Most cases that are begun and not yet kept: those of the groups handed out at a time, two for each process."""


def dice() -> random.Random:
    """Other random moments every time; pytest prints the seed when a test fails."""
    seed = int(os.environ.get("PARTWAY_KILLS") or random.SystemRandom().randrange(2**32))
    print(f"to repeat: PARTWAY_KILLS={seed}")
    return random.Random(seed)


def noting(run: Callable[[Any], Any], log: Path) -> Callable[[Any], Any]:
    """`run` that first writes to `log` which cases it is about to compute. It is sent to workers by value."""

    def noted(plans: Any) -> Any:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(
            file, "".join(f"{key_of(plan)}\n" for plan in plans).encode()
        )  # in one call: no other line comes in between
        os.close(file)
        return run(plans)

    return noted


@dataclass(frozen=True)
class Kill:
    """Cases that were kept when something was killed, how often cases had been begun, and which were only that."""

    kept: set[str]
    begun: int
    in_flight: set[str]


class Witness:
    """Observes from outside which cases a sweep into `folder` begins to compute, and which it has kept."""

    def __init__(self, folder: Path, how: dict[str, Any]):
        self.out, self.log, self.kills = folder / "out", folder / "begun", list[Kill]()
        self.groups = [{case.key for case in group} for group in sweep_plan.sweep_plan("paper", **how).groups]
        self.cases = sum(map(len, self.groups))

    def begun(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def kept(self) -> set[str]:
        """Cases whose whole group is kept."""
        there = {path.stem for path in (self.out / "cases").glob("*.json")}
        return {key for group in self.groups if group <= there for key in group}

    def record_kill(self) -> None:
        kept = self.kept()  # first: what is kept was begun before
        begun = self.begun()
        self.kills.append(Kill(kept, len(begun), set(begun) - kept))

    def assert_little_was_lost(self, on_dask: bool = False) -> None:
        """Every case is kept at the end; none was begun again once it was kept, and no more than were in flight.

        To Dask all groups are handed out at once, so that those are in flight that workers had begun before the kill,
        and the few that they began until they knew of it.
        """
        begun = self.begun()
        assert self.kept() == set(begun) == {key for group in self.groups for key in group}
        assert any(kill.kept for kill in self.kills)  # or there was nothing to lose
        for kill in self.kills:
            assert kill.kept.isdisjoint(begun[kill.begun :])
        before = sum(len(kill.in_flight) for kill in self.kills) if on_dask else 0
        assert len(begun) - self.cases <= before + IN_FLIGHT * len(self.kills)


class Havoc:
    """Kills workers at random moments of a sweep, which calls `on_progress`.

    pause_s  between recording what is kept, which may not be computed again, and the kill
    """

    def __init__(self, seen: Witness, pids: Callable[[], list[int]], kills: int, pause_s: float = 0.0):
        self.seen, self.pids, self.pause_s, self.chance = seen, pids, pause_s, dice()
        self.moments = sorted(self.chance.sample(range(seen.cases * 3 // 4), kills))
        self.threads = list[threading.Thread]()

    def on_progress(self, progress: Progress) -> None:
        if self.moments and progress.done >= self.moments[0] and progress.in_flight:
            self.moments.pop(0)
            self.threads.append(threading.Thread(target=self._kill, args=(self.chance.uniform(0, 0.2),)))
            self.threads[-1].start()

    def _kill(self, delay: float) -> None:
        time.sleep(delay)
        self.seen.record_kill()
        time.sleep(self.pause_s)
        while not (pids := self.pids()):
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chance.choice(pids), signal.SIGKILL)

    def join(self) -> None:
        assert self.moments == []
        for thread in self.threads:
            thread.join(20)


@pytest.mark.slow
def test_workers_killed_at_random_moments_change_nothing(toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sweep(**MANY, out=tmp_path / "undisturbed", executor=Here())
    seen, pools = Witness(tmp_path, MANY), list[Workers]()
    monkeypatch.setattr(sweep_run, "run_group", noting(sweep_toys.run_group, seen.log))

    @contextlib.contextmanager
    def watched(count: int) -> Generator[Workers]:
        with processes(count) as made:
            pools.append(made)
            yield made

    monkeypatch.setattr(sweep_run, "processes", watched)
    havoc = Havoc(seen, lambda: pools[-1].pids(), kills=4)
    sweep(**MANY, out=seen.out, jobs=JOBS, on_progress=havoc.on_progress)
    havoc.join()
    sweep(**MANY, out=seen.out, jobs=JOBS)  # what failed, having lost its worker three times
    assert same_files(seen.out, tmp_path / "undisturbed")
    seen.assert_little_was_lost()


SCRIPT = """
import contextlib, sys
from pathlib import Path
import sweep_toys
from partway.experiments.sweep import run as sweep_run
from partway.experiments.sweep.dask import dask_executor
from test_sweep_run import noting
run, how, out, log, jobs, address = sys.argv[1:]
sweep_run.run_group = noting(eval(run), Path(log))
def on_progress(progress):
    print(progress.done, flush=True)
with dask_executor(address) if address else contextlib.nullcontext() as executor:
    sweep_run.sweep(**eval(how), out=out, jobs=int(jobs), executor=executor, on_progress=on_progress)
"""


def sweeping(folder: Path, run: str, how: dict[str, Any], jobs: int = JOBS, address: str = "") -> subprocess.Popen[str]:
    """A sweep in a process of its own, which prints how many cases are done."""
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(partway.__file__).parents[1])))
    environment = os.environ | {"PYTHONPATH": paths, "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "cache")}
    places = [str(folder / "out"), str(folder / "begun")]
    command = [sys.executable, "-c", SCRIPT, run, repr(how), *places, str(jobs), address]
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def killed_and_resumed(
    folder: Path, run: str, how: dict[str, Any], kills: int, jobs: int = JOBS, address: str = ""
) -> Witness:
    """Kill a sweep at random moments, start it again each time, and finally let it end."""
    seen, chance = Witness(folder, how), dice()
    for moment in sorted(chance.sample(range(seen.cases // 2), kills)):
        with sweeping(folder, run, how, jobs, address) as started:
            assert started.stdout
            while int(started.stdout.readline()) < moment:
                pass
            time.sleep(chance.uniform(0, 0.1))
            started.kill()
        assert not (seen.out / "results.nc").exists()  # the kill was in time
        seen.record_kill()
    with sweeping(folder, run, how, jobs, address) as last:
        last.communicate(timeout=300)
    assert last.returncode == 0
    return seen


@pytest.mark.slow
def test_a_sweep_killed_at_random_moments_ends_as_if_undisturbed(toys: None, tmp_path: Path):
    sweep(**MANY, out=tmp_path / "undisturbed", executor=Here())
    seen = killed_and_resumed(tmp_path / "killed", "sweep_toys.run_group", MANY, kills=1, jobs=1)
    assert same_files(seen.out, tmp_path / "undisturbed")
    seen.assert_little_was_lost()


@pytest.mark.slow
def test_a_simulated_sweep_killed_at_random_moments_ends_as_if_undisturbed(tmp_path: Path):
    how = REAL | {"axes": {"device.arrival_prob": [i / 80 for i in range(1, 65)], "devices": [1, 2]}, "blocks": 400}
    with sweeping(tmp_path / "undisturbed", "sweep_run.run_group", how) as whole:
        whole.communicate(timeout=300)
    assert whole.returncode == 0
    seen = killed_and_resumed(tmp_path / "killed", "sweep_run.run_group", how, kills=4)
    assert same_files(seen.out, tmp_path / "undisturbed" / "out")
    seen.assert_little_was_lost()


class Broken(Executor):
    """Accepts no more calls."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise RuntimeError("cannot schedule new futures after shutdown")


class Forgetful(Here):
    """Loses every first attempt, as a Dask client does whose scheduler was restarted."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set[str]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        if repr(args) not in self.seen:
            self.seen.add(repr(args))
            future = Future()
            future.set_exception(CancelledError("lost"))
        return future


class WithoutPartway(Here):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(ModuleNotFoundError("No module named 'partway'"))
        return future


def test_an_executor_that_accepts_no_work_is_one_clear_line(toys: None, tmp_path: Path):
    with pytest.raises(InputError, match=r"the executor accepts no more work .*; finished cases are kept"):
        sweep(**TOY, out=tmp_path / "out", executor=Broken())


def test_an_executor_that_loses_work_is_given_it_again(toys: None, tmp_path: Path):
    dataset = sweep(**TOY, out=tmp_path / "out", executor=Forgetful())
    assert set(dataset["status"].values.ravel()) == {"ok"}


class Full(Here):
    """Runs out of memory `times` times for every group."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.seen = times, dict[str, int]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.seen[repr(args)] = self.seen.get(repr(args), 0) + 1
        if self.seen[repr(args)] <= self.times:
            future = Future()
            future.set_exception(MemoryError("too much"))
        return future


def test_a_group_that_runs_out_of_memory_is_tried_again(toys: None, tmp_path: Path):
    for times in (2, 3):
        dataset = sweep(**TOY, out=tmp_path / "out", executor=(full := Full(times)), overwrite=True)
        assert full.calls == 12
        assert set(dataset["status"].values.ravel()) == {"ok" if times == 2 else "failed"}
    assert str(dataset["reason"].values[0, 0, 0]) == "it ran out of memory 3 times: too much"
    assert set(sweep(**TOY, out=tmp_path / "out", executor=Here())["status"].values.ravel()) == {"ok"}


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_lack_of_memory_is_not_the_outcome_of_a_case(error: Exception, monkeypatch: pytest.MonkeyPatch):
    """Without that case the others of its group would run in another program, and be kept."""

    def prepared(plan: Any) -> Any:
        raise error

    monkeypatch.setattr(sweep_group, "_prepared", prepared)
    group = sweep_plan.sweep_plan("paper", **TOY).groups[0]
    with pytest.raises(MemoryError):
        run_group([case.plan for case in group])


def test_no_future_outlives_its_group(toys: None, tmp_path: Path):
    """Dask recomputes the result of a future when the worker dies that held it."""
    futures, alive = list["weakref.ref[Future[Any]]"](), list[tuple[int, int]]()

    class Listed(Here):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(fn, *args, **kwargs)
            futures.append(weakref.ref(future))
            return future

    def on_progress(progress: Progress) -> None:
        alive.append((sum(future() is not None for future in futures), progress.in_flight))

    sweep(**TOY, out=tmp_path / "out", executor=Listed(), on_progress=on_progress)
    assert alive == [(4, 4), (0, 0)]


def test_workers_without_partway_are_refused(toys: None, tmp_path: Path):
    with pytest.raises(InputError, match=r"No module named 'partway'; install there what is installed here"):
        sweep(**TOY, out=tmp_path / "out", executor=WithoutPartway())


def test_workers_of_another_version_are_refused(toys: None):
    expected = sweep_plan.computed_by()
    with pytest.raises(ImportError, match=r"jax is .* there and 0 here"):
        sweep_run._run(sweep_toys.run_group, (), expected | {"jax": "0"})
    assert sweep_run._run(sweep_toys.run_group, (), expected) == []


def test_workers_without_the_same_policy_are_refused_and_the_sweep_can_be_resumed_when_they_have_it(
    toys: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A worker with another file, or without it: no case counts as invalid."""
    mine = "from partway.controllers.baselines import Local\n\n\nclass Mine(Local):\n    pass\n"
    (tmp_path / "own_policy.py").write_text(mine)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    how = TOY | {"schemes": ["own_policy:Mine"]}

    def elsewhere(error: str, **there: Any) -> None:
        class Elsewhere(Here):
            def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
                with monkeypatch.context() as patch:
                    for name, value in there.items():
                        patch.setattr(sweep_plan, name, value)
                    return super().submit(fn, *args, **kwargs)

        with pytest.raises(InputError, match=rf"a worker cannot run this: {error}.*; install there what is installed"):
            sweep(**how, out=tmp_path / "out", executor=Elsewhere())

    def missing(name: str) -> Any:
        raise InputError(f"scheme '{name}': there is no module 'own_policy'")

    different = "the files of own_policy:Mine, or of the profiles, are not the same there as here"
    elsewhere(different, _policy_source=lambda name: "another source")
    elsewhere("scheme 'own_policy:Mine': there is no module", _policy_source=missing)
    assert not list((tmp_path / "out" / "cases").glob("*.json"))
    assert set(sweep(**how, out=tmp_path / "out", executor=Here())["status"].values.ravel()) == {"ok"}


def test_ctrl_c_stops_soon_and_finished_cases_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)

    def interrupt(progress: Progress) -> None:
        if progress.done:
            monkeypatch.setattr(sweep_run, "run_group", time.sleep)
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sweep(**TOY, out=tmp_path / "out", jobs=1, on_progress=interrupt)
    assert time.monotonic() - start < 60  # it does not hang
    assert list((tmp_path / "out" / "cases").glob("*.json"))
    assert not (tmp_path / "out" / "results.nc").exists()


def test_schemes_that_only_this_process_knows_need_an_executor_here(monkeypatch: pytest.MonkeyPatch, toys: None):
    class Mine(Local):
        pass

    monkeypatch.setitem(SCHEMES, "mine", Scheme("mine", Mine(), SCHEMES["local"].server))
    with pytest.raises(InputError, match=r"scheme 'mine': .*module:ATTRIBUTE"):
        sweep(**(TOY | {"schemes": ["mine"]}))
    sweep(**(TOY | {"schemes": ["mine"]}), executor=Here())


def test_jobs_are_checked(toys: None):
    with pytest.raises(InputError, match="--jobs must be between 1 and 1024, got 0"):
        sweep(**TOY, jobs=0)
