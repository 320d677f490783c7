"""Claim R1: computation and signalling of the central solution (12) and of the decentralised schemes, counted.

Remark 1 gives three reasons why (12) is hard: its state has K + 1 queues, K channels and K n arrivals; every device's
channel and queue must be collected in every block; states and actions are continuous. Section IV-B says that the
decentralised equations need significantly less computation and signalling; that is what is counted here.

Nothing is timed. The computation of a scheme is the number of floating-point operations in one block, acting and
learning, that XLA counts in the program before optimisation; a device's do not depend on K. That of the central
solution is one sweep of (12) with one operation for each joint state and joint action, a lower bound: the third reason
is met by a coarse grid, and the arrivals, with which there would be 2^(n K) times as many states, are left out.
Signalling is counted in numbers per device and block; the central solution needs every device's state before it can
decide, and sends each device its action. The server of (P2.Server) needs every device's queue, too: 1 up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerPair, DeviceController, ServerController
from partway.paper.claims import CANDIDATES, READINGS
from partway.paper.figure_runs import supports
from partway.paper.statistics import FAILS, HOLDS, NOT_APPLICABLE
from partway.paper.verdicts import Verdict
from partway.pytree import cast_floats
from partway.rng import controller_keys
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for
from partway.simulation.step import device_views, init, server_view
from partway.system.placement import sample_placement
from partway.system.types import Server
from partway.system.world import World, build

FLEETS = (1, 2, 20, 60)
FIRST_COMPARED = 2
"""Least number of devices that is compared: with one, both solutions are of the same problem."""
QUEUE_STATES, GAIN_STATES, SERVER_STATES = 8, 3, 8
"""Coarse grids of the central problem: of a device's queue, of its gain, and of the server's queue for each device."""
DEVICE_ACTIONS, SERVER_ACTIONS = 6, 16
"""Started tasks and offloaded fraction of each device; service rates of the server."""
CENTRAL_SIGNALS = {"up": 2, "down": 2}
"""Queue and gain up; started tasks and power down."""


@dataclass(frozen=True)
class RemarkJob:
    """Operations of one scheme, counted at some K."""

    scheme: str
    fleets: tuple[int, ...] = FLEETS
    preset: str = "paper"

    figure = "R1"

    def label(self) -> str:
        """File name stem."""
        return f"R1-{self.scheme}"

    def scenario(self) -> Scenario:
        """The preset, at any K."""
        return load(self.preset)

    def device_blocks(self) -> int:
        """A size that stands for the time of tracing: nothing is run."""
        return 1_000_000

    def run(self) -> dict[str, np.ndarray]:
        """Arrays device, server (fleets,): operations of one device, and of the server, in a block."""
        counts = np.array([operations(self.scheme, devices, self.preset) for devices in self.fleets])
        return {"device": counts[:, 0], "server": counts[:, 1]}


def central(devices: int) -> float:
    """Joint states times joint actions of (12): a lower bound on the operations of one sweep."""
    states = float(QUEUE_STATES * GAIN_STATES) ** devices * (SERVER_STATES * devices + 1)
    return states * float(DEVICE_ACTIONS) ** devices * SERVER_ACTIONS


def operations(scheme: str, devices: int, preset: str = "paper") -> tuple[float, float]:
    """(one device's, the server's) operations in a block of a fleet of `devices`."""
    scenario = load(preset, {"devices": devices})
    world, pair = cast_floats(build(scenario, sample_placement(scenario)), "float32"), pair_for(scheme, scenario)

    def arguments(world: World, pair: ControllerPair) -> Any:
        """What the device 0 and the server get in block 0."""
        shared, carry = init(world, pair, jnp.uint32(0), controller_keys(jnp.uint32(0), jnp.uint32(0)))
        broadcast = jax.tree.map(lambda delayed: delayed[-1], carry.state.broadcast_queue)
        fleet = (carry.device_state, world.devices, device_views(shared.device, carry.state, broadcast))
        first = jax.tree.map(lambda leaf: leaf[..., 0], fleet)
        return (shared.device, *first), (shared.server, carry.server_state, server_view(carry.state))

    device, server = jax.eval_shape(arguments, world, pair)  # shapes are all that counting needs
    return _device(pair.device, *device), _server(pair.server, world.server, *server)


def jobs(preset: str = "paper") -> list[RemarkJob]:
    """All counts."""
    return [RemarkJob(name, preset=preset) for name in CANDIDATES]


def judge(runs: Mapping[Any, Mapping[str, np.ndarray]]) -> list[Verdict]:
    """Whether every candidate computes and sends less than the central solution."""
    own = {job.scheme: (job, arrays) for job, arrays in runs.items() if job.figure == "R1"}
    return [
        _verdict(reading, *own[name]) if supports(name, reading) else Verdict("R1", name, reading, "", NOT_APPLICABLE)
        for reading in READINGS
        for name in CANDIDATES
    ]


def _verdict(reading: str, job: RemarkJob, arrays: Mapping[str, np.ndarray]) -> Verdict:
    fleets = np.array(job.fleets)
    total = fleets * arrays["device"] + arrays["server"]
    needed = np.array([central(devices) for devices in job.fleets])
    ratios = (needed / total)[fleets >= FIRST_COMPARED]
    signals, central_signals = sum(find_scheme(job.scheme).signalling().values()), sum(CENTRAL_SIGNALS.values())
    why = (
        f"A block of {fleets[-1]} devices takes {total[-1]:.3g} operations, "
        f"a sweep of (12) 10^{np.log10(needed[-1]):.0f}; "
        f"{signals} numbers are sent per device and block, {central_signals} by the central solution."
    )
    result = HOLDS if ratios.min() > 1 and signals < central_signals else FAILS
    counted = (float(ratios.min()), float(ratios.max()))
    return Verdict("R1", job.scheme, reading, "", result, unit="central / decentralised", why=why, counted=counted)


def _device(plain: DeviceController, controller: Any, state: Any, device: Any, view: Any) -> float:
    """Operations of one device in a block, acting and learning, from the shapes of everything but `plain`."""
    key, cost = jax.random.key(0), jnp.float32(1.0)

    def block(set_up: dict[str, Any], state: Any, device: Any, view: Any, later: Any):
        own = replace(plain, **set_up)
        action = own.act(state, device, view, key)
        return action, own.learn(state, device, view, action, cost, later)

    return _operations(jax.jit(block).lower(_set_up(plain, controller), state, device, view, view))


def _server(plain: ServerController, server: Server, controller: Any, state: Any, view: Any) -> float:
    """Operations of the server in a block, from the shapes of everything but `plain` and `server`."""
    key, cost = jax.random.key(0), jnp.float32(1.0)

    def block(set_up: dict[str, Any], state: Any, view: Any, later: Any):
        own = replace(plain, **set_up)
        action = own.act(state, server, view, key)
        return action, own.learn(state, server, view, action, cost, later)

    return _operations(jax.jit(block).lower(_set_up(plain, controller), state, view, view))


def _set_up(plain: Any, controller: Any) -> dict[str, Any]:
    """The fields of a controller that are no hyperparameters, after its setup; those are constants of the program."""
    names = [field.name for field in fields(plain) if not isinstance(getattr(plain, field.name), int | float | str)]
    return {name: getattr(controller, name) for name in names}


def _operations(lowered: jax.stages.Lowered) -> float:
    """Floating-point operations; a transcendental function counts as one."""
    costs = lowered.cost_analysis() or {}
    return float(costs.get("flops", 0.0)) + float(costs.get("transcendentals", 0.0))
