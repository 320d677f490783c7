"""Equations (1)-(8) against numbers worked by hand in SI units, the laws they obey, and what an action may be.

The preset `paper`: W = 1e10 cycles, n tau = 5 x 0.1 s = 0.5 s, f_max = 80 GHz, xi = 1e-28, B = 1 MHz, Gamma = 1.5,
zeta W = 1e6 bits; the server: F = 2 THz, xi_ser = 1e-29; w1 = w3 = 1e-10, w2 = 2.5e-5, w4 = 2.5e-3.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from partway.controllers.base import no_broadcast
from partway.measurement.metrics import served_work
from partway.pytree import cast_floats, fleetwise
from partway.scenario.loading import load
from partway.simulation.step import first_state
from partway.system.equations import (
    affordable_bits,
    block_costs,
    data_rate,
    device_energy,
    feasible_action,
    inflow,
    local_energy,
    local_work,
    most_startable,
    next_device_queue,
    next_server_queue,
    power_for,
    radio_energy,
    server_energy,
    share_for_power,
    transition,
    transmit_power,
)
from partway.system.exogenous import exogenous
from partway.system.placement import Placement
from partway.system.types import Device, DeviceAction, Exogenous, ServerAction, State
from partway.system.world import World, build

GAINS = np.array([3e3, 3e4])
TWO = load("paper", {"devices": 2})
WORLD = build(TWO, Placement(np.array([100.0, 50.0]), GAINS))
EXACT = {"rel": 1e-12}


def device(world: World = WORLD, k: int = 0) -> Device:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[..., k]), world.devices)


def number(value: float) -> jax.Array:
    return jnp.asarray(value, float)


@pytest.fixture(autouse=True, scope="module")
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


# (1)-(8) by hand


def test_constants_of_the_paper_preset():
    mine = device()
    assert float(mine.capacity) == pytest.approx(4.0, **EXACT)  # 0.5 s x 80e9 / 1e10
    assert float(mine.energy_coef) == pytest.approx(400.0, **EXACT)  # 1e-28 x (1e10)^3 / 0.5^2
    assert float(mine.queue_weight) == pytest.approx(1.0, **EXACT)  # 1e-10 x 1e10
    assert float(mine.task.bits_per_task) == pytest.approx(1e6, **EXACT)  # 1e-4 x 1e10
    assert float(mine.server_work) == 1.0
    assert float(WORLD.server.slot_capacity) == pytest.approx(20.0, **EXACT)  # 0.1 s x 2e12 / 1e10
    assert float(WORLD.server.energy_coef) == pytest.approx(1000.0, **EXACT)  # 1e-29 x (1e10)^3 / 0.1^2
    assert float(WORLD.server.queue_weight) == pytest.approx(1.0, **EXACT)


@pytest.mark.parametrize(("queue", "left"), [("conserving", 5.0), ("as_printed", 5.25)])
def test_1_device_queue(queue: str, left: float):
    """3 tasks left untouched, 2 arrivals; the printed equation also keeps the quarter of a task that was sent (T1)."""
    action = DeviceAction(whole=number(3.0), offload=number(0.25))
    mine = device(build(load("paper", {"devices": 2, "queue": queue}), Placement(np.ones(2), GAINS)))
    assert float(next_device_queue(mine, action, jnp.array([0.0, 1.0, 0.0, 0.0, 1.0]))) == left


@pytest.mark.parametrize(("tasks", "joule"), [(0.0, 0.0), (0.5, 50.0), (1.0, 400.0), (2.0, 3200.0)])
def test_2_local_energy(tasks: float, joule: float):
    """One task: f = 1e10 / 0.5 s = 20 GHz, n tau xi f^3 = 0.5 x 1e-28 x 8e30 = 400 J; eight times that for two."""
    assert float(local_energy(device(), number(tasks))) == pytest.approx(joule, **EXACT)


def test_3_rate():
    """h p / Gamma = 3e3 x 0.5115 / 1.5 = 1023: 1e6 x log2(1024) = 10 Mbit/s."""
    assert float(data_rate(device(), number(3e3), number(0.5115))) == pytest.approx(1e7, **EXACT)


def test_4_power():
    """1e6 bits in 0.1 s over 1 MHz: 10 bit/s/Hz, 1.5 / 3e3 x (2^10 - 1) = 0.5115 W; at ten times the gain a tenth."""
    assert float(transmit_power(device(), number(3e3), number(1e6))) == pytest.approx(0.5115, **EXACT)
    assert float(transmit_power(device(), number(3e4), number(1e6))) == pytest.approx(0.05115, **EXACT)
    assert float(power_for(device(), number(3e3), number(0.5))) == pytest.approx(1.5 / 3e3 * 31, **EXACT)


def test_5_radio_energy():
    assert float(radio_energy(device(), number(0.5115))) == pytest.approx(0.05115, **EXACT)  # 0.1 s x 0.5115 W


@pytest.mark.parametrize(("backlog", "after"), [(7.0, 2.5), (3.0, 0.5), (0.0, 0.5)])
def test_6_server_queue(y: float, after: float):
    """Five slots of one task each: [7 - 5]^+ + 0.5, [3 - 5]^+ + 0.5."""
    assert float(next_server_queue(number(y), jnp.ones(5), number(0.5))) == after


def test_7_server_energy_is_of_the_rates_commanded():
    """One task in a slot: f = 1e10 / 0.1 s = 100 GHz, tau xi f^3 = 0.1 x 1e-29 x 1e33 = 1000 J; two: 8000 J."""
    assert float(server_energy(WORLD.server, jnp.array([1.0, 2.0, 0.0, 0.0, 0.0]))) == pytest.approx(9000.0, **EXACT)


def a_block() -> tuple[State, DeviceAction, ServerAction]:
    """q = (2, 1), y = 3; the first device sends half a task, the second does nothing; rates (1, 2, 0, 0, 0)."""
    words = no_broadcast(2, float)
    state = State(
        q=jnp.array([2.0, 1.0]),
        gain=jnp.asarray(GAINS),
        arrivals=jnp.zeros((5, 2)),
        backlog=number(3.0),
        arrived=number(0.0),
        broadcast_queue=jax.tree.map(lambda leaf: leaf[None], words),
    )
    rates = jnp.array([1.0, 2.0, 0.0, 0.0, 0.0])
    return state, DeviceAction(jnp.array([0.0, 1.0]), jnp.array([0.5, 0.0])), ServerAction(rates, words)


def test_8_cost_and_its_parts():
    """First device: L = 1.5, 400 x 1.5^3 = 1350 J; p = 1.5 / 3e3 x (2^5 - 1) = 0.0155 W, 0.00155 J; second: 0 J.

    (8) = 1e-10 x 3e10 + 2.5e-5 x 9000 + (1e-10 x 2e10 + 2.5e-3 x 1350.00155) + 1e-10 x 1e10 = 9.600003875.
    """
    state, actions, commanded = a_block()
    joule = fleetwise(device_energy)(jax.tree.map(jnp.asarray, WORLD.devices), state.q, state.gain, actions)
    assert np.asarray(joule) == pytest.approx([1350.00155, 0.0], **EXACT)
    costs = block_costs(
        WORLD.devices, WORLD.server, state, joule, server_energy(WORLD.server, commanded.service_per_slot)
    )
    of_devices, of_server = costs.device_queue + costs.device_energy, costs.server_queue + costs.server_energy
    assert float(costs.server_queue) == pytest.approx(3.0, **EXACT)
    assert float(costs.server_energy) == pytest.approx(0.225, **EXACT)
    assert np.asarray(costs.device_queue) == pytest.approx([2.0, 1.0], **EXACT)
    assert np.asarray(of_devices) == pytest.approx([5.375003875, 1.0], **EXACT)  # (13): one part per device,
    assert float(jnp.sum(of_devices) + of_server) == pytest.approx(9.600003875, **EXACT)  # one of the server


def test_what_is_sent_in_a_block_waits_at_the_server_from_the_next_on():
    """Server block t comes after device block t (Fig. 2), but serves only what is there: 3 - 3 + 0.5, then paid for."""
    state, actions, commanded = a_block()
    gone = Exogenous(arrivals=jnp.zeros((5, 2)).at[0, 0].set(1.0), gain=jnp.array([1.0, 2.0]))
    devices = jax.tree.map(jnp.asarray, WORLD.devices)
    after = transition(devices, state, actions, commanded, gone)
    assert float(after.backlog) == 0.5
    assert float(after.arrived) == 0.5
    assert np.asarray(after.q).tolist() == [1.0, 1.0]
    assert np.asarray(after.gain).tolist() == [1.0, 2.0]
    assert np.array_equal(after.arrivals, gone.arrivals)
    nothing = jnp.zeros(2)
    before, later = (block_costs(devices, WORLD.server, one, nothing, number(0.0)) for one in (state, after))
    assert float(before.server_queue) == pytest.approx(3.0, **EXACT)
    assert float(later.server_queue) == pytest.approx(0.5, **EXACT)


def test_work_at_the_server_is_counted_in_mean_tasks():
    """A fleet of tasks of 1e10 and 3e10 cycles: the mean is 2e10, so that they weigh 0.5 and 1.5."""
    larger = {"kind": "proportional", "cycles": 3e10, "bits_per_cycle": 1e-4}
    world = build(
        load({"devices": 2, "group": [{"count": 1}, {"count": 1, "task": larger}]}), Placement(np.ones(2), GAINS)
    )
    assert world.devices.server_work.tolist() == [0.5, 1.5]
    brought = inflow(world.devices, DeviceAction(jnp.zeros(2), jnp.array([1.0, 0.5])))
    assert float(brought) == 1.25  # 0.5 + 0.5 x 1.5
    assert float(world.server.energy_coef) == pytest.approx(8000.0, **EXACT)  # 1e-29 x (2e10)^3 / 0.1^2
    assert float(world.server.queue_weight) == pytest.approx(2.0, **EXACT)  # 1e-10 x 2e10


# Laws

sizes = st.floats(0.0, 4.0)
gains = st.floats(-3.0, 9.0).map(lambda exponent: 10.0**exponent)
one_device = device()


@given(gains, st.floats(1.0, 4e6))
def test_the_rate_at_the_power_for_D_is_D_per_slot(gain: float, bits: float):
    power = transmit_power(one_device, number(gain), number(bits))
    assert float(data_rate(one_device, number(gain), power)) == pytest.approx(bits / 0.1, rel=1e-9)


@given(st.lists(st.floats(0.0, 8e10), min_size=5, max_size=5))
def test_equal_rates_are_the_cheapest_way_to_run_the_same_work(rates: list[float]):
    """(2) summed slot by slot in SI units, tau xi sum f_i^3, is never below what `local_energy` charges."""
    slot_by_slot = 0.1 * 1e-28 * sum(f**3 for f in rates)
    tasks = 0.1 * sum(rates) / 1e10
    assert float(local_energy(one_device, number(tasks))) <= slot_by_slot * (1 + 1e-12)


@given(sizes, sizes, st.floats(0.0, 1.0))
def test_energies_are_convex(a: float, b: float, weight: float):
    def power(work: jax.Array) -> jax.Array:
        return transmit_power(one_device, number(3e3), 1e6 * work)

    def served(work: jax.Array) -> jax.Array:
        return server_energy(WORLD.server, work * jnp.arange(5.0))

    between = weight * a + (1 - weight) * b
    for energy in (partial(local_energy, one_device), power, served):
        chord = weight * float(energy(number(a))) + (1 - weight) * float(energy(number(b)))
        assert float(energy(number(between))) <= chord * (1 + 1e-9) + 1e-12


@given(st.integers(0, 30), st.floats(0.0, 1.0), st.floats(0.1, 9.0))
def test_drain_leaves_as_few_tasks_as_the_cpu_allows(q: int, offload: float, capacity: float):
    """Trap T5, against counting up: the first `whole` whose local work fits, up to 1e-4 of a task."""
    slow = jax.tree.map(lambda leaf: leaf, one_device)
    slow = type(slow)(**{**vars(slow), "capacity": number(capacity)})
    assume(abs((q - offload - capacity - 1e-4) % 1.0 - 0.5) < 0.5 - 1e-9)  # on neither side of the edge by rounding
    fewest = next(whole for whole in range(q + 2) if q - whole - offload <= capacity + 1e-4)
    assert int(most_startable(slow, number(q), number(offload))) == fewest


def test_drain_by_hand():
    """Five tasks, half a one sent, four a block: one stays. A slack of 1e-4 keeps float32 from leaving a whole task."""
    assert float(most_startable(one_device, number(5.0), number(0.5))) == 1.0
    assert float(most_startable(one_device, number(4.0), number(0.0))) == 0.0
    assert float(most_startable(one_device, number(4.00005), number(0.0))) == 0.0
    assert float(most_startable(one_device, number(4.001), number(0.0))) == 1.0
    assert float(most_startable(one_device, number(0.0), number(1.0))) == 0.0


# What an action may be

FLEET = {
    "devices": 4,
    "group": [
        {"count": 1},
        {"count": 1, "cpu_max_hz": 8e9, "tx_power_max_w": 0.2},  # 0.4 of a task in a block
        {
            "count": 1,
            "macs_per_cycle": 0.05,
            "tx_power_max_w": 0.2,
            "bandwidth_hz": 2e6,
            "task": {"kind": "layers", "profile": "alexnet", "tensor_dtype": "uint8"},
        },
        {"count": 1, "macs_per_cycle": 0.4, "task": {"kind": "layers", "profile": "resnet50", "tensor_dtype": "fp32"}},
    ],
}


def fleet(queue: str = "conserving", precision: str = "float32") -> World:
    scenario = (
        load({**FLEET, "queue": queue}) if queue == "conserving" else load("paper", {"devices": 4, "queue": queue})
    )
    with jax.enable_x64(precision == "float64"):
        return cast_floats(build(scenario, Placement(np.full(4, 60.0), np.array([4e4, 2e5, 5e4, 1e5]))), precision)


ADMITTED = jax.jit(feasible_action)
MIXED = fleet()


class Asked(NamedTuple):
    k: int
    q: float
    gain: float
    whole: float
    offload: float


asked_actions = st.builds(
    Asked,
    k=st.integers(0, 3),
    q=st.integers(0, 12).map(float),
    gain=st.floats(-2.0, 8.0).map(lambda exponent: float(np.float32(10.0**exponent))),
    whole=st.integers(-2, 14).map(float),
    offload=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-0.5, 1.5, width=32)),
)


def admitted(asked: Asked, again: int = 1) -> tuple[Device, DeviceAction]:
    """What happens when something is asked for, in float32; fed back `again` times."""
    mine, q, gain = device(MIXED, asked.k), np.float32(asked.q), np.float32(asked.gain)
    action = DeviceAction(np.float32(asked.whole), np.float32(asked.offload))
    for _ in range(again):
        action = ADMITTED(mine, q, gain, action)
    return mine, jax.tree.map(np.asarray, action)


@given(asked_actions)
def test_what_is_admitted_is_admitted_again_as_it_is(asked: Asked):
    once, twice = admitted(asked)[1], admitted(asked, again=2)[1]
    assert (once.whole, once.offload) == (twice.whole, twice.offload)


@given(asked_actions)
def test_what_is_admitted_is_possible(asked: Asked):
    """Whole tasks of those that wait, part of one of them, no more than the CPU can run, no more than the radio can."""
    mine, action = admitted(asked)
    started = asked.q - action.whole
    assert action.whole == np.floor(action.whole)
    assert 0.0 <= action.offload <= min(started, 1.0)
    assert action.whole >= 0.0
    assert started - action.offload <= float(mine.capacity) + 1.01e-4
    power = float(power_for(mine, number(asked.gain), action.offload))
    assert power <= float(mine.tx_power_max_w) * (1 + 1e-4)
    assert power <= 1.5 / asked.gain * 2.0**40 * (1 + 1e-4)  # 40 bit/s/Hz
    shares = np.asarray(mine.task.share)[np.asarray(mine.task.feasible)]
    assert bool(mine.task.proportional) or action.offload in shares


@st.composite
def possible_actions(draw: st.DrawFn) -> Asked:
    """A cut of the device's own table (or any share, under the paper's law), and as many tasks as it can then run."""
    k = draw(st.integers(0, 3))
    task, capacity = device(MIXED, k).task, float(device(MIXED, k).capacity)
    cuts = np.asarray(task.share)[np.asarray(task.feasible)].tolist()
    offload = draw(st.floats(0.0, 1.0, width=32) if bool(task.proportional) else st.sampled_from(cuts))
    started = draw(st.integers(int(np.ceil(offload)), max(int(np.ceil(offload)), int(np.floor(capacity + offload)))))
    whole = draw(st.integers(0, 9))
    return Asked(k, float(started + whole), float(np.float32(10.0 ** draw(st.floats(2.0, 8.0)))), float(whole), offload)


@given(possible_actions())
def test_what_is_possible_is_admitted_as_asked(asked: Asked):
    """Where nothing is in the way nothing is changed; what can be afforded is worked out anew, in float64."""
    mine, action = admitted(asked)
    task, power = mine.task, float(mine.tx_power_max_w)
    carried = 0.1 * float(mine.bandwidth_hz) * min(40.0, np.log2(1 + asked.gain * power / 1.5))
    at_cut = dict(zip(np.asarray(task.share).tolist()[::-1], np.asarray(task.bits).tolist()[::-1], strict=True))
    bits = float(task.bits_per_task) * asked.offload if bool(task.proportional) else at_cut[asked.offload]
    assume(bits <= carried * (1 - 1e-6))
    assume(asked.q - asked.whole - asked.offload <= float(mine.capacity))
    assert (action.whole, action.offload) == (asked.whole, np.float32(asked.offload))


@pytest.mark.parametrize("k", range(4))
def test_a_whole_task_can_be_sent_and_nothing_is_left_of_it(k: int):
    """Trap T10, and no rounding: rest is exactly 1, local work and energy exactly 0, whatever the queue's length."""
    for q in (1.0, 2.0, 7.0, 4093.0, 1e6):
        mine, action = admitted(Asked(k, q, 1e8, q - 1, 1.0))
        assert (action.whole, action.offload) == (q - 1, 1.0)
        assert local_work(np.float32(q), action) == 0.0
        assert local_energy(mine, local_work(np.float32(q), action)) == 0.0


