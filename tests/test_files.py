"""Files and folders appear complete or not at all, and never in the place of something else."""

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from partway import files
from partway.errors import InputError
from partway.files import (
    MARK,
    MARK_TITLE,
    Mark,
    new_file,
    new_folder,
    read_limited,
    read_mark,
    replacing,
    write_whole,
)
from partway.netcdf import DATASET, DATASET_VERSION, load_dataset, save_dataset

Open = Callable[[Path, bool], AbstractContextManager[Path]]


def open_file(path: Path, overwrite: bool) -> AbstractContextManager[Path]:
    return new_file(path, overwrite, "--json")


both = pytest.mark.parametrize("new", [new_folder, open_file], ids=["folder", "file"])


def fill(partial: Path, text: str, *names: str) -> None:
    """Write as a command does: into the folder, or into the file."""
    if partial.is_dir():
        for name in names or ("results.json",):
            (partial / name).write_text(text)
    else:
        partial.write_text(text)


def write(new: Open, path: Path, text: str, *names: str, overwrite: bool = False) -> None:
    with new(path, overwrite) as partial:
        fill(partial, text, *names)


def write_while(new: Open, path: Path, happens: Callable[[], object], overwrite: bool = False) -> None:
    """Write "new" while something else happens."""
    with new(path, overwrite) as partial:
        fill(partial, "new")
        happens()


def raising(error: BaseException | type[BaseException]) -> Callable[[], None]:
    def happens() -> None:
        raise error

    return happens


