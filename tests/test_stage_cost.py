"""What a block costs at the best cut, against every cut and against a hundred thousand shares, in plain NumPy.

By hand, the preset's device with w4 = 2.5e-3: running a task alone in a block costs 2.5e-3 x 400 J = 1, and the
fraction `offload` takes 1.5 / h (2^(10 offload) - 1) W for 0.1 s.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from partway.dnn.cuts import layer_cuts
from partway.dnn.profile import read_profile
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.system.equations import affordable_bits
from partway.system.placement import sample_placement
from partway.system.stage_cost import best_cuts, exact_choices, table_value, where_least
from partway.system.types import Device
from partway.system.world import build

MAX_TASKS = 5
"""Tasks that a block can start, the last one cut: the device runs 4.5 a block."""
GRID = np.linspace(0.0, 1.0, 100_001)
SLACK = 1e-4
"""Part of a task by which local work may exceed f_max (`partway.system.types.ROUNDING`)."""


def device_of(**overrides: Any) -> Device:
    scenario = load("paper", {"devices": 1, "device.cpu_max_hz": 90e9, **overrides})
    return jax.tree.map(lambda leaf: leaf[..., 0], build(scenario, sample_placement(scenario)).devices)


LAW = device_of()
ALEXNET = device_of(
    **{
        "device.task": {"kind": "layers", "profile": "alexnet", "tensor_dtype": "uint8"},
        "device.macs_per_cycle": 0.06,
        "device.bandwidth_hz": 2e6,
        "server.macs_per_cycle": 0.08,
    }
)

gains = st.floats(-2, 6).map(lambda exponent: 10.0**exponent)
prices = st.floats(0, 20)
capacities = st.floats(0.01, 4.5)
limits = st.just(np.inf) | st.floats(-7, 2).map(lambda exponent: 10.0**exponent)


def compiled(function: Any) -> Any:
    """(device, gain, price, capacity, limit) -> cost, offload, in float64, compiled once."""

    def choices(device: Device, gain: jax.Array, price: jax.Array, capacity: jax.Array, limit: jax.Array):
        own = replace(device, capacity=capacity, tx_power_max_w=limit)
        found = function(own, gain, price)
        return found.cost, found.offload

    once = jax.jit(choices)

    def called(device: Device, *numbers: float) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(True):
            cost, offload = once(cast_floats(device, "float64"), *(jnp.float64(number) for number in numbers))
            return np.asarray(cost), np.asarray(offload)

    return called


def _exact(device: Device, gain: jax.Array, price: jax.Array):
    return exact_choices(device, 1.0 / gain, affordable_bits(device, gain, device.tx_power_max_w), price)


cuts, exact = compiled(best_cuts), compiled(_exact)


def highest_efficiency(gain: float, limit: float) -> float:
    """log2(1 + h p / Gamma), at most 40 [bit/s/Hz]."""
    return min(40.0, float(np.log2(1.0 + gain * limit / 1.5)))


def cost_by_hand(j: int, offload: np.ndarray, gain: float, price: float) -> np.ndarray:
    """2.5e-3 [400 (j - offload)^3 + 0.1 x 1.5 / h (2^(10 offload) - 1)] + price offload."""
    return 2.5e-3 * (400.0 * (j - offload) ** 3 + 0.15 / gain * (2.0 ** (10.0 * offload) - 1.0)) + price * offload


def law_by_hand(
    shares: np.ndarray, gain: float, price: float, capacity: float, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cost and share of j = 0..MAX_TASKS over `shares` only."""
    cost, offload = np.zeros(MAX_TASKS + 1), np.zeros(MAX_TASKS + 1)
    for j in range(1, MAX_TASKS + 1):
        allowed = (10.0 * shares <= highest_efficiency(gain, limit)) & (j - shares <= capacity + SLACK)
        total = np.where(allowed, cost_by_hand(j, shares, gain, price), np.inf)
        cost[j], offload[j] = total.min(), shares[total.argmin()]
    return cost, offload


