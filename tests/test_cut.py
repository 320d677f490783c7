"""Where to cut: the table against every choice tried, the bandwidths where sending pays, the command."""

import contextlib
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from partway.bound.lower_bound import lower_bound
from partway.cli import cut as cut_command
from partway.cli.main import _parser, main
from partway.cli.terminal import terminal
from partway.controllers.baselines import Constant, Full, Local
from partway.controllers.postdecision import PostDecisionServer
from partway.dnn.cuts import layer_cuts
from partway.dnn.profile import read_profile, shipped_profiles, write_profile
from partway.errors import InputError
from partway.experiments.comparison import make_plan
from partway.measurement.latency import finish_times
from partway.measurement.metrics import traced
from partway.planner.break_even import MOST_HZ, BreakEven, break_even, one_task_cost
from partway.planner.evaluation import Alone, alone, at_full_speed, lone_tasks, measured, play_here
from partway.planner.plan import (
    DeviceContext,
    PlanRule,
    advise,
    cut_numbers,
    exact_rule,
    finish_rates,
    learned_rule,
    quantile,
    site,
    with_task,
)
from partway.planner.report import Answer, sheet
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.simulation.step import ControllerPair, play_block, start
from partway.system.exogenous import Drawn
from partway.system.placement import sample_placement
from partway.system.world import World, build

QUEUES, FADING = np.array([1, 2, 5, 9]), np.array([0.01, 0.3, 1.0, 3.0])


def site_of(profile: str = "ppocr-rec", *overrides: str, **how: Any) -> DeviceContext:
    scenario = load("ocr", ["devices=3", *overrides])
    task = {"kind": "layers", "profile": profile, "tensor_dtype": "uint8"}
    return site(with_task(scenario, task), read_profile(profile), **how)


@pytest.fixture(scope="module")
def here() -> DeviceContext:
    return site_of()


@pytest.fixture(scope="module")
def rule(here: DeviceContext) -> PlanRule:
    return exact_rule(here, lower_bound(here.world))


def everything_tried(
    sample_placement: DeviceContext, rule: PlanRule, queue: int, x: float
) -> list[tuple[float, int, int]]:
    """(c + gamma U, tasks taken up, cut) of every choice there is, from the equations alone, cheapest first."""
    scenario, profile = sample_placement.scenario, sample_placement.profile
    kind, radio, tau = scenario.device_classes()[sample_placement.device], scenario.radio, scenario.slot_s
    cycles, block_s = profile.macs / kind.macs_per_cycle, scenario.slots * tau
    gain = x * float(sample_placement.placement.mean_gain_per_w[sample_placement.device])
    mean_task = profile.macs / scenario.server.macs_per_cycle
    assert float(sample_placement.own.server_work) * mean_task == pytest.approx(mean_task)

    def value(left: int) -> float:
        last = len(rule.value) - 1
        return float(rule.value[min(left, last)]) + max(left - last, 0) * rule.slope

    found = [(rule.discount * value(queue), 0, len(profile.cuts) - 1)]
    cuts = zip(profile.share(), profile.bits("uint8"), itertools.count(), strict=False)
    for (share, bits, cut), started in itertools.product(list(cuts), range(1, queue + 1)):
        local = (started - share) * cycles
        power = radio.snr_gap / gain * np.expm1(np.log(2) * bits / (tau * kind.bandwidth_hz)) if bits else 0.0
        if local > block_s * kind.cpu_max_hz or power > kind.tx_power_max_w:
            continue
        joules = kind.capacitance * local**3 / block_s**2 + tau * power
        cost = scenario.weights.device_energy * joules + rule.price * share
        found.append((cost + rule.discount * value(queue - started), started, cut))
    return sorted(found)


def test_the_table_is_the_best_of_every_choice(here: DeviceContext, rule: PlanRule):
    found = advise(here, rule, QUEUES, FADING)
    for i, j in itertools.product(range(len(QUEUES)), range(len(FADING))):
        tried = everything_tried(here, rule, int(QUEUES[i]), float(FADING[j]))
        assert (found.started[i, j], found.offload[i, j]) == (
            tried[0][1],
            pytest.approx(here.profile.share()[tried[0][2]], abs=1e-6),
        )
        if found.started[i, j]:
            assert here.profile.bits("uint8")[found.cut[i, j]] == found.bits[i, j]
            assert found.cut[i, j] == tried[0][2]
    assert len({*found.cut.flat}) >= 2


