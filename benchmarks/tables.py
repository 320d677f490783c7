"""The tables of the page: rates, the limit, what grows with K and with blocks, compiling, agreement."""

from collections.abc import Sequence

import numpy as np

from benchmarks.goals import LANES, best_rates, count_of, peaks_of, share
from benchmarks.limit import limit_s
from benchmarks.records import NONE, Rate, Record, all_rates, found, measured, of_group, ratio, short, slope
from benchmarks.rivals import RIVALS
from benchmarks.worlds import MEASURED

NAMES = {"ours": "Partway", "batched": "NumPy batched", "per_run": "NumPy per run", "loop": "Python loop"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def rates(records: Sequence[Record]) -> str:
    """float32 on all cores against every rival: rates in millions, ratios, and shares of the limit."""
    head = [
        "scheme",
        "K",
        "runs",
        "Partway, 1e6/s",
        *(f"{NAMES[kind]}: ratio" for kind in reversed(RIVALS)),
        "% of limit",
        "% of its arithmetic",
    ]
    rows = list[list[str]]()
    for rate in (rate for scheme in MEASURED for rate in best_rates(records, scheme)):
        ratios = [rate.against(kind) for kind in reversed(RIVALS)]
        reached = share(records, rate)
        cells = [one.words(unit="x") if one else NONE for one in ratios]
        rows.append(
            [
                *_about(rate),
                measured(rate.by["ours"]).words(1e-6),
                *cells,
                *([short(100 * part.median) for part in reached] if reached else [NONE] * 2),
            ]
        )
    return table(head, rows)


def settings(records: Sequence[Record]) -> str:
    """Medians of ours in every precision and number of cores, and the ratio to NumPy batched there."""
    every = all_rates(records)
    kinds = sorted({(rate.precision, rate.cores) for rate in every}, key=lambda kind: (kind[0], -kind[1]))
    head = ["scheme", "K", "runs", *(f"{precision}, {_of(cores)}" for precision, cores in kinds)]
    known = {(rate.scheme, rate.devices, rate.runs, rate.precision, rate.cores): rate for rate in every}
    places = dict.fromkeys((rate.scheme, rate.devices, rate.runs) for rate in every)
    return table(
        head, [[*map(str, place), *(_setting(known.get((*place, *kind))) for kind in kinds)] for place in places]
    )


def limit(records: Sequence[Record]) -> str:
    """What a device-block needs, what XLA counts, and what the machine could do at best."""
    head = [
        "scheme",
        "multiply-adds",
        "sigmoids",
        "random words",
        "flops",
        "bytes, float32",
        "XLA: flops",
        "XLA: bytes",
    ]
    rows = list[list[str]]()
    for scheme in MEASURED:
        count, counted = count_of(scheme), found(records, "xla", scheme=scheme)
        own = [count.multiply_adds, count.sigmoids, count.words, count.flops(), 4 * count.numbers]
        xla = [counted[0][name] for name in ("flops", "bytes accessed")] if counted else []
        rows.append([scheme, *(short(value) for value in own), *([short(value) for value in xla] or [NONE] * 2)])
    return table(head, rows)


def peaks(records: Sequence[Record]) -> str:
    """The machine's best, and the limit that follows."""
    head = [
        *("precision", "of", "multiply-adds, 1e9/s", "sigmoids, 1e9/s", "words, 1e9/s", "memory, 1e9 B/s"),
        *(f"{scheme}: arithmetic, memory [ns]" for scheme in MEASURED),
    ]
    rows = list[list[str]]()
    for record in of_group(records, "peaks"):
        precision, cores = record["about"]["precision"], record["about"]["cores"]
        best = peaks_of(records, precision, cores, record["machine"])
        if best is not None:
            kinds = (best.multiply_adds, best.sigmoids, best.words, best.bytes)
            limits = [limit_s(count_of(scheme), best, LANES[precision]) for scheme in MEASURED]
            times = [", ".join(short(1e9 * value) for value in both) for both in limits]
            rows.append([precision, _of(cores), *(short(1e-9 * kind) for kind in kinds), *times])
    return table(head, rows)


def growth(records: Sequence[Record]) -> list[str]:
    """Sentences on how time grows with K and with the number of blocks."""
    said = list[str]()
    for scheme in MEASURED:
        alone = [rate for rate in best_rates(records, scheme) if rate.runs == 1 and rate.devices >= 1000]
        if len(alone) > 1:
            times = [rate.devices / measured(rate.by["ours"]).median for rate in alone]
            fleets = [rate.devices for rate in alone]
            said.append(f"`{scheme}`: the time of a block grows as K^{slope(fleets, times):.2f} from K = 1000 on.")
        by_blocks = found(records, "blocks", scheme=scheme)
        if by_blocks:
            times = {int(count): measured(took).median for count, took in by_blocks[0].items() if count.isdigit()}
            rows = ", ".join(f"{count}: {short(took)}" for count, took in times.items())
            each, start = np.polyfit(list(times), list(times.values()), 1)
            off = max(abs(took - start - each * count) / took for count, took in times.items())
            said.append(
                f"`{scheme}`: seconds by blocks at K = 100: {rows}; that is a line, {1e3 * start:.1f} ms for a run and "
                f"{1e6 * each:.0f} us a block, within {off:.0%}."
            )
    return said


def compiling(records: Sequence[Record]) -> str:
    """Seconds to compile without a cache."""
    rows = list[list[str]]()
    for record in of_group(records, "compile"):
        times = [one["compile_s"][0] for one in record["found"] if "failed" not in one]
        about = record["about"]
        rows.append([about["scheme"], str(about["devices"]), measured(times).words() if times else NONE])
    return table(["scheme", "K", "compiling [s]"], rows)


def environments(records: Sequence[Record]) -> str:
    """Device-blocks a second of environments, in millions, and how many times as fast ours is; "" if unmeasured."""
    names = {
        "system": "`partway/System-v0`, vectorised",
        "device": "`partway/Device-v0`, vectorised",
        "batched": "NumPy, all episodes in one array",
        "one_by_one": "NumPy, one environment per episode",
    }
    rows = list[list[str]]()
    for one in found(records, "environments"):
        of = one["system"]
        rows += [
            [words, measured(one[name]).words(1e-6), ratio(of, one[name]).words(unit="x")]
            for name, words in names.items()
        ]
    return table(["environment", "1e6 device-steps/s", "`partway/System-v0` is faster by"], rows) if rows else ""


def agreement(records: Sequence[Record]) -> str:
    """The largest relative differences of a block's cost and its parts from ours."""
    rows = list[list[str]]()
    for record in of_group(records, "agreement"):
        one = found([record], "agreement")
        cells = [f"{one[0][kind]:.1e}" if one and kind in one[0] else NONE for kind in reversed(RIVALS)]
        size = [str(record["about"][name]) for name in ("devices", "runs", "blocks")]
        rows.append([record["about"]["scheme"], *size, record["about"]["precision"], *cells])
    return table(["scheme", "K", "runs", "blocks", "precision", *(NAMES[kind] for kind in reversed(RIVALS))], rows)


def stable(records: Sequence[Record]) -> str:
    """Tasks and work that wait at the end, a device: as many in every fleet."""
    rows = [
        [*_about(rate), short(rate.left["waiting"]), short(rate.left["backlog"])]
        for scheme in MEASURED
        for rate in best_rates(records, scheme)
        if rate.runs == 1
    ]
    return table(["scheme", "K", "runs", "tasks at a device", "work at the server, a device"], rows)


def _of(cores: int) -> str:
    return f"cores: {cores}" if cores else "accelerator"


def _about(rate: Rate) -> list[str]:
    return [rate.scheme, str(rate.devices), str(rate.runs)]


def _setting(rate: Rate | None) -> str:
    if rate is None:
        return NONE
    against = rate.against("batched")
    return f"{short(1e-6 * measured(rate.by['ours']).median)} ({short(against.median) if against else NONE}x)"
