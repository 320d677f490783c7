"""docs/benchmarks.md and its figure, from the records; of an accelerator the page alone."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import drawing, goals, main_table, tables
from benchmarks.jobs import FEWER, LONG_S, MEASURED_S, REPEATS
from benchmarks.plan import EPISODES, MANY, MOST_LANES, PEAK_REPEATS
from benchmarks.records import Record, failures, origins
from benchmarks.rivals import LOOP_DEVICES
from benchmarks.worlds import EXPENSIVE, overrides

FIGURE = "benchmarks-rates"
CODE = "(`partway.provenance.package_hash`)"
"""What names the code."""
PAGE = """# Speed and memory

Made by `{command}`. {origin}

A number is the median of its repetitions, with the smallest and the largest in parentheses. A ratio compares
measurements made one after the other, A B C A B C, in one process. A device-block is one device for one block, learning
included. Times on such a machine vary; ratios vary less. Peak memory is that of a process that compiles.{by_hand}

{main}## Goals

{summary}

{goals}

{ceiling}"NumPy per run" and "plain loop" are extrapolated to {runs} runs: one run is measured for at least
{seconds:g} s, in a process of its own after ours, and multiplied to {runs} runs of {blocks} blocks, import not
included. The plain loop computes in float64, Partway in float32. [The limit](#the-limit) defines the
share of the limit, and says where the share of the arithmetic alone is the one to read. `partway run` is timed as users
have it, without Dask: xarray imports Dask if it is installed, as it is for development.

## Device-blocks a second

{figure}float32, {where}. The world is `paper` with a server that grows with the fleet, such as `--set {overrides}`.

{rates}

"NumPy per run" and "Python loop" compute one run after the other. With several runs they are extrapolated: one run is
measured, for at least {seconds:g} s and at least one block, and its rate stands for all of them. The Python loop
computes in float64.

{others}: millions of device-blocks a second, and in parentheses the ratio to NumPy batched in the same process.

{settings}

{left_out}

**What is compared.** *Python loop*: one device after the other, with small NumPy vectors, in float64, as Python's
numbers are. *NumPy per run*: vectorised over devices, one run after the other. *NumPy batched*: over all devices of
all runs. They work in place, in tiles that stay in the cache, with BLAS for the features, and rely on all devices being
of one class. They return the four components of the cost; Partway computes all metrics of a block, without the
certificate.
**Random numbers**: Partway draws with Threefry, every number a function of (seed, block, device), inside the time
measured. The NumPy programs draw as a NumPy user would, SFC64 uniforms compared with b and standard exponentials, also
inside the time measured. When results are compared, they get Partway's numbers, drawn beforehand.
**Length**: a measurement takes about {seconds:g} s or more: of Partway 20 to 500 blocks, or several times that,
compiled before; of a NumPy program one block or several. There are
{times} of each, {fewer} if these take more than {long:g} s together.
**Cores**: Partway spreads its seeds, or the devices of a large fleet, over the cores. NumPy uses more than one core
only inside BLAS, which the features of `parametric-printed` need and `priced` does not. The table above has ratios on
one core.
{observed}

{environments}## The same results

The largest relative difference from Partway of a block's cost and of its components. The server is expensive
(w2 K^2 = {expensive:g} per joule), so that its price matters. The devices of `parametric-printed` in a fleet of more
than 1024 run several blocks ahead of the server. The Python loop is left out there, because it takes long, and in
float32, because it computes in float64.
`make bench-quick` demands 1e-9 in float64 and 1e-5 in float32, on the CPU.

{agreement}

## The limit

What one device-block needs, counted by hand from the algorithm, with nothing computed twice in a block (a multiply with
an add is one, so is a minimum; log and exp count as sigmoids), and what XLA counts in its program of one block,
learning included, metrics not.

{limit}

The best this machine does of each kind, the largest of {repeats} measurements, {peaks_of}, memory by
a stream read and written in place. From that follows the shortest time of a device-block: the larger of its arithmetic
and of its memory traffic, counted as if no state stayed in the cache from one block to the next. The share of the limit
is the share of the larger. Where the state of all devices and runs does stay in a cache, or is read once for several
blocks, as with `parametric-printed` in a large fleet, those bytes need not move, and the share of the arithmetic alone
is the one to read. There is no share if rates and peaks are of different machines.

{peaks}

## How it grows

{growth}

{compiling}

No queue overflows in the measured worlds:

{stable}
"""
ENVIRONMENTS = """## Environments

[Environments](environments.md) for reinforcement learning: {episodes} episodes of `paper` with {devices} devices at
once, through Gymnasium's vector interface, random numbers, observations and infos included, on two cores. In NumPy the
same environment as a user would write it, without infos: arrays over all episodes, and one environment per episode in
Gymnasium's `SyncVectorEnv`. A device-step is one device for one block. In `partway/Device-v0` the others play `priced`.

{table}

"""
OBSERVED = "Where the time goes, and what did not help"
OBSERVATIONS = f"""
## {OBSERVED}

Written by hand, from two shared cores, on several days and machines, an Intel Xeon unless another is named; no command
here repeats what this section says. *Before* is the version of the first column in [the main job](#the-main-job).

### Inside the main job

The table above says where the time goes, part by part. Cold, `compare` takes about 150 s of CPU time, 100 s of them in
LLVM for the step programs of 21 schemes. Options of XLA that halve this change last digits of the results and make
`parametric` take twice as long; only programs that run once are compiled with them. Warm, it takes about 33 s of CPU
time: 9.4 s for the steps, 5.3 s to load programs, 5.2 s for latency, 2.3 s to start.

What made it faster, besides a program of their own for the metrics: Matplotlib is imported in a thread beside the
computation, and what is printed and written shares one summary of the dataset. Latency is computed only for the tasks
that arrive after the warm-up, in half of the CPU time (97 ms instead of 190 ms a scheme, the same bits). The bound's
program, which calls LAPACK, is kept like the others: the bound took 0.6 s of CPU time instead of 1.2 to 1.6 s. Two
things that every start did are cheaper: the pattern of a scenario's texts, and superscripts on logarithmic axes, which
were parsed as formulas.

What is left: in the middle of a warm `compare`, about three fifths of its time, both cores are busy (1.85 on average).
Before that Python starts, imports, and computes the bound; at the end figures, dataset and summaries are made on one
core, figures for the longest time. Warm `run` is on one core from start to end: imports, loading programs, and two
figures. Of importing, a third is JAX and a sixth is xarray with pandas. To load a program, XLA parses its text again,
about 0.2 s for each scheme. Deferring pydantic's validators (`defer_build`) saved nothing.

With the certificate's choices in one axis of blocks and devices, metrics and certificate took 191 ns of CPU time
instead of 337 (20 devices, 4 seeds, in turn); but then last digits depend on how many runs are measured together, so
this was not kept.

### A million devices

At K = 1e6 a call of the steps leaves 36 bytes a device-block that wait to be measured. Devices that wait for a
broadcast therefore get calls of two blocks (`priced`); the others run four blocks ahead (`parametric-printed`). For
`priced` that costs little: four blocks took 2.40 to 2.52 s of CPU time in calls of two, and 2.37 to 2.46 s in one call,
in turn in one process; before, 2.14 to 2.19 s, in a process of its own. Calls of one block change last digits, and
`parametric-printed` then reached 2.0 to 2.3 million device-blocks a second instead of 3.2 to 3.6. Before the first two
calls of a run, memory that was freed is given back to the system, because glibc keeps most of what XLA has used to
compile; that takes 0.1 s.

Peak memory at K = 1e6, before and now, in alternating processes that compile (the job `memory` of `python -m
benchmarks.worker`, 2026-12-01): `parametric-printed` 1.19 to 1.21 GB before and 1.17 to 1.18 GB now, `priced` 1.00 to
1.02 GB before and 1.02 GB now; without short calls and memory given back it was 1.24 and 1.18 GB. Speed was compared
the day before, with calls of four blocks (the job `rates`): `parametric-printed` 3.28 to 3.81 million device-blocks a
second before and 3.18 to 3.61 million now, measured some minutes later; `priced`, in turn, 1.64 to 1.75 and 1.62 to
1.79 million, while metrics still looped over blocks.

### When a block contained its metrics

These numbers are older: the metrics, 25 sums over devices, were still a part of each block.

The machine matters more than anything else. The goals on two cores of another AMD EPYC, with 1 MiB of cache each, with
the code of 2026-11-27 (memory: the median of three processes, of which one compiled):

| goal | `parametric-printed` | `priced` |
| --- | --- | --- |
| K = 1e6 against NumPy batched | 1.47 x | 1.83 x |
| 128 runs of K = 20, 5000 blocks | 2.94 s, 25.6 x NumPy per run, 21.8 x plain loop | 3.43 s |
| share of the arithmetic at best | 43.3 % | 9.37 % |
| peak memory at K = 1e6 | 1.10 GB | 0.894 GB |
| `partway run`, warm and cold | 1.60 s, 4.16 s | 1.57 s, 3.71 s |

A block of `priced`, with 20 devices and 32 runs, was about 260 kernels, which XLA starts one after the other. A third
of the time is the minimum over cuts: XLA does not fuse a reduction with what it reduces, so 33 x 5 numbers a device
are written to memory and read again, twice. A tenth each is the gather from the value table, the backup of the table,
and the server's interpolation. A sum over devices costs as much as starting a kernel, which is why the metrics of many
blocks are now computed at once.

The kernels are so small that one compiled call uses hardly more than one core: 20 devices x 32 runs took 426 ns a
device-block with two cores and one call, 496 ns with one core. So the seeds are divided into equal shares, and one
thread for each core makes the calls. How many seeds share a call decides whether the data stay in the cache:
`parametric-printed` with 20 devices x 128 runs took 200 ns with 64 seeds in a call and 295 ns with 32, too few to fill
a kernel; with 1000 devices x 16 runs, on one core, 230 ns with one seed and 640 ns with all 16, too many for the
cache. The rule is about 1280 devices in a call, of all its seeds, and one seed if a fleet is larger.

Three changes made `parametric-printed` and `parametric` two to three times as fast. Alternating processes of two trees,
ns a device-block, without and with them: 1000 devices with one seed 470 and 210, 20 devices x 128 runs 720 and 320,
`parametric` with 20 x 32 930 and 370.

- The derivative with respect to the power went back through all inputs of the features, as a transposed matrix
  product. Only one input is a power: a feature is now a function of p and q, and the contribution of the other inputs
  is computed once.
- The error delta was fused into the update of each of the 30 parameters and so computed thirty times, together with
  the feasible action and its energies. XLA does not fuse what ends in a division.
- XLA hands sums to a library that takes 10 to 30 times as long along the middle axis of (1, 30, K) as along the first
  of (30, K): a single seed now has no axis of its own. Without that library
  (`--xla_cpu_experimental_ynn_fusion_type=`) `parametric-printed` is about as fast, `priced` with 20 x 32 a tenth
  slower.

A large fleet with fewer seeds than cores is divided among JAX's host devices, one a core, by `shard_map`, if each core
gets 1024 devices or more (the command asks for host devices; from Python: `JAX_NUM_CPU_DEVICES`). A core computes its
devices in chunks of 1024, so that the data of a chunk stay in the cache. What remains is that the state of all devices
streams through memory. Two things help; alternating processes of the trees without and with them, one run, ns a
device-block, two cores of an AMD EPYC with 1 MiB of cache each:

| scheme | K | cores | without | with |
| --- | --- | --- | --- | --- |
| `parametric-printed` | 1e6 | 2 | 120 | 82 |
| `parametric-printed` | 1e5 | 2 | 107 | 71 |
| `parametric-printed` | 1e5 | 1 | 168 | 111 |
| `priced` | 1e6 | 2 | 199 | 139 |
| `priced` | 1e5 | 2 | 184 | 133 |
| `priced` | 1e5 | 1 | 375 | 229 |
| `parametric-printed` | 1e3 | 2 | 65 | 67 |
| `priced` | 1e3 | 2 | 141 | 117 |

- Devices that use no broadcast need not wait for the server. A chunk runs a tile of blocks ahead, then the next chunk;
  then the server runs these blocks. A tile has 4 blocks at K = 1e6 (8 or 16 were no faster), 25 at K = 1e5. A fleet of
  no more than 1024 devices is in the cache anyway, and slower with tiles.
- What is the same for all devices is a single column in memory, (33, 1) for the cuts of a task, instead of 300 bytes a
  device and block. A fleet of several classes does not have that.

With both, a device-block of a million devices takes a fifth longer than one of a thousand. Most of the rest is
arithmetic, most of that 60 sigmoids.

Of the memory of `parametric-printed` at K = 1e6, about 1 GB, a quarter is there before a run begins, 0.3 GB are the
state, 0.3 GB what a call needs: the state before and after, and the random numbers and transitions of a tile. The rest
is the compiler's, and memory that was not given back to the system. The server's random weights took 0.5 GB when they
were drawn at once; they are drawn feature by feature. A call writes the state that it leaves over the one that it got.

Tried on two cores with `jax.profiler` and alternating processes, and dropped:

- chunks of a fleet written in place, not into a copy of the state: XLA then cuts a chunk out again in every loop that
  reads it, `priced` takes three times as long; with tiles it is no faster;
- chunks of 512, 2048 and 4096 devices: within a tenth, except `priced`, twice as slow with 4096;
- the fleets of all seeds as one long fleet (a rule of `custom_vmap`): with 20 devices x 64 runs `parametric-printed`
  two to three times and `priced` four times as slow; each seed's features are repeated for each device, and the state
  is transposed in every block;
- the sum over 30 features as a product, by halves or term by term: none faster than XLA's sum;
- the minimum over cuts as one chain of comparisons: XLA fuses the chain into whatever reads it and computes it again
  for every state of the table, twelve times as slow; a barrier does not stop it;
- the same as a loop over cuts: half the time of the minimum, but acting and learning no longer share it;
- `unroll` of two or of five blocks: `parametric-printed` with 20 devices x 64 runs the same, at K = 1000 up to twice,
  `priced` two to three times as slow, compiled in up to six times as long;
- shifting the table by the bits of q instead of a gather: no difference beyond noise;
- the server's interpolation ramp by ramp: a fifth faster, 1.5 s longer to compile."""
WORDS = {
    "cpu": {
        "command": "make bench",
        "by_hand": f'\nThe section "{OBSERVED}" is written by hand; that command does not\nrepeat its observations.',
        "figure": f"![device-blocks a second against devices times runs](img/{FIGURE}.png)\n\n"
        "In the figure, NumPy per run and the Python loop are drawn at the one run that is measured of them.\n\n",
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
        "where": "on the accelerator; the NumPy programs run on all cores of its host",
        "others": "Other precisions",
        "observed": "",
        "peaks_of": "on the accelerator: multiply-adds by\nmatrix product or chain, sigmoids by XLA, words by Threefry",
    },
}
"""What the pages of the two devices say differently."""


def write(records: Sequence[Record], docs: Path, accelerated: Sequence[Record] = ()) -> str:
    """Write the page and the figure under `docs`; returns what to print. `accelerated`: records of an accelerator."""
    drawing.write(records, docs / "img" / f"{FIGURE}.png")
    path = docs / "benchmarks.md"
    path.write_text(text(records, "cpu", accelerated))
    return f"{path}\n{goals.table(records, 'cpu', accelerated)}"


def text(records: Sequence[Record], device: str = "cpu", accelerated: Sequence[Record] = ()) -> str:
    """The page of a device. `accelerated`: records of an accelerator, for the goal that is set for one."""
    return PAGE.format(
        **WORDS[device],
        origin=origin(records),
        main=main_table.section(records) if device == "cpu" else "",
        summary=goals.summary(records, device, accelerated),
        goals=goals.table(records, device, accelerated),
        ceiling=goals.ceiling(records) if device == "cpu" else "",
        overrides=" ".join(overrides(1000)),
        rates=tables.rates(records),
        settings=tables.settings(records),
        left_out=left_out(records, device, accelerated),
        runs=MANY["runs"],
        blocks=MANY["blocks"],
        seconds=MEASURED_S,
        times=REPEATS,
        fewer=FEWER,
        long=LONG_S,
        expensive=EXPENSIVE,
        environments=environments(records),
        agreement=tables.agreement(records),
        limit=tables.limit(records),
        repeats=PEAK_REPEATS,
        peaks=tables.peaks(records),
        growth="\n".join(f"- {line}" for line in tables.growth(records)),
        compiling=tables.compiling(records),
        stable=tables.stable(records),
    )


def environments(records: Sequence[Record]) -> str:
    """The section on environments; nothing before they are measured."""
    table = tables.environments(records)
    return ENVIRONMENTS.format(**EPISODES, table=table) if table else ""


def origin(records: Sequence[Record]) -> str:
    """On which machine the records were measured, when and with which code; a line each where that differs."""
    known = origins(records)
    if not known:
        return "Nothing has been measured."
    if len(known) == 1:
        ((date, machine, code),) = known
        return f"Every number was measured on {date}, on {machine}; code {CODE}: {code}."
    lines = [f"- {', '.join(groups)}: {day}, {machine}, code {code}" for (day, machine, code), groups in known.items()]
    return "\n".join([f"Every number was measured, by group (`--only`) and with its code {CODE}, on\n", *lines])


def left_out(records: Sequence[Record], device: str, accelerated: Sequence[Record]) -> str:
    """What was not measured, and why."""
    parts = [f"the Python loop above K = {LOOP_DEVICES} (its time is proportional to device-blocks)"]
    if device == "cpu":
        why = "100,000 devices times 128 runs took more than 18 GB when they were tried"
        parts.insert(0, f"more than {MOST_LANES:,} devices times runs ({why})")
    if device == "cpu" and not accelerated:
        parts.append("an accelerator (to be measured by `python -m benchmarks --device gpu`)")
    return "\n- ".join([f"Not measured: {'; '.join(parts)}.", *failures(records)])