@pytest.mark.parametrize("k", range(4))
def test_a_block_without_a_task_sends_nothing(k: int):
    for offload in (0.0, 0.3, 1.0):
        assert admitted(Asked(k, 0.0, 1e8, 0.0, offload))[1].offload == 0.0  # no task waits
        assert admitted(Asked(k, 3.0, 1e8, 3.0, offload))[1].offload == 0.0  # none is taken up


@pytest.mark.parametrize("k", [0, 2, 3])
def test_whole_tasks_stay_whatever_is_asked_for(k: int):
    """As `schemes.constant.tasks = 1.5` asks, or a policy of one's own: of three tasks 1.5 are to be left."""
    action = admitted(Asked(k, 3.0, 1e8, 1.5, 0.25))[1]
    assert action.whole == np.round(action.whole)


def test_a_cut_that_cannot_be_afforded_gives_way_to_the_next_that_can():
    """AlexNet, uint8 over 2 MHz and 0.1 s, 0.2 W: hp / Gamma = 2^e - 1 carries 2e5 e bits.

    Cuts (share, bits) of the file; the raw input, 1204224 bits, needs e = 6.02. Asked for 0.5.
    """
    mine = device(MIXED, 2)
    share, bits = np.asarray(mine.task.share)[:9], np.asarray(mine.task.bits)[:9]
    for efficiency in (40.0, 7.0, 5.0, 3.0, 1.0, 0.1):
        gain = float(np.float32(1.5 / 0.2 * (2.0**efficiency - 1)))
        fits = [s for s, b in zip(share, bits, strict=True) if b <= 2e5 * efficiency]
        upward, downward = [s for s in fits if s >= 0.5], [s for s in fits if s < 0.5]
        expected = min(upward) if upward else max(downward)
        assert admitted(Asked(2, 1.0, gain, 0.0, 0.5))[1].offload == expected


