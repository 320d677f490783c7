"""The first answer of `partway cut`: one task in continuous time, by hand, by laws and against a search."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import partway
from partway.dnn.profile import Cut, Profile, Tensor, read_profile, shipped_profiles, write_profile
from partway.errors import InputError
from partway.planner import one_task, one_task_report
from partway.planner.answer import CutRow, OneTask, cut
from partway.planner.one_task import Link, Processor, Question, at_rate, costs, crossovers, recommend
from partway.planner.statement import MAX_EFFICIENCY, efficiency, placed, with_rate
from partway.scenario.loading import load
from partway.units import FREQUENCY, RATE, parsed

ROOT = Path(__file__).parents[1]


def profile_of(*cuts: tuple[int, int], input_bits: float = 1e6, seconds: list[float] | None = None) -> Profile:
    """A profile with an input, and cuts after so many MACs that send so many bytes."""
    rows = [(0, round(input_bits / 8)), *cuts]
    times = seconds or [None] * len(rows)
    made = [
        Cut((Tensor(f"t{i}", elements, "uint8"),), macs, time)
        for i, ((macs, elements), time) in enumerate(zip(rows, times, strict=True))
    ]
    return Profile("net", "by hand", (1,), input_bits, tuple(made))


SMALL = profile_of((20_000_000, 25_000), (60_000_000, 50_000), (100_000_000, 10))
"""100 M MACs: 1 Mbit of input; 0.2 Mbit after a fifth, 0.4 Mbit after three fifths."""
PARTIES: dict[str, Any] = {"device_rate": "1GMAC/s", "server_rate": "10GMAC/s"}


def times(row: CutRow) -> tuple[float, ...]:
    return row.device_s, row.link_s, row.rtt_s, row.server_s


# By hand


def test_text_recognition_at_20_mbit():
    """1 091 785 152 MACs; 2 GHz x 4 at the device, 3 GHz x 128 at the server; 3 x 48 x 320 bytes of input."""
    answer = cut("ppocr-rec", rate="20Mbit/s")
    local, remote = answer.all_local, answer.all_remote
    assert times(remote) == pytest.approx((0.0, 0.018432, 0.0, 1_091_785_152 / 384e9))
    assert [round(1e3 * part, 2) for part in (remote.link_s, remote.server_s)] == [18.43, 2.84]
    assert round(1e3 * remote.latency_s, 1) == 21.3
    assert times(local) == pytest.approx((1_091_785_152 / 8e9, 0.0, 0.0, 0.0))
    assert round(1e3 * local.latency_s, 1) == 136.5
    assert answer.recommended == remote
    # all remote: 0.2 W while it sends; all local: 0.8 W = 1e-28 x (2 GHz)^3; the server 5.6e-27 x (3 GHz)^3 = 151.2 W
    assert remote.device_j == pytest.approx(0.2 * 0.018432)
    assert local.device_j == pytest.approx(0.8 * 1_091_785_152 / 8e9)
    assert remote.server_j == pytest.approx(151.2 * 1_091_785_152 / 384e9)
    # 368640 bit in the 133.63 ms that the server saves
    assert answer.break_even.all_remote == pytest.approx(368640 / (1_091_785_152 * (1 / 8e9 - 1 / 384e9)))
    assert round(answer.break_even.all_remote / 1e6, 2) == 2.76


def test_every_cut_by_hand():
    """At 10 Mbit/s and 5 ms: the input 100 + 5 + 10 ms; 20 + 20 + 5 + 8; 60 + 40 + 5 + 4; local 100 ms."""
    answer = cut(SMALL, rate="10Mbit/s", rtt="5ms", **PARTIES)
    rows = {row.cut: row for row in (answer.row(i) for i in range(4))}
    assert times(rows[0]) == pytest.approx((0, 0.1, 0.005, 0.01))
    assert times(rows[1]) == pytest.approx((0.02, 0.02, 0.005, 0.008))
    assert times(rows[2]) == pytest.approx((0.06, 0.04, 0.005, 0.004))
    assert times(rows[3]) == pytest.approx((0.1, 0, 0, 0))
    assert [row.cut for row in answer.cuts] == [1, 3, 0]  # 53, 100 and 115 ms; cut 2 sends more after more work
    assert answer.recommended.cut == 1
    assert [row.left for row in rows.values()] == pytest.approx([1, 0.8, 0.4, 0])
    # cut 1 saves 100 - 20 - 5 - 8 ms of 0.2 Mbit; the input saves 85 ms of 1 Mbit
    assert answer.break_even.offloading == pytest.approx(0.2e6 / 0.067)
    assert answer.break_even.all_remote == pytest.approx(1e6 / 0.085)
    # cut 1 to the input: 33 + 0.2 Mbit / R = 15 + 1 Mbit / R
    expected = [(0.0, 3), (0.2e6 / 0.067, 1), (0.8e6 / 0.018, 0)]
    assert answer.fastest_by_rate == [(pytest.approx(rate), which) for rate, which in expected]


def test_energy_by_hand():
    """The CPU 2 W while it computes, 0.5 W always, the radio 1 W while it sends: cut 1 takes 20 + 20 + 5 + 8 ms."""
    powers = {"cpu_power": "2W", "idle_power": "0.5W"}
    row = cut(SMALL, rate="10Mbit/s", rtt="5ms", tx_power="1W", **powers, **PARTIES).row(1)
    assert row.device_j == pytest.approx(2 * 0.02 + 1 * 0.02 + 0.5 * 0.053)
    row = cut(SMALL, rate="10Mbit/s", rtt="5ms", energy_per_bit="30nJ/bit", **powers, **PARTIES).row(1)
    assert row.device_j == pytest.approx(2 * 0.02 + 0.2e6 * 30e-9 + 0.5 * 0.053)


def test_a_radio_that_takes_no_power_costs_no_energy():
    """The scenario has no such radio: its least limit of power must not reach the answer."""
    assert cut(SMALL, rate="1Mbit/s", tx_power=0).all_remote.device_j == 0.0


def test_a_deadline_lets_the_cpu_run_slower():
    """Cut 1 has 60 - 33 = 27 ms for what takes 20 ms at 1 GHz: 741 MHz, 2 W x 0.741^2 x 20 ms of CPU energy."""
    stated = {"rtt": "5ms", "cpu_max": "1GHz", "cpu_min": "100MHz", "cpu_power": "2W", "tx_power": "1W", **PARTIES}
    answer = cut(SMALL, rate="10Mbit/s", deadline="60ms", **stated)
    row = answer.recommended
    assert (answer.met, row.cut, row.cpu_hz) == (True, 1, pytest.approx(20 / 27 * 1e9))
    assert row.latency_s == pytest.approx(0.06)
    assert row.device_j == pytest.approx(2 * (20 / 27) ** 2 * 0.02 + 0.02)
    assert [(row.cut, row.meets) for row in answer.cuts] == [(1, True), (3, False), (0, False)]
    # not below the least rate: with 500 ms local execution at 200 MHz would do, and takes 2 x 0.2^2 x 100 ms
    slow = cut(SMALL, rate="10Mbit/s", deadline="500ms", **stated).recommended
    assert (slow.cut, slow.cpu_hz, slow.device_j) == (3, pytest.approx(2e8), pytest.approx(2 * 0.04 * 0.1))
    floor = cut(SMALL, rate="1Mbit/s", deadline="500ms", **{**stated, "cpu_min": "400MHz"}).recommended
    assert (floor.cut, floor.cpu_hz, floor.latency_s) == (3, pytest.approx(4e8), pytest.approx(0.25))


def test_without_a_least_rate_the_cpu_runs_at_full_speed():
    answer = cut(SMALL, rate="10Mbit/s", rtt="5ms", deadline="500ms", cpu_max="1GHz", **PARTIES)
    assert answer.recommended.cpu_hz == 1e9


def test_idle_power_makes_slowness_expensive():
    """2 W v^2 + 4 W / v per second of work is least at v = 1: no slower although the deadline allows it."""
    stated = {"cpu_max": "1GHz", "cpu_min": "1MHz", "cpu_power": "2W", **PARTIES}
    fast = cut(SMALL, rate="1kbit/s", deadline="10s", idle_power="4W", **stated).recommended
    assert (fast.cut, fast.cpu_hz) == (3, 1e9)
    slower = cut(SMALL, rate="1kbit/s", deadline="10s", idle_power="0.5W", **stated).recommended
    assert slower.cpu_hz == pytest.approx(5e8)  # v^3 = 0.5 / (2 x 2)


def test_a_deadline_that_is_missed_says_by_how_much_and_from_which_rate():
    """40 ms: cut 1 takes 53 ms, 20 of them on the link, and has 40 - 33 = 7 ms for it: 0.2 Mbit / 7 ms."""
    answer = cut(SMALL, rate="10Mbit/s", rtt="5ms", deadline="40ms", **PARTIES)
    assert (answer.met, answer.recommended.cut) == (False, 1)
    assert one_task_report.deadline_sentence(answer) == (
        "Deadline 40 ms: NOT MET. The fastest, cut 1, is 13 ms late: 20 ms device + 20 ms link + 5 ms round trip + "
        "8 ms server. It can be met from 28.6 Mbit/s."
    )
    # the input has 14 - 5 - 10 ms: nothing is fast enough, the input takes 15 ms without the link
    none = cut(SMALL, rate="10Mbit/s", rtt="5ms", deadline="14ms", **PARTIES)
    assert "No rate meets it: layers and round trip alone take 15 ms." in str(one_task_report.deadline_sentence(none))
    met = cut(SMALL, rate="10Mbit/s", rtt="5ms", deadline="53ms", **PARTIES)
    assert one_task_report.deadline_sentence(met) == "Deadline 53 ms: met by cut 1."
    thrifty = cut(SMALL, rate="10Mbit/s", rtt="5ms", deadline="1s", tx_power="1mW", **PARTIES)
    assert one_task_report.deadline_sentence(thrifty) == (
        "Deadline 1 s: met by all remote, with less energy than the fastest, cut 1."
    )


def test_the_rate_from_which_a_deadline_is_met_is_rounded_up():
    """368640 bit in 29 - 5 - 2.843 ms: 17.424 Mbit/s, which is missed at 17.4."""
    stated = {"rtt": "5ms", "deadline": "29ms"}
    sentence = one_task_report.deadline_sentence(cut("ppocr-rec", rate="1kbit/s", **stated))
    assert "It can be met from 17.5 Mbit/s." in str(sentence)
    assert cut("ppocr-rec", rate="17.5Mbit/s", **stated).met
    assert not cut("ppocr-rec", rate="17.4Mbit/s", **stated).met


# Measured times


def test_measured_times_replace_rates():
    """Device: 0, 30, 40, 90 ms; server: 0, 1, 2, 4 ms."""
    answer = cut(SMALL, rate="10Mbit/s", device_times=[0, 0.03, 0.04, 0.09], server_times=[0, 0.001, 0.002, 0.004])
    assert [times(answer.row(i)) for i in (1, 2)] == [
        pytest.approx((0.03, 0.02, 0, 0.003)),
        pytest.approx((0.04, 0.04, 0, 0.002)),
    ]
    assert answer.all_local.latency_s == 0.09


def test_the_times_of_a_profile_are_used_unless_a_rate_is_stated():
    timed = SMALL.with_seconds(np.array([0, 0.03, 0.04, 0.09]))
    assert cut(timed, rate="10Mbit/s").all_local.latency_s == 0.09
    assert cut(timed, rate="10Mbit/s", device_rate="1GMAC/s").all_local.latency_s == pytest.approx(0.1)
    assert cut(SMALL, rate="10Mbit/s", device_rate="1GMAC/s").all_local.latency_s == pytest.approx(0.1)


def test_a_cut_off_the_front_is_recommended_with_the_reason():
    """Cut 2 does more work and sends more than cut 1, but its layers take the server 50 ms and the device 1 ms."""
    answer = cut(SMALL, rate="10Mbit/s", device_times=[0, 0.02, 0.021, 0.5], server_times=[0, 0.01, 0.06, 0.065])
    row = answer.recommended
    assert (row.cut, row.pareto) == (2, False)
    assert 2 in [each.cut for each in answer.cuts]
    reason = one_task_report.why_recommended(answer)
    assert reason == (
        "Cut 2 is not Pareto-optimal: cut 1 sends no more bits after no more work. It is recommended because layers "
        "take the times measured, not times in proportion to their work: device +1 ms, link +20 ms, server -50 ms."
    )
    assert one_task_report.as_json(answer)["why_not_pareto"] == reason
    assert one_task_report.why_recommended(cut(SMALL, rate="10Mbit/s")) is None


@pytest.mark.parametrize("name", shipped_profiles())
@pytest.mark.parametrize("rate", ["3Mbit/s", "50Mbit/s"])
def test_with_rates_the_recommended_cut_is_pareto_optimal(name: str, rate: str):
    for server in ("4GMAC/s", "1TMAC/s"):
        answer = cut(name, rate=rate, server_rate=server)
        assert answer.recommended.pareto
        assert one_task_report.why_recommended(answer) is None


# Laws, and a search


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Any network of up to eight cuts at any two processors and link."""
    count = draw(st.integers(2, 8))
    part = st.floats(0, 1)
    device, server = (np.cumsum([0.0, *(draw(part) for _ in range(count - 1))]) for _ in range(2))
    bits = np.array([*(draw(st.floats(1, 1e7)) for _ in range(count - 1)), 0.0])
    smallest = np.minimum.accumulate(bits)
    front = np.append(True, bits[1:] < smallest[:-1])
    deadline = draw(st.one_of(st.none(), st.floats(0.01, 10)))
    return Question(
        bits,
        front,
        Processor(device, draw(st.floats(0, 10)), draw(st.floats(0, 5)), draw(st.floats(0.01, 1)), 1e9),
        Processor(server, 100.0),
        Link(draw(st.floats(1e4, 1e9)), draw(st.floats(0, 0.1)), draw(st.floats(0, 2))),
        deadline,
    )


