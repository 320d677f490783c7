"""docs/benchmarks.md and its figure, from what was measured; of an accelerator the page alone."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import drawing, goals, tables
from benchmarks.found import Record, failures, origins
from benchmarks.jobs import FEWER, LONG_S, MEASURED_S, REPEATS
from benchmarks.plan import MANY, MOST_LANES, PEAK_REPEATS
from benchmarks.rivals import LOOP_DEVICES
from benchmarks.worlds import DEAR, overrides

FIGURE = "benchmarks-rates"
PAGE = """# How fast

Made by `{command}`. {origin}

A number is the median of its repetitions with the least and the greatest behind it; a ratio is taken between
measurements made one after the other, A B C A B C, in one process. A device-block is one device for one block,
learning included. Times of such a machine vary; ratios less. Peak memory is that of a process that compiles.{by_hand}

## Goals

{summary}

{goals}

{ceiling}Of the {runs} runs, "NumPy per run" and "plain loop" are extrapolated: one run is measured for at least
{seconds:g} s, in a process of its own after ours, and multiplied to {runs} runs of {blocks} blocks, import not
included. The plain loop computes in float64, Partway in float32. What the share of the limit is, and where the share
of the arithmetic alone is the one to read, stands under [the limit](#the-limit). `partway run` is timed as its users
have it, without Dask, which xarray imports where it is installed, as it is for development.

## Device-blocks a second

{figure}float32, {where}. The world is `paper` with a server that grows with the fleet, such as `--set {overrides}`.

{rates}

"NumPy per run" and "Python loop" play one run after the other. At several runs they are extrapolated: one run is
measured, for at least {seconds:g} s and at least one block, and its rate stands for all of them. The Python loop
computes in float64.

{others}: millions of device-blocks a second, and in brackets the ratio to NumPy batched in the same process.

{settings}

{left_out}

**What is compared.** *Python loop*: one device after the other, small NumPy vectors inside, in float64, as Python's
numbers are. *NumPy per run*: vectorised over devices, one run after the other. *NumPy batched*: over all devices of
all runs. They work in place, in tiles that stay in the cache, with BLAS for the features, and know that all devices
are of one class. They return the four parts of the cost; Partway returns 25 sums a block.
**Draws**: Partway draws with Threefry, every number a function of (seed, block, device), inside the time measured;
the rivals draw as a NumPy user would, SFC64 uniforms compared with b and standard exponentials, inside theirs. Where
results are compared, the rivals are given Partway's draws, made beforehand. A measurement takes about {seconds:g} s or
more: of ours 20 to 500 blocks, or several times that, compiled before; of a rival one block or several. There are
{times} of each, {fewer} where these take more than {long:g} s together.
**Cores**: Partway's seeds, or a large fleet's devices, are spread over all cores; NumPy uses more than one only inside
BLAS, which the features of `parametric-printed` need and `priced` does not. Ratios of one core are in the table above.
{observed}
## The same results

The largest relative difference of a block's cost, and of its parts, from Partway's, with a dear server
(w2 K^2 = {dear:g} per joule), so that its price decides. A fleet of more than 1024 is played in parts, of `parametric-printed`
some blocks ahead of the server. The Python loop is left out there, for it takes long, and in float32, for it
computes in float64.
`make bench-quick` demands 1e-9 in float64 and 1e-5 in float32, on the CPU.

{agreement}

## The limit

What one device-block needs, counted by hand from the algorithm, nothing computed twice in a block (a multiply with an
add is one, so is a minimum; log and exp count as sigmoids), and what XLA counts in the program it has made of one
block.

{limit}

The best this machine does of each kind, the greatest of {repeats} measurements, {peaks_of}, memory by
a stream read and written in place. From that the least time of a device-block: the larger of its arithmetic and of
its memory, counted as if no state stayed in the cache from one block to the next. The share of the limit is the share
of the larger. Where the state of all devices of all runs does stay in a cache, or moves once in several blocks as that
of `parametric-printed` in a large fleet, those bytes need not move: there the share of the arithmetic alone is the one to read.
There is no share where rates and peaks are of different machines.

{peaks}

## How it grows

{growth}

{compiling}

Nothing overflows in the measured worlds:

{stable}
"""
OBSERVED = "Where the time goes, and what did not help"
OBSERVATIONS = f"""
## {OBSERVED}

Written by hand, of two shared cores, on several days and machines, an Intel Xeon where no other is named; no command
here repeats what this section says.

The machine decides more than anything else. The goals on two cores of another AMD EPYC, with 1 MiB of cache each, by
the code of 2026-11-27 (of memory the median of three processes, of which one compiled):

| goal | `parametric-printed` | `priced` |
| --- | --- | --- |
| K = 1e6 against NumPy batched | 1.47 x | 1.83 x |
| 128 runs of K = 20, 5000 blocks | 2.94 s, 25.6 x NumPy per run, 21.8 x plain loop | 3.43 s |
| share of the arithmetic at best | 43.3 % | 9.37 % |
| peak memory at K = 1e6 | 1.10 GB | 0.894 GB |
| `partway run`, warm and cold | 1.60 s, 4.16 s | 1.57 s, 3.71 s |

A block of `priced`, at K = 20 and 32 runs, is about 260 kernels, which XLA starts one after the other. A third of the
time is the minimum over cuts: XLA does not fuse a reduction with what it reduces, so 33 x 5 numbers a device are
written to memory and read again, twice. A tenth each is the gather from the value table, the backup of the table, and
the server's interpolation; each of the 25 sums a block costs as much as it takes to start a kernel.

So small are the kernels that one compiled call uses hardly more than one core: 20 devices x 32 runs took 426 ns a
device-block with two cores and one call, 496 ns with one core. So the seeds of a run are cut into shares, and there
is a thread for every core that makes the calls for one share after the other; all shares have equally many seeds, so
that a prime number of them has one thread. How many seeds share a call decides whether what is computed stays in the
cache: `parametric-printed` at 20 devices x 128 runs took 200 ns with 64 seeds in a call and 295 with 32, too few to fill a
kernel; at 1000 devices x 16 runs, on one core, 230 with one and 640 with all 16, too many for the cache. The rule is
about 1280 devices in a call, seeds together, and one seed where a fleet is larger.

`parametric-printed` and `parametric` were two to three times as slow until three things were found, each in a profile, and the same
formulas written otherwise. Alternating processes of two trees, ns a device-block, before and after: K = 1000 with one
seed 470 and 210, 20 devices x 128 runs 720 and 320, `parametric` at 20 x 32 930 and 370.

- The derivative by the power went back through all inputs of the features, as a transposed matrix product. Only one
  input is a power: a feature is now a function of p and q, and what the rest adds is computed once.
- The error delta was fused into the update of every one of the 30 parameters, and so computed thirty times, with the
  admission of the action and its energies. XLA does not do that with what ends in a division.
- XLA hands sums to a library that takes 10 to 30 times as long along the middle axis of (1, 30, K) as along the first
  of (30, K): a single seed has no axis of its own now. Without that library (`--xla_cpu_experimental_ynn_fusion_type=`)
  `parametric-printed` is about as fast, `priced` at 20 x 32 a tenth slower.

A large fleet of fewer seeds than cores is cut up, if its number can be divided so that each core has 1024 devices or
more, by `shard_map` among JAX's host devices, one a core (the command asks for them; from Python:
`JAX_NUM_CPU_DEVICES`). All else in a block, draws and sums, XLA cuts up by itself, with one exchange a block. A core
plays its share 1024 devices at a time, so that what is computed of them stays in the cache. What is left is that all
that devices remember streams through memory in every block. Two things help; alternating processes of the trees before
and after, one run, ns a device-block, two cores of an AMD EPYC with 1 MiB of cache each:

| scheme | K | cores | before | after |
| --- | --- | --- | --- | --- |
| `parametric-printed` | 1e6 | 2 | 120 | 82 |
| `parametric-printed` | 1e5 | 2 | 107 | 71 |
| `parametric-printed` | 1e5 | 1 | 168 | 111 |
| `priced` | 1e6 | 2 | 199 | 139 |
| `priced` | 1e5 | 2 | 184 | 133 |
| `priced` | 1e5 | 1 | 375 | 229 |
| `parametric-printed` | 1e3 | 2 | 65 | 67 |
| `priced` | 1e3 | 2 | 141 | 117 |

- Devices that hear nothing need not wait for the server. 1024 of them play a tile of blocks, then the next 1024, then
  the server replays the tile. It needs what they did, six numbers a device-block instead of the 34 that they
  remember.
  A tile has as many blocks as MOST_DRAWN allows and divide those of a call: 4 at K = 1e6 (8 or 16 were no faster), up
  to 41 at 1e5, 25 for 500 blocks. A fleet of no more than 1024 is in the cache anyway, and slower with tiles.
- What is the same for all devices is a single column in memory, (33, 1) for the cuts of a task, which were 300 bytes a
  device and block. A fleet of several classes does not have that.

A device-block of a million devices is then a fifth dearer than one of a thousand. Most of the rest is arithmetic, and
of that 60 sigmoids.

Of the memory of `parametric-printed` at K = 1e6, about 1 GB, a quarter is there before a run begins, 0.3 GB are the state, 0.3
what a call needs: what devices remember before and after, and of a tile the draws and what devices did. The rest is
the compiler's, and what was used and not given back to the system. The server's random weights were 0.5 GB while they
were drawn at once; they are drawn feature by feature. The state of a run in one share is donated to each call, which
writes what it leaves over it.

Tried on two cores with `jax.profiler` and alternating processes, and dropped:

- parts of a fleet written in place, not into a copy of what all devices remember: XLA then cuts a part out again in
  every loop that reads it, `priced` takes three times as long; with tiles it is no faster;
