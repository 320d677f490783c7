"""Damaged files: datasets, marks, finished units of a sweep and of a reproduction, profiles, trained controllers.

What is damaged must be refused or count as missing. A file that is read all the same must say what it said before, but
for a profile, which is text, and the values of a dataset, whose format has sums for arrays only.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

from fuzz.counts import Fail
from partway.dnn.cuts import layer_cuts
from partway.dnn.profile import DTYPE_BITS, SHIPPED, read_profile, write_profile
from partway.experiments import checkpoint
from partway.experiments.comparison import execute, run_scheme
from partway.experiments.plan import Plan, Setting, make_plan, setting_of
from partway.experiments.store import ARRAYS, JSON, Kind, Store, opened
from partway.files import MARK, Mark, read_mark
from partway.measurement.checkpoint import read
from partway.netcdf import DATASET, load_dataset, save_dataset

KEY = "unit-" + "0123456789abcdef" * 2
KINDS = (Kind("sweep", "cases", JSON), Kind("reproduction", "jobs", ARRAYS))
LOADED = 1 / 20
"""Share of the intact-looking controllers with which a run is prepared, too."""


@dataclass(frozen=True)
class Target:
    """A file to damage, and what reads it: "missing", "refused" by InputError, or what it has read."""

    name: str
    content: bytes
    read: Callable[[Path, random.Random], str]


def damage(rng: random.Random) -> str:
    """A case: damage a file and read it."""
    target = rng.choice(targets())
    content = damaged(rng, target.content)
    with TemporaryDirectory() as folder:
        path = Path(folder, target.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return f"{target.name.rpartition('/')[2].rpartition('.')[2]}: {target.read(path, rng)}"


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bits flipped, the end lost, bytes deleted, inserted, overwritten or moved, or digits changed."""
    data = bytearray(content)
    how = rng.choice(("bit", "bit", "bits", "cut", "delete", "insert", "zeros", "noise", "swap", "digits", "append"))
    start = rng.randrange(len(data))
    length = min(rng.choice((1, 4, 16, 512, 4096)), len(data) - start)
    if how in ("bit", "bits"):
        for _ in range(1 if how == "bit" else rng.randint(2, 50)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[start:]
    elif how == "delete":
        del data[start : start + length]
    elif how == "insert":
        data[start:start] = rng.randbytes(length)
    elif how == "zeros":
        data[start : start + length] = bytes(length)
    elif how == "noise":
        data[start : start + length] = rng.randbytes(length)
    elif how == "swap":
        other = rng.randrange(len(data))
        data[start : start + length] = content[other : other + length]
    elif how == "append":
        data += rng.randbytes(length)
    else:
        digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
        for i in rng.choices(digits or [0], k=rng.randint(1, 3)):
            data[i] = ord(rng.choice("0123456789-e."))
    return bytes(data)


@cache
def targets() -> tuple[Target, ...]:
    """The intact files, made once by a process."""
    return _fresh_targets()


def _fresh_targets() -> tuple[Target, ...]:
    plan = make_plan("paper", overrides={"devices": 2, "queue": "as_printed"}, schemes=["local"], blocks=10, seeds=2)
    setting = setting_of(plan.scenario, bound=False)
    made: list[Target] = [_profile(name) for name in ("alexnet", "mobilenetv2")]
    with TemporaryDirectory() as name:
        folder = Path(name)
        made.append(_dataset(plan, folder))
        made.append(_controllers(plan, setting, folder))
        Mark("sweep", frozenset({"results.nc", "table.txt"}), {"blocks": 20, "axes": {"devices": [2, 3]}}).write(folder)
        made.append(_mark((folder / MARK).read_bytes()))
        made += [_unit(kind, folder / kind.name) for kind in KINDS]
    return tuple(made)


def _profile(name: str) -> Target:
    def read_it(path: Path, rng: random.Random) -> str:
        profile = read_profile(str(path))
        dtype = rng.choice(sorted(DTYPE_BITS))
        numbers = [profile.bits(dtype), profile.share(), profile.law_slope(dtype), profile.proportionality(dtype)]
        if not all(np.isfinite(number).all() for number in numbers):
            raise Fail("silent NaN", f"in a damaged profile of {name}")
        layer_cuts(profile, dtype, None)
        if read_profile_text(write_profile(profile), path) != profile:
            raise Fail("lost result", f"a damaged profile of {name} is another one when it is written again")
        return "read"

    return Target(f"{name}.csv", (SHIPPED / f"{name}.csv").read_bytes(), read_it)


def read_profile_text(text: str, path: Path) -> Any:
    """The profile in a text, under the name of a file."""
    path.write_text(text, "utf-8")
    return read_profile(str(path))


def _dataset(plan: Plan, folder: Path) -> Target:
    dataset = execute(plan)
    save_dataset(dataset, folder)

    def read_it(path: Path, rng: random.Random) -> str:
        found = load_dataset(path)
        arrays = [name for name in dataset.data_vars if dataset[name].ndim > 1 and dataset[name].dtype.kind == "f"]
        for name in arrays:
            if name in found and not np.array_equal(found[name], dataset[name], equal_nan=True):
                raise Fail("silent NaN", f"{name} of a damaged dataset has other numbers")
        return "read, as before" if found.identical(dataset) else "read, other words or shapes"

    return Target(DATASET, (folder / DATASET).read_bytes(), read_it)


def _controllers(plan: Plan, setting: Setting, folder: Path) -> Target:
    run = run_scheme(plan, "local", setting)
    checkpoint.save(folder / "a.npz", plan, run)
    intact = read(folder / "a.npz")
    arrays = {name: intact.array(name) for name in intact.kinds}

    def read_it(path: Path, rng: random.Random) -> str:
        found = read(path)
        checkpoint.check(found, plan)
        same = found.header == intact.header and found.kinds == intact.kinds
        if not same or any(found.array(name).tobytes() != arrays[name].tobytes() for name in arrays):
            raise Fail("lost result", "damaged controllers are read as others")
        if rng.random() < LOADED:
            _, carry = checkpoint.resume(found, plan, setting)
            if not all(np.isfinite(leaf).all() for leaf in map(np.asarray, jax.tree.leaves(carry.state))):
                raise Fail("silent NaN", "in damaged controllers")
        return "read, as before"

    return Target("controllers.npz", (folder / "a.npz").read_bytes(), read_it)


def _mark(content: bytes) -> Target:
    def read_it(path: Path, rng: random.Random) -> str:
        mark = read_mark(path.parent)
        if mark and any(Path(name).is_absolute() or ".." in name.split("/") for name in mark.files):
            raise Fail("lost result", "a damaged mark names files elsewhere")
        if rng.random() < LOADED:
            with opened(path.parent, KINDS[0], dict(mark.request) if mark else {}, False):
                pass
        return "read" if mark else "missing"

    return Target(MARK, content, read_it)


def _unit(kind: Kind[Any], folder: Path) -> Target:
    numbers = np.random.default_rng(0).normal(size=(3, 40))
    value = {"cost": numbers, "seconds": np.array(1.5)} if kind is KINDS[1] else {"cost": numbers.tolist(), "gap": None}
    (folder / kind.units).mkdir(parents=True)
    Store(folder, kind, {}, "--out").write(KEY, value)

    def read_it(path: Path, rng: random.Random) -> str:
        found = Store(path.parents[1], kind, {}, "--out").read(KEY)
        if found is None:
            return "missing"
        if not np.array_equal(found["cost"], value["cost"]):
            raise Fail("lost result", f"a damaged unit of a {kind.name} has other numbers")
        return "read, as before"

    name = f"{kind.units}/{kind.file_name(KEY)}"
    return Target(name, (folder / name).read_bytes(), read_it)
