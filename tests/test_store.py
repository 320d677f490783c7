"""A store: units are complete or missing, a folder belongs to one request, a refusal is one clear line."""

import errno
import io
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partway.errors import InputError
from partway.experiments import store as module
from partway.experiments.store import ARRAYS, DIGITS, JSON, Kind, Store, content_hash, opened
from partway.files import MARK, Mark, new_folder, read_mark

SWEEP, PAPER = Kind("sweep", "cases", JSON), Kind("reproduction", "jobs", ARRAYS)
REQUEST = {"scenario": "devices = 2\nslots = 5\n", "blocks": 10, "versions": {"jax": "1", "code": "0" * 32}}
A, B = f"{1:032x}", f"words-of-it-{2:032x}"
CASE = {"status": "ok", "cost": [1.5, math.nan]}
NUMBERS = {
    "cost": np.array([[1.5, np.nan], [-0.0, np.inf]], np.float32),
    "count": np.arange(3),
    "none": np.zeros((0, 2)),
    "word": np.array("µ"),
    "seconds": np.array(2.5),
}

both = pytest.mark.parametrize(("kind", "value"), [(SWEEP, CASE), (PAPER, NUMBERS)], ids=["json", "npz"])


def filled(folder: Path, kind: Kind[Any] = SWEEP, value: Any = CASE, **how: Any) -> Store[Any]:
    """The store in a folder, which has A."""
    with opened(folder, kind, how.pop("request", REQUEST), how.pop("overwrite", False), **how) as store:
        store.write(A, value)
        return store


def file_of(store: Store[Any], key: str = A) -> Path:
    return store.folder / store.kind.units / store.kind.file_name(key)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Units


@given(st.recursive(st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4), max_leaves=20))
def test_json_comes_back_bit_for_bit(value: Any):
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder), SWEEP, REQUEST, False) as store:
        store.write(A, {"value": value})
        kept = store.read(A)
    assert kept is not None
    assert repr(kept["value"]) == repr(value)


def test_arrays_come_back_bit_for_bit_and_other_programs_read_them(tmp_path: Path):
    store = filled(tmp_path, PAPER, NUMBERS)
    with np.load(file_of(store)) as plain:
        for arrays in (store.read(A), dict(plain)):
            assert arrays is not None
            assert {name: (one.dtype, one.shape, one.tobytes()) for name, one in arrays.items()} == {
                name: (one.dtype, one.shape, one.tobytes()) for name, one in NUMBERS.items()
            }


@both
def test_a_store_is_resumed(tmp_path: Path, kind: Kind[Any], value: Any):
    filled(tmp_path / "out", kind, value)
    with opened(tmp_path / "out", kind, REQUEST, False) as store:
        assert store.read(A) is not None
        assert store.read(B) is None


@both
def test_one_flipped_bit_anywhere_is_damage(tmp_path: Path, kind: Kind[Any], value: Any):
    store = filled(tmp_path, kind, value)
    path, content = file_of(store), file_of(store).read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        assert store.read(A) is None
    path.write_bytes(content)
    assert store.read(A) is not None


@both
@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "digest only", "binary", "renamed", "folder"])
def test_a_damaged_file_counts_as_missing_and_is_replaced(tmp_path: Path, kind: Kind[Any], value: Any, damage: str):
    store = filled(tmp_path, kind, value)
    path, content = file_of(store), file_of(store).read_bytes()
    path.unlink()
    written = {
        "cut": content[:-7],
        "longer": content + b"0",
        "empty": b"",
        "digest only": content[-DIGITS:],
        "binary": b"\xff\x00" * 50,
    }
    if damage == "renamed":
        file_of(store, B).write_bytes(content)
        assert store.read(B) is None
    elif damage == "folder":
        path.mkdir()
        assert store.read(A) is None
        path.rmdir()
    else:
        path.write_bytes(written[damage])
        assert store.read(A) is None
    store.write(A, value)
    assert store.read(A) is not None