@given(questions())
def test_the_recommendation_is_the_best_of_a_search(question: Question):
    """Over all cuts and, with a deadline, 201 speeds of the CPU."""
    choice, full = recommend(question), costs(question)
    speeds = np.linspace(question.device.min_speed, 1.0, 201)
    each = [costs(question, speed) for speed in (speeds if question.deadline_s is not None else [1.0])]
    latency_s, joules = (np.array([getattr(one, name) for one in each]) for name in ("latency_s", "device_j"))
    if question.deadline_s is None or not (latency_s <= question.deadline_s).any():
        assert full.latency_s[choice.cut] == full.latency_s.min()
        return
    best = joules[latency_s <= question.deadline_s].min()
    found = costs(question, choice.speed)
    assert choice.met
    assert found.latency_s[choice.cut] <= question.deadline_s * (1 + 1e-9)
    assert found.device_j[choice.cut] <= best * (1 + 1e-9)
    assert question.device.min_speed <= choice.speed <= 1


@given(questions(), st.lists(st.floats(1e3, 1e11), min_size=1, max_size=20))
def test_the_cut_at_a_rate_is_the_one_of_its_piece(question: Question, rates: list[float]):
    """The lower envelopes against the least of all lines, at any rate."""
    for pieces, name in (
        (one_task.fastest_by_rate(question), "latency_s"),
        (one_task.thriftiest_by_rate(question), "device_j"),
    ):
        assert [rate for rate, _ in pieces] == sorted(rate for rate, _ in pieces)
        for rate in rates:
            _, which = [piece for piece in pieces if piece[0] <= rate][-1]
            values = getattr(costs(at_rate(question, rate)), name)
            assert values[which] <= values.min() * (1 + 1e-9) + 1e-15


