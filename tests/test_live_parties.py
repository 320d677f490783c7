"""Live equals the simulation: every party in its own object, on a fake clock, all messages written and read."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import astuple, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import world_of

from partway.cli.main import build_parser
from partway.cli.run import run as run_command
from partway.errors import InputError
from partway.experiments.checkpoint import save
from partway.experiments.plan import make_plan as make_comparison
from partway.live import device, pacing
from partway.live.accounts import metrics, stages
from partway.live.agent import Agent, AgentLog, synthetic, traced
from partway.live.clock import run_on_fake_clock
from partway.live.device import DeviceParty
from partway.live.memories import of_fleet, origin_of, run_of, save_devices, save_server
from partway.live.memory import MemoryLink
from partway.live.messages import RegisterRequest
from partway.live.plan import LivePlan, make_plan
from partway.live.server import ServerParty
from partway.live.service import Service
from partway.live.tasks import ANSWERED, LOCAL, WAITING, Timing
from partway.measurement.checkpoint import read
from partway.measurement.latency import DELAYS, end_of_run, finish_times, latency
from partway.scenario.loading import load
from partway.simulation.rollout import Run, init_runs, rollout

BLOCKS, SEED = 200, 3
DELAY_S = 0.003
"""How long a message takes."""
TWO_CLASSES: dict[str, Any] = {
    "devices": 4,
    "weights": {"server_energy": 2.5e-3},  # the price and the server's rate matter
    "server": {"macs_per_cycle": 0.08},
    "group": [
        {"count": 2},
        {
            "count": 2,
            "cpu_max_hz": 15e9,  # 3/4 of a task in a block: it has to send
            "arrival_prob": 0.15,
            "bandwidth_hz": 3e6,
            "macs_per_cycle": 0.4,
            "task": {"kind": "layers", "profile": "resnet50", "tensor_dtype": "uint8"},
        },
    ],
}
"""Four devices of two classes: the paper's, and slower ones with a real network."""


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def plan_of(scheme: str, blocks: int = BLOCKS, **changes: Any) -> LivePlan:
    """No task is given up, however long the server's queue is: a simulated device waits for ever, too."""
    made = make_plan(load(TWO_CLASSES | changes), scheme, blocks=blocks, seed=SEED, precision="float64")
    return replace(made, lease_blocks=blocks)


async def together(
    plan: LivePlan, delay_s: float, made: Callable[[Service, int], Agent]
) -> tuple[Service, list[AgentLog]]:
    service = Service(plan)
    agents = [made(service, number) for number in range(plan.devices)]
    running = asyncio.create_task(service.run())
    logs = await asyncio.gather(*(agent.run() for agent in agents))
    await running
    return service, list(logs)


@cache
def live(scheme: str, delay_s: float = DELAY_S, blocks: int = BLOCKS) -> tuple[LivePlan, Service, list[AgentLog]]:
    plan = plan_of(scheme, blocks)

    def made(service: Service, number: int) -> Agent:
        return Agent(MemoryLink(service, delay_s), request=RegisterRequest(device=number))

    return plan, *run_on_fake_clock(together(plan, delay_s, made))


@cache
def simulated(scheme: str) -> Run:
    plan = plan_of(scheme)
    return rollout(
        plan.world, plan.pair, plan.stream, [SEED], BLOCKS, precision="float64", traces=True, certificates=None
    )


