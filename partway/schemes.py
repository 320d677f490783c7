"""SCHEMES: what can be compared. A scheme is a device controller and a server controller that play together.

A new policy is one controller and one row here, or `mymodule:MY_SCHEME` from outside. The command line, sweeps, figures
and the contract test find it by its row.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from partway.controllers.base import DeviceController, Limits, ServerController
from partway.controllers.baselines import Constant, Even, Full, Local, Random, Steady
from partway.controllers.iao import Iao, IaoServer
from partway.controllers.parametric import Algorithm1, Algorithm2
from partway.controllers.postdecision import Oracle, PostDecision, PostDecisionServer, Priced
from partway.controllers.qlearning import Binary, QLearningDevice, QLearningServer
from partway.controllers.related_work import Ans, CoEdge, Dads, Drift, Myopic, Neurosurgeon, NeurosurgeonEnergy
from partway.errors import InputError, nearest, shown
from partway.experiments.preparation import tune_constant
from partway.scenario.schema import Scenario
from partway.simulation.step import ControllerPair
from partway.system.world import World

Prepare = Callable[[ControllerPair, World], ControllerPair]


@dataclass(frozen=True)
class Scheme:
    """A row of SCHEMES.

    about    one line for `partway schemes`
    fractional  whether it can live with the fractions of tasks that equation (1) as printed leaves behind (T1)
    channel_blind  whether it sometimes sends whatever the channel is, so that without a limit on power its mean radio
                   cost, E[1/h], is infinite
    prepare  what is computed before a run, such as a tuned constant
    """

    about: str
    device: DeviceController
    server: ServerController
    fractional: bool = True
    channel_blind: bool = False
    prepare: Prepare | None = None

    def signalling(self) -> dict[str, int]:
        """Scalars that go up and down per device and block."""
        return {"up": int(self.server.sees_queues), "down": len(self.device.uses_broadcast)}


def consult_bound(pair: ControllerPair, world: World) -> ControllerPair:
    """The pair whose devices know the bound's multiplier and tables."""
    return replace(pair, device=replace(pair.device, certificate=world.certificate))


SCHEMES: dict[str, Scheme] = {
    "printed": Scheme(
        "Algorithms 1 and 2 of the paper to the letter, with the gradients it prints",
        Algorithm1(gradient="printed"),
        Algorithm2(gradient="printed"),
    ),
    "exact": Scheme(
        "Algorithms 1 and 2 with the true gradient of the squared TD error",
        Algorithm1(gradient="exact"),
        Algorithm2(gradient="exact"),
    ),
    "qlearning": Scheme(
        "Q-learning on the paper's features, with the minimum over actions that its text describes",
        QLearningDevice(),
        QLearningServer(),
    ),
    "qlearning-log": Scheme(
        "the same, power, gain and server queue entering by their logarithms",
        QLearningDevice(log_scaled=True),
        QLearningServer(log_scaled=True),
    ),
    "binary": Scheme(
        "all or nothing of one task is sent, learned by Q-learning", Binary(), Algorithm2(), channel_blind=True
    ),
    "even": Scheme(
        "every device sends the same amount, the server's rate divided by K", Even(), Algorithm2(), channel_blind=True
    ),
    "random": Scheme("the share that is sent is drawn at random", Random(), Algorithm2(), channel_blind=True),
    "local": Scheme("nothing is sent", Local(), PostDecisionServer()),
    "full": Scheme(
        "the device computes nothing, one whole task a block is sent",
        Full(),
        PostDecisionServer(),
        fractional=False,
        channel_blind=True,
    ),
    "myopic": Scheme(
        "this block's cost and one block of waiting for what is left",
        Myopic(),
        PostDecisionServer(),
        fractional=False,
    ),
    "drift": Scheme(
        "Lyapunov drift plus V times the energy (Mao et al. 2017)", Drift(), PostDecisionServer(), fractional=False
    ),
    "neurosurgeon": Scheme(
        "the cut of least latency by the rate and backlog heard (Kang et al. 2017)",
        Neurosurgeon(),
        PostDecisionServer(),
        channel_blind=True,
    ),
    "neurosurgeon-energy": Scheme(
        "the cut of least device energy (Kang et al. 2017)", NeurosurgeonEnergy(), PostDecisionServer()
    ),
    "dads": Scheme(
        "the cut whose slowest stage is fastest (Hu et al. 2019)", Dads(), PostDecisionServer(), channel_blind=True
    ),
    "ans": Scheme(
        "a bandit learns the delay of what is sent (Zhang et al. 2021)",
        Ans(),
        PostDecisionServer(),
        channel_blind=True,
    ),
    "coedge": Scheme(
        "least device energy that finishes the head task in the block (Zeng et al. 2021)",
        CoEdge(),
        PostDecisionServer(),
    ),
    "iao": Scheme(
        "least latency at its share of the rate, shares by greedy exchange (Tang et al. 2021)",
        Iao(),
        IaoServer(serving=PostDecisionServer()),
        channel_blind=True,
    ),
    "decoupled": Scheme(
        "near-optimal devices and server on their own, what Theorem 1 promises is optimal",
        PostDecision(),
        PostDecisionServer(),
        fractional=False,
    ),
    "priced": Scheme(
        "the same, coordinated by one price that the server tells",
        Priced(),
        PostDecisionServer(),
        fractional=False,
    ),
    "oracle": Scheme(
        "the lower bound's own price and exact tables: knows the statistics, a yardstick and no ceiling",
        Oracle(),
        PostDecisionServer(),
        fractional=False,
        prepare=consult_bound,
    ),
    "constant": Scheme(
        "the best fixed share and number of tasks per block, tuned on seeds of its own",
        Constant(),
        Steady(),
        fractional=False,
        channel_blind=True,
        prepare=tune_constant,
    ),
}


