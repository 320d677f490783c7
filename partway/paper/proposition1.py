"""Proposition 1: both sides of (37) for devices and of (38) for the server, along a run, with the true norm.

We have the proposition's content, not its printed page. As we read it, the squared distance of the learned Q from the
true one is at most the squared TD error that is left, summed with gamma^t:

    E (Q(s_t, a_t; theta_t) - Q_true(s_t, a_t))^2  <=  E delta^2 / (1 - gamma)          (37) devices, (38) server

What is true for sure has (1 - gamma)^2 there, and the largest error in the place of the mean one. Q_true is what the
policy at block t really costs from there on: the run is continued several times from the same state, each with chances
of its own and without learning. A product of two continuations has no bias, where the square of one has (the double
sampling that (41)-(45) overlook). All in the learner's units, costs by `typical_device_cost`, `typical_server_cost`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import gcd
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import agreed
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
from partway.schemes import SCHEMES, pair_for
from partway.simulation.rollout import Options, play_seed
from partway.simulation.schedule import BLOCKS_PER_TILE
from partway.simulation.step import Carry, ControllerPair, device_views, play_block, server_view, start
from partway.system.exogenous import sample
from partway.system.placement import sample_placement
from partway.system.world import World, build

DISCOUNTS = (0.9, 0.95, 0.99, 0.999)
DEVICES = 4
FUTURES = 4
"""Continuations from each state."""
FUTURE_BLOCKS = 4605
"""Of a continuation: what comes after is worth less than 1 % at gamma = 0.999."""
ERROR_BLOCKS = 200
"""Blocks of a continuation over which delta^2 is averaged."""
WITHOUT_ERROR = 1000.0
"""Right side over left one in a replicate whose left side is 0 or, being unbiased, less."""
PARTIES = {"device": "(37)", "server": "(38)"}
SCHEMES_MEANT = tuple(name for name in CANDIDATES if isinstance(SCHEMES[name].device, Algorithm1))
"""Candidates that are Algorithms 1 and 2, which the proposition is about."""


@dataclass(frozen=True)
class Bounds:
    """Both sides at one discount. left, right: {party: (checkpoints, replicates)}; devices are averaged."""

    discount: float
    left: Mapping[str, np.ndarray]
    error: Mapping[str, np.ndarray]
    residual: Mapping[str, np.ndarray]

    def right(self, party: str) -> np.ndarray:
        """E delta^2 / (1 - gamma), as the paper prints it by our reading."""
        return self.error[party] / (1.0 - self.discount)

    def certain(self, party: str) -> np.ndarray:
        """E delta^2 / (1 - gamma)^2: as large as a true bound of this form can be."""
        return self.error[party] / (1.0 - self.discount) ** 2


@dataclass(frozen=True)
class PropositionPart:
    """Both sides for one of Algorithms 1 and 2's variants under one reading of (1), all discounts."""

    scheme: str
    reading: str
    seeds: tuple[int, ...]
    preset: str = "paper"
    checkpoints: tuple[int, ...] = Points().checkpoints
    future_blocks: int = FUTURE_BLOCKS

    figure = "P1"

    def label(self) -> str:
        return f"P1-{self.scheme}-{self.reading}"

    def scenario(self, placement_seed: int | None = None) -> Scenario:
        changed: dict[str, Any] = {"devices": DEVICES, "queue": self.reading, f"schemes.{self.scheme}.stop": False}
        changed["placement_seed"] = self.seeds[0] if placement_seed is None else placement_seed
        return load(self.preset, changed)

    def device_blocks(self) -> int:
        return DEVICES * len(DISCOUNTS) * len(self.seeds) * len(self.checkpoints) * FUTURES * self.future_blocks

    def play(self) -> dict[str, np.ndarray]:
        """Arrays {party}_{left, error, residual} (discounts, checkpoints, replicates)."""
        found = [self._at(discount) for discount in DISCOUNTS]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

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
        found = jax.tree.map(np.asarray, _sides(world, pair, gain, seeds, keys, lengths))
        return {name: values.T for name, values in found.items()}


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
        player, loop = start(own, pair, seed, keys)
        first, found = 0, list[dict[str, jax.Array]]()
        for checkpoint in checkpoints:
            now, blocks = jnp.uint32(first), Options(checkpoint - first, gcd(checkpoint - first, BLOCKS_PER_TILE))
            loop, _ = play_seed(own, player, loop, seed, keys[2], now, blocks)
            found.append(_measure(own, player, loop, seed, keys[2], checkpoint, future_blocks))
            first = checkpoint
        return jax.tree.map(lambda *each: jnp.stack(each), *found)

    return jax.vmap(lane)(gain, seeds, keys)


def _measure(
    world: World, pair: ControllerPair, loop: Carry, seed: jax.Array, key: jax.Array, block: int, future_blocks: int
) -> dict[str, jax.Array]:
    """Both sides at one state: every party's Q there, what it costs from there, and the TD errors after it."""
    chances = seed + jnp.uint32(2**31) + jnp.arange(FUTURES, dtype=jnp.uint32) * jnp.uint32(2**20)
    future = jax.vmap(lambda chance: _future(world, pair, loop, chance, key, block, future_blocks))
    returns, errors = future(chances)
    believed, found = _values(world, pair, loop), dict[str, jax.Array]()
    for party in PARTIES:
        apart = believed[party] - returns[party]  # (futures, devices) or (futures,)
        found[f"{party}_left"] = jnp.mean(unbiased_square(apart))
        found[f"{party}_error"] = jnp.mean(errors[party] ** 2)
        found[f"{party}_residual"] = jnp.mean(unbiased_square(errors[party][:, 0]))
    return found


