"""The lower bound: numbers known from elsewhere, its laws, worlds that have none, and policies that cost no less."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MIXED, Play, world_of
from hypothesis import given, settings
from hypothesis import strategies as st

from partway.bound import lower_bound as bounds
from partway.bound.lower_bound import Bound, NoBound, lower_bound
from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Constant, Steady
from partway.experiments import preparation
from partway.experiments.preparation import bound_of
from partway.scenario.loading import load
from partway.system import world as worlds_module
from partway.system.world import World

EXPENSIVE = {"weights.server_energy": 2.5e-3}
"""Server energy at which the price is about 3.6 times the cost of a task that waits for a block."""
DISCOUNTED = {"objective": "discounted", "discount": 0.8}
BINS = 64

Four = Callable[[dict[str, Any]], World]


def solved(world: World, price: float | None = None, bins: int = BINS) -> Bound:
    return lower_bound(world, bins=bins, price=price)


@pytest.fixture(scope="module")
def expensive(four: Four) -> World:
    return four(EXPENSIVE)


@pytest.mark.parametrize(
    ("devices", "wanted", "within"), [(20, 124.18, 0.05), pytest.param(50, 356.84, 0.1, marks=pytest.mark.slow)]
)
def test_check_numbers_of_the_paper_preset(devices: int, wanted: float, within: float):
    """From a prototype that shares no code with the package."""
    assert lower_bound(world_of(load("paper", {"devices": devices}))).value == pytest.approx(wanted, abs=within)


# The price


def test_the_bound_is_concave_in_the_price_and_largest_at_the_one_found(expensive: World):
    best, prices = solved(expensive), np.linspace(0.0, 8.0, 17)
    values = np.array([solved(expensive, float(price)).value for price in prices])
    assert (np.diff(values, 2) < 1e-9).all()
    assert np.diff(values, 2).min() < -0.1
    assert values.max() < best.value
    assert 3.5 < float(best.certificate.price) < 4.0
    for aside in (0.98, 1.02):
        assert solved(expensive, aside * float(best.certificate.price)).value < best.value


@pytest.mark.parametrize("price", [0.0, 0.5, 1.0, 3.0, 50.0])
def test_the_servers_part_is_the_least_of_its_cost(price: float, four: Four):
    """(1 - price) f + 2.5e-3 E(f): 2e12 Hz do 100 tasks a block, E = 0.5 x 1e-29 (f x 1e10 / 0.5)^3 = 40 f^3."""
    found = solved(four(EXPENSIVE), price)
    f = np.linspace(0.0, 100.0, 1_000_001)
    assert found.value - found.parts.sum() == pytest.approx(np.min((1 - price) * f + 0.1 * f**3), abs=1e-6)


def test_a_server_at_full_speed_serves_no_faster(four: Four):
    """0.5 tasks a block at 1e10 Hz, at the price 5: (1 - 5) 0.5 + 0.1 x 0.5^3."""
    found = solved(four({**EXPENSIVE, "server.cpu_max_hz": 1e10}), 5.0)
    assert found.value - found.parts.sum() == pytest.approx(-4 * 0.5 + 0.1 * 0.125, rel=1e-6)


def test_the_bound_grows_with_the_price_by_what_is_sent_and_not_served(expensive: World):
    low, mid, high = (solved(expensive, 2.0 + step).value for step in (-1e-4, 0.0, 1e-4))
    sent, served = solved(expensive, 2.0).inflow.sum(), np.sqrt((2.0 - 1.0) / 0.3)
    assert (high - low) / 2e-4 == pytest.approx(sent - served, rel=1e-3)
    assert mid > (low + high) / 2 - 1e-9


def test_the_discounted_price_is_capped(four: Four):
    """w1 gamma / (1 - gamma) = 1 x 0.8 / 0.2, where work at the server waits for ever."""
    assert float(solved(four({**DISCOUNTED, "weights.server_energy": 2.5})).certificate.price) == pytest.approx(4.0)
    assert 0.5 < float(solved(four(DISCOUNTED)).certificate.price) < 1.0


def test_the_discounted_bound_is_its_formula(four: Four):
    """sum V_k(0) + gamma^2 / (1 - gamma) min (1 - price / gamma) f + w2 E(f), largest at the price found."""
    world = four({**DISCOUNTED, **EXPENSIVE})
    best, f = solved(world), np.linspace(0.0, 100.0, 1_000_001)
    price = float(best.certificate.price)
    server_dual_value = np.min((1 - price / 0.8) * f + 0.1 * f**3)
    assert server_dual_value < -0.1
    assert best.value == pytest.approx(best.parts.sum() + 0.64 / 0.2 * server_dual_value, rel=1e-7)
    assert best.objective == "discounted"
    others = [solved(world, other).value for other in (0.0, 0.9 * price, 1.1 * price, 4.0)]
    assert max(others) < best.value


def test_as_the_discount_goes_to_one_the_bounds_meet(four: Four):
    """(1 - gamma) J from empty queues goes to the average cost."""
    average = solved(four(EXPENSIVE), 2.0).value
    near, nearer = (
        (1 - gamma) * solved(four({**EXPENSIVE, "objective": "discounted", "discount": gamma}), 2.0).value
        for gamma in (0.99, 0.999)
    )
    assert abs(nearer - average) < 0.2 * abs(near - average) < 0.1 * average


# The fleet


def test_equal_groups_are_one_fleet(four: Four):
    """The same devices, written as two groups."""
    groups = world_of(load({"devices": 4, "group": [{"count": 1}, {"count": 3}]}))
    one, other = solved(four({})), solved(groups)
    assert other.value == pytest.approx(one.value, rel=1e-12)
    np.testing.assert_allclose(other.parts, one.parts, rtol=1e-12)


def test_the_order_of_devices_does_not_matter():
    fixed = {"radio.shadowing_db": 0.0}
    one = lower_bound(world_of(load(MIXED, fixed)))
    other = lower_bound(world_of(load({**MIXED, "group": MIXED["group"][::-1]}, fixed)))
    assert one.parts.max() > 1.5 * one.parts.min()
    assert other.value == pytest.approx(one.value, rel=1e-9)
    np.testing.assert_allclose(other.parts, one.parts[::-1], rtol=1e-6)
    np.testing.assert_allclose(other.inflow, one.inflow[::-1], rtol=1e-4, atol=1e-6)


def test_devices_without_tasks_cost_nothing(four: Four):
    assert solved(four({"device.arrival_prob": 0.0})).value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "harder",
    [
        {"device.arrival_prob": 0.45},
        {"device.capacitance": 1.2e-28},
        {"weights.device_energy": 3e-3},
        {"weights.device_queue": 1.2e-10},
        {"weights.server_queue": 1.2e-10},
        {"weights.server_energy": 1e-3},
        {"device.bandwidth_hz": 8e5},
        {"device.tx_power_max_w": 0.05},
        {"radio.noise_dbw": -140.0},
    ],
)
def test_a_harder_world_has_a_higher_bound(harder: dict[str, float], four: Four):
    assert solved(four(harder)).value > solved(four({})).value * 1.001


def test_devices_without_tasks_change_nothing():
    """One busy device, alone or beside three that have nothing to do and would pay more for a task than for waiting."""
    weights, busy = {"weights.server_energy": 1e-2, "weights.device_energy": 1e-2}, {"count": 1, "arrival_prob": 0.5}
    groups = [busy, {"count": 3, "arrival_prob": 0.0}]
    beside = solved(world_of(load({"devices": 4, "group": groups}, weights)))
    alone = solved(world_of(load({"devices": 1, "group": [busy]}, weights)))
    assert beside.value == pytest.approx(alone.value, rel=1e-9)
    np.testing.assert_allclose(beside.parts[1:], 0.0, atol=1e-9)


# How tight


@pytest.mark.parametrize("limit", [np.inf, pytest.param(0.2, marks=pytest.mark.slow)])
def test_more_bins_are_tighter(limit: float, four: Four):
    """At one price; `slack` covers what the bound can still gain."""
    world = four({"device.tx_power_max_w": limit})
    coarse, middle, fine = (solved(world, 1.03, bins) for bins in (16, 64, 256))
    assert coarse.value < middle.value < fine.value
    assert coarse.slack > middle.slack > fine.slack > 0
    for one in (coarse, middle):
        assert fine.value < one.value + one.slack + 1e-9
    assert fine.slack < 1e-2 * fine.value


def test_longer_tables_do_not_change_it(expensive: World, monkeypatch: pytest.MonkeyPatch):
    wanted = solved(expensive).value
    monkeypatch.setattr(bounds, "STATES", 16)
    monkeypatch.setattr(bounds, "MAX_STATES", 16)
    short = solved(expensive)
    assert short.tail_probability < 1e-12
    assert short.value == pytest.approx(wanted, rel=1e-9)


def test_tables_grow_until_their_end_is_not_reached(four: Four, monkeypatch: pytest.MonkeyPatch):
    """3.75 tasks arrive per block and four can be finished: 40 bit/s/Hz carry too little of a fifth one."""
    world = four({"device.bandwidth_hz": 2e5, "device.arrival_prob": 0.75})
    wanted = solved(world, 1.0)
    monkeypatch.setattr(bounds, "STATES", 16)
    grown = solved(world, 1.0)
    assert grown.value == pytest.approx(wanted.value, rel=1e-9)
    assert grown.tail_probability < bounds.MAX_TAIL_PROBABILITY
    monkeypatch.setattr(bounds, "MAX_STATES", 16)
    cut_short = solved(world, 1.0)
    assert cut_short.tail_probability > 100 * bounds.MAX_TAIL_PROBABILITY
    assert cut_short.value < wanted.value * (1 - 1e-6)


# No bound


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ({"queue": "as_printed"}, "as printed"),
        ({"weights.server_queue": 0.0}, "w1 = 0"),
        ({"device.arrival_prob": 1.0, "device.cpu_max_hz": 1e9}, "more tasks than it can start"),
        ({"device.cpu_max_hz": 1e9, "device.tx_power_max_w": 1e-12}, "more tasks than it can start"),
    ],
)
def test_worlds_without_a_bound_say_why(overrides: dict[str, Any], why: str, four: Four):
    """In the words of the table of docs/bound.md."""
    with pytest.raises(NoBound, match=why):
        lower_bound(four(overrides))
    table = (Path(__file__).parents[1] / "docs" / "bound.md").read_text("utf-8").split("## 8.")[1]
    assert why in table


def test_a_bound_does_not_change_where_a_cpu_can_run_more_tasks_than_are_planned(four: Four):
    """63.5, 64 and 1e6 tasks a block: nobody starts that many at the energy of the preset."""
    least, *more = (solved(four({"device.cpu_max_hz": 2e10 * tasks})) for tasks in (63.5, 64.0, 1e6))
    for found in more:
        assert found.value == pytest.approx(least.value, rel=1e-9)
        assert found.inflow == pytest.approx(least.inflow, rel=1e-6)


def test_the_bound_of_a_tiny_network_by_hand(tmp_path: Path):
    """60,000 MACs are 15,000 cycles: a device can run 66,667 tasks a block, for nearly nothing, as soon as they arrive.

    Two tasks a block wait for one block each: 2 x 3.7e-9 x 15000 a device.
    """
    header = "# source: by hand\n# input_shape: 1x384\n# input_bits: 12288\ncut,after,macs,elements\n"
    (tmp_path / "tiny.csv").write_text(header + "0,x,0,384\n1,h,54000,64\n2,y,60000,1\n")
    task = {"kind": "layers", "profile": str(tmp_path / "tiny.csv"), "tensor_dtype": "uint8"}
    world = world_of(load("ocr", {"devices": 3, "device.task": task}))
    assert float(world.devices.capacity[0]) == pytest.approx(1e9 / 15000)
    assert solved(world).value == pytest.approx(3 * 2 * 3.7e-9 * 15000, rel=1e-4)


def test_no_bound_where_more_tasks_would_be_started_than_are_planned(monkeypatch: pytest.MonkeyPatch):
    """2.5 tasks arrive per block and cost little energy: of at most 3 one would often start more."""
    for module in (bounds, worlds_module):
        monkeypatch.setattr(module, "MAX_PLANNED", 3)
    world = world_of(load("paper", {"devices": 1, "device.arrival_prob": 0.5, "device.capacitance": 1e-33}))
    assert world.devices.max_tasks_per_block == 3
    with pytest.raises(NoBound, match="would start more than 3 tasks in a block"):
        lower_bound(world, bins=16)
    table = (Path(__file__).parents[1] / "docs" / "bound.md").read_text("utf-8").split("## 8.")[1]
    assert "would start more than 64 tasks in a block" in table


def test_a_server_that_cannot_do_what_devices_must_send_has_no_bound(monkeypatch: pytest.MonkeyPatch):
    """Half a task arrives per block, the device runs 1/20 of one at most, the server 1/20."""
    monkeypatch.setattr(bounds, "MAX_STATES", 64)
    overrides = {"devices": 1, "device.arrival_prob": 0.1, "device.cpu_max_hz": 1e9, "server.cpu_max_hz": 1e9}
    with pytest.raises(NoBound, match="more work arrives than can be done: every policy is unstable"):
        lower_bound(world_of(load("paper", overrides)), bins=16)


def test_what_takes_long_says_what_it_computes(monkeypatch: pytest.MonkeyPatch):
    """Tables are doubled while they are too short; `slack` begins with the length that was enough."""
    monkeypatch.setattr(bounds, "STATES", 4)
    said = list[str]()
    found = lower_bound(world_of(load("paper", {"devices": 1})), bins=16, on_progress=said.append)
    assert found.tail_probability < 1e-7
    assert said[:2] == ["lower bound, tables of 4 states, step 1", "lower bound, tables of 8 states, step 2"]
    states = [int(words.split()[4]) for words in said]
    assert states == sorted(states)
    assert said[-1].startswith(f"lower bound, tables of {states[-2]} states, step 1")


def test_a_server_that_is_nearly_free_but_slow_leaves_the_work_to_the_devices(four: Four):
    """Each device can run all its work: some policies are stable, however little waiting at the server costs."""
    found = solved(four({"weights.server_queue": 1e-18, "server.cpu_max_hz": 1e10}))
    assert 0 < found.value < np.inf
    assert float(found.inflow.sum()) == pytest.approx(1e10 * 0.5 / 1e10, rel=0.02)  # what the server can do


def test_waiting_that_costs_nothing_has_a_discounted_bound(four: Four):
    """The price is 0 then: w1 gamma / (1 - gamma)."""
    found = lower_bound(four({"weights.server_queue": 0.0, "objective": "discounted"}))
    assert float(found.certificate.price) == 0
    assert found.value > 0


def test_of_a_discounted_program_tail_probability_is_a_probability_and_inflow_a_mean(four: Four):
    """At most one task is sent a block, and so is its mean weighed with (1 - gamma) gamma^t."""
    found = lower_bound(four({"objective": "discounted", "discount": 0.99}))
    assert (found.inflow <= 1).all()
    assert 0 <= found.tail_probability <= 1


def test_a_price_beyond_the_cap_is_refused(four: Four):
    """w1 gamma / (1 - gamma) is 19: with expensive server energy the formula would exceed the true optimum."""
    world = four({"objective": "discounted"})
    for price in (-1e-9, 19.01):
        with pytest.raises(ValueError, match="between 0 and 19"):
            lower_bound(world, price=price)
    assert lower_bound(world, price=18.99).value < lower_bound(world).value


def test_a_comparison_has_no_gap_where_the_bound_is_nothing_or_takes_too_long(
    four: Four, monkeypatch: pytest.MonkeyPatch
):
    """In the words of the table of docs/bound.md."""
    world = four({"device.arrival_prob": 0.0})
    assert bound_of(world) == "the bound is 0: no task ever arrives, or tasks cost nothing"
    monkeypatch.setattr(preparation, "MAX_BOUNDED", 3)
    assert str(bound_of(world)).startswith("more than 3 devices")
    table = (Path(__file__).parents[1] / "docs" / "bound.md").read_text("utf-8").split("## 8.")[1]
    assert "the bound is 0" in table
    assert "more than 10,000 devices" in table


# No policy costs less

SEEDS = tuple(range(8))
POLICIES: dict[str, str | ControllerPair] = {
    "local": "local",
    "priced": "priced",
    "drift": "drift",
    "steady": ControllerPair(Constant(offload=0.75, started=3.0), Steady(speed=0.2)),
}


def power_of_ten(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


def worlds() -> st.SearchStrategy[World]:
    """One to four devices of four are busy; all worlds share their compiled programs."""

    def made(busy: int, **numbers: float) -> World:
        overrides = {name.replace("__", "."): value for name, value in numbers.items()}
        first = {"count": busy, "arrival_prob": overrides.pop("device.arrival_prob")}
        groups = [first, {"count": 4 - busy, "arrival_prob": 0.02}]
        scenario = {"devices": 4, "broadcast_delay_blocks": 0, "group": groups[: 2 if busy < 4 else 1]}
        return world_of(load(scenario, overrides))

    return st.builds(
        made,
        busy=st.integers(1, 4),
        device__arrival_prob=st.floats(0.02, 0.45),
        device__distance_m=st.floats(20, 300),
        device__capacitance=power_of_ten(-29, -27.5),
        device__tx_power_max_w=st.sampled_from([np.inf, 0.2]),
        weights__server_energy=power_of_ten(-5.5, -1.5),
        weights__device_energy=power_of_ten(-3.5, -1.5),
    )


@pytest.mark.slow
@pytest.mark.parametrize("names", [("priced", "steady"), ("local", "drift")], ids=" and ".join)
def test_no_policy_costs_less_than_the_bound(names: tuple[str, ...], play: Play):
    """Late means of 8 seeds, each no less than the bound but for five standard errors."""

    @settings(max_examples=10)
    @given(world=worlds())
    def check(world: World) -> None:
        least = solved(world).value
        for name in names:
            cost = play(POLICIES[name], world, blocks=200, seeds=SEEDS, stream=name).metrics.cost()
            late = cost[:, 100:].astype(float).mean(axis=1)
            assert late.mean() > least - 5 * late.std(ddof=1) / np.sqrt(8) - 1e-6 * least, name

    check()
