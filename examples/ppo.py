"""PPO of stable-baselines3 on one device, evaluated on all of them. In this folder:

    pip install stable-baselines3
    python ppo.py
    python ppo.py --seeds 10 --steps 500000

One model learns in 20 episodes at once; in each it acts for another device, and the others follow `priced`. What it has
learned is then run by `partway.evaluate` for every device, on other episodes, and its gap to the lower bound is printed
beside those of `constant` and `priced`.
"""

import argparse

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

import partway
import partway.env  # registers the environments

RATE = 1e-3
"""Step size of Adam."""
FIRST_SEED = 1000
"""Seeds of training begin here; episodes of the evaluation have the seeds of `compare`, 0 to 7."""


class Episodes(VecEnv):
    """A vector environment of Gymnasium with the methods that stable-baselines3 calls."""

    def __init__(self, envs):
        self.envs, self.actions = envs, None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self):
        observations, _ = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        return observations

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        observations, rewards, terminated, truncated, infos = self.envs.step(self.actions)
        each = [{} for _ in rewards]
        for i in np.flatnonzero(truncated):  # the task continues after the horizon, so values are bootstrapped
            each[i] = {"terminal_observation": infos["final_obs"][i], "TimeLimit.truncated": True}
        return observations, rewards, terminated | truncated, each

    def close(self):
        self.envs.close()

    def get_attr(self, attr_name, indices=None):
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError

    def env_method(self, method_name, *method_args, indices=None, **method_kwargs):
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * len(list(self._get_indices(indices)))


def train(scenario, devices, seed, steps, rate=RATE):
    """A model that has seen `steps` blocks of devices 0, 1, ...; only rewards are normalised."""
    envs = gymnasium.make_vec(
        "partway/Device-v0",
        num_envs=devices,
        scenario=scenario,
        number=range(devices),
        horizon=200,
        autoreset_mode="SameStep",
    )
    normalised = VecNormalize(Episodes(envs), norm_obs=False, gamma=0.95)
    how = {"n_steps": 128, "batch_size": 256, "gamma": 0.95, "seed": FIRST_SEED + devices * seed, "device": "cpu"}
    return PPO("MlpPolicy", normalised, learning_rate=rate, **how).learn(steps)


def main(scenario="paper", devices=20, seeds=3, steps=200_000, **how):
    print(f"{seeds} seeds, {steps:,} device-steps each")
    for seed in range(seeds):
        summary = partway.evaluate(train(scenario, devices, seed, steps), scenario, **how)
        said = f"{100 * summary.gap.whole.mean:.2f} % above the bound" if summary.gap else summary.reason
        print(f"ppo, seed {seed}: {said}")
    for summary in partway.summarise(partway.compare(scenario, schemes=["constant", "priced"], **how)):
        print(f"{summary.name}: {100 * summary.gap.whole.mean:.2f} % above the bound")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="paper")
    parser.add_argument("--devices", type=int, default=20, help="so many of the scenario's devices are trained on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200_000)
    main(**vars(parser.parse_args()))
