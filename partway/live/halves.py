"""Both halves of a real network at every cut of its table, run by onnxruntime on one thread.

A tensor at a cut travels in the scenario's `tensor_dtype`: float32 as it is, or as float16. An encoded image, which is
what is sent where nothing is left to the device, travels in 8 bits.
"""

import asyncio
import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from partway.dnn.cuts import table_rows
from partway.dnn.profile import Profile
from partway.errors import InputError, shorten, shown
from partway.live.engine import Specs, Tensors

try:
    import onnx
    from onnx import external_data_helper, numpy_helper

    from partway.dnn import triton, weights
    from partway.dnn.boundary import offered
    from partway.dnn.control_flow import reads
    from partway.dnn.graph import Network, load_network, profile_network
    from partway.dnn.halves import Cutter
    from partway.dnn.inputs import Value
    from partway.dnn.macs import Shape
    from partway.dnn.runtime import Session, whole_session
    from partway.dnn.verification import read_example
except ImportError as error:
    raise InputError(f"{error}: live needs the extra 'live', pip install 'partway[live]'") from None

LEVELS = 255.0
"""Of an 8-bit image whose numbers are from 0 to 1."""
SHORT = {"fp32": np.dtype("float32"), "fp16": np.dtype("float16")}
"""Data types in which real numbers travel."""


