"""ONNX files to profiles: MACs by hand, published totals, submodels that equal the network, broken files."""

import importlib
import importlib.util
import io
import re
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_models import EACH, FULL, IMAGE, RNG, SQUARE, Shape, conv, network, node, rows, saved
from rich.console import Console

from partway.dnn.graph import load_network, profile_model, profile_network
from partway.dnn.profile import DTYPE_BITS, Profile, read_profile, shipped_profiles, write_profile
from partway.dnn.report import report, sentences
from partway.dnn.runtime import check, measure, random_inputs
from partway.errors import InputError
from partway.figures.profile import draw
from partway.formatting import prefixed

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
STEADY = settings(derandomize=True, deadline=10_000, suppress_health_check=[HealthCheck.function_scoped_fixture])


def script() -> ModuleType:
    """scripts/make_profiles.py as a module."""
    path = Path(__file__).parents[1] / "scripts/make_profiles.py"
    spec = importlib.util.spec_from_file_location("make_profiles", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_profiles"] = module
    spec.loader.exec_module(module)
    return module


make_profiles = script()


# Multiply-accumulates by hand


@pytest.mark.parametrize(
    ("operator", "inputs", "weights", "macs"),
    [
        # 3x3 output: (9 - (2 (3 - 1) + 1)) / 2 + 1; 6 channels, each of 2 channels x 3 x 3
        (
            node("Conv", "x w", "y", group=2, strides=[2, 2], dilations=[2, 2]),
            {"x": (1, 4, 9, 9)},
            {"w": (6, 2, 3, 3)},
            6 * 9 * 2 * 9,
        ),
        # depthwise: one channel each
        (
            node("Conv", "x w", "y", group=8, pads=[1] * 4),
            {"x": (2, 8, 5, 5)},
            {"w": (8, 1, 3, 3)},
            2 * 8 * 25 * 9,
        ),
        # one dimension; the bias does not count
        (node("Conv", "x w b", "y"), {"x": (1, 2, 10)}, {"w": (3, 2, 4), "b": (3,)}, 3 * 7 * 2 * 4),
        # each of 4 x 25 inputs times 3 channels x 3 x 3
        (node("ConvTranspose", "x w", "y", strides=[2, 2]), {"x": (1, 4, 5, 5)}, {"w": (4, 3, 3, 3)}, 100 * 27),
        # groups: 2 of the 4 output channels
        (node("ConvTranspose", "x w", "y", group=2), {"x": (1, 4, 5, 5)}, {"w": (4, 2, 3, 3)}, 100 * 18),
        (node("Gemm", "x w", "y"), {"x": (5, 7)}, {"w": (7, 3)}, 5 * 7 * 3),
        (node("Gemm", "x w", "y", transA=1, transB=1), {"x": (7, 5)}, {"w": (3, 7)}, 5 * 7 * 3),
        (node("MatMul", "x w", "y"), {"x": (2, 1, 3, 4)}, {"w": (5, 4, 6)}, 2 * 5 * 3 * 4 * 6),
        (node("MatMul", "x w", "y"), {"x": (3, 4)}, {"w": (4,)}, 3 * 4),
        (node("MatMul", "x w", "y"), {"x": (4,)}, {"w": (2, 4, 3)}, 2 * 4 * 3),
        # 5 steps x batch 2, gates of hidden size 4 on 3 inputs and 4 states: 4, 3 and 1 of them
        (
            node("LSTM", "x w r", "y", hidden_size=4),
            {"x": (5, 2, 3)},
            {"w": (1, 16, 3), "r": (1, 16, 4)},
            10 * 16 * 7,
        ),
        (
            node("GRU", "x w r", "y", hidden_size=4),
            {"x": (5, 2, 3)},
            {"w": (1, 12, 3), "r": (1, 12, 4)},
            10 * 12 * 7,
        ),
        (
            node("RNN", "x w r", "y", hidden_size=4, direction="bidirectional"),
            {"x": (5, 2, 3)},
            {"w": (2, 4, 3), "r": (2, 4, 4)},
            10 * 2 * 4 * 7,
        ),
        (node("Einsum", "x w", "y", equation="bij,bjk->bik"), {"x": (2, 3, 4)}, {"w": (2, 4, 5)}, 2 * 3 * 4 * 5),
        (
            node("Einsum", "x w", "y", equation="...ij,jk->...ik"),
            {"x": (2, 6, 3, 4)},
            {"w": (4, 5)},
            12 * 3 * 4 * 5,
        ),
        # 2 heads, 3 queries, 6 keys, head sizes 4 and 5
        (
            node("Attention", "x k v", "y"),
            {"x": (1, 2, 3, 4)},
            {"k": (1, 2, 6, 4), "v": (1, 2, 6, 5)},
            2 * 3 * 6 * (4 + 5),
        ),
    ],
)
def test_macs_by_hand(tmp_path: Path, operator, inputs, weights, macs):
    model = network([operator], inputs, ["y"], weights, opset=23)
    assert profile_model(saved(tmp_path, model)).macs == macs


def test_quantised_operators_count_like_the_others(tmp_path: Path):
    byte = {
        "s": np.float32(0.1),
        "z": np.uint8(0),
        "w": np.ones((3, 2, 3, 3), np.uint8),
        "m": np.ones((5, 4), np.uint8),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearConv", "q s z w s z s z", "c"),
        node("MatMulInteger", "c m", "i"),
        node("Cast", "i", "y", to=TensorProto.FLOAT),
    ]
    model = network(nodes, {"x": (1, 2, 7, 7)}, ["y"], byte)
    assert [cut.macs for cut in profile_model(saved(tmp_path, model)).cuts] == [0, 0, 1350, 1650]


# Positions where one tensor is live


def test_a_residual_block_has_no_cut_inside_that_sends_more_than_the_one_before(tmp_path: Path):
    block = [
        conv("x", "a"),
        conv("a", "b"),
        node("Relu", "b", "c"),
        node("Add", "c a", "d"),
        conv("d", "y"),
    ]
    profile = profile_model(saved(tmp_path, network(block, IMAGE, ["y"], SQUARE)))
    assert rows(profile) == [("x", 0, FULL), ("a", EACH, FULL), ("d", 2 * EACH, FULL), ("y", 3 * EACH, FULL)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 3, 1, 2, 4), (0, 1, 3, 2, 4)])
