"""Proposition 1 and Remark 2: both sides of (37) for devices and of (38) for the server, along a run.

    liminf_t E ||grad delta^2(s_t, theta~_t)||^2  <=  E delta^2(s_2, theta~_1) / E_1(ln 1/gamma)      (37)
    liminf_t E ||grad rho^2(q_t, eta~_t)||^2      <=  E rho^2(q_2, eta~_1) / E_1(ln 1/gamma)          (38)

theta~ = [p, theta] of a device, eta~ = [f, eta] of the server. The expectation is a mean over replicates, each with
its own placement, so that all devices have one distribution. The gradient is that of the squared TD error, with its
factor 2 and with the right sign; beside it is measured what (26), (27), (33), (34) print, without the factor and with
a sum of the opposite sign. delta is that of the gradient which the scheme follows (`partway.controllers.parametric`).
Costs are in the learner's units, `typical_device_cost` and `typical_server_cost`; p in `half_power`, f in f_max.

The part by theta and the right side are multiplied by c^2 where costs and theta are multiplied by c, the part by p by
c^4. So the part by theta alone, over the right side, depends on no unit of cost, power or rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from partway.controllers.base import ControllerPair
from partway.controllers.block import Transition
from partway.controllers.parametric import Algorithm1, LearnerState, Terms, gradients
from partway.paper.claims import CANDIDATES, READINGS
from partway.paper.figure_runs import Sizes
from partway.paper.statistics import NOT_APPLICABLE, Decision, decide, deciding, verdict
from partway.paper.verdicts import Verdict
from partway.pytree import cast_floats
from partway.rng import controller_keys_on_host
from partway.scenario.loading import load
from partway.scenario.schema import Scenario
from partway.schemes import find_scheme, pair_for, stream_of
from partway.simulation.step import Carry, device_views, init, server_view, step
from partway.system.exogenous import sample
from partway.system.placement import sample_placement
from partway.system.signalling import no_broadcast
from partway.system.types import DeviceAction
from partway.system.world import World, build

DISCOUNTS = (0.9, 0.95, 0.99, 0.999)
DEVICES = 4
PRECISION = "float32"
WINDOW = 50
"""Blocks that are averaged into one point of the curves."""
START = 10.0
"""Q before the first block in the runs on Remark 2, the same at every discount: that of a scheme's start at 0.9."""
PARTIES = {"device": "(37)", "server": "(38)"}
PARAMETERS = {"device": "theta", "server": "eta"}
PARTS = ("action", "parameters", "printed")


def divisor(discount: float) -> float:
    """E_1(ln 1/gamma), by which (37) and (38) divide; E_1(x) is the integral of e^(-t) / t from x on."""
    return float(special.exp1(-np.log(discount)))


@dataclass(frozen=True)
class Sides:
    """Both sides for one party at one discount.

    action      (replicates, windows) ||d delta^2 / dp||^2, or by f: a part of the left side
    parameters  (replicates, windows) ||d delta^2 / dtheta||^2, or by eta: the other part
    printed     (replicates, windows) the left side with what (26), (27) or (33), (34) print in the place of a gradient
    error       (replicates,) delta^2 in block 2 with the parameters of block 1
    """

    party: str
    discount: float
    action: np.ndarray
    parameters: np.ndarray
    printed: np.ndarray
    error: np.ndarray

    @property
    def left(self) -> np.ndarray:
        """(replicates, windows) the left side along the run, before its lower limit."""
        return self.action + self.parameters

    @property
    def right(self) -> np.ndarray:
        """(replicates,) the right side."""
        return self.error / divisor(self.discount)


