"""The back ends of a device's CPU, on folders that look like those of the kernel."""

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from partway.cli.main import main
from partway.errors import InputError
from partway.live import cpu
from partway.live.agent import Agent, AgentLog
from partway.live.clock import now, run_on_fake_clock
from partway.live.cpu import CGROUP, CPUFREQ, PACING, taken
from partway.live.memory import MemoryLink
from partway.live.plan import make_plan
from partway.live.processes import serving
from partway.live.service import Service
from partway.live.tasks import LOCAL
from partway.scenario.loading import load

POLICY = {
    "affected_cpus": "0",
    "scaling_available_governors": "performance powersave userspace schedutil",
    "scaling_governor": "schedutil",
    "scaling_min_freq": "600000",
    "scaling_max_freq": "1500000",
    "scaling_setspeed": "<unsupported>",
}
GROUP = {"cgroup.type": "threaded", "cpu.max": "max 20000", "cgroup.threads": ""}


@pytest.fixture(autouse=True)
def same_cpus():
    """The thread that a back end has taken, that of the tests, has its CPUs back."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def folder(path: Path, content: dict[str, str], **changes: str | None) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in (content | changes).items():
        if text is not None:
            (path / name).write_text(f"{text}\n")
    return path


def values(path: Path, *names: str) -> list[str]:
    return [(path / name).read_text().strip() for name in names]


def test_a_share_is_a_frequency_by_the_governor_userspace(tmp_path: Path):
    """Of 1.5 GHz: 0.8 is 1.2 GHz, a third 0.5 GHz, below the lowest 0.6; what was there before is back at the end."""
    policy = folder(tmp_path, POLICY)
    with taken(CPUFREQ, policy) as used:
        assert used.about == "600000 to 1500000 kHz by governor userspace"
        used.attach(threading.get_native_id())
        assert os.sched_getaffinity(0) == {0}
        assert values(policy, "scaling_governor") == ["userspace"]
        for share, expected in (
            (0.8, "1200000"),
            (1 / 3, "600000"),
            (0.0, "600000"),
            (1.0, "1500000"),
            (1.2, "1500000"),
        ):
            used.command(share)
            assert values(policy, "scaling_setspeed") == [expected]
    assert values(policy, "scaling_governor", "scaling_max_freq") == ["schedutil", "1500000"]


def test_a_frequency_is_the_next_of_those_that_there_are(tmp_path: Path):
    policy = folder(tmp_path, POLICY, scaling_available_frequencies="1500000 1000000 600000 1800000")
    with taken(CPUFREQ, policy) as used:
        for share, expected in ((0.5, "1000000"), (0.6, "1000000"), (2 / 3, "1000000"), (0.7, "1500000")):
            used.command(share)
            assert values(policy, "scaling_setspeed") == [expected]


def test_without_the_governor_userspace_the_limit_is_set(tmp_path: Path):
    policy = folder(tmp_path, POLICY, scaling_available_governors="performance powersave", scaling_setspeed=None)
    with taken(CPUFREQ, policy) as used:
        assert "scaling_max_freq, as the governors are performance, powersave" in used.about
        used.attach(threading.get_native_id())
        used.command(0.5)
        assert values(policy, "scaling_max_freq", "scaling_governor") == ["750000", "schedutil"]
    assert values(policy, "scaling_max_freq") == ["1500000"]


def test_a_frequency_that_somebody_has_set_is_set_again(tmp_path: Path):
    policy = folder(tmp_path, POLICY, scaling_governor="userspace", scaling_setspeed="900000")
    with taken(CPUFREQ, policy) as used:
        used.attach(threading.get_native_id())
        used.command(1.0)
    assert values(policy, "scaling_governor", "scaling_setspeed") == ["userspace", "900000"]


def test_a_share_is_a_quota_of_one_core(tmp_path: Path):
    """In periods of 20 ms; no quota is below 1 ms."""
    group = folder(tmp_path, GROUP)
    with taken(CGROUP, group) as used:
        used.attach(4711)
        assert values(group, "cgroup.threads") == ["4711"]
        for share, expected in ((0.25, "5000"), (0.01, "1000"), (0.0, "1000"), (1.0, "20000"), (1.5, "20000")):
            used.command(share)
            assert values(group, "cpu.max") == [f"{expected} 20000"]
    assert values(group, "cpu.max") == ["max 20000"]


@pytest.mark.parametrize(("kind", "content"), [(CPUFREQ, POLICY), (CGROUP, GROUP)])
@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("no server"), None])
def test_all_is_as_before_however_the_run_ends(
    kind: str, content: dict[str, str], error: type[BaseException] | BaseException | None, tmp_path: Path
):
    made = folder(tmp_path, content)
    before = values(made, *content)
    with contextlib.suppress(KeyboardInterrupt, InputError), taken(kind, made) as used:
        used.attach(threading.get_native_id())
        used.command(0.7)
        assert values(made, *content) != before
        if error is not None:
            raise error
    kept = [name for name in content if name not in ("scaling_setspeed", "cgroup.threads")]
    assert values(made, *kept) == [content[name] for name in kept]


def test_what_nobody_commands_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A preflight check changes nothing, and the same rate is written once."""
    wrote = list[str]()
    monkeypatch.setattr(cpu, "_write", lambda path, text: wrote.append(text))
    for kind, content in ((CPUFREQ, POLICY), (CGROUP, GROUP)):
        with taken(kind, folder(tmp_path / kind, content)):
            pass
    assert wrote == []
    with taken(CPUFREQ, tmp_path / CPUFREQ) as used:
        for _ in range(3):
            used.command(0.8)
        assert wrote == ["1200000"]


