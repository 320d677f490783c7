"""`partway live`, `serve`, `join` and `preflight`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from live_site import PAGE, ended
from onnx_models import network, node, saved

from partway.cli.main import main
from partway.errors import InputError
from partway.live import extra
from partway.live.documents import tasks_of
from partway.live.plan import make_plan
from partway.live.processes import serving
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, WAITING
from partway.scenario.loading import load

COMMANDS = ("live", "serve", "join", "preflight")


def test_the_table_of_flags_has_all_of_them_with_their_commands(capsys: pytest.CaptureFixture[str]):
    """Of docs/live.md."""
    theirs = list[tuple[str, str]]()
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        theirs += [(name, flag) for flag in re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)]
    rows = PAGE.read_text("utf-8").split("\n## Flags\n")[1].split("\n## ")[0].splitlines()[3:]
    ours = list[tuple[str, str]]()
    for flags, commands in (line.split("|")[1:3] for line in (row.replace("\\|", "/") for row in rows) if line):
        of = COMMANDS if commands.strip() == "all" else commands.strip().split(", ")
        ours += [(command, flag) for flag in re.findall(r"--[a-z-]+", flags) for command in of]
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("command", [["live"], ["serve"], ["join", "127.0.0.1:7070"]])
@pytest.mark.parametrize("module", ["grpc", "onnxruntime"])
def test_a_missing_extra_is_said_in_one_line(
    command: list[str], module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert extra.PACKAGES[module] in said
    assert "pip install 'partway[live]'" in said


@pytest.mark.parametrize(
    ("command", "module", "package"),
    [
        (["serve", "--metrics", "0"], "prometheus_client", "prometheus-client"),
        (["live", "--metrics", "9090"], "prometheus_client", "prometheus-client"),
        (["live", "--page"], "starlette", "starlette"),
        (["view", "."], "uvicorn", "uvicorn"),
    ],
)
def test_what_only_a_flag_needs_is_said_when_it_is_given(
    command: list[str],
    module: str,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"partway: {package} not installed")


def test_preflight_says_what_is_there(capsys: pytest.CaptureFixture[str]):
    main(["preflight"])  # a loaded machine may not keep the time
    said = capsys.readouterr().out
    assert "grpcio, protobuf, onnxruntime, onnx" in said
    assert "credentials" not in said
    assert "each within" in said
    assert "a server here answers in" in said


def test_preflight_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "grpc", None)
    assert main(["preflight"]) == 2
    said = capsys.readouterr()
    assert "not ok  packages" in said.out
    assert "packages" in said.err


@pytest.mark.parametrize("module", ["prometheus_client", "starlette", "uvicorn"])
def test_preflight_looks_for_every_package_of_the_extra(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["preflight"]) == 2
    said = capsys.readouterr()
    assert "not ok  packages" in said.out
    assert f"{module.replace('_', '-')} not installed" in said.out


def test_preflight_reads_token_and_certificates_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    token, ca = tmp_path / "token", tmp_path / "ca.pem"
    token.write_text("0123456789abcdef", "ascii")
    trustme.CA().cert_pem.write_to_path(str(ca))
    main(["preflight", "--token-file", str(token), "--tls-ca", str(ca)])
    assert "certificate of a CA, token: can be used" in capsys.readouterr().out
    for flag, wrong in (("--token-file", ca.with_name("absent")), ("--tls-ca", token), ("--tls-cert", ca)):
        assert main(["preflight", flag, str(wrong)]) == 2
        said = " ".join(capsys.readouterr().out.split())
        assert "not ok credentials" in said
        assert flag in said


def test_preflight_names_a_server_that_does_not_answer(capsys: pytest.CaptureFixture[str]):
    assert main(["preflight", "--server", "127.0.0.1:1"]) == 2
    assert "server" in capsys.readouterr().err


def test_the_server_does_not_listen_to_others_without_a_secret(capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "--bind", "0.0.0.0:7070"]) == 2
    assert "--bind '0.0.0.0:7070' can be reached from other machines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("live --blocks 0", "--blocks must be a whole number from 2 to 10000000, got 0"),
        ("serve --blocks -1", "--blocks must be a whole number from 2 to 10000000, got -1"),
        ("serve --seed -1", "--seed must be a whole number from 0 to 4294967295, got -1"),
        ("serve --wait nan", "--wait: must be a positive number of seconds, got 'nan'"),
        ("join localhost:1 --device -1", "--device must be a whole number from 0 to 2147483647, got -1"),
        ("join localhost", "must be HOST:PORT, such as edge.local:7070, got 'localhost'"),
        ("preflight --server :7070", "must be HOST:PORT, such as edge.local:7070, got ':7070'"),
        ("live --save FILE", "--save 'FILE': is not a folder"),
        ("live --shape image=1x3xH", "must be NAME=SIZExSIZE..., such as input=1x3x224x224, got 'image=1x3xH'"),
        ("live --shape image=1x3x64x64 image=2x3x64x64", "--shape: 'image' is given twice"),
        ("serve --shape picture=1x3x64x64", "--shape: the network has no input 'picture'"),
        ("join localhost:1 --shape image=3x64x64", "--shape: input 'image' has the shape 1x3x32x32 in the file"),
        ("serve --write-models FILE", "--write-models 'FILE': is not a folder"),
    ],
)
def test_a_wrong_value_is_said_in_one_line(
    command: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    assert main(command.split()) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"queue": "as_printed"}, ["queue"]),
        ({"arrivals_seen": "current"}, ["arrivals_seen"]),
        ({"device.initial_queue_tasks": 1}, ["initial_queue_tasks"]),
        ({"server.initial_queue_tasks": 1.0}, ["initial_queue_tasks"]),
        ({"broadcast_delay_blocks": 1}, ["broadcast_delay_blocks"]),
        ({"radio.fading": {"kind": "gauss_markov", "lag_correlation": 0.5}}, ["radio.fading", "traffic"]),
    ],
)
def test_what_a_live_run_refuses_is_in_its_help(
    changes: dict[str, Any], fields: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError) as refused:
        make_plan(load("paper", changes), "priced", blocks=10)
    with pytest.raises(SystemExit):
        main(["live", "--help"])
    said = capsys.readouterr().out
    for field in fields:
        assert field in str(refused.value)
        assert field in said


@pytest.mark.parametrize("command", [["live"], ["serve"], ["join", "127.0.0.1:1"]])
def test_open_sizes_are_asked_for_in_the_words_of_the_flag(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = saved(tmp_path, network([node("Relu", "x", "y")], {"x": (1, "H", "W")}, ["y"]))
    assert main([*command, "--model", str(path)]) == 2
    said = capsys.readouterr().err
    assert "sizes are open in the file (input 'x' is 1xHxW); fix them, such as by --shape x=1x128x128" in said
    assert said.count("\n") == 1


def test_preflight_tries_the_network_with_the_shape_that_is_given(capsys: pytest.CaptureFixture[str]):
    main(["preflight", "--shape", "image=1x3x48x40"])
    assert "image=1x3x48x40" in capsys.readouterr().out
    assert main(["preflight", "--shape", "image=1x3"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("partway: not ready: ")
    assert "network" in said.err
    assert "got 1x3" in " ".join(said.out.split())


def test_nothing_is_left_running_where_another_server_is_not_there(capsys: pytest.CaptureFixture[str]):
    """A coroutine that nobody awaits is a warning, which is an error here."""
    assert main(["serve", "--bind", "127.0.0.1:0", "--engine", "grpc://127.0.0.1:1"]) == 2
    assert "--engine grpc://127.0.0.1:1: model cut-" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65532"])
def test_metrics_of_a_live_run_need_a_port_for_each_process(port: str, capsys: pytest.CaptureFixture[str]):
    assert main(["live", "--metrics", port]) == 2
    assert f"must be from 1 to 65531, since those of 4 devices follow it; got {port}" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_around_a_real_network_cost_what_the_simulation_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run.json"
    assert main(["live", "--blocks", "40", "--json", str(out), "--page"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("page at http://127.0.0.1:")
    assert "gap to the lower bound" in said
    document = json.loads(out.read_text())
    tasks = [task for device in document["devices"] for task in tasks_of(device)]
    outcomes = [task.outcome for task in tasks]
    assert set(outcomes) <= {ANSWERED, LOCAL, FINISHED_HERE, WAITING}
    assert outcomes.count(ANSWERED) == document["server"]["tasks"]["answered"] > 10
    assert document["server"]["tasks"]["duplicates"] == 0
    assert len(document["server"]["metrics"]["device_queue"]) == 40
    latency = document["latency"]["measured"]
    assert sum(latency["stages_s"].values()) == pytest.approx(latency["mean_s"])
    cost = next(line.split() for line in said.splitlines() if line.startswith("cost per block"))
    assert float(cost[-1]) == pytest.approx(float(cost[-2]), rel=0.05)


def arrays(path: Path) -> dict[str, np.ndarray]:
    """What a file of NumPy holds."""
    with np.load(path) as file:
        return dict(file)


@pytest.mark.slow
def test_a_second_run_begins_with_what_the_first_has_learned(tmp_path: Path):
    """Server and devices as processes; a file of devices is refused by the server in one line."""
    files = {name: [tmp_path / f"{name}-{run}.npz" for run in (0, 1)] for name in ("server", "devices")}
    for run in (0, 1):
        (tmp_path / str(run)).mkdir()
        flags = {name: ["--save", str(both[run])] for name, both in files.items()}
        if run:
            flags = {name: [*own, "--load", str(files[name][0])] for name, own in flags.items()}
        with serving(tmp_path / str(run), "--blocks", "12", *flags["server"]) as fleet:
            fleet.start("devices", "join", fleet.target, "--device", "0", "--count", "4", *flags["devices"])
            ended(fleet, "server", "devices", within_s=120)
            assert fleet.document("server")["blocks"] == 12
    for first, second in files.values():
        before, after = arrays(first), arrays(second)
        assert set(before) == set(after)
        assert all(before[name].shape == after[name].shape for name in before)
        assert any((before[name] != after[name]).any() for name in before if name != "header")
    assert main(["serve", "--bind", "127.0.0.1:0", "--load", str(files["devices"][0])]) == 2


@pytest.mark.slow
def test_a_whole_live_run_begins_with_what_another_has_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`live --save` leaves a file for each process, with which `live --load`, and its simulation, begin."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["live", "--blocks", "12", "--save", str(first), "--events", str(tmp_path / "events")]) == 0
    assert {path.name for path in first.glob("*.npz")} == {"server.npz", *(f"device-{k}.npz" for k in range(4))}
    assert len(list((tmp_path / "events").glob("*.jsonl"))) == 5
    assert main(["live", "--blocks", "12", "--load", str(first), "--save", str(second)]) == 0
    costs = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("cost per block")]
    for line in costs:
        assert float(line[-1]) == pytest.approx(float(line[-2]), rel=0.05)
    for name in ("server", "device-2"):
        before, after = (arrays(folder / f"{name}.npz") for folder in (first, second))
        assert any((before[key] != after[key]).any() for key in before if key != "header")
    assert main(["live", "--blocks", "12", "--load", str(tmp_path / "events")]) == 2
