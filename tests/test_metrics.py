"""Metrics of transitions against slow loops in float64, and that a block's numbers depend on that block alone."""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, TypeVar

import jax
import numpy as np
import pytest
import reference
from conftest import MIXED
from reference import DeviceNumbers
from scipy import optimize

from partway.bound.certificate import Certificate, Tables
from partway.bound.lower_bound import STATES
from partway.controllers.block import DeviceOutcome, ServerOutcome, Transition
from partway.experiments.plan import make_plan
from partway.experiments.rows import traces_of
from partway.measurement import metrics
from partway.measurement.metrics import BlockMetrics, Parties, device_traces, measure
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.simulation.rollout import Run
from partway.simulation.shares import stack
from partway.system.placement import sample_placement
from partway.system.world import World

T = TypeVar("T")
BLOCKS = 40
DEVICES, SERVER = reference.numbers(load(MIXED), sample_placement(load(MIXED)).mean_gain_per_w)


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    """Tables as a bound could leave them, of as many states as it has at first; what is tested is how they are read."""
    rng, states = np.random.default_rng(7), np.arange(STATES)[:, None]
    value = rng.uniform(0.5, 2.0, 4) * states**1.5
    surplus = rng.exponential(0.1, (STATES + 5, 4))
    tables: Any = Tables(value, value[-1] - value[-2], surplus, rng.uniform(0.0, 0.2, 4), rng.uniform(1.0, 5.0, 4))
    made: Any = Certificate(np.asarray(2.0), tables, np.asarray(-0.05), np.asarray(19.0), np.asarray(1.0))
    return made


@pytest.fixture(scope="module")
def transitions() -> Transition:
    """40 blocks of the mixed fleet, float64 with an axis of one run: feasible actions, drawn block by block."""
    return blocks_drawn(0)


def blocks_drawn(seed: int) -> Transition:
    rng = np.random.default_rng(seed)
    service = SERVER.slot_capacity * rng.uniform(0.0, 1.0, (BLOCKS, 5)) * (rng.random((BLOCKS, 5)) < 0.7)
    backlog, price, change = rng.exponential(3.0, BLOCKS) * (rng.random(BLOCKS) < 0.8), *rng.random((2, BLOCKS))
    server = ServerOutcome(backlog, service, price, change)
    rows = [[outcome(rng, d) for d in DEVICES] for _ in range(BLOCKS)]
    measured = [f.name for f in fields(DeviceOutcome) if f.name != "out_of_range"]
    columns = {name: np.array([[one[name] for one in row] for row in rows]) for name in measured}
    work = np.array([d.server_cycles / d.mean_task for d in DEVICES])
    bits = rng.integers(0, 32, (BLOCKS, 1, 4), np.uint32)
    inflow = (columns["offload"] * work).sum(axis=1)
    drawn: Any = Transition(np.arange(BLOCKS, dtype=np.uint32), bits, DeviceOutcome(**columns), server, inflow)
    return jax.tree.map(lambda leaf: leaf[None], drawn)


def outcome(rng: np.random.Generator, d: DeviceNumbers) -> dict[str, float]:
    """What a device does in a block: in a third of them nothing is sent, in a third of them another power is spent."""
    q, gain = float(rng.integers(0, 40 if rng.random() < 0.1 else 6)), d.mean_gain * rng.exponential()
    asked = float(rng.random() * (rng.random() < 0.7))
    started, offload = reference.feasible_action(d, q, gain, float(rng.integers(0, 6)), asked)
    energy = reference.local_energy(d, started - offload) + reference.radio_energy(d, gain, offload)
    power = reference.power(d, gain, reference.bits_of(d, offload))
    return {
        "q": q,
        "gain": gain,
        "started": started,
        "offload": offload,
        "commanded": power * rng.choice([1.0, 1.0005, 1.01, 0.0]),
        "power": power,
        "energy_j": energy,
        "relative_change": rng.random(),
    }


def measured(parties: Parties, transitions: Transition, precision: str, *stacked: bool) -> BlockMetrics:
    """Metrics as NumPy arrays; `stacked`: which leaves of the parties have an axis of runs, none if left out."""
    with jax.enable_x64(precision == "float64"):
        own, given = cast_floats(parties, precision), cast_floats(transitions, precision)
        kinds = stacked or (False,) * len(jax.tree.leaves(parties))
        return jax.tree.map(np.asarray, measure(own, given, stacked=kinds))