def test_the_cpu_runs_what_is_not_sent(here: DeviceContext, rule: PlanRule):
    found, scenario = advise(here, rule, QUEUES, FADING), here.scenario
    cycles = here.profile.macs / scenario.device.macs_per_cycle
    block_s = scenario.slots * scenario.slot_s
    np.testing.assert_allclose(found.cpu_hz, (found.started - found.offload) * cycles / block_s)
    assert found.cpu_hz.max() <= scenario.device.cpu_max_hz * (1 + 1e-4)


@pytest.mark.parametrize("name", shipped_profiles())
@pytest.mark.parametrize("input_bits", [None, 1000.0])
def test_every_row_of_a_task_has_its_cut(name: str, input_bits: float | None):
    profile = read_profile(name)
    share, bits = layer_cuts(profile, "fp16", input_bits)
    rows, sent = cut_numbers(profile, "fp16", input_bits), profile.bits("fp16")
    sent[0] = sent[0] if input_bits is None else input_bits
    np.testing.assert_array_equal(sent[rows], bits)
    np.testing.assert_array_equal(profile.share()[rows].astype(np.float32), share.astype(np.float32))


# Bandwidth


@pytest.mark.parametrize("profile", ["ppocr-rec", "resnet50", "alexnet"])
def test_more_bandwidth_never_costs_more(profile: str):
    own, bands = site_of(profile).own, np.geomspace(1e3, 1e12, 60)
    for price in (0.0, 1.0):
        costs = np.array([one_task_cost(own, price, band, np.asarray(own.task.share) > 0) for band in bands])
        assert (costs[1:] <= costs[:-1] * (1 + 1e-12)).all()
        assert costs[-1] < costs[0]


@pytest.mark.parametrize("profile", ["resnet50", "alexnet"])
def test_the_break_even_bandwidths_are_where_it_flips(profile: str):
    """Against the equations, in worlds of a little less and a little more bandwidth."""
    place_here, price = site_of(profile), 0.01
    found = break_even(place_here.own, price)
    assert found.sending_hz is not None
    assert found.remote_hz is not None
    assert found.sending_hz <= found.remote_hz
    flat = PlanRule(np.zeros(2), 0.0, 1.0, price)
    for hertz, all_remote in ((found.sending_hz, False), (found.remote_hz, True)):
        pays = [_pays(place_here, flat, hertz * factor, all_remote) for factor in (0.999, 1.001)]
        assert pays == [False, True]


def _pays(place_here: DeviceContext, flat: PlanRule, bandwidth_hz: float, all_remote: bool) -> bool:
    """Whether the cheapest way that sends (all) of one task costs less than to run it."""
    old = place_here.scenario
    noise = old.radio.noise_dbw + 10 * np.log10(bandwidth_hz / old.device.bandwidth_hz)
    raw = load(old.model_dump(exclude_none=True), {"device.bandwidth_hz": bandwidth_hz, "radio.noise_dbw": noise})
    there = replace(place_here, scenario=raw, placement=sample_placement(raw))
    tried = [(cost, cut) for cost, started, cut in everything_tried(there, flat, 1, 1.0) if started == 1]
    last = len(place_here.profile.cuts) - 1
    share = place_here.profile.share()
    local = min((cost for cost, cut in tried if cut == last), default=np.inf)
    sent = min((cost for cost, cut in tried if (cut == 0 if all_remote else share[cut] > 0)), default=np.inf)
    return sent < local


def test_where_the_server_is_too_dear_no_bandwidth_helps(here: DeviceContext):
    found = break_even(here.own, 1e6)
    assert (found.sending_hz, found.remote_hz) == (None, None)
    share = np.asarray(here.own.task.share)
    assert one_task_cost(here.own, 1e6, MOST_HZ) == one_task_cost(here.own, 1e6, MOST_HZ, share == 0)


# The site


