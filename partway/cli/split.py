"""`partway split`: the two halves of a network as ONNX files, what they are, and whether they fit."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from partway.cli import flags
from partway.cli.terminal import terminal, working
from partway.dnn.profile import FLOAT_BITS
from partway.errors import InputError, shown

if TYPE_CHECKING:
    from partway.dnn.split import Manifest, SplitCut
    from partway.dnn.verification import Verification
    from partway.text_tables import Grid

DESCRIPTION = (
    "Write the two halves of a network as ONNX files: what the device runs up to a cut, and what the server runs from "
    "the tensors that are sent there. A manifest says what is sent, how large it is and what the files are."
)
EXAMPLES = {
    "All Pareto-optimal cuts, verified": "partway split model.onnx --out halves --verify",
    "One cut, by its number in 'partway profile' and 'partway cut'": "partway split model.onnx --cuts 34 --out halves",
    "The same by the name of its tensor": "partway split model.onnx --cuts relu3 --out halves",
    "Two cuts, the second with two live tensors": "partway split model.onnx --cuts relu3 up+skip --out halves",
    "Send 8 bits per element; measure what that costs on your inputs": (
        "partway split model.onnx --tensor-dtype uint8 --verify --inputs mine --out h"
    ),
    "For Triton, KServe or OpenVINO Model Server": "partway split model.onnx --layout triton --out repository",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway split`."""
    from partway.dnn.profile import DTYPE_BITS  # NumPy, which other commands' help need not wait for

    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    group = parser.add_argument_group("cuts")
    group.add_argument(
        "--cuts",
        nargs="+",
        action="extend",
        metavar="auto|CUT|TENSOR",
        help="'auto', every Pareto-optimal cut, or numbers of cuts as 'partway cut' lists them, or names "
        "of tensors, one cut each; '+' joins those that are sent together (default: auto)",
    )
    group.add_argument(
        "--tensor-dtype",
        choices=list(DTYPE_BITS),
        help="data type in which real numbers are sent; coder and decoder are part of the halves (default: their own)",
    )
    flags.add_inputs(group.add_argument)
    group = parser.add_argument_group("verification")
    group.add_argument("--verify", action="store_true", help="run the halves and compare them with the whole network")
    group.add_argument(
        "--inputs",
        type=Path,
        metavar="DIR",
        help="verify with the inputs in this folder: a .npz file for each, or .npy if the network has one input "
        "(default: random numbers)",
    )
    group = parser.add_argument_group("files")
    group.add_argument(
        "--layout",
        choices=["files", "triton"],
        default="files",
        help="'files', or a model repository for Triton, KServe and OpenVINO Model Server (default: files)",
    )
    group.add_argument(
        "--copy-weights",
        action="store_true",
        help="give each half a copy of the external weights that it reads; weights over 1 GiB are hard links otherwise",
    )
    flags.add_output(parser, out="write the halves to this new folder", required=True, json=False)


def run(options: argparse.Namespace) -> None:
    """Split the network, print what was written."""
    if Path(options.model).suffix.lower() != ".onnx":
        raise InputError(f"a network is split from its .onnx file, got {shown(options.model)}")
    from partway.dnn.split import split

    with working("splitting the network", terminal(errors=True)):
        manifest = split(
            options.model,
            options.out,
            cuts=options.cuts or "auto",
            shapes=flags.one_each("--shape", options.shape),
            values=flags.one_each("--input", options.input),
            tensor_dtype=options.tensor_dtype,
            layout=options.layout,
            copy_weights=options.copy_weights,
            verify=options.verify,
            inputs=options.inputs,
            overwrite=options.overwrite,
        )
    from partway.text_tables import Sentence  # Rich, which --help need not wait for

    console = terminal()
    console.print(_table(manifest))
    for sentence in (*_verified(manifest), *_not_finite(manifest)):
        console.print(Sentence(f"verify: {sentence}"))
    for name, shape in manifest.network.batches.items():
        example = "x".join(["8", *shape.split("x")[1:]])
        words = f"The batch of input '{name}' ({shape}) is fixed at 1; another: --shape {name}={example}"
        console.print(Sentence(words))
    if sentence := _in_own_types(manifest):
        console.print(Sentence(sentence))
    console.print(f"Halves and manifest.json are in {options.out}")


