"""What listeners are told of a server's block: its cost and the gap to the lower bound, measured as the run goes."""

from collections import deque

import numpy as np

from partway.bound.certificate import Certificate
from partway.live.accounts import Meter
from partway.live.events import BlockMeasured, Event, Listener, Planned
from partway.live.plan import LivePlan
from partway.live.service import BlockEnded
from partway.measurement.gap import LOSSES, Horizon, gap_by_seed, why_no_gap
from partway.measurement.latency import end_of_run

WINDOW = 100
"""Number of blocks that the gap to the lower bound on the average cost is averaged over during a run: the last ones on
which all devices have reported."""


class Watch:
    """Passes on what happens at a server, and measures every block that ends."""

    def __init__(
        self,
        plan: LivePlan,
        listen: Listener,
        bound: float | None,
        no_bound: str,
        certificate: Certificate | None,
        cuts: tuple[tuple[str, float], ...] = (),
    ):
        """A watch over a run that has not begun.

        listen           is told
        bound, no_bound  the lower bound on the scenario's objective, or why there is none
        certificate      from which the gap is computed
        cuts             (name, share that is left to the server) of the network
        """
        self._listen, self._meter = listen, Meter(plan, certificate)
        objective = plan.scenario.objective
        self._horizon = Horizon(0, plan.scenario.discount, objective, plan.block_s, bound, no_bound)
        kept = WINDOW if objective == "average" else None
        self._losses = {f"loss_{name}": deque[float](maxlen=kept) for name in LOSSES}
        self._meter.compile()
        listen(
            Planned(
                scheme=plan.scheme,
                devices=plan.devices,
                blocks=plan.blocks,
                block_s=plan.block_s,
                end_s=end_of_run(plan.blocks, plan.slots, plan.slot_s),
                objective=objective,
                bound=bound,
                no_bound=no_bound,
                uses_price=plan.uses_price,
                cuts=cuts,
            )
        )

    def __call__(self, event: Event | BlockEnded) -> None:
        """Pass an event on; of a block that has ended its measurement."""
        self._listen(self._measured(event) if isinstance(event, BlockEnded) else event)

    def _measured(self, ended: BlockEnded) -> BlockMeasured:
        block, ledger = ended.block, ended.ledger
        series = self._meter.measure(ledger, range(block, block + 1), ended.changes)
        metrics = {name: float(values[0]) for name, values in series.items()}
        reported = {number: ledger.records.get((block, number)) for number in range(ended.devices)}
        if None not in reported.values() or self._horizon.objective != "average":
            for name, losses in self._losses.items():
                losses.append(metrics[name])
        return BlockMeasured(
            block=block,
            metrics=metrics,
            gap=self._gap(),
            price=metrics["price"],
            received=ledger.received,
            answered=ledger.answered,
            duplicates=ledger.duplicates,
            late=ledger.late,
            attending=ended.attending,
            reports={number: record for number, record in reported.items() if record is not None},
        )

    def _gap(self) -> float:
        """Above the bound, as a share of it: in the last blocks, or of the discounted sum so far. NaN without one."""

        def series(name: str) -> np.ndarray:
            return np.array([self._losses[name]])

        by_loss = None if why_no_gap(series, self._horizon) else gap_by_seed(series, self._horizon)
        return np.nan if by_loss is None else float(by_loss.sum())
