"""A sweep on a Dask cluster: the same numbers, also when a worker is killed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sweep_toys
from sweep_toys import Here
from test_sweep_run import MANY, REAL, TOY, Havoc, Witness, dice, killed_and_resumed, noting, same_files

import partway
from partway.cli import main as cli
from partway.errors import InputError
from partway.experiments.sweep import dask as module
from partway.experiments.sweep import run as sweep_run
from partway.experiments.sweep.dask import dask_executor
from partway.experiments.sweep.group import run_group
from partway.experiments.sweep.run import Progress, sweep

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # those of Dask and Tornado are not ours to fix


PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(partway.__file__).parents[1])))
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("PYTHONPATH", paths)
        patch.setenv("NPROC", "1")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as made:
            yield made


@pytest.fixture
def undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)
    monkeypatch.setattr(sweep_toys, "DELAY_S", 0.0)
    sweep(**MANY, out=tmp_path / "undisturbed", executor=Here())
    return tmp_path / "undisturbed"


def test_a_sweep_on_dask_has_the_files_of_one_process(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)
    with dask_executor(cluster.scheduler_address) as executor:
        sweep(**TOY, out=tmp_path / "dask", executor=executor)
    sweep(**TOY, out=tmp_path / "alone", executor=Here())
    assert same_files(tmp_path / "dask", tmp_path / "alone")


@pytest.mark.slow
def test_simulated_numbers_are_those_of_one_process_though_dask_workers_are_killed(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All workers, at a random moment after they have begun; bit for bit."""
    log, chance, killed = tmp_path / "begun", dice(), list[int]()

    def on_progress(progress: Progress) -> None:
        if log.exists() and not killed:
            time.sleep(chance.uniform(0, 1))  # a group takes seconds: it has to be compiled
            killed.extend(nanny.pid for nanny in cluster.workers.values() if nanny.pid)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with monkeypatch.context() as patch, dask_executor(cluster.scheduler_address) as executor:
        patch.setattr(sweep_run, "run_group", noting(run_group, log))
        dataset = sweep(**REAL, out=tmp_path / "dask", executor=executor, on_progress=on_progress)
    assert set(dataset["status"].values.ravel()) == {"ok"}
    assert len(log.read_text().split()) > dataset["status"].size  # some were begun twice
    sweep(**REAL, out=tmp_path / "alone", jobs=1)
    assert same_files(tmp_path / "dask", tmp_path / "alone")


@pytest.mark.slow
def test_dask_workers_killed_at_random_moments_change_nothing(
    cluster: Any, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = Witness(tmp_path, MANY)
    monkeypatch.setattr(sweep_run, "run_group", noting(sweep_toys.run_slowly, seen.log))

    def pids() -> list[int]:
        return [nanny.pid for nanny in cluster.workers.values() if nanny.pid]

    havoc = Havoc(seen, pids, kills=4, pause_s=0.5)  # until the scheduler knows that a result has arrived
    with dask_executor(cluster.scheduler_address) as executor:
        sweep(**MANY, out=seen.out, executor=executor, on_progress=havoc.on_progress)
        havoc.join()
        sweep(**MANY, out=seen.out, executor=executor)  # what failed
    assert same_files(seen.out, undisturbed)
    seen.assert_little_was_lost(on_dask=True)


@pytest.mark.slow
def test_a_sweep_on_dask_killed_at_random_moments_ends_as_if_undisturbed(
    cluster: Any, undisturbed: Path, tmp_path: Path
):
    address = cluster.scheduler_address
    seen = killed_and_resumed(tmp_path / "killed", "sweep_toys.run_slowly", MANY, kills=3, address=address)
    assert same_files(seen.out, undisturbed)
    seen.assert_little_was_lost(on_dask=True)


@pytest.mark.slow
def test_a_killed_scheduler_ends_the_sweep_with_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 2)
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    file = tmp_path / "scheduler.json"
    command += ["--no-dashboard", "--scheduler-file", str(file)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as scheduler:
        while not file.exists():
            assert scheduler.poll() is None
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        with pytest.raises(InputError, match="the Dask scheduler is gone"), dask_executor(address) as executor:
            sweep(**TOY, out=tmp_path / "out", executor=executor, on_progress=lambda progress: scheduler.kill())


def test_no_scheduler_at_the_address_is_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 1)
    start = time.monotonic()
    with (
        pytest.raises(InputError, match=r"'tcp://127\.0\.0\.1:9': no Dask scheduler"),
        dask_executor("tcp://127.0.0.1:9"),
    ):
        pass
    assert time.monotonic() - start < 60  # it does not hang
    with pytest.raises(InputError, match="expected a scheduler's address"), dask_executor("nonsense://"):
        pass


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["local", "slurm", "kubernetes", "ssh"])
def test_every_snippet_has_one_thread_a_worker_and_starts_a_sweep(snippet: str):
    compile(snippet, "docs/cluster.md", "exec")
    one = r"""threads_per_worker": 1|--nthreads 1|"nthreads": 1|cores=(\d+), processes=\1,"""
    assert len(re.findall(one, snippet)) == 1
    assert len(re.findall(r"""NPROC": "1"|export NPROC=1""", snippet)) == 1
    assert "partway.sweep(" in snippet
    assert ".get_executor(pure=False)" in snippet


def test_the_command_shown_is_understood():
    (command,) = re.findall(r"^partway (sweep(?:.*\\\n)*[^\n#]*)", PAGE, re.MULTILINE)
    options = cli.build_parser().parse_args(shlex.split(command.replace("\\\n", " ")))
    assert options.dask == "tcp://127.0.0.1:8786"
    assert "NPROC=1 dask worker tcp://127.0.0.1:8786 --nworkers 2 --nthreads 1" in PAGE


@pytest.mark.slow
def test_the_snippet_for_one_machine_runs(tmp_path: Path):
    (tmp_path / "example.py").write_text(SNIPPETS[0])
    paths = os.environ | {"PYTHONPATH": str(Path(partway.__file__).parents[1])}
    command = [sys.executable, "example.py"]
    finished = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert "arrival_prob" in finished.stdout
    assert (tmp_path / "results" / "load" / "results.nc").exists()
