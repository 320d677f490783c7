"""What an environment is made of: the world, who acts, what the others have learned, and what the reward is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from partway.arguments import PRECISIONS, choice, whole_number
from partway.controllers.base import ControllerPair, ControllerState
from partway.controllers.given import Given, GivenServer, OneGiven, price_unit
from partway.errors import InputError, nearest, shown
from partway.pytree import cast_floats, floats_as_arrays, record
from partway.rng import stable_hash
from partway.scenario.loading import load
from partway.scenario.overrides import override_pairs
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for, stream_of
from partway.simulation.rollout import init_runs, rollout, squeezed
from partway.system.placement import sample_placement
from partway.system.world import World, build

ScenarioLike = str | Path | Mapping[str, Any] | Scenario
Overrides = Mapping[str, Any] | Sequence[str]
MAX_HORIZON = 2**31 - 1
TRAINING_SEED = 4_000_000_003
"""Seed of the blocks in which those who play a scheme learn."""
REWARDS = ("system", "own", "priced")
"""What an agent's reward is minus: the cost (8) of all; its own terms of it; these and the price of what it sends."""


@record
class Params:
    """An environment, as the functions of `partway.env.functional` take it; made by `system`, `device` or `parallel`.

    world         the simulated system
    pair          its controllers: agents are `Given`, the others are frozen and remember
    device_state, server_state   what those who play a scheme have learned
    unit          of prices, see `given.price_unit`
    number        which device acts, where one does
    horizon       blocks of an episode
    stream        label of the others' random numbers
    devices       K
    acts          "system", "device" or "parallel"
    server_acts   whether the server is an agent
    reward        one of REWARDS
    """

    world: World
    pair: ControllerPair
    device_state: ControllerState
    server_state: ControllerState
    unit: jax.Array
    number: jax.Array
    horizon: jax.Array
    stream: jax.Array
    devices: int
    acts: str
    server_acts: bool
    reward: str


def system(
    scenario: ScenarioLike = "paper",
    *,
    overrides: Overrides = (),
    horizon: int = 1000,
    precision: str = "float32",
) -> Params:
    """One agent acts for all devices and the server, and sees all queues and channels.

    Its action has 2 K + n numbers from -1 to 1: tasks started by each device, fraction of the last one that each sends,
    and the service of each slot (`partway.controllers.given`). It observes 2 + 4 K numbers from 0 to 1
    (`observation.system_observation`). The reward is minus the cost (8) of the block.

    scenario, overrides  as in `partway.compare`
    horizon              blocks of an episode
    precision            "float32" or "float64"

    Raises InputError for what cannot be simulated.
    """
    world = _world(_scenario(scenario, overrides))
    return _params(world, ControllerPair(Given(), GivenServer(unit=_unit(world))), horizon, precision, acts="system")


def device(
    scenario: ScenarioLike = "paper",
    *,
    overrides: Overrides = (),
    number: int = 0,
    others: str = "priced",
    training: int = 1000,
    reward: str = "priced",
    horizon: int = 1000,
    precision: str = "float32",
) -> Params:
    """One device acts and learns; the other devices and the server play a scheme, `priced` if nothing else is said.

    Before the first episode all devices and the server play this scheme for `training` blocks and learn; from then on
    the others are frozen, so that the agent faces a stationary task. Its action has 2 numbers from -1 to 1: tasks
    started, and the fraction of the last one that is sent (`partway.controllers.given`). It observes 8 numbers from 0
    to 1 (`observation.DEVICE_NUMBERS`), all of which the device can know.

    number     of the device that acts, from 0
    others     the scheme that the others play
    training   blocks in which they learn it
    reward     minus the device's own terms of (8) and the price of what it sends ("priced"), its own terms alone
               ("own"), or the cost (8) of all ("system"). With the right price the first is best for all, too
    Other arguments as in `system`. Raises InputError for what cannot be simulated.
    """
    made = _scenario(scenario, overrides)
    world, pair = _world(made), _pair(others, made)
    at = whole_number("number", number, 0, made.devices - 1)
    trained, memories = _trained(world, pair, others, training, precision)
    return _params(
        world,
        ControllerPair(OneGiven(others=trained.device), trained.server),
        horizon,
        precision,
        memories,
        acts="device",
        number=at,
        stream=others,
        reward=reward,
    )


