"""Events of a live run, and the metrics that are made of them: they say what the run's own accounts say."""

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import make_grafana
import numpy as np
import prometheus_client as prometheus
import pytest
from live_site import ended

from partway.cli.flags import address
from partway.cli.main import main
from partway.errors import InputError
from partway.experiments.preparation import bound_of
from partway.live import exporter
from partway.live.accounts import metrics
from partway.live.agent import Agent, AgentLog
from partway.live.clock import now, run_on_fake_clock
from partway.live.events import (
    LEFT,
    LOST,
    Begun,
    BlockBegun,
    BlockMeasured,
    Ended,
    Event,
    EventFile,
    Gone,
    Joined,
    Planned,
    Served,
    TaskEnded,
    TaskLeft,
    line,
    task_ended,
    to_all,
)
from partway.live.exporter import Exporter
from partway.live.memory import MemoryLink
from partway.live.messages import RegisterRequest
from partway.live.metric_table import METRICS
from partway.live.plan import LivePlan, make_plan
from partway.live.processes import Fleet, serving
from partway.live.service import BlockEnded, Service
from partway.live.tasks import ANSWERED, LOCAL, STAGES, WAITING, TaskLog
from partway.live.watch import WINDOW, Watch
from partway.measurement.gap import COST_COMPONENTS, LOSSES
from partway.scenario.loading import load

BLOCKS = WINDOW + 20
SCENARIO: dict[str, Any] = {"devices": 2, "weights": {"server_energy": 2.5e-3}, "server": {"macs_per_cycle": 0.08}}


class Seen(NamedTuple):
    """A run on a fake clock: what server and devices were told, and what they left."""

    plan: LivePlan
    bound: Any
    service: Service
    logs: Sequence[AgentLog]
    at_server: list[Event]
    at_devices: list[Event]
    registries: dict[str, prometheus.CollectorRegistry]


@cache
def seen() -> Seen:
    plan = make_plan(load(SCENARIO), "priced", blocks=BLOCKS, seed=1)
    bound = bound_of(plan.world)
    assert not isinstance(bound, str)
    events: tuple[list[Event], list[Event]] = ([], [])
    exporters = Exporter("server"), Exporter("device")
    watch = Watch(plan, to_all([events[0].append, exporters[0]]), bound.value, "", bound.certificate)
    service = Service(plan, listen=watch)
    listen = to_all([events[1].append, exporters[1]])

    async def together() -> list[AgentLog]:
        agents = [Agent(MemoryLink(service, 0.001), request=RegisterRequest(k), listen=listen) for k in range(2)]
        running = asyncio.create_task(service.run())
        logs = await asyncio.gather(*(agent.run() for agent in agents))
        await running
        return list(logs)

    logs = run_on_fake_clock(together())
    registries = {"server": exporters[0].registry, "device": exporters[1].registry}
    return Seen(plan, bound, service, logs, *events, registries)


