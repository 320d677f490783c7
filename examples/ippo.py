"""Independent PPO in JAX, in one file: all devices share one network, and the server follows `priced`. In this folder:

    python ippo.py
    python ippo.py --seeds 10 --updates 400

A device observes 8 numbers and is paid minus its own cost and the price of what it sends. Training and environment are
one compiled program. What each seed has learned is then run by `partway.evaluate` on other episodes, and its gap to the
lower bound is printed beside those of `constant` and `priced`.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp

import partway
from partway.env import functional

EPISODES, STEPS, EPOCHS, MINIBATCHES = 4, 64, 4, 4
GAMMA, LAMBDA, CLIP, RATE, WIDTH = 0.95, 0.95, 0.2, 1e-3, 64
REWARD_UNIT = 100.0
"""Rewards are divided by it, so that values are of order one."""
HORIZON = 200
"""Blocks of an episode: an early policy under which queues overflow begins again soon."""
FIRST_SEED = 1000
"""Training draws its episodes from keys from here on; those of the evaluation have the seeds of `compare`, 0 to 7."""


def network(key, sizes=(8, WIDTH, WIDTH)):
    """Two hidden layers each for the mean of the action and for the value, and the logarithm of its deviation."""

    def layers(key, last):
        keys = jax.random.split(key, len(sizes))
        pairs = zip(keys, (*sizes,), (*sizes[1:], last), strict=True)
        made = [(jax.random.normal(k, (a, b)) / jnp.sqrt(a), jnp.zeros(b)) for k, a, b in pairs]
        return [*made[:-1], (0.1 * made[-1][0], made[-1][1])]

    for_mean, for_value = jax.random.split(key)
    return {"mean": layers(for_mean, 2), "value": layers(for_value, 1), "log_std": jnp.full(2, -0.7)}


def forward(layers, x):
    for weights, bias in layers[:-1]:
        x = jnp.tanh(x @ weights + bias)
    return x @ layers[-1][0] + layers[-1][1]


def log_prob(net, observation, action):
    z = (action - forward(net["mean"], observation)) / jnp.exp(net["log_std"])
    return jnp.sum(-0.5 * z**2 - net["log_std"], axis=-1)


def value(net, observation):
    return forward(net["value"], observation)[..., 0]


def rollout(net, key, states, observations, params):
    """STEPS blocks of all episodes, (STEPS, EPISODES, K) each."""

    def block(carry, key):
        states, seen = carry
        of_action, of_step = jax.random.split(key)
        mean = forward(net["mean"], seen)
        action = mean + jnp.exp(net["log_std"]) * jax.random.normal(of_action, mean.shape)
        step = jax.vmap(functional.step, in_axes=(0, 0, 0, None))
        keys = jax.random.split(of_step, EPISODES)
        then, states, reward, _, truncated, info = step(keys, states, {"devices": action}, params)
        kept = {
            "seen": seen,
            "action": action,
            "log_prob": log_prob(net, seen, action),
            "value": value(net, seen),
            "reward": reward["devices"] / REWARD_UNIT,
            "next_value": value(net, info["final_observation"]["devices"]),  # the task goes on after the horizon
            "goes_on": jnp.broadcast_to(1.0 - truncated[:, None], reward["devices"].shape),
        }
        return (states, then["devices"]), kept

    return jax.lax.scan(block, (states, observations), jax.random.split(key, STEPS))


def advantages(batch):
    """Generalised advantage estimation, backwards in time."""
    delta = batch["reward"] + GAMMA * batch["next_value"] - batch["value"]

    def back(after, at):
        now = at[0] + GAMMA * LAMBDA * at[1] * after
        return now, now

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, batch["goes_on"]), reverse=True)[1]


def loss(net, batch):
    ratio = jnp.exp(log_prob(net, batch["seen"], batch["action"]) - batch["log_prob"])
    gain = (batch["advantage"] - batch["advantage"].mean()) / (batch["advantage"].std() + 1e-8)
    surrogate = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * gain)
    return -surrogate.mean() + 0.5 * jnp.mean((value(net, batch["seen"]) - batch["target"]) ** 2)


def adam(net, moments, grad, count, rate):
    """One step of Adam (Kingma and Ba, 2015)."""
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grad)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments[1], grad)
    step = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
    return jax.tree.map(lambda p, m, v: p - step * m / (jnp.sqrt(v) + 1e-8), net, first, second), (first, second)


def update(learner, key, params, rate):
    """One rollout and EPOCHS passes over it; returns the learner and the mean reward."""
    net, moments, count, states, observations = learner
    of_rollout, of_order = jax.random.split(key)
    (states, observations), batch = rollout(net, of_rollout, states, observations, params)
    advantage = advantages(batch)
    batch |= {"advantage": advantage, "target": advantage + batch["value"]}
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), batch)
    size = flat["reward"].shape[0] // MINIBATCHES

    def minibatch(carry, rows):
        net, moments, count = carry
        grad = jax.grad(loss)(net, jax.tree.map(lambda leaf: leaf[rows], flat))
        return (*adam(net, moments, grad, count, rate), count + 1), None

    orders = [jax.random.permutation(k, size * MINIBATCHES) for k in jax.random.split(of_order, EPOCHS)]
    rows = jnp.concatenate(orders).reshape(-1, size)
    (net, moments, count), _ = jax.lax.scan(minibatch, (net, moments, count), rows)
    return (net, moments, count, states, observations), REWARD_UNIT * batch["reward"].mean()


@partial(jax.jit, static_argnames="updates")
def train(key, params, updates, rate=RATE):
    """The network after so many updates, and the mean reward of each."""
    of_net, of_episodes, of_updates = jax.random.split(key, 3)
    net = network(of_net)
    keys = jax.random.split(of_episodes, EPISODES)
    observations, states = jax.vmap(functional.reset, in_axes=(0, None))(keys, params)
    nothing = jax.tree.map(jnp.zeros_like, net)
    learner = (net, (nothing, nothing), 1.0, states, observations["devices"])
    learner, rewards = jax.lax.scan(
        lambda learner, key: update(learner, key, params, rate), learner, jax.random.split(of_updates, updates)
    )
    return learner[0], rewards


def policy(net):
    """The agent that `partway.evaluate` takes: the mean of the action."""
    return jax.jit(lambda observation: forward(net["mean"], observation))


def main(scenario="paper", seeds=3, updates=200, **how):
    params = functional.parallel(scenario, server="priced", reward="priced", horizon=HORIZON)
    budget = updates * STEPS * EPISODES * params.devices
    print(f"{seeds} seeds, {updates} updates, {budget:,} device-steps each")
    for seed in range(seeds):
        net, rewards = train(jax.random.key(FIRST_SEED + seed), params, updates)
        summary = partway.evaluate(policy(net), scenario, **how)
        said = f"{100 * summary.gap.whole.mean:.2f} % above the bound" if summary.gap else summary.reason
        print(f"ippo, seed {seed}: {said}, reward {rewards[0]:.2f} at first, {rewards[-1]:.2f} at the end")
    for summary in partway.summarise(partway.compare(scenario, schemes=["constant", "priced"], **how)):
        print(f"{summary.name}: {100 * summary.gap.whole.mean:.2f} % above the bound")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="paper")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=200)
    main(**vars(parser.parse_args()))
