"""What the environments of Gymnasium and PettingZoo share: compiled programs, spaces, and arrays of NumPy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.env import functional
from partway.env.functional import Action, EnvState, Observation, reset_to, status, step_env
from partway.env.params import Params
from partway.errors import InputError, shown
from partway.program_cache import RUNS_ONCE, kept_jit

try:
    from gymnasium.spaces import Box
except ModuleNotFoundError as error:
    raise InputError("gymnasium is not installed: environments need the extra, pip install 'partway[env]'") from error

Info = dict[str, Any]
Begun = tuple[Observation, EnvState, dict[str, jax.Array]]
SEEDS = 2**32
"""Episodes have seeds below this number."""


@kept_jit(compiler_options=RUNS_ONCE)
def begin(seed: jax.Array, params: Params) -> Begun:
    """The first observation, the state and the info of an episode."""
    observation, state = reset_to(seed, params)
    return observation, state, status(state, params)


@kept_jit(compiler_options=RUNS_ONCE)
def begin_many(seeds: jax.Array, params: Params) -> Begun:
    """`begin` of several episodes, whose axis comes first; `params.number` may differ between them."""

    def each(seed: jax.Array, number: jax.Array) -> Begun:
        return begin.__wrapped__(seed, replace(params, number=number))

    return jax.vmap(each)(seeds, jnp.broadcast_to(params.number, seeds.shape))


@kept_jit()
def advance(
    state: EnvState, action: Action, params: Params
) -> tuple[Observation, EnvState, Any, jax.Array, jax.Array, Info]:
    """`step_env`."""
    return step_env(state, action, params)


@kept_jit()
def advance_many(
    state: EnvState, actions: Action, params: Params
) -> tuple[Observation, EnvState, Any, jax.Array, jax.Array, Info]:
    """`step_env` of several episodes, whose axis comes first; `params.number` may differ between them."""

    def each(state: EnvState, action: Action, number: jax.Array) -> Any:
        return step_env(state, action, replace(params, number=number))

    return jax.vmap(each)(state, actions, jnp.broadcast_to(params.number, state.seed.shape))


@kept_jit(compiler_options=RUNS_ONCE)
def central(state: EnvState, params: Params) -> jax.Array:
    """`functional.central`."""
    return functional.central(state, params)


def observations(size: int, precision: str) -> Box:
    """The space of an observation."""
    return Box(0.0, 1.0, (size,), np.dtype(precision).type)


def actions(size: int, precision: str) -> Box:
    """The space of an action."""
    return Box(-1.0, 1.0, (size,), np.dtype(precision).type)


def checked(action: Any, shape: tuple[int, ...], precision: str, who: str = "") -> np.ndarray:
    """An action as an array. Raises InputError for another shape and for NaN; what is out of range is clipped later."""
    try:
        array = np.asarray(action, precision)
    except (TypeError, ValueError):
        raise InputError(f"the action{who} must be numbers in the shape {shape}, got {shown(action)}") from None
    if array.shape != shape:
        raise InputError(f"the action{who} must have the shape {shape}, got {array.shape}")
    if np.isnan(array).any():
        raise InputError(f"the action{who} is not a number (NaN)")
    return array


def on_host(tree: Mapping[str, Any]) -> Info:
    """Arrays as NumPy's own, which a caller may keep and change, and single numbers as Python's."""
    leaves = jax.device_get(dict(tree))
    return {name: leaf.item() if leaf.ndim == 0 else np.array(leaf) for name, leaf in leaves.items()}
