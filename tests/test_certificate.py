"""The gap's identity: its terms written out again in NumPy on real paths, block by block, and in the mean.

With X_t = sum_k [w3 W q + min over (j, offload) of (c + gamma U(q - j))] in block t and
M_t = X_t - sum_k (T U)(m_(t-1)), which has the mean zero (or a little above: the expectation over the fading errs
downward), every path satisfies

    sum gamma^t cost_t = sum gamma^t (losses_t + psi*_t) + sum_(t >= 1) gamma^t (M_t + sum_k certificate_k)
                         + X_0 - gamma^T sum_k [U + T U - U - certificate](m_(T-1)) - lambda gamma^(T-1) backlog_T

psi*_t is the server's dual value, from the first block on in which anything can be served.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import MIXED, Play, world_of

from partway.bound.certificate import Certificate
from partway.bound.lower_bound import Bound
from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Constant, Random, Steady
from partway.experiments.preparation import bound_of, use_bound
from partway.scenario.loading import load
from partway.schemes import SCHEMES
from partway.simulation.rollout import Run
from partway.system.world import World

LAYERS: dict[str, Any] = {
    **MIXED,
    "group": [
        {**MIXED["group"][2], "distance_m": 120.0},
        MIXED["group"][3],
        {**MIXED["group"][3], "cpu_max_hz": 95e9, "distance_m": 90.0},
        {**MIXED["group"][2], "cpu_max_hz": 20e9, "arrival_prob": 0.1},
    ],
}
"""Real networks only: there the best of a few cuts is what the program and the oracle both take."""
DISCOUNTED = {"objective": "discounted", "discount": 0.8, "weights.server_energy": 1e-2}
STEADY = {
    "constant": ControllerPair(Constant(offload=0.75, started=2.0), Steady(speed=0.1)),
    "random, steady": ControllerPair(Random(), Steady(speed=0.1)),
}
"""Policies that are quick to compile; the constant is not tuned."""


@dataclass(frozen=True)
class Certified:
    """A world and its bound, whose certificate holds NumPy's float64: JAX would round it outside `enable_x64`."""

    world: World
    bound: Bound

    @property
    def certificate(self) -> Certificate:
        return self.bound.certificate


def certified(scenario: dict[str, Any], overrides: dict[str, Any] | None = None) -> Certified:
    world = world_of(load(scenario, overrides or {}))
    found = bound_of(world)
    assert isinstance(found, Bound)
    return Certified(world, found)


def pair_of(name: str, certificate: Certificate) -> ControllerPair:
    """A scheme's controllers, or those of STEADY."""
    if name in STEADY:
        return STEADY[name]
    pair = ControllerPair(SCHEMES[name].device, SCHEMES[name].server)
    return use_bound(pair, certificate) if name == "oracle" else pair


@pytest.fixture(scope="module")
def mixed() -> Certified:
    return certified(MIXED)


@pytest.fixture(scope="module")
def layers() -> Certified:
    return certified(LAYERS)


@pytest.fixture(scope="module")
def run_in(play: Play) -> Callable[..., Run]:
    """A scheme's run in float64, measured with the certificate."""

    def made(name: str, where: Certified, seeds: int = 2) -> Run:
        pair, how = pair_of(name, where.certificate), {"stream": name, "precision": "float64"}
        return play(pair, where.world, seeds=range(seeds), certificates=where.certificate, **how)

    return made


Terms = dict[str, np.ndarray]


@dataclass(frozen=True)
class Path:
    """A run's terms (seed, block): `losses` by name, `best` X_t, `extended` sum_k (T U)(m_t), `value` sum_k U(m_t)."""

    losses: Terms
    best: np.ndarray
    value: np.ndarray
    extended: np.ndarray


def at_table(table: Any, slope: Any, k: int, m: np.ndarray) -> np.ndarray:
    """A device's table at m tasks, going on with its slope."""
    values, last = np.asarray(table)[:, k], np.asarray(table).shape[0] - 1
    return values[np.minimum(m, last)] + np.maximum(m - last, 0) * np.asarray(slope)[k]


