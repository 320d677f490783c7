"""The benchmark: its rivals compute what Partway does, its counts and ratios are right, its page says what it found.

No time is asserted.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import jobs, limit, machine, main_job, main_parts, quick
from benchmarks.agree import ALLOWED, COST_COMPONENTS, differences, farthest
from benchmarks.drawing import lines
from benchmarks.environments import NumpyBlocks
from benchmarks.fleet import OwnDraws, RecordedDraws, fleet_of, own_features, recorded
from benchmarks.goals import GOALS, Wanted, count_of, share, summary, table
from benchmarks.jobs import alternately, enough_blocks, least_blocks
from benchmarks.jobs import memory as memory_job
from benchmarks.limit import Count, Peaks, counts, limit_s
from benchmarks.page import environments, text, write
from benchmarks.plan import EPISODES, FLEETS, MANY, MOST_LANES, PEAK_REPEATS, RUNS, Places, Step, sizes, steps
from benchmarks.process import Job, environment, start_up
from benchmarks.records import Rate, all_rates, failures, found, measured, ratio, short, slope
from benchmarks.rivals import RIVALS, rival_of
from benchmarks.rivals_printed import TILE, tiles
from benchmarks.worlds import CHEAP, EXPENSIVE, MEASURED, overrides, pair_of, scenario_of, world_of
from partway.env.vector import SystemVectorEnv
from partway.provenance import package_hash
from partway.scenario.loading import load
from partway.system.load import load_of
from partway.system.placement import sample_placement
from partway.system.world import build

PLACES = Places("cache", cores=(0, 1))


# The worlds


def test_every_fleet_has_the_same_load_and_its_server_costs_as_much_a_device():
    loads = {devices: load_of(scenario_of(devices), world_of(devices)) for devices in (4, 50, 1000)}
    assert {round(load.server_utilisation, 9) for load in loads.values()} == {
        0.4
    }  # 2 tasks arrive at a device, the server does 5
    assert loads[1000].system_utilisation < 0.5
    servers = [world_of(devices).server for devices in (4, 50, 1000)]
    cost = [s.energy_weight * s.energy_coef * k**3 / k for s, k in zip(servers, (4, 50, 1000), strict=True)]
    assert cost == pytest.approx([cost[0]] * 3, rel=1e-12)


def test_the_overrides_are_what_the_command_line_takes():
    assert load("paper", overrides(50)) == scenario_of(50)


# The rivals compute the same


@cache
def drawn(devices: int, weight: float, runs: int, blocks: int) -> RecordedDraws:
    """Partway's random numbers in float64; drawing them compiles."""
    return recorded(world_of(devices, weight), list(range(runs)), blocks, "float64")


@pytest.mark.parametrize(
    ("scheme", "precision"),
    [
        ("parametric-printed", "float64"),  # all of them: `make bench-quick`, which every change has to pass
        pytest.param("priced", "float64", marks=pytest.mark.slow),
        pytest.param("priced", "float32", marks=pytest.mark.slow),
        pytest.param("parametric-printed", "float32", marks=pytest.mark.slow),
    ],
)
def test_all_implementations_agree(scheme: str, precision: str):
    kinds: list[str] = list(RIVALS) if precision == "float64" else ["batched"]
    found = differences(scheme, 5, 2, 30, precision, kinds)
    assert list(found) == kinds
    assert max(found.values()) <= ALLOWED[precision]


@pytest.mark.parametrize(("scheme", "changed"), [("parametric-printed", {"step": 0.011}), ("priced", {"decay": 0.7})])
@pytest.mark.parametrize("party", ["device", "server"])
@pytest.mark.parametrize("kind", ["loop", "batched"])
def test_what_a_rival_learns_is_seen_in_its_costs(scheme: str, changed: dict[str, float], party: str, kind: str):
    """So that agreement can fail: another step size is far outside what is allowed."""
    world, pair = world_of(5, EXPENSIVE), pair_of(scheme)
    fleet, chance = fleet_of(world, "float64"), drawn(5, EXPENSIVE, 1, 30)
    features = own_features(fleet, 1) if scheme == "parametric-printed" else None
    other = replace(pair, **{party: replace(getattr(pair, party), **changed)})
    right, wrong = (rival_of(kind, one, fleet, chance, features, 1).play(30) for one in (pair, other))
    assert farthest(wrong, right) > 1e3 * ALLOWED["float64"]


@pytest.mark.parametrize("scheme", MEASURED)
def test_a_run_does_not_depend_on_what_is_batched_with_it_or_on_tiles(scheme: str, monkeypatch: pytest.MonkeyPatch):
    fleet = fleet_of(world_of(7), "float64")
    both = drawn(7, CHEAP, 2, 20)
    features = own_features(fleet, 2) if scheme == "parametric-printed" else None
    last = slice(1, 2)
    pair = pair_of(scheme)
    batched = rival_of("batched", pair, fleet, both, features, 2).play(20)
    monkeypatch.setattr("benchmarks.rivals_printed.TILE", 3)
    monkeypatch.setattr("benchmarks.rivals_priced.TILE", 3)
    single = rival_of("per_run", pair, fleet, both.of(last), features and features.of(last), 1).play(20)
    np.testing.assert_allclose(batched[:, 1:], single, rtol=1e-12)