def _table(manifest: "Manifest") -> "Grid":
    from partway.formatting import prefixed
    from partway.text_tables import Grid

    how = f", real numbers sent as {manifest.tensor_dtype}" if manifest.tensor_dtype else ", sent in their own types"
    if any(tensor.is_coded and len(tensor.wires) > 1 for cut in manifest.cuts for tensor in cut.tensors):
        how = f"{how}, with 64 bit a tensor for its range"
    count = f"{len(manifest.cuts)} cut{'s' * (len(manifest.cuts) != 1)}"
    table = Grid(f"{manifest.network.name}: halves of {count}{how}", keys=2)
    table.add_column("cut", "right")
    table.add_column("after", name=True)
    for header in ("front [MAC]", "back [MAC]", "sends [bit]", "front [B]", "back [B]"):
        table.add_column(header, "right")
    for cut in manifest.cuts:
        sizes = (cut.front.macs, cut.back.macs, cut.bits, _bytes(cut, "front"), _bytes(cut, "back"))
        table.add_row("" if cut.number is None else str(cut.number), cut.after, *map(prefixed, sizes))
    return table


def _in_own_types(manifest: "Manifest") -> str | None:
    """That tensors of real numbers are sent as they are, which `partway cut` does not assume."""
    shorter = {tensor.dtype for cut in manifest.cuts for tensor in cut.tensors if FLOAT_BITS.get(tensor.dtype, 0) > 8}
    if manifest.tensor_dtype or not shorter:
        return None
    return (
        f"Tensors are sent as {' and '.join(sorted(shorter))}. 'partway cut' assumes 8 bits per element unless told "
        "otherwise: use --tensor-dtype uint8 here, or --tensor-dtype fp32 there."
    )


def _bytes(cut: "SplitCut", half: str) -> int:
    """The size of a half with its own weights; a linked file is the network's."""
    file = cut.front if half == "front" else cut.back
    return file.bytes + sum(weights.bytes for weights in file.weights if not weights.linked)


def _verified(manifest: "Manifest") -> list[str]:
    """What the verification has found, in one sentence if it is the same for all cuts."""
    found = [(cut, _found(cut.verified)) for cut in manifest.cuts if cut.verified]
    if len({words for _, words in found}) == 1 < len(found):
        return [f"all {len(found)} cuts: {found[0][1]}"]
    return [f"cut {cut.after if cut.number is None else cut.number}: {words}" for cut, words in found]


def _not_finite(manifest: "Manifest") -> list[str]:
    """What the whole network gives that is infinite or NaN, whatever its halves do."""
    verified = next((cut.verified for cut in manifest.cuts if cut.verified), None)
    if verified is None or verified.finite == verified.elements:
        return []
    missing, tried = verified.elements - verified.finite, "inputs" if verified.examples > 1 else "input"
    says = " The comparison says little." if not verified.finite else ""
    return [f"{missing} of {verified.elements} outputs of the whole network are NaN or infinite for the {tried}.{says}"]


def _found(verified: "Verification") -> str:
    tried = f"{verified.examples} input{'s' * (verified.examples != 1)}"
    if verified.exact:
        return f"the halves give the whole network's outputs bit for bit ({tried})"
    if verified.rounding:
        return f"the halves give the whole network's outputs up to float16 rounding ({tried})"
    assert verified.largest_error is not None  # `split` has refused others
    assert verified.mean_error is not None
    errors = f"largest error {verified.largest_error:.3g}, mean error {verified.mean_error:.3g}"
    top1 = "" if verified.top1_agreement is None else f", top-1 agreement {verified.top1_agreement:.2%}"
    return f"{errors}, outputs up to {verified.largest_output:.3g}{top1} ({tried})"
