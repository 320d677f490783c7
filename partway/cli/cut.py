"""`partway cut`: first one task in continuous time, within a second; then the plan under load, simulated."""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from partway.cli import flags
from partway.cli.flags import whole_number
from partway.cli.terminal import counting, terminal, working
from partway.dnn.profile import Profile, write_profile
from partway.errors import InputError
from partway.formatting import plain

if TYPE_CHECKING:
    from partway.bound.lower_bound import Bound
    from partway.experiments.comparison import OnProgress
    from partway.planner.answer import OneTask
    from partway.planner.context import DeviceContext
    from partway.planner.evaluation import PolicyOutcome
    from partway.planner.plan import PlanRule
    from partway.planner.under_load_report import CutResult
    from partway.scenario.schema import Scenario
    from partway.simulation.rollout import Run

EXTREMES = {"local": "all local", "full": "all remote"}
"""Schemes that the recommendation is compared with, and their names in the table."""
SCHEMA_VERSION = 3
DESCRIPTION = (
    "Find where to cut a network. First answer, at once: latency and energy of every useful cut for one task, from the "
    "rate of the link and the speed of device and server, with the rate from which offloading pays. Second answer: how "
    "many tasks to start, where to cut the last one and how fast to run the CPU under load, for each queue length and "
    "channel state, simulated beside all local and all remote execution."
)
EXAMPLES = {
    "A link of 20 Mbit/s and a deadline": "partway cut ppocr-rec --rate 20Mbit/s --rtt 10ms --deadline 100ms",
    "Your network, measured on the device": "partway cut model.onnx --rate 5MB/s --device-times pi.csv --out my-cut",
    "A shipped network in the scenario ocr, one task only": "partway cut resnet50 --one-task",
    "Values for another program": "partway cut alexnet --rate 1Gbit/s --one-task --json - | jq .one_task",
}
LINK = {
    "rate": (
        "RATE",
        "rate of the link, such as 20Mbit/s or 5MB/s; b is a bit, B a byte, 20mbps 20 Mbit/s (default: the scenario's)",
    ),
    "rtt": ("TIME", "round trip of the link, such as 10ms (default: 0)"),
    "deadline": ("TIME", "recommend the cut with the least energy that meets it; without one, the fastest cut"),
}
PROCESSORS = {
    "device-rate": ("RATE", "speed of the device, such as 8GMAC/s: clock rate x MACs per cycle x cores"),
    "server-rate": ("RATE", "the same for the server (default of both: the scenario's)"),
    "cpu-max": ("HZ", "the device's CPU rate at full speed, such as 2GHz"),
    "cpu-min": ("HZ", "its lowest CPU rate, to save energy within a deadline (default: always full speed)"),
    "cpu-power": ("WATT", "power of the device's CPU at full speed, above idle, such as 3W"),
    "idle-power": ("WATT", "power that the device always draws (default: 0)"),
    "tx-power": ("WATT", "power of the device's radio while it sends, above idle"),
    "energy-per-bit": ("J/BIT", "energy per bit sent, in place of --tx-power, such as 50nJ/bit"),
}
"""Flags of quantities: what stands for their value, and their help. `partway.planner.statement` has their kinds."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway cut`."""
    flags.add_network(parser)
    group = parser.add_argument_group("link and deadline")
    _add_quantities(group, LINK)
    group = parser.add_argument_group("device and server")
    _add_quantities(group, PROCESSORS)
    for party in ("device", "server"):
        words = f"times of layers measured on the {party}: a CSV file with columns after and ms, or a profile"
        group.add_argument(f"--{party}-times", metavar="FILE", help=words)
    flags.add_scenario(parser, "ocr")
    group = parser.add_argument_group("under load")
    group.add_argument("--one-task", action="store_true", help="give the first answer only")
    group.add_argument(
        "--device", type=whole_number, metavar="N", help="number of the device (default: the one with the median gain)"
    )
    group.add_argument(
        "--distance-m", type=float, metavar="M", help="place the device at this distance in metres, without shadowing"
    )
    group.add_argument(
        "--plan-from",
        choices=["statistics", "learned"],
        default="statistics",
        help="the scenario's statistics, or what the scheme priced learns without them (default: statistics)",
    )
    group.add_argument(
        "--blocks", type=whole_number, default=600, metavar="N", help="blocks to simulate (default: 600)"
    )
    group.add_argument("--seeds", type=whole_number, default=3, metavar="N", help="number of seeds (default: 3)")
    flags.add_output(parser)
    flags.add_figures(parser, names=False)


