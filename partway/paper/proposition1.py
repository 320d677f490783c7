"""Proposition 1: both sides of (37) for devices and of (38) for the server, along a run, with the true norm.

We have the proposition's content, not its printed page. As we read it, the squared distance of the learned Q from the
true one is at most the remaining squared TD error, summed with gamma^t:

    E (Q(s_t, a_t; theta_t) - Q_true(s_t, a_t))^2  <=  E delta^2 / (1 - gamma)          (37) devices, (38) server

A bound that is certain has (1 - gamma)^2 there, and the largest error instead of the mean one. Q_true is the discounted
cost of the policy of block t from that block on: the run is continued several times from the same state, each time with
independent random numbers and without learning. The product of two continuations is unbiased, the square of one is not
(double sampling, which (41)-(45) overlook). Costs are in the learner's units, `typical_device_cost` and
`typical_server_cost`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerPair, required
from partway.controllers.block import Transition
from partway.controllers.features import device_features, server_features, typical_device_cost, typical_server_cost
from partway.controllers.parametric import Algorithm1
from partway.paper.claims import CANDIDATES, READINGS, Points
from partway.paper.figure_runs import Sizes
from partway.paper.statistics import NOT_APPLICABLE, decide, deciding, verdict
from partway.paper.verdicts import Verdict
from partway.pytree import cast_floats
from partway.rng import controller_keys, stable_hash
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for
from partway.simulation.rollout import Options, run_blocks
from partway.simulation.schedule import BLOCKS_PER_TILE
from partway.simulation.step import Carry, device_views, init, server_view, step
from partway.system.equations import device_cost, server_cost, server_energy
from partway.system.exogenous import sample
from partway.system.placement import sample_placement
from partway.system.world import World, build

DISCOUNTS = (0.9, 0.95, 0.99, 0.999)
DEVICES = 4
FUTURES = 4
"""Continuations from each state."""
FUTURE_BLOCKS = 4605
"""Of a continuation: gamma^4605 is 1 % at gamma = 0.999."""
ERROR_BLOCKS = 200
"""Blocks of a continuation over which delta^2 is averaged."""
MAX_RATIO = 1000.0
"""Right side over left side in a replicate whose left side, an unbiased estimate of a square, is not above 0."""
PARTIES = {"device": "(37)", "server": "(38)"}


@dataclass(frozen=True)
class Bounds:
    """Both sides at one discount: {party: (checkpoints, replicates)}, means over devices.

    left      squared distance of the learned Q from the true one
    error     mean squared TD error        residual  squared mean TD error, without the noise of single samples
    """

    discount: float
    left: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]
    residual: Mapping[str, np.ndarray]

    def right(self, party: str) -> np.ndarray:
        """E delta^2 / (1 - gamma): the right side, as we read it."""
        return self.error[party] / (1.0 - self.discount)

    def certain(self, party: str) -> np.ndarray:
        """E delta^2 / (1 - gamma)^2: the form of a bound that is certain."""
        return self.error[party] / (1.0 - self.discount) ** 2


@dataclass(frozen=True)
class PropositionJob:
    """Both sides for one variant of Algorithms 1 and 2 under one reading of (1), at all discounts."""

    scheme: str
    reading: str
    seeds: tuple[int, ...]
    preset: str = "paper"
    checkpoints: tuple[int, ...] = Points().checkpoints
    future_blocks: int = FUTURE_BLOCKS

    figure = "P1"

    def label(self) -> str:
        """Words for the name of its file."""
        return f"P1-{self.scheme}-{self.reading}"

    def scenario(self, placement_seed: int | None = None) -> Scenario:
        """The scenario of a replicate, by default of the first."""
        changed: dict[str, Any] = {"devices": DEVICES, "queue": self.reading, f"schemes.{self.scheme}.stop": False}
        changed["placement_seed"] = self.seeds[0] if placement_seed is None else placement_seed
        return load(self.preset, changed)

    def device_blocks(self) -> int:
        """Its size: devices x blocks x runs."""
        return DEVICES * len(DISCOUNTS) * len(self.seeds) * len(self.checkpoints) * FUTURES * self.future_blocks

    def run(self) -> dict[str, np.ndarray]:
        """Arrays {party}_{left, error, residual}, (discounts, checkpoints, replicates)."""
        sides = [self._at(discount) for discount in DISCOUNTS]
        return {name: np.stack([one[name] for one in sides]) for name in sides[0]}

    def _at(self, discount: float) -> dict[str, np.ndarray]:
        scenarios = [self.scenario(seed) for seed in self.seeds]
        world = cast_floats(build(scenarios[0], sample_placement(scenarios[0])), "float32")
        gamma = jnp.float32(discount)
        world = replace(
            world,
            devices=replace(world.devices, discount=gamma * jnp.ones(DEVICES)),
            server=replace(world.server, discount=gamma),
        )
        gain = jnp.asarray(
            np.stack([sample_placement(scenario).mean_gain_per_w for scenario in scenarios]), jnp.float32
        )
        seeds = jnp.asarray(self.seeds, jnp.uint32)
        keys = jax.vmap(partial(controller_keys, name_hash=jnp.uint32(stable_hash(self.scheme))))(seeds)
        pair = pair_for(self.scheme, scenarios[0])
        lengths = (self.checkpoints, self.future_blocks)
        sides = _sides(world, pair, gain, seeds, keys, lengths)
        return {name: np.asarray(values).T for name, values in sides.items()}


@partial(jax.jit, static_argnames="lengths")
def _sides(
    world: World,
    pair: ControllerPair,
    gain: jax.Array,
    seeds: jax.Array,
    keys: jax.Array,
    lengths: tuple[tuple[int, ...], int],
) -> dict[str, jax.Array]:
    """{name: (replicates, checkpoints)}."""
    checkpoints, future_blocks = lengths

    def lane(gain: jax.Array, seed: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
        own = replace(world, devices=replace(world.devices, mean_gain=gain))
        shared, carry = init(own, pair, seed, keys)
        first, sides = 0, list[dict[str, jax.Array]]()
        for checkpoint in checkpoints:
            now, blocks = jnp.uint32(first), Options(checkpoint - first, gcd(checkpoint - first, BLOCKS_PER_TILE))
            carry, _ = run_blocks(own, shared, carry, seed, keys[2], now, blocks)
            sides.append(_measure(own, shared, carry, seed, keys[2], checkpoint, future_blocks))
            first = checkpoint
        return jax.tree.map(lambda *each: jnp.stack(each), *sides)

    return jax.vmap(lane)(gain, seeds, keys)


def _measure(
    world: World, pair: ControllerPair, carry: Carry, seed: jax.Array, key: jax.Array, block: int, future_blocks: int
) -> dict[str, jax.Array]:
    """Both sides at one state: from every party's Q there, the cost from there on, and the TD errors after it."""
    seeds = seed + jnp.uint32(2**31) + jnp.arange(FUTURES, dtype=jnp.uint32) * jnp.uint32(2**20)
    future = jax.vmap(lambda own: _future(world, pair, carry, own, key, block, future_blocks))
    returns, errors = future(seeds)
    learned, sides = _values(world, pair, carry), dict[str, jax.Array]()
    for party in PARTIES:
        distance = learned[party] - returns[party]  # (futures, devices) or (futures,)
        sides[f"{party}_left"] = jnp.mean(unbiased_square(distance))
        sides[f"{party}_error"] = jnp.mean(errors[party] ** 2)
        sides[f"{party}_residual"] = jnp.mean(unbiased_square(errors[party][:, 0]))
    return sides