def of_kind(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def value(party: str, name: str, **labels: str) -> float:
    found = seen().registries[party].get_sample_value(name, labels)
    assert found is not None
    return found


def test_a_run_is_told_in_order():
    told = [type(event) for event in seen().at_server]
    assert told[:4] == [Planned, Joined, Joined, Begun]
    assert told.count(BlockMeasured) == BLOCKS
    assert Counter(told)[Gone] == 2
    assert Ended in told
    assert {event.how for event in of_kind(seen().at_server, Gone)} == {LEFT}


def test_what_is_measured_block_by_block_is_what_is_measured_at_the_end():
    blocks = of_kind(seen().at_server, BlockMeasured)
    whole = metrics(seen().service.ledger, seen().plan, seen().service.party.changes, seen().bound.certificate)
    for name in blocks[0].metrics:
        mine = np.array([block.metrics[name] for block in blocks])
        np.testing.assert_allclose(mine, np.asarray(getattr(whole, name))[0], rtol=1e-6, atol=1e-9, err_msg=name)
    losses = sum(np.asarray(getattr(whole, f"loss_{name}"), np.float64)[0] for name in LOSSES)
    for at in (0, 9, BLOCKS - 1):
        window = losses[max(at + 1 - WINDOW, 0) : at + 1]
        assert blocks[at].gap == pytest.approx(window.mean() / seen().bound.value, rel=1e-4)


def test_a_block_is_measured_half_a_slot_after_the_next_one_has_begun():
    """When it begins tensors arrive, and the devices wait for the broadcast. The last one is measured at once."""
    plan, measured = make_plan(load(SCENARIO), "priced", blocks=5), list[float]()

    def listen(event: Event | BlockEnded) -> None:
        if isinstance(event, BlockEnded):
            assert event.block == len(measured)
            measured.append(now() - service._start(event.block + 1))

    async def together() -> None:
        agents = [Agent(MemoryLink(service), request=RegisterRequest(k)) for k in range(2)]
        await asyncio.gather(service.run(), *(agent.run() for agent in agents))

    service = Service(plan, listen=listen)
    run_on_fake_clock(together())
    assert measured == pytest.approx([plan.slot_s / 2] * 4 + [0.0], abs=1e-9)


def test_a_block_tells_what_each_device_reports():
    for block in of_kind(seen().at_server, BlockMeasured):
        for log in seen().logs:
            assert repr(block.reports[log.device]) == repr(log.records[block.block])  # NaN is not equal to itself
        assert block.attending == (0, 1)


def test_the_events_of_tasks_are_the_tasks():
    tasks = {(task.device, task.number): task for log in seen().logs for task in log.tasks if task.outcome != WAITING}
    told = {(event.device, event.task): event for event in of_kind(seen().at_devices, TaskEnded)}
    assert set(told) == set(tasks)
    for at, event in told.items():
        assert event.outcome == tasks[at].outcome
        assert event.latency_s == pytest.approx(tasks[at].answered - tasks[at].arrived)
    arrivals = {(task.device, task.number): task.arrived for log in seen().logs for task in log.tasks}
    told_left = {(event.device, event.task): event.arrived_s for event in of_kind(seen().at_devices, TaskLeft)}
    assert told_left == {at: arrived for at, arrived in arrivals.items() if at not in tasks}
    assert len(of_kind(seen().at_server, Served)) == seen().service.ledger.answered > 10
    assert len(of_kind(seen().at_devices, BlockBegun)) == 2 * BLOCKS


def test_the_stages_of_a_task_by_hand():
    """Arrives at 1, begun at 2, cut at 5, sent at 6, waits 2 s and takes 3 s there, and the result is there at 12."""
    whole = TaskLog(0, 0, 0, 1.0, 2.0, 5.0, 6.0, 12.0, 2.0, 3.0, 0.5, ANSWERED)
    assert list(whole.stages().values()) == [1.0, 3.0, 1.0, 2.0, 3.0, 1.0]
    local = TaskLog(0, 1, 0, 1.0, 2.0, 5.0, answered=5.0, outcome=LOCAL)
    assert list(local.stages().values()) == [1.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    assert task_ended(whole).latency_s == 11.0
    assert tuple(whole.stages()) == STAGES


def test_the_metrics_count_what_has_happened():
    ledger, blocks = seen().service.ledger, of_kind(seen().at_server, BlockMeasured)
    tasks = of_kind(seen().at_devices, TaskEnded)
    assert value("server", "partway_blocks_total") == BLOCKS
    assert value("server", "partway_requests_total", what="received") == ledger.received
    assert value("server", "partway_requests_total", what="answered") == ledger.answered
    assert value("server", "partway_energy_joules_total", source="devices") == pytest.approx(
        sum(record.energy_j for log in seen().logs for record in log.records.values()), rel=1e-4
    )
    for component in COST_COMPONENTS:
        assert value("server", "partway_block_cost", component=component) == blocks[-1].metrics[component]
    assert value("server", "partway_gap_to_bound_ratio") == blocks[-1].gap
    assert value("server", "partway_price") == pytest.approx(blocks[-1].price)
    assert value("server", "partway_cost_lower_bound") == seen().bound.value
    assert value("server", "partway_devices") == 0  # all have left
    assert value("device", "partway_tasks_total", outcome=ANSWERED) == sum(one.outcome == ANSWERED for one in tasks)
    assert value("device", "partway_task_latency_seconds_sum") == pytest.approx(sum(one.latency_s for one in tasks))
    assert any(one.outcome == ANSWERED for one in tasks)
    assert any(one.outcome == LOCAL for one in tasks)
    for stage in STAGES:
        total = sum(one.stages[stage] for one in tasks)
        assert value("device", "partway_task_seconds_sum", stage=stage) == pytest.approx(total, abs=1e-6)
        assert value("device", "partway_task_seconds_count", stage=stage) == len(tasks)
    means = [
        value("device", "partway_task_seconds_sum", stage=stage)
        / value("device", "partway_task_seconds_count", stage=stage)
        for stage in STAGES
    ]
    latency = value("device", "partway_task_latency_seconds_sum") / len(tasks)
    assert sum(means) == pytest.approx(latency, abs=1e-6)  # the panel's lines add up
    assert value("device", "partway_block_late_seconds_count") == 2 * BLOCKS


def test_nothing_is_counted_twice_and_no_series_belongs_to_a_device():
    """Each metric has one party that offers it; what a registry holds does not grow with the fleet."""
    assert {len(metric.values) for metric in METRICS} == {1}
    for party, registry in seen().registries.items():
        samples = [sample for family in registry.collect() for sample in family.samples]
        assert {key for sample in samples for key in sample.labels} <= {*(one.label for one in METRICS), "le"}
        fresh = [sample for family in Exporter(party).registry.collect() for sample in family.samples]  # pyright: ignore
        assert len(fresh) == len(samples)


def test_a_lost_device_is_said_to_be_lost():
    """Its agent stops without a word."""
    plan, events = make_plan(load(SCENARIO), "priced", blocks=8), list[Event]()
    service = Service(plan, listen=lambda event: events.append(event))  # pyright: ignore

    async def together() -> None:
        agents = [asyncio.create_task(Agent(MemoryLink(service), request=RegisterRequest(k)).run()) for k in range(2)]
        running = asyncio.create_task(service.run())
        await asyncio.sleep(0.5 + 3.5 * plan.block_s)
        agents[1].cancel()
        await agents[0]
        await running

    run_on_fake_clock(together())
    gone = [i for i, event in enumerate(events) if event == Gone(1, LOST)]
    assert len(gone) == 1
    before = max((event.block for event in events[: gone[0]] if hasattr(event, "ledger")), default=-1)
    assert before <= 3  # within a block


# Files of events


def test_events_are_lines_of_json(tmp_path: Path):
    file = EventFile(tmp_path / "events.jsonl")
    for event in (*seen().at_server, *seen().at_devices):
        file(event)
    file.close()
    lines = [json.loads(one) for one in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(lines) == len(seen().at_server) + len(seen().at_devices)
    assert Counter(one["event"] for one in lines)["BlockMeasured"] == BLOCKS
    assert all(abs(one["time"] - lines[0]["time"]) < 600 for one in lines)
    block = next(one for one in lines if one["event"] == "BlockMeasured")
    assert block["metrics"]["power_mismatch"] is None  # NaN
    assert set(block["reports"]) == {"0", "1"}


def test_a_full_disk_ends_the_file_and_not_the_run():
    file = EventFile(Path("/dev/full"))
    for _ in range(3):
        file(Joined(0))
    assert file.fault == "No space left on device"
    file.close()


def test_an_event_has_a_name_and_a_time():
    assert json.loads(line(Gone(3, LOST), 12.0)) == {"event": "Gone", "time": 12.0, "device": 3, "how": "lost"}


def test_a_file_of_events_is_not_replaced_without_being_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "events.jsonl").write_text("mine")
    assert main(["join", "127.0.0.1:1", "--events", str(tmp_path / "events.jsonl")]) == 2
    assert "exists already; add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "events.jsonl").read_text() == "mine"


# The port, and the dashboard


def test_metrics_are_served():
    port = exporter.start(Exporter("server"), ("127.0.0.1", 0))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert "partway_gap_to_bound_ratio" in answer.read().decode()
    with pytest.raises(InputError, match="--metrics"):
        exporter.start(Exporter("server"), ("127.0.0.1", port))


def test_idle_connections_do_not_use_up_the_server(monkeypatch: pytest.MonkeyPatch):
    """More of them than there may be are closed, and those that say nothing later: then there is room again."""
    monkeypatch.setattr(exporter._Handler, "timeout", 1.0)
    port, before = exporter.start(Exporter("server"), ("127.0.0.1", 0)), threading.active_count()
    held = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(5 * exporter.MAX_CONNECTIONS)]
    for last in held[exporter.MAX_CONNECTIONS :]:
        assert last.recv(1) == b""  # closed by the server
    assert threading.active_count() <= before + exporter.MAX_CONNECTIONS
    for first in held[: exporter.MAX_CONNECTIONS]:
        assert first.recv(1) == b""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        assert b"partway_devices" in answer.read()
    for connection in held:
        connection.close()


def test_a_thread_that_cannot_start_takes_no_place(monkeypatch: pytest.MonkeyPatch):
    """The connection is closed, and as many as before are answered later."""
    port = exporter.start(Exporter("server"), ("127.0.0.1", 0))

    def full(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        for _ in range(exporter.MAX_CONNECTIONS + 1):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as refused:
                assert refused.recv(1) == b""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        assert b"partway_devices" in answer.read()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9090", ("127.0.0.1", 9090)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:1", ("::1", 1)),
        (":1", None),
        ("x", None),
    ],
)
def test_an_address_may_be_a_port_alone(text: str, expected: tuple[str, int] | None):
    if expected is None:
        with pytest.raises(Exception, match="PORT"):
            address(text)
    else:
        assert address(text) == expected


