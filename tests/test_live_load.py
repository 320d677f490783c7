"""Load: two hundred devices that connect at once, and two dozen that run for ten minutes in two processes."""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_site import BLOCK_S, devices_of, outcomes

from fuzz.hostile import memory_mib
from partway.live.agent import Agent, AgentLog
from partway.live.clock import run_on_fake_clock
from partway.live.grpc_client import GrpcLink
from partway.live.grpc_server import GrpcServer
from partway.live.memory import MemoryLink
from partway.live.messages import Refused, RegisterRequest
from partway.live.plan import LivePlan, make_plan
from partway.live.processes import serving
from partway.live.service import Ledger, Service
from partway.live.tasks import ANSWERED, FINISHED_HERE
from partway.scenario.loading import load

PLACES, FEW, CROWD = 24, 6, 200
"""Devices of the long run and of the short one, and how many want to join at once."""
MINUTES = float(os.environ.get("LOAD_MINUTES", "10"))
"""Of the long run."""


def plan_of(blocks: int) -> LivePlan:
    """Blocks of a quarter of a second; a resnet50 that nobody computes."""
    changes: dict[str, Any] = {
        "devices": FEW,
        "slot_s": 0.05,
        "device": {"bandwidth_hz": 3e7, "task": {"kind": "layers", "profile": "resnet50", "tensor_dtype": "uint8"}},
    }
    return make_plan(load(changes), "neurosurgeon", blocks=blocks)


def test_two_hundred_devices_connect_at_once_and_as_many_as_there_are_places_run():
    """Each by a connection of its own; the others hear at once that there is no place. With -s it says when."""
    plan, refused_at = plan_of(8), list[float]()

    async def device(link: GrpcLink) -> AgentLog:
        began = time.monotonic()
        try:
            return await Agent(link).run()
        except Refused:
            refused_at.append(time.monotonic() - began)
            raise

    async def main() -> tuple[Ledger, list[AgentLog | BaseException]]:
        service = Service(plan)
        server = GrpcServer(service)
        port = await server.start("127.0.0.1:0")
        links = [GrpcLink(f"127.0.0.1:{port}") for _ in range(CROWD)]
        running = asyncio.create_task(service.run(60.0))
        ended = await asyncio.gather(*(device(link) for link in links), return_exceptions=True)
        await running
        await asyncio.gather(*(link.close() for link in links))
        await server.stop(0)
        return service.ledger, ended

    async def rehearsal() -> None:
        """In memory, so that nothing is compiled while two hundred wait."""
        service = Service(plan)
        await asyncio.gather(service.run(), *(Agent(MemoryLink(service)).run() for _ in range(FEW)))

    run_on_fake_clock(rehearsal())
    ledger, ended = asyncio.run(main())
    print(f"\n{len(refused_at)} of {CROWD} refused within {max(refused_at):.1f} s")
    logs = [one for one in ended if isinstance(one, AgentLog)]
    refused = [one for one in ended if isinstance(one, Refused)]
    assert sorted(log.device for log in logs) == list(range(FEW))
    assert [why.code for why in refused] == ["RESOURCE_EXHAUSTED"] * (CROWD - FEW)
    assert {(block, device) for block in range(7) for device in range(FEW)} <= set(ledger.records)
    assert ledger.received == ledger.answered
    assert ledger.duplicates == 0


async def crowd(target: str) -> list[str]:
    """How two hundred that connect at once are answered while the places are taken."""

    async def one(link: GrpcLink) -> str:
        try:
            await link.register(RegisterRequest())
        except Refused as why:
            return why.code
        finally:
            await link.close()
        return "OK"

    return list(await asyncio.gather(*(one(GrpcLink(target)) for _ in range(CROWD))))


@pytest.mark.slow
def test_two_dozen_devices_run_for_ten_minutes_in_two_processes(tmp_path: Path):
    """And two hundred others want to join after half a minute. With -s it prints its figures."""
    blocks = round(60 * MINUTES / BLOCK_S)
    with serving(tmp_path, "--blocks", str(blocks), "--set", f"devices={PLACES}", "--wait", "120") as fleet:
        for name, first in (("one", 0), ("two", PLACES // 2)):
            fleet.start(name, "join", fleet.target, "--device", str(first), "--count", str(PLACES // 2))
        fleet.wait(lambda: "begins" in (tmp_path / "server.out").read_text("utf-8"), 120, "joining")
        answers, memory = list[str](), dict[str, list[float]]()
        before_end, ends = dict[str, float](), time.monotonic() + 60 * MINUTES

        def noted() -> bool:
            running = {name: process for name, process in fleet.processes.items() if process.poll() is None}
            for name, process in running.items():
                with contextlib.suppress(OSError, KeyError):  # it is just ending
                    memory.setdefault(name, []).append(memory_mib(process.pid)[0])
                    if time.monotonic() < ends:
                        before_end[name] = memory[name][-1]
            if not answers and len(memory["server"]) == 300:
                answers.extend(asyncio.run(crowd(fleet.target)))
            return not running

        fleet.wait(noted, 90 * MINUTES + 120, "the run")
        served, devices = fleet.document("server"), devices_of(fleet, "one", "two")
    counted = outcomes(devices)
    late = np.concatenate([np.asarray(device["late_s"]) for device in devices])
    misses, alone = sum(one["misses"] for one in devices), sum(len(one["alone"]) for one in devices)
    settled = {name: seen[len(seen) // 10] for name, seen in memory.items()}
    print(
        f"\n{PLACES} devices, {blocks} blocks: {dict(counted)}; at the server {served['tasks']}\n"
        f"blocks begin late by {1e3 * np.median(late):.1f} ms (median), {1e3 * np.percentile(late, 99):.1f} ms (99 %); "
        f"{misses} of {PLACES * blocks} broadcasts came too late; alone in {alone} blocks\n"
        + "\n".join(
            f"memory of {name}: {settled[name]:.0f} MiB, {before_end[name]:.0f} before the end of the run, "
            f"at most {max(seen):.0f}"
            for name, seen in memory.items()
        )
    )
    assert answers == ["RESOURCE_EXHAUSTED"] * CROWD
    assert served["tasks"]["received"] == served["tasks"]["answered"]
    assert counted[ANSWERED] + counted[FINISHED_HERE] == served["tasks"]["received"]
    assert served["tasks"]["duplicates"] == 0
    assert misses + alone < PLACES * blocks / 100, "devices are often without the server"
    assert all(max(seen) < 1.5 * settled[name] for name, seen in memory.items()), "memory grows with the run"