@pytest.mark.parametrize(("runs", "devices"), [(1, 1), (3, 20), (128, 20), (2, TILE + 1), (1, 3 * TILE)])
def test_tiles_cover_everything_once_and_are_small(runs: int, devices: int):
    covered, pieces = np.zeros((runs, devices)), tiles(runs, devices)
    for piece in pieces:
        covered[piece] += 1
        assert 0 < covered[piece].size <= TILE
    assert covered.min() == covered.max() == 1


def test_a_world_the_rivals_do_not_know_is_refused():
    for overriding in ({"broadcast_delay_blocks": 0}, {"device.tx_power_max_w": 0.2}):
        scenario = load("paper", {"devices": 4, **overriding})
        with pytest.raises(ValueError, match="`paper` only"):
            fleet_of(build(scenario, sample_placement(scenario)), "float32")
    mixed = load({"devices": 2, "group": [{"count": 1}, {"count": 1, "capacitance": 2e-28, "arrival_prob": 0.1}]})
    with pytest.raises(ValueError, match="one class"):
        fleet_of(build(mixed, sample_placement(mixed)), "float32")


def test_the_rivals_own_draws_have_the_worlds_law():
    fleet = fleet_of(world_of(1000), "float32")
    chance = OwnDraws(fleet, 4)
    arrivals, gains = (np.stack(drawn) for drawn in zip(*(chance.block(t) for t in range(10)), strict=True))
    fading = gains / fleet.mean_gain
    assert arrivals.mean() == pytest.approx(0.4, abs=4 * (0.24 / arrivals.size) ** 0.5)
    assert [fading.mean(), (fading > 1).mean()] == pytest.approx([1.0, np.exp(-1)], abs=4 / fading.size**0.5)


def test_the_environment_in_numpy_is_the_systems():
    """Observations and rewards of three episodes, with the same random numbers."""
    seeds, world = [0, 1, 2], world_of(4)
    envs = SystemVectorEnv("paper", overrides=overrides(4), num_envs=3)
    ours = NumpyBlocks(fleet_of(world, "float32"), recorded(world, seeds, 8, "float32"), alone=False)
    np.testing.assert_allclose(ours.begin(), envs.reset(seed=seeds)[0], rtol=1e-4, atol=1e-6)
    actions = np.random.default_rng(0).uniform(-1.2, 1.2, (8, 3, 13)).astype(np.float32)
    for action in actions:
        observations, rewards, *_ = envs.step(action)
        observed, reward = ours.block(action)
        np.testing.assert_allclose(observed, observations, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(reward, rewards, rtol=1e-4)


def test_environments_are_told_beside_each_other():
    found = {"system": [4e6, 2e6, 3e6], "device": [1e6] * 3, "batched": [2e6, 1e6, 1e6], "one_by_one": [1e5] * 3}
    record = {"group": "environments", "about": EPISODES, "found": [found]}
    said = environments([record])
    assert "| `partway/System-v0`, vectorised | 3.00 (2.00 to 4.00) | 1.00 x |" in said
    assert "| NumPy, all episodes in one array | 1.00 (1.00 to 2.00) | 2.00 (2.00 to 3.00) x |" in said
    assert "128 episodes of `paper` with 20 devices" in said
    assert environments([]) == ""


def test_a_difference_is_relative_and_of_small_parts_to_the_cost():
    ours = np.array([8.0, 1e-9, 1.0, 1.0]).reshape(len(COST_COMPONENTS), 1, 1)
    theirs = ours + np.array([0.0, 0.5e-3, 0.0, 0.0]).reshape(len(COST_COMPONENTS), 1, 1)
    assert farthest(theirs, ours) == pytest.approx(0.5e-3 / 1.0)  # a tenth of the cost of 10
    assert farthest(1.1 * ours, ours) == pytest.approx(0.1)
    assert np.isnan(farthest(np.full_like(ours, np.nan), ours))


def test_a_disagreement_is_told(monkeypatch: pytest.MonkeyPatch):
    told = {"loop": 1e-12, "batched": 2e-9, "per_run": float("nan")}
    monkeypatch.setitem(quick.JOBS, "agreement", lambda *given, **how: told)
    lines = quick.disagreements("priced", "float64", quick.SIZE)
    assert [line.split("'")[1] for line in lines] == ["batched", "per_run"]
    assert lines[0] == "priced, K = 4, float64: 'batched' differs by 2e-09, allowed 1e-09"


# Counts and the limit, by hand


def test_the_counts_by_hand():
    """n = 5 slots, at most 5 tasks a block, M = 30 features, 33 cuts, 32 states."""
    own = counts(slots=5, max_tasks_per_block=5)
    assert own["parametric-printed"].multiply_adds == 2 * 30 * 8 + 10 * 30 + 2 * 30 + 40
    assert own["parametric-printed"].sigmoids == 60 + 3
    assert own["priced"].multiply_adds == 16 * 33 + 6 * 32 + 10 * 32 + 64 + 40
    assert own["priced"].flops() == 2 * own["priced"].multiply_adds + 12
    assert {scheme: count_of(scheme) for scheme in MEASURED} == own


def test_the_limit_adds_up_arithmetic_and_takes_memory_apart():
    peaks = Peaks(multiply_adds=1e9, sigmoids=1e8, words=1e7, bytes=1e6)
    arithmetic, memory = limit_s(Count(multiply_adds=100, sigmoids=10, words=2, numbers=5), peaks, 4)
    assert (arithmetic, memory) == pytest.approx((100e-9 + 100e-9 + 200e-9, 20e-6))


def test_the_peaks_of_an_accelerator_are_not_those_of_its_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limit, "STREAMED", 64)
    monkeypatch.setattr(limit, "MATRIX", {"accelerator": 8})
    for of_host in ("_matrix", "_numpy_sigmoid"):
        monkeypatch.setattr(limit, of_host, lambda *given: float("inf"))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert all(0 < rate < float("inf") for rate in limit.peaks("float32", 0.005).values())


