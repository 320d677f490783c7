"""Compiled programs that are kept between runs: loading one is 50 times faster than tracing and lowering it again.

`kept_jit` is `jax.jit` until `keep_in` has named a folder. From then on a program is looked up by everything that it is
made from: Partway's source, the structure, static fields, shapes and types of its arguments, precision, the versions of
Python, JAX and NumPy, XLA's flags and the CPU. Programs with classes from outside Partway are never kept, because what
their code depends on cannot be known.
"""

import contextlib
import hashlib
import io
import os
import pickle
import platform
import re
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
from jax.core import Tracer
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import get_abstract_mesh

from partway import files, provenance
from partway.errors import shorten

MAX_BYTES = 2**29
"""Size of the folder above which the programs that have not been used for longest are deleted."""
OLDER_GENERATOR: Mapping[str, bool] = {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}
"""XLA's options for its older code generator, which compiles faster; jaxlib 0.11.2 has neither it nor the option."""
RUNS_ONCE = {"xla_backend_optimization_level": 1, **OLDER_GENERATOR}
"""XLA's options for a program that runs once: it compiles in a third of the time (jaxlib 0.10.2), and is slower."""
CUSTOM_CALL = re.compile(r"custom_call @(\w+)")
"""In the text of a program, what it calls outside itself. A program that calls anything but LAPACK is not kept: a
function of Python, for example, has its address only in this process."""
LAPACK = "lapack_"
"""How the names of LAPACK's functions begin in such a text."""
_folder: Path | None = None
_switching = threading.Lock()
_compiling = 0
_enabled = True


def keep_in(folder: Path | None) -> None:
    """Keep compiled programs in a folder of the user's own; None: do not keep any."""
    global _folder
    _folder = folder


def missing_backend() -> str | None:
    """Why JAX cannot compute where JAX_PLATFORMS says, in one line; None if it can."""
    try:
        jax.devices()
    except Exception as error:  # a RuntimeError, or an AssertionError without words where a plugin is not installed
        platforms = os.environ.get("JAX_PLATFORMS", "")
        why = " ".join(str(error).split()) or "no such device, or no JAX plugin for it"
        where = f"JAX_PLATFORMS={platforms}: JAX cannot compute there ({shorten(why, 120)})"
        return f"{where}; unset it or install that backend"
    return None