def test_the_dashboard_shows_every_metric_that_is_offered_and_no_other():
    assert make_grafana.PAGE.read_text("utf-8") == make_grafana.text()
    panels = make_grafana.dashboard()["panels"]
    names = [metric.name for metric in METRICS]
    offered = {
        sample.name
        for registry in seen().registries.values()
        for family in registry.collect()
        for sample in family.samples
    }
    shown = [set(re.findall(r"partway_\w+", panel["targets"][0]["expr"])) for panel in panels]
    assert len(shown) == len(names)
    for metric, series in zip(METRICS, shown, strict=True):
        assert series <= offered
        assert all(one.startswith(metric.name) for one in series)
    assert {name for one in offered for name in names if one.startswith(name)} == set(names)
    for metric, panel in zip(METRICS, panels, strict=True):
        if metric.label:
            assert f"by ({metric.label})" in metric.query
            assert metric.label in panel["targets"][0]["legendFormat"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's prometheus")


def check_metrics(text: bytes) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.slow
@needs_promtool
def test_the_metrics_of_processes_are_what_prometheus_wants(tmp_path: Path):
    """A server and a process of four devices: both are scraped while they run."""

    def metrics_of(fleet: Any, name: str) -> bytes:
        fleet.wait(lambda: b"metrics at" in (tmp_path / f"{name}.out").read_bytes(), 60, name)
        url = re.search(r"http://\S+", (tmp_path / f"{name}.out").read_text())
        assert url
        with urllib.request.urlopen(url[0], timeout=10) as answer:
            return answer.read()

    def count(text: bytes, name: str) -> float:
        return sum(float(number) for number in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text.decode(), re.MULTILINE))

    events = tmp_path / "events.jsonl"
    with serving(tmp_path, "--blocks", "60", "--metrics", "0", "--events", str(events)) as fleet:
        fleet.start("devices", "join", fleet.target, "--count", "4", "--metrics", "0")
        fleet.wait(lambda: count(metrics_of(fleet, "server"), "partway_blocks_total") > 30, 120, "the run")
        texts = [metrics_of(fleet, name) for name in ("server", "devices")]
        ended(fleet, "server", "devices", within_s=120)
    for text in texts:
        check_metrics(text)
    assert count(texts[0], "partway_devices") == 4
    assert count(texts[0], "partway_energy_joules_total") > 0
    assert count(texts[1], "partway_tasks_total") > 20
    assert count(texts[1], "partway_task_seconds_count") > 100
    names = Counter(json.loads(one)["event"] for one in events.read_text().splitlines())
    assert (names["BlockMeasured"], names["Joined"], names["Ended"]) == (60, 4, 1)


