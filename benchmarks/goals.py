"""The goals, what was measured beside each, and whether that meets it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.limit import Count, Peaks, counts, limit_s
from benchmarks.plan import FLEETS, MANY
from benchmarks.records import NONE, Measured, Rate, Record, all_rates, found, measured, ratio
from benchmarks.worlds import MEASURED, world_of

LANES = {"float32": 4, "float64": 8}
LARGE = FLEETS[-1]
PER_RUN, LOOP, WARM, COLD = "NumPy per run", "plain loop", "warm", "cold"
"""Parts of goals."""


@dataclass(frozen=True)
class Wanted:
    """A number that is asked for of a part of a goal, such as `<= 2 s warm`. sign "<=" or ">="."""

    sign: str
    bound: float
    unit: str
    part: str = ""

    def words(self) -> str:
        return " ".join(word for word in (self.sign, _plain(self.bound), self.unit, self.part) if word)

    def met(self, value: float) -> bool:
        return value <= self.bound if self.sign == "<=" else value >= self.bound


@dataclass(frozen=True)
class Value:
    """What was measured of a part of a goal, in the goal's unit, and what is said behind the number."""

    number: Measured
    unit: str
    part: str = ""
    behind: str = ""

    def words(self, wanted: Sequence[Wanted]) -> str:
        """The number, and whether its median meets what is wanted of this part, if anything is."""
        verdicts = ["met" if one.met(self.number.median) else "**missed**" for one in wanted if one.part == self.part]
        return " ".join(word for word in (self.number.words(unit=self.unit), self.part, self.behind, *verdicts) if word)


@dataclass(frozen=True)
class Goal:
    """A line of the table.

    wanted   by scheme; of a scheme that is not in it, the number is only measured
    values   what was measured: records, scheme -> parts
    command  the groups of records that it needs
    device   on which it is to be met
    missing  what is said where there is no number
    """

    name: str
    wanted: dict[str, tuple[Wanted, ...]]
    values: Callable[[Sequence[Record], str], list[Value]]
    command: str
    device: str = "cpu"
    missing: str = NONE


def table(records: Sequence[Record], device: str = "cpu", accelerated: Sequence[Record] = ()) -> str:
    """A line for each goal: what is wanted, what was measured, the command.

    device       that the records are of; goals for another device have no verdict, but for
    accelerated  records of an accelerator, if there are any: the goal for one is judged by them on every page
    """
    titles = (
        "goal",
        "`parametric-printed`: goal",
        "measured",
        "`priced`: goal",
        "measured",
        "`.venv/bin/python -m benchmarks`",
    )
    head = f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"
    return "\n".join([head, *(_row(goal, records, device, accelerated) for goal in GOALS)])


def summary(records: Sequence[Record], device: str = "cpu", accelerated: Sequence[Record] = ()) -> str:
    """One sentence: how many of the numbers that are asked for are met, missed, and not measured."""
    verdicts = list[bool | None]()
    for goal in GOALS:
        for scheme, wanted in _judged(goal, device).items():
            values = {one.part: one.number.median for one in goal.values(_own(goal, records, accelerated), scheme)}
            verdicts += [one.met(values[one.part]) if one.part in values else None for one in wanted]
    met, missed, unknown = (verdicts.count(verdict) for verdict in (True, False, None))
    return (
        f"Of the numbers that are asked for ({len(verdicts)}, every part of a goal counted), {met} {_is(met)} met and "
        f"{missed} {_is(missed)} missed by the medians; {unknown} {_is(unknown)} not measured."
    )


def _row(goal: Goal, records: Sequence[Record], device: str, accelerated: Sequence[Record]) -> str:
    cells, judged = [goal.name], _judged(goal, device)
    for scheme in MEASURED:
        wanted, values = judged.get(scheme, ()), goal.values(_own(goal, records, accelerated), scheme)
        cells.append(", ".join(one.words() for one in wanted) or "measured")
        cells.append("; ".join(value.words(wanted) for value in values) or goal.missing)
    command = goal.command if device in ("cpu", goal.device) else f"--device {device} {goal.command}"
    return f"| {' | '.join([*cells, f'`{command}`'])} |"


