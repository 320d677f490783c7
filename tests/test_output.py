"""Results are printed before they are written, and what fails keeps nothing else from being written."""

import argparse
import contextlib
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from conftest import scheduled
from rich.console import Console

from partway import figures
from partway.cli import output
from partway.cli.main import main
from partway.errors import InputError
from partway.netcdf import save_dataset

RUN = ("run", "--schemes", "local", "--set", "devices=2", "queue=as_printed", "--seeds", "2", "--blocks", "10")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test stands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def no_space(*_: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raising(error: BaseException) -> Callable[[], None]:
    def happens() -> None:
        raise error

    return happens


def finish(events: list[str], *steps: output.Step, table: Callable[[Console], object] | None = None) -> None:
    options = argparse.Namespace(json=None)
    output.finish(options, str, table or (lambda console: events.append("table")), steps)


def noting(events: list[str], name: str) -> output.Step:
    return lambda: events.append(name)


def test_the_table_comes_before_the_files():
    events = list[str]()
    finish(events, noting(events, "json"), noting(events, "out"))
    assert events == ["table", "json", "out"]


def test_all_is_written_that_can_be_and_all_that_cannot_is_named():
    events = list[str]()
    steps = [raising(InputError(f"{name}: no space")) for name in ("--save", "--json")]
    with pytest.raises(InputError, match="--save: no space; --json: no space"):
        finish(events, *steps, noting(events, "out"))
    assert events == ["table", "out"]


def test_a_fault_of_the_program_is_not_hidden_and_loses_nothing():
    events = list[str]()
    steps = raising(InputError("no space")), raising(RuntimeError("fault"))
    with pytest.raises(RuntimeError, match="fault"):
        finish(events, *steps, noting(events, "out"))
    assert events == ["table", "out"]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left"), RuntimeError("a fault")])
def test_files_are_written_although_the_table_cannot_be_printed(error: Exception):
    events = list[str]()
    with pytest.raises(type(error)):
        finish(events, noting(events, "out"), table=lambda console: raising(error)())
    assert events == ["out"]


def call(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


def test_a_full_disk_behind_out_loses_neither_table_nor_json_nor_controllers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figures, "write_run", no_space)
    with scheduled(BLOCKS_PER_CALL=10):
        code, out, err = call(*RUN, "--out", "o", "--json", "j.json", "--save", "s.npz")
        continued, _, _ = call("run", "--load", "s.npz", "--blocks", "10")
    assert (code, continued) == (2, 0)
    assert "cost" in out
    assert (
        err.splitlines()[-1]
        == "partway: --out 'o': cannot be written (No space left on device); choose another location"
    )
    assert {path.name for path in folder.iterdir()} == {"cache", "j.json", "s.npz"}
    assert json.loads(Path("j.json").read_text())["schemes"][0]["name"] == "local"


def test_a_full_disk_behind_save_loses_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("partway.measurement.checkpoint.np.savez_compressed", no_space)
    with scheduled(BLOCKS_PER_CALL=10):
        code, out, err = call(*RUN, "--out", "o", "--save", "s.npz")
    assert code == 2
    assert "cost" in out
    assert err.splitlines()[-1].startswith("partway: --save 's.npz': cannot be written (No space left on device)")
    assert {path.name for path in folder.iterdir()} == {"cache", "o"}


def test_a_full_disk_is_named_where_netcdf_does_not(folder: Path, monkeypatch: pytest.MonkeyPatch):
    class Dataset:
        data_vars = MappingProxyType[str, Any]({})

        def assign_attrs(self, **attributes: Any) -> "Dataset":
            return self

        def to_netcdf(self, *_: Any, **options: Any) -> None:
            raise RuntimeError("NetCDF: HDF error")

    dataset: Any = Dataset()
    with pytest.raises(InputError, match=r"results.nc: cannot be written \(NetCDF: HDF error\)"):
        save_dataset(dataset, folder)
    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(InputError, match=r"results.nc: cannot be written \(No space left on device\)"):
        save_dataset(dataset, folder)
    assert os.listdir(folder) == []
