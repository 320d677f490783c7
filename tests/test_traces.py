"""A trace: what was measured, or drawn, is replayed bit for bit, for as long as it lasts or again and again."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import world_of
from test_processes import MARKOV, drawn, exogenous_of, played

from partway.errors import InputError
from partway.experiments.plan import make_plan
from partway.experiments.sweep.plan import sweep_plan
from partway.pytree import host_array
from partway.scenario.loading import load
from partway.system.equations import data_rate
from partway.system.world import World

BLOCK_S = 0.5


def written(folder: Path, rows: Sequence[Sequence[Any]], header: str = "time_s,gain_per_w") -> str:
    path = folder / "trace.csv"
    with path.open("w", newline="") as file:
        file.write(f"{header}\n")
        csv.writer(file).writerows(rows)
    return str(path)


def replayed(file: str, devices: int = 1, **more: Any) -> World:
    given = {"kind": "trace", "file": file, **more.pop("fading", {})}
    return world_of(load({"devices": devices}, {"radio.fading": given, **more}))


def gains_of(world: World, blocks: int, seed: int = 0) -> np.ndarray:
    """(blocks, K) h [1/W]."""
    return drawn(world, blocks, seed)[0] * np.asarray(world.devices.mean_gain)


def test_a_run_that_is_written_down_and_replayed_is_the_same_run(tmp_path: Path):
    """Bit for bit: its gains, and what a scheme does with them."""
    before = played(world_of(load({"devices": 3}, MARKOV)), seeds=[7])
    gain = exogenous_of(before)[0][0]
    rows = [(t * BLOCK_S, k, repr(float(gain[t, k]))) for t in range(len(gain)) for k in range(3)]
    world = replayed(written(tmp_path, rows, "time_s,device,gain_per_w"), devices=3)
    again = played(world, seeds=[7])
    assert before.traces
    assert again.traces
    for name in ("gain", "arrivals", "q", "started", "offload", "power", "cost"):
        np.testing.assert_array_equal(getattr(again.traces, name), getattr(before.traces, name))
    np.testing.assert_allclose(world.devices.mean_gain, gain.mean(axis=0), rtol=1e-6)


def test_a_value_holds_until_the_next_row_and_blocks_take_it_when_they_begin(tmp_path: Path):
    """By hand, with blocks of half a second: at 0, 0.5, 1, 1.5 and 2 s; the last row holds for 0.7 s, to 2.4 s."""
    file = written(tmp_path, [(0, 1e7), (0.6, 2e7), (1.0, 3e7), (1.7, 4e7)])
    np.testing.assert_allclose(gains_of(replayed(file), 4)[:, 0], [1e7, 1e7, 3e7, 3e7], rtol=1e-6)


def test_a_trace_that_loops_begins_again_after_its_last_whole_block(tmp_path: Path):
    file = written(tmp_path, [(0, 1e7), (0.5, 2e7), (1.0, 3e7)])
    world = replayed(file, fading={"loop": True})
    np.testing.assert_allclose(gains_of(world, 7)[:, 0], [1e7, 2e7, 3e7, 1e7, 2e7, 3e7, 1e7], rtol=1e-6)


def test_a_run_may_not_be_longer_than_a_trace_that_does_not_loop(tmp_path: Path):
    file = written(tmp_path, [(0, 1e7), (0.5, 2e7), (1.0, 3e7)])
    fading = {"kind": "trace", "file": file}
    make_plan("paper", overrides={"radio.fading": fading}, schemes=["local"], blocks=3)
    with pytest.raises(InputError, match=r"radio\.fading: it ends after 3 blocks, and the run needs 4; .*loop = true"):
        make_plan("paper", overrides={"radio.fading": fading}, schemes=["local"], blocks=4)
    with pytest.raises(InputError, match="it ends after 3 blocks"):
        played(replayed(file), blocks=4)


def test_the_floor_raises_what_is_below_it(tmp_path: Path):
    file = written(tmp_path, [(0, 0), (0.5, 2e7), (1.0, 1e5)])
    np.testing.assert_allclose(gains_of(replayed(file, fading={"floor": 1e6}), 3)[:, 0], [1e6, 2e7, 1e6], rtol=1e-6)


def test_a_rate_is_the_gain_at_which_the_stated_power_reaches_it(tmp_path: Path):
    """For devices of every bandwidth."""
    rates = [2e6, 5e6, 1.5e7]
    file = written(tmp_path, [(0.5 * i, rate) for i, rate in enumerate(rates)], "time_s,rate_bit_s")
    groups = [{"count": 1, "bandwidth_hz": 1e6}, {"count": 1, "bandwidth_hz": 5e6}]
    world = replayed(file, devices=2, fading={"power_w": 0.2}, group=groups)
    gain = gains_of(world, 3)
    power = np.full(2, 0.2)
    found = np.stack([data_rate(world.devices, host_array(each), host_array(power)) for each in gain])
    np.testing.assert_allclose(found, np.stack([rates, rates], axis=-1), rtol=1e-4)
    np.testing.assert_allclose(world.devices.mean_gain, gain.mean(axis=0), rtol=1e-5)


def test_devices_share_the_traces_of_a_file_in_turn(tmp_path: Path):
    """The second trace is longer; of devices 0 and 2 the first one begins again."""
    rows = [(0, 0, 1e7), (0.5, 0, 2e7), (0, 1, 5e7), (0.5, 1, 6e7), (1.0, 1, 7e7)]
    file = written(tmp_path, rows, "time_s,device,gain_per_w")
    gain = gains_of(replayed(file, devices=3, fading={"loop": True}), 4) / 1e7
    np.testing.assert_allclose(gain.T, [[1, 2, 1, 2], [5, 6, 7, 5], [1, 2, 1, 2]], rtol=1e-6)


def test_a_random_start_differs_by_device_and_seed_and_the_trace_goes_on_from_there(tmp_path: Path):
    file = written(tmp_path, [(0.5 * i, 1e7 * (i + 1)) for i in range(100)])
    world = replayed(file, devices=200, fading={"loop": True, "start": "random"})
    one, other = (np.rint(gains_of(world, 3, seed) / 1e7).astype(int) - 1 for seed in (0, 1))
    np.testing.assert_array_equal((one[1:] - one[:-1]) % 100, 1)
    assert len(np.unique(one[0])) > 60
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("header", "rows", "more", "message"),
    [
        ("time,gain_per_w", [(0, 1), (1, 1)], {}, "its header must have time_s and either gain_per_w or rate_bit_s"),
        ("time_s,gain_per_w,rate_bit_s", [(0, 1, 1), (1, 1, 1)], {}, "its header must have time_s and either"),
        ("time_s,gain_per_w", [(0, 1)], {}, "two rows or more of every device"),
        ("time_s,gain_per_w", [(0, 1), (0, 2)], {}, "line 3: .* its times begin at 0 and increase"),
        ("time_s,gain_per_w", [(5, 1), (6, 2)], {}, "line 2: .* its times begin at 0"),
        ("time_s,gain_per_w", [(0, 1), (1, "-")], {}, "line 3: gain_per_w must be a number of at least 0, got '-'"),
        ("time_s,gain_per_w", [(0, 1), (1, "nan")], {}, "line 3: gain_per_w must be a number"),
        ("time_s,gain_per_w", [(0, 1), (1,)], {}, "line 3: gain_per_w must be a number of at least 0, got ''"),
        ("time_s,device,gain_per_w", [(0, 0, 1), (1, 0, 1), (0, 2, 1), (1, 2, 1)], {}, "without gaps"),
        (
            "time_s,gain_per_w",
            [(0, 1e7), (1, 0)],
            {},
            r"gain_per_w is 0 or nearly 0 in some blocks.*set radio\.fading\.floor",
        ),
        ("time_s,gain_per_w", [(0, 1e7), (1, 1e-30)], {}, r"gain_per_w is 0 or nearly 0 in some blocks"),
        ("time_s,rate_bit_s", [(0, 1e6), (1, 1e-30)], {"power_w": 0.2}, r"rate_bit_s is 0 or nearly 0 in some blocks"),
        ("time_s,gain_per_w", [(0, 1e7), (1, 5, "2e7")], {}, "line 3: has more cells than the header"),
        ("time_s,gain_per_w,gain_per_w", [(0, 1e7, 5), (1, 1e7, 5)], {}, "its header must have time_s and either"),
        ("time_s,device,gain_per_w,device", [(0, 0, 1e7, 1), (1, 0, 1e7, 1)], {}, "its header must have time_s"),
        ("time_s,gain_per_w", [(0, 1), (0.1, 1)], {}, "a trace of 0.2 s has 0 blocks of 0.5 s"),
        ("time_s,gain_per_w", [(0, 1), (1, 1)], {"start": "random"}, r"set radio\.fading\.loop = true"),
        ("time_s,rate_bit_s", [(0, 1e6), (1, 1e6)], {}, r"radio\.fading\.power_w: state the transmit power"),
        ("time_s,rate_bit_s", [(0, 1e6), (1, 1e9)], {"power_w": 0.2}, "its largest rate is 1000 bit/s per Hz"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(
    tmp_path: Path, header: str, rows: list[Any], more: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        replayed(written(tmp_path, rows, header), fading=more)


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"radio\.fading\.file .* cannot be read: No such file"):
        replayed(str(tmp_path / "none.csv"))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        replayed(str(tmp_path / "b.csv"))
    with pytest.raises(InputError, match=r"radio\.fading\.file is missing"):
        replayed("")


def test_a_path_in_a_file_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    written(tmp_path / "here", [(0, 1e7), (0.5, 2e7)])
    scenario = tmp_path / "here" / "mine.toml"
    scenario.write_text('[radio]\nfading = { kind = "trace", file = "trace.csv" }\n')
    found = load(scenario)
    assert found.radio.fading.parameters() == {"file": str(tmp_path / "here" / "trace.csv")}
    assert 'file = "trace.csv"' in found.to_toml(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    named = load("paper", ["radio.fading={kind='trace', file='trace.csv'}"])
    assert named.radio.fading == found.radio.fading


def test_a_sweep_goes_by_what_is_in_a_trace_and_not_by_where_it_is(tmp_path: Path):
    def key(name: str, last: float) -> str:
        (tmp_path / name).mkdir()
        fading = {"kind": "trace", "file": written(tmp_path / name, [(0, 1e7), (0.5, last)]), "loop": True}
        own = {"devices": 2, "radio.fading": fading}
        plan = sweep_plan("paper", {"device.arrival_prob": [0.1]}, overrides=own, schemes=["local"], blocks=4)
        return plan.groups[0][0].key

    first, same, other = key("a", 2e7), key("b", 2e7), key("c", 3e7)
    assert first == same != other