def test_no_more_than_40_bits_per_second_and_hertz_are_sent():
    """A whole task, 1e6 bits, over 200 kHz would take 50 bit/s/Hz; 40 carry 0.1 s x 2e5 Hz x 40 = 8e5 bits of it."""
    narrow = device(build(load("paper", {"devices": 2, "device.bandwidth_hz": 2e5}), Placement(np.ones(2), GAINS)))
    asked = DeviceAction(number(0.0), number(1.0))
    assert float(feasible_action(narrow, number(1.0), number(3e3), asked).offload) == pytest.approx(0.8, rel=1e-12)
    assert float(share_for_power(narrow, number(3e3), number(1e30))) == pytest.approx(0.8, rel=1e-12)


def test_a_device_that_can_do_nothing_waits():
    """0.4 of a task in a block, and 0.2 W carry 0.1 s x 1 MHz x log2(1 + 1 x 0.2 / 1.5) = 18 kbit at this gain."""
    _, action = admitted(Asked(1, 3.0, 1.0, 0.0, 1.0))
    assert (action.whole, action.offload) == (3.0, 0.0)


@given(gains, st.floats(0.0, 10.0).map(lambda p: p**4))
def test_a_power_sends_the_largest_share_it_can(gain: float, power: float):
    """(4) the other way: its own share is affordable, and the next larger cut is not."""
    for k in range(4):
        mine = device(fleet_in_float64, k)
        share = float(share_for_power(mine, number(gain), number(power)))
        bits = float(affordable_bits(mine, number(gain), jnp.minimum(power, mine.tx_power_max_w)))
        assert bits <= 0.1 * float(data_rate(mine, number(gain), number(power))) * (1 + 1e-12)
        if bool(mine.task.proportional):
            assert share == pytest.approx(min(1.0, bits / float(mine.task.bits_per_task)), rel=1e-12)
            continue
        table = zip(*(np.asarray(leaf) for leaf in (mine.task.share, mine.task.bits, mine.task.feasible)), strict=True)
        assert share == max(s for s, b, good in table if good and b <= bits)


