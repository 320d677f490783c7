"""The main job: whole commands with an empty and with a filled folder of compiled programs, and the parts of it."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT, command_environment, command_s, cores, finish, start_module

COMMANDS: dict[str, tuple[str, ...]] = {
    "compare": ("compare", "--scenario", "paper"),
    "run": ("run", "--set", "devices=4", "--blocks", "500"),
    "--help": ("--help",),
    "schemes": ("schemes",),
}
"""What is timed, by the name of its record, without --out."""
WRITES = ("compare", "run")
"""Commands that write their results: data, JSON and figures."""
CACHES = ("cold", "warm")
"""With an empty folder of compiled programs, and with what the call before has left there."""
REPEATS = {"compare": 3, "run": 5, "--help": 5, "schemes": 5}
DEVICE_BLOCK = {"devices": 20, "runs": 8, "blocks": 500}


def trees(before: Path | None) -> dict[str, Path]:
    """The checkouts that are timed: this one and, if there is one, an older one."""
    return {"now": ROOT} | ({"before": before} if before else {})


def command_times(arguments: Sequence[str], checkouts: Mapping[str, Path], on: tuple[int, ...] = ()) -> dict[str, Any]:
    """Seconds of `partway ARGUMENTS` by checkout, {"now": {"cold": s, "warm": s}, ...}, one process after another.

    on  the cores it may use, all if none are named
    """
    found = dict[str, Any]()
    for name, root in checkouts.items():
        subprocess.run([sys.executable, "-m", "compileall", "-q", "partway"], cwd=root, check=False)
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = {
                    cache: command_s(_written(arguments, Path(folder) / cache), folder, on=on, root=root)
                    for cache in CACHES
                }
            except RuntimeError as error:
                return {"failed": f"{name}: {error}"}
    return found


def part_times(arguments: Sequence[str], on: tuple[int, ...] = ()) -> dict[str, Any]:
    """Seconds by part of `partway compare`, {"cold": {part: s}, "warm": {part: s}}."""
    found = dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for cache in CACHES:
            written = _written(arguments, Path(folder) / cache)
            given = {"arguments": written, "cores": on or cores(), "launched": time.time()}
            parts = finish(start_module("benchmarks.main_parts", json.dumps(given), command_environment(folder)))
            if "failed" in parts:
                return parts
            found[cache] = parts
    return found


def _written(arguments: Sequence[str], folder: Path) -> list[str]:
    """The arguments with the folder to write to, of commands that write."""
    return [*arguments, *(["--out", str(folder)] if arguments[0] in WRITES else [])]
