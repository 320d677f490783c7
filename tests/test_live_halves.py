"""The halves that run live, of networks with what files bring: outputs that are ready early, weights outside."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import network, node, saved

from partway.errors import InputError
from partway.live.halves import Halves

MATRICES = {"w": np.linspace(-1, 1, 48).reshape(8, 6), "v": np.linspace(1, -1, 24).reshape(6, 4)}
WEIGHTS = {name: matrix.astype(np.float32) for name, matrix in MATRICES.items()}
CHAIN = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]


def agree(path: Path) -> int:
    """Every cut gives the whole network's outputs; returns the number of cuts."""
    halves = Halves(path, "fp32")
    expected: Mapping[str, np.ndarray] = halves.whole_now(0)
    for share in halves.shares[halves.shares > 0]:
        model, tensors = halves.front_now(float(share), 0)
        assert halves.refusal(model, tensors) is None
        result = halves.back_now(model, tensors)
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(result[name], value)
    return len(halves.shares)


def test_an_output_that_is_ready_early_reaches_the_server_and_comes_back(tmp_path: Path):
    nodes = [*CHAIN, node("ReduceSum", "r", "early", keepdims=0), node("MatMul", "y u", "z")]
    path = saved(tmp_path, network(nodes, {"x": (1, 8)}, ["early", "z"], WEIGHTS | {"u": np.eye(4, dtype=np.float32)}))
    assert agree(path) == 4
    halves = Halves(path, "fp32")
    model, tensors = halves.front_now(float(halves.shares[1]), 0)
    assert "early" in tensors
    assert "takes" in (halves.refusal(model, {name: tensors[name] for name in tensors if name != "early"}) or "")


def test_an_output_that_is_a_view_of_the_input_comes_back(tmp_path: Path):
    nodes = [*CHAIN, node("Reshape", "x size", "z")]
    given = WEIGHTS | {"size": np.array([2, 4])}
    assert agree(saved(tmp_path, network(nodes, {"x": (1, 8)}, ["y", "z"], given))) >= 3


def test_weights_in_a_file_of_their_own_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "net.onnx"
    model = network(CHAIN, {"x": (1, 8)}, ["y"], WEIGHTS)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert agree(path) >= 3


def test_an_input_that_nothing_reads_is_given_to_the_whole_network(tmp_path: Path):
    assert agree(saved(tmp_path, network(CHAIN, {"x": (1, 8), "unused": (1, 3)}, ["y"], WEIGHTS))) >= 3


def test_open_sizes_are_to_be_fixed_in_the_file_and_an_open_batch_is_one(tmp_path: Path):
    """There is no flag for them: server and devices compare the file."""
    assert agree(saved(tmp_path, network(CHAIN, {"x": ("N", 8)}, ["y"], WEIGHTS))) >= 3
    path = saved(tmp_path, network([node("Relu", "x", "y")], {"x": (1, "H", "W")}, ["y"]))
    with pytest.raises(InputError, match=r"input 'x' is 1xHxW\); fix them in the file") as raised:
        Halves(path, "fp32")
    assert "shapes" not in str(raised.value)
