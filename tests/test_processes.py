"""Channels and traffic with a memory: their laws by hand, and what holds for every process, shipped or not."""

import io
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from conftest import scheduled, world_of
from rich.console import Console
from scipy import stats

import partway
from partway.bound.lower_bound import NoBound, lower_bound
from partway.controllers.base import ControllerPair
from partway.experiments.comparison import compare
from partway.experiments.report import as_json, show
from partway.experiments.summary import summarise
from partway.figures import write_comparison
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.schemes import SCHEMES
from partway.simulation.rollout import Run, rollout
from partway.system.exogenous import begin, draw, unpack_arrivals
from partway.system.world import World

SIGMAS = 4.5
MARKOV: dict[str, Any] = {"radio.fading": {"kind": "gauss_markov", "lag_correlation": 0.81}}


class OnOff(partway.Traffic):
    """Tasks come in bursts: in a block, all slots have the same chance, 0 or twice the mean one."""

    stay: float = 0.9

    def init(self, key: jax.Array, device: partway.Station) -> Any:
        return jax.random.bernoulli(key, 0.5)

    def step(self, state: Any, key: jax.Array, device: partway.Station, block: jax.Array) -> Any:
        first, second = jax.random.split(key)
        on = jnp.where(jax.random.bernoulli(first, self.stay), state, ~state)
        chance = jnp.where(on, 2.0 * device.arrival_prob, 0.0)
        return on, jax.random.bernoulli(second, chance, (device.slots,))


class Walk(partway.Channel):
    """The mean gain times e to a random walk between -1 and 1; the key decides as JAX's do."""

    step_size: float = 0.1

    def init(self, key: jax.Array, device: partway.Station) -> Any:
        return jax.random.uniform(key, minval=-1.0, maxval=1.0)

    def step(self, state: Any, key: jax.Array, device: partway.Station, block: jax.Array) -> Any:
        moved = jnp.clip(state + self.step_size * jax.random.normal(key, dtype=jnp.float32), -1.0, 1.0)
        return moved, device.mean_gain * jnp.exp(moved)


OWN: dict[str, Any] = {"radio.fading": Walk(), "traffic": OnOff()}


