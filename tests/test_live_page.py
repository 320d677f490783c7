"""The commands that docs/live.md prints for a scenario of one's own, and for what was learned, on this machine."""

import socket
from pathlib import Path

import pytest
from live_site import Shells, block_with, counts, said, shells, until
from onnx_models import classifier, saved

SECTION = "Two machines"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_together(site: Shells, serve: str, join: str, folder: Path, name: str) -> tuple[dict[str, int], dict[str, int]]:
    """Run a server and its devices, on a free port: what the tables of both count."""
    address = f"127.0.0.1:{free_port()}"
    server = site.start(f"{serve} --bind {address} --blocks 40", folder, f"{name}-server")
    until(lambda: "listening" in said(folder, f"{name}-server"), {"server": server}, 120)
    devices = site.start(join.replace("127.0.0.1:7070", address), folder, f"{name}-devices")
    running = {"server": server, "devices": devices}
    until(lambda: all(process.poll() == 0 for process in running.values()), running, 180)
    return counts(said(folder, f"{name}-server")), counts(said(folder, f"{name}-devices"))


@pytest.mark.slow
def test_a_scenario_of_ones_own_is_simulated_and_then_run(tmp_path: Path):
    saved(tmp_path, classifier())
    with shells(tmp_path) as site:
        site.run(block_with(SECTION, "partway scenarios"), tmp_path)
        simulate, serve, join = block_with(SECTION, "--load trained.npz").splitlines()
        assert "2 devices" in site.run(simulate, tmp_path)
        served, joined = run_together(site, serve, join, tmp_path, "run")
        assert "begins with 2 devices" in said(tmp_path, "run-server")
    assert served["received"] == served["answered"] == joined["answered by it"] > 3


@pytest.mark.slow
def test_a_run_begins_with_what_the_run_before_has_learned(tmp_path: Path):
    saved(tmp_path, classifier())
    with shells(tmp_path) as site:
        lines = block_with(SECTION, "--load server.npz").splitlines()
        for name, serve, join in (("first", *lines[:2]), ("second", *lines[2:])):
            served, joined = run_together(site, serve, join, tmp_path, name)
            assert served["received"] == served["answered"] == joined["answered by it"] > 3
    assert (tmp_path / "server.npz").exists()
    assert (tmp_path / "device-0.npz").exists()


@pytest.mark.slow
def test_a_measured_link_is_replayed(tmp_path: Path):
    saved(tmp_path, classifier())
    with shells(tmp_path) as site:
        measure, serve, join = block_with("The radio of a device", "--trace").splitlines()
        site.run(measure, tmp_path)
        served, joined = run_together(site, serve, join, tmp_path, "run")
    assert served["received"] == served["answered"] == joined["answered by it"] > 3
