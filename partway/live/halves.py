"""Both halves of a real network at every cut of its table, run by onnxruntime on one thread.

A tensor at a cut travels in the scenario's `tensor_dtype`: float32 as it is, or as float16. An encoded image, which is
what is sent where nothing is left to the device, travels in 8 bits.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from partway.dnn.cuts import table_rows
from partway.dnn.profile import Profile
from partway.errors import InputError, shorten, shown
from partway.live.engine import Tensors

try:
    import onnxruntime

    from partway.dnn.control_flow import reads
    from partway.dnn.graph import load_network, profile_network
    from partway.dnn.halves import Cutter
except ImportError as error:
    raise InputError(f"{error}: live needs the extra of `pip install 'partway[live]'`") from None

LEVELS = 255.0
"""Of an 8-bit image whose numbers are from 0 to 1."""
SHORT = {"fp32": np.dtype("float32"), "fp16": np.dtype("float16")}
"""Data types in which real numbers travel."""


Specs = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Data type and shape of tensors, by their names."""


class Half:
    """One half of a cut: it computes `outputs`, of which it passes on those that it was given."""

    def __init__(self, cutter: Cutter, inputs: Sequence[str], outputs: Sequence[str]):
        self.outputs = tuple(outputs)
        self._computed = [name for name in outputs if name not in inputs]
        self._session = _session(cutter, inputs, self._computed) if self._computed else None
        read: list[Any] = self._session.get_inputs() if self._session else []
        self.inputs: Specs = {value.name: (_dtype(value.type), tuple(value.shape)) for value in read}

    def run(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Its outputs."""
        fed = {name: tensors[name] for name in self.inputs}
        results = self._session.run(self._computed, fed) if self._session else []
        known = {**tensors, **dict(zip(self._computed, results, strict=True))}
        return {name: known[name] for name in self.outputs}


class Halves:
    """The halves of the network in an ONNX file at all cuts of its table.

    shares   (cuts,) the share of the work that is left to the server at each, ascending
    profile  of the network
    """

    def __init__(self, path: Path, tensor_dtype: str, keep: str = "all", seed: int = 0):
        """Cut the network at the table's cuts.

        keep  "all" cuts or only the "pareto"-optimal ones
        seed  of the random inputs

        Raises InputError for a network that cannot be cut or run, and for a data type in which nothing is sent live.
        """
        if tensor_dtype not in SHORT:
            raise InputError(f"tensor_dtype = {shown(tensor_dtype)}: live tensors travel as {' or '.join(SHORT)}")
        self._network = load_network(path)
        self._cutter = Cutter(self._network)
        self.profile: Profile = profile_network(self._network)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._rows = table_rows(self.profile, tensor_dtype, None, keep).tolist()
        self.shares = self.profile.share()[self._rows]
        self._short, self._seed = SHORT[tensor_dtype], seed
        self._encoded = {tensor.name: tensor.dtype for tensor in self.profile.cuts[0].tensors}
        self._whole = Half(self._cutter, self._network.inputs, self._results())
        self._inputs = self._whole.inputs
        inside = [cut for cut in self._rows if cut <= len(self._network.positions)]
        self._fronts = {cut: self._front(cut) for cut in inside}
        self._backs = {_model(cut): self._back(cut) for cut in inside}
        self._accepted = {name: self._on_wire(half) for name, half in self._backs.items()}
        self._pool = ThreadPoolExecutor(1)

    async def front(self, share: float, number: int) -> tuple[str, Tensors]:
        """Task `number` up to the cut that leaves `share`: the model of the back half, and what it needs."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.front_now, share, number)

    async def back(self, model: str, tensors: Tensors) -> Tensors:
        """The result of the back half `model`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.back_now, model, tensors)

    def front_now(self, share: float, number: int) -> tuple[str, Tensors]:
        """`front`, in this thread."""
        cut = self._rows[int(np.argmin(np.abs(self.shares - share)))]
        inputs = self.inputs(number)
        if cut > len(self._network.positions):
            return "", self._whole.run(inputs)
        return _model(cut), {name: self._coded(name, value) for name, value in self._fronts[cut].run(inputs).items()}

    def back_now(self, model: str, tensors: Tensors) -> Tensors:
        """`back`, in this thread."""
        half = self._backs[model]
        return half.run({name: self._decoded(name, tensors[name], kind) for name, (kind, _) in half.inputs.items()})

    def whole_now(self, number: int) -> Tensors:
        """The result of task `number`, uncut."""
        return self._whole.run(self.inputs(number))

    def refusal(self, model: str, tensors: Tensors) -> str | None:
        """Why `back` cannot be computed of these, or None."""
        if model not in self._accepted:
            return f"no model {shorten(model)}; there are {shorten(', '.join(self._accepted), 150)}"
        wanted, early = self._accepted[model], set(self._results())
        given = {name: (value.dtype.newbyteorder("="), value.shape) for name, value in tensors.items()}
        if {name: spec for name, spec in given.items() if name in wanted or name not in early} != wanted:
            words = ", ".join(f"{name} {kind}{list(shape)}" for name, (kind, shape) in wanted.items())
            return f"model {model} takes {shorten(words, 200)}"
        return None

    def models(self) -> list[str]:
        """The back halves."""
        return list(self._backs)

    def max_bytes(self) -> int:
        """Bytes of the largest tensors at a cut."""
        sizes = [
            sum(kind.itemsize * int(np.prod(shape)) for kind, shape in one.values()) for one in self._accepted.values()
        ]
        return max(sizes, default=0)

    def inputs(self, number: int) -> dict[str, np.ndarray]:
        """The random input of task `number`: an image's numbers are multiples of 1/255."""
        rng = np.random.default_rng((self._seed, number))
        drawn = dict[str, np.ndarray]()
        for name, (dtype, shape) in self._inputs.items():
            levels = rng.integers(0, int(LEVELS) + 1, shape)
            drawn[name] = (levels / LEVELS).astype(dtype) if dtype.kind == "f" else (levels % 2).astype(dtype)
        return drawn

    def _results(self) -> tuple[str, ...]:
        """The outputs that are computed."""
        made = {name for node in self._network.nodes for name in node.output}
        return tuple(name for name in self._network.outputs if name in made)

    def _before(self, cut: int) -> set[str]:
        """The tensors that are computed before a cut."""
        nodes = self._network.positions[cut - 1].nodes if cut else 0
        return {name for node in self._network.nodes[:nodes] for name in node.output}

    def _sent(self, cut: int) -> tuple[str, ...]:
        """What the back half reads."""
        return self._network.positions[cut - 1].tensors if cut else self._network.inputs

    def _front(self, cut: int) -> Half:
        """The front half; an output of the network that is ready early is sent with the cut."""
        before, sent = self._before(cut), self._sent(cut)
        early = [name for name in self._results() if name in before]
        return Half(self._cutter, self._network.inputs, list(dict.fromkeys((*sent, *early))))

    def _back(self, cut: int) -> Half:
        before, sent = self._before(cut), self._sent(cut)
        early = [name for name in self._results() if name in before]
        return Half(self._cutter, [*sent, *early], self._results())

    def _on_wire(self, half: Half) -> Specs:
        """What a back half is sent: the tensors that it reads, and outputs that were ready early."""
        coded = {name: self._coded(name, np.zeros(shape, kind)) for name, (kind, shape) in half.inputs.items()}
        return {name: (value.dtype, value.shape) for name, value in coded.items()}

    def _coded(self, name: str, value: np.ndarray) -> np.ndarray:
        """A tensor as it travels."""
        if value.dtype.kind != "f":
            return value
        if self._encoded.get(name) == "uint8":
            return np.round(value * LEVELS).astype(np.uint8)
        return value.astype(self._short) if value.dtype.itemsize > self._short.itemsize else value

    def _decoded(self, name: str, value: np.ndarray, kind: np.dtype[Any]) -> np.ndarray:
        """The inverse, as the data type that the back half reads."""
        if self._encoded.get(name) == "uint8" and kind.kind == "f":
            return (value / LEVELS).astype(kind)
        return value.astype(kind)


def _model(cut: int) -> str:
    """The name of a back half."""
    return f"cut-{cut}"


def _dtype(kind: str) -> np.dtype[Any]:
    """NumPy's of onnxruntime's, such as "tensor(float)"."""
    inside = kind.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(inside, inside))


def _session(cutter: Cutter, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """A session that computes `outputs` from what it needs of `inputs`.

    It runs on one thread: more of them would spin and delay each other.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # halves equal the whole
    model = cutter.part(list(inputs), list(outputs))
    read = {name for node in model.graph.node for name in reads(node)}
    needed = [value for value in model.graph.input if value.name in read]
    del model.graph.input[:]
    model.graph.input.extend(needed)
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of onnxruntime share no narrower base
        raise InputError(f"onnxruntime cannot load a half: {shorten(str(error), 200)}") from None