@given(questions())
def test_sending_pays_just_above_the_break_even_rates(question: Question):
    even = one_task.break_even_rate(question)
    for rate, cuts in ((even.offloading, slice(None, -1)), (even.all_remote, slice(0, 1))):
        around = [1e15] if rate is None else [rate * (1 - 1e-6), rate * (1 + 1e-6)]
        pays = []
        for at in around:
            latency_s = costs(at_rate(question, at)).latency_s
            pays.append(bool(latency_s[cuts].min() < latency_s[-1] * (1 - 1e-15)))
        assert pays[0] is False
        if rate is not None and rate < 1e12:  # beyond, the time on the link is below the rounding of the latency
            assert pays[1]


ANY_RATE = replace(RATE, least=1e-30, most=1e30)


@st.composite
def networks(draw: st.DrawFn) -> Profile:
    """Up to six cuts after up to a billion MACs."""
    work = sorted(draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=6, unique=True)))
    return profile_of(*((macs, draw(st.integers(1, 10**6))) for macs in work), input_bits=draw(st.integers(8, 10**7)))


@given(networks(), st.integers(1, 999), st.sampled_from(["0", "5ms", "0.3s"]))
def test_the_rate_that_is_printed_meets_the_deadline(network: Profile, deadline_ms: int, rtt: str):
    """So does the CPU rate, and each cut is the fastest up to the rate printed for it."""
    stated = {"rtt": rtt, "deadline": f"{deadline_ms}ms", "cpu_max": "1GHz", "cpu_min": "1MHz", **PARTIES}
    answer = cut(network, rate="1kbit/s", **stated)
    sentence = str(one_task_report.deadline_sentence(answer))
    if found := re.search(r"It can be met from (.*)\.$", sentence):
        answer = cut(network, rate=found[1], **stated)
        assert answer.met
    if found := re.search(r"with the CPU at (.*?Hz)", one_task_report.headline(answer)):
        speed = parsed("CPU", found[1], FREQUENCY) / 1e9
        cpu_hz = answer.recommended.cpu_hz
        assert cpu_hz <= speed * 1e9 * (1 + 1e-12)
        assert answer.row(answer.recommended.cut, min(speed, 1.0)).latency_s <= deadline_ms * 1e-3 * (1 + 1e-12)
    printed = one_task_report.break_even_sentence(answer)
    for found, (_, fastest) in zip(re.finditer(r"up to (.*?bit/s)", printed), answer.fastest_by_rate, strict=False):
        rate = parsed("rate", found[1], ANY_RATE)
        latency_s = costs(at_rate(answer.question, rate)).latency_s
        assert latency_s[fastest] <= latency_s.min() * (1 + 1e-12)
    if found := re.search(r"faster than all local from (.*?bit/s)", printed):
        latency_s = costs(at_rate(answer.question, parsed("rate", found[1], ANY_RATE))).latency_s
        assert latency_s[0] <= latency_s[-1] * (1 + 1e-12)


