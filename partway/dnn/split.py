"""Splits an ONNX file: the two halves of each cut as files, what they are in a manifest, and proof that they fit.

`split` is `partway split`. Its folder holds `manifest.json` (`Manifest`) and

    CUT/front.onnx, CUT/back.onnx       with the layout "files"
    NETWORK-CUT-front/1/model.onnx      with the layout "triton": a model repository for Triton, KServe and, with
    NETWORK-CUT-front/config.pbtxt      config.json, OpenVINO Model Server; the same for back
    config.json
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partway import arguments, files
from partway.arguments import named
from partway.dnn.profile import DTYPE_BITS, clean_name, clean_text
from partway.errors import InputError, shorten
from partway.provenance import PACKAGE
from partway.provenance import version as partway_version

try:
    from onnx import ModelProto, ValueInfoProto

    from partway.dnn import triton, weights
    from partway.dnn.boundary import AUTO, Boundary, Cuts, boundaries
    from partway.dnn.coding import Sent, dtype_name
    from partway.dnn.graph import Network, load_network
    from partway.dnn.halves import BACK, FRONT, Cutter, Halves
except ImportError as error:
    raise InputError(f"{error}: ONNX files need the extra packages of `pip install 'partway[onnx]'`") from None

if TYPE_CHECKING:
    from partway.dnn.inputs import Value
    from partway.dnn.macs import Shape
    from partway.dnn.verification import Reference, Verification

MANIFEST = "manifest.json"
KIND = "split"
"""Of its folder: only this command replaces it."""
SCHEMA_VERSION = 1
"""Schema version of the manifest; increment when a field is renamed."""
LIBRARIES = (PACKAGE, "onnx", "onnx-ir", "onnxslim", "onnxruntime")
LAYOUTS = ("files", "triton")
EMBED, LINK, COPY = "embed", "link", "copy"
"""What becomes of external weights."""
MODEL_FILES = (f"{FRONT}.onnx", f"{BACK}.onnx", triton.MODEL)
"""Names of the halves, in the two layouts."""
CARRIED = {"fp32": "3.4e38", "fp16": "65504", "uint8": "a range of 3.4e38"}
"""Largest values that a data type can carry."""
MAX_NAME = 60
"""Characters of a name that are kept in the name of a folder."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the network. A size is None where it depends on the data, the shape where its rank does."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class NetworkFile:
    """The network that was split.

    file     its name, without the folder
    macs     its multiply-accumulates
    batches  inputs whose batch is open in the file and is 1 in the halves -> their shapes in the file
    """

    name: str
    file: str
    sha256: str
    macs: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batches: Mapping[str, str]


@dataclass(frozen=True)
class Weights:
    """A file of weights beside a half.

    linked  whether it is a hard link to the network's own file; then nothing of it was read, and it has no `sha256`
    """

    file: str
    bytes: int
    linked: bool
    sha256: str | None


@dataclass(frozen=True)
class HalfFile:
    """One half. Files are relative to the folder of the manifest; `inputs` and `outputs` are in the model's order."""

    file: str
    sha256: str
    bytes: int
    macs: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[Weights, ...]


@dataclass(frozen=True)
class SplitCut:
    """A cut and its files.

    number    of the cut in the network's profile; None if it is not listed there
    bits      [bit] what is sent, the sum over `tensors`
    outputs   name of every output of the network -> "front" or "back", the half that gives it, or "input"
    verified  None where that was not asked for
    """

    number: int | None
    after: str
    bits: int
    tensors: "tuple[Sent, ...]"
    outputs: Mapping[str, str]
    front: HalfFile
    back: HalfFile
    verified: "Verification | None"

    @property
    def halves(self) -> tuple[HalfFile, HalfFile]:
        """Front and back."""
        return self.front, self.back


@dataclass(frozen=True)
class Manifest:
    """What a split has written. `tensor_dtype`: None if every tensor is sent in its own data type."""

    network: NetworkFile
    tensor_dtype: str | None
    layout: str
    versions: Mapping[str, str]
    cuts: tuple[SplitCut, ...]

    def document(self) -> dict[str, Any]:
        """The manifest in JSON types, with the bits of every tensor."""
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        for cut, entry in zip(self.cuts, document["cuts"], strict=True):
            for tensor, described in zip(cut.tensors, entry["tensors"], strict=True):
                described["bits"] = tensor.bits
                for wire, sent in zip(tensor.wires, described["wires"], strict=True):
                    sent["bits"] = wire.bits
        return document


