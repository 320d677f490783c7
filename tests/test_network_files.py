"""Kinds of ONNX files: several live tensors, data types, control flow, open sizes, and what cannot be read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_models import EACH, FULL, IMAGE, SQUARE, Shape, conv, network, node, rows, saved
from test_cli import call

from partway.dnn.graph import load_network, profile_model
from partway.dnn.profile import DTYPE_BITS, Profile, read_profile, write_profile
from partway.dnn.runtime import check, measure
from partway.errors import InputError
from partway.formatting import prefixed

INT32, INT64, INT16 = TensorProto.INT32, TensorProto.INT64, TensorProto.INT16
UINT8, BOOL, HALF, FLOAT = TensorProto.UINT8, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.FLOAT
PHOTO = {"x": (1, 3, 16, 16)}
MATRIX = {"w": (8, 4), "v": (4, 2)}
"""Weights for `MatMul x w -> h` (32 MACs) and `MatMul h v -> y` (8) with x of shape 1 x 8."""


def profiled(folder: Path, model: ModelProto, **how: object) -> Profile:
    return profile_model(saved(folder, model), **how)


def read_text(folder: Path, text: str) -> Profile:
    (folder / "text.csv").write_text(text, encoding="utf-8")
    return read_profile(str(folder / "text.csv"))


def exact(folder: Path, model: ModelProto, **how: object) -> list[bool]:
    return [split.exact for split in check(load_network(saved(folder, model), **how))]


# Several live tensors


def test_a_late_side_input_rides_along(tmp_path: Path):
    """Every cut sends the two integers, 64 bits each, beside its own tensor."""
    nodes = [
        conv("x", "a"),
        node("Relu", "a", "b"),
        node("GlobalAveragePool", "b", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f m", "o"),
        node("Cast", "sizes", "s", to=FLOAT),
        node("Mul", "o s", "y"),
    ]
    model = network(nodes, IMAGE | {"sizes": (1, 2)}, ["y"], SQUARE | {"m": (4, 2)}, types={"sizes": INT64})
    profile = profiled(tmp_path, model)
    assert [cut.after for cut in profile.cuts] == ["x+sizes", "a+sizes", "b+sizes", "g+sizes", "f+sizes", "y"]
    assert profile.bits("uint8").tolist() == [32 * FULL + 128, *[8 * FULL + 128] * 2, 32 + 128, 32 + 128, 0]
    assert exact(tmp_path, model) == [True] * 4


def test_what_a_side_input_becomes_without_work_rides_along_too(tmp_path: Path):
    """The four numbers of `s4` are computed early, and are not a second tensor that would take cuts away."""
    nodes = [
        node("Cast", "sizes", "s", to=FLOAT),
        node("Concat", "s s", "s4", axis=1),
        conv("x", "a"),
        node("Relu", "a", "b"),
        node("GlobalAveragePool", "b", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f m", "o"),
        node("Mul", "o s4", "y"),
    ]
    model = network(nodes, IMAGE | {"sizes": (1, 2)}, ["y"], SQUARE | {"m": (4, 4)}, types={"sizes": INT64})
    sent = {cut.after.split("+")[0]: cut for cut in profiled(tmp_path, model).cuts[1:-1]}
    assert {"a", "b", "g", "f"} <= set(sent)


def test_branches_that_shrink_are_cut_together(tmp_path: Path):
    """Two pooled branches of 4 x 2 x 2 numbers are less than the 4 x 8 x 8 before them; all names are listed."""
    nodes = [
        conv("x", "a"),
        node("Conv", "a w", "b", pads=[1] * 4, strides=[4, 4]),
        node("Conv", "a w", "c", pads=[1] * 4, strides=[4, 4]),
        node("Concat", "b c", "d", axis=1),
        node("Conv", "d k", "y"),
    ]
    model = network(nodes, IMAGE, ["y"], SQUARE | {"k": (2, 8, 1, 1)})
    profile, small = profiled(tmp_path, model), 4 * 2 * 2
    assert rows(profile) == [
        ("x", 0, FULL),
        ("a", EACH, FULL),  # not b+a, which sends all that a sends
        ("c+b", EACH + 2 * small * 36, 2 * small),
        ("d", EACH + 2 * small * 36, 2 * small),
        ("y", EACH + 2 * small * 36 + 4 * 2 * 8, 8),
    ]
    assert [tensor.name for tensor in profile.cuts[2].tensors] == ["c", "b"]
    assert exact(tmp_path, model) == [True] * 3


def test_a_skip_connection_is_part_of_every_cut_that_it_crosses(tmp_path: Path):
    """As in a U-Net: inside the skip every cut sends all that the first one sends, and is left out."""
    nodes = [
        conv("x", "skip"),
        node("MaxPool", "skip", "p", kernel_shape=[2, 2], strides=[2, 2]),
        conv("p", "q"),
        node("Resize", "q _ scales", "u"),
        node("Concat", "u skip", "c", axis=1),
        node("Conv", "c k", "d"),
        node("Conv", "d m", "y"),
    ]
    weights = SQUARE | {"k": (2, 8, 1, 1), "m": (2, 2, 1, 1), "scales": np.array([1, 1, 2, 2], np.float32)}
    model = network(nodes, IMAGE, ["y"], weights)
    assert [cut.after for cut in profiled(tmp_path, model).cuts] == ["x", "skip", "c", "d", "y"]
    assert exact(tmp_path, model) == [True] * 3


def test_state_tensors_ride_along(tmp_path: Path):
    """`present`, an output, is ready early: the server needs it for the rest, and returns it. 32 numbers of q, 96."""
    nodes = [
        node("MatMul", "x wq", "q"),
        node("MatMul", "x wk", "k"),
        node("Concat", "past k", "present", axis=1),
        node("Transpose", "present", "t", perm=[0, 2, 1]),
        node("MatMul", "q t", "s"),
        node("MatMul", "s present", "o"),
        node("MatMul", "o wo", "y"),
    ]
    weights = {"wq": (8, 8), "wk": (8, 8), "wo": (8, 8)}
    model = network(nodes, {"x": (1, 4, 8), "past": (1, 8, 8)}, ["y", "present"], weights)
    profile = profiled(tmp_path, model)
    bits = dict(zip([cut.after for cut in profile.cuts], profile.bits("uint8"), strict=True))
    assert bits["x+past"] == 32 * (32 + 64)
    assert (bits["present+q"], bits["s+present"], bits["o+present"]) == (8 * (96 + 32), 8 * (48 + 96), 8 * (32 + 96))
    assert all(exact(tmp_path, model))


# Data types


def test_views_and_casts_of_the_input_are_the_input(tmp_path: Path):
    """A camera's bytes, channels last: whatever the tensors' type, before the first layer the bytes are sent."""
    nodes = [
        node("Cast", "x", "f", to=FLOAT),
        node("Transpose", "f", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "a"),
        node("Conv", "a v", "y"),
    ]
    weights = {"w": (2, 3, 1, 1), "v": (2, 2, 1, 1)}
    model = network(nodes, {"x": (1, 16, 16, 3)}, ["y"], weights, types={"x": UINT8})
    profile = profiled(tmp_path, model)
    assert [cut.after for cut in profile.cuts] == ["x", "a", "y"]
    assert [profile.bits(dtype)[0] for dtype in DTYPE_BITS] == [8 * 768] * 3
    assert [profile.bits(dtype, 1234.0)[0] for dtype in DTYPE_BITS] == [1234.0] * 3
    assert exact(tmp_path, model) == [True]


def test_a_view_of_the_input_that_is_read_late_costs_what_the_input_costs(tmp_path: Path):
    """The image is added at the end, as in super-resolution: with it no cut sends less than the input."""
    nodes = [node("Transpose", "x", "t", perm=[0, 1, 3, 2]), node("Conv", "x w", "a"), node("Conv", "a v", "b")]
    model = network(
        [*nodes, node("Add", "b t", "c"), node("Conv", "c v", "y")],
        PHOTO,
        ["y"],
        {"w": (3, 3, 1, 1), "v": (3, 3, 1, 1)},
    )
    profile = profiled(tmp_path, model)
    assert [cut.after for cut in profile.cuts] == ["x", "c", "y"]
    assert profile.bits("fp32").tolist() == [8 * 768, 32 * 768, 0]


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(INT16, 16), (INT32, 32), (INT64, 64), (UINT8, 8), (BOOL, 8), (HALF, 16), (FLOAT, 32), (TensorProto.DOUBLE, 64)],
)
def test_an_input_has_the_bits_of_its_own_type(tmp_path: Path, dtype: int, bits: int):
    nodes = [node("Cast", "x", "f", to=FLOAT), node("MatMul", "f w", "h"), node("MatMul", "h v", "y")]
    profile = profiled(tmp_path, network(nodes, {"x": (1, 8)}, ["y"], MATRIX, types={"x": dtype}))
    assert [profile.bits(tensors)[0] for tensors in DTYPE_BITS] == [8 * bits] * 3
    assert [cut.after for cut in profile.cuts] == ["x", "h", "y"]


def test_the_indices_of_words_are_never_sent_in_fewer_bits_than_they_have(tmp_path: Path):
    nodes = [
        node("Cast", "ids", "i", to=INT64),
        node("Gather", "table i", "e"),
        node("MatMul", "e w", "h"),
        node("MatMul", "h v", "y"),
    ]
    model = network(nodes, {"ids": (1, 16)}, ["y"], MATRIX | {"table": (100, 8)}, types={"ids": INT32})
    profile = profiled(tmp_path, model)
    before_work = [bits for cut, bits in zip(profile.cuts, profile.bits("uint8"), strict=True) if not cut.macs]
    assert before_work == [16 * 32, 16 * 8 * 8]


def quantised() -> ModelProto:
    nodes = [
        node("Conv", "x w", "a"),
        node("QuantizeLinear", "a s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Flatten", "d", "e"),
        node("MatMul", "e m", "y"),
    ]
    weights = {"w": (2, 3, 3, 3), "m": (392, 4), "s": np.float32(0.1), "z": np.uint8(128)}
    return network(nodes, PHOTO, ["y"], {name: np.asarray(w) if np.ndim(w) == 0 else w for name, w in weights.items()})


def test_a_quantised_tensor_has_eight_bits_in_every_data_type(tmp_path: Path):
    """2 x 14 x 14 numbers; the server dequantises what was quantised, so that the pair stays with its tensor."""
    profile = profiled(tmp_path, quantised())
    assert [cut.after for cut in profile.cuts] == ["x", "a", "q", "y"]
    assert [profile.bits(dtype)[2] for dtype in DTYPE_BITS] == [8 * 392] * 3
    assert [profile.bits(dtype)[1] for dtype in DTYPE_BITS] == [32 * 392, 16 * 392, 8 * 392]
    assert exact(tmp_path, quantised()) == [True, True]


def test_several_precisions_in_one_network(tmp_path: Path):
    nodes = [
        node("MatMul", "x w", "h"),
        node("Cast", "h", "c", to=HALF),
        node("MatMul", "c v", "d"),
        node("Cast", "d", "e", to=FLOAT),
        node("MatMul", "e u", "y"),
    ]
    weights = {"w": (8, 4), "v": np.ones((4, 2), np.float16), "u": (2, 2)}
    profile = profiled(tmp_path, network(nodes, {"x": (1, 8)}, ["y"], weights))
    assert [cut.after for cut in profile.cuts] == ["x", "h", "c", "d", "e", "y"]
    assert profile.bits("fp32")[1:-1].tolist() == [4 * 32, 4 * 16, 2 * 16, 2 * 32]
    assert profile.bits("fp16")[1:-1].tolist() == [4 * 16, 4 * 16, 2 * 16, 2 * 16]


# Tails and control flow


def chain(*tail: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [node("MatMul", "x w", "h"), node("MatMul", "h v", "s"), *tail]


def branch(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("t", FLOAT, None)])


def tails() -> dict[str, ModelProto]:
    """Networks whose ends have no fixed shape, no numbers or no fixed operations; all do 32 + 8 MACs."""
    labels = np.array(["cat", "dog"], dtype=object)
    either = node(
        "If", "c", "y", then_branch=branch("a", node("Relu", "s", "t")), else_branch=branch("b", node("Neg", "s", "t"))
    )
    decide = [node("ReduceMax", "s", "m", keepdims=0), node("Greater", "m zero", "c")]
    step = [helper.make_tensor_value_info(*each) for each in (("i", INT64, []), ("go", BOOL, []), ("v", FLOAT, None))]
    ends = [helper.make_tensor_value_info(*each) for each in (("on", BOOL, []), ("u", FLOAT, None))]
    body = helper.make_graph([node("Identity", "go", "on"), node("Relu", "v", "u")], "body", step, ends)
    x, zero = {"x": (1, 8)}, {"zero": np.float32(0)}
    return {
        "NonZero": network(chain(node("NonZero", "s", "y")), x, ["y"], MATRIX, types={"y": INT64}),
        "strings": network(
            chain(node("ArgMax", "s", "i", axis=1, keepdims=0), node("Gather", "labels i", "y")),
            x,
            ["y"],
            MATRIX | {"labels": labels},
            types={"y": TensorProto.STRING},
        ),
        "If": network(chain(*decide, either), x, ["y"], MATRIX | {"zero": np.asarray(np.float32(0))}),
        "Loop": network(
            chain(*decide, node("Loop", "n c s", "y", body=body)),
            x,
            ["y"],
            MATRIX | {"zero": np.asarray(zero["zero"]), "n": np.array(3)},
        ),
    }


@pytest.mark.parametrize("name", tails())
def test_a_network_is_not_refused_for_its_tail(tmp_path: Path, name: str):
    model = tails()[name]
    profile = profiled(tmp_path, model)
    assert [(cut.after, cut.macs) for cut in profile.cuts] == [("x", 0), ("h", 32), ("y", 40)]
    assert exact(tmp_path, model) == [True]


def test_an_output_that_is_no_tensor_of_numbers_survives_the_csv_file(tmp_path: Path):
    saved(tmp_path, tails()["strings"])
    assert call("profile", str(tmp_path / "net.onnx"), "--out", str(tmp_path / "out")).code == 0
    assert read_profile(str(tmp_path / "out/net.csv")) == profile_model(tmp_path / "net.onnx")


def test_non_maximum_suppression_comes_after_the_last_cut(tmp_path: Path):
    """Boxes and scores are ready when all work is done: cuts are before."""
    nodes = [
        conv("x", "a"),
        node("Conv", "a wb", "bx"),
        node("Conv", "a ws", "sc"),
        node("Reshape", "bx shape4", "b4"),
        node("Transpose", "b4", "boxes", perm=[0, 2, 1]),
        node("Reshape", "sc shape2", "scores"),
        node("NonMaxSuppression", "boxes scores most", "chosen"),
    ]
    sizes = {"shape4": np.array([1, 4, 64]), "shape2": np.array([1, 2, 64]), "most": np.array([3])}
    weights = SQUARE | {"wb": (4, 4, 1, 1), "ws": (2, 4, 1, 1)} | sizes
    model = network(nodes, IMAGE, ["boxes", "chosen"], weights, types={"chosen": INT64})
    profile = profiled(tmp_path, model)
    assert [(cut.after, cut.macs) for cut in profile.cuts] == [("x", 0), ("a", EACH), ("boxes+chosen", EACH + 6 * 256)]
    assert exact(tmp_path, model) == [True]


def test_the_larger_branch_counts(tmp_path: Path):
    """Branches of 4 x 4 and 4 x 6 weights, of which one is also narrowed to 4: 16 and 24 + 24 MACs."""
    either = node(
        "If",
        "c",
        "i",
        then_branch=branch("a", node("MatMul", "h p", "t")),
        else_branch=branch("b", node("MatMul", "h q", "n"), node("MatMul", "n r", "t")),
    )
    nodes = [node("MatMul", "x w", "h"), node("ReduceMax", "h", "m", keepdims=0), node("Cast", "m", "c", to=BOOL)]
    weights = MATRIX | {"p": (4, 4), "q": (4, 6), "r": (6, 4)}
    model = network([*nodes, either, node("MatMul", "i v", "y")], {"x": (1, 8)}, ["y"], weights)
    profile = profiled(tmp_path, model)
    assert [(cut.after, cut.macs) for cut in profile.cuts if cut.macs] == [("h", 32), ("i", 80), ("y", 88)]
    assert all(exact(tmp_path, model))


def looped(count: str, shape: Shape | None = None) -> ModelProto:
    """A state of 1 x 4 that is multiplied by a 4 x 4 matrix in every iteration."""
    info = helper.make_tensor_value_info
    step = [info("i", INT64, []), info("go", BOOL, []), info("v", FLOAT, shape)]
    ends = [info("on", BOOL, []), info("u", FLOAT, shape)]
    body = helper.make_graph([node("MatMul", "v m", "u"), node("Identity", "go", "on")], "body", step, ends)
    nodes = [node("MatMul", "x w", "h"), node("Loop", f"{count} _ h", "l", body=body), node("MatMul", "l v2", "y")]
    weights = {"w": (8, 4), "m": (4, 4), "v2": (4, 2), "ten": np.array(10)}
    inputs = {"x": (1, 8)} | ({"n": ()} if count == "n" else {})
    return network(nodes, inputs, ["y"], weights, types={"n": INT64})


@pytest.mark.parametrize("shape", [None, (1, 4)])
def test_a_loop_of_fixed_size_is_one_node(tmp_path: Path, shape: Shape | None):
    """Its body does not declare the shape of its state, or does: 10 x 16 MACs."""
    profile = profiled(tmp_path, looped("ten", shape))
    assert rows(profile) == [("x", 0, 8), ("h", 32, 4), ("l", 192, 4), ("y", 200, 2)]
    assert exact(tmp_path, looped("ten", shape)) == [True, True]


def test_a_loop_whose_iterations_are_an_input(tmp_path: Path):
    with pytest.raises(InputError, match=r"iterations of Loop 'l' depend on the data.*values n=VALUE"):
        profiled(tmp_path, looped("n"))
    assert profiled(tmp_path, looped("n"), values={"n": 3}).macs == 32 + 3 * 16 + 8
    assert exact(tmp_path, looped("n"), values={"n": 3}) == [True, True]


def test_a_loop_whose_state_grows_has_no_fixed_work(tmp_path: Path):
    info = helper.make_tensor_value_info
    step, ends = [info("i", INT64, []), info("go", BOOL, []), info("v", FLOAT, None)], [info("on", BOOL, [])]
    grow = [node("MatMul", "v m", "p"), node("Concat", "v p", "u", axis=0), node("Identity", "go", "on")]
    body = helper.make_graph(grow, "body", step, [*ends, info("u", FLOAT, None)])
    nodes = [node("MatMul", "x w", "h"), node("Loop", "ten _ h", "l", body=body), node("ReduceSum", "l", "y")]
    model = network(nodes, {"x": (1, 8)}, ["y"], {"w": (8, 4), "m": (4, 4), "ten": np.array(10)})
    with pytest.raises(InputError, match=r"shape of tensor '[pv]' is not fixed"):
        profiled(tmp_path, model)


def test_a_scan_counts_its_steps(tmp_path: Path):
    """Five steps of a 4 x 4 matrix on a state: 5 x 16, after 5 x 32 and before 5 x 8."""
    info = helper.make_tensor_value_info
    step = [node("MatMul", "s m", "p"), node("Add", "p e", "n"), node("Identity", "n", "o")]
    body = helper.make_graph(
        step, "b", [info("s", FLOAT, None), info("e", FLOAT, None)], [info(n, FLOAT, None) for n in "no"]
    )
    nodes = [
        node("MatMul", "x w", "h"),
        node("Scan", "s0 h", "last all", body=body, num_scan_inputs=1),
        node("MatMul", "all v", "y"),
    ]
    model = network(nodes, {"x": (5, 8)}, ["y"], MATRIX | {"m": (4, 4), "s0": np.zeros(4, np.float32)})
    assert rows(profiled(tmp_path, model)) == [("x", 0, 40), ("h", 160, 20), ("all", 240, 20), ("y", 280, 10)]
    assert exact(tmp_path, model) == [True, True]


def chooses() -> ModelProto:
    """`sr` chooses between 4 x 4 and 4 x 6 weights; what follows fits the first only."""
    either = node(
        "If",
        "c",
        "i",
        then_branch=branch("a", node("MatMul", "h p", "t")),
        else_branch=branch("b", node("MatMul", "h q", "t")),
    )
    nodes = [node("MatMul", "x w", "h"), node("Equal", "sr rate", "c"), either, node("MatMul", "i v", "y")]
    weights = MATRIX | {"p": (4, 4), "q": (4, 6), "rate": np.array([16000])}
    return network(nodes, {"x": (1, 8), "sr": (1,)}, ["y"], weights, types={"sr": INT64})


def test_an_input_that_chooses_a_branch_is_fixed(tmp_path: Path):
    with pytest.raises(InputError, match=r"shape of tensor 'i'.*if 'sr' chooses a branch.*values sr=VALUE"):
        profiled(tmp_path, chooses())
    profile = profiled(tmp_path, chooses(), values={"sr": 16000})
    assert rows(profile) == [("x", 0, 8), ("h", 32, 4), ("i", 48, 4), ("y", 56, 2)]
    assert exact(tmp_path, chooses(), values={"sr": [16000]}) == [True, True]
    with pytest.raises(InputError, match="inconsistent"):
        profiled(tmp_path, chooses(), values={"sr": 8000})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("sr=16000.5", "'sr' has the data type int64, which cannot hold"),
        ("sr=1,2", "does not fit the input 'sr'"),
        ("srr=1", "no input 'srr'; did you mean 'sr'?"),
        ("sr=high", "NAME=NUMBER"),
        ("16000", "NAME=NUMBER"),
    ],
)
def test_a_value_that_an_input_cannot_have(tmp_path: Path, value: str, says: str):
    result = call("profile", str(saved(tmp_path, chooses())), "--input", value)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert says in result.err


def test_a_branch_without_a_name_is_named_by_its_output(tmp_path: Path):
    model = looped("n")
    assert {one.name for one in model.graph.node} == {""}
    with pytest.raises(InputError, match="Loop 'l'"):
        profiled(tmp_path, model)


# Open sizes


def open_network(inputs: dict[str, tuple[int | str | None, ...]], *nodes: onnx.NodeProto) -> ModelProto:
    return network(nodes, inputs, ["y"], {"w": (2, 3, 1, 1), "m": (8, 2)})


IMAGES = node("Conv", "x w", "y")
ROWS = node("MatMul", "x m", "y")
PAIR = node("Add", "x z", "a"), node("MatMul", "a m", "y")


@pytest.mark.parametrize(
    ("inputs", "nodes", "shape"),
    [
        ({"x": ("batch", 3, 8, 8)}, [IMAGES], (1, 3, 8, 8)),
        ({"x": ("N", 3, 8, 8)}, [IMAGES], (1, 3, 8, 8)),
        ({"x": ("x_batch_size", 3, 8, 8)}, [IMAGES], (1, 3, 8, 8)),
        ({"x": (None, 3, 8, 8)}, [IMAGES], (1, 3, 8, 8)),  # no name, but the batch of a convolution
        ({"x": ("p2o.DynamicDimension.0", 3, 8, 8)}, [IMAGES], (1, 3, 8, 8)),
        ({"x": ("unk__12", 8)}, [ROWS], (1, 8)),  # first in the output, too
        ({"x": (5, "batch", 8)}, [ROWS], (5, 1, 8)),
    ],
)
def test_what_is_a_batch_of_one(tmp_path: Path, inputs: dict[str, Shape], nodes: list, shape: Shape):
    assert profiled(tmp_path, open_network(inputs, *nodes)).input_shape == shape


TURNED = node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x t", "y")
HWC = node("Transpose", "x", "t", perm=[2, 0, 1]), node("Unsqueeze", "t axis", "u"), node("Conv", "u w", "y")


@pytest.mark.parametrize(
    ("inputs", "nodes", "asks"),
    [
        ({"x": ("T", 8)}, [ROWS], "Tx8"),
        ({"x": ("frames", 3, 8, 8)}, [IMAGES], "framesx3x8x8"),
        ({"x": ("num_points", 8)}, [ROWS], "num_pointsx8"),
        ({"x": (1, 3, "height", "width")}, [IMAGES], "1x3xheightxwidth"),
        ({"x": (None, 8)}, TURNED, "?x8"),  # compared with each other: no batch
        ({"x": (None, 8, 3)}, HWC, "?x8x3"),
        ({"x": ("batch", "sequence", 8), "z": ("batch", "past", 8)}, PAIR, "1xsequencex8), input 'z' is 1xpastx8"),
    ],
)
def test_what_is_asked_for_in_one_message(tmp_path: Path, inputs: dict[str, Shape], nodes: tuple, asks: str):
    model = network(nodes, inputs, ["y"], {"w": (2, 3, 1, 1), "m": (8, 2), "axis": np.array([0])})
    with pytest.raises(InputError, match=r"sizes are open in the file.*shapes x=") as caught:
        profiled(tmp_path, model)
    assert all(part in str(caught.value) for part in asks.split("), "))


def test_equal_symbols_are_equal_sizes(tmp_path: Path):
    inputs = {"x": ("batch", "sequence", 8), "z": ("batch", "sequence", 8)}
    model = open_network(inputs, *PAIR)
    with pytest.raises(InputError, match=r"shapes x=1x128x8 z=1x128x8$"):
        profiled(tmp_path, model)
    assert profiled(tmp_path, model, shapes={"x": (2, 5, 8)}).cuts[0].tensors[1].elements == 2 * 5 * 8


# Running halves


@pytest.mark.parametrize("dtype", [INT64, INT32, BOOL, UINT8])
def test_scalars_of_whole_numbers_are_drawn(tmp_path: Path, dtype: int):
    nodes = [
        node("Cast", "s", "f", to=FLOAT),
        node("Mul", "x f", "a"),
        node("MatMul", "a w", "h"),
        node("MatMul", "h v", "y"),
    ]
    model = network(nodes, {"s": (), "x": (1, 8)}, ["y"], MATRIX, types={"s": dtype})
    assert all(exact(tmp_path, model))
    assert read_text(tmp_path, write_profile(profile_model(tmp_path / "net.onnx"))).input_shape == ()
    assert measure(load_network(tmp_path / "net.onnx"), runs=1)[-1] > 0


def test_outputs_that_are_inputs_or_constants(tmp_path: Path):
    model = network(chain(), {"x": (1, 8)}, ["s", "x", "labels"], MATRIX | {"labels": np.arange(3.0, dtype=np.float32)})
    assert [cut.after for cut in profiled(tmp_path, model).cuts] == ["x", "h", "s+x+labels"]
    assert exact(tmp_path, model) == [True]
    assert measure(load_network(tmp_path / "net.onnx"), runs=1)[-1] > 0


def test_half_precision_is_exact_up_to_its_rounding(tmp_path: Path):
    weights = {"w": np.linspace(0, 1, 64 * 32).reshape(64, 32), "v": np.linspace(-1, 1, 256).reshape(32, 8)}
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    halves = {name: weight.astype(np.float16) for name, weight in weights.items()}
    path = saved(tmp_path, network(nodes, {"x": (1, 64)}, ["y"], halves, types={"x": HALF, "y": HALF}))
    assert [split.rounding for split in check(load_network(path))] == [True, True]
    result = call("profile", str(path), "--verify")
    assert "2 of 2 cuts reproduce the whole network's output" in result.out
    net = load_network(path)
    (weight,) = (tensor for tensor in net.model.graph.initializer if tensor.name == "v")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float16(1.1), "v"))
    assert [split.rounding for split in check(net)] == [False, False]


def test_weights_outside_and_an_output_without_a_shape(tmp_path: Path):
    path = tmp_path / "net.onnx"
    model = network(chain(), {"x": (1, 8)}, ["s"], MATRIX)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert all(split.exact for split in check(load_network(path)))
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"'weights\.bin', is too short"):
        load_network(path)


@pytest.mark.parametrize("flag", ["--verify", "--time-layers"])
def test_memory_that_cannot_be_had_loses_no_result(tmp_path: Path, flag: str):
    path = saved(tmp_path, network([node("MatMul", "x w", "y")], {"x": (2**40, 4)}, ["y"], {"w": (4, 3)}))
    result = call("profile", str(path), flag, "--out", str(tmp_path / "out"))
    assert (result.code, result.err.count("partway: ")) == (2, 1)
    assert "tensor 'x' alone needs 32768 GiB" in result.err.splitlines()[-1]
    assert "13.19 T multiply-accumulates" in result.out
    assert read_profile(str(tmp_path / "out/net.csv")).macs == 12 * 2**40


def test_a_large_constant_is_neither_folded_nor_computed(tmp_path: Path):
    """10^10 numbers, 40 GB, of which only the sum is used."""
    nodes = [
        node("ConstantOfShape", "shape", "c"),
        node("ReduceSum", "c", "d", keepdims=0),
        node("Add", "x d", "e"),
        *(node("MatMul", "e w", "h"), node("MatMul", "h v", "y")),
    ]
    path = saved(tmp_path, network(nodes, {"x": (1, 8)}, ["y"], MATRIX | {"shape": np.array([10**7, 10**6])}))
    assert profile_model(path).macs == 40
    with pytest.raises(InputError, match="tensor 'c' alone needs 37253 GiB"):
        check(load_network(path))


def test_times_are_stored_in_the_profile(tmp_path: Path):
    path = saved(tmp_path, network(chain(), {"x": (1, 8)}, ["s"], MATRIX))
    result = call("profile", str(path), "--time-layers", "--out", str(tmp_path / "out"))
    seconds = read_profile(str(tmp_path / "out/net.csv")).seconds
    assert "elapsed [ms]" in result.out
    assert seconds is not None
    assert 0 == seconds[0] < seconds[1] < seconds[2] < 10
    # and shown again without the network
    assert "elapsed [ms]" in call("profile", str(tmp_path / "out/net.csv")).out


def test_infinite_outputs_are_compared_without_a_warning(tmp_path: Path):
    """Equal infinities are equal; one beside a number is not."""
    path = saved(
        tmp_path,
        network(chain(node("Div", "s zero", "y")), {"x": (1, 8)}, ["y"], MATRIX | {"zero": np.zeros(2, np.float32)}),
    )
    net = load_network(path)
    assert [(split.exact, split.deviation) for split in check(net)] == [(True, 0.0)]
    (weight,) = (tensor for tensor in net.model.graph.initializer if tensor.name == "zero")
    weight.CopyFrom(numpy_helper.from_array(np.array([0, 1], np.float32), "zero"))
    assert [(split.exact, split.deviation) for split in check(net)] == [(False, np.inf)]


# What cannot be read


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a Git LFS pointer; run `git lfs pull`",
        ),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive, as PyTorch writes; export the network with torch.onnx.export"),
        (b"\x80\x02}q\x00.", "a pickle, as PyTorch writes"),
        (b"<!DOCTYPE html>", "a web page"),
    ],
)
def test_files_that_are_taken_for_networks(tmp_path: Path, content: bytes, says: str):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"net\.onnx") as caught:
        profile_model(tmp_path / "net.onnx")
    assert says in str(caught.value)


@pytest.mark.parametrize(("name", "says"), [("net.pt", "a PyTorch file"), ("net.TFLITE", "a TensorFlow Lite file")])
@pytest.mark.parametrize("command", ["profile", "cut"])
def test_networks_in_other_formats(tmp_path: Path, command: str, name: str, says: str):
    result = call(command, str(tmp_path / name))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"{name}' is {says}, which cannot be read; export the network to an .onnx file" in result.err


def with_input(kind: Callable[..., onnx.TypeProto]) -> ModelProto:
    tensor = helper.make_tensor_type_proto(FLOAT, [1, 8])
    model = network(chain(), {"x": (1, 8)}, ["s"], MATRIX)
    model.graph.input.append(helper.make_value_info("frames", kind(tensor)))
    return model


@pytest.mark.parametrize(
    ("kind", "says"), [(helper.make_sequence_type_proto, "a sequence"), (helper.make_optional_type_proto, "optional")]
)
def test_inputs_that_are_no_tensors(tmp_path: Path, kind: Callable[..., onnx.TypeProto], says: str):
    with pytest.raises(InputError, match=f"input 'frames' is {says}; only tensors are supported"):
        profiled(tmp_path, with_input(kind))


def test_sparse_weights(tmp_path: Path):
    model = network(chain(), {"x": (1, 8)}, ["s"], {"v": (4, 2)})
    values, indices = helper.make_tensor("w", FLOAT, [1], [1.0]), helper.make_tensor("i", INT64, [1], [3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 4]))
    with pytest.raises(InputError, match=r"sparse weights \('w'\), which are not supported; export dense ones"):
        profiled(tmp_path, model)


def test_a_spectrogram_has_half_of_the_spectrum_by_default(tmp_path: Path):
    """Frames of 16 samples every 8 of 64: 7 frames of 9 frequencies, not of 16."""
    nodes = [
        node("STFT", "x step window", "s"),
        node("ReduceL2", "s axis", "p", keepdims=0),
        node("MatMul", "p mel", "y"),
    ]
    weights = {"step": np.array(8), "window": np.ones(16, np.float32), "mel": (9, 4), "axis": np.array([3])}
    model = network(nodes, {"x": (1, 64, 1)}, ["y"], weights)
    assert profiled(tmp_path, model).macs == 7 * 9 * 4
    assert exact(tmp_path, model) == [True, True]


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (1, "1"), (12, "12"), (999, "999"), (1000, "1 k"), (1234.5, "1.234 k"), (65536, "65.54 k")),
        *((999_960, "1.000 M"), (4_089_184_256, "4.089 G"), (1.2e13, "12 T"), (2**53, "9007 T"), (0.25, "0.250")),
    ],
)
def test_numbers_with_a_prefix(value: float, text: str):
    assert prefixed(value) == text


def test_small_networks_have_no_zeros_for_their_work(tmp_path: Path):
    path = saved(tmp_path, network([node("MatMul", "x w", "y")], {"x": (1, 4)}, ["y"], {"w": (4, 3)}))
    out = call("profile", str(path)).out
    assert "12 multiply-accumulates" in out
    assert "0.0 " not in out.replace("100.0", "").replace("0.0%", "")
