"""Times of layers measured elsewhere: files that are read, by hand, and files that are refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from partway.dnn.layer_times import read_times
from partway.dnn.profile import Cut, Profile, Tensor, write_profile
from partway.errors import InputError

NET = Profile(
    "net",
    "by hand",
    (1,),
    800.0,
    (
        Cut((Tensor("x", 100, "uint8"),), 0),
        Cut((Tensor("a", 50),), 100),
        Cut((Tensor("b", 40), Tensor("skip", 5)), 300),
        Cut((Tensor("c", 30),), 300),
        Cut((Tensor("y", 10),), 400),
    ),
)
"""A quarter, half, none and a quarter of 400 MACs."""


def times_of(tmp_path: Path, text: str) -> list[float]:
    file = tmp_path / "times.csv"
    file.write_text(text)
    return read_times(str(file), NET).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "after,ms\na,1\nb+skip,4\nc,5\ny,9\n",
        "after,seconds\na,0.001\nb,0.004\nc,0.005\ny,0.009\n",
        "# on a board\nafter,layer_ms\nx,0\na,1\nskip,3\nc,1\ny,4\n",
        "cut,layer_seconds,temperature\n1,0.001,50\n2,0.003,51\n3,0.001,51\n4,0.004,52\n",
        "\ufeffcut,ms\n1,1\n2,4\n3,5\n4,9\n",
        "after, ms\na, 1\nb+skip, 4\nc, 5\ny, 9\n",
        "cut,after,ms\n1,a,1\n2,skip,4\n3,c,5\n4,,9\n",
    ],
)
def test_every_form_of_the_same_times(tmp_path: Path, text: str):
    assert times_of(tmp_path, text) == pytest.approx([0, 0.001, 0.004, 0.005, 0.009], abs=1e-9)


def test_between_the_rows_time_passes_with_the_work(tmp_path: Path):
    """Of 12 ms for 300 MACs a third is before `a`; `c` comes without work, and so without time, after `b`."""
    assert times_of(tmp_path, "after,ms\nb,12\ny,20\n") == pytest.approx([0, 0.004, 0.012, 0.012, 0.020], abs=1e-7)
    assert times_of(tmp_path, "after,ms\ny,20\n") == pytest.approx([0, 0.005, 0.015, 0.015, 0.020], abs=1e-7)


def test_layers_between_two_cuts_are_added(tmp_path: Path):
    """Rows with the same cut: the last counts."""
    assert times_of(tmp_path, "cut,layer_ms\n1,1\n1,2\n4,3\n")[1::3] == pytest.approx([0.003, 0.006])


def test_a_profile_with_times_is_such_a_file(tmp_path: Path):
    seconds = np.array([0, 0.001, 0.004, 0.005, 0.009])
    file = tmp_path / "net.csv"
    file.write_text(write_profile(NET.with_seconds(seconds)))
    np.testing.assert_allclose(read_times(str(file), NET), seconds, atol=1e-12)


NEEDED = "it needs a column 'after' or 'cut' and one of seconds, ms, layer_seconds, layer_ms"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it needs a column 'after' or 'cut' and one of seconds, ms, layer_seconds, layer_ms"),
        ("after,time\ny,1\n", "it needs a column 'after' or 'cut' and one of seconds"),
        ("name,ms\ny,1\n", "it needs a column 'after' or 'cut' and one of seconds"),
        ("after,ms,seconds\ny,1,1\n", "it needs a column 'after' or 'cut' and one of seconds"),
        ("after,ms\na,1\n", "the time of the output, 'y', is missing"),
        ("after,ms\nskp,1\ny,2\n", "no cut is after 'skp'; did you mean 'skip'?"),
        ("after,ms\na,3\ny,2\n", "ms must not fall"),
        ("after,ms\nc,1\na,2\ny,3\n", "the rows must be in the order of the cuts"),
        ("after,ms\na,1\na,2\ny,3\n", "'a' has several rows"),
        ("after,layer_ms\na,1\na,2\ny,3\n", "'a' has several rows"),
        ("cut,ms\n1,1\n1,2\n4,3\n", "'cut 1' has several rows"),
        (
            "After;MS\na;1\n",
            "it needs a column 'after' or 'cut' and one of seconds, ms, layer_seconds, layer_ms; its first",
        ),
        ("after,ms\na,fast\ny,2\n", "ms must be numbers from 0 to 1000000000, got 'fast'"),
        ("after,ms\na,-1\ny,2\n", "ms must be numbers from 0 to 1000000000, got '-1'"),
        ("after,ms\na,nan\ny,2\n", "ms must be numbers from 0 to 1000000000, got 'nan'"),
        ("after,ms\na\ny,2\n", "ms must be numbers from 0 to 1000000000, got ''"),
        ("after,ms\na,1,5\ny,2\n", "'a,1,5' has more cells than the first line; write 1.5, not 1,5"),
        ("cut,after,ms\n1,b,1\n4,y,2\n", "cut 1 of net is after 'a', not 'b'"),
        ("cut,ms\n9,1\n", "cut must be a whole number from 0 to 4, got '9'"),
        ("cut,ms\n-1,1\n", "cut must be a whole number from 0 to 4, got '-1'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, text: str, reason: str):
    with pytest.raises(InputError) as error:
        times_of(tmp_path, text)
    assert str(error.value).startswith(f"times 'times.csv': {reason}")
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_binary_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read the times '.*none.csv': No such file or directory$"):
        read_times(str(tmp_path / "none.csv"), NET)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot read the times"):
        read_times(str(tmp_path / "binary.csv"), NET)
