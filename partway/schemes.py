"""SCHEMES: what can be compared. A scheme is a device controller and a server controller that run together.

A new policy is one controller and one row here, or `mymodule:MY_SCHEME` from outside. The command line, sweeps, figures
and the contract test find it by its row. Rows name their controllers; they are imported when they are first used, so
that names and descriptions can be listed without JAX.
"""

import importlib
import inspect
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from partway.errors import InputError, nearest, shorten, shown

if TYPE_CHECKING:
    from partway.controllers.base import ControllerPair, DeviceController, Limits, ServerController
    from partway.scenario.schema import Scenario

T = TypeVar("T")
Preparation = Literal["tune_constant", "use_bound"]
"""What is computed before a run (`partway.experiments.preparation`)."""


@dataclass(frozen=True)
class Deferred:
    """A controller that is imported and made when it is needed: "module:Class" in `partway.controllers`."""

    path: str
    options: tuple[tuple[str, Any], ...] = ()

    def make(self) -> Any:
        """The controller."""
        module, _, name = self.path.partition(":")
        kind = getattr(importlib.import_module(f"partway.controllers.{module}"), name)
        return kind(**{key: value.make() if isinstance(value, Deferred) else value for key, value in self.options})


def controller(path: str, **options: Any) -> Deferred:
    """A controller that ships, with hyperparameters that differ from its defaults."""
    return Deferred(path, tuple(options.items()))


class Scheme:
    """A row of SCHEMES.

    about          one line for `partway schemes`
    fractional     whether it works with the fractions of tasks that equation (1) as printed leaves behind (T1)
    channel_blind  whether it sometimes sends whatever the channel is, so that without a limit on power its mean radio
                   cost, E[1/h], is infinite
    preparation    what is computed before a run
    stream         label of its controllers' random numbers; None: its name
    signals        numbers (up, down) sent per device and block; None: what its controllers say
    by_default     whether a comparison that names no schemes runs it
    """

    def __init__(
        self,
        about: str,
        device: "DeviceController | Deferred",
        server: "ServerController | Deferred",
        *,
        fractional: bool = True,
        channel_blind: bool = False,
        preparation: Preparation | None = None,
        stream: str | None = None,
        signals: tuple[int, int] | None = None,
        by_default: bool = True,
    ):
        self.about, self.fractional, self.channel_blind = about, fractional, channel_blind
        self.preparation, self.stream = preparation, stream
        self.by_default = by_default
        self._device, self._server, self._signals = device, server, signals

    @cached_property
    def device(self) -> "DeviceController":
        """The device controller. Raises InputError where the row was given something else."""
        from partway.controllers.base import DeviceController

        return _made(self._device, DeviceController)

    @cached_property
    def server(self) -> "ServerController":
        """The server controller. Raises InputError where the row was given something else."""
        from partway.controllers.base import ServerController

        return _made(self._server, ServerController)

    def signalling(self) -> dict[str, int]:
        """Numbers sent up and down per device and block for control."""
        if self._signals is not None:
            return dict(zip(("up", "down"), self._signals, strict=True))
        return {"up": int(self.server.sees_queues), "down": len(self.device.uses_broadcast)}


def _made(given: Any, kind: type[T]) -> T:
    """A controller of this kind, from a Deferred, the controller itself or its class."""
    made = given.make() if isinstance(given, Deferred) else given() if isinstance(given, type) else given
    if not isinstance(made, kind):
        raise InputError(f"partway.Scheme: expected a {kind.__name__}, got {type(made).__name__}")
    return made