# Numbers


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (1234567.0, "1,230,000"), (12.34, "12.3"), (0.01234, "0.0123"), (9.999, "10.00"), (3e-9, "3.00e-09")],
)
def test_three_digits(value: float, words: str):
    assert short(value) == words


def test_medians_ranges_and_ratios():
    assert measured([3.0, 1.0, 2.0]).words(10, "s") == "20.0 (10.0 to 30.0) s"
    assert measured([2.0]).words() == "2.00"
    assert ratio([10.0, 30.0, 20.0], [1.0, 2.0, 4.0]).median == 10.0  # of 10, 15, 5, not 20 / 2
    with pytest.raises(ValueError, match="nothing"):
        measured([])
    assert slope([1, 10, 100], [2, 20, 200]) == pytest.approx(1.0)


def test_implementations_are_measured_in_turn():
    order = list[str]()
    plays = {name: lambda name=name: float(order.append(name) or len(order)) for name in "abc"}
    assert alternately(plays, 2) == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}
    assert order == list("abcabc")


def test_what_takes_long_is_measured_fewer_times(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(jobs.time, "perf_counter", lambda: float(next(clock)))
    assert alternately({"a": lambda: 1.0}, 9) == {"a": [1.0] * 6}  # asked after 3, at 20, 40, 60 and 80 s
    assert alternately({"a": lambda: 1.0}, 2) == {"a": [1.0] * 2}


def test_a_measurement_is_long_enough():
    assert [least_blocks(lanes, "cpu") for lanes in (4, 12_800, 32_000, 128_000, 3_200_000)] == [500, 250, 125, 20, 20]
    assert [least_blocks(lanes, "gpu") for lanes in (10_000, 100_000, 1_000_000, 10_000_000)] == [5000, 1000, 125, 20]
    played = list[int]()

    def ours(lanes: int, rate: float) -> Any:
        return SimpleNamespace(lanes=lanes, play=lambda blocks: played.append(blocks) or rate)

    assert enough_blocks(ours(4, 2e4)) == 1000  # 500 blocks take 0.1 s, and 0.15 are wanted
    assert enough_blocks(ours(4, 2e3)) == 500
    assert played == [500] * 6
    assert enough_blocks(ours(1_000_000, 1.0)) == 20
    assert played == [500] * 6


# The plan


def test_the_plan_covers_everything_asked_for_and_says_what_is_left_out():
    rates = [step.about for step in steps(PLACES) if step.group == "rates"]
    asked = {
        (scheme, devices, precision, cores)
        for scheme in MEASURED
        for devices in FLEETS
        for precision in ALLOWED
        for cores in (1, 2)
    }
    assert {tuple(about.values()) for about in rates} == asked
    assert len(rates) == len(asked)
    left_out = {(k, s) for k in FLEETS for s in RUNS} - {(k, s) for k, runs in sizes("cpu") for s in runs}
    assert (
        left_out
        == {(k, s) for k in FLEETS for s in RUNS if k * s > MOST_LANES}
        == {*((100_000, 128), (1_000_000, 32), (1_000_000, 128))}
    )
    assert {step.group for step in steps(PLACES)} == set(command.GROUPS)
    assert {step.repeats for step in steps(PLACES) if step.group == "peaks"} == {PEAK_REPEATS} == {3}


def test_on_an_accelerator_fleets_and_runs_reach_ten_million():
    lanes = [devices * runs for devices, counts in sizes("gpu") for runs in counts]
    assert (min(lanes), max(lanes)) == (10_000, 10_000_000)


def test_an_accelerator_is_measured_as_a_whole_and_not_by_cores():
    planned = steps(replace(PLACES, device="gpu"))
    assert {step.about["cores"] for step in planned if "cores" in step.about} == {0}
    names = [step.words() for step in planned]
    assert len(names) == len(set(names))
    assert {step.group for step in planned} == set(command.GROUPS) - {"main"}


def test_a_job_has_as_many_threads_as_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--kept")
    one, two = (environment(Job("rates", cores=cores)) for cores in ((0,), (0, 1)))
    for name in ("NPROC", "OMP_NUM_THREADS", "JAX_NUM_CPU_DEVICES"):
        assert (one[name], two[name]) == ("1", "2")
    assert one["XLA_FLAGS"] == "--kept --xla_cpu_multi_thread_eigen=false"
    assert two["XLA_FLAGS"] == "--kept"
    assert one["JAX_PLATFORMS"] == "cpu"


def test_a_job_on_a_gpu_has_no_cpu_to_fall_back_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert environment(Job("rates", device="gpu"))["JAX_PLATFORMS"] == "cuda"
    platforms, cores = list[str](), list[str]()

    def started(given: list[str], **how: Any) -> SimpleNamespace:
        platforms.append(how["env"]["JAX_PLATFORMS"])
        cores.append(how["env"]["PARTWAY_BENCHMARK_CORES"])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("benchmarks.process.subprocess.run", started)
    start_up("parametric-printed", "gpu", (0, 1), runs=1)
    assert platforms == ["cuda", "cuda"]
    start_up("parametric-printed", on=(1,), runs=1)
    assert platforms[2:] == ["cpu", "cpu"]
    assert cores == ["[0, 1]"] * 2 + ["[1]"] * 2


def test_when_time_is_up_the_rest_is_left_out_and_says_so():
    done, kept = list[str](), list[Any]()
    given = [Step("memory", {"scheme": name}, lambda name=name: {"peak": [done.append(name)]}, 2) for name in MEASURED]
    assert [len(record["found"]) for record in command.measure(given, 1, "a machine", kept.append)] == [2, 2]
    assert len(kept) == 2
    late = command.measure(given, 0, "a machine", kept.append)
    assert done == ["parametric-printed", "parametric-printed", "priced", "priced"]
    assert failures(late) == [f"memory {name}: not measured: out of time" for name in MEASURED]


# The main job


def test_the_parts_add_up_and_programs_are_not_counted_with_what_needs_them(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(main_parts.time, "perf_counter", lambda: clock[0])

    def wait(seconds: float) -> float:
        clock[0] += seconds
        return seconds

    watch = main_parts.Stopwatch()
    wait(1)
    with watch.part("play"):
        wait(2)
        with watch.part("compile"):
            wait(4)
        assert watch.timed("measure", wait)(8) == 8
    with watch.part("tune"):
        wait(16)
        with watch.part("play"):
            wait(32)
            with watch.part("compile"):
                wait(64)
    spent = {part: seconds for part, seconds in watch.stop().items() if seconds}
    assert spent == {"other": 1, "play": 2, "compile": 4 + 64, "measure": 8, "tune": 16 + 32}


def test_a_function_that_fails_is_timed_too():
    watch = main_parts.Stopwatch()
    with pytest.raises(ZeroDivisionError):
        watch.timed("play", lambda: 1 / 0)()
    before = watch.stop()
    assert watch.stop()["play"] == before["play"] > 0


def test_the_trees_alternate_each_with_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch):
    calls = list[tuple[str, list[str], str]]()

    def started(given: list[str], cwd: Path, **how: Any) -> SimpleNamespace:
        if "compileall" not in given:
            calls.append((str(cwd), given[3:], how["env"]["XDG_CACHE_HOME"]))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("benchmarks.process.subprocess.run", started)
    found = main_job.command_times(("run", "--blocks", "5"), {"now": Path("new"), "before": Path("old")})
    assert {name: list(times) for name, times in found.items()} == {
        "now": ["cold", "warm"],
        "before": ["cold", "warm"],
    }
    assert [cwd for cwd, _, _ in calls] == ["new", "new", "old", "old"]
    caches, outs = [cache for _, _, cache in calls], [arguments[-1] for _, arguments, _ in calls]
    assert caches[0] == caches[1] != caches[2] == caches[3]
    assert [arguments[:-1] for _, arguments, _ in calls] == [["run", "--blocks", "5", "--out"]] * 4
    assert len(set(outs)) == 4
    main_job.command_times(("schemes",), {"now": Path("new")})
    assert [arguments for _, arguments, _ in calls[4:]] == [["schemes"]] * 2


def test_a_command_that_fails_says_why(monkeypatch: pytest.MonkeyPatch):
    failed = SimpleNamespace(returncode=2, stderr="some words\npartway: no such flag\n")
    monkeypatch.setattr("benchmarks.process.subprocess.run", lambda *given, **how: failed)
    found = main_job.command_times(("schemes",), {"before": Path("old")})
    assert found == {"failed": "before: partway: no such flag"}


def main_records(compare: float = 4.0) -> list[dict[str, Any]]:
    """The main job: `compare` seconds warm, 5 times as long before; its parts; ns a device-block."""

    def record(about: dict[str, Any], *found: dict[str, Any]) -> dict[str, Any]:
        return {"group": "main", "about": about, "machine": "a machine", "date": "2026-11-26", "found": list(found)}

    times = [{"now": {"warm": compare * i, "cold": 60.0}, "before": {"warm": 20.0 * i, "cold": 100.0}} for i in (1, 2)]
    parts = {
        cache: {part: float(i + more) for i, part in enumerate(main_parts.PARTS)}
        for cache, more in (("cold", 0), ("warm", 1))
    }
    ns = {"step, priced": [400.0], "metrics": [40.0], "metrics and certificate": [310.0, 290.0, 280.0]}
    return [
        record({"command": "compare"}, *times),
        record({"command": "--help"}, {"now": {"warm": 0.25, "cold": 0.5}}),
        record({"parts of": "compare"}, parts),
        record({"device-block of": "paper", **main_job.DEVICE_BLOCK}, ns),
    ]


def test_the_main_job_is_the_first_table_with_its_verdicts():
    page = text([*records(), *main_records()])
    assert page.index("## The main job") < page.index("## Goals")
    assert "warm | 30.0 (20.0 to 40.0) | 6.00 (4.00 to 8.00) | 20.0 met | <= 40 % |" in page
    assert "| the same, cold | 100 | 60.0 | 60.0 **missed** | <= 55 % |" in page
    assert "| `partway --help` | - | 0.250 | - | <= 25 % |" in page
    assert "| `partway schemes` | - | - | - | <= 40 % |" in page
    assert "| metrics and certificate | 290 (280 to 310) met | <= 300 ns |" in page
    assert "| step, priced | 400 | - |" in page
    assert "| all | 78.0 | 66.0 |" in page  # 0 + 1 + ... + 11 cold, each one more warm


def test_the_main_job_is_compared_repetition_by_repetition():
    assert "| 45.0 **missed** | <= 40 % |" in text(main_records(9.0))


def test_an_older_checkout_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["--before", str(tmp_path)]) == 1
    assert "no checkout of Partway" in capsys.readouterr().err