def _add_quantities(group: Any, texts: dict[str, tuple[str, str]]) -> None:
    for name, (metavar, text) in texts.items():
        group.add_argument(f"--{name}", metavar=metavar, help=text)


class Answers(NamedTuple):
    """Both answers; `why_not`: why there is no second one, "" if it was not asked for."""

    first: "OneTask"
    second: "CutResult | None"
    why_not: str


def run(options: argparse.Namespace) -> None:
    """Print the first answer, then find, print and write the plan."""
    from partway.cli import output

    flags.look(options)  # refuse what is wrong before anything is computed
    first = question(options)
    output.check_destinations(options)
    if not options.one_task:
        output.show_now(options, partial(_show_first, first))
        # before anything is reserved: a signal while JAX is loaded ends the process at once
        options.start_jax(module="partway.planner.evaluation")
    with output.destinations(options) as places:
        answers = Answers(first, *(_second(options, first) if not options.one_task else (None, "")))
        steps = places.steps(partial(_text, answers), partial(write, options, answers))
        rest = partial(_show_first, first) if options.one_task else partial(_show_second, answers)
        output.finish(options, partial(_text, answers), rest, steps)
    output.say_where(options)


def _second(options: argparse.Namespace, first: "OneTask") -> "tuple[CutResult | None, str]":
    """The second answer, or None and why there is none."""
    with counting(options.blocks * (1 + len(EXTREMES)), "blocks", terminal(errors=True)) as on_progress:
        try:
            return solve(options, under_load(first), on_progress), ""
        except InputError as reason:  # such as a device that can finish no task in a block: the first answer holds
            return None, str(reason)


def _show_first(first: "OneTask", console: Console) -> None:
    from partway.planner import one_task_report

    console.print(one_task_report.table(first))


def question(options: argparse.Namespace) -> "OneTask":
    """The first answer to what the flags ask. An ONNX file is profiled first."""
    from partway.planner.answer import cut, from_onnx
    from partway.planner.statement import QUANTITIES, stated_numbers

    for flag, value, low, high in (("blocks", options.blocks, 10, 1_000_000), ("seeds", options.seeds, 1, 1000)):
        if not low <= value <= high:
            raise InputError(f"--{flag} must be between {low} and {high}, got {value}")
    given = {name: value for name in QUANTITIES if (value := getattr(options, name)) is not None}
    times = {"device_times": options.device_times, "server_times": options.server_times}
    stated_numbers(given | times)  # what is wrong is said before a file is read
    network: str | Profile = options.model
    if Path(options.model).suffix.lower() == ".onnx":
        with working("reading the network", terminal(errors=True)):
            network = _profile(options)
    stated = {} if isinstance(network, Profile) else {"shapes": _shapes(options), "values": _values(options)}
    answer = cut(
        network,
        scenario=options.scenario,
        overrides=options.set,
        device=options.device,
        distance_m=options.distance_m,
        tensor_dtype=options.tensor_dtype,
        input_bits=options.input_bits,
        **stated,
        **given,
        **times,
    )
    return from_onnx(answer, options.model, _shapes(options), _values(options))


