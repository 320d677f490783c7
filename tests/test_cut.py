"""`partway cut`: the plan against an exhaustive search, the break-even bandwidths, single tasks, the command."""

import contextlib
import errno
import io
import itertools
import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway.bound.lower_bound import lower_bound
from partway.cli import cut as cut_command
from partway.cli.main import build_parser, main
from partway.cli.terminal import terminal
from partway.controllers.base import ControllerPair
from partway.controllers.baselines import Constant
from partway.controllers.block import Transition
from partway.controllers.postdecision import PostDecisionState, Priced
from partway.controllers.price import PostDecisionServer
from partway.dnn.cuts import layer_cuts, table_rows
from partway.dnn.profile import read_profile, shipped_profiles, write_profile
from partway.errors import InputError
from partway.figures import cut_map, cut_rates
from partway.measurement.latency import finish_times
from partway.measurement.metrics import device_traces
from partway.planner import answer as answers
from partway.planner import one_task
from partway.planner.break_even import MAX_HZ, BreakEven, _cost, break_even
from partway.planner.context import DeviceContext, context_at, max_throughput
from partway.planner.evaluation import (
    SingleTask,
    of_one_task,
    policy_outcome,
    run_scheme,
    single_tasks,
)
from partway.planner.plan import PlanRule, exact_rule, learned_rule, plan_table
from partway.planner.statement import placed, with_task
from partway.planner.under_load_report import CutResult, details_table, headline, why_it_differs
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.simulation.step import Carry, init, step
from partway.system.equations import data_rate, server_energy
from partway.system.exogenous import PackedExogenous
from partway.system.fading import Rayleigh
from partway.system.load import load_of
from partway.system.placement import sample_placement
from partway.system.types import Device
from partway.system.world import World, build

QUEUES, FADING = np.array([1, 2, 5, 9]), np.array([0.01, 0.3, 1.0, 3.0])


@cache
def context_of(
    profile: str = "ppocr-rec", *overrides: str, index: int | None = None, distance_m: float | None = None
) -> DeviceContext:
    """One of three devices of the preset `ocr` whose tasks are `profile`."""
    scenario = load("ocr", ["devices=3", *overrides])
    task = {"kind": "layers", "profile": profile, "tensor_dtype": "uint8"}
    scenario = with_task(scenario, task)
    return context_at(scenario, read_profile(profile), *placed(scenario, index, distance_m))


@pytest.fixture(scope="module")
def target() -> DeviceContext:
    return context_of()


@pytest.fixture(scope="module")
def rule(target: DeviceContext) -> PlanRule:
    return exact_rule(target, lower_bound(target.world))


def no_progress(scheme: str, blocks: int) -> None:
    del scheme, blocks


def all_choices(target: DeviceContext, rule: PlanRule, queue: int, x: float) -> list[tuple[float, int, int]]:
    """(c + gamma U, tasks started, cut) of every choice, from the equations alone, in ascending order of the cost."""
    scenario, profile = target.scenario, target.profile
    kind, radio, tau = scenario.device_classes()[target.index], scenario.radio, scenario.slot_s
    cycles, block_s = profile.macs / kind.macs_per_cycle, scenario.slots_per_block * tau
    gain = x * float(target.placement.mean_gain_per_w[target.index])
    mean_task = profile.macs / scenario.server.macs_per_cycle
    assert float(target.device.server_work) * mean_task == pytest.approx(mean_task)

    def value(left: int) -> float:
        last = len(rule.value) - 1
        return float(rule.value[min(left, last)]) + max(left - last, 0) * rule.slope

    choices = [(rule.discount * value(queue), 0, len(profile.cuts) - 1)]
    cuts = zip(profile.share(), profile.bits("uint8"), itertools.count(), strict=False)
    for (share, bits, cut), started in itertools.product(list(cuts), range(1, queue + 1)):
        local = (started - share) * cycles
        power = radio.snr_gap / gain * np.expm1(np.log(2) * bits / (tau * kind.bandwidth_hz)) if bits else 0.0
        if local > block_s * kind.cpu_max_hz or power > kind.tx_power_max_w:
            continue
        joules = kind.capacitance * local**3 / block_s**2 + tau * power
        cost = scenario.weights.device_energy * joules + rule.price * share
        choices.append((cost + rule.discount * value(queue - started), started, cut))
    return sorted(choices)


def test_the_plan_is_the_best_of_all_choices(target: DeviceContext, rule: PlanRule):
    plan = plan_table(target, rule, QUEUES, FADING)
    for i, j in itertools.product(range(len(QUEUES)), range(len(FADING))):
        _, started, cut = all_choices(target, rule, int(QUEUES[i]), float(FADING[j]))[0]
        assert plan.started[i, j] == started
        assert plan.offload[i, j] == pytest.approx(target.profile.share()[cut], abs=1e-6)
        if started:
            assert plan.cut[i, j] == cut
            assert plan.bits[i, j] == target.profile.bits("uint8")[cut]
    assert len({*plan.cut.flat}) >= 2


def test_the_cpu_runs_what_is_not_offloaded(target: DeviceContext, rule: PlanRule):
    plan, scenario = plan_table(target, rule, QUEUES, FADING), target.scenario
    cycles = target.profile.macs / scenario.device.macs_per_cycle
    block_s = scenario.slots_per_block * scenario.slot_s
    np.testing.assert_allclose(plan.cpu_hz, (plan.started - plan.offload) * cycles / block_s)
    assert plan.cpu_hz.max() <= scenario.device.cpu_max_hz * (1 + 1e-4)