def unbiased_square(samples: jax.Array) -> jax.Array:
    """Unbiased estimate of (E x)^2 from (samples, ...) independent x: the mean product of two different ones."""
    count = samples.shape[0]
    return (jnp.sum(samples, axis=0) ** 2 - jnp.sum(samples**2, axis=0)) / (count * (count - 1))


Values = dict[str, jax.Array]


def _future(
    world: World, pair: ControllerPair, carry: Carry, seed: jax.Array, key: jax.Array, block: int, blocks: int
) -> tuple[Values, Values]:
    """({party: discounted cost}, {party: TD errors of the first ERROR_BLOCKS blocks}) of a frozen policy.

    It scans `step` itself: `rollout` leaves transitions, and the TD errors need the learned Q in the state before and
    after every block.
    """
    gamma = world.server.discount

    def body(sums: tuple[Carry, Values, jax.Array], at: jax.Array):
        before, total, weight = sums
        after, transition = step(world, pair, before, sample(world, seed, at), key, at, False)
        costs = scaled_costs(world, before, transition)
        now, later = _values(world, pair, before), _values(world, pair, after)
        errors = {party: costs[party] + gamma * later[party] - now[party] for party in PARTIES}
        total = {party: total[party] + weight * costs[party] for party in PARTIES}
        return (after, total, weight * gamma), errors

    zero: Values = {"device": jnp.zeros_like(carry.state.q), "server": jnp.zeros_like(carry.state.backlog)}
    early = min(ERROR_BLOCKS, blocks)
    sums, errors = jax.lax.scan(body, (carry, zero, jnp.ones_like(gamma)), block + jnp.arange(early))
    numbers = block + jnp.arange(early, blocks)
    sums, _ = jax.lax.scan(lambda sums, at: (body(sums, at)[0], None), sums, numbers)
    return sums[1], errors


