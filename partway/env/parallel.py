"""PettingZoo's environment: every device is an agent, and so is the server, unless it plays a scheme.

    from partway.env import parallel

    env = parallel.parallel_env("paper", max_cycles=1000)

Agents are `device_0`, `device_1`, ..., and `server_0`. They act at once, so `parallel_env` is the environment, and
`env` is the same for code that wants one agent after the other. Nobody terminates; all are truncated after `max_cycles`
blocks. Observations, actions and rewards are those of `partway.env.functional.parallel`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from partway.env.functional import EnvState, action_size, observation_size
from partway.env.params import Params, parallel
from partway.env.shells import SEEDS, Info, actions, advance, begin, central, checked, observations, on_host
from partway.errors import InputError, shorten

try:
    from gymnasium.spaces import Box
    from gymnasium.utils import seeding
    from pettingzoo import AECEnv, ParallelEnv
    from pettingzoo.utils.conversions import parallel_to_aec
except ModuleNotFoundError as error:
    raise InputError("pettingzoo is not installed: environments need the extra, pip install 'partway[env]'") from error

SERVER = "server_0"
"""The server's name among the agents: PettingZoo asks for a word and a number."""
OF_DEVICE = ("gain", "arrivals", "q", "started", "offload", "power", "energy_j", "device_cost", "share", "payment")
"""What of `info` has a value for each device."""


class OffloadingEnv(ParallelEnv[str, np.ndarray, np.ndarray | None]):
    """Devices, and the server unless `params` has a scheme for it, as agents.

    max_cycles  blocks of an episode
    """

    metadata = {"name": "offloading_v0", "render_modes": [], "is_parallelizable": True}  # noqa: RUF012  # PettingZoo's

    def __init__(self, params: Params, precision: str):
        self.params, self.precision, self.max_cycles = params, precision, int(params.horizon)
        self.render_mode = None
        self._devices = [f"device_{k}" for k in range(params.devices)]
        self.possible_agents = [*self._devices, *([SERVER] if params.server_acts else [])]
        self.agents = list[str]()
        seen, done = observation_size(params), action_size(params)
        kinds = {agent: "server" if agent == SERVER else "devices" for agent in self.possible_agents}
        self._observation = {agent: observations(seen[kind], precision) for agent, kind in kinds.items()}
        self._action = {agent: actions(done[kind], precision) for agent, kind in kinds.items()}
        self.state_space = observations(2 + 4 * params.devices, precision)
        self._state: EnvState | None = None
        self._random, _ = seeding.np_random()

    def observation_space(self, agent: str) -> Box:
        """The space of an agent's observations, the same object at every call."""
        return self._observation[agent]

    def action_space(self, agent: str) -> Box:
        """The space of an agent's actions, the same object at every call."""
        return self._action[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Info]]:
        """First observations of the episode of a seed, or of a new one; there are no options."""
        if seed is not None:
            self._random, _ = seeding.np_random(seed)
        own = int(self._random.integers(SEEDS)) if seed is None else seed % SEEDS
        self.agents = self.possible_agents.copy()
        with jax.enable_x64(self.precision == "float64"):
            observation, self._state, info = begin(np.uint32(own), self.params)
        return self._by_agent(observation), self._infos(info)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Info]]:
        """One block; the agents leave when it is the last. Raises InputError for actions that are missing or wrong."""
        if self._state is None:
            raise InputError("call reset before step")
        if not self.agents:
            return {}, {}, {}, {}, {}
        given = self._given(actions)
        with jax.enable_x64(self.precision == "float64"):
            observation, self._state, reward, _, _, info = advance(self._state, given, self.params)
        rewards = {agent: float(value) for agent, value in self._by_agent(reward).items()}
        over, infos, seen = int(info["block"]) >= self.max_cycles, self._infos(info), self._by_agent(observation)
        truncated = dict.fromkeys(self.agents, over)
        terminated = dict.fromkeys(self.agents, False)
        self.agents = [] if over else self.agents
        return seen, rewards, terminated, truncated, infos

    def state(self) -> np.ndarray:
        """(2 + 4 K,) what one agent that acts for all would observe, for central training."""
        if self._state is None:
            raise InputError("call reset before state")
        with jax.enable_x64(self.precision == "float64"):
            return np.array(central(self._state, self.params))

    def _given(self, actions: Mapping[str, Any]) -> dict[str, np.ndarray]:
        missing = [agent for agent in self.agents if actions.get(agent) is None]
        if missing:
            raise InputError(f"step needs an action of every agent; missing: {shorten(', '.join(missing))}")
        each = {
            agent: checked(actions[agent], self._action[agent].shape or (), self.precision, f" of {agent}")
            for agent in self.agents
        }
        of_devices = {"devices": np.stack([each[agent] for agent in self._devices])}
        return of_devices | ({"server": each[SERVER]} if SERVER in each else {})

    def _by_agent(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """A copy of each agent's part."""
        parts = {name: np.array(leaf) for name, leaf in jax.device_get(dict(values)).items()}
        each = {agent: parts["devices"][k].copy() for k, agent in enumerate(self._devices)}
        return each | ({SERVER: parts["server"]} if "server" in parts else {})

    def _infos(self, info: Mapping[str, Any]) -> dict[str, Info]:
        """For a device its own numbers and those of the whole system, for the server all numbers of all devices."""
        whole = on_host(info)
        shared = {name: value for name, value in whole.items() if not isinstance(value, np.ndarray)}
        own = {name: whole[name] for name in OF_DEVICE if name in whole}
        infos = {agent: shared | _of_device(own, k) for k, agent in enumerate(self._devices)}
        return infos | ({SERVER: whole} if SERVER in self.possible_agents else {})


def _of_device(own: Info, k: int) -> Info:
    return {name: values[..., k].copy() if values.ndim > 1 else values[k].item() for name, values in own.items()}


def parallel_env(
    scenario: Any = "paper", *, max_cycles: int = 1000, precision: str = "float32", **how: Any
) -> OffloadingEnv:
    """The environment in which all agents act at once. Other arguments as in `partway.env.functional.parallel`."""
    return OffloadingEnv(parallel(scenario, horizon=max_cycles, precision=precision, **how), precision)


def env(scenario: Any = "paper", **how: Any) -> AECEnv[str, np.ndarray, np.ndarray | None]:
    """The same for agents that act one after the other; arguments as in `parallel_env`."""
    return parallel_to_aec(parallel_env(scenario, **how))
