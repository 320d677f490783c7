"""In a minute or two, whether all implementations agree: 4 devices, 2 runs, 40 blocks. No time is asserted.

Compared: every rival with Partway, both schemes; in float32 without the plain loop, which computes in float64 only. And
`parametric-printed` with 1100 devices, which run several blocks ahead of the server, 8 blocks in float32.
Run once, to see that they work: the rates of all implementations, the times by blocks and many runs at once of both
schemes; XLA's count and memory of `parametric-printed`; the machine's best rates; the main job with 4 devices,
3 schemes and 20 blocks: its parts, a command as a whole, and the device-blocks.
Left out: the rivals alone beside many runs, compiling, the start of `partway run`, the plan, the page and its figure.
"""

from typing import Any

from benchmarks.agree import ALLOWED
from benchmarks.jobs import JOBS
from benchmarks.main_job import COMMANDS, command_times, part_times, trees
from benchmarks.process import Job, cores, do
from benchmarks.worlds import MEASURED

SIZE = {"devices": 4, "runs": 2, "blocks": 40}
LARGE = {"devices": 1100, "runs": 2, "blocks": 8}
TINY = ("--schemes", "local", "random", "priced", "--set", "devices=4", "--blocks", "20", "--seeds", "2")
"""The main job, made small."""


def main() -> int:
    """1 where two implementations differ by more than is allowed, or a job fails."""
    every = [(scheme, precision, SIZE) for scheme in MEASURED for precision in ALLOWED]
    wrong = [line for how in [*every, ("parametric-printed", "float32", LARGE)] for line in disagreements(*how)]
    for scheme in MEASURED:
        JOBS["rates"](scheme, 4, [2], "float32", ["loop", "per_run", "batched"], repeats=1, blocks=40)
        JOBS["by_blocks"](scheme, 4, 2, [40], repeats=1)
        JOBS["many_runs"](scheme, **SIZE)
    JOBS["counted_by_xla"]("parametric-printed", 4)
    JOBS["best_rates"]("float32", 0.02)
    memory = do(Job("memory", {"scheme": "parametric-printed", "devices": 4, "blocks": 4}, cores()[:1]))
    wrong += [line for found in (memory, *main_job()) for line in failure(found)]
    print("\n".join(wrong) if wrong else "All implementations agree.")
    return int(bool(wrong))


def main_job() -> list[dict[str, Any]]:
    """What every measurement of the main job finds when it is small."""
    return [
        part_times((*COMMANDS["compare"], *TINY)),
        command_times(COMMANDS["schemes"], trees(None)),
        JOBS["device_block"](devices=4, runs=2, blocks=20, repeats=1),
    ]


def failure(found: dict[str, Any]) -> list[str]:
    """A line for a job in a process of its own that has failed."""
    return [f"a process of its own: {found['failed']}"] if "failed" in found else []


def disagreements(scheme: str, precision: str, size: dict[str, int]) -> list[str]:
    """A line for every rival that is farther from ours than `ALLOWED`."""
    found = JOBS["agreement"](scheme, precision=precision, **size)
    return [
        f"{scheme}, K = {size['devices']}, {precision}: '{kind}' differs by {far:.2g}, allowed {ALLOWED[precision]:g}"
        for kind, far in found.items()
        if not far <= ALLOWED[precision]
    ]