def drawn(world: World, blocks: int, seed: int = 0, precision: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Gains (blocks, K) over their mean, and arrivals (blocks, n, K), from block 0 on."""
    with jax.enable_x64(precision == "float64"):
        concrete: World = cast_floats(world, precision)
        memory, first, _ = begin(concrete, seed)
        _, random = draw(concrete, seed, memory, None, jnp.arange(blocks, dtype=jnp.uint32))  # pyright: ignore
    gain = np.concatenate([np.asarray(first)[None], np.asarray(random.gain)[:-1]])
    return gain / world.devices.mean_gain, unpack_arrivals(world.devices.slots, np.asarray(random.arrival_bits))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


# Laws


@pytest.fixture(scope="module")
def markov() -> np.ndarray:
    """x of 20,000 devices in 6 blocks, with a lag correlation of 0.81."""
    return drawn(world_of(load({"devices": 20_000}, MARKOV)), 6)[0]


@pytest.mark.parametrize("block", [0, 5])
def test_a_gauss_markov_gain_is_exponential_in_every_block(markov: np.ndarray, block: int):
    assert stats.kstest(markov[block], "expon").pvalue > 1e-5
    assert markov.min() > 0


@pytest.mark.parametrize("lag", [1, 2, 4])
def test_a_gauss_markov_gain_has_the_correlation_that_is_asked_for(markov: np.ndarray, lag: int):
    """0.81^lag. The error of a correlation of 20,000 exponential pairs is below 3 / sqrt(20,000) = 0.021."""
    assert correlation(markov[0], markov[lag]) == pytest.approx(0.81**lag, abs=0.021)
    assert correlation(markov[1, 1:], markov[2, :-1]) == pytest.approx(0.0, abs=0.03)  # of two devices


def test_a_gauss_markov_amplitude_without_correlation_is_fresh_and_with_all_of_it_stays():
    kinds = [{"kind": "gauss_markov", "lag_correlation": rho} for rho in (0.0, 1.0)]
    fresh, same = (drawn(world_of(load({"devices": 5000}, {"radio.fading": kind})), 2)[0] for kind in kinds)
    assert correlation(fresh[0], fresh[1]) == pytest.approx(0.0, abs=SIGMAS / np.sqrt(5000))
    np.testing.assert_array_equal(same[0], same[1])


def test_traffic_of_ones_own_has_the_law_that_it_states():
    """By hand, with 5 slots: on in half of the blocks, then a chance of 0.8 each. So 2 tasks on the mean; the variance
    is 4^2 / 4 of the state and 0.4 within it; of neighbours the state has the correlation 2 * 0.9 - 1."""
    _, arrived = drawn(world_of(load({"devices": 20_000}, {"traffic": OnOff(), "device.arrival_prob": 0.4})), 3)
    tasks = arrived.sum(axis=1)
    assert tasks[1].mean() == pytest.approx(2.0, abs=SIGMAS * np.sqrt(4.4 / 20_000))
    assert correlation(tasks[1], tasks[2]) == pytest.approx(3.2 / 4.4, abs=0.03)


# What holds for every process


@pytest.fixture(scope="module", params=["gauss_markov", "own", "current"])
def overrides(request: pytest.FixtureRequest) -> dict[str, Any]:
    more = {"current": {**MARKOV, "traffic": OnOff(), "arrivals_seen": "current"}}
    return {"gauss_markov": MARKOV, "own": OWN, **more}[request.param]


def played(world: World, scheme: str = "myopic", blocks: int = 60, **how: Any) -> Run:
    pair = how.pop("pair", None) or ControllerPair(SCHEMES[scheme].device, SCHEMES[scheme].server)
    with scheduled(1, **{name: how.pop(name) for name in ("BLOCKS_PER_CALL", "BLOCKS_PER_TILE") if name in how}):
        return rollout(world, pair, "same", how.pop("seeds", [3, 4]), blocks, traces=True, **how)


def exogenous_of(run: Run) -> tuple[np.ndarray, np.ndarray]:
    assert run.traces is not None
    return np.asarray(run.traces.gain), np.asarray(run.traces.arrivals)


@pytest.fixture(scope="module")
def whole(overrides: dict[str, Any]) -> Run:
    return played(world_of(load({"devices": 3}, overrides)))


def test_results_do_not_depend_on_how_blocks_are_divided(overrides: dict[str, Any], whole: Run):
    """Into calls, tiles and runs that continue one another: what a process remembers is in the carry."""
    world = world_of(load({"devices": 3}, overrides))
    parts = played(world, BLOCKS_PER_CALL=20, BLOCKS_PER_TILE=10)
    first = played(world, blocks=40)
    second = played(world, blocks=20, pair=first.pair, carry=first.carry, first_block=40)
    for one, other, rest in zip(exogenous_of(whole), exogenous_of(parts), exogenous_of(second), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one[:, 40:], rest)


def test_every_scheme_meets_the_same_world(overrides: dict[str, Any], whole: Run):
    other = played(world_of(load({"devices": 3}, overrides)), "full")
    assert not np.array_equal(other.metrics.cost(), whole.metrics.cost())
    for one, two in zip(exogenous_of(whole), exogenous_of(other), strict=True):
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one[0], one[1])  # of two seeds


def test_a_small_fleet_is_a_prefix_of_a_large_one(overrides: dict[str, Any], whole: Run):
    large = exogenous_of(played(world_of(load({"devices": 5}, overrides))))
    for few, many in zip(exogenous_of(whole), large, strict=True):
        np.testing.assert_array_equal(few, many[..., :3])


def test_float64_meets_the_world_of_float32():
    """JAX's own numbers differ: `jax.random.uniform(key)` is another one in float64."""
    world = world_of(load({"devices": 3}, MARKOV))
    single, double = drawn(world, 50), drawn(world, 50, precision="float64")
    np.testing.assert_allclose(single[0], double[0], rtol=1e-4)
    np.testing.assert_array_equal(single[1], double[1])


def test_devices_see_the_arrivals_of_the_coming_block_if_the_scenario_says_so():
    """The same tasks, a block earlier: the queue has them one block later."""
    own = {"devices": 3, **MARKOV, "traffic": OnOff()}
    worlds = [world_of(load("paper", own | {"arrivals_seen": seen})) for seen in ("past", "current")]
    past, current = (exogenous_of(played(world)) for world in worlds)
    for one, other in zip(past, current, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 0 < past[1].mean() < 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [20, 1280])
def test_a_channel_with_a_memory_takes_at_most_half_as_much_time_again(devices: int):
    """Processor time of `priced`, the least of several turns."""
    worlds = [world_of(load({"devices": devices}, given)) for given in ({}, MARKOV)]
    least = [np.inf, np.inf]
    for turn in range(5):
        for i, world in enumerate(worlds):
            begun = time.process_time()
            rollout(world, ControllerPair(SCHEMES["priced"].device, SCHEMES["priced"].server), "time", [0], 2000)
            least[i] = min(least[i], time.process_time() - begun) if turn else np.inf
    assert least[1] < 1.5 * least[0]


# The bound


def shown(dataset: xr.Dataset) -> str:
    file = io.StringIO()
    show(dataset, Console(file=file, width=400, color_system=None))
    return file.getvalue()


def test_without_independent_blocks_there_is_no_gap_and_the_reason_is_said(tmp_path: Path):
    dataset = compare("paper", overrides={"devices": 2, **MARKOV}, schemes=["myopic"], blocks=20, seeds=2)
    why = (
        "no bound for a channel that is correlated in time: "
        "the bound needs gains that are independent from block to block"
    )
    (summary,) = summarise(dataset)
    document = as_json(dataset)
    assert (summary.gap, summary.no_gap) == (None, why)
    assert document["lower_bound"]["average"] is None
    assert document["lower_bound"]["reason"] == document["schemes"][0]["gap"]["reason"] == why
    assert why in shown(dataset)
    write_comparison(dataset, tmp_path)
    words = re.sub(r"<[^>]+>", "", (tmp_path / "gap.svg").read_text())
    assert "no bound for a channel that is correlated in time" in " ".join(words.split())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"traffic": OnOff()}, "arrivals that are independent from block to block"),
        ({"radio.fading": Walk()}, "gains that are independent from block to block"),
    ],
)
def test_a_process_of_ones_own_has_no_bound_unless_it_says_so(given: dict[str, Any], why: str):
    with pytest.raises(NoBound, match=why):
        lower_bound(world_of(load({"devices": 2}, given)))