with jax.enable_x64(True):
    fleet_in_float64 = fleet(precision="float64")


# Conservation of work, whatever anybody does


class Story(NamedTuple):
    """What happened, axes (block, ...)."""

    q: np.ndarray
    backlog: np.ndarray
    started: np.ndarray
    offload: np.ndarray
    arrived: np.ndarray
    served: np.ndarray
    commanded: np.ndarray
    last_q: np.ndarray
    last_y: np.ndarray


@jax.jit
def _blocks(world: World, whole: jax.Array, offload: jax.Array, rates: jax.Array):
    devices, words = world.devices, no_broadcast(4, rates.dtype)

    def block(state: State, chosen):
        t, *asked, told = chosen
        actions = fleetwise(feasible_action)(devices, state.q, state.gain, DeviceAction(*asked))
        after = transition(devices, state, actions, ServerAction(told, words), exogenous(world, 7, t))
        served = jnp.sum(served_work(state.backlog, told))
        arrived, started = jnp.sum(after.arrivals, 0), state.q - actions.whole
        return after, (state.q, state.backlog, started, actions.offload, arrived, served, jnp.sum(told))

    numbers = jnp.arange(len(whole), dtype=jnp.uint32)
    return jax.lax.scan(block, first_state(world, jnp.uint32(7)), (numbers, whole, offload, rates))


