"""Post-decision learning: formulas against loops, limits against exact solutions, laws that hold while it learns.

Many tests have a server alone with a list of inflows, whose energy in a block in which it serves f costs `coef` f^3.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Play
from hypothesis import given
from hypothesis import strategies as st

from partway.bound.lower_bound import lower_bound
from partway.controllers.base import (
    ControllerPair,
    ControllerState,
    DeviceView,
    ServerController,
    ServerView,
    server_action,
)
from partway.controllers.baselines import Steady
from partway.controllers.postdecision import (
    Oracle,
    PostDecision,
    PostDecisionState,
    Priced,
    backup,
    table_step,
    value_left,
)
from partway.controllers.price import PostDecisionServer, PostDecisionServerState, interpolate
from partway.pytree import cast_floats, record
from partway.scenario.loading import load
from partway.system.equations import service_cost_coef
from partway.system.placement import Placement, sample_placement
from partway.system.signalling import no_broadcast
from partway.system.stage_cost import best_cuts
from partway.system.types import Device, DeviceAction, Server, ServerAction
from partway.system.world import World, build

pytestmark = pytest.mark.usefixtures("float64")
GAIN = 30.0
"""Mean gain [1/W]: a whole task sent at it costs 2.5e-3 x 0.1 s x 1.5 / 30 x 1023 W = 0.0128."""


def four_alike(**overrides: Any) -> World:
    world = load("paper", {"devices": 4, **overrides})
    return build(world, Placement(np.full(4, 100.0), np.full(4, GAIN)))


def first_device(world: World) -> Device:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[..., 0]), world.devices)


def device_view(q: float, x: float, arrivals: Sequence[float] | jax.Array, price: float = 0.0) -> DeviceView:
    nothing = jax.tree.map(lambda leaf: leaf.reshape(()), no_broadcast(1, float))
    broadcast = replace(nothing, price=jnp.asarray(price, float))
    return DeviceView(jnp.asarray(q, float), jnp.asarray(GAIN * x), jnp.asarray(arrivals, float), broadcast)


@cache
def server_of(coef: float = 1.0, **overrides: Any) -> Server:
    """The server of one device, for which serving f in a block costs `coef` f^3, f being at most 3."""
    numbers = {"devices": 1, "server.cpu_max_hz": 6e10, "weights.server_energy": coef / 40.0, **overrides}
    world = build(load("paper", numbers), Placement(np.full(1, 100.0), np.full(1, GAIN)))
    return cast_floats(world.server, "float64")


def server_view(y: Any, inflow: Any = 0.0) -> ServerView:
    return ServerView(jnp.asarray(y, float), jnp.asarray(inflow, float), jnp.zeros(1))


# Formulas, against loops


@pytest.mark.parametrize("size", [2, 6])
@given(data=st.data())
def test_interpolate_agrees_with_numpy(size: int, data: st.DataObject):
    values = data.draw(st.lists(st.floats(-5, 5), min_size=size, max_size=size))
    gaps = data.draw(st.lists(st.floats(0.1, 3), min_size=size, max_size=size))
    at, points = data.draw(st.lists(st.floats(-4, 25), min_size=5, max_size=5)), 0.5 + np.cumsum(gaps)
    found = jax.jit(interpolate)(jnp.asarray(at), jnp.asarray(points), jnp.asarray(values))
    assert np.asarray(found) == pytest.approx(np.interp(at, points, values), abs=1e-9)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_backup_against_a_loop(discount: float):
    """Every queue of a table of 9, every number of tasks started."""
    device, rng = first_device(four_alike()), np.random.default_rng(0)
    limit = device.max_tasks_per_block
    left, cost = rng.uniform(0, 9, 9), np.r_[0.0, rng.uniform(0, 5, limit)]
    cost[limit] = np.inf
    expected = [q + min(cost[j] + discount * left[q - j] for j in range(min(q, limit) + 1)) for q in range(9)]
    found = backup(device, jnp.asarray(left), jnp.asarray(cost), discount)
    assert limit == 5
    assert np.asarray(found) == pytest.approx(expected, rel=1e-12)


def test_the_value_of_what_is_left_against_a_loop():
    """U(m) = E V(m + A); beyond its table of 7 V continues with its last slope."""
    value, arrive = np.random.default_rng(1).normal(size=7), np.array([0.5, 0.3, 0.2])
    longer = np.r_[value, value[-1] + (value[-1] - value[-2]) * np.arange(1, 3)]
    expected = [sum(arrive[a] * longer[m + a] for a in range(3)) for m in range(7)]
    zero = jnp.zeros(())
    found = value_left(PostDecisionState(jnp.asarray(value), jnp.asarray(arrive), zero, zero))
    assert np.asarray(found) == pytest.approx(expected, rel=1e-12)


def learn_once(rule: PostDecision, state: PostDecisionState, device: Device, after: DeviceView) -> PostDecisionState:
    before, nothing = device_view(1.0, 0.4, [0.0] * 5), DeviceAction(jnp.asarray(0.0), jnp.asarray(0.0))
    return rule.learn(state, device, before, nothing, jnp.asarray(0.0), after)


@pytest.mark.parametrize("criterion", ["average", "discounted"])
def test_one_step_of_learning_against_a_loop(criterion: str):
    """`average` has gamma = 1 and subtracts V(0); `discounted` has the scenario's 0.95 and does not.

    The third block, at 0.4 of the mean gain; two tasks arrive in it, as in one of the two blocks before, in the other
    none did. a = 3^-0.6.
    """
    device, value = first_device(four_alike()), 2.0 + np.arange(32.0) ** 1.5
    arrive = jnp.array([0.5, 0.0, 0.5, 0.0, 0.0, 0.0])
    state = PostDecisionState(jnp.asarray(value), arrive, jnp.asarray(2.0), jnp.asarray(jnp.inf))
    learned = learn_once(PostDecision(criterion=criterion), state, device, device_view(3.0, 1.7, [1.0, 0, 0, 1.0, 0]))
    cost = np.asarray(best_cuts(device, jnp.asarray(0.4 * GAIN), 0.0).cost)
    gamma, step = (1.0 if criterion == "average" else 0.95), 3.0**-0.6
    table = np.r_[value, value[-1] + (value[-1] - value[-2]) * np.arange(1, 6)]
    left = 0.5 * table[:32] + 0.5 * table[2:34]

    def best(q: int) -> float:
        return q + min(cost[j] + gamma * left[q - j] for j in range(min(q, device.max_tasks_per_block) + 1))

    expected = np.array([(1 - step) * value[q] + step * best(q) for q in range(32)])
    expected -= expected[0] if criterion == "average" else 0.0
    assert np.asarray(learned.arrive) == pytest.approx([1 / 3, 0, 2 / 3, 0, 0, 0], abs=1e-12)
    assert np.asarray(learned.value) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert float(learned.block) == 3.0


def test_the_criterion_is_that_of_the_scenario_unless_it_is_set():
    average, discounted = (first_device(four_alike(objective=criterion)) for criterion in ("average", "discounted"))
    assert [float(PostDecision().discount(device)) for device in (average, discounted)] == [1.0, 0.95]
    assert float(PostDecision(criterion="discounted").discount(average)) == 0.95
    assert float(PostDecision(criterion="average").discount(discounted)) == 1.0
    servers = [server_of(objective=criterion) for criterion in ("average", "discounted")]
    assert [float(PostDecisionServer().discount(server)) for server in servers] == [0.9999, 0.95]


# The service curve


@st.composite
def slopes(draw: st.DrawFn) -> np.ndarray:
    """u of 12 points, at least 0.2, nowhere decreasing."""
    return np.cumsum([draw(st.floats(0.2, 3.0)), *draw(st.lists(st.floats(0.0, 4.0), min_size=11, max_size=11))])


SERVER_RULE = PostDecisionServer(grid_points=12, criterion="discounted")


@jax.jit
def _served(server: Server, slope: jax.Array, y: jax.Array) -> jax.Array:
    zero = jnp.zeros(())
    state = PostDecisionServerState(slope, zero, zero, zero)
    return jax.vmap(lambda one: SERVER_RULE.service_curve(state, server, server_view(one)).serve(one))(y)


@given(slope=slopes())
def test_what_is_served_meets_the_first_order_condition(slope: np.ndarray):
    """w2 E'(f) = gamma u(y - f) at the points of the grid, with <= where f is at its limit."""
    server, y, limit = server_of(), np.r_[0.0, np.geomspace(0.01, 7.0, 60)], 3.0
    served = np.asarray(_served(server, jnp.asarray(slope), jnp.asarray(y)))
    grid, left = 4.0 * (np.arange(12) / 11) ** 2, 0.95 * slope
    assert (served <= np.minimum(y, limit) + 1e-12).all()
    assert (np.diff(served) >= -1e-12).all()
    assert (np.diff(y - served) >= -1e-12).all()  # more work never leaves less
    small = 3.0 * y**2 <= left[0]
    assert served[small] == pytest.approx(np.minimum(y[small], limit), rel=1e-12, abs=1e-12)
    at_points = np.minimum(np.sqrt(left / 3.0), limit)
    exact = np.asarray(_served(server, jnp.asarray(slope), jnp.asarray(grid + at_points)))
    assert exact == pytest.approx(at_points, rel=1e-9)
    inside = (exact < limit - 1e-9) & (exact < grid + at_points - 1e-9)
    marginal = 3.0 * exact**2
    assert marginal[inside] == pytest.approx(left[inside], rel=1e-6)
    assert (marginal <= left * (1 + 1e-6)).all()  # at f = 3 serving more would still pay


