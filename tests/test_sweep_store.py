"""A sweep's folder: cases are there whole or not at all, a folder belongs to one sweep, refusals are one clear line."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partway.errors import InputError
from partway.experiments.sweep.store import Store, opened
from partway.files import replacing, write_whole

PLAN = {"scenario": "devices = 2\nslots = 5\n", "blocks": 10, "versions": {"jax": "1"}, "cases": "abc"}


def filled(folder: Path, description: dict[str, Any] = PLAN, overwrite: bool = False) -> Store:
    with opened(folder, description, overwrite) as store:
        store.write("a", {"status": "ok", "cost": [1.5, math.nan]})
        return store


@given(st.recursive(st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4), max_leaves=20))
def test_what_is_kept_comes_back_bit_for_bit(value: Any):
    import tempfile

    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), PLAN, False) as store:
        store.write("key", {"value": value})
        found = store.read("key")
    assert found is not None
    assert repr(found["value"]) == repr(value)


def test_a_folder_is_gone_on_with(tmp_path: Path):
    filled(tmp_path / "out")
    with opened(tmp_path / "out", PLAN, False) as store:
        assert store.read("a") is not None
        assert store.read("b") is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "renamed", "binary"])
def test_a_damaged_case_counts_as_missing(tmp_path: Path, damage: str):
    store = filled(tmp_path)
    path = tmp_path / "cases" / "a.json"
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-7],
            "flipped": content.replace(b"1.5", b"1.6"),
            "empty": b"",
            "renamed": content,
            "binary": b"\xff\x00" * 50,
        }[damage]
    )
    if damage == "renamed":
        path = path.rename(path.with_name("b.json"))
        assert store.read("b") is None
    else:
        assert store.read("a") is None
    store.write("a", {"status": "ok"})
    assert store.read("a") == {"status": "ok"}


@pytest.mark.parametrize(
    ("relative_change", "words"),
    [
        ({"blocks": 11}, "blocks is 10, not 11"),
        ({"versions": {"jax": "2"}}, "versions of jax is 1, not 2"),
        ({"scenario": "devices = 3\nslots = 5\n"}, "scenario differs in devices = 2"),
        ({"cases": "xyz"}, "a profile's or a policy's file has changed"),
    ],
)
def test_another_sweeps_folder_is_refused_and_left_alone(tmp_path: Path, change: dict[str, Any], words: str):
    filled(tmp_path)
    with pytest.raises(InputError, match="holds another sweep") as refused:
        filled(tmp_path, PLAN | change)
    assert words in str(refused.value)
    assert json.loads((tmp_path / "plan.json").read_text()) == PLAN
    with opened(tmp_path, PLAN | change, True) as store:
        assert store.read("a") is None
    assert json.loads((tmp_path / "plan.json").read_text()) == PLAN | change


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_is_never_touched(tmp_path: Path, overwrite: bool):
    filled(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds 'thesis.tex', which no sweep wrote"):
        filled(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "cases" / "a.json").exists()


def test_a_comparisons_folder_is_not_taken_for_a_sweeps(tmp_path: Path):
    (tmp_path / "results.nc").write_text("a comparison's")
    with pytest.raises(InputError, match="not a sweep's"):
        filled(tmp_path, overwrite=True)
    assert (tmp_path / "results.nc").read_text() == "a comparison's"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path, place: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^--out .*(is not a folder|cannot be written)") as refused:
        filled(tmp_path / place)
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_one_clear_line_and_leaves_nothing_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = filled(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"--out .*: cannot be written .*No space left"):
        store.write("b", {"status": "ok"})
    assert [path.name for path in (tmp_path / "cases").iterdir()] == ["a.json"]
    assert store.read("a") is not None


def test_what_a_killed_sweep_was_writing_is_cleared_away(tmp_path: Path):
    filled(tmp_path)
    for path in (tmp_path / ".plan.json.partial-12ab", tmp_path / "cases" / ".b.json.partial-12ab"):
        path.write_text("half of")
    filled(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {".lock", "plan.json", "cases", "a.json"}


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def interrupted() -> None:
        with replacing(path) as partial:
            partial.write_text("half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"file": "old"}


def test_one_sweep_at_a_time(tmp_path: Path):
    program = "import sys; from pathlib import Path; from partway.sweep_store import opened; import json, time\n"
    program += "with opened(Path(sys.argv[1]), json.loads(sys.argv[2]), False): print('in', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, str(tmp_path), json.dumps(PLAN)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(InputError, match="another sweep is at work there"):
            filled(tmp_path)
        other.kill()
    filled(tmp_path)  # a killed one holds nothing
