"""The gap's identity: its terms written out again in NumPy on real paths, block by block, and in the mean.

With X_t = sum_k [w3 W q + min over (j, rest) of (c + gamma U(q - j))] in block t and M_t = X_t - sum_k (T U)(m_(t-1)),
which has the mean zero (or a little above: the expectation over the fading errs downward), every path satisfies

    sum gamma^t cost_t = sum gamma^t (losses_t + idle_t) + sum_(t >= 1) gamma^t (M_t + sum_k certificate_k)
                         + X_0 - gamma^T sum_k [U + T U - U - certificate](m_(T-1)) - lambda gamma^(T-1) y_T
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from conftest import MIXED, Play, world_of

from partway.bound.certificate import Certificate
from partway.bound.lower_bound import Bound
from partway.controllers.baselines import Constant, Steady
from partway.experiments.comparison import compare, with_bound
from partway.experiments.summary import Summary, cost_of, summarise
from partway.scenario.loading import load
from partway.schemes import SCHEMES, consult_bound
from partway.simulation.rollout import Run
from partway.simulation.step import ControllerPair
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
CONSTANT = ControllerPair(Constant(share=0.75, tasks=2.0), Steady(speed=0.1))


def certified(scenario: dict[str, Any], overrides: dict[str, Any] | None = None) -> tuple[World, Bound]:
    world, found = with_bound(world_of(load(scenario, overrides or {})))
    assert isinstance(found, Bound)
    return world, found


def in_numpy(world: World) -> Certificate:
    """The world's certificate in float64 for NumPy: JAX would round it outside `enable_x64`."""
    assert world.certificate is not None
    return jax.tree.map(np.asarray, world.certificate)


@pytest.fixture(scope="module")
def mixed_bound() -> tuple[World, Bound]:
    return certified(MIXED)


@pytest.fixture(scope="module")
def layers_bound() -> tuple[World, Bound]:
    return certified(LAYERS)


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


def path_of(world: World, run: Run) -> Path:
    """All terms from what the run's traces hold, for devices that cut at the rows of a table."""
    known, device, server = in_numpy(world), world.devices, world.server
    assert run.traces is not None
    gamma, price, traces, sums = float(known.discount), float(known.price), run.traces, run.sums
    best, value, extended, lost = (np.zeros(sums.sent.shape) for _ in range(4))
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
    kept = float(server.queue_weight) - price * (1 - gamma) / gamma
    energy = float(server.energy_weight * server.energy_coef) * (traces.service_per_slot**3).sum(axis=-1)
    rate = energy + (float(server.queue_weight) - price / gamma) * sums.served - idle_of(world, sums.served.shape[1])
    losses = {"devices": lost, "waiting": kept * (sums.backlog - sums.served), "service": rate}
    return Path(losses, best, value, extended)


def idle_of(world: World, blocks: int) -> np.ndarray:
    """(block,) the server's best part; of the discounted sum from block 2 on, because before nothing can be there."""
    known = in_numpy(world)
    server_dual_value = np.full(blocks, float(known.server_dual_value))
    if float(known.discount) < 1:
        server_dual_value[:2] = 0.0
    return server_dual_value


@pytest.fixture(scope="module")
def layers_run(play: Play, layers_bound: tuple[World, Bound]) -> Callable[[str], Run]:
    world, _ = layers_bound

    def made(name: str) -> Run:
        pair = (
            consult_bound(ControllerPair(SCHEMES[name].device, SCHEMES[name].server), world)
            if name == "oracle"
            else name
        )
        return play(pair, world, name=name, precision="float64")

    return cache(made)


@pytest.fixture(scope="module")
def discounted_run(play: Play) -> tuple[World, Bound, Run]:
    world, found = certified(LAYERS, DISCOUNTED)
    return world, found, play("priced", world, seeds=range(64), name="priced", precision="float64")


# Every block


@pytest.mark.parametrize("name", ["random", "local", "drift", "priced", "full", "exact", "oracle", "constant"])
def test_no_term_is_negative_in_any_block(name: str, play: Play, mixed_bound: tuple[World, Bound]):
    """Rounding aside, 1e-16 of a cost of 100."""
    world, _ = mixed_bound
    pair = CONSTANT if name == "constant" else ControllerPair(SCHEMES[name].device, SCHEMES[name].server)
    pair = consult_bound(pair, world) if name == "oracle" else pair
    sums = play(pair, world, name=name, precision="float64").sums
    for lost in (sums.loss_devices, sums.loss_waiting, sums.loss_service):
        assert lost.min() > -1e-12
    assert sums.loss_devices.dtype == np.float64


def check_terms(world: World, run: Run) -> None:
    path = path_of(world, run)
    for name, wanted in path.losses.items():
        np.testing.assert_allclose(getattr(run.sums, f"loss_{name}"), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["priced", "random"])
def test_the_terms_by_hand(name: str, layers_run: Callable[[str], Run], layers_bound: tuple[World, Bound]):
    check_terms(layers_bound[0], layers_run(name))


def test_the_discounted_terms_by_hand(discounted_run: tuple[World, Bound, Run]):
    world, _, run = discounted_run
    check_terms(world, run)


