"""`partway cut`: from its flags to the result and its files."""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partway.cli import flags
from partway.cli.flags import whole_number
from partway.cli.terminal import counting, terminal, working
from partway.dnn.profile import Profile, read_profile, write_profile
from partway.errors import InputError, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from partway.bound.lower_bound import Bound
    from partway.experiments.comparison import OnProgress
    from partway.planner.context import DeviceContext
    from partway.planner.evaluation import PolicyOutcome
    from partway.planner.plan import PlanRule
    from partway.planner.report import CutResult
    from partway.simulation.rollout import Run

EXTREMES = {"local": "all local", "full": "all remote"}
"""Schemes that the recommendation is compared with, and their names in the table."""
DESCRIPTION = (
    "Find what a device should do with a network: how many tasks to start, where to split the last one and how fast to "
    "run the CPU, for each queue length and channel state. The plan is evaluated by formula and by simulation, beside "
    "all local and all remote execution, and the bandwidth from which offloading pays is computed."
)
EXAMPLES = {
    "A shipped network in the scenario ocr": "partway cut resnet50",
    "Your own network and scenario": "partway cut model.onnx --scenario mine.toml --distance-m 80 --out my-cut",
    "A compressed input and more bandwidth": "partway cut ppocr-rec --input-bits 6e4 --set device.bandwidth_hz=5e6",
    "Values for another program": "partway cut alexnet --tensor-dtype fp16 --json - | jq .break_even_hz",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `partway cut`."""
    flags.add_network(parser)
    flags.add_scenario(parser, "ocr")
    group = parser.add_argument_group("device and plan")
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


def run(options: argparse.Namespace) -> None:
    """Find the plan, print it and write it."""
    from partway.cli import output
    from partway.planner import report

    target, errors = question(options), terminal(errors=True)
    with output.destinations(options) as places:
        with counting(options.blocks * (1 + len(EXTREMES)), "blocks", errors) as on_progress:
            result = solve(options, target, on_progress)
        text = partial(output.json_text, report.as_json(result))
        steps = places.steps(text, partial(write, options, result, text))
        output.finish(options, text, lambda console: console.print(report.details_table(result)), steps)
    output.say_where(options)


def question(options: argparse.Namespace) -> "DeviceContext":
    """The device in its world. An ONNX file is profiled first."""
    from partway.planner.context import device_context, with_task
    from partway.scenario.loading import load
    from partway.scenario.overrides import override_pairs

    for field in override_pairs(options.set):
        if "task" in field.split("."):
            raise InputError(f"--set {shown(field)}: the task is MODEL; use --tensor-dtype and --input-bits")
    for flag, value, low, high in (("blocks", options.blocks, 10, 1_000_000), ("seeds", options.seeds, 1, 1000)):
        if not low <= value <= high:
            raise InputError(f"--{flag} must be between {low} and {high}, got {value}")
    with tempfile.TemporaryDirectory() as folder:
        profile, name = _profile(options, Path(folder))
        scenario = with_task(load(options.scenario, options.set), _task(options, name))
        return device_context(scenario, profile, options.device, options.distance_m)


def _profile(options: argparse.Namespace, folder: Path) -> tuple[Profile, str]:
    """The network, and the name under which a scenario finds its profile."""
    if Path(options.model).suffix.lower() != ".onnx":
        if options.shape or options.input:
            raise InputError(f"--shape and --input need an .onnx file, got {shown(options.model)}")
        return read_profile(options.model), options.model
    from partway.dnn import graph  # needs the extra `onnx`

    with working("reading the network", terminal(errors=True)):
        profile = graph.profile_model(options.model, shapes=dict(options.shape), values=dict(options.input))
    path = folder / "network.csv"
    path.write_text(write_profile(profile), encoding="utf-8")
    return profile, str(path)


def _task(options: argparse.Namespace, profile: str) -> dict[str, Any]:
    """The task of a scenario whose devices run this network."""
    task: dict[str, Any] = {
        "kind": "layers",
        "profile": profile,
        "tensor_dtype": options.tensor_dtype,
        "cuts": "pareto",
    }
    return task if options.input_bits is None else {**task, "input_bits": options.input_bits}


def solve(options: argparse.Namespace, target: "DeviceContext", on_progress: "OnProgress") -> "CutResult":
    """Plan, simulate the plan and both extremes, and find the bandwidths from which offloading pays."""
    from partway.planner.break_even import break_even
    from partway.planner.evaluation import policy_outcome, run_scheme, single_tasks
    from partway.planner.report import CutResult

    on_progress("lower bound", 0)
    bound, why = _bound(options, target)
    scheme = "priced" if bound is None else "oracle"  # the schemes that decide as the plan does
    seeds = range(options.seeds)
    run = run_scheme(target, scheme, seeds, options.blocks, bound, on_progress)
    rule, source = _rule(target, bound, run, f"{why}learned by priced in {options.blocks} blocks")
    rows = [policy_outcome(target, "recommended", run, rule.price)]
    rows += [_extreme(options, target, scheme, rule, on_progress) for scheme in EXTREMES]
    on_progress("break-even", 0)
    even = break_even(target.device, rule.price, target.fixed_noise)
    return CutResult(target, rule, source, even, single_tasks(target, rule), rows)


def _bound(options: argparse.Namespace, target: "DeviceContext") -> "tuple[Bound | None, str]":
    """The exact solution, or None and why it is not used."""
    from partway.bound.lower_bound import NoBound, lower_bound

    if options.plan_from == "learned":
        return None, ""
    try:
        return lower_bound(target.world), ""
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


def write(options: argparse.Namespace, result: "CutResult", text: "Callable[[], str]", folder: Path) -> None:
    """Map, profile, table, JSON, and a scenario for other commands."""
    from partway.cli import output
    from partway.figures import cut_map
    from partway.planner import report
    from partway.planner.context import with_task

    profile, scenario = result.target.profile, result.target.scenario
    name = f"{profile.name}.csv"
    (folder / name).write_text(write_profile(profile), encoding="utf-8")
    (folder / "cut.json").write_text(text(), "utf-8")
    final = Path(os.path.abspath(options.out))
    text_of_scenario = with_task(scenario, _task(options, str(final / name))).to_toml(final)
    (folder / "scenario.toml").write_text(text_of_scenario, "utf-8")  # the folder can be moved
    output.save_table(folder, lambda console: console.print(report.details_table(result)))
    cut_map.write(result, folder)
