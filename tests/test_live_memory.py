"""How much memory a run takes for each device and block, by what Python has allocated. `-s` prints it."""

import asyncio
import gc
import tracemalloc

import pytest

from partway.live import sessions
from partway.live.agent import Agent
from partway.live.clock import run_on_fake_clock, sleep_until
from partway.live.memory import MemoryLink
from partway.live.messages import RegisterRequest
from partway.live.plan import make_plan
from partway.live.service import Service
from partway.scenario.loading import load

DEVICES, BLOCKS, FIRST = 3, 300, 50
LIMIT = 550
"""Bytes: of the server 73 for the record and a third of 150 for the turn, of the device 81 and 104 for each task."""


@pytest.mark.slow
def test_a_run_keeps_little_of_a_block(monkeypatch: pytest.MonkeyPatch):
    """Server and devices in one process, from block 50 to block 300. Results that a device may ask for again, of
    which there are at most so many, are not counted."""
    monkeypatch.setattr(sessions, "MAX_ANSWERS", 8)
    plan = make_plan(load({"devices": DEVICES}), "neurosurgeon", blocks=BLOCKS + 5, seed=1)

    async def run() -> tuple[list[int], int]:
        service, sizes = Service(plan), list[int]()
        agents = [Agent(MemoryLink(service), request=RegisterRequest(number)) for number in range(DEVICES)]
        serving = asyncio.create_task(service.run())
        running = [asyncio.create_task(agent.run()) for agent in agents]
        while agents[0].epoch is None:
            await asyncio.sleep(0.1)
        for block in (FIRST, BLOCKS):
            await sleep_until(agents[0].epoch + block * plan.block_s)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        logs = await asyncio.gather(*running)
        await serving
        return sizes, sum(len(log.tasks) for log in logs)

    tracemalloc.start()
    try:
        (first, last), tasks = run_on_fake_clock(run())
    finally:
        tracemalloc.stop()
    each, arrived = (last - first) / DEVICES / (BLOCKS - FIRST), tasks / DEVICES / (BLOCKS + 5)
    print(f"\n{each:.0f} bytes for each device and block, in which {arrived:.2f} tasks arrive")
    assert each < LIMIT
