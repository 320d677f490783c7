"""Runs that are computed together: stacked where they differ, and divided into the shares of compiled calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from partway.bound.certificate import Certificate
from partway.controllers.base import ControllerPair
from partway.measurement.metrics import Parties
from partway.pytree import cast_floats
from partway.simulation.sharding import reshard, shard
from partway.simulation.step import Carry
from partway.system.world import World

T = TypeVar("T")
Stacked = tuple[bool, ...]
"""For every leaf of a tree: whether it has an axis of runs in front, or is the same for all runs."""


@dataclass(frozen=True)
class Batch:
    """Runs that are computed together, by what differs between them."""

    world: World
    certificate: Certificate | None
    stacked: Stacked
    certificate_stacked: Stacked
    seeds: np.ndarray
    init_keys: jax.Array
    action_keys: jax.Array

    @property
    def fleet(self) -> int:
        """Devices of a run."""
        return self.world.devices.mean_gain.shape[-1]


@dataclass(frozen=True)
class Share:
    """Runs of one compiled call. `parties` and `parties_stacked` are of the program that measures them."""

    world: World
    parties: Parties
    pair: ControllerPair
    carry: Carry
    seeds: np.ndarray
    action_keys: jax.Array
    stacked: Stacked
    parties_stacked: Stacked


def stack(trees: Sequence[T], every: bool = False) -> tuple[T, Stacked]:
    """One tree for all runs: leaves that differ between them, or `every` one, have the axis of runs in front.

    Raises ValueError if the trees differ in structure or shapes.
    """
    columns = [jax.tree.leaves(tree) for tree in trees]
    structure = jax.tree.structure(trees[0])
    if any(jax.tree.structure(tree) != structure for tree in trees):
        raise ValueError("runs that are computed together must agree in static fields")
    stacked, leaves = list[bool](), list[Any]()
    for column in zip(*columns, strict=True):
        differ = every or any(one is not column[0] and not np.array_equal(one, column[0]) for one in column)
        stacked.append(differ)
        leaves.append(np.stack([np.asarray(one) for one in column]) if differ else column[0])
    return jax.tree.unflatten(structure, leaves), tuple(stacked)


def only(tree: T, stacked: Stacked) -> T:
    """The tree of the only run."""
    leaves = [leaf[0] if has else leaf for leaf, has in zip(jax.tree.leaves(tree), stacked, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def axes_of(tree: T, stacked: Stacked) -> T:
    """`in_axes` of a tree."""
    return jax.tree.unflatten(jax.tree.structure(tree), [0 if has else None for has in stacked])


def divide(batch: Batch, pair: ControllerPair, carry: Carry, count: int, mesh: Mesh | None) -> list[Share]:
    """The runs in `count` equal shares; by NumPy, which has nothing to compile."""
    precision = "float64" if carry.state.q.dtype == jnp.float64 else "float32"
    put = partial(shard, mesh, batch.fleet) if mesh else jnp.asarray
    worlds = _split_stacked(batch.world, batch.stacked, count)
    certificates = _split_stacked(batch.certificate, batch.certificate_stacked, count)
    rest = _split((pair, carry, batch.seeds, batch.action_keys), count)
    of_parties, shares = _parties_stacked(batch), list[Share]()
    for world, certificate, (own, before, seeds, keys) in zip(worlds, certificates, rest, strict=True):
        concrete: World = cast_floats(world, precision, put)
        parties = Parties(concrete.devices, concrete.server, certificate)
        begin = jax.tree.map(partial(reshard, mesh, batch.fleet), before) if mesh else before
        shares.append(Share(concrete, parties, own, begin, seeds, keys, batch.stacked, of_parties))
    return shares


def _parties_stacked(batch: Batch) -> Stacked:
    """Which leaves of `Parties` differ between runs."""
    kinds = jax.tree.unflatten(jax.tree.structure(batch.world), batch.stacked)
    return (*jax.tree.leaves((kinds.devices, kinds.server)), *batch.certificate_stacked)


def _split_stacked(tree: T, stacked: Stacked, count: int) -> list[T]:
    """A tree for each share; leaves without an axis of runs are the same for all."""
    columns = [
        np.split(np.asarray(leaf), count) if has else [leaf] * count
        for leaf, has in zip(jax.tree.leaves(tree), stacked, strict=True)
    ]
    return [jax.tree.unflatten(jax.tree.structure(tree), [column[i] for column in columns]) for i in range(count)]


def _split(tree: Any, count: int) -> list[Any]:
    """A tree divided into equal pieces along the first axis of every leaf."""
    if count == 1:
        return [tree]
    pieces = jax.tree.map(
        lambda leaf: jnp.split(leaf, count) if _is_key(leaf) else np.split(np.asarray(leaf), count), tree
    )
    return list(jax.tree.transpose(jax.tree.structure(tree), jax.tree.structure([0] * count), pieces))


def joined(trees: Sequence[Any]) -> Any:
    """The tree that `_split` has divided."""
    if len(trees) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: (jnp if _is_key(leaves[0]) else np).concatenate(leaves), *trees)


def _is_key(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
