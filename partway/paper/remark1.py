"""Remark 1, counted: computation and signalling of the central solution and of the decentralised schemes.

Nothing is timed. A scheme's computation is the floating-point operations of one block, acting and learning, that XLA
counts in the program as it is written; a device's do not depend on K. The central solution's is one sweep of (12): one
operation for each joint state and joint action, which is less than it needs. Signalling is in numbers for each device
and block; the central solution needs every device's state before it can decide, and tells each what to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.controllers.base import ControllerState, DeviceController, DeviceView, ServerController, ServerView
from partway.paper.claims import CANDIDATES, READINGS
from partway.paper.figure_runs import plays
from partway.paper.statistics import FAILS, HOLDS, NOT_APPLICABLE
from partway.paper.verdicts import Verdict
from partway.pytree import cast_floats
from partway.rng import controller_keys
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for
from partway.simulation.step import device_views, server_view, start
from partway.system.placement import sample_placement
from partway.system.types import Device
from partway.system.world import World, build

FLEETS = (1, 2, 20, 60)
FIRST_COMPARED = 2
"""Devices from which on the central solution must cost more: with one, the two are the same problem."""
QUEUE_STATES, GAIN_STATES, SERVER_STATES = 8, 3, 8
"""Of the central problem, coarse: of each device, and of the server for each device."""
DEVICE_ACTIONS, SERVER_ACTIONS = 6, 16
"""Tasks taken up and cut of each device, rates of the server."""
CENTRAL_SIGNALS = {"up": 2, "down": 2}
"""Queue and gain up; tasks to leave and power down."""


@dataclass(frozen=True)
class RemarkPart:
    """Operations and signals of one scheme, counted at some K."""

    scheme: str
    fleets: tuple[int, ...] = FLEETS
    preset: str = "paper"

    figure = "R1"

    def label(self) -> str:
        return f"R1-{self.scheme}"

    def scenario(self) -> Scenario:
        return load(self.preset)

    def device_blocks(self) -> int:
        return 1_000_000

    def play(self) -> dict[str, np.ndarray]:
        """device, server (K,): operations of one device, and of the server, in a block."""
        found = np.array([operations(self.scheme, devices, self.preset) for devices in self.fleets])
        return {"device": found[:, 0], "server": found[:, 1]}


def central(devices: int) -> float:
    """Joint states times joint actions of (12): operations of one sweep, at the least."""
    states = float(QUEUE_STATES * GAIN_STATES) ** devices * (SERVER_STATES * devices + 1)
    return states * float(DEVICE_ACTIONS) ** devices * SERVER_ACTIONS


def operations(scheme: str, devices: int, preset: str = "paper") -> tuple[float, float]:
    """(one device's, the server's) operations in a block of a fleet of so many devices."""
    scenario = load(preset, {"devices": devices})
    world, pair = cast_floats(build(scenario, sample_placement(scenario)), "float32"), pair_for(scheme, scenario)
    agreed, loop = start(world, pair, jnp.uint32(0), controller_keys(jnp.uint32(0), jnp.uint32(0)))
    broadcast = jax.tree.map(lambda told: told[-1], loop.state.broadcast_queue)
    fleet = (loop.device_state, world.devices, device_views(loop.state, broadcast))
    first = jax.tree.map(lambda leaf: leaf[..., 0], fleet)
    return _device(agreed.device, *first), _server(agreed.server, loop.server_state, world, server_view(loop.state))


def parts(preset: str = "paper") -> list[RemarkPart]:
    """What has to be counted."""
    return [RemarkPart(name, preset=preset) for name in CANDIDATES]


def judge(runs: Mapping[Any, Mapping[str, np.ndarray]]) -> list[Verdict]:
    """Whether every candidate computes and sends less than the central solution."""
    found = {part.scheme: (part, arrays) for part, arrays in runs.items() if part.figure == "R1"}
    return [
        _judged(reading, *found[name]) if plays(name, reading) else Verdict("R1", name, reading, "", NOT_APPLICABLE)
        for reading in READINGS
        for name in CANDIDATES
    ]


def _judged(reading: str, part: RemarkPart, arrays: Mapping[str, np.ndarray]) -> Verdict:
    fleets = np.array(part.fleets)
    whole = fleets * arrays["device"] + arrays["server"]
    needed = np.array([central(devices) for devices in part.fleets])
    ratios = (needed / whole)[fleets >= FIRST_COMPARED]
    signals, told = sum(find_scheme(part.scheme).signalling().values()), sum(CENTRAL_SIGNALS.values())
    why = (
        f"A block of {fleets[-1]} devices takes {whole[-1]:.3g} operations, "
        f"a sweep of (12) 10^{np.log10(needed[-1]):.0f}; "
        f"{signals} numbers are sent for each device and block, {told} by the central solution."
    )
    result = HOLDS if ratios.min() > 1 and signals < told else FAILS
    counted = (float(ratios.min()), float(ratios.max()))
    return Verdict("R1", part.scheme, reading, "", result, unit="central / decentralised", why=why, counted=counted)


def _device(controller: DeviceController, memory: ControllerState, device: Device, view: DeviceView) -> float:
    """Operations of one device in a block."""
    key, cost = jax.random.key(0), jnp.float32(1.0)

    def block(memory: ControllerState, device: Device, view: DeviceView, later: DeviceView):
        action = controller.act(memory, device, view, key)
        return action, controller.learn(memory, device, view, action, cost, later)

    return _operations(jax.jit(block).lower(memory, device, view, view))


def _server(controller: ServerController, memory: ControllerState, world: World, view: ServerView) -> float:
    """Operations of the server in a block."""
    key, cost, server = jax.random.key(0), jnp.float32(1.0), world.server

    def block(memory: ControllerState, view: ServerView, later: ServerView):
        action = controller.act(memory, server, view, key)
        return action, controller.learn(memory, server, view, action, cost, later)

    return _operations(jax.jit(block).lower(memory, view, view))


def _operations(lowered: jax.stages.Lowered) -> float:
    """Floating-point operations, transcendental functions counted as one each."""
    found = lowered.cost_analysis() or {}
    return float(found.get("flops", 0.0)) + float(found.get("transcendentals", 0.0))
