"""Trained controllers that are saved, loaded and continued as if the run had never stopped."""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from partway.controllers.base import ControllerPair
from partway.errors import InputError, shorten
from partway.experiments.comparison import run_scheme
from partway.experiments.plan import Plan, Setting
from partway.experiments.preparation import use_bound
from partway.experiments.summary import with_gap_reasons
from partway.experiments.variables import describe
from partway.measurement.checkpoint import LAST_BLOCK, Checkpoint, Header, named, restored, words_of, write
from partway.provenance import versions
from partway.pytree import cast_floats
from partway.schemes import find_scheme, names_of, pair_for, settable, stream_of
from partway.simulation.rollout import Run, init_runs, rollout
from partway.simulation.step import Carry
from partway.system.exogenous import begin

MEMORY = "['carry'].state.memory"
"""Where a file has what channels and traffic remember."""


def save(path: Path, plan: Plan, run: Run, before: int = 0) -> None:
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
        switches=_switches(run.pair),
        versions=versions(),
    )
    write(
        path, header, {name: np.asarray(words_of(leaf)) for name, leaf in named({"pair": run.pair, "carry": run.carry})}
    )


def check(checkpoint: Checkpoint, plan: Plan) -> None:
    """Raise InputError if a check made before anything runs shows that the plan cannot continue from the file."""
    header, given = checkpoint.header, checkpoint.given
    if header.holds is not None:
        raise InputError(f"{given}: holds controllers of a live run; load it with `partway serve` or `partway join`")
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
            f"--seeds: got {len(plan.seeds)}, but {given} was trained on {len(header.seeds)}, one policy each; leave "
            "--seeds out or name as many"
        )
    if plan.scenario.devices != header.devices:
        raise InputError(
            f"devices = {plan.scenario.devices}: {given} was trained with {header.devices} devices; "
            f"set devices={header.devices} or train again"
        )
    if header.blocks + plan.blocks > LAST_BLOCK:
        raise InputError(f"--blocks {plan.blocks}: {given} ends at block {header.blocks}; the last one is {LAST_BLOCK}")


def resume(checkpoint: Checkpoint, plan: Plan, setting: Setting) -> tuple[ControllerPair, Carry]:
    """The pair and the carry of the file, in this world, checked against what a fresh start here would be.

    What the scenario sets under [schemes.NAME] holds; all other hyperparameters are the file's. In another world the
    queues and the controllers' states are carried over as they are, in tasks, and channels and traffic begin
    again. Raises InputError where the file does not fit.
    """
    name, header, seeds = checkpoint.header.scheme, checkpoint.header, plan.seeds
    chosen = plan.scenario.schemes.get(name, {})
    pair = _with_switches(checkpoint, plan, chosen)
    if find_scheme(name).preparation == "use_bound":  # what is tuned, by contrast, is among the file's arrays
        pair = use_bound(pair, setting.certificate)
    fresh = _fresh(pair, plan, setting)
    with jax.enable_x64(plan.precision == "float64"):
        same_world = (plan.scenario.to_toml(), seeds) == (header.scenario, header.seeds)
        pair, carry = _filled(checkpoint, fresh, set(chosen), same_world)
        if same_world:
            return pair, carry
        concrete, numbers = cast_floats(setting.world, plan.precision), jnp.asarray(seeds, jnp.uint32)
        begun = jax.vmap(begin, in_axes=(None, 0, None))(concrete, numbers, jnp.uint32(header.blocks))
        memory, gain, arrived = begun
        state = replace(carry.state, memory=memory, gain=gain)
        if concrete.devices.arrivals_seen == "current":
            state = replace(state, arrivals=arrived)
        return pair, replace(carry, state=state)


def continue_scheme(
    checkpoint: Checkpoint | None,
    plan: Plan,
    name: str,
    setting: Setting,
    on_progress: Callable[[int], None],
    traces: bool,
    threads: int | None = None,
) -> Run:
    """`run_scheme`, from where the file ends, if there is one."""
    if checkpoint is None:
        return run_scheme(plan, name, setting, on_progress, traces, threads)
    pair, carry = resume(checkpoint, plan, setting)
    return rollout(
        setting.world,
        pair,
        stream_of(name),
        plan.seeds,
        plan.blocks,
        certificates=setting.certificate,
        carry=carry,
        first_block=checkpoint.header.blocks,
        precision=plan.precision,
        traces=traces,
        warmup=plan.warmup,
        threads=threads,
        on_progress=on_progress,
    )