class Half:
    """One half of a cut: it computes `outputs`, of which it passes on those that it was given.

    needs     the tensors that it reads or passes on
    inputs    those that it reads
    computed  those of its outputs that it computes
    """

    def __init__(self, network: Network, cutter: Cutter, given: Sequence[str], outputs: Sequence[str]):
        self.outputs, passed = tuple(outputs), tuple(name for name in outputs if name in given)
        self.computed = tuple(name for name in outputs if name not in given)
        self._session = Session(_part(cutter, given, self.computed), network.path.parent) if self.computed else None
        self.inputs: tuple[str, ...] = self._session.inputs if self._session else ()
        self.needs = tuple(dict.fromkeys((*self.inputs, *passed)))

    def run(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Its outputs."""
        known = {**tensors, **(self._session.run(dict(tensors)) if self._session else {})}
        return {name: known[name] for name in self.outputs}


def _part(cutter: Cutter, given: Sequence[str], computed: Sequence[str]) -> "onnx.ModelProto":
    """The part of the network that computes some tensors from others, with those inputs alone that it reads."""
    model = cutter.part(given, computed)
    read = {name for node in model.graph.node for name in reads(node)}
    inputs = [value for value in model.graph.input if value.name in read]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


class Halves:
    """The halves of the network in an ONNX file at all cuts of its table.

    shares   (cuts,) the share of the work that is left to the server at each, ascending
    profile  of the network
    given    its inputs, as --shape and --input of the command line name them
    words    its files and `given`
    sha256   of the same: whoever has another one computes something else
    """

    def __init__(
        self,
        path: Path,
        tensor_dtype: str,
        keep: str = "all",
        shapes: Mapping[str, Shape] | None = None,
        values: Mapping[str, Value] | None = None,
    ):
        """Cut the network at the table's cuts.

        keep            "all" cuts or only the "pareto"-optimal ones
        shapes, values  as of `load_network`

        Raises InputError for a network that cannot be cut or run, and for a data type in which nothing is sent live.
        """
        if tensor_dtype not in SHORT:
            raise InputError(f"tensor_dtype = {shown(tensor_dtype)}: live tensors travel as {' or '.join(SHORT)}")
        self._network = load_network(path, shapes, values)
        self.profile: Profile = profile_network(self._network)
        digests = {name: _digest(path.parent / name) for name in _files(self._network)}
        self.given = _given(self._network, values or {})
        self.words = ", ".join(
            [*(f"{name} (SHA-256 {digest[:12]}...)" for name, digest in digests.items()), self.given]
        )
        self.sha256 = hashlib.sha256("\n".join([*digests.values(), self.given]).encode()).hexdigest()
        self._cutter = Cutter(self._network)
        self._rows = table_rows(self.profile, tensor_dtype, None, keep).tolist()
        self.shares = self.profile.share()[self._rows]
        self._short = SHORT[tensor_dtype]
        self._encoded = {tensor.name: tensor.dtype for tensor in self.profile.cuts[0].tensors}
        self._whole = whole_session(self._network)
        self._specs = _specs(self._network)
        inside = [cut for cut in self._rows if cut <= len(self._network.positions)]
        halves = {cut: self._halves(cut) for cut in inside}
        self._fronts = {cut: front for cut, (front, _) in halves.items()}
        self._backs = {_model(cut): back for cut, (_, back) in halves.items()}
        self._accepted = {name: self._on_wire(half) for name, half in self._backs.items()}
        self._pool = ThreadPoolExecutor(1)

    async def front(
        self, share: float, number: int, inputs: Tensors | None = None, device: int = 0
    ) -> tuple[str, Tensors]:
        """Task `number` of a device up to the cut that leaves `share`: the model of the back half, and what it needs.

        inputs  as `read` gives them; None: `inputs(number, device)`
        """
        now = partial(self.front_now, share, number, inputs, device)
        return await asyncio.get_running_loop().run_in_executor(self._pool, now)

    async def back(self, model: str, tensors: Tensors) -> Tensors:
        """The result of the back half `model`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.back_now, model, tensors)

    def thread(self) -> int:
        """The native number of the thread that computes `front` and `back`."""
        return self._pool.submit(threading.get_native_id).result()

    def front_now(
        self, share: float, number: int, inputs: Tensors | None = None, device: int = 0
    ) -> tuple[str, Tensors]:
        """`front`, in this thread."""
        cut = self._rows[int(np.argmin(np.abs(self.shares - share)))]
        given = self.inputs(number, device) if inputs is None else dict(inputs)
        if cut > len(self._network.positions):
            return "", self._whole.run(given)
        return _model(cut), {name: self._coded(name, value) for name, value in self._fronts[cut].run(given).items()}

    def back_now(self, model: str, tensors: Tensors) -> Tensors:
        """`back`, in this thread."""
        return self._backs[model].run(self.received(model, tensors))

    def back_half(self, model: str) -> Half:
        """The back half `model`."""
        return self._backs[model]

    def received(self, model: str, tensors: Tensors) -> dict[str, np.ndarray]:
        """What a back half needs, in the data types of the network, of what was sent."""
        return {name: self._decoded(name, tensors[name]) for name in self._backs[model].needs}

    def write_models(self, repository: Path) -> list[str]:
        """Write the back halves as a model repository (`partway.dnn.triton`) for `partway.live.remote`; their names."""
        cuts = {_model(cut): cut for cut in self._rows}
        names = [name for name, half in self._backs.items() if half.computed]
        for name in names:
            model = _part(self._cutter, self._sent(cuts[name]), self._backs[name].computed)
            weights.embed(model, self._network.path.parent)
            file = triton.model_file(repository, name)
            file.parent.mkdir(parents=True)
            file.write_bytes(model.SerializeToString())
            triton.write_model_config(model, file)
        triton.write_server_config(repository)
        return names

    def whole_now(self, number: int, inputs: Tensors | None = None) -> Tensors:
        """The result of task `number`, uncut; `inputs` as of `front`."""
        return self._whole.run(self.inputs(number) if inputs is None else dict(inputs))

    def read(self, path: Path) -> Tensors:
        """The network's inputs in a file, by name: .npy for a single one, else .npz.

        Raises InputError if the file cannot be read, or does not fit the network and the coding of an image.
        """
        inputs = read_example(self._network, path)
        for name, value in inputs.items():
            coded = value.dtype.kind == "f" and self._encoded.get(name) == "uint8"
            if coded and not ((value >= 0) & (value <= 1)).all():
                raise InputError(
                    f"{shown(str(path), 100)}: '{name}' has numbers from {value.min():g} to {value.max():g}; an image "
                    "travels in 8 bits, its numbers must be from 0 to 1"
                )
        return inputs

    def refusal(self, model: str, tensors: Tensors) -> str | None:
        """Why `back` cannot be computed of these, or None."""
        if model not in self._accepted:
            return f"no model {shorten(model)}; there are {shorten(', '.join(self._accepted), 150)}"
        wanted = self._accepted[model]
        given = {name: (value.dtype.newbyteorder("="), value.shape) for name, value in tensors.items()}
        if given != wanted:
            words = ", ".join(f"{name} {kind}{list(shape)}" for name, (kind, shape) in wanted.items())
            return f"model {model} takes {shorten(words, 200)}"
        return None

    @property
    def cuts(self) -> tuple[tuple[str, float], ...]:
        """The name of each cut of the table, and the share of the work that it leaves to the server."""
        names = (self.profile.cuts[row].after for row in self._rows)
        return tuple(zip(names, self.shares.tolist(), strict=True))

    def models(self) -> list[str]:
        """The back halves."""
        return list(self._backs)

    def specs(self, model: str) -> tuple[Specs, Specs]:
        """What a back half takes, as it travels, and what it gives."""
        return self._accepted[model], {name: self._specs[name] for name in self._backs[model].outputs}

    def max_bytes(self) -> int:
        """Bytes of the largest tensors at a cut."""
        sizes = [
            sum(kind.itemsize * int(np.prod(shape)) for kind, shape in one.values()) for one in self._accepted.values()
        ]
        return max(sizes, default=0)

    def inputs(self, number: int, device: int = 0) -> dict[str, np.ndarray]:
        """The random input of task `number` of a device: an image's numbers are multiples of 1/255."""
        rng = np.random.default_rng((device, number))
        drawn = dict[str, np.ndarray]()
        for name, (dtype, shape) in ((name, self._specs[name]) for name in self._whole.inputs):
            levels = rng.integers(0, int(LEVELS) + 1, shape)
            drawn[name] = (levels / LEVELS).astype(dtype) if dtype.kind == "f" else (levels % 2).astype(dtype)
        return drawn

    def _halves(self, cut: int) -> tuple[Half, Half]:
        """Front and back. An output that only the front half can give is sent along, for a result that is whole."""
        back = Half(self._network, self._cutter, self._sent(cut), self._whole.outputs)
        return Half(self._network, self._cutter, self._network.inputs, back.needs), back

    def _sent(self, cut: int) -> tuple[str, ...]:
        """The tensors from which the rest can be computed."""
        if not cut:
            return tuple(self._network.inputs)
        boundary = offered(self._network, cut)
        return (*boundary.tensors, *boundary.kept)

    def _on_wire(self, half: Half) -> Specs:
        """What a back half is sent."""
        specs = {name: self._specs[name] for name in half.needs}
        coded = {name: self._coded(name, np.zeros(shape, kind)) for name, (kind, shape) in specs.items()}
        return {name: (value.dtype, value.shape) for name, value in coded.items()}

    def _coded(self, name: str, value: np.ndarray) -> np.ndarray:
        """A tensor as it travels."""
        if value.dtype.kind != "f":
            return value
        if self._encoded.get(name) == "uint8":
            return np.round(value * LEVELS).astype(np.uint8)
        return value.astype(self._short) if value.dtype.itemsize > self._short.itemsize else value

    def _decoded(self, name: str, value: np.ndarray) -> np.ndarray:
        """The inverse, in the data type that the tensor has in the network."""
        kind, _ = self._specs[name]
        if self._encoded.get(name) == "uint8" and kind.kind == "f":
            return (value / LEVELS).astype(kind)
        return value.astype(kind)