def test_where_an_older_checkout_lies_is_not_recorded(tmp_path: Path):
    planned = [step for step in steps(replace(PLACES, before=tmp_path)) if step.group == "main"]
    assert {step.about.get("command") for step in planned} >= set(main_job.COMMANDS)
    assert str(tmp_path) not in str([step.about for step in planned])


# The machine


def test_the_machine_is_named_with_its_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name : Fast(R) 9\nprocessor : 1\nmodel name : Fast(R) 9\n")
    monkeypatch.setattr(machine, "CPU_INFO", info)
    monkeypatch.setattr(machine, "cores", lambda: (0, 1, 2))
    assert machine.words().startswith("3 cores of an Fast(R) 9, Python 3.")
    info.write_text("model name : Fast(R) 9\nflags : fpu avx avx2 avx512f\n")
    assert machine.words().startswith("3 cores of an Fast(R) 9 with AVX-512, Python 3.")
    info.write_text("model name : Fast(R) 9\nflags : fpu avx avx2\n")
    assert machine.words().startswith("3 cores of an Fast(R) 9 with AVX2, Python 3.")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform="gpu", device_kind="H100")])
    assert machine.words().startswith("1 H100, 3 cores of an Fast(R) 9 with AVX2, Python 3.")


def test_peak_memory_is_the_accelerators_where_it_tells(monkeypatch: pytest.MonkeyPatch):
    played = list[Any]()
    monkeypatch.setattr(jobs, "rollout", lambda *given: played.append(given))
    found = memory_job("priced", 4, 2)
    assert (found["of"], len(played)) == ("process", 1)
    assert found["peak"][0] > 50e6  # of a process that has imported JAX
    stats: dict[str, int] | None = {"peak_bytes_in_use": 5, "bytes_in_use": 3}
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(memory_stats=lambda: stats)])
    assert machine.peak_bytes() == ("accelerator", 5)
    stats = None
    assert machine.peak_bytes()[0] == "process"


