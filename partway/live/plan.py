"""The plan of a live run: the scenario's world, the policy, and the record that each device receives when it joins."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
import tomli_w

from partway.arguments import MAX_SEED, whole_number
from partway.controllers.base import ControllerPair, DeviceController
from partway.dnn.cuts import Task
from partway.dnn.profile import read_profile, write_profile
from partway.errors import InputError, shown
from partway.live.messages import DeviceConstants, Policy, RegisterReply, Setting
from partway.pytree import host_array
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import SCHEMES, find_scheme, pair_for, refuse_agents, settable, stream_of
from partway.system.kinds import is_paper
from partway.system.placement import sample_placement
from partway.system.types import Device
from partway.system.world import World, build

NUMBERS = (
    *("capacity", "energy_coef", "queue_weight", "energy_weight", "server_work", "mean_gain", "snr_gap"),
    *("bandwidth_hz", "slot_s", "tx_power_max_w", "discount", "fleet_size"),
)
"""The numbers of a device's record."""
MAX_BLOCKS = 10_000_000
LEASE_BLOCKS = 10
"""Blocks without a word after which a server forgets a device."""


@dataclass(frozen=True)
class LivePlan:
    """A live run, checked.

    pair          the controllers of the scheme, with the scenario's hyperparameters
    lease_blocks  blocks without a word after which the server forgets a device
    model_sha256  of the network, which its devices must have as well ("": of none)
    model_words   which network that is
    """

    scenario: Scenario
    scheme: str
    pair: ControllerPair
    world: World
    blocks: int
    seed: int
    precision: str
    lease_blocks: int = LEASE_BLOCKS
    model_sha256: str = ""
    model_words: str = ""

    @property
    def devices(self) -> int:
        """How many devices the server has tables for."""
        return self.scenario.devices

    @property
    def stream(self) -> str:
        """The label of the controllers' random numbers."""
        return stream_of(self.scheme)

    @property
    def slot_s(self) -> float:
        """Length of a slot [s]."""
        return self.scenario.slot_s

    @property
    def slots(self) -> int:
        """Slots in a block."""
        return self.scenario.slots_per_block

    @property
    def block_s(self) -> float:
        """Length of a block [s]."""
        return self.slots * self.slot_s

    @cached_property
    def scenario_sha256(self) -> str:
        """The scenario's hash."""
        return scenario_hash(self.scenario)

    @property
    def uses_price(self) -> bool:
        """Whether devices of this scheme read a price."""
        return "price" in self.pair.device.uses_broadcast

    def device(self, number: int) -> Device:
        """The constants of one device, scalars."""
        return jax.tree.map(lambda leaf: leaf[..., number], self.world.devices)

    def reply(self, device: int, session: str) -> RegisterReply:
        """The record that a device receives when it joins."""
        return RegisterReply(
            device=device,
            session=session,
            constants=constants_of(self.device(device)),
            policy=Policy(
                scheme=self.scheme,
                settings=settable(self.pair.device),
                stream=self.stream,
                seed=self.seed,
                precision=self.precision,
                uses_broadcast=self.pair.device.uses_broadcast,
            ),
            arrival_threshold=int(np.asarray(self.world.arrival_threshold)[device]),
            blocks=self.blocks,
            broadcast_delay_blocks=self.scenario.broadcast_delay_blocks,
            lease_blocks=self.lease_blocks,
            scenario_sha256=self.scenario_sha256,
            model_sha256=self.model_sha256,
        )


