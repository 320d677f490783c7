"""Arrivals and gains are independent, have the right law, and are the same for every scheme, fleet and precision.

Thresholds are for fixed seeds: a sound generator fails a five-sigma test once in two million, and then always.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import arrivals, exogenous
from hypothesis import given
from hypothesis import strategies as st
from jax.extend import random as jax_random
from scipy import stats

from partway import rng, threefry
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.system.exogenous import begin, draw, gains, unpack_arrivals
from partway.system.fading import Rayleigh
from partway.system.load import load_of, most_started
from partway.system.path_loss import gain_from_db, noise_dbw, pathloss_db
from partway.system.placement import sample_placement
from partway.system.traffic import product_high
from partway.system.world import World, build

SIGMAS = 5.0
BLOCKS = 200
SLOTS = 12
PROBABILITIES = np.repeat([0.1, 0.4, 0.95], 100)


def made(overrides: dict[str, Any] | None = None, **scenario: Any) -> World:
    given_scenario = load(scenario, overrides or {})
    return build(given_scenario, sample_placement(given_scenario))


@jax.jit
def _many(world: World, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    blocks = jnp.arange(BLOCKS, dtype=jnp.uint32)
    arrived, gain = jax.vmap(lambda t: (arrivals(world, seed, t), gains(world, seed, t)))(blocks)
    return arrived.astype(bool), gain / world.devices.mean_gain


@cache
def many(seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Arrivals (block, slot, device) and fading (block, device): 12 slots, 300 devices of three classes."""
    groups = [{"count": 100, "arrival_prob": b} for b in (0.1, 0.4, 0.95)]
    world = made(devices=300, slots_per_block=SLOTS, group=groups)
    arrived, fading = _many(cast_floats(world, "float32"), jnp.uint32(seed))
    return np.asarray(arrived), np.asarray(fading, np.float64)


