"""What is measured, in the order of what matters most: when time is up, the rest is left out and the page says so."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import main_job
from benchmarks.process import Job, cores, do, do_together, start_up
from benchmarks.rivals import LOOP_DEVICES, RIVALS
from benchmarks.worlds import MEASURED

FLEETS = (4, 20, 50, 1000, 100_000, 1_000_000)
RUNS = (1, 32, 128)
MOST_LANES = 3_200_000
"""Devices times runs above which nothing is measured: 100,000 x 128 took more than 18 GB."""
ACCELERATED = {1000: (10, 100, 1000), 100_000: (1, 10), 1_000_000: (1,), 10_000_000: (1,)}
"""Runs by fleet on an accelerator: 1e4 to 1e7 devices of all runs."""
MANY = {"devices": 20, "runs": 128, "blocks": 5000}
EPISODES = {"devices": 20, "episodes": 128}
BY_BLOCKS = [250, 500, 1000, 2000, 4000]
COMPILED = (20, 100_000)
PRECISIONS = ("float32", "float64")
PEAK_REPEATS = 3
"""Times that the machine's peaks are measured; the greatest of each kind is its best."""


@dataclass(frozen=True)
class Step:
    """Something to measure: its group, what it is about, and how. `work` is called `repeats` times."""

    group: str
    about: dict[str, Any]
    work: Callable[[], dict[str, Any]]
    repeats: int = 1

    def words(self) -> str:
        """What is said while it runs."""
        return f"{self.group} {' '.join(str(value) for value in self.about.values())}"


@dataclass(frozen=True)
class Places:
    """Where things run: the device, the folder of compiled programs, and the cores, two at most, as in the goals.

    before  an older checkout with which the main job is compared
    """

    cache: str
    device: str = "cpu"
    cores: tuple[int, ...] = field(default_factory=lambda: cores()[:2])
    before: Path | None = None

    def counts(self) -> list[int]:
        """The numbers of cores that are measured, all of them last. On an accelerator 0: the whole of it."""
        return sorted({1, len(self.cores)}) if self.device == "cpu" else [0]

    def job(self, name: str, how: dict[str, Any], count: int = 0, cached: bool = True) -> Job:
        """A job on the first `count` cores, or on all."""
        chosen = () if self.device != "cpu" else self.cores[: count or len(self.cores)]
        return Job(name, how, chosen, self.cache if cached else None, self.device)


def steps(places: Places) -> list[Step]:
    """All of them."""
    *fewer, whole = places.counts()
    return [
        *_main(places),
        *_agreement(places),
        *_peaks(places),
        *_rates(places, "float32", whole, list(RIVALS)),
        *_many(places),
        _simple(places, "environments", "environments", EPISODES),
        *_start(places),
        *_memory(places),
        *_blocks(places),
        *_compiling(places),
        *_rates(places, "float64", whole, ["batched"]),
        *(step for p in PRECISIONS for count in fewer for step in _rates(places, p, count, ["batched"])),
    ]


def sizes(device: str) -> list[tuple[int, list[int]]]:
    """(K, runs) that are measured."""
    if device != "cpu":
        return [(devices, list(runs)) for devices, runs in ACCELERATED.items()]
    return [(devices, [runs for runs in RUNS if devices * runs <= MOST_LANES]) for devices in FLEETS]


def _simple(places: Places, group: str, name: str, about: dict[str, Any], repeats: int = 1, **how: Any) -> Step:
    return Step(group, about, lambda: do(places.job(name, {**about, **how})), repeats)


def _main(places: Places) -> list[Step]:
    """The main job, on a CPU: its goals are for two cores."""
    if places.device != "cpu":
        return []
    checkouts, on = main_job.trees(places.before), places.cores
    commands = [
        Step(
            "main",
            {"command": name},
            lambda arguments=arguments: main_job.command_times(arguments, checkouts, on),
            main_job.REPEATS[name],
        )
        for name, arguments in main_job.COMMANDS.items()
    ]
    about = main_job.DEVICE_BLOCK
    return [
        *commands,
        Step("main", {"parts of": "compare"}, lambda: main_job.part_times(main_job.COMMANDS["compare"], on), 3),
        Step("main", {"device-block of": "paper", **about}, lambda: do(places.job("device_block", about))),
    ]