def make_plan(
    scenario: Scenario,
    scheme: str,
    *,
    blocks: int,
    seed: int = 0,
    precision: str = "float32",
    lease_blocks: int = LEASE_BLOCKS,
    model_sha256: str = "",
    model_words: str = "",
    pair: ControllerPair | None = None,
) -> LivePlan:
    """Check a live run before anything starts. Raises InputError.

    pair  the scheme's controllers where they have been prepared, such as a tuned constant
    """
    whole_number("--blocks", blocks, 2, MAX_BLOCKS)
    whole_number("--seed", seed, 0, MAX_SEED)
    if scenario.queue != "conserving":
        raise InputError(f"queue = {shown(scenario.queue)}: live tasks are whole; use queue = 'conserving'")
    if scenario.arrivals_seen != "past":
        raise InputError("arrivals_seen = 'current': a live task cannot be seen before it arrives; use 'past'")
    if scenario.server.initial_queue_tasks or any(kind.initial_queue_tasks for kind in scenario.device_classes()):
        raise InputError("initial_queue_tasks: live queues begin empty; use 0")
    if not is_paper(scenario):
        raise InputError(
            "radio.fading, traffic: a live device draws its gains and tasks by the laws of the preset paper; use "
            "radio.fading.kind = 'rayleigh' and traffic.kind = 'bernoulli'"
        )
    slack = (scenario.broadcast_delay_blocks - 1) * scenario.slots_per_block - 1
    if slack < 1:
        raise InputError(
            "a live run needs broadcast_delay_blocks and slots_per_block of 2 or more, got "
            f"{scenario.broadcast_delay_blocks} and {scenario.slots_per_block}: the server's block begins one block "
            "and one slot after the devices', so an earlier broadcast cannot arrive in time"
        )
    refuse_agents([scheme], "live")
    if find_scheme(scheme).preparation == "use_bound":
        raise InputError(f"scheme {shown(scheme)} knows the statistics of the world, which no live device does")
    made = pair_for(scheme, scenario) if pair is None else pair
    world = build(scenario, sample_placement(scenario))
    return LivePlan(scenario, scheme, made, world, blocks, seed, precision, lease_blocks, model_sha256, model_words)


def scenario_hash(scenario: Scenario) -> str:
    """SHA-256 of a scenario as a TOML file, in which a network is named by the hash of its profile, not by a path."""
    tables = scenario.tables()
    for device in (tables["device"], *(group["device"] for group in tables["group"])):
        task = device.get("task", {})
        if "profile" in task:
            text = write_profile(read_profile(task["profile"]))
            device["task"] = {**task, "profile": hashlib.sha256(text.encode()).hexdigest()}
    return hashlib.sha256(tomli_w.dumps(tables).encode()).hexdigest()


def constants_of(device: Device) -> DeviceConstants:
    """A device's record as numbers."""
    task = device.task
    return DeviceConstants(
        numbers={name: float(np.asarray(getattr(device, name))) for name in NUMBERS},
        share=np.asarray(task.share, np.float64),
        bits=np.asarray(task.bits, np.float64),
        feasible=np.asarray(task.feasible, bool),
        proportional=bool(np.asarray(task.proportional)),
        bits_per_task=float(np.asarray(task.bits_per_task)),
        laws=task.laws,
        slots=device.slots,
        max_tasks_per_block=device.max_tasks_per_block,
        objective=device.objective,
    )


def device_of(constants: DeviceConstants) -> Device:
    """The inverse of `constants_of`, float64 on the host."""
    task = Task(
        share=host_array(constants.share),
        bits=host_array(constants.bits),
        feasible=host_array(constants.feasible),
        proportional=host_array(np.asarray(constants.proportional)),
        bits_per_task=host_array(constants.bits_per_task),
        laws=constants.laws,
    )
    return Device(
        **{name: host_array(value) for name, value in constants.numbers.items()},
        task=task,
        slots=constants.slots,
        max_tasks_per_block=constants.max_tasks_per_block,
        queue="conserving",
        arrivals_seen="past",
        objective=constants.objective,
    )


def controller_of(policy: Policy, named: str | None = None) -> DeviceController:
    """The device controller that a server asks for, with its hyperparameters within their limits.

    named  a scheme from outside that the user has named: a peer makes nobody import code

    Raises InputError for a scheme that is not known here, and for hyperparameters that it cannot have.
    """
    name, settings = policy.scheme, dict[str, Setting](policy.settings)
    if name not in SCHEMES and name != named:
        raise InputError(f"the server runs the scheme {shown(name)}, which is not known here")
    return pair_for(name, load("paper", {"schemes": {name: settings}} if settings else {})).device