@pytest.mark.parametrize("most", [3e3, 3e7])
@pytest.mark.parametrize("coef", [1e-2, 1e-13, 1e-25, 0.0])
def test_a_server_that_can_do_millions_of_tasks_is_the_same_in_float32(most: float, coef: float):
    """Half a task or one arrives in a block: much less than the spacing of float32 at what could be served."""
    changes = {"server.cpu_max_hz": 2e10 * most, "server.capacitance": 1e-29}
    precise = server_of(coef, **changes)
    learned = [learned_in(dtype, precise) for dtype in ("float32", "float64")]
    single, double = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(one)]) for one in learned)
    assert np.isfinite(double).all()
    assert single == pytest.approx(double, rel=1e-3, abs=1e-6)


def learned_in(precision: str, server: Server) -> tuple[jax.Array, ...]:
    """u, the mean price, and backlog, service and price of each of 40 blocks in which 0.5 and 1 task arrive in turn."""
    rule, here = PostDecisionServer(), cast_floats(server, precision)
    view: ServerView = cast_floats(server_view(0.0), precision)

    def block(carry: tuple[PostDecisionServerState, ServerView], inflow: jax.Array):
        state, view = carry
        action = rule.act(state, here, view, jax.random.key(0))
        left = jnp.maximum(view.backlog - jnp.sum(action.service_per_slot), 0.0)
        after = replace(view, backlog=left + inflow, last_inflow=inflow)
        state = rule.learn(state, here, view, action, jnp.zeros_like(inflow), after)
        return (state, after), (after.backlog, jnp.sum(action.service_per_slot), action.broadcast.price)

    inflows = jnp.asarray(np.tile([0.5, 1.0], 20), precision)
    (state, _), seen = jax.jit(lambda start: jax.lax.scan(block, start, inflows))(
        (rule.init(here, view, jax.random.key(0)), view)
    )
    return state.slope, state.mean_price, *seen