# Every number by hand


def by_loops(certificate: Certificate, happened: Any) -> dict[str, list[float]]:
    """All metrics of one run, block by block, in plain Python."""
    found: dict[str, list[float]] = {f.name: [] for f in fields(BlockMetrics)}
    for t in range(BLOCKS):
        block = jax.tree.map(lambda leaf, t=t: leaf[0, t], happened)
        for values in (of_devices(block), of_server(block), losses(certificate, block)):
            for name, value in values.items():
                found[name].append(float(value))
    return found


def each(block: Any, *names: str) -> list[tuple[Any, ...]]:
    """Devices with columns of what they did."""
    return list(zip(DEVICES, *(getattr(block.devices, name).tolist() for name in names), strict=True))


def of_devices(block: Any) -> dict[str, float]:
    """What is summed, or averaged, over devices."""
    arrived = [sum(int(bits) >> slot & 1 for slot in range(5)) for bits in block.arrival_bits[0]]
    work = [d.server_cycles / d.mean_task for d in DEVICES]
    spent = [
        reference.local_energy(d, started - offload) + reference.radio_energy(d, gain, offload)
        for d, started, offload, gain in each(block, "started", "offload", "gain")
    ]
    q, started, offload = (getattr(block.devices, name).tolist() for name in ("q", "started", "offload"))
    commanded, power = block.devices.commanded.tolist(), block.devices.power.tolist()
    mismatch = [abs(p - c) > 1e-3 * c for p, c in zip(power, commanded, strict=True)]
    return {
        "device_queue": sum(d.w3 * d.cycles * own for d, own in zip(DEVICES, q, strict=True)),
        "device_energy": sum(d.w4 * joule for d, joule in zip(DEVICES, spent, strict=True)),
        "device_energy_j": sum(spent),
        "waiting": sum(q),
        "arrived": sum(arrived),
        "started": sum(started),
        "sent": sum(share * w for share, w in zip(offload, work, strict=True)),
        "started_work": sum(j * w for j, w in zip(started, work, strict=True)),
        "arrived_work": sum(count * w for count, w in zip(arrived, work, strict=True)),
        "total_work": sum(own * w for own, w in zip(q, work, strict=True)) + float(block.server.backlog),
        "cpu_utilisation": sum((j - share) / reference.capacity(d) for d, j, share in each(block, "started", "offload"))
        / 4,
        "radio_utilisation": sum(share > 0 for share in offload) / 4,
        "device_relative_change": sum(block.devices.relative_change.tolist()) / 4,
        "power_mismatch": math.nan if any(map(math.isnan, commanded)) else sum(mismatch) / 4,
    }


def of_server(block: Any) -> dict[str, float]:
    """The server, slot by slot: what is commanded is paid for, whether there is work or not."""
    left, wasted, rates = float(block.server.backlog), 0.0, block.server.service_per_slot.tolist()
    for rate in rates:
        work = min(rate, left)
        left -= work
        if rate > 0:
            wasted += reference.server_energy(SERVER, [rate]) * (1 - work / rate)
    energy, served = reference.server_energy(SERVER, rates), float(block.server.backlog) - left
    return {
        "server_queue": SERVER.w1 * SERVER.mean_task * float(block.server.backlog),
        "server_energy": SERVER.w2 * energy,
        "server_energy_j": energy,
        "wasted_energy_j": wasted,
        "backlog": float(block.server.backlog),
        "price": float(block.server.price),
        "served": served,
        "server_utilisation": served / (5 * SERVER.slot_capacity),
        "server_relative_change": float(block.server.relative_change),
    }


def losses(known: Certificate, block: Any) -> dict[str, float]:
    """Cost above the bound of the average cost, by where it is lost."""
    price, w1 = float(known.price), SERVER.w1 * SERVER.mean_task
    rates, server = block.server.service_per_slot.tolist(), of_server(block)
    psi = SERVER.w2 * reference.server_energy(SERVER, rates) + (w1 - price) * server["served"]
    lost = 0.0
    for k, (d, q, h, started, offload) in enumerate(each(block, "q", "gain", "started", "offload")):
        chosen = action_cost(d, h, price, started, offload) + table(known.tables, "value", k, q - started)
        best = [cheapest(d, h, price, j) + table(known.tables, "value", k, q - j) for j in range(min(int(q), 4) + 1)]
        lost += chosen - min(best) + table(known.tables, "surplus", k, q - started)
    return {
        "loss_devices": lost,
        "loss_waiting": w1 * (server["backlog"] - server["served"]),
        "loss_service": psi - float(known.server_dual_value),
    }


