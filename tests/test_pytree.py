"""Records are pytrees: floats and arrays are leaves, words, switches and whole numbers are part of the structure."""

import jax
import jax.numpy as jnp
import pytest

from partway.pytree import record


@record
class One:
    gain: float = 1.0
    count: int = 2


@record
class Other:
    gain: float = 1.0
    count: int = 2


def test_leaves_and_structure():
    leaves, structure = jax.tree.flatten(One(3.0, 4))
    assert leaves == [3.0]
    assert jax.tree.unflatten(structure, [5.0]) == One(5.0, 4)
    assert structure != jax.tree.structure(One(3.0, 5))


def test_paths_name_the_fields():
    ((path, value),) = jax.tree_util.tree_leaves_with_path(One(3.0))
    assert (jax.tree_util.keystr(path), value) == (".gain", 3.0)


def test_two_classes_with_equal_fields_are_two_structures():
    """`jax.tree_util.register_dataclass` of jaxlib 0.10.2 fails this, and compiled programs are mixed up."""
    assert jax.tree.structure(One()) != jax.tree.structure(Other())


def test_a_compiled_program_is_never_that_of_another_class():
    @jax.jit
    def kind(some: One | Other) -> jax.Array:
        return jnp.float32(1.0 if isinstance(some, One) else 2.0)

    assert [float(kind(cls())) for cls in (One, Other, One, Other)] == [1.0, 2.0, 1.0, 2.0]


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        One().gain = 2.0  # pyright: ignore[reportAttributeAccessIssue]  # that is the test