def smallest(curve: np.ndarray) -> np.ndarray:
    """(replicates,) the window of the last half of (replicates, windows) in which the mean of replicates is least.

    It stands for the lower limit. That it is the least of several noisy means is in the proposition's favour.
    """
    half = curve[:, curve.shape[1] // 2 :]
    return half[:, int(np.argmin(half.mean(axis=0)))]


def log_ratio(smaller: np.ndarray, greater: np.ndarray) -> np.ndarray:
    """(replicates,) numbers with the mean log(mean greater / mean smaller) and its standard error by the delta method.

    (37) compares expectations; the mean of the replicates' own log ratios would be another quantity.
    """
    with np.errstate(all="ignore"):  # a mean of 0 or infinity: no finite number, so that nothing is decided
        above, below = np.mean(greater), np.mean(smaller)
        return np.asarray(np.log(above / below) + greater / above - smaller / below)


@dataclass(frozen=True)
class PropositionJob:
    """Both sides for one variant of Algorithms 1 and 2 under one reading of (1), at all discounts.

    start        Q before the first block at every discount; None: the scheme's, which rises as 1 / (1 - gamma)
    step, decay  of `step_size`, for devices and server; None: the scheme's
    """

    scheme: str
    reading: str
    seeds: tuple[int, ...]
    blocks: int
    preset: str = "paper"
    start: float | None = None
    step: float | None = None
    decay: float | None = None

    @property
    def figure(self) -> str:
        """The claim that it is run for."""
        return "P1" if self.start is None else "R2"

    def label(self) -> str:
        """File name stem."""
        return f"{self.figure}-{self.scheme}-{self.reading}"

    def scenario(self, placement_seed: int | None = None) -> Scenario:
        """The scenario of a replicate, by default of the first; learning never stops."""
        changed: dict[str, Any] = {"devices": DEVICES, "queue": self.reading, f"schemes.{self.scheme}.stop": False}
        changed["placement_seed"] = self.seeds[0] if placement_seed is None else placement_seed
        return load(self.preset, changed)

    def device_blocks(self) -> int:
        """Its size: devices x blocks x runs."""
        return DEVICES * len(DISCOUNTS) * len(self.seeds) * self.blocks

    def run(self) -> dict[str, np.ndarray]:
        """{party}_{part} of PARTS: (discounts, replicates, windows); {party}_error: (discounts, replicates)."""
        scenarios = [self.scenario(seed) for seed in self.seeds]
        world = cast_floats(build(scenarios[0], sample_placement(scenarios[0])), PRECISION)
        gain = np.stack([sample_placement(scenario).mean_gain_per_w for scenario in scenarios])
        seeds, count, pair = np.asarray(self.seeds, np.uint32), len(DISCOUNTS), self._pair(scenarios[0])
        lanes = _Lane(
            jnp.asarray(np.repeat(DISCOUNTS, len(seeds)), PRECISION),
            jnp.asarray(np.repeat(self._start_values(pair), len(seeds), axis=0), PRECISION),
            jnp.asarray(np.tile(gain, (count, 1)), PRECISION),
            jnp.asarray(np.tile(seeds, count)),
            jnp.tile(controller_keys_on_host(seeds, stream_of(self.scheme)), (count, 1)),
        )
        measured = _measure(world, pair, lanes, blocks=self.blocks)
        shape = count, len(seeds), self.blocks
        return _arrays({name: np.asarray(values).reshape(shape) for name, values in measured.items()})

    def _pair(self, scenario: Scenario) -> ControllerPair:
        """The scheme's controllers with this job's steps."""
        given = {name: value for name in ("step", "decay") if (value := getattr(self, name)) is not None}
        pair = pair_for(self.scheme, scenario)
        return ControllerPair(replace(pair.device, **given), replace(pair.server, **given))

    def _start_values(self, pair: Any) -> np.ndarray:
        """(discounts, 2) `start_value` of device and server, which is in units of 1 / (1 - gamma)."""
        if self.start is None:
            return np.tile([pair.device.start_value, pair.server.start_value], (len(DISCOUNTS), 1))
        return np.array([[self.start * (1.0 - gamma)] * 2 for gamma in DISCOUNTS])


class _Lane(NamedTuple):
    """What differs between the runs of one program: gamma, start values, devices' gains, seed, the scheme's keys."""

    discount: jax.Array
    start_values: jax.Array
    gain: jax.Array
    seed: jax.Array
    keys: jax.Array


def _arrays(series: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a job from values block by block (discounts, replicates, blocks)."""
    arrays: dict[str, np.ndarray] = {}
    for party in PARTIES:
        arrays[f"{party}_error"] = series[f"{party}_error"][..., 2].astype(np.float64)
        for part in PARTS:
            values = series[f"{party}_{part}"]
            windows = values.shape[-1] // WINDOW
            cut = values[..., : windows * WINDOW].reshape(*values.shape[:-1], windows, WINDOW)
            arrays[f"{party}_{part}"] = cut.mean(axis=-1, dtype=np.float64)
    return arrays


Learners = dict[str, LearnerState]


@partial(jax.jit, static_argnames="blocks")
def _measure(world: World, pair: ControllerPair, lanes: _Lane, blocks: int) -> dict[str, jax.Array]:
    """{party}_{part} and {party}_error of every block, (lanes, blocks).

    Not by `partway.simulation.rollout`, which keeps transitions: the terms of (37) and (38) need what the learners know
    before and after every block.
    """

    def run(lane: _Lane) -> dict[str, jax.Array]:
        own = replace(
            world,
            devices=replace(world.devices, discount=jnp.full(DEVICES, lane.discount), mean_gain=lane.gain),
            server=replace(world.server, discount=lane.discount),
        )
        shared, carry = init(own, _started(pair, lane.start_values), lane.seed, lane.keys[:2])

        def block(state: tuple[Carry, Learners], at: jax.Array) -> tuple[tuple[Carry, Learners], dict[str, jax.Array]]:
            before, earlier = state
            after, transition = step(own, shared, before, sample(own, lane.seed, at), lane.keys[2], at, True)
            learners = _learners(before)
            return (after, learners), _block(own, shared, before, after, transition, learners, earlier)

        numbers = jnp.arange(blocks, dtype=jnp.uint32)
        return jax.lax.scan(block, (carry, _learners(carry)), numbers)[1]

    return jax.vmap(run)(lanes)


def _started(pair: Any, start_values: jax.Array) -> ControllerPair:
    """The pair with other start values (2,)."""
    device, server = start_values
    return ControllerPair(replace(pair.device, start_value=device), replace(pair.server, start_value=server))


def _learners(carry: Carry) -> Learners:
    """theta~ and eta~ before a block."""
    return {"device": carry.device_state, "server": carry.server_state.learned}


def _block(
    world: World,
    pair: ControllerPair,
    before: Carry,
    after: Carry,
    transition: Transition,
    learners: Learners,
    earlier: Learners,
) -> dict[str, jax.Array]:
    """The sides of one block, means over devices; `earlier` are the parameters of the block before."""
    discounts = {"device": world.devices.discount, "server": world.server.discount}
    own, printed = (terms(world, pair, before, after, transition, kind) for kind in (None, "printed"))
    values: dict[str, jax.Array] = {}
    for party, discount in discounts.items():
        action, parameters = squared_norms(own[party], learners[party], discount, "exact")
        values[f"{party}_action"], values[f"{party}_parameters"] = jnp.mean(action), jnp.mean(parameters)
        as_printed = squared_norms(printed[party], learners[party], discount, "printed")
        values[f"{party}_printed"] = jnp.mean(as_printed[0] + as_printed[1])
        r, now, later = own[party](earlier[party].action, earlier[party].theta)
        values[f"{party}_error"] = jnp.mean((r + discount * later - now) ** 2)
    return values


def terms(
    world: World, pair: ControllerPair, before: Carry, after: Carry, transition: Transition, gradient: str | None
) -> dict[str, Terms]:
    """The terms of delta (24) and rho (31) in a block as functions of the parameters, for {party}.

    gradient  "exact" or "printed", in whose sense p and f have consequences; None: that of the scheme
    """
    changed: dict[str, Any] = {} if gradient is None else {"gradient": gradient}
    device: Any = replace(pair.device, **changed)
    server: Any = replace(pair.server, **changed)
    nothing, did = no_broadcast(DEVICES, before.state.q.dtype), transition.devices
    view, next_view = (device_views(device, carry.state, nothing) for carry in (before, after))
    action = DeviceAction(did.started, did.offload)
    return {
        "device": device.terms(world.devices, view, action, next_view),
        "server": server.terms(before.server_state, world.server, server_view(before.state), server_view(after.state)),
    }


def squared_norms(
    terms: Terms, learner: LearnerState, discount: jax.Array, gradient: str
) -> tuple[jax.Array, jax.Array]:
    """The squared norm of the gradient of delta^2, its part by p or f and its part by theta or eta.

    (K,) each for a fleet, () each for the server, whose action f is (n,).
    """
    error, by_action, by_theta = gradients(terms, learner.action, learner.theta, discount, gradient)
    action = (error * by_action) ** 2
    return action if jnp.ndim(error) else jnp.sum(action), jnp.sum((error * by_theta) ** 2, axis=0)


def schemes() -> list[str]:
    """Candidates that are Algorithms 1 and 2, which the proposition is about."""
    return [name for name in CANDIDATES if isinstance(find_scheme(name).device, Algorithm1)]


def jobs(sizes: Sizes, preset: str = "paper") -> list[PropositionJob]:
    """All runs: for Proposition 1 with the scheme's start, for Remark 2 with the same start at every discount."""
    seeds = tuple(range(sizes.seeds[0], sizes.seeds[0] + sizes.points.replicates))
    return [
        PropositionJob(name, reading, seeds, sizes.blocks, preset, start)
        for reading in READINGS
        for name in schemes()
        for start in (None, START)
    ]


def sides(arrays: Mapping[str, np.ndarray]) -> list[Sides]:
    """The results of a job, party by party and discount by discount."""
    return [
        Sides(party, gamma, *(np.asarray(arrays[f"{party}_{kind}"][i], np.float64) for kind in (*PARTS, "error")))
        for party in PARTIES
        for i, gamma in enumerate(DISCOUNTS)
    ]


def judge(runs: Mapping[Any, Mapping[str, np.ndarray]]) -> list[Verdict]:
    """Verdicts on Proposition 1 (P1) and Remark 2 (R2), for every candidate and reading."""
    own = {(job.figure, job.scheme, job.reading): arrays for job, arrays in runs.items() if job.figure in _JUDGES}
    return [
        _JUDGES[claim](name, reading, sides(own[claim, name, reading]))
        if (claim, name, reading) in own
        else Verdict(claim, name, reading, "", NOT_APPLICABLE)
        for claim in _JUDGES
        for reading in READINGS
        for name in CANDIDATES
    ]


def _proposition(name: str, reading: str, measured: Sequence[Sides]) -> Verdict:
    """The left side is at most the right one, for both parties at every discount."""
    labels = [f"{PARTIES[one.party]} at gamma = {one.discount:g}: left < right" for one in measured]
    decisions = decide([log_ratio(smallest(one.left), one.right) for one in measured])
    at = deciding(decisions)
    one = measured[at]
    left, part, right = (np.mean(side) for side in (smallest(one.left), smallest(one.parameters), one.right))
    why = (
        f"{labels[at].split(':')[0]}: left {left:.4g}, of which by {PARAMETERS[one.party]} alone {part:.4g}, right "
        f"{right:.4g} (means of replicates); {_failing(decisions)}."
    )
    about = ("P1", name, reading, "", verdict(decisions))
    return Verdict(*about, tuple(labels), tuple(decisions), at, "ratio", why)


def _remark(name: str, reading: str, measured: Sequence[Sides]) -> Verdict:
    """The left side falls from each discount to the next, as its limit at gamma = 1 is to be 0."""
    pairs = [(low, high) for low, high in pairwise(measured) if low.party == high.party]
    labels = [
        f"left side of {PARTIES[low.party]}: at gamma = {high.discount:g} < at gamma = {low.discount:g}"
        for low, high in pairs
    ]
    decisions = decide([log_ratio(smallest(high.left), smallest(low.left)) for low, high in pairs])
    at = deciding(decisions)
    first, last = (np.mean(smallest(one.left)) for one in pairs[at])
    why = f"{labels[at].split(':')[0]}: {first:.4g} at {pairs[at][0].discount:g}, {last:.4g} at "
    why += f"{pairs[at][1].discount:g} (means of replicates); {_failing(decisions)}."
    about = ("R2", name, reading, "", verdict(decisions))
    return Verdict(*about, tuple(labels), tuple(decisions), at, "ratio", why[0].upper() + why[1:])


def _failing(decisions: Sequence[Decision]) -> str:
    failing = sum(one.sign < 0 for one in decisions)
    return f"significantly the other way round in {failing} of {len(decisions)} comparisons"


_JUDGES = {"P1": _proposition, "R2": _remark}