def zipped(content: bytes, name: str = "x.npy", flags: int = 0, method: int = 0) -> bytes:
    """A zip file of one member; `flags` and `method` of its headers are as given, whatever the member is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
    made = bytearray(buffer.getvalue())
    for at in (6, made.index(b"PK\x01\x02") + 8):
        made[at] |= flags
        made[at + 2] = method
    return bytes(made)


def npy(value: np.ndarray, **how: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, **how)
    return buffer.getvalue()


class Executes:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_what_is_no_file_of_ours_counts_as_missing_though_its_checksum_is_right(tmp_path: Path):
    """And nothing in it is executed."""
    store, trace = filled(tmp_path, PAPER, NUMBERS), tmp_path / "jobs" / "executed"
    objects = npy(np.array([Executes(trace)], object), allow_pickle=True)
    numbers = npy(np.zeros(3))
    bodies = [
        zipped(objects),
        pickle.dumps(Executes(trace)),
        zipped(numbers, flags=1),  # encrypted
        zipped(numbers, method=99),  # compressed in an unknown way
        zipped(numbers[:-8]),
        zipped(b"\x93NUMPY\x01\x00\x10\x00{'descr': broken"),
        numbers,
        b"PK\x05\x06",
    ]
    for body in bodies:
        file_of(store).write_bytes(body + module._checksum(A, body))
        assert store.read(A) is None
    assert not trace.exists()
    body = zipped(numbers)  # so that the test can fail
    file_of(store).write_bytes(body + module._checksum(A, body))
    assert store.read(A) is not None


def test_what_is_no_json_object_counts_as_missing(tmp_path: Path):
    store = filled(tmp_path)
    for body in (b"", b"[" * 100_000, b"3", b'"text"', b"\xff", b'{"a": }'):
        file_of(store).write_bytes(body + module._checksum(A, body))
        assert store.read(A) is None


def test_objects_are_not_written(tmp_path: Path):
    with opened(tmp_path, PAPER, REQUEST, False) as store, pytest.raises(ValueError, match="allow_pickle=False"):
        store.write(A, {"x": np.array([object()])})


def test_a_hash_is_of_the_content_and_not_of_its_order_or_number_types():
    assert content_hash({"a": 1.5, "b": [1, 2]}) == content_hash({"b": (1, np.int64(2)), "a": np.float64(1.5)})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    with pytest.raises(ValueError, match="does not end with a hash"):
        SWEEP.file_name("../escape")


# Folders


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks": 11}, "blocks is 10, not 11"),
        ({"versions": {"jax": "2", "code": "0" * 32}}, 'versions.jax is "1", not "2"'),
        ({"versions": {"jax": "1", "code": "1" * 32}}, "versions.code has changed"),
        ({"scenario": "devices = 3\nslots = 5\n"}, "scenario differs in devices = 2"),
        ({"more": True}, "more is null, not true"),
    ],
)
def test_the_folder_of_another_request_is_refused_and_left_alone(tmp_path: Path, change: dict[str, Any], words: str):
    filled(tmp_path)
    before = (tmp_path / MARK).read_bytes()
    with pytest.raises(
        InputError, match=r"holds another sweep: .*; add --overwrite or choose another folder"
    ) as refused:
        filled(tmp_path, request=REQUEST | change)
    assert words in str(refused.value)
    assert (tmp_path / MARK).read_bytes() == before
    with opened(tmp_path, SWEEP, REQUEST | change, True) as store:
        assert store.read(A) is None
    with pytest.raises(InputError, match="holds another sweep"):
        filled(tmp_path)


def test_overwriting_deletes_units_and_results_but_what_is_to_be_kept(tmp_path: Path):
    store = filled(tmp_path)
    store.write(B, CASE)
    with store.results() as folder:
        (folder / "report.html").write_text("old")
    with opened(tmp_path, SWEEP, REQUEST | {"blocks": 11}, True, keep=[B]) as store:
        assert (store.read(A), store.read(B) is not None) == (None, True)
    assert names(tmp_path) == {MARK, ".lock", "cases", f"cases/{B}.json"}


@pytest.mark.parametrize("foreign", ["thesis.tex", "results.nc", "cases/notes.txt", "cases/a.json", ".hidden", "sub/x"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_ours_is_never_touched(tmp_path: Path, overwrite: bool, foreign: str):
    filled(tmp_path)
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("years of work")
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"holds '[\w.]+', which Partway did not write; choose another folder"):
        filled(tmp_path, overwrite=overwrite)
    assert (tmp_path / foreign).read_text() == "years of work"
    assert names(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_to_a_folder_of_others(tmp_path: Path, overwrite: bool):
    (tmp_path / "cases").mkdir()
    with pytest.raises(InputError, match="holds 'cases', which Partway did not write"):
        filled(tmp_path, overwrite=overwrite)
    assert names(tmp_path) == {"cases"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_mark_cannot_name_files_elsewhere(tmp_path: Path, overwrite: bool):
    (tmp_path / "thesis.tex").write_text("years of work")
    filled(tmp_path / "out")
    Mark("sweep", frozenset({"../thesis.tex"}), REQUEST).write(tmp_path / "out")
    with pytest.raises(InputError, match="which Partway did not write"):
        filled(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("overwrite", [False, True])
def test_each_kind_of_folder_is_refused_by_the_others(tmp_path: Path, overwrite: bool):
    with new_folder(tmp_path / "compared", False) as folder:
        (folder / "results.nc").write_text("a comparison's")
    filled(tmp_path / "swept")
    before = names(tmp_path)
    with pytest.raises(InputError, match="holds results files, not sweep files"):
        filled(tmp_path / "compared", overwrite=overwrite)
    with pytest.raises(InputError, match="holds sweep files, not reproduction files"):
        filled(tmp_path / "swept", PAPER, NUMBERS, overwrite=overwrite)
    with pytest.raises(InputError, match="holds sweep files"), new_folder(tmp_path / "swept", overwrite):
        pass
    assert names(tmp_path) == before


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere", "nul\0byte"])
def test_a_location_that_cannot_be_written_is_one_clear_line(tmp_path: Path, place: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^--out .*(is not a folder|cannot be written)") as refused:
        filled(tmp_path / place)
    assert str(refused.value).isprintable()


@both
def test_a_full_disk_is_one_clear_line_and_leaves_nothing_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind[Any], value: Any
):
    store = filled(tmp_path, kind, value)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def publish() -> None:
        with store.results() as folder:
            (folder / "table.txt").write_text("new")

    before = names(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    for work in (lambda: store.write(B, value), publish):
        with pytest.raises(InputError, match=r"--out .*: cannot be written \(No space left.*again to resume"):
            work()
    assert names(tmp_path) == before
    assert store.read(A) is not None


def test_what_a_killed_process_was_writing_is_deleted(tmp_path: Path):
    filled(tmp_path)
    for path in (tmp_path / f".{MARK}.partial-0012abcd", tmp_path / "cases" / f".{B}.json.partial-0012abcd"):
        path.write_text("half of")
    (tmp_path / ".results.partial-0012abcd").mkdir()
    (tmp_path / ".results.partial-0012abcd" / "table.txt").write_text("half of")
    filled(tmp_path)
    assert names(tmp_path) == {".lock", MARK, "cases", f"cases/{A}.json"}


def test_a_process_killed_before_the_mark_was_there_leaves_a_folder_that_can_be_used(tmp_path: Path):
    (tmp_path / ".lock").touch()
    (tmp_path / f".{MARK}.partial-0012abcd").touch()
    filled(tmp_path)
    assert names(tmp_path) == {".lock", MARK, "cases", f"cases/{A}.json"}


# Results


def test_results_appear_together_and_replace_those_of_before(tmp_path: Path):
    store = filled(tmp_path)
    for text in ("old", "new"):
        with store.results() as folder:
            (folder / "table.txt").write_text(text)
            (folder / f"only-{text}.txt").write_text(text)
            assert not (tmp_path / f"only-{text}.txt").exists()
    assert (tmp_path / "table.txt").read_text() == "new"
    mark = read_mark(tmp_path)
    assert mark
    assert mark.files == {"table.txt", "only-old.txt", "only-new.txt"}
    filled(tmp_path)  # all of it is ours


def test_results_that_fail_leave_those_of_before(tmp_path: Path):
    store = filled(tmp_path)
    with store.results() as folder:
        (folder / "table.txt").write_text("old")
    before = names(tmp_path)

    def fail() -> None:
        with store.results() as folder:
            (folder / "table.txt").write_text("half")
            raise RuntimeError("why")

    with pytest.raises(RuntimeError, match="why"):
        fail()
    assert (tmp_path / "table.txt").read_text() == "old"
    assert names(tmp_path) == before


def test_results_never_replace_what_appeared_in_the_meantime(tmp_path: Path):
    store = filled(tmp_path)
    (tmp_path / "table.txt").write_text("mine")

    def publish() -> None:
        with store.results() as folder:
            (folder / "a.txt").write_text("new")
            (folder / "table.txt").write_text("new")

    with pytest.raises(InputError, match=r"holds 'table\.txt', which Partway did not write"):
        publish()
    assert (tmp_path / "table.txt").read_text() == "mine"
    assert not (tmp_path / "a.txt").exists()


def test_a_kill_between_mark_and_files_leaves_a_folder_that_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The mark names results before they are there."""
    store = filled(tmp_path)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == "table.txt":
            raise KeyboardInterrupt
        return replace(self, target)

    def publish() -> None:
        with store.results() as folder:
            (folder / "a.txt").write_text("new")
            (folder / "table.txt").write_text("new")

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        publish()
    monkeypatch.undo()
    assert (tmp_path / "a.txt").exists()
    filled(tmp_path)


# One process at a time


def test_one_process_at_a_time(tmp_path: Path):
    program = (
        "import json, sys, time; from pathlib import Path; from partway.experiments.store import JSON, Kind, opened\n"
        "with opened(Path(sys.argv[1]), Kind('sweep', 'cases', JSON), json.loads(sys.argv[2]), False):\n"
        "    print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path), json.dumps(REQUEST)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"in\n"
        for overwrite in (False, True):
            with pytest.raises(InputError, match="another process is writing there"):
                filled(tmp_path, overwrite=overwrite)
        other.kill()
    filled(tmp_path)  # a killed one holds no lock
