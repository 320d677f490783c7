"""A device in another language: the example in JavaScript beside three of ours, over TLS and with a token."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from live_site import devices_of, ended, outcomes, secured

from partway.live.network import small_network
from partway.live.processes import serving
from partway.live.tasks import ANSWERED

onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "node"
PROTOS = ROOT / "partway" / "live" / "proto"
MISSING = [name for name in ("node", "npm") if shutil.which(name) is None]
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")
"""Words of npm where it cannot reach its registry."""
BLOCKS = 32


def image(task: int) -> np.ndarray:
    """What the example sends as a task: 8 bits per number."""
    i = np.arange(3 * 32 * 32)
    return ((7 * i + i * i * task) % 256).reshape(1, 3, 32, 32).astype(np.uint8)


def test_the_example_has_no_address_of_a_registry():
    packages = json.loads((EXAMPLE / "package-lock.json").read_text("utf-8"))["packages"]
    assert len(packages) > 10
    assert [name for name, package in packages.items() if "resolved" in package] == []


@pytest.mark.slow
@pytest.mark.skipif(MISSING != [], reason=f"not installed: {', '.join(MISSING)}")
def test_a_device_in_javascript_joins_sends_and_gets_results(tmp_path: Path):
    for name in ("package.json", "package-lock.json", "device.mjs"):
        shutil.copy(EXAMPLE / name, tmp_path)
    installed = subprocess.run(["npm", "ci"], cwd=tmp_path, capture_output=True, text=True)
    if installed.returncode and any(word in installed.stderr for word in OFFLINE):
        pytest.skip("npm cannot reach its registry")
    assert installed.returncode == 0, installed.stderr
    theirs, ours = secured(tmp_path)
    with serving(tmp_path, "--blocks", str(BLOCKS), *theirs, bind="localhost:0") as fleet:
        fleet.start("devices", "join", fleet.target, "--device", "0", "--count", "3", *ours)
        command = ["node", "device.mjs", fleet.target, "--protos", str(PROTOS), "--device", "3", *ours]
        other = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert other.returncode == 0, other.stderr
        assert other.stderr.startswith(f"device 3: {BLOCKS - 1} tasks sent, {BLOCKS - 1} answered")
        ended(fleet, "server", "devices", within_s=60)
        served, ended_as = fleet.document("server"), outcomes(devices_of(fleet, "devices"))
    results = [json.loads(line) for line in other.stdout.splitlines()]
    assert sorted(result["task"] for result in results) == list(range(BLOCKS - 1))
    assert served["tasks"]["received"] == served["tasks"]["answered"] == ended_as[ANSWERED] + BLOCKS - 1
    assert served["tasks"]["duplicates"] == 0
    assert min(served["metrics"]["arrived"]) >= 1  # it reports a task in every block
    whole = onnxruntime.InferenceSession(small_network().SerializeToString())
    for result in results:
        (expected,) = whole.run(None, {"image": (image(result["task"]) / np.float32(255)).astype(np.float32)})
        np.testing.assert_allclose(result["scores"], expected[0], atol=1e-5)
