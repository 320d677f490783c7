"""Agents from outside, stepped from Python: anything that answers an observation with an action.

    act(observation)      one observation at a time, in Python
    predict(observation)  many at a time, rows of an array, as a model of stable-baselines3
    a function that `jax.jit` has compiled, or an `act` that is one: many at a time, by `vmap`
    {"device_0": agent, ..., "server_0": agent}   one for each agent of PettingZoo's environment

Observations and actions are those of `partway.env`: an agent acts for a device, and then for every device of the fleet
by itself, or for the whole system (`partway.schemes.environment_of`). Blocks are those of `partway.simulation.step`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from partway.bound.certificate import Certificate
from partway.controllers.base import ControllerPair
from partway.controllers.block import Transition
from partway.controllers.given import DEVICE_ACTIONS, GivenServer, price_unit
from partway.controllers.observation import (
    DEVICE_NUMBERS,
    all_views,
    device_observation,
    server_observation,
    system_observation,
)
from partway.errors import InputError, shorten
from partway.experiments.failures import cause
from partway.measurement.by_device import MAX_DEVICES, DeviceSums, summed, sums_of
from partway.measurement.metrics import Parties, device_traces, measure
from partway.program_cache import kept_jit
from partway.pytree import cast_floats
from partway.rng import ACTS, controller_keys_on_host
from partway.scenario.schema import Scenario
from partway.simulation.rollout import Run, init_runs, squeezed, without_clipped
from partway.simulation.sharding import broadcast_shared
from partway.simulation.step import Carry, server_view, step
from partway.system.exogenous import draw_block
from partway.system.types import Device
from partway.system.world import World

Answer = Callable[[np.ndarray], np.ndarray]
"""Observations (N, numbers) -> actions (N, numbers)."""
MEASURED = 500
"""Blocks whose transitions are kept before they are measured."""


def rollout_agent(
    agent: Any,
    world: World,
    pair: ControllerPair,
    stream: str,
    seeds: tuple[int, ...],
    blocks: int,
    *,
    certificate: Certificate | None = None,
    precision: str = "float32",
    traces: bool = False,
    warmup: int = 0,
    on_progress: Callable[[int], None] = lambda blocks: None,
) -> Run:
    """`rollout` of a pair whose given parties are told what to do by an agent, block by block.

    A loop of its own, because an agent is asked in Python between two blocks, and a call of `rollout` compiles many.

    warmup  blocks after which each device's sums begin

    A server that is not given learns on the way. Raises InputError for an action of another shape, or that is NaN.
    """
    unit, double = float(price_unit(world.devices)), precision == "float64"
    if isinstance(pair.server, GivenServer):
        pair = replace(pair, server=replace(pair.server, unit=unit))
    own, carry = init_runs(world, pair, stream, seeds, precision)
    keys = controller_keys_on_host(np.asarray(seeds, np.uint32), stream, ACTS)
    parts, pieces, done = list[Any](), list[Transition](), 0
    has_sums = carry.state.q.shape[-1] <= MAX_DEVICES
    with jax.enable_x64(double):
        concrete = cast_floats(squeezed(world), precision)
        parties = Parties(concrete.devices, concrete.server, cast_floats(certificate, precision))
        tell = _teller(agent, own, concrete, precision)
        seen = _observe(concrete, carry, np.asarray(unit, precision))
        for block in range(blocks):
            carry = replace(carry, **tell(jax.tree.map(np.array, seen)))
            carry, seen, transition = _block(
                concrete, own, carry, np.asarray(seeds, np.uint32), keys, np.uint32(block), np.asarray(unit, precision)
            )
            pieces.append(transition)
            if len(pieces) == MEASURED or block == blocks - 1:
                parts.append(_measured(parties, pieces, traces, max(warmup - done, 0) if has_sums else None))
                on_progress(block + 1 - done)
                pieces, done = [], block + 1
    metrics, traced, clipped, sums = jax.tree.map(lambda *each: np.concatenate(each, axis=1), *parts)
    return Run(metrics, traced, own, carry, clipped, None if sums is None else summed(sums))


def _measured(
    parties: Parties, pieces: list[Transition], traces: bool, skipped: int | None
) -> tuple[Any, Any, Any, DeviceSums | None]:
    """Metrics, traces and what was clipped, (runs, blocks) each, of transitions (runs,) of one block after another.

    Then the sums of each device.

    skipped  first blocks that these sums leave out; None: there are no sums
    """
    together = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *pieces)
    clipped, transitions = without_clipped(together)
    stacked = tuple(False for _ in jax.tree.leaves(parties))
    metrics = jax.tree.map(np.asarray, measure(parties, transitions, stacked=stacked))
    devices = jax.tree.map(np.asarray, parties.devices)
    sums = None if skipped is None else sums_of(transitions, skipped)
    return metrics, device_traces(devices, transitions) if traces else None, clipped, sums


@kept_jit()
def _observe(world: World, carry: Carry, unit: jax.Array) -> dict[str, jax.Array]:
    """What can be observed in each run: "devices" (runs, K, 8), "server" (runs, 2 + K), "system" (runs, 2 + 4 K)."""
    return jax.vmap(partial(_seen, world, unit=unit))(carry)


def _seen(world: World, carry: Carry, unit: jax.Array) -> dict[str, jax.Array]:
    devices: Device = broadcast_shared(world.devices, carry.state.q.shape[-1])
    views, server = all_views(carry.state), server_view(carry.state)
    return {
        "devices": device_observation(devices, views, unit).T,
        "server": server_observation(devices, server),
        "system": system_observation(devices, server, views),
    }


@kept_jit()
def _block(
    world: World,
    pair: ControllerPair,
    carry: Carry,
    seeds: jax.Array,
    keys: jax.Array,
    block: jax.Array,
    unit: jax.Array,
) -> tuple[Carry, dict[str, jax.Array], Transition]:
    """A block of every run: the carry, what can be observed after it, and the transition."""

    def of_run(
        pair: ControllerPair, carry: Carry, seed: jax.Array, key: jax.Array
    ) -> tuple[Carry, dict[str, jax.Array], Transition]:
        state, exogenous = draw_block(world, seed, carry.state, block)
        carry = replace(carry, state=state)
        after, transition = step(world, pair, carry, exogenous, key, block, learning=True)
        return after, _seen(world, after, unit), transition

    return jax.vmap(of_run)(pair, carry, seeds, keys)


# Who is asked


def _teller(
    agent: Any, pair: ControllerPair, world: World, precision: str
) -> Callable[[dict[str, np.ndarray]], dict[str, Any]]:
    """What the parties are told, as memories of a carry, from what can be observed."""
    count, slots = world.devices.mean_gain.shape[-1], world.server.slots
    if isinstance(agent, Mapping):
        return _told_one_by_one(dict(agent), count, slots, precision)
    if isinstance(pair.server, GivenServer):
        whole = answering(agent, DEVICE_ACTIONS * count + slots, precision)

        def told(seen: dict[str, np.ndarray]) -> dict[str, Any]:
            answers = whole(seen["system"])
            runs, silent = len(answers), np.full((len(answers), 1), -1.0, precision)  # nobody listens to the price
            split = DEVICE_ACTIONS * count
            return {
                "device_state": answers[:, :split].reshape(runs, DEVICE_ACTIONS, count),
                "server_state": np.concatenate([answers[:, split:], silent], axis=1),
            }

        return told
    each = answering(agent, DEVICE_ACTIONS, precision)

    def told_each(seen: dict[str, np.ndarray]) -> dict[str, Any]:
        rows = seen["devices"]
        answers = each(rows.reshape(-1, rows.shape[-1]))
        return {"device_state": np.swapaxes(answers.reshape(*rows.shape[:2], DEVICE_ACTIONS), 1, 2)}

    return told_each


def _told_one_by_one(
    agents: dict[str, Any], count: int, slots: int, precision: str
) -> Callable[[dict[str, np.ndarray]], dict[str, Any]]:
    devices = [answering(agents[f"device_{k}"], DEVICE_ACTIONS, precision) for k in range(count)]
    server = answering(agents["server_0"], slots + 1, precision) if "server_0" in agents else None

    def told(seen: dict[str, np.ndarray]) -> dict[str, Any]:
        answers = [ask(seen["devices"][:, k]) for k, ask in enumerate(devices)]
        memories: dict[str, Any] = {"device_state": np.stack(answers, axis=-1)}
        return memories if server is None else memories | {"server_state": server(seen["server"])}

    return told


def answering(agent: Any, size: int, precision: str) -> Answer:
    """The agent as a function of many observations, whose answers are checked: (N, size), and no NaN."""
    ask = _asked(agent)

    def answer(observations: np.ndarray) -> np.ndarray:
        given = np.asarray(ask(observations), precision)
        if given.shape[:1] != (len(observations),):
            raise InputError(f"{label_of(agent)}: {_many(observations, size)}, got {given.shape}")
        if given.shape[1:] != (size,):
            raise InputError(f"{label_of(agent)}: an action must have the shape ({size},), got {given.shape[1:]}")
        if np.isnan(given).any():
            raise InputError(f"{label_of(agent)}: an action is not a number (NaN)")
        return given

    return answer


def _many(observations: np.ndarray, size: int) -> str:
    """What `predict` is asked, and must answer."""
    rows = len(observations)
    return f"predict is given many observations, here {observations.shape}, and must return actions ({rows}, {size})"


def _asked(agent: Any) -> Callable[[np.ndarray], Any]:
    if callable(getattr(agent, "predict", None)):
        fixed = {"deterministic": True} if "deterministic" in inspect.signature(agent.predict).parameters else {}

        def predicted(observations: np.ndarray) -> Any:
            answer = agent.predict(observations, **fixed)
            return answer[0] if isinstance(answer, tuple) else answer

        return predicted
    act = getattr(agent, "act", agent)
    if isinstance(act, jax.stages.Wrapped):
        return jax.jit(jax.vmap(act))
    return lambda observations: _stacked([np.asarray(act(row)) for row in observations])


def _stacked(actions: list[np.ndarray]) -> np.ndarray:
    shapes = {each.shape for each in actions}
    if len(shapes) > 1:
        raise InputError(f"actions must have one shape, got {' and '.join(map(str, sorted(shapes)))}")
    return np.stack(actions)


def label_of(agent: Any) -> str:
    """The name of a function or of a class."""
    return str(getattr(agent, "__name__", type(agent).__name__))


def check_agent(name: str, agent: Any, pair: ControllerPair, scenario: Scenario, precision: str) -> None:
    """Raise InputError for an agent that cannot act in this scenario; it is asked once, for one observation each."""
    if scenario.broadcast_delay_blocks == 0:
        raise InputError(f"scheme '{shorten(name)}': agents need broadcast_delay_blocks of 1 or more, got 0")
    count, slots = scenario.devices, scenario.slots_per_block
    sizes = {"devices": (DEVICE_ACTIONS, len(DEVICE_NUMBERS)), "server": (slots + 1, 2 + count)}
    sizes["system"] = (DEVICE_ACTIONS * count + slots, 2 + 4 * count)
    if isinstance(agent, Mapping):
        needed = [f"device_{k}" for k in range(count)]
        missing = [one for one in needed if one not in agent]
        unknown = [str(one) for one in agent if one not in (*needed, "server_0")]
        if missing or unknown:
            what = f"no agent {missing[0]}" if missing else f"an agent {shorten(unknown[0])} that does not exist"
            every = f"agents are device_0 to device_{count - 1} and server_0"
            raise InputError(f"scheme '{shorten(name)}': has {what}; {every}")
        asked = [(one, "server" if key == "server_0" else "devices") for key, one in agent.items()]
    else:
        asked = [(agent, "system" if isinstance(pair.server, GivenServer) else "devices")]
    for one, kind in asked:
        size, seen = sizes[kind]
        observations = np.full((1, seen), 0.5, precision)
        try:
            answering(one, size, precision)(observations)
        except InputError as error:
            raise InputError(f"scheme '{shorten(name)}': {error}") from error
        except Exception as error:  # a user's code can fail in any way
            hint = f"; {_many(observations, size)}" if callable(getattr(one, "predict", None)) else ""
            why = shorten(" ".join(cause(error).split()), 160)
            raise InputError(f"scheme '{shorten(name)}': {why}{hint}") from error