- parts of 512, 2048 and 4096 devices: within a tenth, but for `priced`, twice as slow with 4096;
- the fleets of all seeds as one long fleet (a rule of `custom_vmap`): at 20 devices x 64 runs `parametric-printed` two to three
  times and `priced` four times as slow; each seed's features are repeated for each device, the state is transposed in
  every block;
- the sum over 30 features as a product, by halves or term by term: none faster than XLA's sum;
- the minimum over cuts as one chain of comparisons: XLA fuses the chain into whatever reads it and computes it anew for
  every state of the table, twelve times as slow; a barrier does not stop it;
- the same as a loop over cuts: half the time of the minimum, but acting and learning no longer share it;
- `unroll` of two or of five blocks: `parametric-printed` at 20 devices x 64 runs the same, at K = 1000 up to twice, `priced` two
  to three times as slow, compiled in up to six times as long;
- shifting the table by the bits of q instead of a gather; summing fifty blocks at a time: no difference beyond noise;
- the server's interpolation ramp by ramp: a fifth faster, 1.5 s longer to compile.
"""
WORDS = {
    "cpu": {
        "command": "make bench",
        "by_hand": f'\nThe section "{OBSERVED}" is written by hand: it holds\n'
        "observations, which that command does not make.",
        "figure": f"![device-blocks a second against devices times runs](img/{FIGURE}.png)\n\n"
        "In the figure, NumPy per run and the Python loop stand where the one run stands that is measured of them.\n\n",
        "where": "all cores",
        "others": "Other precisions and numbers of cores",
        "observed": OBSERVATIONS,
        "peaks_of": "one process a core, side by side: multiply-adds by\n"
        "matrix product or chain, sigmoids by XLA or NumPy, words by Threefry",
    },
    "gpu": {
        "command": ".venv/bin/python -m benchmarks --device gpu",
        "by_hand": "",
        "figure": "",
        "where": "on the accelerator; the rivals run on all cores of its host",
        "others": "Other precisions",
        "observed": "",
        "peaks_of": "on the accelerator: multiply-adds by\nmatrix product or chain, sigmoids by XLA, words by Threefry",
    },
}
"""What the pages of the two devices say differently."""


def write(records: Sequence[Record], docs: Path, accelerated: Sequence[Record] = ()) -> str:
    """Write the page and the figure under `docs`; returns what to say. `accelerated`: records of an accelerator."""
    drawing.write(records, docs / "img" / f"{FIGURE}.png")
    path = docs / "benchmarks.md"
    path.write_text(text(records, "cpu", accelerated))
    return f"{path}\n{goals.table(records, 'cpu', accelerated)}"


def text(records: Sequence[Record], device: str = "cpu", accelerated: Sequence[Record] = ()) -> str:
    """The page of a device. `accelerated`: records of an accelerator, for the goal that is set for one."""
    return PAGE.format(
        **WORDS[device],
        origin=origin(records),
        summary=goals.summary(records, device, accelerated),
        goals=goals.table(records, device, accelerated),
        ceiling=goals.ceiling(records) if device == "cpu" else "",
        overrides=" ".join(overrides(1000)),
        service_per_slot=tables.service_per_slot(records),
        settings=tables.settings(records),
        left_out=left_out(records, device, accelerated),
        runs=MANY["runs"],
        blocks=MANY["blocks"],
        seconds=MEASURED_S,
        times=REPEATS,
        fewer=FEWER,
        long=LONG_S,
        dear=DEAR,
        agreement=tables.agreement(records),
        limit=tables.limit(records),
        repeats=PEAK_REPEATS,
        peaks=tables.peaks(records),
        growth="\n".join(f"- {line}" for line in tables.growth(records)),
        compiling=tables.compiling(records),
        stable=tables.stable(records),
    )


def origin(records: Sequence[Record]) -> str:
    """On which machine the records were measured, and when; a line each where that differs."""
    known = origins(records)
    if not known:
        return "Nothing has been measured."
    if len(known) == 1:
        ((date, machine),) = known
        return f"Every number was measured on {date}, on {machine}."
    lines = [f"- {', '.join(groups)}: {date}, {machine}" for (date, machine), groups in known.items()]
    return "\n".join(["Every number was measured, by group (`--only`), on\n", *lines])


def left_out(records: Sequence[Record], device: str, accelerated: Sequence[Record]) -> str:
    """What was not measured, and why."""
    parts = [f"the Python loop above K = {LOOP_DEVICES} (its time is proportional to device-blocks)"]
    if device == "cpu":
        why = "100,000 devices times 128 runs took more than 18 GB when they were tried"
        parts.insert(0, f"more than {MOST_LANES:,} devices times runs ({why})")
    if device == "cpu" and not accelerated:
        parts.append("an accelerator (`python -m benchmarks --device gpu` is there and has not been run)")
    return "\n- ".join([f"Not measured: {'; '.join(parts)}.", *failures(records)])
