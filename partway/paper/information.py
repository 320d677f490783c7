"""Claims D1 and D2: what each party of a scheme may know.

Nothing is run. A controller's view holds what its class declares and nothing else, and tests/test_contract.py changes
everything that is not declared and finds the same actions: so the declaration decides.
"""

from partway.paper.claims import CANDIDATES, READINGS
from partway.paper.figure_runs import supports
from partway.paper.statistics import FAILS, HOLDS, NOT_APPLICABLE
from partway.paper.verdicts import Verdict
from partway.schemes import find_scheme

DECLARED = "declared"
"""Unit of a verdict that follows from a declaration."""


def judge() -> list[Verdict]:
    """Verdicts on D1 and D2 for every candidate and reading."""
    return [one for reading in READINGS for name in CANDIDATES for one in _verdicts(name, reading)]


def decentralised(scheme: str) -> tuple[bool, str]:
    """Whether devices decide from their own queue and channel alone, and what they use, in a sentence."""
    used = find_scheme(scheme).device.uses_broadcast
    words = f"Devices use {' and '.join(used)} of the server's broadcast." if used else "Devices receive nothing."
    return not used, words


def without_statistics(scheme: str) -> tuple[bool, str]:
    """Whether the server needs no statistics before a run, and what it sees, in a sentence."""
    row = find_scheme(scheme)
    sees = "its own queue and the devices' queues" if row.server.sees_queues else "its own queue and what arrives there"
    return row.preparation is None, f"The server sees {sees}."


def _verdicts(scheme: str, reading: str) -> list[Verdict]:
    rules = {"D1": decentralised, "D2": without_statistics}
    if not supports(scheme, reading):
        return [Verdict(claim, scheme, reading, "", NOT_APPLICABLE) for claim in rules]
    found = {claim: rule(scheme) for claim, rule in rules.items()}
    return [
        Verdict(claim, scheme, reading, "", HOLDS if holds else FAILS, unit=DECLARED, why=why)
        for claim, (holds, why) in found.items()
    ]
