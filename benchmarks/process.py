"""Starts jobs and commands in processes of their own, and collects what they find."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIME_LIMIT_S = 480
PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}
"""JAX's platform by device: a missing GPU is then an error, not a run on the CPU."""


WITHOUT_DASK = """
import json, os, sys
os.sched_setaffinity(0, json.loads(os.environ["PARTWAY_BENCHMARK_CORES"]))
sys.modules["dask"] = None
from partway.__main__ import main
sys.exit(main())
"""
"""Partway on some cores, as without the extra `cluster`: xarray imports Dask if it is installed."""


@dataclass(frozen=True)
class Job:
    """A function of `benchmarks.jobs` and its arguments.

    cores  the cores it may use, all if none are named
    cache  the folder of compiled programs; None: everything is compiled anew
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
    given = {"name": job.name, "how": job.how, "cores": job.cores, "cache": job.cache}
    return start_module("benchmarks.worker", json.dumps(given), environment(job))


def start_module(module: str, argument: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """The process of a module of this folder, with one argument."""
    command = [sys.executable, "-m", module, argument]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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

    on  the cores it may use, all if none are named
    """
    took: dict[str, list[float]] = {"cold_s": [], "warm_s": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            for times in took.values():
                try:
                    times.append(command_s(start_command(scheme), folder, device, on))
                except RuntimeError as error:
                    return {"failed": str(error)}
    return took


def command_s(
    arguments: Sequence[str], cache: str, device: str = "cpu", on: tuple[int, ...] = (), root: Path = ROOT
) -> float:
    """Seconds of `partway ARGUMENTS` from the start of its process to its end.

    cache  the user's cache folder     on  the cores it may use, all if none are named     root  the checkout

    Raises RuntimeError if it fails or takes too long.
    """
    made = command_environment(cache, device) | {"PARTWAY_BENCHMARK_CORES": json.dumps(on or cores())}
    command, begun = [sys.executable, "-c", WITHOUT_DASK, *arguments], time.perf_counter()
    try:
        done = subprocess.run(command, cwd=root, env=made, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took more than {TIME_LIMIT_S} s") from error
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200])
    return time.perf_counter() - begun


def command_environment(cache: str, device: str = "cpu") -> dict[str, str]:
    """A user's environment, with a cache folder of its own."""
    made = {**os.environ, "XDG_CACHE_HOME": cache, "JAX_PLATFORMS": PLATFORMS[device]}
    made.pop("PYTHONDONTWRITEBYTECODE", None)  # set where tests run: modules would be compiled each time
    made.pop("PYTHONPATH", None)  # another checkout must not come first
    return made


def start_command(scheme: str) -> list[str]:
    """What is timed, the arguments of `partway`."""
    return ["run", "--schemes", scheme, "--set", "devices=4", "--blocks", "500", "--seeds", "1"]


def cores() -> tuple[int, ...]:
    """The cores this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))
