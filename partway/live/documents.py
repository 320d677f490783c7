"""What a server and a device leave of a run, as JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, cast

import numpy as np

from partway.formatting import plain
from partway.live import pacing
from partway.live.agent import AgentLog
from partway.live.plan import LivePlan
from partway.live.service import Ledger
from partway.live.tasks import TaskLog, Timing
from partway.measurement.metrics import BlockMetrics

SCHEMA_VERSION = 1


def of_server(plan: LivePlan, ledger: Ledger, measured: BlockMetrics, bound: float | None, why: str) -> dict[str, Any]:
    """What the server leaves: every metric and the number of devices that reported, block by block; counts of tasks.

    bound, why  the lower bound on the scenario's objective, or why there is none
    """
    series = {field.name: np.asarray(getattr(measured, field.name))[0].tolist() for field in fields(measured)}
    return plain(
        {
            "schema_version": SCHEMA_VERSION,
            "scenario": plan.scenario.to_toml(),
            "scheme": plan.scheme,
            "seed": plan.seed,
            "blocks": plan.blocks,
            "precision": plan.precision,
            "bound": bound,
            "bound_reason": why,
            "metrics": series,
            "reports": ledger.records.counts(len(series["device_queue"])).tolist(),
            "tasks": {
                "received": ledger.received,
                "answered": ledger.answered,
                "duplicates": ledger.duplicates,
                "late": ledger.late,
            },
            "answer_late_s": ledger.answer_late_s.tolist(),
        }
    )


def of_devices(logs: Iterable[AgentLog]) -> dict[str, Any]:
    """What the devices of a process leave: every task, and how well they kept the time."""
    devices = [
        {
            "device": log.device,
            "misses": log.misses,
            "alone": log.alone,
            "late_s": log.late_s.tolist(),
            "task_late_s": pacing.late(log.records, log.tasks, _timing(log)).tolist(),
            "tasks": [asdict(task) for task in log.tasks],
        }
        for log in logs
    ]
    return plain({"schema_version": SCHEMA_VERSION, "devices": devices})


def _timing(log: AgentLog) -> Timing:
    """A device's blocks, by a clock that is 0 when block 0 begins, as in `TaskLog`."""
    constants = log.reply.constants
    return Timing(0.0, constants.numbers["slot_s"], constants.slots)


def series_of(document: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The metrics (1, blocks) of a server's document."""
    return {
        name: np.array([[np.nan if value is None else value for value in values]], np.float64)
        for name, values in document["metrics"].items()
    }


def tasks_of(document: Mapping[str, Any]) -> list[TaskLog]:
    """The tasks of one device of such a document."""
    tasks: list[dict[str, Any]] = document["tasks"]
    return [
        TaskLog(**cast(Any, {name: np.nan if value is None else value for name, value in task.items()}))
        for task in tasks
    ]