def test_a_load_that_cannot_be_done_is_eased():
    busy = site_of("resnet50")
    assert busy.eased < 1
    assert busy.scenario.device.arrival_prob == pytest.approx(0.4 * busy.eased)
    arriving = busy.scenario.device.arrival_prob * busy.scenario.slots
    assert (arriving <= 0.8 * finish_rates(busy.world.devices) * (1 + 1e-9)).all()
    assert site_of("ppocr-rec").eased == 1


def test_what_a_device_can_finish():
    """All of three tasks and a part of a fourth run here; the rest of it goes where the channel carries a small cut."""
    here = site_of("ppocr-rec")
    assert (finish_rates(here.world.devices) <= 4).all()
    assert (finish_rates(here.world.devices) > 3).all()
    alone = site_of("ppocr-rec", "device.tx_power_max_w=1e-15")
    np.testing.assert_array_equal(finish_rates(alone.world.devices), 3.0)


def test_the_median_device_is_asked_and_a_distance_moves_it():
    gains = np.asarray(site_of().placement.mean_gain_per_w)
    assert gains[site_of().device] == np.median(gains)
    moved = site_of("ppocr-rec", device=2, distance_m=100.0)
    assert moved.device == 2
    assert float(moved.own.mean_gain) == pytest.approx(10 ** (-(30.6 + 37.6 * 2 - 134.0) / 10))
    assert np.delete(moved.placement.mean_gain_per_w, 2).tolist() == np.delete(gains, 2).tolist()
    with pytest.raises(InputError, match="--device 3: allowed is a device from 0 to 2"):
        site_of("ppocr-rec", device=3)
    with pytest.raises(InputError, match="device 0 can never finish such a task"):
        site_of("resnet50", "device.tx_power_max_w=1e-15")


# What it brings


def test_all_local_is_measured_right(here: DeviceContext):
    """Nothing is sent, and one task at 1/n of the block's energy: cubes of what was run, summed by hand."""
    played = play_here(here, "local", (0, 1), 100, None, lambda name, blocks: None)
    found = measured(here, "all local", played, price=1.0)
    assert (found.unstable, found.sent, found.server_j) == ("", 0.0, 0.0)
    assert played.traces is not None
    started, new = (
        np.asarray(getattr(played.traces, name))[:, 50:, ..., here.device] for name in ("started", "arrivals")
    )
    cycles = here.profile.macs / here.scenario.device.macs_per_cycle
    joules = 1e-28 * (started.astype(np.float64) * cycles) ** 3 / 0.5**2
    assert found.device_j == pytest.approx(joules.sum() / new.sum(), rel=1e-6)
    assert 0.3 < found.latency_s <= found.p95_s
    cost = np.asarray(played.traces.cost, np.float64)[:, 50:, here.device].mean()
    assert found.cost == pytest.approx(cost)


# One task alone


EASY = ("devices=1", "slots=10", "slot_s=0.1", "radio.snr_gap=2", "radio.shadowing_db=0", "radio.pathloss_db_at_1m=0")
EASY = (*EASY, "radio.pathloss_slope_db=0", "radio.noise_dbw=-20", "server.capacitance=1e-28", "server.cpu_max_hz=8e9")
"""Blocks of 1 s, a gain of 100 / W, Gamma = 2: 1 + h p / Gamma = 1 + 50 p."""


def parts(one: Alone) -> tuple[float, ...]:
    return one.device_s, one.radio_s, one.wait_s, one.server_s


