"""What a live run cost, by the same program that measures a simulation, and where its tasks spent their time."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, cast

import jax
import numpy as np

from partway.bound.certificate import Certificate
from partway.controllers.block import DeviceOutcome, ServerOutcome, Transition
from partway.live.messages import BlockRecord
from partway.live.plan import LivePlan
from partway.live.server import Turn
from partway.live.service import Ledger
from partway.live.tasks import ANSWERED, FINISHED_HERE, LOCAL, MESSAGES, STAGES, TaskLog
from partway.measurement.latency import DELAYS
from partway.measurement.metrics import BlockMetrics, Parties, measure
from partway.pytree import cast_floats
from partway.system.exogenous import SLOTS_PER_WORD

ABSENT = BlockRecord(0.0, 1.0, 0.0, 0.0, float("nan"), 0.0, 0.0, float("nan"), 0)
"""The block of a device that was not there: nothing waited, nothing was done."""


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
    rows = [[ledger.records.get((t, k), ABSENT) for k in range(plan.devices)] for t in blocks]
    these = slice(blocks.start, blocks.stop)

    def column(name: str) -> Any:
        return np.array([[[getattr(record, name) for record in row] for row in rows]], plan.precision)

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
    turns = ledger.turns[these]
    server = ServerOutcome(
        backlog=_run([turn.backlog for turn in turns], plan),
        service_per_slot=_run([turn.service_per_slot for turn in turns], plan),
        price=_run([turn.broadcast["price"] if plan.uses_price else np.nan for turn in turns], plan),
        relative_change=_run(changes[these], plan),
    )
    words = -(-plan.slots // SLOTS_PER_WORD)
    bits = np.array([[record.arrivals for record in row] for row in rows], np.uint64)
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
        turn = Turn(np.zeros(self._plan.slots), {"price": np.zeros(())}, 0.0)
        self.measure(Ledger(turns=[turn], inflow=[0.0]), range(1), [0.0])


def metrics(ledger: Ledger, plan: LivePlan, changes: list[float], certificate: Certificate | None) -> BlockMetrics:
    """`BlockMetrics` (1, blocks) of a live run; its losses need a certificate of the bound."""
    blocks = range(min(len(ledger.turns), len(ledger.inflow), len(changes)))
    measured = Meter(plan, certificate).measure(ledger, blocks, changes)
    return BlockMetrics(**{name: cast(Any, values[None]) for name, values in measured.items()})


def stages(tasks: Iterable[TaskLog], first_block: int = 0) -> Stages:
    """Where the tasks that arrived from a block on, and have ended, spent their time; NaN where there are none."""
    ended = [task for task in tasks if task.outcome in (ANSWERED, LOCAL, FINISHED_HERE) and task.block >= first_block]
    if not ended:
        return Stages(dict.fromkeys(DELAYS, np.nan), np.nan, np.nan, np.nan, np.nan, 0)
    latency = np.array([task.answered - task.arrived for task in ended])
    mean = {name: float(np.mean([task.stages()[name] for task in ended])) for name in STAGES}
    return Stages(
        delays={name: mean[name] for name in DELAYS},
        latency=float(latency.mean()),
        network=mean[MESSAGES],
        p50=float(np.percentile(latency, 50)),
        p95=float(np.percentile(latency, 95)),
        tasks=len(ended),
    )
