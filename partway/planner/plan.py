"""Where to cut a network now: for every queue and radio quality the tasks to take up, the cut and the CPU's rate.

Everything is asked for ONE device of a scenario whose tasks are that network. What it should do comes from the lower
bound's price and exact tables, which know the scenario's statistics, or from what `priced` has learned. Legend as in
`partway.model`; x is the fading, the gain as a multiple of its mean, Exp(1).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from partway.bound.lower_bound import Bound
from partway.controllers.base import DeviceView, no_broadcast
from partway.controllers.postdecision import PostDecision, planned, value_left
from partway.dnn.profile import Profile
from partway.errors import InputError, compact
from partway.pytree import cast_floats
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.simulation.rollout import Run
from partway.system.equations import data_rate
from partway.system.load import load_of
from partway.system.placement import Placement, gain_from_db, pathloss_db, sample_placement
from partway.system.stage_cost import best_cuts
from partway.system.types import Device, DeviceAction
from partway.system.world import World, build

MOST_LOAD, EASED_LOAD = 0.95, 0.8
"""Arriving work, as a share of what can be finished, above which a scenario is eased, and what it is eased to."""
FADING_POINTS = 200
QUANTILES = (0.05, 0.2, 0.5, 0.8, 0.95)
"""Radio qualities asked for: so many of the blocks are worse."""
QUEUES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class DeviceContext:
    """The device that is asked about, in its world.

    cuts     (cuts,) number in the profile of every cut of the device's table, in ascending order of the share
    device   number of the device             own   its constants, float64
    eased    factor by which the arrival probabilities were lowered so that the work can be done; 1: not at all
    """

    scenario: Scenario
    world: World
    placement: Placement
    profile: Profile
    cuts: np.ndarray
    device: int
    own: Device
    eased: float

    @property
    def cpu_max_hz(self) -> float:
        """f_max."""
        return self.scenario.device_classes()[self.device].cpu_max_hz


@dataclass(frozen=True)
class PlanRule:
    """What a decision needs: U (states,) and its slope beyond, gamma, and the price of a mean task sent."""

    value: np.ndarray
    slope: float
    discount: float
    price: float


@dataclass(frozen=True)
class PlanTable:
    """What to do, for every queue and fading; all arrays have the shape (queues, fadings).

    taken  tasks to take up        cut     number in the profile of the last one's cut
    rest   share of it to send     bits    to send [bit]            cpu_hz  rate of the CPU [Hz]
    """

    queues: np.ndarray
    fading: np.ndarray
    started: np.ndarray
    cut: np.ndarray
    offload: np.ndarray
    bits: np.ndarray
    cpu_hz: np.ndarray


def with_task(scenario: Scenario, task: dict[str, Any]) -> Scenario:
    """The scenario whose devices, of all classes, have this task; raises InputError where it does not fit."""
    raw = scenario.model_dump(mode="python", exclude_none=True)
    for table in (raw["device"], *(group["device"] for group in raw["group"])):
        table["task"] = task
    return load(raw)


def site(
    scenario: Scenario, profile: Profile, device: int | None = None, distance_m: float | None = None
) -> DeviceContext:
    """The device of that number, or of median gain, in the scenario; at `distance_m`, without shadowing, if given.

    Where more work arrives than can be done the arrival probabilities are lowered: no plan is good there.
    """
    classes = scenario.device_classes()
    if device is not None and not 0 <= device < scenario.devices:
        raise InputError(f"--device {device}: allowed is a device from 0 to {scenario.devices - 1}")
    placement = sample_placement(scenario)
    middle = int(np.argsort(placement.mean_gain_per_w)[scenario.devices // 2])
    number = middle if device is None else device
    if distance_m is not None:
        placement = _moved(scenario, placement, number, distance_m)
    eased, world, factor = _sustainable(scenario, placement)
    own = jax.tree.map(lambda leaf: np.asarray(leaf)[..., number], world.devices)
    task = classes[number].task
    numbers = cut_numbers(profile, getattr(task, "tensor_dtype", "uint8"), getattr(task, "input_bits", None))
    return DeviceContext(eased, world, placement, profile, numbers, number, own, factor)


def _moved(scenario: Scenario, placement: Placement, device: int, distance_m: float) -> Placement:
    if not 1e-3 <= distance_m <= 1e9:
        raise InputError(f"--distance-m {compact(distance_m)}: allowed is a number from 0.001 up to 1e9")
    distance, gain = placement.distance_m.copy(), placement.mean_gain_per_w.copy()
    loss = pathloss_db(scenario.radio, np.array(distance_m))
    distance[device], gain[device] = distance_m, gain_from_db(loss, scenario.radio.noise_dbw)
    return Placement(distance, gain)


def cut_numbers(profile: Profile, tensor_dtype: str, input_bits: float | None) -> np.ndarray:
    """(cuts,) which of the profile's cuts each row of `partway.task.layer_cuts` is."""
    share, bits = profile.share().astype(np.float32), profile.bits(tensor_dtype)
    if input_bits is not None:
        bits[0] = input_bits
    same = [np.flatnonzero(share == one) for one in np.unique(share)]
    return np.array([rows[np.argmin(bits[rows])] for rows in same])


