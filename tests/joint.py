"""The joint optimum of a tiny system by value iteration on the paper's centralised Bellman equation (12): a yardstick.

    U(m, z) = E [ w1 z + sum_k w3 W (m_k + A_k) + min ( w2 E(f) + sum_k c_k(j_k, o_k; h_k) + U(m', z') ) ] - g
    m'_k = m_k + A_k - j_k,    z' = z - f + sum_k o_k W_ser

j tasks are started, the fraction o of the last one is offloaded; m tasks remain at the devices, z is the server's
backlog when the next block starts; the minimum knows all queues and gains. Plain NumPy in float64, written from the
equations and not from the package, of which only the world's numbers are taken. The world is finite: gains at a few
equally likely points, cuts of 0, 1/2 and 1, service in steps of a grid, and only actions that keep the queues in their
tables. A policy of it is a policy of the continuous world, so what is optimal here costs no less than there, and a
lower bound for that world (with the same gains) is one here.

`python tests/joint.py` shows how the cost of solving (12) grows with the number of devices.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from partway.bound import lower_bound as bounds
from partway.bound.certificate import Certificate
from partway.bound.device_program import Fading
from partway.bound.lower_bound import Bound, lower_bound
from partway.controllers.base import ControllerPair
from partway.controllers.block import Transition
from partway.controllers.postdecision import Priced
from partway.controllers.price import PostDecisionServer
from partway.dnn.cuts import Task
from partway.measurement.metrics import BlockMetrics, Parties, measure
from partway.pytree import cast_floats
from partway.rng import controller_keys
from partway.scenario.loading import load
from partway.simulation import step as steps
from partway.simulation.rollout import Options, run_blocks
from partway.system.fading import Independent
from partway.system.placement import Placement
from partway.system.world import World, build

MEAN_GAIN = 0.05
HALVES = 2
"""Halves of a task: what is sent is counted in them."""
TOLERANCE = 1e-6
"""Width of the interval that value iteration leaves for the optimum, relative to it."""


def tiny(devices: int, energy_cost: float, **overrides: Any) -> World:
    """K equal devices that run up to two tasks a block, each a table of three cuts.

    A task run in a block costs 1, a whole one sent 0.28 / x at the gain x; serving K tasks in a block costs the server
    K `energy_cost`.
    """
    scenario = load(
        "paper",
        {
            "devices": devices,
            "slots_per_block": 2,
            "slot_s": 0.25,
            "broadcast_delay_blocks": 0,
            "weights.server_energy": energy_cost / (40.0 * devices**2),
            "device.cpu_max_hz": 40e9,
            "server.cpu_max_hz": 40e9 * devices,
            **overrides,
        },
    )
    world = build(scenario, Placement(np.full(devices, 100.0), np.full(devices, MEAN_GAIN)))
    share, whole = np.linspace(0.0, 1.0, HALVES + 1), np.asarray(world.devices.task.bits_per_task)
    numbers = share[:, None] * np.ones(devices), share[:, None] * whole
    cuts = Task(*numbers, np.full((HALVES + 1, devices), True), np.full(devices, False), whole)  # pyright: ignore
    return replace(world, devices=replace(world.devices, task=cuts))


def points_of(count: int) -> np.ndarray:
    """x of `count` equally likely gains h = mean x, best first: the medians of as many parts of Exp(1)."""
    return -np.log((np.arange(count) + 0.5) / count)


@dataclass(frozen=True)
class Grid:
    """What makes the world finite.

    gains  (points,) x                                    tasks  that a device's queue may hold
    work   up to which the server's backlog goes [mean tasks], in `steps` steps per task, an even number
    """

    gains: np.ndarray
    tasks: int
    work: float
    steps: int


@dataclass(frozen=True)
class Party:
    """A device's choices (j, o), of infinite cost where one is not feasible.

    cost         (q, gain, choice)                    remaining  (q, choice) tasks      sent  (choice,) halves of a task
    probability  (m, q, gain) of q and gain after m   wait       w3 W
    """

    cost: np.ndarray
    remaining: np.ndarray
    sent: np.ndarray
    probability: np.ndarray
    wait: float


@dataclass(frozen=True)
class Joint:
    """The system of (12): `effort` (y, f) w2 E(f), infinite where f cannot be served; `wait` (y,) w1 y; y the backlog.

    half  steps of the server's grid in half a task
    """

    parties: list[Party]
    effort: np.ndarray
    wait: np.ndarray
    half: int

    def states(self) -> int:
        """Queues and gains of all devices, times the server's queue."""
        return int(np.prod([party.cost[:, :, 0].size for party in self.parties])) * len(self.wait)

    def pairs(self) -> int:
        """States times actions: what one sweep of (12) as printed looks at."""
        choices = [int(np.isfinite(party.cost).sum()) for party in self.parties]
        return int(np.prod(choices)) * int(np.isfinite(self.effort).sum())


