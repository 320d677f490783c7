"""The command line: measure, store the records in docs/data, write docs/benchmarks.md and its figure.

python -m benchmarks                    everything, up to three quarters of an hour, on at most two cores
python -m benchmarks --only memory      one group again; the rest stays as in docs/data/benchmarks-cpu.json
python -m benchmarks --only main --before PATH
                                        the main job, compared with an older checkout in alternating processes
python -m benchmarks --missing          what failed, or was not reached in time; the rest stays as it is
python -m benchmarks --page             measures nothing, only writes the page
python -m benchmarks --quick            tiny sizes: whether results agree; no times
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
from partway.provenance import package_hash

DOCS = ROOT / "docs"
CACHE = ROOT / "results" / "benchmarks-cache"
CUDA = 'pip install "jax[cuda12]"'
NO_GPU = f". JAX needs a GPU and CUDA: {CUDA}"
GROUPS = ("main", "agreement", "peaks", "xla", "rates", "many", "environments", "start", "memory", "blocks", "compile")
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
    if options.before and not (options.before / "partway" / "__main__.py").is_file():
        return _say(f"--before {options.before}: no checkout of Partway")
    places = _places(options.device, options.before)
    described = do(places.job("described", {}))
    if "failed" in described:
        return _say(f"Nothing was measured: {described['failed']}{NO_GPU if options.device == 'gpu' else ''}")
    groups, alone = options.only or GROUPS, bool(options.only) and not known
    others = [one for one in known if one["group"] not in groups or (options.missing and whole(one))]
    there = [(one["group"], one["about"]) for one in others]
    chosen = [step for step in steps(places) if step.group in groups and (step.group, step.about) not in there]

    def keep(found: Sequence[Record]) -> None:
        if not alone:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([*others, *found], indent=1) + "\n")

    try:
        found = measure(chosen, options.minutes, described["machine"], keep)
    except KeyboardInterrupt:
        return _say(f"Stopped; what was measured is kept in {kept}. --missing continues." if not alone else "Stopped.")
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
    """What every step found, with the machine, the day and the code, given to `keep` step by step.

    Steps that would begin after `minutes` are left out and say so.
    """
    end, records, code = time.monotonic() + 60 * minutes, list[Record](), package_hash()
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
            records.append({**about, "machine": machine, "date": day, "code": code, "found": found})
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


def _places(device: str, before: Path | None) -> Places:
    CACHE.mkdir(parents=True, exist_ok=True)
    return Places(str(CACHE), device, before=before.resolve() if before else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--missing", action="store_true", help="measure only what is missing")
    parser.add_argument("--page", action="store_true", help="write the page from the records")
    parser.add_argument("--before", type=Path, metavar="PATH", help="an older checkout to compare the main job with")
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