def check_decomposition(world: World, run: Run) -> None:
    """The equation at the top of this file, seed by seed."""
    known, path, sums = in_numpy(world), path_of(world, run), run.sums
    gamma, blocks = float(known.discount), sums.sent.shape[1]
    weight = gamma ** np.arange(blocks)
    certificates = float(np.sum(known.tables.certificate))
    noise = path.best[:, 1:] - path.extended[:, :-1]
    last_y = sums.backlog[:, -1] - sums.served[:, -1] + sums.sent[:, -1]
    lost = sums.loss_devices + sums.loss_waiting + sums.loss_service
    told = lost @ weight + idle_of(world, blocks) @ weight + (noise + certificates) @ weight[1:]
    told += path.best[:, 0] - gamma**blocks * (path.extended[:, -1] - certificates)
    told -= float(known.price) * gamma ** (blocks - 1) * last_y
    np.testing.assert_allclose(told, sums.cost() @ weight, rtol=1e-10)


@pytest.mark.parametrize("name", ["priced", "random"])
def test_the_cost_of_a_path_is_bound_losses_and_noise(
    name: str, layers_run: Callable[[str], Run], layers_bound: tuple[World, Bound]
):
    """With gamma = 1: T x (idle + certificates) is T x bound."""
    world, found = layers_bound
    check_decomposition(world, layers_run(name))
    known = in_numpy(world)
    assert known.server_dual_value + np.sum(known.tables.certificate) == pytest.approx(found.value, rel=1e-12)


def test_the_discounted_cost_of_a_path_is_bound_losses_and_noise(discounted_run: tuple[World, Bound, Run]):
    """Without end: X_0 = sum gamma U(0), gamma / (1 - gamma) certificates, gamma^2 / (1 - gamma) idle are the bound."""
    world, found, run = discounted_run
    check_decomposition(world, run)
    known = in_numpy(world)
    parts = 0.8 * np.sum(known.tables.value[0]) + 4.0 * np.sum(known.tables.certificate) + 3.2 * known.server_dual_value
    assert float(parts) == pytest.approx(found.value, rel=1e-12)
    assert float(known.server_dual_value) < 0.0


# In the mean


def test_noise_has_no_mean(play: Play, layers_bound: tuple[World, Bound]):
    """Real draws against the tables' expectation, over 64 paths of a policy far from what the tables are made for."""
    world, found = layers_bound
    path = path_of(world, play("random", world, seeds=range(64), precision="float64"))
    noise = (path.best[:, 1:] - path.extended[:, :-1]).mean(axis=1)
    error = noise.std(ddof=1) / 8
    assert -4 * error < noise.mean() < found.slack + 4 * error


def test_the_mean_discounted_cost_is_the_bound_and_the_losses(discounted_run: tuple[World, Bound, Run]):
    """64 seeds; the 100 blocks left out weigh 0.8^100."""
    _, found, run = discounted_run
    weight = 0.8 ** np.arange(100)
    lost = (run.sums.loss_devices + run.sums.loss_waiting + run.sums.loss_service) @ weight
    unexplained = run.sums.cost() @ weight - found.value - lost
    error = unexplained.std(ddof=1) / 8
    assert abs(unexplained.mean()) < 4 * error


def test_the_oracle_loses_nothing_at_its_devices(layers_run: Callable[[str], Run]):
    sums = layers_run("oracle").sums
    assert np.abs(sums.loss_devices).max() < 1e-9
    assert sums.started.sum() > 100


def test_the_gap_is_the_plain_ratio_but_for_noise():
    """1500 blocks, 8 seeds: the intervals of mean cost / bound - 1 and of the identity overlap, one is far narrower."""
    dataset = compare(overrides={"devices": 4}, schemes=["priced"], blocks=1500, seeds=8)
    (summary,), bound = summarise(dataset), dataset.attrs["bound"]
    assert summary.gap is not None
    whole, ratio = summary.gap.whole, np.array([summary.cost.low, summary.cost.high]) / bound - 1
    assert ratio[0] < whole.high
    assert whole.low < ratio[1]
    assert ratio[1] - ratio[0] > 10 * (whole.high - whole.low)
    assert 0.0 < whole.mean < 0.05
    assert whole.mean == pytest.approx(summary.gap.devices + summary.gap.waiting + summary.gap.service, rel=1e-9)
    late = cost_of(dataset, "priced")[:, 750:]
    assert late.mean() / bound - 1 == pytest.approx(ratio.mean(), rel=1e-9)


# None


def summary_of(scheme: str, **overrides: Any) -> tuple[Summary, np.ndarray]:
    """A summary, and all losses of its run."""
    dataset = compare(overrides={"devices": 4, **overrides}, schemes=[scheme], blocks=100, seeds=2)
    lost = np.stack([dataset[f"loss_{part}"].values for part in ("devices", "waiting", "service")])
    return summarise(dataset)[0], lost


def test_without_a_bound_there_are_no_losses_and_no_gap():
    summary, lost = summary_of("random", queue="as_printed")
    assert summary.status == "ok"
    assert np.isnan(lost).all()
    assert summary.gap is None
    assert "as printed" in (summary.no_gap or "")


def test_an_unstable_scheme_has_losses_and_no_gap():
    """Two tasks come a block, `full` sends one."""
    summary, lost = summary_of("full")
    assert np.isfinite(lost).all()
    assert (summary.status, summary.gap) == ("unstable", None)
    assert summary.no_gap == "the scheme is unstable"