LEARNING_SERVER = controller("price:PostDecisionServer")
ALGORITHM_2 = controller("parametric:Algorithm2")
SCHEMES: dict[str, Scheme] = {
    "parametric-printed": Scheme(
        "Algorithms 1 and 2 of the paper with the gradients that it prints",
        controller("parametric:Algorithm1", gradient="printed"),
        controller("parametric:Algorithm2", gradient="printed"),
        stream="printed",
        signals=(1, 0),
    ),
    "parametric": Scheme(
        "Algorithms 1 and 2 of the paper with the true gradient of the squared TD error",
        controller("parametric:Algorithm1", gradient="exact"),
        controller("parametric:Algorithm2", gradient="exact"),
        stream="exact",
        signals=(1, 0),
    ),
    "qlearning": Scheme(
        "Q-learning on the paper's features, with the minimum over actions that its text describes",
        controller("qlearning:QLearningDevice"),
        controller("qlearning:QLearningServer"),
        signals=(1, 0),
    ),
    "qlearning-log": Scheme(
        "`qlearning` with power, gain and server queue on a logarithmic scale",
        controller("qlearning:QLearningDevice", log_scaled=True),
        controller("qlearning:QLearningServer", log_scaled=True),
        signals=(1, 0),
    ),
    "binary": Scheme(
        "offloads all of a task or nothing, learned by Q-learning",
        controller("qlearning:Binary"),
        ALGORITHM_2,
        channel_blind=True,
        signals=(1, 0),
    ),
    "even": Scheme(
        "every device offloads the same amount, the server's rate divided by K",
        controller("baselines:Even"),
        ALGORITHM_2,
        channel_blind=True,
        signals=(1, 1),
    ),
    "random": Scheme(
        "offloads a random fraction",
        controller("baselines:Random"),
        ALGORITHM_2,
        channel_blind=True,
        signals=(1, 0),
    ),
    "local": Scheme("offloads nothing", controller("baselines:Local"), LEARNING_SERVER, signals=(0, 0)),
    "full": Scheme(
        "computes nothing on the device, offloads one whole task per block",
        controller("baselines:Full"),
        LEARNING_SERVER,
        fractional=False,
        channel_blind=True,
        signals=(0, 0),
    ),
    "myopic": Scheme(
        "minimises this block's cost and one block of waiting for the tasks that remain",
        controller("related_work:Myopic"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 0),
    ),
    "drift": Scheme(
        "Lyapunov drift plus V times the energy (Mao et al. 2017)",
        controller("related_work:Drift"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 1),
    ),
    "neurosurgeon": Scheme(
        "the cut of least latency at the server's broadcast rate and backlog (Kang et al. 2017)",
        controller("related_work:Neurosurgeon"),
        LEARNING_SERVER,
        channel_blind=True,
        signals=(0, 2),
    ),
    "neurosurgeon-energy": Scheme(
        "the cut of least device energy (Kang et al. 2017)",
        controller("related_work:NeurosurgeonEnergy"),
        LEARNING_SERVER,
        signals=(0, 0),
    ),
    "dads": Scheme(
        "the cut whose slowest stage is fastest (Hu et al. 2019)",
        controller("related_work:Dads"),
        LEARNING_SERVER,
        channel_blind=True,
        signals=(0, 1),
    ),
    "ans": Scheme(
        "a bandit that learns the delay of what is offloaded (Zhang et al. 2021)",
        controller("related_work:Ans"),
        LEARNING_SERVER,
        channel_blind=True,
        signals=(0, 2),
    ),
    "coedge": Scheme(
        "least device energy that finishes the first task within the block (Zeng et al. 2021)",
        controller("related_work:CoEdge"),
        LEARNING_SERVER,
        signals=(0, 2),
    ),
    "iao": Scheme(
        "least latency at a share of the server's rate set by greedy exchange (Tang et al. 2021)",
        controller("iao:Iao"),
        controller("iao:IaoServer", serving=LEARNING_SERVER),
        channel_blind=True,
        signals=(1, 2),
    ),
    "decoupled": Scheme(
        "near-optimal devices and server, each on its own: what Theorem 1 says is optimal",
        controller("postdecision:PostDecision"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 0),
    ),
    "priced": Scheme(
        "near-optimal like `decoupled`, coordinated by one price that the server broadcasts",
        controller("postdecision:Priced"),
        LEARNING_SERVER,
        fractional=False,
        signals=(0, 1),
    ),
    "oracle": Scheme(
        "the lower bound's own price and exact tables: knows the statistics; a yardstick, no optimum",
        controller("postdecision:Oracle"),
        LEARNING_SERVER,
        fractional=False,
        preparation="use_bound",
        signals=(0, 0),
    ),
    "constant": Scheme(
        "the best fixed fraction and number of tasks per block, tuned on other seeds",
        controller("baselines:Constant"),
        controller("baselines:Steady"),
        fractional=False,
        channel_blind=True,
        preparation="tune_constant",
        signals=(0, 0),
    ),
    "binary-parametric": Scheme(
        "offloads all of a task or nothing, with Algorithms 1 and 2 of the paper",
        controller("section_vi:BinaryParametric"),
        ALGORITHM_2,
        signals=(1, 0),
        by_default=False,
    ),
    "even-parametric": Scheme(
        "Algorithms 1 and 2 of the paper, a device offloading at most the server's rate divided by K",
        controller("section_vi:EvenParametric"),
        ALGORITHM_2,
        signals=(1, 1),
        by_default=False,
    ),
    "random-fixed": Scheme(
        "offloads a random fraction; the server keeps its first rate",
        controller("baselines:Random"),
        controller("section_vi:Fixed"),
        channel_blind=True,
        signals=(0, 0),
        by_default=False,
    ),
    "qlearning-designed": Scheme(
        "Q-learning as the text describes it, built to work: designed features and actions, least squares",
        controller("designed:DesignedDevice"),
        controller("designed:DesignedServer"),
        fractional=False,
        signals=(1, 0),
        by_default=False,
    ),
}
REFERENCE = "constant"
"""The scheme that others are compared with: a learned policy should cost less than a tuned constant one."""


