"""Trained controllers on disk: a run that is kept, loaded and continued goes on as if it had never stopped.

One .npz file holds the arrays of the pair (what the controllers are made of and have agreed on) and of the loop (state
of the world, memories) under the paths that JAX gives them, and a header in JSON. Nothing in it is ever executed.
"""

import json
import platform
import tomllib
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from partway.errors import InputError, shown
from partway.experiments.comparison import OnProgress, Plan, play
from partway.provenance import version
from partway.pytree import cast_floats
from partway.schemes import find_scheme, pair_for
from partway.simulation.rollout import Run, begin, go_on
from partway.simulation.step import Carry, ControllerPair
from partway.system.exogenous import gains
from partway.system.world import World

HEADER = "header"
LAST_BLOCK = 2**32 - 1
"""Draws hang on the number of the block, which has 32 bits."""


class Header(BaseModel):
    """What a file of trained controllers says of itself.

    blocks    played so far        scenario  the complete scenario as TOML
    switches  the hyperparameters that are whole numbers, words or yes and no; the others are among the arrays
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    format: Literal[1] = 1
    scheme: str
    server: str | None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...]
    blocks: Annotated[int, Field(ge=1, le=LAST_BLOCK)]
    precision: Literal["float32", "float64"]
    scenario_name: str
    scenario: str
    devices: Annotated[int, Field(ge=1)]
    switches: dict[str, bool | int | str]
    versions: dict[str, str]


@dataclass(frozen=True)
class Kept:
    """A file of trained controllers: its header, its arrays by tree path, and the flag that named it."""

    header: Header
    arrays: dict[str, np.ndarray]
    given: str

    def scenario(self) -> dict[str, Any]:
        """The scenario it was trained in, as `partway.load` takes it."""
        return tomllib.loads(self.header.scenario)


def save(path: Path, plan: Plan, played: Run, before: int = 0) -> None:
    """Write what a run of the plan's only scheme has left; `before`: blocks it had been trained for when it began."""
    (name,) = plan.schemes
    header = Header(
        scheme=name,
        server=plan.server,
        seeds=plan.seeds,
        blocks=before + plan.blocks,
        precision="float64" if plan.precision == "float64" else "float32",
        scenario_name=plan.name,
        scenario=plan.scenario.to_toml(),
        devices=plan.scenario.devices,
        switches=_switches(played.pair),
        versions={
            "partway": version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )
    arrays = {name: np.asarray(_numbers(leaf)) for name, leaf in _named(played.pair, played.loop)}
    with path.open("wb") as file:
        arrays[HEADER] = np.array(json.dumps(header.model_dump(mode="json")))
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: str | Path) -> Kept:
    """The trained controllers in a file; raises InputError where it is none."""
    given = f"--load {shown(str(path), 100)}"
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = Header.model_validate_json(str(arrays.pop(HEADER)[()]))
        kept = Kept(header, arrays, given)
        kept.scenario()
    except OSError as error:
        raise InputError(f"{given}: cannot be read ({error.strerror}); name a file of `partway run --save`") from None
    except (ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, NotImplementedError) as error:
        why = "its header does not fit" if isinstance(error, ValidationError) else type(error).__name__
        raise InputError(
            f"{given}: holds no trained controllers ({why}); name a file of `partway run --save`"
        ) from None
    return kept


def check(kept: Kept, plan: Plan) -> None:
    """Raise InputError unless the plan can go on where the file ends, as far as can be told before anything runs."""
    header, given = kept.header, kept.given
    asked = {
        "--schemes": (" ".join(plan.schemes), header.scheme),
        "--server": (plan.server or "", header.server or ""),
        "--precision": (plan.precision, header.precision),
    }
    for flag, (wanted, had) in asked.items():
        if wanted != had:
            raise InputError(
                f"{flag} {wanted or 'of its own'}: {given} was trained with {had or 'its own'}; leave {flag} out or "
                "load another file"
            )
    if len(plan.seeds) != len(header.seeds):
        raise InputError(
            f"--seeds: {len(plan.seeds)} given, but {given} was trained on {len(header.seeds)}, one policy each; leave "
            "--seeds out or name as many"
        )
    if plan.scenario.devices != header.devices:
        raise InputError(
            f"devices = {plan.scenario.devices}: {given} was trained with {header.devices} devices; "
            f"set devices={header.devices} or train anew"
        )
    if header.blocks + plan.blocks > LAST_BLOCK:
        raise InputError(f"--blocks {plan.blocks}: {given} ends at block {header.blocks}; allowed is {LAST_BLOCK}")


