"""Two machines: a server in one network namespace, devices in another, a switch between them, TLS and a token.

With `-s` the tests print the figures of docs/live.md, section "Two machines".
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from live_site import BLOCK_S, block_with, counts, devices_of, ended, outcomes, said, secured, shells, until
from onnx_models import any_size, classifier, saved

from partway.live.agent import ALONE_AFTER, MAX_PAUSE_BLOCKS
from partway.live.documents import tasks_of
from partway.live.preflight import TOLERANCE
from partway.live.processes import Fleet, serving
from partway.live.tasks import ANSWERED, FINISHED_HERE

EDGE, FIELD, SWITCH = "partway-edge", "partway-field", "partway-switch"
"""The namespaces of the server, of the devices and of the switch between them."""
ADDRESS = "10.77.0.1"
"""Of the server; its certificate names it."""
WHAT = ["packages", "clock", "network", "port", "credentials", "server"]
"""That a preflight looks at."""
BLOCKS, CUT_S = 100, 5.0
"""Of a run, 25 s; and how long the cable is cut."""
PULLED = ["-n", FIELD, "link", "set", "near", "down"], ["-n", FIELD, "link", "set", "near", "up"]
DROPPED = ["-n", SWITCH, "link", "set", "near", "nomaster"], ["-n", SWITCH, "link", "set", "near", "master", "switch"]
"""How the devices are cut off, and connected again: at their machine, or on the way, so that no machine notices it."""
TCP_S = 3.2
"""How much later a device that is cut off on the way may be back: TCP sends again what was lost, after pauses that
double from 0.2 s on, so after 3.0 and 6.2 s."""
SLACK = 2
"""Blocks that a loaded machine may take longer."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def inside(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace]


@pytest.fixture
def cable() -> Iterator[None]:
    """Two namespaces, and what connects them: a cable from each to a switch."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    try:
        ip("netns", "add", SWITCH)
        ip("-n", SWITCH, "link", "add", "switch", "type", "bridge")
    except subprocess.CalledProcessError as error:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "delete", SWITCH)
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("-n", SWITCH, "link", "set", "switch", "up")
        for namespace, end, address in ((EDGE, "far", ADDRESS), (FIELD, "near", "10.77.0.2")):
            ip("netns", "add", namespace)
            ip("link", "add", end, "netns", namespace, "type", "veth", "peer", "name", end, "netns", SWITCH)
            ip("-n", SWITCH, "link", "set", end, "up", "master", "switch")
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", end)
            for name in (end, "lo"):
                ip("-n", namespace, "link", "set", name, "up")
        yield
    finally:
        for namespace in (EDGE, FIELD, SWITCH):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", namespace)


@contextlib.contextmanager
def site(folder: Path, *more: str) -> Iterator[tuple[Fleet, list[str]]]:
    """A server that listens in its namespace, and the credentials that a device needs."""
    theirs, ours = secured(folder)
    flags = ["--blocks", str(BLOCKS), "--wait", "90", *theirs, *more]
    with serving(folder, *flags, bind=f"{ADDRESS}:7070", under=inside(EDGE)) as fleet:
        yield fleet, ours


@pytest.mark.slow
@pytest.mark.usefixtures("cable")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page makes its certificate with openssl")
def test_the_commands_of_the_page_lead_from_a_file_to_answered_inferences(tmp_path: Path):
    """As docs/live.md prints them but for the server's name, and a file of events, which tells of the first answer."""
    section = "Two machines"
    edge, field = tmp_path / "edge", tmp_path / "field"
    for folder in (edge, field):
        folder.mkdir()
        saved(folder, classifier())

    def printed(words: str) -> str:
        return block_with(section, words).replace("DNS:edge.local", f"IP:{ADDRESS}").replace("edge.local", ADDRESS)

    def answered() -> bool:
        events = field / "events"
        lines = events.read_text("utf-8").splitlines() if events.exists() else []
        return any(json.loads(line).get("outcome") == ANSWERED for line in lines if line.endswith("}"))

    with shells(tmp_path) as site:
        began = time.monotonic()
        site.run(printed("openssl req"), edge, inside(EDGE))
        shutil.copy(edge / "token", field)
        shutil.copy(edge / "cert.pem", field / "ca.pem")
        server = site.start(printed("--bind 0.0.0.0:7070"), edge, "server", inside(EDGE))
        until(lambda: "listening" in said(edge, "server"), {"server": server}, 120)
        listens = time.monotonic()
        check, join = printed("partway preflight").splitlines()
        found = site.run(check, field, inside(FIELD), but="partway: not ready: clock")  # a loaded machine is late
        checked = time.monotonic()
        device = site.start(f"{join} --events events", field, "device", inside(FIELD))
        running = {"server": server, "device": device}
        until(answered, running, 120)
        print(
            f"\nthe page's commands: the first answer after {time.monotonic() - began:.1f} s, of these "
            f"{listens - began:.1f} s until the server listened, {checked - listens:.1f} s preflight",
            flush=True,
        )
        until(lambda: server.poll() == 0 and device.poll() == 0, running, 120)
        served, joined = counts(said(edge, "server")), counts(said(field, "device"))
    print(f"{served['answered']} tasks answered in the whole run")
    assert re.findall(r"^ *(?:not )?ok +(\w+) ", found, re.MULTILINE) == WHAT
    assert f"{ADDRESS}:7070 answers" in found
    assert served["received"] == served["answered"] == joined["answered by it"] > 3