def finish_rates(devices: Device) -> np.ndarray:
    """(K,) most tasks a block that each device can finish, on average over the fading, whatever it costs."""

    def max_tasks_per_block(device: Device, x: jax.Array) -> jax.Array:
        possible = jnp.isfinite(best_cuts(device, device.mean_gain * x, 0.0).cost)
        return jnp.max(jnp.where(possible, jnp.arange(device.max_tasks_per_block + 1.0), 0.0))

    with jax.enable_x64(True):
        own: Device = jax.tree.map(lambda leaf: jnp.asarray(np.moveaxis(np.asarray(leaf), -1, 0)), devices)
        x = jnp.asarray(quantile((np.arange(FADING_POINTS) + 0.5) / FADING_POINTS))
        over = jax.jit(jax.vmap(jax.vmap(most, in_axes=(None, 0)), in_axes=(0, None)))
        return np.asarray(over(own, x)).mean(axis=1)


def quantile(probability: Any) -> np.ndarray:
    """x that is exceeded with probability 1 - p."""
    return -np.log1p(-np.asarray(probability, np.float64))


def _sustainable(scenario: Scenario, placement: Placement) -> tuple[Scenario, World, float]:
    """The scenario with arrivals that can be dealt with, its world, and the factor they were lowered by."""
    world = build(scenario, placement)
    possible = finish_rates(world.devices)
    arriving = np.array([kind.arrival_prob for kind in scenario.device_classes()]) * scenario.slots
    stuck = np.flatnonzero((possible == 0) & (arriving > 0))
    if len(stuck):
        raise InputError(
            f"device {stuck[0]} can never finish such a task: too slow for one in a block, no cut its radio can carry; "
            "raise device.cpu_max_hz, device.macs_per_cycle or device.bandwidth_hz by --set"
        )
    worst = float(np.max(arriving / np.maximum(possible, 1e-30)))
    if worst <= MOST_LOAD and load_of(scenario, world).together <= MOST_LOAD:
        return scenario, world, 1.0
    factor = min(1.0, EASED_LOAD / worst)
    while load_of(_busier(scenario, factor), world).together > EASED_LOAD:
        factor *= 0.9
    return _busier(scenario, factor), build(_busier(scenario, factor), placement), factor


def _busier(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with `factor` times the arrivals."""
    raw = scenario.model_dump(mode="python", exclude_none=True)
    for table in (raw["device"], *(group["device"] for group in raw["group"])):
        table["arrival_prob"] *= factor
    return load(raw)


def exact_rule(sample_placement: DeviceContext, found: Bound) -> PlanRule:
    """The bound's own multiplier and table of the device."""
    tables, k = found.certificate.tables, sample_placement.device
    price, discount = float(found.certificate.price), float(found.certificate.discount)
    return PlanRule(np.asarray(tables.value)[:, k], float(np.asarray(tables.slope)[k]), discount, price)


def learned_rule(sample_placement: DeviceContext, played: Run) -> PlanRule:
    """What a run of `priced` has learned, the mean over its seeds."""
    pair, loop = played.pair, played.loop
    value = np.asarray(jax.vmap(value_left)(loop.device_state), np.float64)[..., sample_placement.device].mean(axis=0)
    assert isinstance(pair.device, PostDecision)
    discount, price = float(pair.device.discount(sample_placement.own)), float(np.mean(loop.server_state.mean_price))
    return PlanRule(value, float(value[-1] - value[-2]), discount, price)


def advise(sample_placement: DeviceContext, rule: PlanRule, queues: np.ndarray, fading: np.ndarray) -> PlanTable:
    """The rule's choice for every queue (queues,) and fading (fadings,)."""
    with jax.enable_x64(True):
        own, known = cast_floats(sample_placement.own, "float64"), jnp.asarray(rule.value)

        def decide(q: jax.Array, x: jax.Array) -> DeviceAction:
            broadcast = jax.tree.map(lambda leaf: leaf.reshape(()), no_broadcast(1, q.dtype))
            view = DeviceView(q, x * own.mean_gain, jnp.zeros(own.slots), broadcast)
            return planned(own, view, known, jnp.float64(rule.slope), rule.discount, rule.price)

        grid = jax.jit(jax.vmap(jax.vmap(decide, in_axes=(None, 0)), in_axes=(0, None)))
        chosen = grid(jnp.asarray(queues, jnp.float64), jnp.asarray(fading, jnp.float64))
    started, offload = queues[:, None] - np.asarray(chosen.whole), np.asarray(chosen.offload)
    row = np.argmin(np.abs(offload[..., None] - sample_placement.own.task.share[: len(sample_placement.cuts)]), axis=-1)
    hertz = (started - offload) / float(sample_placement.own.capacity) * sample_placement.cpu_max_hz
    return PlanTable(
        queues,
        fading,
        started,
        sample_placement.cuts[row],
        offload,
        np.asarray(sample_placement.own.task.bits)[row],
        hertz,
    )


def efficiency(sample_placement: DeviceContext, fading: np.ndarray) -> np.ndarray:
    """[bit/s/Hz] that the radio carries at full power; NaN where nothing limits it."""
    if np.isinf(sample_placement.own.tx_power_max_w):
        return np.full(fading.shape, np.nan)
    own = sample_placement.own
    with jax.enable_x64(True):
        gain = jnp.asarray(fading * own.mean_gain)
        return np.asarray(data_rate(own, gain, jnp.asarray(own.tx_power_max_w)) / own.bandwidth_hz)