def _model(cut: int) -> str:
    """The name of a back half."""
    return f"cut-{cut}"


def _files(network: Network) -> list[str]:
    """The ONNX file and those with its weights, from its folder on."""
    external = map(external_data_helper.ExternalDataInfo, weights.external_tensors(network.original))
    return [network.path.name, *sorted({info.location for info in external})]


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _given(network: Network, values: Mapping[str, Value]) -> str:
    """x=1x3x224x224, sr=16000: the shapes of a network's inputs, and those that are always the same."""
    graph = network.original.graph
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    fixed = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in values}
    sizes = [f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    return ", ".join([*sizes, *(f"{name}={_numbers(array)}" for name, array in sorted(fixed.items()))])


def _numbers(array: np.ndarray) -> str:
    """Those of a constant; one where all are equal."""
    different = np.unique(array)
    return ",".join(map(str, (different if different.size == 1 else array.ravel()).tolist()))


def _specs(network: Network) -> Specs:
    """Those of all tensors of a fixed shape, inputs that nothing reads among them."""
    graph, inputs = network.model.graph, network.original.graph.input
    shapes = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in inputs}
    shapes |= network.shapes
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output, *inputs)}
    fixed = (name for name, kind in kinds.items() if kind and name in shapes)
    return {name: (onnx.helper.tensor_dtype_to_np_dtype(kinds[name]), shapes[name]) for name in fixed}