def scaled_costs(world: World, before: Carry, transition: Transition) -> Values:
    """Every party's terms of (8) in the units of its learner."""
    view, did, server = server_view(before.state), transition.devices, world.server
    energy_j = server_energy(server, transition.server.service_per_slot)
    return {
        "device": device_cost(world.devices, did.q, did.energy_j) / typical_device_cost(world.devices),
        "server": server_cost(server, view.backlog, energy_j) / typical_server_cost(server, view),
    }


def _values(world: World, pair: ControllerPair, carry: Carry) -> Values:
    """Q(s, a; theta) of every party at a state, with the action it has learned."""
    state, learner, server = carry.state, carry.device_state, carry.server_state
    controller: Any = pair.device
    mu = required(controller.mu)
    views = device_views(controller, state, jax.tree.map(lambda delayed: delayed[-1], state.broadcast_queue))

    def own(device: Any, view: Any, action: jax.Array, theta: jax.Array) -> jax.Array:
        return theta @ device_features(mu, device, view)(action, view.q)

    devices = jax.vmap(own, in_axes=-1, out_axes=-1)(world.devices, views, learner.action, learner.theta)
    features = server_features(server.nu, server_view(state))(server.learned.action, state.backlog)
    return {"device": devices, "server": server.learned.theta @ features}


def schemes() -> list[str]:
    """Candidates that are Algorithms 1 and 2, which the proposition is about."""
    return [name for name in CANDIDATES if isinstance(find_scheme(name).device, Algorithm1)]


def jobs(sizes: Sizes, preset: str = "paper") -> list[PropositionJob]:
    """All runs."""
    rest = sizes.seeds, preset, sizes.points.checkpoints
    return [PropositionJob(name, reading, *rest) for reading in READINGS for name in schemes()]


def bounds(arrays: Mapping[str, np.ndarray]) -> list[Bounds]:
    """The results of a job, discount by discount."""

    def of(kind: str, index: int) -> dict[str, np.ndarray]:
        return {party: np.asarray(arrays[f"{party}_{kind}"][index], np.float64) for party in PARTIES}

    return [Bounds(gamma, of("left", i), of("error", i), of("residual", i)) for i, gamma in enumerate(DISCOUNTS)]


def judge(runs: Mapping[Any, Mapping[str, np.ndarray]]) -> list[Verdict]:
    """Whether the right side is above the left one, for every candidate and reading."""
    own = {(job.scheme, job.reading): (job, arrays) for job, arrays in runs.items() if job.figure == "P1"}
    return [
        _verdict(*own[name, reading]) if (name, reading) in own else Verdict("P1", name, reading, "", NOT_APPLICABLE)
        for reading in READINGS
        for name in CANDIDATES
    ]


def _verdict(job: PropositionJob, arrays: Mapping[str, np.ndarray]) -> Verdict:
    labels, family, sides = list[str](), list[np.ndarray](), list[tuple[float, float]]()
    for one in bounds(arrays):
        for party, number in PARTIES.items():
            for i, block in enumerate(job.checkpoints):
                left, right = one.left[party][i], one.right(party)[i]
                labels.append(f"{number} at gamma = {one.discount:g}, block {block}: left < right")
                family.append(log_ratio(left, right))
                sides.append((float(np.median(left)), float(np.median(right))))
    decisions = decide(family)
    at = deciding(decisions)
    failing = sum(one.sign < 0 for one in decisions)
    why = (
        f"{labels[at].split(':')[0]}: left {sides[at][0]:.4g}, right {sides[at][1]:.4g} (medians of replicates); "
        f"the left side is significantly above the right one at {failing} of {len(decisions)} points."
    )
    result = verdict(decisions)
    return Verdict("P1", job.scheme, job.reading, "", result, tuple(labels), tuple(decisions), at, "ratio", why)


def log_ratio(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(replicates,) log(right / left); log MAX_RATIO where the left side is not above 0."""
    above = left > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above, np.log(right) - np.log(np.where(above, left, 1.0)), np.log(MAX_RATIO))
