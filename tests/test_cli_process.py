"""`partway` as a process: what it imports, exit codes, closed pipes, full disks and Ctrl-C."""

import contextlib
import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_cli import COMPARE, TINY, call, lines_fit

from partway.cli import interrupts
from partway.cli import main as cli
from partway.cli.main import main

ROOT = Path(__file__).parent.parent
LOCAL = ("compare", *TINY, "--schemes", "local", "--set", "queue=as_printed")
"""Quick to compile: there is no lower bound for this queue."""
LONG = (*LOCAL, "--blocks", "10000000")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled programs are remembered from one process of these tests to the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test stands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")  # half the time to compile
    return tmp_path


@contextlib.contextmanager
def process(*arguments: str, python: Sequence[str] = (), **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`partway` from this checkout; `python`: flags of the interpreter."""
    command = [sys.executable, *python, "-m", "partway", *arguments]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **options}
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def finished(started: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = started.communicate(timeout=120)
    return started.returncode, out, err


# What is imported

IMPORTED = """
import contextlib, io, json, sys
from partway.cli.main import COMMANDS, main
heavy = {}
helps = [["--help"], *([command.name, "--help"] for command in COMMANDS)]
for words in (*helps, ["--version"], ["scenarios", "ocr"], ["profile", "alexnet"], ["schemes"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(words)
    heavy[" ".join(words)] = [name for name in ("jax", "xarray", "matplotlib") if name in sys.modules]
json.dump(heavy, sys.stdout)
"""


@pytest.fixture(scope="module")
def heavy() -> dict[str, list[str]]:
    """Heavy modules that are there after each command, one after the other in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    return json.loads(done.stdout)


def test_help_imports_nothing_heavy(heavy: dict[str, list[str]]):
    light = {command: modules for command, modules in heavy.items() if command not in ("profile alexnet", "schemes")}
    assert len(light) == 1 + len(cli.COMMANDS) + 2
    assert [modules for modules in light.values() if modules] == []
    assert "jax" not in heavy["profile alexnet"]


def test_the_list_of_schemes_needs_no_jax(heavy: dict[str, list[str]]):
    assert "jax" not in heavy["schemes"]


# Exit codes


def test_a_process_prints_json_and_exits_with_0(folder: Path):
    with process(*LOCAL, "--json", "-") as started:
        code, out, err = finished(started)
    assert code == 0
    assert json.loads(out)["blocks"] == 20
    assert re.fullmatch(r"[\d.]+ tasks arrive per block[^\0]*", err)
    assert lines_fit(err)
    assert os.listdir(folder) == []


def test_a_process_that_is_refused_exits_with_2(folder: Path):
    with process("scenarios", "papre") as started:
        assert finished(started) == (2, "", "partway: no scenario 'papre'; did you mean 'paper'?\n")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("platform", ["cuda", "abacus"])
def test_a_backend_that_is_not_there_is_one_line(folder: Path, platform: str):
    """Where no test runs on a GPU, but on a machine with one it is hidden."""
    with process("bound", "--set", "devices=2", JAX_PLATFORMS=platform, CUDA_VISIBLE_DEVICES="") as started:
        code, out, err = finished(started)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"partway: JAX_PLATFORMS={platform}: JAX cannot compute there (")
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_failure(folder: Path):
    with process(*LOCAL, "--out", "results") as started:
        assert started.stdout is not None
        started.stdout.close()
        assert started.stderr is not None
        err = started.stderr.read()
        assert started.wait(timeout=120) == 0
    assert "Traceback" not in err
    assert "results.nc" in os.listdir(folder / "results")


@pytest.mark.parametrize("words", [("schemes",), ("scenarios",), ("scenarios", "paper")], ids=" ".join)
def test_a_full_disk_behind_stdout_is_one_line(words: Sequence[str]):
    err = io.StringIO()
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full), contextlib.redirect_stderr(err):
        assert main(words) == 2
    assert err.getvalue() == "partway: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("words", [("schemes",), ("scenarios",), ("scenarios", "paper")], ids=" ".join)
def test_no_stdout_at_all(words: Sequence[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(words) == 0


# Ctrl-C


@pytest.mark.parametrize("after_s", [0.0, 4.0], ids=["compiling", "running"])
def test_an_interrupt_leaves_nothing_and_exits_with_130(folder: Path, after_s: float):
    with process(*LONG, "--out", "a/b/results", "--json", "r.json") as started:
        assert started.stderr is not None
        assert "tasks arrive per block" in started.stderr.readline()
        assert sorted(os.listdir(folder))[-1] == "a"
        time.sleep(after_s)
        started.send_signal(signal.SIGINT)
        code, _, err = finished(started)
    assert code == 130
    assert err.endswith("partway: interrupted; nothing was written\n")
    assert "Traceback" not in err
    assert os.listdir(folder) == []


@pytest.mark.parametrize("module", ["partway.errors", "numpy.lib.scimath", "scipy", "xarray"])
def test_an_interrupt_while_modules_are_imported_exits_with_130(folder: Path, module: str):
    """Python reports each module on standard error when it is imported; jaxlib imports NumPy from C++."""
    with process(*LONG, "--out", "a/b/results", python=["-X", "importtime"]) as started:
        assert started.stderr is not None
        assert any(line.split()[-1] == module for line in started.stderr)
        started.send_signal(signal.SIGINT)
        code, out, err = finished(started)
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert os.listdir(folder) == []


def collect_and_wait() -> None:
    gc.collect()
    time.sleep(60)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """As in a process of its own; what Python reports as lost."""
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    monkeypatch.setattr(interrupts, "_pressed", threading.Event())
    before = signal.getsignal(signal.SIGINT)
    interrupts.install()
    yield reported
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_python_loses_is_sent_again(folder: Path, installed: list[Any]):
    """What is raised in a callback of the garbage collector, as JAX has one, is reported and lost."""

    def interrupt(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(interrupt)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        collect_and_wait()
    assert time.monotonic() - started < 30
    assert interrupts.pressed()
    gc.callbacks.append(interrupt)
    assert call(*COMPARE, "--blocks", "1000000", "--out", "a/results").code == 130
    assert os.listdir(folder) == []
    assert installed == []


# Cores


def test_a_large_fleet_may_use_all_cores():
    """As many JAX devices as cores (NPROC), unless the user has said how many."""
    code = "from partway.cli.main import use_all_cores; use_all_cores(); import jax; print(len(jax.local_devices()))"
    expected = [
        ({}, 3),
        ({"JAX_NUM_CPU_DEVICES": "2"}, 2),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, "NPROC": "3", **given}, stdout=subprocess.PIPE, text=True
        )
        for given, _ in expected
    ]
    assert [int(each.communicate(timeout=120)[0]) for each in started] == [devices for _, devices in expected]
