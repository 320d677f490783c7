"""Mutated scenarios: loaded, written and read again, built, traced; some are run."""

import json
import math
import random
import tomllib
import warnings
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fuzz.counts import Fail
from partway.cli.output import dataset_json
from partway.experiments.comparison import execute
from partway.experiments.plan import make_plan
from partway.pytree import cast_floats
from partway.rng import controller_keys_on_host
from partway.scenario.loading import load, preset_text, presets
from partway.scenario.schema import GROUP_FIELDS, TABLES, LayersTask, ProportionalTask, Scenario
from partway.schemes import SCHEMES, hyperparameters, pair_for
from partway.simulation.rollout import Options, run_blocks
from partway.simulation.step import init
from partway.system.load import load_of
from partway.system.placement import sample_placement
from partway.system.world import World, build

MAX_BUILT = 2000
"""Larger fleets are loaded only."""
MAX_RUN = 30
TRACED = ("local", "priced")
RAN = ("local", "priced", "drift")
BLOCKS = 20
WILD: tuple[Any, ...] = (
    *(0, -1, 1, 2, 7, 64, 65, 2**31, 2**63, -(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1.0, -1.5, 1e-300, 1e-15, 1e-9, 1e9, 1e18, 1e300, math.inf, -math.inf, math.nan),
    *(True, False, "", "average", "discounted", "as_printed", "paper", "alexnet", "a\x00b", "é" * 300, "inf"),
    *([], [1], [[]], {}, {"kind": "layers"}, {"kind": "none"}, {"a": {"b": 1}}),
)
"""Values that fit few fields."""
PLAUSIBLE: tuple[tuple[str, Any], ...] = (
    ("queue", "as_printed"),
    ("objective", "discounted"),
    ("device.task", {"kind": "layers", "profile": "mobilenetv2", "tensor_dtype": "uint8"}),
    ("device.task", {"kind": "layers", "profile": "resnet50", "tensor_dtype": "fp16", "input_bits": 4e5}),
    ("device.task", {"kind": "proportional", "cycles": 3e9, "bits_per_cycle": 1e-4}),
    ("device.tx_power_max_w", math.inf),
    ("device.distance_m", 50.0),
    ("broadcast_delay_blocks", 0),
    ("slots_per_block", 3),
)
Raw = dict[str, Any]


def load_mutated(rng: random.Random) -> str:
    """A case: load a mutated scenario, and check what is loaded up to the shapes of a run."""
    scenario = mutated(rng)
    if load(tomllib.loads(scenario.to_toml())) != scenario:
        raise Fail("lost result", "the scenario written as TOML is another one")
    if scenario.devices > MAX_BUILT:
        return "accepted, too large to build"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world = build(scenario, sample_placement(scenario))
        sentence = load_of(scenario, world).sentence()
    if any(np.isnan(leaf).any() for leaf in map(np.asarray, jax.tree.leaves(world)) if leaf.dtype.kind == "f"):
        raise Fail("silent NaN", "in the world's constants")
    if "nan" in sentence:
        raise Fail("silent NaN", sentence)
    trace(scenario, world)
    return "accepted and traced"


def run_mutated(rng: random.Random) -> str:
    """A case: run the first mutation that is accepted and gives a small fleet, and look for numbers that are none."""
    for _ in range(200):
        try:
            scenario = mutated(rng)
        except ValueError:
            continue
        if scenario.devices <= MAX_RUN and not scenario.schemes:
            break
    else:
        return "none accepted"
    plan = make_plan(scenario, schemes=list(RAN), blocks=BLOCKS, seeds=[rng.randrange(2**32)])
    try:
        document = json.loads(dataset_json(execute(plan)))
    except ValueError as error:
        if "JSON" in str(error):
            raise Fail("silent NaN", str(error)) from error
        raise
    check_schemes(document["schemes"])
    statuses = sorted({scheme["status"] for scheme in document["schemes"]})
    return f"ran: {', '.join(statuses)}"


def check_schemes(schemes: list[dict[str, Any]]) -> None:
    """Every scheme of a comparison has a cost or a reason, and no error has ended one. Raises Fail."""
    for scheme in schemes:
        if scheme["status"] == "failed":
            raise Fail("traceback", f"{scheme['name']}: {scheme['reason']}")
        if scheme["status"] == "ok" and scheme["cost_per_block"]["mean"] is None:
            raise Fail("silent NaN", f"{scheme['name']} is ok and has no cost")
        if scheme["status"] != "ok" and not scheme["reason"]:
            raise Fail("unclear message", f"{scheme['name']} is {scheme['status']} without a reason")


def mutated(rng: random.Random) -> Scenario:
    """A preset after one to four mutations: of its tree, of its text, or by --set. Raises InputError."""
    name = rng.choice(sorted(presets()))
    way = rng.choice(("tree", "tree", "text", "set"))
    if way == "text":
        text = _text(rng, preset_text(name))
        path = Path(f"mutated-{rng.randrange(2**32)}.toml")
        path.write_text(text, "utf-8", errors="surrogateescape")
        try:
            return load(path)
        finally:
            path.unlink()
    if way == "set":
        return load(name, [_override(rng) for _ in range(rng.randint(1, 4))])
    raw = tomllib.loads(preset_text(name))
    for _ in range(rng.randint(1, 4)):
        rng.choice((_change, _change, _scale, _scale, _scale, _plausible, _plausible, _delete, _rename, _group))(
            raw, rng
        )
    return load(raw)


def fields() -> list[str]:
    """Every field of a scenario, by its dotted name."""
    top = [name for name in Scenario.model_fields if name not in (*TABLES, "group", "schemes")]
    tables = [f"{table}.{field}" for table, section in TABLES.items() for field in section.model_fields]
    tasks = [f"device.task.{field}" for task in (LayersTask, ProportionalTask) for field in task.model_fields]
    own = [f"schemes.{scheme}.{field}" for scheme in SCHEMES for field in hyperparameters(scheme)]
    return [*top, *tables, *tasks, *own]


_fields = cache(fields)


def _holder(raw: Raw, name: str) -> tuple[Raw, str]:
    *path, last = name.split(".")
    table = raw
    for part in path:
        inner = table.get(part)
        table[part] = inner if isinstance(inner, dict) else {}
        table = table[part]
    return table, last


def _change(raw: Raw, rng: random.Random) -> None:
    table, last = _holder(raw, rng.choice(_fields()))
    table[last] = deepcopy(rng.choice(WILD))  # a later mutation may change it


def _scale(raw: Raw, rng: random.Random) -> None:
    """A number that is there, at most a thousandfold, or up to the end of what a float can be."""
    full = load().model_dump(mode="python", exclude_none=True)
    name = rng.choice([name for name in _fields() if not name.startswith("schemes.")])
    table, last = _holder(raw, name)
    value = table.get(last, _holder(full, name)[0].get(last))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    factor = 10 ** rng.uniform(*((-3, 3) if rng.random() < 0.8 else (-300, 300)))
    table[last] = max(1, round(value * min(factor, 100))) if isinstance(value, int) else value * factor


def _plausible(raw: Raw, rng: random.Random) -> None:
    name, value = rng.choice(PLAUSIBLE)
    table, last = _holder(raw, name)
    table[last] = deepcopy(value)


def _delete(raw: Raw, rng: random.Random) -> None:
    table, last = _holder(raw, rng.choice(_fields()))
    table.pop(last, None)


def _rename(raw: Raw, rng: random.Random) -> None:
    table, last = _holder(raw, rng.choice(_fields()))
    table[_text(rng, last)] = table.pop(last, 1)


def _group(raw: Raw, rng: random.Random) -> None:
    """One to three groups of devices, of fields that are mostly right."""
    groups = list[Raw]()
    for _ in range(rng.randint(1, 3)):
        group: Raw = {"count": rng.randint(0, 4)} if rng.random() < 0.7 else {"fraction": rng.choice((0.5, 0.25, 1.0))}
        names = [name.removeprefix("device.") for name in _fields() if name.startswith("device.")] + list(GROUP_FIELDS)
        for name in rng.sample(names, 2):
            table, last = _holder(group, name)
            table[last] = deepcopy(rng.choice((*WILD, 0.3, 1e6, 1e9, 1e-27)))
        groups.append(group)
    raw["group"] = groups
    if rng.random() < 0.8:
        raw["devices"] = max(1, sum(group.get("count") or 0 for group in groups if isinstance(group.get("count"), int)))


def _override(rng: random.Random) -> str:
    name = rng.choice(_fields())
    if rng.random() < 0.1:
        name = _text(rng, name)
    value = rng.choice(WILD) if rng.random() < 0.3 else 10 ** rng.uniform(-12, 12)
    return f"{name}={json.dumps(value) if not isinstance(value, float) else repr(value)}"


def _text(rng: random.Random, text: str) -> str:
    """Characters deleted, doubled or replaced; for a file also whole lines."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        lines[at] = _line(rng, lines[at], lines)
    return "".join(lines)


def _line(rng: random.Random, line: str, lines: list[str]) -> str:
    changed = (
        "",
        line * 2,
        rng.choice(lines),
        "".join(_letter(rng, letter) for letter in line),
        line.replace("=", rng.choice(("= -", "==", "= [", "= 1e", '= "', ""))),
        line.replace(".", rng.choice(("", "..", ","))),
    )
    return rng.choice(changed)


def _letter(rng: random.Random, letter: str) -> str:
    if rng.random() > 0.05:
        return letter
    return rng.choice(("", letter * 2, rng.choice("0123456789.e-+=[]{}\"'#\\,\n\t\x00\udc80é"), letter.upper()))


def trace(scenario: Scenario, world: World) -> None:
    """Trace what a run would compile, without compiling it; shapes that were traced before are not traced again."""
    small = cast_floats(world, "float32", np.asarray)
    leaves, structure = jax.tree.flatten(small)
    shapes = tuple((np.shape(leaf), str(np.asarray(leaf).dtype)) for leaf in leaves)
    for scheme in TRACED:
        if scenario.queue == "as_printed" and not SCHEMES[scheme].fractional:
            continue
        pair = pair_for(scheme, scenario)
        key = (scheme, structure, shapes, repr(pair))
        if key not in _traced:
            keys = controller_keys_on_host(np.zeros(1, np.uint32), scheme)[0]
            jax.eval_shape(partial(_run, pair=pair, keys=keys), small)
            _traced.add(key)


_traced = set[Any]()


def _run(world: World, pair: Any, keys: jax.Array) -> Any:
    seed, first = np.uint32(0), np.uint32(0)
    made, carry = init(world, pair, seed, keys)  # type: ignore[arg-type]
    return run_blocks(world, made, carry, seed, keys[2], first, Options(2))  # type: ignore[arg-type]
