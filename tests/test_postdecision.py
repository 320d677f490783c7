"""Post-decision learning: its formulas against loops, what it converges to against exact answers, its laws on the way.

A server here is often alone with a list of inflows; one unit of work served in a block costs COEF f^3.
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
    ControllerState,
    DeviceView,
    ServerController,
    ServerView,
    no_broadcast,
    server_action,
)
from partway.controllers.baselines import Steady
from partway.controllers.postdecision import (
    Learner,
    Oracle,
    PostDecision,
    PostDecisionServer,
    Priced,
    ServerLearner,
    backup,
    energy_coef,
    interpolate,
    table_step,
    value_left,
)
from partway.pytree import cast_floats, record
from partway.scenario.loading import load
from partway.simulation.rollout import Run
from partway.simulation.step import ControllerPair
from partway.system.placement import Placement, sample_placement
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
    words = jax.tree.map(lambda leaf: leaf.reshape(()), no_broadcast(1, float))
    broadcast = replace(words, price=jnp.asarray(price, float))
    return DeviceView(jnp.asarray(q, float), jnp.asarray(GAIN * x), jnp.asarray(arrivals, float), broadcast)


def server_of(dear: float = 1.0, **overrides: Any) -> Server:
    """The server of one device, on which a unit of work served in a block costs `dear`, with F = 3 units."""
    numbers = {"devices": 1, "server.cpu_max_hz": 6e10, "weights.server_energy": dear / 40.0, **overrides}
    world = build(load("paper", numbers), Placement(np.full(1, 100.0), np.full(1, GAIN)))
    return cast_floats(world.server, "float64")


def server_view(y: Any, arrived: Any = 0.0) -> ServerView:
    return ServerView(jnp.asarray(y, float), jnp.asarray(arrived, float), jnp.zeros(1))


# Formulas, against loops


@given(
    values=st.lists(st.floats(-5, 5), min_size=2, max_size=6),
    gaps=st.lists(st.floats(0.1, 3), min_size=6, max_size=6),
    at=st.lists(st.floats(-4, 25), min_size=1, max_size=5),
)
def test_interpolate_is_numpys(values: list[float], gaps: list[float], at: list[float]):
    points = 0.5 + np.cumsum(gaps)[: len(values)]
    found = interpolate(jnp.asarray(at), jnp.asarray(points), jnp.asarray(values))
    assert np.asarray(found) == pytest.approx(np.interp(at, points, values), abs=1e-9)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_backup_against_a_loop(discount: float):
    """Every queue of a table of 9, every number of tasks taken up."""
    device, random = first_device(four_alike()), np.random.default_rng(0)
    left, cost = random.uniform(0, 9, 9), np.r_[0.0, random.uniform(0, 5, device.max_tasks_per_block)]
    cost[device.max_tasks_per_block] = np.inf
    expected = [
        q + min(cost[j] + discount * left[q - j] for j in range(min(q, device.max_tasks_per_block) + 1))
        for q in range(9)
    ]
    found = backup(device, jnp.asarray(left), jnp.asarray(cost), discount)
    assert device.max_tasks_per_block == 5
    assert np.asarray(found) == pytest.approx(expected, rel=1e-12)


def test_the_value_of_what_is_left_against_a_loop():
    """U(m) = E V(m + A), V going on with its last slope beyond a table of 7."""
    value, arrive = np.random.default_rng(1).normal(size=7), np.array([0.5, 0.3, 0.2])
    longer = np.r_[value, value[-1] + (value[-1] - value[-2]) * np.arange(1, 3)]
    expected = [sum(arrive[a] * longer[m + a] for a in range(3)) for m in range(7)]
    zero = jnp.zeros(())
    found = value_left(Learner(jnp.asarray(value), jnp.asarray(arrive), zero, zero))
    assert np.asarray(found) == pytest.approx(expected, rel=1e-12)


def learn_once(rule: PostDecision, memory: Learner, device: Device, after: DeviceView) -> Learner:
    before = device_view(1.0, 0.4, [0.0] * 5)
    action = DeviceAction(jnp.asarray(0.0), jnp.asarray(0.0))
    return rule.learn(memory, device, before, action, jnp.asarray(0.0), after)


@pytest.mark.parametrize("criterion", ["average", "discounted"])
def test_one_step_of_learning_against_a_loop(criterion: str):
    """`average` has gamma = 1 and subtracts V(0); `discounted` has the scenario's 0.95 and does not.

    The third block, at 0.4 of the mean gain; before it none and two tasks came with 1/2 each, in it two. a = 3^-0.6.
    """
    device, value = first_device(four_alike()), 2.0 + np.arange(32.0) ** 1.5
    arrive = jnp.array([0.5, 0.0, 0.5, 0.0, 0.0, 0.0])
    memory = Learner(jnp.asarray(value), arrive, jnp.asarray(2.0), jnp.asarray(jnp.inf))
    learned = learn_once(PostDecision(criterion=criterion), memory, device, device_view(3.0, 1.7, [1.0, 0, 0, 1.0, 0]))
    cost = np.asarray(best_cuts(device, jnp.asarray(0.4 * GAIN), 0.0).cost)
    gamma, step = (1.0 if criterion == "average" else 0.95), 3.0**-0.6
    table = np.r_[value, value[-1] + (value[-1] - value[-2]) * np.arange(1, 6)]
    left = 0.5 * table[:32] + 0.5 * table[2:34]

    def worth(q: int) -> float:
        return q + min(cost[j] + gamma * left[q - j] for j in range(min(q, device.max_tasks_per_block) + 1))

    expected = np.array([(1 - step) * value[q] + step * worth(q) for q in range(32)])
    expected -= expected[0] if criterion == "average" else 0.0
    assert np.asarray(learned.arrive) == pytest.approx([1 / 3, 0, 2 / 3, 0, 0, 0], abs=1e-12)
    assert np.asarray(learned.value) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert float(learned.block) == 3.0


def test_the_aim_is_the_scenarios_unless_it_is_said():
    average, discounted = (first_device(four_alike(objective=criterion)) for criterion in ("average", "discounted"))
    assert [float(PostDecision().discount(device)) for device in (average, discounted)] == [1.0, 0.95]
    assert float(PostDecision(criterion="discounted").discount(average)) == 0.95
    assert float(PostDecision(criterion="average").discount(discounted)) == 1.0
    servers = [server_of(objective=criterion) for criterion in ("average", "discounted")]
    assert [float(PostDecisionServer().discount(server)) for server in servers] == [0.9999, 0.95]


# Rates


@st.composite
def slopes(draw: st.DrawFn) -> np.ndarray:
    """u of 12 points, from 0.2 on, nowhere falling."""
    return np.cumsum([draw(st.floats(0.2, 3.0)), *draw(st.lists(st.floats(0.0, 4.0), min_size=11, max_size=11))])


SERVER_RULE = PostDecisionServer(grid_points=12, criterion="discounted")


@jax.jit
def _served(server: Server, slope: jax.Array, y: jax.Array) -> jax.Array:
    zero = jnp.zeros(())
    memory = ServerLearner(slope, zero, zero, zero)
    return jax.vmap(lambda one: SERVER_RULE.service_per_slot(memory, server, server_view(one)).serve(one))(y)


@given(slope=slopes())
def test_what_is_served_meets_the_first_order_condition(slope: np.ndarray):
    """w2 E'(f) = gamma u(y - f) inside, more or less at the ends; the root is searched here by bisection."""
    server, y = server_of(), np.r_[0.0, np.geomspace(0.01, 7.0, 60)]
    served, most = np.asarray(_served(server, jnp.asarray(slope), jnp.asarray(y))), 3.0
    grid, worth = 4.0 * (np.arange(12) / 11) ** 2, 0.95 * slope
    assert (served <= np.minimum(y, most) + 1e-12).all()
    assert (np.diff(served) >= -1e-12).all()
    assert (np.diff(y - served) >= -1e-12).all()  # more work never leaves less
    small = 3.0 * y**2 <= worth[0]
    assert served[small] == pytest.approx(np.minimum(y[small], most), rel=1e-12, abs=1e-12)
    # at the points of the grid the condition is met exactly, between them up to the chords of f
    at_points = np.minimum(np.sqrt(worth / 3.0), most)
    exact = np.asarray(_served(server, jnp.asarray(slope), jnp.asarray(grid + at_points)))
    assert exact == pytest.approx(at_points, rel=1e-9)
    inside = (exact < most - 1e-9) & (exact < grid + at_points - 1e-9)
    marginal = 3.0 * exact**2
    assert marginal[inside] == pytest.approx(np.interp(grid, grid, worth)[inside], rel=1e-6)
    assert (marginal <= worth * (1 + 1e-6)).all()  # at f = F serving more would still pay