def continued(dataset: xr.Dataset, checkpoint: Checkpoint | None) -> xr.Dataset:
    """The dataset with the number of its first block; a loaded run has no bound on sums from empty queues."""
    if checkpoint is None:
        return dataset
    labelled = dataset.assign_attrs(first_block=checkpoint.header.blocks)
    if dataset.attrs["objective"] == "average" or dataset.attrs["bound_reason"]:
        return labelled
    why = "a continued run does not start from empty queues"
    return describe(with_gap_reasons(labelled.assign_attrs(bound=np.nan, bound_reason=why, bound_assumes="")))


def _fresh(pair: ControllerPair, plan: Plan, setting: Setting) -> dict[str, Any]:
    """What a run that starts here begins with."""
    (name,) = plan.schemes
    made, carry = init_runs(setting.world, pair, stream_of(name), plan.seeds, plan.precision)
    return {"pair": made, "carry": carry}


def _switches(pair: ControllerPair) -> dict[str, bool | int | str]:
    """The static hyperparameters of both controllers, with their party in front."""
    both: tuple[tuple[str, Any], ...] = (("server", pair.server), ("device", pair.device))
    values = {f"{party}_{field.name}": getattr(one, field.name) for party, one in both for field in fields(one)}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | str)}


def _with_switches(checkpoint: Checkpoint, plan: Plan, chosen: dict[str, Any]) -> ControllerPair:
    """The pair with the file's static hyperparameters where the scenario says nothing.

    They decide how large tables are, so they must be within the limits of the scenario's own.
    """
    name, switches, scenario = checkpoint.header.scheme, checkpoint.header.switches, plan.scenario
    pair = pair_for(name, scenario, plan.server)
    if switches.keys() != _switches(pair).keys():
        raise InputError(f"{checkpoint.given}: has other hyperparameters than {name} has here; train again")
    known = {**names_of("server", pair.server), **names_of("device", pair.device)}
    here = {*chosen, *_with_party(chosen)}
    table = {field: value for field, value in switches.items() if field in known and field not in here} | chosen
    pair = pair_for(name, scenario.model_copy(update={"schemes": {**scenario.schemes, name: table}}), plan.server)

    def changed(party: str, one: Any) -> Any:  # what no scenario can set
        own = {field.name for field in fields(one)} - set(settable(one))
        return replace(one, **{field: switches[f"{party}_{field}"] for field in own if f"{party}_{field}" in switches})

    return ControllerPair(changed("device", pair.device), changed("server", pair.server))


def _with_party(chosen: Iterable[str]) -> set[str]:
    """The names that hyperparameters of both parties have for one party alone."""
    return {f"{party}_{field}" for party in ("device", "server") for field in chosen}


def _filled(
    checkpoint: Checkpoint, fresh: dict[str, Any], given: set[str], same_world: bool
) -> tuple[ControllerPair, Carry]:
    """A fresh start with the file's arrays, but for the hyperparameters that the scenario sets.

    same_world  False: nor for what channels and traffic remember, which begin again
    """
    leaves = named(fresh)
    skipped = () if same_world else tuple(path for path, _ in leaves if path.startswith(MEMORY))
    here = {path for path, _ in leaves} - {*skipped}
    there = {path for path in checkpoint.kinds if same_world or not path.startswith(MEMORY)}
    for path in sorted(here ^ there):
        where = "in the file only" if path in there else "missing in the file"
        raise InputError(
            f"{checkpoint.given}: {shorten(path)} is {where}; another version or scheme made it, train again"
        )
    parties: dict[str, Any] = {"device": fresh["pair"].device, "server": fresh["pair"].server}
    own = {
        f"['pair'].{which}.{field}"
        for which, party in parties.items()
        for name, field in names_of(which, party).items()
        if name in given
    }
    own |= {*skipped}
    filled = [leaf if path in own else _loaded(checkpoint, path, leaf) for path, leaf in leaves]
    tree = jax.tree.unflatten(jax.tree.structure(fresh), filled)
    return tree["pair"], tree["carry"]


def _loaded(checkpoint: Checkpoint, path: str, fresh: Any) -> jax.Array:
    """One array of the file, if it is of the kind that a fresh start has there."""
    (shape, dtype), expected = checkpoint.kinds[path], words_of(fresh)
    if (shape, dtype) != (expected.shape, expected.dtype):
        had, wanted = f"{dtype}{list(shape)}", f"{expected.dtype}{list(expected.shape)}"
        raise InputError(
            f"{checkpoint.given}: {path} is {had} and must be {wanted} here; keep the scenario's slots_per_block, "
            "broadcast_delay_blocks and task and the scheme's table sizes, or train again"
        )
    return restored(checkpoint.array(path), fresh)