class KeptJit:
    """A function that `jax.jit` compiles, whose programs can be kept. Static arguments are given by name."""

    def __init__(
        self,
        function: Callable[..., Any],
        static_argnames: Sequence[str],
        donate_argnames: Sequence[str],
        compiler_options: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.jit = jax.jit(
            function,
            static_argnames=tuple(static_argnames),
            donate_argnames=tuple(donate_argnames),
            compiler_options=dict(compiler_options),
        )
        self.__wrapped__, self.__doc__ = function, function.__doc__
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._known: dict[Any, Any] = {}
        self._locks: dict[Any, threading.Lock] = {}

    def __call__(self, *arguments: Any, **static: Any) -> Any:
        """The function's result."""
        folder, (leaves, tree) = _folder, jax.tree.flatten(arguments)
        traced = any(isinstance(leaf, Tracer) for leaf in leaves)
        if folder is None or traced or get_abstract_mesh().axis_names or jax.default_backend() != "cpu":
            return self.jit(*arguments, **static)
        x64 = bool(jax.numpy.result_type(float) == "float64")
        key = (tree, tuple(map(_kind, leaves)), tuple(sorted(static.items())), x64)
        with self._locks.setdefault(key, threading.Lock()):  # of threads that need the same program one makes it
            if key not in self._known:
                kinds = tuple((jax.numpy.shape(leaf), str(jax.numpy.result_type(leaf))) for leaf in leaves)
                self._known[key] = self._made(folder, arguments, static, (kinds, x64))
        return self._known[key](*arguments)

    def _made(self, folder: Path, arguments: tuple[Any, ...], static: dict[str, Any], kinds: Any) -> Any:
        """The compiled program, from the folder if it is there."""
        try:
            name = _digest(self._name, arguments, static, kinds)
        except _NotKept:
            return self.jit.lower(*arguments, **static).compile()
        path, in_tree = folder / f"{name}.program", jax.tree.structure((arguments, {}))
        with contextlib.suppress(Exception):  # a file that is missing, damaged or of another kind is made again
            program, shape, lapack = pickle.loads(path.read_bytes())
            if lapack:
                _prepare_lapack()
            out_tree, where = jax.tree.structure(shape), jax.local_devices()[:1]
            loaded = serialize_executable.deserialize_and_load(program, in_tree, out_tree, execution_devices=where)
            os.utime(path)
            return loaded
        lowered = self.jit.lower(*arguments, **static)
        called = CUSTOM_CALL.findall(lowered.as_text())
        if not all(name.startswith(LAPACK) for name in called):
            return lowered.compile()
        with _without_jax_cache():
            compiled = lowered.compile()
        with contextlib.suppress(jax.errors.JaxRuntimeError, ValueError, NotImplementedError):
            # a program that sorts, for example, cannot be serialized (jaxlib 0.10.2)
            program, _, out_tree = serialize_executable.serialize(compiled)
            _write(path, pickle.dumps((program, _shape(out_tree), bool(called))))
        return compiled


@cache
def _prepare_lapack() -> None:
    """JAX looks for LAPACK when it lowers a program that calls it; without that a loaded program would crash."""
    jax.jit(jax.lax.linalg.cholesky).lower(jax.numpy.ones((1, 1)))


def _kind(leaf: Any) -> Any:
    """What a program has to know of a leaf: found in every call, so without JAX's rules for types."""
    return (leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else type(leaf)


def kept_jit(
    static_argnames: Sequence[str] = (),
    donate_argnames: Sequence[str] = (),
    compiler_options: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[Callable[..., Any]], KeptJit]:
    """`jax.jit` as a decorator, whose programs are kept between runs once `keep_in` has named a folder."""
    return lambda function: KeptJit(function, static_argnames, donate_argnames, compiler_options)


@contextlib.contextmanager
def _without_jax_cache() -> Generator[None]:
    """JAX's own cache is not used, in any thread: a program that came from there looks whole after it was serialized
    again, and fails when it runs in the next process (jaxlib 0.10.2). Threads may be in here at the same time.

    JAX reads the setting once, when it compiles for the first time, and again after `reset_cache`."""
    global _compiling, _enabled
    with _switching:
        if _compiling == 0:
            _enabled = jax.config.values["jax_enable_compilation_cache"]
            _use_jax_cache(False)
        _compiling += 1
    try:
        yield
    finally:
        with _switching:
            _compiling -= 1
            if _compiling == 0:
                _use_jax_cache(_enabled)


def _use_jax_cache(used: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", used)
    compilation_cache.reset_cache()


class _NotKept(Exception):
    """Why a program is not kept."""


def _digest(name: str, arguments: tuple[Any, ...], static: dict[str, Any], kinds: Any) -> str:
    """A file's name: the hash of all that a program is made from. Raises _NotKept for classes from outside."""
    shape = _shape(jax.tree.structure(arguments))
    for node in _nodes(shape):
        if type(node).__module__.partition(".")[0] not in ("partway", "builtins"):
            raise _NotKept
    content = (name, _same_bytes(shape), sorted(static.items()), kinds, _surroundings())
    return hashlib.sha256(repr(content).encode()).hexdigest()[:40]


def _same_bytes(tree: Any) -> bytes:
    """The pickled tree, the same for equal trees: pickle would otherwise tell which of their strings are one object."""
    written = io.BytesIO()
    pickler = pickle.Pickler(written)
    pickler.fast = True
    pickler.dump(tree)
    return written.getvalue()


def _shape(tree: Any) -> Any:
    """A tree of the same structure, which can be pickled: its leaves are numbers."""
    return jax.tree.unflatten(tree, range(tree.num_leaves))


def _nodes(tree: Any) -> list[Any]:
    """All records, tuples and lists of a tree."""
    nodes = list[Any]()

    def note(node: Any) -> bool:
        nodes.append(node)
        return False

    jax.tree.flatten(tree, is_leaf=note)
    return nodes


@cache
def _surroundings() -> tuple[Any, ...]:
    """What beside the arguments decides a program."""
    settings = ("jax_disable_most_optimizations", "jax_default_matmul_precision", "jax_num_cpu_devices")
    return (
        provenance.package_hash(),
        tuple(provenance.versions().items()),
        os.environ.get("XLA_FLAGS", ""),
        tuple(str(jax.config.values.get(name)) for name in settings),
        len(jax.local_devices()),
        _cpu(),
    )


def _cpu() -> str:
    """The kind of CPU, with its instruction sets where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return platform.machine() + line
    return f"{platform.machine()} {platform.processor()} {platform.node()}"


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and make room; a failure to write is ignored."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, content)
        _prune(path.parent)


def _prune(folder: Path) -> None:
    """Delete what killed processes were writing, and the programs longest unused while the folder is too large."""
    for left in folder.glob(f".*.{files.PARTIAL}-*"):
        files.delete_unlocked(left)
    kept = sorted(((path.stat(), path) for path in folder.glob("*.program")), key=lambda one: one[0].st_mtime)
    excess = sum(stat.st_size for stat, _ in kept) - MAX_BYTES
    for stat, path in kept:
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= stat.st_size