@pytest.mark.slow
@needs_promtool
def test_a_live_run_offers_the_metrics_of_all_its_processes(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fleet, texts = Fleet(tmp_path), dict[int, bytes]()

    def is_scraped() -> bool:
        for at in range(port, port + 3):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{at}/metrics") as answer:
                texts[at] = answer.read()
        return len(texts) == 3

    fleet.start("live", "live", "--set", "devices=2", "--blocks", "60", "--metrics", str(port))
    try:
        fleet.wait(is_scraped, 240.0, "the run")
    finally:
        fleet.processes["live"].terminate()
        fleet.processes["live"].wait(60)
    said = f"metrics at http://127.0.0.1:{port}/metrics, devices at ports {port + 1} to {port + 2}\n"
    assert said in (tmp_path / "live.out").read_text()
    for text in texts.values():
        check_metrics(text)
    assert [b"partway_price" in text for text in texts.values()].count(True) == 1
    assert [b"partway_task_latency_seconds" in text for text in texts.values()].count(True) == 2


@needs_promtool
def test_a_metric_that_breaks_the_rules_is_found():
    """So that the test above can fail."""
    with pytest.raises(AssertionError):
        check_metrics(b"# TYPE partway_tasks counter\npartway_tasks 1\n")


def test_the_documentation_has_every_metric():
    page = (make_grafana.PAGE.parent / "live.md").read_text("utf-8")
    section = page.split("## Watching a run")[1].split("\n## ")[0]
    rows = "".join(one.split("|")[1] for one in section.splitlines() if one.startswith("| `"))
    shown = re.findall(r"`(\w+)(?:\{(\w+)\})?`", rows)
    assert shown == [(metric.name, metric.label) for metric in METRICS]
