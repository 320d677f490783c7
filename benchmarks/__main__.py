"""The command line: measure, keep what was found in results/benchmarks.json, write docs/benchmarks.md and its figure.

python -m benchmarks                    everything, up to three quarters of an hour
python -m benchmarks --only memory      one group anew, the rest as it was measured before
python -m benchmarks --page             nothing anew, only the page
python -m benchmarks --quick            tiny sizes of everything; says whether results agree, and nothing of time
python -m benchmarks --device gpu       the same on an accelerator; says it, writes no page
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import page, quick
from benchmarks.plan import Places, Step, steps
from benchmarks.process import ROOT

RESULTS = ROOT / "results"
GROUPS = ("agreement", "peaks", "xla", "rates", "many", "start", "memory", "blocks", "compile")
Record = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where results do not agree."""
    options = _parser().parse_args(arguments)
    if options.quick:
        return quick.main()
    kept = RESULTS / f"benchmarks-{options.device}.json"
    known = json.loads(kept.read_text()) if kept.exists() and (options.only or options.page) else []
    if not options.page:
        chosen = [step for step in steps(_places(options.device)) if not options.only or step.group in options.only]
        known = [
            *(one for one in known if one["group"] not in (options.only or GROUPS)),
            *measure(chosen, options.minutes),
        ]
        kept.write_text(json.dumps(known, indent=1))
    print(page.text(known) if options.device != "cpu" else page.write(known, ROOT / "docs"))
    return 0


def measure(chosen: Sequence[Step], minutes: float) -> list[Record]:
    """What every step found; steps that would begin after `minutes` are left out and say so."""
    end, records = time.monotonic() + 60 * minutes, list[Record]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=sum(step.repeats for step in chosen))
        for step in chosen:
            found = list[dict[str, Any]]()
            for _ in range(step.repeats):
                progress.update(task, description=step.words())
                late = time.monotonic() >= end
                found.append({"failed": "not measured: out of time"} if late else step.work())
                progress.advance(task)
            records.append({"group": step.group, "about": step.about, "found": found})
            if not sys.stderr.isatty():
                print(step.words(), found[-1].get("failed", "done"), file=sys.stderr, flush=True)
    return records


def _places(device: str) -> Places:
    cache = RESULTS / "benchmarks-cache"
    cache.mkdir(parents=True, exist_ok=True)
    return Places(str(cache), device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--page", action="store_true", help="write the page from what was measured before")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no times")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu", help="(default: cpu)")
    parser.add_argument("--minutes", type=float, default=40.0, help="begin nothing after so long (default: 40)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
