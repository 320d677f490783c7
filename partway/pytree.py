"""The one kind of class: a frozen dataclass that JAX sees as a pytree.

Fields annotated `int`, `bool` or `str` are static (part of the compiled program: shapes, switches, names); every other
field is a leaf or a subtree, so that floats and arrays can be traced, differentiated and `vmap`ped.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast, dataclass_transform, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys

T = TypeVar("T")
STATIC = (int, bool, str)
RECORD = "_is_record"


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and register it as a pytree; a class that is one already stays as it is.

    `jax.tree_util.register_dataclass` would be shorter, but in jaxlib 0.10.2 it takes two classes with equal fields for
    one, and a compiled program of the one is run for the other (`tests/test_pytree.py`).
    """
    if RECORD in cls.__dict__:
        return cls
    made: Any = dataclasses.dataclass(frozen=True)(cls)
    setattr(made, RECORD, True)
    kinds = get_type_hints(made)
    names = [field.name for field in dataclasses.fields(made)]
    static = [name for name in names if kinds[name] in STATIC]
    leaves = [name for name in names if name not in static]

    def flatten(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(tree, name) for name in leaves], tuple(getattr(tree, name) for name in static)

    def flatten_with_keys(tree: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children, constants = flatten(tree)
        return [(GetAttrKey(name), child) for name, child in zip(leaves, children, strict=True)], constants

    def unflatten(constants: Iterable[Any], children: Iterable[Any]) -> Any:
        tree = object.__new__(made)  # past __init__: JAX fills trees with placeholders that need not be valid
        for name, value in (*zip(leaves, children, strict=True), *zip(static, constants, strict=True)):
            object.__setattr__(tree, name, value)
        return tree

    register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


def host_array(value: float | np.ndarray) -> jax.Array:
    """A NumPy value in a field: until `cast_floats`, nothing is rounded to float32 and nothing compiled."""
    return cast(jax.Array, np.asarray(value))


def fleetwise(function: Callable[..., T]) -> Callable[..., T]:
    """`function` of one device -> of the fleet, every argument and result with the device axis last."""
    return jax.vmap(function, in_axes=-1, out_axes=-1)


def cast_floats(tree: T, precision: str, put: Callable[[Any], jax.Array] = jnp.asarray) -> T:
    """A world, or anything else, with its arrays of floating numbers as JAX arrays of "float32" or "float64".

    `put` makes JAX's of NumPy's.
    """

    def convert(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf  # a hyperparameter
        kind = precision if np.issubdtype(leaf.dtype, np.floating) else leaf.dtype
        return put(leaf.astype(kind))  # NumPy's arrays are rounded by NumPy: nothing is compiled

    return jax.tree.map(convert, tree)


def floats_as_arrays(tree: T, precision: str) -> T:
    """A controller with its hyperparameters as arrays: their values are no part of a compiled program."""
    kinds = float | np.floating  # NumPy's float32 is not a Python float
    return jax.tree.map(lambda leaf: np.asarray(leaf, precision) if isinstance(leaf, kinds) else leaf, tree)