def table(tables: Any, name: str, k: int, tasks: float) -> float:
    """A device's table, which continues with its slope."""
    column = np.asarray(getattr(tables, name))[:, k]
    slope = np.asarray(tables.slope if name == "value" else tables.slope_of_surplus)[k]
    last = len(column) - 1
    return float(column[min(int(tasks), last)] + max(tasks - last, 0.0) * slope)


def action_cost(d: DeviceNumbers, h: float, price: float, started: float, offload: float) -> float:
    """Energy and the price of what is sent."""
    joule = reference.local_energy(d, started - offload) + reference.radio_energy(d, h, offload)
    return d.w4 * joule + price * d.server_cycles / d.mean_task * offload


def cheapest(d: DeviceNumbers, h: float, price: float, started: int) -> float:
    """The least cost of starting so many tasks; infinite where f_max and the radio do not allow it."""
    if started == 0:
        return 0.0
    bits, least = reference.affordable_bits(d, h, d.power_max), started - reference.capacity(d) - 1e-4
    if d.cuts is not None:
        shares = [share for share in reference.affordable_shares(d, bits) if share >= least]
        return min((action_cost(d, h, price, started, share) for share in shares), default=math.inf)
    low, high = max(least, 0.0), min(1.0, bits / d.bits_per_task)
    if low > high:
        return math.inf

    def cost(share: float) -> float:
        return action_cost(d, h, price, started, share)

    found: Any = optimize.minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return min(float(found.fun), cost(low), cost(high))