def tree(folder: Path) -> dict[str, str]:
    """Everything under a folder, with what is in it; a folder has no text."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else "" for path in paths}


def refusal(new: Open, path: Path, overwrite: bool = False) -> str:
    """The message that refuses a destination before anything is computed."""
    with pytest.raises(InputError) as caught, new(path, overwrite):
        pytest.fail("it must be refused before the block")
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) <= 300
    assert message.startswith(("out ", "--json "))
    return message


# What appears


@both
def test_what_was_written_appears_under_its_name_and_nothing_else(tmp_path: Path, new: Open):
    out = tmp_path / "results"
    with new(out, False) as partial:
        assert partial.parent == tmp_path
        assert not out.exists()
        fill(partial, "new")
    assert os.listdir(tmp_path) == ["results"]
    assert (out / "results.json" if out.is_dir() else out).read_text() == "new"


@both
def test_rights_are_those_of_any_new_file(tmp_path: Path, new: Open):
    write(new, tmp_path / "results", "new")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    like = tmp_path / ("folder" if (tmp_path / "results").is_dir() else "file")
    assert stat.filemode((tmp_path / "results").stat().st_mode) == stat.filemode(like.stat().st_mode)


def test_folders_above_a_folder_are_made(tmp_path: Path):
    write(new_folder, tmp_path / "a" / "b" / "c", "new")
    assert tree(tmp_path / "a" / "b" / "c")["results.json"] == "new"
    write(new_folder, tmp_path / "a" / "b" / "d", "more")
    assert tree(tmp_path / "a" / "b" / "d")["results.json"] == "more"


@both
def test_relative_names_hang_on_the_folder_one_was_in(tmp_path: Path, new: Open, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with new(Path("results"), False) as partial:
        fill(partial, "new")
        monkeypatch.chdir("elsewhere")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "results"]


@both
def test_the_longest_name_there_is(tmp_path: Path, new: Open):
    write(new, tmp_path / ("n" * 255), "new")
    write(new, tmp_path / ("é" * 127), "new")
    assert len(os.listdir(tmp_path)) == 2


@both
def test_a_link_leads_to_where_results_go(tmp_path: Path, new: Open):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "results")
    write(new, tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "disk") == ["results"]
    write(new, tmp_path / "link", "newer", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert "newer" in {**tree(tmp_path / "disk"), "link": ""}.values()


# What exists


@both
def test_what_exists_is_kept_unless_asked(tmp_path: Path, new: Open):
    write(new, tmp_path / "results", "old")
    before = tree(tmp_path)
    assert "exists already; add --overwrite or choose another " in refusal(new, tmp_path / "results")
    assert tree(tmp_path) == before


@both
def test_what_exists_is_replaced_whole_when_asked(tmp_path: Path, new: Open):
    write(new, tmp_path / "results", "old", "results.json", "only-old.png")
    with new(tmp_path / "results", True) as partial:
        fill(partial, "new", "results.json", "only-new.svg")
        assert "old" in tree(tmp_path).values()
    now = tree(tmp_path)
    assert "new" in now.values()
    assert "old" not in now.values()
    assert not any("only-old" in name or "partial" in name or ".old" in name for name in now)


@both
def test_what_exists_stays_when_the_new_one_fails(tmp_path: Path, new: Open):
    write(new, tmp_path / "results", "old")
    before = tree(tmp_path)
    with pytest.raises(RuntimeError, match="why"):
        write_while(new, tmp_path / "results", raising(RuntimeError("why")), overwrite=True)
    assert tree(tmp_path) == before


@both
def test_what_appears_in_the_meantime_is_kept(tmp_path: Path, new: Open):
    with pytest.raises(InputError, match="exists already"):
        write_while(new, tmp_path / "results", lambda: write(new, tmp_path / "results", "other"))
    assert "other" in tree(tmp_path).values()
    assert "new" not in tree(tmp_path).values()


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path):
    (tmp_path / "results").mkdir()
    write(new_folder, tmp_path / "results", "new")
    assert set(tree(tmp_path)) == {"results", "results/results.json", f"results/{MARK}"}


@pytest.mark.parametrize("foreign", ["notes.txt", "photo.png", "results.nc", "sub/thesis.tex", ".git/config", "empty/"])
def test_a_folder_with_anything_else_in_it_is_refused(tmp_path: Path, foreign: str):
    write(new_folder, tmp_path / "results", "old")
    path = tmp_path / "results" / foreign
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if foreign.endswith("/") else path.write_text("mine")
    before = tree(tmp_path)
    message = refusal(new_folder, tmp_path / "results", overwrite=True)
    assert f"holds '{foreign.split('/')[0]}" in message
    assert "which Partway did not write" in message
    assert tree(tmp_path) == before


OUTSIDE = b'{"title": "%s", "kind": "results", "request": {}, "files": ["results.json", "%s"]}'
BAD_MARKS = (
    None,
    b"",
    b"\xff",
    b"results.json\n",
    b"null",
    b"[]",
    b'{"title": "another", "kind": "results", "request": {}, "files": ["results.json"]}',
    b'{"title": "%s", "files": 3}' % MARK_TITLE.encode(),
    b'{"kind": "results", "request": {}, "files": ["results.json"]}',
    OUTSIDE % (MARK_TITLE.encode(), b"/etc/passwd"),
    OUTSIDE % (MARK_TITLE.encode(), b"sub/../../thesis.tex"),
)


@pytest.mark.parametrize("mark", BAD_MARKS)
def test_a_folder_that_looks_like_results_is_refused(tmp_path: Path, mark: bytes | None):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.json").write_text("mine")
    if mark is not None:
        (tmp_path / "results" / MARK).write_bytes(mark)
    assert "which Partway did not write" in refusal(new_folder, tmp_path / "results", overwrite=True)
    assert (tmp_path / "results" / "results.json").read_text() == "mine"


def test_the_mark_names_what_was_written(tmp_path: Path):
    with new_folder(tmp_path / "results", False) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "deep.txt").write_text("new")
    assert read_mark(tmp_path / "results") == Mark("results", frozenset({"sub", "sub/deep.txt"}))


def test_a_folder_that_another_command_resumes_is_refused(tmp_path: Path):
    (tmp_path / "results").mkdir()
    Mark("sweep", frozenset(), {"blocks": 3}).write(tmp_path / "results")
    assert read_mark(tmp_path / "results") == Mark("sweep", frozenset(), {"blocks": 3})
    for overwrite in (False, True):
        assert "holds sweep files" in refusal(new_folder, tmp_path / "results", overwrite)
    assert os.listdir(tmp_path / "results") == [MARK]


def test_a_folder_that_another_command_wrote_is_refused(tmp_path: Path):
    """Also at the end, if it was written there meanwhile; the command itself, and one without a name, are not."""
    with new_folder(tmp_path / "halves", False, "split") as folder:
        (folder / "manifest.json").write_text("{}")
    with (
        pytest.raises(InputError, match="holds split files, which only that command replaces"),
        new_folder(tmp_path / "halves", True, "cut"),
    ):
        pass
    with new_folder(tmp_path / "halves", True, "split"):
        pass
    assert os.listdir(tmp_path / "halves") == [MARK]


def test_what_is_put_into_a_folder_while_a_run_goes_on_is_kept(tmp_path: Path):
    write(new_folder, tmp_path / "results", "old")
    notes = tmp_path / "results" / "notes.txt"
    with pytest.raises(InputError, match=r"holds 'notes\.txt'"):
        write_while(new_folder, tmp_path / "results", lambda: notes.write_text("mine"), overwrite=True)
    assert tree(tmp_path / "results").keys() == {MARK, "notes.txt", "results.json"}
    assert os.listdir(tmp_path) == ["results"]


def test_a_result_some_of_whose_files_were_removed_is_still_ours(tmp_path: Path):
    write(new_folder, tmp_path / "results", "old", "results.json", "table.txt")
    (tmp_path / "results" / "table.txt").unlink()
    write(new_folder, tmp_path / "results", "new", overwrite=True)
    assert tree(tmp_path / "results")["results.json"] == "new"


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", "", "..", "/", "/proc"):
        assert "is in use and cannot be replaced; name a new folder inside it" in refusal(
            new_folder, Path(name), overwrite=True
        )


def test_a_device_is_no_file(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), Path("/dev/full")):
        before = path.stat()
        for overwrite in (False, True):
            assert "is not a regular file" in refusal(open_file, path, overwrite)
            assert "is not a folder" in refusal(new_folder, path, overwrite)
        assert path.stat().st_mode == before.st_mode


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for overwrite in (False, True):
        assert "is not a folder" in refusal(new_folder, tmp_path / "file", overwrite)
        assert "is a folder; name a file" in refusal(open_file, tmp_path / "folder", overwrite)
    assert tree(tmp_path) == {"file": "mine", "folder": ""}


# What fails


@both
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit, BrokenPipeError, MemoryError])
def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path, new: Open, failure: type[BaseException]):
    with pytest.raises(failure):
        write_while(new, tmp_path / "results", raising(failure))
    assert os.listdir(tmp_path) == []


def test_no_folder_above_is_left_of_a_run_that_fails(tmp_path: Path):
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_while(new_folder, tmp_path / "there" / "a" / "b" / "c", raising(KeyboardInterrupt))
    assert tree(tmp_path) == {"there": ""}


def test_a_folder_above_stays_if_somebody_has_used_it(tmp_path: Path):
    def happens() -> None:
        (tmp_path / "a" / "notes.txt").write_text("mine")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_while(new_folder, tmp_path / "a" / "b" / "c", happens)
    assert tree(tmp_path) == {"a": "", "a/notes.txt": "mine"}


@both
def test_a_second_interrupt_does_not_stop_the_cleaning_up(tmp_path: Path, new: Open, monkeypatch: pytest.MonkeyPatch):
    remove, removed = os.unlink, list[Path]()

    def interrupted(path: Path, **options: Any) -> None:
        removed.append(path)
        signal.raise_signal(signal.SIGINT)
        remove(path, **options)

    monkeypatch.setattr(os, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_while(new, tmp_path / "results", lambda: signal.raise_signal(signal.SIGINT))
    assert removed
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@both
def test_a_rename_that_fails_leaves_the_old(tmp_path: Path, new: Open, monkeypatch: pytest.MonkeyPatch):
    write(new, tmp_path / "results", "old")
    before = tree(tmp_path)

    def refuse(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise PermissionError(1, "Operation not permitted")
        os.rename(self, target)
        return target

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="Operation not permitted"):
        write(new, tmp_path / "results", "new", overwrite=True)
    assert tree(tmp_path) == before


@both
def test_it_works_outside_the_main_thread(tmp_path: Path, new: Open):
    thread = threading.Thread(target=write, args=(new, tmp_path / "results", "new"))
    thread.start()
    thread.join()
    assert os.listdir(tmp_path) == ["results"]


@both
def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path, new: Open):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    reasons = {
        tmp_path / "file" / "below": "Not a directory|File exists",
        tmp_path / "file" / "far" / "below": "Not a directory|No such file",
        Path("/proc/results"): "No such file",
        Path("/proc/a/b/results"): "No such file",
        tmp_path / ("n" * 256): "File name too long",
        tmp_path / "a" / ("n" * 256) / "results": "File name too long|No such file",
        tmp_path / "nul\0byte": "null byte|null character",
        tmp_path / "nul\0byte" / "results": "null byte|null character",
        tmp_path / "surrogate\ud800": "encode|surrogate",
        tmp_path / "loop": "is not a folder|is not a regular file",
        Path("/sys/results"): "Operation not permitted|Permission denied|Read-only",
    }
    before = tree(tmp_path)
    for path, reason in reasons.items():
        message = refusal(new, path)
        assert any(each in message for each in reason.split("|")), message
        assert tree(tmp_path) == before


@contextmanager
def no_room(limit: int) -> Iterator[None]:
    """A disk without room for a file of more than `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@both
def test_a_full_disk_is_an_input_error_and_leaves_nothing(tmp_path: Path, new: Open):
    with no_room(1000), pytest.raises(InputError, match=r"results'?: cannot be written \(File too large\)"):
        write(new, tmp_path / "results", "x" * 5000)
    assert os.listdir(tmp_path) == []


def test_a_dataset_on_a_full_disk(tmp_path: Path):
    with (
        no_room(1000),
        pytest.raises(InputError, match="cannot be written"),
        new_folder(tmp_path / "out", False) as folder,
    ):
        save_dataset(dataset(), folder)
    assert os.listdir(tmp_path) == []


# What killed processes have left

KILLED = """
import os, signal, sys
from pathlib import Path
from partway import files
new = files.new_folder if sys.argv[1] == "folder" else lambda path, overwrite: files.new_file(path, overwrite, "--json")
with new(Path(sys.argv[2]), True) as partial:
    print("writing", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def another_process(kind: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing; a line makes it kill itself."""
    command = [sys.executable, "-c", KILLED, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


@pytest.mark.parametrize(("kind", "new"), [("folder", new_folder), ("file", open_file)])
def test_the_next_run_deletes_what_a_killed_one_was_writing(tmp_path: Path, kind: str, new: Open):
    with another_process(kind, tmp_path / "results") as process:
        (partial,) = os.listdir(tmp_path)
        write(new, tmp_path / "results", "new")  # of a living process nothing is deleted
        assert sorted(os.listdir(tmp_path)) == [partial, "results"]
        process.communicate("die\n")
    write(new, tmp_path / "other", "new")  # nor what is beside
    assert sorted(os.listdir(tmp_path)) == [partial, "other", "results"]
    write(new, tmp_path / "results", "newer", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["other", "results"]


def test_results_that_a_killed_process_had_moved_aside_come_back(tmp_path: Path):
    write(new_folder, tmp_path / "results", "old")
    (tmp_path / "results").rename(tmp_path / ".results.old-0012abcd")
    assert "exists already" in refusal(new_folder, tmp_path / "results")
    assert tree(tmp_path / "results")["results.json"] == "old"
    (tmp_path / ".results.old-0012abcd").mkdir()
    (tmp_path / ".results.old-0012abcd" / "results.json").write_text("older")
    write(new_folder, tmp_path / "results", "new", overwrite=True)
    assert os.listdir(tmp_path) == ["results"]
    assert tree(tmp_path / "results")["results.json"] == "new"


def test_names_that_look_like_ours_are_not_all_ours(tmp_path: Path):
    others = {
        ".results.partial-0012",
        ".results.partial-0012abcd.txt",
        "results.partial-0012abcd",
        ".resultsXold-0012abcd",
    }
    for name in others:
        (tmp_path / name).write_text("mine")
    write(new_folder, tmp_path / "results", "new")
    assert set(os.listdir(tmp_path)) == {*others, "results"}


def test_a_stream_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "five").write_bytes(b"12345")
    assert read_limited(tmp_path / "five", 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_limited(tmp_path / "five", 4)
    monkeypatch.setattr(files, "MAX_STREAM", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read_limited("/dev/zero", 10**12)


# Datasets


def dataset() -> xr.Dataset:
    """What a comparison has: several types and dimensions, text, units, NaN, attributes."""
    rng = np.random.default_rng(0)
    made = xr.Dataset(
        {
            "cost": (("scheme", "seed", "block"), rng.normal(size=(2, 3, 50)).astype(np.float32), {"units": "J"}),
            "growth_per_block": ("scheme", [np.nan, 0.5]),
            "status": ("scheme", ["ok", "not_applicable"]),
            "reason": ("scheme", ["", "it counts µ-tasks"]),
            "heavy_tail": ("scheme", [True, False]),
            "signals_up": ("scheme", [0, 1]),
            "lonely": ((), 3.5),
        },
        {"scheme": ["local", "mymodule:MyPolicy"], "seed": [0, 7, 4_000_000_000]},
    )
    made.attrs = {"scenario": "devices = 2\n[radio]\n", "warmup": 25, "discount": 0.95, "server": ""}
    return made


def test_a_dataset_comes_back_as_it_was(tmp_path: Path):
    with new_folder(tmp_path / "out", False) as folder:
        save_dataset(dataset(), folder)
    for location in (tmp_path / "out", str(tmp_path / "out"), tmp_path / "out" / DATASET):
        back = load_dataset(location)
        xr.testing.assert_identical(back, dataset())
        assert {name: back[name].dtype.kind for name in back} == {
            name: dataset()[name].dtype.kind for name in dataset()
        }


def test_a_folder_without_a_dataset_is_told_from_one_that_does_not_exist(tmp_path: Path):
    with pytest.raises(InputError, match=f"{tmp_path.name}': has no {DATASET}; give a folder"):
        load_dataset(tmp_path)
    with pytest.raises(InputError, match="none': cannot be read \\(No such file or directory\\)"):
        load_dataset(tmp_path / "none")


def test_a_dataset_of_another_version_is_refused(tmp_path: Path):
    save_dataset(dataset(), tmp_path)
    assert xr.load_dataset(tmp_path / DATASET).attrs["schema_version"] == DATASET_VERSION
    for version, attributes in ((1, {}), (DATASET_VERSION + 1, {"schema_version": DATASET_VERSION + 1})):
        dataset().assign_attrs(attributes).to_netcdf(tmp_path / DATASET, engine="netcdf4")
        reads = f"has schema_version {version}, and this version of Partway reads {DATASET_VERSION}"
        with pytest.raises(InputError, match=reads):
            load_dataset(tmp_path)


def test_an_error_while_a_file_is_replaced_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def interrupted() -> None:
        with replacing(path) as partial:
            partial.write_text("half of the new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert tree(tmp_path) == {"file": "old"}


@pytest.mark.parametrize("what", [5, None, b"results"])
def test_what_is_no_name_of_a_folder_is_refused(what: Any):
    with pytest.raises(InputError, match="the folder of results must be a path, got"):
        load_dataset(what)


def test_a_damaged_dataset_is_refused(tmp_path: Path):
    """Cut anywhere, with bytes that were overwritten or with more at the end: HDF5 itself may read one without end."""
    save_dataset(dataset(), tmp_path)
    content, rng = (tmp_path / DATASET).read_bytes(), np.random.default_rng(3)
    for length in np.linspace(0, len(content) - 1, 20, dtype=int):
        (tmp_path / DATASET).write_bytes(content[:length])
        with pytest.raises(InputError, match="cannot be read"):
            load_dataset(tmp_path)
    for start in rng.integers(len(content), size=40):
        damaged = bytearray(content)
        damaged[start : start + 8] = rng.bytes(len(damaged[start : start + 8]))
        (tmp_path / DATASET).write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            load_dataset(tmp_path)
    (tmp_path / DATASET).write_bytes(content + b"more")
    with pytest.raises(InputError, match="it has changed since it was written"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("what", ["missing", "empty folder", "junk", "folder with junk", "nul\0byte"])
def test_what_is_no_dataset_is_refused(tmp_path: Path, what: str):
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "folder with junk").mkdir()
    for junk in (tmp_path / "junk", tmp_path / "folder with junk" / DATASET):
        junk.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(InputError, match="give a folder that `partway compare --out` wrote") as caught:
        load_dataset(tmp_path / what)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 300


def test_a_signal_while_a_dataset_is_written_takes_effect_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An exception inside would leave xarray's locks locked, and the command would never end."""
    write = xr.Dataset.to_netcdf

    def interrupted(dataset: xr.Dataset, *arguments: Any, **named: Any):
        signal.raise_signal(signal.SIGINT)
        write(dataset, *arguments, **named)

    monkeypatch.setattr(xr.Dataset, "to_netcdf", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        save_dataset(xr.Dataset({"cost": ("block", [1.0, 2.0])}), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert load_dataset(tmp_path)["cost"].values.tolist() == [1.0, 2.0]