def _judged(goal: Goal, device: str) -> dict[str, tuple[Wanted, ...]]:
    """What is wanted by scheme; nothing where the goal is for two cores and the records are not."""
    return goal.wanted if goal.device in (device, "gpu") else {}


def _own(goal: Goal, records: Sequence[Record], accelerated: Sequence[Record]) -> Sequence[Record]:
    return accelerated if goal.device == "gpu" else records


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _plain(bound: float) -> str:
    """1.5, 4, 1e9."""
    return f"{bound:g}".replace("e+0", "e")


def best_rates(records: Sequence[Record], scheme: str, precision: str = "float32") -> list[Rate]:
    """The configurations of a scheme on all cores."""
    own = [rate for rate in all_rates(records) if (rate.scheme, rate.precision) == (scheme, precision)]
    most = max((rate.cores for rate in own), default=0)
    return [rate for rate in own if rate.cores == most]


def count_of(scheme: str) -> Count:
    """What a device-block of the measured worlds needs."""
    devices = world_of(4).devices
    return counts(devices.slots, devices.max_tasks_per_block)[scheme]


def peaks_of(records: Sequence[Record], precision: str, cores: int, machine: str) -> Peaks | None:
    """The machine's best: of each kind the greatest of its repetitions."""
    own = [one for one in records if one["machine"] == machine]
    repeated = found(own, "peaks", precision=precision, cores=cores)
    kinds = ("multiply_adds", "sigmoids", "words", "bytes")
    return Peaks(**{kind: max(one[kind][0] for one in repeated) for kind in kinds}) if repeated else None


def share(records: Sequence[Record], rate: Rate) -> tuple[Measured, Measured] | None:
    """The share that was reached of the limit, and of its arithmetic alone; None without peaks of the same machine."""
    peaks = peaks_of(records, rate.precision, rate.cores, rate.machine)
    if peaks is None:
        return None
    arithmetic, memory = limit_s(count_of(rate.scheme), peaks, LANES[rate.precision])
    reached = measured(rate.by["ours"])
    return reached.times(max(arithmetic, memory)), reached.times(arithmetic)


def ceiling(records: Sequence[Record]) -> str:
    """How far the arithmetic alone would be ahead of NumPy in the first goal, as a paragraph."""
    parts = list[str]()
    for scheme in MEASURED:
        for rate in best_rates(records, scheme):
            peaks = peaks_of(records, rate.precision, rate.cores, rate.machine)
            if rate.devices == LARGE and rate.runs == 1 and peaks and "batched" in rate.by:
                arithmetic, _ = limit_s(count_of(scheme), peaks, LANES[rate.precision])
                most = 1 / (arithmetic * measured(rate.by["batched"]).median)
                parts.append(f"{most:.1f} x for `{scheme}` ({1e9 * arithmetic:.1f} ns a device-block)")
    if not parts:
        return ""
    return (
        "By arithmetic alone, at the best rates of [the limit](#the-limit), no program of such kernels could be\n"
        f"faster than NumPy batched at K = 1e6 by more than {' and '.join(parts)}.\n\n"
    )


def _large(records: Sequence[Record], scheme: str) -> list[Value]:
    """The verdict is for all cores; one core is shown beside it: NumPy uses a second one only where BLAS does."""
    own = [rate for rate in all_rates(records) if (rate.scheme, rate.devices, rate.runs) == (scheme, LARGE, 1)]
    most, found = max((rate.cores for rate in own), default=0), list[Value]()
    for rate in sorted(own, key=lambda rate: -rate.cores):
        against = rate.against("batched") if rate.precision == "float32" else None
        if against:
            found.append(Value(against, "x", "" if rate.cores == most else f"on {rate.cores} core"))
    return found