def story(world: World, blocks: int = 300) -> Story:
    """Anybody does anything: 300 blocks of actions drawn without a look at the state, sensible and not."""
    rng = np.random.default_rng(3)
    whole = rng.integers(-1, 6, (blocks, 4)).astype(np.float32)
    offload = np.where(rng.random((blocks, 4)) < 0.3, 1.0, rng.uniform(-0.2, 1.3, (blocks, 4))).astype(np.float32)
    rates = rng.uniform(0.0, 0.8, (blocks, 5)).astype(np.float32)
    with jax.enable_x64(False):
        last, told = _blocks(world, whole, offload, rates)
    return Story(*(np.asarray(leaf, np.float64) for leaf in (*told, last.q, last.backlog)))


def test_work_is_conserved():
    """Tasks arrived = finished locally + sent + waiting at each device; work sent = served + waiting at the server."""
    happened = story(MIXED)
    local = (happened.started - happened.offload).sum(0)
    assert np.allclose(happened.arrived.sum(0), local + happened.offload.sum(0) + happened.last_q, rtol=0, atol=1e-4)
    assert (happened.offload.sum(0) > 10).all()  # all four did send
    sent = float((happened.offload * np.asarray(MIXED.devices.server_work, np.float64)).sum())
    assert sent == pytest.approx(happened.served.sum() + happened.last_y, rel=1e-5)


