"""`partway sweep` as a user meets it: what it prints, what it writes, how it fails and stops."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import sweep_toys
import xarray as xr
from rich.console import Console

import partway
from partway.cli import main as cli
from partway.cli import sweep as sweep_command
from partway.cli.terminal import terminal
from partway.errors import InputError
from partway.experiments.plan import Plan
from partway.experiments.sweep import report
from partway.experiments.sweep import run as sweep_run
from partway.experiments.sweep.run import Progress
from partway.figures import sweep as figure
from partway.figures.style import figure_style
from partway.netcdf import save_dataset

WORDS = ("--schemes", "local", "full", "--blocks", "10", "--seeds", "2")
AXES = ("--axis", "device.arrival_prob=0.1:0.3:3", "devices=1,2")


def parsed(*words: str) -> Namespace:
    return cli.build_parser().parse_args(("sweep", *words))


def sweeps(*words: str) -> None:
    sweep_command.run(parsed(*WORDS, *words))


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to write; toys compute, in a thread of this process."""
    use_toys(monkeypatch)
    return tmp_path / "out"


def use_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)
    monkeypatch.setattr(sweep_run, "processes", lambda count: ThreadPoolExecutor(1))
    monkeypatch.setattr(sweep_toys, "DELAY_S", 0.0)


class Swept(NamedTuple):
    """A sweep's folder, and what it printed: a table, and when it was started again with --json -."""

    out: Path
    table: str
    err: str
    document: dict[str, Any]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    out, printed = tmp_path_factory.mktemp("swept") / "out", list[str]()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as err:
        use_toys(patch)
        for more in ((), ("--json", "-")):
            with contextlib.redirect_stdout(io.StringIO()) as text:
                sweeps(*AXES, "--out", str(out), *more)
            printed.append(text.getvalue())
    return Swept(out, printed[0], err.getvalue(), json.loads(printed[1], parse_constant=pytest.fail))


def test_a_sweep_prints_a_table_and_keeps_its_results(swept: Swept):
    assert swept.table.splitlines()[0].split() == ["arrival_prob", "devices", "local", "full"]
    assert len([line for line in swept.table.splitlines() if line.startswith("0.")]) == 6
    assert "cost per block after warm-up" in swept.table
    first, where, again, where_again = swept.err.splitlines()
    assert first.startswith("sweep: 12 of 12 cases done, 12 of them now, in ")
    assert again.startswith("sweep: 12 of 12 cases done, 0 of them now, in ")
    assert where == where_again == f"Results are in {swept.out}"
    assert {path.name for path in swept.out.iterdir()} == {
        *(".lock", ".partway", "cases", "results.nc", "results.json", "table.txt", "scenario.toml"),
        *("results.csv", "summary.csv", "by-class.csv", "cost.png", "cost.svg", "cost.csv"),
    }
    assert (swept.out / "table.txt").read_text() == swept.table  # of the second sweep, which computed nothing


def test_json_holds_every_case(swept: Swept):
    document = swept.document
    assert document == json.loads((swept.out / "results.json").read_text())
    assert document["axes"] == [["device.arrival_prob", [0.1, 0.2, 0.3]], ["devices", [1, 2]]]
    assert len(document["cases"]) == 12
    dataset = xr.load_dataset(swept.out / "results.nc")
    case = document["cases"][3]
    assert case["point"] == {"device.arrival_prob": 0.1, "devices": 2}
    assert (case["scheme"], case["status"]) == ("full", "ok")
    cost = dataset["cost"].isel(arrival_prob=0, devices=1, scheme=1)
    assert case["cost_per_block"]["mean"] == pytest.approx(float(cost.sum("component").mean()))
    assert list(case["cost_components"].values()) == pytest.approx(cost.mean("seed").values.tolist())
    assert case["gap"]["mean"] is None
    assert case["bound"] == float(dataset["bound"][0, 1])


