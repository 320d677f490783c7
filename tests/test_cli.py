"""The command line as a user meets it: what it prints, what it writes, how it fails."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partway import files as store
from partway.cli import commands
from partway.cli import main as cli
from partway.cli import reproduce as reproduce_command
from partway.cli import sweep as sweep_command
from partway.cli.main import main
from partway.errors import InputError
from partway.experiments.comparison import Plan
from partway.provenance import version
from partway.scenario.loading import load, preset_text, presets
from partway.schemes import SCHEMES, hyperparameters

ROOT = Path(__file__).parent.parent
COMMANDS = (
    *("compare", "run", "sweep", "bound", "theorem1", "reproduce"),
    *("schemes", "scenarios", "scenario", "cut", "profile"),
)
TINY = ("--set", "devices=2", "--blocks", "20", "--seeds", "2")
COMPARE = ("compare", *TINY, "--schemes", "local", "random")
RUN = ("run", *TINY, "--schemes", "local")
POLICY = '''
from partway import DeviceAction, DeviceController, drain, record

@record
class Half(DeviceController):
    """Sends [half] of a task in every block.

    More words.
    """

    share: float = 0.5

    def act(self, memory, device, view, key):
        return DeviceAction(whole=drain(device, view.q, self.share), rest=self.share)

number, instance = 3, Half(share=0.25)

def fails():
    raise RuntimeError("two\\nlines")

class Fails(DeviceController):
    def __init__(self):
        raise RuntimeError("two\\nlines")
'''


class Result(NamedTuple):
    """What a command left behind: its exit code and what it printed."""

    code: int
    out: str
    err: str


def call(*arguments: str) -> Result:
    """The command line in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def listing(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, and every folder."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def refused(*arguments: str) -> str:
    """The one line that refuses a command; nothing is printed beside it, nothing written."""
    before = listing(Path())
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("partway: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert len(err) <= 320
    assert listing(Path()) == before
    return err


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled programs are remembered from one process of these tests to the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test stands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def lines_fit(text: str) -> bool:
    return all(len(line) <= 100 for line in text.splitlines())


# Help and lists


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str):
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: partway {command} ")
    assert lines_fit(out)
    if command in ("compare", "run", "sweep", "bound", "reproduce", "cut", "profile"):
        assert "\nexamples:\n  partway " in out


def test_alone_it_shows_its_help():
    assert call() == call("--help")
    assert call("--version").out == f"partway {version()}\n"


def test_help_names_every_command():
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert all(re.search(rf"(?m)^    {command}\b", out) for command in COMMANDS)


def test_examples_of_the_help_are_commands(monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []
    for name in ("compare", "run", "bound", "cut", "profile_network"):
        monkeypatch.setattr(commands, name, asked.append)
    monkeypatch.setattr(sweep_command, "sweep", asked.append)
    monkeypatch.setattr(reproduce_command, "reproduce_paper", asked.append)
    examples = [line for command in COMMANDS for line in call(command, "--help").out.splitlines()]
    examples = [re.split(r"  +|\s\|", line.strip())[0].split() for line in examples if line.startswith("  partway ")]
    assert len(examples) >= 20
    assert [call(*words[1:]).code for words in examples] == [0] * len(examples)
    assert len(asked) == len(examples)


def test_schemes_lists_every_scheme():
    code, out, err = call("schemes")
    assert (code, err) == (0, "")
    assert lines_fit(out)
    assert re.findall(r"(?m)^([\w-]+) +\S.* +\d +\d *$", out) == list(SCHEMES)


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_lists_the_hyperparameters_of_one(name: str):
    code, out, err = call("schemes", name)
    assert (code, err) == (0, "")
    assert lines_fit(out)
    rows = dict(re.findall(rf"(?m)^schemes\.{name}\.(\w+) +(\S+) *$", out))
    assert {field: tomllib.loads(f"x = {value}")["x"] for field, value in rows.items()} == hyperparameters(name)


def test_scenarios_lists_every_preset():
    code, out, err = call("scenarios")
    assert (code, err) == (0, "")
    assert lines_fit(out)
    assert all(re.search(rf"(?m)^{name} +{re.escape(about[:20])}", out) for name, about in presets().items())


@pytest.mark.parametrize("name", presets())
def test_a_printed_scenario_is_that_scenario(folder: Path, name: str):
    code, out, err = call("scenario", name)
    assert (code, err) == (0, "")
    assert out == preset_text(name)
    (folder / "mine.toml").write_text(out)
    assert load("mine.toml") == load(name)


def test_the_scenario_to_start_from_is_the_papers():
    assert call("scenario").out == preset_text("paper")


# Refusals

SUGGESTED = {
    ("compair",): (
        "'compair': allowed is compare, run, sweep, bound, theorem1, reproduce, schemes, scenarios, scenario, cut, "
        "profile; "
        "did you mean 'compare'?"
    ),
    ("compare", "--sede", "3"): "--sede 3; did you mean '--seed'?",
    ("compare", "--blokcs=3"): "--blokcs=3; did you mean '--blocks'?",
    ("schemes", "exat"): "no scheme 'exat'; did you mean 'exact'?",
    ("scenario", "papre"): "no scenario 'papre'; did you mean 'paper'?",
    ("profile", "resnet5"): "'resnet5'; did you mean 'resnet50'?",
    ("profile", "resnet50", "--coding", "fp61"): "--coding 'fp61': allowed is fp32, fp16, uint8; did you mean 'fp16'?",
    (*COMPARE, "--scenario", "papr"): "--scenario 'papr': neither a file nor a preset; did you mean 'paper'?",
    (*COMPARE, "--schemes", "locl"): "no scheme 'locl'; did you mean 'local'?",
    (*COMPARE, "--server", "exakt"): "no scheme 'exakt'; did you mean 'exact'?",
    (*COMPARE, "--precision", "float23"): "--precision 'float23': allowed is float32, float64; did you mean 'float32'?",
    (*COMPARE, "--set", "devcies=3"): "unknown field 'devcies'; did you mean 'devices'?",
    (*COMPARE, "--set", "arrival_prob=1"): "unknown field 'arrival_prob'; did you mean 'device.arrival_prob'?",
    (*COMPARE, "--set", "schemes.exact.stepp=1"): "unknown field 'schemes.exact.stepp'; did you mean 'step'?",
    (*COMPARE, "--set", "schemes.exat.step=1"): "no scheme 'exat'; did you mean 'exact'?",
}


@pytest.mark.parametrize("arguments", SUGGESTED, ids=" ".join)
def test_a_mistyped_word_suggests_the_nearest(arguments: Sequence[str]):
    assert SUGGESTED[tuple(arguments)] in refused(*arguments)


WRONG = {
    ("compart",): ["COMMAND 'compart'", "did you mean 'compare'?"],
    ("scenario", "paper", "paper"): ["unrecognized arguments: paper"],
    ("compare", "--trace", "0"): ["unrecognized arguments: --trace 0", "partway compare --help"],
    ("compare", "--set"): ["--set", "expected at least one argument"],
    ("run", "--schemes", "local", "random"): ["--schemes local random", "'run' takes one scheme"],
    ("compare", "--seeds", "100001"): ["--seeds 100001", "a count from 1 up to 100000"],
    ("compare", "--seeds", "9" * 5000): ["--seeds", "allowed is a "],
    ("profile", "missing.onnx"): ["missing.onnx"],
    ("profile", "missing.csv"): ["missing.csv"],
    ("profile", "/"): ["/"],
    ("profile", "resnet50", "--shape", "x"): ["--shape", "'x'", "NAME=SIZExSIZE"],
    ("profile", "resnet50", "--check"): ["--check", "need an .onnx file"],
    (*RUN, "--trace", "2"): ["--trace 2", "from 0 to 1"],
    (*RUN, "--trace", "-1"): ["--trace -1", "from 0 to 1"],
    (*RUN, "--trace", "x"): ["--trace", "'x'", "allowed is a whole number"],
    (*COMPARE, "--blocks", "1"): ["--blocks 1", "from 2 to 10000000"],
    (*COMPARE, "--blocks", "10000001"): ["--blocks 10000001", "from 2 to 10000000"],
    (*COMPARE, "--blocks", "1.5"): ["--blocks", "'1.5'", "allowed is a whole number"],
    (*COMPARE, "--blocks", "nan"): ["--blocks", "'nan'", "allowed is a whole number"],
    (*COMPARE, "--warmup", "20"): ["--warmup 20", "from 0 to 19"],
    (*COMPARE, "--warmup", "-1"): ["--warmup -1", "from 0 to 19"],
    (*COMPARE, "--seeds", "0"): ["--seeds 0", "a count from 1"],
    (*COMPARE, "--seeds", "-1"): ["--seeds -1", "a count from 1"],
    (*COMPARE, "--seeds", "1", "1"): ["--seeds [1, 1]", "different whole numbers from 0 to 4294967295"],
    (*COMPARE, "--seeds", "0", "4294967296"): ["4294967296", "from 0 to 4294967295"],
    ("compare", "--seed", "4294967296"): ["4294967296", "from 0 to 4294967295"],
    ("compare", "--seed", "1", "--seeds", "1"): ["--seeds", "--seed"],
    (*COMPARE, "--seeds", "one"): ["--seeds", "'one'", "allowed is a whole number"],
    (*COMPARE, "--set", "device.arrival_prob=1.2"): ["device.arrival_prob = 1.2", "from 0 up to 1"],
    (*COMPARE, "--set", "device.capacitance=-1"): ["device.capacitance = -1", "from 0"],
    (*COMPARE, "--set", "devices=0"): ["devices = 0", "from 1 up to 10000000"],
    (*COMPARE, "--set", "slot_s=nan"): ["slot_s = nan", "a number from"],
    (*COMPARE, "--set", "schemes.exact.step=fast"): ["step = 'fast'", "allowed is a number"],
    (*COMPARE, "--set", "device.task={kind='layers',profile='/',coding='fp32'}"): ["profile '/'"],
    (*COMPARE, "--set", "device.task={kind='layers',profile='resnet5',coding='fp32'}"): ["did you mean 'resnet50'?"],
    (*COMPARE, "--scenario", "."): ["--scenario '.'", "Is a directory"],
    (*COMPARE, "--scenario", "missing.toml"): ["--scenario 'missing.toml'", "neither a file nor a preset"],
    (*COMPARE, "--scenario", "junk"): ["--scenario 'junk'", "not a text file"],
    (*COMPARE, "--scenario", "groups.toml"): ["group: the fractions sum to 0.9"],
    (*COMPARE, "--out", "junk"): ["--out 'junk'", "is not a folder"],
    (*COMPARE, "--out", "junk/below"): ["--out 'junk/below'", "cannot be written"],
    (*COMPARE, "--out", ""): ["--out '.'", "in use"],
    (*COMPARE, "--out", "full", "--overwrite"): ["--out 'full'", "'notes.txt'", "Partway did not write"],
    (*COMPARE, "--out", "full"): ["--out 'full'", "exists already; add --overwrite"],
    (*COMPARE, "--out", "/proc/a/b"): ["--out '/proc/a/b'", "cannot be written"],
    (*COMPARE, "--out", "n" * 256): ["--out 'nnn", "File name too long"],
    (*COMPARE, "--json", "junk"): ["--json 'junk'", "exists already; add --overwrite"],
    (*COMPARE, "--json", "full"): ["--json 'full'", "is a folder"],
    (*COMPARE, "--json", "nowhere/r.json"): ["--json 'nowhere/r.json'", "No such file or directory"],
    (*COMPARE, "--json", "/dev/null", "--overwrite"): ["--json '/dev/null'", "is not a regular file"],
    (*COMPARE, "--out", "new", "--json", "new/r.json"): ["--json new/r.json", "is in --out"],
    (*COMPARE, "--out", "new", "--json", "nowhere/r.json"): ["--json 'nowhere/r.json'", "No such file"],
    ("profile", "resnet50", "--out", "full"): ["--out 'full'", "exists already; add --overwrite"],
}


@pytest.mark.parametrize("arguments", WRONG, ids=lambda words: " ".join(words[-2:])[:40])
def test_what_is_wrong_is_one_line_and_nothing_is_written(folder: Path, arguments: Sequence[str]):
    (folder / "junk").write_bytes(b"\x7fELF\xff\xfe" + bytes(range(256)))
    (folder / "groups.toml").write_text("[[group]]\nfraction = 0.5\n[[group]]\nfraction = 0.4\n")
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    message = refused(*arguments)
    for part in WRONG[tuple(arguments)]:
        assert part in message


flags = ["--scenario", "--set", "--schemes", "--server", "--blocks", "--seeds", "--warmup", "--precision", "--out"]
tokens = st.sampled_from([*flags, "--json", "--overwrite", "--", "-", "=", "9" * 5000, "paper", "nan"]) | st.text(
    max_size=8
)


@settings(max_examples=300, deadline=None, derandomize=False)
@given(st.lists(tokens, max_size=6), st.sampled_from(["compare", "run"]))
def test_any_words_after_a_command(words: list[str], command: str):
    code, out, err = call(command, *words, "--set", "devices=0")
    assert (code == 2 and out == "") or (code == 0 and out.startswith("usage: ") and {"-h", "--help"} & set(words))
    assert err == "" or (err.count("\n") == 1 and len(err) <= 320 and err.startswith("partway: "))


# Results


def test_compare_writes_what_it_prints(folder: Path):
    code, out, err = call(*COMPARE, "--out", "a/results", "--json", "r.json")
    assert code == 0
    assert err.endswith("Figures, data and JSON are in a/results\n")
    assert lines_fit(out)
    assert lines_fit(err)
    written = {path.name for path in (folder / "a" / "results").iterdir()}
    assert {"results.nc", "results.json", "scenario.toml", "table.txt", store.MARK} < written
    assert any(name.endswith(".png") for name in written)
    assert (folder / "a" / "results" / "results.json").read_text() == (folder / "r.json").read_text()
    assert (folder / "a" / "results" / "table.txt").read_text() == out
    assert load(folder / "a" / "results" / "scenario.toml") == load("paper", ["devices=2"])
    dataset = store.load_dataset("a/results")
    assert dataset["scheme"].values.tolist() == ["local", "random"]
    assert dict(dataset.sizes) | {"seed": 2, "block": 20, "device": 2} == dict(dataset.sizes)
    assert sorted(os.listdir(folder)) == ["a", "r.json"]
    results_are_replaced_only_when_asked(folder)


def results_are_replaced_only_when_asked(folder: Path) -> None:
    """Goes on where results exist, which take a second to draw."""
    before = listing(folder)
    assert "exists already; add --overwrite" in refused(*COMPARE, "--out", "a/results")
    assert "exists already; add --overwrite" in refused(*COMPARE, "--json", "r.json")
    code, _, _ = call(*RUN, "--trace", "1", "0", "--out", "a/results", "--json", "r.json", "--overwrite")
    assert code == 0
    assert store.load_dataset("a/results")["scheme"].values.tolist() == ["local"]
    assert [scheme["name"] for scheme in json.loads((folder / "r.json").read_text())["schemes"]] == ["local"]
    assert set(before) != set(listing(folder))
    assert sorted(os.listdir(folder)) == ["a", "r.json"]
    assert os.listdir(folder / "a") == ["results"]
    (folder / "a" / "results" / "notes.txt").write_text("mine")
    assert "'notes.txt', which Partway did not write" in refused(*COMPARE, "--out", "a/results", "--overwrite")


def test_json_to_stdout_is_all_that_is_there():
    code, out, err = call(*COMPARE, "--json", "-")
    assert code == 0
    document = json.loads(out, parse_constant=pytest.fail)
    assert [scheme["name"] for scheme in document["schemes"]] == ["local", "random"]
    assert (document["scenario"]["devices"], document["seeds"]) == (2, [0, 1])
    assert "tasks arrive per block" in err


def test_without_out_nothing_is_written(folder: Path):
    code, out, err = call(*COMPARE)
    assert code == 0
    assert os.listdir(folder) == []
    assert "Nothing was written" in err
    assert lines_fit(out + err)
    assert {"local", "random*"} <= {line.split()[0] for line in out.splitlines()}


def test_an_unknown_profile_leaves_no_folder(folder: Path):
    task = "device.task={kind='layers',profile='missing',coding='fp32'}"
    assert "'missing'" in refused(*COMPARE, "--out", "a/b", "--json", "r.json", "--set", task)
    assert os.listdir(folder) == []


def test_profile_writes_and_replaces(folder: Path):
    for overwrite in ([], ["--overwrite"]):
        code, out, _ = call("profile", "squeezenet", "--out", "mine", *overwrite)
        assert code == 0
        assert lines_fit(out)
    assert {"squeezenet.csv", "squeezenet.png", "squeezenet.svg"} < set(os.listdir(folder / "mine"))
    assert os.listdir(folder) == ["mine"]


# Schemes from outside


def test_a_scheme_from_the_current_folder(folder: Path):
    (folder / "outside_good.py").write_text(POLICY)
    code, out, _ = call("compare", *TINY, "--schemes", "outside_good:Half", "local")
    assert code == 0
    assert "outside_good:Half" in out
    assert lines_fit(out)
    code, out, err = call("schemes", "outside_good:instance")
    assert (code, err) == (0, "")
    assert "outside_good:instance: Sends [half] of a task in every block." in out
    assert "schemes.outside_good:instance.share" in out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("outside_bad:Missing", "has no attribute 'Missing'"),
        ("outside_bad:number", "expected a Scheme or a DeviceController, found int"),
        ("outside_bad:fails", "expected a Scheme or a DeviceController, found function"),
        ("outside_bad:Fails", "RuntimeError: two lines"),
        ("outside_bad:", "outside_bad:"),
        (":", "scheme ':'"),
        ("outside_missing:Half", "No module named 'outside_missing'"),
        ("outside_syntax:Half", "SyntaxError"),
        ("outside_raises:Half", "ZeroDivisionError: division by zero"),
        ("../outside_bad:Half", "scheme '../outside_bad:Half': "),
    ],
)
def test_a_broken_scheme_is_one_line(folder: Path, name: str, reason: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (folder / "outside_bad.py").write_text(POLICY)
    (folder / "outside_syntax.py").write_text("def (")
    (folder / "outside_raises.py").write_text("1 / 0")
    assert reason in refused(*COMPARE, "--schemes", name, "--out", "results")


# The process


@contextlib.contextmanager
def process(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """`partway` as a process of its own, from this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "partway", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as started:
        try:
            yield started
        finally:
            started.kill()


def test_a_process_prints_json_and_exits_with_0(folder: Path):
    with process("compare", *TINY, "--schemes", "local", "--json", "-") as started:
        out, err = started.communicate(timeout=120)
    assert started.returncode == 0
    assert json.loads(out)["blocks"] == 20
    assert re.fullmatch(r"[\d.]+ tasks arrive per block[^\0]*", err)
    assert lines_fit(err)
    assert os.listdir(folder) == []


def test_a_process_that_is_refused_exits_with_2(folder: Path):
    with process(*COMPARE, "--set", "devices=0", "--out", "results") as started:
        out, err = started.communicate(timeout=120)
    assert started.returncode == 2
    assert (out, err) == ("", "partway: devices = 0: allowed is a whole number from 1 up to 10000000\n")
    assert os.listdir(folder) == []


def test_a_reader_that_leaves_is_no_failure(folder: Path):
    with process("compare", *TINY, "--schemes", "local", "--out", "results") as started:
        assert started.stdout is not None
        started.stdout.close()
        assert started.stderr is not None
        err = started.stderr.read()
        assert started.wait(timeout=120) == 0
    assert "Traceback" not in err
    assert "results.nc" in os.listdir(folder / "results")


@pytest.mark.parametrize("command", ["schemes", "scenario"])
def test_a_full_disk_behind_stdout_is_one_line(command: str):
    err = io.StringIO()
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full), contextlib.redirect_stderr(err):
        assert main([command]) == 2
    assert err.getvalue() == "partway: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("command", ["schemes", "scenario"])
def test_no_stdout_at_all(command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main([command]) == 0


def interrupted(started: subprocess.Popen[str]) -> str:
    """Press Ctrl-C, again every two seconds: while Python loads its modules an interrupt may get lost there."""
    for _ in range(30):
        started.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return started.communicate(timeout=2)[1]
    pytest.fail("Ctrl-C was not heard")


@pytest.mark.parametrize("after", [0.0, 4.0], ids=["compiling", "running"])
def test_an_interrupt_leaves_nothing_and_exits_with_130(folder: Path, after: float):
    arguments = ("compare", *TINY, "--blocks", "10000000", "--schemes", "local")
    with process(*arguments, "--out", "a/b/results", "--json", "r.json") as started:
        assert started.stderr is not None
        assert "tasks arrive per block" in started.stderr.readline()
        assert sorted(os.listdir(folder))[-1] == "a"
        time.sleep(after)
        err = interrupted(started)
    assert started.returncode == 130
    assert err.endswith("partway: interrupted; nothing was written\n")
    assert "Traceback" not in err
    assert os.listdir(folder) == []


def test_an_interrupt_inside_jaxs_callback_is_heard_after_it(folder: Path):
    def _xla_gc_callback() -> None:  # what is raised in it is printed and lost
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        cli._heed_interrupts()
        _xla_gc_callback()
        assert call(*COMPARE, "--out", "a/results").code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        commands.INTERRUPTED.clear()
        signal.signal(signal.SIGINT, before)
    assert os.listdir(folder) == []


def test_an_interrupt_at_start_up_leaves_nothing(folder: Path):
    with process("compare", "--blocks", "10000000", "--out", "a/b/results") as started:
        time.sleep(1.0)
        interrupted(started)
    assert started.returncode == 130
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("schemes", "broadcast_queue"),
    [(("priced", "local"), True), (("constant", "printed"), False), (("local", "neurosurgeon"), False)],
)
def test_what_learns_is_not_compared_without_a_word_on_the_tuned_constant(
    schemes: Sequence[str], told: bool, monkeypatch: pytest.MonkeyPatch
):
    def stop(plan: Plan, *_: Any) -> None:
        raise InputError(" ".join(plan.schemes))

    monkeypatch.setattr(commands, "execute", stop)
    code, _, err = call("compare", *TINY, "--schemes", *schemes)
    assert code == 2
    assert err.splitlines()[-1] == f"partway: {' '.join(schemes)}"
    assert ("add it to --schemes" in err) == told


@pytest.mark.parametrize(
    ("broadcast_queue", "devices"),
    [({}, 3), ({"JAX_NUM_CPU_DEVICES": "2"}, 2), ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5)],
)
def test_a_large_fleet_may_use_all_cores(told: dict[str, str], devices: int):
    """As many JAX devices as cores (NPROC), unless the user has said how many."""
    code = "from partway import cli; cli._use_all_cores(); import jax; print(len(jax.local_devices()))"
    made = {**os.environ, "NPROC": "3", **told}
    done = subprocess.run([sys.executable, "-c", code], env=made, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(devices)]
