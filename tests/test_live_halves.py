"""The halves that run live, of networks with what files bring: outputs that are ready early, weights outside."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import any_size, network, node, saved

from partway.errors import InputError
from partway.live.halves import Halves

MATRICES = {"w": np.linspace(-1, 1, 48).reshape(8, 6), "v": np.linspace(1, -1, 24).reshape(6, 4)}
WEIGHTS = {name: matrix.astype(np.float32) for name, matrix in MATRICES.items()}
CHAIN = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]


def agree(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> int:
    """Every cut gives the whole network's outputs; returns the number of cuts."""
    halves = Halves(path, "fp32", shapes=shapes)
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


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 3, 12, 10), (4, 3, 8, 8)])
def test_open_sizes_are_given(tmp_path: Path, shape: tuple[int, ...]):
    path = saved(tmp_path, any_size())
    assert agree(path, {"x": shape}) >= 4
    halves = Halves(path, "fp16", shapes={"x": shape})
    assert halves.inputs(0)["x"].shape == shape
    assert halves.profile.macs == (3 * 9 * 4 + 4 * 6 / 4) * np.prod([shape[0], *shape[2:]]) + shape[0] * 6 * 5
    model, tensors = halves.front_now(1.0, 0)
    assert tensors["x"].shape == shape
    other = Halves(path, "fp16", shapes={"x": (2, 3, 8, 8)}).front_now(1.0, 0)[1]
    assert f"takes x uint8[{', '.join(map(str, shape))}]" in (halves.refusal(model, other) or "")


def test_sizes_that_stay_open_are_asked_for_and_an_open_batch_is_one(tmp_path: Path):
    assert agree(saved(tmp_path, network(CHAIN, {"x": ("N", 8)}, ["y"], WEIGHTS))) >= 3
    path = saved(tmp_path, any_size())
    with pytest.raises(InputError, match=r"input 'x' is 1x3xHxW\); fix them, such as by shapes x=1x3x224x224"):
        Halves(path, "fp32")
    with pytest.raises(InputError, match="input 'x' has the shape Nx3xHxW in the file, got 8x8"):
        Halves(path, "fp32", shapes={"x": (8, 8)})


def test_networks_are_the_same_if_files_and_shapes_are(tmp_path: Path):
    """A batch of 1 may be given or not; the weights count in a file of their own, too."""
    path = saved(tmp_path, any_size())

    def sha256(*shape: int) -> str:
        return Halves(path, "fp32", shapes={"x": shape}).sha256

    assert sha256(1, 3, 8, 8) == sha256(1, 3, 8, 8)
    assert len({sha256(1, 3, 8, 8), sha256(1, 3, 8, 12), sha256(2, 3, 8, 8)}) == 3
    batch = saved(tmp_path, network(CHAIN, {"x": ("N", 8)}, ["y"], WEIGHTS))
    assert Halves(batch, "fp32").sha256 == Halves(batch, "fp32", shapes={"x": (1, 8)}).sha256
    model = network(CHAIN, {"x": (1, 8)}, ["y"], WEIGHTS)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = Halves(tmp_path / "net.onnx", "fp32").sha256
    values = np.fromfile(tmp_path / "weights.bin", np.float32)
    (2 * values).tofile(tmp_path / "weights.bin")
    assert Halves(tmp_path / "net.onnx", "fp32").sha256 != before


def test_an_input_that_is_always_the_same_is_part_of_the_network(tmp_path: Path):
    nodes = [node("Mul", "x gain", "s"), node("MatMul", "s w", "h"), *CHAIN[1:]]
    path = saved(tmp_path, network(nodes, {"x": (1, 8), "gain": (1, 1)}, ["y"], WEIGHTS))
    one, two = (Halves(path, "fp32", values={"gain": gain}) for gain in (1, 2))
    assert one.given == "x=1x8, gain=1.0"
    assert one.sha256 != two.sha256
    given = one.inputs(0)
    assert set(given) == {"x"}
    np.testing.assert_allclose(two.whole_now(0, given)["y"], 2 * one.whole_now(0, given)["y"], rtol=1e-6)


def test_devices_have_different_random_inputs(tmp_path: Path):
    halves = Halves(saved(tmp_path, network(CHAIN, {"x": (1, 8)}, ["y"], WEIGHTS)), "fp32")
    drawn = [halves.inputs(number, device)["x"].tobytes() for device in range(3) for number in range(3)]
    assert len(set(drawn)) == 9
    for device in range(2):
        _, outputs = halves.front_now(0.0, 1, device=device)
        np.testing.assert_array_equal(outputs["y"], halves.whole_now(0, halves.inputs(1, device))["y"])
