"""Triton's client asks our server, over TLS and with a token: its answers are those of the whole network."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from live_site import secured

from partway.live.halves import Halves
from partway.live.network import write_small_network
from partway.live.processes import serving

TRITON = Path(os.environ.get("PARTWAY_TRITON", Path(__file__).parents[1] / ".venv" / "triton" / "bin" / "python"))
"""An environment of its own: its requirements are not ours."""
PROTOS = Path(__file__).parents[1] / "partway" / "live" / "proto"


@pytest.mark.slow
@pytest.mark.skipif(not TRITON.exists(), reason="`make test-slow` installs tritonclient into .venv/triton")
def test_the_client_of_triton_gets_the_results_of_the_whole_network(tmp_path: Path):
    halves = Halves(write_small_network(tmp_path), "fp16")
    theirs, _ = secured(tmp_path)
    expected = dict[str, np.ndarray]()
    for number, share in enumerate(halves.shares):
        model, sent = halves.front_now(float(share), number)
        if model:
            np.savez(tmp_path / f"{model}.npz", **sent)
            expected[model] = halves.whole_now(number)["scores"]
    assert len(expected) > 2
    with serving(tmp_path, "--set", "devices=1", "--blocks", "40", *theirs, bind="localhost:0") as fleet:
        command = [str(TRITON), str(Path(__file__).with_name("triton_client.py")), fleet.target, str(PROTOS)]
        client = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert client.returncode == 0, client.stderr
    said = json.loads(client.stdout)
    assert (said["live"], said["ready"], said["server"], said["has"]) == (True, True, "partway", [True, True, False])
    for model, metadata in said["models"].items():
        inputs, outputs = halves.specs(model)
        assert [one["name"] for one in metadata["inputs"]] == [*inputs]
        assert [one["name"] for one in metadata["outputs"]] == [*outputs] == ["scores"]
    assert said["ids"] == [[model, model, ["scores"]] for model in sorted(expected)]
    assert said["without a session"] == "StatusCode.UNAUTHENTICATED"
    for model, scores in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / "answers" / f"{model}.npy"), scores, atol=2e-3)