def test_branches_of_different_depth_in_any_order(tmp_path: Path, order: tuple[int, ...]):
    deep = [conv("a", "b"), conv("b", "c")]
    nodes = [
        conv("x", "a"),
        *deep,
        node("MaxPool", "a", "p", kernel_shape=[1, 1]),
        node("Concat", "c p", "y", axis=1),
    ]
    model = network([nodes[i] for i in order], IMAGE, ["y"], SQUARE)
    profile = profile_model(saved(tmp_path, model))
    assert rows(profile) == [("x", 0, FULL), ("a", EACH, FULL), ("y", 3 * EACH, 2 * FULL)]


def test_constants_are_not_sent(tmp_path: Path):
    nodes = [
        node("Constant", "", "k", value=numpy_helper.from_array(np.ones((1, 4, 8, 8), np.float32))),
        node("ConstantOfShape", "s", "w", value=numpy_helper.from_array(np.full(1, 0.1, np.float32))),
        node("MatMul", "m m", "n"),  # does not depend on the input: runs once, not in every inference
        conv("x", "a"),
        node("Identity", "a", "i"),
        node("Add", "i k", "b"),
        node("Mul", "b n", "c"),
        conv("c", "y"),
    ]
    weights = {"s": np.array([4, 4, 3, 3]), "m": (8, 8)}
    profile = profile_model(saved(tmp_path, network(nodes, IMAGE, ["y"], weights)))
    # a and i are the same tensor
    inner = [(name, EACH, FULL) for name in ("i", "b", "c")]
    assert rows(profile) == [("x", 0, FULL), *inner, ("y", 2 * EACH, FULL)]