def correlation_in_sigmas(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two equally long samples in units of what independent ones would show."""
    return abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1])) * np.sqrt(a.size)


def centred() -> np.ndarray:
    return many()[0] - PROBABILITIES


# Arrivals


def test_a_task_arrives_in_every_slot_with_probability_b():
    """36 frequencies (slot, class) of 20000 draws each."""
    seen = many()[0].reshape(BLOCKS, SLOTS, 3, 100).mean(axis=(0, 3))
    b = np.array([0.1, 0.4, 0.95])
    assert (np.abs(seen - b) < SIGMAS * np.sqrt(b * (1 - b) / (BLOCKS * 100))).all()


def test_arrivals_of_two_slots_are_independent():
    """All 66 pairs of slots, those within a random word of eight and those across two."""
    x = centred()
    worst = max(correlation_in_sigmas(x[:, i], x[:, j]) for i in range(SLOTS) for j in range(i))
    assert worst < SIGMAS


def test_arrivals_of_blocks_devices_and_seeds_are_independent():
    x, other = centred(), many(6)[0] - PROBABILITIES
    assert correlation_in_sigmas(x[1:], x[:-1]) < SIGMAS
    assert correlation_in_sigmas(x[..., 1:], x[..., :-1]) < SIGMAS
    assert correlation_in_sigmas(x, other) < SIGMAS
    assert not np.array_equal(x, other)


def test_the_slots_of_a_word_have_the_product_law():
    """Eight Bernoullis of 0.4 from one word: the 256 patterns against their exact probabilities, 20000 draws."""
    eight = many()[0][:, :8, 100:200].transpose(0, 2, 1).reshape(-1, 8)
    pattern = eight @ 2 ** np.arange(8)
    ones = np.array([bin(i).count("1") for i in range(256)])
    expected = 0.4**ones * 0.6 ** (8 - ones)
    counts = np.bincount(pattern, minlength=256)
    assert stats.chisquare(counts, expected * counts.sum()).pvalue > 1e-5


@pytest.mark.parametrize("slots", [1, 8, 9, 64])
def test_any_number_of_slots(slots: int):
    """A task arrives in 0.4 of the slots of 5000 devices, in the last slot as well as in the others."""
    world = cast_floats(made(devices=5000, slots_per_block=slots), "float32")
    seen = np.asarray(arrivals(world, 1, 3))
    assert seen.shape == (slots, 5000)
    assert set(np.unique(seen)) == {0.0, 1.0}
    sigma = np.sqrt(0.24 / 5000)
    assert (np.abs(seen.mean(axis=1) - 0.4) < SIGMAS * sigma).all()


def test_certain_and_impossible_arrivals():
    never, always = (made({"device.arrival_prob": b}, devices=2000, slots_per_block=12) for b in (0.0, 1.0))
    assert np.asarray(arrivals(cast_floats(never, "float32"), 0, 0)).max() == 0.0
    assert np.asarray(arrivals(cast_floats(always, "float32"), 0, 0)).min() == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_upper_half_of_a_product(a: int, b: int):
    """Splitting an interval of whole numbers at b needs 64 bits, which JAX does not have by default."""
    assert int(product_high(jnp.uint32(a), jnp.uint32(b))) == a * b >> 32


# Fading


def test_fading_is_exponential_with_mean_one():
    """60000 draws: mean 1 and variance 1 within 1 / sqrt(N) and sqrt(8 / N) (the fourth central moment is 9); KS."""
    x = many()[1].ravel()
    assert abs(x.mean() - 1) < SIGMAS / np.sqrt(x.size)
    assert abs(x.var() - 1) < SIGMAS * np.sqrt(8 / x.size)
    assert stats.kstest(x, "expon").pvalue > 1e-5
    assert x.min() > 0


def test_fading_is_independent():
    rank = np.exp(-many()[1]) - 0.5  # uniform, so that the tail does not decide
    assert correlation_in_sigmas(rank[1:], rank[:-1]) < SIGMAS
    assert correlation_in_sigmas(rank[:, 1:], rank[:, :-1]) < SIGMAS
    assert correlation_in_sigmas(rank, np.exp(-many(6)[1]) - 0.5) < SIGMAS
    assert correlation_in_sigmas(rank, centred().sum(axis=1)) < SIGMAS  # of the arrivals of its own block,
    assert correlation_in_sigmas(rank[1:], centred()[:-1].sum(axis=1)) < SIGMAS  # and of the block before


def test_exogenous_holds_a_blocks_arrivals_and_the_gain_of_the_next():
    """Drawn from the seed alone, and block after block."""
    world = cast_floats(made(devices=6), "float32")
    random, (memory, gain, seen) = exogenous(world, 3, 10), begin(world, 3, 10)
    _, drawn = draw(world, 3, memory, seen, jnp.arange(10, 12))
    slots = world.devices.slots
    assert np.array_equal(random.arrivals, unpack_arrivals(slots, np.asarray(drawn.arrival_bits))[0])
    assert np.array_equal(exogenous(world, 3, 11).arrivals, unpack_arrivals(slots, np.asarray(drawn.arrival_bits))[1])
    assert np.array_equal(gain, gains(world, 3, 10))
    assert np.array_equal(random.gain, drawn.gain[0])
    assert np.array_equal(random.gain, gains(world, 3, 11))
    assert not np.array_equal(random.gain, gains(world, 3, 10))


# The same for everyone


@pytest.mark.parametrize("groups", [[], [{"fraction": 0.3, "cpu_max_hz": 2e10}, {"fraction": 0.7, "distance_m": 50.0}]])
def test_the_first_20_of_50_devices_are_a_fleet_of_20(groups: list[dict[str, Any]]):
    few, many_ = (load({"devices": k, "group": groups}) for k in (20, 50))
    assert many_.device_classes()[:20] == few.device_classes()
    here, there = sample_placement(few), sample_placement(many_)
    assert np.array_equal(there.distance_m[:20], here.distance_m)
    assert np.array_equal(there.mean_gain_per_w[:20], here.mean_gain_per_w)
    small, large = (cast_floats(build(s, p), "float32") for s, p in ((few, here), (many_, there)))
    for block in (0, 17):
        assert np.array_equal(gains(large, 4, block)[:20], gains(small, 4, block))
        assert np.array_equal(arrivals(large, 4, block)[:, :20], arrivals(small, 4, block))


def test_float32_and_float64_meet_the_same_world():
    world = made(devices=200, slots_per_block=9)
    single = cast_floats(world, "float32")
    with jax.enable_x64(True):
        double = cast_floats(world, "float64")
        exact = [(np.asarray(arrivals(double, 4, t)), np.asarray(gains(double, 4, t))) for t in range(3)]
    for t, (arrived, gain) in enumerate(exact):
        assert gain.dtype == np.float64
        assert np.array_equal(arrivals(single, 4, t), arrived)
        assert np.allclose(gains(single, 4, t), gain, rtol=1e-6, atol=0)


def test_seeds_parts_and_blocks_differ():
    keys = [rng.stream(seed, part) for seed in (0, 1, 2**32 - 1) for part in (0, 1)]
    first = [tuple(np.asarray(rng.words(key, block, 4)).ravel()) for key in keys for block in (0, 1)]
    assert len(set(first)) == 12


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4))
def test_the_words_are_those_of_threefry(numbers: list[int]):
    """JAX's own Threefry-2x32 of the same key and counter."""
    key, counter = jnp.array(numbers[:2], jnp.uint32), jnp.array(numbers[2:], jnp.uint32)
    ours = rng.threefry((key[0], key[1]), (counter[0], counter[1]))
    assert np.array_equal(ours, jax_random.threefry_2x32(key, counter))


def test_keys_in_numpy_are_those_of_jax():
    seeds = np.array([0, 3, 2**32 - 1], np.uint32)
    key = threefry.folded((np.zeros_like(seeds), seeds), 7)
    for i, seed in enumerate(seeds):
        theirs = jax.random.fold_in(jax.random.key(jnp.uint32(seed), impl="threefry2x32"), 7)
        assert [int(word[i]) for word in key] == jax.random.key_data(theirs).tolist()
        split = [[int(word[i]) for word in threefry.folded(key, number)] for number in range(3)]
        assert split == jax.random.key_data(jax.random.split(theirs, 3)).tolist()


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_normals_in_pieces_are_those_of_jax_to_the_bit(seed: int, precision: str):
    """Three rows of 7 x 1000, each from its own first number, in a compiled program."""
    key = jax.random.key(jnp.uint32(seed), impl="threefry2x32")
    with jax.enable_x64(precision == "float64"):
        theirs = np.asarray(jax.random.normal(key, (7, 1000), jnp.float32))
        high, low = jax.random.key_data(key)
        rows = jax.jit(lambda first: jax.lax.map(lambda at: rng.normals((high, low), at, 1000), first))
        ours = rows(jnp.array([0, 2000, 6000], jnp.uint32))
    assert ours.dtype == jnp.float32
    assert np.array_equal(ours, theirs[[0, 2, 6]])


def test_placements_are_made_with_threefry():
    scenario = load("paper", {"devices": 5, "placement_seed": 11})
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(11, impl="threefry2x32"), 0), 0)
    uniform = (np.asarray(jax.random.bits(key, (5,), jnp.uint32), np.float64) + 0.5) / 2.0**32
    near, far = scenario.radio.min_distance_m**2, scenario.radio.cell_radius_m**2
    np.testing.assert_array_equal(sample_placement(scenario).distance_m, np.sqrt(near + uniform * (far - near)))


