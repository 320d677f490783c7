"""The counts as a page: docs/reliability.md."""

from collections.abc import Mapping
from datetime import date
from platform import machine

from fuzz.counts import FAULTS, Counts
from fuzz.parts import PARTS
from partway.provenance import versions

TITLE = """# Reliability

What was tried, and what went wrong. `make fuzz` writes this page: it damages inputs, sends signals and fills disks, and
counts what must never happen. Every case is made from a seed and its number, so it can be repeated.

- **traceback**: anything but one clear line, warnings included
- **wrong exit code**: not 0 on success, 2 after an error, 128 and the number of the signal after a signal
- **lost result**: something was computed and is neither printed nor saved, or damage is read as if it were intact
- **silent NaN**: NaN, or a number that differs from the saved one, without a message
- **litter**: unfinished or temporary files, semaphores or processes that stay
- **unclear message**: a scheme without a result and without a reason
- **crash or hang**: a process that died, or did not end within its time
"""


def page(found: Mapping[str, Counts], seed: int, minutes: float, missing: Mapping[str, str]) -> str:
    """The page, of the counts of each part; `missing`: why a part was not run."""
    own = versions()
    made = f"Made on {date.today().isoformat()} with seed {seed} in {minutes:.0f} minutes"
    where = f"{', '.join(f'{name} {own[name]}' for name in sorted(own))}, {machine()}"
    return "\n".join([TITLE, f"{made} ({where}).", "", *_table(found, missing), "", *_faults(found), *_outcomes(found)])


def _table(found: Mapping[str, Counts], missing: Mapping[str, str]) -> list[str]:
    lines = [f"| cases | tried | {' | '.join(FAULTS)} |", f"|---|---|{'---|' * len(FAULTS)}"]
    for part in PARTS:
        if part.name in missing:
            lines.append(f"| {part.about} | not run: {missing[part.name]} |{' |' * len(FAULTS)}")
        elif part.name in found:
            counts = found[part.name]
            faults = [sum(fault.kind == kind for fault in counts.faults) for kind in FAULTS]
            lines.append(f"| {part.about} | {counts.tried():,} of {part.cases:,} | {' | '.join(map(str, faults))} |")
    return lines


def _faults(found: Mapping[str, Counts]) -> list[str]:
    faults = [fault for counts in found.values() for fault in counts.faults]
    if not faults:
        return []
    lines = [f"- {fault.line()}".replace("|", "/") for fault in faults[:30]]
    return ["## Faults", "", *lines, *([f"- and {len(faults) - 30} more"] if len(faults) > 30 else []), ""]


def _outcomes(found: Mapping[str, Counts]) -> list[str]:
    lines = ["## How the cases ended", ""]
    for part in PARTS:
        if part.name in found:
            ended = sorted(found[part.name].outcomes.items(), key=lambda item: -item[1])
            lines.append(f"- `{part.name}`: {'; '.join(f'{outcome} {count}' for outcome, count in ended)}")
    return [*lines, ""]