def find_scheme(name: str) -> Scheme:
    """The scheme of that name, or `module:ATTRIBUTE` from outside: a Scheme or a device controller.

    A module in the current folder is found. A device controller alone runs with the post-decision server. Raises
    InputError for a name that is not known and for a module that cannot be imported.
    """
    if ":" in name:
        return _imported(name)
    if name not in SCHEMES:
        raise InputError(f"no scheme {shown(name)}{nearest(name, SCHEMES)}")
    return _as_scheme(name, SCHEMES[name])


def name_of(given: Any, argument: str) -> str:
    """The name of a scheme that is given by its name, as a row of SCHEMES, or as a class of device controllers.

    Raises InputError, which names the argument, for anything else.
    """
    if isinstance(given, str):
        return given
    name = next((name for name, row in SCHEMES.items() if row is given), None)
    if name is None and isinstance(given, type):
        name = f"{given.__module__}:{given.__qualname__}"
        name = name if getattr(sys.modules.get(given.__module__), given.__qualname__, None) is given else None
    if name is None:
        what = given.__name__ if isinstance(given, type) else type(given).__name__
        raise InputError(
            f"{argument} takes names, got {what}; add it to the table, partway.SCHEMES['mine'] = partway.Scheme(...), "
            "and give 'mine'"
        )
    return name


def stream_of(name: str) -> str:
    """The label of a scheme's random numbers."""
    return find_scheme(name).stream or name


def _imported(name: str) -> Scheme:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        given = getattr(importlib.import_module(module), attribute)
        made = given() if isinstance(given, type) else given
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # a user's module can fail in any way, and may be a script that exits
        raise InputError(f"scheme '{name}': {type(error).__name__}: {error}") from error
    return _as_scheme(name, made)


def _as_scheme(name: str, made: Any) -> Scheme:
    """A scheme, or a device controller with the post-decision server. Raises InputError for anything else."""
    if isinstance(made, Scheme):
        return made
    from partway.controllers.base import DeviceController

    made = made() if isinstance(made, type) and issubclass(made, DeviceController) else made
    if not isinstance(made, DeviceController):
        raise InputError(f"scheme '{name}': expected a Scheme or a DeviceController, got {type(made).__name__}")
    return Scheme((type(made).__doc__ or name).split("\n")[0], made, LEARNING_SERVER)


