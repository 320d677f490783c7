"""How a run of a scheme ended: its status, and the reason in words."""

from typing import Any

import numpy as np

from partway.controllers.base import ControllerPair
from partway.controllers.diagnosis import classes_from_outside
from partway.experiments.failures import INVALID
from partway.experiments.plan import Plan
from partway.experiments.statistics import count_unstable
from partway.measurement.metrics import BlockMetrics
from partway.scenario.schema import Scenario
from partway.system.kinds import channel_of, ships, traffic_of


def status_of(
    metrics: BlockMetrics, pair: ControllerPair, scenario: Scenario | None = None
) -> tuple[str, str | None, float]:
    """(status, reason, growth of the waiting work per block).

    pair, scenario  of the run: a reason may name classes that do not ship with Partway
    """
    if not np.isfinite(metrics.cost()).all():
        return INVALID, _why_invalid(metrics, pair, scenario), np.nan
    arriving = float(np.mean(np.asarray(metrics.arrived_work)))
    work = np.asarray(metrics.total_work, np.float64)
    unstable, growth = count_unstable(work, arriving)
    if 2 * unstable <= len(work):
        return "ok", f"unstable in {unstable} of {len(work)} seeds" if unstable else None, growth
    where = "at the server" if _slope(metrics.backlog) > _slope(metrics.waiting) else "at the devices"
    return "unstable", f"unstable: work piles up {where}", growth


def with_note(reason: str | None, clipped: np.ndarray | None, plan: Plan) -> str:
    """The reason for a status, with a note where controllers asked for actions out of range (`Run.clipped`)."""
    count = 0 if clipped is None else int(np.sum(clipped))
    if clipped is None or not count:
        return reason or ""
    share = count / (clipped.size * plan.scenario.devices)
    note = (
        f"{count:,} actions out of range were clipped ({share:.2g} per device and block): offload is from 0 to 1, "
        "started from 0 to the tasks that wait, service from 0 to f_max"
    )
    return f"{reason}; {note}" if reason else note


def _why_invalid(metrics: BlockMetrics, pair: ControllerPair, scenario: Scenario | None) -> str:
    """What became infinite or undefined first, when, and in which classes from outside to look."""
    block = int(np.argmax(~np.isfinite(np.asarray(metrics.cost())).all(axis=0)))
    actions = np.isnan(np.asarray(metrics.started) + np.asarray(metrics.sent))[:, : block + 1].any(axis=0)
    processes = (channel_of(scenario), traffic_of(scenario)) if scenario else ()
    steps = [f"{type(one).__name__}.step" for one in processes if not ships(one)]
    acts = " and ".join([*(f"{name}.act" for name in classes_from_outside(pair)), *steps])
    look = f"; look for 0/0, log and sqrt in {acts}" if acts else ""
    if actions.any():
        return f"the policy's action is NaN in block {int(np.argmax(actions))}{look}"
    return f"a cost became infinite or undefined in block {block}{look}"


def _slope(series: Any) -> float:
    mean = np.asarray(series, np.float64).mean(axis=0)
    return float(mean[-1] - mean[len(mean) // 2])