def test_the_queue_as_printed_does_work_twice():
    """Trap T1: more is finished, sent and waiting than arrived, by exactly what was sent."""
    happened = story(fleet("as_printed"))
    made = (
        (happened.started - happened.offload).sum(0)
        + happened.offload.sum(0)
        + happened.last_q
        - happened.arrived.sum(0)
    )
    assert np.allclose(made, happened.offload.sum(0), rtol=0, atol=1e-3)
    assert (made > 10).all()


def test_the_conserving_queue_holds_whole_tasks_only():
    assert np.array_equal(story(MIXED).q, np.round(story(MIXED).q))
    assert not np.array_equal(story(fleet("as_printed")).q, np.round(story(fleet("as_printed")).q))


def test_server_timeline_block_by_block():
    """(6) over a run: nothing sent in block t is served in it, all of it waits at the start of block t + 1."""
    happened = story(MIXED)
    work = (happened.offload * np.asarray(MIXED.devices.server_work, np.float64)).sum(-1)
    rates = happened.commanded
    assert happened.backlog[0] == 0.0
    assert np.allclose(
        happened.backlog[1:], np.maximum(happened.backlog[:-1] - rates[:-1], 0.0) + work[:-1], rtol=1e-4, atol=1e-4
    )
    assert np.allclose(happened.served, np.minimum(happened.backlog, rates), rtol=1e-4, atol=1e-4)