# What the server learns


def learn_alone(
    rule: PostDecisionServer, server: Server, inflows: np.ndarray
) -> tuple[PostDecisionServerState, np.ndarray]:
    """The state after a list of inflows (seeds, blocks), and u after each of them (seeds, blocks, grid_points)."""
    state, slope = _learn_alone(rule, server, jnp.asarray(inflows))
    return state, np.asarray(slope)


@jax.jit
def _learn_alone(
    rule: PostDecisionServer, server: Server, inflows: jax.Array
) -> tuple[PostDecisionServerState, jax.Array]:
    def block(carry: tuple[PostDecisionServerState, ServerView], inflow: jax.Array):
        state, view = carry
        action = rule.act(state, server, view, jax.random.key(0))
        backlog = jnp.maximum(view.backlog - jnp.sum(action.service_per_slot), 0.0) + inflow
        after = server_view(backlog, inflow)
        state = rule.learn(state, server, view, action, jnp.zeros(()), after)
        return (state, after), state.slope

    def one(stream: jax.Array):
        empty = server_view(0.0)
        (state, _), slope = jax.lax.scan(block, (rule.init(server, empty, jax.random.key(0)), empty), stream)
        return state, slope

    return jax.vmap(one)(inflows)


INFLOWS = np.array([0.0, 0.25, 1.0, 2.0])
"""Equally likely, 0.8125 on average."""
COEF = 4.0