@pytest.mark.slow
@pytest.mark.usefixtures("cable")
def test_two_machines_answer_inferences_over_tls(tmp_path: Path):
    with site(tmp_path) as (fleet, ours):
        fleet.start("stranger", "join", fleet.target, *ours[:2], under=inside(FIELD))  # no token
        fleet.start("devices", "join", fleet.target, "--count", "4", *ours, under=inside(FIELD))
        assert fleet.processes["stranger"].wait(60) == 2
        assert "the token is missing or wrong" in (tmp_path / "stranger.err").read_text("utf-8")
        fleet.processes.pop("stranger")
        ended(fleet, "server", "devices", within_s=120)
        served, counted = fleet.document("server"), outcomes(devices_of(fleet, "devices"))
    print(f"\ntwo namespaces, TLS and token: {dict(counted)}, at the server {served['tasks']}")
    assert served["tasks"]["received"] == served["tasks"]["answered"] == counted[ANSWERED] > 20
    assert counted[FINISHED_HERE] == served["tasks"]["duplicates"] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("cable")
def test_two_machines_run_a_network_with_open_sizes_on_own_inputs(tmp_path: Path):
    """The answers are what onnxruntime computes with the whole file; a device with another shape is refused."""
    path, shape = saved(tmp_path, any_size()), (1, 3, 40, 24)
    given = [(np.random.default_rng(k).integers(0, 256, shape) / 255).astype(np.float32) for k in range(20)]
    (tmp_path / "images").mkdir()
    for k, value in enumerate(given):
        np.save(tmp_path / "images" / f"{k:02d}.npy", value)
    network = ["--model", str(path), "--shape"]
    with site(tmp_path, *network, "x=1x3x40x24", "--set", "devices=1") as (fleet, ours):
        fleet.start("other", "join", fleet.target, *ours, *network, "x=1x3x24x40", under=inside(FIELD))
        assert fleet.processes["other"].wait(60) == 2
        said = (tmp_path / "other.err").read_text("utf-8")
        assert "this server runs another network than yours: net.onnx (SHA-256 " in said
        assert said.endswith("), x=1x3x40x24\n")
        fleet.processes.pop("other")
        own = ["--inputs", str(tmp_path / "images"), "--outputs", str(tmp_path / "results")]
        fleet.start("device", "join", fleet.target, *ours, *network, "x=1x3x40x24", *own, under=inside(FIELD))
        ended(fleet, "server", "device", within_s=120)
        counted = outcomes(devices_of(fleet, "device"))
    print(f"\na network with open sizes on 20 inputs: {dict(counted)}")
    assert counted[ANSWERED] > 3
    whole = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for k, value in enumerate(given):
        (expected,) = whole.run(None, {"x": value})
        with np.load(tmp_path / "results" / f"{k:06d}-{k:02d}.npz") as found:
            np.testing.assert_allclose(found["y"], expected, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.usefixtures("cable")
@pytest.mark.parametrize(("how", "tcp_s"), [(PULLED, 0.0), (DROPPED, TCP_S)], ids=["pulled", "dropped"])
def test_devices_are_cut_off_from_their_server_for_a_while(
    how: tuple[list[str], list[str]], tcp_s: float, tmp_path: Path
):
    events = tmp_path / "events"
    with site(tmp_path) as (fleet, ours):
        own = ["--count", "4", "--events", str(events)]
        fleet.start("devices", "join", fleet.target, *own, *ours, under=inside(FIELD))
        time.sleep(0.1)
        fleet.wait(lambda: "begins" in (tmp_path / "server.out").read_text("utf-8"), 90, "joining")
        time.sleep(20 * BLOCK_S)
        ip(*how[0])
        cut = time.time()
        time.sleep(CUT_S)
        ip(*how[1])
        whole = time.time()
        ended(fleet, "server", "devices", within_s=120)
        served, devices = fleet.document("server"), devices_of(fleet, "devices")
    counted = outcomes(devices)
    begun = [one for one in map(json.loads, events.read_text("utf-8").splitlines()) if one["event"] == "BlockBegun"]
    alone, back = list[float](), list[float]()
    for device in devices:
        blocks = [one for one in begun if one["device"] == device["device"]]
        first, last = (next(one for one in blocks if one["block"] == device["alone"][at]) for at in (0, -1))
        alone.append((first["time"] - cut) / BLOCK_S)
        back.append((last["time"] - whole) / BLOCK_S + 1)
    sent = sum(bool(np.isfinite(task.sent)) for device in devices for task in tasks_of(device))
    print(
        f"\n{' '.join(how[0])} for {CUT_S:g} s: {sent} tasks sent, {counted[ANSWERED]} answered, "
        f"{counted[FINISHED_HERE]} finished here, received twice {served['tasks']['duplicates']}; "
        f"alone {max(alone):.1f} blocks after the cut, back {max(back):.1f} blocks after its end (the slowest device)"
    )
    assert sent == counted[ANSWERED] + counted[FINISHED_HERE]
    assert counted[ANSWERED] <= served["tasks"]["answered"] == served["tasks"]["received"] <= sent
    assert served["tasks"]["duplicates"] == 0 < counted[FINISHED_HERE]
    for device in devices:
        own, begun = device["alone"], {task.number: task.begun / BLOCK_S for task in tasks_of(device)}
        assert own == list(range(own[0], own[-1] + 1))
        answered = [begun[task.number] for task in tasks_of(device) if task.outcome == ANSWERED]
        assert not any(own[0] + 1 < block < own[-1] for block in answered)  # it sends nothing while it is alone
        assert max(answered) > own[-1]  # it has come back
    assert 0 < max(alone) <= ALONE_AFTER + 3 + SLACK
    assert 0 < max(back) <= MAX_PAUSE_BLOCKS + 4 + tcp_s / BLOCK_S + SLACK
