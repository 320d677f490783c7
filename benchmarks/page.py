"""docs/benchmarks.md and its figure, from what was measured."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks import drawing, goals, tables
from benchmarks.found import Record, failures
from benchmarks.jobs import RIVAL_S, TARGET
from benchmarks.plan import LOOP_DEVICES, MOST_LANES
from benchmarks.worlds import DEAR, overrides

FIGURE = "benchmarks-rates"
PAGE = """# How fast

Made by `make bench`: every number comes from a run it made on
{machine}. A number is the median of its repetitions
with the least and the greatest behind it; a ratio is taken between measurements made one after the other, A B C A B
C, in one process. A device-block is one device for one block, learning included. Times of such a machine vary; ratios
less.

## Goals

{goals}

## Device-blocks a second

![device-blocks a second against devices times runs]({figure})

float32, all cores. The world is `paper` with a server that grows with the fleet, such as `--set {overrides}`.

{rates}

Other precisions and numbers of cores: millions of device-blocks a second, and in brackets the ratio to NumPy batched
in the same process.

{settings}

Not measured: more than {most:,} devices times runs (the state is gigabytes and one measurement takes minutes); the
Python loop above K = {loop} (its time is proportional to device-blocks);
an accelerator (`python -m benchmarks --device gpu` is there and has not been run).{failures}

**What is compared.** *Python loop*: one device after the other, small NumPy vectors inside, in float64, as Python's
numbers are. *NumPy per run*: vectorised over devices, one run after the other. *NumPy batched*: over all devices of
all runs. They work in place, in tiles that stay in the cache, with BLAS for the features, and know that all devices
are of one class, which Partway does not use. They return the four parts of the cost; Partway returns 25 sums a block.
**Draws**: Partway draws with Threefry, every number a function of (seed, block, device), inside the time measured;
the rivals draw as a NumPy user would, SFC64 uniforms compared with b and standard exponentials, inside theirs. Where
results are compared, the rivals are given Partway's draws, made beforehand. A measurement of ours is about
{target:,} device-blocks after one call that compiles; one of a rival at least {seconds:g} s or one block.

## Where the time goes, and what did not help

At K = 20, 32 runs, a block of `priced` is about 260 kernels that XLA starts one after the other. A third of the time is
the minimum over cuts: XLA does not fuse a reduction with what it reduces, so 33 x 5 numbers a device are written to
memory and read again, twice. A tenth each is the gather from the value table, the backup of the table, and the server's
interpolation; each of the 25 sums a block costs as much as it takes to start a kernel. At K = 1e6 the state of the
fleet streams through memory part by part, once to be copied and once to be computed on; the NumPy rival works in place.

Tried on two cores, and dropped (`jax.profiler` and alternating processes, no command here repeats it):

- the minimum over cuts as one chain of comparisons: XLA fuses the chain into whatever reads it and computes it anew for
  every state of the table, twelve times as slow; a barrier does not stop it;
- the same as a loop over cuts: half the time of the minimum, but acting and learning no longer share it;
- shifting the table by the bits of q instead of a gather; summing fifty blocks at a time: no difference beyond noise;
- the server's interpolation ramp by ramp: a fifth faster, 1.5 s longer to compile.

## The same results

The largest relative difference of a block's cost, and of its parts, from Partway's, 100 blocks of 3 runs of 20
devices and a dear server (w2 K^2 = {dear:g} per joule), so that its price decides.
`make bench-quick` demands 1e-9 in float64 and 1e-5 in float32.

{agreement}

## The limit

What one device-block needs, counted by hand from the algorithm, nothing computed twice in a block (a multiply with an
add is one, so is a minimum; log and exp count as sigmoids), and what XLA counts in the program it has made of one
block.

{limit}

The best this machine does of each kind, one process a core, side by side: multiply-adds by matrix product or chain,
sigmoids by XLA or NumPy, words by Threefry, a stream read and written. From that the least time of a device-block:
its arithmetic; and its memory, if no state stays in the cache from one block to the next. The share of the limit is
that of the arithmetic.

{peaks}

## How it grows

{growth}

{compiling}

Nothing overflows in the measured worlds:

{stable}
"""


def write(records: Sequence[Record], docs: Path) -> str:
    """Write the page and the figure under `docs`; returns what to say."""
    drawing.write(records, docs / "img" / f"{FIGURE}.png")
    path = docs / "benchmarks.md"
    path.write_text(text(records))
    return f"{path}\n{goals.table(records)}"


def text(records: Sequence[Record]) -> str:
    """The page."""
    failed = failures(records)
    return PAGE.format(
        machine=machine(),
        goals=goals.table(records),
        figure=f"img/{FIGURE}.png",
        overrides=" ".join(overrides(1000)),
        rates=tables.rates(records),
        settings=tables.settings(records),
        most=MOST_LANES,
        loop=LOOP_DEVICES,
        failures="".join(f"\n- {line}" for line in failed),
        target=TARGET,
        seconds=RIVAL_S,
        dear=DEAR,
        agreement=tables.agreement(records),
        limit=tables.limit(records),
        peaks=tables.peaks(records),
        growth="\n".join(f"- {line}" for line in tables.growth(records)),
        compiling=tables.compiling(records),
        stable=tables.stable(records),
    )


def machine() -> str:
    """The processor and the versions of what computes."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    cpu = f"{len(names)} cores of an {names[0]}" if names else platform.processor() or "an unnamed processor"
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "numpy"))
    return f"{cpu}, Python {platform.python_version()}, {versions}"