# What is kept

Command = Callable[..., int]


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The command with two groups that have a peak of as many bytes as is said, under tmp_path."""

    def of(*arguments: str, peak: float, on: str) -> int:
        given = [
            Step(group, {"scheme": "parametric-printed"}, lambda: {"peak": [peak], "of": "process"})
            for group in ("memory", "xla")
        ]
        monkeypatch.setattr(command, "steps", lambda places: given)
        monkeypatch.setattr(command.page.drawing, "write", lambda records, path: None)
        monkeypatch.setattr(command, "do", lambda job: {"machine": on})
        return command.main(arguments)

    monkeypatch.setattr(command, "DOCS", tmp_path)
    monkeypatch.setattr(command, "CACHE", tmp_path / "cache")
    monkeypatch.setattr("benchmarks.page.tables.limit", lambda records: "")  # no peak is a count of XLA's
    return of


def test_one_group_is_measured_anew_and_the_others_are_kept_with_their_machine(measure: Command, tmp_path: Path):
    kept = tmp_path / "data" / "benchmarks-cpu.json"
    assert measure(peak=1e9, on="an old machine") == 0
    assert measure("--only", "memory", peak=2e9, on="a new machine") == 0
    known = {
        one["group"]: (one["found"][0]["peak"], one["machine"], one["date"]) for one in json.loads(kept.read_text())
    }
    today, code = date.today().isoformat(), package_hash()
    assert known == {"xla": ([1e9], "an old machine", today), "memory": ([2e9], "a new machine", today)}
    said = (tmp_path / "benchmarks.md").read_text()
    assert f"- memory: {today}, a new machine, code {code}\n- xla: {today}, an old machine, code {code}" in said
    assert "| 2.00 GB **missed** |" in said
    before = kept.read_text()
    (tmp_path / "benchmarks.md").unlink()
    assert command.main(["--page"]) == 0
    assert (tmp_path / "benchmarks.md").read_text() == said
    assert kept.read_text() == before


def test_what_is_missing_is_measured_and_what_is_there_is_not(measure: Command, tmp_path: Path):
    kept = tmp_path / "data" / "benchmarks-cpu.json"
    assert measure(peak=1e9, on="a machine") == 0
    known = json.loads(kept.read_text())
    known[0]["found"] = [{"failed": "not measured: out of time"}]
    kept.write_text(json.dumps(known))
    assert measure("--missing", peak=2e9, on="a machine") == 0
    now = {one["group"]: one["found"][0]["peak"] for one in json.loads(kept.read_text())}
    assert now == {"memory": [2e9], "xla": [1e9]}


def test_what_was_measured_before_ctrl_c_is_kept(
    measure: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(label: str) -> str:
        if label == "xla parametric-printed":
            raise KeyboardInterrupt
        return label

    monkeypatch.setattr(Step, "words", lambda step: interrupted(f"{step.group} {step.about['scheme']}"))
    assert measure(peak=1e9, on="a machine") == 1
    assert "--missing continues" in capsys.readouterr().err
    known = json.loads((tmp_path / "data" / "benchmarks-cpu.json").read_text())
    assert [one["group"] for one in known] == ["memory"]


def test_a_group_alone_is_no_page(measure: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert measure("--only", "memory", peak=2e9, on="a machine") == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    out, errors = capsys.readouterr()
    assert "| 2.00 GB **missed** |" in out
    assert "benchmarks-cpu.json is not there, so the other groups are unknown: nothing was kept, no page" in errors


def test_of_nothing_there_is_no_page(measure: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["--page"]) == 1
    assert "is not there: measure first" in capsys.readouterr().err
    assert not (tmp_path / "benchmarks.md").exists()


def test_what_a_gpu_has_found_is_kept_and_printed(measure: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert measure("--device", "gpu", peak=2e9, on="1 H100") == 0
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["benchmarks-gpu.json"]
    assert "on 1 H100; code (" in capsys.readouterr().out


def test_where_there_is_no_gpu_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(command, "do", lambda job: {"failed": f"{job.device}: none"})
    monkeypatch.setattr(command, "measure", lambda *given: pytest.fail("measured"))
    assert command.main(["--device", "gpu"]) == 1
    assert (
        capsys.readouterr().err
        == 'Nothing was measured: gpu: none. JAX needs a GPU and CUDA: pip install "jax[cuda12]"\n'
    )
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert 'pip install "jax[cuda12]"' in capsys.readouterr().out


# The page


def records(cores: int = 2, on: str = "a machine", scale: float = 1.0) -> list[dict[str, Any]]:
    """What a machine might have found on which every number is easily followed; rates times `scale`."""
    made = list[dict[str, Any]]()

    def add(group: str, about: dict[str, Any], *found: dict[str, Any]) -> None:
        made.append({"group": group, "about": about, "machine": on, "date": "2026-11-26", "found": list(found)})

    rivals = {"per_run": [1e5] * 3, "loop": [1e4] * 3}
    for scheme in MEASURED:
        add("agreement", {"scheme": scheme, "precision": "float64", **quick.SIZE}, dict.fromkeys(RIVALS, 1e-15))
        for devices, ours in ((4, 1e6 * scale), (1_000_000, 8e6 * scale)):
            values = {"ours": [ours, 1.1 * ours, 1.2 * ours], "batched": [5e5] * 3, **rivals}
            about = {"scheme": scheme, "devices": devices, "precision": "float32", "cores": cores}
            add("rates", about, {"1": {**values, "waiting": 2.0, "backlog": 0.5, "blocks": 16}, "process_s": 1.0})
        alone = {"rivals": {"per_run": [1e5], "loop": [1e4]}}
        add("many", {"scheme": scheme, **MANY}, *({**alone, "process_s": took} for took in (99.0, 4.0, 5.0, 6.0)))
        add("start", {"scheme": scheme}, {"cold_s": [5.0, 6.0, 7.0], "warm_s": [1.0, 2.0, 3.0]})
        add("memory", {"scheme": scheme}, *({"peak": [size], "of": "process"} for size in (7e8, 8e8, 9e8)))
        add("blocks", {"scheme": scheme}, {"100": [1.5], "600": [6.5], "1000": [10.5], "process_s": 22.0})
        add("compile", {"scheme": scheme, "devices": 20}, {"compile_s": [2.5]}, {"failed": "was killed"})
        add("xla", {"scheme": scheme}, {"flops": 4000.0, "bytes accessed": 900.0})
    best = {"multiply_adds": 1e11, "sigmoids": 1e9, "words": 1e9, "bytes": 5e9}
    repeated = [{kind: [rate / (1 + (i != at))] for i, (kind, rate) in enumerate(best.items())} for at in range(4)]
    add("peaks", {"precision": "float32", "cores": cores}, *repeated, {"failed": "was killed"})
    return made


def slower() -> list[dict[str, Any]]:
    """The rates of two cores, half as fast."""
    return [one for one in records(2, scale=0.5) if one["group"] == "rates"]


def rows_of(page: str) -> dict[str, str]:
    """The table of goals by the names of its goals."""
    return {line.split("|")[1].strip(): line for line in page.split("## Device-blocks")[0].splitlines() if "|" in line}


def test_every_goal_has_its_number_its_verdict_and_its_command():
    rows = rows_of(text(records()))
    lines = [rows[goal.name] for goal in GOALS]
    assert all(f"`{goal.command}`" in line for goal, line in zip(GOALS, lines, strict=True))
    assert "| >= 10 x | 17.6 (16.0 to 19.2) x met | >= 10 x | 17.6 (16.0 to 19.2) x met |" in lines[0]
    assert "x **missed**; 17.6 (16.0 to 19.2) x on 1 core |" in rows_of(text([*slower(), *records(1)]))[GOALS[0].name]
    ratios = "25.6 (21.3 to 32.0) x NumPy per run{}; 256 (213 to 320) x plain loop{}"
    wanted = "<= 4 s, >= 20 x NumPy per run, >= 100 x plain loop"
    assert f"| {wanted} | 5.00 (4.00 to 6.00) s **missed**; {ratios.format(' met', ' met')} |" in lines[1]
    assert f"| <= 6 s | 5.00 (4.00 to 6.00) s met; {ratios.format('', '')} |" in lines[1]
    assert "| <= 1 GB | 0.800 (0.700 to 0.900) GB met | <= 1.5 GB |" in lines[3]
    assert "| 2.00 (1.00 to 3.00) s warm met; 6.00 (5.00 to 7.00) s cold met |" in lines[4]
    assert "| >= 1e9 a second | not measured: needs an accelerator | measured |" in lines[5]


def test_the_verdict_is_that_of_the_median():
    slow = records()
    (start,) = [one for one in slow if one["group"] == "start" and one["about"]["scheme"] == "priced"]
    start["found"] = [{"warm_s": [1.0, 2.1, 2.2], "cold_s": [5.0, 5.9, 9.0]}]
    line = rows_of(text(slow))[GOALS[4].name]
    assert line.count("2.10 (1.00 to 2.20) s warm **missed**; 5.90 (5.00 to 9.00) s cold met |") == 1
    assert [Wanted("<=", 2.0, "s").met(value) for value in (1.9, 2.0, 2.1)] == [True, True, False]
    assert [Wanted(">=", 2.0, "x").met(value) for value in (1.9, 2.0, 2.1)] == [False, True, True]


def test_memory_is_measured_in_place(monkeypatch: pytest.MonkeyPatch):
    """A stream into new memory measures how fast the system gives it away, a tenth of what moves."""
    given = list[jax.Array]()
    ready = jax.block_until_ready
    monkeypatch.setattr(limit, "STREAMED", 1000)
    monkeypatch.setattr(limit.jax, "block_until_ready", lambda made: given.append(made) or ready(made))
    assert limit._stream(np.float32, 0.001) > 0
    assert len(given) > 2
    assert all(made.is_deleted() for made in given[:-1])


def test_what_the_limit_allows_of_a_goal_is_told():
    """NumPy's 5e5 a second against 73.8 ns of the first, and 1140 multiply-adds, 3 sigmoids, 2 words of `priced`."""
    page = text(records())
    first = "27.1 x for `parametric-printed` (73.8 ns a device-block)"
    assert f"1e6 by more than {first} and 121.7 x for `priced` (16.4 ns" in page
    assert "no program of such" not in text([one for one in records() if one["group"] != "peaks"])


