"""Equations (1)-(8) against numbers worked by hand in SI units, the laws they obey, and what an action may be.

The preset `paper`: W = 1e10 cycles, n tau = 5 x 0.1 s = 0.5 s, f_max = 80 GHz, xi = 1e-28, B = 1 MHz, Gamma = 1.5,
zeta W = 1e6 bits; the server: F = 2 THz, xi_ser = 1e-29; w1 = w3 = 1e-10, w2 = 2.5e-5, w4 = 2.5e-3.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from partway.measurement.metrics import served_work
from partway.pytree import cast_floats, fleetwise
from partway.scenario.loading import load
from partway.simulation.step import initial_state, next_state
from partway.system.equations import (
    affordable_bits,
    data_rate,
    device_cost,
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
    server_cost,
    server_energy,
    share_for_power,
    transmit_power,
)
from partway.system.exogenous import PackedExogenous, sample
from partway.system.placement import Placement
from partway.system.signalling import no_broadcast
from partway.system.types import Device, DeviceAction, Memory, ServerAction, State
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
    """2 of 5 tasks started, 2 arrivals; the printed equation also keeps the quarter of a task that was sent (T1)."""
    action = DeviceAction(started=number(2.0), offload=number(0.25))
    mine = device(build(load("paper", {"devices": 2, "queue": queue}), Placement(np.ones(2), GAINS)))
    assert float(next_device_queue(mine, number(5.0), action, jnp.array([0.0, 1.0, 0.0, 0.0, 1.0]))) == left


@pytest.mark.parametrize(("tasks", "joule"), [(0.0, 0.0), (0.5, 50.0), (1.0, 400.0), (2.0, 3200.0)])
def test_2_local_energy(tasks: float, joule: float):
    """One task: f = 1e10 / 0.5 s = 20 GHz, n tau xi f^3 = 0.5 x 1e-28 x 8e30 = 400 J; eight times that for two."""
    assert float(local_energy(device(), number(tasks))) == pytest.approx(joule, **EXACT)


def test_3_data_rate():
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
def test_6_server_queue(backlog: float, after: float):
    """Five slots of one task each: [7 - 5]^+ + 0.5, [3 - 5]^+ + 0.5."""
    assert float(next_server_queue(number(backlog), jnp.ones(5), number(0.5))) == after


def test_7_server_energy_is_of_the_service_commanded():
    """One task in a slot: f = 1e10 / 0.1 s = 100 GHz, tau xi f^3 = 0.1 x 1e-29 x 1e33 = 1000 J; two: 8000 J."""
    assert float(server_energy(WORLD.server, jnp.array([1.0, 2.0, 0.0, 0.0, 0.0]))) == pytest.approx(9000.0, **EXACT)


def a_block() -> tuple[State, DeviceAction, ServerAction]:
    """q = (2, 1), backlog 3; the first device starts both tasks and sends half of one, the second does nothing.

    The server does 1, 2, 0, 0, 0 tasks in its slots.
    """
    broadcast = no_broadcast(2, float)
    state = State(
        q=jnp.array([2.0, 1.0]),
        gain=jnp.asarray(GAINS),
        arrivals=jnp.zeros((5, 2)),
        backlog=number(3.0),
        last_inflow=number(0.0),
        broadcast_queue=jax.tree.map(lambda leaf: leaf[None], broadcast),
        memory=Memory((), ()),
    )
    service = jnp.array([1.0, 2.0, 0.0, 0.0, 0.0])
    return state, DeviceAction(jnp.array([2.0, 0.0]), jnp.array([0.5, 0.0])), ServerAction(service, broadcast)


def test_8_cost_and_its_components():
    """First device: L = 1.5, 400 x 1.5^3 = 1350 J; p = 1.5 / 3e3 x (2^5 - 1) = 0.0155 W, 0.00155 J; second: 0 J.

    (8) = 1e-10 x 3e10 + 2.5e-5 x 9000 + (1e-10 x 2e10 + 2.5e-3 x 1350.00155) + 1e-10 x 1e10 = 9.600003875.
    """
    state, actions, commanded = a_block()
    devices, server = jax.tree.map(jnp.asarray, WORLD.devices), WORLD.server
    joule = fleetwise(device_energy)(devices, state.gain, actions)
    assert np.asarray(joule) == pytest.approx([1350.00155, 0.0], **EXACT)
    of_devices = device_cost(devices, state.q, joule)
    of_server = server_cost(server, state.backlog, server_energy(server, commanded.service_per_slot))
    assert float(of_server) == pytest.approx(3.225, **EXACT)
    assert np.asarray(device_cost(devices, state.q, jnp.zeros(2))) == pytest.approx([2.0, 1.0], **EXACT)
    assert np.asarray(of_devices) == pytest.approx([5.375003875, 1.0], **EXACT)  # (13): one part per device,
    assert float(jnp.sum(of_devices) + of_server) == pytest.approx(9.600003875, **EXACT)  # one of the server


def test_what_is_sent_in_a_block_waits_at_the_server_from_the_next_on():
    """Server block t comes after device block t (Fig. 2), but serves only what is there: 3 - 3 + 0.5, then paid for."""
    state, actions, commanded = a_block()
    arrival_bits = jnp.array([[0b00001, 0b10000]], jnp.uint32)  # the first device's in slot 0, the second's in slot 4
    arrivals = jnp.zeros((5, 2)).at[0, 0].set(1.0).at[4, 1].set(1.0)
    world = jax.tree.map(jnp.asarray, WORLD)
    after = next_state(world, state, actions, commanded, PackedExogenous(arrival_bits, jnp.array([1.0, 2.0])))
    assert float(after.backlog) == 0.5
    assert float(after.last_inflow) == 0.5
    assert np.asarray(after.q).tolist() == [1.0, 2.0]
    assert np.asarray(after.gain).tolist() == [1.0, 2.0]
    assert np.array_equal(after.arrivals, arrivals)
    before, later = (server_cost(world.server, one.backlog, number(0.0)) for one in (state, after))
    assert float(before) == pytest.approx(3.0, **EXACT)
    assert float(later) == pytest.approx(0.5, **EXACT)


def test_work_at_the_server_is_counted_in_mean_tasks():
    """A fleet of tasks of 1e10 and 3e10 cycles: the mean is 2e10, so that they weigh 0.5 and 1.5."""
    larger = {"kind": "proportional", "cycles": 3e10, "bits_per_cycle": 1e-4}
    world = build(
        load({"devices": 2, "group": [{"count": 1}, {"count": 1, "task": larger}]}), Placement(np.ones(2), GAINS)
    )
    assert world.devices.server_work.tolist() == [0.5, 1.5]
    sent = inflow(world.devices, DeviceAction(jnp.ones(2), jnp.array([1.0, 0.5])))
    assert float(sent) == 1.25  # 0.5 + 0.5 x 1.5
    assert float(world.server.energy_coef) == pytest.approx(8000.0, **EXACT)  # 1e-29 x (2e10)^3 / 0.1^2
    assert float(world.server.queue_weight) == pytest.approx(2.0, **EXACT)  # 1e-10 x 2e10


# Laws

sizes = st.floats(0.0, 4.0)
gains = st.floats(-3.0, 9.0).map(lambda exponent: 10.0**exponent)
one_device = device()


@given(gains, st.floats(1.0, 4e6))
def test_the_data_rate_at_the_power_for_D_is_D_per_slot(gain: float, bits: float):
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
def test_most_startable_is_as_many_tasks_as_the_cpu_allows(q: int, offload: float, capacity: float):
    """Trap T5, against counting down: the first number whose local work fits, up to 1e-4 of a task."""
    slow = replace(one_device, capacity=number(capacity))
    assume(abs((q - offload - capacity - 1e-4) % 1.0 - 0.5) < 0.5 - 1e-9)  # on neither side of the edge by rounding
    most = next(started for started in range(q, -1, -1) if started - offload <= capacity + 1e-4)
    assert int(most_startable(slow, number(q), number(offload))) == most


def test_most_startable_by_hand():
    """Five tasks, half of one sent, four a block: one remains. A slack of 1e-4 covers what float32 rounds."""
    assert float(most_startable(one_device, number(5.0), number(0.5))) == 4.0
    assert float(most_startable(one_device, number(4.0), number(0.0))) == 4.0
    assert float(most_startable(one_device, number(4.00005), number(0.0))) == 4.00005
    assert float(most_startable(one_device, number(4.001), number(0.0))) == pytest.approx(3.001)
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


_feasible = jax.jit(feasible_action)
MIXED = fleet()
OF_MIXED = [device(MIXED, k) for k in range(4)]


class Asked(NamedTuple):
    """What a controller asks of device k when it has q tasks and this gain."""

    k: int
    q: float
    gain: float
    started: float
    offload: float


asked_actions = st.builds(
    Asked,
    k=st.integers(0, 3),
    q=st.integers(0, 12).map(float),
    gain=st.floats(-2.0, 8.0).map(lambda exponent: float(np.float32(10.0**exponent))),
    started=st.integers(-3, 15).map(float),
    offload=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-0.5, 1.5, width=32)),
)


def feasible(asked: Asked, times: int = 1) -> tuple[Device, DeviceAction]:
    """What happens when something is asked for, in float32; asked for again where `times` is more than one."""
    mine, q, gain = OF_MIXED[asked.k], np.float32(asked.q), np.float32(asked.gain)
    action = DeviceAction(np.float32(asked.started), np.float32(asked.offload))
    for _ in range(times):
        action = _feasible(mine, q, gain, action)
    return mine, jax.tree.map(np.asarray, action)


@given(asked_actions)
def test_a_feasible_action_stays_as_it_is(asked: Asked):
    once, twice = feasible(asked)[1], feasible(asked, times=2)[1]
    assert (once.started, once.offload) == (twice.started, twice.offload)


@given(asked_actions)
def test_a_feasible_action_is_possible(asked: Asked):
    """Whole tasks of those that wait, part of one of them, no more than the CPU can run, no more than the radio can."""
    mine, action = feasible(asked)
    assert action.started == np.floor(action.started)
    assert 0.0 <= action.started <= asked.q
    assert 0.0 <= action.offload <= min(action.started, 1.0)
    assert action.started - action.offload <= float(mine.capacity) + 1.01e-4
    power = float(power_for(mine, number(asked.gain), action.offload))
    assert power <= float(mine.tx_power_max_w) * (1 + 1e-4)
    assert power <= 1.5 / asked.gain * 2.0**40 * (1 + 1e-4)  # 40 bit/s/Hz
    shares = np.asarray(mine.task.share)[np.asarray(mine.task.feasible)]
    assert bool(mine.task.proportional) or action.offload in shares


@st.composite
def possible_actions(draw: st.DrawFn) -> Asked:
    """A cut of the device's own table (or any share, under the paper's law), and as many tasks as it can then run."""
    k = draw(st.integers(0, 3))
    task, capacity = OF_MIXED[k].task, float(OF_MIXED[k].capacity)
    cuts = np.asarray(task.share)[np.asarray(task.feasible)].tolist()
    offload = draw(st.floats(0.0, 1.0, width=32) if bool(task.proportional) else st.sampled_from(cuts))
    least = int(np.ceil(offload))
    started = draw(st.integers(least, max(least, int(np.floor(capacity + offload)))))
    q = started + draw(st.integers(0, 9))
    return Asked(k, float(q), float(np.float32(10.0 ** draw(st.floats(2.0, 8.0)))), float(started), offload)


@given(possible_actions())
def test_a_possible_action_happens_as_asked(asked: Asked):
    """Where nothing is in the way nothing is changed; what can be afforded is worked out anew, in float64."""
    mine, action = feasible(asked)
    task, power = mine.task, float(mine.tx_power_max_w)
    carried = 0.1 * float(mine.bandwidth_hz) * min(40.0, np.log2(1 + asked.gain * power / 1.5))
    at_cut = dict(zip(np.asarray(task.share).tolist()[::-1], np.asarray(task.bits).tolist()[::-1], strict=True))
    bits = float(task.bits_per_task) * asked.offload if bool(task.proportional) else at_cut[asked.offload]
    assume(bits <= carried * (1 - 1e-6))
    assume(asked.started - asked.offload <= float(mine.capacity))
    assert (action.started, action.offload) == (asked.started, np.float32(asked.offload))


@pytest.mark.parametrize("k", range(4))
def test_a_whole_task_can_be_sent_and_nothing_is_left_of_it(k: int):
    """Trap T10, and no rounding: `offload` is exactly 1, local work and energy exactly 0, however long the queue is."""
    for q in (1.0, 2.0, 7.0, 4093.0, 1e6):
        mine, action = feasible(Asked(k, q, 1e8, 1.0, 1.0))
        assert (action.started, action.offload) == (1.0, 1.0)
        assert local_work(action) == 0.0
        assert local_energy(mine, local_work(action)) == 0.0


@pytest.mark.parametrize("k", range(4))
def test_a_block_that_starts_no_task_sends_nothing(k: int):
    for offload in (0.0, 0.3, 1.0):
        assert feasible(Asked(k, 0.0, 1e8, 0.0, offload))[1].offload == 0.0  # no task waits
        assert feasible(Asked(k, 3.0, 1e8, 0.0, offload))[1].offload == 0.0  # none is started


@pytest.mark.parametrize("k", [0, 2, 3])
def test_whole_tasks_are_started_whatever_is_asked_for(k: int):
    """As `schemes.constant.started = 1.5` asks, or a policy of one's own."""
    action = feasible(Asked(k, 3.0, 1e8, 1.5, 0.25))[1]
    assert action.started in (1.0, 2.0)