def resume(kept: Kept, plan: Plan, world: World) -> tuple[ControllerPair, Carry]:
    """The pair and the loop of the file, in this world, checked against what a start here would be.

    What the scenario sets under [schemes.NAME] holds; all other hyperparameters are the file's. In another world the
    queues and the memories are carried over as they are, in tasks, and the gain is drawn anew.
    """
    name, header, seeds = kept.header.scheme, kept.header, plan.seeds
    pair = _with_switches(pair_for(name, plan.scenario, plan.server), header, plan.scenario.schemes.get(name, {}))
    prepare = find_scheme(name).prepare
    fresh = begin(world, pair, name, seeds, plan.precision)
    if prepare is not None and {path for path, _ in _named(*fresh)} != set(kept.arrays):
        fresh = begin(world, prepare(pair, world), name, seeds, plan.precision)
    with jax.enable_x64(plan.precision == "float64"):
        agreed, loop = _filled(kept, *fresh, set(plan.scenario.schemes.get(name, {})))
        if (plan.scenario.to_toml(), seeds) == (header.scenario, header.seeds):
            return agreed, loop
        concrete, numbers = cast_floats(world, plan.precision), jnp.asarray(seeds, jnp.uint32)
        now = jax.vmap(gains, in_axes=(None, 0, None))(concrete, numbers, jnp.uint32(header.blocks))
        return agreed, replace(loop, state=replace(loop.state, gain=now))


def proceed(kept: Kept | None, plan: Plan, name: str, world: World, on_progress: OnProgress, traces: bool) -> Run:
    """`partway.comparison.play`, from where the file ends, if there is one."""
    if kept is None:
        return play(plan, name, world, on_progress, traces)

    def done(blocks: int) -> None:
        on_progress(name, blocks)

    on_progress(name, 0)
    pair, loop = resume(kept, plan, world)
    how: dict[str, Any] = {"precision": plan.precision, "traces": traces, "on_progress": done}
    return go_on(world, pair, loop, name, plan.seeds, plan.blocks, kept.header.blocks, **how)


def goes_on(dataset: xr.Dataset, kept: Kept | None) -> xr.Dataset:
    """The dataset with the number of its first block; there is no bound on sums from empty queues after a load."""
    if kept is None:
        return dataset
    found = dataset.assign_attrs(first_block=kept.header.blocks)
    if dataset.attrs["objective"] == "average" or dataset.attrs["bound_reason"]:
        return found
    return found.assign_attrs(bound=np.nan, bound_reason="a run that goes on does not start from empty queues")


def _named(pair: ControllerPair, loop: Carry) -> list[tuple[str, Any]]:
    """All arrays with their paths, such as `['loop'].state.q`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path({"pair": pair, "loop": loop})
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> Any:
    """The leaf, or the words of a random key that a controller remembers."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _switches(pair: ControllerPair) -> dict[str, bool | int | str]:
    """The static hyperparameters of both controllers."""
    both = (pair.server, pair.device)
    values = {field.name: getattr(one, field.name) for one in both for field in fields(one)}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | str)}


def _with_switches(pair: ControllerPair, header: Header, given: dict[str, Any]) -> ControllerPair:
    """The pair with the file's static hyperparameters where the scenario says nothing."""

    def changed(one: Any) -> Any:
        own = {field.name for field in fields(one)} - set(given)
        return replace(one, **{name: value for name, value in header.switches.items() if name in own})

    return ControllerPair(changed(pair.device), changed(pair.server))


def _filled(kept: Kept, pair: ControllerPair, loop: Carry, given: set[str]) -> tuple[ControllerPair, Carry]:
    """A fresh start with the file's arrays, but for the hyperparameters that the scenario sets."""
    fresh = _named(pair, loop)
    here, there = {path for path, _ in fresh}, set(kept.arrays)
    for path in sorted(here ^ there):
        where = "in the file only" if path in there else "missing in the file"
        raise InputError(f"{kept.given}: {path} is {where}; it was made by another version or scheme, train anew")
    own = {f"['pair'].{party}.{name}" for party in ("device", "server") for name in given}
    leaves = [leaf if path in own else _loaded(kept, path, leaf) for path, leaf in fresh]
    tree = jax.tree.unflatten(jax.tree.structure({"pair": pair, "loop": loop}), leaves)
    return tree["pair"], tree["loop"]


def _loaded(kept: Kept, path: str, fresh: Any) -> jax.Array:
    """One array of the file, if it is of the kind that a fresh start has there."""
    array, expected = kept.arrays[path], _numbers(fresh)
    if array.shape != expected.shape or array.dtype != expected.dtype:
        had, wanted = (f"{one.dtype}{list(one.shape)}" for one in (array, expected))
        raise InputError(
            f"{kept.given}: {path} is {had}, here it must be {wanted}; keep the scenario's slots, lag, task and the "
            "scheme's table sizes, or train anew"
        )
    words = jnp.asarray(array)
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(fresh)) if _is_key(fresh) else words
