"""The command line: try all parts, write docs/reliability.md.

python -m fuzz                          everything, at most half an hour on two cores
python -m fuzz files networks           these parts; writes no page
python -m fuzz --scale 0.01             a hundredth of the cases, for a first look; writes no page without --page
python -m fuzz signals --case 17        one case again; a traceback is shown
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Generator, Sequence
from tempfile import TemporaryDirectory

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fuzz import disks, page
from fuzz.counts import Counts, chosen
from fuzz.parts import PARTS, Part, function, run_part
from fuzz.process import CACHE, FAST, ROOT
from partway.workers import cores

MINUTES = 30.0
PAGE = ROOT / "docs" / "reliability.md"
SHARES = {"scenarios": 5, "runs": 4, "files": 3, "networks": 2, "signals": 10, "kills": 2, "disks": 4}
"""How MINUTES are divided; what a part does not need goes to those after it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where there are faults."""
    options = _parser().parse_args(arguments)
    chosen_parts = [part for part in PARTS if part.name in (options.parts or SHARES)]
    with prepared():
        if options.case is not None:
            (part,) = chosen_parts
            print(function(part.run)(chosen((part.name, options.seed, options.case))))
            return 0
        began, found, missing = time.monotonic(), dict[str, Counts](), dict[str, str]()
        for i, part in enumerate(chosen_parts):
            why = disks.available() if part.name == "disks" else ""
            if why:
                missing[part.name] = why
                continue
            left = options.minutes - (time.monotonic() - began) / 60
            share = SHARES[part.name] / sum(SHARES[other.name] for other in chosen_parts[i:])
            found[part.name] = _run(part, options, left * share)
            for fault in found[part.name].faults:
                print(fault.line(), flush=True)
    minutes = (time.monotonic() - began) / 60
    if options.page or (not options.parts and options.scale == 1):
        PAGE.write_text(page.page(found, options.seed, minutes, missing), "utf-8")
    else:
        print(page.page(found, options.seed, minutes, missing))
    return int(any(counts.faults for counts in found.values()))


@contextlib.contextmanager
def prepared(cache: str = "") -> Generator[None]:
    """The settings that all processes share, in an empty folder, with compiled programs that are thrown away."""
    with TemporaryDirectory(prefix="fuzz-cache-") as made:
        os.environ |= {CACHE: cache or made, "JAX_COMPILATION_CACHE_DIR": f"{cache or made}/jax", **FAST}
        os.environ["PYTHONPATH"] = str(ROOT)
        yield


def _run(part: Part, options: argparse.Namespace, minutes: float) -> Counts:
    cases = max(1, round(part.cases * options.scale))
    columns = TextColumn(f"{part.name:10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=cases)
        return run_part(part, options.seed, cases, options.jobs, minutes, lambda done: bar.update(task, completed=done))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*SHARES, []], metavar="PART", help=", ".join(SHARES))
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other cases (default: 0)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases (default: 1)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"of all parts at most (default: {MINUTES:g})")
    parser.add_argument("--case", type=int, help="run this case of one part alone, in this process")
    parser.add_argument("--page", action="store_true", help="write the page whatever was tried")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes (default: one per core)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