SCHEMES = ("priced", pytest.param("parametric", marks=pytest.mark.slow), "neurosurgeon")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_live_costs_what_the_simulation_costs(scheme: str):
    plan, service, _ = live(scheme)
    measured, expected = metrics(service.ledger, plan, service.party.changes, None), simulated(scheme).metrics
    assert float(np.sum(measured.sent)) > 10  # devices do cooperate
    for field in fields(measured):
        ours, theirs = getattr(measured, field.name), np.asarray(getattr(expected, field.name))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, err_msg=field.name)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_live_devices_do_what_simulated_ones_do(scheme: str):
    plan, service, _ = live(scheme)
    traces = simulated(scheme).traces
    assert traces is not None
    names = {"queue": "q", "gain": "gain", "started": "started", "offload": "offload", "power_w": "power"}
    for ours, theirs in names.items():
        mine = np.array(
            [[getattr(service.ledger.records[t, k], ours) for k in range(plan.devices)] for t in range(BLOCKS)]
        )
        np.testing.assert_allclose(mine, np.asarray(getattr(traces, theirs))[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_live_memories_are_those_of_the_simulation(scheme: str):
    _, service, logs = live(scheme)
    carry = simulated(scheme).carry
    ours, theirs = jax.tree.leaves(service.party.state), jax.tree.leaves(carry.server_state)
    assert ours
    for mine, simulation in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, np.asarray(simulation)[0], rtol=1e-12, atol=1e-12)
    for log in logs:
        for mine, simulation in zip(memories_of(log.party), jax.tree.leaves(carry.device_state), strict=True):
            np.testing.assert_allclose(mine, np.asarray(simulation)[0][..., log.device], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_task_ends_once_and_takes_as_long_as_the_simulation_says(scheme: str):
    plan, service, logs = live(scheme)
    run = simulated(scheme)
    assert run.traces is not None
    work = np.asarray(plan.world.devices.server_work)
    expected = next(finish_times(run.traces, work, plan.slot_s))
    tasks = [
        task for log in sorted(logs, key=lambda log: log.device) for task in sorted(log.tasks, key=lambda t: t.number)
    ]
    assert len(tasks) == len(expected.finished)
    sent = [task for task in tasks if task.outcome == ANSWERED]
    assert len(sent) == service.ledger.received == service.ledger.answered > 10
    assert service.ledger.duplicates == service.ledger.late == 0
    # the simulation's clock stops before the last tasks are done; live they are answered at once when the run ends
    ended = np.isfinite(expected.finished)
    answered = np.array([task.answered for task in tasks])
    assert np.isfinite(answered[ended]).all()
    late = answered[ended] - expected.finished[ended]
    assert late.min() > -1e-6
    assert late.max() < DELAY_S + 1e-6  # until a result has come back
    np.testing.assert_allclose([task.arrived for task in tasks], expected.arrived, atol=1e-9)
    outcomes = np.array([task.outcome for task in tasks])
    np.testing.assert_array_equal(outcomes[ended] == ANSWERED, expected.cut[ended])
    np.testing.assert_array_equal(outcomes[ended] == LOCAL, ~expected.cut[ended])


def test_the_stages_add_up_to_the_latency_of_the_simulation():
    plan, _, logs = live("priced")
    run = simulated("priced")
    assert run.traces is not None
    end_s = end_of_run(BLOCKS, plan.slots, plan.slot_s)
    mine = stages([task for log in logs for task in log.tasks], end_s)
    theirs = latency(run.traces, np.asarray(plan.world.devices.server_work), plan.slot_s)
    assert 0 < mine.network < 2 * DELAY_S
    assert sum(mine.delays.values()) + mine.network == pytest.approx(mine.latency, abs=1e-6)
    assert mine.delays["device"] == pytest.approx(theirs.delays[0, DELAYS.index("device")], abs=1e-6)
    assert mine.delays["radio"] == pytest.approx(theirs.delays[0, DELAYS.index("radio")], abs=1e-6)


@pytest.mark.parametrize("scheme", ["priced", "full"])
def test_measured_and_simulated_latencies_follow_the_same_rules(scheme: str):
    """With messages of 10 us; `full` sends more than the server can do, so that its 95 % are never done."""
    delay_s, first = 1e-5, BLOCKS // 2
    plan, _, logs = live(scheme, delay_s)
    run = simulated(scheme)
    assert run.traces is not None
    mine = stages((task for log in logs for task in log.tasks), end_of_run(BLOCKS, plan.slots, plan.slot_s), first)
    theirs = latency(run.traces, np.asarray(plan.world.devices.server_work), plan.slot_s, first)
    assert 0 < mine.unfinished == theirs.unfinished[0] < 1
    assert np.isnan(mine.p95) == (scheme == "full")
    found = [mine.latency, mine.p50, mine.p95, *mine.delays.values()]
    expected = [theirs.mean[0], theirs.p50[0], theirs.p95[0], *theirs.delays[0]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * delay_s + 1e-6)


def test_no_block_lacks_its_broadcast_and_none_begins_late():
    _, _, logs = live("priced")
    assert [log.misses for log in logs] == [0, 0, 0, 0]
    assert max(float(log.late_s.max()) for log in logs) < 1e-6


@pytest.mark.parametrize("scheme", ["priced", "neurosurgeon"])
def test_tasks_and_answers_keep_the_plan(scheme: str):
    """On a clock that waits for computing, nothing is early or late."""
    plan, service, logs = live(scheme)
    timing = Timing(0.0, plan.slot_s, plan.slots)
    for log in logs:
        late = pacing.late(log.records, log.tasks, timing)
        started = sum(task.outcome != WAITING for task in log.tasks)
        sent = sum(task.outcome == ANSWERED for task in log.tasks)
        assert late.size == 2 * started + sent > BLOCKS
        np.testing.assert_allclose(late, 0.0, atol=1e-6)
    assert len(service.ledger.answer_late_s) == service.ledger.answered
    np.testing.assert_allclose(service.ledger.answer_late_s, 0.0, atol=1e-6)


@pytest.mark.parametrize("delay_s", [0.15, 0.38])
def test_a_slow_link_changes_nothing_while_messages_are_in_time(delay_s: float):
    """A report has a block and a slot, 0.6 s, and a broadcast nearly a block, 0.4 s.

    One that takes 0.38 s comes 20 ms before the block, which has been computed 50 ms before: it is computed again.
    """
    plan, service, logs = live("priced", delay_s, 40)
    assert [log.misses for log in logs] == [0, 0, 0, 0]
    measured = metrics(service.ledger, plan, service.party.changes, None)
    np.testing.assert_allclose(measured.cost()[0], simulated("priced").metrics.cost()[0, :40], rtol=1e-12)


@pytest.mark.parametrize(("delay_s", "is_late"), [(DELAY_S, False), (0.38, True)])
def test_a_block_is_computed_before_it_begins(monkeypatch: pytest.MonkeyPatch, delay_s: float, is_late: bool):
    """When it begins nothing is left to compute, unless a broadcast has come since."""
    plan = plan_of("priced", blocks=10)
    finish, computed = device._finish, list[int]()

    def counted(*arguments: Any, **static: Any) -> Any:
        computed.append(1)
        return finish(*arguments, **static)

    def made(service: Service, number: int) -> Agent:
        return Agent(MemoryLink(service, delay_s), request=RegisterRequest(device=number))

    monkeypatch.setattr(device, "_finish", counted)
    run_on_fake_clock(together(plan, delay_s, made))
    again = 9 if is_late else 0  # no broadcast is due in the first block
    assert len(computed) == plan.devices * (1 + 10 + again)  # once to compile the program


def blocks_of(party: DeviceParty, prepare: Callable[[DeviceParty, int, np.ndarray, float], object]) -> list[Any]:
    """What a device of 5 slots does in 30 blocks, of which it is alone in the last ones.

    In every second block the price that is due for the next one comes after that has been prepared.
    """
    rng, found = np.random.default_rng(1), list[Any]()
    for block in range(30):
        came, gain = rng.integers(0, 2, 5), float(rng.exponential(1e9))
        action = party.begin(alone=block > 25)
        price = {"price": float(rng.uniform(0.0, 2.0))}
        if block % 2:
            party.hear(block - 1, price)
        prepare(party, block, came, gain)
        party.hear(block - 1, price)
        happened = astuple(party.end(came, gain))
        found.append((float(action.started), float(action.offload), happened, memories_of(party)))
    return [*found, party.misses]


def test_what_was_prepared_changes_nothing():
    """Rightly expected or not: arrivals, gain, the broadcast and whether the server is silent."""

    async def joined() -> DeviceParty:
        agent = Agent(MemoryLink(Service(plan_of("priced", blocks=30))))
        reply = await agent._register(RegisterRequest(2))
        return agent._made(reply, synthetic(reply))

    ways: dict[str, Callable[[DeviceParty, int, np.ndarray, float], object]] = {
        "as it happens": lambda party, block, came, gain: party.prepare(came, gain, block + 1 > 25),
        "other arrivals": lambda party, block, came, gain: party.prepare(1 - came, gain, block + 1 > 25),
        "another gain": lambda party, block, came, gain: party.prepare(came, 2 * gain, block + 1 > 25),
        "the server as silent": lambda party, block, came, gain: party.prepare(came, gain, True),
        "twice": lambda party, block, came, gain: (party.prepare(1 - came, gain), party.prepare(came, gain)),
    }
    plain = blocks_of(run_on_fake_clock(joined()), lambda *given: None)
    assert len({done[:2] for done in plain[:-1]}) > 5
    for way, prepare in ways.items():
        for mine, theirs in zip(blocks_of(run_on_fake_clock(joined()), prepare), plain, strict=True):
            np.testing.assert_equal(mine, theirs, err_msg=way)


def test_a_link_that_is_too_slow_is_counted_and_never_answered_by_a_newer_broadcast():
    """0.45 s each way: every broadcast comes a block late, when the one before it is used."""
    _, service, logs = live("priced", 0.45, 40)
    assert all(log.misses > 30 for log in logs)
    assert service.ledger.received == service.ledger.answered


def test_the_order_in_which_devices_join_changes_nothing():
    plan = plan_of("neurosurgeon", blocks=50)

    def made(service: Service, number: int) -> Agent:
        return Agent(MemoryLink(service, 0.001), request=RegisterRequest(device=plan.devices - 1 - number))

    service, _ = run_on_fake_clock(together(plan, 0.001, made))
    measured = metrics(service.ledger, plan, service.party.changes, None)
    np.testing.assert_allclose(measured.cost()[0], simulated("neurosurgeon").metrics.cost()[0, :50], rtol=1e-12)


@pytest.mark.parametrize("scheme", ["priced", "parametric"])
def test_parties_begin_with_what_a_simulation_has_learned(scheme: str, tmp_path: Path):
    """Each with its own: memories and random features bit for bit; another scheme or fleet is refused."""
    plan = plan_of(scheme)
    run = rollout(plan.world, plan.pair, plan.stream, [8, SEED], 20, precision="float64")
    wanted = make_comparison(plan.scenario, schemes=[scheme], blocks=20, seeds=[8, SEED], precision="float64")
    save(tmp_path / "trained.npz", wanted, run)
    trained = read(tmp_path / "trained.npz")
    service = Service(plan, trained=trained)
    own = [jax.tree.map(lambda leaf: np.asarray(leaf)[1], run.carry.server_state)]
    for mine, theirs in zip(jax.tree.leaves(service.party.state), jax.tree.leaves(own), strict=True):
        np.testing.assert_array_equal(mine, theirs)

    async def joined() -> DeviceParty:
        agent = Agent(MemoryLink(service), trained=trained)
        reply = await agent._register(RegisterRequest(2))
        return agent._made(reply, synthetic(reply))

    party = run_on_fake_clock(joined())
    states = jax.tree.map(lambda leaf: np.asarray(leaf)[1][..., 2], run.carry.device_state)
    for mine, theirs in zip(jax.tree.leaves(party.state), jax.tree.leaves(states), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    if scheme == "parametric":
        np.testing.assert_array_equal(party._controller.mu, np.asarray(run.pair.device.mu)[1])
    with pytest.raises(InputError, match="holds the scheme"):
        Service(plan_of("neurosurgeon"), trained=trained)
    with pytest.raises(InputError, match="trained with 4 devices"):
        run_of(trained, scheme, 5, SEED)


def memories_of(party: DeviceParty | ServerParty) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(party.state)]


@pytest.mark.parametrize("scheme", ["priced", pytest.param("parametric", marks=pytest.mark.slow)])
def test_parties_begin_with_what_a_live_run_has_learned(scheme: str, tmp_path: Path):
    """The server, and two processes with two devices each: memories bit for bit, none in another's place."""
    plan, service, logs = live(scheme, blocks=40)
    origin = origin_of(scheme, SEED, 40, "float64", 4)
    by_number = {log.device: log.party for log in logs}
    save_server(tmp_path / "server.npz", origin, service.party.state)
    for numbers in ((0, 1), (2, 3)):
        save_devices(tmp_path / f"{numbers[0]}.npz", origin, {k: by_number[k].learned for k in numbers})

    again = Service(plan, trained=read(tmp_path / "server.npz"))
    assert memories_of(again.party)
    for mine, theirs in zip(memories_of(again.party), memories_of(service.party), strict=True):
        np.testing.assert_array_equal(mine, theirs)

    async def joined(number: int, file: str) -> DeviceParty:
        agent = Agent(MemoryLink(Service(plan)), trained=read(tmp_path / file))
        reply = await agent._register(RegisterRequest(number))
        return agent._made(reply, synthetic(reply))

    party = run_on_fake_clock(joined(3, "2.npz"))
    for mine, theirs in zip(memories_of(party), memories_of(by_number[3]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    others = memories_of(by_number[2])
    assert any((mine != other).any() for mine, other in zip(memories_of(party), others, strict=True))
    if scheme == "parametric":
        np.testing.assert_array_equal(party._controller.mu, by_number[3]._controller.mu)
    with pytest.raises(InputError, match=r"holds device 0, 1, and this is device 3; name it with --device"):
        run_on_fake_clock(joined(3, "0.npz"))
    with pytest.raises(InputError, match="holds the server, and this is device 3"):
        run_on_fake_clock(joined(3, "server.npz"))
    with pytest.raises(InputError, match="holds device 0, 1, and this is the server"):
        Service(plan, trained=read(tmp_path / "0.npz"))


@pytest.mark.parametrize("scheme", ["priced", pytest.param("parametric", marks=pytest.mark.slow)])
def test_a_run_that_begins_with_memories_costs_what_its_simulation_costs(scheme: str, tmp_path: Path):
    """Live and simulated, from the files of a live run: the same costs, and other ones than from nothing."""
    plan, service, logs = live(scheme, blocks=40)
    origin = origin_of(scheme, SEED, 40, "float64", 4)
    save_server(tmp_path / "server.npz", origin, service.party.state)
    save_devices(tmp_path / "devices.npz", origin, {log.device: log.party.learned for log in logs})
    of_server, of_devices = read(tmp_path / "server.npz"), read(tmp_path / "devices.npz")

    async def again() -> Service:
        service = Service(plan, trained=of_server)
        agents = [
            Agent(MemoryLink(service, DELAY_S), request=RegisterRequest(number), trained=of_devices)
            for number in range(plan.devices)
        ]
        running = asyncio.create_task(service.run())
        await asyncio.gather(*(agent.run() for agent in agents))
        await running
        return service

    pair, carry = init_runs(plan.world, plan.pair, plan.stream, [SEED], "float64")
    device, states, server = of_fleet(
        of_server, lambda number: of_devices, lambda file: 0, pair.device, carry.device_state, carry.server_state
    )
    begun = replace(carry, device_state=states, server_state=server)
    run = rollout(
        plan.world, replace(pair, device=device), plan.stream, [SEED], 40, carry=begun, precision="float64"
    ).metrics
    second = run_on_fake_clock(again())
    cost = metrics(second.ledger, plan, second.party.changes, None).cost()
    np.testing.assert_allclose(cost, run.cost(), rtol=1e-12)
    first = metrics(service.ledger, plan, service.party.changes, None).cost()
    assert np.abs(np.asarray(cost) - np.asarray(first)).max() > 1e-6


def test_a_simulation_does_not_continue_from_a_part_of_a_live_run(tmp_path: Path):
    plan, service, _ = live("priced", blocks=40)
    origin = origin_of("priced", SEED, 40, "float64", 4, plan.scenario.to_toml())
    save_server(tmp_path / "server.npz", origin, service.party.state)
    with pytest.raises(InputError, match="load it with `partway serve` or `partway join`"):
        run_command(build_parser().parse_args(["run", "--load", str(tmp_path / "server.npz")]))


@pytest.mark.parametrize("column", ["gain_per_w", "rate_bit_s"])
def test_a_measured_channel_is_that_of_a_simulation_which_replays_it(column: str, tmp_path: Path):
    """Gains, power, energy and what devices decide by the mean of the trace; the trace is shorter than the run."""
    drawn = np.random.default_rng(1).uniform(0.5, 4.0, 60) * (1e3 if column == "gain_per_w" else 2e6)
    lines = [f"{0.5 * block:g},{value!r}" for block, value in enumerate(drawn.tolist())]
    path = tmp_path / "link.csv"
    path.write_text("\n".join([f"time_s,{column}", *lines]))
    limited: dict[str, Any] = {"device": {"tx_power_max_w": 0.2}}
    plan = plan_of("neurosurgeon", **limited)
    fading = {"kind": "trace", "file": str(path), "loop": True}
    world = world_of(load(TWO_CLASSES | limited, {"radio.fading": fading}))
    expected = rollout(world, plan.pair, plan.stream, [SEED], BLOCKS, precision="float64", traces=True).traces
    assert expected is not None

    def made(service: Service, number: int) -> Agent:
        request = RegisterRequest(device=number)
        return Agent(MemoryLink(service, DELAY_S), request=request, workload=partial(traced, str(path)))

    service, _ = run_on_fake_clock(together(plan, DELAY_S, made))
    for ours, theirs in {"gain": "gain", "started": "started", "offload": "offload", "power_w": "power"}.items():
        mine = [[getattr(service.ledger.records[t, k], ours) for k in range(plan.devices)] for t in range(BLOCKS)]
        np.testing.assert_allclose(mine, np.asarray(getattr(expected, theirs))[0], rtol=1e-12, atol=1e-12)
    assert {service.ledger.records[t, 0].gain for t in range(60)} == {
        service.ledger.records[t, 0].gain for t in range(BLOCKS)
    }