@pytest.mark.parametrize("name", shipped_profiles())
@pytest.mark.parametrize("input_bits", [None, 1000.0])
def test_every_row_of_a_task_has_its_cut(name: str, input_bits: float | None):
    profile = read_profile(name)
    share, bits = layer_cuts(profile, "fp16", input_bits)
    rows, sent = table_rows(profile, "fp16", input_bits), profile.bits("fp16")
    sent[0] = sent[0] if input_bits is None else input_bits
    np.testing.assert_array_equal(sent[rows], bits)
    np.testing.assert_array_equal(profile.share()[rows].astype(np.float32), share.astype(np.float32))


@pytest.mark.parametrize("macs", [10, 1000])
def test_a_tiny_network_has_a_plan(macs: int, folder: Path):
    """A device can run 4e8 or 4e6 of them in a block: it runs what waits, whatever the channel is."""
    target = of_network(folder, (macs // 2, 100), (macs, 10))
    assert float(target.device.capacity) == pytest.approx(4e9 / macs)
    rule = exact_rule(target, lower_bound(target.world))
    plan = plan_table(target, rule, np.array([1, 2, 5]), np.array([0.1, 1.0, 3.0]))
    assert (plan.started == [[1], [2], [5]]).all()
    assert (plan.offload == 0).all()


def test_a_heavy_network_is_sent(folder: Path):
    """70 G MACs: a device could run 0.057 of one in a block, but what is left after the only cut takes 0.9.

    Two arrive at each of three devices; one a block can be sent, and the server does 0.5 x 3e9 x 128 / 70e9 = 2.74.
    """
    target = of_network(folder, (63_000_000_000, 64), (70_000_000_000, 1))
    found = load_of(target.scenario, target.world)
    assert found.system_utilisation == pytest.approx(target.arrivals_per_block * 3 / 2.742857, rel=1e-6)
    assert found.system_utilisation <= 0.8
    plan = plan_table(target, exact_rule(target, lower_bound(target.world)), np.array([1, 3]), np.array([1.0, 2.0]))
    assert (plan.started == 1).all()
    assert (plan.offload == 1).all()


def of_network(folder: Path, *rows: tuple[int, int]) -> DeviceContext:
    """One of three devices of `ocr` whose task is cut after so many MACs, with so many elements."""
    header = "# source: by hand\n# input_shape: 1x384\n# input_bits: 12288\ncut,after,macs,elements\n0,x,0,384\n"
    lines = [f"{i},c{i},{macs},{elements}\n" for i, (macs, elements) in enumerate(rows, 1)]
    (folder / "net.csv").write_text(header + "".join(lines))
    return context_of(str(folder / "net.csv"))


def test_a_plan_needs_finite_numbers(target: DeviceContext):
    carry = SimpleNamespace(
        device_state=PostDecisionState(np.full((2, 4, 3), np.nan), np.ones((2, 6, 3)) / 6, np.ones(2), np.ones(2)),
        server_state=SimpleNamespace(mean_price=np.ones(2)),
    )
    run: Any = SimpleNamespace(pair=SimpleNamespace(device=Priced()), carry=carry)
    with pytest.raises(InputError, match="what priced has learned is not finite"):
        learned_rule(target, run)


# Bandwidth


def one_task_costs(device: Device, price: float, hertz: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """(bandwidths,) c(B) of the cuts that are allowed."""
    with jax.enable_x64(True):
        costs = jax.vmap(lambda one: _cost(device, jnp.float64(price), one, jnp.asarray(cuts), False))(hertz)
        return np.asarray(costs)


@pytest.mark.parametrize("profile", ["ppocr-rec", "resnet50", "alexnet"])
def test_more_bandwidth_never_costs_more(profile: str):
    device, bandwidths = context_of(profile).device, np.geomspace(1e3, 1e12, 60)
    sends = np.asarray(device.task.share) > 0
    for price in (0.0, 1.0):
        costs = one_task_costs(device, price, bandwidths, sends)
        assert (costs[1:] <= costs[:-1] * (1 + 1e-12)).all()
        assert costs[-1] < costs[0]


@pytest.mark.parametrize(
    ("profile", "noise"), [("resnet50", ()), ("alexnet", ()), ("alexnet", ("radio.noise_dbw=-134",))]
)
def test_offloading_pays_just_above_the_break_even_bandwidths(profile: str, noise: tuple[str, ...]):
    """By the equations, in worlds with slightly less and slightly more bandwidth, with a noise density or a total."""
    target, price = context_of(profile, *noise), 0.01
    assert target.fixed_noise == bool(noise)
    even = break_even(target.device, price, target.fixed_noise)
    assert even.offloading_hz is not None
    assert even.all_remote_hz is not None
    assert even.offloading_hz <= even.all_remote_hz
    flat = PlanRule(np.zeros(2), 0.0, 1.0, price)
    for hertz, all_remote in ((even.offloading_hz, False), (even.all_remote_hz, True)):
        pays = [_pays(target, flat, hertz * factor, all_remote) for factor in (0.999, 1.001)]
        assert pays == [False, True]


def _pays(target: DeviceContext, flat: PlanRule, bandwidth_hz: float, all_remote: bool) -> bool:
    """Whether the cheapest choice that offloads (all) of one task costs less than running it locally."""
    scenario = load(target.scenario.model_dump(exclude_none=True), {"device.bandwidth_hz": bandwidth_hz})
    changed = replace(target, scenario=scenario, placement=sample_placement(scenario))
    costs = {cut: cost for cost, started, cut in all_choices(changed, flat, 1, 1.0) if started == 1}
    share = target.profile.share()
    local = costs.get(len(share) - 1, np.inf)
    sent = min((cost for cut, cost in costs.items() if (cut == 0 if all_remote else share[cut] > 0)), default=np.inf)
    return sent < local


def test_if_the_server_is_too_expensive_no_bandwidth_is_enough(target: DeviceContext):
    assert break_even(target.device, 1e6) == BreakEven(None, None)
    local, most = np.asarray(target.device.task.share) == 0, np.array([MAX_HZ])
    every = np.ones(len(local), bool)
    assert one_task_costs(target.device, 1e6, most, every) == one_task_costs(target.device, 1e6, most, local)


# The device


def test_arrivals_that_cannot_be_sustained_are_scaled_down():
    busy = context_of("resnet50")
    assert busy.arrival_scale < 1
    assert busy.scenario.device.arrival_prob == pytest.approx(0.4 * busy.arrival_scale)
    assert (busy.arrivals_per_block <= 0.8 * max_throughput(busy.world) * (1 + 1e-9)).all()
    assert context_of("ppocr-rec").arrival_scale == 1


def test_the_throughput_of_a_device():
    """Three tasks and a part of a fourth run locally; the other part is sent where the channel carries a small cut."""
    throughput = max_throughput(context_of("ppocr-rec").world)
    assert ((throughput > 3) & (throughput <= 4)).all()
    without_radio = context_of("ppocr-rec", "device.tx_power_max_w=1e-15")
    np.testing.assert_array_equal(max_throughput(without_radio.world), 3.0)


def test_the_device_has_the_median_gain_and_a_distance_moves_it():
    gains = np.asarray(context_of().placement.mean_gain_per_w)
    assert gains[context_of().index] == np.median(gains)
    moved = context_of(index=2, distance_m=100.0)
    assert moved.index == 2
    assert float(moved.device.mean_gain) == pytest.approx(10 ** (-(30.6 + 37.6 * 2 - 134.0) / 10))
    assert np.delete(moved.placement.mean_gain_per_w, 2).tolist() == np.delete(gains, 2).tolist()
    with pytest.raises(InputError, match=r"^device must be a whole number from 0 to 2, got 3"):
        context_of(index=3)
    with pytest.raises(InputError, match=r"^distance_m must be between 0\.001 and 1000000000, got -1"):
        context_of(distance_m=-1.0)
    with pytest.raises(InputError, match="device 0 can finish no task"):
        context_of("resnet50", "device.tx_power_max_w=1e-15")


# Simulation


def test_the_outcome_of_all_local_by_hand(target: DeviceContext):
    """Nothing is sent; the energy is the cube of the started tasks, each at 1/n of the block's energy."""
    simulated = run_scheme(target, "local", (0, 1), 100, None, no_progress)
    outcome = policy_outcome(target, "all local", simulated, price=1.0)
    assert (outcome.unstable, outcome.offloaded_share, outcome.server_j_per_task) == ("", 0.0, 0.0)
    assert simulated.traces is not None
    started, arrivals = (
        np.asarray(getattr(simulated.traces, name))[:, 50:, ..., target.index] for name in ("started", "arrivals")
    )
    cycles = target.profile.macs / target.scenario.device.macs_per_cycle
    joules = 1e-28 * (started.astype(np.float64) * cycles) ** 3 / 0.5**2
    assert outcome.device_j_per_task == pytest.approx(joules.sum() / arrivals.sum(), rel=1e-6)
    assert 0.3 < outcome.mean_latency_s <= outcome.p95_latency_s
    cost = np.asarray(simulated.traces.cost, np.float64)[:, 50:, target.index].mean()
    assert outcome.cost_per_block == pytest.approx(cost)


# A single task


SIMPLE = (
    "devices=1",
    "slots_per_block=10",
    "slot_s=0.1",
    "radio.snr_gap=2",
    "radio.shadowing_db=0",
    "radio.pathloss_db_at_1m=0",
)
SIMPLE = (
    *SIMPLE,
    "radio.pathloss_slope_db=0",
    "radio.noise_dbw=-20",
    "server.capacitance=1e-28",
    "server.cpu_max_hz=8e9",
)
"""Blocks of 1 s, a gain of 100 / W, Gamma = 2: 1 + h p / Gamma = 1 + 50 p."""


def times(task: SingleTask) -> tuple[float, ...]:
    return task.device_s, task.radio_s, task.wait_s, task.server_s


def test_a_proportional_task_by_hand():
    """4e9 cycles, 4 Mbit; the radio slot carries 2.5e5 bit at 1 bit/s/Hz.

    A quarter offloaded: 1e6 bit are 4 bit/s/Hz, p = (2^4 - 1) / 50 = 0.3 W, 0.03 J in 0.1 s; the CPU runs 3e9 cycles in
    1 s, 1e-28 * 27e27 = 2.7 J; the server 1e9 in 1 s, 0.1 J. All local: 4 GHz, 6.4 J. All remote:
    16 bit/s/Hz, p = 65535 / 50 W, 131.07 J, and 6.4 J at 4 GHz at the server.
    """
    task = 'device.task={kind="proportional", cycles=4e9, bits_per_cycle=1e-3}'
    overrides = ("device.cpu_max_hz=5e9", "device.capacitance=1e-28", "device.bandwidth_hz=2.5e6")
    scenario = load("paper", [*SIMPLE, *overrides, task])
    placement = sample_placement(scenario)
    world = build(scenario, placement)
    device = jax.tree.map(lambda leaf: np.asarray(leaf)[..., 0], world.devices)
    target = DeviceContext(scenario, world, placement, read_profile("alexnet"), np.arange(33), 0, device, 1.0)
    quarter, local, remote = of_one_task(target, ("quarter", "local", "remote"), (0.25, 0.0, 1.0))
    assert (quarter.reason, quarter.bits, quarter.cpu_hz) == ("", 1e6, pytest.approx(3e9))
    assert times(quarter) == pytest.approx((1.0, 0.1, 1.0, 1.0))
    assert (quarter.latency_s, quarter.device_j, quarter.server_j) == pytest.approx((3.1, 2.73, 0.1))
    assert times(local) == pytest.approx((1.0, 0.0, 0.0, 0.0))
    assert (local.device_j, local.server_j) == pytest.approx((6.4, 0.0))
    assert (remote.cpu_hz, remote.latency_s) == pytest.approx((0.0, 3.1))
    assert (remote.device_j, remote.server_j) == pytest.approx((131.07, 6.4))


def small_network(folder: Path, *overrides: str) -> DeviceContext:
    """100 M MACs, of which 20 M are before the only cut; 2 Mbit of input, 0.5 Mbit (62500 bytes) at the cut."""
    header = "# source: by hand\n# input_shape: 1x3x8x8\n# input_bits: 2e6\ncut,after,macs,elements\n"
    (folder / "net.csv").write_text(header + "0,x,0,192\n1,mid,20000000,62500\n2,y,100000000,10\n")
    device = ("macs_per_cycle=0.1", "capacitance=1e-28", "bandwidth_hz=2.5e6", "arrival_prob=0.001")
    server = ("server.macs_per_cycle=0.1", "server.cpu_max_hz=6e8")
    scenario = load("ocr", [*SIMPLE, *(f"device.{field}" for field in device), *server, *overrides])
    task = {"kind": "layers", "profile": str(folder / "net.csv"), "tensor_dtype": "uint8"}
    scenario = with_task(scenario, task)
    return context_at(scenario, read_profile(str(folder / "net.csv")), *placed(scenario))


FREE_SERVER = PlanRule(np.array([0.0, 100.0]), 100.0, 1.0, 0.0)
"""Waiting is expensive and the server free: the choice with the least energy at the device is the best."""


def test_a_task_with_layers_by_hand(folder: Path):
    """All local: 1e9 cycles, 0.1 J.

    At the cut: 2 bit/s/Hz, p = 3 / 50 = 0.06 W, 0.006 J; the CPU at 0.2 GHz, 0.0008 J; the server 8e8 cycles at its
    6e8 a second: a block of 6e8 and one of 2e8, 0.0216 + 0.0008 J. The input takes 8 bit/s/Hz, 5.1 W.
    """
    target = small_network(folder, "device.tx_power_max_w=1")
    cut, local, remote = single_tasks(target, FREE_SERVER)
    assert (cut.name, cut.offload, cut.bits) == ("recommended", pytest.approx(0.8), 5e5)
    assert times(cut) == pytest.approx((1.0, 0.1, 1.0, 2.0))
    assert (cut.cpu_hz, cut.device_j, cut.server_j) == pytest.approx((2e8, 0.0068, 0.0224))
    assert (local.cpu_hz, local.latency_s, local.device_j) == pytest.approx((1e9, 1.0, 0.1))
    carried = 0.1 * 2.5e6 * np.log2(51) / 1e3
    assert remote.reason == f"the radio is too slow: 2000 kbit to send, the radio slot carries {carried:.0f} kbit"
    assert np.isnan([remote.latency_s, remote.device_j, remote.server_j]).all()
    strong = small_network(folder, "device.tx_power_max_w=6")
    assert single_tasks(strong, FREE_SERVER)[-1].device_j == pytest.approx(0.1 * 255 / 50)


def test_a_slow_cpu_is_reported_and_a_plan_may_wait(folder: Path):
    target = small_network(folder, "device.cpu_max_hz=8e8", "device.tx_power_max_w=1")
    cut, local, _ = single_tasks(target, FREE_SERVER)
    assert cut.reason == ""
    assert local.reason == "the CPU is too slow: 1.25 s at f_max, a block has 1 s"
    waits = single_tasks(target, PlanRule(np.zeros(2), 0.0, 1.0, 1.0))[0]
    assert waits.reason == "the plan waits for a better channel or more tasks"
    assert np.isnan(waits.latency_s)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        tasks = [waits, local, cut]
        terminal().print(details_table(CutResult(target, FREE_SERVER, "", BreakEven(None, None), tasks, [])))
    printed = re.sub(r" {2,}", "  ", out.getvalue())
    assert "recommended  -  -  waits" in printed
    assert "all local  2  1 GHz  infeasible" in printed
    assert "all local: the CPU is too slow: 1.25 s at f_max, a block has 1 s\n" in printed


@pytest.mark.parametrize(
    ("overrides", "value", "decision"),
    [
        (
            ("device.tx_power_max_w=1",),
            100.0,
            "run 1 locally and the next up to 'mid' with the CPU at 1.2 GHz; send 500 kbit, the server does 80% of that"
            " task.",
        ),
        (
            ("device.cpu_max_hz=1.1e9", "server.cpu_max_hz=6e9"),
            100.0,
            "run 1 locally with the CPU at 1 GHz; send the encoded input of the next, 2000 kbit.",
        ),
        (("device.tx_power_max_w=1e-9",), 100.0, "run 2 locally with the CPU at 2 GHz; send nothing."),
        (("device.tx_power_max_w=1",), 0.0, "start no task in this block."),
    ],
)
def test_the_headline_of_every_kind_of_decision(folder: Path, overrides: tuple[str, ...], value: float, decision: str):
    """Two tasks of 1e9 cycles wait, each task left costs `value`. At 1.1 GHz the CPU cannot run one and a fifth."""
    target = small_network(folder, "device.arrival_prob=0.2", "device.tx_power_max_w=1e6", *overrides)
    rule = PlanRule(np.array([0.0, value]), value, 1.0, 0.0)
    sentence = headline(CutResult(target, rule, "", BreakEven(None, None), [], []))
    assert sentence == f"With 2 tasks waiting and the channel gain at its mean: {decision}"


@pytest.mark.parametrize("profile", ["ppocr-rec", "mobilenetv2"])
def test_a_single_task_equals_a_simulated_one(profile: str):
    """The real device and server; one task arrives in the last slot of block 0, the gain is always at its mean."""
    target = context_of(profile)
    cut, local, remote = single_tasks(target, PlanRule(np.array([0.0, 10.0]), 10.0, 1.0, 0.0))
    assert cut.offload > 0
    world: World = cast_floats(target.world, "float64")
    for task in (cut, local, remote):
        pair = ControllerPair(Constant(offload=task.offload, started=1.0), PostDecisionServer())
        assert simulated_task(target, world, pair) == pytest.approx(
            (task.latency_s, task.device_j, task.server_j), rel=1e-5
        )


def simulated_task(target: DeviceContext, world: World, pair: ControllerPair) -> tuple[float, float, float]:
    """Latency [s] and the energy of devices and server [J] in a run in which only one task arrives."""
    with jax.enable_x64(True):
        keys, gain = jax.random.split(jax.random.key(0), 3), world.devices.mean_gain
        controllers, carry = init(world, cast_floats(pair, "float64"), jnp.uint32(0), keys)
        arrival = jnp.zeros((1, len(gain)), jnp.uint32).at[0, target.index].set(1 << (world.devices.slots - 1))
        blocks = list[Transition]()
        for block in range(5):
            exogenous = PackedExogenous(arrival if block == 0 else jnp.zeros_like(arrival), gain)
            carry, transition = one_block(world, controllers, carry, exogenous, keys[2], jnp.uint32(block))
            blocks.append(transition)
        run = jax.tree.map(lambda *leaves: np.stack(leaves)[None], *blocks)
        server_j = np.asarray(server_energy(world.server, run.server.service_per_slot))
    traces, device_j = device_traces(world.devices, run), run.devices.energy_j
    (tasks,) = finish_times(traces, np.asarray(target.world.devices.server_work), target.scenario.slot_s)
    return float(tasks.finished[0] - tasks.arrived[0]), float(device_j.sum()), float(server_j.sum())


@jax.jit
def one_block(
    world: World, pair: ControllerPair, carry: Carry, exogenous: PackedExogenous, key: jax.Array, block: jax.Array
) -> tuple[Carry, Transition]:
    """A block without learning; compiled once for all choices of `Constant`."""
    return step(world, pair, carry, exogenous, key, block, False)


# The command


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def call(*arguments: str) -> tuple[int, str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def test_the_command_writes_what_it_prints(folder: Path):
    arguments = ("ppocr-rec", "--set", "devices=3", "--rate", "50Mbit/s", "--deadline", "100ms")
    first = cut_command.question(build_parser().parse_args(["cut", *arguments]))
    target = cut_command.under_load(first)
    rule = exact_rule(target, lower_bound(target.world))
    code, out, err = call("cut", *arguments, "--blocks", "100", "--seeds", "2", "--out", "o")
    assert code == 0
    assert all(len(line) <= 100 for line in (out + err).splitlines())
    assert out.startswith("At 50 Mbit/s: send the encoded input, 368.6 kbit: 10.22 ms, ")
    assert "Deadline 100 ms: met by all remote." in out
    assert "Under load, simulated. With 2 tasks waiting and the channel gain at its mean: " in out
    assert "The plan waits for the CPU to save energy" in out
    assert (folder / "o" / "table.txt").read_text() == out
    (unstable,) = (line for line in out.splitlines() if line.startswith("all remote   ") and "unstable" in line)
    assert unstable.split() == ["all", "remote", *["unstable"] * 6]
    written = {path.name for path in (folder / "o").iterdir()}
    assert {"cut-map.png", "cut-map.svg", "cut-map.csv", "cut.json", "ppocr-rec.csv", "scenario.toml"} < written
    assert {"cut-rates.png", "cut-rates.svg", "cut-rates.csv"} < written
    both = json.loads((folder / "o" / "cut.json").read_text(), parse_constant=pytest.fail)
    assert (both["schema_version"], both["why_not_under_load"]) == (3, None)
    assert both["one_task"]["recommended"]["latency_s"] == first.recommended.latency_s
    assert both["one_task"]["break_even_bit_per_s"]["all_remote"] == first.break_even.all_remote
    document = both["under_load"]
    plan = plan_table(target, rule, np.array([1, 2, 3, 4, 6, 8]), Rayleigh().quantile((0.05, 0.2, 0.5, 0.8, 0.95)))
    assert [row["started"] for row in document["plan"]] == plan.started.astype(int).ravel().tolist()
    assert [row["cut"] for row in document["plan"]] == plan.cut.ravel().tolist()
    assert [row["gain_quantile"] for row in document["plan"][:5]] == [0.05, 0.2, 0.5, 0.8, 0.95]
    assert [row["name"] for row in document["simulated"]] == ["recommended", "all local", "all remote"]
    assert document["simulated"][2]["unstable"] == "device"
    choices = document["single_task"]["choices"]
    assert [row["name"] for row in choices] == ["recommended", "all local", "all remote"]
    assert [row["latency_s"] for row in choices] == [task.latency_s for task in single_tasks(target, rule)]
    assert [row["cut"] for row in choices[1:]] == [70, 0]
    assert document["single_task"]["assumptions"].startswith("One task in blocks, in closed form")
    assert document["break_even_hz"]["offloading"] == break_even(target.device, rule.price, True).offloading_hz
    what_was_written_can_be_moved(folder)


def what_was_written_can_be_moved(folder: Path) -> None:
    """Part of the test above, whose results take seconds: profile and scenario move together, read from anywhere."""
    (folder / "o").rename(folder / "moved")
    scenario = load(folder / "moved" / "scenario.toml")
    assert getattr(scenario.device.task, "profile", "") == str(folder / "moved" / "ppocr-rec.csv")
    (folder / "elsewhere").mkdir()
    os.chdir(folder / "elsewhere")
    world, original = build(scenario, sample_placement(scenario)), load("ocr", ["devices=3", "device.task.cuts=pareto"])
    placement = sample_placement(original)
    np.testing.assert_array_equal(world.devices.task.bits, build(original, placement).devices.task.bits)
    np.testing.assert_allclose(sample_placement(scenario).mean_gain_per_w, placement.mean_gain_per_w)
    index = placed(original)[1]
    assert float(np.broadcast_to(world.devices.bandwidth_hz, 3)[index]) == scenario.device.bandwidth_hz != 10e6


def test_the_map_draws_the_plan(target: DeviceContext, rule: PlanRule):
    figure, rows = cut_map.draw(CutResult(target, rule, "", BreakEven(None, None), [], []))
    plan = plan_table(target, rule, np.arange(1, cut_map.MAX_QUEUE + 1), cut_map.FADING)
    assert rows[0] == cut_map.COLUMNS
    values = {name: np.array([row[i] for row in rows[1:]]) for i, name in enumerate(cut_map.COLUMNS)}
    for name, drawn in (("started [tasks]", plan.started), ("cut", plan.cut), ("CPU rate [Hz]", plan.cpu_hz)):
        np.testing.assert_array_equal(values[name], drawn.ravel())
    np.testing.assert_allclose(values["gain [1/W]"], values["gain / mean"] * float(target.device.mean_gain))
    (cuts,), (rates,) = (axes.collections for axes in figure.axes[:2])
    np.testing.assert_array_equal(np.asarray(rates.get_array()), plan.cpu_hz / 1e9)
    assert len(np.unique(np.asarray(cuts.get_array()))) == len(np.unique(np.where(plan.started > 0, plan.cut, -1)))


def test_the_rates_figure_draws_every_cut_and_marks_the_crossovers():
    """The lines are the costs at each rate; dots stand at the rates of the first answer, with their numbers."""
    answer = answers.cut("mobilenetv2", rate="20Mbit/s", rtt="10ms", deadline="60ms")
    figure, rows = cut_rates.draw(answer)
    assert rows[0] == cut_rates.COLUMNS
    for rate, number, after, latency_s, device_j in rows[1::7]:
        costs = one_task.costs(one_task.at_rate(answer.question, float(rate)))
        assert (latency_s, device_j) == (costs.latency_s[number], costs.device_j[number])
        assert after == answer.profile.cuts[int(number)].after
    assert {row[1] for row in rows[1:]} == {row.cut for row in answer.cuts}
    for axes, pieces in zip(figure.axes, (answer.fastest_by_rate, answer.thriftiest_by_rate), strict=True):
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [1e6 * dot.get_xdata()[0] for dot in dots] == pytest.approx([rate for rate, _ in pieces[1:]])
        texts = [text.get_text() for text in axes.texts]
        assert [f"{rate / 1e6:.3g} Mbit/s" in texts for rate, _ in pieces[1:]] == [True] * len(dots)
        assert len(dots) >= 3
    assert "deadline 60 ms" in [text.get_text() for text in figure.axes[0].texts]
    first = figure.axes[0].lines[0]
    np.testing.assert_allclose(first.get_ydata(), [1e3 * row[3] for row in rows[1:] if row[1] == 0])


def test_the_rates_figure_of_a_network_that_is_best_left_at_home():
    """Nothing crosses where the server is slow, and sending is free: a line of no energy is at the lower edge."""
    answer = answers.cut("alexnet", rate="20Mbit/s", server_rate="1GMAC/s", tx_power="0W")
    figure, _ = cut_rates.draw(answer)
    assert [line for line in figure.axes[0].lines if line.get_marker() == "o"] == []
    lowest = min(float(np.min(line.get_ydata())) for line in figure.axes[1].lines[: len(answer.cuts)])
    assert lowest >= figure.axes[1].get_ylim()[0] * (1 - 1e-9) > 0


def test_the_rates_figure_where_nothing_costs_energy():
    """A logarithmic axis has no place for 0."""
    answer = answers.cut("alexnet", rate="20Mbit/s", tx_power=0, cpu_power=0)
    figure, rows = cut_rates.draw(answer)
    assert [text.get_text() for text in figure.axes[1].texts] == ["every cut costs nothing"]
    assert {row[4] for row in rows[1:]} == {0.0}


def test_learned_values_are_close_to_the_exact_ones(target: DeviceContext, rule: PlanRule):
    """For the states that are visited; the value of one more task is what determines a decision."""
    learned = learned_rule(target, run_scheme(target, "priced", (0, 1), 1000, None, no_progress))
    assert learned.discount == rule.discount == 1.0
    np.testing.assert_allclose(np.diff(learned.value[:5]), np.diff(rule.value[:5]), rtol=0.1)
    assert learned.price == pytest.approx(rule.price, rel=0.1)


def test_one_task_alone_needs_no_simulation(folder: Path):
    code, out, err = call("cut", "ppocr-rec", "--rate", "20Mbit/s", "--one-task", "--json", "-", "--out", "o")
    assert code == 0
    document = json.loads(out)
    assert (document["under_load"], document["why_not_under_load"]) == (None, None)
    assert round(1e3 * document["one_task"]["recommended"]["latency_s"], 1) == 21.3
    table = (folder / "o" / "table.txt").read_text()
    assert table.startswith("At 20 Mbit/s: send the encoded input, 368.6 kbit: 21.28 ms, 3.69 mJ at the device; all ")
    assert table.rstrip().endswith("Break-even: all local up to 2.75 Mbit/s, then all remote is the fastest.")
    assert load(folder / "o" / "scenario.toml").device.task.kind == "layers"
    assert "Results are in o" in err


class Full(io.StringIO):
    """Standard output on a full disk; `file` is what its descriptor belongs to."""

    def __init__(self, file: io.FileIO):
        super().__init__()
        self._file = file

    def fileno(self) -> int:
        return self._file.fileno()

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_answer_that_cannot_be_printed_is_a_failure(tmp_path: Path):
    """With one answer alone nothing is printed later that would fail as well."""
    err = io.StringIO()
    with (
        io.FileIO(tmp_path / "out", "w") as file,
        contextlib.redirect_stdout(Full(file)),
        contextlib.redirect_stderr(err),
    ):
        assert main(["cut", "ppocr-rec", "--rate", "20Mbit/s", "--one-task"]) == 2
    assert "No space left on device" in err.getvalue()


@pytest.mark.parametrize("columns", ["80", "100"])
def test_the_first_answer_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: str):
    """No line is wider, none ends in blanks."""
    monkeypatch.setenv("COLUMNS", columns)
    stated = ("--rate", "3Mbit/s", "--rtt", "10ms", "--deadline", "140ms", "--cpu-min", "600MHz", "--idle-power", "1W")
    code, out, _ = call("cut", "ppocr-rec", *stated, "--one-task")
    assert code == 0
    assert all(len(line) <= int(columns) and line == line.rstrip() for line in out.splitlines())
    assert "The table is" not in out  # in one part


def test_a_network_that_no_block_holds_gets_the_first_answer_alone(folder: Path):
    """10^12 MACs take 125 s at 8 G a second, and no slot of 1 us carries a bit of them."""
    header = "# source: by hand\n# input_shape: 1x384\n# input_bits: 12288\ncut,after,macs,elements\n0,x,0,384\n"
    (folder / "net.csv").write_text(header + "1,y,1000000000000,10\n")
    code, out, _ = call("cut", "net.csv", "--rate", "20Mbit/s", "--set", "devices=1", "slot_s=1e-6")
    assert code == 0
    assert out.startswith("At 20 Mbit/s: send the encoded input, 12.29 kbit: 2.605 s")
    assert "all local 125 s" in out
    assert "Under load: no answer: device 0 can finish no task: its CPU is too slow" in " ".join(out.split())


def test_the_link_that_is_stated_is_the_one_that_is_simulated():
    """At the mean gain and full power the slot carries the rate times its length: 20 Mbit/s x 0.1 s."""
    first = cut_command.question(build_parser().parse_args(["cut", "resnet50", "--rate", "20Mbit/s"]))
    target = cut_command.under_load(first)
    device = target.device
    assert float(data_rate(device, device.mean_gain, device.tx_power_max_w)) == pytest.approx(20e6, rel=1e-6)


def test_a_least_cpu_rate_and_idle_power_add_to_the_energy(folder: Path):
    """All local takes 1e9 cycles at 1 GHz, 0.1 J in 1 s; at 2 GHz it takes 0.4 J. 3 W more throughout are 3 J."""
    plain = small_network(folder)
    placement, index = plain.placement, plain.index
    fast, idle = (context_at(plain.scenario, plain.profile, placement, index, *more) for more in ((2e9,), (0.0, 3.0)))
    local = [of_one_task(target, ("local",), (0.0,))[0] for target in (plain, fast, idle)]
    assert [(task.cpu_hz, task.device_j) for task in local] == [
        (pytest.approx(1e9), pytest.approx(0.1)),
        (pytest.approx(2e9), pytest.approx(0.4)),
        (pytest.approx(1e9), pytest.approx(3.1)),
    ]
    np.testing.assert_allclose(fast.cpu_hz(np.array([0.0, 0.1, 1.0, 2.0])), [0.0, 2e9, 2e9, 2e9])
    assert [float(fast.block_j(0.0, 0.0)), float(idle.block_j(0.0, 0.0))] == [0.0, 3.0]


def test_why_the_latency_differs(folder: Path):
    """2 GHz at the device; the plan's 1.2 GHz take 0.36 of the energy."""
    options = build_parser().parse_args(["cut", "ppocr-rec", "--deadline", "100ms", "--rtt", "1ms"])
    target = small_network(folder, "device.arrival_prob=0.2", "device.tx_power_max_w=1")
    result = CutResult(target, PlanRule(np.array([0.0, 100.0]), 100.0, 1.0, 0.0), "", BreakEven(None, None), [], [])
    sentences = " ".join(why_it_differs(result, cut_command.question(options)))
    assert "one device has the server, 1.6 tasks arrive per second" in sentences
    assert "in blocks of 1 s" in sentences
    assert "at 1.2 GHz instead of 2 GHz the same work takes the whole block and 36% of the energy" in sentences
    assert "The simulation has no round trip." in sentences


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("missing.onnx",), "missing.onnx"),
        (("resnet5",), "did you mean 'resnet50'?"),
        (("alexnet", "--device", "20"), "--device must be a whole number from 0 to 19, got 20"),
        (("alexnet", "--distance-m", "-1"), "--distance-m must be between 0.001 and 1000000000, got -1"),
        (("alexnet", "--blocks", "1"), "--blocks must be between 10 and 1000000, got 1"),
        (("alexnet", "--rate", "-5MB/s"), "--rate must be from 1 to 1e15 bit/s, got '-5MB/s'"),
        (("alexnet", "--rtt", "-.5s"), "--rtt must be 0 or from 1e-12 to 1000000000 s, got '-.5s'"),
        (("alexnet", "--deadline", "0"), "--deadline must be from 1e-12 to 1000000000 s, got '0'"),
        (("alexnet", "--input-bits", "60kb/s"), "--input-bits '60kb/s': unknown unit 'kb/s'"),
        (("alexnet", "--rate", "20"), "--rate needs a unit, such as 20Mbit/s or 5MB/s, got '20'"),
        (("alexnet", "--deadline", "soon"), "--deadline must be a number and a unit, such as 10ms or 0.5s, got 'soon'"),
        (("alexnet", "--device-times", "none.csv"), "cannot read the times 'none.csv'"),
        (("alexnet", "--seeds", "0"), "--seeds must be between 1 and 1000, got 0"),
        (("alexnet", "--shape", "x=1x3"), "--shape and --input need an .onnx file"),
        (("alexnet", "--input-bits", "-3"), "--input-bits must be from 1 to 9.00719925474e15 bit, got '-3'"),
        (("alexnet", "--input-bits", "nan"), "--input-bits must be a number and a unit, such as 60kbit"),
        (
            ("alexnet", "--set", "device.task.tensor_dtype=fp16"),
            "--set 'device.task.tensor_dtype': the task is the network; use --",
        ),
        (("alexnet", "--scenario", "ocrr"), "did you mean 'ocr'?"),
        (("alexnet", "--set", "queue=as_printed"), "queue = 'as_printed' requires tasks of kind 'proportional'"),
        (("alexnet", "--tensor-dtype", "int4"), "--tensor-dtype must be one of fp32, fp16, uint8, got 'int4'"),
    ],
)
def test_an_invalid_argument_gets_a_one_line_error(folder: Path, arguments: tuple[str, ...], reason: str):
    code, out, err = call("cut", *arguments, "--out", "o")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err
    assert not (folder / "o").exists()


