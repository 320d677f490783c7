"""The harness of `make fuzz`: a few cases of each part without a fault, and that it sees the faults that there are."""

import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fuzz import damaged, disks, networks, scenarios, signals
from fuzz.__main__ import prepared
from fuzz.counts import FAULTS, Counts, Fail, Fault, chosen, count
from fuzz.page import page
from fuzz.parts import PARTS, function, run_part
from fuzz.process import NOISE, USUAL_SIGNALS, finished, place
from partway.errors import InputError

PART = {part.name: part for part in PARTS}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cases(name: str, numbers: int) -> list[tuple[str, int, int]]:
    return [(name, 0, number) for number in range(numbers)]


@pytest.mark.parametrize(("name", "tried"), [("scenarios", 25), ("files", 80), ("networks", 12)])
def test_a_few_cases_of_each_part_without_a_fault(name: str, tried: int):
    counts = count(function(PART[name].run), cases(name, tried))
    assert [fault.line() for fault in counts.faults] == []
    assert counts.tried() == tried
    assert len(counts.outcomes) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", PART)
def test_a_tenth_of_the_cases_of_each_part_without_a_fault(name: str):
    if name == "disks" and disks.available():
        pytest.skip(disks.available())
    with prepared():
        counts = run_part(PART[name], seed=1, cases=PART[name].cases // 10, jobs=2, minutes=10)
    assert [fault.line() for fault in counts.faults] == []
    assert counts.tried() > 0


def test_a_case_is_made_again_from_its_number():
    made = [damaged.damaged(chosen(("files", 0, number)), bytes(100)) for number in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    one, other = (networks.generated(chosen(("networks", 0, 3)), networks.np.float32)[0] for _ in range(2))
    assert one.SerializeToString() == other.SerializeToString()


def test_a_mutation_leaves_the_values_of_the_next_case_as_they_are():
    before = repr((scenarios.WILD, scenarios.PLAUSIBLE))
    for case in cases("scenarios", 1000):
        with suppress(InputError):
            scenarios.mutated(chosen(case))
    assert repr((scenarios.WILD, scenarios.PLAUSIBLE)) == before


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        ({"status": "ok", "cost_per_block": {"mean": None}, "reason": None}, "silent NaN"),
        ({"status": "invalid", "cost_per_block": {"mean": None}, "reason": None}, "unclear message"),
        ({"status": "failed", "cost_per_block": {"mean": None}, "reason": "KeyError: 'q'"}, "traceback"),
    ],
)
def test_a_scheme_without_a_cost_and_without_a_reason_is_a_fault(scheme: dict[str, Any], kind: str):
    with pytest.raises(Fail, match=kind):
        scenarios.check_schemes([{"name": "local", **scheme}])
    scenarios.check_schemes([{"name": "local", "status": "ok", "cost_per_block": {"mean": 1.0}, "reason": None}])


def raising(error: Exception) -> Any:
    def run(rng: object) -> str:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [
        (InputError("devices must be a whole number"), "refused", None),
        (InputError("why"), "fault", "unclear message"),
        (KeyError("devices"), "fault", "traceback"),
        (ZeroDivisionError("division by zero"), "fault", "traceback"),
        (Fail("litter", "a file"), "fault", "litter"),
        (TimeoutError(), "fault", "crash or hang"),
    ],
)
def test_what_must_not_happen_is_counted(error: Exception, outcome: str, kind: str | None):
    counts = count(raising(error), cases("files", 2))
    assert counts.outcomes == {outcome: 2}
    assert [fault.kind for fault in counts.faults] == [kind] * (2 if kind else 0)
    if kind:
        assert "python -m fuzz files --seed 0 --case 1" in counts.faults[1].line()
        assert kind in FAULTS


def test_a_case_that_hangs_is_stopped():
    def hang(rng: object) -> str:
        signal.pause()
        return "never"

    counts = count(hang, cases("files", 1), limit_s=0.1)
    assert [fault.kind for fault in counts.faults] == ["crash or hang"]