def _agreement(places: Places) -> list[Step]:
    sizes = ({"devices": 20, "runs": 3, "blocks": 100}, {"devices": 2100, "runs": 2, "blocks": 40})
    abouts = [
        {"scheme": scheme, "precision": precision, **size}
        for size in sizes
        for scheme in MEASURED
        for precision in PRECISIONS
    ]
    return [_simple(places, "agreement", "agreement", about) for about in abouts]


def _peaks(places: Places) -> list[Step]:
    """What the machine can do: on a CPU one process a core, side by side; and XLA's own count."""
    return [
        *(
            Step("peaks", {"precision": p, "cores": c}, lambda p=p, c=c: _summed(places, p, c), PEAK_REPEATS)
            for p in PRECISIONS
            for c in places.counts()
        ),
        *(_simple(places, "xla", "counted_by_xla", {"scheme": scheme}) for scheme in MEASURED),
    ]


def _summed(places: Places, precision: str, count: int) -> dict[str, Any]:
    how = {"precision": precision}
    if places.device != "cpu":
        return do(places.job("best_rates", how))
    found = do_together([Job("best_rates", how, (core,)) for core in places.cores[:count]])
    failed = [one for one in found if "failed" in one]
    if failed:
        return failed[0]
    return {name: [sum(sums) for sums in zip(*(one[name] for one in found), strict=True)] for name in found[0]}


def _rates(places: Places, precision: str, count: int, kinds: list[str]) -> list[Step]:
    made = []
    for devices, runs in sizes(places.device):
        own = [kind for kind in kinds if kind != "loop" or devices <= LOOP_DEVICES]
        how = {"devices": devices, "runs": runs, "precision": precision, "kinds": own}
        for scheme in MEASURED:
            about = {"scheme": scheme, "devices": devices, "precision": precision, "cores": count}
            job = places.job("rates", {"scheme": scheme, **how}, count)
            made.append(Step("rates", about, lambda job=job: do(job)))
    return made


def _many(places: Places) -> list[Step]:
    """128 runs, import included, then the rivals, alternately; the first time is for the cache of compiled programs."""

    def work(scheme: str) -> dict[str, Any]:
        ours = do(places.job("many_runs", {"scheme": scheme, **MANY}))
        how = {"scheme": scheme, "devices": MANY["devices"], "kinds": ["per_run", "loop"], "precision": "float32"}
        return {"rivals": do(places.job("rival_rates", how)), **ours}

    return [Step("many", {"scheme": scheme, **MANY}, lambda scheme=scheme: work(scheme), 4) for scheme in MEASURED]


def _start(places: Places) -> list[Step]:
    return [
        Step("start", {"scheme": scheme}, lambda scheme=scheme: start_up(scheme, places.device, places.cores))
        for scheme in MEASURED
    ]


def _memory(places: Places) -> list[Step]:
    """Compiling included, as the first run has it."""
    abouts = [{"scheme": scheme, "devices": FLEETS[-1], "blocks": 4} for scheme in MEASURED]
    jobs = [places.job("memory", about, cached=False) for about in abouts]
    return [Step("memory", job.how, lambda job=job: do(job), 3) for job in jobs]


def _blocks(places: Places) -> list[Step]:
    abouts = [{"scheme": scheme, "devices": 100, "runs": 1} for scheme in MEASURED]
    return [_simple(places, "blocks", "by_blocks", about, blocks=BY_BLOCKS) for about in abouts]


def _compiling(places: Places) -> list[Step]:
    abouts = [{"scheme": scheme, "devices": devices, "runs": 1} for devices in COMPILED for scheme in MEASURED]
    return [
        Step("compile", about, lambda about=about: do(places.job("compiling", about, cached=False)), 3)
        for about in abouts
    ]
