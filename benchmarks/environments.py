"""`partway/System-v0` for many episodes at once beside the same environment in plain NumPy, as a user would write it.

one by one  an environment of arrays (K,) for each episode, in Gymnasium's SyncVectorEnv
batched     one environment of arrays (S, K) for all episodes
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from benchmarks.fleet import Array, Chance, Fleet, OwnDraws, fleet_of
from benchmarks.worlds import overrides, world_of
from partway.env.vector import DeviceVectorEnv, SystemVectorEnv

MEASURED_S = 0.5
"""Seconds of one measurement, about."""
TRAINING = 200
"""Blocks that the others of `partway/Device-v0` learn."""


class NumpyBlocks:
    """(1)-(8) for arrays (..., K), with the observation, action and reward of `partway/System-v0`."""

    def __init__(self, fleet: Fleet, chance: Chance, alone: bool):
        """`alone`: one episode, without an axis of episodes."""
        self.fleet, self.chance, self.alone = fleet, chance, alone
        ease = fleet.energy_coef / (fleet.slot_s * fleet.snr_gap * np.expm1(fleet.reach))
        self.ease_db = 10.0 * np.log10(ease)
        self.startable = np.floor(fleet.capacity + 1e-4) + 1.0

    def begin(self) -> Array:
        """The first observation."""
        self.t, self.gain = 0, self._own(self.chance.first())
        self.q, self.backlog = np.zeros_like(self.gain), np.zeros(self.gain.shape[:-1], self.gain.dtype)
        self.inflow, self.arrived = self.backlog, np.zeros_like(self.q)
        return self.observation()

    def block(self, action: Array) -> tuple[Array, Array]:
        """The next observation, and the reward."""
        fleet, k = self.fleet, self.fleet.devices
        wanted = (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
        offload = np.minimum(wanted[..., k : 2 * k], np.minimum(self.q, 1.0))
        most = self.q - np.maximum(np.ceil(self.q - offload - fleet.capacity - 1e-4), 0.0)
        started = np.minimum(np.floor(wanted[..., :k] * (self.startable + 1.0) + 1e-4), most)
        offload = np.where(started >= offload, offload, 0.0)
        service = wanted[..., 2 * k :] * fleet.server_capacity
        power = fleet.snr_gap / self.gain * np.expm1(fleet.reach * offload)
        joules = fleet.energy_coef * (started - offload) ** 3 + fleet.slot_s * power
        cost = np.sum(fleet.queue_weight * self.q + fleet.energy_weight * joules, axis=-1)
        cost += fleet.server_queue_weight * self.backlog
        cost += fleet.server_energy_weight * fleet.server_coef * np.sum(service**3, axis=-1)
        arrivals, gain = self.chance.block(self.t)
        self.t, self.gain, self.arrived = self.t + 1, self._own(gain), np.sum(self._own(arrivals), axis=-2)
        self.inflow = np.sum(offload, axis=-1)
        self.q = self.q - started + self.arrived
        self.backlog = np.maximum(self.backlog - np.sum(service, axis=-1), 0.0) + self.inflow
        return self.observation(), -cost

    def observation(self) -> Array:
        """(..., 2 + 4 K)."""
        fleet = self.fleet
        work = np.stack([self.backlog, self.inflow], axis=-1)
        ease = np.clip(0.5 + (self.ease_db + 10.0 * np.log10(self.gain)) / 80.0, 0.0, 1.0)
        parts = (
            work / (work + fleet.devices),
            self.q / (self.q + self.startable),
            self.arrived / fleet.slots,
            self.gain / (self.gain + fleet.mean_gain),
            ease,
        )
        return np.concatenate(parts, axis=-1)

    def _own(self, drawn: Array) -> Array:
        return drawn[0] if self.alone else drawn


class NumpyEnv(gymnasium.Env[Array, Array]):
    """One episode, as an environment of Gymnasium."""

    def __init__(self, fleet: Fleet, seed: int, horizon: int = 1000):
        self.blocks, self.horizon = NumpyBlocks(fleet, OwnDraws(fleet, 1, seed), alone=True), horizon
        low, high = np.float32(0.0), np.float32(1.0)
        self.observation_space = gymnasium.spaces.Box(low, high, (2 + 4 * fleet.devices,))
        self.action_space = gymnasium.spaces.Box(-high, high, (2 * fleet.devices + fleet.slots,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        """The first observation."""
        super().reset(seed=seed)
        return self.blocks.begin(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One block."""
        observation, reward = self.blocks.block(action)
        return observation, float(reward), False, self.blocks.t >= self.horizon, {}


def environments(devices: int, episodes: int, repeats: int = 5) -> dict[str, Any]:
    """Device-blocks a second of Partway's two environments and of both in NumPy, measured in turn."""
    fleet, lanes = fleet_of(world_of(devices), "float32"), devices * episodes
    how: dict[str, Any] = {"overrides": overrides(devices), "num_envs": episodes}
    system, device = SystemVectorEnv("paper", **how), DeviceVectorEnv("paper", training=TRAINING, **how)
    batched = NumpyBlocks(fleet, OwnDraws(fleet, episodes), alone=False)
    each = gymnasium.vector.SyncVectorEnv([partial(NumpyEnv, fleet, seed) for seed in range(episodes)])
    random = np.random.default_rng(0)
    actions = random.uniform(-1, 1, (episodes, 2 * devices + fleet.slots)).astype(np.float32)
    of_device = np.ascontiguousarray(actions[:, :2])
    for env in (system, device, each):
        env.reset(seed=0)
    batched.begin()
    plays = {
        "system": partial(_rate, lambda: system.step(actions), lanes),
        "device": partial(_rate, lambda: device.step(of_device), lanes),
        "batched": partial(_rate, lambda: batched.block(actions), lanes),
        "one_by_one": partial(_rate, lambda: each.step(actions), lanes),
    }
    found: dict[str, list[float]] = {name: [] for name in plays}
    for repeat in range(repeats + 1):
        for name, play in plays.items():
            rate = play()
            found[name] += [rate] * (repeat > 0)  # the first time compiles
    return found


def _rate(step: Callable[[], Any], lanes: int) -> float:
    """Device-blocks a second of a step that is repeated for MEASURED_S."""
    start, blocks = time.perf_counter(), 0
    while blocks == 0 or time.perf_counter() - start < MEASURED_S:
        step()
        blocks += 1
    return lanes * blocks / (time.perf_counter() - start)