def joint(world: World, grid: Grid) -> Joint:
    """All choices of all parties."""
    server, step = world.server, 1.0 / grid.steps
    y = np.arange(round(grid.work * grid.steps) + 1)
    f = np.arange(min(len(y), round(float(server.slot_capacity) * server.slots * grid.steps) + 1))
    energy = float(server.energy_weight) * float(server.energy_coef) / server.slots**2 * (f * step) ** 3
    effort = np.where(f <= y[:, None], energy, np.inf)
    parties = [party(world, k, grid) for k in range(world.devices.mean_gain.shape[-1])]
    return Joint(parties, effort, float(server.queue_weight) * y * step, grid.steps // HALVES)


def party(world: World, k: int, grid: Grid) -> Party:
    """Device k: c = w4 [xi ((j - o) W)^3 / (n tau)^2 + tau p], p = Gamma / h (2^(D / (tau B)) - 1)."""
    device = jax.tree.map(lambda leaf: np.asarray(leaf)[..., k], world.devices)
    assert device.server_work == 1.0
    arriving = stats.binom.pmf(np.arange(device.slots + 1), device.slots, world.arrival_threshold[k] / 2.0**32)
    queues, most = np.arange(grid.tasks + 1), int(device.capacity + 1e-9) + 1
    choices = [(0, 0), *((j, half) for j in range(1, most + 1) for half in range(HALVES + 1))]
    j, halves = np.array(choices).T
    local, tau_b = j - halves / HALVES, float(device.slot_s * device.bandwidth_hz)
    power = device.snr_gap * (2.0 ** (device.task.bits[halves] / tau_b) - 1) / (device.mean_gain * grid.gains[:, None])
    cost = device.energy_weight * (device.energy_coef * local**3 + device.slot_s * power)
    remaining, limit = queues[:, None] - j, grid.tasks - device.slots
    feasible = (remaining >= 0) & (remaining <= limit) & (local <= device.capacity + 1e-9)
    probability = np.zeros((limit + 1, len(queues), len(grid.gains)))
    for m in range(limit + 1):
        probability[m, m : m + device.slots + 1] = arriving[:, None] / len(grid.gains)
    cost = np.where(feasible[:, None], cost, np.inf)
    return Party(cost, np.clip(remaining, 0, limit), halves, probability, float(device.queue_weight))


def selfish(one: Party, price: float, discount: float = 1.0) -> Party:
    """The party that does what is best for itself alone when it pays `price` for a task sent, and nothing else."""
    paid, value, change = one.cost + price * one.sent / HALVES, np.zeros(len(one.probability)), np.inf
    queue = one.wait * np.arange(len(one.cost))[:, None]
    while change > 1e-12:
        new = np.tensordot(one.probability, queue + np.min(paid + discount * value[one.remaining][:, None], axis=2), 2)
        new, change = new - new[0], np.ptp(new - value)
        value = new
    total = paid + discount * value[one.remaining][:, None]
    chosen = np.argmin(total, axis=2)[:, :, None]
    return replace(one, cost=np.where(np.arange(len(one.sent)) == chosen, one.cost, np.inf))


def alone(system: Joint, price: float, discount: float = 1.0) -> Joint:
    """The system with devices that are selfish at `price`; only the server, which sees everything, can choose."""
    return replace(system, parties=[selfish(one, price, discount) for one in system.parties])


def steady(system: Joint, served: int) -> Joint:
    """The system whose server serves `served` steps in every block, or all there is; more at the end of the table."""
    y, f = np.ogrid[: system.effort.shape[0], : system.effort.shape[1]]
    full = len(y) - 1 - HALVES * system.half * len(system.parties)
    wanted = np.maximum(np.minimum(y, served), y - full)
    return replace(system, effort=np.where(f == wanted, system.effort, np.inf))


def sweep(system: Joint, value: np.ndarray, discount: float = 1.0) -> np.ndarray:
    """T U for U (m_1, ..., m_K, z). The minimum over all actions at once, party by party: first f, then each (j, o).

    That is the same minimum and takes far less than all pairs of state and action.
    """
    count, tables = len(system.parties), value.shape[:-1]
    best = _served(system, discount * value.reshape(-1, value.shape[-1]))
    for one in reversed(system.parties):
        best = _chosen(one, best.reshape(-1, len(one.probability), *best.shape[1:]))
    best = best.reshape(*(one.cost[:, :, 0].size for one in system.parties), -1) + system.wait
    for k, one in enumerate(system.parties):
        queue = np.repeat(one.wait * np.arange(len(one.cost)), one.cost.shape[1])
        best = best + queue.reshape(-1, *[1] * (count - k))
        best = np.moveaxis(np.tensordot(one.probability.reshape(len(one.probability), -1), best, (1, k)), 0, k)
    return best.reshape(*tables, -1)


def _served(system: Joint, value: np.ndarray) -> np.ndarray:
    """(m, s, y): min over f of w2 E(f) + U(m, y - f + s), s halves being sent."""
    points, most = value.shape[-1], HALVES * len(system.parties)
    after = np.full((len(value), most + 1, points), np.inf)
    for s in range(most + 1):
        after[:, s, : points - s * system.half] = value[:, s * system.half :]
    best = np.full_like(after, np.inf)
    for f in range(system.effort.shape[1]):
        best[..., f:] = np.minimum(best[..., f:], system.effort[f:, f] + after[..., : points - f])
    return best


def _chosen(one: Party, after: np.ndarray) -> np.ndarray:
    """(earlier m, m, s, others) -> (earlier m, s, q x gain x others), s being what earlier devices send."""
    earlier, _, sent, others = after.shape
    kept, (queues, gains, _) = sent - HALVES, one.cost.shape
    best = np.full((earlier, kept, queues, gains, others), np.inf)
    for a, halves in enumerate(one.sent):
        value = after[:, one.remaining[:, a], halves : halves + kept].swapaxes(1, 2)
        np.minimum(best, value[:, :, :, None] + one.cost[:, :, a, None], out=best)
    return best.reshape(earlier, kept, -1)


def sweeps(system: Joint, discount: float = 1.0) -> Iterator[tuple[float, float]]:
    """Value iteration; after every sweep an interval that holds the optimum.

    Average: T U - U from its minimum to its maximum. Discounted, from empty queues: what gamma U(0, 0) can become.
    """
    value, end = first_guess(system), discount / (1.0 - discount) if discount < 1 else 1.0
    while True:
        new = sweep(system, value, discount)
        change = new - value
        start = discount * value.flat[0] if discount < 1 else 0.0
        yield start + end * float(np.min(change)), start + end * float(np.max(change))
        value = new if discount < 1 else new - new.flat[0]


def first_guess(system: Joint) -> np.ndarray:
    """U = 0."""
    return np.zeros((*(len(one.probability) for one in system.parties), len(system.wait)))


def optimum(system: Joint, discount: float = 1.0, tolerance: float = TOLERANCE, limit: int = 20_000) -> float:
    """The least average cost of a block, or discounted sum from empty queues; no more than `tolerance` off."""
    low, high = 0.0, np.inf
    for low, high in islice(sweeps(system, discount), limit):
        if high - low <= tolerance * abs(high):
            return (low + high) / 2
    raise RuntimeError(f"value iteration has left {low} to {high}")


def no_server(system: Joint, price: float) -> Joint:
    """Devices that pay `price` for a task sent, and no server: its optimum is the devices' part of the bound."""
    paid = [replace(one, cost=one.cost + price * one.sent / HALVES) for one in system.parties]
    return Joint(paid, np.zeros((1, 1)), np.zeros(1), half=0)


def finite_bound(world: World, gains: np.ndarray, price: float | None = None) -> Bound:
    """Partway's lower bound for the world whose gains are these points: no expectation is rounded down any more."""
    points = Fading(1.0 / gains, np.full_like(gains, np.inf), np.full_like(gains, 1.0 / len(gains)))  # pyright: ignore
    with mock.patch.multiple(bounds, fading_below=lambda *_: points, fading_above=lambda *_: points):
        return lower_bound(world, price=price)


class Points(Independent):
    """A fading that is each of these values with the same probability."""

    values: jax.Array

    def from_uniform(self, uniform: jax.Array) -> jax.Array:
        number = jnp.clip(uniform * len(self.values), 0, len(self.values) - 1)
        return self.values[number.astype(jnp.int32)]


def play(
    world: World,
    pair: ControllerPair,
    gains: np.ndarray,
    seeds: Sequence[int],
    blocks: int,
    certificate: Certificate | None = None,
) -> BlockMetrics:
    """Partway's own step and metrics in the world whose gains are these points, float64; (seed, block)."""
    with jax.enable_x64(True):
        concrete = cast_floats(world, "float64")
        parties = Parties(concrete.devices, concrete.server, certificate)
        transitions = _transitions(concrete, pair, jnp.asarray(seeds, jnp.uint32), tuple(gains.tolist()), blocks)
        shared = (False,) * len(jax.tree.leaves(parties))
        return jax.tree.map(np.asarray, measure(parties, transitions, stacked=shared))


@partial(jax.jit, static_argnums=(3, 4))
def _transitions(
    world: World, pair: ControllerPair, seeds: jax.Array, gains: tuple[float, ...], blocks: int
) -> Transition:
    """(seed, block) what happens."""
    world = replace(world, channel=Points(jnp.asarray(gains)))

    def one(seed: jax.Array) -> Transition:
        keys = controller_keys(seed, jnp.uint32(1))
        ready, carry = steps.init(world, pair, seed, keys)
        return run_blocks(world, ready, carry, seed, keys[2], jnp.uint32(0), Options(blocks, tile=50))[1]

    return jax.vmap(one)(seeds)


def learned(world: World, found: Bound, gains: np.ndarray, pair: ControllerPair) -> tuple[float, float]:
    """What a pair costs per block once it has learned, by the bound's certificate, and five standard errors of it."""
    metrics = play(world, pair, gains, range(32), 2000, found.certificate)
    above = (metrics.loss_devices + metrics.loss_waiting + metrics.loss_service)[:, 1000:].mean(axis=1)
    return found.value + float(above.mean()), 5.0 * float(above.std(ddof=1)) / np.sqrt(32)


GAINS = 3


def growth() -> None:
    """What solving (12) takes, by the number of devices."""
    print(
        "\nw2 E(K tasks) = K/2; 3 gains, queues of up to 6 tasks, server queue of up to 2 K + 1 in quarters of a task\n"
    )
    print(
        "| devices | joint states | states x actions | seconds a sweep | sweeps | lower bound | joint optimum | slack |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for devices in (1, 2, 3, 4):
        world, gains = tiny(devices, 0.5), points_of(GAINS)
        system, floor = joint(world, Grid(gains, 6, 2 * devices + 1, 4)), finite_bound(world, gains).value
        began, count, low, high = time.perf_counter(), 0, 0.0, np.inf
        for low, high in sweeps(system):
            count += 1
            if high - low <= 1e-4 * high:
                break
        seconds = (time.perf_counter() - began) / count
        print(
            f"| {devices} | {system.states():,} | {float(system.pairs()):.2g} | {seconds:.2g} | {count} "
            f"| {floor:.3f} | {(low + high) / 2:.3f} | {low / floor - 1:.1%} |",
            flush=True,
        )


def worlds_of_all_kinds() -> None:
    """How far the bound is below the optimum, and above it selfish devices with the best server, and `priced`."""
    print("\nSlack of the bound, and what devices that decide alone cost beyond the optimum; server queue in eighths\n")
    print(
        "| devices | w2 E(K tasks) / K | lower bound | joint optimum | slack | alone, price 0 | alone, bound's price "
        "| `priced`, learned |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for devices in (1, 2):
        for energy_cost in (0.1, 0.5, 2.5, 10.0):
            world, gains = tiny(devices, energy_cost), points_of(GAINS)
            system, found = joint(world, Grid(gains, 6, 2 * devices + 1, 8)), finite_bound(world, gains)
            best = optimum(system)
            costs = [optimum(alone(system, price)) for price in (0.0, float(found.certificate.price))]
            priced, error = learned(world, found, gains, ControllerPair(Priced(), PostDecisionServer()))
            print(
                f"| {devices} | {energy_cost} | {found.value:.3f} | {best:.3f} | {best / found.value - 1:.1%} "
                f"| {costs[0] / best - 1:+.1%} | {costs[1] / best - 1:+.1%} "
                f"| {priced / best - 1:+.1%} ± {error / best / 5 * 2:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    growth()
    worlds_of_all_kinds()