def known_schemes() -> dict[str, str]:
    """Name and one line of every scheme that ships."""
    return {name: scheme.about for name, scheme in SCHEMES.items()}


def find_scheme(name: str) -> Scheme:
    """The scheme of that name, or `module:ATTRIBUTE` from outside: a Scheme or a device controller.

    A module in the current folder is found. A device controller alone plays with the post-decision server.
    """
    if ":" in name:
        return _imported(name)
    if name not in SCHEMES:
        raise InputError(f"no scheme '{name}'{nearest(name, SCHEMES)}")
    return SCHEMES[name]


def _imported(name: str) -> Scheme:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
        made = found() if isinstance(found, type) else found
    except MemoryError:
        raise
    except Exception as error:  # a user's module can fail in any way; the command line owes it one clear line
        raise InputError(f"scheme '{name}': {type(error).__name__}: {error}") from error
    if isinstance(made, DeviceController):
        return Scheme((type(made).__doc__ or name).split("\n")[0], made, PostDecisionServer())
    if not isinstance(made, Scheme):
        raise InputError(f"scheme '{name}': expected a Scheme or a DeviceController, found {type(made).__name__}")
    return made


def pair_for(name: str, scenario: Scenario, server: str | None = None) -> ControllerPair:
    """The scheme's two controllers with the scenario's hyperparameters; `server` takes another scheme's server."""
    scheme = find_scheme(name)
    serving = scheme.server if server is None else find_scheme(server).server
    given = scenario.schemes.get(name, {})
    pair = ControllerPair(_with(scheme.device, given, name), _with(serving, given, name))
    unknown = [field for field in given if field not in {**_settable(pair.device), **_settable(pair.server)}]
    if unknown:
        known = {**_settable(pair.device), **_settable(pair.server)}
        raise InputError(f"unknown field 'schemes.{name}.{unknown[0]}'{nearest(unknown[0], known)}")
    return pair


def check_hyperparameters(scenario: Scenario) -> None:
    """Raise InputError for a [schemes.NAME] table whose scheme or field does not exist."""
    for name in scenario.schemes:
        pair_for(name, scenario)


def hyperparameters(name: str) -> dict[str, Any]:
    """Field names and defaults of a scheme, device and server together."""
    scheme = find_scheme(name)
    return {**_settable(scheme.server), **_settable(scheme.device)}


def explanations(name: str) -> list[str]:
    """What a scheme's controllers are and what their fields mean, in the words of their docstrings."""
    scheme, bases = find_scheme(name), (DeviceController, ServerController, object)
    kinds = [kind for party in (scheme.device, scheme.server) for kind in type(party).__mro__ if kind not in bases]
    return [words for words in (inspect.getdoc(kind) for kind in dict.fromkeys(kinds)) if words]


def _settable(controller: DeviceController | ServerController) -> dict[str, Any]:
    """The fields a scenario may set: numbers, switches and words, no arrays."""
    plain = (bool, int, float, str)
    return {
        field.name: getattr(controller, field.name) for field in fields(controller) if isinstance(field.default, plain)
    }


def _with(controller: Any, given: Mapping[str, Any], scheme: str) -> Any:
    own = _settable(controller)
    changes = {
        name: _checked(f"schemes.{scheme}.{name}", type(own[name]), controller.limits.get(name), value)
        for name, value in given.items()
        if name in own
    }
    return replace(controller, **changes)


def _checked(field: str, kind: type, limits: Limits | None, value: Any) -> Any:
    """`value` as the type of the field's default, within its limits; a whole number may stand for a float."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[kind]
    if isinstance(limits, frozenset):
        words = " or ".join(sorted(map(repr, limits)))
    elif limits is not None:
        words += f" from {limits[0]:g} to {limits[1]:g}"
    right = type(value) is kind or (kind is float and type(value) is int)
    if right and limits is not None:
        right = value in limits if isinstance(limits, frozenset) else limits[0] <= value <= limits[1]
    if not right:
        raise InputError(f"{field} = {shown(value)}: allowed is {words}")
    return float(value) if kind is float else value