@given(questions(), st.floats(1.01, 100))
def test_more_rate_is_never_slower(question: Question, factor: float):
    faster = at_rate(question, question.link.bit_per_s * factor)
    assert costs(faster).latency_s[recommend(replace(faster, deadline_s=None)).cut] <= costs(question).latency_s.min()


def test_equal_cuts_are_decided_for_the_pareto_optimal_one():
    """Cut 2 has the work and the bits of cut 1."""
    equal = profile_of((50_000_000, 100), (50_000_000, 100), (100_000_000, 10))
    assert cut(equal, rate="1Mbit/s", **PARTIES).recommended.cut == 1


def test_crossovers_of_lines_that_meet_in_a_point():
    """3 + 0 x, 2 + 1 x, 1 + 2 x meet at x = 1: the one in the middle is never best alone. 5 + 3 x never is."""
    assert crossovers(np.array([3.0, 2.0, 1.0, 5.0]), np.array([0.0, 1.0, 2.0, 3.0])) == [(0.0, 0), (1.0, 2)]


# Extremes


@pytest.mark.parametrize("macs", [10, 10**3, 10**6, 10**9, 10**12])
@pytest.mark.parametrize("rate", ["1bit/s", "20Mbit/s", "1000Tbit/s"])
def test_networks_of_any_size_get_an_answer(macs: int, rate: str):
    answer = cut(profile_of((macs // 2, 100), (macs, 10)), rate=rate, rtt="1us", deadline="1ms")
    for row in answer.cuts:
        assert all(math.isfinite(value) for value in (*times(row), row.device_j, row.server_j))
    assert answer.all_local.latency_s == pytest.approx(macs / 8e9)
    assert answer.all_remote.server_s == pytest.approx(macs / 384e9)
    document = one_task_report.as_json(answer)
    assert document["deadline"]["met"] == (answer.recommended.latency_s <= 1e-3)
    assert str(one_task_report.headline(answer)).startswith("At ")


# The scenario


def test_without_a_rate_the_scenario_has_one():
    """The device of median gain, at full power: B log2(1 + h P / Gamma), as equation (3) has it."""
    from partway.system.equations import data_rate
    from partway.system.world import build

    answer = cut("ppocr-rec")
    scenario = load("ocr")
    placement, index = placed(scenario)
    world = build(scenario, placement)
    rate = data_rate(world.devices, placement.mean_gain_per_w, world.devices.tx_power_max_w)
    assert answer.question.link.bit_per_s == pytest.approx(float(np.asarray(rate)[index]), rel=1e-6)
    assert answer.place()[1] == index


def test_the_scenario_gets_the_link_that_is_stated():
    """Bandwidth in proportion; noise in total, gains and spectral efficiency stay."""
    scenario = load("ocr")
    placement, index = placed(scenario)
    gain = float(placement.mean_gain_per_w[index])
    linked = with_rate(scenario, index, gain, 20e6)
    kind = linked.device_classes()[index]
    assert kind.bandwidth_hz * efficiency(linked, kind, gain) == pytest.approx(20e6)
    np.testing.assert_allclose(placed(linked)[0].mean_gain_per_w, placement.mean_gain_per_w, rtol=1e-12)
    assert linked.radio.noise_dbw == pytest.approx(-134.0)


def test_a_rate_that_no_bandwidth_carries_is_said_in_its_unit():
    with pytest.raises(
        InputError,
        match=r"^1 bit/s at the mean channel gain needs a bandwidth of \S+ Hz; it must be between 1 and 1e18 Hz$",
    ):
        with_rate(load("ocr"), 0, 1e6, 1.0)


def test_the_highest_efficiency_is_that_of_the_cuts():
    from partway.dnn.cuts import MAX_EFFICIENCY as OF_CUTS

    assert MAX_EFFICIENCY == OF_CUTS


def test_what_is_stated_of_processors_reaches_the_scenario():
    answer = cut(
        "ppocr-rec",
        rate="20Mbit/s",
        device_rate="16GMAC/s",
        server_rate="96GMAC/s",
        cpu_max="4GHz",
        cpu_power="3.2W",
        tx_power="1W",
    )
    kind, server = answer.scenario.device, answer.scenario.server
    assert (kind.cpu_max_hz, kind.macs_per_cycle, kind.tx_power_max_w) == (4e9, 4.0, 1.0)
    assert kind.capacitance == pytest.approx(3.2 / 64e27)
    assert server.macs_per_cycle == pytest.approx(32.0)
    clocked = cut("ppocr-rec", rate="20Mbit/s", cpu_max="4GHz")  # another clock, and no word about the work per second
    assert clocked.all_local.latency_s == pytest.approx(cut("ppocr-rec", rate="20Mbit/s").all_local.latency_s / 2)


WORK = "device_rate, or what device_times make of it,"


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"rate": "20"}, "rate needs a unit, such as 20Mbit/s or 5MB/s, got '20'"),
        ({"rtt": "5"}, "rtt needs a unit, such as 10ms or 0.5s, got '5'"),
        ({"device_rate": "2GHz"}, "device_rate '2GHz': unknown unit 'GHz'; write it like 8GMAC/s"),
        ({"cpu_min": "3GHz"}, "cpu_min must be at most the largest CPU rate, 2 GHz, got 3 GHz"),
        ({"tx_power": "1W", "energy_per_bit": "1nJ/bit"}, "give tx_power or energy_per_bit, not both"),
        ({"device_rate": "1GMAC/s", "device_times": [0, 1, 2, 3]}, "give device_rate or device_times, not both"),
        ({"device_times": [0, 1, 2]}, "device_times must be 4 times in seconds, one for each cut, rising from 0"),
        ({"server_times": [0, 2, 1, 3]}, "server_times must be 4 times in seconds, one for each cut, rising from 0"),
        ({"scenario": "paper", "rate": "1Mbit/s"}, "give tx_power or energy_per_bit: the scenario does not limit"),
        ({"scenario": "paper"}, "give rate and tx_power: the scenario does not limit the transmit power"),
        ({"server_times": ["a", "b"]}, "server_times must be 4 times in seconds, one for each cut, rising from 0"),
        ({"device_times": {"a": 1}}, "device_times must be 4 times in seconds, one for each cut, rising from 0"),
        ({"device_times": [0, 0, 0, 5e-324]}, f"{WORK} must be from 2 kMAC/s to 2000 EMAC/s at 2 GHz, got more"),
        ({"device_rate": "1MAC/s"}, f"{WORK} must be from 2 kMAC/s to 2000 EMAC/s at 2 GHz, got 1 MAC/s"),
        ({"cpu_min": "2.0001GHz"}, "cpu_min must be at most the largest CPU rate, 2 GHz, got 2.0001 GHz"),
        ({"device": 20}, "device must be a whole number from 0 to 19, got 20"),
        ({"device": 1.5}, "device must be a whole number from 0 to 19, got 1.5"),
        ({"distance_m": -1.0}, "distance_m must be between 0.001 and 1000000000, got -1"),
        ({"distance_m": "10"}, "distance_m must be a number of metres, got '10'"),
        ({"tensor_dtype": ["uint8"]}, "tensor_dtype must be one of fp32, fp16, uint8, got an array"),
        ({"tensor_dtype": "int4"}, "tensor_dtype must be one of fp32, fp16, uint8, got 'int4'"),
        ({"overrides": ["device.task.cuts=all"]}, "overrides 'device.task.cuts': the task is the network"),
        ({"shapes": {"x": (1, 3)}}, "shapes and values need an .onnx file, got 'alexnet'"),
        ({"deadline": 0}, "deadline must be from 1e-12 to 1000000000 s, got 0"),
        ({"input_bits": "0bit"}, "input_bits must be from 1 to 9.00719925474e15 bit, got '0bit'"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(stated: dict[str, Any], reason: str):
    network = "alexnet" if "shapes" in stated else SMALL
    with pytest.raises(InputError) as error:
        cut(network, **stated)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", [None, 3, "", b"net.csv"])
def test_what_is_no_network_is_refused(network: Any):
    with pytest.raises(InputError, match=r"^network must be a path, got"):
        cut(network)


def test_the_size_of_the_input_has_a_unit():
    assert cut("ppocr-rec", input_bits="7.5kB", rate="20Mbit/s").all_remote.bits == 60e3


def test_the_function_is_exported():
    answer = partway.cut("ppocr-rec", rate=20e6)
    assert isinstance(answer, OneTask)
    assert answer.all_remote == cut("ppocr-rec", rate="20Mbit/s").all_remote


def test_a_file_with_times_is_read(tmp_path: Path):
    timed = read_profile("ppocr-rec")
    file = tmp_path / "timed.csv"
    file.write_text(write_profile(timed.with_seconds(np.linspace(0, 0.7, len(timed.cuts)))))
    assert cut(file, rate="20Mbit/s").all_local.latency_s == pytest.approx(0.7)
    assert cut("ppocr-rec", rate="20Mbit/s", server_times=file).all_remote.server_s == pytest.approx(0.7)


BEFORE_JAX = """
import contextlib, io, json, sys
from partway.cli import main as cli
out = io.StringIO()

def stop(own_process, module):
    heavy = [name for name in ("jax", "xarray", "matplotlib", "onnx", "pandas") if name in sys.modules]
    json.dump({"printed": out.getvalue(), "heavy": heavy}, sys.stderr)
    raise KeyboardInterrupt

cli.start_jax = stop
with contextlib.redirect_stdout(out), contextlib.suppress(KeyboardInterrupt):
    cli.main(["cut", "ppocr-rec", *sys.argv[1:]])
"""


@pytest.mark.parametrize("stated", [(), ("--rate", "20Mbit/s")])
def test_the_first_answer_is_printed_before_anything_heavy_is_imported(stated: tuple[str, ...]):
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_JAX, *stated], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = json.JSONDecoder().raw_decode(done.stderr)[0]
    assert found["heavy"] == []
    assert found["printed"].startswith("At ")
    assert "Break-even: " in found["printed"]