def _shapes(options: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    return flags.one_each("--shape", options.shape)


def _values(options: argparse.Namespace) -> dict[str, list[float]]:
    return flags.one_each("--input", options.input)


def _profile(options: argparse.Namespace) -> Profile:
    """The profile of an ONNX file, kept in the user's cache."""
    import platformdirs

    from partway.dnn.profile_cache import kept_profile

    folder = Path(platformdirs.user_cache_dir("partway")) / "profiles"
    return kept_profile(folder, options.model, _shapes(options), _values(options))


def under_load(first: "OneTask") -> "DeviceContext":
    """The device in its world, with the link that was stated. Raises InputError if a device can finish no task."""
    from partway.planner.context import context_at
    from partway.planner.statement import with_rate

    (placement, index), stated, scenario = first.place(), first.stated, first.scenario
    if stated.rate is not None:
        scenario = with_rate(scenario, index, float(placement.mean_gain_per_w[index]), stated.rate)
    with tempfile.TemporaryDirectory() as folder:
        if first.file is None:
            scenario = _saved(first, scenario, Path(folder))
        return context_at(scenario, first.profile, placement, index, stated.cpu_min_hz or 0.0, stated.idle_w)


def _task(scenario: "Scenario") -> dict[str, Any]:
    return scenario.device.task.model_dump(exclude_none=True)


def _saved(first: "OneTask", scenario: "Scenario", folder: Path, final: Path | None = None) -> "Scenario":
    """Write the profile into a folder -> the scenario whose tasks it is. `final`: what the folder will be called."""
    from partway.planner.statement import with_task

    name = f"{first.profile.name}.csv"
    (folder / name).write_text(write_profile(first.profile), encoding="utf-8")
    return with_task(scenario, _task(scenario) | {"profile": str((final or folder) / name)})


def solve(options: argparse.Namespace, target: "DeviceContext", on_progress: "OnProgress") -> "CutResult":
    """Plan, simulate the plan and both extremes, and find the bandwidths from which offloading pays."""
    from partway.planner.break_even import break_even
    from partway.planner.evaluation import policy_outcome, run_scheme, single_tasks
    from partway.planner.under_load_report import CutResult

    bound, why = _bound(options, target, lambda words: on_progress(words, 0))
    # the schemes that decide as the plan does: `oracle` by the bound's tables, without them `priced` by what it learns
    scheme = "priced" if bound is None else "oracle"
    seeds = range(options.seeds)
    run = run_scheme(target, scheme, seeds, options.blocks, bound, on_progress)
    rule, source = _rule(target, bound, run, f"{why}learned by priced in {options.blocks} blocks")
    rows = [policy_outcome(target, "recommended", run, rule.price)]
    rows += [_extreme(options, target, scheme, rule, on_progress) for scheme in EXTREMES]
    on_progress("break-even", 0)
    even = break_even(target.device, rule.price, target.fixed_noise)
    return CutResult(target, rule, source, even, single_tasks(target, rule), rows)


def _bound(
    options: argparse.Namespace, target: "DeviceContext", on_progress: Callable[[str], None]
) -> "tuple[Bound | None, str]":
    """The exact solution, or None and why it is not used."""
    from partway.bound.lower_bound import NoBound, lower_bound

    if options.plan_from == "learned":
        return None, ""
    try:
        return lower_bound(target.world, slack=False, on_progress=on_progress), ""
    except NoBound as reason:
        return None, f"{reason}: "


def _rule(target: "DeviceContext", bound: "Bound | None", run: "Run", learned: str) -> "tuple[PlanRule, str]":
    """What decisions are made with, and where it comes from."""
    from partway.planner.plan import exact_rule, learned_rule

    if bound is None:
        return learned_rule(target, run), learned
    return exact_rule(target, bound), "planned from the scenario's statistics with the lower bound's price and tables"


def _extreme(
    options: argparse.Namespace, target: "DeviceContext", scheme: str, rule: "PlanRule", on_progress: "OnProgress"
) -> "PolicyOutcome":
    from partway.planner.evaluation import policy_outcome, run_scheme

    run = run_scheme(target, scheme, range(options.seeds), options.blocks, None, on_progress)
    return policy_outcome(target, EXTREMES[scheme], run, rule.price)


def _show_second(answers: Answers, console: Console) -> None:
    """Print the second answer, or why there is none."""
    if answers.second:
        from partway.planner import under_load_report

        console.print("", under_load_report.details_table(answers.second, answers.first), sep="\n")
    elif answers.why_not:
        console.print(f"\nUnder load: no answer: {answers.why_not}")


def _text(answers: Answers) -> str:
    """Both answers as JSON."""
    from partway.cli import output
    from partway.planner import one_task_report

    (first, second, why_not), load = answers, None
    if second:
        from partway.planner import under_load_report  # imports JAX

        load = under_load_report.as_json(second, first)
    scenario = second.target.scenario if second else first.scenario
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "profile": first.profile.name,
        "one_task": one_task_report.as_json(first),
        "under_load": load,
        "why_not_under_load": why_not or None,
        "scenario": scenario.model_dump(mode="json", exclude_none=True),
    }
    return output.json_text(plain(document))


def write(options: argparse.Namespace, answers: Answers, folder: Path) -> None:
    """Figures, profile, table, JSON, and a scenario for other commands."""
    from partway.cli import output
    from partway.figures import cut_map, cut_rates
    from partway.figures.common import write_figures

    first, second = answers.first, answers.second
    (folder / "cut.json").write_text(_text(answers), "utf-8")
    final = Path(os.path.abspath(options.out))
    scenario = _saved(first, second.target.scenario if second else first.scenario, folder, final)
    (folder / "scenario.toml").write_text(scenario.to_toml(final), "utf-8")  # the folder can be moved

    def show_both(console: Console) -> None:
        _show_first(first, console)
        _show_second(answers, console)

    output.save_table(folder, show_both)
    draws = {"cut-rates": partial(cut_rates.draw, first)}
    if second:
        draws["cut-map"] = partial(cut_map.draw, second)
    write_figures(folder, draws, flags.look(options))
