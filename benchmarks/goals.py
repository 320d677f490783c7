"""The goals, and what was measured beside each."""

from collections.abc import Callable, Sequence

from benchmarks.found import NONE, Measured, Rate, Record, all_rates, found, measured, ratio
from benchmarks.limit import Count, Peaks, counts, limit_s
from benchmarks.plan import MANY
from benchmarks.worlds import MEASURED, world_of

Cell = Callable[[Sequence[Record], str], str]
LANES = {"float32": 4, "float64": 8}


def table(records: Sequence[Record]) -> str:
    """A line for each goal: what is wanted, what was measured, the command."""
    titles = ("goal", "`printed`: goal", "measured", "`priced`: goal", "measured", "`.venv/bin/python -m benchmarks`")
    head = f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"
    lines = [
        f"| {name} | {wanted[0]} | {cell(records, 'printed')} | {wanted[1]} | {cell(records, 'priced')} | `{command}` |"
        for name, wanted, cell, command in GOALS
    ]
    return "\n".join([head, *lines])


def best_rates(records: Sequence[Record], scheme: str, precision: str = "float32") -> list[Rate]:
    """The configurations of a scheme on all cores."""
    own = [rate for rate in all_rates(records) if (rate.scheme, rate.precision) == (scheme, precision)]
    most = max((rate.cores for rate in own), default=0)
    return [rate for rate in own if rate.cores == most]


def count_of(scheme: str) -> Count:
    """What a device-block of the measured worlds needs."""
    devices = world_of(4).devices
    return counts(devices.slots, devices.most)[scheme]


def peaks_of(records: Sequence[Record], precision: str, cores: int) -> Peaks | None:
    """The machine's best."""
    one = found(records, "peaks", precision=precision, cores=cores)
    return Peaks(**{name: one[0][name][0] for name in ("multiply_adds", "sigmoids", "words", "bytes")}) if one else None


def share(records: Sequence[Record], rate: Rate) -> tuple[Measured, Measured] | None:
    """The share of the limit that was reached: of its arithmetic, and of the larger of arithmetic and memory."""
    peaks = peaks_of(records, rate.precision, rate.cores)
    if peaks is None:
        return None
    arithmetic, memory = limit_s(count_of(rate.scheme), peaks, LANES[rate.precision])
    reached = (
        [value * arithmetic for value in rate.by["ours"]],
        [value * max(arithmetic, memory) for value in rate.by["ours"]],
    )
    return measured(reached[0]), measured(reached[1])


def _large(records: Sequence[Record], scheme: str) -> str:
    own = [rate for rate in best_rates(records, scheme) if rate.devices == 1_000_000 and rate.runs == 1]
    against = own[0].against("batched") if own else None
    return against.words(unit="x") if against else NONE


def _many(records: Sequence[Record], scheme: str) -> str:
    """The first repetition fills the cache of compiled programs."""
    warm = found(records, "many", scheme=scheme)[1:]
    warm = [one for one in warm if "failed" not in one["rivals"]]
    if not warm:
        return NONE
    ours, blocks = [one["process_s"] for one in warm], MANY["devices"] * MANY["runs"] * MANY["blocks"]
    times = [ratio([blocks / one["rivals"][kind][0] for one in warm], ours) for kind in ("per_run", "loop")]
    return f"{measured(ours).words(unit='s')}; {times[0].words(unit='x')} per run, {times[1].words(unit='x')} loop"


def _share(records: Sequence[Record], scheme: str) -> str:
    shares = [(share(records, rate), rate) for rate in best_rates(records, scheme)]
    known = [(both, rate) for both, rate in shares if both]
    if not known:
        return NONE
    (arithmetic, _), rate = max(known, key=lambda one: one[0][0].median)
    return f"{arithmetic.words(100, '%')}, at K = {rate.devices:,}, {rate.runs} run{'s' * (rate.runs != 1)}"


def _memory(records: Sequence[Record], scheme: str) -> str:
    peaks = [one["peak"][0] for one in found(records, "memory", scheme=scheme)]
    return measured(peaks).words(1e-9, "GB") if peaks else NONE


def _start(records: Sequence[Record], scheme: str) -> str:
    one = found(records, "start", scheme=scheme)
    return ", ".join(measured(one[0][f"{how}_s"]).words(unit=f"s {how}") for how in ("warm", "cold")) if one else NONE


GOALS: tuple[tuple[str, tuple[str, str], Cell, str], ...] = (
    ("K = 1e6 against NumPy batched, float32", (">= 10x", ">= 10x"), _large, "--only rates"),
    (
        "128 runs of K = 20, 5000 blocks, import included, warm cache",
        ("<= 4 s, >= 20x NumPy per run, >= 100x loop", "<= 6 s"),
        _many,
        "--only many",
    ),
    ("share of the limit, best regime, float32", (">= 25 %", "measured"), _share, "--only peaks rates"),
    ("peak memory at K = 1e6", ("<= 1 GB", "<= 1.5 GB"), _memory, "--only memory"),
    (
        "`partway run`, K = 4, 500 blocks, process start to result",
        ("<= 2 s warm, <= 6 s cold", "<= 2 s warm, <= 6 s cold"),
        _start,
        "--only start",
    ),
)
assert MEASURED == ("printed", "priced")  # the two columns of the table
