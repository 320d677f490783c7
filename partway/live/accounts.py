"""What a live run cost, by the same program that measures a simulation, and where its tasks spent their time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import jax
import numpy as np

from partway.bound.certificate import Certificate
from partway.controllers.block import DeviceOutcome, ServerOutcome, Transition
from partway.live.plan import LivePlan
from partway.live.server import Turn
from partway.live.service import Ledger
from partway.live.tasks import FAILED, MESSAGES, STAGES, WAITING, TaskLog
from partway.measurement.latency import DELAYS, Tasks, latency_of
from partway.measurement.metrics import BlockMetrics, Parties, measure
from partway.pytree import cast_floats
from partway.system.exogenous import SLOTS_PER_WORD

PIECE = 4096
"""Blocks that are measured at a time: measuring takes more memory than the blocks."""


@dataclass(frozen=True)
class Stages:
    """How long tasks took [s], by the rules of `partway.measurement.latency`.

    latency            mean, with what an unfinished task has waited so far
    delays, network    what of it is in each of DELAYS, and beyond them: messages
    p50, p95           NaN where so many tasks are not finished
    tasks, unfinished  how many, and the share of them that is not finished
    """

    latency: float
    delays: Mapping[str, float]
    network: float
    p50: float
    p95: float
    tasks: int
    unfinished: float


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


def stages(tasks: Iterable[TaskLog], end_s: float, first_block: int = 0) -> Stages:
    """How long the tasks took that arrived from a block on; NaN where there are none.

    end_s  when the run ends (`partway.measurement.latency.end_of_run`), by the clock of the tasks. What the server
           answers later, because it stops, is unfinished.

    Tasks that failed are left out: they have no result.
    """
    rows = (
        (task.arrived, *(UNFINISHED if task.outcome == WAITING else task.stages().values()))
        for task in tasks
        if task.outcome != FAILED and task.block >= first_block
    )
    return stages_of(np.fromiter(rows, np.dtype((float, 1 + len(STAGES)))), end_s)


UNFINISHED = (np.inf, *(0.0,) * (len(STAGES) - 1))
"""What each of STAGES takes of a task that is never started."""


def stages_of(rows: np.ndarray, end_s: float) -> Stages:
    """How long tasks took; rows (tasks, 7): when each arrived, and how long it was in each of STAGES [s]."""
    arrived, *moments, ended = np.cumsum(rows, axis=1).T
    finished, none = np.where(ended > end_s, np.inf, ended), np.zeros(len(rows), int)
    found = latency_of([Tasks(none, none, arrived, finished, none > 0, np.array(moments))], end_s, 1)
    mean = dict(zip(STAGES, found.delays[0].tolist(), strict=True))
    return Stages(
        latency=float(found.mean[0]),
        delays={name: mean[name] for name in DELAYS},
        network=mean[MESSAGES],
        p50=float(found.p50[0]),
        p95=float(found.p95[0]),
        tasks=len(rows),
        unfinished=float(found.unfinished[0]),
    )
