"""What a live run cost, by the same program that measures a simulation, and where its tasks spent their time."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, cast

import jax
import numpy as np

from partway.bound.certificate import Certificate
from partway.controllers.block import DeviceOutcome, ServerOutcome, Transition
from partway.live.plan import LivePlan
from partway.live.server import Turn
from partway.live.service import Ledger
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, MESSAGES, STAGES, TaskLog
from partway.measurement.latency import DELAYS
from partway.measurement.metrics import BlockMetrics, Parties, measure
from partway.pytree import cast_floats
from partway.system.exogenous import SLOTS_PER_WORD

PIECE = 4096
"""Blocks that are measured at a time: measuring takes more memory than the blocks."""


@dataclass(frozen=True)
class Stages:
    """Mean times [s] of the tasks that have ended, by stage, and how late the emulation was.

    delays    by `DELAYS`, 0 where a task has none
    latency   mean from arrival to result                  network  what is in it beyond the delays: messages
    p50, p95  of the latency                               tasks    how many
    """

    delays: dict[str, float]
    latency: float
    network: float
    p50: float
    p95: float
    tasks: int


def transitions(ledger: Ledger, plan: LivePlan, blocks: range, changes: list[float]) -> Transition:
    """Blocks of a run as the simulation leaves them: one run, (1, blocks, ...)."""
    records, turns = ledger.records.of(blocks), ledger.turns.of(blocks)
    these = slice(blocks.start, blocks.stop)

    def column(name: str) -> Any:
        return _run(records[name], plan)

    devices = DeviceOutcome(
        q=column("queue"),
        gain=column("gain"),
        started=column("started"),
        offload=column("offload"),
        commanded=column("commanded_w"),
        power=column("power_w"),
        energy_j=column("energy_j"),
        relative_change=column("relative_change"),
    )
    server = ServerOutcome(
        backlog=_run(turns["backlog"], plan),
        service_per_slot=_run(turns["service_per_slot"], plan),
        price=_run(turns["price"] if plan.uses_price else np.full(len(turns), np.nan), plan),
        relative_change=_run(changes[these], plan),
    )
    words = -(-plan.slots // SLOTS_PER_WORD)
    bits = records["arrivals"]
    shift, mask = np.arange(words, dtype=np.uint64) * np.uint64(SLOTS_PER_WORD), np.uint64(2**SLOTS_PER_WORD - 1)
    packed = (bits[:, None, :] >> shift[:, None] & mask).astype(np.uint32)[None]
    numbers: Any = np.array([blocks], np.uint32)
    return Transition(numbers, cast(jax.Array, packed), devices, server, _run(ledger.inflow[these], plan))


def _run(values: Any, plan: LivePlan) -> Any:
    return np.asarray(values, plan.precision)[None]


class Meter:
    """What blocks of a live run cost. The losses need a certificate of the bound."""

    def __init__(self, plan: LivePlan, certificate: Certificate | None):
        self._plan = plan
        self._parties = Parties(
            cast_floats(plan.world.devices, plan.precision),
            cast_floats(plan.world.server, plan.precision),
            cast_floats(certificate, plan.precision),
        )

    def measure(self, ledger: Ledger, blocks: range, changes: list[float]) -> dict[str, np.ndarray]:
        """(blocks,) of each field of `BlockMetrics`."""
        same_for_all = (False,) * len(jax.tree.leaves(self._parties))
        measured = measure(self._parties, transitions(ledger, self._plan, blocks, changes), stacked=same_for_all)
        return {field.name: np.asarray(getattr(measured, field.name))[0] for field in fields(measured)}

    def compile(self) -> None:
        """Compile what measures a single block."""
        ledger = Ledger(self._plan.devices, self._plan.slots)
        ledger.note(Turn(np.zeros(self._plan.slots), {"price": np.zeros(())}, 0.0))
        ledger.inflow.append(0.0)
        self.measure(ledger, range(1), [0.0])


def metrics(ledger: Ledger, plan: LivePlan, changes: list[float], certificate: Certificate | None) -> BlockMetrics:
    """`BlockMetrics` (1, blocks) of a live run; its losses need a certificate of the bound."""
    blocks = range(min(len(ledger.turns), len(ledger.inflow), len(changes)))
    meter = Meter(plan, certificate)
    pieces = [meter.measure(ledger, blocks[at : at + PIECE], changes) for at in range(0, len(blocks), PIECE)]
    return BlockMetrics(
        **{name: cast(Any, np.concatenate([piece[name] for piece in pieces])[None]) for name in pieces[0]}
    )


def stages(tasks: Iterable[TaskLog], first_block: int = 0) -> Stages:
    """Where the tasks that arrived from a block on, and have ended, spent their time; NaN where there are none."""
    took = np.fromiter(
        (
            tuple(task.stages().values())
            for task in tasks
            if task.outcome in (ANSWERED, LOCAL, FINISHED_HERE) and task.block >= first_block
        ),
        np.dtype((float, len(STAGES))),
    )
    if not len(took):
        return Stages(dict.fromkeys(DELAYS, np.nan), np.nan, np.nan, np.nan, np.nan, 0)
    latency = took.sum(axis=1)
    mean = dict(zip(STAGES, took.mean(axis=0).tolist(), strict=True))
    return Stages(
        delays={name: mean[name] for name in DELAYS},
        latency=float(latency.mean()),
        network=mean[MESSAGES],
        p50=float(np.percentile(latency, 50)),
        p95=float(np.percentile(latency, 95)),
        tasks=len(took),
    )
