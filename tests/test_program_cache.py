"""Compiled programs that are kept between runs: found again only if everything that they are made from is the same."""

import contextlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from partway import program_cache, provenance
from partway.controllers.base import DeviceController
from partway.controllers.baselines import Constant, Random
from partway.controllers.postdecision import PostDecision
from partway.program_cache import KeptJit


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that programs are kept in meanwhile."""
    program_cache.keep_in(tmp_path)
    program_cache._surroundings.cache_clear()
    yield tmp_path
    program_cache.keep_in(None)
    program_cache._surroundings.cache_clear()


def scaled(controller: Any, x: jax.Array, power: int = 1) -> jax.Array:
    return x**power * getattr(controller, "offload", 3.0)


def made() -> KeptJit:
    """The function as another process would have it: nothing is known."""
    return KeptJit(scaled, ["power"], [])


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.program"))


X = np.arange(3, dtype=np.float32)


@pytest.mark.parametrize(("version", "known"), [((0, 10, 2), True), ((0, 11, 2), False), ((0, 12, 0), False)])
def test_an_option_that_newer_versions_of_jax_refuse_is_not_given(
    version: tuple[int, ...], known: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax, "__version_info__", version)
    options = runpy.run_path(program_cache.__file__)["RUNS_ONCE"]
    assert ("xla_cpu_use_fusion_emitters" in options) is known
    assert options["xla_backend_optimization_level"] == 1


def test_xla_knows_the_options_of_a_program_that_runs_once():
    np.testing.assert_array_equal(jax.jit(lambda x: 2 * x, compiler_options=program_cache.RUNS_ONCE)(X), 2 * X)


def test_a_kept_program_is_loaded_instead_of_traced(folder: Path, monkeypatch: pytest.MonkeyPatch):
    policy = Constant(offload=np.float32(0.5), started=np.float32(1.0))  # pyright: ignore
    first = made()(policy, X, power=2)
    assert len(kept(folder)) == 1
    again = made()
    monkeypatch.setattr(again, "jit", None)  # neither traced nor compiled
    np.testing.assert_array_equal(again(policy, X, power=2), first)
    other = Constant(offload=np.float32(0.25), started=np.float32(1.0))  # pyright: ignore  # a value is no part of it
    np.testing.assert_array_equal(again(other, X, power=2), first / 2)


def test_another_shape_type_static_value_or_class_is_another_program(folder: Path):
    made()(Random(), X)
    made()(Random(), X[:2])
    made()(Random(), X, power=2)
    made()(Constant(offload=np.float32(0.5), started=np.float32(1.0)), X)  # pyright: ignore
    with jax.enable_x64(True):
        assert made()(Random(), X.astype(np.float64)).dtype == np.float64
    assert len(kept(folder)) == 5
    made()(Random(), X)
    assert len(kept(folder)) == 5


def test_equal_arguments_have_one_program_whatever_objects_they_share(folder: Path):
    """What comes from a kept program shares other strings than what was traced."""
    word = "".join(["objec", "tive"])
    assert word is not PostDecision().criterion
    made()((PostDecision(), PostDecision()), X)
    made()((PostDecision(criterion=word), PostDecision()), X)
    assert len(kept(folder)) == 1


def test_a_change_of_the_source_or_of_a_version_is_another_program(folder: Path, monkeypatch: pytest.MonkeyPatch):
    made()(Random(), X)
    for name, value in (("package_hash", "edited"), ("versions", {"jax": "0.0"})):
        monkeypatch.setattr(provenance, name, lambda value=value: value)
        program_cache._surroundings.cache_clear()
        made()(Random(), X)
    assert len(kept(folder)) == 3


def test_programs_with_a_policy_from_outside_are_not_kept(folder: Path):
    """What its code depends on is not known: an edited policy must never run as it was."""

    class Mine(DeviceController):
        offload: float = 2.0

    np.testing.assert_allclose(made()(Mine(np.float32(2.0)), X), 2 * X)  # pyright: ignore
    assert kept(folder) == []


SOLVES = """
import sys
from pathlib import Path
import jax.numpy as jnp
import numpy as np
from partway import program_cache

def solved(matrix, right):
    return jnp.linalg.solve(matrix, right)

program_cache.keep_in(Path(sys.argv[1]))
kept = program_cache.KeptJit(solved, [], [])
if sys.argv[2] == "again":
    kept.jit = None  # neither traced nor compiled
print(kept(2 * np.eye(3, dtype=np.float32), np.arange(3, dtype=np.float32)).tolist())
"""


def test_a_program_that_calls_lapack_is_kept_for_the_next_process(tmp_path: Path):
    """JAX looks for LAPACK only when it lowers a program: one that is loaded without it would crash the process."""
    for which in ("first", "again"):
        command = [sys.executable, "-c", SOLVES, str(tmp_path), which]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "[0.0, 0.5, 1.0]\n"


def test_programs_that_call_python_are_not_kept(folder: Path):
    """They hold the address of a function of this process."""

    def doubled(x: jax.Array) -> jax.Array:
        return jax.pure_callback(lambda x: 2 * np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    np.testing.assert_array_equal(KeptJit(doubled, [], [])(X), 2 * X)
    assert kept(folder) == []


@pytest.mark.parametrize("content", [b"", b"something else", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_program_is_made_again(folder: Path, content: bytes | None):
    first = made()(Random(), X)
    (path,) = kept(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    np.testing.assert_array_equal(made()(Random(), X), first)
    assert len(path.read_bytes()) == pytest.approx(len(whole), rel=0.1)


def test_no_program_comes_from_jax_own_cache_while_any_thread_compiles_one_to_be_kept():
    """It could not be serialized whole, and would fail when the next process runs it."""

    def enabled() -> bool:
        return jax.config.values["jax_enable_compilation_cache"]

    assert enabled()
    with contextlib.ExitStack() as one, contextlib.ExitStack() as other:
        one.enter_context(program_cache._without_jax_cache())
        other.enter_context(program_cache._without_jax_cache())
        one.close()
        assert not enabled()
    assert enabled()


def test_a_program_that_cannot_be_serialized_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """One that sorts, for example, as XLA compiles it outside tests."""

    def refused(compiled: Any) -> Any:
        raise jax.errors.JaxRuntimeError("UNIMPLEMENTED: `LessThan` is not serializable.")

    monkeypatch.setattr(program_cache.serialize_executable, "serialize", refused)
    np.testing.assert_array_equal(made()(Random(), X), 3 * X)
    assert kept(folder) == []


def test_a_folder_that_cannot_be_written_is_nobodys_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    program_cache.keep_in(tmp_path / "file")
    try:
        np.testing.assert_allclose(made()(Random(), X), 3 * X)
    finally:
        program_cache.keep_in(None)


def test_the_programs_not_used_for_longest_are_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    made()(Random(), X)
    (oldest,) = kept(folder)
    monkeypatch.setattr(program_cache, "MAX_BYTES", oldest.stat().st_size * 3 // 2)
    made()(Random(), X[:2])
    assert len(kept(folder)) == 1
    assert oldest not in kept(folder)


def test_without_a_folder_it_is_jax_jit():
    function = made()
    np.testing.assert_allclose(function(Random(), X), 3 * X)
    assert function._known == {}