def table_by_hand(gain: float, price: float, capacity: float, limit: float) -> np.ndarray:
    """Cost of j = 0..MAX_TASKS with AlexNet, one (j, cut) after the other, for W_ser = 1 mean task."""
    profile = read_profile("alexnet")
    share, bits = layer_cuts(profile, "uint8")
    cycles = profile.macs / 0.06
    best = [0.0]
    for j in range(1, MAX_TASKS + 1):
        best.append(np.inf)
        for r, d in zip(share, bits, strict=True):
            efficiency = d / (0.1 * 2e6)
            if efficiency > highest_efficiency(gain, limit) or j - r > capacity + SLACK:
                continue
            local = 1e-28 * ((j - r) * cycles) ** 3 / 0.5**2
            radio = 0.1 * 1.5 / gain * (2.0**efficiency - 1.0)
            best[j] = min(best[j], 2.5e-3 * (local + radio) + price * r)
    return np.array(best)


def away_from_edges(gain: float, capacity: float, limit: float) -> None:
    """Not where rounding decides whether something is allowed: the device's and the radio's last affordable share."""
    least = capacity + SLACK - np.floor(capacity + SLACK)
    high = min(1.0, highest_efficiency(gain, limit) / 10.0)
    assume(min(abs(1.0 - least - high), least, 1.0 - least) > 1e-9)


@settings(max_examples=60)
@given(gains, prices, capacities, limits)
@example(1e3, 0.0, 4.5, np.inf)
@example(2e2, 1.8, 0.3, 0.2)
def test_the_best_of_33_shares_is_found(gain: float, price: float, capacity: float, limit: float):
    away_from_edges(gain, capacity, limit)
    shares = np.arange(33) / 32.0
    assume(np.abs(10.0 * shares - highest_efficiency(gain, limit)).min() > 1e-9)
    assume(np.abs(shares - 1.0 + (capacity + SLACK) % 1.0).min() > 1e-9)
    cost, offload = cuts(LAW, gain, price, capacity, limit)
    wanted, _ = law_by_hand(shares, gain, price, capacity, limit)
    np.testing.assert_allclose(cost, wanted, rtol=1e-12)
    for j in np.flatnonzero(np.isfinite(cost[1:])) + 1:
        assert cost_by_hand(j, offload[j], gain, price) == pytest.approx(cost[j], rel=1e-12)


def check_next_to_the_best(gain: float, price: float, capacity: float, limit: float) -> None:
    """Never above the best of all shares tried, the interval's own ends among them, and 1e-6 below it at most."""
    end = min(1.0, highest_efficiency(gain, limit) / 10.0)
    ends = [j - capacity - SLACK + 1e-15 for j in range(1, MAX_TASKS + 1) if 0 < j - capacity - SLACK < end]
    cost, offload = exact(LAW, gain, price, capacity, limit)
    wanted, _ = law_by_hand(np.sort(np.r_[GRID, ends, end - 1e-15]), gain, price, capacity, limit)
    assert (np.isfinite(cost) == np.isfinite(wanted)).all()
    found = np.isfinite(cost)
    assert (cost[found] <= wanted[found] * (1 + 1e-12)).all()
    np.testing.assert_allclose(cost[found], wanted[found], rtol=1e-6, atol=1e-9)
    for j in np.flatnonzero(found[1:]) + 1:
        assert cost_by_hand(j, offload[j], gain, price) == pytest.approx(wanted[j], rel=1e-6, abs=1e-9)


@settings(max_examples=60)
@given(gains, st.floats(0.01, 20), capacities, limits)
@example(2e2, 1.8, 0.3, 0.2)
@example(1e-2, 0.01, 4.5, np.inf)
@example(1e6, 20.0, 4.5, np.inf)
def test_the_exact_cost_is_never_above_any_share_and_next_to_the_best(
    gain: float, price: float, capacity: float, limit: float
):
    away_from_edges(gain, capacity, limit)
    check_next_to_the_best(gain, price, capacity, limit)