def path_of(where: Certified, run: Run) -> Path:
    """All terms from what the run's traces hold, for devices that cut at the rows of a table."""
    known, device, server = where.certificate, where.world.devices, where.world.server
    assert run.traces is not None
    gamma, price, traces, metrics = float(known.discount), float(known.price), run.traces, run.metrics
    best, value, extended, lost = (np.zeros(metrics.sent.shape) for _ in range(4))
    for k in range(device.mean_gain.shape[-1]):
        q, gain, started, offload = (getattr(traces, name)[..., k] for name in ("q", "gain", "started", "offload"))
        share, bits, feasible = (
            getattr(device.task, name)[:, k][:, None, None] for name in ("share", "bits", "feasible")
        )
        reach = 2.0 ** (bits / (device.slot_s * device.bandwidth_hz)[k]) - 1.0
        power = device.snr_gap[k] / gain * reach
        carried = np.log2(1 + gain * device.tx_power_max_w[k] / device.snr_gap[k])
        possible = feasible & (bits <= (device.slot_s * device.bandwidth_hz)[k] * carried)

        def cost(local: Any, watts: Any, sent: Any, k: int = k) -> Any:
            joule = device.energy_coef[k] * local**3 + device.slot_s[k] * watts
            return device.energy_weight[k] * joule + price * device.server_work[k] * sent

        def later(m: np.ndarray, k: int = k) -> np.ndarray:
            return gamma * at_table(known.tables.value, known.tables.slope, k, m)

        least = later(q.astype(int))
        for j in range(1, device.max_tasks_per_block + 1):
            allowed = possible & (j - share <= device.capacity[k] + 1e-4) & (q >= j)
            total = np.where(allowed, cost(j - share, power, share), np.inf).min(axis=0)
            least = np.minimum(least, total + later(np.maximum(q - j, 0).astype(int)))
        row = np.abs(share - offload).argmin(axis=0)
        left = (q - started).astype(int)
        chosen = cost(started - offload, np.take_along_axis(power, row[None], 0)[0], offload) + later(left)
        beyond = at_table(known.tables.surplus, known.tables.slope_of_surplus, k, left)
        best += device.queue_weight[k] * q + least
        value += later(left) / gamma
        extended += later(left) / gamma + beyond + np.asarray(known.tables.certificate)[k]
        lost += chosen - least + gamma * beyond
    kappa = float(server.queue_weight) - price * (1 - gamma) / gamma
    energy = float(server.energy_weight * server.energy_coef) * (traces.service_per_slot**3).sum(axis=-1)
    psi = energy + (float(server.queue_weight) - price / gamma) * metrics.served
    losses = {
        "devices": lost,
        "waiting": kappa * (metrics.backlog - metrics.served),
        "service": psi - server_dual_values(known, psi.shape[1]),
    }
    return Path(losses, best, value, extended)


def server_dual_values(known: Certificate, blocks: int) -> np.ndarray:
    """(block,) psi*; of the discounted sum from block 2 on, because nothing can be served before."""
    values = np.full(blocks, float(known.server_dual_value))
    if float(known.discount) < 1:
        values[:2] = 0.0
    return values


SEEDS = {"random, steady": 64}
"""Seeds of a run in LAYERS, where not 2."""


@pytest.fixture(scope="module")
def layers_run(run_in: Callable[..., Run], layers: Certified) -> Callable[[str], Run]:
    return cache(lambda name: run_in(name, layers, SEEDS.get(name, 2)))


@pytest.fixture(scope="module")
def discounted() -> Certified:
    return certified(LAYERS, DISCOUNTED)


@pytest.fixture(scope="module")
def discounted_run(run_in: Callable[..., Run], discounted: Certified) -> Run:
    return run_in("priced", discounted, 64)


# Every block