def test_the_goals_are_counted_in_parts():
    said = "Of the numbers that are asked for (14, every part of a goal counted), {} by the medians; {} not measured."
    assert summary(records()) == said.format("12 are met and 1 is missed", "1 is")
    assert summary(records(), "cpu", records(0)) == said.format("12 are met and 2 are missed", "0 are")
    assert summary([]) == said.format("0 are met and 0 are missed", "14 are")
    assert text(records()).index(summary(records())) < text(records()).index("| goal |")


def test_what_an_accelerator_has_found_stands_beside_its_goal():
    where = "a second at K = 1,000,000, 1 run, on 1 H100, 2026-11-26"
    slow = table(records(), "cpu", records(0, "1 H100"))
    assert f"8,800,000 (8,000,000 to 9,600,000) {where} **missed** | measured" in slow
    fast = text(records(), "cpu", records(0, "1 H100", scale=200.0))
    assert f"1.76e+09 (1.60e+09 to 1.92e+09) {where} met |" in fast
    assert "to be measured by" not in fast
    assert "to be measured by" in text(records())


def test_the_page_of_an_accelerator_says_nothing_of_two_cores():
    found = records(0, "1 H100")
    page = text(found, "gpu", found)
    for untrue in (
        "3,200,000",
        "to be measured by",
        "needs an accelerator",
        "all cores.",
        "core, side",
        "cores: 2",
        "426 ns",
        ".png",
    ):
        assert untrue in text(records())
        assert untrue not in page
    assert "| float32 | accelerator | 100 |" in page
    rows = rows_of(page)
    verdicts = [goal.name for goal in GOALS if "met |" in rows[goal.name] or "**missed** |" in rows[goal.name]]
    assert verdicts == [GOALS[5].name]
    assert [rows[GOALS[at].name].split("`")[-2] for at in (0, 5)] == ["--device gpu --only rates", "--device gpu"]
    assert "(1, every part of a goal counted), 0 are met and 1 is missed" in page


