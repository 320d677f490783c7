"""Gymnasium's environments `partway/Device-v0` and `partway/System-v0`.

    import gymnasium
    import partway.env

    env = gymnasium.make("partway/Device-v0", scenario="paper")

They hold a state and call `partway.env.functional`. The task never terminates: `terminated` is always False,
`truncated` is True when `horizon` blocks have passed. `reset(seed=3)` begins the episode of seed 3, whose arrivals and
channels are those that `partway.compare` has with this seed, whatever is done; without a seed an episode has a new one.
`info` holds costs, queues, gains and energies in the units of the model (`functional.outcome`, `functional.status`).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np

from partway.env.functional import EnvState, action_size, observation_size
from partway.env.params import Params, device, system
from partway.env.shells import SEEDS, Info, actions, advance, begin, checked, observations, on_host
from partway.errors import InputError

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise InputError("gymnasium is not installed: environments need the extra, pip install 'partway[env]'") from error


class OneAgentEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment of one agent, `DeviceEnv` or `SystemEnv`.

    scenario, precision, how  as in the function of `partway.env.functional` that makes the environment
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # declared so by Gymnasium
    make: ClassVar[Callable[..., Params]]

    def __init__(self, scenario: Any = "paper", *, precision: str = "float32", **how: Any):
        params = type(self).make(scenario, precision=precision, **how)
        self.params, self.precision = params, precision
        self.observation_space = observations(observation_size(params), precision)
        self.action_space = actions(action_size(params), precision)
        self._state: EnvState | None = None

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[np.ndarray, Info]:
        """The first observation of an episode, that of `seed`, or of a new one; there are no options."""
        super().reset(seed=seed)
        own = int(self.np_random.integers(SEEDS)) if seed is None else seed % SEEDS
        with jax.enable_x64(self.precision == "float64"):
            observation, self._state, info = begin(np.uint32(own), self.params)
        return np.array(observation), on_host(info) | {"seed": own}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, Info]:
        """One block. Raises InputError for an action of another shape, and before the first `reset`."""
        if self._state is None:
            raise InputError("call reset before step")
        given = checked(action, self.action_space.shape or (), self.precision)
        with jax.enable_x64(self.precision == "float64"):
            observation, self._state, reward, _, truncated, info = advance(self._state, given, self.params)
        return np.array(observation), float(reward), False, bool(truncated), on_host(info)


class DeviceEnv(OneAgentEnv):
    """`partway/Device-v0`: one device acts, the other devices and the server play a scheme, `priced` if not told.

    All play this scheme for `training` blocks and learn, then the others are frozen. Arguments and meaning are those of
    `partway.env.functional.device`: 8 numbers are observed, 2 are the action, and the reward is minus the device's own
    terms of (8) and the price of the work that it sends.
    """

    make = staticmethod(device)


class SystemEnv(OneAgentEnv):
    """`partway/System-v0`: one agent acts for all devices and the server, and sees all queues and channels.

    Arguments and meaning are those of `partway.env.functional.system`; the reward is minus the cost (8) of a block.
    """

    make = staticmethod(system)