@pytest.mark.parametrize(
    ("kind", "content", "changes", "expected"),
    [
        (CPUFREQ, POLICY, {"scaling_governor": None}, "scaling_governor': cannot be read (No such file or directory)"),
        (CPUFREQ, POLICY, {"scaling_max_freq": "fast"}, "scaling_max_freq': must hold whole numbers, got 'fast'"),
        (CPUFREQ, POLICY, {"scaling_setspeed": None}, "scaling_setspeed': cannot be read"),
        (CPUFREQ, POLICY, {"affected_cpus": ""}, "affected_cpus': must hold whole numbers"),
        (CGROUP, GROUP, {"cgroup.type": "domain"}, "is of the type 'domain'; must be a threaded group"),
        (CGROUP, GROUP, {"cpu.max": None}, "cpu.max': cannot be read"),
        (CGROUP, GROUP, {"cpu.max": "max"}, "cpu.max': must hold a quota and a period, got 'max'"),
        (CGROUP, GROUP, {"cgroup.threads": None}, "cgroup.threads': cannot be written"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    kind: str,
    content: dict[str, str],
    changes: dict[str, str | None],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    made = folder(tmp_path, content, **changes)
    before = {path.name: path.read_text() for path in made.iterdir()}
    assert main(["join", "127.0.0.1:1", "--cpu", kind, "--cpu-path", str(made)]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert {path.name: path.read_text() for path in made.iterdir()} == before


def test_a_file_that_refuses_a_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with (
        pytest.raises(InputError, match=r"cpu.max': cannot be written; run as root"),
        taken(CGROUP, folder(tmp_path, GROUP)),
    ):
        pass


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--cpu cgroup", "--cpu cgroup needs --cpu-path DIR"),
        ("--cpu-path /", "--cpu-path belongs to --cpu cpufreq or --cpu cgroup"),
        ("--cpu cpufreq --count 2", "--cpu cpufreq is for one device, got --count 2"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: str, expected: str, capsys: pytest.CaptureFixture[str]):
    assert main(["join", "127.0.0.1:1", *flags.split()]) == 2
    assert expected in capsys.readouterr().err


def test_preflight_says_what_a_cpu_can_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["preflight", "--cpu", CPUFREQ, "--cpu-path", str(folder(tmp_path / "policy", POLICY))])
    assert "600000 to 1500000 kHz by governor userspace" in " ".join(capsys.readouterr().out.split())
    assert main(["preflight", "--cpu", CGROUP, "--cpu-path", str(tmp_path)]) == 2
    assert "CPU" in capsys.readouterr().err


def test_pacing_waits_and_the_others_do_not(tmp_path: Path):
    async def waited(kind: str, path: Path | None) -> float:
        with taken(kind, path) as used:
            await used.until(now() + 3.0)
        return now()

    assert run_on_fake_clock(waited(PACING, None)) == pytest.approx(3.0)
    for kind, content in ((CPUFREQ, POLICY), (CGROUP, GROUP)):
        assert run_on_fake_clock(waited(kind, folder(tmp_path / kind, content))) == 0.0


def test_every_block_commands_what_its_tasks_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a share of what the device can run in a block; no task waits for the end of a time that is only emulated."""
    plan = make_plan(load({"devices": 1}), "priced", blocks=40, seed=1)
    capacity, commanded = float(plan.device(0).capacity), list[float]()

    async def together() -> tuple[Service, AgentLog]:
        service = Service(plan)
        running = asyncio.create_task(service.run())
        log = await Agent(MemoryLink(service), cpu=used).run()
        await running
        return service, log

    with taken(CPUFREQ, folder(tmp_path, POLICY)) as used:
        monkeypatch.setattr(used, "command", commanded.append)
        service, log = run_on_fake_clock(together())
    records = [service.ledger.records[block, 0] for block in range(40)]
    assert commanded == pytest.approx([(record.started - record.offload) / capacity for record in records])
    assert max(commanded) > 0.1
    tasks = [task for task in log.tasks if task.outcome == LOCAL]
    assert tasks
    assert all(task.cut == task.begun for task in tasks)  # nothing is computed, and nobody waits


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_device_that_is_ended_leaves_the_policy_as_it_was(number: int, tmp_path: Path):
    """It has joined a server that waits for a second device."""
    policy = folder(tmp_path / "policy", POLICY)
    with serving(tmp_path, "--set", "devices=2") as fleet:
        fleet.start("device", "join", fleet.target, "--cpu", CPUFREQ, "--cpu-path", str(policy))
        fleet.wait(lambda: values(policy, "scaling_governor") == ["userspace"], 120, "taking the policy")
        fleet.processes["device"].send_signal(number)
        assert fleet.processes["device"].wait(60) == 128 + number
    assert values(policy, "scaling_governor") == ["schedutil"]