def test_a_lone_proportional_task_by_hand():
    """4e9 cycles, 4 Mbit; the device may run at 5 GHz, the radio carries 2.5e5 bit in a slot at 1 bit/s/Hz.

    A quarter sent: 1e6 bit are 4 bit/s/Hz, p = (2^4 - 1) / 50 = 0.3 W, 0.03 J in 0.1 s; the CPU runs 3e9 cycles in 1 s,
    1e-28 * 27e27 = 2.7 J; the server 1e9 in 1 s, 0.1 J. All of it here: 4 GHz, 6.4 J, or at 5 GHz 0.8 s and 10 J. All
    of it sent: 16 bit/s/Hz, p = 65535 / 50 W, 131.07 J, and 6.4 J at 4 GHz at the server.
    """
    task = 'device.task={kind="proportional", cycles=4e9, bits_per_cycle=1e-3}'
    device = ("device.cpu_max_hz=5e9", "device.capacitance=1e-28", "device.bandwidth_hz=2.5e6")
    scenario = load("paper", [*EASY, *device, task])
    world = build(scenario, sample_placement(scenario))
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[..., 0], world.devices)
    some, none, everything = (alone("", own, world.server, 5e9, offload) for offload in (0.25, 0.0, 1.0))
    assert (some.why, some.bits, some.cpu_hz) == ("", 1e6, pytest.approx(3e9))
    assert parts(some) == pytest.approx((1.0, 0.1, 1.0, 1.0))
    assert (some.latency_s, some.device_j, some.server_j) == pytest.approx((3.1, 2.73, 0.1))
    assert parts(none) == pytest.approx((1.0, 0.0, 0.0, 0.0))
    assert (none.device_j, none.server_j) == pytest.approx((6.4, 0.0))
    hurried = at_full_speed(none, own)
    assert (hurried.cpu_hz, hurried.latency_s, hurried.device_j) == pytest.approx((5e9, 0.8, 10.0))
    assert (everything.cpu_hz, everything.latency_s) == pytest.approx((0.0, 3.1))
    assert (everything.device_j, everything.server_j) == pytest.approx((131.07, 6.4))


def site_by_hand(folder: Path, *overrides: str) -> DeviceContext:
    """100 M MACs, of which 20 M come before the only cut; 2 Mbit of input, 0.5 Mbit (62500 bytes) at the cut."""
    head = "# source: by hand\n# input_shape: 1x3x8x8\n# input_bits: 2e6\ncut,after,macs,elements\n"
    (folder / "net.csv").write_text(head + "0,x,0,192\n1,mid,20000000,62500\n2,y,100000000,10\n")
    device = ("macs_per_cycle=0.1", "capacitance=1e-28", "bandwidth_hz=2.5e6", "arrival_prob=0.001")
    server = ("server.macs_per_cycle=0.1", "server.cpu_max_hz=6e8")
    scenario = load("ocr", [*EASY, *(f"device.{one}" for one in device), *server, *overrides])
    task = {"kind": "layers", "profile": str(folder / "net.csv"), "tensor_dtype": "uint8"}
    return site(with_task(scenario, task), read_profile(str(folder / "net.csv")))


FREE = PlanRule(np.array([0.0, 100.0]), 100.0, 1.0, 0.0)
"""Waiting is dear and the server free: the cheapest energy at the device wins."""


def test_a_lone_task_with_layers_by_hand(folder: Path):
    """1e9 cycles here, 0.1 J; at 2 GHz 0.5 s and 0.4 J.

    At the cut 2 bit/s/Hz, p = 3 / 50 = 0.06 W, 0.006 J; the CPU at 0.2 GHz, 0.0008 J; the server 8e8 cycles at its
    6e8 a second: a block of 6e8 and one of 2e8, 0.0216 + 0.0008 J. The input takes 8 bit/s/Hz, 5.1 W.
    """
    here = site_by_hand(folder, "device.tx_power_max_w=1")
    cut, local, hurried, remote = lone_tasks(here, FREE)
    assert (cut.name, cut.offload, cut.bits) == ("recommended", pytest.approx(0.8), 5e5)
    assert parts(cut) == pytest.approx((1.0, 0.1, 1.0, 2.0))
    assert (cut.cpu_hz, cut.device_j, cut.server_j) == pytest.approx((2e8, 0.0068, 0.0224))
    assert (local.cpu_hz, local.latency_s, local.device_j) == pytest.approx((1e9, 1.0, 0.1))
    assert (hurried.cpu_hz, hurried.latency_s, hurried.device_j) == pytest.approx((2e9, 0.5, 0.4))
    carried = 0.1 * 2.5e6 * np.log2(51) / 1e3
    assert remote.why == f"radio too slow: 2000 kbit to send, its slot carries {carried:.0f}"
    assert np.isnan([remote.latency_s, remote.device_j, remote.server_j]).all()
    strong = site_by_hand(folder, "device.tx_power_max_w=6")
    assert lone_tasks(strong, FREE)[-1].device_j == pytest.approx(0.1 * 255 / 50)


