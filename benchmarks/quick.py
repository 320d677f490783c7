"""In seconds, whether all implementations agree: 4 devices, 2 runs, 40 blocks. No time is asserted.

Compared: every rival with Partway, both schemes; in float32 without the plain loop, which computes in float64 only. And
`parametric-printed` at 1100 devices, which play ahead of the server in two parts, 8 blocks in float32.
Run once, for whether they run: of both schemes the rates of all implementations in float32, the times by blocks and
many runs at once; XLA's count of `parametric-printed`; the machine's best rates in float32; memory of `parametric-printed` in a process of
its own. Left out: the rivals alone beside many runs, compiling, the start of `partway run`, the plan, the page and
its figure.
"""

from benchmarks.agree import ALLOWED
from benchmarks.jobs import JOBS
from benchmarks.process import Job, cores, do
from benchmarks.worlds import MEASURED

SIZE = {"devices": 4, "runs": 2, "blocks": 40}
LARGE = {"devices": 1100, "runs": 2, "blocks": 8}


def main() -> int:
    """1 where two implementations differ by more than is allowed, or a job fails."""
    every = [(scheme, precision, SIZE) for scheme in MEASURED for precision in ALLOWED]
    wrong = [line for how in [*every, ("parametric-printed", "float32", LARGE)] for line in disagreements(*how)]
    for scheme in MEASURED:
        JOBS["service_per_slot"](scheme, 4, [2], "float32", ["loop", "per_run", "batched"], repeats=1, blocks=40)
        JOBS["by_blocks"](scheme, 4, 2, [40], repeats=1)
        JOBS["many_runs"](scheme, **SIZE)
    JOBS["counted_by_xla"]("parametric-printed", 4)
    JOBS["best_rates"]("float32", 0.02)
    found = do(Job("memory", {"scheme": "parametric-printed", "devices": 4, "blocks": 4}, cores()[:1]))
    wrong += [f"a process of its own: {found['failed']}"] if "failed" in found else []
    print("\n".join(wrong) if wrong else "All implementations agree.")
    return int(bool(wrong))


def disagreements(scheme: str, precision: str, size: dict[str, int]) -> list[str]:
    """A line for every rival that is farther from ours than `ALLOWED`."""
    found = JOBS["agreement"](scheme, precision=precision, **size)
    return [
        f"{scheme}, K = {size['devices']}, {precision}: '{kind}' differs by {far:.2g}, allowed {ALLOWED[precision]:g}"
        for kind, far in found.items()
        if not far <= ALLOWED[precision]
    ]