# Placement and radio


def test_devices_are_spread_evenly_over_the_ring():
    """P(distance <= r) = (r^2 - 10^2) / (200^2 - 10^2), none nearer than 10 m, none beyond 200 m: 4000 devices."""
    distance = sample_placement(load({"devices": 4000})).distance_m
    assert distance.min() >= 10.0
    assert distance.max() <= 200.0
    assert stats.kstest((distance**2 - 100) / (40000 - 100), "uniform").pvalue > 1e-5


def test_shadowing_is_normal_with_10_db_and_independent_of_the_distance():
    scenario = load({"devices": 4000})
    placement = sample_placement(scenario)
    shadowing = -10 * np.log10(placement.mean_gain_per_w) + 144.0 - pathloss_db(scenario.radio, placement.distance_m)
    assert stats.kstest(shadowing / 10.0, "norm").pvalue > 1e-5
    assert correlation_in_sigmas(shadowing, placement.distance_m) < SIGMAS


def test_a_given_distance_does_not_move_the_other_devices():
    free = sample_placement(load({"devices": 3, "group": [{"count": 1}, {"count": 1}, {"count": 1}]}))
    fixed = sample_placement(
        load({"devices": 3, "group": [{"count": 1}, {"count": 1, "distance_m": 33.0}, {"count": 1}]})
    )
    assert fixed.distance_m[1] == 33.0
    assert fixed.distance_m[[0, 2]].tolist() == free.distance_m[[0, 2]].tolist()
    assert fixed.mean_gain_per_w[[0, 2]].tolist() == free.mean_gain_per_w[[0, 2]].tolist()