def test_a_cpu_that_is_too_slow_is_named_and_a_plan_may_wait(folder: Path):
    here = site_by_hand(folder, "device.cpu_max_hz=8e8", "device.tx_power_max_w=1")
    cut, local, hurried, _ = lone_tasks(here, FREE)
    assert cut.why == ""
    assert {local.why, hurried.why} == {"CPU too slow: 1.25 s at f_max, a block has 1"}
    waits = lone_tasks(here, PlanRule(np.zeros(2), 0.0, 1.0, 1.0))[0]
    assert waits.why == "the plan waits for a better moment"
    assert np.isnan(waits.latency_s)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        terminal().print(sheet(Answer(here, FREE, "", BreakEven(None, None), [waits, local, cut], [])))
    printed = out.getvalue()
    assert "recommended  -  -  waits" in re.sub(r" {2,}", "  ", printed)
    assert "all local  2  1 GHz  impossible" in re.sub(r" {2,}", "  ", printed)
    assert "all local: CPU too slow: 1.25 s at f_max, a block has 1\n" in printed


@pytest.mark.parametrize("profile", ["ppocr-rec", "mobilenetv2"])
def test_a_lone_task_is_what_a_simulated_one_is(profile: str):
    """The real device and server; one task comes in the last slot of block 0, the gain is the mean throughout."""
    here = site_of(profile)
    rule = PlanRule(np.array([0.0, 10.0]), 10.0, 1.0, 0.0)
    cut, local, _, remote = lone_tasks(here, rule)
    assert cut.offload > 0
    for one, device in ((cut, Constant(share=cut.offload, tasks=1)), (local, Local()), (remote, Full())):
        found = simulated_alone(here, ControllerPair(device, PostDecisionServer()))
        assert found == pytest.approx((one.latency_s, one.device_j, one.server_j), rel=1e-5)


def simulated_alone(here: DeviceContext, pair: ControllerPair) -> tuple[float, float, float]:
    """Latency [s] and the energy of devices and server [J] of a run in which only that one task comes."""
    with jax.enable_x64(True):
        world: World = cast_floats(here.world, "float64")
        keys, gain = jax.random.split(jax.random.key(0), 3), world.devices.mean_gain
        playing, loop = start(world, cast_floats(pair, "float64"), jnp.uint32(0), keys)
        one = jnp.zeros((1, len(gain)), jnp.uint32).at[0, here.device].set(1 << (world.devices.slots - 1))
        play = jax.jit(lambda loop, kept, block: play_block(world, playing, loop, kept, keys[2], block, False))
        seen = []
        for block in range(5):
            loop, played = play(loop, Drawn(one if block == 0 else jnp.zeros_like(one), gain), jnp.uint32(block))
            seen.append((traced(played), jnp.sum(played.did.joules), played.server_j))
    traces, device_j, server_j = jax.tree.map(lambda *leaves: np.stack(leaves)[None], *seen)
    (tasks,) = finish_times(traces, np.asarray(here.world.devices.server_work), here.scenario.slot_s)
    return float(tasks.finished[0] - tasks.arrived[0]), float(device_j.sum()), float(server_j.sum())


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