def test_a_cut_that_cannot_be_afforded_gives_way_to_the_next_that_can():
    """AlexNet, uint8 over 2 MHz and 0.1 s, 0.2 W: hp / Gamma = 2^e - 1 carries 2e5 e bits.

    Cuts (share, bits) of the file; the raw input, 1204224 bits, needs e = 6.02. Asked for 0.5.
    """
    mine = OF_MIXED[2]
    share, bits = np.asarray(mine.task.share)[:9], np.asarray(mine.task.bits)[:9]
    for efficiency in (40.0, 7.0, 5.0, 3.0, 1.0, 0.1):
        gain = float(np.float32(1.5 / 0.2 * (2.0**efficiency - 1)))
        fits = [s for s, b in zip(share, bits, strict=True) if b <= 2e5 * efficiency]
        upward, downward = [s for s in fits if s >= 0.5], [s for s in fits if s < 0.5]
        expected = min(upward) if upward else max(downward)
        assert feasible(Asked(2, 1.0, gain, 1.0, 0.5))[1].offload == expected


def test_no_more_than_40_bits_per_second_and_hertz_are_sent():
    """A whole task, 1e6 bits, over 200 kHz would take 50 bit/s/Hz; 40 carry 0.1 s x 2e5 Hz x 40 = 8e5 bits of it."""
    narrow = device(build(load("paper", {"devices": 2, "device.bandwidth_hz": 2e5}), Placement(np.ones(2), GAINS)))
    asked = DeviceAction(started=number(1.0), offload=number(1.0))
    assert float(feasible_action(narrow, number(1.0), number(3e3), asked).offload) == pytest.approx(0.8, rel=1e-12)
    assert float(share_for_power(narrow, number(3e3), number(1e30))) == pytest.approx(0.8, rel=1e-12)