# What the server learns


def learn_alone(rule: PostDecisionServer, server: Server, inflows: np.ndarray) -> tuple[ServerLearner, np.ndarray]:
    """The memory after a list of inflows (seeds, blocks), and u on the way (seeds, blocks, points)."""

    def block(carry: tuple[ServerLearner, jax.Array, jax.Array], inflow: jax.Array):
        memory, y, arrived = carry
        view = server_view(y, arrived)
        action = rule.act(memory, server, view, jax.random.key(0))
        after = jnp.maximum(y - jnp.sum(action.service_per_slot), 0.0) + inflow
        memory = rule.learn(memory, server, view, action, jnp.zeros(()), server_view(after, inflow))
        return (memory, after, inflow), memory.slope

    def one(stream: jax.Array):
        empty = server_view(0.0)
        memory = rule.init(server, empty, jax.random.key(0))
        (memory, _, _), slope = jax.lax.scan(block, (memory, empty.backlog, empty.arrived), stream)
        return memory, slope

    memory, slope = jax.jit(jax.vmap(one))(jnp.asarray(inflows))
    return memory, np.asarray(slope)


INFLOWS = np.array([0.0, 0.25, 1.0, 2.0])
"""Equally likely, 0.8125 on average."""
DEAR = 4.0


def inflows_of(seeds: int, blocks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(INFLOWS, (seeds, blocks))


@cache
def learned_alone() -> tuple[PostDecisionServer, Server, np.ndarray, np.ndarray]:
    """Rule, server, grid and u (mean over 16 seeds) after 3000 blocks; gamma = 0.95."""
    rule, server = PostDecisionServer(criterion="discounted"), server_of(DEAR)
    memory, _ = learn_alone(rule, server, inflows_of(16, 3000))
    return rule, server, np.asarray(rule.grid(server_view(0.0))), np.asarray(memory.slope).mean(axis=0)


def test_u_is_the_derivative_of_the_exact_value():
    """V(y) = y + min_f (4 f^3 + 0.95 U(y - f)), U(x) = E V(x + a), by value iteration in steps of 1/32, in NumPy."""
    _, _, grid, slope = learned_alone()
    step, points = 1 / 32, 32 * 8 + 1
    y, f = np.arange(points + 64) * step, np.arange(32 * 3 + 1)
    left = np.arange(points + 64)[:, None] - f
    energy, value, change = DEAR * (f * step) ** 3, np.zeros(points), np.inf
    while change > 1e-7:
        far = np.r_[value, value[-1] + (value[-1] - value[-2]) * np.arange(1, 65)]
        best = np.where(left >= 0, energy + 0.95 * far[np.maximum(left, 0)], np.inf).min(axis=1) + y
        found = np.mean([best[round(a / step) :][:points] for a in INFLOWS], axis=0)
        value, change = found, np.max(np.abs(found - value))
    for x in (0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0):
        here = max(round(x / step), 2)
        exact = (value[here + 2] - value[here - 2]) / (4 * step) if x else (value[1] - value[0]) / step
        assert np.interp(x, grid, slope) == pytest.approx(exact, rel=0.03)


def test_the_price_is_what_a_little_more_work_costs():
    """The learned rule played twice, with and without 0.02 more work left: the same inflows, 200 blocks, 4000 runs."""
    rule, server, grid, slope = learned_alone()
    zero = jnp.zeros(())
    memory = ServerLearner(jnp.asarray(slope), zero, zero, zero)
    rates = rule.service_per_slot(memory, server, server_view(0.0))
    work, best = np.asarray(rates.work), np.asarray(rates.served)
    streams = inflows_of(4000, 200, seed=1)

    def cost(left: float) -> np.ndarray:
        y, total = np.full(len(streams), left), np.zeros(len(streams))
        for t, inflow in enumerate(streams.T):
            y = y + inflow
            f = np.minimum(y, np.interp(y, work, best))
            total += 0.95 ** (t + 1) * (y + DEAR * f**3)
            y = y - f
        return total

    for x in (0.0, 0.3, 1.0):
        # y at which the rule leaves x; at x = 0 any y that it serves in full
        y = np.interp(x, grid, work) if x else 0.5 * work[0]
        now = rule.cost_of_more(memory, server, server_view(y), jnp.asarray(np.minimum(y, np.interp(y, work, best))))
        assert float(now) == pytest.approx(np.mean(cost(x + 0.02) - cost(x)) / 0.02, rel=0.03)


@pytest.mark.parametrize(("inflow", "dear"), [(0.5, 1.0), (1.0, 4.0), (2.0, 1.0)])
def test_with_a_steady_inflow_the_price_is_known(inflow: float, dear: float):
    """Each block brings a: the server empties its queue, and one unit more costs w1 + w2 E'(a) = 1 + 3 dear a^2.

    Emptying is best because 3 dear a^2 <= gamma u(0), gamma being 0.9999.
    """
    server, rule = server_of(dear), PostDecisionServer()
    memory, slope = learn_alone(rule, server, np.full((1, 600), inflow))
    expected = 1.0 + 3.0 * dear * inflow**2
    assert slope[0, -1, 0] == pytest.approx(expected, rel=1e-3)
    assert float(memory.mean_price[0]) == pytest.approx(expected, rel=0.05)  # it forgets its first guesses slowly
    one = jax.tree.map(lambda leaf: leaf[0], memory)
    action = rule.act(one, server, server_view(inflow), jax.random.key(0))
    assert float(jnp.sum(action.service_per_slot)) == pytest.approx(inflow, rel=1e-3)


def test_u_never_falls_in_x_while_it_is_learned():
    _, way = learn_alone(PostDecisionServer(), server_of(DEAR), inflows_of(4, 500))
    assert (np.diff(way, axis=-1) >= -1e-9).all()
    assert (way > 0).all()
    assert np.abs(way[:, -1] - way[:, 0]).max() > 1.0  # it did learn


@pytest.mark.parametrize(("broadcast_delay_blocks", "part"), [(0, 0.2), (2, 0.1), (8, 0.04)])
def test_the_price_told_by_hand(lag: int, part: float):
    """u = 10 everywhere: gamma u = 9.999. The mean was 4 before the block t = 31, whose step is 32^-0.7 = 0.0884.

    The mean is 4.530 with it; the price goes `part` of the way from there to 9.999.
    """
    server, rule = server_of(DEAR, broadcast_delay_blocks=lag), PostDecisionServer()
    memory = ServerLearner(jnp.full(32, 10.0), jnp.asarray(4.0), jnp.asarray(31.0), jnp.asarray(0.0))
    action = rule.act(memory, server, server_view(2.5), jax.random.key(0))
    usual = 4.0 + 32.0**-0.7 * 5.999
    assert float(action.broadcast.price) == pytest.approx(usual + part * (9.999 - usual), rel=1e-12)
    after = rule.learn(memory, server, server_view(2.5), action, jnp.asarray(0.0), server_view(2.0))
    assert float(after.mean_price) == pytest.approx(usual, rel=1e-12)
    assert float(after.block) == 32.0


def test_the_mean_price_forgets_at_least_two_hundredth_a_block():
    memory = ServerLearner(jnp.full(32, 10.0), jnp.asarray(4.0), jnp.asarray(1e6), jnp.asarray(0.0))
    assert float(PostDecisionServer().mean_price(memory, jnp.asarray(6.0))) == pytest.approx(4.01, rel=1e-12)


def test_one_step_of_the_server_by_hand():
    """Three points 0, 1, 4; u = 1, 2, 5; gamma = 0.5, w1 = 1, E = f^3: f = sqrt(gamma u / 3), best at y = x + f.

    The block brings 1, t = 0 and so u is V'(x + 1) = 1 + gamma u(x') afterwards, 0.5 u(x') linear in y between points.
    """
    server, rule = server_of(1.0, discount=0.5, objective="discounted"), PostDecisionServer(grid_points=3)
    zero = jnp.zeros(())
    memory = ServerLearner(jnp.array([1.0, 2.0, 5.0]), zero, zero, zero)
    action = rule.act(memory, server, server_view(0.0), jax.random.key(0))
    learned = rule.learn(memory, server, server_view(0.0), action, zero, server_view(1.0, 1.0))
    work = np.array([0.0, 1.0, 4.0]) + np.sqrt(np.array([0.5, 1.0, 2.5]) / 3)
    assert float(energy_coef(server)) == pytest.approx(1.0, rel=1e-12)
    assert np.asarray(learned.slope) == pytest.approx(1.0 + np.interp([1.0, 2.0, 5.0], work, [0.5, 1.0, 2.5]), rel=1e-9)


# What devices learn


@record
class Fixed(ServerController):
    """A server that works at a third of f_max and always tells the same price."""

    price: float = 0.0

    def act(self, memory: ControllerState, server: Server, view: ServerView, key: jax.Array) -> ServerAction:
        wanted = jnp.minimum(server.slot_capacity / 3.0, view.backlog / server.slots)
        return server_action(view, jnp.full((server.slots,), wanted), self.price)


@pytest.mark.parametrize(("device", "price"), [(PostDecision(), 0.0), (Priced(), 0.0), (Priced(), 1.5)])
def test_u_converges_to_the_exact_table(device: PostDecision, price: float, play: Play):
    """U(m) - U(0), m = 1..8, the mean of 64 learners (4 alike, 16 seeds), within 1 %; each within 10 %."""
    world = four_alike(broadcast_delay_blocks=0)
    rule = replace(device, min_step=0.001)
    run = play(ControllerPair(rule, Fixed(price)), world, blocks=2000, seeds=range(16), precision="float64", call=500)
    exact = np.asarray(lower_bound(world, price=price).certificate.tables.value)[1:9, 0]
    other = np.asarray(lower_bound(world, price=price + 1.0).certificate.tables.value)[1:9, 0]
    left = np.asarray(jax.vmap(value_left)(run.loop.device_state))
    value = left - left[:, :1]
    assert value[:, 1:9].mean(axis=(0, 2)) == pytest.approx(exact, rel=0.01)
    assert (np.abs(value[:, 1:9] / exact[:, None] - 1) < 0.1).all()
    assert np.abs(other / exact - 1).max() > 0.03  # the table of another price is another one


@record
class PlainMemory:
    """`known` a Learner whose V is U, as no arrivals are counted; `visits` (states,)."""

    known: Learner
    visits: jax.Array


@record
class Plain(PostDecision):
    """Post-decision learning without virtual experience: of U only the number of tasks left is improved, by the one
    arrival and gain that came; a step for every visit of it.

    It has to explore: it would never leave what it thinks too dear to leave, and never learn that it is not.
    """

    def init(self, device: Device, view: DeviceView, key: jax.Array) -> Any:
        known = PostDecision.init(self, device, view, key)
        return PlainMemory(known, jnp.zeros_like(known.value))

    def act(self, memory: Any, device: Device, view: DeviceView, key: jax.Array) -> DeviceAction:
        best = PostDecision.act(self, memory.known, device, view, key)
        explore, left = jax.random.bernoulli(jax.random.fold_in(key, 0), 0.5), jax.random.randint(key, (), 0, 6)
        return DeviceAction(jnp.where(explore, jnp.minimum(left, view.q), best.whole), best.offload)

    def learn(
        self,
        memory: Any,
        device: Device,
        view: DeviceView,
        action: DeviceAction,
        cost: jax.Array,
        next_view: DeviceView,
    ) -> Any:
        del view, cost
        choices, gamma = best_cuts(device, next_view.gain, self.price(next_view)), self.discount(device)
        known, left = memory.known, (next_view.q - jnp.arange(device.max_tasks_per_block + 1)).astype(jnp.int32)
        future = jnp.where(left >= 0, choices.cost + gamma * known.value[jnp.maximum(left, 0)], jnp.inf)
        target = device.queue_weight * next_view.q + jnp.min(future)
        m = action.whole.astype(jnp.int32)
        step = table_step(memory.visits[m], self.decay, self.min_step)
        value = known.value.at[m].add(step * (target - known.value[m]))
        return PlainMemory(replace(known, value=value), memory.visits.at[m].add(1.0))

    def relative_change(self, memory: Any) -> jax.Array:
        return memory.known.relative_change


@pytest.mark.slow
def test_virtual_experience_changes_the_pace_and_not_the_answer(play: Play):
    """gamma = 0.6. Where plain learning has been often enough, both have the exact U; where it never was, only one."""
    world = four_alike(objective="discounted", discount=0.6, device={"arrival_prob": 0.15})
    exact = np.asarray(lower_bound(world, price=0.0).certificate.tables.value)[:8, 0]
    init_fleet = [
        play(
            ControllerPair(rule, Fixed()), world, blocks=4000, seeds=range(8), precision="float64", call=500
        ).loop.device_state
        for rule in (PostDecision(min_step=0.001), Plain(min_step=0.001))
    ]
    tables = np.asarray(jax.vmap(value_left)(init_fleet[0])), np.asarray(init_fleet[1].known.value)
    often = np.asarray(init_fleet[1].visits).mean(axis=(0, 2))[:8] > 150
    virtual, plain = (np.abs(table.mean(axis=(0, 2))[:8] / exact - 1) for table in tables)
    assert often.sum() >= 4
    assert virtual.max() < 0.01
    assert plain[often].max() < 0.02
    assert plain[~often].max() > 0.05


def test_u_is_increasing_and_convex_all_the_while():
    """U(m + 1) - U(m) > 0 and grows with m, up to what cuts in steps of 1/32 bend: through 300 blocks of chance."""
    device, rule = first_device(four_alike()), PostDecision()
    random = np.random.default_rng(3)
    arrivals, x = random.random((300, 5)) < 0.4, random.exponential(size=300)

    def block(memory: Learner, chance: tuple[jax.Array, jax.Array]):
        came, fading = chance
        seen, action = (
            replace(device_view(0.0, 1.0, came), gain=GAIN * fading),
            DeviceAction(jnp.zeros(()), jnp.zeros(())),
        )
        memory = rule.learn(memory, device, seen, action, jnp.zeros(()), seen)
        return memory, value_left(memory)

    start = rule.init(device, device_view(0.0, 1.0, [0.0] * 5), jax.random.key(0))
    _, way = jax.jit(lambda: jax.lax.scan(block, start, (jnp.asarray(arrivals, float), jnp.asarray(x))))()
    first: np.ndarray = np.asarray(way)[:, 1:] - np.asarray(way)[:, :-1]
    assert (first > 0).all()
    assert (np.diff(first, axis=-1) >= -0.01 * first[:, 1:]).all()
    assert np.abs(first[-1] / first[0] - 1).max() > 0.2  # it did learn


@pytest.mark.parametrize("device", [PostDecision(), Priced()])
def test_nothing_has_to_be_known_beforehand(device: PostDecision, play: Play, four: Callable[..., World]):
    """The preset, 4 devices: the mean cost of the first 200 blocks is within 5 % of that of the first 1000."""
    run: Run = play(ControllerPair(device, PostDecisionServer()), four({}), blocks=1000, seeds=range(8))
    cost = run.sums.cost()
    running = np.cumsum(cost.mean(axis=0)) / (1 + np.arange(1000))
    assert running[199] == pytest.approx(running[-1], rel=0.05)
    assert cost[:, 20:60].mean() < 1.15 * cost[:, 200:].mean()


@pytest.mark.parametrize("cheap", [1.0, 0.1])
def test_nobody_rushes_to_a_dear_server_before_it_has_a_price(cheap: float, play: Play):
    """50 devices, a dear server heard two blocks late: the mean cost of 200 blocks is within 5 % of that of the rest.

    Where waiting is a tenth as dear, what waiting alone would set as the first price is far too low.
    """
    weights = {"server_energy": 2.5e-3, "server_queue": 1e-10 * cheap}
    scenario = load("paper", {"devices": 50, "weights": weights})
    world, pair = build(scenario, sample_placement(scenario)), ControllerPair(Priced(), PostDecisionServer())
    run: Run = play(pair, world, blocks=500, seeds=range(8), call=500)
    cost = run.sums.cost().mean(axis=0)
    assert cost[:200].mean() == pytest.approx(cost[200:].mean(), rel=0.05)


# The oracle


def test_the_oracle_has_the_certificates_tables(play: Play):
    """A dear server: it does what is least in c(j; h, lambda) + U(q - j), which without the price is another thing."""
    world = four_alike(weights={"server_energy": 2.5e-3})
    certificate = jax.tree.map(np.asarray, lower_bound(world).certificate)
    pair = ControllerPair(Oracle(certificate=certificate), Steady())
    run = play(pair, world, blocks=50, precision="float64")
    known = run.loop.device_state
    for name in ("value", "slope", "surplus"):
        expected = np.asarray(getattr(certificate.tables, name))
        assert (np.asarray(getattr(known, name)) == expected).all()
    own, table = first_device(world), np.asarray(certificate.tables.value)[:, 0]
    tables = jax.tree.map(lambda leaf: jnp.asarray(leaf[..., 0]), certificate.tables)
    act = jax.jit(lambda view: Oracle(certificate=certificate).act(tables, own, view, jax.random.key(0)))

    def best(q: int, x: float, price: float) -> tuple[float, float]:
        choices = best_cuts(own, jnp.asarray(GAIN * x), price)
        started = int(np.argmin(np.asarray(choices.cost)[: q + 1] + table[q - np.arange(q + 1)]))
        return float(q - started), float(choices.offload[started])

    blocks, price = [(q, x) for q in (1, 3, 5) for x in (0.05, 0.5, 2.0)], float(certificate.price)
    actions = [act(device_view(q, x, [0.0] * 5)) for q, x in blocks]
    chosen = [(float(action.whole), float(action.offload)) for action in actions]
    assert chosen == [best(q, x, price) for q, x in blocks]
    assert chosen != [best(q, x, 0.0) for q, x in blocks]


def test_the_oracle_cannot_play_without_a_certificate():
    view = device_view(1.0, 1.0, [0.0] * 5)
    known = lower_bound(four_alike()).certificate.tables
    with pytest.raises(ValueError, match="needs setup"):
        Oracle().init_fleet(first_device(four_alike()), view, jax.random.key(0))
    with pytest.raises(ValueError, match="needs setup"):
        Oracle().act(known, first_device(four_alike()), view, jax.random.key(0))