def test_another_placement_seed_moves_every_device():
    here, there = (sample_placement(load({"devices": 5, "placement_seed": seed})) for seed in (0, 2**32 - 1))
    assert (here.distance_m != there.distance_m).all()


def test_path_loss_and_gain_by_hand():
    """At 100 m 30.6 + 37.6 x 2 = 105.8 dB; over noise of -144 dBW a gain of 10^((144 - 105.8) / 10) = 10^3.82."""
    radio = load().radio
    assert pathloss_db(radio, np.array([1.0, 100.0])).tolist() == pytest.approx([30.6, 105.8], rel=1e-12)
    assert gain_from_db(np.array([105.8]), -144.0)[0] == pytest.approx(6606.934480075964, rel=1e-12)


def test_the_printed_noise_makes_every_gain_a_thousand_times_larger():
    """Trap T7: -174 dBm/Hz over 1 MHz is -144 dBW; the paper prints -174 dBW, 30 dB less."""
    ours, printed = load(), load("paper", {"radio.noise_dbw": -174.0})
    assert noise_dbw(ours.radio, np.array(1e6)) == -144.0
    assert sample_placement(printed).mean_gain_per_w == pytest.approx(
        1000 * sample_placement(ours).mean_gain_per_w, rel=1e-9
    )


@pytest.mark.parametrize(("preset", "total"), [("paper", -144.0), ("ocr", -134.0), ("camera", -137.01)])
def test_the_noise_of_the_presets_by_hand(preset: str, total: float):
    """-174 dBm/Hz = -204 dBW/Hz, over 1, 10 and 5 MHz."""
    scenario = load(preset)
    assert noise_dbw(scenario.radio, np.array(scenario.device.bandwidth_hz)) == pytest.approx(total, abs=1e-3)


def test_noise_follows_each_devices_own_bandwidth():
    """Devices that differ in bandwidth alone, 1, 2 and 4 MHz; then a noise figure of 3 dB; then a total."""
    wide = [{"count": 1, "bandwidth_hz": hertz, "distance_m": 50.0} for hertz in (1e6, 2e6, 4e6)]
    scenario = load({"devices": 3, "group": wide, "radio": {"shadowing_db": 0.0}})
    gain = sample_placement(scenario).mean_gain_per_w
    assert gain[0] / gain == pytest.approx([1.0, 2.0, 4.0], rel=1e-12)
    noisy = sample_placement(load(scenario.model_dump(exclude_none=True), {"radio.noise_figure_db": 3.0}))
    assert noisy.mean_gain_per_w * 10**0.3 == pytest.approx(gain, rel=1e-12)
    total = sample_placement(load(scenario.model_dump(exclude_none=True), {"radio.noise_dbw": -144.0}))
    assert total.mean_gain_per_w == pytest.approx(np.full(3, gain[0]), rel=1e-12)