def unbiased_square(samples: jax.Array) -> jax.Array:
    """(mean)^2 without bias from (samples, ...) independent ones: the mean product of two different ones."""
    count = samples.shape[0]
    return (jnp.sum(samples, axis=0) ** 2 - jnp.sum(samples**2, axis=0)) / (count * (count - 1))


Values = dict[str, jax.Array]


def _future(
    world: World, pair: ControllerPair, loop: Carry, seed: jax.Array, key: jax.Array, block: int, blocks: int
) -> tuple[Values, Values]:
    """({party: discounted cost}, {party: TD errors of the first ERROR_BLOCKS blocks}) of a frozen policy."""
    gamma = world.server.discount

    def body(carry: tuple[Carry, Values, jax.Array], at: jax.Array):
        before, total, weight = carry
        after, played = play_block(world, pair, before, sample(world, seed, at), key, at, False)
        costs = scaled_costs(world, before, played.costs)
        now, later = _values(world, pair, before), _values(world, pair, after)
        errors = {party: costs[party] + gamma * later[party] - now[party] for party in PARTIES}
        total = {party: total[party] + weight * costs[party] for party in PARTIES}
        return (after, total, weight * gamma), errors

    nothing: Values = {"device": jnp.zeros_like(loop.state.q), "server": jnp.zeros_like(loop.state.backlog)}
    early = min(ERROR_BLOCKS, blocks)
    carry, errors = jax.lax.scan(body, (loop, nothing, jnp.ones_like(gamma)), block + jnp.arange(early))
    numbers = block + jnp.arange(early, blocks)
    carry, _ = jax.lax.scan(lambda carry, at: (body(carry, at)[0], None), carry, numbers)
    return carry[1], errors


def scaled_costs(world: World, before: Carry, costs: Any) -> Values:
    """The parties' terms of (8) in the units of their learners."""
    view = server_view(before.state)
    return {
        "device": (costs.device_queue + costs.device_energy) / typical_device_cost(world.devices),
        "server": (costs.server_queue + costs.server_energy) / typical_server_cost(world.server, view),
    }


def _values(world: World, pair: ControllerPair, loop: Carry) -> Values:
    """Q(s, a; theta) of every party at a state, with the action it has learned."""
    state, memory, served = loop.state, loop.device_state, loop.server_state
    controller: Any = pair.device
    mu = agreed(controller.mu)
    broadcast = device_views(state, jax.tree.map(lambda told: told[-1], state.broadcast_queue))

    def own(device: Any, view: Any, action: jax.Array, theta: jax.Array) -> jax.Array:
        return theta @ device_features(mu, device, view)(action, view.q)

    devices = jax.vmap(own, in_axes=-1, out_axes=-1)(world.devices, broadcast, memory.action, memory.theta)
    features = server_features(served.nu, server_view(state))(served.learned.action, state.backlog)
    return {"device": devices, "server": served.learned.theta @ features}


def parts(sizes: Sizes, preset: str = "paper") -> list[PropositionPart]:
    """What has to be run."""
    how = sizes.seeds, preset, sizes.points.checkpoints
    return [PropositionPart(name, reading, *how) for reading in READINGS for name in SCHEMES_MEANT]


def bounds(arrays: Mapping[str, np.ndarray]) -> list[Bounds]:
    """What a part found, discount by discount."""

    def of(kind: str, index: int) -> dict[str, np.ndarray]:
        return {party: np.asarray(arrays[f"{party}_{kind}"][index], np.float64) for party in PARTIES}

    return [Bounds(gamma, of("left", i), of("error", i), of("residual", i)) for i, gamma in enumerate(DISCOUNTS)]


def judge(runs: Mapping[Any, Mapping[str, np.ndarray]]) -> list[Verdict]:
    """Whether the right side is above the left one, for every candidate and reading."""
    found = {(part.scheme, part.reading): (part, arrays) for part, arrays in runs.items() if part.figure == "P1"}
    return [
        _judged(*found[name, reading]) if (name, reading) in found else Verdict("P1", name, reading, "", NOT_APPLICABLE)
        for reading in READINGS
        for name in CANDIDATES
    ]


def _judged(part: PropositionPart, arrays: Mapping[str, np.ndarray]) -> Verdict:
    labels, family, sides = list[str](), list[np.ndarray](), list[tuple[float, float]]()
    for one in bounds(arrays):
        for party, number in PARTIES.items():
            for i, block in enumerate(part.checkpoints):
                left, right = one.left[party][i], one.right(party)[i]
                labels.append(f"{number} at gamma = {one.discount:g}, block {block}: left < right")
                family.append(log_ratio(left, right))
                sides.append((float(np.median(left)), float(np.median(right))))
    decisions = decide(family)
    at = deciding(decisions)
    failing = sum(one.sign < 0 for one in decisions)
    why = (
        f"{labels[at].split(':')[0]}: left {sides[at][0]:.4g}, right {sides[at][1]:.4g} (medians of replicates); "
        f"the left side is surely above the right one at {failing} of {len(decisions)} points."
    )
    result = verdict(decisions)
    return Verdict("P1", part.scheme, part.reading, "", result, tuple(labels), tuple(decisions), at, "ratio", why)


def log_ratio(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(replicates,) log(right / left), which is that of WITHOUT_ERROR where the left side is not above 0."""
    above = left > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(above, np.log(right) - np.log(np.where(above, left, 1.0)), np.log(WITHOUT_ERROR))
