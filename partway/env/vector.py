"""Gymnasium's environments for many episodes at once: one compiled program plays a block of all of them.

    envs = gymnasium.make_vec("partway/Device-v0", num_envs=128, scenario="paper")

Episodes have the same length, so all end in the same step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from partway.arguments import whole_number
from partway.env.functional import EnvState, action_size, observation_size
from partway.env.params import Params, device, system
from partway.env.shells import SEEDS, Info, actions, advance_many, begin_many, checked, observations
from partway.errors import InputError, shorten, shown

try:
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ModuleNotFoundError as error:
    raise InputError("gymnasium is not installed: environments need the extra, pip install 'partway[env]'") from error

MAX_ENVS = 100_000
MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)


class OneAgentVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many episodes of an environment of one agent, `DeviceVectorEnv` or `SystemVectorEnv`.

    scenario, precision, how  as in the function of `partway.env.functional` that makes the environment
    autoreset_mode  `AutoresetMode.NEXT_STEP`, as Gymnasium's own: the step after the last one of an episode begins the
                    next and ignores the action; or `SAME_STEP`: the last step begins it, and `info` has `final_obs` and
                    `final_info`
    """

    make: ClassVar[Callable[..., Params]]

    def __init__(
        self,
        scenario: Any = "paper",
        *,
        num_envs: int = 1,
        precision: str = "float32",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **how: Any,
    ):
        try:
            mode = AutoresetMode(autoreset_mode)
        except ValueError:
            mode = AutoresetMode.DISABLED
        if mode not in MODES:
            raise InputError(f"autoreset_mode must be NextStep or SameStep, got {shown(str(autoreset_mode))}")
        self.num_envs = whole_number("num_envs", num_envs, 1, MAX_ENVS)
        params = type(self).make(scenario, precision=precision, **_with_horizon(how))
        self.params, self.precision, self.autoreset_mode = params, precision, mode
        self.metadata = {"render_modes": [], "autoreset_mode": mode}
        self.single_observation_space = observations(observation_size(params), precision)
        self.single_action_space = actions(action_size(params), precision)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._state: EnvState | None = None
        self._over = False

    def reset(self, *, seed: int | Sequence[int] | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """First observations of new episodes, of seeds seed, seed + 1, ..., of the seeds given, or of new ones."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        if seed is None:
            seeds = self.np_random.integers(SEEDS, size=self.num_envs)
        else:
            seeds = seed + np.arange(self.num_envs) if isinstance(seed, int) else np.asarray(seed)
        if seeds.shape != (self.num_envs,):
            raise InputError(f"seed must be a whole number or a sequence of {self.num_envs}, got {shorten(str(seed))}")
        with jax.enable_x64(self.precision == "float64"):
            observation, self._state, info = begin_many((seeds % SEEDS).astype(np.uint32), self.params)
        self._over = False
        return np.array(observation), self._infos(info)

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """One block of every episode. Raises InputError for actions of another shape, and before the first `reset`."""
        if self._state is None:
            raise InputError("call reset before step")
        never = np.zeros(self.num_envs, bool)
        if self._over and self.autoreset_mode is AutoresetMode.NEXT_STEP:
            first, infos = self.reset()
            return first, np.zeros(self.num_envs), never, never.copy(), infos
        given = checked(actions, self.action_space.shape or (), self.precision)
        with jax.enable_x64(self.precision == "float64"):
            observation, self._state, reward, _, truncated, info = advance_many(self._state, given, self.params)
        last, infos, ends = np.array(observation), self._infos(info), np.array(truncated)
        self._over = bool(ends.any())
        if self._over and self.autoreset_mode is AutoresetMode.SAME_STEP:
            final = {"final_obs": _objects(last), "final_info": infos}
            last, begun = self.reset()
            infos = begun | final | {f"_{name}": np.ones(self.num_envs, bool) for name in final}
        return last, np.array(reward, np.float64), never, ends, infos

    def _infos(self, info: Info) -> Info:
        """Arrays of NumPy, and for each, as Gymnasium has it, which episodes have the entry: all of them."""
        arrays = {name: np.array(leaf) for name, leaf in jax.device_get(info).items()}
        return arrays | {f"_{name}": np.ones(self.num_envs, bool) for name in arrays}


def _objects(rows: np.ndarray) -> np.ndarray:
    """(num_envs,) an array of arrays, as Gymnasium has the last observations."""
    each = np.empty(len(rows), object)
    each[:] = list(rows)
    return each


class DeviceVectorEnv(OneAgentVectorEnv):
    """Many episodes of `partway/Device-v0`; other arguments are those of `partway.env.functional.device`.

    number  which device acts, or a sequence with one number for each episode
    """

    make = staticmethod(device)

    def __init__(self, scenario: Any = "paper", *, number: int | Sequence[int] = 0, **how: Any):
        super().__init__(scenario, **how)
        last = self.params.devices - 1
        given: Any = number
        if isinstance(given, str) or not np.iterable(given):
            numbers: Any = whole_number("number", given, 0, last)
        else:
            numbers = [whole_number("number", one, 0, last) for one in given]
            if len(numbers) != self.num_envs:
                raise InputError(
                    f"number must be a whole number or a sequence of {self.num_envs}, got {shorten(str(number))}"
                )
        self.params = replace(self.params, number=jnp.asarray(numbers, jnp.int32))


class SystemVectorEnv(OneAgentVectorEnv):
    """Many episodes of `partway/System-v0`; other arguments are those of `partway.env.functional.system`."""

    make = staticmethod(system)


def _with_horizon(how: dict[str, Any]) -> dict[str, Any]:
    """The arguments, in which `gymnasium.make_vec` may call the horizon `max_episode_steps`."""
    return {"horizon" if name == "max_episode_steps" else name: value for name, value in how.items()}