def inflows_of(seeds: int, blocks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(INFLOWS, (seeds, blocks))


@cache
def learned_alone() -> tuple[PostDecisionServer, Server, np.ndarray, np.ndarray]:
    """Rule, server, grid and u (mean over 16 seeds) after 3000 blocks; gamma = 0.95."""
    rule, server = PostDecisionServer(criterion="discounted"), server_of(COEF)
    state, _ = learn_alone(rule, server, inflows_of(16, 3000))
    return rule, server, np.asarray(rule.grid(server_view(0.0))), np.asarray(state.slope).mean(axis=0)


def test_u_is_the_derivative_of_the_exact_value():
    """V(y) = y + min_f (4 f^3 + 0.95 U(y - f)), U(x) = E V(x + a), by value iteration in steps of 1/32, in NumPy."""
    _, _, grid, slope = learned_alone()
    step, points = 1 / 32, 32 * 8 + 1
    y, f = np.arange(points + 64) * step, np.arange(32 * 3 + 1)
    left = np.arange(points + 64)[:, None] - f
    energy, value, difference = COEF * (f * step) ** 3, np.zeros(points), np.inf
    while difference > 1e-7:
        far = np.r_[value, value[-1] + (value[-1] - value[-2]) * np.arange(1, 65)]
        best = np.where(left >= 0, energy + 0.95 * far[np.maximum(left, 0)], np.inf).min(axis=1) + y
        found = np.mean([best[round(a / step) :][:points] for a in INFLOWS], axis=0)
        value, difference = found, np.max(np.abs(found - value))
    for x in (0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0):
        here = max(round(x / step), 2)
        exact = (value[here + 2] - value[here - 2]) / (4 * step) if x else (value[1] - value[0]) / step
        assert np.interp(x, grid, slope) == pytest.approx(exact, rel=0.03)


def test_the_price_is_what_a_little_more_work_costs():
    """The learned rule with and without 0.02 more work left: the same inflows, 200 blocks, 4000 runs."""
    rule, server, grid, slope = learned_alone()
    zero = jnp.zeros(())
    state = PostDecisionServerState(jnp.asarray(slope), zero, zero, zero)
    curve = rule.service_curve(state, server, server_view(0.0))
    best = np.asarray(curve.served)
    work = grid + best
    streams = inflows_of(4000, 200, seed=1)

    def cost(left: float) -> np.ndarray:
        y, total = np.full(len(streams), left), np.zeros(len(streams))
        for t, inflow in enumerate(streams.T):
            y = y + inflow
            f = np.minimum(y, np.interp(y, work, best))
            total += 0.95 ** (t + 1) * (y + COEF * f**3)
            y = y - f
        return total

    for x in (0.0, 0.3, 1.0):
        # the y of which the rule leaves x; for x = 0 any y that it serves completely
        y = np.interp(x, grid, work) if x else 0.5 * work[0]
        served = jnp.asarray(np.minimum(y, np.interp(y, work, best)))
        now = rule.marginal_cost(state, server, server_view(y), served)
        assert float(now) == pytest.approx(np.mean(cost(x + 0.02) - cost(x)) / 0.02, rel=0.03)


@pytest.mark.parametrize(("inflow", "coef"), [(0.5, 1.0), (1.0, 4.0), (2.0, 1.0)])
def test_with_a_steady_inflow_the_price_is_known(inflow: float, coef: float):
    """At an inflow a the server empties its queue in every block: one unit more costs w1 + w2 E'(a) = 1 + 3 coef a^2.

    Emptying is best because 3 coef a^2 <= gamma u(0), gamma being 0.9999.
    """
    server, rule = server_of(coef), PostDecisionServer()
    state, slope = learn_alone(rule, server, np.full((1, 600), inflow))
    expected = 1.0 + 3.0 * coef * inflow**2
    assert slope[0, -1, 0] == pytest.approx(expected, rel=1e-3)
    assert float(state.mean_price[0]) == pytest.approx(expected, rel=0.05)  # it forgets its first values slowly
    one = jax.tree.map(lambda leaf: leaf[0], state)
    action = rule.act(one, server, server_view(inflow), jax.random.key(0))
    assert float(jnp.sum(action.service_per_slot)) == pytest.approx(inflow, rel=1e-3)


def test_u_is_increasing_in_x_while_it_is_learned():
    _, slopes = learn_alone(PostDecisionServer(), server_of(COEF), inflows_of(4, 500))
    assert (np.diff(slopes, axis=-1) >= -1e-9).all()
    assert (slopes > 0).all()
    assert np.abs(slopes[:, -1] - slopes[:, 0]).max() > 1.0  # it did learn


@pytest.mark.parametrize(("delay", "gain"), [(0, 0.2), (2, 0.1), (8, 0.04)])
def test_the_broadcast_price_by_hand(delay: int, gain: float):
    """u = 10 everywhere: gamma u = 9.999. The mean was 4 before the block t = 31, whose step is 32^-0.7 = 0.0884.

    The mean with it is 4.530; the price is 4.530 + gain (9.999 - 4.530).
    """
    server, rule = server_of(COEF, broadcast_delay_blocks=delay), PostDecisionServer()
    state = PostDecisionServerState(jnp.full(32, 10.0), jnp.asarray(4.0), jnp.asarray(31.0), jnp.asarray(0.0))
    action = rule.act(state, server, server_view(2.5), jax.random.key(0))
    mean = 4.0 + 32.0**-0.7 * 5.999
    assert float(action.broadcast.price) == pytest.approx(mean + gain * (9.999 - mean), rel=1e-12)
    after = rule.learn(state, server, server_view(2.5), action, jnp.asarray(0.0), server_view(2.0))
    assert float(after.mean_price) == pytest.approx(mean, rel=1e-12)
    assert float(after.block) == 32.0


def test_the_mean_price_forgets_a_two_hundredth_per_block_at_least():
    state = PostDecisionServerState(jnp.full(32, 10.0), jnp.asarray(4.0), jnp.asarray(1e6), jnp.asarray(0.0))
    assert float(PostDecisionServer().mean_price(state, jnp.asarray(6.0))) == pytest.approx(4.01, rel=1e-12)


def test_one_step_of_the_server_by_hand():
    """Points 0, 1, 4; u = 1, 2, 5; gamma = 0.5, w1 = 1, E = f^3: f = sqrt(gamma u / 3), best at y = x + f.

    The inflow is 1 and t = 0, so that u becomes V'(x + 1) = 1 + gamma u(x'), linear in y between the points.
    """
    server, rule = server_of(1.0, discount=0.5, objective="discounted"), PostDecisionServer(grid_points=3)
    zero = jnp.zeros(())
    state = PostDecisionServerState(jnp.array([1.0, 2.0, 5.0]), zero, zero, zero)
    action = rule.act(state, server, server_view(0.0), jax.random.key(0))
    learned = rule.learn(state, server, server_view(0.0), action, zero, server_view(1.0, 1.0))
    work = np.array([0.0, 1.0, 4.0]) + np.sqrt(np.array([0.5, 1.0, 2.5]) / 3)
    assert float(service_cost_coef(server)) == pytest.approx(1.0, rel=1e-12)
    assert np.asarray(learned.slope) == pytest.approx(1.0 + np.interp([1.0, 2.0, 5.0], work, [0.5, 1.0, 2.5]), rel=1e-9)


# What devices learn


class Fixed(ServerController):
    """A server that works at a third of f_max while work waits, and always broadcasts the same price."""

    price: float = 0.0

    def act(self, state: ControllerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        service = jnp.minimum(server.slot_capacity / 3.0, view.backlog / server.slots)
        return server_action(view, jnp.full((server.slots,), service), self.price)


@pytest.mark.parametrize(
    ("device", "price"),
    [
        pytest.param(PostDecision(), 0.0, marks=pytest.mark.slow),
        pytest.param(Priced(), 0.0, marks=pytest.mark.slow),
        (Priced(), 1.5),
    ],
)
def test_u_converges_to_the_exact_table(device: PostDecision, price: float, play: Play):
    """U(m) - U(0), m = 1..8, the mean of 64 learners (4 alike, 16 seeds), within 1 %; each within 10 %."""
    world = four_alike(broadcast_delay_blocks=0)
    rule = replace(device, min_step=0.001)
    run = play(ControllerPair(rule, Fixed(price)), world, blocks=2000, seeds=range(16), precision="float64", call=500)
    exact = np.asarray(lower_bound(world, price=price).certificate.tables.value)[1:9, 0]
    other = np.asarray(lower_bound(world, price=price + 1.0).certificate.tables.value)[1:9, 0]
    left = np.asarray(jax.vmap(value_left)(run.carry.device_state))
    value = left - left[:, :1]
    assert value[:, 1:9].mean(axis=(0, 2)) == pytest.approx(exact, rel=0.01)
    assert (np.abs(value[:, 1:9] / exact[:, None] - 1) < 0.1).all()
    assert np.abs(other / exact - 1).max() > 0.03  # the table of another price is another one


@record
class PlainState:
    """`known` is a PostDecisionState whose V is U, since no arrivals are counted; `visits` (states,) counts updates."""

    known: PostDecisionState
    visits: jax.Array


class Plain(PostDecision):
    """Post-decision learning without virtual experience.

    Only the entry of U of the tasks left is improved, by the arrivals and the gain of the block, with a step size that
    decreases with its number of visits. It has to explore: otherwise it would never leave a number of tasks that seems
    too expensive, and never learn that it is not.
    """

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> Any:
        known = PostDecision.init(self, device, view, key)
        return PlainState(known, jnp.zeros_like(known.value))

    def act(self, state: Any, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        best = PostDecision.act(self, state.known, device, view, key)
        explore, left = jax.random.bernoulli(jax.random.fold_in(key, 0), 0.5), jax.random.randint(key, (), 0, 6)
        started = view.q - jnp.minimum(left, view.q)
        return DeviceAction(jnp.where(explore, started, best.started), best.offload)

    def learn(
        self,
        state: Any,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> Any:
        del cost
        choices, gamma = best_cuts(device, next_view.gain, self.price(next_view)), self.discount(device)
        known, left = state.known, (next_view.q - jnp.arange(device.max_tasks_per_block + 1)).astype(jnp.int32)
        future = jnp.where(left >= 0, choices.cost + gamma * known.value[jnp.maximum(left, 0)], jnp.inf)
        target = device.queue_weight * next_view.q + jnp.min(future)
        m = (view.q - action.started).astype(jnp.int32)
        step = table_step(state.visits[m], self.decay, self.min_step)
        value = known.value.at[m].add(step * (target - known.value[m]))
        return PlainState(replace(known, value=value), state.visits.at[m].add(1.0))

    def relative_change(self, state: Any) -> jax.Array:
        return state.known.relative_change


@pytest.mark.slow
def test_virtual_experience_changes_the_speed_and_not_the_limit(play: Play):
    """gamma = 0.6. Where plain learning has made enough updates both have the exact U; elsewhere only the other has."""
    world = four_alike(objective="discounted", discount=0.6, device={"arrival_prob": 0.15})
    exact = np.asarray(lower_bound(world, price=0.0).certificate.tables.value)[:8, 0]
    how: dict[str, Any] = {"blocks": 4000, "seeds": range(8), "precision": "float64", "call": 500}
    virtual_state, plain_state = (
        play(ControllerPair(rule, Fixed()), world, **how).carry.device_state
        for rule in (PostDecision(min_step=0.001), Plain(min_step=0.001))
    )
    tables = np.asarray(jax.vmap(value_left)(virtual_state)), np.asarray(plain_state.known.value)
    often = np.asarray(plain_state.visits).mean(axis=(0, 2))[:8] > 150
    virtual, plain = (np.abs(table.mean(axis=(0, 2))[:8] / exact - 1) for table in tables)
    assert often.sum() >= 4
    assert virtual.max() < 0.01
    assert plain[often].max() < 0.02
    assert plain[~often].max() > 0.05


def test_u_is_increasing_and_convex_all_the_while():
    """U(m + 1) - U(m) > 0 and increases with m, up to what cuts in steps of 1/32 bend, in each of 300 random blocks."""
    device, rule = first_device(four_alike()), PostDecision()
    rng = np.random.default_rng(3)
    arrivals, fading = jnp.asarray(rng.random((300, 5)) < 0.4, float), jnp.asarray(rng.exponential(size=300))
    nothing = DeviceAction(jnp.zeros(()), jnp.zeros(()))

    def block(state: PostDecisionState, random: tuple[jax.Array, jax.Array]):
        seen = replace(device_view(0.0, 1.0, random[0]), gain=GAIN * random[1])
        state = rule.learn(state, device, seen, nothing, jnp.zeros(()), seen)
        return state, value_left(state)

    start = rule.init(device, device_view(0.0, 1.0, [0.0] * 5), jax.random.key(0))
    _, values = jax.jit(lambda: jax.lax.scan(block, start, (arrivals, fading)))()
    first: np.ndarray = np.asarray(values)[:, 1:] - np.asarray(values)[:, :-1]
    assert (first > 0).all()
    assert (np.diff(first, axis=-1) >= -0.01 * first[:, 1:]).all()
    assert np.abs(first[-1] / first[0] - 1).max() > 0.2  # it did learn


@pytest.mark.parametrize("device", [PostDecision(), Priced()])
def test_learning_needs_no_training_before(device: PostDecision, play: Play, four: Callable[..., World]):
    """The preset, 4 devices: the mean cost of the first 200 blocks is within 5 % of that of the first 1000."""
    run = play(ControllerPair(device, PostDecisionServer()), four({}), blocks=1000, seeds=range(8))
    cost = np.asarray(run.metrics.cost())
    running = np.cumsum(cost.mean(axis=0)) / (1 + np.arange(1000))
    assert running[199] == pytest.approx(running[-1], rel=0.05)
    assert cost[:, 20:60].mean() < 1.15 * cost[:, 200:].mean()


@pytest.mark.parametrize("waiting", [1.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_devices_do_not_all_send_before_an_expensive_server_has_a_price(waiting: float, play: Play):
    """50 devices, a delay of two blocks: the mean cost of the first 200 blocks is within 5 % of that of the others.

    Where waiting costs a tenth, a first price from the cost of waiting alone would be far too low.
    """
    weights = {"server_energy": 2.5e-3, "server_queue": 1e-10 * waiting}
    scenario = load("paper", {"devices": 50, "weights": weights})
    world, pair = build(scenario, sample_placement(scenario)), ControllerPair(Priced(), PostDecisionServer())
    cost = np.asarray(play(pair, world, blocks=500, seeds=range(8), call=500).metrics.cost()).mean(axis=0)
    assert cost[:200].mean() == pytest.approx(cost[200:].mean(), rel=0.05)


# The oracle


def test_the_oracle_has_the_certificates_tables(play: Play):
    """An expensive server: its action is that of least c(j; h, lambda) + U(q - j), which is another one at no price."""
    world = four_alike(weights={"server_energy": 2.5e-3})
    certificate = jax.tree.map(np.asarray, lower_bound(world).certificate)
    pair = ControllerPair(Oracle(certificate=certificate), Steady())
    run = play(pair, world, blocks=50, precision="float64")
    known = run.carry.device_state
    for name in ("value", "slope", "surplus"):
        expected = np.asarray(getattr(certificate.tables, name))
        assert (np.asarray(getattr(known, name)) == expected).all()
    own, table = first_device(world), np.asarray(certificate.tables.value)[:, 0]
    tables = jax.tree.map(lambda leaf: jnp.asarray(leaf[..., 0]), certificate.tables)
    act = jax.jit(lambda view: Oracle(certificate=certificate).act(tables, own, view, jax.random.key(0)))

    def best(q: int, x: float, price: float) -> tuple[float, float]:
        choices = best_cuts(own, jnp.asarray(GAIN * x), price)
        started = int(np.argmin(np.asarray(choices.cost)[: q + 1] + table[q - np.arange(q + 1)]))
        return float(started), float(choices.offload[started])

    blocks, price = [(q, x) for q in (1, 3, 5) for x in (0.05, 0.5, 2.0)], float(certificate.price)
    actions = [act(device_view(q, x, [0.0] * 5)) for q, x in blocks]
    chosen = [(float(action.started), float(action.offload)) for action in actions]
    assert chosen == [best(q, x, price) for q, x in blocks]
    assert chosen != [best(q, x, 0.0) for q, x in blocks]


def test_the_oracle_needs_a_certificate():
    view = device_view(1.0, 1.0, [0.0] * 5)
    known = lower_bound(four_alike()).certificate.tables
    device = first_device(four_alike())
    with pytest.raises(ValueError, match="needs setup"):
        Oracle().init_fleet(device, view, jax.random.key(0))
    with pytest.raises(ValueError, match="needs setup"):
        Oracle().act(known, device, view, jax.random.key(0))
