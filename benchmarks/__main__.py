"""The command line: measure, keep what was found in docs/data, write docs/benchmarks.md and its figure.

python -m benchmarks                    everything, up to three quarters of an hour, on at most two cores
python -m benchmarks --only memory      one group anew, the rest as it is kept in docs/data/benchmarks-cpu.json
python -m benchmarks --missing          what there was no time for, or failed; the rest as it is kept
python -m benchmarks --page             nothing anew, only the page
python -m benchmarks --quick            tiny sizes; says whether results agree, and nothing of time
python -m benchmarks --device gpu       the same on an accelerator, kept in docs/data/benchmarks-gpu.json; prints its
                                        page and writes none. Needs JAX with CUDA: pip install "jax[cuda12]"
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import page, quick
from benchmarks.plan import Places, Step, steps
from benchmarks.process import ROOT, do

DOCS = ROOT / "docs"
CACHE = ROOT / "results" / "benchmarks-cache"
CUDA = 'pip install "jax[cuda12]"'
NO_GPU = f". JAX needs a GPU and CUDA: {CUDA}"
GROUPS = ("agreement", "peaks", "xla", "service_per_slot", "many", "start", "memory", "blocks", "compile")
Record = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where results do not agree, or where there is nothing to make a page of."""
    options = _parser().parse_args(arguments)
    if options.quick:
        return quick.main()
    kept = kept_file(options.device)
    known = read(kept)
    if options.page:
        if not known:
            return _say(f"{kept} is not there: measure first.")
        _show(known, options.device, False)
        return 0
    places = _places(options.device)
    told = do(places.job("described", {}))
    if "failed" in told:
        return _say(f"Nothing was measured: {told['failed']}{NO_GPU if options.device == 'gpu' else ''}")
    groups, alone = options.only or GROUPS, bool(options.only) and not known
    others = [one for one in known if one["group"] not in groups or (options.missing and whole(one))]
    there = [(one["group"], one["about"]) for one in others]
    chosen = [step for step in steps(places) if step.group in groups and (step.group, step.about) not in there]

    def keep(found: Sequence[Record]) -> None:
        if not alone:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([*others, *found], indent=1) + "\n")

    try:
        found = measure(chosen, options.minutes, told["machine"], keep)
    except KeyboardInterrupt:
        return _say(f"Stopped; what was measured is kept in {kept}. --missing goes on." if not alone else "Stopped.")
    _show([*others, *found], options.device, alone)
    return 0


def kept_file(device: str) -> Path:
    """Where the records of a device are kept."""
    return DOCS / "data" / f"benchmarks-{device}.json"


def read(kept: Path) -> list[Record]:
    """The records that are kept; none: []."""
    return json.loads(kept.read_text()) if kept.exists() else []


def whole(record: Record) -> bool:
    """Whether all of it was measured."""
    return not any("failed" in found for found in record["found"])


def measure(
    chosen: Sequence[Step], minutes: float, machine: str, keep: Callable[[Sequence[Record]], None]
) -> list[Record]:
    """What every step found, with the machine and the day, given to `keep` step by step.

    Steps that would begin after `minutes` are left out and say so.
    """
    end, records = time.monotonic() + 60 * minutes, list[Record]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=sum(step.repeats for step in chosen))
        for step in chosen:
            found, day = list[dict[str, Any]](), date.today().isoformat()
            for _ in range(step.repeats):
                progress.update(task, description=step.words())
                late = time.monotonic() >= end
                found.append({"failed": "not measured: out of time"} if late else step.work())
                progress.advance(task)
            about = {"group": step.group, "about": step.about}
            records.append({**about, "machine": machine, "date": day, "found": found})
            keep(records)
            if not sys.stderr.isatty():
                print(step.words(), found[-1].get("failed", "done"), file=sys.stderr, flush=True)
    return records


def _show(known: Sequence[Record], device: str, alone: bool) -> None:
    """Write the page; print it where it is of an accelerator, or of some groups without the others."""
    accelerated = known if device == "gpu" else read(kept_file("gpu"))
    if device == "cpu" and not alone:
        print(page.write(known, DOCS, accelerated))
    else:
        print(page.text(known, device, accelerated))
    if alone:
        _say(f"{kept_file(device)} is not there, so the other groups are unknown: nothing was kept, no page written.")


def _say(what: str) -> int:
    print(what, file=sys.stderr)
    return 1


def _places(device: str) -> Places:
    CACHE.mkdir(parents=True, exist_ok=True)
    return Places(str(CACHE), device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--missing", action="store_true", help="measure only what is not there yet")
    parser.add_argument("--page", action="store_true", help="write the page from what was measured before")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no times")
    parser.add_argument(
        "--device",
        choices=["cpu", "gpu"],
        default="cpu",
        help=f"gpu needs JAX with CUDA: {CUDA} (default: cpu)",
    )
    parser.add_argument("--minutes", type=float, default=40.0, help="begin nothing after so long (default: 40)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