def test_a_command_that_hangs_says_where_each_thread_is():
    program = """
import threading, time
def inner():
    never.wait()
def outer():
    inner()
never = threading.Event()
threading.Thread(target=outer, daemon=True).start()
time.sleep(60)
"""
    command = [sys.executable, "-X", "faulthandler", "-c", program]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **piped) as process, pytest.raises(Fail) as fail:
        finished(process, within=2)
    assert fail.value.kind == "crash or hang"
    assert re.search(
        r"^has not ended after 2 s: wait .* < inner \(<string>:4\) < outer \(<string>:6\)", fail.value.text
    )
    assert fail.value.text.endswith("; <module> (<string>:9)")


def test_faults_of_the_readers_are_seen(monkeypatch: pytest.MonkeyPatch):
    """A reader that fails in another way, and one that does not look whether a file is damaged."""
    rng = chosen(("files", 0, 0))
    monkeypatch.setattr(scenarios, "load", raising(KeyError("devices")))
    assert count(scenarios.load_mutated, cases("scenarios", 3)).faults[0].kind == "traceback"
    monkeypatch.setattr(networks, "profile_network", lambda network: networks.read_profile("alexnet"))
    kinds = {fault.kind for fault in count(networks.profile_generated, cases("networks", 12)).faults}
    assert "lost result" in kinds
    monkeypatch.setattr("partway.experiments.store._checksum", lambda key, body: b"0" * 64)
    unit = next(target for target in damaged._fresh_targets() if target.name.startswith("cases"))
    path = Path("cases", Path(unit.name).name)
    path.parent.mkdir()
    path.write_bytes(unit.content.replace(b"0.1", b"0.2"))
    with pytest.raises(Fail, match="has other numbers"):
        unit.read(path.resolve(), rng)


def test_a_command_takes_signals_that_the_harness_ignores():
    asked = (
        "import signal as s; print(s.getsignal(s.SIGINT) is s.default_int_handler, s.pthread_sigmask(s.SIG_BLOCK, []))"
    )
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]); os.execv(sys.argv[1], sys.argv[1:])"
    )
    python, parent = sys.executable, [sys.executable, "-c", ignoring]

    def answer(*command: str) -> str:
        return subprocess.run([*parent, *command], capture_output=True, text=True, check=True).stdout

    assert answer(python, "-c", asked) == "False {<Signals.SIGHUP: 1>}\n"
    assert answer(python, "-Ic", USUAL_SIGNALS, python, "-c", asked) == "True set()\n"


def test_noise_and_litter_are_seen():
    assert NOISE.search("Traceback (most recent call last):")
    assert NOISE.search("UserWarning: resource_tracker: There appear to be 6 leaked semlock objects")
    assert not NOISE.search("partway: interrupted; nothing was written")
    with place() as where:
        assert where.litter() == []
        (where.work / ".out.partial-0012abcd").mkdir()
        (where.temporary / "partway-workers-x").mkdir()
        assert where.litter() == [".out.partial-0012abcd", "temporary partway-workers-x"]


@pytest.mark.parametrize(
    ("message", "resumed"),
    [
        ("partway: interrupted; nothing was written\n", False),
        ("partway: interrupted; 3 of 4 cases are saved in out; run the same command again to resume\n", True),
    ],
)
def test_what_a_command_says_after_a_signal(message: str, resumed: bool):
    assert signals.STOPPED.search(message)
    assert bool(signals.RESUMED.search(message)) == resumed
    assert not signals.STOPPED.search(message + "and more\n")


@pytest.fixture
def counts() -> dict[str, Counts]:
    found = {name: Counts() for name in PART if name != "disks"}
    found["files"].outcomes.update({"refused": 7, "fault": 1})
    found["files"].faults.append(Fault("traceback", ("files", 0, 5), "KeyError: a | b"))
    return found


def test_the_page_shows_all_counts_and_every_fault(counts: dict[str, Counts]):
    text = page(counts, 0, 12.3, {"disks": "mounting a disk needs root"})
    row = next(line for line in text.splitlines() if line.startswith(f"| {PART['files'].about}"))
    assert row.endswith("| 8 of 10,000 | 1 | 0 | 0 | 0 | 0 | 0 | 0 |")
    assert "- traceback: KeyError: a / b (python -m fuzz files --seed 0 --case 5)" in text
    assert "not run: mounting a disk needs root" in text
    assert "- `files`: refused 7; fault 1" in text