def test_the_command_writes_what_it_prints(folder: Path, here: DeviceContext, rule: PlanRule):
    code, out, err = call("cut", "ppocr-rec", "--set", "devices=3", "--blocks", "100", "--seeds", "2", "--out", "o")
    assert code == 0
    assert all(len(line) <= 100 for line in (out + err).splitlines())
    assert out.startswith("With 2 tasks waiting and the radio at its mean: ")
    assert (folder / "o" / "table.txt").read_text() == out
    (unstable,) = (line for line in out.splitlines() if line.startswith("all remote   ") and "unstable" in line)
    assert unstable.split() == ["all", "remote", *["unstable"] * 6]
    written = {path.name for path in (folder / "o").iterdir()}
    assert {"cut-map.png", "cut-map.svg", "cut-map.csv", "cut.json", "ppocr-rec.csv", "scenario.toml"} < written
    document = json.loads((folder / "o" / "cut.json").read_text(), parse_constant=pytest.fail)
    found = advise(here, rule, np.array([1, 2, 3, 4, 6, 8]), quantile((0.05, 0.2, 0.5, 0.8, 0.95)))
    assert [row["started"] for row in document["choices"]] == found.started.astype(int).ravel().tolist()
    assert [row["cut"] for row in document["choices"]] == found.cut.ravel().tolist()
    assert [one["name"] for one in document["measured"]] == ["recommended", "all local", "all remote"]
    lone = document["alone"]["choices"]
    assert [one["name"] for one in lone] == ["recommended", "all local", "all local, f_max", "all remote"]
    assert [one["latency_s"] for one in lone] == [one.latency_s for one in lone_tasks(here, rule)]
    assert [one["cut"] for one in lone[1:]] == [71, 71, 0]
    assert document["alone"]["assumes"].startswith("One task alone, by formula")
    assert document["break_even_hz"]["sending"] == break_even(here.own, rule.price).sending_hz
    assert make_plan("o/scenario.toml").scenario.device.task == load("o/scenario.toml").device.task


def test_learned_tables_are_near_the_exact_ones(here: DeviceContext, rule: PlanRule):
    """Where they were visited: the value of one more task, which is what decides."""
    played = play_here(here, "priced", (0, 1), 1000, None, lambda name, blocks: None)
    learned = learned_rule(here, played)
    assert learned.discount == rule.discount == 1.0
    np.testing.assert_allclose(np.diff(learned.value[:5]), np.diff(rule.value[:5]), rtol=0.1)
    assert learned.price == pytest.approx(rule.price, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("missing.onnx",), "missing.onnx"),
        (("resnet5",), "did you mean 'resnet50'?"),
        (("alexnet", "--device", "20"), "--device 20: allowed is a device from 0 to 19"),
        (("alexnet", "--distance-m", "-1"), "--distance-m -1: allowed is"),
        (("alexnet", "--blocks", "1"), "--blocks 1: allowed is a whole number from 10"),
        (("alexnet", "--seeds", "0"), "--seeds 0: allowed is a whole number from 1"),
        (("alexnet", "--shape", "x=1x3"), "--shape needs an .onnx file"),
        (("alexnet", "--input-bits", "-3"), "input_bits = -3"),
        (("alexnet", "--input-bits", "nan"), "input_bits = nan"),
        (("alexnet", "--scenario", "ocrr"), "did you mean 'ocr'?"),
        (("alexnet", "--set", "queue=as_printed"), "allowed only with tasks of kind 'proportional'"),
        (("alexnet", "--coding", "int4"), "--coding 'int4'"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, arguments: tuple[str, ...], why: str):
    code, out, err = call("cut", *arguments, "--out", "o")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err
    assert not (folder / "o").exists()


def test_an_onnx_file_is_cut_like_its_profile(folder: Path):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [helper.make_node("Conv", ["x", "w"], ["backlog"]), helper.make_node("Conv", ["backlog", "v"], ["z"])]
    tensors = [
        helper.make_tensor("w", 1, [4, 3, 1, 1], [0.5] * 12),
        helper.make_tensor("v", 1, [1, 4, 1, 1], [0.5] * 4),
    ]
    shape = [1, 3, 512, 512]
    ends = [helper.make_tensor_value_info(name, 1, size) for name, size in (("x", shape), ("z", [1, 1, 512, 512]))]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    onnx.save(model, "net.onnx")
    options = _parser().parse_args(["cut", "net.onnx", "--set", "devices=2", "--input-bits", "70000"])
    found = cut_command.question(options)
    assert found.profile.name == "net"
    assert found.own.task.share.tolist() == pytest.approx([0.0, 0.25, 1.0])
    np.testing.assert_array_equal(np.asarray(found.own.task.bits)[[0, -1]], [0, 70000])
    Path("net.csv").write_text(write_profile(found.profile))
    task = {"kind": "layers", "profile": "net.csv", "tensor_dtype": "uint8", "input_bits": 70000}
    again = site(with_task(load("ocr", ["devices=2"]), task), read_profile("net.csv"))
    assert again.cuts.tolist() == found.cuts.tolist() == [2, 1, 0]
    assert float(again.own.capacity) == float(found.own.capacity)
