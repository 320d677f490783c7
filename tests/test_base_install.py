"""What `pip install .` brings is enough without any extra, and what needs one says which."""

import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_packaging import EXTRAS, ROOT, RUN, names

BASE = ("--help", "schemes", "scenarios paper", "profile resnet50", "import partway.experiments.comparison")
"""Commands that need no extra, and an import of all that a comparison computes with."""
EXTRA_OF = {
    "profile net.onnx": "onnx",
    "cut net.onnx": "onnx",
    "split net.onnx --out halves": "onnx",
    "live": "live",
    "live --page": "live",
    "serve": "live",
    "join 127.0.0.1:7070": "live",
    "preflight": "live",
    "view .": "live",
    "sweep --axis devices=1,2 --dask tcp://127.0.0.1:1 --out sweep": "cluster",
    "import partway.env.single": "env",
    "import partway.env.vector": "env",
    "import partway.env.parallel": "env",
    "import partway.env.shells": "env",
}
"""Commands and imports that need one."""
PROGRAM = """
import contextlib, importlib, io, json, sys
from importlib.machinery import PathFinder

absent, wanted = json.loads(sys.argv[1])

class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path = [Installed if finder is PathFinder else finder for finder in sys.meta_path]
from partway import *
from partway.cli.main import main
from partway.errors import InputError
import partway.env

found = {}
for words in wanted:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            if words.startswith("import "):
                print(importlib.import_module(words.removeprefix("import ")))
                status = 0
            else:
                status = main(words.split())
        except SystemExit as end:
            status = end.code
        except InputError as error:
            status = 2
            print(error, file=errors)
        except Exception as error:
            status = repr(error)
    found[words] = status, out.getvalue(), errors.getvalue()
print(json.dumps(found))
"""
"""In a process that finds all modules but the `absent` ones: how each of the `wanted` ends, and what it prints."""


def absent() -> list[str]:
    """Modules of all distributions that are installed here and would not be with Partway alone."""
    base, new = {"partway"}, names(RUN)
    while new:
        base |= new
        needed = [Requirement(text) for name in new for text in requires(name) or ()]
        here = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
        new = {canonicalize_name(one.name) for one in here} - base
    return sorted(module for module, owners in packages_distributions().items() if not names(owners) & base)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Status, standard output and standard error of each of BASE and EXTRA_OF."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "net.onnx").touch()
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([absent(), [*BASE, *EXTRA_OF]])],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_what_extras_bring_is_absent():
    homes, gone = packages_distributions(), set(absent())
    brought = {name for extra in ("onnx", "live", "env", "cluster", "tune") for name in names(EXTRAS[extra])}
    assert {name for module in gone for name in names(homes[module])} >= brought
    assert gone.isdisjoint({"jax", "numpy", "pandas", "partway"})


@pytest.mark.parametrize("command", BASE)
def test_the_base_install_is_enough(command: str, found: dict[str, Any]):
    status, out, errors = found[command]
    assert status == 0, errors
    assert out


@pytest.mark.parametrize(("words", "extra"), EXTRA_OF.items())
def test_a_missing_extra_is_named(words: str, extra: str, found: dict[str, Any]):
    """In one line; `preflight` has it in its table."""
    status, out, errors = found[words]
    assert status == 2
    assert f"pip install 'partway[{extra}]'" in (out if words == "preflight" else errors)
    assert errors.count("\n") == 1
