"""Compiled programs that are kept between runs: found again only if everything that they are made from is the same."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway import programs, provenance
from partway.controllers.base import DeviceController
from partway.controllers.baselines import Constant, Random
from partway.programs import KeptJit


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that programs are kept in meanwhile."""
    programs.keep_in(tmp_path)
    programs._surroundings.cache_clear()
    yield tmp_path
    programs.keep_in(None)
    programs._surroundings.cache_clear()


def scaled(controller: Any, x: jax.Array, power: int = 1) -> jax.Array:
    return x**power * getattr(controller, "share", 3.0)


def made() -> KeptJit:
    """The function as another process would have it: nothing is known."""
    return KeptJit(scaled, ["power"], [])


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.program"))


X = np.arange(3, dtype=np.float32)


def test_a_kept_program_is_loaded_instead_of_traced(folder: Path, monkeypatch: pytest.MonkeyPatch):
    policy = Constant(share=np.float32(0.5), tasks=np.float32(1.0))  # pyright: ignore
    first = made()(policy, X, power=2)
    assert len(kept(folder)) == 1
    again = made()
    monkeypatch.setattr(again, "jit", None)  # neither traced nor compiled
    np.testing.assert_array_equal(again(policy, X, power=2), first)
    other = Constant(share=np.float32(0.25), tasks=np.float32(1.0))  # pyright: ignore  # a value is no part of it
    np.testing.assert_array_equal(again(other, X, power=2), first / 2)


def test_another_shape_type_static_value_or_class_is_another_program(folder: Path):
    made()(Random(), X)
    made()(Random(), X[:2])
    made()(Random(), X, power=2)
    made()(Constant(share=np.float32(0.5), tasks=np.float32(1.0)), X)  # pyright: ignore
    with jax.enable_x64(True):
        assert made()(Random(), X.astype(np.float64)).dtype == np.float64
    assert len(kept(folder)) == 5
    made()(Random(), X)
    assert len(kept(folder)) == 5


def test_a_change_of_the_source_or_of_a_version_is_another_program(folder: Path, monkeypatch: pytest.MonkeyPatch):
    made()(Random(), X)
    for name, value in (("package_hash", "edited"), ("versions", {"jax": "0.0"})):
        monkeypatch.setattr(provenance, name, lambda value=value: value)
        programs._surroundings.cache_clear()
        made()(Random(), X)
    assert len(kept(folder)) == 3


def test_programs_with_a_policy_from_outside_are_not_kept(folder: Path):
    """What its code depends on is not known: an edited policy must never run as it was."""

    class Mine(DeviceController):
        share: float = 2.0

    np.testing.assert_allclose(made()(Mine(np.float32(2.0)), X), 2 * X)  # pyright: ignore
    assert kept(folder) == []


def test_programs_that_call_a_library_are_not_kept(folder: Path):
    """LAPACK is prepared when a program is lowered: loaded without it, it would crash."""

    def solved(matrix: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.linalg.solve(matrix, right)

    found = KeptJit(solved, [], [])(2 * np.eye(3, dtype=np.float32), X)
    np.testing.assert_allclose(found, X / 2)
    assert kept(folder) == []


@pytest.mark.parametrize("content", [b"", b"something else", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_program_is_made_again(folder: Path, content: bytes | None):
    first = made()(Random(), X)
    (path,) = kept(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    np.testing.assert_array_equal(made()(Random(), X), first)
    assert len(path.read_bytes()) == pytest.approx(len(whole), rel=0.1)


def test_a_folder_that_cannot_be_written_is_nobodys_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    programs.keep_in(tmp_path / "file")
    try:
        np.testing.assert_allclose(made()(Random(), X), 3 * X)
    finally:
        programs.keep_in(None)


def test_the_programs_not_used_for_longest_are_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    made()(Random(), X)
    (oldest,) = kept(folder)
    monkeypatch.setattr(programs, "MAX_BYTES", oldest.stat().st_size * 3 // 2)
    made()(Random(), X[:2])
    assert len(kept(folder)) == 1
    assert oldest not in kept(folder)


def test_without_a_folder_it_is_jax_jit():
    function = made()
    np.testing.assert_allclose(function(Random(), X), 3 * X)
    assert function._known == {}


KEEPING = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from partway import programs
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jnp.arange(3.0).sum()  # JAX asks only before its first program whether its cache is used
programs.keep_in(Path(sys.argv[2]))
spiral = lambda x: jax.lax.scan(lambda c, i: (jnp.sin(c) * i + c @ c.T, None), x, jnp.arange(4.0))[0]
print(float(programs.KeptJit(spiral, [], [])(jnp.ones((3, 3))).sum()))
"""


def test_a_program_that_jax_has_cached_can_be_kept(tmp_path: Path):
    """As after any change of Partway: JAX has the program, Partway has not. What was then kept could not be run."""
    printed = list[str]()
    for kept_in in ("before", "after", "after"):
        words = [sys.executable, "-c", KEEPING, str(tmp_path / "jax"), str(tmp_path / kept_in)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert len(set(printed)) == 1
    assert len(kept(tmp_path / "after")) == 1