def others(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize(
    "name", ["constant", "priced", *others(["local", "drift", "full", "parametric", "oracle", "random"])]
)
def test_no_term_is_negative_in_any_block(name: str, run_in: Callable[..., Run], mixed: Certified):
    """Rounding aside, 1e-16 of a cost of 100."""
    metrics = run_in(name, mixed).metrics
    for lost in (metrics.loss_devices, metrics.loss_waiting, metrics.loss_service):
        assert lost.min() > -1e-12
    assert metrics.loss_devices.dtype == np.float64


def check_terms(where: Certified, run: Run) -> None:
    for name, wanted in path_of(where, run).losses.items():
        np.testing.assert_allclose(getattr(run.metrics, f"loss_{name}"), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["priced", *others(["random, steady"])])
def test_the_terms_by_hand(name: str, layers_run: Callable[[str], Run], layers: Certified):
    check_terms(layers, layers_run(name))


def test_the_discounted_terms_by_hand(discounted_run: Run, discounted: Certified):
    check_terms(discounted, discounted_run)


def check_decomposition(where: Certified, run: Run) -> None:
    """The equation at the top of this file, seed by seed."""
    known, path, metrics = where.certificate, path_of(where, run), run.metrics
    gamma, blocks = float(known.discount), metrics.sent.shape[1]
    weight = gamma ** np.arange(blocks)
    certificates = float(np.sum(known.tables.certificate))
    noise = path.best[:, 1:] - path.extended[:, :-1]
    last_backlog = metrics.backlog[:, -1] - metrics.served[:, -1] + metrics.sent[:, -1]
    lost = metrics.loss_devices + metrics.loss_waiting + metrics.loss_service
    total = lost @ weight + server_dual_values(known, blocks) @ weight + (noise + certificates) @ weight[1:]
    total += path.best[:, 0] - gamma**blocks * (path.extended[:, -1] - certificates)
    total -= float(known.price) * gamma ** (blocks - 1) * last_backlog
    np.testing.assert_allclose(total, metrics.cost() @ weight, rtol=1e-10)


@pytest.mark.parametrize("name", ["priced", "random, steady"])
def test_the_cost_of_a_path_is_bound_losses_and_noise(name: str, layers_run: Callable[[str], Run], layers: Certified):
    """With gamma = 1: T x (psi* + certificates) is T x bound."""
    check_decomposition(layers, layers_run(name))
    known = layers.certificate
    assert known.server_dual_value + np.sum(known.tables.certificate) == pytest.approx(layers.bound.value, rel=1e-12)


def test_the_discounted_cost_of_a_path_is_bound_losses_and_noise(discounted_run: Run, discounted: Certified):
    """Without end: X_0 = sum gamma U(0), gamma / (1 - gamma) certificates, gamma^2 / (1 - gamma) psi* are the bound."""
    check_decomposition(discounted, discounted_run)
    known = discounted.certificate
    devices = 0.8 * np.sum(known.tables.value[0]) + 4.0 * np.sum(known.tables.certificate)
    assert float(devices + 3.2 * known.server_dual_value) == pytest.approx(discounted.bound.value, rel=1e-12)
    assert float(known.server_dual_value) < 0.0


# In the mean


def test_noise_has_no_mean(layers_run: Callable[[str], Run], layers: Certified):
    """Real draws against the tables' expectation, over 64 paths of a policy far from what the tables are made for."""
    path = path_of(layers, layers_run("random, steady"))
    noise = (path.best[:, 1:] - path.extended[:, :-1]).mean(axis=1)
    error = noise.std(ddof=1) / 8
    assert -4 * error < noise.mean() < layers.bound.slack + 4 * error


def test_the_mean_discounted_cost_is_the_bound_and_the_losses(discounted_run: Run, discounted: Certified):
    """64 seeds; the blocks after the first 100 weigh 0.8^100."""
    weight, metrics = 0.8 ** np.arange(100), discounted_run.metrics
    lost = (metrics.loss_devices + metrics.loss_waiting + metrics.loss_service) @ weight
    unexplained = metrics.cost() @ weight - discounted.bound.value - lost
    error = unexplained.std(ddof=1) / 8
    assert abs(unexplained.mean()) < 4 * error


def test_the_oracle_loses_nothing_at_its_devices(layers_run: Callable[[str], Run]):
    metrics = layers_run("oracle").metrics
    assert np.abs(metrics.loss_devices).max() < 1e-9
    assert metrics.started.sum() > 100