def test_shapes_computed_in_the_graph_are_constants(tmp_path: Path):
    nodes = [
        conv("x", "a"),
        node("Shape", "a", "s"),
        node("Gather", "s zero", "batch", axis=0),
        node("Concat", "batch rest", "flat", axis=0),
        node("Reshape", "a flat", "b"),
        node("MatMul", "b f", "y"),
    ]
    weights = SQUARE | {"zero": np.array([0]), "rest": np.array([-1]), "f": (FULL, 10)}
    profile = profile_model(saved(tmp_path, network(nodes, IMAGE, ["y"], weights)))
    assert [cut.after for cut in profile.cuts] == ["x", "a", "b", "y"]
    assert profile.macs == EACH + FULL * 10


def test_absent_inputs_and_outputs_are_not_tensors(tmp_path: Path):
    nodes = [
        node("LSTM", "x w r _ _ h0 c0", "_ h", hidden_size=4),
        node("Clip", "h _ top", "a"),
        node("Clip", "k _ top", "b"),
        node("MatMul", "a b", "y"),
    ]
    weights = {"w": (1, 16, 3), "r": (1, 16, 4), "h0": (1, 2, 4), "c0": (1, 2, 4), "k": (300, 4, 5)}
    top = {"top": np.array(1, np.float32)}
    path = saved(tmp_path, network(nodes, {"x": (5, 2, 3)}, ["y"], weights | top))
    assert [cut.after for cut in profile_model(path).cuts] == ["x", "h", "a", "y"]
    assert [split.exact for split in check(load_network(path))] == [True, True]


def test_the_first_cut_sends_all_inputs_and_an_unread_input_is_live(tmp_path: Path):
    nodes = [conv("x", "a"), node("Relu", "a", "b"), node("Concat", "b late", "c", axis=1), conv("c", "y", "w5")]
    inputs = {"x": (1, 4, 8, 8), "late": (1, 1, 8, 8)}
    profile = profile_model(saved(tmp_path, network(nodes, inputs, ["y"], SQUARE | {"w5": (4, 5, 3, 3)})))
    assert [row[::2] for row in rows(profile)] == [
        *(("x+late", 320), ("a+late", 320), ("b+late", 320)),
        *(("c", 320), ("y", FULL)),
    ]
    assert profile.input_bits == 32 * FULL + 8 * 64  # `late` is a grey image
    assert profile.bits("fp16")[1] == 16 * FULL + 8 * 64


def test_an_early_output_travels_with_the_cut(tmp_path: Path):
    nodes = [conv("x", "a"), node("GlobalAveragePool", "a", "early"), conv("a", "b"), conv("b", "y")]
    path = saved(tmp_path, network(nodes, IMAGE, ["early", "y"], SQUARE))
    profile = profile_model(path)
    assert rows(profile) == [
        ("x", 0, FULL),
        ("a", EACH, FULL),  # not early+a, which sends more after the same work
        ("b+early", 2 * EACH, 4 + FULL),
        ("early+y", 3 * EACH, 4 + FULL),
    ]
    assert [split.exact for split in check(load_network(path))] == [True] * 2