def test_a_device_that_can_do_nothing_waits():
    """0.4 of a task in a block, and 0.2 W carry 0.1 s x 1 MHz x log2(1 + 1 x 0.2 / 1.5) = 18 kbit at this gain."""
    _, action = feasible(Asked(1, 3.0, 1.0, 3.0, 1.0))
    assert (action.started, action.offload) == (0.0, 0.0)


with jax.enable_x64(True):
    OF_MIXED_64 = [device(fleet(precision="float64"), k) for k in range(4)]


@jax.jit
def _sent_at(mine: Device, gain: jax.Array, power: jax.Array) -> tuple[jax.Array, ...]:
    """Share, bits and data rate at a power."""
    bits = affordable_bits(mine, gain, jnp.minimum(power, mine.tx_power_max_w))
    return share_for_power(mine, gain, power), bits, data_rate(mine, gain, power)


@given(gains, st.floats(0.0, 10.0).map(lambda p: p**4))
def test_a_power_sends_the_largest_share_it_can(gain: float, power: float):
    """(4) the other way: its own share is affordable, and the next larger cut is not."""
    for mine in OF_MIXED_64:
        share, bits, data_rate_ = map(float, _sent_at(mine, number(gain), number(power)))
        assert bits <= 0.1 * data_rate_ * (1 + 1e-12)
        if bool(mine.task.proportional):
            assert share == pytest.approx(min(1.0, bits / float(mine.task.bits_per_task)), rel=1e-12)
            continue
        table = zip(*(np.asarray(leaf) for leaf in (mine.task.share, mine.task.bits, mine.task.feasible)), strict=True)
        assert share == max(s for s, b, good in table if good and b <= bits)