@pytest.mark.parametrize(("gain", "price"), [(2.5e3, 0.0), (1.6e5, 1e-4), (1e9, 1e-6), (1e12, 0.0)])
def test_the_exact_cost_is_right_where_sending_is_almost_free(gain: float, price: float):
    """The best share leaves next to nothing of one task, whose cost (1 - offload)^3 has no curvature there."""
    check_next_to_the_best(gain, price, 4.5, np.inf)


@settings(max_examples=60)
@given(gains, prices, capacities, limits)
@example(1e3, 0.0, 4.5, np.inf)
@example(1e1, 3.0, 1.2, 0.2)
def test_a_table_of_cuts_is_searched_whole(gain: float, price: float, capacity: float, limit: float):
    share, bits = layer_cuts(read_profile("alexnet"), "uint8")
    assume(np.abs(bits / 2e5 - highest_efficiency(gain, limit)).min() > 1e-9)
    assume(np.abs((share + capacity + SLACK) - np.round(share + capacity + SLACK)).min() > 1e-9)
    wanted = table_by_hand(gain, price, capacity, limit)
    for found in (cuts, exact):
        np.testing.assert_allclose(found(ALEXNET, gain, price, capacity, limit)[0], wanted, rtol=1e-12)


def test_what_f_max_and_the_radio_do_not_allow_is_infinite():
    """f_max runs 1.4 tasks: two need 0.6 of the last to be sent, 2^6 - 1 = 63 x 1.5 W at h = 1; three never fit."""
    for found in (cuts, exact):
        for limit, finite in ((np.inf, [0, 1, 2]), (63 * 1.5 * 0.99, [0, 1]), (1e-9, [0, 1])):
            cost, offload = found(LAW, 1.0, 0.0, 1.4, limit)
            assert np.flatnonzero(np.isfinite(cost)).tolist() == finite
            assert (cost[0], offload[0]) == (0.0, 0.0)
        assert np.flatnonzero(np.isfinite(found(LAW, 1.0, 0.0, 0.3, 1e-9)[0])).tolist() == [0]


def test_a_price_above_what_is_saved_keeps_the_last_task_local():
    """A free radio: sending more pays while 3 (1 - offload)^2 > price, so offload = 1 - sqrt(price / 3) of one task."""
    for price, offload in ((0.03, 0.9), (0.75, 0.5), (3.0, 0.0), (9.0, 0.0)):
        cost, shares = exact(LAW, 1e12, price, 4.5, np.inf)
        assert shares[1] == pytest.approx(offload, abs=1e-4)
        assert cost[1] == pytest.approx((1 - offload) ** 3 + price * offload, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("sign", [1.0, 0.0, -1.0])
def test_what_differs_by_rounding_alone_counts_as_equal(sign: float):
    """Whether totals are costs or gains; the smallest `of` of the equal ones is taken."""
    rounding = 4 * float(jnp.finfo(jnp.float32).eps)
    total = jnp.array([sign * 2.0, sign * 2.0 * (1.0 + rounding), sign * 2.0 + 1.0])[:, None]
    assert where_least(total, jnp.array([5.0, 3.0, 1.0])[:, None]).tolist() == [3.0]
    assert where_least(total[::-1], jnp.array([5.0, 3.0, 1.0])[:, None]).tolist() == [1.0]


@pytest.mark.parametrize("price", [-0.5, -20.0])
def test_a_server_that_pays_for_work_gets_it(price: float):
    """A server from outside may broadcast a price below 0, with which a choice costs less than nothing."""
    shares = np.arange(33) / 32.0
    cost, offload = cuts(LAW, 1e3, price, 4.5, np.inf)
    wanted, at = law_by_hand(shares, 1e3, price, 4.5, np.inf)
    np.testing.assert_allclose(cost, wanted, rtol=1e-12)
    assert offload.tolist() == at.tolist()
    assert (price > -20) or (cost[1:3] < 0).all()


def test_a_table_of_values_continues_with_its_slope():
    left = jnp.array([0.0, 1.0, 2.0, 3.0, 7.0])
    assert table_value(jnp.array([0.0, 1.0, 4.0]), jnp.asarray(2.5), left).tolist() == [0.0, 1.0, 4.0, 6.5, 16.5]