@STEADY
@given(st.lists(st.sampled_from(["conv", "relu", "pool", "deep", "shortcut"]), min_size=1, max_size=8))
def test_the_macs_of_any_chain_add_up(tmp_path: Path, kinds: list[str]):
    nodes, x, done = [conv("x", "t")], "t", [EACH]
    for i, kind in enumerate(kinds):
        y = f"t{i}"
        layers = {
            "conv": [conv(x, y)],
            "relu": [node("Relu", x, y)],
            "pool": [node("MaxPool", x, y, kernel_shape=[3, 3], pads=[1] * 4)],
            "deep": [conv(x, f"{y}m"), conv(f"{y}m", y)],
            "shortcut": [conv(x, f"{y}m"), node("Add", f"{y}m {x}", y)],
        }[kind]
        nodes, x = nodes + layers, y
        each = {"deep": [EACH, 2 * EACH], "relu": [0], "pool": [0]}.get(kind, [EACH])
        done += [done[-1] + more for more in each]
    profile = profile_model(saved(tmp_path, network(nodes, IMAGE, [x], SQUARE)))
    # no cut where no work is left
    assert [cut.macs for cut in profile.cuts] == [0, *(macs for macs in done if macs < done[-1]), done[-1]]


# Published totals and the shipped profiles


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet50", 4089e6),  # torchvision's model table: 4.09 G
        ("vgg19", 19632e6),  # torchvision: 19.63 G
        ("mobilenetv2", 300.8e6),  # Sandler et al. 2018, Table 4: 300 M; torchvision: 0.30 G
        ("densenet121", 2834e6),  # torchvision: 2.83 G
        ("squeezenet", 349e6),  # version 1.1; torchvision: 0.35 G
        ("googlenet", 1.43e9),  # Szegedy et al. 2015: about 1.5 G
    ],
)
def test_published_totals(name: str, published: float):
    assert read_profile(name).macs == pytest.approx(published, rel=1.5e-3)


def test_alexnet_at_the_size_it_was_published_for():
    """Krizhevsky et al. 2012 with the groups of Caffe's version: 724.4 M MACs at 227 x 227."""
    profile = profile_model(LIGHT / "light_bvlc_alexnet.onnx", shapes={"data_0": (1, 3, 227, 227)})
    assert profile.macs == pytest.approx(724.4e6, rel=1e-4)
    assert profile.input_bits == 8 * 3 * 227 * 227


def test_every_network_of_the_script_is_shipped():
    light = {name for name, network in make_profiles.NETWORKS.items() if network.package == "onnx"}
    assert len(light) == len(list(LIGHT.glob("*.onnx")))
    assert set(shipped_profiles()) == {*make_profiles.NETWORKS, "mobilenetv2"}


@pytest.mark.parametrize("name", shipped_profiles())
def test_shipped_profiles_are_sound(name: str):
    profile = read_profile(name)
    macs = [cut.macs for cut in profile.cuts]
    assert macs[0] == 0 < macs[-1]
    assert macs == sorted(macs)
    assert min(tensor.elements for cut in profile.cuts for tensor in cut.tensors) > 0
    assert profile.input_bits == 8 * np.prod(profile.input_shape) == profile.cuts[0].tensors[0].own_bits
    assert max(macs[:-1]) < macs[-1]
    assert all(profile.pareto_optimal(tensor_dtype)[[0, -1]].all() for tensor_dtype in DTYPE_BITS)
    assert "://" not in profile.source


@pytest.mark.parametrize("name", [name for name, n in make_profiles.NETWORKS.items() if n.package == "onnx"])
def test_profiles_of_the_onnx_package_are_reproduced(tmp_path: Path, name: str):
    again, shipped = write_profile(make_profiles.make(name, tmp_path)), write_profile(read_profile(name))
    release = re.compile("(?<=# source: onnx )[^,]+")
    assert release.search(again).group() == version("onnx")
    assert release.sub("", again) == release.sub("", shipped)


def test_mobilenetv2_is_reproduced_and_its_submodels_are_exact(tmp_path: Path):
    assert write_profile(make_profiles.make("mobilenetv2", tmp_path)) == write_profile(read_profile("mobilenetv2"))
    assert has_informative_output(tmp_path / "mobilenetv2.onnx")
    splits = check(load_network(tmp_path / "mobilenetv2.onnx"), limit=10)
    assert [split.exact for split in splits] == [True] * 10


# Running submodels