def split(
    path: str | Path,
    out: str | Path,
    *,
    cuts: Cuts = AUTO,
    shapes: "Mapping[str, Shape] | None" = None,
    values: "Mapping[str, Value] | None" = None,
    tensor_dtype: str | None = None,
    layout: str = "files",
    copy_weights: bool = False,
    verify: bool = False,
    inputs: str | Path | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write the two halves of each cut of an ONNX file into the new folder `out`; returns its manifest.

    cuts            as in `partway.dnn.boundary:boundaries`
    shapes, values  of inputs, as in `partway.dnn.graph:load_network`
    tensor_dtype    "fp32", "fp16" or "uint8", in which real numbers are sent if that takes fewer bits; None: their own
    layout          "files" or "triton"
    copy_weights    copy external weights that are too large for a model file. Otherwise they are hard links
    verify          run both halves and compare their outputs with the whole network's
    inputs          a folder of inputs to verify with, as in `partway.dnn.verification:Reference`

    Raises InputError if the file is not an ONNX network, cannot be cut there or is not supported by the layout, and if
    the folder cannot be written. `verify` also raises it if outputs differ from the network's; with a `tensor_dtype`
    only if they have another shape or are not finite.
    """
    arguments.choice(named("tensor_dtype"), tensor_dtype, [None, *DTYPE_BITS])
    arguments.choice(named("layout"), layout, LAYOUTS)
    path, out = (arguments.path(named(name), given) for name, given in (("path", path), ("out", out)))
    for name, given in (("copy_weights", copy_weights), ("verify", verify), ("overwrite", overwrite)):
        arguments.flag(named(name), given)
    if inputs is not None and not verify:
        raise InputError(f"{named('inputs')} needs {named('verify')}")
    inputs = None if inputs is None else arguments.path(named("inputs"), inputs)
    with files.new_folder(out, overwrite, KIND) as folder:
        network = load_network(path, shapes, values)
        chosen = boundaries(network, cuts, tensor_dtype)
        writer = _Writer(network, folder, layout, copy_weights, _reference(network, inputs) if verify else None)
        written = tuple(writer.write(boundary, tensor_dtype) for boundary in chosen)
        if layout == "triton":
            triton.write_server_config(folder)
        versions = {name: _version(name) for name in LIBRARIES}
        manifest = Manifest(_network_file(network), tensor_dtype, layout, versions, written)
        text = json.dumps(manifest.document(), indent=1, allow_nan=False)
        (folder / MANIFEST).write_text(f"{text}\n", "utf-8")
    return manifest


def _reference(network: Network, inputs: str | Path | None) -> "Reference":
    from partway.dnn.verification import Reference  # needs onnxruntime, which takes a moment to import

    return Reference(network, None if inputs is None else Path(inputs))


def _version(library: str) -> str:
    return partway_version() if library == PACKAGE else version(library)


def _network_file(network: Network) -> NetworkFile:
    graph = network.model.graph
    inputs, outputs = (tuple(map(_info, values)) for values in (graph.input, graph.output))
    digest = _sha256(network.path)
    return NetworkFile(
        _network_name(network), network.path.name, digest, network.macs, inputs, outputs, network.batches
    )


def _network_name(network: Network) -> str:
    return _safe(clean_name(network.path.stem)) or "network"


def _info(value: ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorInfo(value.name, dtype_name(tensor.elem_type), sizes if tensor.HasField("shape") else None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Writer:
    """Writes the halves of one network into a folder."""

    def __init__(self, network: Network, folder: Path, layout: str, copy_weights: bool, reference: "Reference | None"):
        self._network, self._folder, self._layout, self._reference = network, folder, layout, reference
        self._cutter, self._taken = Cutter(network), set[str]()
        external = weights.external_bytes(network.model)
        fits = network.path.stat().st_size + external <= weights.EMBEDDED_BYTES
        self._weights = COPY if copy_weights else EMBED if fits else LINK
        self._links = weights.link_names(network.model, MODEL_FILES)

    def write(self, boundary: Boundary, tensor_dtype: str | None) -> SplitCut:
        """Write the halves of one cut, and verify them."""
        halves, name = self._cutter.halves(boundary, tensor_dtype), self._free(_safe(clean_name(boundary.after)))
        models = dict(zip((FRONT, BACK), (halves.front, halves.back), strict=True))
        paths = {half: self._path(name, half) for half in models}
        written = {
            half: self._write(models[half], paths[half], macs)
            for half, macs in zip((FRONT, BACK), boundary.macs, strict=True)
        }
        verified = self._verified(boundary, halves, paths, tensor_dtype)
        after = clean_text(boundary.after)
        about = (boundary.number, after, halves.bits, halves.sent, halves.outputs)
        return SplitCut(*about, written[FRONT], written[BACK], verified)

    def _free(self, name: str) -> str:
        """A name that no other cut has, also on a file system that does not tell capitals from small letters."""
        free, count = name or "cut", 1
        while free.casefold() in self._taken:
            count += 1
            free = f"{name or 'cut'}_{count}"
        self._taken.add(free.casefold())
        return free

    def _path(self, name: str, half: str) -> Path:
        if self._layout == "files":
            return self._folder / name / f"{half}.onnx"
        return triton.model_file(self._folder, f"{_network_name(self._network)}-{name}-{half}")

    def _write(self, model: ModelProto, path: Path, macs: int) -> HalfFile:
        source = self._network.path.parent
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._weights == EMBED:
            weights.embed(model, source)
        beside = {
            EMBED: lambda: list[weights.WeightFile](),
            LINK: lambda: weights.link(model, source, path.parent, self._links),
            COPY: lambda: weights.copy(model, source, path.with_name(f"{path.name}.data")),
        }[self._weights]()
        raw = model.SerializeToString(deterministic=True)
        path.write_bytes(raw)
        if self._layout == "triton":
            triton.write_model_config(model, path)
        return HalfFile(
            self._relative(path),
            hashlib.sha256(raw).hexdigest(),
            len(raw),
            macs,
            tuple(value.name for value in model.graph.input),
            tuple(value.name for value in model.graph.output),
            tuple(self._described(file) for file in beside),
        )

    def _described(self, file: weights.WeightFile) -> Weights:
        digest = None if file.linked else _sha256(file.path)
        return Weights(self._relative(file.path), file.path.stat().st_size, file.linked, digest)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _verified(
        self, boundary: Boundary, halves: Halves, paths: Mapping[str, Path], tensor_dtype: str | None
    ) -> "Verification | None":
        if self._reference is None:
            return None
        found = self._reference.compare(paths[FRONT], paths[BACK])
        coded = any(tensor.is_coded for tensor in halves.sent)
        if found.exact or found.rounding or (coded and found.same_shapes and not found.lost):
            return found
        if self._reference.is_random():
            from partway.dnn.runtime import RANDOM

            raise InputError(f"{RANDOM}; nothing was written; it can be split without verification")
        after = shorten(boundary.after, MAX_NAME)
        raise InputError(f"the halves of the cut after {after} {_difference(found, tensor_dtype)}; nothing was written")


def _difference(found: "Verification", tensor_dtype: str | None) -> str:
    """How the outputs of both halves are not those of the whole network, after "the halves"."""
    if not found.same_shapes:
        return "give outputs of another shape than the whole network"
    error = f"{found.largest_error:.3g}"
    if not found.lost:
        return f"differ by up to {error} from the whole network"
    why = ""
    if tensor_dtype is not None:
        limit = f"exceed what {tensor_dtype} can carry ({CARRIED[tensor_dtype]})"
        why = f" after coding: values {limit}, or are not finite themselves"
    share = f"{found.lost} of {found.elements} outputs"
    return f"do not fit: {share} are NaN or infinite{why} (largest error of the others {error})"


def _safe(name: str) -> str:
    """A name for a folder or a model on a server."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-")[:MAX_NAME].rstrip("._-")
