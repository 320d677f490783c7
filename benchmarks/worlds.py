"""The worlds in which time is measured: the preset `paper`, its server grown with the fleet, stable at every K.

A server of F = 1e11 K Hz does 5 tasks a block and device, where 2 arrive; w2 ~ 1/K^2 keeps the cost of serving K tasks
proportional to K. No time is spent on queues that overflow, and a device-block is the same work at every K.
"""

from functools import cache

from partway.controllers.base import ControllerPair
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES
from partway.system.placement import sample_placement
from partway.system.world import World, build

MEASURED = ("parametric-printed", "priced")
"""The schemes that are measured: the paper's learner and ours."""
CHEAP, EXPENSIVE = 1e-2, 1.0
"""w2 K^2 [1/J] of `paper` with 20 devices; and of a server that lets work wait, whose price decides what is sent."""


def overrides(devices: int, weight: float = CHEAP) -> list[str]:
    """What differs from `paper`, as the command line takes it."""
    numbers = {
        "devices": devices,
        "server.cpu_max_hz": 1e11 * devices,
        "weights.server_energy": weight / devices**2,
    }
    return [f"{name}={value!r}" for name, value in numbers.items()]


def scenario_of(devices: int, weight: float = CHEAP) -> Scenario:
    """The scenario of K devices at random places."""
    return load("paper", overrides(devices, weight))


@cache
def world_of(devices: int, weight: float = CHEAP) -> World:
    """The same made concrete."""
    scenario = scenario_of(devices, weight)
    return build(scenario, sample_placement(scenario))


def pair_of(scheme: str) -> ControllerPair:
    """The scheme's two controllers."""
    return ControllerPair(SCHEMES[scheme].device, SCHEMES[scheme].server)