def with_random_weights(path: Path) -> ModelProto:
    """A stub network with random weights in place of its constants, so that its outputs differ from each other."""
    model = onnx.load(path)
    model.ir_version = 8
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    stubs = [one for one in model.graph.node if one.op_type == "ConstantOfShape"]
    for stub in stubs:
        shape = shapes[stub.input[0]]
        # a vector is a bias, or scale and variance of a normalisation, which must be positive
        is_vector = len(shape) == 1
        values = RNG.uniform(0.5, 1.5, shape) if is_vector else RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), stub.output[0]))
        model.graph.node.remove(stub)
    return model


def has_informative_output(path: Path) -> bool:
    """Whether the output is finite and not constant, so that a comparison of outputs is meaningful."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, random_inputs(load_network(path)))
    return bool(np.all(np.isfinite(output)) and np.std(output) > 0)


def test_all_submodels_of_squeezenet_are_exact(tmp_path: Path):
    path = saved(tmp_path, with_random_weights(LIGHT / "light_squeezenet.onnx"))
    net = load_network(path)
    splits = check(net)
    assert has_informative_output(path)
    assert [split.cut for split in splits] == list(range(1, len(net.positions) + 1))
    assert [cut.after for cut in profile_network(net).cuts[1:-1]] == [split.after for split in splits]
    assert all(split.exact and split.deviation == 0.0 for split in splits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "shufflenet", "inception_v1", "densenet121"])
def test_all_submodels_of_larger_networks_are_exact(tmp_path: Path, name: str):
    path = saved(tmp_path, with_random_weights(LIGHT / f"light_{name}.onnx"))
    splits = check(load_network(path))
    assert has_informative_output(path)
    assert len(splits) > 20
    assert all(split.exact for split in splits)


def test_a_wrong_submodel_is_detected(tmp_path: Path):
    net = load_network(saved(tmp_path, network([conv("x", "a"), conv("a", "y")], IMAGE, ["y"], SQUARE)))
    (weight,) = net.model.graph.initializer
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + 1e-3, weight.name))
    (split,) = check(net)
    assert not split.exact
    assert split.deviation > 0


def test_check_spaces_the_cuts_evenly(tmp_path: Path):
    chain = [conv("x", "t0"), *(node("Relu", f"t{i}", f"t{i + 1}") for i in range(8)), conv("t8", "y")]
    net = load_network(saved(tmp_path, network(chain, IMAGE, ["y"], SQUARE)))
    assert [split.cut for split in check(net, limit=3)] == [1, 5, 9]
    assert len(check(net, limit=100)) == 9


def test_measured_times_belong_to_their_segments(tmp_path: Path):
    """A convolution between two small layers takes most of the time; onnxruntime has no kernel for HardSwish."""
    nodes = [
        node("HardSwish", "x", "a"),
        conv("a", "b"),
        node("HardSwish", "b", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Conv", "d v", "y"),
    ]
    weights = {"w": (16, 16, 3, 3), "v": (2, 16, 1, 1)}
    net = load_network(saved(tmp_path, network(nodes, {"x": (1, 16, 64, 64)}, ["y"], weights)))
    seconds = measure(net, runs=5)
    assert [position.tensors for position in net.positions] == [("a",), ("b",), ("c",), ("d",)]
    assert seconds.shape == (len(net.positions) + 2,)
    assert seconds[0] == 0
    assert np.all(np.diff(seconds) > 0)
    assert np.argmax(np.diff(seconds)) == 1
    assert np.array_equal(profile_network(net).with_seconds(seconds).seconds, seconds)


def test_weights_in_an_external_file(tmp_path: Path):
    model = network([conv("x", "a"), conv("a", "y")], IMAGE, ["y"], SQUARE)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 8, 8)))
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    net = load_network(path)
    assert [split.exact for split in check(net)] == [True]
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weights\.bin"):
        load_network(path)


# Shapes, bits and names


def test_an_open_batch_size_becomes_one(tmp_path: Path):
    path = saved(tmp_path, network([conv("x", "y")], {"x": ("batch", 4, 8, 8)}, ["y"], SQUARE))
    assert profile_model(path).input_shape == (1, 4, 8, 8)
    assert profile_model(path, shapes={"x": (2, 4, 8, 8)}).macs == 2 * EACH


@pytest.mark.parametrize(
    ("shape", "bits_each"),
    [((1, 3, 32, 32), 8), ((1, 32, 32, 3), 8), ((2, 1, 28, 28), 8), ((1, 4, 32, 32), 32), ((1, 64, 1, 1), 32)],
)
def test_bits_of_the_input(tmp_path: Path, shape: Shape, bits_each: int):
    path = saved(tmp_path, network([node("MatMul", "x w", "y")], {"x": shape}, ["y"], {"w": (shape[-1], 2)}))
    assert profile_model(path).input_bits == bits_each * np.prod(shape)
    assert profile_model(path, input_bits=1234.5).input_bits == 1234.5
    with pytest.raises(InputError, match="input_bits"):
        profile_model(path, input_bits=-1)


def test_strange_names_survive_the_csv_file(tmp_path: Path):
    strange = 'a,"b\n#é\u2028[red]'
    path = saved(tmp_path, network([conv("x", "s"), conv("s", "y")], IMAGE, ["y"], SQUARE))
    model = onnx.load(path)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = strange
    path = saved(tmp_path, model, "my, net: 1.onnx")
    profile = profile_model(path)
    (tmp_path / "out.csv").write_text(write_profile(profile), encoding="utf-8")
    assert rows(read_profile(str(tmp_path / "out.csv"))) == rows(profile)
    assert profile.cuts[1].after == "a__b__é__red_"
    assert profile.name == "my__net:_1"


@pytest.mark.parametrize("cause", [RuntimeError("no"), KeyError("no"), RuntimeWarning("no")])
def test_if_onnxslim_fails_the_original_graph_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception):
    def fail(*_: object, **__: object) -> None:
        raise cause

    path = saved(tmp_path, network([conv("x", "a"), conv("a", "y")], IMAGE, ["y"], SQUARE))
    expected = profile_model(path)
    monkeypatch.setattr("onnxslim.slim", fail)
    assert profile_model(path) == expected


# Invalid files


def control_flow() -> dict[str, ModelProto]:
    """Models with an If and a Loop that depend on the input."""
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([node("Relu", "a", "z")], "branch", [], [output])
    step = [helper.make_tensor_value_info(*each) for each in (("i", 7, []), ("go", 9, []), ("v", 1, None))]
    ends = [helper.make_tensor_value_info("on", 9, []), output]
    body = helper.make_graph([node("Identity", "go", "on"), node("Relu", "v", "z")], "body", step, ends)
    start = [conv("x", "a"), node("ReduceMax", "a", "m", keepdims=0), node("Cast", "m", "t", to=TensorProto.BOOL)]
    either = node("If", "t", "y", then_branch=branch, else_branch=branch)
    loop = node("Loop", "n t a", "y", body=body)
    return {
        "if": network([*start, either], IMAGE, ["y"], SQUARE),
        "loop": network([*start, loop], IMAGE, ["y"], SQUARE | {"n": np.array(3)}),
    }


BROKEN = {
    "random.onnx": RNG.bytes(4000),
    "empty.onnx": b"",
    "text.onnx": b"This is not a network.\nIt is text.\n",
    "page.onnx": b"<!DOCTYPE html>\n<html></html>\n",
    "truncated.onnx": network([conv("x", "y")], IMAGE, ["y"], SQUARE).SerializeToString()[:-100],
    "zip.onnx": b"PK\x03\x04" + bytes(200),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_a_network(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=name) as caught:
        profile_model(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "missing.onnx"])
def test_a_path_that_is_not_a_file(tmp_path: Path, name: str):
    with pytest.raises(InputError):
        profile_model(tmp_path / name)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (network([conv("x", "y")], {"x": (1, 4, "h", "w")}, ["y"], SQUARE), "shapes x=1x4x224x224"),
        (network([node("Relu", "x", "y")], {"x": ("seq_len", 4)}, ["y"]), "seq_lenx4"),
        (network([node("Relu", "x", "y")], {"x": (1, 4)}, ["y"]), "0 multiply-accumulates"),
        (network([conv("x", "y")], {"x": (1, 5, 8, 8)}, ["y"], SQUARE), "sizes 5 and 4"),
        (network([node("MatMul", "x w", "y")], {"x": (3, 5)}, ["y"], {"w": (4, 2)}), "inconsistent"),
        (network([node("Nonsense", "x", "y")], IMAGE, ["y"]), "Nonsense"),
        (
            network(
                [conv("x", "a"), node("NonZero", "a", "b"), node("Cast", "b", "c", to=1), node("MatMul", "c m", "y")],
                IMAGE,
                ["y"],
                SQUARE | {"m": (5, 2)},
            ),
            "shape of tensor 'c'",
        ),
        (network([conv("x", "y")], {"x": (2**40, 4, 8, 8)}, ["y"], SQUARE), "multiply-accumulates"),
    ],
)
def test_a_network_that_cannot_be_cut(tmp_path: Path, model: ModelProto, says: str):
    with pytest.raises(InputError, match=says) as caught:
        profile_model(saved(tmp_path, model))
    assert "\n" not in str(caught.value)


def test_non_standard_operators_are_refused(tmp_path: Path):
    model = network([conv("x", "a"), node("Gelu", "a", "y", domain="com.microsoft")], IMAGE, ["y"], SQUARE)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(InputError, match=r"com\.microsoft\.Gelu"):
        profile_model(saved(tmp_path, model))


@pytest.mark.parametrize("shapes", [{"X": (1, 4, 8, 8)}, {"x": (1, 4, 8)}, {"x": (1, 4, 8, 0)}, {"x": ()}])
def test_shapes_that_do_not_match_the_network(tmp_path: Path, shapes: dict[str, Shape]):
    path = saved(tmp_path, network([conv("x", "y")], IMAGE, ["y"], SQUARE))
    with pytest.raises(InputError, match="shapes"):
        profile_model(path, shapes=shapes)


VALID = network(
    [conv("x", "a"), node("Relu", "a", "b"), node("Reshape", "b s", "c"), node("MatMul", "c f", "y")],
    {"x": ("N", 4, 8, 8)},
    ["y"],
    {"w": (2, 4, 3, 3), "s": np.array([1, -1]), "f": (128, 3)},
).SerializeToString()
# most bytes are weights: half of the changes are made elsewhere
STRUCTURE = [i for i in range(len(VALID)) if i < 150 or i > len(VALID) - 60]


@settings(STEADY, max_examples=200)
@given(
    st.lists(
        st.tuples(st.one_of(st.sampled_from(STRUCTURE), st.integers(0, len(VALID) - 1)), st.binary(max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_changed_bytes_give_a_profile_or_a_one_line_error(tmp_path: Path, changes: list[tuple[int, bytes]]):
    raw = bytearray(VALID)
    for index, new in changes:
        raw[index : index + 1] = new
    (tmp_path / "changed.onnx").write_bytes(raw)
    message = ""
    try:
        profile_model(tmp_path / "changed.onnx")
    except InputError as error:
        message = str(error)
    assert "\n" not in message


def test_split_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch):
    importlib.import_module("partway.dnn.split")
    for name in ("split", "boundary", "control_flow"):
        monkeypatch.delitem(sys.modules, f"partway.dnn.{name}")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'partway\[onnx\]'"):
        importlib.import_module("partway.dnn.split")


def test_shipped_profiles_need_no_onnx(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "partway.dnn.graph")
    with pytest.raises(InputError, match=r"pip install 'partway\[onnx\]'"):
        importlib.import_module("partway.dnn.graph")
    assert read_profile("resnet50").macs > 0


# Report and figure


def printed(profile: Profile, tensor_dtype: str, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    report(profile, tensor_dtype, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_marks_the_pareto_optimal_cuts():
    profile = read_profile("resnet50")
    text = printed(profile, "uint8")
    marked = [line.split()[0] for line in text.splitlines() if line.endswith(" yes")]
    assert marked == [str(i) for i in np.flatnonzero(profile.pareto_optimal("uint8"))]
    assert "R^2 = 0.67" in text
    assert "4.089 G multiply-accumulates" in text


def test_the_table_adds_up_measured_seconds():
    profile = read_profile("squeezenet")
    text = printed(profile.with_seconds(1e-3 * np.arange(len(profile.cuts))), "fp16")
    cells = [line.removesuffix("yes").split() for line in text.splitlines() if re.match(r" *\d+ .*%", line)]
    since, done = ([float(row[column]) for row in cells] for column in (-2, -1))
    assert sum(since) == pytest.approx(len(profile.cuts) - 1)
    assert done == pytest.approx(np.cumsum(since))


@pytest.mark.parametrize("width", [100, 80, 60, 30])
def test_no_number_of_a_profile_is_cut_at_any_width(width: int):
    """A hundred million MACs, a name of 200 characters, times in milliseconds."""
    profile = read_profile("vgg19")
    names = [f"{i}/{'long_name/' * 20}{i}" for i in range(len(profile.cuts))]
    cuts = [
        replace(cut, tensors=(replace(cut.tensors[0], name=name), *cut.tensors[1:]))
        for cut, name in zip(profile.cuts, names, strict=True)
    ]
    profile = replace(profile, cuts=tuple(cuts)).with_seconds(1.234567 * np.arange(len(cuts)))
    text = printed(profile, "fp32", width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.replace(",", "").split())
    for value in [*(cut.macs for cut in cuts), *profile.bits("fp32")]:
        assert prefixed(value) in words
    assert f"{1234.567 * (len(cuts) - 1):.3f}" in words


def test_a_network_without_an_inner_pareto_optimal_cut(tmp_path: Path):
    path = saved(tmp_path, network([conv("x", "a"), node("Relu", "a", "y")], IMAGE, ["y"], SQUARE))
    assert any("No inner cut" in sentence for sentence in sentences(profile_model(path), "fp32"))


@pytest.mark.parametrize("tensor_dtype", DTYPE_BITS)
@pytest.mark.parametrize("name", ["resnet50", "ppocr-det"])
def test_the_figure_shows_all_cuts(name: str, tensor_dtype: str):
    profile = read_profile(name)
    (axes,) = draw(profile, tensor_dtype).axes
    points = axes.lines[0].get_xydata()
    assert np.allclose(points, np.stack([1 - profile.share(), profile.bits(tensor_dtype)], axis=1)[:-1])
    assert axes.get_yscale() == "log"
    assert axes.lines[1].get_ydata()[0] == pytest.approx(profile.law_slope(tensor_dtype))
    draw(profile, tensor_dtype).savefig(io.BytesIO(), format="svg")


def test_the_law_drawn_is_the_best_line():
    """Its slope has the R^2 of `Profile.proportionality`; any other fits worse."""
    profile = read_profile("vgg19")
    share, bits = profile.share()[:-1], profile.bits("uint8")[:-1]
    slope = profile.law_slope("uint8")
    errors = [np.sum((bits - factor * slope * share) ** 2) for factor in (0.99, 1.0, 1.01)]
    assert np.argmin(errors) == 1
    assert 1 - errors[1] / np.sum((bits - bits.mean()) ** 2) == pytest.approx(profile.proportionality("uint8"))


def test_a_network_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("partway.files.MAX_STREAM", 10**6)
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"cannot read .*: it has more than 1000000 bytes"):
        profile_model(tmp_path / "zero.onnx")