def test_a_quarter_of_the_bandwidth_has_a_quarter_of_the_noise():
    wide, narrow = (sample_placement(load("ocr", changes)) for changes in ({}, {"device.bandwidth_hz": 2.5e6}))
    assert narrow.mean_gain_per_w / wide.mean_gain_per_w == pytest.approx(np.full(20, 4.0), rel=1e-12)


# The load, before anything runs


def load_with(overrides: dict[str, Any]):
    scenario = load("paper", overrides)
    return load_of(scenario, build(scenario, sample_placement(scenario)))


def test_load_of_the_preset_by_hand():
    """20 devices x 5 slots x 0.4 = 40 tasks; a device gets 2, runs 4; the server does 5 x 20 = 100: 40 / (40 + 100)."""
    found = load_with({})
    assert found.tasks == pytest.approx(40.0)
    assert found.device_utilisation == pytest.approx(0.5)
    assert found.server_utilisation == pytest.approx(0.4)
    assert found.system_utilisation == pytest.approx(40 / 140)
    assert found.infeasible_devices == 0
    assert "MORE WORK" not in found.sentence()


def test_more_work_than_can_be_done_is_said():
    """100 tasks arrive; devices run one each, 20; the server 5 x 0.1 s x 2e11 / 1e10 = 10."""
    found = load_with({"device.arrival_prob": 1.0, "device.cpu_max_hz": 20e9, "server.cpu_max_hz": 2e11})
    assert found.device_utilisation == pytest.approx(5.0)
    assert found.server_utilisation == pytest.approx(10.0)
    assert found.system_utilisation == pytest.approx(100 / 30)
    assert "MORE WORK ARRIVES THAN CAN BE DONE" in found.sentence()


def test_a_load_that_a_cut_can_carry_is_not_called_too_much():
    """One device, 2 tasks a block (b = 1 in 2 slots), 1.7 tasks of CPU; the server does 0.35 of one.

    Starting two and sending 0.3 of the second runs exactly 1.7 and leaves the server 0.05: 2 / (1.7 + 0.35) < 1.
    """
    found = load_with(
        {
            "devices": 1,
            "slots_per_block": 2,
            "device.arrival_prob": 1.0,
            "device.cpu_max_hz": 85e9,
            "server.cpu_max_hz": 17.5e9,
        }
    )
    assert found.system_utilisation == pytest.approx(2 / 2.05)


HEAVY = {"device.cpu_max_hz": 8e9, "device.arrival_prob": 0.11, "server.cpu_max_hz": 2e11}
"""20 devices get 11 tasks a block. Each has CPU for 0.4 of a task, 8 in all; the server does 10."""


def network(folder: Path, *rows: tuple[float, int]) -> dict[str, Any]:
    """A task of 1e10 cycles at device and server, cut after these fractions of its work, with so many elements."""
    text = "# source: by hand\n# input_shape: 1x384\n# input_bits: 12288\ncut,after,macs,elements\n0,x,0,384\n"
    lines = [f"{i},c{i},{round(1e10 * share)},{elements}\n" for i, (share, elements) in enumerate(rows, 1)]
    (folder / "net.csv").write_text(text + "".join(lines))
    return {"device.task": {"kind": "layers", "profile": str(folder / "net.csv"), "tensor_dtype": "uint8"}}


@pytest.mark.parametrize(
    ("shares", "capacity"),
    [
        ([], 10.0),  # a device sends all or nothing: no CPU can be used
        ([0.9], 10.0),  # 0.9 of a task does not fit
        ([0.9, 0.3], 20 * 0.3 + 10.0),  # 0.3 of one does
        ([0.9, 0.3, 0.1], 20 * 0.3 + 10.0),
    ],
)
def test_cpu_that_no_cut_can_use_is_no_capacity(shares: list[float], capacity: float, tmp_path: Path):
    rows = [(share, 64) for share in sorted(shares)]
    found = load_with(HEAVY | network(tmp_path, *rows, (1.0, 1)))
    assert found.server_utilisation == pytest.approx(1.1)
    assert found.system_utilisation == pytest.approx(11.0 / capacity)
    assert "block: more than the busiest device can finish alone, 110% of what the server can" in found.sentence()
    assert ("MORE WORK" in found.sentence()) == (capacity == 10.0)