@pytest.mark.parametrize("input_bits", [(), ("--input-bits", "3e5")])
@pytest.mark.parametrize("name", ["resnet50", "ppocr-rec"])
def test_only_pareto_optimal_cuts_are_offered(name: str, input_bits: tuple[str, ...]):
    options = build_parser().parse_args(["cut", name, "--set", "devices=2", *input_bits])
    target, profile = cut_command.under_load(cut_command.question(options)), read_profile(name)
    front = profile.pareto_optimal("uint8", float(input_bits[1]) if input_bits else None)
    assert target.cuts.tolist() == np.flatnonzero(front)[::-1].tolist()
    assert len(target.cuts) < len(table_rows(profile, "uint8"))
    bits = np.asarray(target.device.task.bits)[: len(target.cuts)]
    assert np.all(np.diff(bits) > 0)  # ascending shares: each further cut of the front sends fewer bits


def test_an_onnx_file_is_cut_like_its_profile(folder: Path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Conv", ["y", "v"], ["z"])]
    tensors = [
        helper.make_tensor("w", 1, [4, 3, 1, 1], [0.5] * 12),
        helper.make_tensor("v", 1, [1, 4, 1, 1], [0.5] * 4),
    ]
    shape = [1, 3, 512, 512]
    ends = [helper.make_tensor_value_info(name, 1, size) for name, size in (("x", shape), ("z", [1, 1, 512, 512]))]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    onnx.save(model, "net.onnx")
    words = ["net.onnx", "--rate", "1Gbit/s", "--device-rate", "10MMAC/s", "--input-bits", "1Gbit", "--one-task"]
    words += ["--shape", "x=1x3x512x512"]
    document = json.loads(call("cut", *words, "--tensor-dtype", "fp16", "--json", "-")[1])["one_task"]
    assert (document["tensor_dtype"], document["recommended"]["cut"]) == ("fp16", 1)
    command = "partway split net.onnx --shape x=1x3x512x512 --cuts 1 --tensor-dtype fp16 --out halves --verify"
    assert document["split"] == command
    code, out, _ = call(*command.split()[1:])
    assert (code, "cut  after" in out or "cut after" in out) == (0, True)
    options = build_parser().parse_args(["cut", "net.onnx", "--set", "devices=2", "--input-bits", "1e8"])
    from_onnx = cut_command.under_load(cut_command.question(options))
    assert from_onnx.profile.name == "net"
    assert from_onnx.device.task.share.tolist() == pytest.approx([0.0, 0.25, 1.0])
    np.testing.assert_array_equal(np.asarray(from_onnx.device.task.bits)[[0, -1]], [0, 1e8])
    Path("net.csv").write_text(write_profile(from_onnx.profile))
    task = {"kind": "layers", "profile": "net.csv", "tensor_dtype": "uint8", "input_bits": 1e8}
    scenario = with_task(load("ocr", ["devices=2"]), task)
    from_csv = context_at(scenario, read_profile("net.csv"), *placed(scenario))
    assert from_csv.cuts.tolist() == from_onnx.cuts.tolist() == [2, 1, 0]
    assert float(from_csv.device.capacity) == float(from_onnx.device.capacity)
