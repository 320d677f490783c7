"""Cut tables: from a profile to a task, and the choice of a cut against brute force over random tables."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partway.dnn.cuts import (
    Task,
    largest_share,
    layer_cuts,
    nearest_affordable,
    proportional_cuts,
    sent_bits,
    table_rows,
)
from partway.dnn.profile import DTYPE_BITS, Cut, Profile, Tensor, read_profile, shipped_profiles, write_profile
from partway.errors import InputError

WIDTH = 9
"""Rows of every random table with its padding, so that all tables share one compiled function."""


class Table(NamedTuple):
    """A random cut table: ascending shares from 0 to 1; the first cut sends nothing."""

    share: list[float]
    bits: list[float]
    feasible: list[bool]

    def task(self) -> Task:
        """In float32, padded as by `partway.system.world.build`: share 1, the bits of the last cut, infeasible."""
        padding = (0, WIDTH - len(self.share))
        return Task(
            share=np.pad(np.float32(self.share), padding, constant_values=1.0),
            bits=np.pad(np.float32(self.bits), padding, constant_values=self.bits[-1]),
            feasible=np.pad(np.array(self.feasible), padding, constant_values=False),
            proportional=np.array(False),
            bits_per_task=np.float32(self.bits[-1]),
        )

    def affordable(self, limit: float) -> list[float]:
        """The feasible shares that send at most `limit` bits, ascending."""
        return [share for share, bits, feasible in zip(*self, strict=True) if feasible and bits <= limit]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    inner = sorted(draw(st.sets(st.floats(0.015625, 0.984375, width=32), max_size=WIDTH - 3)))
    share, count = [0.0, *inner, 1.0], len(inner) + 1
    bits = [0.0, *(float(draw(st.integers(1, 10**7))) for _ in range(count))]
    return Table(share, bits, [True, *(draw(st.booleans()) for _ in range(count))])


limits = st.one_of(st.just(0.0), st.just(float("inf")), st.integers(1, 10**7).map(float))
shares = st.one_of(st.just(0.0), st.just(1.0), st.floats(0.0, 1.0, width=32))
SENT, NEAREST, LARGEST = jax.jit(sent_bits), jax.jit(nearest_affordable), jax.jit(largest_share)


@given(tables())
def test_a_share_of_the_table_sends_the_bits_of_its_cut(table: Table):
    task = table.task()
    assert [float(SENT(task, np.float32(share))) for share in table.share] == table.bits


@given(tables(), shares)
def test_a_share_between_two_cuts_sends_the_larger_one(table: Table, offload: float):
    above = next(i for i, share in enumerate(table.share) if share >= offload)
    assert float(SENT(table.task(), np.float32(offload))) == table.bits[above]


@given(tables(), shares, limits)
def test_the_next_larger_affordable_cut_or_the_largest_below(table: Table, offload: float, limit: float):
    affordable = table.affordable(limit)
    upward = [share for share in affordable if share >= offload]
    expected = min(upward) if upward else max(affordable)
    assert float(NEAREST(table.task(), np.float32(offload), np.float32(limit))) == expected


@given(tables(), limits)
def test_the_largest_affordable_share(table: Table, limit: float):
    assert float(LARGEST(table.task(), np.float32(limit))) == max(table.affordable(limit))


@given(tables(), limits)
def test_padding_is_never_chosen(table: Table, limit: float):
    """Even if the padding sends nothing, the choices are those of the table without it."""
    task = table.task()
    free = Task(
        task.share,
        np.where(np.arange(WIDTH) < len(table.share), task.bits, 0.0),
        task.feasible,
        task.proportional,
        task.bits_per_task,
    )
    assert float(LARGEST(free, np.float32(limit))) == float(LARGEST(task, np.float32(limit)))
    assert float(NEAREST(free, np.float32(1.0), np.float32(limit))) == max(table.affordable(limit))


@given(shares, st.integers(1, 2 * 10**6).map(float))
def test_under_the_papers_law_every_share_is_a_cut(offload: float, limit: float):
    """D = zeta W offload: 1e6 bits for a whole task."""
    share, bits = proportional_cuts(1e6)
    task = Task(np.float32(share), np.float32(bits), np.ones(len(share), bool), np.array(True), np.float32(1e6))
    assert float(SENT(task, np.float32(offload))) == pytest.approx(1e6 * offload, rel=1e-6)
    assert float(LARGEST(task, np.float32(limit))) == pytest.approx(min(1.0, limit / 1e6), rel=1e-6)
    assert float(NEAREST(task, np.float32(offload), np.float32(limit))) == pytest.approx(
        min(offload, limit / 1e6), rel=1e-6
    )


def test_the_papers_law_by_hand():
    share, bits = proportional_cuts(1e6)
    assert (share[0], share[-1], bits[0], bits[-1]) == (0.0, 1.0, 0.0, 1e6)
    assert np.allclose(bits, 1e6 * share, rtol=1e-15)


# Profiles


def cut(macs: int, *tensors: Tensor) -> Cut:
    return Cut(tensors, macs)


FACTS = Profile(
    "small",
    "by hand",
    (1, 3, 4, 4),
    input_bits=300.0,
    cuts=(
        cut(0, Tensor("image", 48)),
        cut(100, Tensor("stem", 64)),  # larger than the input at 8 bits: 512 bits
        cut(100, Tensor("pool", 16)),  # no further work, a quarter of the numbers
        cut(400, Tensor("body", 20)),
        cut(700, Tensor("neck", 4)),
        cut(1000, Tensor("head", 10)),
    ),
)


def test_shares_and_bits_of_a_profile_by_hand():
    """1000 MACs, of which 900 remain after stem and pool. The first cut sends the encoded input, the last nothing."""
    assert FACTS.macs == 1000
    assert FACTS.share() == pytest.approx([1.0, 0.9, 0.9, 0.6, 0.3, 0.0], abs=1e-15)
    assert FACTS.bits("uint8").tolist() == [300.0, 512.0, 128.0, 160.0, 32.0, 0.0]
    assert FACTS.bits("fp16").tolist() == [300.0, 1024.0, 256.0, 320.0, 64.0, 0.0]
    assert FACTS.bits("fp32").tolist() == [300.0, 2048.0, 512.0, 640.0, 128.0, 0.0]


def test_pareto_optimal_cuts_by_hand():
    """Fewer bits than the input and than every earlier cut: not stem (512 > 300), not body (160 > 128)."""
    assert FACTS.pareto_optimal("uint8").tolist() == [True, False, True, False, True, True]
    assert FACTS.pareto_optimal("fp32").tolist() == [True, False, False, False, True, True]


def test_cuts_ascend_and_of_equal_shares_the_fewest_bits_remain():
    share, bits = layer_cuts(FACTS, "uint8")
    assert share == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.0], abs=1e-15)
    assert bits.tolist() == [0.0, 32.0, 160.0, 128.0, 300.0]
    assert layer_cuts(FACTS, "uint8", input_bits=77.0)[1].tolist() == [0.0, 32.0, 160.0, 128.0, 77.0]


@pytest.mark.parametrize("tensor_dtype", DTYPE_BITS)
@pytest.mark.parametrize("name", shipped_profiles())
def test_shipped_profiles_make_ascending_cuts_in_float32_too(name: str, tensor_dtype: str):
    profile = read_profile(name)
    share, bits = layer_cuts(profile, tensor_dtype)
    assert (np.diff(share.astype(np.float32)) > 0).all()
    assert (share[0], share[-1], bits[0], bits[-1]) == (0.0, 1.0, 0.0, profile.input_bits)
    assert (bits[1:] > 0).all()


def line(macs: list[int], elements: list[int], input_bits: float) -> Profile:
    cuts = tuple(cut(m, Tensor(f"t{i}", e)) for i, (m, e) in enumerate(zip(macs, elements, strict=True)))
    return Profile("line", "by hand", (1,), input_bits, cuts)


def test_an_exactly_proportional_profile_has_r2_of_one():
    """1000, 750, 500, 250 of 1000 MACs remain; 8 x 400, 300, 200, 100 bits are sent."""
    exact = line([0, 250, 500, 750, 1000], [1, 300, 200, 100, 7], 3200.0)
    assert exact.proportionality("uint8") == pytest.approx(1.0, abs=1e-12)
    assert exact.proportionality("fp16") < 0.99  # only the tensors double, not the input


def test_r2_by_hand():
    """Shares 1, 1/2, bits 8, 8: no variance, R^2 is undefined and reported as 1.

    Bits 8, 16: slope 16 / 1.25 = 12.8, residuals -4.8 and 9.6, 23.04 + 92.16 = 115.2 over 2 x 4^2 = 32: 1 - 3.6 = -2.6.
    """
    assert line([0, 1, 2], [1, 1, 1], 8.0).proportionality("uint8") == 1.0
    assert line([0, 1, 2], [1, 2, 1], 8.0).proportionality("uint8") == pytest.approx(-2.6, rel=1e-12)


def test_a_profile_survives_a_round_trip_through_its_file(tmp_path: Path):
    path = tmp_path / "small.csv"
    path.write_text(write_profile(FACTS))
    assert read_profile(str(path)) == FACTS


GOOD = write_profile(FACTS)
BAD = {
    "not text": b"\xff\xfe\x00",
    "empty": b"",
    "no header": GOOD.split("cut,")[1].encode(),
    "no input_bits": GOOD.replace("# input_bits: 300\n", "").encode(),
    "shape of words": GOOD.replace("1x3x4x4", "wide").encode(),
    "macs of words": GOOD.replace("2,pool,100", "2,pool,many").encode(),
    "macs that fall": GOOD.replace("2,pool,100", "2,pool,99").encode(),
    "macs from 1": GOOD.replace("0,image,0", "0,image,1").encode(),
    "no work at all": "\n".join(GOOD.splitlines()[:5]).encode(),
    "a tensor of nothing": GOOD.replace("400,20", "400,0").encode(),
    "an input of nothing": GOOD.replace("input_bits: 300", "input_bits: 0").encode(),
    "an endless input": GOOD.replace("input_bits: 300", "input_bits: inf").encode(),
    "input_bits not a number": GOOD.replace("input_bits: 300", "input_bits: nan").encode(),
    "a row cut short": GOOD.replace("3,body,400,20,float32", "3,body,400").encode(),
    "other columns": GOOD.replace("cut,after,macs,elements", "cut,after,flops,elements").encode(),
    "elements of 400 digits": GOOD.replace("400,20", "400," + "9" * 400).encode(),
    "macs of 400 digits": GOOD.replace("5,head,1000", "5,head," + "9" * 400).encode(),
    "macs beyond 2^53": GOOD.replace("5,head,1000", "5,head,1" + "0" * 30).encode(),
    "an input of 1e308 bits": GOOD.replace("input_bits: 300", "input_bits: 1e308").encode(),
    "an input of almost no bits": GOOD.replace("input_bits: 300", "input_bits: 5e-324").encode(),
    "an unknown dtype": GOOD.replace("400,20,float32", "400,20,float33").encode(),
    "a string to send": GOOD.replace("400,20,float32", "400,20,other").encode(),
    "one cut with two amounts of work": GOOD.replace("4,neck,", "3,neck,").encode(),
    "a field of 200,000 characters": GOOD.replace("3,body", "3," + "x" * 200_000).encode(),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_not_a_profile_gets_a_one_line_error(tmp_path: Path, what: str):
    path = tmp_path / "bad.csv"
    path.write_bytes(BAD[what])
    with pytest.raises(InputError, match=r"bad\.csv") as caught:
        read_profile(str(path))
    assert "\n" not in str(caught.value)


def read_text(folder: Path, text: str) -> Profile:
    path = folder / "small.csv"
    path.write_text(text, encoding="utf-8")
    return read_profile(str(path))


def test_a_file_with_a_byte_order_mark_and_without_dtypes_is_read(tmp_path: Path):
    assert read_text(tmp_path, "\ufeff" + GOOD.replace(",float32", "").replace(",dtype", "")) == FACTS


@pytest.mark.parametrize("bits", ["1e308", "5e-324"])
def test_no_size_of_an_input_causes_a_warning(tmp_path: Path, bits: str):
    """Warnings are errors in these tests: the file is refused before anything is computed with it."""
    with pytest.raises(InputError, match=r"input_bits must be from 1 to 2\^53"):
        read_text(tmp_path, GOOD.replace("input_bits: 300", f"input_bits: {bits}"))


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("\x1b[31m\x1b]0;PWNED\x07", "__31m__0_PWNED_"),
        ("=cmd|' /C calc'!A0", "_cmd___/C_calc__A0"),
        ("+1+cmd", "_1+cmd"),
        ("-1", "_1"),
        ("@SUM(1)", "_SUM_1_"),
        ("conv/Relu:0", "conv/Relu:0"),
    ],
)
def test_names_in_a_file_are_cleaned(tmp_path: Path, name: str, clean: str):
    assert read_text(tmp_path, GOOD.replace("3,body", f"3,{name}")).cuts[3].after == clean


def test_the_source_in_a_file_is_cleaned(tmp_path: Path):
    assert read_text(tmp_path, GOOD.replace("by hand", "by\x1b[31m hand")).source == "by_[31m hand"


# Cuts with several tensors

SIDE = Profile(
    "side",
    "by hand",
    (1, 3, 4, 4),
    input_bits=300.0,
    cuts=(
        cut(0, Tensor("image", 48, "uint8"), Tensor("sizes", 2, "int64")),
        cut(100, Tensor("stem", 10), Tensor("sizes", 2, "int64")),
        cut(200, Tensor("q", 6, "uint8"), Tensor("h", 4, "float16"), Tensor("i", 3, "int32")),
        cut(300, Tensor("late", 5), Tensor("image", 48, "uint8")),
        cut(400, Tensor("out", 0, "other")),
    ),
)


def test_the_tensors_of_a_cut_add_up_in_their_own_types_by_hand():
    """Sizes: 2 x 64. Cut 2: 6 x 8 + 3 x 32 whatever the data type, and 4 x 8, or at most the 4 x 16 that they have.

    Cut 3: the image as it is encoded, 384 bits, or the 300 that all inputs have together.
    """
    assert SIDE.bits("uint8").tolist() == [300.0, 80.0 + 128, 48.0 + 32 + 96, 40.0 + 300, 0.0]
    assert SIDE.bits("fp16").tolist() == [300.0, 160.0 + 128, 48.0 + 64 + 96, 80.0 + 300, 0.0]
    assert SIDE.bits("fp32").tolist() == [300.0, 320.0 + 128, 48.0 + 64 + 96, 160.0 + 300, 0.0]


def test_the_size_of_the_encoded_input_holds_wherever_it_is_sent():
    assert SIDE.bits("uint8", input_bits=1e6).tolist() == [1e6, 80.0 + 128, 176.0, 40.0 + 384, 0.0]
    assert SIDE.bits("uint8", input_bits=100.0).tolist() == [100.0, 80.0 + 100, 176.0, 40.0 + 100, 0.0]


def test_a_profile_with_several_tensors_and_times_survives_a_round_trip(tmp_path: Path):
    timed = SIDE.with_seconds(np.array([0.0, 0.1, 0.25, 0.25, 0.5]))
    assert timed.seconds is not None
    assert timed.seconds.tolist() == [0.0, 0.1, 0.25, 0.25, 0.5]
    for number, profile in enumerate((SIDE, timed)):
        path = tmp_path / str(number) / "side.csv"
        path.parent.mkdir()
        path.write_text(write_profile(profile))
        assert read_profile(str(path)) == profile
    assert SIDE.seconds is None


@pytest.mark.parametrize("times", ["0 1 0.5", "0 _ 1", "1 2 3", "0 x 1", "0 nan 1"])
def test_times_that_are_no_times_are_refused(tmp_path: Path, times: str):
    seconds = times.replace("_", "").split(" ")
    head = "# source: x\n# input_shape: 1\n# input_bits: 8\ncut,after,macs,elements,seconds\n"
    rows = "".join(f"{i},t{i},{i},1,{time}\n" for i, time in enumerate(seconds))
    with pytest.raises(InputError, match="seconds"):
        read_text(tmp_path, head + rows)


def test_of_cuts_after_equal_work_only_the_smallest_is_pareto_optimal():
    """A convolution and its pooling: 100 and 50 elements after the same work; the last cut of equals is not."""
    profile = line([0, 10, 10, 10, 20, 30], [200, 100, 50, 50, 40, 1], 1600.0)
    assert profile.pareto_optimal("uint8").tolist() == [True, False, True, False, True, True]


def dominates(one: tuple[int, float, int], other: tuple[int, float, int]) -> bool:
    """Whether the first of two cuts (macs, bits, number) is no worse in both; of equals the first is."""
    if one[:2] == other[:2]:
        return one[2] < other[2]
    return one[0] <= other[0] and one[1] <= other[1]


def test_the_pareto_front_is_the_same_as_by_comparing_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(50):
        macs = [0, *np.sort(rng.integers(0, 5, 8)).tolist(), 5]
        profile = line(macs, [1, *rng.integers(1, 6, 8).tolist(), 1], float(rng.integers(8, 40)))
        points = list(zip(macs, profile.bits("uint8"), range(len(macs)), strict=True))
        expected = [not any(dominates(one, other) for one in points) for other in points]
        assert profile.pareto_optimal("uint8").tolist() == expected


def test_a_table_of_the_pareto_front_leaves_out_the_others():
    share, bits = layer_cuts(FACTS, "uint8", keep="pareto")
    assert share == pytest.approx([0.0, 0.3, 0.9, 1.0], abs=1e-15)
    assert bits.tolist() == [0.0, 32.0, 128.0, 300.0]
    assert table_rows(FACTS, "uint8", keep="pareto").tolist() == [5, 4, 2, 0]
    assert table_rows(FACTS, "uint8").tolist() == [5, 4, 3, 2, 0]


def test_an_unknown_profile_gets_the_nearest_name():
    with pytest.raises(InputError, match=r"no shipped profile 'resnet5'; did you mean 'resnet50'\?"):
        read_profile("resnet5")
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        read_profile("./nowhere.csv")


def test_cuts_with_equal_shares_in_float32_are_not_confused():
    """Two cuts are one MAC of 1e9 apart and only the smaller tensor is affordable: it is the one that is sent."""
    close = line([0, 500_000_000, 500_000_001, 1_000_000_000], [1, 10, 1000, 1], 1e5)
    share, bits = layer_cuts(close, "uint8")
    task = Task(jnp.float32(share), jnp.float32(bits), np.ones(len(share), bool), np.array(False), np.float32(bits[-1]))
    assert float(SENT(task, LARGEST(task, np.float32(100.0)))) <= 100.0


def test_a_profile_without_end_is_refused():
    with pytest.raises(InputError, match="cannot read the profile '/dev/zero': it has more than 10000000 bytes"):
        read_profile("/dev/zero")
