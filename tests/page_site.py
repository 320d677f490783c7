"""What tests of the page share: files of events of a small run, made by hand."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from partway.live.tasks import STAGES
from partway.measurement.gap import COST_COMPONENTS

PLANNED: dict[str, Any] = {
    "scheme": "priced",
    "devices": 3,
    "blocks": 40,
    "block_s": 0.25,
    "end_s": 41 * 0.25 + 0.05,
    "objective": "average",
    "bound": 9.0,
    "no_bound": "",
    "uses_price": True,
    "cuts": [["image", 1.0], ["conv1", 0.6], ["pooled", 0.1], ["scores", 0.0]],
}
COMPONENTS = dict(zip(COST_COMPONENTS, (1.0, 0.5, 6.0, 2.5), strict=True))
"""The cost of each block but the first, 10 in all."""
STAGES_S = dict(zip(STAGES, (0.2, 0.1, 0.05, 0.1, 0.04, 0.01), strict=True))
"""Of each task, half a second in all."""


class Events:
    """Files of events in a folder, as a server and its devices write them."""

    def __init__(self, folder: Path, **plan: Any):
        """A run that is planned; `plan`: changes of PLANNED."""
        self.folder, self.devices = folder, {**PLANNED, **plan}["devices"]
        self.add("server", "Planned", **{**PLANNED, **plan})

    def add(self, party: str, event: str, **fields: Any) -> None:
        """Write an event to the file of a party."""
        with (self.folder / f"{party}.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "time": time.time(), **fields}) + "\n")

    def begin(self) -> None:
        """All devices join, and the run begins."""
        for device in range(self.devices):
            self.add("server", "Joined", device=device)
        self.add("server", "Begun", devices=self.devices)

    def block(self, number: int, reports: Mapping[int, float] | None = None, **fields: Any) -> None:
        """A block ends; reports: by device, the share of its task that it has sent, by default 0.58 of each."""
        metrics = dict.fromkeys(COMPONENTS, 0.0) if number == 0 else COMPONENTS
        sent = dict.fromkeys(range(self.devices), 0.58) if reports is None else reports
        given: dict[str, Any] = {
            "block": number,
            "metrics": metrics | {"waiting": 2.0 + self.devices * (number % 5), "backlog": 1.0 + number % 3},
            "gap": 0.01,
            "price": 1.0 + 0.01 * (number % 7),
            "received": 3 * number,
            "answered": 3 * number,
            "duplicates": 0,
            "attending": [*sent],
            "reports": {
                str(device): {"queue": 2.0 + device, "started": 2.0, "offload": offload}
                for device, offload in sent.items()
            },
        }
        self.add("server", "BlockMeasured", **(given | fields))

    def task(self, device: int, number: int, outcome: str = "answered") -> None:
        """A task ends that has arrived when block `number` began."""
        arrived = {"task": number, "block": number, "arrived_s": PLANNED["block_s"] * number}
        took = {"outcome": outcome, "latency_s": sum(STAGES_S.values()), "stages": STAGES_S}
        self.add(f"device-{device}", "TaskEnded", device=device, **arrived, **took)

    def whole(self) -> None:
        """A whole run."""
        self.begin()
        for number in range(PLANNED["blocks"]):
            self.block(number)
            for device in range(self.devices):
                self.task(device, number)
        self.add("server", "Ended", blocks=PLANNED["blocks"], received=117, answered=117, duplicates=0, late=0)
