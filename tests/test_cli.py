"""The command line as a user meets it: what it prints, what it writes, how it fails."""

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partway import files as store
from partway.cli import main as cli
from partway.cli.main import COMMANDS, main
from partway.errors import InputError
from partway.experiments.plan import Plan
from partway.experiments.sweep.axes import parse_axes
from partway.netcdf import load_dataset
from partway.provenance import version
from partway.scenario.loading import load, preset_text, presets
from partway.schemes import SCHEMES, hyperparameters

NAMES = [command.name for command in COMMANDS]
TINY = ("--set", "devices=2", "--blocks", "20", "--seeds", "2")
COMPARE = ("compare", *TINY, "--schemes", "local", "random")
RUN = ("run", *TINY, "--schemes", "local")
POLICY = '''
from partway import DeviceAction, DeviceController, record
from partway.system.equations import most_startable

@record
class Half(DeviceController):
    """Sends [half] of a task in every block.

    More words.
    """

    fraction: float = 0.5

    def act(self, memory, device, view, key):
        return DeviceAction(most_startable(device, view.q, self.fraction), self.fraction)

number, instance = 3, Half(fraction=0.25)

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


def lines_fit(text: str, columns: int = 100) -> bool:
    return all(len(line) <= columns for line in text.splitlines())


# Help and lists


@pytest.mark.parametrize("command", NAMES)
def test_every_command_helps(command: str, monkeypatch: pytest.MonkeyPatch):
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, err = call(command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: partway {command} ")
        assert lines_fit(out, columns)
        assert "\nexamples:\n" in out


def test_help_names_every_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = call("--help")
    assert (code, err) == (0, "")
    assert lines_fit(out, 80)
    for command in COMMANDS:
        assert re.search(rf"(?m)^  {command.name} +{re.escape(command.about)}$", out)


def test_alone_it_shows_its_help():
    assert call() == call("--help")
    assert call("--version").out == f"partway {version()}\n"


@pytest.mark.parametrize("command", NAMES)
def test_examples_of_the_help_are_commands(command: str):
    """Flags, scenarios, fields, axes and schemes exist; files such as mine.toml are the reader's."""
    module = cli.command_module(command)
    shown = call(command, "--help").out
    assert len(module.EXAMPLES) >= 2
    for about, line in module.EXAMPLES.items():
        assert f"  {about}:\n    {line}\n" in shown
        program, *words = shlex.split(re.split(r" [|>]", line)[0])
        options = cli.build_parser().parse_args(words)
        assert (program, options.run) == ("partway", module.run)
        scenario = getattr(options, "scenario", None) or "paper"
        load("paper" if scenario == "mine.toml" else scenario, getattr(options, "set", ()))
        own = getattr(options, "schemes", None) or ([options.scheme] if getattr(options, "scheme", None) else [])
        assert [name for name in own if name not in SCHEMES] in ([], ["mymodule:MyPolicy"])
        for axis in parse_axes(getattr(options, "axis", ())):
            load(scenario, {axis.field: axis.values[-1]})


def test_schemes_lists_every_scheme():
    code, out, err = call("schemes")
    assert (code, err) == (0, "")
    assert lines_fit(out)
    rows = re.findall(r"(?m)^([\w-]+)(\*?) +\S.* +\d +\d *$", out)
    assert rows == [(name, "*" * (not scheme.by_default)) for name, scheme in SCHEMES.items()]
    starred = {"qlearning-designed", "binary-parametric", "even-parametric", "random-fixed"}
    assert {name for name, star in rows if star} == starred


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_lists_the_hyperparameters_of_one(name: str):
    code, out, err = call("schemes", name)
    assert (code, err) == (0, "")
    assert lines_fit(out)
    rows = dict(re.findall(rf"(?m)^schemes\.{name}\.(\w+) +(\S+) *$", out))
    assert {field: tomllib.loads(f"x = {value}")["x"] for field, value in rows.items()} == hyperparameters(name)


def test_what_a_scheme_is_fits_the_terminal(monkeypatch: pytest.MonkeyPatch):
    """Docstrings are wrapped anew: prose from margin to margin, the meaning of a field beside its name."""
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("schemes", "priced").out.splitlines()
    assert max(map(len, lines)) <= 60
    prose = lines.index("V starts as if all waiting tasks had to be run at once. That")
    assert lines[prose + 1] == "is too high, so no queue builds up while V is learned."
    field = lines.index('criterion        "objective": that of the scenario;')
    assert lines[field + 1] == 17 * " " + '"average": gamma = 1, relative values;'
    assert lines[field + 2] == 17 * " " + '"discounted": the gamma of the scenario'


def test_schemes_explains_only_what_can_be_set_and_says_where_traps_are_listed():
    out = call("schemes", "parametric").out
    assert not re.search("^mu ", out, re.MULTILINE)
    assert re.search("^feature_weights ", out, re.MULTILINE)
    assert "docs/paper.md" in out
    assert "docs/paper.md" not in call("schemes", "priced").out


def test_scenarios_lists_every_preset():
    code, out, err = call("scenarios")
    assert (code, err) == (0, "")
    assert lines_fit(out)
    assert all(re.search(rf"(?m)^{name} +{re.escape(about[:20])}", out) for name, about in presets().items())


@pytest.mark.parametrize("name", presets())
def test_a_printed_scenario_is_that_scenario(folder: Path, name: str):
    code, out, err = call("scenarios", name)
    assert (code, err) == (0, "")
    assert out == preset_text(name)
    (folder / "mine.toml").write_text(out)
    assert load("mine.toml") == load(name)


# Refusals

SUGGESTED = {
    ("compair",): (
        "COMMAND must be one of compare, run, sweep, bound, profile, cut, split, live, serve, join, preflight, "
        "view, draw, schemes, scenarios, theorem1, reproduce, cite, got 'compair'; did you mean 'compare'?"
    ),
    ("scenario", "paper"): "got 'scenario'; did you mean 'scenarios'?",
    ("compare", "--sede", "3"): "--sede 3; did you mean '--seed'?",
    ("compare", "--blokcs=3"): "--blokcs=3; did you mean '--blocks'?",
    ("sweep", "--axes", "devices=1", "--axis", "devices=1", "--out", "x"): "; did you mean '--axis'?",
    ("schemes", "prised"): "no scheme 'prised'; did you mean 'priced'?",
    ("schemes", "exact"): "; did you mean 'parametric'?",
    ("schemes", "printed"): "; did you mean 'parametric-printed'?",
    ("scenarios", "paper-fitted-exact"): "; did you mean 'paper-fitted-parametric'?",
    ("scenarios", "paper-fitted-printed"): "; did you mean 'paper-fitted-parametric-printed'?",
    ("sweep", "--over", "devices=1", "--out", "x"): "unrecognized arguments: --over; did you mean '--axis'?",
    ("sweep", "--axes=devices=1", "--out", "x"): "; did you mean '--axis'?",
    ("profile", "resnet50", "--check"): "; did you mean '--verify'?",
    ("profile", "resnet50", "--measure"): "; did you mean '--time-layers'?",
    ("profile", "resnet50", "--coding", "fp16"): "; did you mean '--tensor-dtype'?",
    ("cut", "resnet50", "--learn"): "; did you mean '--plan-from learned'?",
    ("cut", "resnet50", "--coding=fp16"): "; did you mean '--tensor-dtype'?",
    (*COMPARE, "--scenario", "paper-fitted-exact"): "; did you mean 'paper-fitted-parametric'?",
    (*COMPARE, "--set", "schemes.constant.share=1"): "; did you mean 'offload'?",
    (*COMPARE, "--set", "schemes.constant.tasks=1"): "; did you mean 'started'?",
    (*COMPARE, "--set", "slots=5"): "; did you mean 'slots_per_block'?",
    (*COMPARE, "--set", "broadcast_lag=1"): "; did you mean 'broadcast_delay_blocks'?",
    ("scenarios", "papre"): "no scenario 'papre'; did you mean 'paper'?",
    ("profile", "resnet5"): "'resnet5'; did you mean 'resnet50'?",
    ("profile", "resnet50", "--tensor-dtype", "fp61"): (
        "--tensor-dtype must be one of fp32, fp16, uint8, got 'fp61'; did you mean 'fp16'?"
    ),
    ("cut", "alexnet", "--plan-from", "learn"): (
        "--plan-from must be one of statistics, learned, got 'learn'; did you mean 'learned'?"
    ),
    (*COMPARE, "--scenario", "papr"): "--scenario 'papr' is neither a file nor a preset; did you mean 'paper'?",
    (*COMPARE, "--schemes", "locl"): "no scheme 'locl'; did you mean 'local'?",
    (*COMPARE, "--server", "prised"): "no scheme 'prised'; did you mean 'priced'?",
    (*COMPARE, "--precision", "float23"): (
        "--precision must be one of float32, float64, got 'float23'; did you mean 'float32'?"
    ),
    (*COMPARE, "--set", "devcies=3"): "unknown field 'devcies'; did you mean 'devices'?",
    (*COMPARE, "--set", "arrival_prob=1"): "unknown field 'arrival_prob'; did you mean 'device.arrival_prob'?",
    (*COMPARE, "--set", "schemes.priced.decya=1"): "unknown field 'schemes.priced.decya'; did you mean 'decay'?",
    (*COMPARE, "--set", "schemes.prised.decay=1"): "no scheme 'prised'; did you mean 'priced'?",
}


@pytest.mark.parametrize("arguments", SUGGESTED, ids=" ".join)
def test_a_mistyped_word_suggests_the_nearest(arguments: Sequence[str]):
    assert SUGGESTED[tuple(arguments)] in refused(*arguments)


WRONG = {
    ("compart",): ["COMMAND must be one of compare, ", "got 'compart'; did you mean 'compare'?"],
    ("scenarios", "paper", "paper"): ["unrecognized arguments: paper"],
    ("compare", "--trace", "0"): ["unrecognized arguments: --trace 0", "partway compare --help"],
    ("compare", "--set"): ["--set", "expected at least one argument"],
    ("sweep", "--out", "x"): ["the following arguments are required: --axis"],
    ("sweep", "--axis", "devices=1"): ["the following arguments are required: --out"],
    ("run", "--schemes", "local", "random"): [
        "--schemes must name one scheme, got local random",
        "'compare' takes several",
    ],
    ("compare", "--seeds", "100001"): ["--seeds must be a count from 1 to 100000", "got 100001", "use --seed"],
    ("compare", "--seeds", "9" * 5000): ["--seeds", "must be a whole number, got '999"],
    ("profile", "missing.onnx"): ["missing.onnx"],
    ("profile", "missing.csv"): ["missing.csv"],
    ("profile", "/"): ["/"],
    ("profile", "resnet50", "--shape", "x"): ["--shape", "'x'", "NAME=SIZExSIZE"],
    ("profile", "resnet50", "--verify"): ["--verify", "need an .onnx file, got 'resnet50'"],
    (*RUN, "--trace", "2"): ["--trace must be a device from 0 to 1, got 2"],
    (*RUN, "--trace", "-1"): ["--trace must be a device from 0 to 1, got -1"],
    (*RUN, "--trace", "x"): ["--trace: must be a whole number, got 'x'"],
    (*COMPARE, "--blocks", "1"): ["--blocks must be a whole number from 2 to 10000000, got 1"],
    (*COMPARE, "--blocks", "10000001"): ["--blocks must be a whole number from 2 to 10000000, got 10000001"],
    (*COMPARE, "--blocks", "1.5"): ["--blocks: must be a whole number, got '1.5'"],
    (*COMPARE, "--blocks", "nan"): ["--blocks: must be a whole number, got 'nan'"],
    (*COMPARE, "--warmup", "20"): ["--warmup must be a whole number from 0 to 19, got 20"],
    (*COMPARE, "--warmup", "-1"): ["--warmup must be a whole number from 0 to 19, got -1"],
    (*COMPARE, "--seeds", "0"): ["--seeds must be a count from 1", "got 0"],
    (*COMPARE, "--seeds", "-1"): ["--seeds must be a count from 1", "got -1"],
    (*COMPARE, "--seeds", "1", "1"): ["--seeds must be", "different whole numbers from 0 to 4294967295, got [1, 1]"],
    (*COMPARE, "--seeds", "0", "4294967296"): ["4294967296", "from 0 to 4294967295"],
    ("compare", "--seed", "4294967296"): ["4294967296", "from 0 to 4294967295"],
    ("compare", "--seed", "1", "--seeds", "1"): ["--seeds", "--seed"],
    (*COMPARE, "--seeds", "one"): ["--seeds: must be a whole number, got 'one'"],
    (*COMPARE, "--set", "device.arrival_prob=1.2"): ["device.arrival_prob must be between 0 and 1, got 1.2"],
    (*COMPARE, "--set", "device.capacitance=-1"): ["device.capacitance must be between 0 and 1, got -1"],
    (*COMPARE, "--set", "devices=0"): ["devices must be a whole number between 1 and 10000000, got 0"],
    (*COMPARE, "--set", "slot_s=nan"): ["slot_s must be between 1e-9 and 1000000, got nan"],
    (*COMPARE, "--set", "schemes.priced.decay=fast"): [
        "schemes.priced.decay must be a number from 0 to 10, got 'fast'"
    ],
    (*COMPARE, "--set", "device.task={kind='layers',profile='/',tensor_dtype='fp32'}"): ["profile '/'"],
    (*COMPARE, "--set", "device.task={kind='layers',profile='resnet5',tensor_dtype='fp32'}"): [
        "did you mean 'resnet50'?"
    ],
    (*COMPARE, "--scenario", "."): ["--scenario '.'", "Is a directory"],
    (*COMPARE, "--scenario", "missing.toml"): ["--scenario 'missing.toml'", "neither a file nor a preset"],
    (*COMPARE, "--scenario", "junk"): ["--scenario 'junk'", "not a text file"],
    (*COMPARE, "--scenario", "groups.toml"): ["group: the fractions must sum to 1, got 0.9"],
    (*COMPARE, "--out", "junk"): ["--out 'junk'", "is not a folder"],
    (*COMPARE, "--out", "junk/below"): ["--out 'junk/below'", "cannot be written"],
    (*COMPARE, "--out", "."): ["--out '.'", "in use"],
    (*COMPARE, "--out", ""): ["--out must not be empty (see 'partway compare --help')"],
    (*COMPARE, "--json="): ["--json must not be empty"],
    (*COMPARE, "--server", ""): ["--server must not be empty"],
    (*COMPARE, "--scenario", ""): ["--scenario must not be empty"],
    (*COMPARE, "--set", "devices=3", ""): ["--set must not be empty"],
    (*COMPARE, "--schemes", "local", ""): ["--schemes must not be empty"],
    (*RUN, "--save", ""): ["--save must not be empty"],
    (*RUN, "--load", ""): ["--load must not be empty"],
    ("sweep", "--axis", "", "--out", "x"): ["--axis must not be empty"],
    ("sweep", "--axis", "devices=1", "--out", "x", "--dask", ""): ["--dask must not be empty"],
    ("reproduce", "--table", ""): ["--table must not be empty"],
    ("profile", ""): ["MODEL must not be empty"],
    ("scenarios", ""): ["NAME must not be empty"],
    ("profile", "resnet50", "--input-bits", "0"): ["--input-bits need an .onnx file"],
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
    assert err.endswith("Results are in a/results\n")
    assert lines_fit(out)
    assert lines_fit(err)
    written = {path.name for path in (folder / "a" / "results").iterdir()}
    assert {"results.nc", "results.json", "scenario.toml", "table.txt", store.MARK} < written
    assert any(name.endswith(".png") for name in written)
    assert (folder / "a" / "results" / "results.json").read_text() == (folder / "r.json").read_text()
    assert (folder / "a" / "results" / "table.txt").read_text() == out
    assert load(folder / "a" / "results" / "scenario.toml") == load("paper", ["devices=2"])
    dataset = load_dataset("a/results")
    assert dataset["scheme"].values.tolist() == ["local", "random"]
    assert dict(dataset.sizes) | {"seed": 2, "block": 20, "device": 2} == dict(dataset.sizes)
    assert sorted(os.listdir(folder)) == ["a", "r.json"]
    results_are_replaced_only_when_asked(folder)


def results_are_replaced_only_when_asked(folder: Path) -> None:
    """Part of the test above, whose results take a second to draw."""
    before = listing(folder)
    assert "exists already; add --overwrite" in refused(*COMPARE, "--out", "a/results")
    assert "exists already; add --overwrite" in refused(*COMPARE, "--json", "r.json")
    assert "a/results" in refused(*RUN, "--out", "a/results", "--overwrite")  # of another command
    assert listing(folder) == before
    code, _, _ = call(*COMPARE, "--schemes", "local", "--out", "a/results", "--json", "r.json", "--overwrite")
    assert code == 0
    assert load_dataset("a/results")["scheme"].values.tolist() == ["local"]
    assert [scheme["name"] for scheme in json.loads((folder / "r.json").read_text())["schemes"]] == ["local"]
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
    assert "Nothing was saved" in err
    assert lines_fit(out + err)
    assert {"local", "random*"} <= {line.split()[0] for line in out.splitlines() if line}


def test_an_unknown_profile_leaves_no_folder(folder: Path):
    task = "device.task={kind='layers',profile='missing',tensor_dtype='fp32'}"
    assert "'missing'" in refused(*COMPARE, "--out", "a/b", "--json", "r.json", "--set", task)
    assert os.listdir(folder) == []


def test_profile_writes_and_replaces(folder: Path):
    for overwrite in ([], ["--overwrite"]):
        code, out, _ = call("profile", "squeezenet", "--out", "mine", *overwrite)
        assert code == 0
        assert lines_fit(out)
    assert {"squeezenet.csv", "squeezenet.png", "squeezenet.svg"} < set(os.listdir(folder / "mine"))
    assert os.listdir(folder) == ["mine"]


LOUD = """
import sys
from partway import DeviceAction, DeviceController, SCHEMES
print("while it is imported")

class Loud(DeviceController):
    def act(self, state, device, view, key):
        print("while it is traced")
        return DeviceAction(view.q, 0.0)
"""


def test_what_a_policy_prints_is_not_among_the_results(folder: Path):
    """It goes to standard error; standard output is one JSON document."""
    (folder / "outside_loud.py").write_text(LOUD)
    code, out, err = call("run", *TINY, "--schemes", "outside_loud:Loud", "--json", "-")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail)["schemes"][0]["name"] == "outside_loud:Loud"
    assert "while it is imported\n" in err
    assert "while it is traced\n" in err
    assert "while" not in call("schemes", "outside_loud:Loud").out


def test_a_policy_that_exits_ends_nothing_in_silence(monkeypatch: pytest.MonkeyPatch):
    """Such as one that does so only later, so that tracing does not find it."""

    def leave(*_: object, **__: object) -> None:
        sys.exit(0)

    monkeypatch.setattr("partway.experiments.comparison.execute", leave)
    code, out, err = call(*COMPARE)
    assert (code, out) == (2, "")
    assert err.endswith("partway: a policy or its module called sys.exit(0); remove that call\n")


@pytest.mark.parametrize(
    ("flags", "said"), [((), "nothing was written"), (("--save", "a.npz"), "after writing 'a.npz'")]
)
def test_nothing_was_written_is_said_only_if_so(
    flags: tuple[str, ...], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C after all is written, and a run without --out."""
    code, _, err = call(*RUN, *flags)
    assert ("Nothing was saved" in err) == (not flags)
    assert sorted(os.listdir(folder)) == list(flags[1:])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("partway.cli.output.say_where", stop)
    code, _, err = call(*RUN, *flags, "--overwrite")
    assert code == 130
    assert err.splitlines()[-1].startswith("partway: interrupted")
    assert err.splitlines()[-1].endswith(said)


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_lack_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("partway.experiments.comparison.execute", failing(MemoryError()))
    code, out, err = call(*COMPARE)
    message = "partway: out of memory (MemoryError); use fewer devices, seeds or blocks"
    assert (code, out, err.splitlines()[-1]) == (2, "", message)


def test_a_backend_that_is_not_there_is_one_line_and_a_fault_of_ours_is_none(monkeypatch: pytest.MonkeyPatch):
    """JAX says the one with an AssertionError without words."""
    monkeypatch.setattr("partway.experiments.comparison.execute", failing(AssertionError()))
    with pytest.raises(AssertionError):
        call(*COMPARE)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr("jax.devices", failing(AssertionError()))
    code, out, err = call(*COMPARE)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("partway: JAX_PLATFORMS=cuda: JAX cannot compute there (no such device")


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
    assert "schemes.outside_good:instance.fraction" in out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("outside_bad:Missing", "has no attribute 'Missing'"),
        ("outside_bad:number", "expected a Scheme, a DeviceController or an agent with act or predict, got int"),
        (
            "outside_bad:fails",
            "expected a Scheme, a DeviceController or an agent with act or predict, got function; compile",
        ),
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


@pytest.mark.parametrize(
    ("schemes", "advised"),
    [(("priced", "local"), True), (("constant", "priced"), False), (("local", "neurosurgeon"), False)],
)
def test_what_learns_is_compared_with_the_tuned_constant_or_it_says_so(
    schemes: Sequence[str], advised: bool, monkeypatch: pytest.MonkeyPatch
):
    def stop(plan: Plan, *_: object, **__: object) -> None:
        raise InputError(" ".join(plan.schemes))

    monkeypatch.setattr("partway.experiments.comparison.execute", stop)
    code, _, err = call("compare", *TINY, "--schemes", *schemes)
    assert code == 2
    assert err.splitlines()[-1] == f"partway: {' '.join(schemes)}"
    assert ("Add constant to --schemes" in err) == advised
