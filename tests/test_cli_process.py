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
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from test_cli import COMPARE, TINY, call, lines_fit
from test_failures import LATE

from partway.cli import interrupts
from partway.cli import main as cli
from partway.cli.main import main
from partway.files import SIGNALS

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


@pytest.fixture(autouse=True)
def default_signals() -> Iterator[None]:
    """Processes inherit what is ignored, as SIGHUP is where the tests were started by `nohup`."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_a_result_is_printed_in_every_encoding():
    """Names are shortened with an ellipsis, which Latin-1 does not have."""
    words = ("cut", "mobilenetv2", "--rate", "20Mbit/s", "--one-task")
    with process(*words, PYTHONIOENCODING="latin-1", COLUMNS="40") as started:
        code, out, err = finished(started)
    assert (code, err) == (0, "Nothing was saved; use --out DIR to save\ndata and figures.\n")
    assert "?" in out
    assert "Break-even: " in out


@pytest.mark.slow
def test_an_error_in_a_callback_is_one_line_and_xla_logs_none(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)  # which JAX has set here
    level = 'os.environ["TF_CPP_MIN_LOG_LEVEL"]'
    (folder / "late.py").write_text("import os\n" + LATE.replace('"no row\\nfor this queue"', level))
    with process("run", *TINY, "--schemes", "late:Late", "--set", "weights.server_queue=0") as started:
        code, out, err = finished(started)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "partway: scheme 'late:Late' failed: line 9 of late.py: ValueError: 3"
    assert "Traceback" not in err
    assert "pure_callback" not in err


@pytest.mark.parametrize("platform", ["cuda", pytest.param("abacus", marks=pytest.mark.slow)])
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


# Signals


@pytest.mark.parametrize(
    ("number", "after_s"),
    [
        (signal.SIGINT, 0.0),
        pytest.param(signal.SIGHUP, 4.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 4.0, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 0.0, marks=pytest.mark.slow),
    ],
    ids=["SIGINT, compiling", "SIGHUP, running", "SIGINT, running", "SIGTERM, compiling"],
)
def test_a_signal_leaves_nothing_and_its_number_in_the_exit_code(folder: Path, number: int, after_s: float):
    with process(*LONG, "--out", "a/b/results", "--json", "r.json") as started:
        assert started.stderr is not None
        assert "tasks arrive per block" in started.stderr.readline()
        assert sorted(os.listdir(folder))[-1] == "a"
        time.sleep(after_s)
        started.send_signal(number)
        code, _, err = finished(started)
    assert code == 128 + number
    assert err.endswith("partway: interrupted; nothing was written\n")
    assert "Traceback" not in err
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "module",
    [
        "partway.errors",
        "numpy.lib.scimath",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("scipy", "xarray")),
    ],
)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_while_libraries_are_imported_ends_the_process(folder: Path, number: int):
    with process(*LONG, "--out", "a/b/results", python=["-X", "importtime"]) as started:
        assert started.stderr is not None
        assert any(line.split()[-1] == "scipy" for line in started.stderr)
        started.send_signal(number)
        code, out, err = finished(started)
    assert (code, out) == (128 + number, "")
    assert "Traceback" not in err


def test_a_signal_that_is_ignored_stays_so(folder: Path):
    """As SIGHUP is after `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a process inherits
    try:
        with process(*LOCAL, "--json", "r.json") as started:
            assert started.stderr is not None
            assert "tasks arrive per block" in started.stderr.readline()
            started.send_signal(signal.SIGHUP)
            code, _, err = finished(started)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (code, err) == (0, "")


def test_only_ctrl_c_interrupts_what_another_signal_has_begun(installed: list[Any]):
    """A service is stopped by SIGTERM and then SIGHUP; an impatient user presses Ctrl-C twice."""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert interrupts.received() == signal.SIGTERM


SWEEP = ("sweep", "--axis", "devices=2,3", *TINY[2:], "--schemes", "local", "--jobs", "1", "--out", "s")


@pytest.mark.slow
def test_a_sweep_whose_standard_error_is_closed(folder: Path):
    """Its worker processes have one all the same: the null device."""
    words = " ".join((sys.executable, "-m", "partway", *SWEEP, "2>&-"))
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "local" in done.stdout
    assert len(os.listdir(folder / "s" / "cases")) == 2
    assert "results.nc" in os.listdir(folder / "s")


def test_a_command_without_any_standard_stream(folder: Path):
    words = f"{sys.executable} -m partway profile alexnet --out o <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", words], timeout=120).returncode == 0
    assert "alexnet.csv" in os.listdir("o")


def test_an_error_is_not_printed_to_standard_output_where_standard_error_is_closed(folder: Path):
    words = f"{sys.executable} -m partway scenarios papre 2>&-"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGINT, signal.SIGHUP))],
)
def test_a_signal_to_all_processes_of_a_sweep_leaves_no_process_and_no_noise(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, number: int
):
    """As a terminal sends Ctrl-C and SIGHUP, and `timeout` and Slurm send SIGTERM."""
    temporary = tmp_path_factory.mktemp("tmp")
    command = [sys.executable, "-m", "partway", *SWEEP[:-4], "--jobs", "2", "--blocks", "5000000", "--out", "s"]
    options: dict[str, Any] = {"env": {**os.environ, "TMPDIR": str(temporary)}, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as started:
        end = time.monotonic() + 60
        while sum(len(os.listdir(each)) for each in temporary.glob("partway-workers-*")) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(started.pid, number)
        out, err = started.communicate(timeout=60)
    assert started.returncode == 128 + number
    assert out == ""
    assert err == "partway: interrupted; 0 of 2 cases are saved in s; run the same command again to resume\n"
    assert os.listdir(temporary) == []
    end = time.monotonic() + 10
    while alive(started.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(started.pid)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def collect_and_wait() -> None:
    gc.collect()
    time.sleep(60)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """As in a process of its own; what Python reports as lost."""
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    monkeypatch.setattr(interrupts, "_received", interrupts._Received())
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupts.install()
    threshold = gc.get_threshold()
    gc.set_threshold(700, 10, 10)  # Python's own
    yield reported
    gc.set_threshold(*threshold)
    for number, handler in before.items():
        signal.signal(number, handler)


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
    assert interrupts.received() == signal.SIGINT
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