# Conservation of work, whatever anybody does


class History(NamedTuple):
    """What happened, axes (block, ...)."""

    q: np.ndarray
    backlog: np.ndarray
    started: np.ndarray
    offload: np.ndarray
    arrived: np.ndarray
    served: np.ndarray
    commanded: np.ndarray
    last_q: np.ndarray
    last_backlog: np.ndarray


@jax.jit
def _blocks(world: World, started: jax.Array, offload: jax.Array, service: jax.Array):
    nothing = no_broadcast(4, service.dtype)

    def block(state: State, chosen):
        t, *asked, per_slot = chosen
        actions = fleetwise(feasible_action)(world.devices, state.q, state.gain, DeviceAction(*asked))
        after = next_state(world, state, actions, ServerAction(per_slot, nothing), sample(world, 7, t))
        served, arrived = jnp.sum(served_work(state.backlog, per_slot)), jnp.sum(after.arrivals, 0)
        return after, (state.q, state.backlog, actions.started, actions.offload, arrived, served, jnp.sum(per_slot))

    numbers = jnp.arange(len(started), dtype=jnp.uint32)
    return jax.lax.scan(block, initial_state(world, jnp.uint32(7)), (numbers, started, offload, service))


@cache
def history(queue: str, blocks: int = 300) -> History:
    """300 blocks of actions drawn without a look at the state, sensible and not."""
    rng = np.random.default_rng(3)
    started = rng.integers(-1, 6, (blocks, 4)).astype(np.float32)
    offload = np.where(rng.random((blocks, 4)) < 0.3, 1.0, rng.uniform(-0.2, 1.3, (blocks, 4))).astype(np.float32)
    service = rng.uniform(0.0, 0.8, (blocks, 5)).astype(np.float32)
    with jax.enable_x64(False):
        last, blockwise = _blocks(fleet(queue), started, offload, service)
    return History(*(np.asarray(leaf, np.float64) for leaf in (*blockwise, last.q, last.backlog)))