def test_the_share_of_the_limit_by_hand():
    """880 multiply-adds at 1e11, 63 sigmoids and 2 words at 1e9: 73.8 ns; 140 numbers of 4 bytes at 5e9: 112 ns.

    Of each kind the greatest peak counts: each is halved in three of four repetitions. 8.8e6 a second are measured.
    """
    every = all_rates(records())
    (rate,) = [rate for rate in every if (rate.scheme, rate.devices) == ("parametric-printed", 1_000_000)]
    both = share(records(), rate)
    assert both is not None
    assert both[0].median == pytest.approx(8.8e6 * 112e-9)
    assert both[1].median == pytest.approx(8.8e6 * (8.8e-9 + 63e-9 + 2e-9))
    page = text(records())
    cell = (
        "64.9 (59.0 to 70.8) % of the arithmetic, at K = 1,000,000, 1 run met; "
        "98.6 (89.6 to 108) % of the slower of arithmetic and memory |"
    )
    assert f"| >= 25 % | {cell}" in page
    assert "| 98.6 | 64.9 |" in page  # in the table of rates


def test_rates_have_no_share_of_another_machines_limit():
    mixed = [one for one in records() if one["group"] == "peaks"]
    mixed += [one for one in records(on="another") if one["group"] == "rates"]
    assert [share(mixed, rate) for rate in all_rates(mixed)] == [None] * 4
    assert "| 100 | 1.00 | 1.00 | 5.00 |" in text(mixed)