def pair_for(name: str, scenario: "Scenario", server: str | None = None) -> "ControllerPair":
    """The scheme's two controllers with the scenario's hyperparameters; `server` takes another scheme's server.

    A hyperparameter of both, such as `step`, is set for both by its name, for one alone by `device_step` and
    `server_step`. Raises InputError for a hyperparameter that neither has, or a value that it cannot have.
    """
    from partway.controllers.base import ControllerPair

    scheme = find_scheme(name)
    serving = scheme.server if server is None else find_scheme(server).server
    given = scenario.schemes.get(name, {})
    pair = ControllerPair(_with(scheme.device, "device", given, name), _with(serving, "server", given, name))
    known = {**settable(pair.device), **settable(pair.server)}
    known |= {**names_of("device", pair.device), **names_of("server", pair.server)}
    unknown = [field for field in given if field not in known]
    if unknown:
        field, value = unknown[0], getattr(pair.device, unknown[0], None)
        if isinstance(value, int | float | str):
            typed = f"{field}: {type(value).__name__} = {value!r}"
            raise InputError(f"'schemes.{name}.{field}' cannot be set: it has no type; write `{typed}` in the class")
        raise InputError(f"unknown field 'schemes.{name}.{field}'{nearest(field, known)}")
    return pair


def check_hyperparameters(scenario: "Scenario", named: Collection[str] = ()) -> None:
    """Raise InputError for a [schemes.NAME] table whose scheme or field does not exist.

    named  schemes that the user has named. Only these are imported if they are from outside: a file imports no code
    """
    for name in scenario.schemes:
        if ":" in name and name not in named:
            raise InputError(
                f"schemes.{shorten(name)}: a scenario imports no code; name this scheme with --schemes or --server "
                "too, or remove its table"
            )
        pair_for(name, scenario)


def check_running(overrides: Mapping[str, Any] | Sequence[str], running: Collection[str], given: str = "--set") -> None:
    """Raise InputError for an override of a scheme that does not exist, or is not among those that run.

    given  what has given the overrides, for the message
    """
    from partway.scenario.overrides import schemes_set  # imports pydantic, which the names above need not wait for

    for name in schemes_set(overrides):
        if name in running:
            continue
        if ":" not in name:
            find_scheme(name)
        those = f"; what runs is {shorten(', '.join(running), 100)}" if running else ""
        raise InputError(
            f"{given} schemes.{shorten(name)}: does nothing, because '{shorten(name)}' does not run{those}"
        )


def hyperparameters(name: str) -> dict[str, Any]:
    """Field names and defaults of a scheme, device and server together."""
    scheme = find_scheme(name)
    return {**settable(scheme.server), **settable(scheme.device)}


def explanations(name: str) -> list[str]:
    """What a scheme's controllers are and what their fields mean, in the words of their docstrings."""
    from partway.controllers.base import DeviceController, ServerController

    scheme, bases = find_scheme(name), (DeviceController, ServerController, object)
    kinds = [kind for party in (scheme.device, scheme.server) for kind in type(party).__mro__ if kind not in bases]
    return [words for words in (inspect.getdoc(kind) for kind in dict.fromkeys(kinds)) if words]


def learns(name: str) -> bool:
    """Whether the devices of a scheme learn."""
    from partway.controllers.base import DeviceController

    return type(find_scheme(name).device).learn is not DeviceController.learn


def settable(party: Any) -> dict[str, Any]:
    """The fields a scenario may set: numbers, switches and words, no arrays."""
    plain = (bool, int, float, str)
    return {field.name: getattr(party, field.name) for field in fields(party) if isinstance(field.default, plain)}


def names_of(which: str, party: Any) -> dict[str, str]:
    """Name in a scenario -> field, of a party ("device" or "server"): each by its own name, then with the party's."""
    own = settable(party)
    return {name: name for name in own} | {f"{which}_{name}": name for name in own}


def _with(party: Any, which: str, given: Mapping[str, Any], scheme: str) -> Any:
    own, changes = settable(party), dict[str, Any]()
    for name, field in names_of(which, party).items():  # `device_step` comes later and overrides `step`
        if name in given:
            where = f"schemes.{scheme}.{name}"
            changes[field] = _checked(where, type(own[field]), party.limits.get(field), given[name])
    return replace(party, **changes)


def _checked(field: str, kind: type, limits: "Limits | None", value: Any) -> Any:
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
        raise InputError(f"{field} must be {words}, got {shown(value)}")
    return float(value) if kind is float else value