def test_work_is_conserved():
    """Tasks arrived = finished locally + sent + waiting at each device; work sent = served + waiting at the server."""
    happened = history("conserving")
    local = (happened.started - happened.offload).sum(0)
    assert np.allclose(happened.arrived.sum(0), local + happened.offload.sum(0) + happened.last_q, rtol=0, atol=1e-4)
    assert (happened.offload.sum(0) > 10).all()  # all four did send
    sent = float((happened.offload * np.asarray(MIXED.devices.server_work, np.float64)).sum())
    assert sent == pytest.approx(happened.served.sum() + happened.last_backlog, rel=1e-5)


def test_the_queue_as_printed_does_work_twice():
    """Trap T1: more is finished, sent and waiting than arrived, by exactly what was sent."""
    happened = history("as_printed")
    local, sent = (happened.started - happened.offload).sum(0), happened.offload.sum(0)
    made = local + sent + happened.last_q - happened.arrived.sum(0)
    assert np.allclose(made, sent, rtol=0, atol=1e-3)
    assert (made > 10).all()


def test_the_conserving_queue_holds_whole_tasks_only():
    assert np.array_equal(history("conserving").q, np.round(history("conserving").q))
    assert not np.array_equal(history("as_printed").q, np.round(history("as_printed").q))


def test_server_timeline_block_by_block():
    """(6) over a run: nothing sent in block t is served in it, all of it waits at the start of block t + 1."""
    happened = history("conserving")
    work = (happened.offload * np.asarray(MIXED.devices.server_work, np.float64)).sum(-1)
    backlog, commanded = happened.backlog, happened.commanded
    assert backlog[0] == 0.0
    expected = np.maximum(backlog[:-1] - commanded[:-1], 0.0) + work[:-1]
    assert np.allclose(backlog[1:], expected, rtol=1e-4, atol=1e-4)
    assert np.allclose(happened.served, np.minimum(backlog, commanded), rtol=1e-4, atol=1e-4)
