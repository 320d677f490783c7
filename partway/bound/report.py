"""The lower bound as a table and as JSON: its value, its parts, how tight it is, and what its proof assumes."""

from typing import Any

from rich.console import Group
from rich.text import Text

from partway.bound.lower_bound import Bound, best_service
from partway.formatting import number, plain
from partway.scenario.schema import Scenario
from partway.system.types import Server
from partway.text_tables import details_grid

SCHEMA_VERSION = 2
"""Schema version of the JSON; increment when a key is renamed."""
ASSUMES = (
    "the queue is conserving: what is sent leaves the device",
    "arrivals and gains are identically distributed over blocks and independent of everything observed and done before "
    "(devices may be correlated)",
    "a device's arrivals and gain are independent of each other",
    "arrivals and fading have the laws that the scenario names, and a device knows its gain before it decides",
    "no cost is negative, and rates are within f_max",
    "a block starts whole tasks and cuts the last one or none; no partly computed task is kept",
)
"""What the proof assumes of the world (docs/bound.md); the policy may be any."""
ASSUMES_BY_OBJECTIVE = {
    "average": "waiting at the server costs something",
    "discounted": "all queues are empty at first",
}
"""What it assumes in addition."""


def assumptions(objective: str) -> list[str]:
    """What the proof of the bound on this objective assumes."""
    return [*ASSUMES, ASSUMES_BY_OBJECTIVE[objective]]


def as_json(bound: Bound, scenario: Scenario, server: Server) -> dict[str, Any]:
    """The bound in JSON types. Work is in mean tasks of the fleet, the price is per mean task sent."""
    discount, price = float(bound.certificate.discount), float(bound.certificate.price)
    devices = float(bound.parts.sum())
    document = {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario.model_dump(mode="json", exclude_none=True),
        "objective": bound.objective,
        "value": bound.value,
        "price": price,
        "parts": {"devices": devices, "server": bound.value - devices, "each_device": bound.parts.tolist()},
        "sent_per_block": float(bound.inflow.sum()),
        "served_per_block": best_service(server, discount, price)[1],
        "slack": bound.slack,
        "slack_percent": 100.0 * bound.slack / bound.value if bound.value > abs(bound.slack) else None,
        "tail_probability": bound.tail_probability,
        "assumes": assumptions(bound.objective),
    }
    return plain(document)


def details_table(document: dict[str, Any], name: str) -> Group:
    """The same as a table for the terminal."""
    kind = "average cost of a block" if document["objective"] == "average" else "discounted cost from empty queues"
    grid = details_grid(f"{name}: lower bound on the {kind}, {document['scenario']['devices']} devices")
    for row in _lines(document):
        grid.add_row(*row)
    assumptions = "; ".join(document["assumes"])
    note = f"Proven for every policy, central or not and with any memory, if {assumptions} (docs/bound.md)."
    return Group(grid, Text(note, style="dim"))


def _lines(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, unit)."""
    parts, percent = document["parts"], document["slack_percent"]
    slack = "" if percent is None else f"an exact expectation over the fading would add about {number(percent, 2)} %"
    return [
        ("lower bound", number(document["value"], 6), "no policy costs less"),
        ("  devices' part", number(parts["devices"], 6), "their least cost if they pay the price for what they send"),
        ("  server's part", number(parts["server"], 6), "its least cost if it is paid the price for what it serves"),
        ("price", number(document["price"], 4), "cost per mean task sent"),
        ("sent at this price", number(document["sent_per_block"], 4), "mean tasks per block"),
        ("served at this price", number(document["served_per_block"], 4), "mean tasks per block"),
        ("slack", number(document["slack"], 2), slack),
        ("end of the tables", number(document["tail_probability"], 2), "probability of the last state"),
    ]