def test_by_class_the_table_the_files_and_the_figures_agree(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Where there is one device, class b has none."""
    scenario = tmp_path / "mixed.toml"
    scenario.write_text("".join(f"[[group]]\nname = '{name}'\nfraction = 0.5\n" for name in "ab"))
    flags = ("--scenario", str(scenario), "--axis", "devices=1,2", "--by", "class")
    sweeps(*flags, "--out", str(out))
    shown = capsys.readouterr().out
    assert (out / "table.txt").read_text().split() == shown.split()
    printed = [line.split() for line in shown.partition("By class")[2].splitlines() if line.startswith(("1 ", "2 "))]
    rows = list(csv.DictReader((out / "by-class.csv").read_text().splitlines()))
    keys = [(row["devices [devices]"], row["scheme"], row["class"], row["devices"]) for row in rows]
    assert keys == [
        *(("1", "local", "a", "1"), ("1", "full", "a", "1")),
        *(("2", "local", "a", "1"), ("2", "local", "b", "1"), ("2", "full", "a", "1"), ("2", "full", "b", "1")),
    ]
    assert [tuple(words[:4]) for words in printed] == keys
    costs = [float(row["cost [per block]"]) for row in rows]
    assert [float(words[4]) for words in printed] == pytest.approx(costs, rel=1e-3)
    cases = json.loads((out / "results.json").read_text())["cases"]
    assert [one["cost_per_block"]["mean"] for case in cases for one in case["classes"]] == costs
    drawn = list(csv.DictReader((out / "cost-by-class.csv").read_text().splitlines()))
    lines = [row["cost of a device [per block]"] for row in drawn]
    assert lines.count("") == 2  # class b of one device, with two schemes
    assert sorted(float(cost) for cost in lines if cost) == pytest.approx(sorted(costs))
    again = tmp_path / "again"
    assert cli.main(["draw", str(out), "--out", str(again)]) == 0
    assert (again / "cost-by-class.csv").read_bytes() == (out / "cost-by-class.csv").read_bytes()


def test_single_devices_of_a_sweep_are_refused():
    with pytest.raises(InputError, match="--by must be one of class, got 'device'"):
        parsed(*AXES, "--out", "x", "--by", "device")


def test_json_in_the_sweeps_folder_is_refused(out: Path):
    with pytest.raises(InputError, match="is in --out"):
        sweeps(*AXES, "--out", str(out), "--json", str(out / "mine.json"))


def test_the_figures_numbers_are_the_datasets(swept: Swept):
    rows = list(csv.DictReader((swept.out / "cost.csv").read_text().splitlines()))
    dataset = xr.load_dataset(swept.out / "results.nc")
    assert len(rows) == 12
    for row in rows:
        at = {"arrival_prob": float(row["arrival_prob"]), "devices": int(row["devices"]), "scheme": row["scheme"]}
        assert float(row["cost [per block]"]) == pytest.approx(float(dataset["cost"].sel(at).sum("component").mean()))


def test_a_finished_sweep_is_drawn_again_for_a_paper(out: Path, capsys: pytest.CaptureFixture[str]):
    sweeps(*AXES, "--out", str(out))
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".json")}
    sweeps(*AXES, "--out", str(out), "--style", "paper", "--label", "local=Ours", "device.arrival_prob=probability $b$")
    assert "12 of 12 cases done, 0 of them now" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".csv", ".json")} == before
    assert (out / "cost.pdf").read_bytes().startswith(b"%PDF")
    assert "{paper: 10 blocks, 5 of them warm-up, 2 seeds. Cost per block" in (out / "captions.tex").read_text()
    assert "Ours" in (drawn := (out / "cost.svg").read_text())
    assert ">local<" not in drawn


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--label", "priced=Ours"),
            "no figure has this name; known: device.arrival_prob, devices, full, local",
        ),
        (("--label", "local=a", "local=b"), "--label: 'local' is given twice"),
        (("--label", "local=$x^$"), "label of 'local': .* is not valid mathematics"),
    ],
)
def test_a_label_is_checked_before_anything_is_computed(flags: tuple[str, ...], message: str, out: Path):
    with pytest.raises(InputError, match=message):
        sweeps(*AXES, "--out", str(out), *flags)
    assert not out.exists()


@pytest.mark.usefixtures("out")
def test_axes_with_the_same_last_part_have_different_names(tmp_path: Path):
    dataset = computed("device.capacitance=1e-28,2e-28", "server.capacitance=1e-28,3e-28")
    assert dataset["status"].dims == ("device.capacitance", "server.capacitance", "scheme")
    assert [dataset[name].attrs["field"] for name in dataset["status"].dims[:2]] == list(dataset["status"].dims[:2])
    save_dataset(dataset, tmp_path)
    assert xr.load_dataset(tmp_path / "results.nc")["status"].dims == dataset["status"].dims
    with figure_style():
        drawn, rows = figure.draw(dataset, "cost")
    assert drawn.axes[0].get_xlabel() == "device capacitance [W s^3 / cycle^3]"
    assert drawn.axes[0].get_title(loc="left") == "server.capacitance = 1e-28"
    assert rows[0][:2] == ("device.capacitance", "server.capacitance")
    with figure_style(labels={"server.capacitance": r"$\kappa$"}):
        assert figure.draw(dataset, "cost")[0].axes[0].get_title(loc="left") == r"$\kappa$ = 1e-28"


def with_latency(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Toys with all that a simulation says, the same for all but for the number of devices."""
    return [
        sweep_toys.outcome(plan)
        | {
            "latency_s": [[1.0, 0.5, 2.0, 3.0], [2.0, 0.5, 4.0, np.nan]],
            "delay_s": [[0.1, 0.2, 0.3, 0.15, 0.25], [1.1, 0.2, 0.3, 0.15, 0.25]],
            "unfinished": [0.0, 0.5],
            "energy_j_per_task": [[3.0, 300.0], [5.0, 100.0]],
            "throughput": [8.0 * plan.scenario.devices, 10.0 * plan.scenario.devices],
            "gap": [[0.1, 0.02, 0.003], [0.3, 0.02, 0.001]],
            "gap_reason": "",
        }
        for plan in plans
    ]


def test_latency_energy_and_throughput_are_files_and_figures(out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_run, "run_group", with_latency)
    sweeps(*AXES, "--out", str(out))
    names = {"cost", "gap", "latency", "latency-p95", "device-energy", "server-energy", "throughput"}
    assert {path.stem for path in out.glob("*.png")} == {path.stem for path in out.glob("*.svg")} == names
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    document = json.loads((out / "results.json").read_text())
    assert len(rows) == len(document["cases"]) == 12
    row, case = rows[3], document["cases"][3]
    assert (row["device.arrival_prob"], row["devices"], row["scheme"]) == ("0.1", "2", "full")
    assert case["latency_s"]["mean"] == float(row["latency_s.mean"]) == 1.5
    assert (case["latency_s"]["p99"], row["latency_s.p99"]) == (None, "")
    assert sum(case["latency_s"]["delays"].values()) == pytest.approx(1.5)
    assert case["unfinished_share"] == float(row["unfinished_share"]) == 0.25
    assert case["throughput_per_s"]["mean"] == float(row["throughput_per_s.mean"]) == 18.0
    assert float(row["throughput_per_s.low"]) == pytest.approx(18 - 12.7062 * 2, rel=1e-4)
    assert case["gap"]["reason"] is None
    for name, column, value in (
        ("latency", "latency [s]", 1.5),
        ("latency-p95", "latency [s]", 3.0),
        ("device-energy", "energy per task [J]", 4.0),
        ("server-energy", "energy per task [J]", 200.0),
        ("throughput", "throughput [mean tasks/s]", 18.0),
    ):
        drawn = list(csv.DictReader((out / f"{name}.csv").read_text().splitlines()))
        assert float(drawn[3][column]) == value, name


@pytest.mark.usefixtures("out")
@pytest.mark.parametrize("width", [160, 100, 80, 60, 30])
def test_every_number_of_a_sweep_is_printed_at_every_width(width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep_run, "run_group", with_latency)
    names = ["local", "full", "neurosurgeon-energy", "parametric-printed", "qlearning-log"]
    dataset = partway.sweep("paper", ("device.arrival_prob=0.1234,0.12345",), schemes=names, blocks=10, seeds=2)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(report.table(dataset))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    cells = [report._cell(dataset, {"arrival_prob": i}, name, True) for i in range(2) for name in names]
    assert [part for cell in cells for part in cell.split("\n") if part not in text] == []
    assert "0.1234 " in text
    assert "0.12345 " in text
    assert "a cost can be below the bound" in text


@pytest.mark.usefixtures("out")
def test_a_case_without_a_gap_says_why(monkeypatch: pytest.MonkeyPatch):
    document = report.as_json(computed("device.arrival_prob=0.5,1.5"))
    reasons = [case["gap"]["reason"] for case in document["cases"]]
    assert reasons == ["toys have none"] * 2 + ["the scheme is invalid"] * 2
    assert [case["bound_reason"] for case in document["cases"]] == [""] * 2 + ["no case ran"] * 2


def computed(*axes: str) -> xr.Dataset:
    """The dataset of a sweep, nothing written."""
    return partway.sweep("paper", axes, schemes=["local", "full"], blocks=10, seeds=2)


@pytest.mark.usefixtures("out")
@pytest.mark.parametrize(
    ("axes", "panels", "label"),
    [
        (("device.arrival_prob=0.1,0.2",), 1, "arrival prob"),
        (("device.bandwidth_hz=1e5:1e7:3:log", "devices=1,2"), 2, "bandwidth [Hz]"),
        (("queue=conserving,as_printed", "devices=1,2", "slots_per_block=4,5"), 4, "queue"),
        (("device.arrival_prob=0.1,0.2", "devices=1:20:20"), figure.MAX_PANELS, "arrival prob"),
    ],
)
def test_a_panel_for_every_value_of_the_other_axes(axes: tuple[str, ...], panels: int, label: str):
    dataset = computed(*axes)
    drawn, rows = figure.draw(dataset, "cost")
    shown = [each for each in drawn.axes if each.get_visible()]
    assert len(shown) == panels
    assert shown[0].get_xlabel() == label
    for each in shown:
        assert [line.get_label() for line in each.lines] == ["local", "full"]
    first = [row for row in rows[1:] if row[len(dataset["status"].dims) - 1] == "local"]
    assert np.isin(np.asarray(shown[0].lines[0].get_ydata()), [row[-3] for row in first]).all()


@pytest.mark.usefixtures("out")
def test_an_axis_of_whole_numbers_has_ticks_at_whole_numbers():
    with figure_style():
        drawn, _ = figure.draw(computed("devices=4,8"), "cost")
    ticks = drawn.axes[0].get_xticks()
    assert {4, 6, 8} <= set(ticks)
    assert (ticks % 1 == 0).all()


@pytest.mark.usefixtures("out")
def test_cases_without_numbers_say_why_below_the_table(capsys: pytest.CaptureFixture[str]):
    terminal().print(report.table(computed("device.arrival_prob=0.5,1.5")))
    printed = capsys.readouterr().out
    assert printed.count("invalid") == 3
    assert "2 x invalid: device.arrival_prob must be between 0 and 1, got 1.5" in printed


@pytest.mark.usefixtures("out")
def test_a_long_table_is_cut_on_the_terminal(capsys: pytest.CaptureFixture[str]):
    terminal().print(report.table(computed("device.bandwidth_hz=1e5:1e7:3:log"), max_rows=2))
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["100000", "1000000"]
    assert "not shown: 1 of 3 points; the files hold all" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (AXES, "required: --out"),
        ((*AXES, "--out", "x", "--jobs", "0"), "--jobs must be between 1 and 1024, got 0"),
        ((*AXES, "--out", "x", "--jobs", "2", "--dask", "tcp://nowhere:1"), "--dask: not allowed with argument --jobs"),
        (("--axis", "device.arival_prob=1", "--out", "x"), "did you mean"),
        (("--axis", "devices", "--out", "x"), "expected FIELD=SPEC"),
        (("--out", "x"), "required: --axis"),
        ((*AXES, "schemes.priced.answer=0.1,0.2", "--out", "x"), "'priced' does not run; what runs is local, full"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_written(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        sweeps(*words)
    assert list(tmp_path.iterdir()) == []


def test_the_help_says_what_out_needs_and_what_overwrite_deletes(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["sweep", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "If interrupted or killed, run the same command again to resume." in words
    assert "--out DIR folder of the sweep's state and results" in words
    assert "--overwrite delete the sweep in --out and start again, instead of resuming it" in words


def test_off_a_terminal_a_line_from_time_to_time_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """100 cases are there from before; 30 more in 31 s leave 270 for 279 s."""
    clock, said = [0.0], list[str]()
    monkeypatch.setattr(sweep_command, "time", SimpleNamespace(monotonic=lambda: clock[-1]))
    with sweep_command.showing_progress(terminal(errors=True)) as show:
        for now, done in ((1, 100), (15, 100), (29, 120), (31, 130), (60, 180), (62, 200), (62.5, 200), (80, 400)):
            clock.append(now)
            show(Progress(done, 400, 4 if done < 400 else 0))
            printed = capsys.readouterr()
            said.append(printed.err)
            assert printed.out == ""
    assert [line for line in said if line] == [
        "sweep: 130 of 400 cases done, 4 groups running, about 5 min left\n",
        "sweep: 200 of 400 cases done, 4 groups running, about 2 min left\n",
        "sweep: 400 of 400 cases done, 300 of them now, in 80 s\n",
    ]
    assert said[3]
    assert said[5]


def test_no_time_left_is_said_before_anything_is_known_of_it():
    assert sweep_command.progress_line(Progress(7, 9, 2), 0, 40.0) == "sweep: 7 of 9 cases done, 2 groups running"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (89.4, "89 s"), (90, "2 min"), (3600, "60 min"), (12_000, "3 h 20 min")]
)
def test_a_time_is_said_in_its_unit(seconds: float, words: str):
    assert sweep_command.duration(seconds) == words


def test_on_a_terminal_it_is_a_bar():
    screen = io.StringIO()
    with sweep_command.showing_progress(Console(file=screen, force_terminal=True, width=100)) as show:
        show(Progress(3, 12, 2))
        show(Progress(12, 12, 0))
    assert "12/12" in screen.getvalue()
    assert "sweep: " not in screen.getvalue()


def test_a_failed_case_is_an_error_with_its_cause_after_the_results(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """All else is printed and written; the same command tries again."""

    def half_fails(plans: Any) -> Any:
        failed = {"status": "failed", "reason": "RuntimeError: no GPU"}
        return [failed if plan.scenario.devices == 2 else sweep_toys.outcome(plan) for plan in plans]

    monkeypatch.setattr(sweep_run, "run_group", half_fails)
    with pytest.raises(InputError, match=r"^6 of 12 cases failed: RuntimeError: no GPU; run the same command again"):
        sweeps(*AXES, "--out", str(out))
    assert "6 x failed: RuntimeError: no GPU" in capsys.readouterr().out
    assert (out / "results.json").is_file()
    monkeypatch.setattr(sweep_run, "run_group", sweep_toys.run_group)
    sweeps(*AXES, "--out", str(out))


@pytest.mark.usefixtures("out")
def test_a_note_on_cases_with_numbers_stands_below_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    noted = {"reason": "4 actions out of range were clipped"}
    monkeypatch.setattr(sweep_run, "run_group", lambda plans: [sweep_toys.outcome(plan) | noted for plan in plans])
    terminal().print(report.table(computed("device.arrival_prob=0.1,0.2")))
    assert "4 x actions out of range were clipped" in capsys.readouterr().out


def test_without_dask_installed_it_says_what_to_install(out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'partway\[cluster\]'"):
        sweeps(*AXES, "--out", str(out), "--dask", "tcp://127.0.0.1:1")


def test_ctrl_c_says_how_to_resume(out: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_run._Computation, "_submit", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"0 of 12 cases are saved in .*out; run the same command again to resume"
    ):
        sweeps(*AXES, "--out", str(out), "--jobs", "1")


STOPPED = """
import sys
from partway.cli import sweep as sweep_command
from partway.experiments.sweep import run as sweep_run
import sweep_toys
sweep_toys.DELAY_S = 60
sweep_run.run_group = sweep_toys.run_group
sweep_run.HEARTBEAT_S = 0.05
from test_sweep_command import parsed
try:
    real = sweep_run._Computation._progress
    def noted(self):
        print("running", flush=True)
        return real(self)
    sweep_run._Computation._progress = noted
    sweep_command.run(parsed(*sys.argv[1:]))
except KeyboardInterrupt as stop:
    print(stop)
"""


def test_ctrl_c_ends_a_sweep_that_computes(tmp_path: Path):
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(partway.__file__).parents[1])))
    command = [sys.executable, "-c", STOPPED, *WORDS, *AXES, "--out", str(tmp_path / "out"), "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": paths}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout
        assert running.stdout.readline() == "running\n"
        running.send_signal(signal.SIGINT)
        last = running.communicate(timeout=50)[0].splitlines()[-1]
    assert "of 12 cases are saved in" in last
