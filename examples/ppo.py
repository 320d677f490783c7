"""PPO of stable-baselines3 on one device, evaluated on all of them. In this folder:

    pip install stable-baselines3
    python ppo.py
    python ppo.py --seeds 10 --steps 500000

One model learns in 20 environments at once; in each it acts for another device, and the others play `priced`. What it
has learned is then run by `partway.evaluate` for every device, on other episodes, and its gap to the lower bound is
printed beside those of `constant` and `priced`.
"""

import argparse

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import partway
import partway.env  # registers the environments


def make(scenario, number):
    return lambda: gymnasium.make("partway/Device-v0", scenario=scenario, number=number, horizon=200)


def train(scenario, devices, seed, steps):
    """A model that has seen `steps` blocks of devices 0, 1, ...; only rewards are normalised."""
    envs = VecNormalize(
        VecMonitor(DummyVecEnv([make(scenario, k) for k in range(devices)])), norm_obs=False, gamma=0.95
    )
    model = PPO("MlpPolicy", envs, n_steps=128, batch_size=256, gamma=0.95, seed=seed, device="cpu")
    return model.learn(steps)


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