def test_the_page_says_where_when_and_with_which_code_each_number_was_measured():
    """Records that were made before the code was noted say so."""
    alone = "Every number was measured on 2026-11-26, on a machine; code (`partway.provenance.package_hash`): "
    assert f"{alone}not recorded." in text(records())
    moved = [one | {"date": "2026-12-01"} if one["group"] in ("memory", "start") else one for one in records()]
    page = text(moved)
    assert "- start, memory: 2026-12-01, a machine, code not recorded\n" in page
    assert "- agreement, rates, many, blocks, compile, xla, peaks: 2026-11-26, a machine, code not recorded\n" in page
    again = text([one | {"code": "abc"} if one["group"] == "memory" else one for one in records()])
    assert "- memory: 2026-11-26, a machine, code abc\n" in again


def test_what_is_not_measured_is_said_to_be_written_by_hand():
    intro, rest = text(records()).split("## Goals")
    (title,) = [line.removeprefix("## ") for line in rest.splitlines() if line.startswith("## Where the time goes")]
    assert f'The section "{title}" is written by hand' in intro


def test_a_line_of_the_figure_is_one_number_of_runs():
    def rate(devices: int, runs: int, kinds: str) -> Rate:
        by = {kind: [float(devices + runs)] for kind in kinds.split()}
        return Rate("parametric-printed", devices, runs, "float32", 2, by, {}, "a machine", "2026-11-26")

    every = [rate(k, s, "ours batched per_run") for k in (1000, 4) for s in (32, 1)]
    drawn = {(line.kind, line.runs): line for line in lines([*every, rate(20, 10, "ours loop")])}
    at_once = {(kind, runs) for kind in ("ours", "batched") for runs in (1, 32)}
    assert set(drawn) == {*at_once, ("ours", 10), ("per_run", 1), ("loop", 1)}
    assert drawn["ours", 32].lanes == [128, 32_000]
    assert [one.median for one in drawn["ours", 32].rates] == [36.0, 1032.0]
    assert drawn["per_run", 1].lanes == [4, 1000]  # one run is measured, so it stands where one run is
    assert [one.median for one in drawn["per_run", 1].rates] == [5.0, 1001.0]
    assert drawn["loop", 1].lanes == [20]
    assert lines([]) == []


def test_growth_is_told():
    page = text(records())
    assert "`parametric-printed`: the time of a block grows" not in page  # of one fleet from 1000 on
    assert "that is a line, 500.0 ms for a run and 10000 us a block, within 0%." in page


def test_the_page_is_written_with_its_figure_and_without_what_was_not_measured(tmp_path: Path):
    said = write(records(), tmp_path)
    assert (tmp_path / "img" / "benchmarks-rates.png").read_bytes()[1:4] == b"PNG"
    assert str(tmp_path / "benchmarks.md") in said
    assert text([]).count("| - |") >= len(GOALS) - 1
    assert "Nothing has been measured." in text([])


def test_a_page_can_be_made_where_everything_failed(tmp_path: Path):
    broken = [{**record, "found": [{"failed": "out of memory"}]} for record in records()]
    write(broken, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.count(": out of memory") == len(broken)
    assert found(broken, "memory", scheme="parametric-printed") == []