def test_every_metric_is_what_loops_compute(mixed_world: World, certificate: Certificate, transitions: Transition):
    parties = Parties(mixed_world.devices, mixed_world.server, certificate)
    found, expected = measured(parties, transitions, "float64"), by_loops(certificate, transitions)
    assert set(expected) == set(vars(found))
    assert len(expected) == 26
    for name, values in expected.items():
        assert np.ptp(values) > 0, name
        own = getattr(found, name)
        assert own.shape == (1, BLOCKS)
        np.testing.assert_allclose(own[0], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_cost_is_the_sum_of_its_four_components(mixed_world: World, transitions: Transition):
    found = measured(Parties(mixed_world.devices, mixed_world.server, None), transitions, "float64")
    total = found.server_queue + found.server_energy + found.device_queue + found.device_energy
    np.testing.assert_array_equal(found.cost(), total)


def test_without_a_bound_losses_are_undefined(mixed_world: World, transitions: Transition):
    found = measured(Parties(mixed_world.devices, mixed_world.server, None), transitions, "float64")
    assert all(np.isnan(getattr(found, name)).all() for name in ("loss_devices", "loss_waiting", "loss_service"))
    assert not np.isnan(found.served).any()


def test_where_one_device_commands_no_power_the_mismatch_is_undefined(mixed_world: World, transitions: Transition):
    commanded = np.array(transitions.devices.commanded)
    commanded[0, 3, 1] = np.nan
    some = replace(transitions, devices=replace(transitions.devices, commanded=commanded))
    found = measured(Parties(mixed_world.devices, mixed_world.server, None), some, "float64")
    assert np.flatnonzero(np.isnan(found.power_mismatch[0])).tolist() == [3]


def test_traces_are_what_each_device_did(mixed_world: World, transitions: Transition):
    traces = device_traces(mixed_world.devices, transitions)
    for t in range(BLOCKS):
        block = jax.tree.map(lambda leaf, t=t: leaf[0, t], transitions)
        for k, d in enumerate(DEVICES):
            did = jax.tree.map(lambda leaf, k=k: leaf[k], block.devices)
            energy = reference.local_energy(d, did.started - did.offload) + d.slot_s * did.power
            assert traces.cost[0, t, k] == pytest.approx(d.w3 * d.cycles * did.q + d.w4 * energy, rel=1e-12)
            bits = [int(block.arrival_bits[0, k]) >> slot & 1 for slot in range(5)]
            assert traces.arrivals[0, t, :, k].tolist() == bits
    for name in ("q", "gain", "started", "offload", "power"):
        np.testing.assert_array_equal(getattr(traces, name), getattr(transitions.devices, name))
    np.testing.assert_array_equal(traces.service_per_slot, transitions.server.service_per_slot)


# What a block's numbers do not depend on


@pytest.fixture
def fresh() -> Iterator[None]:
    """The measuring program is compiled anew: it knows nothing of constants and settings that a test changes."""
    measure.jit.clear_cache()
    yield
    measure.jit.clear_cache()


@pytest.fixture
def optimised(fresh: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program is optimised as it is for users: without, XLA rounds by the number of runs."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def assert_same_bits(one: BlockMetrics, other: BlockMetrics) -> None:
    for field in fields(BlockMetrics):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_array_equal(a, b, err_msg=field.name)


def of_run(run: int, found: BlockMetrics) -> BlockMetrics:
    """One run of several."""
    return jax.tree.map(lambda leaf: leaf[run : run + 1], found)


def blocks_of(part: slice, tree: T) -> T:
    """Some blocks of transitions or metrics."""
    return jax.tree.map(lambda leaf: leaf[:, part], tree)


def joined(*runs: Transition) -> Any:
    """Several runs."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *runs)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("rows", "unrolled", "blocks"), [(1, metrics.UNROLLED, BLOCKS), (16, metrics.UNROLLED, BLOCKS), (1, 4, 5)]
)
def test_numbers_do_not_depend_on_the_tile(
    rows: int,
    unrolled: int,
    blocks: int,
    mixed_world: World,
    certificate: Certificate,
    transitions: Transition,
    monkeypatch: pytest.MonkeyPatch,
):
    """Of all blocks at once, one by one with and without a loop, or 16 at a time with the last tile filled up."""
    parties = Parties(mixed_world.devices, mixed_world.server, certificate)
    transitions = blocks_of(slice(blocks), transitions)
    whole = measured(parties, transitions, "float64")
    monkeypatch.setattr(metrics, "TILE", rows * 4)
    monkeypatch.setattr(metrics, "UNROLLED", unrolled)
    measure.jit.clear_cache()
    assert metrics.rows_per_tile(4) == rows
    for one, other in zip(vars(measured(parties, transitions, "float64")).values(), vars(whole).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("optimised")
def test_bits_do_not_depend_on_what_is_measured_together(
    mixed_world: World, certificate: Certificate, transitions: Transition, monkeypatch: pytest.MonkeyPatch
):
    """A run in a call of 40 blocks, which are three tiles, is what it is in a call of 13 blocks, and beside a run of
    the same devices with another server and another certificate."""
    monkeypatch.setattr(metrics, "TILE", 16 * 4)
    parties = Parties(mixed_world.devices, mixed_world.server, certificate)
    alone, other = measured(parties, transitions, "float32"), blocks_drawn(1)
    for part in (slice(13), slice(27, 40)):
        assert_same_bits(measured(parties, blocks_of(part, transitions), "float32"), blocks_of(part, alone))
    server = replace(mixed_world.server, energy_weight=9 * mixed_world.server.energy_weight)
    elsewhere = Parties(mixed_world.devices, server, replace(certificate, price=certificate.price / 2))
    both, stacked = stack([parties, elsewhere])
    together = measured(both, joined(transitions, other), "float32", *stacked)
    assert_same_bits(of_run(0, together), alone)
    assert_same_bits(of_run(1, together), measured(elsewhere, other, "float32"))


def test_traced_devices_spend_what_the_fleet_spends(played: Callable[[str], Run], mixed: Scenario, mixed_world: World):
    """The joules of all devices add up to those of the fleet; the CPU rate is that of (2), xi f^3 n tau joules."""
    run, plan = played("random"), make_plan(mixed, schemes=["random"], blocks=100, seeds=2)
    variables = traces_of(run, range(4), mixed_world, plan)
    cpu_hz, cpu_j, radio_j = (variables[f"device_{name}"][1] for name in ("cpu_hz", "cpu_energy_j", "radio_energy_j"))
    np.testing.assert_allclose((cpu_j + radio_j).sum(axis=-1), run.metrics.device_energy_j, rtol=1e-5)
    assert min(cpu_j.sum(), radio_j.sum()) > 0
    kinds, block_s = mixed.device_classes(), mixed.slots_per_block * mixed.slot_s
    np.testing.assert_allclose(cpu_j, [kind.capacitance for kind in kinds] * cpu_hz**3 * block_s, rtol=1e-5)
    assert (cpu_hz <= 1.0001 * np.array([kind.cpu_max_hz for kind in kinds])).all()