def test_under_the_law_of_the_paper_all_cpu_can_be_used():
    assert load_with(HEAVY).system_utilisation == pytest.approx(11 / 18)


def test_a_cut_can_use_more_of_a_cpu_than_whole_tasks_do(tmp_path: Path):
    """1.7 tasks of CPU, 3 arrive: one whole task; with a cut after half, 1.5; the server does 20."""
    changes = {"device.cpu_max_hz": 34e9, "device.arrival_prob": 0.6, "server.cpu_max_hz": 4e11}
    for rows, own in (((), 1.0), (((0.5, 64),), 1.5)):
        found = load_with(changes | network(tmp_path, *rows, (1.0, 1)))
        assert found.system_utilisation == pytest.approx(60 / (20 * own + 20))


def test_devices_that_get_more_tasks_than_they_can_start_are_counted():
    """1 task of CPU and one sent are 2 a block; three classes get 2.5, 1.9 and 0.5. The server could do 100."""
    groups = [{"count": count, "arrival_prob": b} for count, b in ((3, 0.5), (5, 0.38), (12, 0.1))]
    found = load_with({"device.cpu_max_hz": 20e9, "group": groups})
    assert (found.overloaded_devices, found.infeasible_devices) == (3, 0)
    assert found.system_utilisation < 1
    assert found.sentence().endswith(". 3 device(s) get more tasks than they can start: every policy is unstable")


SLOW_DEVICES = {"devices": 4, "device.cpu_max_hz": 8e9, "device.distance_m": 100.0, "radio.shadowing_db": 0.0}
"""0.4 of a task in a block: 0.6 of it must be sent, 6 bit/s/Hz. The mean gain is 10^3.82 = 6607 per watt.

That takes 1.5 / 6607 x (2^6 - 1) = 14.3 mW; the next of the 32 cuts that stand for the law, 20/32 of a task, 17.05 mW.
"""


@pytest.mark.parametrize(
    ("changed", "infeasible"),
    [
        ({}, 0),
        ({"device.tx_power_max_w": 0.0175}, 0),
        ({"device.tx_power_max_w": 0.0150}, 0),  # under the law every share is a cut
        ({"device.tx_power_max_w": 0.0140}, 4),
        ({"device.tx_power_max_w": 0.0140, "device.cpu_max_hz": 20e9}, 0),  # runs a whole task
        ({"device.tx_power_max_w": 0.0140, "device.cpu_max_hz": 9e9}, 0),  # 0.45 of one: a smaller share will do
    ],
)
def test_devices_that_can_do_nothing_are_counted(changed: dict[str, Any], infeasible: int):
    found = load_with(SLOW_DEVICES | changed)
    assert found.infeasible_devices == infeasible
    assert ("can do nothing" in found.sentence()) == (infeasible > 0)


def test_tasks_that_a_device_can_start_by_hand():
    """Half a task of CPU: a task is started where the radio carries the other half, 5e5 bit in 0.1 s over 1 MHz.

    That is where x >= x0 = (2^5 - 1) Gamma / (h p), with probability e^-x0; 64 intervals err by at most one of them.
    """
    scenario = load("paper", {"devices": 20, "device.cpu_max_hz": 1e10, "device.tx_power_max_w": 0.02})
    devices = build(scenario, sample_placement(scenario)).devices
    exact = np.exp(-31 * 1.5 / (np.asarray(devices.mean_gain) * 0.02))
    found = most_started(devices, Rayleigh())
    assert (found >= exact - 1e-12).all()
    assert (found <= exact + 1 / 64).all()
    assert exact.min() < 0.5 < exact.max()