def _many(records: Sequence[Record], scheme: str) -> list[Value]:
    """The first repetition fills the cache of compiled programs."""
    warm = found(records, "many", scheme=scheme)[1:]
    warm = [one for one in warm if "failed" not in one["rivals"]]
    if not warm:
        return []
    ours, blocks = [one["process_s"] for one in warm], MANY["devices"] * MANY["runs"] * MANY["blocks"]
    times = [ratio([blocks / one["rivals"][kind][0] for one in warm], ours) for kind in ("per_run", "loop")]
    return [Value(measured(ours), "s"), Value(times[0], "x", PER_RUN), Value(times[1], "x", LOOP)]


def _share(records: Sequence[Record], scheme: str) -> list[Value]:
    """In the regime with the greatest share of the arithmetic, by which it is judged."""
    shares = [(share(records, rate), rate) for rate in best_rates(records, scheme)]
    known = [(both, rate) for both, rate in shares if both]
    if not known:
        return []
    (limit, arithmetic), rate = max(known, key=lambda one: one[0][1].median)
    alone = Value(arithmetic.times(100), "%", behind=f"of the arithmetic, at {rate.place()}")
    return [alone, Value(limit.times(100), "%", "of the slower of arithmetic and memory")]


def _memory(records: Sequence[Record], scheme: str) -> list[Value]:
    peaks = found(records, "memory", scheme=scheme)
    if not peaks:
        return []
    behind = "of the accelerator's" if peaks[0]["of"] == "accelerator" else ""
    return [Value(measured([1e-9 * one["peak"][0] for one in peaks]), "GB", behind=behind)]


def _start(records: Sequence[Record], scheme: str) -> list[Value]:
    one = found(records, "start", scheme=scheme)
    return [Value(measured(one[0][f"{how}_s"]), "s", how) for how in (WARM, COLD)] if one else []


def _fastest(records: Sequence[Record], scheme: str) -> list[Value]:
    """The greatest rate, and of which machine and day it is."""
    rates = best_rates(records, scheme)
    if not rates:
        return []
    best = max(rates, key=lambda rate: measured(rate.by["ours"]).median)
    behind = f"at {best.place()}, on {best.machine}, {best.date}"
    return [Value(measured(best.by["ours"]), "a second", behind=behind)]


STARTS = (Wanted("<=", 2.0, "s", WARM), Wanted("<=", 6.0, "s", COLD))
GOALS: tuple[Goal, ...] = (
    Goal(
        "K = 1e6 against NumPy batched, float32",
        dict.fromkeys(MEASURED, (Wanted(">=", 10.0, "x"),)),
        _large,
        "--only rates",
    ),
    Goal(
        "128 runs of K = 20, 5000 blocks, import included, warm cache",
        {
            "parametric-printed": (
                Wanted("<=", 4.0, "s"),
                Wanted(">=", 20.0, "x", PER_RUN),
                Wanted(">=", 100.0, "x", LOOP),
            ),
            "priced": (Wanted("<=", 6.0, "s"),),
        },
        _many,
        "--only many",
    ),
    Goal(
        "share of the limit, best regime, float32",
        {"parametric-printed": (Wanted(">=", 25.0, "%"),)},
        _share,
        "--only peaks rates",
    ),
    Goal(
        "peak memory at K = 1e6",
        {"parametric-printed": (Wanted("<=", 1.0, "GB"),), "priced": (Wanted("<=", 1.5, "GB"),)},
        _memory,
        "--only memory",
    ),
    Goal(
        "`partway run`, K = 4, 500 blocks, process start to result",
        dict.fromkeys(MEASURED, STARTS),
        _start,
        "--only start",
    ),
    Goal(
        "device-blocks a second on a current data-centre GPU, float32",
        {"parametric-printed": (Wanted(">=", 1e9, "a second"),)},
        _fastest,
        "--device gpu",
        "gpu",
        "not measured: needs an accelerator",
    ),
)
assert MEASURED == ("parametric-printed", "priced")  # the two columns of the table