def parallel(
    scenario: ScenarioLike = "paper",
    *,
    overrides: Overrides = (),
    server: str | None = None,
    shares: bool = False,
    training: int = 1000,
    reward: str = "system",
    horizon: int = 1000,
    precision: str = "float32",
) -> Params:
    """Every device is an agent, and so is the server, unless it plays a scheme.

    A device acts and observes as in `device`. The server's action has n + 1 numbers from -1 to 1: the service of each
    slot and the price that it broadcasts; it observes 2 + K (`observation.server_observation`).

    server    the scheme whose server controller plays, trained for `training` blocks of this scheme and then frozen;
              None: the server is an agent
    shares    whether the server's action has K more numbers, the share of its service that each device is told
    reward    minus the cost (8) of all for every agent ("system"), each agent's own terms ("own"), or these with the
              price of what a device sends ("priced")
    Other arguments as in `system`. Raises InputError for what cannot be simulated.
    """
    made = _scenario(scenario, overrides)
    world = _world(made)
    if server is None:
        pair = ControllerPair(Given(), GivenServer(unit=_unit(world), shares=shares))
        return _params(world, pair, horizon, precision, acts="parallel", reward=reward)
    trained, memories = _trained(world, _pair(server, made), server, training, precision)
    pair = ControllerPair(Given(), trained.server)
    return _params(
        world, pair, horizon, precision, ((), memories[1]), acts="parallel", stream=server, reward=reward, serves=True
    )


def _scenario(scenario: ScenarioLike, overrides: Overrides) -> Scenario:
    """The scenario; raises InputError for one in which the agents would act on what has not been sent yet."""
    changes = override_pairs(overrides)
    made = scenario if isinstance(scenario, Scenario) and not changes else load(scenario, changes)
    if made.broadcast_delay_blocks == 0:
        raise InputError(
            "environments need broadcast_delay_blocks of 1 or more, got 0: all agents act at once, so none can "
            "have received what the server broadcasts in the same block"
        )
    return made


def _world(scenario: Scenario) -> World:
    return build(scenario, sample_placement(scenario))


def _unit(world: World) -> float:
    return float(price_unit(world.devices))


def _pair(name: str, scenario: Scenario) -> ControllerPair:
    """The controllers of a scheme that needs no preparation."""
    if find_scheme(name).preparation is not None and name not in scenario.schemes:
        raise InputError(
            f"'{name}' is prepared before a run, which an environment does not do; set its hyperparameters, such as "
            f"schemes.{name}.offload=0.5, or name another scheme"
        )
    return pair_for(name, scenario)


def _trained(
    world: World, pair: ControllerPair, name: str, blocks: int, precision: str
) -> tuple[ControllerPair, tuple[Any, Any]]:
    """The pair as it is set up, and what both parties remember after so many blocks."""
    length, start = whole_number("training", blocks, 0, 10_000_000), (stream_of(name), [TRAINING_SEED])
    if length:
        run = rollout(world, pair, *start, length, precision=_checked(precision))
        own, carry = run.pair, run.carry
    else:
        own, carry = init_runs(world, pair, *start, _checked(precision))
    with jax.enable_x64(precision == "float64"):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], (own, (carry.device_state, carry.server_state)))


def _params(
    world: World,
    pair: ControllerPair,
    horizon: int,
    precision: str,
    memories: tuple[Any, Any] = ((), ()),
    *,
    acts: str,
    number: int = 0,
    stream: str = "",
    reward: str = "system",
    serves: bool = False,
) -> Params:
    """The record; `serves`: the server plays a scheme."""
    given: Any = reward
    if not isinstance(given, str) or given not in REWARDS:
        raise InputError(f"no reward {shown(reward)}{nearest(str(reward), REWARDS)}")
    length = whole_number("horizon", horizon, 1, MAX_HORIZON)
    with jax.enable_x64(_checked(precision) == "float64"):
        return Params(
            world=cast_floats(squeezed(world), precision),
            pair=jax.tree.map(jnp.asarray, floats_as_arrays(pair, precision)),
            device_state=memories[0],
            server_state=memories[1],
            unit=jnp.asarray(_unit(world), precision),
            number=jnp.asarray(number, jnp.int32),
            horizon=jnp.asarray(length, jnp.uint32),
            stream=jnp.asarray(stable_hash(stream), jnp.uint32),
            devices=world.devices.mean_gain.shape[-1],
            acts=acts,
            server_acts=acts == "system" or (acts == "parallel" and not serves),
            reward=reward,
        )


def _checked(precision: str) -> str:
    return choice("precision", precision, PRECISIONS)
