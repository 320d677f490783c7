"""The lower bound alone, told to people and to programs: its value, what it is made of, how tight, what it assumes."""

from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from partway.bound.lower_bound import Bound
from partway.formatting import number, plain
from partway.scenario.schema import Scenario
from partway.system.equations import service_cost_coef
from partway.system.types import Server

ASSUMES = (
    "the queue is conserving: what is sent leaves the device",
    "arrivals and gains are independent over blocks, with one law for all blocks, and of all that was seen and done "
    "before (devices may be correlated)",
    "a device's arrivals and gain are independent of each other",
    "arrivals are binomial, fading is Rayleigh, and a device knows its gain before it decides",
    "no cost is negative, and rates are within f_max",
    "a block takes up whole tasks and cuts the last one or none; no half-run task is kept",
)
"""What its proof needs of the world (docs/bound.md); of the policy nothing but what the world admits."""
ASSUMES_TOO = {"average": "waiting at the server costs something", "discounted": "all queues are empty at first"}
"""And what it needs by objective."""


def served_at_best(server: Server, price: float, discount: float) -> float:
    """The f of psi*: work a block [mean tasks] where (w1 - lambda / gamma) f + w2 E(f) is least."""
    worth = max(price / discount - float(server.queue_weight), 0.0)
    free = np.sqrt(worth / (3.0 * float(service_cost_coef(server))))
    return min(float(free), float(server.slot_capacity) * server.slots)


def as_json(found: Bound, scenario: Scenario, server: Server) -> dict[str, Any]:
    """The bound as JSON types. Work is in mean tasks of the fleet, the price per mean task sent."""
    discount, price = float(found.certificate.discount), float(found.certificate.price)
    devices = float(found.parts.sum())
    document = {
        "schema_version": 1,
        "scenario": scenario.model_dump(mode="json", exclude_none=True),
        "objective": found.objective,
        "value": found.value,
        "price": price,
        "parts": {"devices": devices, "server": found.value - devices, "each_device": found.parts.tolist()},
        "sent_per_block": float(found.inflow.sum()),
        "served_per_block": served_at_best(server, price, discount),
        "slack": found.slack,
        "slack_percent": 100.0 * found.slack / found.value if found.value > abs(found.slack) else None,
        "tail_probability": found.tail_probability,
        "assumes": [*ASSUMES, ASSUMES_TOO[found.objective]],
    }
    return plain(document)


def details_table(document: dict[str, Any], name: str) -> Group:
    """The same for the terminal."""
    kind = "average cost of a block" if document["objective"] == "average" else "discounted cost from empty queues"
    grid = Table(
        title=f"{name}: lower bound on the {kind}, {document['scenario']['devices']} devices",
        title_justify="left",
        box=None,
        pad_edge=False,
        show_header=False,
    )
    for row in _lines(document):
        grid.add_row(*row)
    proof = "; ".join(document["assumes"])
    words = f"Proven for every policy, however central and whatever it remembers, where {proof} (docs/bound.md)."
    return Group(grid, Text(words, style="dim"))


def _lines(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, unit)."""
    parts, percent = document["parts"], document["slack_percent"]
    share = "" if percent is None else f"an exact expectation over the fading would add about {number(percent, 2)} %"
    return [
        ("lower bound", number(document["value"], 6), "no policy costs less"),
        (
            "  devices' part",
            number(parts["devices"], 6),
            "what each would pay at best, buying server work at the price",
        ),
        ("  server's part", number(parts["server"], 6), "what it would pay at best, selling work at the price"),
        ("price", number(document["price"], 4), "cost per mean task sent"),
        ("sent at it", number(document["sent_per_block"], 4), "mean tasks a block"),
        ("served at it", number(document["served_per_block"], 4), "mean tasks a block"),
        ("looseness", number(document["slack"], 2), share),
        ("end of the tables", number(document["tail_probability"], 2), "probability of being there"),
    ]
