"""A sweep on a Dask cluster: the same numbers, also when a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sweep_toys

from partway import sweep_run
from partway.errors import InputError
from partway.sweep_cluster import dask_executor
from partway.sweep_run import Progress, sweep

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # Dask's and Tornado's own are not ours to mend

TOY: dict[str, Any] = {
    "over": {"device.arrival_prob": [i / 100 for i in range(1, 81)], "devices": [1, 2]},
    "schemes": ["local", "full"],
    "blocks": 10,
    "seeds": 2,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(sweep_run.__file__).parents[1])))
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("PYTHONPATH", paths)
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as made:
            yield made


@pytest.mark.slow
def test_killed_dask_workers_change_nothing(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_run, "play_group", sweep_toys.play)
    with ThreadPoolExecutor(1) as here:
        sweep(**TOY, out=tmp_path / "undisturbed", executor=here)
    monkeypatch.setattr(sweep_run, "play_group", sweep_toys.play_slowly)
    killed = list[int]()

    def tick(progress: Progress) -> None:
        if progress.done and not killed:
            nanny = next(iter(cluster.workers.values()))
            killed.append(nanny.pid)
            os.kill(nanny.pid, signal.SIGKILL)

    with dask_executor(cluster.scheduler_address) as executor:
        dataset = sweep(**TOY, out=tmp_path / "out", executor=executor, tick=tick)
    assert killed
    assert set(dataset["status"].values.ravel()) == {"ok"}
    names = ["results.nc", *(f"cases/{path.name}" for path in (tmp_path / "undisturbed" / "cases").iterdir())]
    assert all(
        (tmp_path / "out" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes() for name in names
    )


def test_a_killed_scheduler_ends_the_sweep_with_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("partway.sweep_cluster.PATIENCE_S", 2)
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    place = tmp_path / "scheduler.json"
    command += ["--no-dashboard", "--scheduler-file", str(place)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as scheduler:
        while not place.exists():
            assert scheduler.poll() is None
            time.sleep(0.1)
        address = json.loads(place.read_text())["address"]
        with pytest.raises(InputError, match="the Dask scheduler is gone"), dask_executor(address) as executor:
            sweep(**TOY, out=tmp_path / "out", executor=executor, tick=lambda progress: scheduler.kill())


def test_nobody_at_the_address_is_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("partway.sweep_cluster.PATIENCE_S", 1)
    begun = time.monotonic()
    with (
        pytest.raises(InputError, match=r"'tcp://127\.0\.0\.1:9': no Dask scheduler"),
        dask_executor("tcp://127.0.0.1:9"),
    ):
        pass
    assert time.monotonic() - begun < 60  # it does not hang
    with pytest.raises(InputError, match="expected a scheduler's address"), dask_executor("nonsense://"):
        pass
