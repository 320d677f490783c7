"""Hostile peers: whatever they send, the server lives, its memory is bounded, and honest devices notice nothing."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from fuzz import hostile
from partway.live import demo
from partway.live.agent import Agent, AgentLog
from partway.live.grpc_client import GrpcLink
from partway.live.grpc_server import GrpcServer
from partway.live.halves import Halves
from partway.live.messages import RegisterRequest
from partway.live.network import write_small_network
from partway.live.plan import make_plan
from partway.live.service import Ledger, Service
from partway.live.tasks import ANSWERED, LOCAL, WAITING
from partway.scenario.loading import load


def test_a_few_hundred_hostile_messages_harm_nobody(tmp_path: Path):
    halves = Halves(write_small_network(tmp_path), "fp16")
    profile = demo.write_network_profile(halves.profile, tmp_path)
    scenario = load(demo.scenario_for(halves.profile, profile))
    plan = make_plan(scenario, "priced", blocks=12, seed=1, lease_blocks=200)

    async def main() -> tuple[Ledger, AgentLog, Counter[str]]:
        service = Service(plan, halves)
        server = GrpcServer(service, max_bytes=halves.max_bytes())
        attack = hostile.Attack(f"127.0.0.1:{await server.start('127.0.0.1:0')}")
        link = GrpcLink(attack.target)
        joining = asyncio.create_task(hostile.joining(attack))
        honest = asyncio.create_task(Agent(link, halves, RegisterRequest(0)).run())
        while len(service._sessions.attending()) < 2:
            await asyncio.sleep(0.05)
        running = asyncio.create_task(service.run(0.01))
        await hostile.attacked(attack, 400, seed=0)
        log = await honest
        await running
        joining.cancel()
        await link.close()
        await server.stop(0)
        return service.ledger, log, attack.counted

    ledger, log, counted = asyncio.run(main())
    assert counted.total() == 400
    assert hostile.unforeseen(counted) == []
    assert {"INVALID_ARGUMENT", "UNAUTHENTICATED", "UNIMPLEMENTED", "raw: closed"} <= set(counted)
    assert set(Counter(task.outcome for task in log.tasks)) <= {ANSWERED, LOCAL, WAITING}
    assert len(log.records) == 12
    assert ledger.received >= ledger.answered >= sum(task.outcome == ANSWERED for task in log.tasks) > 0


def test_a_message_is_made_again_from_its_number():
    attack = hostile.Attack("127.0.0.1:1", "a" * 32, 5, 3)
    for kind in hostile.OVER_GRPC:
        assert kind(random.Random(1), attack) == kind(random.Random(1), attack)
    for kind in hostile.RAW:
        assert kind(random.Random(1)) == kind(random.Random(1))


@pytest.mark.slow
def test_a_hundred_thousand_hostile_messages_harm_nobody(tmp_path: Path):
    outcome = hostile.besieged(hostile.MESSAGES, 0, hostile.BLOCKS, tmp_path)
    assert outcome.counted.total() == hostile.MESSAGES
    assert outcome.faults() == [], outcome.table()


@pytest.mark.slow
def test_a_device_that_floods_the_server_harms_nobody(tmp_path: Path):
    """Valid messages, of which most are refused, from a process of its own."""
    messages = hostile.MESSAGES // 10
    outcome = hostile.besieged(messages, 0, hostile.BLOCKS // 2, tmp_path, hostile.flooded)
    print(f"\n{outcome.table()}")
    assert outcome.counted.total() >= messages
    assert outcome.counted["RESOURCE_EXHAUSTED"] > outcome.counted["OK"]
    assert outcome.faults() == [], outcome.table()
