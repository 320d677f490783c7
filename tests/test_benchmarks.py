"""The benchmark: its rivals compute what Partway does, its counts and ratios are right, its page says what it found.

No time is asserted.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import quick
from benchmarks.agree import ALLOWED, PARTS, differences, farthest
from benchmarks.fleet import OwnDraws, fleet_of, own_features, recorded
from benchmarks.found import all_rates, failures, found, measured, ratio, short, slope
from benchmarks.goals import GOALS, count_of, share
from benchmarks.jobs import alternately, ours_blocks
from benchmarks.limit import Count, Peaks, counts, limit_s
from benchmarks.page import text, write
from benchmarks.plan import FLEETS, MANY, MOST_LANES, RUNS, Places, Step, sizes, steps
from benchmarks.process import Job, environment
from benchmarks.rivals import RIVALS, rival_of
from benchmarks.rivals_printed import TILE, tiles
from benchmarks.worlds import DEAR, MEASURED, overrides, pair_of, scenario_of, world_of
from partway.scenario import load
from partway.world import build, load_of, place

PLACES = Places("cache", cores=(0, 1))


# The worlds


def test_every_fleet_has_the_same_load_and_its_server_costs_as_much_a_device():
    loads = {devices: load_of(scenario_of(devices), world_of(devices)) for devices in (4, 50, 1000)}
    assert {round(load.server, 9) for load in loads.values()} == {0.4}  # 2 tasks arrive at a device, the server does 5
    assert loads[1000].together < 0.5
    servers = [world_of(devices).server for devices in (4, 50, 1000)]
    cost = [s.energy_weight * s.energy_coef * k**3 / k for s, k in zip(servers, (4, 50, 1000), strict=True)]
    assert cost == pytest.approx([cost[0]] * 3, rel=1e-12)


def test_the_overrides_are_what_the_command_line_takes():
    assert load("paper", overrides(50)) == scenario_of(50)


# The rivals compute the same


@pytest.mark.parametrize("scheme", MEASURED)
@pytest.mark.parametrize("precision", list(ALLOWED))
def test_all_implementations_agree(scheme: str, precision: str):
    kinds = list(RIVALS) if precision == "float64" else ["batched"]
    found = differences(scheme, 5, 2, 30, precision, kinds)
    assert list(found) == kinds
    assert max(found.values()) <= ALLOWED[precision]


@pytest.mark.parametrize(("scheme", "changed"), [("printed", {"step": 0.011}), ("priced", {"decay": 0.7})])
@pytest.mark.parametrize("party", ["device", "server"])
@pytest.mark.parametrize("kind", ["loop", "batched"])
def test_what_a_rival_learns_is_seen_in_its_costs(scheme: str, changed: dict[str, float], party: str, kind: str):
    """So that agreement can fail: another step size is far outside what is allowed."""
    world, pair = world_of(5, DEAR), pair_of(scheme)
    fleet, chance = fleet_of(world, "float64"), recorded(world, [0], 30, "float64")
    features = own_features(fleet, 1) if scheme == "printed" else None
    other = replace(pair, **{party: replace(getattr(pair, party), **changed)})
    right, wrong = (rival_of(kind, one, fleet, chance, features, 1).play(30) for one in (pair, other))
    assert farthest(wrong, right) > 1e3 * ALLOWED["float64"]


@pytest.mark.parametrize("scheme", MEASURED)
def test_a_run_does_not_depend_on_what_is_batched_with_it_or_on_tiles(scheme: str, monkeypatch: pytest.MonkeyPatch):
    fleet = fleet_of(world_of(7), "float64")
    both = recorded(world_of(7), [0, 1], 20, "float64")
    features = own_features(fleet, 2) if scheme == "printed" else None
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
    for overriding in ({"broadcast_lag": 0}, {"device.tx_power_max_w": 0.2}):
        scenario = load("paper", {"devices": 4, **overriding})
        with pytest.raises(ValueError, match="`paper` only"):
            fleet_of(build(scenario, place(scenario)), "float32")
    mixed = load({"devices": 2, "group": [{"count": 1}, {"count": 1, "capacitance": 2e-28, "arrival_prob": 0.1}]})
    with pytest.raises(ValueError, match="one class"):
        fleet_of(build(mixed, place(mixed)), "float32")


def test_the_rivals_own_draws_have_the_worlds_law():
    fleet = fleet_of(world_of(1000), "float32")
    chance = OwnDraws(fleet, 4)
    arrivals, gains = (np.stack(drawn) for drawn in zip(*(chance.block(t) for t in range(10)), strict=True))
    fading = gains / fleet.mean_gain
    assert arrivals.mean() == pytest.approx(0.4, abs=4 * (0.24 / arrivals.size) ** 0.5)
    assert [fading.mean(), (fading > 1).mean()] == pytest.approx([1.0, np.exp(-1)], abs=4 / fading.size**0.5)


def test_a_difference_is_relative_and_of_small_parts_to_the_cost():
    ours = np.array([8.0, 1e-9, 1.0, 1.0]).reshape(len(PARTS), 1, 1)
    theirs = ours + np.array([0.0, 0.5e-3, 0.0, 0.0]).reshape(len(PARTS), 1, 1)
    assert farthest(theirs, ours) == pytest.approx(0.5e-3 / 1.0)  # a tenth of the cost of 10
    assert farthest(1.1 * ours, ours) == pytest.approx(0.1)
    assert np.isnan(farthest(np.full_like(ours, np.nan), ours))


def test_a_disagreement_is_told(monkeypatch: pytest.MonkeyPatch):
    told = {"loop": 1e-12, "batched": 2e-9, "per_run": float("nan")}
    monkeypatch.setitem(quick.JOBS, "agreement", lambda *given, **how: told)
    lines = quick.disagreements("priced", "float64")
    assert [line.split("'")[1] for line in lines] == ["batched", "per_run"]
    assert lines[0] == "priced, float64: 'batched' differs by 2e-09, allowed is 1e-09"


# Counts and the limit, by hand


def test_the_counts_by_hand():
    """n = 5 slots, at most 5 tasks a block, M = 30 features, 33 cuts, 32 states."""
    own = counts(slots=5, most=5)
    assert own["printed"].multiply_adds == 2 * 30 * 8 + 10 * 30 + 2 * 30 + 40
    assert own["printed"].sigmoids == 60 + 3
    assert own["priced"].multiply_adds == 16 * 33 + 6 * 32 + 10 * 32 + 64 + 40
    assert own["priced"].flops() == 2 * own["priced"].multiply_adds + 12
    assert {scheme: count_of(scheme) for scheme in MEASURED} == own


def test_the_limit_adds_up_arithmetic_and_takes_memory_apart():
    peaks = Peaks(multiply_adds=1e9, sigmoids=1e8, words=1e7, bytes=1e6)
    arithmetic, memory = limit_s(Count(multiply_adds=100, sigmoids=10, words=2, numbers=5), peaks, 4)
    assert (arithmetic, memory) == pytest.approx((100e-9 + 100e-9 + 200e-9, 20e-6))


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


def test_a_measurement_is_some_calls_long_and_no_longer():
    assert [ours_blocks(lanes) for lanes in (4, 2560, 10_000, 1_000_000)] == [500, 250, 100, 16]


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
        == {*((100_000, 32), (100_000, 128), (1_000_000, 32), (1_000_000, 128))}
    )
    assert {step.group for step in steps(PLACES)} == set(command.GROUPS)


def test_on_an_accelerator_fleets_and_runs_reach_ten_million():
    lanes = [devices * runs for devices, counts in sizes("gpu") for runs in counts]
    assert (min(lanes), max(lanes)) == (10_000, 10_000_000)


def test_a_job_has_as_many_threads_as_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--kept")
    one, two = (environment(Job("rates", cores=cores)) for cores in ((0,), (0, 1)))
    assert (one["OMP_NUM_THREADS"], two["OMP_NUM_THREADS"]) == ("1", "2")
    assert one["XLA_FLAGS"] == "--kept --xla_cpu_multi_thread_eigen=false"
    assert two["XLA_FLAGS"] == "--kept"
    assert one["JAX_PLATFORMS"] == "cpu"


def test_when_time_is_up_the_rest_is_left_out_and_says_so():
    done = list[str]()
    given = [Step("memory", {"scheme": name}, lambda name=name: {"peak": [done.append(name)]}, 2) for name in MEASURED]
    assert [len(record["found"]) for record in command.measure(given, 1)] == [2, 2]
    late = command.measure(given, 0)
    assert done == ["printed", "printed", "priced", "priced"]
    assert failures(late) == [f"memory {name}: not measured: out of time" for name in MEASURED]


# The page


def records() -> list[dict[str, Any]]:
    """What a machine might have found on which every number is easily followed."""
    made = list[dict[str, Any]]()

    def add(group: str, about: dict[str, Any], *found: dict[str, Any]) -> None:
        made.append({"group": group, "about": about, "found": list(found)})

    rivals = {"per_run": [1e5] * 3, "loop": [1e4] * 3}
    for scheme in MEASURED:
        add("agreement", {"scheme": scheme, "precision": "float64"}, dict.fromkeys(RIVALS, 1e-15))
        for devices, ours in ((4, 1e6), (1_000_000, 8e6)):
            values = {"ours": [ours, 1.1 * ours, 1.2 * ours], "batched": [5e5] * 3, **rivals}
            about = {"scheme": scheme, "devices": devices, "precision": "float32", "cores": 2}
            add("rates", about, {"1": {**values, "waiting": 2.0, "backlog": 0.5, "blocks": 16}, "process_s": 1.0})
        alone = {"rivals": {"per_run": [1e5], "loop": [1e4]}}
        add("many", {"scheme": scheme, **MANY}, *({**alone, "process_s": took} for took in (99.0, 4.0, 5.0, 6.0)))
        add("start", {"scheme": scheme}, {"cold_s": [5.0, 6.0, 7.0], "warm_s": [1.0, 2.0, 3.0]})
        add("memory", {"scheme": scheme}, *({"peak": [size]} for size in (7e8, 8e8, 9e8)))
        add("blocks", {"scheme": scheme}, {"100": [1.0], "1000": [10.0], "process_s": 12.0})
        add("compile", {"scheme": scheme, "devices": 20}, {"compile_s": [2.5]}, {"failed": "was killed"})
        add("xla", {"scheme": scheme}, {"flops": 4000.0, "bytes accessed": 900.0})
    peaks = {"multiply_adds": [1e11], "sigmoids": [1e9], "words": [1e9], "bytes": [1e10]}
    add("peaks", {"precision": "float32", "cores": 2}, peaks)
    return made


def test_every_goal_has_its_number_and_its_command():
    page = text(records())
    lines = {line.split("|")[1].strip(): line for line in page.split("## Device-blocks")[0].splitlines() if "|" in line}
    assert all(name in lines and f"`{asked}`" in lines[name] for name, _, _, asked in GOALS)
    assert "| 17.6 (16.0 to 19.2) x |" in lines[GOALS[0][0]]
    assert "5.00 (4.00 to 6.00) s; 25.6 (21.3 to 32.0) x per run, 256 (213 to 320) x loop" in lines[GOALS[1][0]]
    assert "0.800 (0.700 to 0.900) GB" in lines[GOALS[3][0]]
    assert "2.00 (1.00 to 3.00) s warm, 6.00 (5.00 to 7.00) s cold" in lines[GOALS[4][0]]


def test_the_share_of_the_limit_by_hand():
    """880 multiply-adds at 1e11, 63 sigmoids and 2 words at 1e9: 73.8 ns; 8.8e6 a second are 65 % of that."""
    (rate,) = [rate for rate in all_rates(records()) if (rate.scheme, rate.devices) == ("printed", 1_000_000)]
    both = share(records(), rate)
    assert both is not None
    assert both[0].median == pytest.approx(8.8e6 * (8.8e-9 + 63e-9 + 2e-9))
    assert both[1].median == pytest.approx(both[0].median)  # 140 numbers of 4 bytes at 1e10 take 56 ns
    assert "64.9 (59.0 to 70.8) %, at K = 1,000,000, 1 run |" in text(records())


def test_growth_is_told():
    page = text(records())
    assert "`printed`: the time of a block grows" not in page  # of one fleet from 1000 on
    assert "they grow as blocks^1.00" in page


def test_the_page_is_written_with_its_figure_and_without_what_was_not_measured(tmp_path: Path):
    said = write(records(), tmp_path)
    assert (tmp_path / "img" / "benchmarks-rates.png").read_bytes()[1:4] == b"PNG"
    assert str(tmp_path / "benchmarks.md") in said
    assert text([]).count("| - |") >= len(GOALS)


def test_a_page_can_be_made_where_everything_failed(tmp_path: Path):
    broken = [{**record, "found": [{"failed": "out of memory"}]} for record in records()]
    write(broken, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.count(": out of memory") == len(broken)
    assert found(broken, "memory", scheme="printed") == []
