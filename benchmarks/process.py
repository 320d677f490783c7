"""Jobs are started in processes of their own and what they find is collected."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIME_LIMIT_S = 480
PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}
"""What JAX is told by device: a GPU that is missing is an error then, not a run on the CPU."""


WITHOUT_DASK = """
import json, os, sys
os.sched_setaffinity(0, json.loads(os.environ["PARTWAY_BENCHMARK_CORES"]))
sys.modules["dask"] = None
from partway.__main__ import main
sys.exit(main())
"""
"""Partway on some cores, as it is without the extra `cluster`: xarray imports Dask where it is there."""


@dataclass(frozen=True)
class Job:
    """A function of `benchmarks.jobs` and its arguments.

    cores  the cores it may use, all where there are none named
    cache  the folder of compiled programs, none: everything is compiled anew
    """

    name: str
    how: dict[str, Any] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    cache: str | None = None
    device: str = "cpu"

    def words(self) -> str:
        """What is said while it runs."""
        cores = f" on {len(self.cores)} cores" if self.cores else ""
        return f"{self.name} {' '.join(str(value) for value in self.how.values())}{cores}"


def start(job: Job) -> subprocess.Popen[str]:
    """The job's process, its threads as many as its cores."""
    told = {"name": job.name, "how": job.how, "cores": job.cores, "cache": job.cache}
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps(told)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def environment(job: Job) -> dict[str, str]:
    """One thread a core, in XLA and in BLAS, and the device and no other."""
    made = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": PLATFORMS[job.device]}
    threads = str(len(job.cores or cores()))
    made |= dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "JAX_NUM_CPU_DEVICES"), threads)
    if len(job.cores) == 1:
        made["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    return made


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it found; {"failed": why} where it did not."""
    try:
        out, errors = process.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"failed": f"took more than {TIME_LIMIT_S} s"}
    if process.returncode != 0:
        return {"failed": (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:200]}
    return json.loads(out.splitlines()[-1])


def do(job: Job) -> dict[str, Any]:
    """Run a job; `process_s`: from its start to its end."""
    begun = time.perf_counter()
    found = finish(start(job))
    return {**found, "process_s": time.perf_counter() - begun}


def do_together(jobs: list[Job]) -> list[dict[str, Any]]:
    """Jobs side by side, such as one on each core."""
    return [finish(process) for process in [start(job) for job in jobs]]


def start_up(scheme: str, device: str = "cpu", on: tuple[int, ...] = (), runs: int = 3) -> dict[str, Any]:
    """Seconds of `partway run` from start to result, before anything was compiled and right after.

    on  the cores it may use, all where there are none named
    """
    told = {"PARTWAY_BENCHMARK_CORES": json.dumps(on or cores())}
    took: dict[str, list[float]] = {"cold_s": [], "warm_s": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            for times in took.values():
                begun = time.perf_counter()
                made = {**os.environ, **told, "XDG_CACHE_HOME": folder, "JAX_PLATFORMS": PLATFORMS[device]}
                made.pop("PYTHONDONTWRITEBYTECODE", None)  # set where tests run: modules would be compiled each time
                command = [sys.executable, "-c", WITHOUT_DASK, *start_command(scheme)[1:]]
                done = subprocess.run(command, cwd=ROOT, env=made, capture_output=True, text=True)
                if done.returncode != 0:
                    return {"failed": done.stderr.strip().splitlines()[-1][:200]}
                times.append(time.perf_counter() - begun)
    return took


def start_command(scheme: str) -> list[str]:
    """What is timed, without the interpreter."""
    return ["partway", "run", "--schemes", scheme, "--set", "devices=4", "--blocks", "500", "--seeds", "1"]


def cores() -> tuple[int, ...]:
    """The cores this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))
